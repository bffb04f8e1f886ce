//! How far each source is read, as checkpoints tell it: the coordinator's own books, made from what source tasks
//! acknowledge, so that they are exactly as old as the barrier.

use std::collections::{BTreeMap, BTreeSet};

use ruslo_core::error::{Error, Result};
use ruslo_core::source::{SplitId, SplitWatermark};
use ruslo_state::manifest::{FinishedSplits, LineageState};

use crate::source::SourceSnapshot;

/// How far one source is read.
#[derive(Debug, Clone, Default)]
pub struct SourceLedger {
    lineages: BTreeMap<String, LineageState>,
}

impl SourceLedger {
    /// The books as a checkpoint had them, or with everything unread.
    pub fn new(lineages: Vec<LineageState>) -> Self {
        Self { lineages: lineages.into_iter().map(|state| (state.lineage.clone(), state)).collect() }
    }

    /// Takes over what one source task acknowledged.
    pub fn apply(&mut self, snapshot: SourceSnapshot) -> Result<()> {
        for (split, watermark) in snapshot.finished {
            self.finish(&split, watermark)?;
        }
        for (lineage, reading) in snapshot.reading {
            let state = self.lineage(&lineage)?;
            state.reading.retain(|other| other.sequence != reading.sequence);
            state.reading.push(reading);
            state.reading.sort_by_key(|reading| reading.sequence);
        }
        Ok(())
    }

    /// The names of all lineages.
    pub fn names(&self) -> BTreeSet<String> {
        self.lineages.keys().cloned().collect()
    }

    /// Adds lineages of which nothing is read.
    pub fn add(&mut self, states: Vec<LineageState>) {
        self.lineages.extend(states.into_iter().map(|state| (state.lineage.clone(), state)));
    }

    /// Forgets those of `names` that are read to their end; which these are.
    pub fn forget(&mut self, names: Vec<String>) -> Vec<String> {
        let is_read = |name: &String| self.lineages.get(name).is_some_and(LineageState::is_read);
        let read: Vec<_> = names.into_iter().filter(is_read).collect();
        self.lineages.retain(|name, _| read.binary_search(name).is_err());
        read
    }

    /// The books, for a manifest.
    pub fn lineages(&self) -> Vec<LineageState> {
        self.lineages.values().cloned().collect()
    }

    fn lineage(&mut self, name: &str) -> Result<&mut LineageState> {
        self.lineages.get_mut(name).ok_or_else(|| Error::internal(format!("'{name}' is not in the source's books")))
    }

    fn finish(&mut self, split: &SplitId, watermark: SplitWatermark) -> Result<()> {
        let state = self.lineage(&split.lineage)?;
        state.reading.retain(|reading| reading.sequence != split.sequence);
        state.finished.push(FinishedSplits { first: split.sequence, last: split.sequence, watermark });
        state.finished.sort_by_key(|range| range.first);
        state.finished = state.finished.drain(..).fold(Vec::new(), join);
        Ok(())
    }
}

/// Joins a range to the one before if it goes on from there.
fn join(mut ranges: Vec<FinishedSplits>, next: FinishedSplits) -> Vec<FinishedSplits> {
    match ranges.last_mut() {
        Some(last) if last.last + 1 == next.first => {
            last.last = next.last;
            last.watermark = next.watermark;
        }
        _ => ranges.push(next),
    }
    ranges
}

#[cfg(test)]
mod tests {
    use ruslo_core::time::Timestamp;
    use ruslo_state::manifest::SplitReading;
    use serde_json::json;

    use super::*;

    fn ledger() -> SourceLedger {
        SourceLedger::new(vec![LineageState {
            lineage: "a".to_owned(),
            identity: json!(null),
            splits: 9,
            finished: Vec::new(),
            reading: Vec::new(),
            base: SplitWatermark::START,
        }])
    }

    fn finished(sequences: &[u64]) -> SourceSnapshot {
        let split = |sequence: &u64| {
            (SplitId { lineage: "a".to_owned(), sequence: *sequence }, SplitWatermark(Timestamp(*sequence as i64)))
        };
        SourceSnapshot { finished: sequences.iter().map(split).collect(), reading: Vec::new() }
    }

    fn reading(sequence: u64, position: i64) -> SourceSnapshot {
        let reading =
            SplitReading { sequence, position: json!(position), watermark: SplitWatermark::START, is_idle: false };
        SourceSnapshot { finished: Vec::new(), reading: vec![("a".to_owned(), reading)] }
    }

    #[test]
    fn finished_splits_become_intervals_with_the_last_watermark() {
        let mut ledger = ledger();
        for sequences in [[0, 3].as_slice(), &[4], &[1], &[7, 2]] {
            ledger.apply(finished(sequences)).unwrap();
        }
        let ranges: Vec<_> =
            ledger.lineages()[0].finished.iter().map(|range| (range.first, range.last, range.watermark.0.0)).collect();
        assert_eq!(ranges, [(0, 4, 4), (7, 7, 7)]);
    }

    #[test]
    fn only_what_is_read_to_its_end_is_forgotten() {
        let mut ledger = ledger();
        let gone = || vec!["a".to_owned(), "b".to_owned()];
        ledger.apply(finished(&[0, 1, 2, 3, 4, 5, 6, 7])).unwrap();
        assert_eq!((ledger.forget(gone()), ledger.names().len()), (vec![], 1));
        ledger.apply(finished(&[8])).unwrap();
        assert_eq!((ledger.forget(gone()), ledger.names().len()), (vec!["a".to_owned()], 0));
    }

    #[test]
    fn a_split_is_read_until_it_is_finished() {
        let mut ledger = ledger();
        ledger.apply(reading(1, 10)).unwrap();
        ledger.apply(reading(1, 20)).unwrap();
        ledger.apply(reading(0, 5)).unwrap();
        let sequences = |ledger: &SourceLedger| -> Vec<_> {
            ledger.lineages()[0].reading.iter().map(|reading| (reading.sequence, reading.position.clone())).collect()
        };
        assert_eq!(sequences(&ledger), [(0, json!(5)), (1, json!(20))]);
        ledger.apply(finished(&[1])).unwrap();
        assert_eq!(sequences(&ledger), [(0, json!(5))]);
    }

    #[test]
    fn rows_of_an_unknown_lineage_are_an_internal_error() {
        let mut snapshot = reading(0, 1);
        snapshot.reading[0].0 = "b".to_owned();
        assert!(ledger().apply(snapshot).is_err());
    }
}
