//! What of a query's filters is told to the source: comparisons of a column with a constant.
//!
//! The optimiser notes them at the scan and leaves the filter where it is, above. A source may leave out parts of its
//! input that cannot hold a row that is wanted; so this may lose a comparison, but must never make one up. Where a row
//! that nobody wants has an effect of its own (it moves a watermark, or fails in a computed column), nothing is told.

use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};
use ruslo_core::connector::{Bound, Comparison};

use crate::catalog::Table;

/// The comparison that a filter is, if it is one of a column that the connector has.
pub(crate) fn bound(filter: &Expr, table: &Table) -> Option<Bound> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = filter else { return None };
    let comparison = comparison(*op)?;
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) => of_column(&column.name, comparison, value, table),
        (Expr::Literal(value, _), Expr::Column(column)) => of_column(&column.name, comparison.turned(), value, table),
        _ => None,
    }
}

fn comparison(op: Operator) -> Option<Comparison> {
    Some(match op {
        Operator::Eq => Comparison::Equal,
        Operator::Lt => Comparison::Less,
        Operator::LtEq => Comparison::LessOrEqual,
        Operator::Gt => Comparison::Greater,
        Operator::GtEq => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn of_column(name: &str, comparison: Comparison, value: &ScalarValue, table: &Table) -> Option<Bound> {
    let physical = table.physical_schema();
    let field = physical.field_with_name(name).ok()?;
    let has_order = field.data_type().is_integer()
        || matches!(field.data_type(), DataType::Date32 | DataType::Timestamp(..) | DataType::Utf8);
    if !has_order || value.is_null() || value.data_type() != *field.data_type() {
        return None;
    }
    Some(Bound { column: name.to_owned(), comparison, value: value.to_array().ok()? })
}
