//! Sealed sessions: immutable partial states, one row a session, that leave in the order in which they end.
//!
//! A row *dies* when its session is fired or gets new rows (which carry its state back into the accumulators). So that
//! generations stay few and mostly alive, younger ones are merged into older ones of like size, and a generation that
//! is mostly dead is copied: a row is copied a logarithmic number of times.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};
use ruslo_core::memory::batch_bytes;

use super::directory::{Directory, NONE, Place};

/// A generation of fewer rows is not copied because some are dead.
const ROWS_MIN: usize = 1024;

/// Rows as generations and state hold them: a sealed batch's columns, then `session_start` and `session_last`.
pub(super) fn stored_schema(sealed: &Schema) -> SchemaRef {
    let times = ["session_start", "session_last"].map(|name| Arc::new(Field::new(name, DataType::Int64, false)));
    Arc::new(Schema::new(sealed.fields().iter().cloned().chain(times).collect::<Vec<_>>()))
}

/// The first and last times of rows of [`stored_schema`].
pub(super) fn times(rows: &RecordBatch) -> Result<(&Int64Array, &Int64Array)> {
    let found = match rows.columns() {
        [.., start, last] => start.as_primitive_opt::<Int64Type>().zip(last.as_primitive_opt::<Int64Type>()),
        _ => None,
    };
    found.ok_or_else(|| Error::corrupt("stored sessions lack their times"))
}

/// Sealed sessions.
pub(super) struct Generation {
    rows: RecordBatch,
    /// The session of each row; none if the row is dead.
    sessions: Vec<u32>,
    live: usize,
    /// Dead rows that are still needed, because their state is bound for the accumulators.
    carried: usize,
    /// Row numbers by last time, and how many of them are done with.
    by_last: Vec<u32>,
    done: usize,
    bytes: usize,
    /// Where its rows are in state, if they are.
    pub(super) bucket: Option<i64>,
}

impl Generation {
    /// `rows` of [`stored_schema`] and their sessions, which are told their place.
    fn new(id: u32, rows: RecordBatch, sessions: Vec<u32>, directory: &mut Directory) -> Result<Self> {
        for (row, session) in (0u32..).zip(&sessions).filter(|(_, session)| **session != NONE) {
            directory.set_place(*session, Place::Sealed { generation: id, row })?;
        }
        let lasts = times(&rows)?.1.values().clone();
        let mut by_last: Vec<u32> = (0..rows.num_rows() as u32).collect();
        by_last.sort_unstable_by_key(|row| (lasts.get(*row as usize).copied(), *row));
        let live = sessions.iter().filter(|session| **session != NONE).count();
        let bytes = batch_bytes(&rows) + 2 * rows.num_rows() * size_of::<u32>();
        Ok(Self { rows, sessions, live, carried: 0, by_last, done: 0, bytes, bucket: None })
    }

    /// The session of the next row that ends at `through` or before, and the row.
    fn due(&mut self, directory: &Directory, gap: i64, through: i64) -> Option<(u32, u32)> {
        while let Some(row) = self.by_last.get(self.done) {
            match self.sessions.get(*row as usize) {
                Some(session) if *session != NONE => {
                    let last = directory.get(*session).ok()?.last;
                    return (last.saturating_add(gap) <= through).then_some((*session, *row));
                }
                _ => self.done += 1,
            }
        }
        None
    }

    fn live_rows(&self) -> UInt32Array {
        (0u32..).zip(&self.sessions).filter(|(_, session)| **session != NONE).map(|(row, _)| row).collect()
    }

    fn is_mostly_dead(&self) -> bool {
        self.sessions.len() >= ROWS_MIN && self.live < self.sessions.len() / 2
    }
}

/// All sealed sessions, oldest generation first.
#[derive(Default)]
pub(super) struct Generations {
    by_id: BTreeMap<u32, Generation>,
    next_id: u32,
}

