//! Times from texts and numbers and back: DATE_FORMAT, TO_TIMESTAMP, UNIX_TIMESTAMP, FROM_UNIXTIME, CONVERT_TZ.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date32Array, TimestampMillisecondArray};
use chrono_tz::Tz;
use datafusion::common::{Result, ScalarValue};

use super::UTC;
use super::calendar::{LocalZone, Moment, SECONDS_A_DAY, Times};
use super::call::Kind::{Int, Long, Text, Time};
use super::call::{Argument, Arguments, Definition, Gives, Texts, bad_value, constant_int, constant_text, unfit};
use super::cast::{read_date, read_moment};
use super::pattern::Pattern;

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("date_format", &[&[Time, Text], &[Text, Text]], Gives::Text, date_format).checked(check_second),
    Definition::new("to_date", &[&[Text], &[Text, Text]], Gives::Date, to_date).checked(check_second),
    Definition::new("to_timestamp", &[&[Text], &[Text, Text]], Gives::Timestamp, to_timestamp).checked(check_second),
    Definition::new(
        "to_timestamp_ltz",
        &[&[Long], &[Long, Int], &[Text], &[Text, Text], &[Text, Text, Text]],
        Gives::Instant,
        to_instant,
    )
    .checked(check_instant),
    Definition::new("unix_timestamp", &[&[Text], &[Text, Text]], Gives::Long, unix_timestamp).checked(check_second),
    Definition::new("from_unixtime", &[&[Long], &[Long, Text]], Gives::Text, from_unixtime).checked(check_second),
    Definition::new("convert_tz", &[&[Text, Text, Text]], Gives::Text, convert_tz).checked(check_zones),
];

const SECONDS_PATTERN: &str = "yyyy-MM-dd HH:mm:ss";

fn check_second(constants: &[Option<&ScalarValue>]) -> Result<()> {
    constant_text(constants, 1).map_or(Ok(()), |text| Pattern::translate(text).map(drop).map_err(unfit))
}

fn check_zones(constants: &[Option<&ScalarValue>]) -> Result<()> {
    [1, 2].into_iter().filter_map(|place| constant_text(constants, place)).try_for_each(|zone| {
        match zone.parse::<Tz>() {
            Ok(_) => Ok(()),
            Err(_) => Err(unfit(no_zone(zone))),
        }
    })
}

fn no_zone(zone: &str) -> String {
    format!("there is no time zone '{zone}'; there are names such as 'UTC' and 'Europe/Berlin'")
}

fn check_instant(constants: &[Option<&ScalarValue>]) -> Result<()> {
    match constant_int(constants, 1) {
        None => check_second(constants),
        Some(0 | 3) => Ok(()),
        Some(other) => {
            Err(unfit(format!("TO_TIMESTAMP_LTZ takes the precision 0 (seconds) or 3 (milliseconds), not {other}")))
        }
    }
}

/// The patterns of a call: a constant one is translated once, others when they change.
enum Patterns<'a> {
    Constant(Option<Pattern>),
    Column { texts: Texts<'a>, last: Option<(&'a str, Pattern)> },
}

impl<'a> Patterns<'a> {
    fn of(args: &Arguments<'a>, place: usize, default: &'static str) -> Result<Self> {
        Ok(match args.text_or(place, default)? {
            Argument::Constant(text) => Self::Constant(text.map(Pattern::translate).transpose().map_err(bad_value)?),
            texts => Self::Column { texts, last: None },
        })
    }

    fn get(&mut self, row: usize) -> Result<Option<&Pattern>> {
        match self {
            Self::Constant(pattern) => Ok(pattern.as_ref()),
            Self::Column { texts, last } => {
                let Some(text) = texts.get(row) else { return Ok(None) };
                if last.as_ref().is_none_or(|(known, _)| *known != text) {
                    *last = Some((text, Pattern::translate(text).map_err(bad_value)?));
                }
                Ok(last.as_ref().map(|(_, pattern)| pattern))
            }
        }
    }
}

fn date_format(args: &Arguments<'_>) -> Result<ArrayRef> {
    let mut patterns = Patterns::of(args, 1, SECONDS_PATTERN)?;
    if let Ok(texts) = args.text(0) {
        return args.write_texts(|row, out| {
            let Some(text) = texts.get(row) else { return Ok(None) };
            let Some(moment) = read_moment(text) else { return Ok(None) };
            Ok(patterns.get(row)?.map(|pattern| pattern.format(moment, out)))
        });
    }
    let times = Times::of(args, 0)?;
    args.write_texts(|row, out| {
        let Some(moment) = times.local(row) else { return Ok(None) };
        Ok(patterns.get(row)?.map(|pattern| pattern.format(moment, out)))
    })
}

/// What the text at 0 says by the pattern at 1; by SQL's form where the call has no pattern.
struct Said<'a> {
    texts: Texts<'a>,
    patterns: Option<Patterns<'a>>,
    is_lenient: bool,
}

