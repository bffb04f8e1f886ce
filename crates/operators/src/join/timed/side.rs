//! The rows of one side that may still find partners, by time; and how they are stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt16Array, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::{concat_batches, filter_record_batch, sort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt16Type};
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::{KeyGroup, hash_rows};
use ruslo_core::state::OperatorState;

use super::bucket::{Bucket, Incoming};
use super::spec::{Bounds, SideSpec};

/// A row of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowRef {
    pub(super) bucket: i64,
    pub(super) row: u32,
}

/// A row that has not seen all of the other side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    pub(super) row: RowRef,
    /// Where it goes on; none before it has begun.
    pub(super) at: Option<Stop>,
}

/// How far a row has seen the other side.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    pub(super) bucket: i64,
    /// Rows of the bucket whose numbers are below are to be seen, and all of later buckets.
    pub(super) below: i64,
    /// The next of them, if it is known.
    pub(super) next: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Side {
    pub(super) spec: Arc<SideSpec>,
    pub(super) buckets: BTreeMap<i64, Bucket>,
    nulls_are_equal: bool,
    bytes: usize,
}

impl Side {
    pub(super) fn new(spec: Arc<SideSpec>, nulls_are_equal: bool) -> Self {
        Self { spec, buckets: BTreeMap::new(), nulls_are_equal, bytes: 0 }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps `rows` of these times under the numbers from `next` on: where each of them is.
    pub(super) fn insert(
        &mut self,
        mut rows: RecordBatch,
        mut times: Vec<i64>,
        bounds: Bounds,
        next: &mut i64,
    ) -> Result<Vec<RowRef>> {
        let comparable = self.comparable(&rows);
        if let (false, Some(nulls)) = (self.spec.is_marked, &comparable) {
            // What can have no partner is for nobody.
            rows = filter_record_batch(&rows, &BooleanArray::new(nulls.inner().clone(), None))?;
            times = times.into_iter().zip(nulls.iter()).filter_map(|(time, valid)| valid.then_some(time)).collect();
        }
        let mut places = BTreeMap::<i64, Vec<u32>>::new();
        for (place, time) in times.iter().enumerate() {
            places.entry(bounds.bucket_of(*time)).or_default().push(place as u32);
        }
        let mut refs = Vec::with_capacity(times.len());
        let is_one = places.len() == 1;
        for (bucket, places) in places {
            let part = match is_one {
                true => rows.clone(),
                false => take_record_batch(&rows, &UInt32Array::from(places.clone()))?,
            };
            let of_part = places.iter().filter_map(|place| times.get(*place as usize).copied()).collect::<Vec<_>>();
            let count = places.len();
            let first = self.buckets.get(&bucket).map_or(0, Bucket::len);
            let numbers = (*next..).take(count).collect::<Vec<_>>();
            *next = next.saturating_add(count as i64);
            let matched = self.spec.is_marked.then(|| vec![false; count]);
            self.push(bucket, part, numbers, of_part, matched)?;
            refs.extend((first..first + count).map(|row| RowRef { bucket, row: row as u32 }));
        }
        Ok(refs)
    }

    fn push(
        &mut self,
        bucket: i64,
        rows: RecordBatch,
        numbers: Vec<i64>,
        times: Vec<i64>,
        matched: Option<Vec<bool>>,
    ) -> Result<()> {
        let hashes = hash_rows(&self.keys(&rows), rows.num_rows())?;
        let comparable = self.comparable(&rows);
        let bucket = self.buckets.entry(bucket).or_default();
        let before = bucket.bytes();
        bucket.push(Incoming { rows, numbers, times, hashes, comparable, matched })?;
        self.bytes = (self.bytes + bucket.bytes()).saturating_sub(before);
        Ok(())
    }

    fn keys(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.spec.keys.iter().filter_map(|key| rows.columns().get(*key)).cloned().collect()
    }

    /// Which keys can equal another; none, if all can.
    fn comparable(&self, rows: &RecordBatch) -> Option<NullBuffer> {
        if self.nulls_are_equal {
            return None;
        }
        let of_keys = self.keys(rows).into_iter().map(|key| key.logical_nulls());
        of_keys
            .fold(None, |all, nulls| NullBuffer::union(all.as_ref(), nulls.as_ref()))
            .filter(|all| all.null_count() > 0)
    }

    /// Writes what the tables have not; `pending` are the rows that have not seen all of the other side.
    pub(super) fn save(&mut self, pending: &[Probe], state: &mut dyn OperatorState) -> Result<()> {
        let spec = Arc::clone(&self.spec);
        for (time, bucket) in &mut self.buckets {
            save_marks(&spec, *time, bucket, state)?;
            save_rows(&spec, *time, bucket, state)?;
            bucket.set_saved();
        }
        let table = state.buckets(spec.tables.pending);
        table.buckets().into_iter().for_each(|bucket| table.expire(bucket));
        let mut by_bucket = BTreeMap::<i64, Vec<&Probe>>::new();
        for probe in pending {
            by_bucket.entry(probe.row.bucket).or_default().push(probe);
        }
        for (time, probes) in by_bucket {
            let Some(bucket) = self.buckets.get(&time) else { continue };
            let groups: Vec<KeyGroup> = probes.iter().map(|probe| bucket.group(probe.row.row)).collect();
            let numbers = probes.iter().map(|probe| bucket.number(probe.row.row));
            let columns: [ArrayRef; 4] = [
                Arc::new(UInt16Array::from(groups.clone())),
                Arc::new(Int64Array::from_iter_values(numbers)),
                Arc::new(Int64Array::from_iter(probes.iter().map(|probe| probe.at.map(|at| at.bucket)))),
                Arc::new(Int64Array::from_iter(probes.iter().map(|probe| probe.at.map(|at| at.below)))),
            ];
            let fields = ["key_group", "row", "bucket", "below"].into_iter().zip(&columns);
            let fields = fields.map(|(name, column)| Field::new(name, column.data_type().clone(), true));
            let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
            table.append(time, &groups, &RecordBatch::try_new(schema, columns.to_vec())?)?;
        }
        Ok(())
    }

    /// Reads what was stored: the rows that had not seen all of the other side.
    pub(super) fn restore(&mut self, bounds: Bounds, state: &mut dyn OperatorState) -> Result<Vec<Probe>> {
        let tables = self.spec.tables;
        for time in state.buckets(tables.rows).buckets() {
            let stored = concat_batches(&self.spec.stored, &state.buckets(tables.rows).scan(time)?)?;
            self.restore_rows(time, &stored, bounds)?;
            let Some(bucket) = self.buckets.get_mut(&time) else { continue };
            for marks in state.buckets(tables.matched).scan(time)? {
                let rows = numbered(&marks)?.filter_map(|(group, number)| bucket.find(number, group));
                for row in rows.collect::<Vec<u32>>() {
                    bucket.mark(row);
                }
            }
            bucket.set_saved();
        }
        let mut pending = Vec::new();
        for time in state.buckets(tables.pending).buckets() {
            let Some(bucket) = self.buckets.get(&time) else { continue };
            for probes in state.buckets(tables.pending).scan(time)? {
                let at = (integers(&probes, 2)?, integers(&probes, 3)?);
                for (place, (group, number)) in numbered(&probes)?.enumerate() {
                    let Some(row) = bucket.find(number, group) else { continue };
                    let at = at.0.is_valid(place).then(|| Stop {
                        bucket: at.0.value(place),
                        below: at.1.value(place),
                        next: None,
                    });
                    pending.push(Probe { row: RowRef { bucket: time, row }, at });
                }
            }
        }
        Ok(pending)
    }

    fn restore_rows(&mut self, time: i64, stored: &RecordBatch, bounds: Bounds) -> Result<()> {
        if stored.num_rows() == 0 {
            return Ok(());
        }
        let width = self.spec.schema.fields().len();
        let order = match stored.columns().get(width) {
            Some(numbers) => sort_to_indices(numbers, None, None)?,
            None => return Err(Error::internal("stored rows of a join have no number")),
        };
        let sorted = take_record_batch(stored, &order)?;
        let numbers = integers(&sorted, width)?.values().to_vec();
        let matched = sorted.columns().get(width + 1).and_then(|column| column.as_boolean_opt());
        let matched = matched.map(|column| column.values().iter().collect::<Vec<bool>>());
        let own = sorted.columns().iter().take(width).cloned().collect();
        let rows = RecordBatch::try_new(self.spec.schema.clone(), own)?;
        let times = super::operator::times(&rows, &self.spec, bounds)?;
        let matched = matched.filter(|_| self.spec.is_marked);
        self.push(time, rows, numbers, times, matched)
    }

    /// The greatest number of a row.
    pub(super) fn greatest(&self) -> Option<i64> {
        self.buckets.values().filter_map(|bucket| bucket.numbers.last().copied()).max()
    }

    /// Forgets a bucket.
    pub(super) fn expire(&mut self, bucket: i64, state: &mut dyn OperatorState) {
        if let Some(gone) = self.buckets.remove(&bucket) {
            self.bytes = self.bytes.saturating_sub(gone.bytes());
        }
        for table in self.tables() {
            state.buckets(table).expire(bucket);
        }
    }

    pub(super) fn tables(&self) -> [&'static str; 3] {
        let tables = self.spec.tables;
        [tables.rows, tables.matched, tables.pending]
    }
}

fn save_rows(spec: &SideSpec, time: i64, bucket: &Bucket, state: &mut dyn OperatorState) -> Result<()> {
    let first = bucket.unsaved();
    let parts = bucket.rows_from(first);
    if parts.is_empty() {
        return Ok(());
    }
    let rows = concat_batches(&spec.schema, &parts)?;
    let places = || (first..bucket.len()).map(|row| row as u32);
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(places().map(|row| bucket.number(row))));
    let matched: ArrayRef = Arc::new(places().map(|row| Some(bucket.is_matched(row))).collect::<BooleanArray>());
    let groups: Vec<KeyGroup> = places().map(|row| bucket.group(row)).collect();
    let columns = rows.columns().iter().cloned().chain([numbers, matched]).collect();
    let stored = RecordBatch::try_new(spec.stored.clone(), columns)?;
    state.buckets(spec.tables.rows).append(time, &groups, &stored)
}

