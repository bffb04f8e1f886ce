//! The sessions that got rows lately: one accumulator set, one group a session.
//!
//! A session gets its group with its first row since the last sealing. What it had before joins when it is sealed again;
//! and so does what another session had whose rows turned out to be of the same one.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{concat, take};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};

use super::directory::NONE;
use crate::window::groups::{Accumulators, GroupPlan};

/// The accumulators, and which session each group belongs to.
pub(super) struct Current {
    plan: Arc<GroupPlan>,
    accumulators: Accumulators,
    /// The session of each group; none if the group was folded into another.
    sessions: Vec<u32>,
    /// Of each group: itself, or the group that it was folded into.
    folded: Vec<u32>,
    is_folded: bool,
    /// The key columns of the groups, in pieces.
    keys: Vec<Vec<ArrayRef>>,
    key_bytes: usize,
    /// No session here ends before this.
    first_end: i64,
}

impl Current {
    pub(super) fn new(plan: &Arc<GroupPlan>) -> Result<Self> {
        Ok(Self {
            plan: Arc::clone(plan),
            accumulators: Accumulators::new(plan)?,
            sessions: Vec::new(),
            folded: Vec::new(),
            is_folded: false,
            keys: Vec::new(),
            key_bytes: 0,
            first_end: i64::MAX,
        })
    }

    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// No session here ends before this.
    pub(super) fn first_end(&self) -> i64 {
        self.first_end
    }

    /// Says that a session here may end at `end`.
    pub(super) fn may_end_at(&mut self, end: i64) {
        self.first_end = self.first_end.min(end);
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        if self.sessions.is_empty() {
            return 0;
        }
        let groups = (self.sessions.capacity() + self.folded.capacity()) * size_of::<u32>();
        self.accumulators.bytes() + self.key_bytes + groups
    }

    /// A group for `session`. Its key comes with the next [`Self::add_keys`].
    pub(super) fn add(&mut self, session: u32) -> Result<u32> {
        let group = u32::try_from(self.sessions.len()).ok().filter(|group| *group != NONE);
        let group = group.ok_or_else(|| Error::resource("more than four billion open sessions"))?;
        self.sessions.push(session);
        self.folded.push(group);
        Ok(group)
    }

    /// The keys of the groups that the batch at hand opened: `rows` of `columns`, in the order of the groups.
    pub(super) fn add_keys(&mut self, columns: &[ArrayRef], rows: Vec<u32>) -> Result<()> {
        if rows.is_empty() || columns.is_empty() {
            return Ok(());
        }
        let rows = UInt32Array::from(rows);
        let taken = columns.iter().map(|column| take(column, &rows, None));
        let taken = taken.collect::<std::result::Result<Vec<_>, _>>()?;
        self.key_bytes += taken.iter().map(|column| column.get_buffer_memory_size()).sum::<usize>();
        self.keys.push(taken);
        Ok(())
    }

    /// What group `from` has belongs to group `into`, now and later.
    pub(super) fn fold(&mut self, from: u32, into: u32) {
        if let (Some(folded), Some(session)) =
            (self.folded.get_mut(from as usize), self.sessions.get_mut(from as usize))
        {
            (*folded, *session) = (into, NONE);
            self.is_folded = true;
        }
    }

    /// Adds rows of the input.
    pub(super) fn update(&mut self, rows: &RecordBatch, groups: &[usize]) -> Result<()> {
        self.accumulators.update(rows, groups, self.sessions.len())
    }

    /// All sessions here with their partial states, one row each, and with what was `carried` from before, oldest
    /// first; nothing is left.
    pub(super) fn seal(&mut self, carried: &[Carried]) -> Result<(Vec<u32>, RecordBatch)> {
        let Self { plan, accumulators, sessions, folded, is_folded, keys, .. } =
            std::mem::replace(self, Self::new(&self.plan)?);
        let groups = sessions.len();
        let columns = (0..plan.key_schema().fields().len()).map(|column| join(&keys, column));
        let mut columns = columns.collect::<Result<Vec<_>>>()?;
        columns.extend(accumulators.seal(groups)?);
        let sealed = RecordBatch::try_new(plan.sealed_schema().clone(), columns)?;
        if !is_folded && carried.is_empty() {
            return Ok((sessions, sealed));
        }
        let mut folding = Folding::new(&plan, &folded)?;
        for part in carried {
            folding.add(&part.rows, part.groups.iter().copied())?;
        }
        folding.add(&sealed, 0..groups as u32)?;
        folding.finish(&sessions, &sealed)
    }
}

fn join(pieces: &[Vec<ArrayRef>], column: usize) -> Result<ArrayRef> {
    let pieces: Vec<&dyn Array> = pieces.iter().filter_map(|piece| piece.get(column)).map(AsRef::as_ref).collect();
    Ok(concat(&pieces)?)
}

/// Sealed rows whose state goes into groups.
pub(super) struct Carried {
    /// As they were sealed.
    pub(super) rows: RecordBatch,
    /// The group of each row.
    pub(super) groups: Vec<u32>,
}

/// Makes a row a session of a row a group, together with what the sessions had before.
///
/// Rows are numbered as their groups come up: DataFusion's accumulators take every group below the number that they are
/// told for one that has a value, if a batch has no NULL; to merge some groups alone would make NULLs values.
struct Folding {
    plan: Arc<GroupPlan>,
    accumulators: Accumulators,
    /// Of each group: where what it has is in the end.
    roots: Vec<u32>,
    /// The row of each root.
    rows: Vec<u32>,
    /// The root of each row.
    kept: Vec<u32>,
}

