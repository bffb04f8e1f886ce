//! Window table functions as plain relations: a row gets the bounds of its window, and a row in several windows comes
//! once for each.
//!
//! | window | becomes |
//! |---|---|
//! | TUMBLE | a projection: `window_end` from the time, the rest from that |
//! | HOP, CUMULATE | a list of the ends of the row's windows, unnested |
//! | SESSION | `LAG` of the time, a running sum of the rows that open a session, the sum's least and greatest time |
//!
//! The bounds are computed by functions of our own, which know what a time before 1970, a NULL and a time too far from
//! 1970 mean for a window. A session goes on if the next row of its key is not more than the gap away.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, TimestampMillisecondArray};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use datafusion::common::{Column, DataFusionError, Result as DfResult, ScalarValue, exec_err, internal_err};
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::functions_window::lead_lag::lag;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    AggregateUDF, ColumnarValue, Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, Projection, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, WindowFrame, cast, lit, when,
};
use ruslo_operators::WindowClock;

use crate::nodes::{WindowAssign, WindowColumn};
use crate::types::UTC;
use crate::window_spec::{WindowSpec, WindowZone};

const MILLIS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

/// Most windows that one row may be in: as on a stream.
const WINDOWS_OF_A_ROW_MAX: i64 = 10_000;

/// The rows of `assign` with their windows.
pub(super) fn lower(assign: &WindowAssign) -> DfResult<LogicalPlan> {
    let time = || Expr::Column(assign.time.clone());
    let zone = assign.zone;
    match assign.window {
        WindowSpec::Tumble { size_ms, offset_ms } => {
            let end = Bound::End { size_ms, offset_ms }.of(time(), zone);
            let bounds = [end.clone() - millis(size_ms), end.clone(), window_time(end, zone)];
            with_bounds(assign, assign.input.clone(), bounds)
        }
        WindowSpec::Hop { slide_ms, size_ms, offset_ms } => {
            let rows = a_row_each(assign, Bound::HopEnds { slide_ms, size_ms, offset_ms })?;
            let bounds = [column("$end") - millis(size_ms), column("$end"), window_time(column("$end"), zone)];
            with_bounds(assign, rows, bounds)
        }
        WindowSpec::Cumulate { step_ms, size_ms, offset_ms } => {
            let rows = a_row_each(assign, Bound::CumulateEnds { step_ms, size_ms, offset_ms })?;
            let last = column("$end") - millis(1);
            let start = Bound::End { size_ms, offset_ms }.of(last, zone) - millis(size_ms);
            with_bounds(assign, rows, [start, column("$end"), window_time(column("$end"), zone)])
        }
        WindowSpec::Session { gap_ms } => session(assign, gap_ms),
    }
}

/// The `window_time` of a window that ends at `end`.
fn window_time(end: Expr, zone: WindowZone) -> Expr {
    match zone {
        WindowZone(None) => end - millis(1),
        zone => Bound::LastInstant.of(end, zone),
    }
}

/// The input's columns, and the window's behind them under the names that `assign` gives them.
fn with_bounds(assign: &WindowAssign, rows: LogicalPlan, bounds: [Expr; 3]) -> DfResult<LogicalPlan> {
    let mut exprs = columns_of(&assign.input);
    for (column, bound) in WindowColumn::ALL.into_iter().zip(bounds) {
        exprs.push(bound.alias_qualified(assign.time.relation.clone(), column.name()));
    }
    project(exprs, rows)
}

fn project(exprs: Vec<Expr>, input: LogicalPlan) -> DfResult<LogicalPlan> {
    Projection::try_new(exprs, Arc::new(input)).map(LogicalPlan::Projection)
}

fn columns_of(plan: &LogicalPlan) -> Vec<Expr> {
    plan.schema().columns().into_iter().map(Expr::Column).collect()
}

/// A column that only this lowering knows.
fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

fn millis(count: i64) -> Expr {
    lit(ScalarValue::DurationMillisecond(Some(count)))
}

