//! Row time: computed columns, the watermark of the split, and which rows could be late.
//!
//! Stands in the source task, between a reader and everything else, because there every batch comes from one split.
//! A row is judged against the watermark that its own split had just before it (the prefix maximum over earlier rows),
//! so lateness does not depend on parallelism, batch size or timing.
//!
//! The watermark is what the expression says: with `ts - INTERVAL '5' SECOND` a row at 12:00:05 gives 12:00:00.000,
//! and a window that ends at `e` is complete once the watermark has reached `e` − 1 ms. So it is in Flink.
//!
//! Allowed lateness moves the watermark back by so much, for firing and for judging alike. A row that is further ahead
//! of the wall clock than a table allows does not move the watermark at all: one broken clock upstream would make
//! everything after it late. That, unlike lateness, depends on when a row is read.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use ruslo_core::error::{Error, Result, ResultExt};
use ruslo_core::schema::with_split_watermarks;
use ruslo_core::source::{Assigned, RowTime, SplitWatermark};
use ruslo_core::time::Timestamp;

use crate::event_time::millis_or;
use crate::expression::{NamedExpr, Projection, evaluate, execution_error};

/// `WATERMARK FOR time_column AS expression`.
#[derive(Debug, Clone)]
pub struct WatermarkSpec {
    /// Which of the table's columns is the event time; a TIMESTAMP.
    pub time_column: usize,
    /// Gives a TIMESTAMP from the table's columns; NULL says nothing.
    pub expression: Arc<dyn PhysicalExpr>,
}

/// Makes a table's rows from a reader's: see the module.
#[derive(Debug, Clone)]
pub struct RowTimeAssigner {
    columns: Option<Projection>,
    watermark: Option<WatermarkSpec>,
    caution: Caution,
    schema: SchemaRef,
}

/// What keeps a watermark back.
#[derive(Debug, Clone, Copy, Default)]
struct Caution {
    lateness_ms: i64,
    max_ahead_ms: Option<i64>,
}

impl RowTimeAssigner {
    /// From the reader's columns `input` to the table's `columns` (none: as they are), and its watermark.
    ///
    /// # Errors
    /// `Internal`, if the time column or the watermark is not a TIMESTAMP: the planner has checked that already.
    pub fn new(input: SchemaRef, columns: Option<Vec<NamedExpr>>, watermark: Option<WatermarkSpec>) -> Result<Self> {
        let columns = columns.map(Projection::new);
        let schema = columns.as_ref().map_or(input, |columns| columns.schema().clone());
        if let Some(watermark) = &watermark {
            watermark.validate(&schema)?;
        }
        Ok(Self { columns, watermark, caution: Caution::default(), schema })
    }

    /// The same with a watermark that is `lateness_ms` milliseconds behind what its expression says.
    #[must_use]
    pub fn allow_lateness(mut self, lateness_ms: i64) -> Self {
        self.caution.lateness_ms = lateness_ms;
        self
    }

    /// The same with rows that are more than `max_ahead_ms` milliseconds ahead of the wall clock not moving the
    /// watermark.
    #[must_use]
    pub fn limit_ahead(mut self, max_ahead_ms: i64) -> Self {
        self.caution.max_ahead_ms = Some(max_ahead_ms);
        self
    }
}

impl Caution {
    /// The watermarks of rows at `times`, kept back, and how many rows were too far ahead of `wall`.
    fn apply(self, times: &[i64], marks: ScalarBuffer<i64>, wall: Timestamp) -> (ScalarBuffer<i64>, usize) {
        if self.lateness_ms == 0 && self.max_ahead_ms.is_none() {
            return (marks, 0);
        }
        let latest = self.max_ahead_ms.map_or(i64::MAX, |most| wall.millis().saturating_add(most));
        // A NULL's time is the end of time: its mark is the beginning already, and it is ahead of nothing.
        let is_ahead = |time: i64| time > latest && time < i64::MAX;
        let ahead = times.iter().filter(|time| is_ahead(**time)).count();
        let kept = times.iter().zip(&marks).map(|(time, mark)| match is_ahead(*time) {
            true => i64::MIN,
            false => mark.saturating_sub(self.lateness_ms),
        });
        (kept.collect(), ahead)
    }
}

impl WatermarkSpec {
    fn validate(&self, schema: &SchemaRef) -> Result<()> {
        let time = schema.fields().get(self.time_column).map(|field| field.data_type());
        let mark = self.expression.data_type(schema).map_err(execution_error)?;
        match (time, mark) {
            (Some(DataType::Timestamp(..)), DataType::Timestamp(..)) => Ok(()),
            (time, mark) => Err(Error::internal(format!("a watermark of type {mark} for a time column of {time:?}"))),
        }
    }

