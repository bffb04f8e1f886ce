//! The rows of a frame that rows leave: their arguments, to be taken away when they do.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::{concat, filter, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use ruslo_core::error::{Error, Result};
use ruslo_core::keyed::{KeyedTable, Rows, TableSchema};

use super::frame::{Leaving, Walk};

/// The rows of one frame, in a table.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) name: &'static str,
    pub(super) table: TableSchema,
    /// The arguments that are kept, by their place among the operator's.
    pub(super) arguments: Vec<usize>,
}

/// Rows that leave, with their arguments.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) leaving: Leaving,
    /// Of each of [`Kept::arguments`].
    columns: Vec<ArrayRef>,
    slots: Vec<u32>,
    generation: u64,
}

impl Kept {
    /// In the table `name`, by `key`; of the types `values` are the arguments numbered `arguments`.
    pub(super) fn new(name: &'static str, key: Vec<FieldRef>, arguments: Vec<usize>, values: Vec<DataType>) -> Self {
        let place = Arc::new(Field::new("place", DataType::Int64, false));
        let values = values.into_iter().enumerate();
        let values = values.map(|(at, value)| Arc::new(Field::new(format!("value{at}"), value, true)));
        let table = TableSchema::list(key, std::iter::once(place).chain(values).collect());
        Self { name, table, arguments }
    }

    /// The rows of each group that stand before its place in `begins`.
    pub(super) fn leaving(
        &self,
        table: &mut dyn KeyedTable,
        keys: &[ArrayRef],
        begins: &[i64],
        batch_rows: usize,
    ) -> Result<Left> {
        let lost = || Error::internal(format!("the table '{}' lost a column", self.name));
        let mut cursor = table.rows(keys)?;
        let mut done = vec![false; begins.len()];
        let (mut leaving, mut slots, mut generation) = (Leaving::default(), Vec::new(), 0);
        let mut pieces: Vec<Vec<ArrayRef>> = vec![Vec::new(); self.arguments.len()];
        while let Some(piece) = table.next(&mut cursor, batch_rows.max(1))? {
            let [_, place, columns @ ..] = piece.columns.as_slice() else { return Err(lost()) };
            let places = place.as_primitive_opt::<Int64Type>().ok_or_else(lost)?.values();
            let mut leaves = Vec::with_capacity(places.len());
            for ((group, place), slot) in piece.requests.values().iter().zip(places).zip(piece.rows.slots()) {
                let is_out = begins.get(*group as usize).is_some_and(|begin| place < begin);
                leaves.push(is_out);
                if is_out {
                    leaving.groups.push(*group);
                    leaving.places.push(*place);
                    slots.push(*slot);
                } else {
                    done.get_mut(*group as usize).into_iter().for_each(|done| *done = true);
                }
            }
            generation = piece.rows.generation();
            let leaves = BooleanArray::from(leaves);
            for (pieces, column) in pieces.iter_mut().zip(columns) {
                pieces.push(filter(column, &leaves)?);
            }
            // What stands behind a row that stays stays.
            cursor.leave_out(|request| done.get(request as usize).copied().unwrap_or(true));
        }
        let columns = pieces.iter().zip(self.table.value.iter().skip(1)).map(|(pieces, field)| joined(pieces, field));
        Ok(Left { leaving, columns: columns.collect::<Result<Vec<_>>>()?, slots, generation })
    }

    /// Removes what has left, and adds what stays of the rows of a piece: `groups` has the group of each, `keys` the key
    /// of each group, `values` all arguments.
    pub(super) fn write(
        &self,
        table: &mut dyn KeyedTable,
        left: Left,
        walk: &Walk,
        (keys, groups): (&[ArrayRef], &[u32]),
        values: &[ArrayRef],
    ) -> Result<()> {
        if !left.slots.is_empty() {
            table.remove_rows(&Rows::new(left.slots, left.generation))?;
        }
        let stays = BooleanArray::from(walk.stays.clone());
        if stays.true_count() == 0 {
            return Ok(());
        }
        let groups = filter(&UInt32Array::from(groups.to_vec()), &stays)?;
        let keys = keys.iter().map(|key| Ok(take(key, &groups, None)?)).collect::<Result<Vec<_>>>()?;
        let places: ArrayRef = Arc::new(Int64Array::new(walk.places.clone(), None));
        let values = self.arguments.iter().filter_map(|argument| values.get(*argument));
        let columns = std::iter::once(&places).chain(values).map(|column| Ok(filter(column, &stays)?));
        table.append(&keys, &columns.collect::<Result<Vec<_>>>()?)
    }
}

impl Left {
    /// The argument number `argument` of the rows that leave, and then of those of a piece.
    pub(super) fn with(&self, kept: &Kept, argument: usize, values: &ArrayRef) -> Result<ArrayRef> {
        let place = kept.arguments.iter().position(|kept| *kept == argument);
        match place.and_then(|place| self.columns.get(place)) {
            Some(left) if !left.is_empty() => Ok(concat(&[left.as_ref(), values.as_ref()])?),
            _ => Ok(Arc::clone(values)),
        }
    }
}

fn joined(pieces: &[ArrayRef], field: &FieldRef) -> Result<ArrayRef> {
    let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
    match pieces.as_slice() {
        [] => Ok(arrow::array::new_empty_array(field.data_type())),
        pieces => Ok(concat(pieces)?),
    }
}
