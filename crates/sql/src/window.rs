//! Windows on the logical plan: which columns may be windowed, and where a window's columns went.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use chrono_tz::Tz;
use datafusion::common::{Column, JoinType, Result as DfResult};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Union, UserDefinedLogicalNodeCore};

use crate::catalog::{StreamTable, Table};
use crate::cursor::At;
use crate::deduplicate::{Deduplicate, is_first_by_time};
use crate::diagnostic::SqlError;
use crate::errors::carried;
use crate::group_by::GroupBy;
use crate::join::{JoinKind, LookupJoin, StreamJoin};
use crate::late_rows::LateRows;
use crate::nodes::{WindowAggregate, WindowAssign, WindowColumn, as_node};
use crate::over::{Over, is_by_event_time};
use crate::processing_time::has_processing_time;
use crate::top_n;
use crate::top_n_node::WindowTopN;
use crate::tvf::WindowCall;
use crate::types::sql_name;
use crate::unnest::Unnest;
use crate::updating_top_n::UpdatingTopN;
use crate::window_spec::{WindowSpec, WindowZone};

/// `input` with the window that `call` asks for; its time column must be the event time of a table. Windows over a
/// TIMESTAMP_LTZ are of local time in `zone`.
pub(crate) fn assign(input: LogicalPlan, call: &WindowCall, zone: Tz) -> DfResult<LogicalPlan> {
    let index = time_column(&input, call).map_err(carried)?;
    check_event_time(&input, index, call).map_err(carried)?;
    let time = Column::from(input.schema().qualified_field(index));
    let partition = partition_columns(&input, call).map_err(carried)?;
    check_names(&input, call).map_err(carried)?;
    let zone = WindowZone::of(input.schema().field(index).data_type(), zone);
    WindowAssign::try_new(input, time, (call.window, zone), partition).map(WindowAssign::into_plan)
}

/// A window's columns must not meet others of their name.
fn check_names(input: &LogicalPlan, call: &WindowCall) -> Result<(), SqlError> {
    let names = WindowColumn::ALL.map(WindowColumn::name);
    let taken = input.schema().fields().iter().find(|field| names.contains(&field.name().as_str()));
    taken.map_or(Ok(()), |field| {
        let sentence = format!("'{}' has a column '{}' already", call.input.name(), field.name());
        Err(SqlError::new(sentence).at(call.at).help("SELECT it AS another name below the window"))
    })
}

/// The columns of the call's PARTITION BY.
fn partition_columns(input: &LogicalPlan, call: &WindowCall) -> Result<Vec<Column>, SqlError> {
    call.partition
        .iter()
        .map(|name| {
            let index = column_named(input, name, call)?;
            Ok(Column::from(input.schema().qualified_field(index)))
        })
        .collect()
}

/// The place of the column `name` of the call's table.
fn column_named(input: &LogicalPlan, name: &At<String>, call: &WindowCall) -> Result<usize, SqlError> {
    let fields = input.schema().fields();
    fields.iter().position(|field| *field.name() == name.value).ok_or_else(|| {
        SqlError::new(format!("there is no column '{}' in '{}'", name.value, call.input.name()))
            .at(name.at)
            .near(&name.value, fields.iter().map(|field| field.name().as_str()))
    })
}

/// Which column of `input` the call's DESCRIPTOR names.
fn time_column(input: &LogicalPlan, call: &WindowCall) -> Result<usize, SqlError> {
    let name = &call.time.value;
    let index = column_named(input, &call.time, call)?;
    let data_type = input.schema().field(index).data_type();
    if matches!(data_type, DataType::Timestamp(..)) {
        return Ok(index);
    }
    let sentence = format!("a window needs a TIMESTAMP column; '{name}' is {}", sql_name(data_type));
    Err(SqlError::new(sentence).at(call.time.at))
}

/// Where a column comes from.
enum Origin<'a> {
    Table(&'a Table, String),
    Window(WindowColumn),
    Computed,
}

