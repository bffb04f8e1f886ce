//! One run: attempts until the input is read to its end, and the verdict.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ruslo_core::error::{Error, ErrorKind};
use ruslo_core::rng::Rng;
use ruslo_runtime::alignment::Alignment;
use ruslo_runtime::coordinator::Outcome;

use crate::attempt::{Attempt, Origin, Stepped, World};
use crate::bug::{Bug, with_bug};
use crate::damage::{Damaged, damage_newest, unexpected};
use crate::faults::Plan;
use crate::files;
use crate::oracle::{difference, imbalance, not_one_of_each, shortage};
use crate::process::Process;
use crate::report::{Failure, FailureKind, Report, Stats};
use crate::scenario::{Scenario, Setup};
use crate::sink::OutRow;
use crate::trace::Trace;

/// More attempts than faults can explain.
const ATTEMPTS_MAX: usize = 30;

/// How long a replaced process is watched after its successor has ended.
const ZOMBIE_STEPS_MAX: u64 = 100_000;

/// Runs `scenario` with `seed`, and `bug` planted if there is one.
pub fn run(scenario: Scenario, seed: u64, bug: Option<Bug>) -> Report {
    let mut rng = rng_of(scenario, seed);
    let setup = scenario.setup(&mut rng);
    run_setup(scenario, seed, bug, setup, rng)
}

/// Runs a seed twice; fails if the two differ in anything.
pub fn run_twice(scenario: Scenario, seed: u64, bug: Option<Bug>) -> Report {
    let (mut first, second) = (run(scenario, seed, bug), run(scenario, seed, bug));
    if first != second && first.failure.is_none() {
        let detail = format!("the trace is {:016x}, and then {:016x}", first.trace, second.trace);
        first.failure = Some(Failure::new(FailureKind::NotReplayed, detail));
        first.stats.failures = 1;
    }
    first
}

/// As [`run`], and prints everything that happens.
pub fn tell(scenario: Scenario, seed: u64, bug: Option<Bug>) -> Report {
    let mut rng = rng_of(scenario, seed);
    let setup = scenario.setup(&mut rng);
    println!("{:#?}\n{:?} {:?} {:?}", setup.shape, setup.config, setup.manners, setup.permanence);
    conclude(Run::new(setup, rng, Trace::new(true)), scenario, seed, bug)
}

fn rng_of(scenario: Scenario, seed: u64) -> Rng {
    Rng::seeded(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ scenario as u64)
}

/// Runs what a test has set up by itself.
pub fn run_setup(scenario: Scenario, seed: u64, bug: Option<Bug>, setup: Setup, rng: Rng) -> Report {
    conclude(Run::new(setup, rng, Trace::default()), scenario, seed, bug)
}

fn conclude(mut run: Run, scenario: Scenario, seed: u64, bug: Option<Bug>) -> Report {
    let result = with_bug(bug, || catch_unwind(AssertUnwindSafe(|| run.execute())));
    let failure = result.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))).err();
    let mut stats = run.stats;
    stats.seeds = 1;
    stats.failures = u64::from(failure.is_some());
    stats.seeds_with_crash_after_checkpoint = u64::from(stats.crashes_after_checkpoint > 0);
    Report { scenario, seed, bug, failure, stats, trace: run.world.trace.hash() }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Failure::new(FailureKind::Panic, text.unwrap_or("no message"))
}

struct Run {
    setup: Setup,
    rng: Rng,
    world: World,
    parallelism: Vec<usize>,
    /// Replaced processes that still run.
    zombies: Vec<Attempt>,
    /// The numbers of all that were ever replaced.
    replaced: Vec<u64>,
    /// How many names had been published when each process had its job running.
    started: Vec<(u64, usize)>,
    damaged: Vec<Damaged>,
    has_checkpoint: bool,
    /// Rows that the job that finished had counted as late.
    late: u64,
    /// Rows that it had counted as not shown again.
    in_doubt: u64,
    stats: Stats,
}

impl Run {
    fn new(setup: Setup, rng: Rng, trace: Trace) -> Self {
        Self {
            parallelism: Vec::new(),
            world: World::new(trace),
            zombies: Vec::new(),
            replaced: Vec::new(),
            started: Vec::new(),
            damaged: Vec::new(),
            has_checkpoint: false,
            late: 0,
            in_doubt: 0,
            stats: Stats::default(),
            setup,
            rng,
        }
    }

