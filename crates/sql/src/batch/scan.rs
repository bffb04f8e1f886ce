//! A table's source as DataFusion reads it: the splits are shared out among the partitions as these come to them.
//!
//! Readers block, so each partition's stands on a thread of tokio's blocking pool and sends its batches through a
//! channel of a few. What they do there stands in `read`.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use ruslo_core::connector::Registry;
use ruslo_core::dead_letter::OnError;
use ruslo_core::environment::Environment;
use ruslo_core::error::Error;
use ruslo_core::graph::{Node, NodeKind, OperatorId, SourceNode};
use ruslo_core::metrics::OperatorMetrics;
use ruslo_core::source::Source;

use super::RUNTIME_MODE;
use super::read::{Asides, Input};
use crate::catalog::Table;
use crate::connect::Connections;
use crate::diagnostic::{Sql, SqlError};
use crate::errors::carried;
use crate::ids::operator_id;
use crate::scan::Reading;

/// Batches that may wait between a reader and the query.
const BATCHES_AHEAD_MAX: usize = 2;

/// What the message of a table says that has no end.
pub(crate) const NEVER_ENDS: &str = "never ends: it cannot be read in batch mode";

/// What becomes of the records of a table that cannot become rows. All readings of the table share it.
pub(super) struct Letters {
    on_error: OnError,
    side: Option<Arc<Table>>,
    /// Whether a reading gives the dead letters already: each is to be written once.
    given: AtomicBool,
}

impl Letters {
    pub(super) fn new(on_error: OnError, side: Option<Arc<Table>>) -> Self {
        Self { on_error, side, given: AtomicBool::new(false) }
    }
}

/// One reading of a bounded table.
pub(super) struct BatchTable {
    table: Arc<Table>,
    id: OperatorId,
    registry: Registry,
    environment: Environment,
    partitions: usize,
    metrics: Arc<OperatorMetrics>,
    letters: Arc<Letters>,
}

impl BatchTable {
    /// Refuses a table whose input does not end.
    pub(super) fn new(
        table: Arc<Table>,
        id: OperatorId,
        connections: Connections<'_>,
        partitions: usize,
        letters: Arc<Letters>,
    ) -> Sql<Self> {
        let (registry, environment) = (connections.registry.clone(), connections.environment.clone());
        let made = Self { table, id, registry, environment, partitions, metrics: Arc::default(), letters };
        let source = made.source()?;
        let name = &made.table.name.value;
        if source.tells_changes() {
            let error = SqlError::new(format!("the table '{name}' tells changes, and batch mode reads rows alone"));
            return Err(error.help(format!("SET '{RUNTIME_MODE}' = 'streaming'")));
        }
        if source.is_bounded() {
            return Ok(made);
        }
        let error = SqlError::new(format!("the table '{name}' {NEVER_ENDS}"));
        Err(error.help(format!("SET '{RUNTIME_MODE}' = 'streaming', or give the table an end")))
    }

    /// The name and id of the graph's node for the `number`th reading of a job, which is of the table `name`.
    pub(super) fn node(name: &str, number: usize) -> (String, OperatorId) {
        (format!("Source {name}"), operator_id(&format!("batch source {name} #{number}")))
    }

    pub(super) fn name(&self) -> &str {
        &self.table.name.value
    }

    pub(super) fn id(&self) -> OperatorId {
        self.id
    }

    pub(super) fn letters(&self) -> Arc<Letters> {
        Arc::clone(&self.letters)
    }

    /// Whether bad records are left out, so that what is bad must not depend on the reading.
    pub(super) fn leaves_out(&self) -> bool {
        !self.letters.on_error.fails()
    }

    /// What it counts.
    pub(super) fn metrics(&self) -> Arc<OperatorMetrics> {
        Arc::clone(&self.metrics)
    }

    /// The graph's node, and the table that takes the dead letters.
    pub(super) fn source_node(&self) -> Sql<(Node, Option<Arc<Table>>)> {
        let on_error = self.letters.on_error.clone();
        let source = SourceNode { source: self.source()?, row_time: None, rows_per_second: None, on_error };
        let (schema, name) = (source.source.schema(), format!("Source {}", self.name()));
        let node = Node { id: self.id, name, parallelism: self.partitions, schema, kind: NodeKind::Source(source) };
        Ok((node, self.letters.side.clone()))
    }

