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
//! A [`BatchQuery`] is made while the script is planned and run by the caller, who writes the rows to the sink.

mod lower;
mod order;
mod run;
mod scan;
mod unnest;
mod window;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::Result as DfResult;
use datafusion::config::ConfigOptions;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::prelude::SessionConfig;
use ruslo_core::dead_letter::OnError;
use ruslo_core::graph::{Graph, Node, NodeKind, OperatorId, SourceNode};
use ruslo_core::metrics::Counter;

pub use run::{BatchEnd, BatchLimits, BatchStop};

use crate::connect::Connections;
use crate::diagnostic::Sql;
use crate::errors::from_datafusion;
use crate::explain::Detail;
use crate::ids::operator_id;
use lower::Lowering;

/// The key of the setting, for messages.
pub(crate) const RUNTIME_MODE: &str = "execution.runtime-mode";

/// A query over bounded tables, planned for DataFusion's batch engine.
pub struct BatchQuery {
    plan: Arc<dyn ExecutionPlan>,
    config: SessionConfig,
    schema: SchemaRef,
    reads: Vec<TableRead>,
}

/// One table that the query reads, and how many rows have been read of it.
#[derive(Debug, Clone)]
struct TableRead {
    id: OperatorId,
    rows: Arc<Counter>,
}

impl BatchQuery {
    /// The columns that come out.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many rows have been read by the source node `id` of the graph so far.
    pub fn rows_read(&self, id: OperatorId) -> u64 {
        self.reads.iter().filter(|read| read.id == id).map(|read| read.rows.get()).sum()
    }
}

impl std::fmt::Debug for BatchQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchQuery").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// How a batch query runs, as far as its plan depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchShape {
    /// Partitions of each stage.
    pub(crate) parallelism: usize,
    /// Rows of a batch; none leaves it to DataFusion.
    pub(crate) batch_rows: Option<usize>,
}

/// A planned batch query, with what the summary and EXPLAIN know of it.
pub(crate) struct BatchPlanned {
    pub(crate) query: BatchQuery,
    /// The sources, and no edges: what runs is [`BatchQuery`].
    pub(crate) graph: Graph,
    pub(crate) details: Vec<Detail>,
    /// The plans as EXPLAIN shows them.
    pub(crate) text: String,
}

/// Plans `plan`, which came from DataFusion's planner and was not made a streaming one.
pub(crate) fn plan(plan: LogicalPlan, connections: Connections<'_>, shape: BatchShape) -> Sql<BatchPlanned> {
    let schema = plan.schema().inner().clone();
    let lowering = Lowering::new(connections, shape.parallelism);
    let lowered =
        order::ordered(plan).and_then(|plan| lowering.lower(plan)).map_err(|error| from_datafusion(&error, &[]))?;
    let config = config(shape);
    let (optimized, physical) = planned(&lowered, &config).map_err(|error| from_datafusion(&error, &[]))?;
    let text = format!(
        "== Logical plan (batch) ==\n{}\n\n== Physical plan (batch) ==\n{}",
        optimized.display_indent(),
        displayable(physical.as_ref()).indent(false)
    );
    let (mut graph, mut details, mut reads) = (Graph::default(), Vec::new(), Vec::new());
    for (number, table) in lowering.tables().into_iter().enumerate() {
        let name = format!("Source {}", table.name());
        let id = operator_id(&format!("batch source {} #{number}", table.name()));
        reads.push(TableRead { id, rows: table.rows() });
        let source =
            SourceNode { source: table.source()?, row_time: None, rows_per_second: None, on_error: OnError::Fail };
        let (schema, kind) = (source.source.schema(), NodeKind::Source(source));
        graph.add(Node { id, name: name.clone(), parallelism: shape.parallelism, schema, kind });
        details.push(Detail::new(&name, ""));
    }
    let query = BatchQuery { plan: physical, config, schema, reads };
    Ok(BatchPlanned { query, graph, details, text })
}

fn config(shape: BatchShape) -> SessionConfig {
    let mut options = ConfigOptions::default();
    options.execution.time_zone = Some(crate::types::UTC.to_owned());
    let config = SessionConfig::from(options).with_target_partitions(shape.parallelism);
    match shape.batch_rows {
        Some(rows) => config.with_batch_size(rows),
        None => config,
    }
}

/// The optimised plan and the physical one.
fn planned(plan: &LogicalPlan, config: &SessionConfig) -> DfResult<(LogicalPlan, Arc<dyn ExecutionPlan>)> {
    let state = session(config);
    let optimized = state.optimize(plan)?;
    let physical = now(state.query_planner().create_physical_plan(&optimized, &state))?;
    Ok((optimized, physical))
}

/// DataFusion's rules; its analyser has nothing to do, because the plan is typed already, as Flink types it.
fn session(config: &SessionConfig) -> SessionState {
    SessionStateBuilder::new()
        .with_config(config.clone())
        .with_analyzer_rules(Vec::new())
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
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
