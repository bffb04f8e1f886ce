//! A planned program: what it would do, how it is configured, and how it is started.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::{Graph, NodeKind};
use ruslo_core::rng::Rng;
use ruslo_core::sink::Guarantee;
use ruslo_core::upgrade::Upgrade;
use ruslo_runtime::alignment::Alignment;
use ruslo_runtime::job::{JobConfig, Start};
use ruslo_runtime::minimum;
use ruslo_sql::{AlignmentTimeout, BatchLimits, Delivery, JobKind, Planned, RestartKind, Settings};
use ruslo_state::store::CheckpointStore;

use crate::batch::{self, BatchSpec};
use crate::begin::{self, Beginning, FromSavepoint};
use crate::checkpoints::{self, Checkpoints, Sinks};
use crate::decision::{Decision, StartMode, decide};
use crate::job::{Job, Run};
use crate::program::available_parallelism;
use crate::restart::RestartStrategy;
use crate::summary::Summary;
use crate::supervise::{Attempts, Supervised};

/// How often a checkpoint begins where nobody says.
pub const CHECKPOINT_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);

/// What a pipeline may hold in memory where nobody says, in bytes.
pub const MEMORY_LIMIT_DEFAULT_BYTES: u64 = 2 << 30;

/// A planned program.
pub struct Pipeline {
    name: String,
    planned: Planned,
    environment: Environment,
    from: Option<FromSavepoint>,
    accepts_duplicates: bool,
}

impl Pipeline {
    pub(crate) fn new(file: Option<&str>, mut planned: Planned, environment: Environment) -> Self {
        if let Some(delivery) = &planned.delivery {
            planned.explain.push_str(&format!("\n== Delivery ==\n{delivery}\n"));
        }
        let stem = || Some(Path::new(file?).file_stem()?.to_string_lossy().into_owned());
        let name = planned.settings.name.clone().or_else(stem);
        let name = name.unwrap_or_else(|| format!("sql-{}", planned.fingerprint));
        Self { name, planned, environment, from: None, accepts_duplicates: false }
    }

    /// The same where rows that were shown may be shown again: if newer checkpoints are damaged, and a sink cannot take
    /// back what they had committed, a job is not resumed otherwise.
    #[must_use]
    pub fn accepting_duplicates(self, accepts_duplicates: bool) -> Self {
        Self { accepts_duplicates, ..self }
    }

    /// What the job is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the script does.
    pub fn kind(&self) -> JobKind {
        self.planned.kind
    }

    /// The plan as text: what EXPLAIN shows.
    pub fn explain(&self) -> &str {
        &self.planned.explain
    }

    /// What SHOW and DESCRIBE say, in the order of the script.
    pub fn output(&self) -> &str {
        &self.planned.output
    }

    /// The columns of the result; none, if the script only declares.
    pub fn schema(&self) -> Option<&SchemaRef> {
        self.planned.schema.as_ref()
    }

    /// The operators and what connects them.
    pub fn graph(&self) -> &Graph {
        &self.planned.graph
    }

    /// How many subtasks the widest operator has.
    pub fn parallelism(&self) -> usize {
        self.planned.graph.nodes.iter().map(|node| node.parallelism).max().unwrap_or(1)
    }

    /// How often a checkpoint begins.
    pub fn checkpoint_interval(&self) -> Duration {
        self.planned.settings.checkpoint_interval.unwrap_or(CHECKPOINT_INTERVAL_DEFAULT)
    }

    /// What holds if the process dies.
    pub fn guarantee(&self) -> Guarantee {
        self.planned.delivery.as_ref().map_or(Guarantee::ExactlyOnce, |delivery| delivery.guarantee)
    }

    /// The same with the reason; none, if there is nothing to run.
    pub fn delivery(&self) -> Option<&Delivery> {
        self.planned.delivery.as_ref()
    }

    /// Whether rows are shown at a checkpoint at the earliest: at-most-once, where something could be read again.
    fn holds_output(&self) -> bool {
        let is_again = |kind: &NodeKind| matches!(kind, NodeKind::Source(source) if source.source.is_replayable());
        self.guarantee() == Guarantee::AtMostOnce && self.planned.graph.nodes.iter().any(|node| is_again(&node.kind))
    }

    /// The same, to begin from a savepoint where it would begin from the beginning.
    #[must_use]
    pub fn from_savepoint(self, from: FromSavepoint) -> Self {
        Self { from: Some(from), ..self }
    }

