//! The two sides: how rows that wait look, and what is kept of the right side.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, TimestampMillisecondArray, new_null_array,
};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{
    DataType, Field, FieldRef, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use ruslo_core::changelog::{RowKind, row_kinds};
use ruslo_core::error::{Error, Result};
use ruslo_core::keyed::TableSchema;
use ruslo_core::schema::{split_watermarks, visible, with_split_watermarks};
use ruslo_core::state::OperatorState;

use super::keys::keys_of;
use super::spec::AsOfJoinInput;
use crate::event_time::millis;
use crate::sort::{EventTimeSortSpec, SortKey, SortTables};

/// The right row of each key that counts from now on. Stored in checkpoints, as are those below.
pub(super) const VERSIONS: &str = "as_of_versions";
const LEFT_TABLES: SortTables = SortTables { waiting: "as_of_left", firing: "as_of_left_firing" };
const RIGHT_TABLES: SortTables = SortTables { waiting: "as_of_right", firing: "as_of_right_firing" };

/// Times are compared in milliseconds, or finer.
pub(super) const NANOS_PER_MILLI: i64 = 1_000_000;

/// Nanoseconds in a unit of the input's event time.
pub(super) fn unit_nanos(input: &AsOfJoinInput) -> Result<i64> {
    match input.schema.fields().get(input.time).map(|field| field.data_type()) {
        Some(DataType::Timestamp(TimeUnit::Second, _)) => Ok(1_000_000_000),
        Some(DataType::Timestamp(TimeUnit::Millisecond, _)) => Ok(1_000_000),
        Some(DataType::Timestamp(TimeUnit::Microsecond, _)) => Ok(1_000),
        Some(DataType::Timestamp(TimeUnit::Nanosecond, _)) => Ok(1),
        _ => Err(Error::internal("a join by time has no time")),
    }
}

/// The values of a TIMESTAMP column, in its unit.
fn raw(column: &dyn Array) -> Result<&[i64]> {
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => Ok(column.as_primitive::<TimestampSecondType>().values()),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Ok(column.as_primitive::<TimestampMillisecondType>().values()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(column.as_primitive::<TimestampMicrosecondType>().values()),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Ok(column.as_primitive::<TimestampNanosecondType>().values()),
        other => Err(Error::internal(format!("event time of type {other} is not a TIMESTAMP"))),
    }
}

fn column(rows: &RecordBatch, place: usize) -> Result<&ArrayRef> {
    rows.columns().get(place).ok_or_else(|| Error::internal("a join by time lost a column"))
}

/// Refuses rows without a time.
fn check_times(rows: &RecordBatch, time: usize, schema: &Schema) -> Result<()> {
    if column(rows, time)?.null_count() == 0 {
        return Ok(());
    }
    let name = schema.fields().get(time).map_or("", |field| field.name());
    Err(Error::data(format!(
        "the time column '{name}' is NULL; filter such rows with WHERE {name} IS NOT NULL before the join"
    )))
}

/// Columns called by their place.
fn by_place(schema: &Schema) -> Vec<FieldRef> {
    let fields = schema.fields().iter().enumerate();
    fields.map(|(n, field)| Arc::new(Field::new(format!("column{n}"), field.data_type().clone(), true))).collect()
}

/// The rows that are joined.
#[derive(Debug)]
pub(super) struct LeftSide {
    input: AsOfJoinInput,
    pub(super) sort: EventTimeSortSpec,
    stored: SchemaRef,
    /// Units of the comparison in one of the time column.
    scale: i64,
}

impl LeftSide {
    pub(super) fn new(input: AsOfJoinInput, unit: i64) -> Result<Self> {
        let stored = Arc::new(Schema::new(by_place(&input.schema)));
        let by_time = SortKey { column: input.time, descending: false, nulls_first: true };
        let sort = EventTimeSortSpec::new(&stored, vec![by_time])?.of_keys(input.keys.clone()).in_tables(LEFT_TABLES);
        let scale = unit_nanos(&input)? / unit;
        Ok(Self { input, sort, stored, scale })
    }

    /// The rows as they wait, with what says whether they are late.
    pub(super) fn incoming(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = visible(batch);
        check_times(&rows, self.input.time, &self.input.schema)?;
        let rows = RecordBatch::try_new(Arc::clone(&self.stored), rows.columns().to_vec())?;
        match split_watermarks(batch) {
            Some(marks) => with_split_watermarks(&rows, marks.clone()),
            None => Ok(rows),
        }
    }

    pub(super) fn keys(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        keys_of(rows, &self.input.keys)
    }

    /// The times of rows, in units of the comparison.
    pub(super) fn times(&self, rows: &RecordBatch) -> Result<Vec<i64>> {
        Ok(raw(column(rows, self.input.time)?)?.iter().map(|time| time.saturating_mul(self.scale)).collect())
    }
}

/// Where a column is found among what is kept of a key.
#[derive(Debug, Clone, Copy)]
enum Place {
    Key(usize),
    Kept(usize),
}

/// The rows of which one counts.
#[derive(Debug)]
pub(super) struct RightSide {
    input: AsOfJoinInput,
    pub(super) sort: EventTimeSortSpec,
    stored: SchemaRef,
    scale: i64,
    /// Units of the comparison in a millisecond.
    milli: i64,
    changes: bool,
    pub(super) table: TableSchema,
    places: Vec<Place>,
    values: Vec<usize>,
}

impl RightSide {
    pub(super) fn new(input: AsOfJoinInput, unit: i64, changes: bool) -> Result<Self> {
        let own = [
            ("valid_from", DataType::Timestamp(TimeUnit::Millisecond, None)),
            ("is_gone", DataType::Boolean),
            ("number", DataType::Int64),
        ];
        let own = own.into_iter().take(if changes { 3 } else { 1 });
        let own = own.map(|(name, data_type)| Arc::new(Field::new(name, data_type, false)));
        let stored = Arc::new(Schema::new(by_place(&input.schema).into_iter().chain(own).collect::<Vec<_>>()));
        let sort = EventTimeSortSpec::new(&stored, order(&input, changes))?;
        let sort = sort.of_keys(input.keys.clone()).in_tables(RIGHT_TABLES);
        let (places, values) = places(&input);
        let table = table(&input, &values, changes);
        let (scale, milli) = (unit_nanos(&input)? / unit, NANOS_PER_MILLI / unit);
        Ok(Self { input, sort, stored, scale, milli, changes, table, places, values })
    }

    fn columns(&self) -> usize {
        self.input.schema.fields().len()
    }

    pub(super) fn key_types(&self) -> Vec<DataType> {
        self.table.key.iter().map(|field| field.data_type().clone()).collect()
    }

    /// The rows as they wait. None of them is late: those whose split's watermark has reached them are valid from behind
    /// it. `number` is that of the next change.
    pub(super) fn incoming(&self, batch: &RecordBatch, number: &mut i64) -> Result<RecordBatch> {
        let rows = visible(batch);
        check_times(&rows, self.input.time, &self.input.schema)?;
        let times = millis(column(&rows, self.input.time)?)?;
        let valid: TimestampMillisecondArray = match split_watermarks(batch) {
            None => TimestampMillisecondArray::new(times, None),
            Some(marks) => times
                .iter()
                .zip(marks.values())
                .map(|(time, mark)| (*time).max(mark.saturating_add(1)))
                .collect::<Vec<_>>()
                .into(),
        };
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(valid));
        if !self.changes {
            return Ok(RecordBatch::try_new(Arc::clone(&self.stored), columns)?);
        }
        let first = *number;
        *number = first.saturating_add(rows.num_rows() as i64);
        let (gone, says) = directions(batch, rows.num_rows());
        columns.push(Arc::new(gone));
        columns.push(Arc::new(Int64Array::from_iter_values(first..*number)));
        let rows = RecordBatch::try_new(Arc::clone(&self.stored), columns)?;
        Ok(filter_record_batch(&rows, &says)?)
    }

    /// One more than the greatest number of a change that waits.
    pub(super) fn next_number(&self, state: &mut dyn OperatorState) -> Result<i64> {
        let mut next = 0;
        if !self.changes {
            return Ok(next);
        }
        for name in [RIGHT_TABLES.waiting, RIGHT_TABLES.firing] {
            for bucket in state.buckets(name).buckets() {
                for rows in state.buckets(name).scan(bucket)? {
                    let numbers = column(&rows, self.columns() + 2)?.as_primitive_opt::<Int64Type>();
                    let greatest = numbers.and_then(|numbers| numbers.values().iter().max().copied());
                    next = next.max(greatest.map_or(0, |number| number.saturating_add(1)));
                }
            }
        }
        Ok(next)
    }

    pub(super) fn keys(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        keys_of(rows, &self.input.keys)
    }

    /// The times of rows that wait, in units of their column.
    pub(super) fn times(&self, rows: &RecordBatch) -> Result<Vec<i64>> {
        Ok(raw(column(rows, self.input.time)?)?.to_vec())
    }

    /// From when on each of the rows that wait is valid, in units of the comparison, and whether it came late.
    pub(super) fn valid(&self, rows: &RecordBatch) -> Result<Vec<(i64, bool)>> {
        let times = column(rows, self.input.time)?;
        let in_millis = millis(times)?;
        let from = column(rows, self.columns())?.as_primitive_opt::<TimestampMillisecondType>();
        let from = from.ok_or_else(|| Error::internal("a version has no beginning"))?;
        let of = |((time, millis), from): ((&i64, &i64), &i64)| match from > millis {
            true => (from.saturating_mul(self.milli), true),
            false => (time.saturating_mul(self.scale), false),
        };
        Ok(raw(times)?.iter().zip(in_millis.iter()).zip(from.values()).map(of).collect())
    }

    /// Which of the rows that wait say that there is no row any more; `None` if none.
    pub(super) fn gone(&self, rows: &RecordBatch) -> Option<BooleanArray> {
        self.changes.then(|| rows.columns().get(self.columns() + 1)?.as_boolean_opt().cloned()).flatten()
    }

    /// What is kept of rows that wait.
    pub(super) fn values(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let mut values: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(self.times(rows)?))];
        if self.changes {
            values.push(Arc::clone(column(rows, self.columns() + 1)?));
        }
        for place in &self.values {
            values.push(Arc::clone(column(rows, *place)?));
        }
        Ok(values)
    }

    /// The times of what is kept, in units of their column.
    pub(super) fn kept_times<'a>(&self, kept: &'a [ArrayRef]) -> Option<&'a Int64Array> {
        kept.first()?.as_primitive_opt::<Int64Type>()
    }

    /// Which of what is kept says that there is no row any more.
    pub(super) fn kept_gone<'a>(&self, kept: &'a [ArrayRef]) -> Option<&'a BooleanArray> {
        kept.get(1).filter(|_| self.changes)?.as_boolean_opt()
    }

    /// A column of the rows that are kept of `keys`.
    pub(super) fn kept_column(&self, place: usize, keys: &[ArrayRef], kept: &[ArrayRef]) -> Result<ArrayRef> {
        let lost = || Error::internal("a join by time lost a column");
        let found = match self.places.get(place).ok_or_else(lost)? {
            Place::Key(key) => keys.get(*key),
            Place::Kept(value) => kept.get(value + 1 + usize::from(self.changes)),
        };
        found.cloned().ok_or_else(lost)
    }

    /// The column of a row that is not there.
    pub(super) fn null(&self, place: usize) -> Result<ArrayRef> {
        let field = self.input.schema.fields().get(place);
        let field = field.ok_or_else(|| Error::internal("a join by time lost a column"))?;
        Ok(new_null_array(field.data_type(), 1))
    }
}

