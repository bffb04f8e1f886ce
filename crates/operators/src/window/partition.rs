//! Which rows of a batch belong to which slice, and which come too late for some or all of its windows.

use std::collections::HashMap;

use arrow::array::{Array, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::schema::{split_watermarks, visible};

use super::clock::WindowClock;
use super::shape::{Slice, WindowShape, is_complete};
use crate::event_time::millis;

/// The rows of one slice that count for the same windows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct SliceKey {
    /// The slice's end.
    pub(super) end: i64,
    /// The end of the first window that they count for; those before it were complete when the rows came.
    pub(super) from: i64,
}

/// A batch's rows by slice, in the order of each slice's first row; without the hidden column.
#[derive(Debug, Default)]
pub(super) struct Partition {
    pub(super) slices: Vec<(SliceKey, RecordBatch)>,
    /// How many rows came late, and are in no slice.
    pub(super) late_rows: usize,
}

/// The event times of a batch in milliseconds.
///
/// # Errors
/// `Data`, if one is NULL.
pub(super) fn time_column(batch: &RecordBatch, index: usize) -> Result<ScalarBuffer<i64>> {
    let column = batch
        .columns()
        .get(index)
        .ok_or_else(|| Error::internal(format!("the window's time column {index} is not in the batch")))?;
    if column.null_count() > 0 {
        let name = batch.schema_ref().fields().get(index).map_or("", |field| field.name());
        return Err(Error::data(format!(
            "the time column '{name}' is NULL; filter such rows with WHERE {name} IS NOT NULL before the window"
        )));
    }
    millis(column)
}

/// The same as `clock` shows them.
///
/// # Errors
/// `Data`, if one is NULL.
pub(super) fn local_times(batch: &RecordBatch, index: usize, clock: WindowClock) -> Result<ScalarBuffer<i64>> {
    let times = time_column(batch, index)?;
    Ok(match batch.columns().get(index) {
        Some(column) => clock.local_times(times, column.data_type()),
        None => times,
    })
}

/// Sorts the rows of `batch` into slices.
///
/// # Errors
/// `Data`, if a time is NULL or too far from 1970.
pub(super) fn partition(batch: &RecordBatch, time_index: usize, shape: WindowShape) -> Result<Partition> {
    let clock = shape.clock();
    let times = local_times(batch, time_index, clock)?;
    let watermarks = split_watermarks(batch).map(|watermarks| clock.watermarks(watermarks.values().clone()));
    let rows = visible(batch);
    let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else {
        return Ok(Partition::default());
    };
    let slice = shape.slice_of(*first)?;
    if slice.holds(*last) && !watermarks.as_ref().is_some_and(|marks| reaches(marks, slice.end)) {
        let key = SliceKey { end: slice.end, from: slice.end };
        return Ok(Partition { slices: vec![(key, rows)], late_rows: 0 });
    }
    let mut sorter = Sorter::new(shape);
    match watermarks {
        None => times.iter().try_for_each(|time| sorter.add(*time, i64::MIN))?,
        Some(marks) => times.iter().zip(&marks).try_for_each(|(time, mark)| sorter.add(*time, *mark))?,
    }
    sorter.finish(&rows)
}

/// Whether some watermark completes the window that ends at `end`.
fn reaches(watermarks: &[i64], end: i64) -> bool {
    watermarks.iter().any(|watermark| is_complete(end, *watermark))
}

/// Gives each row to its slice; neighbours mostly share one, so the last slice is tried first.
struct Sorter {
    shape: WindowShape,
    last: Slice,
    last_key: SliceKey,
    last_slot: usize,
    slot_of: HashMap<SliceKey, usize>,
    slots: Vec<(SliceKey, Vec<u32>)>,
    row: u32,
    late_rows: usize,
}

impl Sorter {
    fn new(shape: WindowShape) -> Self {
        Self {
            shape,
            last: Slice { start: 0, end: 0 },
            last_key: SliceKey { end: 0, from: 0 },
            last_slot: usize::MAX,
            slot_of: HashMap::new(),
            slots: Vec::new(),
            row: 0,
            late_rows: 0,
        }
    }

    fn add(&mut self, time: i64, watermark: i64) -> Result<()> {
        if !self.last.holds(time) {
            self.last = self.shape.slice_of(time)?;
        }
        match self.shape.first_open_end(self.last.end, watermark) {
            Some(from) => self.push(SliceKey { end: self.last.end, from }),
            None => self.late_rows += 1,
        }
        self.row += 1;
        Ok(())
    }

    fn push(&mut self, key: SliceKey) {
        if self.last_key != key || self.last_slot == usize::MAX {
            self.last_key = key;
            self.last_slot = *self.slot_of.entry(key).or_insert_with(|| {
                self.slots.push((key, Vec::new()));
                self.slots.len() - 1
            });
        }
        if let Some((_, indices)) = self.slots.get_mut(self.last_slot) {
            indices.push(self.row);
        }
    }

