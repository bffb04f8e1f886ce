//! Batch mode: the same text on DataFusion's batch engine, from the sources of the tables to one stream of rows.
//!
//! ```text
//! logical plan before `stream` ─ lower (window, scan) ─ DataFusion's optimiser and planner ─ BatchQuery ─ run ─ rows
//! ```
//!
//! What a plan has of DataFusion's own nodes stays as it is: GROUP BY, ROW_NUMBER, ORDER BY, LIMIT. What is ours is
//! lowered: a table to its source's splits (`scan`), a window function to columns that are computed (`window`). There are
//! no watermarks, so nothing is late: every row counts.
//!
//! A [`BatchQuery`] has the queries of one job. It is made while the script is planned and run by the caller, who writes
//! the rows to their sinks. Each query reads its tables by itself (`read`); bad records go to side tables as in a stream.

mod guard;
mod last;
mod lower;
mod order;
mod read;
mod run;
mod scan;
mod sets;
mod spill;
mod unnest;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::Result as DfResult;
use datafusion::config::ConfigOptions;
use datafusion::datasource::source_as_provider;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::prelude::SessionConfig;
use ruslo_core::graph::{Graph, OperatorId};
use ruslo_core::metrics::{OperatorMetrics, RowCounts};
use ruslo_core::sink::Takes;
use ruslo_operators::function::World;

pub use run::{BatchEnd, BatchLimits, BatchStop};
pub(crate) use scan::NEVER_ENDS;
pub use spill::Scratch;

use crate::catalog::Catalog;
use crate::connect::Connections;
use crate::diagnostic::Sql;
use crate::errors::from_datafusion;
use crate::join::{self, lateral};
use crate::parallelism;
use crate::physical::{self, Target};
use crate::share::share_scans_of;
use lower::Lowering;
use scan::BatchTable;

/// The key of the setting, for messages.
pub(crate) const RUNTIME_MODE: &str = "execution.runtime-mode";

/// The queries of a job over bounded tables, planned for DataFusion's batch engine.
pub struct BatchQuery {
    flows: Vec<Flow>,
    config: SessionConfig,
    reads: Vec<TableRead>,
    world: World,
}

/// A query and the sink that its rows go to.
struct Flow {
    plan: Arc<dyn ExecutionPlan>,
    schema: SchemaRef,
    sink: OperatorId,
}

/// One reading of a table, and what it counts.
struct TableRead {
    id: OperatorId,
    metrics: Arc<OperatorMetrics>,
}

impl BatchQuery {
    /// What the source node `id` of the graph has counted so far; none, if it is no source.
    pub fn counts(&self, id: OperatorId) -> Option<RowCounts> {
        self.reads.iter().find(|read| read.id == id).map(|read| read.metrics.counts())
    }

    /// How many bytes sorts and aggregates have written to temporary files so far.
    pub fn spilled_bytes(&self) -> u64 {
        self.flows.iter().map(|flow| spilled_bytes(flow.plan.as_ref())).sum()
    }
}

impl std::fmt::Debug for BatchQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchQuery").field("flows", &self.flows.len()).finish_non_exhaustive()
    }
}

fn spilled_bytes(plan: &dyn ExecutionPlan) -> u64 {
    let own = plan.metrics().and_then(|metrics| metrics.spilled_bytes()).unwrap_or_default() as u64;
    own + plan.children().into_iter().map(|child| spilled_bytes(child.as_ref())).sum::<u64>()
}

/// How a batch job runs, as far as its plan depends on it.
#[derive(Debug, Clone)]
pub(crate) struct BatchShape {
    /// Partitions of each stage.
    pub(crate) parallelism: usize,
    /// How many readers sources have, by name or id, where it is not that.
    pub(crate) operators: BTreeMap<String, usize>,
    /// Rows of a batch; none leaves it to DataFusion.
    pub(crate) batch_rows: Option<usize>,
}

impl BatchShape {
    /// What the settings say of the operator `name`.
    fn of_operator(&self, name: &str, id: OperatorId) -> Option<usize> {
        self.operators.get(name).or_else(|| self.operators.get(&id.to_string())).copied()
    }
}

/// A planned batch job, with what the summary and EXPLAIN know of it.
pub(crate) struct BatchPlanned {
    pub(crate) query: BatchQuery,
    /// The sources and sinks; only side sinks have edges. What runs is [`BatchQuery`].
    pub(crate) graph: Graph,
    /// The plans as EXPLAIN shows them.
    pub(crate) text: String,
}

/// What plans of a batch job need to know.
pub(crate) struct BatchPlanning<'a> {
    pub(crate) connections: Connections<'a>,
    pub(crate) catalog: &'a Catalog,
    pub(crate) shape: BatchShape,
    pub(crate) world: World,
}

