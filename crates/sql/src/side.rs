//! Side tables: where records that cannot become rows and late rows go, in the same job and the same checkpoint.
//!
//! ```text
//! Source t ──main──▶ …                      Sink result
//!     └─────dead letters──▶ Sink bad
//! ```
//!
//! A side table is one sink, however many operators give to it; one subtask writes it.

use std::sync::Arc;

use ruslo_core::dead_letter::{COLUMNS, DeadLetters, OnError};
use ruslo_core::graph::{Edge, Node, NodeIndex, NodeKind, OperatorId, Partitioning};
use ruslo_core::operator::Port;

use crate::care::{Bad, Care, Late};
use crate::catalog::{Catalog, Table};
use crate::connect::connector_name;
use crate::cursor::At;
use crate::diagnostic::{Sql, SqlError};
use crate::explain::{Detail, column_names};
use crate::ids::operator_id;
use crate::physical::Physical;

/// What an operator gives to a side table.
pub(crate) struct Aside {
    pub(crate) from: NodeIndex,
    pub(crate) port: Port,
    pub(crate) table: Arc<Table>,
}

/// What becomes of the bad records of `table`, and the side table that takes them.
pub(crate) fn on_error(catalog: &Catalog, table: &Table) -> Sql<(OnError, Option<Arc<Table>>)> {
    let name = match Care::of(&table.options)?.bad {
        Bad::Fail => return Ok((OnError::Fail, None)),
        Bad::Skip => return Ok((OnError::Skip, None)),
        Bad::DeadLetter(name) => name,
    };
    let side = catalog.sink(&name)?.clone();
    check_side_table(&side, table, &name)?;
    let letters = DeadLetters::new(table.name.value.clone(), side.sink_schema()).map_err(|error| {
        let sentence = format!("the table '{}' cannot take the dead letters of '{}'", name.value, table.name.value);
        let help = format!("CREATE TABLE {} ({COLUMNS}) WITH (..); columns may be left out", name.value);
        SqlError::new(format!("{sentence}: {error}")).at(name.at).help(help)
    })?;
    Ok((OnError::DeadLetter(Arc::new(letters)), Some(side)))
}

/// The id of the sink that writes the table `name` from the side.
pub(crate) fn side_sink_id(name: &str) -> OperatorId {
    operator_id(&format!("sink {name}"))
}

impl Physical<'_> {
    /// Refuses a table whose late rows should be kept where something drops them that cannot.
    pub(crate) fn check_late(&self, table: &Table) -> Sql<()> {
        match Care::of(&table.options)?.late {
            Late::Side(name) if self.needs_time && !self.late_taken.contains(&table.name.value) => {
                let what = format!("side tables of the late rows of '{}' in this query", table.name.value);
                Err(SqlError::not_yet(what, name.at)
                    .help(
                    "they come from a GROUP BY or a Top-N over a window of the table itself, or of a view of it, or from \
                     an ORDER BY of its event time",
                ))
            }
            _ => Ok(()),
        }
    }

    /// Adds the sinks of all side tables. `written` are the tables that the job writes by itself.
    pub(crate) fn side_sinks(&mut self, written: &[&Table]) -> Sql<()> {
        let mut left = std::mem::take(&mut self.asides);
        while let Some(table) = left.first().map(|aside| aside.table.clone()) {
            let name = &table.name.value;
            if written.iter().any(|written| written.name.value == *name) {
                let sentence = format!("the table '{name}' takes what another table gives aside");
                return Err(SqlError::new(sentence).help("let the query write another table"));
            }
            check_places(&table, written.iter().copied().chain(left.iter().map(|aside| aside.table.as_ref())))?;
            let (own, others) = left.into_iter().partition(|aside| aside.table.name.value == *name);
            self.side_sink(&table, own)?;
            left = others;
        }
        Ok(())
    }

    fn side_sink(&mut self, table: &Table, asides: Vec<Aside>) -> Sql<()> {
        let sink = self.connections.sink(table, false)?;
        let name = format!("Sink {}", table.name.value);
        let from = asides.iter().filter_map(|aside| self.graph.nodes.get(aside.from)).map(|node| node.name.as_str());
        let from = from.collect::<Vec<_>>().join(", ");
        let detail = Detail::new(&name, &format!("what '{from}' gives aside, to one subtask"))
            .line("connector", format!("{}, {}", connector_name(table), sink.guarantee()))
            .line("columns", column_names(&table.sink_schema()))
            .with(asides.first().map(|aside| self.properties(aside.from).aside()).unwrap_or_default())
            .does("sink");
        let id = side_sink_id(&table.name.value);
        let (schema, kind) = (table.sink_schema(), NodeKind::Sink(sink));
        let to = self.add(Node { id, name, parallelism: 1, schema, kind }, None, detail);
        for (input, Aside { from, port, .. }) in asides.into_iter().enumerate() {
            let partitioning = Partitioning::KeyGroup(Vec::new());
            self.graph.edges.push(Edge { from, port, to, input, partitioning });
        }
        Ok(())
    }
}

/// Refuses the side table `side` if one of `others` is written to the same place.
fn check_places<'a>(side: &Table, mut others: impl Iterator<Item = &'a Table>) -> Sql<()> {
    let Some(place) = side.place() else { return Ok(()) };
    let clash = |other: &&Table| other.name.value != side.name.value && other.place().as_ref() == Some(&place);
    match others.find(clash) {
        Some(other) => {
            let (side, other) = (&side.name, &other.name.value);
            let sentence = format!("'{}' and '{other}' are both written to '{}'", side.value, place.display());
            Err(SqlError::new(sentence).at(side.at).help("give them folders of their own"))
        }
        None => Ok(()),
    }
}

/// Refuses `side` as the table `name` that takes what `of` gives aside.
pub(crate) fn check_side_table(side: &Table, of: &Table, name: &At<String>) -> Sql<()> {
    if side.name.value == of.name.value {
        return Err(SqlError::new(format!("the table '{}' cannot be its own side table", name.value)).at(name.at));
    }
    match side.columns.iter().find(|column| column.computed.is_some()) {
        Some(column) => {
            let sentence = format!(
                "the table '{}' takes what '{}' gives aside; its column '{}' is computed and cannot be written",
                name.value,
                of.name.value,
                column.field.name()
            );
            Err(SqlError::new(sentence).at(name.at))
        }
        None => Ok(()),
    }
}
