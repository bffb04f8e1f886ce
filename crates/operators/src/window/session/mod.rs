//! Session window aggregation: GROUP BY keys and session, one result row a session when it is complete.
//!
//! A row at `ts` is a window `[ts, ts + gap)`; windows of one key that overlap or touch are one session. A session is
//! `[start, last + gap)` by the times of its first and last row. A row is late if its time is before its split's
//! watermark just before it: rows may be equal to the watermark, so that `WATERMARK FOR ts AS ts` suits rows in order of
//! which some have the same time. A session fires when the watermark has passed its end, not when it has reached its
//! last millisecond as other windows do, because a row at exactly `last + gap` still touches it.
//!
//! **No accepted row can touch a session that has fired.** An accepted row has `ts ≥ w`, where `w` is its split's
//! watermark before it. The operator's watermark `W`, when the row arrives, is not above `w`: a split's watermark is
//! behind its rows on every edge. A fired session has `end < W ≤ w ≤ ts`, and `[ts, ts + gap)` touches it only if
//! `ts ≤ end`. For the same reason results, whose time is `end − 1`, are never late further down, if the watermark that
//! is forwarded is two less than the own: a session that fires at `W` had not fired at the `W' < W` before, so
//! `end ≥ W'` and `end − 1 > W' − 2`.
//!
//! ```text
//!            key → open sessions (directory)
//! rows ──────────────┐
//!                    ▼            seal, when one of them may end          fire, in the order of ends
//!   accumulators, a group a session (current) ────────▶ partial states, a row a session (generations) ────▶ results
//!                    ▲                                          │
//!                    └── the state of a session with new rows ──┘
//! ```
//!
//! Accumulators cannot give out single groups, sealed rows can. Sessions that are about to end must be sealed; but a row
//! that has just come belongs to a session that ends `gap` after it, so sealing is rare: about once in a gap. A snapshot
//! seals, too, and stores what is not stored yet ([`stored`]).

mod current;
mod directory;
mod generation;
mod stored;

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, TimestampMillisecondArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use ruslo_core::element::EndReason;
use ruslo_core::epoch::Epoch;
use ruslo_core::equation::Equation;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::{InputId, Operator, OperatorContext, OperatorFactory, Output, Progress, SharedFactory};
use ruslo_core::schema::{split_watermarks, visible};
use ruslo_core::time::Timestamp;

use self::current::{Carried, Current};
use self::directory::{Directory, NONE, Place};
use self::generation::{Generations, stored_schema, times, with_times};
use self::stored::Stored;
use super::clock::WindowClock;
use super::groups::{AggregateCall, GroupPlan};
use super::partition::time_column;
use super::with_window_fields;
use crate::StateTable;
use crate::expression::NamedExpr;
use crate::pressure::{Holding, account};

/// `SELECT keys, aggregates, window_start, window_end, window_time FROM TABLE(SESSION(..)) GROUP BY keys, window`;
/// cheap to clone.
#[derive(Debug, Clone)]
pub struct SessionSpec {
    plan: Arc<GroupPlan>,
    time_column: usize,
    gap_ms: i64,
    clock: WindowClock,
    stored: SchemaRef,
    schema: SchemaRef,
}

impl SessionSpec {
    /// Groups rows of `input` by `keys` and session: rows of one key whose TIMESTAMPs in column `time_column` are at
    /// most `gap_ms` milliseconds apart.
    ///
    /// The rows must come through an exchange by the columns that `keys` are.
    ///
    /// # Errors
    /// `Usage`, if the gap is not positive, a key cannot be one or an aggregate is not possible here; `Internal`, if
    /// the time column is no TIMESTAMP.
    pub fn new(
        input: &Schema,
        keys: Vec<NamedExpr>,
        aggregates: Vec<AggregateCall>,
        time_column: usize,
        gap_ms: i64,
    ) -> Result<Self> {
        match input.fields().get(time_column).map(|field| field.data_type()) {
            Some(DataType::Timestamp(..)) => {}
            other => return Err(Error::internal(format!("a session over a time column of type {other:?}"))),
        }
        if gap_ms <= 0 {
            return Err(Error::usage(format!("a session's gap must be at least 1 millisecond, not {gap_ms}")));
        }
        let plan = GroupPlan::new(keys, aggregates)?;
        let schema = Arc::new(with_window_fields(plan.result_schema(), WindowClock::plain()));
        let stored = stored_schema(plan.sealed_schema());
        Ok(Self { plan: Arc::new(plan), time_column, gap_ms, clock: WindowClock::plain(), stored, schema })
    }

