//! Event time as the engine counts it: a TIMESTAMP column of any unit, floored to milliseconds.

use arrow::array::{Array, AsArray};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{
    DataType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use ruslo_core::error::{Error, Result};

/// The column in milliseconds, rounded towards the past; a NULL's value is unspecified. Milliseconds are not copied.
///
/// # Errors
/// `Data`, if seconds are too many for milliseconds; `Internal`, if the column is no TIMESTAMP.
pub(crate) fn millis(column: &dyn Array) -> Result<ScalarBuffer<i64>> {
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => seconds_to_millis(column),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            Ok(column.as_primitive::<TimestampMillisecondType>().values().clone())
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Ok(floor(column.as_primitive::<TimestampMicrosecondType>().values(), 1_000))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            Ok(floor(column.as_primitive::<TimestampNanosecondType>().values(), 1_000_000))
        }
        other => Err(Error::internal(format!("event time of type {other} is not a TIMESTAMP"))),
    }
}

/// As [`millis`], with `instead` where the column is NULL.
pub(crate) fn millis_or(column: &dyn Array, instead: i64) -> Result<ScalarBuffer<i64>> {
    let values = millis(column)?;
    match column.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => Ok(values),
        Some(nulls) => {
            let pairs = values.iter().zip(nulls.iter());
            Ok(pairs.map(|(value, valid)| if valid { *value } else { instead }).collect())
        }
    }
}

fn floor(values: &[i64], units_per_milli: i64) -> ScalarBuffer<i64> {
    values.iter().map(|value| value.div_euclid(units_per_milli)).collect()
}

fn seconds_to_millis(column: &dyn Array) -> Result<ScalarBuffer<i64>> {
    let seconds = column.as_primitive::<TimestampSecondType>();
    let to_millis = |second: Option<i64>| match second {
        None => Ok(0),
        Some(second) => second.checked_mul(1_000).ok_or_else(|| {
            Error::data(format!("the timestamp {second} s is too far from 1970 to be counted in milliseconds"))
        }),
    };
    Ok(seconds.iter().map(to_millis).collect::<Result<Vec<_>>>()?.into())
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        Int64Array, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
        TimestampSecondArray,
    };
    use ruslo_core::error::ErrorKind;

    use super::*;

    #[test]
    fn every_unit_is_floored_towards_the_past() {
        assert_eq!(&millis(&TimestampSecondArray::from(vec![-1, 2])).unwrap()[..], &[-1000, 2000]);
        assert_eq!(&millis(&TimestampMillisecondArray::from(vec![-1, 2])).unwrap()[..], &[-1, 2]);
        assert_eq!(&millis(&TimestampMicrosecondArray::from(vec![-1, 1999])).unwrap()[..], &[-1, 1]);
        assert_eq!(&millis(&TimestampNanosecondArray::from(vec![i64::MIN, 999_999])).unwrap()[1..], &[0]);
    }

    #[test]
    fn a_null_becomes_what_was_asked_for() {
        let times = TimestampMillisecondArray::from(vec![Some(5), None]);
        assert_eq!(&millis_or(&times, i64::MIN).unwrap()[..], &[5, i64::MIN]);
    }

    #[test]
    fn seconds_that_overflow_are_an_error_and_nulls_are_not() {
        let error = millis(&TimestampSecondArray::from(vec![i64::MAX])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(millis(&TimestampSecondArray::from(vec![None, Some(1)])).is_ok());
        assert_eq!(millis(&Int64Array::from(vec![1])).unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn milliseconds_are_shared() {
        let times = TimestampMillisecondArray::from(vec![1, 2]);
        assert!(millis(&times).unwrap().ptr_eq(times.values()));
    }
}
