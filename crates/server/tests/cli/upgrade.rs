//! Beginning from a savepoint: elsewhere, at another parallelism, with a changed query. Expected rows are counted here,
//! from the input and the place where the first run stopped.

use std::collections::{BTreeMap, BTreeSet};

use crate::home::{Home, Running};
use crate::savepoint::files;

const ROWS: i64 = 12_000;

/// Slow enough to be caught in the middle.
const SLOW: [&str; 4] = ["--set", "source.rows-per-second=3000", "--set", "execution.batch-rows=50"];

/// One row a second, of five shops; so a window of an hour has 3,600.
fn home() -> Home {
    let home = Home::new();
    let rows: String = (0..ROWS).map(|n| format!("{},{},{}\n", n % 5, n % 1_000, n * 1_000)).collect();
    home.write("sales.csv", rows);
    home
}

/// A script whose result goes to the folder `out`.
fn script(columns: &str, kinds: &str, query: &str, out: &str) -> String {
    format!(
        "CREATE TABLE sale ({columns}, ms BIGINT, at_time AS TO_TIMESTAMP_LTZ(ms, 3), WATERMARK FOR at_time AS at_time)
         WITH ('connector' = 'filesystem', 'path' = 'sales.csv', 'format' = 'csv');
         CREATE TABLE totals ({kinds}) WITH ('connector' = 'filesystem', 'path' = '{out}', 'format' = 'csv');
         INSERT INTO totals {query};"
    )
}

const COLUMNS: &str = "shop INT, price INT";

fn windows(aggregates: &str, condition: &str) -> String {
    format!(
        "SELECT shop, EXTRACT(HOUR FROM window_start), {aggregates}
         FROM TABLE(TUMBLE(TABLE sale, DESCRIPTOR(at_time), INTERVAL '1' HOUR)) {condition}
         GROUP BY shop, window_start, window_end"
    )
}

fn old() -> String {
    script(COLUMNS, "shop INT, h BIGINT, n BIGINT, most INT", &windows("COUNT(*), MAX(price)", ""), "old")
}

fn run<'a>(file: &'a str, folder: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let all = ["run", file, "--checkpoint-dir", folder, "--checkpoint-interval", "50ms", "--output", "json"];
    all.iter().chain(more).copied().collect()
}

/// Runs the old query into a window, and stops it with a savepoint `sp`; how many rows it had read.
fn stopped(home: &Home) -> i64 {
    home.write("old.sql", old());
    let mut running: Running = home.start(&run("old.sql", "c", &[&SLOW, ["--parallelism", "2"].as_slice()].concat()));
    running.until_checkpoint(home, 12);
    for name in ["sp1", "sp2", "sp3"] {
        home.ruslo(&["savepoint", "c", name]).expect(0);
    }
    home.ruslo(&["stop", "c", "--savepoint", "sp"]).expect(0);
    for name in ["sp1", "sp2", "sp3", "sp"] {
        home.ruslo(&["checkpoint", "verify", name]).expect(0);
    }
    let summary = running.end().expect(130).summary();
    let read = summary["rows_in"].as_i64().unwrap();
    assert!(read > 100 && read < ROWS - 100, "{read}");
    read
}

/// The prices of each shop and hour, of rows for which `wanted` holds, told which row it is.
fn groups(wanted: impl Fn(i64) -> bool) -> BTreeMap<(i64, i64), Vec<i64>> {
    let mut groups: BTreeMap<(i64, i64), Vec<i64>> = BTreeMap::new();
    for n in (0..ROWS).filter(|n| wanted(*n)) {
        groups.entry((n % 5, n / 3_600)).or_default().push(n % 1_000);
    }
    groups
}

/// The rows of both runs.
fn rows(home: &Home) -> Vec<String> {
    let mut rows = [home.rows("old"), home.rows("new")].concat();
    rows.sort();
    rows
}

