//! OVER on a stream: functions over the rows before each row, in the order of a time attribute.
//!
//! ```text
//! Window: SUM(v) PARTITION BY k ORDER BY ts ROWS ..      Projection: names as they were
//!   …                                               →      Over: k, ts, SUM(v) ROWS ..
//!                                                            …
//! ```
//!
//! Calls that share PARTITION BY and ORDER BY are one operator, whatever their frames are; others are one over the other.
//! A ROW_NUMBER() that something bounds is a Top-N instead (`top_n`).

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, TimeUnit};
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, Result as DfResult, ScalarValue, TableReference, internal_datafusion_err,
};
use datafusion::logical_expr::expr::{NullTreatment, Sort, WindowFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawWindowExpr};
use datafusion::logical_expr::{
    Expr, ExprSchemable, Extension, LogicalPlan, Projection, UserDefinedLogicalNodeCore, Window, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use ruslo_core::graph::{Node, NodeIndex, NodeKind, Partitioning};
use ruslo_operators::{OverCall, OverFrame, OverFunction, OverOrder, OverSpec, SortKey};

use crate::catalog::Catalog;
use crate::compiled::{compiled_columns, compiled_exprs, compiled_order};
use crate::deduplicate::time_of;
use crate::diagnostic::{Position, Sql, SqlError};
use crate::errors::{carried, from_datafusion};
use crate::explain::Detail;
use crate::interval::describe;
use crate::late_rows;
use crate::physical::{Physical, arrow_schema, index_of, physical_expr};
use crate::text::{bare_text, expr_text};
use crate::top_n_node::order_text;
use crate::window::{bare_column, inputs, lineage};

/// Functions over frames. Its output is the input's columns, then the results.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Over {
    pub(crate) input: LogicalPlan,
    keys: Vec<Column>,
    order: Vec<Sort>,
    /// Window function calls.
    calls: Vec<Expr>,
    /// What the results' columns are.
    results: Vec<(Option<TableReference>, FieldRef)>,
    /// Whether the order is that in which rows are read.
    is_arrival: bool,
    /// What the operator's id is a hash of.
    lineage: String,
    schema: DFSchemaRef,
}

/// FIRST_VALUE and LAST_VALUE leave NULLs out, and calls over a CAST are named by their whole text.
#[derive(Debug)]
pub(crate) struct OverCalls;

impl ExprPlanner for OverCalls {
    fn plan_window(&self, mut call: RawWindowExpr) -> DfResult<PlannerResult<RawWindowExpr>> {
        if matches!(call.func_def.name(), "first_value" | "last_value") {
            call.null_treatment = Some(NullTreatment::IgnoreNulls);
        }
        let is_cast = |expr: &Expr| Ok(matches!(expr, Expr::Cast(_) | Expr::TryCast(_)));
        for arg in &mut call.args {
            if arg.exists(is_cast)? {
                let name = expr_text(arg, &Column::flat_name);
                *arg = std::mem::take(arg).alias(name);
            }
        }
        Ok(PlannerResult::Original(call))
    }
}

/// Whether all that `window` computes is the number of a row, which may be bounded.
pub(crate) fn only_numbers(window: &Window) -> bool {
    window.window_expr.iter().all(|expr| function(expr).is_some_and(|call| call.fun.name() == "row_number"))
}

/// Whether the rows of `window` come out in the order of their event time, so that it goes on as one.
pub(crate) fn is_by_event_time(window: &Window) -> bool {
    let by_time = |expr: &Expr| {
        let call = function(expr)?;
        let first = call.params.order_by.first()?;
        let (_, is_arrival) = time_of(&window.input, &first.expr)?;
        Some(first.asc && !is_arrival)
    };
    window.window_expr.iter().all(|expr| by_time(expr) == Some(true))
}

fn function(expr: &Expr) -> Option<&WindowFunction> {
    match expr {
        Expr::Alias(alias) => function(&alias.expr),
        Expr::WindowFunction(call) => Some(call),
        _ => None,
    }
}

/// Calls with the same PARTITION BY and ORDER BY, with their places.
struct Group<'a> {
    partition: &'a [Expr],
    order: &'a [Sort],
    calls: Vec<(usize, &'a Expr)>,
}

