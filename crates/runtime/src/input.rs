//! One task's inputs: which element comes next, the merged watermark, and the alignment of barriers.
//!
//! A channel that has brought the barrier of the current epoch is not read until every other has brought it too; a
//! channel that has ended counts as if it had.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use ruslo_core::clock::{Clock, Instant};
use ruslo_core::element::{Barrier, Element, EndReason, Watermark};
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::InputId;
use ruslo_core::time::Timestamp;

use crate::channel::{Gate, Stamped};
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

/// The inputs of one task.
pub struct Inputs {
    gate: Arc<Gate>,
    channels: Vec<ChannelState>,
    watermark: Timestamp,
    aligning: Option<Barrier>,
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
    input: InputId,
    watermark: Timestamp,
    idle: bool,
    /// Has brought the barrier that the others are waited for.
    blocked: bool,
    ended: Option<EndReason>,
}

impl ChannelState {
    /// An idle channel does not hold the watermark back, nor one whose rows are all there. That those of one are there says
    /// nothing of the others: if these are idle, the watermark does not go to the end of time because of it.
    fn holds_watermark(&self) -> bool {
        !self.idle && self.watermark < Timestamp::MAX && self.ended != Some(EndReason::Drain)
    }

    fn is_at_barrier(&self) -> bool {
        self.blocked || (self.ended.is_some() && !planted(Bug::EndIsNoBarrier))
    }
}

impl Inputs {
    /// The channels of `gate`; `inputs` says to which input each belongs.
    pub fn new(gate: Arc<Gate>, inputs: Vec<InputId>, clock: Arc<dyn Clock>, status: Arc<TaskStatus>) -> Self {
        let channels = inputs
            .into_iter()
            .map(|input| ChannelState { input, watermark: Timestamp::MIN, idle: false, blocked: false, ended: None })
            .collect();
        Self {
            gate,
            channels,
            watermark: Timestamp::MIN,
            aligning: None,
            next: 0,
            events: VecDeque::new(),
            born: Instant::ZERO,
            aligning_since: None,
            clock,
            status,
        }
    }

    /// Where this task's elements wait.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The next event, if there is one, and when a source read the oldest row that went into it.
    pub fn next(&mut self, accept: Accept) -> Result<Option<(Event, Instant)>> {
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
        let wanted = |element: &Element| accept == Accept::All || matches!(element, Element::Barrier(_));
        let count = self.channels.len();
        for channel in (self.next..count).chain(0..self.next) {
            let open = self.channels.get(channel).is_some_and(|state| !state.blocked && state.ended.is_none());
            if open && let Some(stamped) = self.gate.receive_if(channel, wanted)? {
                self.next = (channel + 1) % count;
                return Ok(Some((channel, stamped)));
            }
        }
        Ok(None)
    }

    fn on_element(&mut self, channel: usize, element: Element) -> Result<()> {
        let Some(state) = self.channels.get_mut(channel) else { return Ok(()) };
        match element {
            Element::Batch(batch) => {
                state.idle = false;
                let input = state.input;
                self.put(Event::Batch(input, batch));
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
            state.blocked = true;
        }
        self.complete_alignment();
        Ok(())
    }

    fn complete_alignment(&mut self) {
        if planted(Bug::NoAlignment) || !self.channels.iter().all(ChannelState::is_at_barrier) {
            return;
        }
        if let Some(barrier) = self.aligning.take() {
            self.channels.iter_mut().for_each(|state| state.blocked = false);
            let since = self.aligning_since.take().unwrap_or_default();
            self.status.aligned(self.clock.now().saturating_sub(since));
            self.put(Event::Barrier(barrier));
        }
    }

    fn on_end(&mut self, channel: usize, reason: EndReason) {
        let Some(state) = self.channels.get_mut(channel) else { return };
        state.ended = Some(reason);
        let input = state.input;
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
        let reasons = self.channels.iter().filter(|state| state.input == input).map(|state| state.ended);
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
        let memory = MemoryPool::unbounded().reserve("edge");
        let clock: Arc<dyn Clock> = Arc::new(VirtualClock::default());
        let gate = Gate::new(Credit::default(), 0, Arc::new(NoScheduler), Arc::clone(&clock), memory);
        of_channels.iter().for_each(|_| _ = gate.add_channel(1));
        Inputs::new(Arc::new(gate), of_channels.to_vec(), clock, Arc::default())
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
}
