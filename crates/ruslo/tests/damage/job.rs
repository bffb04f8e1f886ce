//! The job: its input, its rows by hand, a run that is abandoned midway, and one that goes on.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ruslo::{ErrorKind, Program, StartMode};
use ruslo_core::clock::VirtualClock;
use ruslo_core::disk::LocalDisk;
use ruslo_core::environment::Environment;
use ruslo_core::rng::Rng;
use ruslo_core::standard_input::NoInput;
use ruslo_runtime::executor::seeded::SeededJob;
use ruslo_runtime::job::{JobConfig, JobSpec, Start};
use ruslo_sql::{Planning, Script};
use ruslo_state::store::CheckpointStore;
use serde_json::Value;
use tempfile::TempDir;

use crate::gate::gate;
use crate::keyed;

const ROWS: usize = 1_500;
/// So many of them are read before the job is abandoned, at most.
const ROWS_BEFORE: usize = ROWS - 100;
const KEYS: usize = 6;
const WINDOW_SECONDS: u64 = 10;
const GAP_SECONDS: u64 = 3;
const BEST: usize = 2;

/// How long a resumed job may take before it is taken for stuck.
const STUCK: Duration = Duration::from_secs(60);

const SCRIPT: &str = "
CREATE TABLE t (k STRING, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH (
  'connector' = 'filesystem', 'path' = '${home}/in.csv', 'format' = 'csv', 'source.split-size' = '4 kb');
CREATE TABLE windows (k STRING, s TIMESTAMP(3), n BIGINT, v BIGINT)
WITH ('connector' = 'filesystem', 'path' = '${home}/out/windows', 'format' = 'csv');
CREATE TABLE sessions (k STRING, s TIMESTAMP(3), n BIGINT, v BIGINT)
WITH ('connector' = 'filesystem', 'path' = '${home}/out/sessions', 'format' = 'csv');
CREATE TABLE best (k STRING, s TIMESTAMP(3), place BIGINT, v BIGINT)
WITH ('connector' = 'filesystem', 'path' = '${home}/out/best', 'format' = 'csv');
EXECUTE STATEMENT SET BEGIN
INSERT INTO windows SELECT k, window_start, COUNT(*), SUM(v)
  FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY k, window_start, window_end;
INSERT INTO sessions SELECT k, window_start, COUNT(*), SUM(v)
  FROM TABLE(SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '3' SECOND)) GROUP BY k, window_start, window_end;
INSERT INTO best SELECT k, window_start, place, v FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY v DESC, k) AS place FROM (
    SELECT k, window_start, window_end, SUM(v) AS v
    FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND)) GROUP BY k, window_start, window_end))
  WHERE place <= 2;
END;";

/// Rows as a multiset, each behind its table's name.
pub(crate) type Rows = BTreeMap<String, usize>;

/// How a resumed job ended.
pub(crate) enum Ended {
    Finished { notices: Vec<String> },
    Refused { what: String, is_corrupt: bool },
}

/// A job that was abandoned midway, with its folders as they were then.
pub(crate) struct World {
    home: TempDir,
    text: String,
    tables: &'static [&'static str],
    memory_limit_bytes: u64,
    pub(crate) expected: Rows,
}

/// A row of the input: key, value, milliseconds since the first second.
pub(crate) type Row = (usize, u64, u64);

/// Rows whose times jump back by less than the watermark waits for.
fn rows(rng: &mut Rng) -> Vec<Row> {
    let mut now = 5_000;
    let mut next = || {
        let step = if rng.one_in(12) { 2_500 } else { 120 };
        now += rng.below(step) as u64;
        (rng.below(KEYS), rng.below(1_000) as u64, now - rng.below(4_900) as u64)
    };
    (0..ROWS).map(|_| next()).collect()
}