    /// The same over a TIMESTAMP_LTZ: `window_start` and `window_end` are shown by `clock`, sessions stay the same.
    #[must_use]
    pub fn by(self, clock: WindowClock) -> Self {
        let schema = Arc::new(with_window_fields(self.plan.result_schema(), clock));
        Self { clock, schema, ..self }
    }

    /// The columns that come out: keys, aggregates, `window_start`, `window_end`, `window_time`.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The state table whose columns follow from this spec.
    pub fn state_table(&self) -> StateTable {
        (stored::SESSIONS, self.stored.clone())
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(SessionFactory { spec: self })
    }

    /// Result rows of sessions as they are stored.
    fn results(&self, stored: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = self.plan.results(stored)?;
        let (starts, lasts) = times(stored)?;
        let times: Vec<i64> = lasts.values().iter().map(|last| last.saturating_add(self.gap_ms - 1)).collect();
        // The millisecond after the last one, as the clock shows that: it may be set in between.
        let ends = times.iter().map(|time| self.clock.local(*time).saturating_add(1));
        let starts = starts.values().iter().map(|start| self.clock.local(*start));
        columns.push(Arc::new(TimestampMillisecondArray::from_iter_values(starts)) as ArrayRef);
        columns.push(Arc::new(TimestampMillisecondArray::from_iter_values(ends)));
        columns.push(self.clock.time_array(times));
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }
}

struct SessionFactory {
    spec: SessionSpec,
}

impl OperatorFactory for SessionFactory {
    fn create(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(SessionAggregate::new(self.spec.clone())?))
    }

    fn fresh_state(&self) -> Result<Option<RecordBatch>> {
        self.spec.plan.fresh().map(Some)
    }
}

/// A sealed row whose state is bound for a group.
struct Bound {
    generation: u32,
    row: u32,
    group: u32,
}

struct SessionAggregate {
    spec: SessionSpec,
    directory: Directory,
    current: Current,
    generations: Generations,
    stored: Stored,
    watermark: Timestamp,
    /// Of the batch at hand, kept for their memory: the key and the group of each row.
    row_keys: Vec<usize>,
    row_groups: Vec<usize>,
    touching: Vec<u32>,
    /// Of the batch at hand: the rows that opened a group.
    opened: Vec<u32>,
    /// What the sessions in the accumulators had before.
    bound: Vec<Bound>,
}

impl SessionAggregate {
    fn new(spec: SessionSpec) -> Result<Self> {
        Ok(Self {
            directory: Directory::new(spec.plan.key_schema().clone(), spec.gap_ms)?,
            current: Current::new(&spec.plan)?,
            spec,
            generations: Generations::default(),
            stored: Stored::default(),
            watermark: Timestamp::MIN,
            row_keys: Vec::new(),
            row_groups: Vec::new(),
            touching: Vec::new(),
            opened: Vec::new(),
            bound: Vec::new(),
        })
    }

    fn raise(&mut self, watermark: Timestamp) {
        self.watermark = self.watermark.max(watermark);
    }

    /// Sessions that end here or before are complete.
    fn complete_through(&self) -> i64 {
        match self.watermark {
            Timestamp::MAX => i64::MAX,
            Timestamp(millis) => millis.saturating_sub(1),
        }
    }

    /// Adds rows that are not late, at `times`.
    fn update(&mut self, rows: &RecordBatch, times: &[i64]) -> Result<()> {
        let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else { return Ok(()) };
        self.check(*first, *last)?;
        let keys = self.spec.plan.keys(rows)?;
        self.directory.intern(&keys, times.len(), &mut self.row_keys)?;
        self.assign(times)?;
        self.current.add_keys(&keys, std::mem::take(&mut self.opened))?;
        self.current.may_end_at(first.saturating_add(self.spec.gap_ms));
        self.current.update(rows, &self.row_groups)
    }

