//! Runs a script: planned by `ruslo_sql`, executed by `ruslo_runtime`, in folders of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ruslo::{Program, StartMode};
use ruslo_connectors::filesystem::Filesystem;
use ruslo_connectors::print::Print;
use ruslo_core::clock::{SystemClock, VirtualClock};
use ruslo_core::connector::{Connector, OptionSpec, TableDefinition};
use ruslo_core::disk::LocalDisk;
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::rng::Rng;
use ruslo_core::sink::{Guarantee, Sink};
use ruslo_core::source::Source;
use ruslo_core::standard_input::NoInput;
use ruslo_runtime::alignment::Alignment;
use ruslo_runtime::channel::Credit;
use ruslo_runtime::coordinator::Outcome;
use ruslo_runtime::executor::seeded::SeededJob;
use ruslo_runtime::executor::threads;
use ruslo_runtime::job::{JobConfig, JobSpec, Start};
use ruslo_runtime::status::{JobStatus, Role};
use ruslo_sql::{Planned, Planning, Script};
use ruslo_state::store::CheckpointStore;
use tempfile::TempDir;

use crate::case::{Answer, Counts};

/// How long a job on threads may take before it is taken for stuck.
const STUCK: Duration = Duration::from_secs(60);

/// How many steps a seeded job may take before it is taken for stuck.
const STEPS_MAX: usize = 1_000_000;

/// What a GROUP BY holds before the exchange, in two phases: some batches of 7 rows.
const MINI_BATCH_ROWS: &str = "20";

/// In how many phases aggregates are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phases {
    /// As the script says.
    Script,
    Two,
    /// Two in every other attempt, one in those between.
    Changing,
}

impl Phases {
    fn strategy(self, attempt: usize) -> Option<&'static str> {
        match self {
            Self::Script => None,
            Self::Changing if attempt % 2 == 1 => Some("ONE_PHASE"),
            Self::Two | Self::Changing => Some("TWO_PHASE"),
        }
    }
}

/// How a script runs, whatever it says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) parallelism: usize,
    /// None leaves it to the runtime.
    pub(crate) batch_rows: Option<usize>,
    pub(crate) phases: Phases,
}

/// A folder that is fast and goes away.
pub(crate) fn temporary() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

/// A script with folders to write to, run once from its start to its end, however often it is interrupted between.
pub(crate) struct World {
    name: String,
    text: String,
    inputs: String,
    folder: TempDir,
    console: Arc<Mutex<Vec<u8>>>,
    /// Whether what would be written to files is printed.
    prints: bool,
}

/// `filesystem`, but what is written is printed.
struct Printed;

impl Connector for Printed {
    fn name(&self) -> &'static str {
        Filesystem.name()
    }

    fn options(&self, given: &BTreeMap<String, String>) -> Result<Vec<OptionSpec>> {
        Filesystem.options(given)
    }

    fn metadata(&self) -> &'static [&'static str] {
        Filesystem.metadata()
    }

    fn source_guarantee(&self) -> Option<Guarantee> {
        Filesystem.source_guarantee()
    }

    fn sink_guarantee(&self) -> Option<Guarantee> {
        Print.sink_guarantee()
    }

    fn source(&self, table: &TableDefinition, columns: &[usize], world: &Environment) -> Result<Arc<dyn Source>> {
        Filesystem.source(table, columns, world)
    }

    fn sink(&self, table: &TableDefinition, world: &Environment) -> Result<Arc<dyn Sink>> {
        Print.sink(&TableDefinition { options: BTreeMap::new(), ..table.clone() }, world)
    }
}

impl World {
    /// `text` with its folders: `inputs` in place of `${dir}`.
    pub(crate) fn new(name: &str, text: &str, inputs: &Path) -> Self {
        let folder = temporary();
        let out = folder.path().join("out");
        let inputs = inputs.to_str().unwrap().to_owned();
        let text = text.replace("${dir}", &inputs).replace("${out}", out.to_str().unwrap());
        Self { name: format!("{name}.sql"), text, inputs, folder, console: Arc::default(), prints: false }
    }

