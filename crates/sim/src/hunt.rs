//! The harness tested by itself: bugs are planted, and must be caught.

use crate::bug::Bug;
use crate::report::Report;
use crate::run::run;

/// The first run that fails with `bug` planted, and how many were needed: all scenarios in which
/// it may show in turn, seed by seed.
pub fn hunt(bug: Bug, seeds_max: u64) -> Option<(Report, u64)> {
    let scenarios = bug.scenarios();
    let runs = (0..seeds_max).flat_map(|seed| scenarios.iter().map(move |scenario| (*scenario, seed)));
    for (count, (scenario, seed)) in (1..).zip(runs) {
        let report = run(scenario, seed, Some(bug));
        if report.failure.is_some() {
            return Some((report, count));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planted_bug_is_caught() {
        let free: Vec<_> = Bug::all().filter(|bug| hunt(*bug, 100).is_none()).collect();
        assert!(free.is_empty(), "not caught: {free:?}");
    }
}
