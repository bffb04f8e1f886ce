//! Rows in the order of a run, and how they get there.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, UInt64Array};
use arrow::compute::interleave;
use arrow::datatypes::{Int64Type, UInt64Type};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::{KeyGroup, hash_rows};

use crate::runs::schema::{Kind, TableSchema};

/// Rows that one piece of a sorted sequence has at most.
pub(crate) const CHUNK_ROWS: usize = 4_096;

/// Where a key stands in the order of a run: its key group, then the rest of its hash.
#[inline]
pub fn place_of(hash: u64) -> u64 {
    hash.rotate_right(7)
}

/// The hash that stands at `place`.
#[inline]
pub(crate) fn hash_at(place: u64) -> u64 {
    place.rotate_left(7)
}

/// The key group of `place`.
#[inline]
pub(crate) fn group_of(place: u64) -> KeyGroup {
    (place >> 57) as KeyGroup
}

/// What a row of a run does to older rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Op {
    /// Takes the place of an older row of its key and sub-key.
    Put = 0,
    /// The row of its key and sub-key is gone.
    Delete = 1,
    /// Every older row of its key is gone. Rows of the key in the same run stay: they are newer. Its sub-key is ignored.
    Clear = 2,
}

impl Op {
    /// The operation that is stored as `byte`.
    pub(crate) fn of(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Put),
            1 => Some(Self::Delete),
            2 => Some(Self::Clear),
            _ => None,
        }
    }
}

/// Rows in the order of a run: by place, clears first, then by sub-key.
#[derive(Debug, Clone)]
pub struct SortedRows {
    /// The hash of each row's key.
    pub hashes: Vec<u64>,
    /// What each row does.
    pub ops: Vec<Op>,
    /// The time bucket of each row's last write; zeros in a table without a TTL.
    pub buckets: Vec<u32>,
    /// Key, sub-key and value columns.
    pub rows: RecordBatch,
}

impl SortedRows {
    /// How many.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// Rows in any order, at most one of an identity: what a flush or a seal takes out of memory.
#[derive(Debug, Clone, Default)]
pub struct DirtyRows {
    /// The hash of each row's key.
    pub hashes: Vec<u64>,
    /// What each row does.
    pub ops: Vec<Op>,
    /// The time bucket of each row's last write; zeros in a table without a TTL.
    pub buckets: Vec<u32>,
    /// Key, sub-key and value columns; all batches together have as many rows as there are hashes.
    pub rows: Vec<RecordBatch>,
}

impl DirtyRows {
    /// How many.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The same rows in the order of a run, in pieces.
    ///
    /// # Errors
    /// `Internal`, if the lengths differ.
    pub fn sorted(self, schema: &TableSchema) -> Result<impl Iterator<Item = Result<SortedRows>> + use<>> {
        let rows: usize = self.rows.iter().map(RecordBatch::num_rows).sum();
        if rows != self.len() || self.ops.len() != rows || self.buckets.len() != rows {
            return Err(Error::internal(format!("{rows} rows come with {} hashes", self.len())));
        }
        let mut subs = Vec::new();
        for batch in &self.rows {
            subs.push(SubKeys::of(schema, batch.columns(), batch.num_rows())?);
        }
        let order = order(&self, &subs);
        let columns = schema.rows();
        Ok(Pieces { dirty: self, order, next: 0 }.map(move |piece| piece.and_then(|piece| piece.with(&columns))))
    }
}

/// Row number, and where it stands in the batches.
type Located = (u32, u32, u32);

/// The rows in the order of a run.
fn order(dirty: &DirtyRows, subs: &[SubKeys]) -> Vec<Located> {
    let located =
        subs.iter().enumerate().flat_map(|(batch, subs)| (0..subs.rows as u32).map(move |row| (batch as u32, row)));
    let mut keyed: Vec<(u64, Located)> = dirty
        .hashes
        .iter()
        .zip(located)
        .enumerate()
        .map(|(number, (hash, (batch, row)))| (place_of(*hash), (number as u32, batch, row)))
        .collect();
    keyed.sort_unstable_by(|(place, (a, a_batch, a_row)), (other, (b, b_batch, b_row))| {
        let rank = |number: u32, batch: u32, row: u32| {
            let clears = dirty.ops.get(number as usize) == Some(&Op::Clear);
            (!clears, subs.get(batch as usize).map(|subs| subs.rank(row as usize)))
        };
        place.cmp(other).then_with(|| rank(*a, *a_batch, *a_row).cmp(&rank(*b, *b_batch, *b_row)))
    });
    keyed.into_iter().map(|(_, located)| located).collect()
}

/// Sorted rows, taken piece by piece out of unsorted ones.
struct Pieces {
    dirty: DirtyRows,
    order: Vec<Located>,
    next: usize,
}

/// A piece whose columns have no names yet.
struct Piece {
    hashes: Vec<u64>,
    ops: Vec<Op>,
    buckets: Vec<u32>,
    columns: Vec<ArrayRef>,
}

impl Piece {
    fn with(self, schema: &arrow::datatypes::SchemaRef) -> Result<SortedRows> {
        let rows = batch_of(schema, self.columns, self.hashes.len())?;
        Ok(SortedRows { hashes: self.hashes, ops: self.ops, buckets: self.buckets, rows })
    }
}

/// A batch, even without columns.
pub(crate) fn batch_of(
    schema: &arrow::datatypes::SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

impl Iterator for Pieces {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.order.get(self.next..).filter(|rest| !rest.is_empty())?;
        let piece = rest.get(..CHUNK_ROWS).unwrap_or(rest);
        let taken = self.gather(piece);
        self.next += piece.len();
        Some(taken)
    }
}

impl Pieces {
    fn gather(&self, piece: &[Located]) -> Result<Piece> {
        let indices: Vec<_> = piece.iter().map(|(_, batch, row)| (*batch as usize, *row as usize)).collect();
        let width = self.dirty.rows.first().map_or(0, RecordBatch::num_columns);
        let columns = (0..width).map(|column| {
            let sources: Vec<_> = self.dirty.rows.iter().filter_map(|batch| batch.columns().get(column)).collect();
            let sources: Vec<&dyn Array> = sources.into_iter().map(AsRef::as_ref).collect();
            Ok(interleave(&sources, &indices)?)
        });
        let numbers = || piece.iter().map(|(number, ..)| *number as usize);
        Ok(Piece {
            hashes: numbers().filter_map(|number| self.dirty.hashes.get(number).copied()).collect(),
            ops: numbers().filter_map(|number| self.dirty.ops.get(number).copied()).collect(),
            buckets: numbers().filter_map(|number| self.dirty.buckets.get(number).copied()).collect(),
            columns: columns.collect::<Result<_>>()?,
        })
    }
}

/// The order of rows within a key.
#[derive(Debug)]
pub(crate) struct SubKeys {
    rows: usize,
    times: Option<arrow::array::Int64Array>,
    numbers: Option<UInt64Array>,
}

impl SubKeys {
    /// Of rows whose key, sub-key and value columns are `columns`.
    pub(crate) fn of(schema: &TableSchema, columns: &[ArrayRef], rows: usize) -> Result<Self> {
        let columns = columns.get(schema.sub_key_columns()).unwrap_or_default();
        let wrong = || Error::internal("a table's sub-key has another type");
        let mut subs = Self { rows, times: None, numbers: None };
        match (schema.kind, columns) {
            (Kind::Value, _) => {}
            (Kind::List, [number]) => {
                subs.numbers = Some(number.as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?.clone());
            }
            (Kind::Time, [time, number]) => {
                subs.times = Some(time.as_primitive_opt::<Int64Type>().ok_or_else(wrong)?.clone());
                subs.numbers = Some(number.as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?.clone());
            }
            (Kind::Map, columns) => subs.numbers = Some(UInt64Array::from(hash_rows(columns, rows)?)),
            _ => return Err(wrong()),
        }
        Ok(subs)
    }