    /// The source of all columns.
    fn source(&self) -> Sql<Arc<dyn Source>> {
        let all = Reading::new(&self.table, (0..self.table.columns.len()).collect(), false);
        self.connections().source(&self.table, all.physical(), self.letters.on_error.clone())
    }

    fn connections(&self) -> Connections<'_> {
        Connections { registry: &self.registry, environment: &self.environment }
    }

    fn exec(&self, wanted: Vec<usize>, filters: &[Expr]) -> Sql<BatchScan> {
        let reading = Reading::new(&self.table, wanted, false);
        let on_error = self.letters.on_error.clone();
        let wanted = if on_error.fails() { reading.bounds(filters) } else { Vec::new() };
        let source = self.connections().source_of(&self.table, reading.physical(), on_error.clone(), wanted)?;
        let row_time = reading.row_time(&source.schema())?;
        let schema = Arc::new(reading.made_schema());
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(self.partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let is_first = !self.letters.given.swap(true, Ordering::Relaxed);
        let input = Input {
            source,
            row_time,
            schema,
            environment: self.environment.clone(),
            metrics: self.metrics(),
            on_error,
            side: self.letters.side.as_ref().filter(|_| is_first).map(|side| side.name.value.clone()),
            open: OnceLock::new(),
        };
        Ok(BatchScan { table: self.name().to_owned(), input: Arc::new(input), properties: Arc::new(properties) })
    }
}

impl fmt::Debug for BatchTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchTable").field("table", &self.table.name.value).finish_non_exhaustive()
    }
}

impl TableProvider for BatchTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn scan<'provider, 'session, 'columns, 'filters, 'scan>(
        &'provider self,
        _state: &'session dyn Session,
        projection: Option<&'columns Vec<usize>>,
        filters: &'filters [Expr],
        _limit: Option<usize>,
    ) -> Pin<Box<dyn Future<Output = DfResult<Arc<dyn ExecutionPlan>>> + Send + 'scan>>
    where
        'provider: 'scan,
        'session: 'scan,
        'columns: 'scan,
        'filters: 'scan,
        Self: 'scan,
    {
        let wanted = projection.cloned().unwrap_or_else(|| (0..self.table.columns.len()).collect());
        let scan = self.exec(wanted, filters).map_err(carried);
        Box::pin(std::future::ready(scan.map(|scan| Arc::new(scan) as Arc<dyn ExecutionPlan>)))
    }
}

/// Reads a table.
struct BatchScan {
    table: String,
    input: Arc<Input>,
    properties: Arc<PlanProperties>,
}

impl fmt::Debug for BatchScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchScan").field("table", &self.table).finish_non_exhaustive()
    }
}

impl DisplayAs for BatchScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<&str> = self.input.schema.fields().iter().map(|field| field.name().as_str()).collect();
        write!(f, "Source {}: columns=[{}]", self.table, columns.join(", "))
    }
}

impl ExecutionPlan for BatchScan {
    fn name(&self) -> &str {
        "BatchScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DfResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DfResult<TreeNodeRecursion>,
    ) -> DfResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, _partition: usize, context: Arc<TaskContext>) -> DfResult<SendableRecordBatchStream> {
        let Some(asides) = context.session_config().get_extension::<Asides>() else {
            return Err(as_datafusion(Error::internal("a batch query runs without a place for what is put aside")));
        };
        let mut stream = RecordBatchReceiverStream::builder(self.input.schema.clone(), BATCHES_AHEAD_MAX);
        let (input, sender) = (Arc::clone(&self.input), stream.tx());
        let rows_max = context.session_config().batch_size();
        stream.spawn_blocking(move || {
            let read = input.read(rows_max, &asides, |batch| sender.blocking_send(Ok(batch)).is_ok());
            read.map_err(as_datafusion)
        });
        Ok(stream.build())
    }
}

/// An error of ours for DataFusion's streams to carry.
fn as_datafusion(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
