//! The nodes of the streaming logical plan that DataFusion does not have: rows with their window, aggregates by window.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::{
    Column, DFSchema, DFSchemaRef, ExprSchema, Result as DfResult, TableReference, internal_datafusion_err,
};
use datafusion::logical_expr::{Expr, ExprSchemable, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use crate::window_spec::{WindowSpec, WindowZone};

/// A column that a window gives to its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum WindowColumn {
    Start,
    End,
    /// The last millisecond of the window: what a later window takes as event time.
    Time,
}

impl WindowColumn {
    pub(crate) const ALL: [Self; 3] = [Self::Start, Self::End, Self::Time];

    /// Its name in SQL.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Start => "window_start",
            Self::End => "window_end",
            Self::Time => "window_time",
        }
    }

    /// The column: TIMESTAMP(3) NOT NULL, or for the time that of the rows TIMESTAMP_LTZ(3) NOT NULL.
    fn field(self, zone: WindowZone) -> Arc<Field> {
        let data_type = match self {
            Self::Start | Self::End => DataType::Timestamp(TimeUnit::Millisecond, None),
            Self::Time => zone.clock().time_type(),
        };
        Arc::new(Field::new(self.name(), data_type, false))
    }
}

/// The input's rows, each with the three columns of its window.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct WindowAssign {
    pub(crate) input: LogicalPlan,
    pub(crate) time: Column,
    pub(crate) window: WindowSpec,
    pub(crate) zone: WindowZone,
    /// What a session is of: its PARTITION BY; empty for other windows.
    pub(crate) partition: Vec<Column>,
    schema: DFSchemaRef,
}

impl WindowAssign {
    /// `input` with the windows of `time`, which are of each `partition`.
    pub(crate) fn try_new(
        input: LogicalPlan,
        time: Column,
        (window, zone): (WindowSpec, WindowZone),
        partition: Vec<Column>,
    ) -> DfResult<Self> {
        let mut fields: Vec<(Option<TableReference>, Arc<Field>)> =
            input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        for column in WindowColumn::ALL {
            fields.push((time.relation.clone(), column.field(zone)));
        }
        let schema = DFSchema::new_with_metadata(fields, DFSchema::metadata(input.schema()).clone())?;
        Ok(Self { input, time, window, zone, partition, schema: Arc::new(schema) })
    }

    /// The node as a plan.
    pub(crate) fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// How many columns the input has: the window's columns stand behind them.
    pub(crate) fn input_columns(&self) -> usize {
        self.input.schema().fields().len()
    }
}

