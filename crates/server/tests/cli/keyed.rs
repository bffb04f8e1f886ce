//! Deduplication over the whole stream, whose keys are in a keyed table: with savepoints, and with checkpoints in a bucket.
//! Expected rows are counted here, from the input alone.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::home::{Home, Running, until};
use crate::moto::Moto;
use crate::savepoint::files;

const ROWS: i64 = 12_000;
const KEYS: i64 = 6_000;

/// Slow enough to be caught in the middle.
const SLOW: [&str; 4] = ["--set", "source.rows-per-second=3000", "--set", "execution.batch-rows=50"];

/// The key of each row: every one comes twice, 6,000 rows apart.
fn key(n: i64) -> i64 {
    n * 7 % KEYS
}

/// One row a second.
fn home() -> Home {
    let home = Home::new();
    let rows: String = (0..ROWS).map(|n| format!("{},{n},{}\n", key(n), n * 1_000)).collect();
    home.write("in.csv", rows);
    home
}

/// The first row of each key, of which `columns` go to the folder `out`.
fn script(columns: &str, kinds: &str, out: &str) -> String {
    format!(
        "CREATE TABLE sale (id BIGINT, n BIGINT, ms BIGINT, at_time AS TO_TIMESTAMP_LTZ(ms, 3), WATERMARK FOR at_time AS at_time)
         WITH ('connector' = 'filesystem', 'path' = 'in.csv', 'format' = 'csv');
         CREATE TABLE firsts ({kinds}) WITH ('connector' = 'filesystem', 'path' = '{out}', 'format' = 'csv');
         INSERT INTO firsts SELECT {columns} FROM (
           SELECT *, ROW_NUMBER() OVER (PARTITION BY id ORDER BY at_time) AS place FROM sale) WHERE place = 1;"
    )
}

fn old() -> String {
    script("id, n", "id BIGINT, n BIGINT", "old")
}

fn run<'a>(file: &'a str, folder: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let all = ["run", file, "--checkpoint-dir", folder, "--checkpoint-interval", "50ms", "--output", "json"];
    all.iter().chain(more).copied().collect()
}

/// Runs the old query until some keys are out, and stops it with the savepoint `sp`, which is moved to `kept`; the rows that
/// are out.
fn stopped(home: &Home) -> BTreeSet<String> {
    home.write("old.sql", old());
    let mut running: Running = home.start(&run("old.sql", "c", &[&SLOW, ["--parallelism", "2"].as_slice()].concat()));
    running.until_checkpoint(home, 4);
    until("rows", || home.rows("old").len() > 500);
    home.ruslo(&["stop", "c", "--savepoint", "sp"]).expect(0);
    running.end().expect(130);
    home.ruslo(&["checkpoint", "verify", "sp"]).expect(0);
    std::fs::rename(home.path("sp"), home.path("kept")).unwrap();
    std::fs::remove_dir_all(home.path("c")).unwrap();
    let out = home.rows("old");
    assert!(out.len() < KEYS as usize, "there is nothing left to do");
    let firsts: BTreeSet<_> = out.iter().cloned().collect();
    assert_eq!(firsts.len(), out.len());
    firsts
}

#[test]
fn a_changed_query_begins_from_a_moved_savepoint_at_another_parallelism() {
    let home = home();
    let out = stopped(&home);
    let before = files(&home.path("kept"));
    home.write("new.sql", script("id, n, n * 2", "id BIGINT, n BIGINT, twice BIGINT", "new"));
    let firsts = (0..KEYS).map(|n| (n, format!("{},{n}", key(n))));
    let mut expected: Vec<_> =
        firsts.filter(|(_, row)| !out.contains(row)).map(|(n, row)| format!("{row},{}", 2 * n)).collect();
    expected.sort();
    for (folder, parallelism) in [("c1", "1"), ("c3", "3")] {
        let _ = std::fs::remove_dir_all(home.path("new"));
        let begun = run("new.sql", folder, &["--from-savepoint", "kept", "--parallelism", parallelism]);
        let done = home.ruslo(&begun).expect(0);
        assert!(done.err.contains(", begun from the savepoint kept\n"), "{}", done.err);
        assert_eq!(home.rows("new"), expected, "parallelism {parallelism}");
    }
    assert_eq!(files(&home.path("kept")), before, "nothing writes into a savepoint");
}

