//! Deduplication: the first row of each key, over the whole stream, by event time or as they are read.
//!
//! ```text
//! Filter: rownum = 1                                             Projection: .., rownum
//!   Projection: .., row_number() AS rownum             →           Projection: .., 1 AS row_number()
//!     Window: row_number() PARTITION BY keys ORDER BY ts             Deduplicate: keys, ts
//! ```
//!
//! A key's first row by event time is known once the watermark has come to it, and never changes: so the result is
//! appended to, not updated. Other orders change what is out: see `updating_top_n`.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{Column, DFSchemaRef, Result as DfResult, internal_datafusion_err};
use datafusion::logical_expr::expr::{Sort, WindowFunctionParams};
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNodeCore, Window, lit,
};
use ruslo_core::graph::{Node, NodeIndex, NodeKind, Partitioning};
use ruslo_operators::{DeduplicateSpec, FirstBy};

use crate::catalog::Catalog;
use crate::compiled::{compiled_column, compiled_columns};
use crate::diagnostic::Sql;
use crate::explain::Detail;
use crate::late_rows;
use crate::physical::{Physical, arrow_schema, index_of};
use crate::processing_time::has_processing_time;
use crate::top_n::window_column;
use crate::window::{bare_column, inputs, is_event_time, lineage, table_column};

/// The first row of each key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Deduplicate {
    pub(crate) input: LogicalPlan,
    keys: Vec<Column>,
    time: Column,
    /// Whether the time is when the row was read.
    is_arrival: bool,
    /// What the operator's id is a hash of.
    lineage: String,
}

/// The first `limit` rows of each of `keys` in the rows of `window`, by `order`, if that is one row, which no later one
/// replaces: the window's columns, of which the row number is 1.
pub(crate) fn deduplicate(
    window: &Window,
    keys: &[Column],
    order: &[Sort],
    limit: usize,
    catalog: &Catalog,
) -> DfResult<Option<LogicalPlan>> {
    let input = window.input.as_ref();
    let Some((time, is_arrival)) = first_by(input, order, limit) else { return Ok(None) };
    let lineage = lineage_of(input, keys, &time);
    let input = match is_arrival {
        true => input.clone(),
        false => late_rows::take_out_of_order(input.clone(), &Expr::Column(time.clone()), catalog)?,
    };
    let first = Deduplicate { input, keys: keys.to_vec(), time, is_arrival, lineage };
    let columns = first.schema().columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
    let (relation, number) = window.schema.qualified_field(columns.len());
    let number = lit(1i64).alias_qualified(relation.cloned(), number.name());
    let first = LogicalPlan::Extension(Extension { node: Arc::new(first) });
    LogicalPlanBuilder::new(first).project(columns.into_iter().chain([number]))?.build().map(Some)
}

/// Whether the row number of `window` is by the event time of whole keys: the first row of each leaves before the watermark
/// has passed it, so that its time may go on as event time.
pub(crate) fn is_first_by_time(window: &Window) -> bool {
    let [expr] = window.window_expr.as_slice() else { return false };
    let Expr::WindowFunction(call) = expr.clone().unalias() else { return false };
    let WindowFunctionParams { partition_by, order_by, .. } = call.params;
    let is_of_window = |expr: &Expr| {
        let place = bare_column(expr).and_then(|column| window.input.schema().index_of_column(column).ok());
        place.is_some_and(|place| window_column(&window.input, place).is_some())
    };
    let [time] = order_by.as_slice() else { return false };
    let by_time = time_of(&window.input, &time.expr).is_some_and(|(_, is_arrival)| !is_arrival);
    by_time && time.asc && !partition_by.iter().any(is_of_window)
}

/// The time that tells which row is first, and whether that is when they are read; none if a later row could take the place
/// of one that is out.
fn first_by(input: &LogicalPlan, order: &[Sort], limit: usize) -> Option<(Column, bool)> {
    match order {
        [sort] if limit == 1 && sort.asc => time_of(input, &sort.expr),
        _ => None,
    }
}

