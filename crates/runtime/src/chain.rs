//! Operators of one task behind each other, without channels in between.
//!
//! Every member has an inbox. The most downstream member with work is served first, so inboxes hold at most what one
//! call upstream has emitted. A member that is in the middle of some work ([`Progress::More`]) still lets a barrier
//! pass if that is next in its inbox: its state is complete after every call. So does one that waits for an answer
//! ([`Progress::Waiting`]); nobody before it works on while something else is next there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use ruslo_core::clock::Instant;
use ruslo_core::element::{Barrier, EndReason};
use ruslo_core::environment::Environment;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result, ResultExt};
use ruslo_core::graph::NodeIndex;
use ruslo_core::io::{IoRequest, IoResult};
use ruslo_core::memory::Reservation;
use ruslo_core::metrics::{OperatorMetrics, RowCounts};
use ruslo_core::operator::{Operator, OperatorContext, Output, Port, Progress, Subtask};
use ruslo_core::schema::raise_split_watermarks;
use ruslo_core::sink::Committable;
use ruslo_core::time::Timestamp;
use ruslo_state::table::{RunState, TableSnapshot};
use ruslo_state::timers::Due;

use crate::exchange::Outlet;
use crate::input::Event;
use crate::latency::Latency;
use crate::planted::{Bug, planted};

/// What one operator subtask puts into a checkpoint.
#[derive(Debug, Clone)]
pub struct MemberSnapshot {
    /// Which operator.
    pub node: NodeIndex,
    /// Which subtask of it.
    pub subtask: Subtask,
    /// Its watermark.
    pub watermark: Timestamp,
    /// What it counted.
    pub counts: RowCounts,
    /// What it took in through each input but the first.
    pub other_inputs: Vec<u64>,
    /// Its tables.
    pub tables: BTreeMap<String, TableSnapshot>,
    /// What a sink has to commit.
    pub committables: Vec<Committable>,
}

/// What leaves a chain.
#[derive(Debug, PartialEq)]
pub enum Leaving {
    /// Rows, at the end of the chain or aside.
    Batch(Outlet, RecordBatch),
    /// Anything else.
    Control(Event),
}

/// What a chain's operators start from.
pub struct MemberSpec {
    /// Which operator of the graph.
    pub node: NodeIndex,
    /// What a person calls it.
    pub name: String,
    /// Which subtask.
    pub subtask: Subtask,
    /// The operator itself.
    pub operator: Box<dyn Operator>,
    /// Its state, restored or empty.
    pub state: RunState,
    /// Its watermark, restored or none.
    pub watermark: Timestamp,
    /// What it holds in memory.
    pub memory: Reservation,
    /// What it counts.
    pub metrics: Arc<OperatorMetrics>,
    /// How old its rows are.
    pub latency: Arc<Latency>,
}

struct Member {
    spec: MemberSpec,
    inbox: VecDeque<Event>,
    /// In the middle of some work: `resume` before anything but a barrier.
    busy: bool,
    /// Nothing but barriers until a request is answered.
    waiting: bool,
    /// What goes downstream once that work is done.
    then: Option<Event>,
    /// The watermark that went downstream last.
    given: Timestamp,
    ended: bool,
}

impl Member {
    fn is_barrier_next(&self) -> bool {
        matches!(self.inbox.front(), Some(Event::Barrier(_)))
    }

    fn is_ready(&self) -> bool {
        self.busy || (!self.inbox.is_empty() && (!self.waiting || self.is_barrier_next()))
    }

    /// Whether `then` has to stay behind rows that wait for answers.
    fn holds(&self) -> bool {
        let is_last = match &self.then {
            Some(Event::Watermark(at)) => *at == Timestamp::MAX,
            Some(Event::End(_, EndReason::Drain) | Event::Idle) => true,
            _ => false,
        };
        is_last && self.spec.operator.holds_rows()
    }

    /// When the operator wants to be called though nothing comes.
    fn next_call(&self) -> Option<Timestamp> {
        self.spec.state.next_timer().into_iter().chain(self.spec.operator.wakes_at()).min()
    }
}

