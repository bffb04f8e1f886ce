//! One task's inputs: which element comes next, the merged watermark, and the alignment of barriers.
//!
//! A channel that has brought the barrier of the current epoch is not read until every other has brought it too; a
//! channel that has ended counts as if it had. Other ways to treat barriers are [`Alignment`]'s.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use ruslo_core::clock::{Clock, Instant};
use ruslo_core::element::{Barrier, Element, EndReason, Watermark};
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::InputId;
use ruslo_core::time::Timestamp;

use crate::alignment::{Alignment, Overtaken};
use crate::channel::{Gate, Stamped};
use crate::in_flight::InFlight;
use crate::pace::Pace;
use crate::planted::{Bug, planted};
use crate::task::TaskStatus;

/// What the first operator of a chain is told; also what flows inside a chain.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Rows of one input.
    Batch(InputId, RecordBatch),
    /// The merged watermark rose.
    Watermark(Timestamp),
    /// Every input is idle.
    Idle,
    /// Every input has brought this barrier, or has ended.
    Barrier(Barrier),
    /// Every channel of one input has ended, but another input goes on.
    InputEnd(InputId, EndReason),
    /// Every input has ended; the last one was this.
    End(InputId, EndReason),
}

/// What a task is ready to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// Anything.
    All,
    /// Only a barrier: the chain is in the middle of some work, and a barrier need not wait for that.
    Barriers,
}

/// Where a channel comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChannelOrigin {
    /// Which input of the first operator it belongs to.
    pub input: InputId,
    /// Which edge of the graph.
    pub edge: usize,
    /// The sending subtask.
    pub sender: usize,
}

/// The inputs of one task.
pub struct Inputs {
    gate: Arc<Gate>,
    channels: Vec<ChannelState>,
    watermark: Timestamp,
    alignment: Alignment,
    overtaken: Arc<Overtaken>,
    aligning: Option<Barrier>,
    /// What the last barrier has overtaken, until it is put into the checkpoint.
    in_flight: Vec<InFlight>,
    /// Rows that a checkpoint had in flight and that are still here; as long as there are any, nothing else is read.
    restored_rows: usize,
    pace: Pace,
    /// The channel to look at first, so that all get their turn.
    next: usize,
    /// Each with the age of what brought it about.
    events: VecDeque<(Event, Instant)>,
    /// Of the element at hand.
    born: Instant,
    /// When the first barrier of the alignment under way came.
    aligning_since: Option<Instant>,
    clock: Arc<dyn Clock>,
    status: Arc<TaskStatus>,
}

struct ChannelState {
    origin: ChannelOrigin,
    watermark: Timestamp,
    idle: bool,
    /// Has brought the barrier that the others are waited for.
    at_barrier: bool,
    /// What came behind that barrier, if it is not waited: it counts when the barrier has passed.
    later: Later,
    ended: Option<EndReason>,
    /// Rows in front that a checkpoint had in flight.
    restored_rows: usize,
}

/// What a channel says of event time behind a barrier.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Later {
    watermark: Option<Timestamp>,
    idle: Option<bool>,
}

impl ChannelState {
    fn new(origin: ChannelOrigin) -> Self {
        let (watermark, later) = (Timestamp::MIN, Later::default());
        Self { origin, watermark, idle: false, at_barrier: false, later, ended: None, restored_rows: 0 }
    }

    /// An idle channel does not hold the watermark back, nor one whose rows are all there. That those of one are there says
    /// nothing of the others: if these are idle, the watermark does not go to the end of time because of it.
    fn holds_watermark(&self) -> bool {
        !self.idle && self.watermark < Timestamp::MAX && self.ended != Some(EndReason::Drain)
    }

    fn is_at_barrier(&self) -> bool {
        self.at_barrier || (self.ended.is_some() && !planted(Bug::EndIsNoBarrier))
    }

    /// What came behind the barrier counts from now on.
    fn catch_up(&mut self) {
        let Later { watermark, idle } = std::mem::take(&mut self.later);
        self.watermark = watermark.map_or(self.watermark, |at| at.max(self.watermark));
        self.idle = idle.unwrap_or(self.idle);
    }
}

