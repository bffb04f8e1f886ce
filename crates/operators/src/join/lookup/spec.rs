//! What is joined with which table, and how it is asked: checked once, cheap to clone.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::physical_expr::PhysicalExpr;
use ruslo_core::error::{Error, Result};
use ruslo_core::lookup::LookupSource;
use ruslo_core::operator::SharedFactory;

use super::keys::KeyColumns;
use super::operator::LookupJoin;

/// Which rows go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LookupJoinKind {
    /// Rows that find something, beside it.
    Inner,
    /// All rows; those that find nothing, beside NULLs.
    Left,
}

/// What is kept of the rows that were found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LookupCache {
    /// Rows in each subtask, at most; a key without rows counts as one.
    pub rows_max: usize,
    /// How long they are kept after they were found; for ever, if none.
    pub expire_after_write: Option<Duration>,
    /// How long they are kept after they were asked for last; for ever, if none.
    pub expire_after_access: Option<Duration>,
    /// Whether it is kept in mind that a key has no row.
    pub keeps_missing: bool,
}

/// How a table is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupOptions {
    /// Whether batches go out in the order in which they came.
    pub is_ordered: bool,
    /// Requests of a subtask that wait for their answers at a time.
    pub requests_max: usize,
    /// How long one request may take.
    pub timeout: Duration,
    /// How often a request is tried again.
    pub retries_max: u32,
    /// What is kept of what was found, if anything is.
    pub cache: Option<LookupCache>,
}

impl Default for LookupOptions {
    fn default() -> Self {
        Self { is_ordered: true, requests_max: 100, timeout: Duration::from_secs(180), retries_max: 3, cache: None }
    }
}

/// A lookup join.
#[derive(Clone)]
pub struct LookupJoinSpec {
    pub(super) table: Arc<str>,
    pub(super) source: Arc<dyn LookupSource>,
    pub(super) keys: KeyColumns,
    pub(super) kind: LookupJoinKind,
    pub(super) condition: Option<Arc<dyn PhysicalExpr>>,
    pub(super) options: Arc<LookupOptions>,
    pub(super) left: SchemaRef,
    pub(super) schema: SchemaRef,
}

impl LookupJoinSpec {
    /// Rows of `left`, by its columns `keys`, with those that `source`, the table `table`, has under these keys, where
    /// `condition` holds over the columns of both.
    ///
    /// # Errors
    /// `Usage`, if a column cannot be a key; `Internal`, if the parts do not fit each other.
    pub fn new(
        (table, source): (&str, Arc<dyn LookupSource>),
        (left, keys): (&SchemaRef, Vec<usize>),
        kind: LookupJoinKind,
        condition: Option<Arc<dyn PhysicalExpr>>,
        options: LookupOptions,
    ) -> Result<Self> {
        if options.requests_max == 0 {
            return Err(Error::internal("a lookup join that may ask for nothing"));
        }
        let keys = KeyColumns::new(left, keys)?;
        let right = source.schema();
        let right = right.fields().iter().map(|field| match kind {
            LookupJoinKind::Inner => Arc::clone(field),
            LookupJoinKind::Left => Arc::new(field.as_ref().clone().with_nullable(true)),
        });
        let fields: Vec<_> = left.fields().iter().cloned().chain(right).collect();
        let schema = Arc::new(Schema::new(fields));
        if let Some(condition) = &condition {
            let data_type = condition.data_type(&schema).map_err(crate::expression::execution_error)?;
            if data_type != DataType::Boolean {
                return Err(Error::internal(format!("the condition of a lookup join is {data_type}")));
            }
        }
        let (table, left) = (Arc::from(table), Arc::clone(left));
        Ok(Self { table, source, keys, kind, condition, options: Arc::new(options), left, schema })
    }

    /// The columns that come out: those of the stream, then those of the table.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The same with other names and metadata of the columns that come out.
    ///
    /// # Errors
    /// `Internal`, if they are others.
    pub fn with_schema(self, schema: SchemaRef) -> Result<Self> {
        let types = |schema: &Schema| schema.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        if types(&schema) != types(&self.schema) {
            return Err(Error::internal("a lookup join gives other columns than it was planned with"));
        }
        Ok(Self { schema, ..self })
    }

    /// The table of its state whose columns follow from the plan.
    pub fn state_table(&self) -> crate::StateTable {
        let own = super::waiting::own_fields();
        let rows = self.left.fields().iter().enumerate();
        let rows = rows.map(|(n, field)| Field::new(format!("column{n}"), field.data_type().clone(), true));
        (super::waiting::TABLE, Arc::new(Schema::new(own.into_iter().chain(rows).collect::<Vec<_>>())))
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || LookupJoin::new(self.clone()))
    }
}
