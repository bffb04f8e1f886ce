//! The first and the last rows of a key.
//!
//! In a `list` they stand at the ends of the chain. A `map` may have an order: of a key with many rows that somebody asks
//! for, the slots stand sorted from then on, in pieces, and follow what comes and goes; those of a key with few rows are
//! sorted each time. This is nowhere but in memory, counted, and goes with the key when it is evicted.

use std::cmp::Ordering;

use arrow::array::{ArrayRef, UInt32Array};
use ruslo_core::error::{Error, Result};
use ruslo_core::keyed::{End, Piece, Rows};

use super::chain::SUB_KEY_AT;
use super::order::Order;
use super::slab::{ABSENT, Slab, Slot};
use super::{Blobs, ResidentTable};
use crate::runs::Kind;

/// A piece has so many slots at most; one that would have more becomes two.
const PIECE_MAX: usize = 256;

/// The rows of a key that has no more are sorted each time.
const SORTED_EACH_TIME_MAX: usize = 128;

/// Slots in order.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    pieces: Vec<Vec<Slot>>,
}

impl Sorted {
    fn of(slots: &[Slot]) -> Self {
        let piece = |slots: &[Slot]| {
            let mut piece = Vec::with_capacity(PIECE_MAX);
            piece.extend_from_slice(slots);
            piece
        };
        Self { pieces: slots.chunks(PIECE_MAX / 2).map(piece).collect() }
    }

    fn bytes(&self) -> u64 {
        (self.pieces.len() * (PIECE_MAX * size_of::<Slot>() + size_of::<Vec<Slot>>())) as u64
    }

    /// Bytes that `rows` take.
    fn bytes_of(rows: usize) -> u64 {
        (rows.div_ceil(PIECE_MAX / 2) * (PIECE_MAX * size_of::<Slot>() + size_of::<Vec<Slot>>())) as u64
    }

    /// The piece where something belongs that slots compare to as `compare` says, the place in it, and whether it is there.
    fn find(&self, mut compare: impl FnMut(Slot) -> Ordering) -> (usize, usize, bool) {
        let is_before = |piece: &Vec<Slot>| piece.last().is_some_and(|last| compare(*last).is_lt());
        let at = self.pieces.partition_point(is_before).min(self.pieces.len().saturating_sub(1));
        let Some(piece) = self.pieces.get(at) else { return (0, 0, false) };
        match piece.binary_search_by(|slot| compare(*slot)) {
            Ok(place) => (at, place, true),
            Err(place) => (at, place, false),
        }
    }

    /// Puts a slot where it belongs, if it is not there.
    fn insert(&mut self, slot: Slot, compare: impl FnMut(Slot) -> Ordering) {
        let (at, place, is_there) = self.find(compare);
        if is_there {
            return;
        }
        if self.pieces.is_empty() {
            self.pieces.push(Vec::with_capacity(PIECE_MAX));
        }
        let Some(piece) = self.pieces.get_mut(at) else { return };
        if piece.len() < PIECE_MAX {
            piece.insert(place.min(piece.len()), slot);
            return;
        }
        let mut upper = Vec::with_capacity(PIECE_MAX);
        upper.extend(piece.drain(PIECE_MAX / 2..));
        match place.checked_sub(PIECE_MAX / 2) {
            Some(place) => upper.insert(place.min(upper.len()), slot),
            None => piece.insert(place, slot),
        }
        self.pieces.insert(at + 1, upper);
    }

    /// Takes out what is equal, if it is there.
    fn remove(&mut self, compare: impl FnMut(Slot) -> Ordering) {
        let (at, place, is_there) = self.find(compare);
        if let (true, Some(piece)) = (is_there, self.pieces.get_mut(at)) {
            piece.remove(place);
            if piece.is_empty() {
                self.pieces.remove(at);
            }
        }
    }

    fn slots(&self) -> impl DoubleEndedIterator<Item = Slot> + '_ {
        self.pieces.iter().flatten().copied()
    }
}

/// Compares the sub-keys of two rows.
fn compare(chains: &Slab, blobs: &Blobs, order: &Order, words: usize, a: Slot, b: Slot) -> Ordering {
    let sub_key =
        |slot: Slot| chains.row(slot).and_then(|row| row.get(SUB_KEY_AT..SUB_KEY_AT + words)).unwrap_or_default();
    order.compare(sub_key(a), sub_key(b), blobs)
}

impl ResidentTable {
    /// The first or the last rows of each of `keys`, as many as `rows_max` says of it, those at the end first. All of a key,
    /// in no order, where the table has none.
    pub(super) fn ends_of(&mut self, keys: &[ArrayRef], end: End, rows_max: &[u32]) -> Result<Piece> {
        if self.schema.kind == Kind::Value {
            return Err(Error::internal(format!("'{}' has one row a key", self.name)));
        }
        let keys = self.keys(keys)?;
        let heads = self.resident(&keys, 0, 0)?;
        let (mut requests, mut slots) = (Vec::new(), Vec::new());
        for ((request, head), rows_max) in (0u32..).zip(heads).zip(rows_max).filter(|((_, head), _)| *head != ABSENT) {
            self.touched_header(head)?;
            match self.schema.kind {
                Kind::Map => self.ends_of_map(head, end, *rows_max as usize, &mut slots),
                _ => self.ends_of_chain(head, end, *rows_max as usize, &mut slots),
            }
            requests.resize(slots.len(), request);
        }
        self.account();
        let columns = self.columns_of(&slots)?;
        Ok(Piece { requests: UInt32Array::from(requests), columns, rows: Rows::new(slots, self.generation) })
    }