impl Inputs {
    /// The channels of `gate`, in its order; barriers are aligned.
    pub fn new(gate: Arc<Gate>, channels: Vec<ChannelOrigin>, clock: Arc<dyn Clock>, status: Arc<TaskStatus>) -> Self {
        Self {
            gate,
            channels: channels.into_iter().map(ChannelState::new).collect(),
            watermark: Timestamp::MIN,
            alignment: Alignment::Aligned,
            overtaken: Arc::default(),
            aligning: None,
            in_flight: Vec::new(),
            restored_rows: 0,
            pace: Pace::new(),
            next: 0,
            events: VecDeque::new(),
            born: Instant::ZERO,
            aligning_since: None,
            clock,
            status,
        }
    }

    /// Treats barriers otherwise; `overtaken` is the job's.
    #[must_use]
    pub fn with_alignment(self, alignment: Alignment, overtaken: Arc<Overtaken>) -> Self {
        Self { alignment, overtaken, ..self }
    }

    /// Puts rows that a checkpoint had in flight on `edge` before anything else, behind those that were put there already.
    /// All go into one channel of the edge: rows of one key, which several attempts may have left in several channels,
    /// stay in order.
    ///
    /// # Errors
    /// `Resource`, if the pipeline's memory limit is reached; `Internal`, if the edge does not lead here.
    pub fn restore(&mut self, edge: usize, batch: RecordBatch) -> Result<()> {
        let of_edge = |(_, state): &(usize, &ChannelState)| state.origin.edge == edge;
        let place = self.channels.iter().enumerate().find(of_edge).map_or(usize::MAX, |(place, _)| place);
        let state = self.channels.get_mut(place).ok_or_else(|| Error::internal("an edge has no channel"))?;
        state.restored_rows += batch.num_rows();
        self.restored_rows += batch.num_rows();
        self.gate.force(place, Stamped { element: Element::Batch(batch), born: self.clock.now() })
    }

    /// What the barrier that was last taken has overtaken.
    pub fn take_in_flight(&mut self) -> Vec<InFlight> {
        std::mem::take(&mut self.in_flight)
    }

    /// When to look again even if nothing comes: a barrier has waited for long enough then.
    pub fn deadline(&self) -> Option<Instant> {
        let Alignment::Overtaking { after } = self.alignment else { return None };
        let (_, since) = self.gate.barrier()?;
        Some(since + after).filter(|at| *at > self.clock.now())
    }

    /// Where this task's elements wait.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The next event, if there is one, and when a source read the oldest row that went into it.
    pub fn next(&mut self, accept: Accept) -> Result<Option<(Event, Instant)>> {
        if self.alignment.overtakes() {
            self.overtake_if_due();
        }
        loop {
            if let Some(event) = self.ready(accept) {
                return Ok(Some(event));
            }
            if !self.events.is_empty() {
                return Ok(None);
            }
            let Some((channel, Stamped { element, born })) = self.receive(accept)? else { return Ok(None) };
            self.born = born;
            self.on_element(channel, element)?;
        }
    }

    fn ready(&mut self, accept: Accept) -> Option<(Event, Instant)> {
        let fits = |(event, _): &(Event, Instant)| accept == Accept::All || matches!(event, Event::Barrier(_));
        self.events.front().is_some_and(fits).then(|| self.events.pop_front()).flatten()
    }

    /// Something has come of the element at hand.
    fn put(&mut self, event: Event) {
        self.events.push_back((event, self.born));
    }

    fn receive(&mut self, accept: Accept) -> Result<Option<(usize, Stamped)>> {
        let rows_max = match accept {
            Accept::All => self.pace.rows_max(|| self.clock.now()),
            Accept::Barriers => 0,
        };
        let count = self.channels.len();
        for channel in (self.next..count).chain(0..self.next) {
            let Some(state) = self.channels.get(channel).filter(|state| self.may_read(state)) else { continue };
            let behind_barrier = state.at_barrier;
            let wanted = |element: &Element| match element {
                Element::Barrier(_) => true,
                // Nothing stands behind the end: it can wait for the barrier of the others.
                Element::End(_) => accept == Accept::All && !behind_barrier,
                Element::Batch(_) | Element::Watermark(_) => accept == Accept::All,
            };
            if let Some(stamped) = self.gate.receive_if(channel, rows_max, wanted)? {
                self.next = (channel + 1) % count;
                self.note_rows(channel, stamped.element.rows());
                return Ok(Some((channel, stamped)));
            }
        }
        Ok(None)
    }

