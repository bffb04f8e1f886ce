//! Whether a job that failed is started again, and when: the restart strategies of [`ruslo_sql::RestartSettings`].
//!
//! A strategy is asked after each failure, with the time; it has no clock of its own and waits for nothing. Only what a
//! second try may mend is tried again: see [`may_mend`].

use std::collections::VecDeque;
use std::time::Duration;

use ruslo_connectors::print::is_console_closed;
use ruslo_core::clock::Instant;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, ErrorKind};
use ruslo_core::memory::is_limit_reached;
use ruslo_core::rng::Rng;
use ruslo_sql::{RestartKind, RestartSettings};

/// A strategy, and the failures that it remembers.
pub(crate) struct RestartStrategy {
    settings: RestartSettings,
    kind: RestartKind,
    rng: Rng,
    /// Restarts so far; with growing delays those since the delay was the first one.
    restarts: usize,
    /// When it last failed.
    last: Option<Instant>,
    /// The next delay, where delays grow.
    backoff: Duration,
    /// Failures of the last interval, where their rate counts.
    recent: VecDeque<Instant>,
    /// If the last failure was the memory limit: the last checkpoint that was complete then, if any was.
    short_of_memory: Option<Option<Epoch>>,
}

impl RestartStrategy {
    /// The strategy of `settings`, which is `default` if they do not say. What is left to chance follows from `rng`.
    pub(crate) fn new(settings: RestartSettings, default: RestartKind, rng: Rng) -> Self {
        let kind = settings.kind.unwrap_or(default);
        let backoff = settings.backoff_initial;
        Self { settings, kind, rng, restarts: 0, last: None, backoff, recent: VecDeque::new(), short_of_memory: None }
    }

    /// After a failure at `now`: how long to wait before the next start; none, if there is to be none.
    pub(crate) fn after(&mut self, error: &Error, now: Instant) -> Option<Duration> {
        if !may_mend(error) {
            return None;
        }
        let delay = match self.kind {
            RestartKind::None => None,
            RestartKind::FixedDelay => self.within(Some(self.settings.fixed_attempts), self.settings.fixed_delay),
            RestartKind::FailureRate => self.while_rare(now),
            RestartKind::ExponentialDelay => self.growing(now),
        };
        self.last = Some(now);
        delay
    }

    /// Notes a failure behind the complete checkpoint `last`: whether it is the memory limit once more, with no checkpoint
    /// since the last time. The same rows would reach it again, however often.
    pub(crate) fn is_stuck(&mut self, error: &Error, last: Option<Epoch>) -> bool {
        let now = is_limit_reached(error).then_some(last);
        let before = std::mem::replace(&mut self.short_of_memory, now);
        now.is_some() && now == before
    }

    fn within(&mut self, most: Option<usize>, delay: Duration) -> Option<Duration> {
        if most.is_some_and(|most| self.restarts >= most) {
            return None;
        }
        self.restarts += 1;
        Some(delay)
    }

    fn while_rare(&mut self, now: Instant) -> Option<Duration> {
        self.recent.push_back(now);
        let is_old = |at: &Instant| now.saturating_sub(*at) >= self.settings.rate_interval;
        while self.recent.front().is_some_and(is_old) {
            self.recent.pop_front();
        }
        (self.recent.len() <= self.settings.rate_failures_max).then_some(self.settings.rate_delay)
    }

    fn growing(&mut self, now: Instant) -> Option<Duration> {
        if self.last.is_some_and(|last| now.saturating_sub(last) >= self.settings.backoff_reset) {
            (self.restarts, self.backoff) = (0, self.settings.backoff_initial);
        }
        let delay = self.within(self.settings.backoff_attempts, self.backoff.min(self.settings.backoff_max))?;
        self.backoff = scaled(delay, self.settings.backoff_multiplier_milli).min(self.settings.backoff_max);
        Some(self.jittered(delay).min(self.settings.backoff_max))
    }

    /// Jobs that failed together are not started together again.
    fn jittered(&mut self, delay: Duration) -> Duration {
        let jitter = self.settings.backoff_jitter_milli.min(1_000);
        let milli = 1_000 - jitter + u32::try_from(self.rng.below(2 * jitter as usize + 1)).unwrap_or_default();
        scaled(delay, milli)
    }
}

fn scaled(delay: Duration, milli: u32) -> Duration {
    delay.checked_mul(milli).map_or(Duration::MAX, |delay| delay / 1_000)
}

