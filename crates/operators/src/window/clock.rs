//! The clock that windows go by: the time column's own, or, for TIMESTAMP_LTZ, that on the wall in the session's zone.
//!
//! A window over TIMESTAMP_LTZ is of local time: where the clocks go forward, a day has 23 hours, and where they go back,
//! an hour comes twice and both are in the same windows. So times and watermarks are turned into local milliseconds
//! before they meet a window, and everything behind that, state included, is by local time.
//!
//! Local time is not monotone. A watermark `w` becomes the greatest local time `m` such that every instant after `w` is
//! after `m` on the wall, too: [`WindowClock::watermark`]. A window that ends at local `end` is complete if `m` has reached
//! `end − 1`, which is when `w` has reached the last instant whose local time is before `end`:
//! [`WindowClock::last_instant`]. That instant is the window's `window_time`; so a result is never behind a watermark
//! that had not completed its window.
//!
//! Flink fires at the same moments (`TimeWindowUtil.toEpochMillsForTimer`, for shifts of an hour). Its `window_time`
//! (`toEpochMills`) is the earlier one of two instants with the local time `end − 1`, which watermarks have passed by then,
//! and lies in another window where `end − 1` is skipped by the clocks; here it's the later one, and the last one before.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow::array::{ArrayRef, TimestampMillisecondArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, TimeUnit};
use chrono::{DateTime, Offset, TimeZone};
use chrono_tz::Tz;

const SECOND: i64 = 1_000;
const DAY: i64 = 86_400 * SECOND;
/// The years in which clocks have been set or will be, as far as is known: 1835 to 2110.
const KNOWN_MS: (i64, i64) = (-49_310 * DAY, 51_134 * DAY);

/// What the times of a window's rows are, and what its bounds mean; cheap to copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowClock {
    /// Whether `window_time` is an instant.
    is_instant: bool,
    /// `None` where local time is the instant's own.
    shifts: Option<&'static Shifts>,
}

impl WindowClock {
    /// Rows have TIMESTAMPs, and windows are of these.
    #[must_use]
    pub fn plain() -> Self {
        Self::default()
    }

    /// Rows have TIMESTAMP_LTZs, and windows are of the local time in `zone`.
    #[must_use]
    pub fn in_zone(zone: Tz) -> Self {
        Self { is_instant: true, shifts: (zone != Tz::UTC).then(|| Shifts::of(zone)) }
    }

    /// The type of `window_time`.
    pub fn time_type(self) -> DataType {
        DataType::Timestamp(TimeUnit::Millisecond, self.is_instant.then(|| Arc::from("UTC")))
    }

    /// Whether local time differs from that of the instant.
    pub fn shifts(self) -> bool {
        self.shifts.is_some()
    }

    /// The local times of `times`, milliseconds of a column of this type: instants, or local times already.
    pub fn local_times(self, times: ScalarBuffer<i64>, data_type: &DataType) -> ScalarBuffer<i64> {
        match (self.shifts, data_type) {
            (Some(shifts), DataType::Timestamp(_, Some(_))) => {
                let mut stretch = Stretch::NONE;
                times.iter().map(|time| shifts.find(*time, &mut stretch).local(*time)).collect()
            }
            _ => times,
        }
    }

    /// The local time of an instant, both in milliseconds.
    pub fn local(self, instant: i64) -> i64 {
        self.shifts.map_or(instant, |shifts| shifts.at(instant).local(instant))
    }

    /// The last local time that no instant after the watermark has, nor an earlier one, in milliseconds.
    pub fn watermark(self, watermark: i64) -> i64 {
        self.shifts.map_or(watermark, |shifts| shifts.watermark(watermark, &mut Stretch::NONE.clone()))
    }

    /// [`Self::watermark`] of each.
    pub fn watermarks(self, watermarks: ScalarBuffer<i64>) -> ScalarBuffer<i64> {
        let Some(shifts) = self.shifts else { return watermarks };
        let mut stretch = Stretch::NONE;
        watermarks.iter().map(|watermark| shifts.watermark(*watermark, &mut stretch)).collect()
    }

