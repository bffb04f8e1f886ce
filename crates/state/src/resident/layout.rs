//! How columns become words of a row, and back.
//!
//! A part of a row (its key, its sub-key, its values) is: words of null bits if a field may be NULL, then each column.
//! A value of up to 8 bytes is one word, a wider one of fixed width several; a string is one word, `length << 32 | where`,
//! in which up to four bytes stand themselves, and longer ones are in [`Blobs`]. NULL is zeros and a null bit. What is of
//! another type (ARRAY, MAP, ROW) is kept as the bytes of arrow's row format, which never leaves memory.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BinaryViewArray, BooleanArray, LargeBinaryArray,
    LargeStringArray, StringArray, StringViewArray, UInt32Array, make_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::compute::{cast, take};
use arrow::datatypes::{ArrowNativeType, DataType, FieldRef, Float32Type, Float64Type};
use arrow::row::{RowConverter, SortField};
use ruslo_core::error::{Error, Result};

use super::blobs::Blobs;
use super::slab::lost;

/// The longest string that stands in its word.
pub(super) const INLINE_MAX: usize = 4;

/// How the values of one column become words.
#[derive(Debug)]
enum Codec {
    Bool,
    /// So many bytes each.
    Fixed(usize),
    /// Canonical: a key.
    Float32,
    /// Canonical: a key.
    Float64,
    Bytes,
    Nested(RowConverter),
}

#[derive(Debug)]
struct Column {
    field: FieldRef,
    codec: Codec,
    /// Its first word in the part.
    at: usize,
}

/// Some columns of a row.
#[derive(Debug)]
pub(super) struct Part {
    columns: Vec<Column>,
    null_words: usize,
    words: usize,
    /// The words of columns of strings.
    bytes_at: Vec<usize>,
}

impl Part {
    /// The layout of `fields`; of a key, if `is_key`: then values that are equal have equal words.
    ///
    /// # Errors
    /// `Usage`, if a column's type cannot be kept.
    pub(super) fn new(fields: &[FieldRef], is_key: bool) -> Result<Self> {
        let is_nullable = fields.iter().any(|field| field.is_nullable());
        let null_words = if is_nullable { fields.len().div_ceil(64) } else { 0 };
        let mut part = Self { columns: Vec::new(), null_words, words: null_words, bytes_at: Vec::new() };
        for field in fields {
            let codec = codec_of(field.data_type(), is_key)?;
            let width = match codec {
                Codec::Fixed(bytes) => bytes.div_ceil(8),
                _ => 1,
            };
            if matches!(codec, Codec::Bytes | Codec::Nested(_)) {
                part.bytes_at.push(part.words);
            }
            part.columns.push(Column { field: Arc::clone(field), codec, at: part.words });
            part.words += width;
        }
        Ok(part)
    }

    /// Words per row.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    /// The words that may point to a string.
    pub(super) fn bytes_at(&self) -> &[usize] {
        &self.bytes_at
    }

    /// The word of a column of 64-bit integers, and its null bit.
    ///
    /// # Errors
    /// `Internal`, if the column is another.
    pub(super) fn integer(&self, column: usize) -> Result<(usize, Option<(usize, u64)>)> {
        let found = self.columns.get(column).filter(|found| *found.field.data_type() == DataType::Int64);
        let found = found.ok_or_else(|| Error::internal(format!("column {column} of a keyed table is no BIGINT")))?;
        Ok((found.at, self.null_of(column)))
    }

    /// How many columns there are.
    pub(super) fn len(&self) -> usize {
        self.columns.len()
    }

    /// The first word of a column, and its type.
    pub(super) fn place(&self, column: usize) -> Option<(usize, &DataType)> {
        self.columns.get(column).map(|found| (found.at, found.field.data_type()))
    }

    /// The word and the bit that say that a column is NULL, if one may be.
    pub(super) fn null_of(&self, column: usize) -> Option<(usize, u64)> {
        (self.null_words > 0).then_some((column / 64, 1 << (column % 64)))
    }

    /// The words of a row of NULLs, and zeros where NULL cannot be.
    pub(super) fn default_words(&self) -> Vec<u64> {
        let mut words = vec![0; self.words];
        for (column, _) in self.columns.iter().enumerate().filter(|(_, column)| column.field.is_nullable()) {
            if let Some(word) = words.get_mut(column / 64) {
                *word |= 1 << (column % 64);
            }
        }
        words
    }