/// Each row once for each of its windows, whose end is the column `$end`.
fn a_row_each(assign: &WindowAssign, ends: Bound) -> DfResult<LogicalPlan> {
    let ends = ends.of(Expr::Column(assign.time.clone()), assign.zone).alias("$end");
    let listed = project(columns_of(&assign.input).into_iter().chain([ends]).collect(), assign.input.clone())?;
    LogicalPlanBuilder::from(listed).unnest_column(Column::new_unqualified("$end"))?.build()
}

fn session(assign: &WindowAssign, gap_ms: i64) -> DfResult<LogicalPlan> {
    let input = columns_of(&assign.input);
    let and = |added: Vec<Expr>| input.iter().cloned().chain(added).collect::<Vec<_>>();
    let keys = || assign.partition.iter().cloned().map(Expr::Column).collect::<Vec<_>>();
    let in_time = || vec![column("$time").sort(true, true)];

    let timed = project(
        and(vec![Bound::Millis.of(Expr::Column(assign.time.clone()), assign.zone).alias("$time")]),
        assign.input.clone(),
    )?;
    let before = lag(column("$time"), Some(1), None).partition_by(keys()).order_by(in_time()).build()?;
    let behind = LogicalPlanBuilder::from(timed).window([before.alias("$before")])?.build()?;
    let is_first = column("$before").is_null().or((column("$time") - column("$before")).gt(lit(gap_ms)));
    let opens = when(is_first, lit(1_i64)).otherwise(lit(0_i64))?.alias("$opens");
    let opened = project(and(vec![column("$time"), opens]), behind)?;
    // A RANGE: rows of the same time are peers, and each sees the sum of all of them, whichever of them opens.
    let until_peers = WindowFrame::new(Some(false));
    let number = over(sum_udaf(), "$opens").partition_by(keys()).order_by(in_time()).window_frame(until_peers);
    let number = number.build()?;
    let numbered = LogicalPlanBuilder::from(opened).window([number.alias("$session")])?.build()?;
    let session = || keys().into_iter().chain([column("$session")]).collect::<Vec<_>>();
    let least = over(min_udaf(), "$time").partition_by(session()).build()?.alias("$least");
    let greatest = over(max_udaf(), "$time").partition_by(session()).build()?.alias("$greatest");
    let bounded = LogicalPlanBuilder::from(numbered).window([least, greatest])?.build()?;
    let first = column("$least");
    let end = |before: i64| column("$greatest") + lit(gap_ms.saturating_sub(before));
    let bounds = match assign.zone {
        WindowZone(None) => [cast(first, MILLIS), cast(end(0), MILLIS), cast(end(1), MILLIS)],
        zone => {
            let (first, last) = (cast(first, instants()), cast(end(1), instants()));
            let local = |time: Expr| Bound::Local.of(time, zone);
            [local(first), local(last.clone()) + millis(1), last]
        }
    };
    with_bounds(assign, bounded, bounds)
}

fn over(function: Arc<AggregateUDF>, argument: &str) -> Expr {
    Expr::from(WindowFunction::new(function, vec![column(argument)]))
}

/// TIMESTAMP_LTZ(3).
fn instants() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some(Arc::from(UTC)))
}

/// What is computed of a row's time: floored to milliseconds, and not NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bound {
    /// The time itself, as a BIGINT.
    Millis,
    /// The local time, as a TIMESTAMP(3).
    Local,
    /// Of a window's end: the last instant before, as a TIMESTAMP_LTZ(3).
    LastInstant,
    /// The end of the window of this size, as a TIMESTAMP(3).
    End { size_ms: i64, offset_ms: i64 },
    /// The ends of all hopping windows, as a list.
    HopEnds { slide_ms: i64, size_ms: i64, offset_ms: i64 },
    /// The ends of all cumulating windows, as a list.
    CumulateEnds { step_ms: i64, size_ms: i64, offset_ms: i64 },
}

