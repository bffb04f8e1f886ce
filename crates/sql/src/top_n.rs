//! Top-N on the logical plan: a bound on ROW_NUMBER() over the rows of a window, or over all (`updating_top_n`).
//!
//! ```text
//! Filter: rownum <= 3 AND rest                              Filter: rest
//!   Projection: .., row_number() AS rownum          →         Projection: .., row_number() AS rownum
//!     Window: row_number() PARTITION BY .. ORDER BY ..          WindowTopN: keys, order, 3
//! ```
//!
//! The Top-N has the columns of the window function's node, so nothing above it changes. What the bound doesn't say
//! alone (`rownum = 2`) stays in the filter.

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::{Sort, WindowFunctionParams};
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Filter, LogicalPlan, Operator, Window};

use crate::catalog::{Catalog, StreamTable};
use crate::deduplicate::{Deduplicate, deduplicate};
use crate::diagnostic::{Position, SqlError};
use crate::errors::carried;
use crate::explain::Detail;
use crate::join::{LookupJoin, StreamJoin};
use crate::late_rows::{self, LateRows};
use crate::nodes::{WindowAggregate, WindowAssign, WindowColumn, as_node};
use crate::over::{Over, only_numbers};
use crate::stream;
use crate::text::expr_text;
use crate::top_n_node::{WindowTopN, WindowTopNParts};
use crate::updating_top_n::{UpdatingTopN, updating_top_n};
use crate::window::{bare_column, is_event_time, lineage, zone};
use crate::window_spec::WindowSpec;

/// `filter` over a Top-N, if it bounds a row number; whose OVER stands at `at`.
pub(crate) fn top_n(filter: Filter, at: Position, catalog: &Catalog) -> DfResult<Transformed<LogicalPlan>> {
    let conjuncts = split_conjunction(&filter.predicate);
    let is_row_number = |expr: &Expr| {
        let column = bare_column(uncast(expr)?)?;
        numbers_rows(&filter.input, filter.input.schema().index_of_column(column).ok()?)
    };
    let bounds = conjuncts.iter().filter_map(|conjunct| bound(conjunct, &is_row_number));
    let Some(limit) = bounds.map(|bound| bound.limit).min() else {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    };
    let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0).ok_or_else(|| {
        let sentence = format!("ROW_NUMBER() counts from 1; the condition keeps those up to {limit}, which is none");
        carried(SqlError::new(sentence).at(at))
    })?;
    let rest = conjuncts.iter().filter(|conjunct| {
        let said = bound(conjunct, &is_row_number);
        !said.is_some_and(|bound| bound.says_all)
    });
    let rest = conjunction(rest.map(|conjunct| (*conjunct).clone()));
    let input = filter.input.as_ref().clone().transform_down(|node| match node {
        LogicalPlan::Window(window) => {
            let node = node_of(&window, limit, at, catalog)?;
            Ok(Transformed::new(node, true, TreeNodeRecursion::Stop))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(Transformed::yes(match rest {
        Some(rest) => LogicalPlan::Filter(Filter::try_new(rest, input.data.into())?),
        None => input.data,
    }))
}

/// Whether the `index`th column of `plan` is a row number.
fn numbers_rows(plan: &LogicalPlan, index: usize) -> Option<()> {
    match plan {
        LogicalPlan::Window(window) if only_numbers(window) => {
            index.checked_sub(window.input.schema().fields().len()).map(|_| ())
        }
        LogicalPlan::SubqueryAlias(alias) => numbers_rows(&alias.input, index),
        LogicalPlan::Filter(filter) => numbers_rows(&filter.input, index),
        LogicalPlan::Projection(projection) => {
            let column = bare_column(projection.expr.get(index)?)?;
            numbers_rows(&projection.input, projection.input.schema().index_of_column(column).ok()?)
        }
        _ => None,
    }
}

/// The greatest row number that a condition keeps.
struct Bound {
    limit: i64,
    /// Whether the condition says nothing else.
    says_all: bool,
}

fn bound(condition: &Expr, is_row_number: &dyn Fn(&Expr) -> Option<()>) -> Option<Bound> {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, value) = match (is_row_number(left), is_row_number(right)) {
                (Some(()), None) => (*op, integer(right)?),
                (None, Some(())) => (op.swap()?, integer(left)?),
                _ => return None,
            };
            match op {
                Operator::LtEq => Some(Bound { limit: value, says_all: true }),
                Operator::Lt => Some(Bound { limit: value.saturating_sub(1), says_all: true }),
                Operator::Eq => Some(Bound { limit: value, says_all: value == 1 }),
                _ => None,
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            is_row_number(expr)?;
            Some(Bound { limit: integer(high)?, says_all: integer(low)? <= 1 })
        }
        _ => None,
    }
}

