//! Rows of the stream beside what was found for them: which pairs there are, and which of them go out, a batch at a time.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array, new_null_array};
use arrow::compute::{prep_null_mask_filter, take};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use ruslo_core::error::{Error, Result};
use ruslo_core::lookup::Found;
use ruslo_core::schema::{carry_hidden, visible_columns};

use super::keys::{Keys, NO_KEY};
use super::spec::{LookupJoinKind, LookupJoinSpec};
use crate::expression::evaluate_condition;

/// No row of the table: NULLs stand in its place.
const NOBODY: u32 = u32::MAX;

/// What was found for the rows of a batch.
#[derive(Debug)]
pub(super) struct Matches {
    /// The number of each row's key.
    of_rows: Vec<u32>,
    /// Which rows each key has.
    of_keys: Vec<Range<u32>>,
    columns: Vec<ArrayRef>,
}

impl Matches {
    /// What `found` has for each of `keys`.
    ///
    /// # Errors
    /// `Data`, if somebody answered what was not asked.
    pub(super) fn new(keys: Keys, found: Found) -> Result<Self> {
        let of_keys = ranges(&found, keys.keys.num_rows())?;
        Ok(Self { of_rows: keys.of_rows, of_keys, columns: found.columns })
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.columns.iter().map(|column| column.get_array_memory_size()).sum()
    }

    /// The rows under the key of `row`.
    fn of_row(&self, row: usize) -> Range<u32> {
        let key = self.of_rows.get(row).copied().unwrap_or(NO_KEY);
        self.of_keys.get(key as usize).cloned().unwrap_or(0..0)
    }
}

/// The rows of each of `keys` keys.
pub(super) fn ranges(found: &Found, keys: usize) -> Result<Vec<Range<u32>>> {
    let mut ranges = Vec::with_capacity(keys);
    let mut next = 0u32;
    let mut requests = found.requests.values().iter().copied().peekable();
    for key in 0..keys {
        let first = next;
        while requests.next_if(|request| *request as usize == key).is_some() {
            next += 1;
        }
        ranges.push(first..next);
    }
    let is_odd = requests.next().is_some() || found.columns.iter().any(|column| column.len() != next as usize);
    if is_odd || found.requests.null_count() > 0 {
        return Err(Error::data("it answered with rows of keys that were not asked for, or not in their order"));
    }
    Ok(ranges)
}

/// How far the rows of a batch have gone out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Progressed {
    /// The row that is next.
    pub(super) row: usize,
    /// How many of the table's rows were looked at for it.
    pub(super) begun: u32,
    /// Whether one of them has gone out.
    pub(super) matched: bool,
}

/// The next pairs.
struct Piece {
    rows: Vec<u32>,
    found: Vec<u32>,
    /// Of each row that is looked at, how many pairs there are; the last row may have more.
    counts: Vec<usize>,
    /// Whether all pairs of the last row are there.
    is_whole: bool,
    after: Progressed,
}

impl Piece {
    fn new(matches: &Matches, rows: usize, from: Progressed, rows_max: usize) -> Self {
        let (mut piece_rows, mut found, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut after, mut lines, mut is_whole) = (from, 0, true);
        while after.row < rows && lines < rows_max {
            let of_row = matches.of_row(after.row);
            let first = of_row.start.saturating_add(after.begun).min(of_row.end);
            let count = (of_row.end - first).min(u32::try_from(rows_max - lines).unwrap_or(u32::MAX));
            piece_rows.extend(std::iter::repeat_n(u32::try_from(after.row).unwrap_or(NOBODY), count as usize));
            found.extend(first..first + count);
            counts.push(count as usize);
            lines += (count as usize).max(1);
            is_whole = first + count == of_row.end;
            after = match is_whole {
                true => Progressed { row: after.row + 1, ..Progressed::default() },
                false => Progressed { begun: after.begun + count, ..after },
            };
        }
        Self { rows: piece_rows, found, counts, is_whole, after }
    }

    /// The rows that go out: those of `met`, and rows that have found nothing if `keeps` says so.
    fn lines(&mut self, from: Progressed, met: Option<&BooleanArray>, keeps: bool) -> (Vec<u32>, Vec<u32>) {
        let (mut rows, mut found) = (Vec::new(), Vec::new());
        let (mut first, mut matched) = (0, from.matched);
        for (row, count) in (from.row..).zip(&self.counts) {
            let pairs = first..first + count;
            first = pairs.end;
            for pair in pairs.filter(|pair| met.is_none_or(|met| met.value(*pair))) {
                rows.extend(self.rows.get(pair));
                found.extend(self.found.get(pair));
                matched = true;
            }
            let is_last = first == self.found.len() && row + 1 == from.row + self.counts.len();
            if is_last && !self.is_whole {
                self.after.matched = matched;
                break;
            }
            if keeps && !matched {
                rows.push(u32::try_from(row).unwrap_or(NOBODY));
                found.push(NOBODY);
            }
            matched = false;
        }
        (rows, found)
    }
}

/// The next lines of `batch`, `rows_max` at most, and how far it has gone out with them; none may go out now, though there
/// are more.
pub(super) fn next_lines(
    spec: &LookupJoinSpec,
    batch: &RecordBatch,
    matches: &Matches,
    from: Progressed,
    rows_max: usize,
) -> Result<(RecordBatch, Progressed)> {
    let mut piece = Piece::new(matches, batch.num_rows(), from, rows_max.max(1));
    let met = match &spec.condition {
        None => None,
        Some(condition) => {
            let pairs = joined(spec, batch, matches, &piece.rows, &piece.found)?;
            let met = evaluate_condition(condition, &pairs)?;
            // Unknown is not true.
            Some(if met.null_count() > 0 { prep_null_mask_filter(&met) } else { met })
        }
    };
    let (rows, found) = piece.lines(from, met.as_ref(), spec.kind == LookupJoinKind::Left);
    Ok((joined(spec, batch, matches, &rows, &found)?, piece.after))
}

/// Rows of the stream beside rows of the table.
fn joined(
    spec: &LookupJoinSpec,
    batch: &RecordBatch,
    matches: &Matches,
    rows: &[u32],
    found: &[u32],
) -> Result<RecordBatch> {
    let left = taken_rows(batch, rows)?;
    let own = visible_columns(&left);
    let mut columns: Vec<ArrayRef> = left.columns().iter().take(own).cloned().collect();
    if found.iter().all(|row| *row == NOBODY) {
        let fields = spec.schema.fields().iter().skip(own);
        columns.extend(fields.map(|field| new_null_array(field.data_type(), rows.len())));
    } else {
        let found: UInt32Array = match found.contains(&NOBODY) {
            true => found.iter().map(|row| (*row != NOBODY).then_some(*row)).collect(),
            false => UInt32Array::from(found.to_vec()),
        };
        for column in &matches.columns {
            columns.push(take(column, &found, None)?);
        }
    }
    carry_hidden(&left, &spec.schema, columns)
}

fn taken_rows(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
    let is_same = rows.len() == batch.num_rows() && (0u32..).zip(rows).all(|(place, row)| place == *row);
    if is_same {
        return Ok(batch.clone());
    }
    let rows = UInt32Array::from(rows.to_vec());
    let columns = batch.columns().iter().map(|column| take(column, &rows, None)).collect::<Result<_, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(batch.schema_ref()), columns, &options)?)
}
