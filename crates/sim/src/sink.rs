//! A sink in two phases over an external system that outlives every crash.
//!
//! Writers *stage* rows in the [`Outside`] under a token, at once or at the barrier; the committer makes a token's rows
//! visible. What is staged and never committed must be aborted some day. Two sorts of outside: in one, what is visible
//! is [`Permanence::Final`]; from the other, it can be [`Permanence::Retractable`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Int64Type, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use ruslo_core::clock::VirtualClock;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::{Progress, Subtask};
use ruslo_core::sink::{Committable, Committer, Guarantee, Sink, SinkContext, SinkWriter, Takes};
use serde_json::json;

use crate::changes::changes_of;
use crate::process::{Point, Process, Verdict};
use crate::trace::Trace;

/// An output row: its columns, a NULL as `i64::MIN`.
pub type OutRow = Vec<i64>;

/// Whether visible rows can be made to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permanence {
    /// Who has seen a row has seen it.
    Final,
    /// Rows of epochs after the restored one are removed.
    Retractable,
    /// Rows are seen as they are written: there is no second phase.
    AtOnce,
}

/// Rows that go together.
#[derive(Debug, Clone, Default)]
struct Parcel {
    sink: usize,
    run: String,
    process: u64,
    /// Set when it is prepared.
    epoch: Option<Epoch>,
    rows: Vec<OutRow>,
}

/// The external system.
#[derive(Debug, Default)]
struct Store {
    next: u64,
    staged: BTreeMap<u64, Parcel>,
    visible: BTreeMap<u64, Parcel>,
    violations: Vec<String>,
}

/// The external system that all sinks of a run write to; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Outside {
    store: Arc<Mutex<Store>>,
}

impl Outside {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a sink shows: each row, and how often.
    pub fn visible(&self, sink: usize) -> BTreeMap<OutRow, i64> {
        let mut counts = BTreeMap::new();
        for row in self.store().visible.values().filter(|parcel| parcel.sink == sink).flat_map(|parcel| &parcel.rows) {
            *counts.entry(row.clone()).or_default() += 1;
        }
        counts
    }

    /// What a sink shows, in the order in which it was written.
    pub fn in_order(&self, sink: usize) -> Vec<OutRow> {
        let store = self.store();
        let parcels = store.visible.values().filter(|parcel| parcel.sink == sink);
        parcels.flat_map(|parcel| parcel.rows.iter().cloned()).collect()
    }

    /// What a sink shows by checkpoint, in the order in which it was written.
    pub fn by_epoch(&self, sink: usize) -> Vec<(Epoch, Vec<OutRow>)> {
        let mut epochs = BTreeMap::<Epoch, Vec<OutRow>>::new();
        for parcel in self.store().visible.values().filter(|parcel| parcel.sink == sink) {
            epochs.entry(parcel.epoch.unwrap_or(Epoch::ZERO)).or_default().extend(parcel.rows.iter().cloned());
        }
        epochs.into_iter().collect()
    }

    /// How many rows are staged or visible.
    pub fn rows(&self) -> usize {
        let store = self.store();
        store.staged.values().chain(store.visible.values()).map(|parcel| parcel.rows.len()).sum()
    }

    /// Who left something staged, but for `excused` processes.
    pub fn leftovers(&self, excused: &[u64]) -> Vec<String> {
        let store = self.store();
        let left = store.staged.values().filter(|parcel| !excused.contains(&parcel.process));
        left.map(|parcel| {
            format!("process {} left {} rows of epoch {:?}", parcel.process, parcel.rows.len(), parcel.epoch)
        })
        .collect()
    }

    /// What no sink may ever see.
    pub fn violations(&self) -> Vec<String> {
        self.store().violations.clone()
    }
}

/// A sink into the [`Outside`].
#[derive(Clone)]
pub struct SimSink {
    /// Where to.
    pub outside: Outside,
    /// Which sink of the run.
    pub number: usize,
    /// Whether visible rows can be made to go.
    pub permanence: Permanence,
    /// Whether writers keep rows to themselves until the barrier.
    pub buffered: bool,
    /// How long it takes for a row, and the clock that goes on meanwhile.
    pub delay: Option<(Arc<VirtualClock>, Duration)>,
    /// Whether rows have a kind: the last column of what it shows.
    pub changes: bool,
    /// Whose sink it is.
    pub process: Arc<Process>,
    /// Where calls are noted.
    pub trace: Trace,
}

fn killed() -> Error {
    Error::unavailable("the process was killed")
}

impl SimSink {
    fn reach(&self, point: Point) -> Result<Verdict> {
        match self.process.reach(point) {
            Verdict::Dead => Err(killed()),
            Verdict::Fail(kind) => Err(Error::io("the external system", &std::io::Error::from(kind))),
            verdict => Ok(verdict),
        }
    }

    /// Passes a point at which nothing is left to be done.
    fn pass(&self, point: Point) -> Result<()> {
        match self.reach(point)? {
            Verdict::LastBreath => Err(killed()),
            _ => Ok(()),
        }
    }
}

