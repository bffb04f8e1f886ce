//! What a checkpoint uploads when 1 % of a large table has changed, and how long it takes to open it again.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray, FixedSizeBinaryArray, Int64Array};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Int64Type};
use arrow::record_batch::RecordBatch;
use ruslo_core::disk::LocalDisk;
use ruslo_core::key_group::{KEY_GROUPS, hash_rows, range_of};
use ruslo_core::memory::MemoryPool;
use ruslo_core::rng::Rng;
use ruslo_state::manifest::{RunLayout, RunRef};
use ruslo_state::runs::{DirtyRows, Fetched, Op, Run, RunSet, SortedRows, TableSchema, WorkFolder, place_of};

/// A row is a key of 8 bytes and a value of this many.
const VALUE_BYTES: usize = 92;
const ROW_BYTES: usize = 8 + VALUE_BYTES;

fn schema() -> TableSchema {
    let key = Arc::new(Field::new("key", DataType::Int64, false));
    let value = Arc::new(Field::new("value", DataType::FixedSizeBinary(VALUE_BYTES as i32), true));
    TableSchema::value(vec![key], vec![value])
}

/// The value that `key` got in `epoch`: begins with the epoch, so that it can be checked.
fn batch(schema: &TableSchema, keys: Vec<i64>, epoch: u64) -> RecordBatch {
    let mut bytes = Vec::with_capacity(keys.len() * VALUE_BYTES);
    for key in &keys {
        let mut rng = Rng::seeded(*key as u64 ^ (epoch << 40));
        bytes.extend(epoch.to_le_bytes());
        while !bytes.len().is_multiple_of(VALUE_BYTES) {
            let word = rng.next_u64().to_le_bytes();
            let rest = VALUE_BYTES - bytes.len() % VALUE_BYTES;
            bytes.extend(&word[..rest.min(8)]);
        }
    }
    let values = FixedSizeBinaryArray::try_new(VALUE_BYTES as i32, Buffer::from_vec(bytes), None).unwrap();
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(keys)), Arc::new(values)];
    RecordBatch::try_new(schema.rows(), columns).unwrap()
}

fn set(folder: &Path, groups: std::ops::Range<u16>, pool: &Arc<MemoryPool>) -> RunSet {
    let work = WorkFolder::new(Arc::new(LocalDisk), folder.join("work"));
    RunSet::new("t", schema(), groups, work, pool.reserve("t")).unwrap()
}

/// All keys in the order of a run, in pieces; eight key groups at a time, so that sorting them takes little memory.
fn base(rows: i64) -> impl Iterator<Item = ruslo_core::error::Result<SortedRows>> {
    let schema = schema();
    (0..KEY_GROUPS / 8).flat_map(move |part| {
        let wanted = part * 8..part * 8 + 8;
        let mut places = Vec::new();
        for start in (0..rows).step_by(8_192) {
            let keys: Vec<i64> = (start..rows.min(start + 8_192)).collect();
            let count = keys.len();
            let hashes = hash_rows(&[Arc::new(Int64Array::from(keys.clone()))], count).unwrap();
            let found = hashes.iter().zip(keys).filter(|(hash, _)| wanted.contains(&((**hash % 128) as u16)));
            places.extend(found.map(|(hash, key)| (place_of(*hash), *hash, key)));
        }
        places.sort_unstable();
        let schema = schema.clone();
        let pieces: Vec<_> = places.chunks(4_096).map(<[_]>::to_vec).collect();
        pieces.into_iter().map(move |piece| {
            Ok(SortedRows {
                hashes: piece.iter().map(|(_, hash, _)| *hash).collect(),
                ops: vec![Op::Put; piece.len()],
                buckets: vec![0; piece.len()],
                rows: batch(&schema, piece.iter().map(|(_, _, key)| *key).collect(), 0),
            })
        })
    })
}

fn changes(rows: i64, epoch: u64) -> DirtyRows {
    let schema = schema();
    let mut rng = Rng::seeded(epoch);
    let keys: BTreeSet<i64> = (0..rows / 100).map(|_| rng.below(rows as usize) as i64).collect();
    let keys: Vec<i64> = keys.into_iter().collect();
    let count = keys.len();
    let hashes = hash_rows(&[Arc::new(Int64Array::from(keys.clone()))], count).unwrap();
    let rows = keys.chunks(8_192).map(|keys| batch(&schema, keys.to_vec(), epoch)).collect();
    DirtyRows { hashes, ops: vec![Op::Put; count], buckets: vec![0; count], rows }
}

/// Names every run as a checkpoint would; the bytes of those that none had named before.
fn upload(set: &RunSet) -> u64 {
    let new: Vec<_> = set.snapshot().into_iter().filter(|run| run.stored().is_none()).collect();
    new.iter().for_each(|run| run.set_stored(reference(run)));
    new.iter().map(|run| run.length()).sum()
}

fn reference(run: &Run) -> RunRef {
    RunRef {
        file: run.path().display().to_string(),
        offset: 0,
        length: run.length(),
        crc32: run.crc32(),
        rows: run.rows(),
        bucket: 0,
        groups: 0..KEY_GROUPS,
        layout: RunLayout::Keyed,
    }
}

