//! Runs against a model: a map in memory that does the same.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;
use ruslo_core::disk::LocalDisk;
use ruslo_core::error::Result;
use ruslo_core::key_group::{KeyGroupRange, hash_rows};
use ruslo_core::memory::MemoryPool;
use ruslo_core::rng::Rng;

use crate::runs::rows::batch_of;
use crate::runs::{DirtyRows, Fetched, Kind, Op, Run, RunSet, TableSchema, Ttl, WorkFolder, place_of};

/// A key as the model has it: a number that the columns are made of.
type Key = u64;
/// Sub-key and value.
type Rows = BTreeMap<(i64, u64), (i64, u32)>;

/// (key, clears first, sub-key) → what.
type Dirty = BTreeMap<(Key, bool, (i64, u64)), (Op, i64)>;

fn field(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, true))
}

/// Keys of three columns, with NULLs, NaN, −0 and strings of all lengths.
fn keys(numbers: &[Key]) -> Vec<ArrayRef> {
    let float = |n: &Key| match n % 7 {
        0 => None,
        1 => Some(f64::NAN),
        2 => Some(-0.0),
        _ => Some(*n as f64),
    };
    let text = |n: &Key| (!n.is_multiple_of(5)).then(|| "x".repeat((n % 23) as usize));
    vec![
        Arc::new(Int64Array::from_iter_values(numbers.iter().map(|n| *n as i64))),
        Arc::new(Float64Array::from_iter(numbers.iter().map(float))),
        Arc::new(StringArray::from_iter(numbers.iter().map(text))),
    ]
}

/// The same keys written another way: NaN with another sign, 0 instead of −0.
fn asked(numbers: &[Key]) -> Vec<ArrayRef> {
    let mut columns = keys(numbers);
    let turned = columns[1]
        .as_primitive::<Float64Type>()
        .iter()
        .map(|value| value.map(|v| if v.is_nan() { -v } else { v + 0.0 }));
    columns[1] = Arc::new(Float64Array::from_iter(turned.collect::<Vec<_>>()));
    columns
}

/// Hashes, with `bits` bits only: few of them force collisions.
fn hashes(numbers: &[Key], bits: u32) -> Vec<u64> {
    let found = hash_rows(&keys(numbers), numbers.len()).unwrap();
    found
        .into_iter()
        .map(|hash| if bits < 64 { (hash % (1 << bits)).wrapping_mul(0x9E37_79B9_7F4A_7C15) } else { hash })
        .collect()
}

struct Model {
    schema: TableSchema,
    bits: u32,
    rows: BTreeMap<Key, Rows>,
    set: RunSet,
    next: i64,
}

fn table(kind: Kind, ttl: Option<Ttl>) -> TableSchema {
    let key = vec![field("a", DataType::Int64), field("b", DataType::Float64), field("c", DataType::Utf8)];
    let value = vec![field("v", DataType::Int64)];
    let schema = match kind {
        Kind::Value => TableSchema::value(key, value),
        Kind::List => TableSchema::list(key, value),
        Kind::Map => TableSchema::map(key, vec![field("m", DataType::Int64), field("n", DataType::Utf8)], value),
        Kind::Time => TableSchema::time(key, value),
    };
    schema.with_ttl(ttl)
}

fn run_set(folder: &Path, schema: &TableSchema, groups: KeyGroupRange) -> RunSet {
    let work = WorkFolder::new(Arc::new(LocalDisk), folder.join(format!("w{}", groups.start)));
    RunSet::new("t", schema.clone(), groups, work, MemoryPool::unbounded().reserve("t")).unwrap()
}

/// The sub-key columns of (time, number).
fn sub_columns(kind: Kind, subs: &[(i64, u64)]) -> Vec<ArrayRef> {
    let numbers = || Arc::new(UInt64Array::from_iter_values(subs.iter().map(|(_, number)| *number))) as ArrayRef;
    let times = || Arc::new(Int64Array::from_iter_values(subs.iter().map(|(time, _)| *time))) as ArrayRef;
    match kind {
        Kind::Value => vec![],
        Kind::List => vec![numbers()],
        Kind::Time => vec![times(), numbers()],
        Kind::Map => {
            let text = StringArray::from_iter(subs.iter().map(|(_, n)| (n % 3 > 0).then(|| n.to_string())));
            vec![times(), Arc::new(text)]
        }
    }
}

