//! The graph of a run, apart from parallelism: what is connected to what, and how a [`Graph`] is made of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::Operator as Arithmetic;
use datafusion::physical_expr::expressions::{binary, col, lit};
use datafusion::scalar::ScalarValue;
use ruslo_core::dead_letter::OnError;
use ruslo_core::graph::{Edge, Graph, Node, NodeKind, OperatorId, Partitioning, SourceNode};
use ruslo_core::operator::{Port, SharedFactory};
use ruslo_core::rng::Rng;
use ruslo_core::sink::Sink;
use ruslo_core::source::{RowTime, Source};
use ruslo_operators::{RowTimeAssigner, WatermarkSpec};

use crate::changelog::{Always, Changelog};
use crate::changes::Told;
use crate::changing::Changing;
use crate::dataset::{column, schema};
use crate::joined::{self, Timed};
use crate::nodes::{self, Windows};
use crate::operators::pass;
use crate::sabotage::{goes_in_turn, sabotaged};
use crate::tally::{Table, tally};
use crate::temporal::Temporal;

/// The way of a row that has come by `way` and passes the node numbered `mark`.
pub fn via(way: i64, mark: i64) -> i64 {
    way.wrapping_mul(31).wrapping_add(mark)
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Brings the rows of this dataset.
    Source(usize),
    /// Passes rows of all its inputs on, so many a call; all, if 0.
    Pass(usize),
    /// Count, sum, min and max by key and window.
    Window(Windows),
    /// Partial groups for the [`Kind::Window`] behind it.
    Local(Windows),
    /// Gives the rows aside that come too late for these windows, which stand behind it.
    Late(Windows),
    /// Gives each row its windows.
    Assign(Windows),
    /// So many rows of the highest values by key and window; its input is an [`Kind::Assign`].
    TopN(usize),
    /// All rows by time, in one subtask.
    Sort,
    /// The first row of each key by event time.
    First,
    /// The row of each key that comes first.
    FirstToCome,
    /// The rows of each key, numbered up to that and then from 1 again; and how many bytes a row of the table has besides.
    Tally(Table, i64, usize),
    /// Rows of two sides whose times are near each other, or in one window.
    Timed(Timed),
    /// Rows beside the version that was valid at their time.
    Temporal(Temporal),
    /// The columns of one side of such a join, left 0 or right 1.
    Side(usize),
    /// Over a table that changes.
    Changing(Changing),
    /// Brings rows out; the number of the sink.
    Sink(usize),
}

/// Which subtask gets a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// That of the same number, or any in turn where the parallelism differs.
    Task,
    /// That of the key.
    Key,
    /// That of the value of this column.
    Column(usize),
    /// That of all its columns.
    All,
    /// One gets all of them.
    Nothing,
}

/// Where a node's rows come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The node.
    pub from: usize,
    /// To which subtask.
    pub by: By,
    /// Which of the node's outputs.
    pub port: Port,
}

/// What sources do about records that cannot become rows; see [`crate::dataset::Row::is_bad`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRecords {
    /// There are none.
    None,
    /// Count them.
    Skip,
    /// Count them, and give them aside.
    Letters,
}

/// A node of a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeShape {
    /// What it does.
    pub kind: Kind,
    /// One link an input.
    pub inputs: Vec<Link>,
}

/// Event time, if there is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTime {
    /// `WATERMARK FOR ts AS ts - delay`.
    pub delay_ms: i64,
    /// The length that windows are made of: see [`Windows`].
    pub window_ms: i64,
}

/// A graph without parallelism.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// In topological order.
    pub nodes: Vec<NodeShape>,
    /// What sources do about event time.
    pub event_time: Option<EventTime>,
    /// What sources do about bad records.
    pub bad_records: BadRecords,
    /// Sources fall idle: which rows are late is chance then.
    pub falls_idle: bool,
    /// What the rows of each dataset are.
    pub told: [Told; 2],
    /// What is true of a sink's table after every checkpoint.
    pub always: BTreeMap<usize, Always>,
}

