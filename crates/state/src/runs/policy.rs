//! Which runs to merge: size-tiered, and never more than a bounded number of runs.

use std::ops::Range;

/// Runs of one tier that are merged.
const WIDTH: usize = 10;

/// Runs that are left at most.
pub(crate) const RUNS_MAX: usize = 20;

/// Neighbours that are merged at least when there are too many runs.
const NEIGHBOURS_MIN: usize = 4;

fn tier(bytes: u64) -> u32 {
    (bytes >> 16).checked_ilog(8).map_or(0, |tier| tier + 1)
}

/// Which of the runs to merge, given their sizes in bytes, newest first; `None`, if none.
pub(crate) fn choose(bytes: &[u64]) -> Option<Range<usize>> {
    let full = full_tier(bytes).map(|end| 0..grown(bytes, end));
    full.or_else(|| (bytes.len() > RUNS_MAX).then(|| cheapest(bytes)))
}

/// How many of the youngest runs are up to a tier that is full.
fn full_tier(bytes: &[u64]) -> Option<usize> {
    let tiers: Vec<_> = bytes.iter().map(|bytes| tier(*bytes)).collect();
    let highest = tiers.iter().copied().max().unwrap_or_default();
    (0..=highest).find_map(|tier| {
        let young = tiers.iter().take_while(|other| **other <= tier).count();
        let width = tiers.iter().take(young).filter(|other| **other == tier).count();
        (width >= WIDTH).then_some(young)
    })
}

/// The youngest `end` runs; all, if the lowest is no larger than what lies above it.
fn grown(bytes: &[u64], end: usize) -> usize {
    match bytes.split_last() {
        Some((lowest, above)) if *lowest <= above.iter().sum() => bytes.len(),
        _ => end,
    }
}

/// The neighbours that cost least for each run that there is less afterwards.
fn cheapest(bytes: &[u64]) -> Range<usize> {
    let costs = (NEIGHBOURS_MIN..=bytes.len()).flat_map(|width| {
        bytes.windows(width).enumerate().map(move |(start, window)| {
            let cost = window.iter().sum::<u64>() / (width as u64 - 1);
            (cost, start..start + width)
        })
    });
    costs.min_by_key(|(cost, range)| (*cost, range.start)).map_or(0..bytes.len(), |(_, range)| range)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn ten_of_a_tier_become_one_and_take_the_smaller_ones_before_them_along() {
        assert_eq!(choose(&[MIB; 9]), None);
        assert_eq!(choose(&[MIB; 10]), Some(0..10));
        let mut runs = vec![1; 3];
        runs.extend([MIB; 10]);
        runs.push(30 * MIB);
        runs.push(900 * MIB);
        assert_eq!(choose(&runs), Some(0..13));
    }

    #[test]
    fn the_lowest_run_is_rewritten_when_as_much_lies_above_it() {
        let mut runs = vec![MIB; 10];
        runs.push(11 * MIB);
        assert_eq!(choose(&runs), Some(0..10));
        runs[10] = 10 * MIB;
        assert_eq!(choose(&runs), Some(0..11));
    }

    /// 1 % of a table of 10 GiB a round, none of it garbage: the worst case for what is merged.
    #[test]
    fn a_percent_a_round_costs_two_and_a_half_and_reads_few_runs() {
        let (base, delta) = (10_000 * MIB, 100 * MIB);
        let mut runs = vec![base];
        let (mut written, mut most) = (0, 0);
        for _ in 0..50 {
            runs.insert(0, delta);
            written += delta;
            while let Some(range) = choose(&runs) {
                let sum: u64 = runs.drain(range.clone()).sum();
                runs.insert(range.start, sum);
                written += sum;
            }
            most = most.max(runs.len());
        }
        assert!(written * 10 <= delta * 50 * 25, "{}", written / MIB);
        assert!(most <= RUNS_MAX, "{most}");
    }

    #[test]
    fn there_are_never_more_than_twenty_runs() {
        for delta in [1, MIB / 3, MIB, 30 * MIB] {
            let mut runs: Vec<u64> = vec![100_000 * MIB];
            let mut written = 0;
            for _ in 0..3_000 {
                runs.insert(0, delta);
                while let Some(range) = choose(&runs) {
                    let sum = runs.drain(range.clone()).sum();
                    runs.insert(range.start, sum);
                    written += sum;
                }
                assert!(runs.len() <= RUNS_MAX);
            }
            assert!(written <= 3_000 * delta * 7 + 3_000 * (64 << 10), "{delta}: {}", written / delta / 3_000);
        }
    }
}
