//! Staying within the memory limit: flush, evict, and load again what is asked for.

use arrow::array::UInt32Array;
use arrow::compute::take;
use ruslo_core::error::{Error, Result};
use ruslo_core::memory::{batch_bytes, human_bytes};

use super::slab::{ABSENT, Slot, lost};
use super::{
    DELETED, DIRTY, FREE, GROUP_MASK, GROUP_SHIFT, Keys, LowerRows, OFF, ONE_USE, ResidentTable, STORED, USES,
    group_of, used,
};
use crate::keyed::Settle;
use crate::planted::{Bug, planted};
use crate::runs::{Kind, place_of};

/// Of the keys in memory, one in so many goes when room is made.
const EVICTED_SHARE: usize = 8;
/// How often the hand goes around in search of room: uses are counted up to three.
const ROUNDS_MAX: usize = 5;
/// Keys that are looked for together: each may have a block in memory meanwhile.
const FOUND_TOGETHER: usize = 2048;
/// A batch whose keys push each other out so often does not fit.
const LOADS_MAX: usize = 8;

/// What a batch may need.
#[derive(Debug, Clone, Copy)]
struct Need {
    keys: usize,
    chained: usize,
    string_bytes: u64,
}

impl ResidentTable {
    /// Whether some key may be in runs only.
    pub(super) fn has_evicted(&self) -> bool {
        self.groups.iter().any(|group| group.is_partial)
    }

    /// Bytes held once what `need` says has come.
    fn bytes_with(&self, need: Need) -> u64 {
        let groups = usize::from(self.owned.end - self.owned.start).max(1);
        let each = 2 * need.keys / groups + 8;
        let grown = |index: &super::index::Index| index.growth_bytes(each.min(need.keys)).saturating_sub(index.bytes());
        let index: u64 =
            self.groups.iter().filter(|group| group.index.len() > 0).map(|group| grown(&group.index)).sum();
        let strings = need.string_bytes.saturating_sub(self.blobs.free_bytes());
        let dirty = 8 * (need.keys + need.chained) as u64;
        self.bytes()
            + dirty
            + self.heads.growth_bytes(need.keys)
            + self.chains.growth_bytes(need.chained)
            + strings
            + index
            + self.index_growth_bytes(need.chained, 2 * need.chained / groups + 8)
    }

    /// Sees to it that a batch's new keys, rows and strings fit, if need be by evicting others.
    ///
    /// # Errors
    /// `Resource`, if they do not fit however much is evicted; the disk's.
    pub(super) fn reserve(&mut self, keys: usize, chained: usize, string_bytes: u64) -> Result<()> {
        let need = Need { keys, chained, string_bytes };
        let wanted = self.bytes_with(need);
        if wanted <= self.memory.bytes() {
            return Ok(());
        }
        if self.lower.is_none() {
            return self.memory.resize(wanted);
        }
        if self.memory.may_hold(wanted) && self.memory.resize(wanted).is_ok() {
            return Ok(());
        }
        self.make_room(need)
    }

    /// Says what is held after a change, where it came to a little more than was asked for.
    pub(super) fn account(&self) {
        let bytes = self.bytes();
        if bytes > self.memory.bytes() {
            self.memory.hold(bytes);
        }
    }

    /// Reserves for strings without evicting; a little beyond the table's share, if need be.
    pub(super) fn reserve_only(&mut self, string_bytes: u64) -> Result<()> {
        let wanted = self.bytes_with(Need { keys: 0, chained: 0, string_bytes });
        if wanted <= self.memory.bytes() { Ok(()) } else { self.memory.resize(wanted) }
    }

