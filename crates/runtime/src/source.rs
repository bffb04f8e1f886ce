//! The head of a source task: reads splits, assigns event time, and begins every barrier.
//!
//! ```text
//! SplitBook ──assigns──▶ SourceReader ──batches──▶ (held while the split's event time is unknown) ──RowTime──▶ chain
//!                              └── rejected records ──────────────────────────────────── bad rows ┴──▶ aside
//! ```
//!
//! A head has one split with an end open at a time, and beside it its share of those that never end.
//!
//! Records that cannot become rows are counted, and leave aside as dead letters if the table says so: in the same step
//! as the rows around them, so that no barrier comes between.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use arrow::record_batch::RecordBatch;
use ruslo_core::clock::{Clock, Instant};
use ruslo_core::dead_letter::{OnError, Origins, Rejected};
use ruslo_core::element::{Barrier, BarrierKind, EndReason};
use ruslo_core::error::{Error, Result};
use ruslo_core::memory::{Reservation, batch_bytes};
use ruslo_core::metrics::OperatorMetrics;
use ruslo_core::source::{
    Assigned as Rows, Budget, Polled, Position, RowTime, Sifted, SourceReader, SplitId, SplitWatermark,
};
use ruslo_core::time::Timestamp;
use ruslo_state::manifest::SplitReading;

use crate::input::Event;
use crate::planted::{Bug, planted};
use crate::scheduler::lock;
use crate::sift::{BadRow, sift};
use crate::splits::{Assigned, SplitBook};

/// Barriers on their way from the coordinator to one source task.
pub type Barriers = Arc<Mutex<VecDeque<Barrier>>>;

/// What a source subtask puts into a checkpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceSnapshot {
    /// Splits finished since the last snapshot, with the watermark at their end.
    pub finished: Vec<(SplitId, SplitWatermark)>,
    /// The splits being read of which some rows have been sent, each with its lineage.
    pub reading: Vec<(String, SplitReading)>,
}

/// What a poll of a source came to.
#[derive(Debug, PartialEq)]
pub enum SourcePoll {
    /// Something for the chain.
    Event(Event),
    /// Something was done, with nothing for the chain yet.
    Worked,
    /// Nothing until woken, or until this time.
    Blocked(Option<Instant>),
}

/// The head of one source task.
pub struct SourceHead {
    reader: Box<dyn SourceReader>,
    book: Arc<SplitBook>,
    row_time: Option<Arc<dyn RowTime>>,
    barriers: Barriers,
    memory: Reservation,
    metrics: Arc<OperatorMetrics>,
    clock: Arc<dyn Clock>,
    on_error: OnError,
    batch_rows: usize,
    /// Dead letters of the last poll.
    aside: Option<RecordBatch>,
    /// Whether a record that was left out has been told in the log.
    told: bool,
    /// The splits being read.
    open: BTreeMap<SplitId, OpenSplit>,
    /// Of the rows that all of them hold.
    held_bytes: usize,
    finished: Vec<(SplitId, SplitWatermark)>,
    /// The last watermark sent.
    watermark: Timestamp,
    /// A stop barrier has gone out, or there is nothing left to read.
    ending: Option<EndReason>,
    ended: bool,
}

/// A split being read.
struct OpenSplit {
    /// Event time at the next row to be sent; `None` as long as the split before is unfinished.
    watermark: Option<SplitWatermark>,
    /// Where to go on after the last row that was sent; `None` before the first.
    sent: Option<Position>,
    /// Read, but not sent.
    held: VecDeque<Held>,
    read_to_end: bool,
    is_endless: bool,
}

impl OpenSplit {
    /// What a checkpoint needs to go on with it; none, if nothing was sent.
    fn reading(&self, split: &SplitId) -> Option<(String, SplitReading)> {
        let read = self.held.back().map(|held| &held.position).filter(|_| planted(Bug::PositionOneAhead));
        let position = read.or(self.sent.as_ref())?.clone();
        let (lineage, sequence) = (split.lineage.clone(), split.sequence);
        Some((lineage, SplitReading { sequence, position, watermark: self.watermark? }))
    }

