//! `kill -9` of the real process, again and again, on slowed flights examples: the answer must be the oracle's.
//!
//! Windows that tumble, hop and follow sessions each have a test, since each keeps its state in its own way. All three
//! wait most of a day for their rows, so there is state to lose whenever the process is killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ruslo::core::rng::Rng;
use serde_json::Value;

use crate::home::{Answer, Home};

const SEED: u64 = 20_130_308;

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flights").canonicalize().unwrap()
}

/// An example, and how it is slowed down and killed.
pub(crate) struct Pipeline {
    pub(crate) name: &'static str,
    /// Where it writes, in `examples/flights`.
    pub(crate) output: &'static str,
    pub(crate) rounds: usize,
    pub(crate) rows_per_second: &'static str,
}

impl Pipeline {
    /// The round that is killed while it starts, before it can have a checkpoint.
    fn early(&self) -> usize {
        self.rounds / 2
    }

    pub(crate) fn script(&self) -> String {
        format!("{}.sql", self.name)
    }

    /// A working directory in which the example's relative paths lead to its data and to an output of its own.
    pub(crate) fn home(&self) -> Home {
        let home = Home::new();
        home.write(&self.script(), std::fs::read(example().join(self.script())).unwrap());
        std::fs::create_dir_all(home.path("examples/flights")).unwrap();
        std::os::unix::fs::symlink(example().join("data"), home.path("examples/flights/data")).unwrap();
        home
    }

    fn arguments(script: &str) -> [&str; 7] {
        ["run", script, "--checkpoint-dir", "c", "--resume", "--checkpoint-interval", "100ms"]
    }

    /// Starts it again and again, each time killed; then runs it to its end.
    fn killed(&self, home: &Home) -> Answer {
        let script = self.script();
        let all = Self::arguments(&script);
        let mut rng = Rng::seeded(SEED);
        let parallelism = ["1", "2", "3"];
        let rate = format!("source.rows-per-second={}", self.rows_per_second);
        let mut with_checkpoint = 0;
        for round in 0..self.rounds {
            // A few rows a batch, so that barriers come between them; another parallelism every time.
            let more = ["--set", &rate, "--set", "execution.batch-rows=64", "--parallelism"];
            let before = home.newest_epoch("c").max(1);
            let mut running = home.start(&[&all[..], &more, &[parallelism[rng.below(3)]]].concat());
            let mut pause = 0;
            if round != self.early() {
                running.until_it_says("a checkpoint every");
                pause = 200 + rng.below(1_300) as u64;
            }
            std::thread::sleep(Duration::from_millis(pause));
            assert!(!running.is_over(), "round {round}: it ended too early: {}", running.err());
            running.kill();
            // The first new manifest only repeats the one that was resumed from.
            with_checkpoint += usize::from(home.newest_epoch("c") > before + 1);
        }
        let enough = self.rounds - self.rounds.div_ceil(10);
        assert!(with_checkpoint >= enough, "a checkpoint in only {with_checkpoint} of {} rounds", self.rounds);
        home.ruslo(&[&all[..], &["--output", "json"]].concat()).expect(0)
    }

    /// Whether what was written is the oracle's.
    pub(crate) fn check(&self, home: &Home) {
        let (columns, expected) = self.expected();
        let written = self.written(home, &columns);
        let wrong: Vec<_> = written.iter().filter(|(row, times)| expected.get(*row) != Some(*times)).take(5).collect();
        let missing: Vec<_> = expected.keys().filter(|row| !written.contains_key(*row)).take(5).collect();
        assert!(wrong.is_empty() && missing.is_empty(), "not expected: {wrong:?}, missing: {missing:?}");
    }

    fn expected(&self) -> (Vec<String>, Rows) {
        let text = std::fs::read_to_string(example().join(format!("expected/{}.csv", self.name))).unwrap();
        let mut lines = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
        let columns = lines.next().unwrap();
        (columns, multiset(lines.map(|cells| cells.iter().map(|text| cell(text)).collect())))
    }

    fn written(&self, home: &Home, columns: &[String]) -> Rows {
        let row = |line: String| {
            let value: Value = serde_json::from_str(&line).unwrap();
            let text = |name: &String| match &value[name] {
                Value::String(text) => cell(text),
                other => cell(&other.to_string()),
            };
            columns.iter().map(text).collect()
        };
        multiset(home.rows(&format!("examples/flights/{}", self.output)).into_iter().map(row))
    }
}

/// Rows as a multiset.
type Rows = BTreeMap<Vec<String>, usize>;

fn multiset(rows: impl Iterator<Item = Vec<String>>) -> Rows {
    let mut set = Rows::new();
    rows.for_each(|row| *set.entry(row).or_default() += 1);
    set
}

/// A number has nine digits behind the point: more than a person wants, fewer than summing in another order moves.
fn cell(text: &str) -> String {
    match text.parse::<f64>() {
        Ok(number) => format!("{number:.9}"),
        Err(_) => text.to_owned(),
    }
}

#[test]
fn killed_twenty_times_the_answer_is_the_oracles() {
    let departures = Pipeline { name: "departures", output: "output", rounds: 20, rows_per_second: "3000" };
    let home = departures.home();
    let summary = departures.killed(&home).summary();
    let oracle = std::fs::read_to_string(example().join("expected/summary.json")).unwrap();
    let oracle: Value = serde_json::from_str(&oracle).unwrap();
    for name in ["rows_in", "rows_out", "late_rows"] {
        assert_eq!(summary[name], oracle[name], "{name}");
    }
    departures.check(&home);
}

#[test]
fn killed_sessions_are_the_oracles() {
    let bursts = Pipeline { name: "bursts", output: "output-bursts", rounds: 10, rows_per_second: "4000" };
    let home = bursts.home();
    let summary = bursts.killed(&home).summary();
    assert_eq!((&summary["rows_in"], &summary["late_rows"]), (&Value::from(80_789), &Value::from(0)));
    bursts.check(&home);
}

#[test]
fn killed_hopping_windows_are_the_oracles() {
    let average =
        Pipeline { name: "moving_average", output: "output-moving-average", rounds: 10, rows_per_second: "500" };
    let home = average.home();
    // The week that it asks for and a day around it: rows are in windows from the first round to the last.
    home.shell(
        "gzip -dc examples/flights/data/*.gz | awk -F, 'NR == 1 || $2 == 3 && $3 >= 3 && $3 <= 11' > week.csv \
         && sed -i 's|examples/flights/data/flights-2013-q1.csv.gz|week.csv|' moving_average.sql",
    )
    .expect(0);
    let summary = average.killed(&home).summary();
    assert_eq!(summary["late_rows"], Value::from(0));
    average.check(&home);
}
