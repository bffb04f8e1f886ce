//! What is said of the first rows of a key: how those after a batch differ from those before.

use std::sync::Arc;

use arrow::array::{Int8Array, Int64Array, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use ruslo_core::changelog::{RowKind, with_row_kinds};
use ruslo_core::error::Result;
use ruslo_core::operator::Output;

use super::UpdatingTopN;
use super::runs::Run;

/// Rows to go out, in order.
#[derive(Debug, Default)]
pub(super) struct Steps {
    kinds: Vec<i8>,
    places: Vec<u32>,
    /// From 1.
    ranks: Vec<i64>,
}

impl Steps {
    /// Says what differs in the runs of one key.
    pub(super) fn say(&mut self, runs: &[Run], wanted: &UpdatingTopN) {
        match wanted.rank.is_some() || wanted.limit == 1 {
            true => self.say_ranks(runs, wanted),
            false => self.say_rows(runs, wanted.limit),
        }
    }

    fn push(&mut self, kind: RowKind, place: u32, rank: i64) {
        self.kinds.push(kind.number());
        self.places.push(place);
        self.ranks.push(rank);
    }

    /// Rows that are pushed out, then those that come in.
    fn say_rows(&mut self, runs: &[Run], limit: usize) {
        for kind in [RowKind::Delete, RowKind::Insert] {
            let (mut old_left, mut new_left) = (limit as i64, limit as i64);
            for run in runs {
                let (old, new) = (run.old.min(old_left), run.new.min(new_left));
                (old_left, new_left) = (old_left - old, new_left - new);
                let times = if kind == RowKind::Delete { old - new } else { new - old };
                (0..times).for_each(|_| self.push(kind, run.place, 0));
                if old_left == 0 && new_left == 0 {
                    break;
                }
            }
        }
    }

    /// Ranks that have another row.
    fn say_ranks(&mut self, runs: &[Run], wanted: &UpdatingTopN) {
        let mut old = first(runs, wanted.limit, |run| run.old);
        let mut new = first(runs, wanted.limit, |run| run.new);
        for rank in 1.. {
            match (old.next(), new.next()) {
                (None, None) => break,
                (Some(old), None) => self.push(RowKind::Delete, old, rank),
                (None, Some(new)) => self.push(RowKind::Insert, new, rank),
                (Some(old), Some(new)) if old == new => {}
                (Some(old), Some(new)) => {
                    if wanted.says_before {
                        self.push(RowKind::UpdateBefore, old, rank);
                    }
                    self.push(RowKind::UpdateAfter, new, rank);
                }
            }
        }
    }

    /// Gives the rows out, in batches of `batch_rows` at most; their columns are those of `rows`, then the rank.
    pub(super) fn emit(
        self,
        rows: &RecordBatch,
        schema: &SchemaRef,
        batch_rows: usize,
        out: &mut Output,
    ) -> Result<()> {
        let rows_max = batch_rows.max(1);
        let parts = self.kinds.chunks(rows_max).zip(self.places.chunks(rows_max)).zip(self.ranks.chunks(rows_max));
        for ((kinds, places), ranks) in parts {
            let places = UInt32Array::from(places.to_vec());
            let taken = rows.columns().iter().map(|column| Ok(take(column, &places, None)?));
            let mut columns = taken.collect::<Result<Vec<_>>>()?;
            if columns.len() < schema.fields().len() {
                columns.push(Arc::new(Int64Array::from(ranks.to_vec())));
            }
            let options = RecordBatchOptions::new().with_row_count(Some(kinds.len()));
            let made = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
            out.emit(with_row_kinds(&made, Int8Array::from(kinds.to_vec()))?);
        }
        Ok(())
    }
}

/// The places of the first rows, each as often as `count` says.
fn first(runs: &[Run], limit: usize, count: impl Fn(&Run) -> i64) -> impl Iterator<Item = u32> {
    let repeated = runs.iter().flat_map(move |run| (0..count(run)).map(|_| run.place));
    repeated.take(limit)
}