/// Rows in order of validity, so that of one time the last one counts: of changes the one that came last, else the one
/// that is first by its columns.
fn order(input: &AsOfJoinInput, changes: bool) -> Vec<SortKey> {
    let columns = input.schema.fields().len();
    let ascending = |column| SortKey { column, descending: false, nulls_first: true };
    let mut keys = vec![ascending(columns), ascending(input.time)];
    if changes {
        keys.push(ascending(columns + 2));
        return keys;
    }
    let others = input.schema.fields().iter().enumerate();
    let others =
        others.filter(|(n, field)| *n != input.time && !input.keys.contains(n) && !field.data_type().is_nested());
    keys.extend(others.map(|(column, _)| SortKey { column, descending: true, nulls_first: false }));
    keys
}

fn places(input: &AsOfJoinInput) -> (Vec<Place>, Vec<usize>) {
    let mut values = Vec::new();
    let mut places = Vec::new();
    for (n, field) in input.schema.fields().iter().enumerate() {
        // Zeros of either sign are one key, and two values.
        match input.keys.iter().position(|key| *key == n).filter(|_| !field.data_type().is_floating()) {
            Some(key) => places.push(Place::Key(key)),
            None => {
                places.push(Place::Kept(values.len()));
                values.push(n);
            }
        }
    }
    (places, values)
}

