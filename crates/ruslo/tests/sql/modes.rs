//! The ways of running a test file, and what is wrong with the answers.

use std::collections::BTreeMap;
use std::path::Path;

use ruslo_core::error::{Error, Result};
use ruslo_core::rng::Rng;
use ruslo_runtime::coordinator::Outcome;

use crate::case::{Answer, Case, Engines, Expected};
use crate::world::{Phases, Shape, World, finish, step, temporary};

pub(crate) const PARALLELISMS: [usize; 3] = [1, 2, 3];
const BATCHES: [Option<usize>; 3] = [Some(1), Some(7), None];

/// How a run is interrupted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    Plain,
    /// Stopped at a checkpoint at a random step and restored.
    Stop,
    /// The same, restored at another parallelism.
    StopAndRescale,
    /// Stopped twice, each time restored at another parallelism.
    StopTwice,
    /// Abandoned at a random step, and restored from the newest checkpoint that is there.
    Crash,
    /// Abandoned three times, restored at other parallelisms.
    CrashAndRescale,
    Threads,
    /// On DataFusion's batch engine.
    Batch,
}

pub(crate) const SEEDED: [Mode; 6] =
    [Mode::Plain, Mode::Stop, Mode::StopAndRescale, Mode::StopTwice, Mode::Crash, Mode::CrashAndRescale];

impl Mode {
    /// The parallelisms of the attempts.
    fn attempts(self, first: usize) -> Vec<usize> {
        let other = |by: usize| (first - 1 + by) % PARALLELISMS.len() + 1;
        match self {
            Self::Plain | Self::Threads | Self::Batch => vec![first],
            Self::Stop | Self::Crash => vec![first, first],
            Self::StopAndRescale => vec![first, other(1)],
            Self::StopTwice => vec![first, other(2), other(1)],
            Self::CrashAndRescale => vec![first, other(1), other(2), first],
        }
    }

    fn stops(self) -> bool {
        matches!(self, Self::Stop | Self::StopAndRescale | Self::StopTwice)
    }
}

/// Runs a test file in every way; how many runs that were, and what was wrong in which.
pub(crate) fn check(case: &Case, seed: u64) -> (usize, Vec<String>) {
    let inputs = temporary();
    case.write_inputs(inputs.path());
    let mut check = Check { case, inputs: inputs.path(), seed, runs: 0, failures: BTreeMap::new() };
    if case.engines != Engines::Batch {
        for shape in shapes() {
            check.shape(shape);
        }
        check.one(Mode::Threads, Shape { parallelism: 2, batch_rows: None, phases: Phases::Two }, 0);
    }
    if let Some((rows, expected)) = &case.changelog {
        check.changelog(*rows, expected);
    }
    if case.engines != Engines::Streaming {
        for (parallelism, batch_rows) in [(1, None), (3, Some(2))] {
            check.one(Mode::Batch, Shape { parallelism, batch_rows, phases: Phases::Script }, 0);
        }
    }
    let name = &case.name;
    let told = check.failures.into_iter().map(|(wrong, ways)| {
        format!("{name}.test (RUSLO_SQL_TEST={name} RUSLO_SQL_SEED={seed}): {}\n{wrong}", ways.join("; "))
    });
    (check.runs, told.collect())
}

/// Every parallelism with every batch size; with `RUSLO_SQL_QUICK` set, each of both once.
fn shapes() -> Vec<Shape> {
    let quick = std::env::var_os("RUSLO_SQL_QUICK").is_some();
    let all = PARALLELISMS.iter().enumerate().flat_map(|(row, parallelism)| {
        BATCHES.iter().enumerate().map(move |(column, batch_rows)| (row, column, *parallelism, *batch_rows))
    });
    let wanted = all.filter(|(row, column, ..)| !quick || (row + column) % BATCHES.len() == 0);
    let phases = |batch_rows| if batch_rows == Some(7) { Phases::Two } else { Phases::Script };
    let shape = |(_, _, parallelism, batch_rows)| Shape { parallelism, batch_rows, phases: phases(batch_rows) };
    wanted.map(shape).collect()
}

struct Check<'a> {
    case: &'a Case,
    inputs: &'a Path,
    seed: u64,
    runs: usize,
    /// What was wrong, and in which ways of running the file.
    failures: BTreeMap<String, Vec<String>>,
}

