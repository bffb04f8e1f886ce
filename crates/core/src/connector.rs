//! What a connector tells about itself, and the registry in which the planner finds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;

use crate::dead_letter::OnError;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::lookup::LookupSource;
use crate::sink::{Guarantee, Sink};
use crate::source::Source;

/// An option that a table may carry in its WITH clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionSpec {
    /// The key, as Flink spells it where Flink has it; a `#` stands for a column's name: `fields.#.kind`.
    pub key: &'static str,
    /// Whether a table must give it.
    pub required: bool,
    /// What it means, one line, with the unit and the default.
    pub doc: &'static str,
}

impl OptionSpec {
    /// Whether this is the option that `key` gives.
    pub fn is_for(&self, key: &str) -> bool {
        match self.key.split_once('#') {
            None => self.key == key,
            Some((before, after)) => {
                let column = key.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                column.is_some_and(|column| !column.is_empty())
            }
        }
    }
}

/// A table as declared by CREATE TABLE.
#[derive(Debug, Clone)]
pub struct TableDefinition {
    /// Its name.
    pub name: String,
    /// Its physical columns (no computed ones), in order.
    pub schema: SchemaRef,
    /// The WITH clause, without `connector`.
    pub options: BTreeMap<String, String>,
    /// PRIMARY KEY (..) NOT ENFORCED: columns of `schema`.
    pub primary_key: Vec<String>,
    /// PARTITIONED BY (..): columns of `schema`.
    pub partition_keys: Vec<String>,
    /// Columns that are not in the rows themselves: `c TYPE METADATA FROM 'key'`.
    pub metadata: Vec<MetadataColumn>,
    /// What becomes of records that cannot become rows, if the table is read.
    pub on_error: OnError,
    /// What every row satisfies that is wanted, if the table is read: a source may leave out parts of its input in which
    /// no row satisfies all of them. It need not; who reads looks at each row all the same.
    pub wanted: Vec<Bound>,
    /// Whether rows that are written may change or go again ([`crate::changelog`]).
    pub is_updating: bool,
}

/// A comparison of a column with a constant.
#[derive(Debug, Clone)]
pub struct Bound {
    /// The column of the table.
    pub column: String,
    /// How its value is to the constant; a row that has NULL is not wanted.
    pub comparison: Comparison,
    /// The constant: one value of the column's type, which is not NULL.
    pub value: ArrayRef,
}

/// How a value is to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Comparison {
    /// What the other one is to the value.
    #[must_use]
    pub fn turned(self) -> Self {
        match self {
            Self::Equal => Self::Equal,
            Self::Less => Self::Greater,
            Self::LessOrEqual => Self::GreaterOrEqual,
            Self::Greater => Self::Less,
            Self::GreaterOrEqual => Self::LessOrEqual,
        }
    }
}

impl TableDefinition {
    /// A table of these columns and options, with nothing else declared.
    pub fn new(name: impl Into<String>, schema: SchemaRef, options: BTreeMap<String, String>) -> Self {
        let (primary_key, partition_keys, metadata, on_error, wanted) = Default::default();
        let (name, is_updating) = (name.into(), false);
        Self { name, schema, options, primary_key, partition_keys, metadata, on_error, wanted, is_updating }
    }
}

/// A column that the connector fills in (or takes out) beside the row: where it came from, when, its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataColumn {
    /// Which column of [`TableDefinition::schema`] it is.
    pub column: String,
    /// What the connector calls it.
    pub key: String,
    /// VIRTUAL: read, never written.
    pub is_virtual: bool,
}

/// A kind of table.
pub trait Connector: Send + Sync {
    /// What `'connector' = '..'` says.
    fn name(&self) -> &'static str;

    /// The options it knows, given those that a table has (a format brings its own).
    fn options(&self, given: &BTreeMap<String, String>) -> Result<Vec<OptionSpec>>;

    /// The keys that `METADATA FROM 'key'` may name.
    fn metadata(&self) -> &'static [&'static str] {
        &[]
    }

    /// The most that its tables can promise where they are read; none, if they cannot be.
    fn source_guarantee(&self) -> Option<Guarantee> {
        None
    }

    /// The most that its tables can promise where they are written; none, if they cannot be.
    fn sink_guarantee(&self) -> Option<Guarantee> {
        None
    }

    /// Reads the columns `projection` (indexes into the table's schema, ascending) of a table.
    ///
    /// # Errors
    /// `Usage`, if the connector cannot be read, or an option's value doesn't fit.
    fn source(
        &self,
        table: &TableDefinition,
        projection: &[usize],
        environment: &Environment,
    ) -> Result<Arc<dyn Source>>;

    /// Writes a table.
    ///
    /// # Errors
    /// `Usage`, if the connector cannot be written, or an option's value doesn't fit.
    fn sink(&self, table: &TableDefinition, environment: &Environment) -> Result<Arc<dyn Sink>>;

    /// Asks a table for rows by the columns `keys` (indexes into its schema). None, if it can only be read whole: then it
    /// is, and its rows are kept in memory by key.
    ///
    /// # Errors
    /// `Usage`, if these columns cannot be keys, or an option's value doesn't fit.
    fn lookup(
        &self,
        table: &TableDefinition,
        keys: &[usize],
        environment: &Environment,
    ) -> Result<Option<Arc<dyn LookupSource>>> {
        let _ = (table, keys, environment);
        Ok(None)
    }
}

/// The connectors of this build.
#[derive(Clone, Default)]
pub struct Registry {
    connectors: BTreeMap<&'static str, Arc<dyn Connector>>,
}

impl Registry {
    /// Adds a connector under its name.
    #[must_use]
    pub fn with(mut self, connector: impl Connector + 'static) -> Self {
        self.connectors.insert(connector.name(), Arc::new(connector));
        self
    }

    /// The connector `name`.
    ///
    /// # Errors
    /// `Usage`, naming those there are.
    pub fn connector(&self, name: &str) -> Result<&Arc<dyn Connector>> {
        self.connectors.get(name).ok_or_else(|| {
            let known: Vec<_> = self.names().collect();
            Error::usage(format!("unknown connector '{name}'; this build has {}", known.join(", ")))
        })
    }

    /// All connectors, by name.
    pub fn connectors(&self) -> impl Iterator<Item = &Arc<dyn Connector>> + '_ {
        self.connectors.values()
    }

    /// All names, ascending.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.connectors.keys().copied()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_in_an_option_stands_for_a_column() {
        let spec = |key| OptionSpec { key, required: false, doc: "" };
        assert!(spec("path").is_for("path") && !spec("path").is_for("paths"));
        assert!(spec("fields.#.kind").is_for("fields.a.b.kind"));
        assert!(!spec("fields.#.kind").is_for("fields..kind") && !spec("fields.#.kind").is_for("fields.a.min"));
    }
}
