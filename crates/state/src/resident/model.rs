//! Random calls on tables and on plain maps, which must agree: with a memory limit that makes the table evict, barriers in
//! between, runs that are written late, and rows that die.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, StringArray, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, UInt64Type};
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use ruslo_core::disk::LocalDisk;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::{KEY_GROUPS, KeyGroup, key_groups};
use ruslo_core::keyed::{KeyedTable, Rows};
use ruslo_core::memory::MemoryPool;
use ruslo_core::rng::Rng;
use ruslo_core::time::Timestamp;

use super::{Lower, LowerRows, ResidentTable};
use crate::keyed::Settle;
use crate::runs::{DirtyRows, Op, Run, RunSet, TableSchema, Ttl, WorkFolder, place_of};

/// Runs as a map: from the text of key and sub-key.
#[derive(Debug)]
pub(super) struct Below {
    schema: TableSchema,
    rows: Mutex<BTreeMap<String, Chain>>,
}

/// The rows of one key: bucket and row.
type Chain = BTreeMap<Rank, (u32, RecordBatch)>;

/// Where a row stands among those of its key.
type Rank = (i64, u64, String);

fn text(columns: &[ArrayRef], row: usize) -> String {
    let one = |column: &ArrayRef| match column.is_null(row) {
        true => "NULL".to_owned(),
        false => format!("'{}'", array_value_to_string(column, row).unwrap()).replace("'-0.0'", "'0.0'"),
    };
    columns.iter().map(one).collect::<Vec<_>>().join(",")
}

impl Below {
    fn new(schema: &TableSchema) -> Arc<Self> {
        Arc::new(Self { schema: schema.clone(), rows: Mutex::default() })
    }

    fn rank(&self, sub_keys: &[ArrayRef], row: usize) -> Rank {
        let time = sub_keys.iter().find_map(|column| column.as_primitive_opt::<Int64Type>());
        let number = sub_keys.iter().find_map(|column| column.as_primitive_opt::<UInt64Type>());
        (time.map_or(0, |times| times.value(row)), number.map_or(0, |numbers| numbers.value(row)), text(sub_keys, row))
    }
}

impl Lower for Below {
    fn keys(&self, group: KeyGroup, oldest_bucket: u32) -> Result<Vec<Vec<ArrayRef>>> {
        let rows = self.rows.lock().unwrap();
        let alive = rows.values().flat_map(|chain| chain.values()).filter(|(bucket, _)| *bucket >= oldest_bucket);
        let keys = alive.map(|(_, row)| row.columns()[..self.schema.key.len()].to_vec());
        Ok(keys.filter(|keys| key_groups(keys, 1).unwrap() == [group]).collect())
    }

    fn add(&self, pieces: &mut dyn Iterator<Item = Result<DirtyRows>>) -> Result<Option<Arc<Run>>> {
        let mut last_group = None;
        for piece in pieces {
            let piece = piece?;
            let group = piece.hashes[0] % u64::from(KEY_GROUPS);
            assert!(last_group < Some(group) && piece.hashes.iter().all(|hash| hash % u64::from(KEY_GROUPS) == group));
            last_group = Some(group);
            let batch = concat_batches(&self.schema.rows(), &piece.rows)?;
            assert_eq!([piece.hashes.len(), piece.ops.len(), piece.buckets.len()], [batch.num_rows(); 3]);
            let mut rows = self.rows.lock().unwrap();
            for row in 0..batch.num_rows() {
                let key = rows.entry(text(&batch.columns()[self.schema.key_columns()], row)).or_default();
                let rank = self.rank(&batch.columns()[self.schema.sub_key_columns()], row);
                match piece.ops[row] {
                    Op::Put => drop(key.insert(rank, (piece.buckets[row], batch.slice(row, 1)))),
                    Op::Delete => drop(key.remove(&rank)),
                    Op::Clear => key.clear(),
                }
            }
        }
        Ok(None)
    }

    fn find(&self, hashes: &[u64], keys: &[ArrayRef]) -> Result<LowerRows> {
        assert!(hashes.is_sorted_by_key(|hash| place_of(*hash)));
        let rows = self.rows.lock().unwrap();
        let (mut requests, mut buckets, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for request in 0..hashes.len() {
            for (bucket, row) in rows.get(&text(keys, request)).into_iter().flat_map(Chain::values) {
                requests.push(request as u32);
                buckets.push(*bucket);
                found.push(row.clone());
            }
        }
        Ok(LowerRows { requests, buckets, rows: concat_batches(&self.schema.rows(), &found)? })
    }

    fn compact(&self, _: u32) -> Result<()> {
        Ok(())
    }
}

pub(super) fn field(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, true))
}

