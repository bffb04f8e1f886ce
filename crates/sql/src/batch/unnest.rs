//! UNNEST in batch mode: a projection to lists, DataFusion's own unnest of them, and a projection to names.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, NullHandling, Result as DfResult, UnnestOptions};
use datafusion::functions::core::expr_fn::get_field;
use datafusion::functions_nested::expr_fn::{array_length, gen_series, map_keys, map_values};
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Projection, UserDefinedLogicalNodeCore, cast, lit,
};

use crate::unnest::Unnest;

/// `unnest` by nodes of DataFusion's.
pub(super) fn lower(unnest: &Unnest) -> DfResult<LogicalPlan> {
    let input = &unnest.input;
    let columns = input.schema().columns();
    let kept: Vec<Expr> =
        unnest.kept.iter().filter_map(|place| columns.get(*place).cloned().map(Expr::Column)).collect();
    let (lists, values) = lists(&unnest.collection, &unnest.collection.get_type(input.schema())?);
    let mut lists: Vec<Expr> = lists;
    let mut values = values;
    if unnest.options.with_ordinality {
        let length = match lists.first() {
            Some(first) => cast(array_length(first.clone()), DataType::Int64),
            None => lit(0_i64),
        };
        values.push(cast(list_column(lists.len()), DataType::Int32));
        lists.push(gen_series(lit(1_i64), length, lit(1_i64)));
    }
    let named = lists.into_iter().enumerate().map(|(place, list)| list.alias(list_name(place)));
    let exprs: Vec<Expr> = kept.iter().cloned().chain(named).collect();
    let unnested: Vec<Column> =
        (0..exprs.len() - kept.len()).map(|place| Column::new_unqualified(list_name(place))).collect();
    let null_handling =
        if unnest.options.keeps_empty { NullHandling::PreserveAndExpandEmpty } else { NullHandling::Drop };
    let options = UnnestOptions { null_handling, recursions: Vec::new() };
    let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input.clone()))?);
    let plan = LogicalPlanBuilder::from(plan).unnest_columns_with_options(unnested, options)?.build()?;
    let names = unnest.schema().iter().skip(kept.len());
    let values = values.into_iter().zip(names);
    let values = values.map(|(value, (qualifier, field))| value.alias_qualified(qualifier.cloned(), field.name()));
    let exprs = kept.into_iter().chain(values).collect();
    Projection::try_new(exprs, Arc::new(plan)).map(LogicalPlan::Projection)
}

/// The lists that are unnested, and what the elements' columns are of them.
fn lists(collection: &Expr, data_type: &DataType) -> (Vec<Expr>, Vec<Expr>) {
    match data_type {
        DataType::Map(..) => {
            let lists = vec![map_keys(collection.clone()), map_values(collection.clone())];
            (lists, vec![list_column(0), list_column(1)])
        }
        DataType::List(element) | DataType::LargeList(element) => {
            let values = match element.data_type() {
                DataType::Struct(fields) => {
                    fields.iter().map(|field| get_field(list_column(0), field.name().as_str())).collect()
                }
                _ => vec![list_column(0)],
            };
            (vec![collection.clone()], values)
        }
        _ => (vec![collection.clone()], vec![list_column(0)]),
    }
}

fn list_name(place: usize) -> String {
    format!("$list{place}")
}

fn list_column(place: usize) -> Expr {
    Expr::Column(Column::new_unqualified(list_name(place)))
}
