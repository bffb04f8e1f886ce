//! A program: SQL text, what it is called, and settings over its own.

use ruslo_core::connector::Registry;
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::{Graph, NodeKind};
use ruslo_sql::{Planning, Script, plan};

use crate::pipeline::Pipeline;

/// Slows every source of a program, whatever its tables say.
const RATE: &str = "source.rows-per-second";

/// SQL text, what it is called, and settings over its own.
#[derive(Debug, Clone)]
pub struct Program {
    name: String,
    is_file: bool,
    text: String,
    overrides: Vec<(String, String)>,
    registry: Registry,
}

impl Program {
    /// A script that stands in the file `name`; the job is called by it, without folder and ending.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        let (overrides, registry) = (Vec::new(), ruslo_connectors::registry());
        Self { name: name.into(), is_file: true, text: text.into(), overrides, registry }
    }

    /// A script that stands in no file; `name` is what messages call it.
    pub fn inline(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { is_file: false, ..Self::new(name, text) }
    }

    /// The same with `key` set to `value`, over whatever the script says. The keys are [`ruslo_sql::SETTINGS`], and
    /// `source.rows-per-second`, which slows every source.
    #[must_use]
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.overrides.push((key.into(), value.into()));
        self
    }

    /// The same with other connectors than [`ruslo_connectors::registry`].
    #[must_use]
    pub fn with_connectors(self, registry: Registry) -> Self {
        Self { registry, ..self }
    }

    /// Plans the program for this machine.
    ///
    /// ```
    /// let error = ruslo::Program::new("x.sql", "SELECT a FROM t").plan().err().unwrap();
    /// assert_eq!(error.kind(), ruslo::ErrorKind::Usage);
    /// assert!(error.to_string().contains("x.sql:1:15"), "{error}");
    /// ```
    ///
    /// # Errors
    /// `Usage`, with line, column and caret, for everything that the user can mend.
    pub fn plan(&self) -> Result<Pipeline> {
        self.plan_in(Environment::local())
    }

    /// Plans the program for another world than this machine.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub fn plan_in(&self, environment: Environment) -> Result<Pipeline> {
        let (rates, overrides): (Vec<_>, Vec<_>) = self.overrides.iter().cloned().partition(|(key, _)| key == RATE);
        let rate = rates.last().map(|(_, value)| rows_per_second(value)).transpose()?;
        let planning = Planning {
            registry: &self.registry,
            environment: &environment,
            overrides: &overrides,
            default_parallelism: available_parallelism(),
        };
        let mut planned = plan(Script { name: &self.name, text: &self.text }, &planning)?;
        if let Some(rate) = rate {
            slow_down(&mut planned.graph, rate);
        }
        Ok(Pipeline::new(self.is_file.then_some(self.name.as_str()), planned, environment))
    }
}

/// How many threads this machine runs at the same time.
pub(crate) fn available_parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}

fn rows_per_second(value: &str) -> Result<u64> {
    let rows = value.trim().parse().ok().filter(|rows| *rows > 0);
    rows.ok_or_else(|| Error::usage(format!("'{RATE}': '{value}' is not a whole number from 1")))
}

fn slow_down(graph: &mut Graph, rate: u64) {
    for node in &mut graph.nodes {
        if let NodeKind::Source(source) = &mut node.kind {
            source.rows_per_second = Some(rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
        CREATE TABLE t (a INT) WITH ('connector' = 'filesystem', 'path' = 'in.csv', 'format' = 'csv');
        SELECT a FROM t";

    #[test]
    fn settings_come_over_the_scripts_and_wrong_ones_are_named() {
        let program = Program::new("a.sql", TEXT);
        let error = program.clone().set("parallelism.defaul", "2").plan().err().unwrap();
        assert!(error.to_string().contains("did you mean 'parallelism.default'?"), "{error}");
        let error = program.clone().set(RATE, "fast").plan().err().unwrap();
        assert_eq!(error.to_string(), "'source.rows-per-second': 'fast' is not a whole number from 1");
        let pipeline = program.set("pipeline.name", "hourly").plan().unwrap();
        assert_eq!(pipeline.name(), "hourly");
    }

    #[test]
    fn a_rate_slows_every_source() {
        let planned = Program::new("a.sql", TEXT).set(RATE, "1").set(RATE, "5").plan().unwrap();
        let rate = |node: &ruslo_core::graph::Node| match &node.kind {
            NodeKind::Source(source) => Some(source.rows_per_second),
            _ => None,
        };
        let rates: Vec<_> = planned.graph().nodes.iter().filter_map(rate).collect();
        assert_eq!(rates, [Some(5)]);
    }
}
