//! Rows of an answer, ours and the oracle's, in one form.

use std::fmt;

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use serde_json::Value;

/// What a column of a generated query is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Text,
    /// A TIMESTAMP(3); for the oracle milliseconds since 1970.
    Time,
    /// A DECIMAL with two digits behind the point; for the oracle hundredths.
    Money,
}

impl Kind {
    /// Its type in a sink's table.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Int => "BIGINT",
            Self::Text => "STRING",
            Self::Time => "TIMESTAMP(3)",
            Self::Money => "DECIMAL(38, 2)",
        }
    }
}

/// A value: every kind but text as a whole number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    Null,
    Number(i64),
    Text(String),
}

/// A row of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row(pub(crate) Vec<Cell>);

impl Row {
    /// The row that a line of the sink `c0, c1, …` says.
    pub(crate) fn of_json(line: &str, kinds: &[Kind]) -> Self {
        let value: Value = serde_json::from_str(line).unwrap();
        let cells = kinds.iter().enumerate().map(|(index, kind)| cell(&value[format!("c{index}")], *kind));
        Self(cells.collect())
    }
}

fn cell(value: &Value, kind: Kind) -> Cell {
    match (value, kind) {
        (Value::Null, _) => Cell::Null,
        (Value::Number(number), Kind::Int) => Cell::Number(number.as_i64().unwrap()),
        (Value::Number(number), Kind::Money) => Cell::Number((number.as_f64().unwrap() * 100.0).round() as i64),
        (Value::String(text), Kind::Text) => Cell::Text(text.clone()),
        (Value::String(text), Kind::Time) => Cell::Number(string_to_timestamp_nanos(text).unwrap() / 1_000_000),
        other => panic!("{other:?}"),
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for cell in &self.0 {
            match cell {
                Cell::Null => write!(f, "| NULL ")?,
                Cell::Number(number) => write!(f, "| {number} ")?,
                Cell::Text(text) => write!(f, "| {text:?} ")?,
            }
        }
        f.write_str("|")
    }
}
