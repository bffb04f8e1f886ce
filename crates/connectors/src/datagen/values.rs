//! The values of one column.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int64Array,
    StringArray, Time32MillisecondArray, TimestampMillisecondArray, make_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use ruslo_core::clock::Clock;
use ruslo_core::error::{Error, Result};

use super::options::FieldOptions;
use crate::generate::stream::{Streams, below, letters, unit};

const DAY_MS: i64 = 86_400_000;

/// How the values of a column come about.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// `start`, `start + 1`, …
    Sequence {
        start: i64,
    },
    Integer {
        min: i64,
        max: i64,
    },
    Float {
        min: f64,
        max: f64,
    },
    Decimal {
        min: i128,
        max: i128,
    },
    Boolean,
    Text {
        length: u64,
        is_shorter: bool,
    },
    /// Now, less a random part of this many milliseconds.
    Past {
        max_ms: u64,
    },
    Today,
    TimeOfDay,
}

/// A column: what it holds, and how often nothing.
#[derive(Debug, Clone)]
pub(super) struct Values {
    kind: Kind,
    data_type: DataType,
    null_rate: f64,
    streams: Streams,
    nulls: Streams,
    /// How many rows a sequence has.
    rows: Option<u64>,
}

impl Values {
    /// The `place`th column of a table, whose type is `data_type`.
    ///
    /// # Errors
    /// `Usage`, if an option does not fit, or there are no random values of the type.
    pub(super) fn new(
        options: &FieldOptions<'_>,
        data_type: &DataType,
        name: &str,
        seed: u64,
        place: u64,
    ) -> Result<Self> {
        let is_sequence = options.is_sequence()?;
        let (kind, rows) =
            if is_sequence { sequence(options, data_type, name)? } else { (random(options, data_type, name)?, None) };
        let (streams, nulls) = (Streams::new(seed, 2 * place), Streams::new(seed, 2 * place + 1));
        Ok(Self { kind, data_type: data_type.clone(), null_rate: options.null_rate()?, streams, nulls, rows })
    }

    /// How many rows there are, if it is a sequence.
    pub(super) fn rows(&self) -> Option<u64> {
        self.rows
    }

    /// The values of these rows.
    pub(super) fn column(&self, rows: Range<u64>, clock: &dyn Clock) -> Result<ArrayRef> {
        let column = cast(&self.values(rows.clone(), clock)?, &self.data_type)?;
        if self.null_rate == 0.0 {
            return Ok(column);
        }
        let valid: NullBuffer =
            rows.map(|row| unit(&mut self.nulls.of(row)) >= self.null_rate).collect::<Vec<_>>().into();
        Ok(make_array(column.to_data().into_builder().nulls(Some(valid)).build()?))
    }

    fn values(&self, rows: Range<u64>, clock: &dyn Clock) -> Result<ArrayRef> {
        let streams = self.streams;
        let now = clock.wall().millis();
        Ok(match self.kind {
            Kind::Sequence { start } => integers(rows, |row| start.saturating_add_unsigned(row)),
            Kind::Integer { min, max } => integers(rows, |row| {
                let span = u128::from(max.abs_diff(min)) + 1;
                let offset = (u128::from(streams.of(row).next_u64()) * span) >> 64;
                min.wrapping_add_unsigned(offset as u64)
            }),
            Kind::Float { min, max } => {
                let values = rows.map(|row| {
                    let share = unit(&mut streams.of(row));
                    min * (1.0 - share) + max * share
                });
                if self.data_type == DataType::Float32 {
                    Arc::new(Float32Array::from_iter_values(values.map(|value| value as f32)))
                } else {
                    Arc::new(Float64Array::from_iter_values(values))
                }
            }
            Kind::Decimal { min, max } => decimals(rows, streams, min, max, &self.data_type)?,
            Kind::Boolean => {
                Arc::new(rows.map(|row| Some(streams.of(row).next_u64() & 1 == 1)).collect::<BooleanArray>())
            }
            Kind::Text { length, is_shorter } => texts(rows, streams, length, is_shorter, &self.data_type)?,
            Kind::Past { max_ms } => Arc::new(TimestampMillisecondArray::from_iter_values(
                rows.map(|row| now.saturating_sub_unsigned(below(&mut streams.of(row), max_ms + 1))),
            )),
            Kind::Today => Arc::new(Date32Array::from_iter_values(rows.map(|_| now.div_euclid(DAY_MS) as i32))),
            Kind::TimeOfDay => {
                Arc::new(Time32MillisecondArray::from_iter_values(rows.map(|_| now.rem_euclid(DAY_MS) as i32)))
            }
        })
    }
}

