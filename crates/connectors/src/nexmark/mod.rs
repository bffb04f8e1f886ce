//! `'connector' = 'nexmark'`: the persons, auctions and bids of the Nexmark benchmark, made up as they are read.
//!
//! `event` knows what is common to all events, `person`, `auction` and `bid` their columns, `table` puts the columns that
//! are asked for together. Every value follows from the seed, the event's number and the column, so any row can be made
//! at any time and reading fewer columns costs less.

mod auction;
mod bid;
mod event;
mod options;
mod person;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use ruslo_core::connector::{Connector, OptionSpec, TableDefinition};
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::sink::{Guarantee, Sink};
use ruslo_core::source::Source;

use self::table::Events;
use crate::generate::GeneratedSource;

/// The connector; see the module.
#[derive(Debug, Clone, Copy)]
pub struct Nexmark;

impl Connector for Nexmark {
    fn name(&self) -> &'static str {
        "nexmark"
    }

    fn options(&self, _given: &BTreeMap<String, String>) -> Result<Vec<OptionSpec>> {
        Ok(options::SPECS.to_vec())
    }

    fn source_guarantee(&self) -> Option<Guarantee> {
        Some(Guarantee::ExactlyOnce)
    }

    fn source(&self, table: &TableDefinition, projection: &[usize], _: &Environment) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(GeneratedSource::new(Events::new(table, projection)?)))
    }

    fn sink(&self, _: &TableDefinition, _: &Environment) -> Result<Arc<dyn Sink>> {
        Err(Error::usage("connector 'nexmark' makes rows up; it cannot be written"))
    }
}
