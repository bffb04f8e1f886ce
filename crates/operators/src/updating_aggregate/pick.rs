//! One value of each group: the least, the greatest, the first or the last one. NULLs do not count.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowNativeTypeOp, AsArray, PrimitiveArray, downcast_primitive};
use arrow::compute::interleave;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::internal_err;
use datafusion::error::Result;

use super::accumulate::{Accumulate, Rows};

/// Which value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Least,
    Greatest,
    /// In the order in which rows come.
    First,
    Last,
}

impl Which {
    /// Whether the new value takes the place of the old one, which it is compared with.
    fn prefers(self, new: Ordering) -> bool {
        match self {
            Self::Least => new == Ordering::Less,
            Self::Greatest => new == Ordering::Greater,
            Self::First => false,
            Self::Last => true,
        }
    }

    fn compares(self) -> bool {
        matches!(self, Self::Least | Self::Greatest)
    }
}

/// One value of each group, over rows that are never taken back. State: the value.
#[derive(Debug)]
pub(super) struct Pick {
    pub(super) which: Which,
    pub(super) argument: DataType,
}

impl Accumulate for Pick {
    fn state(&self) -> Vec<(DataType, bool)> {
        vec![(self.argument.clone(), true)]
    }

    fn update(&self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<Vec<ArrayRef>> {
        match (states, rows.columns) {
            ([state], [values, ..]) => Ok(vec![pick(self.which, state, &canonical(values), rows)?]),
            _ => internal_err!("the choice of a value has one column"),
        }
    }

    fn merge(&self, states: &[ArrayRef], partials: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let added = vec![false; states.first().map_or(0, |state| state.len())];
        self.update(states, &Rows { columns: partials, groups, signs: &vec![1; groups.len()], added: &added })
    }

    fn merges(&self) -> bool {
        self.which.compares()
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef> {
        match states {
            [value] => Ok(Arc::clone(value)),
            _ => internal_err!("the choice of a value has one column"),
        }
    }
}

/// The chosen one of each group's `state`, where it is not NULL, and of the `values` of those of `rows` that add.
pub(super) fn pick(which: Which, state: &ArrayRef, values: &ArrayRef, rows: &Rows<'_>) -> Result<ArrayRef> {
    let chosen = if which.compares() {
        choose_by_value(which, state, values, rows)?
    } else {
        choose_by_place(which, state, values, rows)
    };
    Ok(interleave(&[state.as_ref(), values.as_ref()], &chosen)?)
}

fn choose_by_place(which: Which, state: &ArrayRef, values: &ArrayRef, rows: &Rows<'_>) -> Vec<(usize, usize)> {
    choose(which, state, values, rows, |_| (), |_| (), |(), ()| Ordering::Equal)
}

fn choose_by_value(which: Which, state: &ArrayRef, values: &ArrayRef, rows: &Rows<'_>) -> Result<Vec<(usize, usize)>> {
    fn primitive<T: ArrowPrimitiveType>(
        which: Which,
        state: &ArrayRef,
        values: &ArrayRef,
        rows: &Rows<'_>,
    ) -> Result<Vec<(usize, usize)>>
    where
        T::Native: ArrowNativeTypeOp,
    {
        let (Some(old), Some(new)): (Option<&PrimitiveArray<T>>, Option<&PrimitiveArray<T>>) =
            (state.as_primitive_opt(), values.as_primitive_opt())
        else {
            return internal_err!("a value is {}, its state {}", values.data_type(), state.data_type());
        };
        let compare = |one: T::Native, other: T::Native| one.compare(other);
        Ok(choose(which, state, values, rows, |at| old.value(at), |at| new.value(at), compare))
    }
    macro_rules! primitive {
        ($type:ty) => {
            primitive::<$type>(which, state, values, rows)
        };
    }
    downcast_primitive! {
        values.data_type() => (primitive),
        DataType::Utf8 => {
            let (old, new) = (state.as_string::<i32>(), values.as_string::<i32>());
            Ok(choose(which, state, values, rows, |at| old.value(at), |at| new.value(at), |one: &str, other: &str| one.cmp(other)))
        }
        _ => {
            let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())])?;
            let old = converter.convert_columns(&[Arc::clone(state)])?;
            let new = converter.convert_columns(&[Arc::clone(values)])?;
            Ok(choose(which, state, values, rows, |at| old.row(at), |at| new.row(at), |one, other| one.cmp(&other)))
        }
    }
}

/// Where the value of each group is: in the first array, of states, or in the second, of rows.
fn choose<V: Copy>(
    which: Which,
    state: &ArrayRef,
    values: &ArrayRef,
    rows: &Rows<'_>,
    old: impl Fn(usize) -> V,
    new: impl Fn(usize) -> V,
    compare: impl Fn(V, V) -> Ordering,
) -> Vec<(usize, usize)> {
    let mut chosen: Vec<(usize, usize)> = (0..rows.total()).map(|group| (0, group)).collect();
    let mut best: Vec<Option<V>> = (0..rows.total()).map(|group| state.is_valid(group).then(|| old(group))).collect();
    rows.for_each_valid(Some(values), |group, sign, row| {
        let (Some(best), Some(chosen)) = (best.get_mut(group), chosen.get_mut(group)) else { return };
        let value = new(row);
        if sign > 0 && best.is_none_or(|best| which.prefers(compare(value, best))) {
            (*best, *chosen) = (Some(value), (1, row));
        }
    });
    chosen
}

/// `column` with one zero and one NaN: what is equal as a key looks equal.
pub(crate) fn canonical(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float32 => {
            let one = |value: f32| if value.is_nan() { f32::NAN } else { value + 0.0 };
            Arc::new(column.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        DataType::Float64 => {
            let one = |value: f64| if value.is_nan() { f64::NAN } else { value + 0.0 };
            Arc::new(column.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        _ => Arc::clone(column),
    }
}