impl Generations {
    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.by_id.values().map(|generation| generation.bytes).sum()
    }

    /// The generations.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Generation> {
        self.by_id.values_mut()
    }

    /// Whether some generation's rows are in `bucket`.
    pub(super) fn has_bucket(&self, bucket: i64) -> bool {
        self.by_id.values().any(|generation| generation.bucket == Some(bucket))
    }

    /// Adds a generation: `rows` of [`stored_schema`] and their sessions, none for a row that is dead already.
    pub(super) fn add(
        &mut self,
        rows: RecordBatch,
        sessions: Vec<u32>,
        bucket: Option<i64>,
        directory: &mut Directory,
    ) -> Result<()> {
        let id = self.next_id;
        self.next_id = self.next_id.checked_add(1).ok_or_else(|| Error::internal("generations have run out"))?;
        let generation = Generation { bucket, ..Generation::new(id, rows, sessions, directory)? };
        self.by_id.insert(id, generation);
        Ok(())
    }

    /// Says that the session of a row has got new rows; its row is kept until [`Self::take_carried`].
    pub(super) fn carry(&mut self, generation: u32, row: u32) {
        if let Some(generation) = self.by_id.get_mut(&generation)
            && let Some(session) = generation.sessions.get_mut(row as usize)
        {
            generation.live -= usize::from(*session != NONE);
            generation.carried += 1;
            *session = NONE;
        }
    }

    /// All rows of a generation that were said to be carried.
    pub(super) fn take_carried(&mut self, generation: u32, rows: impl Iterator<Item = u32>) -> Result<RecordBatch> {
        let generation = self.by_id.get_mut(&generation).ok_or_else(|| Error::internal("a generation is missing"))?;
        generation.carried = 0;
        Ok(take_record_batch(&generation.rows, &rows.collect::<UInt32Array>())?)
    }

    /// At most `rows_max` rows of sessions that end at `through` or before, as batches; the sessions are closed.
    pub(super) fn take_due(
        &mut self,
        directory: &mut Directory,
        gap: i64,
        through: i64,
        rows_max: usize,
    ) -> Result<Vec<RecordBatch>> {
        let mut left = rows_max;
        let mut taken = Vec::new();
        for generation in self.by_id.values_mut() {
            let mut rows = Vec::new();
            while rows.len() < left
                && let Some((session, row)) = generation.due(directory, gap, through)
            {
                directory.close(session)?;
                generation.done += 1;
                if let Some(session) = generation.sessions.get_mut(row as usize) {
                    *session = NONE;
                }
                rows.push(row);
            }
            if rows.is_empty() {
                continue;
            }
            left -= rows.len();
            generation.live -= rows.len();
            taken.push(take_record_batch(&generation.rows, &UInt32Array::from(rows))?);
        }
        self.by_id.retain(|_, generation| generation.live + generation.carried > 0);
        Ok(taken)
    }

    /// Whether some session ends at `through` or before.
    pub(super) fn has_due(&mut self, directory: &Directory, gap: i64, through: i64) -> bool {
        self.by_id.values_mut().any(|generation| generation.due(directory, gap, through).is_some())
    }

    /// The rows of all sessions that end at `through` or before, as batches; they stay.
    pub(super) fn due_rows(&mut self, directory: &Directory, gap: i64, through: i64) -> Result<Vec<RecordBatch>> {
        let mut found = Vec::new();
        for generation in self.by_id.values_mut() {
            if generation.due(directory, gap, through).is_none() {
                continue;
            }
            let is_due = |row: &&u32| {
                let session = generation.sessions.get(**row as usize).and_then(|session| directory.get(*session).ok());
                session.is_some_and(|session| session.last.saturating_add(gap) <= through)
            };
            let rows: UInt32Array = generation.by_last.iter().skip(generation.done).filter(is_due).copied().collect();
            found.push(take_record_batch(&generation.rows, &rows)?);
        }
        Ok(found)
    }

    /// The live rows of a generation.
    pub(super) fn live_rows(generation: &Generation) -> Result<RecordBatch> {
        Ok(take_record_batch(&generation.rows, &generation.live_rows())?)
    }

    /// Merges generations of like size and copies those that are mostly dead. Nothing may be carried.
    pub(super) fn settle(&mut self, directory: &mut Directory) -> Result<()> {
        self.by_id.retain(|_, generation| generation.live > 0);
        let mut younger: Option<(u32, usize)> = None;
        let ids: Vec<u32> = self.by_id.keys().rev().copied().collect();
        for id in ids {
            let Some(generation) = self.by_id.get(&id) else { continue };
            let mut live = generation.live;
            match younger {
                Some((young, young_live)) if live <= 2 * young_live => {
                    live += young_live;
                    self.copy(&[id, young], directory)?;
                }
                _ if generation.is_mostly_dead() => self.copy(&[id], directory)?,
                _ => {}
            }
            younger = Some((id, live));
        }
        Ok(())
    }

    /// Makes one generation, under the first id, of the live rows of those given.
    fn copy(&mut self, ids: &[u32], directory: &mut Directory) -> Result<()> {
        let Some(first) = ids.first() else { return Ok(()) };
        let parts: Vec<Generation> = ids.iter().filter_map(|id| self.by_id.remove(id)).collect();
        let batches = parts.iter().map(Self::live_rows).collect::<Result<Vec<_>>>()?;
        let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok(()) };
        let sessions = parts.iter().flat_map(|part| &part.sessions).copied().filter(|session| *session != NONE);
        let rows = concat_batches(&schema, &batches)?;
        let merged = Generation::new(*first, rows, sessions.collect(), directory)?;
        self.by_id.insert(*first, merged);
        Ok(())
    }
}

