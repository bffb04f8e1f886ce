//! From a graph to tasks: restores what a checkpoint has, opens operators, connects channels.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ruslo_core::environment::Environment;
use ruslo_core::epoch::Epoch;
use ruslo_core::equation::Equation;
use ruslo_core::error::{Error, Result, ResultExt};
use ruslo_core::graph::{Edge, Graph, Node, NodeIndex, NodeKind, OperatorId, Partitioning, SourceNode};
use ruslo_core::key_group::KEY_GROUPS;
use ruslo_core::memory::MemoryPool;
use ruslo_core::metrics::{OperatorMetrics, RowCounts};
use ruslo_core::operator::{Operator, Port, Subtask};
use ruslo_core::plan::CompiledPlan;
use ruslo_core::sink::{Guarantee, Sink, SinkContext};
use ruslo_core::time::Timestamp;
use ruslo_state::books::{BookEdge, Books};
use ruslo_state::keyed::KeyedContext;
use ruslo_state::manifest::{Manifest, OperatorEntry, RunLayout};
use ruslo_state::operator_rows::{OldRows, RowsTable};
use ruslo_state::store::{CheckpointStore, Restored, RestoredRuns};
use ruslo_state::table::{Run, RunState};

use crate::alignment::{Alignment, Overtaken};
use crate::chain::{Chain, MemberSpec};
use crate::channel::{Credit, Gate};
use crate::coordinator::{Coordinator, CoordinatorSpec, IoPool, Mailbox, ReceivingGate, SharedCommitter};
use crate::discovery::Watch;
use crate::exchange::{Outlet, OutputEdge, Outputs};
use crate::held::HeldSink;
use crate::in_flight::{Again, EdgeNames, again};
use crate::input::{ChannelOrigin, Event, Inputs};
use crate::latency::Latency;
use crate::layout::{ChainLayout, Layout};
use crate::ledger::SourceLedger;
use crate::planted::{Bug, planted};
use crate::processing_time::ProcessingTime;
use crate::scheduler::{Scheduler, TaskIndex};
use crate::sink::SinkOperator;
use crate::source::{Barriers, SourceHead, SourceSpec};
use crate::splits::SplitBook;
use crate::status::{ChannelStatus, EdgeStatus, JobStatus, OperatorStatus, Role};
use crate::task::{Head, Task, TaskSpec, TaskStatus};

/// How a job runs, whatever it computes.
#[derive(Debug, Clone)]
pub struct JobConfig {
    /// The bound of every edge.
    pub credit: Credit,
    /// Rows per batch that sources read and operators aim at.
    pub batch_rows: usize,
    /// What the pipeline may hold in memory, in bytes.
    pub memory_limit_bytes: u64,
    /// What tasks do about barriers.
    pub alignment: Alignment,
    /// How often a checkpoint begins; none only at the end.
    pub checkpoint_interval: Option<Duration>,
    /// How long a split brings no row before the source's watermark does not wait for it; for ever, if none.
    pub source_idle_timeout: Option<Duration>,
    /// At-most-once: what sinks that show rows at once would show is held until the checkpoint behind it is durable, and
    /// shown by this process or by none.
    pub holds_output: bool,
    /// What holds if the process dies, for checkpoints to tell; the rest of the configuration makes it so.
    pub delivery: Option<Guarantee>,
    /// Threads that run tasks.
    pub workers: usize,
}

impl Default for JobConfig {
    fn default() -> Self {
        Self {
            credit: Credit::default(),
            batch_rows: 8_192,
            memory_limit_bytes: u64::MAX,
            alignment: Alignment::default(),
            checkpoint_interval: Some(Duration::from_secs(10)),
            source_idle_timeout: None,
            holds_output: false,
            delivery: None,
            workers: 1,
        }
    }
}

/// Where a job goes on from.
#[derive(Debug)]
pub enum Start {
    /// The beginning. `run` is a name that no other start has.
    Fresh {
        /// See [`Manifest::run`].
        run: String,
    },
    /// A checkpoint.
    Restore(Restored),
}

/// What a job is made of.
pub struct JobSpec {
    /// What to run.
    pub graph: Graph,
    /// How.
    pub config: JobConfig,
    /// The world outside.
    pub environment: Environment,
    /// Where checkpoints are kept.
    pub store: CheckpointStore,
    /// What the plan is, so that no other resumes from its checkpoints.
    pub fingerprint: String,
    /// How the plan lays out state, so that none is read as what it is not.
    pub plan: Option<CompiledPlan>,
    /// Where to go on from.
    pub start: Start,
}

