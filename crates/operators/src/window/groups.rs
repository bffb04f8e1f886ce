//! The groups of one slice: their keys and one accumulator set.
//!
//! A [`GroupSet`] is filled from rows or from partial states, and emptied either into results or into partial states:
//! a *sealed* batch, `[key columns…, state columns of each aggregate…]`, one row a group, which is what state keeps.
//! The names and order of its columns are stored in checkpoints.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, new_empty_array, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use ruslo_core::error::{Error, Result, ResultExt};
use ruslo_core::key_group::{KeyGroup, key_groups};

use crate::aggregate::{Distinct, DistinctInput, MakeInner};
use crate::expression::{NamedExpr, evaluate, evaluate_condition, execution_error};

/// One aggregate of a GROUP BY.
#[derive(Debug, Clone)]
pub struct AggregateCall {
    function: Arc<AggregateFunctionExpr>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    distinct: Option<DistinctCall>,
}

/// What `DISTINCT` is about.
#[derive(Debug, Clone)]
struct DistinctCall {
    value: DataType,
    inputs: Vec<DistinctInput>,
}

impl AggregateCall {
    /// `function`, whose alias names the column that comes out.
    pub fn new(function: Arc<AggregateFunctionExpr>) -> Self {
        Self { function, filter: None, distinct: None }
    }

    /// `function FILTER (WHERE condition)`.
    #[must_use]
    pub fn with_filter(self, condition: Arc<dyn PhysicalExpr>) -> Self {
        Self { filter: Some(condition), ..self }
    }

    /// `function(DISTINCT ..)` over rows of `input`: each value of its first argument counts once. The function itself
    /// must not have been made distinct.
    ///
    /// # Errors
    /// `Usage`, if another argument is no constant, or it is ordered by something else than the argument.
    pub fn distinct(self, input: &Schema) -> Result<Self> {
        let name = self.function.fun().name().to_uppercase();
        let arguments = self.function.expressions();
        let Some(value) = arguments.first() else {
            return Err(Error::usage(format!("{name}(DISTINCT) needs an argument")));
        };
        let mut inputs = vec![DistinctInput::Value];
        for other in arguments.iter().skip(1) {
            let Some(constant) = other.downcast_ref::<Literal>() else {
                return Err(Error::usage(format!("{name}(DISTINCT ..) takes one column and constants")));
            };
            inputs.push(DistinctInput::Constant(constant.value().clone()));
        }
        for order in self.function.order_bys() {
            if !order.expr.eq(value) {
                return Err(Error::usage(format!("{name}(DISTINCT ..) can be ordered only by what is distinct")));
            }
            inputs.push(DistinctInput::Value);
        }
        let distinct = Some(DistinctCall { value: value.data_type(input).map_err(execution_error)?, inputs });
        Ok(Self { distinct, ..self })
    }

    /// The function.
    pub(crate) fn function(&self) -> &Arc<AggregateFunctionExpr> {
        &self.function
    }

    /// What a row must be to count.
    pub(crate) fn filter(&self) -> Option<&Arc<dyn PhysicalExpr>> {
        self.filter.as_ref()
    }

    /// Where each input of the function comes from, if each value counts once.
    pub(crate) fn distinct_inputs(&self) -> Option<&[DistinctInput]> {
        self.distinct.as_ref().map(|distinct| distinct.inputs.as_slice())
    }

    fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>> {
        let Some(distinct) = &self.distinct else { return plain(&self.function).map_err(execution_error) };
        let function = Arc::clone(&self.function);
        let inner: MakeInner = Arc::new(move || plain(&function));
        let made = Distinct::new(inner, distinct.inputs.clone(), distinct.value.clone()).map_err(execution_error)?;
        Ok(Box::new(made))
    }

    /// What [`Self::accumulator`] is given of each row: the arguments, then what it is ordered by.
    pub(crate) fn inputs(&self) -> Vec<Arc<dyn PhysicalExpr>> {
        let mut inputs = self.function.expressions();
        match self.distinct {
            Some(_) => inputs.truncate(1),
            None => inputs.extend(self.function.order_bys().iter().map(|order| Arc::clone(&order.expr))),
        }
        inputs
    }

    fn state_fields(&self) -> Result<Vec<FieldRef>> {
        match &self.distinct {
            Some(distinct) => Ok(vec![Distinct::state_field(&distinct.value)]),
            None => self.function.state_fields().map_err(execution_error),
        }
    }
}

