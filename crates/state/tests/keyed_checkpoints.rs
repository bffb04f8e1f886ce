//! Keyed tables through checkpoints: uploaded once a run, restored at other parallelisms, collected when nobody names
//! them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type};
use arrow::record_batch::RecordBatch;
use object_store::memory::InMemory;
use ruslo_core::disk::LocalDisk;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::ErrorKind;
use ruslo_core::graph::OperatorId;
use ruslo_core::key_group::{KEY_GROUPS, hash_rows, range_of};
use ruslo_core::memory::MemoryPool;
use ruslo_core::metrics::RowCounts;
use ruslo_core::operator::Subtask;
use ruslo_core::state::OperatorState;
use ruslo_core::time::Timestamp;
use ruslo_state::keyed::{KeyedContext, KeyedSnapshot, Settled, StoredTable};
use ruslo_state::manifest::{Manifest, OperatorEntry, SubtaskEntry};
use ruslo_state::runs::{DirtyRows, Kind, Op, RunSet, TableSchema};
use ruslo_state::storage::ObjectStorage;
use ruslo_state::store::{CheckpointStore, Restored};
use ruslo_state::table::{RunState, TableSnapshot};

const OPERATOR: OperatorId = OperatorId(7);
const TABLE: &str = "counts";

fn schema() -> TableSchema {
    let field = |name: &str| Arc::new(Field::new(name, DataType::Int64, true));
    TableSchema::value(vec![field("k")], vec![field("v")])
}

/// Rows whose key is in the key groups of `subtask`.
fn rows(changes: &BTreeMap<i64, Option<i64>>, subtask: Subtask) -> DirtyRows {
    let all: ArrayRef = Arc::new(Int64Array::from_iter_values(changes.keys().copied()));
    let hashes = hash_rows(&[all], changes.len()).unwrap();
    let own = hashes.into_iter().zip(changes).filter(|(hash, _)| subtask.key_groups().contains(&((hash % 128) as u16)));
    let own: Vec<_> = own.map(|(hash, (key, value))| (hash, *key, *value)).collect();
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(own.iter().map(|(_, key, _)| *key)));
    let values: ArrayRef = Arc::new(Int64Array::from_iter(own.iter().map(|(.., value)| *value)));
    DirtyRows {
        hashes: own.iter().map(|(hash, ..)| *hash).collect(),
        ops: own.iter().map(|(.., value)| if value.is_some() { Op::Put } else { Op::Delete }).collect(),
        buckets: vec![0; own.len()],
        rows: vec![RecordBatch::try_new(schema().rows(), vec![keys, values]).unwrap()],
    }
}

/// The subtasks of one process.
struct Process {
    store: CheckpointStore,
    sets: Vec<RunSet>,
    epoch: Epoch,
}

impl Process {
    fn start(store: CheckpointStore, parallelism: usize) -> Self {
        let pool = MemoryPool::unbounded();
        let restored = store.restore_newest().unwrap();
        let sets = (0..parallelism).map(|index| {
            let subtask = Subtask { index, parallelism };
            let set =
                RunSet::new(TABLE, schema(), subtask.key_groups(), store.work_folder().clone(), pool.reserve("t"));
            let set = set.unwrap();
            set.restore(restore(&restored, subtask).restored_runs(TABLE, &schema()).unwrap());
            set
        });
        let sets = sets.collect();
        let epoch = store.last_epoch().unwrap();
        Self { store, sets, epoch }
    }

    fn subtask(&self, index: usize) -> Subtask {
        Subtask { index, parallelism: self.sets.len() }
    }

    /// A checkpoint with these changes; the bytes that were uploaded.
    fn checkpoint(&mut self, changes: &BTreeMap<i64, Option<i64>>) -> u64 {
        self.epoch = self.epoch.next();
        let before: Vec<_> = self.store.storage().list("runs").unwrap();
        let mut subtasks = Vec::new();
        for (index, set) in self.sets.iter().enumerate() {
            let before = set.snapshot().len();
            let fresh = set.add(rows(changes, self.subtask(index)).sorted(&schema()).unwrap()).unwrap();
            let snapshot = KeyedSnapshot::new(set.clone(), Some(Arc::new(Settled(None))), 0);
            assert_eq!(snapshot.settled().unwrap().len(), before + usize::from(fresh.is_some()));
            let table = TableSnapshot::Keyed(snapshot.clone());
            let runs = self.store.write_runs(self.epoch, OPERATOR, self.subtask(index), &table, TABLE).unwrap();
            let tables = [(TABLE.to_owned(), runs)].into();
            subtasks.push(SubtaskEntry {
                watermark: Timestamp(0),
                counts: RowCounts::default(),
                other_inputs: Vec::new(),
                tables,
            });
            snapshot.compact(&|| true).unwrap();
        }
        let entry = OperatorEntry { subtasks, ..Default::default() };
        publish(&self.store, self.epoch, entry);
        let new = self.store.storage().list("runs").unwrap().into_iter().filter(|name| !before.contains(name));
        let bytes = new.map(|name| self.store.storage().size(&format!("runs/{name}")).unwrap().unwrap()).sum();
        self.store.collect_garbage(self.epoch).unwrap();
        bytes
    }

