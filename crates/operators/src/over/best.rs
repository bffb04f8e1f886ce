//! MIN, MAX, FIRST_VALUE and LAST_VALUE over frames.
//!
//! Of a frame that rows never leave one value is kept. Of others a list: the value that is the result now, then that
//! which is the result when this one has left, and so on. A value that enters drives out those behind which it would never
//! be seen, so the list of MIN is ascending, that of MAX descending, that of LAST_VALUE one value, and that of FIRST_VALUE
//! all of them.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DynComparator, Int64Array, UInt32Array, make_comparator, new_empty_array,
};
use arrow::compute::{SortOptions, concat, interleave, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use ruslo_core::error::{Error, Result};
use ruslo_core::keyed::{KeyedTable, Rows, TableSchema};

use super::frame::{Does, Walk};

/// Which value of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Least,
    Greatest,
    First,
    Last,
}

impl Which {
    /// Whether a value that enters drives out an older one that it compares to like `new`.
    fn drives_out(self, new: Ordering) -> bool {
        match self {
            Self::Least => new != Ordering::Greater,
            Self::Greatest => new != Ordering::Less,
            Self::First => false,
            Self::Last => true,
        }
    }
}

/// How two values of a column compare, by their rows.
fn comparator(values: &ArrayRef) -> Result<DynComparator> {
    Ok(make_comparator(values.as_ref(), values.as_ref(), SortOptions::default())?)
}

/// The choice among rows that never leave: what is chosen for each key at the end, and for each row. `state` is what was
/// chosen before, NULL where nothing was.
pub(super) fn running(which: Which, state: &ArrayRef, walk: &Walk, values: &ArrayRef) -> Result<(ArrayRef, ArrayRef)> {
    let all = concat(&[state.as_ref(), values.as_ref()])?;
    let compare = comparator(&all)?;
    let before = state.len();
    let mut best: Vec<Option<u32>> = (0..before).map(|group| state.is_valid(group).then_some(group as u32)).collect();
    let mut results: Vec<Option<u32>> = Vec::with_capacity(walk.places.len());
    for step in &walk.steps {
        let Some(best) = best.get_mut(step.group as usize) else { continue };
        let row = before + step.row as usize;
        match step.does {
            Does::Enters if all.is_valid(row) => {
                let is_better = |old: u32| match which {
                    Which::First => false,
                    Which::Last => true,
                    _ => which.drives_out(compare(row, old as usize)),
                };
                if best.is_none_or(is_better) {
                    *best = Some(row as u32);
                }
            }
            Does::Enters | Does::Leaves => {}
            Does::Results => results.push(*best),
        }
    }
    Ok((take(&all, &UInt32Array::from(best), None)?, take(&all, &UInt32Array::from(results), None)?))
}

/// The lists of one call.
#[derive(Debug)]
pub(super) struct Lists {
    which: Which,
    pub(super) name: &'static str,
    pub(super) table: TableSchema,
}

/// What is in a table.
struct Known {
    groups: Vec<u32>,
    slots: Vec<u32>,
    generation: u64,
    places: Vec<i64>,
    values: ArrayRef,
}

impl Lists {
    /// In the table `name`, by `key`, of values of the type `value`.
    pub(super) fn new(which: Which, name: &'static str, key: Vec<FieldRef>, value: DataType) -> Self {
        let place = Arc::new(Field::new("place", DataType::Int64, false));
        let table = TableSchema::list(key, vec![place, Arc::new(Field::new("value", value, true))]);
        Self { which, name, table }
    }

    /// The result for each row of `walk`, whose arguments are `values`; `keys` has the key of each group.
    pub(super) fn walk(
        &self,
        table: &mut dyn KeyedTable,
        keys: &[ArrayRef],
        walk: &Walk,
        (groups, values): (&[u32], &ArrayRef),
        batch_rows: usize,
    ) -> Result<ArrayRef> {
        let known = self.known(table, keys, values, batch_rows)?;
        let all = concat(&[known.values.as_ref(), values.as_ref()])?;
        let places: Vec<i64> = known.places.iter().chain(walk.places.iter()).copied().collect();
        let total = keys.first().map_or(0, |key| key.len());
        let mut queues = Queues::new(total, &known.groups, groups);
        let (compare, mut results) = (comparator(&all)?, Vec::with_capacity(groups.len()));
        for step in &walk.steps {
            // Rows of the frame that were kept are in the list already.
            let Some(new) = (step.row as usize).checked_sub(walk.kept) else { continue };
            let row = known.groups.len() + new;
            match step.does {
                Does::Enters if all.is_valid(row) => {
                    queues.push(step.group, row as u32, |old| self.which.drives_out(compare(row, old as usize)));
                }
                Does::Enters | Does::Leaves => {}
                Does::Results => {
                    let begin = walk.begins.get(new).copied().unwrap_or(i64::MIN);
                    results
                        .push(queues.first(step.group, |row| places.get(row as usize).is_some_and(|at| *at >= begin)));
                }
            }
        }
        self.write(table, keys, &known, &queues, (&all, &places))?;
        Ok(take(&all, &UInt32Array::from(results), None)?)
    }

