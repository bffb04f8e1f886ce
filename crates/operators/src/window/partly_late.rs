//! Rows that came too late for the first windows of their slice, and in time for the later ones.
//!
//! Which windows such a row counts for follows from its split's watermark alone, not from what had fired here when it
//! came. So the rows are kept apart, by the first window that they count for.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::memory::batch_bytes;
use ruslo_core::state::OperatorState;

use super::groups::{GroupPlan, GroupSet};
use super::partition::SliceKey;

/// The state table: a bucket is a slice's end; behind the columns of a sealed batch, `from` is the end of the first
/// window that a row counts for. Stored in checkpoints.
const TABLE: &str = "partly_late";

/// So many sealed batches of one [`SliceKey`] are merged into one.
const BATCHES_MAX: usize = 32;

/// The sealed batches of rows that skip some windows of their slice.
pub(super) struct PartlyLate {
    plan: Arc<GroupPlan>,
    /// By slice, then by first window; the same rows as in state.
    parts: BTreeMap<SliceKey, Vec<RecordBatch>>,
    /// Bytes that the state table holds in memory.
    stored_bytes: usize,
    /// Bytes of `parts`.
    parts_bytes: usize,
}

impl PartlyLate {
    pub(super) fn new(plan: Arc<GroupPlan>) -> Self {
        Self { plan, parts: BTreeMap::new(), stored_bytes: 0, parts_bytes: 0 }
    }

    /// Reads what was restored.
    pub(super) fn open(&mut self, state: &mut dyn OperatorState) -> Result<()> {
        let table = state.buckets(TABLE);
        for end in table.buckets() {
            for stored in table.scan(end)? {
                let (from, part) = without_from(stored)?;
                self.parts.entry(SliceKey { end, from }).or_default().push(part);
            }
        }
        self.stored_bytes = table.bytes();
        self.count_parts();
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.stored_bytes + self.parts_bytes
    }

    fn count_parts(&mut self) {
        self.parts_bytes = self.parts.values().flatten().map(batch_bytes).sum();
    }

    /// Notes what the table holds in memory now.
    pub(super) fn look_again(&mut self, state: &mut dyn OperatorState) {
        self.stored_bytes = state.buckets(TABLE).bytes();
    }

    /// The slices that have such rows, each with its first windows.
    pub(super) fn keys(&self) -> impl Iterator<Item = SliceKey> {
        self.parts.keys().copied()
    }

    /// The rows that count for the window of the slices that end in `(start, end]`, but did not yet for windows up to
    /// `through`.
    pub(super) fn parts(&self, start: i64, through: i64, end: i64) -> impl Iterator<Item = RecordBatch> {
        let slices = SliceKey { end: start.saturating_add(1), from: i64::MIN }..=SliceKey { end, from: i64::MAX };
        let counting = self.parts.range(slices).filter(move |(key, _)| through < key.from && key.from <= end);
        counting.flat_map(|(_, parts)| parts.iter().cloned())
    }

    /// Seals groups; many batches of the same slice and window become one.
    pub(super) fn seal(&mut self, key: SliceKey, groups: GroupSet, state: &mut dyn OperatorState) -> Result<()> {
        self.append(key, groups.seal()?, state)?;
        let parts = self.parts.entry(key).or_default();
        if parts.len() < BATCHES_MAX {
            return Ok(());
        }
        let mut merged = GroupSet::new(&self.plan)?;
        std::mem::take(parts).iter().try_for_each(|part| merged.merge(part))?;
        parts.push(merged.seal()?);
        self.rewrite(key.end, state)
    }

    fn append(&mut self, key: SliceKey, sealed: RecordBatch, state: &mut dyn OperatorState) -> Result<()> {
        let table = state.buckets(TABLE);
        table.append(key.end, &self.plan.key_groups(&sealed)?, &with_from(&sealed, key.from)?)?;
        self.stored_bytes = table.bytes();
        self.parts_bytes += batch_bytes(&sealed);
        self.parts.entry(key).or_default().push(sealed);
        Ok(())
    }

