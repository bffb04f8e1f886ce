//! Which rows of a batch their computed columns or the watermark fail on.
//!
//! A batch is evaluated whole. Only if that fails on a value is it halved, and halved again, until each bad row stands
//! alone; then the good rows are evaluated together once more, as if the bad ones had never been there. So what a
//! source gives out does not depend on how its rows are cut into batches.

use std::ops::Range;

use crate::dead_letter::{Origins, Record, Rejected};
use crate::error::{Error, ErrorKind, Result};
use crate::source::{Assigned, RowTime, SplitWatermark};
use crate::time::Timestamp;
use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;

/// A row that failed, and why.
pub type BadRow = (usize, Error);

/// The records of rows that failed after they had been read, in the rows' order; without `origins` they are empty.
///
/// # Errors
/// `Internal`, if `origins` has no such row.
pub fn rejected(bad: Vec<BadRow>, origins: Option<&dyn Origins>) -> Result<Vec<Rejected>> {
    if bad.is_empty() {
        return Ok(Vec::new());
    }
    let places: Vec<usize> = bad.iter().map(|(place, _)| *place).collect();
    let records = match origins {
        Some(origins) => origins.records(&places)?,
        None => vec![Record::default(); places.len()],
    };
    let rejected = bad.into_iter().zip(records);
    Ok(rejected.map(|((_, error), record)| Rejected { record, reason: error.to_string() }).collect())
}

/// Makes the table's rows of `batch` without those that fail, which come back by their places, ascending.
///
/// # Errors
/// Whatever is not the data's fault; `Data`, if a row fails only beside others.
pub fn sift(
    row_time: &dyn RowTime,
    batch: RecordBatch,
    watermark: &mut SplitWatermark,
    wall: Timestamp,
) -> Result<(Assigned, Vec<BadRow>)> {
    let before = *watermark;
    match row_time.assign(batch.clone(), watermark, wall) {
        Ok(assigned) => return Ok((assigned, Vec::new())),
        Err(error) if error.kind() != ErrorKind::Data => return Err(error),
        Err(_) => *watermark = before,
    }
    let mut search = Search { row_time, batch: &batch, before, wall, bad: Vec::new() };
    search.halve(0..batch.num_rows())?;
    let bad = search.bad;
    let mut places = bad.iter().map(|(place, _)| *place).peekable();
    let good = (0..batch.num_rows()).map(|row| Some(places.next_if_eq(&row).is_none()));
    let good = filter_record_batch(&batch, &good.collect::<BooleanArray>())?;
    Ok((row_time.assign(good, watermark, wall)?, bad))
}

struct Search<'a> {
    row_time: &'a dyn RowTime,
    batch: &'a RecordBatch,
    before: SplitWatermark,
    wall: Timestamp,
    bad: Vec<BadRow>,
}

impl Search<'_> {
    /// Finds the bad rows among `rows`, of which there may be none.
    fn halve(&mut self, rows: Range<usize>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let part = self.batch.slice(rows.start, rows.len());
        match self.row_time.assign(part, &mut self.before.clone(), self.wall) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() != ErrorKind::Data => Err(error),
            Err(error) if rows.len() == 1 => {
                self.bad.push((rows.start, error));
                Ok(())
            }
            Err(_) => {
                let middle = rows.start + rows.len() / 2;
                self.halve(rows.start..middle)?;
                self.halve(middle..rows.end)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::{Int64Type, SchemaRef};

    use super::*;

    /// Fails on negative numbers; the watermark is the largest number.
    struct NoNegatives;

    fn values(batch: &RecordBatch) -> Vec<i64> {
        batch.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    impl RowTime for NoNegatives {
        fn schema(&self) -> SchemaRef {
            batch(&[]).schema()
        }

        fn assign(&self, batch: RecordBatch, watermark: &mut SplitWatermark, _: Timestamp) -> Result<Assigned> {
            for value in values(&batch) {
                if value == i64::MIN {
                    return Err(Error::internal("broken"));
                }
                if value < 0 {
                    return Err(Error::data(format!("{value} is negative")));
                }
                watermark.0 = watermark.0.max(Timestamp(value));
            }
            Ok(Assigned { batch, ahead_rows: 0 })
        }
    }

    fn batch(values: &[i64]) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("v", column)]).unwrap()
    }

    #[test]
    fn bad_rows_are_found_wherever_they_stand_and_the_others_stay_in_order() {
        for mask in 0..64u32 {
            let rows: Vec<i64> = (0..6).map(|row| if mask & (1 << row) > 0 { -row - 1 } else { row + 1 }).collect();
            let mut watermark = SplitWatermark(Timestamp(3));
            let (good, bad) = sift(&NoNegatives, batch(&rows), &mut watermark, Timestamp(0)).unwrap();
            let expected: Vec<i64> = rows.iter().copied().filter(|value| *value > 0).collect();
            assert_eq!(values(&good.batch), expected);
            assert_eq!(watermark.0.0, expected.last().copied().unwrap_or(3).max(3));
            let places: Vec<usize> = (0..6).filter(|row| mask & (1 << row) > 0).collect();
            assert_eq!(bad.iter().map(|(place, _)| *place).collect::<Vec<_>>(), places);
            assert!(bad.iter().all(|(place, error)| error.to_string() == format!("{} is negative", rows[*place])));
        }
    }

    #[test]
    fn what_is_not_the_datas_fault_is_an_error() {
        let mut watermark = SplitWatermark::START;
        let error = sift(&NoNegatives, batch(&[1, -1, i64::MIN]), &mut watermark, Timestamp(0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
