//! TIMESTAMPADD, TIMESTAMPDIFF, and FLOOR and CEIL of a time to a unit: calendar arithmetic.
//!
//! The first argument is the unit, a constant that the planner made of a keyword.

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use datafusion::common::{DataFusionError, Result, ScalarValue};

use super::calendar::{Moment, SECONDS_A_DAY, Times, add_months, civil_from_days, days_from_civil};
use super::call::Kind::{Day, Long, Text};
use super::call::{Argument, Arguments, Definition, Gives, bad_value, constant_text, unfit};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("timestampadd", &[&[Text, Long, Day]], Gives::Computed(added), add).checked(check),
    Definition::new("timestampdiff", &[&[Text, Day, Day]], Gives::Int, difference).checked(check),
    Definition::new("floor_to", &[&[Text, Day]], Gives::Computed(floored), floor).checked(check),
    Definition::new("ceil_to", &[&[Text, Day]], Gives::Computed(floored), ceil).checked(check),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Months(i64),
    Seconds(i64),
    /// From Monday on, for FLOOR.
    Week,
    Nanos(i64),
}

impl Unit {
    fn named(name: &str) -> Option<Self> {
        let name = name.to_uppercase();
        Some(match name.strip_prefix("SQL_TSI_").unwrap_or(&name) {
            "MILLENNIUM" => Self::Months(12_000),
            "CENTURY" => Self::Months(1_200),
            "DECADE" => Self::Months(120),
            "YEAR" => Self::Months(12),
            "QUARTER" => Self::Months(3),
            "MONTH" => Self::Months(1),
            "WEEK" => Self::Week,
            "DAY" => Self::Seconds(SECONDS_A_DAY),
            "HOUR" => Self::Seconds(3_600),
            "MINUTE" => Self::Seconds(60),
            "SECOND" => Self::Seconds(1),
            "MILLISECOND" => Self::Nanos(1_000_000),
            "MICROSECOND" => Self::Nanos(1_000),
            "NANOSECOND" => Self::Nanos(1),
            _ => return None,
        })
    }

    fn is_of_days(self) -> bool {
        match self {
            Self::Months(_) | Self::Week => true,
            Self::Seconds(seconds) => seconds % SECONDS_A_DAY == 0,
            Self::Nanos(_) => false,
        }
    }
}

fn no_unit(name: &str) -> String {
    format!("there is no unit '{name}'; there are YEAR, QUARTER, MONTH, WEEK, DAY, HOUR, MINUTE, SECOND, MILLISECOND")
}

fn check(constants: &[Option<&ScalarValue>]) -> Result<()> {
    let name = constant_text(constants, 0).unwrap_or_default();
    Unit::named(name).map(drop).ok_or_else(|| unfit(no_unit(name)))
}

fn unit(args: &Arguments<'_>) -> Result<Unit> {
    match args.text(0)? {
        Argument::Constant(Some(name)) => Unit::named(name).ok_or_else(|| bad_value(no_unit(name))),
        texts => texts.get(0).and_then(Unit::named).ok_or_else(|| bad_value(no_unit(""))),
    }
}

/// A DATE stays one if whole days are added.
fn added(fields: &[FieldRef], constants: &[Option<&ScalarValue>]) -> Result<DataType> {
    let is_of_days = constant_text(constants, 0).and_then(Unit::named).is_some_and(Unit::is_of_days);
    match fields.get(2).map(|field| field.data_type()) {
        Some(DataType::Date32) if !is_of_days => Ok(DataType::Timestamp(TimeUnit::Millisecond, None)),
        Some(other) => Ok(other.clone()),
        None => Err(unfit("TIMESTAMPADD takes a unit, a number and a time")),
    }
}

fn floored(fields: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    fields.get(1).map(|field| field.data_type().clone()).ok_or_else(|| unfit("a time is needed"))
}

fn add(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (unit, counts, times) = (unit(args)?, args.long(1)?, Times::of(args, 2)?);
    from_moments(args, &times, |row| {
        let (Some(count), Some(moment)) = (counts.get(row), times.local(row)) else { return Ok(None) };
        let far = || bad_value(format!("TIMESTAMPADD of {count} goes beyond what a TIMESTAMP holds"));
        moved(moment, unit, count).map(Some).ok_or_else(far)
    })
}

fn moved(moment: Moment, unit: Unit, count: i64) -> Option<Moment> {
    // Beyond this no TIMESTAMP reaches.
    const SECONDS_MAX: i64 = 1 << 53;
    let Moment { seconds, nanos } = moment;
    let moved = match unit {
        Unit::Months(months) => {
            let months = months.checked_mul(count).filter(|months| months.unsigned_abs() < 1 << 32)?;
            let days = add_months(seconds.div_euclid(SECONDS_A_DAY), months);
            Moment { seconds: days * SECONDS_A_DAY + seconds.rem_euclid(SECONDS_A_DAY), nanos }
        }
        Unit::Week => Moment { seconds: seconds.checked_add(count.checked_mul(7 * SECONDS_A_DAY)?)?, nanos },
        Unit::Seconds(unit) => Moment { seconds: seconds.checked_add(count.checked_mul(unit)?)?, nanos },
        Unit::Nanos(unit) => {
            let all = i128::from(nanos) + i128::from(count) * i128::from(unit);
            let carried = i64::try_from(all.div_euclid(1_000_000_000)).ok()?;
            Moment { seconds: seconds.checked_add(carried)?, nanos: all.rem_euclid(1_000_000_000) as i64 }
        }
    };
    (moved.seconds.unsigned_abs() < SECONDS_MAX as u64).then_some(moved)
}

