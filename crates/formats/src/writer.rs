//! A column as the encoders see it: its type found once a batch, then written value by value.

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, PrimitiveArray, StringArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    SchemaRef, Time32MillisecondType, TimeUnit,
};
use ruslo_core::error::{Error, Result};

use crate::base64;
use crate::moment::{TimestampStyle, per_second, write_date, write_time, write_timestamp};
use crate::number::{write, write_decimal};
use crate::type_name::type_name;

/// The values of a column of a batch.
pub(crate) struct Writer<'a> {
    values: Values<'a>,
    nulls: Option<&'a NullBuffer>,
}

enum Values<'a> {
    Boolean(&'a BooleanArray),
    Int8(&'a PrimitiveArray<Int8Type>),
    Int16(&'a PrimitiveArray<Int16Type>),
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(&'a PrimitiveArray<Int64Type>),
    Float32(&'a PrimitiveArray<Float32Type>),
    Float64(&'a PrimitiveArray<Float64Type>),
    Decimal(&'a PrimitiveArray<Decimal128Type>, i8),
    Date(&'a PrimitiveArray<Date32Type>),
    Timestamp { values: &'a ScalarBuffer<i64>, per_second: i64, utc: bool },
    Text(&'a StringArray),
    Time(&'a PrimitiveArray<Time32MillisecondType>),
    Bytes(&'a BinaryArray),
    Nested(Box<Nested<'a>>),
}

/// The values of an array, a map or a row: its parts are written one by one.
pub(crate) enum Nested<'a> {
    /// Each value's elements.
    List(&'a OffsetBuffer<i32>, Writer<'a>),
    /// Each value's entries: keys and values.
    Map(&'a OffsetBuffer<i32>, Writer<'a>, Writer<'a>),
    /// The names of the fields, and their values.
    Row(Vec<(&'a str, Writer<'a>)>),
}

/// What was written, as far as an encoder has to know in order to quote it.
pub(crate) enum Written<'a> {
    Null,
    /// A number or a boolean; already written.
    Plain,
    /// A date, a time, or a number that JSON doesn't know (`NaN`); already written.
    Word,
    /// A string, which is left for the encoder to escape.
    Text(&'a str),
}

/// What an encoder has to do with a value.
pub(crate) enum Value<'w, 'a> {
    Scalar(Written<'a>),
    /// Its parts are left for the encoder.
    Nested(&'w Nested<'a>),
}

/// Checks that every column of a schema can be written.
///
/// # Errors
/// `Usage`, if one cannot.
pub(crate) fn check(schema: &SchemaRef, format: &str) -> Result<()> {
    for field in schema.fields() {
        let is_json = matches!(format, "json" | "debezium-json");
        if let (DataType::Map(entries, _), true) = (field.data_type(), is_json) {
            check_keys(entries.data_type(), field.name())?;
        }
        let empty = arrow::array::new_empty_array(field.data_type());
        let writer = Writer::new(&empty);
        if writer.is_none_or(|writer| !is_json && matches!(writer.values, Values::Nested(_))) {
            let (name, column) = (type_name(field.data_type()), field.name());
            return Err(Error::usage(format!("format '{format}' does not write {name} yet (column '{column}')")));
        }
    }
    Ok(())
}

impl<'a> Writer<'a> {
    /// The writers of a batch's columns, which must be those of `schema`.
    pub(crate) fn all(batch: &'a arrow::array::RecordBatch, schema: &SchemaRef) -> Result<Vec<Self>> {
        let same = batch.num_columns() == schema.fields().len()
            && batch.columns().iter().zip(schema.fields()).all(|(array, field)| array.data_type() == field.data_type());
        let writers = if same { batch.columns().iter().map(Self::new).collect() } else { None };
        writers.ok_or_else(|| Error::internal("a batch has another schema than its encoder"))
    }

    fn new(array: &'a ArrayRef) -> Option<Self> {
        let values = match array.data_type() {
            DataType::Boolean => Values::Boolean(array.as_boolean_opt()?),
            DataType::Int8 => Values::Int8(array.as_primitive_opt()?),
            DataType::Int16 => Values::Int16(array.as_primitive_opt()?),
            DataType::Int32 => Values::Int32(array.as_primitive_opt()?),
            DataType::Int64 => Values::Int64(array.as_primitive_opt()?),
            DataType::Float32 => Values::Float32(array.as_primitive_opt()?),
            DataType::Float64 => Values::Float64(array.as_primitive_opt()?),
            DataType::Decimal128(_, scale) if *scale >= 0 => Values::Decimal(array.as_primitive_opt()?, *scale),
            DataType::Date32 => Values::Date(array.as_primitive_opt()?),
            DataType::Timestamp(unit, zone) => Values::Timestamp {
                values: timestamps(array, *unit)?,
                per_second: per_second(*unit),
                utc: zone.is_some(),
            },
            DataType::Utf8 => Values::Text(array.as_string_opt::<i32>()?),
            DataType::Time32(TimeUnit::Millisecond) => Values::Time(array.as_primitive_opt()?),
            DataType::Binary => Values::Bytes(array.as_binary_opt::<i32>()?),
            _ => Values::Nested(Box::new(Nested::new(array)?)),
        };
        Some(Self { values, nulls: array.nulls() })
    }

    /// Writes the value of a row, unless it is text or nested.
    #[inline]
    pub(crate) fn value<'w>(&'w self, row: usize, style: TimestampStyle, out: &mut Vec<u8>) -> Value<'w, 'a> {
        match &self.values {
            Values::Nested(nested) if self.nulls.is_none_or(|nulls| nulls.is_valid(row)) => Value::Nested(nested),
            _ => Value::Scalar(self.write(row, style, out)),
        }
    }

    /// Writes the value of a row, unless it is text; a nested one is not written.
    #[inline]
    pub(crate) fn write(&self, row: usize, style: TimestampStyle, out: &mut Vec<u8>) -> Written<'a> {
        if self.nulls.is_some_and(|nulls| nulls.is_null(row)) {
            return Written::Null;
        }
        match &self.values {
            Values::Int64(values) => write(values.value(row), out),
            Values::Text(values) => return Written::Text(values.value(row)),
            Values::Timestamp { values, per_second, utc } => {
                let value = values.get(row).copied().unwrap_or_default();
                write_timestamp(value, *per_second, *utc, style, out);
                return Written::Word;
            }
            Values::Boolean(values) => out.extend_from_slice(if values.value(row) { b"true" } else { b"false" }),
            Values::Int8(values) => write(values.value(row), out),
            Values::Int16(values) => write(values.value(row), out),
            Values::Int32(values) => write(values.value(row), out),
            Values::Decimal(values, scale) => write_decimal(values.value(row), *scale, out),
            Values::Float32(values) if values.value(row).is_finite() => write(values.value(row), out),
            Values::Float64(values) if values.value(row).is_finite() => write(values.value(row), out),
            Values::Float32(values) => return unusual(f64::from(values.value(row)), out),
            Values::Float64(values) => return unusual(values.value(row), out),
            Values::Date(values) => {
                write_date(i64::from(values.value(row)), out);
                return Written::Word;
            }
            Values::Time(values) => {
                write_time(values.value(row), out);
                return Written::Word;
            }
            Values::Bytes(values) => {
                base64::encode(values.value(row), out);
                return Written::Word;
            }
            Values::Nested(_) => return Written::Null,
        }
        Written::Plain
    }
}

impl<'a> Nested<'a> {
    fn new(array: &'a ArrayRef) -> Option<Self> {
        Some(match array.data_type() {
            DataType::List(_) => {
                let list = array.as_list_opt::<i32>()?;
                Self::List(list.offsets(), Writer::new(list.values())?)
            }
            DataType::Map(..) => {
                let map = array.as_map_opt()?;
                Self::Map(map.offsets(), Writer::new(map.keys())?, Writer::new(map.values())?)
            }
            DataType::Struct(fields) => {
                let columns = array.as_struct_opt()?.columns();
                let writers = fields
                    .iter()
                    .zip(columns)
                    .map(|(field, column)| Some((field.name().as_str(), Writer::new(column)?)));
                Self::Row(writers.collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }
}

/// Checks that the keys of a map can be the names of an object, in whatever it holds.
fn check_keys(entries: &DataType, column: &str) -> Result<()> {
    let key = match entries {
        DataType::Struct(parts) => parts.first().map(|key| key.data_type()),
        _ => None,
    };
    match key {
        Some(DataType::Utf8) => Ok(()),
        _ => Err(Error::usage(format!(
            "format 'json' knows only text as the keys of a MAP; declare it as MAP<STRING, ..> (column '{column}')"
        ))),
    }
}

/// A float that is no number, as Java spells it.
fn unusual<'a>(value: f64, out: &mut Vec<u8>) -> Written<'a> {
    let word = match value {
        value if value.is_nan() => "NaN",
        value if value > 0.0 => "Infinity",
        _ => "-Infinity",
    };
    out.extend_from_slice(word.as_bytes());
    Written::Word
}

fn timestamps(array: &ArrayRef, unit: TimeUnit) -> Option<&ScalarBuffer<i64>> {
    let array = array.as_any();
    match unit {
        TimeUnit::Second => array.downcast_ref::<TimestampSecondArray>().map(PrimitiveArray::values),
        TimeUnit::Millisecond => array.downcast_ref::<TimestampMillisecondArray>().map(PrimitiveArray::values),
        TimeUnit::Microsecond => array.downcast_ref::<TimestampMicrosecondArray>().map(PrimitiveArray::values),
        TimeUnit::Nanosecond => array.downcast_ref::<TimestampNanosecondArray>().map(PrimitiveArray::values),
    }
}
