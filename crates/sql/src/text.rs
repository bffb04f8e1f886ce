//! Expressions as SQL text: for EXPLAIN, and for the ids of operators, so that neither depends on how a version of
//! DataFusion happens to print them.

use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, InList};
use datafusion::logical_expr::{BinaryExpr, Case, Expr, Operator};
use ruslo_operators::function::{Cast, DecimalArithmetic, Sign};

use crate::interval;
use crate::types::sql_name;

/// `expr` as SQL; `name` says what a column is called.
pub(crate) fn expr_text(expr: &Expr, name: &dyn Fn(&Column) -> String) -> String {
    let text = |expr: &Expr| expr_text(expr, name);
    let list = |exprs: &[Expr]| exprs.iter().map(text).collect::<Vec<_>>().join(", ");
    match expr {
        Expr::Alias(alias) => text(&alias.expr),
        Expr::Column(column) => name(column),
        Expr::Literal(value, _) => literal(value),
        Expr::BinaryExpr(binary) => binary_text(binary, name),
        // A constant that was given the other side's type reads as it was written.
        Expr::Cast(cast) if matches!(cast.expr.as_ref(), Expr::Literal(..)) && cast.field.data_type().is_numeric() => {
            text(&cast.expr)
        }
        Expr::Cast(cast) => format!("CAST({} AS {})", text(&cast.expr), sql_name(cast.field.data_type())),
        Expr::TryCast(cast) => format!("TRY_CAST({} AS {})", text(&cast.expr), sql_name(cast.field.data_type())),
        Expr::Not(inner) => format!("NOT {}", nested(inner, name)),
        Expr::Negative(inner) => format!("-{}", nested(inner, name)),
        Expr::IsNull(inner) => format!("{} IS NULL", nested(inner, name)),
        Expr::IsNotNull(inner) => format!("{} IS NOT NULL", nested(inner, name)),
        Expr::IsTrue(inner) => format!("{} IS TRUE", nested(inner, name)),
        Expr::IsFalse(inner) => format!("{} IS FALSE", nested(inner, name)),
        Expr::Between(between) => {
            let not = if between.negated { "NOT " } else { "" };
            let (low, high) = (nested(&between.low, name), nested(&between.high, name));
            format!("{} {not}BETWEEN {low} AND {high}", nested(&between.expr, name))
        }
        Expr::Like(like) => {
            let not = if like.negated { "NOT " } else { "" };
            format!("{} {not}LIKE {}", nested(&like.expr, name), nested(&like.pattern, name))
        }
        Expr::InList(InList { expr, list: values, negated }) => {
            let not = if *negated { "NOT " } else { "" };
            format!("{} {not}IN ({})", nested(expr, name), list(values))
        }
        Expr::Case(case) => case_text(case, name),
        Expr::ScalarFunction(call) => match (as_cast(expr), as_arithmetic(expr)) {
            (Some((inner, cast)), _) => cast_text(inner, cast, name),
            (_, Some(binary)) => binary_text(&binary, name),
            _ => function_text(call.name(), &call.args, name),
        },
        Expr::AggregateFunction(call) => aggregate_text(call, name),
        other => other.to_string(),
    }
}

/// The cast of ours that `expr` is, and what it casts.
fn as_cast(expr: &Expr) -> Option<(&Expr, &Cast)> {
    let Expr::ScalarFunction(call) = expr else { return None };
    Some((call.args.first()?, call.func.inner().downcast_ref::<Cast>()?))
}

fn cast_text(inner: &Expr, cast: &Cast, name: &dyn Fn(&Column) -> String) -> String {
    let text = expr_text(inner, name);
    match inner {
        Expr::Literal(..) if cast.to().is_numeric() && !cast.is_try() => text,
        _ => format!("{}CAST({text} AS {})", if cast.is_try() { "TRY_" } else { "" }, sql_name(cast.to())),
    }
}

/// The arithmetic of decimals that `expr` is, as the operator that it was written with.
fn as_arithmetic(expr: &Expr) -> Option<BinaryExpr> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let op = match call.func.inner().downcast_ref::<DecimalArithmetic>()?.sign() {
        Sign::Plus => Operator::Plus,
        Sign::Minus => Operator::Minus,
        Sign::Times => Operator::Multiply,
        Sign::Divide => Operator::Divide,
        Sign::Modulo => Operator::Modulo,
    };
    match call.args.as_slice() {
        [left, right] => Some(BinaryExpr::new(Box::new(left.clone()), op, Box::new(right.clone()))),
        _ => None,
    }
}

/// The operator between the two sides that `expr` is made of.
fn operator_of(expr: &Expr) -> Option<Operator> {
    match expr {
        Expr::BinaryExpr(binary) => Some(binary.op),
        other => as_arithmetic(other).map(|binary| binary.op),
    }
}

/// `expr` as SQL with the bare names of its columns.
pub(crate) fn bare_text(expr: &Expr) -> String {
    expr_text(expr, &|column| column.name.clone())
}

