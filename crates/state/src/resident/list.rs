//! The verbs of tables that have many rows a key.

use arrow::array::ArrayRef;
use ruslo_core::error::{Error, Result};
use ruslo_core::keyed::{Cursor, Piece, Rows};

use super::chain::SUB_KEY_AT;
use super::layout::Encoded;
use super::slab::{ABSENT, Slot, lost};
use super::{BLOCK, DELETED, GROUP_MASK, GROUP_SHIFT, Keys, ResidentTable, drop_strings, keep_strings, used};
use crate::runs::Kind;

impl ResidentTable {
    /// Adds a row to each of `keys`, behind those that are there.
    pub(super) fn append_rows(&mut self, keys: &[ArrayRef], times: Option<&[i64]>, values: &[ArrayRef]) -> Result<()> {
        let keys = self.keys(keys)?;
        let encoded = self.value.encode(values, keys.len())?;
        self.make_resident(&keys, keys.encoded.string_bytes() + encoded.string_bytes())?;
        let mut slots = [ABSENT; BLOCK];
        for first in (0..keys.len()).step_by(BLOCK) {
            let slots = slots.get_mut(..BLOCK.min(keys.len() - first)).unwrap_or_default();
            self.locate_block(&keys, first, slots);
            self.touch_last_rows(slots);
            for (row, head) in (first..).zip(slots.iter()) {
                let head = self.head_of(&keys, row, *head)?;
                let header = self.touched_header(head)?;
                let sequence = self.sequence(head);
                let slot = match times.map(|times| times.get(row).copied().unwrap_or_default()) {
                    None => self.push(head, header, &[sequence], &encoded, row)?,
                    Some(time) => self.push(head, header, &[time as u64, sequence], &encoded, row)?,
                };
                self.mark_dirty(slot)?;
            }
        }
        self.account();
        Ok(())
    }

    /// Writes a row of each of `keys` of a map, whether its sub-key was there or not; of one that comes twice the last.
    pub(super) fn put_rows(&mut self, keys: &[ArrayRef], sub_keys: &[ArrayRef], values: &[ArrayRef]) -> Result<()> {
        self.want(Kind::Map)?;
        let keys = self.keys(keys)?;
        let sub_keys = self.sub_key.encode(sub_keys, keys.len())?;
        let values = self.value.encode(values, keys.len())?;
        self.make_resident(&keys, keys.encoded.string_bytes() + sub_keys.string_bytes() + values.string_bytes())?;
        for (row, head) in self.locate(&keys).into_iter().enumerate() {
            let head = self.head_of(&keys, row, head)?;
            let header = self.touched_header(head)?;
            let slot = match self.find_in_chain(head, &sub_keys, row) {
                ABSENT => self.link(head, &sub_keys, &values, row, header)?,
                slot => {
                    self.overwrite_row(slot, header, &values, row)?;
                    slot
                }
            };
            self.mark_dirty(slot)?;
        }
        self.account();
        Ok(())
    }

    /// The rows of a map under `keys` and `sub_keys`, one each, as handles to be read with
    /// [`ResidentTable::read_rows`] or removed.
    pub(super) fn find_rows(&mut self, keys: &[ArrayRef], sub_keys: &[ArrayRef]) -> Result<Rows> {
        self.want(Kind::Map)?;
        let keys = self.keys(keys)?;
        let sub_keys = self.sub_key.encode(sub_keys, keys.len())?;
        let mut slots = self.resident(&keys, 0, 0)?;
        for (row, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| **slot != ABSENT) {
            let head = *slot;
            self.touched_header(head)?;
            *slot = self.find_in_chain(head, &sub_keys, row);
            if *slot != ABSENT && !self.is_alive(self.chains.word(*slot, 0)) {
                *slot = ABSENT;
            }
        }
        Ok(Rows::new(slots, self.generation))
    }

    /// Begins to read the rows of `keys`.
    pub(super) fn begin_rows(&mut self, keys: &[ArrayRef]) -> Result<Cursor> {
        if self.schema.kind == Kind::Value {
            return Err(Error::internal(format!("'{}' has one row a key", self.name)));
        }
        let keys = self.keys(keys)?;
        let heads = self.resident(&keys, 0, 0)?;
        let mut waiting = Vec::with_capacity(heads.len());
        for (request, head) in heads.into_iter().enumerate().rev().filter(|(_, head)| *head != ABSENT) {
            self.touched_header(head)?;
            waiting.push((request as u32, self.first_row(head)));
        }
        Ok(Cursor { waiting, active: Vec::new(), generation: self.generation })
    }

