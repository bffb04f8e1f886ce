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
//!
//! A split that has brought nothing for the idle timeout is taken out of the source's watermark; it rejoins with its next
//! row. When all of a source's splits are idle, each of its heads says so.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use ruslo_core::clock::{Clock, Instant};
use ruslo_core::dead_letter::{OnError, Origins, Rejected};
use ruslo_core::element::{Barrier, EndReason};
use ruslo_core::error::{Error, Result};
use ruslo_core::memory::{Reservation, batch_bytes};
use ruslo_core::metrics::OperatorMetrics;
use ruslo_core::sift::{BadRow, rejected, sift};
use ruslo_core::source::{
    Assigned as Rows, Budget, Polled, Position, RowTime, Sifted, SourceReader, SplitId, SplitWatermark,
};
use ruslo_core::time::Timestamp;
use ruslo_state::manifest::SplitReading;

use crate::idleness::{Idleness, Quiet};
use crate::input::Event;
use crate::planted::{Bug, planted};
use crate::processing_time::ProcessingTime;
use crate::scheduler::lock;
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
    processing_time: ProcessingTime,
    /// The splits being read.
    open: BTreeMap<SplitId, OpenSplit>,
    /// Of the rows that all of them hold.
    held_bytes: usize,
    finished: Vec<(SplitId, SplitWatermark)>,
    idleness: Idleness,
    /// How long there has been nothing to read.
    resting: Quiet,
    /// The last watermark sent.
    watermark: Timestamp,
    /// Whether the last that was sent is that everything is idle.
    told_idle: bool,
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
    quiet: Quiet,
}

impl OpenSplit {
    /// What a checkpoint needs to go on with it; none, if nothing was sent.
    fn reading(&self, split: &SplitId) -> Option<(String, SplitReading)> {
        let read = self.held.back().map(|held| &held.position).filter(|_| planted(Bug::PositionOneAhead));
        let is_idle = self.quiet.is_idle;
        if is_idle && planted(Bug::ForgetIdleSplits) {
            return None;
        }
        let position = match read.or(self.sent.as_ref()) {
            None if is_idle => Position::Null,
            position => position?.clone(),
        };
        let (lineage, sequence) = (split.lineage.clone(), split.sequence);
        Some((lineage, SplitReading { sequence, position, watermark: self.watermark?, is_idle }))
    }

    /// Event time before its next row, or at its end; an idle split rejoins.
    fn rejoin(&mut self, split: &SplitId, book: &SplitBook) -> Option<SplitWatermark> {
        if std::mem::take(&mut self.quiet).is_idle {
            self.watermark = self.watermark.map(|watermark| book.rejoin(split, watermark));
        }
        self.watermark
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
        self.rejected.extend(rejected(bad, self.origins.as_deref())?);
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
    /// Processing time.
    pub processing_time: ProcessingTime,
    /// How long a split brings nothing before nobody waits for it; for ever, if none.
    pub idle_timeout: Option<Duration>,
}

impl SourceHead {
    /// A head that has read nothing.
    pub fn new(spec: SourceSpec) -> Self {
        let SourceSpec {
            reader,
            book,
            row_time,
            barriers,
            memory,
            metrics,
            clock,
            on_error,
            batch_rows,
            processing_time,
            idle_timeout,
        } = spec;
        let has_event_time = row_time.is_some() && !processing_time.drives();
        Self {
            idleness: Idleness::new(idle_timeout.filter(|_| has_event_time)),
            told_idle: false,
            resting: Quiet::default(),
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
            processing_time,
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
            self.ending = barrier.kind.end();
            return Ok(SourcePoll::Event(Event::Barrier(barrier)));
        }
        if only_barriers {
            return Ok(SourcePoll::Blocked(None));
        }
        match self.ending {
            Some(reason) => Ok(SourcePoll::Event(self.end(reason))),
            None => Ok(match self.advance(now)? {
                SourcePoll::Blocked(_) if self.has_news() => SourcePoll::Worked,
                SourcePoll::Blocked(until) => SourcePoll::Blocked(self.processing_time.wake(until)),
                poll => poll,
            }),
        }
    }

