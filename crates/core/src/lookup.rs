//! Tables that are asked for rows by key, while a stream goes by: reference data of a lookup join.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::connector::{Connector, OptionSpec, TableDefinition};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::io::IoFuture;
use crate::sink::Sink;
use crate::source::Source;

/// The rows under some keys.
#[derive(Debug, Clone)]
pub struct Found {
    /// Which of the keys each row is under: its row in the request, ascending.
    pub requests: UInt32Array,
    /// The columns of the rows, as [`LookupSource::schema`] has them.
    pub columns: Vec<ArrayRef>,
}

/// A table that can be asked for rows by key.
///
/// Keys come as one column for each key column, one key a row, none of them NULL. A key may have no row, one or many.
pub trait LookupSource: Send + Sync {
    /// The columns of its rows.
    fn schema(&self) -> SchemaRef;

    /// The rows under `keys`, which are all different. Polled by the threads that do I/O: it should not keep one for long.
    /// `Unavailable` errors are tried again.
    fn lookup(&self, keys: RecordBatch) -> IoFuture<Result<Found>>;

    /// The same at once, if nobody has to be waited for. None: [`Self::lookup`] must be asked.
    fn look(&self, keys: &RecordBatch) -> Option<Result<Found>> {
        let _ = keys;
        None
    }

    /// Whether it has all of its rows in memory: then answers need not be kept by who asks.
    fn is_in_memory(&self) -> bool {
        false
    }

    /// Bytes that it holds in memory, for all who ask together.
    fn bytes(&self) -> u64 {
        0
    }
}

/// Makes the [`LookupSource`] of a table from its declaration and the columns (indexes into its schema) that keys are of.
pub type OpenLookup = dyn Fn(&TableDefinition, &[usize]) -> Result<Arc<dyn LookupSource>> + Send + Sync;

/// A connector of tables that live in the process and are asked by key: `'connector' = '<name>'`.
#[derive(Clone)]
pub struct LookupConnector {
    name: &'static str,
    options: Vec<OptionSpec>,
    open: Arc<OpenLookup>,
}

impl LookupConnector {
    /// A connector under `name`, whose tables `open` makes.
    pub fn new(
        name: &'static str,
        open: impl Fn(&TableDefinition, &[usize]) -> Result<Arc<dyn LookupSource>> + Send + Sync + 'static,
    ) -> Self {
        Self { name, options: Vec::new(), open: Arc::new(open) }
    }

    /// The same with tables that may have these options, too.
    #[must_use]
    pub fn with_options(self, options: Vec<OptionSpec>) -> Self {
        Self { options, ..self }
    }

    fn refuse<T>(&self, table: &TableDefinition, what: &str) -> Result<T> {
        Err(Error::usage(format!(
            "the table '{}' can only be asked by key, because its connector is '{}': it cannot be {what}; join it with \
             FOR SYSTEM_TIME AS OF a column AS PROCTIME()",
            table.name, self.name
        )))
    }
}

impl Connector for LookupConnector {
    fn name(&self) -> &'static str {
        self.name
    }

    fn options(&self, _: &std::collections::BTreeMap<String, String>) -> Result<Vec<OptionSpec>> {
        Ok(self.options.clone())
    }

    fn source(&self, table: &TableDefinition, _: &[usize], _: &Environment) -> Result<Arc<dyn Source>> {
        self.refuse(table, "read from its beginning to its end")
    }

    fn sink(&self, table: &TableDefinition, _: &Environment) -> Result<Arc<dyn Sink>> {
        self.refuse(table, "written")
    }

    fn lookup(
        &self,
        table: &TableDefinition,
        keys: &[usize],
        _: &Environment,
    ) -> Result<Option<Arc<dyn LookupSource>>> {
        (self.open)(table, keys).map(Some)
    }
}
