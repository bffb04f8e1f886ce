//! Any other aggregate, over rows that are never taken back: its own partial state, merged and written anew.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::accumulate::{Accumulate, Rows};
use crate::window::plain;

/// An aggregate with a state of its own.
#[derive(Debug)]
pub(super) struct Kept {
    function: Arc<AggregateFunctionExpr>,
    state: Vec<FieldRef>,
}

impl Kept {
    pub(super) fn new(function: Arc<AggregateFunctionExpr>) -> Result<Self> {
        let state = function.state_fields()?;
        plain(&function)?;
        Ok(Self { function, state })
    }
}

/// The results of partial states of `function`, one row a group.
pub(super) fn merged(function: &Arc<AggregateFunctionExpr>, states: &[ArrayRef]) -> Result<ArrayRef> {
    let groups: Vec<usize> = (0..states.first().map_or(0, |column| column.len())).collect();
    let mut accumulator = plain(function)?;
    accumulator.merge_batch(states, &groups, groups.len())?;
    accumulator.evaluate(EmitTo::All)
}

impl Accumulate for Kept {
    fn state(&self) -> Vec<(DataType, bool)> {
        self.state.iter().map(|field| (field.data_type().clone(), true)).collect()
    }

    fn update(&self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<Vec<ArrayRef>> {
        let mut accumulator = plain(&self.function)?;
        let old = rows.added.iter().enumerate().filter(|(_, added)| !**added).map(|(group, _)| group);
        let old: Vec<usize> = old.collect();
        if !old.is_empty() {
            let places = UInt32Array::from_iter_values(old.iter().map(|group| *group as u32));
            let states = states.iter().map(|state| Ok(take(state, &places, None)?)).collect::<Result<Vec<_>>>()?;
            accumulator.merge_batch(&states, &old, rows.total())?;
        }
        let groups: Vec<usize> = rows.groups.iter().map(|group| *group as usize).collect();
        let all_count = rows.signs.iter().all(|sign| *sign != 0);
        let counted = if all_count { None } else { Some(rows.counted()) };
        accumulator.update_batch(rows.columns, &groups, counted.as_ref(), rows.total())?;
        accumulator.state(EmitTo::All)
    }

    fn merge(&self, _: &[ArrayRef], _: &[ArrayRef], _: &[u32]) -> Result<Vec<ArrayRef>> {
        internal_err!("{} has no partial groups", self.function.fun().name())
    }

    /// Lists have an order, and what is large is better not made twice.
    fn merges(&self) -> bool {
        false
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef> {
        merged(&self.function, states)
    }
}
