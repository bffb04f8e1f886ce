//! The head of a source task: reads splits, assigns event time, and begins every barrier.
//!
//! ```text
//! SplitBook ──assigns──▶ SourceReader ──batches──▶ (held while the split's event time is unknown) ──RowTime──▶ chain
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use arrow::record_batch::RecordBatch;
use ruslo_core::clock::Instant;
use ruslo_core::element::{Barrier, BarrierKind, EndReason};
use ruslo_core::error::{Error, Result};
use ruslo_core::memory::{Reservation, batch_bytes};
use ruslo_core::metrics::OperatorMetrics;
use ruslo_core::source::{Budget, Polled, Position, RowTime, SourceReader, SplitId, SplitWatermark};
use ruslo_core::time::Timestamp;
use ruslo_state::manifest::SplitReading;

use crate::input::Event;
use crate::planted::{Bug, planted};
use crate::scheduler::lock;
use crate::splits::{Assigned, SplitBook};

/// Barriers on their way from the coordinator to one source task.
pub type Barriers = Arc<Mutex<VecDeque<Barrier>>>;

/// What a source subtask puts into a checkpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SourceSnapshot {
    /// Splits finished since the last snapshot, with the watermark at their end.
    pub finished: Vec<(SplitId, SplitWatermark)>,
    /// The split being read, of which some rows have been sent.
    pub reading: Option<(String, SplitReading)>,
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
    batch_rows: usize,
    current: Option<Current>,
    finished: Vec<(SplitId, SplitWatermark)>,
    /// The last watermark sent.
    watermark: Timestamp,
    /// A stop barrier has gone out, or there is nothing left to read.
    ending: Option<EndReason>,
    ended: bool,
}

/// The split being read.
struct Current {
    split: SplitId,
    /// Event time at the next row to be sent; `None` as long as the split before is unfinished.
    watermark: Option<SplitWatermark>,
    /// Where to go on after the last row that was sent; `None` before the first.
    sent: Option<Position>,
    /// Read, but not sent.
    held: VecDeque<(RecordBatch, Position)>,
    held_bytes: usize,
    read_to_end: bool,
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
    /// Rows per batch.
    pub batch_rows: usize,
}

impl SourceHead {
    /// A head that has read nothing.
    pub fn new(spec: SourceSpec) -> Self {
        let SourceSpec { reader, book, row_time, barriers, memory, metrics, batch_rows } = spec;
        Self {
            reader,
            book,
            row_time,
            barriers,
            memory,
            metrics,
            batch_rows,
            current: None,
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

    /// What a checkpoint needs to go on from here.
    pub fn snapshot(&mut self) -> SourceSnapshot {
        let reading = self.current.as_ref().and_then(|current| {
            let read = current.held.back().map(|(_, position)| position).filter(|_| planted(Bug::PositionOneAhead));
            let position = read.or(current.sent.as_ref())?.clone();
            let (lineage, sequence) = (current.split.lineage.clone(), current.split.sequence);
            Some((lineage, SplitReading { sequence, position, watermark: current.watermark? }))
        });
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
        let Some(current) = &mut self.current else { return self.next_split() };
        if current.watermark.is_none() {
            current.watermark = self.book.base(&current.split);
        }
        if current.watermark.is_some() && !current.held.is_empty() {
            return self.send_held();
        }
        match (current.read_to_end, current.watermark) {
            (true, Some(watermark)) => Ok(self.finish(watermark)),
            (true, None) => Ok(SourcePoll::Blocked(None)),
            (false, _) => self.read(now),
        }
    }

    fn next_split(&mut self) -> Result<SourcePoll> {
        match self.book.assign() {
            Assigned::Wait => Ok(SourcePoll::Blocked(None)),
            Assigned::Nothing => {
                self.ending = Some(EndReason::Drain);
                Ok(SourcePoll::Worked)
            }
            Assigned::Split(assignment) => {
                let watermark = match self.row_time {
                    Some(_) => assignment.watermark,
                    None => Some(SplitWatermark::START),
                };
                self.current = Some(Current {
                    split: assignment.split.id(),
                    watermark,
                    sent: assignment.position.clone(),
                    held: VecDeque::new(),
                    held_bytes: 0,
                    read_to_end: false,
                });
                self.reader.add_split(assignment.split, assignment.position)?;
                Ok(SourcePoll::Worked)
            }
        }
    }

    fn read(&mut self, now: Instant) -> Result<SourcePoll> {
        let rows_max = match self.book.allowance(now, self.batch_rows) {
            Ok(rows) => rows,
            Err(at) => return Ok(SourcePoll::Blocked(Some(at))),
        };
        let Some(current) = &mut self.current else { return Ok(SourcePoll::Worked) };
        match self.reader.poll(Budget { rows_max })? {
            Polled::Batch { split, batch, position } => {
                if split != current.split {
                    return Err(Error::internal("a reader brought rows of a split that it was not given"));
                }
                self.book.spend(batch.num_rows());
                current.held_bytes += batch_bytes(&batch);
                current.held.push_back((batch, position));
                self.memory.resize(current.held_bytes as u64)?;
                let may_send = current.watermark.is_some() && !planted(Bug::PositionOneAhead);
                if may_send { self.send_held() } else { Ok(SourcePoll::Worked) }
            }
            Polled::Finished(_) => {
                current.read_to_end = true;
                Ok(SourcePoll::Worked)
            }
            Polled::Pending(until) => Ok(SourcePoll::Blocked(until)),
        }
    }

    fn send_held(&mut self) -> Result<SourcePoll> {
        let Some(current) = &mut self.current else { return Ok(SourcePoll::Worked) };
        let Some((batch, position)) = current.held.pop_front() else { return Ok(SourcePoll::Worked) };
        current.held_bytes -= batch_bytes(&batch).min(current.held_bytes);
        self.memory.resize(current.held_bytes as u64)?;
        current.sent = Some(position);
        self.metrics.rows_in.add(batch.num_rows());
        let Some(watermark) = &mut current.watermark else {
            return Err(Error::internal("rows were sent before their event time was known"));
        };
        let batch = match &self.row_time {
            Some(row_time) => row_time.assign(batch, watermark)?,
            None => batch,
        };
        self.book.advance(&current.split, *watermark);
        self.metrics.rows_out.add(batch.num_rows());
        Ok(SourcePoll::Event(Event::Batch(0, batch)))
    }

    fn finish(&mut self, watermark: SplitWatermark) -> SourcePoll {
        if let Some(current) = self.current.take() {
            self.book.finish(&current.split, watermark);
            self.finished.push((current.split, watermark));
        }
        SourcePoll::Worked
    }
}
