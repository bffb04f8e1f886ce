//! Keyed tables as an operator sees them: rows by key, read and changed in batches.
//!
//! A table is opened by name through [`OperatorState::keyed`](crate::state::OperatorState::keyed); a [`TableSchema`] says
//! what its rows look like, and its [`Kind`] which verbs it has. Who writes between two barriers writes into memory; the
//! barrier takes out what has changed. Memory is bounded by the pipeline's limit: what is not asked for goes to disk and
//! comes back. A row belongs to the key group of its key, so restoring at another parallelism divides every table.
//!
//! Handles ([`Rows`], [`Cursor`]) are good until the next call that changes the table; an old one is refused.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, UInt32Array};
use arrow::buffer::NullBuffer;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use crate::error::{Error, Result};
use crate::key_group::KeyGroup;
use crate::time::Timestamp;

/// How many rows a key has, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// At most one.
    Value,
    /// Many, by a sequence number: one sub-key column, UInt64.
    List,
    /// Many, by sub-key.
    Map,
    /// Many, by time and sequence number: two sub-key columns, Int64 and UInt64.
    Time,
}

impl Kind {
    /// As it is stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::List => "list",
            Self::Map => "map",
            Self::Time => "time",
        }
    }
}

/// How long a row lives after its last write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl {
    /// A row written so many units ago is gone.
    pub units: u32,
    /// Milliseconds per unit: what buckets count.
    pub unit_ms: u64,
}

impl Ttl {
    /// Rows live for `lifetime` at least, and for an eighth of it (a second at least) longer at most.
    pub fn of(lifetime: std::time::Duration) -> Self {
        let lifetime_ms = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX).max(1);
        let unit_ms = lifetime_ms.div_ceil(8).max(1_000);
        Self { units: u32::try_from(lifetime_ms.div_ceil(unit_ms)).unwrap_or(u32::MAX), unit_ms }
    }

    /// The oldest bucket that is alive when the time is `now`, in units.
    pub fn oldest_alive(self, now: u32) -> u32 {
        now.saturating_sub(self.units)
    }
}

/// What a table's rows look like: key, sub-key and value columns in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableSchema {
    /// Rows per key.
    pub kind: Kind,
    /// The key.
    pub key: Vec<FieldRef>,
    /// What tells rows of a key apart; as [`Kind`] wants it.
    pub sub_key: Vec<FieldRef>,
    /// The rest.
    pub value: Vec<FieldRef>,
    /// How long rows live; for ever, if none.
    pub ttl: Option<Ttl>,
    /// `map`: the order in which [`KeyedTable::ends`] finds the rows of a key: columns of the sub-key, the others follow
    /// from left to right, ascending and NULL first. Not stored.
    pub order: Option<Vec<(usize, SortOptions)>>,
    /// `list`: whether [`KeyedTable::load_equal`] finds rows by their values. Not stored.
    pub by_value: bool,
}

impl TableSchema {
    /// A table of one row a key that lives for ever.
    pub fn value(key: Vec<FieldRef>, value: Vec<FieldRef>) -> Self {
        Self { kind: Kind::Value, key, sub_key: Vec::new(), value, ttl: None, order: None, by_value: false }
    }

    /// A table of many rows a key, by sequence number, that live for ever.
    pub fn list(key: Vec<FieldRef>, value: Vec<FieldRef>) -> Self {
        let sub_key = vec![Arc::new(Field::new("__seq", DataType::UInt64, false))];
        Self { kind: Kind::List, key, sub_key, value, ttl: None, order: None, by_value: false }
    }

    /// A table of many rows a key, by `sub_key`, that live for ever.
    pub fn map(key: Vec<FieldRef>, sub_key: Vec<FieldRef>, value: Vec<FieldRef>) -> Self {
        Self { kind: Kind::Map, key, sub_key, value, ttl: None, order: None, by_value: false }
    }

    /// A table of many rows a key, by time and sequence number, that live for ever.
    pub fn time(key: Vec<FieldRef>, value: Vec<FieldRef>) -> Self {
        let time = Arc::new(Field::new("__time", DataType::Int64, false));
        let sequence = Arc::new(Field::new("__seq", DataType::UInt64, false));
        Self { kind: Kind::Time, key, sub_key: vec![time, sequence], value, ttl: None, order: None, by_value: false }
    }

    /// The same with rows that live as long as `ttl` says.
    #[must_use]
    pub fn with_ttl(self, ttl: Option<Ttl>) -> Self {
        Self { ttl, ..self }
    }

    /// The same with an order of the rows of a key.
    #[must_use]
    pub fn with_order(self, order: Option<Vec<(usize, SortOptions)>>) -> Self {
        Self { order, ..self }
    }

    /// The same with rows that are found by their values.
    #[must_use]
    pub fn found_by_value(self) -> Self {
        Self { by_value: true, ..self }
    }