/// A job, ready to be run by an executor.
pub struct Job {
    /// The tasks, by number.
    pub tasks: Vec<Task>,
    /// The coordinator; its number is that after the last task.
    pub coordinator: Coordinator,
    /// Where to leave it messages.
    pub mailbox: Arc<Mailbox>,
    /// What others may see.
    pub status: Arc<JobStatus>,
}

impl Job {
    /// Makes the tasks of `spec`. On restore first commits what the checkpoint had prepared, and removes what came
    /// after it.
    pub fn build(spec: JobSpec, scheduler: Arc<dyn Scheduler>, io: Arc<dyn IoPool>) -> Result<Self> {
        spec.graph.validate()?;
        if let Start::Restore(restored) = &spec.start {
            check_resumes(&spec, &restored.manifest)?;
        }
        Builder::new(&spec, scheduler)?.build(io)
    }
}

/// Refuses a checkpoint of another query, or of the same in another plan.
fn check_resumes(spec: &JobSpec, manifest: &Manifest) -> Result<()> {
    let folder = spec.store.folder().display();
    if manifest.fingerprint != spec.fingerprint {
        return Err(Error::usage(format!(
            "the checkpoints in {folder} are of another query or other options; resume with what they were made with, \
             or start over with --fresh"
        )));
    }
    match (&spec.plan, &manifest.plan) {
        (Some(plan), Some(stored)) => {
            plan.check_resumes(stored).context(|| format!("the checkpoints in {folder} cannot be resumed from"))
        }
        _ => Ok(()),
    }
}

/// A node's checkpointed part, looked up.
struct Restore<'a> {
    entry: Option<&'a OperatorEntry>,
    runs: Option<&'a RestoredRuns>,
}

impl Restore<'_> {
    /// The least of its subtasks: what is on its way to one of them may not be behind it.
    fn watermark(&self) -> Timestamp {
        let watermarks = self.entry.iter().flat_map(|entry| &entry.subtasks).map(|subtask| subtask.watermark);
        let restored = if planted(Bug::RestoredWatermarkIsMaximum) { watermarks.max() } else { watermarks.min() };
        restored.unwrap_or(Timestamp::MIN)
    }

    /// What a subtask had promised where inputs fall idle and rejoin, and subtasks do not agree: its own watermark, if it has
    /// the key groups that it had.
    fn promised_of(&self, subtask: Subtask) -> Timestamp {
        let subtasks = self.entry.map(|entry| entry.subtasks.as_slice()).unwrap_or_default();
        let own = subtasks.get(subtask.index).filter(|_| subtasks.len() == subtask.parallelism);
        own.map_or_else(|| self.promised(), |own| own.watermark)
    }

    /// The most that one of its subtasks, which has not ended, had promised: what one has fired must not be filled again after
    /// another's key groups have come to it.
    fn promised(&self) -> Timestamp {
        let watermarks = self.entry.iter().flat_map(|entry| &entry.subtasks).map(|subtask| subtask.watermark);
        let promised = watermarks.filter(|watermark| *watermark < Timestamp::MAX).max();
        promised.unwrap_or_else(|| self.watermark())
    }

    /// What all subtasks had counted goes on in the first.
    fn counts(&self, subtask: Subtask) -> RowCounts {
        if subtask.index == 0 {
            let sum = self.all_counts();
            if planted(Bug::ForgetRejected) { RowCounts { skipped_rows: 0, dead_letter_rows: 0, ..sum } } else { sum }
        } else {
            RowCounts::default()
        }
    }

    /// What all subtasks had counted.
    fn all_counts(&self) -> RowCounts {
        let all = self.entry.iter().flat_map(|entry| &entry.subtasks).map(|old| old.counts);
        all.fold(RowCounts::default(), |sum, counts| sum + counts)
    }

    /// The same as [`Self::counts`] of each input but the first.
    fn other_inputs(&self, subtask: Subtask) -> Vec<u64> {
        let mut sum = Vec::new();
        for counts in self.entry.iter().flat_map(|entry| &entry.subtasks).map(|old| &old.other_inputs) {
            sum.resize(counts.len().max(sum.len()), 0);
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        if subtask.index == 0 { sum } else { Vec::new() }
    }

    /// The runs of this subtask's key groups, whoever had them.
    fn state(&self, subtask: Subtask) -> Result<RunState> {
        let by_task = planted(Bug::StateByTask);
        let wanted = if by_task { 0..KEY_GROUPS } else { subtask.key_groups() };
        let mut state = RunState::new(subtask.key_groups());
        let (Some(entry), Some(runs)) = (self.entry, self.runs) else { return Ok(state) };
        let old = entry.subtasks.iter().enumerate().filter(|(index, _)| !by_task || *index == subtask.index);
        for (name, reference) in old
            .flat_map(|(_, old)| &old.tables)
            .flat_map(|(name, runs)| runs.iter().map(move |reference| (name, reference)))
        {
            let unread = || Error::internal("a run was not read on restore");
            if reference.layout.redistribution().is_some() {
                continue;
            }
            if reference.layout == RunLayout::Keyed {
                state.add_fetched(name, runs.fetched(reference).ok_or_else(unread)?);
                continue;
            }
            let rows = runs.get(reference).ok_or_else(unread)?;
            if let Some(run) = Run::restored(reference, rows, &wanted)? {
                state.add(name, run);
            }
        }
        add_rows(&mut state, entry, runs, subtask)?;
        Ok(state)
    }
}

