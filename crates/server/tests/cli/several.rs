//! `ruslo run a.sql b.sql`: pipelines that share nothing but the process.

use std::collections::BTreeSet;

use crate::home::{Home, numbers, sorted_numbers};
use crate::http::{address_of, get};

const ROWS: u64 = 5_000;

/// `a.sql` and `b.sql` copy the numbers of `a.csv` and `b.csv`.
fn home() -> Home {
    let home = Home::new();
    for name in ["a", "b"] {
        home.write(&format!("{name}.csv"), numbers(ROWS));
        let table = |table, path| {
            format!(
                "CREATE TABLE {table} (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'csv');"
            )
        };
        let (input, output) = (table("i", format!("{name}.csv")), table("o", format!("out-{name}")));
        home.write(&format!("{name}.sql"), format!("{input} {output} INSERT INTO o SELECT n FROM i;"));
    }
    home
}

const RUN: [&str; 7] = ["run", "a.sql", "b.sql", "--checkpoint-dir", "c", "--checkpoint-interval", "50ms"];

const SLOW: [&str; 4] = ["--set", "source.rows-per-second=1000", "--set", "execution.batch-rows=50"];

#[test]
fn one_that_fails_does_not_touch_the_other() {
    let home = home();
    home.write("b.csv", format!("{}x\n", numbers(100)));
    let answer = home.ruslo(&[&RUN[..], &["--output", "json"]].concat()).expect(3);
    assert!(answer.err.contains("error: b: b.csv line 101"), "{}", answer.err);
    assert_eq!(home.rows("out-a"), sorted_numbers(ROWS));
    let states: BTreeSet<_> = answer
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|summary| (summary["name"].as_str().unwrap().to_owned(), summary["state"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [("a", "finished"), ("b", "failed")].map(|(name, state)| (name.to_owned(), state.to_owned()));
    assert_eq!(states, BTreeSet::from(expected));
    assert!(!home.manifests("c/a").is_empty() && !home.manifests("c/b").is_empty());
}

#[test]
fn one_that_does_not_start_does_not_keep_the_other_from_it() {
    let home = home();
    std::fs::remove_file(home.path("b.csv")).unwrap();
    let answer = home.ruslo(&RUN).expect(2);
    assert!(answer.err.contains("error: b: "), "{}", answer.err);
    assert_eq!(home.rows("out-a"), sorted_numbers(ROWS));
}

#[test]
fn all_are_stopped_and_each_can_go_on_alone() {
    let home = home();
    let mut running = home.start(&[&RUN[..], &SLOW].concat());
    crate::home::until("checkpoints of both", || {
        assert!(!running.is_over(), "{}", running.err());
        home.newest_epoch("c/a") > 3 && home.newest_epoch("c/b") > 3
    });
    running.signal("INT");
    let stopped = running.end().expect(130);
    assert!(stopped.err.contains("run a.sql --set source.rows-per-second=1000"), "{}", stopped.err);
    home.ruslo(&["run", "a.sql", "--checkpoint-dir", "c/a", "--resume"]).expect(0);
    assert_eq!(home.rows("out-a"), sorted_numbers(ROWS));
    assert!(home.rows("out-b").len() < ROWS as usize);
    let resumed = home.ruslo(&[&RUN[..], &["--resume"]].concat()).expect(0);
    assert!(resumed.err.contains("a: already finished"), "{}", resumed.err);
    assert_eq!(home.rows("out-b"), sorted_numbers(ROWS));
}

#[test]
fn both_can_be_watched() {
    let home = home();
    let mut running = home.start(&[&RUN[..], &SLOW, &["--http", "127.0.0.1:0"]].concat());
    let address = address_of(&mut running);
    let metrics = get(&address, "/metrics").1;
    for job in ["a", "b"] {
        assert!(metrics.contains(&format!("ruslo_job_uptime{{job=\"{job}\"}}")), "{metrics}");
    }
    let mut types = BTreeSet::new();
    let mut declared = metrics.lines().filter(|line| line.starts_with("# TYPE"));
    assert!(declared.all(|line| types.insert(line.to_owned())), "a metric is declared twice: {metrics}");
    let jobs: serde_json::Value = serde_json::from_str(&get(&address, "/api/v1/jobs").1).unwrap();
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 2);
    running.signal("INT");
    running.end().expect(130);
}

#[test]
fn nothing_starts_unless_all_are_sound() {
    let home = home();
    home.write("b.sql", "SELEC 1");
    home.ruslo(&RUN).expect(2);
    assert!(!home.exists("out-a") && !home.exists("c"));
    home.write("b.sql", "SET 'pipeline.name' = 'b'");
    let refused = home.ruslo(&RUN).expect(2);
    assert_eq!(refused.error(), "'b' has nothing to run among others");
    home.write("other/a.sql", std::fs::read(home.path("a.sql")).unwrap());
    let refused = home.ruslo(&["run", "a.sql", "other/a.sql"]).expect(2);
    assert_eq!(refused.error(), "two pipelines are called 'a'; name one of them: SET 'pipeline.name' = '...'");
    assert!(!home.exists("out-a"));
}
