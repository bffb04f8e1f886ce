//! Runs a planned batch query on a runtime of its own: memory within a limit, spilling to temporary files, stoppable.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::disk_manager::DiskManagerBuilder;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use futures::future::{Either, select};
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::OperatorId;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, channel};

use super::read::Asides;
use super::spill::Scratch;
use super::{BatchQuery, Flow};

/// Stack of the threads that run the query, in bytes: expressions may be nested deep.
const STACK_BYTES: usize = 16 << 20;

/// Of the memory of one partition, this part is kept free by a sort.
const SORT_SHARE: usize = 8;

/// Batches that may wait to be written to side tables.
const ASIDES_AHEAD_MAX: usize = 2;

/// What a run may use of the machine.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Threads.
    pub workers: usize,
    /// Bytes that sorts, joins and aggregates hold before they spill to temporary files.
    pub memory_limit_bytes: u64,
}

/// How a run ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchEnd {
    /// All rows have been given out.
    Finished,
    /// It was asked to stop before.
    Stopped,
}

/// Asks a run to stop; clones ask the same run.
#[derive(Debug, Clone, Default)]
pub struct BatchStop(Arc<StopState>);

#[derive(Debug, Default)]
struct StopState {
    asked: AtomicBool,
    notify: Notify,
}

impl BatchStop {
    /// Asks.
    pub fn stop(&self) {
        self.0.asked.store(true, Ordering::SeqCst);
        self.0.notify.notify_one();
    }

    fn is_asked(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst)
    }
}

/// What a turn of the loop brings.
enum Came {
    Rows(Option<DfResult<RecordBatch>>),
    Aside(OperatorId, RecordBatch),
    Woken,
}

impl BatchQuery {
    /// Runs the queries one after the other and hands the rows of each to `take` with the id of their sink, in the order
    /// of its ORDER BY if it has one; the rows of side tables come among them. Blocks; must not be called from an
    /// asynchronous task. What does not fit into memory goes to `scratch`.
    ///
    /// # Errors
    /// What a source, an expression or `take` says; `Resource`, if the memory is too small and spilling does not help.
    pub fn run(
        &self,
        (limits, scratch): (BatchLimits, &Scratch),
        stop: &BatchStop,
        mut take: impl FnMut(OperatorId, RecordBatch) -> Result<()>,
    ) -> Result<BatchEnd> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(limits.workers.max(1))
            .thread_name("ruslo-batch")
            .thread_stack_size(STACK_BYTES)
            .build()
            .map_err(|error| Error::io("cannot start the threads of a batch query", &error))?;
        self.world.begin_query();
        let ended = runtime.block_on(async {
            for flow in &self.flows {
                if self.flow(flow, (limits, scratch), stop, &mut take).await? == BatchEnd::Stopped {
                    return Ok(BatchEnd::Stopped);
                }
            }
            Ok(BatchEnd::Finished)
        });
        // A reader in the middle of a file need not be waited for.
        runtime.shutdown_background();
        ended
    }

    async fn flow(
        &self,
        flow: &Flow,
        (limits, scratch): (BatchLimits, &Scratch),
        stop: &BatchStop,
        take: &mut impl FnMut(OperatorId, RecordBatch) -> Result<()>,
    ) -> Result<BatchEnd> {
        let (sender, mut asides) = channel(ASIDES_AHEAD_MAX);
        let context = self.context(limits, scratch, Asides { begun: self.world.begin_query(), sender })?;
        let mut rows = execute_stream(Arc::clone(&flow.plan), context).map_err(|error| of_run(&error))?;
        loop {
            if stop.is_asked() {
                return Ok(BatchEnd::Stopped);
            }
            match next(&mut rows, &mut asides, stop).await {
                Came::Woken => {}
                Came::Aside(sink, batch) => take(sink, batch)?,
                Came::Rows(Some(batch)) => take(flow.sink, flow.typed(&batch.map_err(|error| of_run(&error))?)?)?,
                Came::Rows(None) => break,
            }
        }
        // Whoever has read a table to its end has sent all that was put aside of it.
        while let Ok((sink, batch)) = asides.try_recv() {
            take(sink, batch)?;
        }
        Ok(BatchEnd::Finished)
    }

    fn context(&self, limits: BatchLimits, scratch: &Scratch, asides: Asides) -> Result<Arc<TaskContext>> {
        let bytes = usize::try_from(limits.memory_limit_bytes).unwrap_or(usize::MAX);
        let disk = DiskManagerBuilder::default().with_temp_file_factory(Arc::new(scratch.clone()));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(bytes)));
        let runtime = runtime.with_disk_manager_builder(disk).build_arc().map_err(|error| of_run(&error))?;
        let (session, mut config) = ("batch".to_owned(), self.config.clone().with_extension(Arc::new(asides)));
        // What a sort keeps free for merging what it has spilled: its default is more than a small limit has.
        let sorts = config.target_partitions().saturating_mul(SORT_SHARE);
        let execution = &mut config.options_mut().execution;
        execution.sort_spill_reservation_bytes =
            execution.sort_spill_reservation_bytes.min(bytes.checked_div(sorts).unwrap_or_default());
        let (scalars, higher_order) = (HashMap::new(), HashMap::new());
        let (aggregates, windows) = (HashMap::new(), HashMap::new());
        let context = TaskContext::new(None, session, config, scalars, higher_order, aggregates, windows, runtime);
        Ok(Arc::new(context))
    }
}