impl Check<'_> {
    fn shape(&mut self, shape: Shape) {
        let steps = self.one(Mode::Plain, shape, 0);
        if let (Some(steps), Expected::Answer(_)) = (steps, &self.case.expected) {
            for mode in &SEEDED[1..] {
                self.one(*mode, shape, steps);
            }
        }
    }

    /// A plain run with batches of `rows` rows, of which every change is printed.
    fn changelog(&mut self, rows: usize, expected: &[String]) {
        self.runs += 1;
        let shape = Shape { parallelism: 1, batch_rows: Some(rows), phases: Phases::Script };
        let world = World::new(&self.case.name, &self.case.sql, self.inputs).printing();
        let outcome = interrupted(&world, Mode::Plain, shape, 0, &mut self.rng(Mode::Plain, shape));
        let printed = world.printed();
        let wrong = match outcome {
            Ok(_) if printed.lines().eq(expected) => return,
            Ok(_) => format!("  prints other changes:\n{printed}"),
            Err(error) => format!("  {:?} error: {error}\n", error.kind()),
        };
        self.failures.entry(wrong).or_default().push(format!("the changelog with batches of {rows}"));
    }

    /// One run; how many steps it took, if it went well. `steps` is how many a plain run takes.
    fn one(&mut self, mode: Mode, shape: Shape, steps: usize) -> Option<usize> {
        self.runs += 1;
        let world = World::new(&self.case.name, &self.case.sql, self.inputs);
        let mut rng = self.rng(mode, shape);
        let outcome = match mode {
            Mode::Threads => world.run_on_threads(shape).map(|answer| (1, answer)),
            Mode::Batch => world.run_in_batch(shape).map(|answer| (1, answer)),
            _ => interrupted(&world, mode, shape, steps, &mut rng),
        };
        let (wrong, steps) = match &outcome {
            Ok((steps, answer)) => (self.judge_answer(answer) + &self.judge_order(mode, &world), *steps),
            Err(error) => (self.judge_error(error), 0),
        };
        if wrong.is_empty() {
            return Some(steps);
        }
        let Shape { parallelism, batch_rows, phases } = shape;
        let batch = batch_rows.map_or("default".to_owned(), |rows| rows.to_string());
        let phases = if phases == Phases::Two { ", in two phases" } else { "" };
        let way = format!("{mode:?} with parallelism {parallelism} and batches of {batch}{phases}");
        self.failures.entry(wrong).or_default().push(way);
        None
    }

    /// The choices of a run follow from the seed, the file and the way of running it.
    fn rng(&self, mode: Mode, shape: Shape) -> Rng {
        let text = format!("{} {mode:?} {shape:?}", self.case.name);
        let hash = text.bytes().fold(self.seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Rng::seeded(hash)
    }

    fn judge_answer(&self, answer: &Answer) -> String {
        match &self.case.expected {
            Expected::Answer(expected) => answer.difference(expected),
            Expected::Error { parts, .. } => format!("  no error, expected: {}\n  {answer:?}\n", parts.join(" .. ")),
        }
    }

    fn judge_order(&self, mode: Mode, world: &World) -> String {
        match &self.case.in_order {
            // Only where nothing was interrupted: a part's name says nothing about its place among several runs.
            Some(expected)
                if matches!(mode, Mode::Plain | Mode::Threads | Mode::Batch) && world.lines() != *expected =>
            {
                format!("  the rows come in another order:\n{}\n", world.lines().join("\n"))
            }
            _ => String::new(),
        }
    }

    fn judge_error(&self, error: &Error) -> String {
        let message = error.to_string().replace(self.inputs.to_str().unwrap(), "${dir}");
        match &self.case.expected {
            Expected::Error { kind, parts } => {
                let missing: Vec<_> = parts.iter().filter(|part| !message.contains(part.as_str())).collect();
                let found = format!("{:?}", error.kind()).to_lowercase();
                if missing.is_empty() && found == *kind {
                    return String::new();
                }
                format!("  expected an error of kind {kind} with {missing:?}, found one of kind {found}:\n{message}\n")
            }
            Expected::Answer(_) => format!("  {:?} error: {message}\n", error.kind()),
        }
    }
}

/// Runs the script to its end, interrupted between attempts; how many steps the last attempt took, and the answer.
pub(crate) fn interrupted(
    world: &World,
    mode: Mode,
    shape: Shape,
    steps: usize,
    rng: &mut Rng,
) -> Result<(usize, Answer)> {
    let attempts = mode.attempts(shape.parallelism);
    for (attempt, parallelism) in attempts.iter().enumerate() {
        let mut job = world.job(Shape { parallelism: *parallelism, ..shape }, attempt, rng)?;
        let (taken, ended) = if attempt + 1 == attempts.len() {
            let (taken, outcome) = finish(&mut job)?;
            (taken, Some(outcome))
        } else {
            interrupt(&mut job, mode, rng.below(steps + 1))?
        };
        match ended {
            Some(Outcome::Finished) => return Ok((taken, world.answer(job.status())?)),
            Some(Outcome::Stopped(epoch)) if !mode.stops() => {
                return Err(Error::internal(format!("stopped at {epoch} unasked")));
            }
            _ => {}
        }
    }
    Err(Error::internal("the last attempt did not finish"))
}

/// Takes some steps, then stops the job or leaves it as it is.
fn interrupt(
    job: &mut ruslo_runtime::executor::seeded::SeededJob,
    mode: Mode,
    steps: usize,
) -> Result<(usize, Option<Outcome>)> {
    let (taken, ended) = step(job, steps)?;
    if ended.is_some() || !mode.stops() {
        return Ok((taken, ended));
    }
    job.stop();
    let (more, outcome) = finish(job)?;
    Ok((taken + more, Some(outcome)))
}
