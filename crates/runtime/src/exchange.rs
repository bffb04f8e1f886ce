//! One task's outputs: which receiver each row goes to, small batches joined, and what there was no room for.
//!
//! Control elements are put behind the rows that came before them in every channel, at once: a full channel holds back
//! its own barrier, never another channel's.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::UInt32Array;
use arrow::compute::{concat_batches, take_record_batch};
use arrow::record_batch::RecordBatch;
use ruslo_core::clock::Instant;
use ruslo_core::element::{Element, Watermark};
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::{NodeIndex, Partitioning};
use ruslo_core::key_group;
use ruslo_core::memory::Reservation;
use ruslo_core::operator::Port;

use crate::channel::{Gate, Sent, Stamped};
use crate::planted::{Bug, planted};

/// Rows in an exchanged batch, at most.
pub(crate) const BATCH_ROWS_MAX: usize = 2_048;

/// How long rows wait for company before they are sent alone.
const LINGER: Duration = Duration::from_millis(5);

/// Where rows leave a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlet {
    /// At its end: the results of the last operator.
    Main,
    /// Aside: what this operator of the chain gives through this port.
    Side(NodeIndex, Port),
}

impl Outlet {
    /// Where rows leave that `node` gives through `port`; through the main one only the last node of a chain does.
    pub fn of(node: NodeIndex, port: Port) -> Self {
        if port == Port::MAIN { Self::Main } else { Self::Side(node, port) }
    }
}

/// One edge of the graph, as one sending subtask sees it.
pub struct OutputEdge {
    outlet: Outlet,
    partitioning: Partitioning,
    /// The receiving subtasks, by index.
    channels: Vec<OutputChannel>,
    /// Whose turn it is to receive, when rebalancing.
    turn: usize,
}

struct OutputChannel {
    gate: Arc<Gate>,
    channel: usize,
    /// Rows too few to be sent yet.
    small: Vec<RecordBatch>,
    small_rows: usize,
    /// When the oldest of them was read by a source.
    small_born: Instant,
    /// What there was no room for, in order.
    pending: VecDeque<Stamped>,
    /// More was put into the gate than it has room for: nothing follows until it has again.
    is_over: bool,
}

impl OutputEdge {
    /// An edge to `receivers`: the gate and channel number of each receiving subtask that this one sends to. Forward
    /// edges have one.
    pub fn new(outlet: Outlet, partitioning: Partitioning, receivers: Vec<(Arc<Gate>, usize)>) -> Self {
        let channels = receivers.into_iter().map(|(gate, channel)| OutputChannel {
            gate,
            channel,
            small: Vec::new(),
            small_rows: 0,
            small_born: Instant::ZERO,
            pending: VecDeque::new(),
            is_over: false,
        });
        Self { outlet, partitioning, channels: channels.collect(), turn: 0 }
    }

    fn route(&mut self, batch: &RecordBatch, born: Instant) -> Result<()> {
        let receivers = self.channels.len();
        match &self.partitioning {
            Partitioning::KeyGroup(columns) if receivers > 1 => {
                let keys = columns.iter().filter_map(|column| batch.columns().get(*column).cloned());
                let groups = key_group::key_groups(&keys.collect::<Vec<_>>(), batch.num_rows())?;
                self.scatter(batch, &groups, born)
            }
            Partitioning::Rebalance => {
                self.turn = (self.turn + 1) % receivers.max(1);
                self.channels.get_mut(self.turn).map_or(Ok(()), |channel| channel.add(batch.clone(), born))
            }
            Partitioning::Forward | Partitioning::KeyGroup(_) => {
                self.channels.first_mut().map_or(Ok(()), |channel| channel.add(batch.clone(), born))
            }
        }
    }

    fn scatter(&mut self, batch: &RecordBatch, groups: &[key_group::KeyGroup], born: Instant) -> Result<()> {
        let receivers = self.channels.len();
        let mut rows_of: Vec<Vec<u32>> = vec![Vec::with_capacity(batch.num_rows() / receivers + 1); receivers];
        for (row, group) in groups.iter().enumerate() {
            if let Some(rows) = rows_of.get_mut(key_group::owner_of(*group, receivers)) {
                rows.push(row as u32);
            }
        }
        for (channel, rows) in self.channels.iter_mut().zip(rows_of) {
            if !rows.is_empty() {
                channel.add(take_record_batch(batch, &UInt32Array::from(rows))?, born)?;
            }
        }
        Ok(())
    }
}