/// The function's own accumulator for many groups, or one row accumulator a group where it has none.
pub(crate) fn plain(function: &Arc<AggregateFunctionExpr>) -> DfResult<Box<dyn GroupsAccumulator>> {
    if function.groups_accumulator_supported() {
        return function.create_groups_accumulator();
    }
    let function = Arc::clone(function);
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || function.create_accumulator())))
}

/// What a GROUP BY computes; shared by all its group sets.
#[derive(Debug)]
pub(super) struct GroupPlan {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    key_schema: SchemaRef,
    aggregates: Vec<Aggregate>,
    sealed_schema: SchemaRef,
    result_schema: SchemaRef,
}

#[derive(Debug)]
struct Aggregate {
    call: AggregateCall,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    state_columns: usize,
}

impl GroupPlan {
    /// Groups by `keys`; `aggregates` are the results.
    ///
    /// # Errors
    /// `Usage`, if a key's type cannot be a key, or an aggregate is not possible.
    pub(super) fn new(keys: Vec<NamedExpr>, calls: Vec<AggregateCall>) -> Result<Self> {
        let (keys, key_fields): (Vec<_>, Vec<_>) = keys.into_iter().map(|key| (key.expr, key.field)).unzip();
        for field in &key_fields {
            key_groups(&[new_empty_array(field.data_type())], 0).context(|| format!("GROUP BY {}", field.name()))?;
        }
        let results = calls.iter().map(|call| call.function.field());
        let result_schema = Arc::new(Schema::new(key_fields.iter().cloned().chain(results).collect::<Vec<_>>()));
        let mut sealed = key_fields.iter().enumerate().map(|(at, field)| sealed_key(at, field)).collect::<Vec<_>>();
        let aggregates = plan_aggregates(calls, &mut sealed)?;
        if sealed.is_empty() {
            // A batch must have a column to be stored.
            sealed.push(Arc::new(Field::new("present", DataType::Int8, true)));
        }
        let sealed_schema = Arc::new(Schema::new(sealed));
        Ok(Self { keys, key_schema: Arc::new(Schema::new(key_fields)), aggregates, sealed_schema, result_schema })
    }

    /// The keys and the results.
    pub(super) fn result_schema(&self) -> &SchemaRef {
        &self.result_schema
    }

    /// The key group of each row of a sealed batch.
    pub(super) fn key_groups(&self, sealed: &RecordBatch) -> Result<Vec<KeyGroup>> {
        key_groups(self.split(sealed).0, sealed.num_rows())
    }

    /// The key columns and the state columns of a sealed batch.
    fn split<'a>(&self, sealed: &'a RecordBatch) -> (&'a [ArrayRef], &'a [ArrayRef]) {
        sealed.columns().split_at_checked(self.keys.len()).unwrap_or((sealed.columns(), &[]))
    }

    /// The results, `[key columns…, aggregates…]`, of rows of a sealed batch: each row is a group of its own.
    pub(super) fn results(&self, sealed: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let mut accumulators = self.accumulators()?;
        let (keys, states) = self.split(sealed);
        let groups: Vec<usize> = (0..sealed.num_rows()).collect();
        merge(&mut accumulators, &self.aggregates, states, &groups, groups.len())?;
        let mut columns = keys.to_vec();
        evaluate_all(&mut accumulators, &mut columns)?;
        Ok(columns)
    }

    /// The name of an aggregate whose state grows with every row, if there is one.
    pub(super) fn keeps_all_values(&self) -> Option<&str> {
        let all = ["array_agg", "string_agg", "listagg", "median", "percentile_cont"];
        let names = self.aggregates.iter().map(|aggregate| aggregate.call.function.fun().name());
        names.into_iter().find(|name| all.contains(name))
    }

    fn accumulators(&self) -> Result<Vec<Box<dyn GroupsAccumulator>>> {
        self.aggregates.iter().map(|aggregate| aggregate.call.accumulator()).collect()
    }

    /// The key columns of rows of the input.
    pub(super) fn keys(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        self.keys.iter().map(|key| evaluate(key, batch)).collect()
    }

    /// One row of a sealed batch: no keys, and what the aggregates are before the first row.
    pub(super) fn fresh(self: &Arc<Self>) -> Result<RecordBatch> {
        let mut accumulators = Accumulators::new(self)?;
        accumulators.merge(&RecordBatch::new_empty(self.sealed_schema.clone()), &[], 1)?;
        let keys = self.key_schema.fields().iter().map(|field| new_null_array(field.data_type(), 1));
        let columns = keys.chain(accumulators.seal(1)?).collect();
        Ok(RecordBatch::try_new(self.sealed_schema.clone(), columns)?)
    }

    /// The columns of [`Self::keys`].
    pub(super) fn key_schema(&self) -> &SchemaRef {
        &self.key_schema
    }

    /// The columns of a sealed batch: keys, then the states of each aggregate.
    pub(super) fn sealed_schema(&self) -> &SchemaRef {
        &self.sealed_schema
    }
}

