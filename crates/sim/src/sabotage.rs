//! Operators made wrong from outside: what goes in is changed, or what is restored.
//!
//! The names of state tables are part of the stored format, and so is what is in them; who forgets or changes that in a
//! restore has the bug of an operator that does not write or read it.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Int64Type, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use ruslo_core::changelog::{RowKind, adds, row_kinds};
use ruslo_core::element::EndReason;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::Result;
use ruslo_core::key_group::key_groups;
use ruslo_core::keyed::TableSchema;
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::schema::{
    raise_split_watermarks, split_watermarks, visible, with_split_watermarks, without_split_watermarks,
};
use ruslo_core::state::OperatorState;
use ruslo_core::time::Timestamp;

use crate::bug::{OperatorBug, planted_in_operators};
use crate::changes::changes_of;
use crate::changing::Changing;
use crate::dataset::column;
use crate::joined::Timed;
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
        Kind::Timed(Timed { bounds: Some(_), .. }) => {
            matches!(bug, B::ForgetUnseen | B::ForgetPartners | B::JoinRunsAhead | B::NotHeldBack)
        }
        Kind::Timed(Timed { bounds: None, .. }) => matches!(bug, B::LateAreJoined | B::WindowJoinRunsAhead),
        Kind::Temporal(_) => {
            matches!(bug, B::VersionsRunAhead | B::ForgetWaiting | B::ForgetOnTheirWay | B::ForgetVersions)
                || matches!(bug, B::EndedIsValid | B::LateVersionsAreOnTime | B::VersionBehindItsTime)
        }
        Kind::Changing(changing) => match changing {
            Changing::Join { .. } => matches!(bug, B::ForgetUnjoined | B::TakenBackIsAdded),
            Changing::Group { key: None, .. } if bug == B::TakenIsLost => true,
            Changing::Group { .. } => matches!(bug, B::BeforeIsLost | B::AfterBeforeBefore),
            Changing::Ranked { .. } => matches!(bug, B::EqualRowsAreOne | B::TakenBackIsRanked),
            Changing::Last(_) => bug == B::ForgetLastRows,
            Changing::Materialize(_) => bug == B::GoneStands,
            Changing::Half(takes) => takes && bug == B::HalfIsLate,
        },
        _ => false,
    }
}

/// The operators of `factory`, with the planted bug if it is one of theirs.
pub fn sabotaged(factory: SharedFactory, kind: Kind, length_ms: i64) -> SharedFactory {
    match planted_in_operators().filter(|bug| concerns(*bug, kind)) {
        Some(bug) => Arc::new(move || Ok(Saboteur { inner: factory.create()?, bug, kind, length_ms, held: None })),
        None => factory,
    }
}

struct Saboteur {
    inner: Box<dyn Operator>,
    bug: OperatorBug,
    kind: Kind,
    length_ms: i64,
    /// What [`OperatorBug::HalfIsLate`] has not given out.
    held: Option<RecordBatch>,
}

/// Whether changes between these go to any subtask.
pub fn goes_in_turn(from: Kind, to: Kind) -> bool {
    let is_planted = planted_in_operators() == Some(OperatorBug::ChangesGoInTurn);
    is_planted && matches!((from, to), (Kind::Changing(_), Kind::Sink(_)))
}

fn forget(state: &mut dyn OperatorState, table: &'static str) {
    let table = state.buckets(table);
    table.buckets().into_iter().for_each(|bucket| table.expire(bucket));
}

/// All rows of a keyed table, which is open.
fn forget_keyed(ctx: &mut OperatorContext<'_>, name: &'static str) -> Result<()> {
    let table = ctx.state.keyed(name, &TableSchema::value(Vec::new(), Vec::new()))?;
    for group in ctx.subtask.key_groups() {
        let keys = table.keys(group)?;
        if keys.first().is_some_and(|column| !column.is_empty()) {
            table.remove(&keys)?;
        }
    }
    Ok(())
}

/// Of changes those of which `keep` says so, by their kinds.
fn kinds_that(batch: &RecordBatch, keep: impl Fn(i8) -> bool) -> Result<RecordBatch> {
    let Some(kinds) = row_kinds(batch) else { return Ok(batch.clone()) };
    let keep: BooleanArray = kinds.values().iter().map(|kind| Some(keep(*kind))).collect();
    Ok(filter_record_batch(batch, &keep)?)
}

/// Each row that no row before it equals, kinds and all.
fn each_once(batch: &RecordBatch) -> Result<RecordBatch> {
    let mut seen = BTreeSet::new();
    let keep: BooleanArray = changes_of(batch).into_iter().map(|row| Some(seen.insert(row))).collect();
    Ok(filter_record_batch(batch, &keep)?)
}