    /// The same where what would be written to files is printed.
    pub(crate) fn printing(self) -> Self {
        Self { prints: true, ..self }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// What was printed.
    pub(crate) fn printed(&self) -> String {
        String::from_utf8(self.console.lock().unwrap().clone()).unwrap()
    }

    fn environment(&self, clock: &Arc<VirtualClock>) -> Environment {
        Environment {
            clock: clock.clone(),
            disk: Arc::new(LocalDisk),
            input: Arc::new(NoInput),
            console: self.console.clone(),
            seed: 1,
        }
    }

    /// Plans the script for one of several attempts to run it.
    pub(crate) fn plan(&self, shape: Shape, attempt: usize, environment: &Environment) -> Result<Planned> {
        let mut overrides = vec![("parallelism.default".to_owned(), shape.parallelism.to_string())];
        overrides.extend(shape.batch_rows.map(|rows| ("execution.batch-rows".to_owned(), rows.to_string())));
        let strategy = shape.phases.strategy(attempt);
        overrides.extend(strategy.map(|name| ("table.optimizer.agg-phase-strategy".to_owned(), name.to_owned())));
        if strategy == Some("TWO_PHASE") {
            let mini_batch = [("enabled", "true"), ("size", MINI_BATCH_ROWS)];
            let named = |(key, value): (&str, &str)| (format!("table.exec.mini-batch.{key}"), value.to_owned());
            overrides.extend(mini_batch.map(named));
        }
        let registry = ruslo_connectors::registry().with(crate::directory::directory());
        let registry = if self.prints { registry.with(Printed) } else { registry };
        let planning = Planning { registry: &registry, environment, overrides: &overrides, default_parallelism: 1 };
        ruslo_sql::plan(Script { name: &self.name, text: &self.text }, &planning)
    }

    fn store(&self, attempt: &str) -> Result<CheckpointStore> {
        CheckpointStore::open(Arc::new(LocalDisk), &self.folder.path().join("checkpoints"), attempt)
    }

    fn spec(&self, shape: Shape, environment: Environment, start: Start, attempt: usize) -> Result<JobSpec> {
        let planned = self.plan(shape, attempt, &environment)?;
        let defaults = JobConfig::default();
        let settings = &planned.settings;
        let rows_max = settings.channel_rows.unwrap_or(match shape.batch_rows {
            Some(1) => 1,
            _ => defaults.credit.rows_max,
        });
        let config = JobConfig {
            // What is in flight fixes the parallelism where inputs fall idle, and the phases; both are changed here.
            alignment: match settings.source_idle_timeout.is_some() || matches!(shape.phases, Phases::Changing) {
                true => Alignment::Aligned,
                false => Alignment::Overtaking { after: Duration::ZERO },
            },
            credit: Credit { rows_max, ..defaults.credit },
            batch_rows: settings.batch_rows.unwrap_or(defaults.batch_rows),
            memory_limit_bytes: settings.memory_limit_bytes.unwrap_or(defaults.memory_limit_bytes),
            // On the virtual clock, which moves now and then: some checkpoints a run.
            checkpoint_interval: Some(settings.checkpoint_interval.unwrap_or(Duration::from_millis(1))),
            source_idle_timeout: settings.source_idle_timeout,
            workers: 2,
            ..defaults
        };
        let store = self.store(&named(attempt))?;
        let (fingerprint, plan) = (planned.fingerprint, planned.compiled);
        Ok(JobSpec { graph: planned.graph, config, environment, store, fingerprint, plan, start })
    }

    /// A job that goes on from the newest checkpoint, or from the start where there is none.
    pub(crate) fn job(&self, shape: Shape, attempt: usize, rng: &mut Rng) -> Result<SeededJob> {
        let clock = Arc::new(VirtualClock::default());
        let start = match self.store(&named(attempt))?.restore_newest()? {
            Some(restored) => Start::Restore(restored),
            None => Start::Fresh { run: "run".to_owned() },
        };
        let spec = self.spec(shape, self.environment(&clock), start, attempt)?;
        SeededJob::start(spec, clock, Rng::seeded(rng.next_u64()))
    }

    /// Runs the script on threads.
    pub(crate) fn run_on_threads(&self, shape: Shape) -> Result<Answer> {
        let clock = Arc::new(SystemClock::new());
        let environment = Environment {
            clock,
            disk: Arc::new(LocalDisk),
            input: Arc::new(NoInput),
            console: self.console.clone(),
            seed: 1,
        };
        let running = threads::start(self.spec(shape, environment, Start::Fresh { run: "run".to_owned() }, 0)?)?;
        let status = Arc::clone(running.status());
        if running.wait_timeout(STUCK).is_none() {
            return Err(Error::internal(format!("stuck: not finished within {STUCK:?}")));
        }
        match running.wait()? {
            Outcome::Finished => self.answer(&status),
            Outcome::Stopped(epoch) => Err(Error::internal(format!("stopped at {epoch} unasked"))),
        }
    }

    /// Runs the script in batch mode.
    pub(crate) fn run_in_batch(&self, shape: Shape) -> Result<Answer> {
        let clock = Arc::new(SystemClock::new());
        let environment = Environment {
            clock,
            disk: Arc::new(LocalDisk),
            input: Arc::new(NoInput),
            console: self.console.clone(),
            seed: 1,
        };
        let program = Program::new(&self.name, &self.text)
            .set("execution.runtime-mode", "batch")
            .set("parallelism.default", shape.parallelism.to_string());
        let program = match shape.batch_rows {
            Some(rows) => program.set("execution.batch-rows", rows.to_string()),
            None => program,
        };
        let job = program.plan_in(environment)?.start(StartMode::New, Some(&self.folder.path().join("batch")))?;
        if !job.wait_timeout(STUCK) {
            return Err(Error::internal(format!("stuck: not finished within {STUCK:?}")));
        }
        let summary = job.wait()?;
        let rows = self.rows()?;
        for source in summary.operators.iter().filter(|operator| operator.role == Role::Source) {
            if source.rows_in != source.rows_out + source.skipped_rows + source.dead_letter_rows {
                return Err(Error::internal(format!("{} lost rows: {source:?}", source.name)));
            }
        }
        let (late, skipped, ahead) = (summary.late_rows, summary.skipped_rows, summary.ahead_rows);
        Ok(Answer { rows, counts: Counts { late, skipped, ahead } })
    }

    /// What has been written, that nothing else lies about, and that no row was lost between read and written.
    pub(crate) fn answer(&self, status: &JobStatus) -> Result<Answer> {
        let (rows, counts) = (self.rows()?, conserved(status)?);
        Ok(Answer { rows, counts })
    }

    fn rows(&self) -> Result<Vec<String>> {
        let lines = crate::output::lines(&self.out())?;
        let mut rows: Vec<_> = lines.iter().map(|line| line.replace(&self.inputs, "${dir}")).collect();
        rows.sort();
        Ok(rows)
    }

    /// What has been written, file by file in the order of their names.
    pub(crate) fn lines(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.out()).into_iter().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let texts = paths.iter().map(|path| std::fs::read_to_string(path).unwrap());
        texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }
}

