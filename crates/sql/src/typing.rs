//! Types as Flink has them where DataFusion chooses others: constants, intervals of a fixed length, names of casts.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalMonthDayNano, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result as DfResult, ScalarValue};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Operator, Union};

use crate::nested::fix_casts;
use crate::text::expr_text;

/// Integer constants that fit are INT, as in Flink; DataFusion makes every one a BIGINT.
pub(crate) fn narrow_expr(expr: Expr) -> DfResult<Expr> {
    let narrowed = expr.transform_up(|expr| match expr {
        Expr::Literal(ScalarValue::Int64(Some(value)), metadata) => match i32::try_from(value) {
            Ok(value) => Ok(Transformed::yes(Expr::Literal(ScalarValue::Int32(Some(value)), metadata))),
            Err(_) => Ok(Transformed::no(Expr::Literal(ScalarValue::Int64(Some(value)), metadata))),
        },
        other => Ok(Transformed::no(other)),
    });
    narrowed.map(|expr| expr.data)
}

/// [`narrow_expr`] in a whole plan; every column keeps its name.
pub(crate) fn narrow_plan(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    map_exprs(plan, |expr, _| narrow_expr(expr))
}

/// A time ± an interval without months becomes a time ± a number of the time's own units: exact, and a fast kernel.
pub(crate) fn fix_interval(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let fixed = expr.transform_up(|expr| match expr {
        Expr::BinaryExpr(binary) => match fixed_length(&binary, schema) {
            Some(length) => {
                let right = Box::new(Expr::Literal(length, None));
                Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { right, ..binary })))
            }
            None => Ok(Transformed::no(Expr::BinaryExpr(binary))),
        },
        other => Ok(Transformed::no(other)),
    });
    fixed.map(|expr| expr.data)
}

/// [`fix_interval`] in a whole plan; every column keeps its name.
pub(crate) fn fix_intervals(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    map_exprs(plan, |expr, schema| fix_casts(fix_interval(expr, schema)?, schema))
}

/// `plan` with each expression as `map` changes it, over the schema of its node's inputs; every column keeps its name.
pub(crate) fn map_exprs(plan: LogicalPlan, map: impl Fn(Expr, &DFSchema) -> DfResult<Expr>) -> DfResult<LogicalPlan> {
    let mapped = plan.transform_up(|plan| {
        let names = NamePreserver::new(&plan);
        let schema = match plan.inputs().as_slice() {
            [] => plan.schema().clone(),
            [input] => input.schema().clone(),
            // A join's condition is over both sides.
            inputs => Arc::new(merge_schema(inputs)),
        };
        let changed = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            map(expr, &schema).map(|expr| Transformed::yes(name.restore(expr)))
        })?;
        changed.map_data(retyped)
    });
    mapped.map(|plan| plan.data)
}

/// `plan` with the types of its expressions and inputs.
fn retyped(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    match plan {
        LogicalPlan::Values(values) => LogicalPlanBuilder::values(values.values)?.build(),
        LogicalPlan::Union(union) => Union::try_new_with_loose_types(union.inputs).map(LogicalPlan::Union),
        other => other.recompute_schema(),
    }
}

/// The interval of `time ± interval` as a duration in the time's unit, if it has a whole number of them.
fn fixed_length(binary: &BinaryExpr, schema: &DFSchema) -> Option<ScalarValue> {
    let Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) = binary.right.as_ref() else {
        return None;
    };
    if !matches!(binary.op, Operator::Plus | Operator::Minus) {
        return None;
    }
    let DataType::Timestamp(unit, _) = binary.left.get_type(schema).ok()? else { return None };
    let nanos = nanos(interval)?;
    let whole = |per_unit: i64| (nanos % per_unit == 0).then_some(nanos / per_unit);
    match unit {
        TimeUnit::Second => Some(ScalarValue::DurationSecond(Some(whole(1_000_000_000)?))),
        TimeUnit::Millisecond => Some(ScalarValue::DurationMillisecond(Some(whole(1_000_000)?))),
        TimeUnit::Microsecond => Some(ScalarValue::DurationMicrosecond(Some(whole(1_000)?))),
        TimeUnit::Nanosecond => Some(ScalarValue::DurationNanosecond(Some(nanos))),
    }
}

fn nanos(interval: &IntervalMonthDayNano) -> Option<i64> {
    let days = i64::from(interval.days).checked_mul(86_400_000_000_000)?;
    (interval.months == 0).then_some(())?;
    days.checked_add(interval.nanoseconds)
}

/// Names an aggregate over a CAST by the whole text: DataFusion's own names leave casts out, so that AVG(v) and
/// AVG(CAST(v AS DOUBLE)) would be one column.
#[derive(Debug)]
pub(crate) struct AggregatesOverCasts;

impl ExprPlanner for AggregatesOverCasts {
    fn plan_aggregate(&self, mut call: RawAggregateExpr) -> DfResult<PlannerResult<RawAggregateExpr>> {
        let is_cast = |expr: &Expr| Ok(matches!(expr, Expr::Cast(_) | Expr::TryCast(_)));
        for arg in &mut call.args {
            if arg.exists(is_cast)? {
                let name = expr_text(arg, &Column::flat_name);
                *arg = std::mem::take(arg).alias(name);
            }
        }
        Ok(PlannerResult::Original(call))
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{col, lit};

    use super::*;

    #[test]
    fn constants_that_fit_are_int() {
        assert_eq!(narrow_expr(col("a") + lit(1_i64)).unwrap(), col("a") + lit(1_i32));
        let wide = lit(1_i64 << 40);
        assert_eq!(narrow_expr(wide.clone()).unwrap(), wide);
    }

    #[test]
    fn a_fixed_interval_is_a_number_of_the_times_units() {
        let field = arrow::datatypes::Field::new("t", DataType::Timestamp(TimeUnit::Millisecond, None), true);
        let schema = DFSchema::try_from(arrow::datatypes::Schema::new(vec![field])).unwrap();
        let interval = |months, days, nanoseconds| {
            let interval = IntervalMonthDayNano { months, days, nanoseconds };
            lit(ScalarValue::IntervalMonthDayNano(Some(interval)))
        };
        let fixed = fix_interval(col("t") - interval(0, 1, 5_000_000), &schema).unwrap();
        assert_eq!(fixed, col("t") - lit(ScalarValue::DurationMillisecond(Some(86_400_005))));
        let months = col("t") - interval(1, 0, 0);
        assert_eq!(fix_interval(months.clone(), &schema).unwrap(), months);
    }
}
