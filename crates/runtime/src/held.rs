//! Output that is shown at most once, by a sink that shows at once what is written to it.
//!
//! ```text
//! rows ─ held ─barrier▶ prepared ─manifest durable▶ shown, or with the process gone: in doubt
//! ```
//!
//! The manifest of an epoch names how many rows of it each subtask was about to show, and its sources stand behind
//! them. So what is not shown when the process dies is not made again either; nobody knows how much of it was seen, and
//! all of it is counted as in doubt.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::record_batch::RecordBatch;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::memory::{Reservation, batch_bytes};
use ruslo_core::metrics::Counter;
use ruslo_core::operator::{Progress, Subtask};
use ruslo_core::sink::{Committable, Committer, Guarantee, Sink, SinkContext, SinkWriter};
use serde::{Deserialize, Serialize};

use crate::coordinator::{Mailbox, Message};
use crate::planted::{Bug, planted};
use crate::scheduler::lock;

/// So much of one sink's rows is held before a checkpoint begins out of turn.
const HELD_BYTES_MAX: u64 = 32 << 20;

/// A sink whose rows are shown once the checkpoint behind them is durable.
pub struct HeldSink {
    inner: Arc<dyn Sink>,
    shelf: Arc<Mutex<Shelf>>,
    mailbox: Arc<Mailbox>,
    in_doubt: Arc<Counter>,
}

/// What the writers hold, and the committer shows.
struct Shelf {
    writers: BTreeMap<usize, Box<dyn SinkWriter>>,
    prepared: BTreeMap<(Epoch, usize), Vec<RecordBatch>>,
    memory: Reservation,
    /// Whether a checkpoint was asked for since the last barrier.
    asked: bool,
}

impl Shelf {
    fn hold(&self, bytes: u64) -> Result<u64> {
        let held = self.memory.bytes().saturating_add(bytes);
        self.memory.resize(held)?;
        Ok(held)
    }

    fn release(&self, bytes: u64) -> Result<()> {
        self.memory.resize(self.memory.bytes().saturating_sub(bytes))
    }
}

/// What one subtask is about to show of one epoch. Stored in checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Parcel {
    held: Epoch,
    subtask: usize,
    rows: u64,
}

fn bytes_of(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch_bytes(batch) as u64).sum()
}

impl HeldSink {
    /// Holds the rows of `inner` in `memory`.
    pub fn new(inner: Arc<dyn Sink>, memory: Reservation, mailbox: Arc<Mailbox>) -> Self {
        let shelf = Shelf { writers: BTreeMap::new(), prepared: BTreeMap::new(), memory, asked: false };
        Self { inner, shelf: Arc::new(Mutex::new(shelf)), mailbox, in_doubt: Arc::default() }
    }

    /// Rows of an earlier process that are not shown any more, whether it has shown them or not.
    pub fn in_doubt_rows(&self) -> u64 {
        self.in_doubt.get()
    }
}

impl Sink for HeldSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtMostOnce
    }

    fn is_two_phase(&self) -> bool {
        true
    }

    fn writer(&self, subtask: Subtask, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let inner = self.inner.writer(subtask, context)?;
        lock(&self.shelf).writers.insert(subtask.index, inner);
        let (shelf, mailbox) = (Arc::clone(&self.shelf), Arc::clone(&self.mailbox));
        Ok(Box::new(HeldWriter { subtask: subtask.index, shelf, mailbox, held: Vec::new() }))
    }

    fn committer(&self, context: &SinkContext) -> Result<Box<dyn Committer>> {
        let inner = self.inner.committer(context)?;
        Ok(Box::new(HeldCommitter { inner, shelf: Arc::clone(&self.shelf), in_doubt: Arc::clone(&self.in_doubt) }))
    }
}

struct HeldWriter {
    subtask: usize,
    shelf: Arc<Mutex<Shelf>>,
    mailbox: Arc<Mailbox>,
    held: Vec<RecordBatch>,
}

