//! The shapes of windows whose bounds follow from the time alone: TUMBLE, HOP, CUMULATE.
//!
//! Time is cut into *slices* of equal length; a window is a run of neighbouring slices, and ends where one of them
//! ends. So a slice is in the windows that end at its own end and at the next few ends behind it:
//!
//! ```text
//! slices                 |--a--|--b--|--c--|--d--|
//! TUMBLE, size 1         |--a--|--b--|--c--|--d--|
//! HOP, slide 1, size 2   a b       b c      c d           two windows a slice
//! CUMULATE, step 1, max 2   a, a b       c, c d           up to two windows a slice
//! ```

use chrono_tz::Tz;
use ruslo_core::error::{Error, Result};

use super::clock::WindowClock;

/// How many windows a row may be in where each of them becomes a row of its own.
pub(super) const WINDOWS_OF_A_ROW_MAX: i64 = 10_000;

/// Which windows there are; cheap to copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowShape {
    kind: Kind,
    /// From one end of a window to the next.
    slice_ms: i64,
    /// From the start of a (longest) window to its end; a multiple of the slice.
    size_ms: i64,
    /// In `0..size_ms`.
    offset_ms: i64,
    /// Whether each row has one of its windows already: see [`WindowShape::attached`].
    is_attached: bool,
    /// What its bounds mean.
    clock: WindowClock,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tumble,
    Hop,
    Cumulate,
}

impl WindowShape {
    /// Windows of `size_ms` milliseconds, each beginning where the one before ends, moved by `offset_ms` from where
    /// they would begin at 1970-01-01 00:00:00.
    ///
    /// # Errors
    /// `Usage`, if the size is not positive.
    pub fn tumble(size_ms: i64, offset_ms: i64) -> Result<Self> {
        Self::new(Kind::Tumble, size_ms, size_ms, offset_ms)
    }

    /// Windows of `size_ms` milliseconds, one every `slide_ms`.
    ///
    /// # Errors
    /// `Usage`, if a length is not positive or the size is not a multiple of the slide.
    pub fn hop(slide_ms: i64, size_ms: i64, offset_ms: i64) -> Result<Self> {
        Self::new(Kind::Hop, slide_ms, size_ms, offset_ms)
    }

    /// Windows that begin every `size_ms` milliseconds; of each beginning one that ends every `step_ms` until the size
    /// is reached.
    ///
    /// # Errors
    /// `Usage`, if a length is not positive or the size is not a multiple of the step.
    pub fn cumulate(step_ms: i64, size_ms: i64, offset_ms: i64) -> Result<Self> {
        Self::new(Kind::Cumulate, step_ms, size_ms, offset_ms)
    }

    fn new(kind: Kind, slice_ms: i64, size_ms: i64, offset_ms: i64) -> Result<Self> {
        if let Some(wrong) = [slice_ms, size_ms].into_iter().find(|length| *length <= 0) {
            return Err(Error::usage(format!("a window's size must be at least 1 millisecond, not {wrong}")));
        }
        if size_ms % slice_ms != 0 {
            return Err(Error::usage(format!("a window of {size_ms} ms is not a multiple of {slice_ms} ms")));
        }
        Ok(Self {
            kind,
            slice_ms,
            size_ms,
            offset_ms: offset_ms.rem_euclid(size_ms),
            is_attached: false,
            clock: WindowClock::plain(),
        })
    }

    /// The same windows over rows that were given to their windows before: a row's time says the one window that it is
    /// in, by being in the last slice of it.
    #[must_use]
    pub fn attached(self) -> Self {
        Self { is_attached: true, ..self }
    }

    /// The same windows of the local time in `zone`, over rows with a TIMESTAMP_LTZ.
    #[must_use]
    pub fn in_zone(self, zone: Tz) -> Self {
        Self { clock: WindowClock::in_zone(zone), ..self }
    }

    /// What the bounds of its windows mean. All other methods take and give times and watermarks by it.
    pub(crate) fn clock(self) -> WindowClock {
        self.clock
    }

    /// Milliseconds from a (longest) window's start to its end.
    pub fn size_ms(self) -> i64 {
        self.size_ms
    }

    /// Milliseconds from 1970-01-01 00:00:00 to the first (longest) window's start; less than the size.
    pub fn offset_ms(self) -> i64 {
        self.offset_ms
    }

    /// Milliseconds from one end of a window to the next.
    pub(super) fn slice_ms(self) -> i64 {
        self.slice_ms
    }

    /// Whether each slice is in one window only.
    pub(super) fn is_one_window_a_slice(self) -> bool {
        self.is_attached || self.slice_ms == self.size_ms
    }

    /// In how many windows a row is at most.
    pub(super) fn windows_of_a_row(self) -> i64 {
        if self.is_one_window_a_slice() { 1 } else { self.size_ms / self.slice_ms }
    }

