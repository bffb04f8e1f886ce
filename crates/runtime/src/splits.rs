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
//! A split that brings nothing for a while is idle: its lineage does not hold the source's watermark, and goes on from
//! where that is by then as soon as it brings a row. While all are idle the watermark stands still.
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
    /// To go on from a checkpoint, nobody's yet; from its start, if it was idle there.
    Resumable(Option<Position>, SplitWatermark),
    /// Somebody's; its watermark once it is known.
    Reading(Option<SplitWatermark>),
    /// Somebody's, and nobody waits for it.
    Idle(SplitWatermark),
    Finished(SplitWatermark),
}

#[derive(Debug)]
struct Lineage {
    splits: Vec<Split>,
    progress: Vec<SplitProgress>,
    /// How many splits from the first on are finished.
    done: usize,
    /// Event time at its beginning.
    base: SplitWatermark,
}

impl Lineage {
    fn new(splits: Vec<Split>, base: SplitWatermark) -> Self {
        let progress = splits.iter().map(|_| SplitProgress::Unread).collect();
        Self { splits, progress, done: 0, base }
    }

    /// Event time at the beginning of a split, if it is known.
    fn base(&self, sequence: usize) -> Option<SplitWatermark> {
        if sequence == 0 || planted(Bug::ForgetLineage) {
            return Some(self.base);
        }
        match self.progress.get(sequence - 1) {
            Some(SplitProgress::Finished(watermark)) => Some(*watermark),
            _ => None,
        }
    }

    fn watermark(&self) -> Timestamp {
        match self.progress.get(self.done) {
            None => Timestamp::MAX,
            Some(SplitProgress::Reading(Some(at)) | SplitProgress::Resumable(_, at) | SplitProgress::Idle(at)) => at.0,
            Some(_) => self.base(self.done).unwrap_or(self.base).0,
        }
    }

    fn is_finished(&self) -> bool {
        self.done == self.splits.len()
    }

    fn is_idle(&self) -> bool {
        matches!(self.progress.get(self.done), Some(SplitProgress::Idle(_)))
    }

    fn is_endless(&self) -> bool {
        self.splits.first().is_some_and(|split| split.is_endless)
    }

    fn readers(&self) -> usize {
        let read = |split: &&SplitProgress| matches!(split, SplitProgress::Reading(_) | SplitProgress::Idle(_));
        self.progress.iter().skip(self.done).filter(read).count()
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
                (position, Some(SplitWatermark::START))
            }
            SplitProgress::Resumable(position, watermark) => (position, Some(watermark)),
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
    /// Whether splits fall idle: then readers with nothing to do stay until all is read, for they speak of all splits.
    has_idleness: bool,
    /// New lineages come while the job runs: nothing ends by itself.
    is_watched: bool,
    /// What was promised before a restore; none of the lineages that come is before it.
    promised: Timestamp,
    /// The source's watermark never falls below what it was.
    reached: Timestamp,
    /// Some reader waits.
    somebody_waits: bool,
}

impl SplitBook {
    /// The books of the source whose subtasks are the tasks `readers`.
    pub fn new(
        splits: Vec<Split>,
        rows_per_second: Option<u64>,
        readers: Vec<TaskIndex>,
        scheduler: Arc<dyn Scheduler>,
    ) -> Self {
        let lineages = by_lineage(splits).into_iter();
        let lineages = lineages.map(|(name, splits)| (name, Lineage::new(splits, SplitWatermark::START))).collect();
        let throttle = rows_per_second.map(Throttle::new);
        let (has_idleness, is_watched, somebody_waits) = (false, false, false);
        let (reached, promised) = (Timestamp::MIN, Timestamp::MIN);
        let pages = Pages { lineages, throttle, has_idleness, is_watched, promised, reached, somebody_waits };
        Self { readers, scheduler, open: Mutex::new(pages) }
    }

    /// Readers will say which splits are idle.
    #[must_use]
    pub fn with_idleness(self) -> Self {
        lock(&self.open).has_idleness = true;
        self
    }

    /// Lineages will be added; readers stay until they are stopped.
    #[must_use]
    pub fn with_discovery(self) -> Self {
        lock(&self.open).is_watched = true;
        self
    }

