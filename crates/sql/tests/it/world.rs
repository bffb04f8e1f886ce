//! A registry with one connector that touches nothing, and scripts planned over it.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use ruslo_core::connector::{Connector, OptionSpec, Registry, TableDefinition};
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::Subtask;
use ruslo_core::sink::{Committer, Guarantee, Sink, SinkContext, SinkWriter, Takes};
use ruslo_core::source::{Source, SourceReader, Split};
use ruslo_sql::{Planned, Planning, Script};

/// `'connector' = 'filesystem'` and `'print'` without files and terminals.
struct Nothing(&'static str);

struct Table(SchemaRef, Takes);

impl Connector for Nothing {
    fn name(&self) -> &'static str {
        self.0
    }

    fn options(&self, given: &BTreeMap<String, String>) -> Result<Vec<OptionSpec>> {
        let spec = |key, required| OptionSpec { key, required, doc: "what the test says" };
        let mut specs = vec![spec("path", self.0 == "filesystem"), spec("format", false), spec("style", false)];
        specs.push(spec("source.rows-per-second", false));
        if let Some(format) = given.get("format").filter(|format| *format != "csv" && *format != "json") {
            return Err(Error::usage(format!("option 'format' = '{format}': expected 'csv' or 'json'")));
        }
        Ok(specs)
    }

    fn source(&self, table: &TableDefinition, projection: &[usize], _: &Environment) -> Result<Arc<dyn Source>> {
        if self.0 == "print" {
            return Err(Error::usage("connector 'print' cannot be read from; it only takes INSERT INTO"));
        }
        Ok(Arc::new(Table(Arc::new(Schema::project(&table.schema, projection)?), Takes::Append)))
    }

    fn sink(&self, table: &TableDefinition, _: &Environment) -> Result<Arc<dyn Sink>> {
        let takes = if self.0 == "print" { Takes::Retract } else { Takes::Append };
        Ok(Arc::new(Table(table.schema.clone(), takes)))
    }
}

impl Source for Table {
    fn schema(&self) -> SchemaRef {
        self.0.clone()
    }

    fn splits(&self, _: &Environment) -> Result<Vec<Split>> {
        Ok(Vec::new())
    }

    fn reader(&self, _: &Environment) -> Result<Box<dyn SourceReader>> {
        Err(Error::internal("nothing to read"))
    }
}

impl Sink for Table {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn changelog(&self) -> Takes {
        self.1.clone()
    }

    fn writer(&self, _: Subtask, _: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        Err(Error::internal("nothing to write"))
    }

    fn committer(&self, _: &SinkContext) -> Result<Box<dyn Committer>> {
        Err(Error::internal("nothing to commit"))
    }
}

/// The tables that most tests use.
pub(crate) const TABLES: &str = "\
CREATE TABLE bid (
  auction BIGINT, bidder INT NOT NULL, price DECIMAL(10, 2), channel STRING, dateTime TIMESTAMP(3),
  score DOUBLE, ratio FLOAT, small SMALLINT, tiny TINYINT, ok BOOLEAN, day DATE,
  cents AS CAST(price * 100 AS BIGINT),
  WATERMARK FOR dateTime AS dateTime - INTERVAL '4' SECOND
) WITH ('connector' = 'filesystem', 'path' = 'bids', 'format' = 'json');
CREATE TABLE plain (a INT, ts TIMESTAMP(3)) WITH ('connector' = 'filesystem', 'path' = 'p');
CREATE TABLE out (auction BIGINT, n BIGINT NOT NULL, avg_price DECIMAL(38, 6)) WITH ('connector' = 'print');
";

/// Plans `text` with overrides.
pub(crate) fn planned_with(name: &str, text: &str, overrides: &[(&str, &str)]) -> Result<Planned> {
    let registry = Registry::default().with(Nothing("filesystem")).with(Nothing("print"));
    let overrides: Vec<(String, String)> = overrides.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let environment = Environment::local();
    let planning =
        Planning { registry: &registry, environment: &environment, overrides: &overrides, default_parallelism: 2 };
    ruslo_sql::plan(Script { name, text }, &planning)
}

/// Plans `text` behind [`TABLES`].
pub(crate) fn planned(text: &str) -> Result<Planned> {
    planned_with("test.sql", &format!("{TABLES}{text}"), &[])
}

/// The whole message of the error in `text` alone.
pub(crate) fn error_alone(text: &str) -> String {
    match planned_with("test.sql", text, &[]) {
        Ok(_) => panic!("no error in: {text}"),
        Err(error) => error.to_string(),
    }
}

/// The whole message of the error in `text`, which begins on line 2: [`TABLES`] are line 1.
pub(crate) fn error(text: &str) -> String {
    error_alone(&format!("{}\n{text}", TABLES.replace('\n', " ")))
}
