//! A sink that is much slower than its source: checkpoints go on all the same, and nothing is lost.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::home::{Home, Running, until};

const ROWS: u64 = 6_000;

/// Two readers before one writer, to whom the rows of both are exchanged.
const JOB: &str = "\
SET 'execution.checkpointing.interval' = '200 ms';
SET 'execution.checkpointing.aligned-checkpoint-timeout' = '500 ms';
SET 'parallelism.default' = '2';
SET 'parallelism.Sink o' = '1';
CREATE TABLE i (n BIGINT, filler STRING) WITH (
  'connector' = 'datagen', 'rows-per-second' = '1000000', 'fields.filler.length' = '1000',
  'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '6000'
);
CREATE TABLE o (n BIGINT, filler STRING) WITH ('connector' = 'stdout', 'format' = 'csv');
INSERT INTO o SELECT n, filler FROM i;
";

/// Rows in flight that a checkpoint has.
fn in_flight(manifest: &Path) -> u64 {
    let text = std::fs::read_to_string(manifest).unwrap_or_default();
    let json = text.split_once('\n').and_then(|(_, json)| serde_json::from_str(json).ok()).unwrap_or(Value::Null);
    let operators = json["operators"].as_object().into_iter().flat_map(|operators| operators.values().cloned());
    let channels = operators.flat_map(|operator| operator["in_flight"].as_array().cloned().unwrap_or_default());
    let batches = channels.flat_map(|channel| channel["batches"].as_array().cloned().unwrap_or_default());
    batches.map(|batch| batch["rows"].as_u64().unwrap_or_default()).sum()
}

fn number(line: &str) -> Option<u64> {
    let (number, filler) = line.split_once(',')?;
    (filler.len() == 1000).then(|| number.parse().ok()).flatten()
}

/// Reads fifty rows a second until the process is gone; the numbers that came.
fn read_slowly(running: &mut Running, count: &Arc<AtomicU64>) -> std::thread::JoinHandle<BTreeSet<u64>> {
    let (out, count) = (running.take_out(), Arc::clone(count));
    std::thread::spawn(move || {
        let mut seen = BTreeSet::new();
        for line in BufReader::with_capacity(4096, out).lines() {
            let Ok(line) = line else { break };
            seen.extend(number(&line));
            count.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
        seen
    })
}

#[test]
fn a_slow_sink_checkpoints_and_resumes_with_what_was_on_its_way() {
    let home = Home::new();
    home.write("job.sql", JOB);
    let mut running = home.start_unread(&["run", "job.sql", "--checkpoint-dir", "c"]);
    let count = Arc::new(AtomicU64::new(0));
    let reader = read_slowly(&mut running, &count);
    let overtaken = || home.manifests("c").last().is_some_and(|newest| in_flight(newest) > ROWS / 4);
    until("a checkpoint with rows in flight", overtaken);
    let (epoch, read) = (home.newest_epoch("c"), count.load(Ordering::Relaxed));
    running.until_checkpoint(&home, epoch + 3);
    let meanwhile = count.load(Ordering::Relaxed) - read;
    assert!(meanwhile < ROWS / 4, "three more checkpoints, while {meanwhile} rows were read");
    running.kill_now();
    let mut seen = reader.join().unwrap();
    assert!(seen.len() < ROWS as usize / 2, "most rows were still on their way");

    let rest = home.ruslo(&["run", "job.sql", "--checkpoint-dir", "c", "--resume", "--parallelism", "3"]).expect(0);
    seen.extend(rest.out.lines().filter_map(number));
    assert!(seen.iter().copied().eq(1..=ROWS), "{} of {ROWS} rows came", seen.len());
}
