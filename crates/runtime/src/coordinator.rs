//! The checkpoint coordinator: begins barriers, collects acknowledgements, makes checkpoints exist, commits them.
//!
//! ```text
//! begin ─barriers▶ collecting ─every task acknowledged, every run written▶ publishing ─manifest durable▶ committing ─▶ done
//! ```
//!
//! One checkpoint is under way at a time. A task that has ended counts as having acknowledged every later epoch. Like a
//! task, the coordinator is a function, [`Coordinator::step`], that never blocks: what touches a disk is a job for the
//! [`IoPool`], whose answer comes back through the [`Mailbox`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ruslo_core::clock::Instant;
use ruslo_core::element::{Barrier, BarrierKind, EndReason};
use ruslo_core::environment::Environment;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::{NodeIndex, OperatorId};
use ruslo_core::plan::CompiledPlan;
use ruslo_core::sink::{Committable, Committer, Guarantee};
use ruslo_core::source::Discovered;
use ruslo_state::books::{Books, Ledger};
use ruslo_state::manifest::{InFlightRows, Manifest, OperatorEntry, RunRef, SubtaskEntry};
use ruslo_state::savepoint::Saved;
use ruslo_state::store::CheckpointStore;
use ruslo_state::table::TableSnapshot;

use crate::ask::{self, Answer, Ask, Then};
use crate::chain::MemberSnapshot;
use crate::channel::Gate;
use crate::compaction::Compaction;
use crate::discovery::Watch;
use crate::in_flight::{EdgeNames, InFlight};
use crate::ledger::SourceLedger;
use crate::panic::caught;
use crate::planted::{Bug, planted};
use crate::scheduler::{Scheduler, TaskIndex, lock};
use crate::source::{Barriers, SourceSnapshot};

/// A piece of work that may block.
pub type IoJob = Box<dyn FnOnce() + Send>;

/// Runs work that may block, off the task threads.
pub trait IoPool: Send + Sync {
    /// Runs `job` some time.
    fn submit(&self, job: IoJob);
}

/// A task's answer to a barrier, or its farewell.
#[derive(Debug)]
pub struct Ack {
    /// Which task.
    pub task: TaskIndex,
    /// The barrier's epoch; for a farewell the first epoch that the task takes no part in.
    pub epoch: Epoch,
    /// What its operators put into the checkpoint.
    pub members: Vec<MemberSnapshot>,
    /// What its source puts into the checkpoint.
    pub source: Option<(NodeIndex, SourceSnapshot)>,
    /// What the barrier has overtaken before it.
    pub in_flight: Vec<InFlight>,
    /// Why it ended, if it did.
    pub end: Option<EndReason>,
}

/// What the coordinator is told.
#[derive(Debug)]
pub enum Message {
    /// A task passed a barrier or ended.
    Ack(Ack),
    /// A task, or a job of the I/O pool, met an error.
    Failed(Error),
    /// The runs of one task are written.
    Written(Written),
    /// The manifest is durable.
    Published,
    /// The output of the epoch is visible.
    Committed,
    /// What has appeared in the watched input of a source.
    Discovered(NodeIndex, Discovered),
    /// Somebody wants the job to stop at a checkpoint.
    Stop,
    /// Somebody wants a savepoint, or an end, and to be told of it.
    Ask(Ask),
    /// A savepoint is made, or failed.
    Saved(Ask, Result<Saved>),
    /// Somebody holds more than is good until the next checkpoint.
    CheckpointWanted,
}

/// What one task has in the store.
#[derive(Debug)]
pub struct Written {
    /// Its operators, each with its node and subtask.
    entries: Vec<(NodeIndex, usize, SubtaskEntry)>,
    /// What was overtaken before the first of them.
    in_flight: Vec<InFlightRows>,
}

/// Where messages for the coordinator wait.
pub struct Mailbox {
    queue: Mutex<VecDeque<Message>>,
    scheduler: Arc<dyn Scheduler>,
    coordinator: TaskIndex,
}

impl Mailbox {
    /// An empty mailbox of the coordinator, which has the number `coordinator` at the scheduler.
    pub fn new(scheduler: Arc<dyn Scheduler>, coordinator: TaskIndex) -> Self {
        Self { queue: Mutex::default(), scheduler, coordinator }
    }

