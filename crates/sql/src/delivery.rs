//! What holds if the process dies: what the tables of a pipeline can do, and what `execution.delivery` asks for.
//!
//! Every connector says the most that its tables can promise. A pipeline promises the least of that, unless less is
//! asked for; who asks for more is told which table stands in the way, and which connectors would not.

use ruslo_core::graph::{Graph, Node, NodeKind};
use ruslo_core::sink::Guarantee;

use crate::connect::connector_name;
use crate::diagnostic::{Sql, SqlError};
use crate::program::Program;
use crate::settings::{RuntimeMode, Settings};

/// The key that asks for less, or makes sure.
const DELIVERY: &str = "execution.delivery";

/// What holds if the process dies, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// What holds.
    pub guarantee: Guarantee,
    /// What `execution.delivery` says, if it says something.
    pub asked: Option<Guarantee>,
    /// Why no more than that: `'print' gives no more`.
    pub reason: String,
}

impl std::fmt::Display for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.guarantee, self.reason)
    }
}

/// One end of a pipeline.
struct End<'a> {
    /// The table; none is the terminal.
    table: Option<&'a str>,
    connector: String,
    guarantee: Guarantee,
    is_source: bool,
}

impl Program<'_> {
    /// What the job of `graph` promises; it writes a table if it `is_insert`, or the terminal.
    ///
    /// # Errors
    /// If `settings` ask for more than some table can do.
    pub(crate) fn delivery(&self, graph: &Graph, settings: &Settings, is_insert: bool) -> Sql<Delivery> {
        let ends: Vec<End<'_>> = graph.nodes.iter().filter_map(|node| self.end(node, is_insert)).collect();
        let most = ends.iter().map(|end| end.guarantee).min().unwrap_or(Guarantee::ExactlyOnce);
        let Some(asked) = settings.delivery else {
            return Ok(Delivery { guarantee: most, asked: None, reason: limits(&ends, most) });
        };
        let refused = match ends.iter().find(|end| end.guarantee < asked) {
            Some(end) => Some(self.too_much(asked, end)),
            None if asked == Guarantee::AtMostOnce && self.mode()? == RuntimeMode::Batch => starts_over(&ends),
            None => None,
        };
        match refused {
            Some(error) => Err(error.at(self.set_at.get(DELIVERY).copied())),
            None => Ok(Delivery { guarantee: asked, asked: Some(asked), reason: format!("as '{DELIVERY}' says") }),
        }
    }

    fn end<'a>(&self, node: &'a Node, is_insert: bool) -> Option<End<'a>> {
        let (name, guarantee, is_source) = match &node.kind {
            NodeKind::Source(source) => (node.name.strip_prefix("Source "), source.source.guarantee(), true),
            NodeKind::Sink(sink) => (node.name.strip_prefix("Sink "), sink.guarantee(), false),
            NodeKind::Operator(_) => return None,
        };
        let table = name.filter(|name| is_source || is_insert || *name != "result");
        let known = table.and_then(|name| self.catalog.table(name).ok());
        let connector = known.map_or("print", |table| connector_name(table)).to_owned();
        Some(End { table, connector, guarantee, is_source })
    }

    fn too_much(&self, asked: Guarantee, end: &End<'_>) -> SqlError {
        let most = end.guarantee;
        let sentence = match (end.table, end.is_source) {
            (Some(table), true) => {
                format!(
                    "'{DELIVERY}' = '{asked}': the table '{table}' is read by '{}', which gives {most} at most",
                    end.connector
                )
            }
            (Some(table), false) => {
                format!(
                    "'{DELIVERY}' = '{asked}': the table '{table}' is written by '{}', which gives {most} at most",
                    end.connector
                )
            }
            (None, _) => {
                format!("'{DELIVERY}' = '{asked}': the rows of a SELECT are printed, which gives {most} at most")
            }
        };
        let able = self.connections.registry.connectors().filter(|connector| {
            let most = if end.is_source { connector.source_guarantee() } else { connector.sink_guarantee() };
            most.is_some_and(|most| most >= asked)
        });
        let able: Vec<_> = able.map(|connector| format!("'{}'", connector.name())).collect();
        let gives = if able.len() == 1 { "gives" } else { "give" };
        let able = if able.is_empty() { "no connector".to_owned() } else { able.join(", ") };
        SqlError::new(sentence).help(format!("{able} {gives} {asked}; or ask for '{most}'"))
    }
}

/// Who holds a pipeline to `most`.
fn limits(ends: &[End<'_>], most: Guarantee) -> String {
    if most == Guarantee::ExactlyOnce {
        return "every table can".to_owned();
    }
    let mut names: Vec<_> = ends.iter().filter(|end| end.guarantee == most).map(|end| end.connector.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let names: Vec<_> = names.into_iter().map(|name| format!("'{name}'")).collect();
    format!("{} {} no more", names.join(" and "), if names.len() == 1 { "gives" } else { "give" })
}

/// A batch job that failed is done again from its beginning, with all that it showed.
fn starts_over(ends: &[End<'_>]) -> Option<SqlError> {
    let is_repeated = ends.iter().any(|end| end.is_source && end.guarantee > Guarantee::AtMostOnce);
    let shows = ends.iter().any(|end| !end.is_source && end.guarantee < Guarantee::ExactlyOnce);
    let sentence =
        format!("'{DELIVERY}' = 'at-most-once': a batch job that failed starts over, and shows its rows again");
    (is_repeated && shows).then(|| SqlError::new(sentence).help("run it with 'execution.runtime-mode' = 'streaming'"))
}