    /// The next rows, `rows_max` at most; `None` if there are no more.
    pub(super) fn next_rows(&self, cursor: &mut Cursor, rows_max: usize) -> Result<Option<Piece>> {
        if cursor.generation != self.generation {
            return Err(Error::internal(format!("a cursor over '{}' is out of date", self.name)));
        }
        let (mut requests, mut slots) = (Vec::new(), Vec::new());
        while slots.len() < rows_max.max(1) {
            if cursor.active.is_empty() {
                let from = cursor.waiting.len().saturating_sub(BLOCK);
                cursor.active.extend(cursor.waiting.drain(from..).rev().filter(|(_, row)| *row != ABSENT));
                if cursor.active.is_empty() && cursor.waiting.is_empty() {
                    break;
                }
            }
            self.step(cursor, rows_max.max(1) - slots.len(), &mut requests, &mut slots);
        }
        if slots.is_empty() {
            return Ok(None);
        }
        let columns = self.columns_of(&slots)?;
        Ok(Some(Piece { requests: requests.into(), columns, rows: Rows::new(slots, self.generation) }))
    }

    /// One row of each key that is being read: rows that do not wait for each other.
    fn step(&self, cursor: &mut Cursor, rows_max: usize, requests: &mut Vec<u32>, slots: &mut Vec<Slot>) {
        let count = cursor.active.len().min(rows_max);
        for (request, row) in cursor.active.iter_mut().take(count) {
            if self.is_alive(self.chains.word(*row, 0)) {
                requests.push(*request);
                slots.push(*row);
            }
            *row = self.next_row(*row);
        }
        cursor.active.retain(|(_, row)| *row != ABSENT);
    }

    /// Removes rows that were read or found; those that are absent or removed already are fine.
    pub(super) fn remove_chained(&mut self, rows: &Rows) -> Result<()> {
        self.check(rows)?;
        for slot in rows.slots().iter().filter(|slot| **slot != ABSENT) {
            self.mark_dirty(*slot)?;
            *self.chains.word_mut(*slot, 0).ok_or_else(lost)? |= DELETED;
        }
        Ok(())
    }

    /// Removes every row of `keys`.
    pub(super) fn remove_chains(&mut self, keys: &[ArrayRef]) -> Result<()> {
        let keys = self.keys(keys)?;
        for head in self.resident(&keys, 0, 0)?.into_iter().filter(|head| *head != ABSENT) {
            let mut row = self.first_row(head);
            while row != ABSENT {
                self.mark_dirty(row)?;
                *self.chains.word_mut(row, 0).ok_or_else(lost)? |= DELETED;
                row = self.next_row(row);
            }
        }
        Ok(())
    }

    /// Sees to it that absent keys are new ones, and that there is room for them, and for a row each.
    pub(super) fn make_resident(&mut self, keys: &Keys, string_bytes: u64) -> Result<()> {
        if !self.has_evicted() {
            let chained = if self.schema.kind == Kind::Value { 0 } else { keys.len() };
            self.reserve(keys.len(), chained, string_bytes)?;
        }
        if self.has_evicted() { self.resident(keys, keys.len(), string_bytes).map(drop) } else { Ok(()) }
    }

    /// Brings the rows near that a row will be put behind.
    fn touch_last_rows(&self, heads: &[Slot]) {
        let mut last = [ABSENT; BLOCK];
        for (last, head) in last.iter_mut().zip(heads).filter(|(_, head)| **head != ABSENT) {
            *last = self.last_row(*head);
        }
        let touched = last.iter().filter(|last| **last != ABSENT).fold(0, |sum, last| sum ^ self.chains.word(*last, 0));
        std::hint::black_box(touched);
    }

    fn head_of(&mut self, keys: &Keys, row: usize, head: Slot) -> Result<Slot> {
        if head != ABSENT {
            return Ok(head);
        }
        let (head, is_new) = self.find_or_insert(keys, row)?;
        if is_new {
            self.begin_chain(head)?;
        }
        Ok(head)
    }

    /// Marks a head as asked for. The header of a new row of it.
    fn touched_header(&mut self, head: Slot) -> Result<u64> {
        let header = self.heads.word_mut(head, 0).ok_or_else(lost)?;
        *header = used(*header);
        Ok((*header & GROUP_MASK << GROUP_SHIFT) | u64::from(self.bucket))
    }

    /// The row of a key with a sub-key, dead or alive.
    fn find_in_chain(&self, head: Slot, sub_keys: &Encoded, row: usize) -> Slot {
        let mut slot = self.first_row(head);
        while slot != ABSENT {
            let found =
                self.chains.row(slot).and_then(|words| words.get(SUB_KEY_AT..SUB_KEY_AT + self.sub_key.words()));
            if found.is_some_and(|found| self.is_same(&self.sub_key, found, sub_keys, row)) {
                return slot;
            }
            slot = self.next_row(slot);
        }
        ABSENT
    }

    fn overwrite_row(&mut self, slot: Slot, header: u64, values: &Encoded, row: usize) -> Result<()> {
        let words = self.chains.row_mut(slot).ok_or_else(lost)?;
        if let Some(word) = words.first_mut() {
            *word = (*word & !(DELETED | u64::from(u32::MAX))) | header;
        }
        let place = words.get_mut(SUB_KEY_AT + self.sub_key.words()..).ok_or_else(lost)?;
        drop_strings(&mut self.blobs, &self.value, place);
        place.copy_from_slice(values.row(row));
        keep_strings(&mut self.blobs, &self.value, place, values, row)
    }
}
