//! Keys of GROUPING SETS, CUBE and ROLLUP that are computed become columns below: what gives expressions Flink's types keeps
//! the names of a node's expressions, but not those inside a set, and a query finds a key by its name.
//!
//! ```text
//! Aggregate: ROLLUP (n, n > 2)            Aggregate: ROLLUP (n, "n > 2")
//!   …                              →        Projection: .., n > 2 AS "n > 2"
//!                                             …
//! ```

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result as DfResult};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection};

/// `plan` with those columns.
pub(crate) fn with_columns(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let changed = plan.transform_up(|node| match node {
        LogicalPlan::Aggregate(aggregate) => computed_below(aggregate),
        other => Ok(Transformed::no(other)),
    });
    changed.map(|plan| plan.data)
}

fn computed_below(aggregate: Aggregate) -> DfResult<Transformed<LogicalPlan>> {
    let keys = match aggregate.group_expr.first() {
        Some(Expr::GroupingSet(sets)) => sets.distinct_expr(),
        _ => Vec::new(),
    };
    let computed: Vec<Expr> = keys.into_iter().filter(|key| !matches!(key, Expr::Column(_))).cloned().collect();
    if computed.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let name = |expr: &Expr| expr.schema_name().to_string();
    let own = aggregate.input.schema().columns().into_iter().map(Expr::Column);
    let exprs = own.chain(computed.iter().map(|expr| expr.clone().alias(name(expr)))).collect();
    let input = Projection::try_new(exprs, Arc::clone(&aggregate.input)).map(LogicalPlan::Projection)?;
    let as_column = |expr: Expr| {
        expr.transform_down(|expr| match computed.contains(&expr) {
            true => {
                let column = Expr::Column(Column::new_unqualified(name(&expr)));
                Ok(Transformed::new(column, true, TreeNodeRecursion::Jump))
            }
            false => Ok(Transformed::no(expr)),
        })
        .map(|expr| expr.data)
    };
    let keys = aggregate.group_expr.into_iter().map(as_column).collect::<DfResult<Vec<_>>>()?;
    let aggregate = Aggregate::try_new(Arc::new(input), keys, aggregate.aggr_expr)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(aggregate)))
}