    /// The slice that `time` is in.
    ///
    /// # Errors
    /// `Data`, if it or one of its windows begins or ends outside of what a TIMESTAMP can say.
    pub(super) fn slice_of(self, time: i64) -> Result<Slice> {
        let start = time.checked_sub(since(time, self.offset_ms, self.slice_ms));
        let slice = start.and_then(|start| Some(Slice { start, end: start.checked_add(self.slice_ms)? }));
        slice.filter(|slice| self.fits(*slice)).ok_or_else(|| {
            Error::data(format!("the event time {time} ms is too far from 1970 for a window of {} ms", self.size_ms))
        })
    }

    /// Whether all windows of a slice have bounds that can be said.
    fn fits(self, slice: Slice) -> bool {
        let more = self.size_ms - self.slice_ms;
        slice.start.checked_sub(more).is_some() && slice.end.checked_add(more).is_some()
    }

    /// The start of the window that ends at `end`.
    pub(super) fn window_start(self, end: i64) -> i64 {
        match self.kind {
            Kind::Tumble | Kind::Hop => end.saturating_sub(self.size_ms),
            Kind::Cumulate => {
                let last = end.saturating_sub(1);
                last.saturating_sub(since(last, self.offset_ms, self.size_ms))
            }
        }
    }

    /// Whether the window that ends at `end` begins with all slices of the one that ends a slice before.
    pub(super) fn continues(self, end: i64) -> bool {
        let before = end.saturating_sub(self.slice_ms);
        self.kind == Kind::Cumulate && !self.is_attached && self.window_start(end) < before
    }

    /// The end of the last window that holds the slice that ends at `slice_end`; its first window ends with it.
    pub(super) fn last_end(self, slice_end: i64) -> i64 {
        match self.kind {
            _ if self.is_attached => slice_end,
            Kind::Tumble => slice_end,
            Kind::Hop => slice_end.saturating_add(self.size_ms - self.slice_ms),
            Kind::Cumulate => self.window_start(slice_end).saturating_add(self.size_ms),
        }
    }

    /// The end of the first window of the slice that ends at `slice_end` that `watermark` has not completed; `None` if
    /// it has completed all of them.
    pub(super) fn first_open_end(self, slice_end: i64, watermark: i64) -> Option<i64> {
        if !is_complete(slice_end, watermark) {
            return Some(slice_end);
        }
        if is_complete(self.last_end(slice_end), watermark) {
            return None;
        }
        // The watermark is before the last end: nothing overflows.
        let skipped = (watermark - (slice_end - 1)) / self.slice_ms + 1;
        Some(slice_end + skipped * self.slice_ms)
    }

    /// Whether `watermark` has completed every window that holds `time`.
    ///
    /// # Errors
    /// `Data`, if one of them has bounds that cannot be said.
    pub(crate) fn is_late(self, time: i64, watermark: i64) -> Result<bool> {
        Ok(is_complete(self.last_end(self.slice_of(time)?.end), watermark))
    }

    /// The end of the last window that holds `time`.
    ///
    /// # Errors
    /// `Data`, if one of its windows has bounds that cannot be said.
    pub(crate) fn last_end_of(self, time: i64) -> Result<i64> {
        Ok(self.last_end(self.slice_of(time)?.end))
    }

    /// The ends of the windows that hold `slice`, the first one first.
    pub(super) fn ends_of(self, slice: Slice) -> impl Iterator<Item = i64> {
        let last = self.last_end(slice.end);
        let next = move |end: &i64| end.checked_add(self.slice_ms);
        std::iter::successors(Some(slice.end), next).take_while(move |end| *end <= last)
    }
}

/// Milliseconds from the last of the moments `offset + k × length` up to `time`.
fn since(time: i64, offset: i64, length: i64) -> i64 {
    // Both remainders are below the length, so that their difference cannot overflow.
    (time.rem_euclid(length) - offset.rem_euclid(length)).rem_euclid(length)
}

/// Whether a watermark completes the window that ends at `end`: it has reached its last millisecond.
pub(crate) fn is_complete(end: i64, watermark: i64) -> bool {
    end.saturating_sub(1) <= watermark
}

/// `[start, end)` in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Slice {
    pub(super) fn holds(self, time: i64) -> bool {
        self.start <= time && time < self.end
    }
}

#[cfg(test)]
mod tests {
    use ruslo_core::error::ErrorKind;

    use super::*;

    fn windows(shape: WindowShape, time: i64) -> Vec<(i64, i64)> {
        let slice = shape.slice_of(time).unwrap();
        assert!(slice.holds(time));
        shape.ends_of(slice).map(|end| (shape.window_start(end), end)).collect()
    }

    #[test]
    fn a_window_holds_its_times_before_and_after_1970_with_any_offset() {
        for (size, offset) in [(1, 0), (10, 0), (10, 3), (10, -3), (7, 100), (i64::MAX, 0)] {
            let shape = WindowShape::tumble(size, offset).unwrap();
            for time in -50..50 {
                let [(start, end)] = windows(shape, time)[..] else { panic!() };
                assert!(start <= time && time < end);
                assert_eq!(end - start, size);
                assert_eq!((start - shape.offset_ms()).rem_euclid(size), 0);
            }
        }
    }

