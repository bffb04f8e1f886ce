//! Rows that come out as they came in: the first of each window, and all in order.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::At;
use crate::dataset::column;
use crate::shape::{Kind, Shape};
use crate::sink::OutRow;

/// The `limit` rows of the highest values of each key and window of `assigned`, with the window and the rank; of equal
/// ones, those of the lower lineage and offset.
pub(super) fn first_rows(rows: &[At], assigned: Kind, limit: usize, shape: &Shape) -> Vec<OutRow> {
    let mut windows: BTreeMap<(i64, i64, i64), Vec<OutRow>> = BTreeMap::new();
    for at in rows {
        for (start, end) in at.open_windows(assigned, shape) {
            windows.entry((at.row.key, start, end)).or_default().push(at.out());
        }
    }
    let ranked = windows.into_iter().flat_map(|((_, start, end), mut rows)| {
        rows.sort_unstable_by_key(|row| (Reverse(row[column::VALUE]), row[column::LINEAGE], row[column::OFFSET]));
        rows.truncate(limit);
        rows.into_iter().zip(1..).map(move |(row, rank)| [row, vec![start, end, end - 1, rank]].concat())
    });
    ranked.collect()
}

/// Of each key the least row by time; of one time, that of the lower lineage and offset.
pub(super) fn firsts(rows: &[At]) -> Vec<OutRow> {
    let mut firsts: BTreeMap<i64, OutRow> = BTreeMap::new();
    let order = |row: &OutRow| (row[column::TIME], row[column::LINEAGE], row[column::OFFSET]);
    for row in rows.iter().filter(|at| at.row.time > at.watermark).map(At::out) {
        let first = firsts.entry(row[column::KEY]).or_insert_with(|| row.clone());
        if order(&row) < order(first) {
            *first = row;
        }
    }
    firsts.into_values().collect()
}

/// The rows of each key, numbered up to `limit` and then from 1 again: how often each number comes.
pub(super) fn numbered(rows: &[At], limit: i64) -> BTreeMap<OutRow, i64> {
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    for at in rows {
        let count = counts.entry(at.row.key).or_default();
        *numbers.entry(vec![0, *count % limit + 1, at.row.key, 0, 0, 0]).or_default() += 1;
        *count += 1;
    }
    numbers
}

/// Rows by time; those of one time by value, the highest first, then by lineage and offset.
pub(super) fn in_order<'a>(rows: impl Iterator<Item = &'a OutRow>) -> Vec<OutRow> {
    let mut rows: Vec<_> = rows.cloned().collect();
    rows.sort_unstable_by_key(|row| {
        (row[column::TIME], Reverse(row[column::VALUE]), row[column::LINEAGE], row[column::OFFSET])
    });
    rows
}
