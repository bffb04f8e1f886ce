//! Asks DuckDB whether the oracle is right, if Python has it.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::super::row::{Cell, Row};
use super::query::Query;

const ASK: &str = r#"
import json, sys
try:
    import duckdb
except ImportError:
    sys.exit(0)
for case in json.load(sys.stdin):
    with duckdb.connect() as db:
        for name, rows in case["tables"].items():
            db.execute(f"CREATE TABLE {name} (id BIGINT, k VARCHAR, g BIGINT, v BIGINT, w BIGINT, d BIGINT, ts BIGINT)")
            if rows:
                db.executemany(f"INSERT INTO {name} VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        try:
            rows = [[int(x) if x is not None and not isinstance(x, str) else x for x in row]
                    for row in db.execute(case["query"]).fetchall()]
        except duckdb.Error as error:
            print(f"seed {case['seed']}: DuckDB says {error}\n{case['query']}")
            continue
        key = lambda row: json.dumps(row)
        if sorted(map(key, rows)) != sorted(map(key, case["rows"])):
            print(f"seed {case['seed']}: DuckDB has {sorted(map(key, rows))}, the oracle {sorted(map(key, case['rows']))}\n{case['query']}")
"#;

/// What is asked of a query with these rows.
pub(super) fn question(seed: u64, query: &Query, rows: &[Row]) -> Value {
    let cell = |cell: &Cell| match cell {
        Cell::Null => Value::Null,
        Cell::Number(number) => json!(number),
        Cell::Text(text) => json!(text),
    };
    let lines = |rows: &[Row]| rows.iter().map(|row| row.0.iter().map(cell).collect::<Vec<_>>()).collect::<Vec<_>>();
    let tables = query.inputs.0.iter().map(|input| {
        let batch = input.batch();
        let rows: Vec<Row> = (0..batch.num_rows()).map(|row| super::super::oracle::read(&batch, row)).collect();
        (input.name.to_owned(), json!(lines(&rows)))
    });
    let text = query.oracle().replace(" / ", " // ").replace("LEFT SEMI JOIN", "SEMI JOIN");
    let text = text.replace("LEFT ANTI JOIN", "ANTI JOIN");
    json!({"seed": seed, "tables": tables.collect::<serde_json::Map<_, _>>(), "query": text, "rows": lines(rows)})
}

/// Where DuckDB has another answer.
pub(super) fn differences(questions: &[Value]) -> Vec<String> {
    let python = Command::new("python3").args(["-c", ASK]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut python) = python else { return Vec::new() };
    let text = serde_json::to_string(questions).unwrap();
    // Without DuckDB it reads nothing.
    let _ = python.stdin.take().unwrap().write_all(text.as_bytes());
    let output = python.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    if text.is_empty() { Vec::new() } else { vec![text] }
}
