//! Late rows to a side table, on the logical plan: a node below each window aggregate takes them out before the window
//! would drop them.
//!
//! The side table gets the columns of the source table that it names. They must be there where the node stands: right
//! below the aggregate, above the filters and projections of the query.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{Column, DFSchemaRef, Result as DfResult, internal_datafusion_err};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use ruslo_core::graph::NodeIndex;
use ruslo_core::operator::Port;
use ruslo_operators::{LateRowsSpec, LateRule};

use crate::care::{Care, Late};
use crate::catalog::{Catalog, Table};
use crate::cursor::At;
use crate::diagnostic::{Sql, SqlError};
use crate::errors::carried;
use crate::explain::Detail;
use crate::nodes::{WindowAssign, as_node};
use crate::physical::{Physical, arrow_schema, index_of, physical_expr};
use crate::side::{Aside, check_side_table};
use crate::types::sql_name;
use crate::window::{Windowed, table_column};
use crate::window_spec::{WindowSpec, WindowZone};

/// Rows on their way to a window, without the late ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct LateRows {
    pub(crate) input: LogicalPlan,
    /// A time in the row's window.
    time: Expr,
    window: WindowSpec,
    zone: WindowZone,
    attached: bool,
    /// Whose rows they are.
    table: String,
    /// Who gets the late ones, and which of their columns.
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
    let Some((table, name)) = wanting(below).map_err(carried)? else { return Ok(input) };
    let side = catalog.sink(&name).map_err(carried)?;
    check_side_table(side, table, &name).map_err(carried)?;
    let columns = side.sink_schema();
    let columns = columns.fields().iter().map(|field| column_for(field, &input, table, side, &name));
    let columns = columns.collect::<Sql<Vec<_>>>().map_err(carried)?;
    let (time, window, zone) = (time.clone(), found.window, found.zone);
    let (table, side) = (table.name.value.clone(), side.name.value.clone());
    let node = LateRows { input, time, window, zone, attached, table, side, columns };
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// The table whose event time the window below `plan` takes, and the side table that it wants, if it wants one.
fn wanting(plan: &LogicalPlan) -> Sql<Option<(&Table, At<String>)>> {
    let Some(assign) = assign_below(plan) else { return Ok(None) };
    let Some((table, _)) = table_column(&assign.input, &assign.time) else { return Ok(None) };
    match Care::of(&table.options)?.late {
        Late::Side(name) => Ok(Some((table, name))),
        Late::Drop | Late::Keep(_) => Ok(None),
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
        [self.time.clone()].into_iter().chain(self.columns.iter().cloned().map(Expr::Column)).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LateRows: of '{}' to '{}', {}", self.table, self.side, self.window.parameters())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let broken = || internal_datafusion_err!("late rows lost their columns");
        let mut exprs = exprs.into_iter();
        let time = exprs.next().ok_or_else(broken)?;
        let columns = exprs.map(|expr| match expr {
            Expr::Column(column) => Ok(column),
            _ => Err(broken()),
        });
        let columns = columns.collect::<DfResult<Vec<_>>>()?;
        let input = inputs.into_iter().next().ok_or_else(broken)?;
        Ok(Self { input, time, columns, ..self.clone() })
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let schema = self.input.schema();
        let own = self.time.column_refs().into_iter().chain(&self.columns);
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
        let is_first = self.late_taken.insert(node.table.clone());
        let input = self.node(&node.input)?;
        if is_first {
            self.late_taken.remove(&node.table);
        }
        let table = self.catalog.table(&node.side)?.clone();
        let schema = node.input.schema();
        let columns = node.columns.iter().map(|column| index_of(schema, column)).collect::<Sql<Vec<_>>>()?;
        let time = physical_expr(&node.time, schema)?;
        let spec = LateRowsSpec::new(node.rule()?, time, columns, table.sink_schema());
        let detail = Detail::forward(&format!("LateRows {}", node.table))
            .line("late for", format!("{} {}", node.window.kind(), node.window))
            .line("late rows", format!("to '{}'", node.side));
        let index = self.add_after(input, detail, arrow_schema(schema), spec.factory())?;
        self.asides.push(Aside { from: index, port: Port::LATE, table });
        Ok(index)
    }
}

impl LateRows {
    fn rule(&self) -> Sql<LateRule> {
        if matches!(self.window, WindowSpec::Session { .. }) {
            return Ok(LateRule::Time);
        }
        let shape = self.window.shape(self.zone)?;
        Ok(LateRule::Windows(if self.attached { shape.attached() } else { shape }))
    }
}
