//! Window table functions as plain columns: a row gets the bounds of its window, and a row in several windows comes once
//! for each.
//!
//! | window | becomes |
//! |---|---|
//! | TUMBLE | a projection: `window_end` from the time, the rest from that |
//!
//! The bounds are computed by functions of our own, which know what a time before 1970, a NULL and a time too far from
//! 1970 mean for a window.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, TimestampMillisecondArray};
use arrow::datatypes::{
    DataType, Field, FieldRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, Projection, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, lit,
};

use crate::nodes::{Tumble, WindowAssign, WindowColumn};

const MILLIS: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

/// The rows of `assign` with their windows.
pub(super) fn lower(assign: &WindowAssign) -> DfResult<LogicalPlan> {
    let end = WindowEnd::new(assign.window).call(Expr::Column(assign.time.clone()));
    let bounds = [end.clone() - millis(assign.window.size_ms), end.clone(), end - millis(1)];
    with_columns(assign, &assign.input, bounds)
}

/// The input's columns, and the window's behind them under the names that `assign` gives them.
fn with_columns(assign: &WindowAssign, input: &LogicalPlan, bounds: [Expr; 3]) -> DfResult<LogicalPlan> {
    let mut exprs: Vec<Expr> = assign.input.schema().columns().into_iter().map(Expr::Column).collect();
    for (column, bound) in WindowColumn::ALL.into_iter().zip(bounds) {
        exprs.push(bound.alias_qualified(assign.time.relation.clone(), column.name()));
    }
    Projection::try_new(exprs, Arc::new(input.clone())).map(LogicalPlan::Projection)
}

fn millis(count: i64) -> Expr {
    lit(ScalarValue::DurationMillisecond(Some(count)))
}

/// The end of the window of size `size_ms` that a time is in, as a TIMESTAMP(3).
#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowEnd {
    size_ms: i64,
    offset_ms: i64,
    signature: Signature,
}

impl WindowEnd {
    fn new(window: Tumble) -> Self {
        let signature = Signature::any(1, Volatility::Immutable);
        Self { size_ms: window.size_ms, offset_ms: window.offset_ms, signature }
    }

    fn call(self, time: Expr) -> Expr {
        ScalarUDF::from(self).call(vec![time])
    }
}

impl ScalarUDFImpl for WindowEnd {
    fn name(&self) -> &str {
        "window_end"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(MILLIS)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), MILLIS, false)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let times = times(&args)?;
        let ends =
            times.iter().map(|time| end_of(*time, self.size_ms, self.offset_ms)).collect::<DfResult<Vec<_>>>()?;
        let ends: ArrayRef = Arc::new(TimestampMillisecondArray::from(ends));
        Ok(ColumnarValue::Array(ends))
    }
}

/// The end of the window `[offset + k × size, offset + (k + 1) × size)` that `time` is in.
fn end_of(time: i64, size_ms: i64, offset_ms: i64) -> DfResult<i64> {
    let wide = i128::from(time) - i128::from(offset_ms);
    let size = i128::from(size_ms);
    let start = wide.div_euclid(size) * size + i128::from(offset_ms);
    match (i64::try_from(start), i64::try_from(start + size)) {
        (Ok(_), Ok(end)) => Ok(end),
        _ => exec_err!("the event time {time} ms is too far from 1970 for a window of {size_ms} ms"),
    }
}

/// The argument in milliseconds, rounded towards the past.
fn times(args: &ScalarFunctionArgs) -> DfResult<Vec<i64>> {
    let column = ColumnarValue::values_to_arrays(&args.args)?;
    let Some(column) = column.first() else { return internal_err!("a window without a time") };
    if column.null_count() > 0 {
        let name = args.arg_fields.first().map(|field| field.name().as_str()).unwrap_or_default();
        let name = name.rsplit('.').next().unwrap_or_default();
        return exec_err!(
            "the time column '{name}' is NULL; filter such rows with WHERE {name} IS NOT NULL before the window"
        );
    }
    let floor = |values: &[i64], per_milli: i64| values.iter().map(|value| value.div_euclid(per_milli)).collect();
    Ok(match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            let seconds = column.as_primitive::<TimestampSecondType>().values().iter();
            seconds.map(|second| second.checked_mul(1_000).ok_or_else(|| too_far(*second))).collect::<DfResult<_>>()?
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            column.as_primitive::<TimestampMillisecondType>().values().to_vec()
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            floor(column.as_primitive::<TimestampMicrosecondType>().values(), 1_000)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            floor(column.as_primitive::<TimestampNanosecondType>().values(), 1_000_000)
        }
        other => return internal_err!("event time of type {other} is not a TIMESTAMP"),
    })
}

fn too_far(second: i64) -> DataFusionError {
    let sentence = format!("the timestamp {second} s is too far from 1970 to be counted in milliseconds");
    DataFusionError::Execution(sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_window_that_begins_at_or_before_it() {
        for (time, size, offset, end) in [(0, 10, 0, 10), (-1, 10, 0, 0), (9, 10, 0, 10), (3, 10, 4, 4), (4, 10, 4, 14)]
        {
            assert_eq!(end_of(time, size, offset).unwrap(), end, "{time} {size} {offset}");
        }
    }

    #[test]
    fn a_time_too_far_from_1970_has_no_window() {
        let error = end_of(i64::MAX, 10, 0).unwrap_err();
        assert!(error.to_string().contains("too far from 1970 for a window of 10 ms"), "{error}");
        assert!(end_of(i64::MIN, 10, 0).is_err());
    }
}
