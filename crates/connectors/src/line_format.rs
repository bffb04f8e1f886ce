//! The formats of standard input and output: those whose records are lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use ruslo_core::connector::{OptionSpec, TableDefinition};
use ruslo_core::error::{Error, Result};
use ruslo_formats::{FORMATS, Format};

use crate::option;

const FORMAT: &str = "format";

/// Which one; every table says it.
pub(crate) const FORMAT_SPEC: OptionSpec = OptionSpec {
    key: FORMAT,
    required: true,
    doc: "How rows are written, one a line: 'json', 'csv' or 'debezium-json'.",
};

/// The options of the given format.
pub(crate) fn options(given: &BTreeMap<String, String>) -> impl Iterator<Item = OptionSpec> {
    let format = given.get(FORMAT).map(String::as_str);
    let of_format = FORMATS.iter().find(|spec| Some(spec.name) == format).map(|spec| spec.options);
    of_format.unwrap_or_default().iter().copied()
}

/// The format of a table of `connector`, which has neither partitions nor metadata.
///
/// # Errors
/// `Usage`, saying what does not fit.
pub(crate) fn of(table: &TableDefinition, connector: &str) -> Result<Arc<dyn Format>> {
    if let Some(metadata) = table.metadata.first() {
        let sentence = format!("connector '{connector}' has no metadata such as '{}'", metadata.key);
        return Err(Error::usage(sentence));
    }
    if !table.partition_keys.is_empty() {
        return Err(Error::usage(format!("connector '{connector}' has no partitions; they are for files")));
    }
    let format = ruslo_formats::format(option::required(&table.options, connector, FORMAT)?, &table.options)?;
    match format.blocks() {
        None => Ok(format),
        Some(_) => {
            let name = format.name();
            Err(Error::usage(format!(
                "'{FORMAT}' = '{name}': it is for files; connector '{connector}' takes json and csv"
            )))
        }
    }
}
