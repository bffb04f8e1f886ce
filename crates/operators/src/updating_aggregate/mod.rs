//! GROUP BY without a window: aggregates that change as rows come and go.
//!
//! A batch is taken as a whole. The row of each of its keys is found once, the state columns are read, each aggregate
//! applies all rows to them with their signs, and the rows are written once. Then the change of each key goes out: `+I` if
//! it is new, `-D` if its last row is gone, otherwise `-U` and `+U` if a result differs. What was said last is computed from
//! the state before.
//!
//! ```text
//! batch ─▶ rows of its keys ─▶ state columns ─ ± rows ─▶ state columns ─▶ results that differ
//!            │ table "updating_groups"              │
//!            │ key → rows, states                   └ tables "updating_values<n>": key, value → counts
//!            └ nothing else is held
//! ```
//!
//! MIN and MAX over rows that may go, and DISTINCT, count values in tables of their own: see `values`. The tables are
//! described in `docs/design/changelog.md`.

mod accumulate;
mod change;
mod groups;
mod kept;
mod local;
mod pick;
mod plan;
mod spread;
mod sums;
#[cfg(test)]
mod tests;
mod values;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int8Array, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use ruslo_core::changelog::row_kinds;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::key_groups;
use ruslo_core::keyed::{TableSchema, Ttl};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::schema::visible;

use self::accumulate::Rows;
use self::change::{Change, differing, taken};
pub(crate) use self::groups::BatchGroups;
use self::groups::counted;
pub use self::local::{LocalGroupBySpec, MiniBatch};
pub(crate) use self::pick::canonical;
use self::pick::{Which, pick};
use self::plan::{Aggregate, Counted, Means, Plan, World};
pub(crate) use self::sums::numbers;
use self::values::Turned;
use crate::StateTable;
use crate::expression::{evaluate, evaluate_condition, execution_error};
use crate::window::AggregateCall;

/// The rows of the groups. Stored in checkpoints.
const GROUPS: &str = "updating_groups";

/// Which changes come, and which are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpdatingChanges {
    /// Whether rows of the input may be taken back.
    pub takes_back: bool,
    /// Whether somebody wants to know what a row was before it changed: `-U`.
    pub says_before: bool,
}

/// What is aggregated by what; cheap to clone.
#[derive(Debug, Clone)]
pub struct UpdatingAggregateSpec {
    inner: Arc<Inner>,
    /// Whether what comes are partial groups.
    of_partials: bool,
}

#[derive(Debug)]
struct Inner {
    keys: Vec<usize>,
    plan: Plan,
    changes: UpdatingChanges,
    groups: TableSchema,
    schema: SchemaRef,
}

impl UpdatingAggregateSpec {
    /// Of rows of `input`, for each value of the columns `keys`, these aggregates. A key is forgotten `lifetime` after the
    /// last row that it had, if there is one. Without keys there is one row, from the first row on.
    ///
    /// # Errors
    /// `Usage`, if a column cannot be a key, or an aggregate is not possible over such changes.
    pub fn new(
        input: &Schema,
        keys: Vec<usize>,
        calls: Vec<AggregateCall>,
        changes: UpdatingChanges,
        lifetime: Option<Duration>,
    ) -> Result<Self> {
        let ttl = lifetime.map(Ttl::of);
        let key_fields: Vec<FieldRef> = keys.iter().filter_map(|key| input.fields().get(*key)).cloned().collect();
        if key_fields.len() != keys.len() {
            return Err(Error::internal("a GROUP BY has keys that do not exist"));
        }
        for field in &key_fields {
            let none = arrow::array::new_empty_array(field.data_type());
            key_groups(&[none], 0).map_err(|error| error.context(format!("GROUP BY {}", field.name())))?;
        }
        let key = table_key(&key_fields);
        let world = World { input, key: &key, takes_back: changes.takes_back, ttl };
        let plan = Plan::new(calls, &world)?;
        let rows = changes.takes_back.then(|| Arc::new(Field::new("rows", DataType::Int64, false)));
        let groups = TableSchema::value(key, rows.into_iter().chain(plan.state.iter().cloned()).collect());
        let schema = Schema::new(key_fields.into_iter().chain(plan.results.iter().cloned()).collect::<Vec<_>>());
        let inner = Inner { keys, plan, changes, groups: groups.with_ttl(ttl), schema: Arc::new(schema) };
        Ok(Self { inner: Arc::new(inner), of_partials: false })
    }