    /// Whether others have moved the source's watermark since it was told; if not, they wake this task when they do.
    fn has_news(&self) -> bool {
        let has_event_time = self.row_time.is_some() && !self.processing_time.drives();
        has_event_time && !self.book.wait(self.watermark, self.told_idle)
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
        if let Some(reached) = self.watermark_due(now).filter(|reached| *reached > self.watermark) {
            self.watermark = reached;
            self.told_idle = false;
            return Ok(SourcePoll::Event(Event::Watermark(reached)));
        }
        if self.idleness.is_watched() && !self.told_idle && self.is_idle() {
            self.told_idle = true;
            return Ok(SourcePoll::Event(Event::Idle));
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
            return Ok(self.rest(now));
        }
        if self.learn_event_time() {
            return Ok(SourcePoll::Worked);
        }
        if self.open.values().all(|open| open.read_to_end) { Ok(SourcePoll::Blocked(None)) } else { self.read(now) }
    }

    /// Whether all that is left is idle, or for the idle timeout there was nothing left.
    fn is_idle(&self) -> bool {
        self.book.is_idle() || (self.resting.is_idle && self.book.is_exhausted())
    }

    /// There is nothing to read for this head.
    fn rest(&mut self, now: Instant) -> SourcePoll {
        let Some(turn) = self.idleness.turn(now, false) else { return SourcePoll::Blocked(None) };
        if self.resting.falls_idle(&turn) {
            return SourcePoll::Worked;
        }
        SourcePoll::Blocked(self.resting.deadline(&turn))
    }

    /// How far event time has come: by the clock, or by the rows.
    fn watermark_due(&mut self, now: Instant) -> Option<Timestamp> {
        if self.processing_time.drives() {
            return self.processing_time.watermark(now);
        }
        self.row_time.as_ref()?;
        Some(self.book.watermark()).filter(|source| *source < Timestamp::MAX)
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
                self.resting = Quiet::default();
                let watermark = match self.row_time {
                    // Rows are not held until event time is known where the clock makes it.
                    Some(_) if !self.processing_time.drives() => assignment.watermark,
                    _ => Some(SplitWatermark::START),
                };
                let open = OpenSplit {
                    watermark,
                    sent: assignment.position.clone(),
                    held: VecDeque::new(),
                    read_to_end: false,
                    is_endless: assignment.split.is_endless,
                    quiet: Quiet::default(),
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
        let polled = self.reader.poll(Budget { rows_max })?;
        let deadline = self.watch(now, &polled);
        match polled {
            Polled::Batch { split, batch, position } => {
                self.hold(&split, Held { batch, position, rejected: Vec::new(), origins: None })
            }
            Polled::Sifted(Sifted { split, batch, position, rejected, origins }) => {
                self.hold(&split, Held { batch, position, rejected, origins })
            }
            Polled::Worked(_) => Ok(SourcePoll::Worked),
            Polled::Finished(split) => {
                self.open.get_mut(&split).ok_or_else(unasked)?.read_to_end = true;
                Ok(SourcePoll::Worked)
            }
            Polled::Pending(until) => Ok(SourcePoll::Blocked(until.into_iter().chain(deadline).min())),
        }
    }

    /// Finds the splits that have been quiet for too long; when the next will have been.
    fn watch(&mut self, now: Instant, polled: &Polled) -> Option<Instant> {
        let brought = match polled {
            Polled::Batch { split, .. } | Polled::Sifted(Sifted { split, .. }) => Some(split),
            Polled::Worked(split) | Polled::Finished(split) => Some(split),
            Polled::Pending(_) => None,
        };
        let turn = self.idleness.turn(now, brought.is_some())?;
        let mut deadline = None;
        for (split, open) in &mut self.open {
            let Some(watermark) = open.watermark.filter(|_| open.held.is_empty() && !open.read_to_end) else {
                continue;
            };
            if brought == Some(split) {
                open.quiet.since = None;
            } else if open.quiet.falls_idle(&turn) {
                self.book.fall_idle(split, watermark);
            } else if let Some(at) = open.quiet.deadline(&turn) {
                deadline = Some(deadline.map_or(at, |earlier: Instant| earlier.min(at)));
            }
        }
        deadline
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
        let Some(mut watermark) = open.rejoin(split, &self.book) else {
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
            _ => {
                self.told_idle = false;
                Ok(SourcePoll::Event(Event::Batch(0, rows.batch)))
            }
        }
    }

    /// The table's rows; where bad records may be left out, those that fail only now are rejected.
    fn rows_of(&self, held: &mut Held, watermark: &mut SplitWatermark) -> Result<Rows> {
        let batch = held.batch.clone();
        let Some(row_time) = &self.row_time else { return Ok(Rows { batch, ahead_rows: 0 }) };
        let wall = self.processing_time.stamp();
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
        if let Some(watermark) = self.open.remove(split).and_then(|mut open| open.rejoin(split, &self.book)) {
            self.book.finish(split, watermark);
            self.finished.push((split.clone(), watermark));
        }
        Ok(SourcePoll::Worked)
    }
}

fn unasked() -> Error {
    Error::internal("a reader brought rows of a split that it was not given")
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, TimestampMillisecondArray};
    use arrow::datatypes::{SchemaRef, TimestampMillisecondType};
    use ruslo_core::clock::{Clock, VirtualClock};
    use ruslo_core::memory::MemoryPool;
    use ruslo_core::source::Split;

