//! Aggregation by windows that share slices, HOP and CUMULATE: each row is accumulated once, in its slice, and a window
//! merges its slices when it fires.
//!
//! ```text
//! rows ─▶ open slices ─(snapshot, or its first window fires)─▶ sealed slices ─(each of its windows fires)─▶ results
//!                                                                  └─(its last window has fired)─▶ gone
//! ```
//!
//! The windows of CUMULATE that begin together hold one another, so what one has merged is kept for the next, which only
//! merges what came since ([`Continued`]). That is a matter of speed: state has the slices, and after a restore the first
//! window merges all of them again.
//!
//! A window has groups only where one of its slices has. Windows fire one after the other, in the order of their ends;
//! [`Fired`] is the cursor. Rows that skip the first windows of their slice are accumulated apart ([`PartlyLate`]).
//!
//! A snapshot seals the open slices. Of a window that is half out it keeps what has not left yet, under the window's end
//! in a table of its own, and stores the cursor as if the window had fired; what is still merging has emitted nothing
//! and begins again.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use ruslo_core::element::EndReason;
use ruslo_core::epoch::Epoch;
use ruslo_core::equation::Equation;
use ruslo_core::error::{Error, Result};
use ruslo_core::memory::batch_bytes;
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress};
use ruslo_core::state::OperatorState;
use ruslo_core::time::Timestamp;

use super::fired::Fired;
use super::firing::Firing;
use super::groups::GroupSet;
use super::partition::SliceKey;
use super::partly_late::PartlyLate;
use super::sealed::SealedWindows;
use super::shape::is_complete;
use super::spec::WindowAggregateSpec;
use super::tumble::emit_together;
use crate::pressure::{Holding, account};

/// The state table of windows that are half out: a bucket is a window's end. Stored in checkpoints.
const FIRING: &str = "firing";

/// The groups of a slice since they were last sealed.
struct OpenSlice {
    groups: GroupSet,
    bytes: usize,
}

/// The groups of the last window that fired, for the next one, which begins with all its slices.
struct Continued {
    /// The end of the window that they are of.
    through: i64,
    /// One row a group.
    groups: RecordBatch,
    bytes: usize,
}

pub(super) struct SlicedAggregate {
    spec: WindowAggregateSpec,
    open: BTreeMap<SliceKey, OpenSlice>,
    open_bytes: usize,
    sealed: SealedWindows,
    partly_late: PartlyLate,
    fired: Fired,
    /// Windows that were half out when the state was stored: the ends of their buckets.
    half_out: Vec<i64>,
    firing: Option<Firing>,
    continued: Option<Continued>,
    /// As the windows' clock shows it.
    watermark: Timestamp,
}

impl SlicedAggregate {
    pub(super) fn new(spec: WindowAggregateSpec) -> Self {
        Self {
            sealed: SealedWindows::new(Arc::clone(&spec.plan)),
            partly_late: PartlyLate::new(Arc::clone(&spec.plan)),
            spec,
            open: BTreeMap::new(),
            open_bytes: 0,
            fired: Fired::new(),
            half_out: Vec::new(),
            firing: None,
            continued: None,
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

    /// Adds rows of a slice.
    fn update(&mut self, key: SliceKey, rows: &RecordBatch) -> Result<()> {
        if self.is_complete(key.from) {
            return Err(Error::internal(format!(
                "rows of the window that ends at {} came after the watermark {}, though not late for their split",
                Timestamp(key.from),
                self.watermark
            )));
        }
        let slice = match self.open.entry(key) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(OpenSlice { groups: GroupSet::new(&self.spec.plan)?, bytes: 0 })
            }
        };
        self.spec.add(&mut slice.groups, rows)?;
        let before = std::mem::replace(&mut slice.bytes, slice.groups.bytes());
        self.open_bytes = self.open_bytes - before + slice.bytes;
        Ok(())
    }