impl<'a> Said<'a> {
    fn of(args: &Arguments<'a>, is_lenient: bool) -> Result<Self> {
        let patterns = if args.len() > 1 { Some(Patterns::of(args, 1, SECONDS_PATTERN)?) } else { None };
        Ok(Self { texts: args.text(0)?, patterns, is_lenient })
    }

    /// None for a NULL and for a text that is no time.
    fn get(&mut self, row: usize) -> Result<Option<Moment>> {
        let Some(text) = self.texts.get(row) else { return Ok(None) };
        match &mut self.patterns {
            None => Ok(read_moment(text)),
            Some(patterns) => Ok(patterns.get(row)?.and_then(|pattern| pattern.parse(text, self.is_lenient))),
        }
    }
}

fn to_date(args: &Arguments<'_>) -> Result<ArrayRef> {
    if args.len() == 1 {
        let texts = args.text(0)?;
        let days = (0..args.rows).map(|row| i32::try_from(read_date(texts.get(row)?)?).ok());
        return Ok(Arc::new(days.collect::<Date32Array>()));
    }
    let mut said = Said::of(args, false)?;
    let days = (0..args.rows).map(|row| {
        let moment = said.get(row)?;
        Ok(moment.and_then(|moment| i32::try_from(moment.seconds.div_euclid(SECONDS_A_DAY)).ok()))
    });
    Ok(Arc::new(days.collect::<Result<Date32Array>>()?))
}

fn to_timestamp(args: &Arguments<'_>) -> Result<ArrayRef> {
    let mut said = Said::of(args, false)?;
    let values = (0..args.rows).map(|row| Ok(said.get(row)?.and_then(|moment| moment.value(1_000))));
    Ok(Arc::new(values.collect::<Result<TimestampMillisecondArray>>()?))
}

fn to_instant(args: &Arguments<'_>) -> Result<ArrayRef> {
    let values: TimestampMillisecondArray = match args.long(0) {
        Ok(numbers) => {
            let digits = args.int_or(1, 3)?;
            let values = (0..args.rows).map(|row| match (numbers.get(row), digits.get(row)) {
                (Some(number), Some(0)) => Ok(number.checked_mul(1_000)),
                (Some(number), Some(3)) => Ok(Some(number)),
                (_, Some(digits)) if digits != 0 && digits != 3 => {
                    Err(bad_value(format!("TO_TIMESTAMP_LTZ takes the precision 0 or 3, not {digits}")))
                }
                _ => Ok(None),
            });
            values.collect::<Result<_>>()?
        }
        Err(_) => {
            let mut said = Said::of(args, false)?;
            let session = args.world.zone.name();
            let zones = if args.len() > 2 { args.text(2)? } else { Argument::Constant(Some(session)) };
            let mut zone = Zones::default();
            let values = (0..args.rows).map(|row| {
                let (Some(moment), Some(name)) = (said.get(row)?, zones.get(row)) else { return Ok(None) };
                let seconds = zone.named(name)?.to_utc(moment.seconds);
                Ok(Moment { seconds, ..moment }.value(1_000))
            });
            values.collect::<Result<_>>()?
        }
    };
    Ok(Arc::new(values.with_timezone(UTC)))
}

/// The last zone that was asked for.
#[derive(Default)]
struct Zones {
    last: Option<(String, LocalZone)>,
}

impl Zones {
    fn named(&mut self, name: &str) -> Result<&LocalZone> {
        let is_known = self.last.as_ref().is_some_and(|(known, _)| known == name);
        if !is_known {
            let zone = name.parse::<Tz>().map_err(|_| bad_value(no_zone(name)))?;
            self.last = Some((name.to_owned(), LocalZone::new(zone)));
        }
        self.last.as_ref().map(|(_, zone)| zone).ok_or_else(|| bad_value(no_zone(name)))
    }
}

/// Seconds since 1970 of what the session's clocks show; the smallest BIGINT for what is no time, as in Flink.
fn unix_timestamp(args: &Arguments<'_>) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let mut patterns = Patterns::of(args, 1, SECONDS_PATTERN)?;
    let zone = LocalZone::new(args.world.zone);
    args.longs(|row| {
        let (Some(text), Some(pattern)) = (texts.get(row), patterns.get(row)?) else { return Ok(None) };
        Ok(Some(pattern.parse(text, true).map_or(i64::MIN, |moment| zone.to_utc(moment.seconds))))
    })
}

fn from_unixtime(args: &Arguments<'_>) -> Result<ArrayRef> {
    let numbers = args.long(0)?;
    let mut patterns = Patterns::of(args, 1, SECONDS_PATTERN)?;
    let zone = LocalZone::new(args.world.zone);
    args.write_texts(|row, out| {
        let Some(seconds) = numbers.get(row).filter(|seconds| seconds.unsigned_abs() < 1 << 52) else {
            return Ok(None);
        };
        let moment = Moment { seconds: seconds + zone.offset(seconds), nanos: 0 };
        Ok(patterns.get(row)?.map(|pattern| pattern.format(moment, out)))
    })
}

