//! The books of one source: which splits there are, who reads them, and how far event time has come.
//!
//! Splits of one lineage (the ranges of a file) carry one watermark, in sequence: a split begins with the watermark at
//! the end of the one before it. So what is late depends on the lineage's own order only, not on how many readers there
//! are. A reader may be given a split before the one in front of it is finished; it reads ahead, and holds what it has
//! read until the book tells it where event time stands at its beginning.
//!
//! The source's watermark is the least over all lineages, of the first split in each that is not finished; a lineage
//! that nobody has begun holds it at the beginning of time. Readers are given the lineage that is furthest behind, so
//! that all advance together and state stays small.
//!
//! Shared by the subtasks of a source; locked once a batch at most, never once a row.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ruslo_core::clock::Instant;
use ruslo_core::error::{Error, Result};
use ruslo_core::source::{Position, Split, SplitId, SplitWatermark};
use ruslo_core::time::Timestamp;
use ruslo_state::manifest::LineageState;

use crate::planted::{Bug, planted};
use crate::scheduler::{Scheduler, TaskIndex, lock};

/// A split that a reader was given.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// What to read.
    pub split: Split,
    /// Where to go on; `None` is from its start.
    pub position: Option<Position>,
    /// Event time at that point; `None` as long as the split before is unfinished.
    pub watermark: Option<SplitWatermark>,
}

/// What a reader that asks for work is told.
#[derive(Debug, PartialEq)]
pub enum Assigned {
    /// Read this.
    Split(Assignment),
    /// Nothing now; you are woken.
    Wait,
    /// Nothing any more.
    Nothing,
}

#[derive(Debug)]
enum SplitProgress {
    Unread,
    /// To go on from a checkpoint, nobody's yet.
    Resumable(Position, SplitWatermark),
    /// Somebody's; its watermark once it is known.
    Reading(Option<SplitWatermark>),
    Finished(SplitWatermark),
}

#[derive(Debug)]
struct Lineage {
    splits: Vec<Split>,
    progress: Vec<SplitProgress>,
    /// How many splits from the first on are finished.
    done: usize,
}

impl Lineage {
    fn new(splits: Vec<Split>) -> Self {
        let progress = splits.iter().map(|_| SplitProgress::Unread).collect();
        Self { splits, progress, done: 0 }
    }

    /// Event time at the beginning of a split, if it is known.
    fn base(&self, sequence: usize) -> Option<SplitWatermark> {
        if sequence == 0 || planted(Bug::ForgetLineage) {
            return Some(SplitWatermark::START);
        }
        match self.progress.get(sequence - 1) {
            Some(SplitProgress::Finished(watermark)) => Some(*watermark),
            _ => None,
        }
    }

    fn watermark(&self) -> Timestamp {
        match self.progress.get(self.done) {
            None => Timestamp::MAX,
            Some(SplitProgress::Reading(Some(at)) | SplitProgress::Resumable(_, at)) => at.0,
            Some(_) => self.base(self.done).unwrap_or(SplitWatermark::START).0,
        }
    }

    fn is_endless(&self) -> bool {
        self.splits.first().is_some_and(|split| split.is_endless)
    }

    fn readers(&self) -> usize {
        self.progress.iter().skip(self.done).filter(|split| matches!(split, SplitProgress::Reading(_))).count()
    }

    fn first_free(&self) -> Option<usize> {
        let free = |split: &SplitProgress| matches!(split, SplitProgress::Unread | SplitProgress::Resumable(..));
        self.progress.iter().skip(self.done).position(free).map(|at| at + self.done)
    }

    fn advance(&mut self) {
        while let Some(SplitProgress::Finished(_)) = self.progress.get(self.done) {
            self.done += 1;
        }
    }

    fn assign(&mut self, sequence: usize) -> Option<Assignment> {
        let split = self.splits.get(sequence)?.clone();
        let base = self.base(sequence);
        let progress = self.progress.get_mut(sequence)?;
        let (position, watermark) = match std::mem::replace(progress, SplitProgress::Unread) {
            SplitProgress::Resumable(position, _) if planted(Bug::ForgetSplitWatermark) => {
                (Some(position), Some(SplitWatermark::START))
            }
            SplitProgress::Resumable(position, watermark) => (Some(position), Some(watermark)),
            _ => (None, base),
        };
        *progress = SplitProgress::Reading(watermark);
        Some(Assignment { split, position, watermark })
    }
}

/// The books of one source.
pub struct SplitBook {
    readers: Vec<TaskIndex>,
    scheduler: Arc<dyn Scheduler>,
    open: Mutex<Pages>,
}

struct Pages {
    lineages: BTreeMap<String, Lineage>,
    throttle: Option<Throttle>,
}

