//! Which sessions are open, by key: what a row is looked up in.
//!
//! Keys are interned once a batch, and each key has a list of its open sessions; nearly always there is one, and most
//! rows extend it. A session says where its partial state is, but has none of it. Interned keys cannot be forgotten one
//! by one, so when most of them have no session any more they are interned anew.

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::filter;
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use ruslo_core::error::{Error, Result};

use crate::expression::execution_error;

/// No session, group or row.
pub(super) const NONE: u32 = u32::MAX;

/// From so many interned keys without a session on, it may be worth forgetting them.
const STALE_KEYS_MIN: usize = 1024;

/// Where a session's partial state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a group of the accumulators.
    Group(u32),
    /// In a row of a sealed generation.
    Sealed {
        /// Which generation.
        generation: u32,
        /// Which of its rows.
        row: u32,
    },
    /// Nowhere: the session is closed, and its slot waits for another.
    Free,
}

/// An open session: its rows' times are in `start..=last`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    pub(super) start: i64,
    pub(super) last: i64,
    key: u32,
    /// The next open session of the same key, or the next free slot.
    next: u32,
    pub(super) place: Place,
}

impl Session {
    /// Whether `[time, time + gap)` overlaps or touches `[start, last + gap)`.
    fn touches(&self, time: i64, gap: i64) -> bool {
        self.start.saturating_sub(gap) <= time && time <= self.last.saturating_add(gap)
    }

    fn extend(&mut self, start: i64, last: i64) {
        self.start = self.start.min(start);
        self.last = self.last.max(last);
    }
}

/// The open sessions.
pub(super) struct Directory {
    gap: i64,
    /// Without key columns there is one key.
    key_schema: SchemaRef,
    keys: Option<Box<dyn GroupValues>>,
    /// The first open session of each key.
    heads: Vec<u32>,
    /// Keys with an open session.
    open_keys: usize,
    sessions: Vec<Session>,
    /// How many are open.
    pub(super) open: usize,
    free: u32,
}

fn group_values(schema: &SchemaRef) -> Result<Option<Box<dyn GroupValues>>> {
    if schema.fields().is_empty() {
        return Ok(None);
    }
    new_group_values(schema.clone(), &GroupOrdering::None).map(Some).map_err(execution_error)
}

fn lost() -> Error {
    Error::internal("an open session is not where it should be")
}

impl Directory {
    /// No sessions. Rows of one key that are at most `gap` milliseconds apart are in one.
    pub(super) fn new(key_schema: SchemaRef, gap: i64) -> Result<Self> {
        let keys = group_values(&key_schema)?;
        Ok(Self { gap, key_schema, keys, heads: Vec::new(), open_keys: 0, sessions: Vec::new(), open: 0, free: NONE })
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        if self.open == 0 {
            return 0;
        }
        let keys = self.keys.as_ref().map_or(0, |keys| keys.size());
        keys + self.heads.capacity() * size_of::<u32>() + self.sessions.capacity() * size_of::<Session>()
    }

    /// The number of each row's key.
    pub(super) fn intern(&mut self, columns: &[ArrayRef], rows: usize, numbers: &mut Vec<usize>) -> Result<()> {
        let keys = match &mut self.keys {
            Some(keys) => {
                keys.intern(columns, numbers).map_err(execution_error)?;
                keys.len()
            }
            None => {
                numbers.clear();
                numbers.resize(rows, 0);
                1
            }
        };
        self.heads.resize(keys, NONE);
        Ok(())
    }

    /// The group of the accumulators that a row of `key` at `time` belongs to, if that is plain: the key has one open
    /// session, the row belongs to it, and it has a group.
    #[inline]
    pub(super) fn extend_only(&mut self, key: usize, time: i64) -> Option<u32> {
        let head = *self.heads.get(key)?;
        let session = self.sessions.get_mut(head as usize)?;
        match session.place {
            Place::Group(group) if session.next == NONE && session.touches(time, self.gap) => {
                session.extend(time, time);
                Some(group)
            }
            _ => None,
        }
    }

    /// The open sessions of `key` that a row at `time` overlaps or touches.
    pub(super) fn touching(&self, key: usize, time: i64, found: &mut Vec<u32>) {
        found.clear();
        found.extend(self.of_key(key).filter(|(_, session)| session.touches(time, self.gap)).map(|(number, _)| number));
    }