fn number(column: &ArrayRef, row: usize) -> i64 {
    column.as_primitive::<Int64Type>().value(row)
}

/// Sub-keys as the model has them, read back from columns. A map's are made so that the time tells them apart.
fn subs_of(kind: Kind, rows: &RecordBatch, row: usize) -> (i64, u64) {
    match kind {
        Kind::Value => (0, 0),
        Kind::List => (0, rows.column(3).as_primitive::<arrow::datatypes::UInt64Type>().value(row)),
        Kind::Time => {
            (number(rows.column(3), row), rows.column(4).as_primitive::<arrow::datatypes::UInt64Type>().value(row))
        }
        Kind::Map => (number(rows.column(3), row), number(rows.column(3), row) as u64),
    }
}

impl Model {
    fn new(folder: &Path, kind: Kind, bits: u32, ttl: Option<Ttl>) -> Self {
        let schema = table(kind, ttl);
        let set = run_set(folder, &schema, 0..128);
        Self { schema, bits, rows: BTreeMap::new(), set, next: 0 }
    }

    fn random_sub(&self, rng: &mut Rng) -> (i64, u64) {
        match self.schema.kind {
            Kind::Value => (0, 0),
            Kind::List => (0, rng.below(6) as u64),
            Kind::Time => (rng.below(3) as i64 - 1, rng.below(3) as u64),
            Kind::Map => {
                let number = rng.below(6) as u64;
                (number as i64, number)
            }
        }
    }

    /// Changes some keys at random, in the model and as a run.
    fn change(&mut self, rng: &mut Rng, keys_of: usize, changes: usize, bucket: u32) {
        let mut dirty = Dirty::new();
        for _ in 0..changes {
            let key = rng.below(keys_of) as Key;
            let sub = self.random_sub(rng);
            match rng.below(10) {
                0 | 1 => {
                    self.rows.get_mut(&key).map(|rows| rows.remove(&sub));
                    dirty.insert((key, true, sub), (Op::Delete, 0));
                }
                2 if self.schema.kind != Kind::Value => {
                    self.rows.remove(&key);
                    dirty.retain(|(other, ..), _| *other != key);
                    dirty.insert((key, false, (0, 0)), (Op::Clear, 0));
                }
                _ => {
                    self.next += 1;
                    self.rows.entry(key).or_default().insert(sub, (self.next, bucket));
                    dirty.insert((key, true, sub), (Op::Put, self.next));
                }
            }
        }
        self.write(dirty, bucket);
    }

    fn write(&mut self, dirty: Dirty, bucket: u32) {
        let numbers: Vec<_> = dirty.keys().map(|(key, ..)| *key).collect();
        let subs: Vec<_> = dirty.keys().map(|(_, _, sub)| *sub).collect();
        let mut columns = keys(&numbers);
        columns.extend(sub_columns(self.schema.kind, &subs));
        columns.push(Arc::new(Int64Array::from_iter_values(dirty.values().map(|(_, value)| *value))));
        let count = numbers.len();
        let batch = batch_of(&self.schema.rows(), columns, count).unwrap();
        let half = count / 2;
        let rows = DirtyRows {
            hashes: hashes(&numbers, self.bits),
            ops: dirty.values().map(|(op, _)| *op).collect(),
            buckets: vec![bucket; count],
            rows: vec![batch.slice(0, half), batch.slice(half, count - half)],
        };
        self.set.add(rows.sorted(&self.schema).unwrap()).unwrap();
    }

    fn expected(&self, oldest: u32) -> Vec<(Key, (i64, u64), i64)> {
        let flat = self.rows.iter().flat_map(|(key, rows)| rows.iter().map(move |(sub, row)| (*key, *sub, *row)));
        flat.filter(|(_, _, (_, bucket))| *bucket >= oldest).map(|(key, sub, (value, _))| (key, sub, value)).collect()
    }

