//! EXPLAIN: the logical plan and the physical one, as a tree that a person reads from the sink down.

use std::collections::HashSet;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::{Expr, LogicalPlan};
use ruslo_core::graph::{Graph, NodeIndex, Partitioning};
use ruslo_operators::StateTable;

use crate::physical::Target;
use crate::properties::Properties;
use crate::text::bare_text;
use crate::types::sql_name;

/// What a source keeps.
pub(crate) const SOURCE_STATE: &str = "how far each split is read";

/// What EXPLAIN says of a node.
#[derive(Debug, Clone)]
pub(crate) struct Detail {
    pub(crate) name: String,
    /// How rows come in; empty for a source.
    input: String,
    lines: Vec<(&'static str, String)>,
    /// What is known of its rows.
    pub(crate) properties: Properties,
    /// What it does in the words of `docs/design/compiled-plan.md`: stored for ever. Empty, if it has no part in what
    /// the rows mean, and may be there or not.
    pub(crate) does: String,
    /// What it keeps.
    pub(crate) keeps: Option<StateTable>,
}

impl Detail {
    /// A node that gets its rows by `input`.
    pub(crate) fn new(name: &str, input: &str) -> Self {
        Self {
            name: name.to_owned(),
            input: input.to_owned(),
            lines: Vec::new(),
            properties: Properties::default(),
            does: String::new(),
            keeps: None,
        }
    }

    /// A node that works in its input's task.
    pub(crate) fn forward(name: &str) -> Self {
        Self::new(name, "forward")
    }

    /// The same with a line more.
    pub(crate) fn line(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.lines.push((key, value.into()));
        self
    }

    /// The same of a node that does what `does` says; stored for ever.
    pub(crate) fn does(self, does: impl Into<String>) -> Self {
        Self { does: does.into(), ..self }
    }

    /// The same of a node that keeps `table`.
    pub(crate) fn keeps(self, table: StateTable) -> Self {
        Self { keeps: Some(table), ..self }
    }

    /// The same of a node whose rows have `properties`.
    pub(crate) fn with(self, properties: Properties) -> Self {
        Self { properties, ..self }
    }

    /// The name and the lines below it.
    pub(crate) fn text(&self) -> String {
        let lines = self.lines.iter().map(|(key, value)| format!("| {key}: {value}\n"));
        format!("{}\n{}", self.name, lines.collect::<String>())
    }
}

/// The text of EXPLAIN.
pub(crate) fn explain(flows: &[(&LogicalPlan, Target<'_>)], graph: &Graph, details: &[Detail]) -> String {
    let mut text = "== Logical plan ==\n".to_owned();
    for (plan, target) in flows {
        if let (Target::Table(table), true) = (target, flows.len() > 1) {
            text.push_str(&format!("INSERT INTO {}\n", table.name.value));
        }
        text.push_str(&format!("{}\n\n", plan.display_indent()));
    }
    text.push_str("== Physical plan ==\n");
    let mut tree = Tree { graph, details, text, shown: HashSet::new() };
    let ends = (0..graph.nodes.len()).filter(|index| graph.outputs(*index).next().is_none());
    let mut ends: Vec<NodeIndex> = ends.collect();
    // What the job writes, then its side tables.
    ends.sort_by_key(|index| graph.is_aside(*index));
    ends.into_iter().for_each(|index| tree.write(index, 0));
    tree.text
}

/// The physical plan as it is written.
struct Tree<'a> {
    graph: &'a Graph,
    details: &'a [Detail],
    text: String,
    /// What was written already: several operators may have the same input.
    shown: HashSet<NodeIndex>,
}

impl Tree<'_> {
    fn write(&mut self, index: NodeIndex, depth: usize) {
        let (Some(node), Some(detail)) = (self.graph.nodes.get(index), self.details.get(index)) else { return };
        let indent = "  ".repeat(depth);
        if !self.shown.insert(index) {
            self.text.push_str(&format!("{indent}{} (shared, see above)\n", node.name));
            return;
        }
        let rebalanced = self.graph.inputs(index).any(|edge| edge.partitioning == Partitioning::Rebalance);
        let by_key = self.graph.inputs(index).any(|edge| matches!(edge.partitioning, Partitioning::KeyGroup(_)));
        let input = match (detail.input.as_str(), rebalanced) {
            ("", _) => String::new(),
            ("forward", false) if by_key => ", input by row, so that changes stay in order".to_owned(),
            (_, true) => ", input rebalanced".to_owned(),
            (input, false) => format!(", input {input}"),
        };
        let (parallelism, properties) = (node.parallelism, detail.properties.text(&node.schema));
        let line = format!("{indent}{} (parallelism {parallelism}{input}, {properties})\n", node.name);
        self.text.push_str(&line);
        let key = detail.properties.key_text(&node.schema).map(|key| ("unique by", key));
        for (key, value) in detail.lines.iter().chain(&key) {
            self.text.push_str(&format!("{indent}| {key}: {value}\n"));
        }
        let inputs: Vec<NodeIndex> = self.graph.inputs(index).map(|edge| edge.from).collect();
        inputs.into_iter().for_each(|input| self.write(input, depth + 1));
    }
}

/// An expression as a person writes it: columns without their table, and the new name if there is one.
pub(crate) fn shown_expr(expr: &Expr) -> String {
    let text = bare_text(expr);
    match expr {
        Expr::Alias(alias) if alias.name != text => format!("{text} AS {}", alias.name),
        _ => text,
    }
}

/// Columns with their types.
pub(crate) fn column_names(schema: &SchemaRef) -> String {
    let columns = schema.fields().iter().map(|field| format!("{} {}", field.name(), sql_name(field.data_type())));
    columns.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn a_new_name_is_shown_and_the_old_one_is_not_repeated() {
        assert_eq!(shown_expr(&(col("t.a") + lit(1)).alias("b")), "a + 1 AS b");
        assert_eq!(shown_expr(&col("t.a").alias("a")), "a");
    }
}
