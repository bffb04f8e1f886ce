//! Windows filled row by row: which windows a time is in, and what each of them comes to.

use std::collections::BTreeMap;

use super::At;
use crate::nodes::Windows;
use crate::shape::{Kind, Shape};
use crate::sink::OutRow;

/// The windows `[start, end)` that `time` is in; a session's bounds do not follow from one row.
pub fn windows_of(windows: Windows, time: i64, length: i64) -> Vec<(i64, i64)> {
    let from = |size: i64| time - time.rem_euclid(size);
    match windows {
        Windows::Tumble => vec![(from(length), from(length) + length)],
        Windows::Hop(times) => {
            let starts = (0..times).map(|back| from(length) - back * length);
            starts.map(|start| (start, start + times * length)).collect()
        }
        Windows::Cumulate(times) => {
            let start = from(times * length);
            let ends = (1..=times).map(|steps| start + steps * length);
            ends.filter(|end| time < *end).map(|end| (start, end)).collect()
        }
        Windows::Session => Vec::new(),
    }
}

/// A result row: key, count, sum, least, most, and the window.
fn result(key: i64, values: &[i64], start: i64, end: i64) -> OutRow {
    let (least, most) = (*values.iter().min().unwrap(), *values.iter().max().unwrap());
    vec![key, values.len() as i64, values.iter().sum(), least, most, start, end, end - 1]
}

/// What the windows of `kind` come to.
pub(super) fn window_rows(rows: &[At], kind: Kind, shape: &Shape) -> Vec<OutRow> {
    let mut windows: BTreeMap<(i64, i64, i64), Vec<i64>> = BTreeMap::new();
    for at in rows {
        for (start, end) in at.open_windows(kind, shape) {
            windows.entry((at.row.key, start, end)).or_default().push(at.row.value);
        }
    }
    windows.into_iter().map(|((key, start, end), values)| result(key, &values, start, end)).collect()
}

/// What the sessions with a gap of `gap` come to: a row goes on with the session before it, if it is at most `gap`
/// behind that one's last.
pub(super) fn sessions(rows: &[At], gap: i64) -> Vec<OutRow> {
    let mut by_key: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
    for at in rows.iter().filter(|at| at.row.time >= at.watermark) {
        by_key.entry(at.row.key).or_default().push((at.row.time, at.row.value));
    }
    let mut results = Vec::new();
    for (key, mut rows) in by_key {
        rows.sort_unstable();
        for session in rows.chunk_by(|(before, _), (time, _)| time - before <= gap) {
            let values: Vec<_> = session.iter().map(|(_, value)| *value).collect();
            results.push(result(key, &values, session[0].0, session[session.len() - 1].0 + gap));
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_1970_windows_are_aligned_as_after() {
        let end = |time| windows_of(Windows::Tumble, time, 10)[0].1;
        assert_eq!([-1, 0, 9, -10, -11].map(end), [0, 10, 10, 0, -10]);
        assert_eq!(windows_of(Windows::Hop(2), -1, 10), [(-10, 10), (-20, 0)]);
        assert_eq!(windows_of(Windows::Cumulate(2), -1, 10), [(-20, 0)]);
        assert_eq!(windows_of(Windows::Cumulate(2), 3, 10), [(0, 10), (0, 20)]);
    }
}
