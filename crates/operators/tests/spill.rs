//! Windows and sorts that do not fit in memory: what leaves it is on a real disk, in runs as a job has them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::{col, lit};
use ruslo_core::disk::{Disk, LocalDisk};
use ruslo_core::environment::Environment;
use ruslo_core::epoch::Epoch;
use ruslo_core::key_group::KEY_GROUPS;
use ruslo_core::memory::{MemoryPool, Reservation};
use ruslo_core::metrics::OperatorMetrics;
use ruslo_core::operator::{Operator, OperatorContext, Output, Progress, SharedFactory, Subtask};
use ruslo_core::rng::Rng;
use ruslo_core::time::Timestamp;
use ruslo_operators::{AggregateCall, EventTimeSortSpec, NamedExpr, SortKey, WindowAggregateSpec, WindowShape};
use ruslo_state::keyed::KeyedContext;
use ruslo_state::runs::WorkFolder;
use ruslo_state::table::{RunState, TableSnapshot};

const LIMIT_BYTES: u64 = 1 << 20;
const WINDOW_MS: i64 = 1_000_000;

fn batch(rows: &[(i64, i64)]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
    let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1)));
    RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("ts", times, true)]).unwrap()
}

/// One subtask over state of its own, with little memory.
struct Small<'a> {
    folder: &'a Path,
    work: WorkFolder,
    factory: SharedFactory,
    operator: Box<dyn Operator>,
    state: RunState,
    pool: Arc<MemoryPool>,
    memory: Reservation,
    metrics: OperatorMetrics,
    environment: Environment,
    watermark: Timestamp,
    out: Output,
    made: Vec<RecordBatch>,
    /// How many files there were in the working folder at most.
    files_max: usize,
}

impl<'a> Small<'a> {
    fn new(factory: SharedFactory, folder: &'a Path) -> Self {
        let pool = MemoryPool::new(LIMIT_BYTES);
        let work = WorkFolder::new(Arc::new(LocalDisk), folder.to_owned());
        let mut small = Self {
            folder,
            operator: factory.create().unwrap(),
            factory,
            state: Self::state(&work, &pool),
            memory: pool.reserve_yielding("operator"),
            pool,
            work,
            metrics: OperatorMetrics::default(),
            environment: Environment::local(),
            watermark: Timestamp::MIN,
            out: Output::default(),
            made: Vec::new(),
            files_max: 0,
        };
        let _ = small.call(|operator, ctx, _| operator.open(ctx).map(|()| Progress::Done));
        small
    }

    fn state(work: &WorkFolder, pool: &Arc<MemoryPool>) -> RunState {
        let context = KeyedContext { owner: "test".to_owned(), work: work.clone(), memory: Arc::clone(pool) };
        RunState::new(0..KEY_GROUPS).with_keyed(context)
    }

