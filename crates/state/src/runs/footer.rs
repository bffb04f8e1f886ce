//! The end of a run: where its blocks are, its filter, and what it amounts to.

use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::KeyGroupRange;

use crate::runs::filter::Filter;

/// The format version of a run that this build writes, and the newest that it reads.
pub(crate) const RUN_VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"rusloKR\n";

/// Bytes of the trailer.
pub(crate) const TRAILER_BYTES: usize = 72;

/// The trailer up to its own checksum.
const CHECKED_BYTES: usize = 56;

/// What a run amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Rows, those that delete among them.
    pub(crate) rows: u64,
    /// Keys: distinct places.
    pub(crate) keys: u64,
    /// Rows that delete or clear.
    pub(crate) deletes: u64,
    /// The oldest bucket of a row.
    pub(crate) oldest: u32,
    /// The newest.
    pub(crate) newest: u32,
}

impl Default for Summary {
    fn default() -> Self {
        Self { rows: 0, keys: 0, deletes: 0, oldest: u32::MAX, newest: 0 }
    }
}

/// Where the blocks of a run, or of its part of some key groups, are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    /// The place of each block's first row, ascending.
    pub(crate) first: Vec<u64>,
    /// Where each begins, from the start of the run, and where the last one ends.
    pub(crate) offset: Vec<u64>,
    /// The checksum of each.
    pub(crate) crc32: Vec<u32>,
}

impl Index {
    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.first.len() * 8 + self.offset.len() * 8 + self.crc32.len() * 4
    }

    /// Gives memory back that nothing is kept in.
    pub(crate) fn shrink(&mut self) {
        self.first.shrink_to_fit();
        self.offset.shrink_to_fit();
        self.crc32.shrink_to_fit();
    }

    /// The blocks that may have rows of `groups`.
    fn cut(self, groups: &KeyGroupRange) -> Self {
        let from = u64::from(groups.start) << 57;
        let start = self.first.partition_point(|first| *first < from).saturating_sub(1);
        // The end of all key groups is past the last number.
        let end = match u64::from(groups.end).checked_mul(1 << 57) {
            Some(to) => self.first.partition_point(|first| *first < to),
            None => self.first.len(),
        };
        let end = end.max(start);
        Self {
            first: self.first.get(start..end).unwrap_or_default().to_vec(),
            offset: self.offset.get(start..=end).unwrap_or_default().to_vec(),
            crc32: self.crc32.get(start..end).unwrap_or_default().to_vec(),
        }
    }
}

/// Hands the bytes after the stream, footer and trailer, to `out`. In pieces: those of a large run would be as much
/// memory as its index and filter.
pub(crate) fn encode(
    summary: &Summary,
    index: &Index,
    filter: &Filter,
    out: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut pieces = Pieces { out, gathered: Vec::new(), length: 0, crc32: crc32fast::Hasher::new() };
    let (end, offsets) = index.offset.split_last().map_or((0, [].as_slice()), |(end, offsets)| (*end, offsets));
    index.first.iter().chain(offsets).try_for_each(|number| pieces.put(&number.to_le_bytes()))?;
    index.crc32.iter().try_for_each(|crc32| pieces.put(&crc32.to_le_bytes()))?;
    pieces.put(&end.to_le_bytes())?;
    filter.words().try_for_each(|word| pieces.put(&word.to_le_bytes()))?;
    pieces.flush()?;
    let trailer = trailer(summary, index.first.len() as u64, pieces.length, pieces.crc32.finalize());
    out(&trailer)
}

/// Bytes handed on together.
const PIECE_BYTES: usize = 64 << 10;

/// Bytes on their way out, counted and summed up.
struct Pieces<'a> {
    out: &'a mut dyn FnMut(&[u8]) -> Result<()>,
    gathered: Vec<u8>,
    length: u64,
    crc32: crc32fast::Hasher,
}

impl Pieces<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.crc32.update(&self.gathered);
        self.length += self.gathered.len() as u64;
        (self.out)(&self.gathered)?;
        self.gathered.clear();
        Ok(())
    }
}

fn trailer(summary: &Summary, blocks: u64, footer_bytes: u64, footer_crc32: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(TRAILER_BYTES);
    [summary.rows, summary.keys, summary.deletes].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    [summary.oldest, summary.newest].iter().for_each(|bucket| bytes.extend(bucket.to_le_bytes()));
    [blocks, footer_bytes].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    [footer_crc32, 0].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    let crc32 = crc32fast::hash(&bytes);
    [crc32, RUN_VERSION].iter().for_each(|number| bytes.extend(number.to_le_bytes()));
    bytes.extend(MAGIC);
    bytes
}

/// What a trailer says.
#[derive(Debug)]
pub(crate) struct Trailer {
    /// What the run amounts to.
    pub(crate) summary: Summary,
    /// How many blocks it has.
    blocks: u64,
    /// How long the footer before the trailer is, in bytes.
    pub(crate) footer_bytes: u64,
    footer_crc32: u32,
}

