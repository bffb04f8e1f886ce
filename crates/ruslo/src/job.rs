//! A started job: watched, stopped, waited for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ruslo_connectors::print::is_console_closed;
use ruslo_core::clock::{Clock, Instant};
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_runtime::coordinator::Outcome;
use ruslo_runtime::status::JobStatus;
use ruslo_sql::{BatchEnd, BatchStop};

use crate::batch::BatchRun;
use crate::checkpoints::Checkpoints;
use crate::control::{Asked, Control};
use crate::summary::{State, Summary};
use crate::supervise::{Restarts, StopSupervised, Supervised, Watcher};

/// Either at work, or found finished by an earlier process.
pub(crate) enum Run {
    Running(Supervised),
    Batch(BatchRun),
    Finished(Summary),
}

/// A started job. It runs on threads of its own, whether it is waited for or not.
pub struct Job {
    name: String,
    run: Run,
    checkpoints: Arc<Checkpoints>,
    clock: Arc<dyn Clock>,
    begun: Instant,
    resumed_from: Option<Epoch>,
    notices: Vec<String>,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// What it came to, even if it failed.
    pub summary: Summary,
    /// Why it failed.
    pub error: Option<Error>,
}

/// Asks a job to stop.
#[derive(Clone)]
pub struct StopHandle(Stop);

#[derive(Clone)]
enum Stop {
    Streaming(StopSupervised),
    Batch(BatchStop),
    /// It is over already.
    Nothing,
}

impl StopHandle {
    /// Asks the job to stop at a checkpoint, from which it can resume; a batch job leaves no output and starts over.
    pub fn stop(&self) {
        match &self.0 {
            Stop::Streaming(handle) => handle.stop(),
            Stop::Batch(stop) => stop.stop(),
            Stop::Nothing => {}
        }
    }
}

