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
use super::sums::numbers;

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

impl Accumulate for FloatSpread {
    fn state(&self) -> Vec<(DataType, bool)> {
        vec![(DataType::Int64, false), (DataType::Float64, false), (DataType::Float64, false)]
    }

    fn update(&self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<Vec<ArrayRef>> {
        let (means, squares) = (numbers::<Float64Type>(states, 1)?, numbers::<Float64Type>(states, 2)?);
        let groups = numbers::<Int64Type>(states, 0)?.into_iter().zip(means).zip(squares);
        let mut groups: Vec<_> = groups.map(|((count, mean), squares)| Welford { count, mean, squares }).collect();
        let Some(column) = rows.columns.first() else { return internal_err!("a variance without an argument") };
        let wide = cast(column, &DataType::Float64)?;
        let values = wide.as_primitive::<Float64Type>();
        rows.for_each_valid(Some(column), |group, sign, row| {
            if let Some(slot) = groups.get_mut(group) {
                if sign > 0 { slot.add(values.value(row)) } else { slot.take_back(values.value(row)) }
            }
        });
        Ok(vec![
            Arc::new(Int64Array::from_iter_values(groups.iter().map(|group| group.count))),
            Arc::new(Float64Array::from_iter_values(groups.iter().map(|group| group.mean))),
            Arc::new(Float64Array::from_iter_values(groups.iter().map(|group| group.squares))),
        ])
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef> {
        merged(&self.function, states)
    }
}
