//! From the streaming logical plan to the physical graph: nodes, exchanges, ids, and what EXPLAIN says of each.
//!
//! One arm of [`Physical::node`] per kind of node; every arm ends in a spec of `ruslo_operators` and a line for people.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Projection, Union};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr, create_physical_expr};
use ruslo_core::connector::TableDefinition;
use ruslo_core::graph::{Edge, Graph, Node, NodeIndex, NodeKind, OperatorId, Partitioning};
use ruslo_core::operator::{Port, SharedFactory};
use ruslo_core::sink::{Sink, Takes};
use ruslo_operators::{
    FilterSpec, MiniBatch, NamedExpr, ProjectSpec, UnionSpec, WindowAssignSpec, WindowTopNSpec, guarded,
};

use crate::catalog::{Catalog, Table};
use crate::compiled::{compiled_column, compiled_columns, compiled_expr, compiled_exprs, compiled_order};
use crate::connect::{Connections, connector_name};
use crate::deduplicate::Deduplicate;
use crate::demand::Demand;
use crate::diagnostic::{Sql, SqlError};
use crate::errors::from_datafusion;
use crate::explain::{Detail, column_names, shown_expr};
use crate::group_by::GroupBy;
use crate::ids::operator_id;
use crate::join::{LookupJoin, StreamJoin};
use crate::late_rows::LateRows;
use crate::lookup_options::AsyncLookup;
use crate::nodes::{WindowAggregate, WindowAssign, as_node};
use crate::over::Over;
use crate::processing_time::driven_tables;
use crate::properties::Properties;
use crate::settings::{AggregatePhases, Settings};
use crate::side::Aside;
use crate::top_n;
use crate::top_n_node::WindowTopN;
use crate::unnest::Unnest;
use crate::updating_top_n::UpdatingTopN;
use crate::window::{bare_column, waits_for_time};

/// A graph in the making.
pub(crate) struct Physical<'a> {
    pub(crate) connections: Connections<'a>,
    /// Where side tables are found.
    pub(crate) catalog: &'a Catalog,
    pub(crate) parallelism: usize,
    pub(crate) phases: AggregatePhases,
    /// How much a GROUP BY holds before the exchange, if it does.
    pub(crate) mini_batch: Option<MiniBatch>,
    /// How long what an updating operator keeps lives after it was written; for ever, if none.
    pub(crate) state_ttl: Option<Duration>,
    /// How tables are asked by lookup joins.
    pub(crate) async_lookup: AsyncLookup,
    /// Whether a source may fall idle.
    pub(crate) has_idleness: bool,
    /// Whether some operator waits for event time, so that sources must make watermarks.
    pub(crate) needs_time: bool,
    /// The tables of which some window is of processing time, so that the clock makes their watermarks.
    pub(crate) driven_by_clock: BTreeSet<String>,
    pub(crate) graph: Graph,
    /// Tables whose late rows are taken out above what is being planned.
    pub(crate) late_taken: BTreeSet<String>,
    /// What side tables get.
    pub(crate) asides: Vec<Aside>,
    /// What EXPLAIN says of each node, in the order of the graph's.
    pub(crate) details: Vec<Detail>,
    /// How many operators have ids of each text.
    texts: HashMap<String, usize>,
    /// What was planned so far: an equal part is not planned twice.
    planned: HashMap<LogicalPlan, NodeIndex>,
    /// Whether somebody wants to know what was before a change.
    pub(crate) demand: Demand,
    /// The sinks that turn out to want to know it, too.
    pub(crate) wants_before: BTreeSet<String>,
    /// Sources whose parallelism a hint gives: what follows has its own.
    hinted: HashSet<NodeIndex>,
}

/// Where the rows of a query go.
pub(crate) enum Target<'a> {
    Table(&'a Table),
    /// To the terminal.
    Result,
}

impl Target<'_> {
    /// The table.
    pub(crate) fn table(&self) -> Option<&Table> {
        match self {
            Self::Table(table) => Some(table),
            Self::Result => None,
        }
    }

    /// What the table is called.
    pub(crate) fn name(&self) -> Option<&str> {
        self.table().map(|table| table.name.value.as_str())
    }
}

