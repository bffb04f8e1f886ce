//! Typed handles for operator writers: a keyed table with the verbs of its kind, and no others.
//!
//! | handle | rows of a key |
//! |---|---|
//! | [`ValueState`] | at most one |
//! | [`ListState`] | many, in the order in which they came |
//! | [`MapState`] | many, by sub-key |
//! | [`TimeState`] | many, by time |
//!
//! A handle is opened for a call and costs nothing beside looking up the table's name: open it once a batch. Verbs take key
//! columns, one key a row; their errors are those of [`KeyedTable`].

use arrow::array::{ArrayRef, Int64Array};

use ruslo_core::error::{Error, Result};
use ruslo_core::keyed::{Cursor, KeyedTable, Kind, Piece, Rows, TableSchema, Values};
use ruslo_core::state::OperatorState;
use ruslo_core::time::Timestamp;

fn open<'a>(
    kind: Kind,
    state: &'a mut dyn OperatorState,
    name: &'static str,
    schema: &TableSchema,
) -> Result<&'a mut dyn KeyedTable> {
    let (is, wanted) = (schema.kind.name(), kind.name());
    let wrong = || Error::internal(format!("the {is} table '{name}' was to be opened as a {wanted} table"));
    (schema.kind == kind).then_some(()).ok_or_else(wrong)?;
    state.keyed(name, schema)
}

/// What handles of every kind have.
macro_rules! every_kind {
    ($handle:ident, $kind:expr) => {
        impl<'a> $handle<'a> {
            /// The table `name`, whose rows look like `schema`: see [`OperatorState::keyed`].
            ///
            /// # Errors
            /// `Internal`, if `schema` is of another kind; those of [`OperatorState::keyed`].
            pub fn open(state: &'a mut dyn OperatorState, name: &'static str, schema: &TableSchema) -> Result<Self> {
                Ok(Self(open($kind, state, name, schema)?))
            }

            /// Says what time it is, for rows that live for a time only; never goes back.
            pub fn set_time(&mut self, now: Timestamp) {
                self.0.set_time(now);
            }

            /// Removes all rows of `keys`.
            pub fn remove(&mut self, keys: &[ArrayRef]) -> Result<()> {
                self.0.remove(keys)
            }
        }
    };
}

/// What handles have of kinds with many rows a key.
macro_rules! many_rows {
    ($handle:ident) => {
        impl $handle<'_> {
            /// Begins to read all rows of `keys`.
            pub fn rows(&mut self, keys: &[ArrayRef]) -> Result<Cursor> {
                self.0.rows(keys)
            }

            /// The next rows, `rows_max` at most; `None` if there are no more.
            pub fn next(&self, cursor: &mut Cursor, rows_max: usize) -> Result<Option<Piece>> {
                self.0.next(cursor, rows_max)
            }

            /// Removes rows that were read or loaded; those that are gone already are fine.
            pub fn remove_rows(&mut self, rows: &Rows) -> Result<()> {
                self.0.remove_rows(rows)
            }
        }
    };
}

/// At most one row a key.
///
/// ```
/// # use std::sync::Arc;
/// # use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
/// # use arrow::datatypes::{DataType, Field, Int64Type};
/// # use ruslo_state::handles::ValueState;
/// # use ruslo_core::keyed::TableSchema;
/// # use ruslo_core::state::OperatorState;
/// # use ruslo_state::{keyed::KeyedContext, runs::WorkFolder, table::RunState};
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let work = WorkFolder::new(Arc::new(ruslo_core::disk::LocalDisk), folder.path().to_owned());
/// # let memory = ruslo_core::memory::MemoryPool::unbounded();
/// # let mut state = RunState::new(0..128).with_keyed(KeyedContext { owner: "an operator".to_owned(), work, memory });
/// # let state: &mut dyn OperatorState = &mut state; // `ctx.state` in an operator
/// # let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
/// # let texts = |texts: &[&str]| -> ArrayRef { Arc::new(StringArray::from(texts.to_vec())) };
/// # let numbers = |numbers: &[i64]| -> ArrayRef { Arc::new(Int64Array::from(numbers.to_vec())) };
/// let schema = TableSchema::value(vec![field("airport", DataType::Utf8)], vec![field("flights", DataType::Int64)]);
/// let mut flights = ValueState::open(state, "flights", &schema)?;
/// flights.add(&[texts(&["JFK", "LGA", "JFK"])], 0, &Int64Array::from(vec![1, 1, 1]))?;
/// flights.upsert(&[texts(&["EWR"])], &[numbers(&[7])])?;
/// flights.remove(&[texts(&["LGA"])])?;
///
/// let found = flights.get(&[texts(&["JFK", "LGA", "EWR"])])?;
/// let expected: ArrayRef = Arc::new(Int64Array::from(vec![Some(2), None, Some(7)]));
/// assert_eq!(found.columns, [expected]);
/// # Ok::<(), ruslo_core::error::Error>(())
/// ```
pub struct ValueState<'a>(&'a mut dyn KeyedTable);

every_kind!(ValueState, Kind::Value);