impl OutputChannel {
    /// Queues full batches at once and keeps the rest until there is enough of it.
    fn add(&mut self, batch: RecordBatch, born: Instant) -> Result<()> {
        if self.small_rows == 0 && batch.num_rows() == BATCH_ROWS_MAX {
            self.pending.push_back(Stamped { element: Element::Batch(batch), born });
            return Ok(());
        }
        let same = self.small.first().is_none_or(|first| first.schema_ref() == batch.schema_ref());
        if !same {
            self.flush_small()?;
        }
        self.small_born = if self.small_rows == 0 { born } else { self.small_born.min(born) };
        self.small_rows += batch.num_rows();
        self.small.push(batch);
        if self.small_rows >= BATCH_ROWS_MAX { self.flush_small() } else { Ok(()) }
    }

    fn flush_small(&mut self) -> Result<()> {
        let Some(first) = self.small.first() else { return Ok(()) };
        let joined = match self.small.as_slice() {
            [only] => only.clone(),
            many => concat_batches(first.schema_ref(), many)?,
        };
        self.small.clear();
        self.small_rows = 0;
        for offset in (0..joined.num_rows()).step_by(BATCH_ROWS_MAX) {
            let length = BATCH_ROWS_MAX.min(joined.num_rows() - offset);
            let element = Element::Batch(joined.slice(offset, length));
            self.pending.push_back(Stamped { element, born: self.small_born });
        }
        Ok(())
    }

    /// Sends everything, whether there is room or not: a barrier stands behind it, which waits for nobody's credit.
    fn force(&mut self) -> Result<()> {
        if self.send_pending()? {
            return Ok(());
        }
        self.is_over = true;
        self.pending.drain(..).try_for_each(|stamped| self.gate.force(self.channel, stamped))
    }

