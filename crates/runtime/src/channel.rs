//! Edges at run time: a [`Gate`] holds what waits for one receiving subtask, in one queue a sender.
//!
//! The bound belongs to the gate: so many rows and bytes for all its senders together, soft by one batch. Each channel
//! may always hold one batch, whatever the others hold: without that, a sender that is waited for could be starved by
//! one that isn't, and a diamond in the graph would stand still. Control elements (watermarks, barriers, ends) carry no
//! rows and are always taken.
//!
//! A gate knows of the barriers that wait in it, so that they can overtake what stands before them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use arrow::record_batch::RecordBatch;
use ruslo_core::clock::{Clock, Instant};
use ruslo_core::element::{Barrier, Element, Watermark};
use ruslo_core::epoch::Epoch;
use ruslo_core::error::Result;
use ruslo_core::memory::Reservation;

pub use crate::credit::Credit;
use crate::credit::EffectiveCredit;
use crate::planted::{Bug, planted};
use crate::scheduler::{Scheduler, TaskIndex, lock};

/// An element, and how old it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Stamped {
    /// What flows.
    pub element: Element,
    /// When a source read the oldest row that went into it.
    pub born: Instant,
}

impl From<Element> for Stamped {
    fn from(element: Element) -> Self {
        Self { element, born: Instant::ZERO }
    }
}

/// How full a channel is, and what has gone through it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    /// Rows waiting.
    pub rows: usize,
    /// Bytes waiting.
    pub bytes: usize,
    /// How long the element in front has waited.
    pub age: Instant,
    /// Rows that were sent so far.
    pub rows_sent: u64,
    /// Bytes that were sent so far.
    pub bytes_sent: u64,
}

/// What waits for one receiving subtask.
pub struct Gate {
    receiver: TaskIndex,
    scheduler: Arc<dyn Scheduler>,
    clock: Arc<dyn Clock>,
    memory: Reservation,
    waiting: Mutex<Waiting>,
    /// Whether a barrier has come that the receiver has not passed on: spares it the look.
    has_barrier: AtomicBool,
}

struct Waiting {
    credit: EffectiveCredit,
    rows: usize,
    bytes: usize,
    channels: Vec<Channel>,
    /// The barrier that the receiver has not passed on, and when the first channel brought it here.
    barrier: Option<(Barrier, Instant)>,
    /// The last one that it has.
    passed: Epoch,
}

struct Channel {
    sender: TaskIndex,
    /// Each element with the time at which it began to wait.
    queue: VecDeque<(Stamped, Instant)>,
    batches: usize,
    fill: Fill,
    /// Whether a barrier stands in the queue, or the end.
    has_barrier: bool,
    has_end: bool,
    /// The sender was refused and wants to know when there is room.
    refused: bool,
}

/// What became of an element that was sent.
#[derive(Debug)]
pub enum Sent {
    /// It waits for the receiver.
    Taken,
    /// There is no room; the sender is woken when there is.
    Full(Stamped),
}

impl Gate {
    /// An empty gate of the subtask `receiver`.
    pub fn new(
        credit: Credit,
        receiver: TaskIndex,
        scheduler: Arc<dyn Scheduler>,
        clock: Arc<dyn Clock>,
        memory: Reservation,
    ) -> Self {
        let credit = EffectiveCredit::new(credit);
        let waiting = Waiting { credit, rows: 0, bytes: 0, channels: Vec::new(), barrier: None, passed: Epoch::ZERO };
        let waiting = Mutex::new(waiting);
        Self { receiver, scheduler, clock, memory, waiting, has_barrier: AtomicBool::new(false) }
    }

    /// Adds a channel from the task `sender`; its number.
    pub fn add_channel(&self, sender: TaskIndex) -> usize {
        let mut waiting = lock(&self.waiting);
        let (queue, fill) = (VecDeque::new(), Fill::default());
        let (has_barrier, has_end, refused) = (false, false, false);
        waiting.channels.push(Channel { sender, queue, batches: 0, fill, has_barrier, has_end, refused });
        waiting.channels.len() - 1
    }

    /// How many channels lead here.
    pub fn channels(&self) -> usize {
        lock(&self.waiting).channels.len()
    }

