//! Firing: from the groups of a complete window to its result rows, in bounded pieces.
//!
//! First the partial states of the window's slices are merged, then the groups leave, a piece at a time. Between two
//! pieces a firing can be sealed: what it gives then is everything that has not been emitted, and nothing else.
//! Turning the merged groups into one sealed batch is the one step that is not cut in pieces; it copies, no more.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::record_batch::RecordBatch;
use ruslo_core::error::Result;
use ruslo_core::memory::batch_bytes;

use super::groups::{GroupPlan, GroupSet};

/// One window's way out.
pub(super) struct Firing {
    /// The window's end.
    pub(super) end: i64,
    step: Step,
    /// Bytes of the sealed batches at hand.
    sealed_bytes: usize,
    keeps: bool,
    /// All groups, if they are kept.
    merged: Option<RecordBatch>,
}

enum Step {
    /// `parts` are still to be merged into `groups`.
    Merge {
        groups: GroupSet,
        parts: Vec<RecordBatch>,
    },
    /// One row a group, not emitted yet.
    Emit {
        sealed: RecordBatch,
    },
    Done,
}

/// What a piece of work came to.
pub(super) struct Piece {
    /// Result rows: keys and aggregates.
    pub(super) columns: Vec<ArrayRef>,
    /// How many result rows.
    pub(super) rows: usize,
    /// Rows merged or emitted; never more than asked for.
    pub(super) worked: usize,
    /// Whether the window is out.
    pub(super) done: bool,
}

impl Firing {
    /// Fires the window that ends at `end`: `groups` are in memory, `parts` were sealed before.
    pub(super) fn new(end: i64, groups: GroupSet, parts: Vec<RecordBatch>) -> Self {
        let sealed_bytes = parts.iter().map(batch_bytes).sum();
        Self { end, step: Step::Merge { groups, parts }, sealed_bytes, keeps: false, merged: None }
    }

    /// The same, with parts that state still holds and accounts for.
    pub(super) fn of_stored(end: i64, groups: GroupSet, parts: Vec<RecordBatch>) -> Self {
        Self { sealed_bytes: 0, ..Self::new(end, groups, parts) }
    }

    /// The same, going on from the groups of an earlier window, if there are any, and perhaps keeping its own for a later
    /// one: [`Self::into_merged`].
    pub(super) fn continuing(mut self, earlier: Option<RecordBatch>, keeps: bool) -> Self {
        self.keeps = keeps;
        if let (Some(earlier), Step::Merge { parts, .. }) = (earlier, &mut self.step) {
            self.sealed_bytes += batch_bytes(&earlier);
            // It is merged first.
            parts.push(earlier);
        }
        self
    }

    /// All groups of a window that is out, one row each, if it keeps them.
    pub(super) fn into_merged(self) -> Option<RecordBatch> {
        self.merged
    }

    /// What a window that has begun to emit has not emitted yet; `None` if it has not begun, or is out.
    pub(super) fn rest(&self) -> Option<&RecordBatch> {
        match &self.step {
            Step::Emit { sealed } => Some(sealed),
            Step::Merge { .. } | Step::Done => None,
        }
    }

    /// Merges or emits at most `rows_max` rows.
    pub(super) fn work(&mut self, plan: &Arc<GroupPlan>, rows_max: usize) -> Result<Piece> {
        match std::mem::replace(&mut self.step, Step::Done) {
            Step::Merge { groups, parts } => self.merge(groups, parts, rows_max),
            Step::Emit { sealed } => self.emit(plan, sealed, rows_max),
            Step::Done => Ok(Piece { columns: Vec::new(), rows: 0, worked: 0, done: true }),
        }
    }

    fn merge(&mut self, mut groups: GroupSet, mut parts: Vec<RecordBatch>, rows_max: usize) -> Result<Piece> {
        if let Some(part) = parts.pop() {
            let (now, later) = split(&part, rows_max);
            groups.merge(&now)?;
            parts.extend(later);
            self.step = Step::Merge { groups, parts };
            return Ok(Piece { columns: Vec::new(), rows: 0, worked: now.num_rows(), done: false });
        }
        let rows = groups.len();
        if rows == 0 {
            return Ok(Piece { columns: Vec::new(), rows, worked: 0, done: true });
        }
        if rows <= rows_max && !self.keeps {
            return Ok(Piece { columns: groups.results()?, rows, worked: rows, done: true });
        }
        let sealed = groups.seal()?;
        self.sealed_bytes = batch_bytes(&sealed);
        self.merged = self.keeps.then(|| sealed.clone());
        self.step = Step::Emit { sealed };
        Ok(Piece { columns: Vec::new(), rows: 0, worked: 0, done: false })
    }

