//! Random inputs: tables that grow, with event time, and tables that change.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use ruslo_core::rng::Rng;

use super::super::table::Record;

/// 2024-05-01 00:00:00.
const BEGIN_MS: i64 = 1_714_521_600_000;
const DELAY_SECONDS: i64 = 5;

/// The columns of every table, but for the event time `ts` of those that grow.
const COLUMNS: &str = "id BIGINT, k STRING, g INT, v BIGINT, w BIGINT, d DECIMAL(10, 2)";

/// A table of the names `t` and `u`, whose rows have times, or `c` and `e`, whose rows change.
#[derive(Debug, Clone)]
pub(super) struct Input {
    pub(super) name: &'static str,
    pub(super) changes: bool,
    has_key: bool,
    files: usize,
    /// In the order in which they are written.
    lines: Vec<Line>,
    /// What is there at the end, by id.
    rows: BTreeMap<i64, Record>,
}

/// A line of the file that the id says.
#[derive(Debug, Clone)]
struct Line {
    id: i64,
    text: String,
}

/// The inputs of a query: `t`, `u`, `c`, `e`.
#[derive(Debug, Clone)]
pub(super) struct Inputs(pub(super) Vec<Input>);

impl Inputs {
    pub(super) fn random(rng: &mut Rng) -> Self {
        Self(vec![
            Input::growing("t", rng),
            Input::growing("u", rng),
            Input::changing("c", rng),
            Input::changing("e", rng),
        ])
    }

    pub(super) fn get(&self, name: &str) -> Option<&Input> {
        self.0.iter().find(|input| input.name == name)
    }

    /// How many lines there are in all.
    pub(super) fn lines(&self) -> usize {
        self.0.iter().map(|input| input.lines.len()).sum()
    }

    /// The same without the rows of some ids; to find a small input that fails.
    pub(super) fn without(&self, name: &str, ids: &[i64]) -> Self {
        let left = |input: &Input| {
            let mut input = input.clone();
            if input.name == name {
                input.lines.retain(|line| !ids.contains(&line.id));
                input.rows.retain(|id, _| !ids.contains(id));
            }
            input
        };
        Self(self.0.iter().map(left).collect())
    }

    /// Writes them below `folder`: of tables that change the last rows, too, for batch mode.
    pub(super) fn write(&self, folder: &Path) {
        for input in &self.0 {
            input.write(folder);
        }
    }
}

impl Input {
    fn growing(name: &'static str, rng: &mut Rng) -> Self {
        let count = [1, 8, 20, 30][rng.below(4)];
        let step_ms = [1, 500, 3_000, 9_000][rng.below(4)];
        let mut input = Self::empty(name, false, rng);
        let mut at = BEGIN_MS;
        for id in 0..count {
            at += rng.below(step_ms) as i64;
            // Less than the delay, so that no row is behind the watermark of those before it.
            let ts = at + rng.below(DELAY_SECONDS as usize * 1_000) as i64;
            let record = random(rng, ts);
            input.lines.push(Line { id, text: format!("{{\"id\": {id}, {}}}", fields(&record, true)) });
            input.rows.insert(id, record);
        }
        input
    }

    fn changing(name: &'static str, rng: &mut Rng) -> Self {
        let count = [3, 15, 40, 60][rng.below(4)];
        let ids = 2 + rng.below(15);
        let mut input = Self::empty(name, true, rng);
        for _ in 0..count {
            let id = rng.below(ids) as i64;
            let (before, record) = (input.rows.get(&id).cloned(), random(rng, 0));
            let line = match (&before, rng.below(4)) {
                (None, _) => change(id, None, Some(&record), "c"),
                (Some(_), 0) => change(id, before.as_ref(), None, "d"),
                (Some(_), _) => change(id, before.as_ref(), Some(&record), "u"),
            };
            match line.ends_with("\"op\":\"d\"}") {
                true => input.rows.remove(&id),
                false => input.rows.insert(id, record),
            };
            input.lines.push(Line { id, text: line });
        }
        input
    }

    fn empty(name: &'static str, changes: bool, rng: &mut Rng) -> Self {
        let (has_key, files) = (rng.one_in(2), 1 + rng.below(3));
        Self { name, changes, has_key, files, lines: Vec::new(), rows: BTreeMap::new() }
    }

