//! A table's source as DataFusion reads it: the splits are shared out among the partitions as these come to them.
//!
//! Readers block, so each partition's stands on a thread of tokio's blocking pool and sends its batches through a
//! channel of a few.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
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
use ruslo_core::error::{Error, Result};
use ruslo_core::metrics::Counter;
use ruslo_core::schema::visible;
use ruslo_core::source::{Budget, Polled, RowTime, Source, Split, SplitWatermark};
use ruslo_core::time::Timestamp;

use super::RUNTIME_MODE;
use crate::care::{Bad, Care};
use crate::catalog::Table;
use crate::connect::Connections;
use crate::diagnostic::{Sql, SqlError};
use crate::errors::carried;
use crate::scan::Reading;

/// Batches that may wait between a reader and the query.
const BATCHES_AHEAD_MAX: usize = 2;

/// How long a reader that has nothing now is left alone, at most.
const PENDING_MAX: Duration = Duration::from_millis(10);

/// A bounded table.
pub(super) struct BatchTable {
    table: Arc<Table>,
    registry: Registry,
    environment: Environment,
    parallelism: usize,
    rows: Arc<Counter>,
}

impl BatchTable {
    /// Refuses a table whose input does not end.
    pub(super) fn new(table: Arc<Table>, connections: Connections<'_>, parallelism: usize) -> Sql<Self> {
        if Care::of(&table.options)?.bad != Bad::Fail {
            let what = format!("'on-error' of the table '{}' in batch mode", table.name.value);
            return Err(SqlError::not_yet(what, table.name.at));
        }
        let (registry, environment) = (connections.registry.clone(), connections.environment.clone());
        let made = Self { table, registry, environment, parallelism, rows: Arc::default() };
        if made.source()?.is_bounded() {
            return Ok(made);
        }
        let name = &made.table.name.value;
        let error = SqlError::new(format!("the table '{name}' never ends: it cannot be read in batch mode"));
        Err(error.help(format!("SET '{RUNTIME_MODE}' = 'streaming', or give the table an end")))
    }

    pub(super) fn name(&self) -> &str {
        &self.table.name.value
    }

    /// What counts the rows that are read.
    pub(super) fn rows(&self) -> Arc<Counter> {
        Arc::clone(&self.rows)
    }

    /// The source of all columns.
    pub(super) fn source(&self) -> Sql<Arc<dyn Source>> {
        let all = Reading::new(&self.table, (0..self.table.columns.len()).collect(), false);
        self.connections().source(&self.table, all.physical(), OnError::Fail)
    }

    fn connections(&self) -> Connections<'_> {
        Connections { registry: &self.registry, environment: &self.environment }
    }

    fn exec(&self, wanted: Vec<usize>) -> Sql<BatchScan> {
        let reading = Reading::new(&self.table, wanted, false);
        let source = self.connections().source(&self.table, reading.physical(), OnError::Fail)?;
        let row_time = reading.row_time(&source.schema())?;
        let schema = Arc::new(reading.made_schema());
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(self.parallelism),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let input = Input {
            source,
            row_time,
            schema,
            // In batch mode all rows are read at the same time.
            now: self.environment.clock.wall(),
            environment: self.environment.clone(),
            rows: self.rows(),
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
        _filters: &'filters [Expr],
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
        let scan = self.exec(wanted).map_err(carried);
        Box::pin(std::future::ready(scan.map(|scan| Arc::new(scan) as Arc<dyn ExecutionPlan>)))
    }
}

/// What the partitions of one scan share.
struct Input {
    source: Arc<dyn Source>,
    row_time: Option<Arc<dyn RowTime>>,
    schema: SchemaRef,
    now: Timestamp,
    environment: Environment,
    rows: Arc<Counter>,
    /// The splits that nobody reads yet; listed when the first partition begins.
    open: OnceLock<Result<Mutex<VecDeque<Split>>>>,
}

impl Input {
    fn next_split(&self) -> Result<Option<Split>> {
        let open = self.open.get_or_init(|| Ok(Mutex::new(self.source.splits(&self.environment)?.into())));
        let open = open.as_ref().map_err(Clone::clone)?;
        Ok(open.lock().unwrap_or_else(PoisonError::into_inner).pop_front())
    }

    /// Reads splits until none is left, or `send` wants no more.
    fn read(&self, rows_max: usize, mut send: impl FnMut(RecordBatch) -> bool) -> Result<()> {
        let mut reader = self.source.reader(&self.environment)?;
        while let Some(split) = self.next_split()? {
            reader.add_split(split, None)?;
            let mut watermark = SplitWatermark::START;
            loop {
                match reader.poll(Budget { rows_max })? {
                    Polled::Batch { batch, .. } => {
                        self.rows.add(batch.num_rows());
                        if !send(self.made(batch, &mut watermark)?) {
                            return Ok(());
                        }
                    }
                    Polled::Sifted(_) => return Err(Error::internal("a reader left records out unasked")),
                    Polled::Worked(_) => {}
                    Polled::Finished(_) => break,
                    Polled::Pending(_) => thread::park_timeout(PENDING_MAX),
                }
            }
        }
        Ok(())
    }

    /// The table's rows from the reader's, under the table's own schema.
    fn made(&self, batch: RecordBatch, watermark: &mut SplitWatermark) -> Result<RecordBatch> {
        let batch = match &self.row_time {
            Some(row_time) => visible(&row_time.assign(batch, watermark, self.now)?.batch),
            None => batch,
        };
        let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().get(..self.schema.fields().len()).unwrap_or_default().to_vec();
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
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
        let mut stream = RecordBatchReceiverStream::builder(self.input.schema.clone(), BATCHES_AHEAD_MAX);
        let (input, sender) = (Arc::clone(&self.input), stream.tx());
        let rows_max = context.session_config().batch_size();
        stream.spawn_blocking(move || {
            let read = input.read(rows_max, |batch| sender.blocking_send(Ok(batch)).is_ok());
            read.map_err(as_datafusion)
        });
        Ok(stream.build())
    }
}

/// An error of ours for DataFusion's streams to carry.
fn as_datafusion(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