fn check_event_time(input: &LogicalPlan, index: usize, call: &WindowCall) -> Result<(), SqlError> {
    let name = &call.time.value;
    let needs = |table: &str, column: &str| {
        SqlError::new(format!("the window on '{}' needs a watermark on '{name}'", call.input.name()))
            .at(call.time.at)
            .help(format!("add WATERMARK FOR {column} AS {column} - INTERVAL '5' SECOND to CREATE TABLE {table}"))
    };
    match origin(input, index) {
        Some(Origin::Table(table, column)) if has_processing_time(table, &column) => Ok(()),
        Some(Origin::Table(table, column)) => match &table.watermark {
            Some(watermark) if watermark.column == column => Ok(()),
            Some(watermark) => Err(SqlError::new(format!(
                "the window on '{}' needs a watermark on '{name}'; the watermark of '{}' is on '{}'",
                call.input.name(),
                table.name.value,
                watermark.column
            ))
            .at(call.time.at)),
            None => Err(needs(&table.name.value, &column)),
        },
        Some(Origin::Window(WindowColumn::Time)) => Ok(()),
        Some(Origin::Window(column)) => {
            let sentence = format!("'{name}' is a {}, which is no event time", column.name());
            Err(SqlError::new(sentence).at(call.time.at).help("take the inner window's window_time, and GROUP BY it"))
        }
        Some(Origin::Computed) | None => {
            let sentence = format!("'{name}' is computed from other columns and has no watermark");
            let help = "declare it in CREATE TABLE as a computed column with WATERMARK FOR";
            Err(SqlError::new(sentence).at(call.time.at).help(help))
        }
    }
}

/// Where the `index`th column of `plan` comes from, if that can be told.
fn origin(plan: &LogicalPlan, index: usize) -> Option<Origin<'_>> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let table = scan.source.downcast_ref::<StreamTable>()?;
            Some(Origin::Table(&table.0, plan.schema().field(index).name().clone()))
        }
        LogicalPlan::Projection(projection) => match bare_column(projection.expr.get(index)?) {
            Some(column) => origin(&projection.input, projection.input.schema().index_of_column(column).ok()?),
            None => Some(Origin::Computed),
        },
        LogicalPlan::Filter(filter) => origin(&filter.input, index),
        LogicalPlan::SubqueryAlias(alias) => origin(&alias.input, index),
        LogicalPlan::Union(union) => union_origin(union, index),
        LogicalPlan::Window(window) if is_first_by_time(window) || is_by_event_time(window) => {
            match window.input.schema().fields().get(index) {
                Some(_) => origin(&window.input, index),
                None => Some(Origin::Computed),
            }
        }
        LogicalPlan::Aggregate(aggregate) => {
            let column = aggregate.group_expr.get(index).and_then(bare_column);
            match origin(&aggregate.input, aggregate.input.schema().index_of_column(column?).ok()?) {
                Some(Origin::Window(column)) => Some(Origin::Window(column)),
                // A key is a value like any other, whatever it was.
                _ => Some(Origin::Computed),
            }
        }
        LogicalPlan::Join(join) => origin_in_join(join, index),
        LogicalPlan::Extension(_) => origin_in_node(plan, index),
        _ => None,
    }
}

/// The same for a join whose kind is not known so far; `join::check_times` looks at what becomes of it.
fn origin_in_join(join: &Join, index: usize) -> Option<Origin<'_>> {
    use JoinType::{Full, Left, Right};
    let (input, index, is_padded) = match index.checked_sub(join.left.schema().fields().len()) {
        None => (&join.left, index, matches!(join.join_type, Right | Full)),
        Some(place) => (&join.right, place, matches!(join.join_type, Left | Full)),
    };
    if is_padded { Some(Origin::Computed) } else { origin(input, index) }
}

/// Whether the `index`th column of `plan` is an event time: a table's, or a window's `window_time`.
pub(crate) fn is_event_time(plan: &LogicalPlan, index: usize) -> bool {
    match origin(plan, index) {
        Some(Origin::Table(table, name)) => table.watermark.as_ref().is_some_and(|watermark| watermark.column == name),
        _ => top_n::window_column(plan, index) == Some(WindowColumn::Time),
    }
}

/// Where the rows of a union come from: the first input whose column is no event time, or the first.
fn union_origin(union: &Union, index: usize) -> Option<Origin<'_>> {
    let mut first = None;
    for input in &union.inputs {
        let found = origin(input, index);
        let Some(Origin::Table(table, column)) = &found else { return found };
        if has_processing_time(table, column) {
            // Each of several sources would have to follow the clock.
            return Some(Origin::Computed);
        }
        if table.watermark.as_ref().is_none_or(|watermark| watermark.column != *column) {
            return found;
        }
        first = first.or(found);
    }
    first
}

