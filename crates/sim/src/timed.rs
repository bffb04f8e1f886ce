//! Timers, and rows that belong to no key, in whole jobs on a virtual clock: killed, stopped, restored, rescaled.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use arrow::record_batch::RecordBatch;
use ruslo_core::clock::Clock;
use ruslo_core::dead_letter::OnError;
use ruslo_core::environment::Environment;
use ruslo_core::error::Result;
use ruslo_core::graph::{Edge, Graph, Node, NodeKind, OperatorId, Partitioning, SourceNode};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Port, Progress, SharedFactory};
use ruslo_core::operator_rows::Redistribution;
use ruslo_core::rng::Rng;
use ruslo_core::standard_input::NoInput;
use ruslo_core::time::Timestamp;
use ruslo_runtime::coordinator::Outcome;
use ruslo_runtime::executor::seeded::SeededJob;
use ruslo_runtime::job::{JobConfig, JobSpec, Start};
use ruslo_state::store::CheckpointStore;

use crate::attempt::World;
use crate::damage::FOLDER;
use crate::dataset::{Dataset, Lineage, Row, column, schema};
use crate::process::Process;
use crate::sink::{Permanence, SimSink};
use crate::source::{Manners, SimSource};
use crate::trace::Trace;

const TIMERS: &str = "__timers";
const COUNTS: &str = "counts";

/// Emits the key of each row, and when that was due, so long after the row; all else is 0. Counts its rows beside: a row of
/// no key for each batch.
struct Later {
    delay_ms: i64,
    /// Emits nothing: whatever fires is registered again, and due at once.
    renews: bool,
}

fn key() -> [FieldRef; 1] {
    [Arc::new(Field::new("k", DataType::Int64, true))]
}

impl Operator for Later {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        ctx.timers(&key()).map(drop)
    }

    fn on_batch(
        &mut self,
        _: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        _: &mut Output,
    ) -> Result<Progress> {
        let at = vec![Timestamp(ctx.now().millis() + self.delay_ms); batch.num_rows()];
        ctx.timers(&key())?.register(&at, &[Arc::clone(batch.column(column::KEY))])?;
        let count: ArrayRef = Arc::new(Int64Array::from(vec![batch.num_rows() as i64]));
        ctx.state.operator_rows(COUNTS, Redistribution::Split)?.append(RecordBatch::try_from_iter([("n", count)])?);
        Ok(Progress::Done)
    }

    fn on_timer(
        &mut self,
        at: Timestamp,
        keys: &[ArrayRef],
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        assert!(at <= ctx.now(), "a timer of {at} fires at {}", ctx.now());
        if self.renews {
            ctx.timers(&key())?.register(&vec![at; keys[0].len()], keys)?;
            return Ok(Progress::Done);
        }
        let rows = keys[0].len();
        let zeros = || Arc::new(Int64Array::from(vec![0; rows])) as ArrayRef;
        let time: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![at.millis(); rows]));
        let mut columns: Vec<_> = (0..schema().fields().len()).map(|_| zeros()).collect();
        columns[column::KEY] = Arc::clone(&keys[0]);
        columns[column::TIME] = arrow::compute::cast(&time, schema().field(column::TIME).data_type())?;
        out.emit(RecordBatch::try_new(schema(), columns)?);
        Ok(Progress::Done)
    }
}

/// Passes rows on, and counts them as [`Later`] does.
struct Counting;

impl Operator for Counting {
    fn on_batch(
        &mut self,
        _: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let count: ArrayRef = Arc::new(Int64Array::from(vec![batch.num_rows() as i64]));
        ctx.state.operator_rows(COUNTS, Redistribution::Split)?.append(RecordBatch::try_from_iter([("n", count)])?);
        out.emit(batch);
        Ok(Progress::Done)
    }
}

/// A world in which rows of `keys` keys are read and come out later.
struct Theatre {
    world: World,
    rng: Rng,
    keys: i64,
    delay_ms: i64,
    /// Another source, which brings nothing and does not end.
    is_endless: bool,
    renews: bool,
    /// Nothing comes later: two files, one of them short, are counted by a subtask each, which end at their own times.
    is_forward: bool,
    processes: u64,
}

impl Theatre {
    fn new(seed: u64, keys: i64, delay_ms: i64, is_endless: bool) -> Self {
        let world = World::new(Trace::default());
        Self {
            world,
            rng: Rng::seeded(seed),
            keys,
            delay_ms,
            is_endless,
            renews: false,
            is_forward: false,
            processes: 0,
        }
    }