pub(crate) fn time(millis: u64) -> String {
    let (seconds, rest) = (millis / 1_000, millis % 1_000);
    let rest = format!(".{rest:03}");
    let rest = rest.trim_end_matches('0').trim_end_matches('.');
    format!("2026-01-01 {:02}:{:02}:{:02}{rest}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// What the three tables must hold.
fn expected(rows: &[Row]) -> Rows {
    let mut windows: BTreeMap<(u64, usize), (u64, u64)> = BTreeMap::new();
    let mut times: BTreeMap<usize, Vec<(u64, u64)>> = BTreeMap::new();
    for (key, value, at) in rows {
        let (n, sum) = windows.entry((at / 1_000 / WINDOW_SECONDS, *key)).or_default();
        (*n, *sum) = (*n + 1, *sum + value);
        times.entry(*key).or_default().push((*at, *value));
    }
    let mut all = Rows::new();
    let mut add = |table: &str, key: usize, start: u64, a: u64, b: u64| {
        *all.entry(format!("{table}: k{key},{},{a},{b}", time(start))).or_default() += 1;
    };
    let mut of_window: BTreeMap<u64, Vec<(u64, usize)>> = BTreeMap::new();
    for ((window, key), (n, sum)) in windows {
        add("windows", key, window * WINDOW_SECONDS * 1_000, n, sum);
        of_window.entry(window).or_default().push((sum, key));
    }
    for (window, mut sums) in of_window {
        sums.sort_by_key(|(sum, key)| (u64::MAX - sum, *key));
        for (place, (sum, key)) in sums.into_iter().take(BEST).enumerate() {
            add("best", key, window * WINDOW_SECONDS * 1_000, place as u64 + 1, sum);
        }
    }
    for (key, mut times) in times {
        times.sort();
        let mut session: Option<(u64, u64, u64, u64)> = None;
        for (at, value) in times {
            session = match session {
                Some((start, last, n, sum)) if at <= last + GAP_SECONDS * 1_000 => {
                    Some((start, at, n + 1, sum + value))
                }
                before => {
                    if let Some((start, _, n, sum)) = before {
                        add("sessions", key, start, n, sum);
                    }
                    Some((at, at, 1, value))
                }
            };
        }
        if let Some((start, _, n, sum)) = session {
            add("sessions", key, start, n, sum);
        }
    }
    all
}

/// Every range of a file that a manifest names, wherever it does.
fn ranges(value: &Value, into: &mut Vec<(String, Range<usize>)>) {
    if let (Some(file), Some(offset), Some(length)) =
        (value["file"].as_str(), value["offset"].as_u64(), value["length"].as_u64())
    {
        into.push((file.to_owned(), offset as usize..(offset + length) as usize));
    }
    let inner: Vec<_> = match value {
        Value::Array(values) => values.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    };
    inner.into_iter().for_each(|value| ranges(value, into));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => _ = fs::copy(entry.path(), target).unwrap(),
        }
    }
}

