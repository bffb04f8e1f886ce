//! What must come out of a run, from its data and shape alone.
//!
//! Written without a look at the engine: windows are filled row by row from the whole input, and a row is late by the
//! rule of the design, applied to its lineage in its own order.

use std::collections::BTreeMap;

use crate::dataset::{Dataset, Lineage, Row};
use crate::shape::{EventTime, Kind, Shape};
use crate::sink::OutRow;

/// What must come out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// What each sink shows: each row, and how often.
    pub sinks: Vec<BTreeMap<OutRow, i64>>,
    /// Rows that windows drop because they are late.
    pub late: u64,
    /// Rows that sources read.
    pub read: u64,
}

/// What must come out of `shape` over `data`.
pub fn expect(shape: &Shape, data: &[impl AsRef<Dataset>]) -> Expected {
    let mut expected = Expected { sinks: vec![BTreeMap::new(); shape.sinks()], ..Expected::default() };
    for (index, node) in shape.nodes.iter().enumerate() {
        match node.kind {
            Kind::Source(dataset) => expected.read += data[dataset].as_ref().rows() as u64,
            Kind::Window => {
                let ways = shape.ways_to(index);
                let late =
                    ways.iter().map(|(dataset, _)| late_rows(data[*dataset].as_ref(), shape.event_time.unwrap()));
                expected.late += late.sum::<u64>();
            }
            Kind::Sink(number) => expected.sinks[number] = rows_at(shape, index, data),
            Kind::Pass(_) => {}
        }
    }
    expected
}

fn rows_at(shape: &Shape, sink: usize, data: &[impl AsRef<Dataset>]) -> BTreeMap<OutRow, i64> {
    let from = shape.nodes[sink].inputs[0].from;
    match shape.nodes[from].kind {
        Kind::Window => window_rows(&shape.ways_to(from), data, shape.event_time.unwrap()),
        _ => identities(&shape.ways_to(sink), data),
    }
}

/// Every row, once for every way.
fn identities(ways: &[(usize, i64)], data: &[impl AsRef<Dataset>]) -> BTreeMap<OutRow, i64> {
    let mut counts = BTreeMap::new();
    for (dataset, way) in ways {
        for lineage in &data[*dataset].as_ref().lineages {
            for (offset, row) in lineage.rows.iter().enumerate() {
                let out = vec![lineage.id, offset as i64, row.key, row.value, row.time, *way];
                *counts.entry(out).or_default() += 1;
            }
        }
    }
    counts
}

fn window_end(time: i64, event_time: EventTime) -> i64 {
    time - time.rem_euclid(event_time.window_ms) + event_time.window_ms
}

/// The rows of a lineage, each with whether it is late: whether the watermark that the rows before it have made had
/// reached the last millisecond of its window.
fn judged(lineage: &Lineage, event_time: EventTime) -> impl Iterator<Item = (Row, bool)> {
    let mut watermark = i64::MIN;
    lineage.rows.iter().map(move |row| {
        let late = window_end(row.time, event_time) - 1 <= watermark;
        watermark = watermark.max(row.time - event_time.delay_ms);
        (*row, late)
    })
}

fn late_rows(data: &Dataset, event_time: EventTime) -> u64 {
    let rows = data.lineages.iter().flat_map(|lineage| judged(lineage, event_time));
    rows.filter(|(_, late)| *late).count() as u64
}

fn window_rows(ways: &[(usize, i64)], data: &[impl AsRef<Dataset>], event_time: EventTime) -> BTreeMap<OutRow, i64> {
    let mut windows: BTreeMap<(i64, i64), Vec<i64>> = BTreeMap::new();
    for (dataset, _) in ways {
        let rows = data[*dataset].as_ref().lineages.iter().flat_map(|lineage| judged(lineage, event_time));
        for (row, _) in rows.filter(|(_, late)| !late) {
            windows.entry((row.key, window_end(row.time, event_time))).or_default().push(row.value);
        }
    }
    let row = |((key, end), values): ((i64, i64), Vec<i64>)| {
        let (count, total) = (values.len() as i64, values.iter().sum());
        let (least, most) = (*values.iter().min().unwrap(), *values.iter().max().unwrap());
        (vec![key, count, total, least, most, end - event_time.window_ms, end, end - 1], 1)
    };
    windows.into_iter().map(row).collect()
}

/// The difference between what came out and what must, in words; `None` if there is none.
pub fn difference(found: &BTreeMap<OutRow, i64>, expected: &BTreeMap<OutRow, i64>) -> Option<String> {
    let count = |rows: &BTreeMap<OutRow, i64>, row: &OutRow| rows.get(row).copied().unwrap_or(0);
    let missing: Vec<_> = expected.iter().filter(|(row, times)| count(found, row) < **times).collect();
    let surplus: Vec<_> = found.iter().filter(|(row, times)| count(expected, row) < **times).collect();
    let first = |rows: &[(&OutRow, &i64)]| rows.first().map(|(row, times)| format!(", {row:?} ×{times}"));
    (!missing.is_empty() || !surplus.is_empty()).then(|| {
        format!(
            "{} rows missing{}; {} rows too many{}",
            missing.len(),
            first(&missing).unwrap_or_default(),
            surplus.len(),
            first(&surplus).unwrap_or_default()
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::shape::{keyed, plain};

    const EVENT_TIME: EventTime = EventTime { delay_ms: 5, window_ms: 10 };

    fn data(times: &[i64]) -> Vec<Arc<Dataset>> {
        let rows: Vec<_> = times.iter().map(|time| Row { key: 1, value: *time, time: *time }).collect();
        let cuts = vec![0, rows.len()];
        vec![Arc::new(Dataset { lineages: vec![Lineage { id: 4, rows, cuts }] })]
    }

    #[test]
    fn a_row_is_late_once_its_window_was_complete_before_it() {
        let mut shape = Shape::new(Some(EVENT_TIME));
        let source = shape.add(Kind::Source(0), &[]);
        let window = shape.add(Kind::Window, &[keyed(source)]);
        shape.add(Kind::Sink(0), &[plain(window)]);
        // 13 gives the watermark 8; 14 gives 9, which completes the window of 3.
        let expected = expect(&shape, &data(&[1, 13, 2, 14, 3, 12]));
        assert_eq!((expected.late, expected.read), (1, 6));
        let rows: Vec<_> = expected.sinks[0].keys().cloned().collect();
        assert_eq!(rows, [vec![1, 2, 3, 1, 2, 0, 10, 9], vec![1, 3, 39, 12, 14, 10, 20, 19]]);
    }

    #[test]
    fn before_1970_windows_are_aligned_as_after() {
        assert_eq!([-1, 0, 9, -10, -11].map(|time| window_end(time, EVENT_TIME)), [0, 10, 10, 0, -10]);
    }

    #[test]
    fn a_loss_and_a_duplicate_do_not_cancel() {
        let counts = |rows: &[(i64, i64)]| rows.iter().map(|(row, times)| (vec![*row], *times)).collect();
        let expected = counts(&[(1, 1), (2, 1)]);
        assert_eq!(difference(&expected, &expected), None);
        let found = counts(&[(1, 2)]);
        assert_eq!(difference(&found, &expected).unwrap(), "1 rows missing, [2] ×1; 1 rows too many, [1] ×2");
    }
}