    fn may_send(&self) -> bool {
        self.watermark.is_some() && !self.held.is_empty()
    }
}

/// What one poll of a reader gave.
struct Held {
    batch: RecordBatch,
    position: Position,
    rejected: Vec<Rejected>,
    origins: Option<Box<dyn Origins>>,
}

impl Held {
    fn records(&self) -> usize {
        self.batch.num_rows() + self.rejected.len()
    }

    fn bytes(&self) -> usize {
        let raw = self.rejected.iter().map(|rejected| rejected.record.raw.as_ref().map_or(0, Vec::len));
        let origins = self.origins.as_ref().map_or(0, |origins| origins.bytes());
        batch_bytes(&self.batch) + raw.sum::<usize>() + origins
    }

    /// Adds the rows that failed after they had been read.
    fn reject(&mut self, bad: Vec<BadRow>) -> Result<()> {
        if bad.is_empty() {
            return Ok(());
        }
        let places: Vec<usize> = bad.iter().map(|(place, _)| *place).collect();
        let records = match &self.origins {
            Some(origins) => origins.records(&places)?,
            None => vec![Default::default(); places.len()],
        };
        let rejected = bad.into_iter().zip(records);
        self.rejected.extend(rejected.map(|((_, error), record)| Rejected { record, reason: error.to_string() }));
        Ok(())
    }
}

/// What a source head is made of.
pub struct SourceSpec {
    /// Reads this subtask's splits.
    pub reader: Box<dyn SourceReader>,
    /// The source's books.
    pub book: Arc<SplitBook>,
    /// Computed columns and event time.
    pub row_time: Option<Arc<dyn RowTime>>,
    /// Where the coordinator puts barriers.
    pub barriers: Barriers,
    /// What it holds in memory.
    pub memory: Reservation,
    /// What it counts.
    pub metrics: Arc<OperatorMetrics>,
    /// Time, for dead letters and rows from the future.
    pub clock: Arc<dyn Clock>,
    /// What becomes of records that cannot become rows.
    pub on_error: OnError,
    /// Rows per batch.
    pub batch_rows: usize,
}

impl SourceHead {
    /// A head that has read nothing.
    pub fn new(spec: SourceSpec) -> Self {
        let SourceSpec { reader, book, row_time, barriers, memory, metrics, clock, on_error, batch_rows } = spec;
        Self {
            reader,
            book,
            row_time,
            barriers,
            memory,
            metrics,
            clock,
            on_error,
            batch_rows,
            aside: None,
            told: false,
            open: BTreeMap::new(),
            held_bytes: 0,
            finished: Vec::new(),
            watermark: Timestamp::MIN,
            ending: None,
            ended: false,
        }
    }

    /// The last watermark sent.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Takes the dead letters of the last poll: they must leave the task before anything else is polled.
    pub fn take_aside(&mut self) -> Option<RecordBatch> {
        self.aside.take()
    }

    /// What a checkpoint needs to go on from here.
    pub fn snapshot(&mut self) -> SourceSnapshot {
        let reading = self.open.iter().filter_map(|(split, open)| open.reading(split)).collect();
        SourceSnapshot { finished: std::mem::take(&mut self.finished), reading }
    }

    /// The next thing for the chain. `only_barriers`: the chain is busy and takes nothing else.
    pub fn poll(&mut self, now: Instant, only_barriers: bool) -> Result<SourcePoll> {
        if self.ended {
            return Ok(SourcePoll::Blocked(None));
        }
        if self.ending.is_none()
            && let Some(barrier) = lock(&self.barriers).pop_front()
        {
            if barrier.kind == BarrierKind::Stop {
                self.ending = Some(EndReason::Stop);
            }
            return Ok(SourcePoll::Event(Event::Barrier(barrier)));
        }
        if only_barriers {
            return Ok(SourcePoll::Blocked(None));
        }
        match self.ending {
            Some(reason) => Ok(SourcePoll::Event(self.end(reason))),
            None => self.advance(now),
        }
    }