    fn finish(self, rows: &RecordBatch) -> Result<Partition> {
        let all = rows.num_rows();
        let take = |indices: Vec<u32>| match indices.len() == all {
            true => Ok(rows.clone()),
            false => take_record_batch(rows, &UInt32Array::from(indices)),
        };
        let slices = self.slots.into_iter().map(|(key, indices)| Ok((key, take(indices)?)));
        Ok(Partition { slices: slices.collect::<Result<_>>()?, late_rows: self.late_rows })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, TimestampMillisecondArray};
    use arrow::datatypes::Int64Type;
    use ruslo_core::error::ErrorKind;
    use ruslo_core::rng::Rng;
    use ruslo_core::schema::with_split_watermarks;

    use super::*;

    fn batch(times: &[i64]) -> RecordBatch {
        let rows = (0..times.len() as i64).collect::<Vec<_>>();
        RecordBatch::try_from_iter([
            ("ts", Arc::new(TimestampMillisecondArray::from(times.to_vec())) as ArrayRef),
            ("row", Arc::new(Int64Array::from(rows)) as ArrayRef),
        ])
        .unwrap()
    }

    fn rows_of(partition: &Partition) -> BTreeMap<i64, Vec<i64>> {
        let rows = |batch: &RecordBatch| batch.column(1).as_primitive::<Int64Type>().values().to_vec();
        partition.slices.iter().map(|(key, batch)| (key.end, rows(batch))).collect()
    }

    #[test]
    fn a_batch_in_one_window_is_not_copied() {
        let input = batch(&[5, 3, 9]);
        let found = partition(&input, 0, WindowShape::tumble(10, 0).unwrap()).unwrap();
        assert_eq!(found.slices[0].0, SliceKey { end: 10, from: 10 });
        assert!(found.slices[0].1.column(1).to_data().ptr_eq(&input.column(1).to_data()));
    }

    #[test]
    fn rows_keep_their_order_within_a_window() {
        let found = partition(&batch(&[12, 3, -1, 14, 5, 12]), 0, WindowShape::tumble(10, 0).unwrap()).unwrap();
        assert_eq!(found.slices.iter().map(|(key, _)| key.end).collect::<Vec<_>>(), vec![20, 10, 0]);
        assert_eq!(rows_of(&found), BTreeMap::from([(20, vec![0, 3, 5]), (10, vec![1, 4]), (0, vec![2])]));
    }

    #[test]
    fn the_last_millisecond_of_a_window_decides() {
        for (watermark, late_rows) in [(8, 0), (9, 1)] {
            for times in [&[5][..], &[5, 100][..]] {
                let marks = Int64Array::from(vec![watermark; times.len()]);
                let input = with_split_watermarks(&batch(times), marks).unwrap();
                let found = partition(&input, 0, WindowShape::tumble(10, 0).unwrap()).unwrap();
                assert_eq!(found.late_rows, late_rows, "watermark {watermark}");
            }
        }
    }

    #[test]
    fn agrees_with_the_naive_way_on_random_rows() {
        let mut rng = Rng::seeded(7);
        for _ in 0..200 {
            let rows = 1 + rng.below(40);
            let times: Vec<i64> = (0..rows).map(|_| rng.below(60) as i64 - 30).collect();
            let marks: Vec<i64> = (0..rows).map(|_| rng.below(60) as i64 - 40).collect();
            let (size, offset) = (1 + rng.below(50) as i64, rng.below(20) as i64 - 10);
            let mut expected = BTreeMap::<i64, Vec<i64>>::new();
            for (row, (time, mark)) in times.iter().zip(&marks).enumerate() {
                let end = time - (time - offset).rem_euclid(size) + size;
                if end - 1 > *mark {
                    expected.entry(end).or_default().push(row as i64);
                }
            }
            let input = with_split_watermarks(&batch(&times), Int64Array::from(marks)).unwrap();
            let found = partition(&input, 0, WindowShape::tumble(size, offset).unwrap()).unwrap();
            assert_eq!(rows_of(&found), expected);
            assert_eq!(found.late_rows, rows - expected.values().map(Vec::len).sum::<usize>());
        }
    }

    #[test]
    fn rows_of_a_slice_part_by_the_first_window_that_they_count_for() {
        let hop = WindowShape::hop(10, 30, 0).unwrap();
        let times = [5, 6, 7, 8, 9, 5];
        let marks = Int64Array::from(vec![8, 9, 18, 19, 28, 29]);
        let input = with_split_watermarks(&batch(&times), marks).unwrap();
        let found = partition(&input, 0, hop).unwrap();
        let rows = |batch: &RecordBatch| batch.column(1).as_primitive::<Int64Type>().values().to_vec();
        let slices: Vec<_> = found.slices.iter().map(|(key, batch)| (key.end, key.from, rows(batch))).collect();
        assert_eq!(slices, [(10, 10, vec![0]), (10, 20, vec![1, 2]), (10, 30, vec![3, 4])]);
        assert_eq!(found.late_rows, 1);
    }

    #[test]
    fn times_at_the_ends_of_time_are_an_error_wherever_they_stand() {
        for times in [[i64::MAX, 0], [0, i64::MAX], [i64::MIN, 0], [0, i64::MIN]] {
            let error = partition(&batch(&times), 0, WindowShape::tumble(1000, 0).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
        }
    }

    #[test]
    fn an_empty_batch_has_no_slices() {
        let found = partition(&batch(&[]), 0, WindowShape::tumble(10, 0).unwrap()).unwrap();
        assert!(found.slices.is_empty());
    }
}