impl Bound {
    fn of(self, time: Expr, zone: WindowZone) -> Expr {
        let signature = Signature::any(1, Volatility::Immutable);
        ScalarUDF::from(BoundFunction { bound: self, zone, signature }).call(vec![time])
    }

    fn data_type(self) -> DataType {
        match self {
            Self::Millis => DataType::Int64,
            Self::End { .. } | Self::Local => MILLIS,
            Self::LastInstant => instants(),
            Self::HopEnds { .. } | Self::CumulateEnds { .. } => DataType::List(list_item()),
        }
    }

    fn compute(self, times: &[i64], clock: WindowClock) -> DfResult<ArrayRef> {
        Ok(match self {
            Self::Local => Arc::new(TimestampMillisecondArray::from(times.to_vec())),
            Self::LastInstant => clock.time_array(times.iter().map(|end| clock.last_instant(*end)).collect()),
            Self::Millis => Arc::new(Int64Array::from(times.to_vec())),
            Self::End { size_ms, offset_ms } => {
                let ends = times.iter().map(|time| end_of(*time, size_ms, offset_ms));
                Arc::new(TimestampMillisecondArray::from(ends.collect::<DfResult<Vec<_>>>()?))
            }
            Self::HopEnds { slide_ms, size_ms, offset_ms } => lists(times, slide_ms, |time| {
                let first = end_of(time, slide_ms, offset_ms)?;
                Ok((first, first.checked_add(size_ms - slide_ms).ok_or_else(|| too_far_for(time, size_ms))?))
            })?,
            Self::CumulateEnds { step_ms, size_ms, offset_ms } => lists(times, step_ms, |time| {
                Ok((end_of(time, step_ms, offset_ms)?, end_of(time, size_ms, offset_ms)?))
            })?,
        })
    }
}

fn list_item() -> FieldRef {
    Arc::new(Field::new_list_field(MILLIS, false))
}

/// For each time the ends from the first to the last, `step_ms` apart.
fn lists(times: &[i64], step_ms: i64, bounds: impl Fn(i64) -> DfResult<(i64, i64)>) -> DfResult<ArrayRef> {
    let (mut ends, mut lengths) = (Vec::new(), Vec::with_capacity(times.len()));
    for time in times {
        let (first, last) = bounds(*time)?;
        let count = (last - first) / step_ms + 1;
        if count > WINDOWS_OF_A_ROW_MAX {
            return exec_err!(
                "a row is in {count} windows; {WINDOWS_OF_A_ROW_MAX} are the most: make the slide longer"
            );
        }
        lengths.push(usize::try_from(count).unwrap_or_default());
        ends.extend((0..count).map(|index| first + index * step_ms));
    }
    let values = Arc::new(TimestampMillisecondArray::from(ends));
    Ok(Arc::new(ListArray::try_new(list_item(), OffsetBuffer::from_lengths(lengths), values, None)?))
}

/// A [`Bound`] as a function of one argument, a TIMESTAMP.
#[derive(Debug, PartialEq, Eq, Hash)]
struct BoundFunction {
    bound: Bound,
    zone: WindowZone,
    signature: Signature,
}

impl ScalarUDFImpl for BoundFunction {
    fn name(&self) -> &str {
        match self.bound {
            Bound::Millis => "event_time",
            Bound::Local => "local_time",
            Bound::LastInstant => "window_time",
            Bound::End { .. } => "window_end",
            Bound::HopEnds { .. } | Bound::CumulateEnds { .. } => "window_ends",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.bound.data_type())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), self.bound.data_type(), false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let (clock, mut times) = (self.zone.clock(), ScalarBuffer::from(times(&args)?));
        // Sessions are of instants.
        if let (true, Some(field)) = (self.bound != Bound::Millis, args.arg_fields.first()) {
            times = clock.local_times(times, field.data_type());
        }
        Ok(ColumnarValue::Array(self.bound.compute(&times, clock)?))
    }
}

