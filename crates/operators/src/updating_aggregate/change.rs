//! What a batch has changed, as rows with kinds.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int8Array, UInt32Array};
use arrow::compute::kernels::cmp;
use arrow::compute::{interleave, take};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{RowConverter, SortField};
use ruslo_core::changelog::{RowKind, with_row_kinds};
use ruslo_core::error::Result;
use ruslo_core::operator::Output;

/// Rows that come, change and go.
pub(super) struct Change {
    /// Of all groups.
    pub(super) keys: Vec<ArrayRef>,
    /// The results of the groups that were there, and of those that are there now.
    pub(super) old: Vec<ArrayRef>,
    pub(super) new: Vec<ArrayRef>,
    /// What is said, in order.
    pub(super) steps: Vec<Step>,
}

/// One row.
pub(super) struct Step {
    kind: RowKind,
    group: u32,
    /// Its place among the old results, if it takes away, or among the new ones.
    place: u32,
}

/// The rows of `columns` that are `kept`, and the place of each there.
pub(super) fn taken(kept: &[bool], columns: &[ArrayRef]) -> Result<(Vec<ArrayRef>, Vec<Option<u32>>)> {
    let mut next = 0;
    let place = |kept: &bool| {
        next += u32::from(*kept);
        kept.then(|| next - 1)
    };
    let places = kept.iter().map(place).collect();
    if next as usize == kept.len() {
        return Ok((columns.to_vec(), places));
    }
    let rows = kept.iter().enumerate().filter(|(_, kept)| **kept).map(|(row, _)| row as u32);
    let rows = UInt32Array::from_iter_values(rows);
    let columns = columns.iter().map(|column| Ok(take(column, &rows, None)?)).collect::<Result<_>>()?;
    Ok((columns, places))
}

/// Of pairs of places among old and new results, which differ. Where one of the two is missing that is said anyway.
pub(super) fn differing(change: &Change, pairs: &[(Option<u32>, Option<u32>)]) -> Result<Vec<bool>> {
    let both: Vec<(u32, u32)> = pairs.iter().filter_map(|(old, new)| Some(((*old)?, (*new)?))).collect();
    let old = UInt32Array::from_iter_values(both.iter().map(|pair| pair.0));
    let new = UInt32Array::from_iter_values(both.iter().map(|pair| pair.1));
    let mut differs = vec![false; both.len()];
    for (before, after) in change.old.iter().zip(&change.new) {
        let found = distinct(&take(before, &old, None)?, &take(after, &new, None)?)?;
        differs.iter_mut().zip(found.values()).for_each(|(differs, found)| *differs |= found);
    }
    let mut of_both = differs.into_iter();
    let differs = pairs.iter().map(|pair| match pair {
        (Some(_), Some(_)) => of_both.next().unwrap_or(true),
        _ => true,
    });
    Ok(differs.collect())
}

/// Which rows of two columns of one type differ; NULL is like NULL.
pub(super) fn distinct(one: &ArrayRef, other: &ArrayRef) -> Result<BooleanArray> {
    if !one.data_type().is_nested() {
        return Ok(cmp::distinct(one, other)?);
    }
    let converter = RowConverter::new(vec![SortField::new(one.data_type().clone())])?;
    let one = converter.convert_columns(&[Arc::clone(one)])?;
    let other = converter.convert_columns(&[Arc::clone(other)])?;
    Ok(one.iter().zip(other.iter()).map(|(one, other)| Some(one != other)).collect())
}

impl Change {
    /// Notes what is said of each group, by its places among old and new results; of all that are there twice, if it is not
    /// known which differ.
    pub(super) fn step(&mut self, pairs: &[(Option<u32>, Option<u32>)], differs: Option<&[bool]>, says_before: bool) {
        for (at, pair) in pairs.iter().enumerate() {
            let group = at as u32;
            let mut say = |kind, place| self.steps.push(Step { kind, group, place });
            match *pair {
                (None, None) => {}
                (None, Some(new)) => say(RowKind::Insert, new),
                (Some(old), None) => say(RowKind::Delete, old),
                (Some(old), Some(new)) => {
                    if differs.is_some_and(|differs| differs.get(at) == Some(&false)) {
                        continue;
                    }
                    if says_before {
                        say(RowKind::UpdateBefore, old);
                    }
                    say(RowKind::UpdateAfter, new);
                }
            }
        }
    }

    /// Gives the rows out, in batches of `batch_rows` at most.
    pub(super) fn emit(self, schema: &SchemaRef, batch_rows: usize, out: &mut Output) -> Result<()> {
        if self.steps.is_empty() {
            return Ok(());
        }
        let rows = self.rows(schema)?;
        let mut at = 0;
        while at < rows.num_rows() {
            let length = batch_rows.max(1).min(rows.num_rows() - at);
            out.emit(rows.slice(at, length));
            at += length;
        }
        Ok(())
    }

    fn rows(&self, schema: &SchemaRef) -> Result<RecordBatch> {
        let groups = UInt32Array::from_iter_values(self.steps.iter().map(|step| step.group));
        let mut columns = self.keys.iter().map(|key| Ok(take(key, &groups, None)?)).collect::<Result<Vec<_>>>()?;
        let place = |step: &Step| (usize::from(step.kind.adds()), step.place as usize);
        let places: Vec<(usize, usize)> = self.steps.iter().map(place).collect();
        for (old, new) in self.old.iter().zip(&self.new) {
            columns.push(interleave(&[old.as_ref(), new.as_ref()], &places)?);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(self.steps.len()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
        if self.steps.iter().all(|step| step.kind == RowKind::Insert) {
            return Ok(rows);
        }
        with_row_kinds(&rows, Int8Array::from_iter_values(self.steps.iter().map(|step| step.kind.number())))
    }
}