    /// Its rows' ids.
    pub(super) fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<i64> = self.lines.iter().map(|line| line.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Its CREATE TABLE; in batch mode, of the last rows.
    pub(super) fn ddl(&self, in_batch: bool) -> String {
        let name = self.name;
        let (columns, options) = match (self.changes, in_batch) {
            (false, _) => (
                format!("{COLUMNS}, ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '{DELAY_SECONDS}' SECOND"),
                format!("'path' = '${{dir}}/{name}', 'format' = 'json', 'source.split-size' = '300 b'"),
            ),
            (true, false) => {
                let key = if self.has_key { ", PRIMARY KEY (id) NOT ENFORCED" } else { "" };
                (format!("{COLUMNS}{key}"), format!("'path' = '${{dir}}/{name}', 'format' = 'debezium-json'"))
            }
            (true, true) => (COLUMNS.to_owned(), format!("'path' = '${{dir}}/{name}-last', 'format' = 'json'")),
        };
        format!("CREATE TABLE {name} ({columns})\nWITH ('connector' = 'filesystem', {options});\n")
    }

    fn write(&self, folder: &Path) {
        // All lines of an id in one file, in their order.
        let mut files = vec![String::new(); self.files];
        for line in &self.lines {
            files[line.id as usize % self.files].extend([line.text.as_str(), "\n"]);
        }
        std::fs::create_dir_all(folder.join(self.name)).unwrap();
        for (index, text) in files.iter().enumerate() {
            std::fs::write(folder.join(format!("{}/{index}.json", self.name)), text).unwrap();
        }
        let last = folder.join(format!("{}-last", self.name));
        std::fs::create_dir_all(&last).unwrap();
        let rows = self.rows.iter().map(|(id, row)| format!("{{\"id\": {id}, {}}}\n", fields(row, false)));
        std::fs::write(last.join("0.json"), rows.collect::<String>()).unwrap();
    }

    /// The lines, for a person.
    pub(super) fn text(&self) -> String {
        let lines = self.lines.iter().map(|line| format!("{}: {}\n", line.id as usize % self.files, line.text));
        format!("{}, by file:\n{}", self.name, lines.collect::<String>())
    }

    /// The last rows as the oracle has them: hundredths for `d`, and milliseconds for `ts`.
    pub(super) fn batch(&self) -> RecordBatch {
        let numbers = |column: &dyn Fn(&i64, &Record) -> Option<i64>| {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter(self.rows.iter().map(|(id, row)| column(id, row))));
            numbers
        };
        let texts: ArrayRef = Arc::new(StringArray::from_iter(self.rows.values().map(|row| row.k)));
        RecordBatch::try_from_iter_with_nullable([
            ("id", numbers(&|id, _| Some(*id)), true),
            ("k", texts, true),
            ("g", numbers(&|_, row| row.g), true),
            ("v", numbers(&|_, row| row.v), true),
            ("w", numbers(&|_, row| row.w), true),
            ("d", numbers(&|_, row| row.d), true),
            ("ts", numbers(&|_, row| Some(row.ts)), true),
        ])
        .unwrap()
    }
}

/// Few different values, so that rows meet others.
fn random(rng: &mut Rng, ts: i64) -> Record {
    let number = |rng: &mut Rng, span: usize| {
        let value = rng.below(2 * span + 1) as i64 - span as i64;
        (!rng.one_in(8)).then_some(value)
    };
    let k = [Some("a"), Some("b"), Some("a"), Some(""), Some("ü"), None][rng.below(6)];
    let (g, v, w) = (number(rng, 1), number(rng, 3), number(rng, 9));
    let d = [None, Some(0), Some(125), Some(-125), Some(99_999)][rng.below(5)];
    Record { k, g, v, w, d, ts }
}

fn change(id: i64, before: Option<&Record>, after: Option<&Record>, op: &str) -> String {
    let row =
        |row: Option<&Record>| row.map_or("null".to_owned(), |row| format!("{{\"id\":{id},{}}}", fields(row, false)));
    format!("{{\"before\":{},\"after\":{},\"op\":\"{op}\"}}", row(before), row(after))
}

/// The record's fields as JSON, without brackets.
fn fields(record: &Record, has_time: bool) -> String {
    let json = record.json();
    let inside = json.trim_end().trim_start_matches('{').trim_end_matches('}');
    match (has_time, inside.split_once(", \"ts\"")) {
        (false, Some((before, _))) => before.to_owned(),
        _ => inside.to_owned(),
    }
}
