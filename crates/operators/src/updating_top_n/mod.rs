//! Top-N without a window: the first N rows of each key, an answer that changes as rows come and go.
//!
//! A batch is taken as a whole. The rows that are kept of its keys are read once, ranked together with those that came,
//! and what differs goes out and into state. Without the rank: `-D` of each row pushed out, then `+I` of each that came in.
//! With the rank, and where N is 1: `-U` and `+U` of each rank that has another row.
//!
//! ```text
//! batch ─▶ rows of its keys ─▶ ranked together ─▶ first N before and after ─▶ what differs
//!            └ table "top_n_rows" ◀──────────────────┘
//! ```
//!
//! Of rows that only come, no more than the first N are kept; else all are, equal ones once with their number, and found in
//! the order of their ranks: of a key are read the first N, one more for each row that goes, and those that change. Rows that
//! are equal in the order follow by their columns from left to right, so the answer does not depend on who came first; by
//! processing time they follow as they came. The table is described in `docs/design/changelog.md`.

mod differ;
mod kept;
mod runs;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int8Array, UInt32Array, new_empty_array};
use arrow::compute::{concat_batches, take};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_plan::aggregates::group_values::new_group_values;
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use ruslo_core::changelog::{adds, row_kinds};
use ruslo_core::error::{Error, Result, ResultExt};
use ruslo_core::key_group::key_groups;
use ruslo_core::keyed::Ttl;
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::schema::visible;

use self::differ::Steps;
use self::kept::Kept;
use self::runs::{Runs, ranked};
use crate::StateTable;
use crate::expression::execution_error;
use crate::updating_aggregate::canonical;
use crate::window::ranking::ties;

/// The rows that are kept. Stored in checkpoints.
const ROWS: &str = "top_n_rows";
/// So many times the rows of a batch are read from state at once, at most, where rows only come.
const BATCHES_READ_MAX: usize = 16;

/// Where rows are ranked as they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// Who came first is the first.
    First,
    /// Who came last is the first.
    Last,
}

/// Which rows are wanted.
#[derive(Debug, Clone)]
pub struct UpdatingTopN {
    /// The columns that are the key; none for the first rows of all.
    pub keys: Vec<usize>,
    /// By what rows are ranked.
    pub order: Vec<PhysicalSortExpr>,
    /// By when they come instead, if that is asked for.
    pub arrival: Option<Arrival>,
    /// How many of a key are wanted.
    pub limit: usize,
    /// What the column of the rank is called, a BIGINT from 1 behind the others, if it is wanted.
    pub rank: Option<String>,
    /// Whether rows of the input may be taken back.
    pub takes_back: bool,
    /// Whether somebody wants to know what a row was before it changed: `-U`.
    pub says_before: bool,
    /// How long a row that is kept lives after it was written; for ever, if none.
    pub lifetime: Option<Duration>,
}

/// [`UpdatingTopN`] over rows of some columns; cheap to clone.
#[derive(Debug, Clone)]
pub struct UpdatingTopNSpec {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    wanted: UpdatingTopN,
    order_fields: Vec<SortField>,
    key_schema: SchemaRef,
    kept: Kept,
    input: SchemaRef,
    schema: SchemaRef,
}

impl UpdatingTopNSpec {
    /// The rows `wanted` of `input`. They must come through an exchange by the keys.
    ///
    /// # Errors
    /// `Usage`, if a column cannot be a key or has no order, or no row is wanted.
    pub fn new(input: &Schema, wanted: UpdatingTopN) -> Result<Self> {
        if wanted.limit == 0 {
            return Err(Error::usage("a Top-N of no rows"));
        }
        if wanted.takes_back && wanted.arrival.is_some() {
            return Err(Error::internal("rows that are taken back have no order of arrival"));
        }
        let key_fields: Vec<FieldRef> =
            wanted.keys.iter().filter_map(|key| input.fields().get(*key)).cloned().collect();
        if key_fields.len() != wanted.keys.len() {
            return Err(Error::internal("a Top-N has keys that do not exist"));
        }
        let no_rows: Vec<ArrayRef> = key_fields.iter().map(|field| new_empty_array(field.data_type())).collect();
        key_groups(&no_rows, 0).context(|| "PARTITION BY".to_owned())?;
        let order_fields = wanted.order.iter().map(|sort| {
            let data_type = sort.expr.data_type(input).map_err(execution_error)?;
            Ok(SortField::new_with_options(data_type, sort.options))
        });
        let order_fields = order_fields.collect::<Result<Vec<_>>>()?;
        RowConverter::new(order_fields.clone()).map_err(Error::from).context(|| "ORDER BY".to_owned())?;
        let input = Arc::new(input.clone());
        if wanted.arrival.is_none() {
            ties(&RecordBatch::new_empty(Arc::clone(&input)))?;
        }
        let rank = wanted.rank.iter().map(|name| Arc::new(Field::new(name, DataType::Int64, false)));
        let schema = Arc::new(Schema::new(input.fields().iter().cloned().chain(rank).collect::<Vec<_>>()));
        let kept = Kept::new(&input, &wanted, wanted.lifetime.map(Ttl::of))?;
        let key_schema = Arc::new(Schema::new(key_fields));
        let inner = Inner { wanted, order_fields, key_schema, kept, input, schema };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The columns that come out: the input's, then the rank, if it is wanted.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.inner.schema)
    }