impl Sink for SimSink {
    fn guarantee(&self) -> Guarantee {
        match self.permanence {
            Permanence::AtOnce => Guarantee::AtLeastOnce,
            Permanence::Final | Permanence::Retractable => Guarantee::ExactlyOnce,
        }
    }

    fn changelog(&self) -> Takes {
        if self.changes { Takes::Retract } else { Takes::Append }
    }

    fn is_two_phase(&self) -> bool {
        self.permanence != Permanence::AtOnce
    }

    fn writer(&self, subtask: Subtask, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let run = context.run.clone();
        Ok(Box::new(SimWriter {
            sink: self.clone(),
            subtask,
            run,
            buffer: Vec::new(),
            token: None,
            prepared: Epoch::ZERO,
        }))
    }

    fn committer(&self, context: &SinkContext) -> Result<Box<dyn Committer>> {
        Ok(Box::new(SimCommitter { sink: self.clone(), run: context.run.clone() }))
    }
}

/// The rows of a batch.
pub fn rows_of(batch: &RecordBatch) -> Vec<OutRow> {
    let columns: Vec<Vec<i64>> = batch.columns().iter().map(|column| values_of(column.as_ref())).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row]).collect()).collect()
}

fn values_of(column: &dyn Array) -> Vec<i64> {
    let values = match column.data_type() {
        DataType::Int64 => column.as_primitive::<Int64Type>().values(),
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            return texts.iter().map(|text| text.unwrap().parse().unwrap()).collect();
        }
        DataType::Timestamp(..) => column.as_primitive::<TimestampMillisecondType>().values(),
        other => panic!("a sink of the simulator got a column of type {other}"),
    };
    values.iter().enumerate().map(|(row, value)| if column.is_null(row) { i64::MIN } else { *value }).collect()
}

struct SimWriter {
    sink: SimSink,
    subtask: Subtask,
    run: String,
    buffer: Vec<OutRow>,
    token: Option<u64>,
    prepared: Epoch,
}

impl SimWriter {
    /// Stages rows; those of a parcel that was aborted meanwhile are gone, as with a removed file.
    fn stage(&mut self, rows: Vec<OutRow>) {
        let mut store = self.sink.outside.store();
        let token = *self.token.get_or_insert_with(|| {
            let parcel = Parcel {
                sink: self.sink.number,
                run: self.run.clone(),
                process: self.sink.process.id,
                ..Parcel::default()
            };
            store.next += 1;
            let token = store.next;
            store.staged.insert(token, parcel);
            token
        });
        if let Some(parcel) = store.staged.get_mut(&token) {
            parcel.rows.extend(rows);
        }
    }
}

impl SimWriter {
    /// Shows rows that nobody takes back.
    fn show(&mut self, rows: Vec<OutRow>) -> Result<()> {
        self.sink.pass(Point::BeforeCommit)?;
        {
            let mut store = self.sink.outside.store();
            store.next += 1;
            let token = store.next;
            let (sink, run, process) = (self.sink.number, self.run.clone(), self.sink.process.id);
            store.visible.insert(token, Parcel { sink, run, process, epoch: None, rows });
        }
        self.sink.pass(Point::InCommit)
    }
}

impl SinkWriter for SimWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<Progress> {
        if self.sink.process.is_dead() {
            return Err(killed());
        }
        let rows = if self.sink.changes { changes_of(batch) } else { rows_of(batch) };
        if let Some((clock, row)) = &self.sink.delay {
            clock.advance(*row * rows.len() as u32);
        }
        let first = rows.first().map_or(0, |row| {
            row.iter().fold(0u64, |sum, value| sum.wrapping_mul(31).wrapping_add(*value as u64 % 1000))
        });
        self.sink.trace.event("write", &[self.sink.number as u64, self.subtask.index as u64, rows.len() as u64, first]);
        if self.sink.permanence == Permanence::AtOnce {
            self.show(rows)?;
        } else if self.sink.buffered {
            self.buffer.extend(rows)
        } else {
            self.stage(rows)
        }
        Ok(Progress::Done)
    }

    fn prepare_commit(&mut self, epoch: Epoch) -> Result<Vec<Committable>> {
        self.sink.trace.event("prepare", &[self.sink.number as u64, self.subtask.index as u64, epoch.0]);
        if !self.buffer.is_empty() {
            let rows = std::mem::take(&mut self.buffer);
            self.stage(rows);
        }
        if epoch <= self.prepared {
            self.sink.outside.store().violations.push(format!("epoch {epoch} was prepared after {}", self.prepared));
        }
        self.prepared = epoch;
        let Some(token) = self.token.take() else { return Ok(Vec::new()) };
        if let Some(parcel) = self.sink.outside.store().staged.get_mut(&token) {
            parcel.epoch = Some(epoch);
        }
        self.sink.pass(Point::Prepared)?;
        Ok(vec![Committable(json!({ "token": token, "epoch": epoch.0 }))])
    }
}

struct SimCommitter {
    sink: SimSink,
    run: String,
}

