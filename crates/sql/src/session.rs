//! What is particular about sessions on the logical plan.
//!
//! A session's bounds follow from the rows of its key, so it matters which rows these are. The sessions of a call are
//! those of its PARTITION BY, over all rows of its table; the operator finds them by the keys of GROUP BY, over the rows
//! that reach it. So that both are the same, the keys must be the partition, and nothing but whole keys may be filtered
//! out in between.

use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};

use crate::diagnostic::{Position, SqlError};
use crate::nodes::{WindowAssign, as_node};
use crate::window::{Windowed, bare_column};
use crate::window_spec::WindowSpec;

/// Refuses a GROUP BY at `at` that is not by the very sessions that `found` are.
pub(crate) fn check_aggregate(aggregate: &Aggregate, found: &Windowed, at: Position) -> Result<(), SqlError> {
    if !matches!(found.window, WindowSpec::Session { .. }) {
        return Ok(());
    }
    if found.computed_with {
        let what = "expressions over window_start, window_end and window_time of a SESSION below its GROUP BY";
        return Err(SqlError::not_yet(what, at).help("compute with them in the SELECT list, or around the query"));
    }
    let Some(assign) = assign_below(&aggregate.input) else {
        return Err(SqlError::internal("a session lost its window"));
    };
    let partition: Vec<usize> =
        assign.partition.iter().filter_map(|column| assign.input.schema().index_of_column(column).ok()).collect();
    check_filters(&aggregate.input, &partition, at)?;
    let is_key = |expr: &&Expr| found.column(expr, &aggregate.input).is_none();
    let keys: Option<Vec<usize>> =
        aggregate.group_expr.iter().filter(is_key).map(|expr| place_of(&aggregate.input, expr)).collect();
    let is_partition = keys.is_some_and(|keys| {
        keys.iter().all(|key| partition.contains(key)) && partition.iter().all(|column| keys.contains(column))
    });
    if is_partition {
        return Ok(());
    }
    let names: Vec<&str> = assign.partition.iter().map(|column| column.name.as_str()).collect();
    let wanted = names.iter().chain(&["window_start", "window_end"]).copied().collect::<Vec<_>>().join(", ");
    let partition =
        if names.is_empty() { "no PARTITION BY".to_owned() } else { format!("PARTITION BY {}", names.join(", ")) };
    let sentence = format!("a SESSION with {partition} must be grouped by {wanted}");
    Err(SqlError::new(sentence)
        .at(at)
        .help("PARTITION BY in SESSION and the keys of GROUP BY must be the same columns"))
}

/// Refuses a session whose rows nothing groups.
pub(crate) fn check_rest(plan: &LogicalPlan, at: Position) -> Result<(), SqlError> {
    match as_node::<WindowAssign>(plan) {
        Some(assign) if matches!(assign.window, WindowSpec::Session { .. }) => {
            let what = "SESSION windows without GROUP BY";
            Err(SqlError::not_yet(what, at).help("GROUP BY its PARTITION BY columns, window_start, window_end"))
        }
        _ => plan.inputs().into_iter().try_for_each(|input| check_rest(input, at)),
    }
}

fn assign_below(plan: &LogicalPlan) -> Option<&WindowAssign> {
    as_node::<WindowAssign>(plan).or_else(|| match plan {
        LogicalPlan::SubqueryAlias(alias) => assign_below(&alias.input),
        LogicalPlan::Filter(filter) => assign_below(&filter.input),
        LogicalPlan::Projection(projection) => assign_below(&projection.input),
        _ => None,
    })
}

/// Which column of the window's rows `expr` over `plan` is.
fn place_of(plan: &LogicalPlan, expr: &Expr) -> Option<usize> {
    let index = plan.schema().index_of_column(bare_column(expr)?).ok()?;
    match plan {
        LogicalPlan::SubqueryAlias(alias) => {
            place_of(&alias.input, &Expr::Column(alias.input.schema().columns().get(index)?.clone()))
        }
        LogicalPlan::Filter(filter) => place_of(&filter.input, expr),
        LogicalPlan::Projection(projection) => place_of(&projection.input, projection.expr.get(index)?),
        LogicalPlan::Extension(_) => as_node::<WindowAssign>(plan).map(|_| index),
        _ => None,
    }
}

/// Whole keys may be filtered out of a session's rows, and nothing else.
fn check_filters(plan: &LogicalPlan, partition: &[usize], at: Position) -> Result<(), SqlError> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => check_filters(&alias.input, partition, at),
        LogicalPlan::Projection(projection) => check_filters(&projection.input, partition, at),
        LogicalPlan::Filter(filter) => {
            let columns = filter.predicate.column_refs().into_iter().cloned().map(Expr::Column);
            let places: Option<Vec<usize>> = columns.map(|column| place_of(&filter.input, &column)).collect();
            if places.is_some_and(|places| places.iter().all(|place| partition.contains(place))) {
                return check_filters(&filter.input, partition, at);
            }
            let what = "WHERE clauses between a SESSION and its GROUP BY, other than on PARTITION BY columns,";
            Err(SqlError::not_yet(what, at)
                .help("filter below: CREATE VIEW v AS SELECT .. WHERE .., then SESSION(TABLE v ..)"))
        }
        _ => Ok(()),
    }
}
