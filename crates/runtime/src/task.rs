//! A task: one subtask of a chain of operators, with what comes in before it and what goes out behind it.
//!
//! The task loop is a function, [`Task::step`]: it does one bounded piece of work and says what it waits for. Nothing
//! in it blocks, so the same code runs on threads and under a seeded scheduler.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ruslo_core::clock::{Clock, Instant};
use ruslo_core::element::{Element, EndReason, Watermark};
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::NodeIndex;
use ruslo_core::metrics::OperatorMetrics;
use ruslo_core::operator::{Port, Subtask};
use ruslo_core::time::Timestamp;

use crate::activity::{Activity, Doing};
use crate::alignment::Alignment;
use crate::chain::{Chain, Leaving, MemberSnapshot};
use crate::coordinator::{Ack, IoPool, Mailbox, Message};
use crate::exchange::{Outlet, Outputs, watermark};
use crate::in_flight::InFlight;
use crate::input::{Accept, Event, Inputs};
use crate::io::TaskIo;
use crate::scheduler::{Scheduler, TaskIndex};
use crate::source::{SourceHead, SourcePoll, SourceSnapshot};

/// Where a task stands. It only moves downwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TaskState {
    /// Reads, works, writes.
    Running,
    /// Its end has left the chain; the last elements wait for room.
    Finishing,
    /// Nothing is left to do.
    Finished,
    /// It met an error and will do nothing more.
    Failed,
}

/// What one step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Something was done; there may be more.
    Worked,
    /// Nothing can be done until the task is woken, or until this time.
    Blocked(Option<Instant>),
    /// Nothing is left to do.
    Finished,
}

/// What others may see of a task while it runs.
#[derive(Debug)]
pub struct TaskStatus {
    input_watermark: AtomicI64,
    watermark: AtomicI64,
    alignment_nanos: AtomicU64,
    activity: Activity,
}

impl TaskStatus {
    /// The last watermark that left the task.
    pub fn watermark(&self) -> Timestamp {
        Timestamp(self.watermark.load(Ordering::Relaxed))
    }

    /// The watermark of all the task's inputs together; a source has none.
    pub fn input_watermark(&self) -> Timestamp {
        Timestamp(self.input_watermark.load(Ordering::Relaxed))
    }

    /// The merged watermark of the inputs rose.
    pub(crate) fn merged(&self, watermark: Timestamp) {
        self.input_watermark.store(watermark.millis(), Ordering::Relaxed);
    }

    /// Whether the task waits for a full receiver.
    pub fn is_backpressured(&self) -> bool {
        self.activity.doing() == Doing::Backpressured
    }

    /// What the task spends its time on.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// How long the last barrier waited from the first input to the last.
    pub fn alignment(&self) -> Duration {
        Duration::from_nanos(self.alignment_nanos.load(Ordering::Relaxed))
    }

