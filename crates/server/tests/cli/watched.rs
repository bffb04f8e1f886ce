//! A watched folder: files come and go while the job runs, is killed, and resumes.

use crate::home::{Home, until};

const JOB: &str = "\
CREATE TABLE i (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'csv', 'source.split-size' = '4',
                                'source.monitor-interval' = '20 ms');
CREATE TABLE o (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');
INSERT INTO o SELECT n FROM i;
";

const RUN: [&str; 7] =
    ["run", "job.sql", "--checkpoint-dir", "c", "--set", "execution.checkpointing.interval=20ms", "--parallelism=2"];

/// Writes `from..to` into a file, which appears in one piece.
fn appear(home: &Home, name: &str, from: u64, to: u64) {
    let lines: String = (from..to).map(|n| format!("{n}\n")).collect();
    home.write(&format!("in/.{name}"), lines);
    std::fs::rename(home.path(&format!("in/.{name}")), home.path(&format!("in/{name}"))).unwrap();
}

fn until_rows(home: &Home, count: usize) {
    until("rows", || home.rows("out").len() >= count);
}

#[test]
fn every_row_of_a_watched_folder_comes_once() {
    let home = Home::new();
    home.write("job.sql", JOB);
    appear(&home, "a.csv", 0, 50);
    let job = home.start(&RUN);
    until_rows(&home, 50);
    appear(&home, "b.csv", 50, 100);
    until_rows(&home, 100);
    appear(&home, "c.csv", 100, 150);
    job.kill();
    std::fs::remove_file(home.path("in/a.csv")).unwrap();
    appear(&home, "d.csv", 150, 200);
    let resume: Vec<_> = RUN.iter().copied().chain(["--resume"]).collect();
    let job = home.start(&resume);
    until_rows(&home, 200);
    appear(&home, "e.csv", 200, 250);
    until_rows(&home, 250);
    assert!(!std::fs::read_to_string(home.manifests("c").last().unwrap()).unwrap().contains("a.csv"), "forgotten");
    job.signal("INT");
    assert_eq!(job.end().code, Some(130));
    let mut expected: Vec<_> = (0..250).map(|n: u64| n.to_string()).collect();
    expected.sort();
    assert_eq!(home.rows("out"), expected);
}
