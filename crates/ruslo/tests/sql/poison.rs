//! Poison: files of good rows and bad records mixed, from a seed. What becomes of every record is computed here, by the
//! rules of the documentation, and compared with what the tables got in every way of running the script: no record is
//! lost, none comes twice, and dead letters keep their bytes.

use std::collections::BTreeMap;

use ruslo_core::rng::Rng;

use crate::case::{Answer, Case, Counts, Expected, Input};
use crate::modes;

const DELAY_MS: i64 = 5_000;
const WINDOW_MS: i64 = 10_000;
/// The clock of seeded runs stands about at 1970-01-01.
const MAX_AHEAD_MS: i64 = 86_400_000;
/// 9999-12-31 23:59:59.
const YEAR_9999_MS: i64 = 253_402_300_799_000;

const TABLES: &str = "
CREATE TABLE t (
  k INT NOT NULL, s STRING, ts TIMESTAMP(3), v AS CAST(s AS INT),
  WATERMARK FOR ts AS ts - INTERVAL '5' SECOND
) WITH (
  'connector' = 'filesystem', 'path' = '${dir}/in', 'format' = 'json', 'source.split-size' = '150',
  'watermark.max-ahead' = '1 d', 'late-data' = 'side-table', 'late-data.table' = 'late', ${on-error}
);
CREATE TABLE late (k INT, s STRING) WITH ('connector' = 'filesystem', 'path' = '${out}/late', 'format' = 'json');
CREATE TABLE bad (raw BYTES) WITH ('connector' = 'filesystem', 'path' = '${out}/bad', 'format' = 'json');
CREATE TABLE result (start_at TIMESTAMP(3), n BIGINT, total INT)
WITH ('connector' = 'filesystem', 'path' = '${out}', 'format' = 'json');
INSERT INTO result
SELECT window_start, COUNT(*), SUM(v + k * 0) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '10' SECOND))
GROUP BY window_start, window_end;
";

/// A line of a file.
enum Line {
    Good { k: i64, v: i64, ts: i64 },
    Bad(Vec<u8>),
    Blank,
}

/// Runs the poisoned files of some seeds; what was wrong.
pub(crate) fn check(seeds: std::ops::Range<u64>) -> Vec<String> {
    let mut failures = Vec::new();
    for seed in seeds {
        for on_error in
            ["'on-error' = 'skip'", "'on-error' = 'dead-letter', 'on-error.table' = 'bad'", "'on-error' = 'fail'"]
        {
            let case = case(seed, on_error);
            failures.extend(modes::check(&case, seed).1);
        }
    }
    failures
}

fn case(seed: u64, on_error: &str) -> Case {
    let mut rng = Rng::seeded(seed);
    let files: Vec<Vec<Line>> = (0..3).map(|_| file(&mut rng)).collect();
    let name = format!("poison_{seed}_{}", on_error.split('\'').nth(3).unwrap().replace('-', "_"));
    let inputs = files.iter().enumerate().map(|(number, lines)| {
        let bytes = lines.iter().flat_map(|line| line.bytes()).collect();
        Input::new(&format!("in/{number}.json"), bytes)
    });
    let inputs = inputs.collect();
    let sql = TABLES.replace("${on-error}", on_error);
    if on_error.contains("fail") {
        let (kind, parts) = ("data".to_owned(), Vec::new());
        return Case::made_up(&name, inputs, sql, Expected::Error { kind, parts });
    }
    let (rows, counts) = expected(&files, on_error.contains("dead-letter"));
    Case::made_up(&name, inputs, sql, Expected::Answer(Answer { rows, counts }))
}

fn file(rng: &mut Rng) -> Vec<Line> {
    let mut lines = vec![bad(rng)];
    for n in 0..rng.below(40) as i64 {
        let (k, v) = (n, rng.below(1000) as i64);
        lines.push(match rng.below(12) {
            0..=2 => bad(rng),
            3 => Line::Blank,
            4 => Line::Good { k, v, ts: -1 },
            5 => Line::Good { k, v, ts: YEAR_9999_MS },
            _ => Line::Good { k, v, ts: (n * 1_000 - rng.below(20_000) as i64).max(0) },
        });
    }
    lines
}

