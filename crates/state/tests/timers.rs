//! Timers through checkpoints: fired once, at their time, at whatever parallelism they are restored.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use ruslo_core::disk::LocalDisk;
use ruslo_core::error::ErrorKind;
use ruslo_core::graph::OperatorId;
use ruslo_core::key_group::key_groups;
use ruslo_core::memory::MemoryPool;
use ruslo_core::metrics::RowCounts;
use ruslo_core::operator::Subtask;
use ruslo_core::state::OperatorState;
use ruslo_core::time::Timestamp;
use ruslo_state::keyed::KeyedContext;
use ruslo_state::manifest::{Manifest, OperatorEntry, SubtaskEntry};
use ruslo_state::store::CheckpointStore;
use ruslo_state::table::RunState;
use ruslo_state::timers::TIMERS;

const OPERATOR: OperatorId = OperatorId(3);

fn key() -> Vec<FieldRef> {
    let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
    vec![field("k", DataType::Int64), field("s", DataType::Utf8)]
}

fn columns(keys: &[i64]) -> Vec<ArrayRef> {
    // A third of the keys has no text: NULL is a key, too.
    let texts = keys.iter().map(|key| (key % 3 > 0).then(|| format!("text of key {key}")));
    vec![Arc::new(Int64Array::from(keys.to_vec())), Arc::new(StringArray::from_iter(texts))]
}

/// The subtasks of an operator in one process.
struct Process {
    store: CheckpointStore,
    states: Vec<RunState>,
}

impl Process {
    fn start(folder: &Path, attempt: &str, parallelism: usize) -> Self {
        let store = CheckpointStore::open(Arc::new(LocalDisk), folder, attempt).unwrap();
        let restored = store.restore_newest().unwrap();
        let states = (0..parallelism).map(|index| {
            let subtask = Subtask { index, parallelism };
            let work = store.work_folder().clone();
            let context = KeyedContext { owner: "test".to_owned(), work, memory: MemoryPool::unbounded() };
            let mut state = RunState::new(subtask.key_groups()).with_keyed(context);
            if let Some(restored) = &restored {
                for old in &restored.manifest.operators[&OPERATOR].subtasks {
                    let runs = old.tables.get(TIMERS).into_iter().flatten();
                    runs.for_each(|run| state.add_fetched(TIMERS, restored.runs.fetched(run).unwrap()));
                }
            }
            state
        });
        let states = states.collect();
        Self { store, states }
    }

    /// Calls every subtask with its part of the timers.
    fn each(&mut self, timers: &[(i64, i64)], mut call: impl FnMut(&mut RunState, &[Timestamp], &[ArrayRef])) {
        let keys: Vec<_> = timers.iter().map(|(_, key)| *key).collect();
        let keys = columns(&keys);
        let groups = key_groups(&keys, timers.len()).unwrap();
        let parallelism = self.states.len();
        for (index, state) in self.states.iter_mut().enumerate() {
            let owned = Subtask { index, parallelism }.key_groups();
            let own = groups.iter().map(|group| Some(owned.contains(group))).collect();
            let keys: Vec<_> = keys.iter().map(|column| filter(column, &own).unwrap()).collect();
            let at: Vec<_> =
                timers.iter().zip(own.values()).filter(|(_, own)| *own).map(|(t, _)| Timestamp(t.0)).collect();
            call(state, &at, &keys);
        }
    }

    fn register(&mut self, timers: &[(i64, i64)]) {
        self.each(timers, |state, at, keys| state.timers(&key()).unwrap().register(at, keys).unwrap());
    }

    fn delete(&mut self, timers: &[(i64, i64)]) {
        self.each(timers, |state, at, keys| state.timers(&key()).unwrap().delete(at, keys).unwrap());
    }

    /// What fires at `now`, four keys a call: each timer once, those of one subtask by time.
    fn fire(&mut self, now: i64) -> BTreeSet<(i64, i64)> {
        let mut all = BTreeSet::new();
        for state in &mut self.states {
            state.timers(&key()).unwrap();
            let mut last = i64::MIN;
            while let Some(due) = state.take_due(Timestamp(now), 4).unwrap() {
                assert!(last <= due.at.millis() && due.at.millis() <= now);
                last = due.at.millis();
                let keys = due.keys[0].as_primitive::<Int64Type>().values().to_vec();
                assert!(keys.len() <= 4);
                assert_eq!(columns(&keys)[1].as_ref(), due.keys[1].as_ref());
                keys.iter().for_each(|key| assert!(all.insert((last, *key)), "{key} fires twice at {last}"));
            }
        }
        all
    }

    fn next(&self) -> Option<i64> {
        self.states.iter().filter_map(RunState::next_timer).min().map(Timestamp::millis)
    }