    /// The words of `columns`, row by row, and what is needed to keep their strings.
    ///
    /// # Errors
    /// `Internal`, if the columns are not the part's.
    pub(super) fn encode(&self, columns: &[ArrayRef], rows: usize) -> Result<Encoded> {
        if columns.len() != self.columns.len() {
            return Err(Error::internal(format!("{} columns for {}", columns.len(), self.columns.len())));
        }
        let mut encoded = Encoded { words: vec![0; rows * self.words], stride: self.words, strings: Vec::new() };
        for (place, (column, array)) in self.columns.iter().zip(columns).enumerate() {
            if array.data_type() != column.field.data_type() || array.len() != rows {
                return Err(Error::internal(format!(
                    "{} rows of type {} for the column '{}' of type {}, {rows} rows",
                    array.len(),
                    array.data_type(),
                    column.field.name(),
                    column.field.data_type()
                )));
            }
            column.encode(array, &mut encoded)?;
            if let Some(nulls) = array.logical_nulls().filter(|nulls| nulls.null_count() > 0) {
                self.encode_nulls(place, column, &nulls, &mut encoded)?;
            }
        }
        Ok(encoded)
    }

    fn encode_nulls(&self, place: usize, column: &Column, nulls: &NullBuffer, encoded: &mut Encoded) -> Result<()> {
        if self.null_words == 0 {
            return Err(Error::internal(format!("the column '{}' is NULL, but is NOT NULL", column.field.name())));
        }
        let end = self.columns.get(place + 1).map_or(self.words, |next| next.at);
        for (row, valid) in encoded.words.chunks_exact_mut(self.words).zip(nulls) {
            if valid {
                continue;
            }
            row.get_mut(column.at..end).unwrap_or_default().fill(0);
            if let Some(word) = row.get_mut(place / 64) {
                *word |= 1 << (place % 64);
            }
        }
        Ok(())
    }

    /// The columns whose words are `words`, row by row; NULL where `absent` says so.
    ///
    /// # Errors
    /// `Internal`, if the words are no such values.
    pub(super) fn decode(
        &self,
        words: &[u64],
        rows: usize,
        present: Option<&NullBuffer>,
        blobs: &Blobs,
    ) -> Result<Vec<ArrayRef>> {
        let decode = |(place, column): (usize, &Column)| {
            let nulls = if self.null_words == 0 { None } else { self.decode_nulls(place, words, rows) };
            column.decode(words, self.words, rows, NullBuffer::union(nulls.as_ref(), present), blobs)
        };
        self.columns.iter().enumerate().map(decode).collect()
    }

    fn decode_nulls(&self, place: usize, words: &[u64], rows: usize) -> Option<NullBuffer> {
        let (at, bit) = (place / 64, 1u64 << (place % 64));
        let is_valid = |row: usize| words.get(row * self.words + at).is_none_or(|word| word & bit == 0);
        let nulls = NullBuffer::new(BooleanBuffer::collect_bool(rows, is_valid));
        (nulls.null_count() > 0).then_some(nulls)
    }
}

fn codec_of(data_type: &DataType, is_key: bool) -> Result<Codec> {
    Ok(match data_type {
        DataType::Boolean => Codec::Bool,
        DataType::Float32 if is_key => Codec::Float32,
        DataType::Float64 if is_key => Codec::Float64,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Codec::Bytes,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Codec::Bytes,
        other => match other.primitive_width() {
            Some(width) => Codec::Fixed(width),
            None => Codec::Nested(nested(other)?),
        },
    })
}

fn nested(data_type: &DataType) -> Result<RowConverter> {
    let field = SortField::new(data_type.clone());
    if !RowConverter::supports_fields(std::slice::from_ref(&field)) {
        return Err(Error::usage(format!("a column of type {data_type} cannot be kept in state yet")));
    }
    Ok(RowConverter::new(vec![field])?)
}

/// Rows as words.
#[derive(Debug)]
pub(super) struct Encoded {
    /// The words, row by row; a string longer than [`INLINE_MAX`] does not point anywhere yet.
    pub(super) words: Vec<u64>,
    stride: usize,
    /// The columns of strings, in the order of [`Part::bytes_at`].
    pub(super) strings: Vec<Strings>,
}

impl Encoded {
    /// The words of one row.
    #[inline]
    pub(super) fn row(&self, row: usize) -> &[u64] {
        self.words.get(row * self.stride..(row + 1) * self.stride).unwrap_or_default()
    }

    /// Bytes that the strings will take, about.
    pub(super) fn string_bytes(&self) -> u64 {
        self.strings.iter().map(|strings| strings.bytes() as u64).sum()
    }
}

