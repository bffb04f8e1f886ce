//! For tests and benchmarks: a context around an operator, with its state in memory; and [`Subtasks`] under trouble.

mod subtasks;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::{KEY_GROUPS, KeyGroup, KeyGroupRange};
use ruslo_core::memory::{MemoryPool, Reservation};
use ruslo_core::metrics::OperatorMetrics;
use ruslo_core::operator::{Operator, OperatorContext, Output, Progress, Subtask};
use ruslo_core::sink::Committable;
use ruslo_core::state::{BucketTable, OperatorState};
use ruslo_core::time::Timestamp;

pub use self::subtasks::{Manners, Subtasks};

/// Everything that an [`OperatorContext`] borrows.
pub struct TestContext {
    /// Which subtask.
    pub subtask: Subtask,
    /// The merged watermark.
    pub watermark: Timestamp,
    /// Rows a piece of work.
    pub batch_rows: usize,
    /// State.
    pub state: MemoryState,
    /// What the memory counts against.
    pub pool: Arc<MemoryPool>,
    /// What the operator holds.
    pub memory: Reservation,
    /// What it counts.
    pub metrics: OperatorMetrics,
    environment: Environment,
    committables: Vec<Committable>,
}

impl TestContext {
    /// One subtask of one, empty state, no limit.
    #[allow(clippy::new_without_default, reason = "the name says what a test wants")]
    pub fn new() -> Self {
        Self::with_state(Subtask { index: 0, parallelism: 1 }, MemoryState::default())
    }

    /// `subtask`, with its part of `state`.
    pub fn with_state(subtask: Subtask, state: MemoryState) -> Self {
        let pool = MemoryPool::unbounded();
        Self {
            state: state.restricted(subtask.key_groups()),
            subtask,
            watermark: Timestamp::MIN,
            batch_rows: 1024,
            memory: pool.reserve("operator under test"),
            pool,
            metrics: OperatorMetrics::default(),
            environment: Environment::local(),
            committables: Vec::new(),
        }
    }

    /// What a call gets.
    pub fn context(&mut self) -> OperatorContext<'_> {
        OperatorContext {
            subtask: self.subtask,
            watermark: self.watermark,
            batch_rows: self.batch_rows,
            state: &mut self.state,
            memory: &self.memory,
            metrics: &self.metrics,
            environment: &self.environment,
            committables: &mut self.committables,
        }
    }
}

/// Gives `batch` to the operator and drains it.
///
/// # Errors
/// The operator's.
pub fn run_batch(operator: &mut dyn Operator, batch: RecordBatch, test: &mut TestContext) -> Result<Vec<RecordBatch>> {
    let mut out = Output::default();
    let progress = operator.on_batch(0, batch, &mut test.context(), &mut out)?;
    drain(operator, progress, test, &mut out)
}

/// Raises the watermark and drains the operator.
///
/// # Errors
/// The operator's.
pub fn run_watermark(
    operator: &mut dyn Operator,
    watermark: Timestamp,
    test: &mut TestContext,
) -> Result<Vec<RecordBatch>> {
    let mut out = Output::default();
    test.watermark = watermark;
    let progress = operator.on_watermark(watermark, &mut test.context(), &mut out)?;
    drain(operator, progress, test, &mut out)
}

/// Calls `resume` until all is done.
///
/// # Errors
/// The operator's.
pub fn drain(
    operator: &mut dyn Operator,
    mut progress: Progress,
    test: &mut TestContext,
    out: &mut Output,
) -> Result<Vec<RecordBatch>> {
    while progress == Progress::More {
        progress = operator.resume(&mut test.context(), out)?;
    }
    Ok(out.take().into_iter().map(|(_, batch)| batch).collect())
}

/// State in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryState {
    tables: BTreeMap<&'static str, MemoryTable>,
}

impl MemoryState {
    /// What of it belongs to `range`.
    #[must_use]
    pub fn restricted(&self, range: KeyGroupRange) -> Self {
        let tables = self.tables.iter().map(|(name, table)| (*name, table.restricted(&range)));
        Self { tables: tables.collect() }
    }

    /// Both together.
    #[must_use]
    pub fn joined(mut self, other: &Self) -> Self {
        for (name, table) in &other.tables {
            let mine = self.tables.entry(name).or_default();
            for (bucket, appended) in &table.buckets {
                mine.buckets.entry(*bucket).or_default().extend(appended.iter().cloned());
            }
        }
        self
    }
}

impl OperatorState for MemoryState {
    fn buckets(&mut self, name: &'static str) -> &mut dyn BucketTable {
        self.tables.entry(name).or_default()
    }
}

/// A [`BucketTable`] without runs.
#[derive(Debug, Clone)]
struct MemoryTable {
    owned: KeyGroupRange,
    buckets: BTreeMap<i64, Vec<(Vec<KeyGroup>, RecordBatch)>>,
}

impl Default for MemoryTable {
    fn default() -> Self {
        Self { owned: 0..KEY_GROUPS, buckets: BTreeMap::new() }
    }
}

impl MemoryTable {
    fn restricted(&self, range: &KeyGroupRange) -> Self {
        let mut part = Self { owned: range.clone(), buckets: BTreeMap::new() };
        for (bucket, appended) in &self.buckets {
            let kept: Vec<_> = appended.iter().filter_map(|(groups, rows)| restrict(groups, rows, range)).collect();
            if !kept.is_empty() {
                part.buckets.insert(*bucket, kept);
            }
        }
        part
    }
}

fn restrict(groups: &[KeyGroup], rows: &RecordBatch, range: &KeyGroupRange) -> Option<(Vec<KeyGroup>, RecordBatch)> {
    let keep: BooleanArray = groups.iter().map(|group| Some(range.contains(group))).collect();
    let rows = filter_record_batch(rows, &keep).ok().filter(|rows| rows.num_rows() > 0)?;
    Some((groups.iter().copied().filter(|group| range.contains(group)).collect(), rows))
}

impl BucketTable for MemoryTable {
    fn append(&mut self, bucket: i64, groups: &[KeyGroup], rows: &RecordBatch) -> Result<()> {
        if groups.len() != rows.num_rows() {
            return Err(Error::internal(format!("{} key groups for {} rows", groups.len(), rows.num_rows())));
        }
        if let Some(group) = groups.iter().find(|group| !self.owned.contains(group)) {
            return Err(Error::internal(format!("key group {group} is not in {:?}", self.owned)));
        }
        if !groups.is_empty() {
            self.buckets.entry(bucket).or_default().push((groups.to_vec(), rows.clone()));
        }
        Ok(())
    }

    fn scan(&self, bucket: i64) -> Vec<RecordBatch> {
        self.buckets.get(&bucket).into_iter().flatten().map(|(_, rows)| rows.clone()).collect()
    }

    fn buckets(&self) -> Vec<i64> {
        self.buckets.keys().copied().collect()
    }

    fn expire(&mut self, bucket: i64) {
        self.buckets.remove(&bucket);
    }

    fn bytes(&self) -> usize {
        self.buckets.values().flatten().map(|(_, rows)| ruslo_core::memory::batch_bytes(rows)).sum()
    }
}
