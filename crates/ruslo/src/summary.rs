//! What a job came to: its rows, its checkpoint, its time and memory.

use std::path::{Path, PathBuf};

use ruslo_core::epoch::Epoch;
use ruslo_core::error::Error;
use ruslo_core::graph::{Graph, Node};
use ruslo_core::metrics::RowCounts;
use ruslo_runtime::status::{JobStatus, Role};
use ruslo_state::manifest::Manifest;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs.
    Running,
    /// It met an error, and waits to go on from its last checkpoint.
    Restarting,
    /// The input is read to its end and all output is committed.
    Finished,
    /// It was stopped at a checkpoint, from which it can resume.
    Stopped,
    /// It met an error.
    Failed,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        })
    }
}

/// What one operator counted, over all its subtasks and all restarts of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorSummary {
    /// What a person calls it.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// Rows it took in.
    pub rows_in: u64,
    /// Rows it gave out.
    pub rows_out: u64,
    /// Rows that came late for it.
    pub late_rows: u64,
    /// Records that it left out, a source, because they could not become rows.
    pub skipped_rows: u64,
    /// Records that it gave out as dead letters, a source.
    pub dead_letter_rows: u64,
    /// Rows whose event time was too far ahead of the clock to move its watermark, a source.
    pub ahead_rows: u64,
    /// Rows that it did not show again, a sink, whether they were shown before or not.
    pub in_doubt_rows: u64,
}

/// What a job came to. Rows are counted over all restarts of the run, seconds since this start.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// What the job is called.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// Records that its sources read, bad ones too.
    pub rows_in: u64,
    /// Rows that its sinks took, without those of side tables.
    pub rows_out: u64,
    /// Rows that came late, each counted by every window that it was late for.
    pub late_rows: u64,
    /// Records left out because they could not become rows.
    pub skipped_rows: u64,
    /// Records that went to a table of dead letters.
    pub dead_letter_rows: u64,
    /// Rows whose event time was too far ahead of the clock to move the watermark.
    pub ahead_rows: u64,
    /// Rows that were about to be shown when a process died, and are not shown again: at-most-once.
    pub in_doubt_rows: u64,
    /// Seconds since it was started.
    pub seconds: f64,
    /// Its last checkpoint; none, if it has completed none.
    pub checkpoint: Option<Epoch>,
    /// Where its checkpoints are; the default folder is gone once the job has finished.
    pub checkpoint_dir: PathBuf,
    /// The most bytes that its rows and state ever held, of what `pipeline.memory-limit` limits.
    pub peak_memory_bytes: u64,
    /// How often it failed since this start, and went on from its last checkpoint.
    pub restarts: u64,
    /// Why it last did.
    pub last_failure: Option<Error>,
    /// The bytes that sorts and aggregates of a batch job wrote to temporary files, because memory was too small.
    pub spilled_bytes: u64,
    /// Every operator, in the order of the plan.
    pub operators: Vec<OperatorSummary>,
}

impl OperatorSummary {
    fn new(name: &str, role: Role, counts: RowCounts) -> Self {
        Self {
            name: name.to_owned(),
            role,
            rows_in: counts.rows_in,
            rows_out: counts.rows_out,
            late_rows: counts.late_rows,
            skipped_rows: counts.skipped_rows,
            dead_letter_rows: counts.dead_letter_rows,
            ahead_rows: counts.ahead_rows,
            in_doubt_rows: counts.in_doubt_rows,
        }
    }
}

impl Summary {
    /// Of a run that is over: what its last checkpoint says.
    pub(crate) fn of_manifest(name: &str, folder: &Path, graph: &Graph, manifest: &Manifest) -> Self {
        let counts = |node: &Node| {
            let subtasks = manifest.operators.get(&node.id).into_iter().flat_map(|entry| &entry.subtasks);
            subtasks.fold(RowCounts::default(), |sum, subtask| sum + subtask.counts)
        };
        Self { checkpoint: Some(manifest.epoch), ..Self::of_nodes(name, folder, State::Finished, graph, counts) }
    }

    /// Of a run whose operators have counted `counts`.
    pub(crate) fn of_nodes(
        name: &str,
        folder: &Path,
        state: State,
        graph: &Graph,
        counts: impl Fn(&Node) -> RowCounts,
    ) -> Self {
        let operators = graph
            .nodes
            .iter()
            .enumerate()
            .map(|(index, node)| OperatorSummary::new(&node.name, Role::of(graph, index), counts(node)));
        Self::blank(name, folder, state, operators.collect())
    }

    /// Of a run as it is now.
    pub(crate) fn of_status(name: &str, folder: &Path, state: State, status: &JobStatus) -> Self {
        let operators = status
            .operators
            .iter()
            .map(|operator| OperatorSummary::new(&operator.name, operator.role, operator.counts()));
        Self {
            checkpoint: status.last_checkpoint().map(|report| report.epoch),
            peak_memory_bytes: status.memory.peak_bytes(),
            ..Self::blank(name, folder, state, operators.collect())
        }
    }

    fn blank(name: &str, folder: &Path, state: State, operators: Vec<OperatorSummary>) -> Self {
        let of_role = |role| operators.iter().filter(move |operator| operator.role == role);
        Self {
            name: name.to_owned(),
            state,
            rows_in: of_role(Role::Source).map(|operator| operator.rows_in).sum(),
            rows_out: of_role(Role::Sink).map(|operator| operator.rows_out).sum(),
            late_rows: operators.iter().map(|operator| operator.late_rows).sum(),
            skipped_rows: operators.iter().map(|operator| operator.skipped_rows).sum(),
            dead_letter_rows: operators.iter().map(|operator| operator.dead_letter_rows).sum(),
            ahead_rows: operators.iter().map(|operator| operator.ahead_rows).sum(),
            in_doubt_rows: operators.iter().map(|operator| operator.in_doubt_rows).sum(),
            seconds: 0.0,
            checkpoint: None,
            checkpoint_dir: folder.to_owned(),
            peak_memory_bytes: 0,
            restarts: 0,
            last_failure: None,
            spilled_bytes: 0,
            operators,
        }
    }
}
