//! VAR_POP, VAR_SAMP, STDDEV_POP and STDDEV_SAMP with Flink's result types: the argument's.
//!
//! Integers are added up exactly, as squares and sums in 128 bits, and the result is truncated once. FLOAT, DOUBLE and DECIMAL are added up in double precision (Welford; Chan, Golub and
//! LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int64Array, PrimitiveArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type,
};
use datafusion::common::{exec_err, internal_err};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::EmitTo;

use super::by_group::Groups;
use super::numeric::sql_name;
use super::sums::valid_rows;

/// Which of the four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Spread {
    /// Of a sample: divided by one less than the count.
    pub(super) sample: bool,
    /// The square root of it.
    pub(super) root: bool,
}

impl Spread {
    pub(super) fn name(self) -> &'static str {
        match (self.root, self.sample) {
            (false, false) => "var_pop",
            (false, true) => "var_samp",
            (true, false) => "stddev_pop",
            (true, true) => "stddev_samp",
        }
    }

    /// What the sum of squared differences is divided by; none if there are too few values.
    fn divisor(self, count: i64) -> Option<i64> {
        Some(if self.sample { count - 1 } else { count }).filter(|divisor| *divisor > 0)
    }
}

/// The columns of a state over a sum of type `total`: how many values, and two sums.
pub(super) fn state_types(argument: &DataType) -> [DataType; 3] {
    let sum = if argument.is_integer() { DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0) } else { DataType::Float64 };
    [DataType::Int64, sum.clone(), sum]
}

/// Exact: how many values, their sum, the sum of their squares.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: i64,
    sum: i128,
    squares: i128,
}

/// The spread of integers by group.
#[derive(Debug)]
pub(super) struct IntegerSpread {
    spread: Spread,
    argument: DataType,
    groups: Vec<Moments>,
}

impl IntegerSpread {
    pub(super) fn new(spread: Spread, argument: DataType) -> Self {
        Self { spread, argument, groups: Vec::new() }
    }

    fn overflow(&self) -> DataFusionError {
        let name = self.spread.name().to_uppercase();
        let argument = sql_name(&self.argument);
        DataFusionError::Execution(format!("{name}({argument}) overflowed; CAST the column to DOUBLE"))
    }

    fn add(&mut self, group: usize, count: i64, sum: i128, squares: i128) -> Result<()> {
        let added = self.groups.get(group).and_then(|old| {
            let (sum, squares) = (old.sum.checked_add(sum)?, old.squares.checked_add(squares)?);
            Some(Moments { count: old.count.checked_add(count)?, sum, squares })
        });
        match (added, self.groups.get_mut(group)) {
            (Some(added), Some(slot)) => *slot = added,
            _ => return Err(self.overflow()),
        }
        Ok(())
    }

    fn result(&self, group: &Moments) -> Result<Option<i128>> {
        let Some(divisor) = self.spread.divisor(group.count) else { return Ok(None) };
        // The sum of squared differences, times the count: a whole number.
        let count = i128::from(group.count);
        let products = (count.checked_mul(group.squares), group.sum.checked_mul(group.sum));
        let (Some(squares), Some(square)) = products else { return Err(self.overflow()) };
        let variance = (squares - square) / (count * i128::from(divisor));
        Ok(Some(if self.spread.root { variance.max(0).isqrt() } else { variance }))
    }

    fn finish<T: ArrowPrimitiveType>(&self, groups: &[Moments]) -> Result<ArrayRef>
    where
        T::Native: TryFrom<i128>,
    {
        let finish = |group: &Moments| match self.result(group)? {
            None => Ok(None),
            Some(result) => T::Native::try_from(result).map(Some).map_err(|_| self.overflow()),
        };
        let results = groups.iter().map(finish).collect::<Result<Vec<_>>>()?;
        Ok(Arc::new(results.into_iter().collect::<PrimitiveArray<T>>()))
    }
}

