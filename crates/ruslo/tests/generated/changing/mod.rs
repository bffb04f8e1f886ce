//! Generated queries over tables that change, or that make changes: joins of every kind, aggregates without windows, sets,
//! the first rows of a key; alone and over each other.
//!
//! ```text
//! t, u (rows with times)  ─┐
//! c, e (debezium-json)    ─┴─ step ─ step ─ .. ─ changes | last state | last state by key | print
//! ```
//!
//! The oracle's tables have the rows that are there at the end. Changes are compared after they were applied one by one; a
//! change that takes away what is not there is wrong. What fails is made smaller: without its last steps, then without
//! rows.
//!
//! | variable | means |
//! |---|---|
//! | `RUSLO_CHANGING=5000` | how many queries; 200 without it |
//! | `RUSLO_CHANGING_FROM=200` | from which seed on |
//! | `RUSLO_CHANGING_SEED=17` | only the query of this seed: what a failure prints |
//! | `RUSLO_CHANGING_LOG=file` | writes down which seeds are done; a run with the same file goes on behind them |
//!
//! Of every tenth query the oracle's answer is compared with DuckDB's, if Python has it.

mod data;
mod duckdb;
mod joins;
mod query;
mod relation;
mod steps;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::record_batch::RecordBatch;
use ruslo_core::rng::Rng;

use super::oracle::Oracle;
use super::row::Row;
use crate::modes::{Mode, PARALLELISMS, SEEDED, interrupted};
use crate::world::{Phases, Shape, World, temporary};
use query::Query;

/// How many queries where nobody says; and with `RUSLO_SQL_QUICK` set.
const QUERIES: u64 = 200;
const QUERIES_QUICK: u64 = 40;

/// How often a query that fails is made smaller.
const TRIES_MAX: usize = 80;

fn seeds(log: Option<&str>) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse().expect("a number"));
    if let Some(seed) = number("RUSLO_CHANGING_SEED") {
        return vec![seed];
    }
    let usual = if std::env::var_os("RUSLO_SQL_QUICK").is_some() { QUERIES_QUICK } else { QUERIES };
    let from = number("RUSLO_CHANGING_FROM").unwrap_or(0);
    let done = log.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let done: Vec<u64> = done.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect();
    (from..from + number("RUSLO_CHANGING").unwrap_or(usual)).filter(|seed| !done.contains(seed)).collect()
}