    fn end(&mut self, reason: EndReason) -> Event {
        if reason == EndReason::Drain && self.watermark < Timestamp::MAX {
            self.watermark = Timestamp::MAX;
            return Event::Watermark(Timestamp::MAX);
        }
        self.ended = true;
        Event::End(0, reason)
    }

    fn advance(&mut self, now: Instant) -> Result<SourcePoll> {
        let source = self.book.watermark();
        if self.row_time.is_some() && source > self.watermark && source < Timestamp::MAX {
            self.watermark = source;
            return Ok(SourcePoll::Event(Event::Watermark(source)));
        }
        if let Some(split) = self.first(OpenSplit::may_send) {
            return self.send_held(&split);
        }
        if let Some(split) = self.first(|open| open.read_to_end && open.held.is_empty() && open.watermark.is_some()) {
            return self.finish(&split);
        }
        if self.open.values().all(|open| open.is_endless)
            && let Some(taken) = self.next_split()?
        {
            return Ok(taken);
        }
        if self.open.is_empty() {
            return Ok(SourcePoll::Blocked(None));
        }
        if self.learn_event_time() {
            return Ok(SourcePoll::Worked);
        }
        if self.open.values().all(|open| open.read_to_end) { Ok(SourcePoll::Blocked(None)) } else { self.read(now) }
    }

    fn first(&self, wanted: impl Fn(&OpenSplit) -> bool) -> Option<SplitId> {
        self.open.iter().find(|(_, open)| wanted(open)).map(|(split, _)| split.clone())
    }

    /// Asks where event time stands at the beginning of splits that were begun before it was known; says whether
    /// something can be sent or finished now.
    fn learn_event_time(&mut self) -> bool {
        let mut learnt = false;
        for (split, open) in self.open.iter_mut().filter(|(_, open)| open.watermark.is_none()) {
            open.watermark = self.book.base(split);
            learnt |= open.watermark.is_some() && (!open.held.is_empty() || open.read_to_end);
        }
        learnt
    }

    /// Takes a split, if there is one for this head; none, if it can only go on with what it has.
    fn next_split(&mut self) -> Result<Option<SourcePoll>> {
        match self.book.assign(self.open.len()) {
            Assigned::Nothing if self.open.is_empty() => {
                self.ending = Some(EndReason::Drain);
                Ok(Some(SourcePoll::Worked))
            }
            Assigned::Nothing | Assigned::Wait => Ok(None),
            Assigned::Split(assignment) => {
                let watermark = match self.row_time {
                    Some(_) => assignment.watermark,
                    None => Some(SplitWatermark::START),
                };
                let open = OpenSplit {
                    watermark,
                    sent: assignment.position.clone(),
                    held: VecDeque::new(),
                    read_to_end: false,
                    is_endless: assignment.split.is_endless,
                };
                self.open.insert(assignment.split.id(), open);
                self.reader.add_split(assignment.split, assignment.position)?;
                Ok(Some(SourcePoll::Worked))
            }
        }
    }

    fn read(&mut self, now: Instant) -> Result<SourcePoll> {
        let rows_max = match self.book.allowance(now, self.batch_rows) {
            Ok(rows) => rows,
            Err(at) => return Ok(SourcePoll::Blocked(Some(at))),
        };
        match self.reader.poll(Budget { rows_max })? {
            Polled::Batch { split, batch, position } => {
                self.hold(&split, Held { batch, position, rejected: Vec::new(), origins: None })
            }
            Polled::Sifted(Sifted { split, batch, position, rejected, origins }) => {
                self.hold(&split, Held { batch, position, rejected, origins })
            }
            Polled::Finished(split) => {
                self.open.get_mut(&split).ok_or_else(unasked)?.read_to_end = true;
                Ok(SourcePoll::Worked)
            }
            Polled::Pending(until) => Ok(SourcePoll::Blocked(until)),
        }
    }