    fn rows(&self) -> BTreeMap<i64, i64> {
        let mut all = BTreeMap::new();
        for set in &self.sets {
            for piece in set.scan(&(0..KEY_GROUPS), 0).unwrap() {
                let piece = piece.unwrap();
                let column = |column: usize| piece.rows.column(column).as_primitive::<Int64Type>().values().to_vec();
                for (key, value) in column(0).into_iter().zip(column(1)) {
                    assert_eq!(all.insert(key, value), None, "key {key} is in two subtasks");
                }
            }
        }
        all
    }
}

fn publish(store: &CheckpointStore, epoch: Epoch, entry: OperatorEntry) {
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
    store.publish(&manifest).unwrap();
}

fn restore(restored: &Option<Restored>, subtask: Subtask) -> RunState {
    let mut state = RunState::new(subtask.key_groups());
    let Some(Restored { manifest, runs, .. }) = restored else { return state };
    for old in &manifest.operators[&OPERATOR].subtasks {
        for (name, reference) in old.tables.iter().flat_map(|(name, runs)| runs.iter().map(move |run| (name, run))) {
            state.add_fetched(name, runs.fetched(reference).unwrap());
        }
    }
    state
}

fn local(folder: &Path, attempt: &str) -> CheckpointStore {
    CheckpointStore::open(Arc::new(LocalDisk), folder, attempt).unwrap()
}

fn changes(epoch: i64) -> BTreeMap<i64, Option<i64>> {
    let key = |row: i64| (row * 7_919 + epoch * 31) % 2_000;
    (0..300).map(|row| (key(row), (row % 10 > 0).then_some(epoch * 1_000 + row))).collect()
}

fn apply(model: &mut BTreeMap<i64, i64>, changes: &BTreeMap<i64, Option<i64>>) {
    for (key, value) in changes {
        match value {
            Some(value) => model.insert(*key, *value),
            None => model.remove(key),
        };
    }
}

/// 1, 3, 2 and again 1 subtask, each going on where the one before stopped.
fn rescale(open: impl Fn(&str) -> CheckpointStore) {
    let mut model = BTreeMap::new();
    let mut epoch = 0;
    for (attempt, parallelism) in [1, 3, 2, 1].into_iter().enumerate() {
        let mut process = Process::start(open(&format!("a{attempt}")), parallelism);
        assert_eq!(process.rows(), model);
        for _ in 0..13 {
            epoch += 1;
            let changes = changes(epoch);
            apply(&mut model, &changes);
            process.checkpoint(&changes);
            assert_eq!(process.rows(), model);
        }
        assert!(process.sets.iter().all(|set| set.len() <= 20));
    }
    assert_eq!(Process::start(open("last"), 5).rows(), model);
}

#[test]
fn keys_survive_every_parallelism_on_a_disk() {
    let folder = tempfile::tempdir().unwrap();
    rescale(|attempt| local(folder.path(), attempt));
    // Nothing is left but what three checkpoints name.
    let store = local(folder.path(), "look");
    let mut named: Vec<String> = Vec::new();
    for epoch in store.epochs().unwrap() {
        named.extend(store.load(epoch).unwrap().runs().map(|run| run.file.clone()));
    }
    named.sort();
    named.dedup();
    assert_eq!(store.storage().list("runs").unwrap(), named);
    assert!(!folder.path().join("work").exists(), "working folders stay");
}

#[test]
fn keys_survive_every_parallelism_in_an_object_store() {
    let bucket = Arc::new(InMemory::new());
    rescale(|attempt| {
        let storage = ObjectStorage::new(bucket.clone(), "memory://b", "p").unwrap();
        CheckpointStore::over(Arc::new(storage), format!("{attempt}-{}", std::process::id()))
    });
}

#[test]
fn a_file_on_a_disk_is_written_once_and_named_twice() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(local(folder.path(), "a"), 1);
    process.checkpoint(&changes(1));
    let run = process.sets[0].snapshot().remove(0);
    let file = &run.stored().unwrap().file;
    use std::os::unix::fs::MetadataExt;
    let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
    assert_eq!(inode(run.path()), inode(&folder.path().join("runs").join(file)));
}

