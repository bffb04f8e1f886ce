//! Finding one row among those of its key: by what tells it apart, the sub-key of a `map`; or by its values, in a `list`
//! that wants it.
//!
//! A few rows of a `map` are gone through. Once a key has more of them, all are in the index of their key group besides: from the
//! hash of the head's slot and the sub-key to the row. The word of a head that has the sequence number in other kinds has
//! the number of its rows, and whether they are in the index.
//!
//! There a row that was removed stays in the index until that is sealed, so that the same sub-key is one row all the time.
//! Of a `list` by value all rows are in the index, and equal ones among them; they leave it when they are removed.

use std::collections::HashSet;

use arrow::array::ArrayRef;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::hash_bytes;
use ruslo_core::keyed::Rows;

use super::chain::{HEAD_WORDS, OWNER_AT, SUB_KEY_AT};
use super::index::{Index, tag_of};
use super::layout::{Encoded, INLINE_MAX, Part, length_of};
use super::slab::{ABSENT, Slot, lost};
use super::{GROUP_MASK, GROUP_SHIFT, KEY_AT, ResidentTable};
use crate::runs::Kind;

/// So many rows of a key are gone through; more are in the index.
const WALKED_MAX: u64 = 8;

/// The word of a head that has the number of its rows, if the key had no words.
const COUNT_AT: usize = KEY_AT + HEAD_WORDS - 1;
/// In it: the rows are in the index.
const INDEXED: u64 = 1 << 63;

const SEED: u64 = 0x2545_F491_4F6C_DD1D;
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Folds a word into a hash that never leaves memory.
#[inline]
fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * u128::from(MULTIPLIER);
    (product as u64) ^ (product >> 64) as u64
}

/// The tag of a row of `head` whose words are `words`; `string` says the bytes of the n-th string, whose word has the bits
/// given.
#[inline]
fn tag<'a>(part: &Part, head: Slot, words: &[u64], string: impl Fn(usize, u64) -> &'a [u8]) -> u32 {
    let mut strings = part.bytes_at().iter().enumerate().peekable();
    let mut hash = mix(SEED, u64::from(head) + 1);
    for (at, word) in words.iter().enumerate() {
        let word = match strings.next_if(|(_, string_at)| **string_at == at) {
            Some((number, _)) if length_of(*word) > INLINE_MAX => hash_bytes(string(number, *word)),
            _ => *word,
        };
        hash = mix(hash, word.wrapping_add(MULTIPLIER).rotate_left(23));
    }
    tag_of(mix(hash, MULTIPLIER))
}

impl ResidentTable {
    fn count_word(&self, head: Slot) -> u64 {
        self.heads.word(head, self.key.words() + COUNT_AT)
    }

    /// Whether the rows of a key are in the index of their group.
    #[inline]
    pub(super) fn is_indexed(&self, head: Slot) -> bool {
        match self.schema.kind {
            Kind::Map => self.count_word(head) & INDEXED != 0,
            _ => self.schema.by_value,
        }
    }

    /// How many rows of a map's key are in memory.
    pub(super) fn rows_of_head(&self, head: Slot) -> usize {
        (self.count_word(head) & !INDEXED) as usize
    }

    fn group_of_head(&self, head: Slot) -> usize {
        ((self.heads.word(head, 0) >> GROUP_SHIFT) & GROUP_MASK) as usize
    }

    /// What rows are found by.
    fn identity(&self) -> &Part {
        if self.schema.kind == Kind::Map { &self.sub_key } else { &self.value }
    }

    fn identity_of(&self, row: Slot) -> Option<&[u64]> {
        let from = if self.schema.kind == Kind::Map { SUB_KEY_AT } else { SUB_KEY_AT + self.sub_key.words() };
        self.chains.row(row).and_then(|words| words.get(from..from + self.identity().words()))
    }

    fn tag_of_row(&self, head: Slot, row: Slot) -> u32 {
        let words = self.identity_of(row).unwrap_or_default();
        tag(self.identity(), head, words, |_, word| self.blobs.get(word as u32, length_of(word)))
    }

    fn tag_of_wanted(&self, head: Slot, wanted: &Encoded, row: usize) -> u32 {
        let string = |number: usize, _| wanted.strings.get(number).map(|strings| strings.get(row)).unwrap_or_default();
        tag(self.identity(), head, wanted.row(row), string)
    }

    /// The row of a key with a sub-key, dead or alive.
    pub(super) fn find_in_chain(&self, head: Slot, sub_keys: &Encoded, row: usize) -> Slot {
        let is_it = |slot: Slot| {
            self.step_counted();
            self.identity_of(slot).is_some_and(|found| self.is_same(&self.sub_key, found, sub_keys, row))
        };
        if self.is_indexed(head) {
            let tag = self.tag_of_wanted(head, sub_keys, row);
            let of_head = |slot: Slot| self.chains.word(slot, OWNER_AT) as Slot == head && is_it(slot);
            let group = self.groups.get(self.group_of_head(head));
            return group.map_or(ABSENT, |group| group.rows.find(tag, of_head));
        }
        let mut slot = self.first_row(head);
        while slot != ABSENT && !is_it(slot) {
            slot = self.next_row(slot);
        }
        slot
    }

