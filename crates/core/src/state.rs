//! State as an operator sees it: keyed tables ([`crate::keyed`]), and tables of buckets, filled and read in batches.
//!
//! A [`BucketTable`] holds rows under a *bucket* (a time that the operator chooses: for a window its end) and a key
//! group. What is written between two barriers becomes an immutable run when the barrier comes; runs, not rows, are
//! what checkpoints upload, what restoring at another parallelism divides, and what goes when a bucket expires.

use arrow::datatypes::FieldRef;
use arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::key_group::{KEY_GROUPS, KeyGroup, KeyGroupRange};
use crate::keyed::{KeyedTable, TableSchema};
use crate::operator_rows::{OperatorRows, Redistribution};
use crate::timers::Timers;

/// Rows under (bucket, key group): of windows, sessions, Top-N and sort, which keep and forget them by time.
pub trait BucketTable: Send {
    /// Adds rows to a bucket; `groups` has the key group of each row.
    ///
    /// # Errors
    /// `Internal`, if the lengths differ or a key group isn't this subtask's.
    fn append(&mut self, bucket: i64, groups: &[KeyGroup], rows: &RecordBatch) -> Result<()>;

    /// The rows of a bucket that are of some key groups, in no particular order; what was appended in one call stays
    /// together.
    ///
    /// # Errors
    /// The disk's, for rows that have left memory.
    fn scan_groups(&self, bucket: i64, groups: &KeyGroupRange) -> Result<Vec<RecordBatch>>;

    /// All rows of a bucket.
    ///
    /// # Errors
    /// As [`BucketTable::scan_groups`].
    fn scan(&self, bucket: i64) -> Result<Vec<RecordBatch>> {
        self.scan_groups(bucket, &(0..KEY_GROUPS))
    }

    /// How many batches [`BucketTable::scan`] would give.
    fn batches(&self, bucket: i64) -> usize;

    /// The buckets that hold rows, ascending.
    fn buckets(&self) -> Vec<i64>;

    /// Forgets a bucket.
    fn expire(&mut self, bucket: i64);

    /// Forgets the rows of a bucket that are of key groups before `group`.
    fn expire_before(&mut self, bucket: i64, group: KeyGroup);

    /// How many rows there are, in memory or not.
    fn rows(&self) -> usize;

    /// Bytes held in memory.
    fn bytes(&self) -> usize;

    /// Whether all rows of a bucket are in memory.
    fn is_in_memory(&self, bucket: i64) -> bool;

    /// The end of the key groups from the first on that a bucket has rows of, as many as hold `bytes_max` bytes together in
    /// memory or on disk, and one at least.
    fn groups_within(&self, bucket: i64, bytes_max: u64) -> KeyGroup;
}

/// The tables of one operator subtask, by name. A name is stored in the checkpoint: it never changes.
pub trait OperatorState: Send {
    /// The bucket table `name`, empty if it was never written.
    fn buckets(&mut self, name: &'static str) -> &mut dyn BucketTable;

    /// The keyed table `name`, whose rows look like `schema`: empty if it was never written. Its types are stored, too:
    /// they never change.
    ///
    /// # Errors
    /// `Usage`, if a column's type cannot be kept; `Corrupt`, if what was restored is damaged; the disk's.
    fn keyed(&mut self, name: &'static str, schema: &TableSchema) -> Result<&mut dyn KeyedTable> {
        Err(Error::internal(format!("the {} table '{name}' cannot be kept here", schema.kind.name())))
    }

    /// Whether there is a disk for what does not fit in memory.
    fn can_evict(&self) -> bool {
        false
    }

    /// Moves what the bucket tables hold in memory onto that disk. It is read back as it is asked for.
    ///
    /// # Errors
    /// The disk's.
    fn evict(&mut self) -> Result<()> {
        Ok(())
    }

    /// The table `name` of rows that belong to no key, empty if it was never written. How they are redistributed is stored,
    /// too: it never changes.
    ///
    /// # Errors
    /// `Internal`, if what was restored is redistributed in another way.
    fn operator_rows(&mut self, name: &'static str, redistribution: Redistribution) -> Result<&mut OperatorRows> {
        Err(Error::internal(format!("the {} rows '{name}' cannot be kept here", redistribution.name())))
    }

    /// The timers, by columns like `key`, whose types are stored and never change. An operator that has any asks for them in
    /// `open`: until it has asked, those that were restored do not fire.
    ///
    /// # Errors
    /// `Usage`, if a column's type cannot be a key; `Corrupt`, if what was restored is damaged; `Resource`, if the timers do
    /// not fit in memory.
    fn timers(&mut self, key: &[FieldRef]) -> Result<&mut dyn Timers> {
        Err(Error::internal(format!("timers by {} columns cannot be kept here", key.len())))
    }
}
