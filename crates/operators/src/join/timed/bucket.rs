//! Rows of one side whose times are close to each other, with an index by key.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use arrow::array::RecordBatch;
use arrow::buffer::NullBuffer;
use arrow::compute::concat_batches;
use ruslo_core::error::Result;
use ruslo_core::key_group::{KEY_GROUPS, KeyGroup};
use ruslo_core::memory::batch_bytes;

/// Marks the end of a chain.
const NONE: u32 = u32::MAX;
/// Bytes that a row takes beside its columns.
const ROW_BYTES: usize = 8 + 8 + 8 + 4 + 1 + 16;

/// The rows of a bucket, in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// With the place of each one's first row.
    batches: Vec<(usize, RecordBatch)>,
    pub(super) numbers: Vec<i64>,
    pub(super) times: Vec<i64>,
    hashes: Vec<u64>,
    /// The last row of each hash, and of each row the one of the same hash before it.
    heads: HashMap<u64, u32, BuildHasherDefault<Hashed>>,
    before: Vec<u32>,
    /// Whether a row has found a partner, or is out; empty where that does not matter.
    matched: Vec<bool>,
    /// Rows from the first on that the table has.
    saved: usize,
    /// Those of them that have found a partner since they were saved.
    newly: Vec<u32>,
    /// Rows from the first on that have left for want of a partner, or never will.
    pub(super) passed: usize,
    bytes: usize,
}

/// The rows that a bucket gets.
pub(super) struct Incoming {
    pub(super) rows: RecordBatch,
    pub(super) numbers: Vec<i64>,
    pub(super) times: Vec<i64>,
    pub(super) hashes: Vec<u64>,
    /// Whether each key can equal another; none, if all can.
    pub(super) comparable: Option<NullBuffer>,
    /// Whether each row has found a partner; none, if that does not matter.
    pub(super) matched: Option<Vec<bool>>,
}

impl Bucket {
    /// Adds rows with greater numbers than all before.
    pub(super) fn push(&mut self, incoming: Incoming) -> Result<()> {
        let first = self.numbers.len();
        for (place, hash) in incoming.hashes.iter().enumerate() {
            let is_comparable = incoming.comparable.as_ref().is_none_or(|nulls| nulls.is_valid(place));
            let row = (first + place) as u32;
            let earlier = if is_comparable { self.heads.insert(*hash, row).unwrap_or(NONE) } else { NONE };
            self.before.push(earlier);
        }
        self.bytes += ROW_BYTES * incoming.numbers.len();
        self.numbers.extend(incoming.numbers);
        self.times.extend(incoming.times);
        self.hashes.extend(incoming.hashes);
        self.matched.extend(incoming.matched.into_iter().flatten());
        self.bytes += batch_bytes(&incoming.rows);
        self.batches.push((first, incoming.rows));
        self.merge()
    }

    /// Makes batches of nearly one size one, so that there are few.
    fn merge(&mut self) -> Result<()> {
        while let [.., (first, earlier), (_, last)] = self.batches.as_slice()
            && last.num_rows() >= earlier.num_rows()
        {
            let (first, merged) = (*first, concat_batches(earlier.schema_ref(), [earlier, last])?);
            let parts = batch_bytes(earlier) + batch_bytes(last);
            self.bytes = (self.bytes + batch_bytes(&merged)).saturating_sub(parts);
            self.batches.truncate(self.batches.len() - 2);
            self.batches.push((first, merged));
        }
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn batches(&self) -> impl Iterator<Item = &RecordBatch> {
        self.batches.iter().map(|(_, batch)| batch)
    }

    /// How many batches there are.
    pub(super) fn batch_count(&self) -> usize {
        self.batches.len()
    }

    /// The batch that has `row`, and its place there.
    pub(super) fn place(&self, row: u32) -> (usize, usize) {
        let row = row as usize;
        let batch = self.batches.partition_point(|(first, _)| *first <= row).saturating_sub(1);
        let first = self.batches.get(batch).map_or(0, |(first, _)| *first);
        (batch, row.saturating_sub(first))
    }

    pub(super) fn hash(&self, row: u32) -> u64 {
        self.hashes.get(row as usize).copied().unwrap_or_default()
    }

    pub(super) fn group(&self, row: u32) -> KeyGroup {
        (self.hash(row) % u64::from(KEY_GROUPS)) as KeyGroup
    }

    pub(super) fn number(&self, row: u32) -> i64 {
        self.numbers.get(row as usize).copied().unwrap_or_default()
    }

    pub(super) fn time(&self, row: u32) -> i64 {
        self.times.get(row as usize).copied().unwrap_or_default()
    }

    /// The last row with a key of this hash.
    pub(super) fn last(&self, hash: u64) -> Option<u32> {
        self.heads.get(&hash).copied()
    }

    /// The row of the same hash before `row`.
    pub(super) fn before(&self, row: u32) -> Option<u32> {
        self.before.get(row as usize).copied().filter(|row| *row != NONE)
    }

    /// The row that has this number and key group.
    pub(super) fn find(&self, number: i64, group: KeyGroup) -> Option<u32> {
        let first = self.numbers.partition_point(|known| *known < number);
        let same = self.numbers.iter().skip(first).take_while(|known| **known == number).count();
        (first..first + same).map(|row| row as u32).find(|row| self.group(*row) == group)
    }

    pub(super) fn is_matched(&self, row: u32) -> bool {
        self.matched.get(row as usize).copied().unwrap_or(false)
    }

    /// Notes that `row` has found a partner, or is out; false, if that was known.
    pub(super) fn mark(&mut self, row: u32) -> bool {
        let Some(matched) = self.matched.get_mut(row as usize) else { return false };
        if std::mem::replace(matched, true) {
            return false;
        }
        if (row as usize) < self.saved {
            self.newly.push(row);
        }
        true
    }

    /// Notes that the table has all rows, with what is marked of them.
    pub(super) fn set_saved(&mut self) {
        self.saved = self.len();
        self.newly = Vec::new();
    }

    /// The place of the first row that the table has not.
    pub(super) fn unsaved(&self) -> usize {
        self.saved
    }

    /// Rows of the table that were marked since.
    pub(super) fn newly_marked(&self) -> &[u32] {
        &self.newly
    }

    /// The rows from `first` on.
    pub(super) fn rows_from(&self, first: usize) -> Vec<RecordBatch> {
        let behind = self.batches.iter().filter(|(start, batch)| start + batch.num_rows() > first);
        let cut = |(start, batch): &(usize, RecordBatch)| {
            let skipped = first.saturating_sub(*start);
            batch.slice(skipped, batch.num_rows() - skipped)
        };
        behind.map(cut).collect()
    }
}

/// The hasher of what is a hash already.
#[derive(Debug, Default)]
pub(super) struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