impl SplitBook {
    /// The books of the source whose subtasks are the tasks `readers`.
    pub fn new(
        splits: Vec<Split>,
        rows_per_second: Option<u64>,
        readers: Vec<TaskIndex>,
        scheduler: Arc<dyn Scheduler>,
    ) -> Self {
        let mut by_lineage: BTreeMap<String, Vec<Split>> = BTreeMap::new();
        for split in splits {
            by_lineage.entry(split.lineage.clone()).or_default().push(split);
        }
        let lineages = by_lineage.into_iter().map(|(name, splits)| (name, Lineage::new(splits))).collect();
        let throttle = rows_per_second.map(Throttle::new);
        Self { readers, scheduler, open: Mutex::new(Pages { lineages, throttle }) }
    }

    /// Goes on from a checkpoint. What has appeared since is left out: bounded input is what was there at the start.
    ///
    /// # Errors
    /// `Usage`, naming the file, if one that is not read to its end has gone or changed.
    pub fn restore(&self, states: &[LineageState]) -> Result<()> {
        let mut pages = lock(&self.open);
        let known: BTreeMap<&str, &LineageState> = states.iter().map(|state| (state.lineage.as_str(), state)).collect();
        for name in pages.lineages.keys().filter(|name| !known.contains_key(name.as_str())) {
            tracing::warn!("{name} has appeared since the start, and is not read");
        }
        pages.lineages.retain(|name, _| known.contains_key(name.as_str()));
        for state in states {
            restore_lineage(pages.lineages.get_mut(&state.lineage), state)?;
        }
        Ok(())
    }

    /// Every lineage as unread: what the coordinator begins its own books with.
    pub fn unread(&self) -> Vec<LineageState> {
        let pages = lock(&self.open);
        let state = |(name, lineage): (&String, &Lineage)| LineageState {
            lineage: name.clone(),
            identity: lineage.splits.first().map(|split| split.description.clone()).unwrap_or_default(),
            splits: lineage.splits.len() as u64,
            finished: Vec::new(),
            reading: Vec::new(),
        };
        pages.lineages.iter().map(state).collect()
    }

    /// A split for a reader that has none with an end: of the lineage furthest behind, and rather one that nobody reads.
    /// `endless`: how many it has that never end; of these each reader gets its share at once.
    pub fn assign(&self, endless: usize) -> Assigned {
        let mut pages = lock(&self.open);
        let look_ahead_max = self.readers.len();
        if let Some(name) = pages.endless_for(endless, self.readers.len()) {
            let assignment = pages.lineages.get_mut(&name).and_then(|lineage| lineage.assign(0));
            return assignment.map_or(Assigned::Nothing, Assigned::Split);
        }
        let finite = pages.lineages.iter().filter(|(_, lineage)| !lineage.is_endless());
        let free = finite.filter_map(|(name, lineage)| {
            let readers = lineage.readers();
            let sequence = lineage.first_free()?;
            (readers < look_ahead_max).then_some((readers, lineage.watermark(), name.clone(), sequence))
        });
        if let Some((_, _, name, sequence)) = free.min() {
            let assignment = pages.lineages.get_mut(&name).and_then(|lineage| lineage.assign(sequence));
            return assignment.map_or(Assigned::Nothing, Assigned::Split);
        }
        let mut finite = pages.lineages.values().filter(|lineage| !lineage.is_endless());
        let unread = finite.any(|lineage| lineage.first_free().is_some());
        if unread { Assigned::Wait } else { Assigned::Nothing }
    }

    /// Event time at the beginning of a split that was given without.
    pub fn base(&self, split: &SplitId) -> Option<SplitWatermark> {
        let mut pages = lock(&self.open);
        let lineage = pages.lineages.get_mut(&split.lineage)?;
        let sequence = split.sequence as usize;
        let base = lineage.base(sequence)?;
        if let Some(progress) = lineage.progress.get_mut(sequence) {
            *progress = SplitProgress::Reading(Some(base));
        }
        Some(base)
    }

    /// A reader has sent rows up to `watermark`; the source's watermark now.
    pub fn advance(&self, split: &SplitId, watermark: SplitWatermark) -> Timestamp {
        self.set(split, SplitProgress::Reading(Some(watermark)))
    }

    /// A reader is through with a split; the source's watermark now.
    pub fn finish(&self, split: &SplitId, watermark: SplitWatermark) -> Timestamp {
        let source = self.set(split, SplitProgress::Finished(watermark));
        // The next split's beginning is known now, and there may be work for who waits.
        self.readers.iter().for_each(|reader| self.scheduler.wake(*reader));
        source
    }

    fn set(&self, split: &SplitId, progress: SplitProgress) -> Timestamp {
        let mut pages = lock(&self.open);
        if let Some(lineage) = pages.lineages.get_mut(&split.lineage) {
            if let Some(slot) = lineage.progress.get_mut(split.sequence as usize) {
                *slot = progress;
            }
            lineage.advance();
        }
        pages.watermark()
    }