    fn ends_of_chain(&self, head: Slot, end: End, rows_max: usize, slots: &mut Vec<Slot>) {
        let most = slots.len().saturating_add(rows_max);
        let mut row = if end == End::First { self.first_row(head) } else { self.last_row(head) };
        while row != ABSENT && slots.len() < most {
            slots.extend(self.is_alive(self.chains.word(row, 0)).then_some(row));
            row = if end == End::First { self.next_row(row) } else { self.previous_row(row) };
        }
    }

    fn ends_of_map(&mut self, head: Slot, end: End, rows_max: usize, slots: &mut Vec<Slot>) {
        if !self.sort_rows(head) {
            let from = slots.len();
            self.ends_of_chain(head, End::First, usize::MAX, slots);
            if let (Some(order), Some(found)) = (&self.order, slots.get_mut(from..)) {
                let words = self.sub_key.words();
                found.sort_unstable_by(|a, b| compare(&self.chains, &self.blobs, order, words, *a, *b));
                if end == End::Last {
                    found.reverse();
                }
                slots.truncate(from.saturating_add(rows_max));
            }
            return;
        }
        let Some(sorted) = self.sorted.get(&head) else { return };
        // What has expired is taken out as it is met.
        let mut expired = Vec::new();
        let mut take = |slot: Slot| {
            self.step_counted();
            let is_alive = self.is_alive(self.chains.word(slot, 0));
            if is_alive {
                slots.push(slot)
            } else {
                expired.push(slot)
            }
            is_alive
        };
        match end {
            End::First => sorted.slots().filter(|slot| take(*slot)).take(rows_max).for_each(drop),
            End::Last => sorted.slots().rev().filter(|slot| take(*slot)).take(rows_max).for_each(drop),
        }
        expired.into_iter().for_each(|slot| self.sort_out(head, slot));
    }

    /// Sees to it that the rows of a key stand sorted, if they are many, and there is an order, and room; whether they do.
    fn sort_rows(&mut self, head: Slot) -> bool {
        if self.sorted.contains_key(&head) {
            return true;
        }
        if self.order.is_none() || !self.is_indexed(head) || self.rows_of_head(head) <= SORTED_EACH_TIME_MAX {
            return false;
        }
        let bytes = Sorted::bytes_of(self.rows_of_head(head));
        if self.memory.resize(self.memory.bytes().max(self.bytes() + bytes)).is_err() {
            return false;
        }
        let mut slots = Vec::new();
        self.ends_of_chain(head, End::First, usize::MAX, &mut slots);
        let Some(order) = &self.order else { return false };
        let words = self.sub_key.words();
        slots.sort_unstable_by(|a, b| compare(&self.chains, &self.blobs, order, words, *a, *b));
        let sorted = Sorted::of(&slots);
        self.sorted_bytes += sorted.bytes();
        self.sorted.insert(head, sorted);
        true
    }

    fn change_sorted(&mut self, head: Slot, slot: Slot, is_there: bool) {
        let Self { sorted, order: Some(order), chains, blobs, sub_key, sorted_bytes, .. } = self else { return };
        let Some(sorted) = sorted.get_mut(&head) else { return };
        let before = sorted.bytes();
        let compare = |other: Slot| compare(chains, blobs, order, sub_key.words(), other, slot);
        if is_there {
            sorted.insert(slot, compare)
        } else {
            sorted.remove(compare)
        }
        *sorted_bytes = *sorted_bytes + sorted.bytes() - before;
    }

    /// Puts a row that came among the sorted ones of its key, if they are.
    #[inline]
    pub(super) fn sort_in(&mut self, head: Slot, slot: Slot) {
        if !self.sorted.is_empty() {
            self.change_sorted(head, slot, true);
        }
    }

    /// Takes a row that goes out of the sorted ones of its key.
    #[inline]
    pub(super) fn sort_out(&mut self, head: Slot, slot: Slot) {
        if !self.sorted.is_empty() {
            self.change_sorted(head, slot, false);
        }
    }

    /// Forgets the order of the rows of a key.
    pub(super) fn unsort(&mut self, head: Slot) {
        if !self.sorted.is_empty()
            && let Some(sorted) = self.sorted.remove(&head)
        {
            self.sorted_bytes -= sorted.bytes();
        }
    }

    /// How many rows stand sorted; checks that they are of their keys.
    #[cfg(test)]
    pub(super) fn sorted_rows(&self) -> usize {
        let is_owned = |head: Slot, slot: Slot| self.chains.word(slot, super::chain::OWNER_AT) as Slot == head;
        for (head, sorted) in &self.sorted {
            assert!(sorted.slots().all(|slot| is_owned(*head, slot)));
        }
        assert_eq!(self.sorted.values().map(Sorted::bytes).sum::<u64>(), self.sorted_bytes);
        self.sorted.values().map(|sorted| sorted.slots().count()).sum()
    }
}
