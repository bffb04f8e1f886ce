//! `ruslo ledger`: what every operator and edge counted, and whether it adds up.

use std::process::ExitCode;

use ruslo::core::operator::Port;
use ruslo::inspect::Place;
use ruslo::inspect::books::{EdgeLine, Ledger, NodeLine};
use ruslo::{Epoch, Error, ErrorKind, Result};
use serde_json::{Value, json};

use crate::args::{CheckpointPlace, Output};
use crate::command::say;
use crate::exit;
use crate::screen::Screen;
use crate::table::{Side, Table};
use crate::text::count;

/// Prints the ledger of a checkpoint; the exit code says whether it balances.
pub(crate) fn run(place: &CheckpointPlace, epoch: Option<u64>, screen: &Screen) -> ExitCode {
    let done = show(place, epoch);
    if let Err(error) = &done {
        screen.line(&format!("error: {error}"));
    }
    exit::of(done.map_err(|error| error.kind()))
}

fn show(arguments: &CheckpointPlace, epoch: Option<u64>) -> Result<()> {
    let place = Place::open(&arguments.dir)?;
    let found = place.find(epoch.map(Epoch))?;
    let Some(manifest) = &found.manifest else {
        return Err(found.problem.unwrap_or_else(|| Error::internal("a checkpoint without its manifest")));
    };
    let Some(ledger) = Ledger::of(manifest) else {
        return Err(Error::usage(format!(
            "checkpoint {} in {} has no ledger: it is of a batch job, of a run that an older Ruslo began, or of one \
             whose plan was changed",
            found.epoch,
            place.location().display()
        )));
    };
    match arguments.output {
        Output::Text => say(&text(found.epoch, &ledger))?,
        Output::Json => say(&format!("{}\n", object(found.epoch, &ledger)))?,
    }
    match ledger.imbalance() {
        None => Ok(()),
        Some(wrong) => Err(Error::new(
            ErrorKind::Internal,
            format!("the ledger of checkpoint {} does not balance: {wrong}", found.epoch),
        )),
    }
}

fn text(epoch: Epoch, ledger: &Ledger) -> String {
    let state = if ledger.balances() { "balances" } else { "DOES NOT BALANCE" };
    let (nodes, edges) = (nodes(ledger).render("  "), edges(ledger).render("  "));
    let fell_back: String = ledger.fell_back_to.iter().map(|epoch| fallback(*epoch)).collect();
    format!("ledger of checkpoint {epoch}: {state}\n{fell_back}\noperators, in rows\n{nodes}\nedges, in rows\n{edges}")
}

fn fallback(epoch: Epoch) -> String {
    format!("it went on from checkpoint {epoch} as newer ones were damaged: what was shown with them may be twice\n")
}

fn nodes(ledger: &Ledger) -> Table {
    use Side::{Left, Right};
    let columns = [("name", Left), ("in", Right), ("out", Right), ("late", Right), ("elsewhere", Left), ("", Left)];
    let mut table = Table::new(&[&columns[..], &[("must hold", Left)]].concat());
    for node in &ledger.nodes {
        let counts = &node.counts;
        let cells = [node.name.clone(), count(counts.rows_in), count(counts.rows_out), count(counts.late_rows)];
        let rest = [elsewhere(node), mark(node.holds()).to_owned(), node.equation.text().to_owned()];
        table.row(cells.into_iter().chain(rest));
    }
    table
}

/// Where rows are that did not go out.
fn elsewhere(node: &NodeLine) -> String {
    let told = others(node).into_iter().filter(|(_, rows)| *rows > 0);
    let told: Vec<_> = told.map(|(name, rows)| format!("{} {}", count(rows), name.replace('_', " "))).collect();
    told.join(", ")
}

fn others(node: &NodeLine) -> [(&'static str, u64); 11] {
    let counts = &node.counts;
    [
        ("skipped", counts.skipped_rows),
        ("dead_letters", counts.dead_letter_rows),
        ("filtered", counts.filtered_rows),
        ("kept", counts.kept_rows),
        ("aside", counts.aside_rows),
        ("ahead_of_the_clock", counts.ahead_rows),
        ("in_doubt", counts.in_doubt_rows),
        ("duplicates", counts.duplicate_rows),
        ("waiting", counts.waiting_rows),
        ("committed", counts.committed_rows),
        ("pending", counts.pending_rows),
    ]
}

fn mark(holds: bool) -> &'static str {
    if holds { "=" } else { "WRONG" }
}

