//! Nine pipelines over rows that follow from a seed, and what each must write: computed here, from the rows alone.

use std::collections::BTreeMap;

use ruslo::core::rng::Rng;
use serde_json::Value;

use crate::home::Home;

/// What a pipeline computes. Each keeps its state in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Tumble,
    Hop,
    Session,
    TopN,
    Deduplicate,
    /// Over the whole stream: state that only grows, in a keyed table.
    FirstOfAll,
    /// Rows beside later ones of their key: state that waits for the watermark.
    IntervalJoin,
    /// Groups that change, beside rows: every change is written.
    ChangingJoin,
    /// The first of groups that change: the last state is written.
    UpdatingTopN,
}

pub(crate) const KINDS: [Kind; 9] = [
    Kind::Tumble,
    Kind::Hop,
    Kind::Session,
    Kind::TopN,
    Kind::Deduplicate,
    Kind::FirstOfAll,
    Kind::IntervalJoin,
    Kind::ChangingJoin,
    Kind::UpdatingTopN,
];

const MINUTE: i64 = 60_000;
const SLIDE: i64 = 20_000;
const GAP: i64 = 3_000;
/// Rows of a window that Top-N lets through.
const MOST: usize = 3;
/// Groups that the updating Top-N lets through.
const GROUPS: usize = 7;
/// How far after a row its partners are.
const REACH: i64 = 2_000;
/// Rows with smaller values stand beside their group.
const SMALL: i64 = 3;

const FIRST_OF_ALL: &str = "SELECT k, id, v, rownum FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY k, v ORDER BY ts)
     AS rownum FROM t) WHERE rownum = 1";

const SUMS: &str = "SELECT k, COUNT(*) AS n, SUM(v) AS s FROM t GROUP BY k";

struct Row {
    id: i64,
    key: i64,
    value: i64,
    /// Milliseconds since the beginning of 2026.
    at: i64,
}

/// A pipeline with its input.
pub(crate) struct Pipeline {
    pub(crate) kind: Kind,
    rows: Vec<Row>,
}

impl Pipeline {
    /// Twenty rows a second of event time, two seconds early or late: none is late for a watermark that waits for five.
    pub(crate) fn new(kind: Kind, seed: u64, rows: usize) -> Self {
        let mut rng = Rng::seeded(seed);
        let row = |id: i64| Row {
            id,
            key: rng.below(40) as i64,
            value: rng.below(1_000) as i64,
            at: 2_000 + id * 50 + rng.below(4_001) as i64 - 2_000,
        };
        Self { kind, rows: (0..rows as i64).map(row).collect() }
    }

    /// Writes `in.csv` and `job.sql`.
    pub(crate) fn prepare(&self, home: &Home) {
        let line = |row: &Row| {
            let (seconds, millis) = (row.at / 1_000, row.at % 1_000);
            let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
            let day = 1 + hour / 24;
            let at = format!("2026-01-{day:02} {:02}:{minute:02}:{second:02}.{millis:03}", hour % 24);
            format!("{},{},{},{at}\n", row.id, row.key, row.value)
        };
        home.write("in.csv", self.rows.iter().map(line).collect::<String>());
        home.write("job.sql", self.script());
    }

    fn script(&self) -> String {
        let (columns, query) = self.query();
        format!(
            "CREATE TABLE t (id BIGINT, k BIGINT, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
             WITH ('connector' = 'filesystem', 'path' = 'in.csv', 'format' = 'csv');
             CREATE TABLE o ({columns}) WITH ('connector' = 'filesystem', 'path' = 'out', {written});
             INSERT INTO o {query};",
            written = match self.kind {
                Kind::ChangingJoin => "'format' = 'json', 'changelog' = 'debezium'",
                Kind::UpdatingTopN => "'format' = 'csv', 'changelog' = 'final'",
                _ => "'format' = 'csv'",
            }
        )
    }

