//! Arithmetic of decimals with Flink's result types, which follow from those of both sides alone.
//!
//! | | digits behind the point | digits in all |
//! |---|---|---|
//! | `a + b`, `a - b` | s = max(s1, s2) | max(p1 − s1, p2 − s2) + s + 1 |
//! | `a * b` | s1 + s2 | p1 + p2 + 1 |
//! | `a / b` | s = max(6, s1 + p2 + 1) | p1 − s1 + s2 + s |
//! | `a % b` | s = max(s1, s2) | min(p1 − s1, p2 − s2) + s |
//!
//! With more than 38 digits, those behind the point go first, down to 6. An integer is a decimal with as many digits as
//! its type may have. Results are rounded half up; one that has no room is an error.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Decimal128Type, DecimalType, Field, FieldRef, Int8Type, Int16Type, Int32Type, Int64Type, i256,
};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::call::bad_value;
use super::name::sql_name;

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sign {
    /// `+`
    Plus,
    /// `-`
    Minus,
    /// `*`
    Times,
    /// `/`
    Divide,
    /// `%`
    Modulo,
}

impl Sign {
    /// As SQL writes it.
    pub fn text(self) -> &'static str {
        match self {
            Self::Plus => "+",
            Self::Minus => "-",
            Self::Times => "*",
            Self::Divide => "/",
            Self::Modulo => "%",
        }
    }
}

/// The digits of a DECIMAL or of an integer type as one: in all, and behind the point. None for other types.
pub fn digits_of(data_type: &DataType) -> Option<(u8, i8)> {
    Some(match data_type {
        DataType::Int8 => (3, 0),
        DataType::Int16 => (5, 0),
        DataType::Int32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::Decimal128(precision, scale) => (*precision, *scale),
        _ => return None,
    })
}

/// The type of `left sign right`, if both are decimals or integers and one is a decimal.
pub fn decimal_type(sign: Sign, left: &DataType, right: &DataType) -> Option<DataType> {
    let is_decimal = |data_type: &DataType| matches!(data_type, DataType::Decimal128(..));
    if !is_decimal(left) && !is_decimal(right) {
        return None;
    }
    let ((p1, s1), (p2, s2)) = (digits_of(left)?, digits_of(right)?);
    let [p1, s1, p2, s2] = [i16::from(p1), i16::from(s1), i16::from(p2), i16::from(s2)];
    let common = s1.max(s2);
    let (precision, scale) = match sign {
        Sign::Plus | Sign::Minus => ((p1 - s1).max(p2 - s2) + common + 1, common),
        Sign::Times => (p1 + p2 + 1, s1 + s2),
        Sign::Divide => {
            let scale = (s1 + p2 + 1).max(6);
            (p1 - s1 + s2 + scale, scale)
        }
        Sign::Modulo => ((p1 - s1).min(p2 - s2) + common, common),
    };
    let (precision, scale) = match precision {
        ..=38 => (precision.max(1), scale),
        _ => (38, (38 - (precision - scale)).max(scale.min(6))),
    };
    Some(DataType::Decimal128(u8::try_from(precision).ok()?, i8::try_from(scale).ok()?))
}

/// A sign between two numbers of which one at least is a decimal, as a function.
#[derive(Debug, Clone)]
pub struct DecimalArithmetic {
    sign: Sign,
    signature: Signature,
}

impl DecimalArithmetic {
    /// The function of `sign`.
    pub fn function(sign: Sign) -> Arc<ScalarUDF> {
        let signature = Signature::any(2, Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Self { sign, signature }))
    }

    /// What is computed.
    pub fn sign(&self) -> Sign {
        self.sign
    }
}

impl PartialEq for DecimalArithmetic {
    fn eq(&self, other: &Self) -> bool {
        self.sign == other.sign
    }
}

impl Eq for DecimalArithmetic {}

impl Hash for DecimalArithmetic {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.sign.hash(state);
    }
}

