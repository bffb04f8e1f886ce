//! What a window aggregate is made of, and which operator does it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::{Operator, OperatorFactory, SharedFactory};

use super::firing::Piece;
use super::groups::{AggregateCall, GroupPlan};
use super::shape::WindowShape;
use super::sliced::SlicedAggregate;
use super::tumble::TumbleAggregate;
use super::{window_columns, with_window_fields};
use crate::expression::NamedExpr;

/// `SELECT keys, aggregates, window_start, window_end, window_time FROM TABLE(TUMBLE | HOP | CUMULATE(..)) GROUP BY keys, window`;
/// cheap to clone.
#[derive(Debug, Clone)]
pub struct WindowAggregateSpec {
    pub(super) plan: Arc<GroupPlan>,
    pub(super) time_column: usize,
    pub(super) shape: WindowShape,
    schema: SchemaRef,
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
        Ok(Self { plan: Arc::new(plan), time_column, shape, schema })
    }

    /// The columns that come out: keys, aggregates, `window_start`, `window_end`, `window_time`.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
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
    fn create(&self) -> Result<Box<dyn Operator>> {
        if self.spec.shape.is_one_window_a_slice() {
            return Ok(Box::new(TumbleAggregate::new(self.spec.clone())));
        }
        Ok(Box::new(SlicedAggregate::new(self.spec.clone())))
    }
}