    fn may_read(&self, state: &ChannelState) -> bool {
        let waits = state.at_barrier && self.alignment != Alignment::AtLeastOnce;
        let is_behind_restored = self.restored_rows > 0 && state.restored_rows == 0;
        state.ended.is_none() && !waits && !is_behind_restored
    }

    fn note_rows(&mut self, channel: usize, rows: usize) {
        if rows == 0 {
            return;
        }
        self.pace.handed(rows, self.clock.now());
        if self.restored_rows > 0
            && let Some(state) = self.channels.get_mut(channel)
        {
            let restored = rows.min(state.restored_rows);
            state.restored_rows -= restored;
            self.restored_rows -= restored;
        }
    }

    fn on_element(&mut self, channel: usize, element: Element) -> Result<()> {
        let Some(state) = self.channels.get_mut(channel) else { return Ok(()) };
        match element {
            Element::Batch(batch) => {
                if state.at_barrier {
                    state.later.idle = Some(false)
                } else {
                    state.idle = false
                }
                let input = state.origin.input;
                self.put(Event::Batch(input, batch));
            }
            Element::Watermark(watermark) if state.at_barrier && !planted(Bug::WatermarkAheadOfBarrier) => {
                state.later.idle = Some(watermark == Watermark::Idle);
                if let Watermark::At(at) = watermark {
                    state.later.watermark = Some(at);
                }
            }
            Element::Watermark(Watermark::At(at)) => {
                state.idle = false;
                state.watermark = state.watermark.max(at);
                self.merge_watermarks();
            }
            Element::Watermark(Watermark::Idle) => {
                state.idle = true;
                self.on_idle();
            }
            Element::Barrier(barrier) => self.on_barrier(channel, barrier)?,
            Element::End(reason) => self.on_end(channel, reason),
        }
        Ok(())
    }

    fn on_idle(&mut self) {
        let open = || self.channels.iter().filter(|state| state.ended.is_none());
        if open().all(|state| state.idle) {
            self.put(Event::Idle);
        } else {
            self.merge_watermarks();
        }
    }

    fn merge_watermarks(&mut self) {
        let holding = self.channels.iter().filter(|state| state.holds_watermark()).map(|state| state.watermark);
        let merged = if planted(Bug::WatermarkIsMaximum) { holding.max() } else { holding.min() };
        if let Some(merged) = merged.filter(|merged| *merged > self.watermark) {
            self.watermark = merged;
            self.status.merged(merged);
            self.put(Event::Watermark(merged));
        }
    }

    fn on_barrier(&mut self, channel: usize, barrier: Barrier) -> Result<()> {
        if planted(Bug::NoAlignment) {
            if self.aligning.replace(barrier).is_none_or(|before| before.epoch < barrier.epoch) {
                self.put(Event::Barrier(barrier));
            }
            return Ok(());
        }
        let current = *self.aligning.get_or_insert(barrier);
        if self.aligning_since.is_none() {
            self.aligning_since = Some(self.clock.now());
        }
        if current != barrier {
            return Err(Error::internal(format!(
                "the barrier of epoch {} overtook that of epoch {}",
                barrier.epoch, current.epoch
            )));
        }
        if let Some(state) = self.channels.get_mut(channel) {
            state.at_barrier = true;
        }
        self.complete_alignment();
        Ok(())
    }

    fn complete_alignment(&mut self) {
        if planted(Bug::NoAlignment) || !self.channels.iter().all(ChannelState::is_at_barrier) {
            return;
        }
        if let Some(barrier) = self.aligning {
            self.pass_barrier(barrier);
        }
    }

    fn pass_barrier(&mut self, barrier: Barrier) {
        self.gate.pass_barrier(barrier.epoch);
        self.aligning = None;
        let since = self.aligning_since.take();
        let took = since.map_or(Instant::ZERO, |since| self.clock.now().saturating_sub(since));
        self.status.aligned(took);
        self.put(Event::Barrier(barrier));
        if self.channels.iter().any(|state| state.later != Later::default()) {
            self.channels.iter_mut().for_each(ChannelState::catch_up);
            self.on_idle();
        }
        self.channels.iter_mut().for_each(|state| state.at_barrier = false);
    }

