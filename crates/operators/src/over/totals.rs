//! COUNT, SUM and AVG over frames: what a row adds when it enters, it takes away when it leaves.
//!
//! Integers and decimals are exact. Of FLOAT and DOUBLE the sum is compensated, so that what has left leaves next to
//! nothing behind, and values that are no numbers are counted apart.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
};
use datafusion::common::internal_err;
use datafusion::error::Result;

use super::frame::{Does, Walk};
use crate::aggregate::{Function, Total, overflow, total_type};
use crate::updating_aggregate::numbers;

/// A total over frames. Its state is columns, one row a key; that of a new key is zero.
#[derive(Debug, Clone)]
pub(super) enum Totals {
    /// Rows, or values that are not NULL. State: how many.
    Count,
    /// SUM or AVG of integers and decimals of this type. State: the total, and how many.
    Exact(Function, DataType),
    /// SUM or AVG of FLOAT or DOUBLE. State: the total and what rounding took from it, of numbers; how many values there
    /// are; how many are NaN, infinite, and infinite and negative.
    Float(Function, DataType),
}

/// States after a piece, and the result of each of its rows.
pub(super) type Walked = (Vec<ArrayRef>, ArrayRef);

impl Totals {
    /// The types of the state columns.
    pub(super) fn state(&self) -> Vec<DataType> {
        match self {
            Self::Count => vec![DataType::Int64],
            Self::Exact(_, argument) => vec![total_type(argument), DataType::Int64],
            Self::Float(..) => {
                let count = || DataType::Int64;
                vec![DataType::Float64, DataType::Float64, count(), count(), count(), count()]
            }
        }
    }

    /// Goes through the rows of `walk`, whose arguments are `values`, if there are any.
    pub(super) fn walk(&self, states: &[ArrayRef], walk: &Walk, values: Option<&ArrayRef>) -> Result<Walked> {
        match (self, values) {
            (Self::Count, values) => count(states, walk, values),
            (Self::Exact(function, argument), Some(values)) => exact(*function, argument, states, walk, values),
            (Self::Float(function, argument), Some(values)) => float(*function, argument, states, walk, values),
            (_, None) => internal_err!("a sum without an argument"),
        }
    }
}

/// Calls `each` with every cell that changes, the row and its sign, and gives the cells as they were at each result.
fn walked<C: Copy>(
    cells: &mut [C],
    walk: &Walk,
    values: Option<&ArrayRef>,
    mut each: impl FnMut(&mut C, usize, i64),
) -> Vec<C> {
    let mut results = Vec::with_capacity(walk.places.len());
    let nulls = values.and_then(|values| values.logical_nulls()).filter(|nulls| nulls.null_count() > 0);
    for step in &walk.steps {
        let Some(cell) = cells.get_mut(step.group as usize) else { continue };
        let sign = match step.does {
            Does::Enters => 1,
            Does::Leaves => -1,
            Does::Results => {
                results.push(*cell);
                continue;
            }
        };
        if nulls.as_ref().is_none_or(|nulls| nulls.is_valid(step.row as usize)) {
            each(cell, step.row as usize, sign);
        }
    }
    results
}

fn count(states: &[ArrayRef], walk: &Walk, values: Option<&ArrayRef>) -> Result<Walked> {
    let mut counts = numbers::<Int64Type>(states, 0)?;
    let results = walked(&mut counts, walk, values, |count, _, sign| *count += sign);
    Ok((vec![Arc::new(Int64Array::from(counts))], Arc::new(Int64Array::from(results))))
}

fn exact(
    function: Function,
    argument: &DataType,
    states: &[ArrayRef],
    walk: &Walk,
    values: &ArrayRef,
) -> Result<Walked> {
    let totals = numbers::<Decimal128Type>(states, 0)?;
    let mut cells: Vec<(i128, i64)> = totals.into_iter().zip(numbers::<Int64Type>(states, 1)?).collect();
    let (results, fits) = match argument {
        DataType::Int8 => added::<Int8Type>(&mut cells, walk, values),
        DataType::Int16 => added::<Int16Type>(&mut cells, walk, values),
        DataType::Int32 => added::<Int32Type>(&mut cells, walk, values),
        DataType::Int64 => added::<Int64Type>(&mut cells, walk, values),
        DataType::Decimal128(..) => added::<Decimal128Type>(&mut cells, walk, values),
        other => return internal_err!("an exact sum over {other}"),
    };
    if !fits {
        return Err(overflow(function, argument));
    }
    let groups: Vec<Option<(i128, i64)>> = results.into_iter().map(|cell| (cell.1 > 0).then_some(cell)).collect();
    let result = i128::finish(function, argument, &groups)?;
    let totals =
        Decimal128Array::from_iter_values(cells.iter().map(|cell| cell.0)).with_data_type(total_type(argument));
    let counts = Int64Array::from_iter_values(cells.iter().map(|cell| cell.1));
    Ok((vec![Arc::new(totals), Arc::new(counts)], result))
}

