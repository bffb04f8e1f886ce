//! What must come out of a run, from its data and shape alone.
//!
//! Written without a look at the engine: windows are filled row by row from the whole input, and a row is late by the
//! rule of the design, applied to its lineage in its own order.

mod joins;
mod rows;
mod tables;
mod versions;
mod windows;

use std::collections::{BTreeMap, BTreeSet};

use ruslo_core::operator::Port;

use self::joins::{joined, of_side};
use self::rows::{first_rows, firsts, in_order, numbered};
use self::tables::table_behind;
pub use self::windows::windows_of;
use self::windows::{sessions, window_rows};
use crate::attempt::Counted;
use crate::changing::Changing;
use crate::dataset::{Dataset, Row, column, position};
use crate::nodes::Windows;
use crate::shape::{BadRecords, Kind, Link, Shape};
use crate::sink::OutRow;

/// What must come out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// What each sink shows: each row, and how often.
    pub sinks: Vec<BTreeMap<OutRow, i64>>,
    /// What the sinks behind a sort show, in order.
    pub orders: BTreeMap<usize, Vec<OutRow>>,
    /// Of what the sink shows, one of each key, whichever came first or last; and the key's column.
    pub one_of_each: BTreeMap<usize, usize>,
    /// What the job counts.
    pub counted: Counted,
}

/// What must come out of `shape` over `data`.
pub fn expect(shape: &Shape, data: &[impl AsRef<Dataset>]) -> Expected {
    let mut expected = Expected { sinks: vec![BTreeMap::new(); shape.sinks()], ..Expected::default() };
    for (index, node) in shape.nodes.iter().enumerate() {
        match node.kind {
            Kind::Source(dataset) => read(shape, data[dataset].as_ref(), &mut expected.counted),
            Kind::Window(_) if matches!(shape.nodes[node.inputs[0].from].kind, Kind::Late(_)) => {}
            Kind::Sink(number) => {
                expected.sinks[number] = rows_at(shape, index, data);
                if let Some(key) = one_of_each(shape, node.inputs[0].from) {
                    expected.one_of_each.insert(number, key);
                }
                if shape.nodes[node.inputs[0].from].kind == Kind::Sort {
                    let order = in_order(expected.sinks[number].keys());
                    expected.orders.insert(number, order);
                }
            }
            kind => expected.counted.late += late_at(shape, index, kind, data),
        }
    }
    expected
}

/// The column of the key of which chance picks one row, if it does.
fn one_of_each(shape: &Shape, node: usize) -> Option<usize> {
    match shape.nodes[node].kind {
        Kind::FirstToCome => Some(column::KEY),
        Kind::Changing(Changing::Materialize(key)) => Some(key),
        Kind::Changing(Changing::Last(_)) => one_of_each(shape, shape.nodes[node].inputs[0].from),
        _ => None,
    }
}

/// What becomes of what one source reads.
fn read(shape: &Shape, data: &Dataset, counted: &mut Counted) {
    let records = data.rows() as u64;
    let bad = if shape.bad_records == BadRecords::None { 0 } else { bad_positions(data).count() as u64 };
    counted.read += records;
    counted.rows += records - bad;
    match shape.bad_records {
        BadRecords::Letters => counted.letters += bad,
        _ => counted.skipped += bad,
    }
}

fn bad_positions(data: &Dataset) -> impl Iterator<Item = i64> {
    data.lineages.iter().flat_map(|lineage| {
        let rows = lineage.rows.iter().enumerate();
        rows.filter(|(_, row)| row.is_bad()).map(|(offset, _)| position(lineage.id, offset))
    })
}

/// How many rows a node drops, or gives aside, because they are late; of a Top-N, one for each window.
fn late_at(shape: &Shape, index: usize, kind: Kind, data: &[impl AsRef<Dataset>]) -> u64 {
    if let Kind::Timed(_) = kind {
        return joins::late(shape, index, data);
    }
    if let Kind::Temporal(_) = kind {
        return versions::late(shape, index, data);
    }
    let late = |at: &At| match kind {
        Kind::Window(_) | Kind::Late(_) => u64::from(at.is_late(kind, shape)),
        Kind::TopN(_) => {
            let assigned = assigned(shape, index);
            (at.windows(assigned, shape).len() - at.open_windows(assigned, shape).len()) as u64
        }
        Kind::Sort | Kind::First => u64::from(at.row.time <= at.watermark),
        _ => 0,
    };
    rows_to(shape, index, data).iter().map(late).sum()
}