    fn make_room(&mut self, need: Need) -> Result<()> {
        self.settle_pending()?;
        if self.schema.kind != Kind::Value {
            self.flush()?;
        }
        let wanted_keys = self.heads.len() / EVICTED_SHARE;
        let enough = |table: &Self| {
            table.heads.room() >= need.keys
                && table.chains.room() >= need.chained
                && table.blobs.free_bytes() >= need.string_bytes
        };
        // So often around at most: each time the hand takes a mark away.
        let mut steps_left = ROUNDS_MAX * self.heads.end() as usize + 1;
        while steps_left > 0 {
            let keys = wanted_keys.max(need.keys.saturating_sub(self.heads.room()));
            let (victims, steps) = self.sweep(keys, steps_left);
            steps_left = steps_left.saturating_sub(steps.max(1));
            self.flush_some(&victims)?;
            self.evict(&victims)?;
            if enough(self) {
                break;
            }
        }
        if let Some(lower) = &self.lower {
            lower.compact(self.oldest)?;
        }
        let wanted = self.bytes_with(need);
        if wanted <= self.memory.bytes() {
            return Ok(());
        }
        self.memory.resize(wanted).map_err(|error| self.minimum(wanted, &error))
    }

    fn minimum(&self, wanted: u64, error: &Error) -> Error {
        Error::resource(format!(
            "the memory limit is below the minimum: the rows of one batch in table '{}' need {} in memory; \
             set 'pipeline.memory-limit' to {} at least ({error})",
            self.name,
            human_bytes(wanted),
            human_bytes(2 * wanted)
        ))
    }

    /// Moves the clock's hand until it has found `count` heads that nobody asked for lately, once around at most. Those
    /// heads by key group, and how many it has seen.
    fn sweep(&mut self, count: usize, steps_max: usize) -> (Vec<Vec<Slot>>, usize) {
        let mut victims = vec![Vec::new(); self.groups.len()];
        let mut found = 0;
        // A head leaves once: never more than once around.
        let steps_max = steps_max.min(self.heads.end() as usize);
        for step in 0..steps_max {
            if found >= count {
                return (victims, step);
            }
            if self.hand >= self.heads.end() {
                self.hand = 0;
            }
            let slot = self.hand;
            self.hand += 1;
            match self.heads.word_mut(slot, 0) {
                Some(header) if *header & FREE != 0 => {}
                Some(header) if *header & USES == 0 => {
                    victims.get_mut(((*header >> GROUP_SHIFT) & GROUP_MASK) as usize).into_iter().for_each(|group| {
                        group.push(slot);
                        found += 1;
                    });
                }
                Some(header) => *header -= ONE_USE,
                None => {}
            }
        }
        (victims, steps_max)
    }

    /// Makes a run of those heads that are dirty, which come by key group; of a table with chains everything has been
    /// flushed already.
    fn flush_some(&mut self, heads: &[Vec<Slot>]) -> Result<()> {
        if self.schema.kind != Kind::Value {
            return Ok(());
        }
        let Some(lower) = self.lower.clone() else { return Ok(()) };
        let is_dirty = |slot: &Slot| self.heads.word(*slot, 0) & DIRTY != 0;
        let dirty: Vec<Vec<Slot>> =
            heads.iter().map(|slots| slots.iter().copied().filter(is_dirty).collect()).collect();
        if dirty.iter().all(Vec::is_empty) {
            return Ok(());
        }
        let mut pieces = dirty.iter().filter_map(|slots| self.seal_slots(slots).transpose());
        lower.add(&mut pieces)?;
        self.unlist(&dirty);
        Ok(())
    }

    /// Takes rows off the lists of what is dirty. To look at each that stays would cost more than all else.
    fn unlist(&mut self, by_group: &[Vec<Slot>]) {
        let stored = Marks::of(by_group, self.heads.end());
        for (group, slots) in self.groups.iter_mut().zip(by_group) {
            if !slots.is_empty() {
                group.dirty.retain(|slot| !stored.has(*slot));
            }
        }
    }