/// The cells at each result, and whether every total fits.
fn added<T: ArrowPrimitiveType>(cells: &mut [(i128, i64)], walk: &Walk, values: &ArrayRef) -> (Vec<(i128, i64)>, bool)
where
    T::Native: Into<i128>,
{
    let numbers: &PrimitiveArray<T> = values.as_primitive();
    let mut fits = true;
    let results = walked(cells, walk, Some(values), |(total, count), row, sign| {
        let value: i128 = numbers.value(row).into();
        fits &= total.add(if sign < 0 { value.wrapping_neg() } else { value });
        *count += sign;
    });
    (results, fits)
}

/// A sum of floating-point numbers.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    total: f64,
    /// What rounding took from it: Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen", 1974.
    lost: f64,
    count: i64,
    nans: i64,
    infinite: i64,
    negative: i64,
}

impl Sum {
    fn add(&mut self, value: f64, sign: i64) {
        self.count += sign;
        if !value.is_finite() {
            self.nans += sign * i64::from(value.is_nan());
            self.infinite += sign * i64::from(value.is_infinite());
            self.negative += sign * i64::from(value == f64::NEG_INFINITY);
        } else if self.count == 0 {
            (self.total, self.lost) = (0.0, 0.0);
        } else {
            let value = if sign < 0 { -value } else { value };
            let sum = self.total + value;
            let (large, small) =
                if self.total.abs() >= value.abs() { (self.total, value) } else { (value, self.total) };
            self.lost += (large - sum) + small;
            self.total = sum;
        }
    }

    fn result(self) -> Option<(f64, i64)> {
        let total = match (self.nans, self.infinite - self.negative, self.negative) {
            (0, 0, 0) => self.total + self.lost,
            (0, _, 0) => f64::INFINITY,
            (0, 0, _) => f64::NEG_INFINITY,
            _ => f64::NAN,
        };
        (self.count > 0).then_some((total, self.count))
    }
}

fn sums(states: &[ArrayRef]) -> Result<Vec<Sum>> {
    let (totals, lost) = (numbers::<Float64Type>(states, 0)?, numbers::<Float64Type>(states, 1)?);
    let (counts, nans) = (numbers::<Int64Type>(states, 2)?, numbers::<Int64Type>(states, 3)?);
    let (infinite, negative) = (numbers::<Int64Type>(states, 4)?, numbers::<Int64Type>(states, 5)?);
    let sums = totals.into_iter().zip(lost).zip(counts).zip(nans).zip(infinite).zip(negative);
    Ok(sums
        .map(|(((((total, lost), count), nans), infinite), negative)| Sum {
            total,
            lost,
            count,
            nans,
            infinite,
            negative,
        })
        .collect())
}

fn float(
    function: Function,
    argument: &DataType,
    states: &[ArrayRef],
    walk: &Walk,
    values: &ArrayRef,
) -> Result<Walked> {
    let mut cells = sums(states)?;
    let wide = cast(values, &DataType::Float64)?;
    let numbers = wide.as_primitive::<Float64Type>();
    let results = walked(&mut cells, walk, Some(values), |cell, row, sign| cell.add(numbers.value(row), sign));
    let result = f64::finish(function, argument, &results.into_iter().map(Sum::result).collect::<Vec<_>>())?;
    let doubles = |of: fn(&Sum) -> f64| -> ArrayRef { Arc::new(Float64Array::from_iter_values(cells.iter().map(of))) };
    let counts = |of: fn(&Sum) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(cells.iter().map(of))) };
    let states = vec![
        doubles(|cell| cell.total),
        doubles(|cell| cell.lost),
        counts(|cell| cell.count),
        counts(|cell| cell.nans),
        counts(|cell| cell.infinite),
        counts(|cell| cell.negative),
    ];
    Ok((states, result))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(values: &[(f64, i64)]) -> Option<f64> {
        let mut sum = Sum::default();
        values.iter().for_each(|(value, sign)| sum.add(*value, *sign));
        sum.result().map(|(total, _)| total)
    }

    #[test]
    fn what_has_left_leaves_nothing_behind() {
        assert_eq!(result(&[(0.1, 1), (1e17, 1), (1e17, -1)]), Some(0.1));
        assert_eq!(result(&[(f64::NAN, 1), (2.0, 1), (f64::NAN, -1)]), Some(2.0));
        assert_eq!(result(&[(f64::INFINITY, 1), (2.0, 1)]), Some(f64::INFINITY));
        assert!(result(&[(f64::INFINITY, 1), (f64::NEG_INFINITY, 1)]).is_some_and(f64::is_nan));
        assert_eq!(result(&[(f64::NEG_INFINITY, 1), (3.0, 1), (f64::NEG_INFINITY, -1)]), Some(3.0));
        assert_eq!(result(&[(0.3, 1), (0.3, -1)]), None);
    }
}
