//! Processing time: columns that say when a row was read, and sources whose watermark follows the clock.
//!
//! A window over such a column needs nothing of its own: the column is event time whose watermark the clock makes.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::source::{Assigned, RowTime, SplitWatermark};
use ruslo_core::time::Timestamp;

/// A [`RowTime`] of which some columns are processing time.
pub struct ProcessingTimeColumns {
    inner: Arc<dyn RowTime>,
    columns: Vec<usize>,
    drives: bool,
}

impl ProcessingTimeColumns {
    /// `inner`, whose columns `columns` (TIMESTAMP(3) or TIMESTAMP_LTZ(3), whatever is in them) say when a row was read.
    /// If they `drive`, the source's watermark follows the clock, and `inner` should have none.
    ///
    /// # Errors
    /// `Internal`, if one is of another type.
    pub fn new(inner: Arc<dyn RowTime>, columns: Vec<usize>, drives: bool) -> Result<Self> {
        let schema = inner.schema();
        for column in &columns {
            match schema.fields().get(*column).map(|field| field.data_type()) {
                Some(DataType::Timestamp(TimeUnit::Millisecond, _)) => {}
                other => return Err(Error::internal(format!("processing time in a column of type {other:?}"))),
            }
        }
        Ok(Self { inner, columns, drives })
    }

    fn stamp(&self, batch: &RecordBatch, now: Timestamp) -> Result<RecordBatch> {
        let schema = batch.schema();
        let mut columns = batch.columns().to_vec();
        for index in &self.columns {
            let (Some(column), Some(field)) = (columns.get_mut(*index), schema.fields().get(*index)) else {
                return Err(Error::internal("a column of processing time is missing"));
            };
            let DataType::Timestamp(_, zone) = field.data_type() else { continue };
            let times = TimestampMillisecondArray::from_value(now.millis(), batch.num_rows());
            *column = Arc::new(times.with_timezone_opt(zone.clone())) as ArrayRef;
        }
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

impl RowTime for ProcessingTimeColumns {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn assign(&self, batch: RecordBatch, watermark: &mut SplitWatermark, wall: Timestamp) -> Result<Assigned> {
        let Assigned { batch, ahead_rows } = self.inner.assign(batch, watermark, wall)?;
        Ok(Assigned { batch: self.stamp(&batch, wall)?, ahead_rows })
    }

    fn is_driven_by_clock(&self) -> bool {
        self.drives
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{Field, Schema, TimestampMillisecondType};

    use super::*;
    use crate::watermark::RowTimeAssigner;

    fn schema() -> SchemaRef {
        let time = DataType::Timestamp(TimeUnit::Millisecond, Some(Arc::from("UTC")));
        Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, false), Field::new("p", time, false)]))
    }

    #[test]
    fn every_row_of_a_batch_says_when_it_was_read() {
        let inner = Arc::new(RowTimeAssigner::new(schema(), None, None).unwrap());
        let times = ProcessingTimeColumns::new(inner, vec![1], true).unwrap();
        let empty = Arc::new(TimestampMillisecondArray::from(vec![0, 0]).with_timezone("UTC")) as ArrayRef;
        let rows = RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(vec![5, 6])), empty]).unwrap();
        let mut watermark = SplitWatermark::START;
        let stamped = times.assign(rows, &mut watermark, Timestamp(77)).unwrap().batch;
        assert_eq!(stamped.column(1).as_primitive::<TimestampMillisecondType>().values(), &[77, 77]);
        assert_eq!((stamped.schema(), watermark), (schema(), SplitWatermark::START));
    }

    #[test]
    fn only_a_timestamp_of_milliseconds_can_be_processing_time() {
        let inner = Arc::new(RowTimeAssigner::new(schema(), None, None).unwrap());
        assert!(ProcessingTimeColumns::new(inner.clone(), vec![0], true).is_err());
        assert!(ProcessingTimeColumns::new(inner, vec![2], true).is_err());
    }
}