/// The end of the window `[offset + k × size, offset + (k + 1) × size)` that `time` is in.
fn end_of(time: i64, size_ms: i64, offset_ms: i64) -> DfResult<i64> {
    let wide = i128::from(time) - i128::from(offset_ms);
    let size = i128::from(size_ms);
    let start = wide.div_euclid(size) * size + i128::from(offset_ms);
    match (i64::try_from(start), i64::try_from(start + size)) {
        (Ok(_), Ok(end)) => Ok(end),
        _ => Err(too_far_for(time, size_ms)),
    }
}

fn too_far_for(time: i64, size_ms: i64) -> DataFusionError {
    DataFusionError::Execution(format!("the event time {time} ms is too far from 1970 for a window of {size_ms} ms"))
}

/// The argument in milliseconds, rounded towards the past.
fn times(args: &ScalarFunctionArgs) -> DfResult<Vec<i64>> {
    let column = ColumnarValue::values_to_arrays(&args.args)?;
    let Some(column) = column.first() else { return internal_err!("a window without a time") };
    if column.null_count() > 0 {
        let name = args.arg_fields.first().map(|field| field.name().as_str()).unwrap_or_default();
        let name = name.rsplit('.').next().unwrap_or_default();
        return exec_err!(
            "the time column '{name}' is NULL; filter such rows with WHERE {name} IS NOT NULL before the window"
        );
    }
    let floor = |values: &[i64], per_milli: i64| values.iter().map(|value| value.div_euclid(per_milli)).collect();
    Ok(match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            let seconds = column.as_primitive::<TimestampSecondType>().values().iter();
            seconds.map(|second| second.checked_mul(1_000).ok_or_else(|| too_far(*second))).collect::<DfResult<_>>()?
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            column.as_primitive::<TimestampMillisecondType>().values().to_vec()
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            floor(column.as_primitive::<TimestampMicrosecondType>().values(), 1_000)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            floor(column.as_primitive::<TimestampNanosecondType>().values(), 1_000_000)
        }
        other => return internal_err!("event time of type {other} is not a TIMESTAMP"),
    })
}

fn too_far(second: i64) -> DataFusionError {
    let sentence = format!("the timestamp {second} s is too far from 1970 to be counted in milliseconds");
    DataFusionError::Execution(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_window_that_begins_at_or_before_it() {
        for (time, size, offset, end) in [(0, 10, 0, 10), (-1, 10, 0, 0), (9, 10, 0, 10), (3, 10, 4, 4), (4, 10, 4, 14)]
        {
            assert_eq!(end_of(time, size, offset).unwrap(), end, "{time} {size} {offset}");
        }
    }

    #[test]
    fn a_time_too_far_from_1970_has_no_window() {
        let error = end_of(i64::MAX, 10, 0).unwrap_err();
        assert!(error.to_string().contains("too far from 1970 for a window of 10 ms"), "{error}");
        assert!(end_of(i64::MIN, 10, 0).is_err());
    }

    fn ends(bound: Bound, time: i64) -> Vec<i64> {
        let lists = bound.compute(&[time], WindowClock::plain()).unwrap();
        lists.as_list::<i32>().value(0).as_primitive::<TimestampMillisecondType>().values().to_vec()
    }

    #[test]
    fn a_row_is_in_every_window_that_holds_its_time() {
        let hop = Bound::HopEnds { slide_ms: 5, size_ms: 15, offset_ms: 0 };
        assert_eq!(ends(hop, 7), [10, 15, 20]);
        assert_eq!(ends(hop, -1), [0, 5, 10]);
        let cumulate = Bound::CumulateEnds { step_ms: 5, size_ms: 15, offset_ms: 1 };
        assert_eq!(ends(cumulate, 1), [6, 11, 16]);
        assert_eq!(ends(cumulate, 15), [16]);
        assert_eq!(ends(cumulate, 0), [1]);
    }
}
