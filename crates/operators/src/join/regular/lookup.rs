//! Rows of one side beside those of the other that have the same key: found, filtered by the condition, counted.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::{concat, filter, take};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::keyed::{Piece, Rows};
use ruslo_core::operator::OperatorContext;

use super::lines::{Lines, NOBODY};
use super::side::{LEFT, Side};
use super::spec::{RegularJoinKind, RegularJoinSpec};

/// Some rows of one side, all of which come or all of which go, and what is known of them.
pub(super) struct Slice<'a> {
    pub(super) spec: &'a RegularJoinSpec,
    /// Which side they are of.
    pub(super) side: usize,
    pub(super) adds: bool,
    pub(super) rows: RecordBatch,
    pub(super) keys: Vec<ArrayRef>,
}

impl<'a> Slice<'a> {
    pub(super) fn new(spec: &'a RegularJoinSpec, side: usize, adds: bool, rows: RecordBatch) -> Result<Self> {
        let keys = side_of(spec, side)?.keys_of(&rows);
        Ok(Self { spec, side, adds, rows, keys })
    }

    pub(super) fn own(&self) -> Result<&'a Side> {
        side_of(self.spec, self.side)
    }

    pub(super) fn other(&self) -> Result<&'a Side> {
        side_of(self.spec, 1 - self.side)
    }

    /// The rows of the other side that have the keys of these, in pieces; `None`, if they are more than `pairs_max`.
    pub(super) fn find(&self, pairs_max: usize, ctx: &mut OperatorContext<'_>) -> Result<Option<Vec<Pairs>>> {
        let (other, batch_rows) = (self.other()?, ctx.batch_rows.max(1));
        let table = ctx.state.keyed(other.name, &other.table)?;
        let mut cursor = table.rows(&self.keys)?;
        let (mut pieces, mut pairs) = (Vec::new(), 0);
        while let Some(Piece { requests, columns, rows }) = table.next(&mut cursor, batch_rows)? {
            pairs += match other.copies(&columns) {
                None => requests.len(),
                Some(copies) => copies.iter().map(|copies| usize::try_from(*copies).unwrap_or(0)).sum(),
            };
            if pairs > pairs_max {
                return Ok(None);
            }
            pieces.push(Pairs { requests, kept: columns, rows });
        }
        Ok(Some(pieces))
    }

    /// Those of `pairs` that meet the condition.
    pub(super) fn met(&self, pairs: Pairs) -> Result<Pairs> {
        let Some(condition) = &self.spec.condition else { return Ok(pairs) };
        let column = |(side, column): &(usize, usize)| match *side == self.side {
            true => self.own_column(*column, &pairs.requests),
            false => self.other()?.column(*column, &pairs.kept, &self.keys, &pairs.requests),
        };
        let columns = condition.columns.iter().map(column).collect::<Result<Vec<_>>>()?;
        let Some(met) = condition.met(columns, pairs.requests.len())? else { return Ok(pairs) };
        let slots = pairs.rows.slots().iter().zip(met.values()).filter(|(_, met)| *met).map(|(slot, _)| *slot);
        Ok(Pairs {
            rows: Rows::new(slots.collect(), pairs.rows.generation()),
            kept: pairs.kept.iter().map(|column| filter(column, &met)).collect::<Result<_, _>>()?,
            requests: filtered(&pairs.requests, &met)?,
        })
    }

    /// A column of these rows, as often as they are asked for.
    fn own_column(&self, column: usize, requests: &UInt32Array) -> Result<ArrayRef> {
        let own = self.rows.columns().get(column).ok_or_else(|| Error::internal("a join's column is lost"))?;
        Ok(take(own, requests, None)?)
    }

    /// Pairs as they go out, one beside the other.
    pub(super) fn joined(&self, pairs: &Pairs) -> Result<Vec<ArrayRef>> {
        let count = pairs.requests.len();
        let is_each_once = count == self.rows.num_rows()
            && pairs.requests.values().iter().enumerate().all(|(row, request)| row == *request as usize);
        let own = (0..self.rows.num_columns()).map(|column| match is_each_once {
            true => self.rows.columns().get(column).cloned().ok_or_else(|| Error::internal("a join's column is lost")),
            false => self.own_column(column, &pairs.requests),
        });
        let own = own.collect::<Result<Vec<_>>>()?;
        let other = self.other_columns(pairs)?;
        Ok(if self.side == LEFT { [own, other].concat() } else { [other, own].concat() })
    }

    /// All columns of the other side.
    pub(super) fn other_columns(&self, pairs: &Pairs) -> Result<Vec<ArrayRef>> {
        let other = self.other()?;
        let columns = 0..other.schema.fields().len();
        columns.map(|column| other.column(column, &pairs.kept, &self.keys, &pairs.requests)).collect()
    }

    /// What goes out of `pairs`, all that some rows of the other side have, of which each is there `copies` times in this
    /// call; and how the numbers of partners of these rows change.
    pub(super) fn lines(&self, pairs: &Pairs, copies: impl Fn(usize) -> Range<u64>) -> Result<(Lines, Partners)> {
        let (kind, other) = (self.spec.kind, self.other()?);
        let mut order: Vec<(u32, u32)> =
            pairs.rows.slots().iter().zip(0u32..).map(|(slot, pair)| (*slot, pair)).collect();
        order.sort_unstable();
        let before = other.partners(&pairs.kept).unwrap_or_default();
        let (mut lines, mut partners) = (Lines::default(), Partners::default());
        for group in order.chunk_by(|one, next| one.0 == next.0) {
            let Some((slot, first)) = group.first().copied() else { continue };
            let old = before.get(first as usize).copied().unwrap_or(0);
            let count = i64::try_from(group.len()).unwrap_or(i64::MAX);
            let new = if self.adds { old.saturating_add(count) } else { old.saturating_sub(count).max(0) };
            partners.slots.push(slot);
            partners.deltas.push(new - old);
            let turns = (old == 0) != (new == 0);
            for _ in copies(first as usize) {
                // What is taken back goes out before what takes its place.
                let alone = self.alone(turns && other.counts_partners, new > 0);
                let (first_alone, last_alone) = if self.adds { (alone, None) } else { (None, alone) };
                first_alone.into_iter().for_each(|adds| lines.push(NOBODY, first, adds));
                if kind.has_pairs() {
                    group.iter().for_each(|(_, pair)| lines.push(pairs.request(*pair), *pair, self.adds));
                }
                last_alone.into_iter().for_each(|adds| lines.push(NOBODY, first, adds));
            }
        }
        Ok((lines, partners))
    }

    /// Whether a row of the other side comes or goes alone, when it has got its first partner or lost its last.
    fn alone(&self, turns: bool, has_partners: bool) -> Option<bool> {
        turns.then_some(has_partners == (self.spec.kind == RegularJoinKind::Semi))
    }
}