/// Adds what a subtask gets of rows that belong to no key.
fn add_rows(state: &mut RunState, entry: &OperatorEntry, runs: &RestoredRuns, subtask: Subtask) -> Result<()> {
    let mut tables: BTreeMap<_, (_, Vec<OldRows>)> = BTreeMap::new();
    for (index, old) in entry.subtasks.iter().enumerate() {
        for (name, reference) in old.tables.iter().flat_map(|(name, runs)| runs.iter().map(move |run| (name, run))) {
            let Some(redistribution) = reference.layout.redistribution() else { continue };
            let rows = runs.get(reference).ok_or_else(|| Error::internal("a run was not read on restore"))?;
            let empty = || (redistribution, vec![OldRows::new(); entry.subtasks.len()]);
            let (_, old) = tables.entry(name).or_insert_with(empty);
            old.iter_mut().skip(index).take(1).for_each(|old| old.push((reference.clone(), rows.clone())));
        }
    }
    for (name, (redistribution, old)) in tables {
        state.add_rows(name, RowsTable::restored(redistribution, &old, subtask));
    }
    Ok(())
}

/// The receiving ends of an edge, for one sending subtask.
type Routes = HashMap<(usize, usize), Vec<(Arc<Gate>, usize)>>;

struct Builder<'a> {
    spec: &'a JobSpec,
    layout: Layout,
    scheduler: Arc<dyn Scheduler>,
    mailbox: Arc<Mailbox>,
    pool: Arc<MemoryPool>,
    run: String,
    last_epoch: Epoch,
    books: BTreeMap<NodeIndex, Arc<SplitBook>>,
    ledgers: BTreeMap<NodeIndex, SourceLedger>,
    watches: Vec<Watch>,
    committers: BTreeMap<NodeIndex, SharedCommitter>,
    /// Rows of each sink that have been committed.
    committed: BTreeMap<NodeIndex, u64>,
    held: BTreeMap<NodeIndex, Arc<HeldSink>>,
    equations: BTreeMap<OperatorId, Equation>,
    barriers: Vec<(TaskIndex, Barriers)>,
    metrics: Vec<Vec<Arc<OperatorMetrics>>>,
    latencies: Vec<Vec<Arc<Latency>>>,
    edges: Vec<EdgeStatus>,
    statuses: Vec<Arc<TaskStatus>>,
    overtaken: Arc<Overtaken>,
    gates: Vec<ReceivingGate>,
    /// Rows in flight for operators that stand behind others in their task, by node and subtask.
    inside: HashMap<(NodeIndex, usize), Vec<Event>>,
}

