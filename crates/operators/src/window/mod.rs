//! Windows: pieces of event time, and the operators that work by them.
//!
//! A window is `[start, end)` in milliseconds ([`shape`]). It is complete when the watermark has reached `end − 1`; a row
//! is late when its split's watermark had reached that already before the row, for the last window that holds it.

mod assign;
mod clock;
mod fired;
mod firing;
mod groups;
mod local;
mod partial;
mod partition;
mod partly_late;
pub(crate) mod ranking;
mod sealed;
mod session;
mod shape;
mod sliced;
mod spec;
mod top_n;
mod tumble;

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};

pub use assign::WindowAssignSpec;
pub use clock::WindowClock;
pub use groups::AggregateCall;
pub(crate) use groups::plain;
pub use local::LocalAggregateSpec;
pub use session::SessionSpec;
pub use shape::WindowShape;
pub(crate) use shape::is_complete;
pub use spec::WindowAggregateSpec;
pub use top_n::WindowTopNSpec;

/// The column with a window's first millisecond, TIMESTAMP(3).
pub const WINDOW_START: &str = "window_start";
/// The column with the millisecond after a window's last, TIMESTAMP(3).
pub const WINDOW_END: &str = "window_end";
/// The column with a window's last millisecond: the event time of a window's result. TIMESTAMP(3), or TIMESTAMP_LTZ(3)
/// where the rows' time is one.
pub const WINDOW_TIME: &str = "window_time";

/// `input`'s fields and the three columns of a window behind them.
fn with_window_fields(input: &Schema, clock: WindowClock) -> Schema {
    let bound = || DataType::Timestamp(TimeUnit::Millisecond, None);
    let added = [(WINDOW_START, bound()), (WINDOW_END, bound()), (WINDOW_TIME, clock.time_type())];
    let added = added.map(|(name, data_type)| Arc::new(Field::new(name, data_type, false)));
    let fields: Vec<_> = input.fields().iter().cloned().chain(added).collect();
    Schema::new_with_metadata(fields, input.metadata().clone())
}

/// The three columns of a window, for `rows` rows.
fn window_columns(shape: WindowShape, ends: impl Iterator<Item = (i64, usize)>, rows: usize) -> [ArrayRef; 3] {
    let clock = shape.clock();
    let mut columns = [0; 3].map(|_: i32| Vec::with_capacity(rows));
    for (end, count) in ends {
        for (column, value) in columns.iter_mut().zip([shape.window_start(end), end, clock.last_instant(end)]) {
            column.extend(std::iter::repeat_n(value, count));
        }
    }
    let [starts, ends, times] = columns;
    let bound = |column: Vec<i64>| Arc::new(TimestampMillisecondArray::from(column)) as ArrayRef;
    [bound(starts), bound(ends), clock.time_array(times)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_repeat_the_window_for_its_rows() {
        let [start, end, time] = window_columns(WindowShape::tumble(10, 0).unwrap(), [(10, 1), (30, 2)].into_iter(), 3);
        let column = |values: Vec<i64>| Arc::new(TimestampMillisecondArray::from(values)) as ArrayRef;
        let expected = [vec![0, 20, 20], vec![10, 30, 30], vec![9, 29, 29]].map(column);
        assert_eq!([start, end, time], expected);
    }
}
