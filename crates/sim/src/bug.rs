//! Bugs planted on purpose, each of which must be caught: those of the runtime, of keyed tables, and of operators.
//!
//! The first two are in the product's own code, behind a feature. An operator's are made from outside ([`crate::sabotage`]), so
//! that operators know nothing of them.

use std::cell::Cell;
use std::fmt;

use ruslo_runtime::planted;
use ruslo_state::planted as planted_in_state;

use crate::scenario::Scenario;

/// A bug that the simulator must catch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// In channels, tasks, coordinator.
    Runtime(planted::Bug),
    /// In keyed tables.
    State(planted_in_state::Bug),
    /// In one kind of operator.
    Operator(OperatorBug),
}

/// A bug in one kind of operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperatorBug {
    /// A session that goes on after a restore has only what the newest snapshot wrote: the older half is forgotten.
    ForgetOlderSessions,
    /// After a restore, sessions that are out fire again.
    ForgetFiredSessions,
    /// A session fires when the watermark has passed its last row.
    SessionEndsAtLastRow,
    /// A session's row is late at its split's watermark, not only before it.
    EqualIsLate,
    /// A slice is dropped after the first of its windows.
    SliceOfOneWindow,
    /// After a restore, windows that share slices fire again.
    ForgetFiredWindows,
    /// A row that is late for some of its windows counts for all.
    PartlyLateForAll,
    /// A row that is late for some of its windows counts for none.
    PartlyLateForNone,
    /// After a restore, the rest of a Top-N that is half out is ranked from 1.
    ForgetRanks,
    /// Rows that are equal in the order take one place together.
    TiesAreOne,
    /// After a restore, what of a Top-N was stored before the newest snapshot is gone.
    ForgetOlderRows,
    /// Sorted rows leave before the watermark has reached them.
    SortRunsAhead,
    /// After a restore, sorted rows that were on their way out are gone.
    ForgetSortedRows,
    /// A local aggregation keeps its partial groups over a barrier.
    KeepPartialGroups,
    /// A row that is late for some of its windows goes aside.
    PartlyLateGoAside,
    /// After a restore, rows of a join by time that have not seen all of the other side see no more of it.
    ForgetUnseen,
    /// After a restore, rows of a join by time that have found a partner have none.
    ForgetPartners,
    /// A join by time forgets rows before the watermark has passed their last partner.
    JoinRunsAhead,
    /// Rows come out of a join by time behind the watermark.
    NotHeldBack,
    /// Late rows join those that are still there.
    LateAreJoined,
    /// A window's rows are forgotten when it has half passed.
    WindowJoinRunsAhead,
    /// Rows are put beside a version before the watermark has reached them, so that versions may still come.
    VersionsRunAhead,
    /// After a restore, rows that waited for their version are gone.
    ForgetWaiting,
    /// After a restore, rows and versions that were on their way out are gone.
    ForgetOnTheirWay,
    /// After a restore, the versions are gone.
    ForgetVersions,
    /// A version that has ended is valid on.
    EndedIsValid,
    /// A version that comes late counts from its time on.
    LateVersionsAreOnTime,
    /// A version counts from behind its time on.
    VersionBehindItsTime,
    /// After a restore, what a join has not joined yet of a batch is gone.
    ForgetUnjoined,
    /// What a join was told to take back it adds.
    TakenBackIsAdded,
    /// Changes go to the sink's subtasks in turn, not by key.
    ChangesGoInTurn,
    /// GROUP BY is not told what was before an update.
    BeforeIsLost,
    /// `+U` goes out before `-U`.
    AfterBeforeBefore,
    /// Of equal rows in one batch a Top-N counts one.
    EqualRowsAreOne,
    /// A Top-N keeps what was taken back.
    TakenBackIsRanked,
    /// After a restore, the last rows of each key are gone.
    ForgetLastRows,
    /// A row that is written by another's key stays when it goes.
    GoneStands,
    /// One half of a transfer goes out a batch late.
    HalfIsLate,
    /// What is taken from accounts is not told to who adds them up.
    TakenIsLost,
}

impl OperatorBug {
    /// All of them.
    pub const ALL: [Self; 39] = [
        Self::ForgetOlderSessions,
        Self::ForgetFiredSessions,
        Self::SessionEndsAtLastRow,
        Self::EqualIsLate,
        Self::SliceOfOneWindow,
        Self::ForgetFiredWindows,
        Self::PartlyLateForAll,
        Self::PartlyLateForNone,
        Self::ForgetRanks,
        Self::TiesAreOne,
        Self::ForgetOlderRows,
        Self::SortRunsAhead,
        Self::ForgetSortedRows,
        Self::KeepPartialGroups,
        Self::PartlyLateGoAside,
        Self::ForgetUnseen,
        Self::ForgetPartners,
        Self::JoinRunsAhead,
        Self::NotHeldBack,
        Self::LateAreJoined,
        Self::WindowJoinRunsAhead,
        Self::VersionsRunAhead,
        Self::ForgetWaiting,
        Self::ForgetOnTheirWay,
        Self::ForgetVersions,
        Self::EndedIsValid,
        Self::LateVersionsAreOnTime,
        Self::VersionBehindItsTime,
        Self::ForgetUnjoined,
        Self::TakenBackIsAdded,
        Self::ChangesGoInTurn,
        Self::BeforeIsLost,
        Self::AfterBeforeBefore,
        Self::EqualRowsAreOne,
        Self::TakenBackIsRanked,
        Self::ForgetLastRows,
        Self::GoneStands,
        Self::HalfIsLate,
        Self::TakenIsLost,
    ];