impl Job {
    pub(crate) fn new(
        name: String,
        run: Run,
        checkpoints: Arc<Checkpoints>,
        clock: Arc<dyn Clock>,
        begun: Instant,
        (resumed_from, notices): (Option<Epoch>, Vec<String>),
    ) -> Self {
        Self { name, run, checkpoints, clock, begun, resumed_from, notices }
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The checkpoint that it goes on from.
    pub fn resumed_from(&self) -> Option<Epoch> {
        self.resumed_from
    }

    /// What its user should know about the start: damaged checkpoints, rows that may come again, the mode that was chosen.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Whether an earlier process had finished it, and there was nothing left to do.
    pub fn is_already_finished(&self) -> bool {
        matches!(self.run, Run::Finished(_))
    }

    /// What may be seen of it as it runs, until it is [started again](Self::restarts); none, if it was finished already
    /// or is a batch job.
    pub fn status(&self) -> Option<Arc<JobStatus>> {
        self.watcher().map(|watcher| watcher.status())
    }

    /// Looks at it as it runs, without holding it; none, if it was finished already or is a batch job.
    pub fn watcher(&self) -> Option<Watcher> {
        match &self.run {
            Run::Running(running) => Some(running.watcher()),
            Run::Batch(_) | Run::Finished(_) => None,
        }
    }

    /// How often it has failed and went on from its last checkpoint, as `restart-strategy.type` says.
    pub fn restarts(&self) -> Restarts {
        self.watcher().map(|watcher| watcher.restarts()).unwrap_or_default()
    }

    /// A handle that asks it to stop.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(match &self.run {
            Run::Running(running) => Stop::Streaming(running.stop_handle()),
            Run::Batch(batch) => Stop::Batch(batch.stop_handle()),
            Run::Finished(_) => Stop::Nothing,
        })
    }

    /// A handle that asks it for savepoints, or to end, and waits until that is done.
    pub fn control(&self) -> Control {
        let asked = match &self.run {
            Run::Running(running) => Asked::Streaming(running.stop_handle()),
            Run::Batch(batch) => Asked::Batch(batch.stop_handle()),
            Run::Finished(_) => Asked::Nothing,
        };
        Control::new(&self.name, asked, self.checkpoints.disk())
    }

    /// The folder in which its checkpoints are kept; none, if that is not on this machine.
    pub fn checkpoint_dir(&self) -> Option<&Path> {
        self.checkpoints.store().local_folder()
    }

    /// What it has come to so far.
    pub fn summary(&self) -> Summary {
        match &self.run {
            Run::Running(running) => self.summary_of(running, None),
            Run::Batch(batch) => self.summary_of_batch(batch, State::Running),
            Run::Finished(summary) => summary.clone(),
        }
    }

    fn summary_of_batch(&self, batch: &BatchRun, state: State) -> Summary {
        let folder = self.checkpoints.store().folder();
        let seconds = self.clock.now().saturating_sub(self.begun).as_secs_f64();
        let summary = Summary::of_nodes(&self.name, folder, state, batch.graph(), |node| batch.counts(node));
        // The folder says which epochs there are; that it cannot be read now is no reason to fail.
        let last = self.checkpoints.store().last_epoch().ok().filter(|_| state == State::Finished);
        Summary { seconds, checkpoint: last.or(self.resumed_from), spilled_bytes: batch.spilled_bytes(), ..summary }
    }

    /// `ended` is how, if it has.
    fn summary_of(&self, running: &Supervised, ended: Option<State>) -> Summary {
        let watcher = running.watcher();
        let restarts = watcher.restarts();
        let state = ended.unwrap_or(if restarts.is_waiting { State::Restarting } else { State::Running });
        let summary = Summary::of_status(&self.name, self.checkpoints.store().folder(), state, &watcher.status());
        Summary {
            seconds: self.clock.now().saturating_sub(self.begun).as_secs_f64(),
            checkpoint: running.last_checkpoint().or(self.resumed_from),
            peak_memory_bytes: running.peak_bytes(),
            restarts: restarts.count,
            last_failure: restarts.last_failure.map(|failure| failure.error),
            ..summary
        }
    }

    /// Waits until it is over, `timeout` at most; whether it is. Then [`Self::end`] returns soon.
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        match &self.run {
            Run::Running(running) => running.wait_timeout(timeout),
            Run::Batch(batch) => batch.wait_timeout(timeout),
            Run::Finished(_) => true,
        }
    }

    /// Waits until it is over, and its threads have ended.
    ///
    /// # Errors
    /// What made it fail.
    pub fn wait(self) -> Result<Summary> {
        let Ended { summary, error } = self.end();
        error.map_or(Ok(summary), Err)
    }

    /// Waits until it is over, and its threads have ended; what it came to, even if it failed.
    pub fn end(mut self) -> Ended {
        let blank = Run::Finished(self.summary());
        let mut running = match std::mem::replace(&mut self.run, blank) {
            Run::Running(running) => running,
            Run::Batch(batch) => return self.end_batch(batch),
            Run::Finished(summary) => return self.cleared(Ended { summary, error: None }),
        };
        let (state, error) = match running.wait() {
            Ok(Outcome::Finished) => (State::Finished, None),
            Ok(Outcome::Stopped(_)) => (State::Stopped, None),
            Err(error) => (State::Failed, Some(error)),
        };
        let summary = self.summary_of(&running, Some(state));
        self.cleared(Ended { summary, error })
    }

    fn end_batch(self, mut batch: BatchRun) -> Ended {
        let (state, error) = match batch.wait() {
            Ok(BatchEnd::Finished) => (State::Finished, None),
            Ok(BatchEnd::Stopped) => (State::Stopped, None),
            Err(error) => (State::Failed, Some(error)),
        };
        let summary = self.summary_of_batch(&batch, state);
        self.cleared(Ended { summary, error })
    }

    /// The default folder goes, unless a resumed run could go on from it.
    fn cleared(&self, ended: Ended) -> Ended {
        let is_over = match &ended.error {
            None => ended.summary.state == State::Finished,
            Some(error) => is_console_closed(error),
        };
        let cleared = match is_over {
            true => self.checkpoints.clear_if_default(),
            false if ended.error.is_none() => self.checkpoints.clear_behind_stop(),
            false => self.checkpoints.clear_if_unused(),
        };
        Ended { error: ended.error.or(cleared.err()), ..ended }
    }
}

#[cfg(test)]
mod tests {
    use ruslo_core::disk::LocalDisk;
    use ruslo_core::error::ErrorKind;
    use ruslo_core::plan::CompiledPlan;
    use ruslo_state::manifest::Manifest;
    use ruslo_state::store::CheckpointStore;

