//! Window aggregates in the physical plan: one operator behind the exchange by key, or two, one on each side of it.
//!
//! Which of the two is a matter of speed alone: the operator behind the exchange has the same id and the same state either
//! way, the one before it has none. So a pipeline resumes under another `table.optimizer.agg-phase-strategy`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use ruslo_core::graph::{Node, NodeIndex, NodeKind, Partitioning};
use ruslo_core::operator::SharedFactory;
use ruslo_operators::{AggregateCall, LocalAggregateSpec, SessionSpec, StateTable, WindowAggregateSpec};

use crate::compiled::{compiled_column, compiled_columns, compiled_exprs};
use crate::diagnostic::{Sql, SqlError};
use crate::errors::from_datafusion;
use crate::explain::Detail;
use crate::nodes::WindowAggregate;
use crate::physical::{Physical, arrow_schema, index_of, named, physical_expr, sort_expr};
use crate::settings::AggregatePhases;
use crate::window_spec::WindowSpec;

/// The operators of a window aggregate.
struct Made {
    local: Option<LocalAggregateSpec>,
    schema: SchemaRef,
    state: StateTable,
    factory: SharedFactory,
    /// Why there is no local one, where it was asked for.
    why_one: Option<String>,
}

impl Made {
    fn whole(schema: SchemaRef, state: StateTable, factory: SharedFactory) -> Self {
        Self { local: None, schema, state, factory, why_one: None }
    }
}

impl Physical<'_> {
    pub(crate) fn aggregate(&mut self, node: &WindowAggregate) -> Sql<NodeIndex> {
        let input = self.node(&node.input)?;
        self.must_append(input, "a window")?;
        let made = self.made(node, input)?;
        let properties = self.properties(input).aggregated(node);
        let mut detail = aggregate_detail(node, made.local.is_some()).with(properties);
        detail = detail.does(aggregate_text(node)).keeps(made.state);
        if let Some(why) = made.why_one {
            detail = detail.line("phases", format!("one, because {why}"));
        }
        let (input, columns) = match made.local {
            Some(local) => {
                let (detail, schema) = (local_detail(node).with(self.properties(input).bare()), local.schema());
                // The keys are in front.
                (self.add_after(input, detail, schema, local.factory())?, (0..node.keys.len()).collect())
            }
            None => {
                let columns = node.keys.iter().map(|key| index_of(node.input.schema(), key));
                (input, columns.collect::<Sql<Vec<_>>>()?)
            }
        };
        let added = Node {
            id: self.fresh_id(&node.lineage),
            name: detail.name.clone(),
            parallelism: if node.keys.is_empty() { 1 } else { self.parallelism },
            schema: made.schema,
            kind: NodeKind::Operator(made.factory),
        };
        Ok(self.add(added, Some((input, Partitioning::KeyGroup(columns))), detail))
    }

    fn made(&self, node: &WindowAggregate, input: NodeIndex) -> Sql<Made> {
        let schema = node.input.schema();
        let keys = node.keys.iter().map(|key| named(&Expr::Column(key.clone()), schema)).collect::<Sql<Vec<_>>>()?;
        let calls = node.aggregates.iter().zip(&node.names);
        let calls = calls.map(|(expr, name)| aggregate_call(expr, schema, name));
        let calls = calls.collect::<Sql<Vec<_>>>()?;
        let time = index_of(schema, &node.time)?;
        if let WindowSpec::Session { gap_ms } = node.window {
            let spec = SessionSpec::new(schema.as_arrow(), keys, calls, time, gap_ms)?.by(node.zone.clock());
            let why = "a session is of all rows of a key".to_owned();
            let why_one = (self.phases == AggregatePhases::Two).then_some(why);
            return Ok(Made { why_one, ..Made::whole(spec.schema(), spec.state_table(), spec.factory()) });
        }
        let shape = node.window.shape(node.zone)?;
        let shape = if node.attached { shape.attached() } else { shape };
        let spec = WindowAggregateSpec::new(schema.as_arrow(), keys, calls, time, shape)?;
        Ok(self.in_phases(&spec, node.keys.is_empty() && !self.is_of_one_subtask(input)))
    }

    /// Whether all rows of a node come through one subtask, whatever the parallelism is.
    fn is_of_one_subtask(&self, node: NodeIndex) -> bool {
        self.graph.inputs(node).any(|edge| match &edge.partitioning {
            Partitioning::KeyGroup(columns) => columns.is_empty(),
            Partitioning::Forward => self.is_of_one_subtask(edge.from),
            Partitioning::Rebalance => false,
        })
    }

    fn in_phases(&self, spec: &WindowAggregateSpec, would_meet: bool) -> Made {
        let is_wanted = match self.phases {
            AggregatePhases::One => false,
            AggregatePhases::Two => true,
            AggregatePhases::Auto => would_meet,
        };
        if !is_wanted {
            return Made::whole(spec.schema(), spec.state_table(), spec.clone().factory());
        }
        let why = match spec.two_phases() {
            // Partial groups would come when the windows that they are for are out.
            _ if self.has_idleness => "a source may fall idle".to_owned(),
            Ok((local, global)) => {
                let whole = Made::whole(global.schema(), global.state_table(), global.factory());
                return Made { local: Some(local), ..whole };
            }
            Err(name) => format!("{} keeps every value", name.to_uppercase()),
        };
        let why_one = (self.phases == AggregatePhases::Two).then_some(why);
        Made { why_one, ..Made::whole(spec.schema(), spec.state_table(), spec.clone().factory()) }
    }
}

