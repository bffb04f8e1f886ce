//! Rows that a barrier has overtaken: into the checkpoint, and out of it again before anything else; see
//! `docs/design/unaligned.md`.

use std::collections::BTreeMap;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::{Edge, Graph, NodeIndex, OperatorId, Partitioning};
use ruslo_core::key_group;
use ruslo_core::operator::{Port, Subtask};
use ruslo_core::schema::visible;
use ruslo_state::manifest::{InFlightRows, Manifest};
use ruslo_state::store::{CheckpointStore, RestoredRuns};

use crate::input::ChannelOrigin;
use crate::planted::{Bug, planted};

/// What a barrier has overtaken on one channel.
#[derive(Debug, Clone, PartialEq)]
pub struct InFlight {
    /// Which channel.
    pub origin: ChannelOrigin,
    /// The batches, in order.
    pub batches: Vec<RecordBatch>,
}

/// Rows that are to be read once more before anything else of their edge.
#[derive(Debug, Clone, PartialEq)]
pub struct Again {
    /// Which edge of the graph.
    pub edge: usize,
    /// The subtask that had sent them; there may be fewer now.
    pub sender: usize,
    /// The subtask that they are for now.
    pub receiver: usize,
    /// The rows.
    pub batch: RecordBatch,
}

/// The edges of a graph, and the stable names of their senders.
#[derive(Debug, Clone, Default)]
pub struct EdgeNames(Vec<(Edge, OperatorId)>);

impl EdgeNames {
    /// Those of `graph`.
    pub fn of(graph: &Graph) -> Self {
        let name = |edge: &Edge| Some((edge.clone(), graph.nodes.get(edge.from)?.id));
        Self(graph.edges.iter().filter_map(name).collect())
    }

    /// Stores what was overtaken before `subtask` of `operator`.
    ///
    /// # Errors
    /// Those of the store.
    pub fn write(
        &self,
        store: &CheckpointStore,
        epoch: Epoch,
        operator: OperatorId,
        subtask: Subtask,
        in_flight: &[InFlight],
    ) -> Result<Vec<InFlightRows>> {
        let batches: Vec<_> = in_flight.iter().flat_map(|channel| channel.batches.iter().cloned()).collect();
        let mut runs = store.write_in_flight(epoch, operator, subtask, &batches)?.into_iter();
        let entry = |channel: &InFlight| {
            let ChannelOrigin { input, edge, sender } = channel.origin;
            let (edge, from) = self.0.get(edge).ok_or_else(|| Error::internal("a channel is of no edge"))?;
            let batches = runs.by_ref().take(channel.batches.len()).collect();
            Ok(InFlightRows { from: *from, port: edge.port.0, input, sender, receiver: subtask.index, batches })
        };
        in_flight.iter().map(entry).collect()
    }

    fn find(&self, to: NodeIndex, rows: &InFlightRows) -> Option<(usize, &Edge)> {
        let fits = |(edge, from): &(Edge, OperatorId)| {
            edge.to == to && *from == rows.from && edge.port.0 == rows.port && edge.input == rows.input
        };
        self.0.iter().position(fits).and_then(|place| Some((place, &self.0.get(place)?.0)))
    }
}

/// All rows that `manifest` has in flight, for the subtasks of `graph` that they belong to now; by receiving operator, in
/// order.
///
/// # Errors
/// `Usage`, if `graph` has not the edge that they were on, or runs at another parallelism although `is_fixed`.
pub fn again(
    graph: &Graph,
    manifest: &Manifest,
    runs: &RestoredRuns,
    is_fixed: bool,
) -> Result<BTreeMap<NodeIndex, Vec<Again>>> {
    let names = EdgeNames::of(graph);
    let mut all = BTreeMap::new();
    if planted(Bug::ForgetInFlight) {
        return Ok(all);
    }
    if is_fixed && manifest.operators.values().any(|entry| !entry.in_flight.is_empty()) {
        check_parallelism(graph, manifest)?;
    }
    for (id, entry) in manifest.operators.iter().filter(|(_, entry)| !entry.in_flight.is_empty()) {
        let node = graph.nodes.iter().position(|node| node.id == *id);
        let mut of_node = Vec::new();
        for rows in &entry.in_flight {
            let found = node.and_then(|node| Some((node, names.find(node, rows)?)));
            let Some((node, (place, edge))) = found else { return Err(has_no_edge(&entry.name)) };
            let parallelism = graph.nodes.get(node).map_or(1, |node| node.parallelism);
            for reference in &rows.batches {
                let batch =
                    runs.get(reference).ok_or_else(|| Error::internal("rows in flight were not read on restore"))?;
                if !fits(graph, edge, batch) {
                    return Err(has_no_edge(&entry.name));
                }
                for (receiver, batch) in route(edge, parallelism, rows.receiver, batch)? {
                    of_node.push(Again { edge: place, sender: rows.sender, receiver, batch });
                }
            }
        }
        all.extend(node.map(|node| (node, of_node)));
    }
    if planted(Bug::InFlightTwice) {
        all.values_mut().for_each(|rows: &mut Vec<Again>| rows.extend(rows.clone()));
    }
    Ok(all)
}

