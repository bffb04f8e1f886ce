//! A column that is being decoded: values of one type, and which of them are NULL.
//!
//! Values are appended row by row, or taken back by [`Column::truncate`] when a record turns out to be bad. Numbers are
//! stored at once. Strings are first noted as spans of the block being decoded and copied when the block is done
//! ([`Column::settle`]), by which time the block is known to be UTF-8, so no string is checked twice.
//! A bitmap of NULLs exists only from the first NULL on. Arrays, maps and rows are made of columns again (`nested`).

mod bytes;
mod nested;
mod text;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BooleanArray, NullBufferBuilder, PrimitiveArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time32MillisecondType, TimeUnit,
};
use ruslo_core::error::{Error, Result};

pub(crate) use self::bytes::Bytes;
pub(crate) use self::nested::Nested;
pub(crate) use self::text::Text;
use crate::moment::{self, Minute};
use crate::number;
use crate::type_name::type_name;

/// Why a text is not a value of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// Not of this type at all.
    NotA,
    /// Of the kind, but too large.
    DoesNotFit,
    /// A time with a zone offset in a column without zone.
    HasZone,
    /// Text with half of a surrogate pair.
    LoneSurrogate,
}

/// Values of one type; the variants that the decoders store into directly are the hot ones.
#[derive(Debug)]
pub(crate) enum Values {
    Boolean(Vec<bool>),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Decimal {
        values: Vec<i128>,
        precision: u8,
        scale: i8,
    },
    Date(Vec<i32>),
    Timestamp {
        values: Vec<i64>,
        unit: TimeUnit,
        per_second: i64,
        utc: bool,
        minute: Minute,
    },
    Text(Text),
    /// Milliseconds of the day.
    Time(Vec<i32>),
    Bytes(Bytes),
    Nested(Box<Nested>),
}

/// Appending and taking back values, whatever they are.
pub(crate) trait Rows {
    /// How many there are.
    fn len(&self) -> usize;
    /// Forgets those from `rows` on.
    fn truncate(&mut self, rows: usize);
    /// Appends what stands in the place of a NULL.
    fn put_default(&mut self);
}

impl<T: Default> Rows for Vec<T> {
    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn truncate(&mut self, rows: usize) {
        Vec::truncate(self, rows);
    }

    fn put_default(&mut self) {
        self.push(T::default());
    }
}

/// A column that is being decoded.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    data_type: DataType,
    pub(crate) values: Values,
    /// Of every type but text, which notes NULL among its spans.
    pub(crate) validity: NullBufferBuilder,
}

/// Calls `$body` with `$rows` bound to the values, which are [`Rows`].
macro_rules! each {
    ($on:expr, $rows:ident => $body:expr) => {
        match $on {
            Values::Boolean($rows) => $body,
            Values::Int8($rows) => $body,
            Values::Int16($rows) => $body,
            Values::Int32($rows) | Values::Date($rows) | Values::Time($rows) => $body,
            Values::Int64($rows) | Values::Timestamp { values: $rows, .. } => $body,
            Values::Float32($rows) => $body,
            Values::Float64($rows) => $body,
            Values::Decimal { values: $rows, .. } => $body,
            Values::Text($rows) => $body,
            Values::Bytes($rows) => $body,
            Values::Nested($rows) => $body,
        }
    };
}

impl Column {
    /// An empty column of `field`.
    ///
    /// # Errors
    /// `Usage`, if the type cannot be read from text yet.
    pub(crate) fn new(field: &Field, format: &str) -> Result<Self> {
        Self::part(field, field.name(), format)
    }

    /// An empty column of `field`, which is a part of the column `path`.
    fn part(field: &Field, path: &str, format: &str) -> Result<Self> {
        let values = match field.data_type() {
            DataType::Boolean => Values::Boolean(Vec::new()),
            DataType::Int8 => Values::Int8(Vec::new()),
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Decimal128(precision, scale) if *scale >= 0 => {
                Values::Decimal { values: Vec::new(), precision: *precision, scale: *scale }
            }
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Timestamp(unit, zone) if zone.as_deref().is_none_or(|zone| zone == "UTC") => Values::Timestamp {
                values: Vec::new(),
                unit: *unit,
                per_second: moment::per_second(*unit),
                utc: zone.is_some(),
                minute: Minute::default(),
            },
            DataType::Utf8 => Values::Text(Text::default()),
            DataType::Time32(TimeUnit::Millisecond) => Values::Time(Vec::new()),
            DataType::Binary => Values::Bytes(Bytes::default()),
            other => match Nested::new(other, path, format)? {
                Some(nested) => Values::Nested(Box::new(nested)),
                None => return Err(unreadable(format, other, path)),
            },
        };
        let (name, data_type) = (field.name().clone(), field.data_type().clone());
        Ok(Self { name, data_type, values, validity: NullBufferBuilder::new(0) })
    }

