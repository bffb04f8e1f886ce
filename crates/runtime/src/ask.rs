//! What somebody outside asks of a running job: a savepoint, an end, or both, and to be told of it.
//!
//! An ask is left in the [`crate::coordinator::Mailbox`]; the coordinator begins a checkpoint for it at once, and answers
//! when the savepoint is made, or when the job is over if it is to end. If the job fails before, the ask goes with it, and
//! who waits sees that nobody will answer.

use std::sync::mpsc::Sender;

use ruslo_core::element::BarrierKind;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_state::manifest::Manifest;
use ruslo_state::savepoint::{Saved, Target};
use ruslo_state::store::CheckpointStore;

use crate::coordinator::Outcome;

/// What becomes of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It goes on.
    GoOn,
    /// It stops; windows stay in state.
    Stop,
    /// It ends as if its input had: windows fire.
    Drain,
}

/// What is asked.
#[derive(Debug)]
pub struct Ask {
    /// Where a savepoint is to be made, if one is.
    pub target: Option<Target>,
    /// What becomes of the job.
    pub then: Then,
    /// Who is told.
    pub answer: Sender<Result<Answer>>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The checkpoint that was made for it, or the job's last.
    pub epoch: Epoch,
    /// The savepoint.
    pub saved: Option<Saved>,
    /// How the job ended, if it was to.
    pub ended: Option<Outcome>,
}

impl Ask {
    pub(crate) fn reply(&self, answer: Result<Answer>) {
        // Who asked may have gone; what was asked is done all the same.
        let _ = self.answer.send(answer);
    }

    pub(crate) fn save(&self, store: &CheckpointStore, manifest: &Manifest) -> Result<Saved> {
        let target = self.target.as_ref().ok_or_else(|| Error::internal("nobody asked for a savepoint"))?;
        target.save(store, manifest)
    }
}

/// The barrier that serves all of `asks`: a stop keeps more than a drain, so that nothing is fired that somebody wants to
/// go on with.
pub(crate) fn kind_of(asks: &[Ask], is_stop_wanted: bool) -> BarrierKind {
    let wants = |then| asks.iter().any(|ask| ask.then == then);
    let is_savepoint = asks.iter().any(|ask| ask.target.is_some());
    match (is_stop_wanted || wants(Then::Stop), wants(Then::Drain)) {
        (true, _) if is_savepoint => BarrierKind::StopAtSavepoint,
        (true, _) => BarrierKind::Stop,
        (false, true) => BarrierKind::Drain,
        (false, false) if is_savepoint => BarrierKind::Savepoint,
        (false, false) => BarrierKind::Checkpoint,
    }
}

/// Why there is no savepoint of a job that has finished.
pub(crate) fn nothing_left() -> Error {
    Error::usage(
        "the job has read its input to the end and is finished: nothing is left to go on with, so there is no savepoint",
    )
}
