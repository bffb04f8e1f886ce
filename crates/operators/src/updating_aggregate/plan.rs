//! How each aggregate of an updating GROUP BY is computed, and which columns and tables are kept for it.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::Literal;
use ruslo_core::error::{Error, Result, ResultExt};
use ruslo_core::keyed::Ttl;

use super::accumulate::Accumulate;
use super::kept::Kept;
use super::pick::{Pick, Which};
use super::spread::{FloatSpread, IntegerSpread};
use super::sums::{Count, ExactSum, FloatSum, Truth};
use super::values::{NAMES, Values};
use crate::aggregate::{DistinctInput, Function, is_exact};
use crate::expression::execution_error;
use crate::window::AggregateCall;

/// One aggregate.
#[derive(Debug)]
pub(super) struct Aggregate {
    pub(super) means: Means,
    /// By its place among the operator's; 0 is none.
    pub(super) filter: usize,
    /// How many state columns it has.
    pub(super) columns: usize,
}

/// From what an aggregate is computed.
#[derive(Debug)]
pub(super) enum Means {
    /// From the rows.
    Rows { accumulate: Box<dyn Accumulate>, arguments: Vec<Arc<dyn PhysicalExpr>> },
    /// From values that come and go, as the inputs say.
    Distinct { accumulate: Box<dyn Accumulate>, values: Counted, inputs: Vec<DistinctInput> },
    /// The extreme of the values that are there. State: the value.
    Extreme { which: Which, values: Counted },
}

/// Where values are counted: the table, and the filter's place in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    pub(super) table: usize,
    pub(super) filter: usize,
}

/// All that is computed and kept.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) aggregates: Vec<Aggregate>,
    /// Conditions of FILTER; the first is none.
    pub(super) filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// Each with its argument.
    pub(super) values: Vec<(Arc<dyn PhysicalExpr>, Values)>,
    /// The state columns of all aggregates.
    pub(super) state: Vec<FieldRef>,
    /// The columns that come out.
    pub(super) results: Vec<FieldRef>,
}

/// What an aggregate may meet.
pub(super) struct World<'a> {
    pub(super) input: &'a Schema,
    pub(super) key: &'a [FieldRef],
    pub(super) takes_back: bool,
    pub(super) ttl: Option<Ttl>,
}

impl Plan {
    /// # Errors
    /// `Usage`, if an aggregate is not possible here.
    pub(super) fn new(calls: Vec<AggregateCall>, world: &World<'_>) -> Result<Self> {
        let (aggregates, values, state, results) = Default::default();
        let mut plan = Self { aggregates, filters: vec![None], values, state, results };
        for call in calls {
            let name = call.function().fun().name().to_uppercase();
            plan.add(&call, world).context(|| name)?;
        }
        Ok(plan)
    }

    fn add(&mut self, call: &AggregateCall, world: &World<'_>) -> Result<()> {
        let filter = self.filter(call.filter());
        let function = call.function();
        let types = call.inputs().into_iter().map(|input| input.data_type(world.input).map_err(execution_error));
        let types = types.collect::<Result<Vec<_>>>()?;
        let means = match (call.distinct_inputs(), extreme(function), types.first()) {
            (Some(inputs), _, Some(argument)) => {
                let accumulate = accumulate(function, &types, world.takes_back)?;
                let values = self.counted(call, filter, argument, world)?;
                Means::Distinct { accumulate, values, inputs: inputs.to_vec() }
            }
            (_, Some(which), Some(argument)) if world.takes_back => {
                Means::Extreme { which, values: self.counted(call, filter, argument, world)? }
            }
            _ => {
                let accumulate = accumulate(function, &types, world.takes_back)?;
                Means::Rows { accumulate, arguments: arguments(call) }
            }
        };
        let state = match (&means, types.first()) {
            (Means::Rows { accumulate, .. } | Means::Distinct { accumulate, .. }, _) => accumulate.state(),
            (Means::Extreme { .. }, Some(argument)) => vec![(argument.clone(), true)],
            (Means::Extreme { .. }, None) => Vec::new(),
        };
        let at = self.aggregates.len();
        self.aggregates.push(Aggregate { means, filter, columns: state.len() });
        let fields = state.into_iter().enumerate().map(|(column, (data_type, is_nullable))| {
            Arc::new(Field::new(format!("aggregate{at}_{column}"), data_type, is_nullable))
        });
        self.state.extend(fields);
        self.results.push(function.field());
        Ok(())
    }