impl SimCommitter {
    fn publish(&self, committable: &Committable) -> Result<()> {
        let token =
            committable.0["token"].as_u64().ok_or_else(|| Error::internal("a committable is not the sink's"))?;
        let mut store = self.sink.outside.store();
        self.sink.trace.event("commit", &[self.sink.number as u64, token]);
        match store.staged.remove(&token) {
            Some(parcel) if parcel.epoch.map(|epoch| epoch.0) == committable.0["epoch"].as_u64() => {
                store.visible.insert(token, parcel);
                Ok(())
            }
            Some(parcel) => {
                store.violations.push(format!("what was committed was not prepared like this: {:?}", parcel.epoch));
                Ok(())
            }
            None if store.visible.contains_key(&token) => Ok(()),
            None => Err(Error::corrupt(format!("output {token} of a completed checkpoint is missing"))),
        }
    }
}

impl Committer for SimCommitter {
    fn commit(&mut self, committables: &[Committable]) -> Result<()> {
        if committables.is_empty() {
            return Ok(());
        }
        let last_breath = self.sink.reach(Point::BeforeCommit)? == Verdict::LastBreath;
        for (index, committable) in committables.iter().enumerate() {
            if index > 0 {
                self.sink.pass(Point::InCommit)?;
            }
            self.publish(committable)?;
        }
        if last_breath {
            return Err(killed());
        }
        self.sink.pass(Point::AfterCommit)
    }

    fn abort_since(&mut self, epoch: Epoch) -> Result<()> {
        self.sink.pass(Point::BeforeAbort)?;
        self.sink.trace.event("abort", &[self.sink.number as u64, epoch.0]);
        {
            let mut store = self.sink.outside.store();
            let (number, run) = (self.sink.number, &self.run);
            let mine = |parcel: &Parcel| parcel.sink == number && parcel.run == *run;
            store.staged.retain(|_, parcel| !mine(parcel));
            if self.sink.permanence == Permanence::Retractable {
                store.visible.retain(|_, parcel| !(mine(parcel) && parcel.epoch.is_some_and(|of| of > epoch)));
            }
        }
        self.sink.pass(Point::AfterAbort)
    }
}

#[cfg(test)]
mod tests {
    use ruslo_core::environment::Environment;

    use super::*;
    use crate::dataset::{Lineage, Row, batch};

    const SUBTASK: Subtask = Subtask { index: 0, parallelism: 1 };

    fn sink(permanence: Permanence, buffered: bool) -> SimSink {
        let process = Arc::new(Process::new(1, Vec::new()));
        SimSink {
            outside: Outside::default(),
            number: 0,
            permanence,
            buffered,
            delay: None,
            changes: false,
            process,
            trace: Trace::default(),
        }
    }

    fn context() -> SinkContext {
        SinkContext { environment: Environment::local(), run: "r".to_owned() }
    }

    fn rows(count: usize) -> RecordBatch {
        let lineage = Lineage { id: 1, rows: vec![Row { key: 1, value: 2, time: 3 }; count], cuts: vec![0, count] };
        batch(&lineage, 0, count)
    }

    #[test]
    fn rows_show_once_however_often_they_are_committed() {
        for buffered in [false, true] {
            let sink = sink(Permanence::Final, buffered);
            let mut writer = sink.writer(SUBTASK, &context()).unwrap();
            let _ = writer.write(&rows(3)).unwrap();
            let prepared = writer.prepare_commit(Epoch(1)).unwrap();
            assert!(sink.outside.visible(0).is_empty());
            for _ in 0..2 {
                sink.committer(&context()).unwrap().commit(&prepared).unwrap();
                assert_eq!(sink.outside.visible(0).values().sum::<i64>(), 3);
            }
            assert!(writer.prepare_commit(Epoch(2)).unwrap().is_empty());
        }
    }

    #[test]
    fn an_abort_clears_what_is_staged_and_retracts_what_may_be() {
        for (permanence, left) in [(Permanence::Final, 2), (Permanence::Retractable, 1)] {
            let sink = sink(permanence, false);
            let (mut writer, mut committer) =
                (sink.writer(SUBTASK, &context()).unwrap(), sink.committer(&context()).unwrap());
            for epoch in 1..=2 {
                let _ = writer.write(&rows(1)).unwrap();
                committer.commit(&writer.prepare_commit(Epoch(epoch)).unwrap()).unwrap();
            }
            let _ = writer.write(&rows(5)).unwrap();
            assert_eq!((sink.outside.leftovers(&[]).len(), sink.outside.leftovers(&[1]).len()), (1, 0));
            committer.abort_since(Epoch(1)).unwrap();
            assert_eq!(sink.outside.rows(), left);
            let lost = writer.prepare_commit(Epoch(3)).unwrap();
            assert_eq!(committer.commit(&lost).unwrap_err().kind(), ruslo_core::error::ErrorKind::Corrupt);
        }
    }

    #[test]
    fn an_epoch_that_goes_back_is_a_violation() {
        let sink = sink(Permanence::Final, false);
        let mut writer = sink.writer(SUBTASK, &context()).unwrap();
        writer.prepare_commit(Epoch(2)).unwrap();
        writer.prepare_commit(Epoch(2)).unwrap();
        assert_eq!(sink.outside.violations(), ["epoch 2 was prepared after 2"]);
    }
}
