//! The local half of a GROUP BY in two phases: groups the rows of one sender before they are exchanged by key, so that a key
//! which comes often crosses the exchange once for many rows, and its change is said once.
//!
//! ```text
//! rows ─▶ LocalGroupBy ─ partial groups, by key ─▶ the operator behind the exchange, which merges them ─▶ changes
//! ```
//!
//! Each batch is grouped as it comes; what is held is grouped again when it goes: after so many rows or so much time, and at
//! every barrier, so a checkpoint has nothing of it. Only over rows that are never taken back.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, take_arrays};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::ScalarValue;
use datafusion::physical_plan::aggregates::group_values::new_group_values;
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use ruslo_core::element::EndReason;
use ruslo_core::epoch::Epoch;
use ruslo_core::equation::Equation;
use ruslo_core::error::{Error, Result};
use ruslo_core::memory::batch_bytes;
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::schema::visible;
use ruslo_core::time::Timestamp;

use super::accumulate::Rows;
use super::plan::{Aggregate, Means};
use super::{Inner, UpdatingAggregateSpec, split_states};
use crate::expression::{evaluate, execution_error};

/// Bytes held at most, soft by one batch's groups.
const BYTES_MAX: usize = 16 << 20;

/// How long rows are held before the exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MiniBatch {
    /// So many rows at most.
    pub rows: usize,
    /// So long at most, by the calendar.
    pub latency: Duration,
}

/// The local half of an [`UpdatingAggregateSpec`]: see [`UpdatingAggregateSpec::two_phases`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalGroupBySpec {
    whole: Arc<Inner>,
    bounds: MiniBatch,
    schema: SchemaRef,
}

impl UpdatingAggregateSpec {
    /// The same in two phases: what groups before the exchange, and what merges its partial groups; with the state of one
    /// phase.
    ///
    /// # Errors
    /// Why not.
    pub fn two_phases(&self, bounds: MiniBatch) -> std::result::Result<(LocalGroupBySpec, Self), String> {
        if self.inner.changes.takes_back {
            return Err("its input changes".to_owned());
        }
        for (aggregate, field) in self.inner.plan.aggregates.iter().zip(&self.inner.plan.results) {
            match &aggregate.means {
                Means::Rows { accumulate, .. } if accumulate.merges() => {}
                _ => return Err(format!("{} is of single values", field.name())),
            }
        }
        let whole = Arc::clone(&self.inner);
        let keys = whole.schema.fields().iter().take(whole.keys.len()).cloned();
        let schema = Arc::new(Schema::new(keys.chain(whole.plan.state.iter().cloned()).collect::<Vec<_>>()));
        let global = Self { inner: Arc::clone(&self.inner), of_partials: true };
        Ok((LocalGroupBySpec { whole, bounds, schema }, global))
    }
}