    /// Of each of `keys` the last row with these values, of a pair that comes several times as many of the last ones.
    pub(super) fn find_equal(&mut self, keys: &[ArrayRef], values: &[ArrayRef]) -> Result<Rows> {
        if self.schema.kind != Kind::List || !self.schema.by_value {
            return Err(Error::internal(format!("rows of '{}' are not found by their values", self.name)));
        }
        let keys = self.keys(keys)?;
        let values = self.value.encode(values, keys.len())?;
        let mut slots = self.resident(&keys, 0, 0)?;
        let mut taken = HashSet::new();
        for (row, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| **slot != ABSENT) {
            self.touched_header(*slot)?;
            *slot = self.last_equal(*slot, &values, row, &taken);
            taken.insert(*slot);
        }
        Ok(Rows::new(slots, self.generation))
    }

    fn last_equal(&self, head: Slot, values: &Encoded, row: usize, taken: &HashSet<Slot>) -> Slot {
        let mut last = (0, ABSENT);
        let tag = self.tag_of_wanted(head, values, row);
        let group = self.groups.get(self.group_of_head(head));
        group.map(|group| &group.rows).into_iter().for_each(|rows| {
            rows.find(tag, |slot| {
                self.step_counted();
                let is_it = self.chains.word(slot, OWNER_AT) as Slot == head
                    && self.is_alive(self.chains.word(slot, 0))
                    && self.identity_of(slot).is_some_and(|found| self.is_same(&self.value, found, values, row));
                let sequence = self.chains.word(slot, SUB_KEY_AT);
                if is_it && (last.1 == ABSENT || sequence > last.0) && !taken.contains(&slot) {
                    last = (sequence, slot);
                }
                false
            });
        });
        last.1
    }

    /// Counts a new row of a key, whose words are in place; and indexes it, or all of them once they are many.
    pub(super) fn note_row(&mut self, head: Slot, row: Slot) -> Result<()> {
        if self.schema.by_value {
            self.index_row(head, row);
        }
        if self.schema.kind != Kind::Map {
            return Ok(());
        }
        let at = self.key.words() + COUNT_AT;
        let word = self.heads.word_mut(head, at).ok_or_else(lost)?;
        *word += 1;
        if *word & INDEXED != 0 {
            self.index_row(head, row);
            self.sort_in(head, row);
        } else if *word > WALKED_MAX {
            *word |= INDEXED;
            let mut row = self.first_row(head);
            while row != ABSENT {
                self.index_row(head, row);
                row = self.next_row(row);
            }
        }
        Ok(())
    }

    fn index_row(&mut self, head: Slot, row: Slot) {
        let tag = self.tag_of_row(head, row);
        let group = self.group_of_head(head);
        self.change_index(group, |index| index.insert(tag, row));
    }

    /// Counts a row that leaves its key, while its words are still there.
    pub(super) fn unnote_row(&mut self, head: Slot, row: Slot) {
        if self.is_indexed(head) {
            let tag = self.tag_of_row(head, row);
            let group = self.group_of_head(head);
            self.change_index(group, |index| index.remove(tag, row));
        }
        if self.schema.kind == Kind::Map
            && let Some(word) = self.heads.word_mut(head, self.key.words() + COUNT_AT)
        {
            *word -= 1;
        }
    }

    /// Gives back what the indexes of rows do not need any more.
    pub(super) fn shrink_index(&mut self, group: usize) {
        if self.schema.kind != Kind::Value {
            self.change_index(group, Index::shrink);
        }
    }

    fn change_index(&mut self, group: usize, change: impl FnOnce(&mut Index)) {
        if let Some(group) = self.groups.get_mut(group) {
            let before = group.rows.bytes();
            change(&mut group.rows);
            self.index_bytes = self.index_bytes + group.rows.bytes() - before;
        }
    }

    /// Bytes that indexes of rows may grow by while `rows` are added, all of one key or of many.
    pub(super) fn index_growth_bytes(&self, rows: usize, each: usize) -> u64 {
        if self.schema.kind == Kind::Value || rows == 0 {
            return 0;
        }
        let grown = |rows: usize| {
            let groups = self.groups.iter().filter(|group| group.rows.len() > 0).map(|group| &group.rows);
            groups.map(move |index| index.growth_bytes(rows).saturating_sub(index.bytes()))
        };
        grown(each.min(rows)).sum::<u64>().max(grown(rows).max().unwrap_or(0))
    }
}

#[cfg(test)]
impl ResidentTable {
    pub(super) fn step_counted(&self) {
        self.steps.set(self.steps.get() + 1);
    }
}

#[cfg(not(test))]
impl ResidentTable {
    #[inline]
    pub(super) fn step_counted(&self) {}
}
