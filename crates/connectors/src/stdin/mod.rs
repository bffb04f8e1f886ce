//! `'connector' = 'stdin'`: rows from standard input, as they come, until its end.
//!
//! `source` has one split, which one `reader` reads: it takes bytes off the seam into its `text`, and decodes whole lines
//! of them. Nothing that was read comes again, so a job cannot resume behind it.

mod reader;
mod source;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;

use ruslo_core::connector::{Connector, OptionSpec, TableDefinition};
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::sink::{Guarantee, Sink};
use ruslo_core::source::Source;

use self::source::InputSource;
use crate::{line_format, option};

const NAME: &str = "stdin";

/// The connector; see the module.
#[derive(Debug, Clone, Copy)]
pub struct Stdin;

impl Connector for Stdin {
    fn name(&self) -> &'static str {
        NAME
    }

    fn options(&self, given: &BTreeMap<String, String>) -> Result<Vec<OptionSpec>> {
        Ok([line_format::FORMAT_SPEC, option::RATE_SPEC].into_iter().chain(line_format::options(given)).collect())
    }

    fn source_guarantee(&self) -> Option<Guarantee> {
        Some(Guarantee::AtMostOnce)
    }

    fn source(&self, table: &TableDefinition, projection: &[usize], _: &Environment) -> Result<Arc<dyn Source>> {
        Ok(Arc::new(InputSource::new(line_format::of(table, NAME)?, table, projection)?))
    }

    fn sink(&self, _: &TableDefinition, _: &Environment) -> Result<Arc<dyn Sink>> {
        Err(Error::usage("connector 'stdin' cannot be written to; 'stdout' is for that"))
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let environment = Environment::local();
        for (format, part) in [("parquet", "it is for files; connector 'stdin' takes json and csv"), ("xml", "'xml'")] {
            let table = TableDefinition::new("t", schema.clone(), [("format".into(), format.into())].into());
            let error = Stdin.source(&table, &[0], &environment).err().unwrap();
            assert!(error.to_string().contains(part), "{error}");
        }
        let table = TableDefinition::new("t", schema, BTreeMap::new());
        assert!(
            Stdin.source(&table, &[0], &environment).err().unwrap().to_string().contains("needs the option 'format'")
        );
        assert!(Stdin.sink(&table, &environment).err().unwrap().to_string().contains("'stdout' is for that"));
    }
}
