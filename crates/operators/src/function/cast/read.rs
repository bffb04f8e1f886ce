//! Values from texts, spaces around them forgiven.

use super::super::calendar::{Moment, SECONDS_A_DAY, days_from_civil, days_in_month};

/// Flink's words for TRUE and FALSE.
pub(super) fn truth(text: &str) -> Option<bool> {
    let text = text.trim();
    let is = |words: [&str; 5]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match () {
        () if is(["true", "t", "yes", "y", "1"]) => Some(true),
        () if is(["false", "f", "no", "n", "0"]) => Some(false),
        () => None,
    }
}

/// A whole number; digits behind a point are cut off.
pub(super) fn integer(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(value) = text.parse() {
        return Some(value);
    }
    let (whole, behind) = text.split_once('.')?;
    if !behind.bytes().all(|byte| byte.is_ascii_digit()) || text.len() < 2 {
        return None;
    }
    match whole {
        "" | "+" | "-" => (!behind.is_empty()).then_some(0),
        whole => whole.parse().ok(),
    }
}

/// Whether `text` is a number in decimal digits.
pub(crate) fn is_number(text: &str) -> bool {
    parts(text).is_some()
}

struct Parts<'a> {
    is_negative: bool,
    whole: &'a str,
    behind: &'a str,
    exponent: i32,
}

fn parts(text: &str) -> Option<Parts<'_>> {
    let (is_negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse().ok()?),
        None => (rest, 0),
    };
    let (whole, behind) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = digits(whole) && digits(behind) && !(whole.is_empty() && behind.is_empty());
    is_number.then_some(Parts { is_negative, whole, behind, exponent })
}

/// A decimal number, rounded half up to `scale`; none if it has more than `precision` digits then.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let Parts { is_negative, whole, behind, exponent } = parts(text.trim())?;
    // How many digits of the mantissa stand before the place that is cut at.
    let kept = i64::try_from(whole.len()).ok()? + i64::from(exponent) + i64::from(scale);
    let digits = || whole.bytes().chain(behind.bytes()).map(|byte| i128::from(byte - b'0'));
    let most = 10i128.checked_pow(precision.into())?;
    let mut value: i128 = 0;
    for digit in digits().chain(std::iter::repeat(0)).take(usize::try_from(kept.clamp(0, 400)).ok()?) {
        value = value.checked_mul(10)?.checked_add(digit).filter(|value| *value < most)?;
    }
    let next = usize::try_from(kept).ok().and_then(|kept| digits().nth(kept)).unwrap_or(0);
    let value = if next >= 5 { value + 1 } else { value };
    (value < most).then_some(if is_negative { -value } else { value })
}

/// Days since 1970 of `yyyy[-M[-d]]`; what follows a space is left aside, and so is a time behind a `T`.
pub(crate) fn date(text: &str) -> Option<i64> {
    let text = text.trim();
    let day = match text.split_once([' ', 'T']) {
        Some((day, behind)) if text.get(day.len()..)?.starts_with(' ') || time_and_zone(behind).is_some() => day,
        Some(_) => return None,
        None => text,
    };
    let mut parts = day.splitn(3, '-');
    let year = number(parts.next()?, 4)?;
    let month = parts.next().map_or(Some(1), |month| number(month, 2))?;
    let day = parts.next().map_or(Some(1), |day| number(day, 2))?;
    day_of(year, month, day)
}

fn civil(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let day = day_of(number(year, 4)?, number(month, 2)?, number(day, 2)?);
    if parts.next().is_none() { day } else { None }
}

fn number(text: &str, most: usize) -> Option<i64> {
    let is_number = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

fn day_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_day = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    is_day.then(|| days_from_civil(year, month, day))
}

/// Nanoseconds of the day of `HH:mm[:ss[.fraction]]`.
pub(super) fn time(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.split(':').map(|part| match part.len() {
        1 | 2 if part.bytes().all(|byte| byte.is_ascii_digit()) => part.parse::<i64>().ok(),
        _ => None,
    });
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    let is_time = parts.next().is_none() && hour < 24 && minute < 60 && second < 60;
    if !is_time || fraction.len() > 9 || (fraction.is_empty() && text.ends_with('.')) {
        return None;
    }
    let digits = fraction.bytes().map(|byte| byte.is_ascii_digit().then(|| i64::from(byte - b'0')));
    let nanos = digits.chain(std::iter::repeat(Some(0))).take(9).try_fold(0, |all, digit| Some(all * 10 + digit?))?;
    Some((hour * 3600 + minute * 60 + second) * 1_000_000_000 + nanos)
}

/// A day and a time, as a text of SQL or of ISO 8601 says them.
pub(crate) fn read_moment(text: &str) -> Option<Moment> {
    match moment_and_zone(text)? {
        (moment, None | Some(0)) => Some(moment),
        _ => None,
    }
}

/// The same, and the seconds east of UTC, if the text has a zone.
pub(super) fn moment_and_zone(text: &str) -> Option<(Moment, Option<i64>)> {
    let text = text.trim();
    let Some((day, rest)) = text.split_once([' ', 'T']) else {
        return Some((Moment { seconds: civil(text)? * SECONDS_A_DAY, nanos: 0 }, None));
    };
    let (nanos, zone) = time_and_zone(rest)?;
    let seconds = civil(day)? * SECONDS_A_DAY + nanos / 1_000_000_000;
    Some((Moment { seconds, nanos: nanos % 1_000_000_000 }, zone))
}

/// Nanoseconds of the day, and the seconds east of UTC, if the text has a zone.
fn time_and_zone(text: &str) -> Option<(i64, Option<i64>)> {
    let (clock, zone) = match text.find(['Z', '+', '-']).and_then(|place| text.split_at_checked(place)) {
        Some((clock, zone)) => (clock.trim_end(), Some(offset(zone)?)),
        None => (text, None),
    };
    Some((time(clock.trim())?, zone))
}

/// `Z`, `+02:00`, `-0530`.
fn offset(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, rest) = text.split_at_checked(1)?;
    let digits: String = rest.chars().filter(|letter| *letter != ':').collect();
    let (hours, minutes) = match digits.len() {
        2 => (digits.parse::<i64>().ok()?, 0),
        4 => (digits.get(..2)?.parse::<i64>().ok()?, digits.get(2..)?.parse::<i64>().ok()?),
        _ => return None,
    };
    let seconds = hours * 3600 + minutes * 60;
    (hours <= 18 && minutes < 60).then_some(if sign == "-" { -seconds } else { seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_may_be_short() {
        let day = |year, month, day| Some(days_from_civil(year, month, day));
        // Flink 2.3's own answers, but for the times behind a T, which it does not read.
        let cases = [
            ("842", day(842, 1, 1)),
            (" 842 ", day(842, 1, 1)),
            ("842 foo", day(842, 1, 1)),
            ("2024-5", day(2024, 5, 1)),
            ("2024-2-3 bla", day(2024, 2, 3)),
            ("0", day(0, 1, 1)),
            ("2024-02-29T23:00:00Z", day(2024, 2, 29)),
        ];
        for (text, expected) in cases {
            assert_eq!(date(text), expected, "{text}");
        }
        for text in
            ["12345", "2024-5-", "2024-13", "842x", "842T", "2024-02-30", "-5", "", "2024-05-01Tx", "2024-05-01x"]
        {
            assert_eq!(date(text), None, "{text}");
        }
        assert_eq!(read_moment("842"), None);
        assert_eq!(read_moment("2024-5"), None);
    }
}