/// A string and a number: of several lengths, NULL, both zeros and two NaN.
fn keys(rng: &mut Rng, rows: usize, universe: usize) -> Vec<ArrayRef> {
    let (mut names, mut numbers) = (Vec::new(), Vec::new());
    for _ in 0..rows {
        let key = rng.below(universe);
        names.push(
            [None, Some(String::new()), Some("abc".to_owned()), Some("a longer name".repeat(key % 5))][key % 4].clone(),
        );
        let special = [Some(0.0), Some(-0.0), Some(f64::NAN), Some(-f64::NAN), None];
        numbers.push(*special.get(key / 4).unwrap_or(&Some((key / 4) as f64)));
    }
    vec![Arc::new(StringArray::from(names)), Arc::new(Float64Array::from(numbers))]
}

fn key_text(keys: &[ArrayRef], row: usize) -> String {
    text(keys, row)
}

fn values(rng: &mut Rng, rows: usize) -> Vec<ArrayRef> {
    let numbers: Int64Array = (0..rows).map(|_| (!rng.one_in(5)).then(|| rng.below(1000) as i64)).collect();
    let name = |_| {
        let length_max = if rng.one_in(10) { 400 } else { 12 };
        (!rng.one_in(5)).then(|| "x".repeat(rng.below(length_max)))
    };
    let names = (0..rows).map(name);
    let names: StringArray = names.collect();
    vec![Arc::new(numbers), Arc::new(names)]
}

fn schema_columns() -> (Vec<FieldRef>, Vec<FieldRef>) {
    let key = vec![field("k", DataType::Utf8), field("f", DataType::Float64)];
    (key, vec![field("n", DataType::Int64), field("s", DataType::Utf8)])
}

/// A table under test, what is below it, and what was sealed but is not in a run yet.
pub(super) struct Bench {
    pub(super) table: ResidentTable,
    below: Arc<Below>,
    late: Vec<Arc<super::Sealed>>,
}

impl Bench {
    pub(super) fn new(schema: TableSchema, limit_bytes: Option<u64>) -> Self {
        let pool = MemoryPool::new(limit_bytes.unwrap_or(u64::MAX));
        let below = Below::new(&schema);
        let lower = limit_bytes.map(|_| Arc::clone(&below) as Arc<dyn Lower>);
        let memory = pool.reserve_yielding("t");
        let table = ResidentTable::new("t", schema, 0..KEY_GROUPS, memory, lower).unwrap();
        Self { table, below, late: Vec::new() }
    }

    /// Over runs on disk.
    pub(super) fn on_disk(schema: TableSchema, limit_bytes: u64, folder: &std::path::Path) -> Self {
        let pool = MemoryPool::new(limit_bytes);
        let work = WorkFolder::new(Arc::new(LocalDisk), folder.to_owned());
        let runs = RunSet::new("t", schema.clone(), 0..KEY_GROUPS, work, pool.reserve("runs")).unwrap();
        let below = Below::new(&schema);
        let memory = pool.reserve_yielding("t");
        let table = ResidentTable::new("t", schema, 0..KEY_GROUPS, memory, Some(Arc::new(runs))).unwrap();
        Self { table, below, late: Vec::new() }
    }

    pub(super) fn barrier(&mut self, rng: &mut Rng) {
        // One that is not settled yet must be before the next is sealed.
        self.late.drain(..).for_each(|sealed| drop(sealed.settle().unwrap()));
        let sealed = self.table.seal().unwrap();
        if self.table.lower.is_some() {
            self.late.push(sealed);
            if rng.one_in(2) {
                self.late.drain(..).for_each(|sealed| drop(sealed.settle().unwrap()));
            }
        }
    }
}

type Written = (Option<i64>, Option<String>);

fn value_of(columns: &[ArrayRef], row: usize) -> Written {
    let (numbers, names) = (columns[0].as_primitive::<Int64Type>(), columns[1].as_string::<i32>());
    let number = numbers.is_valid(row).then(|| numbers.value(row));
    (number, names.is_valid(row).then(|| names.value(row).to_owned()))
}