/// The streaming plan of `window`, whose OVER stands at `at`: its columns.
pub(crate) fn over(window: &Window, at: Position, catalog: &Catalog) -> DfResult<LogicalPlan> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (place, expr) in window.window_expr.iter().enumerate() {
        let call = function(expr).ok_or_else(|| internal_datafusion_err!("'{expr}' is no window function"))?;
        let (partition, order) = (call.params.partition_by.as_slice(), call.params.order_by.as_slice());
        match groups.iter_mut().find(|group| group.partition == partition && group.order == order) {
            Some(group) => group.calls.push((place, expr)),
            None => groups.push(Group { partition, order, calls: vec![(place, expr)] }),
        }
    }
    let own = window.input.schema().fields().len();
    let mut plan = window.input.as_ref().clone();
    for group in &groups {
        plan = node_of(plan, group, &window.schema, (own, at), catalog)?;
    }
    let columns = window.schema.columns().into_iter().map(Expr::Column).collect();
    Projection::try_new(columns, Arc::new(plan)).map(LogicalPlan::Projection)
}

fn node_of(
    input: LogicalPlan,
    group: &Group<'_>,
    schema: &DFSchema,
    (own, at): (usize, Position),
    catalog: &Catalog,
) -> DfResult<LogicalPlan> {
    let refused = |error: SqlError| carried(error.at(at));
    let (time, is_arrival) = checked_order(&input, group.order).map_err(refused)?;
    for (_, call) in &group.calls {
        check_call(call, &input, group).map_err(refused)?;
    }
    let (input, keys) = with_keys(input, group.partition)?;
    let mut lineage_keys = Vec::new();
    for (expr, key) in group.partition.iter().zip(&keys) {
        lineage_keys.push(match bare_column(expr) {
            Some(_) => lineage(&input, key),
            None => expr_text(expr, &|column| lineage(&input, column)),
        });
    }
    let lineage = format!(
        "over keys=[{}] order=[{}] inputs=[{}]",
        lineage_keys.join(", "),
        lineage(&input, &time),
        inputs(&input).join(", ")
    );
    let input = match is_arrival {
        true => input,
        false => late_rows::take_out_of_order(input, &Expr::Column(time), catalog)?,
    };
    let results = group.calls.iter().map(|(place, _)| {
        let (relation, field) = schema.qualified_field(own + place);
        (relation.cloned(), Arc::clone(field))
    });
    let parts = Parts {
        keys,
        order: group.order.to_vec(),
        calls: group.calls.iter().map(|(_, call)| (*call).clone()).collect(),
        results: results.collect(),
        is_arrival,
        lineage,
    };
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(Over::try_new(input, parts)?) }))
}

/// `input` with a column for each of `partition`, and these.
fn with_keys(input: LogicalPlan, partition: &[Expr]) -> DfResult<(LogicalPlan, Vec<Column>)> {
    let mut exprs: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    let (own, mut keys) = (exprs.len(), Vec::new());
    for (place, expr) in partition.iter().enumerate() {
        keys.push(match bare_column(expr) {
            Some(column) => column.clone(),
            None => {
                let name = format!("$key{place}");
                exprs.push(expr.clone().alias(&name));
                Column::new_unqualified(name)
            }
        });
    }
    if exprs.len() == own {
        return Ok((input, keys));
    }
    Ok((Projection::try_new(exprs, Arc::new(input)).map(LogicalPlan::Projection)?, keys))
}

/// The time that rows are ordered by, and whether that is when they are read.
fn checked_order(input: &LogicalPlan, order: &[Sort]) -> Sql<(Column, bool)> {
    let help = "ORDER BY a column with a WATERMARK, or one AS PROCTIME(), ascending";
    let Some(first) = order.first() else {
        return Err(SqlError::new("OVER needs an ORDER BY on a stream").help(help));
    };
    let name = bare_text(&first.expr);
    let Some((time, is_arrival)) = time_of(input, &first.expr) else {
        let sentence = format!("OVER is ordered by a time attribute on a stream; '{name}' is none");
        return Err(SqlError::new(sentence)
            .help(format!("{help}; the first N rows in any order are a Top-N: WHERE rownum <= N")));
    };
    if !first.asc {
        return Err(
            SqlError::new(format!("OVER (.. ORDER BY {name} DESC) looks at rows that have not come")).help(help)
        );
    }
    if order.iter().any(|sort| bare_column(&sort.expr).is_none()) {
        return Err(SqlError::not_yet("computed columns in the ORDER BY of OVER", None)
            .help("compute it in a subquery, and order by its name"));
    }
    match order.len() {
        2.. if is_arrival => Err(SqlError::new("rows that are taken as they are read have no other order")),
        _ => Ok((time, is_arrival)),
    }
}