/// A column of strings of one kind or another.
#[derive(Debug)]
pub(super) enum Strings {
    Utf8(StringArray),
    LargeUtf8(LargeStringArray),
    Utf8View(StringViewArray),
    Binary(BinaryArray),
    LargeBinary(LargeBinaryArray),
    BinaryView(BinaryViewArray),
}

impl Strings {
    fn new(array: &ArrayRef) -> Result<Self> {
        Ok(match array.data_type() {
            DataType::Utf8 => Self::Utf8(array.as_string().clone()),
            DataType::LargeUtf8 => Self::LargeUtf8(array.as_string().clone()),
            DataType::Utf8View => Self::Utf8View(array.as_string_view().clone()),
            DataType::Binary => Self::Binary(array.as_binary().clone()),
            DataType::LargeBinary => Self::LargeBinary(array.as_binary().clone()),
            DataType::BinaryView => Self::BinaryView(array.as_binary_view().clone()),
            other => return Err(Error::internal(format!("{other} is no string"))),
        })
    }

    /// The bytes of a row.
    #[inline]
    pub(super) fn get(&self, row: usize) -> &[u8] {
        match self {
            Self::Utf8(array) if row < array.len() => array.value(row).as_bytes(),
            Self::LargeUtf8(array) if row < array.len() => array.value(row).as_bytes(),
            Self::Utf8View(array) if row < array.len() => array.value(row).as_bytes(),
            Self::Binary(array) if row < array.len() => array.value(row),
            Self::LargeBinary(array) if row < array.len() => array.value(row),
            Self::BinaryView(array) if row < array.len() => array.value(row),
            _ => &[],
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Utf8(array) => array.len(),
            Self::LargeUtf8(array) => array.len(),
            Self::Utf8View(array) => array.len(),
            Self::Binary(array) => array.len(),
            Self::LargeBinary(array) => array.len(),
            Self::BinaryView(array) => array.len(),
        }
    }

    fn bytes(&self) -> usize {
        (0..self.len())
            .map(|row| self.get(row).len())
            .filter(|length| *length > INLINE_MAX)
            .map(|length| length + 8)
            .sum()
    }
}

/// The length of the string of a word.
#[inline]
pub(super) fn length_of(word: u64) -> usize {
    (word >> 32) as usize
}

#[inline]
fn word_of(bytes: &[u8]) -> u64 {
    let length = (bytes.len() as u64) << 32;
    if bytes.len() > INLINE_MAX {
        return length;
    }
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)) | length
}

impl Column {
    fn encode(&self, array: &ArrayRef, out: &mut Encoded) -> Result<()> {
        let stride = out.stride;
        match &self.codec {
            Codec::Bool => {
                let values = array.as_boolean().values().iter().map(u64::from);
                put(&mut out.words, stride, self.at, values);
            }
            Codec::Float32 => {
                let values = array.as_primitive::<Float32Type>().values().iter();
                put(&mut out.words, stride, self.at, values.map(|value| u64::from(canonical32(*value))));
            }
            Codec::Float64 => {
                let values = array.as_primitive::<Float64Type>().values().iter();
                put(&mut out.words, stride, self.at, values.map(|value| canonical64(*value)));
            }
            Codec::Fixed(width) => self.encode_fixed(*width, &array.to_data(), out),
            Codec::Bytes => put_strings(Strings::new(array)?, self.at, out),
            Codec::Nested(converter) => {
                let rows = converter.convert_columns(std::slice::from_ref(array))?;
                put_strings(Strings::Binary(rows.try_into_binary()?), self.at, out);
            }
        }
        Ok(())
    }

    fn encode_fixed(&self, width: usize, data: &ArrayData, out: &mut Encoded) {
        let (stride, at) = (out.stride, self.at);
        match width {
            1 => put(&mut out.words, stride, at, typed::<u8>(data, 1).iter().map(|value| u64::from(*value))),
            2 => put(&mut out.words, stride, at, typed::<u16>(data, 1).iter().map(|value| u64::from(*value))),
            4 => put(&mut out.words, stride, at, typed::<u32>(data, 1).iter().map(|value| u64::from(*value))),
            8 if stride == 1 => out.words.copy_from_slice(typed::<u64>(data, 1)),
            _ => {
                let words = width / 8;
                let values = typed::<u64>(data, words);
                for (row, value) in out.words.chunks_exact_mut(stride).zip(values.chunks_exact(words)) {
                    row.get_mut(at..at + words).unwrap_or_default().copy_from_slice(value);
                }
            }
        }
    }

