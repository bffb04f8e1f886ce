//! What can be asked of the command.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ruslo::StartMode;

use crate::exit;

/// Streaming SQL, exactly once, on your own machine.
#[derive(Debug, Parser)]
#[command(name = "ruslo", version, about, after_help = exit::HELP, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a script: its INSERT, or its SELECT, whose rows are printed
    #[command(after_help = exit::HELP)]
    Run(Run),
    /// Check a script without running it
    Check(Sql),
    /// Show the plan of a script without running it
    Explain(Sql),
    /// Look at the checkpoints of a job, running or not
    Checkpoint {
        #[command(subcommand)]
        what: Checkpoint,
    },
    /// Show what every operator and edge counted in a checkpoint; exit code 70 if it does not add up
    Ledger {
        #[command(flatten)]
        place: CheckpointPlace,

        /// Which [default: the newest]
        epoch: Option<u64>,
    },
    /// Have a running job make a savepoint, and go on
    #[command(after_help = exit::HELP)]
    Savepoint(Savepoint),
    /// Stop a running job at a checkpoint, from which it can go on
    #[command(after_help = exit::HELP)]
    Stop(Stop),
    /// Tell what would become of a job's state if its query changed
    #[command(after_help = exit::HELP)]
    Upgrade(Upgrade),
    /// Look at the rows that operators keep, in a checkpoint or a savepoint
    State {
        #[command(subcommand)]
        what: StateCommand,
    },
    /// Measure how fast this machine runs a benchmark
    Bench {
        #[command(subcommand)]
        benchmark: Benchmark,
    },
    /// Show the version
    Version,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Checkpoint {
    /// Which checkpoints there are
    List(CheckpointPlace),
    /// What one consists of: operators, their tables, how far the input is read
    Inspect {
        #[command(flatten)]
        place: CheckpointPlace,

        /// Which [default: the newest]
        epoch: Option<u64>,
    },
    /// Read every byte of all of them, or of one, and say what is damaged; exit code 5 if something is
    Verify {
        #[command(flatten)]
        place: CheckpointPlace,

        /// Which [default: all]
        epoch: Option<u64>,
    },
}

/// Where checkpoints are, and how they are told about.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckpointPlace {
    /// The folder, or s3://bucket/prefix
    pub(crate) dir: PathBuf,

    /// Tables for people, or one JSON object
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StateCommand {
    /// Which tables operators have, with their columns
    List {
        #[command(flatten)]
        place: StatePlace,

        /// A table, or one line of JSON
        #[arg(long, value_name = "FORM", default_value = "text")]
        output: Output,
    },
    /// The rows under a key, as JSON, one object a line
    Get {
        #[command(flatten)]
        place: StatePlace,

        #[command(flatten)]
        of: StateOf,

        /// The value of a key column; once for each, in their order; NULL is none
        #[arg(long, value_name = "VALUE", required = true, allow_hyphen_values = true)]
        key: Vec<String>,
    },
    /// All rows of a table: to a Parquet file, or as JSON or CSV
    Dump {
        #[command(flatten)]
        place: StatePlace,

        #[command(flatten)]
        of: StateOf,

        /// A file that is not there yet [default: standard output]
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,

        /// Its form [default: parquet into a file, json to standard output]
        #[arg(long = "format", value_name = "FORM")]
        form: Option<DumpForm>,
    },
}

/// Which checkpoint.
#[derive(Debug, Clone, Args)]
pub(crate) struct StatePlace {
    /// A checkpoint folder, a savepoint, or an address as s3://bucket/prefix
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,

    /// Which checkpoint [default: the newest]
    #[arg(long, value_name = "N")]
    pub(crate) epoch: Option<u64>,
}

/// Which table.
#[derive(Debug, Clone, Args)]
pub(crate) struct StateOf {
    /// The operator, by its name or its id
    #[arg(long, value_name = "NAME")]
    pub(crate) operator: Option<String>,

    /// The table
    #[arg(long, value_name = "NAME")]
    pub(crate) table: Option<String>,
}

/// The form of rows that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DumpForm {
    Parquet,
    Json,
    Csv,
}

impl DumpForm {
    /// The format's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }

