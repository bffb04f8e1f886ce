//! How a job starts: what its user says, and what its checkpoint folder holds.

use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, ErrorKind, Result};
use ruslo_core::sink::Guarantee;
use ruslo_runtime::job::Start;
use ruslo_state::manifest::Manifest;

use crate::begin::Beginning;
use crate::checkpoints::{Checkpoints, Newest, is_beginning};

/// What to do about checkpoints of an earlier run; the table stands in [the crate](crate#checkpoints-and-starting-again).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartMode {
    /// Start from the beginning, and refuse if an interrupted run could be resumed instead.
    #[default]
    New,
    /// Go on from the newest checkpoint that is whole; with none there, from the beginning.
    Resume,
    /// Start from the beginning, whatever is there.
    Fresh,
}

/// What came of it.
pub(crate) struct Decided {
    pub(crate) decision: Decision,
    pub(crate) resumed_from: Option<Epoch>,
    pub(crate) notices: Vec<String>,
}

pub(crate) enum Decision {
    /// Run from there.
    Run(Start),
    /// There is nothing left to do.
    Finished(Manifest),
}

/// Decides; `run` is the name of a run that begins, from the beginning or from a savepoint. Leaves no output of an earlier
/// run half committed.
pub(crate) fn decide(
    at: &Checkpoints,
    mode: StartMode,
    guarantee: Guarantee,
    run: String,
    beginning: Option<Beginning>,
) -> Result<Decided> {
    let fresh = || {
        let (start, notices) = match beginning {
            None => (Start::Fresh { run }, Vec::new()),
            Some(beginning) => (Start::Restore(beginning.begin(at.store(), run)?), beginning.notices),
        };
        Ok(Decided { decision: Decision::Run(start), resumed_from: None, notices })
    };
    match mode {
        StartMode::Resume => resume(at, guarantee)?.map_or_else(fresh, Ok),
        StartMode::Fresh => {
            if let Newest::Readable(manifest) = at.newest()? {
                at.abandon(&manifest)?;
            }
            fresh()
        }
        StartMode::New => begin(at).and_then(|()| fresh()),
    }
}

/// Makes way for a new run, if no earlier one is waiting to go on.
fn begin(at: &Checkpoints) -> Result<()> {
    let folder = at.store().folder().display();
    match at.newest()? {
        Newest::Nothing => at.store().check_half_deleted(),
        Newest::Readable(manifest) if manifest.finished => commit_finished(at, &manifest),
        Newest::Readable(manifest) if is_beginning(&manifest) => at.abandon(&manifest),
        Newest::Readable(manifest) if !at.is_ours(&manifest) => Err(Error::usage(format!(
            "checkpoint {} of an interrupted run of another query is in {folder}; say --fresh to start over, or give \
             this query another --checkpoint-dir",
            manifest.epoch
        ))),
        Newest::Readable(Manifest { epoch, .. }) | Newest::Damaged(epoch) => Err(Error::usage(format!(
            "checkpoint {epoch} of an interrupted run is in {folder}; say --resume to go on or --fresh to start over"
        ))),
    }
}

/// The process of a finished run may have ended between its last checkpoint and the commit of that.
fn commit_finished(at: &Checkpoints, manifest: &Manifest) -> Result<()> {
    if !at.is_ours(manifest) {
        return Ok(());
    }
    match at.commit(manifest) {
        // Output that is not where it was put was committed, and somebody has taken it away since.
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(()),
        other => other,
    }
}

/// Goes on from the newest checkpoint that is whole, if there is one.
fn resume(at: &Checkpoints, guarantee: Guarantee) -> Result<Option<Decided>> {
    let Some(restored) = at.store().restore_newest()? else { return Ok(None) };
    at.check_ours(&restored.manifest)?;
    let epoch = restored.manifest.epoch;
    // Who promises at-least-once may show rows again.
    if !restored.skipped.is_empty() && guarantee != Guarantee::AtLeastOnce {
        at.check_fallback(&restored.manifest)?;
    }
    let skipped = restored.skipped.iter();
    let mut notices: Vec<_> = skipped.map(|error| format!("{error}; going on from checkpoint {epoch}")).collect();
    if restored.manifest.finished {
        at.commit(&restored.manifest)?;
        let decision = Decision::Finished(restored.manifest);
        return Ok(Some(Decided { decision, resumed_from: Some(epoch), notices }));
    }
    if guarantee == Guarantee::AtLeastOnce && !is_beginning(&restored.manifest) {
        notices
            .push(format!("the sink is at-least-once: rows that it gave out after checkpoint {epoch} may come again"));
    }
    Ok(Some(Decided { decision: Decision::Run(Start::Restore(restored)), resumed_from: Some(epoch), notices }))
}
