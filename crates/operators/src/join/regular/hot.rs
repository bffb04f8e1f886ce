//! One row of a side beside very many of the other: pairs in an order that is the same whenever and wherever it is read,
//! some at a time.
//!
//! First the places of the other side's rows are listed, some thousand a call, and sorted; then they are gone through. How
//! far that has come is a position in that order, so another subtask can go on from it; the list itself is made anew.

use std::ops::Range;

use arrow::array::{ArrayRef, UInt32Array};
use ruslo_core::error::Result;
use ruslo_core::keyed::{Cursor, Rows};
use ruslo_core::operator::{OperatorContext, Output};

use super::lookup::{Pairs, Slice};

/// Pieces of places that are listed in one call.
const PIECES_MAX: usize = 16;

/// How far a row has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// All positions up to this one are done.
    pub(super) up_to: Option<u64>,
    /// Of the next row so many equal ones are done, too.
    pub(super) copies: u64,
    /// How many partners it has found.
    pub(super) partners: i64,
}

/// A row in work.
#[derive(Debug, Default)]
pub(super) struct Hot {
    pub(super) done: Done,
    places: Places,
}

#[derive(Debug, Default)]
enum Places {
    #[default]
    Unknown,
    Listing(Cursor, Vec<(u64, u32)>),
    /// In order; and which is next.
    Listed(Vec<(u64, u32)>, usize, u64),
}

impl Hot {
    /// A row that has come so far.
    pub(super) fn at(done: Done) -> Self {
        Self { done, places: Places::Unknown }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        match &self.places {
            Places::Unknown => 0,
            Places::Listing(_, places) | Places::Listed(places, ..) => places.capacity() * size_of::<(u64, u32)>(),
        }
    }

    /// Goes on with the one row of `slice`; true when all is done.
    pub(super) fn go_on(&mut self, slice: &Slice<'_>, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<bool> {
        self.check(slice, ctx)?;
        match std::mem::take(&mut self.places) {
            Places::Listed(places, next, generation) => {
                let next = self.join(slice, (&places, next, generation), ctx, out)?;
                let is_done = next >= places.len();
                self.places = Places::Listed(places, next, generation);
                Ok(is_done)
            }
            unlisted => {
                self.places = self.list(slice, unlisted, ctx)?;
                Ok(false)
            }
        }
    }

    /// Forgets places that are out of date: a barrier may have come in between.
    fn check(&mut self, slice: &Slice<'_>, ctx: &mut OperatorContext<'_>) -> Result<()> {
        let of_places = match &self.places {
            Places::Unknown => return Ok(()),
            Places::Listing(cursor, _) => cursor.generation,
            Places::Listed(_, _, generation) => *generation,
        };
        let other = slice.other()?;
        let none: Vec<ArrayRef> = slice.keys.iter().map(|key| key.slice(0, 0)).collect();
        if ctx.state.keyed(other.name, &other.table)?.rows(&none)?.generation != of_places {
            self.places = Places::Unknown;
        }
        Ok(())
    }

    /// Lists some more places.
    fn list(&self, slice: &Slice<'_>, places: Places, ctx: &mut OperatorContext<'_>) -> Result<Places> {
        let (other, batch_rows) = (slice.other()?, ctx.batch_rows.max(1));
        let table = ctx.state.keyed(other.name, &other.table)?;
        let (mut cursor, mut places) = match places {
            Places::Listing(cursor, places) => (cursor, places),
            _ => (table.rows(&slice.keys)?, Vec::new()),
        };
        for _ in 0..PIECES_MAX {
            let Some(piece) = table.next(&mut cursor, batch_rows)? else {
                places.sort_unstable();
                return Ok(Places::Listed(places, 0, cursor.generation));
            };
            let positions = other.positions(&piece.columns, piece.requests.len())?;
            let new = positions.into_iter().zip(piece.rows.slots().iter().copied());
            places.extend(new.filter(|(position, _)| self.done.up_to.is_none_or(|done| *position > done)));
        }
        Ok(Places::Listing(cursor, places))
    }

