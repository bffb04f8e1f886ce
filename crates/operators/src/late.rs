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
use ruslo_core::equation::Equation;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Port, Progress, SharedFactory};
use ruslo_core::schema::split_watermarks;

use crate::event_time::millis;
use crate::expression::evaluate;
use crate::window::{WindowClock, WindowShape, is_complete};

/// When a row is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LateRule {
    /// When every window that it is in was complete.
    Windows(WindowShape),
    /// When the watermark is past its own time: no session takes it.
    Time,
    /// When the watermark has completed the one window that it was given. Its time is the window's end, or so many
    /// milliseconds before.
    Window(i64, WindowClock),
    /// When the watermark has reached its own time: it has no place in an order any more.
    Reached,
}

/// Gives late rows aside, through [`Port::LATE`]; cheap to clone.
#[derive(Debug, Clone)]
pub struct LateRowsSpec {
    rule: LateRule,
    time: Arc<dyn PhysicalExpr>,
    columns: Vec<usize>,
    side: SchemaRef,
    last: Option<Last>,
}

/// Which of a row's copies is that of its last window.
#[derive(Debug, Clone)]
struct Last {
    shape: WindowShape,
    /// The row's own time.
    time: Arc<dyn PhysicalExpr>,
}

impl LateRowsSpec {
    /// Judges rows by `time`, a TIMESTAMP, and `rule`. Aside go the `columns` of late rows, under the names of `side`.
    pub fn new(rule: LateRule, time: Arc<dyn PhysicalExpr>, columns: Vec<usize>, side: SchemaRef) -> Self {
        Self { rule, time, columns, side, last: None }
    }

    /// The same for rows that are there once for each of their windows, which are of `shape` and the row's own `time`,
    /// and judged by [`LateRule::Window`]. Aside goes a row once, if all of its windows are complete.
    #[must_use]
    pub fn once(self, shape: WindowShape, time: Arc<dyn PhysicalExpr>) -> Self {
        Self { last: Some(Last { shape, time }), ..self }
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

    /// Which of the `late` rows go aside.
    fn aside(&self, batch: &RecordBatch, late: &BooleanArray) -> Result<BooleanArray> {
        let (Some(last), LateRule::Window(before_end_ms, clock)) = (&self.last, self.rule) else {
            return Ok(late.clone());
        };
        let (ends, own) = (evaluate(&self.time, batch)?, evaluate(&last.time, batch)?);
        let nulls = own.nulls().cloned();
        let (ends, own) = (millis(&ends)?, clock.local_times(millis(&own)?, own.data_type()));
        let mut aside = Vec::with_capacity(late.len());
        for (row, (end, own)) in ends.iter().zip(&own).enumerate() {
            let is_null = nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
            let is_late = late.value(row) && !is_null;
            aside.push(is_late && last.shape.last_end_of(*own)? == end.saturating_add(before_end_ms));
        }
        Ok(aside.into())
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
            Self::Time | Self::Reached => WindowClock::plain(),
            Self::Window(_, clock) => clock,
            Self::Windows(shape) => shape.clock(),
        }
    }

    fn is_late(self, time: i64, watermark: i64) -> Result<bool> {
        match self {
            Self::Time => Ok(time < watermark),
            Self::Reached => Ok(time <= watermark),
            Self::Window(before_end_ms, _) => Ok(is_complete(time.saturating_add(before_end_ms), watermark)),
            Self::Windows(shape) => shape.is_late(time, watermark),
        }
    }
}

struct LateRows {
    spec: LateRowsSpec,
}

impl Operator for LateRows {
    fn equation(&self) -> Equation {
        Equation::Sifts
    }

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
        let aside = self.spec.aside(&batch, &late)?;
        if aside.true_count() > 0 {
            out.emit_to(Port::LATE, self.spec.side(&filter_record_batch(&batch, &aside)?)?);
        }
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
    fn for_an_order_a_row_is_late_when_the_watermark_has_reached_it() {
        let batch = rows(&[(Some(5), 4), (Some(5), 5), (Some(5), 6), (None, 6)]);
        assert_eq!(run(LateRule::Reached, batch), (vec![0, 3], vec![1, 2], 2));
    }

    #[test]
    fn a_copy_is_late_by_its_own_window() {
        let ends = rows(&[(Some(10), 8), (Some(10), 9), (Some(20), 9)]);
        assert_eq!(run(LateRule::Window(0, WindowClock::plain()), ends), (vec![0, 2], vec![1], 1));
        let before = rows(&[(Some(9), 8), (Some(9), 9)]);
        assert_eq!(run(LateRule::Window(1, WindowClock::plain()), before), (vec![0], vec![1], 1));
    }

    /// Windows of 20 every 10; the column `v` is the row's own time here, so that 3 is in those that end at 10 and 20.
    #[test]
    fn of_the_copies_of_a_row_one_goes_aside_if_all_are_late() {
        let ends = rows(&[(Some(10), 9), (Some(20), 9), (Some(10), 19), (Some(20), 19)]);
        let own: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![3, 3, 4, 4]));
        let mut columns = ends.columns().to_vec();
        let mut fields: Vec<_> = ends.schema().fields().iter().cloned().collect();
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        columns.insert(2, own);
        fields.insert(2, Arc::new(Field::new("own", time, true)));
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let schema = batch.schema();
        let spec = LateRowsSpec::new(
            LateRule::Window(0, WindowClock::plain()),
            col("ts", &schema).unwrap(),
            vec![2, 0],
            side(),
        );
        let spec = spec.once(WindowShape::hop(10, 20, 0).unwrap(), col("own", &schema).unwrap());
        let mut test = TestContext::new();
        let mut out = Output::default();
        let done = spec.factory().create().unwrap().on_batch(0, batch, &mut test.context(), &mut out).unwrap();
        assert_eq!(done, Progress::Done);
        let out = out.take();
        let of = |wanted: Port| out.iter().filter(move |(port, _)| *port == wanted);
        assert_eq!(of(Port::MAIN).flat_map(|(_, batch)| numbers(batch, 0)).collect::<Vec<_>>(), [1]);
        assert_eq!(of(Port::LATE).flat_map(|(_, batch)| numbers(batch, 1)).collect::<Vec<_>>(), [3]);
        assert_eq!(test.metrics.late_rows.get(), 3);
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