fn bad(rng: &mut Rng) -> Line {
    let deep = format!("{{\"k\":1,\"x\":{}1{}}}", "[".repeat(200), "]".repeat(200)).into_bytes();
    let all: [&[u8]; 11] = [
        b"{\"k\":1,\"s\":\"1",
        b"{\"k\":1,\"s\":\"\xff\xfe\",\"ts\":\"1970-01-01 00:00:00\"}",
        b"{\"k\":99999999999999999999}",
        b"{\"k\":1,\"s\":\"12x\",\"ts\":\"1970-01-01 00:30:00\"}",
        b"{\"k\":1,\"s\":\"99999999999\",\"ts\":\"1970-01-01 00:30:00\"}",
        b"{\"k\":1,\"s\":\"1\",\"ts\":\"1970-02-30 00:00:00\"}",
        b"{\"s\":\"1\",\"ts\":\"1970-01-01 00:30:00\"}",
        b"[1,2]",
        b"\0\x01",
        b"{\"k\":1.5}",
        &deep,
    ];
    Line::Bad(all[rng.below(all.len())].to_vec())
}

impl Line {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = match self {
            Self::Good { k, v, ts } => format!("{{\"k\":{k},\"s\":\"{v}\",\"ts\":\"{}\"}}", time(*ts)).into_bytes(),
            Self::Bad(bytes) => bytes.clone(),
            Self::Blank => Vec::new(),
        };
        bytes.push(b'\n');
        bytes
    }
}

/// A time of the first hour of 1970, or one of the two special ones.
fn time(ms: i64) -> String {
    match ms {
        -1 => "1969-12-31 23:59:59.999".to_owned(),
        YEAR_9999_MS => "9999-12-31 23:59:59".to_owned(),
        ms => format!("1970-01-01 00:{:02}:{:02}", ms / 60_000, ms / 1_000 % 60),
    }
}

fn window_start(ts: i64) -> String {
    match ts.div_euclid(WINDOW_MS) * WINDOW_MS {
        -10_000 => "1969-12-31 23:59:50".to_owned(),
        253_402_300_790_000 => "9999-12-31 23:59:50".to_owned(),
        start => time(start),
    }
}

/// The rows of all tables, and what is counted.
fn expected(files: &[Vec<Line>], keeps: bool) -> (Vec<String>, Counts) {
    let mut windows: BTreeMap<i64, (u64, i64)> = BTreeMap::new();
    let (mut rows, mut counts, mut records) = (Vec::new(), Counts::default(), 0);
    let mut dead = 0;
    for file in files {
        let mut watermark = i64::MIN;
        for line in file {
            match line {
                Line::Blank => continue,
                Line::Bad(_) if !keeps => counts.skipped += 1,
                Line::Bad(bytes) => {
                    dead += 1;
                    rows.push(format!("bad: {{\"raw\":\"{}\"}}", base64(bytes)));
                }
                Line::Good { k, v, ts } => {
                    let end = (ts.div_euclid(WINDOW_MS) + 1) * WINDOW_MS;
                    if end - 1 <= watermark {
                        counts.late += 1;
                        rows.push(format!("late: {{\"k\":{k},\"s\":\"{v}\"}}"));
                    } else {
                        let window = windows.entry(end).or_default();
                        *window = (window.0 + 1, window.1 + v);
                    }
                    if *ts > 2 * MAX_AHEAD_MS {
                        counts.ahead += 1;
                    } else {
                        watermark = watermark.max(ts - DELAY_MS);
                    }
                }
            }
            records += 1;
        }
    }
    assert!(counts.late > 0 && counts.ahead > 0, "a seed without late rows or rows from the future");
    let counted: u64 = windows.values().map(|(n, _)| n).sum();
    assert_eq!(records, counted + counts.late + counts.skipped + dead, "the oracle itself lost a record");
    rows.extend(windows.iter().map(|(end, (n, total))| {
        format!("{{\"start_at\":\"{}\",\"n\":{n},\"total\":{total}}}", window_start(end - 1))
    }));
    rows.sort();
    (rows, counts)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().chain([0, 0, 0].iter()).take(3).fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    text
}