    use super::*;
    use crate::decision::StartMode;
    use crate::program::Program;

    /// A folder with an input of `rows` rows, and a program that copies it.
    struct Copying(tempfile::TempDir);

    impl Copying {
        #[allow(clippy::disallowed_methods, reason = "a test's input")]
        fn new(rows: usize) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let text: String = (0..rows).map(|row| format!("{row}\n")).collect();
            std::fs::write(folder.path().join("in.csv"), text).unwrap();
            Self(folder)
        }

        fn program(&self, condition: &str) -> Program {
            let home = self.0.path().display();
            let table = |name, path| {
                format!(
                    "CREATE TABLE {name} (a INT) WITH
                     ('connector' = 'filesystem', 'path' = '{home}/{path}', 'format' = 'csv');"
                )
            };
            let tables = [table("i", "in.csv"), table("o", "out")].concat();
            Program::new("copy.sql", format!("{tables} INSERT INTO o SELECT a FROM i WHERE {condition}"))
                .set("parallelism.default", "1")
                .set("execution.batch-rows", "10")
        }

        fn start(&self, program: &Program, mode: StartMode) -> Result<Job> {
            program.plan()?.start(mode, Some(&self.0.path().join("checkpoints")))
        }

        /// What is visible in the output, sorted.
        #[allow(clippy::disallowed_methods, reason = "a test's output")]
        fn output(&self) -> Vec<i64> {
            let Ok(entries) = std::fs::read_dir(self.0.path().join("out")) else { return Vec::new() };
            let paths = entries.map(|entry| entry.unwrap().path());
            let is_visible = |path: &Path| !path.file_name().unwrap().to_str().unwrap().starts_with('.');
            let texts: Vec<_> =
                paths.filter(|path| is_visible(path)).map(|path| std::fs::read_to_string(path).unwrap()).collect();
            let mut rows: Vec<_> = texts.iter().flat_map(|text| text.lines()).map(|row| row.parse().unwrap()).collect();
            rows.sort_unstable();
            rows
        }