impl Folding {
    fn new(plan: &Arc<GroupPlan>, folded: &[u32]) -> Result<Self> {
        Ok(Self {
            plan: Arc::clone(plan),
            accumulators: Accumulators::new(plan)?,
            roots: (0..folded.len() as u32).map(|group| root(folded, group)).collect(),
            rows: vec![NONE; folded.len()],
            kept: Vec::new(),
        })
    }

    fn add(&mut self, sealed: &RecordBatch, groups: impl Iterator<Item = u32>) -> Result<()> {
        let rows: Option<Vec<usize>> = groups.map(|group| self.row_of(group)).collect();
        let rows = rows.ok_or_else(|| Error::internal("a session's group is missing"))?;
        self.accumulators.merge(sealed, &rows, self.kept.len())
    }

    fn row_of(&mut self, group: u32) -> Option<usize> {
        let root = *self.roots.get(group as usize)?;
        let row = self.rows.get_mut(root as usize)?;
        if *row == NONE {
            *row = self.kept.len() as u32;
            self.kept.push(root);
        }
        Some(*row as usize)
    }

    /// The sessions and their rows; `sealed` has the keys of the groups.
    fn finish(self, sessions: &[u32], sealed: &RecordBatch) -> Result<(Vec<u32>, RecordBatch)> {
        let sessions = self.kept.iter().filter_map(|group| sessions.get(*group as usize).copied()).collect();
        let kept = UInt32Array::from(self.kept);
        let keys = sealed.columns().iter().take(self.plan.key_schema().fields().len());
        let mut columns = keys.map(|key| take(key, &kept, None)).collect::<std::result::Result<Vec<_>, _>>()?;
        columns.extend(self.accumulators.seal(kept.len())?);
        Ok((sessions, RecordBatch::try_new(self.plan.sealed_schema().clone(), columns)?))
    }
}

/// Where what `group` has is in the end.
fn root(folded: &[u32], group: u32) -> u32 {
    let mut at = group;
    while let Some(next) = folded.get(at as usize).filter(|next| **next != at) {
        at = *next;
    }
    at
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use datafusion::functions_aggregate::count::count_udaf;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::col;

    use super::*;
    use crate::expression::NamedExpr;
    use crate::window::groups::AggregateCall;

    fn plan() -> Arc<GroupPlan> {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
        let k = col("k", &schema).unwrap();
        let key = NamedExpr::new(Arc::clone(&k), "k", &schema).unwrap();
        let count = AggregateExprBuilder::new(count_udaf(), vec![k]).schema(schema).alias("n").build().unwrap();
        Arc::new(GroupPlan::new(vec![key], vec![AggregateCall::new(Arc::new(count))]).unwrap())
    }

    fn rows(keys: &[i64]) -> RecordBatch {
        RecordBatch::try_from_iter([("k", Arc::new(Int64Array::from(keys.to_vec())) as ArrayRef)]).unwrap()
    }

    #[test]
    fn folded_groups_become_one_row_even_in_a_chain() {
        let mut current = Current::new(&plan()).unwrap();
        for session in 10..14 {
            current.add(session).unwrap();
        }
        let batch = rows(&[1, 1, 1, 2]);
        current.add_keys(batch.columns(), vec![0, 1, 2, 3]).unwrap();
        current.update(&batch, &[0, 1, 2, 3]).unwrap();
        // Session 10 swallows 11; then 12 swallows 10.
        current.fold(1, 0);
        current.fold(0, 2);
        current.update(&rows(&[1, 2, 2]), &[2, 3, 3]).unwrap();
        let (sessions, sealed) = current.seal(&[]).unwrap();
        assert_eq!(sessions, [12, 13]);
        assert_eq!(sealed.column(0).as_primitive::<Int64Type>().values(), &[1, 2]);
        assert_eq!(sealed.column(1).as_primitive::<Int64Type>().values(), &[4, 3]);
        assert_eq!((current.len(), current.bytes(), current.first_end()), (0, 0, i64::MAX));
    }

    #[test]
    fn what_is_carried_joins_its_group_and_no_other() {
        let mut current = Current::new(&plan()).unwrap();
        let batch = rows(&[5, 6, 7]);
        current.add_keys(batch.columns(), vec![0, 1, 2]).unwrap();
        (20..23).for_each(|session| assert!(current.add(session).is_ok()));
        current.update(&batch, &[0, 1, 2]).unwrap();
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![100, 1000]));
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![7, 6]));
        let sealed = RecordBatch::try_new(current.plan.sealed_schema().clone(), vec![keys, counts]).unwrap();
        let carried = [
            Carried { rows: sealed.slice(0, 1), groups: vec![2] },
            Carried { rows: sealed.slice(1, 1), groups: vec![1] },
        ];
        let (sessions, sealed) = current.seal(&carried).unwrap();
        assert_eq!(sessions, [22, 21, 20]);
        assert_eq!(sealed.column(0).as_primitive::<Int64Type>().values(), &[7, 6, 5]);
        assert_eq!(sealed.column(1).as_primitive::<Int64Type>().values(), &[101, 1001, 1]);
    }
}
