//! The scenarios of the reliability plan that must exist by name, each from somebody's real bug.

use std::sync::Arc;
use std::time::Duration;

use ruslo_core::error::ErrorKind;
use ruslo_core::rng::Rng;
use ruslo_runtime::alignment::Alignment;
use ruslo_runtime::channel::Credit;
use ruslo_runtime::coordinator::Outcome;
use ruslo_runtime::job::JobConfig;
use ruslo_runtime::planted::Bug;
use ruslo_state::books::Ledger;

use crate::attempt::{Attempt, Stepped, World};
use crate::bug;
use crate::damage::{manifest_paths, read_whole, unexpected};
use crate::dataset::{Dataset, Lineage, Row};
use crate::faults::{Fault, KILLS, Plan};
use crate::nodes::Windows;
use crate::oracle::{difference, expect};
use crate::process::{Effect, Process, Trigger, Watch};
use crate::report::{FailureKind, Report};
use crate::run::run_setup;
use crate::scenario::{Scenario, Setup};
use crate::shape::{EventTime, Kind, Shape, keyed, plain};
use crate::sink::Permanence;
use crate::source::Manners;
use crate::trace::Trace;

/// One lineage of rows `(key, time)`, in splits of `split_rows` rows.
fn lineage(id: i64, rows: impl Iterator<Item = (i64, i64)>, split_rows: usize) -> Lineage {
    let rows: Vec<_> = rows.map(|(key, time)| Row { key, value: time % 17, time }).collect();
    let mut cuts: Vec<_> = (0..rows.len()).step_by(split_rows).collect();
    cuts.push(rows.len());
    Lineage { id, rows, cuts }
}

fn dataset(lineages: Vec<Lineage>) -> Arc<Dataset> {
    Arc::new(Dataset { lineages })
}

/// `count` rows of one lineage, a millisecond apart, with five keys.
fn plain_rows(id: i64, count: i64) -> Lineage {
    lineage(id, (0..count).map(|place| (place % 5, place)), 7)
}

fn setup(shape: Shape, data: Vec<Arc<Dataset>>) -> Setup {
    Setup {
        expected: expect(&shape, &data),
        shape,
        data,
        manners: Manners { rows_max: 3, ..Manners::default() },
        permanence: Permanence::Final,
        buffered: false,
        slow_sink: None,
        config: JobConfig {
            credit: Credit { rows_max: 4, bytes_max: 1 << 30 },
            batch_rows: 4,
            checkpoint_interval: Some(Duration::from_millis(1)),
            ..JobConfig::default()
        },
        rows_per_second: None,
        faults: KILLS.to_vec(),
        plans: Vec::new(),
        faulty_attempts: 3,
        rescale: false,
        damage: false,
        to_files: false,
        savepoints: false,
    }
}

fn window_over(data: Vec<Lineage>, window_ms: i64) -> Setup {
    let mut shape = Shape::new(Some(EventTime { delay_ms: 3, window_ms }));
    let source = shape.add(Kind::Source(0), &[]);
    let window = shape.add(Kind::Window(Windows::Tumble), &[keyed(source)]);
    shape.add(Kind::Sink(0), &[plain(window)]);
    setup(shape, vec![dataset(data)])
}

/// Two sources of very different length into one operator.
fn short_and_long() -> Setup {
    let mut shape = Shape::new(None);
    let (short, long) = (shape.add(Kind::Source(0), &[]), shape.add(Kind::Source(1), &[]));
    let both = shape.add(Kind::Pass(1), &[plain(short), keyed(long)]);
    shape.add(Kind::Sink(0), &[plain(both)]);
    setup(shape, vec![dataset(vec![plain_rows(1, 2)]), dataset(vec![plain_rows(2, 60)])])
}

fn runs(setup: &Setup, seeds: u64, bug: Option<Bug>) -> Vec<Report> {
    (0..seeds)
        .map(|seed| run_setup(Scenario::Window, seed, bug.map(bug::Bug::from), setup.clone(), Rng::seeded(seed)))
        .collect()
}

/// Runs seeds, of which none may fail and some must be killed after a checkpoint.
fn hold(setup: &Setup, seeds: u64) {
    let reports = runs(setup, seeds, None);
    let failed: Vec<_> =
        reports.iter().filter_map(|r| Some(format!("seed {}: {}", r.seed, r.failure.as_ref()?))).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(reports.iter().any(|report| report.stats.crashes_after_checkpoint > 0));
}