    /// How many rows it holds.
    pub(crate) fn len(&self) -> usize {
        each!(&self.values, rows => rows.len())
    }

    /// Whether the last row is NULL; false without rows.
    pub(crate) fn ends_with_null(&self) -> bool {
        match (&self.values, self.len().checked_sub(1)) {
            (Values::Text(text), _) => text.ends_with_null(),
            (_, Some(last)) => !self.validity.is_valid(last),
            (_, None) => false,
        }
    }

    /// Forgets the rows from `rows` on.
    pub(crate) fn truncate(&mut self, rows: usize) {
        each!(&mut self.values, values => values.truncate(rows));
        if !self.is_text() {
            self.validity.truncate(rows);
        }
    }

    /// Appends NULL.
    pub(crate) fn put_null(&mut self) {
        each!(&mut self.values, values => values.put_default());
        if !self.is_text() {
            self.validity.append_null();
        }
    }

    /// Appends the value that `block[start..end]` spells.
    #[inline]
    pub(crate) fn put(&mut self, block: &[u8], start: usize, end: usize) -> Result<(), Misfit> {
        match &mut self.values {
            Values::Text(text) => {
                text.put_span(start, end);
                Ok(())
            }
            _ => self.put_parsed(block.get(start..end).unwrap_or_default()),
        }
    }

    /// Appends the value that `text` spells, which stands nowhere in the block as it is.
    pub(crate) fn put_copied(&mut self, text: &str) -> Result<(), Misfit> {
        match &mut self.values {
            Values::Text(column) => {
                column.put_copied(text);
                Ok(())
            }
            _ => self.put_parsed(text.as_bytes()),
        }
    }

    /// Appends a value of any type but text.
    fn put_parsed(&mut self, text: &[u8]) -> Result<(), Misfit> {
        match &mut self.values {
            Values::Boolean(values) => values.push(boolean(text)?),
            Values::Int8(values) => values.push(number::integer(text)?.try_into().map_err(|_| Misfit::DoesNotFit)?),
            Values::Int16(values) => values.push(number::integer(text)?.try_into().map_err(|_| Misfit::DoesNotFit)?),
            Values::Int32(values) => values.push(number::integer(text)?.try_into().map_err(|_| Misfit::DoesNotFit)?),
            Values::Int64(values) => values.push(number::integer(text)?),
            Values::Float32(values) => values.push(number::float(text)?),
            Values::Float64(values) => values.push(number::double(text)?),
            Values::Decimal { values, precision, scale } => values.push(number::decimal(text, *precision, *scale)?),
            Values::Date(values) => values.push(moment::date_text(text).ok_or(Misfit::NotA)?),
            Values::Timestamp { values, per_second, utc, minute, .. } => {
                values.push(moment::moment(text, minute).ok_or(Misfit::NotA)?.value(*per_second, *utc)?);
            }
            Values::Time(values) => values.push(moment::time_text(text).ok_or(Misfit::NotA)?),
            Values::Bytes(bytes) => bytes.put_base64(text)?,
            Values::Text(_) | Values::Nested(_) => return Err(Misfit::NotA),
        }
        self.validity.append_non_null();
        Ok(())
    }

    /// Whether an empty text is an empty string here, rather than NULL.
    pub(crate) fn is_text(&self) -> bool {
        matches!(self.values, Values::Text(_))
    }

    /// Copies the strings noted since the last call out of `block`.
    ///
    /// # Errors
    /// `Internal`, if a span does not lie in the block.
    pub(crate) fn settle(&mut self, block: &str) -> Result<()> {
        match &mut self.values {
            Values::Text(text) => text.settle(block),
            Values::Nested(nested) => nested.settle(block),
            _ => Ok(()),
        }
    }