    /// What would become of the state in the savepoint `folder` if this pipeline began from it.
    ///
    /// # Errors
    /// `Usage`, if there is no savepoint, or this is a batch job.
    pub fn upgrade_from(&self, folder: &Path) -> Result<Upgrade> {
        Ok(begin::upgrade(&self.environment.disk, folder, &self.planned)?.1)
    }

    /// Refuses a savepoint that this very query has not made.
    ///
    /// # Errors
    /// `Usage`, if there is no savepoint, or it is of another query.
    pub fn check_savepoint(&self, folder: &Path) -> Result<()> {
        let savepoint = ruslo_state::savepoint::open(Arc::clone(&self.environment.disk), folder)?;
        if savepoint.manifest.fingerprint == self.planned.fingerprint {
            return Ok(());
        }
        Err(Error::usage(format!("the savepoint in {} was made by another query", folder.display())))
    }

    /// What would become of the state of `old` if this pipeline began from a savepoint of it.
    ///
    /// # Errors
    /// `Usage`, if one of the two is a batch job.
    pub fn upgrade_of(&self, old: &Self) -> Result<Upgrade> {
        Upgrade::between(&begin::kept_by(&old.planned)?, &begin::kept_by(&self.planned)?)
    }

    /// Where its checkpoints are kept if nobody says: see [the crate](crate#checkpoints-and-starting-again).
    pub fn default_checkpoint_dir(&self) -> PathBuf {
        checkpoints::default_folder(&self.name)
    }

    /// Starts the pipeline on threads of this process, as [the crate](crate#checkpoints-and-starting-again) says.
    /// `checkpoint_dir` is a folder, which is created if it is missing, or an address as `s3://bucket/prefix`.
    ///
    /// # Errors
    /// `Usage`, if there is nothing to run, or `mode` does not say what to do with what the folder holds, or that is
    /// another query's; `Fenced`, if another process runs on the folder; `Corrupt`, if no checkpoint there is whole;
    /// `Unavailable`, if an object store does not answer; and whatever sources and sinks meet as they are opened.
    pub fn start(self, mode: StartMode, checkpoint_dir: Option<&Path>) -> Result<Job> {
        if matches!(self.planned.kind, JobKind::Nothing | JobKind::Explain) {
            return Err(Error::usage("there is nothing to run: the script has neither INSERT nor SELECT"));
        }
        self.check_memory()?;
        let begun = self.environment.clock.now();
        let mut rng = Rng::from_os();
        let mut name = || format!("{:016x}", rng.next_u64());
        let folder = checkpoint_dir.map_or_else(|| self.default_checkpoint_dir(), Path::to_owned);
        let beginning = self.from.as_ref().map(|from| Beginning::new(&self.environment.disk, from, &self.planned));
        let beginning = beginning.transpose()?;
        let store = CheckpointStore::at(Arc::clone(&self.environment.disk), &folder, name())?;
        let sinks = Sinks::of(&self.planned.graph, &self.environment);
        let is_default = checkpoint_dir.is_none();
        let checkpoints = Checkpoints::lock(store, sinks, self.planned.fingerprint.clone(), is_default)?;
        let checkpoints = Arc::new(checkpoints.accepting_duplicates(self.accepts_duplicates));
        let mut decided = decide(&checkpoints, mode, self.guarantee(), name(), beginning)?;
        decided.notices.extend(self.planned.choice.clone());
        let (name, clock) = (self.name.clone(), Arc::clone(&self.environment.clock));
        let run = match decided.decision {
            Decision::Finished(manifest) => {
                Run::Finished(Summary::of_manifest(&name, &folder, &self.planned.graph, &manifest))
            }
            Decision::Run(start) => match self.run(start, &checkpoints, &folder) {
                Ok(run) => run,
                Err(error) => {
                    checkpoints.clear_if_unused()?;
                    return Err(error);
                }
            },
        };
        Ok(Job::new(name, run, checkpoints, clock, begun, (decided.resumed_from, decided.notices)))
    }

