//! Totals and counts by group: the accumulator under SUM and AVG.

use std::mem::size_of;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion::scalar::ScalarValue;

use super::Function;
use super::numeric::{Total, overflow};

/// What has been added up for one group.
#[derive(Debug, Clone, Copy, Default)]
struct Slot<T> {
    total: T,
    /// Values that were added; for SUM only whether there was one.
    count: i64,
}

/// Totals of arguments of one type, by group.
#[derive(Debug)]
pub(super) struct GroupSums<T> {
    function: Function,
    argument: DataType,
    slots: Vec<Slot<T>>,
}

/// Reads a column's native type into totals of `T`.
pub(super) trait Feed: Total {
    /// Adds the values of `column` to the groups' slots.
    fn feed(sums: &mut GroupSums<Self>, column: &ArrayRef, groups: &[usize], valid: Option<&NullBuffer>) -> Result<()>;
}

impl Feed for i128 {
    fn feed(sums: &mut GroupSums<Self>, column: &ArrayRef, groups: &[usize], valid: Option<&NullBuffer>) -> Result<()> {
        match column.data_type() {
            DataType::Int8 => sums.add(column.as_primitive::<Int8Type>(), groups, valid),
            DataType::Int16 => sums.add(column.as_primitive::<Int16Type>(), groups, valid),
            DataType::Int32 => sums.add(column.as_primitive::<Int32Type>(), groups, valid),
            DataType::Int64 => sums.add(column.as_primitive::<Int64Type>(), groups, valid),
            DataType::Decimal128(..) => sums.add(column.as_primitive::<Decimal128Type>(), groups, valid),
            other => internal_err!("an exact sum over {other}"),
        }
    }
}

impl Feed for f64 {
    fn feed(sums: &mut GroupSums<Self>, column: &ArrayRef, groups: &[usize], valid: Option<&NullBuffer>) -> Result<()> {
        match column.data_type() {
            DataType::Float32 => sums.add(column.as_primitive::<Float32Type>(), groups, valid),
            DataType::Float64 => sums.add(column.as_primitive::<Float64Type>(), groups, valid),
            other => internal_err!("a floating-point sum over {other}"),
        }
    }
}

impl<T: Total> GroupSums<T> {
    pub(super) fn new(function: Function, argument: DataType) -> Self {
        Self { function, argument, slots: Vec::new() }
    }

    fn add<A>(&mut self, values: &PrimitiveArray<A>, groups: &[usize], valid: Option<&NullBuffer>) -> Result<()>
    where
        A: ArrowPrimitiveType,
        T: From<A::Native>,
    {
        let mut fits = true;
        let rows = groups.iter().zip(values.values());
        let mut add = |(group, value): (&usize, &A::Native)| {
            if let Some(slot) = self.slots.get_mut(*group) {
                fits &= slot.total.add(T::from(*value));
                slot.count += 1;
            }
        };
        match valid {
            None => rows.for_each(add),
            Some(valid) => rows.zip(valid.iter()).filter(|(_, valid)| *valid).for_each(|(row, _)| add(row)),
        }
        self.fitting(fits)
    }

    fn fitting(&self, fits: bool) -> Result<()> {
        if fits { Ok(()) } else { Err(overflow(self.function, &self.argument)) }
    }

    fn grow(&mut self, groups: usize) {
        if groups > self.slots.len() {
            self.slots.resize(groups, Slot::default());
        }
    }

    /// The counts that came with partial totals; a total of SUM counts as one value.
    fn counts<'a>(&self, states: &'a [ArrayRef]) -> Result<Option<&'a [i64]>> {
        match (self.function, states) {
            (Function::Sum, [_]) => Ok(None),
            (Function::Avg, [_, counts]) => match counts.as_primitive_opt::<Int64Type>() {
                Some(counts) => Ok(Some(counts.values())),
                None => internal_err!("a stored count has the type {}", counts.data_type()),
            },
            _ => internal_err!("{} stored columns for {}", states.len(), self.function.name()),
        }
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize]) -> Result<()> {
        let Some(totals) = states.first() else { return internal_err!("a partial sum without columns") };
        let (totals, nulls) = T::from_state(totals)?;
        let counts = self.counts(states)?;
        let mut fits = true;
        for (row, (group, total)) in groups.iter().zip(totals).enumerate() {
            if nulls.is_some_and(|nulls| nulls.is_null(row)) {
                continue;
            }
            let count = counts.map_or(1, |counts| counts.get(row).copied().unwrap_or(0));
            if let Some(slot) = self.slots.get_mut(*group) {
                fits &= slot.total.add(*total);
                slot.count = slot.count.saturating_add(count);
            }
        }
        self.fitting(fits)
    }
}

/// Which rows count: values that are not NULL, where the filter is true.
pub(super) fn valid_rows(column: &ArrayRef, filter: Option<&BooleanArray>) -> Option<NullBuffer> {
    let nulls = column.nulls().filter(|nulls| nulls.null_count() > 0);
    let Some(filter) = filter else { return nulls.cloned() };
    NullBuffer::union(nulls, Some(&NullBuffer::new(true_rows(filter).values().clone())))
}

