//! Load and kills for an hour: jobs that are killed every few seconds, one after the other, and memory that does not grow.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::Options;
use crate::kills::{self, MEMORY_LIMIT_MIB, Plan, line, tell};
use crate::measure::{mib, millis};
use crate::results::Results;

/// A minute or two a job.
const PLAN: Plan = Plan { rows: 200_000, rows_per_second: 2_500, kills: 25, pause_ms_max: 6_000 };

/// What CI has time for.
const SHORT: Plan = Plan { rows: 20_000, rows_per_second: 4_000, kills: 3, pause_ms_max: 1_500 };

pub(crate) fn run(options: &Options) {
    let minutes = options.number("minutes", 0);
    let plan = if minutes == 0 { SHORT } else { PLAN };
    let mut results = Results::open(options.folder(), "soak");
    loop {
        let job = results.done().last().map_or(options.number("from", 0), |last| last + 1);
        let begun = Instant::now();
        let rounds = kills::one(job, plan);
        let mut told = line(job, &rounds);
        told["took_ms"] = json!(millis(begun.elapsed()));
        results.add(told);
        let soaked = Duration::from_millis(results.sum("took_ms"));
        if soaked >= Duration::from_secs(60 * minutes) {
            break;
        }
    }
    tell(&results);
    let peak = mib(results.most("peak_rss_bytes"));
    println!("soak: {} minutes in all, resident memory at most {peak} MiB", results.sum("took_ms") / 60_000);
    assert!(peak <= MEMORY_LIMIT_MIB * 11 / 10, "more than the limit of {MEMORY_LIMIT_MIB} MiB and a tenth");
}
