//! Keys with very many rows: against plain maps, and that nobody goes through all rows of a key to find one.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Int64Type};
use ruslo_core::keyed::{End, KeyedTable, Rows};
use ruslo_core::rng::Rng;

use super::ResidentTable;
use super::model::{Bench, field};
use crate::runs::TableSchema;

/// Key and sub-key: a number and a text of any length, each of which may be NULL.
type Place = (i64, Option<i64>, Option<String>);

fn places(rng: &mut Rng, keys: usize, universe: usize) -> Vec<Place> {
    let text = |n: usize| {
        [None, Some(String::new()), Some("abcd".to_owned()), Some(format!("a longer text {n}"))][n % 4].clone()
    };
    let number = |n: usize| (!n.is_multiple_of(7)).then_some((n / 5) as i64 - 3);
    let rows = 1 + rng.below(200);
    // A batch is of few keys, so that all their rows fit in memory at once.
    let first = rng.below(keys);
    let place = |_| {
        let n = rng.below(universe);
        (((first + rng.below(3)) % keys) as i64, number(n), text(n))
    };
    (0..rows).map(place).collect()
}

fn columns(places: &[Place]) -> (Vec<ArrayRef>, Vec<ArrayRef>) {
    let keys: ArrayRef = Arc::new(places.iter().map(|place| Some(place.0)).collect::<Int64Array>());
    let numbers: ArrayRef = Arc::new(places.iter().map(|place| place.1).collect::<Int64Array>());
    let texts: ArrayRef = Arc::new(places.iter().map(|place| place.2.clone()).collect::<StringArray>());
    (vec![keys], vec![numbers, texts])
}

fn place_at(key: i64, columns: &[ArrayRef], row: usize) -> Place {
    let (numbers, texts) = (columns[0].as_primitive::<Int64Type>(), columns[1].as_string::<i32>());
    let number = numbers.is_valid(row).then(|| numbers.value(row));
    (key, number, texts.is_valid(row).then(|| texts.value(row).to_owned()))
}

fn schema() -> TableSchema {
    let sub_key = vec![field("n", DataType::Int64), field("s", DataType::Utf8)];
    let falling = SortOptions { descending: true, nulls_first: false };
    TableSchema::map(vec![field("k", DataType::Int64)], sub_key, vec![field("v", DataType::Int64)])
        .with_order(Some(vec![(0, falling)]))
}

/// Every row of a key, and the handles to them.
fn scan(table: &mut ResidentTable, key: i64, rows_max: usize) -> (BTreeMap<Place, i64>, Vec<Rows>) {
    let (mut found, mut handles) = (BTreeMap::new(), Vec::new());
    let mut cursor = table.rows(&[Arc::new(Int64Array::from(vec![key])) as ArrayRef]).unwrap();
    while let Some(piece) = table.next(&mut cursor, rows_max).unwrap() {
        let values = piece.columns[2].as_primitive::<Int64Type>();
        for row in 0..piece.requests.len() {
            let other = found.insert(place_at(key, &piece.columns, row), values.value(row));
            assert!(other.is_none(), "a row is there twice");
        }
        handles.push(piece.rows);
    }
    (found, handles)
}

/// The first or last places of a key: by falling number, NULL behind, then by rising text, NULL in front.
fn ends(model: &BTreeMap<Place, i64>, key: i64, end: End, most: usize) -> Vec<Place> {
    let mut of_key: Vec<Place> = model.keys().filter(|place| place.0 == key).cloned().collect();
    of_key.sort_by_key(|place| (Reverse(place.1), place.2.clone()));
    if end == End::Last {
        of_key.reverse();
    }
    of_key.truncate(most);
    of_key
}

/// That the indexes have the rows of keys that have many, and no others.
fn check_index(table: &ResidentTable) {
    let indexed = (0..table.chains.end()).filter(|row| {
        let header = table.chains.word(*row, 0);
        let is_left = table.schema.by_value && header & super::DELETED != 0;
        !is_left
            && header & super::FREE == 0
            && table.is_indexed(table.chains.word(*row, super::chain::OWNER_AT) as u32)
    });
    assert_eq!(indexed.count(), table.groups.iter().map(|group| group.rows.len()).sum::<usize>());
    let bytes: u64 = table.groups.iter().map(|group| group.rows.bytes() + group.index.bytes()).sum();
    assert_eq!(bytes, table.index_bytes, "bytes of indexes");
    assert!(table.sorted_rows() <= table.chains.len());
}