impl PartialOrd for WindowAssign {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for WindowAssign {
    fn name(&self) -> &str {
        "WindowAssign"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        [&self.time].into_iter().chain(&self.partition).cloned().map(Expr::Column).collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        WindowColumn::ALL.iter().map(|column| column.name().to_owned()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (time, zone) = (&self.time.name, self.zone.shown());
        write!(f, "{}Window: time={time}{zone}, {}", self.window.kind(), self.window.parameters())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let mut columns = exprs.into_iter().map(|expr| match expr {
            Expr::Column(column) => Ok(column),
            _ => Err(internal_datafusion_err!("a window lost a column")),
        });
        let (Some(input), Some(time)) = (one(inputs), columns.next().transpose()?) else {
            return Err(internal_datafusion_err!("a window has one input and a time column"));
        };
        Self::try_new(input, time, (self.window, self.zone), columns.collect::<DfResult<_>>()?)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let own = [&self.time].into_iter().chain(&self.partition);
        let own = own.map(|column| self.input.schema().index_of_column(column)).collect::<DfResult<Vec<_>>>().ok()?;
        let mut needed: Vec<usize> =
            output_columns.iter().copied().filter(|index| *index < self.input_columns()).chain(own).collect();
        needed.sort_unstable();
        needed.dedup();
        Some(vec![needed])
    }
}

fn one<T>(items: Vec<T>) -> Option<T> {
    let mut items = items.into_iter();
    items.next().filter(|_| items.next().is_none())
}

/// Aggregates by key and window. Its input has a column for each key, the time, and each aggregate's argument; its
/// output is the keys, the aggregates, the window's columns.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct WindowAggregate {
    pub(crate) input: LogicalPlan,
    pub(crate) keys: Vec<Column>,
    pub(crate) time: Column,
    pub(crate) window: WindowSpec,
    pub(crate) zone: WindowZone,
    /// Whether the rows have their windows already: `time` is then the last millisecond of a row's one window.
    pub(crate) attached: bool,
    /// Aggregate calls whose arguments are columns of the input or constants.
    pub(crate) aggregates: Vec<Expr>,
    /// What the aggregates' columns are called.
    pub(crate) names: Vec<String>,
    /// What the operator's id is a hash of.
    pub(crate) lineage: String,
    schema: DFSchemaRef,
}

/// What a [`WindowAggregate`] is made of.
#[derive(Debug, Clone)]
pub(crate) struct WindowAggregateParts {
    pub(crate) keys: Vec<Column>,
    pub(crate) time: Column,
    pub(crate) window: WindowSpec,
    pub(crate) zone: WindowZone,
    /// Whether the rows have their windows already: `time` is then the last millisecond of a row's one window.
    pub(crate) attached: bool,
    pub(crate) aggregates: Vec<Expr>,
    pub(crate) names: Vec<String>,
    pub(crate) lineage: String,
}

impl WindowAggregate {
    /// Aggregates over `input`.
    pub(crate) fn try_new(input: LogicalPlan, parts: WindowAggregateParts) -> DfResult<Self> {
        let WindowAggregateParts { keys, time, window, zone, attached, aggregates, names, lineage } = parts;
        let mut fields = Vec::new();
        for key in &keys {
            let field = input.schema().field_from_column(key)?;
            fields.push((key.relation.clone(), Arc::new(field.as_ref().clone())));
        }
        for (aggregate, name) in aggregates.iter().zip(&names) {
            let (_, field) = aggregate.to_field(input.schema())?;
            fields.push((None, Arc::new(field.as_ref().clone().with_name(name))));
        }
        fields.extend(WindowColumn::ALL.map(|column| (None, column.field(zone))));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Self { input, keys, time, window, zone, attached, aggregates, names, lineage, schema })
    }

    /// The node as a plan.
    pub(crate) fn into_plan(self) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(self) })
    }

    /// How many keys and aggregates there are: the window's columns stand behind them.
    pub(crate) fn own_columns(&self) -> usize {
        self.keys.len() + self.aggregates.len()
    }
}

impl PartialOrd for WindowAggregate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self == other).then_some(Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for WindowAggregate {
    fn name(&self) -> &str {
        "WindowAggregate"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let columns = self.keys.iter().chain([&self.time]).cloned().map(Expr::Column);
        columns.chain(self.aggregates.iter().cloned()).collect()
    }

    // Every output column keeps predicates above: one on a key could go below, but a window's rows are few.

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&str> = self.keys.iter().map(|key| key.name.as_str()).collect();
        let attached = if self.attached { ", over rows of windows" } else { "" };
        let (keys, time, zone) = (keys.join(", "), &self.time.name, self.zone.shown());
        write!(f, "{}WindowAggregate: keys=[{keys}], time={time}{zone}, ", self.window.kind())?;
        write!(f, "{}{attached}, [{}]", self.window.parameters(), self.names.join(", "))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> DfResult<Self> {
        let broken = || internal_datafusion_err!("a window aggregate lost its columns");
        let mut exprs = exprs.into_iter();
        let mut columns = Vec::new();
        for _ in 0..=self.keys.len() {
            let Some(Expr::Column(column)) = exprs.next() else { return Err(broken()) };
            columns.push(column);
        }
        let time = columns.pop().ok_or_else(broken)?;
        let parts = WindowAggregateParts {
            keys: columns,
            time,
            window: self.window,
            zone: self.zone,
            attached: self.attached,
            aggregates: exprs.collect(),
            names: self.names.clone(),
            lineage: self.lineage.clone(),
        };
        Self::try_new(one(inputs).ok_or_else(broken)?, parts)
    }
}

/// The node of type `T` at the root of `plan`, if there is one.
pub(crate) fn as_node<T: UserDefinedLogicalNodeCore>(plan: &LogicalPlan) -> Option<&T> {
    match plan {
        LogicalPlan::Extension(extension) => extension.node.as_any().downcast_ref::<T>(),
        _ => None,
    }
}