/// The time attribute that `expr` is, if it is one, and whether it is processing time.
pub(crate) fn time_of(input: &LogicalPlan, expr: &Expr) -> Option<(Column, bool)> {
    let column = bare_column(expr)?;
    if table_column(input, column).is_some_and(|(table, name)| has_processing_time(table, &name)) {
        return Some((column.clone(), true));
    }
    is_event_time(input, input.schema().index_of_column(column).ok()?).then(|| (column.clone(), false))
}

/// Stored for ever: docs/design/operator-ids.md.
fn lineage_of(input: &LogicalPlan, keys: &[Column], time: &Column) -> String {
    let keys: Vec<String> = keys.iter().map(|column| lineage(input, column)).collect();
    let (keys, time) = (keys.join(", "), lineage(input, time));
    format!("deduplicate keys=[{keys}] order=[{time}] inputs=[{}]", inputs(input).join(", "))
}

impl Deduplicate {
    /// What operator ids call it.
    pub(crate) fn lineage(&self) -> &str {
        &self.lineage
    }

    /// The event time that it waits for, if it does.
    pub(crate) fn event_time(&self) -> Option<&Column> {
        (!self.is_arrival).then_some(&self.time)
    }

    fn keys_text(&self) -> String {
        self.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

impl PartialOrd for Deduplicate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Deduplicate {
    fn name(&self) -> &str {
        "Deduplicate"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        self.keys.iter().chain([&self.time]).cloned().map(Expr::Column).collect()
    }

    // Every output column keeps predicates above: what goes before changes which row is first.

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deduplicate: keys=[{}], order=[{}]", self.keys_text(), self.time.name)
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let broken = || internal_datafusion_err!("a deduplication lost its columns");
        let columns = exprs.into_iter().map(|expr| match expr {
            Expr::Column(column) => Ok(column),
            _ => Err(broken()),
        });
        let mut keys = columns.collect::<DfResult<Vec<_>>>()?;
        let time = keys.pop().ok_or_else(broken)?;
        let input = inputs.into_iter().next().ok_or_else(broken)?;
        Ok(Self { input, keys, time, ..self.clone() })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let own = self.keys.iter().chain([&self.time]);
        let own = own.map(|column| schema.index_of_column(column).ok()).collect::<Option<Vec<_>>>()?;
        let mut needed: Vec<usize> = output_columns.iter().copied().chain(own).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

impl Physical<'_> {
    /// Adds the operator that keeps the first row of each key.
    pub(crate) fn deduplicate(&mut self, node: &Deduplicate) -> Sql<NodeIndex> {
        let input = self.node(&node.input)?;
        self.must_append(input, "the first row of each key")?;
        let schema = node.input.schema();
        let keys = node.keys.iter().map(|key| index_of(schema, key)).collect::<Sql<Vec<_>>>()?;
        let first = match node.is_arrival {
            true => FirstBy::Arrival,
            false => FirstBy::EventTime(index_of(schema, &node.time)?),
        };
        let spec = DeduplicateSpec::new(&arrow_schema(schema), keys.clone(), first, None)?;
        let waits = if node.is_arrival { "" } else { "; rows until the watermark has reached them" };
        let (text, time) = (node.keys_text(), compiled_column(&node.time, schema));
        let mut detail = Detail::new(&format!("Deduplicate {text}, first"), &format!("by key {text}"))
            .line("order", if node.is_arrival { "as rows are read".to_owned() } else { node.time.name.clone() })
            .line("state", format!("per ({text}): that it was there{waits}"))
            .with(self.properties(input).deduplicated(&keys))
            .does(format!("{} keys=[{}] order=[{time}]", node.lineage, compiled_columns(&node.keys, schema)));
        // The columns of waiting rows are what the optimiser leaves; the keys stand in what it does.
        if let Some(table) = spec.state_tables().pop() {
            detail = detail.keeps(table);
        }
        let added = Node {
            id: self.fresh_id(&node.lineage),
            name: detail.name.clone(),
            parallelism: self.parallelism,
            schema: spec.schema(),
            kind: NodeKind::Operator(spec.factory()),
        };
        Ok(self.add(added, Some((input, Partitioning::KeyGroup(keys))), detail))
    }
}
