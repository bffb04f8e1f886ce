//! What a task does about a barrier that has come on some of its channels and not on others; see
//! `docs/design/unaligned.md`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ruslo_core::epoch::Epoch;

/// How long channels wait for each other where nobody says.
pub const ALIGNMENT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);

/// What a job's tasks do about barriers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alignment {
    /// Channels that have brought the barrier wait for the others, however long that takes. Every row counts exactly once.
    Aligned,
    /// As [`Alignment::Aligned`] for so long; then the barrier overtakes the batches that wait before it, which become part
    /// of the checkpoint. Every row counts exactly once.
    Overtaking {
        /// How long a barrier may wait in a gate.
        after: Duration,
    },
    /// No channel waits: rows behind a barrier may be in the snapshot, and come again on restore. Every row counts at least
    /// once.
    AtLeastOnce,
}

impl Alignment {
    /// Whether barriers pass full receivers.
    pub fn overtakes(self) -> bool {
        matches!(self, Self::Overtaking { .. })
    }
}

impl Default for Alignment {
    fn default() -> Self {
        Self::Overtaking { after: ALIGNMENT_TIMEOUT_DEFAULT }
    }
}

/// The last epoch whose barrier has overtaken something somewhere in the job: further on it does so at once.
#[derive(Debug, Default)]
pub struct Overtaken(AtomicU64);

impl Overtaken {
    /// Whether the barrier of `epoch` has overtaken something.
    pub fn is(&self, epoch: Epoch) -> bool {
        self.0.load(Ordering::Relaxed) == epoch.0
    }

    /// The barrier of `epoch` has.
    pub fn set(&self, epoch: Epoch) {
        self.0.store(epoch.0, Ordering::Relaxed);
    }
}