    /// Takes the rows as an array; the next batch starts with room for as many.
    ///
    /// # Errors
    /// `Internal`, if the parts of a nested value do not fit each other.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef> {
        let nulls = self.validity.finish();
        Ok(match &mut self.values {
            Values::Boolean(values) => {
                let array = BooleanArray::new(BooleanBuffer::from(values.as_slice()), nulls);
                values.clear();
                Arc::new(array)
            }
            Values::Int8(values) => primitive::<Int8Type>(values, nulls),
            Values::Int16(values) => primitive::<Int16Type>(values, nulls),
            Values::Int32(values) => primitive::<Int32Type>(values, nulls),
            Values::Int64(values) => primitive::<Int64Type>(values, nulls),
            Values::Float32(values) => primitive::<Float32Type>(values, nulls),
            Values::Float64(values) => primitive::<Float64Type>(values, nulls),
            Values::Decimal { values, .. } => {
                let array = PrimitiveArray::<Decimal128Type>::new(taken(values).into(), nulls);
                Arc::new(array.with_data_type(self.data_type.clone()))
            }
            Values::Date(values) => primitive::<Date32Type>(values, nulls),
            Values::Time(values) => primitive::<Time32MillisecondType>(values, nulls),
            Values::Timestamp { values, unit, utc, .. } => timestamps(taken(values), *unit, *utc, nulls),
            Values::Text(text) => text.finish(),
            Values::Bytes(bytes) => bytes.finish(nulls)?,
            Values::Nested(nested) => nested.finish(&self.data_type, nulls)?,
        })
    }

    /// The sentence for a value that is none of this column's.
    pub(crate) fn misfit(&self, value: &str, misfit: Misfit) -> String {
        let name = type_name(&self.data_type);
        let article = if name.starts_with(['A', 'I']) { "an" } else { "a" };
        match (misfit, &self.values) {
            (Misfit::LoneSurrogate, _) => format!("'{value}' holds half of a surrogate pair"),
            (Misfit::DoesNotFit, _) => format!("'{value}' does not fit in {name}"),
            (Misfit::HasZone, _) => {
                format!("'{value}' has a zone offset, which {name} cannot hold; declare the column as TIMESTAMP_LTZ")
            }
            (Misfit::NotA, Values::Timestamp { .. }) => {
                format!(
                    "'{value}' is not a {name}; it should look like 2013-01-31 05:00:00.123 or 2013-01-31T05:00:00Z"
                )
            }
            (Misfit::NotA, Values::Date(_)) => format!("'{value}' is not a DATE; it should look like 2013-01-31"),
            (Misfit::NotA, Values::Time(_)) => {
                format!("'{value}' is not a {name}; it should look like 05:00:00 or 05:00:00.123")
            }
            (Misfit::NotA, Values::Bytes(_)) => format!("'{value}' is not BYTES; they are written in base64"),
            (Misfit::NotA, _) => format!("'{value}' is not {article} {name}"),
        }
    }
}

/// The error of a type that cannot be read.
fn unreadable(format: &str, data_type: &DataType, column: &str) -> Error {
    let name = type_name(data_type);
    Error::usage(format!("format '{format}' does not read {name} yet (column '{column}')"))
}

/// `true` or `false` in any case.
fn boolean(text: &[u8]) -> Result<bool, Misfit> {
    let text = text.trim_ascii();
    match (text.eq_ignore_ascii_case(b"true"), text.eq_ignore_ascii_case(b"false")) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err(Misfit::NotA),
    }
}

/// The values, with room for as many again left behind.
fn taken<T>(values: &mut Vec<T>) -> Vec<T> {
    let room = Vec::with_capacity(values.len());
    std::mem::replace(values, room)
}

fn primitive<T: ArrowPrimitiveType>(values: &mut Vec<T::Native>, nulls: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(taken(values).into(), nulls))
}

fn timestamps(values: Vec<i64>, unit: TimeUnit, utc: bool, nulls: Option<NullBuffer>) -> ArrayRef {
    let zone = utc.then(|| Arc::<str>::from("UTC"));
    match unit {
        TimeUnit::Second => Arc::new(TimestampSecondArray::new(values.into(), nulls).with_timezone_opt(zone)),
        TimeUnit::Millisecond => Arc::new(TimestampMillisecondArray::new(values.into(), nulls).with_timezone_opt(zone)),
        TimeUnit::Microsecond => Arc::new(TimestampMicrosecondArray::new(values.into(), nulls).with_timezone_opt(zone)),
        TimeUnit::Nanosecond => Arc::new(TimestampNanosecondArray::new(values.into(), nulls).with_timezone_opt(zone)),
    }
}