    fn execute(&mut self) -> Result<(), Failure> {
        for number in 0..ATTEMPTS_MAX {
            let faults = if number < self.setup.faulty_attempts { self.setup.faults.as_slice() } else { &[] };
            let plan = match self.setup.plans.get(number) {
                Some(plan) => plan.clone(),
                None => Plan::draw(faults, &mut self.rng),
            };
            if self.attempt(number as u64 + 1, plan)? {
                return self.judge();
            }
        }
        Err(Failure::new(FailureKind::Stuck, format!("not at the end after {ATTEMPTS_MAX} attempts")))
    }

    /// Whether the pipeline has finished.
    fn attempt(&mut self, number: u64, plan: Plan) -> Result<bool, Failure> {
        if let Some(broken) = unexpected(&self.world.machine, &self.damaged) {
            return Err(Failure::new(FailureKind::Checkpoint, broken));
        }
        if self.parallelism.is_empty() || self.setup.rescale {
            let same = self.rng.one_in(2).then(|| 1 + self.rng.below(3));
            let nodes = 0..self.setup.shape.nodes.len();
            self.parallelism = nodes.map(|_| same.unwrap_or_else(|| 1 + self.rng.below(3))).collect();
        }
        self.world.trace.tell(|| format!("process {number} at {:?}: {plan:?}", self.parallelism));
        let process = Arc::new(Process::new(number, plan.triggers_from_start()));
        let started = Attempt::start(
            &self.setup,
            &self.world,
            Arc::clone(&process),
            plan.clone(),
            &self.parallelism,
            &mut self.rng,
        );
        // Whether it was begun from or not: if not, the old run goes on from where it stopped.
        self.world.savepoint = None;
        if process.is_dead() {
            self.crash(&process, plan.power_cut);
            return Ok(false);
        }
        match started {
            Ok((attempt, origin)) => {
                self.check_origin(&origin)?;
                self.started.push((number, self.world.machine.published().len()));
                self.drive(attempt)
            }
            Err(error) => self.excuse(&process, plan.power_cut, &error).map(|()| false),
        }
    }

    fn drive(&mut self, mut attempt: Attempt) -> Result<bool, Failure> {
        loop {
            self.step_zombies()?;
            let stepped = attempt.step(&mut self.rng);
            self.has_checkpoint |= attempt.checkpoints > 0;
            if let Stepped::On = stepped {
                continue;
            }
            self.world.trace.tell(|| format!("after {} steps: {stepped:?}\n{:#?}", attempt.steps(), attempt.status()));
            self.stats.steps += attempt.steps();
            self.stats.checkpoints += attempt.checkpoints;
            self.stats.overtaken += attempt.overtaken;
            return match stepped {
                Stepped::On => Ok(false),
                Stepped::Killed => {
                    self.crash(&attempt.process, attempt.plan.power_cut);
                    Ok(false)
                }
                Stepped::Replaced => {
                    self.world.machine.release_locks(attempt.process.id);
                    self.replaced.push(attempt.process.id);
                    self.zombies.push(attempt);
                    Ok(false)
                }
                Stepped::Ended(Outcome::Finished) => self.check_counts(&attempt).map(|()| true),
                Stepped::Ended(Outcome::Stopped(_)) => {
                    self.stats.stops += 1;
                    self.world.savepoint = attempt.savepoint();
                    if self.world.savepoint.is_some() {
                        // What it wrote behind its last barrier is nobody's to show; whoever runs the job clears it away.
                        self.replaced.push(attempt.process.id);
                    }
                    self.stats.savepoints += u64::from(self.world.savepoint.is_some());
                    Ok(false)
                }
                Stepped::Failed(error) => self.excuse(&attempt.process, attempt.plan.power_cut, &error).map(|()| false),
                Stepped::Stuck(detail) => Err(Failure::new(FailureKind::Stuck, detail)),
            };
        }
    }

