//! Operator ids and plan fingerprints: what ties a checkpoint to a query.
//!
//! An id is the persistent hash ([`ruslo_core::key_group::hash_bytes`], version 1) of a text that says what the
//! operator is, made on the logical plan before optimisation and chaining, so that neither another optimiser nor
//! another parallelism sends state astray:
//!
//! | operator | text |
//! |---|---|
//! | source | `source <table>`; `source values` for rows that stand in the text |
//! | tumbling window | `tumble size=<ms> offset=<ms> keys=[<table>.<column>, …] inputs=[source <table>]` |
//! | hopping window | `hop slide=<ms> size=<ms> offset=<ms> keys=[…] inputs=[…]` |
//! | cumulating window | `cumulate step=<ms> size=<ms> offset=<ms> keys=[…] inputs=[…]` |
//! | session window | `session gap=<ms> keys=[…] inputs=[…]` |
//! | event-time sort | `sort keys=[<table>.<column> ASC NULLS FIRST, …] inputs=[source <table>]` |
//! | sink | `sink <table>` |
//! | others, which keep no state | `<kind> of <input's id>`; `union of <input's id>, …` |
//!
//! The nth operator of the same text, in the order of the plan, has ` #n` behind it from the second on.
//!
//! A fingerprint is the hash of everything that the query says: the statement and each table and view that it reads or
//! writes, laid out in one way. How fast a source is read (`source.rows-per-second`) only tunes, and settings are not part
//! of the query: both may change between two runs of a pipeline. The time zone is, if it is not UTC. Nor is the hint
//! STATE_TTL part of it: state of another lifetime is refused where it is restored.

use std::collections::BTreeSet;

use ruslo_core::graph::OperatorId;
use ruslo_core::key_group::{HASH_VERSION, hash_bytes};

use crate::care::{LATE_DATA_TABLE, ON_ERROR_TABLE};
use crate::catalog::Catalog;
use crate::ddl::{ColumnKind, TableDdl};
use crate::hint;
use crate::types::sql_name;
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

/// The option that may change without making another query: it only tunes. The size of splits does not: positions in a
/// checkpoint are of splits.
const TUNING: &str = "source.rows-per-second";

/// The id of what `text` describes.
pub(crate) fn operator_id(text: &str) -> OperatorId {
    OperatorId(hash_bytes(text.as_bytes()))
}

/// `tokens` with one blank between.
pub(crate) fn canonical(tokens: &[TokenWithSpan]) -> String {
    let words = tokens.iter().map(|token| hint::canonical(token).unwrap_or_else(|| token.token.to_string()));
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// What a table's declaration says, laid out in one way, without what only tunes.
pub(crate) fn table_text(table: &TableDdl) -> String {
    let mut text = format!("table {} (", table.name.value);
    for column in &table.columns {
        match &column.kind {
            ColumnKind::Physical { data_type, nullable } => {
                let null = if *nullable { "" } else { " not null" };
                text.push_str(&format!("{} {}{null}, ", column.name.value, sql_name(data_type)));
            }
            ColumnKind::Computed(tokens) => {
                text.push_str(&format!("{} as {}, ", column.name.value, canonical(tokens)));
            }
            ColumnKind::Metadata { data_type, key, is_virtual, .. } => {
                let is_virtual = if *is_virtual { " virtual" } else { "" };
                let name = &column.name.value;
                text.push_str(&format!("{name} {} metadata {key:?}{is_virtual}, ", sql_name(data_type)));
            }
        }
    }
    let partition_keys: Vec<&str> = table.partition_keys.iter().map(|key| key.value.as_str()).collect();
    if let Some(watermark) = &table.watermark {
        text.push_str(&format!("watermark {} {}", watermark.column.value, canonical(&watermark.expression)));
    }
    text.push(')');
    if !partition_keys.is_empty() {
        text.push_str(&format!(" partitioned by ({})", partition_keys.join(", ")));
    }
    let options: BTreeSet<(&str, &str)> =
        table.options.iter().map(|(key, value)| (key.value.as_str(), value.value.as_str())).collect();
    for (key, value) in options.into_iter().filter(|(key, _)| *key != TUNING) {
        match key {
            // In backticks: the table that it names is a part of the query.
            ON_ERROR_TABLE | LATE_DATA_TABLE => text.push_str(&format!(" {key}=`{value}`")),
            _ => text.push_str(&format!(" {key}={value:?}")),
        }
    }
    text
}

/// The fingerprint of the statement `text` over the tables and views of `catalog` that it names, as 16 digits.
pub(crate) fn fingerprint(text: &str, catalog: &Catalog) -> String {
    let mut parts = vec![format!("plan v{HASH_VERSION}"), text.to_owned()];
    let mut open = vec![text.to_owned()];
    let mut named = BTreeSet::new();
    while let Some(text) = open.pop() {
        for (name, relation) in catalog.relations() {
            if mentions(&text, name) && named.insert(name) {
                open.push(relation.canonical().to_owned());
            }
        }
    }
    parts.extend(named.into_iter().filter_map(|name| catalog.get(name).ok()).map(|it| it.canonical().to_owned()));
    format!("{:016x}", hash_bytes(parts.join("\n").as_bytes()))
}

/// Whether a canonical text names `name`.
fn mentions(text: &str, name: &str) -> bool {
    text.split(' ').any(|word| word == name) || text.contains(&format!("`{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_change() {
        assert_eq!(operator_id("source bid").to_string(), format!("{:016x}", hash_bytes(b"source bid")));
        assert_ne!(operator_id("source bid"), operator_id("sink bid"));
    }

    #[test]
    fn names_are_found_as_words() {
        assert!(mentions("SELECT * FROM bid", "bid"));
        assert!(mentions("SELECT * FROM `a bid`", "a bid"));
        assert!(!mentions("SELECT * FROM bids", "bid"));
    }
}