impl LocalGroupBySpec {
    /// The columns that come out: the keys, then the states of the aggregates.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(LocalGroupBy { spec: self.clone(), held: Vec::new(), rows: 0, bytes: 0, due: None }))
    }

    /// The partial groups of some rows.
    fn fold(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let groups = self.groups(self.whole.keys(rows), rows.num_rows())?;
        let signs = self.whole.signs(rows, &vec![1; rows.num_rows()])?;
        let added = vec![true; groups.count];
        let states = self.each_aggregate(|aggregate, _| {
            let Means::Rows { accumulate, arguments } = &aggregate.means else { return Err(no_partials()) };
            let columns = arguments.iter().map(|argument| evaluate(argument, rows)).collect::<Result<Vec<_>>>()?;
            let signs = signs.get(aggregate.filter).map_or(&[][..], Vec::as_slice);
            let rows = Rows { columns: &columns, groups: &groups.of_rows, signs, added: &added };
            accumulate.update(&fresh(aggregate, groups.count)?, &rows).map_err(execution_error)
        })?;
        self.made(groups, states)
    }

    /// Partial groups of which each key is there once.
    fn merged(&self, partials: &[RecordBatch]) -> Result<RecordBatch> {
        let all = concat_batches(&self.schema, partials)?;
        let groups = self.groups(self.whole.partial_keys(&all), all.num_rows())?;
        let (_, partials) = all.columns().split_at_checked(self.whole.keys.len()).unwrap_or_default();
        let states = self.each_aggregate(|aggregate, before| {
            let Means::Rows { accumulate, .. } = &aggregate.means else { return Err(no_partials()) };
            let (own, _) = split_states(partials.get(before..).unwrap_or_default(), aggregate)?;
            accumulate.merge(&fresh(aggregate, groups.count)?, own, &groups.of_rows).map_err(execution_error)
        })?;
        self.made(groups, states)
    }

    /// The state columns that `of` says for each aggregate and the number of such columns before its own.
    fn each_aggregate(&self, of: impl Fn(&Aggregate, usize) -> Result<Vec<ArrayRef>>) -> Result<Vec<ArrayRef>> {
        let mut states = Vec::with_capacity(self.whole.plan.state.len());
        for aggregate in &self.whole.plan.aggregates {
            states.extend(of(aggregate, states.len())?);
        }
        Ok(states)
    }

    fn made(&self, groups: Groups, states: Vec<ArrayRef>) -> Result<RecordBatch> {
        let keys = if self.whole.keys.is_empty() { Vec::new() } else { groups.keys };
        let options = RecordBatchOptions::new().with_row_count(Some(groups.count));
        let columns = keys.into_iter().chain(states).collect();
        Ok(RecordBatch::try_new_with_options(self.schema(), columns, &options)?)
    }

    /// The groups of rows with these keys, which look the same if they are equal.
    fn groups(&self, keys: Vec<ArrayRef>, rows: usize) -> Result<Groups> {
        let fields = keys.iter().enumerate().map(|(n, key)| Field::new(format!("k{n}"), key.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mut values = new_group_values(schema, &GroupOrdering::None).map_err(execution_error)?;
        let mut found = Vec::with_capacity(rows);
        values.intern(&keys, &mut found).map_err(execution_error)?;
        let mut firsts: Vec<u32> = Vec::new();
        for (row, group) in found.iter().enumerate() {
            if *group == firsts.len() {
                firsts.push(row as u32);
            }
        }
        let count = firsts.len();
        let keys = take_arrays(&keys, &UInt32Array::from(firsts), None)?;
        Ok(Groups { of_rows: found.into_iter().map(|group| group as u32).collect(), keys, count })
    }
}

/// Some rows by key.
struct Groups {
    of_rows: Vec<u32>,
    keys: Vec<ArrayRef>,
    count: usize,
}

/// The states of new groups.
fn fresh(aggregate: &Aggregate, groups: usize) -> Result<Vec<ArrayRef>> {
    let Means::Rows { accumulate, .. } = &aggregate.means else { return Err(no_partials()) };
    let column = |(data_type, is_nullable): (DataType, bool)| {
        if is_nullable {
            return Ok(new_null_array(&data_type, groups));
        }
        let zero = ScalarValue::new_zero(&data_type).map_err(execution_error)?;
        zero.to_array_of_size(groups).map_err(execution_error)
    };
    accumulate.state().into_iter().map(column).collect()
}

fn no_partials() -> Error {
    Error::internal("an aggregate of single values has no partial groups")
}

struct LocalGroupBy {
    spec: LocalGroupBySpec,
    /// Partial groups, a batch for each that came.
    held: Vec<RecordBatch>,
    /// Rows and bytes of them.
    rows: usize,
    bytes: usize,
    /// When they have to go.
    due: Option<Timestamp>,
}

impl LocalGroupBy {
    fn is_full(&self, now: Timestamp) -> bool {
        self.rows >= self.spec.bounds.rows || self.bytes >= BYTES_MAX || self.due.is_some_and(|due| due <= now)
    }

    /// Lets out all that is held.
    fn flush(&mut self, ctx: &OperatorContext<'_>, out: &mut Output) -> Result<()> {
        let held = std::mem::take(&mut self.held);
        (self.rows, self.bytes, self.due) = (0, 0, None);
        let made = match held.as_slice() {
            [] => return Ok(()),
            [one] => one.clone(),
            several => self.spec.merged(several)?,
        };
        ctx.memory.resize(0)?;
        for from in (0..made.num_rows()).step_by(ctx.batch_rows.max(1)) {
            out.emit(made.slice(from, ctx.batch_rows.max(1).min(made.num_rows() - from)));
        }
        Ok(())
    }
}

impl Operator for LocalGroupBy {
    fn equation(&self) -> Equation {
        Equation::Keeps
    }

    fn on_batch(
        &mut self,
        _input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let partials = self.spec.fold(&visible(&batch))?;
        ctx.metrics.kept_rows.add(batch.num_rows());
        let now = ctx.now();
        let latency = i64::try_from(self.spec.bounds.latency.as_millis()).unwrap_or(i64::MAX);
        self.due = self.due.or(Some(Timestamp(now.millis().saturating_add(latency))));
        self.rows += batch.num_rows();
        self.bytes += batch_bytes(&partials);
        self.held.push(partials);
        // What the pipeline's memory has no room for needs none here.
        if self.is_full(now) || ctx.memory.resize(self.bytes as u64).is_err() {
            self.flush(ctx, out)?;
        }
        Ok(Progress::Done)
    }

    fn wakes_at(&self) -> Option<Timestamp> {
        self.due
    }

    fn on_wake(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        self.flush(ctx, out)?;
        Ok(Progress::Done)
    }

    fn on_end(
        &mut self,
        _input: InputId,
        _reason: EndReason,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        self.flush(ctx, out)?;
        Ok(Progress::Done)
    }

    fn snapshot(&mut self, _epoch: Epoch, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<()> {
        self.flush(ctx, out)
    }
}