#[test]
fn a_run_begins_from_a_moved_savepoint_at_another_parallelism_as_often_as_one_likes() {
    let home = home();
    stopped(&home);
    std::fs::rename(home.path("sp"), home.path("kept")).unwrap();
    std::fs::remove_dir_all(home.path("c")).unwrap();
    let before = files(&home.path("kept"));
    let first = home.rows("old");
    home.write("new.sql", old().replace("'old'", "'new'"));
    let expected = groups(|_| true)
        .into_iter()
        .map(|((shop, hour), prices)| format!("{shop},{hour},{},{}", prices.len(), prices.iter().max().unwrap()));
    let mut expected: Vec<_> = expected.collect();
    expected.sort();
    for (folder, parallelism) in [("c1", "1"), ("c3", "3")] {
        let _ = std::fs::remove_dir_all(home.path("new"));
        let begun = run("new.sql", folder, &["--from-savepoint", "kept", "--parallelism", parallelism]);
        let done = home.ruslo(&begun).expect(0);
        assert!(done.err.contains(", begun from the savepoint kept\n"), "{}", done.err);
        assert_eq!(rows(&home), expected);
        assert_eq!(home.rows("old"), first, "the output of the old run is left alone");
    }
    assert_eq!(files(&home.path("kept")), before, "nothing writes into a savepoint");
    let refused = home.ruslo(&run("new.sql", "kept", &["--resume"])).expect(2);
    assert!(refused.error().contains("this is a savepoint; say --from-savepoint"), "{}", refused.err);
    assert_eq!(files(&home.path("kept")), before);
}

#[test]
fn a_run_from_a_savepoint_resumes_by_itself() {
    let home = home();
    stopped(&home);
    home.write("new.sql", old().replace("'old'", "'new'"));
    let mut running = home.start(&run("new.sql", "d", &[&SLOW, ["--from-savepoint", "sp"].as_slice()].concat()));
    running.until_it_says("begun from the savepoint");
    running.kill();
    std::fs::remove_dir_all(home.path("sp")).unwrap();
    let done = home.ruslo(&run("new.sql", "d", &["--resume"])).expect(0);
    assert!(done.err.contains("resumed from checkpoint"), "{}", done.err);
    let counted: i64 = rows(&home).iter().map(|row| row.split(',').nth(2).unwrap().parse::<i64>().unwrap()).sum();
    assert_eq!(counted, ROWS, "each row once");
}

#[test]
fn a_changed_query_keeps_what_matches() {
    let home = home();
    let read = stopped(&home);
    // Keys and aggregates widen, MAX moves, SUM is new, rows under 100 do not count any more.
    let query = windows("MAX(price), SUM(price), COUNT(*)", "WHERE price >= 100");
    let kinds = "shop BIGINT, h BIGINT, most BIGINT, total BIGINT, n BIGINT";
    home.write("new.sql", script("shop BIGINT, price BIGINT", kinds, &query, "new"));
    let told = home.ruslo(&["upgrade", "--dry-run", "old.sql", "new.sql", "--savepoint", "sp"]).expect(0);
    let expected = "keeps     Source sale: goes on where it was
keeps     TumbleWindow shop, 1 h
          SUM(sale.price) is new: in windows that are open it is of what comes from now on
          what it has came without a condition; what comes now where sale.price >= 100
";
    assert_eq!(told.out, expected);
    let done = home.ruslo(&run("new.sql", "d", &["--from-savepoint", "sp", "--parallelism", "3"])).expect(0);
    let warned = "warning: 'TumbleWindow shop, 1 h': SUM(sale.price) is new: in windows that are open";
    assert!(done.err.contains(warned), "{}", done.err);

    let counted = groups(|n| n < read || n % 1_000 >= 100);
    let added = groups(|n| n >= read && n % 1_000 >= 100);
    let closed = |hour: i64| home.rows("old").iter().any(|row| row.split(',').nth(1) == Some(&hour.to_string()));
    let mut expected = home.rows("old");
    for ((shop, hour), prices) in counted.into_iter().filter(|((_, hour), _)| !closed(*hour)) {
        let total = added.get(&(shop, hour)).map(|prices| prices.iter().sum::<i64>());
        let total = total.map_or_else(String::new, |total| total.to_string());
        expected.push(format!("{shop},{hour},{},{total},{}", prices.iter().max().unwrap(), prices.len()));
    }
    expected.sort();
    assert_eq!(rows(&home), expected);
}

