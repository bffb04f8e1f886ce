//! Rows of some keys in their order, equal ones together: how many there were, and how many there are.

use std::cmp::Ordering;

use arrow::array::DynComparator;
use arrow::record_batch::RecordBatch;
use arrow::row::{Rows, SortField};
use ruslo_core::changelog::adds;
use ruslo_core::error::Result;

use super::{Arrival, UpdatingTopN};
use crate::expression::evaluate;
use crate::window::ranking::{compare, encode, tie, ties};

/// Rows by key and rank; equal ones as they came.
pub(super) struct Places {
    pub(super) places: Vec<u32>,
    order: Option<Rows>,
    ties: Vec<DynComparator>,
}

/// The places of `rows`, each of which is of a group, by group and rank.
pub(super) fn ranked(
    rows: &RecordBatch,
    of_rows: &[u32],
    wanted: &UpdatingTopN,
    order_fields: &[SortField],
) -> Result<Places> {
    let mut places: Vec<u32> = (0..rows.num_rows() as u32).collect();
    let group = |place: &u32| of_rows.get(*place as usize).copied().unwrap_or_default();
    if let Some(arrival) = wanted.arrival {
        match arrival {
            Arrival::First => places.sort_unstable_by_key(|place| (group(place), *place)),
            Arrival::Last => places.sort_unstable_by_key(|place| (group(place), u32::MAX - *place)),
        }
        return Ok(Places { places, order: None, ties: Vec::new() });
    }
    let order = wanted.order.iter().map(|sort| evaluate(&sort.expr, rows)).collect::<Result<Vec<_>>>()?;
    let mut sorted = Places { places: Vec::new(), order: encode(order_fields, &order)?, ties: ties(rows)? };
    places.sort_unstable_by(|a, b| group(a).cmp(&group(b)).then_with(|| sorted.compare(*a, *b)).then_with(|| a.cmp(b)));
    sorted.places = places;
    Ok(sorted)
}

impl Places {
    fn compare(&self, a: u32, b: u32) -> Ordering {
        let (a, b) = (a as usize, b as usize);
        compare(self.order.as_ref(), a, b).then_with(|| tie(&self.ties, a, b))
    }
}

/// Equal rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    group: u32,
    /// Of the first of them.
    pub(super) place: u32,
    /// Whether that is in the table.
    is_stored: bool,
    /// How many there were.
    pub(super) old: i64,
    /// How many there are.
    pub(super) new: i64,
}

/// By group and rank.
pub(super) struct Runs {
    runs: Vec<Run>,
}

/// What the table has to forget and to note.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Places of rows that are stored.
    pub(super) gone: Vec<u32>,
    /// Places, ascending, and how many rows there are.
    pub(super) came: Vec<(u32, i64)>,
}

impl Runs {
    /// Of rows that only come, of which the first `stored` were there: each for itself.
    pub(super) fn single(places: &[u32], of_rows: &[u32], stored: usize) -> Self {
        let run = |place: &u32| {
            let is_stored = (*place as usize) < stored;
            let group = of_rows.get(*place as usize).copied().unwrap_or_default();
            Run { group, place: *place, is_stored, old: i64::from(is_stored), new: 1 }
        };
        Self { runs: places.iter().map(run).collect() }
    }

    /// Of rows of which the first stand for `counts` equal ones, and the others add or take away as `kinds` say. A row that
    /// takes away where nothing is left has outlived what is kept, and does nothing.
    pub(super) fn counted(sorted: &Places, of_rows: &[u32], counts: &[i64], kinds: Option<&[i8]>) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for place in &sorted.places {
            let group = of_rows.get(*place as usize).copied().unwrap_or_default();
            let count = counts.get(*place as usize).copied();
            let is_same = |run: &Run| run.group == group && sorted.compare(run.place, *place).is_eq();
            if runs.last().is_none_or(|run| !is_same(run)) {
                let old = count.unwrap_or_default();
                runs.push(Run { group, place: *place, is_stored: count.is_some(), old, new: old });
            }
            let (None, Some(run)) = (count, runs.last_mut()) else { continue };
            let kind = kinds.and_then(|kinds| kinds.get(*place as usize - counts.len())).copied().unwrap_or_default();
            run.new = if adds(kind) { run.new + 1 } else { (run.new - 1).max(0) };
        }
        Self { runs }
    }

    /// The runs of each key.
    pub(super) fn groups(&self) -> impl Iterator<Item = &[Run]> {
        self.runs.chunk_by(|one, other| one.group == other.group)
    }

    /// What the table has to know.
    pub(super) fn changes(&self, wanted: &UpdatingTopN) -> Changes {
        let mut changes = Changes::default();
        for group in self.groups() {
            for (rank, run) in group.iter().enumerate() {
                // Of rows that only come the first are kept, each of which is a run.
                let new = if !wanted.takes_back && rank >= wanted.limit { 0 } else { run.new };
                if new == 0 && run.is_stored {
                    changes.gone.push(run.place);
                } else if new != run.old {
                    changes.came.push((run.place, new));
                }
            }
        }
        changes.came.retain(|(_, rows)| *rows > 0);
        changes.came.sort_unstable();
        changes
    }
}
