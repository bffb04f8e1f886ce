//! The numbers under SUM and AVG: in which type a total is kept, and how it becomes a result.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Float32Array, Float64Array, PrimitiveArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DECIMAL128_MAX_PRECISION, DataType, Int8Type, Int16Type, Int32Type, Int64Type,
};
use datafusion::common::{exec_err, internal_err};
use datafusion::error::{DataFusionError, Result};

use super::Function;

/// The least number with 39 digits.
const DECIMAL_LIMIT: i128 = 10i128.pow(DECIMAL128_MAX_PRECISION as u32);

/// Whether totals of this type are kept in 128-bit integers, otherwise in doubles.
pub(crate) fn is_exact(argument: &DataType) -> bool {
    !matches!(argument, DataType::Float32 | DataType::Float64)
}

/// The type of a total in state.
pub(crate) fn total_type(argument: &DataType) -> DataType {
    match argument {
        DataType::Float32 | DataType::Float64 => DataType::Float64,
        DataType::Decimal128(_, scale) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale),
        _ => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
    }
}

/// A type as SQL writes it.
pub(super) fn sql_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "STRING".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Timestamp(_, None) => "TIMESTAMP".to_owned(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP_LTZ".to_owned(),
        other => other.to_string(),
    }
}

/// Says that a sum does not fit its type, and what to do.
pub(crate) fn overflow(function: Function, argument: &DataType) -> DataFusionError {
    let name = function.name().to_uppercase();
    let mend = match argument {
        DataType::Decimal128(..) => "the total has more than 38 digits; CAST the column to DOUBLE",
        _ => "CAST the column to DECIMAL(38, 0)",
    };
    DataFusionError::Execution(format!("{name}({}) overflowed; {mend}", sql_name(argument)))
}

/// How totals of one kind are added, kept and finished.
pub(crate) trait Total: Copy + Default + Send + Sync + 'static {
    /// Adds; false if the sum does not fit.
    fn add(&mut self, other: Self) -> bool;

    /// What adding takes it away.
    fn negated(self) -> Self;

    /// Totals as a state column.
    fn into_state(totals: Vec<Option<Self>>, argument: &DataType) -> Result<ArrayRef>;

    /// A state column as totals.
    fn from_state(column: &ArrayRef) -> Result<(&[Self], Option<&arrow::buffer::NullBuffer>)>;

    /// (total, count) of each group as results; none where there was no value.
    fn finish(function: Function, argument: &DataType, groups: &[Option<(Self, i64)>]) -> Result<ArrayRef>;
}

impl Total for i128 {
    #[inline]
    fn add(&mut self, other: Self) -> bool {
        let (sum, overflowed) = self.overflowing_add(other);
        *self = sum;
        !overflowed
    }

    fn negated(self) -> Self {
        self.wrapping_neg()
    }

    fn into_state(totals: Vec<Option<Self>>, argument: &DataType) -> Result<ArrayRef> {
        Ok(Arc::new(Decimal128Array::from(totals).with_data_type(total_type(argument))))
    }

    fn from_state(column: &ArrayRef) -> Result<(&[Self], Option<&arrow::buffer::NullBuffer>)> {
        state_values::<arrow::datatypes::Decimal128Type>(column)
    }

    fn finish(function: Function, argument: &DataType, groups: &[Option<(Self, i64)>]) -> Result<ArrayRef> {
        match argument {
            DataType::Int8 => integers::<Int8Type>(function, argument, groups),
            DataType::Int16 => integers::<Int16Type>(function, argument, groups),
            DataType::Int32 => integers::<Int32Type>(function, argument, groups),
            DataType::Int64 => integers::<Int64Type>(function, argument, groups),
            DataType::Decimal128(_, scale) => decimals(function, argument, *scale, groups),
            other => internal_err!("no exact total of {other}"),
        }
    }
}

impl Total for f64 {
    #[inline]
    fn add(&mut self, other: Self) -> bool {
        *self += other;
        true
    }

    fn negated(self) -> Self {
        -self
    }

    fn into_state(totals: Vec<Option<Self>>, _argument: &DataType) -> Result<ArrayRef> {
        Ok(Arc::new(Float64Array::from(totals)))
    }

    fn from_state(column: &ArrayRef) -> Result<(&[Self], Option<&arrow::buffer::NullBuffer>)> {
        state_values::<arrow::datatypes::Float64Type>(column)
    }