    fn check_scan(&self, set: &RunSet, groups: KeyGroupRange, oldest: u32) -> usize {
        let mut found = Vec::new();
        let mut last = None;
        for piece in set.scan(&groups, oldest).unwrap() {
            let piece = piece.unwrap();
            assert!(!piece.is_empty() && piece.ops.iter().all(|op| *op == Op::Put));
            for (row, hash) in piece.hashes.iter().enumerate() {
                assert!(last.is_none_or(|last| last <= place_of(*hash)));
                last = Some(place_of(*hash));
                let key = number(piece.rows.column(0), row) as Key;
                assert_eq!(hashes(&[key], self.bits), [*hash]);
                let value = number(piece.rows.columns().last().unwrap(), row);
                found.push((key, subs_of(self.schema.kind, &piece.rows, row), value));
            }
        }
        found.sort();
        let is_in = |key: &Key| groups.contains(&((hashes(&[*key], self.bits)[0] % 128) as u16));
        let expected: Vec<_> = self.expected(oldest).into_iter().filter(|(key, ..)| is_in(key)).collect();
        assert!(found == expected, "{} rows instead of {}", found.len(), expected.len());
        found.len()
    }

    fn check_find(&self, set: &RunSet, keys_of: usize) {
        let mut numbers: Vec<Key> = (0..keys_of as Key + 3).collect();
        let hashed = hashes(&numbers, self.bits);
        let is_in = |key: &Key| set.groups().contains(&((hashed[*key as usize] % 128) as u16));
        numbers.retain(is_in);
        numbers.sort_by_key(|key| place_of(hashed[*key as usize]));
        let found = set.find(&hashes(&numbers, self.bits), &asked(&numbers)).unwrap();
        assert!(found.requests.is_sorted());
        let mut rows: Vec<_> = found
            .requests
            .iter()
            .enumerate()
            .map(|(row, request)| {
                let key = numbers[*request as usize];
                assert_eq!(number(found.rows.rows.column(0), row) as Key, key);
                let value = number(found.rows.rows.columns().last().unwrap(), row);
                (key, subs_of(self.schema.kind, &found.rows.rows, row), value)
            })
            .collect();
        if self.schema.kind != Kind::Map {
            let of = |rows: &[(Key, (i64, u64), i64)]| rows.chunk_by(|a, b| a.0 == b.0).all(|rows| rows.is_sorted());
            assert!(of(&rows));
        }
        rows.sort();
        let expected: Vec<_> = self.expected(0).into_iter().filter(|(key, ..)| is_in(key)).collect();
        assert!(rows == expected, "{} rows instead of {}", rows.len(), expected.len());
    }
}

const KINDS: [Kind; 4] = [Kind::Value, Kind::List, Kind::Map, Kind::Time];

#[test]
fn many_runs_answer_like_a_map_in_memory() {
    for kind in KINDS {
        for (seed, bits, keys_of) in [(1, 64, 400), (2, 3, 40), (3, 8, 600)] {
            let folder = tempfile::tempdir().unwrap();
            let mut rng = Rng::seeded(seed);
            let mut model = Model::new(folder.path(), kind, bits, None);
            for round in 0..24 {
                model.change(&mut rng, keys_of, keys_of, 0);
                let before = model.set.len();
                let merged = model.set.compact(0).unwrap();
                assert_eq!(merged, model.set.len() < before);
                if round % 5 == 0 || merged {
                    model.check_find(&model.set, keys_of);
                    model.check_scan(&model.set, 0..128, 0);
                    model.check_scan(&model.set, 17..64, 0);
                }
            }
            assert!(model.set.len() < 15, "{}", model.set.len());
        }
    }
}

#[test]
fn runs_are_divided_by_key_group_without_being_rewritten() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = Rng::seeded(9);
        let mut model = Model::new(folder.path(), kind, 64, None);
        (0..4).for_each(|_| model.change(&mut rng, 1_000, 1_500, 0));
        let mut rows = 0;
        for index in 0..3 {
            let groups = ruslo_core::key_group::range_of(index, 3);
            let part = run_set(folder.path(), &model.schema, groups.clone());
            let runs = model.set.snapshot();
            let cut = runs.iter().map(|run| Arc::new(reopened(run, &model.schema, &groups)));
            part.restore(cut.collect());
            assert!(part.memory_bytes() < model.set.memory_bytes() / 2 + 1_000);
            model.check_find(&part, 1_000);
            rows += model.check_scan(&part, groups.clone(), 0);
            // Work goes on there.
            part.compact(0).unwrap();
            model.check_find(&part, 1_000);
        }
        assert_eq!(rows, model.expected(0).len());
    }
}