    /// The source's watermark.
    pub fn watermark(&self) -> Timestamp {
        lock(&self.open).watermark()
    }

    /// How many rows may be read now, or when to ask again.
    pub fn allowance(&self, now: Instant, rows_max: usize) -> Result<usize, Instant> {
        match &mut lock(&self.open).throttle {
            None => Ok(rows_max),
            Some(throttle) => throttle.allowance(now, rows_max),
        }
    }

    /// Rows of an allowance that were read.
    pub fn spend(&self, rows: usize) {
        if let Some(throttle) = &mut lock(&self.open).throttle {
            throttle.spent += rows as u64;
        }
    }
}

impl Pages {
    /// An endless lineage that nobody reads, for a reader that has `held` already.
    fn endless_for(&self, held: usize, readers: usize) -> Option<String> {
        let endless = || self.lineages.iter().filter(|(_, lineage)| lineage.is_endless());
        if held >= endless().count().div_ceil(readers.max(1)) {
            return None;
        }
        endless().find(|(_, lineage)| lineage.first_free().is_some()).map(|(name, _)| name.clone())
    }

    fn watermark(&self) -> Timestamp {
        self.lineages.values().map(Lineage::watermark).min().unwrap_or(Timestamp::MAX)
    }
}

fn restore_lineage(lineage: Option<&mut Lineage>, state: &LineageState) -> Result<()> {
    let name = &state.lineage;
    let is_read = state.finished.first().is_some_and(|range| range.first == 0 && range.last + 1 == state.splits);
    let Some(lineage) = lineage else {
        let gone = format!(
            "{name}: gone since the checkpoint, and not read to its end; put it back, or start over with --fresh"
        );
        return if is_read || state.splits == 0 { Ok(()) } else { Err(Error::usage(gone)) };
    };
    let identity = lineage.splits.first().map(|split| &split.description);
    if identity != Some(&state.identity) || lineage.splits.len() as u64 != state.splits {
        let message = "changed since the checkpoint; put the old content back, or start over with --fresh";
        return Err(Error::usage(format!("{name}: {message}")));
    }
    for range in &state.finished {
        for sequence in range.first..=range.last {
            if let Some(progress) = lineage.progress.get_mut(sequence as usize) {
                *progress = SplitProgress::Finished(range.watermark);
            }
        }
    }
    for reading in &state.reading {
        if let Some(progress) = lineage.progress.get_mut(reading.sequence as usize) {
            *progress = SplitProgress::Resumable(reading.position.clone(), reading.watermark);
        }
    }
    lineage.advance();
    Ok(())
}

/// So many rows a second since the first question, and never more than a twentieth of a second's at once.
#[derive(Debug)]
struct Throttle {
    rows_per_second: u64,
    start: Option<Instant>,
    spent: u64,
}

impl Throttle {
    fn new(rows_per_second: u64) -> Self {
        Self { rows_per_second: rows_per_second.max(1), start: None, spent: 0 }
    }

