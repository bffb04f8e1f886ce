//! ORDER BY on a stream: at the end of the query, by event time first, ascending. From such an order rows can come out
//! as the watermark goes on; every other one needs the end of the input, which only batch mode waits for.

use std::sync::Arc;

use datafusion::common::Result as DfResult;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, Sort};
use ruslo_core::graph::{Node, NodeIndex, NodeKind, Partitioning};
use ruslo_operators::{EventTimeSortSpec, SortKey};

use crate::catalog::{Catalog, StreamTable};
use crate::diagnostic::{Position, Sql, SqlError};
use crate::explain::Detail;
use crate::ids::operator_id;
use crate::late_rows;
use crate::nodes::{WindowAggregate, WindowAssign, WindowColumn, as_node};
use crate::over::Over;
use crate::physical::{Physical, arrow_schema, index_of};
use crate::window::{bare_column, lineage, zone};

/// Refuses an ORDER BY, which stands at `at`, that a stream cannot have.
pub(crate) fn check(plan: &LogicalPlan, at: Option<Position>) -> Sql<()> {
    let refused = || {
        SqlError::not_yet("ORDER BY clauses", at).help(
            "a stream is ordered by its event time first, ascending; over bounded tables, \
             SET 'execution.runtime-mode' = 'batch' before the query",
        )
    };
    let Some(sort) = last_sort(plan) else {
        return if has_sort(plan) { Err(refused()) } else { Ok(()) };
    };
    let is_first = sort.expr.first().is_some_and(|first| first.asc && is_event_time(&sort.input, &first.expr));
    if !is_first || sort.fetch.is_some() || has_sort(&sort.input) {
        return Err(refused());
    }
    for key in &sort.expr {
        let Some(column) = bare_column(&key.expr) else {
            let error = SqlError::not_yet("computed columns in the ORDER BY of a stream", at);
            return Err(error.help("compute it in a subquery, and order by its name"));
        };
        if sort.input.schema().field(index_of(sort.input.schema(), column)?).data_type().is_nested() {
            return Err(SqlError::not_yet("ARRAY, MAP and ROW columns in ORDER BY", at));
        }
    }
    Ok(())
}

/// `plan`, whose ORDER BY was checked, without the late rows of its table, if that wants them kept.
pub(crate) fn without_late_rows(plan: LogicalPlan, catalog: &Catalog) -> DfResult<LogicalPlan> {
    let made = plan.transform_down(|node| match node {
        LogicalPlan::Sort(sort) => {
            let Some(time) = sort.expr.first().map(|first| first.expr.clone()) else {
                return Ok(Transformed::no(LogicalPlan::Sort(sort)));
            };
            let input = late_rows::take_out_of_order(Arc::unwrap_or_clone(sort.input), &time, catalog)?;
            let sort = Sort { input: Arc::new(input), ..sort };
            Ok(Transformed::new(LogicalPlan::Sort(sort), true, TreeNodeRecursion::Stop))
        }
        other => Ok(Transformed::no(other)),
    });
    made.map(|made| made.data)
}

/// The sort behind which rows are only renamed and left out.
fn last_sort(plan: &LogicalPlan) -> Option<&Sort> {
    match plan {
        LogicalPlan::Sort(sort) => Some(sort),
        LogicalPlan::Projection(projection) => last_sort(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => last_sort(&alias.input),
        _ => None,
    }
}

fn has_sort(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Sort(_)) || plan.inputs().into_iter().any(has_sort)
}

/// Whether rows with a value up to the watermark have all come when the watermark has.
fn is_event_time(plan: &LogicalPlan, expr: &Expr) -> bool {
    let index = bare_column(expr).and_then(|column| plan.schema().index_of_column(column).ok());
    index.is_some_and(|index| is_event_time_column(plan, index))
}