    /// Takes heads, which come by key group, out of memory. The index of a group stays near meanwhile.
    fn evict(&mut self, victims: &[Vec<Slot>]) -> Result<()> {
        let mut left = vec![Vec::new(); victims.len()];
        for (group, (slots, left)) in victims.iter().zip(&mut left).enumerate() {
            // What was removed is gone once that is stored.
            left.extend(slots.iter().filter(|slot| self.heads.word(**slot, 0) & FREE == 0));
            self.evict_group(left)?;
            self.shrink_index(group);
        }
        // The next keys get their places in order: that of each is where memory is read ahead.
        let freed = Marks::of(&left, self.heads.end());
        freed.descending().for_each(|slot| self.heads.release(slot, FREE));
        Ok(())
    }

    /// Takes heads of one key group out of memory but for their places.
    fn evict_group(&mut self, victims: &[Slot]) -> Result<()> {
        for (slot, hash) in victims.iter().zip(self.hashes_of(victims)?) {
            if self.heads.word(*slot, 0) & DIRTY != 0 {
                return Err(Error::internal("a key of a keyed table leaves memory before it is stored"));
            }
            if self.schema.kind != Kind::Value {
                self.drop_chain(*slot);
            }
            self.unname(*slot, hash);
            if let Some(group) = self.groups.get_mut(group_of(hash)) {
                group.is_partial = !planted(Bug::EvictedIsNowhere);
            }
        }
        Ok(())
    }

    /// The slots of the keys, brought into memory if they are in runs only, with room for new ones: `new_keys` of them,
    /// and as many rows, and their strings.
    pub(super) fn resident(&mut self, keys: &Keys, new_keys: usize, string_bytes: u64) -> Result<Vec<Slot>> {
        let chained = if self.schema.kind == Kind::Value { 0 } else { new_keys };
        if !self.has_evicted() {
            self.reserve(new_keys, chained, string_bytes)?;
            // Making room may have been the first time that anything was evicted.
            if !self.has_evicted() {
                return Ok(self.locate(keys));
            }
        }
        let mut is_nowhere = vec![false; keys.len()];
        for _ in 0..LOADS_MAX {
            let mut slots = self.locate_used(keys);
            let missing = self.missing(keys, &slots, &is_nowhere);
            // A missing key is found or new; one that is here needs nothing.
            let absent = slots.iter().filter(|slot| **slot == ABSENT).count();
            let coming = if new_keys > 0 { absent } else { missing.asked.len() };
            let generation = self.generation;
            self.reserve(coming, chained, string_bytes)?;
            if generation != self.generation {
                // Keys of this batch may have left.
                continue;
            }
            if missing.asked.is_empty() {
                return Ok(slots);
            }
            let heads = self.load_missing(keys, &missing, chained, string_bytes)?;
            for (row, request) in &missing.rows {
                let head = heads.get(*request).copied().unwrap_or(ABSENT);
                if let (Some(slot), Some(is_nowhere)) =
                    (slots.get_mut(*row as usize), is_nowhere.get_mut(*row as usize))
                {
                    (*slot, *is_nowhere) = (head, head == ABSENT);
                }
            }
            // Otherwise room was made for them, and keys of this batch may have left.
            if generation == self.generation {
                // Reading blocks has driven the headers away that are wanted next.
                slots.iter().for_each(|slot| self.use_head(*slot));
                return Ok(slots);
            }
        }
        let wanted = self.bytes_with(Need { keys: keys.len(), chained, string_bytes });
        Err(self.minimum(wanted, &Error::resource("its keys push each other out")))
    }

    /// The slots of keys that are here, which had better stay.
    fn locate_used(&mut self, keys: &Keys) -> Vec<Slot> {
        let slots = self.locate(keys);
        slots.iter().for_each(|slot| self.use_head(*slot));
        slots
    }

    /// Notes that a key was asked for.
    #[inline]
    fn use_head(&mut self, head: Slot) {
        if let Some(header) = self.heads.word_mut(head, 0) {
            *header = used(*header);
        }
    }

