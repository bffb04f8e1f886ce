//! The options of `datagen`, which are Flink's.

use ruslo_core::connector::OptionSpec;
use ruslo_core::error::{Error, Result};

use crate::option::{self, Options, wrong_value};

const RATE: &str = "rows-per-second";
const ROWS: &str = "number-of-rows";
const SEED: &str = "seed";
const RATE_DEFAULT: u64 = 10_000;
const LENGTH_DEFAULT: u64 = 100;

/// What a table may say.
pub(super) const SPECS: [OptionSpec; 13] = [
    spec(RATE, "Rows a second at most, over all readers (default 10000)."),
    option::RATE_SPEC,
    spec(ROWS, "How many rows there are; without it, and without a sequence, they never end."),
    spec(SEED, "Another seed gives other values (default 42)."),
    spec("fields.#.kind", "'random' (the default) or 'sequence', which counts from 'start' to 'end' and then stops."),
    spec("fields.#.min", "The least random number (default: the least of the type)."),
    spec("fields.#.max", "The greatest random number (default: the greatest of the type)."),
    spec("fields.#.max-past", "How far a random time lies before now, such as '10 min' (default 0)."),
    spec("fields.#.length", "How long a random text is (default 100)."),
    spec("fields.#.var-len", "'true': a random text has from 1 to 'length' characters (default 'false')."),
    spec("fields.#.start", "The first number of a sequence."),
    spec("fields.#.end", "The last number of a sequence."),
    spec("fields.#.null-rate", "How many of the values are NULL, from 0 to 1 (default 0)."),
];

const fn spec(key: &'static str, doc: &'static str) -> OptionSpec {
    OptionSpec { key, required: false, doc }
}

/// What a table says of one column.
#[derive(Debug, Clone, Copy)]
pub(super) struct FieldOptions<'a> {
    options: &'a Options,
    column: &'a str,
}

impl<'a> FieldOptions<'a> {
    pub(super) fn new(options: &'a Options, column: &'a str) -> Self {
        Self { options, column }
    }

    fn key(&self, name: &str) -> String {
        format!("fields.{}.{name}", self.column)
    }

    pub(super) fn is_sequence(&self) -> Result<bool> {
        option::choice(self.options, &self.key("kind"), &[("random", false), ("sequence", true)], false)
    }

    /// A number that must parse as `T`.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let key = self.key(name);
        let Some(value) = self.options.get(&key) else { return Ok(None) };
        value.trim().parse().map(Some).map_err(|_| wrong_value(&key, value, "a number of the column's type"))
    }

    /// A number that must be there.
    pub(super) fn bound(&self, name: &str) -> Result<i64> {
        let missing = || Error::usage(format!("a sequence needs the option '{}'", self.key(name)));
        self.number(name)?.ok_or_else(missing)
    }

    /// The ends of the random numbers of a column.
    pub(super) fn range<T: std::str::FromStr + PartialOrd + std::fmt::Display>(
        &self,
        least: T,
        most: T,
    ) -> Result<(T, T)> {
        let (min, max) = (self.number("min")?.unwrap_or(least), self.number("max")?.unwrap_or(most));
        if min > max {
            return Err(wrong_value(
                &self.key("min"),
                &min.to_string(),
                &format!("at most '{}', {max}", self.key("max")),
            ));
        }
        Ok((min, max))
    }

    /// Characters of a random text at most, and whether there may be fewer.
    pub(super) fn length(&self) -> Result<(u64, bool)> {
        let length = option::whole_number(self.options, &self.key("length"), 1)?.unwrap_or(LENGTH_DEFAULT);
        let words = [("true", true), ("false", false)];
        Ok((length, option::choice(self.options, &self.key("var-len"), &words, false)?))
    }

    /// In milliseconds.
    pub(super) fn max_past(&self) -> Result<u64> {
        option::duration_ms(self.options, &self.key("max-past")).map(Option::unwrap_or_default)
    }

    pub(super) fn null_rate(&self) -> Result<f64> {
        let rate: f64 = self.number("null-rate")?.unwrap_or(0.0);
        let key = self.key("null-rate");
        if (0.0..=1.0).contains(&rate) {
            Ok(rate)
        } else {
            Err(wrong_value(&key, &rate.to_string(), "a number from 0 to 1"))
        }
    }
}

/// Rows a second.
pub(super) fn rate(options: &Options) -> Result<u64> {
    Ok(option::whole_number(options, RATE, 1)?.unwrap_or(RATE_DEFAULT))
}

/// How many rows the table says there are.
pub(super) fn rows(options: &Options) -> Result<Option<u64>> {
    option::whole_number(options, ROWS, 0)
}

/// What random values follow from.
pub(super) fn seed(options: &Options) -> Result<u64> {
    Ok(option::whole_number(options, SEED, 0)?.unwrap_or(42))
}

/// Refuses options of columns that the table does not have.
pub(super) fn check_columns(options: &Options, is_column: impl Fn(&str) -> bool) -> Result<()> {
    for key in options.keys() {
        let Some((column, _)) = key.strip_prefix("fields.").and_then(|rest| rest.rsplit_once('.')) else { continue };
        if !is_column(column) {
            return Err(Error::usage(format!("option '{key}': the table has no column '{column}'")));
        }
    }
    Ok(())
}
