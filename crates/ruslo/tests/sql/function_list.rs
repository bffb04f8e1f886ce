//! `docs/sql/function-list.md` against the functions that there are: each is there, and each example gives what it says.
//!
//! A row of the page is `| names | example | what it gives |`; an example without a result is only run. Aggregates stand in
//! `docs/sql/aggregates.md`.

use std::collections::BTreeSet;
use std::path::Path;

use crate::docs::run;

/// A row of the page's tables.
#[derive(Debug)]
struct Row {
    names: Vec<String>,
    example: String,
    gives: String,
}

/// Compares the pages in `folder` with the functions; what was wrong.
pub(crate) fn check(folder: &Path) -> Vec<String> {
    let page = std::fs::read_to_string(folder.join("function-list.md")).unwrap();
    let tables = tables(&page);
    assert!(tables.len() > 3, "no tables in function-list.md");
    let mut failures: Vec<String> = tables.iter().flat_map(|table| wrong_examples(table)).collect();
    let listed: BTreeSet<&String> = tables.iter().flatten().flat_map(|row| &row.names).collect();
    let shown = run("SHOW FUNCTIONS;", folder).unwrap();
    let there: BTreeSet<String> = shown.lines().skip(2).map(|line| line.trim().to_owned()).collect();
    let aggregates = std::fs::read_to_string(folder.join("aggregates.md")).unwrap().to_lowercase();
    for name in there.iter().filter(|name| !name.is_empty() && !listed.contains(name)) {
        if !aggregates.contains(&format!("`{name}(")) && !aggregates.contains(&format!("`{name}`")) {
            failures.push(format!("'{name}' is in neither function-list.md nor aggregates.md"));
        }
    }
    // What has an example of its own need not have a name of its own: IF becomes CASE.
    let others = tables.iter().flatten().flat_map(|row| row.names.iter().skip(1));
    failures.extend(others.filter(|name| !there.contains(*name)).map(|name| format!("there is no '{name}'")));
    failures
}

fn tables(page: &str) -> Vec<Vec<Row>> {
    let mut tables: Vec<Vec<Row>> = Vec::new();
    for line in page.lines() {
        if line.starts_with("|---") {
            tables.push(Vec::new());
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect();
        let names = line.split('|').nth(1).unwrap_or_default();
        if !names.trim().starts_with('`') {
            continue;
        }
        let names = names.split(',').map(|name| name.trim().trim_matches('`').to_lowercase()).collect();
        let cell =
            |place: usize| cells.get(place).copied().unwrap_or_default().trim_end_matches(['|', '`', ' ']).to_owned();
        tables.last_mut().unwrap().push(Row { names, example: cell(1), gives: cell(2) });
    }
    tables
}

/// Runs a table's examples as the columns of one row.
fn wrong_examples(table: &[Row]) -> Vec<String> {
    let columns: Vec<String> =
        table.iter().enumerate().map(|(place, row)| format!("{} AS c{place}", row.example)).collect();
    let script = format!("SELECT\n{}\nFROM (VALUES (1)) AS one (n);", columns.join(",\n"));
    let printed = match run(&script, Path::new("/")) {
        Ok(printed) => printed,
        Err(error) => return vec![error],
    };
    let values: Vec<&str> = printed.lines().nth(2).unwrap_or_default().split(" | ").map(str::trim).collect();
    if values.len() != table.len() {
        return vec![format!("{} examples have {} values:\n{printed}", table.len(), values.len())];
    }
    let wrong = table.iter().zip(values).filter(|(row, value)| !row.gives.is_empty() && row.gives != *value);
    wrong.map(|(row, value)| format!("{} gives {value}, not {}", row.example, row.gives)).collect()
}