    fn check(&self, first: i64, last: i64) -> Result<()> {
        if first < self.watermark.millis() {
            return Err(Error::internal(format!(
                "a row at {} came after the watermark {}, though not late for its split",
                Timestamp(first),
                self.watermark
            )));
        }
        match last.checked_add(self.spec.gap_ms) {
            Some(_) => Ok(()),
            None => Err(Error::data(format!("the event time {last} ms is too far from 1970 for a session to end"))),
        }
    }

    /// Finds or opens the session of each row.
    fn assign(&mut self, times: &[i64]) -> Result<()> {
        let keys = std::mem::take(&mut self.row_keys);
        self.row_groups.clear();
        for ((row, key), time) in (0u32..).zip(&keys).zip(times) {
            let group = match self.directory.extend_only(*key, *time) {
                Some(group) => group,
                None => self.assign_with_care(row, *key, *time)?,
            };
            self.row_groups.push(group as usize);
        }
        self.row_keys = keys;
        Ok(())
    }

    /// The group of a row that may open a session, bridge several, or go on with a sealed one.
    fn assign_with_care(&mut self, row: u32, key: usize, time: i64) -> Result<u32> {
        let mut touching = std::mem::take(&mut self.touching);
        self.directory.touching(key, time, &mut touching);
        let group = match touching.split_first() {
            None => self.open(row, key, time)?,
            Some((session, others)) => {
                self.directory.extend(*session, time, time)?;
                let group = self.group_of(*session, row)?;
                for other in others {
                    self.absorb(*other, *session, group)?;
                }
                group
            }
        };
        self.touching = touching;
        Ok(group)
    }

    fn open(&mut self, row: u32, key: usize, time: i64) -> Result<u32> {
        let session = self.directory.open(key, time, time, Place::Group(NONE))?;
        let group = self.current.add(session)?;
        self.opened.push(row);
        self.directory.set_place(session, Place::Group(group))?;
        Ok(group)
    }

    /// The group of a session; a sealed one gets a group, into which its state goes.
    fn group_of(&mut self, session: u32, row: u32) -> Result<u32> {
        match self.directory.get(session)?.place {
            Place::Group(group) => Ok(group),
            place => {
                let group = self.current.add(session)?;
                self.opened.push(row);
                self.directory.set_place(session, Place::Group(group))?;
                self.bring(place, group);
                Ok(group)
            }
        }
    }

    /// Merges session `other` into `session`, whose group is `group`.
    fn absorb(&mut self, other: u32, session: u32, group: u32) -> Result<()> {
        let gone = self.directory.close(other)?;
        self.directory.extend(session, gone.start, gone.last)?;
        self.bring(gone.place, group);
        Ok(())
    }

    /// Sees to it that the state at `place` comes into `group`.
    fn bring(&mut self, place: Place, group: u32) {
        match place {
            Place::Group(from) => self.current.fold(from, group),
            Place::Sealed { generation, row } => {
                self.generations.carry(generation, row);
                self.bound.push(Bound { generation, row, group });
            }
            Place::Free => {}
        }
    }

    /// The sealed rows that the accumulators go on with, oldest first; they are let go.
    fn take_carried(&mut self) -> Result<Vec<Carried>> {
        self.bound.sort_by_key(|bound| bound.generation);
        let parts = std::mem::take(&mut self.bound);
        let parts = parts.chunk_by(|a, b| a.generation == b.generation).map(|part| {
            let generation = part.first().map_or(NONE, |first| first.generation);
            let rows = self.generations.take_carried(generation, part.iter().map(|bound| bound.row))?;
            Ok(Carried { rows, groups: part.iter().map(|bound| bound.group).collect() })
        });
        parts.collect()
    }