fn check_call(call: &Expr, input: &LogicalPlan, group: &Group<'_>) -> Sql<()> {
    let call = function(call).ok_or_else(|| SqlError::internal("an OVER lost its function"))?;
    let time = group.order.first().map(|first| first.expr.get_type(input.schema()));
    let unit = match time.transpose().map_err(|error| from_datafusion(&error, &[]))? {
        Some(DataType::Timestamp(unit, _)) => unit,
        _ => return Err(SqlError::internal("OVER is ordered by no time")),
    };
    let frame = match call.fun.name() {
        // Whatever their frame is, they do not look at it.
        "row_number" | "lag" => OverFrame::RowsUnbounded,
        _ => frame_of(&call.params.window_frame, unit)?,
    };
    lag(call)?;
    let by_time = matches!(frame, OverFrame::RangeUnbounded | OverFrame::Range(_));
    if by_time && group.order.len() > 1 {
        let sentence = "a RANGE over several ORDER BY columns is not supported yet";
        return Err(
            SqlError::new(sentence).help("write ROWS BETWEEN .. PRECEDING AND CURRENT ROW, or order by the time alone")
        );
    }
    Ok(())
}

/// The frame of a call ordered by a time of this unit.
fn frame_of(frame: &WindowFrame, unit: TimeUnit) -> Sql<OverFrame> {
    let is_range = match frame.units {
        WindowFrameUnits::Rows => false,
        WindowFrameUnits::Range => true,
        WindowFrameUnits::Groups => return Err(SqlError::not_yet("GROUPS frames", None)),
    };
    if frame.end_bound != WindowFrameBound::CurrentRow {
        return Err(SqlError::new("the frame of an OVER ends with CURRENT ROW on a stream: later rows have not come")
            .help("write ROWS or RANGE BETWEEN .. PRECEDING AND CURRENT ROW"));
    }
    match (&frame.start_bound, is_range) {
        (WindowFrameBound::Preceding(before), true) if before.is_null() => Ok(OverFrame::RangeUnbounded),
        (WindowFrameBound::Preceding(before), false) if before.is_null() => Ok(OverFrame::RowsUnbounded),
        (WindowFrameBound::Preceding(ScalarValue::UInt64(Some(rows))), false) => Ok(OverFrame::Rows(*rows)),
        (WindowFrameBound::Preceding(before), true) => ticks(before, unit).map(OverFrame::Range),
        (WindowFrameBound::CurrentRow, true) => Ok(OverFrame::Range(0)),
        (WindowFrameBound::CurrentRow, false) => Ok(OverFrame::Rows(0)),
        (bound, _) => Err(SqlError::new(format!("the frame of an OVER cannot begin with {bound}"))),
    }
}

/// An interval of a fixed length in whole units of a time.
fn ticks(interval: &ScalarValue, unit: TimeUnit) -> Sql<i64> {
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = interval else {
        return Err(SqlError::new(format!("a RANGE before a time is an interval, not {interval}"))
            .help("write RANGE BETWEEN INTERVAL '1' HOUR PRECEDING AND CURRENT ROW"));
    };
    if interval.months != 0 {
        return Err(SqlError::new("months and years have no fixed length").help("give the interval in DAY or less"));
    }
    let nanos = i128::from(interval.days) * 86_400_000_000_000 + i128::from(interval.nanoseconds);
    let of_unit: i128 = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    match i64::try_from(nanos / of_unit) {
        Ok(ticks) if ticks >= 0 => Ok(ticks),
        _ => Err(SqlError::new("the interval of a RANGE is negative or too long")),
    }
}

/// How many rows before LAG looks, and what it gives where there are fewer.
fn lag(call: &WindowFunction) -> Sql<Option<(u64, Option<Expr>)>> {
    if call.fun.name() != "lag" {
        return Ok(None);
    }
    let wrong = || SqlError::new("LAG looks a number of rows before, at least 1").help("write LAG(x, 2)");
    let before = match call.params.args.get(1) {
        None => 1,
        Some(Expr::Literal(value, _)) => match value.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(before))) if before > 0 => u64::try_from(before).unwrap_or(1),
            _ => return Err(wrong()),
        },
        Some(_) => return Err(wrong()),
    };
    Ok(Some((before, call.params.args.get(2).cloned())))
}

