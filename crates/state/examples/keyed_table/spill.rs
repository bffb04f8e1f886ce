//! Tables that are larger than memory: read, changed and written in batches, by keys some of which come often; and keys
//! that come once.

use arrow::compute::kernels::numeric::add;
use ruslo_core::keyed::KeyedTable as _;
use ruslo_core::rng::Rng;
use ruslo_state::runs::TableSchema;

use crate::common::{BATCH_ROWS, OnDisk, Watch, array, column, peak_mib};

/// With the key 104 bytes a row.
const VALUES: usize = 12;

/// Numbers from 0, the first the most frequent (Gray and others: *Quickly generating billion-record synthetic databases*).
struct Zipf {
    count: f64,
    zeta: f64,
    theta: f64,
    eta: f64,
}

impl Zipf {
    fn new(count: usize, theta: f64) -> Self {
        let zeta: f64 = (1..=count).map(|rank| (rank as f64).powf(-theta)).sum();
        let zeta_two = 1.0 + 0.5f64.powf(theta);
        let eta = (1.0 - (2.0 / count as f64).powf(1.0 - theta)) / (1.0 - zeta_two / zeta);
        Self { count: count as f64, zeta, theta, eta }
    }

    fn next(&self, rng: &mut Rng) -> usize {
        let uniform = rng.next_u64() as f64 / u64::MAX as f64;
        let scaled = uniform * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5f64.powf(self.theta) {
            return 1;
        }
        let rank = self.count * (self.eta * uniform - self.eta + 1.0).powf(1.0 / (1.0 - self.theta));
        (rank as usize).min(self.count as usize - 1)
    }
}

/// Spreads ranks over the numbers: frequent keys are not neighbours.
fn key_of(rank: usize) -> i64 {
    (rank as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) as i64
}

pub(crate) fn run(keys: usize, limit_mib: u64, rows: usize) {
    let values = (0..VALUES).map(|n| column(&format!("v{n}"))).collect();
    let limit = (limit_mib > 0).then_some(limit_mib << 20);
    let mut bench = OnDisk::new("spill", TableSchema::value(vec![column("k")], values), limit);
    let zipf = Zipf::new(keys, 0.99);
    let (mut rng, mut fill, mut change) = (Rng::seeded(3), Watch::default(), Watch::default());
    for first in (0..keys).step_by(BATCH_ROWS) {
        let batch: Vec<i64> = (first..keys.min(first + BATCH_ROWS)).map(key_of).collect();
        let zeros = array(vec![0; batch.len()]);
        fill.time(batch.len(), || {
            bench.table.upsert(&[array(batch)], &vec![zeros; VALUES]).unwrap();
        });
    }
    println!("filled: {:.2} M rows/s", fill.rate());
    bench.tell();
    let ones = array(vec![1; BATCH_ROWS]);
    let batches = rows / BATCH_ROWS;
    for batch in 0..batches {
        let ranks: Vec<i64> = (0..BATCH_ROWS).map(|_| key_of(zipf.next(&mut rng))).collect();
        change.time(BATCH_ROWS, || {
            let (handles, added) = bench.table.load_or_insert(&[array(ranks)]).unwrap();
            assert!(!added.contains(&true), "a key was lost");
            let mut columns = bench.table.read(&handles).unwrap();
            columns.iter_mut().for_each(|column| *column = add(column, &ones).unwrap());
            bench.table.write(&handles, &columns).unwrap();
        });
        if batch % (batches / 8).max(1) == 0 {
            println!("  {:.1} M rows: {:.3} M/s", (batch * BATCH_ROWS) as f64 / 1e6, change.cpu_rate());
            bench.tell();
        }
    }
    println!(
        "spill: {:.3} M rows/s ({:.3} M of a processor's time) under {limit_mib} MiB (0: no limit), peak {} MiB",
        change.rate(),
        change.cpu_rate(),
        peak_mib()
    );
    bench.tell();
}

pub(crate) fn dedup(keys: usize, limit_mib: u64) {
    let mut bench = OnDisk::new("dedup", TableSchema::value(vec![column("k")], Vec::new()), Some(limit_mib << 20));
    let (mut rng, mut watch) = (Rng::seeded(4), Watch::default());
    let batches = keys.div_ceil(BATCH_ROWS);
    for batch in 0..batches {
        let first = batch * BATCH_ROWS;
        let new: Vec<i64> = (first..keys.min(first + BATCH_ROWS)).map(key_of).collect();
        let rows = new.len();
        let (_, added) = watch.time(rows, || bench.table.load_or_insert(&[array(new)]).unwrap());
        assert!(added.iter().all(|added| *added), "a new key was taken for an old one");
        if batch % 16 == 15 {
            let old: Vec<i64> = (0..BATCH_ROWS).map(|_| key_of(rng.below(first))).collect();
            let (_, added) = watch.time(BATCH_ROWS, || bench.table.load_or_insert(&[array(old)]).unwrap());
            assert!(!added.contains(&true), "an old key was taken for a new one");
        }
        if batch % (batches / 10).max(1) == 0 {
            println!("  {} M keys: {:.2} M rows/s", first / 1_000_000, watch.rate());
            bench.tell();
        }
    }
    let some = bench.table.get(&[array(vec![key_of(0), 5])]).unwrap();
    assert_eq!(some.present.unwrap().null_count(), 1);
    println!("dedup: {keys} keys at {:.2} M rows/s ({:.2} M of a processor's time)", watch.rate(), watch.cpu_rate());
    bench.tell();
}
