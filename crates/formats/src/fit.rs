//! A file's columns as a table's: found by name, and of a type that fits.
//!
//! A type fits if every value of it has its place in the column's type: smaller integers in larger ones, any text in
//! STRING, times in TIMESTAMPs. Digits of a second beyond the column's are cut off, as everywhere; a value that is too
//! large after all is an error. Where a format has no small integers (Avro), its `int` stands for them, too, and each value is
//! checked. TIMESTAMP and TIMESTAMP_LTZ both hold what the file says without a shift, which is UTC.
//! The fields of a ROW are found by name, too; one that the file lacks is NULL.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray,
    make_array, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Int32Type, Schema, SchemaRef, TimeUnit};
use ruslo_core::error::{Error, Result};

use crate::DecoderConfig;
use crate::moment::per_second;
use crate::type_name::type_name;

/// Where the wanted columns stand in a file.
#[derive(Debug)]
pub(crate) struct Fit {
    schema: SchemaRef,
    /// For each wanted column, its index in the file's schema.
    found: Vec<usize>,
    /// The indexes that are read, ascending.
    read: Vec<usize>,
}

impl Fit {
    /// Finds the wanted columns in a file of `schema`.
    ///
    /// # Errors
    /// `Data`, naming the column.
    pub(crate) fn new(file: &Schema, columns: &DecoderConfig<'_>) -> Result<Self> {
        Self::of(file, columns, Integers::Widen)
    }

    /// As [`Fit::new`] in a file of a format whose smallest integer is `Int32`.
    pub(crate) fn narrowing(file: &Schema, columns: &DecoderConfig<'_>) -> Result<Self> {
        Self::of(file, columns, Integers::Narrow)
    }

    fn of(file: &Schema, columns: &DecoderConfig<'_>, integers: Integers) -> Result<Self> {
        let schema = columns.schema()?;
        let found = schema.fields().iter().map(|field| find(file, field, integers)).collect::<Result<Vec<_>>>()?;
        let mut read = found.clone();
        read.sort_unstable();
        read.dedup();
        Ok(Self { schema, found, read })
    }

    /// The indexes of the file's columns that have to be read, ascending.
    pub(crate) fn read(&self) -> &[usize] {
        &self.read
    }

    /// The wanted columns, from a batch of the columns [`Fit::read`].
    ///
    /// # Errors
    /// `Data`, if a value does not fit.
    pub(crate) fn convert(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let column = |(index, field): (&usize, &FieldRef)| {
            let place = self.read.binary_search(index).unwrap_or_default();
            let array = batch.columns().get(place).ok_or_else(|| Error::internal("a column of a file was not read"))?;
            convert(array, field.data_type()).map_err(|error| misfit(field, error.to_string()))
        };
        let arrays = self.found.iter().zip(self.schema.fields()).map(column).collect::<Result<Vec<_>>>()?;
        for (array, field) in arrays.iter().zip(self.schema.fields()) {
            if !field.is_nullable() && array.null_count() > 0 {
                return Err(misfit(field, "it is NULL, and declared NOT NULL"));
            }
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?)
    }
}

fn misfit(field: &Field, sentence: impl std::fmt::Display) -> Error {
    Error::data(format!("column '{}': {sentence}", field.name()))
}

/// Which integers fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Integers {
    /// Smaller ones in larger ones.
    Widen,
    /// `Int32` in smaller ones, too.
    Narrow,
}

fn find(file: &Schema, wanted: &Field, integers: Integers) -> Result<usize> {
    let Some((index, field)) = file.column_with_name(wanted.name()) else {
        let names: Vec<_> = file.fields().iter().take(20).map(|field| format!("'{}'", field.name())).collect();
        let more = if file.fields().len() > names.len() { ", .." } else { "" };
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(Error::data(format!("there is no column '{}'; the file has {names}{more}", wanted.name())));
    };
    match fits(field.data_type(), wanted.data_type(), integers) {
        true => Ok(index),
        false => Err(misfit(
            wanted,
            format!(
                "it is {} in the file, which cannot be read as {}",
                type_name(field.data_type()),
                type_name(wanted.data_type())
            ),
        )),
    }
}

/// Whether values of `from` can stand in a column of `to`.
fn fits(from: &DataType, to: &DataType, integers: Integers) -> bool {
    use DataType::*;
    match (from, to) {
        (from, to) if from == to => true,
        (Dictionary(_, values), to) => fits(values, to, integers),
        (Null, _) => true,
        (LargeUtf8 | Utf8View | Utf8, Utf8) => true,
        (Binary | LargeBinary | BinaryView, Utf8 | Binary) | (FixedSizeBinary(_), Binary) => true,
        (Int32, Int8 | Int16) => integers == Integers::Narrow,
        (Int8, Int16 | Int32 | Int64) | (Int16, Int32 | Int64) | (Int32, Int64) => true,
        (UInt8, Int16 | Int32 | Int64) | (UInt16, Int32 | Int64) | (UInt32, Int64) => true,
        (Float16, Float32 | Float64) | (Float32, Float64) => true,
        (Date64, Date32) => true,
        (Time32(_) | Time64(_), Time32(TimeUnit::Millisecond)) => true,
        (Timestamp(_, from), Timestamp(_, to)) => is_utc(from.as_deref()) && is_utc(to.as_deref()),
        (Decimal128(p, s), Decimal128(precision, scale)) => {
            let whole = |precision: u8, scale: i8| i16::from(precision) - i16::from(scale);
            s <= scale && whole(*p, *s) <= whole(*precision, *scale)
        }
        (List(from) | LargeList(from) | FixedSizeList(from, _), List(to)) => {
            fits(from.data_type(), to.data_type(), integers)
        }
        (Map(from, _), Map(to, _)) => {
            fits(from.data_type(), to.data_type(), integers) || entries_fit(from, to, integers)
        }
        (Struct(from), Struct(to)) => to.iter().all(|to| match from.find(to.name()) {
            Some((_, from)) => fits(from.data_type(), to.data_type(), integers),
            None => to.is_nullable(),
        }),
        _ => false,
    }
}

