//! A join of two sides on a key, in two keyed tables and in two plain hash tables of vectors: the same batches, in one run.

use std::collections::HashMap;

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::take;
use arrow::datatypes::Int64Type;
use ruslo_core::keyed::KeyedTable as _;
use ruslo_core::rng::Rng;
use ruslo_state::runs::TableSchema;

use crate::common::{BATCH_ROWS, Folding, OnDisk, Watch, array, column, peak_mib};

type Side = HashMap<i64, Vec<i64>, Folding>;

pub(crate) fn run(keys: usize, rows: usize) {
    let mut rng = Rng::seeded(2);
    let side = |name| OnDisk::new(name, TableSchema::list(vec![column("k")], vec![column("v")]), None);
    let mut tables = [side("left"), side("right")];
    let mut raw = [Side::default(), Side::default()];
    let (mut ours, mut theirs) = (Watch::default(), Watch::default());
    let (mut sum, mut raw_sum, mut results) = (0i64, 0i64, 0);
    for batch in 0..rows / BATCH_ROWS {
        let own = batch % 2;
        let wanted: Vec<i64> = (0..BATCH_ROWS).map(|_| rng.below(keys) as i64).collect();
        let values: Vec<i64> = (0..BATCH_ROWS).map(|_| rng.next_u64() as i64).collect();
        let (key_column, value_column) = (array(wanted.clone()), array(values.clone()));
        let joined = theirs.time(BATCH_ROWS, || join_raw(&mut raw, own, &wanted, &values));
        let found = ours.time(BATCH_ROWS, || join_tables(&mut tables, own, &key_column, &value_column));
        raw_sum = joined.iter().fold(raw_sum, |sum, [key, mine, other]| sum.wrapping_add(key ^ mine ^ other));
        for [key, mine, other] in &found {
            let columns = [key, mine, other].map(|column| column.as_primitive::<Int64Type>().values());
            results += columns[0].len();
            for ((key, mine), other) in columns[0].iter().zip(columns[1].iter()).zip(columns[2].iter()) {
                sum = sum.wrapping_add(key ^ mine ^ other);
            }
        }
        if batch % (rows / BATCH_ROWS / 8).max(1) == 0 {
            println!(
                "  {} M rows: {:.1} M/s, raw {:.1} M/s",
                batch * BATCH_ROWS / 1_000_000,
                ours.rate(),
                theirs.rate()
            );
        }
    }
    assert_eq!(sum, raw_sum, "the joins differ");
    let share = ours.cpu_rate() / theirs.cpu_rate() * 100.0;
    println!(
        "join: {:.1} M rows/s, raw {:.1} M rows/s of a processor's time: {share:.0} %",
        ours.cpu_rate(),
        theirs.cpu_rate()
    );
    let bytes: u64 = tables.iter().map(|side| side.table.bytes()).sum();
    println!("  {results} results, tables {} MiB, peak {} MiB with both", bytes >> 20, peak_mib());
}

fn join_raw(sides: &mut [Side; 2], own: usize, keys: &[i64], values: &[i64]) -> Vec<[i64; 3]> {
    let mut joined = Vec::new();
    for (key, value) in keys.iter().zip(values) {
        sides[own].entry(*key).or_default().push(*value);
        let others = sides[1 - own].get(key).map(Vec::as_slice).unwrap_or_default();
        joined.extend(others.iter().map(|other| [*key, *value, *other]));
    }
    joined
}

fn join_tables(sides: &mut [OnDisk; 2], own: usize, keys: &ArrayRef, values: &ArrayRef) -> Vec<[ArrayRef; 3]> {
    sides[own].table.append(std::slice::from_ref(keys), std::slice::from_ref(values)).unwrap();
    let other = &mut sides[1 - own].table;
    let mut cursor = other.rows(std::slice::from_ref(keys)).unwrap();
    let mut joined = Vec::new();
    while let Some(piece) = other.next(&mut cursor, BATCH_ROWS).unwrap() {
        let mine = |column| take(column, &piece.requests, None).unwrap();
        joined.push([mine(keys), mine(values), piece.columns[1].clone()]);
    }
    joined
}
