//! A column as the encoders see it: its type found once a batch, then written value by value.

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, PrimitiveArray, StringArray, TimestampMicrosecondArray,
    TimestampMillisecondArray, TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::buffer::{NullBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    SchemaRef, TimeUnit,
};
use ruslo_core::error::{Error, Result};

use crate::moment::{TimestampStyle, per_second, write_date, write_timestamp};
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

/// Checks that every column of a schema can be written.
///
/// # Errors
/// `Usage`, if one cannot.
pub(crate) fn check(schema: &SchemaRef, format: &str) -> Result<()> {
    for field in schema.fields() {
        if Writer::new(&arrow::array::new_empty_array(field.data_type())).is_none() {
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
            _ => return None,
        };
        Some(Self { values, nulls: array.nulls() })
    }

    /// Writes the value of a row, unless it is text.
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
        }
        Written::Plain
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