    fn hold(&mut self, split: &SplitId, held: Held) -> Result<SourcePoll> {
        let open = self.open.get_mut(split).ok_or_else(unasked)?;
        self.book.spend(held.records());
        self.held_bytes += held.bytes();
        open.held.push_back(held);
        self.memory.resize(self.held_bytes as u64)?;
        let may_send = open.watermark.is_some() && !planted(Bug::PositionOneAhead);
        if may_send { self.send_held(split) } else { Ok(SourcePoll::Worked) }
    }

    fn send_held(&mut self, split: &SplitId) -> Result<SourcePoll> {
        let Some(open) = self.open.get_mut(split) else { return Ok(SourcePoll::Worked) };
        let Some(mut held) = open.held.pop_front() else { return Ok(SourcePoll::Worked) };
        self.held_bytes -= held.bytes().min(self.held_bytes);
        self.memory.resize(self.held_bytes as u64)?;
        open.sent = Some(held.position.clone());
        self.metrics.rows_in.add(held.records());
        let Some(mut watermark) = open.watermark else {
            return Err(Error::internal("rows were sent before their event time was known"));
        };
        let rows = self.rows_of(&mut held, &mut watermark)?;
        if let Some(open) = self.open.get_mut(split) {
            open.watermark = Some(watermark);
        }
        self.book.advance(split, watermark);
        self.metrics.ahead_rows.add(rows.ahead_rows);
        self.put_aside(&held.rejected)?;
        self.metrics.rows_out.add(rows.batch.num_rows());
        match rows.batch.num_rows() {
            // Whoever is behind is not called for nothing.
            0 => Ok(SourcePoll::Worked),
            _ => Ok(SourcePoll::Event(Event::Batch(0, rows.batch))),
        }
    }

    /// The table's rows; where bad records may be left out, those that fail only now are rejected.
    fn rows_of(&self, held: &mut Held, watermark: &mut SplitWatermark) -> Result<Rows> {
        let batch = held.batch.clone();
        let Some(row_time) = &self.row_time else { return Ok(Rows { batch, ahead_rows: 0 }) };
        let wall = self.clock.wall();
        if self.on_error.fails() {
            return row_time.assign(batch, watermark, wall);
        }
        let (rows, bad) = sift(row_time.as_ref(), batch, watermark, wall)?;
        held.reject(bad)?;
        Ok(rows)
    }

    /// Counts records that could not become rows, and makes letters of them if somebody reads those.
    fn put_aside(&mut self, rejected: &[Rejected]) -> Result<()> {
        let Some(first) = rejected.first() else { return Ok(()) };
        if !std::mem::replace(&mut self.told, true) {
            let Rejected { record, reason } = first;
            tracing::warn!("a record is left out: {} {reason}; further ones are only counted", record.position);
        }
        match &self.on_error {
            OnError::Fail => return Err(Error::data(first.reason.clone()).context(&first.record.position)),
            OnError::Skip => self.metrics.skipped_rows.add(rejected.len()),
            OnError::DeadLetter(letters) => {
                self.metrics.dead_letter_rows.add(rejected.len());
                self.aside = Some(letters.batch(rejected, self.clock.wall())?);
            }
        }
        Ok(())
    }

    fn finish(&mut self, split: &SplitId) -> Result<SourcePoll> {
        if let Some(watermark) = self.open.remove(split).and_then(|open| open.watermark) {
            self.book.finish(split, watermark);
            self.finished.push((split.clone(), watermark));
        }
        Ok(SourcePoll::Worked)
    }
}

fn unasked() -> Error {
    Error::internal("a reader brought rows of a split that it was not given")
}