    /// Seals the open slices that end up to `end`.
    fn seal(&mut self, end: i64, state: &mut dyn OperatorState) -> Result<()> {
        let later = match end.checked_add(1) {
            Some(next) => self.open.split_off(&SliceKey { end: next, from: i64::MIN }),
            None => BTreeMap::new(),
        };
        for (key, slice) in std::mem::replace(&mut self.open, later) {
            self.open_bytes -= slice.bytes;
            if key.from == key.end {
                self.sealed.seal(key.end, slice.groups, state)?;
            } else {
                self.partly_late.seal(key, slice.groups, state)?;
            }
        }
        Ok(())
    }

    /// The end of the next window to fire that is complete and has rows.
    fn due(&self) -> Option<i64> {
        let next = self.fired.last().saturating_add(self.spec.shape.slice_ms());
        let has_fired = self.fired.last() > i64::MIN;
        if has_fired && !self.is_complete(next) {
            return None;
        }
        let sealed = self.sealed.first_end();
        let opened = self.open.keys().map(|key| key.from).chain(self.partly_late.keys().map(|key| key.from));
        let first = sealed.into_iter().chain(opened).min()?;
        let first = if has_fired { first.max(next) } else { first };
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
            if done { self.finish(firing, ctx.state) } else { self.firing = Some(firing) }
        }
        emit_together(&batches, out)?;
        account(self, ctx)?;
        let done = self.firing.is_none() && self.half_out.is_empty() && self.due().is_none();
        Ok(if done { Progress::Done } else { Progress::More })
    }

    fn next_firing(&mut self, ctx: &mut OperatorContext<'_>) -> Result<Option<Firing>> {
        if let Some(firing) = self.firing.take() {
            return Ok(Some(firing));
        }
        if let Some(end) = self.half_out.first().copied() {
            let parts = ctx.state.buckets(FIRING).scan(end)?;
            return Ok(Some(Firing::of_stored(end, GroupSet::new(&self.spec.plan)?, parts)));
        }
        let Some(end) = self.due() else { return Ok(None) };
        self.seal(end, ctx.state)?;
        let start = self.spec.shape.window_start(end);
        let before = self.continued.take().filter(|before| start < before.through && before.through < end);
        let through = before.as_ref().map_or(start, |before| before.through);
        let late = self.partly_late.parts(start, through, end);
        let parts = self.sealed.parts(through, end, ctx.state)?.into_iter().chain(late);
        let parts = parts.map(|part| self.fired.due(end, part, &self.spec.plan)).collect::<Result<_>>()?;
        let groups = GroupSet::new(&self.spec.plan)?;
        // What is on disk is held by the firing alone.
        let firing = if self.sealed.bytes() > 0 { Firing::of_stored } else { Firing::new }(end, groups, parts);
        Ok(Some(firing.continuing(before.map(|before| before.groups), self.is_continued(end))))
    }

    /// Whether the window after the one that ends at `end` goes on from its groups: not while some key groups have come
    /// further than others, because they aren't in them.
    fn is_continued(&self, end: i64) -> bool {
        let next = end.saturating_add(self.spec.shape.slice_ms());
        self.spec.shape.continues(next) && self.fired.is_even()
    }

    /// A window is out: what only it and earlier ones needed goes.
    fn finish(&mut self, firing: Firing, state: &mut dyn OperatorState) {
        let end = firing.end;
        state.buckets(FIRING).expire(end);
        if self.half_out.first() == Some(&end) {
            // The cursor is behind it already.
            self.half_out.remove(0);
            return;
        }
        let kept = firing.into_merged().map(|groups| (batch_bytes(&groups), groups));
        self.continued = kept.map(|(bytes, groups)| Continued { through: end, groups, bytes });
        self.fired.advance(end);
        self.expire(end, state);
    }

    /// Forgets the slices whose last window ends at `end` or before.
    fn expire(&mut self, end: i64, state: &mut dyn OperatorState) {
        let is_over = |slice: &i64| self.spec.shape.last_end(*slice) <= end;
        // Later slices have later windows: the first that is not over ends the search.
        let over: Vec<i64> = self.sealed.ends().take_while(is_over).collect();
        let late: Vec<i64> = self.partly_late.keys().map(|key| key.end).take_while(is_over).collect();
        over.into_iter().for_each(|slice| self.sealed.expire(slice, state));
        late.into_iter().for_each(|slice| self.partly_late.expire(slice, state));
    }

    /// Stores what a window that is half out still has to emit; gives its end.
    fn store_firing(&self, state: &mut dyn OperatorState) -> Result<Option<i64>> {
        let Some((end, rest)) = self.firing.as_ref().and_then(|firing| Some((firing.end, firing.rest()?))) else {
            return Ok(None);
        };
        let table = state.buckets(FIRING);
        table.expire(end);
        table.append(end, &self.spec.plan.key_groups(rest)?, rest)?;
        let is_restored = self.half_out.first() == Some(&end);
        Ok((!is_restored).then_some(end))
    }
}