fn edges(ledger: &Ledger) -> Table {
    use Side::{Left, Right};
    let columns = [("from", Left), ("to", Left), ("sent", Right), ("received", Right), ("in flight", Right)];
    let mut table = Table::new(&[&columns[..], &[("repeated", Right), ("", Left)]].concat());
    for edge in &ledger.edges {
        let figures = [edge.sent, edge.received, edge.in_flight, repeated(edge)].map(count);
        let names = [format!("{}{}", edge.from, port(edge.port)), edge.to.clone()];
        table.row(names.into_iter().chain(figures).chain([mark(edge.holds()).to_owned()]));
    }
    table
}

/// Rows that came again, where that may be.
fn repeated(edge: &EdgeLine) -> u64 {
    if edge.repeats_rows { edge.repeated() } else { 0 }
}

fn port(port: Port) -> &'static str {
    match port {
        Port::MAIN => "",
        Port::LATE => ", late rows",
        Port::DEAD_LETTER => ", dead letters",
        _ => ", aside",
    }
}

fn object(epoch: Epoch, ledger: &Ledger) -> Value {
    json!({
        "epoch": epoch.0,
        "balances": ledger.balances(),
        "operators": ledger.nodes.iter().map(node).collect::<Vec<_>>(),
        "edges": ledger.edges.iter().map(edge).collect::<Vec<_>>(),
        "fell_back_to": ledger.fell_back_to.iter().map(|epoch| epoch.0).collect::<Vec<_>>(),
    })
}

fn node(node: &NodeLine) -> Value {
    let mut object = json!({
        "id": node.id.to_string(),
        "name": node.name,
        "in": node.counts.rows_in,
        "out": node.counts.rows_out,
        "late": node.counts.late_rows,
        "equation": node.equation.text(),
        "holds": node.holds(),
    });
    if let Some(fields) = object.as_object_mut() {
        fields.extend(others(node).map(|(name, rows)| (name.to_owned(), rows.into())));
    }
    object
}

fn edge(edge: &EdgeLine) -> Value {
    json!({
        "from": edge.from,
        "port": edge.port.0,
        "to": edge.to,
        "sent": edge.sent,
        "received": edge.received,
        "in_flight": edge.in_flight,
        "repeated": repeated(edge),
        "holds": edge.holds(),
    })
}

#[cfg(test)]
mod tests {
    use ruslo::core::equation::Equation;
    use ruslo::core::graph::OperatorId;
    use ruslo::core::metrics::RowCounts;

    use super::*;

    fn ledger(received: u64) -> Ledger {
        let counts = RowCounts { rows_in: 1_000, rows_out: 900, filtered_rows: 100, ..RowCounts::default() };
        let node = NodeLine { id: OperatorId(1), name: "Filter".to_owned(), equation: Equation::Filters, counts };
        let (from, to, port) = ("Filter".to_owned(), "Sink out".to_owned(), Port::MAIN);
        let edge = EdgeLine { from, port, to, sent: 900, received, in_flight: 0, repeats_rows: false };
        Ledger { nodes: vec![node], edges: vec![edge], fell_back_to: Vec::new() }
    }

    #[test]
    fn a_person_reads_a_table() {
        let expected = "\
ledger of checkpoint 7: DOES NOT BALANCE

operators, in rows
  name       in  out  late  elsewhere        must hold
  Filter  1,000  900     0  100 filtered  =  in = out + filtered

edges, in rows
  from    to        sent  received  in flight  repeated
  Filter  Sink out   900       899          0         0  WRONG
";
        assert_eq!(text(Epoch(7), &ledger(899)), expected);
    }

    #[test]
    fn a_program_reads_an_object() {
        let object = object(Epoch(7), &ledger(900));
        assert_eq!((&object["balances"], &object["operators"][0]["filtered"]), (&json!(true), &json!(100)));
        assert_eq!(object["edges"][0]["received"], 900);
    }
}
