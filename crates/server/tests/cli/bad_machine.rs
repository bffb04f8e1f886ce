//! When the machine gives out: a full disk under the sink or the checkpoints, too little memory. What is committed stays,
//! and the job goes on once there is room.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::home::{COPY, Home, numbers, sorted_numbers, until};
use crate::http::{address_of, get};

const ROWS: u64 = 20_000;

/// A small file system of its own, if this process may make one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: this user may not mount a file system");
            return None;
        }
        Some(Self(path.to_owned()))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Leaves no room at all.
    fn fill(&self) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn home() -> Home {
    let home = Home::new();
    home.write("in.csv", numbers(ROWS));
    home.write("copy.sql", COPY);
    home
}

const ARGUMENTS: [&str; 8] =
    ["run", "copy.sql", "--checkpoint-dir", "c", "--checkpoint-interval", "50ms", "--parallelism", "1"];

const SLOW: [&str; 4] = ["--set", "source.rows-per-second=2000", "--set", "execution.batch-rows=50"];

/// Runs a slow job and fills `disk` once it has made some checkpoints; what it said then.
fn fill_midway(home: &Home, disk: &SmallDisk) -> String {
    let mut running = home.start(&[&ARGUMENTS[..], &SLOW].concat());
    running.until_checkpoint(home, 4);
    // Again and again: old checkpoints make room as they go.
    until("the end of room", || {
        disk.fill();
        running.is_over()
    });
    let failed = running.end().expect(4);
    failed.error().to_owned()
}

fn resumes_with_room(home: &Home, disk: &SmallDisk) {
    fs::remove_file(disk.filler()).unwrap();
    home.ruslo(&[&ARGUMENTS[..], &["--resume"]].concat()).expect(0);
    assert_eq!(home.rows("out"), sorted_numbers(ROWS));
}

#[test]
fn a_full_disk_under_the_sink() {
    let home = home();
    let Some(disk) = SmallDisk::new(&home.path("out"), "2m") else { return };
    let error = fill_midway(&home, &disk);
    assert!(error.contains("out/"), "{error}");
    assert!(error.ends_with(": the disk is full; free some space, then resume"), "{error}");
    // The filler is no row; the sink's folder is else as it was.
    fs::rename(disk.filler(), disk.0.join(".filler")).unwrap();
    let committed = home.rows("out").len();
    assert!(committed > 0 && (committed as u64) < ROWS);
    fs::rename(disk.0.join(".filler"), disk.filler()).unwrap();
    resumes_with_room(&home, &disk);
}

#[test]
fn a_full_disk_under_the_checkpoints() {
    let home = home();
    let Some(disk) = SmallDisk::new(&home.path("c"), "1m") else { return };
    let error = fill_midway(&home, &disk);
    assert!(error.contains("c/"), "{error}");
    assert!(error.ends_with(": the disk is full; free some space, then resume"), "{error}");
    resumes_with_room(&home, &disk);
}

/// With a restart strategy the same job waits for room, and says so.
fn waits_for_room(folder: &str, size: &str) {
    let home = home();
    let Some(disk) = SmallDisk::new(&home.path(folder), size) else { return };
    let patient = ["restart-strategy.type=fixed-delay", "restart-strategy.fixed-delay.delay=100ms"];
    let strategy = ["--set", patient[0], "--set", patient[1], "--set", "restart-strategy.fixed-delay.attempts=10000"];
    let mut running = home.start(&[&ARGUMENTS[..], &SLOW, &strategy, &["--http", "127.0.0.1:0"]].concat());
    let address = address_of(&mut running);
    running.until_checkpoint(&home, 4);
    until("the end of room", || {
        disk.fill();
        running.err().contains("goes on from its last checkpoint in 100 ms")
    });
    let jobs: Value = serde_json::from_str(&get(&address, "/api/v1/jobs").1).unwrap();
    let failure = jobs["jobs"][0]["lastFailure"]["error"].as_str().unwrap();
    assert!(failure.contains("the disk is full"), "{failure}");
    fs::remove_file(disk.filler()).unwrap();
    until("the new start", || {
        let metrics = get(&address, "/metrics").1;
        metrics.contains("ruslo_job_isRestarting{job=\"copy\"} 0.0")
            && !metrics.contains("numRestarts{job=\"copy\"} 0.0")
    });
    let answer = running.end().expect(0);
    assert!(answer.err.contains(": went on from its last checkpoint, "), "{}", answer.err);
    assert!(answer.err.lines().last().unwrap().contains("restart"), "{}", answer.err);
    assert_eq!(home.rows("out"), sorted_numbers(ROWS));
}

#[test]
fn a_full_disk_under_the_sink_is_waited_for() {
    waits_for_room("out", "2m");
}

#[test]
fn a_full_disk_under_the_checkpoints_is_waited_for() {
    waits_for_room("c", "1m");
}

#[test]
fn too_little_memory_says_who_holds_it() {
    let home = home();
    let windows = "\
CREATE TABLE t (n BIGINT, ts AS CAST('2026-01-01 00:00:00' AS TIMESTAMP(3)), WATERMARK FOR ts AS ts)
WITH ('connector' = 'filesystem', 'path' = 'in.csv', 'format' = 'csv');
SELECT n, COUNT(*) AS times FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR))
GROUP BY n, window_start, window_end";
    home.write("copy.sql", windows);
    let failed = home.ruslo(&[&ARGUMENTS[..], &["--set", "pipeline.memory-limit=200 kb"]].concat()).expect(4);
    let error = failed.error();
    assert!(error.contains("the pipeline's memory limit of 200.0 KiB is reached: "), "{error}");
    assert!(error.contains("; held now: ") && error.contains("Raise 'pipeline.memory-limit'"), "{error}");
    home.ruslo(&[&ARGUMENTS[..], &["--resume"]].concat()).expect(0);
}
