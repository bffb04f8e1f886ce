//! EXPLAIN: the logical plan and the physical one, as a tree that a person reads from the sink down.

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::{Expr, LogicalPlan};
use ruslo_core::graph::{Graph, NodeIndex};

use crate::text::bare_text;
use crate::types::sql_name;

/// What EXPLAIN says of a node.
#[derive(Debug, Clone)]
pub(crate) struct Detail {
    pub(crate) name: String,
    /// How rows come in; empty for a source.
    input: String,
    lines: Vec<(&'static str, String)>,
}

impl Detail {
    /// A node that gets its rows by `input`.
    pub(crate) fn new(name: &str, input: &str) -> Self {
        Self { name: name.to_owned(), input: input.to_owned(), lines: Vec::new() }
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
}

impl Detail {
    /// The name and the lines below it.
    pub(crate) fn text(&self) -> String {
        let lines = self.lines.iter().map(|(key, value)| format!("| {key}: {value}\n"));
        format!("{}\n{}", self.name, lines.collect::<String>())
    }
}

/// The text of EXPLAIN.
pub(crate) fn explain(plan: &LogicalPlan, graph: &Graph, details: &[Detail]) -> String {
    let mut text = format!("== Logical plan ==\n{}\n\n== Physical plan ==\n", plan.display_indent());
    if let Some(last) = graph.nodes.len().checked_sub(1) {
        write_node(&mut text, graph, details, last, 0);
    }
    text
}

fn write_node(text: &mut String, graph: &Graph, details: &[Detail], index: NodeIndex, depth: usize) {
    let (Some(node), Some(detail)) = (graph.nodes.get(index), details.get(index)) else { return };
    let indent = "  ".repeat(depth);
    let input = if detail.input.is_empty() { String::new() } else { format!(", input {}", detail.input) };
    text.push_str(&format!("{indent}{} (parallelism {}{input}, changelog append)\n", node.name, node.parallelism));
    for (key, value) in &detail.lines {
        text.push_str(&format!("{indent}| {key}: {value}\n"));
    }
    for edge in graph.inputs(index) {
        write_node(text, graph, details, edge.from, depth + 1);
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
