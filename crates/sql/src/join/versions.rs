//! Tables with versions: what may stand on the right side of `FOR SYSTEM_TIME AS OF` an event time.
//!
//! | right side | its versions are | by |
//! |---|---|---|
//! | a table with PRIMARY KEY and WATERMARK | its rows, or the changes that its records tell | the primary key |
//! | `ROW_NUMBER() OVER (PARTITION BY k ORDER BY t DESC) = 1` | the rows below | `k` |
//!
//! Projections may stand over either. A filter may not: it would bring an older version back.

use std::sync::Arc;

use datafusion::common::{Column, Result as DfResult};
use datafusion::logical_expr::{Expr, LogicalPlan, Projection, SubqueryAlias, TableScan};

use crate::catalog::{StreamTable, Table};
use crate::diagnostic::{Sql, SqlError};
use crate::errors::from_datafusion;
use crate::nodes::as_node;
use crate::updating_top_n::UpdatingTopN;
use crate::window::{bare_column, is_event_time};

/// The versions of the rows of a table.
#[derive(Debug)]
pub(super) struct Versions {
    /// The versions, with the columns of what stands on the right side.
    pub(super) plan: LogicalPlan,
    /// What it is called.
    pub(super) name: String,
    /// The key's columns, by place and name.
    pub(super) keys: Vec<(usize, String)>,
    /// The place of the time of a version.
    pub(super) time: usize,
}

/// The versions that `plan` has.
pub(super) fn versions(plan: &LogicalPlan) -> Sql<Versions> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => {
            let below = versions(&alias.input)?;
            let aliased = SubqueryAlias::try_new(Arc::new(below.plan), alias.alias.clone());
            Ok(Versions { plan: planned(aliased.map(LogicalPlan::SubqueryAlias))?, ..below })
        }
        LogicalPlan::Projection(projection) => projected(projection),
        LogicalPlan::TableScan(scan) => of_table(scan, plan),
        LogicalPlan::Filter(_) => {
            Err(SqlError::new("FOR SYSTEM_TIME AS OF reads all versions of a table, so no WHERE may stand between")
                .help("put the condition behind ON"))
        }
        LogicalPlan::Extension(_) if as_node::<UpdatingTopN>(plan).is_some() => of_last_rows(plan),
        _ => Err(no_versions()),
    }
}

fn no_versions() -> SqlError {
    SqlError::new("FOR SYSTEM_TIME AS OF reads a table that has versions").help(
        "that is a table with PRIMARY KEY and WATERMARK, or a view that keeps the row with \
         ROW_NUMBER() OVER (PARTITION BY key ORDER BY rowtime DESC) = 1",
    )
}

fn planned(plan: DfResult<LogicalPlan>) -> Sql<LogicalPlan> {
    plan.map_err(|error| from_datafusion(&error, &[]))
}

fn projected(projection: &Projection) -> Sql<Versions> {
    let below = versions(&projection.input)?;
    let schema = projection.input.schema();
    let place_of = |wanted: usize| {
        let is_it =
            |expr: &Expr| bare_column(expr).and_then(|column| schema.maybe_index_of_column(column)) == Some(wanted);
        projection.expr.iter().position(is_it)
    };
    let lost = |what: &str| {
        let name = &below.name;
        SqlError::new(format!("what is joined FOR SYSTEM_TIME AS OF lacks '{what}' of '{name}'"))
            .help(format!("SELECT '{what}', too"))
    };
    let key = |(place, name): &(usize, String)| Ok((place_of(*place).ok_or_else(|| lost(name))?, name.clone()));
    let keys = below.keys.iter().map(key).collect::<Sql<Vec<_>>>()?;
    let time = place_of(below.time).ok_or_else(|| lost(schema.field(below.time).name()))?;
    let plan = Projection::try_new(projection.expr.clone(), Arc::new(below.plan)).map(LogicalPlan::Projection);
    Ok(Versions { plan: planned(plan)?, name: below.name, keys, time })
}

fn of_table(scan: &TableScan, plan: &LogicalPlan) -> Sql<Versions> {
    let Some(table) = scan.source.downcast_ref::<StreamTable>() else { return Err(no_versions()) };
    let table: &Table = &table.0;
    let name = table.name.value.clone();
    if table.primary_key.is_empty() {
        let sentence =
            format!("'{name}' has no primary key, by which FOR SYSTEM_TIME AS OF would find versions of a row");
        return Err(SqlError::new(sentence).help(format!("add PRIMARY KEY (..) NOT ENFORCED to CREATE TABLE {name}")));
    }
    let Some(watermark) = &table.watermark else {
        let sentence = format!("'{name}' has no watermark, so FOR SYSTEM_TIME AS OF cannot tell when a version came");
        return Err(SqlError::new(sentence).help(format!("add WATERMARK FOR to CREATE TABLE {name}")));
    };
    let place = |column: &String| {
        let found = plan.schema().fields().iter().position(|field| field.name() == column);
        found.ok_or_else(|| SqlError::internal(format!("the table '{name}' lost '{column}'")))
    };
    let keys = table.primary_key.iter().map(|key| Ok((place(key)?, key.clone()))).collect::<Sql<Vec<_>>>()?;
    Ok(Versions { plan: plan.clone(), keys, time: place(&watermark.column)?, name: name.clone() })
}

fn of_last_rows(plan: &LogicalPlan) -> Sql<Versions> {
    let found = as_node::<UpdatingTopN>(plan).and_then(UpdatingTopN::last_of_each);
    let Some((input, keys, order)) = found else { return Err(no_versions()) };
    let place = |column: &Column| input.schema().maybe_index_of_column(column);
    let time = bare_column(order).and_then(place).filter(|place| is_event_time(input, *place));
    let Some(time) = time else { return Err(no_versions()) };
    let keys = keys.iter().map(|key| Some((place(key)?, key.name.clone()))).collect::<Option<Vec<_>>>();
    let keys = keys.filter(|keys| !keys.is_empty()).ok_or_else(no_versions)?;
    Ok(Versions { plan: input.clone(), name: "the view".to_owned(), keys, time })
}