/// The accumulators of groups that their owner numbers, from 0.
pub(super) struct Accumulators {
    plan: Arc<GroupPlan>,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
}

impl Accumulators {
    pub(super) fn new(plan: &Arc<GroupPlan>) -> Result<Self> {
        Ok(Self { plan: Arc::clone(plan), accumulators: plan.accumulators()? })
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.accumulators.iter().map(|accumulator| accumulator.size()).sum()
    }

    /// Adds rows of the input; `row_groups` has the group of each, of `groups` groups in all.
    pub(super) fn update(&mut self, batch: &RecordBatch, row_groups: &[usize], groups: usize) -> Result<()> {
        update(&mut self.accumulators, &self.plan.aggregates, batch, row_groups, groups)
    }

    /// Adds rows of a sealed batch; `row_groups` has the group of each, of `groups` groups in all.
    pub(super) fn merge(&mut self, sealed: &RecordBatch, row_groups: &[usize], groups: usize) -> Result<()> {
        let (_, states) = self.plan.split(sealed);
        merge(&mut self.accumulators, &self.plan.aggregates, states, row_groups, groups)
    }

    /// The state columns of a sealed batch, one row a group, or what stands for them where there are none; nothing is
    /// held any more.
    pub(super) fn seal(mut self, groups: usize) -> Result<Vec<ArrayRef>> {
        let mut columns = Vec::new();
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All).map_err(execution_error)?);
        }
        if self.plan.sealed_schema.fields().len() > self.plan.keys.len() + columns.len() {
            columns.push(Arc::new(Int8Array::from(vec![1; groups])));
        }
        Ok(columns)
    }
}

fn sealed_key(at: usize, field: &FieldRef) -> FieldRef {
    Arc::new(Field::new(format!("key{at}"), field.data_type().clone(), true))
}

/// Plans each call and adds its state columns to `sealed`.
fn plan_aggregates(calls: Vec<AggregateCall>, sealed: &mut Vec<FieldRef>) -> Result<Vec<Aggregate>> {
    let mut aggregates = Vec::with_capacity(calls.len());
    for (at, call) in calls.into_iter().enumerate() {
        let name = call.function.fun().name();
        let states = call.state_fields().context(|| name.to_owned())?;
        for (column, state) in states.iter().enumerate() {
            let column = format!("aggregate{at}_{column}");
            sealed.push(Arc::new(state.as_ref().clone().with_name(column).with_nullable(true)));
        }
        call.accumulator().context(|| name.to_owned())?;
        let arguments = call.inputs();
        aggregates.push(Aggregate { arguments, state_columns: states.len(), call });
    }
    Ok(aggregates)
}

/// Groups and what was accumulated for them.
pub(super) struct GroupSet {
    plan: Arc<GroupPlan>,
    keys: Keys,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// The group of each row of the batch at hand; kept for its memory.
    row_groups: Vec<usize>,
}

enum Keys {
    /// Without keys there is one group, from the first row on.
    One {
        seen: bool,
    },
    Many(Box<dyn GroupValues>),
}

impl GroupSet {
    pub(super) fn new(plan: &Arc<GroupPlan>) -> Result<Self> {
        let keys = if plan.keys.is_empty() {
            Keys::One { seen: false }
        } else {
            let values = new_group_values(plan.key_schema.clone(), &GroupOrdering::None).map_err(execution_error)?;
            Keys::Many(values)
        };
        Ok(Self { plan: Arc::clone(plan), keys, accumulators: plan.accumulators()?, row_groups: Vec::new() })
    }

