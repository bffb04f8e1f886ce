//! Writes changes: a row and what it says.

use arrow::array::RecordBatch;
use ruslo_core::changelog::{adds, row_kinds};
use ruslo_core::error::Result;
use ruslo_core::schema::visible;

use crate::Encoder;
use crate::json::JsonEncoder;

/// The writer of changes.
#[derive(Debug)]
pub(crate) struct DebeziumEncoder {
    rows: JsonEncoder,
}

impl DebeziumEncoder {
    pub(crate) fn new(rows: JsonEncoder) -> Self {
        Self { rows }
    }
}

impl Encoder for DebeziumEncoder {
    fn header(&self, _out: &mut Vec<u8>) {}

    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let shown = visible(batch);
        let kinds = row_kinds(batch).map(|kinds| kinds.values());
        let writers = self.rows.writers(&shown)?;
        for row in 0..batch.num_rows() {
            let is_there = kinds.and_then(|kinds| kinds.get(row)).is_none_or(|kind| adds(*kind));
            let (before, after): (&[u8], &[u8]) = match is_there {
                true => (b"{\"before\":null,\"after\":", b",\"op\":\"c\"}\n"),
                false => (b"{\"before\":", b",\"after\":null,\"op\":\"d\"}\n"),
            };
            out.extend_from_slice(before);
            self.rows.write_row(&writers, row, out);
            out.extend_from_slice(after);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use ruslo_core::changelog::with_row_kinds;

    use super::*;

    fn written(batch: &RecordBatch, schema: &RecordBatch) -> Result<String> {
        let mut encoder = crate::format("debezium-json", &BTreeMap::new()).unwrap().encoder(&schema.schema()).unwrap();
        let mut out = Vec::new();
        encoder.header(&mut out);
        encoder.encode(batch, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn rows(values: Vec<Option<i64>>) -> RecordBatch {
        let texts = StringArray::from_iter_values(values.iter().map(|_| "x"));
        let columns = [("a", Arc::new(Int64Array::from(values)) as ArrayRef), ("b", Arc::new(texts))];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
    }

    #[test]
    fn changes_are_written_as_flink_writes_them() {
        let rows = rows(vec![Some(1), Some(1), None, Some(3)]);
        let changes = with_row_kinds(&rows, vec![0, 1, 2, 3].into()).unwrap();
        let expected = [
            r#"{"before":null,"after":{"a":1,"b":"x"},"op":"c"}"#,
            r#"{"before":{"a":1,"b":"x"},"after":null,"op":"d"}"#,
            r#"{"before":null,"after":{"a":null,"b":"x"},"op":"c"}"#,
            r#"{"before":{"a":3,"b":"x"},"after":null,"op":"d"}"#,
            "",
        ];
        assert_eq!(written(&changes, &rows).unwrap(), expected.join("\n"));
    }

    #[test]
    fn rows_without_kinds_come() {
        let rows = rows(vec![Some(7)]);
        let expected = "{\"before\":null,\"after\":{\"a\":7,\"b\":\"x\"},\"op\":\"c\"}\n";
        assert_eq!(written(&rows, &rows).unwrap(), expected);
        let other = rows.project(&[0]).unwrap();
        assert_eq!(written(&other, &rows).unwrap_err().kind(), ruslo_core::error::ErrorKind::Internal);
    }
}