    /// Turns the accumulators into a generation.
    fn seal(&mut self) -> Result<()> {
        if self.current.len() > 0 {
            let carried = self.take_carried()?;
            let (sessions, sealed) = self.current.seal(&carried)?;
            let rows = with_times(&sealed, &self.spec.stored, &sessions, &self.directory)?;
            self.generations.add(rows, sessions, None, &mut self.directory)?;
        }
        self.generations.settle(&mut self.directory)?;
        self.directory.forget_stale_keys()
    }

    /// Fires complete sessions, at most a piece of `ctx.batch_rows` rows.
    fn advance(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        let through = self.complete_through();
        if self.current.first_end() <= through {
            self.seal()?;
        }
        let gap = self.spec.gap_ms;
        let due = self.generations.take_due(&mut self.directory, gap, through, ctx.batch_rows.max(1))?;
        if let Some(first) = due.first() {
            let stored = concat_batches(first.schema_ref(), &due)?;
            out.emit(self.spec.results(&stored)?);
        }
        let more = self.generations.has_due(&self.directory, gap, through);
        account(self, ctx)?;
        Ok(if more { Progress::More } else { Progress::Done })
    }
}

impl Holding for SessionAggregate {
    fn held_bytes(&self, _: &mut OperatorContext<'_>) -> usize {
        let bound = self.bound.capacity() * size_of::<Bound>();
        let own = self.directory.bytes() + self.current.bytes() + self.generations.bytes() + bound;
        own + self.stored.bytes()
    }

    /// Open sessions stay in memory: any row may meet them. Only what is stored twice leaves.
    fn put_away(&mut self, _: &mut OperatorContext<'_>) -> Result<()> {
        Ok(())
    }

    fn look_again(&mut self, ctx: &mut OperatorContext<'_>) {
        self.stored.look_again(ctx.state);
    }
}

/// The rows of `batch` that are not late, their times, and how many were late.
fn in_time(batch: &RecordBatch, time_index: usize) -> Result<(RecordBatch, arrow::buffer::ScalarBuffer<i64>, usize)> {
    let times = time_column(batch, time_index)?;
    let rows = visible(batch);
    let Some(marks) = split_watermarks(batch) else { return Ok((rows, times, 0)) };
    let keep: BooleanArray = times.iter().zip(marks.values()).map(|(time, mark)| Some(time >= mark)).collect();
    let late = rows.num_rows() - keep.true_count();
    if late == 0 {
        return Ok((rows, times, 0));
    }
    let rows = filter_record_batch(&rows, &keep)?;
    let times = time_column(&rows, time_index)?;
    Ok((rows, times, late))
}

impl Operator for SessionAggregate {
    fn equation(&self) -> Equation {
        Equation::Keeps
    }

    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        self.raise(ctx.watermark);
        let (plan, gap) = (&self.spec.plan, self.spec.gap_ms);
        self.stored.load(plan, gap, &mut self.directory, &mut self.generations, ctx.state)?;
        self.generations.settle(&mut self.directory)?;
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
        let (rows, times, late) = in_time(&batch, self.spec.time_column)?;
        ctx.metrics.late_rows.add(late);
        ctx.metrics.kept_rows.add(rows.num_rows());
        self.update(&rows, &times)?;
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

    /// A session fires when the watermark has passed its end, and its result's time is a millisecond before that.
    fn output_watermark(&self, watermark: Timestamp) -> Timestamp {
        match watermark {
            Timestamp::MAX => Timestamp::MAX,
            Timestamp(millis) => Timestamp(millis.saturating_sub(2)),
        }
    }

    fn resume(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        self.raise(ctx.watermark);
        self.advance(ctx, out)
    }

    fn snapshot(&mut self, epoch: Epoch, ctx: &mut OperatorContext<'_>, _out: &mut Output) -> Result<()> {
        self.seal()?;
        let through = self.complete_through();
        let due = self.generations.due_rows(&self.directory, self.spec.gap_ms, through)?;
        let epoch = i64::try_from(epoch.0).unwrap_or(i64::MAX);
        let at = (epoch, ctx.subtask.key_groups());
        self.stored.store(&self.spec.plan, &mut self.generations, &due, through, at, ctx.state)?;
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
mod tests;
