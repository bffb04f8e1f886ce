//! Option values of a WITH clause: text in, checked value or a sentence out.
//!
//! Whether an option is known at all is the planner's business; here are wrong values only. Every error names the
//! option, what was given and what is allowed.

use std::collections::BTreeMap;

use ruslo_core::connector::OptionSpec;
use ruslo_core::error::{Error, Result};

/// The options of one table.
pub(crate) type Options = BTreeMap<String, String>;

/// How fast a source is read: the runtime keeps to it, whatever the connector.
pub(crate) const RATE_SPEC: OptionSpec = OptionSpec {
    key: "source.rows-per-second",
    required: false,
    doc: "Source: rows a second at most, over all readers (default: as fast as it goes).",
};

/// Byte units, each with its factor. They are binary, as Flink's are.
const BYTE_UNITS: [(&str, u64); 15] = [
    ("", 1),
    ("b", 1),
    ("bytes", 1),
    ("k", 1 << 10),
    ("kb", 1 << 10),
    ("kib", 1 << 10),
    ("m", 1 << 20),
    ("mb", 1 << 20),
    ("mib", 1 << 20),
    ("g", 1 << 30),
    ("gb", 1 << 30),
    ("gib", 1 << 30),
    ("t", 1 << 40),
    ("tb", 1 << 40),
    ("tib", 1 << 40),
];

/// The error of a value that does not fit.
pub(crate) fn wrong_value(key: &str, value: &str, allowed: &str) -> Error {
    Error::usage(format!("option '{key}' = '{value}': expected {allowed}"))
}

/// An option that must be there, and not empty.
pub(crate) fn required<'a>(options: &'a Options, connector: &str, key: &str) -> Result<&'a str> {
    match options.get(key).map(|value| value.trim()) {
        Some("") => Err(wrong_value(key, "", "a value")),
        Some(value) => Ok(value),
        None => Err(Error::usage(format!("connector '{connector}' needs the option '{key}'"))),
    }
}

/// One of several words, in any case; `default` if the option is not given.
pub(crate) fn choice<T: Copy>(options: &Options, key: &str, choices: &[(&str, T)], default: T) -> Result<T> {
    let Some(value) = options.get(key) else { return Ok(default) };
    let found = choices.iter().find(|(word, _)| value.trim().eq_ignore_ascii_case(word));
    found.map(|(_, meaning)| *meaning).ok_or_else(|| {
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("'{word}'")).collect();
        wrong_value(key, value, &words.join(" or "))
    })
}

/// A whole number of at least `least`, if the option is given.
pub(crate) fn whole_number(options: &Options, key: &str, least: u64) -> Result<Option<u64>> {
    let Some(value) = options.get(key) else { return Ok(None) };
    let number = value.trim().parse::<u64>().ok().filter(|number| *number >= least);
    number.map(Some).ok_or_else(|| wrong_value(key, value, &format!("a whole number from {least}")))
}

/// A positive number of bytes such as `4194304`, `4 MiB` or `4mb`; `default` if the option is not given.
pub(crate) fn byte_count(options: &Options, key: &str, default: u64) -> Result<u64> {
    let Some(value) = options.get(key) else { return Ok(default) };
    parse_byte_count(value).filter(|bytes| *bytes > 0).ok_or_else(|| {
        wrong_value(key, value, "a positive number of bytes with an optional unit (b, kb, mb, gb, tb), such as '4 mb'")
    })
}

/// Units of time, each with its milliseconds, as Flink spells them.
const TIME_UNITS: [(&str, u64); 13] = [
    ("ms", 1),
    ("milli", 1),
    ("millis", 1),
    ("millisecond", 1),
    ("milliseconds", 1),
    ("s", 1_000),
    ("sec", 1_000),
    ("second", 1_000),
    ("seconds", 1_000),
    ("min", 60_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// A duration such as `10 s`, `500ms` or `1 h`, in milliseconds, if the option is given; a bare number is milliseconds.
pub(crate) fn duration_ms(options: &Options, key: &str) -> Result<Option<u64>> {
    let Some(value) = options.get(key) else { return Ok(None) };
    let parsed = parse_duration_ms(value);
    parsed
        .map(Some)
        .ok_or_else(|| wrong_value(key, value, "a duration with its unit (ms, s, min, h, d), such as '10 s'"))
}

fn parse_duration_ms(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(digits_end)?;
    let unit = if unit.trim().is_empty() { "ms" } else { unit.trim() };
    let (_, factor) = TIME_UNITS.into_iter().find(|(name, _)| unit.eq_ignore_ascii_case(name))?;
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn parse_byte_count(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(digits_end)?;
    let (_, factor) = BYTE_UNITS.into_iter().find(|(name, _)| unit.trim().eq_ignore_ascii_case(name))?;
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(key: &str, value: &str) -> Options {
        Options::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn byte_counts_are_binary_and_positive() {
        let cases = [
            ("1", Some(1)),
            ("4096", Some(4096)),
            ("4 MiB", Some(4 << 20)),
            ("4mb", Some(4 << 20)),
            (" 2 kb ", Some(2048)),
            ("1 g", Some(1 << 30)),
            ("3 bytes", Some(3)),
            ("0", None),
            ("0 mb", None),
            ("-1", None),
            ("", None),
            ("mb", None),
            ("4 parsecs", None),
            ("1.5 mb", None),
            ("99999999999999999999", None),
            ("99999999 tb", None),
        ];
        for (text, expected) in cases {
            let parsed = byte_count(&options("size", text), "size", 7);
            assert_eq!(parsed.as_ref().ok().copied(), expected, "{text:?}");
            if let Err(error) = parsed {
                assert!(error.to_string().starts_with(&format!("option 'size' = '{text}': expected a positive")));
            }
        }
        assert_eq!(byte_count(&Options::new(), "size", 7).unwrap(), 7);
    }

    #[test]
    fn durations_have_units() {
        let cases = [
            ("10 s", Some(10_000)),
            ("500ms", Some(500)),
            ("7", Some(7)),
            ("1 H", Some(3_600_000)),
            ("s", None),
            ("-1 s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(duration_ms(&options("t", text), "t").ok(), expected.map(Some), "{text:?}");
        }
        assert_eq!(duration_ms(&Options::new(), "t").unwrap(), None);
    }

    #[test]
    fn a_wrong_word_is_answered_with_the_right_ones() {
        let choices = [("row", 1), ("table", 2)];
        assert_eq!(choice(&options("style", "Table"), "style", &choices, 1).unwrap(), 2);
        assert_eq!(choice(&Options::new(), "style", &choices, 1).unwrap(), 1);
        let error = choice(&options("style", "grid"), "style", &choices, 1).unwrap_err();
        assert_eq!(error.to_string(), "option 'style' = 'grid': expected 'row' or 'table'");
    }

    #[test]
    fn a_required_option_is_named() {
        assert_eq!(required(&options("path", " a "), "filesystem", "path").unwrap(), "a");
        let missing = required(&Options::new(), "filesystem", "path").unwrap_err();
        assert_eq!(missing.to_string(), "connector 'filesystem' needs the option 'path'");
        assert!(required(&options("path", " "), "filesystem", "path").is_err());
    }
}