fn aggregate_text(call: &AggregateFunction, name: &dyn Fn(&Column) -> String) -> String {
    let text = |expr: &Expr| expr_text(expr, name);
    let AggregateFunctionParams { args, distinct, filter, order_by, .. } = &call.params;
    let args: Vec<String> = match (call.func.name(), args.as_slice()) {
        ("count", [Expr::Literal(..)]) => vec!["*".to_owned()],
        (_, args) => args.iter().map(text).collect(),
    };
    let distinct = if *distinct { "DISTINCT " } else { "" };
    let order = order_by.iter().map(|sort| {
        let (direction, first) = (if sort.asc { "" } else { " DESC" }, sort.nulls_first == sort.asc);
        let nulls = if sort.nulls_first { " NULLS FIRST" } else { " NULLS LAST" };
        format!("{}{direction}{}", text(&sort.expr), if first { "" } else { nulls })
    });
    let order = order.collect::<Vec<_>>().join(", ");
    let order = if order.is_empty() { order } else { format!(" ORDER BY {order}") };
    let filter = filter.as_ref().map_or_else(String::new, |filter| format!(" FILTER (WHERE {})", text(filter)));
    format!("{}({distinct}{}{order}){filter}", call.func.name().to_uppercase(), args.join(", "))
}

/// `expr` in brackets, if it is made of parts.
fn nested(expr: &Expr, name: &dyn Fn(&Column) -> String) -> String {
    let text = expr_text(expr, name);
    match expr {
        Expr::Between(_) | Expr::Not(_) => format!("({text})"),
        other if operator_of(other).is_some() => format!("({text})"),
        _ => text,
    }
}

fn binary_text(binary: &BinaryExpr, name: &dyn Fn(&Column) -> String) -> String {
    let own = binary.op.precedence();
    let side = |expr: &Expr, is_right: bool| {
        let text = expr_text(expr, name);
        match operator_of(expr).map(|op| op.precedence()) {
            Some(inner) if inner < own || (is_right && inner == own) => format!("({text})"),
            _ => text,
        }
    };
    let op = match binary.op {
        Operator::NotEq => "<>".to_owned(),
        op => op.to_string(),
    };
    format!("{} {op} {}", side(&binary.left, false), side(&binary.right, true))
}

fn case_text(case: &Case, name: &dyn Fn(&Column) -> String) -> String {
    let mut text = "CASE".to_owned();
    if let Some(operand) = &case.expr {
        text.push_str(&format!(" {}", expr_text(operand, name)));
    }
    for (when, then) in &case.when_then_expr {
        text.push_str(&format!(" WHEN {} THEN {}", expr_text(when, name), expr_text(then, name)));
    }
    if let Some(otherwise) = &case.else_expr {
        text.push_str(&format!(" ELSE {}", expr_text(otherwise, name)));
    }
    text + " END"
}

fn function_text(function: &str, args: &[Expr], name: &dyn Fn(&Column) -> String) -> String {
    if let ("date_part", [Expr::Literal(ScalarValue::Utf8(Some(field)), _), time]) = (function, args) {
        return format!("EXTRACT({} FROM {})", field.to_uppercase(), expr_text(time, name));
    }
    let args: Vec<String> = args.iter().map(|arg| expr_text(arg, name)).collect();
    format!("{}({})", function.to_uppercase(), args.join(", "))
}

fn literal(value: &ScalarValue) -> String {
    if value.is_null() {
        return "NULL".to_owned();
    }
    let array = value.to_array();
    let text = array.and_then(|array| Ok(array_value_to_string(&array, 0)?));
    let text = text.unwrap_or_else(|_| value.to_string());
    match (value.data_type(), duration_ms(value)) {
        (_, Some(millis)) => interval::sql(millis),
        (DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8, _) => format!("'{}'", text.replace('\'', "''")),
        (DataType::Boolean, _) => text.to_uppercase(),
        (DataType::Date32, _) => format!("DATE '{text}'"),
        (DataType::Timestamp(..), _) => format!("TIMESTAMP '{}'", text.replace('T', " ").trim_end_matches('Z')),
        (DataType::Interval(_), _) => format!("INTERVAL '{text}'"),
        _ => text,
    }
}

/// The length of a fixed interval, in whole milliseconds.
fn duration_ms(value: &ScalarValue) -> Option<i64> {
    let whole = |value: i64, per_milli: i64| (value % per_milli == 0).then_some(value / per_milli);
    match value {
        ScalarValue::DurationSecond(Some(seconds)) => seconds.checked_mul(1_000),
        ScalarValue::DurationMillisecond(Some(millis)) => Some(*millis),
        ScalarValue::DurationMicrosecond(Some(micros)) => whole(*micros, 1_000),
        ScalarValue::DurationNanosecond(Some(nanos)) => whole(*nanos, 1_000_000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{cast, col, lit};

    use super::*;

    #[test]
    fn expressions_read_as_sql() {
        let cases = [
            (col("t.a") + lit(1) * col("b"), "a + 1 * b"),
            ((col("a") + lit(1)) * col("b"), "(a + 1) * b"),
            (col("a") - (col("b") - lit(1)), "a - (b - 1)"),
            (col("a").eq(lit("it's")).or(col("b").not_eq(lit(true))), "a = 'it''s' OR b <> TRUE"),
            (cast(col("a"), DataType::Int64).is_null(), "CAST(a AS BIGINT) IS NULL"),
            (col("a").in_list(vec![lit(1), lit(2)], true), "a NOT IN (1, 2)"),
            (col("a").between(lit(1), lit(2)), "a BETWEEN 1 AND 2"),
            (lit(ScalarValue::Decimal128(Some(150), 3, 2)), "1.50"),
            (lit(ScalarValue::TimestampMillisecond(Some(0), None)), "TIMESTAMP '1970-01-01 00:00:00'"),
            (col("t") - lit(ScalarValue::DurationMillisecond(Some(5_000))), "t - INTERVAL '5' SECOND"),
            (lit(ScalarValue::Date32(Some(1))), "DATE '1970-01-02'"),
        ];
        for (expr, text) in cases {
            assert_eq!(bare_text(&expr), text);
        }
    }
}