/// The two ends of a graph, made anew for each process.
pub struct Ends {
    /// The source of each dataset.
    pub sources: Vec<Arc<dyn Source>>,
    /// The sinks, by number.
    pub sinks: Vec<Arc<dyn Sink>>,
    /// Throttles sources.
    pub rows_per_second: Option<u64>,
}

impl Shape {
    /// An empty shape.
    pub fn new(event_time: Option<EventTime>) -> Self {
        Self {
            nodes: Vec::new(),
            event_time,
            bad_records: BadRecords::None,
            falls_idle: false,
            told: [Told::Rows; 2],
            always: BTreeMap::new(),
        }
    }

    /// Adds a node behind others; its place.
    pub fn add(&mut self, kind: Kind, inputs: &[Link]) -> usize {
        self.nodes.push(NodeShape { kind, inputs: inputs.to_vec() });
        self.nodes.len() - 1
    }

    /// How many sinks there are.
    pub fn sinks(&self) -> usize {
        self.nodes.iter().filter(|node| matches!(node.kind, Kind::Sink(_))).count()
    }

    /// The columns of a sink.
    pub fn sink_schema(&self, number: usize) -> SchemaRef {
        self.schema_of(self.behind(number))
    }

    /// The node that a sink shows.
    pub fn behind(&self, number: usize) -> usize {
        self.nodes.iter().find(|node| node.kind == Kind::Sink(number)).unwrap().inputs[0].from
    }

    /// What comes to a sink that takes changes; none, if it takes rows only.
    pub fn changelog(&self, number: usize) -> Option<Changelog> {
        let Kind::Changing(changing) = self.nodes[self.behind(number)].kind else { return None };
        let changelog = changing.changelog(self.sink_schema(number).fields().len())?;
        Some(Changelog { always: self.always.get(&number).copied(), ..changelog })
    }

    /// The columns of a node's rows.
    pub fn schema_of(&self, node: usize) -> SchemaRef {
        self.operator_at(node).map_or_else(schema, |(schema, _)| schema)
    }

    /// The product's operator that a node is, if it is one.
    fn operator_at(&self, node: usize) -> Option<(SchemaRef, SharedFactory)> {
        let node = &self.nodes[node];
        let inputs = || node.inputs.iter().map(|link| self.schema_of(link.from)).collect::<Vec<_>>();
        match node.kind {
            Kind::Timed(timed) => Some(timed.operator(&inputs())),
            Kind::Temporal(temporal) => Some(temporal.operator(&inputs())),
            Kind::Side(side) => Some(joined::side(&inputs()[0], side)),
            Kind::Changing(changing) => Some(changing.operator(&inputs())),
            kind => self.operator(kind),
        }
    }

    /// The same of kinds whose columns do not follow from their inputs'.
    fn operator(&self, kind: Kind) -> Option<(SchemaRef, SharedFactory)> {
        let length = || self.event_time.unwrap().window_ms;
        Some(match kind {
            Kind::Window(windows) => nodes::aggregated(windows, length()),
            Kind::Local(windows) => {
                let [local, _] = nodes::in_two_phases(windows, length());
                local
            }
            Kind::Assign(windows) => nodes::assigned(windows, length()),
            Kind::TopN(limit) => nodes::top_n(limit),
            Kind::Sort => nodes::sorted(),
            Kind::First => nodes::firsts(false),
            Kind::FirstToCome => nodes::firsts(true),
            Kind::Tally(table, limit, padding) => (schema(), tally(table, limit, padding)),
            Kind::Late(windows) => nodes::late(windows, length()),
            Kind::Source(_) | Kind::Pass(_) | Kind::Sink(_) => return None,
            Kind::Timed(_) | Kind::Temporal(_) | Kind::Side(_) | Kind::Changing(_) => return None,
        })
    }

    /// Whether partial groups come to a node.
    fn merges(&self, node: &NodeShape) -> bool {
        node.inputs.iter().any(|link| matches!(self.nodes[link.from].kind, Kind::Local(_)))
    }