impl ValueState<'_> {
    /// The values of `keys`; NULL where there is none.
    pub fn get(&mut self, keys: &[ArrayRef]) -> Result<Values> {
        self.0.get(keys)
    }

    /// Writes the values of `keys`, whether they were there or not; of a key that comes twice the last.
    pub fn upsert(&mut self, keys: &[ArrayRef], values: &[ArrayRef]) -> Result<()> {
        self.0.upsert(keys, values)
    }

    /// Adds to a BIGINT value column; a key that was absent, and NULL, count as 0.
    pub fn add(&mut self, keys: &[ArrayRef], column: usize, deltas: &Int64Array) -> Result<()> {
        self.0.add(keys, column, deltas)
    }

    /// The rows of `keys`, those that are there, to be read and written without looking for them again.
    pub fn load(&mut self, keys: &[ArrayRef]) -> Result<Rows> {
        self.0.load(keys)
    }

    /// As [`Self::load`], those that were absent added; says which.
    pub fn load_or_insert(&mut self, keys: &[ArrayRef]) -> Result<(Rows, Vec<bool>)> {
        self.0.load_or_insert(keys)
    }

    /// The values of rows; NULL where a key was absent.
    pub fn read(&self, rows: &Rows) -> Result<Vec<ArrayRef>> {
        self.0.read(rows)
    }

    /// Writes the values of rows, all of which must be there.
    pub fn write(&mut self, rows: &Rows, values: &[ArrayRef]) -> Result<()> {
        self.0.write(rows, values)
    }
}

/// Many rows a key, in the order in which they came.
///
/// ```
/// # use std::sync::Arc;
/// # use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
/// # use arrow::datatypes::{DataType, Field, Int64Type};
/// # use ruslo_state::handles::ListState;
/// # use ruslo_core::keyed::TableSchema;
/// # use ruslo_core::state::OperatorState;
/// # use ruslo_state::{keyed::KeyedContext, runs::WorkFolder, table::RunState};
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let work = WorkFolder::new(Arc::new(ruslo_core::disk::LocalDisk), folder.path().to_owned());
/// # let memory = ruslo_core::memory::MemoryPool::unbounded();
/// # let mut state = RunState::new(0..128).with_keyed(KeyedContext { owner: "an operator".to_owned(), work, memory });
/// # let state: &mut dyn OperatorState = &mut state; // `ctx.state` in an operator
/// # let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
/// # let texts = |texts: &[&str]| -> ArrayRef { Arc::new(StringArray::from(texts.to_vec())) };
/// # let numbers = |numbers: &[i64]| -> ArrayRef { Arc::new(Int64Array::from(numbers.to_vec())) };
/// let schema = TableSchema::list(vec![field("airport", DataType::Utf8)], vec![field("delay", DataType::Int64)]);
/// let mut delays = ListState::open(state, "delays", &schema)?;
/// delays.append(&[texts(&["JFK", "LGA", "JFK"])], &[numbers(&[5, 9, 3])])?;
///
/// let mut cursor = delays.rows(&[texts(&["JFK"])])?;
/// while let Some(piece) = delays.next(&mut cursor, 1_024)? {
///     // The sequence number, then the values.
///     assert_eq!(piece.columns[1].as_primitive::<Int64Type>().values(), &[5, 3]);
///     delays.remove_rows(&piece.rows)?;
///     cursor = delays.rows(&[texts(&["JFK"])])?;
/// }
/// # Ok::<(), ruslo_core::error::Error>(())
/// ```
pub struct ListState<'a>(&'a mut dyn KeyedTable);

every_kind!(ListState, Kind::List);
many_rows!(ListState);

impl ListState<'_> {
    /// Adds a row to each of `keys`, behind those that are there.
    pub fn append(&mut self, keys: &[ArrayRef], values: &[ArrayRef]) -> Result<()> {
        self.0.append(keys, values)
    }
}

/// Many rows a key, by sub-key.
///
/// ```
/// # use std::sync::Arc;
/// # use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
/// # use arrow::datatypes::{DataType, Field, Int64Type};
/// # use ruslo_state::handles::MapState;
/// # use ruslo_core::keyed::TableSchema;
/// # use ruslo_core::state::OperatorState;
/// # use ruslo_state::{keyed::KeyedContext, runs::WorkFolder, table::RunState};
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let work = WorkFolder::new(Arc::new(ruslo_core::disk::LocalDisk), folder.path().to_owned());
/// # let memory = ruslo_core::memory::MemoryPool::unbounded();
/// # let mut state = RunState::new(0..128).with_keyed(KeyedContext { owner: "an operator".to_owned(), work, memory });
/// # let state: &mut dyn OperatorState = &mut state; // `ctx.state` in an operator
/// # let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
/// # let texts = |texts: &[&str]| -> ArrayRef { Arc::new(StringArray::from(texts.to_vec())) };
/// # let numbers = |numbers: &[i64]| -> ArrayRef { Arc::new(Int64Array::from(numbers.to_vec())) };
/// let (airport, carrier) = (field("airport", DataType::Utf8), field("carrier", DataType::Utf8));
/// let schema = TableSchema::map(vec![airport], vec![carrier], vec![field("flights", DataType::Int64)]);
/// let mut flights = MapState::open(state, "flights", &schema)?;
/// flights.put(&[texts(&["JFK", "JFK"])], &[texts(&["AA", "DL"])], &[numbers(&[4, 6])])?;
///
/// let found = flights.get(&[texts(&["JFK", "JFK"])], &[texts(&["DL", "UA"])])?;
/// let expected: ArrayRef = Arc::new(Int64Array::from(vec![Some(6), None]));
/// assert_eq!(found.columns, [expected]);
/// flights.remove_keys(&[texts(&["JFK"])], &[texts(&["DL"])])?;
/// assert!(!flights.load(&[texts(&["JFK"])], &[texts(&["DL"])])?.is_present(0));
/// # Ok::<(), ruslo_core::error::Error>(())
/// ```
pub struct MapState<'a>(&'a mut dyn KeyedTable);

