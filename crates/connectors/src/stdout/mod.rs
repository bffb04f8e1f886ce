//! `'connector' = 'stdout'`: rows go to standard output, for programs: JSON lines or CSV.
//!
//! What is written cannot be taken back, so the sink is at-least-once.

mod sink;

use std::collections::BTreeMap;
use std::sync::Arc;

use ruslo_core::connector::{Connector, OptionSpec, TableDefinition};
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::sink::{Guarantee, Sink};
use ruslo_core::source::Source;

use self::sink::OutputSink;
use crate::line_format;

const NAME: &str = "stdout";

/// The connector; see the module.
#[derive(Debug, Clone, Copy)]
pub struct Stdout;

impl Connector for Stdout {
    fn name(&self) -> &'static str {
        NAME
    }

    fn options(&self, given: &BTreeMap<String, String>) -> Result<Vec<OptionSpec>> {
        Ok([line_format::FORMAT_SPEC].into_iter().chain(line_format::options(given)).collect())
    }

    fn sink_guarantee(&self) -> Option<Guarantee> {
        Some(Guarantee::AtLeastOnce)
    }

    fn source(&self, _: &TableDefinition, _: &[usize], _: &Environment) -> Result<Arc<dyn Source>> {
        Err(Error::usage("connector 'stdout' cannot be read from; 'stdin' is for that"))
    }

    fn sink(&self, table: &TableDefinition, _: &Environment) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(OutputSink::new(line_format::of(table, NAME)?, table.schema.clone())?))
    }
}
