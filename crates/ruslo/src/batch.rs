//! A batch job: computes the rows of its sinks on a thread of its own, then commits them, all or none.
//!
//! ```text
//! beginning published ─ rows written ─ output prepared ─ manifest published (finished) ─ output committed
//! ```
//!
//! The manifest of the beginning names the run, so that whoever starts over removes what a killed process has left. That
//! of the end is the commit: until it is durable nothing of the output is visible, from there on all of it is, if need
//! be by the next start. There is nothing between to go on from: a batch job that was stopped or failed starts over.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use ruslo_core::environment::Environment;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::{Graph, Node, NodeKind, OperatorId};
use ruslo_core::metrics::{Counter, RowCounts};
use ruslo_core::operator::{Progress, Subtask};
use ruslo_core::sink::{Committable, Committer, Sink, SinkContext};
use ruslo_core::time::Timestamp;
use ruslo_runtime::job::Start;
use ruslo_sql::{BatchEnd, BatchLimits, BatchQuery, BatchStop, Scratch};
use ruslo_state::manifest::{Manifest, OperatorEntry, SubtaskEntry};
use ruslo_state::store::CheckpointStore;

use crate::checkpoints::{remove_scratch, scratch_folder};

/// What a batch job is made of.
pub(crate) struct BatchSpec {
    pub(crate) query: BatchQuery,
    /// The sources and the sinks.
    pub(crate) graph: Graph,
    pub(crate) limits: BatchLimits,
    pub(crate) environment: Environment,
    pub(crate) store: CheckpointStore,
    pub(crate) fingerprint: String,
}

/// A batch job at work, or over.
pub(crate) struct BatchRun {
    work: Arc<Work>,
    stop: BatchStop,
    thread: Option<JoinHandle<()>>,
}

/// What the job's thread and its watchers share.
struct Work {
    spec: BatchSpec,
    /// How many rows each sink has taken.
    rows_out: BTreeMap<OperatorId, Counter>,
    ended: Mutex<Option<Result<BatchEnd>>>,
    over: Condvar,
}