    /// Rows waiting.
    pub fn rows(&self) -> usize {
        lock(&self.waiting).rows
    }

    /// How full a channel is now.
    pub fn fill(&self, channel: usize) -> Fill {
        let now = self.clock.now();
        let waiting = lock(&self.waiting);
        let Some(channel) = waiting.channels.get(channel) else { return Fill::default() };
        let age = channel.queue.front().map_or(Instant::ZERO, |(_, since)| now.saturating_sub(*since));
        Fill { age, ..channel.fill }
    }

    /// Whether some sender was refused since the receiver last took something from it.
    pub fn is_refusing(&self) -> bool {
        lock(&self.waiting).channels.iter().any(|channel| channel.refused)
    }

    /// Puts an element into a channel.
    ///
    /// # Errors
    /// `Resource`, if the pipeline's memory limit is reached.
    pub fn send(&self, channel: usize, sent: impl Into<Stamped>) -> Result<Sent> {
        let stamped = sent.into();
        let now = self.clock.now();
        let mut waiting = lock(&self.waiting);
        if let Element::Batch(_) = stamped.element
            && !waiting.has_room(channel, now)
        {
            return Ok(Sent::Full(stamped));
        }
        self.put(&mut waiting, channel, stamped, now)?;
        drop(waiting);
        self.scheduler.wake(self.receiver);
        Ok(Sent::Taken)
    }

    /// Puts an element into a channel, whether there is room or not: what stands before a barrier. The sender owes it to
    /// wait for room ([`Gate::has_room`]) before it makes more.
    ///
    /// # Errors
    /// `Resource`, if the pipeline's memory limit is reached.
    pub fn force(&self, channel: usize, stamped: Stamped) -> Result<()> {
        let now = self.clock.now();
        self.put(&mut lock(&self.waiting), channel, stamped, now)?;
        self.scheduler.wake(self.receiver);
        Ok(())
    }

    /// Whether the channel would take a batch now; if not, its sender is woken when it would.
    pub fn has_room(&self, channel: usize) -> bool {
        let now = self.clock.now();
        lock(&self.waiting).has_room(channel, now)
    }

    fn put(&self, waiting: &mut Waiting, channel: usize, stamped: Stamped, now: Instant) -> Result<()> {
        let Waiting { rows: waiting_rows, bytes: waiting_bytes, channels, barrier, .. } = waiting;
        let Some(to) = channels.get_mut(channel) else { return Ok(()) };
        match &stamped.element {
            Element::Batch(_) => {
                let (rows, bytes) = (stamped.element.rows(), stamped.element.bytes());
                self.memory.resize((*waiting_bytes + bytes) as u64)?;
                to.batches += 1;
                to.fill.rows += rows;
                to.fill.bytes += bytes;
                to.fill.rows_sent += rows as u64;
                to.fill.bytes_sent += bytes as u64;
                *waiting_rows += rows;
                *waiting_bytes += bytes;
            }
            Element::Barrier(come) => {
                to.has_barrier = true;
                barrier.get_or_insert((*come, now));
                self.has_barrier.store(true, Ordering::Release);
            }
            Element::End(_) => to.has_end = true,
            Element::Watermark(_) => {}
        }
        push(&mut to.queue, stamped, now);
        Ok(())
    }