#[test]
fn a_checkpoint_with_a_damaged_run_is_skipped_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = BTreeMap::new();
    let mut process = Process::start(local(folder.path(), "a"), 2);
    process.checkpoint(&changes(1));
    apply(&mut model, &changes(1));
    process.checkpoint(&changes(2));
    let damaged = process.sets[1].snapshot().pop().unwrap().stored().unwrap().file.clone();
    drop(process);
    let path = folder.path().join("runs").join(&damaged);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    let store = local(folder.path(), "b");
    let restored = store.restore_newest().unwrap().unwrap();
    assert_eq!(restored.manifest.epoch, Epoch(1));
    assert_eq!(restored.skipped[0].kind(), ErrorKind::Corrupt);
    assert!(restored.skipped[0].to_string().contains(&damaged), "{}", restored.skipped[0]);
    drop(restored);
    assert_eq!(Process::start(store, 3).rows(), model);
}

/// A barrier may come before an operator has touched its table.
#[test]
fn a_table_that_nobody_has_opened_stays_in_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    Process::start(local(folder.path(), "a"), 1).checkpoint(&changes(1));
    let store = local(folder.path(), "b");
    let restored = store.restore_newest().unwrap();
    let mut subtasks = Vec::new();
    for index in 0..3 {
        let subtask = Subtask { index, parallelism: 3 };
        let mut tables = BTreeMap::new();
        for (name, table) in restore(&restored, subtask).seal().unwrap() {
            tables.insert(name.clone(), store.write_runs(Epoch(2), OPERATOR, subtask, &table, &name).unwrap());
        }
        assert_eq!(tables[TABLE][0].groups, range_of(index, 3));
        subtasks.push(SubtaskEntry {
            watermark: Timestamp(0),
            counts: RowCounts::default(),
            other_inputs: Vec::new(),
            tables,
        });
    }
    publish(&store, Epoch(2), OperatorEntry { subtasks, ..Default::default() });
    let mut model = BTreeMap::new();
    apply(&mut model, &changes(1));
    assert_eq!(Process::start(local(folder.path(), "c"), 2).rows(), model);
}

#[test]
fn a_table_can_be_looked_at_and_another_one_is_not_read_as_this() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(local(folder.path(), "a"), 2);
    let mut model = BTreeMap::new();
    for epoch in 1..5 {
        process.checkpoint(&changes(epoch));
        apply(&mut model, &changes(epoch));
    }
    let store = CheckpointStore::existing(Arc::new(LocalDisk), folder.path()).unwrap();
    let restored = store.restore_newest().unwrap();
    let runs: Vec<_> = restored.as_ref().unwrap().manifest.runs().cloned().collect();
    let table = StoredTable::open(&store, &runs).unwrap();
    assert_eq!(table.schema.kind, Kind::Value);
    let rows: usize = table.rows().unwrap().map(|piece| piece.unwrap().len()).sum();
    assert_eq!(rows, model.len());
    let subtask = Subtask { index: 0, parallelism: 1 };
    let other = TableSchema::list(schema().key, schema().value);
    let error = restore(&restored, subtask).restored_runs(TABLE, &other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("this is of a value table"), "{error}");
}

