//! OVER: each row with what a function makes of the rows before it, of the same key.
//!
//! By event time, rows wait in their order ([`EventTimeSort`]) until the watermark has reached them; by arrival nothing
//! waits. Then a piece of rows is taken as a whole: what is kept of each of its keys is found once, and each function goes
//! through the rows in steps ([`frame`]): a row enters the frame of its key, older ones leave it, a result is asked for.
//! Nothing is computed again: COUNT, SUM and AVG take away what leaves ([`totals`]), the others keep what may yet become
//! a result ([`best`]).
//!
//! ```text
//! batch ─▶ sorted ─ watermark ─▶ pieces ─ steps ─▶ the rows, with their results
//!                                  │ table "over_keys": key → rows so far, time of the last, totals
//!                                  │ tables "over_rows<n>": key → arguments of the rows in a frame
//!                                  └ tables "over_values<n>": key → what a MIN is, and what it will be
//! ```
//!
//! A piece ends with the rows of one time, so rows that see each other are in one. The tables are described in
//! `docs/design/over-state.md`.

mod best;
mod forget;
mod frame;
mod kept;
mod plan;
#[cfg(test)]
mod tests;
mod totals;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int64Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use ruslo_core::epoch::Epoch;
use ruslo_core::equation::Equation;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::key_groups;
use ruslo_core::keyed::{TableSchema, Ttl};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Port, Progress, SharedFactory};
use ruslo_core::schema::visible;
use ruslo_core::time::Timestamp;

use self::forget::Forgetting;
use self::frame::Arrived;
pub use self::frame::OverFrame;
pub use self::plan::{OverCall, OverFunction};
use self::plan::{Plan, Rows};
use crate::StateTable;
use crate::event_time::millis;
use crate::sort::{EventTimeSort, EventTimeSortSpec, SortKey};
use crate::updating_aggregate::{BatchGroups, canonical, table_key};

/// What is kept of each key. Stored in checkpoints.
const KEYS: &str = "over_keys";

/// In which order rows are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverOrder {
    /// By these columns, of which the first is the event time, ascending. Rows that are equal follow by the other columns.
    EventTime(Vec<SortKey>),
    /// As they come; this column says when.
    Arrival(usize),
}

/// What is computed over what; cheap to clone.
#[derive(Debug, Clone)]
pub struct OverSpec {
    inner: Arc<Inner>,
    sort: Option<EventTimeSortSpec>,
}

#[derive(Debug)]
struct Inner {
    keys: Vec<usize>,
    time: usize,
    plan: Plan,
    table: TableSchema,
    /// By event time only.
    forgetting: Option<Forgetting>,
    schema: SchemaRef,
}

impl OverSpec {
    /// Of rows of `input`, for each value of the columns `keys`, these calls. What is kept of a key goes when no frame can
    /// reach its last row any more, and else `lifetime` after that, if there is one.
    ///
    /// # Errors
    /// `Usage`, if a column cannot be a key, or there are too many calls.
    pub fn new(
        input: &Schema,
        keys: Vec<usize>,
        order: OverOrder,
        calls: &[OverCall],
        lifetime: Option<Duration>,
    ) -> Result<Self> {
        let key_fields: Vec<FieldRef> = keys.iter().filter_map(|key| input.fields().get(*key)).cloned().collect();
        for field in &key_fields {
            let none = arrow::array::new_empty_array(field.data_type());
            key_groups(&[none], 0).map_err(|error| error.context(format!("PARTITION BY {}", field.name())))?;
        }
        let key = table_key(&key_fields);
        let plan = Plan::new(calls, input, &key)?;
        let own = ["rows", "last"].map(|name| Arc::new(Field::new(name, DataType::Int64, false)));
        let table = TableSchema::value(key.clone(), own.into_iter().chain(plan.state.iter().cloned()).collect());
        let (time, sort) = match order {
            OverOrder::Arrival(time) => (time, None),
            OverOrder::EventTime(order) => {
                let time = order.first().map_or(usize::MAX, |first| first.column);
                (time, Some(sorted(input, order, &keys)?))
            }
        };
        let unit = input.fields().get(time).map(|field| field.data_type().clone());
        let Some(DataType::Timestamp(unit, _)) = unit else {
            return Err(Error::internal("an OVER has no time"));
        };
        let forgets = sort.as_ref().and_then(|_| lifetime_ms(&plan, unit, lifetime));
        let forgetting = forgets.map(|lifetime_ms| Forgetting::new(lifetime_ms, &key));
        // Rows of a frame go with their key, or not at all.
        let is_alone = plan.kept().next().is_none() && plan.lists().next().is_none();
        let ttl = lifetime.filter(|_| sort.is_none() && is_alone).map(Ttl::of);
        let fields = input.fields().iter().cloned().chain(calls.iter().map(|call| Arc::clone(&call.field)));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let inner = Inner { keys, time, plan, table: table.with_ttl(ttl), forgetting, schema };
        Ok(Self { inner: Arc::new(inner), sort })
    }

