//! Subqueries in expressions, made joins: EXISTS and IN semi joins, their negations anti joins, a correlated subquery of one
//! value a left join. DataFusion's rules do this.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result as DfResult, internal_datafusion_err};
use datafusion::logical_expr::expr::{Exists, InSubquery};
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};
use datafusion::optimizer::decorrelate_predicate_subquery::DecorrelatePredicateSubquery;
use datafusion::optimizer::scalar_subquery_to_join::ScalarSubqueryToJoin;
use datafusion::optimizer::{Optimizer, OptimizerContext};

use super::lateral;
use crate::diagnostic::{Position, SqlError};
use crate::errors::carried;

/// `plan` with joins in the place of its subqueries.
///
/// # Errors
/// If a subquery stands where no join can take its place; `at` is where the query does.
pub(crate) fn without_subqueries(plan: LogicalPlan, at: Position) -> DfResult<LogicalPlan> {
    let plan = lateral::joined(plan)?;
    if lateral::is_left(&plan)? {
        return Err(carried(lateral::too_hard(at)));
    }
    if !has_subqueries(&plan)? {
        return Ok(plan);
    }
    let rules = Optimizer::with_rules(vec![
        Arc::new(DecorrelatePredicateSubquery::new()),
        Arc::new(ScalarSubqueryToJoin::new()),
    ]);
    let mut config = ConfigOptions::default();
    // There is no end of a stream at which its one value is known: it changes.
    config.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    let context = OptimizerContext::new_with_config_options(Arc::new(config))
        .without_query_execution_start_time()
        .with_skip_failing_rules(false)
        .with_max_passes(8);
    let joined = rules.optimize(plan, &context, |_, _| {})?;
    match has_subqueries(&joined)? {
        false => Ok(joined),
        true => {
            let error = SqlError::not_yet("subqueries of this form", at);
            Err(carried(
                error.help("compare columns of both queries with =, in WHERE of the subquery, or write a join"),
            ))
        }
    }
}

fn has_subqueries(plan: &LogicalPlan) -> DfResult<bool> {
    plan.exists(|node| {
        let mut found = false;
        node.apply_expressions(|expr| {
            found |= expr.exists(|expr| Ok(subquery_of(expr).is_some()))?;
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })?;
        Ok(found)
    })
}

fn subquery_of(expr: &Expr) -> Option<&Subquery> {
    match expr {
        Expr::Exists(Exists { subquery, .. }) | Expr::InSubquery(InSubquery { subquery, .. }) => Some(subquery),
        Expr::ScalarSubquery(subquery) => Some(subquery),
        _ => None,
    }
}

/// `plan` after `change`, which is made to each of its subqueries first.
pub(crate) fn with_subqueries(
    plan: LogicalPlan,
    change: &dyn Fn(LogicalPlan) -> DfResult<LogicalPlan>,
) -> DfResult<LogicalPlan> {
    if !has_subqueries(&plan)? {
        return change(plan);
    }
    let changed = plan.transform_down(|node| {
        let node = node.map_expressions(|expr| expr.transform_down(|expr| changed_expr(expr, change)))?;
        // What was computed below keeps its type.
        Ok(Transformed::new(node.data, node.transformed, TreeNodeRecursion::Continue))
    });
    change(changed?.data)
}

fn changed_expr(expr: Expr, change: &dyn Fn(LogicalPlan) -> DfResult<LogicalPlan>) -> DfResult<Transformed<Expr>> {
    let Some(subquery) = subquery_of(&expr) else { return Ok(Transformed::no(expr)) };
    let plan = with_subqueries(subquery.subquery.as_ref().clone(), change)?;
    let subquery = Subquery { subquery: Arc::new(plan), ..subquery.clone() };
    Ok(Transformed::yes(match expr {
        Expr::Exists(exists) => Expr::Exists(Exists { subquery, ..exists }),
        Expr::InSubquery(of) => Expr::InSubquery(InSubquery { subquery, ..of }),
        Expr::ScalarSubquery(_) => Expr::ScalarSubquery(subquery),
        _ => return Err(internal_datafusion_err!("a subquery is lost")),
    }))
}
