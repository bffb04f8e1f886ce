//! Writes batches to standard output, each in one piece under the console's lock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use ruslo_core::environment::Console;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::Result;
use ruslo_core::operator::{Progress, Subtask};
use ruslo_core::sink::{Committable, Committer, Guarantee, Sink, SinkContext, SinkWriter, Takes};
use ruslo_formats::{Encoder, Format};

use crate::console::{AlreadyPrinted, put};

pub(super) struct OutputSink {
    format: Arc<dyn Format>,
    schema: SchemaRef,
    /// Some subtask has written what stands before the first row.
    begun: Arc<AtomicBool>,
}

impl OutputSink {
    /// # Errors
    /// `Usage`, if the format cannot write a column.
    pub(super) fn new(format: Arc<dyn Format>, schema: SchemaRef) -> Result<Self> {
        format.encoder(&schema)?;
        Ok(Self { format, schema, begun: Arc::default() })
    }
}

impl Sink for OutputSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn changelog(&self) -> Takes {
        if self.format.tells_changes() { Takes::Retract } else { Takes::Append }
    }

    fn changelog_help(&self) -> Option<&'static str> {
        Some("'format' = 'debezium-json' in its WITH clause writes every change")
    }

    fn writer(&self, _: Subtask, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(OutputWriter {
            encoder: self.format.encoder(&self.schema)?,
            begun: Arc::clone(&self.begun),
            console: context.environment.console.clone(),
            bytes: Vec::new(),
        }))
    }

    fn committer(&self, _: &SinkContext) -> Result<Box<dyn Committer>> {
        Ok(Box::new(AlreadyPrinted))
    }
}

struct OutputWriter {
    encoder: Box<dyn Encoder>,
    begun: Arc<AtomicBool>,
    console: Console,
    /// Reused from batch to batch.
    bytes: Vec<u8>,
}

impl SinkWriter for OutputWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<Progress> {
        if batch.num_rows() == 0 {
            return Ok(Progress::Done);
        }
        self.bytes.clear();
        self.encoder.encode(batch, &mut self.bytes)?;
        let mut console = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, or another subtask's rows could overtake it.
        if !self.begun.swap(true, Ordering::Relaxed) {
            let mut header = Vec::new();
            self.encoder.header(&mut header);
            put(&mut *console, &header)?;
        }
        put(&mut *console, &self.bytes)?;
        Ok(Progress::Done)
    }

    fn prepare_commit(&mut self, _: Epoch) -> Result<Vec<Committable>> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use arrow::array::{ArrayRef, Int64Array};
    use ruslo_core::environment::Environment;

    use super::*;

    fn batch(value: i64) -> RecordBatch {
        RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![value])) as ArrayRef)]).unwrap()
    }

    /// What two subtasks write of one row each.
    fn written(format: &str) -> String {
        let console = Arc::new(Mutex::new(Vec::<u8>::new()));
        let environment = Environment { console: console.clone(), ..Environment::local() };
        let context = SinkContext { environment, run: "r".into() };
        let options = [("csv.header".to_owned(), "true".to_owned())].into();
        let sink = OutputSink::new(ruslo_formats::format(format, &options).unwrap(), batch(0).schema()).unwrap();
        for index in 0..2 {
            let mut writer = sink.writer(Subtask { index, parallelism: 2 }, &context).unwrap();
            assert_eq!(writer.write(&batch(0).slice(0, 0)).unwrap(), Progress::Done);
            assert_eq!(writer.write(&batch(index as i64)).unwrap(), Progress::Done);
            assert!(writer.prepare_commit(Epoch(1)).unwrap().is_empty());
        }
        String::from_utf8(console.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn rows_are_lines_and_the_header_comes_once() {
        assert_eq!(written("json"), "{\"a\":0}\n{\"a\":1}\n");
        assert_eq!(written("csv"), "a\n0\n1\n");
    }
}
