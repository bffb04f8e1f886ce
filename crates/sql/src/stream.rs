//! From DataFusion's logical plan to the streaming one: GROUP BY over a window becomes a window aggregate, every other
//! GROUP BY an updating one (`group_by`), as does DISTINCT.
//!
//! ```text
//! Aggregate: keys, window_start, window_end, aggregates       Projection: names as they were
//!   …                                                    →      WindowAggregate: keys, time, aggregates
//!     WindowAssign: time                                          Projection: keys, time, arguments
//!                                                                   …
//! ```
//!
//! The window aggregate finds the window of a row by itself, from any time in that window. So where nothing on the way
//! computes with the window's columns, `WindowAssign` is replaced by a projection that passes the row's own time on
//! under their names, and costs nothing. Otherwise it stays, and the aggregate takes `window_start` for the time.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, Result as DfResult, ScalarValue, internal_datafusion_err};
use datafusion::logical_expr::expr::{AggregateFunction, AggregateFunctionParams, Sort};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{Aggregate, AggregateUDF, Distinct, Expr, LogicalPlan, Projection, lit};

use ruslo_operators::is_ordered;

use crate::catalog::Catalog;
use crate::diagnostic::{Position, SqlError};
use crate::errors::carried;
use crate::group_by;
use crate::join;
use crate::late_rows;
use crate::nodes::{WindowAggregate, WindowAggregateParts, WindowAssign, WindowColumn, as_node};
use crate::over::{only_numbers, over as over_frames};
use crate::session;
use crate::text::{bare_text, expr_text};
use crate::top_n;
use crate::window::{Windowed, inputs, lineage, window_time_column, windowed};
use crate::window_spec::WindowSpec;

/// Where the parts of a query stand, or its beginning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    /// GROUP BY.
    pub(crate) group: Position,
    /// The first OVER.
    pub(crate) over: Position,
    /// The first JOIN.
    pub(crate) join: Position,
}

/// The streaming plan of `plan`, whose parts stand at `places`.
pub(crate) fn streaming(plan: LogicalPlan, places: Places, catalog: &Catalog) -> DfResult<LogicalPlan> {
    let Places { group: at, over, join } = places;
    let plan = join::without_subqueries(plan, join).and_then(join::with_keys)?;
    let rewritten = plan.transform_up(|node| match node {
        LogicalPlan::Join(node) => join::join(&node, join, catalog).map(Transformed::yes),
        LogicalPlan::Aggregate(aggregate) => grouped(&aggregate, at, catalog).map(Transformed::yes),
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
            grouped(&Aggregate::try_new(input, columns, Vec::new())?, at, catalog).map(Transformed::yes)
        }
        LogicalPlan::Filter(filter) => top_n::top_n(filter, over, catalog),
        // A row number may be bounded above.
        LogicalPlan::Window(window) if !only_numbers(&window) => {
            over_frames(&window, over, catalog).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    })?;
    let rewritten = rewritten.data.transform_up(|node| match node {
        LogicalPlan::Window(window) => over_frames(&window, over, catalog).map(Transformed::yes),
        other => Ok(Transformed::no(other)),
    })?;
    session::check_rest(&rewritten.data, at).map_err(carried)?;
    join::check_times(&rewritten.data, join).map_err(carried)?;
    Ok(rewritten.data)
}

/// What a column of GROUP BY is.
enum Grouped {
    Key(Column),
    Window(WindowColumn),
}

/// An aggregate by window, if one of its keys is of a window; else an updating one.
fn grouped(aggregate: &Aggregate, at: Position, catalog: &Catalog) -> DfResult<LogicalPlan> {
    let Some(found) = windowed(&aggregate.input) else { return group_by::group_by(aggregate) };
    let is_of_window = |expr: &&Expr| found.column(expr, &aggregate.input).is_some();
    if !grouping_set_to_exprlist(&aggregate.group_expr)?.iter().any(is_of_window) {
        return group_by::group_by(aggregate);
    }
    if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
        let error = SqlError::not_yet("GROUPING SETS, CUBE and ROLLUP of windows", at);
        return Err(carried(error.help("UNION ALL one query for each set of keys")));
    }
    window_aggregate(aggregate, found, at, catalog)
}

