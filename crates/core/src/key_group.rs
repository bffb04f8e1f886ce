//! Which subtask a row belongs to: key → hash → key group → subtask.
//!
//! The hash is a persistent format: state is stored by key group, so a changed hash would send a key away from its
//! state. It is specified in `docs/design/key-group-hash.md`, and the golden tests below fix it for ever.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Time32MillisecondType, Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};

use crate::error::{Error, Result};

/// How many key groups there are: the largest parallelism of a keyed operator.
pub const KEY_GROUPS: u16 = 128;

/// The version of the hash below, stored with everything that depends on it.
pub const HASH_VERSION: u32 = 1;

/// A part of the key space; `0..KEY_GROUPS`.
pub type KeyGroup = u16;

/// The key groups that one subtask owns.
pub type KeyGroupRange = Range<KeyGroup>;

const SEED: u64 = 0x7275_736C_6F20_6B67; // "ruslo kg"
const MULTIPLIER: u64 = 0x9FB2_1C65_1E98_DF25;
const NULL: u64 = 0xA076_1D64_78BD_642F;

/// The key groups of subtask `index` of `parallelism`; contiguous, and together all of them.
pub fn range_of(index: usize, parallelism: usize) -> KeyGroupRange {
    let groups = usize::from(KEY_GROUPS);
    let parallelism = parallelism.max(1);
    let start = (index * groups).div_ceil(parallelism);
    let end = ((index + 1) * groups).div_ceil(parallelism);
    start.min(groups) as KeyGroup..end.min(groups) as KeyGroup
}

/// The subtask of `parallelism` that owns `group`.
pub fn owner_of(group: KeyGroup, parallelism: usize) -> usize {
    usize::from(group) * parallelism / usize::from(KEY_GROUPS)
}

/// The key group of each row, from its key columns. Without key columns every row is in one group.
///
/// # Errors
/// `Usage`, if a column's type cannot be a key.
pub fn key_groups(columns: &[ArrayRef], rows: usize) -> Result<Vec<KeyGroup>> {
    let hashes = hash_rows(columns, rows)?;
    Ok(hashes.into_iter().map(|hash| (hash % u64::from(KEY_GROUPS)) as KeyGroup).collect())
}

/// The hash of each row over its key columns.
///
/// # Errors
/// `Usage`, if a column's type cannot be a key.
pub fn hash_rows(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![SEED; rows];
    for column in columns {
        hash_column(column, &mut hashes)?;
    }
    hashes.iter_mut().for_each(|hash| *hash = finish(*hash));
    Ok(hashes)
}

/// The hash of a byte string: also what operator ids and plan fingerprints are made of.
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    finish(mix_bytes(SEED, bytes))
}

/// One step: folds a 64-bit word into the hash by a 64 × 64 → 128 bit multiplication.
#[inline]
fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * u128::from(MULTIPLIER);
    ((product >> 64) as u64 ^ product as u64).wrapping_add(MULTIPLIER)
}

#[inline]
fn finish(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 32)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 29)
}

/// Little-endian words, the last one padded with zeros, then the length.
#[inline]
fn mix_bytes(hash: u64, bytes: &[u8]) -> u64 {
    let (words, tail) = bytes.as_chunks::<8>();
    let mut hash = words.iter().fold(hash, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    if !tail.is_empty() {
        let padded = tail.iter().rev().fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
        hash = mix(hash, padded);
    }
    mix(hash, bytes.len() as u64)
}

/// −0 is 0, every NaN is one NaN, and a FLOAT hashes as the DOUBLE of the same value.
#[inline]
fn canonical_float(value: f64) -> u64 {
    if value == 0.0 {
        0
    } else if value.is_nan() {
        f64::NAN.to_bits() & !(1 << 63)
    } else {
        value.to_bits()
    }
}

fn mix_values<T: Copy>(
    hashes: &mut [u64],
    array: &dyn Array,
    values: impl Iterator<Item = T>,
    mix_one: impl Fn(u64, T) -> u64,
) {
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => hashes.iter_mut().zip(values).for_each(|(hash, value)| *hash = mix_one(*hash, value)),
        Some(nulls) => {
            for ((hash, value), valid) in hashes.iter_mut().zip(values).zip(nulls.iter()) {
                *hash = if valid { mix_one(*hash, value) } else { mix(*hash, NULL) };
            }
        }
    }
}

