//! Operators made wrong from outside: what goes in is changed, or what is restored.
//!
//! The names of state tables are part of the stored format, and so is what is in them; who forgets or changes that in a
//! restore has the bug of an operator that does not write or read it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, Int64Array, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use ruslo_core::element::EndReason;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::Result;
use ruslo_core::key_group::key_groups;
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::schema::{split_watermarks, visible, with_split_watermarks};
use ruslo_core::state::OperatorState;
use ruslo_core::time::Timestamp;

use crate::bug::{OperatorBug, planted_in_operators};
use crate::dataset::column;
use crate::nodes::Windows;
use crate::oracle::windows_of;
use crate::shape::Kind;

/// Which operator a bug is in.
fn concerns(bug: OperatorBug, kind: Kind) -> bool {
    use OperatorBug as B;
    match kind {
        Kind::Window(Windows::Session) => {
            matches!(bug, B::ForgetOlderSessions | B::ForgetFiredSessions | B::SessionEndsAtLastRow | B::EqualIsLate)
        }
        Kind::Window(Windows::Hop(_) | Windows::Cumulate(_)) => {
            matches!(bug, B::SliceOfOneWindow | B::ForgetFiredWindows | B::PartlyLateForAll | B::PartlyLateForNone)
        }
        Kind::TopN(_) => matches!(bug, B::ForgetRanks | B::TiesAreOne | B::ForgetOlderRows),
        Kind::Local(_) => bug == B::KeepPartialGroups,
        Kind::Late(_) => bug == B::PartlyLateGoAside,
        Kind::Sort => matches!(bug, B::SortRunsAhead | B::ForgetSortedRows),
        _ => false,
    }
}

/// The operators of `factory`, with the planted bug if it is one of theirs.
pub fn sabotaged(factory: SharedFactory, kind: Kind, length_ms: i64) -> SharedFactory {
    match planted_in_operators().filter(|bug| concerns(*bug, kind)) {
        Some(bug) => Arc::new(move || Ok(Saboteur { inner: factory.create()?, bug, kind, length_ms })),
        None => factory,
    }
}

struct Saboteur {
    inner: Box<dyn Operator>,
    bug: OperatorBug,
    kind: Kind,
    length_ms: i64,
}

fn forget(state: &mut dyn OperatorState, table: &'static str) {
    let table = state.buckets(table);
    table.buckets().into_iter().for_each(|bucket| table.expire(bucket));
}

/// Of each key group's sessions, only what the newest bucket has stays.
fn forget_older(state: &mut dyn OperatorState, table: &'static str) {
    let table = state.buckets(table);
    table.buckets().into_iter().rev().skip(1).for_each(|bucket| table.expire(bucket));
}

/// Of each window's stored batches, only the last stays.
fn forget_older_rows(state: &mut dyn OperatorState) -> Result<()> {
    change_rows(state, |mut batches| batches.split_off(batches.len().saturating_sub(1)))
}

/// Rows that were ranked are not any more.
fn forget_ranks(state: &mut dyn OperatorState) -> Result<()> {
    let unranked = |batch: RecordBatch| {
        let mut columns = batch.columns().to_vec();
        let rank = columns.pop().unwrap();
        columns.push(new_null_array(rank.data_type(), batch.num_rows()));
        RecordBatch::try_new(batch.schema(), columns).unwrap()
    };
    change_rows(state, |batches| batches.into_iter().map(unranked).collect())
}

fn change_rows(state: &mut dyn OperatorState, change: impl Fn(Vec<RecordBatch>) -> Vec<RecordBatch>) -> Result<()> {
    let table = state.buckets("rows");
    for bucket in table.buckets() {
        let batches = change(table.scan(bucket)?);
        table.expire(bucket);
        for batch in batches {
            let groups = key_groups(&[Arc::clone(batch.column(column::KEY))], batch.num_rows())?;
            table.append(bucket, &groups, &batch)?;
        }
    }
    Ok(())
}

/// Rows whose key, value and window no row before them has.
fn without_ties(batch: &RecordBatch) -> Result<RecordBatch> {
    let column = |at: usize| batch.column(at).as_primitive::<Int64Type>().values();
    let (keys, values) = (column(column::KEY), column(column::VALUE));
    let (at, _) = batch.schema_ref().column_with_name(ruslo_operators::WINDOW_END).unwrap();
    let ends = batch.column(at).as_primitive::<TimestampMillisecondType>().values();
    let mut seen = BTreeSet::new();
    let keep: BooleanArray =
        keys.iter().zip(values).zip(ends).map(|((key, value), end)| Some(seen.insert((key, value, end)))).collect();
    Ok(filter_record_batch(batch, &keep)?)
}