fn window_aggregate(
    aggregate: &Aggregate,
    mut found: Windowed,
    at: Position,
    catalog: &Catalog,
) -> DfResult<LogicalPlan> {
    check_grouped(aggregate, &found, at).map_err(carried)?;
    found.computed_with |= computes_with_window(aggregate, &found);
    session::check_aggregate(aggregate, &found, at).map_err(carried)?;

    let input = if found.computed_with { aggregate.input.as_ref().clone() } else { pass_time_on(&aggregate.input)? };
    let mut columns = Columns::default();
    let mut grouped = Vec::new();
    for expr in &aggregate.group_expr {
        grouped.push(match found.column(expr, &aggregate.input) {
            Some(column) => Grouped::Window(column),
            None => Grouped::Key(columns.add(expr)),
        });
    }
    // A tumbling window is found anew from any time in it.
    let attached = found.computed_with && !matches!(found.window, WindowSpec::Tumble { .. });
    let time = time_of(&found, &input, attached)?;
    let input = late_rows::take_out(input, &aggregate.input, &found, &time, attached, catalog)?;
    let time = columns.push(time, if found.computed_with { "$time".to_owned() } else { found.time.clone() });
    let mut aggregates = Vec::new();
    let mut names = Vec::new();
    let when = event_time(aggregate, &found, &input, &time, &mut columns);
    for expr in &aggregate.aggr_expr {
        aggregates.push(columns.take_arguments(expr, when.as_ref())?);
        names.push(columns.free_name(bare_text(expr)));
    }
    let keys = grouped.iter().filter_map(|column| match column {
        Grouped::Key(key) => Some(key.clone()),
        Grouped::Window(_) => None,
    });
    let parts = WindowAggregateParts {
        keys: keys.collect(),
        time,
        window: found.window,
        zone: found.zone,
        attached,
        aggregates,
        names: names.clone(),
        lineage: lineage_of(aggregate, &found, attached),
    };
    let input = LogicalPlan::Projection(Projection::try_new(columns.exprs, Arc::new(input))?);
    let node = WindowAggregate::try_new(input, parts)?.into_plan();
    named_as(aggregate, &grouped, &names, node)
}

/// Windows that start together and end apart are told apart by their ends.
fn check_grouped(aggregate: &Aggregate, found: &Windowed, at: Position) -> Result<(), SqlError> {
    let mut columns = aggregate.group_expr.iter().filter_map(|expr| found.column(expr, &aggregate.input));
    if !matches!(found.window, WindowSpec::Cumulate { .. }) || columns.any(|column| column != WindowColumn::Start) {
        return Ok(());
    }
    let sentence = "CUMULATE windows that start together are told apart by window_end";
    Err(SqlError::new(sentence).at(at).help("GROUP BY window_start, window_end"))
}

/// Whether a key or an argument is computed from the window's columns.
fn computes_with_window(aggregate: &Aggregate, found: &Windowed) -> bool {
    let keys = aggregate.group_expr.iter().filter(|expr| found.column(expr, &aggregate.input).is_none());
    keys.chain(&aggregate.aggr_expr).any(|expr| found.is_used_in(expr, &aggregate.input))
}

/// `plan` with the row's time under the names of the window's columns.
fn pass_time_on(plan: &LogicalPlan) -> DfResult<LogicalPlan> {
    let Some(assign) = as_node::<WindowAssign>(plan) else {
        let inputs = plan.inputs().into_iter().map(pass_time_on).collect::<DfResult<Vec<_>>>()?;
        return plan.with_new_exprs(plan.expressions(), inputs)?.recompute_schema();
    };
    let mut exprs: Vec<Expr> = assign.input.schema().columns().into_iter().map(Expr::Column).collect();
    for column in WindowColumn::ALL {
        let time = Expr::Column(assign.time.clone());
        exprs.push(time.alias_qualified(assign.time.relation.clone(), column.name()));
    }
    Projection::try_new(exprs, Arc::new(assign.input.clone())).map(LogicalPlan::Projection)
}