    /// That the sub-key is as the kind wants it.
    ///
    /// # Errors
    /// `Internal`, if it is not.
    pub fn check(&self) -> Result<()> {
        let types: Vec<_> = self.sub_key.iter().map(|field| field.data_type()).collect();
        let fits = match self.kind {
            Kind::Value => types.is_empty(),
            Kind::List => types == [&DataType::UInt64],
            Kind::Map => !types.is_empty(),
            Kind::Time => types == [&DataType::Int64, &DataType::UInt64],
        };
        let wrong = || Error::internal(format!("a {} table has the sub-key {types:?}", self.kind.name()));
        fits.then_some(()).ok_or_else(wrong)
    }

    /// The columns of the key within a row.
    pub fn key_columns(&self) -> Range<usize> {
        0..self.key.len()
    }

    /// The columns of the sub-key within a row.
    pub fn sub_key_columns(&self) -> Range<usize> {
        self.key.len()..self.key.len() + self.sub_key.len()
    }

    /// The columns of a row: key, sub-key, value. All may be NULL: rows that delete have no values.
    pub fn rows(&self) -> SchemaRef {
        Arc::new(Schema::new(self.fields().map(relaxed).collect::<Vec<_>>()))
    }

    /// The fields of a row: key, sub-key, value.
    pub fn fields(&self) -> impl Iterator<Item = &FieldRef> {
        self.key.iter().chain(&self.sub_key).chain(&self.value)
    }
}

/// Deleted rows may have NULL anywhere.
fn relaxed(field: &FieldRef) -> FieldRef {
    if field.is_nullable() { Arc::clone(field) } else { Arc::new(field.as_ref().clone().with_nullable(true)) }
}

/// The number of a row that is not there.
const ABSENT: u32 = u32::MAX;

/// Handles to rows, one for each key that was asked for.
#[derive(Debug, Clone)]
pub struct Rows {
    slots: Vec<u32>,
    generation: u64,
}

impl Rows {
    /// Handles to the rows `slots` of a table that has changed `generation` times; `u32::MAX` is no row. For tables.
    pub fn new(slots: Vec<u32>, generation: u64) -> Self {
        Self { slots, generation }
    }

    /// The rows, as the table numbers them.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// How often the table had changed.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the row asked for by row `row` is there.
    pub fn is_present(&self, row: usize) -> bool {
        self.slots.get(row).is_some_and(|slot| *slot != ABSENT)
    }

    /// Which rows are there; `None` if all are.
    pub fn present(&self) -> Option<NullBuffer> {
        self.slots.contains(&ABSENT).then(|| self.slots.iter().map(|slot| *slot != ABSENT).collect())
    }
}

/// The values of some keys.
#[derive(Debug, Clone)]
pub struct Values {
    /// Which keys are in the table; `None` if all are.
    pub present: Option<NullBuffer>,
    /// The value columns; NULL where the key is not in the table.
    pub columns: Vec<ArrayRef>,
}

/// Where reading the rows of some keys stands.
#[derive(Debug)]
pub struct Cursor {
    /// Requests and the next row of each, the last request first.
    pub waiting: Vec<(u32, u32)>,
    /// Those that are being read.
    pub active: Vec<(u32, u32)>,
    /// How often the table had changed.
    pub generation: u64,
}

impl Cursor {
    /// Reads no more rows of the requests that `is_done` says.
    pub fn leave_out(&mut self, is_done: impl Fn(u32) -> bool) {
        self.active.retain(|(request, _)| !is_done(*request));
        self.waiting.retain(|(request, _)| !is_done(*request));
    }
}

/// From which end the rows of a key are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// From the first one on.
    First,
    /// From the last one back.
    Last,
}

/// Some rows of some keys.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Which of the keys each row is of. The rows of one key come in order.
    pub requests: UInt32Array,
    /// Sub-key and value columns.
    pub columns: Vec<ArrayRef>,
    /// The rows themselves, by which they can be removed.
    pub rows: Rows,
}

/// Rows by key. Every verb takes key columns, one key a row; a key may come several times. All of them fail with
/// `Internal` if the columns are not the table's or the verb is not of its kind, with `Resource` if the keys of one batch
/// do not fit in memory, and with the disk's errors.
pub trait KeyedTable: Send {
    /// What its rows look like.
    fn schema(&self) -> &TableSchema;

    /// Says what time it is, for rows that live for a time only; never goes back.
    fn set_time(&mut self, now: Timestamp);

    /// `value`: the rows of `keys`, those that are there.
    fn load(&mut self, keys: &[ArrayRef]) -> Result<Rows>;

    /// `value`: the rows of `keys`, those that were absent added: NULL where a value may be NULL, else zero or empty. Says
    /// which were added; a key that comes twice is added once.
    fn load_or_insert(&mut self, keys: &[ArrayRef]) -> Result<(Rows, Vec<bool>)>;

