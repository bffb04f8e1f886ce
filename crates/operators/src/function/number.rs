//! Arithmetic whose types or rounding are Flink's.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::datatypes::{
    DataType, Decimal128Type, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
};
use datafusion::common::{DataFusionError, Result, ScalarValue};

use super::call::Kind::{Double, Int, Number};
use super::call::{Arguments, Definition, Gives, bad_value, constant_int};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("power", &[&[Double, Double]], Gives::Double, power),
    Definition::new("e", &[&[]], Gives::Double, e),
    Definition::new("sign", &[&[Number]], Gives::Computed(same), sign),
    Definition::new("ceil", &[&[Number]], Gives::Computed(whole), ceil),
    Definition::new("floor", &[&[Number]], Gives::Computed(whole), floor),
    Definition::new("round", &[&[Number], &[Number, Int]], Gives::Computed(rounded), round),
    Definition::new("truncate", &[&[Number], &[Number, Int]], Gives::Computed(cut), truncate),
];

fn power(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (bases, exponents) = (args.double(0)?, args.double(1)?);
    args.doubles(|row| Some(bases.get(row)?.powf(exponents.get(row)?)))
}

fn e(args: &Arguments<'_>) -> Result<ArrayRef> {
    args.doubles(|_| Some(std::f64::consts::E))
}

fn first(fields: &[FieldRef]) -> DataType {
    fields.first().map_or(DataType::Null, |field| field.data_type().clone())
}

fn same(fields: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    Ok(first(fields))
}

fn places(constants: &[Option<&ScalarValue>], given: usize) -> Option<i64> {
    if given == 1 { Some(0) } else { constant_int(constants, 1) }
}

/// Flink's type of ROUND: a digit more before the point, where digits behind it go.
fn rounded(fields: &[FieldRef], constants: &[Option<&ScalarValue>]) -> Result<DataType> {
    Ok(match (first(fields), places(constants, fields.len())) {
        (DataType::Decimal128(precision, scale), Some(places)) if places < i64::from(scale) => {
            let scale_left = places.max(0) as i8;
            let precision = i64::from(precision) - i64::from(scale) + 1 + i64::from(scale_left);
            DataType::Decimal128(precision.clamp(1, 38) as u8, scale_left)
        }
        (other, _) => other,
    })
}

fn cut(fields: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    Ok(first(fields))
}

/// Flink's type of CEIL and FLOOR: a decimal keeps its digits in all, and none of them behind the point.
fn whole(fields: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    Ok(match first(fields) {
        DataType::Decimal128(precision, _) => DataType::Decimal128(precision, 0),
        other => other,
    })
}

macro_rules! each {
    ($array:expr, $kind:ty, $map:expr) => {
        Ok(Arc::new($array.as_primitive::<$kind>().unary::<_, $kind>($map)))
    };
}

fn sign(args: &Arguments<'_>) -> Result<ArrayRef> {
    let array = args.array(0)?;
    match array.data_type() {
        DataType::Int8 => each!(array, Int8Type, i8::signum),
        DataType::Int16 => each!(array, Int16Type, i16::signum),
        DataType::Int32 => each!(array, Int32Type, i32::signum),
        DataType::Int64 => each!(array, Int64Type, i64::signum),
        DataType::Float32 => each!(array, Float32Type, |value| if value == 0.0 { value } else { value.signum() }),
        DataType::Float64 => each!(array, Float64Type, |value| if value == 0.0 { value } else { value.signum() }),
        DataType::Decimal128(precision, scale) => {
            let one = 10i128.checked_pow(u32::try_from(*scale).unwrap_or(0)).unwrap_or(i128::MAX);
            let signs = array.as_primitive::<Decimal128Type>().unary::<_, Decimal128Type>(|value| value.signum() * one);
            Ok(Arc::new(signs.with_precision_and_scale(*precision, *scale)?))
        }
        other => Err(DataFusionError::Internal(format!("SIGN of {other}"))),
    }
}

fn ceil(args: &Arguments<'_>) -> Result<ArrayRef> {
    to_whole(args, |value, unit| -(-value).div_euclid(unit), f64::ceil)
}

fn floor(args: &Arguments<'_>) -> Result<ArrayRef> {
    to_whole(args, i128::div_euclid, f64::floor)
}