fn uncast(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Cast(cast) => uncast(&cast.expr),
        other => Some(other),
    }
}

fn integer(expr: &Expr) -> Option<i64> {
    match uncast(expr)? {
        Expr::Literal(value, _) => match value.cast_to(&arrow::datatypes::DataType::Int64) {
            Ok(ScalarValue::Int64(value)) => value,
            _ => None,
        },
        _ => None,
    }
}

fn node_of(window: &Window, limit: usize, at: Position, catalog: &Catalog) -> DfResult<LogicalPlan> {
    let [expr] = window.window_expr.as_slice() else {
        return Err(carried(SqlError::not_yet("several ROW_NUMBER() calls in one query", at)));
    };
    let Expr::WindowFunction(call) = expr.clone().unalias() else {
        return Err(carried(SqlError::internal(format!("'{expr}' is no window function"))));
    };
    let WindowFunctionParams { partition_by, order_by, .. } = call.params;
    let input = window.input.as_ref();
    let mut keys = Vec::new();
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for expr in partition_by {
        let column = key(&expr, at).map_err(carried)?;
        let index = input.schema().index_of_column(&column)?;
        match window_column(input, index) {
            None => keys.push(column),
            // Sessions that end together may have begun apart.
            Some(WindowColumn::Start) if of_sessions(input) => keys.push(column),
            Some(WindowColumn::Start) => starts.push(column),
            Some(end) => ends.push((column, end)),
        }
    }
    let zone = zone(input);
    // Where the clocks are set, several windows may have one window_time.
    let told_by_end = |(_, kind): &(Column, WindowColumn)| !zone.shifts() || *kind == WindowColumn::End;
    if !ends.is_empty() && !ends.iter().any(told_by_end) {
        return Err(carried(stream::no_end().at(at)));
    }
    let Some((end, kind)) = ends.into_iter().find(told_by_end) else {
        // Nothing says when the windows end: the start is a key as any other.
        keys.extend(starts);
        if !keys.is_empty()
            && let Some(first) = deduplicate(window, &keys, &order_by, limit, catalog)?
        {
            return Ok(first);
        }
        let lineage = lineage_of(input, &keys, &order_by, limit);
        return updating_top_n(window, keys, order_by, limit, lineage);
    };
    let rank = window.schema.qualified_field(window.schema.fields().len().saturating_sub(1));
    let before_end_ms = if kind == WindowColumn::Time { 1 } else { 0 };
    let lineage = lineage_of(input, &keys, &order_by, limit);
    let input = late_rows::take_out_copies(input.clone(), &end, before_end_ms, catalog)?;
    let parts = WindowTopNParts {
        lineage,
        keys,
        end,
        before_end_ms,
        zone,
        order: order_by,
        limit,
        rank: (rank.0.cloned(), rank.1.clone()),
    };
    Ok(WindowTopN::try_new(input, parts)?.into_plan())
}

fn key(expr: &Expr, at: Position) -> Result<Column, SqlError> {
    match bare_column(expr) {
        Some(column) => Ok(column.clone()),
        None => {
            let sentence =
                format!("PARTITION BY {} in OVER is not a column", expr_text(expr, &|column| column.name.clone()));
            Err(SqlError::new(sentence).at(at).help("compute it in a subquery, and give it a name"))
        }
    }
}

/// Which column of its window the `index`th column of `plan` is, if it is one.
pub(crate) fn window_column(plan: &LogicalPlan, index: usize) -> Option<WindowColumn> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => window_column(&alias.input, index),
        LogicalPlan::Filter(filter) => window_column(&filter.input, index),
        LogicalPlan::Projection(projection) => {
            let column = bare_column(projection.expr.get(index)?)?;
            window_column(&projection.input, projection.input.schema().index_of_column(column).ok()?)
        }
        LogicalPlan::Extension(_) => {
            if let Some(late) = as_node::<LateRows>(plan) {
                return window_column(&late.input, index);
            }
            if let Some(top) = as_node::<WindowTopN>(plan) {
                return window_column(&top.input, index);
            }
            if let Some(first) = as_node::<Deduplicate>(plan) {
                return window_column(&first.input, index);
            }
            if let Some(over) = as_node::<Over>(plan) {
                return (index < over.input_columns()).then(|| window_column(&over.input, index)).flatten();
            }
            if let Some(join) = as_node::<StreamJoin>(plan) {
                let (input, place) = join.time_column(index)?;
                return window_column(input, place);
            }
            if let Some(join) = as_node::<LookupJoin>(plan) {
                return (index < join.input_columns()).then(|| window_column(&join.input, index)).flatten();
            }
            let before = match (as_node::<WindowAssign>(plan), as_node::<WindowAggregate>(plan)) {
                (Some(assign), _) => assign.input_columns(),
                (_, Some(aggregate)) => aggregate.keys.len() + aggregate.aggregates.len(),
                _ => return None,
            };
            WindowColumn::ALL.get(index.checked_sub(before)?).copied()
        }
        _ => None,
    }
}

