//! Java's patterns of dates and times (`yyyy-MM-dd HH:mm:ss.SSS`), translated once, then formatted and parsed.

use arrow::array::StringBuilder;

use super::calendar::{Moment, SECONDS_A_DAY, civil_from_days, days_from_civil, days_in_month};
use super::call::{put, put_char};

/// A translated pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Literal(String),
    /// A part of a time, with so many letters.
    Part(Part, usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Year,
    Quarter,
    Month,
    Day,
    DayOfYear,
    Weekday,
    Half,
    /// 0 to 23.
    Hour,
    /// 1 to 24.
    HourFrom1,
    /// 1 to 12.
    HalfHour,
    /// 0 to 11.
    HalfHourFrom0,
    Minute,
    Second,
    Fraction,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

impl Pattern {
    /// Translates `text`, or says which letter it is that cannot be.
    pub(crate) fn translate(text: &str) -> Result<Self, String> {
        let letters: Vec<char> = text.chars().collect();
        let mut items: Vec<Item> = Vec::new();
        let mut place = 0;
        while let Some(letter) = letters.get(place).copied() {
            let run = letters.iter().skip(place).take_while(|other| **other == letter).count();
            match letter {
                '\'' => place = quoted(text, &letters, place, &mut items)?,
                'a'..='z' | 'A'..='Z' => {
                    let part = part(letter, run).ok_or_else(|| unknown(text, letter, place + 1))?;
                    items.push(Item::Part(part, run));
                    place += run;
                }
                '[' | ']' | '{' | '}' | '#' => return Err(unknown(text, letter, place + 1)),
                letter => {
                    literal(letter, &mut items);
                    place += 1;
                }
            }
        }
        Ok(Self { items })
    }
}

fn unknown(text: &str, letter: char, place: usize) -> String {
    let sentence = format!("the pattern '{text}' has '{letter}' at {place}, which is not supported");
    match letter {
        'Y' => sentence + "; 'y' is the year",
        _ => sentence,
    }
}

fn part(letter: char, run: usize) -> Option<Part> {
    let (part, most) = match letter {
        'y' | 'u' => (Part::Year, 9),
        'Q' | 'q' => (Part::Quarter, 2),
        'M' | 'L' => (Part::Month, 4),
        'd' => (Part::Day, 2),
        'D' => (Part::DayOfYear, 3),
        'E' => (Part::Weekday, 4),
        'a' => (Part::Half, 1),
        'H' => (Part::Hour, 2),
        'k' => (Part::HourFrom1, 2),
        'h' => (Part::HalfHour, 2),
        'K' => (Part::HalfHourFrom0, 2),
        'm' => (Part::Minute, 2),
        's' => (Part::Second, 2),
        'S' => (Part::Fraction, 9),
        _ => return None,
    };
    (run <= most).then_some(part)
}

/// Reads `'quoted'` text from `place` on, `''` for a quote; gives the place behind it.
fn quoted(text: &str, letters: &[char], place: usize, items: &mut Vec<Item>) -> Result<usize, String> {
    if letters.get(place + 1) == Some(&'\'') {
        literal('\'', items);
        return Ok(place + 2);
    }
    let mut at = place + 1;
    loop {
        match (letters.get(at), letters.get(at + 1)) {
            (Some('\''), Some('\'')) => {
                literal('\'', items);
                at += 2;
            }
            (Some('\''), _) => return Ok(at + 1),
            (Some(letter), _) => {
                literal(*letter, items);
                at += 1;
            }
            (None, _) => return Err(format!("the pattern '{text}' has a quote at {} that is not closed", place + 1)),
        }
    }
}

fn literal(letter: char, items: &mut Vec<Item>) {
    match items.last_mut() {
        Some(Item::Literal(text)) => text.push(letter),
        _ => items.push(Item::Literal(letter.to_string())),
    }
}

impl Pattern {
    /// Appends `moment`.
    pub(crate) fn format(&self, moment: Moment, out: &mut StringBuilder) {
        let days = moment.seconds.div_euclid(SECONDS_A_DAY);
        let second = moment.seconds.rem_euclid(SECONDS_A_DAY);
        let (year, month, day) = civil_from_days(days);
        let hour = second / 3600;
        for item in &self.items {
            match item {
                Item::Literal(text) => put(out, text),
                Item::Part(Part::Year, 2) => put_number(year.rem_euclid(100), 2, out),
                Item::Part(Part::Year, width) => put_number(year, *width, out),
                Item::Part(Part::Quarter, width) => put_number((month + 2) / 3, *width, out),
                Item::Part(Part::Month, width @ 3..) => put_name(&MONTHS, month - 1, *width, out),
                Item::Part(Part::Month, width) => put_number(month, *width, out),
                Item::Part(Part::Day, width) => put_number(day, *width, out),
                Item::Part(Part::DayOfYear, width) => {
                    put_number(days - days_from_civil(year, 1, 1) + 1, *width, out);
                }
                Item::Part(Part::Weekday, width) => put_name(&WEEKDAYS, (days + 3).rem_euclid(7), *width, out),
                Item::Part(Part::Half, _) => put(out, if hour < 12 { "AM" } else { "PM" }),
                Item::Part(Part::Hour, width) => put_number(hour, *width, out),
                Item::Part(Part::HourFrom1, width) => put_number((hour + 23) % 24 + 1, *width, out),
                Item::Part(Part::HalfHour, width) => put_number((hour + 11) % 12 + 1, *width, out),
                Item::Part(Part::HalfHourFrom0, width) => put_number(hour % 12, *width, out),
                Item::Part(Part::Minute, width) => put_number(second / 60 % 60, *width, out),
                Item::Part(Part::Second, width) => put_number(second % 60, *width, out),
                Item::Part(Part::Fraction, width) => {
                    let unit = 10i64.pow(9u32.saturating_sub(*width as u32));
                    put_number(moment.nanos / unit, *width, out);
                }
            }
        }
    }
}

/// Appends a number with leading zeros.
pub(crate) fn put_number(value: i64, width: usize, out: &mut StringBuilder) {
    if value < 0 {
        put_char(out, '-');
    }
    let value = value.unsigned_abs();
    let digits = value.checked_ilog10().map_or(1, |log| log as usize + 1).max(width);
    for place in (0..digits).rev() {
        let digit = 10u64.checked_pow(place as u32).map_or(0, |unit| value / unit % 10);
        put_char(out, char::from(b'0' + digit as u8));
    }
}

fn put_name(names: &[&str], index: i64, width: usize, out: &mut StringBuilder) {
    let name = usize::try_from(index).ok().and_then(|index| names.get(index)).copied().unwrap_or_default();
    put(out, if width == 4 { name } else { name.get(..3).unwrap_or(name) });
}

/// What a text says of a time, part by part.
#[derive(Debug, Default)]
struct Said {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    is_afternoon: Option<bool>,
    hour: Option<i64>,
    half_hour: Option<i64>,
    minute: i64,
    second: i64,
    nanos: i64,
}

impl Pattern {
    /// The time that `text` says; what it doesn't say is as at 1970-01-01 00:00:00. `is_lenient` reads numbers with
    /// fewer digits than letters, and ignores what follows, as Java's SimpleDateFormat does.
    pub(crate) fn parse(&self, text: &str, is_lenient: bool) -> Option<Moment> {
        let mut said = Said::default();
        let mut rest = text;
        for (place, item) in self.items.iter().enumerate() {
            rest = match item {
                Item::Literal(literal) => rest.strip_prefix(literal.as_str())?,
                Item::Part(Part::Month, width @ 3..) => {
                    let (month, rest) = name(rest, &MONTHS, *width)?;
                    said.month = Some(month + 1);
                    rest
                }
                Item::Part(Part::Weekday, width) => name(rest, &WEEKDAYS, *width)?.1,
                Item::Part(Part::Half, _) => {
                    let (half, rest) = rest.split_at_checked(2)?;
                    said.is_afternoon = Some(match half {
                        "AM" | "am" => false,
                        "PM" | "pm" => true,
                        _ => return None,
                    });
                    rest
                }
                Item::Part(part, width) => {
                    let is_adjacent = self.items.get(place + 1).is_some_and(Item::begins_with_digit);
                    let (digits, rest) = digits(rest, digits_of(*part, *width, is_adjacent, is_lenient))?;
                    said.take(*part, *width, digits)?;
                    rest
                }
            };
        }
        if rest.is_empty() || is_lenient { said.moment() } else { None }
    }
}

impl Item {
    fn begins_with_digit(&self) -> bool {
        match self {
            Self::Literal(text) => text.starts_with(|letter: char| letter.is_ascii_digit()),
            Self::Part(Part::Half | Part::Weekday, _) | Self::Part(Part::Month, 3..) => false,
            Self::Part(..) => true,
        }
    }
}

/// How many digits a part may have: least and most.
fn digits_of(part: Part, width: usize, is_adjacent: bool, is_lenient: bool) -> (usize, usize) {
    match (part, width) {
        (_, width) if is_adjacent => (width, width),
        (Part::Fraction, width) => (if is_lenient { 1 } else { width }, width),
        (Part::Year, 2) => (2, 2),
        (_, 1) => (1, 9),
        (Part::Year, width) => (if is_lenient { 1 } else { width }, 9),
        (_, width) => (if is_lenient { 1 } else { width }, width),
    }
}

/// As many digits as there are, within bounds, and what follows them.
fn digits(text: &str, (least, most): (usize, usize)) -> Option<(&str, &str)> {
    let count = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if count < least { None } else { text.split_at_checked(count) }
}

fn name<'a>(text: &'a str, names: &[&str], width: usize) -> Option<(i64, &'a str)> {
    names.iter().enumerate().find_map(|(index, name)| {
        let name = if width == 4 { name } else { name.get(..3)? };
        let (start, rest) = text.split_at_checked(name.len())?;
        start.eq_ignore_ascii_case(name).then_some((index as i64, rest))
    })
}

