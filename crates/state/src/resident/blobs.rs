//! Byte strings of any length: units of equal size in chunks, one list of chunks a size.
//!
//! Sizes go up in quarters of a power of two, so at most a fifth of a unit is empty. A string that is longer than the
//! largest unit has a buffer of its own.

use ruslo_core::error::{Error, Result};

/// Where a byte string is; means something together with its length only.
pub(super) type BlobRef = u32;

const NONE: u32 = u32::MAX;
const UNIT_MIN: usize = 8;
const UNIT_MAX: usize = 32 << 10;
const CHUNK_BYTES: usize = 256 << 10;

/// Byte strings.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    classes: Vec<Class>,
    large: Vec<Vec<u8>>,
    large_free: Vec<u32>,
    bytes: u64,
    free_bytes: u64,
}

#[derive(Debug)]
struct Class {
    unit: usize,
    /// Units in a chunk, as a power of two.
    shift: u32,
    chunks: Vec<Vec<u8>>,
    free: u32,
    used: u32,
}

/// Which size holds `length` bytes; sizes are 8, 16, 24, 32, then quarters of a power of two.
fn class_of(length: usize) -> usize {
    let length = length.max(1);
    if length <= 32 {
        return length.div_ceil(8) - 1;
    }
    let power = (length - 1).ilog2(); // 2^power <= length - 1, at least 5
    let quarter = (length - 1 - (1 << power)) >> (power - 2);
    4 + (power as usize - 5) * 4 + quarter
}

/// The size of a class.
fn unit_of(class: usize) -> usize {
    if class < 4 {
        return UNIT_MIN * (class + 1);
    }
    let (power, quarter) = (5 + (class - 4) / 4, (class - 4) % 4 + 1);
    (1 << power) + (quarter << (power - 2))
}

impl Class {
    fn new(unit: usize) -> Self {
        let shift = (CHUNK_BYTES / unit).max(8).ilog2();
        Self { unit, shift, chunks: Vec::new(), free: NONE, used: 0 }
    }

    fn unit(&self, at: BlobRef) -> Option<&[u8]> {
        let start = (at as usize & ((1 << self.shift) - 1)) * self.unit;
        self.chunks.get((at >> self.shift) as usize)?.get(start..start + self.unit)
    }

    fn unit_mut(&mut self, at: BlobRef) -> Option<&mut [u8]> {
        let start = (at as usize & ((1 << self.shift) - 1)) * self.unit;
        self.chunks.get_mut((at >> self.shift) as usize)?.get_mut(start..start + self.unit)
    }

    /// A free unit, and the bytes that had to be allocated for it.
    fn allocate(&mut self) -> Result<(BlobRef, u64)> {
        if self.free != NONE {
            let at = self.free;
            let next = self.unit(at).and_then(|unit| unit.first_chunk::<4>());
            self.free = next.map_or(NONE, |next| u32::from_le_bytes(*next));
            return Ok((at, 0));
        }
        let at = self.used;
        self.used =
            at.checked_add(1).ok_or_else(|| Error::resource("a keyed table holds more than four billion strings"))?;
        if at & ((1 << self.shift) - 1) == 0 {
            self.chunks.push(Vec::new());
        }
        let (is_first, unit, full) = (self.chunks.len() == 1, self.unit, self.unit << self.shift);
        let Some(chunk) = self.chunks.last_mut() else { return Ok((at, 0)) };
        let before = chunk.capacity();
        if chunk.len() + unit > before {
            let wanted = if is_first { (2 * chunk.len()).clamp(unit * 8, full) } else { full };
            chunk.reserve_exact(wanted - chunk.len());
        }
        chunk.resize(chunk.len() + unit, 0);
        Ok((at, (chunk.capacity() - before) as u64))
    }

    fn release(&mut self, at: BlobRef) {
        let next = self.free.to_le_bytes();
        if let Some(place) = self.unit_mut(at).and_then(|unit| unit.first_chunk_mut::<4>()) {
            *place = next;
            self.free = at;
        }
    }
}

