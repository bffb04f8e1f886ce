//! A sink's writer as the last operator of a chain.

use arrow::record_batch::RecordBatch;
use ruslo_core::epoch::Epoch;
use ruslo_core::equation::Equation;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress};
use ruslo_core::schema::without_split_watermarks;
use ruslo_core::sink::SinkWriter;

use crate::planted::{Bug, planted};

/// Writes what comes in and prepares it at each barrier.
pub struct SinkOperator {
    writer: Box<dyn SinkWriter>,
}

impl SinkOperator {
    /// An operator over `writer`.
    pub fn new(writer: Box<dyn SinkWriter>) -> Self {
        Self { writer }
    }
}

impl Operator for SinkOperator {
    fn equation(&self) -> Equation {
        Equation::Same
    }

    fn on_batch(
        &mut self,
        _: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        _: &mut Output,
    ) -> Result<Progress> {
        ctx.metrics.rows_out.add(batch.num_rows());
        match self.writer.write(&without_split_watermarks(&batch))? {
            Progress::Done => Ok(Progress::Done),
            Progress::More => Err(Error::internal("a sink left a batch half written")),
        }
    }

    fn snapshot(&mut self, epoch: Epoch, ctx: &mut OperatorContext<'_>, _: &mut Output) -> Result<()> {
        let prepared = self.writer.prepare_commit(epoch)?;
        if !planted(Bug::AckWithoutCommittables) {
            ctx.committables.extend(prepared);
        }
        Ok(())
    }
}