impl ScalarUDFImpl for DecimalArithmetic {
    fn name(&self) -> &str {
        self.sign.text()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [left, right] => decimal_type(self.sign, left, right),
            _ => None,
        }
        .ok_or_else(|| DataFusionError::Internal(format!("{} of no decimals", self.sign.text())))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|field| field.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return Err(DataFusionError::Internal("arithmetic takes two values".to_owned()));
        };
        let all_constant = [left, right].iter().all(|side| matches!(side, ColumnarValue::Scalar(_)));
        let rows = if all_constant { 1 } else { args.number_rows };
        let (left, right) = (Side::of(left)?, Side::of(right)?);
        let made: ArrayRef = Arc::new(compute(self.sign, &left, &right, args.return_field.data_type(), rows)?);
        if all_constant { ScalarValue::try_from_array(&made, 0).map(ColumnarValue::Scalar) } else { Ok(made.into()) }
    }
}

/// One side's values as integers of its last place.
struct Side {
    values: Values,
    nulls: Option<NullBuffer>,
    precision: u8,
    scale: i8,
}

enum Values {
    Constant(i128),
    /// All rows are NULL.
    Nothing,
    Wide(Decimal128Array),
    Long(arrow::array::Int64Array),
}

impl Side {
    fn of(value: &ColumnarValue) -> Result<Self> {
        let data_type = value.data_type();
        let (precision, scale) = digits_of(&data_type)
            .ok_or_else(|| DataFusionError::Internal(format!("{data_type} in the arithmetic of decimals")))?;
        let (values, nulls) = match value {
            ColumnarValue::Scalar(scalar) => (constant(scalar).map_or(Values::Nothing, Values::Constant), None),
            ColumnarValue::Array(array) => (column(array)?, array.nulls().cloned()),
        };
        Ok(Self { values, nulls, precision, scale })
    }

    #[inline]
    fn get(&self, row: usize) -> i128 {
        match &self.values {
            Values::Constant(value) => *value,
            Values::Nothing => 0,
            Values::Wide(array) => array.value(row),
            Values::Long(array) => array.value(row).into(),
        }
    }
}

fn constant(scalar: &ScalarValue) -> Option<i128> {
    match scalar {
        ScalarValue::Decimal128(value, ..) => *value,
        ScalarValue::Int8(value) => value.map(i128::from),
        ScalarValue::Int16(value) => value.map(i128::from),
        ScalarValue::Int32(value) => value.map(i128::from),
        ScalarValue::Int64(value) => value.map(i128::from),
        _ => None,
    }
}

fn column(array: &ArrayRef) -> Result<Values> {
    Ok(match array.data_type() {
        DataType::Decimal128(..) => Values::Wide(array.as_primitive::<Decimal128Type>().clone()),
        DataType::Int64 => Values::Long(array.as_primitive::<Int64Type>().clone()),
        DataType::Int8 => Values::Long(array.as_primitive::<Int8Type>().unary(i64::from)),
        DataType::Int16 => Values::Long(array.as_primitive::<Int16Type>().unary(i64::from)),
        DataType::Int32 => Values::Long(array.as_primitive::<Int32Type>().unary(i64::from)),
        other => return Err(DataFusionError::Internal(format!("{other} in the arithmetic of decimals"))),
    })
}

fn compute(sign: Sign, left: &Side, right: &Side, to: &DataType, rows: usize) -> Result<Decimal128Array> {
    let DataType::Decimal128(precision, scale) = *to else {
        return Err(DataFusionError::Internal(format!("{to} is no decimal")));
    };
    if matches!(left.values, Values::Nothing) || matches!(right.values, Values::Nothing) {
        return Ok(Decimal128Array::new_null(rows).with_precision_and_scale(precision, scale)?);
    }
    let nulls = NullBuffer::union(left.nulls.as_ref(), right.nulls.as_ref());
    let product_digits = u16::from(left.precision) + u16::from(right.precision);
    let values: Vec<i128> = if sign == Sign::Times && product_digits < 38 {
        // The common case: no product can be too large, and none has digits to be rounded away.
        match (&left.values, &right.values) {
            (Values::Constant(factor), Values::Long(array)) | (Values::Long(array), Values::Constant(factor)) => {
                array.values().iter().map(|value| factor * i128::from(*value)).collect()
            }
            _ => (0..rows).map(|row| left.get(row).wrapping_mul(right.get(row))).collect(),
        }
    } else {
        let exact = Exact { sign, left, right, precision, scale };
        let is_null = |row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
        (0..rows).map(|row| if is_null(row) { Ok(0) } else { exact.value(row) }).collect::<Result<_>>()?
    };
    Ok(Decimal128Array::try_new(values.into(), nulls)?.with_precision_and_scale(precision, scale)?)
}