    /// A memory limit, in bytes, under which its keyed tables cannot keep many keys, and everything else just has room.
    pub fn tight_memory_bytes(&self) -> u64 {
        let of_kind = |node: &NodeShape| match node.kind {
            Kind::Tally(_, _, 0) => 56 << 10,
            Kind::Tally(..) => 768 << 10,
            Kind::First | Kind::FirstToCome => 28 << 10,
            Kind::Temporal(_) => 16 << 10,
            Kind::Changing(changing) => changing.tight_memory_bytes(),
            _ => 0,
        };
        self.nodes.iter().map(of_kind).sum()
    }

    /// Whether a node has one subtask only: one sorts all rows, and one brings them out in order; one has those of no key.
    fn is_single(&self, node: &NodeShape) -> bool {
        let is_sorted = |link: &Link| self.nodes[link.from].kind == Kind::Sort;
        let is_of_nothing = |link: &Link| link.by == By::Nothing;
        node.kind == Kind::Sort
            || node.inputs.iter().any(is_of_nothing)
            || (matches!(node.kind, Kind::Sink(_)) && node.inputs.iter().any(is_sorted))
    }

    /// Whether windows are what a sink brings out.
    pub fn shows_windows(&self, number: usize) -> bool {
        let sink = self.nodes.iter().find(|node| node.kind == Kind::Sink(number)).unwrap();
        matches!(self.nodes[sink.inputs[0].from].kind, Kind::Window(_))
    }

    /// Every path by which rows come to a node: the dataset, and the way that is written into the rows.
    pub fn ways_to(&self, node: usize) -> Vec<(usize, i64)> {
        if let Kind::Source(dataset) = self.nodes[node].kind {
            return vec![(dataset, 0)];
        }
        self.nodes[node].inputs.iter().flat_map(|link| self.ways_behind(link.from)).collect()
    }

    /// Every path by which rows leave a node.
    pub fn ways_behind(&self, node: usize) -> Vec<(usize, i64)> {
        let mark = |way| if let Kind::Pass(_) = self.nodes[node].kind { via(way, node as i64) } else { way };
        self.ways_to(node).into_iter().map(|(dataset, way)| (dataset, mark(way))).collect()
    }

    /// The graph with so many subtasks for each node.
    pub fn graph(&self, ends: &Ends, parallelism: &[usize]) -> Graph {
        let parallelism: Vec<_> = self
            .nodes
            .iter()
            .zip(parallelism)
            .map(|(node, drawn)| if self.is_single(node) { 1 } else { *drawn })
            .collect();
        let mut graph = Graph::default();
        for (index, shape) in self.nodes.iter().enumerate() {
            let (schema, kind) = self.node(index, ends);
            let name = format!("{:?} {index}", shape.kind);
            let id = OperatorId(0x51_0000 + index as u64);
            let node = graph.add(Node { id, name, parallelism: parallelism[index], schema, kind });
            for (input, link) in shape.inputs.iter().enumerate() {
                let is_forward = parallelism[link.from] == parallelism[index];
                let partitioning = self.partitioning(shape, *link, is_forward);
                graph.edges.push(Edge { from: link.from, port: link.port, to: node, input, partitioning });
            }
        }
        graph
    }

    fn partitioning(&self, to: &NodeShape, link: Link, is_forward: bool) -> Partitioning {
        let columns = match link.by {
            By::Task if is_forward => return Partitioning::Forward,
            By::Task => return Partitioning::Rebalance,
            _ if goes_in_turn(self.nodes[link.from].kind, to.kind) => return Partitioning::Rebalance,
            By::Key if self.merges(to) => vec![0],
            By::Key => vec![column::KEY],
            By::Column(at) => vec![at],
            By::All => (0..self.schema_of(link.from).fields().len()).collect(),
            By::Nothing => Vec::new(),
        };
        Partitioning::KeyGroup(columns)
    }

