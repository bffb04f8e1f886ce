//! Dates and times from text and back: `2013-01-01 05:00:00.123`, `2013-01-01T10:00:00Z` and what lies between.
//!
//! Reading accepts a space or a `T` between date and time, an absent seconds part, one to nine fraction digits (more
//! than the column holds are cut off, as Flink does), and `Z` or `+hh:mm` at the end. Years are 0001 to 9999.
//! Neighbouring rows mostly lie in the same minute, so a column remembers the text of its last minute.

use crate::column::Misfit;
use crate::number::write;
use crate::scan::{chunk16, word8};
use arrow::datatypes::TimeUnit;

/// A point in time, and the zone it was written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Seconds since 1970-01-01 00:00:00, of the clock that was read.
    pub(crate) seconds: i64,
    /// Of the second.
    pub(crate) nanoseconds: u32,
    /// Seconds east of UTC, if a zone was written; `Z` is zero.
    pub(crate) zone: Option<i32>,
}

/// The text of a minute, and its seconds since the epoch: what the last row of a column held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Minute {
    text: u128,
    seconds: i64,
}

impl Default for Minute {
    /// The first minute of 1970.
    fn default() -> Self {
        Self { text: u128::from_le_bytes(*b"1970-01-01 00:00"), seconds: 0 }
    }
}

impl Minute {
    /// Seconds since the epoch of a `yyyy-MM-dd HH:mm` text of 16 bytes.
    #[inline(always)]
    fn seconds(&mut self, text: &[u8; 16]) -> Option<i64> {
        let word = u128::from_le_bytes(*text);
        if word != self.text {
            *self = Self { text: word, seconds: minute(text)? };
        }
        Some(self.seconds)
    }
}

/// Reads `yyyy-MM-dd HH:mm:ss.SSS` and the byte `close` behind it at `at`, the common case: milliseconds since the epoch.
///
/// `None` for any other form, which [`moment`] may still read.
#[inline(always)]
pub(crate) fn milliseconds(bytes: &[u8], at: usize, close: u8, cache: &mut Minute) -> Option<i64> {
    let minute = cache.seconds(chunk16(bytes, at)?)?;
    Some(minute * 1000 + second_milliseconds(word8(bytes, at + 16)?, close)?)
}

/// Reads `:ss.SSS` and the byte `close` from a word.
#[inline(always)]
fn second_milliseconds(word: u64, close: u8) -> Option<i64> {
    // `:`, two digits, `.`, three digits, the closing byte; first byte lowest.
    let template = 0x0030_3030_2e30_303a | (u64::from(close) << 56);
    let values = word ^ template;
    let digits = values & 0x000f_0f0f_000f_0f00;
    let valid = values == digits && (digits.wrapping_add(0x0006_0606_0006_0600) & 0x00f0_f0f0_00f0_f000) == 0;
    let digit = |byte: u32| ((digits >> (8 * byte)) & 0xf) as i64;
    let seconds = digit(1) * 10 + digit(2);
    (valid && seconds < 60).then(|| seconds * 1000 + digit(4) * 100 + digit(5) * 10 + digit(6))
}

/// Reads a whole text as a point in time.
pub(crate) fn moment(text: &[u8], cache: &mut Minute) -> Option<Moment> {
    let text = text.trim_ascii();
    let (prefix, rest) = text.split_first_chunk::<16>()?;
    let minute = cache.seconds(prefix)?;
    let (seconds, rest) = match rest.split_first_chunk::<3>() {
        Some(([b':', tens, ones], rest)) => (two([*tens, *ones]).filter(|seconds| *seconds < 60)?, rest),
        _ => (0, rest),
    };
    let (nanoseconds, rest) = match rest.split_first() {
        Some((b'.', rest)) => fraction(rest)?,
        _ => (0, rest),
    };
    Some(Moment { seconds: minute + seconds, nanoseconds, zone: zone(rest)? })
}

