//! The verbs of tables that have one row a key.

use arrow::array::{ArrayRef, Int64Array};
use ruslo_core::error::{Error, Result};
use ruslo_core::keyed::Rows;

use super::blobs::Blobs;
use super::layout::{Encoded, Part};
use super::slab::{ABSENT, Slot, lost};
use super::{
    BLOCK, DELETED, DIRTY, FREE, GROUP_MASK, GROUP_SHIFT, KEY_AT, Keys, ResidentTable, STORED, USES, drop_strings,
    keep_strings, used,
};
use crate::runs::Kind;

impl ResidentTable {
    pub(super) fn want(&self, kind: Kind) -> Result<()> {
        let wrong = || Error::internal(format!("'{}' is a {} table", self.name, self.schema.kind.name()));
        (self.schema.kind == kind).then_some(()).ok_or_else(wrong)
    }

    /// The rows of `keys`, one key a row: those that are there.
    pub(super) fn load_values(&mut self, keys: &[ArrayRef]) -> Result<Rows> {
        self.want(Kind::Value)?;
        let keys = self.keys(keys)?;
        let mut slots = self.resident(&keys, 0, 0)?;
        for slot in &mut slots {
            let header = self.heads.word_mut(*slot, 0);
            match header {
                Some(header) if *slot != ABSENT => {
                    *header = used(*header);
                    if *header & DELETED != 0 || (*header as u32) < self.oldest {
                        *slot = ABSENT;
                    }
                }
                _ => *slot = ABSENT,
            }
        }
        Ok(Rows::new(slots, self.generation))
    }

    /// The rows of `keys`, those that were absent added: NULL where a value may be NULL, else zero or empty. Says which
    /// were added; a key that comes twice is added once.
    pub(super) fn load_or_insert_values(&mut self, keys: &[ArrayRef]) -> Result<(Rows, Vec<bool>)> {
        self.want(Kind::Value)?;
        let keys = self.keys(keys)?;
        let mut slots = self.resident(&keys, keys.len(), keys.encoded.string_bytes())?;
        let mut added = vec![false; slots.len()];
        for (row, (slot, added)) in slots.iter_mut().zip(&mut added).enumerate() {
            if *slot == ABSENT {
                *slot = self.find_or_insert(&keys, row)?.0;
            }
            *added = self.revive(*slot, false)?;
        }
        self.account();
        Ok((Rows::new(slots, self.generation), added))
    }

    /// The value columns of rows; NULL where a key was absent.
    pub(super) fn read_values(&self, rows: &Rows) -> Result<Vec<ArrayRef>> {
        self.check(rows)?;
        let (from, width) = (KEY_AT + self.key.words(), self.value.words());
        let mut words = vec![0; rows.slots().len() * width];
        for (slot, place) in rows.slots().iter().zip(words.chunks_exact_mut(width.max(1))) {
            if let Some(value) = self.heads.row(*slot).and_then(|head| head.get(from..from + width)) {
                place.copy_from_slice(value);
            }
        }
        self.value.decode(&words, rows.slots().len(), rows.present().as_ref(), &self.blobs)
    }

    /// Writes the values of rows, all of which are there.
    pub(super) fn write_values(&mut self, rows: &Rows, values: &[ArrayRef]) -> Result<()> {
        self.check(rows)?;
        let encoded = self.value.encode(values, rows.slots().len())?;
        // Rows must not go away under the handles, so room for longer strings is asked for without evicting.
        self.reserve_only(encoded.string_bytes())?;
        for (row, slot) in rows.slots().iter().enumerate() {
            self.revive(*slot, true)?;
            self.set_value(*slot, &encoded, row)?;
        }
        self.account();
        Ok(())
    }

    pub(super) fn check(&self, rows: &Rows) -> Result<()> {
        if rows.generation() != self.generation {
            return Err(Error::internal(format!("handles to rows of '{}' are out of date", self.name)));
        }
        Ok(())
    }

