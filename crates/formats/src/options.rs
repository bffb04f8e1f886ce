//! The options that a table gives, read with their types.

use std::collections::BTreeMap;

use ruslo_core::connector::OptionSpec;
use ruslo_core::error::{Error, Result};

use crate::lines::ROW_BYTES_LIMIT;

/// What a table's WITH clause gives to one format.
pub(crate) struct Given<'a> {
    options: &'a BTreeMap<String, String>,
}

impl<'a> Given<'a> {
    /// The options of `format`, each of which must be one of `known`. Keys of other prefixes are not looked at.
    pub(crate) fn new(format: &str, known: &[OptionSpec], options: &'a BTreeMap<String, String>) -> Result<Self> {
        let of_format = |key: &&String| key.strip_prefix(format).is_some_and(|rest| rest.starts_with('.'));
        let unknown = options.keys().filter(of_format).find(|key| known.iter().all(|spec| spec.key != key.as_str()));
        match unknown {
            None => Ok(Self { options }),
            Some(key) => {
                let names: Vec<_> = known.iter().map(|spec| format!("'{}'", spec.key)).collect();
                Err(Error::usage(format!("format '{format}' has no option '{key}'; it has {}", names.join(", "))))
            }
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&'a str> {
        self.options.get(key).map(String::as_str)
    }

    /// `true` or `false`; `false` if not given.
    pub(crate) fn boolean(&self, key: &str) -> Result<bool> {
        match self.get(key) {
            None => Ok(false),
            Some(value) if value.eq_ignore_ascii_case("true") => Ok(true),
            Some(value) if value.eq_ignore_ascii_case("false") => Ok(false),
            Some(other) => Err(Error::usage(format!("'{key}' is 'true' or 'false', not '{other}'"))),
        }
    }

    /// A positive number of bytes with an optional unit, such as `16 mb`; `default` if not given.
    pub(crate) fn byte_count(&self, key: &str, default: usize) -> Result<usize> {
        let Some(value) = self.get(key) else { return Ok(default) };
        byte_count(value).filter(|bytes| *bytes > 0).ok_or_else(|| {
            Error::usage(format!(
                "'{key}' is a positive number of bytes, such as '1048576', '512 kb' or '16 mb', not '{value}'"
            ))
        })
    }

    /// The limit for one row of a line format, in bytes.
    pub(crate) fn row_bytes_max(&self, key: &str) -> Result<usize> {
        let given = self.byte_count(key, crate::ROW_BYTES_MAX)?;
        match given <= ROW_BYTES_LIMIT {
            true => Ok(given),
            false => {
                Err(Error::usage(format!("'{key}' is '512 mb' at most, not '{}'", self.get(key).unwrap_or_default())))
            }
        }
    }

    /// One printable ASCII character or a tab (`\t` may spell it); `default` if not given.
    pub(crate) fn character(&self, key: &str, default: u8) -> Result<u8> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match value.as_bytes() {
            b"\\t" => Ok(b'\t'),
            [byte] if *byte == b'\t' || (*byte == b' ' || byte.is_ascii_graphic()) => Ok(*byte),
            _ => Err(Error::usage(format!("'{key}' is one ASCII character, not '{value}'"))),
        }
    }
}

/// Units are binary.
fn byte_count(text: &str) -> Option<usize> {
    let text = text.trim();
    let (digits, unit) = text.split_at_checked(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))?;
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" | "bytes" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_are_binary() {
        let cases = [("1", Some(1)), ("2 kb", Some(2048)), (" 16 MB ", Some(16 << 20)), ("1gib", Some(1 << 30))];
        let bad = [("", None), ("kb", None), ("-1", None), ("1.5 mb", None), ("3 parsecs", None)];
        for (text, expected) in cases.into_iter().chain(bad) {
            assert_eq!(byte_count(text), expected, "{text:?}");
        }
    }
}