/// A column of the type that must come out, of what the session's calendar shows.
fn from_moments(
    args: &Arguments<'_>,
    times: &Times,
    mut moment: impl FnMut(usize) -> Result<Option<Moment>>,
) -> Result<ArrayRef> {
    if *args.gives == DataType::Date32 {
        let days = args.ints(|row| {
            Ok(moment(row)?.and_then(|moment| i32::try_from(moment.seconds.div_euclid(SECONDS_A_DAY)).ok()))
        })?;
        return Ok(cast(&days, &DataType::Date32)?);
    }
    let DataType::Timestamp(unit, _) = args.gives else {
        return Err(DataFusionError::Internal(format!("{} is no time", args.gives)));
    };
    let per_second = super::calendar::per_second(*unit);
    let values = args.longs(|row| {
        let Some(moment) = moment(row)? else { return Ok(None) };
        let value = if times.per_second == per_second { times.value_of(moment) } else { moment.value(per_second) };
        value.map(Some).ok_or_else(|| bad_value("a time goes beyond what a TIMESTAMP holds"))
    })?;
    Ok(cast(&values, args.gives)?)
}

fn difference(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (unit, from, to) = (unit(args)?, Times::of(args, 1)?, Times::of(args, 2)?);
    args.ints(|row| {
        let (Some(from), Some(to)) = (from.local(row), to.local(row)) else { return Ok(None) };
        let units = units_between(from, to, unit);
        let too_many = || bad_value(format!("TIMESTAMPDIFF gives {units}, which an INT cannot hold"));
        i32::try_from(units).map(Some).map_err(|_| too_many())
    })
}

/// Whole units from one time to the other, cut towards zero.
fn units_between(from: Moment, to: Moment, unit: Unit) -> i128 {
    let nanos = |moment: Moment| i128::from(moment.seconds) * 1_000_000_000 + i128::from(moment.nanos);
    let between = nanos(to) - nanos(from);
    match unit {
        Unit::Nanos(unit) => between / i128::from(unit),
        Unit::Seconds(unit) => between / (i128::from(unit) * 1_000_000_000),
        Unit::Week => between / (i128::from(7 * SECONDS_A_DAY) * 1_000_000_000),
        Unit::Months(unit) => i128::from(months_between(from, to) / unit),
    }
}

/// Whole months: the last one counts once its day and time of day are reached.
fn months_between(from: Moment, to: Moment) -> i64 {
    let parts = |moment: Moment| {
        let (year, month, day) = civil_from_days(moment.seconds.div_euclid(SECONDS_A_DAY));
        (year * 12 + month, (day, moment.seconds.rem_euclid(SECONDS_A_DAY), moment.nanos))
    };
    let ((from_month, from_rest), (to_month, to_rest)) = (parts(from), parts(to));
    let months = to_month - from_month;
    match months {
        1.. if to_rest < from_rest => months - 1,
        ..=-1 if to_rest > from_rest => months + 1,
        months => months,
    }
}

fn floor(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (unit, times) = (unit(args)?, Times::of(args, 1)?);
    from_moments(args, &times, |row| Ok(times.local(row).map(|moment| floor_moment(moment, unit))))
}

fn ceil(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (unit, times) = (unit(args)?, Times::of(args, 1)?);
    from_moments(args, &times, |row| {
        Ok(times.local(row).and_then(|moment| {
            let below = floor_moment(moment, unit);
            if below == moment { Some(moment) } else { moved(below, unit, 1) }
        }))
    })
}