impl Saboteur {
    fn restored(&self, state: &mut dyn OperatorState) -> Result<()> {
        match self.bug {
            OperatorBug::ForgetOlderSessions => forget_older(state, "sessions"),
            OperatorBug::ForgetFiredSessions | OperatorBug::ForgetFiredWindows => forget(state, "fired"),
            OperatorBug::ForgetSortedRows => forget(state, "sort_firing"),
            OperatorBug::ForgetRanks => forget_ranks(state)?,
            OperatorBug::ForgetOlderRows => forget_older_rows(state)?,
            _ => {}
        }
        Ok(())
    }

    fn input(&self, batch: RecordBatch) -> Result<RecordBatch> {
        match self.bug {
            OperatorBug::TiesAreOne => without_ties(&batch),
            OperatorBug::EqualIsLate => Self::marked(&batch, |_, mark| mark.saturating_add(1)),
            OperatorBug::PartlyLateForAll => self.partly_late(&batch, i64::MIN),
            OperatorBug::PartlyLateForNone | OperatorBug::PartlyLateGoAside => self.partly_late(&batch, i64::MAX),
            _ => Ok(batch),
        }
    }

    /// Rows that are late for some of their windows only get `mark` for their split's watermark.
    fn partly_late(&self, batch: &RecordBatch, mark: i64) -> Result<RecordBatch> {
        let (Kind::Window(windows) | Kind::Late(windows)) = self.kind else { return Ok(batch.clone()) };
        Self::marked(batch, |time, before| {
            let ends = windows_of(windows, time, self.length_ms).into_iter().map(|(_, end)| end - 1 <= before);
            let late: BTreeSet<_> = ends.collect();
            if late.len() == 2 { mark } else { before }
        })
    }

    /// Other watermarks, from each row's time and its own.
    fn marked(batch: &RecordBatch, mark: impl Fn(i64, i64) -> i64) -> Result<RecordBatch> {
        let Some(marks) = split_watermarks(batch) else { return Ok(batch.clone()) };
        let times = batch.column(column::TIME).as_primitive::<TimestampMillisecondType>().values();
        let marks = times.iter().zip(marks.values()).map(|(time, before)| mark(*time, *before));
        with_split_watermarks(&visible(batch), Int64Array::from_iter_values(marks))
    }

    /// How far the watermark is ahead of what it should be.
    fn ahead(&self, watermark: Timestamp) -> Timestamp {
        let ahead = match self.bug {
            OperatorBug::SessionEndsAtLastRow => self.length_ms,
            OperatorBug::SortRunsAhead => 40,
            _ => 0,
        };
        if watermark == Timestamp::MIN { watermark } else { Timestamp(watermark.millis().saturating_add(ahead)) }
    }

    /// A call of the operator, under a watermark that may be wrong, and what is done behind its back.
    fn call(
        &mut self,
        ctx: &mut OperatorContext<'_>,
        work: impl FnOnce(&mut dyn Operator, &mut OperatorContext<'_>) -> Result<Progress>,
    ) -> Result<Progress> {
        let watermark = ctx.watermark;
        ctx.watermark = self.ahead(watermark);
        let progress = work(self.inner.as_mut(), ctx);
        ctx.watermark = watermark;
        if self.bug == OperatorBug::SliceOfOneWindow && matches!(progress, Ok(Progress::Done)) {
            let slices = ctx.state.buckets("slices");
            let fired = slices.buckets().into_iter().filter(|end| end - 1 <= watermark.millis());
            fired.for_each(|end| slices.expire(end));
        }
        progress
    }
}

impl Operator for Saboteur {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        self.restored(ctx.state)?;
        self.call(ctx, |inner, ctx| inner.open(ctx).map(|()| Progress::More)).map(drop)
    }

    fn on_batch(
        &mut self,
        input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let batch = self.input(batch)?;
        self.call(ctx, |inner, ctx| inner.on_batch(input, batch, ctx, out))
    }

    fn on_watermark(
        &mut self,
        watermark: Timestamp,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let ahead = self.ahead(watermark);
        self.call(ctx, |inner, ctx| inner.on_watermark(ahead, ctx, out))
    }

    fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
        self.inner.output_watermark(watermark)
    }

    fn resume(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        self.call(ctx, |inner, ctx| inner.resume(ctx, out))
    }

    fn snapshot(&mut self, epoch: Epoch, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<()> {
        if self.bug == OperatorBug::KeepPartialGroups {
            return Ok(());
        }
        self.call(ctx, |inner, ctx| inner.snapshot(epoch, ctx, out).map(|()| Progress::More)).map(drop)
    }

    fn on_end(
        &mut self,
        input: InputId,
        reason: EndReason,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        self.call(ctx, |inner, ctx| inner.on_end(input, reason, ctx, out))
    }
}