#[test]
fn state_is_not_dropped_without_asking_and_what_does_not_fit_is_named() {
    let home = home();
    stopped(&home);
    let kinds = "shop INT, h BIGINT, n BIGINT";
    home.write("fewer.sql", script(COLUMNS, kinds, &windows("COUNT(*)", ""), "new"));
    let refused = home.ruslo(&["upgrade", "--dry-run", "old.sql", "fewer.sql"]).expect(2);
    assert!(refused.out.ends_with("          drops MAX(sale.price)\n"), "{}", refused.out);
    home.ruslo(&["upgrade", "--dry-run", "old.sql", "fewer.sql", "--allow-dropped-state"]).expect(0);
    let refused = home.ruslo(&run("fewer.sql", "d", &["--from-savepoint", "sp"])).expect(2);
    let said = "sp: the query has no use for the state of MAX(sale.price) of 'TumbleWindow shop, 1 h'; say \
                --allow-dropped-state to go on without it";
    assert_eq!(refused.error(), said);
    assert!(!home.exists("d"), "nothing was begun");
    let done = home.ruslo(&run("fewer.sql", "d", &["--from-savepoint", "sp", "--allow-dropped-state"])).expect(0);
    assert_eq!(done.summary()["state"], "finished");
    let counted: i64 = rows(&home).iter().map(|row| row.split(',').nth(2).unwrap().parse::<i64>().unwrap()).sum();
    assert_eq!(counted, ROWS);

    home.write("narrow.sql", script("shop SMALLINT, price INT", kinds, &windows("COUNT(*)", ""), "new"));
    let refused = home.ruslo(&run("narrow.sql", "e", &["--from-savepoint", "sp", "--allow-dropped-state"])).expect(2);
    assert!(refused.error().contains("the state of key0 was INT and is SMALLINT"), "{}", refused.err);
    let other = old().replace("INTERVAL '1' HOUR", "INTERVAL '2' HOUR");
    home.write("other.sql", &other);
    let refused = home.ruslo(&["upgrade", "--dry-run", "old.sql", "other.sql"]).expect(2);
    let expected = "keeps     Source sale: goes on where it was
begins    TumbleWindow shop, 2 h: empty, with what its source brings from now on
drops     TumbleWindow shop, 1 h
";
    assert_eq!(refused.out, expected);
    let refused = home.ruslo(&["upgrade", "--dry-run", "other.sql", "old.sql", "--savepoint", "sp"]).expect(2);
    assert!(refused.error().contains("the savepoint in sp was made by another query"), "{}", refused.err);
    for (folder, said) in [("nowhere", "no such folder"), ("c", "this is a checkpoint folder")] {
        let refused = home.ruslo(&run("old.sql", "f", &["--from-savepoint", folder])).expect(2);
        assert!(refused.error().contains(said), "{}", refused.err);
    }
    let batch = ["--from-savepoint", "sp", "--set", "execution.runtime-mode=batch"];
    let refused = home.ruslo(&run("old.sql", "f", &batch)).expect(2);
    assert!(refused.error().contains("a batch job has no state to go on with"), "{}", refused.err);
}

