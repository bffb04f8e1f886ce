//! Rows that wait for an answer, or to go out behind others that do; and how a checkpoint has them.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use ruslo_core::clock::Instant;
use ruslo_core::error::{Error, Result};
use ruslo_core::memory::batch_bytes;
use ruslo_core::operator_rows::Redistribution;
use ruslo_core::schema::{split_watermarks, visible, with_split_watermarks};
use ruslo_core::state::OperatorState;
use ruslo_core::time::Timestamp;

use super::keys::Keys;
use super::pairs::{Matches, Progressed};
use ruslo_core::lookup::Found;

/// The name of the rows in checkpoints: see `docs/design/lookup.md`.
pub(super) const TABLE: &str = "lookup_waiting";

const OWN_COLUMNS: usize = 3;

/// What a batch waits for.
#[derive(Debug)]
pub(super) enum Answer {
    /// For the keys `missing` of `keys`, asked for by the request `id`; `hits` are known.
    Asked { id: u64, keys: Keys, missing: Vec<u32>, hits: Option<Found>, tries: u32, since: Instant },
    /// For its turn.
    Found(Matches),
}

/// A batch that has not gone out, or not all of it.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Its rows, with hidden columns.
    pub(super) rows: RecordBatch,
    /// The watermark that stood before it.
    pub(super) before: Timestamp,
    pub(super) progressed: Progressed,
    pub(super) answer: Answer,
}

impl Waiting {
    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let found = match &self.answer {
            Answer::Found(matches) => matches.bytes(),
            Answer::Asked { .. } => 0,
        };
        batch_bytes(&self.rows) + found
    }

    /// How many of its rows have not gone out.
    pub(super) fn rows_left(&self) -> usize {
        self.rows.num_rows().saturating_sub(self.progressed.row)
    }
}

/// What stands before the columns of a row.
pub(super) fn own_fields() -> Vec<Field> {
    let own = [("begun", DataType::Int64), ("matched", DataType::Boolean), ("split_watermark", DataType::Int64)];
    own.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect()
}

/// Writes the rows that wait, in the place of those that are there.
pub(super) fn store(waiting: &VecDeque<Waiting>, state: &mut dyn OperatorState) -> Result<()> {
    let kept = state.operator_rows(TABLE, Redistribution::Split)?;
    if waiting.is_empty() && kept.batches().is_empty() {
        return Ok(());
    }
    let rows = waiting.iter().filter(|waiting| waiting.rows_left() > 0).map(encode).collect::<Result<Vec<_>>>()?;
    kept.replace(rows);
    Ok(())
}

fn encode(waiting: &Waiting) -> Result<RecordBatch> {
    let Progressed { row, begun, matched } = waiting.progressed;
    let left = waiting.rows.slice(row, waiting.rows_left());
    let (rows, shown) = (left.num_rows(), visible(&left));
    let of_first = |place: usize| place == 0;
    let marks: ArrayRef = match split_watermarks(&left) {
        Some(marks) => Arc::new(marks.clone()),
        None => Arc::new(Int64Array::from_value(i64::MIN, rows)),
    };
    let begun = (0..rows).map(|place| if of_first(place) { i64::from(begun) } else { 0 });
    let own: [ArrayRef; OWN_COLUMNS] = [
        Arc::new(Int64Array::from_iter_values(begun)),
        Arc::new((0..rows).map(|place| Some(of_first(place) && matched)).collect::<BooleanArray>()),
        marks,
    ];
    let fields = shown.schema_ref().fields().iter().enumerate();
    let fields = fields.map(|(n, field)| Field::new(format!("column{n}"), field.data_type().clone(), true));
    let schema = Schema::new(own_fields().into_iter().chain(fields).collect::<Vec<_>>());
    let columns = own.into_iter().chain(shown.columns().iter().cloned()).collect();
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

/// The batches that a checkpoint has, of the columns `schema`, and how far the first row of each had gone.
pub(super) fn restore(schema: &SchemaRef, state: &mut dyn OperatorState) -> Result<Vec<(RecordBatch, Progressed)>> {
    let stored = state.operator_rows(TABLE, Redistribution::Split)?.batches().to_vec();
    let mut restored = Vec::new();
    for rows in stored {
        let (columns, count) = (rows.columns().get(OWN_COLUMNS..).unwrap_or_default(), rows.num_rows());
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        let shown = RecordBatch::try_new_with_options(Arc::clone(schema), columns.to_vec(), &options)?;
        let number =
            |column: usize| rows.columns().get(column).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let matched = rows.columns().get(1).and_then(|column| column.as_boolean_opt());
        let (Some(begun), Some(matched), Some(marks)) = (number(0), matched, number(2)) else {
            return Err(Error::corrupt(format!("'{TABLE}' has other columns than rows that wait for a lookup")));
        };
        let is_late_sometime = marks.values().iter().any(|mark| *mark > i64::MIN);
        let shown = if is_late_sometime { with_split_watermarks(&shown, marks.clone())? } else { shown };
        // What was cut anew may have a row that was begun anywhere: each begins a batch.
        let is_begun = |row: usize| begun.value(row) > 0 || matched.value(row);
        let mut first = 0;
        for row in 1..=count {
            if row < count && !is_begun(row) {
                continue;
            }
            let begun = u32::try_from(begun.value(first)).unwrap_or(0);
            let progressed = Progressed { row: 0, begun, matched: matched.value(first) };
            restored.push((shown.slice(first, row - first), progressed));
            first = row;
        }
    }
    Ok(restored)
}
