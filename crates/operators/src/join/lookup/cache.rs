//! What was found before: the rows of the keys that were asked for last.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::{concat, take};
use arrow::row::{RowConverter, Rows};
use ruslo_core::clock::Instant;
use ruslo_core::error::Result;
use ruslo_core::lookup::Found;

use super::keys::{Key, Keys};
use super::pairs::ranges;
use super::spec::LookupCache;

/// What an entry costs beside its rows, about.
const ENTRY_BYTES: usize = 160;

/// The rows of one key.
#[derive(Debug)]
struct Entry {
    columns: Vec<ArrayRef>,
    rows: u32,
    written: Instant,
    used: Instant,
    /// Its place in the order of use.
    turn: u64,
    bytes: usize,
}

/// Keys and their rows, bounded.
#[derive(Debug)]
pub(super) struct Cache {
    limits: LookupCache,
    entries: HashMap<Key, Entry>,
    /// The keys, the one that was used longest ago first.
    turns: BTreeMap<u64, Key>,
    next_turn: u64,
    rows: usize,
    bytes: usize,
}

impl Cache {
    pub(super) fn new(limits: LookupCache) -> Self {
        let (entries, turns) = Default::default();
        Self { limits, entries, turns, next_turn: 0, rows: 0, bytes: 0 }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Which of `keys` are not known, and the rows of those that are.
    pub(super) fn known(
        &mut self,
        keys: &Keys,
        converter: &RowConverter,
        now: Instant,
    ) -> Result<(Vec<u32>, Option<Found>)> {
        let encoded = keys.encoded(converter)?;
        let (mut missing, mut requests, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for (number, key) in (0u32..).zip(encoded.iter()) {
            match self.get(&key.owned(), now) {
                None => missing.push(number),
                Some(entry) => {
                    requests.extend(std::iter::repeat_n(number, entry.rows as usize));
                    if entry.rows > 0 {
                        parts.push(entry.columns.clone());
                    }
                }
            }
        }
        if missing.len() == keys.keys.num_rows() {
            return Ok((missing, None));
        }
        Ok((missing, Some(Found { requests: UInt32Array::from(requests), columns: concatenated(&parts)? })))
    }

    fn get(&mut self, key: &Key, now: Instant) -> Option<&Entry> {
        let limits = self.limits.clone();
        let entry = self.entries.get(key)?;
        let is_over = |since: Instant, limit: Option<_>| limit.is_some_and(|limit| now.saturating_sub(since) >= limit);
        if is_over(entry.written, limits.expire_after_write) || is_over(entry.used, limits.expire_after_access) {
            self.remove(key);
            return None;
        }
        let turn = self.turn();
        let entry = self.entries.get_mut(key)?;
        self.turns.remove(&entry.turn);
        self.turns.insert(turn, key.clone());
        (entry.turn, entry.used) = (turn, now);
        Some(entry)
    }

    fn turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    fn remove(&mut self, key: &Key) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.turns.remove(&entry.turn);
        self.rows -= entry.rows.max(1) as usize;
        self.bytes -= entry.bytes;
    }

    /// Keeps what was found for `keys`, encoded; `may_hold` says whether there is memory for so many bytes in all.
    pub(super) fn keep(
        &mut self,
        keys: &Rows,
        found: &Found,
        now: Instant,
        may_hold: impl Fn(usize) -> bool,
    ) -> Result<()> {
        for (range, key) in ranges(found, keys.num_rows())?.into_iter().zip(keys.iter()) {
            let rows = range.end - range.start;
            let is_too_large = rows.max(1) as usize > self.limits.rows_max;
            if is_too_large || (rows == 0 && !self.limits.keeps_missing) {
                continue;
            }
            let places = UInt32Array::from_iter_values(range);
            let columns = found.columns.iter().map(|column| take(column, &places, None));
            let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
            let key = key.owned();
            let own: usize = columns.iter().map(|column| column.get_array_memory_size()).sum();
            let bytes = own + 2 * key.as_ref().len() + ENTRY_BYTES;
            self.remove(&key);
            while self.rows + rows.max(1) as usize > self.limits.rows_max || !may_hold(self.bytes + bytes) {
                let Some(oldest) = self.turns.values().next().cloned() else { return Ok(()) };
                self.remove(&oldest);
            }
            let turn = self.turn();
            self.turns.insert(turn, key.clone());
            self.entries.insert(key, Entry { columns, rows, written: now, used: now, turn, bytes });
            self.rows += rows.max(1) as usize;
            self.bytes += bytes;
        }
        Ok(())
    }
}

/// The columns of several parts, one behind the other; none, if there are no parts.
fn concatenated(parts: &[Vec<ArrayRef>]) -> Result<Vec<ArrayRef>> {
    let columns = parts.first().map_or(0, Vec::len);
    let column = |place: usize| {
        let parts: Vec<_> = parts.iter().filter_map(|part| part.get(place)).map(AsRef::as_ref).collect();
        concat(&parts)
    };
    Ok((0..columns).map(column).collect::<Result<_, _>>()?)
}

/// What is known of some keys and what was found for the others, `missing`, as one answer for all of them.
pub(super) fn united(hits: Option<Found>, missing: &[u32], found: Found) -> Result<Found> {
    let asked = |request: u32| missing.get(request as usize).copied().unwrap_or(u32::MAX);
    let requests: Vec<u32> = found.requests.values().iter().map(|request| asked(*request)).collect();
    let Some(hits) = hits.filter(|hits| !hits.requests.values().is_empty()) else {
        return Ok(Found { requests: UInt32Array::from(requests), columns: found.columns });
    };
    if requests.is_empty() {
        return Ok(hits);
    }
    let columns = concatenated(&[hits.columns, found.columns])?;
    let all: Vec<u32> = hits.requests.values().iter().copied().chain(requests).collect();
    let mut order: Vec<u32> = (0u32..).take(all.len()).collect();
    order.sort_by_key(|place| all.get(*place as usize).copied());
    let order = UInt32Array::from(order);
    let requests = take(&UInt32Array::from(all), &order, None)?;
    let requests = UInt32Array::from(arrow::array::Array::to_data(&requests));
    let columns = columns.iter().map(|column| take(column, &order, None)).collect::<Result<_, _>>()?;
    Ok(Found { requests, columns })
}
