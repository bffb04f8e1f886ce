//! The product's own `filesystem` sink on the simulated disk, and what it shows: rows of JSON lines in visible files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::datatypes::SchemaRef;
use ruslo_connectors::filesystem::Filesystem;
use ruslo_core::connector::{Connector, TableDefinition};
use ruslo_core::environment::Environment;
use ruslo_core::error::Result;
use ruslo_core::sink::Sink;
use serde_json::Value;

use crate::disk::Machine;
use crate::sink::OutRow;

fn folder(number: usize) -> PathBuf {
    PathBuf::from(format!("/output/{number}"))
}

/// The sink numbered `number`, for rows of `schema`.
pub fn sink(number: usize, schema: SchemaRef, environment: &Environment) -> Result<Arc<dyn Sink>> {
    let path = folder(number).to_str().unwrap().to_owned();
    let options = BTreeMap::from([("path".to_owned(), path), ("format".to_owned(), "json".to_owned())]);
    let table = TableDefinition::new(format!("sink{number}"), schema, options);
    Filesystem.sink(&table, environment)
}

fn is_hidden(path: &&PathBuf) -> bool {
    path.file_name().is_some_and(|name| name.to_str().unwrap().starts_with('.'))
}

/// What a sink shows: each row, and how often; or what cannot be read.
pub fn visible(machine: &Machine, number: usize, schema: &SchemaRef) -> Result<BTreeMap<OutRow, i64>, String> {
    let mut counts = BTreeMap::new();
    for path in machine.paths_in(&folder(number)).iter().filter(|path| !is_hidden(path)) {
        let bytes = machine.bytes(path).unwrap();
        let text = String::from_utf8(bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        for line in text.lines() {
            let row = row(line, schema).ok_or_else(|| format!("{}: {line}", path.display()))?;
            *counts.entry(row).or_default() += 1;
        }
    }
    Ok(counts)
}

/// Hidden files that nobody will ever make visible or remove.
pub fn leftovers(machine: &Machine, sinks: usize) -> Vec<String> {
    let paths = (0..sinks).flat_map(|number| machine.paths_in(&folder(number)));
    paths.filter(|path| is_hidden(&path)).map(|path| path.display().to_string()).collect()
}

fn row(line: &str, schema: &SchemaRef) -> Option<OutRow> {
    let object: Value = serde_json::from_str(line).ok()?;
    schema.fields().iter().map(|field| value(&object[field.name()])).collect()
}

fn value(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(time) => string_to_timestamp_nanos(time).ok().map(|nanos| nanos.div_euclid(1_000_000)),
        Value::Null => Some(i64::MIN),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use ruslo_core::epoch::Epoch;
    use ruslo_core::operator::Subtask;
    use ruslo_core::sink::SinkContext;

    use super::*;
    use crate::dataset::{Lineage, Row, batch, schema};
    use crate::process::Process;
    use crate::trace::Trace;

    #[test]
    fn what_is_committed_is_read_again() {
        let machine = Machine::new(Trace::default());
        let disk = Arc::new(machine.disk(&Arc::new(Process::new(1, Vec::new()))));
        let environment = Environment { disk, ..Environment::local() };
        let sink = sink(0, schema(), &environment).unwrap();
        let context = SinkContext { environment, run: "r".to_owned() };
        let mut writer = sink.writer(Subtask { index: 0, parallelism: 1 }, &context).unwrap();
        let lineage = Lineage { id: 1, rows: vec![Row { key: 2, value: -3, time: -4 }; 2], cuts: vec![0, 2] };
        let _ = writer.write(&batch(&lineage, 0, 2)).unwrap();
        let prepared = writer.prepare_commit(Epoch(1)).unwrap();
        assert_eq!((visible(&machine, 0, &schema()).unwrap().len(), leftovers(&machine, 1).len()), (0, 1));
        sink.committer(&context).unwrap().commit(&prepared).unwrap();
        let rows: Vec<_> = visible(&machine, 0, &schema()).unwrap().into_keys().collect();
        assert_eq!(rows, [vec![1, 0, 2, -3, -4, 0], vec![1, 1, 2, -3, -4, 0]]);
        assert!(leftovers(&machine, 1).is_empty());
    }
}
