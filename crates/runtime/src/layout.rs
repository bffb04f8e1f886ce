//! How a graph is laid out as tasks: nodes that follow each other without an exchange become one chain.

use ruslo_core::graph::{Edge, Graph, NodeIndex, NodeKind, Partitioning};
use ruslo_core::operator::Port;

use crate::scheduler::TaskIndex;

/// Nodes that run behind each other in one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainLayout {
    /// The nodes, in order.
    pub nodes: Vec<NodeIndex>,
    /// How many subtasks.
    pub parallelism: usize,
    /// The number of the first subtask's task; the others follow.
    pub first_task: TaskIndex,
}

/// A graph as chains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The chains, in the order of their first nodes.
    pub chains: Vec<ChainLayout>,
}

impl Layout {
    /// Lays out a valid graph.
    pub fn of(graph: &Graph) -> Self {
        let mut chains: Vec<ChainLayout> = Vec::new();
        for (index, node) in graph.nodes.iter().enumerate() {
            let before = chained_input(graph, index).map(|edge| edge.from);
            match chains.iter_mut().find(|chain| before.is_some() && chain.nodes.last().copied() == before) {
                Some(chain) => chain.nodes.push(index),
                None => {
                    chains.push(ChainLayout { nodes: vec![index], parallelism: node.parallelism, first_task: 0 });
                }
            }
        }
        let mut next = 0;
        for chain in &mut chains {
            chain.first_task = next;
            next += chain.parallelism;
        }
        Self { chains }
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.chains.iter().map(|chain| chain.parallelism).sum()
    }

    /// The chain that a node is in.
    pub fn chain_of(&self, node: NodeIndex) -> Option<&ChainLayout> {
        self.chains.iter().find(|chain| chain.nodes.contains(&node))
    }
}

/// The edge by which a node is chained to the one before: forward, its only input, and its sender's only main output.
/// What a member of a chain gives aside leaves the chain at once.
fn chained_input(graph: &Graph, node: NodeIndex) -> Option<&Edge> {
    let mut inputs = graph.inputs(node);
    let edge = inputs.next().filter(|edge| edge.partitioning == Partitioning::Forward && edge.port == Port::MAIN)?;
    let main = |edge: &&Edge| edge.port == Port::MAIN;
    let alone = inputs.next().is_none() && graph.outputs(edge.from).filter(main).count() == 1;
    let is_source = graph.nodes.get(node).is_some_and(|node| matches!(node.kind, NodeKind::Source(_)));
    (alone && !is_source).then_some(edge)
}