fn side_of(spec: &RegularJoinSpec, side: usize) -> Result<&Side> {
    spec.sides.get(side).map(|side| side.as_ref()).ok_or_else(|| Error::internal(format!("a join has no input {side}")))
}

fn filtered(requests: &UInt32Array, met: &BooleanArray) -> Result<UInt32Array> {
    filter(requests, met)?.as_primitive_opt().cloned().ok_or_else(|| Error::internal("numbers of rows are not numbers"))
}

/// Rows of a slice beside rows of the other side.
pub(super) struct Pairs {
    /// Which row of the slice.
    pub(super) requests: UInt32Array,
    /// The columns of the other side's table.
    pub(super) kept: Vec<ArrayRef>,
    /// Where they are.
    pub(super) rows: Rows,
}

impl Pairs {
    /// All of `pieces` as one; `None`, if there are none.
    pub(super) fn concat(mut pieces: Vec<Self>) -> Result<Option<Self>> {
        if pieces.len() <= 1 {
            return Ok(pieces.pop());
        }
        let generation = pieces.first().map_or(0, |piece| piece.rows.generation());
        let columns = pieces.first().map_or(0, |piece| piece.kept.len());
        let kept = (0..columns).map(|column| {
            let parts: Vec<&dyn Array> =
                pieces.iter().filter_map(|piece| piece.kept.get(column)).map(|part| part.as_ref()).collect();
            concat(&parts)
        });
        let kept = kept.collect::<Result<Vec<_>, _>>()?;
        let requests = pieces.iter().flat_map(|piece| piece.requests.values().iter().copied());
        let slots = pieces.iter().flat_map(|piece| piece.rows.slots().iter().copied());
        Ok(Some(Self {
            requests: UInt32Array::from_iter_values(requests),
            rows: Rows::new(slots.collect(), generation),
            kept,
        }))
    }

    fn request(&self, pair: u32) -> u32 {
        self.requests.values().get(pair as usize).copied().unwrap_or(NOBODY)
    }
}

/// How the numbers of partners of rows of a table change.
#[derive(Default)]
pub(super) struct Partners {
    slots: Vec<u32>,
    deltas: Vec<i64>,
}

impl Partners {
    /// Writes them.
    pub(super) fn write(self, side: &Side, generation: u64, ctx: &mut OperatorContext<'_>) -> Result<()> {
        if !side.counts_partners || self.slots.is_empty() {
            return Ok(());
        }
        let table = ctx.state.keyed(side.name, &side.table)?;
        side.add_partners(table, &Rows::new(self.slots, generation), Int64Array::from(self.deltas))
    }
}
