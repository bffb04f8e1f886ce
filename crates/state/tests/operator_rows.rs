//! Rows that belong to no key through checkpoints: restored at other parallelisms, each row where it should be.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use ruslo_core::disk::LocalDisk;
use ruslo_core::error::ErrorKind;
use ruslo_core::graph::OperatorId;
use ruslo_core::metrics::RowCounts;
use ruslo_core::operator::Subtask;
use ruslo_core::operator_rows::Redistribution;
use ruslo_core::state::OperatorState;
use ruslo_core::time::Timestamp;
use ruslo_state::manifest::{Manifest, OperatorEntry, SubtaskEntry};
use ruslo_state::operator_rows::{OldRows, RowsTable};
use ruslo_state::store::CheckpointStore;
use ruslo_state::table::RunState;

const OPERATOR: OperatorId = OperatorId(3);
const TABLE: &str = "positions";

fn batch(values: &[i64]) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    RecordBatch::try_from_iter([("v", column)]).unwrap()
}

fn values(batches: &[RecordBatch]) -> Vec<i64> {
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

/// The subtasks of an operator in one process.
struct Process {
    store: CheckpointStore,
    states: Vec<RunState>,
    redistribution: Redistribution,
}

impl Process {
    fn start(folder: &Path, attempt: &str, parallelism: usize, redistribution: Redistribution) -> Self {
        let store = CheckpointStore::open(Arc::new(LocalDisk), folder, attempt).unwrap();
        let restored = store.restore_newest().unwrap();
        let states = (0..parallelism).map(|index| {
            let subtask = Subtask { index, parallelism };
            let mut state = RunState::new(subtask.key_groups());
            if let Some(restored) = &restored {
                let old = restored.manifest.operators[&OPERATOR].subtasks.iter().map(|old| {
                    let runs = old.tables.get(TABLE).into_iter().flatten();
                    runs.map(|run| (run.clone(), restored.runs.get(run).unwrap().clone())).collect()
                });
                let old: Vec<OldRows> = old.collect();
                state.add_rows(TABLE, RowsTable::restored(redistribution, &old, subtask));
            }
            state
        });
        let states = states.collect();
        Self { store, states, redistribution }
    }

    fn own(&mut self) -> Vec<Vec<i64>> {
        let of = |state: &mut RunState| values(state.operator_rows(TABLE, self.redistribution).unwrap().batches());
        self.states.iter_mut().map(of).collect()
    }

    fn everyones(&mut self) -> Vec<Vec<i64>> {
        let of = |state: &mut RunState| values(state.operator_rows(TABLE, self.redistribution).unwrap().everyones());
        self.states.iter_mut().map(of).collect()
    }

    fn append(&mut self, index: usize, rows: &[i64]) {
        self.states[index].operator_rows(TABLE, self.redistribution).unwrap().append(batch(rows));
    }

    /// A checkpoint; the files that it names.
    fn checkpoint(&mut self) -> Vec<String> {
        let epoch = self.store.last_epoch().unwrap().next();
        let parallelism = self.states.len();
        let subtasks = self.states.iter_mut().enumerate().map(|(index, state)| {
            let subtask = Subtask { index, parallelism };
            let write = |(name, table): (String, _)| {
                let runs = self.store.write_runs(epoch, OPERATOR, subtask, &table, &name).unwrap();
                (name, runs)
            };
            let tables = state.seal().unwrap().into_iter().map(write).collect();
            SubtaskEntry {
                watermark: Timestamp(0),
                counts: RowCounts::default(),
                tables,
                other_inputs: Default::default(),
            }
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
            books: Default::default(),
            finished: false,
            written_at: Timestamp(0),
            operators: [(OPERATOR, entry)].into(),
        };
        self.store.publish(&manifest).unwrap();
        self.store.collect_garbage(epoch).unwrap();
        manifest.runs().map(|run| run.file.clone()).collect()
    }
}

#[test]
fn split_rows_go_to_one_subtask_each() {
    let folder = tempfile::tempdir().unwrap();
    let start = |attempt, parallelism| Process::start(folder.path(), attempt, parallelism, Redistribution::Split);
    let mut one = start("a", 1);
    one.append(0, &[1, 2, 3, 4]);
    one.append(0, &[5, 6, 7]);
    one.checkpoint();
    drop(one);
    let mut three = start("b", 3);
    assert_eq!(three.own(), [vec![1, 2], vec![3, 4], vec![5, 6, 7]]);
    three.append(0, &[8]);
    three.checkpoint();
    drop(three);
    let mut again = start("c", 3);
    assert_eq!(again.own(), [vec![1, 2, 8], vec![3, 4], vec![5, 6, 7]], "at the same parallelism each has its own");
    again.checkpoint();
    drop(again);
    let mut two = start("d", 2);
    assert_eq!(two.own(), [vec![1, 2, 8, 3], vec![4, 5, 6, 7]]);
    assert_eq!(two.everyones(), vec![Vec::<i64>::new(); 2]);
}

#[test]
fn union_rows_are_seen_by_all_and_not_multiplied() {
    let folder = tempfile::tempdir().unwrap();
    let start = |attempt, parallelism| Process::start(folder.path(), attempt, parallelism, Redistribution::Union);
    let mut one = start("a", 1);
    one.append(0, &[1, 2, 3]);
    one.checkpoint();
    drop(one);
    let mut three = start("b", 3);
    assert_eq!(three.everyones(), vec![vec![1, 2, 3]; 3]);
    assert_eq!(three.own(), [[1], [2], [3]]);
    let odd = vec![batch(&[1, 3])];
    three.states[2].operator_rows(TABLE, Redistribution::Union).unwrap().replace(odd);
    three.states[0].operator_rows(TABLE, Redistribution::Union).unwrap().replace(vec![]);
    three.checkpoint();
    drop(three);
    let mut two = start("c", 2);
    assert_eq!(two.everyones(), vec![vec![2, 1, 3]; 2]);
    assert_eq!(two.own(), [vec![2], vec![1, 3]]);
}

#[test]
fn broadcast_rows_are_stored_once_and_had_by_all() {
    let folder = tempfile::tempdir().unwrap();
    let start = |attempt, parallelism| Process::start(folder.path(), attempt, parallelism, Redistribution::Broadcast);
    let mut one = start("a", 1);
    one.append(0, &[1, 2]);
    one.checkpoint();
    drop(one);
    let mut three = start("b", 3);
    assert_eq!(three.own(), vec![vec![1, 2]; 3]);
    (0..3).for_each(|index| three.append(index, &[3]));
    assert_eq!(three.checkpoint().len(), 2, "two batches, of the first subtask");
    drop(three);
    let mut two = start("c", 2);
    assert_eq!(two.own(), vec![vec![1, 2, 3]; 2]);
}

#[test]
fn rows_that_do_not_change_are_named_again_and_outlive_the_collection_of_garbage() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), "a", 1, Redistribution::Split);
    process.append(0, &[1, 2]);
    let files = process.checkpoint();
    (0..5).for_each(|_| assert_eq!(process.checkpoint(), files));
    drop(process);
    let mut restored = Process::start(folder.path(), "b", 1, Redistribution::Split);
    assert_eq!(restored.checkpoint(), files, "after a restore, too");
    restored.append(0, &[3]);
    assert!(!restored.checkpoint().contains(&files[0]));
    (0..3).for_each(|_| drop(restored.checkpoint()));
    assert!(!restored.store.run_files().unwrap().contains(&files[0]));
}

#[test]
fn another_redistribution_than_the_stored_one_is_an_internal_error() {
    let mut state = RunState::new(0..128);
    state.operator_rows(TABLE, Redistribution::Split).unwrap();
    let error = state.operator_rows(TABLE, Redistribution::Union).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("the rows 'positions' are split rows, not union rows"), "{error}");
}