/// Counts by key in memory and below it, with a limit and without: through checkpoints, at other parallelisms.
#[test]
fn tables_with_a_layer_in_memory_go_on_where_they_were() {
    const LIMIT: u64 = 3 << 20;
    for limit in [u64::MAX, LIMIT] {
        let folder = tempfile::tempdir().unwrap();
        let mut model: BTreeMap<i64, i64> = BTreeMap::new();
        let mut rng = ruslo_core::rng::Rng::seeded(3);
        let mut epoch = Epoch(0);
        for (attempt, parallelism) in [2, 3, 1].into_iter().enumerate() {
            let store = local(folder.path(), &format!("a{attempt}"));
            let restored = store.restore_newest().unwrap();
            let memory = MemoryPool::new(limit);
            let mut states: Vec<_> = (0..parallelism)
                .map(|index| {
                    let context = KeyedContext {
                        owner: format!("#{index}"),
                        work: store.work_folder().clone(),
                        memory: Arc::clone(&memory),
                    };
                    restore(&restored, Subtask { index, parallelism }).with_keyed(context)
                })
                .collect();
            for _ in 0..4 {
                for _ in 0..20 {
                    let keys: Vec<_> = (0..2_000).map(|_| rng.below(60_000) as i64).collect();
                    keys.iter().for_each(|key| *model.entry(*key).or_default() += 1);
                    count(&mut states, &keys);
                }
                epoch = epoch.next();
                let subtasks = states.iter_mut().enumerate().map(|(index, state)| {
                    let subtask = Subtask { index, parallelism };
                    let table = state.seal().unwrap().remove(TABLE).unwrap();
                    let runs = store.write_runs(epoch, OPERATOR, subtask, &table, TABLE).unwrap();
                    table.keyed().unwrap().compact(&|| true).unwrap();
                    let tables = [(TABLE.to_owned(), runs)].into();
                    SubtaskEntry {
                        watermark: Timestamp(0),
                        counts: RowCounts::default(),
                        other_inputs: Vec::new(),
                        tables,
                    }
                });
                publish(&store, epoch, OperatorEntry { subtasks: subtasks.collect(), ..Default::default() });
                store.collect_garbage(epoch).unwrap();
            }
            // Rows of after the last barrier are nobody's.
            count(&mut states, &[1, 2, 3]);
            assert!(memory.peak_bytes() <= limit.saturating_add(limit / 8), "{}", memory.peak_bytes());
        }
        assert_eq!(Process::start(local(folder.path(), "look"), 2).rows(), model);
    }
}

fn count(states: &mut [RunState], keys: &[i64]) {
    let parallelism = states.len();
    for (index, state) in states.iter_mut().enumerate() {
        let groups = Subtask { index, parallelism }.key_groups();
        let all: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
        let hashes = hash_rows(&[all], keys.len()).unwrap();
        let own = hashes.iter().zip(keys).filter(|(hash, _)| groups.contains(&((**hash % 128) as u16)));
        let own: ArrayRef = Arc::new(Int64Array::from_iter_values(own.map(|(_, key)| *key)));
        let ones = Int64Array::from(vec![1; own.len()]);
        state.keyed(TABLE, &schema()).unwrap().add(&[own], 0, &ones).unwrap();
    }
}

/// 1 % of the rows changed per epoch: what is uploaded, on average over 50 epochs, with what compaction makes.
#[test]
fn a_percent_changed_uploads_less_than_three() {
    const ROWS: i64 = 100_000;
    let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
    let value = DataType::FixedSizeBinary(92);
    let schema = TableSchema::value(vec![field("k", DataType::Int64)], vec![field("v", value)]);
    let dirty = |keys: Vec<i64>, epoch: i64| {
        let keys: ArrayRef = Arc::new(Int64Array::from(keys));
        let value = vec![epoch as u8; 92];
        let values = arrow::array::FixedSizeBinaryArray::try_from_iter((0..keys.len()).map(|_| &value)).unwrap();
        let hashes = hash_rows(&[Arc::clone(&keys)], keys.len()).unwrap();
        let (ops, buckets) = (vec![Op::Put; keys.len()], vec![0; keys.len()]);
        let rows = vec![RecordBatch::try_new(schema.rows(), vec![keys, Arc::new(values)]).unwrap()];
        DirtyRows { hashes, ops, buckets, rows }.sorted(&schema).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let store = local(folder.path(), "a");
    let (work, memory) = (store.work_folder().clone(), MemoryPool::unbounded().reserve("t"));
    let set = RunSet::new(TABLE, schema.clone(), 0..KEY_GROUPS, work, memory).unwrap();
    set.add(dirty((0..ROWS).collect(), 0)).unwrap();
    let upload = |epoch: u64| {
        let table = TableSnapshot::Keyed(KeyedSnapshot::new(set.clone(), None, 0));
        let runs = store.write_runs(Epoch(epoch), OPERATOR, Subtask { index: 0, parallelism: 1 }, &table, TABLE);
        runs.unwrap().iter().filter(|run| run.is_of(Epoch(epoch))).map(|run| run.length).sum::<u64>()
    };
    upload(1);
    let mut rng = ruslo_core::rng::Rng::seeded(1);
    let mut uploaded = 0;
    for epoch in 2..=51 {
        let mut keys: Vec<_> = (0..ROWS / 100).map(|_| rng.below(ROWS as usize) as i64).collect();
        keys.sort();
        keys.dedup();
        set.add(dirty(keys, epoch)).unwrap();
        uploaded += upload(epoch as u64);
        while set.compact(0).unwrap() {}
    }
    uploaded += upload(52);
    let percent = 100.0 * uploaded as f64 / 50.0 / (ROWS * 100) as f64;
    assert!((1.0..=3.0).contains(&percent), "{percent} %");
    assert!(set.len() <= 20);
}
