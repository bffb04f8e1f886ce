//! How rows go out, in two phases: writers write and prepare, a committer commits once the checkpoint is durable.

use serde::{Deserialize, Serialize};

use arrow::record_batch::RecordBatch;

use crate::environment::Environment;
use crate::epoch::Epoch;
use crate::error::Result;
use crate::operator::{Progress, Subtask};

/// What a committer needs to make one piece of output visible; the connector's own notation, stored in checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Committable(pub serde_json::Value);

/// What a pipeline promises under failures, and the most that a source or a sink lets it.
///
/// Stored in checkpoints by these names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// What was read since the last checkpoint is lost with the process; no row comes twice. So it is where input cannot
    /// be read again, whatever the sink promises.
    AtMostOnce,
    /// No row is lost; after a failure some may come twice.
    AtLeastOnce,
    /// No row is lost and none comes twice.
    ExactlyOnce,
}

impl std::fmt::Display for Guarantee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AtMostOnce => "at-most-once",
            Self::AtLeastOnce => "at-least-once",
            Self::ExactlyOnce => "exactly-once",
        })
    }
}

/// Which changes of a table's rows a sink takes ([`crate::changelog`]); the planner refuses a query that makes others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Takes {
    /// Rows that are only added.
    #[default]
    Append,
    /// Every change; it can do without `-U`.
    Any,
    /// Every change, and with each `+U` the `-U` of what was there before.
    Retract,
    /// The last state of the table, once the input has ended: the planner sees to it, so that writers get rows that are
    /// only added.
    Last {
        /// The columns, by place, of whose values there is one row each; none: every row is kept.
        key: Vec<usize>,
    },
}

impl std::fmt::Display for Takes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Append => "rows that are only added",
            Self::Any => "every change; what was before is not needed",
            Self::Retract => "every change, with what was before",
            Self::Last { .. } => "the last state, once the input has ended",
        })
    }
}

/// What a sink is made for.
#[derive(Debug, Clone)]
pub struct SinkContext {
    /// The world outside.
    pub environment: Environment,
    /// Tells this start of the pipeline (kept over restores) from every other, so that names of output never clash.
    pub run: String,
}

/// Writes one subtask's rows.
pub trait SinkWriter: Send {
    /// Writes a batch: the table's columns and, of a changing table, the kinds of its rows ([`crate::changelog`]).
    fn write(&mut self, batch: &RecordBatch) -> Result<Progress>;

    /// Makes everything written so far durable but invisible, and says what has to be committed.
    fn prepare_commit(&mut self, epoch: Epoch) -> Result<Vec<Committable>>;
}

/// Makes output visible. Runs off the task threads; every call may be repeated.
pub trait Committer: Send {
    /// Makes the output visible; what is visible already stays so.
    fn commit(&mut self, committables: &[Committable]) -> Result<()>;

    /// Takes back what this run wrote in epochs after `epoch`: called on restore, after the commit of `epoch` itself and
    /// before any writer opens. That is output which was never committed, and, where the checkpoint that had committed
    /// it was damaged since, visible output too.
    fn abort_since(&mut self, epoch: Epoch) -> Result<()>;
}

/// A table that can be written.
pub trait Sink: Send + Sync {
    /// What it promises.
    fn guarantee(&self) -> Guarantee;

    /// Which changes it takes; its writers get rows with kinds only where it takes more than [`Takes::Append`].
    fn changelog(&self) -> Takes {
        Takes::Append
    }

    /// How its table is declared so that it takes more changes, one clause; none, if it cannot be.
    fn changelog_help(&self) -> Option<&'static str> {
        None
    }

    /// Whether [`Committer::abort_since`] makes visible output of later epochs go, or there is none. If not, falling back
    /// behind a checkpoint that was committed gives rows again.
    fn takes_back(&self) -> bool {
        false
    }

    /// Whether rows are seen by the commit alone: then whoever was given rows prepares something at the barrier.
    fn is_two_phase(&self) -> bool {
        false
    }

    /// A writer for one subtask.
    fn writer(&self, subtask: Subtask, context: &SinkContext) -> Result<Box<dyn SinkWriter>>;

    /// The committer, of which a pipeline has one a sink.
    fn committer(&self, context: &SinkContext) -> Result<Box<dyn Committer>>;
}