/// The operators of one task, in order.
pub struct Chain {
    members: Vec<Member>,
    environment: Environment,
    batch_rows: usize,
    leaving: VecDeque<Leaving>,
    /// What operators want to know of the world outside, by member.
    requests: Vec<(usize, IoRequest)>,
    /// Of the barrier or end that is on its way through the chain.
    snapshots: Vec<MemberSnapshot>,
    /// The last epoch whose barrier came in.
    epoch: Epoch,
    /// When a source read the oldest row of what came in last.
    born: Instant,
    /// Whether an input may fall idle and rejoin.
    has_idleness: bool,
}

impl Chain {
    /// A chain, opened. `epoch` is the checkpoint that it goes on from.
    pub fn open(members: Vec<MemberSpec>, environment: Environment, batch_rows: usize, epoch: Epoch) -> Result<Self> {
        let members = members.into_iter().map(|spec| Member {
            // What was begun before the checkpoint is finished first, then the watermark goes on from here.
            then: (spec.watermark > Timestamp::MIN).then_some(Event::Watermark(spec.watermark)),
            busy: spec.watermark > Timestamp::MIN || epoch > Epoch::ZERO,
            spec,
            inbox: VecDeque::new(),
            waiting: false,
            given: Timestamp::MIN,
            ended: false,
        });
        let mut chain = Self {
            members: members.collect(),
            environment,
            batch_rows,
            leaving: VecDeque::new(),
            requests: Vec::new(),
            snapshots: Vec::new(),
            epoch,
            born: Instant::ZERO,
            has_idleness: false,
        };
        for index in 0..chain.members.len() {
            let mut committables = Vec::new();
            let open = |operator: &mut dyn Operator, ctx: &mut OperatorContext<'_>, _: &mut Output| {
                operator.open(ctx).map(|()| Progress::Done)
            };
            let (_, _) = chain.call(index, &mut committables, open)?;
        }
        Ok(chain)
    }

    /// Inputs may fall idle. One that rejoins was not asked before the watermark rose: its rows are late by that, too, or a
    /// window that is out would be filled again.
    #[must_use]
    pub fn with_idleness(self) -> Self {
        Self { has_idleness: true, ..self }
    }

    /// Operators inside of the chain begin with what a checkpoint had on its way to them.
    #[must_use]
    pub fn with_inside(mut self, inside: Vec<(NodeIndex, Vec<Event>)>) -> Self {
        for (node, events) in inside {
            if let Some(member) = self.members.iter_mut().find(|member| member.spec.node == node) {
                member.inbox.extend(events);
            }
        }
        self
    }

    /// Rows of the first operator as it may see them.
    fn rejoined(&self, index: usize, batch: RecordBatch) -> Result<RecordBatch> {
        let watermark = self.members.get(index).map_or(Timestamp::MIN, |member| member.spec.watermark);
        match self.has_idleness && index == 0 && watermark > Timestamp::MIN && !planted(Bug::RejoinsOnTime) {
            true => raise_split_watermarks(batch, watermark.millis()),
            false => Ok(batch),
        }
    }

    /// Gives the first operator an event, made of rows that a source read from `born` on; a chain without operators
    /// passes it on.
    pub fn push(&mut self, event: Event, born: Instant) {
        self.born = born;
        if let (true, Event::Barrier(barrier)) = (self.members.is_empty(), &event) {
            self.epoch = barrier.epoch;
        }
        self.pass_on(0, event);
    }

    /// Takes what has left the chain, in order.
    pub fn pop(&mut self) -> Option<Leaving> {
        self.leaving.pop_front()
    }

    /// Takes the snapshots of the barrier or end that has just left.
    pub fn take_snapshots(&mut self) -> Vec<MemberSnapshot> {
        std::mem::take(&mut self.snapshots)
    }

    /// The last epoch whose barrier came in.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether some operator has something to do.
    pub fn has_work(&self) -> bool {
        self.next_member().is_some()
    }

    /// The most downstream operator with something to do, if nobody behind it waits with a full inbox.
    fn next_member(&self) -> Option<usize> {
        let blocks = |member: &Member| member.waiting && !member.inbox.is_empty();
        let last = self.members.iter().rposition(|member| member.is_ready() || blocks(member))?;
        self.members.get(last).is_some_and(Member::is_ready).then_some(last)
    }

    /// Whether the first operator is in the middle of some work, but would let a barrier pass.
    pub fn is_head_busy(&self) -> bool {
        self.members.first().is_some_and(|member| member.busy && member.inbox.is_empty())
    }

    /// Whether some operator waits for an answer before it takes anything but a barrier.
    pub fn is_waiting(&self) -> bool {
        self.members.iter().any(|member| member.waiting)
    }

    /// Takes what operators want to know, by member.
    pub fn take_requests(&mut self) -> Vec<(usize, IoRequest)> {
        std::mem::take(&mut self.requests)
    }

    /// Gives the operator of `member` the answer to a request. Only for a chain that has no work.
    pub fn answer(&mut self, member: usize, done: IoResult) -> Result<()> {
        if self.members.get(member).is_none_or(|member| member.ended) {
            return Ok(());
        }
        let answered = self.give_answer(member, done);
        answered.map_err(|error| self.in_operator(member, error))
    }

    fn give_answer(&mut self, index: usize, done: IoResult) -> Result<()> {
        let progress = self.call_emitting(index, |operator, ctx, out| operator.on_io(done, ctx, out))?;
        self.after(index, progress, None)?;
        let Some(member) = self.members.get(index).filter(|member| member.then.is_none() && !member.ended) else {
            return Ok(());
        };
        // Rows that held a watermark back may have left.
        let at = member.spec.operator.output_watermark(member.spec.watermark);
        if at > member.given && at < Timestamp::MAX { self.give_watermark(index, at) } else { Ok(()) }
    }

    fn give_watermark(&mut self, index: usize, at: Timestamp) -> Result<()> {
        self.members.get_mut(index).into_iter().for_each(|member| member.given = at);
        self.pass_on(index + 1, Event::Watermark(at));
        Ok(())
    }

    /// The earliest time at which an operator wants to be called.
    pub fn next_timer(&self) -> Option<Timestamp> {
        let alive = self.members.iter().filter(|member| !member.ended);
        alive.filter_map(Member::next_call).min()
    }

    /// Calls the most downstream operator that has timers due at `now`, with a bounded number of them. Only for a chain that
    /// has no work.
    pub fn fire_timers(&mut self, now: Timestamp) -> Result<()> {
        let is_due = |member: &Member| !member.ended && member.next_call().is_some_and(|at| at <= now);
        let Some(index) = self.members.iter().rposition(is_due) else { return Ok(()) };
        let fired = self.fire(index, now);
        fired.map_err(|error| self.in_operator(index, error))
    }

    fn fire(&mut self, index: usize, now: Timestamp) -> Result<()> {
        let rows_max = self.batch_rows;
        let member = self.members.get_mut(index);
        if member.as_ref().is_some_and(|member| member.spec.operator.wakes_at().is_some_and(|at| at <= now)) {
            let progress = self.call_emitting(index, |operator, ctx, out| operator.on_wake(ctx, out))?;
            return self.after(index, progress, None);
        }
        let due = member.map_or(Ok(None), |member| member.spec.state.take_due(now, rows_max))?;
        let Some(Due { at, keys }) = due.filter(|due| due.keys.first().is_some_and(|keys| !keys.is_empty())) else {
            return Ok(());
        };
        let progress = self.call_emitting(index, |operator, ctx, out| operator.on_timer(at, &keys, ctx, out))?;
        self.after(index, progress, None)
    }

    /// Data errors already say where they stand in the input; ours must say in which operator.
    fn in_operator(&self, index: usize, error: Error) -> Error {
        let name = || self.members.get(index).map(|member| member.spec.name.clone()).unwrap_or_default();
        match error.kind() {
            ruslo_core::error::ErrorKind::Internal => error.context(format!("in '{}'", name())),
            _ => error,
        }
    }

    /// Does one bounded piece of work: of the most downstream operator that has any.
    pub fn step(&mut self) -> Result<()> {
        let Some(index) = self.next_member() else { return Ok(()) };
        self.serve(index).map_err(|error| self.in_operator(index, error))
    }

    fn serve(&mut self, index: usize) -> Result<()> {
        let Some(member) = self.members.get_mut(index) else { return Ok(()) };
        if member.busy && !member.is_barrier_next() {
            let progress = self.call_emitting(index, |operator, ctx, out| operator.resume(ctx, out))?;
            return self.after(index, progress, None);
        }
        let Some(event) = member.inbox.pop_front() else { return Ok(()) };
        self.on_event(index, event)
    }

    fn on_event(&mut self, index: usize, event: Event) -> Result<()> {
        match event {
            Event::Batch(input, batch) => {
                if let Some(member) = self.members.get(index) {
                    member.spec.metrics.take_in(input, batch.num_rows());
                    member.spec.latency.record(self.born, self.environment.clock.now());
                }
                let batch = self.rejoined(index, batch)?;
                let progress =
                    self.call_emitting(index, |operator, ctx, out| operator.on_batch(input, batch, ctx, out))?;
                self.after(index, progress, None)
            }
            Event::Watermark(at) => self.on_watermark(index, at),
            Event::Barrier(barrier) => self.on_barrier(index, barrier),
            Event::InputEnd(input, reason) => {
                let progress =
                    self.call_emitting(index, |operator, ctx, out| operator.on_end(input, reason, ctx, out))?;
                self.after(index, progress, None)
            }
            Event::End(input, reason) => {
                let progress =
                    self.call_emitting(index, |operator, ctx, out| operator.on_end(input, reason, ctx, out))?;
                self.after(index, progress, Some(Event::End(0, reason)))
            }
            Event::Idle => self.after(index, Progress::Done, Some(Event::Idle)),
        }
    }

    fn on_watermark(&mut self, index: usize, at: Timestamp) -> Result<()> {
        let Some(member) = self.members.get_mut(index) else { return Ok(()) };
        if at <= member.spec.watermark {
            return Ok(());
        }
        member.spec.watermark = at;
        let progress = self.call_emitting(index, |operator, ctx, out| operator.on_watermark(at, ctx, out))?;
        self.after(index, progress, Some(Event::Watermark(at)))
    }

    fn on_barrier(&mut self, index: usize, barrier: Barrier) -> Result<()> {
        if index == 0 && barrier.epoch <= self.epoch {
            return Err(Error::internal(format!("the barrier of epoch {} came again", barrier.epoch)));
        }
        self.epoch = barrier.epoch;
        self.snapshot(index, barrier.epoch, None)?;
        self.pass_on(index + 1, Event::Barrier(barrier));
        Ok(())
    }

    /// Takes the snapshot of one member, which is its last if it has an `end`. What it emits meanwhile goes out before the barrier.
    fn snapshot(&mut self, index: usize, epoch: Epoch, end: Option<EndReason>) -> Result<()> {
        let mut committables = Vec::new();
        let (_, mut out) = self.call(index, &mut committables, |operator, ctx, out| {
            operator.snapshot(epoch, ctx, out).map(|()| Progress::Done)
        })?;
        self.pass_batches(index, &mut out)?;
        if let Some(member) = self.members.get_mut(index) {
            if end == Some(EndReason::Drain) {
                // All that its keys were to get and to give is through: nobody will read what was kept for them.
                member.spec.state.drop_keyed();
            }
            self.snapshots.push(MemberSnapshot {
                node: member.spec.node,
                subtask: member.spec.subtask,
                watermark: member.spec.watermark,
                counts: member.spec.metrics.counts(),
                other_inputs: member.spec.metrics.other_inputs(),
                tables: member.spec.state.seal()?,
                committables,
            });
        }
        Ok(())
    }

    /// Books what a call has done: `then` goes downstream now, or when the work that was begun is finished.
    fn after(&mut self, index: usize, progress: Progress, then: Option<Event>) -> Result<()> {
        let Some(member) = self.members.get_mut(index) else { return Ok(()) };
        if then.is_some() {
            member.then = then;
        }
        member.busy = progress == Progress::More;
        member.waiting = progress == Progress::Waiting || (!member.busy && member.holds());
        if member.busy || member.waiting {
            return Ok(());
        }
        match member.then.take() {
            Some(Event::End(input, reason)) => self.end(index, input, reason),
            Some(Event::Watermark(at)) => {
                let at = member.spec.operator.output_watermark(at);
                self.give_watermark(index, at)
            }
            Some(event) => {
                self.pass_on(index + 1, event);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The end stands for every later barrier, so a last snapshot goes with it: of the epoch after the last.
    fn end(&mut self, index: usize, input: usize, reason: EndReason) -> Result<()> {
        if let (EndReason::Drain, Some(member)) = (reason, self.members.get_mut(index)) {
            // Nothing is left for them to wait for, and a job over what is complete must not wait for the clock.
            member.spec.state.drop_timers();
        }
        self.snapshot(index, self.epoch.next(), Some(reason))?;
        if let Some(member) = self.members.get_mut(index) {
            member.ended = true;
        }
        self.pass_on(index + 1, Event::End(input, reason));
        Ok(())
    }

    fn call_emitting(
        &mut self,
        index: usize,
        work: impl FnOnce(&mut dyn Operator, &mut OperatorContext<'_>, &mut Output) -> Result<Progress>,
    ) -> Result<Progress> {
        let mut committables = Vec::new();
        let (progress, mut out) = self.call(index, &mut committables, work)?;
        self.pass_batches(index, &mut out)?;
        Ok(progress)
    }

    fn call(
        &mut self,
        index: usize,
        committables: &mut Vec<Committable>,
        work: impl FnOnce(&mut dyn Operator, &mut OperatorContext<'_>, &mut Output) -> Result<Progress>,
    ) -> Result<(Progress, Output)> {
        let member = self.members.get_mut(index).ok_or_else(|| Error::internal("a chain has lost an operator"))?;
        if member.ended {
            return Err(Error::internal("something followed the end")).context(|| member.spec.name.clone());
        }
        let spec = &mut member.spec;
        let mut requests = Vec::new();
        let mut ctx = OperatorContext {
            subtask: spec.subtask,
            watermark: spec.watermark,
            batch_rows: self.batch_rows,
            state: &mut spec.state,
            memory: &spec.memory,
            metrics: &spec.metrics,
            environment: &self.environment,
            committables,
            requests: &mut requests,
        };
        let mut out = Output::default();
        let progress = work(spec.operator.as_mut(), &mut ctx, &mut out)?;
        self.requests.extend(requests.into_iter().map(|request| (index, request)));
        Ok((progress, out))
    }

    fn pass_batches(&mut self, index: usize, out: &mut Output) -> Result<()> {
        let member = self.members.get(index).ok_or_else(|| Error::internal("a chain has lost an operator"))?;
        let (node, metrics) = (member.spec.node, Arc::clone(&member.spec.metrics));
        for (port, batch) in out.take() {
            if port == Port::MAIN {
                metrics.rows_out.add(batch.num_rows());
                self.pass_on(index + 1, Event::Batch(0, batch));
            } else {
                metrics.aside_rows.add(batch.num_rows());
                self.leaving.push_back(Leaving::Batch(Outlet::Side(node, port), batch));
            }
        }
        Ok(())
    }

    fn pass_on(&mut self, index: usize, event: Event) {
        match (self.members.get_mut(index), event) {
            (Some(member), event) => member.inbox.push_back(event),
            (None, Event::Batch(_, batch)) => self.leaving.push_back(Leaving::Batch(Outlet::Main, batch)),
            (None, event) => self.leaving.push_back(Leaving::Control(event)),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use ruslo_core::element::BarrierKind;
    use ruslo_core::memory::MemoryPool;
    use ruslo_core::operator::InputId;

    use super::*;

    /// Emits one row a call for as many calls as the batch says.
    #[derive(Default)]
    struct Drip(i64);

    impl Operator for Drip {
        fn on_batch(
            &mut self,
            _: InputId,
            batch: RecordBatch,
            ctx: &mut OperatorContext<'_>,
            out: &mut Output,
        ) -> Result<Progress> {
            self.0 += batch.num_rows() as i64;
            self.resume(ctx, out)
        }

        fn resume(&mut self, _: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
            if self.0 > 0 {
                out.emit(batch(1));
                self.0 -= 1;
            }
            Ok(if self.0 > 0 { Progress::More } else { Progress::Done })
        }
    }

    /// Holds what it gets until it is woken, so long after the epoch.
    #[derive(Default)]
    struct Nap(Vec<RecordBatch>);

    impl Operator for Nap {
        fn on_batch(
            &mut self,
            _: InputId,
            batch: RecordBatch,
            _: &mut OperatorContext<'_>,
            _: &mut Output,
        ) -> Result<Progress> {
            self.0.push(batch);
            Ok(Progress::Done)
        }

        fn wakes_at(&self) -> Option<Timestamp> {
            (!self.0.is_empty()).then_some(Timestamp(500))
        }

        fn on_wake(&mut self, _: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
            std::mem::take(&mut self.0).into_iter().for_each(|batch| out.emit(batch));
            Ok(Progress::Done)
        }
    }

    #[test]
    fn an_operator_that_wants_to_be_woken_is_called_in_time() {
        let nap = MemberSpec { operator: Box::new(Nap::default()), ..spec(0, i64::MIN) };
        let mut chain = chain(vec![nap]);
        assert_eq!(chain.next_timer(), None);
        chain.push(Event::Batch(0, batch(3)), Instant::ZERO);
        assert!(run(&mut chain).is_empty());
        assert_eq!(chain.next_timer(), Some(Timestamp(500)));
        chain.fire_timers(Timestamp(499)).unwrap();
        assert!(run(&mut chain).is_empty());
        chain.fire_timers(Timestamp(500)).unwrap();
        assert_eq!((run(&mut chain).len(), chain.next_timer()), (1, None));
    }

    fn batch(rows: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
        RecordBatch::try_from_iter([("v", column)]).unwrap()
    }

    fn spec(node: usize, watermark: i64) -> MemberSpec {
        MemberSpec {
            node,
            name: format!("drip {node}"),
            subtask: Subtask { index: 0, parallelism: 1 },
            operator: Box::new(Drip::default()),
            state: RunState::new(0..128),
            watermark: Timestamp(watermark),
            memory: MemoryPool::unbounded().reserve("drip"),
            metrics: Arc::default(),
            latency: Arc::default(),
        }
    }

    fn chain(members: Vec<MemberSpec>) -> Chain {
        Chain::open(members, Environment::local(), 1024, Epoch::ZERO).unwrap()
    }

    fn barrier(epoch: u64) -> Event {
        Event::Barrier(Barrier { epoch: Epoch(epoch), kind: BarrierKind::Checkpoint })
    }

    fn run(chain: &mut Chain) -> Vec<Leaving> {
        while chain.has_work() {
            chain.step().unwrap();
        }
        std::iter::from_fn(|| chain.pop()).collect()
    }

    #[test]
    fn a_watermark_waits_for_the_rows_before_it() {
        let mut chain = chain(vec![spec(0, i64::MIN), spec(1, i64::MIN)]);
        chain.push(Event::Batch(0, batch(3)), Instant::ZERO);
        chain.push(Event::Watermark(Timestamp(5)), Instant::ZERO);
        let left = run(&mut chain);
        assert_eq!(left.len(), 4);
        assert_eq!(left[3], Leaving::Control(Event::Watermark(Timestamp(5))));
    }

    #[test]
    fn a_barrier_passes_an_operator_that_is_in_the_middle_of_its_work() {
        let mut chain = chain(vec![spec(0, i64::MIN)]);
        chain.push(Event::Batch(0, batch(3)), Instant::ZERO);
        chain.step().unwrap();
        assert!(chain.is_head_busy());
        chain.push(barrier(1), Instant::ZERO);
        let left = run(&mut chain);
        assert_eq!(left[1], Leaving::Control(barrier(1)));
        assert_eq!((left.len(), chain.take_snapshots().len()), (4, 1));
    }

    #[test]
    fn the_end_brings_a_last_snapshot_of_the_next_epoch_and_nothing_may_follow() {
        let mut chain = chain(vec![spec(0, i64::MIN), spec(1, i64::MIN)]);
        chain.push(barrier(4), Instant::ZERO);
        run(&mut chain);
        assert_eq!(chain.take_snapshots().len(), 2);
        chain.push(Event::End(0, EndReason::Drain), Instant::ZERO);
        assert_eq!(run(&mut chain), [Leaving::Control(Event::End(0, EndReason::Drain))]);
        assert_eq!(chain.take_snapshots().iter().map(|s| s.node).collect::<Vec<_>>(), [0, 1]);
        chain.push(Event::Batch(0, batch(1)), Instant::ZERO);
        assert!(chain.step().is_err());
    }

    #[test]
    fn a_chain_without_operators_knows_its_epoch() {
        let mut chain = chain(Vec::new());
        chain.push(barrier(4), Instant::ZERO);
        assert_eq!((run(&mut chain), chain.epoch()), (vec![Leaving::Control(barrier(4))], Epoch(4)));
    }

    #[test]
    fn a_restored_watermark_goes_downstream_once_the_old_work_is_done() {
        let mut chain = chain(vec![spec(0, 9)]);
        assert_eq!(run(&mut chain), [Leaving::Control(Event::Watermark(Timestamp(9)))]);
        chain.push(Event::Watermark(Timestamp(8)), Instant::ZERO);
        assert_eq!(run(&mut chain), []);
    }

    /// Gives every batch aside, and its first row on.
    struct Fork;

    impl Operator for Fork {
        fn on_batch(
            &mut self,
            _: InputId,
            batch: RecordBatch,
            _: &mut OperatorContext<'_>,
            out: &mut Output,
        ) -> Result<Progress> {
            out.emit_to(Port::LATE, batch.clone());
            out.emit(batch.slice(0, 1));
            Ok(Progress::Done)
        }
    }

    #[test]
    fn what_a_member_gives_aside_leaves_before_the_barrier_behind_it() {
        let fork = |node| MemberSpec { operator: Box::new(Fork), ..spec(node, i64::MIN) };
        let mut chain = chain(vec![fork(4), fork(7)]);
        let metrics = Arc::clone(&chain.members[0].spec.metrics);
        chain.push(Event::Batch(0, batch(3)), Instant::ZERO);
        chain.push(barrier(1), Instant::ZERO);
        let aside = |node, rows| Leaving::Batch(Outlet::Side(node, Port::LATE), batch(rows));
        let expected = [aside(4, 3), aside(7, 1), Leaving::Batch(Outlet::Main, batch(1)), Leaving::Control(barrier(1))];
        assert_eq!(run(&mut chain), expected);
        assert_eq!(metrics.rows_out.get(), 1, "what is given aside is counted by its own name");
    }

    /// Asks for each batch and emits it when the answer has come, in order; takes two at a time. What waits is forgotten by a
    /// snapshot, which is of no matter here.
    #[derive(Default)]
    struct Ask {
        waiting: VecDeque<(u64, Timestamp, RecordBatch, bool)>,
        asked: u64,
    }

    impl Ask {
        fn progress(&self) -> Progress {
            if self.waiting.len() < 2 { Progress::Done } else { Progress::Waiting }
        }
    }

    impl Operator for Ask {
        fn on_batch(
            &mut self,
            _: InputId,
            batch: RecordBatch,
            ctx: &mut OperatorContext<'_>,
            _: &mut Output,
        ) -> Result<Progress> {
            self.asked += 1;
            self.waiting.push_back((self.asked, ctx.watermark, batch.clone(), false));
            let (delay, timeout) = Default::default();
            let work = Box::new(|| Box::pin(async { Ok(batch) }) as _);
            ctx.submit_io(IoRequest { id: self.asked, work, delay, timeout });
            Ok(self.progress())
        }

        fn on_io(&mut self, done: IoResult, _: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
            let of_id = self.waiting.iter_mut().filter(|(id, ..)| *id == done.id);
            of_id.for_each(|(.., is_answered)| *is_answered = true);
            while let Some((.., batch, _)) = self.waiting.pop_front_if(|(.., is_answered)| *is_answered) {
                out.emit(batch);
            }
            Ok(self.progress())
        }

        fn holds_rows(&self) -> bool {
            !self.waiting.is_empty()
        }

        fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
            self.waiting.front().map_or(watermark, |(_, before, ..)| *before)
        }
    }

    /// A chain of a drip and one that asks, whose requests are answered by `answer`.
    struct Asking(Chain);

    impl Asking {
        fn new() -> Self {
            let ask = MemberSpec { operator: Box::new(Ask::default()), ..spec(1, i64::MIN) };
            Self(chain(vec![spec(0, i64::MIN), ask]))
        }

        fn push(&mut self, event: Event) -> Vec<Leaving> {
            self.0.push(event, Instant::ZERO);
            run(&mut self.0)
        }

        fn answer(&mut self, id: u64) -> Vec<Leaving> {
            self.0.answer(1, IoResult { id, answer: Ok(batch(0)) }).unwrap();
            run(&mut self.0)
        }
    }

    fn at(millis: i64) -> Leaving {
        Leaving::Control(Event::Watermark(Timestamp(millis)))
    }

    fn row() -> Leaving {
        Leaving::Batch(Outlet::Main, batch(1))
    }

    #[test]
    fn a_watermark_does_not_pass_rows_that_wait_for_an_answer() {
        let mut asking = Asking::new();
        assert_eq!(asking.push(Event::Watermark(Timestamp(3))), [at(3)]);
        assert_eq!(asking.push(Event::Batch(0, batch(1))), []);
        assert_eq!(asking.push(Event::Watermark(Timestamp(5))), [at(3)]);
        assert_eq!(asking.0.take_requests().len(), 1);
        assert_eq!(asking.push(barrier(1)), [Leaving::Control(barrier(1))]);
        assert_eq!(asking.answer(1), [row(), at(5)]);
        assert!(!asking.0.is_waiting());
    }

    #[test]
    fn nothing_but_a_barrier_goes_into_an_operator_that_waits_and_the_one_before_it_waits_with_it() {
        let mut asking = Asking::new();
        assert_eq!(asking.push(Event::Batch(0, batch(2))), []);
        assert!(asking.0.is_waiting() && !asking.0.has_work());
        assert_eq!(asking.push(barrier(1)), [Leaving::Control(barrier(1))], "nothing is between");
        // The drip makes one row a call: the first of these fills the inbox, the others stay where they are.
        assert_eq!(asking.push(Event::Batch(0, batch(3))), []);
        assert_eq!(asking.0.members[1].inbox.len(), 1);
        assert_eq!(asking.push(barrier(2)), [], "rows stand before it");
        assert_eq!(asking.answer(2), [], "the first one is missing");
        assert_eq!(asking.answer(1), [row(), row(), Leaving::Control(barrier(2))]);
        assert_eq!([3, 4, 5].map(|id| asking.answer(id)), [[row()], [row()], [row()]]);
        assert!(!asking.0.has_work() && !asking.0.is_waiting());
    }

    #[test]
    fn the_end_and_idleness_wait_for_the_last_answer() {
        let mut asking = Asking::new();
        assert_eq!(asking.push(Event::Batch(0, batch(1))), []);
        assert_eq!(asking.push(Event::Idle), []);
        assert_eq!(asking.answer(1), [row(), Leaving::Control(Event::Idle)]);
        assert_eq!(asking.push(Event::Batch(0, batch(1))), []);
        assert_eq!(asking.push(Event::Watermark(Timestamp::MAX)), []);
        assert_eq!(asking.push(Event::End(0, EndReason::Drain)), []);
        let end = Leaving::Control(Event::End(0, EndReason::Drain));
        assert_eq!(asking.answer(2), [row(), at(i64::MAX), end]);
        assert_eq!(asking.0.take_snapshots().len(), 2);
        assert_eq!(asking.answer(3), [], "nobody is there any more");
    }

    #[test]
    fn a_stop_waits_for_nobody() {
        let mut asking = Asking::new();
        assert_eq!(asking.push(Event::Batch(0, batch(1))), []);
        let end = Event::End(0, EndReason::Stop);
        assert_eq!(asking.push(end.clone()), [Leaving::Control(end)]);
    }

    #[test]
    fn an_epoch_that_comes_twice_is_an_internal_error_that_names_the_operator() {
        let mut chain = chain(vec![spec(0, i64::MIN)]);
        chain.push(barrier(1), Instant::ZERO);
        chain.push(barrier(1), Instant::ZERO);
        chain.step().unwrap();
        let error = chain.step().unwrap_err();
        assert!(error.to_string().contains("in 'drip 0': the barrier of epoch 1 came again"), "{error}");
    }
}