    /// Leaves a message.
    pub fn post(&self, message: Message) {
        lock(&self.queue).push_back(message);
        self.scheduler.wake(self.coordinator);
    }

    pub(crate) fn take(&self) -> Option<Message> {
        lock(&self.queue).pop_front()
    }
}

/// How a job ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The input is read to its end and all output is committed.
    Finished,
    /// It stopped at this checkpoint, from which it can resume.
    Stopped(Epoch),
}

/// The last checkpoint, for people to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckpointReport {
    /// Which.
    pub epoch: Epoch,
    /// From the first barrier to the commit.
    pub took: Duration,
    /// When it was done.
    pub at: Instant,
    /// Bytes of state that it wrote.
    pub bytes_written: u64,
    /// Bytes of state that it consists of, older checkpoints' files among them.
    pub bytes: u64,
    /// How many checkpoints this start of the job has completed.
    pub completed: u64,
    /// From the first barrier until the last task had passed it on: the longest that a barrier was under way.
    pub acknowledged: Duration,
    /// From then until every run was written.
    pub written: Duration,
    /// From then until the manifest was durable.
    pub published: Duration,
    /// Rows that the barrier has overtaken, and that it therefore has in flight.
    pub rows_in_flight: u64,
}

/// A sink's committer, shared with the job that is committing.
pub type SharedCommitter = Arc<Mutex<Box<dyn Committer>>>;

/// What a coordinator is made of.
pub struct CoordinatorSpec {
    /// Where checkpoints are kept.
    pub store: CheckpointStore,
    /// The world outside.
    pub environment: Environment,
    /// Who runs what blocks.
    pub io: Arc<dyn IoPool>,
    /// Where messages come from.
    pub mailbox: Arc<Mailbox>,
    /// How many tasks there are.
    pub tasks: usize,
    /// Every operator's id and name, by node.
    pub operators: Vec<(OperatorId, String)>,
    /// The source tasks, and where each takes its barriers.
    pub barriers: Vec<(TaskIndex, Barriers)>,
    /// The other tasks' gates, each with its senders; none, if no barrier may overtake anything.
    pub gates: Vec<ReceivingGate>,
    /// The graph's edges.
    pub edges: EdgeNames,
    /// How far each source has been read at the start.
    pub ledgers: BTreeMap<NodeIndex, SourceLedger>,
    /// The inputs that are watched.
    pub watches: Vec<Watch>,
    /// The sinks' committers.
    pub committers: BTreeMap<NodeIndex, SharedCommitter>,
    /// Rows of each sink that have been committed before.
    pub committed: BTreeMap<NodeIndex, u64>,
    /// The last epoch that was ever begun.
    pub last_epoch: Epoch,
    /// See [`Manifest::run`].
    pub run: String,
    /// See [`Manifest::fingerprint`].
    pub fingerprint: String,
    /// See [`Manifest::plan`].
    pub plan: Option<CompiledPlan>,
    /// See [`Manifest::delivery`].
    pub delivery: Option<Guarantee>,
    /// What must add up; none, if the run's counts are not all known.
    pub books: Option<Books>,
    /// How often a checkpoint begins; never, if none.
    pub interval: Option<Duration>,
    /// Who wakes tasks.
    pub scheduler: Arc<dyn Scheduler>,
    /// Where the last checkpoint is told.
    pub report: Arc<Mutex<Option<CheckpointReport>>>,
}

/// Where a task's elements wait.
pub struct ReceivingGate {
    /// The task.
    pub receiver: TaskIndex,
    /// Who sends to it.
    pub senders: Vec<TaskIndex>,
    /// Where.
    pub gate: Arc<Gate>,
}

