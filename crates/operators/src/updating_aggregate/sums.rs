//! COUNT, SUM, AVG, BOOL_AND and BOOL_OR: sums with a sign.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
};
use datafusion::common::internal_err;
use datafusion::error::Result;

use super::accumulate::{Accumulate, Rows};
use crate::aggregate::{Function, Total, overflow, total_type};

/// A stored column as numbers.
pub(super) fn numbers<T: ArrowPrimitiveType>(states: &[ArrayRef], at: usize) -> Result<Vec<T::Native>> {
    match states.get(at).and_then(|column| column.as_primitive_opt::<T>()) {
        Some(column) => Ok(column.values().to_vec()),
        None => internal_err!("the state of an aggregate lost its column {at}"),
    }
}

/// How many rows, or values that are not NULL. State: the count.
#[derive(Debug)]
pub(super) struct Count;

impl Accumulate for Count {
    fn state(&self) -> Vec<(DataType, bool)> {
        vec![(DataType::Int64, false)]
    }

    fn update(&self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<Vec<ArrayRef>> {
        let mut counts = numbers::<Int64Type>(states, 0)?;
        rows.for_each_valid(rows.columns.first(), |group, sign, _| {
            if let Some(count) = counts.get_mut(group) {
                *count += i64::from(sign);
            }
        });
        Ok(vec![Arc::new(Int64Array::from(counts))])
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef> {
        match states {
            [counts] => Ok(Arc::clone(counts)),
            _ => internal_err!("a count is one column"),
        }
    }
}

/// SUM and AVG of integers and decimals, exactly. State: the total, and how many values there are.
#[derive(Debug)]
pub(super) struct ExactSum {
    pub(super) function: Function,
    pub(super) argument: DataType,
}

impl ExactSum {
    fn add<T: ArrowPrimitiveType>(&self, totals: &mut [i128], counts: &mut [i64], rows: &Rows<'_>) -> Result<()>
    where
        T::Native: Into<i128>,
    {
        let Some(column) = rows.columns.first() else { return internal_err!("a sum without an argument") };
        let values: &PrimitiveArray<T> = column.as_primitive();
        let mut fits = true;
        rows.for_each_valid(Some(column), |group, sign, row| {
            if let (Some(total), Some(count)) = (totals.get_mut(group), counts.get_mut(group)) {
                let value: i128 = values.value(row).into();
                fits &= total.add(if sign < 0 { value.wrapping_neg() } else { value });
                *count += i64::from(sign);
                if *count == 0 {
                    *total = 0;
                }
            }
        });
        if fits { Ok(()) } else { Err(overflow(self.function, &self.argument)) }
    }
}

impl Accumulate for ExactSum {
    fn state(&self) -> Vec<(DataType, bool)> {
        vec![(total_type(&self.argument), false), (DataType::Int64, false)]
    }

    fn update(&self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<Vec<ArrayRef>> {
        let mut totals = numbers::<Decimal128Type>(states, 0)?;
        let mut counts = numbers::<Int64Type>(states, 1)?;
        match self.argument {
            DataType::Int8 => self.add::<Int8Type>(&mut totals, &mut counts, rows)?,
            DataType::Int16 => self.add::<Int16Type>(&mut totals, &mut counts, rows)?,
            DataType::Int32 => self.add::<Int32Type>(&mut totals, &mut counts, rows)?,
            DataType::Int64 => self.add::<Int64Type>(&mut totals, &mut counts, rows)?,
            DataType::Decimal128(..) => self.add::<Decimal128Type>(&mut totals, &mut counts, rows)?,
            ref other => return internal_err!("an exact sum over {other}"),
        }
        let totals = totals.into_iter().map(Some).collect();
        Ok(vec![i128::into_state(totals, &self.argument)?, Arc::new(Int64Array::from(counts))])
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef> {
        let (totals, counts) = (numbers::<Decimal128Type>(states, 0)?, numbers::<Int64Type>(states, 1)?);
        let groups = totals.into_iter().zip(counts).map(|(total, count)| (count > 0).then_some((total, count)));
        i128::finish(self.function, &self.argument, &groups.collect::<Vec<_>>())
    }
}

/// SUM and AVG of FLOAT and DOUBLE. State: the total, what was lost by rounding it (Neumaier, "Rundungsfehleranalyse einiger
/// Verfahren zur Summation endlicher Summen", 1974), and how many values there are. So what is taken away again leaves
/// next to nothing behind.
#[derive(Debug)]
pub(super) struct FloatSum {
    pub(super) function: Function,
    pub(super) argument: DataType,
}

/// A sum and its rounding error.
#[derive(Debug, Clone, Copy, Default)]
struct Compensated {
    total: f64,
    lost: f64,
}

impl Compensated {
    fn add(&mut self, value: f64) {
        let sum = self.total + value;
        if sum.is_finite() {
            let larger_first = self.total.abs() >= value.abs();
            let (large, small) = if larger_first { (self.total, value) } else { (value, self.total) };
            self.lost += (large - sum) + small;
        }
        self.total = sum;
    }
}

impl FloatSum {
    fn add<T: ArrowPrimitiveType>(&self, sums: &mut [Compensated], counts: &mut [i64], rows: &Rows<'_>) -> Result<()>
    where
        T::Native: Into<f64>,
    {
        let Some(column) = rows.columns.first() else { return internal_err!("a sum without an argument") };
        let values: &PrimitiveArray<T> = column.as_primitive();
        rows.for_each_valid(Some(column), |group, sign, row| {
            if let (Some(sum), Some(count)) = (sums.get_mut(group), counts.get_mut(group)) {
                let value: f64 = values.value(row).into();
                sum.add(if sign < 0 { -value } else { value });
                *count += i64::from(sign);
                if *count == 0 {
                    *sum = Compensated::default();
                }
            }
        });
        Ok(())
    }
}

impl Accumulate for FloatSum {
    fn state(&self) -> Vec<(DataType, bool)> {
        vec![(DataType::Float64, false), (DataType::Float64, false), (DataType::Int64, false)]
    }

    fn update(&self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<Vec<ArrayRef>> {
        let (totals, lost) = (numbers::<Float64Type>(states, 0)?, numbers::<Float64Type>(states, 1)?);
        let mut sums: Vec<_> = totals.into_iter().zip(lost).map(|(total, lost)| Compensated { total, lost }).collect();
        let mut counts = numbers::<Int64Type>(states, 2)?;
        match self.argument {
            DataType::Float32 => self.add::<Float32Type>(&mut sums, &mut counts, rows)?,
            DataType::Float64 => self.add::<Float64Type>(&mut sums, &mut counts, rows)?,
            ref other => return internal_err!("a floating-point sum over {other}"),
        }
        let totals = Float64Array::from_iter_values(sums.iter().map(|sum| sum.total));
        let lost = Float64Array::from_iter_values(sums.iter().map(|sum| sum.lost));
        Ok(vec![Arc::new(totals), Arc::new(lost), Arc::new(Int64Array::from(counts))])
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef> {
        let (totals, lost) = (numbers::<Float64Type>(states, 0)?, numbers::<Float64Type>(states, 1)?);
        let groups = totals.into_iter().zip(lost).zip(numbers::<Int64Type>(states, 2)?);
        let groups = groups.map(|((total, lost), count)| (count > 0).then_some((total + lost, count)));
        f64::finish(self.function, &self.argument, &groups.collect::<Vec<_>>())
    }
}

/// BOOL_AND and BOOL_OR. State: how many are true, and how many false.
#[derive(Debug)]
pub(super) struct Truth {
    pub(super) is_and: bool,
}

impl Accumulate for Truth {
    fn state(&self) -> Vec<(DataType, bool)> {
        vec![(DataType::Int64, false), (DataType::Int64, false)]
    }

    fn update(&self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<Vec<ArrayRef>> {
        let (mut trues, mut falses) = (numbers::<Int64Type>(states, 0)?, numbers::<Int64Type>(states, 1)?);
        let Some(column) = rows.columns.first() else { return internal_err!("no condition to count") };
        let Some(values) = column.as_boolean_opt() else { return internal_err!("a condition is no BOOLEAN") };
        rows.for_each_valid(Some(column), |group, sign, row| {
            let counts = if values.value(row) { &mut trues } else { &mut falses };
            if let Some(count) = counts.get_mut(group) {
                *count += i64::from(sign);
            }
        });
        Ok(vec![Arc::new(Int64Array::from(trues)), Arc::new(Int64Array::from(falses))])
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef> {
        let (trues, falses) = (numbers::<Int64Type>(states, 0)?, numbers::<Int64Type>(states, 1)?);
        let result = |(trues, falses): (i64, i64)| {
            (trues > 0 || falses > 0).then_some(if self.is_and { falses == 0 } else { trues > 0 })
        };
        Ok(Arc::new(trues.into_iter().zip(falses).map(result).collect::<BooleanArray>()))
    }
}