    fn run(mut self, start: Start, checkpoints: &Arc<Checkpoints>, location: &Path) -> Result<Run> {
        let Some(query) = self.planned.batch.take() else {
            let rng = Rng::seeded(self.environment.seed);
            let strategy = RestartStrategy::new(self.planned.settings.restart.clone(), self.restarts(), rng);
            return Supervised::start(self.attempts(Arc::clone(checkpoints), location), start, strategy)
                .map(Run::Running);
        };
        let limits = BatchLimits {
            workers: available_parallelism().min(self.parallelism()),
            memory_limit_bytes: self.planned.settings.memory_limit_bytes.unwrap_or(MEMORY_LIMIT_DEFAULT_BYTES),
        };
        let store = checkpoints.store().clone();
        let Planned { graph, fingerprint, .. } = self.planned;
        let spec = BatchSpec { query, graph, limits, environment: self.environment, store, fingerprint };
        batch::start(spec, start).map(Run::Batch)
    }

    /// What becomes of a streaming job that failed, if nobody says. Nobody waits for the end of an endless one, so it
    /// is kept at work; somebody waits for that of another, and wants to know. What cannot be read again is not lost
    /// unasked.
    pub(crate) fn restarts(&self) -> RestartKind {
        let sources = || {
            self.planned.graph.nodes.iter().filter_map(|node| match &node.kind {
                NodeKind::Source(source) => Some(&source.source),
                _ => None,
            })
        };
        let is_endless = sources().any(|source| !source.is_bounded());
        match is_endless && sources().all(|source| source.is_replayable()) {
            true => RestartKind::ExponentialDelay,
            false => RestartKind::None,
        }
    }

    /// Refuses a limit that a streaming plan cannot work in.
    fn check_memory(&self) -> Result<()> {
        match self.planned.batch {
            Some(_) => Ok(()),
            None => {
                let config = config(&self.planned.settings, self.parallelism(), self.checkpoint_interval());
                minimum::check(&self.planned.graph, &config)
            }
        }
    }

    fn attempts(self, checkpoints: Arc<Checkpoints>, location: &Path) -> Attempts {
        Attempts {
            config: JobConfig {
                holds_output: self.holds_output(),
                delivery: Some(self.guarantee()),
                ..config(&self.planned.settings, self.parallelism(), self.checkpoint_interval())
            },
            guarantee: self.guarantee(),
            graph: self.planned.graph,
            environment: self.environment,
            fingerprint: self.planned.fingerprint,
            plan: self.planned.compiled,
            checkpoints,
            location: location.to_owned(),
        }
    }
}