/// Plans the queries of one job, which came from DataFusion's planner and were not made streaming ones.
pub(crate) fn plan(flows: Vec<(LogicalPlan, Target<'_>)>, planning: BatchPlanning<'_>) -> Sql<BatchPlanned> {
    let BatchPlanning { connections, catalog, shape, world } = planning;
    let lowering = Lowering::new(connections, catalog, &shape);
    let state = session(&config(&shape));
    let (plans, targets): (Vec<_>, Vec<_>) = flows.into_iter().unzip();
    let schemas: Vec<SchemaRef> = plans.iter().map(|plan| plan.schema().inner().clone()).collect();
    let plans = plans.into_iter().zip(&targets).map(|(plan, target)| last_rows(plan, target, connections));
    let plans = plans.collect::<Sql<Vec<_>>>()?;
    let optimized = optimized(plans, &lowering, &state).map_err(|error| from_datafusion(&error, &[]))?;
    let physical = optimized.iter().map(|plan| physical_plan(plan, &state)).collect::<DfResult<Vec<_>>>();
    let physical = physical.map_err(|error| from_datafusion(&error, &[]))?;

    let tables = lowering.tables();
    let sources = tables.iter().map(|table| table.source_node()).collect::<Sql<Vec<_>>>()?;
    let ends: Vec<_> = schemas.iter().cloned().zip(targets).collect();
    let made = physical::batch_graph(sources, &ends, connections, catalog)?;
    parallelism::check_batch(&made.graph, &shape.operators)?;
    let text = text(&ends, &optimized, &physical, &made.sinks, &made.asides);
    let flows = physical.into_iter().zip(schemas).zip(&made.sinks);
    let flows = flows.map(|((plan, schema), (sink, _))| Flow { plan, schema, sink: *sink }).collect();
    let reads = tables.iter().map(|table| TableRead { id: table.id(), metrics: table.metrics() }).collect();
    let query = BatchQuery { flows, config: config(&shape), reads, world };
    Ok(BatchPlanned { query, graph: made.graph, text })
}

/// `plan` as a sink takes it that has one row of each key.
fn last_rows(plan: LogicalPlan, target: &Target<'_>, connections: Connections<'_>) -> Sql<LogicalPlan> {
    let takes = match target.table() {
        Some(table) => connections.sink(table, true)?.changelog(),
        None => return Ok(plan),
    };
    match takes {
        Takes::Last { key } => last::one_of_each(plan, &key).map_err(|error| from_datafusion(&error, &[])),
        _ => Ok(plan),
    }
}

/// What EXPLAIN shows.
fn text(
    ends: &[(SchemaRef, Target<'_>)],
    logical: &[LogicalPlan],
    physical: &[Arc<dyn ExecutionPlan>],
    sinks: &[(OperatorId, String)],
    asides: &[String],
) -> String {
    let mut text = Vec::new();
    for ((((_, target), logical), physical), (_, sink)) in ends.iter().zip(logical).zip(physical).zip(sinks) {
        if let (Some(name), true) = (target.name(), ends.len() > 1) {
            text.push(format!("INSERT INTO {name}\n"));
        }
        text.push(format!("== Logical plan (batch) ==\n{}\n\n", logical.display_indent()));
        let physical = displayable(physical.as_ref()).indent(false).to_string();
        text.push(format!("== Physical plan (batch) ==\n{}\n\n{sink}\n", physical.trim_end()));
    }
    text.extend(asides.iter().map(|side| format!("{side}\n")));
    text.concat().trim_end_matches('\n').to_owned() + "\n"
}

fn config(shape: &BatchShape) -> SessionConfig {
    let mut options = ConfigOptions::default();
    options.execution.time_zone = Some(crate::types::UTC.to_owned());
    // DataFusion's rules are not of one mind which columns of CASE and of grouping sets may be NULL.
    options.execution.skip_physical_aggregate_schema_check = true;
    let config = SessionConfig::from(options).with_target_partitions(shape.parallelism);
    match shape.batch_rows {
        Some(rows) => config.with_batch_size(rows),
        None => config,
    }
}

/// The plans without nodes of ours, as DataFusion's rules make them. What is left out of a table because it is bad must
/// be the same in each of them, so those that read such a table read the same columns.
fn optimized(plans: Vec<LogicalPlan>, lowering: &Lowering<'_>, state: &SessionState) -> DfResult<Vec<LogicalPlan>> {
    let lowered = |plan| {
        let plan = join::in_batch(lateral::joined(plan)?, lowering.catalog())?;
        state.optimize(&lowering.lower(order::ordered(plan)?)?)
    };
    let plans = plans.into_iter().map(lowered);
    let plans = plans.collect::<DfResult<Vec<_>>>()?;
    share_scans_of(plans, |scan| {
        let provider = source_as_provider(&scan.source).ok();
        provider.is_some_and(|provider| provider.downcast_ref::<BatchTable>().is_some_and(BatchTable::leaves_out))
    })
}

fn physical_plan(plan: &LogicalPlan, state: &SessionState) -> DfResult<Arc<dyn ExecutionPlan>> {
    now(state.query_planner().create_physical_plan(plan, state))
}

/// DataFusion's rules; its analyser has nothing to do, because the plan is typed already, as Flink types it.
fn session(config: &SessionConfig) -> SessionState {
    SessionStateBuilder::new()
        .with_config(config.clone())
        .with_analyzer_rules(Vec::new())
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .with_physical_optimizer_rule(Arc::new(guard::Guards))
        .build()
}

/// The result of a future that waits for nobody: planning over our tables does no I/O.
fn now<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}