/// One to nine digits of a second's fraction, as nanoseconds, and what follows them.
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let length = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(length)?;
    if length == 0 || length > 9 {
        return None;
    }
    let padded = digits.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    Some((padded.fold(0, |value, digit| value * 10 + u32::from(digit - b'0')), rest))
}

/// What may follow the time: nothing, `Z`, `+hh:mm` or `-hh:mm`.
fn zone(text: &[u8]) -> Option<Option<i32>> {
    match text {
        [] => Some(None),
        [b'Z' | b'z'] => Some(Some(0)),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let hours = two([*h1, *h2]).filter(|hours| *hours <= 18)?;
            let minutes = two([*m1, *m2]).filter(|minutes| *minutes < 60)?;
            let seconds = (hours * 3600 + minutes * 60) as i32;
            Some(Some(if *sign == b'-' { -seconds } else { seconds }))
        }
        _ => None,
    }
}

/// Seconds since the epoch of `yyyy-MM-dd HH:mm`, the separator a space or a `T`.
fn minute(text: &[u8; 16]) -> Option<i64> {
    let (date_text, [separator, h1, h2, b':', m1, m2]) = text.split_first_chunk::<10>()? else { return None };
    if !matches!(separator, b' ' | b'T' | b't') {
        return None;
    }
    let hours = two([*h1, *h2]).filter(|hours| *hours < 24)?;
    let minutes = two([*m1, *m2]).filter(|minutes| *minutes < 60)?;
    Some(i64::from(date(date_text)?) * 86_400 + hours * 3600 + minutes * 60)
}

/// Days since the epoch of a whole text, spaces around it forgiven.
pub(crate) fn date_text(text: &[u8]) -> Option<i32> {
    date(text.trim_ascii().try_into().ok()?)
}

/// Days since the epoch of `yyyy-MM-dd`.
fn date(text: &[u8; 10]) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = *text else { return None };
    let year = two([y1, y2])? * 100 + two([y3, y4])?;
    let month = two([m1, m2])?;
    let day = two([d1, d2])?;
    let valid = year >= 1 && (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
    valid.then(|| days_from_civil(year, month, day) as i32)
}

/// Milliseconds of the day of `HH:mm:ss` or `HH:mm`, with up to nine digits of a fraction, of which three count.
pub(crate) fn time_text(text: &[u8]) -> Option<i32> {
    let (minute, rest) = text.trim_ascii().split_first_chunk::<5>()?;
    let [h1, h2, b':', m1, m2] = *minute else { return None };
    let hours = two([h1, h2]).filter(|hours| *hours < 24)?;
    let minutes = two([m1, m2]).filter(|minutes| *minutes < 60)?;
    let (seconds, nanoseconds) = match rest {
        [] => (0, 0),
        [b':', s1, s2, rest @ ..] => {
            let nanoseconds = match rest {
                [] => 0,
                [b'.', digits @ ..] => fraction(digits).filter(|(_, rest)| rest.is_empty())?.0,
                _ => return None,
            };
            (two([*s1, *s2]).filter(|seconds| *seconds < 60)?, nanoseconds)
        }
        _ => return None,
    };
    Some(((hours * 60 + minutes) * 60 + seconds) as i32 * 1000 + (nanoseconds / 1_000_000) as i32)
}

fn two(digits: [u8; 2]) -> Option<i64> {
    let [tens, ones] = digits.map(|digit| digit.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| i64::from(tens) * 10 + i64::from(ones))
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a day of the Gregorian calendar (Howard Hinnant's `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Year, month and day of a day since 1970-01-01 (Howard Hinnant's `civil_from_days`).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

/// How many of `unit` make a second.
pub(crate) fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

impl Moment {
    /// The value of a column of `per_second` units a second; with `utc` the zone counts, without it only `Z` may stand.
    pub(crate) fn value(self, per_second: i64, utc: bool) -> Result<i64, Misfit> {
        let zone = match (self.zone, utc) {
            (Some(zone), true) => i64::from(zone),
            (None | Some(0), _) => 0,
            (Some(_), false) => return Err(Misfit::HasZone),
        };
        let fraction = i64::from(self.nanoseconds) * per_second / 1_000_000_000;
        let value = (self.seconds - zone).checked_mul(per_second).and_then(|value| value.checked_add(fraction));
        value.ok_or(Misfit::DoesNotFit)
    }
}

/// How timestamps are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum TimestampStyle {
    /// `2013-01-01 05:00:00.123`
    #[default]
    Sql,
    /// `2013-01-01T05:00:00.123`
    Iso,
}