#[test]
fn state_can_be_looked_at() {
    let home = home();
    let read = stopped(&home);
    let hour = read / 3_600;
    let expected = groups(|n| n < read && n / 3_600 == hour);
    let listed = home.ruslo(&["state", "list", "sp", "--output", "json"]).expect(0).summary();
    let table = &listed["tables"][0];
    assert_eq!((&table["name"], &table["table"]), (&"TumbleWindow shop, 1 h".into(), &"slices".into()));
    let columns: Vec<_> = table["columns"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["bucket", "shop", "COUNT(*)", "MAX(sale.price)", "key_group"]);
    let kinds: Vec<_> = table["columns"].as_array().unwrap().iter().map(|it| it["type"].as_str().unwrap()).collect();
    assert_eq!(kinds[..4], ["BIGINT", "INT", "BIGINT", "INT"]);
    assert_eq!(listed["tables"].as_array().unwrap().len(), 1);
    let shown = home.ruslo(&["state", "list", "sp"]).expect(0).out;
    assert!(shown.contains("TumbleWindow shop, 1 h") && shown.contains("COUNT(*) BIGINT"), "{shown}");

    // What of a group is stored in several rows is merged here.
    for ((shop, _), prices) in &expected {
        let got = home.ruslo(&["state", "get", "sp", "--key", &shop.to_string()]).expect(0).out;
        let rows: Vec<serde_json::Value> = got.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let count: u64 = rows.iter().map(|row| row["COUNT(*)"].as_u64().unwrap()).sum();
        let most = rows.iter().map(|row| row["MAX(sale.price)"].as_i64().unwrap()).max().unwrap();
        assert_eq!((count, most), (prices.len() as u64, *prices.iter().max().unwrap()));
        assert!(rows.iter().all(|row| row["shop"] == *shop && row["bucket"] == (hour + 1) * 3_600_000));
    }
    let done = home.ruslo(&["state", "dump", "sp", "--to", "state.parquet"]).expect(0);
    assert!(done.out.ends_with(" rows of 'slices' of 'TumbleWindow shop, 1 h' in state.parquet\n"), "{}", done.out);
    let csv = home.ruslo(&["state", "dump", "sp", "--operator", "TumbleWindow shop, 1 h", "--format", "csv"]).expect(0);
    let query = "CREATE TABLE s (bucket BIGINT, shop INT, `COUNT(*)` BIGINT)
                 WITH ('connector' = 'filesystem', 'path' = 'state.parquet', 'format' = 'parquet');
                 CREATE TABLE o (bucket BIGINT, shop INT, n BIGINT)
                 WITH ('connector' = 'filesystem', 'path' = 'back', 'format' = 'csv');
                 INSERT INTO o SELECT bucket, shop, `COUNT(*)` FROM s";
    home.ruslo(&["run", "-e", query]).expect(0);
    let mut rows: Vec<_> =
        csv.out.lines().skip(1).map(|row| row.split(',').take(3).collect::<Vec<_>>().join(",")).collect();
    rows.sort();
    assert_eq!(home.rows("back"), rows);
    assert_eq!(csv.out.lines().next(), Some("bucket,shop,COUNT(*),MAX(sale.price),key_group"));

    for (arguments, said) in [
        (["state", "get", "sp", "--key", "x"], "the column 'shop' is INT"),
        (["state", "get", "sp", "--key", "77"], "has nothing under this key"),
        (["state", "dump", "sp", "--table", "nothing"], "there are: 'slices' of 'TumbleWindow shop, 1 h'"),
        (["state", "list", "sp", "--epoch", "99"], "there is no checkpoint 99 in sp"),
        (["state", "dump", "sp", "--format", "parquet"], "name it with --to"),
    ] {
        let refused = home.ruslo(&arguments).expect(2);
        assert!(refused.error().contains(said), "{}", refused.err);
    }
}

/// A query over `window` with the aggregates `calls`; windows are told by the minutes of the day between which they are.
fn over(window: &str, calls: &str) -> String {
    let minute = |column| format!("EXTRACT(HOUR FROM {column}) * 60 + EXTRACT(MINUTE FROM {column})");
    let (start, end) = (minute("window_start"), minute("window_end"));
    format!("SELECT shop, {start}, {end}, {calls} FROM TABLE({window}) GROUP BY shop, window_start, window_end")
}