    /// The columns that come out: those that come in, and the results.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.inner.schema)
    }

    /// When what is kept of a key goes, in ms after its last row; for ever, if none.
    pub fn forgets_after_ms(&self) -> Option<i64> {
        let of_table = self.inner.table.ttl.map(|ttl| u64::from(ttl.units).saturating_mul(ttl.unit_ms));
        let of_table = of_table.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        self.inner.forgetting.as_ref().map(Forgetting::lifetime_ms).or(of_table)
    }

    /// The state tables whose columns follow from this spec.
    pub fn state_tables(&self) -> Vec<StateTable> {
        let waiting = self.sort.as_ref().map(EventTimeSortSpec::state_table);
        self.inner.tables().into_iter().map(|(name, table)| (name, table.rows())).chain(waiting).collect()
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || {
            let waiting = self.sort.clone().map(EventTimeSort::new);
            Ok(Over { inner: Arc::clone(&self.inner), waiting })
        })
    }
}

/// How long a key matters after its last row: as long as a frame reaches, if all reach back for some time only.
fn lifetime_ms(plan: &Plan, unit: TimeUnit, lifetime: Option<Duration>) -> Option<i64> {
    let reach = |frame: OverFrame| match frame {
        OverFrame::Range(ticks) => Some(match unit {
            TimeUnit::Second => ticks.saturating_mul(1_000),
            TimeUnit::Millisecond => ticks,
            TimeUnit::Microsecond => ticks / 1_000 + 1,
            TimeUnit::Nanosecond => ticks / 1_000_000 + 1,
        }),
        _ => None,
    };
    let longest = plan.frames().filter_map(reach).max().unwrap_or(0);
    if plan.frames().all(|frame| reach(frame).is_some()) {
        return Some(longest);
    }
    lifetime.map(|lifetime| i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX).max(longest))
}

/// Rows in `order`, equal ones in that of whatever else has one.
fn sorted(schema: &Schema, mut order: Vec<SortKey>, keys: &[usize]) -> Result<EventTimeSortSpec> {
    for (column, field) in schema.fields().iter().enumerate() {
        if !field.data_type().is_nested() && order.iter().all(|key| key.column != column) {
            order.push(SortKey { column, descending: false, nulls_first: true });
        }
    }
    Ok(EventTimeSortSpec::new(schema, order)?.of_keys(keys.to_vec()).with_whole_times(forget::ENDS))
}

impl Inner {
    /// All keyed tables.
    fn tables(&self) -> Vec<(&'static str, &TableSchema)> {
        let kept = self.plan.kept().map(|kept| (kept.name, &kept.table));
        let lists = self.plan.lists().map(|lists| (lists.name, &lists.table));
        std::iter::once((KEYS, &self.table)).chain(kept).chain(lists).collect()
    }

    fn keys(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        if self.keys.is_empty() {
            return vec![Arc::new(Int8Array::from(vec![0; rows.num_rows()]))];
        }
        self.keys.iter().filter_map(|key| rows.columns().get(*key)).map(canonical).collect()
    }

    /// The times of `rows` in their column's units.
    fn times(&self, rows: &RecordBatch) -> Result<ScalarBuffer<i64>> {
        let column = rows.columns().get(self.time).ok_or_else(|| Error::internal("the time column is lost"))?;
        Ok(cast(column, &DataType::Int64)?.as_primitive::<Int64Type>().values().clone())
    }

