//! Writes batches to the console, each in one piece under the console's lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use ruslo_core::environment::Console;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::Result;
use ruslo_core::operator::{Progress, Subtask};
use ruslo_core::sink::{Committable, Committer, Guarantee, Sink, SinkContext, SinkWriter, Takes};

use super::options::{PrintOptions, Style};
use super::row;
use super::table::Table;
use crate::console::{AlreadyPrinted, put};

pub(super) struct PrintSink {
    options: PrintOptions,
    table: Arc<Mutex<Table>>,
}

impl PrintSink {
    pub(super) fn new(options: PrintOptions, schema: &SchemaRef, is_updating: bool) -> Self {
        Self { options, table: Arc::new(Mutex::new(Table::new(schema, is_updating))) }
    }
}

impl Sink for PrintSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn changelog(&self) -> Takes {
        Takes::Retract
    }

    fn writer(&self, subtask: Subtask, context: &SinkContext) -> Result<Box<dyn SinkWriter>> {
        let form = match self.options.style {
            Style::Row => Form::Row { prefix: self.options.prefix(subtask.index, subtask.parallelism) },
            Style::Table => Form::Table(self.table.clone()),
        };
        Ok(Box::new(PrintWriter { form, console: context.environment.console.clone(), text: String::new() }))
    }

    fn committer(&self, _: &SinkContext) -> Result<Box<dyn Committer>> {
        Ok(Box::new(AlreadyPrinted))
    }
}

enum Form {
    Row { prefix: String },
    Table(Arc<Mutex<Table>>),
}

struct PrintWriter {
    form: Form,
    console: Console,
    /// Reused from batch to batch.
    text: String,
}

impl SinkWriter for PrintWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<Progress> {
        if batch.num_rows() == 0 {
            return Ok(Progress::Done);
        }
        self.text.clear();
        match &self.form {
            Form::Row { prefix } => {
                row::write(batch, prefix, &mut self.text)?;
                put(&mut *lock(&self.console), self.text.as_bytes())?;
            }
            // The table is held while its text is written, or another subtask's rows could overtake the header.
            Form::Table(table) => {
                let mut table = lock(table);
                table.write(batch, &mut self.text)?;
                put(&mut *lock(&self.console), self.text.as_bytes())?;
            }
        }
        Ok(Progress::Done)
    }

    fn prepare_commit(&mut self, _: Epoch) -> Result<Vec<Committable>> {
        Ok(Vec::new())
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{self, ErrorKind as Io, Write};

    use arrow::array::{ArrayRef, Int64Array};
    use ruslo_core::environment::Environment;
    use ruslo_core::error::ErrorKind;

    use super::*;
    use crate::console::is_console_closed;

    fn options(style: Style) -> PrintOptions {
        PrintOptions { identifier: String::new(), style }
    }

    fn batch(value: i64) -> RecordBatch {
        RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![value])) as ArrayRef)]).unwrap()
    }

    fn context(console: Console) -> SinkContext {
        SinkContext { environment: Environment { console, ..Environment::local() }, run: "r".into() }
    }

    /// What two subtasks print of one row each.
    fn printed(style: Style) -> String {
        let console = Arc::new(Mutex::new(Vec::<u8>::new()));
        let context = context(console.clone());
        let sink = PrintSink::new(options(style), &batch(0).schema(), false);
        for index in 0..2 {
            let mut writer = sink.writer(Subtask { index, parallelism: 2 }, &context).unwrap();
            assert_eq!(writer.write(&batch(index as i64)).unwrap(), Progress::Done);
            assert!(writer.prepare_commit(Epoch(1)).unwrap().is_empty());
        }
        String::from_utf8(console.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn subtasks_share_the_console_and_the_header() {
        assert_eq!(printed(Style::Row), "1> +I[0]\n2> +I[1]\n");
        assert_eq!(printed(Style::Table), "     a\n-------\n     0\n     1\n");
    }

    /// A console that fails.
    struct Failing(Io);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(self.0))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_told_from_a_failure() {
        for (kind, closed) in [(Io::BrokenPipe, true), (Io::StorageFull, false)] {
            let context = context(Arc::new(Mutex::new(Failing(kind))));
            let sink = PrintSink::new(options(Style::Row), &batch(0).schema(), false);
            let mut writer = sink.writer(Subtask { index: 0, parallelism: 1 }, &context).unwrap();
            let error = writer.write(&batch(1)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Resource);
            assert_eq!(is_console_closed(&error), closed, "{error}");
            assert_eq!(is_console_closed(&error.context("task 3")), closed);
        }
    }
}
