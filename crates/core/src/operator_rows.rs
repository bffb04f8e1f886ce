//! Rows of an operator that belong to no key: positions of a reader, settings that were heard, a list of open files.
//!
//! A table of them is opened by name through [`OperatorState::operator_rows`](crate::state::OperatorState::operator_rows)
//! and is part of every checkpoint as a whole, so it should be small. Having no key it has no key group; what each subtask
//! gets when parallelism changes is said by its [`Redistribution`], which is stored with it.

use arrow::record_batch::RecordBatch;

use crate::memory::batch_bytes;

/// What the subtasks that are restored get of the rows that the old ones had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Redistribution {
    /// Every row goes to one subtask: as many to each, in order. Each keeps its own if there are as many as before.
    Split,
    /// As `Split`, and every subtask may look at all rows of all the old ones: [`OperatorRows::everyones`].
    Union,
    /// Every subtask has the same rows; they are stored once, by the first.
    Broadcast,
}

impl Redistribution {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Union => "union",
            Self::Broadcast => "broadcast",
        }
    }
}

/// The rows of one subtask.
#[derive(Debug, Clone, Default)]
pub struct OperatorRows {
    own: Vec<RecordBatch>,
    everyones: Vec<RecordBatch>,
    changes: u64,
}

impl OperatorRows {
    /// What a subtask has after a restore; `everyones` is what all had together. For tables.
    pub fn restored(own: Vec<RecordBatch>, everyones: Vec<RecordBatch>) -> Self {
        Self { own, everyones, changes: 0 }
    }

    /// The subtask's own rows, in the order in which they were added.
    pub fn batches(&self) -> &[RecordBatch] {
        &self.own
    }

    /// Of `Union`: the rows that all subtasks together had when this one was restored, in order of the subtasks. Whoever
    /// divides them by a rule of its own replaces its rows by those that the rule gives it.
    pub fn everyones(&self) -> &[RecordBatch] {
        &self.everyones
    }

    /// Adds rows behind the others.
    pub fn append(&mut self, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.own.push(batch);
            self.changes += 1;
        }
    }

    /// Puts rows in the place of all that are there.
    pub fn replace(&mut self, batches: Vec<RecordBatch>) {
        self.own = batches;
        self.own.retain(|batch| batch.num_rows() > 0);
        self.changes += 1;
    }

    /// How often the rows have changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Bytes held in memory, everyone's included.
    pub fn bytes(&self) -> usize {
        self.own.iter().chain(&self.everyones).map(batch_bytes).sum()
    }
}