/// What comes first: rows of the query, what was put aside, or a wish to stop.
async fn next(
    rows: &mut SendableRecordBatchStream,
    asides: &mut Receiver<(OperatorId, RecordBatch)>,
    stop: &BatchStop,
) -> Came {
    let either = select(rows.next(), Box::pin(asides.recv()));
    match select(either, Box::pin(stop.0.notify.notified())).await {
        Either::Left((Either::Left((rows, _)), _)) => Came::Rows(rows),
        Either::Left((Either::Right((Some((sink, batch)), _)), _)) => Came::Aside(sink, batch),
        // The query holds a sender as long as it runs.
        Either::Left((Either::Right((None, _)), _)) | Either::Right(_) => Came::Woken,
    }
}

impl Flow {
    /// The rows under the columns that the sink was promised.
    fn typed(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), batch.columns().to_vec(), &options)?)
    }
}

/// The error at the bottom of DataFusion's, as ours: an expression that fails on a value is the data's fault.
fn of_run(error: &DataFusionError) -> Error {
    match error.find_root() {
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(ours) => ours.clone(),
            None => Error::internal(inner.to_string()),
        },
        DataFusionError::ArrowError(inner, _) => of_kernel(inner),
        DataFusionError::Execution(message) => Error::data(message.clone()),
        DataFusionError::Plan(message) | DataFusionError::NotImplemented(message) => Error::usage(message.clone()),
        DataFusionError::ResourcesExhausted(message) => {
            Error::resource(format!("{message}; give the query more with SET 'pipeline.memory-limit'"))
        }
        DataFusionError::IoError(inner) => Error::io("a temporary file of a batch query", inner),
        other => Error::internal(other.strip_backtrace()),
    }
}

fn of_kernel(error: &ArrowError) -> Error {
    match error {
        ArrowError::ComputeError(m)
        | ArrowError::CastError(m)
        | ArrowError::ParseError(m)
        | ArrowError::ArithmeticOverflow(m) => Error::data(m.clone()),
        ArrowError::IoError(_, inner) => Error::io("a temporary file of a batch query", inner),
        ArrowError::DivideByZero => Error::data("division by zero"),
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<Error>() {
            Some(ours) => ours.clone(),
            None => Error::internal(inner.to_string()),
        },
        other => Error::internal(other.to_string()),
    }
}
