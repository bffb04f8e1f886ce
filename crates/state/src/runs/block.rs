//! A block: a few rows of a run, one Arrow record batch message.

use std::panic::AssertUnwindSafe;

use arrow::array::{ArrayRef, AsArray, UInt8Array, UInt32Array, UInt64Array};
use arrow::buffer::Buffer;
use arrow::datatypes::{UInt8Type, UInt32Type, UInt64Type};
use arrow::ipc::MetadataVersion;
use arrow::ipc::reader::FileDecoder;
use ruslo_core::error::{Error, Result};

use crate::runs::rows::{Op, SubKeys, hash_at, place_of};
use crate::runs::schema::{StoredSchema as _, TableSchema};

/// Bytes that a block aims at.
pub(crate) const BLOCK_TARGET_BYTES: usize = 4 << 10;

/// The rows of one block.
#[derive(Debug)]
pub(crate) struct Block {
    hashes: UInt64Array,
    ops: UInt8Array,
    buckets: Option<UInt32Array>,
    /// Key, sub-key and value columns.
    pub(crate) columns: Vec<ArrayRef>,
    subs: SubKeys,
}

/// Turns the bytes of blocks into blocks.
#[derive(Debug)]
pub(crate) struct Decoder {
    schema: TableSchema,
    decoder: FileDecoder,
}

impl Decoder {
    /// For the runs of a table.
    pub(crate) fn new(schema: &TableSchema) -> Self {
        Self { schema: schema.clone(), decoder: FileDecoder::new(schema.stored(), MetadataVersion::V5) }
    }

    /// The block in `bytes`, whose checksum fits.
    ///
    /// # Errors
    /// `Corrupt`, without the file's name.
    pub(crate) fn decode(&self, bytes: &Buffer) -> Result<Block> {
        let corrupt = |what: String| Error::corrupt(format!("a block of a run does not read: {what}"));
        let (mark, length) = bytes
            .split_first_chunk::<4>()
            .and_then(|(mark, rest)| Some((mark, rest.first_chunk::<4>()?)))
            .ok_or_else(|| corrupt("it is cut off".to_owned()))?;
        let head = u64::from(u32::from_le_bytes(*length)) + 8;
        let body = (bytes.len() as u64).checked_sub(head).filter(|_| *mark == [0xff; 4]);
        let body = body.ok_or_else(|| corrupt("it does not begin as one".to_owned()))?;
        let place = arrow::ipc::Block::new(0, head as i32, body as i64);
        // The library panics over some bytes that are no batch.
        let read = AssertUnwindSafe(|| self.decoder.read_record_batch(&place, bytes));
        let read = std::panic::catch_unwind(read).map_err(|_| corrupt("it is no batch of rows".to_owned()))?;
        let batch = read.map_err(|e| corrupt(e.to_string()))?;
        let batch = batch.ok_or_else(|| corrupt("it is empty".to_owned()))?;
        let rows = batch.num_rows();
        Block::of(&self.schema, batch.into_parts().1, rows)
    }
}

impl Block {
    /// Rows of a run of the table `schema`, whose stored columns are `columns`.
    ///
    /// # Errors
    /// `Corrupt`, if they are those of another table.
    pub(crate) fn of(schema: &TableSchema, columns: Vec<ArrayRef>, rows: usize) -> Result<Self> {
        let wrong = || Error::corrupt("a block of a run has other columns than the run");
        let mut columns = columns.into_iter();
        let mut next = || columns.next().ok_or_else(wrong);
        let hashes = next()?.as_primitive_opt::<UInt64Type>().ok_or_else(wrong)?.clone();
        let ops = next()?.as_primitive_opt::<UInt8Type>().ok_or_else(wrong)?.clone();
        let buckets = match schema.ttl {
            Some(_) => Some(next()?.as_primitive_opt::<UInt32Type>().ok_or_else(wrong)?.clone()),
            None => None,
        };
        let columns: Vec<_> = columns.collect();
        let subs = SubKeys::of(schema, &columns, rows)?;
        Ok(Self { hashes, ops, buckets, columns, subs })
    }

    /// How many rows.
    pub(crate) fn len(&self) -> usize {
        self.hashes.values().len()
    }

    /// The place of a row.
    #[inline]
    pub(crate) fn place(&self, row: usize) -> u64 {
        self.hashes.values().get(row).map_or(u64::MAX, |hash| place_of(*hash))
    }

    /// The hash of a row's key.
    #[inline]
    pub(crate) fn hash(&self, row: usize) -> u64 {
        hash_at(self.place(row))
    }

    /// What a row does.
    #[inline]
    pub(crate) fn op(&self, row: usize) -> Result<Op> {
        let op = self.ops.values().get(row).and_then(|op| Op::of(*op));
        op.ok_or_else(|| Error::corrupt("a row of a run does what is unknown"))
    }

    /// The time bucket of a row; 0 in a table without a TTL.
    #[inline]
    pub(crate) fn bucket(&self, row: usize) -> u32 {
        self.buckets.as_ref().and_then(|buckets| buckets.values().get(row)).copied().unwrap_or_default()
    }

    /// What rows of a key are ordered by.
    #[inline]
    pub(crate) fn rank(&self, row: usize) -> (i64, u64) {
        self.subs.rank(row)
    }

    /// The first row at `place` or after it.
    pub(crate) fn first_at(&self, place: u64) -> usize {
        self.hashes.values().partition_point(|hash| place_of(*hash) < place)
    }
}
