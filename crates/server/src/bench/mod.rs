//! `ruslo bench nexmark`: how fast this machine runs the benchmark's queries.
//!
//! Every run is a process of its own, `ruslo run`, so that its memory is its own and nothing is warm. What is told: rows
//! read a second of the job (its start and its last checkpoint are in, the start of the process is not), processor
//! seconds and peak memory of the whole process.

mod queries;
mod table;

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use ruslo::{Error, Result};
use serde_json::{Value, json};

use self::queries::{Query, Source};
use crate::args::{Bench, Output};
use crate::command::say;
use crate::exit;
use crate::screen::Screen;

/// Measures what is asked for and prints a table, or a line of JSON a run.
pub(crate) fn run(arguments: &Bench, screen: &Screen) -> ExitCode {
    let measured = measure(arguments, screen);
    exit::of(measured.map_err(|error| {
        screen.line(&format!("error: {error}"));
        error.kind()
    }))
}

/// One run of one query.
#[derive(Debug, Clone, PartialEq)]
struct Measured {
    query: &'static str,
    rows: u64,
    seconds: f64,
    cpu_seconds: Option<f64>,
    peak_rss_bytes: Option<u64>,
}

impl Measured {
    fn rows_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.rows as f64 / self.seconds } else { 0.0 }
    }

    fn json(&self) -> Value {
        json!({
            "engine": "ruslo",
            "query": self.query,
            "rows_read": self.rows,
            "seconds": self.seconds,
            "rows_per_second": self.rows_per_second().round(),
            "cpu_seconds": self.cpu_seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
        })
    }
}

fn measure(arguments: &Bench, screen: &Screen) -> Result<()> {
    let source = source(arguments)?;
    let queries = queries::chosen(&arguments.queries, &source)?;
    let mut runs = Vec::new();
    for _ in 0..arguments.rounds {
        for query in &queries {
            screen.line(&format!("running {}", query.name));
            let measured = one(*query, &source, arguments)?;
            if let Output::Json = arguments.output {
                say(&format!("{}\n", measured.json()))?;
            }
            runs.push(measured);
        }
    }
    match arguments.output {
        Output::Json => Ok(()),
        Output::Text => say(&table::of(&runs)),
    }
}

fn source(arguments: &Bench) -> Result<Source> {
    match (&arguments.data, arguments.source) {
        (Some(folder), crate::args::BenchSource::Json) if is_data(folder) => {
            Ok(Source::Json { folder: folder.display().to_string() })
        }
        (folder, crate::args::BenchSource::Json) => {
            let given = folder.as_ref().map_or("no folder".to_owned(), |folder| format!("'{}'", folder.display()));
            Err(Error::usage(format!(
                "{given} has Nexmark's JSON files; give --data FOLDER, with json/person, json/auction and json/bid in it, \
                 as bench/nexmark/nexgen.rs makes them"
            )))
        }
        (_, crate::args::BenchSource::Generator) => Ok(Source::Generator { events: arguments.events }),
    }
}

fn is_data(folder: &Path) -> bool {
    folder.join("json").join("bid").is_dir()
}

/// Runs `ruslo run` on a query, and reads its summary.
fn one(query: Query, source: &Source, arguments: &Bench) -> Result<Measured> {
    let scratch = tempfile::tempdir().map_err(|error| Error::io("a folder for results", &error))?;
    let program = std::env::current_exe().map_err(|error| Error::io("this program", &error))?;
    let mut command = Command::new(program);
    command.args(["run", "-e", &query.script(source, scratch.path()), "--output", "json", "--fresh"]);
    command.args(["--set", "pipeline.name=nexmark-bench"]);
    command.args(arguments.parallelism.iter().flat_map(|subtasks| ["--parallelism", subtasks.as_str()]));
    let done = command.stdin(Stdio::null()).output().map_err(|error| Error::io("ruslo run", &error))?;
    let text = String::from_utf8_lossy(&done.stdout);
    if !done.status.success() {
        let told = String::from_utf8_lossy(&done.stderr);
        return Err(Error::internal(format!("{}: {}", query.name, told.trim())));
    }
    let summary: Option<Value> = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    summary
        .as_ref()
        .and_then(|summary| read(query, summary))
        .ok_or_else(|| Error::internal(format!("{}: ruslo run told no summary", query.name)))
}

fn read(query: Query, summary: &Value) -> Option<Measured> {
    Some(Measured {
        query: query.name,
        rows: summary.get("rows_in")?.as_u64()?,
        seconds: summary.get("seconds")?.as_f64()?,
        cpu_seconds: summary.get("cpu_seconds").and_then(Value::as_f64),
        peak_rss_bytes: summary.get("peak_rss_bytes").and_then(Value::as_u64),
    })
}