    /// Joins some more; which place is next.
    fn join(
        &mut self,
        slice: &Slice<'_>,
        (places, next, generation): (&[(u64, u32)], usize, u64),
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<usize> {
        let (other, rows_max) = (slice.other()?, ctx.batch_rows.max(1));
        let end = end_of_positions(places, next..places.len().min(next.saturating_add(rows_max)));
        let slots: Vec<u32> = places.get(next..end).unwrap_or_default().iter().map(|(_, slot)| *slot).collect();
        let rows = Rows::new(slots, generation);
        let kept = ctx.state.keyed(other.name, &other.table)?.read_rows(&rows)?;
        // Where equal rows are one, fewer of them are as many pairs.
        let (count, copies) = bounded(other.copies(&kept), rows.slots().len(), self.done.copies, rows_max as u64);
        let pairs = Pairs {
            requests: UInt32Array::from_value(0, count),
            kept: kept.iter().map(|column| column.slice(0, count)).collect(),
            rows: Rows::new(rows.slots().iter().take(count).copied().collect(), generation),
        };
        let is_whole = copies.as_ref().is_none_or(|copies| copies.is_whole);
        self.give(slice, pairs, copies.as_ref(), is_whole, ctx, out)?;
        if let Some(copies) = copies.filter(|copies| !copies.is_whole) {
            self.done.copies = copies.first.end;
            return Ok(next);
        }
        let next = next + count;
        let last = next.checked_sub(1).and_then(|last| places.get(last));
        (self.done.up_to, self.done.copies) = (last.map(|(position, _)| *position), 0);
        Ok(next)
    }

    /// Gives out what the pairs come to, and counts them.
    fn give(
        &mut self,
        slice: &Slice<'_>,
        pairs: Pairs,
        copies: Option<&Copies>,
        is_whole: bool,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<()> {
        let other = slice.other()?;
        let first_slot = pairs.rows.slots().first().copied();
        let pairs = slice.met(pairs)?;
        let counts = other.copies(&pairs.kept).map(<[i64]>::to_vec);
        let slots = pairs.rows.slots().to_vec();
        let range = |pair: usize| match (&counts, copies) {
            (Some(_), Some(copies)) if slots.get(pair).copied() == first_slot => copies.first.clone(),
            (Some(counts), _) => 0..counts.get(pair).and_then(|count| u64::try_from(*count).ok()).unwrap_or(0),
            (None, _) => 0..1,
        };
        let (lines, partners) = slice.lines(&pairs, range)?;
        let columns = slice.other_columns(&pairs)?;
        lines.emit(slice.spec, slice.side, [slice.rows.columns(), &columns], ctx, out)?;
        if is_whole {
            self.done.partners += counts.map_or(slots.len() as i64, |counts| counts.iter().sum());
            partners.write(other, pairs.rows.generation(), ctx)?;
        }
        Ok(())
    }
}

/// Which equal rows are joined in one call.
struct Copies {
    /// Of the first row.
    first: Range<u64>,
    /// Whether that was the rest of them.
    is_whole: bool,
}

/// How many of `rows` rows are joined in one call, of which each stands for `copies` and of the first some are done: as
/// many as make `pairs_max` pairs, or of the first one a part.
fn bounded(copies: Option<&[i64]>, rows: usize, done: u64, pairs_max: u64) -> (usize, Option<Copies>) {
    let Some(copies) = copies else { return (rows, None) };
    let mut left = pairs_max;
    let mut count = 0;
    for (place, copies) in copies.iter().take(rows).enumerate() {
        let copies = u64::try_from(*copies).unwrap_or(0).saturating_sub(if place == 0 { done } else { 0 });
        if copies > left {
            break;
        }
        left -= copies;
        count += 1;
    }
    let all = copies.first().and_then(|copies| u64::try_from(*copies).ok()).unwrap_or(0);
    match count {
        0 => (1.min(rows), Some(Copies { first: done..done + pairs_max, is_whole: false })),
        _ => (count, Some(Copies { first: done..all, is_whole: true })),
    }
}

/// The end of `wanted`, behind rows that have the same position as its last.
fn end_of_positions(places: &[(u64, u32)], wanted: Range<usize>) -> usize {
    let last = wanted.end.checked_sub(1).and_then(|last| places.get(last)).map(|(position, _)| *position);
    let rest = places.get(wanted.end..).unwrap_or_default();
    wanted.end + rest.iter().take_while(|(position, _)| Some(*position) == last).count()
}