/// Appends a timestamp with as many fraction digits as it needs, and `Z` after one that is UTC.
pub(crate) fn write_timestamp(value: i64, per_second: i64, utc: bool, style: TimestampStyle, out: &mut Vec<u8>) {
    let seconds = value.div_euclid(per_second);
    write_date(seconds.div_euclid(86_400), out);
    out.push(if style == TimestampStyle::Iso { b'T' } else { b' ' });
    write_clock(seconds.rem_euclid(86_400), out);
    write_fraction(value.rem_euclid(per_second), per_second, out);
    if utc {
        out.push(b'Z');
    }
}

/// Appends a time of day with as many fraction digits as it needs.
pub(crate) fn write_time(milliseconds: i32, out: &mut Vec<u8>) {
    let milliseconds = i64::from(milliseconds);
    write_clock(milliseconds.div_euclid(1000).rem_euclid(86_400), out);
    write_fraction(milliseconds.rem_euclid(1000), 1000, out);
}

/// Appends `HH:mm:ss`.
fn write_clock(second_of_day: i64, out: &mut Vec<u8>) {
    write_two(second_of_day / 3600, out);
    out.push(b':');
    write_two(second_of_day / 60 % 60, out);
    out.push(b':');
    write_two(second_of_day % 60, out);
}

fn write_fraction(fraction: i64, per_second: i64, out: &mut Vec<u8>) {
    if fraction == 0 {
        return;
    }
    out.push(b'.');
    let (mut rest, mut unit) = (fraction, per_second / 10);
    while rest > 0 && unit > 0 {
        out.push(b'0' + (rest / unit) as u8);
        rest %= unit;
        unit /= 10;
    }
}

/// Appends `yyyy-MM-dd`.
pub(crate) fn write_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = civil_from_days(days);
    match year {
        0..=9999 => {
            write_two(year / 100, out);
            write_two(year % 100, out);
        }
        _ => write(year, out),
    }
    out.push(b'-');
    write_two(month, out);
    out.push(b'-');
    write_two(day, out);
}