    /// Brings keys into memory, for whose heads there is room. The head of each that was asked for; those before may
    /// have left again, if that is no longer the table's generation.
    fn load_missing(&mut self, keys: &Keys, missing: &Missing, chained: usize, string_bytes: u64) -> Result<Vec<Slot>> {
        let mut heads = vec![ABSENT; missing.asked.len()];
        for (first, asked) in (0..).step_by(FOUND_TOGETHER).zip(missing.asked.chunks(FOUND_TOGETHER)) {
            let found = self.find_below(keys, asked)?;
            let rows = found.rows.num_rows();
            let strings = if self.has_strings() { batch_bytes(&found.rows) as u64 } else { 0 };
            let found_chained = if self.schema.kind == Kind::Value { 0 } else { rows };
            self.reserve(rows.min(asked.len()), chained + found_chained, string_bytes + strings)?;
            for (request, loaded) in found.requests.iter().zip(self.take_in(&found)?) {
                let head = heads.get_mut(first + *request as usize).filter(|_| loaded != ABSENT);
                head.into_iter().for_each(|head| *head = loaded);
            }
        }
        Ok(heads)
    }

    fn has_strings(&self) -> bool {
        [&self.key, &self.sub_key, &self.value].iter().any(|part| !part.bytes_at().is_empty())
    }

    /// The keys that have to be looked for below: each once, in the order of runs.
    fn missing(&self, keys: &Keys, slots: &[Slot], is_nowhere: &[bool]) -> Missing {
        let absent = slots.iter().zip(is_nowhere).zip(&keys.hashes).enumerate();
        let absent = absent
            .filter(|(_, ((slot, is_nowhere), hash))| **slot == ABSENT && !**is_nowhere && self.is_partial(**hash));
        let mut rows: Vec<(u64, u32)> = absent.map(|(row, (_, hash))| (place_of(*hash), row as u32)).collect();
        rows.sort_unstable();
        let mut missing = Missing::default();
        let mut first_of_place = 0;
        let mut last = None;
        for (place, row) in rows {
            if last != Some(place) {
                first_of_place = missing.asked.len();
                last = Some(place);
            }
            let rivals = missing.asked.iter().enumerate().skip(first_of_place);
            let same = rivals.filter(|(_, other)| same_key(keys, **other, row)).map(|(request, _)| request).next();
            let request = same.unwrap_or(missing.asked.len());
            if same.is_none() {
                missing.asked.push(row);
            }
            missing.rows.push((row, request));
        }
        missing
    }

    fn find_below(&self, keys: &Keys, asked: &[u32]) -> Result<LowerRows> {
        let lower =
            self.lower.as_ref().ok_or_else(|| Error::internal("a keyed table without runs looks for keys there"))?;
        for sealed in &self.pending {
            sealed.settle()?;
        }
        let hashes: Vec<u64> = asked.iter().filter_map(|row| keys.hashes.get(*row as usize).copied()).collect();
        let places = UInt32Array::from(asked.to_vec());
        let columns = keys.columns.iter().map(|column| Ok(take(column, &places, None)?)).collect::<Result<Vec<_>>>()?;
        lower.find(&hashes, &columns)
    }

    /// Takes rows in as they are stored: found in runs, or restored. Their keys must be absent, or begun in an earlier
    /// call of the same restoration. The head of each row; none of those that are expired.
    fn take_in(&mut self, found: &LowerRows) -> Result<Vec<Slot>> {
        let columns = found.rows.columns();
        let key_columns = columns.get(..self.schema.key.len()).unwrap_or_default();
        let rest = columns.get(self.schema.key.len()..).unwrap_or_default();
        let (sub_columns, value_columns) = rest.split_at_checked(self.schema.sub_key.len()).unwrap_or_default();
        let keys = self.keys(key_columns)?;
        let sub_keys = self.sub_key.encode(sub_columns, keys.len())?;
        let values = self.value.encode(value_columns, keys.len())?;
        // Nearly none is there; but this brings near what each of them needs of the index.
        let mut heads = self.locate(&keys);
        for (row, slot) in heads.iter_mut().enumerate() {
            if found.buckets.get(row).is_some_and(|bucket| *bucket < self.oldest) {
                *slot = ABSENT;
                continue;
            }
            let (head, is_new) = match *slot {
                ABSENT => self.find_or_insert(&keys, row)?,
                head => (head, false),
            };
            *slot = head;
            let bucket = u64::from(found.buckets.get(row).copied().unwrap_or(0));
            let group = keys.hashes.get(row).map_or(0, |hash| group_of(*hash) as u64);
            let header = STORED | group << GROUP_SHIFT | bucket;
            if self.schema.kind == Kind::Value {
                self.set_value(head, &values, row)?;
            } else {
                if is_new {
                    self.begin_chain(head)?;
                }
                self.link(head, &sub_keys, &values, row, header)?;
            }
            *self.heads.word_mut(head, 0).ok_or_else(lost)? = header;
        }
        Ok(heads)
    }

