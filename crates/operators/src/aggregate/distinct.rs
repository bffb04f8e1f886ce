//! DISTINCT for any aggregate: each value of a group counts once.
//!
//! State is the list of a group's values; the aggregate itself sees them only when the result is asked for.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, UInt32Type};
use datafusion::common::{internal_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use datafusion::scalar::ScalarValue;

use super::rows::{GroupedRows, TakenRows, item, unlist};
use super::sums::true_rows;

/// Makes the aggregate that gets each value once.
pub(crate) type MakeInner = Arc<dyn Fn() -> Result<Box<dyn GroupsAccumulator>> + Send + Sync>;

/// What an input column of the aggregate is.
#[derive(Debug, Clone)]
pub(crate) enum DistinctInput {
    /// The value that is distinct.
    Value,
    /// The same for every row.
    Constant(ScalarValue),
}

/// The distinct values of each group.
pub(crate) struct Distinct {
    inner: MakeInner,
    inputs: Vec<DistinctInput>,
    value: DataType,
    /// Pairs of group and value, each once.
    seen: Box<dyn GroupValues>,
    /// Where each row's pair is; kept for its memory.
    places: Vec<usize>,
    total: usize,
}

impl Distinct {
    /// Gives the distinct values, of type `value`, to `inner`, as its `inputs`.
    pub(crate) fn new(inner: MakeInner, inputs: Vec<DistinctInput>, value: DataType) -> Result<Self> {
        let seen = pairs(&value)?;
        Ok(Self { inner, inputs, value, seen, places: Vec::new(), total: 0 })
    }

    /// The one state column.
    pub(crate) fn state_field(value: &DataType) -> FieldRef {
        Arc::new(Field::new("distinct", DataType::List(item(value)), true))
    }

    /// The same under the name that DataFusion gives the state of the aggregate `name`.
    pub(super) fn named_state_field(name: &str, value: &DataType) -> FieldRef {
        Arc::new(Self::state_field(value).as_ref().clone().with_name(format_state_name(name, "distinct")))
    }

    fn add(&mut self, groups: UInt32Array, values: ArrayRef) -> Result<()> {
        self.seen.intern(&[Arc::new(groups), values], &mut self.places)
    }

    fn take(&mut self, emit: EmitTo) -> Result<TakenRows> {
        let seen = std::mem::replace(&mut self.seen, pairs(&self.value)?).emit(EmitTo::All)?;
        let [groups, values] = seen.as_slice() else { return internal_err!("distinct values lost their groups") };
        let groups: Vec<usize> = groups.as_primitive::<UInt32Type>().values().iter().map(|at| *at as usize).collect();
        let mut rows = GroupedRows::new(vec![self.value.clone()]);
        rows.grow(std::mem::take(&mut self.total));
        rows.push(&groups, vec![values.clone()], None)?;
        let taken = rows.take(emit)?;
        if matches!(emit, EmitTo::First(_)) {
            let rest = rows.take(EmitTo::All)?;
            self.total = rest.total;
            rest.columns.into_iter().try_for_each(|values| self.add(rest.groups.clone().into(), values))?;
        }
        Ok(taken)
    }
}

impl DistinctInput {
    /// The column, beside `values` that are distinct.
    pub(crate) fn column(&self, values: &ArrayRef) -> Result<ArrayRef> {
        match self {
            Self::Value => Ok(values.clone()),
            Self::Constant(constant) => constant.to_array_of_size(values.len()),
        }
    }
}

fn pairs(value: &DataType) -> Result<Box<dyn GroupValues>> {
    let fields = vec![Field::new("group", DataType::UInt32, false), Field::new("value", value.clone(), true)];
    new_group_values(Arc::new(Schema::new(fields)), &GroupOrdering::None)
}

/// What a distinct aggregate of ours is made of, when DataFusion itself asks for one: its name and `args`, and the aggregate that
/// gets each value once.
pub(super) fn distinct_of(name: &str, args: &AccumulatorArgs<'_>, inner: MakeInner) -> Result<Distinct> {
    let name = name.to_uppercase();
    let (Some(value), Some(field)) = (args.exprs.first(), args.expr_fields.first()) else {
        return plan_err!("{name}(DISTINCT) needs an argument");
    };
    let mut inputs = vec![DistinctInput::Value];
    for other in args.exprs.iter().skip(1) {
        match other.downcast_ref::<Literal>() {
            Some(constant) => inputs.push(DistinctInput::Constant(constant.value().clone())),
            None => return plan_err!("{name}(DISTINCT ..) takes one column and constants"),
        }
    }
    if args.order_bys.iter().any(|order| !order.expr.eq(value)) {
        return plan_err!("{name}(DISTINCT ..) can be ordered only by what is distinct");
    }
    inputs.extend(args.order_bys.iter().map(|_| DistinctInput::Value));
    Distinct::new(inner, inputs, field.data_type().clone())
}

/// A [`Distinct`] with one group, for DataFusion's plans without GROUP BY. Nobody but the lock's owner uses it; the lock
/// makes it `Sync`.
#[derive(Debug)]
pub(super) struct DistinctAlone(pub(super) Mutex<Distinct>);

impl DistinctAlone {
    fn get(&mut self) -> &mut Distinct {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accumulator for DistinctAlone {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |column| column.len());
        self.get().update_batch(values, &vec![0; rows], None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.get().total = 1;
        ScalarValue::try_from_array(&self.get().evaluate(EmitTo::All)?, 0)
    }

    fn size(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.get().total = 1;
        self.get().state(EmitTo::All)?.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |column| column.len());
        self.get().merge_batch(states, &vec![0; rows], 1)
    }
}

impl std::fmt::Debug for Distinct {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Distinct").field("value", &self.value).finish_non_exhaustive()
    }
}