/// What an [`Over`] is made of.
#[derive(Clone)]
struct Parts {
    keys: Vec<Column>,
    order: Vec<Sort>,
    calls: Vec<Expr>,
    results: Vec<(Option<TableReference>, FieldRef)>,
    is_arrival: bool,
    lineage: String,
}

impl Over {
    fn try_new(input: LogicalPlan, parts: Parts) -> DfResult<Self> {
        let fields = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)));
        let fields = fields.chain(parts.results.clone()).collect();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, DFSchema::metadata(input.schema()).clone())?);
        let Parts { keys, order, calls, results, is_arrival, lineage } = parts;
        Ok(Self { input, keys, order, calls, results, is_arrival, lineage, schema })
    }

    /// What operator ids call it.
    pub(crate) fn lineage(&self) -> &str {
        &self.lineage
    }

    /// How many columns the input has: the results stand behind them.
    pub(crate) fn input_columns(&self) -> usize {
        self.input.schema().fields().len()
    }

    /// The event time that it waits for, if it does.
    pub(crate) fn event_time(&self) -> Option<&Column> {
        if self.is_arrival { None } else { bare_column(&self.order.first()?.expr) }
    }

    fn keys_text(&self) -> String {
        let keys = self.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>().join(", ");
        if keys.is_empty() { "all rows".to_owned() } else { keys }
    }

    fn calls_text(&self) -> String {
        self.calls.iter().filter_map(function).map(call_text).collect::<Vec<_>>().join(", ")
    }

    /// The calls as the operator has them.
    fn over_calls(&self) -> Sql<Vec<OverCall>> {
        let time = self.order.first().and_then(|first| bare_column(&first.expr));
        let place = time.map(|time| index_of(self.input.schema(), time)).transpose()?;
        let unit = match place.map(|place| self.input.schema().field(place).data_type()) {
            Some(DataType::Timestamp(unit, _)) => *unit,
            _ => return Err(SqlError::internal("an OVER lost its time")),
        };
        let calls = self.calls.iter().zip(&self.results);
        calls.map(|(call, (_, field))| over_call(call, field, unit, self.input.schema())).collect()
    }
}

/// A call with its frame, as SQL.
fn call_text(call: &WindowFunction) -> String {
    let args: Vec<String> = match (call.fun.name(), call.params.args.as_slice()) {
        ("count", [Expr::Literal(..)]) => vec!["*".to_owned()],
        (_, args) => args.iter().map(bare_text).collect(),
    };
    let name = call.fun.name().to_uppercase();
    let frame = match call.fun.name() {
        "row_number" | "lag" => String::new(),
        _ => format!(" {}", frame_text(&call.params.window_frame)),
    };
    format!("{name}({}){frame}", args.join(", "))
}

fn frame_text(frame: &WindowFrame) -> String {
    let units = if frame.units == WindowFrameUnits::Range { "RANGE" } else { "ROWS" };
    match (&frame.start_bound, frame_of(frame, TimeUnit::Millisecond)) {
        (WindowFrameBound::CurrentRow, _) => format!("{units} CURRENT ROW"),
        (_, Ok(OverFrame::Rows(rows))) => format!("{units} {rows} PRECEDING"),
        (_, Ok(OverFrame::Range(ms))) => format!("{units} {} PRECEDING", describe(ms)),
        _ => format!("{units} UNBOUNDED PRECEDING"),
    }
}