    /// The columns that come out: keys and results.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.inner.schema)
    }

    /// The state tables.
    pub fn state_tables(&self) -> Vec<StateTable> {
        let values = self.inner.plan.values.iter().map(|(_, values)| (values.name, values.table.rows()));
        std::iter::once((GROUPS, self.inner.groups.rows())).chain(values).collect()
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        let Self { inner, of_partials } = self;
        Arc::new(move || Ok(UpdatingAggregate { inner: Arc::clone(&inner), of_partials }))
    }
}

/// The key columns of the tables; a table must have one.
pub(crate) fn table_key(fields: &[FieldRef]) -> Vec<FieldRef> {
    if fields.is_empty() {
        return vec![Arc::new(Field::new("key0", DataType::Int8, true))];
    }
    let field =
        |(at, field): (usize, &FieldRef)| Arc::new(Field::new(format!("key{at}"), field.data_type().clone(), true));
    fields.iter().enumerate().map(field).collect()
}

struct UpdatingAggregate {
    inner: Arc<Inner>,
    of_partials: bool,
}

/// A batch on its way: its rows, and what each does under each filter.
struct Batch<'a> {
    rows: &'a RecordBatch,
    groups: &'a BatchGroups,
    signs: Vec<Vec<i8>>,
    turned: Vec<Turned>,
}

impl Batch<'_> {
    fn signs(&self, filter: usize) -> &[i8] {
        self.signs.get(filter).map_or(&[], Vec::as_slice)
    }

    /// What came and went under a filter, and the signs of it.
    fn turned(&self, values: Counted) -> Result<(&Turned, &[i8])> {
        let turned = self.turned.get(values.table);
        let found = turned.and_then(|turned| Some((turned, turned.signs.get(values.filter)?.as_slice())));
        found.ok_or_else(|| Error::internal("an aggregate has no values"))
    }
}

impl Inner {
    fn keys(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        if self.keys.is_empty() {
            return vec![Arc::new(Int8Array::from(vec![0; rows.num_rows()]))];
        }
        self.keys.iter().filter_map(|key| rows.columns().get(*key)).map(canonical).collect()
    }

    /// The keys of partial groups, which are in front.
    fn partial_keys(&self, partials: &RecordBatch) -> Vec<ArrayRef> {
        if self.keys.is_empty() {
            return vec![Arc::new(Int8Array::from(vec![0; partials.num_rows()]))];
        }
        partials.columns().iter().take(self.keys.len()).cloned().collect()
    }

    /// Applies a batch, of rows or of partial groups, to the state: what has changed.
    fn apply(&self, batch: &RecordBatch, of_partials: bool, ctx: &mut OperatorContext<'_>) -> Result<Change> {
        let rows = visible(batch);
        let keys = if of_partials { self.partial_keys(&rows) } else { self.keys(&rows) };
        let table = ctx.state.keyed(GROUPS, &self.groups)?;
        if self.groups.ttl.is_some() {
            table.set_time(ctx.environment.clock.wall());
        }
        let (found, added) = table.load_or_insert(&keys)?;
        let groups = BatchGroups::new(&keys, &found, &added)?;
        let before = table.read(&groups.rows)?;
        let (mut counts, old) = self.split(&before, &groups)?;
        let kinds = row_kinds(batch).map(|kinds| kinds.values().as_ref());
        if kinds.is_some() && !self.changes.takes_back {
            return Err(Error::internal("rows with kinds came where rows are only added"));
        }
        let had: Vec<bool> = counts.iter().map(|count| *count > 0).collect();
        let signs = counted(kinds, &groups.of_rows, &mut counts);
        let new = match of_partials {
            true => self.merged(&old, &rows, &groups)?,
            false => self.updated(&old, &self.batch(&rows, &groups, signs, ctx)?, ctx)?,
        };
        let has: Vec<bool> = counts.iter().map(|count| *count > 0).collect();
        self.write(&groups, counts, &new, ctx)?;
        self.change(&groups, (&had, &old), (&has, &new))
    }

