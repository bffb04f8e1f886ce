//! What is delivered when the process is killed, and who may deliver: at most once, at least once, after being fenced.

use std::collections::BTreeMap;

use ruslo::core::metrics::RowCounts;
use ruslo::inspect::Place;
use serde_json::Value;

use crate::home::{COPY, Home, numbers, sorted_numbers};

const ROWS: u64 = 20_000;

/// Slow enough to be caught in the middle.
const SLOW: [&str; 4] = ["--set", "source.rows-per-second=4000", "--set", "execution.batch-rows=50"];

/// A job that writes the numbers to standard output.
fn printing() -> Home {
    let home = Home::new();
    home.write("in.csv", numbers(ROWS));
    let to_files = "'filesystem', 'path' = 'out', 'format' = 'csv'";
    home.write("copy.sql", COPY.replace(to_files, "'stdout', 'format' = 'csv'"));
    home
}

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let all = ["run", "copy.sql", "--checkpoint-dir", "c", "--checkpoint-interval", "50ms", "--parallelism", "2"];
    all.iter().chain(more).copied().collect()
}

/// What was seen over several starts, each killed but the last: every number, and how often; and the last summary.
fn killed(home: &Home, delivery: &str, kills: u64) -> (BTreeMap<u64, u64>, Value) {
    let set = format!("execution.delivery={delivery}");
    let mut seen = BTreeMap::new();
    let mut count = |out: &str| {
        // A row that was cut off in the middle has been seen by nobody.
        let whole = out.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let rows = whole.lines().filter_map(|line| line.parse().ok());
        rows.for_each(|row: u64| *seen.entry(row).or_default() += 1);
    };
    for _ in 0..kills {
        let before = home.newest_epoch("c");
        let mut running = home.start(&arguments(&[&SLOW[..], &["--set", &set, "--resume"]].concat()));
        running.until_checkpoint(home, before + 4);
        count(&running.kill().out);
    }
    let last = home.ruslo(&arguments(&["--set", &set, "--resume", "--output", "json"])).expect(0);
    count(&last.out);
    (seen, last.summary())
}

#[test]
fn at_most_once_gives_no_row_twice_and_counts_what_is_in_doubt() {
    let home = printing();
    let (seen, summary) = killed(&home, "at-most-once", 6);
    assert_eq!(seen.values().max(), Some(&1), "a row came twice");
    let missing = ROWS - seen.len() as u64;
    let in_doubt = summary["in_doubt_rows"].as_u64().unwrap();
    assert!(missing <= in_doubt && in_doubt < ROWS / 2, "{missing} are missing, {in_doubt} in doubt");
    assert_eq!((summary["rows_in"].as_u64(), summary["rows_out"].as_u64()), (Some(ROWS), Some(ROWS)));
    let ledger = home.ruslo(&["ledger", "c"]).expect(0);
    assert!(ledger.out.contains(": balances\n") && ledger.out.contains(" in doubt"), "{}", ledger.out);
}

#[test]
fn at_least_once_loses_nothing() {
    let home = printing();
    let (seen, summary) = killed(&home, "at-least-once", 4);
    assert_eq!(seen.len() as u64, ROWS, "a row is missing");
    assert!(seen.values().any(|times| *times > 1), "it was killed behind a checkpoint");
    assert_eq!(summary["in_doubt_rows"], 0);
    let ledger = home.ruslo(&["ledger", "c", "--output", "json"]).expect(0);
    let ledger: Value = serde_json::from_str(&ledger.out).unwrap();
    assert_eq!((&ledger["balances"], &ledger["edges"][0]["received"]), (&Value::from(true), &Value::from(ROWS)));
}

#[test]
fn a_process_that_was_taken_for_dead_commits_nothing_more() {
    let home = Home::new();
    home.write("in.csv", numbers(ROWS));
    home.write("copy.sql", COPY);
    let mut first = home.start(&arguments(&SLOW));
    first.until_checkpoint(&home, 4);
    first.signal("STOP");
    // Its lock is lost, as when it ran on another machine.
    std::fs::remove_file(home.path("c/lock")).unwrap();
    home.ruslo(&arguments(&["--resume"])).expect(0);
    assert_eq!(home.rows("out"), sorted_numbers(ROWS));
    first.signal("CONT");
    let fenced = first.end().expect(6);
    assert!(fenced.error().contains("another process has written checkpoint"), "{}", fenced.error());
    assert_eq!(home.rows("out"), sorted_numbers(ROWS));
}

