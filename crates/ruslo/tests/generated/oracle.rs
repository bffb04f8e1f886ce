//! DataFusion over tables in memory: whole numbers and text only.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::error::Result as DfResult;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::query::Query;
use super::row::{Cell, Row};
use super::table::{Record, Table};

pub(crate) struct Oracle {
    context: SessionContext,
    runtime: tokio::runtime::Runtime,
}

impl Oracle {
    pub(crate) fn new() -> Self {
        let mut config = SessionConfig::new().with_target_partitions(1);
        // Its rules are not of one mind which columns may be NULL.
        config.options_mut().execution.skip_physical_aggregate_schema_check = true;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { context: SessionContext::new_with_config(config), runtime }
    }

    /// The answer to the oracle's text of `query` over `table`.
    pub(crate) fn rows(&self, table: &Table, query: &Query) -> Result<Vec<Row>, String> {
        self.answer(&[("t", batch(&table.rows))], &query.oracle)
    }

    /// The answer to `text` over `tables`.
    pub(crate) fn answer(&self, tables: &[(&str, RecordBatch)], text: &str) -> Result<Vec<Row>, String> {
        let batches = self.runtime.block_on(self.collect(tables, text)).map_err(|error| error.to_string())?;
        let rows = batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| read(batch, row)));
        Ok(rows.collect())
    }

    async fn collect(&self, tables: &[(&str, RecordBatch)], text: &str) -> DfResult<Vec<RecordBatch>> {
        for (name, rows) in tables {
            let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]])?;
            self.context.deregister_table(*name)?;
            self.context.register_table(*name, Arc::new(table))?;
        }
        self.context.sql(text).await?.collect().await
    }
}

/// The rows as `t (k, g, v, w, d, m)`: hundredths for `d`, and milliseconds `m` for the event time.
fn batch(rows: &[Record]) -> RecordBatch {
    let numbers = |column: fn(&Record) -> Option<i64>| {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(column)));
        numbers
    };
    let texts: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|row| row.k)));
    RecordBatch::try_from_iter_with_nullable([
        ("k", texts, true),
        ("g", numbers(|row| row.g), true),
        ("v", numbers(|row| row.v), true),
        ("w", numbers(|row| row.w), true),
        ("d", numbers(|row| row.d), true),
        ("m", numbers(|row| Some(row.ts)), true),
    ])
    .unwrap()
}

pub(super) fn read(batch: &RecordBatch, row: usize) -> Row {
    Row(batch.columns().iter().map(|column| cell(column, row)).collect())
}

fn cell(column: &ArrayRef, row: usize) -> Cell {
    if column.is_null(row) {
        return Cell::Null;
    }
    match column.data_type() {
        DataType::Utf8 => Cell::Text(column.as_string::<i32>().value(row).to_owned()),
        DataType::Utf8View => Cell::Text(column.as_string_view().value(row).to_owned()),
        _ => Cell::Number(cast(&column.slice(row, 1), &DataType::Int64).unwrap().as_primitive::<Int64Type>().value(0)),
    }
}