/// Whether rows have the columns that flow on `edge`; what is given aside has its own.
fn fits(graph: &Graph, edge: &Edge, batch: &RecordBatch) -> bool {
    let Some(sender) = graph.nodes.get(edge.from).filter(|_| edge.port == Port::MAIN) else { return true };
    let shown = visible(batch);
    let (rows, edge) = (shown.schema_ref().fields(), sender.schema.fields());
    rows.len() == edge.len() && rows.iter().zip(edge).all(|(row, edge)| row.data_type() == edge.data_type())
}

fn has_no_edge(name: &str) -> Error {
    Error::usage(format!(
        "the checkpoint has rows on their way to '{name}', and this query has not the way that they were on; \
         or they have other columns; resume the old query, let it make another checkpoint or stop it, and go on from that"
    ))
}

fn check_parallelism(graph: &Graph, manifest: &Manifest) -> Result<()> {
    for node in &graph.nodes {
        let before = manifest.operators.get(&node.id).map_or(node.parallelism, |entry| entry.subtasks.len());
        if before != node.parallelism {
            let (name, now) = (&node.name, node.parallelism);
            return Err(Error::usage(format!(
                "the checkpoint has rows that were on their way between operators, and sources may fall idle \
                 (table.exec.source.idle-timeout): it can only be resumed at the parallelism that it was made at; \
                 '{name}' had {before} subtasks and has {now} now; resume at {before}, and change it after the next \
                 checkpoint"
            )));
        }
    }
    Ok(())
}