impl<'a> Builder<'a> {
    fn new(spec: &'a JobSpec, scheduler: Arc<dyn Scheduler>) -> Result<Self> {
        let layout = Layout::of(&spec.graph);
        let run = match &spec.start {
            Start::Fresh { run } => run.clone(),
            Start::Restore(restored) => restored.manifest.run.clone(),
        };
        Ok(Self {
            mailbox: Arc::new(Mailbox::new(Arc::clone(&scheduler), layout.tasks())),
            pool: MemoryPool::new(spec.config.memory_limit_bytes),
            last_epoch: spec.store.last_epoch()?,
            metrics: spec
                .graph
                .nodes
                .iter()
                .map(|node| (0..node.parallelism).map(|_| Arc::default()).collect())
                .collect(),
            latencies: spec
                .graph
                .nodes
                .iter()
                .map(|node| (0..node.parallelism).map(|_| Arc::default()).collect())
                .collect(),
            edges: Vec::new(),
            overtaken: Arc::default(),
            gates: Vec::new(),
            inside: HashMap::new(),
            statuses: (0..layout.tasks()).map(|_| Arc::default()).collect(),
            books: BTreeMap::new(),
            ledgers: BTreeMap::new(),
            watches: Vec::new(),
            committers: BTreeMap::new(),
            committed: BTreeMap::new(),
            held: BTreeMap::new(),
            equations: BTreeMap::new(),
            barriers: Vec::new(),
            layout,
            scheduler,
            run,
            spec,
        })
    }

    fn build(mut self, io: Arc<dyn IoPool>) -> Result<Job> {
        if let Start::Restore(restored) = &self.spec.start {
            self.take_over(&restored.manifest)?;
        }
        for (index, node) in self.spec.graph.nodes.iter().enumerate() {
            match &node.kind {
                NodeKind::Source(source) => self.open_book(index, source).context(|| node.name.clone())?,
                NodeKind::Sink(sink) => self.open_sink(index, node, sink)?,
                NodeKind::Operator(_) => {}
            }
        }
        if let Start::Fresh { .. } = self.spec.start {
            self.publish_beginning()?;
        }
        let (mut gates, mut routes) = self.connect();
        if let Start::Restore(restored) = &self.spec.start {
            self.read_again(restored, &mut gates)?;
        }
        self.edges = self.edge_statuses(&routes);
        let mut tasks = Vec::new();
        for chain in self.layout.chains.clone() {
            for index in 0..chain.parallelism {
                let inputs = gates.remove(&(chain.first_task + index));
                tasks.push(self.task(&chain, index, inputs, &mut routes, &io)?);
            }
        }
        let status = self.status();
        let mailbox = Arc::clone(&self.mailbox);
        Ok(Job { tasks, coordinator: self.coordinator(io, &status), mailbox, status })
    }