    /// The last instant whose local time is before `end`, in milliseconds.
    pub fn last_instant(self, end: i64) -> i64 {
        self.shifts.map_or(end, |shifts| shifts.first_from(end)).saturating_sub(1)
    }

    /// The column `window_time` of these milliseconds.
    pub fn time_array(self, times: Vec<i64>) -> ArrayRef {
        let times = TimestampMillisecondArray::from(times);
        if self.is_instant { Arc::new(times.with_timezone("UTC")) } else { Arc::new(times) }
    }
}

/// The instants from one setting of the clocks to the next, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    from: i64,
    to: i64,
    /// Local time minus that of the instant.
    offset_ms: i64,
    /// The least local time after this stretch.
    least_behind: i64,
}

impl Stretch {
    const NONE: Self = Self { from: 0, to: 0, offset_ms: 0, least_behind: i64::MAX };

    fn holds(self, instant: i64) -> bool {
        self.from <= instant && instant < self.to
    }

    fn local(self, instant: i64) -> i64 {
        instant.saturating_add(self.offset_ms)
    }

    /// The least local time from the instant on.
    fn least_from(self, instant: i64) -> i64 {
        self.local(instant).min(self.least_behind)
    }
}

/// When the clocks of a zone are set.
#[derive(PartialEq, Eq)]
struct Shifts {
    zone: Tz,
    /// They cover all instants, in order.
    stretches: Vec<Stretch>,
}

impl fmt::Debug for Shifts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.zone.name())
    }
}

impl Shifts {
    /// The shifts of `zone`, found once in a process: there are a few hundred zones.
    fn of(zone: Tz) -> &'static Self {
        static KNOWN: LazyLock<Mutex<HashMap<Tz, &'static Shifts>>> = LazyLock::new(Mutex::default);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(zone).or_insert_with(|| Box::leak(Box::new(Self::find_all(zone))))
    }

    /// Looks at every day. Clocks that were set forth and back within one would be missed; there are none.
    fn find_all(zone: Tz) -> Self {
        let mut stretches = Vec::new();
        let (mut from, mut offset_ms) = (i64::MIN, offset_of(zone, KNOWN_MS.0));
        let mut day = KNOWN_MS.0;
        while day < KNOWN_MS.1 {
            let next = day + DAY;
            while offset_of(zone, next) != offset_ms {
                let to = change_between(zone, day.max(from), next);
                stretches.push(Stretch { from, to, offset_ms, least_behind: i64::MAX });
                (from, offset_ms) = (to, offset_of(zone, to));
            }
            day = next;
        }
        stretches.push(Stretch { from, to: i64::MAX, offset_ms, least_behind: i64::MAX });
        let mut least = i64::MAX;
        for stretch in stretches.iter_mut().rev() {
            stretch.least_behind = least;
            least = stretch.least_from(stretch.from);
        }
        Self { zone, stretches }
    }

    fn at(&self, instant: i64) -> Stretch {
        let behind = self.stretches.partition_point(|stretch| stretch.from <= instant);
        self.stretches.get(behind.saturating_sub(1)).copied().unwrap_or(Stretch::NONE)
    }

    /// The same; `last` is the stretch of the row before.
    #[inline]
    fn find(&self, instant: i64, last: &mut Stretch) -> Stretch {
        if !last.holds(instant) {
            *last = self.at(instant);
        }
        *last
    }

    #[inline]
    fn watermark(&self, watermark: i64, last: &mut Stretch) -> i64 {
        // Nothing has come yet, or nothing comes any more.
        if watermark == i64::MIN || watermark == i64::MAX {
            return watermark;
        }
        let next = watermark.saturating_add(1);
        self.find(next, last).least_from(next).saturating_sub(1)
    }

    /// The first instant from which on no local time is before `local`.
    fn first_from(&self, local: i64) -> i64 {
        let is_before =
            |stretch: &Stretch| stretch.least_behind < local || stretch.local(stretch.to.saturating_sub(1)) < local;
        let place = self.stretches.partition_point(is_before);
        let stretch = self.stretches.get(place).or(self.stretches.last()).copied().unwrap_or(Stretch::NONE);
        local.saturating_sub(stretch.offset_ms).max(stretch.from)
    }
}

