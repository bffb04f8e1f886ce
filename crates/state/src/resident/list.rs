//! The verbs of tables that have many rows a key.

use arrow::array::{ArrayRef, Int64Array};
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
                self.note_row(head, slot)?;
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
                    self.put_back(head, slot)?;
                    self.overwrite_row(slot, header, &values, row)?;
                    self.sort_in(head, slot);
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

    /// Adds to a BIGINT value column of rows that were read or found; NULL counts as 0. Nothing goes away under the handles.
    pub(super) fn add_chained(&mut self, rows: &Rows, column: usize, deltas: &Int64Array) -> Result<()> {
        self.check(rows)?;
        if self.schema.kind == Kind::Value {
            return Err(Error::internal(format!("'{}' has one row a key", self.name)));
        }
        let from = SUB_KEY_AT + self.sub_key.words();
        let (at, null) = self.value.integer(column)?;
        let bucket = u64::from(self.bucket);
        for (slot, delta) in rows.slots().iter().zip(deltas.values()).filter(|(slot, _)| **slot != ABSENT) {
            self.mark_dirty(*slot)?;
            let words = self.chains.row_mut(*slot).ok_or_else(lost)?;
            if let Some(header) = words.first_mut() {
                *header = (*header & !u64::from(u32::MAX)) | bucket;
            }
            if let Some(nulls) = null.and_then(|(word, bit)| Some((words.get_mut(from + word)?, bit))) {
                *nulls.0 &= !nulls.1;
            }
            let value = words.get_mut(from + at).ok_or_else(lost)?;
            let sum = (*value as i64).checked_add(*delta);
            *value = sum.ok_or_else(|| Error::data("a sum is out of the range of BIGINT"))? as u64;
        }
        Ok(())
    }

    /// Removes rows that were read or found; those that are absent or removed already are fine.
    pub(super) fn remove_chained(&mut self, rows: &Rows) -> Result<()> {
        self.check(rows)?;
        for slot in rows.slots().iter().filter(|slot| **slot != ABSENT) {
            self.kill(*slot)?;
        }
        Ok(())
    }

    /// Removes every row of `keys`.
    pub(super) fn remove_chains(&mut self, keys: &[ArrayRef]) -> Result<()> {
        let keys = self.keys(keys)?;
        for head in self.resident(&keys, 0, 0)?.into_iter().filter(|head| *head != ABSENT) {
            let mut row = self.first_row(head);
            while row != ABSENT {
                let next = self.next_row(row);
                self.kill(row)?;
                row = next;
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
    pub(super) fn touched_header(&mut self, head: Slot) -> Result<u64> {
        let header = self.heads.word_mut(head, 0).ok_or_else(lost)?;
        *header = used(*header);
        Ok((*header & GROUP_MASK << GROUP_SHIFT) | u64::from(self.bucket))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, StringArray};
    use arrow::datatypes::{DataType, Field, Int64Type};
    use ruslo_core::error::ErrorKind;
    use ruslo_core::key_group::KEY_GROUPS;
    use ruslo_core::keyed::{KeyedTable as _, TableSchema};
    use ruslo_core::memory::MemoryPool;

    use super::*;

    fn numbers(numbers: &[i64]) -> ArrayRef {
        Arc::new(Int64Array::from(numbers.to_vec()))
    }

    /// A number is added to rows of every kind by their handles; NULL counts as 0, and both of two count.
    #[test]
    fn numbers_are_added_to_rows_by_their_handles() {
        let column = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
        let value = vec![column("text", DataType::Utf8), column("count", DataType::Int64)];
        let schema = TableSchema::map(vec![column("k", DataType::Int64)], vec![column("s", DataType::Int64)], value);
        let memory = MemoryPool::unbounded().reserve("test");
        let mut table = ResidentTable::new("test", schema, 0..KEY_GROUPS, memory, None).unwrap();
        let (keys, sub_keys) = ([numbers(&[1, 1, 2])], [numbers(&[7, 8, 7])]);
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a longer text", "b", "c"]));
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), None, Some(i64::MAX)]));
        table.put(&keys, &sub_keys, &[text.clone(), counts]).unwrap();
        let _ = table.seal().unwrap();
        let wanted = ([numbers(&[1, 1, 1, 9])], [numbers(&[7, 8, 7, 7])]);
        let rows = table.load_rows(&wanted.0, &wanted.1).unwrap();
        table.add_to_rows(&rows, 1, &Int64Array::from(vec![1, -2, 10, 3])).unwrap();
        let rows = table.load_rows(&keys, &sub_keys).unwrap();
        let found = table.read_rows(&rows).unwrap();
        assert_eq!(found[1].as_ref(), text.as_ref());
        assert_eq!(found[2].as_primitive::<Int64Type>().values(), &[16, -2, i64::MAX]);
        // Of the sealed rows those are dirty again that were added to.
        assert_eq!(table.seal().unwrap().rows().iter().map(|piece| piece.hashes.len()).sum::<usize>(), 2);
        let error = table.add_to_rows(&rows, 1, &Int64Array::from(vec![0, 0, 1])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(table.add_to_rows(&rows, 0, &Int64Array::from(vec![0, 0, 1])).is_err());
    }
}
