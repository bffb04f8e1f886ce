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
pub(crate) fn numbers<T: ArrowPrimitiveType>(states: &[ArrayRef], at: usize) -> Result<Vec<T::Native>> {
    match states.get(at).and_then(|column| column.as_primitive_opt::<T>()) {
        Some(column) => Ok(column.values().to_vec()),
        None => internal_err!("the state of an aggregate lost its column {at}"),
    }
}

/// A column of counts with those of partial states added.
pub(super) fn added_counts(states: &[ArrayRef], partials: &[ArrayRef], at: usize, groups: &[u32]) -> Result<ArrayRef> {
    let (mut counts, more) = (numbers::<Int64Type>(states, at)?, numbers::<Int64Type>(partials, at)?);
    for (group, more) in groups.iter().zip(more) {
        if let Some(count) = counts.get_mut(*group as usize) {
            *count += more;
        }
    }
    Ok(Arc::new(Int64Array::from(counts)))
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

    fn merge(&self, states: &[ArrayRef], partials: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![added_counts(states, partials, 0, groups)?])
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

    fn merge(&self, states: &[ArrayRef], partials: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut totals = numbers::<Decimal128Type>(states, 0)?;
        let mut fits = true;
        for (group, more) in groups.iter().zip(numbers::<Decimal128Type>(partials, 0)?) {
            if let Some(total) = totals.get_mut(*group as usize) {
                fits &= total.add(more);
            }
        }
        if !fits {
            return Err(overflow(self.function, &self.argument));
        }
        let totals = i128::into_state(totals.into_iter().map(Some).collect(), &self.argument)?;
        Ok(vec![totals, added_counts(states, partials, 1, groups)?])
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef> {
        let (totals, counts) = (numbers::<Decimal128Type>(states, 0)?, numbers::<Int64Type>(states, 1)?);
        let groups = totals.into_iter().zip(counts).map(|(total, count)| (count > 0).then_some((total, count)));
        i128::finish(self.function, &self.argument, &groups.collect::<Vec<_>>())
    }
}

/// SUM and AVG of FLOAT and DOUBLE. State: the total, what was lost by rounding it (Neumaier, "Rundungsfehleranalyse einiger
/// Verfahren zur Summation endlicher Summen", 1974), and how many values there are; if rows are taken back, how many of
/// them are infinite, minus infinite, and NaN, which are no part of the total. So what is taken away again leaves next to
/// nothing behind.
#[derive(Debug)]
pub(super) struct FloatSum {
    pub(super) function: Function,
    pub(super) argument: DataType,
    pub(super) takes_back: bool,
}

/// A sum and its rounding error.
#[derive(Debug, Clone, Copy, Default)]
struct Compensated {
    total: f64,
    lost: f64,
    /// How many infinite, minus infinite and NaN values are not in the total.
    beside: [i64; BESIDE],
}

/// How many kinds of values there are that nothing takes away from a sum again.
const BESIDE: usize = 3;

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

impl Compensated {
    /// Counts a value that is not finite.
    fn count_beside(&mut self, value: f64, sign: i8) {
        let [infinite, minus_infinite, nan] = &mut self.beside;
        let count = if value.is_nan() {
            nan
        } else if value > 0.0 {
            infinite
        } else {
            minus_infinite
        };
        *count += i64::from(sign);
    }

    fn result(&self) -> f64 {
        match self.beside.map(|count| count > 0) {
            [false, false, false] => self.total + self.lost,
            [true, false, false] => f64::INFINITY,
            [false, true, false] => f64::NEG_INFINITY,
            _ => f64::NAN,
        }
    }
}

impl FloatSum {
    /// The sums in the first columns of a state.
    fn sums(&self, states: &[ArrayRef]) -> Result<Vec<Compensated>> {
        let (totals, lost) = (numbers::<Float64Type>(states, 0)?, numbers::<Float64Type>(states, 1)?);
        let sums =
            totals.into_iter().zip(lost).map(|(total, lost)| Compensated { total, lost, ..Compensated::default() });
        let mut sums: Vec<_> = sums.collect();
        for kind in 0..if self.takes_back { BESIDE } else { 0 } {
            let counts = numbers::<Int64Type>(states, 3 + kind)?;
            for (sum, count) in sums.iter_mut().zip(counts) {
                sum.beside.get_mut(kind).into_iter().for_each(|kept| *kept = count);
            }
        }
        Ok(sums)
    }

    /// The state.
    fn columns(&self, sums: &[Compensated], counts: ArrayRef) -> Vec<ArrayRef> {
        let totals = Float64Array::from_iter_values(sums.iter().map(|sum| sum.total));
        let lost = Float64Array::from_iter_values(sums.iter().map(|sum| sum.lost));
        let mut made: Vec<ArrayRef> = vec![Arc::new(totals), Arc::new(lost), counts];
        for kind in 0..if self.takes_back { BESIDE } else { 0 } {
            let counts = sums.iter().filter_map(|sum| sum.beside.get(kind).copied());
            made.push(Arc::new(Int64Array::from_iter_values(counts)));
        }
        made
    }

    fn add<T: ArrowPrimitiveType>(&self, sums: &mut [Compensated], counts: &mut [i64], rows: &Rows<'_>) -> Result<()>
    where
        T::Native: Into<f64>,
    {
        let Some(column) = rows.columns.first() else { return internal_err!("a sum without an argument") };
        let values: &PrimitiveArray<T> = column.as_primitive();
        rows.for_each_valid(Some(column), |group, sign, row| {
            if let (Some(sum), Some(count)) = (sums.get_mut(group), counts.get_mut(group)) {
                let value: f64 = values.value(row).into();
                match self.takes_back && !value.is_finite() {
                    true => sum.count_beside(value, sign),
                    false => sum.add(if sign < 0 { -value } else { value }),
                }
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
        let beside = if self.takes_back { BESIDE } else { 0 };
        let counts = std::iter::repeat_n((DataType::Int64, false), 1 + beside);
        [(DataType::Float64, false), (DataType::Float64, false)].into_iter().chain(counts).collect()
    }

    fn update(&self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<Vec<ArrayRef>> {
        let mut sums = self.sums(states)?;
        let mut counts = numbers::<Int64Type>(states, 2)?;
        match self.argument {
            DataType::Float32 => self.add::<Float32Type>(&mut sums, &mut counts, rows)?,
            DataType::Float64 => self.add::<Float64Type>(&mut sums, &mut counts, rows)?,
            ref other => return internal_err!("a floating-point sum over {other}"),
        }
        Ok(self.columns(&sums, Arc::new(Int64Array::from(counts))))
    }

    fn merge(&self, states: &[ArrayRef], partials: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut sums = self.sums(states)?;
        for (group, more) in groups.iter().zip(self.sums(partials)?) {
            if let Some(sum) = sums.get_mut(*group as usize) {
                sum.add(more.total);
                sum.lost += more.lost;
                sum.beside.iter_mut().zip(more.beside).for_each(|(count, more)| *count += more);
            }
        }
        Ok(self.columns(&sums, added_counts(states, partials, 2, groups)?))
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef> {
        let groups = self.sums(states)?.into_iter().zip(numbers::<Int64Type>(states, 2)?);
        let groups = groups.map(|(sum, count)| (count > 0).then(|| (sum.result(), count)));
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

    fn merge(&self, states: &[ArrayRef], partials: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>> {
        Ok(vec![added_counts(states, partials, 0, groups)?, added_counts(states, partials, 1, groups)?])
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef> {
        let (trues, falses) = (numbers::<Int64Type>(states, 0)?, numbers::<Int64Type>(states, 1)?);
        let result = |(trues, falses): (i64, i64)| {
            (trues > 0 || falses > 0).then_some(if self.is_and { falses == 0 } else { trues > 0 })
        };
        Ok(Arc::new(trues.into_iter().zip(falses).map(result).collect::<BooleanArray>()))
    }
}