/// Whether the same job may succeed if it goes on from its last checkpoint: not where the user, the data or stored bytes
/// are at fault, nor where another process has the job or nobody reads its output any more.
pub(crate) fn may_mend(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Resource | ErrorKind::Internal => !is_console_closed(error),
        ErrorKind::Usage | ErrorKind::Data | ErrorKind::Corrupt | ErrorKind::Fenced => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn strategy(kind: RestartKind, change: impl FnOnce(&mut RestartSettings)) -> RestartStrategy {
        let mut settings = RestartSettings { kind: Some(kind), backoff_jitter_milli: 0, ..RestartSettings::default() };
        change(&mut settings);
        RestartStrategy::new(settings, RestartKind::None, Rng::seeded(1))
    }

    /// The delays after failures at these seconds, in milliseconds.
    fn delays(mut strategy: RestartStrategy, failures: &[u64]) -> Vec<Option<u128>> {
        let error = Error::unavailable("broker");
        let after = |at: &u64| strategy.after(&error, SECOND * *at as u32).map(|delay| delay.as_millis());
        failures.iter().map(after).collect()
    }

    #[test]
    fn none_is_never() {
        assert_eq!(delays(strategy(RestartKind::None, |_| ()), &[1]), [None]);
    }

    #[test]
    fn a_fixed_delay_comes_so_many_times_whenever() {
        let fixed = strategy(RestartKind::FixedDelay, |settings| settings.fixed_attempts = 2);
        assert_eq!(delays(fixed, &[1, 90_000, 180_000]), [Some(1_000), Some(1_000), None]);
    }

    #[test]
    fn a_growing_delay_has_a_bound_and_begins_anew_after_a_quiet_time() {
        let growing = strategy(RestartKind::ExponentialDelay, |settings| settings.backoff_max = SECOND * 3);
        let expected = [1_000, 1_500, 2_250, 3_000, 3_000, 1_000].map(Some);
        assert_eq!(delays(growing, &[1, 2, 3, 4, 5, 3_605]), expected);
        let few = strategy(RestartKind::ExponentialDelay, |settings| settings.backoff_attempts = Some(2));
        assert_eq!(delays(few, &[1, 2, 3]), [Some(1_000), Some(1_500), None]);
    }

    #[test]
    fn chance_moves_a_growing_delay_by_its_part_only() {
        let jitter = |settings: &mut RestartSettings| {
            (settings.backoff_jitter_milli, settings.backoff_multiplier_milli) = (250, 1_000);
        };
        let delays = delays(strategy(RestartKind::ExponentialDelay, jitter), &Vec::from_iter(0..200));
        let delays = Vec::from_iter(delays.into_iter().flatten());
        assert!(delays.iter().all(|delay| (750..=1_250).contains(delay)), "{delays:?}");
        assert!(delays.iter().any(|delay| *delay < 850) && delays.iter().any(|delay| *delay > 1_150), "{delays:?}");
    }

    #[test]
    fn a_rate_counts_the_failures_of_the_interval() {
        let rate = strategy(RestartKind::FailureRate, |settings| settings.rate_failures_max = 2);
        assert_eq!(delays(rate, &[0, 30, 70, 80]), [Some(1_000), Some(1_000), Some(1_000), None]);
    }

    #[test]
    fn only_what_a_second_try_may_mend_is_tried_again() {
        let again = |error: Error| strategy(RestartKind::FixedDelay, |_| ()).after(&error, SECOND).is_some();
        assert!(again(Error::unavailable("x")) && again(Error::resource("x")) && again(Error::internal("x")));
        for error in [Error::usage("x"), Error::data("x"), Error::corrupt("x"), Error::fenced("x")] {
            assert!(!again(error.clone()), "{error}");
        }
    }

    #[test]
    fn the_memory_limit_twice_without_a_checkpoint_between_is_the_end() {
        let pool = ruslo_core::memory::MemoryPool::new(1);
        let limit = pool.reserve("x").resize(2).unwrap_err();
        let (disk, broker) = (Error::resource("the disk is full"), Error::unavailable("broker"));
        let failures = [
            (&limit, None, false),
            (&limit, Some(Epoch(3)), false),
            (&limit, Some(Epoch(4)), false),
            (&broker, Some(Epoch(4)), false),
            (&disk, Some(Epoch(4)), false),
            (&disk, Some(Epoch(4)), false),
            (&limit, Some(Epoch(4)), false),
            (&limit, Some(Epoch(4)), true),
        ];
        let mut strategy = strategy(RestartKind::ExponentialDelay, |_| ());
        for (error, last, expected) in failures {
            assert_eq!(strategy.is_stuck(error, last), expected, "{error} behind {last:?}");
        }
        assert!(strategy.is_stuck(&limit, Some(Epoch(4))));
    }

    #[test]
    fn who_says_nothing_gets_the_default() {
        let of = |default| RestartStrategy::new(RestartSettings::default(), default, Rng::seeded(1));
        let error = Error::unavailable("x");
        assert_eq!(of(RestartKind::None).after(&error, SECOND), None);
        assert!(of(RestartKind::ExponentialDelay).after(&error, SECOND).is_some());
    }
}
