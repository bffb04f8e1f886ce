//! What people and tests may see of a job while it runs.

use std::sync::{Arc, Mutex};

use ruslo_core::graph::{Graph, NodeIndex, NodeKind, OperatorId};
use ruslo_core::memory::MemoryPool;
use ruslo_core::metrics::{OperatorMetrics, RowCounts};
use ruslo_core::time::Timestamp;

use crate::coordinator::CheckpointReport;
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

    /// Whether some subtask waits for a full receiver.
    pub fn is_backpressured(&self) -> bool {
        self.tasks.iter().any(|task| task.is_backpressured())
    }
}

/// A running job.
#[derive(Debug)]
pub struct JobStatus {
    /// Its operators, in the order of the graph.
    pub operators: Vec<OperatorStatus>,
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