    /// Its options: a CSV file says what its columns are.
    pub(crate) fn options(self) -> BTreeMap<String, String> {
        match self {
            Self::Csv => [("csv.header".to_owned(), "true".to_owned())].into(),
            Self::Parquet | Self::Json => BTreeMap::new(),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Benchmark {
    /// Nexmark's queries, each in a process of its own
    Nexmark(Bench),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Bench {
    /// Which queries, as a comma list; 'all' are those there are
    #[arg(long, value_name = "NAMES", default_value = "all")]
    pub(crate) queries: String,

    /// Where the events come from: 'generator' makes them up, 'json' reads files
    #[arg(long, value_name = "SOURCE", default_value = "generator")]
    pub(crate) source: BenchSource,

    /// The folder with the files, for 'json'
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// How many events of all kinds the generator makes
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,

    /// Subtasks of each operator [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) parallelism: Option<String>,

    /// How often each query runs; the table has the medians
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rounds: u64,

    /// A table, or one line of JSON a run
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) output: Output,
}

/// Where a benchmark's events come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum BenchSource {
    Generator,
    Json,
}

/// A script, and settings over its own.
#[derive(Debug, Clone, Args)]
pub(crate) struct Sql {
    /// The script; '-' reads standard input
    #[arg(value_name = "FILE.sql", required_unless_present = "execute")]
    pub(crate) file: Option<PathBuf>,

    /// The SQL itself, instead of a file
    #[arg(short = 'e', long, value_name = "SQL", conflicts_with = "file")]
    pub(crate) execute: Option<String>,

    /// Subtasks of each operator [default: one per core]
    #[arg(long, value_name = "N")]
    pub(crate) parallelism: Option<String>,

    /// Set a key as the script's SET does, over what the script says; 'source.rows-per-second' slows every source
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) settings: Vec<(String, String)>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) sql: Sql,

    /// More scripts, each a pipeline of its own in the same process
    #[arg(value_name = "MORE.sql", conflicts_with = "from_savepoint")]
    pub(crate) more: Vec<PathBuf>,

    /// Where checkpoints are kept, a folder or s3://bucket/prefix; with several scripts a folder of each job below it [default: .ruslo/checkpoints/<job name>, removed again when the job has finished]
    #[arg(long, value_name = "DIR")]
    pub(crate) checkpoint_dir: Option<PathBuf>,

    /// How often a checkpoint begins, such as 10s or 500ms [default: 10s]
    #[arg(long, value_name = "TIME")]
    pub(crate) checkpoint_interval: Option<String>,

    /// Go on from the newest checkpoint; with none there, from the beginning
    #[arg(long, conflicts_with = "fresh")]
    pub(crate) resume: bool,

    /// With --resume: if the newest checkpoints are damaged, show again what was shown with them and cannot be taken back
    #[arg(long, requires = "resume")]
    pub(crate) accept_duplicates: bool,

    /// Start from the beginning, even if an interrupted run could be resumed
    #[arg(long)]
    pub(crate) fresh: bool,

    /// Begin from a savepoint: its sources go on where they were, its state is carried over
    #[arg(long, value_name = "DIR")]
    pub(crate) from_savepoint: Option<PathBuf>,

    /// Leave behind what the savepoint has and the query has no use for
    #[arg(long, requires = "from_savepoint")]
    pub(crate) allow_dropped_state: bool,

    /// Serve /metrics, /api/v1/jobs and /healthz on this address, such as 127.0.0.1:9249, while the job runs
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<SocketAddr>,

    /// Let --http listen where others than this machine can read
    #[arg(long, requires = "http")]
    pub(crate) insecure: bool,