    fn query(&self) -> (&'static str, String) {
        let groups = "k BIGINT, n BIGINT, s BIGINT, lo BIGINT, hi BIGINT";
        let grouped = |window: &str| {
            format!(
                "SELECT k, COUNT(*), SUM(v), MIN(id), MAX(id) FROM TABLE({window}) GROUP BY k, window_start, window_end"
            )
        };
        let ranked = |keys: &str, order: &str, most: usize| {
            format!(
                "SELECT k, id, v, rownum FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start, window_end{keys}
                 ORDER BY {order}) AS rownum FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)))
                 WHERE rownum <= {most}"
            )
        };
        let rows = "k BIGINT, id BIGINT, v BIGINT, r BIGINT";
        match self.kind {
            Kind::Tumble => (groups, grouped("TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)")),
            Kind::Hop => (groups, grouped("HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '20' SECOND, INTERVAL '1' MINUTE)")),
            Kind::Session => (groups, grouped("SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '3' SECOND)")),
            Kind::TopN => (rows, ranked("", "v DESC, id", MOST)),
            Kind::Deduplicate => (rows, ranked(", k", "ts, id", 1)),
            Kind::FirstOfAll => (rows, FIRST_OF_ALL.to_owned()),
            Kind::IntervalJoin => (
                "k BIGINT, id BIGINT, other BIGINT, v BIGINT",
                "SELECT a.k, a.id, b.id, b.v FROM t a LEFT JOIN t b
                 ON a.k = b.k AND b.id <> a.id AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '2' SECOND"
                    .to_owned(),
            ),
            Kind::ChangingJoin => (
                "k BIGINT, n BIGINT, s BIGINT, id BIGINT",
                format!("SELECT g.k, g.n, g.s, b.id FROM ({SUMS}) g LEFT JOIN t b ON g.k = b.k AND b.v < {SMALL}"),
            ),
            Kind::UpdatingTopN => (
                "k BIGINT, n BIGINT, s BIGINT, r BIGINT, PRIMARY KEY (r) NOT ENFORCED",
                format!(
                    "SELECT k, n, s, r FROM (SELECT *, ROW_NUMBER() OVER (ORDER BY s DESC, k) AS r FROM ({SUMS}))
                     WHERE r <= {GROUPS}"
                ),
            ),
        }
    }

    /// The lines that must be written, sorted.
    pub(crate) fn expected(&self) -> Vec<String> {
        let mut lines = match self.kind {
            Kind::Tumble => self.groups(|at| vec![at.div_euclid(MINUTE) * MINUTE]),
            Kind::Hop => self.groups(|at| {
                let last = at.div_euclid(SLIDE) * SLIDE;
                (0..MINUTE / SLIDE).map(|back| last - back * SLIDE).collect()
            }),
            Kind::Session => self.sessions(),
            Kind::TopN => self.ranked(|_| 0, |row| (-row.value, row.id), MOST),
            Kind::Deduplicate => self.ranked(|row| row.key, |row| (row.at, row.id), 1),
            Kind::FirstOfAll => self.first_of_all(),
            Kind::IntervalJoin => self.interval_join(),
            Kind::ChangingJoin => self.changing_join(),
            Kind::UpdatingTopN => self.updating_top_n(),
        };
        lines.sort();
        lines
    }

    fn interval_join(&self) -> Vec<String> {
        let mut by_key: BTreeMap<i64, Vec<&Row>> = BTreeMap::new();
        self.rows.iter().for_each(|row| by_key.entry(row.key).or_default().push(row));
        let mut lines = Vec::new();
        for a in &self.rows {
            let before = lines.len();
            let near = |b: &&&Row| b.id != a.id && (a.at..=a.at + REACH).contains(&b.at);
            let partners = by_key[&a.key].iter().filter(near);
            lines.extend(partners.map(|b| format!("{},{},{},{}", a.key, a.id, b.id, b.value)));
            if lines.len() == before {
                lines.push(format!("{},{},,", a.key, a.id));
            }
        }
        lines
    }

    /// Of each key: how many rows, and their sum.
    fn sums(&self) -> BTreeMap<i64, (i64, i64)> {
        let mut sums: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
        for row in &self.rows {
            let (count, sum) = sums.entry(row.key).or_default();
            (*count, *sum) = (*count + 1, *sum + row.value);
        }
        sums
    }

    fn changing_join(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (key, (count, sum)) in self.sums() {
            let before = lines.len();
            let small = self.rows.iter().filter(|row| row.key == key && row.value < SMALL);
            lines.extend(small.map(|row| format!("{key},{count},{sum},{}", row.id)));
            if lines.len() == before {
                lines.push(format!("{key},{count},{sum},null"));
            }
        }
        lines
    }

    fn updating_top_n(&self) -> Vec<String> {
        let mut sums: Vec<_> = self.sums().into_iter().collect();
        sums.sort_by_key(|(key, (_, sum))| (-sum, *key));
        let ranks = sums.into_iter().take(GROUPS).zip(1..);
        ranks.map(|((key, (count, sum)), rank)| format!("{key},{count},{sum},{rank}")).collect()
    }

    fn groups(&self, windows: impl Fn(i64) -> Vec<i64>) -> Vec<String> {
        let mut groups: BTreeMap<(i64, i64), Vec<&Row>> = BTreeMap::new();
        for row in &self.rows {
            windows(row.at).into_iter().for_each(|start| groups.entry((row.key, start)).or_default().push(row));
        }
        groups.iter().map(|((key, _), rows)| group(*key, rows)).collect()
    }

    fn sessions(&self) -> Vec<String> {
        let mut by_key: BTreeMap<i64, Vec<&Row>> = BTreeMap::new();
        self.rows.iter().for_each(|row| by_key.entry(row.key).or_default().push(row));
        let mut lines = Vec::new();
        for (key, mut rows) in by_key {
            rows.sort_by_key(|row| row.at);
            lines.extend(rows.chunk_by(|a, b| b.at - a.at <= GAP).map(|session| group(key, session)));
        }
        lines
    }

    /// Of rows of one time the first is the one with the least columns: here, the least id.
    fn first_of_all(&self) -> Vec<String> {
        let mut first: BTreeMap<(i64, i64), &Row> = BTreeMap::new();
        for row in &self.rows {
            let least = first.entry((row.key, row.value)).or_insert(row);
            if (row.at, row.id) < (least.at, least.id) {
                *least = row;
            }
        }
        first.values().map(|row| format!("{},{},{},1", row.key, row.id, row.value)).collect()
    }

    fn ranked(&self, part: fn(&Row) -> i64, order: fn(&Row) -> (i64, i64), most: usize) -> Vec<String> {
        let mut parts: BTreeMap<(i64, i64), Vec<&Row>> = BTreeMap::new();
        self.rows.iter().for_each(|row| parts.entry((row.at / MINUTE, part(row))).or_default().push(row));
        let mut lines = Vec::new();
        for mut rows in parts.into_values() {
            rows.sort_by_key(|row| order(row));
            let ranked = rows.iter().take(most).enumerate();
            lines.extend(ranked.map(|(rank, row)| format!("{},{},{},{}", row.key, row.id, row.value, rank + 1)));
        }
        lines
    }

    /// The visible lines, sorted; of changes, what they come to.
    fn written(&self, home: &Home) -> Vec<String> {
        let lines = home.rows("out");
        if self.kind != Kind::ChangingJoin {
            return lines;
        }
        let mut table: BTreeMap<String, i64> = BTreeMap::new();
        for line in lines {
            let change: Value = serde_json::from_str(&line).unwrap();
            for (side, sign) in [("before", -1), ("after", 1)] {
                if let Some(row) = change[side].as_object() {
                    let columns = ["k", "n", "s", "id"].map(|column| row[column].to_string());
                    *table.entry(columns.join(",")).or_default() += sign;
                }
            }
        }
        assert!(table.values().all(|count| *count >= 0), "what was never there was taken back");
        table.into_iter().flat_map(|(row, count)| std::iter::repeat_n(row, count as usize)).collect()
    }

    /// Panics, if what is visible is not what must be there.
    pub(crate) fn check(&self, home: &Home) {
        let (expected, written) = (self.expected(), self.written(home));
        let wrong = expected.iter().zip(&written).find(|(expected, written)| expected != written);
        assert!(
            expected == written,
            "{:?}: {} lines instead of {}; the first that differ: expected and written {wrong:?}",
            self.kind,
            written.len(),
            expected.len()
        );
    }
}

fn group(key: i64, rows: &[&Row]) -> String {
    let ids = || rows.iter().map(|row| row.id);
    let sum: i64 = rows.iter().map(|row| row.value).sum();
    format!("{key},{},{sum},{},{}", rows.len(), ids().min().unwrap(), ids().max().unwrap())
}