fn check_value_table(seed: u64, limit_bytes: Option<u64>, ttl: Option<Ttl>, universe: usize) -> bool {
    let (key, value) = schema_columns();
    let mut bench = Bench::new(TableSchema::value(key, value).with_ttl(ttl), limit_bytes);
    let alive = check_calls(seed, &mut bench, ttl, universe);
    if limit_bytes.is_some() {
        let below = bench.below.rows.lock().unwrap();
        let stored = below.iter().filter(|(_, rows)| rows.values().any(|(bucket, _)| *bucket >= bench.table.oldest));
        let stored: Vec<_> = stored.map(|(key, _)| key.clone()).collect();
        assert_eq!(stored, alive, "seed {seed}");
    }
    bench.table.has_evicted()
}

/// Random calls; the keys that are there at the end, in order.
fn check_calls(seed: u64, bench: &mut Bench, ttl: Option<Ttl>, universe: usize) -> Vec<String> {
    let mut rng = Rng::seeded(seed);
    let mut model: HashMap<String, (u64, Written)> = HashMap::new();
    let mut now = 100_000u64;
    for _ in 0..250 {
        let rows = 1 + rng.below(40);
        let keys = keys(&mut rng, rows, universe);
        let texts: Vec<_> = (0..rows).map(|row| key_text(&keys, row)).collect();
        if let Some(ttl) = ttl {
            now += rng.below(700) as u64;
            bench.table.set_time(Timestamp(now as i64));
            let oldest = now / ttl.unit_ms - u64::from(ttl.units);
            model.retain(|_, (bucket, _)| *bucket >= oldest);
        }
        let bucket = ttl.map_or(0, |ttl| now / ttl.unit_ms);
        let table = &mut bench.table;
        match rng.below(10) {
            0..=2 => {
                let values = values(&mut rng, rows);
                table.upsert(&keys, &values).unwrap();
                texts
                    .iter()
                    .enumerate()
                    .for_each(|(row, key)| drop(model.insert(key.clone(), (bucket, value_of(&values, row)))));
            }
            3 => {
                table.remove(&keys).unwrap();
                texts.iter().for_each(|key| drop(model.remove(key)));
            }
            4 | 5 => {
                let deltas: Int64Array = (0..rows).map(|row| Some(row as i64)).collect();
                table.add(&keys, 0, &deltas).unwrap();
                for (row, key) in texts.iter().enumerate() {
                    let entry = model.entry(key.clone()).or_insert((bucket, (None, None)));
                    entry.0 = bucket;
                    entry.1.0 = Some(entry.1.0.unwrap_or(0) + row as i64);
                }
            }
            6 => {
                let values = values(&mut rng, rows);
                let (handles, added) = table.load_or_insert(&keys).unwrap();
                let found = table.read(&handles).unwrap();
                let mut before = model.clone();
                for (row, key) in texts.iter().enumerate() {
                    assert_eq!(added[row], !before.contains_key(key), "seed {seed}: {key}");
                    let there = before.entry(key.clone()).or_insert((bucket, (None, None)));
                    assert_eq!(value_of(&found, row), there.1, "seed {seed}: {key}");
                    model.insert(key.clone(), (bucket, value_of(&values, row)));
                }
                table.write(&handles, &values).unwrap();
            }
            7 => bench.barrier(&mut rng),
            _ => {
                let found = table.get(&keys).unwrap();
                for (row, key) in texts.iter().enumerate() {
                    let is_present = found.present.as_ref().is_none_or(|present| present.is_valid(row));
                    assert_eq!(is_present, model.contains_key(key), "seed {seed}: {key}");
                    let expected = model.get(key).map_or((None, None), |(_, value)| value.clone());
                    assert_eq!(value_of(&found.columns, row), expected, "seed {seed}: {key}");
                }
            }
        }
        assert!(bench.table.bytes() <= bench.table.memory.bytes() + 4096, "more is held than said");
        if rng.one_in(20) {
            let mut expected: Vec<&String> = model.keys().collect();
            expected.sort();
            assert_eq!(all_keys(&mut bench.table).iter().collect::<Vec<_>>(), expected, "seed {seed}");
        }
    }
    bench.barrier(&mut rng);
    bench.late.drain(..).for_each(|sealed| drop(sealed.settle().unwrap()));
    let mut alive: Vec<_> = model.into_keys().collect();
    alive.sort();
    alive
}

