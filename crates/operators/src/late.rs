//! Late rows to a side table: takes the rows that the window behind it would drop out of the stream, and gives them
//! aside as they are.
//!
//! It judges as the window does, by the window's shape and the split's watermark just before a row, so that the window
//! behind it finds nothing late any more. It stands before the exchange and keeps no state.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Port, Progress, SharedFactory};
use ruslo_core::schema::split_watermarks;

use crate::event_time::millis;
use crate::expression::evaluate;
use crate::window::{WindowClock, WindowShape};

/// When a row is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LateRule {
    /// When every window that it is in was complete.
    Windows(WindowShape),
    /// When the watermark is past its own time: no session takes it.
    Time,
}

/// Gives late rows aside, through [`Port::LATE`]; cheap to clone.
#[derive(Debug, Clone)]
pub struct LateRowsSpec {
    rule: LateRule,
    time: Arc<dyn PhysicalExpr>,
    columns: Vec<usize>,
    side: SchemaRef,
}

impl LateRowsSpec {
    /// Judges rows by `time`, a TIMESTAMP, and `rule`. Aside go the `columns` of late rows, under the names of `side`.
    pub fn new(rule: LateRule, time: Arc<dyn PhysicalExpr>, columns: Vec<usize>, side: SchemaRef) -> Self {
        Self { rule, time, columns, side }
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(LateRows { spec: self.clone() }))
    }

    /// Whether each row is late; `None` if none is.
    fn judge(&self, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
        let Some(watermarks) = split_watermarks(batch) else { return Ok(None) };
        let times = evaluate(&self.time, batch)?;
        let nulls = times.nulls().cloned();
        let clock = self.rule.clock();
        let times = clock.local_times(millis(&times)?, times.data_type());
        let watermarks = clock.watermarks(watermarks.values().clone());
        let mut late = Vec::with_capacity(times.len());
        for (row, (time, watermark)) in times.iter().zip(&watermarks).enumerate() {
            // Who drops rows without a time, or fails on them, is the window.
            let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
            late.push(!is_null && self.rule.is_late(*time, *watermark)?);
        }
        Ok(late.contains(&true).then(|| BooleanArray::from(late)))
    }

    fn side(&self, late: &RecordBatch) -> Result<RecordBatch> {
        let column = |index: &usize| late.columns().get(*index).cloned();
        let columns: Option<Vec<ArrayRef>> = self.columns.iter().map(column).collect();
        let columns = columns.ok_or_else(|| Error::internal("a column of late rows is missing"))?;
        Ok(RecordBatch::try_new(self.side.clone(), columns)?)
    }
}

impl LateRule {
    /// What it goes by; sessions are of instants.
    fn clock(self) -> WindowClock {
        match self {
            Self::Time => WindowClock::plain(),
            Self::Windows(shape) => shape.clock(),
        }
    }

    fn is_late(self, time: i64, watermark: i64) -> Result<bool> {
        match self {
            Self::Time => Ok(time < watermark),
            Self::Windows(shape) => shape.is_late(time, watermark),
        }
    }
}

struct LateRows {
    spec: LateRowsSpec,
}

impl Operator for LateRows {
    fn on_batch(
        &mut self,
        _: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let Some(late) = self.spec.judge(&batch)? else {
            out.emit(batch);
            return Ok(Progress::Done);
        };
        ctx.metrics.late_rows.add(late.true_count());
        out.emit_to(Port::LATE, self.spec.side(&filter_record_batch(&batch, &late)?)?);
        let kept: BooleanArray = late.values().iter().map(|late| Some(!late)).collect();
        out.emit(filter_record_batch(&batch, &kept)?);
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array, TimestampMillisecondArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
    use datafusion::physical_expr::expressions::col;
    use ruslo_core::schema::with_split_watermarks;

    use super::*;
    use crate::testing::TestContext;

    fn schema() -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true), Field::new("ts", time, true)]))
    }

    fn side() -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        Arc::new(Schema::new(vec![Field::new("at", time, true), Field::new("value", DataType::Int64, true)]))
    }

    /// Rows numbered from 0 with these times, each behind this watermark.
    fn rows(rows: &[(Option<i64>, i64)]) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows.len() as i64));
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter(rows.iter().map(|row| row.0)));
        let batch = RecordBatch::try_new(schema(), vec![numbers, times]).unwrap();
        with_split_watermarks(&batch, Int64Array::from_iter_values(rows.iter().map(|row| row.1))).unwrap()
    }

    fn numbers(batch: &RecordBatch, column: usize) -> Vec<i64> {
        batch.column(column).as_primitive::<Int64Type>().values().to_vec()
    }

    /// The numbers of the rows that go on, of those that go aside, and how many were counted.
    fn run(rule: LateRule, batch: RecordBatch) -> (Vec<i64>, Vec<i64>, u64) {
        let spec = LateRowsSpec::new(rule, col("ts", &schema()).unwrap(), vec![1, 0], side());
        let mut operator = spec.factory().create().unwrap();
        let mut test = TestContext::new();
        let mut out = Output::default();
        assert_eq!(operator.on_batch(0, batch, &mut test.context(), &mut out).unwrap(), Progress::Done);
        let (mut main, mut late) = (Vec::new(), Vec::new());
        for (port, batch) in out.take() {
            match port {
                Port::MAIN => main.extend(numbers(&batch, 0)),
                _ => {
                    assert_eq!((port, batch.schema()), (Port::LATE, side()));
                    late.extend(numbers(&batch, 1));
                }
            }
        }
        (main, late, test.metrics.late_rows.get())
    }

    #[test]
    fn a_row_is_late_when_its_last_window_is_complete() {
        let batch = rows(&[(Some(5), 8), (Some(5), 9), (Some(12), 9), (None, 100), (Some(3), i64::MIN)]);
        let tumble = LateRule::Windows(WindowShape::tumble(10, 0).unwrap());
        assert_eq!(run(tumble, batch.clone()), (vec![0, 2, 3, 4], vec![1], 1));
        let hop = LateRule::Windows(WindowShape::hop(10, 30, 0).unwrap());
        assert_eq!(run(hop, batch), (vec![0, 1, 2, 3, 4], vec![], 0));
        assert_eq!(run(hop, rows(&[(Some(5), 28), (Some(5), 29)])), (vec![0], vec![1], 1));
    }

    #[test]
    fn for_sessions_a_row_is_late_when_the_watermark_is_past_it() {
        let batch = rows(&[(Some(5), 4), (Some(5), 5), (Some(5), 6)]);
        assert_eq!(run(LateRule::Time, batch), (vec![0, 1], vec![2], 1));
    }

    #[test]
    fn rows_without_watermarks_pass_as_they_are() {
        let batch = ruslo_core::schema::visible(&rows(&[(Some(1), 0), (None, 0)]));
        assert_eq!(run(LateRule::Time, batch), (vec![0, 1], vec![], 0));
    }

    #[test]
    fn a_batch_of_late_rows_leaves_nothing() {
        assert_eq!(run(LateRule::Time, rows(&[(Some(0), 1), (Some(-1), 1)])), (vec![], vec![0, 1], 2));
    }
}
