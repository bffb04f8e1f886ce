//! Gives `+ - * / %` between decimals Flink's result types, before DataFusion's own rules see them.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result as DfResult};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};
use ruslo_operators::function::{DecimalArithmetic, Sign, decimal_type};

use crate::typing::map_exprs;

/// [`decimal_expr`] in a whole plan; every column keeps its name.
pub(crate) fn decimal_plan(plan: LogicalPlan) -> DfResult<LogicalPlan> {
    map_exprs(plan, decimal_expr)
}

/// `expr` with functions of ours where decimals are computed with.
pub(crate) fn decimal_expr(expr: Expr, schema: &DFSchema) -> DfResult<Expr> {
    let changed = expr.transform_up(|expr| match expr {
        Expr::BinaryExpr(binary) => match sign_of(&binary, schema) {
            Some(sign) => {
                Ok(Transformed::yes(DecimalArithmetic::function(sign).call(vec![*binary.left, *binary.right])))
            }
            None => Ok(Transformed::no(Expr::BinaryExpr(binary))),
        },
        other => Ok(Transformed::no(other)),
    });
    changed.map(|expr| expr.data)
}

fn sign_of(binary: &BinaryExpr, schema: &DFSchema) -> Option<Sign> {
    let sign = match binary.op {
        Operator::Plus => Sign::Plus,
        Operator::Minus => Sign::Minus,
        Operator::Multiply => Sign::Times,
        Operator::Divide => Sign::Divide,
        Operator::Modulo => Sign::Modulo,
        _ => return None,
    };
    let (left, right) = (binary.left.get_type(schema).ok()?, binary.right.get_type(schema).ok()?);
    decimal_type(sign, &left, &right).map(|_| sign)
}