impl Holding for SlicedAggregate {
    fn held_bytes(&self, ctx: &mut OperatorContext<'_>) -> usize {
        let firing = self.firing.as_ref().map_or(0, Firing::bytes) + ctx.state.buckets(FIRING).bytes();
        let continued = self.continued.as_ref().map_or(0, |continued| continued.bytes);
        self.open_bytes + self.sealed.bytes() + self.partly_late.bytes() + firing + continued
    }

    fn put_away(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        // What CUMULATE goes on from can be merged again.
        self.continued = None;
        for (key, slice) in std::mem::take(&mut self.open) {
            self.open_bytes -= slice.bytes;
            if key.from == key.end {
                self.sealed.put_away(key.end, slice.groups, ctx.state)?;
            } else {
                self.partly_late.seal(key, slice.groups, ctx.state)?;
            }
        }
        Ok(())
    }

    fn look_again(&mut self, ctx: &mut OperatorContext<'_>) {
        self.sealed.look_again(ctx.state);
        self.partly_late.look_again(ctx.state);
    }
}

impl Operator for SlicedAggregate {
    fn equation(&self) -> Equation {
        Equation::Keeps
    }

    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        self.raise(ctx.watermark);
        self.sealed.open(ctx.state);
        self.partly_late.open(ctx.state)?;
        self.fired.open(ctx.subtask.key_groups(), ctx.state)?;
        self.half_out = ctx.state.buckets(FIRING).buckets();
        self.expire(self.fired.last(), ctx.state);
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
            self.update(*slice, rows)?;
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
        self.seal(i64::MAX, ctx.state)?;
        let half_out = self.store_firing(ctx.state)?;
        self.fired.store(half_out, ctx.state)?;
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
    use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
    use datafusion::functions_aggregate::count::count_udaf;
    use datafusion::physical_expr::aggregate::AggregateExprBuilder;
    use datafusion::physical_expr::expressions::col;

    use super::*;
    use crate::expression::NamedExpr;
    use crate::testing::{TestContext, run_batch};
    use crate::window::{AggregateCall, WindowShape};

    const KEYS: i64 = 20;

