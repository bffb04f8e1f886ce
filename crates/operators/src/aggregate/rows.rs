//! Rows by group, column by column: what ARRAY_AGG, STRING_AGG and DISTINCT keep.
//!
//! As state each column is a list a group, all lists of a group of one length.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, UInt32Array, new_empty_array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::{SortColumn, SortOptions, concat, filter, lexsort_to_indices, not, take};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{exec_err, internal_err};
use datafusion::error::Result;
use datafusion::logical_expr::EmitTo;

/// Rows of groups `0..total`, in the order in which they came.
#[derive(Debug)]
pub(super) struct GroupedRows {
    types: Vec<DataType>,
    groups: Vec<u32>,
    chunks: Vec<Vec<ArrayRef>>,
    chunk_bytes: usize,
    total: usize,
}

/// The rows of some groups, taken out.
#[derive(Debug)]
pub(super) struct TakenRows {
    /// The group of each row.
    pub(super) groups: Vec<u32>,
    pub(super) columns: Vec<ArrayRef>,
    /// How many groups there are, those without rows too.
    pub(super) total: usize,
}

impl GroupedRows {
    pub(super) fn new(types: Vec<DataType>) -> Self {
        Self { types, groups: Vec::new(), chunks: Vec::new(), chunk_bytes: 0, total: 0 }
    }

    /// The types of the columns.
    pub(super) fn types(&self) -> &[DataType] {
        &self.types
    }

    /// Says that there are `total` groups.
    pub(super) fn grow(&mut self, total: usize) {
        self.total = self.total.max(total);
    }

    /// Adds a row to each group of `groups` where `keep` is true.
    pub(super) fn push(&mut self, groups: &[usize], columns: Vec<ArrayRef>, keep: Option<&BooleanArray>) -> Result<()> {
        let columns = match keep {
            None => {
                self.groups.extend(groups.iter().map(|group| *group as u32));
                columns
            }
            Some(keep) => {
                let kept = groups.iter().zip(keep.iter()).filter(|(_, keep)| *keep == Some(true));
                self.groups.extend(kept.map(|(group, _)| *group as u32));
                columns.iter().map(|column| Ok(filter(column, keep)?)).collect::<Result<_>>()?
            }
        };
        self.add_chunk(columns);
        Ok(())
    }

    fn add_chunk(&mut self, columns: Vec<ArrayRef>) {
        if columns.first().is_some_and(|column| !column.is_empty()) {
            self.chunk_bytes += columns.iter().map(|column| column.get_array_memory_size()).sum::<usize>();
            self.chunks.push(columns);
        }
    }

    /// Adds the rows in the lists of a state to each group of `groups`.
    pub(super) fn push_lists(&mut self, states: &[ArrayRef], groups: &[usize]) -> Result<()> {
        let (rows, columns) = unlist(states, groups)?;
        self.groups.extend(rows);
        self.add_chunk(columns);
        Ok(())
    }

    /// Takes out the rows of the first groups; the others move up.
    pub(super) fn take(&mut self, emit: EmitTo) -> Result<TakenRows> {
        let groups = std::mem::take(&mut self.groups);
        let chunks = std::mem::take(&mut self.chunks);
        self.chunk_bytes = 0;
        let columns = (0..self.types.len()).map(|at| column(&chunks, at, &self.types)).collect::<Result<Vec<_>>>()?;
        let total = std::mem::take(&mut self.total);
        let all = TakenRows { groups, columns, total };
        match emit {
            EmitTo::All => Ok(all),
            EmitTo::First(count) => self.keep_rest(all, count),
        }
    }

    fn keep_rest(&mut self, all: TakenRows, count: usize) -> Result<TakenRows> {
        let first: BooleanArray = all.groups.iter().map(|group| Some((*group as usize) < count)).collect();
        let rest = all.groups.iter().map(|group| (*group as usize).wrapping_sub(count)).collect::<Vec<_>>();
        self.push(&rest, all.columns.clone(), Some(&not(&first)?))?;
        self.total = all.total.saturating_sub(count);
        let columns = all.columns.iter().map(|column| Ok(filter(column, &first)?)).collect::<Result<_>>()?;
        let groups = all.groups.into_iter().filter(|group| (*group as usize) < count).collect();
        Ok(TakenRows { groups, columns, total: count.min(all.total) })
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.groups.capacity() * size_of::<u32>() + self.chunk_bytes
    }
}

/// The `at`th column of all chunks.
fn column(chunks: &[Vec<ArrayRef>], at: usize, types: &[DataType]) -> Result<ArrayRef> {
    let parts: Vec<&dyn Array> = chunks.iter().filter_map(|chunk| chunk.get(at)).map(AsRef::as_ref).collect();
    match (parts.as_slice(), types.get(at)) {
        ([], Some(data_type)) => Ok(new_empty_array(data_type)),
        (parts, _) => Ok(concat(parts)?),
    }
}

impl TakenRows {
    /// Row numbers by group, and in a group by `keys`.
    pub(super) fn sorted_by(&self, keys: &[(ArrayRef, SortOptions)]) -> Result<UInt32Array> {
        let group: ArrayRef = Arc::new(UInt32Array::from(self.groups.clone()));
        let mut columns = vec![SortColumn { values: group, options: None }];
        columns.extend(keys.iter().map(|(key, options)| SortColumn { values: key.clone(), options: Some(*options) }));
        Ok(lexsort_to_indices(&columns, None)?)
    }

