//! How many subtasks an operator has, where that is not the same for all: `SET 'parallelism.<operator>' = 'n'`, by the
//! name or the id that EXPLAIN shows. (A table's hint is looked up where its source or sink is made.)

use std::collections::BTreeMap;

use ruslo_core::graph::{Graph, NodeIndex, NodeKind, Partitioning};
use ruslo_core::key_group::KEY_GROUPS;

use crate::cursor::At;
use crate::diagnostic::{Sql, SqlError};
use crate::hint::{Options, PARALLELISM};

/// What the settings of operators begin with.
pub(crate) const PREFIX: &str = "parallelism.";

/// Takes the parallelism out of a hint's options.
pub(crate) fn take_hint(options: &mut Options) -> Sql<Option<At<usize>>> {
    let Some(place) = options.iter().position(|(key, _)| key.value == PARALLELISM) else { return Ok(None) };
    let (_, value) = options.remove(place);
    let subtasks = value.value.trim().parse::<usize>().ok();
    match subtasks.filter(|subtasks| (1..=usize::from(KEY_GROUPS)).contains(subtasks)) {
        Some(subtasks) => Ok(Some(At::new(subtasks, value.at))),
        None => {
            let sentence = format!("'{PARALLELISM}' = '{}' is not a whole number from 1 to {KEY_GROUPS}", value.value);
            Err(SqlError::new(sentence).at(value.at))
        }
    }
}

/// Gives the operators of `graph` that `wanted` names their number of subtasks.
///
/// # Errors
/// A sentence, if there is no such operator, or it can have only one subtask.
pub(crate) fn apply(graph: &mut Graph, wanted: &BTreeMap<String, usize>) -> Sql<()> {
    for (name, subtasks) in wanted {
        let is_named = |(index, _): &(NodeIndex, String)| {
            graph.nodes.get(*index).is_some_and(|node| node.name == *name || node.id.to_string() == *name)
        };
        let all = graph.nodes.iter().enumerate().map(|(index, node)| (index, node.name.clone()));
        let named: Vec<NodeIndex> = all.filter(is_named).map(|(index, _)| index).collect();
        if named.is_empty() {
            return Err(unknown(graph, name));
        }
        for index in named {
            if *subtasks > 1 && has_one_group(graph, index) {
                let sentence = format!("'{name}' has all rows in one group: its parallelism is 1, not {subtasks}");
                return Err(SqlError::new(sentence));
            }
            graph.nodes.get_mut(index).into_iter().for_each(|node| node.parallelism = *subtasks);
        }
    }
    reconnect(graph);
    Ok(())
}

/// Checks what `wanted` says of a batch job's `graph`. Its sources have their readers already; a table is written by one
/// subtask.
///
/// # Errors
/// A sentence, if there is no such source or sink, or it is a sink with several subtasks.
pub(crate) fn check_batch(graph: &Graph, wanted: &BTreeMap<String, usize>) -> Sql<()> {
    for (name, subtasks) in wanted {
        let named = graph.nodes.iter().find(|node| node.name == *name || node.id.to_string() == *name);
        let node = named.ok_or_else(|| unknown(graph, name))?;
        if matches!(node.kind, NodeKind::Sink(_)) && *subtasks != 1 {
            return Err(written_by_one(name, *subtasks));
        }
    }
    Ok(())
}

/// Says that the output of a batch job is written by one subtask.
pub(crate) fn written_by_one(name: &str, subtasks: usize) -> SqlError {
    let sentence = format!("in batch mode one subtask writes '{name}': its parallelism is 1, not {subtasks}");
    SqlError::new(sentence).help("the rows are in the order of the query; leave the parallelism of the sink out")
}

fn unknown(graph: &Graph, name: &str) -> SqlError {
    let ids: Vec<String> = graph.nodes.iter().map(|node| node.id.to_string()).collect();
    let names = graph.nodes.iter().map(|node| node.name.as_str()).chain(ids.iter().map(String::as_str));
    let error = SqlError::new(format!("'{PREFIX}{name}': the plan has no operator '{name}'"));
    match crate::diagnostic::nearest(name, names.chain(["default"])) {
        Some(near) => error.help(format!("did you mean '{near}'?")),
        None => error.help("EXPLAIN shows names and ids"),
    }
}

/// Whether all rows that come to a node are of one key group.
fn has_one_group(graph: &Graph, node: NodeIndex) -> bool {
    graph.inputs(node).any(|edge| edge.partitioning == Partitioning::KeyGroup(Vec::new()))
}

/// Rows go in turn where a forward edge now changes parallelism. None of them are changes: those go by key already
/// (`Physical::keep_order`).
fn reconnect(graph: &mut Graph) {
    let widths: Vec<usize> = graph.nodes.iter().map(|node| node.parallelism).collect();
    for edge in &mut graph.edges {
        if edge.partitioning == Partitioning::Forward && widths.get(edge.from) != widths.get(edge.to) {
            edge.partitioning = Partitioning::Rebalance;
        }
    }
}
