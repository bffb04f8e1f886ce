//! The resident layer of a keyed table: rows in memory by key, a write-back cache over sorted runs.
//!
//! A [`ResidentTable`] finds the key of each row of a batch through an `index`, and its words in a `slab`; strings are
//! in `blobs`. What was written since the last barrier is *dirty*, and is listed by key group; [`ResidentTable::seal`]
//! copies just that. When memory nears its limit, dirty rows are flushed into a run and the rows of keys that nobody
//! asked for lately are *evicted*; a key that is absent from a group that was evicted from is looked for in the runs.
//!
//! ```text
//! keys ─▶ hashes ─▶ index entries ─▶ rows            each step over the whole block of keys, so that the waits for
//!                                     │              memory overlap
//!         head: header │ key │ value, or first and last row
//!         row:  header │ next, previous │ head │ sub-key │ value
//! ```
//!
//! The unit of residency is the key: all its rows are in memory, or none. A handle to a row is good until the next call
//! that changes the table.

mod blobs;
mod chain;
mod evict;
mod index;
mod keys;
mod layout;
mod list;
mod lower;
#[cfg(test)]
mod many;
#[cfg(test)]
mod model;
mod order;
mod seal;
mod slab;
mod sorted;
mod sub_index;
mod value;
mod verbs;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, new_empty_array};
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::{KEY_GROUPS, KeyGroupRange, hash_rows};
use ruslo_core::memory::Reservation;
use ruslo_core::time::Timestamp;

use self::blobs::Blobs;
use self::index::{Index, tag_of};
use self::layout::{Encoded, INLINE_MAX, Part, length_of};
pub use self::lower::{Lower, LowerRows};
use self::order::Order;
pub use self::seal::Sealed;
use self::slab::{ABSENT, Slab, Slot, lost};
use self::sorted::Sorted;
use crate::runs::{Kind, TableSchema};

/// The words of a header: flags above, the time bucket of the last write below.
const FREE: u64 = 1 << 63;
/// Not yet sealed or flushed.
const DIRTY: u64 = 1 << 62;
/// How often it was asked for since the clock's hand came by, up to three times.
const USES: u64 = 3 << USES_SHIFT;
const USES_SHIFT: u32 = 57;
const ONE_USE: u64 = 1 << USES_SHIFT;
/// Removed; stays until that is sealed.
const DELETED: u64 = 1 << 60;
/// A row that was removed and is not in the chain of its key any more.
const OFF: u64 = 1 << 61;
/// A run may have an older version.
const STORED: u64 = 1 << 59;

/// Where the key group stands in a header.
const GROUP_SHIFT: u32 = 32;
const GROUP_MASK: u64 = 0x7F;

/// Where the key begins in a head.
const KEY_AT: usize = 1;

/// Keys that go through the steps together.
const BLOCK: usize = 1024;

/// What a key group has of its own.
#[derive(Debug, Default)]
struct Group {
    index: Index,
    /// Rows of keys that have many, in a map.
    rows: Index,
    /// Heads, or rows of chains, that are dirty; each once.
    dirty: Vec<Slot>,
    /// Whether keys of the group may be in runs only.
    is_partial: bool,
}

/// A keyed table in memory.
#[derive(Debug)]
pub struct ResidentTable {
    name: String,
    schema: TableSchema,
    key: Part,
    sub_key: Part,
    value: Part,
    /// The words of a value that was never written.
    unwritten: Vec<u64>,
    owned: KeyGroupRange,
    groups: Vec<Group>,
    index_bytes: u64,
    heads: Slab,
    chains: Slab,
    blobs: Blobs,
    /// How the rows of a key are ordered in a map, and the keys whose rows stand so.
    order: Option<Order>,
    sorted: HashMap<Slot, Sorted>,
    sorted_bytes: u64,
    /// The bucket of what is written now, and the oldest that is alive.
    bucket: u32,
    oldest: u32,
    memory: Reservation,
    lower: Option<Arc<dyn Lower>>,
    /// Sealed, and perhaps not yet in a run.
    pending: Vec<Arc<Sealed>>,
    hand: Slot,
    /// Changes whenever rows may have gone away.
    generation: u64,
    /// How many rows were looked at.
    #[cfg(test)]
    steps: std::cell::Cell<u64>,
}

