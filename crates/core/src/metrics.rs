//! What is counted while a pipeline runs. Counters that tell of rows are part of the snapshot: after a restore they go
//! on from where the checkpoint was.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

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

/// What one operator subtask counts.
#[derive(Debug, Default)]
pub struct OperatorMetrics {
    /// Rows taken in.
    pub rows_in: Counter,
    /// Rows given out, over all ports.
    pub rows_out: Counter,
    /// Rows dropped because they came late.
    pub late_rows: Counter,
}

/// [`OperatorMetrics`] as a checkpoint keeps them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Rows taken in.
    pub rows_in: u64,
    /// Rows given out.
    pub rows_out: u64,
    /// Rows dropped because they came late.
    pub late_rows: u64,
}

impl OperatorMetrics {
    /// The counts now.
    pub fn counts(&self) -> RowCounts {
        RowCounts { rows_in: self.rows_in.get(), rows_out: self.rows_out.get(), late_rows: self.late_rows.get() }
    }

    /// Goes on from `counts`.
    pub fn restore(&self, counts: RowCounts) {
        self.rows_in.set(counts.rows_in);
        self.rows_out.set(counts.rows_out);
        self.late_rows.set(counts.late_rows);
    }
}

impl std::ops::Add for RowCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            rows_in: self.rows_in + other.rows_in,
            rows_out: self.rows_out + other.rows_out,
            late_rows: self.late_rows + other.late_rows,
        }
    }
}