    /// Takes the front of a channel if `wanted` says so: of a batch at most `rows_max` rows, whose rest stays in front.
    pub fn receive_if(
        &self,
        channel: usize,
        rows_max: usize,
        wanted: impl FnOnce(&Element) -> bool,
    ) -> Result<Option<Stamped>> {
        let mut waiting = lock(&self.waiting);
        let Waiting { credit, rows: waiting_rows, bytes: waiting_bytes, channels, .. } = &mut *waiting;
        let Some(from) = channels.get_mut(channel) else { return Ok(None) };
        if !from.queue.front().is_some_and(|(stamped, _)| wanted(&stamped.element)) {
            return Ok(None);
        }
        let Some((stamped, since)) = from.queue.pop_front() else { return Ok(None) };
        if let Element::Barrier(_) = stamped.element {
            from.has_barrier = false;
        }
        let Element::Batch(batch) = &stamped.element else { return Ok(Some(stamped)) };
        let (mut rows, mut bytes) = (batch.num_rows(), stamped.element.bytes());
        let piece = if rows > rows_max {
            let rest = Element::Batch(batch.slice(rows_max, rows - rows_max));
            (rows, bytes) = (rows_max, bytes.saturating_sub(rest.bytes()));
            from.queue.push_front((Stamped { element: rest, born: stamped.born }, since));
            Stamped { element: Element::Batch(batch.slice(0, rows_max)), born: stamped.born }
        } else {
            from.batches -= 1;
            stamped
        };
        from.fill.rows -= rows;
        from.fill.bytes -= bytes;
        *waiting_rows -= rows;
        *waiting_bytes -= bytes;
        credit.drained(rows, *waiting_rows == 0, self.clock.now());
        self.memory.resize(*waiting_bytes as u64)?;
        let wake = |channel: &mut Channel| std::mem::take(&mut channel.refused).then_some(channel.sender);
        let senders: Vec<_> = channels.iter_mut().filter_map(wake).collect();
        drop(waiting);
        senders.into_iter().for_each(|sender| self.scheduler.wake(sender));
        Ok(Some(piece))
    }

    /// The barrier that has come here and was not passed on, and since when the first waits.
    pub fn barrier(&self) -> Option<(Barrier, Instant)> {
        if !self.has_barrier.load(Ordering::Acquire) {
            return None;
        }
        lock(&self.waiting).barrier
    }

    /// Brings a barrier to a gate in whose every channel the end stands: no sender brings it any more.
    pub fn announce(&self, come: Barrier) {
        let now = self.clock.now();
        let mut waiting = lock(&self.waiting);
        // Some sender may have brought it before it ended, and its passing may not have been told yet.
        if come.epoch <= waiting.passed {
            return;
        }
        waiting.barrier.get_or_insert((come, now));
        drop(waiting);
        self.has_barrier.store(true, Ordering::Release);
        self.scheduler.wake(self.receiver);
    }

    /// The receiver passes the barrier of `epoch` on.
    pub fn pass_barrier(&self, epoch: Epoch) {
        let mut waiting = lock(&self.waiting);
        waiting.barrier = None;
        waiting.passed = epoch;
        drop(waiting);
        self.has_barrier.store(false, Ordering::Release);
    }

    /// Takes the barrier out of every channel that is not `done` with it, if it stands in each of them, or the end does; the
    /// batches that it overtakes, by channel. They stay where they are.
    pub fn overtake(&self, done: &[bool]) -> Option<Vec<Vec<RecordBatch>>> {
        let mut waiting = lock(&self.waiting);
        let channels = || done.iter().copied();
        let is_here = |(channel, done): (&Channel, bool)| done || channel.has_barrier || channel.has_end;
        if !waiting.channels.iter().zip(channels()).all(is_here) {
            return None;
        }
        let each = waiting.channels.iter_mut().zip(channels());
        Some(each.map(|(channel, done)| if done { Vec::new() } else { channel.overtake() }).collect())
    }
}

impl Waiting {
    fn has_room(&mut self, channel: usize, now: Instant) -> bool {
        let credit = self.credit.at(now);
        let has_credit = self.rows < credit.rows_max && self.bytes < credit.bytes_max;
        let Some(channel) = self.channels.get_mut(channel) else { return true };
        if has_credit || channel.batches == 0 {
            return true;
        }
        channel.refused = true;
        self.credit.refused(now);
        false
    }
}

impl Channel {
    fn overtake(&mut self) -> Vec<RecordBatch> {
        let is_barrier = |(stamped, _): &(Stamped, Instant)| matches!(stamped.element, Element::Barrier(_));
        let place = self.queue.iter().position(is_barrier);
        if let Some(place) = place {
            self.queue.remove(place);
            self.has_barrier = false;
        }
        if place.is_none() && planted(Bug::ForgetBeforeEnd) {
            return Vec::new();
        }
        let before = self.queue.iter().take(place.unwrap_or(usize::MAX));
        let batches = before.filter_map(|(stamped, _)| match &stamped.element {
            Element::Batch(batch) => Some(batch.clone()),
            _ => None,
        });
        batches.collect()
    }
}

