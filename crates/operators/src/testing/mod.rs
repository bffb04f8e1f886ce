//! For tests and benchmarks: a context around an operator, with its state in memory; and [`Subtasks`] under trouble.

mod subtasks;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::io::IoRequest;
use ruslo_core::key_group::{KEY_GROUPS, KeyGroup, KeyGroupRange};
use ruslo_core::keyed::{KeyedTable, TableSchema};
use ruslo_core::memory::{MemoryPool, Reservation, batch_bytes};
use ruslo_core::metrics::OperatorMetrics;
use ruslo_core::operator::{Operator, OperatorContext, Output, Progress, Subtask};
use ruslo_core::operator_rows::{OperatorRows, Redistribution};
use ruslo_core::sink::Committable;
use ruslo_core::state::{BucketTable, OperatorState};
use ruslo_core::time::Timestamp;
use ruslo_state::resident::ResidentTable;

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
    /// The world outside.
    pub environment: Environment,
    /// What the operator has asked of it.
    pub requests: Vec<IoRequest>,
    committables: Vec<Committable>,
    /// What fills the pool.
    others: Option<Reservation>,
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
            requests: Vec::new(),
            committables: Vec::new(),
            others: None,
        }
    }

    /// Leaves so little memory that what can leave it has to, and enough for the rest.
    ///
    /// # Errors
    /// None.
    pub fn fill_memory(&mut self) -> Result<()> {
        self.pool = MemoryPool::new(1 << 40);
        let others = self.pool.reserve("others");
        others.resize((1 << 40) - (1 << 36))?;
        self.others = Some(others);
        self.memory = self.pool.reserve_yielding("operator under test");
        Ok(())
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
            requests: &mut self.requests,
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
    keyed: BTreeMap<&'static str, MemoryKeyed>,
    rows: BTreeMap<&'static str, OperatorRows>,
    /// All of them, if none.
    owned: Option<KeyGroupRange>,
    /// Whether rows may leave memory. They stay where they are, but are not counted.
    has_disk: bool,
}

impl MemoryState {
    /// What of it belongs to `range`.
    #[must_use]
    pub fn restricted(&self, range: KeyGroupRange) -> Self {
        let tables = self.tables.iter().map(|(name, table)| (*name, table.restricted(&range)));
        let keyed = self.keyed.iter().map(|(name, table)| (*name, table.restricted(&range)));
        let (rows, owned) = (self.rows.clone(), Some(range.clone()));
        Self { tables: tables.collect(), keyed: keyed.collect(), rows, owned, has_disk: self.has_disk }
    }

    /// As if there was a disk for what does not fit in memory.
    #[must_use]
    pub fn with_disk(self) -> Self {
        Self { has_disk: true, ..self }
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
        for (name, table) in &other.keyed {
            let whole = || MemoryKeyed::new(table.0.schema(), 0..KEY_GROUPS);
            self.keyed.entry(name).or_insert_with(whole).add(table, &(0..KEY_GROUPS));
        }
        self.owned = None;
        self
    }
}

impl OperatorState for MemoryState {
    fn buckets(&mut self, name: &'static str) -> &mut dyn BucketTable {
        self.tables.entry(name).or_default()
    }

    fn can_evict(&self) -> bool {
        self.has_disk
    }

    fn evict(&mut self) -> Result<()> {
        for table in self.tables.values_mut() {
            table.evicted = table.buckets.iter().map(|(bucket, appended)| (*bucket, appended.len())).collect();
        }
        Ok(())
    }

    fn keyed(&mut self, name: &'static str, schema: &TableSchema) -> Result<&mut dyn KeyedTable> {
        let owned = self.owned.clone().unwrap_or(0..KEY_GROUPS);
        Ok(&mut self.keyed.entry(name).or_insert_with(|| MemoryKeyed::new(schema, owned)).0)
    }

    fn operator_rows(&mut self, name: &'static str, _: Redistribution) -> Result<&mut OperatorRows> {
        Ok(self.rows.entry(name).or_default())
    }
}

/// A keyed table without runs.
#[derive(Debug)]
struct MemoryKeyed(ResidentTable);

#[allow(clippy::expect_used, reason = "for tests")]
impl MemoryKeyed {
    fn new(schema: &TableSchema, owned: KeyGroupRange) -> Self {
        let memory = MemoryPool::unbounded().reserve("keyed table under test");
        Self(ResidentTable::new("test", schema.clone(), owned, memory, None).expect("a table that can be kept"))
    }