    /// How many rows each group has.
    pub(super) fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.total];
        for group in &self.groups {
            if let Some(count) = counts.get_mut(*group as usize) {
                *count += 1;
            }
        }
        counts
    }

    /// Each column as a list a group, as state keeps it.
    pub(super) fn into_lists(self) -> Result<Vec<ArrayRef>> {
        let order = self.by_group();
        let counts = self.counts();
        let lists = self.columns.iter().map(|column| list_of(&take(column, &order, None)?, &counts));
        lists.collect()
    }

    /// Row numbers by group, in the order in which they came: a counting sort.
    fn by_group(&self) -> UInt32Array {
        let mut next = Vec::with_capacity(self.total);
        let mut sum = 0usize;
        for count in self.counts() {
            next.push(sum);
            sum += count;
        }
        let mut order = vec![0; sum];
        for (row, group) in self.groups.iter().enumerate() {
            let Some(place) = next.get_mut(*group as usize) else { continue };
            if let Some(slot) = order.get_mut(*place) {
                *slot = row as u32;
            }
            *place += 1;
        }
        order.into()
    }
}

/// `values` cut into one list a group.
pub(super) fn list_of(values: &ArrayRef, counts: &[usize]) -> Result<ArrayRef> {
    Ok(Arc::new(ListArray::try_new(item(values.data_type()), offsets(counts)?, values.clone(), None)?))
}

/// The field of a list's items.
pub(super) fn item(data_type: &DataType) -> Arc<Field> {
    Arc::new(Field::new_list_field(data_type.clone(), true))
}

/// Where each list begins and the last one ends.
pub(super) fn offsets(counts: &[usize]) -> Result<OffsetBuffer<i32>> {
    let mut end = 0i32;
    let mut offsets = Vec::with_capacity(counts.len() + 1);
    offsets.push(0);
    for count in counts {
        match i32::try_from(*count).ok().and_then(|count| end.checked_add(count)) {
            Some(sum) => end = sum,
            None => return exec_err!("an aggregate's lists have more than {} values together", i32::MAX),
        }
        offsets.push(end);
    }
    Ok(OffsetBuffer::new(ScalarBuffer::from(offsets)))
}

/// The rows in lists, and the group of each.
pub(super) fn unlist(states: &[ArrayRef], groups: &[usize]) -> Result<(Vec<u32>, Vec<ArrayRef>)> {
    let mut rows = Vec::new();
    let mut columns = Vec::with_capacity(states.len());
    for (at, state) in states.iter().enumerate() {
        let Some(list) = state.as_list_opt::<i32>() else {
            return internal_err!("a stored list has the type {}", state.data_type());
        };
        let (Some(first), Some(last)) = (list.offsets().first(), list.offsets().last()) else { continue };
        columns.push(list.values().slice(*first as usize, (last - first) as usize));
        if at == 0 {
            let lengths = list.offsets().lengths();
            rows = groups.iter().zip(lengths).flat_map(|(group, n)| std::iter::repeat_n(*group as u32, n)).collect();
        }
    }
    Ok((rows, columns))
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;
    use arrow::datatypes::Int64Type;

    use super::*;

    fn ints(values: &[i64]) -> ArrayRef {
        Arc::new(Int64Array::from(values.to_vec()))
    }

    fn rows() -> GroupedRows {
        let mut rows = GroupedRows::new(vec![DataType::Int64]);
        rows.push(&[2, 0, 2], vec![ints(&[1, 2, 3])], None).unwrap();
        let keep = BooleanArray::from(vec![Some(true), None, Some(false)]);
        rows.push(&[0, 0, 1], vec![ints(&[4, 5, 6])], Some(&keep)).unwrap();
        rows.grow(4);
        rows
    }

    #[test]
    fn lists_hold_the_rows_of_their_group_and_come_back() {
        let lists = rows().take(EmitTo::All).unwrap().into_lists().unwrap();
        let expected = ListArray::from_iter_primitive::<Int64Type, _, _>([
            Some(vec![Some(2), Some(4)]),
            Some(vec![]),
            Some(vec![Some(1), Some(3)]),
            Some(vec![]),
        ]);
        assert_eq!(lists[0].as_list::<i32>(), &expected);
        let mut back = GroupedRows::new(vec![DataType::Int64]);
        back.push_lists(&[lists[0].slice(1, 2)], &[7, 0]).unwrap();
        let taken = back.take(EmitTo::All).unwrap();
        assert_eq!((taken.groups, &taken.columns[0]), (vec![0, 0], &ints(&[1, 3])));
    }

    #[test]
    fn the_first_groups_leave_and_the_others_move_up() {
        let mut rows = rows();
        let first = rows.take(EmitTo::First(2)).unwrap();
        assert_eq!((first.groups, &first.columns[0], first.total), (vec![0, 0], &ints(&[2, 4]), 2));
        let rest = rows.take(EmitTo::All).unwrap();
        assert_eq!((rest.groups, &rest.columns[0], rest.total), (vec![0, 0], &ints(&[1, 3]), 2));
        assert_eq!(rows.bytes(), 0);
    }
}