fn hash_column(column: &ArrayRef, hashes: &mut [u64]) -> Result<()> {
    macro_rules! integers {
        ($type:ty) => {{
            let array = column.as_primitive::<$type>();
            mix_values(hashes, array, array.values().iter(), |hash, value| mix(hash, i64::from(*value) as u64));
        }};
    }
    macro_rules! floats {
        ($type:ty) => {{
            let array = column.as_primitive::<$type>();
            mix_values(hashes, array, array.values().iter(), |hash, value| {
                mix(hash, canonical_float(f64::from(*value)))
            });
        }};
    }
    macro_rules! strings {
        ($array:expr, $bytes:expr) => {{
            let array = $array;
            let values = (0..array.len()).map(|row| array.value(row));
            mix_values(hashes, array, values, |hash, value| mix_bytes(hash, $bytes(value)));
        }};
    }
    match column.data_type() {
        DataType::Int8 => integers!(Int8Type),
        DataType::Int16 => integers!(Int16Type),
        DataType::Int32 => integers!(Int32Type),
        DataType::Int64 => integers!(Int64Type),
        DataType::UInt8 => integers!(UInt8Type),
        DataType::UInt16 => integers!(UInt16Type),
        DataType::UInt32 => integers!(UInt32Type),
        DataType::UInt64 => {
            let array = column.as_primitive::<UInt64Type>();
            mix_values(hashes, array, array.values().iter(), |hash, value| mix(hash, *value));
        }
        DataType::Date32 => integers!(Date32Type),
        DataType::Date64 => integers!(Date64Type),
        DataType::Time32(TimeUnit::Second) => integers!(Time32SecondType),
        DataType::Time32(_) => integers!(Time32MillisecondType),
        DataType::Time64(TimeUnit::Nanosecond) => integers!(Time64NanosecondType),
        DataType::Time64(_) => integers!(Time64MicrosecondType),
        DataType::Timestamp(TimeUnit::Second, _) => integers!(TimestampSecondType),
        DataType::Timestamp(TimeUnit::Millisecond, _) => integers!(TimestampMillisecondType),
        DataType::Timestamp(TimeUnit::Microsecond, _) => integers!(TimestampMicrosecondType),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => integers!(TimestampNanosecondType),
        DataType::Float32 => floats!(Float32Type),
        DataType::Float64 => floats!(Float64Type),
        DataType::Decimal128(..) => {
            let array = column.as_primitive::<Decimal128Type>();
            mix_values(hashes, array, array.values().iter(), |hash, value| {
                mix(mix(hash, *value as u64), (*value >> 64) as u64)
            });
        }
        DataType::Boolean => {
            let array = column.as_boolean();
            mix_values(hashes, array, array.values().iter(), |hash, value| mix(hash, u64::from(value)));
        }
        DataType::Utf8 => strings!(column.as_string::<i32>(), str::as_bytes),
        DataType::LargeUtf8 => strings!(column.as_string::<i64>(), str::as_bytes),
        DataType::Utf8View => strings!(column.as_string_view(), str::as_bytes),
        DataType::Binary => strings!(column.as_binary::<i32>(), std::convert::identity),
        DataType::LargeBinary => strings!(column.as_binary::<i64>(), std::convert::identity),
        DataType::BinaryView => strings!(column.as_binary_view(), std::convert::identity),
        other => return Err(Error::usage(format!("a column of type {other} cannot be a key yet"))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Decimal128Array, Float32Array, Float64Array, Int8Array, Int64Array, LargeStringArray,
        StringArray, StringViewArray, UInt64Array,
    };

    use super::*;

    fn hash_of(column: impl Array + 'static) -> Vec<u64> {
        let rows = column.len();
        hash_rows(&[Arc::new(column)], rows).unwrap()
    }

    #[test]
    fn every_group_has_one_owner_at_every_parallelism() {
        for parallelism in 1..=usize::from(KEY_GROUPS) {
            let mut next = 0;
            for index in 0..parallelism {
                let range = range_of(index, parallelism);
                assert_eq!(range.start, next);
                assert!(range.clone().all(|group| owner_of(group, parallelism) == index));
                next = range.end;
            }
            assert_eq!(next, KEY_GROUPS);
        }
    }

    #[test]
    fn one_value_has_one_hash_whatever_its_width() {
        assert_eq!(hash_of(Int8Array::from(vec![-3])), hash_of(Int64Array::from(vec![-3])));
        assert_eq!(hash_of(UInt64Array::from(vec![9])), hash_of(Int64Array::from(vec![9])));
        assert_eq!(hash_of(Float32Array::from(vec![0.5])), hash_of(Float64Array::from(vec![0.5])));
        assert_eq!(hash_of(Float64Array::from(vec![-0.0])), hash_of(Float64Array::from(vec![0.0])));
        assert_eq!(hash_of(Float64Array::from(vec![-f64::NAN])), hash_of(Float64Array::from(vec![f64::NAN])));
        let text = hash_of(StringArray::from(vec!["русло"]));
        assert_eq!(text, hash_of(LargeStringArray::from(vec!["русло"])));
        assert_eq!(text, hash_of(StringViewArray::from(vec!["русло"])));
    }

    #[test]
    fn a_null_is_not_a_zero_and_padding_is_not_text() {
        let hashes = hash_of(Int64Array::from(vec![None, Some(0)]));
        assert_ne!(hashes[0], hashes[1]);
        let hashes = hash_of(StringArray::from(vec!["a", "a\0", ""]));
        assert_ne!(hashes[0], hashes[1]);
        assert_ne!(hashes[0], hashes[2]);
    }

    #[test]
    fn keys_spread_over_the_groups() {
        for stride in [1, 2, 64, 128, 1000, 1 << 20] {
            let keys = Int64Array::from_iter_values((0..12_800).map(|i| i * stride));
            let mut counts = [0u32; KEY_GROUPS as usize];
            for group in key_groups(&[Arc::new(keys)], 12_800).unwrap() {
                counts[usize::from(group)] += 1;
            }
            assert!(counts.iter().all(|count| (50..=160).contains(count)), "stride {stride}: {counts:?}");
        }
    }

    #[test]
    fn golden_hashes_never_change() {
        let golden = |column: ArrayRef| hash_rows(std::slice::from_ref(&column), column.len()).unwrap();
        let found = [
            golden(Arc::new(Int64Array::from(vec![Some(0), Some(1), Some(-1), Some(i64::MAX), None]))),
            golden(Arc::new(Float64Array::from(vec![0.0, 1.5, f64::NAN, f64::INFINITY]))),
            golden(Arc::new(StringArray::from(vec!["", "JFK", "12345678", "123456789"]))),
            golden(Arc::new(BooleanArray::from(vec![true, false]))),
            golden(Arc::new(Decimal128Array::from(vec![12_345, -1]))),
            vec![hash_bytes(b"ruslo"), hash_rows(&[], 1).unwrap()[0]],
        ];
        let text = found.map(|hashes| hashes.iter().map(|h| format!("{h:016x}")).collect::<Vec<_>>().join(" "));
        assert_eq!(text.join("\n"), include_str!("../tests/golden/key_group_hash_v1.txt").trim_end());
    }
}
