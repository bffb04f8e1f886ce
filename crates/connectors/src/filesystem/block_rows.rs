//! Rows of a block one by one: which of them cannot be rows of the table, and what is told of one.
//!
//! A row of a block has no bytes of its own. What stands for it is its place, and the columns that were read of it, as
//! JSON.

use std::collections::BTreeMap;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;
use ruslo_core::dead_letter::{Origins, Record, Rejected};
use ruslo_core::error::{Error, Result};

use crate::origins::without_newline;

/// Rows as they came out of a file.
pub(super) struct BlockRows {
    /// Where the first of them stands.
    pub(super) place: Place,
    pub(super) batch: RecordBatch,
    /// Which of them are rows of the table; all, if none.
    pub(super) kept: Option<Vec<usize>>,
}

/// Where a row stands.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) path: String,
    /// What the format calls a block.
    pub(super) block_name: &'static str,
    /// From 0.
    pub(super) block: usize,
    /// From 0, within the block.
    pub(super) row: u64,
}

impl BlockRows {
    /// All rows of a batch.
    pub(super) fn new(place: Place, batch: RecordBatch) -> Self {
        Self { place, batch, kept: None }
    }

    /// Takes out the rows that are NULL where `table`, which has the same columns, says NOT NULL; what is left.
    ///
    /// # Errors
    /// `Internal` only.
    pub(super) fn reject_nulls(&mut self, table: &Schema) -> Result<(RecordBatch, Vec<Rejected>)> {
        let required = table.fields().iter().zip(self.batch.columns()).filter(|(field, _)| !field.is_nullable());
        let required: Vec<_> = required.filter(|(_, array)| array.null_count() > 0).collect();
        let missing = |row: usize| required.iter().find(|(_, array)| array.is_null(row)).map(|(field, _)| field.name());
        if required.is_empty() {
            return Ok((self.batch.clone(), Vec::new()));
        }
        let (mut kept, mut rejected) = (Vec::new(), Vec::new());
        for row in 0..self.batch.num_rows() {
            match missing(row) {
                None => kept.push(row),
                Some(column) => {
                    let reason = format!("column '{column}': the value is NULL, and the column is NOT NULL");
                    rejected.push(Rejected { record: self.record(row), reason });
                }
            }
        }
        let mask: BooleanArray = (0..self.batch.num_rows()).map(|row| Some(missing(row).is_none())).collect();
        let batch = filter_record_batch(&self.batch, &mask)?;
        self.kept = Some(kept);
        Ok((batch, rejected))
    }

    fn record(&self, row: usize) -> Record {
        let Place { path, block_name, block, row: first } = &self.place;
        let row_in_block = first.saturating_add(row as u64).saturating_add(1);
        let position = format!("{path} {block_name} {}, row {row_in_block}", block.saturating_add(1));
        Record { position, raw: json(&self.batch.slice(row, 1)) }
    }
}

impl Origins for BlockRows {
    fn records(&self, rows: &[usize]) -> Result<Vec<Record>> {
        let place = |row: &usize| match &self.kept {
            Some(kept) => kept.get(*row).copied(),
            None => Some(*row).filter(|row| *row < self.batch.num_rows()),
        };
        let record = |row: &usize| place(row).map(|row| self.record(row));
        let lost = || Error::internal(format!("{}: a row of a batch that it does not have", self.place.path));
        rows.iter().map(|row| record(row).ok_or_else(lost)).collect()
    }

    /// The arrays are those of the batch that is held anyhow.
    fn bytes(&self) -> usize {
        0
    }
}

/// The row of a batch of one; none, if JSON has nothing for its types.
fn json(row: &RecordBatch) -> Option<Vec<u8>> {
    let format = ruslo_formats::format("json", &BTreeMap::new()).ok()?;
    let mut text = Vec::new();
    format.encoder(&row.schema()).ok()?.encode(row, &mut text).ok()?;
    Some(without_newline(&text).to_vec())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};

    use super::*;

    #[test]
    fn what_is_null_and_must_not_be_is_left_out_and_rows_behind_keep_their_places() {
        let columns: [ArrayRef; 2] = [
            Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)])),
            Arc::new(StringArray::from(vec![None, Some("b"), Some("c\""), None])),
        ];
        let [a, b] = columns;
        let batch = RecordBatch::try_from_iter_with_nullable([("a", a, true), ("b", b, true)]).unwrap();
        let place = Place { path: "in.parquet".to_owned(), block_name: "row group", block: 1, row: 10 };
        let table = Schema::new(vec![Field::new("a", DataType::Int64, false), Field::new("b", DataType::Utf8, true)]);
        let mut rows = BlockRows::new(place, batch.clone());
        let (left, rejected) = rows.reject_nulls(&table).unwrap();
        assert_eq!((left.num_rows(), rejected.len()), (3, 1));
        assert_eq!(rejected[0].reason, "column 'a': the value is NULL, and the column is NOT NULL");
        assert_eq!(rejected[0].record.position, "in.parquet row group 2, row 12");
        assert!(String::from_utf8(rejected[0].record.raw.clone().unwrap()).unwrap().contains("\"b\":\"b\""));
        let record = rows.records(&[1, 2]).unwrap();
        assert_eq!(record[0].position, "in.parquet row group 2, row 13");
        assert_eq!(record[0].raw.as_deref(), Some(&br#"{"a":3,"b":"c\""}"#[..]));
        assert_eq!(record[1].position, "in.parquet row group 2, row 14");
        assert!(rows.records(&[3]).is_err());
        let all = BlockRows::new(rows.place.clone(), batch);
        assert_eq!(all.records(&[3]).unwrap()[0].position, "in.parquet row group 2, row 14");
        assert!(all.records(&[4]).is_err());
    }
}
