//! `kill -9`, again and again, at random times and at the edges of the protocol; then the rest of the job, and the oracle.
//!
//! One kill in two comes at a random time after the first checkpoint of the round; the others end the process by itself,
//! right before or right after an operation on a file that makes a checkpoint or commits output. Of every other job one
//! round is killed while it starts. Every round has another parallelism.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use ruslo::core::rng::Rng;
use serde_json::json;

use crate::Options;
use crate::child::{self, RUNS};
use crate::dying_disk::{EDGES, Edge};
use crate::home::{Home, Running};
use crate::measure::{millis, quantile, rss_bytes};
use crate::pipeline::{KINDS, Pipeline};
use crate::results::Results;

/// What a job may hold.
pub(crate) const MEMORY_LIMIT_MIB: u64 = 256;

/// After this an edge is taken for one that does not come.
const EDGE_WAIT: Duration = Duration::from_millis(1_500);

/// After this a process is taken for stuck, however busy the machine is.
const STUCK: Duration = Duration::from_secs(600);

/// How a job is made and killed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rows: usize,
    pub(crate) rows_per_second: u64,
    pub(crate) kills: usize,
    /// Between the first checkpoint of a round and its kill, at most.
    pub(crate) pause_ms_max: usize,
}

const PLAN: Plan = Plan { rows: 20_000, rows_per_second: 2_000, kills: 10, pause_ms_max: 400 };

/// What came of the rounds of a job.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    pub(crate) kills: u64,
    pub(crate) at_edges: u64,
    pub(crate) with_checkpoint: u64,
    /// From the start of a process until it has restored its state and runs, in milliseconds.
    pub(crate) restored_ms: Vec<u64>,
    /// Until its first checkpoint.
    pub(crate) checkpoint_ms: Vec<u64>,
    pub(crate) peak_rss_bytes: u64,
}

pub(crate) fn run(options: &Options) {
    let mut results = Results::open(options.folder(), "kills");
    let (from, count) = (options.number("from", 0), options.number("count", KINDS.len() as u64));
    let done = results.done();
    let mut failed = Vec::new();
    for job in (from..from + count).filter(|job| !done.contains(job)) {
        match catch_unwind(AssertUnwindSafe(|| one(job, PLAN))) {
            Ok(rounds) => results.add(line(job, &rounds)),
            Err(_) => {
                println!("job {job} failed; again: proofs -- kills --from {job} --count 1");
                failed.push(job);
            }
        }
    }
    tell(&results);
    assert!(failed.is_empty(), "jobs {failed:?} failed");
    let (kills, with) = (results.sum("kills"), results.sum("with_checkpoint"));
    assert!(with * 10 >= kills * 9, "only {with} of {kills} kills came after a checkpoint");
    let slowest = quantile(&results.all("restored_ms"), 99);
    assert!(slowest < 5_000, "recovery takes {slowest} ms");
}

pub(crate) fn line(job: u64, rounds: &Rounds) -> serde_json::Value {
    json!({
        "job": job,
        "pipeline": format!("{:?}", KINDS[job as usize % KINDS.len()]),
        "kills": rounds.kills,
        "at_edges": rounds.at_edges,
        "with_checkpoint": rounds.with_checkpoint,
        "restored_ms": rounds.restored_ms,
        "checkpoint_ms": rounds.checkpoint_ms,
        "peak_rss_bytes": rounds.peak_rss_bytes,
    })
}

pub(crate) fn tell(results: &Results) {
    let (kills, edges, with) = (results.sum("kills"), results.sum("at_edges"), results.sum("with_checkpoint"));
    println!(
        "{} jobs, {kills} kills, {edges} of them at edges, {with} after a checkpoint of their round",
        results.len()
    );
    for (name, what) in [("restored_ms", "until it runs again"), ("checkpoint_ms", "until its first checkpoint")] {
        let times = results.all(name);
        let [half, most, worst] = [50, 99, 100].map(|hundredths| quantile(&times, hundredths));
        println!("recovery, {what}: half in {half} ms, 99 in 100 in {most} ms, all in {worst} ms");
    }
}

/// One job, which follows from its number, to its end.
pub(crate) fn one(job: u64, plan: Plan) -> Rounds {
    let pipeline = Pipeline::new(KINDS[job as usize % KINDS.len()], job, plan.rows);
    let home = Home::new();
    pipeline.prepare(&home);
    let mut rng = Rng::seeded(!job);
    let mut rounds = Rounds::default();
    let early = rng.below(2 * plan.kills);
    for round in 0..plan.kills {
        let is_over = match round == early {
            true => killed_early(&home, plan, &mut rng, &mut rounds),
            false => killed(&home, plan, &mut rng, &mut rounds),
        };
        if is_over {
            break;
        }
    }
    home.ruslo(&["run", "job.sql", "--checkpoint-dir", "c", "--resume"]).expect(0);
    pipeline.check(&home);
    rounds
}

