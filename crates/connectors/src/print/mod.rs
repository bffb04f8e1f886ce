//! `'connector' = 'print'`: rows go to standard output, for people.
//!
//! `'style' = 'row'` (the default) prints as Flink does: `+I[1, EWR, NULL]`, behind `identifier> ` if there is a
//! `'print-identifier'`, and behind the subtask's number (`identifier:2> `, `2> `) if there are several.
//! `'style' = 'table'` prints an aligned table; a bare SELECT uses it.
//!
//! Of a changing table every change is printed: `-U[1, EWR, 2]`, or in a column `op` in front.
//!
//! What is printed cannot be taken back, so the sink is at-least-once.

mod cell;
mod options;
mod row;
mod sink;
mod table;

pub use crate::console::is_console_closed;

use std::collections::BTreeMap;
use std::sync::Arc;

use ruslo_core::connector::{Connector, OptionSpec, TableDefinition};
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::sink::{Guarantee, Sink};
use ruslo_core::source::Source;

use self::options::PrintOptions;
use self::sink::PrintSink;

/// The connector; see the module.
#[derive(Debug, Clone, Copy)]
pub struct Print;

impl Connector for Print {
    fn name(&self) -> &'static str {
        "print"
    }

    fn options(&self, _given: &BTreeMap<String, String>) -> Result<Vec<OptionSpec>> {
        Ok(options::SPECS.to_vec())
    }

    fn sink_guarantee(&self) -> Option<Guarantee> {
        Some(Guarantee::AtLeastOnce)
    }

    fn source(&self, _: &TableDefinition, _: &[usize], _: &Environment) -> Result<Arc<dyn Source>> {
        Err(Error::usage("connector 'print' cannot be read from; it only takes INSERT INTO"))
    }

    fn sink(&self, table: &TableDefinition, _: &Environment) -> Result<Arc<dyn Sink>> {
        let options = PrintOptions::parse(&table.options)?;
        Ok(Arc::new(PrintSink::new(options, &table.schema, table.is_updating)))
    }
}