/// The filter without NULLs: what is NULL is not kept.
pub(super) fn true_rows(filter: &BooleanArray) -> BooleanArray {
    if filter.null_count() == 0 { filter.clone() } else { prep_null_mask_filter(filter) }
}

impl<T: Feed> GroupsAccumulator for GroupSums<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        let Some(column) = values.first() else { return internal_err!("a sum without an argument") };
        self.grow(total_num_groups);
        T::feed(self, column, group_indices, valid_rows(column, opt_filter).as_ref())
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let slots = emit_to.take_needed(&mut self.slots);
        let groups: Vec<_> = slots.iter().map(|slot| (slot.count > 0).then_some((slot.total, slot.count))).collect();
        T::finish(self.function, &self.argument, &groups)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let slots = emit_to.take_needed(&mut self.slots);
        let totals = slots.iter().map(|slot| (slot.count > 0).then_some(slot.total)).collect();
        let mut columns = vec![T::into_state(totals, &self.argument)?];
        if self.function == Function::Avg {
            columns.push(Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| slot.count))));
        }
        Ok(columns)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.grow(total_num_groups);
        self.merge(values, group_indices)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |column| column.len());
        let mut each = Self::new(self.function, self.argument.clone());
        each.update_batch(values, &(0..rows).collect::<Vec<_>>(), opt_filter, rows)?;
        each.state(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.slots.capacity() * size_of::<Slot<T>>()
    }
}

/// A [`GroupSums`] with one group, for DataFusion's plans without GROUP BY.
#[derive(Debug)]
pub(super) struct OneGroup<T>(pub(super) GroupSums<T>);