    /// Writes the values of `keys`, whether they were there or not; of a key that comes twice the last.
    pub(super) fn upsert_values(&mut self, keys: &[ArrayRef], values: &[ArrayRef]) -> Result<()> {
        self.want(Kind::Value)?;
        let keys = self.keys(keys)?;
        let encoded = self.value.encode(values, keys.len())?;
        self.reserve(keys.len(), 0, keys.encoded.string_bytes() + encoded.string_bytes())?;
        let mut slots = [ABSENT; BLOCK];
        for first in (0..keys.len()).step_by(BLOCK) {
            let slots = slots.get_mut(..BLOCK.min(keys.len() - first)).unwrap_or_default();
            self.locate_block(&keys, first, slots);
            for (row, slot) in (first..).zip(slots.iter()) {
                let hash = keys.hashes.get(row).copied().unwrap_or(0);
                let (slot, is_new) = match *slot {
                    ABSENT => self.find_or_insert(&keys, row)?,
                    slot => (slot, false),
                };
                self.revive(slot, true)?;
                // What was not looked for may have an older version.
                if is_new && self.is_partial(hash) {
                    self.set_flags(slot, STORED);
                }
                self.set_value(slot, &encoded, row)?;
            }
        }
        self.account();
        Ok(())
    }

    /// Adds to a BIGINT column of `keys`; a key that was absent, and NULL, count as 0.
    pub(super) fn add_values(&mut self, keys: &[ArrayRef], column: usize, deltas: &Int64Array) -> Result<()> {
        self.want(Kind::Value)?;
        let (at, null) = self.value.integer(column)?;
        let keys = self.keys(keys)?;
        let at = KEY_AT + self.key.words() + at;
        let null = null.map(|(word, bit)| (KEY_AT + self.key.words() + word, bit));
        self.make_resident(&keys, keys.encoded.string_bytes())?;
        let mut slots = [ABSENT; BLOCK];
        for first in (0..keys.len()).step_by(BLOCK) {
            let slots = slots.get_mut(..BLOCK.min(keys.len() - first)).unwrap_or_default();
            self.locate_block(&keys, first, slots);
            let deltas = deltas.values().get(first..).unwrap_or_default();
            self.add_block(&keys, first, slots, deltas, at, null)?;
        }
        self.account();
        Ok(())
    }

    fn add_block(
        &mut self,
        keys: &Keys,
        first: usize,
        slots: &[Slot],
        deltas: &[i64],
        at: usize,
        null: Option<(usize, u64)>,
    ) -> Result<()> {
        let (bucket, oldest) = (u64::from(self.bucket), self.oldest);
        for ((row, slot), delta) in (first..).zip(slots).zip(deltas) {
            let slot = if *slot == ABSENT { self.find_or_insert(keys, row)?.0 } else { *slot };
            let head = self.heads.row_mut(slot).ok_or_else(lost)?;
            let header = head.first().copied().unwrap_or(0);
            // The common case: alive and dirty already.
            if header & (DIRTY | DELETED) != DIRTY || (header as u32) < oldest {
                self.revive(slot, false)?;
            }
            let head = self.heads.row_mut(slot).ok_or_else(lost)?;
            if let Some(header) = head.first_mut() {
                *header = used(*header & !u64::from(u32::MAX)) | bucket;
            }
            if let Some((word, bit)) = null
                && let Some(nulls) = head.get_mut(word)
            {
                *nulls &= !bit;
            }
            let value = head.get_mut(at).ok_or_else(lost)?;
            let sum = (*value as i64).checked_add(*delta);
            *value = sum.ok_or_else(|| Error::data("a sum is out of the range of BIGINT"))? as u64;
        }
        Ok(())
    }

    /// Removes `keys`, those that are there.
    pub(super) fn remove_values(&mut self, keys: &[ArrayRef]) -> Result<()> {
        self.want(Kind::Value)?;
        let keys = self.keys(keys)?;
        self.reserve(keys.len(), 0, keys.encoded.string_bytes())?;
        for (row, slot) in self.locate(&keys).into_iter().enumerate() {
            let hash = keys.hashes.get(row).copied().unwrap_or(0);
            // An earlier row of the batch may have removed or added the key.
            let slot = if slot == ABSENT { self.find(hash, |slot| self.is_key(slot, &keys, row)) } else { slot };
            match slot {
                ABSENT if !self.is_partial(hash) => {}
                ABSENT => {
                    // A run may have it: what says that it is gone must be stored.
                    let slot = self.insert(&keys, row)?;
                    self.revive(slot, true)?;
                    self.set_flags(slot, STORED | DELETED);
                }
                slot => {
                    self.mark_dirty(slot)?;
                    self.set_flags(slot, DELETED);
                }
            }
        }
        self.generation += 1;
        self.account();
        Ok(())
    }

