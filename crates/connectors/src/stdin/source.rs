//! Standard input as a source: one split, for whoever comes first.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use ruslo_core::connector::TableDefinition;
use ruslo_core::dead_letter::OnError;
use ruslo_core::environment::Environment;
use ruslo_core::error::Result;
use ruslo_core::source::{Source, SourceReader, Split};
use ruslo_formats::{Decoder, DecoderConfig, Format};

use super::reader::InputReader;

/// The name of its lineage, and how it is called in errors.
pub(super) const LINEAGE: &str = "standard input";

/// Which columns of the lines are read, and how.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) format: Arc<dyn Format>,
    table: SchemaRef,
    projection: Vec<usize>,
}

impl Columns {
    pub(super) fn decoder(&self, header: Option<&[u8]>) -> Result<Box<dyn Decoder>> {
        self.format.decoder(&DecoderConfig { header, ..DecoderConfig::new(&self.table, &self.projection) })
    }
}

/// Standard input, to be read.
pub(super) struct InputSource {
    pub(super) columns: Arc<Columns>,
    schema: SchemaRef,
    on_error: OnError,
}

impl InputSource {
    pub(super) fn new(format: Arc<dyn Format>, table: &TableDefinition, projection: &[usize]) -> Result<Self> {
        let schema = Arc::new(table.schema.project(projection)?);
        let columns = Columns { format, table: table.schema.clone(), projection: projection.to_vec() };
        Ok(Self { columns: Arc::new(columns), schema, on_error: table.on_error.clone() })
    }
}

impl Source for InputSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn is_replayable(&self) -> bool {
        false
    }

    fn splits(&self, _: &Environment) -> Result<Vec<Split>> {
        let description = serde_json::json!({});
        Ok(vec![Split { lineage: LINEAGE.to_owned(), sequence: 0, is_endless: false, description }])
    }

    fn reader(&self, environment: &Environment) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(InputReader::new(Arc::clone(&self.columns), environment, self.on_error.clone())))
    }
}
