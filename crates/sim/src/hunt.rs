//! The harness tested by itself: bugs are planted, and must be caught.

use ruslo_runtime::planted::Bug;

use crate::report::Report;
use crate::run::run;
use crate::scenario::Scenario;

/// The first run that fails with `bug` planted, and how many were needed: all scenarios in turn, seed by seed.
pub fn hunt(bug: Bug, seeds_max: u64) -> Option<(Report, u64)> {
    let runs = (0..seeds_max).flat_map(|seed| Scenario::ALL.map(|scenario| (scenario, seed)));
    for (count, (scenario, seed)) in (1..).zip(runs) {
        let report = run(scenario, seed, Some(bug));
        if report.failure.is_some() {
            return Some((report, count));
        }
    }
    None
}

/// The bug of that name.
pub fn bug_named(name: &str) -> Option<Bug> {
    Bug::ALL.into_iter().find(|bug| format!("{bug:?}") == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_planted_bug_is_caught() {
        let free: Vec<_> = Bug::ALL.into_iter().filter(|bug| hunt(*bug, 40).is_none()).collect();
        assert!(free.is_empty(), "not caught: {free:?}");
    }

    #[test]
    fn bugs_have_names() {
        assert_eq!(bug_named("NoAbort"), Some(Bug::NoAbort));
        assert_eq!(bug_named("nothing"), None);
    }
}