#[test]
fn the_keys_that_are_out_can_be_looked_at() {
    let home = home();
    let out = stopped(&home);
    let listed = home.ruslo(&["state", "list", "kept", "--output", "json"]).expect(0).summary();
    let tables = listed["tables"].as_array().unwrap();
    let seen = tables.iter().find(|table| table["table"] == "dedup_seen").unwrap_or_else(|| panic!("{listed}"));
    let columns = seen["columns"].as_array().unwrap();
    let key = columns.iter().position(|column| column["name"] == "key0").unwrap();
    assert_eq!((&columns[key]["type"], &seen["rows"]), (&"BIGINT".into(), &out.len().into()), "{listed}");
    let dumped = home.ruslo(&["state", "dump", "kept", "--table", "dedup_seen", "--format", "csv"]).expect(0).out;
    let keys: BTreeSet<_> = dumped.lines().skip(1).map(|row| row.split(',').nth(key).unwrap().to_owned()).collect();
    let expected: BTreeSet<_> = out.iter().map(|row| row.split(',').next().unwrap().to_owned()).collect();
    assert_eq!((dumped.lines().count() - 1, &keys), (out.len(), &expected));
    let (here, missing) =
        (expected.first().unwrap(), (0..KEYS).find(|id| !expected.contains(&id.to_string())).unwrap());
    let get = |key: &str| home.ruslo(&["state", "get", "kept", "--table", "dedup_seen", "--key", key]);
    let got = get(here).expect(0).out;
    assert!(got.contains(&format!("\"key0\":{here}")), "{got}");
    let refused = get(&missing.to_string()).expect(2);
    assert!(refused.error().contains("has nothing under this key"), "{}", refused.err);
}

#[test]
fn what_has_come_to_the_end_of_its_input_keeps_no_keys() {
    let home = home();
    home.write("old.sql", old());
    home.ruslo(&run("old.sql", "c", &["--parallelism", "2"])).expect(0);
    assert_eq!(home.rows("old").len(), KEYS as usize);
    home.ruslo(&["checkpoint", "verify", "c"]).expect(0);
    let listed = home.ruslo(&["state", "list", "c", "--output", "json"]).expect(0).summary();
    let tables = listed["tables"].as_array().unwrap();
    assert!(tables.iter().all(|table| table["table"] != "dedup_seen"), "{listed}");
}

/// What is in the folders for temporary files that processes of this test have.
fn temporary(home: &Home) -> Vec<PathBuf> {
    let folder = home.path("tmp");
    files(&folder).into_iter().map(|(name, _)| folder.join(name)).collect()
}

#[test]
fn killed_and_resumed_from_a_bucket_every_key_comes_once_and_nothing_is_left_on_the_disk() {
    let Some(server) = Moto::start() else { return };
    let home = home();
    home.write("old.sql", old());
    home.write("tmp/mine", "not of a job");
    let place = "s3://checkpoints/jobs/firsts";
    let (mut variables, folder) = (Moto::variables(server.address()).to_vec(), home.path("tmp"));
    variables.push(("TMPDIR", folder.to_str().unwrap().to_owned()));
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let begin = |parallelism: &str, more: &[&str]| {
        let common = ["--resume", "--parallelism", parallelism, "--set", "pipeline.memory-limit=1 mb"];
        home.start_with(&run("old.sql", place, &[&common[..], more].concat()), &variables)
    };
    let manifests = || server.objects("jobs/firsts/manifests/");
    let mut left = 0;
    for parallelism in ["2", "3"] {
        let (running, newest) = (begin(parallelism, &SLOW), manifests().pop());
        let is_newer = |more: usize| {
            let all = manifests();
            all.last() > newest.as_ref()
                && all.len() >= more
                && all.iter().filter(|name| Some(*name) > newest.as_ref()).count() >= more
        };
        until("checkpoints", || is_newer(3));
        running.kill();
        left += temporary(&home).len() - 1;
    }
    assert!(left > 0, "the killed processes had files there");
    let done = begin("1", &[]).end().expect(0);
    assert!(done.err.contains("resumed from checkpoint"), "{}", done.err);
    let mut expected: Vec<_> = (0..KEYS).map(|n| format!("{},{n}", key(n))).collect();
    expected.sort();
    assert_eq!(home.rows("old"), expected);
    assert_eq!(temporary(&home), [folder.join("mine")]);
}