fn table(input: &AsOfJoinInput, values: &[usize], changes: bool) -> TableSchema {
    let field = |name: String, data_type: DataType| Arc::new(Field::new(name, data_type, true));
    let type_of = |place: &usize| input.schema.fields().get(*place).map_or(DataType::Null, |f| f.data_type().clone());
    let mut key: Vec<FieldRef> =
        input.keys.iter().enumerate().map(|(n, place)| field(format!("key{n}"), type_of(place))).collect();
    if key.is_empty() {
        key.push(field("key0".to_owned(), DataType::Int8));
    }
    let own = [("time", DataType::Int64), ("is_gone", DataType::Boolean)].into_iter().take(1 + usize::from(changes));
    let own = own.map(|(name, data_type)| Arc::new(Field::new(name, data_type, false)));
    let columns = values.iter().map(|place| field(format!("column{place}"), type_of(place)));
    TableSchema::value(key, own.chain(columns).collect())
}

/// Which rows take away, and which say something: what was before a change does not.
fn directions(batch: &RecordBatch, rows: usize) -> (BooleanArray, BooleanArray) {
    match row_kinds(batch) {
        None => (BooleanArray::from(vec![false; rows]), BooleanArray::from(vec![true; rows])),
        Some(kinds) => {
            let is = |wanted: RowKind| move |kind: &i8| *kind == wanted.number();
            let gone = kinds.values().iter().map(is(RowKind::Delete)).map(Some).collect();
            (gone, kinds.values().iter().map(|kind| Some(!is(RowKind::UpdateBefore)(kind))).collect())
        }
    }
}
