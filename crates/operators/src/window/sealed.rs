//! The sealed batches of open windows in state, and how many each window has.
//!
//! A bucket of the table is a window's end; where windows share slices, the slice's end. Each snapshot adds a batch to a window that got rows, so a long window
//! would gather one a checkpoint; now and then its batches are merged into one.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use ruslo_core::error::Result;
use ruslo_core::key_group::KeyGroup;
use ruslo_core::state::{BucketTable, OperatorState};

use super::groups::{GroupPlan, GroupSet};

/// The state table. Stored in checkpoints.
pub(super) const TABLE: &str = "slices";

/// From so many sealed batches of one window on, a snapshot may merge them.
const BATCHES_MIN: usize = 8;
/// From so many on, it does.
const BATCHES_MAX: usize = 64;

/// The books over the table of sealed batches; the table itself is in the operator's state.
pub(super) struct SealedWindows {
    plan: Arc<GroupPlan>,
    /// How many batches each window has, by its end.
    batches: BTreeMap<i64, usize>,
    bytes: usize,
}

impl SealedWindows {
    pub(super) fn new(plan: Arc<GroupPlan>) -> Self {
        Self { plan, batches: BTreeMap::new(), bytes: 0 }
    }

    /// Reads the books from restored state.
    pub(super) fn open(&mut self, state: &mut dyn OperatorState) {
        let table = state.buckets(TABLE);
        self.batches = table.buckets().into_iter().map(|end| (end, table.batches(end))).collect();
        self.bytes = table.bytes();
    }

    /// The end of the earliest window.
    pub(super) fn first_end(&self) -> Option<i64> {
        self.batches.keys().next().copied()
    }

    /// The ends of all that is sealed, ascending.
    pub(super) fn ends(&self) -> impl Iterator<Item = i64> {
        self.batches.keys().copied()
    }

    /// The sealed batches that end in `(start, end]`; they stay.
    pub(super) fn parts(&self, start: i64, end: i64, state: &mut dyn OperatorState) -> Result<Vec<RecordBatch>> {
        let table = state.buckets(TABLE);
        let ends = self.batches.range(start.saturating_add(1)..=end).map(|(end, _)| *end);
        let mut parts = Vec::new();
        for end in ends {
            parts.extend(table.scan(end)?);
        }
        Ok(parts)
    }

    /// State forgets the sealed batches of a window.
    pub(super) fn expire(&mut self, end: i64, state: &mut dyn OperatorState) {
        if self.batches.remove(&end).is_some() {
            let table = state.buckets(TABLE);
            table.expire(end);
            self.bytes = table.bytes();
        }
    }

    /// Bytes that the table holds.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The sealed batches of a window cut to the key groups before `group`; state forgets these.
    pub(super) fn take_before(
        &mut self,
        end: i64,
        group: KeyGroup,
        state: &mut dyn OperatorState,
    ) -> Result<Vec<RecordBatch>> {
        if !self.batches.contains_key(&end) {
            return Ok(Vec::new());
        }
        let table = state.buckets(TABLE);
        let parts = table.scan_groups(end, &(0..group))?;
        self.forget_before(end, group, state);
        Ok(parts)
    }

    /// State forgets what a window has of the key groups before `group`.
    pub(super) fn forget_before(&mut self, end: i64, group: KeyGroup, state: &mut dyn OperatorState) {
        let table = state.buckets(TABLE);
        table.expire_before(end, group);
        self.bytes = table.bytes();
        match table.batches(end) {
            0 => self.batches.remove(&end),
            left => self.batches.insert(end, left),
        };
    }

    /// The end of the first key groups of a window whose batches hold `bytes_max` bytes together.
    pub(super) fn groups_within(&self, end: i64, bytes_max: u64, state: &mut dyn OperatorState) -> KeyGroup {
        state.buckets(TABLE).groups_within(end, bytes_max)
    }

    /// Notes what the table holds in memory now.
    pub(super) fn look_again(&mut self, state: &mut dyn OperatorState) {
        self.bytes = state.buckets(TABLE).bytes();
    }

    /// Seals groups into a window as they are: there is no memory to merge them with others.
    pub(super) fn put_away(&mut self, end: i64, groups: GroupSet, state: &mut dyn OperatorState) -> Result<()> {
        self.append(end, &groups.seal()?, state.buckets(TABLE))
    }

    /// Seals groups into a window; if it has many batches already, they become one. Not while it has some on disk: they
    /// might not fit in memory together.
    pub(super) fn seal(&mut self, end: i64, mut groups: GroupSet, state: &mut dyn OperatorState) -> Result<()> {
        let can_merge = !state.can_evict() || state.buckets(TABLE).is_in_memory(end);
        let table = state.buckets(TABLE);
        if can_merge && self.batches.get(&end).is_some_and(|batches| *batches >= BATCHES_MIN) {
            let parts = table.scan(end)?;
            if is_worth_merging(&parts, groups.len()) {
                parts.iter().try_for_each(|part| groups.merge(part))?;
                table.expire(end);
                self.batches.remove(&end);
            }
        }
        self.append(end, &groups.seal()?, table)
    }