/// A world in which a test starts and breaks processes by hand.
struct Stage {
    setup: Setup,
    world: World,
    rng: Rng,
    processes: u64,
}

impl Stage {
    fn new(setup: Setup, seed: u64) -> Self {
        Self { setup, world: World::new(Trace::default()), rng: Rng::seeded(seed), processes: 0 }
    }

    fn start(&mut self, parallelism: usize) -> ruslo_core::error::Result<Attempt> {
        self.processes += 1;
        let process = Arc::new(Process::new(self.processes, Vec::new()));
        let nodes = vec![parallelism; self.setup.shape.nodes.len()];
        let started = Attempt::start(&self.setup, &self.world, process, Plan::default(), &nodes, &mut self.rng);
        started.map(|(attempt, _)| attempt)
    }

    /// Steps until `enough`; whether that came before the end.
    fn run_until(&mut self, attempt: &mut Attempt, enough: impl Fn(&Self, &Attempt) -> bool) -> bool {
        loop {
            match attempt.step(&mut self.rng) {
                Stepped::On if enough(self, attempt) => return true,
                Stepped::On => {}
                Stepped::Ended(Outcome::Finished) => return false,
                other => panic!("{other:?}"),
            }
        }
    }

    fn kill(&mut self, attempt: Attempt) {
        self.world.machine.release_locks(attempt.process.id);
        drop(attempt);
        self.world.machine.power_cut(&mut self.rng);
    }

    fn finish(&mut self, mut attempt: Attempt) {
        self.run_until(&mut attempt, |_, _| false);
        assert_eq!(attempt.counted(), self.setup.expected.counted);
        for (number, expected) in self.setup.expected.sinks.iter().enumerate() {
            assert_eq!(difference(&self.world.outside.visible(number), expected), None);
        }
    }
}

#[test]
fn end_during_alignment() {
    let mut setup = short_and_long();
    hold(&setup, 40);
    setup.config.alignment = Alignment::Aligned;
    let stuck = |report: &Report| {
        let failure = report.failure.as_ref();
        failure.is_some_and(|f| f.kind == FailureKind::Stuck || f.detail.contains("nothing can be done any more"))
    };
    assert!(runs(&setup, 10, Some(Bug::EndIsNoBarrier)).iter().any(stuck), "an input does end before a barrier");
}

#[test]
fn finish_overwrites_snapshot() {
    let mut setup = window_over(vec![plain_rows(1, 3), plain_rows(2, 1), plain_rows(3, 9)], 4);
    setup.faults = vec![Fault::AtManifest, Fault::BeforeCommit, Fault::AfterAck, Fault::AnyStep];
    setup.rescale = true;
    hold(&setup, 80);
}

#[test]
fn watermark_burst_blocks_barrier() {
    // Forty groups of one window fire one by one; more rows come behind.
    let burst = || {
        let first = (0..40).map(|key| (key, key % 10));
        let mut setup =
            window_over(vec![lineage(1, first.chain((0..60).map(|place| (place % 5, 1000 + place))), 50)], 10);
        setup.config.batch_rows = 1;
        // Barriers can pass a firing when no rows stand before them.
        setup.manners.pause_one_in = 2;
        setup
    };
    let firing = |stage: &Stage, _: &Attempt| {
        let newest = manifest_paths(&stage.world.machine).pop();
        newest.and_then(|path| read_whole(&stage.world.machine, &path).ok()).is_some_and(|manifest| {
            let tasks = manifest.operators.values().flat_map(|operator| &operator.subtasks);
            tasks.into_iter().any(|task| {
                let complete = |bucket: i64| bucket - 1 <= task.watermark.millis();
                task.tables.values().flatten().any(|run| complete(run.bucket))
            })
        })
    };
    let mut caught = 0;
    for seed in 0..30 {
        let mut stage = Stage::new(burst(), seed);
        let mut attempt = stage.start(1).unwrap();
        if stage.run_until(&mut attempt, firing) {
            caught += 1;
            stage.kill(attempt);
            let next = stage.start(2).unwrap();
            stage.finish(next);
        }
    }
    assert!(caught > 10, "a checkpoint was taken in the middle of a firing in {caught} of 30 runs");
}

/// Three hundred rows to a sink that takes a second for each.
fn slow_sink(alignment: Alignment) -> Setup {
    let mut shape = Shape::new(None);
    let source = shape.add(Kind::Source(0), &[]);
    let passed = shape.add(Kind::Pass(0), &[keyed(source)]);
    shape.add(Kind::Sink(0), &[keyed(passed)]);
    let mut setup = setup(shape, vec![dataset(vec![plain_rows(1, 300)])]);
    setup.manners.rows_max = 64;
    setup.config.credit.rows_max = 100;
    setup.config.batch_rows = 64;
    setup.config.checkpoint_interval = Some(Duration::from_secs(5));
    setup.config.alignment = alignment;
    setup.slow_sink = Some(Duration::from_secs(1));
    setup
}