/// `yyyy-MM-dd HH:mm:ss` of one zone's clocks as another's show it.
fn convert_tz(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, from, to) = (args.text(0)?, args.text(1)?, args.text(2)?);
    let pattern = Pattern::translate(SECONDS_PATTERN).map_err(bad_value)?;
    let (mut from_zones, mut to_zones) = (Zones::default(), Zones::default());
    args.write_texts(|row, out| {
        let (Some(text), Some(from), Some(to)) = (texts.get(row), from.get(row), to.get(row)) else { return Ok(None) };
        let Some(moment) = pattern.parse(text, true) else { return Ok(None) };
        let utc = from_zones.named(from)?.to_utc(moment.seconds);
        let seconds = utc + to_zones.named(to)?.offset(utc);
        pattern.format(Moment { seconds, nanos: 0 }, out);
        Ok(Some(()))
    })
}

#[cfg(test)]
mod tests {
    use datafusion::common::ScalarValue;

    use super::super::testing::{int, long, null, refused, shown, shown_in, text, world_in};

    fn timestamp(millis: i64) -> ScalarValue {
        ScalarValue::TimestampMillisecond(Some(millis), None)
    }

    fn instant(millis: i64) -> ScalarValue {
        ScalarValue::TimestampMillisecond(Some(millis), Some("UTC".into()))
    }

    #[test]
    fn times_are_formatted_in_the_sessions_zone() {
        let berlin = world_in("Europe/Berlin");
        let pattern = text("yyyy-MM-dd HH:mm");
        assert_eq!(shown_in(&berlin, "date_format", &[timestamp(0), pattern.clone()]).unwrap(), "1970-01-01 00:00");
        assert_eq!(shown_in(&berlin, "date_format", &[instant(0), pattern.clone()]).unwrap(), "1970-01-01 01:00");
        assert_eq!(shown("date_format", &[text("2024-02-29 10:11:12"), pattern]).unwrap(), "2024-02-29 10:11");
        assert_eq!(shown("date_format", &[text("no time"), text("yyyy")]), None);
        assert_eq!(shown("date_format", &[null(), text("yyyy")]), None);
    }

    #[test]
    fn texts_become_times() {
        assert_eq!(shown("to_date", &[text("2023-10-12")]).unwrap(), "2023-10-12");
        assert_eq!(shown("to_date", &[text("12/10/2023"), text("dd/MM/yyyy")]).unwrap(), "2023-10-12");
        assert_eq!(shown("to_date", &[text("2023-10-32")]), None);
        assert_eq!(shown("to_date", &[text("842")]).unwrap(), "0842-01-01");
        assert_eq!(
            shown("to_timestamp", &[text("2023-10-12 05:00"), text("yyyy-MM-dd HH:mm")]).unwrap(),
            "2023-10-12T05:00:00"
        );
        assert_eq!(shown("to_timestamp_ltz", &[long(1), int(0)]).unwrap(), "1970-01-01T00:00:01Z");
        assert_eq!(shown("to_timestamp_ltz", &[long(-1), int(3)]).unwrap(), "1969-12-31T23:59:59.999Z");
        let berlin = world_in("Europe/Berlin");
        assert_eq!(
            shown_in(&berlin, "to_timestamp_ltz", &[text("1970-01-01 01:00:00")]).unwrap(),
            "1970-01-01T00:00:00Z"
        );
        let error = refused("to_timestamp_ltz", &[long(1), int(6)]);
        assert_eq!(error, "TO_TIMESTAMP_LTZ takes the precision 0 (seconds) or 3 (milliseconds), not 6");
    }

    #[test]
    fn seconds_since_1970() {
        assert_eq!(shown("unix_timestamp", &[text("1970-01-01 00:01:00")]).unwrap(), "60");
        assert_eq!(shown("unix_timestamp", &[text("1970-1-1"), text("yyyy-MM-dd")]).unwrap(), "0");
        assert_eq!(shown("unix_timestamp", &[text("x")]).unwrap(), i64::MIN.to_string());
        assert_eq!(shown("from_unixtime", &[long(44)]).unwrap(), "1970-01-01 00:00:44");
        let tokyo = world_in("Asia/Tokyo");
        assert_eq!(shown_in(&tokyo, "from_unixtime", &[long(44)]).unwrap(), "1970-01-01 09:00:44");
        assert_eq!(shown_in(&tokyo, "unix_timestamp", &[text("1970-01-01 09:00:44")]).unwrap(), "44");
        assert_eq!(shown("from_unixtime", &[long(0), text("HH 'h'")]).unwrap(), "00 h");
    }

    #[test]
    fn zones_are_converted() {
        let args = [text("1970-01-01 00:00:00"), text("UTC"), text("America/Los_Angeles")];
        assert_eq!(shown("convert_tz", &args).unwrap(), "1969-12-31 16:00:00");
        let error = refused("convert_tz", &[text("1970-01-01 00:00:00"), text("UTC"), text("Mars")]);
        assert!(error.starts_with("there is no time zone 'Mars'"), "{error}");
    }
}
