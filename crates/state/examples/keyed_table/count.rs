//! Rows per key, counted in a keyed table and in a plain hash table: the same batches, in one run.

use std::collections::HashMap;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use ruslo_core::keyed::KeyedTable as _;
use ruslo_core::rng::Rng;
use ruslo_state::runs::TableSchema;

use crate::common::{BATCH_ROWS, Folding, OnDisk, Watch, array, column, peak_mib};

pub(crate) fn run(keys: usize, rows: usize) {
    let mut rng = Rng::seeded(1);
    let mut bench = OnDisk::new("count", TableSchema::value(vec![column("k")], vec![column("n")]), None);
    let mut raw: HashMap<i64, i64, Folding> = HashMap::default();
    let (mut ours, mut theirs) = (Watch::default(), Watch::default());
    let ones = Int64Array::from(vec![1; BATCH_ROWS]);
    for batch in 0..rows / BATCH_ROWS {
        let values: Vec<i64> = (0..BATCH_ROWS).map(|_| rng.below(keys) as i64).collect();
        let column = array(values.clone());
        theirs.time(BATCH_ROWS, || values.iter().for_each(|key| *raw.entry(*key).or_insert(0) += 1));
        ours.time(BATCH_ROWS, || bench.table.add(&[column], 0, &ones).unwrap());
        if batch % (rows / BATCH_ROWS / 8).max(1) == 0 {
            println!(
                "  {} M rows: {:.1} M/s, raw {:.1} M/s",
                batch * BATCH_ROWS / 1_000_000,
                ours.rate(),
                theirs.rate()
            );
        }
    }
    let mut sealing = Watch::default();
    let sealed = sealing.time(1, || bench.table.seal().unwrap());
    println!(
        "  sealed: {} keys in {:.0} ms",
        sealed.rows().iter().map(|piece| piece.len()).sum::<usize>(),
        1e-3 / sealing.cpu_rate()
    );
    let all: Vec<i64> = raw.keys().copied().collect();
    for some in all.chunks(BATCH_ROWS) {
        let found = bench.table.get(&[array(some.to_vec())]).unwrap();
        let counts = found.columns[0].as_primitive::<Int64Type>();
        assert!(some.iter().zip(counts.values()).all(|(key, count)| raw[key] == *count), "counts differ");
    }
    assert_eq!(all.len(), bench.table.resident_keys());
    let share = ours.cpu_rate() / theirs.cpu_rate() * 100.0;
    println!(
        "count: {:.1} M rows/s, raw {:.1} M rows/s of a processor's time: {share:.0} %",
        ours.cpu_rate(),
        theirs.cpu_rate()
    );
    println!("  {} keys, table {} MiB, peak {} MiB with both", all.len(), bench.table.bytes() >> 20, peak_mib());
}
