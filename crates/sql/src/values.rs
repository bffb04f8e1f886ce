//! Rows that stand in the text: `VALUES (1, 'a'), (2, 'b')`, and the one row without columns of a SELECT without FROM.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::{cast, concat};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::DFSchema;
use datafusion::logical_expr::{EmptyRelation, Values};
use ruslo_core::dead_letter::OnError;
use ruslo_core::environment::Environment;
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::{Node, NodeIndex, NodeKind, SourceNode};
use ruslo_core::source::{Budget, Polled, Position, Source, SourceReader, Split};

use crate::diagnostic::{Sql, SqlError};
use crate::explain::{Detail, SOURCE_STATE};
use crate::physical::{Physical, arrow_schema, physical_expr};

impl Physical<'_> {
    /// Adds the source of a VALUES list.
    pub(crate) fn values(&mut self, values: &Values) -> Sql<NodeIndex> {
        let schema = arrow_schema(&values.schema);
        let one = row_without_columns(1)?;
        let nothing = DFSchema::empty();
        let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::new(); schema.fields().len()];
        for row in &values.values {
            for ((expr, field), column) in row.iter().zip(schema.fields()).zip(&mut columns) {
                let value = physical_expr(expr, &nothing)?.evaluate(&one);
                let value = value.and_then(|value| value.into_array(1)).map_err(ruslo_operators::execution_error)?;
                column.push(cast(&value, field.data_type()).map_err(Error::from)?);
            }
        }
        let joined = columns.iter().map(|values| {
            let values: Vec<_> = values.iter().map(AsRef::as_ref).collect();
            concat(&values).map_err(Error::from)
        });
        let options = RecordBatchOptions::new().with_row_count(Some(values.values.len()));
        let columns = joined.collect::<Result<Vec<_>>>()?;
        let batch = RecordBatch::try_new_with_options(schema, columns, &options).map_err(Error::from)?;
        Ok(self.constant(batch))
    }

    /// Adds the source of a query without FROM.
    pub(crate) fn no_from(&mut self, empty: &EmptyRelation) -> Sql<NodeIndex> {
        let batch = if empty.produce_one_row {
            row_without_columns(1)?
        } else {
            RecordBatch::new_empty(arrow_schema(&empty.schema))
        };
        Ok(self.constant(batch))
    }

    fn constant(&mut self, batch: RecordBatch) -> NodeIndex {
        let rows = batch.num_rows();
        let schema = batch.schema();
        let kind = NodeKind::Source(SourceNode {
            source: Arc::new(Constant { batch }),
            row_time: None,
            rows_per_second: None,
            on_error: OnError::Fail,
        });
        let name = "Values".to_owned();
        let id = self.fresh_id("source values");
        let detail =
            Detail::new(&name, "").line("rows", rows.to_string()).line("state", SOURCE_STATE).does("source values");
        self.add(Node { id, name, parallelism: 1, schema, kind }, None, detail)
    }
}

fn row_without_columns(rows: usize) -> Sql<RecordBatch> {
    let schema = Arc::new(arrow::datatypes::Schema::empty());
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, Vec::new(), &options)
        .map_err(|error| SqlError::internal(error.to_string()))
}

/// A source of rows that are there already: one split, whose position is the number of rows that were read.
struct Constant {
    batch: RecordBatch,
}

impl Source for Constant {
    fn schema(&self) -> SchemaRef {
        self.batch.schema()
    }

    fn splits(&self, _environment: &Environment) -> Result<Vec<Split>> {
        Ok(vec![Split { lineage: "values".to_owned(), sequence: 0, description: Position::Null, is_endless: false }])
    }

    fn reader(&self, _environment: &Environment) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(ConstantReader { batch: self.batch.clone(), open: None }))
    }
}

struct ConstantReader {
    batch: RecordBatch,
    /// The split and its next row.
    open: Option<(Split, usize)>,
}

impl SourceReader for ConstantReader {
    fn add_split(&mut self, split: Split, position: Option<Position>) -> Result<()> {
        let row = match position {
            None => 0,
            Some(position) => position
                .as_u64()
                .and_then(|row| usize::try_from(row).ok())
                .filter(|row| *row <= self.batch.num_rows())
                .ok_or_else(|| Error::corrupt(format!("{position} is no place in a VALUES list")))?,
        };
        self.open = Some((split, row));
        Ok(())
    }

    fn poll(&mut self, budget: Budget) -> Result<Polled> {
        let Some((split, row)) = &mut self.open else { return Ok(Polled::Pending(None)) };
        let rows = self.batch.num_rows().saturating_sub(*row).min(budget.rows_max.max(1));
        if rows == 0 {
            let id = split.id();
            self.open = None;
            return Ok(Polled::Finished(id));
        }
        let batch = self.batch.slice(*row, rows);
        *row += rows;
        Ok(Polled::Batch { split: split.id(), batch, position: Position::from(*row as u64) })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int32Array;

    use super::*;

    fn rows(position: Option<Position>, rows_max: usize) -> Vec<usize> {
        let column: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        let source = Constant { batch: RecordBatch::try_from_iter([("a", column)]).unwrap() };
        let environment = Environment::local();
        let mut reader = source.reader(&environment).unwrap();
        reader.add_split(source.splits(&environment).unwrap().remove(0), position).unwrap();
        let mut read = Vec::new();
        loop {
            match reader.poll(Budget { rows_max }).unwrap() {
                Polled::Batch { batch, .. } => read.push(batch.num_rows()),
                Polled::Finished(_) => return read,
                Polled::Pending(_) | Polled::Worked(_) | Polled::Sifted(_) => {
                    panic!("nothing to wait for, nothing to leave out")
                }
            }
        }
    }

    #[test]
    fn rows_are_read_from_any_place_in_any_pieces() {
        assert_eq!(rows(None, 2), [2, 1]);
        assert_eq!(rows(Some(Position::from(1u64)), 8), [2]);
        assert_eq!(rows(Some(Position::from(3u64)), 8), [0usize; 0]);
    }
}
