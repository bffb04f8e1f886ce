//! The rows that a Top-N keeps, as its table has them.
//!
//! | how rows come | table | sub-key | value |
//! |---|---|---|---|
//! | only come | `list` | sequence number | columns |
//! | change | `map` | columns | how many rows are equal |
//!
//! Columns that are the key itself are not kept twice, but FLOAT and DOUBLE: zeros of either sign are one key.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, Int64Array, UInt32Array, new_empty_array};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalSortExpr;
use datafusion::physical_expr::expressions::Column;
use ruslo_core::error::{Error, Result};
use ruslo_core::keyed::{End, KeyedTable, Rows, TableSchema, Ttl};

use super::UpdatingTopN;
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

/// Rows as a table gave them.
#[derive(Default)]
struct Found {
    pieces: Vec<Vec<ArrayRef>>,
    groups: Vec<u32>,
    slots: Vec<u32>,
    generation: u64,
}

/// So many times rows are looked up again that have left memory meanwhile.
const LOADS_MAX: usize = 8;

impl Kept {
    pub(super) fn new(input: &Schema, wanted: &UpdatingTopN, ttl: Option<Ttl>) -> Result<Self> {
        let (keys, is_counted) = (wanted.keys.as_slice(), wanted.takes_back);
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
        // Where rows are ranked by columns, they are found in that order; what is equal in it follows as in the ranking.
        let rank = |sort: &PhysicalSortExpr| {
            let column = sort.expr.downcast_ref::<Column>()?.index();
            match in_key(column) {
                Some(_) => Some(None),
                None => Some(Some((columns.iter().position(|kept| *kept == column)?, sort.options))),
            }
        };
        let order: Option<Vec<_>> = wanted.order.iter().map(rank).collect();
        let order = order.map(|order| order.into_iter().flatten().collect()).filter(|_| is_counted);
        Ok(Self { table: table.with_ttl(ttl).with_order(order), places, columns, is_counted })
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
        let mut found = Found { generation: cursor.generation, ..Found::default() };
        while let Some(piece) = table.next(&mut cursor, rows_max)? {
            found.groups.extend_from_slice(piece.requests.values());
            found.slots.extend_from_slice(piece.rows.slots());
            found.pieces.push(piece.columns);
        }
        self.stored(found, keys, schema)
    }

    /// Of `keys`, each of which is there once, the first rows, as many as `rows_max` says of it; and those that are equal to
    /// one of `rows`, of which each is of a key.
    pub(super) fn read_first(
        &self,
        table: &mut dyn KeyedTable,
        keys: &[ArrayRef],
        rows_max: &[u32],
        (rows, of_rows): (&RecordBatch, &[u32]),
    ) -> Result<Stored> {
        let groups = UInt32Array::from(of_rows.to_vec());
        let keys_of_rows = keys.iter().map(|key| Ok(take(key, &groups, None)?)).collect::<Result<Vec<_>>>()?;
        let columns = self.columns.iter().filter_map(|column| rows.columns().get(*column)).cloned().collect();
        let columns = or_zeros(columns, of_rows.len());
        let mut equal = table.load_rows(&keys_of_rows, &columns)?;
        let mut first = table.ends(keys, End::First, rows_max)?;
        // All rows of these keys are in memory now, but short of it some may have made room for others.
        for _ in 0..LOADS_MAX {
            if first.rows.generation() == equal.generation() {
                break;
            }
            equal = table.load_rows(&keys_of_rows, &columns)?;
            if first.rows.generation() != equal.generation() {
                first = table.ends(keys, End::First, rows_max)?;
            }
        }
        if first.rows.generation() != equal.generation() {
            return Err(Error::resource("rows of a Top-N push each other out of memory"));
        }
        let mut found = Found { generation: equal.generation(), ..Found::default() };
        let mut seen: HashSet<u32> = first.rows.slots().iter().copied().collect();
        let others = equal.slots().iter().zip(of_rows).filter(|(slot, _)| **slot != u32::MAX && seen.insert(**slot));
        let (slots, groups): (Vec<u32>, Vec<u32>) = others.map(|(slot, group)| (*slot, *group)).unzip();
        found.groups = [first.requests.values(), groups.as_slice()].concat();
        found.slots = [first.rows.slots(), slots.as_slice()].concat();
        found.pieces = vec![first.columns, table.read_rows(&Rows::new(slots, equal.generation()))?];
        self.stored(found, keys, rows.schema_ref())
    }

    fn stored(&self, found: Found, keys: &[ArrayRef], schema: &SchemaRef) -> Result<Stored> {
        let Found { pieces, groups, slots, generation } = found;
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
        table.put(&keys, &or_zeros(columns, places.len()), &[counts])
    }
}

/// What stands for rows of nothing but keys.
fn or_zeros(columns: Vec<ArrayRef>, rows: usize) -> Vec<ArrayRef> {
    if columns.is_empty() { vec![Arc::new(Int8Array::from(vec![0; rows]))] } else { columns }
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
