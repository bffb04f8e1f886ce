//! `'connector' = 'directory'`: a table in the process that can only be asked by key. Its rows stand in the option `rows`,
//! as JSON lines; the columns are texts and whole numbers.
//!
//! It answers late and in any order: a request is ready after as many polls as its keys say. With `'fails' = 'true'` it
//! does not answer each request at its first try; with `'is-down' = 'true'` never.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use ruslo::arrow::array::{Array, ArrayRef, UInt32Array, new_empty_array};
use ruslo::arrow::compute::take;
use ruslo::arrow::datatypes::SchemaRef;
use ruslo::arrow::json::ReaderBuilder;
use ruslo::arrow::record_batch::RecordBatch;
use ruslo::arrow::util::display::array_value_to_string;
use ruslo_core::connector::{OptionSpec, TableDefinition};
use ruslo_core::error::{Error, Result};
use ruslo_core::io::IoFuture;
use ruslo_core::lookup::{Found, LookupConnector, LookupSource};

/// The connector.
pub(crate) fn directory() -> LookupConnector {
    let option = |key, required| OptionSpec { key, required, doc: "Of a test." };
    LookupConnector::new("directory", |table, keys| Ok(Arc::new(Directory::new(table, keys)))).with_options(vec![
        option("rows", true),
        option("fails", false),
        option("is-down", false),
    ])
}

struct Directory {
    rows: RecordBatch,
    keys: Vec<usize>,
    /// The requests that were tried, if each fails once.
    tried: Option<Mutex<HashSet<Vec<String>>>>,
    is_down: bool,
}

impl Directory {
    fn new(table: &TableDefinition, keys: &[usize]) -> Self {
        let is = |key: &str| table.options.get(key).is_some_and(|value| value == "true");
        let text = table.options["rows"].as_bytes();
        let mut reader = ReaderBuilder::new(table.schema.clone()).build(text).unwrap();
        let rows = reader.next().transpose().unwrap();
        let rows = rows.unwrap_or_else(|| RecordBatch::new_empty(table.schema.clone()));
        let tried = is("fails").then(Mutex::default);
        Self { rows, keys: keys.to_vec(), tried, is_down: is("is-down") }
    }

    fn find(&self, keys: &RecordBatch) -> Found {
        let (mut requests, mut found) = (Vec::new(), Vec::new());
        for request in 0..keys.num_rows() {
            for row in 0..self.rows.num_rows() {
                let is_same = self.keys.iter().zip(keys.columns()).all(|(place, key)| {
                    let own = self.rows.column(*place);
                    let text = |column: &ArrayRef, row| array_value_to_string(column, row).unwrap();
                    !own.is_null(row) && text(own, row) == text(key, request)
                });
                if is_same {
                    requests.push(request as u32);
                    found.push(row as u32);
                }
            }
        }
        let found = UInt32Array::from(found);
        let columns = self.rows.columns().iter().map(|column| match found.is_empty() {
            true => new_empty_array(column.data_type()),
            false => take(column, &found, None).unwrap(),
        });
        Found { requests: UInt32Array::from(requests), columns: columns.collect() }
    }
}

/// Ready after so many polls.
struct Later(usize);

impl Future for Later {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl LookupSource for Directory {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    fn lookup(&self, keys: RecordBatch) -> IoFuture<Result<Found>> {
        let key = |row| -> Vec<String> {
            keys.columns().iter().map(|column| array_value_to_string(column, row).unwrap()).collect()
        };
        let text: Vec<String> = (0..keys.num_rows()).map(|row| key(row).join(" ")).collect();
        assert_eq!(text.iter().collect::<HashSet<_>>().len(), text.len(), "a key twice");
        let polls = text.iter().map(|key| key.bytes().map(usize::from).sum::<usize>()).sum::<usize>() % 5;
        let fails = self.tried.as_ref().is_some_and(|tried| tried.lock().unwrap().insert(text));
        let answer = match fails || self.is_down {
            true => Err(Error::unavailable("connection refused")),
            false => Ok(self.find(&keys)),
        };
        Box::pin(async move {
            Later(polls).await;
            answer
        })
    }
}