fn reopened(run: &Run, schema: &TableSchema, groups: &KeyGroupRange) -> Run {
    fetched(run, run.path()).open(groups, schema).unwrap().unwrap()
}

fn fetched(run: &Run, path: &Path) -> Fetched {
    let reference = run.reference("x".to_owned());
    Fetched { disk: Arc::new(LocalDisk), path: path.to_owned(), base: 0, reference, copy: None }
}

#[test]
fn expired_rows_go_when_runs_are_merged_or_whole() {
    for kind in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = Rng::seeded(11);
        let mut model = Model::new(folder.path(), kind, 64, Some(Ttl { units: 8, unit_ms: 1_000 }));
        for bucket in 0..30 {
            model.change(&mut rng, 300, 300, bucket);
            let oldest = bucket.saturating_sub(8);
            model.set.compact(oldest).unwrap();
            model.check_scan(&model.set, 0..128, oldest);
        }
        assert_eq!(model.set.newest_bucket(), 29);
        model.set.compact(30).unwrap();
        assert!(model.set.is_empty());
        assert!(LocalDisk.list_of(folder.path()).is_empty(), "files stay");
    }
}

trait ListOf {
    fn list_of(&self, folder: &Path) -> Vec<std::path::PathBuf>;
}

impl ListOf for LocalDisk {
    fn list_of(&self, folder: &Path) -> Vec<std::path::PathBuf> {
        use ruslo_core::disk::Disk;
        self.list(&folder.join("w0")).unwrap()
    }
}

#[test]
fn what_is_sealed_first_is_older_however_late_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let schema = TableSchema::value(vec![field("k", DataType::Int64)], vec![field("v", DataType::Int64)]);
    let set = run_set(folder.path(), &schema, 0..128);
    let rows = |value: i64| {
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1])), Arc::new(Int64Array::from(vec![value]))];
        let hashes = hash_rows(&columns[..1], 1).unwrap();
        let rows = vec![batch_of(&schema.rows(), columns, 1).unwrap()];
        DirtyRows { hashes, ops: vec![Op::Put], buckets: vec![0], rows }.sorted(&schema).unwrap()
    };
    let slot = set.reserve();
    (0..30).for_each(|value| _ = set.add(rows(value)).unwrap());
    assert!(!set.compact(0).unwrap(), "a run is missing below");
    set.add_at(slot, rows(-1)).unwrap();
    let value = |set: &RunSet| {
        let key: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let found = set.find(&hash_rows(&[Arc::clone(&key)], 1).unwrap(), &[key]).unwrap();
        number(found.rows.rows.column(1), 0)
    };
    assert_eq!(value(&set), 29);
    let before = set.snapshot();
    assert!(set.compact(0).unwrap());
    assert_eq!((value(&set), set.len(), before.len()), (29, 1, 31));
    assert!(before.iter().all(|run| run.path().exists()), "a snapshot keeps its files");
    drop(before);
    assert_eq!(LocalDisk.list_of(folder.path()).len(), 1);
}

#[test]
fn damage_is_found_and_names_the_file() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let mut model = Model::new(folder.path(), Kind::List, 64, None);
    model.change(&mut Rng::seeded(5), 200, 400, 0);
    let run = model.set.snapshot().remove(0);
    let bytes = ruslo_core::disk::Disk::read(&LocalDisk, run.path())?;
    let damaged = folder.path().join("damaged");
    let mut survived = 0;
    for byte in (0..bytes.len()).step_by(97) {
        let mut copy = bytes.clone();
        copy[byte] ^= 1 << (byte % 8);
        ruslo_core::disk::Disk::remove(&LocalDisk, &damaged)?;
        ruslo_core::disk::Disk::write_synced(&LocalDisk, &damaged, &copy)?;
        let opened = fetched(&run, &damaged).open(&(0..128), &model.schema).map(Option::unwrap);
        let read = opened.and_then(|run| {
            let set = run_set(folder.path(), &model.schema, 0..128);
            set.restore(vec![Arc::new(run)]);
            set.scan(&(0..128), 0)?.try_for_each(|piece| piece.map(drop))
        });
        match read {
            Err(error) => assert!(error.to_string().contains("damaged"), "{error}"),
            // The schema and the end mark are not read: only the checksum of the whole has them.
            Ok(()) => survived += 1,
        }
    }
    assert!(survived * 97 < 2_000, "{survived}");
    Ok(())
}
