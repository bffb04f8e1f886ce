//! Tumbling window aggregation: GROUP BY keys and window, one result row a group when the window is complete.
//!
//! A *slice* holds the groups of one window that came since the last checkpoint, in one accumulator set. A snapshot
//! seals each slice once into an immutable batch of partial states and appends it to state under the window's end;
//! the accumulators are empty then. When the watermark completes a window, its sealed batches and its slice are merged
//! and leave in pieces ([`super::firing`]); state forgets them as the merging begins, and a snapshot in between puts
//! back exactly what has not left yet.
//!
//! The firing cursor is the watermark. After a restore, a window below it that still has rows was firing when the
//! barrier came: whatever is called next goes on with it.
//!
//! The order of groups within a window is unspecified, but the same for the same input. Sums of DOUBLE depend on the
//! order of additions in their last digits, so they may differ there between runs with other checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use ruslo_core::element::EndReason;
use ruslo_core::epoch::Epoch;
use ruslo_core::equation::Equation;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::{KEY_GROUPS, KeyGroup};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress};
use ruslo_core::time::Timestamp;

use super::firing::Firing;
use super::groups::GroupSet;
use super::sealed::SealedWindows;
use super::shape::is_complete;
use super::spec::WindowAggregateSpec;
use crate::pressure::{Holding, account, firing_bytes};

/// The groups of a window since the last checkpoint.
struct Slice {
    groups: GroupSet,
    bytes: usize,
}

pub(super) struct TumbleAggregate {
    spec: WindowAggregateSpec,
    /// By window end.
    slices: BTreeMap<i64, Slice>,
    slice_bytes: usize,
    sealed: SealedWindows,
    firing: Option<Firing>,
    /// The end of the key groups that it fires.
    fired_before: KeyGroup,
    /// As the windows' clock shows it.
    watermark: Timestamp,
}

impl TumbleAggregate {
    pub(super) fn new(spec: WindowAggregateSpec) -> Self {
        Self {
            sealed: SealedWindows::new(Arc::clone(&spec.plan)),
            spec,
            slices: BTreeMap::new(),
            slice_bytes: 0,
            firing: None,
            fired_before: KEY_GROUPS,
            watermark: Timestamp::MIN,
        }
    }

    fn raise(&mut self, watermark: Timestamp) {
        let local = self.spec.shape.clock().watermark(watermark.millis());
        self.watermark = self.watermark.max(Timestamp(local));
    }

    fn is_complete(&self, end: i64) -> bool {
        is_complete(end, self.watermark.millis())
    }

    /// Adds rows to the slice of the window that ends at `end`.
    fn update(&mut self, end: i64, rows: &RecordBatch) -> Result<()> {
        if self.is_complete(end) {
            return Err(Error::internal(format!(
                "rows of the window that ends at {} came after the watermark {}, though not late for their split",
                Timestamp(end),
                self.watermark
            )));
        }
        let slice = match self.slices.entry(end) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Slice { groups: GroupSet::new(&self.spec.plan)?, bytes: 0 })
            }
        };
        self.spec.add(&mut slice.groups, rows)?;
        let before = std::mem::replace(&mut slice.bytes, slice.groups.bytes());
        self.slice_bytes = self.slice_bytes - before + slice.bytes;
        Ok(())
    }

    /// The earliest complete window that still has rows.
    fn due(&self) -> Option<i64> {
        let slice = self.slices.keys().next().copied();
        let first = slice.into_iter().chain(self.sealed.first_end()).min()?;
        self.is_complete(first).then_some(first)
    }

    /// Fires complete windows, at most a piece of `ctx.batch_rows` rows.
    fn advance(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        let mut budget = ctx.batch_rows.max(1);
        let mut batches = Vec::new();
        while budget > 0
            && let Some(mut firing) = self.next_firing(ctx)?
        {
            let piece = firing.work(&self.spec.plan, budget)?;
            // A window without many rows is work, too.
            budget -= piece.worked.clamp(1, budget);
            let done = piece.done;
            if piece.rows > 0 {
                batches.push(self.spec.batch(firing.end, piece)?);
            }
            if done {
                // What a snapshot put back meanwhile goes.
                self.sealed.forget_before(firing.end, self.fired_before, ctx.state);
            } else {
                self.firing = Some(firing);
            }
        }
        emit_together(&batches, out)?;
        account(self, ctx)?;
        let done = self.firing.is_none() && self.due().is_none();
        Ok(if done { Progress::Done } else { Progress::More })
    }

    fn next_firing(&mut self, ctx: &mut OperatorContext<'_>) -> Result<Option<Firing>> {
        if let Some(firing) = self.firing.take() {
            return Ok(Some(firing));
        }
        let Some(end) = self.due() else { return Ok(None) };
        let slice = self.slices.remove(&end);
        self.slice_bytes -= slice.as_ref().map_or(0, |slice| slice.bytes);
        let bytes_max = firing_bytes(ctx);
        self.fired_before = self.sealed.groups_within(end, bytes_max, ctx.state);
        let groups = match slice.map(|slice| slice.groups) {
            Some(groups) if self.fired_before < KEY_GROUPS => {
                // Too much to fire at once: a part of the key groups after the other, of what is in the slice, too.
                self.sealed.put_away(end, groups, ctx.state)?;
                self.fired_before = self.sealed.groups_within(end, bytes_max, ctx.state);
                GroupSet::new(&self.spec.plan)?
            }
            Some(groups) => groups,
            None => GroupSet::new(&self.spec.plan)?,
        };
        let parts = self.sealed.take_before(end, self.fired_before, ctx.state)?;
        Ok(Some(Firing::new(end, groups, parts)))
    }
}