    /// How many groups there are.
    pub(super) fn len(&self) -> usize {
        match &self.keys {
            Keys::One { seen } => usize::from(*seen),
            Keys::Many(values) => values.len(),
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let keys = match &self.keys {
            Keys::One { .. } => 0,
            Keys::Many(values) => values.size(),
        };
        let row_groups = self.row_groups.capacity() * size_of::<usize>();
        keys + row_groups + self.accumulators.iter().map(|accumulator| accumulator.size()).sum::<usize>()
    }

    /// Adds rows of the input.
    pub(super) fn update(&mut self, batch: &RecordBatch) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        let keys = plan.keys(batch)?;
        self.intern(&keys, batch.num_rows())?;
        let groups = self.len();
        update(&mut self.accumulators, &plan.aggregates, batch, &self.row_groups, groups)
    }

    /// Adds groups of a sealed batch.
    pub(super) fn merge(&mut self, sealed: &RecordBatch) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        let (keys, states) = plan.split(sealed);
        self.intern(keys, sealed.num_rows())?;
        let groups = self.len();
        merge(&mut self.accumulators, &plan.aggregates, states, &self.row_groups, groups)
    }

    fn intern(&mut self, keys: &[ArrayRef], rows: usize) -> Result<()> {
        match &mut self.keys {
            Keys::Many(values) => values.intern(keys, &mut self.row_groups).map_err(execution_error),
            Keys::One { seen } => {
                *seen |= rows > 0;
                self.row_groups.clear();
                self.row_groups.resize(rows, 0);
                Ok(())
            }
        }
    }

    /// All groups as a sealed batch, in the order in which they came.
    pub(super) fn seal(mut self) -> Result<RecordBatch> {
        let rows = self.len();
        let mut columns = self.take_keys()?;
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All).map_err(execution_error)?);
        }
        if columns.is_empty() {
            columns.push(Arc::new(Int8Array::from(vec![1; rows])));
        }
        Ok(RecordBatch::try_new(self.plan.sealed_schema.clone(), columns)?)
    }

    /// All groups as results: `[key columns…, aggregates…]`.
    pub(super) fn results(mut self) -> Result<Vec<ArrayRef>> {
        let mut columns = self.take_keys()?;
        evaluate_all(&mut self.accumulators, &mut columns)?;
        Ok(columns)
    }

    fn take_keys(&mut self) -> Result<Vec<ArrayRef>> {
        match &mut self.keys {
            Keys::One { .. } => Ok(Vec::new()),
            Keys::Many(values) => values.emit(EmitTo::All).map_err(execution_error),
        }
    }
}

fn evaluate_all(accumulators: &mut [Box<dyn GroupsAccumulator>], columns: &mut Vec<ArrayRef>) -> Result<()> {
    for accumulator in accumulators {
        columns.push(accumulator.evaluate(EmitTo::All).map_err(execution_error)?);
    }
    Ok(())
}

fn update(
    accumulators: &mut [Box<dyn GroupsAccumulator>],
    aggregates: &[Aggregate],
    batch: &RecordBatch,
    row_groups: &[usize],
    groups: usize,
) -> Result<()> {
    for (aggregate, accumulator) in aggregates.iter().zip(accumulators) {
        let arguments = aggregate.arguments.iter().map(|argument| evaluate(argument, batch));
        let arguments = arguments.collect::<Result<Vec<_>>>()?;
        let filter = aggregate.call.filter.as_ref().map(|filter| evaluate_condition(filter, batch)).transpose()?;
        accumulator.update_batch(&arguments, row_groups, filter.as_ref(), groups).map_err(execution_error)?;
    }
    Ok(())
}

fn merge(
    accumulators: &mut [Box<dyn GroupsAccumulator>],
    aggregates: &[Aggregate],
    mut states: &[ArrayRef],
    row_groups: &[usize],
    groups: usize,
) -> Result<()> {
    for (accumulator, aggregate) in accumulators.iter_mut().zip(aggregates) {
        let (own, rest) = states
            .split_at_checked(aggregate.state_columns)
            .ok_or_else(|| Error::internal("a stored window has fewer state columns than its aggregates"))?;
        accumulator.merge_batch(own, row_groups, groups).map_err(execution_error)?;
        states = rest;
    }
    Ok(())
}