impl Said {
    fn take(&mut self, part: Part, width: usize, digits: &str) -> Option<()> {
        let value: i64 = digits.parse().ok()?;
        let within = |least, most| (least..=most).contains(&value).then_some(value);
        match part {
            Part::Year if width == 2 => self.year = Some(2000 + value),
            Part::Year => self.year = Some(value),
            Part::Quarter => {
                let quarter = within(1, 4)?;
                self.month = self.month.or(Some(quarter * 3 - 2));
            }
            Part::Month => self.month = Some(within(1, 12)?),
            Part::Day => self.day = Some(within(1, 31)?),
            Part::DayOfYear => self.day_of_year = Some(within(1, 366)?),
            Part::Hour => self.hour = Some(within(0, 23)?),
            Part::HourFrom1 => self.hour = Some(within(1, 24)? % 24),
            Part::HalfHour => self.half_hour = Some(within(1, 12)? % 12),
            Part::HalfHourFrom0 => self.half_hour = Some(within(0, 11)?),
            Part::Minute => self.minute = within(0, 59)?,
            Part::Second => self.second = within(0, 59)?,
            Part::Fraction => self.nanos = value * 10i64.pow(9u32.saturating_sub(digits.len() as u32)),
            Part::Weekday | Part::Half => {}
        }
        Some(())
    }

