//! Checkpoints of every format version, made by the release of that time with `kill -9`, are resumed for ever.

use std::fs;
use std::path::{Path, PathBuf};

use crate::home::Home;

fn fixtures(job: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(job)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => _ = fs::copy(entry.path(), target).unwrap(),
        }
    }
}

/// Goes on from the checkpoints that `job` left in `version`: they are whole, and the rows of its `tables` are the oracle's,
/// at any parallelism.
fn resumes(job: &str, version: &str, tables: &[&str]) {
    let expected = fs::read_to_string(fixtures(job).join("expected.txt")).unwrap();
    let mut expected: Vec<_> = expected.lines().map(str::to_owned).collect();
    expected.sort();
    for parallelism in ["1", "2", "3"] {
        let home = Home::new();
        copy(&fixtures(job).join(version), &home.path(""));
        home.write("job.sql", fs::read(fixtures(job).join("job.sql")).unwrap());
        home.write("in.csv", fs::read(fixtures("checkpoints").join("in.csv")).unwrap());
        let verified = home.ruslo(&["checkpoint", "verify", "c"]).expect(0);
        assert!(verified.out.starts_with("checkpoints 3, 4, 5 are whole: read "), "{}", verified.out);
        let resume = ["run", "job.sql", "--checkpoint-dir", "c", "--resume", "--parallelism", parallelism];
        let resumed = home.ruslo(&resume).expect(0);
        assert!(resumed.err.contains("resumed from checkpoint 5"), "{}", resumed.err);
        let rows = tables
            .iter()
            .flat_map(|table| home.rows(&format!("out/{table}")).into_iter().map(move |row| format!("{table}: {row}")));
        let mut rows: Vec<_> = rows.collect();
        rows.sort();
        assert_eq!(rows, expected, "parallelism {parallelism}");
    }
}

#[test]
fn checkpoints_of_version_1_are_resumed() {
    resumes("checkpoints", "v1", &["windows", "sessions", "best"]);
}

#[test]
fn checkpoints_of_version_2_are_resumed() {
    resumes("checkpoints", "v2", &["windows", "sessions", "best"]);
}

#[test]
fn keyed_tables_of_version_2_are_resumed() {
    resumes("keyed", "v2", &["firsts", "arrivals"]);
}