fn keys_text(node: &WindowAggregate) -> String {
    let keys: Vec<&str> = node.keys.iter().map(|key| key.name.as_str()).collect();
    if keys.is_empty() { "all rows".to_owned() } else { keys.join(", ") }
}

fn aggregate_detail(node: &WindowAggregate, is_of_partials: bool) -> Detail {
    let keys = keys_text(node);
    let rows = if is_of_partials { "partial groups" } else { "rows" };
    let input = match (node.keys.is_empty(), is_of_partials) {
        (true, _) => format!("all {rows} to one subtask"),
        (false, false) => format!("by key {keys}"),
        (false, true) => format!("{rows} by key {keys}"),
    };
    Detail::new(&format!("{}Window {keys}, {}", node.window.kind(), node.window), &input)
        .line("time", format!("{}{}", node.time.name, node.zone.shown()))
        .line("aggregates", node.names.join(", "))
        .line("state", format!("per ({keys}, {}): {}", state_unit(node), functions(node)))
}

fn local_detail(node: &WindowAggregate) -> Detail {
    let keys = keys_text(node);
    let groups = format!("per ({keys}, {}): {}", state_unit(node), functions(node));
    Detail::forward(&format!("Local{}Window {keys}, {}", node.window.kind(), node.window))
        .line("time", format!("{}{}", node.time.name, node.zone.shown()))
        .line("partial groups", format!("{groups}; none over a checkpoint"))
}

/// What a window aggregate does, for checkpoints: in one phase and in two the same.
fn aggregate_text(node: &WindowAggregate) -> String {
    let schema = node.input.schema();
    let (keys, time) = (compiled_columns(&node.keys, schema), compiled_column(&node.time, schema));
    let calls = compiled_exprs(&node.aggregates, schema);
    format!("{} keys=[{keys}] time={time} calls=[{calls}]", node.lineage)
}

/// What is kept of each group.
fn functions(node: &WindowAggregate) -> String {
    let functions: Vec<&str> = node.aggregates.iter().filter_map(function_name).collect();
    if functions.is_empty() { "that there was a row".to_owned() } else { functions.join(", ") }
}

/// What a window aggregate keeps one state of for each key.
fn state_unit(node: &WindowAggregate) -> &'static str {
    match node.window {
        WindowSpec::Hop { .. } | WindowSpec::Cumulate { .. } if !node.attached => "slice",
        _ => "window",
    }
}

pub(crate) fn function_name(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::AggregateFunction(call) => Some(call.func.name()),
        Expr::Alias(alias) => function_name(&alias.expr),
        _ => None,
    }
}

pub(crate) fn aggregate_call(expr: &Expr, schema: &DFSchema, name: &str) -> Sql<AggregateCall> {
    let Expr::AggregateFunction(call) = expr.clone().unalias() else {
        return Err(SqlError::internal(format!("'{expr}' is not an aggregate")));
    };
    let args = call.params.args.iter().map(|arg| physical_expr(arg, schema)).collect::<Sql<Vec<_>>>()?;
    let is_distinct = call.params.distinct && counts_repeats(call.func.name());
    let order = call.params.order_by.iter().map(|sort| sort_expr(sort, schema)).collect::<Sql<Vec<_>>>()?;
    let built = AggregateExprBuilder::new(call.func, args).schema(arrow_schema(schema)).order_by(order).alias(name);
    let built = built.build().map_err(|error| from_datafusion(&error, &[]))?;
    let mut made = AggregateCall::new(Arc::new(built));
    if is_distinct {
        made = made.distinct(schema.as_arrow())?;
    }
    match &call.params.filter {
        Some(filter) => Ok(made.with_filter(physical_expr(filter, schema)?)),
        None => Ok(made),
    }
}

/// Whether a value that is there twice shows in the result of the aggregate `name`.
fn counts_repeats(name: &str) -> bool {
    let once = ["min", "max", "bool_and", "bool_or", "bit_and", "bit_or", "first_value", "last_value"];
    !once.contains(&name) && name != "approx_count_distinct"
}
