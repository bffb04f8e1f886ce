//! The order of a key's rows by their sub-keys, compared as they stand in memory.

use std::cmp::Ordering;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, IntervalUnit};

use super::blobs::Blobs;
use super::layout::{INLINE_MAX, Part, length_of};

/// An order of all columns of a part: no two different rows are equal in it.
#[derive(Debug)]
pub(super) struct Order {
    columns: Vec<Ordered>,
}

#[derive(Debug)]
struct Ordered {
    at: usize,
    /// Word and bit that say NULL.
    null: Option<(usize, u64)>,
    compared: Compared,
    options: SortOptions,
}

/// How the words of a value compare.
#[derive(Debug, Clone, Copy)]
enum Compared {
    Unsigned,
    /// So many bits of a word.
    Signed(u32),
    Float32,
    Float64,
    /// Two words, the lower one first.
    Wide,
    Bytes,
}

impl Order {
    /// By the columns of `first`, then by the others from left to right, ascending and NULL first; `None`, if some column
    /// has no order here.
    pub(super) fn new(part: &Part, first: &[(usize, SortOptions)]) -> Option<Self> {
        let others = (0..part.len()).filter(|column| first.iter().all(|(other, _)| other != column));
        let others = others.map(|column| (column, SortOptions { descending: false, nulls_first: true }));
        let ordered = |(column, options): (usize, SortOptions)| {
            let (at, data_type) = part.place(column)?;
            Some(Ordered { at, null: part.null_of(column), compared: compared(data_type)?, options })
        };
        let columns: Option<Vec<_>> = first.iter().copied().chain(others).map(ordered).collect();
        Some(Self { columns: columns? })
    }

    /// Compares two rows of words.
    pub(super) fn compare(&self, a: &[u64], b: &[u64], blobs: &Blobs) -> Ordering {
        self.columns
            .iter()
            .map(|column| column.compare(a, b, blobs))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

fn compared(data_type: &DataType) -> Option<Compared> {
    Some(match data_type {
        DataType::Boolean | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
            Compared::Unsigned
        }
        DataType::Int8 => Compared::Signed(8),
        DataType::Int16 => Compared::Signed(16),
        DataType::Int32 | DataType::Date32 | DataType::Time32(_) => Compared::Signed(32),
        DataType::Interval(IntervalUnit::YearMonth) | DataType::Decimal32(..) => Compared::Signed(32),
        DataType::Int64 | DataType::Date64 | DataType::Time64(_) | DataType::Decimal64(..) => Compared::Signed(64),
        DataType::Timestamp(..) | DataType::Duration(_) => Compared::Signed(64),
        DataType::Float32 => Compared::Float32,
        DataType::Float64 => Compared::Float64,
        DataType::Decimal128(..) => Compared::Wide,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Compared::Bytes,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Compared::Bytes,
        _ => return None,
    })
}

impl Ordered {
    fn is_null(&self, words: &[u64]) -> bool {
        self.null.is_some_and(|(at, bit)| words.get(at).is_some_and(|word| word & bit != 0))
    }

