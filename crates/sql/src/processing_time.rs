//! Columns of processing time: `p AS PROCTIME()` in CREATE TABLE.
//!
//! Such a column says when its row was read. A window over it makes the source's watermark follow the clock; otherwise it
//! is like any window. In plans the column is computed by a marker, which the source replaces.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{Result as DfResult, internal_err};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::catalog::{Column, Table};
use crate::cursor::is_keyword;
use crate::deduplicate::Deduplicate;
use crate::diagnostic::{Sql, SqlError};
use crate::join::{JoinKind, StreamJoin};
use crate::nodes::{WindowAggregate, WindowAssign, as_node};
use crate::over::Over;
use crate::top_n_node::WindowTopN;
use crate::types::UTC;
use crate::window::{bare_column, table_column};

/// TIMESTAMP_LTZ(3).
pub(crate) fn data_type() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some(Arc::from(UTC)))
}

/// The column `name` of processing time, if that is what a computed column's tokens say.
pub(crate) fn column(name: &str, tokens: &[TokenWithSpan]) -> Option<Column> {
    let tokens: Vec<&Token> = tokens.iter().map(|token| &token.token).collect();
    let [function, Token::LParen, Token::RParen] = *tokens else { return None };
    let field = Arc::new(Field::new(name, data_type(), false));
    is_keyword(function, "PROCTIME").then(|| Column { field, computed: Some(marker()), metadata: None })
}

/// Whether a column is processing time.
pub(crate) fn is_processing_time(column: &Column) -> bool {
    column.computed.as_ref().is_some_and(is_marker)
}

/// Whether `expr` stands for when a row is read.
pub(crate) fn is_marker(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.func.inner().downcast_ref::<Marker>().is_some())
}

/// Whether the column `name` of `table` is.
pub(crate) fn has_processing_time(table: &Table, name: &str) -> bool {
    table.columns.iter().any(|column| column.field.name() == name && is_processing_time(column))
}

/// The tables of which `plans` have windows of processing time: their sources follow the clock.
///
/// # Errors
/// If there are windows or an order of event time over one of them, too: a source has one watermark.
pub(crate) fn driven_tables<'a>(plans: impl Iterator<Item = &'a LogicalPlan>) -> Sql<BTreeSet<String>> {
    let (mut driven, mut others) = (BTreeSet::new(), BTreeSet::new());
    plans.for_each(|plan| windowed_tables(plan, &mut driven, &mut others));
    match driven.intersection(&others).next() {
        Some(table) => {
            let what = format!("windows of processing time beside waiting for the event time of '{table}' in one job");
            Err(SqlError::not_yet(what, None))
        }
        None => Ok(driven),
    }
}

fn windowed_tables(plan: &LogicalPlan, driven: &mut BTreeSet<String>, others: &mut BTreeSet<String>) {
    plan.inputs().into_iter().for_each(|input| windowed_tables(input, driven, others));
    let of_join = as_node::<StreamJoin>(plan).into_iter().flat_map(waited_for_by_join);
    for (table, column) in waited_for(plan).into_iter().chain(of_join) {
        let tables = if has_processing_time(table, &column) { &mut *driven } else { &mut *others };
        tables.insert(table.name.value.clone());
    }
}

/// The table and column whose time the last operator of `plan` waits for.
fn waited_for(plan: &LogicalPlan) -> Option<(&Table, String)> {
    if let LogicalPlan::Sort(sort) = plan {
        return table_column(&sort.input, bare_column(&sort.expr.first()?.expr)?);
    }
    if let Some(aggregate) = as_node::<WindowAggregate>(plan) {
        return table_column(&aggregate.input, &aggregate.time);
    }
    if let Some(first) = as_node::<Deduplicate>(plan) {
        return table_column(&first.input, first.event_time()?);
    }
    if let Some(over) = as_node::<Over>(plan) {
        return table_column(&over.input, over.event_time()?);
    }
    let assign = assigned(&as_node::<WindowTopN>(plan)?.input)?;
    table_column(&assign.input, &assign.time)
}

/// The tables and columns whose times a join waits for; a window aggregate below it waits by itself.
fn waited_for_by_join(join: &StreamJoin) -> Vec<(&Table, String)> {
    let (left, right) = (&join.parts.left, &join.parts.right);
    let found = match &join.kind {
        JoinKind::Regular => [None, None],
        JoinKind::Interval { times, .. } | JoinKind::AsOf { times, .. } => {
            [table_column(left, &times.0), table_column(right, &times.1)]
        }
        JoinKind::Window { .. } => [left, right].map(|input| {
            let assign = assigned(input)?;
            table_column(&assign.input, &assign.time)
        }),
    };
    found.into_iter().flatten().collect()
}

/// The window of rows that nothing has grouped.
fn assigned(plan: &LogicalPlan) -> Option<&WindowAssign> {
    if as_node::<WindowAggregate>(plan).is_some() {
        return None;
    }
    as_node::<WindowAssign>(plan).or_else(|| plan.inputs().into_iter().find_map(assigned))
}

fn marker() -> Expr {
    static MARKER: LazyLock<Arc<ScalarUDF>> =
        LazyLock::new(|| Arc::new(ScalarUDF::from(Marker { signature: Signature::nullary(Volatility::Volatile) })));
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&MARKER), Vec::new()))
}

/// Stands for when a row is read.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Marker {
    signature: Signature,
}

impl ScalarUDFImpl for Marker {
    fn name(&self) -> &str {
        "PROCTIME"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(data_type())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs<'_>) -> DfResult<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), data_type(), false)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        internal_err!("a source did not say when its rows were read")
    }
}
