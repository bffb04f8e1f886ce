//! Late rows to a side table, on the logical plan: a node below each window aggregate, window Top-N and order by time
//! takes them out before that would drop them.
//!
//! The side table gets the columns of the source table that it names. They must be there where the node stands: right
//! below what would drop them, above the filters and projections of the query.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{Column, DFSchemaRef, Result as DfResult, internal_datafusion_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use ruslo_core::graph::NodeIndex;
use ruslo_core::operator::Port;
use ruslo_operators::{LateRowsSpec, LateRule};

use crate::care::{Care, Late};
use crate::catalog::{Catalog, StreamTable, Table};
use crate::compiled::compiled_exprs;
use crate::cursor::At;
use crate::diagnostic::{Sql, SqlError};
use crate::errors::carried;
use crate::explain::Detail;
use crate::nodes::{WindowAssign, as_node};
use crate::physical::{Physical, arrow_schema, index_of, physical_expr};
use crate::side::{Aside, check_side_table};
use crate::text::bare_text;
use crate::types::sql_name;
use crate::window::{Windowed, table_column, window_time_column};
use crate::window_spec::{WindowSpec, WindowZone};

/// Rows on their way to what would drop late ones, without these.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LateRows {
    pub(crate) input: LogicalPlan,
    /// The time that is judged, and, for [`Lateness::Copies`] of several windows a row, the row's own.
    times: Vec<Expr>,
    lateness: Lateness,
    taking: Taking,
}

/// What comes behind, and so when a row is late.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Lateness {
    /// A window aggregate: the time is one in the row's window.
    Window { window: WindowSpec, zone: WindowZone, attached: bool },
    /// A Top-N of rows that have their windows: the time is the window's end, or so many milliseconds before.
    Copies { window: WindowSpec, zone: WindowZone, before_end_ms: i64 },
    /// An order by time.
    Order,
}

/// Whose rows they are, who gets the late ones, and which of their columns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Taking {
    table: String,
    side: String,
    columns: Vec<Column>,
}

/// `input` of a window without its late rows, if the table whose event time it is wants them kept. `below` is the input
/// as the query says it, `time` a time in each row's window.
pub(crate) fn take_out(
    input: LogicalPlan,
    below: &LogicalPlan,
    found: &Windowed,
    time: &Expr,
    attached: bool,
    catalog: &Catalog,
) -> DfResult<LogicalPlan> {
    let Some(wanting) = wanting(below).map_err(carried)? else { return Ok(input) };
    let taking = wanting.taking(&input, catalog).map_err(carried)?;
    let lateness = Lateness::Window { window: found.window, zone: found.zone, attached };
    Ok(LateRows { input, times: vec![time.clone()], lateness, taking }.into_plan())
}

/// `input` of a Top-N over rows with their windows, whose end is `end` or `before_end_ms` after it, without the late
/// rows, if the table whose event time it is wants them kept.
pub(crate) fn take_out_copies(
    input: LogicalPlan,
    end: &Column,
    before_end_ms: i64,
    catalog: &Catalog,
) -> DfResult<LogicalPlan> {
    let (Some(wanting), Some(assign)) = (wanting(&input).map_err(carried)?, assign_below(&input)) else {
        return Ok(input);
    };
    let taking = wanting.taking(&input, catalog).map_err(carried)?;
    let (window, zone) = (assign.window, assign.zone);
    let mut times = vec![Expr::Column(end.clone())];
    if !matches!(window, WindowSpec::Tumble { .. }) {
        let place = window_time_column(&input).ok_or_else(|| carried(wanting.without_time(&assign.time.name)))?;
        times.push(Expr::Column(Column::from(input.schema().qualified_field(place))));
    }
    let lateness = Lateness::Copies { window, zone, before_end_ms };
    Ok(LateRows { input, times, lateness, taking }.into_plan())
}

/// `input` of an order by `time` without the late rows, if it is the rows of one table, and that wants them kept.
pub(crate) fn take_out_of_order(input: LogicalPlan, time: &Expr, catalog: &Catalog) -> DfResult<LogicalPlan> {
    let Some(wanting) = rows_of(&input).map(wanted_of).transpose().map_err(carried)?.flatten() else {
        return Ok(input);
    };
    let taking = wanting.taking(&input, catalog).map_err(carried)?;
    Ok(LateRows { input, times: vec![time.clone()], lateness: Lateness::Order, taking }.into_plan())
}

/// A table that wants its late rows kept in another one.
struct Wanting<'a> {
    table: &'a Table,
    side: At<String>,
}