/// The subtasks that rows belong to which were on their way to subtask `before`.
fn route(edge: &Edge, parallelism: usize, before: usize, batch: &RecordBatch) -> Result<Vec<(usize, RecordBatch)>> {
    let Partitioning::KeyGroup(columns) = &edge.partitioning else {
        return Ok(vec![(before % parallelism.max(1), batch.clone())]);
    };
    if planted(Bug::InFlightByTask) {
        return Ok(vec![(before % parallelism.max(1), batch.clone())]);
    }
    let keys = columns.iter().filter_map(|column| batch.columns().get(*column).cloned());
    let groups = key_group::key_groups(&keys.collect::<Vec<_>>(), batch.num_rows())?;
    let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); parallelism];
    for (row, group) in groups.iter().enumerate() {
        if let Some(rows) = rows_of.get_mut(key_group::owner_of(*group, parallelism)) {
            rows.push(row as u32);
        }
    }
    let parts = rows_of.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
    parts.map(|(receiver, rows)| Ok((receiver, take_record_batch(batch, &UInt32Array::from(rows))?))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use ruslo_core::disk::LocalDisk;
    use ruslo_core::error::ErrorKind;
    use ruslo_core::graph::{Node, NodeKind};
    use ruslo_core::operator::{Operator, OperatorContext, Output, Progress, SharedFactory};
    use ruslo_core::time::Timestamp;
    use ruslo_state::manifest::OperatorEntry;

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RecordBatch::try_from_iter([("v", column)]).unwrap()
    }

    fn edge(partitioning: Partitioning) -> Edge {
        Edge { from: 0, port: Port::MAIN, to: 1, input: 0, partitioning }
    }

    #[test]
    fn rows_by_key_go_to_the_owner_of_their_group_in_order() {
        let routed = route(&edge(Partitioning::KeyGroup(vec![0])), 3, 1, &batch(0..1000)).unwrap();
        let mut all = Vec::new();
        for (receiver, part) in routed {
            let values = part.column(0).as_primitive::<Int64Type>().values().to_vec();
            let groups = key_group::key_groups(&[Arc::clone(part.column(0))], values.len()).unwrap();
            assert!(groups.iter().all(|group| key_group::owner_of(*group, 3) == receiver));
            assert!(values.is_sorted());
            all.extend(values);
        }
        all.sort_unstable();
        assert_eq!(all, (0..1000).collect::<Vec<_>>());
    }

    fn node(id: u64, fields: Vec<Field>) -> Node {
        let factory: SharedFactory = Arc::new(|| Err::<Nothing, _>(Error::internal("only the plan is looked at")));
        let (schema, kind) = (Arc::new(Schema::new(fields)), NodeKind::Operator(factory));
        Node { id: OperatorId(id), name: format!("Node {id}"), parallelism: 1, schema, kind }
    }

    struct Nothing;

    impl Operator for Nothing {
        fn on_batch(
            &mut self,
            _: usize,
            _: RecordBatch,
            _: &mut OperatorContext<'_>,
            _: &mut Output,
        ) -> Result<Progress> {
            Ok(Progress::Done)
        }
    }

    /// Two operators, of which the first gives out `fields`.
    fn graph(sender: u64, fields: Vec<Field>) -> Graph {
        let mut graph = Graph::default();
        let (from, to) = (graph.add(node(sender, fields)), graph.add(node(2, Vec::new())));
        graph.connect(from, to, Partitioning::Rebalance);
        graph
    }

    #[test]
    fn rows_that_have_no_way_any_more_or_other_columns_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let store = CheckpointStore::open(Arc::new(LocalDisk), home.path(), "a").unwrap();
        let value = |name: &str, data_type| Field::new(name, data_type, false);
        let origin = ChannelOrigin { input: 0, edge: 0, sender: 0 };
        let overtaken = [InFlight { origin, batches: vec![batch(0..3)] }];
        let names = EdgeNames::of(&graph(1, vec![value("v", DataType::Int64)]));
        let subtask = Subtask { index: 0, parallelism: 1 };
        let in_flight = names.write(&store, Epoch(1), OperatorId(2), subtask, &overtaken).unwrap();
        let manifest = Manifest {
            epoch: Epoch(1),
            run: "r".to_owned(),
            fingerprint: "f".to_owned(),
            plan: None,
            repeats: None,
            attempt: None,
            savepoint: None,
            delivery: None,
            books: None,
            finished: false,
            written_at: Timestamp(0),
            operators: [(OperatorId(2), OperatorEntry { in_flight, ..OperatorEntry::default() })].into(),
        };
        store.publish(&manifest).unwrap();
        let restored = store.restore_newest().unwrap().unwrap();
        let of = |graph: Graph| again(&graph, &restored.manifest, &restored.runs, false);
        // What the columns are called is not what they are.
        for fits in ["v", "w"] {
            let found = of(graph(1, vec![value(fits, DataType::Int64)])).unwrap();
            assert_eq!(found[&1], [Again { edge: 0, sender: 0, receiver: 0, batch: batch(0..3) }]);
        }
        let long = value("v", DataType::Int64);
        let others = [
            graph(1, vec![value("v", DataType::Int32)]),
            graph(1, vec![long.clone(), long.clone()]),
            graph(1, Vec::new()),
            graph(3, vec![long]),
        ];
        for other in others {
            let error = of(other).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.to_string().contains("or they have other columns"), "{error}");
        }
    }

    #[test]
    fn other_rows_stay_together() {
        for partitioning in [Partitioning::Forward, Partitioning::Rebalance] {
            assert_eq!(route(&edge(partitioning.clone()), 2, 4, &batch(0..9)).unwrap(), [(0, batch(0..9))]);
            assert_eq!(route(&edge(partitioning), 4, 2, &batch(0..9)).unwrap(), [(2, batch(0..9))]);
        }
    }
}