    /// The event time and the watermark of each row; a NULL is never late and moves nothing.
    fn assign(
        &self,
        table: RecordBatch,
        watermark: &mut SplitWatermark,
        caution: Caution,
        wall: Timestamp,
    ) -> Result<Assigned> {
        let times = millis_or(table.column(self.time_column), i64::MAX)?;
        let marks = millis_or(&evaluate(&self.expression, &table).context(|| "the watermark")?, i64::MIN)?;
        let (marks, ahead_rows) = caution.apply(&times, marks, wall);
        let before = watermark.0.millis();
        let (after, late) = advance(&times, &marks, before);
        watermark.0 = Timestamp(after);
        let batch = if late { with_split_watermarks(&table, prefix_maxima(&marks, before))? } else { table };
        Ok(Assigned { batch, ahead_rows })
    }
}

impl RowTime for RowTimeAssigner {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn assign(&self, batch: RecordBatch, watermark: &mut SplitWatermark, wall: Timestamp) -> Result<Assigned> {
        let table = match &self.columns {
            Some(columns) => columns.project(&batch)?,
            None => batch,
        };
        match &self.watermark {
            Some(spec) => spec.assign(table, watermark, self.caution, wall),
            None => Ok(Assigned { batch: table, ahead_rows: 0 }),
        }
    }
}

/// The watermark after all rows, and whether some row's time is not after the watermark before it.
///
/// That is the weakest thing that makes a row late: a window ends after the times of its rows.
fn advance(times: &[i64], marks: &[i64], before: i64) -> (i64, bool) {
    let mut watermark = before;
    let mut late = false;
    for (time, mark) in times.iter().zip(marks) {
        late |= *time <= watermark;
        watermark = watermark.max(*mark);
    }
    // The end of time is not a row's to declare.
    (watermark.min(i64::MAX - 1), late)
}