/// The keys of a batch.
struct Keys {
    columns: Vec<ArrayRef>,
    hashes: Vec<u64>,
    encoded: Encoded,
}

impl Keys {
    fn len(&self) -> usize {
        self.hashes.len()
    }
}

impl ResidentTable {
    /// An empty table `name` of a subtask that owns `owned`, which holds what `memory` says. Without `lower` nothing is
    /// ever evicted, and reaching the limit is an error.
    ///
    /// # Errors
    /// `Usage`, if a column's type cannot be kept.
    pub fn new(
        name: impl Into<String>,
        schema: TableSchema,
        owned: KeyGroupRange,
        memory: Reservation,
        lower: Option<Arc<dyn Lower>>,
    ) -> Result<Self> {
        schema.check()?;
        let none: Vec<ArrayRef> = schema.key.iter().map(|field| new_empty_array(field.data_type())).collect();
        if none.is_empty() {
            return Err(Error::internal("a keyed table has no key"));
        }
        hash_rows(&none, 0)?;
        let key = Part::new(&schema.key, true)?;
        let sub_key = Part::new(&schema.sub_key, true)?;
        let value = Part::new(&schema.value, false)?;
        let in_head = if schema.kind == Kind::Value { value.words() } else { chain::HEAD_WORDS };
        Ok(Self {
            name: name.into(),
            heads: Slab::new(KEY_AT + key.words() + in_head),
            chains: Slab::new(chain::SUB_KEY_AT + sub_key.words() + value.words()),
            unwritten: value.default_words(),
            order: schema.order.as_ref().and_then(|first| Order::new(&sub_key, first)),
            sorted: HashMap::new(),
            sorted_bytes: 0,
            key,
            sub_key,
            value,
            schema,
            owned,
            groups: (0..KEY_GROUPS).map(|_| Group::default()).collect(),
            index_bytes: 0,
            blobs: Blobs::default(),
            bucket: 0,
            oldest: 0,
            memory,
            lower,
            pending: Vec::new(),
            hand: 0,
            generation: 0,
            #[cfg(test)]
            steps: std::cell::Cell::new(0),
        })
    }

    /// Keys in memory, those that were removed since the last barrier among them.
    pub fn resident_keys(&self) -> usize {
        self.heads.len()
    }

    fn move_time(&mut self, now: Timestamp) {
        if let Some(ttl) = self.schema.ttl {
            let units = u64::try_from(now.millis()).unwrap_or(0) / ttl.unit_ms.max(1);
            self.bucket = self.bucket.max(u32::try_from(units).unwrap_or(u32::MAX));
            self.oldest = ttl.oldest_alive(self.bucket);
        }
    }

    /// Says that rows of `bucket` are there: time goes on from it.
    pub fn set_bucket(&mut self, bucket: u32) {
        if let Some(ttl) = self.schema.ttl {
            self.bucket = self.bucket.max(bucket);
            self.oldest = ttl.oldest_alive(self.bucket);
        }
    }

    /// Rows of buckets before this one are expired.
    pub fn oldest_bucket(&self) -> u32 {
        self.oldest
    }

