//! One side of a join as its keyed table has it.
//!
//! | how its rows come | table | sub-key | value |
//! |---|---|---|---|
//! | only come | `list` | sequence number | columns |
//! | change, one a key | `list` of one | sequence number | columns |
//! | change, told apart by some columns | `map` | those columns | the others |
//! | change, otherwise | `map` | all columns | how many rows are equal |
//!
//! Columns that are the key itself are not kept twice. Where partners are counted, their number stands behind the value.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int8Array, Int64Array, UInt32Array, new_empty_array};
use arrow::compute::{filter, is_null, or, take};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, SchemaRef, UInt64Type};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::hash_rows;
use ruslo_core::keyed::{KeyedTable, Rows, TableSchema, Ttl};

use super::spec::{RegularJoinInput, RegularJoinKind};

/// The first input.
pub(super) const LEFT: usize = 0;
/// The second one.
pub(super) const RIGHT: usize = 1;

/// Stored in checkpoints: the tables of either side, and what is left of its batches.
const TABLES: [(&str, &str); 2] = [("join_left", "join_left_rest"), ("join_right", "join_right_rest")];

/// How rows are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Store {
    /// They only come.
    List,
    /// They change, and a key has one.
    One,
    /// They change, and some of their columns tell them apart.
    Map,
    /// Equal rows are one, with their number.
    Counted,
}

/// Where a column is found.
#[derive(Debug, Clone, Copy)]
enum Place {
    Key(usize),
    /// Among the columns that the table gives: sub-key and value.
    Kept(usize),
}

/// One side.
#[derive(Debug)]
pub(super) struct Side {
    /// Of its table.
    pub(super) name: &'static str,
    /// Of the rows of it that a barrier found in work.
    pub(super) rest: &'static str,
    pub(super) schema: SchemaRef,
    pub(super) table: TableSchema,
    keys: Vec<usize>,
    null_equals: Vec<bool>,
    store: Store,
    places: Vec<Place>,
    /// Columns of the sub-key, then those of the value.
    sub_keys: Vec<usize>,
    values: Vec<usize>,
    /// Whether rows have the number of their partners.
    pub(super) counts_partners: bool,
}

impl Side {
    pub(super) fn new(
        side: usize,
        input: &RegularJoinInput,
        null_equals: &[bool],
        kind: RegularJoinKind,
    ) -> Result<Self> {
        let (name, rest) = if side == LEFT { TABLES[LEFT] } else { TABLES[RIGHT] };
        let fields = input.schema.fields();
        let in_key = |column: usize| {
            let is_float = fields.get(column).is_some_and(|field| field.data_type().is_floating());
            // Zeros of either sign are one key, and two values.
            input.keys.iter().position(|key| *key == column).filter(|_| !is_float)
        };
        let kept: Vec<usize> = (0..fields.len()).filter(|column| in_key(*column).is_none()).collect();
        let store = store_of(input, &kept, kind.has_pairs() || side == LEFT);
        let (sub_keys, values): (Vec<usize>, Vec<usize>) = match (store, &input.unique) {
            (Store::Counted, _) => (kept, Vec::new()),
            (Store::Map, Some(unique)) => kept.into_iter().partition(|column| unique.contains(column)),
            _ => (Vec::new(), kept),
        };
        check_identity(&sub_keys, &input.schema)?;
        // A list has the sequence number first, a map of nothing but keys a 0.
        let first = if sub_keys.is_empty() { 1 } else { 0 };
        let place = |column: usize| match in_key(column) {
            Some(key) => Place::Key(key),
            None => {
                let kept = sub_keys.iter().chain(&values).position(|kept| *kept == column);
                Place::Kept(first + kept.unwrap_or_default())
            }
        };
        let places = (0..fields.len()).map(place).collect();
        let counts_partners = kind.counts(side);
        let table = table_of(input, null_equals, (store, &sub_keys, &values), counts_partners)?;
        Ok(Self {
            name,
            rest,
            schema: Arc::clone(&input.schema),
            table: table.with_ttl(input.lifetime.map(Ttl::of)),
            keys: input.keys.clone(),
            null_equals: null_equals.to_vec(),
            store,
            places,
            sub_keys,
            values,
            counts_partners,
        })
    }

    /// What is kept, for people.
    pub(super) fn text(&self) -> String {
        let rows = match self.store {
            Store::List => "all rows",
            Store::One => "the row",
            Store::Map => "the rows by their unique columns",
            Store::Counted => "the rows, equal ones once with their number",
        };
        let partners = if self.counts_partners { ", each with the number of its partners" } else { "" };
        format!("{rows}{partners}")
    }

    /// How rows are kept, in words that never change.
    pub(super) fn layout(&self) -> String {
        let rows = match self.store {
            Store::List => "list".to_owned(),
            Store::One => "one".to_owned(),
            Store::Map => format!("map({})", self.sub_keys.len()),
            Store::Counted => "counted".to_owned(),
        };
        rows + if self.counts_partners { " partners" } else { "" }
    }

