//! Bucket tables as immutable runs.
//!
//! A run holds the rows of one bucket, ordered by key group, with the key group as its last column. Appending makes a
//! run; nothing ever changes one. So sealing for a checkpoint copies nothing, a run is uploaded once however many
//! checkpoints name it, and restoring at another parallelism takes from each run the slice of its key groups. A run may
//! leave memory ([`RunState::evict`]): it is read back when it is asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::array::{ArrayRef, AsArray, UInt16Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, UInt16Type};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::{KEY_GROUPS, KeyGroup, KeyGroupRange};
use ruslo_core::keyed::{KeyedTable, TableSchema};
use ruslo_core::memory::batch_bytes;
use ruslo_core::operator_rows::{OperatorRows, Redistribution};
use ruslo_core::state::{BucketTable, OperatorState};
use ruslo_core::time::Timestamp;
use ruslo_core::timers::Timers;

use crate::evicted::{Evicted, evict};
use crate::keyed::{Keyed, KeyedContext, KeyedSnapshot};
use crate::manifest::RunRef;
use crate::operator_rows::{RowsSnapshot, RowsTable};
use crate::planted::{Bug, planted};
use crate::runs::{Fetched, RunSetSnapshot, WorkFolder};
use crate::timers::{Due, TIMERS, TimerTable, timer_schema};

/// The last column of every run.
pub const KEY_GROUP_COLUMN: &str = "__key_group";

/// Immutable rows of one bucket; cheap to clone.
#[derive(Debug, Clone)]
pub struct Run {
    bucket: i64,
    /// How many rows there are up to and with those of each key group that the run has.
    ends: Arc<[(KeyGroup, usize)]>,
    /// The key groups that are meant.
    wanted: KeyGroupRange,
    content: Arc<Mutex<Content>>,
    bytes: usize,
    /// Where the run is stored, once it is; set by the upload.
    stored: Arc<OnceLock<RunRef>>,
}

/// Where the rows of a run are, those of all its key groups.
#[derive(Debug)]
enum Content {
    /// Without the key group column.
    Memory(RecordBatch),
    Evicted(Evicted),
}

impl Run {
    fn new(bucket: i64, groups: &[KeyGroup], rows: &RecordBatch) -> Result<Self> {
        let order = order_by_group(groups);
        let rows = take_record_batch(rows, &order)?;
        let groups: Vec<_> = order.values().iter().filter_map(|row| groups.get(*row as usize).copied()).collect();
        Ok(Self::in_memory(bucket, rows, &groups, Arc::default()))
    }

    /// Rows whose key groups are `groups`, ascending.
    fn in_memory(bucket: i64, rows: RecordBatch, groups: &[KeyGroup], stored: Arc<OnceLock<RunRef>>) -> Self {
        let mut row = 0;
        let ends = groups.chunk_by(|a, b| a == b).filter_map(|same| {
            row += same.len();
            Some((*same.first()?, row))
        });
        let ends = ends.collect();
        let bytes = batch_bytes(&rows);
        let content = Arc::new(Mutex::new(Content::Memory(rows)));
        Self { bucket, ends, wanted: 0..KEY_GROUPS, content, bytes, stored }
    }

    /// A run read back from storage, cut to the key groups that `reference` names and `wanted` owns; `None` if none.
    pub fn restored(reference: &RunRef, batch: &RecordBatch, wanted: &KeyGroupRange) -> Result<Option<Self>> {
        let groups = key_group_column(batch)
            .ok_or_else(|| Error::corrupt(format!("{}: a run has no key groups", reference.file)))?;
        let (start, end) = (wanted.start.max(reference.groups.start), wanted.end.min(reference.groups.end));
        let from = groups.values().partition_point(|group| *group < start);
        let to = groups.values().partition_point(|group| *group < end);
        if from >= to {
            return Ok(None);
        }
        let mut rows = batch.slice(from, to - from);
        rows.remove_column(rows.num_columns() - 1);
        let stored = Arc::new(OnceLock::from(RunRef { groups: start..end, ..reference.clone() }));
        let groups = groups.values().get(from..to).unwrap_or_default();
        Ok(Some(Self::in_memory(reference.bucket, rows, groups, stored)))
    }

    /// The bucket of every row.
    pub fn bucket(&self) -> i64 {
        self.bucket
    }

    /// The key group of each row, ascending.
    pub fn groups(&self) -> Vec<KeyGroup> {
        groups_of(&self.ends)
    }

