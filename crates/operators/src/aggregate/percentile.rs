//! APPROX_PERCENTILE: values counted in buckets that grow by 1 %, so that an answer is at most 0.5 % off.
//!
//! The sketch is DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
//! guarantees", 2019). A bucket's number follows from the value alone, and numbers are only added up, so the order of
//! rows and partial states does not show. The numbers are stored in checkpoints: `docs/design/aggregate-state.md`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array, Int32Array, Int64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::EmitTo;

use super::by_group::Groups;
use super::rows::{list_of, unlist};
use super::sums::valid_rows;

/// Half the width of a bucket, relative to its values.
const ACCURACY: f64 = 0.005;
/// Added to the logarithm's bucket, so that the numbers of positive values are positive.
const OFFSET: i32 = 1_000_000;
const INFINITE: i32 = 2_000_000;
const NAN: i32 = 2_000_001;

fn growth() -> f64 {
    (1.0 + ACCURACY) / (1.0 - ACCURACY)
}

/// The number of the bucket that `value` is in; greater values have greater numbers, NaN the greatest.
fn bucket(value: f64) -> i32 {
    if value.is_nan() {
        return NAN;
    }
    let size = match value.abs() {
        0.0 => return 0,
        f64::INFINITY => INFINITE,
        // Between −75,000 and 71,000 for all doubles.
        size => (size.ln() / growth().ln()).ceil() as i32 + OFFSET,
    };
    if value > 0.0 { size } else { -size }
}

/// The middle of a bucket.
fn middle(bucket: i32) -> f64 {
    let size = match bucket.abs() {
        0 => return 0.0,
        NAN => return f64::NAN,
        INFINITE => f64::INFINITY,
        // One exponent, so that the greatest double does not overflow.
        size => (f64::from(size - OFFSET) * growth().ln() + (2.0 / (growth() + 1.0)).ln()).exp(),
    };
    if bucket > 0 { size } else { -size }
}

/// Values counted by group and bucket. State columns are a list of buckets, ascending, and a list of their counts.
#[derive(Debug)]
pub(super) struct ApproxPercentile {
    /// Between 0 and 1.
    percentile: f64,
    result: DataType,
    counts: HashMap<(u32, i32), i64>,
    total: usize,
}

impl ApproxPercentile {
    /// The value below which `percentile`, between 0 and 1, of all values are, as `result`.
    pub(super) fn new(percentile: f64, result: DataType) -> Self {
        Self { percentile, result, counts: HashMap::new(), total: 0 }
    }

    /// The buckets and counts of each of the first groups, ascending.
    fn take(&mut self, emit: EmitTo) -> Vec<Vec<(i32, i64)>> {
        let first = match emit {
            EmitTo::All => self.total,
            EmitTo::First(count) => count.min(self.total),
        };
        self.total -= first;
        let mut groups = vec![Vec::new(); first];
        for ((group, bucket), count) in std::mem::take(&mut self.counts) {
            match groups.get_mut(group as usize) {
                Some(buckets) => buckets.push((bucket, count)),
                None => drop(self.counts.insert((group - first as u32, bucket), count)),
            }
        }
        groups.iter_mut().for_each(|buckets| buckets.sort_unstable());
        groups
    }

    fn value(&self, buckets: &[(i32, i64)]) -> Option<f64> {
        let values = buckets.iter().map(|(_, count)| count).sum::<i64>();
        let rank = self.percentile * (values - 1) as f64;
        let mut before = 0;
        let found = buckets.iter().find(|(_, count)| {
            before += count;
            before as f64 > rank
        });
        found.or(buckets.last()).map(|(bucket, _)| middle(*bucket))
    }
}

impl Groups for ApproxPercentile {
    fn empty(&self) -> Result<Self> {
        Ok(Self::new(self.percentile, self.result.clone()))
    }

    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.total = self.total.max(total);
        let Some(column) = values.first() else { return Ok(()) };
        let valid = valid_rows(column, filter);
        let wide = cast(column, &DataType::Float64)?;
        for (row, (group, value)) in groups.iter().zip(wide.as_primitive::<Float64Type>().values()).enumerate() {
            if valid.as_ref().is_none_or(|valid| valid.is_valid(row)) {
                *self.counts.entry((*group as u32, bucket(*value))).or_default() += 1;
            }
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.total = self.total.max(total);
        let (rows, columns) = unlist(states, groups)?;
        let [buckets, counts] = columns.as_slice() else { return internal_err!("a stored percentile lacks columns") };
        let columns = (buckets.as_primitive_opt::<Int32Type>(), counts.as_primitive_opt::<Int64Type>());
        let (Some(buckets), Some(counts)) = columns else { return internal_err!("a stored percentile of other types") };
        for ((group, bucket), count) in rows.iter().zip(buckets.values()).zip(counts.values()) {
            *self.counts.entry((*group, *bucket)).or_default() += count;
        }
        Ok(())
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let values: Float64Array = self.take(emit).iter().map(|buckets| self.value(buckets)).collect();
        if self.result.is_integer() {
            let rounded: Float64Array = values.iter().map(|value| value.map(f64::round)).collect();
            return Ok(cast(&rounded, &self.result)?);
        }
        Ok(cast(&values, &self.result)?)
    }