fn save_marks(spec: &SideSpec, time: i64, bucket: &Bucket, state: &mut dyn OperatorState) -> Result<()> {
    let rows = bucket.newly_marked();
    if rows.is_empty() {
        return Ok(());
    }
    let groups: Vec<KeyGroup> = rows.iter().map(|row| bucket.group(*row)).collect();
    let numbers = Int64Array::from_iter_values(rows.iter().map(|row| bucket.number(*row)));
    let schema =
        Schema::new(vec![Field::new("key_group", DataType::UInt16, true), Field::new("row", DataType::Int64, true)]);
    let columns: Vec<ArrayRef> = vec![Arc::new(UInt16Array::from(groups.clone())), Arc::new(numbers)];
    let marks = RecordBatch::try_new(Arc::new(schema), columns)?;
    state.buckets(spec.tables.matched).append(time, &groups, &marks)
}

/// The key groups and numbers of stored marks.
fn numbered(rows: &RecordBatch) -> Result<impl Iterator<Item = (KeyGroup, i64)>> {
    let groups = rows.columns().first().and_then(|column| column.as_primitive_opt::<UInt16Type>());
    let groups = groups.ok_or_else(broken)?.values().to_vec();
    let numbers = integers(rows, 1)?.values().to_vec();
    Ok(groups.into_iter().zip(numbers))
}

fn integers(rows: &RecordBatch, place: usize) -> Result<&Int64Array> {
    rows.columns().get(place).and_then(|column| column.as_primitive_opt::<Int64Type>()).ok_or_else(broken)
}

fn broken() -> Error {
    Error::internal("stored rows of a join have lost a column")
}
