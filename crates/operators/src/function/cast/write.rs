//! Texts of values, as Flink prints them.

use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use chrono_tz::Tz;
use datafusion::common::{DataFusionError, Result};

use super::super::calendar::{Moment, SECONDS_A_DAY, Times, civil_from_days};
use super::super::call::{put, put_char};
use super::super::pattern::put_number;

/// Appends the text of a row's value.
type Writer<'a> = Box<dyn FnMut(usize, &mut StringBuilder) + 'a>;

/// The text of each value.
pub(super) fn texts(input: &ArrayRef, zone: Tz) -> Result<ArrayRef> {
    let mut out = StringBuilder::with_capacity(input.len(), input.len() * 16);
    let mut write: Writer<'_> = match input.data_type() {
        DataType::Boolean => {
            let truths = input.as_boolean();
            Box::new(|row, out| put(out, if truths.value(row) { "TRUE" } else { "FALSE" }))
        }
        DataType::Float64 => {
            let numbers = input.as_primitive::<Float64Type>();
            Box::new(|row, out| {
                let value = numbers.value(row);
                put_float(value, value.abs(), format_args!("{value:e}"), format_args!("{value:?}"), out);
            })
        }
        DataType::Float32 => {
            let numbers = input.as_primitive::<Float32Type>();
            Box::new(|row, out| {
                let value = numbers.value(row);
                put_float(value.into(), value.abs().into(), format_args!("{value:e}"), format_args!("{value:?}"), out);
            })
        }
        DataType::Binary => {
            let bytes = input.as_binary::<i32>();
            Box::new(|row, out| put(out, &String::from_utf8_lossy(bytes.value(row))))
        }
        DataType::Timestamp(..) => {
            let times = Times::new(input, zone)?;
            let digits = times.per_second.ilog10() as usize;
            Box::new(move |row, out| {
                if let Some(moment) = times.local(row) {
                    put_moment(moment, digits, out);
                }
            })
        }
        other => return Err(DataFusionError::Internal(format!("CAST of {other} to text"))),
    };
    for row in 0..input.len() {
        if input.is_null(row) {
            out.append_null();
        } else {
            write(row, &mut out);
            out.append_value("");
        }
    }
    Ok(Arc::new(out.finish()))
}

/// As Java's Double.toString: decimal from 0.001 to 10,000,000, else with an exponent.
fn put_float(
    value: f64,
    size: f64,
    scientific: std::fmt::Arguments<'_>,
    decimal: std::fmt::Arguments<'_>,
    out: &mut StringBuilder,
) {
    if !value.is_finite() {
        return put(
            out,
            if value.is_nan() {
                "NaN"
            } else if value > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            },
        );
    }
    if size == 0.0 || (1e-3..1e7).contains(&size) {
        let _ = out.write_fmt(decimal);
        return;
    }
    let text = scientific.to_string();
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    put(out, mantissa);
    put(out, if mantissa.contains('.') { "E" } else { ".0E" });
    put(out, exponent);
}

/// `yyyy-MM-dd HH:mm:ss` with `digits` of a fraction.
fn put_moment(moment: Moment, digits: usize, out: &mut StringBuilder) {
    let (year, month, day) = civil_from_days(moment.seconds.div_euclid(SECONDS_A_DAY));
    let second = moment.seconds.rem_euclid(SECONDS_A_DAY);
    let parts = [(year, 4, '-'), (month, 2, '-'), (day, 2, ' '), (second / 3600, 2, ':'), (second / 60 % 60, 2, ':')];
    for (value, width, end) in parts {
        put_number(value, width, out);
        put_char(out, end);
    }
    put_number(second % 60, 2, out);
    if digits > 0 {
        put_char(out, '.');
        put_number(moment.nanos / 10i64.pow(9u32.saturating_sub(digits as u32)), digits, out);
    }
}
