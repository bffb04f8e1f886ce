//! State as an operator sees it: keyed tables ([`crate::keyed`]), and tables of buckets, filled and read in batches.
//!
//! A [`BucketTable`] holds rows under a *bucket* (a time that the operator chooses: for a window its end) and a key
//! group. What is written between two barriers becomes an immutable run when the barrier comes; runs, not rows, are
//! what checkpoints upload, what restoring at another parallelism divides, and what goes when a bucket expires.

use arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::key_group::KeyGroup;
use crate::keyed::{KeyedTable, TableSchema};

/// Rows under (bucket, key group): of windows, sessions, Top-N and sort, which keep and forget them by time.
pub trait BucketTable: Send {
    /// Adds rows to a bucket; `groups` has the key group of each row.
    ///
    /// # Errors
    /// `Internal`, if the lengths differ or a key group isn't this subtask's.
    fn append(&mut self, bucket: i64, groups: &[KeyGroup], rows: &RecordBatch) -> Result<()>;

    /// All rows of a bucket, in no particular order; what was appended in one call stays together.
    fn scan(&self, bucket: i64) -> Vec<RecordBatch>;

    /// The buckets that hold rows, ascending.
    fn buckets(&self) -> Vec<i64>;

    /// Forgets a bucket.
    fn expire(&mut self, bucket: i64);

    /// Bytes held in memory.
    fn bytes(&self) -> usize;
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
}