impl Groups for IntegerSpread {
    fn empty(&self) -> Result<Self> {
        Ok(Self::new(self.spread, self.argument.clone()))
    }

    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.groups.resize(total.max(self.groups.len()), Moments::default());
        let Some(column) = values.first() else { return Ok(()) };
        let valid = valid_rows(column, filter);
        let wide = cast(column, &DataType::Int64)?;
        for (row, (group, value)) in groups.iter().zip(wide.as_primitive::<Int64Type>().values()).enumerate() {
            if valid.as_ref().is_none_or(|valid| valid.is_valid(row)) {
                let value = i128::from(*value);
                self.add(*group, 1, value, value * value)?;
            }
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.groups.resize(total.max(self.groups.len()), Moments::default());
        let (counts, sums, squares) = stored::<Decimal128Type>(states)?;
        for (((group, count), sum), squares) in
            groups.iter().zip(counts.values()).zip(sums.values()).zip(squares.values())
        {
            self.add(*group, *count, *sum, *squares)?;
        }
        Ok(())
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let groups = emit.take_needed(&mut self.groups);
        match &self.argument {
            DataType::Int8 => self.finish::<Int8Type>(&groups),
            DataType::Int16 => self.finish::<Int16Type>(&groups),
            DataType::Int32 => self.finish::<Int32Type>(&groups),
            DataType::Int64 => self.finish::<Int64Type>(&groups),
            other => internal_err!("an exact variance of {other}"),
        }
    }

    fn states(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = emit.take_needed(&mut self.groups);
        let [_, sum_type, _] = state_types(&self.argument);
        let sums = |of: fn(&Moments) -> i128| -> ArrayRef {
            Arc::new(Decimal128Array::from_iter_values(groups.iter().map(of)).with_data_type(sum_type.clone()))
        };
        let counts = Int64Array::from_iter_values(groups.iter().map(|group| group.count));
        Ok(vec![Arc::new(counts), sums(|group| group.sum), sums(|group| group.squares)])
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Moments>()
    }
}

type Stored<'a, T> = (&'a Int64Array, &'a PrimitiveArray<T>, &'a PrimitiveArray<T>);

fn stored<T: ArrowPrimitiveType>(states: &[ArrayRef]) -> Result<Stored<'_, T>> {
    let [counts, first, second] = states else { return internal_err!("{} stored columns of a variance", states.len()) };
    match (counts.as_primitive_opt(), first.as_primitive_opt(), second.as_primitive_opt()) {
        (Some(counts), Some(first), Some(second)) => Ok((counts, first, second)),
        _ => exec_err!("a stored variance has the type {}", first.data_type()),
    }
}

/// How many values, their mean, the sum of the squared differences from it.
#[derive(Debug, Clone, Copy, Default)]
struct Welford {
    count: i64,
    mean: f64,
    squares: f64,
}

impl Welford {
    fn merge(self, other: Self) -> Self {
        if other.count == 0 {
            return self;
        }
        if self.count == 0 {
            return other;
        }
        let count = self.count + other.count;
        let (own, others) = (self.count as f64, other.count as f64);
        let apart = other.mean - self.mean;
        let mean = (own * self.mean + others * other.mean) / count as f64;
        let squares = self.squares + other.squares + apart * apart * own * others / count as f64;
        Self { count, mean, squares }
    }
}

/// The spread of numbers that are no integers, by group.
#[derive(Debug)]
pub(super) struct FloatSpread {
    spread: Spread,
    argument: DataType,
    result: DataType,
    groups: Vec<Welford>,
}

impl FloatSpread {
    pub(super) fn new(spread: Spread, argument: DataType, result: DataType) -> Self {
        Self { spread, argument, result, groups: Vec::new() }
    }

    fn result(&self, group: &Welford) -> Option<f64> {
        let variance = group.squares / self.spread.divisor(group.count)? as f64;
        Some(if self.spread.root { variance.sqrt() } else { variance })
    }
}