    /// Lets the barrier overtake what it waits for, if it has waited for long enough and is in the gate on every channel.
    fn overtake_if_due(&mut self) {
        let Alignment::Overtaking { after } = self.alignment else { return };
        let Some((barrier, since)) = self.gate.barrier().filter(|(barrier, _)| barrier.kind.may_overtake()) else {
            return;
        };
        let is_due = self.overtaken.is(barrier.epoch) || self.clock.now() >= since + after;
        if !is_due || self.channels.iter().all(|state| state.ended.is_some()) {
            return;
        }
        let done: Vec<_> = self.channels.iter().map(ChannelState::is_at_barrier).collect();
        let Some(overtaken) = self.gate.overtake(&done) else { return };
        self.overtaken.set(barrier.epoch);
        self.aligning_since.get_or_insert(since);
        let rows = self.channels.iter().zip(overtaken).filter(|(_, batches)| !batches.is_empty());
        self.in_flight = rows.map(|(state, batches)| InFlight { origin: state.origin, batches }).collect();
        self.pass_barrier(barrier);
    }

    fn on_end(&mut self, channel: usize, reason: EndReason) {
        let Some(state) = self.channels.get_mut(channel) else { return };
        state.ended = Some(reason);
        let input = state.origin.input;
        // A barrier that only this channel was missing stands before the end, and so does what the end lets pass.
        self.complete_alignment();
        self.merge_watermarks();
        if self.channels.iter().all(|state| state.ended.is_some()) {
            self.on_last_end(input);
        } else if let Some(reason) = self.end_of(input) {
            self.put(Event::InputEnd(input, reason));
        }
    }