    /// The state table.
    pub fn state_table(&self) -> StateTable {
        (ROWS, self.inner.kept.table.rows())
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(TopN { inner: Arc::clone(&self.inner) }))
    }
}

struct TopN {
    inner: Arc<Inner>,
}

/// The keys of some rows, each once.
struct Groups {
    /// The group of each row.
    of_rows: Vec<u32>,
    /// The key of each group.
    keys: Vec<ArrayRef>,
}

impl Inner {
    /// The keys of rows, numbered as they come.
    fn groups(&self, rows: &RecordBatch) -> Result<Groups> {
        if self.wanted.keys.is_empty() {
            return Ok(Groups { of_rows: vec![0; rows.num_rows()], keys: vec![Arc::new(Int8Array::from(vec![0]))] });
        }
        let keys: Vec<ArrayRef> =
            self.wanted.keys.iter().filter_map(|key| rows.columns().get(*key)).map(canonical).collect();
        let mut values =
            new_group_values(Arc::clone(&self.key_schema), &GroupOrdering::None).map_err(execution_error)?;
        let mut found = Vec::with_capacity(rows.num_rows());
        values.intern(&keys, &mut found).map_err(execution_error)?;
        let mut firsts: Vec<u32> = Vec::new();
        for (row, group) in found.iter().enumerate() {
            if *group == firsts.len() {
                firsts.push(row as u32);
            }
        }
        let firsts = UInt32Array::from(firsts);
        let keys = keys.iter().map(|key| Ok(take(key, &firsts, None)?)).collect::<Result<_>>()?;
        Ok(Groups { of_rows: found.into_iter().map(|group| group as u32).collect(), keys })
    }

    /// How many rows are taken together, so that what is kept of their keys is not too much at once.
    fn rows_at_once(&self, ctx: &OperatorContext<'_>) -> usize {
        match self.wanted.takes_back {
            true => usize::MAX,
            false => (ctx.batch_rows.max(1).saturating_mul(BATCHES_READ_MAX) / self.wanted.limit).max(1),
        }
    }

    /// How many of the first rows of each key decide: those that are wanted, and as many as may go.
    fn rows_needed(&self, groups: &Groups, kinds: Option<&[i8]>) -> Vec<u32> {
        let keys = groups.keys.first().map_or(0, |key| key.len());
        let mut needed = vec![u32::try_from(self.wanted.limit).unwrap_or(u32::MAX); keys];
        let gone = groups.of_rows.iter().zip(kinds.unwrap_or_default()).filter(|(_, kind)| !adds(**kind));
        for (group, _) in gone {
            needed.get_mut(*group as usize).into_iter().for_each(|needed| *needed = needed.saturating_add(1));
        }
        needed
    }

    /// Takes rows up: what differs goes out.
    fn take_up(
        &self,
        came: &RecordBatch,
        kinds: Option<&[i8]>,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<()> {
        let groups = self.groups(came)?;
        let table = ctx.state.keyed(ROWS, &self.kept.table)?;
        if self.kept.table.ttl.is_some() {
            table.set_time(ctx.environment.clock.wall());
        }
        let stored = match self.wanted.takes_back {
            true => {
                self.kept.read_first(table, &groups.keys, &self.rows_needed(&groups, kinds), (came, &groups.of_rows))?
            }
            false => self.kept.read(table, &groups.keys, ctx.batch_rows.max(1), &self.input)?,
        };
        let rows = concat_batches(&self.input, [&stored.rows, came])?;
        let of_rows: Vec<u32> = stored.groups.iter().chain(&groups.of_rows).copied().collect();
        let places = ranked(&rows, &of_rows, &self.wanted, &self.order_fields)?;
        let runs = match self.wanted.takes_back {
            true => Runs::counted(&places, &of_rows, &stored.counts, kinds),
            false => Runs::single(&places.places, &of_rows, stored.counts.len()),
        };
        let mut steps = Steps::default();
        for group in runs.groups() {
            steps.say(group, &self.wanted);
        }
        let table = ctx.state.keyed(ROWS, &self.kept.table)?;
        let keys = Groups { of_rows, keys: groups.keys };
        self.kept.write(table, &runs.changes(&self.wanted), (&rows, &keys.of_rows, &keys.keys), &stored)?;
        steps.emit(&rows, &self.schema, ctx.batch_rows, out)
    }
}

impl Operator for TopN {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        ctx.state.keyed(ROWS, &self.inner.kept.table)?;
        Ok(())
    }

    fn on_batch(
        &mut self,
        _input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let kinds = row_kinds(&batch).map(|kinds| kinds.values().as_ref());
        if kinds.is_some() && !self.inner.wanted.takes_back {
            return Err(Error::internal("rows with kinds came where rows are only added"));
        }
        let rows = visible(&batch);
        let at_once = self.inner.rows_at_once(ctx);
        let mut first = 0;
        while first < rows.num_rows() {
            let count = at_once.min(rows.num_rows() - first);
            let kinds = kinds.and_then(|kinds| kinds.get(first..first + count));
            self.inner.take_up(&rows.slice(first, count), kinds, ctx, out)?;
            first += count;
        }
        Ok(Progress::Done)
    }
}
