//! A script of any text: a plan or a sentence, never a panic or a stack overflow; and the same again.

use ruslo_core::environment::Environment;
use ruslo_core::error::ErrorKind;
use ruslo_sql::{Planning, Script, plan};

/// Tables for the script to use, so that it gets further than the first name.
const TABLES: &str = "
    CREATE TABLE t (
      k BIGINT, s STRING, d DECIMAL(10, 2), ts TIMESTAMP(3), p AS PROCTIME(), WATERMARK FOR ts AS ts - INTERVAL '1' SECOND
    ) WITH ('connector' = 'datagen');
    CREATE TABLE o (k BIGINT, n BIGINT) WITH ('connector' = 'blackhole');
";

pub fn holds(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let script = format!("{TABLES}{text}");
    let (first, second) = (planned(&script), planned(&script));
    assert_eq!(first, second, "the same text has the same plan");
}

/// The plan, or what is wrong.
fn planned(text: &str) -> Result<String, String> {
    let registry = ruslo_connectors::registry();
    let environment = Environment::local();
    let planning = Planning { registry: &registry, environment: &environment, overrides: &[], default_parallelism: 2 };
    match plan(Script { name: "fuzz.sql", text }, &planning) {
        Ok(planned) => Ok(planned.explain),
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::Internal, "{error}\n{text}");
            Err(error.to_string())
        }
    }
}