    fn schema() -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Millisecond, None);
        Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true), Field::new("ts", time, true)]))
    }

    fn operator(shape: WindowShape) -> Box<dyn Operator> {
        let k = col("k", &schema()).unwrap();
        let key = NamedExpr::new(Arc::clone(&k), "k", &schema()).unwrap();
        let count = AggregateExprBuilder::new(count_udaf(), vec![k]).schema(schema()).alias("n").build().unwrap();
        let calls = vec![AggregateCall::new(Arc::new(count))];
        WindowAggregateSpec::new(&schema(), vec![key], calls, 1, shape).unwrap().factory().create().unwrap()
    }

    /// Fires a window of so many steps, with rows of all keys in each; how many pieces of work it took, and all counts.
    fn fire(shape: fn(i64, i64, i64) -> Result<WindowShape>, steps: i64) -> (usize, i64) {
        let mut operator = operator(shape(10, 10 * steps, 0).unwrap());
        let mut test = TestContext::new();
        test.batch_rows = KEYS as usize;
        let rows = (0..steps).flat_map(|step| (0..KEYS).map(move |key| (key, step * 10)));
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.clone().map(|row| row.0)));
        let times: ArrayRef = Arc::new(TimestampMillisecondArray::from_iter_values(rows.map(|row| row.1)));
        run_batch(operator.as_mut(), RecordBatch::try_new(schema(), vec![keys, times]).unwrap(), &mut test).unwrap();
        test.watermark = Timestamp(10 * steps - 1);
        let (mut out, mut pieces) = (Output::default(), 1);
        let mut progress = operator.on_watermark(test.watermark, &mut test.context(), &mut out).unwrap();
        while progress == Progress::More {
            progress = operator.resume(&mut test.context(), &mut out).unwrap();
            pieces += 1;
        }
        let count = |batch: &RecordBatch| batch.column(1).as_primitive::<Int64Type>().values().iter().sum::<i64>();
        (pieces, out.take().iter().map(|(_, batch)| count(batch)).sum())
    }

    #[test]
    fn the_work_of_cumulate_grows_with_its_steps_and_not_with_their_square() {
        for steps in [4, 64, 256] {
            let (pieces, counted) = fire(WindowShape::cumulate, steps);
            // Each step merges its own slice and what came before, and emits: three pieces of all keys, or a little more.
            assert!(pieces <= 4 * steps as usize, "{pieces} pieces for {steps} steps");
            // The step that ends after n slices counts n rows of each key.
            assert_eq!(counted, KEYS * steps * (steps + 1) / 2);
        }
        let (pieces, counted) = fire(WindowShape::hop, 64);
        assert_eq!(counted, KEYS * 64 * 65 / 2);
        assert!(pieces > 64 * 64 / 2, "a window of HOP merges its slices: {pieces}");
    }

    #[test]
    fn what_is_kept_for_the_next_step_goes_with_the_last_and_after_a_restore_is_found_again() {
        let mut operator = self::operator(WindowShape::cumulate(10, 40, 0).unwrap());
        let mut test = TestContext::new();
        let row = |key: i64, time: i64| {
            let columns: Vec<ArrayRef> =
                vec![Arc::new(Int64Array::from(vec![key])), Arc::new(TimestampMillisecondArray::from(vec![time]))];
            RecordBatch::try_new(schema(), columns).unwrap()
        };
        let fire = |operator: &mut dyn Operator, test: &mut TestContext, at: i64| {
            let made = crate::testing::run_watermark(operator, Timestamp(at), test).unwrap();
            let column =
                |batch: &RecordBatch, at: usize| batch.column(at).as_primitive::<Int64Type>().values().to_vec();
            let groups = made.iter().flat_map(|batch| column(batch, 0).into_iter().zip(column(batch, 1)));
            let mut groups: Vec<_> = groups.collect();
            groups.sort_unstable();
            groups
        };
        run_batch(operator.as_mut(), row(1, 5), &mut test).unwrap();
        assert_eq!(fire(operator.as_mut(), &mut test, 9), [(1, 1)]);
        let kept = test.memory.bytes();
        run_batch(operator.as_mut(), row(2, 15), &mut test).unwrap();
        assert_eq!(fire(operator.as_mut(), &mut test, 19), [(1, 1), (2, 1)]);
        assert!(test.memory.bytes() > kept);
        operator.snapshot(Epoch(1), &mut test.context(), &mut Output::default()).unwrap();
        let mut restored = self::operator(WindowShape::cumulate(10, 40, 0).unwrap());
        restored.open(&mut test.context()).unwrap();
        run_batch(restored.as_mut(), row(1, 25), &mut test).unwrap();
        assert_eq!(fire(restored.as_mut(), &mut test, 29), [(1, 2), (2, 1)]);
        assert_eq!(fire(restored.as_mut(), &mut test, 39), [(1, 2), (2, 1)]);
        assert_eq!(test.memory.bytes(), 0);
    }
}
