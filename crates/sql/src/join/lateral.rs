//! LATERAL: a query in FROM that sees the columns of what stands left of it. DataFusion's rules make a join of it where the
//! two are compared by `=`; a bounded number of rows for each is a row number here, as in Flink.
//!
//! ```text
//! Limit: n                                      Projection
//!   Sort: order                                   Filter: k = outer.k
//!     Projection                           →        Filter: row_number() <= n
//!       Filter: k = outer.k AND rest                  Window: row_number() PARTITION BY k ORDER BY order
//!         …                                             Filter: rest
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprFunctionExt, Filter, Limit, LogicalPlan, LogicalPlanBuilder, Operator, Projection, Subquery,
    WindowFunctionDefinition, lit,
};
use datafusion::optimizer::decorrelate_lateral_join::DecorrelateLateralJoin;
use datafusion::optimizer::{Optimizer, OptimizerContext};
use ruslo_operators::row_number_udwf;

use crate::diagnostic::{Position, SqlError};
use crate::errors::carried;
use crate::window::bare_column;

/// `plan` where LIMIT of a LATERAL query, which stands at `at`, is a row number for each of the values that it is asked for.
pub(crate) fn with_row_numbers(plan: LogicalPlan, at: Option<Position>) -> DfResult<LogicalPlan> {
    let numbered = plan.transform_up(|node| match &node {
        LogicalPlan::Subquery(subquery) => match limit_of(&subquery.subquery) {
            None => Ok(Transformed::no(node)),
            Some(limit) => {
                let plan = numbered(limit)?.ok_or_else(|| carried(too_hard(at)))?;
                Ok(Transformed::yes(LogicalPlan::Subquery(Subquery { subquery: Arc::new(plan), ..subquery.clone() })))
            }
        },
        _ => Ok(Transformed::no(node)),
    });
    numbered.map(|plan| plan.data)
}

/// `plan` with joins in the place of its LATERAL queries, as far as there are such.
pub(crate) fn joined(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    if !is_left(&plan)? {
        return Ok(plan);
    }
    let rules = Optimizer::with_rules(vec![Arc::new(DecorrelateLateralJoin::new())]);
    let context = OptimizerContext::new().without_query_execution_start_time().with_skip_failing_rules(false);
    rules.optimize(plan, &context, |_, _| {})
}

/// Whether some LATERAL query is left in `plan`.
pub(super) fn is_left(plan: &LogicalPlan) -> DfResult<bool> {
    plan.exists(|node| Ok(matches!(node, LogicalPlan::Subquery(_))))
}

/// Says what a LATERAL query may be.
pub(super) fn too_hard(at: impl Into<Option<Position>>) -> SqlError {
    SqlError::not_yet("LATERAL queries of this form", at).help(
        "compare columns of both with =, in its WHERE; a LIMIT has an ORDER BY, and no OFFSET, GROUP BY or DISTINCT beside it",
    )
}

fn limit_of(plan: &LogicalPlan) -> Option<&Limit> {
    match plan {
        LogicalPlan::Limit(limit) => Some(limit),
        LogicalPlan::SubqueryAlias(alias) => limit_of(&alias.input),
        _ => None,
    }
}

/// The parts of a query with ORDER BY and LIMIT.
struct Bounded<'a> {
    fetch: i64,
    order: &'a [Sort],
    /// What is left of the columns behind the sort, if not all are.
    last: Option<&'a Projection>,
    columns: &'a Projection,
    condition: &'a Filter,
}

fn bounded(limit: &Limit) -> Option<Bounded<'_>> {
    let Some(Expr::Literal(ScalarValue::Int64(Some(fetch)), _)) = limit.fetch.as_deref() else { return None };
    let is_zero = |skip: &Expr| matches!(skip, Expr::Literal(ScalarValue::Int64(Some(0)), _));
    let (last, sort) = match limit.input.as_ref() {
        LogicalPlan::Sort(sort) => (None, sort),
        LogicalPlan::Projection(last) => match last.input.as_ref() {
            LogicalPlan::Sort(sort) => (Some(last), sort),
            _ => return None,
        },
        _ => return None,
    };
    let (LogicalPlan::Projection(columns), None) = (sort.input.as_ref(), sort.fetch) else { return None };
    let LogicalPlan::Filter(condition) = columns.input.as_ref() else { return None };
    let is_bounded = limit.skip.as_deref().is_none_or(is_zero);
    is_bounded.then_some(Bounded { fetch: *fetch, order: &sort.expr, last, columns, condition })
}

/// The query with a row number in the place of its LIMIT.
fn numbered(limit: &Limit) -> DfResult<Option<LogicalPlan>> {
    let Some(Bounded { fetch, order, last, columns, condition }) = bounded(limit) else { return Ok(None) };
    let (outer, rest): (Vec<_>, Vec<_>) =
        split_conjunction_owned(condition.predicate.clone()).into_iter().partition(Expr::contains_outer);
    let Some(keys) = outer.iter().map(own_column).collect::<Option<Vec<Column>>>() else { return Ok(None) };
    let mut input = condition.input.as_ref().clone();
    if input.exists(|node| Ok(node.contains_outer_reference()))? || keys.is_empty() {
        return Ok(None);
    }
    if let Some(rest) = conjunction(rest) {
        input = LogicalPlan::Filter(Filter::try_new(rest, Arc::new(input))?);
    }
    let order = order.iter().map(|sort| Ok(Sort { expr: below(&sort.expr, columns)?, ..sort.clone() }));
    let function = WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), Vec::new());
    let number = Expr::from(function)
        .partition_by(keys.into_iter().map(Expr::Column).collect())
        .order_by(order.collect::<DfResult<Vec<_>>>()?)
        .build()?;
    let window = LogicalPlanBuilder::from(input).window(vec![number])?.build()?;
    let place = window.schema().fields().len().saturating_sub(1);
    let number = Expr::Column(Column::from(window.schema().qualified_field(place)));
    let first = Filter::try_new(number.lt_eq(lit(fetch)), Arc::new(window))?;
    let mut plan = LogicalPlan::Filter(first);
    if let Some(outer) = conjunction(outer) {
        plan = LogicalPlan::Filter(Filter::try_new(outer, Arc::new(plan))?);
    }
    plan = LogicalPlan::Projection(Projection::try_new(columns.expr.clone(), Arc::new(plan))?);
    if let Some(last) = last {
        plan = LogicalPlan::Projection(Projection::try_new(last.expr.clone(), Arc::new(plan))?);
    }
    Ok(Some(plan))
}

/// The column that `conjunct` says is equal to something outside.
fn own_column(conjunct: &Expr) -> Option<Column> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = conjunct else { return None };
    let is_outside = |expr: &Expr| expr.contains_outer() && expr.column_refs().is_empty();
    match (bare_column(left), bare_column(right)) {
        (Some(column), _) if is_outside(right) => Some(column.clone()),
        (_, Some(column)) if is_outside(left) => Some(column.clone()),
        _ => None,
    }
}

/// `expr` over the columns of `projection`, over those of its input.
fn below(expr: &Expr, projection: &Projection) -> DfResult<Expr> {
    let replaced = expr.clone().transform_up(|expr| {
        let Expr::Column(column) = &expr else { return Ok(Transformed::no(expr)) };
        let computed = projection.schema.maybe_index_of_column(column).and_then(|place| projection.expr.get(place));
        Ok(computed.map_or_else(|| Transformed::no(expr.clone()), |it| Transformed::yes(it.clone().unalias())))
    });
    replaced.map(|expr| expr.data)
}