    /// How many rows each group has, 1 where that is not counted, and its states.
    fn split(&self, before: &[ArrayRef], groups: &BatchGroups) -> Result<(Vec<i64>, Vec<ArrayRef>)> {
        if !self.changes.takes_back {
            return Ok((groups.added.iter().map(|added| i64::from(!added)).collect(), before.to_vec()));
        }
        let (counts, states) = before.split_first().ok_or_else(|| Error::internal("a group has no count"))?;
        let counts = counts.as_primitive_opt::<Int64Type>().ok_or_else(|| Error::internal("a count is no BIGINT"))?;
        Ok((counts.values().to_vec(), states.to_vec()))
    }

    /// What each row, of which `signs` are the signs, does under each filter.
    fn signs(&self, rows: &RecordBatch, signs: &[i8]) -> Result<Vec<Vec<i8>>> {
        let filtered = |filter: &Option<_>| match filter {
            None => Ok(signs.to_vec()),
            Some(filter) => {
                let keeps = evaluate_condition(filter, rows)?;
                Ok(signs.iter().zip(&keeps).map(|(sign, keeps)| if keeps == Some(true) { *sign } else { 0 }).collect())
            }
        };
        self.plan.filters.iter().map(filtered).collect()
    }

    /// What each row does under each filter, and which values come and go.
    fn batch<'a>(
        &self,
        rows: &'a RecordBatch,
        groups: &'a BatchGroups,
        signs: Vec<i8>,
        ctx: &mut OperatorContext<'_>,
    ) -> Result<Batch<'a>> {
        let signs = self.signs(rows, &signs)?;
        let mut batch = Batch { rows, groups, signs, turned: Vec::new() };
        for (argument, values) in &self.plan.values {
            let column = evaluate(argument, rows)?;
            let signs: Vec<&[i8]> = values.filters.iter().map(|filter| batch.signs(*filter)).collect();
            let table = ctx.state.keyed(values.name, &values.table)?;
            if values.table.ttl.is_some() {
                table.set_time(ctx.environment.clock.wall());
            }
            let turned = values.count(table, &groups.keys, &column, &groups.of_rows, &signs)?;
            batch.turned.push(turned);
        }
        Ok(batch)
    }

    /// The states of all aggregates after partial groups.
    fn merged(&self, old: &[ArrayRef], rows: &RecordBatch, groups: &BatchGroups) -> Result<Vec<ArrayRef>> {
        let (_, mut partials) = rows.columns().split_at_checked(self.keys.len()).unwrap_or_default();
        let (mut new, mut rest) = (Vec::with_capacity(old.len()), old);
        for aggregate in &self.plan.aggregates {
            let Means::Rows { accumulate, .. } = &aggregate.means else {
                return Err(Error::internal("an aggregate of single values has partial groups"));
            };
            let ((states, others), (own, other_partials)) =
                (split_states(rest, aggregate)?, split_states(partials, aggregate)?);
            new.extend(accumulate.merge(states, own, &groups.of_rows).map_err(execution_error)?);
            (rest, partials) = (others, other_partials);
        }
        Ok(new)
    }

    /// The states of all aggregates after the batch.
    fn updated(&self, old: &[ArrayRef], batch: &Batch<'_>, ctx: &mut OperatorContext<'_>) -> Result<Vec<ArrayRef>> {
        let (mut new, mut rest) = (Vec::with_capacity(old.len()), old);
        for aggregate in &self.plan.aggregates {
            let (own, others) = split_states(rest, aggregate)?;
            new.extend(self.updated_one(aggregate, own, batch, ctx)?);
            rest = others;
        }
        Ok(new)
    }

    fn updated_one(
        &self,
        aggregate: &Aggregate,
        states: &[ArrayRef],
        batch: &Batch<'_>,
        ctx: &mut OperatorContext<'_>,
    ) -> Result<Vec<ArrayRef>> {
        let added = &batch.groups.added;
        match &aggregate.means {
            Means::Rows { accumulate, arguments } => {
                let columns = arguments.iter().map(|argument| evaluate(argument, batch.rows));
                let columns = &columns.collect::<Result<Vec<_>>>()?;
                let rows = Rows { columns, groups: &batch.groups.of_rows, signs: batch.signs(aggregate.filter), added };
                accumulate.update(states, &rows).map_err(execution_error)
            }
            Means::Distinct { accumulate, values, inputs } => {
                let (turned, signs) = batch.turned(*values)?;
                let columns = inputs.iter().map(|input| input.column(&turned.values).map_err(execution_error));
                let columns = &columns.collect::<Result<Vec<_>>>()?;
                let rows = Rows { columns, groups: &turned.groups, signs, added };
                accumulate.update(states, &rows).map_err(execution_error)
            }
            Means::Extreme { which, values } => {
                let [state] = states else { return Err(Error::internal("an extreme is one column")) };
                Ok(vec![self.extreme(*which, *values, state, batch, ctx)?])
            }
        }
    }

    /// The least or greatest values after the batch: one that is gone is looked for anew, unless a better one has come.
    fn extreme(
        &self,
        which: Which,
        values: Counted,
        state: &ArrayRef,
        batch: &Batch<'_>,
        ctx: &mut OperatorContext<'_>,
    ) -> Result<ArrayRef> {
        let (turned, signs) = batch.turned(values)?;
        let added = &batch.groups.added;
        let came = Rows { columns: &[], groups: &turned.groups, signs, added };
        let best = pick(which, state, &turned.values, &came).map_err(execution_error)?;
        let lost = lost_groups(&best, turned, signs, batch.groups.len())?;
        if lost.is_empty() {
            return Ok(best);
        }
        let (_, table) = self.plan.values.get(values.table).ok_or_else(|| Error::internal("values without a table"))?;
        let keys = batch.groups.keys_of(lost.clone())?;
        let keyed = ctx.state.keyed(table.name, &table.table)?;
        let found = table.extremes(keyed, &keys, (which, values.filter))?;
        let mut places: Vec<(usize, usize)> = (0..best.len()).map(|group| (0, group)).collect();
        for (at, group) in lost.iter().enumerate() {
            if let Some(place) = places.get_mut(*group as usize) {
                *place = (1, at);
            }
        }
        Ok(arrow::compute::interleave(&[best.as_ref(), found.as_ref()], &places)?)
    }

    /// Writes the groups; those without rows are removed.
    fn write(
        &self,
        groups: &BatchGroups,
        counts: Vec<i64>,
        new: &[ArrayRef],
        ctx: &mut OperatorContext<'_>,
    ) -> Result<()> {
        let is_dead = |(_, count): &(usize, &i64)| **count <= 0;
        let dead: Vec<u32> = counts.iter().enumerate().filter(is_dead).map(|(group, _)| group as u32).collect();
        let table = ctx.state.keyed(GROUPS, &self.groups)?;
        let counts: Option<ArrayRef> = self.changes.takes_back.then(|| Arc::new(Int64Array::from(counts)) as ArrayRef);
        let columns: Vec<ArrayRef> = counts.into_iter().chain(new.iter().cloned()).collect();
        // Without columns there is nothing to write but the time of it.
        if !columns.is_empty() || self.groups.ttl.is_some() {
            table.write(&groups.rows, &columns)?;
        }
        if dead.is_empty() {
            return Ok(());
        }
        let keys = groups.keys_of(dead)?;
        table.remove(&keys)?;
        // Values may have outlived what was taken back before they came.
        for (_, values) in self.plan.values.iter().filter(|(_, values)| values.table.ttl.is_some()) {
            ctx.state.keyed(values.name, &values.table)?.remove(&keys)?;
        }
        Ok(())
    }

    /// What the groups say now, and said before.
    fn change(
        &self,
        groups: &BatchGroups,
        (had, old): (&[bool], &[ArrayRef]),
        (has, new): (&[bool], &[ArrayRef]),
    ) -> Result<Change> {
        let keys = if self.keys.is_empty() { &[] } else { groups.keys.as_slice() };
        let (old, old_places) = taken(had, old)?;
        let (new, new_places) = taken(has, new)?;
        let (old, new) = (self.results(&old)?, self.results(&new)?);
        let mut change = Change { keys: keys.to_vec(), old, new, steps: Vec::new() };
        let both = |group: usize| Some((*old_places.get(group)?, *new_places.get(group)?));
        let pairs: Vec<(Option<u32>, Option<u32>)> = (0..groups.len()).filter_map(both).collect();
        // What outlives its lifetime elsewhere is said again; but not that a row is there which only comes.
        let is_said_again = self.groups.ttl.is_some() && (self.changes.takes_back || !self.plan.aggregates.is_empty());
        let differs = if is_said_again { None } else { Some(differing(&change, &pairs)?) };
        change.step(&pairs, differs.as_deref(), self.changes.says_before);
        Ok(change)
    }

    fn results(&self, states: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        let (mut results, mut rest) = (Vec::with_capacity(self.plan.aggregates.len()), states);
        for aggregate in &self.plan.aggregates {
            let (own, others) = split_states(rest, aggregate)?;
            results.push(match &aggregate.means {
                Means::Rows { accumulate, .. } | Means::Distinct { accumulate, .. } => {
                    accumulate.results(own).map_err(execution_error)?
                }
                Means::Extreme { .. } => own.first().cloned().ok_or_else(|| Error::internal("an extreme is lost"))?,
            });
            rest = others;
        }
        Ok(results)
    }
}

