//! What the partitions of a scan do: each reads split after split, computes columns, and puts aside what cannot become
//! a row.
//!
//! ```text
//! splits ─▶ reader ─▶ computed columns ─▶ rows ─▶ the query
//!             └── rejected ──┴─ bad rows ─▶ Asides ─▶ the loop that runs the query ─▶ the side table's sink
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use ruslo_core::dead_letter::{OnError, Origins, Rejected};
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::OperatorId;
use ruslo_core::metrics::OperatorMetrics;
use ruslo_core::schema::visible;
use ruslo_core::sift::{rejected, sift};
use ruslo_core::source::{Budget, Polled, RowTime, Source, Split, SplitWatermark};
use ruslo_core::time::Timestamp;
use tokio::sync::mpsc::Sender;

use crate::side::side_sink_id;

/// How long a reader that has nothing now is left alone, at most.
const PENDING_MAX: Duration = Duration::from_millis(10);

/// What a scan finds in the run of a query.
pub(super) struct Asides {
    /// When the query began: in batch mode all rows are read at the same time.
    pub(super) begun: Timestamp,
    /// Takes batches for the sinks of side tables.
    pub(super) sender: Sender<(OperatorId, RecordBatch)>,
}

/// What the partitions of one scan share.
pub(super) struct Input {
    pub(super) source: Arc<dyn Source>,
    pub(super) row_time: Option<Arc<dyn RowTime>>,
    /// The columns that come out.
    pub(super) schema: SchemaRef,
    pub(super) environment: Environment,
    pub(super) metrics: Arc<OperatorMetrics>,
    pub(super) on_error: OnError,
    /// The table that gets the dead letters; none, if nobody wants them or another reading gives them: all count them.
    pub(super) side: Option<String>,
    /// The splits that nobody reads yet; listed when the first partition begins.
    pub(super) open: OnceLock<Result<Mutex<VecDeque<Split>>>>,
}

/// What one poll of a reader gave.
struct Read {
    batch: RecordBatch,
    rejected: Vec<Rejected>,
    origins: Option<Box<dyn Origins>>,
}

impl Input {
    /// Reads splits until none is left, or `send` wants no more.
    pub(super) fn read(
        &self,
        rows_max: usize,
        asides: &Asides,
        mut send: impl FnMut(RecordBatch) -> bool,
    ) -> Result<()> {
        let mut reader = self.source.reader(&self.environment)?;
        while let Some(split) = self.next_split()? {
            reader.add_split(split, None)?;
            let mut watermark = SplitWatermark::START;
            loop {
                let read = match reader.poll(Budget { rows_max })? {
                    Polled::Batch { batch, .. } => Read { batch, rejected: Vec::new(), origins: None },
                    Polled::Sifted(sifted) => {
                        Read { batch: sifted.batch, rejected: sifted.rejected, origins: sifted.origins }
                    }
                    Polled::Worked(_) => continue,
                    Polled::Finished(_) => break,
                    Polled::Pending(_) => {
                        thread::park_timeout(PENDING_MAX);
                        continue;
                    }
                };
                let (rows, is_wanted) = self.rows(read, &mut watermark, asides)?;
                if !is_wanted || (rows.num_rows() > 0 && !send(rows)) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn next_split(&self) -> Result<Option<Split>> {
        let open = self.open.get_or_init(|| Ok(Mutex::new(self.source.splits(&self.environment)?.into())));
        let open = open.as_ref().map_err(Clone::clone)?;
        Ok(open.lock().unwrap_or_else(PoisonError::into_inner).pop_front())
    }

    /// The table's rows of what was read, counted; and whether anybody still wants what is put aside.
    fn rows(&self, mut read: Read, watermark: &mut SplitWatermark, asides: &Asides) -> Result<(RecordBatch, bool)> {
        self.metrics.rows_in.add(read.batch.num_rows() + read.rejected.len());
        let rows = self.made(&mut read, watermark, asides.begun)?;
        self.metrics.rows_out.add(rows.num_rows());
        Ok((rows, self.put_aside(&read.rejected, asides)?))
    }

    /// The table's rows under the table's own schema; rows that fail only now are rejected, if they may be.
    fn made(&self, read: &mut Read, watermark: &mut SplitWatermark, now: Timestamp) -> Result<RecordBatch> {
        let batch = read.batch.clone();
        let batch = match &self.row_time {
            None => batch,
            Some(row_time) if self.on_error.fails() => visible(&row_time.assign(batch, watermark, now)?.batch),
            Some(row_time) => {
                let (assigned, bad) = sift(row_time.as_ref(), batch, watermark, now)?;
                read.reject(bad)?;
                visible(&assigned.batch)
            }
        };
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let columns = batch.columns().get(..self.schema.fields().len()).unwrap_or_default().to_vec();
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?)
    }

    /// Counts records that could not become rows, and makes letters of them; whether anybody took these.
    fn put_aside(&self, rejected: &[Rejected], asides: &Asides) -> Result<bool> {
        let Some(first) = rejected.first() else { return Ok(true) };
        let letters = match &self.on_error {
            OnError::Fail => return Err(Error::data(first.reason.clone()).context(&first.record.position)),
            OnError::Skip => {
                self.metrics.skipped_rows.add(rejected.len());
                return Ok(true);
            }
            OnError::DeadLetter(letters) => letters,
        };
        self.metrics.dead_letter_rows.add(rejected.len());
        let Some(side) = &self.side else { return Ok(true) };
        let batch = letters.batch(rejected, self.environment.clock.wall())?;
        Ok(asides.sender.blocking_send((side_sink_id(side), batch)).is_ok())
    }
}

impl Read {
    /// Adds the rows that failed after they had been read.
    fn reject(&mut self, bad: Vec<(usize, Error)>) -> Result<()> {
        self.rejected.extend(rejected(bad, self.origins.as_deref())?);
        Ok(())
    }
}
