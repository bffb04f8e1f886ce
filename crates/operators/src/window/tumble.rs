//! Tumbling window aggregation.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};

use super::groups::{AggregateCall, GroupPlan};
use super::{TumblingWindow, with_window_fields};
use crate::expression::NamedExpr;

/// `SELECT keys, aggregates, window_start, window_end, window_time FROM TABLE(TUMBLE(..)) GROUP BY keys, window`;
/// cheap to clone.
#[derive(Debug, Clone)]
pub struct TumbleSpec {
    plan: Arc<GroupPlan>,
    time_column: usize,
    window: TumblingWindow,
    schema: SchemaRef,
}

impl TumbleSpec {
    /// Groups rows of `input` by `keys` and the window that the TIMESTAMP in column `time_column` is in.
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
        window: TumblingWindow,
    ) -> Result<Self> {
        match input.fields().get(time_column).map(|field| field.data_type()) {
            Some(DataType::Timestamp(..)) => {}
            other => return Err(Error::internal(format!("a window over a time column of type {other:?}"))),
        }
        let plan = GroupPlan::new(keys, aggregates)?;
        let schema = Arc::new(with_window_fields(plan.result_schema()));
        Ok(Self { plan: Arc::new(plan), time_column, window, schema })
    }

    /// The columns that come out: keys, aggregates, `window_start`, `window_end`, `window_time`.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(TumbleAggregate { spec: self.clone() }))
    }
}

struct TumbleAggregate {
    spec: TumbleSpec,
}

impl Operator for TumbleAggregate {
    fn on_batch(
        &mut self,
        _input: InputId,
        _batch: RecordBatch,
        _ctx: &mut OperatorContext<'_>,
        _out: &mut Output,
    ) -> Result<Progress> {
        Err(Error::internal(format!("tumbling windows of {} ms are not there yet", self.spec.window.size_ms())))
    }
}
