//! Rows of equal width, as 64-bit words in chunks: growth copies at most one chunk, and slots never move.
//!
//! The first word of a row is its header, which belongs to the table; a free row's header links to the next free one.

use ruslo_core::error::{Error, Result};

/// The number of a row; stays with it until the row is freed.
pub(super) type Slot = u32;

/// No row.
pub(super) const ABSENT: Slot = Slot::MAX;

const CHUNK_SHIFT: u32 = 13;
const CHUNK_ROWS: usize = 1 << CHUNK_SHIFT;

/// Rows of `width` words.
#[derive(Debug)]
pub(super) struct Slab {
    width: usize,
    chunks: Vec<Vec<u64>>,
    free: Slot,
    free_rows: usize,
    used_rows: usize,
    bytes: u64,
}

impl Slab {
    /// An empty slab of rows of `width` words, at least one.
    pub(super) fn new(width: usize) -> Self {
        Self { width: width.max(1), chunks: Vec::new(), free: ABSENT, free_rows: 0, used_rows: 0, bytes: 0 }
    }

    /// Rows ever allocated, free ones included: slots are below it.
    pub(super) fn end(&self) -> Slot {
        self.used_rows as Slot
    }

    /// Rows that can be allocated without more memory.
    pub(super) fn room(&self) -> usize {
        let last = self.chunks.last().map_or(0, |chunk| (chunk.capacity() - chunk.len()) / self.width);
        self.free_rows + last
    }

    /// Rows in use.
    pub(super) fn len(&self) -> usize {
        self.used_rows - self.free_rows
    }

    /// Bytes allocated.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that `rows` more rows would add.
    pub(super) fn growth_bytes(&self, rows: usize) -> u64 {
        let missing = rows.saturating_sub(self.room());
        // The first chunk grows by doubling; later ones come whole.
        let rows = match missing {
            0 => 0,
            _ if self.used_rows + missing <= CHUNK_ROWS => (self.used_rows + missing).next_power_of_two(),
            _ => (missing + CHUNK_ROWS).next_multiple_of(CHUNK_ROWS),
        };
        (rows * self.width * 8) as u64
    }

    /// The words of a row.
    #[inline]
    pub(super) fn row(&self, slot: Slot) -> Option<&[u64]> {
        let start = (slot as usize & (CHUNK_ROWS - 1)) * self.width;
        self.chunks.get((slot >> CHUNK_SHIFT) as usize)?.get(start..start + self.width)
    }

    /// The words of a row, to be changed.
    #[inline]
    pub(super) fn row_mut(&mut self, slot: Slot) -> Option<&mut [u64]> {
        let start = (slot as usize & (CHUNK_ROWS - 1)) * self.width;
        self.chunks.get_mut((slot >> CHUNK_SHIFT) as usize)?.get_mut(start..start + self.width)
    }

    /// One word of a row; 0 if there is no such row.
    #[inline]
    pub(super) fn word(&self, slot: Slot, at: usize) -> u64 {
        let place = (slot as usize & (CHUNK_ROWS - 1)) * self.width + at;
        self.chunks.get((slot >> CHUNK_SHIFT) as usize).and_then(|chunk| chunk.get(place)).copied().unwrap_or(0)
    }

    /// A word of a row, to be changed.
    #[inline]
    pub(super) fn word_mut(&mut self, slot: Slot, at: usize) -> Option<&mut u64> {
        let place = (slot as usize & (CHUNK_ROWS - 1)) * self.width + at;
        self.chunks.get_mut((slot >> CHUNK_SHIFT) as usize)?.get_mut(place)
    }

    /// A row of zeros.
    ///
    /// # Errors
    /// `Resource`, if there are as many rows as slots have numbers.
    pub(super) fn allocate(&mut self) -> Result<Slot> {
        if self.free != ABSENT {
            let slot = self.free;
            let row = self.row_mut(slot).ok_or_else(lost)?;
            let next = row.first().copied().unwrap_or_default();
            row.fill(0);
            self.free = next as Slot;
            self.free_rows -= 1;
            return Ok(slot);
        }
        let slot = Slot::try_from(self.used_rows).ok().filter(|slot| *slot < ABSENT);
        let slot = slot.ok_or_else(|| Error::resource("a keyed table has more than four billion rows in memory"))?;
        let width = self.width;
        if self.used_rows & (CHUNK_ROWS - 1) == 0 {
            let rows = if self.chunks.is_empty() { 0 } else { CHUNK_ROWS };
            self.chunks.push(Vec::with_capacity(rows * width));
            self.bytes += (rows * width * 8 + size_of::<Vec<u64>>()) as u64;
        }
        let chunk = self.chunks.last_mut().ok_or_else(lost)?;
        if chunk.len() + width > chunk.capacity() {
            let rows = (2 * chunk.len() / width).clamp(8, CHUNK_ROWS);
            let before = chunk.capacity();
            chunk.reserve_exact(rows * width - chunk.len());
            self.bytes += ((chunk.capacity() - before) * 8) as u64;
        }
        chunk.resize(chunk.len() + width, 0);
        self.used_rows += 1;
        Ok(slot)
    }

    /// Gives a row back; its header becomes `header`, in whose low half stands the next free slot.
    pub(super) fn release(&mut self, slot: Slot, header: u64) {
        let next = u64::from(self.free);
        if let Some(word) = self.word_mut(slot, 0) {
            *word = header | next;
            self.free = slot;
            self.free_rows += 1;
        }
    }
}

/// A slot that stands for no row: never happens.
pub(super) fn lost() -> Error {
    Error::internal("a keyed table has lost a row")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_row_is_used_again_and_is_zero() {
        let mut slab = Slab::new(3);
        let slots: Vec<_> = (0..20_000).map(|_| slab.allocate().unwrap()).collect();
        assert_eq!(slots.last(), Some(&19_999));
        slab.row_mut(7).unwrap().fill(9);
        slab.release(7, 1 << 63);
        slab.release(12_345, 1 << 63);
        assert_eq!(slab.len(), 19_998);
        assert_eq!([slab.allocate().unwrap(), slab.allocate().unwrap()], [12_345, 7]);
        assert_eq!(slab.row(7).unwrap(), [0, 0, 0]);
        assert_eq!(slab.allocate().unwrap(), 20_000);
    }

    #[test]
    fn growth_is_foretold() {
        let mut slab = Slab::new(2);
        for step in [1usize, 5, 100, 3_000, 9_000, 1, 50_000] {
            let (before, foretold) = (slab.bytes(), slab.growth_bytes(step));
            for _ in 0..step {
                slab.allocate().unwrap();
            }
            let names = 24 * 64;
            assert!(slab.bytes() <= before + foretold + names, "{step}: {} > {before} + {foretold}", slab.bytes());
        }
    }
}