/// The table whose event time the window below `plan` takes, if it wants a side table.
fn wanting(plan: &LogicalPlan) -> Sql<Option<Wanting<'_>>> {
    let Some(assign) = assign_below(plan) else { return Ok(None) };
    match table_column(&assign.input, &assign.time) {
        Some((table, _)) => wanted_of(table),
        None => Ok(None),
    }
}

fn wanted_of(table: &Table) -> Sql<Option<Wanting<'_>>> {
    match Care::of(&table.options)?.late {
        Late::Side(side) => Ok(Some(Wanting { table, side })),
        Late::Drop | Late::Keep(_) => Ok(None),
    }
}

impl Wanting<'_> {
    fn taking(&self, input: &LogicalPlan, catalog: &Catalog) -> Sql<Taking> {
        let side = catalog.sink(&self.side)?;
        check_side_table(side, self.table, &self.side)?;
        let written = side.sink_schema();
        let columns = written.fields().iter().map(|field| column_for(field, input, self.table, side, &self.side));
        let (table, name) = (self.table.name.value.clone(), side.name.value.clone());
        Ok(Taking { table, side: name, columns: columns.collect::<Sql<Vec<_>>>()? })
    }

    fn without_time(&self, time: &str) -> SqlError {
        let (side, table) = (&self.side.value, &self.table.name.value);
        let sentence = format!(
            "the table '{side}' cannot take the late rows of '{table}': the query does not bring the time column \
             '{time}' as far as ROW_NUMBER()"
        );
        SqlError::new(sentence).at(self.side.at).help(format!("select '{time}' below it, too"))
    }
}

/// The window whose rows come to `plan` one by one.
pub(crate) fn assign_below(plan: &LogicalPlan) -> Option<&WindowAssign> {
    as_node::<WindowAssign>(plan).or_else(|| match plan {
        LogicalPlan::SubqueryAlias(alias) => assign_below(&alias.input),
        LogicalPlan::Filter(filter) => assign_below(&filter.input),
        LogicalPlan::Projection(projection) => assign_below(&projection.input),
        _ => None,
    })
}

/// The table whose rows come to `plan` one by one, each once.
fn rows_of(plan: &LogicalPlan) -> Option<&Table> {
    match plan {
        LogicalPlan::TableScan(scan) => scan.source.downcast_ref::<StreamTable>().map(|table| table.0.as_ref()),
        LogicalPlan::SubqueryAlias(alias) => rows_of(&alias.input),
        LogicalPlan::Filter(filter) => rows_of(&filter.input),
        LogicalPlan::Projection(projection) => rows_of(&projection.input),
        LogicalPlan::Extension(_) => {
            let assign = as_node::<WindowAssign>(plan)?;
            matches!(assign.window, WindowSpec::Tumble { .. }).then(|| rows_of(&assign.input)).flatten()
        }
        _ => None,
    }
}

/// The column of `input` that is what the side table's column `field` is in `table`.
fn column_for(
    field: &arrow::datatypes::Field,
    input: &LogicalPlan,
    table: &Table,
    side: &Table,
    name: &At<String>,
) -> Sql<Column> {
    let (wanted, table_name, side_name) = (field.name(), &table.name.value, &side.name.value);
    let refusal = |why: String| {
        let sentence = format!("the table '{side_name}' cannot take the late rows of '{table_name}': {why}");
        SqlError::new(sentence).at(name.at)
    };
    let Ok(own) = table.schema.field_with_name(wanted) else {
        let names = table.schema.fields().iter().map(|field| field.name().as_str());
        return Err(refusal(format!("'{table_name}' has no column '{wanted}'")).near(wanted, names));
    };
    if own.data_type() != field.data_type() {
        let (given, declared) = (sql_name(own.data_type()), sql_name(field.data_type()));
        return Err(refusal(format!("its column '{wanted}' is {declared}, that of '{table_name}' is {given}")));
    }
    if own.is_nullable() && !field.is_nullable() {
        return Err(refusal(format!("its column '{wanted}' is NOT NULL, that of '{table_name}' may be NULL")));
    }
    let is_it = |column: &Column| {
        table_column(input, column).is_some_and(|(from, name)| from.name.value == *table_name && name == *wanted)
    };
    match input.schema().columns().into_iter().find(is_it) {
        Some(column) => Ok(column),
        None => Err(refusal(format!("the query does not bring its column '{wanted}' as far as the window"))
            .help(format!("select '{wanted}' below the window, too, or leave it out of '{side_name}'"))),
    }
}

