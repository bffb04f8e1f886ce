//! The trait that every operator implements: a synchronous, single-threaded state machine.
//!
//! An operator never waits, reads a clock or touches a file but through its [`OperatorContext`]. The runtime calls it
//! with one element at a time. Work without a bound (firing a window of ten million keys) is done in pieces: a call
//! returns [`Progress::More`], and the runtime calls [`Operator::resume`] until it is [`Progress::Done`]; in between it
//! may take a barrier, so state must be complete after every call.
//!
//! The runtime forwards watermarks, barriers and ends by itself once the operator is done with them.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::FieldRef;
use arrow::record_batch::RecordBatch;

use crate::element::EndReason;
use crate::environment::Environment;
use crate::epoch::Epoch;
use crate::equation::Equation;
use crate::error::Result;
use crate::io::{IoRequest, IoResult};
use crate::key_group::KeyGroupRange;
use crate::memory::Reservation;
use crate::metrics::OperatorMetrics;
use crate::sink::Committable;
use crate::state::OperatorState;
use crate::time::Timestamp;
use crate::timers::Timers;

/// Which input of an operator, from 0.
pub type InputId = usize;

/// Which output of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Port(pub u8);

impl Port {
    /// Where results go.
    pub const MAIN: Self = Self(0);
    /// Where rows go that came too late for their window.
    pub const LATE: Self = Self(1);
    /// Where a source puts the records that could not become rows.
    pub const DEAD_LETTER: Self = Self(2);
}

/// Whether a call's work is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// All of it.
    Done,
    /// A bounded piece; call [`Operator::resume`].
    More,
    /// All that can be done before a request is answered: give no input until [`Operator::on_io`] was called.
    Waiting,
}

/// Which of an operator's subtasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subtask {
    /// From 0.
    pub index: usize,
    /// How many there are.
    pub parallelism: usize,
}

impl Subtask {
    /// The key groups that this subtask owns.
    pub fn key_groups(self) -> KeyGroupRange {
        crate::key_group::range_of(self.index, self.parallelism)
    }
}

/// What an operator has at hand during a call.
pub struct OperatorContext<'a> {
    /// Which subtask this is.
    pub subtask: Subtask,
    /// The merged watermark of the inputs: every element before it has been seen.
    pub watermark: Timestamp,
    /// Rows per batch that an operator should aim at, and its piece of work between two `More`.
    pub batch_rows: usize,
    /// State, restored.
    pub state: &'a mut dyn OperatorState,
    /// What this operator holds in memory, to be resized as it changes.
    pub memory: &'a Reservation,
    /// What it counts.
    pub metrics: &'a OperatorMetrics,
    /// The world outside.
    pub environment: &'a Environment,
    /// What a sink has to commit once the checkpoint is durable; taken in [`Operator::snapshot`].
    pub committables: &'a mut Vec<Committable>,
    /// What it wants to know of the world outside: see [`OperatorContext::submit_io`].
    pub requests: &'a mut Vec<IoRequest>,
}

impl OperatorContext<'_> {
    /// The calendar's time: what timers go by.
    pub fn now(&self) -> Timestamp {
        self.environment.clock.wall()
    }

    /// The timers of this subtask, by columns like `key`: see [`OperatorState::timers`].
    pub fn timers(&mut self, key: &[FieldRef]) -> Result<&mut dyn Timers> {
        self.state.timers(key)
    }

    /// Asks the world outside; [`Operator::on_io`] is called with the answer. Whoever asks bounds how much it asks at a
    /// time, by [`Progress::Waiting`], and keeps what it needs to ask again after a restore.
    pub fn submit_io(&mut self, request: IoRequest) {
        self.requests.push(request);
    }
}

/// Where an operator puts its results. Bounded by the operator's own discipline: at most a few batches a call.
#[derive(Debug, Default)]
pub struct Output {
    batches: Vec<(Port, RecordBatch)>,
}

