//! Taking out what is dirty: for a checkpoint, or to make room.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::ArrayRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::hash_rows;

use super::chain::{OWNER_AT, SUB_KEY_AT};
use super::slab::{ABSENT, Slot, lost};
use super::{DELETED, DIRTY, FREE, KEY_AT, Lower, ResidentTable, STORED};
use crate::keyed::Settle;
use crate::runs::{DirtyRows, Kind, Op, Run};

/// Rows that a barrier took out of a table, on their way into a run.
#[derive(Debug)]
pub struct Sealed {
    lower: Option<Arc<dyn Lower>>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Pieces in order of key group.
    Waiting(Vec<DirtyRows>),
    /// The run, if one that a checkpoint can name was made.
    Settled(Option<Arc<Run>>),
    Failed(Error),
}

impl Settle for Sealed {
    /// By the checkpoint, or by the table when it needs room; an error is told again at every later call.
    fn settle(&self) -> Result<Option<Arc<Run>>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match std::mem::replace(&mut *state, State::Settled(None)) {
            State::Settled(run) => Ok(run),
            State::Failed(error) => Err(error),
            State::Waiting(pieces) if pieces.is_empty() => Ok(None),
            State::Waiting(pieces) => match &self.lower {
                Some(lower) => lower.add(&mut pieces.into_iter().map(Ok)),
                None => Err(Error::internal("a keyed table without runs was asked for one")),
            },
        };
        *state = match &written {
            Ok(run) => State::Settled(run.clone()),
            Err(error) => State::Failed(error.clone()),
        };
        written
    }
}

impl Sealed {
    /// The rows, if they are not in a run yet.
    pub fn rows(&self) -> Vec<DirtyRows> {
        match &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Waiting(pieces) => pieces.clone(),
            _ => Vec::new(),
        }
    }
}

impl ResidentTable {
    /// Takes out what was written since the last call: copies, so that the table can change. Whoever has the answer
    /// settles it; if that has not been done by the next call, it is done there.
    ///
    /// # Errors
    /// The disk's.
    pub fn seal(&mut self) -> Result<Arc<Sealed>> {
        // Runs stand in the order of epochs: an earlier one that was not written yet is written now.
        self.settle_pending()?;
        let mut pieces = Vec::new();
        for group in 0..self.groups.len() {
            pieces.extend(self.seal_group(group)?);
        }
        let sealed = Arc::new(Sealed { lower: self.lower.clone(), state: Mutex::new(State::Waiting(pieces)) });
        if self.lower.is_some() {
            self.pending.push(Arc::clone(&sealed));
        }
        Ok(sealed)
    }

    /// Makes a run of what is dirty, outside of a checkpoint; and of what was sealed before.
    pub(super) fn flush(&mut self) -> Result<()> {
        let Some(lower) = self.lower.clone() else { return Ok(()) };
        self.settle_pending()?;
        if self.groups.iter().all(|group| group.dirty.is_empty()) {
            return Ok(());
        }
        let mut groups = 0..self.groups.len();
        lower.add(&mut std::iter::from_fn(|| groups.find_map(|group| self.seal_group(group).transpose())))?;
        Ok(())
    }

    /// Makes runs of what was sealed and is not in one yet.
    pub(super) fn settle_pending(&mut self) -> Result<()> {
        std::mem::take(&mut self.pending).into_iter().try_for_each(|sealed| sealed.settle().map(drop))
    }

    /// The dirty rows of one key group; they are clean afterwards, and those that were removed are gone.
    fn seal_group(&mut self, group: usize) -> Result<Option<DirtyRows>> {
        let dirty = self.groups.get_mut(group).map(|group| std::mem::take(&mut group.dirty)).unwrap_or_default();
        let sealed = self.seal_slots(&dirty);
        self.shrink_index(group);
        sealed
    }

