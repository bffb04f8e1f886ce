//! ARRAY_AGG and STRING_AGG: every value of a group, in an order that does not depend on how the rows came.
//!
//! The order is that of the ORDER BY inside the call; windows put the event time there if none is written. Values that
//! are equal in it follow by themselves, ascending, NULL first.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, StringBuilder};
use arrow::buffer::NullBuffer;
use arrow::compute::{SortOptions, take};
use arrow::datatypes::DataType;
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::EmitTo;

use super::by_group::Groups;
use super::rows::{GroupedRows, TakenRows, item, offsets};
use super::sums::{true_rows, valid_rows};

/// What becomes of the values.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Collected {
    /// A list of them, NULLs too.
    Array,
    /// One string, with this between them; without NULLs.
    Text(String),
}

/// The values of each group: state columns are a list of values, and one of each ORDER BY expression.
#[derive(Debug)]
pub(super) struct Collect {
    what: Collected,
    /// How many columns come before those of ORDER BY.
    arguments: usize,
    order: Vec<SortOptions>,
    rows: GroupedRows,
}

impl Collect {
    /// Values of type `value`, given as the first of `arguments` columns, behind which come those of ORDER BY.
    pub(super) fn new(what: Collected, value: DataType, arguments: usize, order: Vec<(DataType, SortOptions)>) -> Self {
        let (types, order): (Vec<_>, Vec<_>) = order.into_iter().unzip();
        let rows = GroupedRows::new(std::iter::once(value).chain(types).collect());
        Self { what, arguments, order, rows }
    }

    fn text(&self, separator: &str, values: &ArrayRef, counts: &[usize]) -> Result<ArrayRef> {
        let Some(strings) = values.as_string_opt::<i32>() else {
            return internal_err!("STRING_AGG over {}", values.data_type());
        };
        let mut strings = strings.iter();
        let mut joined = StringBuilder::new();
        for count in counts {
            let group = strings.by_ref().take(*count).flatten().collect::<Vec<_>>();
            joined.append_option((*count > 0).then(|| group.join(separator)));
        }
        Ok(Arc::new(joined.finish()))
    }
}

/// The values of `taken` in the order of the groups, and in a group by the ORDER BY columns and themselves.
fn ordered(taken: &TakenRows, order: &[SortOptions]) -> Result<Option<ArrayRef>> {
    let Some((value, keys)) = taken.columns.split_first() else { return Ok(None) };
    let mut keys: Vec<_> = keys.iter().cloned().zip(order.iter().copied()).collect();
    keys.push((value.clone(), SortOptions { descending: false, nulls_first: true }));
    Ok(Some(take(value, &taken.sorted_by(&keys)?, None)?))
}

impl Groups for Collect {
    fn empty(&self) -> Result<Self> {
        let rows = GroupedRows::new(self.rows.types().to_vec());
        Ok(Self { what: self.what.clone(), arguments: self.arguments, order: self.order.clone(), rows })
    }

    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.rows.grow(total);
        let Some(value) = values.first() else { return Ok(()) };
        let keep = match self.what {
            Collected::Array => filter.map(true_rows),
            Collected::Text(_) => valid_rows(value, filter).map(|valid| BooleanArray::new(valid.into_inner(), None)),
        };
        let order = values.iter().skip(self.arguments);
        self.rows.push(groups, std::iter::once(value).chain(order).cloned().collect(), keep.as_ref())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.rows.grow(total);
        self.rows.push_lists(states, groups)
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let taken = self.rows.take(emit)?;
        let Some(values) = ordered(&taken, &self.order)? else { return internal_err!("no values to collect") };
        let counts = taken.counts();
        match &self.what {
            Collected::Array => {
                let present = NullBuffer::from_iter(counts.iter().map(|count| *count > 0));
                Ok(Arc::new(ListArray::try_new(item(values.data_type()), offsets(&counts)?, values, Some(present))?))
            }
            Collected::Text(separator) => self.text(separator, &values, &counts),
        }
    }

    fn states(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        self.rows.take(emit)?.into_lists()
    }

    fn bytes(&self) -> usize {
        self.rows.bytes()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    const ASC: SortOptions = SortOptions { descending: false, nulls_first: true };

    fn ints(values: Vec<Option<i64>>) -> ArrayRef {
        Arc::new(Int64Array::from(values))
    }

    fn arrays() -> Collect {
        Collect::new(Collected::Array, DataType::Int64, 1, vec![(DataType::Int64, ASC)])
    }

    #[test]
    fn values_come_by_time_then_by_value_however_they_were_cut() {
        let times = ints(vec![Some(5), Some(1), Some(5), Some(5), Some(0)]);
        let values = ints(vec![Some(9), Some(8), Some(3), None, Some(7)]);
        let groups = [0, 0, 0, 0, 2];
        let mut whole = arrays();
        whole.update(&[values.clone(), times.clone()], &groups, None, 3).unwrap();
        let mut merged = arrays();
        for at in (0..5).rev() {
            let mut part = arrays();
            part.update(&[values.slice(at, 1), times.slice(at, 1)], &groups[at..=at], None, 3).unwrap();
            merged.merge(&part.states(EmitTo::All).unwrap(), &[0, 1, 2], 3).unwrap();
        }
        let expected = ListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![Some(8), None, Some(3), Some(9)]),
            None,
            Some(vec![Some(7)]),
        ]);
        for mut groups in [whole, merged] {
            assert_eq!(groups.results(EmitTo::All).unwrap().as_list::<i32>(), &expected);
            assert_eq!(groups.bytes(), 0);
        }
    }

    #[test]
    fn text_has_no_nulls_and_a_group_of_nulls_is_null() {
        let what = Collected::Text("-".to_owned());
        let desc = SortOptions { descending: true, nulls_first: false };
        let mut text = Collect::new(what, DataType::Utf8, 2, vec![(DataType::Int64, desc)]);
        let words: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b"), None, Some("")]));
        let order = ints(vec![Some(1), Some(2), Some(3), None, None]);
        let filter = BooleanArray::from(vec![true, true, true, true, true]);
        text.update(&[words.clone(), words, order], &[0, 0, 0, 1, 2], Some(&filter), 3).unwrap();
        let made = text.results(EmitTo::All).unwrap();
        assert_eq!(made.as_string::<i32>(), &StringArray::from(vec![Some("b-a"), None, Some("")]));
    }
}
