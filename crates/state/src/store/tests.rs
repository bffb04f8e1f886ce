#![allow(clippy::disallowed_methods, reason = "tests damage files behind the disk's back")]

use std::collections::BTreeMap;

use arrow::array::{ArrayRef, Int64Array};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::ErrorKind;
use ruslo_core::graph::OperatorId;
use ruslo_core::metrics::RowCounts;
use ruslo_core::operator::Subtask;
use ruslo_core::state::OperatorState;
use ruslo_core::time::Timestamp;

use super::*;
use crate::manifest::{OperatorEntry, SubtaskEntry};
use crate::table::RunState;

const OPERATOR: OperatorId = OperatorId(1);
const SUBTASK: Subtask = Subtask { index: 0, parallelism: 1 };

fn store(folder: &Path, attempt: &str) -> CheckpointStore {
    CheckpointStore::open(Arc::new(LocalDisk), folder, attempt).unwrap()
}

fn append(state: &mut RunState, bucket: i64, value: i64) {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![value]));
    let rows = RecordBatch::try_from_iter([("v", column)]).unwrap();
    state.buckets("t").append(bucket, &[0], &rows).unwrap();
}

fn checkpoint(store: &CheckpointStore, epoch: u64, state: &mut RunState) -> Result<Manifest> {
    let epoch = Epoch(epoch);
    let mut tables = BTreeMap::new();
    for (name, table) in state.seal().unwrap() {
        tables.insert(name, store.write_runs(epoch, OPERATOR, SUBTASK, &table, "0")?);
    }
    let subtask =
        SubtaskEntry { watermark: Timestamp(0), counts: RowCounts::default(), other_inputs: Vec::new(), tables };
    let entry = OperatorEntry { subtasks: vec![subtask], ..Default::default() };
    let manifest = Manifest {
        epoch,
        run: "r".to_owned(),
        fingerprint: "f".to_owned(),
        plan: None,
        repeats: None,
        attempt: Some(store.attempt.clone()),
        savepoint: None,
        delivery: None,
        books: None,
        finished: false,
        written_at: Timestamp(0),
        operators: [(OPERATOR, entry)].into(),
    };
    store.publish(&manifest)?;
    Ok(manifest)
}

#[test]
fn only_new_runs_are_written_and_old_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), "a");
    let mut state = RunState::new(0..128);
    append(&mut state, 1, 10);
    checkpoint(&store, 1, &mut state).unwrap();
    append(&mut state, 1, 11);
    let second = checkpoint(&store, 2, &mut state).unwrap();
    let files: Vec<_> = second.runs().map(|run| run.file.split('-').next().unwrap().to_owned()).collect();
    assert_eq!(files, ["1", "2"]);
    let restored = store.restore_newest().unwrap().unwrap();
    assert_eq!(restored.manifest, second);
    assert_eq!(restored.runs.buckets.len(), 2);
}

#[test]
fn the_second_writer_of_an_epoch_is_fenced_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (store(folder.path(), "a"), store(folder.path(), "b"));
    let mut state = RunState::new(0..128);
    append(&mut state, 1, 10);
    let manifest = checkpoint(&first, 1, &mut state).unwrap();
    let error = checkpoint(&second, 1, &mut RunState::new(0..128)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(first.load(Epoch(1)).unwrap(), manifest);
}

#[test]
fn a_number_that_was_cleared_away_still_fences() {
    let folder = tempfile::tempdir().unwrap();
    let (zombie, successor) = (store(folder.path(), "a"), store(folder.path(), "b"));
    let mut state = RunState::new(0..128);
    for epoch in 2..=6 {
        checkpoint(&successor, epoch, &mut state).unwrap();
        successor.collect_garbage(Epoch(epoch)).unwrap();
    }
    assert_eq!(checkpoint(&zombie, 2, &mut state).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(successor.epochs().unwrap(), [Epoch(4), Epoch(5), Epoch(6)]);
}

#[test]
fn two_processes_on_one_folder_are_told_apart_at_the_door() {
    let folder = tempfile::tempdir().unwrap();
    let held = store(folder.path(), "a").lock().unwrap();
    let error = store(folder.path(), "b").lock().err().unwrap();
    assert!(error.to_string().starts_with("another process is running on the checkpoints in"), "{error}");
    drop(held);
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), "a");
    let mut state = RunState::new(0..128);
    append(&mut state, 1, 10);
    checkpoint(&store, 1, &mut state).unwrap();
    append(&mut state, 2, 20);
    let second = checkpoint(&store, 2, &mut state).unwrap();
    let damaged = second.runs().find(|run| run.bucket == 2).unwrap().file.clone();
    std::fs::write(folder.path().join("runs").join(&damaged), b"torn").unwrap();
    let restored = store.restore_newest().unwrap().unwrap();
    assert_eq!(restored.manifest.epoch, Epoch(1));
    assert!(restored.skipped[0].to_string().contains(&damaged), "{:?}", restored.skipped);
    std::fs::write(folder.path().join(manifest_key(Epoch(1))), b"").unwrap();
    let error = store.restore_newest().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(store.last_epoch().unwrap(), Epoch(2));
}

