//! Verdicts: what one run came to, and many runs added up.

use std::fmt;

use crate::bug::Bug;
use crate::scenario::Scenario;

/// What is wrong with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// A sink shows other rows than it must.
    WrongRows,
    /// The rows are right, but not in their order.
    WrongOrder,
    /// A sink shows a change that does not fit the table before it, or a table that should never be.
    WrongChanges,
    /// Rows read or late rows were counted wrongly.
    WrongCounts,
    /// Nothing happens any more.
    Stuck,
    /// A job failed though nothing was done to it.
    UnexpectedError,
    /// A sink was misused.
    Violation,
    /// Something is staged for ever.
    Leftovers,
    /// A process that was replaced made a checkpoint.
    NotFenced,
    /// A checkpoint that must be whole is not, or damage went unseen.
    Checkpoint,
    /// The same seed came to something else the second time.
    NotReplayed,
    /// Something panicked.
    Panic,
}

/// What is wrong with a run, and what tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What.
    pub kind: FailureKind,
    /// In words.
    pub detail: String,
}

impl Failure {
    /// A failure of `kind`.
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.detail)
    }
}

/// What happened in runs, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runs.
    pub seeds: u64,
    /// Runs that failed.
    pub failures: u64,
    /// Steps of jobs.
    pub steps: u64,
    /// Checkpoints completed, by all jobs.
    pub checkpoints: u64,
    /// Of those, with rows that a barrier had overtaken.
    pub overtaken: u64,
    /// Processes killed, and of those by a power cut.
    pub crashes: u64,
    /// Crashes by power cut.
    pub power_cuts: u64,
    /// Crashes of runs that had completed a checkpoint before.
    pub crashes_after_checkpoint: u64,
    /// Runs with such a crash.
    pub seeds_with_crash_after_checkpoint: u64,
    /// Jobs that failed by an error of disk or sink.
    pub io_failures: u64,
    /// Jobs that stopped at a checkpoint.
    pub stops: u64,
    /// Jobs that went on from a checkpoint.
    pub restores: u64,
    /// Of those, from an older one because the newest was damaged.
    pub fallbacks: u64,
    /// Processes that went on beside their successor, and were fenced.
    pub zombies_fenced: u64,
    /// Savepoints with which jobs stopped, and from which the next began.
    pub savepoints: u64,
}

impl Stats {
    fn fields(&mut self) -> [&mut u64; 15] {
        [
            &mut self.seeds,
            &mut self.failures,
            &mut self.steps,
            &mut self.checkpoints,
            &mut self.overtaken,
            &mut self.crashes,
            &mut self.power_cuts,
            &mut self.crashes_after_checkpoint,
            &mut self.seeds_with_crash_after_checkpoint,
            &mut self.io_failures,
            &mut self.stops,
            &mut self.restores,
            &mut self.fallbacks,
            &mut self.zombies_fenced,
            &mut self.savepoints,
        ]
    }
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, mut other: Self) {
        for (mine, others) in self.fields().into_iter().zip(other.fields()) {
            *mine += *others;
        }
    }
}

/// What one run came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which scenario.
    pub scenario: Scenario,
    /// Which seed.
    pub seed: u64,
    /// The bug that was planted.
    pub bug: Option<Bug>,
    /// What is wrong.
    pub failure: Option<Failure>,
    /// What happened.
    pub stats: Stats,
    /// The fingerprint of all that happened.
    pub trace: u64,
}

impl Report {
    /// The command that repeats this run.
    pub fn replay(&self) -> String {
        let bug = self.bug.map(|bug| format!(" --bug {bug}")).unwrap_or_default();
        format!("cargo run -p ruslo-sim -- --scenario {} --seed {}{bug}", self.scenario.name(), self.seed)
    }
}

/// Runs of one scenario in a line, under the names of [`HEADER`].
pub fn line(name: &str, stats: &Stats, seconds: f64) -> String {
    format!(
        "{name:<14}{:>7}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>8}{:>7}{:>9}{:>9}{:>8}{:>9.1}",
        stats.seeds,
        stats.failures,
        stats.checkpoints,
        stats.crashes,
        stats.power_cuts,
        stats.crashes_after_checkpoint,
        stats.seeds_with_crash_after_checkpoint,
        stats.io_failures,
        stats.stops,
        stats.restores,
        stats.fallbacks,
        stats.zombies_fenced,
        seconds
    )
}

/// What stands in a [`line()`].
pub const HEADER: &str = "scenario        seeds   failed  checkpt  crashes  powercut aft.ckpt  seeds-w.  ioerrs  stops restores fallback zombies  seconds";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_add_up_field_by_field() {
        let one = Stats { seeds: 1, zombies_fenced: 2, crashes: 3, ..Stats::default() };
        let mut sum = one;
        sum += one;
        assert_eq!(sum, Stats { seeds: 2, zombies_fenced: 4, crashes: 6, ..Stats::default() });
    }

    #[test]
    fn a_failure_is_replayed_by_one_line() {
        let report = Report {
            scenario: Scenario::LateRows,
            seed: 7,
            bug: Bug::named("NoAbort"),
            failure: None,
            stats: Stats::default(),
            trace: 0,
        };
        assert_eq!(report.replay(), "cargo run -p ruslo-sim -- --scenario late_rows --seed 7 --bug NoAbort");
    }
}