    /// Says that runs may hold rows of every key group: what a restored table begins with.
    pub fn set_partial(&mut self) {
        self.groups.iter_mut().for_each(|group| group.is_partial = true);
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> u64 {
        let dirty: usize = self.groups.iter().map(|group| group.dirty.capacity() * size_of::<Slot>()).sum();
        self.heads.bytes()
            + self.chains.bytes()
            + self.blobs.bytes()
            + self.index_bytes
            + self.sorted_bytes
            + dirty as u64
    }

    fn keys(&self, columns: &[ArrayRef]) -> Result<Keys> {
        let rows = columns.first().map_or(0, |column| column.len());
        let hashes = hash_rows(columns, rows)?;
        if let Some(foreign) = hashes.iter().map(|hash| group_of(*hash)).find(|group| !self.owns(*group)) {
            return Err(Error::internal(format!("key group {foreign} is not of {:?}", self.owned)));
        }
        Ok(Keys { columns: columns.to_vec(), encoded: self.key.encode(columns, rows)?, hashes })
    }

    fn owns(&self, group: usize) -> bool {
        (usize::from(self.owned.start)..usize::from(self.owned.end)).contains(&group)
    }

    #[inline]
    fn is_alive(&self, header: u64) -> bool {
        header & DELETED == 0 && header as u32 >= self.oldest
    }

    /// The slot of each key that is in memory, dead ones among them.
    fn locate(&self, keys: &Keys) -> Vec<Slot> {
        let mut slots = vec![ABSENT; keys.len()];
        for (block, slots) in slots.chunks_mut(BLOCK).enumerate() {
            self.locate_block(keys, block * BLOCK, slots);
        }
        slots
    }

    /// The slots of the keys from row `first`. Every step goes over all of them before the next begins: reads of memory
    /// that do not depend on each other overlap.
    fn locate_block(&self, keys: &Keys, first: usize, slots: &mut [Slot]) {
        let hashes = keys.hashes.get(first..).unwrap_or_default();
        let mut touched = [0u64; BLOCK];
        for (touched, hash) in touched.iter_mut().zip(hashes).take(slots.len()) {
            *touched = self.groups.get(group_of(*hash)).map_or(0, |group| group.index.touch(tag_of(*hash)));
        }
        for ((slot, touched), hash) in slots.iter_mut().zip(&touched).zip(hashes) {
            let tag = tag_of(*hash);
            *slot = Index::told(tag, *touched).unwrap_or_else(|| self.find(*hash, |_| true));
        }
        for (touched, slot) in touched.iter_mut().zip(slots.iter()) {
            *touched = self.heads.word(*slot, KEY_AT);
        }
        if self.key.words() == 1 && self.key.bytes_at().is_empty() {
            let wanted = keys.encoded.words.get(first..).unwrap_or_default();
            for (((slot, touched), wanted), hash) in slots.iter_mut().zip(&touched).zip(wanted).zip(hashes) {
                if *slot != ABSENT && touched != wanted {
                    *slot = self.find(*hash, |slot| self.heads.word(slot, KEY_AT) == *wanted);
                }
            }
            return;
        }
        for (row, (slot, hash)) in slots.iter_mut().zip(hashes).enumerate() {
            if *slot != ABSENT && !self.is_key(*slot, keys, first + row) {
                *slot = self.find(*hash, |slot| self.is_key(slot, keys, first + row));
            }
        }
    }

    #[inline]
    fn find(&self, hash: u64, is_it: impl FnMut(Slot) -> bool) -> Slot {
        self.groups.get(group_of(hash)).map_or(ABSENT, |group| group.index.find(tag_of(hash), is_it))
    }

    fn is_key(&self, slot: Slot, keys: &Keys, row: usize) -> bool {
        let found = self.heads.row(slot).and_then(|head| head.get(KEY_AT..KEY_AT + self.key.words()));
        found.is_some_and(|found| self.is_same(&self.key, found, &keys.encoded, row))
    }

    /// Whether the words of a part in memory are those of a row of `wanted`.
    fn is_same(&self, part: &Part, found: &[u64], wanted: &Encoded, row: usize) -> bool {
        let words = wanted.row(row);
        if part.bytes_at().is_empty() {
            return found == words;
        }
        let mut strings = part.bytes_at().iter().zip(&wanted.strings).peekable();
        found.iter().zip(words).enumerate().all(|(at, (found, word))| {
            let string = strings.next_if(|(string_at, _)| **string_at == at);
            match string {
                Some((_, string)) if length_of(*word) > INLINE_MAX => {
                    length_of(*found) == length_of(*word)
                        && self.blobs.get(*found as u32, length_of(*found)) == string.get(row)
                }
                _ => found == word,
            }
        })
    }

    /// Adds the key of a row, which must be absent; its head is zeros behind the key.
    fn insert(&mut self, keys: &Keys, row: usize) -> Result<Slot> {
        let hash = keys.hashes.get(row).copied().ok_or_else(lost)?;
        let slot = self.heads.allocate()?;
        let head = self.heads.row_mut(slot).ok_or_else(lost)?;
        if let Some(header) = head.first_mut() {
            *header = (group_of(hash) as u64) << GROUP_SHIFT;
        }
        let place = head.get_mut(KEY_AT..KEY_AT + self.key.words()).ok_or_else(lost)?;
        place.copy_from_slice(keys.encoded.row(row));
        keep_strings(&mut self.blobs, &self.key, place, &keys.encoded, row)?;
        let group = self.groups.get_mut(group_of(hash)).ok_or_else(lost)?;
        let before = group.index.bytes();
        group.index.insert(tag_of(hash), slot);
        self.index_bytes = self.index_bytes + group.index.bytes() - before;
        Ok(slot)
    }

    /// The slot of a key that was absent when the batch began: an earlier row of it may have added it.
    fn find_or_insert(&mut self, keys: &Keys, row: usize) -> Result<(Slot, bool)> {
        let hash = keys.hashes.get(row).copied().ok_or_else(lost)?;
        let slot = self.find(hash, |slot| self.is_key(slot, keys, row));
        if slot != ABSENT {
            return Ok((slot, false));
        }
        Ok((self.insert(keys, row)?, true))
    }

    /// Takes the head of a key out of the table.
    fn forget(&mut self, slot: Slot, hash: u64) {
        self.unname(slot, hash);
        self.heads.release(slot, FREE);
    }

    /// Takes a key out of the table, but does not give its head's place back yet.
    fn unname(&mut self, slot: Slot, hash: u64) {
        self.unsort(slot);
        let Some(group) = self.groups.get_mut(group_of(hash)) else { return };
        group.index.remove(tag_of(hash), slot);
        if let Some(head) = self.heads.row(slot) {
            let (key, value) =
                head.get(KEY_AT..).unwrap_or_default().split_at_checked(self.key.words()).unwrap_or_default();
            drop_strings(&mut self.blobs, &self.key, key);
            if self.schema.kind == Kind::Value {
                drop_strings(&mut self.blobs, &self.value, value);
            }
        }
        self.generation += 1;
    }

    /// The group that a key with `hash` is of may have more of it in runs.
    fn is_partial(&self, hash: u64) -> bool {
        self.groups.get(group_of(hash)).is_some_and(|group| group.is_partial)
    }
}

/// A header that was asked for once more.
#[inline]
fn used(header: u64) -> u64 {
    if header & USES == USES { header } else { header + ONE_USE }
}

#[inline]
fn group_of(hash: u64) -> usize {
    (hash % u64::from(KEY_GROUPS)) as usize
}

/// Gives long strings of a row a place, and their words where that is.
fn keep_strings(blobs: &mut Blobs, part: &Part, words: &mut [u64], encoded: &Encoded, row: usize) -> Result<()> {
    for (at, strings) in part.bytes_at().iter().zip(&encoded.strings) {
        if let Some(word) = words.get_mut(*at)
            && length_of(*word) > INLINE_MAX
        {
            *word |= u64::from(blobs.insert(strings.get(row))?);
        }
    }
    Ok(())
}

/// Gives the places of long strings back.
fn drop_strings(blobs: &mut Blobs, part: &Part, words: &[u64]) {
    for word in part.bytes_at().iter().filter_map(|at| words.get(*at)) {
        if length_of(*word) > INLINE_MAX {
            blobs.remove(*word as u32, length_of(*word));
        }
    }
}