fn config(settings: &Settings, parallelism: usize, interval: Duration) -> JobConfig {
    let mut config = JobConfig {
        memory_limit_bytes: settings.memory_limit_bytes.unwrap_or(MEMORY_LIMIT_DEFAULT_BYTES),
        checkpoint_interval: Some(interval),
        source_idle_timeout: settings.source_idle_timeout,
        workers: available_parallelism().min(parallelism),
        ..JobConfig::default()
    };
    match settings.alignment_timeout {
        AlignmentTimeout::Runtime => {}
        AlignmentTimeout::After(after) => config.alignment = Alignment::Overtaking { after },
        AlignmentTimeout::Never => config.alignment = Alignment::Aligned,
    }
    if settings.delivery == Some(Guarantee::AtLeastOnce) {
        config.alignment = Alignment::AtLeastOnce;
    }
    if let Some(rows) = settings.batch_rows {
        config.batch_rows = rows;
    }
    if let Some(rows) = settings.channel_rows {
        config.credit.rows_max = rows;
    }
    if let Some(bytes) = settings.channel_bytes {
        config.credit.bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    config
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("name", &self.name).field("kind", &self.planned.kind).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Program;

    #[test]
    fn a_job_is_called_by_its_setting_its_file_or_its_fingerprint() {
        let named = "SET 'pipeline.name' = 'Hourly delays'";
        assert_eq!(Program::new("sql/a.b.sql", named).plan().unwrap().name(), "Hourly delays");
        assert_eq!(Program::new("sql/a.b.sql", "").plan().unwrap().name(), "a.b");
        assert!(Program::inline("-e", "").plan().unwrap().name().starts_with("sql-"));
    }

    #[test]
    fn settings_reach_the_runtime_and_the_rest_has_bounds() {
        let none = config(&Settings::default(), 1, CHECKPOINT_INTERVAL_DEFAULT);
        assert_eq!((none.memory_limit_bytes, none.workers), (MEMORY_LIMIT_DEFAULT_BYTES, 1));
        let given = Settings {
            memory_limit_bytes: Some(5),
            batch_rows: Some(7),
            channel_rows: Some(8),
            channel_bytes: Some(9),
            source_idle_timeout: Some(Duration::from_secs(2)),
            ..Settings::default()
        };
        let config = config(&given, 1_000, Duration::from_secs(1));
        assert_eq!((config.memory_limit_bytes, config.batch_rows), (5, 7));
        assert_eq!((config.credit.rows_max, config.credit.bytes_max), (8, 9));
        assert_eq!(config.checkpoint_interval, Some(Duration::from_secs(1)));
        assert_eq!(config.source_idle_timeout, Some(Duration::from_secs(2)));
        assert_eq!(config.workers, available_parallelism());
    }

    #[test]
    fn a_script_that_only_declares_cannot_be_started() {
        let error = Program::new("a.sql", "").plan().unwrap().start(StartMode::New, None).err().unwrap();
        assert_eq!(error.to_string(), "there is nothing to run: the script has neither INSERT nor SELECT");
    }

    const TABLES: &str = "
        CREATE TABLE piped (a INT) WITH ('connector' = 'stdin', 'format' = 'csv');
        CREATE TABLE made (a INT) WITH ('connector' = 'datagen', 'number-of-rows' = '3');
        CREATE TABLE printed (a INT) WITH ('connector' = 'print');
        CREATE TABLE dropped (a INT) WITH ('connector' = 'blackhole');";

    fn planned(delivery: &str, query: &str) -> Result<Pipeline> {
        let set = if delivery.is_empty() { String::new() } else { format!("SET 'execution.delivery' = '{delivery}';") };
        Program::new("a.sql", format!("{set}{TABLES}\n{query}")).plan()
    }

    #[test]
    fn a_pipeline_promises_what_its_tables_can_or_less() {
        let told = |delivery, query| {
            let pipeline = planned(delivery, query).unwrap();
            (pipeline.delivery().unwrap().to_string(), pipeline.holds_output())
        };
        let said = |text: &str, holds| (text.to_owned(), holds);
        assert_eq!(told("", "INSERT INTO dropped SELECT a FROM made"), said("exactly-once: every table can", false));
        assert_eq!(told("", "SELECT a FROM made"), said("at-least-once: 'print' gives no more", false));
        assert_eq!(
            told("", "INSERT INTO printed SELECT a FROM piped"),
            said("at-most-once: 'stdin' gives no more", false)
        );
        let both = "INSERT INTO printed SELECT a FROM piped UNION ALL SELECT a FROM made";
        assert_eq!(told("", both), said("at-most-once: 'stdin' gives no more", true));
        let asked = "at-most-once: as 'execution.delivery' says";
        assert_eq!(told("at-most-once", "INSERT INTO printed SELECT a FROM made"), said(asked, true));
        let explained = planned("", "EXPLAIN SELECT a FROM made").unwrap();
        assert!(explained.explain().ends_with("\n== Delivery ==\nat-least-once: 'print' gives no more\n"));
    }

    #[test]
    fn more_than_a_table_can_do_is_refused_with_who_can() {
        let refused = |delivery, query| planned(delivery, query).err().unwrap().to_string();
        let error = refused("exactly-once", "INSERT INTO printed SELECT a FROM made");
        let sentence = "'execution.delivery' = 'exactly-once': the table 'printed' is written by 'print', which gives \
                        at-least-once at most\n --> a.sql:1:5\n";
        assert!(error.starts_with(sentence), "{error}");
        let help = "= help: 'blackhole', 'filesystem' give exactly-once; or ask for 'at-least-once'";
        assert!(error.ends_with(help), "{error}");
        let error = refused("at-least-once", "INSERT INTO dropped SELECT a FROM piped");
        assert!(error.contains("the table 'piped' is read by 'stdin', which gives at-most-once at most"), "{error}");
        let help = "= help: 'datagen', 'filesystem', 'nexmark' give at-least-once; or ask for 'at-most-once'";
        assert!(error.ends_with(help), "{error}");
        let error = refused("exactly-once", "SELECT a FROM made");
        assert!(error.contains("the rows of a SELECT are printed, which gives at-least-once at most"), "{error}");
        let batch = "SET 'execution.runtime-mode' = 'batch'; INSERT INTO printed SELECT a FROM made";
        let error = refused("at-most-once", batch);
        assert!(error.contains("a batch job that failed starts over, and shows its rows again"), "{error}");
    }
}
