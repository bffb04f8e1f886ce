//! VAR_POP, VAR_SAMP, STDDEV_POP and STDDEV_SAMP with rows taken back: integers exactly, other numbers by Welford's method
//! run backwards. The state is that of the window aggregate, which makes the result of it.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Float64Type, Int64Type};
use datafusion::common::{exec_err, internal_err};
use datafusion::error::Result;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;

use super::accumulate::{Accumulate, Rows};
use super::kept::merged;
use super::sums::{added_counts, numbers};

/// The spread of integers. State: how many, their sum, the sum of their squares.
#[derive(Debug)]
pub(super) struct IntegerSpread {
    pub(super) function: Arc<AggregateFunctionExpr>,
}

fn sum_type() -> DataType {
    DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)
}

impl Accumulate for IntegerSpread {
    fn state(&self) -> Vec<(DataType, bool)> {
        vec![(DataType::Int64, false), (sum_type(), false), (sum_type(), false)]
    }

    fn update(&self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<Vec<ArrayRef>> {
        let mut counts = numbers::<Int64Type>(states, 0)?;
        let (mut sums, mut squares) = (numbers::<Decimal128Type>(states, 1)?, numbers::<Decimal128Type>(states, 2)?);
        let Some(column) = rows.columns.first() else { return internal_err!("a variance without an argument") };
        let wide = cast(column, &DataType::Int64)?;
        let values = wide.as_primitive::<Int64Type>();
        let mut fits = true;
        rows.for_each_valid(Some(column), |group, sign, row| {
            let (value, sign) = (i128::from(values.value(row)), i128::from(sign));
            if let (Some(count), Some(sum), Some(of)) =
                (counts.get_mut(group), sums.get_mut(group), squares.get_mut(group))
            {
                *count += sign as i64;
                match (sum.checked_add(sign * value), of.checked_add(sign * value * value)) {
                    (Some(added), Some(squared)) => (*sum, *of) = (added, squared),
                    _ => fits = false,
                }
            }
        });
        if !fits {
            let name = self.function.fun().name().to_uppercase();
            return exec_err!("{name} overflowed; CAST the column to DOUBLE");
        }
        let decimals = |values: Vec<i128>| -> ArrayRef {
            Arc::new(Decimal128Array::from_iter_values(values).with_data_type(sum_type()))
        };
        Ok(vec![Arc::new(Int64Array::from(counts)), decimals(sums), decimals(squares)])
    }

    fn merge(&self, states: &[ArrayRef], partials: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut fits = true;
        let mut added = |at| -> Result<ArrayRef> {
            let mut sums = numbers::<Decimal128Type>(states, at)?;
            for (group, more) in groups.iter().zip(numbers::<Decimal128Type>(partials, at)?) {
                match sums.get_mut(*group as usize).map(|sum| (sum.checked_add(more), sum)) {
                    Some((Some(added), sum)) => *sum = added,
                    _ => fits = false,
                }
            }
            Ok(Arc::new(Decimal128Array::from_iter_values(sums).with_data_type(sum_type())))
        };
        let (sums, squares) = (added(1)?, added(2)?);
        if !fits {
            let name = self.function.fun().name().to_uppercase();
            return exec_err!("{name} overflowed; CAST the column to DOUBLE");
        }
        Ok(vec![added_counts(states, partials, 0, groups)?, sums, squares])
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef> {
        merged(&self.function, states)
    }
}

/// The spread of other numbers. State: how many, their mean, the sum of the squared differences from it.
#[derive(Debug)]
pub(super) struct FloatSpread {
    pub(super) function: Arc<AggregateFunctionExpr>,
}

/// One group.
#[derive(Debug, Clone, Copy, Default)]
struct Welford {
    count: i64,
    mean: f64,
    squares: f64,
}

impl Welford {
    fn add(&mut self, value: f64) {
        self.count += 1;
        let apart = value - self.mean;
        self.mean += apart / self.count as f64;
        self.squares += apart * (value - self.mean);
    }

    /// Adds the values of another: Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
    /// Variances", 1979.
    fn merge(&mut self, other: Self) {
        if self.count == 0 || other.count == 0 {
            *self = if other.count == 0 { *self } else { other };
            return;
        }
        let (own, others) = (self.count as f64, other.count as f64);
        let apart = other.mean - self.mean;
        self.count += other.count;
        self.mean += apart * others / (own + others);
        self.squares += other.squares + apart * apart * own * others / (own + others);
    }

    fn take_back(&mut self, value: f64) {
        self.count -= 1;
        if self.count <= 0 {
            *self = Self::default();
            return;
        }
        let apart = value - self.mean;
        self.mean -= apart / self.count as f64;
        // Rounding may leave a little less than nothing; NaN stays.
        self.squares -= apart * (value - self.mean);
        if self.squares < 0.0 || self.count == 1 {
            self.squares = 0.0;
        }
    }
}

fn welfords(states: &[ArrayRef]) -> Result<Vec<Welford>> {
    let (means, squares) = (numbers::<Float64Type>(states, 1)?, numbers::<Float64Type>(states, 2)?);
    let groups = numbers::<Int64Type>(states, 0)?.into_iter().zip(means).zip(squares);
    Ok(groups.map(|((count, mean), squares)| Welford { count, mean, squares }).collect())
}

fn columns_of(groups: &[Welford]) -> Vec<ArrayRef> {
    vec![
        Arc::new(Int64Array::from_iter_values(groups.iter().map(|group| group.count))),
        Arc::new(Float64Array::from_iter_values(groups.iter().map(|group| group.mean))),
        Arc::new(Float64Array::from_iter_values(groups.iter().map(|group| group.squares))),
    ]
}

impl Accumulate for FloatSpread {
    fn state(&self) -> Vec<(DataType, bool)> {
        vec![(DataType::Int64, false), (DataType::Float64, false), (DataType::Float64, false)]
    }

    fn update(&self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<Vec<ArrayRef>> {
        let mut groups = welfords(states)?;
        let Some(column) = rows.columns.first() else { return internal_err!("a variance without an argument") };
        let wide = cast(column, &DataType::Float64)?;
        let values = wide.as_primitive::<Float64Type>();
        rows.for_each_valid(Some(column), |group, sign, row| {
            if let Some(slot) = groups.get_mut(group) {
                if sign > 0 { slot.add(values.value(row)) } else { slot.take_back(values.value(row)) }
            }
        });
        Ok(columns_of(&groups))
    }

    fn merge(&self, states: &[ArrayRef], partials: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let mut all = welfords(states)?;
        for (group, more) in groups.iter().zip(welfords(partials)?) {
            if let Some(slot) = all.get_mut(*group as usize) {
                slot.merge(more);
            }
        }
        Ok(columns_of(&all))
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef> {
        merged(&self.function, states)
    }
}
