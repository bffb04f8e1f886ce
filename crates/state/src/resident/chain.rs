//! The rows of one key, chained both ways in the order in which they came. Rows that were removed leave the chain.

use ruslo_core::error::Result;

use super::layout::Encoded;
use super::slab::{ABSENT, Slot, lost};
use super::{DELETED, FREE, KEY_AT, OFF, ResidentTable, drop_strings, keep_strings};
use crate::runs::Kind;

/// Words of a head behind its key: first row, last row, next sequence number; of a map instead how many rows there are.
pub(super) const HEAD_WORDS: usize = 3;
/// The first of them, if the key had no words.
pub(super) const FIRST_AT: usize = KEY_AT;
const LAST_AT: usize = KEY_AT + 1;
const SEQUENCE_AT: usize = KEY_AT + 2;

/// The word of a row that has the next row above and the one before below.
const LINKS_AT: usize = 1;
/// The word of a row that has the head's slot.
pub(super) const OWNER_AT: usize = 2;
/// Where the sub-key begins in a row.
pub(super) const SUB_KEY_AT: usize = 3;

#[inline]
fn links(next: Slot, previous: Slot) -> u64 {
    u64::from(next) << 32 | u64::from(previous)
}

/// The row behind the one with these links.
#[inline]
pub(super) fn next_of(links: u64) -> Slot {
    (links >> 32) as Slot
}

impl ResidentTable {
    /// Lets a new head have no rows.
    pub(super) fn begin_chain(&mut self, head: Slot) -> Result<()> {
        let from = self.key.words();
        for at in [FIRST_AT, LAST_AT] {
            *self.heads.word_mut(head, from + at).ok_or_else(lost)? = u64::from(ABSENT);
        }
        Ok(())
    }

    /// The first row of a key.
    #[inline]
    pub(super) fn first_row(&self, head: Slot) -> Slot {
        self.heads.word(head, self.key.words() + FIRST_AT) as Slot
    }

    /// The last row of a key.
    #[inline]
    pub(super) fn last_row(&self, head: Slot) -> Slot {
        self.heads.word(head, self.key.words() + LAST_AT) as Slot
    }

    /// The row behind `row`.
    #[inline]
    pub(super) fn next_row(&self, row: Slot) -> Slot {
        self.step_counted();
        next_of(self.chains.word(row, LINKS_AT))
    }

    /// The row before `row`.
    #[inline]
    pub(super) fn previous_row(&self, row: Slot) -> Slot {
        self.step_counted();
        self.chains.word(row, LINKS_AT) as Slot
    }

    /// The sequence number that the next row of a key gets.
    #[inline]
    pub(super) fn sequence(&self, head: Slot) -> u64 {
        self.heads.word(head, self.key.words() + SEQUENCE_AT)
    }

    /// Puts a row behind the last one of its key.
    pub(super) fn link(
        &mut self,
        head: Slot,
        sub_keys: &Encoded,
        values: &Encoded,
        row: usize,
        header: u64,
    ) -> Result<Slot> {
        let slot = self.push(head, header, sub_keys.row(row), values, row)?;
        let place = self.chains.row_mut(slot).and_then(|words| words.get_mut(SUB_KEY_AT..)).ok_or_else(lost)?;
        keep_strings(&mut self.blobs, &self.sub_key, place, sub_keys, row)?;
        self.note_row(head, slot)?;
        Ok(slot)
    }

    /// As [`ResidentTable::link`], for a sub-key without strings.
    pub(super) fn push(
        &mut self,
        head: Slot,
        header: u64,
        sub_key: &[u64],
        values: &Encoded,
        row: usize,
    ) -> Result<Slot> {
        let slot = self.chains.allocate()?;
        // The sequence number is the last word of the sub-key of the kinds that have one.
        if let (Kind::List | Kind::Time, Some(number)) = (self.schema.kind, sub_key.last()) {
            let sequence = self.heads.word_mut(head, self.key.words() + SEQUENCE_AT).ok_or_else(lost)?;
            *sequence = (*sequence).max(number.saturating_add(1));
        }
        let previous = self.become_last(head, slot)?;
        let words = self.chains.row_mut(slot).ok_or_else(lost)?;
        let (fixed, rest) = words.split_at_mut_checked(SUB_KEY_AT).ok_or_else(lost)?;
        fixed.copy_from_slice(&[header, links(ABSENT, previous), u64::from(head)]);
        let (sub_place, value_place) = rest.split_at_mut_checked(sub_key.len()).ok_or_else(lost)?;
        sub_place.copy_from_slice(sub_key);
        value_place.copy_from_slice(values.row(row));
        keep_strings(&mut self.blobs, &self.value, value_place, values, row)?;
        Ok(slot)
    }