    /// The join keys of rows of this side.
    pub(super) fn keys_of(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        if self.keys.is_empty() {
            return vec![zeros(rows.num_rows())];
        }
        pick(rows, &self.keys)
    }

    /// Which rows have no partner whatever comes, because a key is NULL; `None` if none.
    pub(super) fn without_partners(&self, rows: &RecordBatch) -> Result<Option<BooleanArray>> {
        let mut found: Option<BooleanArray> = None;
        for (key, _) in self.keys.iter().zip(&self.null_equals).filter(|(_, null_equals)| !**null_equals) {
            let Some(column) = rows.columns().get(*key).filter(|column| column.null_count() > 0) else { continue };
            let nulls = is_null(column)?;
            found = Some(match found {
                Some(others) => or(&others, &nulls)?,
                None => nulls,
            });
        }
        Ok(found)
    }

    /// The rows of a side as the table gave them: a column, of rows that were asked for by `requests` among `keys`.
    pub(super) fn column(
        &self,
        column: usize,
        kept: &[ArrayRef],
        keys: &[ArrayRef],
        requests: &UInt32Array,
    ) -> Result<ArrayRef> {
        let lost = || Error::internal(format!("column {column} of '{}' is lost", self.name));
        match self.places.get(column).ok_or_else(lost)? {
            Place::Key(key) => Ok(take(keys.get(*key).ok_or_else(lost)?, requests, None)?),
            Place::Kept(place) => Ok(Arc::clone(kept.get(*place).ok_or_else(lost)?)),
        }
    }

    /// How many equal rows each row of the table stands for; one each, if none.
    pub(super) fn copies<'a>(&self, kept: &'a [ArrayRef]) -> Option<&'a [i64]> {
        let behind = 1 + usize::from(self.counts_partners);
        let at = kept.len().checked_sub(behind).filter(|_| self.store == Store::Counted)?;
        Some(kept.get(at)?.as_primitive_opt::<Int64Type>()?.values())
    }

    /// How many partners each row of the table has, if that is counted.
    pub(super) fn partners<'a>(&self, kept: &'a [ArrayRef]) -> Option<&'a [i64]> {
        let column = kept.last().filter(|_| self.counts_partners)?;
        Some(column.as_primitive_opt::<Int64Type>()?.values())
    }

    /// Adds to the numbers of partners of rows of the table.
    pub(super) fn add_partners(&self, table: &mut dyn KeyedTable, rows: &Rows, deltas: Int64Array) -> Result<()> {
        table.add_to_rows(rows, self.table.value.len().saturating_sub(1), &deltas)
    }

    /// Where a row that the table gave stands among those of its key, whenever and wherever it is read: by its sequence
    /// number in a list, else by the hash of what tells it apart.
    pub(super) fn positions(&self, kept: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
        match kept.first().and_then(|first| first.as_primitive_opt::<UInt64Type>()) {
            Some(sequence) if matches!(self.store, Store::List | Store::One) => Ok(sequence.values().to_vec()),
            _ => hash_rows(kept.get(..self.table.sub_key.len()).unwrap_or_default(), rows),
        }
    }

    /// Adds rows, with the number of the partners of each.
    pub(super) fn add(&self, table: &mut dyn KeyedTable, rows: &RecordBatch, partners: &[i64]) -> Result<()> {
        let keys = self.keys_of(rows);
        let mut values = pick(rows, &self.values);
        let counted = || self.counts_partners.then(|| Arc::new(Int64Array::from(partners.to_vec())) as ArrayRef);
        match self.store {
            Store::List | Store::One => {
                values.extend(counted());
                table.append(&keys, &values)
            }
            Store::Map => {
                values.extend(counted());
                table.put(&keys, &self.sub_keys_of(rows), &values)
            }
            Store::Counted => self.add_equal(table, &keys, &self.sub_keys_of(rows), counted()),
        }
    }

    /// Adds rows of which equal ones are one.
    fn add_equal(
        &self,
        table: &mut dyn KeyedTable,
        keys: &[ArrayRef],
        sub_keys: &[ArrayRef],
        partners: Option<ArrayRef>,
    ) -> Result<()> {
        let rows = sub_keys.first().map_or(0, Array::len);
        let mut found = table.load_rows(keys, sub_keys)?;
        if let Some(present) = found.present() {
            let new = BooleanArray::new(!present.inner(), None);
            let of_new = |column: &ArrayRef| filter(column, &new);
            let none: ArrayRef = Arc::new(Int64Array::from_value(0, rows));
            let values = std::iter::once(&none).chain(&partners).map(of_new).collect::<Result<Vec<_>, _>>()?;
            let [new_keys, new_sub_keys] =
                [keys, sub_keys].map(|columns| columns.iter().map(of_new).collect::<Result<Vec<_>, _>>());
            table.put(&new_keys?, &new_sub_keys?, &values)?;
            found = table.load_rows(keys, sub_keys)?;
        }
        table.add_to_rows(&found, 0, &Int64Array::from_value(1, rows))
    }

    /// Takes rows away; those that are not there are fine.
    pub(super) fn remove(&self, table: &mut dyn KeyedTable, rows: &RecordBatch) -> Result<()> {
        let keys = self.keys_of(rows);
        match self.store {
            Store::List => {
                Err(Error::internal(format!("a row of '{}' is taken back, but its rows only come", self.name)))
            }
            Store::One => table.remove(&keys),
            Store::Map => {
                let found = table.load_rows(&keys, &self.sub_keys_of(rows))?;
                table.remove_rows(&found)
            }
            Store::Counted => {
                let found = table.load_rows(&keys, &self.sub_keys_of(rows))?;
                table.add_to_rows(&found, 0, &Int64Array::from_value(-1, rows.num_rows()))?;
                let left = table.read_rows(&found)?;
                let copies = self.copies(&left).unwrap_or_default();
                let gone = found.slots().iter().zip(copies).filter(|(_, copies)| **copies <= 0).map(|(slot, _)| *slot);
                table.remove_rows(&Rows::new(gone.collect(), found.generation()))
            }
        }
    }

    fn sub_keys_of(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        if self.sub_keys.is_empty() { vec![zeros(rows.num_rows())] } else { pick(rows, &self.sub_keys) }
    }
}