/// `sealed` with the times of its sessions behind it.
pub(super) fn with_times(
    sealed: &RecordBatch,
    schema: &SchemaRef,
    sessions: &[u32],
    directory: &Directory,
) -> Result<RecordBatch> {
    let sessions = sessions.iter().map(|session| directory.get(*session));
    let (starts, lasts): (Vec<i64>, Vec<i64>) = sessions
        .map(|session| session.map(|session| (session.start, session.last)))
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .unzip();
    let times = [starts, lasts].map(|times| Arc::new(Int64Array::from(times)) as ArrayRef);
    let columns = sealed.columns().iter().cloned().chain(times).collect();
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> SchemaRef {
        stored_schema(&Schema::new(vec![Field::new("key0", DataType::Int64, true)]))
    }

    fn keys(batches: &[RecordBatch]) -> Vec<i64> {
        batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    /// A directory and generations with sessions of keys `keys`, each with the time 10 × key.
    struct Fixture {
        directory: Directory,
        generations: Generations,
    }

    impl Fixture {
        fn new() -> Self {
            let key = Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, true)]));
            Self { directory: Directory::new(key, 5).unwrap(), generations: Generations::default() }
        }

        fn add(&mut self, keys: impl Iterator<Item = i64>) {
            let column: ArrayRef = Arc::new(keys.collect::<Int64Array>());
            let mut numbers = Vec::new();
            self.directory.intern(&[Arc::clone(&column)], column.len(), &mut numbers).unwrap();
            let times = column.as_primitive::<Int64Type>().values().iter().map(|key| key * 10);
            let open = |(number, time)| self.directory.open(number, time, time, Place::Free).unwrap();
            let sessions: Vec<u32> = numbers.into_iter().zip(times.clone()).map(open).collect();
            let times: ArrayRef = Arc::new(times.collect::<Int64Array>());
            let rows = RecordBatch::try_new(schema(), vec![column, Arc::clone(&times), times]).unwrap();
            self.generations.add(rows, sessions, None, &mut self.directory).unwrap();
        }

        fn take(&mut self, watermark: i64, rows_max: usize) -> Vec<i64> {
            keys(&self.generations.take_due(&mut self.directory, 5, watermark, rows_max).unwrap())
        }
    }

    #[test]
    fn sessions_leave_when_they_have_ended_in_the_order_of_their_ends() {
        let mut fixture = Fixture::new();
        fixture.add([7, 3, 5].into_iter());
        assert!(!fixture.generations.has_due(&fixture.directory, 5, 34));
        assert!(fixture.take(34, 10).is_empty());
        assert_eq!(fixture.take(55, 10), [3, 5]);
        assert_eq!(fixture.directory.open, 1);
        assert_eq!(fixture.take(1000, 10), [7]);
        assert_eq!(fixture.generations.bytes(), 0);
    }

    #[test]
    fn pieces_are_bounded_over_all_generations() {
        let mut fixture = Fixture::new();
        fixture.add(0..5);
        fixture.add(5..9);
        assert_eq!(fixture.take(1000, 3), [0, 1, 2]);
        let due = fixture.generations.due_rows(&fixture.directory, 5, 1000).unwrap();
        assert_eq!(keys(&due), [3, 4, 5, 6, 7, 8]);
        assert_eq!(fixture.take(1000, 4), [3, 4, 5, 6]);
        assert!(fixture.generations.has_due(&fixture.directory, 5, 1000));
        assert_eq!(fixture.take(1000, 4), [7, 8]);
    }

    #[test]
    fn a_row_that_is_carried_stays_for_that_and_does_not_leave() {
        let mut fixture = Fixture::new();
        fixture.add(0..3);
        let session = fixture.generations.by_id[&0].sessions[1];
        fixture.directory.close(session).unwrap();
        fixture.generations.carry(0, 1);
        assert_eq!(fixture.take(1000, 10), [0, 2]);
        assert_eq!(keys(&[fixture.generations.take_carried(0, [1].into_iter()).unwrap()]), [1]);
        fixture.generations.settle(&mut fixture.directory).unwrap();
        assert_eq!(fixture.generations.bytes(), 0);
    }

    #[test]
    fn generations_stay_few_and_rows_are_rarely_copied() {
        let mut fixture = Fixture::new();
        for round in 0..100 {
            fixture.add(round * 10..(round + 1) * 10);
            fixture.generations.settle(&mut fixture.directory).unwrap();
            assert!(fixture.generations.by_id.len() <= 8, "round {round}");
        }
        assert_eq!(fixture.take(i64::MAX, 10_000).len(), 1000);
    }

    #[test]
    fn what_is_mostly_dead_is_copied() {
        let mut fixture = Fixture::new();
        fixture.add(0..4000);
        fixture.generations.by_id.values_mut().for_each(|generation| generation.bucket = Some(1));
        assert_eq!(fixture.take(25_000, 10_000).len(), 2500);
        let before = fixture.generations.bytes();
        fixture.generations.settle(&mut fixture.directory).unwrap();
        assert!(fixture.generations.bytes() < before / 2);
        assert!(!fixture.generations.has_bucket(1), "it must be stored anew");
        assert_eq!(fixture.take(i64::MAX, 10_000), (2500..4000).collect::<Vec<_>>());
    }
}