    fn call(
        &mut self,
        work: impl FnOnce(&mut dyn Operator, &mut OperatorContext<'_>, &mut Output) -> ruslo_core::error::Result<Progress>,
    ) -> Progress {
        let mut ctx = OperatorContext {
            subtask: Subtask { index: 0, parallelism: 1 },
            watermark: self.watermark,
            batch_rows: 1_000,
            state: &mut self.state,
            memory: &self.memory,
            metrics: &self.metrics,
            environment: &self.environment,
            committables: &mut Vec::new(),
            requests: &mut Vec::new(),
        };
        let progress = work(self.operator.as_mut(), &mut ctx, &mut self.out).unwrap();
        self.made.extend(self.out.take().into_iter().map(|(_, batch)| batch));
        self.files_max = self.files_max.max(files(self.folder));
        progress
    }

    fn finish(&mut self, mut progress: Progress, rng: &mut Rng) {
        while progress == Progress::More {
            if rng.one_in(200) {
                self.checkpoint(rng.one_in(2));
            }
            progress = self.call(|operator, ctx, out| operator.resume(ctx, out));
        }
    }

    /// A barrier; and then perhaps another operator over the state of the first, as a restore has it.
    fn checkpoint(&mut self, restored: bool) {
        let _ = self.call(|operator, ctx, out| operator.snapshot(Epoch(1), ctx, out).map(|()| Progress::Done));
        if !restored {
            return;
        }
        let tables = self.state.seal().unwrap();
        self.state = Self::state(&self.work, &self.pool);
        for (name, table) in tables {
            let TableSnapshot::Buckets(runs) = table else { panic!("no bucket table") };
            runs.into_iter().for_each(|run| self.state.add(&name, run));
        }
        self.memory.resize(0).unwrap();
        self.operator = self.factory.create().unwrap();
        let _ = self.call(|operator, ctx, _| operator.open(ctx).map(|()| Progress::Done));
    }

    fn send(&mut self, rows: &[(i64, i64)], rng: &mut Rng) {
        let rows = batch(rows);
        let progress = self.call(|operator, ctx, out| operator.on_batch(0, rows, ctx, out));
        self.finish(progress, rng);
    }

    fn raise(&mut self, watermark: Timestamp, rng: &mut Rng) {
        self.watermark = watermark;
        let progress = self.call(|operator, ctx, out| operator.on_watermark(watermark, ctx, out));
        self.finish(progress, rng);
    }
}

fn files(folder: &Path) -> usize {
    LocalDisk.list(folder).unwrap().len()
}

fn count(shape: WindowShape) -> SharedFactory {
    let schema = batch(&[]).schema();
    let n = AggregateExprBuilder::new(count_udaf(), vec![lit(1i64)]).schema(schema.clone()).alias("n").build().unwrap();
    let key = NamedExpr::new(col("k", &schema).unwrap(), "k", &schema).unwrap();
    let calls = vec![AggregateCall::new(Arc::new(n))];
    WindowAggregateSpec::new(&schema, vec![key], calls, 1, shape).unwrap().factory()
}

/// Many keys in windows that are filled together, each row in `copies` windows; rows out of memory many times over.
fn counts_of_windows(shape: WindowShape, windows_of: impl Fn(i64) -> Vec<i64>) {
    let folder = tempfile::tempdir().unwrap();
    let rng = &mut Rng::seeded(7);
    let mut small = Small::new(count(shape), folder.path());
    let mut expected = BTreeMap::<(i64, i64), i64>::new();
    for step in 0..120 {
        let made: Vec<_> =
            (0..1_000).map(|_| (rng.below(60_000) as i64, rng.below(2 * WINDOW_MS as usize) as i64)).collect();
        for (key, time) in &made {
            windows_of(*time).into_iter().for_each(|start| *expected.entry((start, *key)).or_default() += 1);
        }
        small.send(&made, rng);
        if step % 40 == 20 {
            small.checkpoint(step % 80 == 20);
        }
    }
    small.raise(Timestamp::MAX, rng);
    assert!(small.files_max > 1, "nothing has left memory");
    assert!(small.pool.peak_bytes() <= LIMIT_BYTES);
    let mut found = BTreeMap::new();
    for batch in &small.made {
        let keys = batch.column(0).as_primitive::<Int64Type>().values();
        let counts = batch.column(1).as_primitive::<Int64Type>().values();
        let starts = batch.column(2).as_primitive::<TimestampMillisecondType>().values();
        for ((key, count), start) in keys.iter().zip(counts).zip(starts) {
            assert_eq!(found.insert((*start, *key), *count), None, "a group came twice");
        }
    }
    assert!(found == expected, "{} groups instead of {}", found.len(), expected.len());
    drop(small);
    assert_eq!(files(folder.path()), 0, "files are left");
}

#[test]
fn a_window_that_is_larger_than_memory_fires_one_part_of_its_keys_after_the_other() {
    counts_of_windows(WindowShape::tumble(WINDOW_MS, 0).unwrap(), |time| vec![time.div_euclid(WINDOW_MS) * WINDOW_MS]);
}

#[test]
fn a_sort_that_does_not_fit_in_memory_goes_on_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let rng = &mut Rng::seeded(11);
    let key = |column| SortKey { column, descending: false, nulls_first: true };
    let factory = EventTimeSortSpec::new(&batch(&[]).schema(), vec![key(1), key(0)]).unwrap().factory();
    let mut small = Small::new(factory, folder.path());
    let mut expected = Vec::new();
    for step in 0..150 {
        let made: Vec<_> = (0..1_000).map(|_| (rng.below(1_000) as i64, rng.below(6_000_000) as i64)).collect();
        expected.extend(made.iter().map(|(key, time)| (*time, *key)));
        small.send(&made, rng);
        if step % 50 == 20 {
            small.checkpoint(step > 50);
        }
    }
    small.raise(Timestamp::MAX, rng);
    assert!(small.files_max > 1, "nothing has left memory");
    assert!(small.pool.peak_bytes() <= LIMIT_BYTES);
    expected.sort_unstable();
    let found = small.made.iter().flat_map(|batch| {
        let keys = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
        let times = batch.column(1).as_primitive::<TimestampMillisecondType>().values().to_vec();
        times.into_iter().zip(keys)
    });
    assert!(found.collect::<Vec<_>>() == expected);
}