    /// Adds lineages that have appeared, and wakes readers: they begin where the source is. What the coordinator's books
    /// need to know of them.
    pub fn add(&self, splits: Vec<Split>) -> Vec<LineageState> {
        let mut pages = lock(&self.open);
        let base = SplitWatermark(pages.watermark().max(pages.promised));
        let mut states = Vec::new();
        for (name, splits) in by_lineage(splits) {
            if pages.lineages.contains_key(&name) {
                continue;
            }
            let lineage = Lineage::new(splits, base);
            states.push(unread(&name, &lineage));
            pages.lineages.insert(name, lineage);
        }
        drop(pages);
        self.wake_readers();
        states
    }

    /// Forgets lineages that are read to their end.
    pub fn forget(&self, names: &[String]) {
        let mut pages = lock(&self.open);
        pages.lineages.retain(|name, lineage| !lineage.is_finished() || !names.contains(name));
    }

    /// Whether there is nothing left to read, for now.
    pub fn is_exhausted(&self) -> bool {
        lock(&self.open).lineages.values().all(Lineage::is_finished)
    }

    /// Goes on from a checkpoint. What has appeared since is left out: bounded input is what was there at the start.
    /// Splits that were idle go on from `promised`, the source's watermark by then.
    ///
    /// # Errors
    /// `Usage`, naming the file, if one that is not read to its end has gone or changed.
    pub fn restore(&self, states: &[LineageState], promised: Timestamp) -> Result<()> {
        let mut pages = lock(&self.open);
        let known: BTreeMap<&str, &LineageState> = states.iter().map(|state| (state.lineage.as_str(), state)).collect();
        pages.promised = promised;
        let is_new = |name: &&String| !pages.is_watched && !known.contains_key(name.as_str());
        for name in pages.lineages.keys().filter(is_new) {
            tracing::warn!("{name} has appeared since the start, and is not read");
        }
        pages.lineages.retain(|name, _| known.contains_key(name.as_str()));
        for state in states {
            restore_lineage(pages.lineages.get_mut(&state.lineage), state, promised)?;
        }
        Ok(())
    }

    /// Every lineage as unread: what the coordinator begins its own books with.
    pub fn unread(&self) -> Vec<LineageState> {
        let pages = lock(&self.open);
        pages.lineages.iter().map(|(name, lineage)| unread(name, lineage)).collect()
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
        let is_needed = pages.is_watched || (pages.has_idleness && !pages.lineages.values().all(Lineage::is_finished));
        if unread || is_needed { Assigned::Wait } else { Assigned::Nothing }
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
        self.wake_readers();
        source
    }

    /// Nobody waits for this split any more, whose watermark is `watermark`.
    pub fn fall_idle(&self, split: &SplitId, watermark: SplitWatermark) {
        self.set(split, SplitProgress::Idle(watermark));
        // If it was the last, all say so.
        self.wake_readers();
    }

    /// A split that was idle brings rows, or ends: its watermark from now on.
    pub fn rejoin(&self, split: &SplitId, watermark: SplitWatermark) -> SplitWatermark {
        let mut pages = lock(&self.open);
        let watermark = SplitWatermark(watermark.0.max(pages.reached));
        pages.set(split, SplitProgress::Reading(Some(watermark)));
        watermark
    }

    /// Whether something is left to read, and all of it is idle.
    pub fn is_idle(&self) -> bool {
        lock(&self.open).is_idle()
    }

    /// A reader that has told the watermark `told`, and whether all are idle, has nothing to do: whether it may wait
    /// until it is woken.
    pub fn wait(&self, told: Timestamp, told_idle: bool) -> bool {
        let mut pages = lock(&self.open);
        let watermark = pages.watermark();
        let has_news = (watermark > told && watermark < Timestamp::MAX) || (pages.is_idle() && !told_idle);
        pages.somebody_waits |= !has_news;
        !has_news
    }

    fn wake_readers(&self) {
        self.readers.iter().for_each(|reader| self.scheduler.wake(*reader));
    }