    pub(super) fn set_flags(&mut self, slot: Slot, flags: u64) {
        if let Some(header) = self.heads.word_mut(slot, 0) {
            *header |= flags;
        }
    }

    /// Lists a row as dirty, once: a head, or a row of a chain if the table has chains.
    pub(super) fn mark_dirty(&mut self, slot: Slot) -> Result<()> {
        let slab = if self.schema.kind == Kind::Value { &mut self.heads } else { &mut self.chains };
        let header = slab.word_mut(slot, 0).ok_or_else(lost)?;
        if *header & DIRTY == 0 {
            *header |= DIRTY;
            let group = (*header >> GROUP_SHIFT) & GROUP_MASK;
            self.groups.get_mut(group as usize).ok_or_else(lost)?.dirty.push(slot);
        }
        Ok(())
    }

    /// Makes a row dirty, and alive: true if it was not, and its values are as if never written.
    fn revive(&mut self, slot: Slot, is_overwritten: bool) -> Result<bool> {
        let (from, width) = (KEY_AT + self.key.words(), self.value.words());
        let (bucket, oldest) = (self.bucket, self.oldest);
        let head = self.heads.row_mut(slot).ok_or_else(lost)?;
        let header = head.first().copied().unwrap_or(FREE);
        if header & FREE != 0 {
            return Err(lost());
        }
        let is_new = header & (DIRTY | STORED) == 0;
        let was_dead = is_new || header & DELETED != 0 || (header as u32) < oldest;
        if let Some(word) = head.first_mut() {
            *word = used(header & (DIRTY | STORED | USES | GROUP_MASK << GROUP_SHIFT)) | u64::from(bucket);
        }
        if was_dead && !is_overwritten || is_new {
            let value = head.get_mut(from..from + width).ok_or_else(lost)?;
            if !is_new {
                drop_strings(&mut self.blobs, &self.value, value);
            }
            value.copy_from_slice(&self.unwritten);
        }
        self.mark_dirty(slot)?;
        Ok(was_dead)
    }

    /// Writes a value over another.
    pub(super) fn set_value(&mut self, slot: Slot, encoded: &Encoded, row: usize) -> Result<()> {
        let (from, width) = (KEY_AT + self.key.words(), self.value.words());
        let head = self.heads.row_mut(slot).ok_or_else(lost)?;
        let value = head.get_mut(from..from + width).ok_or_else(lost)?;
        overwrite(&mut self.blobs, &self.value, value, encoded, row)
    }
}

fn overwrite(blobs: &mut Blobs, part: &Part, place: &mut [u64], encoded: &Encoded, row: usize) -> Result<()> {
    drop_strings(blobs, part, place);
    place.copy_from_slice(encoded.row(row));
    keep_strings(blobs, part, place, encoded, row)
}

impl ResidentTable {
    /// The hashes of the keys of heads.
    pub(super) fn hashes_of(&self, slots: &[Slot]) -> Result<Vec<u64>> {
        ruslo_core::key_group::hash_rows(&self.key_columns(slots)?, slots.len())
    }

    /// The key columns of heads.
    pub(super) fn key_columns(&self, slots: &[Slot]) -> Result<Vec<ArrayRef>> {
        let width = self.key.words();
        let mut words = vec![0; slots.len() * width];
        for (slot, place) in slots.iter().zip(words.chunks_exact_mut(width.max(1))) {
            let key = self.heads.row(*slot).and_then(|head| head.get(KEY_AT..KEY_AT + width)).ok_or_else(lost)?;
            place.copy_from_slice(key);
        }
        self.key.decode(&words, slots.len(), None, &self.blobs)
    }
}
