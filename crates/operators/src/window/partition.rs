//! Which rows of a batch belong to which window, and which come too late for it.

use std::collections::HashMap;

use arrow::array::{Array, BooleanArray, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::schema::{split_watermarks, visible};

use super::{TumblingWindow, Window};
use crate::event_time::millis;

/// A batch's rows by window, in the order of each window's first row; without the hidden column.
#[derive(Debug, Default)]
pub(super) struct Partition {
    /// The window's end, and its rows.
    pub(super) slices: Vec<(i64, RecordBatch)>,
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

/// Sorts the rows of `batch` into windows.
///
/// # Errors
/// `Data`, if a time is NULL or too far from 1970.
pub(super) fn partition(batch: &RecordBatch, time_index: usize, windows: TumblingWindow) -> Result<Partition> {
    let times = time_column(batch, time_index)?;
    let watermarks = split_watermarks(batch).map(|watermarks| watermarks.values().clone());
    let rows = visible(batch);
    let (Some(first), Some(last)) = (times.iter().min(), times.iter().max()) else {
        return Ok(Partition::default());
    };
    let window = windows.of(*first)?;
    match watermarks {
        None if window.holds(*last) => Ok(Partition { slices: vec![(window.end, rows)], late_rows: 0 }),
        Some(watermarks) if window.holds(*last) => one_window(&rows, window, &watermarks),
        watermarks => many_windows(&rows, &times, windows, watermarks.as_deref()),
    }
}

/// The window is complete once the watermark has reached its last millisecond.
fn is_late(window: Window, watermark: i64) -> bool {
    window.end - 1 <= watermark
}

fn one_window(rows: &RecordBatch, window: Window, watermarks: &[i64]) -> Result<Partition> {
    let late_rows = watermarks.iter().filter(|watermark| is_late(window, **watermark)).count();
    let kept = match late_rows {
        0 => rows.clone(),
        all if all == rows.num_rows() => return Ok(Partition { slices: Vec::new(), late_rows }),
        _ => {
            let keep: BooleanArray = watermarks.iter().map(|watermark| Some(!is_late(window, *watermark))).collect();
            filter_record_batch(rows, &keep)?
        }
    };
    Ok(Partition { slices: vec![(window.end, kept)], late_rows })
}

fn many_windows(
    rows: &RecordBatch,
    times: &[i64],
    windows: TumblingWindow,
    watermarks: Option<&[i64]>,
) -> Result<Partition> {
    let mut sorter = Sorter::new(windows);
    match watermarks {
        None => times.iter().try_for_each(|time| sorter.add(*time, i64::MIN))?,
        Some(marks) => times.iter().zip(marks).try_for_each(|(time, mark)| sorter.add(*time, *mark))?,
    }
    let taken =
        sorter.slots.into_iter().map(|(end, indices)| Ok((end, take_record_batch(rows, &UInt32Array::from(indices))?)));
    Ok(Partition { slices: taken.collect::<Result<_>>()?, late_rows: sorter.late_rows })
}

/// Gives each row to its window; neighbours mostly share one, so the last window is tried first.
struct Sorter {
    windows: TumblingWindow,
    last: Window,
    last_slot: usize,
    slot_of: HashMap<i64, usize>,
    slots: Vec<(i64, Vec<u32>)>,
    row: u32,
    late_rows: usize,
}

impl Sorter {
    fn new(windows: TumblingWindow) -> Self {
        Self {
            windows,
            last: Window { start: 0, end: 0 },
            last_slot: usize::MAX,
            slot_of: HashMap::new(),
            slots: Vec::new(),
            row: 0,
            late_rows: 0,
        }
    }

    fn add(&mut self, time: i64, watermark: i64) -> Result<()> {
        if !self.last.holds(time) {
            self.last = self.windows.of(time)?;
            self.last_slot = self.slot_of.get(&self.last.end).copied().unwrap_or(usize::MAX);
        }
        if is_late(self.last, watermark) {
            self.late_rows += 1;
        } else {
            self.push();
        }
        self.row += 1;
        Ok(())
    }

    fn push(&mut self) {
        match self.slots.get_mut(self.last_slot) {
            Some((_, indices)) => indices.push(self.row),
            None => {
                self.last_slot = self.slots.len();
                self.slot_of.insert(self.last.end, self.last_slot);
                self.slots.push((self.last.end, vec![self.row]));
            }
        }
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
        partition.slices.iter().map(|(end, batch)| (*end, rows(batch))).collect()
    }

    #[test]
    fn a_batch_in_one_window_is_not_copied() {
        let input = batch(&[5, 3, 9]);
        let found = partition(&input, 0, TumblingWindow::new(10, 0).unwrap()).unwrap();
        assert_eq!(found.slices[0].0, 10);
        assert!(found.slices[0].1.column(1).to_data().ptr_eq(&input.column(1).to_data()));
    }

    #[test]
    fn rows_keep_their_order_within_a_window() {
        let found = partition(&batch(&[12, 3, -1, 14, 5, 12]), 0, TumblingWindow::new(10, 0).unwrap()).unwrap();
        assert_eq!(found.slices.iter().map(|(end, _)| *end).collect::<Vec<_>>(), vec![20, 10, 0]);
        assert_eq!(rows_of(&found), BTreeMap::from([(20, vec![0, 3, 5]), (10, vec![1, 4]), (0, vec![2])]));
    }

    #[test]
    fn the_last_millisecond_of_a_window_decides() {
        for (watermark, late_rows) in [(8, 0), (9, 1)] {
            for times in [&[5][..], &[5, 100][..]] {
                let marks = Int64Array::from(vec![watermark; times.len()]);
                let input = with_split_watermarks(&batch(times), marks).unwrap();
                let found = partition(&input, 0, TumblingWindow::new(10, 0).unwrap()).unwrap();
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
            let found = partition(&input, 0, TumblingWindow::new(size, offset).unwrap()).unwrap();
            assert_eq!(rows_of(&found), expected);
            assert_eq!(found.late_rows, rows - expected.values().map(Vec::len).sum::<usize>());
        }
    }

    #[test]
    fn times_at_the_ends_of_time_are_an_error_wherever_they_stand() {
        for times in [[i64::MAX, 0], [0, i64::MAX], [i64::MIN, 0], [0, i64::MIN]] {
            let error = partition(&batch(&times), 0, TumblingWindow::new(1000, 0).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Data);
        }
    }

    #[test]
    fn an_empty_batch_has_no_slices() {
        let found = partition(&batch(&[]), 0, TumblingWindow::new(10, 0).unwrap()).unwrap();
        assert!(found.slices.is_empty());
    }
}
