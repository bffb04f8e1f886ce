//! Which windows have fired, for each key group: the firing cursor of windows that share slices.
//!
//! A slice outlives the windows that fire first, so that its rows alone do not say which of its windows are out. After
//! a restore with another parallelism, key groups that had come less far stand beside others: until they have caught up,
//! a window takes only the rows of those that it is still due for.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, UInt16Array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, UInt16Type};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::Result;
use ruslo_core::key_group::{KeyGroup, KeyGroupRange};
use ruslo_core::state::OperatorState;

use super::groups::GroupPlan;

/// The state table: a bucket is the end of the last window that fired, its rows are key groups. Stored in checkpoints.
const TABLE: &str = "fired";

/// The firing cursor.
#[derive(Debug)]
pub(super) struct Fired {
    owned: KeyGroupRange,
    /// The end of the last window that fired for all key groups; none has before the first.
    last: i64,
    /// By key group, from the first owned one on; empty if all have come equally far.
    ahead: Vec<i64>,
    is_stored: bool,
}

impl Fired {
    /// Nothing has fired.
    pub(super) fn new() -> Self {
        Self { owned: 0..0, last: i64::MIN, ahead: Vec::new(), is_stored: true }
    }

    /// Reads the cursor of the key groups `owned` from restored state.
    pub(super) fn open(&mut self, owned: KeyGroupRange, state: &mut dyn OperatorState) -> Result<()> {
        let table = state.buckets(TABLE);
        let mut cursors = vec![i64::MIN; usize::from(owned.end.saturating_sub(owned.start))];
        for end in table.buckets() {
            for group in table.scan(end)?.iter().flat_map(key_groups_of) {
                if let Some(cursor) = cursors.get_mut(usize::from(group.saturating_sub(owned.start))) {
                    *cursor = end;
                }
            }
        }
        self.owned = owned;
        self.last = cursors.iter().copied().min().unwrap_or(i64::MIN);
        self.ahead = if cursors.iter().all(|cursor| *cursor == self.last) { Vec::new() } else { cursors };
        Ok(())
    }

    /// The end of the last window that has fired for all key groups; `i64::MIN` before the first.
    pub(super) fn last(&self) -> i64 {
        self.last
    }

    /// The window that ends at `end` is out for everyone.
    pub(super) fn advance(&mut self, end: i64) {
        self.last = end;
        self.is_stored = false;
        if self.ahead.iter().all(|cursor| *cursor <= end) {
            self.ahead = Vec::new();
        }
    }

    /// Whether all key groups have come equally far.
    pub(super) fn is_even(&self) -> bool {
        self.ahead.is_empty()
    }

    /// The rows of `sealed` that the window which ends at `end` is still due for.
    pub(super) fn due(&self, end: i64, sealed: RecordBatch, plan: &GroupPlan) -> Result<RecordBatch> {
        if self.ahead.is_empty() {
            return Ok(sealed);
        }
        let is_due = |group: KeyGroup| {
            let cursor = self.ahead.get(usize::from(group.saturating_sub(self.owned.start)));
            cursor.is_none_or(|cursor| *cursor < end)
        };
        let keep: BooleanArray = plan.key_groups(&sealed)?.into_iter().map(|group| Some(is_due(group))).collect();
        Ok(filter_record_batch(&sealed, &keep)?)
    }

    /// Writes the cursor into state; `out` is the window that is out but for what the snapshot holds of it.
    pub(super) fn store(&mut self, out: Option<i64>, state: &mut dyn OperatorState) -> Result<()> {
        if self.is_stored && out.is_none() {
            return Ok(());
        }
        // With a window half out what is stored runs ahead of this cursor.
        self.is_stored = out.is_none();
        let table = state.buckets(TABLE);
        table.buckets().into_iter().for_each(|end| table.expire(end));
        let reached = out.unwrap_or(self.last);
        let mut by_end = BTreeMap::<i64, Vec<KeyGroup>>::new();
        for (place, group) in self.owned.clone().enumerate() {
            let cursor = self.ahead.get(place).copied().unwrap_or(reached).max(reached);
            by_end.entry(cursor).or_default().push(group);
        }
        by_end.remove(&i64::MIN);
        by_end.into_iter().try_for_each(|(end, groups)| table.append(end, &groups, &batch(&groups)?))
    }
}

fn batch(groups: &[KeyGroup]) -> Result<RecordBatch> {
    let schema = Schema::new(vec![Field::new("key_group", DataType::UInt16, false)]);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(UInt16Array::from(groups.to_vec()))])?)
}

fn key_groups_of(batch: &RecordBatch) -> Vec<KeyGroup> {
    let column = batch.columns().first().and_then(|column| column.as_primitive_opt::<UInt16Type>());
    column.map(|column| column.iter().flatten().collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryState;

    #[test]
    fn the_cursor_survives_and_parts_with_the_key_groups() {
        let (mut low, mut high) = (Fired::new(), Fired::new());
        let (mut low_state, mut high_state) = (MemoryState::default(), MemoryState::default());
        low.open(0..64, &mut low_state).unwrap();
        high.open(64..128, &mut high_state).unwrap();
        low.advance(10);
        low.store(None, &mut low_state).unwrap();
        high.advance(10);
        high.store(Some(20), &mut high_state).unwrap();
        assert_eq!(high.last(), 10);

        let mut joined = low_state.joined(&high_state);
        let mut all = Fired::new();
        all.open(0..128, &mut joined).unwrap();
        assert_eq!(all.last(), 10);
        assert_eq!((all.ahead[63], all.ahead[64]), (10, 20));
        all.store(Some(15), &mut joined).unwrap();
        let mut again = Fired::new();
        again.open(0..128, &mut joined).unwrap();
        assert_eq!((again.ahead[63], again.ahead[64]), (15, 20));
        all.advance(20);
        assert!(all.ahead.is_empty());
    }

    #[test]
    fn a_snapshot_of_a_half_fired_window_is_corrected_by_the_next_one() {
        let (mut fired, mut state) = (Fired::new(), MemoryState::default());
        fired.open(0..2, &mut state).unwrap();
        fired.store(Some(10), &mut state).unwrap();
        fired.advance(10);
        fired.store(None, &mut state).unwrap();
        fired.store(None, &mut state).unwrap();
        assert_eq!(state.buckets(TABLE).buckets(), vec![10]);
        fired.advance(20);
        fired.store(None, &mut state).unwrap();
        assert_eq!(state.buckets(TABLE).buckets(), vec![20]);
    }
}
