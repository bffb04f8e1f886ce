//! This program once more, as the process that dies at an edge of the protocol: it runs a job as `ruslo run --resume`
//! does, with the same settings, on a disk that kills it.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use ruslo::{Environment, Program, StartMode};

use crate::dying_disk::{DyingDisk, Edge};

/// The first argument of such a process.
pub(crate) const WORD: &str = "die-at";

/// What it says once it runs; the `ruslo` command's first line has that, too.
pub(crate) const RUNS: &str = "a checkpoint every";

/// The arguments of a process that dies at `edge`.
pub(crate) fn arguments(edge: &Edge, settings: &[(&str, String)]) -> Vec<String> {
    let is_after = if edge.is_after { "after" } else { "before" };
    let edge = [WORD, &edge.op, &edge.place, is_after, &edge.skip.to_string()].map(str::to_owned);
    edge.into_iter().chain(settings.iter().flat_map(|(key, value)| [(*key).to_owned(), value.clone()])).collect()
}

pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let [op, place, is_after, skip, settings @ ..] = arguments else { panic!("{arguments:?}") };
    let edge =
        Edge { op: op.clone(), place: place.clone(), is_after: is_after == "after", skip: skip.parse().unwrap() };
    let program = Program::new("job.sql", std::fs::read_to_string("job.sql").unwrap());
    let program = settings.chunks_exact(2).fold(program, |program, pair| program.set(&pair[0], &pair[1]));
    let environment = Environment { disk: Arc::new(DyingDisk::new(edge)), ..Environment::local() };
    let job = program.plan_in(environment).unwrap().start(StartMode::Resume, Some(Path::new("c"))).unwrap();
    eprintln!("{RUNS} now and then");
    let ended = job.end();
    eprintln!("{:?}", ended.error);
    ExitCode::from(u8::from(ended.error.is_some()))
}