impl<T: Feed + std::fmt::Debug> Accumulator for OneGroup<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |column| column.len());
        self.0.update_batch(values, &vec![0; rows], None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let slot = self.0.slots.first().copied().unwrap_or_default();
        let group = (slot.count > 0).then_some((slot.total, slot.count));
        ScalarValue::try_from_array(&T::finish(self.0.function, &self.0.argument, &[group])?, 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.grow(1);
        let columns = self.0.state(EmitTo::All)?;
        columns.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |column| column.len());
        self.0.merge_batch(states, &vec![0; rows], 1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    /// For frames that rows leave.
    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let mut gone = Self(GroupSums::new(self.0.function, self.0.argument.clone()));
        gone.update_batch(values)?;
        let gone = gone.0.slots.first().copied().unwrap_or_default();
        self.0.grow(1);
        let Some(slot) = self.0.slots.first_mut() else { return internal_err!("a sum without a group") };
        slot.count -= gone.count;
        let fits = slot.total.add(gone.total.negated());
        if slot.count == 0 {
            *slot = Slot::default();
        }
        self.0.fitting(fits)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Decimal128Array, Float32Array, Float64Array, Int8Array, Int32Array};

    use super::*;

    fn array(values: impl Array + 'static) -> ArrayRef {
        Arc::new(values)
    }

    fn int(values: Vec<Option<i64>>) -> ArrayRef {
        array(Int64Array::from(values))
    }

    fn sums(function: Function) -> GroupSums<i128> {
        GroupSums::new(function, DataType::Int64)
    }

    #[test]
    fn groups_without_values_are_null() {
        for function in [Function::Sum, Function::Avg] {
            let mut sums = sums(function);
            sums.update_batch(&[int(vec![Some(3), None, Some(4)])], &[0, 1, 0], None, 3).unwrap();
            let total = if function == Function::Sum { 7 } else { 3 };
            assert_eq!(&sums.evaluate(EmitTo::All).unwrap(), &int(vec![Some(total), None, None]));
        }
    }

    #[test]
    fn a_filter_keeps_only_what_is_true() {
        let mut sums = sums(Function::Sum);
        let filter = BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]);
        let values = int(vec![Some(1), Some(2), Some(4), None]);
        sums.update_batch(&[values], &[0, 0, 0, 1], Some(&filter), 2).unwrap();
        assert_eq!(&sums.evaluate(EmitTo::All).unwrap(), &int(vec![Some(1), None]));
    }

    #[test]
    fn partial_states_merge_to_the_same_result_and_first_leaves_the_rest() {
        for function in [Function::Sum, Function::Avg] {
            let rows: Vec<Option<i64>> = (0..60).map(|row| (row % 7 != 0).then_some(row * row - 900)).collect();
            let groups: Vec<usize> = (0..60).map(|row| row % 5).collect();
            let mut whole = sums(function);
            whole.update_batch(&[int(rows.clone())], &groups, None, 6).unwrap();
            let mut merged = sums(function);
            for (values, groups) in rows.chunks(9).zip(groups.chunks(9)) {
                let mut part = sums(function);
                part.update_batch(&[int(values.to_vec())], groups, None, 6).unwrap();
                for at in [0..2, 2..6] {
                    let state = part.state(EmitTo::First(at.len())).unwrap();
                    merged.merge_batch(&state, &at.collect::<Vec<_>>(), 6).unwrap();
                }
            }
            let mut converted = sums(function);
            let state = converted.convert_to_state(&[int(rows)], None).unwrap();
            converted.merge_batch(&state, &groups, 6).unwrap();
            let expected = whole.evaluate(EmitTo::All).unwrap();
            assert_eq!(&merged.evaluate(EmitTo::All).unwrap(), &expected);
            assert_eq!(&converted.evaluate(EmitTo::All).unwrap(), &expected);
            assert!(expected.is_null(5));
        }
    }

    #[test]
    fn a_sum_that_passes_its_type_on_the_way_is_right_in_the_end() {
        let mut sums = sums(Function::Sum);
        sums.update_batch(&[int(vec![Some(i64::MAX), Some(i64::MAX), Some(-i64::MAX)])], &[0; 3], None, 1).unwrap();
        assert_eq!(&sums.evaluate(EmitTo::All).unwrap(), &int(vec![Some(i64::MAX)]));
    }

    #[test]
    fn a_sum_that_does_not_fit_its_type_is_an_error_and_an_average_always_fits() {
        let tiny = array(Int8Array::from(vec![100, 28]));
        let mut sum = GroupSums::<i128>::new(Function::Sum, DataType::Int8);
        sum.update_batch(std::slice::from_ref(&tiny), &[0, 0], None, 1).unwrap();
        let error = sum.evaluate(EmitTo::All).unwrap_err().to_string();
        assert!(error.contains("SUM(TINYINT) overflowed"), "{error}");
        let mut average = GroupSums::<i128>::new(Function::Avg, DataType::Int8);
        average.update_batch(&[tiny], &[0, 0], None, 1).unwrap();
        assert_eq!(&average.evaluate(EmitTo::All).unwrap(), &array(Int8Array::from(vec![64])));
    }

    #[test]
    fn averages_of_integers_truncate_towards_zero() {
        let mut average = GroupSums::<i128>::new(Function::Avg, DataType::Int32);
        let values = array(Int32Array::from(vec![5, 6, -5, -6]));
        average.update_batch(&[values], &[0, 0, 1, 1], None, 2).unwrap();
        assert_eq!(&average.evaluate(EmitTo::All).unwrap(), &array(Int32Array::from(vec![5, -5])));
    }

    #[test]
    fn decimals_beyond_128_bits_are_an_error() {
        let decimals = |value: i128| {
            let values = Decimal128Array::from(vec![value; 3]);
            array(values.with_precision_and_scale(38, 0).unwrap())
        };
        let mut sum = GroupSums::<i128>::new(Function::Sum, DataType::Decimal128(38, 0));
        let most = 10i128.pow(38) - 1;
        assert!(sum.update_batch(&[decimals(most)], &[0; 3], None, 1).is_err());
        let mut sum = GroupSums::<i128>::new(Function::Sum, DataType::Decimal128(38, 0));
        sum.update_batch(&[decimals(most / 3)], &[0; 3], None, 1).unwrap();
        assert_eq!(sum.evaluate(EmitTo::All).unwrap().as_primitive::<Decimal128Type>().value(0), most / 3 * 3);
    }

    #[test]
    fn floats_are_summed_in_double_precision_and_keep_their_type() {
        let values = array(Float32Array::from(vec![16_777_216.0, 1.0, 1.0]));
        let mut sum = GroupSums::<f64>::new(Function::Sum, DataType::Float32);
        sum.update_batch(&[values], &[0; 3], None, 1).unwrap();
        assert_eq!(&sum.evaluate(EmitTo::All).unwrap(), &array(Float32Array::from(vec![16_777_218.0])));
        let mut average = GroupSums::<f64>::new(Function::Avg, DataType::Float64);
        average.update_batch(&[array(Float64Array::from(vec![1.0, 2.0]))], &[0, 0], None, 1).unwrap();
        let states = average.state(EmitTo::All).unwrap();
        average.merge_batch(&states, &[0], 1).unwrap();
        assert_eq!(&average.evaluate(EmitTo::All).unwrap(), &array(Float64Array::from(vec![1.5])));
    }

    #[test]
    fn what_was_added_can_be_taken_back() {
        let mut one = OneGroup(sums(Function::Sum));
        one.update_batch(&[int(vec![Some(4), None, Some(8)])]).unwrap();
        one.retract_batch(&[int(vec![Some(4), None])]).unwrap();
        assert_eq!(one.evaluate().unwrap(), ScalarValue::Int64(Some(8)));
        one.retract_batch(&[int(vec![Some(8)])]).unwrap();
        assert_eq!(one.evaluate().unwrap(), ScalarValue::Int64(None));
    }

    #[test]
    fn one_group_is_a_group_of_its_own() {
        let mut one = OneGroup(sums(Function::Avg));
        assert_eq!(one.evaluate().unwrap(), ScalarValue::Int64(None));
        let empty = one.state().unwrap();
        assert_eq!(empty[1], ScalarValue::Int64(Some(0)));
        one.update_batch(&[int(vec![Some(4), None, Some(8)])]).unwrap();
        assert_eq!(one.evaluate().unwrap(), ScalarValue::Int64(Some(6)));
        assert_eq!(one.evaluate().unwrap(), ScalarValue::Int64(Some(6)));
    }
}