    fn moment(&self) -> Option<Moment> {
        let year = self.year.unwrap_or(1970);
        let days = match self.day_of_year {
            Some(day) => days_from_civil(year, 1, 1) + day - 1,
            None => {
                let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
                if day > days_in_month(year, month) {
                    return None;
                }
                days_from_civil(year, month, day)
            }
        };
        let half = self.half_hour.map(|hour| hour + if self.is_afternoon == Some(true) { 12 } else { 0 });
        let hour = self.hour.or(half).unwrap_or(0);
        let seconds = days * SECONDS_A_DAY + hour * 3600 + self.minute * 60 + self.second;
        Some(Moment { seconds, nanos: self.nanos })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::StringBuilder;

    use super::*;

    fn formatted(pattern: &str, moment: Moment) -> String {
        let mut out = StringBuilder::new();
        Pattern::translate(pattern).unwrap().format(moment, &mut out);
        out.append_value("");
        out.finish().value(0).to_owned()
    }

    /// 2021-06-08 15:04:09.012345678, a Tuesday.
    const MOMENT: Moment = Moment { seconds: 1_623_164_649, nanos: 12_345_678 };

    #[test]
    fn javas_letters() {
        let cases = [
            ("yyyy-MM-dd HH:mm:ss", "2021-06-08 15:04:09"),
            ("yyyy-MM-dd'T'HH:mm:ss.SSS", "2021-06-08T15:04:09.012"),
            ("yy/M/d H:m:s", "21/6/8 15:4:9"),
            ("EEE, d MMM yyyy", "Tue, 8 Jun 2021"),
            ("EEEE MMMM", "Tuesday June"),
            ("hh:mm a 'o''clock'", "03:04 PM o'clock"),
            ("K k DDD Q", "3 15 159 2"),
            ("SSSSSSSSS", "012345678"),
            ("yyyyMMdd''HH", "20210608'15"),
            ("年yyyy", "年2021"),
        ];
        for (pattern, expected) in cases {
            assert_eq!(formatted(pattern, MOMENT), expected, "{pattern}");
        }
        assert_eq!(
            formatted("yyyy-MM-dd HH:mm:ss.SSS", Moment { seconds: -1, nanos: 999_000_000 }),
            "1969-12-31 23:59:59.999"
        );
        assert_eq!(formatted("h K k", Moment { seconds: 0, nanos: 0 }), "12 0 24");
    }

    #[test]
    fn texts_are_read_back() {
        let cases = [
            ("yyyy-MM-dd HH:mm:ss", "2021-06-08 15:04:09", Some("2021-06-08 15:04:09.000")),
            ("yyyyMMddHHmmss", "20210608150409", Some("2021-06-08 15:04:09.000")),
            ("yyyy-MM-dd", "2021-6-8", None),
            ("yyyy-M-d", "2021-6-8", Some("2021-06-08 00:00:00.000")),
            ("yyyy-MM-dd", "2021-02-29", None),
            ("yyyy-MM-dd", "2021-13-01", None),
            ("yyyy-MM-dd", "2021-06-08 ", None),
            ("dd MMM yyyy hh:mm a", "08 jun 2021 12:30 AM", Some("2021-06-08 00:30:00.000")),
            ("HH:mm", "15:04", Some("1970-01-01 15:04:00.000")),
            ("yyyy-MM-dd'T'HH:mm:ss.SSS", "2021-06-08T15:04:09.012", Some("2021-06-08 15:04:09.012")),
            ("yyyy DDD", "2024 366", Some("2024-12-31 00:00:00.000")),
        ];
        for (pattern, text, expected) in cases {
            let parsed = Pattern::translate(pattern).unwrap().parse(text, false);
            let found = parsed.map(|moment| formatted("yyyy-MM-dd HH:mm:ss.SSS", moment));
            assert_eq!(found.as_deref(), expected, "{pattern} {text}");
        }
        let lenient = Pattern::translate("yyyy-MM-dd").unwrap().parse("2021-6-8 and more", true).unwrap();
        assert_eq!(formatted("yyyyMMdd", lenient), "20210608");
    }

    #[test]
    fn what_is_not_supported_is_named_with_its_place() {
        let error = |pattern| Pattern::translate(pattern).unwrap_err();
        assert_eq!(error("yyyy-ww"), "the pattern 'yyyy-ww' has 'w' at 6, which is not supported");
        assert_eq!(error("YYYY"), "the pattern 'YYYY' has 'Y' at 1, which is not supported; 'y' is the year");
        assert_eq!(error("yyyy'T"), "the pattern 'yyyy'T' has a quote at 5 that is not closed");
        assert_eq!(error("HHH"), "the pattern 'HHH' has 'H' at 1, which is not supported");
    }
}