/// The table and column that `column` of `plan` comes from unchanged, if it does.
pub(crate) fn table_column<'a>(plan: &'a LogicalPlan, column: &Column) -> Option<(&'a Table, String)> {
    match origin(plan, plan.schema().index_of_column(column).ok()?)? {
        Origin::Table(table, name) => Some((table, name)),
        _ => None,
    }
}

/// The same for one of our nodes.
fn origin_in_node(plan: &LogicalPlan, index: usize) -> Option<Origin<'_>> {
    if let Some(unnest) = as_node::<Unnest>(plan) {
        return match unnest.input_column(index) {
            Some(index) => origin(&unnest.input, index),
            None => Some(Origin::Computed),
        };
    }
    if let Some(aggregate) = as_node::<WindowAggregate>(plan) {
        let Some(place) = index.checked_sub(aggregate.own_columns()) else { return Some(Origin::Computed) };
        return WindowColumn::ALL.get(place).map(|column| Origin::Window(*column));
    }
    if let Some(late) = as_node::<LateRows>(plan) {
        return origin(&late.input, index);
    }
    if let Some(first) = as_node::<Deduplicate>(plan) {
        return origin(&first.input, index);
    }
    if let Some(over) = as_node::<Over>(plan) {
        return if index < over.input_columns() { origin(&over.input, index) } else { Some(Origin::Computed) };
    }
    if let Some(join) = as_node::<StreamJoin>(plan) {
        return match join.time_column(index) {
            Some((input, place)) => origin(input, place),
            None => Some(Origin::Computed),
        };
    }
    if let Some(join) = as_node::<LookupJoin>(plan) {
        return if index < join.input_columns() { origin(&join.input, index) } else { Some(Origin::Computed) };
    }
    if let Some(top) = as_node::<WindowTopN>(plan) {
        return if index < top.input_columns() { origin(&top.input, index) } else { Some(Origin::Computed) };
    }
    if as_node::<UpdatingTopN>(plan).is_some() {
        // A row that may go has no time.
        return Some(Origin::Computed);
    }
    let assign = as_node::<WindowAssign>(plan)?;
    match index.checked_sub(assign.input_columns()) {
        Some(place) => WindowColumn::ALL.get(place).map(|column| Origin::Window(*column)),
        None => origin(&assign.input, index),
    }
}

/// The column that `expr` is, under any alias.
pub(crate) fn bare_column(expr: &Expr) -> Option<&Column> {
    match expr {
        Expr::Column(column) => Some(column),
        Expr::Alias(alias) => bare_column(&alias.expr),
        _ => None,
    }
}

/// The table and column that a column comes from, or what it is called: what operator ids are made of.
pub(crate) fn lineage(plan: &LogicalPlan, column: &Column) -> String {
    let index = plan.schema().index_of_column(column).ok();
    match index.and_then(|index| origin(plan, index)) {
        Some(Origin::Table(table, name)) => format!("{}.{name}", table.name.value),
        _ => column.name.clone(),
    }
}

/// What operator ids call the stateful operators and sources that the rows of `plan` come from, in the text's order.
pub(crate) fn inputs(plan: &LogicalPlan) -> Vec<String> {
    if let Some(aggregate) = as_node::<WindowAggregate>(plan) {
        return vec![format!("window {}", aggregate.lineage)];
    }
    if let Some(top) = as_node::<UpdatingTopN>(plan) {
        return vec![top.lineage().to_owned()];
    }
    if let Some(first) = as_node::<Deduplicate>(plan) {
        return vec![first.lineage().to_owned()];
    }
    if let Some(over) = as_node::<Over>(plan) {
        return vec![over.lineage().to_owned()];
    }
    if let Some(group) = as_node::<GroupBy>(plan) {
        return vec![group.lineage().to_owned()];
    }
    if let Some(join) = as_node::<StreamJoin>(plan) {
        return vec![join.lineage.clone()];
    }
    if let Some(join) = as_node::<LookupJoin>(plan) {
        return vec![join.lineage.clone()];
    }
    let own = match plan {
        LogicalPlan::TableScan(scan) => scan.source.downcast_ref::<StreamTable>(),
        _ => None,
    };
    let own = own.map(|table| format!("source {}", table.0.name.value));
    own.into_iter().chain(plan.inputs().into_iter().flat_map(inputs)).collect()
}