    /// Gives out `rows`, which are in order, with their results.
    fn take(&self, rows: &RecordBatch, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let (keys, times) = (self.keys(rows), self.times(rows)?);
        let table = ctx.state.keyed(KEYS, &self.table)?;
        if self.table.ttl.is_some() {
            table.set_time(ctx.environment.clock.wall());
        }
        let (found, added) = table.load_or_insert(&keys)?;
        let groups = BatchGroups::new(&keys, &found, &added)?;
        let before = table.read(&groups.rows)?;
        let [counts, lasts, states @ ..] = before.as_slice() else {
            return Err(Error::internal("the state of a key lost a column"));
        };
        let (mut counts, mut lasts) = (integers(counts)?, integers(lasts)?);
        let numbers = numbered(&groups.of_rows, &mut counts);
        advance(&mut lasts, &groups, &millis(rows.column(self.time))?);
        let arrived = Arrived { groups: &groups.of_rows, numbers: &numbers, times: &times, total: groups.len() };
        let (results, after) = self.plan.walk(&Rows { batch: rows, arrived, keys: &groups.keys }, states, ctx)?;
        let own = [counts, lasts.clone()].map(|column| Arc::new(Int64Array::from(column)) as ArrayRef);
        let columns: Vec<ArrayRef> = own.into_iter().chain(after).collect();
        ctx.state.keyed(KEYS, &self.table)?.write(&groups.rows, &columns)?;
        self.note(&groups, &lasts, ctx)?;
        let columns = rows.columns().iter().cloned().chain(results).collect();
        let made = RecordBatch::try_new(self.schema(), columns)?;
        for first in (0..made.num_rows()).step_by(ctx.batch_rows.max(1)) {
            out.emit(made.slice(first, ctx.batch_rows.max(1).min(made.num_rows() - first)));
        }
        Ok(())
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Notes when the keys that are new may go.
    fn note(&self, groups: &BatchGroups, lasts: &[i64], ctx: &mut OperatorContext<'_>) -> Result<()> {
        let Some(forgetting) = &self.forgetting else { return Ok(()) };
        let new = || groups.added.iter().enumerate().filter(|(_, added)| **added).map(|(group, _)| group);
        let lasts: Vec<i64> = new().filter_map(|group| lasts.get(group)).copied().collect();
        if lasts.is_empty() {
            return Ok(());
        }
        forgetting.note(&groups.keys_of(new().map(|group| group as u32).collect())?, &lasts, ctx.state)
    }

    /// Forgets a piece of the keys that nothing can reach any more.
    fn forget(&self, watermark: i64, ctx: &mut OperatorContext<'_>) -> Result<Progress> {
        match &self.forgetting {
            None => Ok(Progress::Done),
            Some(forgetting) => forgetting.forget(watermark, ((KEYS, &self.table), 1), &self.tables(), ctx),
        }
    }
}

fn integers(column: &ArrayRef) -> Result<Vec<i64>> {
    match column.as_primitive_opt::<Int64Type>() {
        Some(column) => Ok(column.values().to_vec()),
        None => Err(Error::internal(format!("a stored count is {}", column.data_type()))),
    }
}

/// The number of each row within its group, of which there were `counts` before, from 0.
fn numbered(groups: &[u32], counts: &mut [i64]) -> Vec<i64> {
    let number = |group: &u32| {
        let count = counts.get_mut(*group as usize)?;
        *count += 1;
        Some(*count - 1)
    };
    groups.iter().map(number).map(Option::unwrap_or_default).collect()
}

/// Notes the time of the last row of each group.
fn advance(lasts: &mut [i64], groups: &BatchGroups, times: &[i64]) {
    for (last, added) in lasts.iter_mut().zip(&groups.added) {
        *last = if *added { i64::MIN } else { *last };
    }
    for (group, time) in groups.of_rows.iter().zip(times) {
        lasts.get_mut(*group as usize).into_iter().for_each(|last| *last = (*time).max(*last));
    }
}

struct Over {
    inner: Arc<Inner>,
    /// Rows that the watermark has not reached; by event time only.
    waiting: Option<EventTimeSort>,
}

impl Over {
    /// Has the sort do something, and takes what it lets go; when that is all, forgets keys.
    fn sorting(
        &mut self,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
        work: impl FnOnce(&mut EventTimeSort, &mut OperatorContext<'_>, &mut Output) -> Result<Progress>,
    ) -> Result<Progress> {
        let Some(waiting) = &mut self.waiting else { return Ok(Progress::Done) };
        let mut sorted = Output::default();
        let progress = work(waiting, ctx, &mut sorted)?;
        for (port, rows) in sorted.take() {
            match port {
                Port::MAIN => self.inner.take(&rows, ctx, out)?,
                port => out.emit_to(port, rows),
            }
        }
        let progress = match (progress, waiting.is_drained()) {
            (Progress::Done, true) => self.inner.forget(waiting.reached(), ctx)?,
            (progress, _) => progress,
        };
        waiting.recount(ctx)?;
        Ok(progress)
    }
}

impl Operator for Over {
    fn equation(&self) -> Equation {
        if self.waiting.is_some() { Equation::Waits } else { Equation::Same }
    }

    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        for (name, table) in self.inner.tables() {
            ctx.state.keyed(name, table)?;
        }
        self.waiting.as_mut().map_or(Ok(()), |waiting| waiting.open(ctx))
    }

    fn on_batch(
        &mut self,
        input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        if self.waiting.is_none() {
            self.inner.take(&visible(&batch), ctx, out)?;
            return Ok(Progress::Done);
        }
        self.sorting(ctx, out, |waiting, ctx, sorted| waiting.on_batch(input, batch, ctx, sorted))
    }

    fn on_watermark(
        &mut self,
        watermark: Timestamp,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        self.sorting(ctx, out, |waiting, ctx, sorted| waiting.on_watermark(watermark, ctx, sorted))
    }

    fn resume(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        self.sorting(ctx, out, |waiting, ctx, sorted| waiting.resume(ctx, sorted))
    }

    fn snapshot(&mut self, epoch: Epoch, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<()> {
        self.waiting.as_mut().map_or(Ok(()), |waiting| waiting.snapshot(epoch, ctx, out))
    }
}