fn floor_moment(moment: Moment, unit: Unit) -> Moment {
    let days = moment.seconds.div_euclid(SECONDS_A_DAY);
    match unit {
        Unit::Nanos(unit) => Moment { nanos: moment.nanos - moment.nanos % unit, ..moment },
        Unit::Seconds(unit) => Moment { seconds: moment.seconds - moment.seconds.rem_euclid(unit), nanos: 0 },
        // 1970-01-01 was a Thursday; weeks begin on Sunday, as in Flink.
        Unit::Week => Moment { seconds: (days - (days + 4).rem_euclid(7)) * SECONDS_A_DAY, nanos: 0 },
        Unit::Months(unit) => {
            let (year, month, _) = civil_from_days(days);
            // Centuries and millennia begin with their year 1.
            let shift = if unit >= 1_200 { 12 } else { 0 };
            let months = year * 12 + month - 1 - shift;
            let first = months - months.rem_euclid(unit) + shift;
            Moment {
                seconds: days_from_civil(first.div_euclid(12), first.rem_euclid(12) + 1, 1) * SECONDS_A_DAY,
                nanos: 0,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::common::ScalarValue;

    use super::super::testing::{long, refused, shown, shown_in, text, world_in};

    fn at(time: &str) -> ScalarValue {
        let array = ScalarValue::Utf8(Some(time.to_owned()));
        array.cast_to(&arrow::datatypes::DataType::Timestamp(arrow::datatypes::TimeUnit::Millisecond, None)).unwrap()
    }

    fn day(time: &str) -> ScalarValue {
        at(time).cast_to(&arrow::datatypes::DataType::Date32).unwrap()
    }

    #[test]
    fn units_are_added() {
        let cases = [
            ("DAY", 1, "2016-06-15 00:00:00", "2016-06-16T00:00:00"),
            ("WEEK", -1, "2016-06-15 00:00:00", "2016-06-08T00:00:00"),
            ("MONTH", 1, "2024-01-31 10:00:00", "2024-02-29T10:00:00"),
            ("QUARTER", -1, "2024-05-31 10:00:00", "2024-02-29T10:00:00"),
            ("YEAR", 1, "2024-02-29 00:00:00", "2025-02-28T00:00:00"),
            ("SQL_TSI_HOUR", 25, "2024-02-28 23:30:00", "2024-03-01T00:30:00"),
            ("MILLISECOND", -1, "1970-01-01 00:00:00", "1969-12-31T23:59:59.999"),
        ];
        for (unit, count, time, expected) in cases {
            let found = shown("timestampadd", &[text(unit), long(count), at(time)]).unwrap();
            assert_eq!(found, expected, "{unit} {count} {time}");
        }
        assert_eq!(shown("timestampadd", &[text("DAY"), long(1), day("2024-02-28")]).unwrap(), "2024-02-29");
        assert_eq!(shown("timestampadd", &[text("HOUR"), long(1), day("2024-02-28")]).unwrap(), "2024-02-28T01:00:00");
        assert!(
            refused("timestampadd", &[text("FORTNIGHT"), long(1), at("1970-01-01 00:00:00")]).contains("'FORTNIGHT'")
        );
    }

    #[test]
    fn whole_units_lie_between() {
        let cases = [
            ("DAY", "2003-01-02 10:00:00", "2003-01-03 10:00:00", "1"),
            ("DAY", "2003-01-02 10:00:00", "2003-01-03 09:59:59", "0"),
            ("HOUR", "2018-07-05 11:11:11", "2018-07-04 12:12:11", "-22"),
            ("MONTH", "2024-01-31 00:00:00", "2024-02-29 00:00:00", "0"),
            ("MONTH", "2024-02-29 00:00:00", "2024-01-31 00:00:00", "0"),
            ("MONTH", "2024-03-15 00:00:00", "2024-01-14 23:59:59", "-2"),
            ("YEAR", "2000-02-29 00:00:00", "2024-02-28 00:00:00", "23"),
            ("WEEK", "2024-01-01 00:00:00", "2024-01-15 00:00:00", "2"),
            ("SECOND", "1969-12-31 23:59:59", "1970-01-01 00:00:01", "2"),
        ];
        for (unit, from, to, expected) in cases {
            let found = shown("timestampdiff", &[text(unit), at(from), at(to)]).unwrap();
            assert_eq!(found, expected, "{unit} {from} {to}");
        }
    }

    #[test]
    fn times_are_rounded_to_units() {
        let cases = [
            ("floor_to", "MINUTE", "2024-02-29 12:44:31", "2024-02-29T12:44:00"),
            ("ceil_to", "MINUTE", "2024-02-29 12:44:31", "2024-02-29T12:45:00"),
            ("floor_to", "MONTH", "2024-02-29 12:44:31", "2024-02-01T00:00:00"),
            ("ceil_to", "YEAR", "2024-02-29 12:44:31", "2025-01-01T00:00:00"),
            ("ceil_to", "YEAR", "2024-01-01 00:00:00", "2024-01-01T00:00:00"),
            ("floor_to", "QUARTER", "1969-06-30 00:00:00", "1969-04-01T00:00:00"),
            ("floor_to", "WEEK", "2024-02-29 12:44:31", "2024-02-25T00:00:00"),
            ("floor_to", "HOUR", "1969-12-31 23:59:59", "1969-12-31T23:00:00"),
            ("floor_to", "DECADE", "2024-02-29 12:44:31", "2020-01-01T00:00:00"),
            ("floor_to", "CENTURY", "2000-02-29 12:44:31", "1901-01-01T00:00:00"),
        ];
        for (function, unit, time, expected) in cases {
            assert_eq!(shown(function, &[text(unit), at(time)]).unwrap(), expected, "{function} {unit} {time}");
        }
        let berlin = world_in("Europe/Berlin");
        let noon = ScalarValue::TimestampMillisecond(Some(1_720_000_000_000), Some("UTC".into()));
        assert_eq!(shown_in(&berlin, "floor_to", &[text("DAY"), noon]).unwrap(), "2024-07-02T22:00:00Z");
    }
}