/// Where the columns of a window are among a plan's columns.
#[derive(Debug)]
pub(crate) struct Windowed {
    pub(crate) window: WindowSpec,
    pub(crate) zone: WindowZone,
    /// What the time column is called where the window is.
    pub(crate) time: String,
    /// By place in the plan's schema.
    pub(crate) columns: BTreeMap<usize, WindowColumn>,
    /// Whether some expression on the way computes with them, so that they must be there.
    pub(crate) computed_with: bool,
    /// Whether the rows are a window's results.
    pub(crate) is_result: bool,
}

impl Windowed {
    /// Whether `expr`, over the plan whose columns these are, uses one of them.
    pub(crate) fn is_used_in(&self, expr: &Expr, plan: &LogicalPlan) -> bool {
        let indexes = expr.column_refs().into_iter().filter_map(|column| plan.schema().index_of_column(column).ok());
        indexes.into_iter().any(|index| self.columns.contains_key(&index))
    }

    /// The window's column that `expr` is, if it is one.
    pub(crate) fn column(&self, expr: &Expr, plan: &LogicalPlan) -> Option<WindowColumn> {
        let index = plan.schema().index_of_column(bare_column(expr)?).ok()?;
        self.columns.get(&index).copied()
    }
}

/// The window of a window's result.
fn of_result(below: &WindowAggregate) -> Windowed {
    let columns = (below.own_columns()..).zip(WindowColumn::ALL).collect();
    let time = WindowColumn::Time.name().to_owned();
    Windowed { window: below.window, zone: below.zone, time, columns, computed_with: true, is_result: true }
}

/// The window below `plan`, if there is one and its rows come here one by one, or are its results, which may be grouped
/// again by it. Sessions of other keys are others: theirs may not.
pub(crate) fn windowed(plan: &LogicalPlan) -> Option<Windowed> {
    with_window(plan).filter(|found| !found.is_result || !matches!(found.window, WindowSpec::Session { .. }))
}

/// The same, with the results of sessions.
pub(crate) fn with_window(plan: &LogicalPlan) -> Option<Windowed> {
    match plan {
        LogicalPlan::Extension(_) => {
            if let Some(unnest) = as_node::<Unnest>(plan) {
                return windowed_below(unnest);
            }
            if let Some(late) = as_node::<LateRows>(plan) {
                return with_window(&late.input);
            }
            if let Some(first) = as_node::<Deduplicate>(plan) {
                return Some(Windowed { computed_with: true, ..with_window(&first.input)? });
            }
            if let Some(over) = as_node::<Over>(plan) {
                return Some(Windowed { computed_with: true, ..with_window(&over.input)? });
            }
            if let Some(top) = as_node::<WindowTopN>(plan) {
                // Its rows have their windows; none can be found anew.
                return Some(Windowed { computed_with: true, ..with_window(&top.input)? });
            }
            if let Some(below) = as_node::<WindowAggregate>(plan) {
                return Some(of_result(below));
            }
            if let Some(join) = as_node::<StreamJoin>(plan) {
                return windowed_join(join);
            }
            if let Some(join) = as_node::<LookupJoin>(plan) {
                // The stream's columns come first; rows may be there several times.
                return Some(Windowed { computed_with: true, ..with_window(&join.input)? });
            }
            let assign = as_node::<WindowAssign>(plan)?;
            let columns = (assign.input_columns()..).zip(WindowColumn::ALL).collect();
            let (window, zone, time) = (assign.window, assign.zone, assign.time.name.clone());
            Some(Windowed { window, zone, time, columns, computed_with: false, is_result: false })
        }
        LogicalPlan::SubqueryAlias(alias) => with_window(&alias.input),
        LogicalPlan::Filter(filter) => {
            let mut below = with_window(&filter.input)?;
            below.computed_with |= below.is_used_in(&filter.predicate, &filter.input);
            Some(below)
        }
        LogicalPlan::Projection(projection) => {
            let below = with_window(&projection.input)?;
            let mut columns = BTreeMap::new();
            let mut computed_with = below.computed_with;
            for (index, expr) in projection.expr.iter().enumerate() {
                match below.column(expr, &projection.input) {
                    Some(column) => drop(columns.insert(index, column)),
                    None => computed_with |= below.is_used_in(expr, &projection.input),
                }
            }
            Some(Windowed { columns, computed_with, ..below })
        }
        _ => None,
    }
}