fn prefix_maxima(marks: &[i64], before: i64) -> Int64Array {
    let watermarks = marks.iter().scan(before, |watermark, mark| {
        let seen = *watermark;
        *watermark = seen.max(*mark);
        Some(seen)
    });
    Int64Array::from_iter_values(watermarks)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, AsArray, TimestampMicrosecondArray, TimestampMillisecondArray};
    use arrow::datatypes::{Field, Int64Type, Schema, TimeUnit};
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{binary, cast, col, lit};
    use datafusion::scalar::ScalarValue;
    use ruslo_core::error::ErrorKind;
    use ruslo_core::schema::{split_watermarks, visible};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true)]))
    }

    fn batch(times: Vec<Option<i64>>) -> RecordBatch {
        RecordBatch::try_new(schema(), vec![Arc::new(TimestampMillisecondArray::from(times))]).unwrap()
    }

    /// `ts - INTERVAL '10' MILLISECOND`
    fn assigner() -> RowTimeAssigner {
        let delay = lit(ScalarValue::new_interval_mdn(0, 0, 10_000_000));
        let expression = binary(col("ts", &schema()).unwrap(), Operator::Minus, delay, &schema()).unwrap();
        RowTimeAssigner::new(schema(), None, Some(WatermarkSpec { time_column: 0, expression })).unwrap()
    }

    fn assign(assigner: &RowTimeAssigner, batch: RecordBatch, watermark: &mut SplitWatermark) -> RecordBatch {
        assigner.assign(batch, watermark, Timestamp(0)).unwrap().batch
    }

    fn marks(batch: &RecordBatch) -> Option<Vec<i64>> {
        split_watermarks(batch).map(|marks| marks.values().to_vec())
    }

    #[test]
    fn rows_in_order_carry_nothing_and_move_the_watermark() {
        let mut watermark = SplitWatermark::START;
        let out = assign(&assigner(), batch(vec![Some(100), Some(95), Some(120)]), &mut watermark);
        assert_eq!(marks(&out), None);
        assert_eq!(watermark.0, Timestamp(110));
    }

    #[test]
    fn a_row_that_could_be_late_brings_the_watermark_before_each_row() {
        let mut watermark = SplitWatermark::START;
        let input = batch(vec![Some(100), Some(90), Some(120), Some(111)]);
        let out = assign(&assigner(), input.clone(), &mut watermark);
        assert_eq!(marks(&out), Some(vec![i64::MIN, 90, 90, 110]));
        assert_eq!(visible(&out), input);
    }

    #[test]
    fn nulls_are_passed_over() {
        let mut watermark = SplitWatermark(Timestamp(50));
        let out = assign(&assigner(), batch(vec![None, None]), &mut watermark);
        assert_eq!((marks(&out), watermark.0), (None, Timestamp(50)));
        let out = assign(&assigner(), batch(vec![Some(200), None, Some(20)]), &mut watermark);
        assert_eq!(marks(&out), Some(vec![50, 190, 190]));
        let all_null = batch(vec![None]).slice(0, 0);
        assert_eq!(assign(&assigner(), all_null, &mut watermark).num_rows(), 0);
    }

    #[test]
    fn lateness_does_not_depend_on_how_rows_are_cut_into_batches() {
        let times: Vec<i64> = (0..500i64).map(|i| (i * 7919) % 1013 - 400 + i).collect();
        let naive: Vec<(i64, bool)> = (0..times.len())
            .map(|row| {
                let before = times[..row].iter().max().map_or(i64::MIN, |most| most - 10);
                (before, times[row] <= before)
            })
            .collect();
        for size in [1, 7, 500] {
            let mut watermark = SplitWatermark::START;
            let mut found = Vec::new();
            for chunk in times.chunks(size) {
                let rows = batch(chunk.iter().copied().map(Some).collect());
                let out = assign(&assigner(), rows, &mut watermark);
                let marks = marks(&out).unwrap_or_else(|| vec![i64::MIN; chunk.len()]);
                found.extend(chunk.iter().zip(marks).map(|(time, mark)| *time <= mark));
            }
            assert_eq!(found, naive.iter().map(|(_, late)| *late).collect::<Vec<_>>(), "batches of {size}");
        }
    }

    #[test]
    fn computed_columns_come_before_the_watermark() {
        let input = Arc::new(Schema::new(vec![Field::new("seconds", DataType::Int64, true)]));
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let scaled = binary(col("seconds", &input).unwrap(), Operator::Multiply, lit(1_000_000i64), &input).unwrap();
        let ts = NamedExpr::new(cast(scaled, &input, micros.clone()).unwrap(), "ts", &input).unwrap();
        let table = Schema::new(vec![ts.field.clone()]);
        let spec = WatermarkSpec { time_column: 0, expression: col("ts", &table).unwrap() };
        let assigner = RowTimeAssigner::new(input.clone(), Some(vec![ts]), Some(spec)).unwrap();
        assert_eq!(assigner.schema().field(0).data_type(), &micros);
        let rows = RecordBatch::try_new(input, vec![Arc::new(Int64Array::from(vec![-1, 3, 2]))]).unwrap();
        let mut watermark = SplitWatermark::START;
        let out = assign(&assigner, rows, &mut watermark);
        let expected: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![-1_000_000, 3_000_000, 2_000_000]));
        assert_eq!(out.column(0), &expected);
        assert_eq!(out.column(1).as_primitive::<Int64Type>().values(), &[i64::MIN, -1000, 3000]);
        assert_eq!(watermark.0, Timestamp(3000));
    }

    #[test]
    fn without_a_watermark_rows_pass_as_they_are() {
        let assigner = RowTimeAssigner::new(schema(), None, None).unwrap();
        let input = batch(vec![Some(5), Some(1)]);
        let mut watermark = SplitWatermark::START;
        let out = assign(&assigner, input.clone(), &mut watermark);
        assert!(out.column(0).to_data().ptr_eq(&input.column(0).to_data()));
        assert_eq!(watermark, SplitWatermark::START);
    }

    #[test]
    fn times_at_the_ends_of_time_do_not_panic() {
        let expression = col("ts", &schema()).unwrap();
        let spec = Some(WatermarkSpec { time_column: 0, expression });
        let assigner = RowTimeAssigner::new(schema(), None, spec).unwrap();
        let mut watermark = SplitWatermark::START;
        assign(&assigner, batch(vec![Some(i64::MIN), Some(i64::MAX)]), &mut watermark);
        assert!(watermark.0 < Timestamp::MAX);
        let mut watermark = SplitWatermark::START;
        let error = self::assigner().assign(batch(vec![Some(i64::MIN)]), &mut watermark, Timestamp(0));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Data);
    }

    #[test]
    fn allowed_lateness_moves_the_watermark_back() {
        let assigner = assigner().allow_lateness(7);
        let mut watermark = SplitWatermark::START;
        let out = assign(&assigner, batch(vec![Some(100), Some(84), Some(83)]), &mut watermark);
        assert_eq!(marks(&out), Some(vec![i64::MIN, 83, 83]), "100 - 10 - 7");
        assert_eq!(watermark.0, Timestamp(83));
        let mut watermark = SplitWatermark(Timestamp(-50));
        let out = assign(&assigner, batch(vec![None, Some(0)]), &mut watermark);
        assert_eq!((marks(&out), watermark.0), (None, Timestamp(-17)));
    }

    #[test]
    fn rows_from_the_future_stay_and_do_not_move_the_watermark() {
        let assigner = assigner().limit_ahead(1_000);
        let mut watermark = SplitWatermark::START;
        let input = batch(vec![Some(100), Some(9_000), None, Some(5_999), Some(6_001), Some(6_000), Some(5)]);
        let out = assigner.assign(input.clone(), &mut watermark, Timestamp(5_000)).unwrap();
        assert_eq!(out.ahead_rows, 2);
        assert_eq!(visible(&out.batch), input);
        assert_eq!(watermark.0, Timestamp(5_990), "6000 is just not too far");
        assert_eq!(marks(&out.batch), Some(vec![i64::MIN, 90, 90, 90, 5_989, 5_989, 5_990]));
    }

    #[test]
    fn a_watermark_that_is_no_timestamp_is_refused() {
        let spec = WatermarkSpec { time_column: 0, expression: lit(1i64) };
        let error = RowTimeAssigner::new(schema(), None, Some(spec)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