/// Starts a batch job. What an earlier run of `start` has left uncommitted is removed first.
pub(crate) fn start(spec: BatchSpec, start: Start) -> Result<BatchRun> {
    let (ended, over) = (Mutex::default(), Condvar::new());
    let rows_out = sinks(&spec.graph).map(|(id, _)| (id, Counter::default())).collect();
    let work = Arc::new(Work { spec, rows_out, ended, over });
    let stop = BatchStop::default();
    let begun = work.begin(start)?;
    let (worker, asked) = (Arc::clone(&work), stop.clone());
    let body = move || {
        let ended = worker.run(begun, &asked);
        *lock(&worker.ended) = Some(ended);
        worker.over.notify_all();
    };
    let thread = Builder::new().name("ruslo-batch-job".to_owned()).spawn(body);
    let thread = thread.map_err(|error| Error::io("cannot start a thread", &error))?;
    Ok(BatchRun { work, stop, thread: Some(thread) })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl BatchRun {
    /// What asks it to stop.
    pub(crate) fn stop_handle(&self) -> BatchStop {
        self.stop.clone()
    }

    /// The sources and the sinks.
    pub(crate) fn graph(&self) -> &Graph {
        &self.work.spec.graph
    }

    /// What the node has counted.
    pub(crate) fn counts(&self, node: &Node) -> RowCounts {
        self.work.counts(node)
    }

    /// How many bytes it has written to temporary files.
    pub(crate) fn spilled_bytes(&self) -> u64 {
        self.work.spec.query.spilled_bytes()
    }

    /// Waits until it is over, `timeout` at most; whether it is.
    pub(crate) fn wait_timeout(&self, timeout: Duration) -> bool {
        let waited = self.work.over.wait_timeout_while(lock(&self.work.ended), timeout, |ended| ended.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    /// Waits until it is over and its thread has ended.
    pub(crate) fn wait(&mut self) -> Result<BatchEnd> {
        if let Some(thread) = self.thread.take() {
            // What it came to, even after a panic, is read below.
            let _ = thread.join();
        }
        lock(&self.work.ended).clone().unwrap_or_else(|| Err(Error::internal("a batch job ended without a result")))
    }
}

/// The sinks of a job, with their ids.
fn sinks(graph: &Graph) -> impl Iterator<Item = (OperatorId, Arc<dyn Sink>)> {
    graph.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Sink(sink) => Some((node.id, Arc::clone(sink))),
        _ => None,
    })
}

/// A job that has made sure that nothing of an earlier attempt is left.
struct Begun {
    epoch: Epoch,
    context: SinkContext,
    outputs: Vec<Output>,
}

/// One sink's.
struct Output {
    id: OperatorId,
    sink: Arc<dyn Sink>,
    committer: Box<dyn Committer>,
}

impl Begun {
    /// Takes back what was written and not committed, of every sink; the first error, if there is one.
    fn abort(&mut self) -> Result<()> {
        let epoch = self.epoch;
        let aborted: Vec<_> = self.outputs.iter_mut().map(|output| output.committer.abort_since(epoch)).collect();
        aborted.into_iter().collect()
    }
}

/// What each sink has to commit.
type Outputs = BTreeMap<OperatorId, Vec<Committable>>;

impl Work {
    fn begin(&self, start: Start) -> Result<Begun> {
        let (run, left_by) = match start {
            Start::Fresh { run } => (run, None),
            Start::Restore(restored) => (restored.manifest.run.clone(), Some(restored.manifest.origin())),
        };
        let context = SinkContext { environment: self.spec.environment.clone(), run };
        let epoch = self.spec.store.last_epoch()?.next();
        self.publish(epoch, &context.run, None)?;
        let mut outputs = Vec::new();
        for (id, sink) in sinks(&self.spec.graph) {
            let mut committer = sink.committer(&context)?;
            if let Some(left_by) = left_by {
                committer.abort_since(left_by)?;
            }
            outputs.push(Output { id, sink, committer });
        }
        Ok(Begun { epoch, context, outputs })
    }

    /// Publishes the beginning, or with what the sinks have to commit the end.
    fn publish(&self, epoch: Epoch, run: &str, outputs: Option<&Outputs>) -> Result<()> {
        let entries = self.spec.graph.nodes.iter().map(|node| {
            let mut entry = OperatorEntry { name: node.name.clone(), ..OperatorEntry::default() };
            if let Some(outputs) = outputs {
                let tables = Default::default();
                entry.subtasks = vec![SubtaskEntry {
                    watermark: Timestamp::MAX,
                    counts: self.counts(node),
                    other_inputs: Vec::new(),
                    tables,
                }];
                entry.committables = outputs.get(&node.id).cloned().unwrap_or_default();
            }
            (node.id, entry)
        });
        self.spec.store.publish(&Manifest {
            epoch,
            run: run.to_owned(),
            fingerprint: self.spec.fingerprint.clone(),
            plan: None,
            repeats: None,
            attempt: None,
            savepoint: None,
            delivery: None,
            books: None,
            finished: outputs.is_some(),
            written_at: self.spec.environment.clock.wall(),
            operators: entries.collect(),
        })
    }

    fn counts(&self, node: &Node) -> RowCounts {
        self.spec.query.counts(node.id).unwrap_or_else(|| {
            let rows = self.rows_out.get(&node.id).map_or(0, Counter::get);
            RowCounts { rows_in: rows, rows_out: rows, ..RowCounts::default() }
        })
    }

    fn run(&self, mut begun: Begun, stop: &BatchStop) -> Result<BatchEnd> {
        let scratch = Scratch::new(Arc::clone(&self.spec.environment.disk), scratch_folder(&self.spec.store));
        // What a killed process has left.
        scratch.clear()?;
        let ended = self.compute(&mut begun, &scratch, stop);
        remove_scratch(&scratch)?;
        if !matches!(ended, Ok(BatchEnd::Finished)) && !self.is_finished(&begun)? {
            begun.abort()?;
        }
        ended
    }

    /// Whether the manifest of the end exists: then the output is committed, by the next start if not by this one.
    fn is_finished(&self, begun: &Begun) -> Result<bool> {
        Ok(self.spec.store.last_epoch()? > begun.epoch)
    }

    fn compute(&self, begun: &mut Begun, scratch: &Scratch, stop: &BatchStop) -> Result<BatchEnd> {
        let mut writers = BTreeMap::new();
        for output in &begun.outputs {
            writers.insert(output.id, output.sink.writer(Subtask { index: 0, parallelism: 1 }, &begun.context)?);
        }
        let end = self.spec.query.run((self.spec.limits, scratch), stop, |sink, batch| {
            let (Some(writer), Some(rows_out)) = (writers.get_mut(&sink), self.rows_out.get(&sink)) else {
                return Err(Error::internal("rows for a sink that the job does not have"));
            };
            if writer.write(&batch)? == Progress::More {
                return Err(Error::internal("a sink left a batch half written"));
            }
            rows_out.add(batch.num_rows());
            Ok(())
        })?;
        if end == BatchEnd::Stopped {
            return Ok(end);
        }
        let epoch = begun.epoch.next();
        let prepared = writers.iter_mut().map(|(id, writer)| Ok((*id, writer.prepare_commit(epoch)?)));
        let prepared = prepared.collect::<Result<Outputs>>()?;
        self.publish(epoch, &begun.context.run, Some(&prepared))?;
        for output in &mut begun.outputs {
            output.committer.commit(prepared.get(&output.id).map(Vec::as_slice).unwrap_or_default())?;
        }
        self.spec.store.collect_garbage(epoch)?;
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use ruslo_core::clock::Clock;
    use ruslo_core::environment::Environment;
    use ruslo_core::error::ErrorKind;
    use ruslo_core::time::Timestamp;

    use crate::{Job, Program, StartMode, State, Summary};

    /// A folder with an input, and a program in batch mode that sorts it.
    struct Sorting {
        folder: tempfile::TempDir,
        memory_limit: &'static str,
    }

    impl Sorting {
        #[allow(clippy::disallowed_methods, reason = "a test's input")]
        fn new(input: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("in.csv"), input).unwrap();
            Self { folder, memory_limit: "512 mb" }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn start(&self, mode: StartMode) -> ruslo_core::error::Result<Job> {
            let home = self.folder.path().display();
            let text = format!(
                "SET 'execution.runtime-mode' = 'batch';
                 CREATE TABLE i (a INT) WITH
                 ('connector' = 'filesystem', 'path' = '{home}/in.csv', 'format' = 'csv');
                 CREATE TABLE o (a INT) WITH
                 ('connector' = 'filesystem', 'path' = '{home}/out', 'format' = 'csv');
                 INSERT INTO o SELECT a FROM i ORDER BY a DESC"
            );
            let program = Program::new("sort.sql", text).set("parallelism.default", "2");
            let program = program.set("pipeline.memory-limit", self.memory_limit);
            program.plan()?.start(mode, Some(&self.path("checkpoints")))
        }

        fn run(&self, mode: StartMode) -> Summary {
            self.start(mode).unwrap().wait().unwrap()
        }

        fn output(&self) -> Vec<String> {
            self.output_in("out")
        }

        /// Every file of the output, hidden ones too.
        #[allow(clippy::disallowed_methods, reason = "a test's output")]
        fn output_in(&self, folder: &str) -> Vec<String> {
            let Ok(entries) = std::fs::read_dir(self.path(folder)) else { return Vec::new() };
            entries.map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
        }
    }

    #[test]
    fn a_batch_job_counts_its_rows_and_is_finished_once() {
        let sorting = Sorting::new("3\n1\n20\n");
        let summary = sorting.run(StartMode::New);
        assert_eq!((summary.state, summary.rows_in, summary.rows_out), (State::Finished, 3, 3));
        assert_eq!(sorting.output(), ["20\n3\n1\n"]);

        let again = sorting.start(StartMode::Resume).unwrap();
        assert!(again.is_already_finished());
        let again = again.wait().unwrap();
        assert_eq!((again.rows_in, again.rows_out, again.checkpoint), (3, 3, summary.checkpoint));
        assert_eq!(sorting.output().len(), 1);

        let anew = sorting.run(StartMode::New);
        assert!(anew.checkpoint > summary.checkpoint, "epochs go on");
        assert_eq!(sorting.output().len(), 2);
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test's files")]
    fn what_a_killed_batch_job_has_spilled_is_removed() {
        let sorting = Sorting::new("3\n1\n");
        std::fs::create_dir_all(sorting.path("checkpoints/spill")).unwrap();
        std::fs::write(sorting.path("checkpoints/spill/spill-0"), "left").unwrap();
        assert_eq!(sorting.run(StartMode::New).spilled_bytes, 0);
        assert!(!sorting.path("checkpoints/spill").exists());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test's input")]
    fn a_batch_job_that_fails_leaves_no_output_and_starts_over() {
        let sorting = Sorting::new("3\nx\n");
        let ended = sorting.start(StartMode::New).unwrap().end();
        assert_eq!(ended.error.unwrap().kind(), ErrorKind::Data);
        assert_eq!(ended.summary.state, State::Failed);
        assert_eq!(sorting.output(), Vec::<String>::new());
        std::fs::write(sorting.path("in.csv"), "3\n4\n").unwrap();
        sorting.run(StartMode::Resume);
        assert_eq!(sorting.output(), ["4\n3\n"]);
    }

    #[test]
    fn a_batch_job_that_is_stopped_leaves_no_output_and_starts_over() {
        let rows: String = (0..200_000).map(|row| format!("{row}\n")).collect();
        let sorting = Sorting::new(&rows);
        let job = sorting.start(StartMode::New).unwrap();
        job.stop_handle().stop();
        assert_eq!(job.wait().unwrap().state, State::Stopped);
        assert_eq!(sorting.output(), Vec::<String>::new());
        assert_eq!(sorting.run(StartMode::Resume).rows_out, 200_000);
        assert_eq!(sorting.output().len(), 1);
    }

    #[test]
    fn a_sort_of_more_than_the_memory_limit_spills() {
        let rows: String = (0..300_000_i64).map(|row| format!("{}\n", row * 7_919 % 300_007)).collect();
        let sorting = Sorting { memory_limit: "1 mb", ..Sorting::new(&rows) };
        let summary = sorting.run(StartMode::New);
        assert_eq!(summary.rows_out, 300_000);
        assert!(summary.spilled_bytes > 1 << 20, "{} bytes", summary.spilled_bytes);
        assert!(!sorting.path("checkpoints/spill").exists(), "the temporary files are gone");
        let output = sorting.output().concat();
        let values: Vec<i64> = output.lines().map(|line| line.parse().unwrap()).collect();
        assert!(values.len() == 300_000 && values.is_sorted_by(|a, b| a >= b));
    }

    /// A clock that is a second later whenever somebody looks.
    #[derive(Debug, Default)]
    struct Ticking(AtomicI64);

    impl Clock for Ticking {
        fn now(&self) -> Duration {
            Duration::ZERO
        }

        fn wall(&self) -> Timestamp {
            Timestamp(self.0.fetch_add(1_000, Ordering::Relaxed))
        }
    }

    /// What `o (a, b)` has after two inserts in `mode`, with a clock that ticks; every row is a batch.
    fn two_inserts(sorting: &Sorting, mode: &str, values: &str) -> ruslo_core::error::Result<Vec<String>> {
        let home = sorting.folder.path().display();
        let table = |name: &str, columns: &str, path: &str| {
            format!(
                "CREATE TABLE {name} ({columns}) WITH
                 ('connector' = 'filesystem', 'path' = '{home}/{path}', 'format' = 'csv');"
            )
        };
        let text = format!(
            "{} {} {} EXECUTE STATEMENT SET BEGIN
             INSERT INTO o SELECT {values} FROM i; INSERT INTO p SELECT {values} FROM i; END",
            table("i", "a INT", "in.csv"),
            table("o", "a STRING, b STRING", "out"),
            table("p", "a STRING, b STRING", "out2"),
        );
        let program = Program::new("two.sql", text).set("parallelism.default", "1").set("execution.batch-rows", "1");
        let program = program.set("execution.runtime-mode", mode);
        let environment = Environment { clock: Arc::new(Ticking::default()), ..Environment::local() };
        program.plan_in(environment)?.start(StartMode::New, Some(&sorting.path("checkpoints")))?.wait()?;
        let lines = ["out", "out2"].map(|folder| sorting.output_in(folder).concat());
        Ok(lines.concat().lines().map(str::to_owned).collect())
    }

    #[test]
    fn now_is_when_a_batch_query_began_and_every_row_of_a_stream_has_its_own() {
        let values = "CAST(NOW() AS STRING), CAST(CURRENT_ROW_TIMESTAMP() AS STRING)";
        let different = |lines: &[String], column: usize| {
            assert_eq!(lines.len(), 6);
            let values: BTreeSet<&str> = lines.iter().map(|line| line.split(',').nth(column).unwrap()).collect();
            values.len()
        };
        let batch = two_inserts(&Sorting::new("3\n1\n20\n"), "batch", values).unwrap();
        assert_eq!((different(&batch, 0), different(&batch, 1)), (1, 6), "{batch:?}");
        let stream = two_inserts(&Sorting::new("3\n1\n20\n"), "streaming", values).unwrap();
        // A stream computes what both inserts have in common once.
        assert_eq!(different(&stream, 0), 3, "{stream:?}");
    }

    #[test]
    fn the_sinks_of_a_statement_set_are_committed_all_or_none() {
        let sorting = Sorting::new("3\n1\n0\n");
        let error = two_inserts(&sorting, "batch", "'x', CAST(6 / a AS STRING)").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert_eq!([sorting.output_in("out"), sorting.output_in("out2")], [Vec::<String>::new(), Vec::new()]);
        let lines = two_inserts(&sorting, "batch", "'x', CAST(6 - a AS STRING)").unwrap();
        assert_eq!(lines, ["x,3", "x,5", "x,6", "x,3", "x,5", "x,6"]);
    }

    #[test]
    fn automatic_is_batch_where_all_tables_end() {
        let sorting = Sorting::new("2\n10\n");
        let home = sorting.folder.path().display();
        let ends = format!(
            "CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = '{home}/in.csv', 'format' = 'csv');"
        );
        let endless = "CREATE TABLE t (a INT) WITH ('connector' = 'datagen');";
        let plan = |table: &str, query: &str| {
            let text = format!("SET 'execution.runtime-mode' = 'automatic'; {table} {query}");
            Program::new("auto.sql", text).plan()
        };
        let told = |table: &str| plan(table, "EXPLAIN SELECT a FROM t").unwrap().explain().to_owned();
        let text = told(&ends);
        assert!(
            text.starts_with("== Mode ==\nexecution.runtime-mode is batch, because all tables that are read end\n")
        );
        assert!(text.contains("== Physical plan (batch) =="), "{text}");
        let text = told(endless);
        assert!(
            text.starts_with("== Mode ==\nexecution.runtime-mode is streaming, because 't' never ends\n"),
            "{text}"
        );

        let error = plan(endless, "SELECT a FROM t ORDER BY a").unwrap_err().to_string();
        assert!(error.contains("a stream is ordered by its event time first"), "{error}");
        assert!(plan(&ends, "SELECT b FROM t").unwrap_err().to_string().contains("'b'"));
        let insert = format!(
            "CREATE TABLE o (a INT) WITH ('connector' = 'filesystem', 'path' = '{home}/out', 'format' = 'csv');
             INSERT INTO o SELECT a FROM t ORDER BY a DESC LIMIT 1"
        );
        let job = plan(&ends, &insert).unwrap().start(StartMode::New, Some(&sorting.path("checkpoints"))).unwrap();
        assert_eq!(job.notices(), ["execution.runtime-mode is batch, because all tables that are read end"]);
        job.wait().unwrap();
        assert_eq!(sorting.output(), ["10\n"]);
    }

    /// What a killed process leaves: the manifest of the beginning and a part that nobody committed.
    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test's output")]
    fn what_a_killed_batch_job_left_is_removed() {
        let sorting = Sorting::new("1\n");
        sorting.run(StartMode::New);
        let part = std::fs::read_dir(sorting.path("out")).unwrap().next().unwrap().unwrap().path();
        let last = std::fs::read_dir(sorting.path("checkpoints/manifests")).unwrap();
        let last = last.map(|entry| entry.unwrap().path()).max().unwrap();
        std::fs::remove_file(last).unwrap();
        let name = part.file_name().unwrap().to_str().unwrap();
        std::fs::rename(&part, part.with_file_name(unfinished(name))).unwrap();
        sorting.run(StartMode::Resume);
        assert_eq!(sorting.output(), ["1\n"]);
    }

    /// What the file sink calls a part while it is written.
    fn unfinished(finished: &str) -> String {
        let run = finished.strip_suffix("-000-00000002.csv").unwrap();
        format!(".{run}-000-after-00000001-0.tmp")
    }
}
