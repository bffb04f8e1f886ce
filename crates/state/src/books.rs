//! The ledger: whether what operators and edges count in a checkpoint adds up.
//!
//! The sender and the receiver of an edge count its rows on their own. Both counts of a checkpoint were taken at the same
//! barrier, so they differ by what was between the two at that moment, and by nothing else: a row that was lost on the way,
//! or came twice, is found by counting. What an operator does with its rows is an equation, too.

use std::collections::BTreeMap;

use ruslo_core::epoch::Epoch;
use ruslo_core::equation::Equation;
use ruslo_core::graph::OperatorId;
use ruslo_core::metrics::RowCounts;
use ruslo_core::operator::Port;
use serde::{Deserialize, Serialize};

use crate::manifest::{InFlightRows, Manifest, OperatorEntry};

/// What must add up in a checkpoint; part of the manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    /// What each operator does with its rows.
    pub equations: BTreeMap<OperatorId, Equation>,
    /// How rows go from one to the next.
    pub edges: Vec<BookEdge>,
    /// Whether barriers were not aligned, now or before: rows may have come again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeats_rows: bool,
    /// Checkpoints from which it went on although there were newer ones, which were damaged: what these had shown may have
    /// been shown again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fell_back_to: Vec<Epoch>,
}

/// One edge of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookEdge {
    /// The sender.
    pub from: OperatorId,
    /// Which of its outputs, as [`Port`].
    pub port: u8,
    /// The receiver.
    pub to: OperatorId,
    /// Which of its inputs.
    pub input: usize,
}

/// An operator's line in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLine {
    /// Which.
    pub id: OperatorId,
    /// What a person calls it.
    pub name: String,
    /// What must hold.
    pub equation: Equation,
    /// What all its subtasks counted.
    pub counts: RowCounts,
}

impl NodeLine {
    /// Whether it adds up.
    pub fn holds(&self) -> bool {
        self.equation.sides(&self.counts).is_none_or(|(rows, accounted)| rows == accounted)
    }
}

/// An edge's line in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeLine {
    /// What a person calls its sender.
    pub from: String,
    /// Which of the sender's outputs.
    pub port: Port,
    /// What a person calls its receiver.
    pub to: String,
    /// Rows that the sender gave out.
    pub sent: u64,
    /// Rows that the receiver took in.
    pub received: u64,
    /// Rows between the two that are part of the checkpoint.
    pub in_flight: u64,
    /// Whether rows may have come again.
    pub repeats_rows: bool,
}

impl EdgeLine {
    /// Rows that came more than once; of an edge without alignment, also those that are ahead of the barrier.
    pub fn repeated(&self) -> u64 {
        (self.received + self.in_flight).saturating_sub(self.sent)
    }

    /// Whether it adds up.
    pub fn holds(&self) -> bool {
        let arrived = self.received + self.in_flight;
        if self.repeats_rows { arrived >= self.sent } else { arrived == self.sent }
    }
}

/// What a checkpoint says of every operator and edge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Every operator.
    pub nodes: Vec<NodeLine>,
    /// Every edge.
    pub edges: Vec<EdgeLine>,
    /// See [`Books::fell_back_to`].
    pub fell_back_to: Vec<Epoch>,
}

impl Ledger {
    /// The ledger of a checkpoint; none, if it has no books: a batch job's, or of a run that an older release began.
    pub fn of(manifest: &Manifest) -> Option<Self> {
        let books = manifest.books.as_ref()?;
        let nodes = manifest.operators.iter().map(|(id, entry)| NodeLine {
            id: *id,
            name: entry.name.clone(),
            equation: books.equations.get(id).copied().unwrap_or_default(),
            counts: counts(entry),
        });
        let edges = books.edges.iter().filter_map(|edge| {
            let (from, to) = (manifest.operators.get(&edge.from)?, manifest.operators.get(&edge.to)?);
            Some(EdgeLine {
                from: from.name.clone(),
                port: Port(edge.port),
                to: to.name.clone(),
                sent: sent(&counts(from), Port(edge.port)),
                received: received(to, edge.input),
                in_flight: in_flight(to, edge),
                repeats_rows: books.repeats_rows,
            })
        });
        let fell_back_to = books.fell_back_to.clone();
        Some(Self { nodes: nodes.collect(), edges: edges.collect(), fell_back_to })
    }

    /// Whether everything adds up.
    pub fn balances(&self) -> bool {
        self.nodes.iter().all(NodeLine::holds) && self.edges.iter().all(EdgeLine::holds)
    }

    /// What does not add up first, in words; none, if all does.
    pub fn imbalance(&self) -> Option<String> {
        let edge = self.edges.iter().find(|edge| !edge.holds()).map(|edge| {
            let EdgeLine { from, to, sent, received, in_flight, .. } = edge;
            format!("from '{from}' to '{to}' {sent} rows were sent, {received} received, {in_flight} are in flight")
        });
        let node = || {
            let node = self.nodes.iter().find(|node| !node.holds())?;
            let (rows, accounted) = node.equation.sides(&node.counts)?;
            Some(format!("'{}' took {rows} rows in and accounts for {accounted}: {}", node.name, node.equation.text()))
        };
        edge.or_else(node)
    }
}