fn is_event_time_column(plan: &LogicalPlan, index: usize) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let table = scan.source.downcast_ref::<StreamTable>();
            let watermark = table.and_then(|table| table.0.watermark.as_ref());
            watermark.is_some_and(|watermark| watermark.column == *plan.schema().field(index).name())
        }
        LogicalPlan::Projection(projection) => {
            projection.expr.get(index).is_some_and(|expr| is_event_time(&projection.input, expr))
        }
        LogicalPlan::Filter(filter) => is_event_time_column(&filter.input, index),
        LogicalPlan::SubqueryAlias(alias) => is_event_time_column(&alias.input, index),
        LogicalPlan::Union(union) => union.inputs.iter().all(|input| is_event_time_column(input, index)),
        LogicalPlan::Extension(_) => match as_node::<WindowAssign>(plan) {
            Some(assign) if index < assign.input_columns() => is_event_time_column(&assign.input, index),
            Some(_) => is_end(plan, index),
            None => match as_node::<Over>(plan) {
                Some(over) => index < over.input_columns() && is_event_time_column(&over.input, index),
                None => as_node::<WindowAggregate>(plan).is_some() && is_end(plan, index),
            },
        },
        _ => false,
    }
}

/// Whether a window's column tells its end: it is complete once the watermark is there.
fn is_end(plan: &LogicalPlan, index: usize) -> bool {
    let name = plan.schema().field(index).name();
    // Local time goes back where the clocks do.
    let is_bound = name == WindowColumn::End.name() && !zone(plan).shifts();
    is_bound || name == WindowColumn::Time.name()
}

/// The tables that `plan` reads, as operator ids call them, in the order of the text.
fn sources(plan: &LogicalPlan) -> Vec<String> {
    let own = match plan {
        LogicalPlan::TableScan(scan) => scan.source.downcast_ref::<StreamTable>(),
        _ => None,
    };
    let own = own.map(|table| format!("source {}", table.0.name.value));
    own.into_iter().chain(plan.inputs().into_iter().flat_map(sources)).collect()
}

impl Physical<'_> {
    /// Adds the operator that sorts the rows of `sort`, all in one subtask.
    pub(crate) fn sort(&mut self, sort: &Sort) -> Sql<NodeIndex> {
        let input = self.node(&sort.input)?;
        self.must_append(input, "ORDER BY of an event time")?;
        let schema = sort.input.schema();
        let (mut keys, mut shown, mut canonical) = (Vec::new(), Vec::new(), Vec::new());
        for key in &sort.expr {
            let column = bare_column(&key.expr).ok_or_else(|| SqlError::internal("a computed column in ORDER BY"))?;
            keys.push(SortKey {
                column: index_of(schema, column)?,
                descending: !key.asc,
                nulls_first: key.nulls_first,
            });
            let direction = if key.asc { "ASC" } else { "DESC" };
            let nulls = if key.nulls_first { "NULLS FIRST" } else { "NULLS LAST" };
            shown.push(if key.asc { column.name.clone() } else { format!("{} DESC", column.name) });
            canonical.push(format!("{} {direction} {nulls}", lineage(&sort.input, column)));
        }
        let id = format!("sort keys=[{}] inputs=[{}]", canonical.join(", "), sources(&sort.input).join(", "));
        let spec = EventTimeSortSpec::new(&arrow_schema(schema), keys)?;
        let detail = Detail::new(&format!("EventTimeSort {}", shown.join(", ")), "all rows to one subtask")
            .line("time", shown.first().cloned().unwrap_or_default())
            .line("state", "rows until the watermark has reached them")
            .with(self.properties(input))
            .does(id.clone())
            .keeps(spec.state_table());
        let node = Node {
            id: operator_id(&id),
            name: detail.name.clone(),
            parallelism: 1,
            schema: spec.schema(),
            kind: NodeKind::Operator(spec.factory()),
        };
        Ok(self.add(node, Some((input, Partitioning::KeyGroup(Vec::new()))), detail))
    }
}