/// How the rows of `input` are kept, of which the columns `kept` are not in the key. Whether each counts, or only that
/// there is one, `each_counts` says.
fn store_of(input: &RegularJoinInput, kept: &[usize], each_counts: bool) -> Store {
    match &input.unique {
        _ if input.is_append_only && (each_counts || !kept.is_empty()) => Store::List,
        Some(unique) if unique.iter().all(|column| !kept.contains(column)) => Store::One,
        Some(_) => Store::Map,
        None => Store::Counted,
    }
}

fn table_of(
    input: &RegularJoinInput,
    null_equals: &[bool],
    (store, sub_keys, values): (Store, &[usize], &[usize]),
    counts_partners: bool,
) -> Result<TableSchema> {
    let fields = input.schema.fields();
    let key = |(n, (column, null_equals)): (usize, (&usize, &bool))| {
        let data_type = fields.get(*column).map(|field| field.data_type().clone())?;
        Some(Arc::new(Field::new(format!("key{n}"), data_type, *null_equals)))
    };
    let mut keys: Vec<FieldRef> = input.keys.iter().zip(null_equals).enumerate().filter_map(key).collect();
    if keys.is_empty() {
        keys.push(Arc::new(Field::new("key0", DataType::Int8, false)));
    }
    hash_rows(&keys.iter().map(|field| new_empty_array(field.data_type())).collect::<Vec<_>>(), 0)?;
    let kept = |columns: &[usize]| {
        let field = |column: &usize| {
            fields.get(*column).map(|field| Arc::new(field.as_ref().clone().with_name(format!("column{column}"))))
        };
        columns.iter().filter_map(field).collect::<Vec<FieldRef>>()
    };
    let count = |name: &str| Arc::new(Field::new(name, DataType::Int64, false));
    let mut value = kept(values);
    value.extend((store == Store::Counted).then(|| count("rows")));
    value.extend(counts_partners.then(|| count("partners")));
    let one = || vec![Arc::new(Field::new("one", DataType::Int8, false))];
    Ok(match store {
        Store::List | Store::One => TableSchema::list(keys, value),
        _ if sub_keys.is_empty() => TableSchema::map(keys, one(), value),
        _ => TableSchema::map(keys, kept(sub_keys), value),
    })
}

/// That rows can be told apart by `columns`.
fn check_identity(columns: &[usize], schema: &SchemaRef) -> Result<()> {
    for field in columns.iter().filter_map(|column| schema.fields().get(*column)) {
        hash_rows(&[new_empty_array(field.data_type())], 0).map_err(|_| {
            Error::usage(format!(
                "the rows of a joined table that changes are told apart by all their columns, and '{}' is {}, which does \
                 not say whether two are equal; leave it out, or join a query that has one row a key",
                field.name(),
                field.data_type()
            ))
        })?;
    }
    Ok(())
}

fn pick(rows: &RecordBatch, columns: &[usize]) -> Vec<ArrayRef> {
    columns.iter().filter_map(|column| rows.columns().get(*column)).cloned().collect()
}

/// Of a key that everything has.
fn zeros(rows: usize) -> ArrayRef {
    Arc::new(Int8Array::from_value(0, rows))
}