/// Stored for ever: docs/design/operator-ids.md.
fn lineage_of(input: &LogicalPlan, keys: &[Column], order: &[Sort], limit: usize) -> String {
    let name = |column: &Column| lineage(input, column);
    let keys: Vec<String> = keys.iter().map(name).collect();
    let order = order.iter().map(|sort| {
        let (direction, nulls) =
            (if sort.asc { "asc" } else { "desc" }, if sort.nulls_first { "first" } else { "last" });
        format!("{} {direction} nulls {nulls}", expr_text(&sort.expr, &name))
    });
    let order = order.collect::<Vec<_>>().join(", ");
    let (keys, windows) = (keys.join(", "), assigned(input));
    format!("top-n rows={limit} keys=[{keys}] order=[{order}]{windows} inputs=[{}]", inputs(input).join(", "))
}

/// The stateful operators and sources that the rows of `plan` come from, in the text's order.
fn inputs(plan: &LogicalPlan) -> Vec<String> {
    if let Some(aggregate) = as_node::<WindowAggregate>(plan) {
        return vec![format!("window {}", aggregate.lineage)];
    }
    if let Some(top) = as_node::<WindowTopN>(plan) {
        return vec![top.parts.lineage.clone()];
    }
    if let Some(top) = as_node::<UpdatingTopN>(plan) {
        return vec![top.lineage().to_owned()];
    }
    if let Some(first) = as_node::<Deduplicate>(plan) {
        return vec![first.lineage().to_owned()];
    }
    if let Some(over) = as_node::<Over>(plan) {
        return vec![over.lineage().to_owned()];
    }
    if let Some(join) = as_node::<StreamJoin>(plan) {
        return vec![join.lineage.clone()];
    }
    if let Some(join) = as_node::<LookupJoin>(plan) {
        return vec![join.lineage.clone()];
    }
    let own = match plan {
        LogicalPlan::TableScan(scan) => scan.source.downcast_ref::<StreamTable>(),
        _ => None,
    };
    let own = own.map(|table| format!("source {}", table.0.name.value));
    own.into_iter().chain(plan.inputs().into_iter().flat_map(inputs)).collect()
}

/// Whether the windows of `plan` are sessions.
fn of_sessions(plan: &LogicalPlan) -> bool {
    let window = as_node::<WindowAssign>(plan).map(|assign| assign.window);
    match window.or(as_node::<WindowAggregate>(plan).map(|aggregate| aggregate.window)) {
        Some(window) => matches!(window, WindowSpec::Session { .. }),
        None => plan.inputs().into_iter().any(of_sessions),
    }
}

/// The window of rows that nothing has grouped.
fn assigned(plan: &LogicalPlan) -> String {
    if let Some(assign) = as_node::<WindowAssign>(plan) {
        return format!(" window=[{}]", assign.window.identity(assign.zone));
    }
    match plan {
        LogicalPlan::Extension(_) => String::new(),
        _ => plan.inputs().into_iter().map(assigned).collect(),
    }
}

/// What EXPLAIN says of a Top-N: the first or last row by event time is a deduplication.
pub(crate) fn detail(node: &WindowTopN) -> Detail {
    let parts = &node.parts;
    let is_time = |sort: &Sort| {
        let column = bare_column(&sort.expr)?;
        let index = node.input.schema().index_of_column(column).ok()?;
        is_event_time(&node.input, index).then_some(sort.asc)
    };
    let first_or_last = match parts.order.as_slice() {
        [sort] if parts.limit == 1 => is_time(sort),
        _ => None,
    };
    let (keys, order) = (node.keys_text(), node.order_text());
    let keys = if keys.is_empty() { "all rows".to_owned() } else { keys };
    let input = if parts.keys.is_empty() { "all rows to one subtask".to_owned() } else { format!("by key {keys}") };
    let name = match first_or_last {
        Some(true) => format!("WindowDeduplicate {keys}, first"),
        Some(false) => format!("WindowDeduplicate {keys}, last"),
        None => format!("WindowTopN {keys}, {}", parts.limit),
    };
    Detail::new(&name, &input)
        .line("window", parts.end.name.clone())
        .line("order", format!("{order}, then all columns"))
        .line("state", format!("per ({keys}, window): the first {} rows", parts.limit))
}