/// The keys of all key groups, in order.
fn all_keys(table: &mut ResidentTable) -> Vec<String> {
    let mut texts = Vec::new();
    for group in 0..KEY_GROUPS {
        let keys = KeyedTable::keys(table, group).unwrap();
        texts.extend((0..keys[0].len()).map(|row| key_text(&keys, row)));
    }
    texts.sort();
    texts
}

const TTL: Ttl = Ttl { units: 8, unit_ms: 1000 };

#[test]
fn a_value_table_is_a_map() {
    for seed in 0..15 {
        assert!(!check_value_table(seed, None, (seed % 2 == 0).then_some(TTL), 50 + seed as usize * 40));
    }
}

#[test]
fn a_value_table_is_a_map_when_memory_is_short() {
    let evicted =
        (0..24).filter(|seed| check_value_table(*seed, Some(200 << 10), (seed % 2 == 0).then_some(TTL), 1500));
    assert!(evicted.count() >= 12, "memory was not short");
}

#[test]
fn a_value_table_is_a_map_over_runs_on_disk() {
    let mut evicted = 0;
    for seed in 100..106 {
        let folder = tempfile::tempdir().unwrap();
        let (key, value) = schema_columns();
        let ttl = (seed % 2 == 0).then_some(TTL);
        let schema = TableSchema::value(key, value).with_ttl(ttl);
        let mut bench = Bench::on_disk(schema, 300 << 10, folder.path());
        check_calls(seed, &mut bench, ttl, 1500);
        evicted += usize::from(bench.table.has_evicted());
    }
    assert!(evicted >= 3, "memory was not short");
}

/// What a list has under a key: numbers of rows, in order.
fn check_list(seed: u64, limit_bytes: Option<u64>, universe: usize) -> bool {
    let mut rng = Rng::seeded(seed);
    let (key, value) = schema_columns();
    let mut bench = Bench::new(TableSchema::list(key, value), limit_bytes);
    let mut model: HashMap<String, Vec<Written>> = HashMap::new();
    for _ in 0..250 {
        let rows = 1 + rng.below(40);
        let keys = keys(&mut rng, rows, universe);
        let texts: Vec<_> = (0..rows).map(|row| key_text(&keys, row)).collect();
        let table = &mut bench.table;
        match rng.below(10) {
            0..=3 => {
                let values = values(&mut rng, rows);
                table.append(&keys, &values).unwrap();
                texts
                    .iter()
                    .enumerate()
                    .for_each(|(row, key)| model.entry(key.clone()).or_default().push(value_of(&values, row)));
            }
            4 if rng.one_in(3) => {
                table.remove(&keys).unwrap();
                texts.iter().for_each(|key| drop(model.remove(key)));
            }
            5 | 6 => bench.barrier(&mut rng),
            choice => {
                let mut cursor = table.rows(&keys).unwrap();
                let mut found = vec![Vec::new(); rows];
                let mut gone: Vec<Rows> = Vec::new();
                while let Some(piece) = table.next(&mut cursor, 1 + rng.below(60)).unwrap() {
                    for (row, request) in piece.requests.values().iter().enumerate() {
                        found[*request as usize].push(value_of(&piece.columns[1..], row));
                    }
                    gone.push(piece.rows);
                }
                for (row, key) in texts.iter().enumerate() {
                    assert_eq!(&found[row], model.get(key).unwrap_or(&Vec::new()), "seed {seed}: {key}");
                }
                if choice == 7 {
                    // All rows of these keys go, one by one.
                    gone.iter().for_each(|rows| table.remove_rows(rows).unwrap());
                    texts.iter().for_each(|key| drop(model.remove(key)));
                }
            }
        }
    }
    bench.table.has_evicted()
}

#[test]
fn a_list_table_is_a_map_of_lists() {
    for seed in 0..15 {
        assert!(!check_list(seed, None, 20 + seed as usize * 20));
    }
}

#[test]
fn a_list_table_is_a_map_of_lists_when_memory_is_short() {
    let evicted = (0..20).filter(|seed| check_list(*seed, Some(300 << 10), 900));
    assert!(evicted.count() >= 10, "memory was not short");
}

