//! Keys of GROUPING SETS, CUBE and ROLLUP behind a function of which DataFusion knows nothing. It takes what holds of a key
//! below an aggregate to hold behind it: a constant one (`WHERE k = 'a' GROUP BY CUBE (k)`), or one that is equal to another, is
//! not sorted by any more. But in some sets it is NULL.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result as DfResult, ScalarValue};
use datafusion::functions::expr_fn::random;
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Projection, lit, when};

/// `aggregate` over such keys, if it has several sets of keys.
pub(super) fn hidden(aggregate: &Aggregate) -> DfResult<LogicalPlan> {
    let aggregate = aggregate.clone();
    let Some(Expr::GroupingSet(sets)) = aggregate.group_expr.first() else {
        return LogicalPlan::Aggregate(aggregate).recompute_schema();
    };
    let keys: Vec<Column> = sets.distinct_expr().into_iter().filter_map(Expr::try_as_col).cloned().collect();
    let schema = aggregate.input.schema();
    let name = |column: &Column| Column::new_unqualified(format!("$set_{}", column.flat_name()));
    let own = schema.columns().into_iter().map(Expr::Column).map(Ok);
    // Each in its own words, or equal keys would be one.
    let made = keys.iter().enumerate().map(|(place, key)| {
        let column = Expr::Column(key.clone());
        let nothing = lit(ScalarValue::try_from(&column.get_type(schema)?)?);
        Ok(when(random().lt(lit(-(place as f64))), nothing).otherwise(column)?.alias(name(key).name))
    });
    let exprs = own.chain(made).collect::<DfResult<Vec<_>>>()?;
    let input = Projection::try_new(exprs, Arc::clone(&aggregate.input)).map(LogicalPlan::Projection)?;
    let renamed = |expr: Expr| {
        let changed = expr.transform(|expr| match expr {
            Expr::Column(column) if keys.contains(&column) => Ok(Transformed::yes(Expr::Column(name(&column)))),
            other => Ok(Transformed::no(other)),
        });
        changed.map(|expr| expr.data)
    };
    let group = aggregate.group_expr.iter().cloned().map(renamed).collect::<DfResult<Vec<_>>>()?;
    let below = Aggregate::try_new(Arc::new(input), group, aggregate.aggr_expr)?;
    let named = below.schema.columns().into_iter().zip(aggregate.schema.iter());
    let named = named
        .map(|(column, (qualifier, field))| Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()));
    let named = named.collect();
    Projection::try_new(named, Arc::new(LogicalPlan::Aggregate(below))).map(LogicalPlan::Projection)
}
