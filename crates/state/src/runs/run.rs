//! A run that is open: its index and filter in memory, its blocks on disk.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow::buffer::Buffer;
use ruslo_core::disk::{Disk, DiskFile, DiskWriter};
use ruslo_core::error::{Error, ErrorKind, Result};
use ruslo_core::key_group::KeyGroupRange;

use crate::manifest::{RunLayout, RunRef};
use crate::runs::block::{Block, Decoder};
use crate::runs::fetched::{Fetched, Temporary};
use crate::runs::filter::Filter;
use crate::runs::footer::{Index, Summary, TRAILER_BYTES, Trailer};
use crate::runs::schema::TableSchema;
use crate::runs::writer::Written;

/// An immutable run, or its part of some key groups.
pub struct Run {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    /// Where in the file it begins.
    base: u64,
    length: u64,
    crc32: u32,
    groups: KeyGroupRange,
    decoder: Decoder,
    summary: Summary,
    index: Index,
    filter: Filter,
    /// One bit a block whose checksum was compared.
    checked: Vec<AtomicU64>,
    /// Made by this process, not synced yet.
    unsynced: Mutex<Option<Box<dyn DiskWriter>>>,
    /// If the file is this process's own: it goes with the last reader.
    _temporary: Option<Arc<Temporary>>,
    /// Where a checkpoint has it.
    stored: OnceLock<RunRef>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("path", &self.path).field("groups", &self.groups).finish_non_exhaustive()
    }
}

/// What the index has of a block.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Which block.
    pub(crate) block: usize,
    span: Range<u64>,
    crc32: u32,
    is_checked: bool,
}

/// Where in a file a run is, and what is to be kept of it.
struct Place<'a> {
    path: &'a Path,
    base: u64,
    length: u64,
    crc32: u32,
    groups: KeyGroupRange,
}

/// What is held of a run in memory.
struct Parts {
    summary: Summary,
    index: Index,
    filter: Filter,
}

/// What is known of a run's file.
#[derive(Default)]
struct Origin {
    unsynced: Option<Box<dyn DiskWriter>>,
    temporary: Option<Arc<Temporary>>,
    stored: Option<RunRef>,
}

impl Run {
    /// The run that was just written, all of whose rows are of `groups`: index and filter are taken over.
    pub(crate) fn written(
        disk: &Arc<dyn Disk>,
        written: Written,
        groups: &KeyGroupRange,
        schema: &TableSchema,
    ) -> Result<Self> {
        let Written { path, file, length, crc32, summary, index, filter } = written;
        let place = Place { path: &path, base: 0, length, crc32, groups: groups.clone() };
        let temporary = Some(Arc::new(Temporary::new(Arc::clone(disk), path.clone())));
        let origin = Origin { unsynced: Some(file), temporary, stored: None };
        let file = disk.open_at(&path)?;
        Ok(Self::of(file, place, schema, Parts { summary, index, filter }, origin))
    }

    /// A run of a checkpoint, cut to the key groups that both it and `wanted` have. Its checksum as a whole is the
    /// caller's business.
    ///
    /// # Errors
    /// `Corrupt`, naming the file; `Usage`, if a newer Ruslo wrote it.
    pub(crate) fn open(from: &Fetched, wanted: &KeyGroupRange, schema: &TableSchema) -> Result<Self> {
        let reference = &from.reference;
        let start = wanted.start.max(reference.groups.start);
        let groups = start..wanted.end.min(reference.groups.end).max(start);
        let stored = Some(RunRef { groups: groups.clone(), ..reference.clone() });
        let (length, crc32) = (reference.length, reference.crc32);
        let place = Place { path: &from.path, base: from.base, length, crc32, groups };
        Self::open_at(&from.disk, place, schema, Origin { unsynced: None, temporary: from.copy.clone(), stored })
    }

    fn open_at(disk: &Arc<dyn Disk>, place: Place<'_>, schema: &TableSchema, origin: Origin) -> Result<Self> {
        let named = |error: Error| error.context(place.path.display());
        let file = disk.open_at(place.path)?;
        let end = place.length.checked_sub(TRAILER_BYTES as u64);
        let end = end.ok_or_else(|| named(Error::corrupt("it is too short for a run")))?;
        let mut bytes = [0; TRAILER_BYTES];
        read_at(&*file, place.path, place.base + end, &mut bytes)?;
        let trailer = Trailer::decode(&bytes).map_err(named)?;
        let start = end.checked_sub(trailer.footer_bytes);
        let start = start.ok_or_else(|| named(Error::corrupt("the footer of a run is longer than the run")))?;
        let mut footer = vec![0; trailer.footer_bytes as usize];
        read_at(&*file, place.path, place.base + start, &mut footer)?;
        let (index, filter) = trailer.decode_footer(&footer, &place.groups).map_err(named)?;
        Ok(Self::of(file, place, schema, Parts { summary: trailer.summary, index, filter }, origin))
    }