/// A time in the row's window, from the columns of `input`: for an attached window, in its last slice.
fn time_of(found: &Windowed, input: &LogicalPlan, attached: bool) -> DfResult<Expr> {
    let column = |wanted: WindowColumn| {
        let place = found.columns.iter().find(|(_, column)| **column == wanted)?.0;
        Some(Expr::Column(Column::from(input.schema().qualified_field(*place))))
    };
    let millis = |millis| lit(ScalarValue::DurationMillisecond(Some(millis)));
    let start = match (attached, found.window) {
        (false, _) => column(WindowColumn::Start),
        (true, WindowSpec::Hop { size_ms, .. }) => column(WindowColumn::Start).map(|start| start + millis(size_ms - 1)),
        // Several of these windows start together.
        (true, _) => None,
    };
    // Where the clocks are set, the window's time may be before its last slice.
    let time = column(WindowColumn::Time).filter(|_| !(attached && found.zone.shifts()));
    if let Some(inside) = start.or(time) {
        return Ok(inside);
    }
    let end = column(WindowColumn::End).ok_or_else(|| match found.columns.is_empty() {
        true => internal_datafusion_err!("a window lost its columns"),
        false => carried(no_end()),
    })?;
    // Where nothing computes with the window, `window_end` is the row's own time already.
    Ok(if found.computed_with { end - millis(1) } else { end })
}

/// Says that windows of local time cannot be told apart.
pub(crate) fn no_end() -> SqlError {
    SqlError::new("windows of local time are told apart by window_end, which is not among the columns below")
        .help("SELECT window_end and group by it, too")
}

/// The columns below a window aggregate: each once, under a name of its own.
#[derive(Default)]
pub(crate) struct Columns {
    exprs: Vec<Expr>,
    sources: Vec<(Expr, Column)>,
    names: HashSet<String>,
}

impl Columns {
    fn add(&mut self, expr: &Expr) -> Column {
        let expr = expr.clone().unalias_nested().data;
        if let Some((_, column)) = self.sources.iter().find(|(known, _)| *known == expr) {
            return column.clone();
        }
        let preferred = match &expr {
            Expr::Column(column) => column.name.clone(),
            computed => bare_text(computed),
        };
        let column = self.push(expr.clone(), preferred);
        self.sources.push((expr, column.clone()));
        column
    }

    /// Adds a column of its own, whatever others there are.
    pub(crate) fn push(&mut self, expr: Expr, preferred: String) -> Column {
        let name = self.free_name(preferred);
        self.exprs.push(expr.alias(name.clone()));
        Column::new_unqualified(name)
    }

    /// `preferred`, or a name like it that nothing else has.
    pub(crate) fn free_name(&mut self, preferred: String) -> String {
        let reserved = |name: &String| WindowColumn::ALL.iter().any(|column| column.name() == name);
        let mut name = preferred.clone();
        while reserved(&name) || !self.names.insert(name.clone()) {
            name = format!("{preferred}${}", self.names.len());
        }
        name
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.exprs.is_empty()
    }

    /// All of them, under their names.
    pub(crate) fn into_exprs(self) -> Vec<Expr> {
        self.exprs
    }

    /// The aggregate with columns in place of all that it computes with; constants stay.
    pub(crate) fn take_written(&mut self, expr: &Expr) -> DfResult<Expr> {
        self.take_ordered(expr, |_, _| Ok(None))
    }

    /// The same; where the order of rows shows in the result and none is asked for, it is that of the event time, `when`.
    fn take_arguments(&mut self, expr: &Expr, when: Option<&Column>) -> DfResult<Expr> {
        self.take_ordered(expr, |func, params| match (goes_by_time(func, params), when) {
            (false, _) => Ok(None),
            (true, Some(time)) => Ok(Some(time.clone())),
            (true, None) => Err(carried(no_event_time(func.name()))),
        })
    }