    /// All lists of `keys`.
    fn known(
        &self,
        table: &mut dyn KeyedTable,
        keys: &[ArrayRef],
        values: &ArrayRef,
        batch_rows: usize,
    ) -> Result<Known> {
        let lost = || Error::internal(format!("the table '{}' lost a column", self.name));
        let mut cursor = table.rows(keys)?;
        let (mut groups, mut slots, mut places, mut pieces) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut generation = 0;
        while let Some(piece) = table.next(&mut cursor, batch_rows.max(1024))? {
            let [_, place, value] = piece.columns.as_slice() else { return Err(lost()) };
            groups.extend_from_slice(piece.requests.values());
            slots.extend_from_slice(piece.rows.slots());
            places.extend_from_slice(place.as_primitive_opt::<Int64Type>().ok_or_else(lost)?.values());
            pieces.push(Arc::clone(value));
            generation = piece.rows.generation();
        }
        let refs: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
        let values = if refs.is_empty() { new_empty_array(values.data_type()) } else { concat(&refs)? };
        Ok(Known { groups, slots, generation, places, values })
    }

    /// Removes what has left or was driven out, and adds what is new.
    fn write(
        &self,
        table: &mut dyn KeyedTable,
        keys: &[ArrayRef],
        known: &Known,
        queues: &Queues,
        (all, places): (&ArrayRef, &[i64]),
    ) -> Result<()> {
        let mut gone: Vec<u32> = known.slots.clone();
        let (mut groups, mut rows) = (Vec::new(), Vec::new());
        for (group, list) in queues.lists() {
            for row in list {
                match gone.get_mut(*row as usize) {
                    Some(slot) => *slot = u32::MAX,
                    None => {
                        groups.push(group);
                        rows.push(*row);
                    }
                }
            }
        }
        gone.retain(|slot| *slot != u32::MAX);
        if !gone.is_empty() {
            table.remove_rows(&Rows::new(gone, known.generation))?;
        }
        if rows.is_empty() {
            return Ok(());
        }
        let at = rows.iter().filter_map(|row| places.get(*row as usize)).copied();
        let at: ArrayRef = Arc::new(Int64Array::from_iter_values(at));
        let groups = UInt32Array::from(groups);
        let keys = keys.iter().map(|key| Ok(take(key, &groups, None)?)).collect::<Result<Vec<_>>>()?;
        table.append(&keys, &[at, take(all, &UInt32Array::from(rows), None)?])
    }
}

/// The lists of some keys in memory: one stretch a key, long enough for all that may come.
struct Queues {
    rows: Vec<u32>,
    /// Where each begins and ends.
    bounds: Vec<(usize, usize)>,
}

impl Queues {
    /// Of `total` keys: what is known is in the lists, what is new may come.
    fn new(total: usize, known: &[u32], new: &[u32]) -> Self {
        let mut lengths = vec![0usize; total];
        for group in known.iter().chain(new) {
            lengths.get_mut(*group as usize).into_iter().for_each(|length| *length += 1);
        }
        let mut bounds = Vec::with_capacity(total);
        let mut next = 0;
        for length in lengths {
            bounds.push((next, next));
            next += length;
        }
        let mut queues = Self { rows: vec![0; next], bounds };
        for (row, group) in known.iter().enumerate() {
            queues.push(*group, row as u32, |_| false);
        }
        queues
    }

    /// Adds a row behind those that it does not drive out.
    fn push(&mut self, group: u32, row: u32, drives_out: impl Fn(u32) -> bool) {
        let Some((begin, end)) = self.bounds.get_mut(group as usize) else { return };
        while *end > *begin && self.rows.get(*end - 1).is_some_and(|old| drives_out(*old)) {
            *end -= 1;
        }
        if let Some(slot) = self.rows.get_mut(*end) {
            *slot = row;
            *end += 1;
        }
    }

    /// The first row that is in the frame; those before it go.
    fn first(&mut self, group: u32, is_in: impl Fn(u32) -> bool) -> Option<u32> {
        let (begin, end) = self.bounds.get_mut(group as usize)?;
        while *begin < *end {
            let row = self.rows.get(*begin).copied()?;
            if is_in(row) {
                return Some(row);
            }
            *begin += 1;
        }
        None
    }

    fn lists(&self) -> impl Iterator<Item = (u32, &[u32])> {
        let lists = self.bounds.iter().enumerate();
        lists.map(|(group, (begin, end))| (group as u32, self.rows.get(*begin..*end).unwrap_or_default()))
    }
}

/// LAG: the argument of the row that leaves as the result's row comes, or else the row's `default`.
pub(super) fn lagged(walk: &Walk, values: &ArrayRef, default: &ArrayRef) -> Result<ArrayRef> {
    let mut left = None;
    let mut places = Vec::with_capacity(walk.places.len());
    // Frames of rows have one step of each kind at most between two results, all of one key.
    for step in &walk.steps {
        match step.does {
            Does::Enters => left = None,
            Does::Leaves => left = Some(step.row as usize),
            Does::Results => places.push(match left {
                Some(row) => (0, row),
                None => (1, step.row as usize - walk.kept),
            }),
        }
    }
    Ok(interleave(&[values.as_ref(), default.as_ref()], &places)?)
}