    fn of(file: Box<dyn DiskFile>, place: Place<'_>, schema: &TableSchema, parts: Parts, origin: Origin) -> Self {
        let Parts { summary, index, filter } = parts;
        Self {
            checked: (0..index.first.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            path: place.path.to_owned(),
            file,
            base: place.base,
            length: place.length,
            crc32: place.crc32,
            groups: place.groups,
            decoder: Decoder::new(schema),
            summary,
            index,
            filter,
            unsynced: Mutex::new(origin.unsynced),
            _temporary: origin.temporary,
            stored: origin.stored.map(OnceLock::from).unwrap_or_default(),
        }
    }

    /// The key groups that are meant; rows of others may be in the file.
    pub fn groups(&self) -> &KeyGroupRange {
        &self.groups
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the whole run in its file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Rows of the whole run, of all its key groups.
    pub fn rows(&self) -> u64 {
        self.summary.rows
    }

    /// CRC-32 of the whole run.
    pub fn crc32(&self) -> u32 {
        self.crc32
    }

    /// The newest time bucket of a row.
    pub fn newest_bucket(&self) -> u32 {
        self.summary.newest
    }

    /// Bytes of the blocks that have the key groups meant: what a merge would read.
    pub(crate) fn live_bytes(&self) -> u64 {
        let ends = self.index.offset.first().zip(self.index.offset.last());
        ends.map_or(0, |(start, end)| end - start)
    }

    /// Bytes held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.index.bytes() + self.filter.bytes() + self.checked.len() * 8
    }

    /// Where a checkpoint has it, if one has.
    pub fn stored(&self) -> Option<&RunRef> {
        self.stored.get()
    }

    /// How a manifest names it, once it is the file `file` of a store.
    pub(crate) fn reference(&self, file: String) -> RunRef {
        RunRef {
            file,
            offset: 0,
            length: self.length,
            crc32: self.crc32,
            rows: self.summary.rows,
            bucket: i64::from(self.summary.newest),
            groups: self.groups.clone(),
            layout: RunLayout::Keyed,
        }
    }

    /// Says where a checkpoint has it.
    pub fn set_stored(&self, reference: RunRef) {
        // A run is uploaded by one checkpoint at a time.
        let _ = self.stored.set(reference);
    }

    /// Returns once every byte would survive a power cut.
    pub fn sync(&self) -> Result<()> {
        let mut file = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut file) = file.take() {
            file.sync().map_err(|e| Error::io(self.path.display(), &e))?;
        }
        Ok(())
    }

    /// Whether the run may have a key at `place`.
    #[inline]
    pub(crate) fn may_have(&self, place: u64) -> bool {
        self.filter.may_have(place)
    }

