//! Rows beside each other whose times are near each other, or which are in one window: every pair is looked at.

use ruslo_operators::TimedJoinKind as Kind;

use super::{At, rows_behind, versions};
use crate::dataset::{Dataset, Row, column, schema};
use crate::joined::Timed;
use crate::nodes::Windows;
use crate::shape::{self, Shape};
use crate::sink::OutRow;

/// NULL.
const NULL: i64 = i64::MIN;

/// A row of a side that is not late, in one of its windows if it has any.
struct Placed {
    row: Row,
    window: Option<(i64, i64)>,
    out: OutRow,
}

/// The rows of a join.
pub(super) fn joined(shape: &Shape, node: usize, timed: Timed, data: &[impl AsRef<Dataset>]) -> Vec<OutRow> {
    let sides = [0, 1].map(|side| placed(shape, shape.nodes[node].inputs[side].from, data));
    let [left, right] = &sides;
    let is_pair = |l: &Placed, r: &Placed| {
        let is_near = match timed.bounds {
            Some((lower, upper)) => (lower..=upper).contains(&(l.row.time - r.row.time)),
            None => l.window == r.window,
        };
        l.row.key == r.row.key && is_near && (!timed.is_less || l.row.value < r.row.value)
    };
    let mut found = Vec::new();
    for l in left {
        let before = found.len();
        let partners = right.iter().filter(|r| is_pair(l, r));
        found.extend(partners.map(|r| [l.out.as_slice(), &r.out].concat()));
        let is_alone = found.len() == before;
        match timed.kind {
            Kind::Semi | Kind::Anti => {
                found.truncate(before);
                if is_alone == (timed.kind == Kind::Anti) {
                    found.push(l.out.clone());
                }
            }
            Kind::Left | Kind::Full if is_alone => found.push([l.out.clone(), vec![NULL; l.out.len()]].concat()),
            _ => {}
        }
    }
    if matches!(timed.kind, Kind::Right | Kind::Full) {
        let alone = right.iter().filter(|r| !left.iter().any(|l| is_pair(l, r)));
        found.extend(alone.map(|r| [vec![NULL; r.out.len()], r.out.clone()].concat()));
    }
    found
}

fn placed(shape: &Shape, from: usize, data: &[impl AsRef<Dataset>]) -> Vec<Placed> {
    let rows = rows_behind(shape, from, data);
    let shape::Kind::Assign(_) = shape.nodes[from].kind else {
        let on_time = rows.into_iter().filter(|at| at.row.time > at.watermark);
        return on_time.map(|at| Placed { row: at.row, window: None, out: at.out() }).collect();
    };
    let in_windows = rows.iter().flat_map(|at| {
        let windows = at.open_windows(shape.nodes[from].kind, shape).into_iter();
        windows.map(|(start, end)| Placed {
            row: at.row,
            window: Some((start, end)),
            out: [at.out(), vec![start, end, end - 1]].concat(),
        })
    });
    in_windows.collect()
}

/// The rows of one side of a join's, which are not late for anybody.
pub(super) fn of_side(shape: &Shape, join: usize, side: usize, data: &[impl AsRef<Dataset>]) -> Vec<At> {
    let rows = match shape.nodes[join].kind {
        shape::Kind::Timed(timed) => joined(shape, join, timed, data),
        shape::Kind::Temporal(temporal) => versions::joined(shape, join, temporal, data),
        _ => return Vec::new(),
    };
    let row = |row: OutRow| {
        let row = &row[side * schema().fields().len()..];
        let (key, value, time) = (row[column::KEY], row[column::VALUE], row[column::TIME]);
        let (lineage, offset, way) = (row[column::LINEAGE], row[column::OFFSET], row[column::VIA]);
        At { lineage, offset, row: Row { key, value, time }, way, watermark: i64::MIN }
    };
    rows.into_iter().map(row).collect()
}

/// How many rows of a join come too late, of both sides; in windows, one for each.
pub(super) fn late(shape: &Shape, node: usize, data: &[impl AsRef<Dataset>]) -> u64 {
    let late = |from: usize| {
        let rows = rows_behind(shape, from, data);
        match shape.nodes[from].kind {
            kind @ shape::Kind::Assign(Windows::Tumble | Windows::Hop(_) | Windows::Cumulate(_)) => {
                let late = |at: &At| at.windows(kind, shape).len() - at.open_windows(kind, shape).len();
                rows.iter().map(late).sum::<usize>() as u64
            }
            _ => rows.iter().filter(|at| at.row.time <= at.watermark).count() as u64,
        }
    };
    shape.nodes[node].inputs.iter().map(|link| late(link.from)).sum()
}
