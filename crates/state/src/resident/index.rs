//! From the hash of a key to its slot: open addressing with linear probing, one table a key group.
//!
//! An entry is one word: 32 bits of the hash (the *tag*, the upper half: the lower bits choose the key group) over the
//! slot + 1. The tag alone says where an entry belongs, so growing reads no row; and one group grows at a time.

use super::slab::{ABSENT, Slot};

/// The slots of one key group.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// A power of two of entries, or none; 0 is empty.
    entries: Vec<u64>,
    shift: u32,
    len: usize,
}

/// The part of a hash that an entry holds.
#[inline]
pub(super) fn tag_of(hash: u64) -> u32 {
    (hash >> 32) as u32
}

#[inline]
fn entry(tag: u32, slot: Slot) -> u64 {
    u64::from(tag) << 32 | (u64::from(slot) + 1)
}

#[inline]
fn slot_of(entry: u64) -> Slot {
    (entry as u32).wrapping_sub(1)
}

const ENTRIES_MIN: usize = 8;

impl Index {
    /// Bytes allocated.
    pub(super) fn bytes(&self) -> u64 {
        (self.entries.capacity() * 8) as u64
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes needed in all while `more` entries are added, if it has to grow for them; else 0.
    pub(super) fn growth_bytes(&self, more: usize) -> u64 {
        if self.fits(self.len + more) { 0 } else { capacity_for(self.len + more) as u64 * 8 }
    }

    fn fits(&self, len: usize) -> bool {
        4 * len <= 3 * self.entries.len()
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        (u64::from(tag) >> self.shift) as usize
    }

    #[inline]
    fn mask(&self) -> usize {
        self.entries.len().wrapping_sub(1)
    }

    /// The entry where `tag` belongs, whatever it is: brings it near.
    #[inline]
    pub(super) fn touch(&self, tag: u32) -> u64 {
        self.entries.get(self.home(tag)).copied().unwrap_or(0)
    }

    /// What [`Index::touch`] found says already, if it does: the slot of the first entry with `tag`, or that there is
    /// none.
    #[inline]
    pub(super) fn told(tag: u32, touched: u64) -> Option<Slot> {
        if touched == 0 {
            Some(ABSENT)
        } else if (touched >> 32) as u32 == tag {
            Some(slot_of(touched))
        } else {
            None
        }
    }

    /// The first slot under `tag` that `is_it`, or [`ABSENT`].
    #[inline]
    pub(super) fn find(&self, tag: u32, mut is_it: impl FnMut(Slot) -> bool) -> Slot {
        let mut at = self.home(tag);
        loop {
            match self.entries.get(at) {
                None | Some(0) => return ABSENT,
                Some(entry) if (entry >> 32) as u32 == tag && is_it(slot_of(*entry)) => return slot_of(*entry),
                Some(_) => at = (at + 1) & self.mask(),
            }
        }
    }

    /// Every slot.
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.entries.iter().filter(|entry| **entry != 0).map(|entry| slot_of(*entry))
    }

    /// Adds an entry.
    pub(super) fn insert(&mut self, tag: u32, slot: Slot) {
        if !self.fits(self.len + 1) {
            self.grow(self.len + 1);
        }
        self.place(entry(tag, slot));
        self.len += 1;
    }

    fn place(&mut self, new: u64) {
        let mask = self.mask();
        let mut at = self.home((new >> 32) as u32);
        while let Some(entry) = self.entries.get_mut(at) {
            if *entry == 0 {
                *entry = new;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self, len: usize) {
        let capacity = capacity_for(len);
        let old = std::mem::replace(&mut self.entries, vec![0; capacity]);
        self.shift = 32 - capacity.ilog2();
        old.into_iter().filter(|entry| *entry != 0).for_each(|entry| self.place(entry));
    }

    /// Removes the entry of `slot`, and closes the gap.
    pub(super) fn remove(&mut self, tag: u32, slot: Slot) {
        let (mask, gone) = (self.mask(), entry(tag, slot));
        let mut gap = self.home(tag);
        loop {
            match self.entries.get(gap) {
                None | Some(0) => return,
                Some(entry) if *entry == gone => break,
                Some(_) => gap = (gap + 1) & mask,
            }
        }
        self.len -= 1;
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let moved = self.entries.get(at).copied().unwrap_or(0);
            if moved == 0 {
                break;
            }
            // An entry may go back into the gap unless that is before the place where it belongs.
            let home = self.home((moved >> 32) as u32);
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.set(gap, moved);
                gap = at;
            }
        }
        self.set(gap, 0);
    }

    /// Gives memory back that is far too much for what is there.
    pub(super) fn shrink(&mut self) {
        if self.len == 0 {
            *self = Self::default();
        } else if 16 * self.len < self.entries.len() {
            self.grow(2 * self.len);
        }
    }

    fn set(&mut self, at: usize, entry: u64) {
        if let Some(place) = self.entries.get_mut(at) {
            *place = entry;
        }
    }
}

fn capacity_for(len: usize) -> usize {
    (len * 4).div_ceil(3).next_power_of_two().max(ENTRIES_MIN)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use ruslo_core::rng::Rng;

    use super::*;

    /// Few different tags, so that runs of entries collide, wrap around the end and have gaps in them.
    #[test]
    fn it_is_a_map_through_thousands_of_collisions() {
        for seed in 0..40 {
            let mut rng = Rng::seeded(seed);
            let (mut index, mut model) = (Index::default(), HashMap::new());
            let tags = [3usize, 50, 4_000][seed as usize % 3];
            for step in 0..3_000u32 {
                let tag = u32::MAX - rng.below(tags) as u32 * 7_919;
                if rng.one_in(2) {
                    index.insert(tag, step);
                    model.insert(step, tag);
                } else if let Some(slot) = model.keys().copied().nth(rng.below(model.len())) {
                    index.remove(model[&slot], slot);
                    model.remove(&slot);
                }
                assert_eq!(index.len(), model.len());
            }
            for (slot, tag) in &model {
                assert_eq!(index.find(*tag, |found| found == *slot), *slot);
            }
            for tag in (0..tags as u32).map(|tag| u32::MAX - tag * 7_919) {
                let mut found = Vec::new();
                index.find(tag, |slot| {
                    found.push(slot);
                    false
                });
                let mut expected: Vec<_> = model.iter().filter(|(_, of)| **of == tag).map(|(slot, _)| *slot).collect();
                found.sort();
                expected.sort();
                assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn nothing_is_found_in_nothing() {
        let mut index = Index::default();
        assert_eq!(index.find(7, |_| true), ABSENT);
        assert_eq!(Index::told(7, index.touch(7)), Some(ABSENT));
        index.remove(7, 0);
        assert_eq!(index.bytes(), 0);
    }
}
