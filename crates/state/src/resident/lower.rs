//! What the resident layer wants of the layer below: runs that rows are flushed to and found in.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use ruslo_core::error::Result;
use ruslo_core::key_group::KeyGroup;

use crate::runs::SortedRows;
use crate::runs::{DirtyRows, Run, RunSet};

/// As many runs a table that makes room leaves to those who merge behind checkpoints.
const RUNS_MAX: usize = 16;

/// Rows that were flushed or sealed, by key.
pub trait Lower: Send + Sync + std::fmt::Debug {
    /// Makes a run of rows: pieces in order of key group, each of one group. The run, if it is one that a checkpoint can
    /// name.
    ///
    /// # Errors
    /// The disk's.
    fn add(&self, pieces: &mut dyn Iterator<Item = Result<DirtyRows>>) -> Result<Option<Arc<Run>>>;

    /// The newest rows of keys, which are distinct and in the order of runs.
    ///
    /// # Errors
    /// The disk's; `Corrupt`, if a run is damaged.
    fn find(&self, hashes: &[u64], keys: &[ArrayRef]) -> Result<LowerRows>;

    /// The keys of a key group that have a row, in pieces; rows of buckets before `oldest_bucket` are none.
    ///
    /// # Errors
    /// As [`Lower::find`].
    fn keys(&self, group: KeyGroup, oldest_bucket: u32) -> Result<Vec<Vec<ArrayRef>>>;

    /// Sees to it that there are not too many runs; rows of buckets before `oldest_bucket` may go.
    ///
    /// # Errors
    /// The disk's; `Corrupt`, if a run is damaged.
    fn compact(&self, oldest_bucket: u32) -> Result<()>;
}

/// Rows of some keys.
#[derive(Debug, Clone)]
pub struct LowerRows {
    /// Which of the keys asked for each row is of; rows of a key in order of the sub-key.
    pub requests: Vec<u32>,
    /// The time bucket of each row.
    pub buckets: Vec<u32>,
    /// Key, sub-key and value columns.
    pub rows: RecordBatch,
}

impl Lower for RunSet {
    fn add(&self, pieces: &mut dyn Iterator<Item = Result<DirtyRows>>) -> Result<Option<Arc<Run>>> {
        let mut failed = None;
        let pieces = pieces.map_while(|piece| {
            piece.and_then(|piece| piece.sorted(self.schema())).map_err(|error| failed = Some(error)).ok()
        });
        let added = RunSet::add(self, pieces.flatten());
        failed.map_or(added, Err)
    }

    fn find(&self, hashes: &[u64], keys: &[ArrayRef]) -> Result<LowerRows> {
        let found = RunSet::find(self, hashes, keys)?;
        Ok(LowerRows { requests: found.requests, buckets: found.rows.buckets, rows: found.rows.rows })
    }

    fn keys(&self, group: KeyGroup, oldest_bucket: u32) -> Result<Vec<Vec<ArrayRef>>> {
        let count = self.schema().key.len();
        let keys = |rows: SortedRows| rows.rows.columns().iter().take(count).cloned().collect();
        self.scan(&(group..group + 1), oldest_bucket)?.map(|piece| piece.map(keys)).collect()
    }

    fn compact(&self, oldest_bucket: u32) -> Result<()> {
        if self.len() <= RUNS_MAX {
            return Ok(());
        }
        RunSet::compact(self, oldest_bucket).map(drop)
    }
}
