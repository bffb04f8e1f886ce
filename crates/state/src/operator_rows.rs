//! Rows that belong to no key on their way into checkpoints and back.
//!
//! A table goes into every checkpoint whole: as long as nobody changes it, later checkpoints name the runs that the first
//! has written. On restore each subtask looks at what all the old ones had, and takes its part.

use std::sync::{Arc, OnceLock};

use arrow::record_batch::RecordBatch;
use ruslo_core::operator::Subtask;
use ruslo_core::operator_rows::{OperatorRows, Redistribution};

use crate::manifest::RunRef;

/// Where a table's runs are stored, once they are.
type Stored = Arc<OnceLock<Vec<RunRef>>>;

/// The rows of one old subtask, by run.
pub type OldRows = Vec<(RunRef, RecordBatch)>;

/// A table of one subtask.
#[derive(Debug)]
pub struct RowsTable {
    redistribution: Redistribution,
    /// The rows.
    pub rows: OperatorRows,
    /// How often the rows had changed when `stored` was begun.
    sealed_changes: u64,
    stored: Stored,
}

/// A table as it was at a barrier.
#[derive(Debug, Clone)]
pub struct RowsSnapshot {
    redistribution: Redistribution,
    batches: Vec<RecordBatch>,
    stored: Stored,
}

impl RowsTable {
    /// An empty table.
    pub fn new(redistribution: Redistribution) -> Self {
        Self { redistribution, rows: OperatorRows::default(), sealed_changes: 0, stored: Stored::default() }
    }

    /// What `subtask` gets of what the `old` subtasks had, each at its place.
    pub fn restored(redistribution: Redistribution, old: &[OldRows], subtask: Subtask) -> Self {
        let all = || old.iter().flatten().map(|(_, rows)| rows.clone()).collect::<Vec<_>>();
        let own = old.get(subtask.index).filter(|_| old.len() == subtask.parallelism);
        let (part, kept) = match (redistribution, own) {
            (Redistribution::Broadcast, _) => (all(), Some(old.concat())),
            (_, Some(own)) => (own.iter().map(|(_, rows)| rows.clone()).collect(), Some(own.clone())),
            (_, None) => (share(&all(), subtask), None),
        };
        let everyones = if redistribution == Redistribution::Union { all() } else { Vec::new() };
        let references = kept.map(|runs| runs.into_iter().map(|(reference, _)| reference).collect::<Vec<_>>());
        let stored = references.map(OnceLock::from).unwrap_or_default();
        let rows = OperatorRows::restored(part, everyones);
        Self { redistribution, rows, sealed_changes: 0, stored: Arc::new(stored) }
    }

    /// What subtasks get of its rows.
    pub fn redistribution(&self) -> Redistribution {
        self.redistribution
    }

    /// The table as it is now; later changes do not touch it.
    pub fn seal(&mut self) -> RowsSnapshot {
        if self.sealed_changes != self.rows.changes() {
            self.sealed_changes = self.rows.changes();
            self.stored = Stored::default();
        }
        let (batches, stored) = (self.rows.batches().to_vec(), Arc::clone(&self.stored));
        RowsSnapshot { redistribution: self.redistribution, batches, stored }
    }
}

impl RowsSnapshot {
    /// What subtasks get of the rows.
    pub fn redistribution(&self) -> Redistribution {
        self.redistribution
    }

    /// The rows.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.batches
    }

    /// Whether `subtask` stores the rows: what all have alike is stored by the first.
    pub fn is_stored_by(&self, subtask: Subtask) -> bool {
        self.redistribution != Redistribution::Broadcast || subtask.index == 0
    }

    /// Where the rows are stored, if they are.
    pub fn stored(&self) -> Option<&[RunRef]> {
        self.stored.get().map(Vec::as_slice)
    }

    /// Says where the rows are stored now.
    pub fn set_stored(&self, references: Vec<RunRef>) {
        // A table is uploaded by one checkpoint at a time; a second answer would be about the same rows.
        let _ = self.stored.set(references);
    }
}

/// The part of all rows that `subtask` gets: as many as the others, one more or less, in order.
fn share(all: &[RecordBatch], subtask: Subtask) -> Vec<RecordBatch> {
    let total: usize = all.iter().map(RecordBatch::num_rows).sum();
    let parallelism = subtask.parallelism.max(1);
    let wanted = total * subtask.index / parallelism..total * (subtask.index + 1) / parallelism;
    let mut first = 0;
    let cut = all.iter().filter_map(|batch| {
        let end = first + batch.num_rows();
        let (from, to) = (wanted.start.max(first), wanted.end.min(end));
        let part = (from < to).then(|| batch.slice(from - first, to - from));
        first = end;
        part
    });
    cut.collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn rows(values: std::ops::Range<i64>) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RecordBatch::try_from_iter([("v", column)]).unwrap()
    }

    fn values(batches: &[RecordBatch]) -> Vec<i64> {
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn shares_are_even_and_have_every_row_once_whatever_the_batches() {
        let all = [rows(0..5), rows(5..6), rows(6..13)];
        for parallelism in 1..=20 {
            let shares: Vec<_> =
                (0..parallelism).map(|index| values(&share(&all, Subtask { index, parallelism }))).collect();
            assert_eq!(shares.concat(), (0..13).collect::<Vec<_>>());
            let sizes = shares.iter().map(Vec::len);
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1, "{shares:?}");
        }
    }

    #[test]
    fn rows_that_nobody_changes_are_stored_once() {
        let mut table = RowsTable::new(Redistribution::Split);
        table.rows.append(rows(0..3));
        let first = table.seal();
        assert!(first.stored().is_none());
        first.set_stored(vec![RunRef::for_test("a", 0, 0..128)]);
        assert_eq!(table.seal().stored().unwrap()[0].file, "a");
        table.rows.append(rows(0..0));
        assert!(table.seal().stored().is_some(), "no rows are no change");
        table.rows.replace(vec![rows(3..4)]);
        let later = table.seal();
        assert!(later.stored().is_none());
        assert_eq!((values(first.batches()), values(later.batches())), (vec![0, 1, 2], vec![3]));
    }
}