impl Holding for TumbleAggregate {
    fn held_bytes(&self, _: &mut OperatorContext<'_>) -> usize {
        let firing = self.firing.as_ref().map_or(0, Firing::bytes);
        self.slice_bytes + self.sealed.bytes() + firing
    }

    fn put_away(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        self.slice_bytes = 0;
        let mut slices = std::mem::take(&mut self.slices).into_iter();
        slices.try_for_each(|(end, slice)| self.sealed.put_away(end, slice.groups, ctx.state))
    }

    fn look_again(&mut self, ctx: &mut OperatorContext<'_>) {
        self.sealed.look_again(ctx.state);
    }
}

/// Many small windows leave as one batch.
pub(super) fn emit_together(batches: &[RecordBatch], out: &mut Output) -> Result<()> {
    match batches {
        [] => {}
        [one] => out.emit(one.clone()),
        [first, ..] => out.emit(concat_batches(first.schema_ref(), batches)?),
    }
    Ok(())
}

impl Operator for TumbleAggregate {
    fn equation(&self) -> Equation {
        Equation::Keeps
    }

    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        self.raise(ctx.watermark);
        self.sealed.open(ctx.state);
        account(self, ctx)
    }

    fn on_batch(
        &mut self,
        _input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        self.raise(ctx.watermark);
        let rows = self.spec.by_slice(&batch)?;
        ctx.metrics.late_rows.add(rows.late_rows);
        for (slice, rows) in &rows.slices {
            ctx.metrics.kept_rows.add(rows.num_rows());
            self.update(slice.end, rows)?;
        }
        self.advance(ctx, out)
    }

    fn on_watermark(
        &mut self,
        watermark: Timestamp,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        self.raise(watermark);
        self.advance(ctx, out)
    }

    fn resume(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        self.raise(ctx.watermark);
        self.advance(ctx, out)
    }

    fn snapshot(&mut self, _epoch: Epoch, ctx: &mut OperatorContext<'_>, _out: &mut Output) -> Result<()> {
        for (end, slice) in std::mem::take(&mut self.slices) {
            self.sealed.seal(end, slice.groups, ctx.state)?;
        }
        self.slice_bytes = 0;
        if let Some(firing) = &mut self.firing {
            let left = firing.seal(&self.spec.plan)?;
            self.sealed.replace_before(firing.end, self.fired_before, &left, ctx.state)?;
        }
        account(self, ctx)
    }

    fn on_end(
        &mut self,
        _input: InputId,
        reason: EndReason,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        match reason {
            EndReason::Drain => self.advance(ctx, out),
            // What is not out stays in state, for a resume.
            EndReason::Stop => Ok(Progress::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMillisecondArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType};
    use datafusion::functions_aggregate::count::count_udaf;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::{col, lit};
    use ruslo_core::error::ErrorKind;
    use ruslo_core::memory::MemoryPool;
    use ruslo_core::operator::Subtask;
    use ruslo_core::schema::with_split_watermarks;

    use super::*;
    use crate::expression::NamedExpr;
    use crate::testing::{TestContext, drain, run_batch, run_watermark};
    use crate::window::{AggregateCall, WindowShape};

    fn schema() -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("ts", time, true)]))
    }

    fn rows(rows: &[(i64, i64)]) -> RecordBatch {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0)));
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1)));
        RecordBatch::try_new(schema(), vec![keys, times]).unwrap()
    }

    fn count() -> AggregateCall {
        let built = AggregateExprBuilder::new(count_udaf(), vec![lit(1i64)]).schema(schema()).alias("n").build();
        AggregateCall::new(Arc::new(built.unwrap()))
    }

    fn spec(keys: &[&str], aggregates: Vec<AggregateCall>) -> WindowAggregateSpec {
        let keys = keys.iter().map(|key| NamedExpr::new(col(key, &schema()).unwrap(), *key, &schema()).unwrap());
        WindowAggregateSpec::new(&schema(), keys.collect(), aggregates, 1, WindowShape::tumble(10, 0).unwrap()).unwrap()
    }

    fn operator(keys: &[&str]) -> Box<dyn Operator> {
        spec(keys, vec![count()]).factory().create().unwrap()
    }

    fn snapshot(operator: &mut dyn Operator, test: &mut TestContext) {
        operator.snapshot(Epoch(1), &mut test.context(), &mut Output::default()).unwrap();
    }

    /// (key, count, window start) of each result row, as they came.
    fn results(batches: &[RecordBatch]) -> Vec<(i64, i64, i64)> {
        let column = |batch: &RecordBatch, at: usize| batch.column(at).as_primitive::<Int64Type>().values().to_vec();
        let mut found = Vec::new();
        for batch in batches {
            let starts = batch.column(2).as_primitive::<TimestampMillisecondType>().values();
            let counts = column(batch, 1);
            let keys = column(batch, 0);
            found.extend(keys.into_iter().zip(counts).zip(starts).map(|((key, count), start)| (key, count, *start)));
        }
        found
    }

    #[test]
    fn a_window_fires_when_the_watermark_reaches_its_last_millisecond() {
        let mut operator = operator(&["k"]);
        let mut test = TestContext::new();
        assert!(run_batch(operator.as_mut(), rows(&[(1, 3), (2, 9), (1, 10), (1, 0)]), &mut test).unwrap().is_empty());
        assert!(run_watermark(operator.as_mut(), Timestamp(8), &mut test).unwrap().is_empty());
        let made = run_watermark(operator.as_mut(), Timestamp(9), &mut test).unwrap();
        assert_eq!(made[0].schema(), spec(&["k"], vec![count()]).schema());
        assert_eq!(results(&made), vec![(1, 2, 0), (2, 1, 0)]);
        let made = run_watermark(operator.as_mut(), Timestamp::MAX, &mut test).unwrap();
        assert_eq!(results(&made), vec![(1, 1, 10)]);
        assert_eq!(test.memory.bytes(), 0);
    }

    #[test]
    fn many_small_windows_leave_as_one_batch_in_order() {
        let mut operator = operator(&["k"]);
        let mut test = TestContext::new();
        run_batch(operator.as_mut(), rows(&[(1, 30), (1, -10), (1, 10)]), &mut test).unwrap();
        let made = run_watermark(operator.as_mut(), Timestamp(100), &mut test).unwrap();
        assert_eq!(made.len(), 1);
        assert_eq!(results(&made), vec![(1, 1, -10), (1, 1, 10), (1, 1, 30)]);
    }

    #[test]
    fn late_rows_are_counted_and_change_nothing() {
        let mut operator = operator(&["k"]);
        let mut test = TestContext::new();
        let marks = Int64Array::from(vec![i64::MIN, 8, 9]);
        let batch = with_split_watermarks(&rows(&[(1, 5), (2, 5), (3, 5)]), marks).unwrap();
        run_batch(operator.as_mut(), batch, &mut test).unwrap();
        let made = run_watermark(operator.as_mut(), Timestamp(9), &mut test).unwrap();
        assert_eq!(results(&made), vec![(1, 1, 0), (2, 1, 0)]);
        assert_eq!(test.metrics.late_rows.get(), 1);
    }

    #[test]
    fn a_row_behind_the_watermark_that_is_not_late_is_our_fault() {
        let mut operator = operator(&["k"]);
        let mut test = TestContext::new();
        test.watermark = Timestamp(9);
        let error = run_batch(operator.as_mut(), rows(&[(1, 5)]), &mut test).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains("ends at 1970-01-01 00:00:00.010"), "{error}");
    }

    #[test]
    fn a_firing_cut_by_a_restore_goes_on_with_whatever_is_called_next() {
        for next in 0..4 {
            let mut operator = operator(&["k"]);
            let mut test = TestContext::new();
            test.batch_rows = 1;
            run_batch(operator.as_mut(), rows(&[(1, 1), (2, 2), (3, 3)]), &mut test).unwrap();
            test.watermark = Timestamp(9);
            let mut out = Output::default();
            let mut progress = operator.on_watermark(Timestamp(9), &mut test.context(), &mut out).unwrap();
            while out.take().is_empty() {
                assert_eq!(progress, Progress::More);
                progress = operator.resume(&mut test.context(), &mut out).unwrap();
            }
            snapshot(operator.as_mut(), &mut test);
            let mut restored = self::operator(&["k"]);
            let mut test = TestContext::with_state(Subtask { index: 0, parallelism: 1 }, test.state);
            test.watermark = Timestamp(9);
            restored.open(&mut test.context()).unwrap();
            let made = match next {
                0 => run_watermark(restored.as_mut(), Timestamp(10), &mut test).unwrap(),
                1 => run_batch(restored.as_mut(), rows(&[(1, 100)]), &mut test).unwrap(),
                2 => drain(restored.as_mut(), Progress::More, &mut test, &mut Output::default()).unwrap(),
                _ => {
                    let end = restored.on_end(0, EndReason::Drain, &mut test.context(), &mut out).unwrap();
                    drain(restored.as_mut(), end, &mut test, &mut out).unwrap()
                }
            };
            assert_eq!(results(&made), vec![(2, 1, 0), (3, 1, 0)]);
        }
    }

    #[test]
    fn stopping_leaves_windows_in_state() {
        let mut operator = operator(&["k"]);
        let mut test = TestContext::new();
        run_batch(operator.as_mut(), rows(&[(1, 1)]), &mut test).unwrap();
        snapshot(operator.as_mut(), &mut test);
        let mut out = Output::default();
        assert_eq!(operator.on_end(0, EndReason::Stop, &mut test.context(), &mut out).unwrap(), Progress::Done);
        assert!(out.take().is_empty());
        assert!(test.memory.bytes() > 0);
        let mut restored = self::operator(&["k"]);
        restored.open(&mut test.context()).unwrap();
        let made = run_watermark(restored.as_mut(), Timestamp::MAX, &mut test).unwrap();
        assert_eq!(results(&made), vec![(1, 1, 0)]);
    }

    #[test]
    fn windows_alone_are_a_result_too() {
        let mut operator = spec(&[], Vec::new()).factory().create().unwrap();
        let mut test = TestContext::new();
        run_batch(operator.as_mut(), rows(&[(1, 1), (2, 2), (1, 35)]), &mut test).unwrap();
        snapshot(operator.as_mut(), &mut test);
        let made = run_watermark(operator.as_mut(), Timestamp::MAX, &mut test).unwrap();
        let starts = made[0].column(0).as_primitive::<TimestampMillisecondType>();
        assert_eq!(starts.values(), &[0, 30]);
    }

    #[test]
    fn the_memory_limit_stops_it_and_names_it() {
        let mut operator = operator(&["k"]);
        let mut test = TestContext::new();
        test.pool = MemoryPool::new(4096);
        test.memory = test.pool.reserve("window 'k'");
        let all: Vec<_> = (0..10_000).map(|key| (key, 1)).collect();
        let error = run_batch(operator.as_mut(), rows(&all), &mut test).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Resource);
        assert!(error.to_string().contains("window 'k'"), "{error}");
    }

    #[test]
    fn a_null_time_is_the_datas_fault() {
        let mut operator = operator(&["k"]);
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![None]));
        let batch = RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(vec![1])), times]).unwrap();
        let error = run_batch(operator.as_mut(), batch, &mut TestContext::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
    }

    #[test]
    fn what_cannot_be_is_refused_when_planned() {
        let window = WindowShape::tumble(10, 0).unwrap();
        let error = WindowAggregateSpec::new(&schema(), Vec::new(), vec![count()], 0, window).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Int64, true)));
        let lists = Schema::new(vec![schema().field(1).clone(), Field::new("list", list, true)]);
        let key = NamedExpr::new(col("list", &lists).unwrap(), "list", &lists).unwrap();
        let error = WindowAggregateSpec::new(&lists, vec![key], vec![count()], 0, window).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("GROUP BY list"), "{error}");
    }
}
