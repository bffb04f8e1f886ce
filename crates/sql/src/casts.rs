//! Gives CAST Flink's rules where they are not Arrow's, and the parts of a TIMESTAMP_LTZ the session's zone; behind
//! DataFusion's type coercion, whose casts are treated alike.

use std::sync::Arc;

use arrow::datatypes::DataType;
use chrono_tz::Tz;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result as DfResult};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};
use ruslo_operators::function::{Cast, cast_function};

use crate::text::bare_text;
use crate::typing::map_exprs;

/// [`flink_expr`] in a whole plan; every column keeps its name.
pub(crate) fn flink_plan(plan: LogicalPlan, zone: Tz) -> DfResult<LogicalPlan> {
    map_exprs(plan, |expr, schema| flink_expr(expr, schema, zone))
}

/// `expr` with Flink's casts.
pub(crate) fn flink_expr(expr: Expr, schema: &DFSchema, zone: Tz) -> DfResult<Expr> {
    let changed = expr.transform_up(|expr| {
        let (inner, to, is_try) = match &expr {
            Expr::Cast(cast) => (&cast.expr, cast.field.data_type(), false),
            Expr::TryCast(cast) => (&cast.expr, cast.field.data_type(), true),
            Expr::ScalarFunction(call) if call.name() == "date_part" && zone != Tz::UTC => {
                return part_in_zone(call.clone(), schema, zone).map(Transformed::yes);
            }
            _ => return Ok(Transformed::no(expr)),
        };
        let from = inner.get_type(schema)?;
        match cast_function(&from, to, is_try, bare_text(inner), zone) {
            Some(function) => {
                check_constant(inner, function.inner().downcast_ref::<Cast>())?;
                Ok(Transformed::yes(function.call(vec![inner.as_ref().clone()])))
            }
            None => Ok(Transformed::no(expr)),
        }
    });
    changed.map(|expr| expr.data)
}

/// A constant that its type cannot hold is refused while planning.
fn check_constant(inner: &Expr, cast: Option<&Cast>) -> DfResult<()> {
    let (Expr::Literal(value, _), Some(cast)) = (inner, cast) else { return Ok(()) };
    match cast.run(&value.to_array()?) {
        Err(DataFusionError::Execution(sentence)) => Err(DataFusionError::Plan(sentence)),
        other => other.map(drop),
    }
}

/// EXTRACT of a TIMESTAMP_LTZ takes the parts that the session's clocks show.
fn part_in_zone(call: ScalarFunction, schema: &DFSchema, zone: Tz) -> DfResult<Expr> {
    let args = call.args.into_iter().map(|arg| match arg.get_type(schema)? {
        DataType::Timestamp(unit, Some(_)) => {
            let to = DataType::Timestamp(unit, None);
            let from = DataType::Timestamp(unit, Some(Arc::from(crate::types::UTC)));
            let local = cast_function(&from, &to, false, bare_text(&arg), zone);
            Ok(local.map_or_else(|| arg.clone(), |local| local.call(vec![arg.clone()])))
        }
        _ => Ok(arg),
    });
    let args = args.collect::<DfResult<Vec<_>>>()?;
    Ok(Expr::ScalarFunction(ScalarFunction { args, func: call.func }))
}
