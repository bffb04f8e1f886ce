//! Edges at run time: a [`Gate`] holds what waits for one receiving subtask, in one queue a sender.
//!
//! The bound belongs to the gate: so many rows and bytes for all its senders together, soft by one batch. Each channel
//! may always hold one batch, whatever the others hold: without that, a sender that is waited for could be starved by
//! one that isn't, and a diamond in the graph would stand still. Control elements (watermarks, barriers, ends) carry no
//! rows and are always taken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use ruslo_core::clock::{Clock, Instant};

use ruslo_core::element::{Element, Watermark};
use ruslo_core::error::Result;
use ruslo_core::memory::Reservation;

use crate::scheduler::{Scheduler, TaskIndex, lock};

/// The bound of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credit {
    /// Rows that may wait.
    pub rows_max: usize,
    /// Bytes that may wait.
    pub bytes_max: usize,
}

impl Default for Credit {
    /// 10,000 rows or 1 GiB, as Apache NiFi's connections have it.
    fn default() -> Self {
        Self { rows_max: 10_000, bytes_max: 1 << 30 }
    }
}

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
    credit: Credit,
    receiver: TaskIndex,
    scheduler: Arc<dyn Scheduler>,
    clock: Arc<dyn Clock>,
    memory: Reservation,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    rows: usize,
    bytes: usize,
    channels: Vec<Channel>,
}

struct Channel {
    sender: TaskIndex,
    /// Each element with the time at which it began to wait.
    queue: VecDeque<(Stamped, Instant)>,
    batches: usize,
    fill: Fill,
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
        Self { credit, receiver, scheduler, clock, memory, waiting: Mutex::default() }
    }

    /// Adds a channel from the task `sender`; its number.
    pub fn add_channel(&self, sender: TaskIndex) -> usize {
        let mut waiting = lock(&self.waiting);
        let (queue, fill) = (VecDeque::new(), Fill::default());
        waiting.channels.push(Channel { sender, queue, batches: 0, fill, refused: false });
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
        let (rows, bytes) = (stamped.element.rows(), stamped.element.bytes());
        let now = self.clock.now();
        let mut waiting = lock(&self.waiting);
        let has_credit = waiting.rows < self.credit.rows_max && waiting.bytes < self.credit.bytes_max;
        let Waiting { rows: waiting_rows, bytes: waiting_bytes, channels } = &mut *waiting;
        let Some(to) = channels.get_mut(channel) else { return Ok(Sent::Taken) };
        if let Element::Batch(_) = stamped.element {
            if !has_credit && to.batches > 0 {
                to.refused = true;
                return Ok(Sent::Full(stamped));
            }
            self.memory.resize((*waiting_bytes + bytes) as u64)?;
            to.batches += 1;
            to.fill.rows += rows;
            to.fill.bytes += bytes;
            to.fill.rows_sent += rows as u64;
            to.fill.bytes_sent += bytes as u64;
            *waiting_rows += rows;
            *waiting_bytes += bytes;
        }
        push(&mut to.queue, stamped, now);
        drop(waiting);
        self.scheduler.wake(self.receiver);
        Ok(Sent::Taken)
    }

    /// Takes the front of a channel if `wanted` says so.
    pub fn receive_if(&self, channel: usize, wanted: impl FnOnce(&Element) -> bool) -> Result<Option<Stamped>> {
        let mut waiting = lock(&self.waiting);
        let Some(from) = waiting.channels.get_mut(channel) else { return Ok(None) };
        if !from.queue.front().is_some_and(|(stamped, _)| wanted(&stamped.element)) {
            return Ok(None);
        }
        let Some((stamped, _)) = from.queue.pop_front() else { return Ok(None) };
        if let Element::Batch(_) = stamped.element {
            let (rows, bytes) = (stamped.element.rows(), stamped.element.bytes());
            from.batches -= 1;
            from.fill.rows -= rows;
            from.fill.bytes -= bytes;
            waiting.rows -= rows;
            waiting.bytes -= bytes;
            self.memory.resize(waiting.bytes as u64)?;
            let wake = |channel: &mut Channel| std::mem::take(&mut channel.refused).then_some(channel.sender);
            let senders: Vec<_> = waiting.channels.iter_mut().filter_map(wake).collect();
            drop(waiting);
            senders.into_iter().for_each(|sender| self.scheduler.wake(sender));
        }
        Ok(Some(stamped))
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
        gate.receive_if(1, |_| true).unwrap().unwrap();
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
        let got: Vec<_> =
            std::iter::from_fn(|| gate.receive_if(0, |_| true).unwrap()).map(|stamped| stamped.element).collect();
        assert_eq!(got, [watermark(2), rows(1), watermark(3)]);
    }

    #[test]
    fn what_waits_counts_against_the_memory_limit_until_it_is_taken() {
        let pool = MemoryPool::new(100);
        let (gate, _) = gate(1000, &pool);
        assert!(taken(&gate, 0, rows(10)));
        assert_eq!(pool.used_bytes(), 80);
        assert!(gate.send(0, rows(10)).is_err());
        gate.receive_if(0, |_| true).unwrap();
        assert_eq!(pool.used_bytes(), 0);
    }
}