    /// A barrier has come on every input, so long after the first.
    pub(crate) fn aligned(&self, took: Duration) {
        self.alignment_nanos.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Default for TaskStatus {
    fn default() -> Self {
        let unknown = || AtomicI64::new(i64::MIN);
        let (alignment_nanos, activity) = Default::default();
        Self { input_watermark: unknown(), watermark: unknown(), alignment_nanos, activity }
    }
}

/// Where a task's elements come from.
pub enum Head {
    /// From outside.
    Source {
        /// Reads splits.
        head: SourceHead,
        /// Which operator of the graph.
        node: NodeIndex,
        /// Which subtask.
        subtask: Subtask,
        /// What it counts.
        metrics: Arc<OperatorMetrics>,
    },
    /// From other tasks.
    Inputs(Inputs),
}

/// One subtask of a chain.
pub struct Task {
    index: TaskIndex,
    name: String,
    state: TaskState,
    head: Head,
    chain: Chain,
    outputs: Outputs,
    clock: Arc<dyn Clock>,
    coordinator: Arc<Mailbox>,
    status: Arc<TaskStatus>,
    /// Whether it takes barriers while it waits for a full receiver.
    passes_full: bool,
    /// A barrier is on its way through the chain.
    has_barrier: bool,
    /// Of the barrier or end that is on its way through the chain.
    source_snapshot: Option<SourceSnapshot>,
    /// What that barrier has overtaken.
    in_flight: Vec<InFlight>,
    /// When a source read the oldest row of what the chain is working on.
    born: Instant,
    /// Timers have fired last: then what comes in has its turn.
    has_fired: bool,
    /// What operators want to know of the world outside.
    io: TaskIo,
    /// The end has come in: nothing comes behind it.
    has_end: bool,
}

/// So long at most a task that has timers waits before it looks at the calendar again, which may jump.
const CALENDAR_MAX: Duration = Duration::from_secs(10);

/// What a task is made of.
pub struct TaskSpec {
    /// Its number.
    pub index: TaskIndex,
    /// What a person calls it: its operators and which subtask.
    pub name: String,
    /// Where its elements come from.
    pub head: Head,
    /// What is done to them.
    pub chain: Chain,
    /// Where they go.
    pub outputs: Outputs,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Who wants to know of barriers and ends.
    pub coordinator: Arc<Mailbox>,
    /// What others may see.
    pub status: Arc<TaskStatus>,
    /// What it does about barriers.
    pub alignment: Alignment,
    /// Who wakes it when a request of its operators is answered.
    pub scheduler: Arc<dyn Scheduler>,
    /// Who does what its operators ask for.
    pub io: Arc<dyn IoPool>,
}

/// How long to wait at `wall` for a timer.
fn until_timer(at: Timestamp, wall: Timestamp) -> Duration {
    let millis = u64::try_from(at.millis().saturating_sub(wall.millis())).unwrap_or_default();
    Duration::from_millis(millis).min(CALENDAR_MAX)
}

impl Task {
    /// A task that has done nothing yet.
    pub fn new(spec: TaskSpec) -> Self {
        let TaskSpec { index, name, head, chain, outputs, clock, coordinator, status, alignment, scheduler, io } = spec;
        Self {
            index,
            name,
            state: TaskState::Running,
            head,
            chain,
            outputs: outputs.forcing(alignment.overtakes()),
            clock,
            coordinator,
            status,
            passes_full: alignment.overtakes(),
            has_barrier: false,
            source_snapshot: None,
            in_flight: Vec::new(),
            born: Instant::ZERO,
            has_fired: false,
            io: TaskIo::new(index, scheduler, io),
            has_end: false,
        }
    }

    /// What a person calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it stands.
    pub fn state(&self) -> TaskState {
        self.state
    }

    /// Does one bounded piece of work. An error fails the task for good, and is for the coordinator to know.
    pub fn step(&mut self) -> Step {
        if self.state >= TaskState::Finished {
            return Step::Finished;
        }
        self.turn_to(Doing::Busy);
        match self.try_step() {
            Ok(step) => {
                self.turn_to(match step {
                    Step::Worked => Doing::Busy,
                    Step::Blocked(_) if self.outputs.has_pending() => Doing::Backpressured,
                    Step::Blocked(_) | Step::Finished => Doing::Idle,
                });
                step
            }
            Err(error) => {
                self.state = TaskState::Failed;
                self.coordinator.post(Message::Failed(error));
                Step::Finished
            }
        }
    }

    fn turn_to(&self, doing: Doing) {
        if self.status.activity.doing() != doing {
            self.status.activity.turn_to(doing, self.clock.now());
        }
    }

    fn try_step(&mut self) -> Result<Step> {
        if self.outputs.has_pending() && !self.send()? {
            return self.pass_full();
        }
        if self.state == TaskState::Finishing {
            return self.transition(TaskState::Finished).map(|()| Step::Finished);
        }
        let now = self.clock.now();
        if self.outputs.is_due(now) {
            self.outputs.flush()?;
        }
        if self.chain.has_work() {
            return self.work();
        }
        if self.answer(now)? {
            return self.deliver();
        }
        let timer = self.chain.next_timer().map(|at| (at, self.clock.wall()));
        // An operator that waits for an answer is in the middle of some work.
        let is_due = timer.is_some_and(|(at, wall)| at <= wall) && !self.chain.is_waiting();
        if is_due && !self.has_fired {
            return self.fire(now);
        }
        self.has_fired = false;
        let accept = if self.chain.is_waiting() { Accept::Barriers } else { Accept::All };
        let is_at_barrier = self.has_barrier && self.chain.is_waiting();
        let polled = if is_at_barrier { SourcePoll::Blocked(None) } else { self.poll_head(now, accept)? };
        match polled {
            SourcePoll::Event(event) => {
                self.take_in(event);
                self.work()
            }
            SourcePoll::Worked => Ok(Step::Worked),
            SourcePoll::Blocked(_) if is_due => self.fire(now),
            SourcePoll::Blocked(until) => {
                let timer = timer.filter(|_| accept == Accept::All).map(|(at, wall)| now + until_timer(at, wall));
                self.wait(until.into_iter().chain(timer).chain(self.io.deadline()).min())
            }
        }
    }

    /// Calls an operator whose timers are due, with a bounded number of them.
    fn fire(&mut self, now: Instant) -> Result<Step> {
        self.has_fired = true;
        self.born = now;
        self.chain.fire_timers(self.clock.wall())?;
        self.deliver()
    }

    /// Gives an operator the next answer, if there is one.
    fn answer(&mut self, now: Instant) -> Result<bool> {
        let Some((member, done)) = self.io.next(now) else { return Ok(false) };
        self.born = now;
        self.chain.answer(member, done).map(|()| true)
    }

    /// Before a full receiver a task does nothing but let a barrier pass, if it may.
    fn pass_full(&mut self) -> Result<Step> {
        if !self.passes_full || self.state != TaskState::Running {
            return Ok(Step::Blocked(None));
        }
        if !self.has_barrier {
            match self.poll_head(self.clock.now(), Accept::Barriers)? {
                SourcePoll::Event(barrier) => self.take_in(barrier),
                SourcePoll::Worked => return Ok(Step::Worked),
                SourcePoll::Blocked(until) => return Ok(Step::Blocked(until)),
            }
        }
        self.work()
    }

    /// Nothing to do: what waited for company goes out alone.
    fn wait(&mut self, until: Option<Instant>) -> Result<Step> {
        if self.outputs.has_small() {
            self.outputs.flush()?;
            self.send()?;
            return Ok(Step::Worked);
        }
        Ok(Step::Blocked(until))
    }

    fn work(&mut self) -> Result<Step> {
        if !self.has_barrier && self.chain.is_head_busy() {
            let now = self.clock.now();
            if let SourcePoll::Event(barrier) = self.poll_head(now, Accept::Barriers)? {
                self.take_in(barrier);
            }
        }
        self.chain.step()?;
        self.deliver()
    }

    /// Passes on what has left the chain.
    fn deliver(&mut self) -> Result<Step> {
        while let Some(leaving) = self.chain.pop() {
            self.dispatch(leaving)?;
        }
        for (member, request) in self.chain.take_requests() {
            self.io.submit(member, request, self.clock.now());
        }
        self.send()?;
        Ok(Step::Worked)
    }

    fn poll_head(&mut self, now: Instant, accept: Accept) -> Result<SourcePoll> {
        if self.has_end {
            return Ok(SourcePoll::Blocked(None));
        }
        match &mut self.head {
            Head::Source { head, node, .. } => {
                let polled = head.poll(now, accept == Accept::Barriers)?;
                self.born = now;
                if let Some(letters) = head.take_aside() {
                    self.outputs.batch(Outlet::Side(*node, Port::DEAD_LETTER), &letters, now, now)?;
                }
                Ok(polled)
            }
            Head::Inputs(inputs) => Ok(match inputs.next(accept)? {
                Some((event, born)) => {
                    self.born = born;
                    SourcePoll::Event(event)
                }
                None => SourcePoll::Blocked(inputs.deadline()),
            }),
        }
    }

    fn take_in(&mut self, event: Event) {
        if let Event::Barrier(_) = event {
            self.has_barrier = true;
            if let Head::Inputs(inputs) = &mut self.head {
                self.in_flight = inputs.take_in_flight();
            }
        }
        if let (Head::Source { head, .. }, Event::Barrier(_) | Event::End(..)) = (&mut self.head, &event) {
            // At this very point of the stream, not when the barrier has found its way through the chain.
            self.source_snapshot = Some(head.snapshot());
        }
        self.has_end |= matches!(event, Event::End(..));
        self.chain.push(event, self.born);
    }

    fn send(&mut self) -> Result<bool> {
        self.outputs.send()
    }

    fn dispatch(&mut self, leaving: Leaving) -> Result<()> {
        match leaving {
            Leaving::Batch(outlet, batch) => self.outputs.batch(outlet, &batch, self.born, self.clock.now()),
            Leaving::Control(Event::Watermark(at)) => {
                self.status.watermark.store(at.millis(), Ordering::Relaxed);
                self.outputs.control(&watermark(at), self.born)
            }
            Leaving::Control(Event::Idle) => self.outputs.control(&Element::Watermark(Watermark::Idle), self.born),
            Leaving::Control(Event::Barrier(barrier)) => {
                self.has_barrier = false;
                self.outputs.control(&Element::Barrier(barrier), self.born)?;
                let members = self.chain.take_snapshots();
                self.acknowledge(barrier.epoch, members, None);
                Ok(())
            }
            Leaving::Control(Event::End(_, reason)) => {
                self.outputs.control(&Element::End(reason), self.born)?;
                let members = self.chain.take_snapshots();
                self.acknowledge(self.chain.epoch().next(), members, Some(reason));
                self.transition(TaskState::Finishing)
            }
            Leaving::Control(event) => Err(Error::internal(format!("{event:?} left the chain of '{}'", self.name))),
        }
    }

    fn acknowledge(
        &mut self,
        epoch: ruslo_core::epoch::Epoch,
        mut members: Vec<MemberSnapshot>,
        end: Option<EndReason>,
    ) {
        let source = self.source_snapshot.take();
        if let Head::Source { head, node, subtask, metrics } = &self.head {
            members.push(MemberSnapshot {
                node: *node,
                subtask: *subtask,
                watermark: head.watermark(),
                counts: metrics.counts(),
                other_inputs: Vec::new(),
                tables: Default::default(),
                committables: Vec::new(),
            });
        }
        let node = match &self.head {
            Head::Source { node, .. } => Some(*node),
            Head::Inputs(_) => None,
        };
        let source = node.zip(source);
        let in_flight = std::mem::take(&mut self.in_flight);
        self.coordinator.post(Message::Ack(Ack { task: self.index, epoch, members, source, in_flight, end }));
    }

    fn transition(&mut self, to: TaskState) -> Result<()> {
        if to <= self.state {
            return Err(Error::internal(format!("'{}' went from {:?} to {to:?}", self.name, self.state)));
        }
        self.state = to;
        Ok(())
    }
}