    fn node(&self, index: usize, ends: &Ends) -> (SchemaRef, NodeKind) {
        let shape = &self.nodes[index];
        match shape.kind {
            Kind::Source(dataset) => {
                let row_time = self.event_time.map(row_time);
                let source = Arc::clone(&ends.sources[dataset]);
                let on_error = match self.bad_records {
                    BadRecords::None => OnError::Fail,
                    BadRecords::Skip => OnError::Skip,
                    BadRecords::Letters => OnError::DeadLetter(Arc::new(nodes::letters())),
                };
                let node = SourceNode { source, row_time, rows_per_second: ends.rows_per_second, on_error };
                (schema(), NodeKind::Source(node))
            }
            Kind::Pass(drip) => (schema(), NodeKind::Operator(pass(index as i64, drip))),
            Kind::Sink(number) => (schema(), NodeKind::Sink(Arc::clone(&ends.sinks[number]))),
            _ => {
                let length = self.event_time.map_or(0, |event_time| event_time.window_ms);
                let (schema, factory) = match shape.kind {
                    Kind::Window(windows) if self.merges(shape) => {
                        let [_, global] = nodes::in_two_phases(windows, length);
                        global
                    }
                    _ => self.operator_at(index).unwrap(),
                };
                (schema, NodeKind::Operator(sabotaged(factory, shape.kind, length)))
            }
        }
    }
}

fn row_time(event_time: EventTime) -> Arc<dyn RowTime> {
    let delay = lit(ScalarValue::new_interval_mdn(0, 0, event_time.delay_ms * 1_000_000));
    let expression = binary(col("ts", &schema()).unwrap(), Arithmetic::Minus, delay, &schema()).unwrap();
    let spec = WatermarkSpec { time_column: column::TIME, expression };
    Arc::new(RowTimeAssigner::new(schema(), None, Some(spec)).unwrap())
}

/// By key.
pub fn keyed(from: usize) -> Link {
    by(from, By::Key)
}

/// To the subtasks that `by` says.
pub fn by(from: usize, by: By) -> Link {
    Link { from, by, port: Port::MAIN }
}

/// Not by key.
pub fn plain(from: usize) -> Link {
    by(from, By::Task)
}

/// What a node gives aside.
pub fn aside(from: usize, port: Port) -> Link {
    Link { from, by: By::Task, port }
}

/// Source, perhaps a pass, windows, one or two sinks.
pub fn window_shape(windows: Windows, event_time: EventTime, rng: &mut Rng) -> Shape {
    let (mut shape, last) = passed(event_time, rng);
    let window = shape.add(Kind::Window(windows), &[keyed(last)]);
    for number in 0..1 + rng.below(2) {
        shape.add(Kind::Sink(number), &[plain(window)]);
    }
    shape
}

/// Source, perhaps a pass, windows in two phases, a sink.
pub fn two_phase_shape(windows: Windows, event_time: EventTime, rng: &mut Rng) -> Shape {
    let (mut shape, last) = passed(event_time, rng);
    let local = shape.add(Kind::Local(windows), &[plain(last)]);
    let window = shape.add(Kind::Window(windows), &[keyed(local)]);
    shape.add(Kind::Sink(0), &[plain(window)]);
    shape
}

/// Source, perhaps a pass, windows assigned, the first rows of each, a sink.
pub fn top_n_shape(event_time: EventTime, rng: &mut Rng) -> Shape {
    let (mut shape, last) = passed(event_time, rng);
    let windows = if rng.one_in(2) { Windows::Tumble } else { Windows::Hop(2) };
    let assigned = shape.add(Kind::Assign(windows), &[plain(last)]);
    let ranked = shape.add(Kind::TopN(1 + rng.below(8)), &[keyed(assigned)]);
    shape.add(Kind::Sink(0), &[plain(ranked)]);
    shape
}