/// Runs them all; what was wrong.
pub(crate) fn check() -> Vec<String> {
    let log = std::env::var("RUSLO_CHANGING_LOG").ok();
    let (seeds, next) = (seeds(log.as_deref()), AtomicUsize::new(0));
    let log = log.map(|path| std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap());
    let (failures, log) = (Mutex::new(Vec::new()), Mutex::new(log));
    let kinds = Mutex::new(BTreeMap::<&str, (usize, usize)>::new());
    let asked = Mutex::new(Vec::new());
    let work = || {
        let oracle = Oracle::new();
        while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
            let query = Query::random(&mut Rng::seeded(seed.wrapping_mul(0x9E37_79B9).wrapping_add(5)));
            let outcome = one(*seed, &query, &oracle);
            if let Some(log) = log.lock().unwrap().as_mut() {
                writeln!(log, "{seed} {}", if outcome.is_ok() { "right" } else { "wrong" }).unwrap();
            }
            match outcome {
                Ok(expected) => {
                    if seed % 10 == 0 {
                        asked.lock().unwrap().push(duckdb::question(*seed, &query, &expected));
                    }
                    let mut kinds = kinds.lock().unwrap();
                    let (queries, rows) = kinds.entry(query.kind()).or_default();
                    (*queries, *rows) = (*queries + 1, *rows + expected.len());
                }
                Err(wrong) => {
                    let told = told(*seed, &smaller(*seed, query, &oracle), &wrong, &oracle);
                    eprintln!("{told}");
                    failures.lock().unwrap().push(told);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    println!(
        "{} generated queries over changes; by last step (queries, rows): {:?}",
        seeds.len(),
        kinds.lock().unwrap()
    );
    let mut failures = failures.into_inner().unwrap();
    failures.extend(duckdb::differences(&asked.into_inner().unwrap()));
    failures
}

/// What a failure prints: of the query as it was, and of a smaller one that fails, too.
fn told(seed: u64, query: &Query, wrong: &str, oracle: &Oracle) -> String {
    let again = one(seed, query, oracle).err().unwrap_or_else(|| "nothing is wrong now\n".to_owned());
    let read = query.read();
    let inputs = query.inputs.0.iter().filter(|input| read.contains(input.name)).map(data::Input::text);
    format!(
        "RUSLO_CHANGING_SEED={seed} cargo test -p ruslo --test sql changing: {wrong}\nsmaller: {again}\n{}\n\
         ours:\n{}\n\noracle:\n{}\n",
        inputs.collect::<String>(),
        query.script(false),
        query.oracle()
    )
}

/// A smaller query that fails, too: the first step that is wrong, and as few rows as are found.
fn smaller(seed: u64, mut query: Query, oracle: &Oracle) -> Query {
    let fails = |query: &Query| one(seed, query, oracle).is_err();
    if let Some(found) = (0..query.steps.len() - 1).map(|place| query.until(place)).find(fails) {
        query = found;
    }
    let mut tries = 0;
    let mut piece = query.inputs.lines();
    while piece > 0 && tries < TRIES_MAX {
        let names: Vec<&str> = query.inputs.0.iter().map(|input| input.name).collect();
        for name in names {
            let ids = query.inputs.get(name).map(data::Input::ids).unwrap_or_default();
            for ids in ids.chunks(piece) {
                let less = Query { inputs: query.inputs.without(name, ids), ..query.clone() };
                tries += 1;
                if tries < TRIES_MAX && fails(&less) {
                    query = less;
                }
            }
        }
        piece /= 2;
    }
    query
}

/// Runs a query in one random way of streaming and in batch mode: the rows that it has.
fn one(seed: u64, query: &Query, oracle: &Oracle) -> Result<Vec<Row>, String> {
    let mut rng = Rng::seeded(seed);
    let inputs = temporary();
    query.inputs.write(inputs.path());
    let tables: Vec<(&str, RecordBatch)> = query.inputs.0.iter().map(|input| (input.name, input.batch())).collect();
    let expected = oracle.answer(&tables, &query.oracle()).map_err(|error| format!("the oracle: {error}"))?;
    let kinds = query.columns();
    let shown = |row: &Row| if query.prints() { query::printed(row, &kinds) } else { row.to_string() };
    let mut wanted: Vec<String> = expected.iter().map(shown).collect();
    wanted.sort();
    for in_batch in [false, true] {
        let shape = Shape {
            parallelism: PARALLELISMS[rng.below(PARALLELISMS.len())],
            batch_rows: [Some(1), Some(7), None][rng.below(3)],
            phases: Phases::Script,
        };
        // What was printed before a crash cannot be taken back.
        let mode = if query.prints() { Mode::Plain } else { SEEDED[rng.below(SEEDED.len())] };
        let way = if in_batch { format!("batch mode, {shape:?}") } else { format!("{mode:?} {shape:?}") };
        let mut rows = match in_batch {
            false => streamed(query, inputs.path(), mode, shape, &mut rng),
            true => batch(query, inputs.path(), shape),
        }
        .map_err(|error| format!("{way}: {error}"))?;
        rows.sort();
        if rows != wanted {
            return Err(format!("{way}\n{}", difference(&rows, &wanted)));
        }
    }
    Ok(expected)
}

fn streamed(
    query: &Query,
    inputs: &std::path::Path,
    mode: Mode,
    shape: Shape,
    rng: &mut Rng,
) -> Result<Vec<String>, String> {
    let script = query.script(false);
    let plain = World::new("generated", &script, inputs);
    let (steps, answer) =
        interrupted(&plain, Mode::Plain, shape, 0, &mut rng.clone()).map_err(|error| format!("plain: {error}"))?;
    if matches!(mode, Mode::Plain) {
        return rows(query, &plain, answer.rows);
    }
    let world = World::new("generated", &script, inputs);
    let (_, answer) = interrupted(&world, mode, shape, steps, &mut rng.clone()).map_err(|error| error.to_string())?;
    rows(query, &world, answer.rows)
}

fn batch(query: &Query, inputs: &std::path::Path, shape: Shape) -> Result<Vec<String>, String> {
    let world = World::new("generated", &query.script(true), inputs);
    let answer = world.run_in_batch(shape).map_err(|error| error.to_string())?;
    rows(query, &world, answer.rows)
}

/// The rows that a world has, as they are compared.
fn rows(query: &Query, world: &World, lines: Vec<String>) -> Result<Vec<String>, String> {
    if query.prints() {
        return query::materialised(&world.printed());
    }
    let kinds = query.columns();
    Ok(lines.iter().map(|line| Row::of_json(line, &kinds).to_string()).collect())
}

/// Both are sorted.
fn difference(found: &[String], wanted: &[String]) -> String {
    let beyond = |these: &[String], those: &[String]| {
        let mut those = those.to_vec();
        let left = these.iter().filter(|row| match those.iter().position(|other| other == *row) {
            Some(place) => {
                those.swap_remove(place);
                false
            }
            None => true,
        });
        left.take(10).cloned().collect::<Vec<_>>()
    };
    let (more, missing) = (beyond(found, wanted), beyond(wanted, found));
    format!("  {} rows, {} wanted\n  only found: {more:#?}\n  only wanted: {missing:#?}\n", found.len(), wanted.len())
}
