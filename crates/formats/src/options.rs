//! The options that a table gives, read with their types.

use std::collections::BTreeMap;

use ruslo_core::connector::OptionSpec;
use ruslo_core::error::{Error, Result};

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
