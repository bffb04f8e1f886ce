//! Orders that a stream's operators bring by themselves and DataFusion must be given: the event time inside FIRST_VALUE
//! and its like over a window, and the order of equal rows under ROW_NUMBER and among versions of one time.

use std::sync::Arc;

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::expr::{AggregateFunction, Sort};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection, Window};
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::{Optimizer, OptimizerContext};

use crate::errors::carried;
use crate::over::tells_equal_rows_apart;
use crate::stream::{goes_by_time, no_event_time};
use crate::window::{window_time_column, windowed};

/// `plan` with those orders; every column keeps its name.
pub(super) fn ordered(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let ordered = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => by_time(aggregate).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    })?;
    if !ordered.data.exists(|node| Ok(matches!(node, LogicalPlan::Window(_))))? {
        return Ok(ordered.data);
    }
    // A stream's Top-N knows only the columns that the query reads; so must the order of equal rows here.
    let optimizer = Optimizer::with_rules(vec![Arc::new(OptimizeProjections::new())]);
    let read = optimizer.optimize(ordered.data, &OptimizerContext::new().with_skip_failing_rules(false), |_, _| {})?;
    let ordered = read.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Window(window) => by_all_columns(window).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    });
    ordered.map(|plan| plan.data)
}

fn by_time(aggregate: Aggregate) -> DfResult<LogicalPlan> {
    if windowed(&aggregate.input).is_none() {
        return Ok(LogicalPlan::Aggregate(aggregate));
    }
    let time = window_time_column(&aggregate.input);
    let time = time.map(|place| Expr::Column(aggregate.input.schema().qualified_field(place).into()));
    let calls = aggregate.aggr_expr.into_iter().map(|expr| match expr {
        Expr::AggregateFunction(call) if goes_by_time(&call.func, &call.params) => {
            let name = Expr::AggregateFunction(call.clone()).schema_name().to_string();
            let AggregateFunction { func, mut params } = call;
            let time = time.clone().ok_or_else(|| carried(no_event_time(func.name())))?;
            params.order_by.push(time.sort(true, true));
            Ok(Expr::AggregateFunction(AggregateFunction { func, params }).alias(name))
        }
        other => Ok(other),
    });
    let calls = calls.collect::<DfResult<Vec<_>>>()?;
    Aggregate::try_new(aggregate.input, aggregate.group_expr, calls).map(LogicalPlan::Aggregate)
}

/// Equal rows follow by their columns from left to right where rows of one time do not see each other. Calls of one node
/// have one order, so the others are over these.
fn by_all_columns(window: Window) -> DfResult<LogicalPlan> {
    let columns: Vec<Sort> =
        window.input.schema().columns().into_iter().map(|column| Expr::Column(column).sort(true, true)).collect();
    let (mut apart, mut others) = (Vec::new(), Vec::new());
    for expr in window.window_expr {
        match expr {
            // Of versions of one time the first by its columns counts: it is the last one here.
            Expr::WindowFunction(mut call) if call.fun.name() == "lead" => {
                let name = Expr::WindowFunction(call.clone()).schema_name().to_string();
                call.params.order_by.extend(columns.iter().map(|sort| sort.expr.clone().sort(false, false)));
                apart.push(Expr::WindowFunction(call).alias(name));
            }
            Expr::WindowFunction(mut call) if tells_equal_rows_apart(&call) => {
                let name = Expr::WindowFunction(call.clone()).schema_name().to_string();
                call.params.order_by.extend(columns.iter().cloned());
                apart.push(Expr::WindowFunction(call).alias(name));
            }
            other => others.push(other),
        }
    }
    let mut plan = Arc::unwrap_or_clone(window.input);
    for exprs in [apart, others].into_iter().filter(|exprs| !exprs.is_empty()) {
        plan = Window::try_new(exprs, Arc::new(plan)).map(LogicalPlan::Window)?;
    }
    let columns = window.schema.columns().into_iter().map(Expr::Column).collect();
    Projection::try_new(columns, Arc::new(plan)).map(LogicalPlan::Projection)
}