/// One row after another, with room for every digit in between.
struct Exact<'a> {
    sign: Sign,
    left: &'a Side,
    right: &'a Side,
    precision: u8,
    scale: i8,
}

impl Exact<'_> {
    fn value(&self, row: usize) -> Result<i128> {
        let (left, right) = (self.left.get(row), self.right.get(row));
        if right == 0 && matches!(self.sign, Sign::Divide | Sign::Modulo) {
            return Err(arrow::error::ArrowError::DivideByZero.into());
        }
        let most = 10i128.checked_pow(self.precision.into()).unwrap_or(i128::MAX);
        let made = self.wide(left, right).and_then(i256::to_i128).filter(|value| value.unsigned_abs() < most as u128);
        made.ok_or_else(|| {
            let to = sql_name(&DataType::Decimal128(self.precision, self.scale));
            let sides = (shown(left, self.left.scale), shown(right, self.right.scale));
            bad_value(format!(
                "{} {} {} has no room in {to}; CAST to fewer digits first",
                sides.0,
                self.sign.text(),
                sides.1
            ))
        })
    }

    fn wide(&self, left: i128, right: i128) -> Option<i256> {
        let (a, b) = (i256::from_i128(left), i256::from_i128(right));
        let (s1, s2) = (self.left.scale, self.right.scale);
        let common = s1.max(s2);
        let raised = |value: i256, by: i8| value.checked_mul(power(by)?);
        match self.sign {
            Sign::Plus => rounded(raised(a, common - s1)?.checked_add(raised(b, common - s2)?)?, common - self.scale),
            Sign::Minus => rounded(raised(a, common - s1)?.checked_sub(raised(b, common - s2)?)?, common - self.scale),
            Sign::Times => rounded(a.checked_mul(b)?, s1 + s2 - self.scale),
            Sign::Modulo => rounded(raised(a, common - s1)?.checked_rem(raised(b, common - s2)?)?, common - self.scale),
            Sign::Divide => {
                let by = self.scale - s1 + s2;
                let (a, b) = if by >= 0 { (raised(a, by)?, b) } else { (a, raised(b, -by)?) };
                half_up(a, b)
            }
        }
    }
}

fn power(exponent: i8) -> Option<i256> {
    i256::from_i128(10).checked_pow(u32::try_from(exponent).ok()?)
}

/// `value` without its last `digits` digits, rounded half up.
fn rounded(value: i256, digits: i8) -> Option<i256> {
    if digits <= 0 { Some(value) } else { half_up(value, power(digits)?) }
}

fn half_up(a: i256, b: i256) -> Option<i256> {
    let (quotient, rest) = (a.checked_div(b)?, a.checked_rem(b)?);
    let twice = rest.checked_abs()?.checked_mul(i256::from_i128(2))?;
    if twice < b.checked_abs()? {
        return Some(quotient);
    }
    let away = if a.is_negative() == b.is_negative() { i256::ONE } else { i256::MINUS_ONE };
    quotient.checked_add(away)
}