    /// The place of a filter: a new one is added.
    fn filter(&mut self, filter: Option<&Arc<dyn PhysicalExpr>>) -> usize {
        let is_same = |known: &Option<Arc<dyn PhysicalExpr>>| match (known, filter) {
            (Some(known), Some(filter)) => known.eq(filter),
            (known, filter) => known.is_none() && filter.is_none(),
        };
        self.filters.iter().position(is_same).unwrap_or_else(|| {
            self.filters.push(filter.cloned());
            self.filters.len() - 1
        })
    }

    /// Where the values of the first argument are counted under `filter`: a new table or count is added.
    fn counted(
        &mut self,
        call: &AggregateCall,
        filter: usize,
        argument: &DataType,
        world: &World<'_>,
    ) -> Result<Counted> {
        let inputs = call.inputs();
        let Some(expr) = inputs.first() else { return Err(Error::internal("values without an argument")) };
        let known = self.values.iter().position(|(known, _)| known.eq(expr));
        let table = known.unwrap_or(self.values.len());
        let mut filters = self.values.get(table).map(|(_, values)| values.filters.clone()).unwrap_or_default();
        let place = filters.iter().position(|known| *known == filter).unwrap_or_else(|| {
            filters.push(filter);
            filters.len() - 1
        });
        let name = NAMES.get(table).copied().ok_or_else(|| {
            Error::usage(format!("a GROUP BY keeps the values of {} columns at most; use two of them", NAMES.len()))
        })?;
        let made = Values::new(name, world.key.to_vec(), argument.clone(), filters, (world.takes_back, world.ttl));
        match self.values.get_mut(table) {
            Some((_, values)) => *values = made,
            None => self.values.push((Arc::clone(expr), made)),
        }
        Ok(Counted { table, filter: place })
    }
}

/// What the rows' accumulator is given; nothing where only rows are counted.
fn arguments(call: &AggregateCall) -> Vec<Arc<dyn PhysicalExpr>> {
    let is_one =
        |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Literal>().is_some_and(|literal| !literal.value().is_null());
    let inputs = call.inputs();
    if call.function().fun().name() == "count" && inputs.iter().all(is_one) { Vec::new() } else { inputs }
}

fn extreme(function: &AggregateFunctionExpr) -> Option<Which> {
    match function.fun().name() {
        "min" => Some(Which::Least),
        "max" => Some(Which::Greatest),
        _ => None,
    }
}

/// The accumulator of `function` over arguments of `types`.
fn accumulate(
    function: &Arc<AggregateFunctionExpr>,
    types: &[DataType],
    takes_back: bool,
) -> Result<Box<dyn Accumulate>> {
    let name = function.fun().name();
    let Some(argument) = types.first().cloned() else { return Ok(Box::new(Count)) };
    let sum = |function: Function, argument: DataType| -> Box<dyn Accumulate> {
        match is_exact(&argument) {
            true => Box::new(ExactSum { function, argument }),
            false => Box::new(FloatSum { function, argument, takes_back }),
        }
    };
    let pick = |which| Box::new(Pick { which, argument: argument.clone() });
    Ok(match name {
        "count" if types.len() == 1 => Box::new(Count),
        "sum" => sum(Function::Sum, argument),
        "avg" => sum(Function::Avg, argument),
        "bool_and" => Box::new(Truth { is_and: true }),
        "bool_or" => Box::new(Truth { is_and: false }),
        "var_pop" | "var_samp" | "stddev_pop" | "stddev_samp" => {
            let function = Arc::clone(function);
            match argument.is_integer() {
                true => Box::new(IntegerSpread { function }),
                false => Box::new(FloatSpread { function }),
            }
        }
        _ if takes_back => return Err(cannot_take_back(name)),
        "min" => pick(Which::Least),
        "max" => pick(Which::Greatest),
        "first_value" if types.len() == 1 => pick(Which::First),
        "last_value" if types.len() == 1 => pick(Which::Last),
        _ => Box::new(Kept::new(Arc::clone(function)).map_err(execution_error)?),
    })
}

fn cannot_take_back(name: &str) -> Error {
    let name = name.to_uppercase();
    Error::usage(format!(
        "{name} cannot take rows back, and its input changes; aggregate rows that are only added, \
         or use COUNT, SUM, AVG, MIN, MAX, BOOL_AND, BOOL_OR, VAR_ and STDDEV_ functions"
    ))
}
