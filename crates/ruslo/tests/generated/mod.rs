//! Generated queries: random tables, random queries, run in random ways on our engines, against DataFusion.
//!
//! Every query is written twice: in Flink's SQL for us, and in plain SQL for DataFusion, whose own parser and planner
//! take it over tables in memory. There event time is a number of milliseconds, a decimal a number of hundredths, and a
//! window is arithmetic over these or a join with the numbers from 0, so that neither our planner nor our windows are
//! their own judge.
//!
//! Rows come out of order within the watermark's delay, so that none is late.
//!
//! | variable | means |
//! |---|---|
//! | `RUSLO_GENERATED=5000` | how many queries; 200 without it |
//! | `RUSLO_GENERATED_SEED=17` | only the query of this seed: what a failure prints |

pub(crate) mod changing;
mod oracle;
mod query;
mod row;
mod table;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use ruslo_core::rng::Rng;

use crate::case::Answer;
use crate::modes::{Mode, PARALLELISMS, SEEDED, interrupted};
use crate::world::{Phases, Shape, World, temporary};
use oracle::Oracle;
use query::{Features, Query};
use row::Row;
use table::Table;

/// How many queries where nobody says; and with `RUSLO_SQL_QUICK` set.
const QUERIES: u64 = 200;
const QUERIES_QUICK: u64 = 40;

/// The seeds to run.
fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse().expect("a number"));
    match number("RUSLO_GENERATED_SEED") {
        Some(seed) => vec![seed],
        None => {
            let usual = if std::env::var_os("RUSLO_SQL_QUICK").is_some() { QUERIES_QUICK } else { QUERIES };
            (0..number("RUSLO_GENERATED").unwrap_or(usual)).collect()
        }
    }
}

/// Runs them all; what was wrong.
pub(crate) fn check() -> Vec<String> {
    let (seeds, next) = (seeds(), AtomicU64::new(0));
    let features = Features::of_this_build();
    let (failures, kinds) = (Mutex::new(Vec::new()), Mutex::new(BTreeMap::<&str, (usize, usize)>::new()));
    let work = || {
        let oracle = Oracle::new();
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
            match one(*seed, &features, &oracle) {
                Ok((kind, rows)) => {
                    let mut kinds = kinds.lock().unwrap();
                    let (queries, all) = kinds.entry(kind).or_default();
                    (*queries, *all) = (*queries + 1, *all + rows);
                }
                Err(wrong) => failures.lock().unwrap().push(wrong),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    println!("{} generated queries; by kind (queries, rows): {:?}", seeds.len(), kinds.into_inner().unwrap());
    failures.into_inner().unwrap()
}

/// One query in one random way of streaming and in batch mode; its kind, and how many rows it has.
fn one(seed: u64, features: &Features, oracle: &Oracle) -> Result<(&'static str, usize), String> {
    let mut rng = Rng::seeded(seed.wrapping_mul(0x9E37_79B9).wrapping_add(0x0072_7573_6c6f));
    let table = Table::random(&mut rng);
    let query = Query::random(&mut rng, features);
    let inputs = temporary();
    table.write(inputs.path(), &mut rng);
    let script = query.script(&table);
    let failed = |way: &str, wrong: &str| {
        format!(
            "RUSLO_GENERATED_SEED={seed} cargo test -p ruslo --test sql generated: {way}\n{wrong}\n\
             ours:\n{script}\n\noracle:\n{}\n",
            query.oracle
        )
    };
    let expected = oracle.rows(&table, &query).map_err(|error| failed("the oracle", &error))?;
    for (way, answer) in run(&script, &table, inputs.path(), &mut rng) {
        let answer = answer.map_err(|error| failed(&way, &error.to_string()))?;
        let wrong = difference(&answer, &query, &expected);
        if !wrong.is_empty() {
            return Err(failed(&way, &wrong));
        }
    }
    Ok((query.kind, expected.len()))
}

type Ways = Vec<(String, ruslo_core::error::Result<Answer>)>;

fn run(script: &str, table: &Table, inputs: &std::path::Path, rng: &mut Rng) -> Ways {
    let pick = |rng: &mut Rng| Shape {
        parallelism: PARALLELISMS[rng.below(PARALLELISMS.len())],
        batch_rows: [Some(1), Some(7), None][rng.below(3)],
        phases: [Phases::Script, Phases::Two, Phases::Changing][rng.below(3)],
    };
    let shape = pick(rng);
    let mode = SEEDED[rng.below(SEEDED.len())];
    let streaming = || {
        let plain = World::new("generated", script, inputs);
        let (steps, answer) = interrupted(&plain, Mode::Plain, shape, 0, &mut rng.clone())?;
        if matches!(mode, Mode::Plain) {
            return Ok(answer);
        }
        let world = World::new("generated", script, inputs);
        interrupted(&world, mode, shape, steps, &mut rng.clone()).map(|(_, answer)| answer)
    };
    let mut ways = vec![(format!("{mode:?} {shape:?}, {} rows", table.rows.len()), streaming())];
    let shape = pick(rng);
    let world = World::new("generated", script, inputs);
    ways.push((format!("batch mode, {shape:?}, {} rows", table.rows.len()), world.run_in_batch(shape)));
    ways
}

fn difference(answer: &Answer, query: &Query, expected: &[Row]) -> String {
    let rows = answer.rows.iter().map(|line| Row::of_json(line, &query.columns).to_string());
    let mut rows: Vec<String> = rows.collect();
    let mut wanted: Vec<String> = expected.iter().map(Row::to_string).collect();
    rows.sort();
    wanted.sort();
    let found = Answer { rows, counts: answer.counts };
    found.difference(&Answer { rows: wanted, ..Answer::default() })
}