    fn source(&mut self, id: i64, rows: &[i64], manners: Manners) -> NodeKind {
        let lineages = (id..).zip(rows).map(|(id, rows)| {
            let rows: Vec<_> = (0..*rows).map(|key| Row { key, value: 1, time: key }).collect();
            Lineage { id, cuts: vec![0, rows.len()], rows }
        });
        let data = Dataset { lineages: lineages.collect() };
        let rng = Rng::seeded(self.rng.next_u64());
        let source = Arc::new(SimSource::new(Arc::new(data), manners, self.world.trace.clone(), rng));
        NodeKind::Source(SourceNode { source, row_time: None, rows_per_second: None, on_error: OnError::Fail })
    }

    fn graph(&mut self, process: &Arc<Process>, parallelism: usize) -> Graph {
        let mut graph = Graph::default();
        let mut add = |kind, parallelism| {
            let place = graph.nodes.len() as u64;
            let node = Node { id: OperatorId(place), name: format!("{place}"), parallelism, schema: schema(), kind };
            graph.add(node)
        };
        let manners = Manners { rows_max: 3, pause_one_in: 4, hang_after: None };
        let (files, readers) = if self.is_forward { (vec![1, self.keys], parallelism) } else { (vec![self.keys], 1) };
        let mut sources = vec![add(self.source(1, &files, manners), readers)];
        if self.is_endless {
            let hanging = Manners { hang_after: Some(0), ..manners };
            sources.push(add(self.source(3, &[1], hanging), 1));
        }
        let (delay_ms, renews) = (self.delay_ms, self.renews);
        let later: SharedFactory = Arc::new(move || Ok(Later { delay_ms, renews }));
        let counting: SharedFactory = Arc::new(|| Ok(Counting));
        let later = add(NodeKind::Operator(if self.is_forward { counting } else { later }), parallelism);
        let sink = SimSink {
            outside: self.world.outside.clone(),
            number: 0,
            permanence: Permanence::Final,
            buffered: false,
            delay: None,
            changes: false,
            process: Arc::clone(process),
            trace: self.world.trace.clone(),
        };
        let sink = add(NodeKind::Sink(Arc::new(sink)), parallelism);
        for (input, from) in sources.into_iter().enumerate() {
            let by_key = Partitioning::KeyGroup(vec![column::KEY]);
            let partitioning = if self.is_forward { Partitioning::Forward } else { by_key };
            graph.edges.push(Edge { from, port: Port::MAIN, to: later, input, partitioning });
        }
        graph.connect(later, sink, Partitioning::Forward);
        graph
    }

    fn store(&self, process: &Arc<Process>) -> CheckpointStore {
        let disk = Arc::new(self.world.machine.disk(process));
        CheckpointStore::open(disk, Path::new(FOLDER), format!("p{}", process.id)).unwrap()
    }

    /// A process that goes on from the newest checkpoint.
    fn start(&mut self, parallelism: usize) -> (Arc<Process>, SeededJob) {
        self.processes += 1;
        let process = Arc::new(Process::new(self.processes, Vec::new()));
        let store = self.store(&process);
        let start = match store.restore_newest().unwrap() {
            Some(restored) => Start::Restore(restored),
            None => Start::Fresh { run: "run".to_owned() },
        };
        let environment = Environment {
            clock: Arc::clone(&self.world.clock) as _,
            disk: Arc::new(self.world.machine.disk(&process)),
            input: Arc::new(NoInput),
            console: Arc::new(Mutex::new(std::io::sink())),
            seed: 0,
        };
        let config =
            JobConfig { batch_rows: 4, checkpoint_interval: Some(Duration::from_millis(1)), ..JobConfig::default() };
        let graph = self.graph(&process, parallelism);
        let fingerprint = "timers".to_owned();
        let spec = JobSpec { graph, config, environment, store, fingerprint, plan: None, start };
        let job = SeededJob::start(spec, Arc::clone(&self.world.clock), Rng::seeded(self.rng.next_u64())).unwrap();
        process.started();
        (process, job)
    }

    /// Of each run that a table has in the newest checkpoint: the sum of its first column, if it is of no key; else its rows.
    fn stored_runs(&self, table: &str) -> Vec<i64> {
        let process = Arc::new(Process::new(1_000, Vec::new()));
        let store = self.store(&process);
        let restored = store.restore_newest().unwrap().unwrap();
        let operator = OperatorId(1 + u64::from(self.is_endless));
        let runs = restored.manifest.operators[&operator].subtasks.iter().flat_map(|task| task.tables.get(table));
        let values = runs.flatten().map(|run| match restored.runs.get(run) {
            Some(rows) => rows.column(0).as_primitive::<Int64Type>().values().iter().sum(),
            None => run.rows as i64,
        });
        values.collect()
    }