    /// The scenario that has such an operator.
    pub fn scenario(self) -> Scenario {
        match self {
            Self::ForgetOlderSessions | Self::ForgetFiredSessions | Self::SessionEndsAtLastRow | Self::EqualIsLate => {
                Scenario::Session
            }
            Self::SliceOfOneWindow | Self::ForgetFiredWindows | Self::PartlyLateForAll | Self::PartlyLateForNone => {
                Scenario::Hop
            }
            Self::ForgetRanks | Self::TiesAreOne | Self::ForgetOlderRows => Scenario::TopN,
            Self::SortRunsAhead | Self::ForgetSortedRows => Scenario::Sorted,
            Self::KeepPartialGroups => Scenario::TwoPhases,
            Self::PartlyLateGoAside => Scenario::Aside,
            Self::ForgetUnseen | Self::ForgetPartners | Self::JoinRunsAhead | Self::NotHeldBack => {
                Scenario::IntervalJoin
            }
            Self::LateAreJoined | Self::WindowJoinRunsAhead => Scenario::WindowJoin,
            Self::VersionsRunAhead | Self::ForgetWaiting | Self::ForgetOnTheirWay | Self::ForgetVersions => {
                Scenario::TemporalJoin
            }
            Self::EndedIsValid | Self::LateVersionsAreOnTime | Self::VersionBehindItsTime => Scenario::TemporalJoin,
            Self::ForgetUnjoined | Self::TakenBackIsAdded | Self::ChangesGoInTurn => Scenario::RegularJoin,
            Self::BeforeIsLost | Self::AfterBeforeBefore => Scenario::GroupBy,
            Self::EqualRowsAreOne | Self::TakenBackIsRanked => Scenario::UpdatingTopN,
            Self::ForgetLastRows | Self::GoneStands => Scenario::LastRows,
            Self::HalfIsLate | Self::TakenIsLost => Scenario::Transfers,
        }
    }
}

impl Bug {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        let runtime = planted::Bug::ALL.into_iter().map(Self::Runtime);
        let state = planted_in_state::Bug::ALL.into_iter().map(Self::State);
        runtime.chain(state).chain(OperatorBug::ALL.into_iter().map(Self::Operator))
    }

    /// The bug of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|bug| bug.to_string() == name)
    }

    /// Where it may show.
    pub fn scenarios(self) -> Vec<Scenario> {
        match self {
            // Each of these shows elsewhere, and sooner.
            Self::Runtime(_) => Scenario::ALL.into_iter().filter(|scenario| *scenario < Scenario::Keyed).collect(),
            Self::State(_) => vec![Scenario::Keyed],
            Self::Operator(bug) => vec![bug.scenario()],
        }
    }
}

impl From<planted::Bug> for Bug {
    fn from(bug: planted::Bug) -> Self {
        Self::Runtime(bug)
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime(bug) => write!(f, "{bug:?}"),
            Self::State(bug) => write!(f, "{bug:?}"),
            Self::Operator(bug) => write!(f, "{bug:?}"),
        }
    }
}

thread_local! {
    static PLANTED: Cell<Option<OperatorBug>> = const { Cell::new(None) };
}

/// Runs `work` on this thread with `bug` planted.
pub fn with_bug<T>(bug: Option<Bug>, work: impl FnOnce() -> T) -> T {
    let (runtime, state, operator) = match bug {
        None => (None, None, None),
        Some(Bug::Runtime(bug)) => (Some(bug), None, None),
        Some(Bug::State(bug)) => (None, Some(bug), None),
        Some(Bug::Operator(bug)) => (None, None, Some(bug)),
    };
    let before = PLANTED.replace(operator);
    let result = planted_in_state::with_bug(state, || planted::with_bug(runtime, work));
    PLANTED.set(before);
    result
}

/// What is planted in operators.
pub fn planted_in_operators() -> Option<OperatorBug> {
    PLANTED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bugs_have_names_and_a_place_to_show() {
        assert_eq!(Bug::named("NoAbort"), Some(Bug::Runtime(planted::Bug::NoAbort)));
        assert_eq!(Bug::named("TiesAreOne"), Some(Bug::Operator(OperatorBug::TiesAreOne)));
        assert_eq!(Bug::named("nothing"), None);
        assert!(Bug::all().all(|bug| !bug.scenarios().is_empty()));
    }

    #[test]
    fn a_bug_is_planted_for_a_while() {
        let bug = OperatorBug::ForgetRanks;
        assert_eq!(with_bug(Some(Bug::Operator(bug)), planted_in_operators), Some(bug));
        assert_eq!(planted_in_operators(), None);
    }
}