#[test]
fn a_map_table_is_a_map_of_maps() {
    for seed in 0..15 {
        let mut rng = Rng::seeded(seed);
        let (key, value) = schema_columns();
        let schema = TableSchema::map(key, vec![field("sub", DataType::Utf8)], value);
        let mut bench = Bench::new(schema, (seed % 2 == 0).then_some(250 << 10));
        let mut model: HashMap<String, Written> = HashMap::new();
        for _ in 0..200 {
            let rows = 1 + rng.below(40);
            let keys = keys(&mut rng, rows, 400);
            let sub_keys: StringArray = (0..rows).map(|_| Some("sub".repeat(rng.below(4)))).collect();
            let sub_keys: Vec<ArrayRef> = vec![Arc::new(sub_keys)];
            let texts: Vec<_> = (0..rows).map(|row| key_text(&keys, row) + &text(&sub_keys, row)).collect();
            match rng.below(5) {
                0 | 1 => {
                    let values = values(&mut rng, rows);
                    bench.table.put(&keys, &sub_keys, &values).unwrap();
                    texts
                        .iter()
                        .enumerate()
                        .for_each(|(row, key)| drop(model.insert(key.clone(), value_of(&values, row))));
                }
                2 => {
                    let found = bench.table.load_rows(&keys, &sub_keys).unwrap();
                    bench.table.remove_rows(&found).unwrap();
                    texts.iter().for_each(|key| drop(model.remove(key)));
                }
                3 => bench.barrier(&mut rng),
                _ => {
                    let found = bench.table.load_rows(&keys, &sub_keys).unwrap();
                    let columns = bench.table.read_rows(&found).unwrap();
                    for (row, key) in texts.iter().enumerate() {
                        assert_eq!(found.is_present(row), model.contains_key(key), "seed {seed}: {key}");
                        let expected = model.get(key).cloned().unwrap_or((None, None));
                        assert_eq!(value_of(&columns[1..], row), expected, "seed {seed}: {key}");
                    }
                }
            }
        }
    }
}

#[test]
fn one_hot_key_is_read_in_pieces() {
    let schema = TableSchema::list(vec![field("k", DataType::Int64)], vec![field("v", DataType::Int64)]);
    let mut table = Bench::new(schema, None).table;
    let key: ArrayRef = Arc::new(Int64Array::from(vec![7; 1000]));
    for batch in 0..50 {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(batch * 1000..(batch + 1) * 1000));
        table.append(&[Arc::clone(&key)], &[values]).unwrap();
    }
    let mut cursor = table.rows(&[key.slice(0, 1)]).unwrap();
    let (mut next, mut pieces) = (0, 0);
    while let Some(piece) = table.next(&mut cursor, 777).unwrap() {
        let values = piece.columns[1].as_primitive::<Int64Type>();
        assert!(values.len() <= 777 && values.values().iter().copied().eq(next..next + values.len() as i64));
        (next, pieces) = (next + values.len() as i64, pieces + 1);
        // A barrier in between removes nothing, so reading goes on.
        table.seal().unwrap();
    }
    assert_eq!((next, pieces), (50_000, 65));
}

#[test]
fn a_limit_below_one_batch_says_the_minimum() {
    let schema = TableSchema::value(vec![field("k", DataType::Int64)], vec![field("v", DataType::Int64)]);
    let mut table = Bench::new(schema, Some(20_000)).table;
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..8192));
    let error = table.upsert(&[Arc::clone(&keys)], &[keys]).unwrap_err();
    assert_eq!(error.kind(), ruslo_core::error::ErrorKind::Resource);
    assert!(error.to_string().contains("below the minimum: the rows of one batch in table 't' need"), "{error}");
}

#[test]
fn what_was_sealed_and_not_written_is_written_before_the_next_is_sealed() {
    let schema = TableSchema::value(vec![field("k", DataType::Int64)], vec![field("v", DataType::Int64)]);
    let mut bench = Bench::new(schema, Some(1 << 20));
    let key: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let mut sealed = Vec::new();
    for value in [10, 20, 30] {
        bench.table.upsert(&[Arc::clone(&key)], &[Arc::new(Int64Array::from(vec![value]))]).unwrap();
        sealed.push(bench.table.seal().unwrap());
    }
    // However late and in whichever order the checkpoints come to it.
    for sealed in sealed.iter().rev() {
        sealed.settle().unwrap();
    }
    let hashes = ruslo_core::key_group::hash_rows(std::slice::from_ref(&key), 1).unwrap();
    let found = bench.below.find(&hashes, &[key]).unwrap();
    assert_eq!(found.rows.column(1).as_primitive::<Int64Type>().values(), &[30]);
}