fn check(seed: u64, mut bench: Bench, keys: usize, universe: usize) -> bool {
    let mut rng = Rng::seeded(seed);
    let mut model: BTreeMap<Place, i64> = BTreeMap::new();
    for step in 0..150 {
        let places = places(&mut rng, keys, universe);
        let (key_columns, sub_keys) = columns(&places);
        let table = &mut bench.table;
        match rng.below(10) {
            0..=2 => {
                let values: Vec<i64> = (0..places.len()).map(|_| rng.below(1000) as i64).collect();
                table.put(&key_columns, &sub_keys, &[Arc::new(Int64Array::from(values.clone()))]).unwrap();
                model.extend(places.into_iter().zip(values));
            }
            3 | 4 => {
                let found = table.load_rows(&key_columns, &sub_keys).unwrap();
                table.remove_rows(&found).unwrap();
                // And some of them come back at once.
                let back = places.len() / 3;
                let part = |columns: &[ArrayRef]| columns.iter().map(|c| c.slice(0, back)).collect::<Vec<_>>();
                let values: ArrayRef = Arc::new(Int64Array::from_value(step, back));
                table.put(&part(&key_columns), &part(&sub_keys), &[values]).unwrap();
                model.retain(|place, _| !places.contains(place));
                model.extend(places.into_iter().take(back).map(|place| (place, step)));
            }
            5 if rng.one_in(4) => {
                let key = rng.below(keys) as i64;
                table.remove(&[Arc::new(Int64Array::from(vec![key]))]).unwrap();
                model.retain(|place, _| place.0 != key);
            }
            6 => bench.barrier(&mut rng),
            8 => {
                let wanted: Vec<i64> = (0..3).map(|n| (places[0].0 + n) % keys as i64).collect();
                let end = if rng.one_in(2) { End::First } else { End::Last };
                let most: Vec<u32> = wanted.iter().map(|_| rng.below(9) as u32).collect();
                let piece = table.ends(&[Arc::new(Int64Array::from(wanted.clone()))], end, &most).unwrap();
                let expected = wanted.iter().zip(&most).flat_map(|(key, most)| ends(&model, *key, end, *most as usize));
                let found = piece.requests.values().iter().enumerate();
                let found = found.map(|(row, n)| place_at(wanted[*n as usize], &piece.columns, row));
                assert!(found.eq(expected), "seed {seed}: {end:?} {most:?} of {wanted:?}");
                if rng.one_in(2) {
                    let gone: Vec<_> = wanted
                        .iter()
                        .zip(&most)
                        .flat_map(|(key, most)| ends(&model, *key, end, *most as usize))
                        .collect();
                    table.remove_rows(&piece.rows).unwrap();
                    model.retain(|place, _| !gone.contains(place));
                }
            }
            7 => {
                let key = rng.below(keys) as i64;
                let (found, handles) = scan(table, key, 1 + rng.below(100));
                let expected = model.iter().filter(|(place, _)| place.0 == key);
                assert!(found.iter().eq(expected), "seed {seed}: rows of key {key}");
                if rng.one_in(3) {
                    handles.iter().for_each(|rows| table.remove_rows(rows).unwrap());
                    model.retain(|place, _| place.0 != key);
                }
            }
            _ => {
                let found = table.load_rows(&key_columns, &sub_keys).unwrap();
                let columns = table.read_rows(&found).unwrap();
                let values = columns[2].as_primitive::<Int64Type>();
                for (row, place) in places.iter().enumerate() {
                    let value = found.is_present(row).then(|| values.value(row));
                    assert_eq!(value, model.get(place).copied(), "seed {seed}: {place:?}");
                }
            }
        }
        check_index(&bench.table);
    }
    bench.table.has_evicted()
}