impl SinkWriter for HeldWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<Progress> {
        let mut shelf = lock(&self.shelf);
        if planted(Bug::ShownBeforeDurable) {
            return shelf.writers.get_mut(&self.subtask).map_or(Ok(Progress::Done), |writer| writer.write(batch));
        }
        let held = shelf.hold(batch_bytes(batch) as u64)?;
        self.held.push(batch.clone());
        if held > HELD_BYTES_MAX && !std::mem::replace(&mut shelf.asked, true) {
            drop(shelf);
            self.mailbox.post(Message::CheckpointWanted);
        }
        Ok(Progress::Done)
    }

    fn prepare_commit(&mut self, epoch: Epoch) -> Result<Vec<Committable>> {
        let batches = std::mem::take(&mut self.held);
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let mut shelf = lock(&self.shelf);
        shelf.asked = false;
        shelf.prepared.insert((epoch, self.subtask), batches);
        let parcel = Parcel { held: epoch, subtask: self.subtask, rows };
        let committable = serde_json::to_value(&parcel).map_err(|error| Error::internal(error.to_string()))?;
        Ok((rows > 0).then_some(Committable(committable)).into_iter().collect())
    }
}

struct HeldCommitter {
    inner: Box<dyn Committer>,
    shelf: Arc<Mutex<Shelf>>,
    in_doubt: Arc<Counter>,
}

impl HeldCommitter {
    /// Shows what was prepared; what a process before this one had prepared is in doubt.
    fn show(&mut self, parcel: &Parcel) -> Result<()> {
        let mut shelf = lock(&self.shelf);
        let Some(batches) = shelf.prepared.remove(&(parcel.held, parcel.subtask)) else {
            if !planted(Bug::ForgetInDoubt) {
                self.in_doubt.add(usize::try_from(parcel.rows).unwrap_or(usize::MAX));
            }
            return Ok(());
        };
        let Some(writer) = shelf.writers.get_mut(&parcel.subtask) else {
            return Err(Error::internal("rows are held for a writer that is not there"));
        };
        for batch in &batches {
            if writer.write(batch)? == Progress::More {
                return Err(Error::internal("a sink left a batch half written"));
            }
        }
        let prepared = writer.prepare_commit(parcel.held)?;
        shelf.release(bytes_of(&batches))?;
        drop(shelf);
        self.inner.commit(&prepared)
    }
}

impl Committer for HeldCommitter {
    fn commit(&mut self, committables: &[Committable]) -> Result<()> {
        for committable in committables {
            // What was prepared while output was not held belongs to the sink itself.
            match serde_json::from_value::<Parcel>(committable.0.clone()) {
                Ok(parcel) => self.show(&parcel)?,
                Err(_) => self.inner.commit(std::slice::from_ref(committable))?,
            }
        }
        Ok(())
    }

    fn abort_since(&mut self, epoch: Epoch) -> Result<()> {
        self.inner.abort_since(epoch)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use ruslo_core::environment::Environment;
    use ruslo_core::memory::MemoryPool;

    use super::*;
    use crate::scheduler::{Scheduler, TaskIndex};

    struct NoScheduler;
    impl Scheduler for NoScheduler {
        fn wake(&self, _: TaskIndex) {}
    }

    /// Shows at once, and remembers.
    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<i64>>>);

    impl Sink for Screen {
        fn guarantee(&self) -> Guarantee {
            Guarantee::AtLeastOnce
        }
        fn writer(&self, _: Subtask, _: &SinkContext) -> Result<Box<dyn SinkWriter>> {
            Ok(Box::new(self.clone()))
        }
        fn committer(&self, _: &SinkContext) -> Result<Box<dyn Committer>> {
            Ok(Box::new(self.clone()))
        }
    }