    /// Why an input ended, once all its channels have: `Stop` if one of them stopped.
    fn end_of(&self, input: InputId) -> Option<EndReason> {
        let reasons = self.channels.iter().filter(|state| state.origin.input == input).map(|state| state.ended);
        reasons.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    fn on_last_end(&mut self, input: InputId) {
        let reason = self.channels.iter().filter_map(|state| state.ended).max().unwrap_or(EndReason::Drain);
        if reason == EndReason::Drain {
            self.watermark = Timestamp::MAX;
            self.status.merged(Timestamp::MAX);
            self.put(Event::Watermark(Timestamp::MAX));
        }
        self.put(Event::End(input, reason));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::array::{ArrayRef, Int64Array};
    use ruslo_core::clock::VirtualClock;
    use ruslo_core::element::BarrierKind;
    use ruslo_core::epoch::Epoch;
    use ruslo_core::memory::MemoryPool;

    use super::*;
    use crate::channel::Credit;
    use crate::scheduler::{Scheduler, TaskIndex};

    struct NoScheduler;
    impl Scheduler for NoScheduler {
        fn wake(&self, _: TaskIndex) {}
    }

    fn inputs(of_channels: &[InputId]) -> Inputs {
        inputs_at(of_channels, Arc::new(VirtualClock::default()))
    }

    fn inputs_at(of_channels: &[InputId], clock: Arc<dyn Clock>) -> Inputs {
        let memory = MemoryPool::unbounded().reserve("edge");
        let gate = Gate::new(Credit::default(), 0, Arc::new(NoScheduler), Arc::clone(&clock), memory);
        of_channels.iter().for_each(|_| _ = gate.add_channel(1));
        let origin = |(sender, input): (usize, &InputId)| ChannelOrigin { input: *input, edge: *input, sender };
        let channels = of_channels.iter().enumerate().map(origin).collect();
        Inputs::new(Arc::new(gate), channels, clock, Arc::default())
    }

    fn send(inputs: &Inputs, channel: usize, element: Element) {
        inputs.gate.send(channel, element).unwrap();
    }

    fn next(inputs: &mut Inputs, accept: Accept) -> Option<Event> {
        inputs.next(accept).unwrap().map(|(event, _)| event)
    }

    fn barrier(epoch: u64) -> Barrier {
        Barrier { epoch: Epoch(epoch), kind: BarrierKind::Checkpoint }
    }

    fn batch(value: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        RecordBatch::try_from_iter([("v", column)]).unwrap()
    }

    fn at(millis: i64) -> Element {
        Element::Watermark(Watermark::At(Timestamp(millis)))
    }

    fn drain(inputs: &mut Inputs) -> Vec<Event> {
        std::iter::from_fn(|| next(inputs, Accept::All)).collect()
    }

    #[test]
    fn the_merged_watermark_is_the_least_and_never_falls() {
        let mut inputs = inputs(&[0, 0]);
        send(&inputs, 0, at(10));
        assert_eq!(drain(&mut inputs), []);
        send(&inputs, 1, at(5));
        assert_eq!(drain(&mut inputs), [Event::Watermark(Timestamp(5))]);
        send(&inputs, 1, at(3));
        send(&inputs, 1, at(20));
        assert_eq!(drain(&mut inputs), [Event::Watermark(Timestamp(10))]);
    }

    #[test]
    fn an_idle_input_is_not_waited_for_until_it_wakes() {
        let mut inputs = inputs(&[0, 0]);
        send(&inputs, 0, at(10));
        send(&inputs, 1, Element::Watermark(Watermark::Idle));
        assert_eq!(drain(&mut inputs), [Event::Watermark(Timestamp(10))]);
        send(&inputs, 1, at(2));
        assert_eq!(drain(&mut inputs), []);
        send(&inputs, 0, at(12));
        assert_eq!(drain(&mut inputs), [], "the awake input holds the watermark, which does not fall");
        send(&inputs, 1, Element::Watermark(Watermark::Idle));
        assert_eq!(drain(&mut inputs), [Event::Watermark(Timestamp(12))]);
        send(&inputs, 0, Element::Watermark(Watermark::Idle));
        assert_eq!(drain(&mut inputs), [Event::Idle]);
    }

    #[test]
    fn the_end_of_one_input_is_not_the_end_of_time_for_an_idle_one() {
        let mut inputs = inputs(&[0, 1]);
        send(&inputs, 0, at(10));
        send(&inputs, 1, Element::Watermark(Watermark::Idle));
        assert_eq!(drain(&mut inputs), [Event::Watermark(Timestamp(10))]);
        send(&inputs, 0, Element::Watermark(Watermark::At(Timestamp::MAX)));
        send(&inputs, 0, Element::End(EndReason::Drain));
        assert_eq!(drain(&mut inputs), [Event::InputEnd(0, EndReason::Drain)]);
        send(&inputs, 1, at(20));
        assert_eq!(drain(&mut inputs), [Event::Watermark(Timestamp(20))]);
        send(&inputs, 1, Element::Watermark(Watermark::At(Timestamp::MAX)));
        send(&inputs, 1, Element::End(EndReason::Drain));
        let last = [Event::Watermark(Timestamp::MAX), Event::End(1, EndReason::Drain)];
        assert_eq!(drain(&mut inputs), last);
    }

    #[test]
    fn rows_behind_a_barrier_wait_until_it_has_come_everywhere() {
        let mut inputs = inputs(&[0, 1]);
        send(&inputs, 0, Element::Barrier(barrier(1)));
        send(&inputs, 0, Element::Batch(batch(1)));
        send(&inputs, 1, Element::Batch(batch(2)));
        assert_eq!(drain(&mut inputs), [Event::Batch(1, batch(2))]);
        send(&inputs, 1, Element::Barrier(barrier(1)));
        assert_eq!(drain(&mut inputs), [Event::Barrier(barrier(1)), Event::Batch(0, batch(1))]);
    }

    #[test]
    fn end_during_alignment_counts_as_the_barrier() {
        let mut inputs = inputs(&[0, 1]);
        send(&inputs, 0, Element::Barrier(barrier(1)));
        send(&inputs, 1, Element::End(EndReason::Drain));
        let events = drain(&mut inputs);
        assert_eq!(events, [Event::Barrier(barrier(1)), Event::InputEnd(1, EndReason::Drain)]);
        send(&inputs, 0, Element::Barrier(barrier(2)));
        assert_eq!(drain(&mut inputs), [Event::Barrier(barrier(2))]);
    }

    #[test]
    fn draining_ends_event_time_and_stopping_does_not() {
        let mut drained = inputs(&[0]);
        send(&drained, 0, Element::End(EndReason::Drain));
        assert_eq!(drain(&mut drained), [Event::Watermark(Timestamp::MAX), Event::End(0, EndReason::Drain)]);
        let mut stopped = inputs(&[0, 0]);
        send(&stopped, 0, at(7));
        send(&stopped, 0, Element::End(EndReason::Stop));
        send(&stopped, 1, Element::End(EndReason::Drain));
        assert_eq!(drain(&mut stopped), [Event::Watermark(Timestamp(7)), Event::End(0, EndReason::Stop)]);
    }

    #[test]
    fn a_barrier_at_the_front_is_taken_even_while_the_chain_is_busy() {
        let mut inputs = inputs(&[0]);
        send(&inputs, 0, Element::Barrier(barrier(1)));
        send(&inputs, 0, Element::Batch(batch(1)));
        assert_eq!(next(&mut inputs, Accept::Barriers), Some(Event::Barrier(barrier(1))));
        assert_eq!(next(&mut inputs, Accept::Barriers), None);
        assert_eq!(next(&mut inputs, Accept::All), Some(Event::Batch(0, batch(1))));
    }

    #[test]
    fn a_barrier_that_overtakes_another_is_an_internal_error() {
        let mut inputs = inputs(&[0, 0]);
        send(&inputs, 0, Element::Barrier(barrier(1)));
        send(&inputs, 1, Element::Barrier(barrier(2)));
        assert!(inputs.next(Accept::All).is_err());
    }

    fn at_least_once(of_channels: &[InputId]) -> Inputs {
        inputs(of_channels).with_alignment(Alignment::AtLeastOnce, Arc::default())
    }

    fn overtaking(of_channels: &[InputId]) -> (Inputs, Arc<VirtualClock>) {
        let clock = Arc::new(VirtualClock::default());
        let alignment = Alignment::Overtaking { after: Duration::from_secs(10) };
        (inputs_at(of_channels, clock.clone()).with_alignment(alignment, Arc::default()), clock)
    }

    #[test]
    fn at_least_once_rows_pass_a_barrier_and_watermarks_wait() {
        let mut inputs = at_least_once(&[0, 1]);
        for element in [at(5), Element::Barrier(barrier(1)), Element::Batch(batch(1)), at(50)] {
            send(&inputs, 0, element);
        }
        send(&inputs, 1, at(40));
        let before = [Event::Watermark(Timestamp(5)), Event::Batch(0, batch(1))];
        assert_eq!(drain(&mut inputs), before, "the row behind the barrier counts, the watermark behind it not yet");
        send(&inputs, 1, Element::Barrier(barrier(1)));
        assert_eq!(drain(&mut inputs), [Event::Barrier(barrier(1)), Event::Watermark(Timestamp(40))]);
    }

    #[test]
    fn at_least_once_an_end_behind_the_barrier_waits() {
        let mut inputs = at_least_once(&[0, 1]);
        send(&inputs, 0, Element::Barrier(barrier(1)));
        send(&inputs, 0, Element::End(EndReason::Drain));
        send(&inputs, 1, at(7));
        assert_eq!(drain(&mut inputs), []);
        send(&inputs, 1, Element::Barrier(barrier(1)));
        let end = Event::InputEnd(0, EndReason::Drain);
        assert_eq!(drain(&mut inputs), [Event::Barrier(barrier(1)), Event::Watermark(Timestamp(7)), end]);
    }

    #[test]
    fn the_barrier_of_a_savepoint_overtakes_nothing() {
        for kind in [BarrierKind::Savepoint, BarrierKind::StopAtSavepoint, BarrierKind::Drain] {
            let (mut inputs, clock) = overtaking(&[0, 1]);
            let barrier = Barrier { epoch: Epoch(1), kind };
            send(&inputs, 0, Element::Batch(batch(1)));
            for channel in [0, 1] {
                send(&inputs, channel, Element::Barrier(barrier));
            }
            clock.advance(Duration::from_secs(99));
            assert_eq!(next(&mut inputs, Accept::Barriers), None, "{kind:?}");
            assert_eq!(drain(&mut inputs), [Event::Batch(0, batch(1)), Event::Barrier(barrier)]);
            assert!(inputs.take_in_flight().is_empty());
        }
    }

    #[test]
    fn a_barrier_overtakes_what_it_has_waited_behind_for_long_enough() {
        let (mut inputs, clock) = overtaking(&[0, 1]);
        send(&inputs, 0, Element::Batch(batch(1)));
        send(&inputs, 0, Element::Barrier(barrier(1)));
        send(&inputs, 0, Element::Batch(batch(2)));
        send(&inputs, 1, Element::Batch(batch(3)));
        clock.advance(Duration::from_secs(9));
        assert_eq!(inputs.deadline(), Some(Duration::from_secs(10)));
        assert_eq!(next(&mut inputs, Accept::Barriers), None);
        clock.advance(Duration::from_secs(2));
        assert_eq!(next(&mut inputs, Accept::Barriers), None, "channel 1 has not brought it");
        send(&inputs, 1, Element::Barrier(barrier(1)));
        assert_eq!(next(&mut inputs, Accept::Barriers), Some(Event::Barrier(barrier(1))));
        let in_flight: Vec<_> =
            inputs.take_in_flight().into_iter().map(|rows| (rows.origin.sender, rows.batches)).collect();
        assert_eq!(in_flight, [(0, vec![batch(1)]), (1, vec![batch(3)])]);
        let rows = [Event::Batch(0, batch(1)), Event::Batch(1, batch(3)), Event::Batch(0, batch(2))];
        assert_eq!(drain(&mut inputs), rows, "and is not seen again");
    }

    #[test]
    fn what_is_behind_a_barrier_that_was_aligned_is_not_in_flight() {
        let (mut inputs, clock) = overtaking(&[0, 0]);
        send(&inputs, 0, Element::Barrier(barrier(1)));
        send(&inputs, 0, Element::Batch(batch(1)));
        assert_eq!(drain(&mut inputs), []);
        send(&inputs, 1, Element::Batch(batch(2)));
        send(&inputs, 1, Element::Barrier(barrier(1)));
        clock.advance(Duration::from_secs(10));
        assert_eq!(next(&mut inputs, Accept::All), Some(Event::Barrier(barrier(1))));
        let in_flight = inputs.take_in_flight();
        assert_eq!(in_flight.iter().map(|rows| rows.batches.clone()).collect::<Vec<_>>(), [[batch(2)]]);
    }

    #[test]
    fn once_a_barrier_has_overtaken_it_does_so_everywhere() {
        let overtaken = Arc::new(Overtaken::default());
        overtaken.set(Epoch(3));
        let (inputs, _) = overtaking(&[0]);
        let mut inputs = Inputs { overtaken, ..inputs };
        send(&inputs, 0, Element::Batch(batch(1)));
        send(&inputs, 0, Element::Barrier(barrier(3)));
        assert_eq!(next(&mut inputs, Accept::All), Some(Event::Barrier(barrier(3))));
    }

    #[test]
    fn to_the_last_task_the_coordinator_brings_the_barrier() {
        let (mut inputs, clock) = overtaking(&[0]);
        send(&inputs, 0, Element::Batch(batch(1)));
        send(&inputs, 0, Element::End(EndReason::Drain));
        inputs.gate.announce(barrier(4));
        assert_eq!(next(&mut inputs, Accept::Barriers), None);
        clock.advance(Duration::from_secs(10));
        assert_eq!(next(&mut inputs, Accept::Barriers), Some(Event::Barrier(barrier(4))));
        assert_eq!(inputs.take_in_flight().len(), 1);
        let last = [Event::Watermark(Timestamp::MAX), Event::End(0, EndReason::Drain)];
        assert_eq!(drain(&mut inputs), [&[Event::Batch(0, batch(1))], &last[..]].concat());
    }

    #[test]
    fn restored_rows_come_before_anything_else() {
        let (mut inputs, _) = overtaking(&[0, 0, 1]);
        inputs.restore(0, batch(1)).unwrap();
        inputs.restore(1, batch(2)).unwrap();
        send(&inputs, 0, Element::Batch(batch(3)));
        send(&inputs, 1, Element::Batch(batch(4)));
        let events = drain(&mut inputs);
        assert_eq!(events.len(), 4);
        assert!(events[..2].contains(&Event::Batch(0, batch(1))) && events[..2].contains(&Event::Batch(1, batch(2))));
        assert!(inputs.restore(7, batch(1)).is_err());
    }
}
