//! NOW, CURRENT_TIMESTAMP and their kin: the clock of the pipeline's world, read once a batch.
//!
//! They are volatile, so that no planner folds them into a constant: a stream's rows see the time they are computed at.
//! A batch query's rows all see the moment at which it began, as in Flink; but for CURRENT_ROW_TIMESTAMP, PROCTIME and
//! UNIX_TIMESTAMP, which are of the row in both.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, Int64Array, Time32MillisecondArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use datafusion::common::{Result, ScalarValue};

use super::UTC;
use super::calendar::{LocalZone, SECONDS_A_DAY};
use super::call::Kind::Int;
use super::call::{Arguments, Definition, Gives};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("now", &[&[]], Gives::Instant, instant).volatile(),
    Definition::new("current_timestamp", &[&[], &[Int]], Gives::Instant, instant).volatile(),
    Definition::new("current_row_timestamp", &[&[]], Gives::Instant, row_instant).volatile(),
    Definition::new("proctime", &[&[]], Gives::Instant, row_instant).volatile(),
    Definition::new("localtimestamp", &[&[], &[Int]], Gives::Timestamp, local).volatile(),
    Definition::new("current_date", &[&[]], Gives::Date, date).volatile(),
    Definition::new("current_time", &[&[], &[Int]], Gives::Computed(time_type), time).volatile(),
    Definition::new("localtime", &[&[], &[Int]], Gives::Computed(time_type), time).volatile(),
    Definition::new("unix_timestamp_now", &[&[]], Gives::Long, seconds).volatile(),
];

fn time_type(_: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    Ok(DataType::Time32(TimeUnit::Millisecond))
}

fn now(args: &Arguments<'_>) -> i64 {
    args.world.query_time().0
}

/// The clock's own, in a batch query too.
fn row_now(args: &Arguments<'_>) -> i64 {
    args.world.clock.wall().0
}

/// Milliseconds of the session's calendar.
fn local_now(args: &Arguments<'_>) -> i64 {
    let now = now(args);
    now + LocalZone::new(args.world.zone).offset(now.div_euclid(1_000)) * 1_000
}

fn instant(args: &Arguments<'_>) -> Result<ArrayRef> {
    Ok(Arc::new(TimestampMillisecondArray::from(vec![now(args); args.rows]).with_timezone(UTC)))
}

fn row_instant(args: &Arguments<'_>) -> Result<ArrayRef> {
    Ok(Arc::new(TimestampMillisecondArray::from(vec![row_now(args); args.rows]).with_timezone(UTC)))
}

fn local(args: &Arguments<'_>) -> Result<ArrayRef> {
    Ok(Arc::new(TimestampMillisecondArray::from(vec![local_now(args); args.rows])))
}

fn date(args: &Arguments<'_>) -> Result<ArrayRef> {
    let day = local_now(args).div_euclid(SECONDS_A_DAY * 1_000);
    Ok(Arc::new(Date32Array::from(vec![i32::try_from(day).unwrap_or(i32::MAX); args.rows])))
}

fn time(args: &Arguments<'_>) -> Result<ArrayRef> {
    let millis = local_now(args).rem_euclid(SECONDS_A_DAY * 1_000);
    Ok(Arc::new(Time32MillisecondArray::from(vec![i32::try_from(millis).unwrap_or(0); args.rows])))
}

fn seconds(args: &Arguments<'_>) -> Result<ArrayRef> {
    Ok(Arc::new(Int64Array::from(vec![row_now(args).div_euclid(1_000); args.rows])))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{shown, shown_in, world_in};

    #[test]
    fn the_clock_is_the_worlds() {
        assert_eq!(shown("now", &[]).as_deref(), Some("1970-01-02T00:00:00.123Z"));
        assert_eq!(shown("unix_timestamp_now", &[]).as_deref(), Some("86400"));
        let new_york = world_in("America/New_York");
        assert_eq!(shown_in(&new_york, "now", &[]).as_deref(), Some("1970-01-02T00:00:00.123Z"));
        assert_eq!(shown_in(&new_york, "localtimestamp", &[]).as_deref(), Some("1970-01-01T19:00:00.123"));
        assert_eq!(shown_in(&new_york, "current_date", &[]).as_deref(), Some("1970-01-01"));
        assert_eq!(shown_in(&new_york, "current_time", &[]).as_deref(), Some("19:00:00.123"));
    }
}
