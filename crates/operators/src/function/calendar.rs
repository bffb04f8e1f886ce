//! Days and seconds of the calendar, in a zone or without one.

use std::cell::Cell;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use chrono::{DateTime, LocalResult, Offset, TimeZone};
use chrono_tz::Tz;
use datafusion::common::{DataFusionError, Result};

use super::call::Arguments;

pub(crate) const SECONDS_A_DAY: i64 = 86_400;

/// How many of `unit` make a second.
pub(crate) fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// Days since 1970-01-01 of a day of the Gregorian calendar (Howard Hinnant's `days_from_civil`).
pub(crate) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant's `civil_from_days`).
pub(crate) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

pub(crate) fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// `days` moved by months; the day stays in its month.
pub(crate) fn add_months(days: i64, months: i64) -> i64 {
    let (year, month, day) = civil_from_days(days);
    let all = year.saturating_mul(12).saturating_add(month - 1).saturating_add(months);
    let (year, month) = (all.div_euclid(12), all.rem_euclid(12) + 1);
    days_from_civil(year, month, day.min(days_in_month(year, month)))
}

/// A time zone that remembers the offset of the last quarter of an hour: offsets change on quarters only.
#[derive(Debug)]
pub(crate) struct LocalZone {
    zone: Tz,
    last: Cell<(i64, i64)>,
}

const QUARTER_SECONDS: i64 = 900;

impl LocalZone {
    pub(crate) fn new(zone: Tz) -> Self {
        Self { zone, last: Cell::new((i64::MIN, 0)) }
    }

    /// Seconds east of UTC at a second of UTC.
    #[inline]
    pub(crate) fn offset(&self, utc: i64) -> i64 {
        if self.zone == Tz::UTC {
            return 0;
        }
        let quarter = utc.div_euclid(QUARTER_SECONDS);
        let (known, offset) = self.last.get();
        if known == quarter {
            return offset;
        }
        let offset = DateTime::from_timestamp(quarter * QUARTER_SECONDS, 0)
            .map_or(0, |at| self.zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc());
        self.last.set((quarter, offset.into()));
        offset.into()
    }

    /// The second of UTC at which the zone's clocks show `local`: the first one of two, and in a gap as if the clocks
    /// had not been changed yet.
    pub(crate) fn to_utc(&self, local: i64) -> i64 {
        if self.zone == Tz::UTC {
            return local;
        }
        let Some(at) = DateTime::from_timestamp(local, 0) else { return local };
        let offset = match self.zone.offset_from_local_datetime(&at.naive_utc()) {
            LocalResult::Single(offset) | LocalResult::Ambiguous(offset, _) => offset.fix().local_minus_utc().into(),
            LocalResult::None => self.offset(local - SECONDS_A_DAY),
        };
        local - offset
    }
}

/// A point of the calendar: seconds since 1970-01-01 00:00:00 of some clock, and a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) seconds: i64,
    pub(crate) nanos: i64,
}

impl Moment {
    /// The value of a TIMESTAMP of `per_second` units a second; none if it has no room.
    pub(crate) fn value(self, per_second: i64) -> Option<i64> {
        self.seconds.checked_mul(per_second)?.checked_add(self.nanos * per_second / 1_000_000_000)
    }

    pub(crate) fn of(value: i64, per_second: i64) -> Self {
        let nanos = value.rem_euclid(per_second) * (1_000_000_000 / per_second);
        Self { seconds: value.div_euclid(per_second), nanos }
    }
}

/// A column of TIMESTAMP, TIMESTAMP_LTZ or DATE values, as the session's calendar shows them.
#[derive(Debug)]
pub(crate) struct Times {
    values: Int64Array,
    /// Units a second.
    pub(crate) per_second: i64,
    zone: LocalZone,
}

impl Times {
    pub(crate) fn of(args: &Arguments<'_>, place: usize) -> Result<Self> {
        Self::new(&args.array(place)?, args.world.zone)
    }

    pub(crate) fn new(array: &ArrayRef, zone: Tz) -> Result<Self> {
        let wrong = || DataFusionError::Internal(format!("{} is no time", array.data_type()));
        let (array, unit, is_instant) = match array.data_type() {
            DataType::Timestamp(unit, zone) => (array.clone(), *unit, zone.is_some()),
            DataType::Date32 => {
                let midnight = cast(array, &DataType::Timestamp(TimeUnit::Second, None))?;
                (midnight, TimeUnit::Second, false)
            }
            _ => return Err(wrong()),
        };
        let values = cast(&array, &DataType::Int64)?.as_primitive_opt::<Int64Type>().cloned().ok_or_else(wrong)?;
        let zone = LocalZone::new(if is_instant { zone } else { Tz::UTC });
        Ok(Self { values, per_second: per_second(unit), zone })
    }

    /// The row's value in the column's units.
    #[inline]
    pub(crate) fn raw(&self, row: usize) -> Option<i64> {
        self.values.is_valid(row).then(|| self.values.value(row))
    }

    /// What calendar and clock of the session show.
    #[inline]
    pub(crate) fn local(&self, row: usize) -> Option<Moment> {
        let Moment { seconds, nanos } = Moment::of(self.raw(row)?, self.per_second);
        Some(Moment { seconds: seconds + self.zone.offset(seconds), nanos })
    }

    /// The column's value for what calendar and clock of the session show.
    pub(crate) fn value_of(&self, local: Moment) -> Option<i64> {
        Moment { seconds: self.zone.to_utc(local.seconds), nanos: local.nanos }.value(self.per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_end_where_they_end() {
        let day = |year, month, day| days_from_civil(year, month, day);
        assert_eq!(add_months(day(2024, 1, 31), 1), day(2024, 2, 29));
        assert_eq!(add_months(day(2024, 3, 31), -1), day(2024, 2, 29));
        assert_eq!(add_months(day(2023, 12, 15), 1), day(2024, 1, 15));
        assert_eq!(add_months(day(1970, 1, 1), -1), day(1969, 12, 1));
        assert!((-800_000..800_000).all(|days| {
            let (year, month, day) = civil_from_days(days);
            days_from_civil(year, month, day) == days
        }));
    }

    #[test]
    fn clocks_that_are_changed() {
        let berlin = LocalZone::new("Europe/Berlin".parse().unwrap());
        // 2024-03-31 02:30 is not on any clock: it counts as 03:30 summer time, 01:30 UTC.
        let gap = days_from_civil(2024, 3, 31) * SECONDS_A_DAY + 9_000;
        assert_eq!(berlin.to_utc(gap), gap - 3_600);
        // 2024-10-27 02:30 comes twice: the first, in summer time, counts.
        let twice = days_from_civil(2024, 10, 27) * SECONDS_A_DAY + 9_000;
        assert_eq!(berlin.to_utc(twice), twice - 7_200);
        assert_eq!(berlin.offset(twice), 3_600);
        assert_eq!(berlin.offset(twice - 7_200), 7_200);
    }
}