    /// Copies dirty rows of one key group; they are clean afterwards, and those that were removed are gone.
    pub(super) fn seal_slots(&mut self, dirty: &[Slot]) -> Result<Option<DirtyRows>> {
        if dirty.is_empty() {
            return Ok(None);
        }
        let is_value = self.schema.kind == Kind::Value;
        let slab = if is_value { &mut self.heads } else { &mut self.chains };
        let (mut slots, mut buckets, mut ops, mut gone) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for slot in dirty.iter().copied() {
            let header = slab.word_mut(slot, 0).ok_or_else(lost)?;
            if *header & DELETED != 0 {
                gone.push(slot);
            }
            if *header & (DELETED | STORED) != DELETED {
                slots.push(slot);
                buckets.push(*header as u32);
                ops.push(if *header & DELETED == 0 { Op::Put } else { Op::Delete });
            }
            *header = (*header & !DIRTY) | STORED;
        }
        let sealed = self.gather(&slots, ops, buckets)?;
        if is_value {
            let hashes = self.hashes_of(&gone)?;
            gone.into_iter().zip(hashes).for_each(|(slot, hash)| self.forget(slot, hash));
        } else {
            // All that is dirty of a key is of this group: a head without a row has none elsewhere.
            let mut emptied: Vec<_> = gone.into_iter().map(|slot| self.unlink(slot)).collect();
            emptied.sort_unstable();
            emptied.dedup();
            emptied.retain(|head| self.first_row(*head) == ABSENT);
            let hashes = self.hashes_of(&emptied)?;
            emptied.into_iter().zip(hashes).for_each(|(slot, hash)| self.forget(slot, hash));
        }
        Ok((!sealed.is_empty()).then_some(sealed))
    }

    /// Every row in memory that is alive, rows of a key in order: all of the table, as long as nothing was evicted.
    ///
    /// # Errors
    /// `Internal` only.
    pub fn contents(&self) -> Result<DirtyRows> {
        let is_value = self.schema.kind == Kind::Value;
        let mut slots = Vec::new();
        for head in 0..self.heads.end() {
            let header = self.heads.word(head, 0);
            if header & FREE != 0 {
                continue;
            }
            if is_value {
                slots.extend(self.is_alive(header).then_some(head));
                continue;
            }
            let mut row = self.first_row(head);
            while row != ABSENT {
                slots.extend(self.is_alive(self.chains.word(row, 0)).then_some(row));
                row = self.next_row(row);
            }
        }
        let slab = if is_value { &self.heads } else { &self.chains };
        let buckets = slots.iter().map(|slot| slab.word(*slot, 0) as u32).collect();
        self.gather(&slots, vec![Op::Put; slots.len()], buckets)
    }

    /// Copies rows: heads, or rows of chains.
    fn gather(&self, slots: &[Slot], ops: Vec<Op>, buckets: Vec<u32>) -> Result<DirtyRows> {
        let keys = if self.schema.kind == Kind::Value {
            self.key_columns(slots)?
        } else {
            self.key_columns(&slots.iter().map(|slot| self.chains.word(*slot, OWNER_AT) as Slot).collect::<Vec<_>>())?
        };
        let hashes = hash_rows(&keys, slots.len())?;
        let columns = [keys, self.columns_of(slots)?].concat();
        let options = RecordBatchOptions::new().with_row_count(Some(slots.len()));
        let rows = RecordBatch::try_new_with_options(self.schema.rows(), columns, &options)?;
        Ok(DirtyRows { hashes, ops, buckets, rows: vec![rows] })
    }

    /// The columns of rows behind their keys: sub-key and value. NULL, where there is no row.
    pub(super) fn columns_of(&self, slots: &[Slot]) -> Result<Vec<ArrayRef>> {
        let (slab, from) = match self.schema.kind {
            Kind::Value => (&self.heads, KEY_AT + self.key.words()),
            _ => (&self.chains, SUB_KEY_AT),
        };
        let (first, width) = (self.sub_key.words(), self.sub_key.words() + self.value.words());
        let mut sub_keys = vec![0; slots.len() * first];
        let mut values = vec![0; slots.len() * (width - first)];
        let places = sub_keys.chunks_exact_mut(first.max(1)).map(Some).chain(std::iter::repeat_with(|| None));
        let value_places =
            values.chunks_exact_mut((width - first).max(1)).map(Some).chain(std::iter::repeat_with(|| None));
        for ((slot, sub_key), value) in slots.iter().zip(places).zip(value_places) {
            let Some(found) = slab.row(*slot).and_then(|row| row.get(from..from + width)?.split_at_checked(first))
            else {
                continue;
            };
            if let Some(sub_key) = sub_key {
                sub_key.copy_from_slice(found.0);
            }
            if let Some(value) = value {
                value.copy_from_slice(found.1);
            }
        }
        let present = slots.contains(&ABSENT).then(|| slots.iter().map(|slot| *slot != ABSENT).collect());
        let sub_keys = self.sub_key.decode(&sub_keys, slots.len(), present.as_ref(), &self.blobs)?;
        let values = self.value.decode(&values, slots.len(), present.as_ref(), &self.blobs)?;
        Ok([sub_keys, values].concat())
    }
}