impl Output {
    /// A batch for the main port; an empty one is dropped.
    pub fn emit(&mut self, batch: RecordBatch) {
        self.emit_to(Port::MAIN, batch);
    }

    /// A batch for `port`; an empty one is dropped.
    pub fn emit_to(&mut self, port: Port, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.batches.push((port, batch));
        }
    }

    /// How many rows were emitted and not taken yet, to all ports.
    pub fn rows(&self) -> usize {
        self.batches.iter().map(|(_, batch)| batch.num_rows()).sum()
    }

    /// Takes what was emitted, in order.
    pub fn take(&mut self) -> Vec<(Port, RecordBatch)> {
        std::mem::take(&mut self.batches)
    }
}

/// An operator. Everything but [`Operator::on_batch`] has a default.
#[allow(unused_variables, reason = "the names are the documentation")]
pub trait Operator: Send {
    /// Called once, with the state already restored.
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        Ok(())
    }

    /// What its counts must satisfy at every barrier.
    fn equation(&self) -> Equation {
        Equation::Open
    }

    /// Rows of one input.
    fn on_batch(
        &mut self,
        input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress>;

    /// The merged watermark rose to `watermark`.
    fn on_watermark(
        &mut self,
        watermark: Timestamp,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        Ok(Progress::Done)
    }

    /// What the runtime forwards once the operator is done with `watermark`: what no later row of its output is at or
    /// before. Must rise with the input, and be the end of time at the end of time.
    fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
        watermark
    }

    /// Goes on after [`Progress::More`].
    fn resume(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }

    /// The calendar has reached `at`, for which `keys` had registered: one key a row, a bounded number of them, each once.
    /// Timers of one time may come in several calls. Called only between elements, never in the middle of some work.
    fn on_timer(
        &mut self,
        at: Timestamp,
        keys: &[ArrayRef],
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        Ok(Progress::Done)
    }

    /// A request was answered. Called only between elements, never in the middle of some work.
    fn on_io(&mut self, done: IoResult, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }

    /// Whether rows that came in wait for answers. The end of the input, the end of time and idleness go on behind them
    /// only; of earlier watermarks [`Operator::output_watermark`] says how far they may.
    fn holds_rows(&self) -> bool {
        false
    }

    /// When it wants to be called though nothing comes, by the calendar. Not state: who is restored says it anew.
    fn wakes_at(&self) -> Option<Timestamp> {
        None
    }

    /// The calendar has reached what [`Operator::wakes_at`] said. Called only between elements, never in the middle of some
    /// work; until it is, rows may come.
    fn on_wake(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        Ok(Progress::Done)
    }

    /// Moves what is held outside of `ctx.state` into it: the barrier of `epoch` has come on every input. What it
    /// emits goes out before the barrier.
    fn snapshot(&mut self, epoch: Epoch, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<()> {
        Ok(())
    }

    /// An input ended. At the last one the runtime raises the watermark to the end of time beforehand if the reason is
    /// [`EndReason::Drain`], so windows have fired already.
    fn on_end(
        &mut self,
        input: InputId,
        reason: EndReason,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        Ok(Progress::Done)
    }
}

/// Makes the operator of each subtask.
pub trait OperatorFactory: Send + Sync {
    /// A new operator.
    fn create(&self) -> Result<Box<dyn Operator>>;

    /// The columns of its state that follow from the plan, with one row: what is kept of a group that has had no rows.
    /// None where there is no such thing. State that gets a column more gets it from here.
    fn fresh_state(&self) -> Result<Option<RecordBatch>> {
        Ok(None)
    }
}

impl<F, O> OperatorFactory for F
where
    F: Fn() -> Result<O> + Send + Sync,
    O: Operator + 'static,
{
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self()?))
    }
}

/// A shared [`OperatorFactory`].
pub type SharedFactory = Arc<dyn OperatorFactory>;