/// What an attempt calls itself.
fn named(attempt: usize) -> String {
    format!("attempt-{attempt}")
}

/// What was counted, if every source gave out, skipped or put aside what it took in.
fn conserved(status: &JobStatus) -> Result<Counts> {
    let mut counts = Counts { late: status.late_rows(), ..Counts::default() };
    for source in status.operators.iter().filter(|operator| operator.role == Role::Source) {
        let found = source.counts();
        counts.skipped += found.skipped_rows;
        counts.ahead += found.ahead_rows;
        if found.rows_in != found.rows_out + found.skipped_rows + found.dead_letter_rows {
            return Err(Error::internal(format!("{} lost rows: {found:?}", source.name)));
        }
    }
    Ok(counts)
}

/// Takes `steps` steps; whether the job ended within them, and after how many.
pub(crate) fn step(job: &mut SeededJob, steps: usize) -> Result<(usize, Option<Outcome>)> {
    for taken in 0..steps {
        if let Some(outcome) = job.step()? {
            return Ok((taken + 1, Some(outcome)));
        }
    }
    Ok((steps, None))
}

/// Runs the job to its end, and says after how many steps it came.
pub(crate) fn finish(job: &mut SeededJob) -> Result<(usize, Outcome)> {
    match step(job, STEPS_MAX)? {
        (steps, Some(outcome)) => Ok((steps, outcome)),
        (steps, None) => Err(Error::internal(format!("stuck: not finished within {steps} steps"))),
    }
}