#[test]
fn the_ledger_tells_where_every_row_is() {
    let home = Home::new();
    home.write("in.csv", numbers(1_000));
    home.write("copy.sql", COPY.replace("SELECT n FROM numbers", "SELECT n FROM numbers WHERE n % 4 = 0"));
    home.ruslo(&arguments(&[])).expect(0);
    let ledger = home.ruslo(&["ledger", "c"]).expect(0);
    let line = |name: &str| {
        let line = ledger.out.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(line("Filter").contains(" 1,000 250 0 750 filtered = in = out + filtered"), "{}", ledger.out);
    assert!(line("Sink copy").ends_with(" 250 250 0 250 pending = in = committed + pending"), "{}", ledger.out);
    let batch = home.ruslo(&["run", "copy.sql", "--checkpoint-dir", "b", "--set", "execution.runtime-mode=batch"]);
    batch.expect(0);
    let none = home.ruslo(&["ledger", "b"]).expect(2);
    assert!(none.error().contains("has no ledger: it is of a batch job"), "{}", none.error());
}

/// A job that deduplicates, killed in the middle; then its newest checkpoint with one count changed.
#[test]
fn books_that_somebody_has_cooked_do_not_balance() {
    let home = Home::new();
    home.write("in.csv", numbers(ROWS));
    let table = "CREATE TABLE numbers (n BIGINT, p AS PROCTIME())";
    let query = "SELECT m FROM (SELECT m, ROW_NUMBER() OVER (PARTITION BY m ORDER BY p) AS r \
                 FROM (SELECT n % 100 AS m, p FROM numbers)) WHERE r = 1";
    let copy = COPY.replace("CREATE TABLE numbers (n BIGINT)", table).replace("SELECT n FROM numbers", query);
    home.write("copy.sql", copy);
    let mut running = home.start(&arguments(&SLOW));
    running.until_checkpoint(&home, 6);
    running.kill();
    let place = Place::open(&home.path("c")).unwrap();
    let honest = place.find(None).unwrap().manifest.unwrap();
    let path = home.manifests("c").pop().unwrap();
    let ledger = home.ruslo(&["ledger", "c"]).expect(0);
    assert!(ledger.out.contains("in = out + duplicates + late + waiting"), "{}", ledger.out);
    assert!(ledger.out.contains(" duplicates ") && ledger.out.contains(" committed"), "{}", ledger.out);
    type Cook = fn(&mut RowCounts);
    let cooked: [(Cook, &str); 3] = [
        (|counts| counts.duplicate_rows += 1, "in = out + duplicates + late + waiting"),
        (|counts| counts.committed_rows += 1, "in = committed + pending"),
        (|counts| counts.pending_rows += 1, "in = committed + pending"),
    ];
    for (cook, said) in cooked {
        let mut manifest = honest.clone();
        manifest.operators.values_mut().for_each(|entry| cook(&mut entry.subtasks[0].counts));
        std::fs::write(&path, manifest.encode().unwrap()).unwrap();
        let wrong = home.ruslo(&["ledger", "c"]).expect(70);
        assert!(wrong.error().contains("does not balance: '") && wrong.error().ends_with(said), "{}", wrong.error());
    }
    std::fs::write(&path, honest.encode().unwrap()).unwrap();
    home.ruslo(&arguments(&["--resume"])).expect(0);
    home.ruslo(&["ledger", "c"]).expect(0);
    assert_eq!(home.rows("out").len(), 100);
}

#[test]
fn rows_that_cannot_be_taken_back_come_again_only_if_that_is_accepted() {
    let home = printing();
    let set = ["--set", "execution.delivery=at-most-once"];
    let mut running = home.start(&arguments(&[&SLOW[..], &set].concat()));
    running.until_checkpoint(&home, 5);
    running.kill();
    let newest = home.manifests("c").pop().unwrap();
    let bytes = std::fs::read(&newest).unwrap();
    std::fs::write(&newest, bytes.split_at(bytes.len() / 2).0).unwrap();
    let refused = home.ruslo(&arguments(&[&set[..], &["--resume"]].concat())).expect(5);
    let said = "'Sink copy' cannot take back what was shown with it";
    assert!(refused.error().contains(said) && refused.error().contains("--accept-duplicates"), "{}", refused.error());
    let accepted = home.ruslo(&arguments(&[&set[..], &["--resume", "--accept-duplicates"]].concat())).expect(0);
    assert!(accepted.err.contains("; going on from checkpoint "), "{}", accepted.err);
    let ledger = home.ruslo(&["ledger", "c"]).expect(0);
    assert!(ledger.out.contains("as newer ones were damaged"), "{}", ledger.out);
}
