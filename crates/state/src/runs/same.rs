//! Whether two rows have the same key: as the hash of keys has it.
//!
//! NULL equals NULL, −0 equals 0, every NaN equals every other.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use ruslo_core::error::{Error, Result};

/// Whether row `row` of `columns` equals row `other_row` of `others`, column by column. Columns of different types
/// are never equal: [`check_types`] comes first.
pub fn same_rows(columns: &[ArrayRef], row: usize, others: &[ArrayRef], other_row: usize) -> bool {
    columns.len() == others.len()
        && columns.iter().zip(others).all(|(column, other)| same_value(column, row, other, other_row))
}

/// That two lists of columns have the same types.
///
/// # Errors
/// `Internal`, if they have not.
pub fn check_types<'a>(columns: &[ArrayRef], types: impl Iterator<Item = &'a DataType>) -> Result<()> {
    let types: Vec<_> = types.collect();
    let found: Vec<_> = columns.iter().map(|column| column.data_type()).collect();
    let differ = || Error::internal(format!("keys are {found:?} where the table has {types:?}"));
    (found == types).then_some(()).ok_or_else(differ)
}

fn same_value(column: &ArrayRef, row: usize, other: &ArrayRef, other_row: usize) -> bool {
    match (column.is_null(row), other.is_null(other_row)) {
        (true, true) => true,
        (false, false) => same_present(column, row, other, other_row),
        _ => false,
    }
}

#[inline]
fn canonical(value: f64) -> u64 {
    if value == 0.0 {
        0
    } else if value.is_nan() {
        u64::MAX
    } else {
        value.to_bits()
    }
}

fn same_present(column: &ArrayRef, row: usize, other: &ArrayRef, other_row: usize) -> bool {
    macro_rules! primitives {
        ($type:ty) => {{
            let pair = column.as_primitive_opt::<$type>().zip(other.as_primitive_opt::<$type>());
            pair.is_some_and(|(a, b)| a.values().get(row) == b.values().get(other_row))
        }};
    }
    macro_rules! floats {
        ($type:ty) => {{
            let bits = |array: &ArrayRef, row: usize| {
                array.as_primitive_opt::<$type>()?.values().get(row).map(|value| canonical(f64::from(*value)))
            };
            bits(column, row) == bits(other, other_row)
        }};
    }
    macro_rules! bytes {
        ($cast:ident $(::<$offset:ty>)?) => {{
            let pair = column.$cast$(::<$offset>)?().zip(other.$cast$(::<$offset>)?());
            pair.is_some_and(|(a, b)| a.value(row) == b.value(other_row))
        }};
    }
    match column.data_type() {
        DataType::Boolean => bytes!(as_boolean_opt),
        DataType::Int8 => primitives!(Int8Type),
        DataType::Int16 => primitives!(Int16Type),
        DataType::Int32 => primitives!(Int32Type),
        DataType::Int64 => primitives!(Int64Type),
        DataType::UInt8 => primitives!(UInt8Type),
        DataType::UInt16 => primitives!(UInt16Type),
        DataType::UInt32 => primitives!(UInt32Type),
        DataType::UInt64 => primitives!(UInt64Type),
        DataType::Date32 => primitives!(Date32Type),
        DataType::Date64 => primitives!(Date64Type),
        DataType::Decimal128(..) => primitives!(Decimal128Type),
        DataType::Float32 => floats!(Float32Type),
        DataType::Float64 => floats!(Float64Type),
        DataType::Time32(TimeUnit::Second) => primitives!(Time32SecondType),
        DataType::Time32(_) => primitives!(Time32MillisecondType),
        DataType::Time64(TimeUnit::Microsecond) => primitives!(Time64MicrosecondType),
        DataType::Time64(_) => primitives!(Time64NanosecondType),
        DataType::Timestamp(TimeUnit::Second, _) => primitives!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => primitives!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => primitives!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => primitives!(TimestampNanosecondType),
        DataType::Utf8 => bytes!(as_string_opt::<i32>),
        DataType::LargeUtf8 => bytes!(as_string_opt::<i64>),
        DataType::Utf8View => bytes!(as_string_view_opt),
        DataType::Binary => bytes!(as_binary_opt::<i32>),
        DataType::LargeBinary => bytes!(as_binary_opt::<i64>),
        DataType::BinaryView => bytes!(as_binary_view_opt),
        DataType::FixedSizeBinary(_) => bytes!(as_fixed_size_binary_opt),
        // What the hash refuses never gets here; anything else is compared as Arrow does.
        _ => column.slice(row, 1).to_data() == other.slice(other_row, 1).to_data(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn keys_are_equal_as_their_hashes_are() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![
            Some(0.0),
            Some(-0.0),
            Some(f64::NAN),
            Some(-f64::NAN),
            Some(1.0),
            None,
            None,
        ]));
        let hashes = ruslo_core::key_group::hash_rows(&[Arc::clone(&floats)], 7).unwrap();
        for a in 0..7 {
            for b in 0..7 {
                let same = same_rows(&[Arc::clone(&floats)], a, &[Arc::clone(&floats)], b);
                assert_eq!(same, hashes[a] == hashes[b], "{a} {b}");
            }
        }
    }

    #[test]
    fn every_column_counts_and_types_are_checked_beforehand() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1, 1, 2]));
        let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
        let columns = [numbers, names];
        assert!(same_rows(&columns, 0, &columns, 0));
        assert!(!same_rows(&columns, 0, &columns, 1));
        assert!(!same_rows(&columns, 0, &columns, 2));
        check_types(&columns, [&DataType::Int64, &DataType::Utf8].into_iter()).unwrap();
        assert!(check_types(&columns, [&DataType::Int64, &DataType::Int64].into_iter()).is_err());
    }
}