    /// The keys that are visible, ascending.
    fn shown(&self) -> Vec<i64> {
        let visible = self.world.outside.visible(0);
        let mut keys: Vec<_> =
            visible.iter().flat_map(|(row, count)| vec![row[column::KEY]; *count as usize]).collect();
        keys.sort();
        keys
    }
}

#[test]
fn timers_fire_once_through_kills_and_at_every_parallelism() {
    let mut restored_timers = 0;
    for seed in 0..20 {
        let mut theatre = Theatre::new(seed, 40, 20, true);
        for parallelism in [1, 3, 2] {
            let (process, mut job) = theatre.start(parallelism);
            for _ in 0..200 + theatre.rng.below(1_500) {
                assert!(job.step().unwrap().is_none());
            }
            process.kill();
            drop(job);
            restored_timers += theatre.stored_runs(TIMERS).len();
        }
        let (_, mut job) = theatre.start(3);
        let mut steps = 0;
        while theatre.shown().len() < 40 {
            assert!(job.step().unwrap().is_none());
            steps += 1;
            assert!(steps < 200_000, "seed {seed}: {:?}", theatre.shown());
        }
        job.stop();
        assert!(matches!(job.run_to_end().unwrap(), Outcome::Stopped(_)));
        drop(job);
        assert_eq!(theatre.shown(), (0..40).collect::<Vec<_>>(), "seed {seed}");
        assert_eq!(theatre.stored_runs(COUNTS).iter().sum::<i64>(), 40, "seed {seed}: a count of rows for every batch");
    }
    assert!(restored_timers > 0, "no process was killed with timers in its checkpoint");
}

#[test]
fn timers_pending_at_end() {
    for (seed, parallelism) in [(1, 1), (2, 2), (3, 3)] {
        let mut theatre = Theatre::new(seed, 10, 3_600_000, false);
        let (_, mut job) = theatre.start(parallelism);
        assert_eq!(job.run_to_end().unwrap(), Outcome::Finished);
        drop(job);
        assert!(theatre.world.clock.now() < Duration::from_secs(600), "the job waited for its timers");
        assert_eq!(theatre.shown(), [0i64; 0]);
        assert!(theatre.stored_runs(TIMERS).is_empty(), "they are dropped, and fire in no later process");
    }
}

#[test]
fn timers_outlive_a_stop_and_fire_late_if_nothing_ran_at_their_time() {
    let mut theatre = Theatre::new(7, 10, 3_600_000, true);
    let (_, mut job) = theatre.start(2);
    for _ in 0..3_000 {
        job.step().unwrap();
    }
    job.stop();
    assert!(matches!(job.run_to_end().unwrap(), Outcome::Stopped(_)));
    drop(job);
    assert_eq!(theatre.shown(), [0i64; 0]);
    theatre.world.clock.advance(Duration::from_secs(7_200));
    let (_, mut job) = theatre.start(3);
    for _ in 0..3_000 {
        job.step().unwrap();
    }
    drop(job);
    assert_eq!(theatre.shown(), (0..10).collect::<Vec<_>>());
}

#[test]
fn timers_that_are_always_due_keep_no_row_and_no_barrier_from_coming() {
    let mut theatre = Theatre::new(8, 30, 0, true);
    theatre.renews = true;
    let (_, mut job) = theatre.start(2);
    for _ in 0..5_000 {
        assert!(job.step().unwrap().is_none());
    }
    job.stop();
    let stopped = (0..20_000).find_map(|_| job.step().unwrap());
    assert!(matches!(stopped, Some(Outcome::Stopped(_))), "{stopped:?}");
    drop(job);
    assert_eq!(theatre.stored_runs(COUNTS).iter().sum::<i64>(), 30, "all rows were read meanwhile");
}

#[test]
fn rows_of_no_key_stay_in_checkpoints_after_their_subtask_has_ended() {
    for seed in 0..5 {
        let mut theatre = Theatre::new(seed, 60, 0, false);
        theatre.is_forward = true;
        let (_, mut job) = theatre.start(2);
        assert_eq!(job.run_to_end().unwrap(), Outcome::Finished);
        drop(job);
        assert_eq!(theatre.stored_runs(COUNTS).iter().sum::<i64>(), 61, "seed {seed}");
    }
}
