//! `'connector' = 'blackhole'`: takes every row and keeps none. For measuring all that comes before a sink.

mod sink;

use std::collections::BTreeMap;
use std::sync::Arc;

use ruslo_core::connector::{Connector, OptionSpec, TableDefinition};
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::sink::{Guarantee, Sink};
use ruslo_core::source::Source;

/// The connector; see the module.
#[derive(Debug, Clone, Copy)]
pub struct Blackhole;

impl Connector for Blackhole {
    fn name(&self) -> &'static str {
        "blackhole"
    }

    fn options(&self, _given: &BTreeMap<String, String>) -> Result<Vec<OptionSpec>> {
        Ok(Vec::new())
    }

    fn sink_guarantee(&self) -> Option<Guarantee> {
        Some(Guarantee::ExactlyOnce)
    }

    fn source(&self, _: &TableDefinition, _: &[usize], _: &Environment) -> Result<Arc<dyn Source>> {
        Err(Error::usage("connector 'blackhole' cannot be read from; it only takes INSERT INTO"))
    }

    fn sink(&self, _: &TableDefinition, _: &Environment) -> Result<Arc<dyn Sink>> {
        Ok(Arc::new(sink::BlackholeSink))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn it_is_written_and_never_read() {
        let table = TableDefinition::new("t", Arc::new(Schema::empty()), BTreeMap::default());
        assert!(Blackhole.sink(&table, &Environment::local()).is_ok());
        let error = Blackhole.source(&table, &[], &Environment::local()).err().unwrap();
        assert_eq!(error.to_string(), "connector 'blackhole' cannot be read from; it only takes INSERT INTO");
    }
}
