//! Aggregation by windows that share slices, HOP and CUMULATE: each row is accumulated once, in its slice, and a window
//! merges its slices when it fires.
//!
//! ```text
//! rows ─▶ open slices ─(snapshot, or its first window fires)─▶ sealed slices ─(each of its windows fires)─▶ results
//!                                                                  └─(its last window has fired)─▶ gone
//! ```
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
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress};
use ruslo_core::state::OperatorState;
use ruslo_core::time::Timestamp;

use super::fired::Fired;
use super::firing::Firing;
use super::groups::GroupSet;
use super::partition::{SliceKey, partition};
use super::partly_late::PartlyLate;
use super::sealed::SealedWindows;
use super::shape::is_complete;
use super::spec::WindowAggregateSpec;
use super::tumble::emit_together;

/// The state table of windows that are half out: a bucket is a window's end. Stored in checkpoints.
const FIRING: &str = "firing";

/// The groups of a slice since they were last sealed.
struct OpenSlice {
    groups: GroupSet,
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
        slice.groups.update(rows)?;
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
            if done { self.finish(firing.end, ctx.state) } else { self.firing = Some(firing) }
        }
        emit_together(&batches, out)?;
        self.account(ctx)?;
        let done = self.firing.is_none() && self.half_out.is_empty() && self.due().is_none();
        Ok(if done { Progress::Done } else { Progress::More })
    }

    fn next_firing(&mut self, ctx: &mut OperatorContext<'_>) -> Result<Option<Firing>> {
        if let Some(firing) = self.firing.take() {
            return Ok(Some(firing));
        }
        if let Some(end) = self.half_out.first().copied() {
            let parts = ctx.state.table(FIRING).scan(end);
            return Ok(Some(Firing::of_stored(end, GroupSet::new(&self.spec.plan)?, parts)));
        }
        let Some(end) = self.due() else { return Ok(None) };
        self.seal(end, ctx.state)?;
        let start = self.spec.shape.window_start(end);
        let parts = self.sealed.parts(start, end, ctx.state).into_iter().chain(self.partly_late.parts(start, end));
        let parts = parts.map(|part| self.fired.due(end, part, &self.spec.plan)).collect::<Result<_>>()?;
        Ok(Some(Firing::of_stored(end, GroupSet::new(&self.spec.plan)?, parts)))
    }

    /// A window is out: what only it and earlier ones needed goes.
    fn finish(&mut self, end: i64, state: &mut dyn OperatorState) {
        state.table(FIRING).expire(end);
        if self.half_out.first() == Some(&end) {
            // The cursor is behind it already.
            self.half_out.remove(0);
            return;
        }
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

    fn account(&self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        let firing = self.firing.as_ref().map_or(0, Firing::bytes) + ctx.state.table(FIRING).bytes();
        let bytes = (self.open_bytes + self.sealed.bytes() + self.partly_late.bytes() + firing) as u64;
        if bytes == ctx.memory.bytes() { Ok(()) } else { ctx.memory.resize(bytes) }
    }

    /// Stores what a window that is half out still has to emit; gives its end.
    fn store_firing(&self, state: &mut dyn OperatorState) -> Result<Option<i64>> {
        let Some((end, rest)) = self.firing.as_ref().and_then(|firing| Some((firing.end, firing.rest()?))) else {
            return Ok(None);
        };
        let table = state.table(FIRING);
        table.expire(end);
        table.append(end, &self.spec.plan.key_groups(rest)?, rest)?;
        let is_restored = self.half_out.first() == Some(&end);
        Ok((!is_restored).then_some(end))
    }
}

impl Operator for SlicedAggregate {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        self.raise(ctx.watermark);
        self.sealed.open(ctx.state);
        self.partly_late.open(ctx.state)?;
        self.fired.open(ctx.subtask.key_groups(), ctx.state);
        self.half_out = ctx.state.table(FIRING).buckets();
        self.expire(self.fired.last(), ctx.state);
        self.account(ctx)
    }

    fn on_batch(
        &mut self,
        _input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        self.raise(ctx.watermark);
        let rows = partition(&batch, self.spec.time_column, self.spec.shape)?;
        ctx.metrics.late_rows.add(rows.late_rows);
        for (slice, rows) in &rows.slices {
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
        self.account(ctx)
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
