//! Random queries: some steps from tables to a sink, each a view of ours and a WITH of the oracle's.

use std::collections::BTreeSet;

use ruslo_core::rng::Rng;

use super::super::row::{Cell, Kind, Row};
use super::data::Inputs;
use super::relation::{Relation, Step};
use super::{joins, steps};

/// More rows than this are not joined again.
const ROWS_MAX: usize = 600;

/// Where the rows go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sink {
    /// Every change, as Debezium tells it.
    Changes,
    /// The last state.
    Final,
    /// The last state by the columns at these places.
    FinalBy(Vec<usize>),
    /// Every change, as text.
    Print,
}

/// A query over its inputs.
#[derive(Debug, Clone)]
pub(super) struct Query {
    pub(super) inputs: Inputs,
    pub(super) steps: Vec<Step>,
    pub(super) sink: Sink,
}

impl Query {
    pub(super) fn random(rng: &mut Rng) -> Self {
        let inputs = Inputs::random(rng);
        let mut relations: Vec<Relation> =
            inputs.0.iter().map(|input| Relation::table(input.name, !input.changes, 30)).collect();
        let count = 1 + rng.below(4);
        let mut steps: Vec<Step> = Vec::new();
        for index in 0..count {
            let last = match steps.last() {
                Some(step) => step.relation.clone(),
                None => relations[rng.below(relations.len())].clone(),
            };
            let other = relations[rng.below(relations.len())].clone();
            let step = step(rng, &format!("r{index}"), &last, &other);
            relations.push(step.relation.clone());
            steps.push(step);
        }
        let mut query = Self { inputs, steps, sink: Sink::Changes };
        query.sink = query.some_sink(rng);
        query
    }

    fn some_sink(&self, rng: &mut Rng) -> Sink {
        let key = &self.last().key;
        match rng.below(6) {
            0 | 1 => Sink::Final,
            2 if !key.is_empty() => Sink::FinalBy(key.clone()),
            3 => Sink::Print,
            _ => Sink::Changes,
        }
    }

    /// The same up to the step at `place`.
    pub(super) fn until(&self, place: usize) -> Self {
        let steps = self.steps.iter().take(place + 1).cloned().collect();
        let sink = if matches!(self.sink, Sink::FinalBy(_)) { Sink::Final } else { self.sink.clone() };
        Self { inputs: self.inputs.clone(), steps, sink }
    }

    pub(super) fn kind(&self) -> &'static str {
        self.steps.last().map_or("", |step| step.kind)
    }

    /// Whether what it prints is its answer.
    pub(super) fn prints(&self) -> bool {
        self.sink == Sink::Print
    }

    fn last(&self) -> &Relation {
        &self.steps[self.steps.len() - 1].relation
    }

    pub(super) fn columns(&self) -> Vec<Kind> {
        self.last().columns.iter().map(|column| column.kind).collect()
    }

    fn names(&self) -> String {
        self.last().columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The names of the tables and steps that it reads.
    pub(super) fn read(&self) -> BTreeSet<&str> {
        let mut read = BTreeSet::from([self.last().name.as_str()]);
        for step in self.steps.iter().rev() {
            if read.contains(step.relation.name.as_str()) {
                read.extend(step.text.ours.split(|letter: char| !letter.is_ascii_alphanumeric()));
            }
        }
        read
    }

    /// The script that runs it.
    pub(super) fn script(&self, in_batch: bool) -> String {
        let read = self.read();
        let tables = self.inputs.0.iter().filter(|input| read.contains(input.name)).map(|input| input.ddl(in_batch));
        let views = self.steps.iter().filter(|step| read.contains(step.relation.name.as_str()));
        let views = views.map(|step| format!("CREATE VIEW {} AS {};\n", step.relation.name, step.text.ours));
        let kinds = self.columns();
        let mut columns: Vec<String> =
            kinds.iter().enumerate().map(|(index, kind)| format!("c{index} {}", kind.sql())).collect();
        if let Sink::FinalBy(key) = &self.sink {
            let key: Vec<String> = key.iter().map(|place| format!("c{place}")).collect();
            columns.push(format!("PRIMARY KEY ({}) NOT ENFORCED", key.join(", ")));
        }
        let options = match &self.sink {
            Sink::Changes => {
                "'connector' = 'filesystem', 'path' = '${out}', 'format' = 'json', 'changelog' = 'debezium'"
            }
            Sink::Print => "'connector' = 'print'",
            _ => "'connector' = 'filesystem', 'path' = '${out}', 'format' = 'json', 'changelog' = 'final'",
        };
        format!(
            "{}CREATE TABLE result ({})\nWITH ({options});\n{}INSERT INTO result\nSELECT {} FROM {};",
            tables.collect::<String>(),
            columns.join(", "),
            views.collect::<String>(),
            self.names(),
            self.last().name
        )
    }

    /// The same as plain SQL.
    pub(super) fn oracle(&self) -> String {
        let read = self.read();
        let steps = self.steps.iter().filter(|step| read.contains(step.relation.name.as_str()));
        let steps = steps.map(|step| format!("{} AS ({})", step.relation.name, step.text.oracle));
        format!("WITH {}\nSELECT {} FROM {}", steps.collect::<Vec<_>>().join(",\n"), self.names(), self.last().name)
    }
}