    /// An error is fine if something was made to fail; to make it worse, the power may go, too.
    fn excuse(&mut self, process: &Process, power_cut: bool, error: &Error) -> Result<(), Failure> {
        if error.kind() == ErrorKind::Resource && process.failed() == 0 && self.raise_memory_limit() {
            self.world.machine.release_locks(process.id);
            return Ok(());
        }
        if process.failed() == 0 || !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Resource) {
            return Err(Failure::new(FailureKind::UnexpectedError, format!("{:?}: {error}", error.kind())));
        }
        self.stats.io_failures += 1;
        if power_cut {
            self.crash(process, true);
        }
        self.world.machine.release_locks(process.id);
        Ok(())
    }

    /// Does what a job that has too little memory asks for. Whether that was not done too often.
    fn raise_memory_limit(&mut self) -> bool {
        let limit = &mut self.setup.config.memory_limit_bytes;
        *limit = limit.saturating_mul(2);
        *limit <= 8 * self.setup.shape.tight_memory_bytes()
    }

    fn crash(&mut self, process: &Process, power_cut: bool) {
        self.stats.crashes += 1;
        self.stats.crashes_after_checkpoint += u64::from(self.has_checkpoint);
        self.world.machine.release_locks(process.id);
        if power_cut {
            self.stats.power_cuts += 1;
            self.zombies.clear();
            self.world.machine.power_cut(&mut self.rng);
            let machine = &self.world.machine;
            self.damaged.retain(|damaged| machine.bytes(&damaged.manifest).is_some());
        }
        if self.setup.damage && !self.rng.one_in(3) {
            self.damaged.extend(damage_newest(&self.world.machine, &mut self.rng));
        }
    }

    /// Damage must have been seen, named, and gone round.
    fn check_origin(&mut self, origin: &Origin) -> Result<(), Failure> {
        self.stats.restores += u64::from(origin.epoch.is_some());
        let Some(damaged) = self.damaged.last().filter(|damaged| origin.epoch < Some(damaged.epoch)) else {
            return match self.damaged.iter().find(|damaged| Some(damaged.epoch) == origin.epoch) {
                Some(damaged) => Err(Failure::new(FailureKind::Checkpoint, format!("{damaged:?} went unseen"))),
                None => Ok(()),
            };
        };
        self.stats.fallbacks += 1;
        let name = damaged.file.to_str().unwrap();
        if origin.skipped.iter().any(|error| error.kind() == ErrorKind::Corrupt && error.to_string().contains(name)) {
            return Ok(());
        }
        Err(Failure::new(FailureKind::Checkpoint, format!("{name} was not named: {:?}", origin.skipped)))
    }

    fn step_zombies(&mut self) -> Result<(), Failure> {
        for index in (0..self.zombies.len()).rev() {
            if self.rng.one_in(2) {
                self.step_zombie(index)?;
            }
        }
        Ok(())
    }

    /// A replaced process may do what it likes, but not go on for ever.
    fn step_zombie(&mut self, index: usize) -> Result<(), Failure> {
        let zombie = &mut self.zombies[index];
        match zombie.step(&mut self.rng) {
            Stepped::On => Ok(()),
            Stepped::Killed => {
                self.zombies.remove(index);
                Ok(())
            }
            Stepped::Failed(error) => {
                self.stats.zombies_fenced += u64::from(error.kind() == ErrorKind::Fenced);
                self.zombies.remove(index);
                Ok(())
            }
            // It had made its last checkpoint before; that it makes none after is checked in the end.
            Stepped::Ended(_) => {
                self.zombies.remove(index);
                Ok(())
            }
            other => Err(Failure::new(FailureKind::NotFenced, format!("process {}: {other:?}", zombie.process.id))),
        }
    }

    fn check_counts(&mut self, attempt: &Attempt) -> Result<(), Failure> {
        let (found, mut expected) = (attempt.counted(), self.setup.expected.counted);
        let is_counted_again = self.setup.config.alignment == Alignment::AtLeastOnce && found.late >= expected.late;
        if self.setup.shape.falls_idle || is_counted_again {
            expected.late = found.late;
        }
        self.late = found.late;
        self.in_doubt = attempt.in_doubt();
        if found == expected {
            return Ok(());
        }
        let detail = format!("{found:?} instead of {expected:?}");
        Err(Failure::new(FailureKind::WrongCounts, detail))
    }

    fn judge(&mut self) -> Result<(), Failure> {
        self.check_rows()?;
        for _ in 0..ZOMBIE_STEPS_MAX {
            if self.zombies.is_empty() {
                break;
            }
            self.step_zombies()?;
        }
        self.check_fences()?;
        self.check_rows()?;
        if let Some(violation) = self.world.outside.violations().into_iter().next() {
            return Err(Failure::new(FailureKind::Violation, violation));
        }
        if let Some(left) = self.leftovers().into_iter().next() {
            return Err(Failure::new(FailureKind::Leftovers, left));
        }
        match unexpected(&self.world.machine, &self.damaged) {
            Some(broken) => Err(Failure::new(FailureKind::Checkpoint, broken)),
            None => Ok(()),
        }
    }

    fn check_rows(&self) -> Result<(), Failure> {
        if self.setup.config.holds_output {
            return self.check_at_most_once();
        }
        for (number, expected) in self.setup.expected.sinks.iter().enumerate() {
            let visible = self.visible(number)?;
            let one_of_each = self.setup.expected.one_of_each.get(&number);
            let wrong = match self.setup.config.alignment {
                Alignment::AtLeastOnce => shortage(&visible, expected, self.setup.shape.shows_windows(number)),
                _ if self.setup.shape.falls_idle => imbalance(&visible, expected, self.late),
                _ => match one_of_each {
                    Some(key) => not_one_of_each(&visible, expected, *key),
                    None => difference(&visible, expected),
                },
            };
            if let Some(difference) = wrong {
                return Err(Failure::new(FailureKind::WrongRows, format!("sink {number}: {difference}")));
            }
        }
        for (number, expected) in &self.setup.expected.orders {
            let found = self.world.outside.in_order(*number);
            let Some(place) = found.iter().zip(expected).position(|(found, expected)| found != expected) else {
                continue;
            };
            let detail = format!("sink {number}: row {place} is {:?} instead of {:?}", found[place], expected[place]);
            return Err(Failure::new(FailureKind::WrongOrder, detail));
        }
        Ok(())
    }

    /// No row is there twice, and no more are missing than are in doubt.
    fn check_at_most_once(&self) -> Result<(), Failure> {
        let mut missing = 0;
        for (number, expected) in self.setup.expected.sinks.iter().enumerate() {
            let visible = self.visible(number)?;
            if let Some((row, times)) = visible.iter().find(|(row, times)| expected.get(*row) < Some(*times)) {
                let detail = format!("sink {number}: {row:?} is there {times} times");
                return Err(Failure::new(FailureKind::WrongRows, detail));
            }
            missing += expected.values().sum::<i64>() - visible.values().sum::<i64>();
        }
        if missing > self.in_doubt as i64 {
            let detail = format!("{missing} rows are missing and {} in doubt", self.in_doubt);
            return Err(Failure::new(FailureKind::WrongRows, detail));
        }
        Ok(())
    }

    fn visible(&self, number: usize) -> Result<BTreeMap<OutRow, i64>, Failure> {
        if let Some(changelog) = self.setup.shape.changelog(number) {
            let table = changelog.table(&self.world.outside.by_epoch(number));
            return table.map_err(|wrong| Failure::new(FailureKind::WrongChanges, format!("sink {number}: {wrong}")));
        }
        if !self.setup.to_files {
            return Ok(self.world.outside.visible(number));
        }
        let schema = self.setup.shape.sink_schema(number);
        let rows = files::visible(&self.world.machine, number, &schema);
        rows.map_err(|unreadable| Failure::new(FailureKind::WrongRows, unreadable))
    }

    fn leftovers(&self) -> Vec<String> {
        let files = files::leftovers(&self.world.machine, self.setup.shape.sinks());
        // Whose a hidden file is, its name does not say: the next start clears it away.
        let files = files.into_iter().filter(|_| self.replaced.is_empty());
        self.world.outside.leftovers(&self.replaced).into_iter().chain(files).collect()
    }

    /// Once a process runs the job, none before it may publish a checkpoint.
    fn check_fences(&self) -> Result<(), Failure> {
        for (order, (path, by)) in self.world.machine.published().iter().enumerate() {
            if self.started.iter().any(|(process, published)| by < process && *published <= order) {
                let detail = format!("process {by} published {} after it was replaced", path.display());
                return Err(Failure::new(FailureKind::NotFenced, detail));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of every scenario, so many seeds.
    const SEEDS: u64 = 20;

    fn check(scenario: Scenario) {
        let failed: Vec<_> = (0..SEEDS)
            .map(|seed| run(scenario, seed, None))
            .filter_map(|report| Some(format!("{}\n  {}", report.replay(), report.failure.as_ref()?)))
            .collect();
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    }

    #[test]
    fn windows_are_exact_whatever_is_killed() {
        check(Scenario::Window);
        check(Scenario::LateRows);
        check(Scenario::LongWork);
    }

    #[test]
    fn every_row_comes_once_through_any_graph() {
        check(Scenario::Diamond);
        check(Scenario::RandomGraph);
    }

    #[test]
    fn stopping_and_rescaling_change_nothing() {
        check(Scenario::Stop);
        check(Scenario::Rescale);
    }

    #[test]
    fn new_runs_begin_where_old_ones_stopped_with_a_savepoint() {
        check(Scenario::Savepoint);
        let begun: u64 = (0..SEEDS).map(|seed| run(Scenario::Savepoint, seed, None).stats.savepoints).sum();
        assert!(begun > SEEDS / 2, "{begun}");
    }

    #[test]
    fn damage_is_seen_and_gone_round() {
        check(Scenario::Damage);
    }

    #[test]
    fn a_replaced_process_changes_nothing() {
        check(Scenario::Zombie);
    }

    #[test]
    fn the_file_sink_is_exact_whatever_fails() {
        check(Scenario::Files);
    }

    #[test]
    fn failing_files_change_nothing() {
        check(Scenario::DiskFaults);
    }

    #[test]
    fn sessions_and_windows_that_share_slices_are_exact() {
        check(Scenario::Session);
        check(Scenario::Hop);
    }

    #[test]
    fn ranks_and_order_survive_everything() {
        check(Scenario::TopN);
        check(Scenario::Sorted);
    }

    #[test]
    fn what_goes_aside_is_exact_and_every_record_is_accounted_for() {
        check(Scenario::Aside);
    }

    #[test]
    fn keyed_tables_are_exact_in_and_out_of_memory() {
        check(Scenario::Keyed);
    }

    #[test]
    fn joins_by_time_are_exact() {
        check(Scenario::IntervalJoin);
        check(Scenario::WindowJoin);
    }

    #[test]
    fn tables_that_change_come_to_the_same_whatever_is_killed() {
        check(Scenario::RegularJoin);
        check(Scenario::GroupBy);
        check(Scenario::UpdatingTopN);
        check(Scenario::LastRows);
    }

    #[test]
    fn no_checkpoint_shows_half_a_transfer() {
        check(Scenario::Transfers);
    }

    #[test]
    fn every_row_is_in_one_window_or_late_when_tables_fall_idle() {
        check(Scenario::Idle);
    }

    #[test]
    fn at_most_once_shows_no_row_twice_and_counts_what_it_may_have_lost() {
        check(Scenario::AtMostOnce);
    }

    #[test]
    fn rows_that_a_barrier_overtakes_count_once() {
        check(Scenario::SlowSink);
        let overtaken = (0..SEEDS).filter(|seed| run(Scenario::SlowSink, *seed, None).stats.overtaken > 0).count();
        assert!(overtaken as u64 > SEEDS / 2, "{overtaken} of {SEEDS} runs have rows in flight");
    }

    #[test]
    fn without_alignment_every_row_counts_at_least_once() {
        check(Scenario::AtLeastOnce);
    }

    #[test]
    fn a_seed_replays_bit_for_bit() {
        for scenario in Scenario::ALL {
            for seed in 0..5 {
                assert_eq!(run(scenario, seed, None), run(scenario, seed, None));
            }
        }
        let traces: std::collections::BTreeSet<_> =
            (0..5).map(|seed| run(Scenario::Window, seed, None).trace).collect();
        assert_eq!(traces.len(), 5);
    }
}