impl Groups for FloatSpread {
    fn empty(&self) -> Result<Self> {
        Ok(Self::new(self.spread, self.argument.clone(), self.result.clone()))
    }

    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.groups.resize(total.max(self.groups.len()), Welford::default());
        let Some(column) = values.first() else { return Ok(()) };
        let valid = valid_rows(column, filter);
        let wide = cast(column, &DataType::Float64)?;
        for (row, (group, value)) in groups.iter().zip(wide.as_primitive::<Float64Type>().values()).enumerate() {
            let keep = valid.as_ref().is_none_or(|valid| valid.is_valid(row));
            if let Some(slot) = self.groups.get_mut(*group).filter(|_| keep) {
                slot.count += 1;
                let apart = value - slot.mean;
                slot.mean += apart / slot.count as f64;
                slot.squares += apart * (value - slot.mean);
            }
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.groups.resize(total.max(self.groups.len()), Welford::default());
        let (counts, means, squares) = stored::<Float64Type>(states)?;
        for (((group, count), mean), squares) in
            groups.iter().zip(counts.values()).zip(means.values()).zip(squares.values())
        {
            if let Some(slot) = self.groups.get_mut(*group) {
                *slot = slot.merge(Welford { count: *count, mean: *mean, squares: *squares });
            }
        }
        Ok(())
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let groups = emit.take_needed(&mut self.groups);
        let results: Float64Array = groups.iter().map(|group| self.result(group)).collect();
        match &self.result {
            DataType::Float64 => Ok(Arc::new(results)),
            DataType::Float32 => {
                Ok(Arc::new(results.iter().map(|value| value.map(|value| value as f32)).collect::<Float32Array>()))
            }
            other => Ok(cast(&results, other)?),
        }
    }

    fn states(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = emit.take_needed(&mut self.groups);
        Ok(vec![
            Arc::new(Int64Array::from_iter_values(groups.iter().map(|group| group.count))),
            Arc::new(Float64Array::from_iter_values(groups.iter().map(|group| group.mean))),
            Arc::new(Float64Array::from_iter_values(groups.iter().map(|group| group.squares))),
        ])
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<Welford>()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;

    use super::*;

    const ALL: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

    #[test]
    fn integers_are_exact_and_truncated() {
        // 2, 4, 4, 4, 5, 5, 7, 9: mean 5, squared differences 32. 1, 2, 3, 4: 5, 5/4 and 5/3.
        // 0, 5, 5, 7: 26.75 / 4 = 6.7 and 26.75 / 3 = 8.9, where 27 / 3 would be cut too early.
        let values: ArrayRef = Arc::new(Int32Array::from(vec![2, 4, 4, 4, 5, 5, 7, 9, 1, 2, 3, 4, 6, 0, 5, 5, 7]));
        let groups = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 4, 4, 4, 4];
        let expected = [
            [Some(4), Some(1), Some(0), None, Some(6)],
            [Some(2), Some(1), Some(0), None, Some(2)],
            [Some(4), Some(1), None, None, Some(8)],
            [Some(2), Some(1), None, None, Some(2)],
        ];
        for ((sample, root), expected) in ALL.into_iter().zip(expected) {
            let mut spread = IntegerSpread::new(Spread { sample, root }, DataType::Int32);
            for at in [0..5, 5..17] {
                let mut part = spread.empty().unwrap();
                part.update(&[values.slice(at.start, at.len())], &groups[at], None, 5).unwrap();
                spread.merge(&part.states(EmitTo::All).unwrap(), &[0, 1, 2, 3, 4], 5).unwrap();
            }
            let made = spread.results(EmitTo::All).unwrap();
            assert_eq!(made.as_primitive::<Int32Type>(), &Int32Array::from(expected.to_vec()), "{sample} {root}");
        }
    }

    #[test]
    fn large_integers_overflow_with_a_mend() {
        let values: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX; 4]));
        let mut spread = IntegerSpread::new(Spread { sample: false, root: false }, DataType::Int64);
        let error = spread.update(&[values], &[0; 4], None, 1).unwrap_err().to_string();
        assert!(error.contains("VAR_POP(BIGINT) overflowed; CAST the column to DOUBLE"), "{error}");
    }

    #[test]
    fn doubles_merge_to_the_same_spread() {
        let values: ArrayRef = Arc::new(Float64Array::from(vec![Some(2.0), None, Some(4.0), Some(4.0), Some(6.0)]));
        let mut spread = FloatSpread::new(Spread { sample: false, root: true }, DataType::Float64, DataType::Float64);
        for at in [0..2, 2..5] {
            let mut part = spread.empty().unwrap();
            part.update(&[values.slice(at.start, at.len())], &vec![1; at.len()], None, 2).unwrap();
            spread.merge(&part.states(EmitTo::All).unwrap(), &[0, 1], 2).unwrap();
        }
        // Squared differences 4 + 0 + 0 + 4 over 4 values.
        let made = spread.results(EmitTo::All).unwrap();
        assert_eq!(made.as_primitive::<Float64Type>(), &Float64Array::from(vec![None, Some(2f64.sqrt())]));
    }
}