    /// Send the figures of /metrics to an OpenTelemetry collector over OTLP/HTTP [default: http://localhost:4318]
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "")]
    pub(crate) otlp: Option<String>,

    /// How the summary is told: text on standard error, or one line of JSON, the last one on standard output
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Upgrade {
    /// Only tell: what is kept, begun, dropped; exit code 0 if it fits, 2 if not
    #[arg(long, required = true)]
    pub(crate) dry_run: bool,

    /// The script that made the state
    #[arg(value_name = "OLD.sql")]
    pub(crate) old: PathBuf,

    /// The script that is to go on with it
    #[arg(value_name = "NEW.sql")]
    pub(crate) new: PathBuf,

    /// Compare with what this savepoint holds
    #[arg(long, value_name = "DIR")]
    pub(crate) savepoint: Option<PathBuf>,

    /// It fits even if something is dropped
    #[arg(long)]
    pub(crate) allow_dropped_state: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Savepoint {
    /// The checkpoint folder that the job runs on, such as .ruslo/checkpoints/<job name>
    #[arg(value_name = "CHECKPOINT_DIR")]
    pub(crate) checkpoint_dir: PathBuf,

    /// The folder of the savepoint: a new one, or an empty one
    #[arg(value_name = "TARGET_DIR")]
    pub(crate) target: PathBuf,

    /// How long to wait for it, such as 30s or 10min [default: 10min]
    #[arg(long, value_name = "TIME", value_parser = ruslo::parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// Text, or one line of JSON
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Stop {
    /// The checkpoint folder that the job runs on, such as .ruslo/checkpoints/<job name>
    #[arg(value_name = "CHECKPOINT_DIR")]
    pub(crate) checkpoint_dir: PathBuf,

    /// Make a savepoint of where it stops: the folder, a new one or an empty one
    #[arg(long, value_name = "TARGET_DIR")]
    pub(crate) savepoint: Option<PathBuf>,

    /// Let open windows fire as if the input had ended; the job is finished then, and does not go on
    #[arg(long)]
    pub(crate) drain: bool,

    /// How long to wait for it, such as 30s or 10min [default: 10min]
    #[arg(long, value_name = "TIME", value_parser = ruslo::parse_duration)]
    pub(crate) timeout: Option<Duration>,

    /// Text, or one line of JSON
    #[arg(long, value_name = "FORM", default_value = "text")]
    pub(crate) output: Output,
}

/// How the summary is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

impl Run {
    /// The same for each script alone.
    pub(crate) fn each(&self) -> Vec<Self> {
        let files = self.sql.file.iter().chain(&self.more);
        let one = |file: &PathBuf| {
            let sql = Sql { file: Some(file.clone()), ..self.sql.clone() };
            Self { sql, more: Vec::new(), ..self.clone() }
        };
        files.map(one).collect()
    }

    pub(crate) fn mode(&self) -> StartMode {
        match (self.resume, self.fresh) {
            (true, _) => StartMode::Resume,
            (_, true) => StartMode::Fresh,
            _ => StartMode::New,
        }
    }
}

fn key_value(given: &str) -> Result<(String, String), String> {
    match given.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("write key=value, as in parallelism.default=2".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(arguments: &[&str]) -> Run {
        let given = ["ruslo", "run"].iter().chain(arguments);
        match Cli::try_parse_from(given).unwrap().command {
            Command::Run(run) => run,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_script_is_a_file_or_a_text() {
        assert_eq!(run(&["a.sql"]).sql.file.unwrap(), PathBuf::from("a.sql"));
        assert_eq!(run(&["-e", "SELECT 1"]).sql.execute.unwrap(), "SELECT 1");
        assert!(Cli::try_parse_from(["ruslo", "run"]).is_err());
        assert!(Cli::try_parse_from(["ruslo", "run", "-e", "SELECT 1", "a.sql"]).is_err());
        assert!(Cli::try_parse_from(["ruslo", "run", "a.sql", "-e", "SELECT 1"]).is_err());
    }

    #[test]
    fn several_scripts_are_run_with_the_same_options() {
        let each = run(&["a.sql", "b.sql", "--parallelism", "2", "c.sql"]).each();
        let files: Vec<_> = each.iter().map(|run| run.sql.file.clone().unwrap()).collect();
        assert_eq!(files, ["a.sql", "b.sql", "c.sql"].map(PathBuf::from));
        assert!(each.iter().all(|run| run.sql.parallelism.as_deref() == Some("2") && run.more.is_empty()));
    }

    #[test]
    fn how_to_start_is_said_at_most_once() {
        assert_eq!(run(&["a.sql"]).mode(), StartMode::New);
        assert_eq!(run(&["a.sql", "--resume"]).mode(), StartMode::Resume);
        assert_eq!(run(&["a.sql", "--fresh"]).mode(), StartMode::Fresh);
        assert!(Cli::try_parse_from(["ruslo", "run", "a.sql", "--fresh", "--resume"]).is_err());
    }

    #[test]
    fn a_collector_has_an_address_or_the_usual_one() {
        assert_eq!(run(&["a.sql"]).otlp, None);
        assert_eq!(run(&["a.sql", "--otlp"]).otlp.unwrap(), "");
        assert_eq!(run(&["--otlp", "http://c:4318", "a.sql"]).otlp.unwrap(), "http://c:4318");
    }

    #[test]
    fn settings_are_keys_and_values() {
        let run = run(&["a.sql", "--set", "a = b=c", "--set", "d="]);
        let expected = [("a", "b=c"), ("d", "")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(run.sql.settings, expected);
        assert!(Cli::try_parse_from(["ruslo", "run", "a.sql", "--set", "parallelism"]).is_err());
    }
}