    /// Takes in rows of a checkpoint, in pieces: before anything else is done with the table.
    ///
    /// # Errors
    /// `Resource`, if they do not fit in memory; `Internal`, if they are not the table's.
    pub fn restore(&mut self, buckets: Vec<u32>, rows: arrow::record_batch::RecordBatch) -> Result<()> {
        let count = rows.num_rows();
        let strings = if self.has_strings() { batch_bytes(&rows) as u64 } else { 0 };
        let chained = if self.schema.kind == Kind::Value { 0 } else { count };
        let wanted = self.bytes_with(Need { keys: count, chained, string_bytes: strings });
        if wanted > self.memory.bytes() {
            self.memory.resize(wanted)?;
        }
        self.take_in(&LowerRows { requests: Vec::new(), buckets, rows }).map(drop)
    }

    /// Every row of a chain goes, with its strings.
    fn drop_chain(&mut self, head: Slot) {
        let mut row = self.first_row(head);
        while row != ABSENT {
            self.unnote_row(head, row);
            row = self.drop_row(row);
        }
    }
}

/// Slots, a bit each.
struct Marks(Vec<u64>);

impl Marks {
    /// Those in `lists`, all below `end`.
    fn of(lists: &[Vec<Slot>], end: Slot) -> Self {
        let mut words = vec![0; end as usize / 64 + 1];
        for slot in lists.iter().flatten() {
            if let Some(word) = words.get_mut(*slot as usize / 64) {
                *word |= 1 << (slot % 64);
            }
        }
        Self(words)
    }

    #[inline]
    fn has(&self, slot: Slot) -> bool {
        self.0.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    fn descending(&self) -> impl Iterator<Item = Slot> {
        let slots = |(at, word): (usize, &u64)| {
            let word = *word;
            (0..64).rev().filter(move |bit| word >> bit & 1 == 1).map(move |bit| (at * 64) as Slot + bit)
        };
        self.0.iter().enumerate().rev().flat_map(slots)
    }
}

/// Keys that are looked for in runs.
#[derive(Debug, Default)]
struct Missing {
    /// The row of each key that is asked for.
    asked: Vec<u32>,
    /// Every row that has one of them, and which.
    rows: Vec<(u32, usize)>,
}

fn same_key(keys: &Keys, a: u32, b: u32) -> bool {
    let (a, b) = (a as usize, b as usize);
    keys.encoded.row(a) == keys.encoded.row(b)
        && keys.encoded.strings.iter().all(|strings| strings.get(a) == strings.get(b))
}

const _: () = assert!(GROUP_MASK << GROUP_SHIFT & (FREE | DIRTY | OFF | USES | DELETED | STORED) == 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_come_back_highest_first() {
        let lists = [vec![70, 3], vec![], vec![0, 127, 64, 63]];
        let marks = Marks::of(&lists, 127);
        assert_eq!(marks.descending().collect::<Vec<_>>(), [127, 70, 64, 63, 3, 0]);
        assert!(marks.has(70) && marks.has(127) && !marks.has(71) && !marks.has(100_000));
    }
}