    fn restore(&self, node: &Node) -> Restore<'a> {
        match &self.spec.start {
            Start::Fresh { .. } => Restore { entry: None, runs: None },
            Start::Restore(restored) => {
                Restore { entry: restored.manifest.operators.get(&node.id), runs: Some(&restored.runs) }
            }
        }
    }

    fn has_idleness(&self) -> bool {
        self.spec.config.source_idle_timeout.is_some()
    }

    fn open_book(&mut self, index: NodeIndex, source: &SourceNode) -> Result<()> {
        let splits = source.source.splits(&self.spec.environment)?;
        let Some((node, chain)) = self.spec.graph.nodes.get(index).zip(self.layout.chain_of(index)) else {
            return Err(Error::internal("a source is in no chain"));
        };
        let readers = (chain.first_task..chain.first_task + chain.parallelism).collect();
        let book = SplitBook::new(splits, source.rows_per_second, readers, Arc::clone(&self.scheduler));
        let is_idle_sometime = self.spec.config.source_idle_timeout.is_some() && source.row_time.is_some();
        let book = if is_idle_sometime { book.with_idleness() } else { book };
        let interval = source.source.monitor_interval();
        let book = if interval.is_some() { book.with_discovery() } else { book };
        let lineages = match self.restore(node).entry {
            Some(entry) => {
                let promised = entry.subtasks.iter().map(|subtask| subtask.watermark).max();
                book.restore(&entry.lineages, promised.unwrap_or(Timestamp::MIN))?;
                entry.lineages.clone()
            }
            None => book.unread(),
        };
        let book = Arc::new(book);
        if let Some(interval) = interval {
            let (source, book) = (Arc::clone(&source.source), Arc::clone(&book));
            let next = Some(self.spec.environment.clock.now());
            let metrics = self.metrics(index, 0);
            self.watches.push(Watch { node: index, source, book, metrics, interval, next });
        }
        self.books.insert(index, book);
        self.ledgers.insert(index, SourceLedger::new(lineages));
        Ok(())
    }

    fn sink_context(&self) -> SinkContext {
        SinkContext { environment: self.spec.environment.clone(), run: self.run.clone() }
    }

    /// What rows are written to: the sink itself, or what holds its rows until they are safe to show.
    fn sink(&mut self, index: NodeIndex, node: &Node, sink: &Arc<dyn Sink>) -> Arc<dyn Sink> {
        if !self.spec.config.holds_output || sink.guarantee() == Guarantee::ExactlyOnce {
            return Arc::clone(sink);
        }
        let held = self.held.entry(index).or_insert_with(|| {
            let memory = self.pool.reserve(format!("the rows that '{}' shows at the next checkpoint", node.name));
            Arc::new(HeldSink::new(Arc::clone(sink), memory, Arc::clone(&self.mailbox)))
        });
        Arc::clone(held) as _
    }

    /// The second phase of the checkpoint's epoch, again if need be; and what came after it goes.
    fn open_sink(&mut self, index: NodeIndex, node: &Node, sink: &Arc<dyn Sink>) -> Result<()> {
        let mut committer = self.sink(index, node, sink).committer(&self.sink_context())?;
        self.committed.insert(index, 0);
        if let Start::Restore(Restored { manifest, .. }) = &self.spec.start {
            let entry = manifest.operators.get(&node.id);
            let before = self.restore(node).all_counts();
            self.committed.insert(index, before.committed_rows);
            if !planted(Bug::NoRecommit) {
                committer.commit(entry.map(|entry| entry.committables.as_slice()).unwrap_or_default())?;
                self.committed.insert(index, before.committed().committed_rows);
            }
            if !planted(Bug::NoAbort) {
                committer.abort_since(manifest.origin())?;
            }
        }
        self.committers.insert(index, Arc::new(Mutex::new(committer)));
        Ok(())
    }

    /// The restored checkpoint once more, under the next number. Who is still writing that number (a process taken for
    /// dead) loses it and is fenced, before any output is touched; and what is about to be committed is durable.
    fn take_over(&mut self, manifest: &Manifest) -> Result<()> {
        self.last_epoch = self.last_epoch.next();
        let written_at = self.spec.environment.clock.wall();
        let repeats = Some(manifest.origin());
        let delivery = self.spec.config.delivery.or(manifest.delivery);
        self.spec.store.publish(&Manifest { epoch: self.last_epoch, repeats, delivery, written_at, ..manifest.clone() })
    }

    /// A checkpoint of the beginning: whoever resumes before the first real one starts over under the same run.
    fn publish_beginning(&mut self) -> Result<()> {
        self.last_epoch = self.last_epoch.next();
        let entries = self.spec.graph.nodes.iter().enumerate().map(|(index, node)| {
            let lineages = self.ledgers.get(&index).map(SourceLedger::lineages).unwrap_or_default();
            (node.id, OperatorEntry { name: node.name.clone(), lineages, ..Default::default() })
        });
        self.spec.store.publish(&Manifest {
            epoch: self.last_epoch,
            run: self.run.clone(),
            fingerprint: self.spec.fingerprint.clone(),
            plan: self.spec.plan.clone(),
            repeats: None,
            attempt: None,
            savepoint: None,
            delivery: self.spec.config.delivery,
            books: self.books(),
            finished: false,
            written_at: self.spec.environment.clock.wall(),
            operators: entries.collect(),
        })
    }

    /// Puts what the checkpoint had in flight before anything else.
    fn read_again(&mut self, restored: &Restored, inputs: &mut HashMap<TaskIndex, Inputs>) -> Result<()> {
        let is_fixed = self.has_idleness();
        let again = again(&self.spec.graph, &restored.manifest, &restored.runs, is_fixed)?;
        for (node, rows) in again {
            let chain = self.layout.chain_of(node).ok_or_else(|| Error::internal("an operator is in no chain"))?;
            let is_head = chain.nodes.first() == Some(&node);
            for Again { edge, receiver, batch, .. } in rows {
                match inputs.get_mut(&(chain.first_task + receiver)).filter(|_| is_head) {
                    Some(inputs) => inputs.restore(edge, batch)?,
                    None => {
                        let input = self.spec.graph.edges.get(edge).map_or(0, |edge| edge.input);
                        self.inside.entry((node, receiver)).or_default().push(Event::Batch(input, batch));
                    }
                }
            }
        }
        Ok(())
    }

    /// What must add up; none, if the run has counts of a release that did not keep books, or of another plan.
    fn books(&self) -> Option<Books> {
        let id = |node: NodeIndex| self.spec.graph.nodes.get(node).map(|node| node.id);
        let edges = self.spec.graph.edges.iter().filter_map(|edge| {
            Some(BookEdge { from: id(edge.from)?, port: edge.port.0, to: id(edge.to)?, input: edge.input })
        });
        let repeats_rows = self.spec.config.alignment == Alignment::AtLeastOnce;
        let (equations, fell_back_to) = (self.equations.clone(), Vec::new());
        let books = Books { equations, edges: edges.collect(), repeats_rows, fell_back_to };
        let Start::Restore(restored) = &self.spec.start else { return Some(books) };
        let before = restored.manifest.books.as_ref().filter(|before| before.edges == books.edges)?;
        let fallback = (!restored.skipped.is_empty()).then(|| restored.manifest.origin());
        let fell_back_to = before.fell_back_to.iter().copied().chain(fallback).collect();
        // What an older release counted by its equation may not be enough for a newer one's.
        let equations = books.equations.into_iter().chain(before.equations.clone()).collect();
        Some(Books { equations, repeats_rows: before.repeats_rows || repeats_rows, fell_back_to, ..books })
    }

    /// A gate for every task that is not a source, and a channel for every pair of subtasks that an edge connects.
    fn connect(&mut self) -> (HashMap<TaskIndex, Inputs>, Routes) {
        let mut inputs = HashMap::new();
        let mut routes = Routes::new();
        let alignment = self.spec.config.alignment;
        for chain in &self.layout.chains {
            let Some(head) = chain.nodes.first().copied().filter(|head| !self.books.contains_key(head)) else {
                continue;
            };
            for index in 0..chain.parallelism {
                let task = chain.first_task + index;
                let name = self.spec.graph.nodes.get(head).map(|node| node.name.as_str()).unwrap_or_default();
                let memory = self.pool.reserve(format!("the rows waiting for '{name}' #{index}"));
                let clock = &self.spec.environment.clock;
                let gate =
                    Gate::new(self.spec.config.credit, task, Arc::clone(&self.scheduler), Arc::clone(clock), memory);
                let gate = Arc::new(gate);
                let (channels, senders) = self.add_channels(head, index, &gate, &mut routes).into_iter().unzip();
                if alignment.overtakes() {
                    self.gates.push(ReceivingGate { receiver: task, senders, gate: Arc::clone(&gate) });
                }
                let status = self.statuses.get(task).cloned().unwrap_or_default();
                let of_task = Inputs::new(gate, channels, Arc::clone(clock), status);
                inputs.insert(task, of_task.with_alignment(alignment, Arc::clone(&self.overtaken)));
            }
        }
        (inputs, routes)
    }

    /// The channels of a gate: where each comes from, and the sending task.
    fn add_channels(
        &self,
        head: NodeIndex,
        index: usize,
        gate: &Arc<Gate>,
        routes: &mut Routes,
    ) -> Vec<(ChannelOrigin, TaskIndex)> {
        let mut channels = Vec::new();
        for (number, edge) in self.spec.graph.edges.iter().enumerate().filter(|(_, edge)| edge.to == head) {
            let Some(from) = self.layout.chain_of(edge.from) else { continue };
            for sender in 0..from.parallelism {
                if edge.partitioning == Partitioning::Forward && sender != index {
                    continue;
                }
                let channel = gate.add_channel(from.first_task + sender);
                routes.entry((number, sender)).or_default().push((Arc::clone(gate), channel));
                let origin = ChannelOrigin { input: edge.input, edge: number, sender };
                channels.push((origin, from.first_task + sender));
            }
        }
        channels
    }

    fn edge_statuses(&self, routes: &Routes) -> Vec<EdgeStatus> {
        let status = |(number, edge): (usize, &Edge)| {
            let senders = self.spec.graph.nodes.get(edge.from).map_or(0, |node| node.parallelism);
            let channels = (0..senders).flat_map(|from| {
                let receivers = routes.get(&(number, from)).into_iter().flatten().enumerate();
                let is_forward = edge.partitioning == Partitioning::Forward;
                receivers.map(move |(to, (gate, channel))| ChannelStatus {
                    from,
                    to: if is_forward { from } else { to },
                    gate: Arc::clone(gate),
                    channel: *channel,
                })
            });
            let partitioning = edge.partitioning.clone();
            EdgeStatus { from: edge.from, to: edge.to, partitioning, channels: channels.collect() }
        };
        self.spec.graph.edges.iter().enumerate().map(status).collect()
    }

    fn task(
        &mut self,
        chain: &ChainLayout,
        index: usize,
        inputs: Option<Inputs>,
        routes: &mut Routes,
        io: &Arc<dyn IoPool>,
    ) -> Result<Task> {
        let task = chain.first_task + index;
        let subtask = Subtask { index, parallelism: chain.parallelism };
        let nodes = chain.nodes.iter().filter_map(|node| Some((*node, self.spec.graph.nodes.get(*node)?)));
        let nodes: Vec<_> = nodes.collect();
        let names: Vec<_> = nodes.iter().map(|(_, node)| node.name.as_str()).collect();
        let name = format!("{} #{index}", names.join(" → "));
        let head = match inputs {
            Some(inputs) => Head::Inputs(inputs),
            None => self.source_head(task, subtask, nodes.first().copied())?,
        };
        let mut members = Vec::new();
        let inside = nodes.iter().filter_map(|(node, _)| Some((*node, self.inside.remove(&(*node, index))?))).collect();
        for (node_index, node) in nodes {
            if let Some(member) = self.member(node_index, node, subtask).context(|| node.name.clone())? {
                members.push(member);
            }
        }
        let environment = self.spec.environment.clone();
        let edges = self.spec.graph.edges.iter().enumerate().filter(|(_, edge)| match edge.port {
            Port::MAIN => chain.nodes.last() == Some(&edge.from),
            _ => chain.nodes.contains(&edge.from),
        });
        let edges = edges.map(|(number, edge)| {
            let receivers = routes.remove(&(number, index)).unwrap_or_default();
            OutputEdge::new(Outlet::of(edge.from, edge.port), edge.partitioning.clone(), receivers)
        });
        let outputs = Outputs::new(edges.collect(), self.pool.reserve(format!("the rows leaving '{name}'")));
        let status = self.statuses.get(task).cloned().unwrap_or_default();
        let clock = Arc::clone(&environment.clock);
        let chain = Chain::open(members, environment, self.spec.config.batch_rows, self.last_epoch)?;
        let chain = if self.has_idleness() { chain.with_idleness() } else { chain };
        let chain = chain.with_inside(inside);
        let coordinator = Arc::clone(&self.mailbox);
        let alignment = self.spec.config.alignment;
        let (scheduler, io) = (Arc::clone(&self.scheduler), Arc::clone(io));
        Ok(Task::new(TaskSpec {
            index: task,
            name,
            head,
            chain,
            outputs,
            clock,
            coordinator,
            status,
            alignment,
            scheduler,
            io,
        }))
    }

    fn metrics(&self, node: NodeIndex, index: usize) -> Arc<OperatorMetrics> {
        self.metrics.get(node).and_then(|metrics| metrics.get(index)).cloned().unwrap_or_default()
    }

    fn source_head(&mut self, task: TaskIndex, subtask: Subtask, first: Option<(NodeIndex, &Node)>) -> Result<Head> {
        let Some((index, node)) = first else { return Err(Error::internal("a chain has no operator")) };
        let (NodeKind::Source(source), Some(book)) = (&node.kind, self.books.get(&index)) else {
            return Err(Error::internal(format!("'{}' has no input", node.name)));
        };
        self.equations.insert(node.id, Equation::Reads);
        let metrics = self.metrics(index, subtask.index);
        metrics.restore(self.restore(node).counts(subtask));
        let barriers = Barriers::default();
        self.barriers.push((task, Arc::clone(&barriers)));
        let head = SourceHead::new(SourceSpec {
            reader: source.source.reader(&self.spec.environment)?,
            book: Arc::clone(book),
            row_time: source.row_time.clone(),
            barriers,
            memory: self.pool.reserve(format!("the rows read ahead by '{}' #{}", node.name, subtask.index)),
            metrics: Arc::clone(&metrics),
            clock: Arc::clone(&self.spec.environment.clock),
            on_error: source.on_error.clone(),
            batch_rows: self.spec.config.batch_rows,
            processing_time: ProcessingTime::new(
                Arc::clone(&self.spec.environment.clock),
                self.restore(node).watermark(),
                source.row_time.as_ref().is_some_and(|row_time| row_time.is_driven_by_clock()),
            ),
            idle_timeout: self.spec.config.source_idle_timeout,
        });
        Ok(Head::Source { head, node: index, subtask, metrics })
    }

    fn member(&mut self, index: NodeIndex, node: &Node, subtask: Subtask) -> Result<Option<MemberSpec>> {
        let operator: Box<dyn Operator> = match &node.kind {
            NodeKind::Source(_) => return Ok(None),
            NodeKind::Operator(factory) => factory.create()?,
            NodeKind::Sink(sink) => {
                let sink = self.sink(index, node, sink);
                Box::new(SinkOperator::new(sink.writer(subtask, &self.sink_context())?, sink.is_two_phase()))
            }
        };
        self.equations.insert(node.id, operator.equation());
        let restore = self.restore(node);
        let metrics = self.metrics(index, subtask.index);
        metrics.restore(restore.counts(subtask));
        metrics.restore_other_inputs(restore.other_inputs(subtask));
        if let Some(held) = self.held.get(&index).filter(|_| subtask.index == 0) {
            metrics.in_doubt_rows.add(usize::try_from(held.in_doubt_rows()).unwrap_or(usize::MAX));
        }
        Ok(Some(MemberSpec {
            node: index,
            name: node.name.clone(),
            subtask,
            operator,
            state: restore.state(subtask)?.with_keyed(KeyedContext {
                owner: format!("'{}' #{}", node.name, subtask.index),
                work: self.spec.store.work_folder().clone(),
                memory: Arc::clone(&self.pool),
            }),
            watermark: if self.has_idleness() { restore.promised_of(subtask) } else { restore.watermark() },
            memory: self.pool.reserve_yielding(format!("'{}' #{}", node.name, subtask.index)),
            metrics,
            latency: self.latencies.get(index).and_then(|of| of.get(subtask.index)).cloned().unwrap_or_default(),
        }))
    }

    fn status(&mut self) -> Arc<JobStatus> {
        let operators = self.spec.graph.nodes.iter().enumerate().map(|(index, node)| {
            let chain = self.layout.chain_of(index);
            let tasks = chain.map(|chain| chain.first_task..chain.first_task + chain.parallelism).unwrap_or_default();
            OperatorStatus {
                id: node.id,
                name: node.name.clone(),
                role: Role::of(&self.spec.graph, index),
                metrics: self.metrics.get(index).cloned().unwrap_or_default(),
                latencies: self.latencies.get(index).cloned().unwrap_or_default(),
                tasks: tasks.filter_map(|task| self.statuses.get(task).cloned()).collect(),
            }
        });
        Arc::new(JobStatus {
            operators: operators.collect(),
            edges: std::mem::take(&mut self.edges),
            clock: Arc::clone(&self.spec.environment.clock),
            memory: Arc::clone(&self.pool),
            checkpoint: Arc::default(),
        })
    }

    fn coordinator(self, io: Arc<dyn IoPool>, status: &JobStatus) -> Coordinator {
        let books = self.books();
        Coordinator::new(CoordinatorSpec {
            store: self.spec.store.clone(),
            environment: self.spec.environment.clone(),
            io,
            mailbox: self.mailbox,
            tasks: self.layout.tasks(),
            operators: self.spec.graph.nodes.iter().map(|node| (node.id, node.name.clone())).collect(),
            barriers: self.barriers,
            gates: self.gates,
            edges: EdgeNames::of(&self.spec.graph),
            ledgers: self.ledgers,
            watches: self.watches,
            committers: self.committers,
            committed: self.committed,
            last_epoch: self.last_epoch,
            run: self.run,
            fingerprint: self.spec.fingerprint.clone(),
            plan: self.spec.plan.clone(),
            delivery: self.spec.config.delivery,
            books,
            interval: self.spec.config.checkpoint_interval,
            scheduler: self.scheduler,
            report: Arc::clone(&status.checkpoint),
        })
    }
}
