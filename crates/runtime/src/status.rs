//! What people and tests may see of a job while it runs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ruslo_core::clock::{Clock, Instant};
use ruslo_core::graph::{Graph, NodeIndex, NodeKind, OperatorId, Partitioning};
use ruslo_core::memory::MemoryPool;
use ruslo_core::metrics::{OperatorMetrics, RowCounts};
use ruslo_core::time::Timestamp;

use crate::channel::{Fill, Gate};
use crate::coordinator::CheckpointReport;
use crate::latency::{Latency, quantiles};
use crate::scheduler::lock;
use crate::task::TaskStatus;

/// What an operator is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Brings rows in.
    Source,
    /// Makes rows from rows.
    Operator,
    /// Brings rows out.
    Sink,
    /// Brings out what others give aside: dead letters, late rows.
    SideSink,
}

impl Role {
    /// What a node of `graph` is.
    pub fn of(graph: &Graph, index: NodeIndex) -> Self {
        match graph.nodes.get(index).map(|node| &node.kind) {
            Some(NodeKind::Source(_)) => Self::Source,
            Some(NodeKind::Sink(_)) if graph.is_aside(index) => Self::SideSink,
            Some(NodeKind::Sink(_)) => Self::Sink,
            Some(NodeKind::Operator(_)) | None => Self::Operator,
        }
    }
}

/// One operator of a running job.
#[derive(Debug)]
pub struct OperatorStatus {
    /// Its stable id.
    pub id: OperatorId,
    /// What a person calls it.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// What each subtask counts.
    pub metrics: Vec<Arc<OperatorMetrics>>,
    /// The task of each subtask.
    pub tasks: Vec<Arc<TaskStatus>>,
    /// How old the rows are that each subtask takes.
    pub latencies: Vec<Arc<Latency>>,
}

impl OperatorStatus {
    /// What all subtasks counted together.
    pub fn counts(&self) -> RowCounts {
        self.metrics.iter().fold(RowCounts::default(), |sum, metrics| sum + metrics.counts())
    }

    /// The least watermark of its subtasks.
    pub fn watermark(&self) -> Timestamp {
        self.tasks.iter().map(|task| task.watermark()).min().unwrap_or(Timestamp::MIN)
    }

    /// How long rows have been in the stream when it takes them, lately: of a half and of 99 in 100 batches not longer.
    pub fn latency(&self, now: Instant) -> Option<(Duration, Duration)> {
        quantiles(self.latencies.iter().map(Arc::as_ref), now)
    }

    /// Whether some subtask waits for a full receiver.
    pub fn is_backpressured(&self) -> bool {
        self.tasks.iter().any(|task| task.is_backpressured())
    }
}

/// One edge of a running job, between two of its operators.
pub struct EdgeStatus {
    /// The sender, by place in [`JobStatus::operators`].
    pub from: NodeIndex,
    /// The receiver.
    pub to: NodeIndex,
    /// How rows get from one to the other.
    pub partitioning: Partitioning,
    /// Each pair of subtasks that it connects; none, where both are one task.
    pub channels: Vec<ChannelStatus>,
}

/// What waits between two subtasks.
pub struct ChannelStatus {
    /// The sending subtask.
    pub from: usize,
    /// The receiving subtask.
    pub to: usize,
    /// Where it waits.
    pub(crate) gate: Arc<Gate>,
    /// Which of the gate's channels.
    pub(crate) channel: usize,
}

impl ChannelStatus {
    /// How full it is.
    pub fn fill(&self) -> Fill {
        self.gate.fill(self.channel)
    }
}

impl EdgeStatus {
    /// How full all its channels are together; the age is of the oldest.
    pub fn fill(&self) -> Fill {
        self.channels.iter().map(ChannelStatus::fill).fold(Fill::default(), |sum, fill| Fill {
            rows: sum.rows + fill.rows,
            bytes: sum.bytes + fill.bytes,
            age: sum.age.max(fill.age),
            rows_sent: sum.rows_sent + fill.rows_sent,
            bytes_sent: sum.bytes_sent + fill.bytes_sent,
        })
    }
}

impl std::fmt::Debug for EdgeStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeStatus").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

/// A running job.
#[derive(Debug)]
pub struct JobStatus {
    /// Its operators, in the order of the graph.
    pub operators: Vec<OperatorStatus>,
    /// Its edges, in the order of the graph.
    pub edges: Vec<EdgeStatus>,
    /// Time, as its tasks have it.
    pub clock: Arc<dyn Clock>,
    /// What it holds in memory.
    pub memory: Arc<MemoryPool>,
    /// Its last checkpoint.
    pub checkpoint: Arc<Mutex<Option<CheckpointReport>>>,
}

impl JobStatus {
    /// The last checkpoint that was completed.
    pub fn last_checkpoint(&self) -> Option<CheckpointReport> {
        *lock(&self.checkpoint)
    }

    /// What all operators of a role counted together.
    pub fn counts(&self, role: Role) -> RowCounts {
        let of_role = self.operators.iter().filter(|operator| operator.role == role);
        of_role.fold(RowCounts::default(), |sum, operator| sum + operator.counts())
    }

    /// Rows that came late.
    pub fn late_rows(&self) -> u64 {
        self.operators.iter().map(|operator| operator.counts().late_rows).sum()
    }
}
