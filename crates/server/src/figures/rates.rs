//! Rates: what grew by how much a second, over the last few seconds.

use std::collections::VecDeque;
use std::time::Duration;

use ruslo::core::clock::Instant;

/// How far back a rate looks.
const OVER: Duration = Duration::from_secs(5);

/// Totals as they were at several times, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    samples: VecDeque<(Instant, Vec<f64>)>,
}

impl Samples {
    /// Adds the totals of now and forgets those that no rate looks at.
    pub(crate) fn add(&mut self, now: Instant, totals: Vec<f64>) {
        self.samples.push_back((now, totals));
        let is_old =
            |sample: Option<&(Instant, Vec<f64>)>| sample.is_some_and(|(at, _)| now.saturating_sub(*at) >= OVER);
        while is_old(self.samples.get(1)) {
            self.samples.pop_front();
        }
    }

    /// How much each of `totals` grew a second; nothing before the first sample.
    pub(crate) fn rates(&self, now: Instant, totals: &[f64]) -> Vec<f64> {
        let Some((at, before)) = self.samples.front() else { return vec![0.0; totals.len()] };
        let seconds = now.saturating_sub(*at).as_secs_f64();
        let grown = totals.iter().zip(before).map(|(total, before)| (total - before).max(0.0));
        grown.map(|grown| if seconds > 0.0 { grown / seconds } else { 0.0 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_seconds() {
        let mut samples = Samples::default();
        assert_eq!(samples.rates(OVER, &[3.0]), [0.0]);
        for second in 0..=20 {
            let total = if second < 10 { 100.0 * second as f64 } else { 1_000.0 };
            samples.add(Duration::from_secs(second), vec![total, second as f64]);
        }
        assert_eq!(samples.rates(Duration::from_secs(20), &[1_000.0, 20.0]), [0.0, 1.0]);
        assert!(samples.samples.len() <= 7);
    }
}