    /// How many blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.index.first.len()
    }

    /// The place of the first row of a block.
    pub(crate) fn first_place(&self, block: usize) -> Option<u64> {
        self.index.first.get(block).copied()
    }

    /// The first block that may have rows at `place`; `from` is one not after it.
    pub(crate) fn block_of(&self, place: u64, from: usize) -> usize {
        let first = self.index.first.get(from..).unwrap_or_default();
        from + gallop(first, place).saturating_sub(1)
    }

    /// Reads one block.
    pub(crate) fn read_block(&self, block: usize) -> Result<Block> {
        let bytes = self.read_bytes(block, block + 1)?;
        self.decode(block, &bytes)
    }

    /// The bytes of the blocks from `start` to before `end`.
    pub(crate) fn read_bytes(&self, start: usize, end: usize) -> Result<Buffer> {
        let from = self.span(start, end)?;
        let mut bytes = vec![0; (from.end - from.start) as usize];
        read_at(&*self.file, &self.path, self.base + from.start, &mut bytes)?;
        Ok(Buffer::from_vec(bytes))
    }

    /// Where in the run the blocks from `start` to before `end` are; their offsets ascend.
    fn span(&self, start: usize, end: usize) -> Result<Range<u64>> {
        let ends = self.index.offset.get(start).zip(self.index.offset.get(end));
        ends.map(|(from, to)| *from..*to).ok_or_else(|| Error::internal("a block of a run is out of range"))
    }

    /// How many blocks from `start` on are `bytes` long together; at least one, if there is one.
    pub(crate) fn blocks_within(&self, start: usize, bytes: u64) -> usize {
        let offsets = self.index.offset.get(start..).unwrap_or_default();
        let limit = offsets.first().map_or(0, |first| first + bytes);
        let count = offsets.partition_point(|offset| *offset <= limit).saturating_sub(1);
        count.max(1).min(self.blocks().saturating_sub(start))
    }

    /// Bytes from the beginning of block `start` to that of `block`.
    pub(crate) fn distance(&self, start: usize, block: usize) -> usize {
        let offset = |block: usize| self.index.offset.get(block).copied().unwrap_or_default();
        offset(block).saturating_sub(offset(start)) as usize
    }

    /// What the index has of a block: all that reading it takes out of memory.
    pub(crate) fn entry(&self, block: usize) -> Result<Entry> {
        let (word, bit) = self.checked_bit(block);
        Ok(Entry {
            block,
            span: self.span(block, block + 1)?,
            crc32: self.index.crc32.get(block).copied().unwrap_or_default(),
            is_checked: word.is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0),
        })
    }

    /// Fills `bytes` with a block, whose checksum is compared if it never was.
    pub(crate) fn read_into(&self, entry: &Entry, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.resize((entry.span.end - entry.span.start) as usize, 0);
        read_at(&*self.file, &self.path, self.base + entry.span.start, bytes)?;
        if entry.is_checked { Ok(()) } else { self.check(entry, bytes) }
    }

    /// The block whose bytes are `bytes`; its checksum is compared if it never was.
    pub(crate) fn decode(&self, block: usize, bytes: &Buffer) -> Result<Block> {
        let entry = self.entry(block)?;
        if !entry.is_checked {
            self.check(&entry, bytes)?;
        }
        self.decoder.decode(bytes).map_err(|error| self.damaged(block, error))
    }

    /// Where is kept whether the checksum of a block was compared.
    fn checked_bit(&self, block: usize) -> (Option<&AtomicU64>, u64) {
        (self.checked.get(block / 64), 1 << (block % 64))
    }

    fn check(&self, entry: &Entry, bytes: &[u8]) -> Result<()> {
        if entry.crc32 != crc32fast::hash(bytes) {
            return Err(self.damaged(entry.block, Error::corrupt("the checksum does not fit")));
        }
        let (word, bit) = self.checked_bit(entry.block);
        word.map(|word| word.fetch_or(bit, Ordering::Relaxed));
        Ok(())
    }

    /// An error over a block, which names it if it is damaged.
    pub(crate) fn damaged(&self, block: usize, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Corrupt => error.context(format!("{}, block {block}", self.path.display())),
            _ => error,
        }
    }

    /// An error over rows, which names the file if they are damaged.
    pub(crate) fn named(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Corrupt => error.context(self.path.display()),
            _ => error,
        }
    }
}

/// How many of the ascending `numbers` are below `number`, looked for from where an even spread would have it.
fn gallop(numbers: &[u64], number: u64) -> usize {
    let (Some(low), Some(high)) = (numbers.first(), numbers.last()) else { return 0 };
    if number <= *low {
        return 0;
    }
    if number > *high {
        return numbers.len();
    }
    let part = u128::from(number - low) * numbers.len() as u128 / u128::from((high - low).max(1));
    let guess = (part as usize).min(numbers.len() - 1);
    let below = |at: usize| numbers.get(at).is_some_and(|other| *other < number);
    let (mut from, mut to, mut step) = (guess, numbers.len(), 16);
    if below(guess) {
        while from + step < to && below(from + step) {
            from += step;
            step *= 2;
        }
        to = to.min(from + step);
    } else {
        to = guess;
        while to > step && !below(to - step) {
            to -= step;
            step *= 2;
        }
        from = to.saturating_sub(step);
    }
    from + numbers.get(from..to).unwrap_or_default().partition_point(|other| *other < number)
}

fn read_at(file: &dyn DiskFile, path: &Path, offset: u64, bytes: &mut [u8]) -> Result<()> {
    file.read_at(offset, bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => {
            Error::corrupt(format!("{}: the file ends before byte {}", path.display(), offset + bytes.len() as u64))
        }
        _ => Error::io(path.display(), &error),
    })
}

#[cfg(test)]
mod tests {
    use ruslo_core::rng::Rng;

    use super::*;

    #[test]
    fn galloping_finds_what_counting_finds() {
        let mut rng = Rng::seeded(1);
        for length in [0, 1, 2, 5, 100, 1_000] {
            let spread = [u64::MAX, 50][rng.below(2)];
            let mut numbers: Vec<_> = (0..length).map(|_| rng.next_u64() % spread).collect();
            numbers.sort_unstable();
            let others: Vec<_> = (0..200).map(|_| rng.next_u64() % spread).collect();
            for number in numbers.iter().copied().chain(others).chain([0, u64::MAX]) {
                let expected = numbers.iter().filter(|other| **other < number).count();
                assert_eq!(gallop(&numbers, number), expected, "{number} in {numbers:?}");
            }
        }
    }
}
