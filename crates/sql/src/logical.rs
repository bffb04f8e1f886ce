//! The optimiser's rules that are safe on a stream: fewer columns from the source, filters before windows, constants
//! folded. Nothing that reorders rows, adds limits or replaces a stream by its end.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::optimizer::{Optimizer, OptimizerContext};

use crate::diagnostic::Sql;
use crate::errors::from_datafusion;
use crate::join::lookup;
use crate::planner::Planner;
use crate::unnest;
use crate::updating_top_n;

/// The optimised plan of `plan`; its output has the same names, types and order.
pub(crate) fn optimize(plan: LogicalPlan, planner: &Planner) -> Sql<LogicalPlan> {
    let optimizer = Optimizer::with_rules(vec![
        Arc::new(SimplifyExpressions::new()),
        Arc::new(PushDownFilter::new()),
        Arc::new(OptimizeProjections::new()),
    ]);
    // Without a start time nothing that depends on it is folded into the plan of a query that runs for years.
    let context = OptimizerContext::new_with_config_options(planner.config().clone())
        .without_query_execution_start_time()
        .with_skip_failing_rules(false)
        .with_max_passes(4);
    let plan = optimizer.optimize(plan, &context, |_, _| {});
    plan.and_then(unnest::prune)
        .and_then(updating_top_n::prune)
        .and_then(lookup::prune)
        .map_err(|error| from_datafusion(&error, &[]))
}
