//! What the subcommands share: a table, batches, the clock and this process's memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use ruslo_core::disk::LocalDisk;
use ruslo_core::key_group::KEY_GROUPS;
use ruslo_core::memory::MemoryPool;
use ruslo_state::resident::ResidentTable;
use ruslo_state::runs::{RunSet, TableSchema, WorkFolder};

/// Rows of a batch.
pub(crate) const BATCH_ROWS: usize = 8192;

pub(crate) fn column(name: &str) -> FieldRef {
    Arc::new(Field::new(name, DataType::Int64, false))
}

pub(crate) fn array(values: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

/// A table over runs in a folder that is gone with the process; without `limit_bytes` in memory only.
pub(crate) struct OnDisk {
    pub(crate) table: ResidentTable,
    pub(crate) runs: Option<RunSet>,
    folder: Option<PathBuf>,
}

impl OnDisk {
    pub(crate) fn new(name: &str, schema: TableSchema, limit_bytes: Option<u64>) -> Self {
        let pool = MemoryPool::new(limit_bytes.unwrap_or(u64::MAX));
        let memory = pool.reserve_yielding(name);
        let folder = limit_bytes.map(|_| std::env::temp_dir().join(format!("ruslo-{name}-{}", std::process::id())));
        let runs = folder.as_ref().map(|folder| {
            std::fs::create_dir_all(folder).unwrap();
            let work = WorkFolder::new(Arc::new(LocalDisk), folder.clone());
            RunSet::new(name, schema.clone(), 0..KEY_GROUPS, work, pool.reserve("runs")).unwrap()
        });
        let lower = runs.clone().map(|runs| Arc::new(runs) as _);
        Self { table: ResidentTable::new(name, schema, 0..KEY_GROUPS, memory, lower).unwrap(), runs, folder }
    }

    pub(crate) fn tell(&self) {
        let runs = self.runs.as_ref().map_or(0, RunSet::len);
        let disk = self.runs.as_ref().map_or(0, RunSet::disk_bytes) >> 20;
        println!(
            "  resident keys {}, table {} MiB, {runs} runs of {disk} MiB, peak resident memory {} MiB",
            self.table.resident_keys(),
            self.table.bytes() >> 20,
            peak_mib()
        );
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Adds up the time of what is measured.
#[derive(Default)]
pub(crate) struct Watch {
    seconds: f64,
    cpu_seconds: f64,
    rows: usize,
}

impl Watch {
    pub(crate) fn time<T>(&mut self, rows: usize, work: impl FnOnce() -> T) -> T {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let done = work();
        self.seconds += start.elapsed().as_secs_f64();
        self.cpu_seconds += cpu_seconds() - cpu;
        self.rows += rows;
        done
    }

    /// Million rows per second.
    pub(crate) fn rate(&self) -> f64 {
        self.rows as f64 / self.seconds / 1e6
    }

    /// Million rows per second of this thread on a processor: what can be compared on a busy machine.
    pub(crate) fn cpu_rate(&self) -> f64 {
        self.rows as f64 / self.cpu_seconds / 1e6
    }
}

/// How long this thread has been on a processor.
fn cpu_seconds() -> f64 {
    let figures = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    figures.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or_default() / 1e9
}

/// The most memory that this process ever had, in MiB.
pub(crate) fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) >> 10
}

/// The hash of `foldhash::fast` for an i64: one folded multiplication.
#[derive(Default, Clone, Copy)]
pub(crate) struct Fold(u64);

impl std::hash::Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are numbers")
    }

    fn write_i64(&mut self, key: i64) {
        let product = u128::from(key as u64 ^ 0x2437_54B2_9F3A_1C07) * u128::from(0xA409_3822_299F_31D1_u64);
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

/// What `hashbrown` hashes with.
pub(crate) type Folding = std::hash::BuildHasherDefault<Fold>;