    /// Where the run is stored, if it is.
    pub fn stored(&self) -> Option<&RunRef> {
        self.stored.get()
    }

    /// Says where the run is stored now.
    pub fn set_stored(&self, reference: RunRef) {
        // A run is uploaded by one checkpoint at a time; a second answer would be about the same bytes.
        let _ = self.stored.set(reference);
    }

    /// The rows with their key groups as the last column: what is stored.
    pub fn to_batch(&self) -> Result<RecordBatch> {
        let (rows, (from, to)) = (self.rows()?, self.range(&self.wanted));
        Ok(with_groups(&rows, &self.ends)?.slice(from, to - from))
    }

    /// The rows of all its key groups.
    fn rows(&self) -> Result<RecordBatch> {
        let evicted = match &*self.content.lock().unwrap_or_else(PoisonError::into_inner) {
            Content::Memory(rows) => return Ok(rows.clone()),
            Content::Evicted(evicted) => evicted.clone(),
        };
        let mut rows = evicted.read()?;
        rows.remove_column(rows.num_columns() - 1);
        Ok(rows)
    }

    /// The first row of some key groups, and the one behind the last.
    fn range(&self, groups: &KeyGroupRange) -> (usize, usize) {
        let (start, end) = (groups.start.max(self.wanted.start), groups.end.min(self.wanted.end));
        let before = |group: KeyGroup| {
            let ended = self.ends.iter().take_while(|(of, _)| *of < group);
            ended.last().map_or(0, |(_, end)| *end)
        };
        (before(start), before(end.max(start)))
    }

    /// The rows of some key groups; `None` if there are none.
    fn scan(&self, groups: &KeyGroupRange) -> Result<Option<RecordBatch>> {
        let (from, to) = self.range(groups);
        if from == to { Ok(None) } else { Ok(Some(self.rows()?.slice(from, to - from))) }
    }

    /// The run without the rows of key groups before `group`; `None` if that is all of it.
    fn starting_at(&self, group: KeyGroup) -> Option<Self> {
        let wanted = group.max(self.wanted.start)..self.wanted.end;
        if wanted == self.wanted {
            return Some(self.clone());
        }
        let (from, to) = self.range(&wanted);
        let stored = self.stored().map(|reference| {
            let groups = group.max(reference.groups.start)..reference.groups.end;
            OnceLock::from(RunRef { groups, ..reference.clone() })
        });
        let stored = Arc::new(stored.unwrap_or_default());
        (from < to).then(|| Self { wanted, stored, ..self.clone() })
    }

    /// Bytes in memory.
    fn bytes(&self) -> usize {
        match &*self.content.lock().unwrap_or_else(PoisonError::into_inner) {
            Content::Memory(_) => self.bytes,
            Content::Evicted(_) => 0,
        }
    }

    /// Bytes of the rows of one key group, in memory or not.
    fn bytes_of(&self, group: KeyGroup) -> u64 {
        let (from, to) = self.range(&(group..group + 1));
        let rows = self.ends.last().map_or(1, |(_, rows)| *rows);
        (self.bytes as u64 * (to - from) as u64).div_ceil(rows.max(1) as u64)
    }

    fn has_left(&self, to: Evicted) {
        *self.content.lock().unwrap_or_else(PoisonError::into_inner) = Content::Evicted(to);
    }
}

