//! `kill -9` of the real process, twenty times, on the slowed flights example: the answer must be the oracle's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ruslo::core::rng::Rng;
use serde_json::Value;

use crate::home::Home;

const ROUNDS: usize = 20;

/// The round that is killed while it starts, before it can have a checkpoint.
const EARLY: usize = 10;

const SEED: u64 = 20_130_308;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights").canonicalize().unwrap()
}

/// A working directory in which the example's relative paths lead to its data and to an output of its own.
fn home() -> Home {
    let home = Home::new();
    home.write("departures.sql", std::fs::read(example().join("departures.sql")).unwrap());
    std::fs::create_dir_all(home.path("examples/flights")).unwrap();
    std::os::unix::fs::symlink(example().join("data"), home.path("examples/flights/data")).unwrap();
    home
}

/// Rows as a multiset: the origin and the window, how many departures, how late.
type Rows = BTreeMap<(String, String, String, u64, i64), usize>;

fn row(origin: &str, from: &str, to: &str, departures: u64, delay: f64) -> (String, String, String, u64, i64) {
    // Nine digits behind the point: more than a person wants, fewer than summing in another order moves.
    (origin.to_owned(), from.to_owned(), to.to_owned(), departures, (delay * 1e9).round() as i64)
}

fn expected() -> Rows {
    let text = std::fs::read_to_string(example().join("expected/departures.csv")).unwrap();
    let mut rows = Rows::new();
    for line in text.lines().skip(1) {
        let cells: Vec<_> = line.split(',').collect();
        let key = row(cells[0], cells[1], cells[2], cells[3].parse().unwrap(), cells[4].parse().unwrap());
        *rows.entry(key).or_default() += 1;
    }
    rows
}

fn written(home: &Home) -> Rows {
    let mut rows = Rows::new();
    for line in home.rows("examples/flights/output") {
        let value: Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| value[name].as_str().unwrap().to_owned();
        // A fraction of zero seconds may be written or not.
        let time = |name: &str| text(name).trim_end_matches(".000").replace('T', " ");
        let departures = value["departures"].as_u64().unwrap();
        let delay = value["mean_delay"].as_f64().unwrap();
        *rows
            .entry(row(&text("origin"), &time("window_start"), &time("window_end"), departures, delay))
            .or_default() += 1;
    }
    rows
}

#[test]
fn killed_twenty_times_the_answer_is_the_oracles() {
    let home = home();
    let mut rng = Rng::seeded(SEED);
    let parallelism = ["1", "2", "3"];
    let all = ["run", "departures.sql", "--checkpoint-dir", "c", "--resume", "--checkpoint-interval", "100ms"];
    let mut with_checkpoint = 0;
    for round in 0..ROUNDS {
        // A few rows a batch, so that barriers come between them; another parallelism every time.
        let more = ["--set", "source.rows-per-second=3000", "--set", "execution.batch-rows=64", "--parallelism"];
        let arguments = [&all[..], &more, &[parallelism[rng.below(3)]]].concat();
        let before = home.newest_epoch("c").max(1);
        let mut running = home.start(&arguments);
        let pause = match round {
            EARLY => 0,
            _ => {
                running.until_it_says("a checkpoint every");
                200 + rng.below(1_300) as u64
            }
        };
        std::thread::sleep(Duration::from_millis(pause));
        assert!(!running.is_over(), "round {round}: it ended too early: {}", running.err());
        running.kill();
        // The first new manifest only repeats the one that was resumed from.
        with_checkpoint += usize::from(home.newest_epoch("c") > before + 1);
    }
    assert!(with_checkpoint * 10 >= ROUNDS * 9, "a checkpoint in only {with_checkpoint} of {ROUNDS} rounds");

    let last = home.ruslo(&[&all[..], &["--output", "json"]].concat()).expect(0);
    let summary = last.summary();
    let oracle = std::fs::read_to_string(example().join("expected/summary.json")).unwrap();
    let oracle: Value = serde_json::from_str(&oracle).unwrap();
    for name in ["rows_in", "rows_out", "late_rows"] {
        assert_eq!(summary[name], oracle[name], "{name}");
    }
    let (written, expected) = (written(&home), expected());
    let wrong: Vec<_> = written.iter().filter(|(row, times)| expected.get(*row) != Some(*times)).take(5).collect();
    let missing: Vec<_> = expected.keys().filter(|row| !written.contains_key(*row)).take(5).collect();
    assert!(wrong.is_empty() && missing.is_empty(), "not expected: {wrong:?}, missing: {missing:?}");
}