#[test]
fn a_map_of_long_chains_is_a_map_of_maps() {
    for seed in 0..30u64 {
        let (keys, universe) = ([1, 3, 40][seed as usize % 3], [30, 400, 1500][seed as usize / 10]);
        assert!(!check(seed, Bench::new(schema(), None), keys, universe));
    }
}

#[test]
fn a_map_of_long_chains_is_a_map_of_maps_when_memory_is_short() {
    let evicted = (0..30).filter(|seed| check(*seed, Bench::new(schema(), Some(400 << 10)), 150, 150));
    assert!(evicted.count() >= 5, "memory was not short");
}

#[test]
fn a_map_of_long_chains_is_a_map_of_maps_over_runs_on_disk() {
    let check_on_disk = |seed: &u64| {
        let folder = tempfile::tempdir().unwrap();
        check(*seed, Bench::on_disk(schema(), 500 << 10, folder.path()), 150, 150)
    };
    assert!((100..112).filter(check_on_disk).count() >= 2, "memory was not short");
}

/// Rows looked at by `call`.
fn steps(table: &mut ResidentTable, call: impl FnOnce(&mut ResidentTable)) -> u64 {
    let before = table.steps.get();
    call(table);
    table.steps.get() - before
}

fn numbered(from: i64, rows: usize) -> Vec<ArrayRef> {
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + rows as i64));
    let texts: ArrayRef = Arc::new((0..rows).map(|_| Some("the same text for all")).collect::<StringArray>());
    vec![numbers, texts]
}

/// Twenty thousand rows of one key: each call looks at few rows for each that it is asked for.
#[test]
fn a_row_is_found_among_very_many_of_its_key() {
    const ROWS: usize = 1000;
    const PER_ROW: u64 = 6;
    let mut bench = Bench::new(schema(), Some(1 << 26));
    let key = [Arc::new(Int64Array::from_value(7, ROWS)) as ArrayRef];
    let value: ArrayRef = Arc::new(Int64Array::from_value(1, ROWS));
    for round in 0..3 {
        for from in (0..20_000).step_by(ROWS) {
            let sub_keys = numbered(from, ROWS);
            let table = &mut bench.table;
            let put = steps(table, |table| table.put(&key, &sub_keys, &[Arc::clone(&value)]).unwrap());
            let found = steps(table, |table| {
                let found = table.load_rows(&key, &sub_keys).unwrap();
                assert!(found.present().is_none());
                if round == 1 {
                    table.remove_rows(&found).unwrap();
                }
            });
            let sealed = steps(table, |table| drop(table.seal().unwrap()));
            let most = PER_ROW * ROWS as u64;
            assert!(put.max(found).max(sealed) <= most, "round {round}, {from}: {put} {found} {sealed}");
        }
    }
    assert_eq!(scan(&mut bench.table, 7, 1000).0.len(), 20_000);
}

/// Rows of a list by their values: equal ones from the last on.
fn check_equal(seed: u64, limit_bytes: Option<u64>) -> bool {
    let mut rng = Rng::seeded(seed);
    let values = vec![field("n", DataType::Int64), field("s", DataType::Utf8)];
    let list = TableSchema::list(vec![field("k", DataType::Int64)], values).found_by_value();
    let mut bench = Bench::new(list, limit_bytes);
    let keys = if limit_bytes.is_some() { 200 } else { 4 };
    let mut model: BTreeMap<i64, Vec<Place>> = BTreeMap::new();
    for _ in 0..120 {
        let places = places(&mut rng, keys, [20, 300][seed as usize % 2]);
        let (key_columns, values) = columns(&places);
        match rng.below(5) {
            0 | 1 => {
                bench.table.append(&key_columns, &values).unwrap();
                places.into_iter().for_each(|place| model.entry(place.0).or_default().push(place));
            }
            2 => {
                let found = bench.table.load_equal(&key_columns, &values).unwrap();
                bench.table.remove_rows(&found).unwrap();
                for (row, place) in places.iter().enumerate() {
                    let of_key = model.entry(place.0).or_default();
                    let last = of_key.iter().rposition(|other| other == place);
                    assert_eq!(found.is_present(row), last.is_some(), "seed {seed}: {place:?}");
                    last.into_iter().for_each(|last| drop(of_key.remove(last)));
                }
            }
            3 => bench.barrier(&mut rng),
            _ => {
                let end = if rng.one_in(2) { End::First } else { End::Last };
                let piece = bench.table.ends(&[key_columns[0].slice(0, 1)], end, &[5]).unwrap();
                let mut expected = model.get(&places[0].0).cloned().unwrap_or_default();
                if end == End::Last {
                    expected.reverse();
                }
                expected.truncate(5);
                let found = (0..piece.requests.len()).map(|row| place_at(places[0].0, &piece.columns[1..], row));
                assert!(found.eq(expected), "seed {seed}: {end:?}");
            }
        }
        check_index(&bench.table);
    }
    bench.table.has_evicted()
}

