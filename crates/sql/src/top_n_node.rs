//! The node of the streaming logical plan that keeps the first rows of each key and window.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::common::{Column, DFSchema, DFSchemaRef, Result as DfResult, TableReference, internal_datafusion_err};
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::text::bare_text;
use crate::window_spec::WindowZone;

/// The first rows of each key and window, in an order. Its output is the input's columns, then the rank.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct WindowTopN {
    pub(crate) input: LogicalPlan,
    pub(crate) parts: WindowTopNParts,
    schema: DFSchemaRef,
}

/// What a [`WindowTopN`] is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct WindowTopNParts {
    pub(crate) keys: Vec<Column>,
    /// The column that tells the window: its end, or a time just before.
    pub(crate) end: Column,
    /// How many milliseconds before the window's end it is.
    pub(crate) before_end_ms: i64,
    /// The zone of the windows.
    pub(crate) zone: WindowZone,
    pub(crate) order: Vec<Sort>,
    pub(crate) limit: usize,
    /// What the rank's column is called.
    pub(crate) rank: (Option<TableReference>, FieldRef),
    /// What the operator's id is a hash of.
    pub(crate) lineage: String,
}

impl WindowTopN {
    /// The first rows of `input`.
    pub(crate) fn try_new(input: LogicalPlan, parts: WindowTopNParts) -> DfResult<Self> {
        let fields = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone()));
        let fields = fields.chain([parts.rank.clone()]).collect();
        let schema = DFSchema::new_with_metadata(fields, DFSchema::metadata(input.schema()).clone())?;
        Ok(Self { input, parts, schema: Arc::new(schema) })
    }

    /// The node as a plan.
    pub(crate) fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// How many columns the input has: the rank stands behind them.
    pub(crate) fn input_columns(&self) -> usize {
        self.input.schema().fields().len()
    }

    /// Its order as a person reads it.
    pub(crate) fn order_text(&self) -> String {
        order_text(&self.parts.order)
    }

    /// The names of its keys.
    pub(crate) fn keys_text(&self) -> String {
        self.parts.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// An order as a person writes it.
pub(crate) fn order_text(order: &[Sort]) -> String {
    let order = order.iter().map(|sort| {
        let nulls = match (sort.asc, sort.nulls_first) {
            (true, true) | (false, false) => "",
            (_, true) => " NULLS FIRST",
            (_, false) => " NULLS LAST",
        };
        format!("{}{}{nulls}", bare_text(&sort.expr), if sort.asc { "" } else { " DESC" })
    });
    order.collect::<Vec<_>>().join(", ")
}

impl PartialOrd for WindowTopN {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for WindowTopN {
    fn name(&self) -> &str {
        "WindowTopN"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let columns = self.parts.keys.iter().chain([&self.parts.end]).cloned().map(Expr::Column);
        columns.chain(self.parts.order.iter().map(|sort| sort.expr.clone())).collect()
    }

    // Every output column keeps predicates above: what goes before the ranking changes it.

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keys, end, order, limit) = (self.keys_text(), &self.parts.end.name, self.order_text(), self.parts.limit);
        write!(f, "WindowTopN: keys=[{keys}], window={end}, order=[{order}], rows={limit}")
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let broken = || internal_datafusion_err!("a Top-N lost its columns");
        let mut exprs = exprs.into_iter();
        let mut keys = Vec::new();
        for _ in 0..=self.parts.keys.len() {
            let Some(Expr::Column(column)) = exprs.next() else { return Err(broken()) };
            keys.push(column);
        }
        let end = keys.pop().ok_or_else(broken)?;
        let order = self.parts.order.iter().zip(exprs).map(|(sort, expr)| Sort { expr, ..sort.clone() }).collect();
        let input = inputs.into_iter().next().ok_or_else(broken)?;
        Self::try_new(input, WindowTopNParts { keys, end, order, ..self.parts.clone() })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let exprs = self.expressions();
        let own = exprs.iter().flat_map(Expr::column_refs).filter_map(|column| schema.index_of_column(column).ok());
        let passed = output_columns.iter().copied().filter(|index| *index < self.input_columns());
        let mut needed: Vec<usize> = passed.chain(own).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}
