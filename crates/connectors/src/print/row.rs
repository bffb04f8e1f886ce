//! The style `row`: `+I[a, b, NULL]`, one line a row; `-U`, `+U` and `-D` are rows that change and go.

use arrow::record_batch::RecordBatch;
use ruslo_core::error::Result;
use ruslo_core::schema::visible;

use super::cell::{Cells, Kinds, printable};

/// Appends the batch's rows to `text`, each behind `prefix`.
pub(super) fn write(batch: &RecordBatch, prefix: &str, text: &mut String) -> Result<()> {
    let kinds = Kinds::of(batch);
    let columns = printable(&visible(batch));
    let cells = Cells::new(&columns)?;
    for row in 0..batch.num_rows() {
        text.push_str(prefix);
        text.push_str(kinds.mark(row)?);
        text.push('[');
        cells.row(row, |index, write_cell| {
            if index > 0 {
                text.push_str(", ");
            }
            write_cell(text)
        })?;
        text.push_str("]\n");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListArray, StringArray,
        TimestampMicrosecondArray, TimestampMillisecondArray,
    };
    use arrow::datatypes::Int32Type;

    use super::*;

    fn shown(column: ArrayRef) -> String {
        let batch = RecordBatch::try_from_iter_with_nullable([("c", column, true)]).unwrap();
        let mut text = String::new();
        write(&batch, "", &mut text).unwrap();
        text
    }

    #[test]
    fn values_read_as_sql_writes_them() {
        let millis = |zone: Option<&str>| -> ArrayRef {
            let values = TimestampMillisecondArray::from(vec![Some(1_357_016_400_000), Some(1_357_016_400_120), None]);
            Arc::new(values.with_timezone_opt(zone))
        };
        let decimal = Decimal128Array::from(vec![1050]).with_precision_and_scale(10, 2).unwrap();
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]);
        let cases: Vec<(ArrayRef, &str)> = vec![
            (Arc::new(Int64Array::from(vec![Some(-1), None])), "+I[-1]\n+I[NULL]\n"),
            (Arc::new(Float64Array::from(vec![1.0, 0.5, f64::NAN])), "+I[1.0]\n+I[0.5]\n+I[NaN]\n"),
            (Arc::new(StringArray::from(vec![Some("a, b"), Some("")])), "+I[a, b]\n+I[]\n"),
            (Arc::new(BooleanArray::from(vec![true])), "+I[true]\n"),
            (Arc::new(Date32Array::from(vec![0])), "+I[1970-01-01]\n"),
            (millis(None), "+I[2013-01-01 05:00:00]\n+I[2013-01-01 05:00:00.120]\n+I[NULL]\n"),
            (millis(Some("UTC")), "+I[2013-01-01 05:00:00Z]\n+I[2013-01-01 05:00:00.120Z]\n+I[NULL]\n"),
            (Arc::new(TimestampMicrosecondArray::from(vec![1])), "+I[1970-01-01 00:00:00.000001]\n"),
            (Arc::new(decimal), "+I[10.50]\n"),
            (Arc::new(list), "+I[[1, NULL]]\n"),
        ];
        for (column, expected) in cases {
            assert_eq!(shown(column), expected);
        }
    }

    #[test]
    fn columns_are_separated_and_rows_prefixed() {
        let batch = RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef),
            ("b", Arc::new(StringArray::from(vec!["x", "y"])) as ArrayRef),
        ]);
        let mut text = String::new();
        write(&batch.unwrap(), "out:2> ", &mut text).unwrap();
        assert_eq!(text, "out:2> +I[1, x]\nout:2> +I[2, y]\n");
    }

    #[test]
    fn changes_are_marked_with_their_kinds() {
        let batch = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1, 1, 2, 3])) as ArrayRef)]);
        let batch = ruslo_core::changelog::with_row_kinds(&batch.unwrap(), vec![0, 1, 2, 3].into()).unwrap();
        let mut text = String::new();
        write(&batch, "", &mut text).unwrap();
        assert_eq!(text, "+I[1]\n-U[1]\n+U[2]\n-D[3]\n");
    }

    #[test]
    fn a_timestamp_beyond_the_calendar_is_an_error_and_no_panic() {
        let batch =
            RecordBatch::try_from_iter([("c", Arc::new(TimestampMillisecondArray::from(vec![i64::MAX])) as ArrayRef)]);
        assert!(write(&batch.unwrap(), "", &mut String::new()).is_err());
    }
}