/// Each number to one without digits behind the point; `whole` is given a decimal's digits and what stands for 1 in them.
fn to_whole(args: &Arguments<'_>, whole: fn(i128, i128) -> i128, cut: fn(f64) -> f64) -> Result<ArrayRef> {
    let array = args.array(0)?;
    match array.data_type() {
        DataType::Float32 => each!(array, Float32Type, |value| cut(f64::from(value)) as f32),
        DataType::Float64 => each!(array, Float64Type, cut),
        DataType::Decimal128(precision, scale) => {
            let one = 10i128.checked_pow(u32::try_from(*scale).unwrap_or(0)).unwrap_or(i128::MAX);
            let cut = array.as_primitive::<Decimal128Type>().unary::<_, Decimal128Type>(|value| whole(value, one));
            Ok(Arc::new(cut.with_precision_and_scale(*precision, 0)?))
        }
        _ => Ok(array),
    }
}

fn round(args: &Arguments<'_>) -> Result<ArrayRef> {
    to_places(args, half_up, |value| value)
}

fn truncate(args: &Arguments<'_>) -> Result<ArrayRef> {
    to_places(args, |value, unit| value - value % unit, f64::trunc)
}

/// `value` rounded to a multiple of `unit`, halves away from zero.
fn half_up(value: i128, unit: i128) -> i128 {
    let rest = value % unit;
    let down = value - rest;
    if rest.unsigned_abs() * 2 >= unit.unsigned_abs() { down + unit * value.signum() } else { down }
}

/// Each number to so many places behind the point; `whole` does it to integers of the last place.
fn to_places(args: &Arguments<'_>, whole: fn(i128, i128) -> i128, cut: fn(f64) -> f64) -> Result<ArrayRef> {
    let (array, places) = (args.array(0)?, args.int_or(1, 0)?);
    let out = args.gives;
    macro_rules! integers {
        ($kind:ty, $native:ty) => {{
            let numbers = array.as_primitive::<$kind>();
            let rounded = (0..args.rows).map(|row| {
                let (true, Some(places)) = (numbers.is_valid(row), places.get(row)) else { return Ok(None) };
                let value = i128::from(numbers.value(row));
                let made = if places >= 0 { value } else { unit(places).map_or(0, |unit| whole(value, unit)) };
                <$native>::try_from(made).map(Some).map_err(|_| too_large(value))
            });
            Ok(Arc::new(rounded.collect::<Result<arrow::array::PrimitiveArray<$kind>>>()?))
        }};
    }
    match array.data_type() {
        DataType::Int8 => integers!(Int8Type, i8),
        DataType::Int16 => integers!(Int16Type, i16),
        DataType::Int32 => integers!(Int32Type, i32),
        DataType::Int64 => integers!(Int64Type, i64),
        DataType::Float32 => {
            let numbers = array.as_primitive::<Float32Type>();
            let made = (0..args.rows).map(|row| {
                let value = numbers.is_valid(row).then(|| f64::from(numbers.value(row)))?;
                Some(float_to(value, places.get(row)?, whole, cut) as f32)
            });
            Ok(Arc::new(made.collect::<arrow::array::Float32Array>()))
        }
        DataType::Float64 => {
            let numbers = array.as_primitive::<Float64Type>();
            args.doubles(|row| {
                let value = numbers.is_valid(row).then(|| numbers.value(row))?;
                Some(float_to(value, places.get(row)?, whole, cut))
            })
        }
        DataType::Decimal128(_, scale) => {
            let DataType::Decimal128(precision, scale_left) = *out else {
                return Err(DataFusionError::Internal("a decimal is rounded to no decimal".to_owned()));
            };
            let numbers = array.as_primitive::<Decimal128Type>();
            let made = (0..args.rows).map(|row| {
                let value = numbers.is_valid(row).then(|| numbers.value(row))?;
                let lost = i32::from(*scale).saturating_sub(places.get(row)?);
                let value = if lost > 0 { unit(-lost).map_or(0, |unit| whole(value, unit)) } else { value };
                Some(value / unit(i32::from(scale_left) - i32::from(*scale)).unwrap_or(1))
            });
            let made: Decimal128Array = made.collect();
            Ok(Arc::new(made.with_precision_and_scale(precision, scale_left)?))
        }
        other => Err(DataFusionError::Internal(format!("rounding of {other}"))),
    }
}

/// 10 to the power of `-places`, if it is a number that decimals have.
fn unit(places: i32) -> Option<i128> {
    10i128.checked_pow(places.unsigned_abs())
}