    #[test]
    fn a_time_is_in_every_hop_and_cumulate_window_that_holds_it_and_in_no_other() {
        for (slice, slices, offset) in [(1, 1, 0), (5, 3, 0), (5, 3, 7), (4, 2, -3), (7, 5, 100)] {
            let size = slice * slices;
            let hop = WindowShape::hop(slice, size, offset).unwrap();
            let cumulate = WindowShape::cumulate(slice, size, offset).unwrap();
            for time in -100..100 {
                let starts = (-300..300).filter(|start: &i64| (start - offset).rem_euclid(slice) == 0);
                let hops = starts.clone().map(|start| (start, start + size));
                let expected: Vec<_> = hops.filter(|(start, end)| (*start..*end).contains(&time)).collect();
                assert_eq!(windows(hop, time), expected, "{time} in {hop:?}");
                let starts = starts.filter(|start| (start - offset).rem_euclid(size) == 0);
                let steps = starts.flat_map(|start| (1..=slices).map(move |step| (start, start + step * slice)));
                let expected: Vec<_> = steps.filter(|(start, end)| (*start..*end).contains(&time)).collect();
                assert_eq!(windows(cumulate, time), expected, "{time} in {cumulate:?}");
            }
        }
    }

    #[test]
    fn the_first_window_that_a_watermark_leaves_open() {
        let shapes = [
            WindowShape::tumble(10, 3).unwrap(),
            WindowShape::hop(5, 20, 1).unwrap(),
            WindowShape::cumulate(5, 20, 1).unwrap(),
            WindowShape::hop(5, 20, 1).unwrap().attached(),
        ];
        for shape in shapes {
            for time in -40..40 {
                let slice = shape.slice_of(time).unwrap();
                for watermark in -80..80 {
                    let open = shape.ends_of(slice).find(|end| end - 1 > watermark);
                    assert_eq!(shape.first_open_end(slice.end, watermark), open, "{time}, {watermark}, {shape:?}");
                }
                assert_eq!(shape.ends_of(slice).last(), Some(shape.last_end(slice.end)));
                assert_eq!(shape.first_open_end(slice.end, i64::MAX), None);
                assert_eq!(shape.first_open_end(slice.end, i64::MIN), Some(slice.end));
            }
        }
    }

    #[test]
    fn the_steps_of_a_cumulate_window_continue_one_another_and_nothing_else_does() {
        let cumulate = WindowShape::cumulate(5, 20, 1).unwrap();
        let continuing: Vec<i64> = (-19..=41).step_by(5).filter(|end| cumulate.continues(*end)).collect();
        assert_eq!(continuing, [-19, -9, -4, 1, 11, 16, 21, 31, 36, 41]);
        for other in [cumulate.attached(), WindowShape::hop(5, 20, 1).unwrap(), WindowShape::tumble(5, 1).unwrap()] {
            assert!((-19..=41).step_by(5).all(|end| !other.continues(end)));
        }
    }

    #[test]
    fn windows_align_as_flinks_do() {
        // Flink: timestamp - (timestamp - offset + size) % size, corrected for negative remainders.
        let hour = WindowShape::tumble(3_600_000, 0).unwrap();
        assert_eq!(windows(hour, -1), [(-3_600_000, 0)]);
        assert_eq!(windows(hour, 0), [(0, 3_600_000)]);
        let day_in_china = WindowShape::tumble(86_400_000, -8 * 3_600_000).unwrap();
        assert_eq!(windows(day_in_china, 0)[0].0, -8 * 3_600_000);
    }

    #[test]
    fn an_attached_row_is_in_one_window_of_the_same_bounds() {
        let hop = WindowShape::hop(5, 20, 1).unwrap().attached();
        assert_eq!(windows(hop, 20), [(1, 21)]);
        let cumulate = WindowShape::cumulate(5, 20, 1).unwrap().attached();
        assert_eq!(windows(cumulate, 10), [(1, 11)]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let tumble = WindowShape::tumble(1000, 0).unwrap();
        let hop = WindowShape::hop(1000, 2000, 0).unwrap();
        for (shape, time) in [(tumble, i64::MAX), (tumble, i64::MIN), (hop, i64::MAX - 1500), (hop, i64::MIN + 1500)] {
            assert_eq!(shape.slice_of(time).unwrap_err().kind(), ErrorKind::Data, "{shape:?}");
        }
        let refused = [
            WindowShape::tumble(0, 0),
            WindowShape::hop(0, 10, 0),
            WindowShape::hop(10, 0, 0),
            WindowShape::hop(20, 10, 0),
            WindowShape::hop(3, 10, 0),
            WindowShape::cumulate(3, 10, 0),
        ];
        for shape in refused {
            assert_eq!(shape.unwrap_err().kind(), ErrorKind::Usage);
        }
    }
}