fn is_utc(zone: Option<&str>) -> bool {
    zone.is_none_or(|zone| ["UTC", "+00:00", "Z"].contains(&zone))
}

/// The entries of a map fit by place: key and value have other names in other files.
fn entries_fit(from: &Field, to: &Field, integers: Integers) -> bool {
    match (from.data_type(), to.data_type()) {
        (DataType::Struct(from), DataType::Struct(to)) => {
            let fit = |(from, to): (&FieldRef, &FieldRef)| fits(from.data_type(), to.data_type(), integers);
            from.len() == to.len() && from.iter().zip(to).all(fit)
        }
        _ => false,
    }
}

/// The same values as another type, which [`fits`].
pub(crate) fn convert(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    match (array.data_type(), to) {
        (from, to) if from == to => Ok(Arc::clone(array)),
        (DataType::List(_), DataType::List(element)) => {
            let list = array.as_list::<i32>();
            let values = convert(list.values(), element.data_type())?;
            let list = ListArray::try_new(Arc::clone(element), list.offsets().clone(), values, list.nulls().cloned());
            Ok(Arc::new(list.map_err(not_null)?))
        }
        (DataType::LargeList(from) | DataType::FixedSizeList(from, _), DataType::List(_)) => {
            convert(&cast(array, &DataType::List(Arc::clone(from)))?, to)
        }
        (DataType::Map(..), DataType::Map(entries, ordered)) => {
            let map = array.as_map();
            let DataType::Struct(parts) = entries.data_type() else {
                return Err(Error::internal("the entries of a map are no rows"));
            };
            let columns = [map.keys(), map.values()].into_iter().zip(parts);
            let columns = columns.map(|(part, to)| convert(part, to.data_type())).collect::<Result<_>>()?;
            let rows = StructArray::try_new(parts.clone(), columns, None).map_err(not_null)?;
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            let map = MapArray::try_new(Arc::clone(entries), offsets, rows, nulls, *ordered);
            Ok(Arc::new(map.map_err(not_null)?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => row(array.as_struct(), fields),
        (DataType::Timestamp(from, _), DataType::Timestamp(unit, _)) => timestamps(array, *from, *unit, to),
        (DataType::Int32, DataType::Int8 | DataType::Int16) => narrow(array, to),
        (DataType::Dictionary(_, values), to) => convert(&cast(array, values)?, to),
        _ => cast(array, to),
    }
}

fn row(from: &StructArray, fields: &Fields) -> Result<ArrayRef> {
    let column = |field: &FieldRef| match from.column_by_name(field.name()) {
        Some(column) => convert(column, field.data_type()),
        None => Ok(new_null_array(field.data_type(), from.len())),
    };
    let columns = fields.iter().map(column).collect::<Result<_>>()?;
    let rows = StructArray::try_new_with_length(fields.clone(), columns, from.nulls().cloned(), from.len());
    Ok(Arc::new(rows.map_err(not_null)?))
}

fn not_null(error: arrow::error::ArrowError) -> Error {
    Error::data(format!("a part is NULL, and declared NOT NULL: {error}"))
}

fn cast(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(array, to, &options)?)
}

/// Integers as smaller ones, each of which is checked.
fn narrow(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let narrowed = cast_with_options(array, to, &options)?;
    if narrowed.null_count() == array.null_count() {
        return Ok(narrowed);
    }
    let values = array.as_primitive::<Int32Type>().iter();
    let misfit = values.enumerate().find(|(row, value)| value.is_some() && narrowed.is_null(*row));
    let (row, value) = misfit.map_or((0, 0), |(row, value)| (row, value.unwrap_or_default()));
    let name = type_name(to);
    Err(Error::data(format!("'{value}' does not fit in {name} (value {} of the block)", row.saturating_add(1))))
}

/// Timestamps in another unit. A zone is a name only, since all of them are UTC.
fn timestamps(array: &ArrayRef, from: TimeUnit, unit: TimeUnit, to: &DataType) -> Result<ArrayRef> {
    let retyped = |array: &dyn Array, to: &DataType| array.to_data().into_builder().data_type(to.clone()).build();
    let numbers = Int64Array::from(retyped(array, &DataType::Int64)?);
    let (have, want) = (per_second(from), per_second(unit));
    let numbers: Int64Array = match want >= have {
        true => numbers.try_unary(|value| {
            let fits = value.checked_mul(want / have);
            fits.ok_or_else(|| Error::data(format!("a time does not fit in {}", type_name(to))))
        })?,
        // Before 1970, too, digits are cut off.
        false => numbers.unary(|value| value.div_euclid(have / want)),
    };
    Ok(make_array(retyped(&numbers, to)?))
}
