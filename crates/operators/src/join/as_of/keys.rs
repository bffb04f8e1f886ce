//! Join keys as bytes that compare: equal keys are equal bytes, whatever the batch.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int8Array, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, Rows, SortField};
use ruslo_core::error::{Error, Result};

/// Makes bytes of keys.
#[derive(Debug)]
pub(super) struct KeyEncoder(RowConverter);

impl KeyEncoder {
    /// For keys of `types`.
    pub(super) fn new(types: &[DataType]) -> Result<Self> {
        let fields: Vec<SortField> = types.iter().cloned().map(SortField::new).collect();
        if !RowConverter::supports_fields(&fields) {
            return Err(Error::usage("a column of this type cannot be the key of a join"));
        }
        Ok(Self(RowConverter::new(fields)?))
    }

    /// The bytes of `keys`.
    pub(super) fn encode(&self, keys: &[ArrayRef]) -> Result<Rows> {
        let keys: Vec<ArrayRef> = keys.iter().map(canonical).collect();
        Ok(self.0.convert_columns(&keys)?)
    }
}

/// The columns `places` of `rows`; without any, a column that is the same for all.
pub(super) fn keys_of(rows: &RecordBatch, places: &[usize]) -> Vec<ArrayRef> {
    if places.is_empty() {
        return vec![Arc::new(Int8Array::from(vec![0; rows.num_rows()]))];
    }
    places.iter().filter_map(|place| rows.columns().get(*place)).cloned().collect()
}

/// Which of `keys` can be equal to another: none of their columns is NULL; `None` if all can.
pub(super) fn comparable(keys: &[ArrayRef]) -> Option<NullBuffer> {
    keys.iter().fold(None, |known, key| NullBuffer::union(known.as_ref(), key.logical_nulls().as_ref()))
}

/// Zeros of either sign are one key, and so are all that are no number.
fn canonical(key: &ArrayRef) -> ArrayRef {
    match key.data_type() {
        DataType::Float32 => {
            let one = |value: f32| {
                if value == 0.0 {
                    0.0
                } else if value.is_nan() {
                    f32::NAN
                } else {
                    value
                }
            };
            let made: PrimitiveArray<Float32Type> = key.as_primitive::<Float32Type>().unary(one);
            Arc::new(made)
        }
        DataType::Float64 => {
            let one = |value: f64| {
                if value == 0.0 {
                    0.0
                } else if value.is_nan() {
                    f64::NAN
                } else {
                    value
                }
            };
            let made: PrimitiveArray<Float64Type> = key.as_primitive::<Float64Type>().unary(one);
            Arc::new(made)
        }
        _ => Arc::clone(key),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Float64Array;

    use super::*;

    #[test]
    fn zeros_of_either_sign_are_one_key() {
        let encoder = KeyEncoder::new(&[DataType::Float64]).unwrap();
        let keys: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN, 1.0]));
        let rows = encoder.encode(&[keys]).unwrap();
        assert_eq!(rows.row(0), rows.row(1));
        assert_eq!(rows.row(2), rows.row(3));
        assert_ne!(rows.row(0), rows.row(4));
    }
}
