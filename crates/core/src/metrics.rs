//! What is counted while a pipeline runs. Counters that tell of rows are part of the snapshot: after a restore they go
//! on from where the checkpoint was.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::operator::InputId;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }
}

/// A number that rises and falls.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// It is `n` now.
    pub fn set(&self, n: usize) {
        self.0.store(n as u64, Ordering::Relaxed);
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one operator subtask counts.
#[derive(Debug, Default)]
pub struct OperatorMetrics {
    /// Rows taken in.
    pub rows_in: Counter,
    /// Rows given out through the main port.
    pub rows_out: Counter,
    /// Rows that came late: dropped, or given out through [`crate::operator::Port::LATE`].
    pub late_rows: Counter,
    /// Records that a source left out because they could not become rows.
    pub skipped_rows: Counter,
    /// Records that a source gave out as dead letters.
    pub dead_letter_rows: Counter,
    /// Rows whose event time was too far ahead of the clock to move the watermark.
    pub ahead_rows: Counter,
    /// Rows that a sink does not show any more, whether an earlier process has shown them or not: at-most-once.
    pub in_doubt_rows: Counter,
    /// Rows that a filter left out.
    pub filtered_rows: Counter,
    /// Rows that went into the state of an operator that does not give them out again.
    pub kept_rows: Counter,
    /// Rows given out through a port aside.
    pub aside_rows: Counter,
    /// Rows left out because one like them is out already.
    pub duplicate_rows: Counter,
    /// Rows that wait in the state to go out; as of the last barrier.
    pub waiting_rows: Gauge,
    /// Rows of a sink that the last barrier has prepared, and that its checkpoint commits.
    pub pending_rows: Gauge,
    /// Rows taken in through each input but the first; empty, where there is one.
    other_inputs: Mutex<Vec<u64>>,
    /// Files that appeared in a watched folder and are too old to be read, since the process began: not kept.
    pub too_old_files: Counter,
}

/// [`OperatorMetrics`] as a checkpoint keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Rows taken in.
    pub rows_in: u64,
    /// Rows given out.
    pub rows_out: u64,
    /// Rows that came late.
    pub late_rows: u64,
    /// Records left out because they could not become rows.
    #[serde(default)]
    pub skipped_rows: u64,
    /// Records given out as dead letters.
    #[serde(default)]
    pub dead_letter_rows: u64,
    /// Rows too far ahead of the clock to move the watermark.
    #[serde(default)]
    pub ahead_rows: u64,
    /// Rows not shown again, whether they were shown before or not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub in_doubt_rows: u64,
    /// Rows that a filter left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub filtered_rows: u64,
    /// Rows that went into state.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kept_rows: u64,
    /// Rows given out aside.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub aside_rows: u64,
    /// Rows left out because one like them is out already.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub duplicate_rows: u64,
    /// Rows in the state that are to go out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waiting_rows: u64,
    /// Rows of a sink that earlier checkpoints have committed. Only the coordinator knows: of a running subtask it is 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub committed_rows: u64,
    /// Rows of a sink that this checkpoint commits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pending_rows: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl RowCounts {
    /// The same, with what was pending committed.
    #[must_use]
    pub fn committed(self) -> Self {
        Self { committed_rows: self.committed_rows + self.pending_rows, pending_rows: 0, ..self }
    }
}

impl OperatorMetrics {
    /// The counts now.
    pub fn counts(&self) -> RowCounts {
        RowCounts {
            rows_in: self.rows_in.get(),
            rows_out: self.rows_out.get(),
            late_rows: self.late_rows.get(),
            skipped_rows: self.skipped_rows.get(),
            dead_letter_rows: self.dead_letter_rows.get(),
            ahead_rows: self.ahead_rows.get(),
            in_doubt_rows: self.in_doubt_rows.get(),
            filtered_rows: self.filtered_rows.get(),
            kept_rows: self.kept_rows.get(),
            aside_rows: self.aside_rows.get(),
            duplicate_rows: self.duplicate_rows.get(),
            waiting_rows: self.waiting_rows.get(),
            committed_rows: 0,
            pending_rows: self.pending_rows.get(),
        }
    }

    /// Rows came in through `input`.
    pub fn take_in(&self, input: InputId, rows: usize) {
        self.rows_in.add(rows);
        if let Some(other) = input.checked_sub(1) {
            let mut others = self.other_inputs.lock().unwrap_or_else(PoisonError::into_inner);
            if others.len() <= other {
                others.resize(other + 1, 0);
            }
            if let Some(count) = others.get_mut(other) {
                *count += rows as u64;
            }
        }
    }

    /// Rows taken in through each input but the first.
    pub fn other_inputs(&self) -> Vec<u64> {
        self.other_inputs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes on from these counts of [`Self::other_inputs`].
    pub fn restore_other_inputs(&self, counts: Vec<u64>) {
        *self.other_inputs.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }

    /// Goes on from `counts`.
    pub fn restore(&self, counts: RowCounts) {
        self.rows_in.set(counts.rows_in);
        self.rows_out.set(counts.rows_out);
        self.late_rows.set(counts.late_rows);
        self.skipped_rows.set(counts.skipped_rows);
        self.dead_letter_rows.set(counts.dead_letter_rows);
        self.ahead_rows.set(counts.ahead_rows);
        self.in_doubt_rows.set(counts.in_doubt_rows);
        self.filtered_rows.set(counts.filtered_rows);
        self.kept_rows.set(counts.kept_rows);
        self.aside_rows.set(counts.aside_rows);
        self.duplicate_rows.set(counts.duplicate_rows);
    }
}

impl std::ops::Add for RowCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            rows_in: self.rows_in + other.rows_in,
            rows_out: self.rows_out + other.rows_out,
            late_rows: self.late_rows + other.late_rows,
            skipped_rows: self.skipped_rows + other.skipped_rows,
            dead_letter_rows: self.dead_letter_rows + other.dead_letter_rows,
            ahead_rows: self.ahead_rows + other.ahead_rows,
            in_doubt_rows: self.in_doubt_rows + other.in_doubt_rows,
            filtered_rows: self.filtered_rows + other.filtered_rows,
            kept_rows: self.kept_rows + other.kept_rows,
            aside_rows: self.aside_rows + other.aside_rows,
            duplicate_rows: self.duplicate_rows + other.duplicate_rows,
            waiting_rows: self.waiting_rows + other.waiting_rows,
            committed_rows: self.committed_rows + other.committed_rows,
            pending_rows: self.pending_rows + other.pending_rows,
        }
    }
}