    fn states(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let groups = self.take(emit);
        let lengths: Vec<usize> = groups.iter().map(Vec::len).collect();
        let buckets: ArrayRef =
            Arc::new(Int32Array::from_iter_values(groups.iter().flatten().map(|(bucket, _)| *bucket)));
        let counts: ArrayRef = Arc::new(Int64Array::from_iter_values(groups.iter().flatten().map(|(_, count)| *count)));
        Ok(vec![list_of(&buckets, &lengths)?, list_of(&counts, &lengths)?])
    }

    fn bytes(&self) -> usize {
        self.counts.capacity() * (size_of::<((u32, i32), i64)>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;
    use ruslo_core::rng::Rng;

    use super::*;

    #[test]
    fn every_double_has_a_bucket_whose_middle_is_near() {
        for value in [1.0, -1.0, 0.5, 1e-300, 1e300, -f64::MAX, 123.456, f64::INFINITY, f64::NEG_INFINITY] {
            let middle = middle(bucket(value));
            assert!(middle == value || ((middle - value) / value).abs() <= 1.001 * ACCURACY, "{value}: {middle}");
        }
        assert_eq!(middle(bucket(-0.0)), 0.0);
        assert!(middle(bucket(f64::NAN)).is_nan());
        let mut ordered = [f64::NEG_INFINITY, -2.0, -1e-9, 0.0, 1e-9, 2.0, f64::INFINITY, f64::NAN].map(bucket);
        ordered.sort_unstable();
        assert_eq!(ordered, [f64::NEG_INFINITY, -2.0, -1e-9, 0.0, 1e-9, 2.0, f64::INFINITY, f64::NAN].map(bucket));
    }

    #[test]
    fn stored_buckets_never_change() {
        assert_eq!(
            [0.0, 1.0, -1.0, 2.0, 0.5, 1000.0].map(bucket),
            [0, 1_000_000, -1_000_000, 1_000_070, 999_931, 1_000_691]
        );
    }

    #[test]
    fn answers_are_near_and_parts_merge_to_the_same() {
        let mut rng = Rng::seeded(5);
        for percentile in [0.0, 0.1, 0.5, 0.99, 1.0] {
            let mut values: Vec<f64> = (0..1000).map(|_| rng.below(1_000_000) as f64 / 7.0 - 20_000.0).collect();
            let column: ArrayRef = Arc::new(Float64Array::from(values.clone()));
            let mut whole = ApproxPercentile::new(percentile, DataType::Float64);
            whole.update(std::slice::from_ref(&column), &[1; 1000], None, 2).unwrap();
            let mut merged = whole.empty().unwrap();
            for at in (0..1000).step_by(90).rev() {
                let part_rows = column.slice(at, 90.min(1000 - at));
                let mut part = whole.empty().unwrap();
                part.update(std::slice::from_ref(&part_rows), &vec![1; part_rows.len()], None, 2).unwrap();
                merged.merge(&part.states(EmitTo::All).unwrap(), &[0, 1], 2).unwrap();
            }
            values.sort_by(f64::total_cmp);
            let exact = values[(percentile * 999.0) as usize];
            let made = whole.results(EmitTo::All).unwrap();
            assert_eq!(&made, &merged.results(EmitTo::All).unwrap());
            assert!(made.is_null(0));
            let found = made.as_primitive::<Float64Type>().value(1);
            assert!(((found - exact) / exact).abs() <= 1.001 * ACCURACY, "{percentile}: {found}, not {exact}");
        }
    }

    #[test]
    fn first_groups_leave_and_the_others_move_up() {
        let mut half = ApproxPercentile::new(0.5, DataType::Int64);
        let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 30]));
        half.update(&[values], &[0, 1, 1], None, 2).unwrap();
        let one = half.results(EmitTo::First(1)).unwrap();
        assert_eq!(one.as_primitive::<Int64Type>(), &Int64Array::from(vec![1]));
        assert_eq!(half.results(EmitTo::All).unwrap().as_primitive::<Int64Type>(), &Int64Array::from(vec![2]));
    }
}
