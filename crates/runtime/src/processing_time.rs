//! Processing time of one source subtask: when rows are read, and watermarks that the clock makes.
//!
//! A watermark promises that no later row is at or before it, and operators rely on that after a restore, too, on a
//! machine whose clock may be behind. So a row's time is the clock's, but always after what was promised.

use std::sync::Arc;
use std::time::Duration;

use ruslo_core::clock::{Clock, Instant};
use ruslo_core::time::Timestamp;

/// How often the clock makes a watermark.
const INTERVAL: Duration = Duration::from_millis(50);

/// The clock as one source subtask sees it.
pub struct ProcessingTime {
    clock: Arc<dyn Clock>,
    /// The last watermark, of this run or of the one before it.
    promised: Timestamp,
    next: Instant,
    drives: bool,
}

impl ProcessingTime {
    /// After a restore everything up to `promised` has been promised; if it `drives`, the clock makes watermarks.
    pub fn new(clock: Arc<dyn Clock>, promised: Timestamp, drives: bool) -> Self {
        Self { clock, promised, next: Instant::ZERO, drives }
    }

    /// Whether the clock makes watermarks.
    pub fn drives(&self) -> bool {
        self.drives
    }

    /// What a row that is read now is stamped with.
    pub fn stamp(&self) -> Timestamp {
        let wall = self.clock.wall();
        if self.drives { wall.max(Timestamp(self.promised.millis().saturating_add(1))) } else { wall }
    }

    /// The watermark that is due at `now`, if one is.
    pub fn watermark(&mut self, now: Instant) -> Option<Timestamp> {
        if !self.drives || now < self.next {
            return None;
        }
        self.next = now + INTERVAL;
        let reached = Timestamp(self.clock.wall().millis().saturating_sub(1));
        if reached <= self.promised {
            return None;
        }
        self.promised = reached;
        Some(reached)
    }

    /// When to look again, for who would wait until `until`.
    pub fn wake(&self, until: Option<Instant>) -> Option<Instant> {
        if self.drives { Some(until.map_or(self.next, |until| until.min(self.next))) } else { until }
    }
}

#[cfg(test)]
mod tests {
    use ruslo_core::clock::VirtualClock;

    use super::*;

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn rows_come_after_the_watermark_before_them_at_the_same_millisecond_too() {
        let clock = Arc::new(VirtualClock::default());
        clock.advance(millis(100));
        let mut time = ProcessingTime::new(Arc::clone(&clock) as _, Timestamp::MIN, true);
        assert_eq!(time.watermark(clock.now()), Some(Timestamp(99)));
        assert_eq!(time.stamp(), Timestamp(100));
        assert_eq!(time.watermark(clock.now()), None, "not so soon");
        assert_eq!(time.wake(None), Some(millis(150)));
        assert_eq!(time.wake(Some(millis(120))), Some(millis(120)));
        clock.advance(millis(60));
        assert_eq!(time.watermark(clock.now()), Some(Timestamp(159)));
    }

    #[test]
    fn a_clock_that_is_behind_after_a_restore_breaks_no_promise() {
        let clock = Arc::new(VirtualClock::default());
        let mut time = ProcessingTime::new(Arc::clone(&clock) as _, Timestamp(5000), true);
        assert_eq!((time.watermark(clock.now()), time.stamp()), (None, Timestamp(5001)));
        clock.advance(millis(6000));
        assert_eq!((time.watermark(clock.now()), time.stamp()), (Some(Timestamp(5999)), Timestamp(6000)));
    }

    #[test]
    fn without_windows_it_only_tells_the_time() {
        let clock = Arc::new(VirtualClock::default());
        clock.advance(millis(7));
        let mut time = ProcessingTime::new(Arc::clone(&clock) as _, Timestamp(5000), false);
        assert_eq!((time.watermark(clock.now()), time.stamp(), time.wake(None)), (None, Timestamp(7), None));
    }
}
