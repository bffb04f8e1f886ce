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

/// Rows by time; those of one time by value, the highest first, then by lineage and offset.
pub(super) fn in_order<'a>(rows: impl Iterator<Item = &'a OutRow>) -> Vec<OutRow> {
    let mut rows: Vec<_> = rows.cloned().collect();
    rows.sort_unstable_by_key(|row| {
        (row[column::TIME], Reverse(row[column::VALUE]), row[column::LINEAGE], row[column::OFFSET])
    });
    rows
}
