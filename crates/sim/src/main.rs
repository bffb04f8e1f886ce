//! `ruslo-sim`: runs seeds, two threads at a time, and says in a table what happened. Exits with 1 if one failed.
//!
//! ```text
//! ruslo-sim --seeds 2000            the scenarios in turn, one a seed
//!           --from 2000             goes on after those
//!           --scenario window       only this one
//!           --seed 17               one seed, of all scenarios; of --scenario only, with every detail
//!           --replay no              runs each seed once, not twice to compare
//!           --bug NoAbort           with a planted bug; `all`: hunts each of them
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test program: a panic is a failed run"
)]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ruslo_core::clock::{Clock, SystemClock};
use ruslo_sim::bug::Bug;
use ruslo_sim::hunt::hunt;
use ruslo_sim::report::{HEADER, Report, Stats, line};
use ruslo_sim::run;
use ruslo_sim::scenario::Scenario;

/// Seeds that a hunt for one bug may take of each scenario.
const HUNT_SEEDS_MAX: u64 = 200;

const THREADS: usize = 2;

#[derive(Debug, Default)]
struct Options {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    scenarios: Vec<Scenario>,
    bug: Option<Bug>,
    hunt: bool,
    once: bool,
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { seeds: 200, scenarios: Scenario::ALL.to_vec(), ..Options::default() };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name} {value}: not a number"));
        match name.as_str() {
            "--seeds" => options.seeds = number()?,
            "--from" => options.from = number()?,
            "--seed" => options.seed = Some(number()?),
            "--scenario" => options.scenarios = vec![Scenario::named(&value).ok_or_else(|| unknown_scenario(&value))?],
            "--replay" => options.once = value == "no",
            "--bug" if value == "all" => options.hunt = true,
            "--bug" => options.bug = Some(Bug::named(&value).ok_or_else(|| unknown_bug(&value))?),
            _ => {
                return Err(format!(
                    "{name}: not an option; there are --seeds --from --seed --scenario --replay --bug"
                ));
            }
        }
    }
    Ok(options)
}

fn unknown_scenario(name: &str) -> String {
    format!("--scenario {name}: there are {}", Scenario::ALL.map(Scenario::name).join(", "))
}

fn unknown_bug(name: &str) -> String {
    let names: Vec<_> = Bug::all().map(|bug| bug.to_string()).collect();
    format!("--bug {name}: there are {} and all", names.join(", "))
}

/// What the runs of one scenario came to, and how long they took together.
type Table = BTreeMap<Scenario, (Stats, Duration)>;

fn run_seeds(options: &Options) -> Table {
    let next = AtomicU64::new(options.from);
    let table = Mutex::new(Table::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| run_some(options, &next, &table));
        }
    });
    table.into_inner().unwrap()
}

fn run_some(options: &Options, next: &AtomicU64, table: &Mutex<Table>) {
    let clock = SystemClock::new();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= options.from + options.seeds {
            return;
        }
        let scenario = options.scenarios[(seed % options.scenarios.len() as u64) as usize];
        let begun = clock.now();
        let once = options.once || options.bug.is_some();
        let report = if once { run::run } else { run::run_twice }(scenario, seed, options.bug);
        let took = clock.now() - begun;
        tell(&report);
        let mut table = table.lock().unwrap();
        let (stats, time) = table.entry(scenario).or_default();
        *stats += report.stats;
        *time += took;
    }
}

fn tell(report: &Report) {
    if let Some(failure) = &report.failure {
        println!("{}   # {failure}", report.replay());
    }
}

fn print_table(table: &Table, wall: Duration) -> u64 {
    println!("{HEADER}");
    let mut all = Stats::default();
    for (scenario, (stats, time)) in table {
        println!("{}", line(scenario.name(), stats, time.as_secs_f64()));
        all += *stats;
    }
    println!("{}", line("all", &all, wall.as_secs_f64()));
    println!(
        "{} of {} crashes came after a completed checkpoint; {} checkpoints have rows in flight; {} steps",
        all.crashes_after_checkpoint, all.crashes, all.overtaken, all.steps
    );
    all.failures
}

fn run_one(options: &Options, seed: u64) -> u64 {
    let mut failures = 0;
    for scenario in &options.scenarios {
        let report = match options.scenarios.len() {
            1 => run::tell(*scenario, seed, options.bug),
            _ => run::run(*scenario, seed, options.bug),
        };
        tell(&report);
        println!("{:<14} trace {:016x} {:?}", scenario.name(), report.trace, report.stats);
        failures += report.stats.failures;
    }
    failures
}

/// How many bugs were not caught.
fn hunt_all() -> u64 {
    let mut free = 0;
    for bug in Bug::all() {
        match hunt(bug, HUNT_SEEDS_MAX) {
            Some((report, runs)) => {
                let failure = report.failure.as_ref().map(|failure| format!("{:?}", failure.kind)).unwrap_or_default();
                println!(
                    "{:<24}{failure:<18}{:<14}seed {:<5} after {runs} runs",
                    bug.to_string(),
                    report.scenario.name(),
                    report.seed
                );
            }
            None => {
                println!("{:<24}NOT CAUGHT", bug.to_string());
                free += 1;
            }
        }
    }
    free
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let clock = SystemClock::new();
    let failures = match (options.hunt, options.seed) {
        (true, _) => hunt_all(),
        (false, Some(seed)) => run_one(&options, seed),
        (false, None) => print_table(&run_seeds(&options), clock.now()),
    };
    ExitCode::from(u8::from(failures > 0))
}