/// Source, perhaps a pass, sort, a sink.
pub fn sorted_shape(event_time: EventTime, rng: &mut Rng) -> Shape {
    let (mut shape, last) = passed(event_time, rng);
    let sorted = shape.add(Kind::Sort, &[plain(last)]);
    shape.add(Kind::Sink(0), &[plain(sorted)]);
    shape
}

/// Source, perhaps a pass, an operator with a keyed table, a sink.
pub fn keyed_shape(event_time: EventTime, rng: &mut Rng) -> Shape {
    let (mut shape, last) = passed(event_time, rng);
    let limit = [2, 5, 1_000][rng.below(3)];
    // With large rows runs are of several tiers.
    let padding = [0, 0, 2_000][rng.below(3)];
    let kind = match rng.below(6) {
        0 | 1 => Kind::First,
        2 => Kind::FirstToCome,
        3 => Kind::Tally(Table::Value, limit, padding),
        4 => Kind::Tally(Table::List, limit, padding),
        _ => Kind::Tally(Table::Map, limit, padding),
    };
    let of_keys = shape.add(kind, &[keyed(last)]);
    shape.add(Kind::Sink(0), &[plain(of_keys)]);
    shape
}

/// Source, late rows aside, windows, a sink; another for late rows, and perhaps one for dead letters.
pub fn aside_shape(windows: Windows, event_time: EventTime, rng: &mut Rng) -> Shape {
    let (mut shape, last) = passed(event_time, rng);
    let late = shape.add(Kind::Late(windows), &[plain(last)]);
    let window = shape.add(Kind::Window(windows), &[keyed(late)]);
    shape.add(Kind::Sink(0), &[plain(window)]);
    shape.add(Kind::Sink(1), &[aside(late, Port::LATE)]);
    shape.bad_records = if rng.one_in(3) { BadRecords::Skip } else { BadRecords::Letters };
    if shape.bad_records == BadRecords::Letters {
        shape.add(Kind::Sink(2), &[aside(0, Port::DEAD_LETTER)]);
    }
    shape
}

/// Two sources, which fall idle by themselves; one node that takes both; windows; a sink.
pub fn idle_shape(event_time: EventTime, rng: &mut Rng) -> Shape {
    let mut shape = Shape::new(Some(event_time));
    shape.falls_idle = true;
    let sources = [shape.add(Kind::Source(0), &[]), shape.add(Kind::Source(1), &[])];
    let both = shape.add(Kind::Pass(rng.below(3)), &sources.map(plain));
    let window = shape.add(Kind::Window(Windows::Tumble), &[keyed(both)]);
    shape.add(Kind::Sink(0), &[plain(window)]);
    shape
}

/// Source, perhaps a pass; the last of them.
fn passed(event_time: EventTime, rng: &mut Rng) -> (Shape, usize) {
    let mut shape = Shape::new(Some(event_time));
    let mut last = shape.add(Kind::Source(0), &[]);
    if rng.one_in(3) {
        last = shape.add(Kind::Pass(rng.below(3)), &[plain(last)]);
    }
    (shape, last)
}

/// Source, two branches, one node that takes both, a sink.
pub fn diamond_shape(event_time: Option<EventTime>, rng: &mut Rng) -> Shape {
    let mut shape = Shape::new(event_time);
    let mut link = |from| if rng.one_in(2) { keyed(from) } else { plain(from) };
    let source = shape.add(Kind::Source(0), &[]);
    let left = shape.add(Kind::Pass(0), &[link(source)]);
    let right = shape.add(Kind::Pass(2), &[link(source)]);
    let both = shape.add(Kind::Pass(0), &[link(left), link(right)]);
    shape.add(Kind::Sink(0), &[link(both)]);
    shape
}

