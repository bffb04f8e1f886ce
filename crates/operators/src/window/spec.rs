//! What a window aggregate is made of, and which operator does it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::{Operator, OperatorFactory, SharedFactory};

use super::firing::Piece;
use super::groups::{AggregateCall, GroupPlan, GroupSet};
use super::local::LocalAggregateSpec;
use super::partial::of_partials;
use super::partition::{Partition, partition};
use super::sealed;
use super::shape::WindowShape;
use super::sliced::SlicedAggregate;
use super::tumble::TumbleAggregate;
use super::{window_columns, with_window_fields};
use crate::StateTable;
use crate::expression::NamedExpr;

/// `SELECT keys, aggregates, window_start, window_end, window_time FROM TABLE(TUMBLE | HOP | CUMULATE(..)) GROUP BY keys, window`;
/// cheap to clone.
#[derive(Debug, Clone)]
pub struct WindowAggregateSpec {
    pub(super) plan: Arc<GroupPlan>,
    pub(super) time_column: usize,
    pub(super) shape: WindowShape,
    arrivals: Arrivals,
    schema: SchemaRef,
}

/// What comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrivals {
    Rows,
    /// From the local half of a two-phase aggregation.
    PartialGroups,
}

impl WindowAggregateSpec {
    /// Groups rows of `input` by `keys` and the windows that the TIMESTAMP in column `time_column` is in.
    ///
    /// The rows must come through an exchange by the columns that `keys` are. Without keys there is one group a window.
    ///
    /// # Errors
    /// `Usage`, if a key cannot be one or an aggregate is not possible here; `Internal`, if the time column is no
    /// TIMESTAMP.
    pub fn new(
        input: &Schema,
        keys: Vec<NamedExpr>,
        aggregates: Vec<AggregateCall>,
        time_column: usize,
        shape: WindowShape,
    ) -> Result<Self> {
        match input.fields().get(time_column).map(|field| field.data_type()) {
            Some(DataType::Timestamp(..)) => {}
            other => return Err(Error::internal(format!("a window over a time column of type {other:?}"))),
        }
        let plan = GroupPlan::new(keys, aggregates)?;
        let schema = Arc::new(with_window_fields(plan.result_schema(), shape.clock()));
        Ok(Self { plan: Arc::new(plan), time_column, shape, arrivals: Arrivals::Rows, schema })
    }

    /// The same in two phases: the local half, which stands before the exchange, and what follows it, exchanged by as many
    /// of the first columns as there are keys. State is the same in one phase and in two.
    ///
    /// # Errors
    /// The name of an aggregate that keeps every value, so that partial groups would be no smaller than the rows.
    pub fn two_phases(&self) -> std::result::Result<(LocalAggregateSpec, Self), String> {
        match self.plan.keeps_all_values() {
            Some(name) => Err(name.to_owned()),
            None => {
                let global = Self { arrivals: Arrivals::PartialGroups, ..self.clone() };
                Ok((LocalAggregateSpec::new(self.clone()), global))
            }
        }
    }

    /// What came, by slice.
    ///
    /// # Errors
    /// `Data`, if a time is NULL or too far from 1970.
    pub(super) fn by_slice(&self, batch: &RecordBatch) -> Result<Partition> {
        match self.arrivals {
            Arrivals::Rows => partition(batch, self.time_column, self.shape),
            Arrivals::PartialGroups => of_partials(batch),
        }
    }

    /// Adds what came of one slice to its groups.
    pub(super) fn add(&self, groups: &mut GroupSet, arrived: &RecordBatch) -> Result<()> {
        match self.arrivals {
            Arrivals::Rows => groups.update(arrived),
            Arrivals::PartialGroups => groups.merge(arrived),
        }
    }

    /// The columns that come out: keys, aggregates, `window_start`, `window_end`, `window_time`.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The state table whose columns follow from this spec.
    pub fn state_table(&self) -> StateTable {
        (sealed::TABLE, self.plan.sealed_schema().clone())
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(WindowAggregateFactory { spec: self })
    }

    /// Result rows of the window that ends at `end`.
    pub(super) fn batch(&self, end: i64, piece: Piece) -> Result<RecordBatch> {
        let mut columns = piece.columns;
        columns.extend(window_columns(self.shape, std::iter::once((end, piece.rows)), piece.rows));
        let options = RecordBatchOptions::new().with_row_count(Some(piece.rows));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }
}

struct WindowAggregateFactory {
    spec: WindowAggregateSpec,
}

impl OperatorFactory for WindowAggregateFactory {
    fn fresh_state(&self) -> Result<Option<RecordBatch>> {
        self.spec.plan.fresh().map(Some)
    }

    fn create(&self) -> Result<Box<dyn Operator>> {
        if self.spec.shape.is_one_window_a_slice() {
            return Ok(Box::new(TumbleAggregate::new(self.spec.clone())));
        }
        Ok(Box::new(SlicedAggregate::new(self.spec.clone())))
    }
}
