//! The right rows of a minute, by key and in order of validity.

use std::cmp::Ordering;

use arrow::array::RecordBatch;
use arrow::row::{Row, Rows};
use ruslo_core::error::Result;

use super::keys::{KeyEncoder, comparable};
use super::side::RightSide;
use super::spec::AsOf;

/// Right rows among which the one that counts at some time is found.
pub(super) struct Versions {
    keys: Rows,
    /// By row: its own time, and from when on it is valid; in units of its column and of the comparison.
    times: Vec<i64>,
    valid: Vec<(i64, bool)>,
    /// Rows by key, those of one key in order of validity; without those that have a NULL for a key.
    order: Vec<u32>,
    /// The row that counts once that of the same place in `order` is valid.
    best: Vec<u32>,
    /// Which rows say that there is no row any more.
    gone: Vec<bool>,
}

impl Versions {
    /// Of `rows`, which are in order of validity.
    pub(super) fn new(side: &RightSide, encoder: &KeyEncoder, rows: &RecordBatch) -> Result<Self> {
        let columns = side.keys(rows);
        let keys = encoder.encode(&columns)?;
        let (times, valid) = (side.times(rows)?, side.valid(rows)?);
        let nulls = comparable(&columns);
        let mut order: Vec<u32> = (0..rows.num_rows() as u32)
            .filter(|row| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(*row as usize)))
            .collect();
        order.sort_by(|one, other| keys.row(*one as usize).cmp(&keys.row(*other as usize)));
        let gone = side.gone(rows).map(|gone| gone.values().iter().collect()).unwrap_or_default();
        let mut versions = Self { keys, times, valid, order, best: Vec::new(), gone };
        versions.best = versions.winners();
        Ok(versions)
    }

    /// Of the rows of a key up to each one, that with the greatest time; of one time the last.
    fn winners(&self) -> Vec<u32> {
        let mut winners: Vec<u32> = Vec::with_capacity(self.order.len());
        for row in &self.order {
            let wins = match winners.last() {
                Some(before) => self.key(*before) != self.key(*row) || self.time(*before) <= self.time(*row),
                None => true,
            };
            winners.push(if wins { *row } else { winners.last().copied().unwrap_or(*row) });
        }
        winners
    }

    fn key(&self, row: u32) -> Row<'_> {
        self.keys.row(row as usize)
    }

    /// The row's own time, in units of its column.
    pub(super) fn time(&self, row: u32) -> i64 {
        self.times.get(row as usize).copied().unwrap_or(i64::MIN)
    }

    fn valid_from(&self, row: u32) -> i64 {
        self.valid.get(row as usize).map_or(i64::MIN, |(from, _)| *from)
    }

    /// Whether the row came late, so that what was there before may be newer.
    pub(super) fn is_late(&self, row: u32) -> bool {
        self.valid.get(row as usize).is_some_and(|(_, is_late)| *is_late)
    }

    /// Whether the row says that there is none any more.
    pub(super) fn is_gone(&self, row: u32) -> bool {
        self.gone.get(row as usize).copied().unwrap_or(false)
    }

    /// The row that counts for `key` at `time`, of these.
    pub(super) fn find(&self, key: Row<'_>, time: i64, as_of: AsOf) -> Option<u32> {
        let is_before = |row: &u32| match self.key(*row).cmp(&key) {
            Ordering::Equal => match as_of {
                AsOf::AtOrBefore => self.valid_from(*row) <= time,
                AsOf::Before => self.valid_from(*row) < time,
            },
            other => other == Ordering::Less,
        };
        let place = self.order.partition_point(is_before).checked_sub(1)?;
        let (row, best) = (*self.order.get(place)?, *self.best.get(place)?);
        (self.key(row) == key).then_some(best)
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.keys.size() + self.times.len() * (8 + 16 + 4 + 4 + 1)
    }
}