/// What is there before what is not.
fn additions_first(batch: &RecordBatch) -> Result<RecordBatch> {
    let parts = [kinds_that(batch, adds)?, kinds_that(batch, |kind| !adds(kind))?];
    if row_kinds(batch).is_none() { Ok(batch.clone()) } else { Ok(concat_batches(&batch.schema(), &parts)?) }
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
            OperatorBug::ForgetUnseen => {
                ["left_pending", "right_pending"].into_iter().for_each(|table| forget(state, table))
            }
            OperatorBug::ForgetPartners => {
                ["left_matched", "right_matched"].into_iter().for_each(|table| forget(state, table))
            }
            OperatorBug::ForgetWaiting => forget(state, "as_of_left"),
            OperatorBug::ForgetOnTheirWay => {
                ["as_of_left_firing", "as_of_right_firing"].into_iter().for_each(|table| forget(state, table))
            }
            OperatorBug::ForgetUnjoined => {
                ["join_left_rest", "join_right_rest"].into_iter().for_each(|table| forget(state, table))
            }
            OperatorBug::ForgetRanks => forget_ranks(state)?,
            OperatorBug::ForgetOlderRows => forget_older_rows(state)?,
            _ => {}
        }
        Ok(())
    }

    fn input(&self, input: InputId, batch: RecordBatch) -> Result<RecordBatch> {
        match self.bug {
            OperatorBug::EndedIsValid | OperatorBug::LateVersionsAreOnTime | OperatorBug::VersionBehindItsTime
                if input == 0 =>
            {
                Ok(batch)
            }
            OperatorBug::EndedIsValid => kinds_that(&batch, adds),
            OperatorBug::LateVersionsAreOnTime => Self::marked(&batch, |_, _| i64::MIN),
            OperatorBug::VersionBehindItsTime => {
                Self::marked(&raise_split_watermarks(batch, i64::MIN)?, |time, before| time.max(before))
            }
            OperatorBug::TiesAreOne => without_ties(&batch),
            OperatorBug::LateAreJoined => Self::marked(&batch, |_, _| i64::MIN),
            OperatorBug::TakenBackIsAdded => Ok(visible(&batch)),
            OperatorBug::BeforeIsLost => kinds_that(&batch, |kind| kind != RowKind::UpdateBefore.number()),
            OperatorBug::TakenBackIsRanked | OperatorBug::GoneStands | OperatorBug::TakenIsLost => {
                kinds_that(&batch, adds)
            }
            OperatorBug::EqualRowsAreOne => each_once(&batch),
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
        with_split_watermarks(&without_split_watermarks(batch), Int64Array::from_iter_values(marks))
    }

    /// How far the watermark is ahead of what it should be.
    fn ahead(&self, watermark: Timestamp) -> Timestamp {
        let ahead = match self.bug {
            OperatorBug::SessionEndsAtLastRow => self.length_ms,
            OperatorBug::SortRunsAhead => 40,
            OperatorBug::JoinRunsAhead | OperatorBug::VersionsRunAhead => 1_500,
            OperatorBug::WindowJoinRunsAhead => self.length_ms / 2 + 1,
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
        let _ = self.call(ctx, |inner, ctx| inner.open(ctx).map(|()| Progress::More))?;
        match (self.bug, self.kind) {
            (OperatorBug::ForgetLastRows, Kind::Changing(Changing::Last(None))) => forget_keyed(ctx, "last_counts"),
            (OperatorBug::ForgetLastRows, _) => forget_keyed(ctx, "last_rows"),
            (OperatorBug::ForgetVersions, _) => forget_keyed(ctx, "as_of_versions"),
            _ => Ok(()),
        }
    }

    fn on_batch(
        &mut self,
        input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let batch = self.input(input, batch)?;
        if self.bug == OperatorBug::HalfIsLate {
            return match self.held.replace(batch) {
                Some(held) => self.call(ctx, |inner, ctx| inner.on_batch(input, held, ctx, out)),
                None => Ok(Progress::Done),
            };
        }
        if self.bug == OperatorBug::AfterBeforeBefore {
            let mut made = Output::default();
            let progress = self.call(ctx, |inner, ctx| inner.on_batch(input, batch, ctx, &mut made))?;
            made.take().into_iter().try_for_each(|(_, batch)| additions_first(&batch).map(|batch| out.emit(batch)))?;
            return Ok(progress);
        }
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
        if self.bug == OperatorBug::NotHeldBack { watermark } else { self.inner.output_watermark(watermark) }
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
        if let (Some(held), EndReason::Drain) = (self.held.take(), reason) {
            let _ = self.call(ctx, |inner, ctx| inner.on_batch(input, held, ctx, out))?;
        }
        self.call(ctx, |inner, ctx| inner.on_end(input, reason, ctx, out))
    }
}