    fn checkpoint(&mut self) {
        let epoch = self.store.last_epoch().unwrap().next();
        let parallelism = self.states.len();
        let subtasks = self.states.iter_mut().enumerate().map(|(index, state)| {
            let subtask = Subtask { index, parallelism };
            let write = |(name, table): (String, _)| {
                let runs = self.store.write_runs(epoch, OPERATOR, subtask, &table, &name).unwrap();
                (name, runs)
            };
            let tables = state.seal().unwrap().into_iter().map(write).collect();
            let counts = RowCounts::default();
            SubtaskEntry { watermark: Timestamp(0), counts, tables, other_inputs: Vec::new() }
        });
        let entry = OperatorEntry { subtasks: subtasks.collect(), ..Default::default() };
        let manifest = Manifest {
            epoch,
            run: "r".to_owned(),
            fingerprint: "f".to_owned(),
            plan: None,
            repeats: None,
            attempt: None,
            savepoint: None,
            delivery: None,
            books: None,
            finished: false,
            written_at: Timestamp(0),
            operators: [(OPERATOR, entry)].into(),
        };
        self.store.publish(&manifest).unwrap();
        self.store.collect_garbage(epoch).unwrap();
    }
}

fn set(timers: &[(i64, i64)]) -> BTreeSet<(i64, i64)> {
    timers.iter().copied().collect()
}

#[test]
fn each_fires_once_at_its_time_unless_it_was_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), "a", 1);
    assert_eq!(process.next(), None);
    process.register(&[(30, 1), (10, 1), (10, 2), (10, 1)]);
    process.register(&[(10, 2), (20, 3), (-5, 4)]);
    process.delete(&[(10, 2), (99, 1), (20, 9)]);
    assert_eq!(process.next(), Some(-5));
    assert_eq!(process.fire(9), set(&[(-5, 4)]));
    assert_eq!(process.fire(9), set(&[]));
    process.register(&[(10, 2)]);
    process.delete(&[(20, 3)]);
    process.register(&[(20, 3)]);
    assert_eq!(process.fire(20), set(&[(10, 1), (10, 2), (20, 3)]), "once, though taken back and registered again");
    process.register(&[(5, 7)]);
    assert_eq!((process.next(), process.fire(20)), (Some(5), set(&[(5, 7)])), "the past is due at once");
    process.delete(&[(30, 1)]);
    assert_eq!((process.fire(100), process.next()), (set(&[]), None));
}

#[test]
fn they_are_restored_at_every_parallelism_without_loss_or_repetition() {
    let folder = tempfile::tempdir().unwrap();
    let at = |key: i64| 100 + key * 7 % 50;
    let all: Vec<_> = (0..500).map(|key| (at(key), key)).collect();
    let mut left = set(&all);
    let mut one = Process::start(folder.path(), "a", 1);
    one.register(&all);
    one.checkpoint();
    drop(one);
    for (attempt, parallelism, now) in [("b", 3, 110), ("c", 2, 125), ("d", 1, 130)] {
        let mut process = Process::start(folder.path(), attempt, parallelism);
        let taken_back: Vec<_> = left.iter().copied().filter(|(_, key)| key % 10 == parallelism as i64).collect();
        process.delete(&taken_back);
        left.retain(|timer| !taken_back.contains(timer));
        process.checkpoint();
        let due: BTreeSet<_> = left.iter().copied().filter(|(at, _)| *at <= now).collect();
        assert_eq!(process.fire(now), due);
        left.retain(|timer| !due.contains(timer));
        process.register(&[(140, 1_000 + now)]);
        left.insert((140, 1_000 + now));
        process.checkpoint();
        process.checkpoint();
    }
    // What fires after the last checkpoint fires again after a crash: it is part of no checkpoint.
    for attempt in ["e", "f"] {
        assert_eq!(Process::start(folder.path(), attempt, 5).fire(1_000), left);
    }
}

#[test]
fn timers_that_nobody_asked_for_again_stay_and_dropped_ones_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), "a", 1);
    process.register(&[(10, 1)]);
    process.checkpoint();
    drop(process);
    let mut silent = Process::start(folder.path(), "b", 2);
    assert_eq!(silent.next(), None);
    silent.checkpoint();
    drop(silent);
    let mut process = Process::start(folder.path(), "c", 1);
    process.states[0].timers(&key()).unwrap();
    assert_eq!(process.next(), Some(10));
    process.states[0].drop_timers();
    assert_eq!(process.next(), None);
    process.checkpoint();
    drop(process);
    assert_eq!(Process::start(folder.path(), "d", 1).fire(100), set(&[]));
}

#[test]
fn other_keys_than_before_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), "a", 1);
    process.register(&[(10, 1)]);
    let error = process.states[0].timers(&key()[..1]).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("not by [Int64]"), "{error}");
}
