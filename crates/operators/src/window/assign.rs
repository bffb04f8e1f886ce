//! Window assignment: adds `window_start`, `window_end` and `window_time` to each row, which comes once for each window
//! that holds it. Has no state and drops nothing.
//!
//! What a window table function is when nothing groups by its window.

use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::schema::{carry_hidden, visible};

use super::partition::local_times;
use super::shape::{Slice, WINDOWS_OF_A_ROW_MAX};
use super::{WindowShape, window_columns, with_window_fields};

/// Which windows are added to which rows; cheap to clone.
#[derive(Debug, Clone)]
pub struct WindowAssignSpec {
    time_column: usize,
    shape: WindowShape,
    schema: SchemaRef,
}

impl WindowAssignSpec {
    /// Adds to rows of `input` the windows that the TIMESTAMP in column `time_column` is in: a row for each.
    ///
    /// # Errors
    /// `Internal`, if there is no such column; `Usage`, if a row would become too many.
    pub fn new(input: &Schema, time_column: usize, shape: WindowShape) -> Result<Self> {
        if time_column >= input.fields().len() {
            return Err(Error::internal(format!("the window's time column {time_column} does not exist")));
        }
        if shape.windows_of_a_row() > WINDOWS_OF_A_ROW_MAX {
            return Err(Error::usage(format!(
                "each row is in {} windows and would become as many rows; the limit is {WINDOWS_OF_A_ROW_MAX}",
                shape.windows_of_a_row()
            )));
        }
        Ok(Self { time_column, shape, schema: Arc::new(with_window_fields(input, shape.clock())) })
    }

    /// The columns that come out: the input's, then `window_start`, `window_end`, `window_time`.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(WindowAssign { spec: self.clone() }))
    }
}

struct WindowAssign {
    spec: WindowAssignSpec,
}

impl Operator for WindowAssign {
    fn on_batch(
        &mut self,
        _input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let times = local_times(&batch, self.spec.time_column, self.spec.shape.clock())?;
        if self.spec.shape.is_one_window_a_slice() {
            out.emit(self.one_window(&batch, &times)?);
        } else {
            self.every_window(&batch, &times, ctx.batch_rows.max(1), out)?;
        }
        Ok(Progress::Done)
    }
}

impl WindowAssign {
    /// The rows, each with its window.
    fn one_window(&self, batch: &RecordBatch, times: &[i64]) -> Result<RecordBatch> {
        let ends = runs(times, self.spec.shape)?;
        let mut columns = visible(batch).columns().to_vec();
        columns.extend(window_columns(self.spec.shape, ends.into_iter(), times.len()));
        carry_hidden(batch, &self.spec.schema, columns)
    }

    /// Each row once for each of its windows, in batches of about `rows_max`.
    fn every_window(&self, batch: &RecordBatch, times: &[i64], rows_max: usize, out: &mut Output) -> Result<()> {
        let (mut rows, mut ends) = (Vec::new(), Vec::new());
        let mut slice = Slice { start: 0, end: 0 };
        for (row, time) in times.iter().enumerate() {
            if !slice.holds(*time) {
                slice = self.spec.shape.slice_of(*time)?;
            }
            let before = ends.len();
            ends.extend(self.spec.shape.ends_of(slice).map(|end| (end, 1)));
            rows.extend(std::iter::repeat_n(row as u32, ends.len() - before));
            if rows.len() >= rows_max {
                out.emit(self.replicated(batch, std::mem::take(&mut rows), std::mem::take(&mut ends))?);
            }
        }
        out.emit(self.replicated(batch, rows, ends)?);
        Ok(())
    }

    fn replicated(&self, batch: &RecordBatch, rows: Vec<u32>, ends: Vec<(i64, usize)>) -> Result<RecordBatch> {
        let count = rows.len();
        let taken = take_record_batch(batch, &UInt32Array::from(rows))?;
        let mut columns = visible(&taken).columns().to_vec();
        columns.extend(window_columns(self.spec.shape, ends.into_iter(), count));
        carry_hidden(&taken, &self.spec.schema, columns)
    }
}