impl World {
    /// Runs the job of `seed` up to a moment at which some checkpoints are there, and drops it as a crash would.
    pub(crate) fn abandoned(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed);
        let memory = Path::new("/dev/shm");
        let home = if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() };
        let rows = rows(&mut rng);
        let lines = rows.iter().map(|(key, value, at)| format!("k{key},{value},{}\n", time(*at)));
        fs::write(home.path().join("in.csv"), lines.collect::<String>()).unwrap();
        let here = home.path().to_str().unwrap();
        let world = match seed % 3 {
            2 => Self {
                text: keyed::SCRIPT.replace("${home}", here),
                tables: &keyed::TABLES,
                memory_limit_bytes: keyed::MEMORY_LIMIT_BYTES,
                expected: keyed::expected(&rows),
                home,
            },
            _ => Self {
                text: SCRIPT.replace("${home}", here),
                tables: &["windows", "sessions", "best"],
                memory_limit_bytes: u64::MAX,
                expected: expected(&rows),
                home,
            },
        };
        world.abandon(&mut rng);
        for name in ["checkpoints", "out"] {
            copy(&world.path(name), &world.path("kept").join(name));
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn checkpoints(&self) -> PathBuf {
        self.path("checkpoints")
    }

    pub(crate) fn manifests(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.checkpoints().join("manifests")).unwrap().map(|entry| entry.unwrap().path());
        let is_numbered = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.strip_suffix(".json").is_some_and(|stem| stem.len() == 20 && stem.parse::<u64>().is_ok())
        };
        let mut paths: Vec<_> = entries.filter(is_numbered).collect();
        paths.sort();
        paths
    }

    /// Whether the newest checkpoint that stands there is as it was when the job was abandoned. Bytes that it
    /// does not name do not matter: nobody reads them.
    pub(crate) fn newest_is_whole(&self) -> bool {
        let kept = |path: &Path| self.path("kept").join(path.strip_prefix(self.home.path()).unwrap());
        let Some(newest) = self.manifests().pop() else { return true };
        let manifest = fs::read(&newest).unwrap();
        if fs::read(kept(&newest)).ok() != Some(manifest.clone()) {
            return false;
        }
        let text = String::from_utf8(manifest).unwrap();
        let mut named = Vec::new();
        ranges(&serde_json::from_str(text.split_once('\n').unwrap().1).unwrap(), &mut named);
        named.iter().all(|(file, range)| {
            let now = fs::read(self.checkpoints().join("runs").join(file)).unwrap_or_default();
            let then = fs::read(self.path("kept/checkpoints/runs").join(file)).unwrap();
            now.get(range.clone()) == then.get(range.clone())
        })
    }

    /// The folders as they were when the job was abandoned.
    pub(crate) fn put_back(&self) {
        for name in ["checkpoints", "out"] {
            let _ = fs::remove_dir_all(self.path(name));
            copy(&self.path("kept").join(name), &self.path(name));
        }
    }

    fn environment(&self, clock: &Arc<VirtualClock>) -> Environment {
        Environment {
            clock: Arc::clone(clock) as _,
            disk: Arc::new(LocalDisk),
            input: Arc::new(NoInput),
            console: Arc::new(Mutex::new(Vec::new())),
            seed: 1,
        }
    }

    fn abandon(&self, rng: &mut Rng) {
        let clock = Arc::new(VirtualClock::default());
        let environment = self.environment(&clock);
        let registry = ruslo_connectors::registry();
        let overrides = [("parallelism.default".to_owned(), (1 + rng.below(3)).to_string())];
        let planning =
            Planning { registry: &registry, environment: &environment, overrides: &overrides, default_parallelism: 1 };
        let mut planned = ruslo_sql::plan(Script { name: "damage.sql", text: &self.text }, &planning).unwrap();
        gate(&mut planned.graph, ROWS_BEFORE);
        let config = JobConfig {
            batch_rows: 4,
            checkpoint_interval: Some(Duration::from_micros(100)),
            memory_limit_bytes: self.memory_limit_bytes,
            ..JobConfig::default()
        };
        let store = CheckpointStore::open(Arc::new(LocalDisk), &self.checkpoints(), "abandoned").unwrap();
        let (fingerprint, plan) = (planned.fingerprint, planned.compiled);
        let start = Start::Fresh { run: "run".to_owned() };
        let spec = JobSpec { graph: planned.graph, config, environment, store, fingerprint, plan, start };
        let mut job = SeededJob::start(spec, clock, Rng::seeded(rng.next_u64())).unwrap();
        let enough = 3 + rng.below(4) as u64;
        while self.newest() < enough {
            assert!(job.step().unwrap().is_none(), "who does not get to the end of the input cannot end");
        }
        for _ in 0..rng.below(50) {
            job.step().unwrap();
        }
        assert!(fs::read_dir(self.checkpoints().join("runs")).unwrap().count() > 2, "there is no state");
    }

    fn newest(&self) -> u64 {
        let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
        self.manifests().pop().map_or(0, stem)
    }

    /// Goes on as `ruslo run --resume` does.
    pub(crate) fn resume(&self) -> Ended {
        let clock = Arc::new(VirtualClock::default());
        let program = Program::new("damage.sql", &self.text).set("parallelism.default", "2");
        let pipeline = program.plan_in(Environment { clock: Environment::local().clock, ..self.environment(&clock) });
        let refused = |error: ruslo::Error| Ended::Refused {
            what: error.to_string(),
            is_corrupt: error.kind() == ErrorKind::Corrupt,
        };
        let job = match pipeline.unwrap().start(StartMode::Resume, Some(&self.checkpoints())) {
            Ok(job) => job,
            Err(error) => return refused(error),
        };
        let notices = job.notices().to_vec();
        assert!(job.wait_timeout(STUCK), "stuck");
        match job.wait() {
            Ok(_) => Ended::Finished { notices },
            Err(error) => refused(error),
        }
    }

    /// What stands in the sinks' folders for everybody to see.
    pub(crate) fn output(&self) -> Rows {
        let mut rows = Rows::new();
        for table in self.tables {
            let Ok(entries) = fs::read_dir(self.path("out").join(table)) else { continue };
            let paths = entries.map(|entry| entry.unwrap().path());
            for path in paths.filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.')) {
                for line in fs::read_to_string(path).unwrap().lines() {
                    *rows.entry(format!("{table}: {line}")).or_default() += 1;
                }
            }
        }
        rows
    }
}