fn integers(rows: Range<u64>, value: impl Fn(u64) -> i64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows.map(value)))
}

fn decimals(rows: Range<u64>, streams: Streams, min: i128, max: i128, data_type: &DataType) -> Result<ArrayRef> {
    let values = rows.map(|row| {
        let share = unit(&mut streams.of(row));
        // 53 random bits: enough for what a person tells apart.
        (min as f64 * (1.0 - share) + max as f64 * share).round().clamp(min as f64, max as f64) as i128
    });
    Ok(Arc::new(Decimal128Array::from_iter_values(values).with_data_type(data_type.clone())))
}

fn texts(rows: Range<u64>, streams: Streams, length: u64, is_shorter: bool, data_type: &DataType) -> Result<ArrayRef> {
    let mut bytes = Vec::new();
    let mut lengths = Vec::new();
    for row in rows {
        let rng = &mut streams.of(row);
        let own = if is_shorter { 1 + below(rng, length) } else { length } as usize;
        letters(rng, own, &mut bytes);
        lengths.push(own);
    }
    let offsets = arrow::buffer::OffsetBuffer::from_lengths(lengths);
    Ok(if *data_type == DataType::Binary {
        Arc::new(BinaryArray::try_new(offsets, bytes.into(), None)?)
    } else {
        Arc::new(StringArray::try_new(offsets, bytes.into(), None)?)
    })
}

fn sequence(options: &FieldOptions<'_>, data_type: &DataType, name: &str) -> Result<(Kind, Option<u64>)> {
    if !(data_type.is_integer()
        || data_type.is_floating()
        || matches!(data_type, DataType::Utf8 | DataType::Decimal128(..)))
    {
        return Err(Error::usage(format!("column '{name}': a sequence is of numbers or texts")));
    }
    let (start, end) = (options.bound("start")?, options.bound("end")?);
    if start > end {
        return Err(Error::usage(format!("column '{name}': the sequence starts at {start}, after its end {end}")));
    }
    Ok((Kind::Sequence { start }, Some(end.abs_diff(start).saturating_add(1))))
}

fn random(options: &FieldOptions<'_>, data_type: &DataType, name: &str) -> Result<Kind> {
    let integer = |least: i64, most: i64| options.range(least, most).map(|(min, max)| Kind::Integer { min, max });
    let float = |least: f64, most: f64| options.range(least, most).map(|(min, max)| Kind::Float { min, max });
    match data_type {
        DataType::Int8 => integer(i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => integer(i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => integer(i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 => integer(i64::MIN, i64::MAX),
        DataType::Float32 => float(f32::MIN.into(), f32::MAX.into()),
        DataType::Float64 => float(f64::MIN, f64::MAX),
        DataType::Decimal128(precision, scale) => {
            let most = 10f64.powi(i32::from(*precision)) - 1.0;
            let unit = 10f64.powi(i32::from(*scale));
            let (min, max) = options.range(-most / unit, most / unit)?;
            Ok(Kind::Decimal { min: (min * unit).round() as i128, max: (max * unit).round() as i128 })
        }
        DataType::Boolean => Ok(Kind::Boolean),
        DataType::Utf8 | DataType::Binary => {
            let (length, is_shorter) = options.length()?;
            Ok(Kind::Text { length, is_shorter })
        }
        DataType::Timestamp(..) => Ok(Kind::Past { max_ms: options.max_past()? }),
        DataType::Date32 => Ok(Kind::Today),
        DataType::Time32(_) => Ok(Kind::TimeOfDay),
        other => Err(Error::usage(format!("datagen does not make values of column '{name}' yet: {other}"))),
    }
}