    fn decode(
        &self,
        words: &[u64],
        stride: usize,
        rows: usize,
        nulls: Option<NullBuffer>,
        blobs: &Blobs,
    ) -> Result<ArrayRef> {
        let column = words.iter().skip(self.at).step_by(stride).take(rows);
        let buffer = match &self.codec {
            Codec::Bool => {
                let is_true = |row: usize| words.get(row * stride + self.at).is_some_and(|word| *word != 0);
                return Ok(Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(rows, is_true), nulls)));
            }
            Codec::Bytes => return Ok(cast(&self.decode_strings(column, nulls, blobs), self.field.data_type())?),
            Codec::Nested(converter) => {
                let strings = self.decode_strings(column, nulls.clone(), blobs);
                return denest(converter, strings.as_binary(), nulls.as_ref());
            }
            Codec::Fixed(1) => Buffer::from_vec(column.map(|word| *word as u8).collect()),
            Codec::Fixed(2) => Buffer::from_vec(column.map(|word| *word as u16).collect()),
            Codec::Float32 | Codec::Fixed(4) => Buffer::from_vec(column.map(|word| *word as u32).collect()),
            Codec::Float64 | Codec::Fixed(8) => Buffer::from_vec(column.copied().collect::<Vec<u64>>()),
            Codec::Fixed(width) => wide(words, stride, self.at, width / 8),
        };
        let data = ArrayData::builder(self.field.data_type().clone()).len(rows).add_buffer(buffer).nulls(nulls);
        Ok(make_array(data.align_buffers(true).build()?))
    }

    fn decode_strings<'a>(
        &self,
        column: impl Iterator<Item = &'a u64> + Clone,
        nulls: Option<NullBuffer>,
        blobs: &Blobs,
    ) -> ArrayRef {
        let bytes = column.clone().map(|word| length_of(*word)).sum();
        let mut builder = BinaryBuilder::with_capacity(column.clone().count(), bytes);
        for (row, word) in column.enumerate() {
            let length = length_of(*word);
            if nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
                builder.append_null();
            } else if length > INLINE_MAX {
                builder.append_value(blobs.get(*word as u32, length));
            } else {
                builder.append_value((*word as u32).to_le_bytes().get(..length).unwrap_or_default());
            }
        }
        Arc::new(builder.finish())
    }
}

/// Only what is not NULL has bytes of a row; NULL is put between afterwards.
fn denest(converter: &RowConverter, strings: &BinaryArray, nulls: Option<&NullBuffer>) -> Result<ArrayRef> {
    let parser = converter.parser();
    let valid = (0..strings.len()).filter(|row| nulls.is_none_or(|nulls| nulls.is_valid(*row)));
    let parsed: Vec<_> = valid.map(|row| parser.parse(strings.value(row))).collect();
    let dense = converter.convert_rows(parsed)?.into_iter().next().ok_or_else(lost)?;
    let Some(nulls) = nulls else { return Ok(dense) };
    let mut next = 0u32;
    let places: UInt32Array = nulls
        .iter()
        .map(|valid| {
            next += u32::from(valid);
            valid.then_some(next.wrapping_sub(1))
        })
        .collect();
    Ok(take(&dense, &places, None)?)
}

fn wide(words: &[u64], stride: usize, at: usize, width: usize) -> Buffer {
    let rows = words.chunks_exact(stride).filter_map(|row| row.get(at..at + width));
    Buffer::from_vec(rows.flatten().copied().collect::<Vec<u64>>())
}

/// The values of an array, `each` a row.
fn typed<T: ArrowNativeType>(data: &ArrayData, each: usize) -> &[T] {
    let (start, end) = (data.offset() * each, (data.offset() + data.len()) * each);
    data.buffers().first().and_then(|buffer| buffer.typed_data::<T>().get(start..end)).unwrap_or_default()
}

#[inline]
fn put(words: &mut [u64], stride: usize, at: usize, values: impl Iterator<Item = u64>) {
    for (word, value) in words.iter_mut().skip(at).step_by(stride).zip(values) {
        *word = value;
    }
}

fn put_strings(strings: Strings, at: usize, out: &mut Encoded) {
    let stride = out.stride;
    put(&mut out.words, stride, at, (0..strings.len()).map(|row| word_of(strings.get(row))));
    out.strings.push(strings);
}

/// As the hash of keys has it: −0 is 0, and every NaN one NaN.
fn canonical64(value: f64) -> u64 {
    if value == 0.0 {
        0
    } else if value.is_nan() {
        f64::NAN.to_bits()
    } else {
        value.to_bits()
    }
}

fn canonical32(value: f32) -> u32 {
    if value == 0.0 {
        0
    } else if value.is_nan() {
        f32::NAN.to_bits()
    } else {
        value.to_bits()
    }
}