/// The coordinator of one job.
pub struct Coordinator {
    spec: CoordinatorSpec,
    last_epoch: Epoch,
    due: Option<Instant>,
    current: Option<Checkpoint>,
    ended: BTreeMap<TaskIndex, EndReason>,
    /// Farewells that belong to the next checkpoint.
    farewells: Vec<Ack>,
    /// What ended tasks put into every later checkpoint.
    remains: BTreeMap<(NodeIndex, usize), SubtaskEntry>,
    stop_wanted: bool,
    /// What was asked for and waits for the next checkpoint.
    asks: Vec<Ask>,
    /// Who is told when the job is over.
    leaving: Vec<(Ask, Option<Saved>)>,
    /// Savepoints that are being made of files that must stay meanwhile.
    saving: usize,
    /// How the job ended, as long as a savepoint is being made.
    over: Option<Outcome>,
    checkpoint_wanted: bool,
    completed: u64,
    compaction: Compaction,
}

/// The checkpoint that is under way.
struct Checkpoint {
    epoch: Epoch,
    kind: BarrierKind,
    begun: Instant,
    acknowledged: BTreeSet<TaskIndex>,
    /// Tasks whose senders have all ended, and that were told of the barrier by nobody else.
    told: BTreeSet<TaskIndex>,
    times: Times,
    /// Tasks whose runs are being written.
    writing: usize,
    subtasks: BTreeMap<(NodeIndex, usize), SubtaskEntry>,
    in_flight: BTreeMap<NodeIndex, Vec<InFlightRows>>,
    committables: BTreeMap<NodeIndex, Vec<Committable>>,
    asks: Vec<Ask>,
    phase: Phase,
}

/// When a checkpoint came how far.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    acknowledged: Instant,
    written: Instant,
    published: Instant,
}

impl Checkpoint {
    /// Bytes of state that were written for it, and of all that it refers to.
    fn bytes(&self) -> (u64, u64) {
        let tables = || self.subtasks.values().flat_map(|entry| entry.tables.values().flatten());
        let runs = || tables().chain(self.runs_in_flight());
        let own = runs().filter(|run| run.is_of(self.epoch)).map(|run| run.length).sum();
        (own, runs().map(|run| run.length).sum())
    }

    fn runs_in_flight(&self) -> impl Iterator<Item = &RunRef> {
        self.in_flight.values().flatten().flat_map(|rows| &rows.batches)
    }