/// A watermark right behind a watermark replaces it: control elements stay few however slow the receiver is.
fn push(queue: &mut VecDeque<(Stamped, Instant)>, stamped: Stamped, now: Instant) {
    let is_watermark = |stamped: &Stamped| matches!(stamped.element, Element::Watermark(Watermark::At(_)));
    match queue.back_mut() {
        Some((last, _)) if is_watermark(last) && is_watermark(&stamped) => *last = stamped,
        _ => queue.push_back((stamped, now)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::record_batch::RecordBatch;
    use ruslo_core::clock::VirtualClock;
    use ruslo_core::memory::MemoryPool;
    use ruslo_core::time::Timestamp;

    use super::*;

    #[derive(Default)]
    struct Wakes([AtomicUsize; 3]);

    impl Scheduler for Wakes {
        fn wake(&self, task: TaskIndex) {
            self.0[task].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn gate(rows_max: usize, pool: &Arc<MemoryPool>) -> (Gate, Arc<Wakes>) {
        let wakes = Arc::new(Wakes::default());
        let credit = Credit { rows_max, bytes_max: 1 << 20 };
        let clock = Arc::new(VirtualClock::default());
        let gate = Gate::new(credit, 0, wakes.clone(), clock, pool.reserve("edge"));
        gate.add_channel(1);
        gate.add_channel(2);
        (gate, wakes)
    }

    fn rows(n: i64) -> Element {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..n));
        Element::Batch(RecordBatch::try_from_iter([("v", column)]).unwrap())
    }

    fn watermark(at: i64) -> Element {
        Element::Watermark(Watermark::At(Timestamp(at)))
    }

    fn taken(gate: &Gate, channel: usize, element: Element) -> bool {
        matches!(gate.send(channel, element).unwrap(), Sent::Taken)
    }

    #[test]
    fn the_bound_is_shared_soft_by_one_batch_and_each_channel_owns_one() {
        let (gate, _) = gate(10, &MemoryPool::unbounded());
        assert!(taken(&gate, 0, rows(9)));
        assert!(taken(&gate, 0, rows(9)), "soft by one batch");
        assert!(!taken(&gate, 0, rows(1)));
        assert!(taken(&gate, 1, rows(5)), "a channel's own batch");
        assert!(!taken(&gate, 1, rows(1)));
        assert!(taken(&gate, 0, watermark(3)), "control needs no credit");
    }

    #[test]
    fn a_refused_sender_is_woken_when_there_is_room() {
        let (gate, wakes) = gate(1, &MemoryPool::unbounded());
        assert!(taken(&gate, 1, rows(1)));
        assert!(!taken(&gate, 1, rows(1)));
        assert!(gate.is_refusing());
        gate.receive_if(1, usize::MAX, |_| true).unwrap().unwrap();
        assert_eq!(wakes.0[2].load(Ordering::Relaxed), 1);
        assert!(!gate.is_refusing());
        assert!(taken(&gate, 1, rows(1)));
    }

    #[test]
    fn watermarks_in_a_row_become_one_and_order_is_kept() {
        let (gate, _) = gate(100, &MemoryPool::unbounded());
        for element in [watermark(1), watermark(2), rows(1), watermark(3)] {
            assert!(taken(&gate, 0, element));
        }
        let got: Vec<_> = std::iter::from_fn(|| gate.receive_if(0, usize::MAX, |_| true).unwrap())
            .map(|stamped| stamped.element)
            .collect();
        assert_eq!(got, [watermark(2), rows(1), watermark(3)]);
    }

    fn barrier(epoch: u64) -> Element {
        use ruslo_core::element::BarrierKind;
        Element::Barrier(Barrier { epoch: Epoch(epoch), kind: BarrierKind::Checkpoint })
    }

    #[test]
    fn a_slow_receiver_takes_pieces_and_the_rest_still_counts() {
        let pool = MemoryPool::unbounded();
        let (gate, _) = gate(100, &pool);
        assert!(taken(&gate, 0, rows(10)));
        let piece = gate.receive_if(0, 3, |_| true).unwrap().unwrap();
        assert_eq!((piece.element.rows(), gate.rows(), gate.fill(0).rows), (3, 7, 7));
        assert_eq!(pool.used_bytes(), 56);
        let rest = gate.receive_if(0, 7, |_| true).unwrap().unwrap();
        assert_eq!((rest.element.rows(), gate.rows(), pool.used_bytes()), (7, 0, 0));
    }

    #[test]
    fn before_a_slow_receiver_a_second_of_work_and_a_batch_wait() {
        let clock = Arc::new(VirtualClock::default());
        let memory = MemoryPool::unbounded().reserve("edge");
        let gate = Gate::new(Credit::default(), 0, Arc::new(Wakes::default()), clock.clone(), memory);
        gate.add_channel(1);
        let mut most = 0;
        // A thousand rows a second, for a minute; there are always more to be sent.
        for tenth in 0..600 {
            while taken(&gate, 0, rows(100)) {}
            if tenth == 0 {
                assert_eq!(gate.rows(), 10_000);
            }
            most = if tenth < 200 { 0 } else { most.max(gate.rows()) };
            gate.receive_if(0, 100, |_| true).unwrap();
            clock.advance(std::time::Duration::from_millis(100));
        }
        assert!((900..=1_100).contains(&most), "{most} rows wait");
    }

    #[test]
    fn what_is_forced_in_keeps_others_out() {
        let (gate, wakes) = gate(10, &MemoryPool::unbounded());
        for _ in 0..3 {
            gate.force(0, rows(10).into()).unwrap();
        }
        assert!(!gate.has_room(0));
        gate.receive_if(0, usize::MAX, |_| true).unwrap();
        assert_eq!(wakes.0[1].load(Ordering::Relaxed), 1, "it wanted to know");
        assert!(!gate.has_room(0), "20 rows wait, 10 may");
        gate.receive_if(0, usize::MAX, |_| true).unwrap();
        gate.receive_if(0, usize::MAX, |_| true).unwrap();
        assert!(gate.has_room(0));
    }

    #[test]
    fn a_barrier_overtakes_once_it_is_here_on_every_channel() {
        let (gate, _) = gate(100, &MemoryPool::unbounded());
        assert_eq!(gate.barrier(), None);
        for element in [rows(1), watermark(1), rows(2), barrier(7), rows(4)] {
            assert!(taken(&gate, 0, element));
        }
        assert_eq!(gate.barrier().map(|(barrier, _)| barrier.epoch.0), Some(7));
        assert!(taken(&gate, 1, rows(3)));
        assert_eq!(gate.overtake(&[false, false]), None, "it has not come on channel 1");
        assert!(taken(&gate, 1, Element::End(ruslo_core::element::EndReason::Drain)));
        let overtaken = gate.overtake(&[false, false]).unwrap();
        let counts: Vec<Vec<_>> =
            overtaken.iter().map(|batches| batches.iter().map(RecordBatch::num_rows).collect()).collect();
        assert_eq!(counts, [vec![1, 2], vec![3]], "all before the end of a channel is before the barrier");
        gate.pass_barrier(Epoch(7));
        assert_eq!(gate.barrier(), None);
        gate.announce(Barrier { epoch: Epoch(7), kind: ruslo_core::element::BarrierKind::Checkpoint });
        assert_eq!(gate.barrier(), None, "it has passed");
        let left: Vec<_> = std::iter::from_fn(|| gate.receive_if(0, usize::MAX, |_| true).unwrap()).collect();
        assert_eq!(left.iter().map(|stamped| stamped.element.rows()).collect::<Vec<_>>(), [1, 0, 2, 4]);
    }

    #[test]
    fn a_channel_that_is_done_gives_nothing_more() {
        let (gate, _) = gate(100, &MemoryPool::unbounded());
        assert!(taken(&gate, 0, rows(1)), "behind the barrier, which is aligned already");
        assert!(taken(&gate, 1, rows(2)));
        assert!(taken(&gate, 1, barrier(1)));
        assert_eq!(gate.overtake(&[true, false]).unwrap().iter().map(Vec::len).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn what_waits_counts_against_the_memory_limit_until_it_is_taken() {
        let pool = MemoryPool::new(100);
        let (gate, _) = gate(1000, &pool);
        assert!(taken(&gate, 0, rows(10)));
        assert_eq!(pool.used_bytes(), 80);
        assert!(gate.send(0, rows(10)).is_err());
        gate.receive_if(0, usize::MAX, |_| true).unwrap();
        assert_eq!(pool.used_bytes(), 0);
    }
}