    fn finish(function: Function, argument: &DataType, groups: &[Option<(Self, i64)>]) -> Result<ArrayRef> {
        let results = groups.iter().map(|group| {
            group.map(|(total, count)| match function {
                Function::Sum => total,
                Function::Avg => total / count as f64,
            })
        });
        Ok(match argument {
            DataType::Float32 => {
                Arc::new(results.map(|result| result.map(|value| value as f32)).collect::<Float32Array>())
            }
            _ => Arc::new(results.collect::<Float64Array>()),
        })
    }
}

fn state_values<T: ArrowPrimitiveType>(
    column: &ArrayRef,
) -> Result<(&[T::Native], Option<&arrow::buffer::NullBuffer>)> {
    use arrow::array::{Array, AsArray};
    match column.as_primitive_opt::<T>() {
        Some(array) => Ok((array.values(), array.nulls())),
        None => exec_err!("a stored total has the type {}", column.data_type()),
    }
}

fn integers<T: ArrowPrimitiveType>(
    function: Function,
    argument: &DataType,
    groups: &[Option<(i128, i64)>],
) -> Result<ArrayRef>
where
    T::Native: TryFrom<i128>,
{
    let finish = |group: &Option<(i128, i64)>| {
        let Some((total, count)) = *group else { return Ok(None) };
        let result = match function {
            Function::Sum => total,
            // Rust's division truncates towards zero, as Flink's does.
            Function::Avg => total / i128::from(count.max(1)),
        };
        T::Native::try_from(result).map(Some).map_err(|_| overflow(function, argument))
    };
    let results = groups.iter().map(finish).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(results.into_iter().collect::<PrimitiveArray<T>>()))
}

fn decimals(function: Function, argument: &DataType, scale: i8, groups: &[Option<(i128, i64)>]) -> Result<ArrayRef> {
    let result_type = function.result_type(argument);
    let DataType::Decimal128(_, result_scale) = result_type else {
        return internal_err!("a decimal result of type {result_type}");
    };
    let factor = 10i128.pow(u32::try_from(result_scale - scale).unwrap_or(0));
    let finish = |group: &Option<(i128, i64)>| {
        let Some((total, count)) = *group else { return Ok(None) };
        let result = match function {
            Function::Sum => Some(total),
            Function::Avg => divide_half_up(total, i128::from(count.max(1)), factor),
        };
        let fits = result.filter(|result| result.abs() < DECIMAL_LIMIT);
        fits.map(Some).ok_or_else(|| overflow(function, argument))
    };
    let results = groups.iter().map(finish).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(Decimal128Array::from(results).with_data_type(result_type)))
}

/// `total × factor ÷ count`, rounded half away from zero. The remainder is less than 2⁶³, so its product fits.
fn divide_half_up(total: i128, count: i128, factor: i128) -> Option<i128> {
    let (whole, rest) = (total / count, total % count);
    let scaled = rest * factor;
    let (part, left) = (scaled / count, scaled % count);
    let carry = if left.abs() * 2 >= count { left.signum() } else { 0 };
    whole.checked_mul(factor)?.checked_add(part + carry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_rounds_half_away_from_zero() {
        assert_eq!(divide_half_up(1, 3, 1_000_000), Some(333_333));
        assert_eq!(divide_half_up(2, 3, 1_000_000), Some(666_667));
        assert_eq!(divide_half_up(5, 2, 1), Some(3));
        assert_eq!(divide_half_up(-5, 2, 1), Some(-3));
        assert_eq!(divide_half_up(-4, 3, 1), Some(-1));
        assert_eq!(divide_half_up(i128::MAX, 1, 10), None);
    }

    #[test]
    fn an_overflow_says_what_to_do() {
        let error = overflow(Function::Sum, &DataType::Int64).to_string();
        assert!(error.contains("SUM(BIGINT) overflowed; CAST the column to DECIMAL(38, 0)"), "{error}");
        let groups = [Some((10i128.pow(38), 1))];
        let error = i128::finish(Function::Sum, &DataType::Decimal128(38, 2), &groups).unwrap_err().to_string();
        assert!(error.contains("SUM(DECIMAL(38, 2)) overflowed; the total has more than 38 digits"), "{error}");
    }
}
