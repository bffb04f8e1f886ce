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
    is_two_phase: bool,
    /// Rows written since the last barrier.
    written: usize,
}

impl SinkOperator {
    /// An operator over `writer`, of a sink that shows rows in a second phase or at once.
    pub fn new(writer: Box<dyn SinkWriter>, is_two_phase: bool) -> Self {
        Self { writer, is_two_phase, written: 0 }
    }
}

impl Operator for SinkOperator {
    fn equation(&self) -> Equation {
        if self.is_two_phase { Equation::Commits } else { Equation::Same }
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
            Progress::Done => {
                self.written += batch.num_rows();
                Ok(Progress::Done)
            }
            _ => Err(Error::internal("a sink left a batch half written")),
        }
    }

    fn snapshot(&mut self, epoch: Epoch, ctx: &mut OperatorContext<'_>, _: &mut Output) -> Result<()> {
        let prepared = self.writer.prepare_commit(epoch)?;
        let prepared = if planted(Bug::AckWithoutCommittables) { Vec::new() } else { prepared };
        let written = std::mem::take(&mut self.written);
        // Rows that wait for a commit which nobody asked for are lost, and must be missed.
        let are_pending = !self.is_two_phase || !prepared.is_empty();
        ctx.metrics.pending_rows.set(if are_pending { written } else { 0 });
        ctx.committables.extend(prepared);
        Ok(())
    }
}
