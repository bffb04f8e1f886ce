//! The subtasks of one operator under test, with snapshots, crashes, restores and another parallelism between any two calls.
//!
//! What happens in between follows from a seed, so that a test is the same every time.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use ruslo_core::element::EndReason;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::{key_groups, owner_of};
use ruslo_core::operator::{InputId, Operator, Output, Progress, SharedFactory, Subtask};
use ruslo_core::rng::Rng;
use ruslo_core::time::Timestamp;

use super::{MemoryState, TestContext};

/// Whoever crashes again and again a row later never gets done.
const CRASHES_OF_ONE_CALL_MAX: usize = 3;

/// How subtasks are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manners {
    /// Rows of a batch that they give out, at most.
    pub batch_rows: usize,
    /// How many there are at most; how many, is drawn at every start.
    pub parallelism_max: usize,
    /// Whether memory is short, half of the time: what can leave it has to.
    pub short_of_memory: bool,
    /// Whether a restored operator is always resumed before anything else, as the runtime does it. If not, it must find
    /// what was pending by itself, half of the time.
    pub always_resumed: bool,
}

/// The subtasks of an operator, and what came out of them.
pub struct Subtasks {
    factory: SharedFactory,
    manners: Manners,
    rng: Rng,
    tasks: Vec<(Box<dyn Operator>, TestContext)>,
    watermark: Timestamp,
    epoch: Epoch,
    late_rows: u64,
    made: Vec<RecordBatch>,
}

impl Subtasks {
    /// Subtasks that have done nothing yet.
    ///
    /// # Errors
    /// The operator's.
    pub fn new(factory: SharedFactory, manners: Manners, rng: Rng) -> Result<Self> {
        let (watermark, epoch) = (Timestamp::MIN, Epoch::ZERO);
        let (tasks, made, late_rows) = Default::default();
        let mut subtasks = Self { factory, manners, rng, tasks, watermark, epoch, late_rows, made };
        subtasks.start(&MemoryState::default())?;
        Ok(subtasks)
    }

    /// What chance is made of, for the test's own choices.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }

    /// The watermark that all of them have.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// The watermark that they have passed on.
    pub fn output_watermark(&self) -> Timestamp {
        self.tasks.first().map_or(Timestamp::MIN, |(operator, _)| operator.output_watermark(self.watermark))
    }

    /// Takes what has come out.
    pub fn take(&mut self) -> Vec<RecordBatch> {
        std::mem::take(&mut self.made)
    }

    /// Starts at a random parallelism from `state`.
    fn start(&mut self, state: &MemoryState) -> Result<()> {
        let parallelism = 1 + self.rng.below(self.manners.parallelism_max);
        let is_short = self.manners.short_of_memory && self.rng.one_in(2);
        let start = |index| {
            let state = if is_short { state.clone().with_disk() } else { state.clone() };
            let mut test = TestContext::with_state(Subtask { index, parallelism }, state);
            if is_short {
                test.fill_memory()?;
            }
            test.batch_rows = self.manners.batch_rows;
            test.watermark = self.watermark;
            let mut operator = self.factory.create()?;
            operator.open(&mut test.context())?;
            Ok((operator, test))
        };
        self.tasks = (0..parallelism).map(start).collect::<Result<_>>()?;
        Ok(())
    }

    /// Between two calls: perhaps a checkpoint, perhaps a crash right after it. True if the subtasks are new ones.
    fn interrupt(&mut self, crashes_left: &mut usize) -> Result<bool> {
        if !self.rng.one_in(3) {
            return Ok(false);
        }
        self.epoch = self.epoch.next();
        for (operator, test) in &mut self.tasks {
            let mut out = Output::default();
            operator.snapshot(self.epoch, &mut test.context(), &mut out)?;
            must(out.take().is_empty(), "a snapshot gave something out")?;
        }
        if *crashes_left == 0 || !self.rng.one_in(2) {
            return Ok(false);
        }
        *crashes_left -= 1;
        let mut state = MemoryState::default();
        for (_, test) in std::mem::take(&mut self.tasks) {
            self.late_rows += test.metrics.counts().late_rows;
            state = state.joined(&test.state);
        }
        self.start(&state)?;
        Ok(true)
    }