fn settings(plan: Plan, parallelism: usize) -> [(&'static str, String); 5] {
    [
        ("pipeline.memory-limit", format!("{MEMORY_LIMIT_MIB} mb")),
        ("parallelism.default", parallelism.to_string()),
        ("source.rows-per-second", plan.rows_per_second.to_string()),
        ("execution.batch-rows", "64".to_owned()),
        ("execution.checkpointing.interval", "50 ms".to_owned()),
    ]
}

/// The real command.
fn start(home: &Home, plan: Plan, parallelism: usize) -> Running {
    let settings = settings(plan, parallelism).map(|(key, value)| format!("{key}={value}"));
    let mut arguments = vec!["run", "job.sql", "--checkpoint-dir", "c", "--resume"];
    settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
    home.start(&arguments)
}

fn start_dying(home: &Home, plan: Plan, parallelism: usize, edge: &Edge) -> Running {
    let arguments = child::arguments(edge, &settings(plan, parallelism));
    home.start_program(&std::env::current_exe().unwrap(), &arguments)
}

fn an_edge(rng: &mut Rng) -> Edge {
    let (op, place) = EDGES[rng.below(EDGES.len())];
    // The first ones are of the start, and every subtask writes runs.
    let first = if place == "/runs" { 10 } else { 4 };
    let skip = if rng.one_in(16) { rng.below(2) } else { first + rng.below(8) } as u64;
    Edge { op: op.to_owned(), place: place.to_owned(), is_after: rng.one_in(2), skip }
}

fn killed_early(home: &Home, plan: Plan, rng: &mut Rng, rounds: &mut Rounds) -> bool {
    let mut running = start(home, plan, 1 + rng.below(3));
    std::thread::sleep(Duration::from_millis(rng.below(150) as u64));
    if running.is_over() {
        return true;
    }
    running.kill();
    rounds.kills += 1;
    false
}

/// A round; whether the job was over before its time.
fn killed(home: &Home, plan: Plan, rng: &mut Rng, rounds: &mut Rounds) -> bool {
    let edge = rng.one_in(2).then(|| an_edge(rng));
    let parallelism = 1 + rng.below(3);
    let before = home.newest_epoch("c");
    let begun = Instant::now();
    let running = match &edge {
        Some(edge) => start_dying(home, plan, parallelism, edge),
        None => start(home, plan, parallelism),
    };
    let pause = Duration::from_millis(rng.below(plan.pause_ms_max) as u64);
    let mut round = Round { home, running, before: before.max(1), begun, rounds };
    round.watch(edge.is_some(), pause)
}

/// A process that is watched until its kill.
struct Round<'a> {
    home: &'a Home,
    running: Running,
    before: u64,
    begun: Instant,
    rounds: &'a mut Rounds,
}

impl Round<'_> {
    fn watch(&mut self, dies_by_itself: bool, pause: Duration) -> bool {
        let (mut runs, mut checkpoint) = (false, None);
        loop {
            let is_over = self.running.is_over();
            if !runs && self.running.err().contains(RUNS) {
                runs = true;
                self.rounds.restored_ms.push(millis(self.begun.elapsed()));
            }
            // The first new manifest only repeats the one that was resumed from.
            if checkpoint.is_none() && self.home.newest_epoch("c") > self.before + 1 {
                checkpoint = Some(Instant::now());
                self.rounds.checkpoint_ms.push(millis(self.begun.elapsed()));
                self.rounds.with_checkpoint += 1;
            }
            let rss = rss_bytes(self.running.id()).unwrap_or_default();
            self.rounds.peak_rss_bytes = self.rounds.peak_rss_bytes.max(rss);
            if is_over {
                return self.ended();
            }
            let wait = if dies_by_itself { EDGE_WAIT } else { pause };
            if checkpoint.is_some_and(|at| at.elapsed() >= wait) {
                self.running.kill_now();
                self.rounds.kills += 1;
                return false;
            }
            assert!(self.begun.elapsed() < STUCK, "stuck: {}", self.running.err());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// It died at its edge, or came to the end of the job.
    fn ended(&mut self) -> bool {
        let code = self.running.code();
        assert!(code.is_none() || code == Some(0), "it failed with {code:?}: {}", self.running.err());
        if code.is_none() {
            self.rounds.kills += 1;
            self.rounds.at_edges += 1;
        }
        code.is_some()
    }
}