    /// Makes a row the last one of its key, but for its own links. The row before it.
    fn become_last(&mut self, head: Slot, row: Slot) -> Result<Slot> {
        let from = self.key.words() + KEY_AT;
        let chain = self.heads.row_mut(head).and_then(|head| head.get_mut(from..)).ok_or_else(lost)?;
        let [first, last, ..] = chain else { return Err(lost()) };
        let previous = *last as Slot;
        *last = u64::from(row);
        if previous == ABSENT {
            *first = u64::from(row);
        } else {
            let links = self.chains.word_mut(previous, LINKS_AT).ok_or_else(lost)?;
            *links = (*links & u64::from(ABSENT)) | u64::from(row) << 32;
        }
        Ok(previous)
    }

    /// Puts a row that was removed back into its chain, as the last one, if it is not in it any more.
    pub(super) fn put_back(&mut self, head: Slot, row: Slot) -> Result<()> {
        if self.chains.word(row, 0) & OFF != 0 {
            let previous = self.become_last(head, row)?;
            *self.chains.word_mut(row, 0).ok_or_else(lost)? &= !OFF;
            *self.chains.word_mut(row, LINKS_AT).ok_or_else(lost)? = links(ABSENT, previous);
        }
        Ok(())
    }

    /// Removes a row; its words stay until that is sealed. It leaves the chain at once, so that nobody goes through what
    /// is gone, unless it is found by nothing else. Its own links stay: who stands on it goes on from there.
    pub(super) fn kill(&mut self, row: Slot) -> Result<()> {
        self.mark_dirty(row)?;
        let head = self.chains.word(row, OWNER_AT) as Slot;
        if self.schema.by_value {
            self.unnote_row(head, row);
        }
        let leaves = self.schema.kind != Kind::Map || self.is_indexed(head);
        let header = self.chains.word_mut(row, 0).ok_or_else(lost)?;
        let was_off = *header & OFF != 0;
        *header |= if leaves { DELETED | OFF } else { DELETED };
        if leaves && !was_off {
            self.detach(head, row);
            self.sort_out(head, row);
        }
        Ok(())
    }

    /// Takes a row that was removed out of its chain for good. Its head.
    pub(super) fn unlink(&mut self, row: Slot) -> Slot {
        let head = self.chains.word(row, OWNER_AT) as Slot;
        if self.chains.word(row, 0) & OFF == 0 {
            self.detach(head, row);
        }
        if !self.schema.by_value {
            self.unnote_row(head, row);
        }
        self.drop_row(row);
        head
    }

    /// Links the rows before and behind a row to each other.
    fn detach(&mut self, head: Slot, row: Slot) {
        let (both, from) = (self.chains.word(row, LINKS_AT), self.key.words());
        let (next, previous) = (next_of(both), both as Slot);
        let towards_next = if previous == ABSENT {
            self.heads.word_mut(head, from + FIRST_AT).map(|first| *first = u64::from(next))
        } else {
            let links = self.chains.word_mut(previous, LINKS_AT);
            links.map(|links| *links = (*links & u64::from(ABSENT)) | u64::from(next) << 32)
        };
        let towards_previous = if next == ABSENT {
            self.heads.word_mut(head, from + LAST_AT).map(|last| *last = u64::from(previous))
        } else {
            let links = self.chains.word_mut(next, LINKS_AT);
            links.map(|links| *links = (*links & !u64::from(ABSENT)) | u64::from(previous))
        };
        debug_assert!(towards_next.is_some() && towards_previous.is_some());
    }

    /// Frees a row with its strings, whatever links to it. The row behind it.
    pub(super) fn drop_row(&mut self, row: Slot) -> Slot {
        let next = self.next_row(row);
        if let Some(words) = self.chains.row(row).and_then(|words| words.get(SUB_KEY_AT..)) {
            let (sub_key, value) = words.split_at_checked(self.sub_key.words()).unwrap_or_default();
            drop_strings(&mut self.blobs, &self.sub_key, sub_key);
            drop_strings(&mut self.blobs, &self.value, value);
        }
        self.chains.release(row, FREE);
        self.generation += 1;
        next
    }
}