#[test]
fn runs_without_manifests_are_no_fresh_start() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), "a");
    let mut state = RunState::new(0..128);
    append(&mut state, 1, 10);
    checkpoint(&store, 1, &mut state).unwrap();
    std::fs::remove_file(folder.path().join(manifest_key(Epoch(1)))).unwrap();
    let error = store.restore_newest().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("manifests: no manifest is here"), "{error}");
}

#[test]
fn a_folder_of_other_things_stays_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| CheckpointStore::at(Arc::new(LocalDisk), &folder.path().join(name), "a");
    let look = |name: &str| CheckpointStore::existing(Arc::new(LocalDisk), &folder.path().join(name));
    assert!(look("new").unwrap_err().to_string().ends_with("new: no such folder"));
    at("new").unwrap();
    at("new").unwrap();
    look("new").unwrap();
    std::fs::create_dir_all(folder.path().join("data")).unwrap();
    at("data").unwrap();
    std::fs::create_dir_all(folder.path().join("other")).unwrap();
    std::fs::write(folder.path().join("other/letters.csv"), "a").unwrap();
    let error = at("other").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("it has 'letters.csv' in it, and no checkpoints"), "{error}");
    assert!(look("other").unwrap_err().to_string().contains("it has no 'manifests' in it"));
    assert_eq!(std::fs::read_dir(folder.path().join("other")).unwrap().count(), 1);
}

#[test]
fn verifying_names_every_damaged_run_once_with_the_checkpoints_it_takes_along() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), "a");
    let mut state = RunState::new(0..128);
    for epoch in 1..=3 {
        append(&mut state, epoch as i64, 10);
        checkpoint(&store, epoch, &mut state).unwrap();
    }
    let epochs = store.epochs().unwrap();
    let verified = crate::verify::verify(&store, &epochs).unwrap();
    assert_eq!((verified.whole, verified.damages, verified.runs), (epochs.clone(), vec![], 3));
    let second = store.load(Epoch(2)).unwrap().runs().find(|run| run.bucket == 2).unwrap().clone();
    let path = folder.path().join(run_key(&second.file));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[17] ^= 4;
    std::fs::write(&path, bytes).unwrap();
    std::fs::write(folder.path().join(run_key("9-x.arrow")), "").unwrap();
    let verified = crate::verify::verify(&store, &epochs).unwrap();
    assert_eq!(verified.whole, [Epoch(1)]);
    let [damage] = verified.damages.as_slice() else { panic!("{:?}", verified.damages) };
    assert_eq!((damage.offset, damage.epochs.as_slice()), (Some(0), &[Epoch(2), Epoch(3)][..]));
    assert!(damage.what.contains(&second.file) && damage.what.contains("the checksum of bytes 0.."), "{damage:?}");
    assert_eq!(verified.unnamed.len(), 1);
}

#[test]
fn drafts_of_the_dead_go_and_foreign_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), "a");
    let names = [".2-dead.tmp", ".00000000000000000003.json-dead.tmp", ".00000000000000000009.json-b.tmp", ".hidden"];
    for name in names {
        std::fs::write(folder.path().join("manifests").join(name), "").unwrap();
    }
    std::fs::write(folder.path().join("runs/.part"), "").unwrap();
    checkpoint(&store, 3, &mut RunState::new(0..128)).unwrap();
    store.collect_garbage(Epoch(3)).unwrap();
    let left = store.storage().list("manifests").unwrap();
    assert_eq!(left, [".00000000000000000009.json-b.tmp", ".hidden", "00000000000000000003.json"]);
    assert_eq!(store.storage().list("runs").unwrap(), [".part"]);
}

#[test]
fn garbage_goes_and_what_a_kept_manifest_names_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), "a");
    let mut state = RunState::new(0..128);
    append(&mut state, 0, 0);
    for epoch in 1..=6 {
        append(&mut state, epoch as i64, 1);
        state.buckets("t").expire(epoch as i64 - 1);
        checkpoint(&store, epoch, &mut state).unwrap();
        store.collect_garbage(Epoch(epoch)).unwrap();
    }
    assert_eq!(store.epochs().unwrap(), [Epoch(4), Epoch(5), Epoch(6)]);
    assert_eq!(LocalDisk.list(&folder.path().join("runs")).unwrap().len(), 3);
    for epoch in store.epochs().unwrap() {
        store.load_runs(&store.load(epoch).unwrap()).unwrap();
    }
}