    /// Writes a slice's bucket anew.
    fn rewrite(&mut self, end: i64, state: &mut dyn OperatorState) -> Result<()> {
        state.buckets(TABLE).expire(end);
        let slice = SliceKey { end, from: i64::MIN }..=SliceKey { end, from: i64::MAX };
        let keys: Vec<SliceKey> = self.parts.range(slice).map(|(key, _)| *key).collect();
        for key in keys {
            for part in self.parts.remove(&key).unwrap_or_default() {
                self.append(key, part, state)?;
            }
        }
        self.count_parts();
        Ok(())
    }

    /// Forgets a slice.
    pub(super) fn expire(&mut self, end: i64, state: &mut dyn OperatorState) {
        self.parts.retain(|key, _| key.end != end);
        self.count_parts();
        let table = state.buckets(TABLE);
        table.expire(end);
        self.stored_bytes = table.bytes();
    }
}

fn with_from(sealed: &RecordBatch, from: i64) -> Result<RecordBatch> {
    let field = Arc::new(Field::new("from", DataType::Int64, false));
    let fields: Vec<_> = sealed.schema_ref().fields().iter().cloned().chain([field]).collect();
    let from: ArrayRef = Arc::new(Int64Array::from(vec![from; sealed.num_rows()]));
    let columns = sealed.columns().iter().cloned().chain([from]).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// The first window of a stored batch, and the batch as it was sealed.
fn without_from(mut stored: RecordBatch) -> Result<(i64, RecordBatch)> {
    let last = stored.num_columns().saturating_sub(1);
    let column = stored.columns().last().and_then(|column| column.as_primitive_opt::<Int64Type>());
    let from = column.and_then(|column| column.iter().next().flatten());
    let from = from.ok_or_else(|| Error::corrupt("a stored slice does not say which windows it counts for"))?;
    stored.remove_column(last);
    Ok((from, stored))
}

#[cfg(test)]
mod tests {
    use datafusion::functions_aggregate::count::count_udaf;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::col;

    use super::*;
    use crate::expression::NamedExpr;
    use crate::testing::MemoryState;
    use crate::window::groups::AggregateCall;

    fn plan() -> Arc<GroupPlan> {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
        let k = col("k", &schema).unwrap();
        let key = NamedExpr::new(Arc::clone(&k), "k", &schema).unwrap();
        let count = AggregateExprBuilder::new(count_udaf(), vec![k]).schema(schema).alias("n").build().unwrap();
        Arc::new(GroupPlan::new(vec![key], vec![AggregateCall::new(Arc::new(count))]).unwrap())
    }

    fn groups(plan: &Arc<GroupPlan>, keys: std::ops::Range<i64>) -> GroupSet {
        let mut groups = GroupSet::new(plan).unwrap();
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(keys));
        groups.update(&RecordBatch::try_from_iter([("k", keys)]).unwrap()).unwrap();
        groups
    }

    /// How many rows count for the window of the slices that end in `(start, end]`.
    fn counted(late: &PartlyLate, start: i64, end: i64) -> i64 {
        let count = |part: RecordBatch| part.column(1).as_primitive::<Int64Type>().values().iter().sum::<i64>();
        late.parts(start, start, end).map(count).sum()
    }

    #[test]
    fn rows_count_from_their_first_window_on_and_stay_few_batches() {
        let (mut late, mut state) = (PartlyLate::new(plan()), MemoryState::default());
        for _ in 0..100 {
            for (end, from) in [(10, 20), (10, 30), (20, 30)] {
                late.seal(SliceKey { end, from }, groups(&plan(), 0..2), &mut state).unwrap();
            }
        }
        assert!(state.buckets(TABLE).batches(10) <= 2 * BATCHES_MAX);
        let mut restored = PartlyLate::new(plan());
        restored.open(&mut state).unwrap();
        for late in [&late, &restored] {
            assert_eq!([counted(late, 0, 10), counted(late, 0, 20), counted(late, 0, 30)], [0, 200, 600]);
            assert_eq!(counted(late, 10, 40), 200);
            assert_eq!(late.parts(0, 20, 30).count(), late.parts(0, 0, 30).count() - late.parts(0, 0, 20).count());
        }
        restored.expire(10, &mut state);
        assert_eq!(restored.keys().map(|key| key.end).collect::<Vec<_>>(), [20]);
        restored.expire(20, &mut state);
        assert_eq!(restored.bytes(), 0);
    }
}