fn rows_at(shape: &Shape, sink: usize, data: &[impl AsRef<Dataset>]) -> BTreeMap<OutRow, i64> {
    let Link { from, port, .. } = shape.nodes[sink].inputs[0];
    if let (Port::DEAD_LETTER, Kind::Source(dataset)) = (port, shape.nodes[from].kind) {
        return once(bad_positions(data[dataset].as_ref()).map(|position| vec![position]));
    }
    match shape.nodes[from].kind {
        Kind::Changing(_) => return table_behind(shape, from, data),
        Kind::Timed(timed) => return once(joined(shape, from, timed, data)),
        Kind::Temporal(temporal) => return once(versions::joined(shape, from, temporal, data)),
        _ => {}
    }
    let rows = rows_to(shape, from, data);
    if port == Port::LATE {
        return once(rows.iter().filter(|at| at.is_late(shape.nodes[from].kind, shape)).map(At::out));
    }
    match shape.nodes[from].kind {
        Kind::Window(Windows::Session) => once(sessions(&rows, length(shape))),
        Kind::Window(_) => once(window_rows(&rows, shape.nodes[from].kind, shape)),
        Kind::TopN(limit) => once(first_rows(&rows, assigned(shape, from), limit, shape)),
        Kind::First => once(firsts(&rows)),
        Kind::Tally(_, limit, _) => numbered(&rows, limit),
        Kind::Sort => once(rows.iter().filter(|at| at.row.time > at.watermark).map(At::out)),
        _ => {
            let mut counts = BTreeMap::new();
            rows_to(shape, sink, data).iter().for_each(|at| *counts.entry(at.out()).or_default() += 1);
            counts
        }
    }
}

fn once(rows: impl IntoIterator<Item = OutRow>) -> BTreeMap<OutRow, i64> {
    rows.into_iter().map(|row| (row, 1)).collect()
}

fn length(shape: &Shape) -> i64 {
    shape.event_time.unwrap().window_ms
}

/// The node that gives a Top-N's rows their windows.
fn assigned(shape: &Shape, top_n: usize) -> Kind {
    shape.nodes[shape.nodes[top_n].inputs[0].from].kind
}

/// A row on its way.
struct At {
    lineage: i64,
    offset: i64,
    row: Row,
    way: i64,
    /// The watermark that the rows before it in its lineage have made.
    watermark: i64,
}

impl At {
    fn out(&self) -> OutRow {
        vec![self.lineage, self.offset, self.row.key, self.row.value, self.row.time, self.way]
    }

    /// Whether no window takes it.
    fn is_late(&self, kind: Kind, shape: &Shape) -> bool {
        match kind {
            Kind::Window(Windows::Session) | Kind::Late(Windows::Session) => self.row.time < self.watermark,
            _ => self.open_windows(kind, shape).is_empty(),
        }
    }

    /// The windows that the row is in.
    fn windows(&self, kind: Kind, shape: &Shape) -> Vec<(i64, i64)> {
        match kind {
            Kind::Window(windows) | Kind::Late(windows) | Kind::Assign(windows) => {
                windows_of(windows, self.row.time, length(shape))
            }
            _ => Vec::new(),
        }
    }

    /// Those whose last millisecond the watermark had not reached.
    fn open_windows(&self, kind: Kind, shape: &Shape) -> Vec<(i64, i64)> {
        self.windows(kind, shape).into_iter().filter(|(_, end)| end - 1 > self.watermark).collect()
    }
}

/// Every row that comes to a node, once for every way.
fn rows_to(shape: &Shape, node: usize, data: &[impl AsRef<Dataset>]) -> Vec<At> {
    if let [Link { from, .. }] = shape.nodes[node].inputs.as_slice()
        && let Kind::Side(side) = shape.nodes[*from].kind
    {
        return of_side(shape, shape.nodes[*from].inputs[0].from, side, data);
    }
    rows_by(shape, &shape.ways_to(node), data)
}