    fn emit(&mut self, plan: &Arc<GroupPlan>, sealed: RecordBatch, rows_max: usize) -> Result<Piece> {
        let (now, later) = split(&sealed, rows_max);
        let done = later.is_none();
        if let Some(sealed) = later {
            self.step = Step::Emit { sealed };
        }
        Ok(Piece { columns: plan.results(&now)?, rows: now.num_rows(), worked: now.num_rows(), done })
    }

    /// What has not been emitted, as sealed batches; the firing goes on afterwards.
    pub(super) fn seal(&mut self, plan: &Arc<GroupPlan>) -> Result<Vec<RecordBatch>> {
        match std::mem::replace(&mut self.step, Step::Done) {
            Step::Merge { groups, parts } => {
                let mut left = parts.clone();
                let mut kept = GroupSet::new(plan)?;
                if groups.len() > 0 {
                    let sealed = groups.seal()?;
                    // What was merged stays merged, or frequent barriers would hold the window up for ever.
                    kept.merge(&sealed)?;
                    left.push(sealed);
                }
                self.step = Step::Merge { groups: kept, parts };
                Ok(left)
            }
            Step::Emit { sealed } => {
                self.step = Step::Emit { sealed: sealed.clone() };
                Ok(vec![sealed])
            }
            Step::Done => Ok(Vec::new()),
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        match &self.step {
            Step::Merge { groups, .. } => self.sealed_bytes + groups.bytes(),
            Step::Emit { .. } => self.sealed_bytes,
            Step::Done => 0,
        }
    }
}

/// The first `rows_max` rows, and the rest if there is one.
fn split(batch: &RecordBatch, rows_max: usize) -> (RecordBatch, Option<RecordBatch>) {
    let rows = batch.num_rows();
    let first = rows.min(rows_max);
    let rest = (first < rows).then(|| batch.slice(first, rows - first));
    (batch.slice(0, first), rest)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
        let k = NamedExpr::new(col("k", &schema).unwrap(), "k", &schema).unwrap();
        let count = AggregateExprBuilder::new(count_udaf(), vec![col("k", &schema).unwrap()])
            .schema(schema)
            .alias("n")
            .build()
            .unwrap();
        Arc::new(GroupPlan::new(vec![k], vec![AggregateCall::new(Arc::new(count))]).unwrap())
    }

    fn groups(plan: &Arc<GroupPlan>, keys: std::ops::Range<i64>) -> GroupSet {
        let mut groups = GroupSet::new(plan).unwrap();
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(keys));
        groups.update(&RecordBatch::try_from_iter([("k", keys)]).unwrap()).unwrap();
        groups
    }

    fn collect(piece: &Piece, into: &mut BTreeMap<i64, Vec<i64>>) {
        let [keys, counts] = &piece.columns[..] else { return };
        let values = |column: &ArrayRef| column.as_primitive::<Int64Type>().values().to_vec();
        for (key, count) in values(keys).into_iter().zip(values(counts)) {
            into.entry(key).or_default().push(count);
        }
    }

    #[test]
    fn every_group_leaves_once_whatever_is_sealed_between() {
        let plan = plan();
        for rows_max in [1, 3, 100] {
            for seal_every in [1, 2, 5, 1000] {
                let parts = vec![groups(&plan, 0..7).seal().unwrap(), groups(&plan, 3..12).seal().unwrap()];
                let mut firing = Firing::new(10, groups(&plan, 5..20), parts);
                let mut found = BTreeMap::new();
                let mut restores = 0;
                for step in 1..200 {
                    let piece = firing.work(&plan, rows_max).unwrap();
                    assert!(piece.worked <= rows_max);
                    collect(&piece, &mut found);
                    if piece.done {
                        break;
                    }
                    if step % seal_every == 0 {
                        let left = firing.seal(&plan).unwrap();
                        if step % 3 == 0 && restores < 5 {
                            // As after a restore: only what was sealed is left.
                            restores += 1;
                            firing = Firing::new(10, GroupSet::new(&plan).unwrap(), left);
                        }
                    }
                }
                let expected = (0..20).map(|key| {
                    let count = [0..7, 3..12, 5..20].iter().filter(|range| range.contains(&key)).count();
                    (key, vec![count as i64])
                });
                assert_eq!(found, expected.collect(), "{rows_max} rows, sealed every {seal_every}");
            }
        }
    }

    #[test]
    fn a_firing_knows_what_it_holds() {
        let plan = plan();
        let mut firing = Firing::new(10, groups(&plan, 0..100), Vec::new());
        assert!(firing.bytes() > 0);
        while !firing.work(&plan, 10).unwrap().done {
            assert!(firing.bytes() > 0);
        }
        assert_eq!(firing.bytes(), 0);
        assert!(firing.seal(&plan).unwrap().is_empty());
    }
}