    fn take_ordered(
        &mut self,
        expr: &Expr,
        time: impl FnOnce(&AggregateUDF, &AggregateFunctionParams) -> DfResult<Option<Column>>,
    ) -> DfResult<Expr> {
        let Expr::AggregateFunction(AggregateFunction { func, params }) = expr.clone().unalias() else {
            return Err(internal_datafusion_err!("'{expr}' is not an aggregate"));
        };
        let column = |columns: &mut Self, expr: Expr| match expr {
            Expr::Literal(..) => expr,
            computed => Expr::Column(columns.add(&computed)),
        };
        let time = time(&func, &params)?;
        let args = params.args.into_iter().map(|arg| column(self, arg)).collect();
        let filter = params.filter.map(|filter| Box::new(column(self, *filter)));
        let order_by = params.order_by.into_iter().map(|sort| Sort { expr: column(self, sort.expr), ..sort });
        let mut order_by = order_by.collect::<Vec<_>>();
        order_by.extend(time.map(|time| Expr::Column(time).sort(true, true)));
        let params =
            AggregateFunctionParams { args, filter, order_by, distinct: params.distinct, null_treatment: None };
        Ok(Expr::AggregateFunction(AggregateFunction { func, params }))
    }
}

/// Whether the order of rows shows in a call's result and none is asked for.
pub(crate) fn goes_by_time(function: &AggregateUDF, params: &AggregateFunctionParams) -> bool {
    params.order_by.is_empty() && !params.distinct && is_ordered(function.name())
}

/// The column with the rows' own event time, if an aggregate asks for it and it is there; `time` is one in their window.
fn event_time(
    aggregate: &Aggregate,
    found: &Windowed,
    input: &LogicalPlan,
    time: &Column,
    columns: &mut Columns,
) -> Option<Column> {
    let is_asked_for = aggregate.aggr_expr.iter().any(|expr| match expr.clone().unalias() {
        Expr::AggregateFunction(call) => goes_by_time(&call.func, &call.params),
        _ => false,
    });
    match (is_asked_for, found.computed_with) {
        (false, _) => None,
        (true, false) => Some(time.clone()),
        (true, true) => {
            let place = window_time_column(&aggregate.input)?;
            Some(columns.add(&Expr::Column(Column::from(input.schema().qualified_field(place)))))
        }
    }
}

/// Says that `function` lacks the event time.
pub(crate) fn no_event_time(function: &str) -> SqlError {
    let name = function.to_uppercase();
    SqlError::new(format!("{name} goes by event time, but the window's time column is not among the columns below it"))
        .help(format!("SELECT the time column, too, or write {name}(.. ORDER BY ..)"))
}

fn lineage_of(aggregate: &Aggregate, found: &Windowed, attached: bool) -> String {
    let keys = aggregate.group_expr.iter().filter(|expr| found.column(expr, &aggregate.input).is_none());
    let keys: Vec<String> = keys.map(|expr| canonical(expr, &aggregate.input)).collect();
    let attached = if attached { " attached" } else { "" };
    format!(
        "{}{attached} keys=[{}] inputs=[{}]",
        found.window.identity(found.zone),
        keys.join(", "),
        inputs(&aggregate.input).join(", ")
    )
}

/// A key, with its columns as table and column.
fn canonical(expr: &Expr, input: &LogicalPlan) -> String {
    expr_text(expr, &|column| lineage(input, column))
}

/// `node` under the names of the aggregate that it replaces.
fn named_as(aggregate: &Aggregate, grouped: &[Grouped], names: &[String], node: LogicalPlan) -> DfResult<LogicalPlan> {
    let groups = grouped.iter().map(|column| match column {
        Grouped::Key(key) => key.clone(),
        Grouped::Window(column) => Column::new_unqualified(column.name()),
    });
    let names = names.iter().map(Column::new_unqualified);
    let exprs = groups
        .chain(names)
        .zip(aggregate.schema.iter())
        .map(|(column, (qualifier, field))| Expr::Column(column).alias_qualified(qualifier.cloned(), field.name()));
    Projection::try_new(exprs.collect(), Arc::new(node)).map(LogicalPlan::Projection)
}
