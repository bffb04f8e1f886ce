//! A sink of nothing. No row is ever visible, so none is ever visible twice: exactly-once costs nothing here.

use arrow::record_batch::RecordBatch;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::Result;
use ruslo_core::operator::{Progress, Subtask};
use ruslo_core::sink::{Committable, Committer, Guarantee, Sink, SinkContext, SinkWriter, Takes};

pub(super) struct BlackholeSink;

/// Writer and committer in one: neither does a thing.
struct Nothing;

impl Sink for BlackholeSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn changelog(&self) -> Takes {
        Takes::Any
    }

    fn takes_back(&self) -> bool {
        true
    }

    fn writer(&self, _: Subtask, _: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Nothing))
    }

    fn committer(&self, _: &SinkContext) -> Result<Box<dyn Committer>> {
        Ok(Box::new(Nothing))
    }
}

impl SinkWriter for Nothing {
    fn write(&mut self, _: &RecordBatch) -> Result<Progress> {
        Ok(Progress::Done)
    }

    fn prepare_commit(&mut self, _: Epoch) -> Result<Vec<Committable>> {
        Ok(Vec::new())
    }
}

impl Committer for Nothing {
    fn commit(&mut self, _: &[Committable]) -> Result<()> {
        Ok(())
    }

    fn abort_since(&mut self, _: Epoch) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ruslo_core::environment::Environment;

    use super::*;

    #[test]
    fn nothing_is_left_to_commit() {
        let context = SinkContext { environment: Environment::local(), run: "r".into() };
        let mut writer = BlackholeSink.writer(Subtask { index: 0, parallelism: 1 }, &context).unwrap();
        let empty = RecordBatch::new_empty(std::sync::Arc::new(arrow::datatypes::Schema::empty()));
        assert_eq!(writer.write(&empty).unwrap(), Progress::Done);
        assert!(writer.prepare_commit(Epoch(1)).unwrap().is_empty());
        let mut committer = BlackholeSink.committer(&context).unwrap();
        committer.commit(&[]).unwrap();
        committer.abort_since(Epoch::ZERO).unwrap();
    }
}