/// The longest checkpoint of a run, and how many have rows in flight.
fn longest_checkpoint(setup: Setup, seed: u64) -> (Duration, u64) {
    let mut stage = Stage::new(setup, seed);
    let mut attempt = stage.start(1).unwrap();
    let longest = std::cell::Cell::new(Duration::ZERO);
    stage.run_until(&mut attempt, |_, attempt| {
        let report = attempt.status().last_checkpoint();
        longest.set(longest.get().max(report.map_or(Duration::ZERO, |report| report.took)));
        false
    });
    (longest.get(), attempt.overtaken)
}

#[test]
fn a_sink_at_a_row_a_second_checkpoints_within_three_timeouts() {
    let timeout = Duration::from_secs(20);
    for seed in 0..5 {
        let (longest, overtaken) = longest_checkpoint(slow_sink(Alignment::Overtaking { after: timeout }), seed);
        assert!(longest < 3 * timeout, "seed {seed}: {longest:?}");
        assert!(overtaken > 0, "seed {seed}");
        let (longest, overtaken) = longest_checkpoint(slow_sink(Alignment::Aligned), seed);
        assert!(longest > 3 * timeout, "seed {seed}, aligned: {longest:?}");
        assert_eq!(overtaken, 0);
    }
}

#[test]
fn rows_in_flight_survive_kills_and_any_parallelism() {
    for seed in 0..10 {
        let mut stage = Stage::new(slow_sink(Alignment::Overtaking { after: Duration::from_secs(1) }), seed);
        for parallelism in [1, 3, 2] {
            let mut attempt = stage.start(parallelism).unwrap();
            assert!(stage.run_until(&mut attempt, |_, attempt| attempt.overtaken >= 2));
            stage.kill(attempt);
        }
        let last = stage.start(1).unwrap();
        stage.finish(last);
    }
}

#[test]
fn timers_pending_at_end() {
    // Nothing fires before the end; all of it must, once, whoever is killed while it does.
    let mut setup = window_over(vec![plain_rows(1, 90), plain_rows(2, 40)], 100_000);
    setup.config.batch_rows = 1;
    setup.rescale = true;
    hold(&setup, 40);
}

#[test]
fn ack_before_flush() {
    let mut setup = short_and_long();
    setup.buffered = true;
    setup.faults = vec![Fault::AfterAck];
    hold(&setup, 60);
}

#[test]
fn restore_from_expired_file() {
    // State that outlives many checkpoints: its runs are named by manifests much younger than they are.
    let rows = || vec![plain_rows(1, 150), plain_rows(2, 150)];
    let old_run = |stage: &Stage, _: &Attempt| {
        assert_eq!(unexpected(&stage.world.machine, &[]), None);
        let kept: Vec<_> = manifest_paths(&stage.world.machine);
        let epoch_of = |name: &str| name.split(['-', '.']).next().unwrap().parse::<u64>().unwrap();
        let oldest = kept.first().map(|path| epoch_of(path.file_name().unwrap().to_str().unwrap()));
        let newest = kept.last().and_then(|path| read_whole(&stage.world.machine, path).ok());
        newest.is_some_and(|manifest| manifest.runs().any(|run| Some(epoch_of(&run.file)) < oldest))
    };
    let mut stage = Stage::new(window_over(rows(), 10_000), 1);
    let mut attempt = stage.start(2).unwrap();
    assert!(stage.run_until(&mut attempt, old_run));
    stage.kill(attempt);
    let next = stage.start(3).unwrap();
    stage.finish(next);
    hold(&window_over(rows(), 10_000), 10);
}

#[test]
fn rows_held_on_idle() {
    for seed in 0..20 {
        let mut setup = short_and_long();
        setup.manners.hang_after = Some(2);
        setup.config.checkpoint_interval = None;
        let mut stage = Stage::new(setup, seed);
        let mut attempt = stage.start(2).unwrap();
        let error = loop {
            match attempt.step(&mut stage.rng) {
                Stepped::On => {}
                Stepped::Failed(error) => break error,
                other => panic!("{other:?}"),
            }
        };
        assert!(error.to_string().contains("nothing can be done any more"), "{error}");
        let read = attempt.counted().read as usize;
        assert!(read >= 2);
        assert_eq!(stage.world.outside.rows(), read, "all that was read has come out, though nothing follows");
    }
}