pub(crate) fn run(gib: f64, epochs: usize) {
    let folder = tempfile::tempdir_in(".").unwrap();
    let rows = (gib * f64::from(1 << 30)) as i64 / ROW_BYTES as i64;
    let logical = rows as u64 * ROW_BYTES as u64;
    let pool = MemoryPool::unbounded();
    let table = set(folder.path(), 0..KEY_GROUPS, &pool);
    let start = Instant::now();
    table.add(base(rows)).unwrap();
    let first = upload(&table);
    println!(
        "{rows} rows of {ROW_BYTES} bytes: {} MiB in the first run ({:.1} % more), {:.1} s",
        first >> 20,
        100.0 * (first as f64 / logical as f64 - 1.0),
        start.elapsed().as_secs_f64()
    );
    let (mut uploaded, mut most, mut merging) = (0, 0, 0.0);
    for epoch in 1..=epochs as u64 {
        let changed = changes(rows, epoch);
        let start = Instant::now();
        table.add(changed.sorted(&schema()).unwrap()).unwrap();
        let written = start.elapsed().as_secs_f64();
        let bytes = upload(&table);
        uploaded += bytes;
        most = most.max(table.len());
        let start = Instant::now();
        while table.compact(0).unwrap() {}
        merging += start.elapsed().as_secs_f64();
        println!(
            "epoch {epoch}: {:.2} % uploaded, {} runs, sorted and written in {:.2} s, merged in {:.2} s",
            100.0 * bytes as f64 / logical as f64,
            table.len(),
            written,
            start.elapsed().as_secs_f64()
        );
    }
    // What the last merge made goes with the next checkpoint: counted here.
    uploaded += upload(&table);
    println!(
        "average {:.3} % per epoch; {most} runs at most; merging took {merging:.1} s; index and filters {} MiB",
        100.0 * uploaded as f64 / logical as f64 / epochs as f64,
        table.memory_bytes() >> 20,
    );
    lookups(&table, rows, epochs as u64);
    restore(folder.path(), &table, rows);
}

/// Finds random keys, and compares a few with what they must be.
fn lookups(table: &RunSet, rows: i64, epochs: u64) {
    let newest: Vec<BTreeSet<i64>> = (1..=epochs.min(3))
        .map(|back| {
            let changed = changes(rows, epochs + 1 - back);
            changed.rows.iter().flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
        })
        .collect();
    let (mut asked, mut seconds, mut checked) = (0, 0.0, 0);
    let mut rng = Rng::seeded(99);
    for _ in 0..50 {
        let keys: BTreeSet<i64> = (0..2_000).map(|_| rng.below(rows as usize * 2) as i64).collect();
        let array: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.iter().copied()));
        let hashes = hash_rows(&[array], keys.len()).unwrap();
        let mut ordered: Vec<_> = hashes.into_iter().zip(keys).collect();
        ordered.sort_by_key(|(hash, _)| place_of(*hash));
        let (hashes, keys): (Vec<u64>, Vec<i64>) = ordered.into_iter().unzip();
        let array: ArrayRef = Arc::new(Int64Array::from(keys.clone()));
        let start = Instant::now();
        let found = table.find(&hashes, &[array]).unwrap();
        seconds += start.elapsed().as_secs_f64();
        asked += keys.len();
        let expected: Vec<i64> = keys.iter().copied().filter(|key| *key < rows).collect();
        let got = found.rows.rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!(got, expected);
        let values = found.rows.rows.column(1).as_fixed_size_binary();
        for (row, key) in got.iter().enumerate() {
            let back = newest.iter().position(|keys| keys.contains(key));
            let epoch = u64::from_le_bytes(values.value(row)[..8].try_into().unwrap());
            match back {
                Some(back) => assert_eq!(epoch, epochs - back as u64),
                None => assert!(epoch + newest.len() as u64 <= epochs),
            }
            checked += 1;
        }
    }
    println!(
        "found {checked} of {asked} random keys (half of them absent) in {seconds:.2} s: {:.1} µs a key",
        1e6 * seconds / asked as f64
    );
}

/// Reads every byte once, as a restore does, then opens the runs for three subtasks.
fn restore(folder: &Path, table: &RunSet, rows: i64) {
    let start = Instant::now();
    let runs = table.snapshot();
    for run in &runs {
        ruslo_state::runs::verify(&LocalDisk, run.path(), &reference(run)).unwrap();
    }
    let verified = start.elapsed().as_secs_f64();
    let pool = MemoryPool::unbounded();
    let mut total = 0;
    for index in 0..3 {
        let groups = range_of(index, 3);
        let part = set(folder, groups.clone(), &pool);
        let cut = runs.iter().map(|run| {
            let (disk, path) = (Arc::new(LocalDisk), run.path().to_owned());
            let fetched = Fetched { disk, path, base: 0, reference: reference(run), copy: None };
            Arc::new(fetched.open(&groups, &schema()).unwrap().unwrap())
        });
        part.restore(cut.collect());
        if index == 0 {
            println!(
                "verified in {verified:.1} s, opened a third in {:.1} s",
                start.elapsed().as_secs_f64() - verified
            );
        }
        let scanned = Instant::now();
        let found: usize = part.scan(&groups, 0).unwrap().map(|piece| piece.unwrap().len()).sum();
        total += found;
        println!("subtask {index} of 3: scanned {found} rows in {:.1} s", scanned.elapsed().as_secs_f64());
    }
    assert_eq!(total as i64, rows);
}