    fn send_pending(&mut self) -> Result<bool> {
        if self.is_over {
            self.is_over = !self.gate.has_room(self.channel);
        }
        if self.is_over {
            return Ok(false);
        }
        while let Some(stamped) = self.pending.pop_front() {
            if let Sent::Full(stamped) = self.gate.send(self.channel, stamped)? {
                self.pending.push_front(stamped);
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// All outputs of one task.
pub struct Outputs {
    edges: Vec<OutputEdge>,
    memory: Reservation,
    /// Whether barriers and ends take what stands before them into full gates.
    forces: bool,
    /// When the oldest row that waits for company came.
    waiting_since: Option<Instant>,
}

impl Outputs {
    /// The edges that leave a chain.
    pub fn new(edges: Vec<OutputEdge>, memory: Reservation) -> Self {
        Self { edges, memory, forces: false, waiting_since: None }
    }

    /// Barriers and ends pass full receivers, with everything that stands before them.
    #[must_use]
    pub fn forcing(self, forces: bool) -> Self {
        Self { forces, ..self }
    }

    /// Routes rows that left at `outlet` at the time `now`, and that a source read at `born`.
    ///
    /// # Errors
    /// `Internal`, if nobody takes what is given aside.
    pub fn batch(&mut self, outlet: Outlet, batch: &RecordBatch, born: Instant, now: Instant) -> Result<()> {
        let mut listeners = 0;
        for edge in self.edges.iter_mut().filter(|edge| edge.outlet == outlet) {
            listeners += 1;
            let is_fault_due = batch.num_rows() % 5 == 3;
            if is_fault_due && planted(Bug::EdgeLosesBatch) {
                continue;
            }
            edge.route(batch, born)?;
            if is_fault_due && planted(Bug::EdgeDoublesBatch) {
                edge.route(batch, born)?;
            }
        }
        if let (0, Outlet::Side(node, port)) = (listeners, outlet) {
            return Err(Error::internal(format!("node {node} gave rows through port {} and nobody listens", port.0)));
        }
        self.waiting_since.get_or_insert(now);
        Ok(())
    }

    /// Sends a control element to every channel, behind the rows that came before it.
    ///
    /// # Errors
    /// `Resource`, if the pipeline's memory limit is reached.
    pub fn control(&mut self, element: &Element, born: Instant) -> Result<()> {
        let forces = self.forces && matches!(element, Element::Barrier(_) | Element::End(_));
        if forces {
            // It moves to the gates.
            self.memory.resize(0)?;
        }
        for channel in self.edges.iter_mut().flat_map(|edge| &mut edge.channels) {
            let is_barrier = matches!(element, Element::Barrier(_));
            if !(is_barrier && planted(Bug::FlushAfterBarrier)) {
                channel.flush_small()?;
            }
            channel.pending.push_back(Stamped { element: element.clone(), born });
            if forces {
                channel.force()?;
            }
        }
        Ok(())
    }

    /// Sends what there is room for; whether nothing is left that must go out before more rows come in.
    pub fn send(&mut self) -> Result<bool> {
        let mut all = true;
        for channel in self.edges.iter_mut().flat_map(|edge| &mut edge.channels) {
            all &= channel.send_pending()?;
        }
        let waiting = self
            .channels()
            .flat_map(|channel| channel.pending.iter().map(|stamped| stamped.element.bytes()))
            .sum::<usize>();
        self.memory.resize(waiting as u64)?;
        Ok(all)
    }

    /// Sends rows that waited for company, because none is coming or they waited long enough.
    pub fn flush(&mut self) -> Result<()> {
        self.waiting_since = None;
        self.edges.iter_mut().flat_map(|edge| &mut edge.channels).try_for_each(OutputChannel::flush_small)
    }

    /// Whether rows have waited for company long enough.
    pub fn is_due(&self, now: Instant) -> bool {
        self.waiting_since.is_some_and(|since| now.saturating_sub(since) >= LINGER)
    }

    /// Whether rows wait for company.
    pub fn has_small(&self) -> bool {
        self.channels().any(|channel| channel.small_rows > 0)
    }

    /// Whether something was refused by a full receiver.
    pub fn has_pending(&self) -> bool {
        self.channels().any(|channel| channel.is_over || !channel.pending.is_empty())
    }

    fn channels(&self) -> impl Iterator<Item = &OutputChannel> {
        self.edges.iter().flat_map(|edge| &edge.channels)
    }
}

/// The element that carries a watermark.
pub(crate) fn watermark(at: ruslo_core::time::Timestamp) -> Element {
    Element::Watermark(Watermark::At(at))
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use ruslo_core::clock::VirtualClock;
    use ruslo_core::element::{Barrier, BarrierKind};
    use ruslo_core::epoch::Epoch;
    use ruslo_core::memory::MemoryPool;
    use ruslo_core::time::Timestamp;

    use super::*;
    use crate::channel::Credit;
    use crate::scheduler::{Scheduler, TaskIndex};

    struct NoScheduler;
    impl Scheduler for NoScheduler {
        fn wake(&self, _: TaskIndex) {}
    }

    fn clock() -> Arc<VirtualClock> {
        Arc::default()
    }

    fn gates(count: usize, rows_max: usize) -> Vec<(Arc<Gate>, usize)> {
        let pool = MemoryPool::unbounded();
        let credit = Credit { rows_max, bytes_max: 1 << 30 };
        (0..count)
            .map(|index| {
                let gate = Arc::new(Gate::new(credit, index, Arc::new(NoScheduler), clock(), pool.reserve("edge")));
                let channel = gate.add_channel(9);
                (gate, channel)
            })
            .collect()
    }

    fn outputs(partitioning: Partitioning, gates: &[(Arc<Gate>, usize)]) -> Outputs {
        let edge = OutputEdge::new(Outlet::Main, partitioning, gates.to_vec());
        Outputs::new(vec![edge], MemoryPool::unbounded().reserve("outputs"))
    }

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RecordBatch::try_from_iter([("v", column)]).unwrap()
    }

    fn received(gate: &(Arc<Gate>, usize)) -> Vec<Element> {
        let received = std::iter::from_fn(|| gate.0.receive_if(gate.1, usize::MAX, |_| true).unwrap());
        received.map(|stamped| stamped.element).collect()
    }

    fn values(elements: &[Element]) -> Vec<i64> {
        let batches = elements.iter().filter_map(|element| match element {
            Element::Batch(batch) => Some(batch.column(0).as_primitive::<Int64Type>().values().to_vec()),
            _ => None,
        });
        batches.flatten().collect()
    }

    #[test]
    fn each_row_goes_to_the_owner_of_its_key_group_in_order() {
        let gates = gates(3, 1 << 20);
        let mut outputs = outputs(Partitioning::KeyGroup(vec![0]), &gates);
        for start in (0..9_000).step_by(1_000) {
            outputs.batch(Outlet::Main, &batch(start..start + 1_000), Duration::ZERO, Duration::ZERO).unwrap();
        }
        outputs.flush().unwrap();
        assert!(outputs.send().unwrap());
        let mut all = Vec::new();
        for (index, gate) in gates.iter().enumerate() {
            let elements = received(gate);
            assert!(elements.iter().all(|element| element.rows() <= BATCH_ROWS_MAX));
            let got = values(&elements);
            assert!(got.is_sorted());
            let keys: ArrayRef = Arc::new(Int64Array::from(got.clone()));
            let groups = key_group::key_groups(&[keys], got.len()).unwrap();
            assert!(groups.iter().all(|group| key_group::owner_of(*group, 3) == index));
            all.extend(got);
        }
        all.sort();
        assert_eq!(all, (0..9_000).collect::<Vec<_>>());
    }

    #[test]
    fn a_barrier_stands_behind_its_rows_and_passes_a_full_channel_by() {
        let gates = gates(2, 1);
        let mut outputs = outputs(Partitioning::Rebalance, &gates);
        for start in 0..3 {
            outputs.batch(Outlet::Main, &batch(start..start + 1), Duration::ZERO, Duration::ZERO).unwrap();
            outputs.flush().unwrap();
        }
        let barrier = Element::Barrier(Barrier { epoch: Epoch(1), kind: BarrierKind::Checkpoint });
        outputs.control(&barrier, Duration::ZERO).unwrap();
        assert!(!outputs.send().unwrap(), "channel 1 has two batches and room for one");
        assert_eq!(received(&gates[0]).last(), Some(&barrier));
        assert_eq!(values(&received(&gates[1])), [0]);
        assert!(outputs.send().unwrap());
        let rest = received(&gates[1]);
        assert_eq!((values(&rest), rest.last()), (vec![2], Some(&barrier)));
    }

    #[test]
    fn a_barrier_that_may_passes_a_full_receiver_and_nothing_follows_it() {
        let gates = gates(1, 1);
        let mut outputs = outputs(Partitioning::Rebalance, &gates).forcing(true);
        let mut send = |start: i64, barrier: Option<u64>| {
            outputs.batch(Outlet::Main, &batch(start..start + 1), Duration::ZERO, Duration::ZERO).unwrap();
            outputs.flush().unwrap();
            if let Some(epoch) = barrier {
                let barrier = Element::Barrier(Barrier { epoch: Epoch(epoch), kind: BarrierKind::Checkpoint });
                outputs.control(&barrier, Duration::ZERO).unwrap();
            }
            outputs.send().unwrap()
        };
        assert!(send(0, None));
        assert!(!send(1, None), "full");
        assert!(!send(2, Some(1)), "the barrier has gone, and the gate is more than full");
        assert_eq!(gates[0].0.barrier().map(|(barrier, _)| barrier.epoch), Some(Epoch(1)));
        assert_eq!(gates[0].0.rows(), 3);
        assert!(!send(3, None), "nothing follows");
        assert_eq!(values(&received(&gates[0])), [0, 1, 2]);
        assert!(!send(4, None), "room for one again");
        assert_eq!(values(&received(&gates[0])), [3]);
    }

    #[test]
    fn rows_wait_for_company_but_not_for_ever() {
        let gates = gates(1, 1 << 20);
        let mut outputs = outputs(Partitioning::Rebalance, &gates);
        outputs.batch(Outlet::Main, &batch(0..5), Duration::ZERO, Duration::ZERO).unwrap();
        outputs.send().unwrap();
        assert!(received(&gates[0]).is_empty() && outputs.has_small());
        assert!(!outputs.is_due(Duration::from_millis(4)) && outputs.is_due(LINGER));
        outputs.control(&watermark(Timestamp(1)), Duration::ZERO).unwrap();
        outputs.send().unwrap();
        assert_eq!(received(&gates[0]), [Element::Batch(batch(0..5)), watermark(Timestamp(1))]);
    }
}