/// The graph of plans into their targets, with so many subtasks for each operator. Equal parts are planned once.
pub(crate) fn graph(
    flows: &[(&LogicalPlan, Target<'_>)],
    connections: Connections<'_>,
    catalog: &Catalog,
    (parallelism, settings): (usize, &Settings),
) -> Sql<(Graph, Vec<Detail>)> {
    let plan = |wants_before| planned(flows, connections, catalog, (parallelism, settings), wants_before);
    let mut physical = plan(BTreeSet::new())?;
    if !physical.wants_before.is_empty() {
        // By which keys rows change is known only now.
        physical = plan(physical.wants_before)?;
    }
    Ok((physical.graph, physical.details))
}

/// The operators of `flows`; the sinks called `wants_before` are told what was before each change.
fn planned<'a>(
    flows: &[(&LogicalPlan, Target<'_>)],
    connections: Connections<'a>,
    catalog: &'a Catalog,
    (parallelism, settings): (usize, &Settings),
    wants_before: BTreeSet<String>,
) -> Sql<Physical<'a>> {
    let mut physical = Physical::new(connections, catalog, parallelism);
    physical.phases = settings.aggregate_phases;
    physical.mini_batch = settings.mini_batch();
    physical.state_ttl = settings.state_ttl;
    physical.async_lookup = settings.async_lookup.clone();
    physical.has_idleness = settings.source_idle_timeout.is_some();
    physical.needs_time = flows.iter().any(|(plan, _)| waits_for_time(plan));
    physical.driven_by_clock = driven_tables(flows.iter().map(|(plan, _)| *plan))?;
    physical.demand = physical.demand_of(flows, &wants_before)?;
    for (plan, target) in flows {
        let last = physical.node(plan)?;
        physical.sink(last, target)?;
    }
    let written: Vec<&Table> = flows.iter().filter_map(|(_, target)| target.table()).collect();
    physical.side_sinks(&written)?;
    physical.keep_order(!settings.operator_parallelism.is_empty());
    Ok(physical)
}

/// The sources and sinks of a batch job.
pub(crate) struct BatchGraph {
    pub(crate) graph: Graph,
    /// The sink of each query, and what EXPLAIN says of it.
    pub(crate) sinks: Vec<(OperatorId, String)>,
    /// What EXPLAIN says of the sinks of side tables.
    pub(crate) asides: Vec<String>,
}

/// The graph of a batch job: `sources`, each with the table that takes its dead letters, and a sink for each of `ends`.
pub(crate) fn batch_graph(
    sources: Vec<(Node, Option<Arc<Table>>)>,
    ends: &[(SchemaRef, Target<'_>)],
    connections: Connections<'_>,
    catalog: &Catalog,
) -> Sql<BatchGraph> {
    let mut physical = Physical::new(connections, catalog, 1);
    for (node, side) in sources {
        let detail = Detail::new(&node.name, "");
        let from = physical.add(node, None, detail);
        physical.asides.extend(side.map(|table| Aside { from, port: Port::DEAD_LETTER, table }));
    }
    let mut sinks = Vec::new();
    for (schema, target) in ends {
        let (node, detail) = physical.sink_node((schema.clone(), false), 1, target)?;
        sinks.push((node.id, detail.text()));
        physical.add(node, None, detail);
    }
    let written: Vec<&Table> = ends.iter().filter_map(|(_, target)| target.table()).collect();
    let own = physical.details.len();
    physical.side_sinks(&written)?;
    let asides = physical.details.iter().skip(own).map(Detail::text).collect();
    Ok(BatchGraph { graph: physical.graph, sinks, asides })
}

impl<'a> Physical<'a> {
    fn new(connections: Connections<'a>, catalog: &'a Catalog, parallelism: usize) -> Self {
        let (graph, late_taken, asides, details, texts) = Default::default();
        let (planned, demand, wants_before, hinted, driven_by_clock) = Default::default();
        Self {
            connections,
            catalog,
            parallelism,
            phases: AggregatePhases::default(),
            mini_batch: None,
            state_ttl: None,
            async_lookup: AsyncLookup::default(),
            has_idleness: false,
            needs_time: false,
            driven_by_clock,
            graph,
            late_taken,
            asides,
            details,
            texts,
            planned,
            demand,
            wants_before,
            hinted,
        }
    }

    /// Adds the nodes of `plan`, where they are not there already; the last of them is the answer.
    pub(crate) fn node(&mut self, plan: &LogicalPlan) -> Sql<NodeIndex> {
        if let Some(index) = self.planned.get(plan) {
            return Ok(*index);
        }
        let index = self.new_node(plan)?;
        self.planned.insert(plan.clone(), index);
        Ok(index)
    }

    fn new_node(&mut self, plan: &LogicalPlan) -> Sql<NodeIndex> {
        match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan),
            LogicalPlan::SubqueryAlias(alias) => self.node(&alias.input),
            LogicalPlan::Projection(projection) => self.project(projection),
            LogicalPlan::Filter(filter) => self.filter(filter),
            LogicalPlan::Union(union) => self.union(union),
            LogicalPlan::Values(values) => self.values(values),
            LogicalPlan::EmptyRelation(empty) => self.no_from(empty),
            LogicalPlan::Sort(sort) => self.sort(sort),
            LogicalPlan::Extension(_) => {
                if let Some(assign) = as_node::<WindowAssign>(plan) {
                    self.assign(assign)
                } else if let Some(aggregate) = as_node::<WindowAggregate>(plan) {
                    self.aggregate(aggregate)
                } else if let Some(unnest) = as_node::<Unnest>(plan) {
                    self.unnest(unnest)
                } else if let Some(top) = as_node::<WindowTopN>(plan) {
                    self.top_n(top)
                } else if let Some(first) = as_node::<Deduplicate>(plan) {
                    self.deduplicate(first)
                } else if let Some(over) = as_node::<Over>(plan) {
                    self.over(over)
                } else if let Some(top) = as_node::<UpdatingTopN>(plan) {
                    self.updating_top_n(top, plan)
                } else if let Some(join) = as_node::<StreamJoin>(plan) {
                    self.join(join)
                } else if let Some(join) = as_node::<LookupJoin>(plan) {
                    self.lookup_join(join)
                } else if let Some(group) = as_node::<GroupBy>(plan) {
                    self.group_by(group, plan)
                } else if let Some(late) = as_node::<LateRows>(plan) {
                    self.late_rows(late)
                } else {
                    Err(unplannable(plan))
                }
            }
            other => Err(unplannable(other)),
        }
    }

    fn project(&mut self, projection: &Projection) -> Sql<NodeIndex> {
        let input = self.node(&projection.input)?;
        if is_identity(projection) {
            return Ok(input);
        }
        self.add_projection(input, &projection.expr, projection.input.schema())
    }

    /// A node that computes `exprs` over the rows of `input`.
    pub(crate) fn add_projection(&mut self, input: NodeIndex, exprs: &[Expr], schema: &DFSchema) -> Sql<NodeIndex> {
        self.must_repeat(input, exprs)?;
        let columns = exprs.iter().map(|expr| named(expr, schema)).collect::<Sql<Vec<_>>>()?;
        let spec = ProjectSpec::new(columns);
        let shown: Vec<String> = exprs.iter().map(shown_expr).collect();
        let properties = self.properties(input).projected(exprs, schema);
        let detail = Detail::forward("Project")
            .line("columns", shown.join(", "))
            .with(properties)
            .does(format!("project {}", compiled_exprs(exprs, schema)));
        let schema = spec.schema();
        self.add_after(input, detail, schema, spec.factory())
    }

    fn filter(&mut self, filter: &Filter) -> Sql<NodeIndex> {
        let input = self.node(&filter.input)?;
        self.must_repeat(input, [&filter.predicate])?;
        let condition = physical_expr(&filter.predicate, filter.input.schema())?;
        let detail = Detail::forward("Filter")
            .line("keeps", shown_expr(&filter.predicate))
            .with(self.properties(input))
            .does(format!("filter {}", compiled_expr(&filter.predicate, filter.input.schema())));
        let schema = arrow_schema(filter.input.schema());
        self.add_after(input, detail, schema, FilterSpec::new(condition).factory())
    }

    fn assign(&mut self, assign: &WindowAssign) -> Sql<NodeIndex> {
        let input = self.node(&assign.input)?;
        self.must_append(input, "a window")?;
        let schema = assign.input.schema();
        let shape = assign.window.shape(assign.zone)?;
        let time = index_of(schema, &assign.time)?;
        let spec = WindowAssignSpec::new(schema.as_arrow(), time, shape)?;
        let detail = Detail::forward(&format!("WindowAssign {}", assign.window))
            .line("time", format!("{}{}", assign.time.name, assign.zone.shown()))
            .line("adds", "window_start, window_end, window_time")
            .with(self.properties(input).assigned(assign.input_columns(), time, assign.window))
            .does(format!(
                "assign {} time={}",
                assign.window.identity(assign.zone),
                compiled_column(&assign.time, schema)
            ));
        let schema = spec.schema();
        self.add_after(input, detail, schema, spec.factory())
    }

    fn top_n(&mut self, node: &WindowTopN) -> Sql<NodeIndex> {
        let input = self.node(&node.input)?;
        self.must_append(input, "the first rows of a window")?;
        let (schema, parts) = (node.input.schema(), &node.parts);
        let keys = parts.keys.iter().map(|key| index_of(schema, key)).collect::<Sql<Vec<_>>>()?;
        let order = parts.order.iter().map(|sort| sort_expr(sort, schema)).collect::<Sql<Vec<_>>>()?;
        let end = index_of(schema, &parts.end)?;
        let (before, rank) = (parts.before_end_ms, parts.rank.1.name());
        let spec = WindowTopNSpec::new(schema.as_arrow(), keys.clone(), end, before, order, parts.limit, rank)?;
        let spec = spec.by(parts.zone.clock());
        let properties = self.properties(input).ranked(&keys, end, parts.limit, node.input_columns());
        let detail = top_n::detail(node).with(properties).does(top_n_text(node)).keeps(spec.state_table());
        let added = Node {
            id: self.fresh_id(&parts.lineage),
            name: detail.name.clone(),
            parallelism: if keys.is_empty() { 1 } else { self.parallelism },
            schema: spec.schema(),
            kind: NodeKind::Operator(spec.factory()),
        };
        Ok(self.add(added, Some((input, Partitioning::KeyGroup(keys))), detail))
    }

    fn sink(&mut self, input: NodeIndex, target: &Target<'_>) -> Sql<()> {
        let input = match self.takes(target)? {
            Takes::Last { key } => self.last_rows(input, &key, target.name().unwrap_or("result"))?,
            _ => input,
        };
        let (schema, parallelism) = self.output(input)?;
        let properties = self.properties(input);
        let (node, mut detail) = self.sink_node((schema, properties.is_updating()), parallelism, target)?;
        if let (NodeKind::Sink(sink), true) = (&node.kind, properties.is_updating()) {
            self.check_takes(input, sink.as_ref(), target)?;
            detail = detail.line("takes", sink.changelog().to_string());
        }
        let detail = detail.with(properties);
        let partitioning = self.between(input, node.parallelism);
        self.add(node, Some((input, partitioning)), detail);
        Ok(())
    }

    fn sink_node(
        &mut self,
        (schema, is_updating): (SchemaRef, bool),
        parallelism: usize,
        target: &Target<'_>,
    ) -> Sql<(Node, Detail)> {
        let (sink, name, connector) = match target {
            Target::Table(table) => {
                let sink = self.connections.sink(table, is_updating)?;
                (sink, format!("Sink {}", table.name.value), connector_name(table).to_owned())
            }
            Target::Result => (self.result_sink(&schema, is_updating)?, "Sink result".to_owned(), "print".to_owned()),
        };
        let detail = Detail::forward(&name)
            .line("connector", format!("{connector}, {}", sink.guarantee()))
            .line("columns", column_names(&schema))
            .does("sink");
        let id = self.fresh_id(&name.replacen("Sink", "sink", 1));
        let kind = NodeKind::Sink(sink);
        let parallelism = match target {
            Target::Table(table) => table.parallelism.unwrap_or(parallelism),
            Target::Result => parallelism,
        };
        Ok((Node { id, name, parallelism, schema, kind }, detail))
    }

    /// A bare SELECT is printed as a table.
    fn result_sink(&self, schema: &SchemaRef, is_updating: bool) -> Sql<Arc<dyn Sink>> {
        let options = [("style".to_owned(), "table".to_owned())].into();
        let table = TableDefinition { is_updating, ..TableDefinition::new("result", schema.clone(), options) };
        let print = self.connections.registry.connector("print")?;
        Ok(print.sink(&table, self.connections.environment)?)
    }

    fn union(&mut self, union: &Union) -> Sql<NodeIndex> {
        let inputs = flattened(union).into_iter().map(|input| self.node(input)).collect::<Sql<Vec<_>>>()?;
        let spec = UnionSpec::new(union.schema.inner().clone());
        let nodes = inputs.iter().filter_map(|input| self.graph.nodes.get(*input));
        let ids: Vec<String> = nodes.map(|node| node.id.to_string()).collect();
        let name = "Union".to_owned();
        let properties: Vec<Properties> = inputs.iter().map(|input| self.properties(*input)).collect();
        let properties = Properties::united(&properties);
        let detail = Detail::forward(&name).line("inputs", inputs.len().to_string()).with(properties).does("union");
        let (parallelism, schema) = (self.parallelism, spec.schema());
        let id = self.fresh_id(&format!("union of {}", ids.join(", ")));
        let node = Node { id, name, parallelism, schema, kind: NodeKind::Operator(spec.factory()) };
        let index = self.add(node, None, detail);
        for (input, from) in inputs.into_iter().enumerate() {
            let partitioning = self.between(from, parallelism);
            self.graph.edges.push(Edge { from, port: Port::MAIN, to: index, input, partitioning });
        }
        Ok(index)
    }

    /// How rows get from `input` to a node of `parallelism` where no key matters, but that changes of a row keep their
    /// order.
    pub(crate) fn between(&self, input: NodeIndex, parallelism: usize) -> Partitioning {
        let Some(node) = self.graph.nodes.get(input) else { return Partitioning::Rebalance };
        let properties = self.properties(input);
        match (node.parallelism == parallelism, properties.is_updating()) {
            (true, _) => Partitioning::Forward,
            (false, false) => Partitioning::Rebalance,
            (false, true) => Partitioning::KeyGroup(self.order_key(input)),
        }
    }

    /// The id of what `text` describes; the nth operator of the same text is told apart by ` #n`.
    pub(crate) fn fresh_id(&mut self, text: &str) -> OperatorId {
        let count = self.texts.entry(text.to_owned()).or_default();
        *count += 1;
        if *count == 1 { operator_id(text) } else { operator_id(&format!("{text} #{count}")) }
    }

    /// Adds a stateless operator behind `input`.
    pub(crate) fn add_after(
        &mut self,
        input: NodeIndex,
        detail: Detail,
        schema: SchemaRef,
        factory: SharedFactory,
    ) -> Sql<NodeIndex> {
        let (_, parallelism) = self.output(input)?;
        let before = self.graph.nodes.get(input).map_or(OperatorId(0), |node| node.id);
        let kind = detail.name.split(' ').next().unwrap_or_default().to_lowercase();
        let id = self.fresh_id(&format!("{kind} of {before}"));
        let node = Node { id, name: detail.name.clone(), parallelism, schema, kind: NodeKind::Operator(factory) };
        let partitioning = self.between(input, parallelism);
        Ok(self.add(node, Some((input, partitioning)), detail))
    }

    /// Adds a node and the edge that leads to it.
    pub(crate) fn add(&mut self, node: Node, input: Option<(NodeIndex, Partitioning)>, detail: Detail) -> NodeIndex {
        let index = self.graph.add(node);
        if let Some((from, partitioning)) = input {
            self.graph.connect(from, index, partitioning);
        }
        self.details.push(detail);
        index
    }

    /// What is known of the rows of a node.
    pub(crate) fn properties(&self, index: NodeIndex) -> Properties {
        self.details.get(index).map(|detail| detail.properties.clone()).unwrap_or_default()
    }

    /// Notes that a hint gave the source `index` its parallelism.
    pub(crate) fn is_hinted(&mut self, index: NodeIndex) {
        self.hinted.insert(index);
    }

    /// The columns of a node, and the parallelism of what follows it.
    pub(crate) fn output(&self, index: NodeIndex) -> Sql<(SchemaRef, usize)> {
        let node = self.graph.nodes.get(index).ok_or_else(|| SqlError::internal("a node of the plan is missing"))?;
        let parallelism = if self.hinted.contains(&index) { self.parallelism } else { node.parallelism };
        Ok((node.schema.clone(), parallelism))
    }
}

fn unplannable(plan: &LogicalPlan) -> SqlError {
    SqlError::internal(format!("no operator for '{}'", plan.display()))
}

/// The inputs of a union; those of a union right inside it are its own.
fn flattened(union: &Union) -> Vec<&LogicalPlan> {
    let inputs = union.inputs.iter().flat_map(|input| match input.as_ref() {
        LogicalPlan::Union(inner) => flattened(inner),
        other => vec![other],
    });
    inputs.collect()
}

/// Whether a projection changes nothing: the same columns under the same names in the same order.
fn is_identity(projection: &Projection) -> bool {
    let input = projection.input.schema();
    projection.expr.len() == input.fields().len()
        && projection.expr.iter().zip(projection.schema.fields()).enumerate().all(|(place, (expr, field))| {
            let same_place = bare_column(expr).and_then(|column| input.index_of_column(column).ok()) == Some(place);
            same_place && input.field(place).name() == field.name()
        })
}

/// What a Top-N does, for checkpoints.
fn top_n_text(node: &WindowTopN) -> String {
    let (schema, parts) = (node.input.schema(), &node.parts);
    let (keys, end) = (compiled_columns(&parts.keys, schema), compiled_column(&parts.end, schema));
    let (before, order) = (parts.before_end_ms, compiled_order(&parts.order, schema));
    format!("{} keys=[{keys}] end={end} before={before} order=[{order}]", parts.lineage)
}

/// The schema of a logical node as Arrow's.
pub(crate) fn arrow_schema(schema: &DFSchema) -> SchemaRef {
    schema.inner().clone()
}

pub(crate) fn index_of(schema: &DFSchema, column: &Column) -> Sql<usize> {
    schema.index_of_column(column).map_err(|error| from_datafusion(&error, &[]))
}

/// What computes `expr` over rows of `schema`, one operand of AND and OR guarding the next.
pub(crate) fn physical_expr(expr: &Expr, schema: &DFSchema) -> Sql<Arc<dyn PhysicalExpr>> {
    create_physical_expr(expr, schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
        .and_then(|plain| guarded(plain, schema.as_arrow()))
        .map_err(|error| from_datafusion(&error, &[]))
}

/// `expr` under the name that it has in the plan.
pub(crate) fn named(expr: &Expr, schema: &DFSchema) -> Sql<NamedExpr> {
    let (_, name) = expr.qualified_name();
    Ok(NamedExpr::new(physical_expr(expr, schema)?, name, schema.as_arrow())?)
}

pub(crate) fn sort_expr(sort: &Sort, schema: &DFSchema) -> Sql<PhysicalSortExpr> {
    let options = SortOptions { descending: !sort.asc, nulls_first: sort.nulls_first };
    Ok(PhysicalSortExpr { expr: physical_expr(&sort.expr, schema)?, options })
}
