//! Windows: pieces of event time, and the operators that work by them.
//!
//! A window is `[start, end)` in milliseconds. It is complete when the watermark has reached `end − 1`; a row is late
//! when its split's watermark had reached that already before the row.

mod assign;
mod firing;
mod groups;
mod partition;
mod sealed;
mod tumble;

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use ruslo_core::error::{Error, Result};

pub use assign::WindowAssignSpec;
pub use groups::AggregateCall;
pub use tumble::TumbleSpec;

/// The column with a window's first millisecond, TIMESTAMP(3).
pub const WINDOW_START: &str = "window_start";
/// The column with the millisecond after a window's last, TIMESTAMP(3).
pub const WINDOW_END: &str = "window_end";
/// The column with a window's last millisecond, TIMESTAMP(3): the event time of a window's result.
pub const WINDOW_TIME: &str = "window_time";

/// Windows of one size, each beginning where the one before ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TumblingWindow {
    size_ms: i64,
    /// In `0..size_ms`.
    offset_ms: i64,
}

impl TumblingWindow {
    /// Windows of `size_ms` milliseconds, moved by `offset_ms` from where they would begin at 1970-01-01 00:00:00.
    ///
    /// # Errors
    /// `Usage`, if the size is not positive.
    pub fn new(size_ms: i64, offset_ms: i64) -> Result<Self> {
        if size_ms <= 0 {
            return Err(Error::usage(format!("a window's size must be at least 1 millisecond, not {size_ms}")));
        }
        Ok(Self { size_ms, offset_ms: offset_ms.rem_euclid(size_ms) })
    }

    /// Milliseconds from a window's start to its end.
    pub fn size_ms(self) -> i64 {
        self.size_ms
    }

    /// Milliseconds from 1970-01-01 00:00:00 to the first window's start; less than the size.
    pub fn offset_ms(self) -> i64 {
        self.offset_ms
    }

    /// The window that `time` is in.
    ///
    /// # Errors
    /// `Data`, if it begins or ends outside of what a TIMESTAMP can say.
    fn of(self, time: i64) -> Result<Window> {
        // Both remainders are below the size, so that their difference cannot overflow.
        let since_start = (time.rem_euclid(self.size_ms) - self.offset_ms).rem_euclid(self.size_ms);
        let start = time.checked_sub(since_start);
        let window = start.and_then(|start| Some(Window { start, end: start.checked_add(self.size_ms)? }));
        window.ok_or_else(|| {
            Error::data(format!("the event time {time} ms is too far from 1970 for a window of {} ms", self.size_ms))
        })
    }
}

/// `[start, end)` in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    start: i64,
    end: i64,
}

impl Window {
    fn holds(self, time: i64) -> bool {
        self.start <= time && time < self.end
    }
}

/// `input`'s fields and the three columns of a window behind them.
fn with_window_fields(input: &Schema) -> Schema {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let names = [WINDOW_START, WINDOW_END, WINDOW_TIME];
    let added = names.map(|name| Arc::new(Field::new(name, time.clone(), false)));
    let fields: Vec<_> = input.fields().iter().cloned().chain(added).collect();
    Schema::new_with_metadata(fields, input.metadata().clone())
}

/// The three columns of a window, for `rows` rows.
fn window_columns(size_ms: i64, ends: impl Iterator<Item = (i64, usize)>, rows: usize) -> [ArrayRef; 3] {
    let mut columns = [0; 3].map(|_: i32| Vec::with_capacity(rows));
    for (end, count) in ends {
        for (column, before_end) in columns.iter_mut().zip([size_ms, 0, 1]) {
            column.extend(std::iter::repeat_n(end.saturating_sub(before_end), count));
        }
    }
    columns.map(|column| Arc::new(TimestampMillisecondArray::from(column)) as ArrayRef)
}

#[cfg(test)]
mod tests {
    use ruslo_core::error::ErrorKind;

    use super::*;

    #[test]
    fn a_window_holds_its_times_before_and_after_1970_with_any_offset() {
        for (size, offset) in [(1, 0), (10, 0), (10, 3), (10, -3), (7, 100), (i64::MAX, 0)] {
            let windows = TumblingWindow::new(size, offset).unwrap();
            for time in -50..50 {
                let window = windows.of(time).unwrap();
                assert!(window.holds(time), "{time} in {window:?}");
                assert_eq!(window.end - window.start, size);
                assert_eq!((window.start - windows.offset_ms()).rem_euclid(size), 0);
            }
        }
    }

    #[test]
    fn windows_align_as_flinks_do() {
        // Flink: timestamp - (timestamp - offset + size) % size, corrected for negative remainders.
        let hour = TumblingWindow::new(3_600_000, 0).unwrap();
        assert_eq!(hour.of(-1).unwrap(), Window { start: -3_600_000, end: 0 });
        assert_eq!(hour.of(0).unwrap(), Window { start: 0, end: 3_600_000 });
        let day_in_china = TumblingWindow::new(86_400_000, -8 * 3_600_000).unwrap();
        assert_eq!(day_in_china.of(0).unwrap().start, -8 * 3_600_000);
    }

    #[test]
    fn times_at_the_ends_of_time_are_the_datas_fault() {
        let windows = TumblingWindow::new(1000, 0).unwrap();
        assert_eq!(windows.of(i64::MAX).unwrap_err().kind(), ErrorKind::Data);
        assert_eq!(windows.of(i64::MIN).unwrap_err().kind(), ErrorKind::Data);
        assert_eq!(TumblingWindow::new(0, 0).unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn columns_repeat_the_window_for_its_rows() {
        let [start, end, time] = window_columns(10, [(10, 1), (30, 2)].into_iter(), 3);
        let column = |values: Vec<i64>| Arc::new(TimestampMillisecondArray::from(values)) as ArrayRef;
        let expected = [vec![0, 20, 20], vec![10, 30, 30], vec![9, 29, 29]].map(column);
        assert_eq!([start, end, time], expected);
    }
}
