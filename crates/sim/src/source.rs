//! A source over a [`Dataset`]: batches of random size, and readers that now and then have nothing for a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use ruslo_core::clock::Clock;
use ruslo_core::dead_letter::{Record, Rejected};
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::rng::Rng;
use ruslo_core::source::{Budget, Polled, Position, Sifted, Source, SourceReader, Split, SplitId};
use serde_json::json;

use crate::changes::Told;
use crate::dataset::{self, Dataset, Lineage};
use crate::trace::Trace;

/// How readers behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manners {
    /// Rows of a batch at most, beside the runtime's budget.
    pub rows_max: usize,
    /// Once in so many polls there is nothing for up to a second; never, if 0.
    pub pause_one_in: usize,
    /// After so many rows in all, there is nothing ever more: the reader hangs.
    pub hang_after: Option<usize>,
}

impl Default for Manners {
    fn default() -> Self {
        Self { rows_max: usize::MAX, pause_one_in: 0, hang_after: None }
    }
}

/// A source in memory.
pub struct SimSource {
    data: Arc<Dataset>,
    manners: Manners,
    trace: Trace,
    rng: Mutex<Rng>,
    readers: AtomicU64,
    rejects: bool,
    told: Told,
}

impl SimSource {
    /// A source of `data`, whose readers' whims follow from `rng`.
    pub fn new(data: Arc<Dataset>, manners: Manners, trace: Trace, rng: Rng) -> Self {
        let (rng, readers) = (Mutex::new(rng), AtomicU64::new(0));
        Self { data, manners, trace, rng, readers, rejects: false, told: Told::Rows }
    }

    /// What its rows are.
    #[must_use]
    pub fn telling(self, told: Told) -> Self {
        Self { told, ..self }
    }

    /// Bad records are rejected if it `rejects`; otherwise they are rows as all others.
    #[must_use]
    pub fn rejecting(self, rejects: bool) -> Self {
        Self { rejects, ..self }
    }
}

impl Source for SimSource {
    fn schema(&self) -> SchemaRef {
        dataset::schema()
    }

    fn splits(&self, _: &Environment) -> Result<Vec<Split>> {
        Ok(self.data.splits())
    }

    fn reader(&self, environment: &Environment) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(SimReader {
            data: Arc::clone(&self.data),
            manners: self.manners,
            trace: self.trace.clone(),
            clock: Arc::clone(&environment.clock),
            rng: Rng::seeded(self.rng.lock().unwrap().next_u64()),
            number: self.readers.fetch_add(1, Ordering::Relaxed),
            read: 0,
            reading: None,
            rejects: self.rejects,
            told: self.told,
        }))
    }
}

struct Reading {
    split: SplitId,
    lineage: i64,
    next: usize,
    end: usize,
}

struct SimReader {
    data: Arc<Dataset>,
    manners: Manners,
    trace: Trace,
    clock: Arc<dyn Clock>,
    rng: Rng,
    number: u64,
    read: usize,
    reading: Option<Reading>,
    rejects: bool,
    told: Told,
}

/// Of `batch`, the rows `from..` of a lineage, the bad ones are rejected.
fn sifted(lineage: &Lineage, from: usize, batch: &RecordBatch) -> Result<(RecordBatch, Vec<Rejected>)> {
    let rows = &lineage.rows[from..from + batch.num_rows()];
    let good: BooleanArray = rows.iter().map(|row| Some(!row.is_bad())).collect();
    let bad = rows.iter().enumerate().filter(|(_, row)| row.is_bad());
    let rejected = bad.map(|(place, _)| {
        let record = Record { position: dataset::position(lineage.id, from + place).to_string(), raw: None };
        Rejected { record, reason: "it is bad".to_owned() }
    });
    Ok((filter_record_batch(batch, &good)?, rejected.collect()))
}

fn number(value: &serde_json::Value) -> Result<usize> {
    value.as_u64().map(|n| n as usize).ok_or_else(|| Error::internal(format!("{value} is not a place in a lineage")))
}