#[test]
fn what_cannot_be_a_key_is_refused_at_once() {
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    let refused = |key: Vec<FieldRef>| {
        let memory = MemoryPool::unbounded().reserve("t");
        ResidentTable::new("t", TableSchema::value(key, Vec::new()), 0..KEY_GROUPS, memory, None).unwrap_err()
    };
    assert!(refused(vec![field("k", list)]).to_string().contains("cannot be a key"));
    assert!(refused(Vec::new()).to_string().contains("has no key"));
}

/// Each batch asks for many of the keys that fit, few of which are there.
#[test]
fn a_batch_that_fits_is_never_pushed_out_by_itself() {
    let schema = TableSchema::value(vec![field("k", DataType::Int64)], vec![field("v", DataType::Int64)]);
    let mut table = Bench::new(schema, Some(400 << 10)).table;
    let (mut rng, mut model) = (Rng::seeded(9), HashMap::new());
    for _ in 0..60 {
        let keys: Vec<i64> = (0..1500).map(|_| rng.below(12_000) as i64).collect();
        let deltas: Int64Array = keys.iter().map(|key| Some(key % 7)).collect();
        keys.iter().for_each(|key| *model.entry(*key).or_insert(0) += key % 7);
        table.add(&[Arc::new(Int64Array::from(keys))], 0, &deltas).unwrap();
    }
    assert!(table.has_evicted() && table.resident_keys() < 6_000, "{}", table.resident_keys());
    for keys in model.keys().copied().collect::<Vec<_>>().chunks(1000) {
        let found = table.get(&[Arc::new(Int64Array::from(keys.to_vec()))]).unwrap();
        let sums = found.columns[0].as_primitive::<Int64Type>();
        assert!(keys.iter().zip(sums.values()).all(|(key, sum)| model[key] == *sum));
    }
}

#[test]
fn a_sum_beyond_bigint_is_the_datas_fault_and_old_handles_are_refused() {
    let schema = TableSchema::value(vec![field("k", DataType::Int64)], vec![field("v", DataType::Int64)]);
    let mut table = Bench::new(schema, None).table;
    let key: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    table.add(&[Arc::clone(&key)], 0, &Int64Array::from(vec![i64::MAX])).unwrap();
    let error = table.add(&[Arc::clone(&key)], 0, &Int64Array::from(vec![1])).unwrap_err();
    assert_eq!(error.kind(), ruslo_core::error::ErrorKind::Data);
    let rows = table.load(&[Arc::clone(&key)]).unwrap();
    table.remove(&[key]).unwrap();
    assert_eq!(table.read(&rows).unwrap_err().kind(), Error::internal("").kind());
}

fn every_type() -> Vec<DataType> {
    use arrow::datatypes::{IntervalUnit, TimeUnit};
    vec![
        DataType::Boolean,
        DataType::Int8,
        DataType::UInt16,
        DataType::Int32,
        DataType::Float32,
        DataType::Float64,
        DataType::Date32,
        DataType::Time64(TimeUnit::Nanosecond),
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Decimal128(38, 3),
        DataType::Utf8,
        DataType::LargeUtf8,
        DataType::Utf8View,
        DataType::Binary,
        DataType::BinaryView,
        DataType::List(Arc::new(Field::new("item", DataType::Int64, true))),
        DataType::Struct(vec![Field::new("a", DataType::Utf8, true), Field::new("b", DataType::Int32, true)].into()),
    ]
}

/// Six values of a type, among them NULLs and an empty or a zero.
fn six_values(data_type: &DataType) -> ArrayRef {
    let texts = StringArray::from(vec![Some("1"), None, Some("0"), Some("1234"), Some("12345"), Some("77")]);
    let whole: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(0), Some(123), Some(45), Some(77)]));
    let small = || arrow::compute::cast(&whole, &DataType::Int32).unwrap();
    match data_type {
        DataType::Struct(fields) => {
            let columns = vec![Arc::new(texts.clone()) as ArrayRef, small()];
            Arc::new(arrow::array::StructArray::new(fields.clone(), columns, texts.nulls().cloned()))
        }
        DataType::List(_) => {
            let lists =
                [Some(vec![Some(1), None]), None, Some(vec![]), Some(vec![Some(3)]), None, Some(vec![Some(9); 40])];
            Arc::new(arrow::array::ListArray::from_iter_primitive::<Int64Type, _, _>(lists))
        }
        DataType::Interval(_) => Arc::new(arrow::array::IntervalMonthDayNanoArray::from_iter(
            [Some(1), None, Some(0), Some(-5), Some(9), Some(1)]
                .map(|n| n.map(|n| arrow::datatypes::IntervalMonthDayNano::new(n, -n, i64::from(n) << 40))),
        )),
        DataType::Date32 => arrow::compute::cast(&small(), data_type).unwrap(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary | DataType::BinaryView => {
            arrow::compute::cast(&texts, data_type).unwrap()
        }
        _ => arrow::compute::cast(&whole, data_type).unwrap(),
    }
}

