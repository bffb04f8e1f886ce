//! The rows that a Top-N keeps, as its table has them.
//!
//! | how rows come | table | sub-key | value |
//! |---|---|---|---|
//! | only come | `list` | sequence number | columns |
//! | change | `map` | columns | how many rows are equal |
//!
//! Columns that are the key itself are not kept twice, but FLOAT and DOUBLE: zeros of either sign are one key.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int64Array, UInt32Array, new_empty_array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::keyed::{KeyedTable, Rows, TableSchema, Ttl};

use super::runs::Changes;

/// Where a column is found.
#[derive(Debug, Clone, Copy)]
enum Place {
    Key(usize),
    /// Among the columns that the table gives: sub-key and value.
    Kept(usize),
}

#[derive(Debug)]
pub(super) struct Kept {
    pub(super) table: TableSchema,
    places: Vec<Place>,
    /// The columns that are kept beside the key.
    columns: Vec<usize>,
    is_counted: bool,
}

/// What was kept of some keys.
pub(super) struct Stored {
    pub(super) rows: RecordBatch,
    /// The key that each row is of.
    pub(super) groups: Vec<u32>,
    /// How many equal rows each stands for.
    pub(super) counts: Vec<i64>,
    slots: Vec<u32>,
    generation: u64,
}

impl Kept {
    pub(super) fn new(input: &Schema, keys: &[usize], is_counted: bool, ttl: Option<Ttl>) -> Result<Self> {
        let fields = input.fields();
        let in_key = |column: usize| {
            let is_float = fields.get(column).is_some_and(|field| field.data_type().is_floating());
            keys.iter().position(|key| *key == column).filter(|_| !is_float)
        };
        let columns: Vec<usize> = (0..fields.len()).filter(|column| in_key(*column).is_none()).collect();
        // A list has the sequence number first.
        let first = usize::from(!is_counted);
        let place = |column: usize| match in_key(column) {
            Some(key) => Place::Key(key),
            None => Place::Kept(first + columns.iter().position(|kept| *kept == column).unwrap_or_default()),
        };
        let places = (0..fields.len()).map(place).collect();
        let key = named("key", keys.iter().filter_map(|key| fields.get(*key)));
        let key = if key.is_empty() { vec![byte("key0")] } else { key };
        let kept = columns.iter().filter_map(|column| Some((*column, fields.get(*column)?)));
        let kept = kept.map(|(at, field)| renamed(field, format!("column{at}"))).collect::<Vec<_>>();
        let table = match is_counted {
            false => TableSchema::list(key, kept),
            true => {
                let sub_key = if kept.is_empty() { vec![byte("one")] } else { kept };
                TableSchema::map(key, sub_key, vec![Arc::new(Field::new("rows", DataType::Int64, false))])
            }
        };
        Ok(Self { table: table.with_ttl(ttl), places, columns, is_counted })
    }

    /// The rows of `keys`, each of which is there once.
    pub(super) fn read(
        &self,
        table: &mut dyn KeyedTable,
        keys: &[ArrayRef],
        rows_max: usize,
        schema: &SchemaRef,
    ) -> Result<Stored> {
        let mut cursor = table.rows(keys)?;
        let (mut pieces, mut groups, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        let generation = cursor.generation;
        while let Some(piece) = table.next(&mut cursor, rows_max)? {
            groups.extend_from_slice(piece.requests.values());
            slots.extend_from_slice(piece.rows.slots());
            pieces.push(piece.columns);
        }
        let columns = joined(pieces, &self.table)?;
        let counts = match self.is_counted {
            false => vec![1; groups.len()],
            true => {
                let counts = columns.last().and_then(|column| column.as_primitive_opt::<Int64Type>());
                counts.ok_or_else(|| Error::internal("rows of a Top-N have no count"))?.values().to_vec()
            }
        };
        let of_rows = UInt32Array::from(groups.clone());
        let lost = || Error::internal("a Top-N lost a column");
        let column = |place: &Place| match place {
            Place::Key(key) => Ok(take(keys.get(*key).ok_or_else(lost)?, &of_rows, None)?),
            Place::Kept(place) => columns.get(*place).cloned().ok_or_else(lost),
        };
        let full = self.places.iter().map(column).collect::<Result<Vec<_>>>()?;
        Ok(Stored { rows: RecordBatch::try_new(Arc::clone(schema), full)?, groups, counts, slots, generation })
    }

    /// Writes `changes` of `rows`, of which each is of one of `keys`, and of which the first ones are `stored`.
    pub(super) fn write(
        &self,
        table: &mut dyn KeyedTable,
        changes: &Changes,
        (rows, of_rows, keys): (&RecordBatch, &[u32], &[ArrayRef]),
        stored: &Stored,
    ) -> Result<()> {
        if !changes.gone.is_empty() {
            let slots = changes.gone.iter().filter_map(|place| stored.slots.get(*place as usize)).copied().collect();
            table.remove_rows(&Rows::new(slots, stored.generation))?;
        }
        if changes.came.is_empty() {
            return Ok(());
        }
        let places = UInt32Array::from_iter_values(changes.came.iter().map(|(place, _)| *place));
        let groups = places.values().iter().filter_map(|place| of_rows.get(*place as usize)).copied();
        let groups = UInt32Array::from_iter_values(groups);
        let keys = keys.iter().map(|key| Ok(take(key, &groups, None)?)).collect::<Result<Vec<_>>>()?;
        let columns = self.columns.iter().filter_map(|column| rows.columns().get(*column));
        let columns = columns.map(|column| Ok(take(column, &places, None)?)).collect::<Result<Vec<ArrayRef>>>()?;
        if !self.is_counted {
            return table.append(&keys, &columns);
        }
        let counts: ArrayRef = Arc::new(Int64Array::from_iter_values(changes.came.iter().map(|(_, rows)| *rows)));
        let zeros = || Arc::new(Int8Array::from(vec![0; places.len()])) as ArrayRef;
        let columns = if columns.is_empty() { vec![zeros()] } else { columns };
        table.put(&keys, &columns, &[counts])
    }
}

/// Sub-key and value columns of all pieces.
fn joined(pieces: Vec<Vec<ArrayRef>>, table: &TableSchema) -> Result<Vec<ArrayRef>> {
    let fields = table.sub_key.iter().chain(&table.value);
    let column = |(at, field): (usize, &FieldRef)| {
        let parts: Vec<&dyn Array> = pieces.iter().filter_map(|piece| piece.get(at)).map(AsRef::as_ref).collect();
        match parts.as_slice() {
            [] => Ok(new_empty_array(field.data_type())),
            parts => Ok(concat(parts)?),
        }
    };
    fields.enumerate().map(column).collect()
}

fn named<'a>(name: &str, fields: impl Iterator<Item = &'a FieldRef>) -> Vec<FieldRef> {
    fields.enumerate().map(|(at, field)| renamed(field, format!("{name}{at}"))).collect()
}

fn renamed(field: &FieldRef, name: String) -> FieldRef {
    Arc::new(Field::new(name, field.data_type().clone(), true))
}

fn byte(name: &str) -> FieldRef {
    Arc::new(Field::new(name, DataType::Int8, true))
}