    /// Makes `parts` all that a window holds of the key groups before `group`.
    pub(super) fn replace_before(
        &mut self,
        end: i64,
        group: KeyGroup,
        parts: &[RecordBatch],
        state: &mut dyn OperatorState,
    ) -> Result<()> {
        self.forget_before(end, group, state);
        let table = state.buckets(TABLE);
        parts.iter().try_for_each(|part| self.append(end, part, table))
    }

    fn append(&mut self, end: i64, sealed: &RecordBatch, table: &mut dyn BucketTable) -> Result<()> {
        table.append(end, &self.plan.key_groups(sealed)?, sealed)?;
        self.bytes = table.bytes();
        *self.batches.entry(end).or_default() += 1;
        Ok(())
    }
}

/// Whether merging all batches of a window, with `more` rows to come, pays: not while one holds most of the rows, or
/// each checkpoint of a long window would write the whole window anew.
fn is_worth_merging(parts: &[RecordBatch], more: usize) -> bool {
    let rows = parts.iter().map(RecordBatch::num_rows);
    let largest = rows.clone().max().unwrap_or(0);
    let others = rows.sum::<usize>() - largest + more;
    parts.len() >= BATCHES_MAX || others >= largest / 2
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::functions_aggregate::count::count_udaf;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::col;

    use ruslo_core::key_group::KEY_GROUPS;

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

    /// The groups and the rows that all batches of window 10 come to.
    fn total(sealed: &mut SealedWindows, state: &mut MemoryState) -> (usize, i64) {
        let mut merged = GroupSet::new(&sealed.plan).unwrap();
        sealed.take_before(10, KEY_GROUPS, state).unwrap().iter().for_each(|part| merged.merge(part).unwrap());
        let groups = merged.len();
        let columns = merged.results().unwrap();
        (groups, columns[1].as_primitive::<Int64Type>().values().iter().sum())
    }

    #[test]
    fn a_long_window_keeps_few_batches_and_does_not_rewrite_itself_each_time() {
        let (mut sealed, mut state) = (SealedWindows::new(plan()), MemoryState::default());
        sealed.seal(10, groups(&sealed.plan, 0..1000), &mut state).unwrap();
        let mut rewritten = 0;
        for checkpoint in 0..300 {
            sealed.seal(10, groups(&sealed.plan, checkpoint..checkpoint + 2), &mut state).unwrap();
            let batches = state.buckets(TABLE).batches(10);
            assert_eq!(sealed.batches[&10], batches);
            assert!(batches <= BATCHES_MAX);
            rewritten += usize::from(batches == 1);
        }
        assert!((1..=6).contains(&rewritten), "rewritten {rewritten} times in 300 checkpoints");
        assert_eq!(total(&mut sealed, &mut state), (1000, 1600));
    }

    #[test]
    fn batches_of_equal_size_become_one_soon() {
        let (mut sealed, mut state) = (SealedWindows::new(plan()), MemoryState::default());
        for _ in 0..100 {
            sealed.seal(10, groups(&sealed.plan, 0..2), &mut state).unwrap();
            assert!(state.buckets(TABLE).batches(10) <= BATCHES_MIN);
        }
        assert_eq!(total(&mut sealed, &mut state), (2, 200));
        assert_eq!((sealed.first_end(), sealed.bytes()), (None, 0));
    }

    #[test]
    fn the_books_are_read_from_state() {
        let (mut sealed, mut state) = (SealedWindows::new(plan()), MemoryState::default());
        for end in [30, -10, 30] {
            sealed.seal(end, groups(&sealed.plan, 0..2), &mut state).unwrap();
        }
        let mut reopened = SealedWindows::new(plan());
        reopened.open(&mut state);
        assert_eq!(reopened.batches, BTreeMap::from([(-10, 1), (30, 2)]));
        assert_eq!((reopened.first_end(), reopened.bytes()), (Some(-10), sealed.bytes()));
    }

    #[test]
    fn replacing_leaves_only_what_was_given() {
        let (mut sealed, mut state) = (SealedWindows::new(plan()), MemoryState::default());
        sealed.seal(10, groups(&sealed.plan, 0..9), &mut state).unwrap();
        let left = groups(&sealed.plan, 5..7).seal().unwrap();
        sealed.replace_before(10, KEY_GROUPS, &[left], &mut state).unwrap();
        assert_eq!(total(&mut sealed, &mut state), (2, 2));
    }
}