fn too_large(value: i128) -> DataFusionError {
    bad_value(format!("{value} rounded is too large for its type; CAST it to a wider one first"))
}

/// Rounds the shortest decimal number that means `value`, as Java's BigDecimal.valueOf(value) does.
fn float_to(value: f64, places: i32, whole: fn(i128, i128) -> i128, cut: fn(f64) -> f64) -> f64 {
    if !value.is_finite() || value == 0.0 {
        return value;
    }
    let shown = format!("{value:e}");
    let Some((digits, exponent)) = shown.split_once('e') else { return cut(value) };
    let Ok(exponent) = exponent.parse::<i32>() else { return value };
    let behind = digits.split_once('.').map_or(0, |(_, behind)| behind.len() as i32);
    let Ok(mantissa) = digits.replace('.', "").parse::<i128>() else { return value };
    // value = mantissa / 10^scale
    let scale = behind - exponent;
    let lost = scale.saturating_sub(places);
    if lost <= 0 {
        return value;
    }
    let Some(unit) = unit(lost) else { return 0.0 };
    let rounded = whole(mantissa, unit);
    format!("{rounded}e{}", -scale).parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use datafusion::common::ScalarValue;

    use super::super::testing::{int, shown};

    fn double(value: f64) -> ScalarValue {
        ScalarValue::Float64(Some(value))
    }

    fn decimal(value: i128, precision: u8, scale: i8) -> ScalarValue {
        ScalarValue::Decimal128(Some(value), precision, scale)
    }

    #[test]
    fn halves_are_rounded_away_from_zero() {
        let cases = [
            (double(2.5), 0, "3.0"),
            (double(-2.5), 0, "-3.0"),
            (double(1.005), 2, "1.01"),
            (double(0.7), 0, "1.0"),
            (double(1234.5), -2, "1200.0"),
            (double(1e300), 2, "1e300"),
            (int(155), -1, "160"),
            (int(-155), -1, "-160"),
            (int(4), -1, "0"),
            (int(7), 2, "7"),
            (decimal(12345, 5, 2), 1, "123.5"),
            (decimal(-12345, 5, 2), 0, "-123"),
            (decimal(99995, 5, 3), 2, "100.00"),
            (decimal(12345, 5, 2), -2, "100"),
            (decimal(12345, 5, 2), 3, "123.45"),
        ];
        for (value, places, expected) in cases {
            assert_eq!(shown("round", &[value.clone(), int(places)]).as_deref(), Some(expected), "{value} {places}");
        }
    }

    #[test]
    fn truncate_cuts() {
        let cases = [
            (double(42.324), 2, "42.32"),
            (double(-42.9), 0, "-42.0"),
            (double(42.324), -1, "40.0"),
            (int(199), -1, "190"),
            (decimal(12345, 5, 2), 1, "123.40"),
        ];
        for (value, places, expected) in cases {
            assert_eq!(shown("truncate", &[value.clone(), int(places)]).as_deref(), Some(expected), "{value}");
        }
        assert_eq!(shown("truncate", &[double(42.9)]).as_deref(), Some("42.0"));
    }

    #[test]
    fn whole_numbers_above_and_below_lose_the_digits_behind_the_point() {
        let cases = [
            (decimal(12, 2, 1), "2", "1"),
            (decimal(-12, 2, 1), "-1", "-2"),
            (decimal(99, 2, 1), "10", "9"),
            (decimal(500, 5, 2), "5", "5"),
            (double(-1.5), "-1.0", "-2.0"),
            (int(7), "7", "7"),
        ];
        for (value, above, below) in cases {
            assert_eq!(shown("ceil", std::slice::from_ref(&value)).as_deref(), Some(above), "{value}");
            assert_eq!(shown("floor", std::slice::from_ref(&value)).as_deref(), Some(below), "{value}");
        }
    }

    #[test]
    fn signs_keep_their_type() {
        assert_eq!(shown("sign", &[int(-7)]).as_deref(), Some("-1"));
        assert_eq!(shown("sign", &[double(0.0)]).as_deref(), Some("0.0"));
        assert_eq!(shown("sign", &[decimal(-150, 5, 2)]).as_deref(), Some("-1.00"));
        assert_eq!(shown("power", &[int(2), int(10)]).as_deref(), Some("1024.0"));
    }
}