    fn set(&self, split: &SplitId, progress: SplitProgress) -> Timestamp {
        let mut pages = lock(&self.open);
        pages.set(split, progress);
        let before = pages.reached;
        let watermark = pages.watermark();
        let wakes = pages.reached > before && std::mem::take(&mut pages.somebody_waits);
        drop(pages);
        if wakes {
            self.wake_readers();
        }
        watermark
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

    /// The least of those that are waited for; where it was, if something is left that nobody waits for.
    fn watermark(&mut self) -> Timestamp {
        let holding = self.lineages.values().filter(|lineage| !lineage.is_idle()).map(Lineage::watermark);
        let least = holding.min().filter(|least| *least < Timestamp::MAX);
        if let Some(least) = least {
            self.reached = self.reached.max(least);
        }
        let is_over = least.is_none() && !self.is_watched && self.lineages.values().all(Lineage::is_finished);
        if is_over { Timestamp::MAX } else { self.reached }
    }

    fn is_idle(&self) -> bool {
        let mut left = self.lineages.values().filter(|lineage| !lineage.is_finished()).peekable();
        left.peek().is_some() && left.all(Lineage::is_idle)
    }

    fn set(&mut self, split: &SplitId, progress: SplitProgress) {
        if let Some(lineage) = self.lineages.get_mut(&split.lineage) {
            if let Some(slot) = lineage.progress.get_mut(split.sequence as usize) {
                *slot = progress;
            }
            lineage.advance();
        }
    }
}

fn by_lineage(splits: Vec<Split>) -> BTreeMap<String, Vec<Split>> {
    let mut lineages: BTreeMap<String, Vec<Split>> = BTreeMap::new();
    for split in splits {
        lineages.entry(split.lineage.clone()).or_default().push(split);
    }
    lineages
}

fn unread(name: &str, lineage: &Lineage) -> LineageState {
    LineageState {
        lineage: name.to_owned(),
        identity: lineage.splits.first().map(|split| split.description.clone()).unwrap_or_default(),
        splits: lineage.splits.len() as u64,
        finished: Vec::new(),
        reading: Vec::new(),
        base: lineage.base,
    }
}

fn restore_lineage(lineage: Option<&mut Lineage>, state: &LineageState, promised: Timestamp) -> Result<()> {
    let name = &state.lineage;
    let Some(lineage) = lineage else {
        let gone = format!(
            "{name}: gone since the checkpoint, and not read to its end; put it back, or start over with --fresh"
        );
        return if state.is_read() { Ok(()) } else { Err(Error::usage(gone)) };
    };
    let identity = lineage.splits.first().map(|split| &split.description);
    if identity != Some(&state.identity) || lineage.splits.len() as u64 != state.splits {
        let message = "changed since the checkpoint; put the old content back, or start over with --fresh";
        return Err(Error::usage(format!("{name}: {message}")));
    }
    lineage.base = state.base;
    for range in &state.finished {
        for sequence in range.first..=range.last {
            if let Some(progress) = lineage.progress.get_mut(sequence as usize) {
                *progress = SplitProgress::Finished(range.watermark);
            }
        }
    }
    for reading in &state.reading {
        if let Some(progress) = lineage.progress.get_mut(reading.sequence as usize) {
            let floor = if reading.is_idle { promised } else { Timestamp::MIN };
            let position = Some(reading.position.clone()).filter(|position| !position.is_null());
            *progress = SplitProgress::Resumable(position, SplitWatermark(reading.watermark.0.max(floor)));
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
    fn an_idle_split_is_not_waited_for_and_rejoins_where_the_source_is() {
        let book = book(&[("a", 0), ("b", 0)], 2).with_idleness();
        let (a, b) = (next(&book).split.id(), next(&book).split.id());
        book.advance(&a, at(10));
        assert_eq!(book.watermark(), Timestamp::MIN, "nobody knows when b begins");
        book.fall_idle(&b, SplitWatermark::START);
        assert_eq!((book.watermark(), book.is_idle()), (Timestamp(10), false));
        assert!(!book.wait(Timestamp::MIN, false), "who has not told it must not sleep");
        assert!(book.wait(Timestamp(10), false));
        book.advance(&a, at(30));
        assert_eq!(book.rejoin(&b, SplitWatermark::START), at(30));
        book.advance(&a, at(90));
        assert_eq!(book.watermark(), Timestamp(30), "b is waited for again");
        book.fall_idle(&a, at(90));
        book.fall_idle(&b, at(30));
        assert_eq!((book.watermark(), book.is_idle()), (Timestamp(30), true), "nothing goes on by itself");
        assert!(!book.wait(Timestamp(30), false) && book.wait(Timestamp(30), true));
        assert_eq!(book.rejoin(&b, at(30)), at(30));
        assert_eq!(book.assign(0), Assigned::Wait, "readers end together, for their watermarks are merged");
        book.finish(&b, at(30));
        assert_eq!((book.watermark(), book.is_idle()), (Timestamp(30), true), "b is read, a is idle");
        book.finish(&a, at(90));
        assert_eq!((book.watermark(), book.is_idle(), book.assign(0)), (Timestamp::MAX, false, Assigned::Nothing));
    }

    #[test]
    fn what_was_idle_at_a_checkpoint_goes_on_from_what_was_promised() {
        let book = book(&[("a", 0), ("a", 1), ("a", 2)], 2);
        let reading = SplitReading { sequence: 0, position: serde_json::json!(null), watermark: at(3), is_idle: true };
        book.restore(&[state(vec![], vec![reading])], Timestamp(40)).unwrap();
        let first = next(&book);
        assert_eq!((first.position, first.watermark), (None, Some(at(40))));
    }

    #[test]
    fn what_appears_begins_where_the_source_is_and_nothing_ends_by_itself() {
        let book = book(&[("a", 0)], 1).with_discovery();
        let a = next(&book).split.id();
        book.advance(&a, at(50));
        book.finish(&a, at(50));
        assert_eq!((book.watermark(), book.assign(0), book.is_exhausted()), (Timestamp(50), Assigned::Wait, true));
        let added = book.add(vec![split("a", 0), split("b", 0), split("b", 1)]);
        assert_eq!(added.iter().map(|state| (state.lineage.as_str(), state.splits)).collect::<Vec<_>>(), [("b", 2)]);
        assert_eq!((added[0].base, next(&book).watermark), (at(50), Some(at(50))));
        book.forget(&["a".to_owned(), "b".to_owned()]);
        assert_eq!(book.unread().len(), 1, "b is not read");
        // The same after a restore, with what was promised by then, and a file that is gone.
        let restored = self::book(&[("b", 0), ("b", 1), ("c", 0)], 1).with_discovery();
        let finished = FinishedSplits { first: 0, last: 2, watermark: at(50) };
        let b = LineageState { lineage: "b".to_owned(), splits: 2, base: at(50), ..state(vec![], vec![]) };
        restored.restore(&[state(vec![finished], vec![]), b], Timestamp(60)).unwrap();
        assert_eq!(next(&restored).watermark, Some(at(50)));
        assert_eq!(restored.add(vec![split("c", 0)])[0].base, at(60));
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
        let base = SplitWatermark::START;
        LineageState { lineage: "a".to_owned(), identity, splits: 3, finished, reading, base }
    }

    #[test]
    fn a_checkpoint_may_have_a_later_split_finished_before_an_earlier_one() {
        let book = book(&[("a", 0), ("a", 1), ("a", 2), ("new", 0)], 2);
        let reading = SplitReading { sequence: 0, position: serde_json::json!(7), watermark: at(3), is_idle: false };
        let finished = FinishedSplits { first: 1, last: 1, watermark: at(30) };
        book.restore(&[state(vec![finished], vec![reading])], Timestamp::MIN).unwrap();
        assert_eq!(book.watermark(), Timestamp(3));
        let first = next(&book);
        assert_eq!((first.position, first.watermark), (Some(serde_json::json!(7)), Some(at(3))));
        assert_eq!(next(&book).watermark, Some(at(30)));
        assert_eq!(book.assign(0), Assigned::Nothing, "what is new since the start is not read");
    }

    #[test]
    fn a_file_that_changed_or_went_is_named() {
        let changed = book(&[("a", 0)], 1).restore(&[state(vec![], vec![])], Timestamp::MIN).unwrap_err();
        assert!(changed.to_string().starts_with("a: changed since the checkpoint"), "{changed}");
        let gone = book(&[], 1).restore(&[state(vec![], vec![])], Timestamp::MIN).unwrap_err();
        assert!(gone.to_string().starts_with("a: gone since the checkpoint"), "{gone}");
        let finished = FinishedSplits { first: 0, last: 2, watermark: at(1) };
        book(&[], 1).restore(&[state(vec![finished], vec![])], Timestamp::MIN).unwrap();
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
