//! Bugs planted on purpose in keyed tables, to test that the simulator catches them. Without the feature `planted-bugs`
//! there are none, and every check is the constant `false`.

/// A bug that the simulator must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// What a barrier takes out of a table is not in its checkpoint.
    ForgetSealed,
    /// A key that has left memory is looked for in memory only.
    EvictedIsNowhere,
    /// Of a run that another parallelism made, a subtask leaves out the first key group that is its own.
    CutTooShort,
    /// Of two rows of one identity, a merge keeps the older.
    MergeKeepsOlder,
    /// A checkpoint names runs that nobody has synced.
    RunsNotSynced,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::ForgetSealed, Self::EvictedIsNowhere, Self::CutTooShort, Self::MergeKeepsOlder, Self::RunsNotSynced];
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
