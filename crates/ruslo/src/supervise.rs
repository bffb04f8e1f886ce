//! Keeps a streaming job at work: waits for its end, and after a failure that a second try may mend starts it again from
//! its newest checkpoint, when its [`RestartStrategy`] says so.
//!
//! ```text
//! Running ─ended─▶ Over
//!    │ ▲
//!  failed └─started again──┐
//!    ▼                     │
//! Waiting ─the delay is over, or a stop─▶ Over
//! ```
//!
//! A failed attempt is given up as a whole: its threads have ended, and all that it held in memory and every file that it
//! had open are gone, before the next one looks at the disk. So nothing that a failed sync may have lost is built on.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use ruslo_core::environment::Environment;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::Graph;
use ruslo_core::plan::CompiledPlan;
use ruslo_core::rng::Rng;
use ruslo_core::sink::Guarantee;
use ruslo_core::time::Timestamp;
use ruslo_runtime::ask::Ask;
use ruslo_runtime::coordinator::Outcome;
use ruslo_runtime::executor::threads::{self, RunningJob};
use ruslo_runtime::job::{JobConfig, JobSpec, Start};
use ruslo_runtime::panic::caught;
use ruslo_runtime::status::JobStatus;
use ruslo_state::store::CheckpointStore;

use crate::checkpoints::Checkpoints;
use crate::decision::{Decision, StartMode, decide};
use crate::restart::RestartStrategy;

/// What all attempts of a job have in common.
pub(crate) struct Attempts {
    pub(crate) graph: Graph,
    pub(crate) config: JobConfig,
    pub(crate) environment: Environment,
    pub(crate) fingerprint: String,
    pub(crate) plan: Option<CompiledPlan>,
    pub(crate) guarantee: Guarantee,
    pub(crate) checkpoints: Arc<Checkpoints>,
    /// Where those are.
    pub(crate) location: PathBuf,
}

/// A failure after which the job was to be started again.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// What happened.
    pub error: Error,
    /// When.
    pub at: Timestamp,
    /// How long the job waited then before it was started again.
    pub delay: Duration,
}

/// How often a job has failed since this process started it, and was to go on from its last checkpoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Restarts {
    /// How often it was started again.
    pub count: u64,
    /// Its last failure.
    pub last_failure: Option<Failure>,
    /// Whether it is down now, until its delay is over.
    pub is_waiting: bool,
    /// What its user should know about the last new start: damaged checkpoints, rows that may come again.
    pub notices: Vec<String>,
}

/// A streaming job at work, or over.
pub(crate) struct Supervised {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Looks at a job, as long as anybody likes.
#[derive(Clone)]
pub struct Watcher(Arc<Shared>);

/// Asks a supervised job to stop.
#[derive(Clone)]
pub(crate) struct StopSupervised(Arc<Shared>);

/// What the supervising thread and the job's watchers share.
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
}

struct Seen {
    /// Of the last attempt.
    status: Arc<JobStatus>,
    /// Asks the attempt that runs.
    stop: Option<threads::StopHandle>,
    is_stop_wanted: bool,
    restarts: Restarts,
    /// The most memory that an attempt before the last one held.
    peak_bytes: u64,
    /// The last checkpoint that an attempt before the last one completed.
    checkpoint: Option<Epoch>,
    result: Option<Result<Outcome>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last checkpoint that any attempt completed.
    fn last_checkpoint(&self) -> Option<Epoch> {
        let seen = self.lock();
        seen.status.last_checkpoint().map(|report| report.epoch).or(seen.checkpoint)
    }

    fn stop(&self) {
        let mut seen = self.lock();
        seen.is_stop_wanted = true;
        if let Some(stop) = &seen.stop {
            stop.stop();
        }
        self.changed.notify_all();
    }

    /// The job goes on.
    fn restarted(&self, notices: Vec<String>) {
        let restarts = &mut self.lock().restarts;
        restarts.count += 1;
        restarts.is_waiting = false;
        restarts.notices = notices;
    }

    /// An attempt runs.
    fn began(&self, running: &RunningJob) {
        let mut seen = self.lock();
        let before = std::mem::replace(&mut seen.status, Arc::clone(running.status()));
        seen.peak_bytes = seen.peak_bytes.max(before.memory.peak_bytes());
        seen.checkpoint = before.last_checkpoint().map(|report| report.epoch).or(seen.checkpoint);
        let stop = running.stop_handle();
        if seen.is_stop_wanted {
            stop.stop();
        }
        seen.stop = Some(stop);
    }