    use super::*;
    use crate::scheduler::{Scheduler, TaskIndex};

    /// Brings one row when asked for the `rows_at`th time, and nothing else.
    struct Slow {
        polls: usize,
        rows_at: usize,
        split: Option<SplitId>,
    }

    fn row() -> RecordBatch {
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![0]));
        RecordBatch::try_from_iter([("p", times)]).unwrap()
    }

    impl SourceReader for Slow {
        fn add_split(&mut self, split: Split, _: Option<Position>) -> Result<()> {
            self.split = Some(split.id());
            Ok(())
        }

        fn poll(&mut self, _: Budget) -> Result<Polled> {
            self.polls += 1;
            if self.polls != self.rows_at {
                return Ok(Polled::Pending(None));
            }
            Ok(Polled::Batch { split: self.split.clone().unwrap(), batch: row(), position: serde_json::json!(1) })
        }
    }

    struct ByClock;

    impl RowTime for ByClock {
        fn schema(&self) -> SchemaRef {
            row().schema()
        }

        fn assign(&self, batch: RecordBatch, _: &mut SplitWatermark, wall: Timestamp) -> Result<Rows> {
            let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![wall.millis(); batch.num_rows()]));
            Ok(Rows { batch: RecordBatch::try_new(batch.schema(), vec![times])?, ahead_rows: 0 })
        }

        fn is_driven_by_clock(&self) -> bool {
            true
        }
    }

    struct NoScheduler;
    impl Scheduler for NoScheduler {
        fn wake(&self, _: TaskIndex) {}
    }

    fn head(clock: &Arc<VirtualClock>, promised: i64) -> SourceHead {
        let split =
            Split { lineage: "a".to_owned(), sequence: 0, description: serde_json::json!({}), is_endless: true };
        SourceHead::new(SourceSpec {
            reader: Box::new(Slow { polls: 0, rows_at: 3, split: None }),
            book: Arc::new(SplitBook::new(vec![split], None, vec![0], Arc::new(NoScheduler))),
            row_time: Some(Arc::new(ByClock)),
            barriers: Barriers::default(),
            memory: MemoryPool::unbounded().reserve("source"),
            metrics: Arc::default(),
            clock: Arc::clone(clock) as _,
            on_error: OnError::Fail,
            batch_rows: 10,
            processing_time: ProcessingTime::new(Arc::clone(clock) as _, Timestamp(promised), true),
            idle_timeout: None,
        })
    }

    /// What comes until `until`, if the clock jumps to whenever the head wants to be woken.
    fn run(head: &mut SourceHead, clock: &VirtualClock, until: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        while clock.now() < until {
            match head.poll(clock.now(), false).unwrap() {
                SourcePoll::Event(event) => events.push(event),
                SourcePoll::Worked => {}
                SourcePoll::Blocked(at) => clock.advance(at.unwrap().saturating_sub(clock.now())),
            }
        }
        events
    }

    #[test]
    fn the_clock_makes_watermarks_while_no_row_comes() {
        let clock = Arc::new(VirtualClock::default());
        let events = run(&mut head(&clock, i64::MIN), &clock, Duration::from_millis(160));
        let mut watermark = i64::MIN;
        let mut rows = 0;
        for event in &events {
            match event {
                Event::Watermark(at) => watermark = at.millis(),
                Event::Batch(_, batch) => {
                    rows += 1;
                    assert!(batch.column(0).as_primitive::<TimestampMillisecondType>().value(0) > watermark);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((events.len(), rows, watermark), (5, 1, 149));
    }

    /// Event time is that of the row, ten milliseconds a row.
    struct ByRows;

    impl RowTime for ByRows {
        fn schema(&self) -> SchemaRef {
            row().schema()
        }

        fn assign(&self, batch: RecordBatch, watermark: &mut SplitWatermark, _: Timestamp) -> Result<Rows> {
            watermark.0 = Timestamp(watermark.0.millis().max(0) + 10);
            Ok(Rows { batch, ahead_rows: 0 })
        }
    }

    #[test]
    fn a_source_that_brings_nothing_says_so_once_and_a_row_ends_it() {
        let clock = Arc::new(VirtualClock::default());
        let mut head = head(&clock, i64::MIN);
        head.row_time = Some(Arc::new(ByRows));
        head.processing_time = ProcessingTime::new(Arc::clone(&clock) as _, Timestamp::MIN, false);
        head.idleness = Idleness::new(Some(Duration::from_millis(40)));
        // The third poll brings a row: the first finds nothing, the second makes the split idle.
        let mut events = Vec::new();
        for _ in 0..30 {
            match head.poll(clock.now(), false).unwrap() {
                SourcePoll::Event(event) => events.push((clock.now().as_millis(), event)),
                SourcePoll::Worked => {}
                SourcePoll::Blocked(at) => {
                    let at = at.unwrap_or(clock.now() + Duration::from_millis(100));
                    clock.advance(at.saturating_sub(clock.now()));
                }
            }
        }
        let told = |(at, event): &(u128, Event)| match event {
            Event::Idle => format!("{at} idle"),
            Event::Batch(..) => format!("{at} rows"),
            Event::Watermark(reached) => format!("{at} watermark {}", reached.millis()),
            other => panic!("{other:?}"),
        };
        let told: Vec<_> = events.iter().map(told).collect();
        assert_eq!(told, ["40 idle", "40 rows", "40 watermark 10", "80 idle"]);
        let snapshot = head.snapshot();
        assert!(snapshot.reading.iter().all(|(_, reading)| reading.is_idle) && snapshot.reading.len() == 1);
    }

    #[test]
    fn after_a_restore_rows_come_after_what_was_promised() {
        let clock = Arc::new(VirtualClock::default());
        let events = run(&mut head(&clock, 9000), &clock, Duration::from_millis(160));
        let [Event::Batch(_, batch)] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!(batch.column(0).as_primitive::<TimestampMillisecondType>().value(0), 9001);
    }
}
