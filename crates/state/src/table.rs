//! Keyed tables as immutable runs.
//!
//! A run holds the rows of one bucket, ordered by key group, with the key group as its last column. Appending makes a
//! run; nothing ever changes one. So sealing for a checkpoint copies nothing, a run is uploaded once however many
//! checkpoints name it, and restoring at another parallelism takes from each run the slice of its key groups.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, AsArray, UInt16Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, UInt16Type};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::{KEY_GROUPS, KeyGroup, KeyGroupRange};
use ruslo_core::keyed::{KeyedTable, TableSchema};
use ruslo_core::memory::batch_bytes;
use ruslo_core::state::{BucketTable, OperatorState};

use crate::keyed::{Keyed, KeyedContext, KeyedSnapshot};
use crate::manifest::RunRef;
use crate::runs::{Fetched, RunSetSnapshot};

/// The last column of every run.
pub const KEY_GROUP_COLUMN: &str = "__key_group";

/// Immutable rows of one bucket.
#[derive(Debug, Clone)]
pub struct Run {
    bucket: i64,
    /// The rows without the key group column.
    rows: RecordBatch,
    groups: Arc<UInt16Array>,
    bytes: usize,
    /// Where the run is stored, once it is; set by the upload.
    stored: Arc<OnceLock<RunRef>>,
}

impl Run {
    fn new(bucket: i64, groups: &[KeyGroup], rows: &RecordBatch) -> Result<Self> {
        let order = order_by_group(groups);
        let rows = take_record_batch(rows, &order)?;
        let groups: UInt16Array =
            order.values().iter().filter_map(|row| groups.get(*row as usize).copied()).collect::<Vec<_>>().into();
        let bytes = batch_bytes(&rows) + 2 * groups.len();
        Ok(Self { bucket, rows, groups: Arc::new(groups), bytes, stored: Arc::default() })
    }

    /// A run read back from storage, cut to the key groups that `reference` names and `wanted` owns; `None` if none.
    pub fn restored(reference: &RunRef, batch: &RecordBatch, wanted: &KeyGroupRange) -> Result<Option<Self>> {
        let groups = key_group_column(batch)
            .ok_or_else(|| Error::corrupt(format!("{}: a run has no key groups", reference.file)))?;
        let start = wanted.start.max(reference.groups.start);
        let end = wanted.end.min(reference.groups.end);
        let from = groups.values().partition_point(|group| *group < start);
        let to = groups.values().partition_point(|group| *group < end);
        if from >= to {
            return Ok(None);
        }
        let mut rows = batch.slice(from, to - from);
        rows.remove_column(rows.num_columns() - 1);
        let groups = Arc::new(groups.slice(from, to - from));
        let bytes = batch_bytes(&rows) + 2 * groups.len();
        let stored = RunRef { groups: start..end, ..reference.clone() };
        Ok(Some(Self { bucket: reference.bucket, rows, groups, bytes, stored: Arc::new(OnceLock::from(stored)) }))
    }

    /// The bucket of every row.
    pub fn bucket(&self) -> i64 {
        self.bucket
    }

    /// The key group of each row, ascending.
    pub fn groups(&self) -> &[KeyGroup] {
        self.groups.values()
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
        let key_group = Arc::new(Field::new(KEY_GROUP_COLUMN, DataType::UInt16, false));
        let fields: Vec<_> = self.rows.schema_ref().fields().iter().cloned().chain([key_group]).collect();
        let mut columns = self.rows.columns().to_vec();
        columns.push(Arc::clone(&self.groups) as ArrayRef);
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
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

/// One keyed table of one operator subtask, in memory.
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
        self.bytes += run.bytes;
        self.runs.entry(run.bucket).or_default().push(run);
    }

    /// The table as it is now; later changes do not touch it.
    pub fn seal(&self) -> Vec<Run> {
        self.runs.values().flatten().cloned().collect()
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
}

impl TableSnapshot {
    /// The keyed table, if it is one.
    pub fn keyed(&self) -> Option<&KeyedSnapshot> {
        match self {
            Self::Keyed(keyed) => Some(keyed),
            Self::Buckets(_) | Self::Stored(_) => None,
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

    fn scan(&self, bucket: i64) -> Vec<RecordBatch> {
        self.runs.get(&bucket).into_iter().flatten().map(|run| run.rows.clone()).collect()
    }

    fn buckets(&self) -> Vec<i64> {
        self.runs.keys().copied().collect()
    }

    fn expire(&mut self, bucket: i64) {
        let gone = self.runs.remove(&bucket).unwrap_or_default();
        self.bytes -= gone.iter().map(|run| run.bytes).sum::<usize>();
    }

    fn bytes(&self) -> usize {
        self.bytes
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
    context: Option<KeyedContext>,
}

impl RunState {
    /// No tables yet, for a subtask that owns `groups`.
    pub fn new(groups: KeyGroupRange) -> Self {
        Self { groups, tables: BTreeMap::new(), unopened: BTreeMap::new(), keyed: BTreeMap::new(), context: None }
    }

    /// Adds a restored run to the bucket table `name`.
    pub fn add(&mut self, name: &str, run: Run) {
        self.entry(name).add(run);
    }

    /// Adds a restored run to the keyed table `name`, newer than those before.
    pub fn add_fetched(&mut self, name: &str, run: Fetched) {
        self.unopened.entry(name.to_owned()).or_default().push(run);
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
            runs.extend(fetched.open(&self.groups, schema)?.map(Arc::new));
        }
        self.unopened.remove(name);
        Ok(runs)
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
            let context = self.context.clone();
            let context = context.ok_or_else(|| Error::internal("keyed tables have no folder to work in"))?;
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
        assert_eq!(values(&table.scan(10)), [10, 30, 50]);
        assert_eq!(table.buckets(), [10, 20]);
        table.expire(10);
        assert!(table.scan(10).is_empty());
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
            assert!(part.groups.values().iter().all(|group| wanted.contains(group) && *group < 100));
            assert_eq!(part.stored().unwrap().groups, wanted.start..wanted.end.min(100));
            seen.push(part.rows);
        }
        let expected: Vec<i64> = (0..1000).filter(|i| (i * 37) % i64::from(KEY_GROUPS) < 100).collect();
        assert_eq!(values(&seen), expected);
    }
}