    fn allowance(&mut self, now: Instant, rows_max: usize) -> Result<usize, Instant> {
        let start = *self.start.get_or_insert(now);
        let earned = now.saturating_sub(start).as_secs_f64() * self.rows_per_second as f64;
        let burst = (self.rows_per_second / 20).max(1);
        let free = (earned as u64 + burst).saturating_sub(self.spent);
        if free > 0 {
            return Ok(rows_max.min(free.min(burst) as usize));
        }
        let wait = (self.spent + 1 - burst) as f64 / self.rows_per_second as f64;
        Err(start + Instant::from_secs_f64(wait) + Instant::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ruslo_state::manifest::{FinishedSplits, SplitReading};

    use super::*;

    struct NoScheduler;
    impl Scheduler for NoScheduler {
        fn wake(&self, _: TaskIndex) {}
    }

    fn split(lineage: &str, sequence: u64) -> Split {
        Split {
            lineage: lineage.to_owned(),
            sequence,
            is_endless: false,
            description: serde_json::json!({ "n": sequence }),
        }
    }

    fn book(splits: &[(&str, u64)], readers: usize) -> SplitBook {
        let splits = splits.iter().map(|(lineage, sequence)| split(lineage, *sequence)).collect();
        SplitBook::new(splits, None, (0..readers).collect(), Arc::new(NoScheduler))
    }

    fn next(book: &SplitBook) -> Assignment {
        match book.assign(0) {
            Assigned::Split(assignment) => assignment,
            other => panic!("{other:?}"),
        }
    }

    fn at(millis: i64) -> SplitWatermark {
        SplitWatermark(Timestamp(millis))
    }

    #[test]
    fn the_lineage_furthest_behind_is_read_next() {
        let book = book(&[("a", 0), ("a", 1), ("b", 0), ("b", 1)], 1);
        let a = next(&book);
        assert_eq!(book.finish(&a.split.id(), at(50)), Timestamp::MIN, "b is unread");
        let b = next(&book);
        assert_eq!(b.split.id(), split("b", 0).id());
        assert_eq!(book.advance(&b.split.id(), at(20)), Timestamp(20));
        assert_eq!(book.finish(&b.split.id(), at(70)), Timestamp(50));
        assert_eq!(next(&book).split.id(), split("a", 1).id());
    }

    #[test]
    fn a_split_begins_where_event_time_stood_at_the_end_of_the_one_before() {
        let book = book(&[("a", 0), ("a", 1), ("a", 2)], 2);
        let (first, second) = (next(&book), next(&book));
        assert_eq!((first.watermark, second.watermark), (Some(SplitWatermark::START), None));
        assert_eq!(book.assign(0), Assigned::Wait, "one split a reader is looked ahead");
        assert_eq!(book.base(&second.split.id()), None);
        book.finish(&first.split.id(), at(9));
        assert_eq!(book.base(&second.split.id()), Some(at(9)));
        assert_eq!(book.watermark(), Timestamp(9));
    }

    #[test]
    fn endless_splits_are_shared_out_at_once() {
        let endless = |lineage: &str| Split { is_endless: true, ..split(lineage, 0) };
        let splits = ["a", "b", "c"].map(endless).into();
        let book = SplitBook::new(splits, None, vec![0, 1], Arc::new(NoScheduler));
        let mut taken = Vec::new();
        for held in [0, 1, 0] {
            let Assigned::Split(assignment) = book.assign(held) else { panic!() };
            taken.push(assignment.split.lineage);
        }
        assert_eq!(taken, ["a", "b", "c"]);
        assert_eq!((book.assign(2), book.assign(1)), (Assigned::Nothing, Assigned::Nothing));
        assert_eq!(book.watermark(), Timestamp::MIN);
    }

    #[test]
    fn when_all_is_read_event_time_ends() {
        let book = book(&[("a", 0)], 2);
        let only = next(&book);
        assert_eq!(book.assign(0), Assigned::Nothing);
        assert_eq!(book.finish(&only.split.id(), at(5)), Timestamp::MAX);
        assert_eq!(self::book(&[], 1).watermark(), Timestamp::MAX);
    }

    fn state(finished: Vec<FinishedSplits>, reading: Vec<SplitReading>) -> LineageState {
        let identity = serde_json::json!({ "n": 0 });
        LineageState { lineage: "a".to_owned(), identity, splits: 3, finished, reading }
    }

    #[test]
    fn a_checkpoint_may_have_a_later_split_finished_before_an_earlier_one() {
        let book = book(&[("a", 0), ("a", 1), ("a", 2), ("new", 0)], 2);
        let reading = SplitReading { sequence: 0, position: serde_json::json!(7), watermark: at(3) };
        let finished = FinishedSplits { first: 1, last: 1, watermark: at(30) };
        book.restore(&[state(vec![finished], vec![reading])]).unwrap();
        assert_eq!(book.watermark(), Timestamp(3));
        let first = next(&book);
        assert_eq!((first.position, first.watermark), (Some(serde_json::json!(7)), Some(at(3))));
        assert_eq!(next(&book).watermark, Some(at(30)));
        assert_eq!(book.assign(0), Assigned::Nothing, "what is new since the start is not read");
    }

    #[test]
    fn a_file_that_changed_or_went_is_named() {
        let changed = book(&[("a", 0)], 1).restore(&[state(vec![], vec![])]).unwrap_err();
        assert!(changed.to_string().starts_with("a: changed since the checkpoint"), "{changed}");
        let gone = book(&[], 1).restore(&[state(vec![], vec![])]).unwrap_err();
        assert!(gone.to_string().starts_with("a: gone since the checkpoint"), "{gone}");
        let finished = FinishedSplits { first: 0, last: 2, watermark: at(1) };
        book(&[], 1).restore(&[state(vec![finished], vec![])]).unwrap();
    }

    #[test]
    fn a_throttled_source_reads_its_rate_and_no_more() {
        let mut throttle = Throttle::new(1000);
        let (mut now, mut read) = (Duration::ZERO, 0);
        while now < Duration::from_secs(10) {
            match throttle.allowance(now, 8192) {
                Ok(rows) => {
                    throttle.spent += rows as u64;
                    read += rows;
                }
                Err(at) => {
                    assert!(at > now);
                    now = at;
                }
            }
        }
        assert!((9_950..=10_100).contains(&read), "{read}");
    }
}
