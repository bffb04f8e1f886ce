//! FIRST_VALUE and LAST_VALUE: the value with the least or the greatest key.
//!
//! The key is the ORDER BY inside the call; windows put the event time there if none is written. Of equal keys the
//! least value is first and the greatest last, so the order in which rows came does not show. NULLs do not count.

use arrow::array::{ArrayRef, BooleanArray, new_null_array};
use arrow::compute::SortOptions;
use arrow::datatypes::DataType;
use arrow::row::{Row, RowConverter, SortField};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::EmitTo;

use super::by_group::Groups;
use super::sums::valid_rows;

/// The best row of each group: its ORDER BY columns and the value, in arrow's row form, which compares as they do, and
/// which never leaves memory. State columns are the value and each ORDER BY expression.
#[derive(Debug)]
pub(super) struct FirstLast {
    is_last: bool,
    value: DataType,
    order: Vec<(DataType, SortOptions)>,
    converter: RowConverter,
    /// Empty where there was no value.
    best: Vec<Vec<u8>>,
    row_bytes: usize,
}

impl FirstLast {
    /// The first or last value of type `value`.
    pub(super) fn new(is_last: bool, value: DataType, order: Vec<(DataType, SortOptions)>) -> Result<Self> {
        let value_field = SortField::new_with_options(value.clone(), SortOptions::default());
        let fields = order.iter().map(|(data_type, options)| SortField::new_with_options(data_type.clone(), *options));
        let converter = RowConverter::new(fields.chain([value_field]).collect())?;
        Ok(Self { is_last, value, order, converter, best: Vec::new(), row_bytes: 0 })
    }

    /// Offers rows: the value, then the ORDER BY columns.
    fn offer(&mut self, columns: &[ArrayRef], groups: &[usize], filter: Option<&BooleanArray>) -> Result<()> {
        let Some((value, order)) = columns.split_first() else { return Ok(()) };
        let valid = valid_rows(value, filter);
        let columns: Vec<ArrayRef> = order.iter().chain([value]).cloned().collect();
        let rows = self.converter.convert_columns(&columns)?;
        for (at, (group, row)) in groups.iter().zip(rows.iter()).enumerate() {
            if valid.as_ref().is_none_or(|valid| valid.is_valid(at)) {
                self.compete(*group, row);
            }
        }
        Ok(())
    }

    fn compete(&mut self, group: usize, row: Row<'_>) {
        let Some(best) = self.best.get_mut(group) else { return };
        let row = row.as_ref();
        let is_better = best.is_empty() || if self.is_last { row > best.as_slice() } else { row < best.as_slice() };
        if is_better {
            let before = best.capacity();
            best.clear();
            best.extend_from_slice(row);
            self.row_bytes += best.capacity() - before;
        }
    }

    fn grow(&mut self, total: usize) {
        if total > self.best.len() {
            self.best.resize(total, Vec::new());
        }
    }

    /// The ORDER BY columns and the value of each group; all NULL where there was no value.
    fn columns(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let best = emit.take_needed(&mut self.best);
        self.row_bytes -= best.iter().map(Vec::capacity).sum::<usize>();
        let types = self.order.iter().map(|(data_type, _)| data_type).chain([&self.value]);
        let nulls: Vec<ArrayRef> = types.map(|data_type| new_null_array(data_type, 1)).collect();
        let nothing = self.converter.convert_columns(&nulls)?;
        let nothing = nothing.row(0);
        let parser = self.converter.parser();
        let rows = best.iter().map(|row| if row.is_empty() { nothing } else { parser.parse(row) });
        Ok(self.converter.convert_rows(rows)?)
    }
}

impl Groups for FirstLast {
    fn empty(&self) -> Result<Self> {
        Self::new(self.is_last, self.value.clone(), self.order.clone())
    }

    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.grow(total);
        self.offer(values, groups, filter)
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.grow(total);
        self.offer(states, groups, None)
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        match self.columns(emit)?.pop() {
            Some(value) => Ok(value),
            None => internal_err!("a first value without columns"),
        }
    }

    fn states(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let mut columns = self.columns(emit)?;
        columns.rotate_right(1);
        Ok(columns)
    }

    fn bytes(&self) -> usize {
        self.best.capacity() * size_of::<Vec<u8>>() + self.row_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray};

    use super::*;

    fn texts(values: Vec<Option<&str>>) -> ArrayRef {
        Arc::new(StringArray::from(values))
    }

    fn times(values: Vec<i64>) -> ArrayRef {
        Arc::new(Int64Array::from(values))
    }

    fn first_or_last(is_last: bool) -> FirstLast {
        FirstLast::new(is_last, DataType::Utf8, vec![(DataType::Int64, SortOptions::default())]).unwrap()
    }

    #[test]
    fn the_time_decides_then_the_value_and_nulls_do_not_count() {
        let values = texts(vec![Some("late"), Some("b"), Some("a"), None, Some("last"), None]);
        let times = times(vec![7, 5, 5, 1, 9, 3]);
        for (is_last, expected) in [(false, "a"), (true, "last")] {
            let mut whole = first_or_last(is_last);
            whole.update(&[values.clone(), times.clone()], &[0, 0, 0, 0, 0, 2], None, 3).unwrap();
            let mut merged = first_or_last(is_last);
            for at in [4, 0, 3, 2, 5, 1] {
                let mut part = first_or_last(is_last);
                part.update(&[values.slice(at, 1), times.slice(at, 1)], &[usize::from(at == 5) * 2], None, 3).unwrap();
                merged.merge(&part.states(EmitTo::All).unwrap(), &[0, 1, 2], 3).unwrap();
            }
            for mut groups in [whole, merged] {
                assert_eq!(&groups.results(EmitTo::All).unwrap(), &texts(vec![Some(expected), None, None]));
                assert_eq!(groups.row_bytes, 0);
            }
        }
    }

    #[test]
    fn a_filter_keeps_only_what_is_true_and_first_groups_leave_alone() {
        let mut first = first_or_last(false);
        let filter = BooleanArray::from(vec![Some(false), None, Some(true)]);
        let values = texts(vec![Some("x"), Some("y"), Some("z")]);
        first.update(&[values, times(vec![1, 2, 3])], &[0, 0, 1], Some(&filter), 2).unwrap();
        assert_eq!(&first.results(EmitTo::First(1)).unwrap(), &texts(vec![None]));
        assert_eq!(&first.results(EmitTo::All).unwrap(), &texts(vec![Some("z")]));
    }
}
