//! A filter of keys: says of most keys that a run does not have them, without looking.
//!
//! One split-block Bloom filter (Putze, Sanders, Singler, 2007; the layout of Parquet's) a key group, about 10 bits a
//! key, 1 % false positives. Blocks are in the order of places, so that keys asked in order touch memory in order.

use ruslo_core::key_group::{KEY_GROUPS, KeyGroupRange};

use crate::runs::rows::group_of;

/// Bits per key.
const BITS: usize = 10;

const SALT: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// 256 bits, in one line of the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(align(32))]
struct Block([u32; 8]);

/// Bytes of a block.
pub(crate) const BLOCK_BYTES: usize = 32;

/// How many group boundaries a filter has.
pub(crate) const BOUNDS: usize = KEY_GROUPS as usize + 1;

/// The filter of a run, or of its part of some key groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// The first key group that is kept.
    first: usize,
    /// The blocks of each.
    groups: Vec<Box<[Block]>>,
}

/// The block of `place` among the `blocks` of its key group.
#[inline]
fn block_of(place: u64, blocks: usize) -> usize {
    ((u128::from(place << 7) * blocks as u128) >> 64) as usize
}

#[inline]
fn bits_of(place: u64) -> [u32; 8] {
    SALT.map(|salt| 1 << ((place as u32).wrapping_mul(salt) >> 27))
}

impl Filter {
    /// Whether the run may have a key at `place`; certainly not, if `false`.
    #[inline]
    pub(crate) fn may_have(&self, place: u64) -> bool {
        let blocks = usize::from(group_of(place)).checked_sub(self.first).and_then(|group| self.groups.get(group));
        let block = blocks.and_then(|blocks| blocks.get(block_of(place, blocks.len())));
        // Without a branch on what memory says: keys asked for one after the other wait for it together.
        block.is_some_and(|block| {
            block.0.iter().zip(bits_of(place)).fold(0, |lack, (word, bit)| lack | (bit & !word)) == 0
        })
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        let blocks: usize = self.groups.iter().map(|blocks| blocks.len()).sum();
        blocks * BLOCK_BYTES + self.groups.len() * size_of::<Box<[Block]>>()
    }

    /// As it is stored: where each key group's blocks begin, where the last one's end, and the blocks.
    pub(crate) fn words(&self) -> impl Iterator<Item = u32> {
        let ends = self.groups.iter().scan(0, |end, blocks| {
            *end += blocks.len() as u32;
            Some(*end)
        });
        std::iter::once(0).chain(ends).chain(self.groups.iter().flatten().flat_map(|block| block.0))
    }

    /// The filter in `bytes`, of the key groups `kept` only; `None` if the bytes are no filter.
    pub(crate) fn decode(bytes: &[u8], kept: &KeyGroupRange) -> Option<Self> {
        let (bounds, blocks) = bytes.split_at_checked(BOUNDS * 4)?;
        let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
        let bounds: Vec<u32> = bounds.as_chunks::<4>().0.iter().map(word).collect();
        let whole = bounds.first() == Some(&0)
            && bounds.is_sorted()
            && bounds.last().is_some_and(|last| *last as usize * BLOCK_BYTES == blocks.len());
        if !whole {
            return None;
        }
        let block = |bytes: &[u8; BLOCK_BYTES]| {
            let mut words = bytes.as_chunks::<4>().0.iter().map(word);
            Block([(); 8].map(|()| words.next().unwrap_or_default()))
        };
        let blocks = blocks.as_chunks::<BLOCK_BYTES>().0;
        let kept = usize::from(kept.start)..usize::from(kept.end);
        let groups = kept.clone().map(|group| {
            let (from, to) = (bounds.get(group)?, bounds.get(group + 1)?);
            Some(blocks.get(*from as usize..*to as usize)?.iter().map(block).collect())
        });
        Some(Self { first: kept.start, groups: groups.collect::<Option<_>>()? })
    }
}

/// Collects the keys of a run, whose places ascend.
#[derive(Debug, Default)]
pub(crate) struct FilterBuilder {
    /// The key groups that are done, and the places of the keys of the next.
    groups: Vec<Box<[Block]>>,
    places: Vec<u64>,
}

impl FilterBuilder {
    /// Adds a key.
    pub(crate) fn add(&mut self, place: u64) {
        self.close_through(usize::from(group_of(place)));
        self.places.push(place);
    }

    #[inline]
    fn close_through(&mut self, next: usize) {
        while self.groups.len() < next {
            self.close();
        }
    }

    fn close(&mut self) {
        let mut blocks = vec![Block::default(); (self.places.len() * BITS).div_ceil(256)].into_boxed_slice();
        for place in self.places.drain(..) {
            if let Some(block) = blocks.get_mut(block_of(place, blocks.len())) {
                block.0.iter_mut().zip(bits_of(place)).for_each(|(word, bit)| *word |= bit);
            }
        }
        self.groups.push(blocks);
    }

    /// The filter of all keys.
    pub(crate) fn finish(mut self) -> Filter {
        self.close_through(usize::from(KEY_GROUPS));
        Filter { first: 0, groups: self.groups }
    }
}

#[cfg(test)]
mod tests {
    use ruslo_core::rng::Rng;

    use super::*;

    fn places(seed: u64, count: usize) -> Vec<u64> {
        let mut rng = Rng::seeded(seed);
        let mut places: Vec<_> = (0..count).map(|_| rng.next_u64()).collect();
        places.sort_unstable();
        places
    }

    fn filter(places: &[u64]) -> Filter {
        let mut builder = FilterBuilder::default();
        places.iter().for_each(|place| builder.add(*place));
        builder.finish()
    }

    #[test]
    fn every_key_is_found_and_two_in_a_hundred_others_at_most() {
        let kept = places(1, 100_000);
        let filter = filter(&kept);
        assert!(kept.iter().all(|place| filter.may_have(*place)));
        let wrong = places(2, 100_000).iter().filter(|place| filter.may_have(**place)).count();
        assert!(wrong < 2_000, "{wrong}");
        assert!(filter.bytes() < 100_000 * 10 / 8 + 128 * 40, "{}", filter.bytes());
    }

    #[test]
    fn a_part_of_the_key_groups_has_the_same_answers() {
        let kept = places(3, 5_000);
        let whole = filter(&kept);
        let bytes: Vec<u8> = whole.words().flat_map(u32::to_le_bytes).collect();
        let part = Filter::decode(&bytes, &(40..80)).unwrap();
        assert!(part.bytes() < whole.bytes());
        for place in kept.iter().chain(&places(4, 5_000)) {
            let inside = (40..80).contains(&group_of(*place));
            assert!(!inside || part.may_have(*place) == whole.may_have(*place));
        }
        assert_eq!(Filter::decode(&bytes, &(0..128)).unwrap(), whole);
        assert!(Filter::decode(&bytes[..bytes.len() - 1], &(0..128)).is_none());
    }

    #[test]
    fn no_keys_is_nothing() {
        assert!(!filter(&[]).may_have(7));
    }
}