fn over_call(call: &Expr, field: &FieldRef, unit: TimeUnit, schema: &DFSchema) -> Sql<OverCall> {
    let call = function(call).ok_or_else(|| SqlError::internal("an OVER lost its function"))?;
    let argument = call.params.args.first().map(|arg| physical_expr(&arg.clone().unalias(), schema)).transpose()?;
    let function = match (call.fun.name(), lag(call)?) {
        (_, Some((before, default))) => {
            let to = field.data_type();
            let cast = |default: Expr| default.unalias().cast_to(to, schema);
            let default = default.map(cast).transpose().map_err(|error| from_datafusion(&error, &[]))?;
            OverFunction::Lag(before, default.map(|default| physical_expr(&default, schema)).transpose()?)
        }
        ("row_number", _) => OverFunction::RowNumber,
        ("count", _) => OverFunction::Count,
        ("sum", _) => OverFunction::Sum,
        ("avg", _) => OverFunction::Avg,
        ("min", _) => OverFunction::Min,
        ("max", _) => OverFunction::Max,
        ("first_value", _) => OverFunction::FirstValue,
        ("last_value", _) => OverFunction::LastValue,
        (other, _) => return Err(SqlError::not_yet(format!("{} over a frame", other.to_uppercase()), None)),
    };
    let frame = match function {
        OverFunction::Lag(..) | OverFunction::RowNumber => OverFrame::RowsUnbounded,
        _ => frame_of(&call.params.window_frame, unit)?,
    };
    Ok(OverCall { function, argument, frame, field: Arc::clone(field) })
}

impl PartialOrd for Over {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Over {
    fn name(&self) -> &str {
        "Over"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    /// Keys, order, then what the calls compute with.
    fn expressions(&self) -> Vec<Expr> {
        let keys = self.keys.iter().cloned().map(Expr::Column);
        let args = self.calls.iter().filter_map(function).flat_map(|call| call.params.args.iter().cloned());
        keys.chain(self.order.iter().map(|sort| sort.expr.clone())).chain(args).collect()
    }

    // Every output column keeps predicates above: one on a key could go below, others change frames.

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.keys.iter().map(|key| key.name.as_str()).collect();
        write!(f, "Over: keys=[{}], order=[{}], [{}]", keys.join(", "), order_text(&self.order), self.calls_text())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let broken = || internal_datafusion_err!("an OVER lost its columns");
        let mut exprs = exprs.into_iter();
        let mut keys = Vec::new();
        for _ in 0..self.keys.len() {
            let Some(Expr::Column(column)) = exprs.next() else { return Err(broken()) };
            keys.push(column);
        }
        let mut order = Vec::new();
        for sort in &self.order {
            order.push(Sort { expr: exprs.next().ok_or_else(broken)?, ..sort.clone() });
        }
        let mut calls = Vec::new();
        for call in &self.calls {
            let mut call = function(call).ok_or_else(broken)?.clone();
            for arg in &mut call.params.args {
                *arg = exprs.next().ok_or_else(broken)?;
            }
            calls.push(Expr::WindowFunction(Box::new(call)));
        }
        let input = inputs.into_iter().next().ok_or_else(broken)?;
        let (results, is_arrival, lineage) = (self.results.clone(), self.is_arrival, self.lineage.clone());
        Self::try_new(input, Parts { keys, order, calls, results, is_arrival, lineage })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let exprs = self.expressions();
        let own = exprs.iter().flat_map(Expr::column_refs).filter_map(|column| schema.index_of_column(column).ok());
        let passed = output_columns.iter().copied().filter(|index| *index < self.input_columns());
        let needed: BTreeSet<usize> = passed.chain(own).collect();
        Some(vec![needed.into_iter().collect()])
    }
}

impl Physical<'_> {
    /// Adds the operator of `node`.
    pub(crate) fn over(&mut self, node: &Over) -> Sql<NodeIndex> {
        let input = self.node(&node.input)?;
        self.must_append(input, "OVER")?;
        let schema = node.input.schema();
        let keys = node.keys.iter().map(|key| index_of(schema, key)).collect::<Sql<Vec<_>>>()?;
        let mut order = Vec::new();
        for sort in &node.order {
            let column = bare_column(&sort.expr).ok_or_else(|| SqlError::internal("a computed column in ORDER BY"))?;
            let (column, descending) = (index_of(schema, column)?, !sort.asc);
            order.push(SortKey { column, descending, nulls_first: sort.nulls_first });
        }
        let order = match (node.is_arrival, order.first()) {
            (true, Some(first)) => OverOrder::Arrival(first.column),
            _ => OverOrder::EventTime(order),
        };
        let spec = OverSpec::new(&arrow_schema(schema), keys.clone(), order, &node.over_calls()?, self.state_ttl)?;
        let detail = over_detail(node, &spec).with(self.properties(input)).does(does(node));
        let detail = match spec.state_tables().into_iter().next() {
            Some(table) => detail.keeps(table),
            None => detail,
        };
        let added = Node {
            id: self.fresh_id(&node.lineage),
            name: detail.name.clone(),
            parallelism: if keys.is_empty() { 1 } else { self.parallelism },
            schema: spec.schema(),
            kind: NodeKind::Operator(spec.factory()),
        };
        Ok(self.add(added, Some((input, Partitioning::KeyGroup(keys))), detail))
    }
}