#[test]
fn a_row_of_a_list_is_found_by_its_values() {
    (0..20).for_each(|seed| assert!(!check_equal(seed, None)));
    assert!((0..20).filter(|seed| check_equal(*seed, Some(300 << 10))).count() >= 5, "memory was not short");
}

/// The first and the last row of a key with very many are found one after the other as they go.
#[test]
fn the_next_of_very_many_rows_is_found_without_reading_them() {
    const ROWS: usize = 20_000;
    let mut bench = Bench::new(schema(), Some(1 << 26));
    let key = [Arc::new(Int64Array::from_value(7, ROWS)) as ArrayRef];
    let value: ArrayRef = Arc::new(Int64Array::from_value(1, ROWS));
    bench.table.put(&key, &numbered(0, ROWS), &[value]).unwrap();
    let one = [key[0].slice(0, 1)];
    let number = |table: &mut ResidentTable, end| {
        let piece = table.ends(&one, end, &[1]).unwrap();
        table.remove_rows(&piece.rows).unwrap();
        piece.columns[0].as_primitive::<Int64Type>().value(0)
    };
    let steps = steps(&mut bench.table, |table| {
        for n in 0..ROWS as i64 / 2 {
            assert_eq!(number(table, End::First), ROWS as i64 - 1 - n);
            assert_eq!(number(table, End::Last), n);
            if n % 1000 == 0 {
                table.seal().unwrap();
            }
        }
    });
    assert!(steps <= 10 * ROWS as u64, "{steps}");
    assert_eq!(bench.table.ends(&one, End::First, &[1]).unwrap().rows.slots().len(), 0);
}

/// What was removed is not gone through again before a barrier comes.
#[test]
fn rows_that_are_gone_are_in_nobodys_way() {
    let one = [Arc::new(Int64Array::from_value(7, 1)) as ArrayRef];
    let list = TableSchema::list(vec![field("k", DataType::Int64)], vec![field("v", DataType::Int64)]);
    let (mut list, mut map) = (Bench::new(list, None).table, Bench::new(schema(), None).table);
    map.put(
        &[Arc::new(Int64Array::from_value(7, 9)) as ArrayRef],
        &numbered(-9, 9),
        &[Arc::new(Int64Array::from_value(0, 9))],
    )
    .unwrap();
    let walk = |table: &mut ResidentTable, add: &dyn Fn(&mut ResidentTable)| {
        add(table);
        let mut cursor = table.rows(&one).unwrap();
        let mut last = None;
        while let Some(piece) = table.next(&mut cursor, 100).unwrap() {
            last = Some(piece.rows);
        }
        let last = last.unwrap();
        let newest = Rows::new(vec![*last.slots().last().unwrap()], last.generation());
        table.remove_rows(&newest).unwrap();
    };
    for number in 0..5_000 {
        let value: ArrayRef = Arc::new(Int64Array::from(vec![number]));
        walk(&mut list, &|table| table.append(&one, &[Arc::clone(&value)]).unwrap());
        walk(&mut map, &|table| table.put(&one, &numbered(number, 1), &[Arc::clone(&value)]).unwrap());
    }
    assert!(list.steps.get() <= 5_000 * 4 && map.steps.get() <= 5_000 * 40, "{:?} {:?}", list.steps, map.steps);
    assert_eq!(scan(&mut map, 7, 100).0.len(), 9);
    check_index(&map);
}