impl SourceReader for SimReader {
    fn add_split(&mut self, split: Split, position: Option<Position>) -> Result<()> {
        if self.reading.is_some() {
            return Err(Error::internal("a reader was given a second split"));
        }
        let from = number(&split.description["from"])?;
        let next = position.as_ref().map_or(Ok(from), number)?;
        let (end, lineage) = (number(&split.description["to"])?, number(&split.description["lineage"])? as i64);
        if !(from..=end).contains(&next) {
            return Err(Error::internal(format!("{next} is not a place in split {:?}", split.id())));
        }
        self.reading = Some(Reading { split: split.id(), lineage, next, end });
        Ok(())
    }

    fn poll(&mut self, budget: Budget) -> Result<Polled> {
        if self.manners.hang_after.is_some_and(|rows| self.read >= rows) {
            return Ok(Polled::Pending(None));
        }
        if self.manners.pause_one_in > 0 && self.rng.one_in(self.manners.pause_one_in) {
            let pause = Duration::from_millis(1 + self.rng.below(1000) as u64);
            return Ok(Polled::Pending(Some(self.clock.now() + pause)));
        }
        let Some(reading) = &mut self.reading else {
            return Err(Error::internal("a reader without a split was polled"));
        };
        self.trace.event("poll", &[self.number, reading.lineage as u64, reading.next as u64]);
        if reading.next == reading.end {
            let split = reading.split.clone();
            self.reading = None;
            return Ok(Polled::Finished(split));
        }
        let rows_max = budget.rows_max.min(self.manners.rows_max).min(reading.end - reading.next);
        let rows = 1 + self.rng.below(rows_max);
        let lineage = self.data.lineage(reading.lineage).ok_or_else(|| Error::internal("a lineage is not there"))?;
        let batch = dataset::batch(lineage, reading.next, reading.next + rows);
        let from = reading.next;
        reading.next += rows;
        self.read += rows;
        let (split, position) = (reading.split.clone(), json!(reading.next));
        if self.rejects {
            let (batch, rejected) = sifted(lineage, from, &batch)?;
            return Ok(Polled::Sifted(Sifted { split, batch, position, rejected, origins: None }));
        }
        Ok(Polled::Batch { split, batch: self.told.read(batch), position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Row;

    fn source(manners: Manners) -> SimSource {
        let rows = (0..10).map(|value| Row { key: 0, value, time: 0 }).collect();
        let data = Dataset { lineages: vec![Lineage { id: 3, rows, cuts: vec![0, 4, 10] }] };
        SimSource::new(Arc::new(data), manners, Trace::default(), Rng::seeded(1))
    }

    fn read(reader: &mut dyn SourceReader) -> (Vec<usize>, Position) {
        let (mut sizes, mut last) = (Vec::new(), json!(null));
        while let Polled::Batch { batch, position, .. } = reader.poll(Budget { rows_max: 3 }).unwrap() {
            sizes.push(batch.num_rows());
            last = position;
        }
        (sizes, last)
    }

    #[test]
    fn a_split_is_read_from_a_position_to_its_end_in_bounded_batches() {
        let source = source(Manners::default());
        let environment = Environment::local();
        let split = source.splits(&environment).unwrap().remove(1);
        let mut reader = source.reader(&environment).unwrap();
        reader.add_split(split.clone(), Some(json!(5))).unwrap();
        let (sizes, last) = read(reader.as_mut());
        assert!(sizes.iter().all(|size| (1..=3).contains(size)));
        assert_eq!((sizes.iter().sum::<usize>(), last), (5, json!(10)));
        assert!(reader.add_split(split, Some(json!(99))).is_err());
    }

    #[test]
    fn a_reader_may_hang() {
        let source = source(Manners { hang_after: Some(1), rows_max: 1, ..Manners::default() });
        let environment = Environment::local();
        let mut reader = source.reader(&environment).unwrap();
        reader.add_split(source.splits(&environment).unwrap().remove(0), None).unwrap();
        assert_eq!(read(reader.as_mut()), (vec![1], json!(1)));
        assert!(matches!(reader.poll(Budget { rows_max: 1 }).unwrap(), Polled::Pending(None)));
    }
}