/// The window below an unnest, whose rows come out one or more times each.
fn windowed_below(unnest: &Unnest) -> Option<Windowed> {
    let below = with_window(&unnest.input)?;
    let places = (0..unnest.schema().fields().len()).filter_map(|index| Some((index, unnest.input_column(index)?)));
    let columns = places.filter_map(|(index, place)| Some((index, *below.columns.get(&place)?)));
    let computed_with = below.computed_with || below.is_used_in(&unnest.collection, &unnest.input);
    Some(Windowed { columns: columns.collect(), computed_with, ..below })
}

/// The window of a window join's rows, if each has one; none can be found anew.
fn windowed_join(join: &StreamJoin) -> Option<Windowed> {
    let (_, input) = join.window_side()?;
    let below = with_window(input)?;
    let places = (0..join.schema().fields().len()).filter_map(|index| {
        let (input, place) = join.time_column(index)?;
        Some((index, *with_window(input)?.columns.get(&place)?))
    });
    Some(Windowed { columns: places.collect(), computed_with: true, ..below })
}

/// The zone of the windows that the rows of `plan` have.
pub(crate) fn zone(plan: &LogicalPlan) -> WindowZone {
    let own = as_node::<WindowAssign>(plan).map(|assign| assign.zone);
    match own.or(as_node::<WindowAggregate>(plan).map(|aggregate| aggregate.zone)) {
        Some(zone) => zone,
        None => plan.inputs().first().map_or(WindowZone::default(), |input| zone(input)),
    }
}

/// The place among the columns of `plan` of the time that its window is of, if it is there.
pub(crate) fn window_time_column(plan: &LogicalPlan) -> Option<usize> {
    match plan {
        LogicalPlan::Extension(_) => {
            if let Some(aggregate) = as_node::<WindowAggregate>(plan) {
                let place = WindowColumn::ALL.iter().position(|column| *column == WindowColumn::Time)?;
                return Some(aggregate.keys.len() + aggregate.aggregates.len() + place);
            }
            if let Some(late) = as_node::<LateRows>(plan) {
                return window_time_column(&late.input);
            }
            if let Some(over) = as_node::<Over>(plan) {
                return window_time_column(&over.input);
            }
            if let Some(top) = as_node::<WindowTopN>(plan) {
                return window_time_column(&top.input);
            }
            if let Some(first) = as_node::<Deduplicate>(plan) {
                return window_time_column(&first.input);
            }
            if let Some(join) = as_node::<StreamJoin>(plan) {
                let (side, input) = join.window_side()?;
                return Some(join.place_of(side, window_time_column(input)?));
            }
            if let Some(join) = as_node::<LookupJoin>(plan) {
                return window_time_column(&join.input);
            }
            if let Some(unnest) = as_node::<Unnest>(plan) {
                let below = window_time_column(&unnest.input)?;
                return (0..unnest.schema().fields().len()).find(|index| unnest.input_column(*index) == Some(below));
            }
            let assign = as_node::<WindowAssign>(plan)?;
            assign.input.schema().index_of_column(&assign.time).ok()
        }
        LogicalPlan::SubqueryAlias(alias) => window_time_column(&alias.input),
        LogicalPlan::Filter(filter) => window_time_column(&filter.input),
        LogicalPlan::Projection(projection) => {
            let below = window_time_column(&projection.input)?;
            let is_time = |expr| {
                let column = bare_column(expr)?;
                Some(projection.input.schema().index_of_column(column).ok()? == below)
            };
            projection.expr.iter().position(|expr| is_time(expr) == Some(true))
        }
        _ => None,
    }
}

/// Whether some part of `plan` waits for event time.
pub(crate) fn waits_for_time(plan: &LogicalPlan) -> bool {
    let waits = matches!(plan, LogicalPlan::Sort(_)) || as_node::<WindowAggregate>(plan).is_some();
    let waits = waits || as_node::<WindowTopN>(plan).is_some();
    let waits = waits || as_node::<Deduplicate>(plan).is_some_and(|first| first.event_time().is_some());
    let waits = waits || as_node::<Over>(plan).is_some_and(|over| over.event_time().is_some());
    let waits = waits || as_node::<StreamJoin>(plan).is_some_and(|join| join.kind != JoinKind::Regular);
    waits || plan.inputs().into_iter().any(waits_for_time)
}
