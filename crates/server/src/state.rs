//! `ruslo state`: the rows that operators keep, in a checkpoint or a savepoint.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use ruslo::core::disk::{Disk, LocalDisk};
use ruslo::core::memory::human_bytes;
use ruslo::formats::format;
use ruslo::state::{State, Table as StateTable};
use ruslo::{Epoch, Error, Result};
use serde_json::{Value, json};

use crate::args::{DumpForm, Output, StateCommand, StateOf, StatePlace};
use crate::command::say;
use crate::table::{Side, Table};
use crate::text::count;

/// Answers.
pub(crate) fn run(what: &StateCommand) -> Result<()> {
    match what {
        StateCommand::List { place, output } => list(&open(place)?, *output),
        StateCommand::Get { place, of, key } => get(&open(place)?, of, key),
        StateCommand::Dump { place, of, to, form } => dump(&open(place)?, of, to.as_deref(), *form),
    }
}

fn open(place: &StatePlace) -> Result<State> {
    State::open(&place.dir, place.epoch.map(Epoch))
}

fn list(state: &State, output: Output) -> Result<()> {
    let tables = state.tables()?;
    match output {
        Output::Text => say(&listing(state, &tables)),
        Output::Json => {
            let tables: Vec<_> = tables.iter().map(listed).collect();
            say(&format!("{}\n", json!({ "checkpoint": state.epoch().0, "tables": tables })))
        }
    }
}

fn listing(state: &State, tables: &[StateTable]) -> String {
    use Side::{Left, Right};
    if tables.is_empty() {
        return format!("checkpoint {}: no operator keeps anything\n", state.epoch());
    }
    let columns = [
        ("operator", Left),
        ("id", Left),
        ("table", Left),
        ("rows", Right),
        ("bytes", Right),
        ("key groups", Right),
        ("columns", Left),
    ];
    let mut shown = Table::new(&columns);
    for table in tables {
        let columns = table.columns().into_iter().map(|(name, kind)| format!("{name} {kind}"));
        shown.row([
            table.operator_name.clone(),
            table.operator.to_string(),
            table.name.clone(),
            count(table.rows),
            human_bytes(table.bytes),
            count(table.key_groups as u64),
            columns.collect::<Vec<_>>().join(", "),
        ]);
    }
    format!("checkpoint {}\n{}", state.epoch(), shown.render(""))
}

fn listed(table: &StateTable) -> Value {
    let columns = table.columns();
    let columns = columns.into_iter().map(|(name, kind)| json!({ "name": name, "type": kind }));
    json!({
        "operator": table.operator.to_string(),
        "name": table.operator_name,
        "table": table.name,
        "rows": table.rows,
        "bytes": table.bytes,
        "key_groups": table.key_groups,
        "columns": columns.collect::<Vec<_>>(),
    })
}

/// The tables that `of` names.
fn chosen(state: &State, of: &StateOf) -> Result<Vec<StateTable>> {
    let tables = state.tables()?;
    let is_operator = |table: &StateTable| {
        of.operator.as_ref().is_none_or(|named| *named == table.operator_name || *named == table.operator.to_string())
    };
    let is_table = |table: &StateTable| of.table.as_ref().is_none_or(|named| *named == table.name);
    let chosen: Vec<_> = tables.iter().filter(|table| is_operator(table) && is_table(table)).cloned().collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let there: Vec<_> = tables.iter().map(|table| format!("'{}' of '{}'", table.name, table.operator_name)).collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    Err(Error::usage(format!("checkpoint {} has no such table; there are: {there}", state.epoch())))
}

/// Rows under a key, one JSON object a line, from every table that has such keys.
fn get(state: &State, of: &StateOf, key: &[String]) -> Result<()> {
    let tables = chosen(state, of)?;
    let (keyed, others): (Vec<_>, Vec<_>) = tables.iter().partition(|table| table.keys.len() == key.len());
    if let (true, Some(other)) = (keyed.is_empty(), others.first()) {
        return state.get(other, key).map(drop);
    }
    let mut found = Vec::new();
    for table in keyed {
        let encoded = state.get(table, key)?;
        let Some(first) = encoded.first() else { continue };
        let mut encoder = format("json", &BTreeMap::new())?.encoder(&first.schema())?;
        encoded.iter().try_for_each(|rows| encoder.encode(rows, &mut found))?;
        encoder.finish(&mut found)?;
    }
    if found.is_empty() {
        return Err(Error::usage(format!("checkpoint {} has nothing under this key", state.epoch())));
    }
    say(&String::from_utf8_lossy(&found))
}

/// All rows of one table, to a file or to standard output.
fn dump(state: &State, of: &StateOf, to: Option<&Path>, form: Option<DumpForm>) -> Result<()> {
    let tables = chosen(state, of)?;
    let [table] = tables.as_slice() else {
        let names: Vec<_> =
            tables.iter().map(|table| format!("'{}' of '{}'", table.name, table.operator_name)).collect();
        let sentence = format!("name one with --operator and --table; there are: {}", names.join(", "));
        return Err(Error::usage(sentence));
    };
    let form = form.unwrap_or(if to.is_some() { DumpForm::Parquet } else { DumpForm::Json });
    let Some(path) = to else {
        if form == DumpForm::Parquet {
            return Err(Error::usage("a Parquet file is not for a terminal: name it with --to"));
        }
        let out = std::io::stdout().lock();
        return match write_rows(state, table, form, BufWriter::new(out), "standard output") {
            // Whoever reads only a part of it has had enough.
            Err(error) if ruslo::is_console_closed(&error) => Ok(()),
            other => other.map(drop),
        };
    };
    let mut file = LocalDisk.create(path)?;
    let rows = write_rows(state, table, form, &mut file, &path.display().to_string())?;
    file.sync().map_err(|error| Error::io(path.display(), &error))?;
    say(&format!("{} rows of '{}' of '{}' in {}\n", count(rows), table.name, table.operator_name, path.display()))
}

fn write_rows(state: &State, table: &StateTable, form: DumpForm, mut to: impl Write, name: &str) -> Result<u64> {
    let mut encoder = format(form.name(), &form.options())?.encoder(&table.schema)?;
    let (mut bytes, mut count) = (Vec::new(), 0);
    encoder.header(&mut bytes);
    let mut write = |bytes: &mut Vec<u8>| {
        let written = to.write_all(bytes).and_then(|()| to.flush());
        bytes.clear();
        written.map_err(|error| Error::io(name, &error))
    };
    for rows in state.rows(table) {
        let rows = rows?;
        count += rows.num_rows() as u64;
        encoder.encode(&rows, &mut bytes)?;
        write(&mut bytes)?;
    }
    encoder.finish(&mut bytes)?;
    write(&mut bytes)?;
    Ok(count)
}