fn counts(entry: &OperatorEntry) -> RowCounts {
    entry.subtasks.iter().fold(RowCounts::default(), |sum, subtask| sum + subtask.counts)
}

fn sent(counts: &RowCounts, port: Port) -> u64 {
    match port {
        Port::MAIN => counts.rows_out,
        Port::DEAD_LETTER => counts.dead_letter_rows,
        _ => counts.aside_rows,
    }
}

/// Rows taken from one input: of the first, what is left of all.
fn received(entry: &OperatorEntry, input: usize) -> u64 {
    let of = |other: usize| -> u64 {
        entry.subtasks.iter().filter_map(|subtask| subtask.other_inputs.get(other)).copied().sum()
    };
    match input.checked_sub(1) {
        Some(other) => of(other),
        None => {
            let others: u64 = entry.subtasks.iter().flat_map(|subtask| &subtask.other_inputs).sum();
            counts(entry).rows_in.saturating_sub(others)
        }
    }
}

/// Rows of `edge` that a barrier has overtaken.
fn in_flight(entry: &OperatorEntry, edge: &BookEdge) -> u64 {
    let is_of = |rows: &&InFlightRows| rows.from == edge.from && rows.port == edge.port && rows.input == edge.input;
    entry.in_flight.iter().filter(is_of).flat_map(|rows| &rows.batches).map(|batch| batch.rows).sum()
}

#[cfg(test)]
mod tests {
    use ruslo_core::time::Timestamp;

    use super::*;
    use crate::manifest::SubtaskEntry;

    fn entry(name: &str, subtasks: &[(RowCounts, &[u64])]) -> OperatorEntry {
        let subtask = |(counts, other_inputs): &(RowCounts, &[u64])| SubtaskEntry {
            watermark: Timestamp::MIN,
            counts: *counts,
            other_inputs: other_inputs.to_vec(),
            tables: BTreeMap::new(),
        };
        OperatorEntry {
            name: name.to_owned(),
            subtasks: subtasks.iter().map(subtask).collect(),
            ..OperatorEntry::default()
        }
    }

    fn rows(rows_in: u64, rows_out: u64) -> RowCounts {
        RowCounts { rows_in, rows_out, ..RowCounts::default() }
    }

    /// Two sources into a union of two subtasks.
    fn manifest(repeats_rows: bool, second: u64) -> Manifest {
        let ids = [1, 2, 3].map(OperatorId);
        let entries = [
            entry("a", &[(rows(5, 5), &[])]),
            entry("b", &[(rows(7, 7), &[])]),
            entry("union", &[(rows(4, 4), &[3]), (rows(4 + second, 4 + second), &[second])]),
        ];
        let edge = |from, input| BookEdge { from, port: 0, to: ids[2], input };
        let books = Books {
            equations: [(ids[0], Equation::Reads), (ids[2], Equation::Same)].into(),
            edges: vec![edge(ids[0], 0), edge(ids[1], 1)],
            repeats_rows,
            fell_back_to: Vec::new(),
        };
        Manifest {
            epoch: Epoch(1),
            run: "r".to_owned(),
            fingerprint: "f".to_owned(),
            plan: None,
            repeats: None,
            attempt: None,
            savepoint: None,
            delivery: None,
            books: Some(books),
            finished: false,
            written_at: Timestamp(0),
            operators: ids.into_iter().zip(entries).collect(),
        }
    }

    #[test]
    fn what_is_sent_on_an_edge_is_received_through_its_input() {
        let ledger = Ledger::of(&manifest(false, 4)).unwrap();
        let edges: Vec<_> = ledger.edges.iter().map(|edge| (edge.sent, edge.received)).collect();
        assert_eq!((edges, ledger.imbalance()), (vec![(5, 5), (7, 7)], None));
        assert_eq!(Ledger::of(&Manifest { books: None, ..manifest(false, 4) }), None);
    }

    #[test]
    fn a_row_too_many_or_too_few_is_named() {
        let lost = Ledger::of(&manifest(false, 3)).unwrap();
        let said = "from 'b' to 'union' 7 rows were sent, 6 received, 0 are in flight";
        assert_eq!(lost.imbalance().as_deref(), Some(said));
        let doubled = Ledger::of(&manifest(false, 5)).unwrap();
        assert!(!doubled.balances() && doubled.edges[1].repeated() == 1);
        assert!(Ledger::of(&manifest(true, 5)).unwrap().balances(), "without alignment rows come again");
        assert!(!Ledger::of(&manifest(true, 3)).unwrap().balances(), "but none is lost");
    }

    #[test]
    fn an_operator_accounts_for_its_rows() {
        let mut manifest = manifest(false, 4);
        manifest.operators.insert(OperatorId(1), entry("a", &[(rows(6, 5), &[])]));
        let said = "'a' took 6 rows in and accounts for 5: in = out + skipped + dead letters";
        assert_eq!(Ledger::of(&manifest).unwrap().imbalance().as_deref(), Some(said));
    }
}
