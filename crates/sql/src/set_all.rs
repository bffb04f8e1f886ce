//! INTERSECT ALL and EXCEPT ALL: how often each row is on either side is counted, and the row is given as often as it says.
//!
//! ```text
//! Join LeftSemi, all columns           Projection: the left side's names
//!   left                        →        Unnest: array_repeat(TRUE, least(l, r))          EXCEPT ALL: l - r
//!   right                                  Aggregate: columns, COUNT($left) l, COUNT($right) r
//!                                            Union
//!                                              Projection: columns, 1, NULL
//!                                              Projection: columns, NULL, 1
//! ```
//!
//! DataFusion's planner makes such a join of both, which looks at one row at a time; without ALL the left side is a DISTINCT,
//! of which that is the answer.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{JoinType, NullEquality, Result as DfResult, ScalarValue};
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::functions_nested::expr_fn::array_repeat;
use datafusion::logical_expr::{Aggregate, Expr, Join, LogicalPlan, Projection, Union, lit, when};

use crate::unnest::Unnest;

/// What a row has that is on one side.
const SIDES: [&str; 2] = ["$left", "$right"];

/// `plan` with INTERSECT ALL and EXCEPT ALL as they are meant.
pub(crate) fn counted(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    let changed = plan.transform_up(|node| match node {
        LogicalPlan::Join(join) if is_set_operation(&join) => by_count(&join).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    });
    changed.map(|plan| plan.data)
}

/// Whether it is one with ALL. No join that a query writes takes NULLs for equal before its condition is looked at.
fn is_set_operation(join: &Join) -> bool {
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && !matches!(join.left.as_ref(), LogicalPlan::Distinct(_))
}

fn by_count(join: &Join) -> DfResult<LogicalPlan> {
    let own = join.left.schema().fields().len();
    let both =
        Union::try_new_with_loose_types(vec![side(&join.left, 0)?, side(&join.right, 1)?]).map(LogicalPlan::Union)?;
    let columns = both.schema().columns();
    let (keys, sides) = columns.split_at_checked(own).unwrap_or((&columns, &[]));
    let counts = sides.iter().cloned().map(|side| count(Expr::Column(side))).collect();
    let keys = keys.iter().cloned().map(Expr::Column).collect();
    let counted = Aggregate::try_new(Arc::new(both), keys, counts).map(LogicalPlan::Aggregate)?;
    let mut counts = counted.schema().columns().into_iter().skip(own).map(Expr::Column);
    let (left, right) = (counts.next().unwrap_or_else(|| lit(0_i64)), counts.next().unwrap_or_else(|| lit(0_i64)));
    let copies = match join.join_type {
        JoinType::LeftSemi => when(left.clone().lt(right.clone()), left).otherwise(right)?,
        _ => left - right,
    };
    let repeated = Unnest::repeating(counted, array_repeat(lit(true), copies), own)?;
    let named = repeated.schema().columns().into_iter().zip(join.left.schema().iter());
    let named = named
        .map(|(column, (qualifier, field))| Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()));
    Projection::try_new(named.collect(), Arc::new(repeated)).map(LogicalPlan::Projection)
}

/// The rows of one side, under names of their own, with a 1 in its column.
fn side(plan: &Arc<LogicalPlan>, which: usize) -> DfResult<Arc<LogicalPlan>> {
    let columns = plan.schema().columns().into_iter().enumerate();
    let columns = columns.map(|(place, column)| Expr::Column(column).alias(format!("$column{place}")));
    let marks = SIDES.iter().enumerate().map(|(side, name)| {
        let mark = if side == which { Some(1) } else { None };
        lit(ScalarValue::Int32(mark)).alias(*name)
    });
    Projection::try_new(columns.chain(marks).collect(), Arc::clone(plan)).map(LogicalPlan::Projection).map(Arc::new)
}