/// What clocks in `zone` are ahead of UTC at `instant`, in milliseconds: whole seconds.
fn offset_of(zone: Tz, instant: i64) -> i64 {
    let time = DateTime::from_timestamp_millis(instant).unwrap_or_default().naive_utc();
    i64::from(zone.offset_from_utc_datetime(&time).fix().local_minus_utc()) * SECOND
}

/// The first second after `from`, up to `to`, whose offset is not that of `from`.
fn change_between(zone: Tz, mut from: i64, mut to: i64) -> i64 {
    let before = offset_of(zone, from);
    while to - from > SECOND {
        let middle = from + (to - from) / (2 * SECOND) * SECOND;
        if offset_of(zone, middle) == before { from = middle } else { to = middle }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;

    /// Milliseconds of a time in UTC.
    fn at(text: &str) -> i64 {
        text.parse::<DateTime<chrono::Utc>>().unwrap().timestamp_millis()
    }

    /// Each zone with instants a day before its clocks are set: forth, back; by an hour, by half of one, at midnight, by a
    /// whole day, and twice within some weeks.
    const SETTINGS: [(Tz, &str); 12] = [
        (Tz::Europe__Berlin, "2024-03-30T01:00:00Z"),
        (Tz::Europe__Berlin, "2024-10-26T01:00:00Z"),
        (Tz::America__New_York, "2024-03-09T07:00:00Z"),
        (Tz::America__New_York, "2024-11-02T06:00:00Z"),
        (Tz::Australia__Lord_Howe, "2024-10-04T15:30:00Z"),
        (Tz::Australia__Lord_Howe, "2024-04-05T15:00:00Z"),
        (Tz::America__Sao_Paulo, "2018-02-17T02:00:00Z"),
        (Tz::America__Sao_Paulo, "2018-11-03T03:00:00Z"),
        (Tz::Pacific__Apia, "2011-12-29T10:00:00Z"),
        (Tz::America__Juneau, "1867-10-17T12:00:00Z"),
        (Tz::Europe__Berlin, "1945-05-23T00:00:00Z"),
        (Tz::Asia__Kolkata, "2024-02-28T12:00:00Z"),
    ];

    #[test]
    fn a_watermark_is_before_the_local_times_of_all_later_instants_and_no_earlier() {
        for (zone, text) in SETTINGS {
            let clock = WindowClock::in_zone(zone);
            let begin = at(text);
            let locals: Vec<i64> = (0..5 * 24 * 4)
                .map(|quarter| begin + quarter * 15 * MINUTE)
                .map(|instant| instant + offset_of(zone, instant))
                .collect();
            for (quarter, instant) in (0..2 * 24 * 4).map(|quarter| (quarter, begin + quarter as i64 * 15 * MINUTE)) {
                assert_eq!(clock.local(instant), locals[quarter], "{zone} {instant}");
                // The clocks are set on a quarter of an hour, but for old local mean times.
                if instant < at("1900-01-01T00:00:00Z") {
                    continue;
                }
                let least = locals[quarter..].iter().min().unwrap();
                assert_eq!(clock.watermark(instant - 1), least - 1, "{zone} {instant}");
            }
        }
    }

    #[test]
    fn a_window_is_complete_when_the_watermark_reaches_its_time_and_not_before() {
        for (zone, text) in SETTINGS {
            let clock = WindowClock::in_zone(zone);
            for end in (0..200).map(|step| clock.local(at(text)) + step * 15 * MINUTE) {
                let time = clock.last_instant(end);
                assert!(clock.watermark(time) >= end - 1, "{zone} {end}");
                assert!(clock.watermark(time - 1) < end - 1, "{zone} {end}");
                assert!(clock.local(time) < end && clock.local(time + 1) >= end, "{zone} {end}");
            }
        }
    }

    #[test]
    fn berlin_sets_its_clocks_as_pythons_zoneinfo_says() {
        let clock = WindowClock::in_zone(Tz::Europe__Berlin);
        let local = |text: &str| at(text);
        // Forward at 2024-03-31 01:00 UTC, from 02:00 to 03:00.
        assert_eq!(clock.local(at("2024-03-31T00:59:59.999Z")), local("2024-03-31T01:59:59.999Z"));
        assert_eq!(clock.local(at("2024-03-31T01:00:00Z")), local("2024-03-31T03:00:00Z"));
        assert_eq!(clock.last_instant(local("2024-03-31T02:30:00Z")), at("2024-03-31T00:59:59.999Z"));
        assert_eq!(clock.last_instant(local("2024-04-01T00:00:00Z")), at("2024-03-31T21:59:59.999Z"));
        // Back at 2024-10-27 01:00 UTC, from 03:00 to 02:00: 02:30 comes twice, and the second one counts.
        assert_eq!(clock.local(at("2024-10-27T00:30:00Z")), local("2024-10-27T02:30:00Z"));
        assert_eq!(clock.local(at("2024-10-27T01:30:00Z")), local("2024-10-27T02:30:00Z"));
        assert_eq!(clock.last_instant(local("2024-10-27T02:30:00Z")), at("2024-10-27T01:29:59.999Z"));
        assert_eq!(clock.watermark(at("2024-10-27T00:30:00Z")), local("2024-10-27T01:59:59.999Z"));
        assert_eq!(clock.watermark(at("2024-10-27T01:30:00Z")), local("2024-10-27T02:30:00Z"));
    }

    #[test]
    fn batches_are_as_single_times_and_local_times_stay() {
        let clock = WindowClock::in_zone(Tz::America__New_York);
        let times: Vec<i64> = (0..500).map(|step| at("2024-11-02T00:00:00Z") + step * 7 * HOUR / 3).collect();
        let column = ScalarBuffer::from(times.clone());
        let instants = clock.local_times(column.clone(), &clock.time_type());
        assert_eq!(instants.to_vec(), times.iter().map(|time| clock.local(*time)).collect::<Vec<_>>());
        let marks: Vec<i64> = times.iter().map(|time| clock.watermark(*time)).collect();
        assert_eq!(clock.watermarks(column.clone()).to_vec(), marks);
        assert!(clock.local_times(column.clone(), &WindowClock::plain().time_type()).ptr_eq(&column));
    }

    #[test]
    fn plain_time_and_utc_stay_as_they_are() {
        for clock in [WindowClock::plain(), WindowClock::in_zone(Tz::UTC)] {
            let column = ScalarBuffer::from(vec![5, i64::MAX]);
            assert!(clock.local_times(column.clone(), &clock.time_type()).ptr_eq(&column));
            assert!(clock.watermarks(column.clone()).ptr_eq(&column));
            assert_eq!((clock.last_instant(5), clock.watermark(5), clock.local(5)), (4, 5, 5));
        }
        assert_ne!(WindowClock::plain().time_type(), WindowClock::in_zone(Tz::UTC).time_type());
    }

    #[test]
    fn the_ends_of_time_stay_the_ends_of_time() {
        let clock = WindowClock::in_zone(Tz::Asia__Tokyo);
        assert_eq!((clock.watermark(i64::MIN), clock.watermark(i64::MAX)), (i64::MIN, i64::MAX));
        assert_eq!(clock.local(0), 9 * HOUR);
        assert_eq!(clock.local(i64::MAX), i64::MAX);
    }
}
