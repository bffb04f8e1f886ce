//! How a table is asked by a lookup join: options that every table may have, and settings of the job. Keys are Flink's.

use std::time::Duration;

use ruslo_core::connector::OptionSpec;
use ruslo_operators::{LookupCache, LookupOptions, Reload};

use crate::catalog::Table;
use crate::cursor::At;
use crate::diagnostic::{Sql, SqlError};
use crate::settings::duration;

const CACHE: &str = "lookup.cache";
const ROWS: &str = "lookup.partial-cache.max-rows";
const AFTER_WRITE: &str = "lookup.partial-cache.expire-after-write";
const AFTER_ACCESS: &str = "lookup.partial-cache.expire-after-access";
const MISSING: &str = "lookup.partial-cache.cache-missing-key";
const RELOAD: &str = "lookup.full-cache.periodic-reload.interval";
const RETRIES: &str = "lookup.max-retries";

/// What the options mean.
pub(crate) const SPECS: [OptionSpec; 7] = [
    OptionSpec {
        key: CACHE,
        required: false,
        doc: "Lookup join: what is kept of the table: 'NONE', 'PARTIAL' (rows that were found) or 'FULL' (all of it).",
    },
    OptionSpec { key: ROWS, required: false, doc: "Lookup join: rows that are kept, 10000 by default." },
    OptionSpec { key: AFTER_WRITE, required: false, doc: "Lookup join: how long a row is kept, such as '10 min'." },
    OptionSpec {
        key: AFTER_ACCESS,
        required: false,
        doc: "Lookup join: how long a row is kept that nobody asks for, such as '1 min'.",
    },
    OptionSpec {
        key: MISSING,
        required: false,
        doc: "Lookup join: whether it is kept that a key has no row, 'true' by default.",
    },
    OptionSpec {
        key: RELOAD,
        required: false,
        doc: "Lookup join: how often a table that is kept whole is read again, such as '10 min'; by default when it changes.",
    },
    OptionSpec {
        key: RETRIES,
        required: false,
        doc: "Lookup join: how often a table that does not answer is asked again, 3 by default.",
    },
];

/// Rows of a partial cache, if nobody says.
const ROWS_DEFAULT: usize = 10_000;

/// How often a table that is kept whole is looked at.
const LOOKED_AT: Duration = Duration::from_secs(1);

/// Whether `key` is one of these.
pub(crate) fn is_lookup(key: &str) -> bool {
    SPECS.iter().any(|spec| spec.key == key)
}

/// What the job's settings say of all lookups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsyncLookup {
    /// `table.exec.async-lookup.output-mode`.
    pub is_ordered: bool,
    /// `table.exec.async-lookup.buffer-capacity`.
    pub requests_max: usize,
    /// `table.exec.async-lookup.timeout`.
    pub timeout: Duration,
}

impl Default for AsyncLookup {
    fn default() -> Self {
        let LookupOptions { is_ordered, requests_max, timeout, .. } = LookupOptions::default();
        Self { is_ordered, requests_max, timeout }
    }
}

/// What is kept of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    Nothing,
    Some,
    All,
}

/// What a table says of how it is asked.
#[derive(Debug, Clone)]
pub(crate) struct TableLookup {
    /// What is kept of it, and where that is said.
    pub(crate) kept: Option<At<Kept>>,
    pub(crate) cache: LookupCache,
    pub(crate) reload: Reload,
    retries_max: u32,
}

impl TableLookup {
    /// What `table` says.
    pub(crate) fn of(table: &Table) -> Sql<Self> {
        let time = |key| parsed(table, key, duration);
        let cache = LookupCache {
            rows_max: parsed(table, ROWS, whole)?.unwrap_or(ROWS_DEFAULT),
            expire_after_write: time(AFTER_WRITE)?,
            expire_after_access: time(AFTER_ACCESS)?,
            keeps_missing: parsed(table, MISSING, truth)?.unwrap_or(true),
        };
        let kept = parsed(table, CACHE, kept)?.zip(table.option(CACHE)).map(|(value, said)| At { value, at: said.at });
        let reload = time(RELOAD)?.map_or(Reload::WhenChanged(LOOKED_AT), Reload::Every);
        let retries_max = parsed(table, RETRIES, tries)?.unwrap_or(LookupOptions::default().retries_max);
        let lookup = Self { kept, cache, reload, retries_max };
        lookup.check(table)?;
        Ok(lookup)
    }

    /// Refuses options of a cache that is not asked for.
    fn check(&self, table: &Table) -> Sql<()> {
        let is = |wanted| self.kept.as_ref().is_none_or(|kept| kept.value == wanted);
        let of_cache = |keys: &[&str], word: &str| {
            let found = keys.iter().find_map(|key| Some((*key, table.option(key)?.at)));
            found.map_or(Ok(()), |(key, at)| {
                Err(SqlError::new(format!("'{key}' means something only with '{CACHE}' = '{word}'")).at(at))
            })
        };
        if !is(Kept::Some) || self.kept.is_none() {
            of_cache(&[ROWS, AFTER_WRITE, AFTER_ACCESS, MISSING], "PARTIAL")?;
        }
        if is(Kept::All) { Ok(()) } else { of_cache(&[RELOAD], "FULL") }
    }

    /// How the operator asks.
    pub(crate) fn options(&self, settings: &AsyncLookup) -> LookupOptions {
        let AsyncLookup { is_ordered, requests_max, timeout } = *settings;
        let is_partial = self.kept.as_ref().is_some_and(|kept| kept.value == Kept::Some);
        let cache = is_partial.then(|| self.cache.clone());
        LookupOptions { is_ordered, requests_max, timeout, retries_max: self.retries_max, cache }
    }
}

/// The option `key`, if it is given.
fn parsed<T>(table: &Table, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Sql<Option<T>> {
    let Some(given) = table.option(key) else { return Ok(None) };
    let wrong = |sentence| SqlError::new(format!("'{key}': {sentence}")).at(given.at);
    parse(&given.value).map(Some).map_err(wrong)
}

fn whole(value: &str) -> Result<usize, String> {
    let number = value.trim().parse::<usize>().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("'{value}' is not a whole number from 1"))
}

fn tries(value: &str) -> Result<u32, String> {
    value.trim().parse().map_err(|_| format!("'{value}' is not a whole number"))
}

fn truth(value: &str) -> Result<bool, String> {
    value.trim().to_ascii_lowercase().parse().map_err(|_| format!("'{value}' is neither 'true' nor 'false'"))
}

fn kept(value: &str) -> Result<Kept, String> {
    match value.trim().to_ascii_uppercase().as_str() {
        "NONE" => Ok(Kept::Nothing),
        "PARTIAL" => Ok(Kept::Some),
        "FULL" => Ok(Kept::All),
        _ => Err(format!("expected 'NONE', 'PARTIAL' or 'FULL', not '{value}'")),
    }
}
