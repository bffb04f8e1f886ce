//! The bytes of a run, for ever.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field};
use ruslo_core::disk::{Disk, LocalDisk};
use ruslo_core::key_group::hash_rows;
use ruslo_core::memory::MemoryPool;

use crate::manifest::RunRef;
use crate::runs::rows::batch_of;
use crate::runs::{DirtyRows, Fetched, Op, RunSet, TableSchema, Ttl, WorkFolder, place_of};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keyed_run_v1.arrow");

fn schema() -> TableSchema {
    let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
    let schema = TableSchema::list(vec![field("k", DataType::Utf8)], vec![field("v", DataType::Int64)]);
    schema.with_ttl(Some(Ttl { units: 8, unit_ms: 1_000 }))
}

/// 300 keys, every third with two rows, every tenth deleted, one cleared.
fn rows() -> DirtyRows {
    let numbers: Vec<i64> = (0..300).chain((0..300).step_by(3)).collect();
    let name = |number: &i64| (*number != 7).then(|| format!("key {number}"));
    let keys: ArrayRef = Arc::new(StringArray::from_iter(numbers.iter().map(name)));
    let sequence = |row: usize| if row < 300 { 0 } else { 1 };
    let sequences: ArrayRef = Arc::new(UInt64Array::from_iter_values((0..numbers.len()).map(sequence)));
    let values: ArrayRef = Arc::new(Int64Array::from_iter(numbers.iter().map(|n| (n % 4 > 0).then_some(n * n))));
    let op = |number: &i64| match number {
        11 => Op::Clear,
        number if number % 10 == 0 => Op::Delete,
        _ => Op::Put,
    };
    DirtyRows {
        hashes: hash_rows(&[Arc::clone(&keys)], numbers.len()).unwrap(),
        ops: numbers.iter().map(op).collect(),
        buckets: (0..numbers.len() as u32).map(|row| 100 + row / 100).collect(),
        rows: vec![batch_of(&schema().rows(), vec![keys, sequences, values], numbers.len()).unwrap()],
    }
}

fn set(folder: &Path) -> RunSet {
    let work = WorkFolder::new(Arc::new(LocalDisk), folder.to_owned());
    RunSet::new("t", schema(), 0..128, work, MemoryPool::unbounded().reserve("t")).unwrap()
}

#[test]
#[ignore = "writes the fixture of the current format; run it once a version"]
fn write_the_fixture() {
    let folder = tempfile::tempdir().unwrap();
    let run = set(folder.path()).add(rows().sorted(&schema()).unwrap()).unwrap().unwrap();
    LocalDisk.remove(Path::new(FIXTURE)).unwrap();
    LocalDisk.write_synced(Path::new(FIXTURE), &LocalDisk.read(run.path()).unwrap()).unwrap();
}

#[test]
fn format_version_one_stays_readable() {
    let bytes = LocalDisk.read(Path::new(FIXTURE)).unwrap();
    let (length, crc32) = (bytes.len() as u64, crc32fast::hash(&bytes));
    let reference = RunRef { length, crc32, rows: 400, ..RunRef::for_test("x", 0, 0..128) };
    let (disk, path) = (Arc::new(LocalDisk), Path::new(FIXTURE).to_owned());
    let whole = Fetched { disk, path, base: 0, reference, copy: None }.open(&(0..128), &schema()).unwrap().unwrap();
    assert_eq!((whole.rows(), whole.newest_bucket()), (400, 103));
    let folder = tempfile::tempdir().unwrap();
    let read = set(folder.path());
    read.restore(vec![Arc::new(whole)]);
    let pieces: Vec<_> = read.scan(&(0..128), 0).unwrap().map(|piece| piece.unwrap()).collect();
    let expected: Vec<_> = rows().sorted(&schema()).unwrap().map(|piece| piece.unwrap()).collect();
    let alive = expected.iter().flat_map(|piece| piece.ops.iter().zip(&piece.hashes));
    let alive: Vec<_> = alive.filter(|(op, _)| **op == Op::Put).map(|(_, hash)| *hash).collect();
    assert_eq!(pieces.iter().flat_map(|piece| piece.hashes.clone()).collect::<Vec<_>>(), alive);
    // 300 keys; 30 + 10 rows of deleted ones and one clear are no rows.
    assert_eq!(alive.len(), 400 - 30 - 10 - 1);
    let mut hashes = expected.iter().flat_map(|piece| piece.hashes.clone()).collect::<Vec<_>>();
    hashes.sort_by_key(|hash| place_of(*hash));
    assert!(hashes.iter().all(|hash| read.snapshot().iter().all(|run| run.may_have(place_of(*hash)))));
}
