//! Operators made for the simulator: they change nothing about a row but the way it has come.
//!
//! With a *drip* an operator emits a few rows a call and asks to be resumed: barriers pass in the middle of its work,
//! and what it still holds is state.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use ruslo_core::element::EndReason;
use ruslo_core::epoch::Epoch;
use ruslo_core::equation::Equation;
use ruslo_core::error::Result;
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::schema::{carry_hidden, visible};
use ruslo_core::time::Timestamp;

use crate::dataset::{column, schema};
use crate::shape::via;

const TABLE: &str = "held";
const BUCKET: i64 = 0;

/// Writes `mark` into the way of each row; emits at most `drip` rows a call, or all if 0.
pub fn pass(mark: i64, drip: usize) -> SharedFactory {
    Arc::new(move || Ok(Pass { mark, drip, held: VecDeque::new() }))
}

struct Pass {
    mark: i64,
    drip: usize,
    held: VecDeque<RecordBatch>,
}

fn marked(batch: &RecordBatch, mark: i64) -> Result<RecordBatch> {
    let mut columns = visible(batch).columns().to_vec();
    let ways = columns[column::VIA].as_primitive::<Int64Type>();
    let ways = Int64Array::from_iter_values(ways.values().iter().map(|way| via(*way, mark)));
    columns[column::VIA] = Arc::new(ways) as ArrayRef;
    carry_hidden(batch, &schema(), columns)
}

impl Pass {
    fn emit_some(&mut self, out: &mut Output) -> Progress {
        if self.drip == 0 {
            self.held.drain(..).for_each(|batch| out.emit(batch));
            return Progress::Done;
        }
        if let Some(first) = self.held.pop_front() {
            let now = first.num_rows().min(self.drip);
            out.emit(first.slice(0, now));
            if now < first.num_rows() {
                self.held.push_front(first.slice(now, first.num_rows() - now));
            }
        }
        if self.held.is_empty() { Progress::Done } else { Progress::More }
    }
}

impl Operator for Pass {
    fn equation(&self) -> Equation {
        // What drips waits in state for a while.
        if self.drip == 0 { Equation::Same } else { Equation::Open }
    }

    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        self.held = ctx.state.buckets(TABLE).scan(BUCKET)?.into();
        Ok(())
    }

    fn on_batch(
        &mut self,
        _: InputId,
        batch: RecordBatch,
        _: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        self.held.push_back(marked(&batch, self.mark)?);
        Ok(self.emit_some(out))
    }

    fn on_watermark(&mut self, _: Timestamp, _: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        Ok(self.emit_some(out))
    }

    fn resume(&mut self, _: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        Ok(self.emit_some(out))
    }

    fn snapshot(&mut self, _: Epoch, ctx: &mut OperatorContext<'_>, _: &mut Output) -> Result<()> {
        let group = ctx.subtask.key_groups().start;
        let table = ctx.state.buckets(TABLE);
        table.expire(BUCKET);
        self.held.iter().try_for_each(|batch| table.append(BUCKET, &vec![group; batch.num_rows()], batch))
    }

    fn on_end(
        &mut self,
        _: InputId,
        reason: EndReason,
        _: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        match reason {
            EndReason::Drain => Ok(self.emit_some(out)),
            EndReason::Stop => Ok(Progress::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use ruslo_core::operator::Subtask;
    use ruslo_operators::testing::{TestContext, drain};

    use super::*;
    use crate::dataset::{Lineage, Row, batch};
    use crate::sink::rows_of;

    fn input() -> RecordBatch {
        let lineage = Lineage { id: 1, rows: vec![Row { key: 1, value: 2, time: 3 }; 5], cuts: vec![0, 5] };
        batch(&lineage, 0, 5)
    }

    #[test]
    fn what_drips_is_state_until_it_is_out() {
        let mut operator = pass(7, 2).create().unwrap();
        let (mut test, mut out) = (TestContext::new(), Output::default());
        assert_eq!(operator.on_batch(0, input(), &mut test.context(), &mut out).unwrap(), Progress::More);
        operator.snapshot(Epoch(1), &mut test.context(), &mut out).unwrap();
        assert_eq!(out.take().len(), 1);

        let mut restored = pass(7, 2).create().unwrap();
        let mut test = TestContext::with_state(Subtask { index: 0, parallelism: 1 }, test.state);
        restored.open(&mut test.context()).unwrap();
        let end = restored.on_end(0, EndReason::Drain, &mut test.context(), &mut out).unwrap();
        let rest = drain(restored.as_mut(), end, &mut test, &mut out).unwrap();
        let offsets: Vec<_> =
            rest.iter().flat_map(rows_of).map(|row| (row[column::OFFSET], row[column::VIA])).collect();
        assert_eq!(offsets, [(2, via(0, 7)), (3, via(0, 7)), (4, via(0, 7))]);
    }

    #[test]
    fn without_a_drip_all_goes_at_once() {
        let mut operator = pass(1, 0).create().unwrap();
        let (mut test, mut out) = (TestContext::new(), Output::default());
        assert_eq!(operator.on_batch(0, input(), &mut test.context(), &mut out).unwrap(), Progress::Done);
        assert_eq!(out.take()[0].1.num_rows(), 5);
    }
}