#[test]
fn every_type_comes_back_as_it_was() {
    let types = every_type();
    let arrays: Vec<ArrayRef> = types.iter().map(six_values).collect();
    let fields = types.iter().enumerate().map(|(n, data_type)| field(&format!("c{n}"), data_type.clone())).collect();
    let schema = TableSchema::value(vec![field("k", DataType::Int64)], fields);
    let mut table = Bench::new(schema, None).table;
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..6));
    table.upsert(&[Arc::clone(&keys)], &arrays).unwrap();
    let found = table.get(&[keys]).unwrap();
    for (found, written) in found.columns.iter().zip(&arrays) {
        assert_eq!(found.to_data(), written.to_data());
    }
    let sealed = table.seal().unwrap().rows();
    let rows: usize = sealed.iter().map(DirtyRows::len).sum();
    assert_eq!(rows, 6);
    let last: ArrayRef = Arc::new(Int64Array::from(vec![5, 99]));
    let found = table.get(&[last]).unwrap();
    assert!(
        found.columns.iter().zip(&arrays).all(|(found, all)| found.slice(0, 1).to_data() == all.slice(5, 1).to_data())
    );
    assert!(found.columns.iter().all(|column| column.is_null(1)));
}

#[test]
fn a_restored_table_goes_on_at_another_parallelism() {
    let (key, value) = schema_columns();
    let mut rng = Rng::seeded(3);
    let mut whole = Bench::new(TableSchema::list(key.clone(), value.clone()), None).table;
    let keys = keys(&mut rng, 500, 200);
    let values = values(&mut rng, 500);
    whole.append(&keys, &values).unwrap();
    let sealed = whole.seal().unwrap().rows();
    let mut seen = 0;
    for index in 0..3 {
        let owned = ruslo_core::key_group::range_of(index, 3);
        let memory = MemoryPool::unbounded().reserve("t");
        let schema = TableSchema::list(key.clone(), value.clone());
        let mut part = ResidentTable::new("t", schema, owned.clone(), memory, None).unwrap();
        for piece in &sealed {
            let mine: Vec<u32> = (0..piece.len() as u32)
                .filter(|row| owned.contains(&((piece.hashes[*row as usize] % u64::from(KEY_GROUPS)) as u16)))
                .collect();
            let rows = take_record_batch(&piece.rows[0], &UInt32Array::from(mine.clone())).unwrap();
            part.restore(vec![0; mine.len()], rows).unwrap();
        }
        let mine: Vec<u32> = (0..500)
            .filter(|row| owned.contains(&ruslo_core::key_group::key_groups(&keys, 500).unwrap()[*row as usize]))
            .collect();
        let places = UInt32Array::from(mine);
        let wanted: Vec<ArrayRef> =
            keys.iter().map(|column| arrow::compute::take(column, &places, None).unwrap()).collect();
        let mut cursor = part.rows(&wanted).unwrap();
        while let Some(piece) = part.next(&mut cursor, 100).unwrap() {
            for row in 0..piece.requests.len() {
                let request = piece.requests.value(row) as usize;
                let all = whole.rows(&wanted.iter().map(|column| column.slice(request, 1)).collect::<Vec<_>>());
                let all = whole.next(&mut all.unwrap(), 1000).unwrap().unwrap();
                let value = value_of(&piece.columns[1..], row);
                assert!((0..all.requests.len()).any(|other| value_of(&all.columns[1..], other) == value));
                seen += 1;
            }
        }
        assert!(part.seal().unwrap().rows().is_empty(), "what is restored is not dirty");
    }
    assert!(seen >= 500);
}