/// Every row that comes out of a source, or a node that changes nothing but its way.
fn rows_behind(shape: &Shape, node: usize, data: &[impl AsRef<Dataset>]) -> Vec<At> {
    rows_by(shape, &shape.ways_behind(node), data)
}

fn rows_by(shape: &Shape, ways: &[(usize, i64)], data: &[impl AsRef<Dataset>]) -> Vec<At> {
    // Where lateness is chance, all that could come out if no row were late.
    let event_time = shape.event_time.filter(|_| !shape.falls_idle);
    let delay = event_time.map(|event_time| event_time.delay_ms);
    let has_bad = shape.bad_records != BadRecords::None;
    ways.iter().flat_map(|(dataset, way)| rows_of(data[*dataset].as_ref(), *way, delay, has_bad)).collect()
}

fn rows_of(data: &Dataset, way: i64, delay: Option<i64>, has_bad: bool) -> Vec<At> {
    let mut found = Vec::new();
    for lineage in &data.lineages {
        let mut watermark = i64::MIN;
        let rows = lineage.rows.iter().enumerate().filter(|(_, row)| !has_bad || !row.is_bad());
        for (offset, row) in rows {
            found.push(At { lineage: lineage.id, offset: offset as i64, row: *row, way, watermark });
            watermark = watermark.max(delay.map_or(i64::MIN, |delay| row.time - delay));
        }
    }
    found
}

/// What is wrong with windows that came out, where chance says which rows were late; `None` if nothing is. Each comes
/// once, with no more rows than there are, and every row is in one or was `late`.
pub fn imbalance(found: &BTreeMap<OutRow, i64>, most: &BTreeMap<OutRow, i64>, late: u64) -> Option<String> {
    // Key, count, …, start, end, time: see [`windows::window_rows`].
    let window = |row: &OutRow| (row[0], row[5]);
    let most: BTreeMap<_, _> = most.keys().map(|row| (window(row), row[1])).collect();
    let mut seen = BTreeSet::new();
    for (row, times) in found {
        if *times != 1 || !seen.insert(window(row)) {
            return Some(format!("the window of {row:?} came again"));
        }
        if most.get(&window(row)).is_none_or(|most| *most < row[1]) {
            return Some(format!("{row:?} has more rows than there are"));
        }
    }
    let (taken, all) = (found.keys().map(|row| row[1]).sum::<i64>(), most.values().sum::<i64>());
    (taken + late as i64 != all).then(|| format!("of {all} rows {taken} are in windows and {late} were late"))
}

/// What is wrong with `found`, which must be one of the `possible` rows of each key; `None` if nothing is.
pub fn not_one_of_each(found: &BTreeMap<OutRow, i64>, possible: &BTreeMap<OutRow, i64>, key: usize) -> Option<String> {
    let mut seen = BTreeSet::new();
    for (row, times) in found {
        if *times != 1 || !seen.insert(row[key]) {
            return Some(format!("the key of {row:?} came again"));
        }
        if !possible.contains_key(row) {
            return Some(format!("{row:?} is nothing that was read"));
        }
    }
    let missing = possible.keys().find(|row| !seen.contains(&row[key]))?;
    Some(format!("nothing is there of the key of {missing:?}"))
}