/// The window ends of the rows, run-length encoded, where each row is in one window.
fn runs(times: &[i64], shape: WindowShape) -> Result<Vec<(i64, usize)>> {
    let mut runs = Vec::new();
    let mut open: Option<(Slice, usize)> = None;
    for time in times {
        match &mut open {
            Some((slice, rows)) if slice.holds(*time) => *rows += 1,
            _ => {
                runs.extend(open.map(|(slice, rows)| (slice.end, rows)));
                open = Some((shape.slice_of(*time)?, 1));
            }
        }
    }
    runs.extend(open.map(|(slice, rows)| (slice.end, rows)));
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMicrosecondArray};
    use arrow::datatypes::TimestampMillisecondType;
    use ruslo_core::error::ErrorKind;
    use ruslo_core::schema::{split_watermarks, with_split_watermarks};

    use super::*;
    use crate::testing::{TestContext, run_batch};

    fn batch(micros: Vec<Option<i64>>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([(
            "ts",
            Arc::new(TimestampMicrosecondArray::from(micros)) as ArrayRef,
            true,
        )])
        .unwrap()
    }

    fn run(input: RecordBatch) -> Result<Vec<RecordBatch>> {
        run_with(WindowShape::tumble(1000, 0).unwrap(), input, 1024)
    }

    fn run_with(window: WindowShape, input: RecordBatch, batch_rows: usize) -> Result<Vec<RecordBatch>> {
        let mut test = TestContext::new();
        test.batch_rows = batch_rows;
        let spec = WindowAssignSpec::new(&batch(Vec::new()).schema(), 0, window).unwrap();
        run_batch(spec.factory().create().unwrap().as_mut(), input, &mut test)
    }

    #[test]
    fn every_row_gets_its_window() {
        let made = run(batch(vec![Some(1), Some(999_999), Some(1_000_000), Some(-1), Some(0)])).unwrap().remove(0);
        let column = |at: usize| made.column(at).as_primitive::<TimestampMillisecondType>().values().to_vec();
        assert_eq!(column(1), vec![0, 0, 1000, -1000, 0]);
        assert_eq!(column(2), vec![1000, 1000, 2000, 0, 1000]);
        assert_eq!(column(3), vec![999, 999, 1999, -1, 999]);
        assert_eq!(made.schema().field(3).name(), "window_time");
    }

    #[test]
    fn a_row_comes_once_for_each_window() {
        let hop = WindowShape::hop(1000, 3000, 0).unwrap();
        let rows = batch(vec![Some(1_500_000), Some(-1)]);
        let carried = with_split_watermarks(&rows, Int64Array::from(vec![3, 4])).unwrap();
        let made = run_with(hop, carried, 2).unwrap();
        assert_eq!(made.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [3, 3]);
        let column = |row: usize, at: usize| made[row].column(at).as_primitive::<TimestampMillisecondType>().values();
        assert_eq!([column(0, 1), column(1, 1)], [&[-1000, 0, 1000], &[-3000, -2000, -1000]]);
        assert_eq!([column(0, 2), column(1, 2)], [&[2000, 3000, 4000], &[0, 1000, 2000]]);
        assert_eq!(split_watermarks(&made[1]).unwrap().values(), &[4, 4, 4]);
        let cumulate = WindowShape::cumulate(1000, 3000, 0).unwrap();
        let made = run_with(cumulate, batch(vec![Some(1_500_000)]), 1024).unwrap().remove(0);
        let column = |at: usize| made.column(at).as_primitive::<TimestampMillisecondType>().values().to_vec();
        assert_eq!([column(1), column(2), column(3)], [vec![0, 0], vec![2000, 3000], vec![1999, 2999]]);
    }

    #[test]
    fn too_many_windows_of_a_row_are_refused() {
        let window = WindowShape::hop(1, 10_001, 0).unwrap();
        let error = WindowAssignSpec::new(&batch(Vec::new()).schema(), 0, window).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_null_time_is_the_datas_fault_and_says_what_to_do() {
        let error = run(batch(vec![Some(1), None])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(error.to_string().contains("'ts' is NULL"), "{error}");
    }

    #[test]
    fn the_hidden_column_stays_behind() {
        let carried = with_split_watermarks(&batch(vec![Some(1), Some(2)]), Int64Array::from(vec![3, 4])).unwrap();
        let made = run(carried).unwrap().remove(0);
        assert_eq!(split_watermarks(&made).unwrap().values(), &[3, 4]);
        assert_eq!(made.num_columns(), 5);
    }

    #[test]
    fn a_time_column_that_is_not_there_is_refused() {
        let window = WindowShape::tumble(1000, 0).unwrap();
        let error = WindowAssignSpec::new(&batch(Vec::new()).schema(), 1, window).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