/// One or two sources, a few passes with one or two inputs each from anywhere before, a window now and then.
pub fn random_shape(event_time: EventTime, rng: &mut Rng) -> Shape {
    let mut shape = Shape::new(Some(event_time));
    let sources = 1 + rng.below(2);
    (0..sources).for_each(|dataset| _ = shape.add(Kind::Source(dataset), &[]));
    for _ in 0..1 + rng.below(4) {
        let before = shape.nodes.len();
        let count = 1 + rng.below(2);
        let mut link = || {
            let from = rng.below(before);
            if rng.one_in(2) { keyed(from) } else { plain(from) }
        };
        let inputs: Vec<_> = (0..count).map(|_| link()).collect();
        shape.add(Kind::Pass([0, 0, 1, 3][rng.below(4)]), &inputs);
    }
    let used: Vec<usize> = shape.nodes.iter().flat_map(|node| node.inputs.iter().map(|link| link.from)).collect();
    let loose: Vec<_> = (0..shape.nodes.len()).filter(|node| !used.contains(node)).collect();
    for (number, node) in loose.into_iter().enumerate() {
        let last = if rng.one_in(2) { shape.add(Kind::Window(Windows::Tumble), &[keyed(node)]) } else { node };
        shape.add(Kind::Sink(number), &[plain(last)]);
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changing::{final_shape, group_shape, regular_join_shape, updating_top_n_shape};
    use crate::joined::{interval_shape, window_join_shape};
    use crate::temporal::temporal_shape;

    const EVENT_TIME: EventTime = EventTime { delay_ms: 5, window_ms: 10 };

    #[test]
    fn a_diamond_has_two_ways_to_its_sink() {
        let shape = diamond_shape(None, &mut Rng::seeded(1));
        let expected = [(0, via(via(0, 1), 3)), (0, via(via(0, 2), 3))];
        assert_eq!(shape.ways_to(4), expected);
    }

    #[test]
    fn every_shape_makes_a_valid_graph_at_any_parallelism() {
        let data = Arc::new(crate::dataset::Dataset { lineages: Vec::new() });
        for seed in 0..200 {
            let mut rng = Rng::seeded(seed);
            let shape = match seed % 17 {
                0 => window_shape(Windows::Tumble, EVENT_TIME, &mut rng),
                1 => diamond_shape(Some(EVENT_TIME), &mut rng),
                2 => window_shape(Windows::Cumulate(3), EVENT_TIME, &mut rng),
                3 => window_shape(Windows::Session, EVENT_TIME, &mut rng),
                4 => top_n_shape(EVENT_TIME, &mut rng),
                5 => sorted_shape(EVENT_TIME, &mut rng),
                6 => aside_shape(Windows::Hop(2), EVENT_TIME, &mut rng),
                7 => idle_shape(EVENT_TIME, &mut rng),
                8 => keyed_shape(EVENT_TIME, &mut rng),
                9 => interval_shape(EVENT_TIME, &mut rng),
                10 => window_join_shape(EVENT_TIME, &mut rng),
                11 => regular_join_shape(&mut rng),
                12 => group_shape(&mut rng),
                13 => updating_top_n_shape(&mut rng),
                14 => final_shape(&mut rng),
                15 => temporal_shape(EVENT_TIME, &mut rng),
                _ => random_shape(EVENT_TIME, &mut rng),
            };
            let source = || {
                let manners = crate::source::Manners::default();
                let made =
                    crate::source::SimSource::new(Arc::clone(&data), manners, Default::default(), Rng::seeded(1));
                Arc::new(made) as Arc<dyn Source>
            };
            let sink = |number| {
                let process = Arc::new(crate::process::Process::new(1, Vec::new()));
                let permanence = crate::sink::Permanence::Final;
                let (outside, trace) = Default::default();
                Arc::new(crate::sink::SimSink {
                    outside,
                    number,
                    permanence,
                    buffered: false,
                    delay: None,
                    changes: false,
                    process,
                    trace,
                }) as _
            };
            let ends = Ends {
                sources: (0..2).map(|_| source()).collect(),
                sinks: (0..shape.sinks()).map(sink).collect(),
                rows_per_second: None,
            };
            let parallelism: Vec<_> = shape.nodes.iter().map(|_| 1 + rng.below(3)).collect();
            shape.graph(&ends, &parallelism).validate().unwrap();
        }
    }
}