impl GroupsAccumulator for Distinct {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.total = self.total.max(total_num_groups);
        let Some(values) = values.first() else { return internal_err!("DISTINCT without an argument") };
        let groups = UInt32Array::from_iter_values(group_indices.iter().map(|group| *group as u32));
        match opt_filter.map(true_rows) {
            None => self.add(groups, values.clone()),
            Some(keep) => {
                let groups = filter(&groups, &keep)?;
                self.add(groups.as_primitive::<UInt32Type>().clone(), filter(values, &keep)?)
            }
        }
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let taken = self.take(emit_to)?;
        let Some(values) = taken.columns.first() else { return internal_err!("DISTINCT without values") };
        let inputs = self.inputs.iter().map(|input| input.column(values)).collect::<Result<Vec<_>>>()?;
        let groups: Vec<usize> = taken.groups.iter().map(|group| *group as usize).collect();
        let mut inner = (self.inner)()?;
        inner.update_batch(&inputs, &groups, None, taken.total)?;
        inner.evaluate(EmitTo::All)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.take(emit_to)?.into_lists()
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.total = self.total.max(total_num_groups);
        let (groups, columns) = unlist(values, group_indices)?;
        match columns.into_iter().next() {
            Some(values) => self.add(groups.into(), values),
            None => internal_err!("a stored DISTINCT without values"),
        }
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |column| column.len());
        let mut each = Self::new(self.inner.clone(), self.inputs.clone(), self.value.clone())?;
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), opt_filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.seen.size() + self.places.capacity() * size_of::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use arrow::array::Int64Array;
    use ruslo_core::rng::Rng;

    use super::super::Function;
    use super::super::sums::GroupSums;
    use super::*;

    fn sums() -> Distinct {
        let inner: MakeInner = Arc::new(|| Ok(Box::new(GroupSums::<i128>::new(Function::Sum, DataType::Int64))));
        Distinct::new(inner, vec![DistinctInput::Value], DataType::Int64).unwrap()
    }

    #[test]
    fn each_value_counts_once_however_the_rows_were_cut() {
        let mut rng = Rng::seeded(3);
        for _ in 0..50 {
            let rows: Vec<(usize, Option<i64>, bool)> = (0..rng.below(60))
                .map(|_| (rng.below(4), (!rng.one_in(5)).then(|| rng.below(6) as i64), !rng.one_in(4)))
                .collect();
            let mut expected = BTreeMap::<usize, BTreeSet<i64>>::new();
            for (group, value, keep) in &rows {
                expected.entry(*group).or_default().extend(value.filter(|_| *keep));
            }
            let mut merged = sums();
            for part in rows.chunks(1 + rng.below(9)) {
                let mut distinct = sums();
                let values: ArrayRef = Arc::new(part.iter().map(|row| row.1).collect::<Int64Array>());
                let groups: Vec<usize> = part.iter().map(|row| row.0).collect();
                let keep: BooleanArray = part.iter().map(|row| Some(row.2)).collect();
                distinct.update_batch(&[values], &groups, Some(&keep), 5).unwrap();
                merged.merge_batch(&distinct.state(EmitTo::All).unwrap(), &[0, 1, 2, 3, 4], 5).unwrap();
            }
            let sum = |values: &BTreeSet<i64>| (!values.is_empty()).then(|| values.iter().sum::<i64>());
            let expected: Int64Array = (0..5).map(|group| expected.get(&group).and_then(sum)).collect();
            merged.total = 5;
            assert_eq!(merged.evaluate(EmitTo::All).unwrap().as_primitive::<arrow::datatypes::Int64Type>(), &expected);
        }
    }
}
