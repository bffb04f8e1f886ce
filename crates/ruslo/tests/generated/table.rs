//! Random tables: nulls, duplicates, ties, times out of order within the watermark's delay.

use std::path::Path;

use arrow::temporal_conversions::timestamp_ms_to_datetime;
use ruslo_core::rng::Rng;

/// 2024-05-01 00:00:00.
const BEGIN_MS: i64 = 1_714_521_600_000;

/// A row of the table `t (k STRING, g INT, v BIGINT, w BIGINT, d DECIMAL(10, 2), ts TIMESTAMP(3))`.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) k: Option<&'static str>,
    pub(crate) g: Option<i64>,
    pub(crate) v: Option<i64>,
    pub(crate) w: Option<i64>,
    /// Hundredths.
    pub(crate) d: Option<i64>,
    /// Milliseconds since 1970.
    pub(crate) ts: i64,
}

/// A table, and how it is declared.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) rows: Vec<Record>,
    delay_ms: i64,
    split: &'static str,
}

impl Table {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let count = [0, 1, 3, 20, 60, 120][rng.below(6)];
        let delay_ms = [1_000, 7_000, 60_000][rng.below(3)];
        let step_ms = [1, 300, 2_000, 20_000][rng.below(4)];
        let mut at = BEGIN_MS;
        let mut rows: Vec<Record> = Vec::new();
        for _ in 0..count {
            at += rng.below(step_ms) as i64;
            if rng.one_in(25) {
                at += 90_000;
            }
            // Less than the delay, so that no row is behind the watermark of those before it.
            let ts = at + rng.below(delay_ms as usize) as i64;
            let twin = rows.last().filter(|_| rng.one_in(12)).map(|last| Record { ts, ..last.clone() });
            rows.push(twin.unwrap_or_else(|| Record::random(rng, ts)));
        }
        Self { rows, delay_ms, split: ["100 b", "1 kb", "64 kb"][rng.below(3)] }
    }

    /// Writes the rows into some files below `folder`, each in their order.
    pub(crate) fn write(&self, folder: &Path, rng: &mut Rng) {
        let mut files = vec![String::new(); 1 + rng.below(3)];
        for row in &self.rows {
            let place = rng.below(files.len());
            files[place].push_str(&row.json());
        }
        std::fs::create_dir_all(folder.join("t")).unwrap();
        for (index, text) in files.iter().enumerate() {
            std::fs::write(folder.join(format!("t/{index}.json")), text).unwrap();
        }
    }

    /// Its CREATE TABLE.
    pub(crate) fn ddl(&self) -> String {
        format!(
            "CREATE TABLE t (k STRING, g INT, v BIGINT, w BIGINT, d DECIMAL(10, 2), ts TIMESTAMP(3),\n  \
             WATERMARK FOR ts AS ts - INTERVAL '{}' SECOND)\n\
             WITH ('connector' = 'filesystem', 'path' = '${{dir}}/t', 'format' = 'json', \
             'source.split-size' = '{}');\n",
            self.delay_ms / 1_000,
            self.split
        )
    }
}

impl Record {
    fn random(rng: &mut Rng, ts: i64) -> Self {
        let number = |rng: &mut Rng, span: usize| {
            let value = rng.below(2 * span + 1) as i64 - span as i64;
            (!rng.one_in(8)).then_some(value)
        };
        let k = [Some("a"), Some("b"), Some("c c"), Some(""), Some("ü\"x"), None][rng.below(6)];
        let g = number(rng, 1);
        Self { k, g, v: number(rng, 5), w: number(rng, 1_000), d: number(rng, 99_999), ts }
    }

    /// The record as a line of JSON.
    pub(super) fn json(&self) -> String {
        let number = |value: Option<i64>| value.map_or("null".to_owned(), |value| value.to_string());
        let money = |hundredths: i64| {
            let sign = if hundredths < 0 { "-" } else { "" };
            format!("{sign}{}.{:02}", hundredths.abs() / 100, hundredths.abs() % 100)
        };
        let ts = timestamp_ms_to_datetime(self.ts).unwrap().format("%Y-%m-%d %H:%M:%S%.3f");
        format!(
            "{{\"k\": {}, \"g\": {}, \"v\": {}, \"w\": {}, \"d\": {}, \"ts\": \"{ts}\"}}\n",
            self.k.map_or("null".to_owned(), |k| format!("{k:?}")),
            number(self.g),
            number(self.v),
            number(self.w),
            self.d.map_or("null".to_owned(), money)
        )
    }
}