    /// Does `step` in every subtask, and what it leaves, with interruptions.
    fn each(
        &mut self,
        mut step: impl FnMut(usize, &mut dyn Operator, &mut TestContext, &mut Output) -> Result<Progress>,
    ) -> Result<()> {
        let mut pending = Vec::new();
        for (index, (operator, test)) in self.tasks.iter_mut().enumerate() {
            pending.push(call(operator.as_mut(), test, &mut self.made, |operator, test, out| {
                step(index, operator, test, out)
            })?);
        }
        let mut crashes_left = CRASHES_OF_ONE_CALL_MAX;
        while pending.contains(&Progress::More) {
            if self.interrupt(&mut crashes_left)? {
                let is_told = self.manners.always_resumed || self.rng.one_in(2);
                pending = vec![if is_told { Progress::More } else { Progress::Done }; self.tasks.len()];
            }
            for ((operator, test), pending) in self.tasks.iter_mut().zip(&mut pending) {
                if *pending == Progress::More {
                    *pending = call(operator.as_mut(), test, &mut self.made, resume)?;
                }
            }
        }
        self.interrupt(&mut 1).map(drop)
    }

    /// Gives each row to the subtask that has its keys.
    ///
    /// # Errors
    /// The operator's.
    pub fn send(&mut self, rows: &RecordBatch, keys: &[ArrayRef]) -> Result<()> {
        self.send_to(0, rows, keys)
    }

    /// As [`Subtasks::send`], to another input than the first.
    ///
    /// # Errors
    /// The operator's.
    pub fn send_to(&mut self, input: InputId, rows: &RecordBatch, keys: &[ArrayRef]) -> Result<()> {
        let (groups, parallelism) = (key_groups(keys, rows.num_rows())?, self.tasks.len());
        let part = |task| {
            let mine: BooleanArray = groups.iter().map(|group| Some(owner_of(*group, parallelism) == task)).collect();
            filter_record_batch(rows, &mine)
        };
        let parts = (0..parallelism).map(part).collect::<Result<Vec<_>, _>>()?;
        self.each(|task, operator, test, out| match parts.get(task) {
            Some(part) if part.num_rows() > 0 => operator.on_batch(input, part.clone(), &mut test.context(), out),
            _ => Ok(Progress::Done),
        })
    }

    /// Raises the watermark, if it rises.
    ///
    /// # Errors
    /// The operator's.
    pub fn raise(&mut self, watermark: Timestamp) -> Result<()> {
        if watermark <= self.watermark {
            return Ok(());
        }
        self.watermark = watermark;
        self.each(|_, operator, test, out| {
            test.watermark = watermark;
            operator.on_watermark(watermark, &mut test.context(), out)
        })
    }

    /// Ends the input, which is drained; as often as crashes make it end again.
    ///
    /// # Errors
    /// The operator's.
    pub fn end(&mut self) -> Result<()> {
        loop {
            let before = self.made.len();
            self.each(|_, operator, test, out| operator.on_end(0, EndReason::Drain, &mut test.context(), out))?;
            if self.made.len() == before {
                return Ok(());
            }
        }
    }

    /// Has done what an interruption left, and looks whether nothing is held any more: what came out last, and how many
    /// rows were late in all.
    ///
    /// # Errors
    /// The operator's; `Internal`, if it holds memory.
    pub fn finish(mut self) -> Result<(Vec<RecordBatch>, u64)> {
        self.epoch = self.epoch.next();
        for (operator, test) in &mut self.tasks {
            while call(operator.as_mut(), test, &mut self.made, resume)? == Progress::More {}
            operator.snapshot(self.epoch, &mut test.context(), &mut Output::default())?;
            must(test.memory.bytes() == 0, "memory is held at the end")?;
            self.late_rows += test.metrics.counts().late_rows;
        }
        Ok((self.made, self.late_rows))
    }
}

/// One call; what it gives out goes to `made`.
fn call(
    operator: &mut dyn Operator,
    test: &mut TestContext,
    made: &mut Vec<RecordBatch>,
    work: impl FnOnce(&mut dyn Operator, &mut TestContext, &mut Output) -> Result<Progress>,
) -> Result<Progress> {
    let (batch_rows, mut out) = (test.batch_rows, Output::default());
    let progress = work(operator, test, &mut out)?;
    for (_, batch) in out.take() {
        must(batch.num_rows() <= batch_rows.max(1), "a batch is larger than it may be")?;
        made.push(batch);
    }
    Ok(progress)
}

fn resume(operator: &mut dyn Operator, test: &mut TestContext, out: &mut Output) -> Result<Progress> {
    operator.resume(&mut test.context(), out)
}

fn must(holds: bool, otherwise: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::internal(otherwise)) }
}
