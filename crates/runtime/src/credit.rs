//! How much may wait before one receiver: the bound that was configured, and under backpressure what it drains in a second.
//!
//! A receiver that has refused somebody for a second, and was never out of work since, gets no more than a second's work put
//! before it: more would only be older when its turn comes, and be more that a barrier has to overtake. The full bound is
//! back as soon as the receiver has run out of work.

use std::time::Duration;

use ruslo_core::clock::Instant;

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

/// Over which time the receiver is watched.
const WATCHED: Duration = Duration::from_secs(1);

/// A bound that follows what the receiver does.
#[derive(Debug)]
pub struct EffectiveCredit {
    limit: Credit,
    /// When a sender was first refused since the gate was empty.
    pressed_since: Option<Instant>,
    /// The second that is under way began here.
    begun: Instant,
    /// Rows drained in it.
    drained: usize,
    /// Rows drained in the second before.
    drained_before: usize,
}

impl EffectiveCredit {
    /// All of `limit`.
    pub fn new(limit: Credit) -> Self {
        Self { limit, pressed_since: None, begun: Instant::ZERO, drained: 0, drained_before: 0 }
    }

    /// What may wait at the time `now`.
    pub fn at(&mut self, now: Instant) -> Credit {
        self.roll(now);
        match self.pressed_since {
            Some(since) if now.saturating_sub(since) >= WATCHED => {
                let drained = self.drained.max(self.drained_before).max(1);
                Credit { rows_max: self.limit.rows_max.min(drained), ..self.limit }
            }
            _ => self.limit,
        }
    }

    /// A sender was refused.
    pub fn refused(&mut self, now: Instant) {
        self.pressed_since.get_or_insert(now);
    }

    /// The receiver took rows; `is_empty`: they were the last.
    pub fn drained(&mut self, rows: usize, is_empty: bool, now: Instant) {
        self.roll(now);
        self.drained += rows;
        if is_empty {
            self.pressed_since = None;
        }
    }

    fn roll(&mut self, now: Instant) {
        let passed = now.saturating_sub(self.begun);
        if passed >= WATCHED {
            self.drained_before = if passed < 2 * WATCHED { self.drained } else { 0 };
            self.drained = 0;
            self.begun = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Instant {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn under_backpressure_a_second_of_work_may_wait() {
        let limit = Credit::default();
        let mut credit = EffectiveCredit::new(limit);
        credit.refused(seconds(1.0));
        for tenth in 10..40 {
            credit.drained(30, false, seconds(f64::from(tenth) / 10.0));
        }
        assert_eq!(credit.at(seconds(3.95)).rows_max, 300);
        assert_eq!(credit.at(seconds(3.95)).bytes_max, limit.bytes_max);
        credit.drained(30, true, seconds(4.0));
        assert_eq!(credit.at(seconds(4.0)), limit, "out of work: all of it at once");
    }

    #[test]
    fn a_fast_receiver_and_the_first_second_keep_the_bound() {
        let mut credit = EffectiveCredit::new(Credit::default());
        credit.refused(seconds(1.0));
        assert_eq!(credit.at(seconds(1.9)), Credit::default());
        for tenth in 10..30 {
            credit.drained(50_000, false, seconds(f64::from(tenth) / 10.0));
        }
        assert_eq!(credit.at(seconds(3.0)), Credit::default());
    }

    #[test]
    fn who_takes_nothing_gets_one_batch() {
        let mut credit = EffectiveCredit::new(Credit::default());
        credit.refused(seconds(1.0));
        assert_eq!(credit.at(seconds(60.0)).rows_max, 1);
    }
}