    fn report(&self, now: Instant, completed: u64) -> CheckpointReport {
        let (bytes_written, bytes) = self.bytes();
        let Times { acknowledged, written, published } = self.times;
        CheckpointReport {
            epoch: self.epoch,
            took: now.saturating_sub(self.begun),
            at: now,
            bytes_written,
            bytes,
            completed,
            acknowledged: acknowledged.saturating_sub(self.begun),
            written: written.saturating_sub(acknowledged),
            published: published.saturating_sub(written),
            rows_in_flight: self.runs_in_flight().map(|run| run.rows).sum(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Collecting,
    Publishing,
    Committing,
}

impl Coordinator {
    /// A coordinator that has begun nothing.
    pub fn new(spec: CoordinatorSpec) -> Self {
        Self {
            last_epoch: spec.last_epoch,
            due: None,
            current: None,
            ended: BTreeMap::new(),
            farewells: Vec::new(),
            remains: BTreeMap::new(),
            stop_wanted: false,
            asks: Vec::new(),
            leaving: Vec::new(),
            saving: 0,
            over: None,
            checkpoint_wanted: false,
            completed: 0,
            compaction: Compaction::default(),
            spec,
        }
    }

    /// Takes all messages and does what is due; how the job ended, once it has.
    ///
    /// # Errors
    /// The first error of a task or an I/O job: the job has failed.
    pub fn step(&mut self) -> Result<Option<Outcome>> {
        while let Some(message) = self.spec.mailbox.take() {
            if let Some(outcome) = self.on_message(message)? {
                return Ok(Some(outcome));
            }
        }
        self.begin_if_due()?;
        self.discover_if_due();
        Ok(None)
    }

    fn discover_if_due(&mut self) {
        let now = self.spec.environment.clock.now();
        let mut questions = Vec::new();
        for watch in self.spec.watches.iter_mut().filter(|watch| watch.next.is_some_and(|next| next <= now)) {
            let known = self.spec.ledgers.get(&watch.node).map(SourceLedger::names).unwrap_or_default();
            questions.extend(watch.ask(now, known, &self.spec.environment).map(|question| (watch.node, question)));
        }
        for (node, question) in questions {
            self.submit(move || question().map(|discovered| Message::Discovered(node, discovered)));
        }
    }

    fn on_discovered(&mut self, node: NodeIndex, discovered: Discovered) {
        let now = self.spec.environment.clock.now();
        let watch = self.spec.watches.iter_mut().find(|watch| watch.node == node);
        if let Some((watch, ledger)) = watch.zip(self.spec.ledgers.get_mut(&node)) {
            watch.take(discovered, ledger, now);
        }
    }

    /// When to step again even if no message comes.
    pub fn due(&self) -> Option<Instant> {
        let is_periodic = self.current.is_none() && self.spec.interval.is_some();
        let looks = self.spec.watches.iter().filter_map(|watch| watch.next);
        looks.chain(self.due.filter(|_| is_periodic)).min()
    }

    fn on_message(&mut self, message: Message) -> Result<Option<Outcome>> {
        match message {
            Message::Failed(error) => return Err(error),
            Message::Stop => self.stop_wanted = true,
            Message::Ask(ask) => self.asks.push(ask),
            Message::Saved(ask, saved) => return Ok(self.on_saved(ask, saved)),
            Message::CheckpointWanted => self.checkpoint_wanted = true,
            Message::Ack(ack) => self.on_ack(ack)?,
            Message::Written(written) => {
                self.on_written(written);
                self.publish_if_complete()?;
            }
            Message::Discovered(node, discovered) => self.on_discovered(node, discovered),
            Message::Published => self.on_published()?,
            Message::Committed => return Ok(self.on_committed()),
        }
        Ok(None)
    }

    fn on_written(&mut self, Written { entries, in_flight }: Written) {
        let Some(current) = &mut self.current else { return };
        current.writing -= 1;
        if let Some((head, ..)) = entries.first().filter(|_| !in_flight.is_empty()) {
            current.in_flight.entry(*head).or_default().extend(in_flight);
        }
        for (node, index, entry) in &entries {
            // Other subtasks may need them after a restore, though this one has ended.
            let remains = self.remains.get_mut(&(*node, *index));
            let unkeyed = |runs: &[RunRef]| runs.iter().all(|run| run.layout.redistribution().is_some());
            let rows = entry.tables.iter().filter(|(_, runs)| unkeyed(runs));
            remains.into_iter().for_each(|remains| remains.tables = rows.clone().map(owned).collect());
        }
        current.subtasks.extend(entries.into_iter().map(|(node, index, entry)| ((node, index), entry)));
    }

    fn all_ended(&self) -> bool {
        self.ended.len() == self.spec.tasks
    }

    fn begin_if_due(&mut self) -> Result<()> {
        if self.current.is_some() || self.over.is_some() {
            return Ok(());
        }
        let now = self.spec.environment.clock.now();
        let due = *self.due.get_or_insert(now + self.spec.interval.unwrap_or(Duration::MAX / 4));
        let is_asked = self.stop_wanted || self.checkpoint_wanted || !self.asks.is_empty();
        if self.all_ended() || is_asked || (self.spec.interval.is_some() && now >= due) {
            self.begin(now)?;
        }
        Ok(())
    }

    fn begin(&mut self, now: Instant) -> Result<()> {
        let asks = std::mem::take(&mut self.asks);
        let kind = ask::kind_of(&asks, self.stop_wanted);
        self.checkpoint_wanted = false;
        self.last_epoch = self.last_epoch.next();
        let barrier = Barrier { epoch: self.last_epoch, kind };
        let farewells = std::mem::take(&mut self.farewells);
        let gone = self.ended.keys().copied().filter(|task| farewells.iter().all(|ack| ack.task != *task)).collect();
        self.current = Some(Checkpoint {
            epoch: barrier.epoch,
            kind,
            begun: now,
            acknowledged: gone,
            told: BTreeSet::new(),
            times: Times::default(),
            writing: 0,
            subtasks: self.remains.clone(),
            in_flight: BTreeMap::new(),
            committables: BTreeMap::new(),
            asks,
            phase: Phase::Collecting,
        });
        for (task, barriers) in self.spec.barriers.iter().filter(|(task, _)| !self.ended.contains_key(task)) {
            lock(barriers).push_back(barrier);
            self.spec.scheduler.wake(*task);
        }
        farewells.into_iter().try_for_each(|ack| self.on_ack_of_current(ack))?;
        self.tell_the_last();
        self.publish_if_complete()
    }

    /// To tasks whose senders have all ended nobody brings the barrier: they hear of it from here.
    fn tell_the_last(&mut self) {
        let Some(current) = &mut self.current else { return };
        let barrier = Barrier { epoch: current.epoch, kind: current.kind };
        for gate in &self.spec.gates {
            let is_last = gate.senders.iter().all(|sender| self.ended.contains_key(sender));
            let is_waited_for = !current.acknowledged.contains(&gate.receiver);
            if is_last && is_waited_for && current.told.insert(gate.receiver) {
                gate.gate.announce(barrier);
            }
        }
    }

    fn on_ack(&mut self, ack: Ack) -> Result<()> {
        if let Some(reason) = ack.end {
            self.ended.insert(ack.task, reason);
        }
        let current = self.current.as_ref().map(|current| current.epoch);
        if current == Some(ack.epoch) {
            let has_ended = ack.end.is_some();
            self.on_ack_of_current(ack)?;
            if has_ended {
                self.tell_the_last();
            }
            return Ok(());
        }
        if ack.end.is_some() && ack.epoch == self.last_epoch.next() {
            self.farewells.push(ack);
            return Ok(());
        }
        Err(Error::internal(format!("task {} acknowledged epoch {} out of turn", ack.task, ack.epoch)))
    }

    fn on_ack_of_current(&mut self, ack: Ack) -> Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if !current.acknowledged.insert(ack.task) {
            return Err(Error::internal(format!("task {} acknowledged epoch {} twice", ack.task, ack.epoch)));
        }
        if let Some((node, snapshot)) = ack.source
            && let Some(ledger) = self.spec.ledgers.get_mut(&node)
        {
            ledger.apply(snapshot)?;
        }
        for member in ack.members.iter().filter(|member| !member.committables.is_empty()) {
            current.committables.entry(member.node).or_default().extend(member.committables.iter().cloned());
        }
        current.writing += 1;
        current.times.acknowledged = self.spec.environment.clock.now();
        if ack.end.is_some() {
            self.keep_remains(&ack.members);
        }
        self.write_runs(ack.epoch, ack.members, ack.in_flight);
        Ok(())
    }

    /// An ended task has fired all it had; what it counted stays in every later checkpoint.
    fn keep_remains(&mut self, members: &[MemberSnapshot]) {
        for member in members {
            let mut entry = entry_of(member, BTreeMap::new());
            entry.counts.pending_rows = 0;
            self.remains.insert((member.node, member.subtask.index), entry);
        }
    }

    fn write_runs(&self, epoch: Epoch, members: Vec<MemberSnapshot>, in_flight: Vec<InFlight>) {
        let tables = members.iter().flat_map(|member| member.tables.values());
        let keyed = tables.filter_map(TableSnapshot::keyed).cloned().collect();
        let (store, edges) = (self.spec.store.clone(), self.spec.edges.clone());
        let ids: Vec<_> = self.spec.operators.iter().map(|(id, _)| *id).collect();
        self.submit(move || {
            let id = |member: &MemberSnapshot| {
                ids.get(member.node).copied().ok_or_else(|| Error::internal("an operator has no id"))
            };
            let in_flight = match members.first().filter(|_| !in_flight.is_empty()) {
                Some(head) => edges.write(&store, epoch, id(head)?, head.subtask, &in_flight)?,
                None => Vec::new(),
            };
            let entries = members.iter().map(|member| {
                Ok((member.node, member.subtask.index, write_member(&store, epoch, id(member)?, member)?))
            });
            Ok(Message::Written(Written { entries: entries.collect::<Result<_>>()?, in_flight }))
        });
        let mailbox = Arc::clone(&self.spec.mailbox);
        let failed = move |error| mailbox.post(Message::Failed(error));
        self.compaction.add(keyed, self.spec.io.as_ref(), failed);
    }

    /// Runs `job` on the I/O pool; its answer, or its error, comes back as a message.
    fn submit(&self, job: impl FnOnce() -> Result<Message> + Send + 'static) {
        let mailbox = Arc::clone(&self.spec.mailbox);
        // Who panics here would else be waited for without end.
        self.spec.io.submit(Box::new(move || {
            mailbox.post(caught("what the coordinator had asked for", job).unwrap_or_else(Message::Failed));
        }));
    }

    fn publish_if_complete(&mut self) -> Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let complete = current.acknowledged.len() == self.spec.tasks && current.writing == 0;
        if current.phase != Phase::Collecting || !complete {
            return Ok(());
        }
        current.phase = Phase::Publishing;
        current.times.written = self.spec.environment.clock.now();
        if planted(Bug::CommitBeforeDurable) {
            self.submit_commit(|| Ok(Message::Published));
            return Ok(());
        }
        let (store, manifest) = (self.spec.store.clone(), self.manifest());
        check_books(&manifest)?;
        self.submit(move || store.publish(&manifest).map(|()| Message::Published));
        Ok(())
    }

    fn on_published(&mut self) -> Result<()> {
        if let Some(current) = &mut self.current {
            current.phase = Phase::Committing;
            current.times.published = self.spec.environment.clock.now();
        }
        let (store, epoch) = (self.spec.store.clone(), self.last_epoch);
        if planted(Bug::CommitBeforeDurable) {
            let manifest = self.manifest();
            self.submit(move || store.publish(&manifest).map(|()| Message::Committed));
        } else {
            let is_saving = self.saving > 0;
            self.submit_commit(move || {
                if !is_saving {
                    store.collect_garbage(epoch)?;
                }
                Ok(Message::Committed)
            });
        }
        Ok(())
    }

    fn submit_commit(&self, then: impl FnOnce() -> Result<Message> + Send + 'static) {
        let committables = self.current.as_ref().map(|current| current.committables.clone()).unwrap_or_default();
        let committers = self.spec.committers.clone();
        self.submit(move || {
            for (node, committables) in &committables {
                if let Some(committer) = committers.get(node) {
                    lock(committer).commit(committables)?;
                }
            }
            then()
        });
    }

    fn on_committed(&mut self) -> Option<Outcome> {
        let manifest = self.manifest();
        let current = self.current.take()?;
        let now = self.spec.environment.clock.now();
        self.completed += 1;
        for ((node, _), entry) in &current.subtasks {
            if let Some(committed) = self.spec.committed.get_mut(node) {
                *committed += entry.counts.pending_rows;
            }
        }
        let report = current.report(now, self.completed);
        *lock(&self.spec.report) = Some(report);
        tracing::debug!(epoch = current.epoch.0, took_ms = report.took.as_millis() as u64, "checkpoint");
        self.due = None;
        if self.is_finished() {
            self.over = Some(Outcome::Finished);
        } else if current.kind.end() == Some(EndReason::Stop) {
            self.over = Some(Outcome::Stopped(current.epoch));
        }
        self.answer(current.asks, manifest);
        self.conclude()
    }

    /// Answers what was asked of the checkpoint that `manifest` is, now or when the job is over.
    fn answer(&mut self, asks: Vec<Ask>, manifest: Manifest) {
        let manifest = Arc::new(manifest);
        for ask in asks {
            if ask.target.is_none() {
                self.leaving.push((ask, None));
            } else if manifest.finished {
                ask.reply(Err(ask::nothing_left()));
            } else {
                self.saving += 1;
                let (store, mailbox, manifest) =
                    (self.spec.store.clone(), Arc::clone(&self.spec.mailbox), Arc::clone(&manifest));
                self.spec.io.submit(Box::new(move || {
                    let saved = ask.save(&store, &manifest);
                    mailbox.post(Message::Saved(ask, saved));
                }));
            }
        }
    }

    fn on_saved(&mut self, ask: Ask, saved: Result<Saved>) -> Option<Outcome> {
        self.saving = self.saving.saturating_sub(1);
        match (saved, ask.then) {
            (Ok(saved), Then::GoOn) => ask.reply(Ok(Answer { epoch: saved.epoch, saved: Some(saved), ended: None })),
            (Ok(saved), Then::Stop | Then::Drain) => self.leaving.push((ask, Some(saved))),
            (Err(error), _) => ask.reply(Err(error)),
        }
        self.conclude()
    }

    /// How the job ended, once nothing is left to be done; tells who waits for it.
    fn conclude(&mut self) -> Option<Outcome> {
        let outcome = self.over.filter(|_| self.saving == 0)?;
        for (ask, saved) in self.leaving.drain(..) {
            let epoch = saved.as_ref().map_or(self.last_epoch, |saved| saved.epoch);
            ask.reply(Ok(Answer { epoch, saved, ended: Some(outcome) }));
        }
        self.over.take()
    }

    /// Whether every task has ended because the input has, and has said farewell in a checkpoint.
    fn is_finished(&self) -> bool {
        self.all_ended() && self.farewells.is_empty() && self.ended.values().all(|reason| *reason == EndReason::Drain)
    }

    fn manifest(&self) -> Manifest {
        let mut operators: BTreeMap<OperatorId, OperatorEntry> = BTreeMap::new();
        let current = self.current.as_ref();
        let subtasks = current.map(|current| current.subtasks.clone()).unwrap_or_default();
        for (node, (id, name)) in self.spec.operators.iter().enumerate() {
            let of_node = subtasks.iter().filter(|((of, _), _)| *of == node).map(|(_, entry)| entry.clone());
            let mut of_node: Vec<_> = of_node.collect();
            if let Some(first) = of_node.first_mut() {
                first.counts.committed_rows = self.spec.committed.get(&node).copied().unwrap_or_default();
            }
            let committables = current.and_then(|current| current.committables.get(&node).cloned()).unwrap_or_default();
            let lineages = self.spec.ledgers.get(&node).map(SourceLedger::lineages).unwrap_or_default();
            let in_flight = current.and_then(|current| current.in_flight.get(&node).cloned()).unwrap_or_default();
            let entry = OperatorEntry { name: name.clone(), subtasks: of_node, lineages, committables, in_flight };
            operators.insert(*id, entry);
        }
        Manifest {
            epoch: self.last_epoch,
            run: self.spec.run.clone(),
            fingerprint: self.spec.fingerprint.clone(),
            plan: self.spec.plan.clone(),
            repeats: None,
            attempt: None,
            savepoint: None,
            delivery: self.spec.delivery,
            books: self.spec.books.clone(),
            finished: self.is_finished(),
            written_at: self.spec.environment.clock.wall(),
            operators,
        }
    }
}

/// Rows that do not add up are our own fault: told wherever it happens, and where bugs are looked for, an error.
fn check_books(manifest: &Manifest) -> Result<()> {
    let Some(wrong) = Ledger::of(manifest).and_then(|ledger| ledger.imbalance()) else { return Ok(()) };
    let sentence = format!("the ledger of checkpoint {} does not balance: {wrong}", manifest.epoch);
    if cfg!(any(debug_assertions, feature = "planted-bugs")) {
        return Err(Error::internal(sentence));
    }
    tracing::error!("{sentence}; please report it, with what `ruslo ledger` says");
    Ok(())
}

fn owned((name, runs): (&String, &Vec<RunRef>)) -> (String, Vec<RunRef>) {
    (name.clone(), runs.clone())
}

fn write_member(
    store: &CheckpointStore,
    epoch: Epoch,
    id: OperatorId,
    member: &MemberSnapshot,
) -> Result<SubtaskEntry> {
    let mut tables = BTreeMap::new();
    for (name, table) in &member.tables {
        let runs = store.write_runs(epoch, id, member.subtask, table, name)?;
        if !runs.is_empty() {
            tables.insert(name.clone(), runs);
        }
    }
    Ok(entry_of(member, tables))
}

fn entry_of(member: &MemberSnapshot, tables: BTreeMap<String, Vec<RunRef>>) -> SubtaskEntry {
    let (watermark, counts, other_inputs) = (member.watermark, member.counts, member.other_inputs.clone());
    SubtaskEntry { watermark, counts, other_inputs, tables }
}