    /// `value`: the value columns of rows; NULL where a key was absent.
    fn read(&self, rows: &Rows) -> Result<Vec<ArrayRef>>;

    /// `value`: writes the values of rows, all of which must be there.
    fn write(&mut self, rows: &Rows, values: &[ArrayRef]) -> Result<()>;

    /// `value`: the keys of a key group that have a row, in no particular order: all of them at once.
    fn keys(&mut self, group: KeyGroup) -> Result<Vec<ArrayRef>>;

    /// `value`: the values of `keys`.
    fn get(&mut self, keys: &[ArrayRef]) -> Result<Values> {
        let rows = self.load(keys)?;
        Ok(Values { columns: self.read(&rows)?, present: rows.present() })
    }

    /// `value`: writes the values of `keys`, whether they were there or not; of a key that comes twice the last.
    fn upsert(&mut self, keys: &[ArrayRef], values: &[ArrayRef]) -> Result<()>;

    /// `value`: adds to a BIGINT value column; a key that was absent, and NULL, count as 0. A sum that leaves the range is
    /// a `Data` error.
    fn add(&mut self, keys: &[ArrayRef], column: usize, deltas: &Int64Array) -> Result<()>;

    /// Every kind: removes all rows of `keys`.
    fn remove(&mut self, keys: &[ArrayRef]) -> Result<()>;

    /// `list`: adds a row to each of `keys`, behind those that are there.
    fn append(&mut self, keys: &[ArrayRef], values: &[ArrayRef]) -> Result<()>;

    /// `time`: adds a row to each of `keys`.
    fn append_at(&mut self, keys: &[ArrayRef], times: &[i64], values: &[ArrayRef]) -> Result<()>;

    /// `map`: writes a row of each of `keys`, whether its sub-key was there or not; of one that comes twice the last.
    fn put(&mut self, keys: &[ArrayRef], sub_keys: &[ArrayRef], values: &[ArrayRef]) -> Result<()>;

    /// `map`: the rows under `keys` and `sub_keys`, those that are there.
    fn load_rows(&mut self, keys: &[ArrayRef], sub_keys: &[ArrayRef]) -> Result<Rows>;

    /// `list`, `map`, `time`: sub-key and value columns of rows; NULL where there is none.
    fn read_rows(&self, rows: &Rows) -> Result<Vec<ArrayRef>>;

    /// `list`, `map`, `time`: begins to read all rows of `keys`; in order of the sequence number in a `list`.
    fn rows(&mut self, keys: &[ArrayRef]) -> Result<Cursor>;

    /// `list`, `map`, `time`: the next rows, `rows_max` at most; `None` if there are no more.
    fn next(&self, cursor: &mut Cursor, rows_max: usize) -> Result<Option<Piece>>;

    /// `list` of rows that are found by value: of each of `keys` the last row with these values; of a key with values that
    /// come several times, as many of the last ones. Values are equal if their bytes are.
    fn load_equal(&mut self, keys: &[ArrayRef], values: &[ArrayRef]) -> Result<Rows>;

    /// `list`, `map`, `time`: the rows at one end of each of `keys`, as many as `rows_max` says for it, the outermost first.
    /// A `map` has ends where it has an order, and its sub-key's types have one; otherwise all rows of the key come. Does
    /// not go through the rows of a key, but for the first time after it came into memory.
    fn ends(&mut self, keys: &[ArrayRef], end: End, rows_max: &[u32]) -> Result<Piece>;

    /// `list`, `map`, `time`: adds to a BIGINT value column of rows that were read or loaded; NULL counts as 0, of a row that
    /// comes twice both count, and those that are not there are fine. The rows count as written now. A sum that leaves the
    /// range is a `Data` error.
    fn add_to_rows(&mut self, rows: &Rows, column: usize, deltas: &Int64Array) -> Result<()>;

    /// `list`, `map`, `time`: removes rows that were read or loaded; those that are gone already are fine.
    fn remove_rows(&mut self, rows: &Rows) -> Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, data_type: DataType) -> FieldRef {
        Arc::new(Field::new(name, data_type, true))
    }

    #[test]
    fn a_lifetime_is_kept_and_exceeded_by_an_eighth_at_most() {
        let of = |seconds| Ttl::of(std::time::Duration::from_secs(seconds));
        assert_eq!(of(80), Ttl { units: 8, unit_ms: 10_000 });
        assert_eq!(of(1), Ttl { units: 1, unit_ms: 1_000 });
        assert_eq!(of(0), Ttl { units: 1, unit_ms: 1_000 });
        assert_eq!(of(3), Ttl { units: 3, unit_ms: 1_000 });
    }

    #[test]
    fn a_sub_key_that_the_kind_does_not_have_is_refused() {
        let mut schema = TableSchema::value(vec![field("k", DataType::Utf8)], vec![]);
        schema.check().unwrap();
        schema.kind = Kind::List;
        assert!(schema.check().is_err());
    }
}
