//! The least memory that a plan can work in, told before anything is read.
//!
//! Sources read batches, and exchanges send them: in each of these places one must fit, in all at once, as subtasks do not
//! wait for each other. What rows are in state, and how long their texts are, nobody knows beforehand; so
//! a job may need more than this, and then says so when it does.

use arrow::datatypes::{DataType, Schema};
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::{Graph, NodeKind};
use ruslo_core::memory::human_bytes;

use crate::exchange::BATCH_ROWS_MAX;
use crate::job::JobConfig;
use crate::layout::Layout;

/// Refuses a limit that is below the minimum of `graph`.
///
/// # Errors
/// `Usage`, with the minimum.
pub fn check(graph: &Graph, config: &JobConfig) -> Result<()> {
    let minimum = minimum_bytes(graph, config);
    if config.memory_limit_bytes >= minimum {
        return Ok(());
    }
    Err(Error::usage(format!(
        "'pipeline.memory-limit' = {} is less than this job needs at least, which is {} ({minimum} bytes): one batch of rows in \
         each subtask that reads, and in each behind an exchange; raise it, or lower 'execution.batch-rows' or the parallelism",
        human_bytes(config.memory_limit_bytes),
        human_bytes(minimum),
    )))
}

/// Bytes of one batch in every place that must be able to hold one.
fn minimum_bytes(graph: &Graph, config: &JobConfig) -> u64 {
    // A source that is told to read more rows at once may find fewer.
    let rows = config.batch_rows.min(BATCH_ROWS_MAX).min(config.credit.rows_max);
    let read = graph.nodes.iter().filter(|node| matches!(node.kind, NodeKind::Source(_)));
    let read = read.map(|node| node.parallelism * rows * row_bytes(&node.schema));
    let heads =
        Layout::of(graph).chains.into_iter().filter_map(|chain| Some((*chain.nodes.first()?, chain.parallelism)));
    let exchanged = heads.map(|(head, parallelism)| {
        let senders = graph.inputs(head).filter_map(|edge| graph.nodes.get(edge.from));
        // One gate has all inputs: the least that they bring.
        parallelism * rows * senders.map(|sender| row_bytes(&sender.schema)).min().unwrap_or_default()
    });
    read.chain(exchanged).sum::<usize>() as u64
}

/// The least that a row of `schema` holds in a batch: values of a fixed width, and where those of another width end.
fn row_bytes(schema: &Schema) -> usize {
    schema.fields().iter().map(|field| value_bytes(field.data_type())).sum()
}

fn value_bytes(data_type: &DataType) -> usize {
    match data_type {
        DataType::Utf8 | DataType::Binary | DataType::List(_) | DataType::Map(..) => size_of::<i32>(),
        DataType::LargeUtf8 | DataType::LargeBinary | DataType::LargeList(_) => size_of::<i64>(),
        DataType::Utf8View | DataType::BinaryView => size_of::<u128>(),
        DataType::FixedSizeBinary(bytes) => usize::try_from(*bytes).unwrap_or_default(),
        DataType::Struct(fields) => fields.iter().map(|field| value_bytes(field.data_type())).sum(),
        DataType::Dictionary(key, _) => value_bytes(key),
        // A bit is less than a byte, and NULL is nothing.
        other => other.primitive_width().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::new_null_array;
    use arrow::datatypes::{Field, TimeUnit};
    use arrow::record_batch::RecordBatch;
    use ruslo_core::memory::batch_bytes;

    use super::*;

    #[test]
    fn no_batch_is_smaller_than_is_said() {
        let item = Arc::new(Field::new("item", DataType::Int32, true));
        let types = [
            DataType::Boolean,
            DataType::Int8,
            DataType::Int64,
            DataType::Float32,
            DataType::Decimal128(38, 2),
            DataType::Date32,
            DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Utf8,
            DataType::LargeUtf8,
            DataType::Utf8View,
            DataType::Binary,
            DataType::FixedSizeBinary(7),
            DataType::List(Arc::clone(&item)),
            DataType::Struct(vec![item].into()),
            DataType::Dictionary(Box::new(DataType::Int16), Box::new(DataType::Utf8)),
            DataType::Null,
        ];
        for data_type in types {
            let schema = Arc::new(Schema::new(vec![Field::new("a", data_type.clone(), true)]));
            for rows in [1, 7, 100] {
                let least = RecordBatch::try_new(Arc::clone(&schema), vec![new_null_array(&data_type, rows)]).unwrap();
                assert!(rows * row_bytes(&schema) <= batch_bytes(&least), "{data_type}");
            }
        }
    }
}
