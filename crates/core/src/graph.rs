//! The physical graph: what the planner hands to the runtime, whichever language the program was written in.
//!
//! Nodes are logical operators with a parallelism; edges say how rows get from one to the next. The runtime expands
//! each node into subtasks and joins nodes along forward edges into chains.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use crate::dead_letter::OnError;
use crate::error::{Error, Result};
use crate::operator::{InputId, Port, SharedFactory};
use crate::sink::Sink;
use crate::source::{RowTime, Source};

/// A stable name for an operator's state, written as 16 hexadecimal digits.
///
/// A hash over what the operator is (kind, keys, window) and the ids of its inputs, made on the logical plan before
/// optimisation and chaining; see `docs/design/operator-ids.md`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperatorId(pub u64);

impl fmt::Display for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for OperatorId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OperatorId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A node's place in [`Graph::nodes`].
pub type NodeIndex = usize;

/// One operator of the pipeline.
#[derive(Clone)]
pub struct Node {
    /// Names its state in checkpoints.
    pub id: OperatorId,
    /// What a person calls it: `TumbleWindow origin, 1 h`.
    pub name: String,
    /// How many subtasks.
    pub parallelism: usize,
    /// The columns that come out of its main port, without hidden ones.
    pub schema: SchemaRef,
    /// What it does.
    pub kind: NodeKind,
}

/// What a node does.
#[derive(Clone)]
pub enum NodeKind {
    /// Brings rows in.
    Source(SourceNode),
    /// Makes rows from rows.
    Operator(SharedFactory),
    /// Brings rows out.
    Sink(Arc<dyn Sink>),
}

/// A source and what is done to its rows before anything else.
#[derive(Clone)]
pub struct SourceNode {
    /// Lists and reads splits.
    pub source: Arc<dyn Source>,
    /// Computed columns and watermark, if the table has any.
    pub row_time: Option<Arc<dyn RowTime>>,
    /// Rows per second over all subtasks at most; none is as fast as can be.
    pub rows_per_second: Option<u64>,
    /// What becomes of records that cannot become rows. Dead letters leave by [`Port::DEAD_LETTER`].
    pub on_error: OnError,
}

/// How rows get from one node to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partitioning {
    /// Subtask i to subtask i; both nodes have the same parallelism.
    Forward,
    /// By the key group of these columns (indexes into the sender's schema); none: all rows to one subtask.
    KeyGroup(Vec<usize>),
    /// Batches in turn, where the parallelism differs and no key matters.
    Rebalance,
}

/// Where rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The sender.
    pub from: NodeIndex,
    /// Which of its outputs.
    pub port: Port,
    /// The receiver.
    pub to: NodeIndex,
    /// Which of its inputs.
    pub input: InputId,
    /// How.
    pub partitioning: Partitioning,
}

/// A pipeline, ready to run. Edges lead from lower to higher nodes: the order of `nodes` is topological.
#[derive(Clone, Default)]
pub struct Graph {
    /// The operators.
    pub nodes: Vec<Node>,
    /// What connects them.
    pub edges: Vec<Edge>,
}

impl Graph {
    /// Adds a node and says where it stands.
    pub fn add(&mut self, node: Node) -> NodeIndex {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Connects the main port of `from` to input 0 of `to`.
    pub fn connect(&mut self, from: NodeIndex, to: NodeIndex, partitioning: Partitioning) {
        self.edges.push(Edge { from, port: Port::MAIN, to, input: 0, partitioning });
    }

    /// The edges that lead to `node`.
    pub fn inputs(&self, node: NodeIndex) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.to == node)
    }

    /// The edges that leave `node`.
    pub fn outputs(&self, node: NodeIndex) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.from == node)
    }

    /// Whether `node` takes only what others give aside: dead letters, late rows.
    pub fn is_aside(&self, node: NodeIndex) -> bool {
        let mut inputs = self.inputs(node).peekable();
        inputs.peek().is_some() && inputs.all(|edge| edge.port != Port::MAIN)
    }

    /// Checks what the runtime relies on.
    ///
    /// # Errors
    /// `Internal`, naming the node: a planner made this graph.
    pub fn validate(&self) -> Result<()> {
        for edge in &self.edges {
            self.validate_edge(edge)?;
        }
        let mut ids: Vec<_> = self.nodes.iter().map(|node| node.id).collect();
        ids.sort();
        if ids.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(Error::internal("two operators of the plan have the same id"));
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let is_source = matches!(node.kind, NodeKind::Source(_));
            if is_source != (self.inputs(index).next().is_none()) {
                return Err(Error::internal(format!("'{}' has inputs where it can have none, or none", node.name)));
            }
            if node.parallelism == 0 || node.parallelism > usize::from(crate::key_group::KEY_GROUPS) {
                return Err(Error::internal(format!("'{}' has parallelism {}", node.name, node.parallelism)));
            }
        }
        Ok(())
    }

    fn validate_edge(&self, edge: &Edge) -> Result<()> {
        let (Some(from), Some(to)) = (self.nodes.get(edge.from), self.nodes.get(edge.to)) else {
            return Err(Error::internal("an edge of the plan leads to a node that is not there"));
        };
        if edge.from >= edge.to {
            return Err(Error::internal(format!("the edge '{}' → '{}' leads backwards", from.name, to.name)));
        }
        if edge.partitioning == Partitioning::Forward && from.parallelism != to.parallelism {
            return Err(Error::internal(format!(
                "the forward edge '{}' → '{}' changes parallelism",
                from.name, to.name
            )));
        }
        Ok(())
    }
}