fn split_states<'a>(states: &'a [ArrayRef], aggregate: &Aggregate) -> Result<(&'a [ArrayRef], &'a [ArrayRef])> {
    let lost = || Error::internal("a group has fewer state columns than its aggregates");
    states.split_at_checked(aggregate.columns).ok_or_else(lost)
}

/// The groups whose extreme, `best`, is among what has gone.
fn lost_groups(best: &ArrayRef, turned: &Turned, signs: &[i8], groups: usize) -> Result<Vec<u32>> {
    let gone = signs.iter().enumerate().filter(|(_, sign)| **sign < 0).map(|(row, _)| row as u32);
    let gone: arrow::array::UInt32Array = gone.collect();
    if gone.is_empty() {
        return Ok(Vec::new());
    }
    let of_gone: arrow::array::UInt32Array =
        gone.values().iter().filter_map(|row| turned.groups.get(*row as usize).copied()).collect();
    let values = arrow::compute::take(&turned.values, &gone, None)?;
    let differs = change::distinct(&values, &arrow::compute::take(best, &of_gone, None)?)?;
    let mut is_lost = vec![false; groups];
    for (group, differs) in of_gone.values().iter().zip(differs.values()) {
        if let Some(is_lost) = is_lost.get_mut(*group as usize) {
            *is_lost |= !differs;
        }
    }
    Ok(is_lost.iter().enumerate().filter(|(_, lost)| **lost).map(|(group, _)| group as u32).collect())
}

impl Operator for UpdatingAggregate {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        ctx.state.keyed(GROUPS, &self.inner.groups)?;
        for (_, values) in &self.inner.plan.values {
            ctx.state.keyed(values.name, &values.table)?;
        }
        Ok(())
    }

    fn on_batch(
        &mut self,
        _input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let change = self.inner.apply(&batch, self.of_partials, ctx)?;
        change.emit(&self.inner.schema, ctx.batch_rows, out)?;
        Ok(Progress::Done)
    }
}