    fn restricted(&self, range: &KeyGroupRange) -> Self {
        let mut part = Self::new(self.0.schema(), range.clone());
        part.add(self, range);
        part
    }

    /// Adds what another one has of some key groups.
    fn add(&mut self, other: &Self, range: &KeyGroupRange) {
        let all = other.0.contents().expect("rows that can be read");
        let groups = all.hashes.iter().map(|hash| (hash % u64::from(KEY_GROUPS)) as KeyGroup);
        let keep: BooleanArray = groups.map(|group| Some(range.contains(&group))).collect();
        let buckets =
            all.buckets.iter().zip(keep.values()).filter(|(_, keep)| *keep).map(|(bucket, _)| *bucket).collect();
        for rows in &all.rows {
            let rows = filter_record_batch(rows, &keep).expect("as many rows as hashes");
            self.0.restore(Vec::clone(&buckets), rows).expect("rows of the same table");
        }
    }
}

impl Clone for MemoryKeyed {
    fn clone(&self) -> Self {
        self.restricted(&(0..KEY_GROUPS))
    }
}

/// A [`BucketTable`] without runs.
#[derive(Debug, Clone)]
struct MemoryTable {
    owned: KeyGroupRange,
    buckets: BTreeMap<i64, Vec<(Vec<KeyGroup>, RecordBatch)>>,
    /// How many batches of each bucket, from the first on, have left memory.
    evicted: BTreeMap<i64, usize>,
}

impl Default for MemoryTable {
    fn default() -> Self {
        Self { owned: 0..KEY_GROUPS, buckets: BTreeMap::new(), evicted: BTreeMap::new() }
    }
}

impl MemoryTable {
    fn restricted(&self, range: &KeyGroupRange) -> Self {
        let mut part = Self { owned: range.clone(), ..Self::default() };
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

    fn scan_groups(&self, bucket: i64, range: &KeyGroupRange) -> Result<Vec<RecordBatch>> {
        let appended = self.buckets.get(&bucket).into_iter().flatten();
        Ok(appended.filter_map(|(groups, rows)| Some(restrict(groups, rows, range)?.1)).collect())
    }

    fn batches(&self, bucket: i64) -> usize {
        self.buckets.get(&bucket).map_or(0, Vec::len)
    }

    fn expire_before(&mut self, bucket: i64, group: KeyGroup) {
        let Some(appended) = self.buckets.get_mut(&bucket) else { return };
        let cut = |(groups, rows): &(Vec<KeyGroup>, RecordBatch)| restrict(groups, rows, &(group..KEY_GROUPS));
        let evicted = self.evicted.remove(&bucket).unwrap_or(0);
        let gone = appended.iter().take(evicted).filter(|batch| cut(batch).is_none()).count();
        *appended = appended.iter().filter_map(cut).collect();
        if appended.is_empty() {
            self.buckets.remove(&bucket);
        } else {
            self.evicted.insert(bucket, evicted - gone);
        }
    }

    fn is_in_memory(&self, bucket: i64) -> bool {
        self.evicted.get(&bucket).is_none_or(|batches| *batches == 0)
    }

    fn groups_within(&self, bucket: i64, bytes_max: u64) -> KeyGroup {
        let bytes: usize = self.buckets.get(&bucket).into_iter().flatten().map(|(_, rows)| batch_bytes(rows)).sum();
        let groups = self.buckets.get(&bucket).into_iter().flatten().flat_map(|(groups, _)| groups.iter().copied());
        if bytes as u64 <= bytes_max { KEY_GROUPS } else { groups.min().map_or(KEY_GROUPS, |first| first + 1) }
    }

    fn buckets(&self) -> Vec<i64> {
        self.buckets.keys().copied().collect()
    }

    fn expire(&mut self, bucket: i64) {
        self.buckets.remove(&bucket);
        self.evicted.remove(&bucket);
    }

    fn rows(&self) -> usize {
        self.buckets.values().flatten().map(|(groups, _)| groups.len()).sum()
    }

    fn bytes(&self) -> usize {
        let in_memory = self
            .buckets
            .iter()
            .flat_map(|(bucket, appended)| appended.iter().skip(self.evicted.get(bucket).copied().unwrap_or(0)));
        in_memory.map(|(_, rows)| batch_bytes(rows)).sum()
    }
}