/// Reads numbers from the front of some bytes.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn u64(&mut self) -> u64 {
        let Some((number, rest)) = self.0.split_first_chunk::<8>() else { return 0 };
        self.0 = rest;
        u64::from_le_bytes(*number)
    }

    fn u32(&mut self) -> u32 {
        let Some((number, rest)) = self.0.split_first_chunk::<4>() else { return 0 };
        self.0 = rest;
        u32::from_le_bytes(*number)
    }
}

impl Trailer {
    /// The trailer in the last bytes of a run.
    ///
    /// # Errors
    /// `Corrupt`, if it is none; `Usage`, if a newer Ruslo wrote it. Without the file's name.
    pub(crate) fn decode(bytes: &[u8; TRAILER_BYTES]) -> Result<Self> {
        let (checked, rest) = bytes.split_at(CHECKED_BYTES);
        let mut rest = Numbers(rest);
        let (crc32, version) = (rest.u32(), rest.u32());
        if rest.0 != MAGIC || crc32fast::hash(checked) != crc32 {
            return Err(Error::corrupt("this does not end as a run of a keyed table"));
        }
        if version != RUN_VERSION {
            return Err(Error::usage(format!(
                "a run written by a newer Ruslo (format {version}; this one reads up to {RUN_VERSION}); use that one"
            )));
        }
        let mut numbers = Numbers(checked);
        let (rows, keys, deletes) = (numbers.u64(), numbers.u64(), numbers.u64());
        let (oldest, newest) = (numbers.u32(), numbers.u32());
        let summary = Summary { rows, keys, deletes, oldest, newest };
        let (blocks, footer_bytes, footer_crc32) = (numbers.u64(), numbers.u64(), numbers.u32());
        Ok(Self { summary, blocks, footer_bytes, footer_crc32 })
    }

    /// Index and filter of the key groups `kept`, from the footer's bytes.
    ///
    /// # Errors
    /// `Corrupt`, without the file's name.
    pub(crate) fn decode_footer(&self, bytes: &[u8], kept: &KeyGroupRange) -> Result<(Index, Filter)> {
        let damaged = || Error::corrupt("the footer of a run is damaged");
        if crc32fast::hash(bytes) != self.footer_crc32 {
            return Err(damaged());
        }
        let blocks = usize::try_from(self.blocks).map_err(|_| damaged())?;
        let part = |bytes: usize| blocks.checked_mul(bytes).ok_or_else(damaged);
        let (first, rest) = bytes.split_at_checked(part(8)?).ok_or_else(damaged)?;
        let (offset, rest) = rest.split_at_checked(part(8)?).ok_or_else(damaged)?;
        let (crc32, rest) = rest.split_at_checked(part(4)?).ok_or_else(damaged)?;
        let (end, filter) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
        let longs = |bytes: &[u8]| -> Vec<u64> {
            bytes.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
        };
        let mut offset = longs(offset);
        offset.push(u64::from_le_bytes(*end));
        let crc32 = crc32.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        let index = Index { first: longs(first), offset, crc32 };
        if !index.first.is_sorted() || !index.offset.is_sorted() {
            return Err(damaged());
        }
        let filter = Filter::decode(filter, kept).ok_or_else(damaged)?;
        Ok((index.cut(kept), filter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runs::filter::FilterBuilder;

    fn bytes() -> Vec<u8> {
        let mut filter = FilterBuilder::default();
        [5, 1 << 57, 3 << 57].iter().for_each(|place| filter.add(*place));
        let index = Index {
            first: vec![5, 1 << 57, (1 << 57) + 9, 3 << 57],
            offset: vec![100, 200, 300, 400, 500],
            crc32: vec![1, 2, 3, 4],
        };
        let summary = Summary { rows: 9, keys: 3, deletes: 1, oldest: 4, newest: 6 };
        let mut bytes = Vec::new();
        let mut add = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            Ok(())
        };
        encode(&summary, &index, &filter.finish(), &mut add).unwrap();
        bytes
    }

    fn decoded(bytes: &[u8], kept: KeyGroupRange) -> Result<(Summary, Index)> {
        let (footer, trailer) = bytes.split_last_chunk::<TRAILER_BYTES>().unwrap();
        let trailer = Trailer::decode(trailer)?;
        assert_eq!(trailer.footer_bytes, footer.len() as u64);
        Ok((trailer.summary, trailer.decode_footer(footer, &kept)?.0))
    }

    #[test]
    fn what_is_written_is_read_and_cut() {
        let (summary, index) = decoded(&bytes(), 0..128).unwrap();
        assert_eq!(summary, Summary { rows: 9, keys: 3, deletes: 1, oldest: 4, newest: 6 });
        assert_eq!(index.offset, [100, 200, 300, 400, 500]);
        // The rows of group 1 may begin in the block before, and do not reach the one of group 3.
        assert_eq!(decoded(&bytes(), 1..2).unwrap().1.offset, [100, 200, 300, 400]);
        assert_eq!(decoded(&bytes(), 2..128).unwrap().1.offset, [300, 400, 500]);
        assert_eq!(decoded(&bytes(), 0..1).unwrap().1.crc32, [1]);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let whole = bytes();
        for byte in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1 << (byte % 8);
            // The version may read as another one.
            assert!(decoded(&damaged, 0..128).is_err(), "byte {byte}");
        }
    }
}
