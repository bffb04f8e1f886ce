//! Window assignment: adds `window_start`, `window_end` and `window_time` to each row. Has no state and drops nothing.
//!
//! What a window table function is when nothing groups by its window.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::schema::{carry_hidden, visible};

use super::partition::time_column;
use super::{TumblingWindow, Window, window_columns, with_window_fields};

/// Which windows are added to which rows; cheap to clone.
#[derive(Debug, Clone)]
pub struct WindowAssignSpec {
    time_column: usize,
    window: TumblingWindow,
    schema: SchemaRef,
}

impl WindowAssignSpec {
    /// Adds to rows of `input` the window that the TIMESTAMP in column `time_column` is in.
    ///
    /// # Errors
    /// `Internal`, if there is no such column.
    pub fn new(input: &Schema, time_column: usize, window: TumblingWindow) -> Result<Self> {
        if time_column >= input.fields().len() {
            return Err(Error::internal(format!("the window's time column {time_column} does not exist")));
        }
        Ok(Self { time_column, window, schema: Arc::new(with_window_fields(input)) })
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
        _ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let spec = &self.spec;
        let times = time_column(&batch, spec.time_column)?;
        let ends = runs(&times, spec.window)?;
        let mut columns = visible(&batch).columns().to_vec();
        columns.extend(window_columns(spec.window.size_ms(), ends.into_iter(), times.len()));
        out.emit(carry_hidden(&batch, &spec.schema, columns)?);
        Ok(Progress::Done)
    }
}

/// The window ends of the rows, run-length encoded.
fn runs(times: &[i64], windows: TumblingWindow) -> Result<Vec<(i64, usize)>> {
    let mut runs = Vec::new();
    let mut open: Option<(Window, usize)> = None;
    for time in times {
        match &mut open {
            Some((window, rows)) if window.holds(*time) => *rows += 1,
            _ => {
                runs.extend(open.map(|(window, rows)| (window.end, rows)));
                open = Some((windows.of(*time)?, 1));
            }
        }
    }
    runs.extend(open.map(|(window, rows)| (window.end, rows)));
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
        let window = TumblingWindow::new(1000, 0).unwrap();
        let spec = WindowAssignSpec::new(&batch(Vec::new()).schema(), 0, window).unwrap();
        run_batch(spec.factory().create().unwrap().as_mut(), input, &mut TestContext::new())
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
        let window = TumblingWindow::new(1000, 0).unwrap();
        let error = WindowAssignSpec::new(&batch(Vec::new()).schema(), 1, window).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