    /// An attempt has failed, and in `failure.delay` comes the next.
    fn failed(&self, failure: Failure) {
        let mut seen = self.lock();
        seen.stop = None;
        seen.restarts.last_failure = Some(failure);
        seen.restarts.is_waiting = true;
    }

    fn end(&self, result: Result<Outcome>) {
        let mut seen = self.lock();
        seen.restarts.is_waiting = false;
        seen.result = Some(result);
        self.changed.notify_all();
    }
}

impl Watcher {
    /// What may be seen of the job's last attempt: its figures begin anew with each, its counts go on.
    pub fn status(&self) -> Arc<JobStatus> {
        Arc::clone(&self.0.lock().status)
    }

    /// How often it has failed.
    pub fn restarts(&self) -> Restarts {
        self.0.lock().restarts.clone()
    }
}

impl StopSupervised {
    pub(crate) fn stop(&self) {
        self.0.stop();
    }

    /// Leaves `ask` with the attempt that runs; whether one does.
    pub(crate) fn ask(&self, ask: Ask) -> bool {
        match &self.0.lock().stop {
            Some(running) => {
                running.ask(ask);
                true
            }
            None => false,
        }
    }
}

impl Supervised {
    /// Starts a job, and looks after it on a thread of its own.
    ///
    /// # Errors
    /// What the first start meets: nobody tries that again.
    pub(crate) fn start(attempts: Attempts, start: Start, strategy: RestartStrategy) -> Result<Self> {
        let running = attempts.start(start, attempts.checkpoints.store().clone())?;
        let seen = Seen {
            status: Arc::clone(running.status()),
            stop: Some(running.stop_handle()),
            is_stop_wanted: false,
            restarts: Restarts::default(),
            peak_bytes: 0,
            checkpoint: None,
            result: None,
        };
        let shared = Arc::new(Shared { seen: Mutex::new(seen), changed: Condvar::new() });
        let supervisor = Supervisor { attempts, strategy, shared: Arc::clone(&shared) };
        let thread = Builder::new().name("ruslo-job".to_owned()).spawn(move || supervisor.finish(running));
        let thread = thread.map_err(|error| Error::io("cannot start a thread", &error))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn watcher(&self) -> Watcher {
        Watcher(Arc::clone(&self.shared))
    }

    pub(crate) fn stop_handle(&self) -> StopSupervised {
        StopSupervised(Arc::clone(&self.shared))
    }

    /// The most memory that any attempt held.
    pub(crate) fn peak_bytes(&self) -> u64 {
        let seen = self.shared.lock();
        seen.peak_bytes.max(seen.status.memory.peak_bytes())
    }

    /// The last checkpoint that any attempt completed.
    pub(crate) fn last_checkpoint(&self) -> Option<Epoch> {
        self.shared.last_checkpoint()
    }

    /// Waits until it is over, `timeout` at most; whether it is.
    pub(crate) fn wait_timeout(&self, timeout: Duration) -> bool {
        let seen = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(seen, timeout, |seen| seen.result.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.result.is_some()
    }

    /// Waits until it is over and its threads have ended.
    pub(crate) fn wait(&mut self) -> Result<Outcome> {
        if let Some(thread) = self.thread.take() {
            // What it came to, even after a panic, is read below.
            let _ = thread.join();
        }
        let result = self.shared.lock().result.clone();
        result.unwrap_or_else(|| Err(Error::internal("the job ended without a result")))
    }
}

struct Supervisor {
    attempts: Attempts,
    strategy: RestartStrategy,
    shared: Arc<Shared>,
}

impl Supervisor {
    fn finish(mut self, running: RunningJob) {
        let result = caught("who looks after the job", || self.run(running));
        self.shared.end(result);
    }

    fn run(&mut self, running: RunningJob) -> Result<Outcome> {
        let mut ended = running.wait();
        while let Err(error) = &ended {
            if self.strategy.is_stuck(error, self.shared.last_checkpoint()) {
                return Err(stuck(error));
            }
            if !self.waits(error) {
                break;
            }
            if self.shared.lock().is_stop_wanted {
                return self.attempts.checkpoints.store().last_epoch().map(Outcome::Stopped);
            }
            ended = self.again();
        }
        ended
    }

    /// After a failure: waits as long as the strategy says, or until somebody wants a stop; whether to go on.
    fn waits(&mut self, error: &Error) -> bool {
        let clock = Arc::clone(&self.attempts.environment.clock);
        let begun = clock.now();
        let Some(delay) = self.strategy.after(error, begun) else { return false };
        self.shared.failed(Failure { error: error.clone(), at: clock.wall(), delay });
        let mut seen = self.shared.lock();
        while !seen.is_stop_wanted {
            let Some(left) = delay.checked_sub(clock.now().saturating_sub(begun)).filter(|left| !left.is_zero()) else {
                break;
            };
            seen = self.shared.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Goes on from the newest checkpoint; how that ended.
    fn again(&self) -> Result<Outcome> {
        match caught("the new start of the job", || self.attempts.restart())? {
            (None, notices) => {
                self.shared.restarted(notices);
                Ok(Outcome::Finished)
            }
            (Some(running), notices) => {
                self.shared.restarted(notices);
                self.shared.began(&running);
                running.wait()
            }
        }
    }
}

/// Says why a job that could have been tried again was not.
fn stuck(error: &Error) -> Error {
    Error::new(
        error.kind(),
        format!(
            "{error}. It was reached before, and no checkpoint has been completed since, so the job is not started once more; \
             resume it with more memory"
        ),
    )
}

impl Attempts {
    fn start(&self, start: Start, store: CheckpointStore) -> Result<RunningJob> {
        threads::start(JobSpec {
            graph: self.graph.clone(),
            config: self.config.clone(),
            environment: self.environment.clone(),
            store,
            fingerprint: self.fingerprint.clone(),
            plan: self.plan.clone(),
            start,
        })
    }

    /// As `--resume` does; none, if all that was missing was the commit of the last checkpoint.
    fn restart(&self) -> Result<(Option<RunningJob>, Vec<String>)> {
        let name = format!("{:016x}", Rng::from_os().next_u64());
        let decided = decide(&self.checkpoints, StartMode::Resume, self.guarantee, name.clone(), None)?;
        match decided.decision {
            Decision::Finished(_) => Ok((None, decided.notices)),
            Decision::Run(Start::Fresh { .. }) => Err(Error::corrupt(format!(
                "the checkpoints in {} are gone, and the job that was running cannot go on without them",
                self.checkpoints.store().folder().display()
            ))),
            Decision::Run(start) => {
                let store = CheckpointStore::at(Arc::clone(&self.environment.disk), &self.location, name)?;
                let running = self.start(start, store)?;
                Ok((Some(running), decided.notices))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test's input and output")]
mod tests {
    use std::path::Path;

    use ruslo_core::error::ErrorKind;

    use super::*;
    use crate::job::{Ended, Job};
    use crate::program::Program;
    use crate::summary::State;
    use crate::test_clock::PacedClock;
    use crate::test_disk::{Effect, Fault, FaultyDisk, Op};

    const ROWS: usize = 1_000;

    /// Numbers, ten a second of event time, counted by second: what is written follows from how many there are.
    struct Counting(tempfile::TempDir);

    impl Counting {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let row = |n: usize| format!("{n},2026-01-01 00:{:02}:{:02}.{}00\n", n / 600, n / 10 % 60, n % 10);
            std::fs::write(folder.path().join("in.csv"), (0..ROWS).map(row).collect::<String>()).unwrap();
            Self(folder)
        }

        fn program(&self, strategy: &str) -> Program {
            let home = self.0.path().display();
            let text = format!(
                "
                CREATE TABLE i (a INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
                WITH ('connector' = 'filesystem', 'path' = '{home}/in.csv', 'format' = 'csv');
                CREATE TABLE o (a INT, n BIGINT)
                WITH ('connector' = 'filesystem', 'path' = '{home}/out', 'format' = 'csv');
                INSERT INTO o SELECT MIN(a), COUNT(*) FROM TABLE(TUMBLE(TABLE i, DESCRIPTOR(ts), INTERVAL '1' SECOND))
                GROUP BY a - a, window_start, window_end"
            );
            let settings = [
                ("parallelism.default", "2"),
                ("execution.batch-rows", "10"),
                ("execution.checkpointing.interval", "20 ms"),
                ("source.rows-per-second", "3000"),
                ("restart-strategy.type", strategy),
                ("restart-strategy.fixed-delay.attempts", "3"),
                ("restart-strategy.fixed-delay.delay", "1 ms"),
            ];
            settings
                .into_iter()
                .fold(Program::new("counting.sql", text), |program, (key, value)| program.set(key, value))
        }

        /// Starts it where rows come no faster than checkpoints do.
        fn start(&self, program: &Program, disk: &FaultyDisk) -> Job {
            let clock = Arc::new(PacedClock::new(disk));
            self.start_in(program, Environment { disk: Arc::new(disk.clone()), clock, ..Environment::local() })
        }

        /// Starts it where there is no checkpoint but the last.
        fn start_without_checkpoints(&self, program: &Program, disk: &FaultyDisk) -> Job {
            let program = program.clone().set("execution.checkpointing.interval", "1 h");
            self.start_in(&program, Environment { disk: Arc::new(disk.clone()), ..Environment::local() })
        }

        fn start_in(&self, program: &Program, environment: Environment) -> Job {
            let pipeline = program.plan_in(environment).unwrap();
            pipeline.start(StartMode::New, Some(&self.0.path().join("checkpoints"))).unwrap()
        }

        fn output(&self) -> Vec<(usize, usize)> {
            let Ok(entries) = std::fs::read_dir(self.0.path().join("out")) else { return Vec::new() };
            let paths = entries.map(|entry| entry.unwrap().path());
            let is_visible = |path: &Path| !path.file_name().unwrap().to_str().unwrap().starts_with('.');
            let texts: Vec<_> =
                paths.filter(|path| is_visible(path)).map(|path| std::fs::read_to_string(path).unwrap()).collect();
            let cells = |row: &str| {
                let (a, n) = row.split_once(',').unwrap();
                (a.parse().unwrap(), n.parse().unwrap())
            };
            let mut rows: Vec<_> = texts.iter().flat_map(|text| text.lines()).map(cells).collect();
            rows.sort_unstable();
            rows
        }
    }

    fn expected() -> Vec<(usize, usize)> {
        (0..ROWS).step_by(10).map(|first| (first, 10)).collect()
    }

    fn fault(op: Op, place: &'static str, skip: u32, effect: Effect) -> FaultyDisk {
        FaultyDisk::new(Fault { op, place, skip, effect })
    }

    #[test]
    fn single_fsync_failure() {
        let places = [
            (Op::Sync, "/runs/", 2),
            (Op::Sync, "/manifests/", 3),
            (Op::Sync, "/out/", 2),
            (Op::Create, "/out/", 3),
            (Op::Publish, "/manifests/", 3),
            (Op::SyncFolder, "/runs", 4),
            (Op::SyncFolder, "/manifests", 5),
            (Op::Rename, "/out/", 2),
            (Op::SyncFolder, "/out", 2),
        ];
        for (op, place, skip) in places {
            let counting = Counting::new();
            let disk = fault(op, place, skip, Effect::Fail(1));
            let Ended { summary, error } = counting.start(&counting.program("fixed-delay"), &disk).end();
            assert_eq!((error, summary.state), (None, State::Finished), "{op:?} {place}");
            assert!(disk.is_over(), "{op:?} {place} never happened");
            assert_eq!(summary.restarts, 1, "{op:?} {place}");
            assert_eq!(summary.last_failure.unwrap().kind(), ErrorKind::Unavailable);
            assert_eq!((summary.rows_in, summary.rows_out), (1_000, 100), "{op:?} {place}");
            assert_eq!(counting.output(), expected(), "{op:?} {place}");
            assert_eq!(disk.sins(), Vec::<String>::new(), "{op:?} {place}");
        }
    }

    #[test]
    fn the_commit_of_the_last_checkpoint_is_done_again() {
        for (op, place) in [(Op::Rename, "/out/"), (Op::SyncFolder, "/out")] {
            let counting = Counting::new();
            let disk = fault(op, place, 0, Effect::Fail(1));
            let job = counting.start_without_checkpoints(&counting.program("fixed-delay"), &disk);
            let summary = job.wait().unwrap();
            assert!(disk.is_over(), "{op:?} never happened");
            assert_eq!((summary.state, summary.restarts, summary.rows_out), (State::Finished, 1, 100));
            assert_eq!(counting.output(), expected(), "{op:?}");
        }
    }

    #[test]
    fn what_fails_for_ever_fails_in_the_end_and_is_resumed_from() {
        let counting = Counting::new();
        let disk = fault(Op::Sync, "/runs/", 2, Effect::Fail(u32::MAX));
        let program = counting.program("fixed-delay");
        let Ended { summary, error } = counting.start(&program, &disk).end();
        assert_eq!((summary.state, summary.restarts), (State::Failed, 3));
        assert!(error.unwrap().to_string().contains("Input/output error"));
        let folder = counting.0.path().join("checkpoints");
        let summary = program.plan().unwrap().start(StartMode::Resume, Some(&folder)).unwrap().wait().unwrap();
        assert_eq!((summary.state, summary.restarts), (State::Finished, 0));
        assert_eq!(counting.output(), expected());
    }

    #[test]
    fn bounded_input_is_not_tried_again_unasked() {
        let counting = Counting::new();
        let disk = fault(Op::Sync, "/runs/", 2, Effect::Fail(1));
        let program = counting.program("none");
        assert_eq!(counting.start(&program, &disk).end().summary.state, State::Failed);
        let text = "CREATE TABLE e (a INT) WITH ('connector' = 'datagen'); SELECT a FROM e";
        assert_eq!(Program::new("e.sql", text).plan().unwrap().restarts(), ruslo_sql::RestartKind::ExponentialDelay);
        assert_eq!(program.plan().unwrap().restarts(), ruslo_sql::RestartKind::None);
    }

    #[test]
    fn bad_data_is_not_tried_again() {
        let counting = Counting::new();
        std::fs::write(counting.0.path().join("in.csv"), "1,2026-01-01 00:00:00\nx,2026-01-01 00:00:00\n").unwrap();
        let disk = fault(Op::Sync, "nowhere", 0, Effect::Panic);
        let Ended { summary, error } = counting.start(&counting.program("fixed-delay"), &disk).end();
        assert_eq!((summary.restarts, error.unwrap().kind()), (0, ErrorKind::Data));
    }

    #[test]
    fn the_memory_limit_is_not_run_into_for_ever() {
        let counting = Counting::new();
        let none = fault(Op::Sync, "nowhere", 0, Effect::Panic);
        let program = counting.program("fixed-delay").set("pipeline.memory-limit", "2 kb");
        let Ended { summary, error } = counting.start_without_checkpoints(&program, &none).end();
        let (error, said) =
            (error.unwrap(), "no checkpoint has been completed since, so the job is not started once more");
        assert_eq!((summary.restarts, error.kind()), (1, ErrorKind::Resource));
        assert!(error.to_string().contains(said), "{error}");
    }

    #[test]
    fn a_limit_that_no_batch_fits_into_is_refused_before_anything_is_there() {
        let counting = Counting::new();
        let folder = counting.0.path().join("checkpoints");
        let program = counting.program("none").set("pipeline.memory-limit", "300 b");
        let error = program.plan().unwrap().start(StartMode::New, Some(&folder)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(
            error.to_string().starts_with("'pipeline.memory-limit' = 300 B is less than this job needs at least"),
            "{error}"
        );
        assert!(!folder.exists());
    }

    #[test]
    fn a_job_that_waits_to_go_on_stops_at_once() {
        let counting = Counting::new();
        let disk = fault(Op::Sync, "/runs/", 2, Effect::Fail(1));
        let slow = counting.program("fixed-delay").set("restart-strategy.fixed-delay.delay", "1 h");
        let job = counting.start(&slow, &disk);
        while !job.restarts().is_waiting {
            assert!(!job.wait_timeout(Duration::from_millis(5)), "it ended too early");
        }
        let summary = job.summary();
        assert_eq!((summary.state, summary.restarts), (State::Restarting, 0));
        job.stop_handle().stop();
        let summary = job.wait().unwrap();
        assert_eq!(summary.state, State::Stopped);
        assert!(summary.last_failure.is_some());
        let folder = counting.0.path().join("checkpoints");
        counting.program("none").plan().unwrap().start(StartMode::Resume, Some(&folder)).unwrap().wait().unwrap();
        assert_eq!(counting.output(), expected());
    }

    /// One job panics, in a task or where it writes a checkpoint; the other, in the same process, notices nothing.
    #[test]
    fn a_panic_is_one_pipelines_own() {
        for (op, place) in [(Op::Create, "/out/"), (Op::Sync, "/runs/"), (Op::Rename, "/out/")] {
            let (bad, good) = (Counting::new(), Counting::new());
            let disk = fault(op, place, 2, Effect::Panic);
            let bad_job = bad.start(&bad.program("none"), &disk);
            let good_job = good.start(&good.program("none"), &fault(op, "nowhere", 0, Effect::Panic));
            let error = bad_job.wait().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal);
            assert!(error.to_string().contains("panics"), "{error}");
            assert_eq!(good_job.wait().unwrap().restarts, 0);
            assert_eq!(good.output(), expected());

            let again = Counting::new();
            let disk = fault(op, place, 2, Effect::Panic);
            let summary = again.start(&again.program("fixed-delay"), &disk).wait().unwrap();
            assert_eq!(summary.restarts, 1, "{op:?} {place}");
            assert_eq!(again.output(), expected(), "{op:?} {place}");
        }
    }
}