fn write_two(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Moment> {
        moment(text.as_bytes(), &mut Minute::default())
    }

    fn slowly(text: &str) -> Option<i64> {
        read(text).map(|moment| moment.value(1000, true).unwrap())
    }

    #[test]
    fn both_standards_are_read() {
        assert_eq!(slowly("2013-01-01 05:00:00.123"), Some(1_357_016_400_123));
        assert_eq!(slowly("2013-01-01T10:00:00Z"), Some(1_357_034_400_000));
        assert_eq!(slowly("2013-01-01 05:00"), Some(1_357_016_400_000));
        assert_eq!(slowly("2013-01-01T05:00:00.5+01:30"), Some(1_357_016_400_500 - 5_400_000));
        assert_eq!(slowly("1969-12-31 23:59:59.999"), Some(-1));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let bad = [
            "",
            "x",
            "2013-01-01",
            "2013-02-29 00:00:00",
            "2013-13-01 00:00:00",
            "2013-01-01 24:00:00",
            "2013-01-01 00:60:00",
            "2013-01-01 00:00:60",
            "2013-01-01 00:00:00.",
            "2013-01-01 00:00:00.1234567890",
            "2013-01-01 00:00:00 UTC",
            "2013-01-01_00:00:00",
            "2013-01-00 00:00:00",
            "0000-01-01 00:00:00",
            "2013-01-01 00:00:0a",
            "2013-01-01 00:00:",
            "2013-01-01 00:00:00+1:00",
            "2013-01-01 00:00:00+19:00",
            "20a3-01-01 00:00:00",
        ];
        for text in bad {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn the_quick_way_agrees_with_the_slow_one() {
        let mut cache = Minute::default();
        for text in
            ["2013-01-01 05:00:00.123", "2013-01-01 05:00:59.999", "2000-02-29 23:59:01.000", "9999-12-31 23:59:59.999"]
        {
            let quoted = format!("\"{text}\",");
            assert_eq!(milliseconds(quoted.as_bytes(), 1, b'"', &mut cache), slowly(text));
        }
    }

    #[test]
    fn the_quick_way_refuses_every_changed_byte_that_the_slow_one_refuses() {
        let good = "\"2013-01-01 05:07:42.123\"   ";
        for at in 1..25 {
            for byte in 0..=127u8 {
                let mut text = good.as_bytes().to_vec();
                text[at] = byte;
                let quick = milliseconds(&text, 1, b'"', &mut Minute::default());
                let inside = std::str::from_utf8(&text[1..24]).unwrap();
                if let Some(value) = quick {
                    assert_eq!(Some(value), slowly(inside), "{inside}");
                }
            }
        }
    }

    #[test]
    fn a_remembered_minute_is_not_taken_for_another() {
        let mut cache = Minute::default();
        let first = moment(b"2013-01-01 05:00:07", &mut cache).unwrap();
        let second = moment(b"2013-01-01 05:01:07", &mut cache).unwrap();
        assert_eq!(second.seconds - first.seconds, 60);
        assert_eq!(moment(b"2013-01-01 05:6x:07", &mut cache), None);
        assert_eq!(moment(b"2013-01-01 05:01:09", &mut cache).unwrap().seconds, second.seconds + 2);
    }

    #[test]
    fn more_digits_than_the_column_holds_are_cut_off_and_more_years_refused() {
        let moment = read("2013-01-01 05:00:00.123456789").unwrap();
        assert_eq!(moment.value(1000, false), Ok(1_357_016_400_123));
        assert_eq!(moment.value(1_000_000_000, false), Ok(1_357_016_400_123_456_789));
        assert_eq!(read("2500-01-01 00:00:00").unwrap().value(1_000_000_000, false), Err(Misfit::DoesNotFit));
        assert_eq!(read("2013-01-01 05:00:00+02:00").unwrap().value(1000, false), Err(Misfit::HasZone));
    }

    #[test]
    fn a_time_of_day_is_read_and_written() {
        let good =
            [("05:06:07", 18_367_000), ("23:59:59.999", 86_399_999), ("00:00", 0), ("05:06:07.1239", 18_367_123)];
        for (text, expected) in good {
            assert_eq!(time_text(text.as_bytes()), Some(expected), "{text}");
        }
        for text in ["", "5:06:07", "24:00:00", "05:60:00", "05:06:60", "05:06:07.", "05:06:07Z", "05:06:7", "05:06x"] {
            assert_eq!(time_text(text.as_bytes()), None, "{text}");
        }
        let mut out = Vec::new();
        [0, 18_367_000, 86_399_990].iter().for_each(|time| write_time(*time, &mut out));
        assert_eq!(out, b"00:00:0005:06:0723:59:59.99");
    }

    #[test]
    fn timestamps_are_written_with_the_digits_they_need() {
        let written = |value, utc, style| {
            let mut out = Vec::new();
            write_timestamp(value, 1000, utc, style, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(1_357_016_400_000, false, TimestampStyle::Sql), "2013-01-01 05:00:00");
        assert_eq!(written(1_357_016_400_120, false, TimestampStyle::Sql), "2013-01-01 05:00:00.12");
        assert_eq!(written(1_357_016_400_003, true, TimestampStyle::Iso), "2013-01-01T05:00:00.003Z");
        assert_eq!(written(-1, false, TimestampStyle::Sql), "1969-12-31 23:59:59.999");
    }

    #[test]
    fn every_day_of_four_centuries_reads_back() {
        for days in -146_097..146_097 {
            let mut out = Vec::new();
            write_date(days, &mut out);
            assert_eq!(date_text(&out).map(i64::from), Some(days));
        }
    }
}