impl Blobs {
    /// Bytes allocated.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes of units that are allocated and hold nothing.
    pub(super) fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// The string of `length` bytes at `at`.
    #[inline]
    pub(super) fn get(&self, at: BlobRef, length: usize) -> &[u8] {
        let unit = if length > UNIT_MAX {
            self.large.get(at as usize).map(Vec::as_slice)
        } else {
            self.classes.get(class_of(length)).and_then(|class| class.unit(at))
        };
        unit.and_then(|unit| unit.get(..length)).unwrap_or_default()
    }

    /// Keeps a string.
    ///
    /// # Errors
    /// `Resource`, beyond four billion of one size.
    pub(super) fn insert(&mut self, bytes: &[u8]) -> Result<BlobRef> {
        if bytes.len() > UNIT_MAX {
            return Ok(self.insert_large(bytes));
        }
        let class = class_of(bytes.len());
        while self.classes.len() <= class {
            self.classes.push(Class::new(unit_of(self.classes.len())));
        }
        let Some(class) = self.classes.get_mut(class) else { return Ok(NONE) };
        let (at, grown) = class.allocate()?;
        self.bytes += grown;
        self.free_bytes = (self.free_bytes + grown).saturating_sub(class.unit as u64);
        if let Some(place) = class.unit_mut(at).and_then(|unit| unit.get_mut(..bytes.len())) {
            place.copy_from_slice(bytes);
        }
        Ok(at)
    }

    fn insert_large(&mut self, bytes: &[u8]) -> BlobRef {
        self.bytes += bytes.len() as u64;
        if let Some((at, place)) = self.large_free.pop().and_then(|at| Some((at, self.large.get_mut(at as usize)?))) {
            *place = bytes.to_vec();
            return at;
        }
        self.large.push(bytes.to_vec());
        (self.large.len() - 1) as BlobRef
    }

    /// Gives a string's place back.
    pub(super) fn remove(&mut self, at: BlobRef, length: usize) {
        if length > UNIT_MAX {
            if let Some(gone) = self.large.get_mut(at as usize) {
                self.bytes -= gone.len() as u64;
                *gone = Vec::new();
                self.large_free.push(at);
            }
        } else if let Some(class) = self.classes.get_mut(class_of(length)) {
            class.release(at);
            self.free_bytes += class.unit as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use ruslo_core::rng::Rng;

    use super::*;

    #[test]
    fn every_length_fits_its_class_with_at_most_a_fifth_to_spare() {
        for length in 1..=UNIT_MAX {
            let unit = unit_of(class_of(length));
            assert!(unit >= length, "{length} in {unit}");
            assert!(length <= 32 || unit - length < unit / 5 + 8, "{length} in {unit}");
            assert!(class_of(length) == 0 || unit_of(class_of(length) - 1) < length, "{length} in {unit}");
        }
    }

    #[test]
    fn strings_come_back_as_they_were_and_places_are_used_again() {
        let (mut rng, mut blobs, mut model) = (Rng::seeded(5), Blobs::default(), Vec::new());
        let mut peak = 0;
        for step in 0..30_000usize {
            if rng.below(500) > model.len() {
                let length = [rng.below(20), rng.below(300), rng.below(70_000)]
                    [usize::from(step % 10 == 0) + usize::from(step % 100 == 0)];
                let bytes = vec![step as u8; length];
                model.push((blobs.insert(&bytes).unwrap(), bytes));
            } else {
                let (at, bytes) = model.swap_remove(rng.below(model.len()));
                assert_eq!(blobs.get(at, bytes.len()), bytes);
                blobs.remove(at, bytes.len());
            }
            if step == 15_000 {
                peak = blobs.bytes();
            }
        }
        assert!(model.iter().all(|(at, bytes)| blobs.get(*at, bytes.len()) == bytes));
        assert!(blobs.bytes() < 3 * peak, "{} after {peak}", blobs.bytes());
    }
}
