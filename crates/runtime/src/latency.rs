//! How long rows have been in the stream when an operator takes them: a histogram of the last minute.
//!
//! A batch is as old as the oldest source row that went into it, since its source read it; a window's result is as old
//! as the watermark that completed it.

use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;
use ruslo_core::clock::Instant;

use crate::scheduler::lock;

/// How long a histogram is filled before the next one is begun: what is told is of one to two of these.
const PERIOD: Duration = Duration::from_secs(30);
/// Significant digits.
const DIGITS: u8 = 2;
/// One hour; what takes longer counts as that.
const MICROS_MAX: u64 = 3_600_000_000;

/// The ages of the batches that an operator subtask took lately, in microseconds.
#[derive(Debug, Default)]
pub struct Latency(Mutex<Option<Periods>>);

#[derive(Debug)]
struct Periods {
    begun: Instant,
    current: Histogram<u32>,
    previous: Histogram<u32>,
}

impl Latency {
    /// A batch was taken at `now` that a source had read at `born`.
    pub fn record(&self, born: Instant, now: Instant) {
        let mut periods = lock(&self.0);
        if periods.is_none() {
            *periods = Periods::new(now);
        }
        if let Some(periods) = periods.as_mut() {
            periods.turn(now);
            let micros = u64::try_from(now.saturating_sub(born).as_micros()).unwrap_or(MICROS_MAX);
            periods.current.saturating_record(micros.clamp(1, MICROS_MAX));
        }
    }

    /// Adds what was recorded lately to `sum`.
    pub fn add_to(&self, sum: &mut Histogram<u32>, now: Instant) {
        if let Some(periods) = lock(&self.0).as_mut() {
            periods.turn(now);
            for part in [&periods.current, &periods.previous] {
                // Both have the same bounds, so that nothing can be out of them.
                let _ = sum.add(part);
            }
        }
    }
}

/// The ages at which a half and 99 of 100 batches were taken lately, over several subtasks; none, if none was.
pub fn quantiles<'a>(latencies: impl Iterator<Item = &'a Latency>, now: Instant) -> Option<(Duration, Duration)> {
    let mut sum = histogram()?;
    latencies.for_each(|latency| latency.add_to(&mut sum, now));
    let at = |quantile| Duration::from_micros(sum.value_at_quantile(quantile));
    (!sum.is_empty()).then(|| (at(0.5), at(0.99)))
}

fn histogram() -> Option<Histogram<u32>> {
    Histogram::new_with_bounds(1, MICROS_MAX, DIGITS).ok()
}

impl Periods {
    fn new(now: Instant) -> Option<Self> {
        Some(Self { begun: now, current: histogram()?, previous: histogram()? })
    }

    fn turn(&mut self, now: Instant) {
        let age = now.saturating_sub(self.begun);
        if age >= PERIOD {
            std::mem::swap(&mut self.current, &mut self.previous);
            self.current.reset();
            if age >= PERIOD * 2 {
                self.previous.reset();
            }
            self.begun = now;
        }
    }
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
    fn what_takes_for_ever_counts_as_an_hour() {
        let latency = Latency::default();
        latency.record(Duration::ZERO, Duration::from_secs(1_000_000));
        assert_eq!(both(&latency, Duration::from_secs(1_000_000)).map(|(half, _)| half / 100_000), Some(36));
    }
}
