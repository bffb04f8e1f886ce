//! One row of each key, for a sink that takes the last state of its table by a key. Rows of a batch have no order, so of
//! several with one key the one stands that is greatest in its other columns, from left to right.

use datafusion::common::{Column, Dependency, Result as DfResult};
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, WindowFunctionDefinition, lit};
use ruslo_operators::row_number_udwf;

/// The column of a row's place among those of its key.
const PLACE: &str = "$place";

/// `plan` with one row of each of `key`, places of columns.
pub(super) fn one_of_each(plan: LogicalPlan, key: &[usize]) -> DfResult<LogicalPlan> {
    if key.is_empty() || is_unique(&plan, key) {
        return Ok(plan);
    }
    let columns = plan.schema().columns();
    let by: Vec<Expr> = key.iter().filter_map(|place| columns.get(*place)).cloned().map(Expr::Column).collect();
    let others = columns.iter().filter(|column| !by.contains(&Expr::Column((*column).clone())));
    let order = others.map(|column| Expr::Column(column.clone()).sort(false, false)).collect();
    let number = WindowFunction::new(WindowFunctionDefinition::WindowUDF(row_number_udwf()), Vec::new());
    let number = Expr::from(number).partition_by(by).order_by(order).build()?.alias(PLACE);
    let own = columns.into_iter().map(Expr::Column);
    LogicalPlanBuilder::from(plan)
        .window(vec![number])?
        .filter(Expr::Column(Column::new_unqualified(PLACE)).eq(lit(1_i64)))?
        .project(own)?
        .build()
}

/// Whether DataFusion knows that no two rows have the same values in `key`.
fn is_unique(plan: &LogicalPlan, key: &[usize]) -> bool {
    plan.schema().functional_dependencies().iter().any(|dependence| {
        dependence.mode == Dependency::Single
            && !dependence.nullable
            && dependence.source_indices.iter().all(|place| key.contains(place))
    })
}