    /// What a row of a key is ordered by; equal for all rows of a value table.
    #[inline]
    pub(crate) fn rank(&self, row: usize) -> (i64, u64) {
        let time = self.times.as_ref().and_then(|times| times.values().get(row)).copied();
        let number = self.numbers.as_ref().and_then(|numbers| numbers.values().get(row)).copied();
        (time.unwrap_or_default(), number.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field};

    use super::*;

    #[test]
    fn places_are_ordered_by_key_group_and_then_by_hash() {
        let mut hashes = vec![u64::MAX, 0, 128, 127, 1, 255, 1 << 63];
        hashes.sort_by_key(|hash| place_of(*hash));
        let mut expected = hashes.clone();
        expected.sort_by_key(|hash| (hash % 128, *hash));
        assert_eq!(hashes, expected);
        assert!(hashes.iter().all(|hash| u64::from(group_of(place_of(*hash))) == hash % 128));
        assert!(hashes.iter().all(|hash| hash_at(place_of(*hash)) == *hash));
    }

    #[test]
    fn rows_of_several_batches_are_ordered_with_clears_first() {
        let field = |name: &str| Arc::new(Field::new(name, DataType::Int64, true));
        let schema = TableSchema::list(vec![field("k")], vec![]);
        let batch = |keys: &[i64], numbers: &[u64]| {
            let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
            let numbers: ArrayRef = Arc::new(UInt64Array::from(numbers.to_vec()));
            batch_of(&schema.rows(), vec![keys, numbers], 2).unwrap()
        };
        let dirty = DirtyRows {
            hashes: vec![128, 1, 128, 128],
            ops: vec![Op::Put, Op::Put, Op::Put, Op::Clear],
            buckets: vec![1, 2, 3, 4],
            rows: vec![batch(&[5, 6], &[9, 0]), batch(&[5, 5], &[3, 100])],
        };
        let pieces: Vec<_> = dirty.sorted(&schema).unwrap().collect::<Result<_>>().unwrap();
        assert_eq!(pieces.len(), 1);
        assert_eq!(pieces[0].hashes, [128, 128, 128, 1]);
        assert_eq!(pieces[0].ops, [Op::Clear, Op::Put, Op::Put, Op::Put]);
        assert_eq!(pieces[0].buckets, [4, 3, 1, 2]);
    }
}