    fn compare(&self, a: &[u64], b: &[u64], blobs: &Blobs) -> Ordering {
        let null = |is_first: bool| if is_first { Ordering::Less } else { Ordering::Greater };
        match (self.is_null(a), self.is_null(b)) {
            (true, true) => Ordering::Equal,
            (true, false) => null(self.options.nulls_first),
            (false, true) => null(!self.options.nulls_first),
            (false, false) => {
                let order = self.compared.compare(word(a, self.at), word(b, self.at), (a, b, self.at), blobs);
                if self.options.descending { order.reverse() } else { order }
            }
        }
    }
}

#[inline]
fn word(words: &[u64], at: usize) -> u64 {
    words.get(at).copied().unwrap_or(0)
}

impl Compared {
    fn compare(self, a: u64, b: u64, (all_a, all_b, at): (&[u64], &[u64], usize), blobs: &Blobs) -> Ordering {
        match self {
            Self::Unsigned => a.cmp(&b),
            Self::Signed(bits) => ((a << (64 - bits)) as i64).cmp(&((b << (64 - bits)) as i64)),
            Self::Float32 => f32::from_bits(a as u32).total_cmp(&f32::from_bits(b as u32)),
            Self::Float64 => f64::from_bits(a).total_cmp(&f64::from_bits(b)),
            Self::Wide => (word(all_a, at + 1) as i64, a).cmp(&(word(all_b, at + 1) as i64, b)),
            Self::Bytes => with_bytes(a, blobs, |a| with_bytes(b, blobs, |b| a.cmp(b))),
        }
    }
}

/// Calls `each` with the bytes of a string's word.
fn with_bytes<T>(word: u64, blobs: &Blobs, each: impl FnOnce(&[u8]) -> T) -> T {
    let length = length_of(word);
    if length > INLINE_MAX {
        each(blobs.get(word as u32, length))
    } else {
        each((word as u32).to_le_bytes().get(..length).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int8Array, Int32Array,
        Int64Array, StringArray, UInt64Array,
    };
    use arrow::datatypes::Field;
    use arrow::row::{RowConverter, SortField};

    use super::super::{Blobs, keep_strings};
    use super::*;

    fn columns() -> Vec<ArrayRef> {
        vec![
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
            Arc::new(Int8Array::from(vec![Some(-1), Some(127), None, Some(-128), Some(0)])),
            Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(-1), Some(1), None, Some(i32::MAX)])),
            Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(-1), None, Some(i64::MAX), Some(0)])),
            Arc::new(UInt64Array::from(vec![Some(u64::MAX), Some(1), None, Some(0)])),
            Arc::new(Float32Array::from(vec![Some(f32::NAN), Some(-1.5), Some(0.0), Some(f32::INFINITY), None])),
            Arc::new(Float64Array::from(vec![Some(f64::NEG_INFINITY), Some(-0.5), Some(3.0), None, Some(f64::NAN)])),
            Arc::new(
                Decimal128Array::from(vec![Some(-1), Some(i128::MAX >> 1), Some(1 << 70), Some(-(1 << 70)), None])
                    .with_precision_and_scale(38, 2)
                    .unwrap(),
            ),
            Arc::new(StringArray::from(vec![Some("abcd"), Some("abcde"), Some(""), Some("abce"), None, Some("b")])),
            Arc::new(BinaryArray::from_opt_vec(vec![Some(&[0xFF, 1][..]), Some(&[0xFF][..]), Some(b"aaaaaa"), None])),
        ]
    }

    /// Every two values of each type, in every direction, as arrow's row format has them.
    #[test]
    fn words_compare_as_their_values_do() {
        for column in columns() {
            for (descending, nulls_first) in [(false, true), (false, false), (true, true), (true, false)] {
                let options = SortOptions { descending, nulls_first };
                let field = Arc::new(Field::new("c", column.data_type().clone(), true));
                let (part, mut blobs) = (Part::new(&[field], true).unwrap(), Blobs::default());
                let encoded = part.encode(&[Arc::clone(&column)], column.len()).unwrap();
                let words: Vec<Vec<u64>> = (0..column.len())
                    .map(|row| {
                        let mut words = encoded.row(row).to_vec();
                        keep_strings(&mut blobs, &part, &mut words, &encoded, row).unwrap();
                        words
                    })
                    .collect();
                let order = Order::new(&part, &[(0, options)]).unwrap();
                let field = SortField::new_with_options(column.data_type().clone(), options);
                let rows = RowConverter::new(vec![field]).unwrap().convert_columns(&[Arc::clone(&column)]).unwrap();
                for a in 0..column.len() {
                    for b in 0..column.len() {
                        let found = order.compare(&words[a], &words[b], &blobs);
                        assert_eq!(found, rows.row(a).cmp(&rows.row(b)), "{:?} {a} {b} {options:?}", column);
                    }
                }
            }
        }
    }
}