fn shown(value: i128, scale: i8) -> String {
    <Decimal128Type as DecimalType>::format_decimal(value, 38, scale)
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    fn decimal(precision: u8, scale: i8) -> DataType {
        DataType::Decimal128(precision, scale)
    }

    #[test]
    fn types_are_flinks() {
        let cases = [
            (Sign::Times, decimal(3, 3), DataType::Int64, decimal(23, 3)),
            (Sign::Times, decimal(10, 2), decimal(2, 1), decimal(13, 3)),
            (Sign::Times, decimal(38, 10), decimal(38, 10), decimal(38, 6)),
            (Sign::Plus, decimal(10, 2), decimal(10, 2), decimal(11, 2)),
            (Sign::Minus, decimal(10, 2), DataType::Int32, decimal(13, 2)),
            (Sign::Plus, decimal(38, 10), decimal(38, 0), decimal(38, 6)),
            (Sign::Divide, decimal(10, 2), decimal(10, 2), decimal(23, 13)),
            (Sign::Divide, decimal(5, 0), decimal(2, 0), decimal(11, 6)),
            (Sign::Divide, decimal(38, 18), decimal(38, 18), decimal(38, 6)),
            (Sign::Modulo, decimal(10, 2), decimal(4, 3), decimal(4, 3)),
        ];
        for (sign, left, right, expected) in cases {
            assert_eq!(decimal_type(sign, &left, &right), Some(expected), "{left} {} {right}", sign.text());
        }
        assert_eq!(decimal_type(Sign::Plus, &DataType::Int32, &DataType::Int64), None);
        assert_eq!(decimal_type(Sign::Plus, &decimal(5, 2), &DataType::Float64), None);
    }

    fn one(sign: Sign, left: (i128, u8, i8), right: (i128, u8, i8)) -> Result<String> {
        let to = decimal_type(sign, &decimal(left.1, left.2), &decimal(right.1, right.2)).unwrap();
        let side = |(value, precision, scale)| {
            let array = Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale).unwrap();
            Side::of(&ColumnarValue::Array(Arc::new(array))).unwrap()
        };
        compute(sign, &side(left), &side(right), &to, 1).map(|made| made.value_as_string(0))
    }

    #[test]
    fn values_are_exact_and_rounded_half_up() {
        let cases = [
            (Sign::Divide, (100, 5, 2), (300, 5, 2), "0.33333333"),
            (Sign::Divide, (200, 5, 2), (300, 5, 2), "0.66666667"),
            (Sign::Divide, (-200, 5, 2), (300, 5, 2), "-0.66666667"),
            (Sign::Plus, (150, 5, 2), (25, 3, 1), "4.00"),
            (Sign::Minus, (150, 5, 2), (25, 3, 1), "-1.00"),
            (Sign::Times, (-150, 5, 2), (25, 3, 1), "-3.750"),
            (Sign::Modulo, (-750, 5, 2), (20, 3, 1), "-1.50"),
        ];
        for (sign, left, right, expected) in cases {
            assert_eq!(one(sign, left, right).unwrap(), expected, "{left:?} {} {right:?}", sign.text());
        }
    }

    #[test]
    fn what_has_no_room_is_an_error() {
        let big = 10i128.pow(37);
        let error = one(Sign::Times, (big, 38, 0), (100, 38, 0)).unwrap_err().strip_backtrace();
        assert!(error.ends_with("has no room in DECIMAL(38, 0); CAST to fewer digits first"), "{error}");
        let error = one(Sign::Divide, (1, 5, 2), (0, 5, 2)).unwrap_err();
        assert!(error.to_string().contains("ivide by zero"), "{error}");
    }

    #[test]
    fn a_constant_times_a_column_keeps_nulls() {
        let prices =
            Side::of(&ColumnarValue::Array(Arc::new(Int64Array::from(vec![Some(1000), None, Some(-1)])))).unwrap();
        let factor = Side::of(&ColumnarValue::Scalar(ScalarValue::Decimal128(Some(908), 3, 3))).unwrap();
        let made = compute(Sign::Times, &factor, &prices, &decimal(23, 3), 3).unwrap();
        assert_eq!(
            made,
            Decimal128Array::from(vec![Some(908_000), None, Some(-908)]).with_precision_and_scale(23, 3).unwrap()
        );
    }
}