/// Stops a query that counts, and goes on with more aggregates. `windows` are all there can be, in minutes.
fn add_aggregates(window: &str, windows: &[(i64, i64)]) {
    let home = home();
    let window = window.replace("(sale", "(TABLE sale").replacen(", ", ", DESCRIPTOR(at_time), ", 1);
    let kinds = "shop INT, s BIGINT, e BIGINT, n BIGINT";
    home.write("old.sql", script(COLUMNS, kinds, &over(&window, "COUNT(*)"), "old"));
    let mut running = home.start(&run("old.sql", "c", &[&SLOW, ["--parallelism", "2"].as_slice()].concat()));
    running.until_checkpoint(&home, 12);
    home.ruslo(&["stop", "c", "--savepoint", "sp"]).expect(0);
    let read = running.end().expect(130).summary()["rows_in"].as_i64().unwrap();
    let calls = "COUNT(DISTINCT price), MIN(price), SUM(price), COUNT(*), BOOL_OR(price > 990),
                 APPROX_COUNT_DISTINCT(price % 7), MAX(CAST(price AS DOUBLE)), COUNT(price) FILTER (WHERE price < 0)";
    let kinds = format!("{kinds}, least INT, total BIGINT, d BIGINT, b BOOLEAN, a BIGINT, x DOUBLE, z BIGINT");
    home.write("new.sql", script(COLUMNS, &kinds, &over(&window, calls), "new"));
    home.ruslo(&run("new.sql", "d", &["--from-savepoint", "sp", "--parallelism", "3"])).expect(0);

    let closed: BTreeSet<_> = home.rows("old").iter().map(|row| row.rsplit_once(',').unwrap().0.to_owned()).collect();
    let mut expected = Vec::new();
    for (shop, (start, end)) in (0..5).flat_map(|shop| windows.iter().map(move |window| (shop, *window))) {
        let all: Vec<_> = (0..ROWS).filter(|n| n % 5 == shop && (start..end).contains(&(n / 60))).collect();
        let name = format!("{shop},{},{}", start.rem_euclid(1_440), end.rem_euclid(1_440));
        if all.is_empty() || closed.contains(&name) {
            continue;
        }
        let prices: Vec<_> = all.iter().filter(|n| **n >= read).map(|n| n % 1_000).collect();
        let distinct = |of: fn(&i64) -> i64| prices.iter().map(of).collect::<BTreeSet<_>>().len();
        let or_null = |value: Option<String>| value.unwrap_or_default();
        let some = |of: &dyn Fn() -> String| or_null((!prices.is_empty()).then(of));
        expected.push(format!(
            "{name},{},{},{},{},{},{},{},0",
            distinct(|price| *price),
            or_null(prices.iter().min().map(i64::to_string)),
            some(&|| prices.iter().sum::<i64>().to_string()),
            all.len(),
            some(&|| prices.iter().any(|price| *price > 990).to_string()),
            distinct(|price| price % 7),
            or_null(prices.iter().max().map(|most| format!("{most}.0"))),
        ));
    }
    expected.sort();
    assert_eq!(home.rows("new"), expected, "{window}, {read} rows before");
}

#[test]
fn aggregates_can_be_added_to_every_kind_of_window() {
    let steps = |first: i64, step: usize| (first..240).step_by(step);
    let hour: Vec<_> = steps(0, 60).map(|start| (start, start + 60)).collect();
    add_aggregates("TUMBLE(sale, INTERVAL '1' HOUR)", &hour);
    let hops: Vec<_> = steps(-40, 20).map(|start| (start, start + 60)).collect();
    add_aggregates("HOP(sale, INTERVAL '20' MINUTE, INTERVAL '1' HOUR)", &hops);
    let grown = |start: i64| [20, 40, 60].map(|length| (start, start + length));
    let cumulated: Vec<_> = steps(0, 60).flat_map(grown).collect();
    add_aggregates("CUMULATE(sale, INTERVAL '20' MINUTE, INTERVAL '1' HOUR)", &cumulated);
    // All rows of a shop are one session, which ends ten minutes after the last.
    add_aggregates("SESSION(sale PARTITION BY shop, INTERVAL '10' MINUTE)", &[(0, 209)]);
}