    /// Whether `key` has an open session that covers all of `start..=last`.
    pub(super) fn covers(&self, key: usize, start: i64, last: i64) -> bool {
        self.of_key(key).any(|(_, session)| session.start <= start && last <= session.last)
    }

    fn of_key(&self, key: usize) -> impl Iterator<Item = (u32, &Session)> {
        let mut next = self.heads.get(key).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            let number = next;
            let session = self.sessions.get(number as usize)?;
            next = session.next;
            Some((number, session))
        })
    }

    /// Opens a session of `key`.
    pub(super) fn open(&mut self, key: usize, start: i64, last: i64, place: Place) -> Result<u32> {
        let head = self.heads.get_mut(key).ok_or_else(lost)?;
        self.open_keys += usize::from(*head == NONE);
        let key = u32::try_from(key).map_err(|_| Error::resource("more than four billion keys with open sessions"))?;
        let session = Session { start, last, key, next: *head, place };
        let number = match self.sessions.get_mut(self.free as usize) {
            Some(slot) => {
                let number = std::mem::replace(&mut self.free, slot.next);
                *slot = session;
                number
            }
            None => {
                self.sessions.push(session);
                self.sessions.len() as u32 - 1
            }
        };
        *head = number;
        self.open += 1;
        Ok(number)
    }

    /// Makes a session cover `start..=last`, too.
    pub(super) fn extend(&mut self, number: u32, start: i64, last: i64) -> Result<()> {
        self.get_mut(number)?.extend(start, last);
        Ok(())
    }

    /// Says where a session's state is now.
    pub(super) fn set_place(&mut self, number: u32, place: Place) -> Result<()> {
        self.get_mut(number)?.place = place;
        Ok(())
    }

    /// Closes a session; what it was.
    pub(super) fn close(&mut self, number: u32) -> Result<Session> {
        let closed = *self.get(number)?;
        let before = self.of_key(closed.key as usize).find(|(_, session)| session.next == number);
        match before.map(|(before, _)| before) {
            Some(before) => self.get_mut(before)?.next = closed.next,
            None => {
                self.open_keys -= usize::from(closed.next == NONE);
                *self.heads.get_mut(closed.key as usize).ok_or_else(lost)? = closed.next;
            }
        }
        let free = std::mem::replace(&mut self.free, number);
        let slot = self.get_mut(number)?;
        (slot.next, slot.place) = (free, Place::Free);
        self.open -= 1;
        Ok(closed)
    }

    /// An open session.
    pub(super) fn get(&self, number: u32) -> Result<&Session> {
        self.sessions.get(number as usize).filter(|session| session.place != Place::Free).ok_or_else(lost)
    }

    fn get_mut(&mut self, number: u32) -> Result<&mut Session> {
        self.sessions.get_mut(number as usize).ok_or_else(lost)
    }

    /// Forgets keys without a session, if they are most.
    pub(super) fn forget_stale_keys(&mut self) -> Result<()> {
        let Some(keys) = &mut self.keys else { return Ok(()) };
        if keys.len() < STALE_KEYS_MIN + 2 * self.open_keys {
            return Ok(());
        }
        let columns = keys.emit(EmitTo::All).map_err(execution_error)?;
        let old = std::mem::take(&mut self.heads);
        let kept: BooleanArray = old.iter().map(|head| Some(*head != NONE)).collect();
        let columns = columns.iter().map(|column| filter(column, &kept)).collect::<std::result::Result<Vec<_>, _>>()?;
        self.keys = group_values(&self.key_schema)?;
        let mut numbers = Vec::with_capacity(self.open_keys);
        self.intern(&columns, self.open_keys, &mut numbers)?;
        for (head, key) in old.into_iter().filter(|head| *head != NONE).zip(numbers) {
            self.rename(head, key)?;
        }
        if self.open == 0 {
            (self.sessions, self.free) = (Vec::new(), NONE);
        }
        Ok(())
    }

    /// Gives the sessions from `head` on to `key`.
    fn rename(&mut self, head: u32, key: usize) -> Result<()> {
        *self.heads.get_mut(key).ok_or_else(lost)? = head;
        let mut next = head;
        while let Some(session) = self.sessions.get_mut(next as usize) {
            session.key = key as u32;
            next = session.next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    fn directory(gap: i64) -> Directory {
        Directory::new(Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)])), gap).unwrap()
    }

    fn intern(directory: &mut Directory, keys: &[i64]) -> Vec<usize> {
        let mut numbers = Vec::new();
        let column: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
        directory.intern(&[column], keys.len(), &mut numbers).unwrap();
        numbers
    }

    fn touched(directory: &Directory, key: usize, time: i64) -> Vec<(i64, i64)> {
        let mut found = Vec::new();
        directory.touching(key, time, &mut found);
        found.iter().map(|number| directory.get(*number).map(|s| (s.start, s.last)).unwrap()).collect()
    }

    #[test]
    fn touching_counts_and_a_millisecond_more_does_not() {
        let mut directory = directory(10);
        let key = intern(&mut directory, &[7])[0];
        directory.open(key, 100, 150, Place::Group(0)).unwrap();
        for (time, touches) in [(89, 0), (90, 1), (100, 1), (160, 1), (161, 0)] {
            assert_eq!(touched(&directory, key, time).len(), touches, "{time}");
        }
        directory.open(key, 170, 170, Place::Group(1)).unwrap();
        assert_eq!(touched(&directory, key, 160), [(170, 170), (100, 150)]);
        assert_eq!(directory.extend_only(key, 120), None, "there are two: look closely");
    }

    #[test]
    fn a_sole_session_is_extended_on_both_sides() {
        let mut directory = directory(10);
        let key = intern(&mut directory, &[7])[0];
        assert_eq!(directory.extend_only(key, 100), None);
        let session = directory.open(key, 100, 100, Place::Group(3)).unwrap();
        assert_eq!(directory.extend_only(key, 95), Some(3));
        assert_eq!(directory.extend_only(key, 110), Some(3));
        assert_eq!(directory.extend_only(key, 121), None);
        assert_eq!(directory.get(session).map(|s| (s.start, s.last)).unwrap(), (95, 110));
        assert!(directory.covers(key, 95, 110) && !directory.covers(key, 94, 100));
    }

    #[test]
    fn slots_are_used_again_and_a_list_loses_its_middle() {
        let mut directory = directory(10);
        let key = intern(&mut directory, &[7])[0];
        let opened: Vec<u32> =
            (0..3).map(|i| directory.open(key, i * 100, i * 100, Place::Group(0)).unwrap()).collect();
        assert_eq!(directory.close(opened[1]).unwrap().start, 100);
        assert!(directory.get(opened[1]).is_err());
        assert_eq!(touched(&directory, key, 0), [(0, 0)]);
        assert_eq!(touched(&directory, key, 200), [(200, 200)]);
        assert_eq!(directory.open(key, 500, 500, Place::Group(0)).unwrap(), opened[1]);
        assert_eq!(directory.open, 3);
    }

    #[test]
    fn stale_keys_are_forgotten_and_open_ones_are_not() {
        let mut directory = directory(10);
        for round in 0..20i64 {
            let keys: Vec<i64> = (round * 1000..(round + 1) * 1000).collect();
            let numbers = intern(&mut directory, &keys);
            for (at, number) in numbers.into_iter().enumerate() {
                let session = directory.open(number, round, round, Place::Group(0)).unwrap();
                if at != 5 {
                    directory.close(session).unwrap();
                }
            }
            directory.forget_stale_keys().unwrap();
        }
        assert!(directory.heads.len() < 4 * STALE_KEYS_MIN, "{}", directory.heads.len());
        for round in 0..20 {
            let key = intern(&mut directory, &[round * 1000 + 5])[0];
            assert_eq!(touched(&directory, key, round), [(round, round)]);
        }
        assert_eq!((directory.open, directory.open_keys), (20, 20));
    }

    #[test]
    fn without_key_columns_there_is_one_key() {
        let mut directory = Directory::new(Arc::new(Schema::empty()), 10).unwrap();
        let mut numbers = Vec::new();
        directory.intern(&[], 3, &mut numbers).unwrap();
        assert_eq!(numbers, [0, 0, 0]);
        directory.open(0, 5, 5, Place::Group(0)).unwrap();
        assert_eq!(directory.extend_only(0, 6), Some(0));
    }
}