fn over_detail(node: &Over, spec: &OverSpec) -> Detail {
    let keys = node.keys_text();
    let (input, per) = match node.keys.is_empty() {
        true => ("all rows to one subtask".to_owned(), "once".to_owned()),
        false => (format!("by key {keys}"), format!("per ({keys})")),
    };
    let keeps = |prefix: &str| spec.state_tables().iter().any(|(name, _)| name.starts_with(prefix));
    let mut kept = vec!["totals"];
    kept.extend(keeps("over_rows").then_some("the rows of the frames"));
    kept.extend(keeps("over_values").then_some("the values that are chosen from"));
    let waits = if node.is_arrival { "" } else { "; rows until the watermark has reached them" };
    let order = if node.is_arrival { "as rows are read".to_owned() } else { order_text(&node.order) };
    let detail = Detail::new(&format!("Over {keys}"), &input)
        .line("order", order)
        .line("functions", node.calls_text())
        .line("state", format!("{per}: {}{waits}", kept.join(", ")));
    match spec.forgets_after_ms() {
        Some(ms) => detail.line("state goes", format!("{} after the last row of its key", describe(ms))),
        None if node.keys.is_empty() => detail,
        None if node.is_arrival && (keeps("over_rows") || keeps("over_values")) => {
            detail.line("warning", GROWS_BY_ARRIVAL)
        }
        None => detail.line("warning", GROWS),
    }
}

/// What EXPLAIN says of state without a bound.
const GROWS: &str = "this state only grows with new keys; SET 'table.exec.state.ttl' = '1 d' drops keys that had no row for a \
                     day, and RANGE BETWEEN INTERVAL .. PRECEDING those that no frame reaches";
const GROWS_BY_ARRIVAL: &str = "this state only grows with new keys; ORDER BY an event time with 'table.exec.state.ttl' set \
                                drops keys that had no row for as long";

/// What it does, for checkpoints.
fn does(node: &Over) -> String {
    let schema = node.input.schema();
    let (keys, order) = (compiled_columns(&node.keys, schema), compiled_order(&node.order, schema));
    let call = |call: &WindowFunction| {
        let args = compiled_exprs(&call.params.args, schema);
        let frame = match call.fun.name() {
            "row_number" | "lag" => String::new(),
            _ => format!(" {}", frame_text(&call.params.window_frame)),
        };
        format!("{}({args}){frame}", call.fun.name())
    };
    let calls = node.calls.iter().filter_map(function).map(call).collect::<Vec<_>>().join(", ");
    let arrival = if node.is_arrival { " by arrival" } else { "" };
    format!("{} keys=[{keys}] order=[{order}]{arrival} calls=[{calls}]", node.lineage)
}

/// The window functions that are not aggregates, by name.
pub(crate) fn window_function(name: &str) -> Option<Arc<datafusion::logical_expr::WindowUDF>> {
    use datafusion::functions_window::lead_lag::lag_udwf;
    use datafusion::functions_window::nth_value::{first_value_udwf, last_value_udwf};
    match name {
        "row_number" => Some(ruslo_operators::row_number_udwf()),
        "lag" => Some(lag_udwf()),
        "first_value" => Some(first_value_udwf()),
        "last_value" => Some(last_value_udwf()),
        _ => None,
    }
}

/// The names of [`window_function`].
pub(crate) const WINDOW_FUNCTIONS: [&str; 4] = ["row_number", "lag", "first_value", "last_value"];

/// Whether equal rows of the order are told apart by their other columns where `call` is computed: where rows of one time
/// do not see each other.
pub(crate) fn tells_equal_rows_apart(call: &WindowFunction) -> bool {
    let by_rows = call.params.window_frame.units == WindowFrameUnits::Rows;
    matches!(&call.fun, WindowFunctionDefinition::WindowUDF(function) if matches!(function.name(), "row_number" | "lag"))
        || by_rows
}