impl PartialOrd for LateRows {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for LateRows {
    fn name(&self) -> &str {
        "LateRows"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        self.times.iter().cloned().chain(self.taking.columns.iter().cloned().map(Expr::Column)).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Taking { table, side, .. } = &self.taking;
        write!(f, "LateRows: of '{table}' to '{side}', ")?;
        match self.lateness {
            Lateness::Window { window, .. } => write!(f, "{}", window.parameters()),
            Lateness::Copies { window, .. } => write!(f, "{} of each row", window.parameters()),
            Lateness::Order => write!(f, "in order"),
        }
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let broken = || internal_datafusion_err!("late rows lost their columns");
        let mut exprs = exprs.into_iter();
        let times: Vec<Expr> = exprs.by_ref().take(self.times.len()).collect();
        let columns = exprs.map(|expr| match expr {
            Expr::Column(column) => Ok(column),
            _ => Err(broken()),
        });
        let columns = columns.collect::<DfResult<Vec<_>>>()?;
        let input = inputs.into_iter().next().ok_or_else(broken)?;
        Ok(Self { input, times, taking: Taking { columns, ..self.taking.clone() }, ..self.clone() })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let own = self.times.iter().flat_map(Expr::column_refs).chain(&self.taking.columns);
        let own = own.map(|column| schema.index_of_column(column).ok()).collect::<Option<Vec<_>>>()?;
        let mut needed: Vec<usize> = output_columns.iter().copied().chain(own).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

impl Physical<'_> {
    /// The operator that takes late rows out, and what it gives to the side table.
    pub(crate) fn late_rows(&mut self, node: &LateRows) -> Sql<NodeIndex> {
        let Taking { table: of, side, columns } = &node.taking;
        let is_first = self.late_taken.insert(of.clone());
        let input = self.node(&node.input)?;
        self.must_append(input, "a side table of late rows")?;
        if is_first {
            self.late_taken.remove(of);
        }
        let table = self.catalog.table(side)?.clone();
        let schema = node.input.schema();
        let columns = columns.iter().map(|column| index_of(schema, column)).collect::<Sql<Vec<_>>>()?;
        let mut times = node.times.iter().map(|time| physical_expr(time, schema));
        let time = times.next().ok_or_else(|| SqlError::internal("late rows lost their time"))??;
        let mut spec = LateRowsSpec::new(node.rule()?, time, columns, table.sink_schema());
        if let (Some(own), Lateness::Copies { window, zone, .. }) = (times.next(), node.lateness) {
            spec = spec.once(window.shape(zone)?, own?);
        }
        let detail = Detail::forward(&format!("LateRows {of}"))
            .line("late for", node.lateness.shown(node.times.first()))
            .line("late rows", format!("to '{side}'"))
            .with(self.properties(input))
            .does(node.compiled());
        let index = self.add_after(input, detail, arrow_schema(schema), spec.factory())?;
        self.asides.push(Aside { from: index, port: Port::LATE, table });
        Ok(index)
    }
}

impl LateRows {
    fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// What it does, for checkpoints.
    fn compiled(&self) -> String {
        let time = compiled_exprs(&self.times, self.input.schema());
        let late_for = match self.lateness {
            Lateness::Window { window, zone, attached } => {
                format!("{}{}", window.identity(zone), if attached { " attached" } else { "" })
            }
            Lateness::Copies { window, zone, before_end_ms } => {
                format!("rows of {} before={before_end_ms}", window.identity(zone))
            }
            Lateness::Order => "order".to_owned(),
        };
        format!("late rows of {} for {late_for} time={time}", self.taking.table)
    }

    fn rule(&self) -> Sql<LateRule> {
        match self.lateness {
            Lateness::Window { window: WindowSpec::Session { .. }, .. } => Ok(LateRule::Time),
            Lateness::Window { window, zone, attached } => {
                let shape = window.shape(zone)?;
                Ok(LateRule::Windows(if attached { shape.attached() } else { shape }))
            }
            Lateness::Copies { zone, before_end_ms, .. } => Ok(LateRule::Window(before_end_ms, zone.clock())),
            Lateness::Order => Ok(LateRule::Reached),
        }
    }
}

impl Lateness {
    /// What EXPLAIN says of it, with the time that is judged.
    fn shown(self, time: Option<&Expr>) -> String {
        match self {
            Self::Window { window, .. } => format!("{} {window}", window.kind()),
            Self::Copies { window, .. } => format!("the row's window, {} {window}", window.kind()),
            Self::Order => format!("ORDER BY {}", time.map(bare_text).unwrap_or_default()),
        }
    }
}
