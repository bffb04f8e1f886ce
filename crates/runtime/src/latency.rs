//! How long rows have been in the stream when an operator takes them: a histogram of the last minute.
//!
//! A batch is as old as the oldest source row that went into it, since its source read it; a window's result is as old
//! as the watermark that completed it.
//!
//! The operator's task records, once a batch, and nobody ever holds it up: there is no lock. Who reads while a period ends
//! may see a part of one; these are figures for people.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use ruslo_core::clock::Instant;

/// How long a histogram is filled before the next one is begun: what is told is of one to two of these.
const PERIOD: Duration = Duration::from_secs(30);
/// Significant digits of what is told.
const DIGITS: u8 = 2;
/// One hour; what takes longer counts as that.
const MICROS_MAX: u64 = 3_600_000_000;
/// How many binary digits of a value tell its bucket: each power of two has 64, which are at most 1.6 % wide.
const BITS: u32 = 7;
/// Of all values up to [`MICROS_MAX`].
const BUCKETS: usize = bucket(MICROS_MAX) + 1;

/// The ages of the batches that an operator subtask took lately, in microseconds. One task writes, anybody may read.
#[derive(Debug, Default)]
pub struct Latency {
    /// The period under way, and the one before it, in turn.
    periods: [Period; 2],
    /// Which period it is, from 1 on; 0 is before the first batch.
    number: AtomicU64,
    /// When it began, in nanoseconds.
    begun: AtomicU64,
}

/// How many batches of which age.
#[derive(Debug)]
struct Period(Box<[AtomicU32]>);

impl Latency {
    /// A batch was taken at `now` that a source had read at `born`. For the operator's own task only.
    pub fn record(&self, born: Instant, now: Instant) {
        self.turn(now);
        let micros = u64::try_from(now.saturating_sub(born).as_micros()).unwrap_or(MICROS_MAX);
        let [even, odd] = &self.periods;
        let period = if self.number.load(Ordering::Relaxed).is_multiple_of(2) { even } else { odd };
        if let Some(count) = period.0.get(bucket(micros.min(MICROS_MAX))) {
            // Nobody else writes, so that nothing can come between.
            count.store(count.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
        }
    }

    /// Begins a new period, if it is time.
    fn turn(&self, now: Instant) {
        let (number, age) = (self.number.load(Ordering::Relaxed), self.age(now));
        if number > 0 && age < PERIOD {
            return;
        }
        let [even, odd] = &self.periods;
        let (next, before) = if number.is_multiple_of(2) { (odd, even) } else { (even, odd) };
        next.clear();
        if age >= PERIOD * 2 {
            before.clear();
        }
        self.begun.store(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.number.store(number + 1, Ordering::Relaxed);
    }

    /// How long ago the period began.
    fn age(&self, now: Instant) -> Duration {
        now.saturating_sub(Duration::from_nanos(self.begun.load(Ordering::Relaxed)))
    }

    /// Adds what was recorded lately to `sum`.
    pub fn add_to(&self, sum: &mut Histogram<u64>, now: Instant) {
        let (number, age) = (self.number.load(Ordering::Relaxed), self.age(now));
        let [even, odd] = &self.periods;
        let (current, before) = if number.is_multiple_of(2) { (even, odd) } else { (odd, even) };
        if age < PERIOD * 2 {
            current.add_to(sum);
        }
        if age < PERIOD {
            before.add_to(sum);
        }
    }
}

impl Default for Period {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| AtomicU32::new(0)).collect())
    }
}

impl Period {
    fn clear(&self) {
        self.0.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }

    fn add_to(&self, sum: &mut Histogram<u64>) {
        for (bucket, count) in self.0.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                sum.saturating_record_n(middle(bucket).clamp(1, MICROS_MAX), count.into());
            }
        }
    }
}

/// The bucket of a value: how many binary digits are cut off, and the [`BITS`] that are left.
const fn bucket(micros: u64) -> usize {
    let exponent = (micros | ((1 << BITS) - 1)).ilog2() + 1 - BITS;
    ((exponent as usize) << BITS) + (micros >> exponent) as usize
}

/// The value in the middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let exponent = (bucket >> BITS) as u32;
    let from = (bucket & ((1 << BITS) - 1)) as u64;
    (from << exponent) + (1 << exponent) / 2
}

/// The ages at which a half and 99 of 100 batches were taken lately, over several subtasks; none, if none was.
pub fn quantiles<'a>(latencies: impl Iterator<Item = &'a Latency>, now: Instant) -> Option<(Duration, Duration)> {
    let mut sum = Histogram::new_with_bounds(1, MICROS_MAX, DIGITS).ok()?;
    latencies.for_each(|latency| latency.add_to(&mut sum, now));
    let at = |quantile| Duration::from_micros(sum.value_at_quantile(quantile));
    (!sum.is_empty()).then(|| (at(0.5), at(0.99)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(latency: &Latency, now: Duration) -> Option<(u128, u128)> {
        quantiles([latency].into_iter(), now).map(|(half, most)| (half.as_millis(), most.as_millis()))
    }

    #[test]
    fn quantiles_are_of_what_was_taken_lately() {
        let (latency, second) = (Latency::default(), Duration::from_secs(1));
        assert_eq!(both(&latency, second), None);
        for millis in 1..=100 {
            latency.record(second, second + Duration::from_millis(millis));
        }
        let (half, most) = both(&latency, second).unwrap();
        assert!((49..=51).contains(&half) && (98..=100).contains(&most), "{half} {most}");
        assert!(both(&latency, second * 40).is_some(), "in the period after, it still counts");
        assert_eq!(both(&latency, second * 200), None, "and then no more");
    }

    #[test]
    fn a_bucket_is_narrow_and_none_is_beyond_the_last() {
        let mut last = 0;
        for micros in (0..5_000).chain((13..32).map(|power| (1 << power) - 1)).chain([MICROS_MAX]) {
            let bucket = bucket(micros);
            assert!(bucket >= last && bucket < BUCKETS, "{micros}");
            last = bucket;
            assert!(middle(bucket).abs_diff(micros) * 100 <= micros, "{micros}: {}", middle(bucket));
        }
    }

    #[test]
    fn each_batch_counts_once_while_others_look() {
        let latency = Latency::default();
        let count = |now| {
            let mut sum = Histogram::new_with_bounds(1, MICROS_MAX, DIGITS).unwrap();
            latency.add_to(&mut sum, now);
            sum.len()
        };
        std::thread::scope(|scope| {
            scope
                .spawn(|| (0..10_000u64).for_each(|nanos| latency.record(Duration::ZERO, Duration::from_nanos(nanos))));
            let mut before = 0;
            while before < 10_000 {
                let now = count(Duration::from_nanos(10_000));
                assert!(now >= before);
                before = now;
            }
        });
        let second = Duration::from_secs(1);
        latency.record(Duration::ZERO, second * 31);
        assert_eq!((count(second * 31), count(second * 62), count(second * 92)), (10_001, 1, 0));
    }

    #[test]
    fn what_takes_for_ever_counts_as_an_hour() {
        let latency = Latency::default();
        latency.record(Duration::ZERO, Duration::from_secs(1_000_000));
        assert_eq!(both(&latency, Duration::from_secs(1_000_000)).map(|(half, _)| half / 100_000), Some(36));
    }
}