every_kind!(MapState, Kind::Map);
many_rows!(MapState);

impl MapState<'_> {
    /// Writes a row of each of `keys`, whether its sub-key was there or not; of one that comes twice the last.
    pub fn put(&mut self, keys: &[ArrayRef], sub_keys: &[ArrayRef], values: &[ArrayRef]) -> Result<()> {
        self.0.put(keys, sub_keys, values)
    }

    /// The values under `keys` and `sub_keys`; NULL where there is no row.
    pub fn get(&mut self, keys: &[ArrayRef], sub_keys: &[ArrayRef]) -> Result<Values> {
        let rows = self.load(keys, sub_keys)?;
        let columns = self.0.read_rows(&rows)?.into_iter().skip(sub_keys.len()).collect();
        Ok(Values { present: rows.present(), columns })
    }

    /// The rows under `keys` and `sub_keys`, those that are there.
    pub fn load(&mut self, keys: &[ArrayRef], sub_keys: &[ArrayRef]) -> Result<Rows> {
        self.0.load_rows(keys, sub_keys)
    }

    /// Removes the rows under `keys` and `sub_keys`.
    pub fn remove_keys(&mut self, keys: &[ArrayRef], sub_keys: &[ArrayRef]) -> Result<()> {
        let rows = self.load(keys, sub_keys)?;
        self.0.remove_rows(&rows)
    }
}

/// Many rows a key, by time.
///
/// ```
/// # use std::sync::Arc;
/// # use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
/// # use arrow::datatypes::{DataType, Field, Int64Type};
/// # use ruslo_state::handles::TimeState;
/// # use ruslo_core::keyed::TableSchema;
/// # use ruslo_core::state::OperatorState;
/// # use ruslo_state::{keyed::KeyedContext, runs::WorkFolder, table::RunState};
/// # let folder = tempfile::tempdir().expect("a folder");
/// # let work = WorkFolder::new(Arc::new(ruslo_core::disk::LocalDisk), folder.path().to_owned());
/// # let memory = ruslo_core::memory::MemoryPool::unbounded();
/// # let mut state = RunState::new(0..128).with_keyed(KeyedContext { owner: "an operator".to_owned(), work, memory });
/// # let state: &mut dyn OperatorState = &mut state; // `ctx.state` in an operator
/// # let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
/// # let texts = |texts: &[&str]| -> ArrayRef { Arc::new(StringArray::from(texts.to_vec())) };
/// # let numbers = |numbers: &[i64]| -> ArrayRef { Arc::new(Int64Array::from(numbers.to_vec())) };
/// let schema = TableSchema::time(vec![field("airport", DataType::Utf8)], vec![field("flight", DataType::Int64)]);
/// let mut flights = TimeState::open(state, "flights", &schema)?;
/// flights.append(&[texts(&["JFK", "JFK"])], &[2_000, 1_000], &[numbers(&[11, 12])])?;
///
/// let mut cursor = flights.rows(&[texts(&["JFK"])])?;
/// let mut seen = Vec::new();
/// while let Some(piece) = flights.next(&mut cursor, 1_024)? {
///     // Time and sequence number, then the values.
///     let [time, _, flight] = &piece.columns[..] else { unreachable!() };
///     let (time, flight) = (time.as_primitive::<Int64Type>(), flight.as_primitive::<Int64Type>());
///     seen.extend(time.values().iter().copied().zip(flight.values().iter().copied()));
/// }
/// seen.sort();
/// assert_eq!(seen, [(1_000, 12), (2_000, 11)]);
/// # Ok::<(), ruslo_core::error::Error>(())
/// ```
pub struct TimeState<'a>(&'a mut dyn KeyedTable);

every_kind!(TimeState, Kind::Time);
many_rows!(TimeState);

impl TimeState<'_> {
    /// Adds a row to each of `keys`, at its time in milliseconds.
    pub fn append(&mut self, keys: &[ArrayRef], times: &[i64], values: &[ArrayRef]) -> Result<()> {
        self.0.append_at(keys, times, values)
    }
}
