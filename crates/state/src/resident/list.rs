//! The verbs of tables that have many rows a key.

use arrow::array::{ArrayRef, UInt32Array};
use ruslo_core::error::{Error, Result};

use super::chain::SUB_KEY_AT;
use super::layout::Encoded;
use super::slab::{ABSENT, Slot, lost};
use super::value::Rows;
use super::{BLOCK, DELETED, GROUP_MASK, GROUP_SHIFT, Keys, REFERENCED, ResidentTable, drop_strings, keep_strings};
use crate::runs::Kind;

/// Where reading the rows of some keys stands; good until the next call that changes the table other than sealing.
#[derive(Debug)]
pub struct Cursor {
    /// Requests, and the next row of each, backwards.
    waiting: Vec<(u32, Slot)>,
    /// Those that are being read.
    active: Vec<(u32, Slot)>,
    generation: u64,
}

/// Some rows of some keys.
#[derive(Debug, Clone)]
pub struct Piece {
    /// Which of the keys each row is of. The rows of one key come in order.
    pub requests: UInt32Array,
    /// Sub-key and value columns.
    pub columns: Vec<ArrayRef>,
    /// The rows themselves, by which they can be removed.
    pub rows: Rows,
}

impl ResidentTable {
    /// Adds a row to each of `keys`, behind those that are there.
    ///
    /// # Errors
    /// `Internal`, if the table is no list or the columns are not its own; `Resource`, if the keys of one batch and their
    /// rows do not fit in memory; the disk's.
    pub fn append(&mut self, keys: &[ArrayRef], values: &[ArrayRef]) -> Result<()> {
        self.want(Kind::List)?;
        self.append_rows(keys, None, values)
    }

    /// Adds a row to each of `keys` of a time-ordered table.
    ///
    /// # Errors
    /// As [`ResidentTable::append`].
    pub fn append_at(&mut self, keys: &[ArrayRef], times: &[i64], values: &[ArrayRef]) -> Result<()> {
        self.want(Kind::Time)?;
        self.append_rows(keys, Some(times), values)
    }

    fn append_rows(&mut self, keys: &[ArrayRef], times: Option<&[i64]>, values: &[ArrayRef]) -> Result<()> {
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
    ///
    /// # Errors
    /// As [`ResidentTable::append`].
    pub fn put(&mut self, keys: &[ArrayRef], sub_keys: &[ArrayRef], values: &[ArrayRef]) -> Result<()> {
        self.want(Kind::Map)?;
        let keys = self.keys(keys)?;
        let sub_keys = self.sub_key.encode(sub_keys, keys.len())?;
        let values = self.value.encode(values, keys.len())?;
        self.make_resident(&keys, keys.encoded.string_bytes() + sub_keys.string_bytes() + values.string_bytes())?;
        for (row, head) in self.locate(&keys).into_iter().enumerate() {
            let head = self.head_of(&keys, row, head)?;
            let header = self.touched_header(head)?;
            let slot = match self.find_row(head, &sub_keys, row) {
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
    ///
    /// # Errors
    /// As [`ResidentTable::append`].
    pub fn load_rows(&mut self, keys: &[ArrayRef], sub_keys: &[ArrayRef]) -> Result<Rows> {
        self.want(Kind::Map)?;
        let keys = self.keys(keys)?;
        let sub_keys = self.sub_key.encode(sub_keys, keys.len())?;
        let mut slots = self.resident(&keys, 0, 0)?;
        for (row, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| **slot != ABSENT) {
            let head = *slot;
            self.touched_header(head)?;
            *slot = self.find_row(head, &sub_keys, row);
            if *slot != ABSENT && !self.is_alive(self.chains.word(*slot, 0)) {
                *slot = ABSENT;
            }
        }
        Ok(Rows { slots, generation: self.generation })
    }

    /// Sub-key and value columns of rows; NULL where there is none.
    ///
    /// # Errors
    /// `Internal`, if the handles are out of date.
    pub fn read_rows(&self, rows: &Rows) -> Result<Vec<ArrayRef>> {
        self.check(rows)?;
        self.columns_of(&rows.slots)
    }

    /// Begins to read the rows of `keys`.
    ///
    /// # Errors
    /// As [`ResidentTable::append`].
    pub fn rows(&mut self, keys: &[ArrayRef]) -> Result<Cursor> {
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
    ///
    /// # Errors
    /// `Internal`, if the table has changed since the cursor was made.
    pub fn next(&self, cursor: &mut Cursor, rows_max: usize) -> Result<Option<Piece>> {
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
        Ok(Some(Piece { requests: requests.into(), columns, rows: Rows { slots, generation: self.generation } }))
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
    ///
    /// # Errors
    /// `Internal`, if the handles are out of date.
    pub fn remove_rows(&mut self, rows: &Rows) -> Result<()> {
        self.check(rows)?;
        for slot in rows.slots.iter().filter(|slot| **slot != ABSENT) {
            self.mark_dirty(*slot)?;
            *self.chains.word_mut(*slot, 0).ok_or_else(lost)? |= DELETED;
        }
        Ok(())
    }

    /// Removes every row of `keys`.
    ///
    /// # Errors
    /// As [`ResidentTable::append`].
    pub fn remove_keys(&mut self, keys: &[ArrayRef]) -> Result<()> {
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
        let chained = if self.schema.kind == Kind::Value { 0 } else { keys.len() };
        self.reserve(keys.len(), chained, string_bytes)?;
        // Making room may have been the first time that anything was evicted.
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
        *header |= REFERENCED;
        Ok((*header & GROUP_MASK << GROUP_SHIFT) | u64::from(self.bucket))
    }

    /// The row of a key with a sub-key, dead or alive.
    fn find_row(&self, head: Slot, sub_keys: &Encoded, row: usize) -> Slot {
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
