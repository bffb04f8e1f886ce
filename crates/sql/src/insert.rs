//! What comes out of a query against what its table takes: places, types, and the casts that Flink makes by itself.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{Column, Result as DfResult, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, cast};

use crate::catalog::Table;
use crate::cursor::At;
use crate::diagnostic::{Position, Sql, SqlError};
use crate::errors::from_datafusion;
use crate::nested::fix_cast;
use crate::types::{key_and_value, sql_name, to_column_type};

/// `plan` with the columns that `table` takes, in its order; `listed` are those that INSERT names.
pub(crate) fn conform(
    plan: LogicalPlan,
    table: &Table,
    listed: Option<&[At<String>]>,
    at: Position,
) -> Sql<LogicalPlan> {
    let wanted = table.sink_schema();
    let targets = match listed {
        Some(listed) => target_fields(table, listed)?,
        None => wanted.fields().to_vec(),
    };
    let given = plan.schema().fields().to_vec();
    if given.len() != targets.len() {
        let sentence = format!(
            "the query gives {}, the table '{}' takes {}",
            columns(given.len()),
            table.name.value,
            columns(targets.len())
        );
        return Err(SqlError::new(sentence).at(at).detail(side_by_side(&given, &targets)));
    }
    for (place, (from, to)) in given.iter().zip(&targets).enumerate() {
        if let Some(sentence) = misfit(place + 1, from, to) {
            return Err(SqlError::new(sentence).at(at).detail(side_by_side(&given, &targets)));
        }
    }
    let mut exprs = Vec::new();
    for field in wanted.fields() {
        let place = targets.iter().position(|target| target.name() == field.name());
        exprs.push(column_for(&plan, place, field, table, at)?);
    }
    project(exprs, plan).map_err(|error| from_datafusion(&error, &[]))
}

fn columns(count: usize) -> String {
    if count == 1 { "1 column".to_owned() } else { format!("{count} columns") }
}

fn target_fields(table: &Table, listed: &[At<String>]) -> Sql<Vec<FieldRef>> {
    let mut targets: Vec<FieldRef> = Vec::new();
    for name in listed {
        let column = table.columns.iter().find(|column| *column.field.name() == name.value).ok_or_else(|| {
            let error = SqlError::new(format!("there is no column '{}' in '{}'", name.value, table.name.value));
            error.at(name.at).near(&name.value, table.columns.iter().map(|column| column.field.name().as_str()))
        })?;
        if column.computed.is_some() {
            let sentence = format!("the column '{}' is computed: it cannot be written", name.value);
            return Err(SqlError::new(sentence).at(name.at));
        }
        if column.metadata.as_ref().is_some_and(|(_, is_virtual)| *is_virtual) {
            let sentence = format!("the column '{}' is VIRTUAL: it cannot be written", name.value);
            return Err(SqlError::new(sentence).at(name.at));
        }
        if targets.iter().any(|target| *target.name() == name.value) {
            return Err(SqlError::new(format!("the column '{}' is listed twice", name.value)).at(name.at));
        }
        targets.push(column.field.clone());
    }
    Ok(targets)
}

/// What the table's column `field` is filled with: the query's column at `place`, or NULL.
fn column_for(plan: &LogicalPlan, place: Option<usize>, field: &Field, table: &Table, at: Position) -> Sql<Expr> {
    let value = match place {
        Some(place) => {
            let column = Expr::Column(Column::from(plan.schema().qualified_field(place)));
            let same = plan.schema().field(place).data_type() == field.data_type();
            let value = if same { column } else { cast(column, field.data_type().clone()) };
            fix_cast(value, plan.schema()).map_err(|error| from_datafusion(&error, &[]))?
        }
        None if field.is_nullable() => {
            let null = ScalarValue::try_from(field.data_type()).map_err(|error| from_datafusion(&error, &[]))?;
            Expr::Literal(null, None)
        }
        None => {
            let (name, table) = (field.name(), &table.name.value);
            return Err(SqlError::new(format!("the column '{name}' of '{table}' is NOT NULL and not listed")).at(at));
        }
    };
    Ok(value.alias(field.name()))
}

/// Why the query's `place`th column cannot go into the table's, if it cannot.
fn misfit(place: usize, from: &Field, to: &Field) -> Option<String> {
    let name = to.name();
    if *from.data_type() == DataType::Null && !to.is_nullable() {
        return Some(format!("column {place} '{name}': the query gives NULL, the table's column is NOT NULL"));
    }
    if fits(from.data_type(), to.data_type()) {
        return None;
    }
    let (given, wanted) = (sql_name(from.data_type()), sql_name(to.data_type()));
    Some(format!("column {place} '{name}': the query gives {given}, the table wants {wanted}; CAST it"))
}

