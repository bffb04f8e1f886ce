//! Checkpoints of every format version, made by the release of that time with `kill -9`, are resumed for ever.

use std::fs;
use std::path::{Path, PathBuf};

use crate::home::Home;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints")
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

/// Goes on from the checkpoints of `version`: they are whole, and the rows are the oracle's, at any parallelism.
fn resumes(version: &str) {
    let expected = fs::read_to_string(fixtures().join("expected.txt")).unwrap();
    let mut expected: Vec<_> = expected.lines().map(str::to_owned).collect();
    expected.sort();
    for parallelism in ["1", "2", "3"] {
        let home = Home::new();
        copy(&fixtures().join(version), &home.path(""));
        for name in ["job.sql", "in.csv"] {
            home.write(name, fs::read(fixtures().join(name)).unwrap());
        }
        let verified = home.ruslo(&["checkpoint", "verify", "c"]).expect(0);
        assert!(verified.out.starts_with("checkpoints 3, 4, 5 are whole: read "), "{}", verified.out);
        let resume = ["run", "job.sql", "--checkpoint-dir", "c", "--resume", "--parallelism", parallelism];
        let resumed = home.ruslo(&resume).expect(0);
        assert!(resumed.err.contains("resumed from checkpoint 5"), "{}", resumed.err);
        let tables = ["windows", "sessions", "best"];
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
    resumes("v1");
}

#[test]
fn checkpoints_of_version_2_are_resumed() {
    resumes("v2");
}