    impl SinkWriter for Screen {
        fn write(&mut self, batch: &RecordBatch) -> Result<Progress> {
            lock(&self.0).extend(batch.column(0).as_primitive::<Int64Type>().values());
            Ok(Progress::Done)
        }
        fn prepare_commit(&mut self, _: Epoch) -> Result<Vec<Committable>> {
            Ok(Vec::new())
        }
    }

    impl Committer for Screen {
        fn commit(&mut self, _: &[Committable]) -> Result<()> {
            Ok(())
        }
        fn abort_since(&mut self, _: Epoch) -> Result<()> {
            Ok(())
        }
    }

    struct Stage {
        screen: Screen,
        pool: Arc<MemoryPool>,
        context: SinkContext,
    }

    impl Stage {
        fn new() -> Self {
            let context = SinkContext { environment: Environment::local(), run: "r".to_owned() };
            Self { screen: Screen::default(), pool: MemoryPool::unbounded(), context }
        }

        /// The sink of a process.
        fn sink(&self) -> HeldSink {
            let mailbox = Arc::new(Mailbox::new(Arc::new(NoScheduler), 0));
            HeldSink::new(Arc::new(self.screen.clone()), self.pool.reserve("held"), mailbox)
        }

        fn shown(&self) -> Vec<i64> {
            lock(&self.screen.0).clone()
        }
    }

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RecordBatch::try_from_iter([("v", column)]).unwrap()
    }

    const SUBTASK: Subtask = Subtask { index: 1, parallelism: 2 };

    #[test]
    fn rows_are_shown_by_the_commit_and_their_memory_is_given_back() {
        let stage = Stage::new();
        let sink = stage.sink();
        let mut writer = sink.writer(SUBTASK, &stage.context).unwrap();
        let mut committer = sink.committer(&stage.context).unwrap();
        let _ = writer.write(&batch(0..2)).unwrap();
        let first = writer.prepare_commit(Epoch(1)).unwrap();
        let _ = writer.write(&batch(2..5)).unwrap();
        assert_eq!((stage.shown(), stage.pool.used_bytes()), (vec![], 5 * 8));
        committer.commit(&first).unwrap();
        assert_eq!((stage.shown(), stage.pool.used_bytes()), (vec![0, 1], 3 * 8));
        committer.commit(&writer.prepare_commit(Epoch(2)).unwrap()).unwrap();
        assert_eq!((stage.shown(), stage.pool.used_bytes()), (vec![0, 1, 2, 3, 4], 0));
        assert!(writer.prepare_commit(Epoch(3)).unwrap().is_empty());
        assert_eq!(sink.in_doubt_rows(), 0);
    }

    #[test]
    fn what_a_process_before_had_prepared_is_in_doubt_and_not_shown() {
        let stage = Stage::new();
        let before = stage.sink();
        let mut writer = before.writer(SUBTASK, &stage.context).unwrap();
        let _ = writer.write(&batch(0..3)).unwrap();
        let prepared = writer.prepare_commit(Epoch(7)).unwrap();
        let after = stage.sink();
        after.committer(&stage.context).unwrap().commit(&prepared).unwrap();
        assert_eq!((stage.shown(), after.in_doubt_rows()), (vec![], 3));
    }

    #[test]
    fn too_much_that_is_held_asks_for_a_checkpoint_once() {
        let stage = Stage::new();
        let sink = stage.sink();
        let mut writer = sink.writer(SUBTASK, &stage.context).unwrap();
        let large = batch(0..1 << 20);
        for _ in 0..6 {
            let _ = writer.write(&large).unwrap();
        }
        let asked = || std::iter::from_fn(|| sink.mailbox.take()).count();
        assert_eq!(asked(), 1);
        writer.prepare_commit(Epoch(1)).unwrap();
        assert_eq!(asked(), 0);
    }

    #[test]
    fn what_is_held_is_stored_in_this_form() {
        let parcel = Parcel { held: Epoch(7), subtask: 1, rows: 3 };
        assert_eq!(serde_json::to_string(&parcel).unwrap(), r#"{"held":7,"subtask":1,"rows":3}"#);
    }
}