/// Whether Flink turns `from` into `to` by itself.
fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Decimal128, Float32, Float64, Null, Timestamp};
    let from = &to_column_type(from).unwrap_or_else(|| from.clone());
    match (from, to) {
        (Null, _) => true,
        // A value that does not fit is an error when it comes.
        (Decimal128(..), Decimal128(..)) => true,
        (from, Decimal128(..)) if from.is_signed_integer() => true,
        (from, Float32 | Float64) if from.is_signed_integer() => true,
        (Decimal128(..), Float32 | Float64) | (Float32, Float64) => true,
        (from, to) if from.is_signed_integer() && to.is_signed_integer() => {
            from.primitive_width() <= to.primitive_width()
        }
        (Timestamp(..) | Date32, Timestamp(..)) => true,
        (DataType::List(from), DataType::List(to)) => fits(from.data_type(), to.data_type()),
        (DataType::Map(from, _), DataType::Map(to, _)) => {
            let pairs = key_and_value(from).zip(key_and_value(to));
            pairs.is_some_and(|(from, to)| fits(from.0, to.0) && fits(from.1, to.1))
        }
        (DataType::Struct(from), DataType::Struct(to)) => {
            from.len() == to.len() && from.iter().zip(to).all(|(from, to)| fits(from.data_type(), to.data_type()))
        }
        (from, to) => from == to,
    }
}

/// Both schemas, line by line.
fn side_by_side(given: &[FieldRef], wanted: &[FieldRef]) -> String {
    let text = |field: Option<&FieldRef>| {
        field.map_or_else(|| "-".to_owned(), |field| format!("{} {}", field.name(), sql_name(field.data_type())))
    };
    let rows = given.len().max(wanted.len());
    let left: Vec<String> =
        ["the query".to_owned()].into_iter().chain((0..rows).map(|row| text(given.get(row)))).collect();
    let right = ["the table".to_owned()].into_iter().chain((0..rows).map(|row| text(wanted.get(row))));
    let width = left.iter().map(|text| text.chars().count()).max().unwrap_or_default();
    let lines: Vec<String> = left.iter().zip(right).map(|(left, right)| format!("  {left:width$}  {right}")).collect();
    lines.join("\n")
}

/// `plan` with columns that a table can have: what a bare SELECT shows.
pub(crate) fn shown(plan: LogicalPlan, at: Position) -> Sql<LogicalPlan> {
    let mut exprs = Vec::new();
    for (index, field) in plan.schema().fields().iter().enumerate() {
        let column = Expr::Column(Column::from(plan.schema().qualified_field(index)));
        let data_type = match field.data_type() {
            DataType::Null => Some(DataType::Utf8),
            DataType::Timestamp(TimeUnit::Second, None) => Some(DataType::Timestamp(TimeUnit::Millisecond, None)),
            other => to_column_type(other),
        };
        let Some(data_type) = data_type else {
            let (name, data_type) = (field.name(), sql_name(field.data_type()));
            let sentence = format!("the column '{name}' is {data_type}, which cannot be a result");
            return Err(SqlError::new(sentence).at(at).help("CAST it"));
        };
        let value = if data_type == *field.data_type() { column } else { cast(column, data_type) };
        let value = fix_cast(value, plan.schema()).map_err(|error| from_datafusion(&error, &[]))?;
        exprs.push(value.alias(field.name()));
    }
    project(exprs, plan).map_err(|error| from_datafusion(&error, &[]))
}

fn project(exprs: Vec<Expr>, plan: LogicalPlan) -> DfResult<LogicalPlan> {
    Projection::try_new(exprs, Arc::new(plan)).map(LogicalPlan::Projection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flinks_implicit_casts_widen() {
        use DataType::{Decimal128, Float32, Float64, Int32, Int64, Utf8};
        let allowed = [
            (Int32, Int64),
            (Int32, Float64),
            (Float32, Float64),
            (Decimal128(10, 2), Decimal128(12, 3)),
            (Int64, Decimal128(12, 2)),
            (Decimal128(38, 6), Decimal128(12, 2)),
            (DataType::Null, Utf8),
            (DataType::Utf8View, Utf8),
        ];
        allowed.iter().for_each(|(from, to)| assert!(fits(from, to), "{from} → {to}"));
        let refused = [
            (Int64, Int32),
            (Float64, Int64),
            (Float64, Float32),
            (Float64, Decimal128(12, 2)),
            (Int32, Utf8),
            (Utf8, Int32),
        ];
        refused.iter().for_each(|(from, to)| assert!(!fits(from, to), "{from} → {to}"));
    }

    #[test]
    fn schemas_stand_side_by_side() {
        let field = |name: &str, data_type| Arc::new(Field::new(name, data_type, true));
        let given = [field("origin", DataType::Utf8), field("n", DataType::Int64)];
        let text = side_by_side(&given, &given[..1]);
        assert_eq!(text, "  the query      the table\n  origin STRING  origin STRING\n  n BIGINT       -");
    }
}
