//! Rows beside the version that was valid at their time: for each row all versions are looked at.

use std::cmp::Reverse;

use ruslo_core::changelog::RowKind;
use ruslo_operators::AsOf;

use super::{At, rows_behind};
use crate::changes::kind_of_version;
use crate::dataset::Dataset;
use crate::shape::Shape;
use crate::sink::OutRow;
use crate::temporal::Temporal;

/// NULL.
const NULL: i64 = i64::MIN;

/// From when on a version is valid: from its time, or from behind what its lineage had promised before it.
fn valid_from(version: &At) -> i64 {
    version.row.time.max(version.watermark.saturating_add(1))
}

/// The version that counts for a row.
fn version_of<'a>(row: &At, versions: &'a [At], temporal: Temporal) -> Option<&'a At> {
    let kind = |version: &At| match temporal.has_changes {
        true => kind_of_version(version.row.value),
        false => RowKind::Insert,
    };
    let is_valid = |version: &At| match temporal.as_of {
        AsOf::AtOrBefore => valid_from(version) <= row.row.time,
        AsOf::Before => valid_from(version) < row.row.time,
    };
    let of_row = versions.iter().filter(|version| {
        version.row.key == row.row.key && is_valid(version) && kind(version) != RowKind::UpdateBefore
    });
    let order = |version: &&At| {
        // Of changes of one time, which are of one lineage (see [`crate::changes::versions`]), the last; else the first.
        let columns = [version.lineage, version.offset, version.row.value, version.way];
        let last = temporal.has_changes.then_some(version.offset);
        let first = (!temporal.has_changes).then_some(columns);
        (version.row.time, valid_from(version), last, Reverse(first))
    };
    of_row.max_by_key(order).filter(|version| kind(version) != RowKind::Delete)
}

/// The rows of a join.
pub(super) fn joined(shape: &Shape, node: usize, temporal: Temporal, data: &[impl AsRef<Dataset>]) -> Vec<OutRow> {
    let [rows, versions] = [0, 1].map(|side| rows_behind(shape, shape.nodes[node].inputs[side].from, data));
    let mut found = Vec::new();
    for row in rows.iter().filter(|row| row.row.time > row.watermark) {
        let version = version_of(row, &versions, temporal);
        match version.filter(|version| !temporal.is_less || row.row.value < version.row.value) {
            Some(version) => found.push([row.out(), version.out()].concat()),
            None if temporal.keeps_left => found.push([row.out(), vec![NULL; row.out().len()]].concat()),
            None => {}
        }
    }
    found
}

/// How many rows come too late; versions do not.
pub(super) fn late(shape: &Shape, node: usize, data: &[impl AsRef<Dataset>]) -> u64 {
    let rows = rows_behind(shape, shape.nodes[node].inputs[0].from, data);
    rows.iter().filter(|at| at.row.time <= at.watermark).count() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::changes::Told;
    use crate::dataset::{Lineage, Row};
    use crate::oracle::expect;
    use crate::shape::{EventTime, Kind, keyed, plain};

    fn lineage(id: i64, rows: &[(i64, i64)]) -> Arc<Dataset> {
        let rows: Vec<_> = rows.iter().map(|(time, value)| Row { key: 1, value: *value, time: *time }).collect();
        Arc::new(Dataset { lineages: vec![Lineage { id, cuts: vec![0, rows.len()], rows }] })
    }

    /// The offsets of the version of each row at these times, -1 without one, and how many rows are late.
    fn versions_at(temporal: Temporal, times: &[i64], versions: &[(i64, i64)]) -> (Vec<i64>, u64) {
        let mut shape = Shape::new(Some(EventTime { delay_ms: 5, window_ms: 10 }));
        let sides = [0, 1].map(|dataset| keyed(shape.add(Kind::Source(dataset), &[])));
        if temporal.has_changes {
            shape.told[1] = Told::Versions;
        }
        let join = shape.add(Kind::Temporal(temporal), &sides);
        shape.add(Kind::Sink(0), &[plain(join)]);
        let rows: Vec<_> = times.iter().map(|time| (*time, 0)).collect();
        let expected = expect(&shape, &[lineage(1, &rows), lineage(2, versions)]);
        (expected.sinks[0].keys().map(|row| row[7].max(-1)).collect(), expected.counted.late)
    }

    const PLAIN: Temporal = Temporal { as_of: AsOf::AtOrBefore, keeps_left: true, has_changes: false, is_less: false };

    #[test]
    fn the_version_of_a_row_is_the_last_before_it() {
        let versions = [(10, 0), (20, 0)];
        assert_eq!(versions_at(PLAIN, &[9, 10, 19, 20, 99], &versions), (vec![-1, 0, 0, 1, 1], 0));
        let before = Temporal { as_of: AsOf::Before, ..PLAIN };
        assert_eq!(versions_at(before, &[9, 10, 19, 20, 99], &versions), (vec![-1, -1, 0, 0, 1], 0));
        let inner = Temporal { keeps_left: false, ..PLAIN };
        // 99 gives the watermark 94.
        assert_eq!(versions_at(inner, &[9, 10, 99, 94, 95], &versions), (vec![0, 1, 1], 1));
    }

    #[test]
    fn a_late_version_counts_from_behind_the_watermark_unless_a_newer_one_is_there() {
        // 30 gives the watermark 25: the version of 21 counts from 26 to 29.
        let versions = [(10, 0), (30, 0), (21, 0), (9, 0)];
        assert_eq!(versions_at(PLAIN, &[20, 25, 26, 29, 30], &versions), (vec![0, 0, 2, 2, 1], 0));
    }

    #[test]
    fn of_one_time_the_first_counts_or_of_changes_the_last() {
        assert_eq!(versions_at(PLAIN, &[10], &[(10, 0), (10, 0)]).0, [0]);
        let changes = Temporal { has_changes: true, ..PLAIN };
        assert_eq!(versions_at(changes, &[10], &[(10, 0), (10, 0)]).0, [1]);
        // 1 goes, and 3 says nothing.
        assert_eq!(versions_at(changes, &[9, 10, 20, 30], &[(10, 0), (20, 1), (30, 3)]).0, [-1, 0, -1, -1]);
    }
}