/// `rows` with their key groups as the last column.
fn with_groups(rows: &RecordBatch, ends: &[(KeyGroup, usize)]) -> Result<RecordBatch> {
    let key_group = Arc::new(Field::new(KEY_GROUP_COLUMN, DataType::UInt16, false));
    let fields: Vec<_> = rows.schema_ref().fields().iter().cloned().chain([key_group]).collect();
    let mut columns = rows.columns().to_vec();
    columns.push(Arc::new(UInt16Array::from(groups_of(ends))) as ArrayRef);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The key group of each row.
fn groups_of(ends: &[(KeyGroup, usize)]) -> Vec<KeyGroup> {
    let mut groups = Vec::with_capacity(ends.last().map_or(0, |(_, end)| *end));
    for (group, end) in ends {
        groups.resize(*end, *group);
    }
    groups
}

fn key_group_column(batch: &RecordBatch) -> Option<&UInt16Array> {
    let last = batch.schema_ref().fields().last()?;
    if last.name() != KEY_GROUP_COLUMN {
        return None;
    }
    batch.columns().last()?.as_primitive_opt::<UInt16Type>()
}

/// Row numbers ordered by key group, rows of one group in their old order: a counting sort over 128 groups.
fn order_by_group(groups: &[KeyGroup]) -> UInt32Array {
    let mut rows_of: Vec<Vec<u32>> = vec![Vec::new(); usize::from(KEY_GROUPS)];
    for (row, group) in groups.iter().enumerate() {
        if let Some(rows) = rows_of.get_mut(usize::from(*group)) {
            rows.push(row as u32);
        }
    }
    rows_of.concat().into()
}

/// One bucket table of one operator subtask.
#[derive(Debug)]
pub struct RunTable {
    groups: KeyGroupRange,
    runs: BTreeMap<i64, Vec<Run>>,
    bytes: usize,
}

impl RunTable {
    /// An empty table of a subtask that owns `groups`.
    pub fn new(groups: KeyGroupRange) -> Self {
        Self { groups, runs: BTreeMap::new(), bytes: 0 }
    }

    /// Adds a run that was restored.
    pub fn add(&mut self, run: Run) {
        self.bytes += run.bytes();
        self.runs.entry(run.bucket).or_default().push(run);
    }

    /// The table as it is now; later changes do not touch it.
    pub fn seal(&self) -> Vec<Run> {
        self.runs.values().flatten().cloned().collect()
    }

    /// Moves every run that is in memory into a file of `work`.
    fn evict(&mut self, work: &WorkFolder) -> Result<()> {
        let leaving: Vec<&Run> = self.runs.values().flatten().filter(|run| run.bytes() > 0).collect();
        if leaving.is_empty() {
            return Ok(());
        }
        let batches = leaving.iter().map(|run| with_groups(&run.rows()?, &run.ends));
        let places = evict(batches, work)?;
        leaving.iter().zip(places).for_each(|(run, place)| run.has_left(place));
        self.bytes = 0;
        Ok(())
    }
}

/// A table as it was at a barrier.
#[derive(Debug, Clone)]
pub enum TableSnapshot {
    /// The runs of a bucket table.
    Buckets(Vec<Run>),
    /// A keyed table.
    Keyed(KeyedSnapshot),
    /// A keyed table that nobody has touched since it was restored.
    Stored(Vec<RunRef>),
    /// Rows that belong to no key.
    Rows(RowsSnapshot),
}

impl TableSnapshot {
    /// The keyed table, if it is one.
    pub fn keyed(&self) -> Option<&KeyedSnapshot> {
        match self {
            Self::Keyed(keyed) => Some(keyed),
            Self::Buckets(_) | Self::Stored(_) | Self::Rows(_) => None,
        }
    }
}

impl BucketTable for RunTable {
    fn append(&mut self, bucket: i64, groups: &[KeyGroup], rows: &RecordBatch) -> Result<()> {
        if groups.len() != rows.num_rows() {
            return Err(Error::internal(format!("{} key groups for {} rows", groups.len(), rows.num_rows())));
        }
        if let Some(foreign) = groups.iter().find(|group| !self.groups.contains(group)) {
            return Err(Error::internal(format!("key group {foreign} is not of {:?}", self.groups)));
        }
        if !groups.is_empty() {
            self.add(Run::new(bucket, groups, rows)?);
        }
        Ok(())
    }

    fn scan_groups(&self, bucket: i64, groups: &KeyGroupRange) -> Result<Vec<RecordBatch>> {
        let runs = self.runs.get(&bucket).into_iter().flatten();
        runs.filter_map(|run| run.scan(groups).transpose()).collect()
    }

    fn buckets(&self) -> Vec<i64> {
        self.runs.keys().copied().collect()
    }

    fn batches(&self, bucket: i64) -> usize {
        self.runs.get(&bucket).map_or(0, Vec::len)
    }

    fn expire(&mut self, bucket: i64) {
        let gone = self.runs.remove(&bucket).unwrap_or_default();
        self.bytes -= gone.iter().map(Run::bytes).sum::<usize>();
    }

    fn expire_before(&mut self, bucket: i64, group: KeyGroup) {
        let Some(runs) = self.runs.get_mut(&bucket) else { return };
        let before: usize = runs.iter().map(Run::bytes).sum();
        *runs = runs.iter().filter_map(|run| run.starting_at(group)).collect();
        self.bytes = self.bytes + runs.iter().map(Run::bytes).sum::<usize>() - before;
        if runs.is_empty() {
            self.runs.remove(&bucket);
        }
    }

    fn rows(&self) -> usize {
        let rows = |run: &Run| {
            let (from, to) = run.range(&run.wanted);
            to - from
        };
        self.runs.values().flatten().map(rows).sum()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn is_in_memory(&self, bucket: i64) -> bool {
        self.runs.get(&bucket).is_none_or(|runs| runs.iter().all(|run| run.bytes() > 0))
    }

    fn groups_within(&self, bucket: i64, bytes_max: u64) -> KeyGroup {
        let mut held = 0;
        let runs = self.runs.get(&bucket).map(Vec::as_slice).unwrap_or_default();
        for group in self.groups.clone() {
            let before = held;
            held += runs.iter().map(|run| run.bytes_of(group)).sum::<u64>();
            if before > 0 && held > bytes_max {
                return group;
            }
        }
        KEY_GROUPS
    }
}

/// All tables of one operator subtask.
#[derive(Debug)]
pub struct RunState {
    groups: KeyGroupRange,
    tables: BTreeMap<String, RunTable>,
    /// Keyed tables that were restored and not opened yet, oldest run first.
    unopened: BTreeMap<String, Vec<Fetched>>,
    keyed: BTreeMap<String, Keyed>,
    rows: BTreeMap<String, RowsTable>,
    timers: Option<TimerTable>,
    context: Option<KeyedContext>,
}

impl RunState {
    /// No tables yet, for a subtask that owns `groups`.
    pub fn new(groups: KeyGroupRange) -> Self {
        Self {
            groups,
            tables: BTreeMap::new(),
            unopened: BTreeMap::new(),
            keyed: BTreeMap::new(),
            rows: BTreeMap::new(),
            timers: None,
            context: None,
        }
    }

    /// Adds a restored run to the table `name`.
    pub fn add(&mut self, name: &str, run: Run) {
        self.entry(name).add(run);
    }

    /// Adds a restored run to the keyed table `name`, newer than those before.
    pub fn add_fetched(&mut self, name: &str, run: Fetched) {
        self.unopened.entry(name.to_owned()).or_default().push(run);
    }

    /// Adds the restored rows `name` that belong to no key.
    pub fn add_rows(&mut self, name: &str, table: RowsTable) {
        self.rows.insert(name.to_owned(), table);
    }

    /// The same, with what keyed tables are made with.
    #[must_use]
    pub fn with_keyed(self, context: KeyedContext) -> Self {
        Self { context: Some(context), ..self }
    }

    /// The restored runs of the keyed table `name`, oldest first, cut to the subtask's key groups. They are taken.
    ///
    /// # Errors
    /// `Corrupt`, naming the file; `Usage`, if a newer Ruslo wrote it.
    pub fn restored_runs(&mut self, name: &str, schema: &TableSchema) -> Result<RunSetSnapshot> {
        let mut runs = Vec::new();
        for fetched in self.unopened.get(name).into_iter().flatten() {
            runs.extend(fetched.open(&self.wanted_of(fetched), schema)?.map(Arc::new));
        }
        self.unopened.remove(name);
        Ok(runs)
    }

    /// The key groups that the subtask takes of a restored run.
    fn wanted_of(&self, fetched: &Fetched) -> KeyGroupRange {
        let is_cut = fetched.reference.groups.start < self.groups.start;
        let left_out = KeyGroup::from(planted(Bug::CutTooShort) && is_cut);
        self.groups.start + left_out..self.groups.end
    }

    /// The earliest time for which somebody has registered a timer; none as long as the operator has not asked for them.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.as_ref().and_then(TimerTable::next)
    }

    /// Takes keys whose time has come at `now`: of one time, `rows_max` at most.
    ///
    /// # Errors
    /// The disk's.
    pub fn take_due(&mut self, now: Timestamp, rows_max: usize) -> Result<Option<Due>> {
        self.timers.as_mut().map_or(Ok(None), |timers| timers.take_due(now, rows_max))
    }

    /// Forgets all timers.
    pub fn drop_timers(&mut self) {
        self.timers = None;
        self.unopened.remove(TIMERS);
    }

    /// Forgets all keyed tables, those that were restored and not asked for among them.
    pub fn drop_keyed(&mut self) {
        self.keyed.clear();
        self.unopened.clear();
    }

    fn keyed_context(&self) -> Result<KeyedContext> {
        self.context.clone().ok_or_else(|| Error::internal("keyed tables have no folder to work in"))
    }

    /// Every table as it is now.
    ///
    /// # Errors
    /// `Internal` only.
    pub fn seal(&mut self) -> Result<BTreeMap<String, TableSnapshot>> {
        let buckets = self.tables.iter().map(|(name, table)| (name.clone(), TableSnapshot::Buckets(table.seal())));
        let unopened = self.unopened.iter().map(|(name, runs)| {
            let references = runs.iter().filter_map(|run| run.reference_of(&self.groups));
            (name.clone(), TableSnapshot::Stored(references.collect()))
        });
        let mut tables: BTreeMap<_, _> = buckets.chain(unopened).collect();
        for (name, keyed) in &mut self.keyed {
            tables.insert(name.clone(), TableSnapshot::Keyed(keyed.seal()?));
        }
        if let Some(timers) = &mut self.timers {
            tables.insert(TIMERS.to_owned(), TableSnapshot::Keyed(timers.seal()?));
        }
        tables.extend(self.rows.iter_mut().map(|(name, table)| (name.clone(), TableSnapshot::Rows(table.seal()))));
        Ok(tables)
    }

    fn entry(&mut self, name: &str) -> &mut RunTable {
        let groups = &self.groups;
        self.tables.entry(name.to_owned()).or_insert_with(|| RunTable::new(groups.clone()))
    }
}

impl OperatorState for RunState {
    fn keyed(&mut self, name: &'static str, schema: &TableSchema) -> Result<&mut dyn KeyedTable> {
        if !self.keyed.contains_key(name) {
            let context = self.keyed_context()?;
            let runs = self.restored_runs(name, schema)?;
            let table = Keyed::open(name, schema, &self.groups, &context, runs)?;
            self.keyed.insert(name.to_owned(), table);
        }
        let lost = || Error::internal(format!("the keyed table '{name}' is lost"));
        Ok(&mut self.keyed.get_mut(name).ok_or_else(lost)?.table)
    }

    fn buckets(&mut self, name: &'static str) -> &mut dyn BucketTable {
        self.entry(name)
    }

    fn can_evict(&self) -> bool {
        self.context.is_some()
    }

    fn evict(&mut self) -> Result<()> {
        let Some(KeyedContext { work, .. }) = &self.context else { return Ok(()) };
        self.tables.values_mut().try_for_each(|table| table.evict(work))
    }

    fn operator_rows(&mut self, name: &'static str, redistribution: Redistribution) -> Result<&mut OperatorRows> {
        let table = self.rows.entry(name.to_owned()).or_insert_with(|| RowsTable::new(redistribution));
        let stored = table.redistribution();
        if stored != redistribution {
            let (stored, wanted) = (stored.name(), redistribution.name());
            return Err(Error::internal(format!("the rows '{name}' are {stored} rows, not {wanted} rows")));
        }
        Ok(&mut table.rows)
    }

    fn timers(&mut self, key: &[FieldRef]) -> Result<&mut dyn Timers> {
        if self.timers.is_none() {
            let context = self.keyed_context()?;
            let runs = self.restored_runs(TIMERS, &timer_schema(key))?;
            self.timers = Some(TimerTable::open(key, &self.groups, &context, runs)?);
        }
        let timers = self.timers.as_mut().ok_or_else(|| Error::internal("the timers are lost"))?;
        timers.check(key)?;
        Ok(timers)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    fn rows(values: &[i64]) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("v", column)]).unwrap()
    }

    fn values(batches: &[RecordBatch]) -> Vec<i64> {
        let mut all: Vec<i64> = batches
            .iter()
            .flat_map(|batch| batch.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec())
            .collect();
        all.sort();
        all
    }

    #[test]
    fn a_bucket_is_read_whole_and_forgotten_whole() {
        let mut table = RunTable::new(0..KEY_GROUPS);
        table.append(10, &[5, 3], &rows(&[50, 30])).unwrap();
        table.append(10, &[1], &rows(&[10])).unwrap();
        table.append(20, &[1], &rows(&[11])).unwrap();
        assert_eq!(values(&table.scan(10).unwrap()), [10, 30, 50]);
        assert_eq!(table.buckets(), [10, 20]);
        table.expire(10);
        assert!(table.scan(10).unwrap().is_empty());
        table.expire(20);
        assert_eq!(table.bytes(), 0);
    }

    #[test]
    fn a_snapshot_does_not_see_what_comes_later() {
        let mut table = RunTable::new(0..KEY_GROUPS);
        table.append(1, &[0], &rows(&[1])).unwrap();
        let sealed = table.seal();
        table.append(2, &[0], &rows(&[2])).unwrap();
        table.expire(1);
        assert_eq!(sealed.iter().map(Run::bucket).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn foreign_key_groups_are_an_internal_error() {
        let mut table = RunTable::new(0..64);
        let error = table.append(1, &[64], &rows(&[1])).unwrap_err();
        assert_eq!(error.kind(), ruslo_core::error::ErrorKind::Internal);
    }

    #[test]
    fn rescaling_divides_a_run_without_losing_or_doubling_a_row() {
        let groups: Vec<KeyGroup> = (0..1000u16).map(|i| (i * 37) % KEY_GROUPS).collect();
        let mut table = RunTable::new(0..KEY_GROUPS);
        table.append(7, &groups, &rows(&(0..1000).collect::<Vec<_>>())).unwrap();
        let run = &table.seal()[0];
        let reference = RunRef::for_test("a.arrow", 7, 0..100);
        let mut seen = Vec::new();
        for index in 0..3 {
            let wanted = ruslo_core::key_group::range_of(index, 3);
            let part = Run::restored(&reference, &run.to_batch().unwrap(), &wanted).unwrap().unwrap();
            assert!(part.ends.iter().all(|(group, _)| wanted.contains(group) && *group < 100));
            assert_eq!(part.stored().unwrap().groups, wanted.start..wanted.end.min(100));
            seen.push(part.rows().unwrap());
        }
        let expected: Vec<i64> = (0..1000).filter(|i| (i * 37) % i64::from(KEY_GROUPS) < 100).collect();
        assert_eq!(values(&seen), expected);
    }

    #[test]
    fn what_left_memory_is_read_back_cut_stored_and_goes_with_the_last_run() {
        let folder = tempfile::tempdir().unwrap();
        let work = WorkFolder::new(Arc::new(ruslo_core::disk::LocalDisk), folder.path().join("work"));
        let mut state = RunState::new(0..KEY_GROUPS).with_keyed(KeyedContext {
            owner: "t".to_owned(),
            work: work.clone(),
            memory: ruslo_core::memory::MemoryPool::unbounded(),
        });
        let table = state.entry("t");
        table.append(10, &[5, 3, 9], &rows(&[50, 30, 90])).unwrap();
        table.append(10, &[3], &rows(&[31])).unwrap();
        table.append(20, &[1], &rows(&[11])).unwrap();
        let before: Vec<_> = table.seal().iter().map(|run| run.to_batch().unwrap()).collect();
        state.evict().unwrap();
        let table = state.entry("t");
        assert_eq!(table.bytes(), 0);
        assert_eq!(values(&table.scan(10).unwrap()), [30, 31, 50, 90]);
        assert_eq!(values(&table.scan_groups(10, &(3..6)).unwrap()), [30, 31, 50]);
        assert_eq!(table.seal().iter().map(|run| run.to_batch().unwrap()).collect::<Vec<_>>(), before);

        table.expire_before(10, 5);
        assert_eq!((values(&table.scan(10).unwrap()), table.batches(10)), (vec![50, 90], 1));
        let left = table.seal()[0].to_batch().unwrap();
        assert_eq!(left.column(1).as_primitive::<UInt16Type>().values().to_vec(), [5, 9]);
        table.append(10, &[6], &rows(&[60])).unwrap();
        assert!(table.bytes() > 0);
        let files = || ruslo_core::disk::Disk::list(work.disk().as_ref(), work.folder()).unwrap().len();
        assert_eq!(files(), 1);
        table.expire(10);
        assert_eq!((table.bytes(), files()), (0, 1));
        table.expire(20);
        assert_eq!(files(), 0);
    }

    #[test]
    fn a_stored_run_that_is_half_out_is_named_by_the_key_groups_that_are_left() {
        let mut table = RunTable::new(0..KEY_GROUPS);
        table.append(7, &[1, 2, 3], &rows(&[1, 2, 3])).unwrap();
        let reference = RunRef::for_test("a.arrow", 7, 0..KEY_GROUPS);
        table.seal()[0].set_stored(reference);
        table.expire_before(7, 2);
        assert_eq!(table.seal()[0].stored().unwrap().groups, 2..KEY_GROUPS);
        assert_eq!(values(&table.scan(7).unwrap()), [2, 3]);
        table.expire_before(7, 4);
        assert_eq!((table.buckets().len(), table.bytes()), (0, 0));
    }
}
