//! The keys of a batch: those that differ, and which row has which.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use ruslo_core::error::{Error, Result};

/// The number of a row whose key is NULL somewhere: it is equal to nothing.
pub(super) const NO_KEY: u32 = u32::MAX;

/// Columns that are compared with the key of a table.
#[derive(Debug, Clone)]
pub(super) struct KeyColumns {
    columns: Arc<[usize]>,
    schema: SchemaRef,
}

impl KeyColumns {
    pub(super) fn new(rows: &SchemaRef, columns: Vec<usize>) -> Result<Self> {
        let missing = || Error::internal("the key of a lookup is not among the columns");
        let fields = columns.iter().map(|column| rows.fields().get(*column).cloned().ok_or_else(missing));
        let fields = fields.collect::<Result<Vec<_>>>()?;
        let sorts: Vec<_> = fields.iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let unfit = fields.iter().find(|field| is_float(field.data_type()));
        if let Some(field) = unfit.or_else(|| fields.first().filter(|_| !RowConverter::supports_fields(&sorts))) {
            let (name, data_type) = (field.name(), field.data_type());
            return Err(Error::usage(format!("'{name}' ({data_type}) cannot be the key of a lookup")));
        }
        if fields.is_empty() {
            return Err(Error::internal("a lookup without a key"));
        }
        let numbered =
            fields.iter().enumerate().map(|(n, field)| Field::new(key_name(n), field.data_type().clone(), true));
        let schema = Arc::new(Schema::new(numbered.collect::<Vec<_>>()));
        Ok(Self { columns: columns.into(), schema })
    }

    fn of(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.columns.iter().filter_map(|column| rows.columns().get(*column)).cloned().collect()
    }

    /// Encodes rows of keys, so that equal ones are equal bytes.
    pub(super) fn converter(&self) -> Result<RowConverter> {
        let fields = self.schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        Ok(RowConverter::new(fields.collect())?)
    }

    /// The keys of `rows` that differ, in the order in which they come first.
    pub(super) fn distinct(&self, rows: &RecordBatch, converter: &RowConverter) -> Result<Keys> {
        let columns = self.of(rows);
        let encoded = converter.convert_columns(&columns)?;
        let mut known = HashMap::with_capacity(rows.num_rows());
        let (mut of_rows, mut first) = (Vec::with_capacity(rows.num_rows()), Vec::new());
        for (row, content) in (0..number(rows.num_rows())?).zip(encoded.iter()) {
            if is_null(&columns, row) {
                of_rows.push(NO_KEY);
                continue;
            }
            let next = number(first.len())?;
            let key = *known.entry(content).or_insert(next);
            if key == next {
                first.push(row);
            }
            of_rows.push(key);
        }
        Keys::new(self, of_rows, taken(&columns, first)?)
    }
}

/// What a key column of a request is called.
pub(super) fn key_name(n: usize) -> String {
    format!("key{n}")
}

/// A FLOAT has two zeros.
fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float16 | DataType::Float32 | DataType::Float64)
}

fn is_null(columns: &[ArrayRef], row: u32) -> bool {
    columns.iter().any(|column| column.is_null(row as usize))
}

fn number(rows: usize) -> Result<u32> {
    u32::try_from(rows).map_err(|_| Error::internal("a batch of more rows than there are numbers"))
}

fn taken(columns: &[ArrayRef], rows: Vec<u32>) -> Result<Vec<ArrayRef>> {
    let rows = UInt32Array::from(rows);
    Ok(columns.iter().map(|column| take(column, &rows, None)).collect::<Result<_, _>>()?)
}

/// Keys, and the rows that have them.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// The number of each row's key, or [`NO_KEY`].
    pub(super) of_rows: Vec<u32>,
    /// The keys: columns `key0`, `key1`, …
    pub(super) keys: RecordBatch,
}

impl Keys {
    fn new(columns: &KeyColumns, of_rows: Vec<u32>, keys: Vec<ArrayRef>) -> Result<Self> {
        let rows = keys.first().map_or(0, |column| column.len());
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(Self { of_rows, keys: RecordBatch::try_new_with_options(Arc::clone(&columns.schema), keys, &options)? })
    }

    /// Some of the keys, by their numbers.
    pub(super) fn some(&self, numbers: &[u32]) -> Result<RecordBatch> {
        let columns = taken(self.keys.columns(), numbers.to_vec())?;
        let options = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
        Ok(RecordBatch::try_new_with_options(self.keys.schema(), columns, &options)?)
    }

    /// Their encoding.
    pub(super) fn encoded(&self, converter: &RowConverter) -> Result<Rows> {
        Ok(converter.convert_columns(self.keys.columns())?)
    }
}

/// The encoding of a key that outlives its batch.
pub(super) type Key = OwnedRow;