/// What may be computed of `last`, perhaps with `other`.
fn step(rng: &mut Rng, name: &str, last: &Relation, other: &Relation) -> Step {
    let may_join = last.rows * other.rows / 3 <= ROWS_MAX;
    let mut both = [last, other];
    if rng.one_in(2) {
        both.reverse();
    }
    let times = match both {
        [Relation { time: Some(left), .. }, Relation { time: Some(right), .. }] => {
            Some([left.as_str(), right.as_str()])
        }
        _ => None,
    };
    match (rng.below(16), times, &last.time) {
        (0..=3, Some(times), _) if may_join && rng.one_in(2) => joins::interval(rng, name, both, times),
        (0..=3, Some(times), _) if may_join && rng.one_in(2) => joins::window(rng, name, both, times),
        (0..=3, ..) if may_join => joins::regular(rng, name, both),
        (4..=5, ..) => joins::semi(rng, name, both),
        (6, ..) => joins::scalar(rng, name, both),
        (7..=8, ..) => steps::set(rng, name, both),
        (9, _, Some(time)) => steps::deduplicate(rng, name, last, time),
        (9..=10, ..) => steps::top_n(rng, name, last),
        (11, ..) => steps::distinct(rng, name, last),
        (12, ..) => steps::filter(rng, name, last),
        _ => steps::group_by(rng, name, last),
    }
}

/// A row as `print` shows it.
pub(super) fn printed(row: &Row, kinds: &[Kind]) -> String {
    let cells = row.0.iter().zip(kinds).map(|(cell, kind)| match (cell, kind) {
        (Cell::Null, _) => "NULL".to_owned(),
        (Cell::Text(text), _) => text.clone(),
        (Cell::Number(number), Kind::Money) => {
            let sign = if *number < 0 { "-" } else { "" };
            format!("{sign}{}.{:02}", number.abs() / 100, number.abs() % 100)
        }
        (Cell::Number(number), Kind::Time) => {
            let time = arrow::temporal_conversions::timestamp_ms_to_datetime(*number).unwrap();
            time.format("%Y-%m-%d %H:%M:%S%.f").to_string()
        }
        (Cell::Number(number), _) => number.to_string(),
    });
    format!("[{}]", cells.collect::<Vec<_>>().join(", "))
}

/// The rows that are there after what was printed.
pub(super) fn materialised(text: &str) -> Result<Vec<String>, String> {
    let mut rows: Vec<String> = Vec::new();
    for line in text.lines() {
        let line = line.split_once("> ").map_or(line, |(_, line)| line);
        let (kind, row) = line.split_at_checked(2).ok_or_else(|| format!("no change: {line}"))?;
        match kind {
            "+I" | "+U" => rows.push(row.to_owned()),
            "-U" | "-D" => {
                let place = rows.iter().position(|known| known == row);
                rows.swap_remove(place.ok_or_else(|| format!("a row goes that is not there: {line}"))?);
            }
            _ => return Err(format!("no change: {line}")),
        }
    }
    Ok(rows)
}
