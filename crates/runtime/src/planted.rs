//! Bugs planted on purpose, to test that the simulator catches them. Without the feature `planted-bugs` there are none,
//! and every check is the constant `false`.

/// A bug that the simulator must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A barrier passes as soon as the first input has it.
    NoAlignment,
    /// An input that ended is waited for at every later barrier.
    EndIsNoBarrier,
    /// Rows held by the exchange go out behind the barrier.
    FlushAfterBarrier,
    /// Output is committed before the manifest is durable.
    CommitBeforeDurable,
    /// A split's position in the checkpoint is one batch ahead.
    PositionOneAhead,
    /// The merged watermark is the maximum of the inputs.
    WatermarkIsMaximum,
    /// Restored state stays with the subtask that had it.
    StateByTask,
    /// On restore, what was written after the checkpoint is left lying about.
    NoAbort,
    /// On restore, what the checkpoint had prepared is not committed again.
    NoRecommit,
    /// A restored split starts with a fresh watermark.
    ForgetSplitWatermark,
    /// A split's watermark does not carry over to the next of its lineage.
    ForgetLineage,
    /// The rows that a sink had prepared are not in its acknowledgement.
    AckWithoutCommittables,
    /// An input that was idle is late by its own watermark only, not by what has been promised without it.
    RejoinsOnTime,
    /// What was read of a split that is idle is not in the checkpoint.
    ForgetIdleSplits,
    /// Records that were left out or given aside are counted from 0 again after a restore.
    ForgetRejected,
    /// At most once: rows are shown before the checkpoint behind them is durable.
    ShownBeforeDurable,
    /// At most once: rows that were prepared and may not have been shown are not counted.
    ForgetInDoubt,
    /// Rows that a barrier has overtaken are not read again.
    ForgetInFlight,
    /// Rows that a barrier has overtaken are read twice on restore.
    InFlightTwice,
    /// Rows that a barrier has overtaken stay with the subtask that had them.
    InFlightByTask,
    /// Of a channel that has ended, the rows in flight are not in the checkpoint.
    ForgetBeforeEnd,
    /// A restored subtask begins with the greatest watermark of the old ones.
    RestoredWatermarkIsMaximum,
    /// Where barriers are not aligned, a watermark from behind one counts before it.
    WatermarkAheadOfBarrier,
    /// An exchange loses a batch now and then.
    EdgeLosesBatch,
    /// An exchange sends a batch twice now and then.
    EdgeDoublesBatch,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::NoAlignment,
        Self::EndIsNoBarrier,
        Self::FlushAfterBarrier,
        Self::CommitBeforeDurable,
        Self::PositionOneAhead,
        Self::WatermarkIsMaximum,
        Self::StateByTask,
        Self::NoAbort,
        Self::NoRecommit,
        Self::ForgetSplitWatermark,
        Self::ForgetLineage,
        Self::AckWithoutCommittables,
        Self::RejoinsOnTime,
        Self::ForgetIdleSplits,
        Self::ForgetRejected,
        Self::ShownBeforeDurable,
        Self::ForgetInDoubt,
        Self::ForgetInFlight,
        Self::InFlightTwice,
        Self::InFlightByTask,
        Self::ForgetBeforeEnd,
        Self::RestoredWatermarkIsMaximum,
        Self::WatermarkAheadOfBarrier,
        Self::EdgeLosesBatch,
        Self::EdgeDoublesBatch,
    ];
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Runs `work` on this thread with `bug` planted.
    pub fn with_bug<T>(bug: Option<Bug>, work: impl FnOnce() -> T) -> T {
        let before = PLANTED.replace(bug);
        let result = work();
        PLANTED.set(before);
        result
    }

    pub(crate) fn planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub(crate) use switch::planted;
#[cfg(feature = "planted-bugs")]
pub use switch::with_bug;

#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub(crate) const fn planted(_bug: Bug) -> bool {
    false
}