        /// Starts slowly and stops after the first rows.
        fn interrupted(&self) -> Summary {
            let slow = self.program("a >= 0").set("source.rows-per-second", "500");
            let job = self.start(&slow, StartMode::New).unwrap();
            while job.summary().rows_in == 0 {
                assert!(!job.wait_timeout(Duration::from_millis(5)), "it ended too early");
            }
            job.stop_handle().stop();
            job.wait().unwrap()
        }
    }

    #[test]
    fn an_interrupted_job_goes_on_where_it_was() {
        let copying = Copying::new(1_000);
        let stopped = copying.interrupted();
        assert_eq!(stopped.state, State::Stopped);
        assert!(stopped.rows_in < 1_000 && stopped.checkpoint.is_some());
        let program = copying.program("a >= 0");

        let error = copying.start(&program, StartMode::New).err().unwrap();
        assert!(error.to_string().contains("say --resume to go on or --fresh to start over"), "{error}");
        let other = copying.program("a > 1");
        let error = copying.start(&other, StartMode::New).err().unwrap();
        assert!(error.to_string().contains("of an interrupted run of another query"), "{error}");
        let error = copying.start(&other, StartMode::Resume).err().unwrap();
        assert!(error.to_string().contains("are of another query or other options"), "{error}");

        let job = copying.start(&program, StartMode::Resume).unwrap();
        assert_eq!(job.resumed_from(), stopped.checkpoint);
        let summary = job.wait().unwrap();
        assert_eq!((summary.state, summary.rows_in, summary.rows_out), (State::Finished, 1_000, 1_000));
        assert_eq!(copying.output(), Vec::from_iter(0..1_000));
    }

    #[test]
    fn another_plan_of_the_same_query_is_refused_and_none_is_as_before() {
        let copying = Copying::new(1_000);
        let stopped = copying.interrupted();
        let program = copying.program("a >= 0");
        let folder = copying.0.path().join("checkpoints");
        let store = CheckpointStore::open(Arc::new(LocalDisk), &folder, "test").unwrap();
        let mut manifest = store.load(stopped.checkpoint.unwrap()).unwrap();
        assert_eq!(manifest.plan.as_ref().map(|plan| plan.lines.len()), Some(0), "it has no state");
        let mut resume_with = |plan| {
            let epoch = manifest.epoch.next();
            manifest = Manifest { epoch, plan, ..manifest.clone() };
            store.publish(&manifest).unwrap();
            copying.start(&program, StartMode::Resume)
        };

        let lines = ["operator 00000000000000ab WindowTopN a, 3", "does x", "gives a INT", "keeps rows column0 INT"];
        let lines = lines.map(str::to_owned).to_vec();
        let other = CompiledPlan { format: 1, release: "0.0.9".to_owned(), lines };
        let error = resume_with(Some(other)).err().unwrap();
        let said = "another way than Ruslo 0.0.9, which made them: 'WindowTopN a, 3' has state in them, and is not in";
        assert!(error.to_string().contains(said), "{error}");
        assert_eq!(error.kind(), ErrorKind::Usage);
        let newer = CompiledPlan { format: 2, release: "9.0.0".to_owned(), lines: Vec::new() };
        let error = resume_with(Some(newer)).err().unwrap();
        assert!(error.to_string().contains("written by Ruslo 9.0.0 (plan format 2"), "{error}");

        let summary = resume_with(None).unwrap().wait().unwrap();
        assert_eq!((summary.state, summary.rows_in), (State::Finished, 1_000));
        assert_eq!(copying.output(), Vec::from_iter(0..1_000));
        let last = store.load(summary.checkpoint.unwrap()).unwrap();
        assert!(last.plan.is_some(), "it has one from now on");
    }

    #[test]
    fn a_finished_job_is_finished_until_it_is_started_anew() {
        let copying = Copying::new(30);
        let program = copying.program("a >= 0");
        let first = copying.start(&program, StartMode::Resume).unwrap().wait().unwrap();
        let again = copying.start(&program, StartMode::Resume).unwrap();
        assert!(again.is_already_finished());
        let summary = again.wait().unwrap();
        assert_eq!((summary.rows_in, summary.rows_out, summary.checkpoint), (30, 30, first.checkpoint));
        assert_eq!(copying.output().len(), 30);
        let anew = copying.start(&program, StartMode::New).unwrap().wait().unwrap();
        assert!(anew.checkpoint > first.checkpoint, "epochs go on");
        assert_eq!(copying.output().len(), 60);
    }

    #[test]
    fn starting_over_leaves_what_was_committed_and_removes_the_rest() {
        let copying = Copying::new(1_000);
        let stopped = copying.interrupted();
        let committed = copying.output().len();
        let summary = copying.start(&copying.program("a >= 0"), StartMode::Fresh).unwrap().wait().unwrap();
        assert_eq!(summary.rows_in, 1_000);
        assert!(summary.checkpoint > stopped.checkpoint);
        assert_eq!(copying.output().len(), 1_000 + committed);
    }

    #[test]
    fn one_process_at_a_time() {
        let copying = Copying::new(1_000);
        let slow = copying.program("a >= 0").set("source.rows-per-second", "100");
        let job = copying.start(&slow, StartMode::New).unwrap();
        let error = copying.start(&slow, StartMode::Resume).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Fenced);
        job.stop_handle().stop();
        job.wait().unwrap();
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test's input")]
    fn a_run_that_failed_before_its_first_checkpoint_is_no_obstacle() {
        let copying = Copying::new(30);
        let input = copying.0.path().join("in.csv");
        std::fs::write(&input, "1\nx\n").unwrap();
        let program = copying.program("a >= 0");
        let ended = copying.start(&program, StartMode::New).unwrap().end();
        assert_eq!(ended.error.unwrap().kind(), ErrorKind::Data);
        assert_eq!(ended.summary.state, State::Failed);
        std::fs::write(&input, "1\n2\n").unwrap();
        let summary = copying.start(&program, StartMode::New).unwrap().wait().unwrap();
        assert_eq!(summary.rows_out, 2);
        assert_eq!(copying.output(), [1, 2]);
        let names = std::fs::read_dir(copying.0.path().join("out")).unwrap().count();
        assert_eq!(names, 1, "what the failed run left is gone");
    }
}
