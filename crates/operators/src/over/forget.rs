//! Keys that have had no row for as long as their rows matter: all that is kept of them goes, by event time.
//!
//! A key that comes is noted under the time from which on it may go. When the watermark is there it is looked up: if rows
//! have come since, it is noted again, later; else it goes. So a key costs a note a lifetime, however many rows it has.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{concat_batches, filter, take};
use arrow::datatypes::{FieldRef, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::{KEY_GROUPS, key_groups};
use ruslo_core::keyed::TableSchema;
use ruslo_core::operator::{OperatorContext, Progress};
use ruslo_core::state::OperatorState;

use crate::pressure::firing_bytes;

/// The notes, in the bucket of their time in ms. Stored in checkpoints.
pub(super) const ENDS: &str = "over_ends";

/// How keys are forgotten.
#[derive(Debug)]
pub(super) struct Forgetting {
    lifetime_ms: i64,
    /// Notes are of multiples of this.
    unit_ms: i64,
    key: SchemaRef,
}

impl Forgetting {
    /// Keys of the columns `key` go `lifetime_ms` after their last row.
    pub(super) fn new(lifetime_ms: i64, key: &[FieldRef]) -> Self {
        let unit_ms = (lifetime_ms / 8).clamp(1_000, 3_600_000);
        Self { lifetime_ms, unit_ms, key: Arc::new(Schema::new(key.to_vec())) }
    }

    /// The lifetime.
    pub(super) fn lifetime_ms(&self) -> i64 {
        self.lifetime_ms
    }

    /// The bucket of a key whose last row was at `last`: it may go when the watermark is there.
    fn bucket(&self, last: i64) -> i64 {
        let end = last.saturating_add(self.lifetime_ms).saturating_add(1);
        end.saturating_add((-end.rem_euclid(self.unit_ms)).rem_euclid(self.unit_ms))
    }

    /// Notes `keys`, whose last rows were at `lasts`.
    pub(super) fn note(&self, keys: &[ArrayRef], lasts: &[i64], state: &mut dyn OperatorState) -> Result<()> {
        let mut buckets: Vec<i64> = lasts.iter().map(|last| self.bucket(*last)).collect();
        let of_keys = buckets.clone();
        buckets.sort_unstable();
        buckets.dedup();
        for bucket in buckets {
            let mine = of_keys.iter().enumerate().filter(|(_, of)| **of == bucket).map(|(row, _)| row as u32);
            let mine = UInt32Array::from_iter_values(mine);
            let keys = keys.iter().map(|key| Ok(take(key, &mine, None)?)).collect::<Result<Vec<_>>>()?;
            let groups = key_groups(&keys, mine.len())?;
            state.buckets(ENDS).append(bucket, &groups, &RecordBatch::try_new(Arc::clone(&self.key), keys)?)?;
        }
        Ok(())
    }

    /// Looks up a piece of what the watermark has come to. `keys` is the table that has the time of a key's last row in its
    /// value column `last`; `tables` are all that have something of a key.
    pub(super) fn forget(
        &self,
        watermark: i64,
        (keys, last): ((&'static str, &TableSchema), usize),
        tables: &[(&'static str, &TableSchema)],
        ctx: &mut OperatorContext<'_>,
    ) -> Result<Progress> {
        let bytes_max = firing_bytes(ctx);
        let ends = ctx.state.buckets(ENDS);
        let Some(bucket) = ends.buckets().first().copied().filter(|bucket| *bucket <= watermark) else {
            return Ok(Progress::Done);
        };
        let end = ends.groups_within(bucket, bytes_max);
        let noted = concat_batches(&self.key, &ends.scan_groups(bucket, &(0..end))?)?;
        match end >= KEY_GROUPS {
            true => ends.expire(bucket),
            false => ends.expire_before(bucket, end),
        }
        let (name, schema) = keys;
        let columns = noted.columns();
        let values = ctx.state.keyed(name, schema)?.get(columns)?;
        let lost = || Error::internal("a key lost the time of its last row");
        let lasts = values.columns.get(last).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let lasts = lasts.ok_or_else(lost)?.values();
        let is_there = |row: usize| values.present.as_ref().is_none_or(|present| present.is_valid(row));
        let is_over = |(row, last): (usize, &i64)| !is_there(row) || self.bucket(*last) <= bucket;
        let over: BooleanArray = lasts.iter().enumerate().map(|at| Some(is_over(at))).collect();
        let gone = columns.iter().map(|key| Ok(filter(key, &over)?)).collect::<Result<Vec<_>>>()?;
        if over.true_count() > 0 {
            for (name, schema) in tables {
                ctx.state.keyed(name, schema)?.remove(&gone)?;
            }
        }
        let there = arrow::compute::not(&over)?;
        let stay = columns.iter().map(|key| Ok(filter(key, &there)?)).collect::<Result<Vec<_>>>()?;
        let lasts: Vec<i64> =
            lasts.iter().zip(there.values()).filter(|(_, there)| *there).map(|(last, _)| *last).collect();
        if !lasts.is_empty() {
            self.note(&stay, &lasts, ctx.state)?;
        }
        Ok(Progress::More)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_behind_the_lifetime_and_not_far() {
        let forgetting = Forgetting::new(60_000, &[]);
        for last in [-70_001, -1, 0, 7_499, 7_500, 1_000_000] {
            let bucket = forgetting.bucket(last);
            assert!(bucket > last + 60_000 && bucket <= last + 60_001 + 7_500, "{last}: {bucket}");
            assert_eq!(bucket % 7_500, 0);
        }
        assert_eq!(forgetting.bucket(i64::MAX - 5), i64::MAX);
    }
}
