//! Everything that flows through an edge.
//!
//! Per input the grammar is
//!
//! ```text
//! (Batch | Watermark | Barrier)* End
//! ```
//!
//! - Watermarks at a time never fall; `Idle` takes the input out of the merge until its next batch or watermark.
//! - Barriers come with growing epochs. `End` counts as every later barrier: who waits for the barrier of epoch *n* on
//!   every input does not wait for an input that has ended.
//! - Nothing follows `End`.

use arrow::record_batch::RecordBatch;

use crate::epoch::Epoch;
use crate::time::Timestamp;

/// One thing that flows through an edge.
#[derive(Debug, Clone, PartialEq)]
pub enum Element {
    /// Rows. All of one source batch come from one split.
    Batch(RecordBatch),
    /// How far event time has come.
    Watermark(Watermark),
    /// The line between two checkpoints.
    Barrier(Barrier),
    /// Nothing follows.
    End(EndReason),
}

impl Element {
    /// Rows carried; control elements carry none.
    pub fn rows(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.num_rows(),
            _ => 0,
        }
    }

    /// Bytes of the slices carried, not of the buffers behind them.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Batch(batch) => crate::memory::batch_bytes(batch),
            _ => 0,
        }
    }
}

/// How far event time has come on one input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watermark {
    /// No later row of this input is at or before this time, but for late ones.
    At(Timestamp),
    /// Nothing is coming for now: do not wait for this input.
    Idle,
}

/// The line between the rows of two checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Barrier {
    /// The checkpoint that takes in everything before this barrier.
    pub epoch: Epoch,
    /// What happens after it.
    pub kind: BarrierKind,
}

/// What happens after a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarrierKind {
    /// The stream goes on.
    Checkpoint,
    /// The stream goes on; the checkpoint becomes a savepoint.
    Savepoint,
    /// Sources end with [`EndReason::Stop`] right behind the barrier.
    Stop,
    /// As `Stop`; the checkpoint becomes a savepoint.
    StopAtSavepoint,
    /// Sources end with [`EndReason::Drain`] right behind the barrier, though there may be more to read: windows fire.
    Drain,
}

impl BarrierKind {
    /// Whether the barrier may overtake rows, which are part of the checkpoint then. Not of a savepoint: whoever begins from
    /// it may have other edges.
    pub fn may_overtake(self) -> bool {
        matches!(self, Self::Checkpoint | Self::Stop)
    }

    /// Why sources end right behind the barrier, if they do.
    pub fn end(self) -> Option<EndReason> {
        match self {
            Self::Checkpoint | Self::Savepoint => None,
            Self::Stop | Self::StopAtSavepoint => Some(EndReason::Stop),
            Self::Drain => Some(EndReason::Drain),
        }
    }
}

/// Why an input ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndReason {
    /// The input is complete: windows fire.
    Drain,
    /// The pipeline stops here and will resume: windows stay in state.
    Stop,
}
