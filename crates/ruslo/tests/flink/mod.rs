//! Flink's own results: queries in Flink's words, and the rows that Apache Flink 2.3 gave for them.
//!
//! Our generated queries have DataFusion for an oracle, whose parser and kernels we share. These cases share nothing:
//! `run.py` makes the inputs, runs every query on Flink as a stream, and writes Flink's columns and rows down.
//!
//! ```text
//! # What the case shows.
//!
//! === sql            views, then a query over the tables of `tables.sql`
//!
//! === differs        why Ruslo does not give these rows; then the test fails as soon as it does
//!
//! === columns        the result's columns with Flink's types
//!
//! === rows           Flink's rows, sorted
//! ```
//!
//! Each query runs at two parallelisms and once more with a crash and a rescale. Rows are equal if their texts are,
//! but for how a FLOAT or DOUBLE is spelled (`1.0E10`).

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ruslo_core::error::Result;
use ruslo_core::rng::Rng;

use crate::case::{Answer, sections};
use crate::modes::{Mode, interrupted};
use crate::world::{Shape, World};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/flink")
}

struct FlinkCase {
    name: String,
    script: String,
    differs: Option<String>,
    expected: Answer,
}

impl FlinkCase {
    fn read(path: &Path, tables: &str) -> Self {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (comment, sections) = sections(&std::fs::read_to_string(path).unwrap());
        assert!(comment.starts_with("# "), "{name}: no comment says what it shows");
        let known = ["sql", "differs", "columns", "rows"];
        assert!(sections.iter().all(|(heading, _)| known.contains(&heading.as_str())), "{name}: an unknown section");
        let section =
            |heading: &str| sections.iter().find(|(found, _)| found == heading).map(|(_, body)| body.as_str());
        let needed = |heading: &str| section(heading).unwrap_or_else(|| panic!("{name}: no section '{heading}'"));
        let script = script(tables, needed("sql"), needed("columns"));
        let mut rows: Vec<_> = needed("rows").lines().map(plain_numbers).collect();
        rows.sort();
        let differs = section("differs").map(|reason| reason.trim().to_owned());
        assert!(differs.as_deref() != Some(""), "{name}: no reason why it differs");
        Self { script, differs, expected: Answer { rows, ..Answer::default() }, name }
    }

    /// What is wrong with it.
    fn check(&self) -> Option<String> {
        let ways = [(Mode::Plain, 1), (Mode::Plain, 3), (Mode::CrashAndRescale, 2)];
        let wrong = ways.into_iter().find_map(|(mode, parallelism)| self.wrong(mode, parallelism));
        match (&self.differs, wrong) {
            (None, None) | (Some(_), Some(_)) => None,
            (None, Some(wrong)) => Some(format!("{}: {wrong}", self.name)),
            (Some(reason), None) => Some(format!("{}: is as Flink's now, take the section out: {reason}", self.name)),
        }
    }

    fn wrong(&self, mode: Mode, parallelism: usize) -> Option<String> {
        let difference = match self.answer(mode, parallelism) {
            Ok(answer) => answer.difference(&self.expected),
            Err(error) => format!("  {:?} error: {error}\n", error.kind()),
        };
        let shown: String = difference.lines().take(8).flat_map(|line| [line, "\n"]).collect();
        (!shown.is_empty()).then(|| format!("{mode:?} at parallelism {parallelism}:\n{shown}"))
    }

    fn answer(&self, mode: Mode, parallelism: usize) -> Result<Answer> {
        let world = World::new(&self.name, &self.script, &folder().join("data"));
        let shape = Shape { parallelism, batch_rows: Some(64), phases: crate::world::Phases::Two };
        // A plain run of these inputs takes some hundred steps.
        let (_, mut answer) = interrupted(&world, mode, shape, 200, &mut Rng::seeded(parallelism as u64))?;
        answer.rows = answer.rows.iter().map(|row| plain_numbers(row)).collect();
        answer.rows.sort();
        Ok(answer)
    }
}

/// Tables, views, and the last statement's rows into a table of Flink's columns.
fn script(tables: &str, sql: &str, columns: &str) -> String {
    let sql = sql.trim().trim_end_matches(';');
    let (views, query) = sql.rsplit_once(";\n").map_or(("", sql), |(views, query)| (views, query));
    let end = if views.is_empty() { "" } else { ";" };
    format!(
        "{tables}\n{views}{end}\nCREATE TABLE result (\n{columns}) \
         WITH ('connector' = 'filesystem', 'path' = '${{out}}', 'format' = 'json');\nINSERT INTO result\n{query};\n"
    )
}

/// The line with numbers in scientific notation written out: `1.25E10` and `12500000000.0` are one number.
fn plain_numbers(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(':').map(|colon| colon + 1) {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = rest.find([',', '}']).unwrap_or(rest.len());
        let value = &rest[..length];
        match value.parse::<f64>() {
            Ok(number) if value.contains(['E', 'e']) => plain.push_str(&written_out(number)),
            _ => plain.push_str(value),
        }
        rest = &rest[length..];
    }
    plain + rest
}

fn written_out(number: f64) -> String {
    let digits = format!("{number}");
    if digits.contains('.') { digits } else { digits + ".0" }
}

/// Runs all cases, or the one that `RUSLO_FLINK_CASE` names; what was wrong.
pub(crate) fn check() -> Vec<String> {
    let wanted = std::env::var("RUSLO_FLINK_CASE").ok();
    let tables = std::fs::read_to_string(folder().join("tables.sql")).unwrap();
    let entries = std::fs::read_dir(folder().join("cases")).unwrap().map(|entry| entry.unwrap().path());
    let cases: Vec<_> = entries
        .filter(|path| wanted.as_deref().is_none_or(|wanted| path.file_stem().is_some_and(|stem| stem == wanted)))
        .map(|path| FlinkCase::read(&path, &tables))
        .collect();
    assert!(!cases.is_empty(), "no case of that name: {wanted:?}");
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            failures.lock().unwrap().extend(case.check());
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    println!("{} cases of Flink's", cases.len());
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    failures
}

#[test]
fn numbers_are_written_out() {
    assert_eq!(plain_numbers("{\"a\":1.5E3,\"b\":\"x:1E2,\",\"c\":2}"), "{\"a\":1500.0,\"b\":\"x:1E2,\",\"c\":2}");
    assert_eq!(plain_numbers("{\"a\":-9.75E-5}"), "{\"a\":-0.0000975}");
}