#[test]
fn single_fsync_failure() {
    for skip in 0..60 {
        let mut setup = window_over(vec![plain_rows(1, 40)], 8);
        let fail = Trigger { watch: Watch::Syncs, skip, effect: Effect::Fail(std::io::ErrorKind::Other, 1) };
        setup.plans =
            [true, false].map(|power_cut| Plan { triggers: vec![fail], power_cut, ..Plan::default() }).to_vec();
        setup.faulty_attempts = 4;
        let report = run_setup(Scenario::Window, 0, None, setup, Rng::seeded(u64::from(skip)));
        assert_eq!(report.failure, None, "sync {skip}");
    }
}

#[test]
fn rollback_two_epochs_then_commit() {
    for seed in 0..20 {
        let mut setup = window_over(vec![plain_rows(1, 400)], 6);
        setup.permanence = Permanence::Retractable;
        let mut stage = Stage::new(setup, seed);
        let mut attempt = stage.start(1).unwrap();
        assert!(stage.run_until(&mut attempt, |_, attempt| attempt.checkpoints == 4));
        stage.kill(attempt);
        let paths = manifest_paths(&stage.world.machine);
        for path in paths.iter().rev().take(2) {
            let cut = stage.world.machine.bytes(path).unwrap().split_at(100).0.to_vec();
            stage.world.machine.tamper(path, Some(cut));
        }
        let next = stage.start(2).unwrap();
        stage.finish(next);
    }
}

#[test]
fn a_second_process_is_kept_out_and_the_first_goes_on() {
    let mut stage = Stage::new(window_over(vec![plain_rows(1, 400)], 8), 1);
    let mut first = stage.start(1).unwrap();
    assert!(stage.run_until(&mut first, |_, attempt| attempt.checkpoints == 2));
    let refused = stage.start(1).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Fenced);
    stage.finish(first);
}

#[test]
fn power_cuts_before_the_first_checkpoint_start_over() {
    for steps in (0..200).step_by(5) {
        let mut setup = short_and_long();
        let plan = Plan { kill_at: Some(steps + 1), power_cut: true, ..Plan::default() };
        setup.plans = vec![plan.clone(), plan];
        setup.faulty_attempts = 0;
        let report = run_setup(Scenario::Window, 0, None, setup, Rng::seeded(steps));
        assert_eq!(report.failure, None, "killed after {steps} steps");
    }
}

#[test]
fn the_ledger_finds_what_an_edge_loses_or_doubles() {
    for bug in [Bug::EdgeLosesBatch, Bug::EdgeDoublesBatch] {
        let found = |report: &Report| {
            let failure = report.failure.as_ref();
            failure.is_some_and(|failure| failure.detail.contains("does not balance: from 'Source"))
        };
        assert!(runs(&short_and_long(), 20, Some(bug)).iter().any(found), "{bug:?}");
    }
}

#[test]
fn the_ledger_finds_what_a_sink_does_not_commit() {
    for bug in [Bug::AckWithoutCommittables, Bug::NoRecommit] {
        let found = |report: &Report| {
            let failure = report.failure.as_ref();
            failure.is_some_and(|failure| failure.detail.contains("in = committed + pending"))
        };
        assert!(runs(&short_and_long(), 40, Some(bug)).iter().any(found), "{bug:?}");
    }
}

#[test]
fn every_checkpoint_has_books_that_balance() {
    for seed in 0..10 {
        let mut stage = Stage::new(window_over(vec![plain_rows(1, 200), plain_rows(2, 90)], 8), seed);
        let mut attempt = stage.start(2).unwrap();
        assert!(stage.run_until(&mut attempt, |_, attempt| attempt.checkpoints == 3));
        stage.kill(attempt);
        let next = stage.start(3).unwrap();
        stage.finish(next);
        for path in manifest_paths(&stage.world.machine) {
            let ledger = Ledger::of(&read_whole(&stage.world.machine, &path).unwrap()).unwrap();
            assert_eq!((ledger.imbalance(), ledger.edges.len()), (None, 2));
        }
        let newest = manifest_paths(&stage.world.machine).pop().unwrap();
        let ledger = Ledger::of(&read_whole(&stage.world.machine, &newest).unwrap()).unwrap();
        assert!(ledger.edges.iter().any(|edge| edge.sent == 290 && edge.received == 290), "{ledger:?}");
    }
}