/// What is wrong with `found` where rows may count more than once, and none may be missing: of windows, by their key and
/// time, the count may be larger, and not the least and the greatest value.
pub fn shortage(found: &BTreeMap<OutRow, i64>, least: &BTreeMap<OutRow, i64>, of_windows: bool) -> Option<String> {
    // Key, count, total, least, greatest, start, …: see [`windows::window_rows`].
    let identity = |row: &OutRow| if of_windows { vec![row[0], row[3], row[4], row[5]] } else { row.clone() };
    let count = |row: &OutRow, times: i64| if of_windows { row[1] } else { times };
    let least: BTreeMap<_, _> = least.iter().map(|(row, times)| (identity(row), count(row, *times))).collect();
    let mut seen = BTreeSet::new();
    for (row, times) in found {
        let Some(least) = least.get(&identity(row)) else {
            return Some(format!("{row:?} is of nothing that was read"));
        };
        if count(row, *times) < *least {
            return Some(format!("{row:?} ×{times} has less than {least} rows"));
        }
        seen.insert(identity(row));
    }
    let missing = least.keys().find(|identity| !seen.contains(*identity))?;
    Some(format!("nothing is there of {missing:?}"))
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
    use crate::dataset::Lineage;
    use crate::shape::{EventTime, aside, keyed, plain};

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
        let window = shape.add(Kind::Window(Windows::Tumble), &[keyed(source)]);
        shape.add(Kind::Sink(0), &[plain(window)]);
        // 13 gives the watermark 8; 14 gives 9, which completes the window of 3.
        let expected = expect(&shape, &data(&[1, 13, 2, 14, 3, 12]));
        let counted = Counted { read: 6, rows: 6, late: 1, ..Counted::default() };
        assert_eq!(expected.counted, counted);
        let rows: Vec<_> = expected.sinks[0].keys().cloned().collect();
        assert_eq!(rows, [vec![1, 2, 3, 1, 2, 0, 10, 9], vec![1, 3, 39, 12, 14, 10, 20, 19]]);
    }

    /// What a sink shows behind `kind` over rows of one key and their times as values, and how many are late.
    fn shown(kind: Kind, times: &[i64]) -> (Vec<OutRow>, u64) {
        let mut shape = Shape::new(Some(EVENT_TIME));
        let source = shape.add(Kind::Source(0), &[]);
        let operator = shape.add(kind, &[keyed(source)]);
        shape.add(Kind::Sink(0), &[plain(operator)]);
        let expected = expect(&shape, &data(times));
        (expected.sinks[0].keys().cloned().collect(), expected.counted.late)
    }

    #[test]
    fn sessions_join_where_they_touch() {
        // The gap is 10: 20 touches 10, and 31 does not touch 20. After 31 rows before 26 are late, 26 is not.
        let (rows, late) = shown(Kind::Window(Windows::Session), &[10, 20, 31, 25, 60, 54, 26]);
        assert_eq!(late, 3);
        assert_eq!(
            rows,
            [
                vec![1, 1, 31, 31, 31, 31, 41, 40],
                vec![1, 1, 60, 60, 60, 60, 70, 69],
                vec![1, 2, 30, 10, 20, 10, 30, 29]
            ]
        );
        assert_eq!(shown(Kind::Window(Windows::Session), &[31, 26]).1, 0);
    }

    #[test]
    fn a_row_counts_for_the_windows_that_are_open() {
        // 25 gives the watermark 20: of the windows of 5, [-10, 10) and [0, 20) are complete.
        let (rows, late) = shown(Kind::Window(Windows::Hop(2)), &[25, 5, 15]);
        assert_eq!(late, 1);
        assert_eq!(rows, [vec![1, 1, 25, 25, 25, 20, 40, 39], vec![1, 2, 40, 15, 25, 10, 30, 29]]);
        let (rows, late) = shown(Kind::Window(Windows::Cumulate(3)), &[25, 5]);
        assert_eq!((late, rows), (0, vec![vec![1, 2, 30, 5, 25, 0, 30, 29]]));
    }

    #[test]
    fn sorted_rows_come_by_time() {
        let mut shape = Shape::new(Some(EVENT_TIME));
        let source = shape.add(Kind::Source(0), &[]);
        let sort = shape.add(Kind::Sort, &[plain(source)]);
        shape.add(Kind::Sink(0), &[plain(sort)]);
        // 9 gives the watermark 4.
        let expected = expect(&shape, &data(&[9, 4, 5, 7]));
        assert_eq!(expected.counted.late, 1);
        let times: Vec<_> = expected.orders[&0].iter().map(|row| row[4]).collect();
        assert_eq!(times, [5, 7, 9]);
    }

    #[test]
    fn the_first_row_of_a_key_is_the_least_that_is_not_late() {
        // 20 gives the watermark 15: 14 is late. 16 was first, whatever came later.
        let (rows, late) = shown(Kind::First, &[20, 14, 17, 16, 30]);
        assert_eq!((rows, late), (vec![vec![4, 3, 1, 16, 16, 0]], 1));
        let possible = once([vec![4, 0, 1, 5, 5, 0], vec![4, 1, 1, 6, 6, 0], vec![4, 2, 7, 6, 6, 0]]);
        let is_wrong = |rows: &[usize]| {
            let found = once(rows.iter().map(|row| possible.keys().nth(*row).unwrap().clone()));
            not_one_of_each(&found, &possible, column::KEY).is_some()
        };
        assert_eq!(
            [is_wrong(&[0, 2]), is_wrong(&[1, 2]), is_wrong(&[0, 1, 2]), is_wrong(&[0])],
            [false, false, true, true]
        );
    }

    #[test]
    fn rows_are_numbered_from_1_again_after_the_limit() {
        let (rows, late) = shown(Kind::Tally(crate::tally::Table::Value, 3, 0), &[20, 14, 17, 16, 30]);
        let numbers: Vec<_> = rows.iter().map(|row| (row[0], row[1], row[2])).collect();
        assert_eq!((numbers, late), (vec![(0, 1, 1), (0, 2, 1), (0, 3, 1)], 0));
    }

    #[test]
    fn the_highest_values_come_first_and_the_earlier_row_of_equal_ones() {
        let mut shape = Shape::new(Some(EVENT_TIME));
        let source = shape.add(Kind::Source(0), &[]);
        let assign = shape.add(Kind::Assign(Windows::Tumble), &[plain(source)]);
        let top_n = shape.add(Kind::TopN(2), &[keyed(assign)]);
        shape.add(Kind::Sink(0), &[plain(top_n)]);
        let expected = expect(&shape, &data(&[3, 7, 7, 7, 12, 16, 5]));
        assert_eq!(expected.counted.late, 1);
        let offsets_and_ranks: Vec<_> = expected.sinks[0].keys().map(|row| (row[1], row[9])).collect();
        assert_eq!(offsets_and_ranks, [(1, 1), (2, 2), (4, 2), (5, 1)]);
    }

    #[test]
    fn bad_records_go_aside_and_move_no_watermark() {
        let mut shape = Shape::new(Some(EVENT_TIME));
        shape.bad_records = BadRecords::Letters;
        let source = shape.add(Kind::Source(0), &[]);
        let late = shape.add(Kind::Late(Windows::Tumble), &[plain(source)]);
        let window = shape.add(Kind::Window(Windows::Tumble), &[keyed(late)]);
        shape.add(Kind::Sink(0), &[plain(window)]);
        shape.add(Kind::Sink(1), &[aside(late, Port::LATE)]);
        shape.add(Kind::Sink(2), &[aside(source, Port::DEAD_LETTER)]);
        // 22 is bad: 2 is on time. 15 gives the watermark 10: 3 is late.
        let expected = expect(&shape, &data(&[1, 22, 2, 15, 3]));
        let counted = Counted { read: 5, rows: 4, late: 1, letters: 1, skipped: 0 };
        assert_eq!(expected.counted, counted);
        let sinks: Vec<Vec<_>> = expected.sinks.iter().map(|sink| sink.keys().cloned().collect()).collect();
        assert_eq!(sinks[0], [vec![1, 1, 15, 15, 15, 10, 20, 19], vec![1, 2, 3, 1, 2, 0, 10, 9]]);
        assert_eq!(sinks[1..], [vec![vec![4, 4, 1, 3, 3, 0]], vec![vec![4_000_001]]]);
    }

    #[test]
    fn where_lateness_is_chance_rows_are_in_one_window_or_late() {
        let rows = |rows: &[(i64, i64)]| -> BTreeMap<OutRow, i64> {
            rows.iter().map(|(count, start)| (vec![1, *count, 0, 0, 0, *start, start + 10, start + 9], 1)).collect()
        };
        let most = rows(&[(3, 0), (2, 10)]);
        assert_eq!(imbalance(&rows(&[(3, 0)]), &most, 2), None);
        assert_eq!(imbalance(&rows(&[(2, 0), (2, 10)]), &most, 1), None);
        assert!(imbalance(&rows(&[(2, 0), (2, 10)]), &most, 0).unwrap().contains("of 5 rows 4"));
        assert!(imbalance(&rows(&[(2, 0), (1, 0), (2, 10)]), &most, 0).unwrap().contains("again"));
        assert!(imbalance(&rows(&[(4, 0)]), &most, 1).unwrap().contains("more rows than"));
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
