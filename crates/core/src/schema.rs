//! Hidden columns: what a batch carries beside the user's columns, always behind them.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::changelog::ROW_KIND;
use crate::error::Result;

/// The hidden column that says, for each row, its split's watermark just before that row (milliseconds, BIGINT).
///
/// Only batches in which some row could be late carry it; a row of a batch without it is never late.
pub const SPLIT_WATERMARK: &str = "__split_watermark";

/// Names that begin like this are Ruslo's: a user's table cannot have such a column.
pub const HIDDEN_PREFIX: &str = "__";

/// The split watermarks of a batch's rows, if it carries them.
pub fn split_watermarks(batch: &RecordBatch) -> Option<&Int64Array> {
    let last = batch.schema_ref().fields().last()?;
    if last.name() != SPLIT_WATERMARK {
        return None;
    }
    batch.columns().last()?.as_primitive_opt::<Int64Type>()
}

/// The batch with `watermarks` as its hidden column; one value a row.
///
/// # Errors
/// Internal, if the lengths differ.
pub fn with_split_watermarks(batch: &RecordBatch, watermarks: Int64Array) -> Result<RecordBatch> {
    let mut columns = batch.columns().to_vec();
    columns.push(Arc::new(watermarks));
    Ok(RecordBatch::try_new(hidden_schema(batch.schema_ref()), columns)?)
}

/// The batch with no row's split watermark below `least`: rows that come after more was promised without them are late by
/// that promise.
///
/// # Errors
/// Internal only.
pub fn raise_split_watermarks(batch: RecordBatch, least: i64) -> Result<RecordBatch> {
    match split_watermarks(&batch) {
        None => {
            let raised = Int64Array::from_value(least, batch.num_rows());
            with_split_watermarks(&batch, raised)
        }
        Some(marks) if marks.values().iter().all(|mark| *mark >= least) => Ok(batch),
        Some(marks) => {
            let raised = marks.values().iter().map(|mark| (*mark).max(least));
            with_split_watermarks(&without_split_watermarks(&batch), Int64Array::from_iter_values(raised))
        }
    }
}

/// A batch of `columns` under `schema`, with the hidden columns of `input` behind them if it has any.
///
/// What every operator that makes new rows one by one from old ones uses, so that lateness and kinds survive it.
///
/// # Errors
/// Internal, if the columns do not fit the schema.
pub fn carry_hidden(input: &RecordBatch, schema: &SchemaRef, mut columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    let options = arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(input.num_rows()));
    let first_hidden = visible_columns(input);
    if first_hidden == input.num_columns() {
        return Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?);
    }
    columns.extend(input.columns().iter().skip(first_hidden).cloned());
    let hidden = input.schema_ref().fields().iter().skip(first_hidden);
    let fields: Vec<_> = schema.fields().iter().chain(hidden).cloned().collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// `schema` with the split watermarks behind it.
fn hidden_schema(schema: &SchemaRef) -> SchemaRef {
    let hidden = Arc::new(Field::new(SPLIT_WATERMARK, DataType::Int64, false));
    let fields: Vec<_> = schema.fields().iter().cloned().chain([hidden]).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// How many columns of a batch are the user's; the hidden ones stand behind them.
pub fn visible_columns(batch: &RecordBatch) -> usize {
    let is_hidden = |name: &String| name == SPLIT_WATERMARK || name == ROW_KIND;
    let fields = batch.schema_ref().fields();
    fields.len() - fields.iter().rev().take_while(|field| is_hidden(field.name())).count()
}

/// The batch without its hidden columns.
pub fn visible(batch: &RecordBatch) -> RecordBatch {
    let columns = visible_columns(batch);
    let mut shown = batch.clone();
    for _ in columns..batch.num_columns() {
        shown.remove_column(columns);
    }
    shown
}

/// The batch without its split watermarks: what a sink gets.
pub fn without_split_watermarks(batch: &RecordBatch) -> RecordBatch {
    let mut shown = batch.clone();
    if split_watermarks(batch).is_some() {
        shown.remove_column(batch.num_columns().saturating_sub(1));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> RecordBatch {
        RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap()
    }

    #[test]
    fn the_hidden_column_comes_last_and_goes_again() {
        let plain = batch();
        assert!(split_watermarks(&plain).is_none());
        let carried = with_split_watermarks(&plain, Int64Array::from(vec![7, 8])).unwrap();
        assert_eq!(split_watermarks(&carried).unwrap().values(), &[7, 8]);
        assert_eq!(visible(&carried), plain);
    }

    #[test]
    fn rows_that_were_not_asked_are_late_by_what_was_promised() {
        let raised = |batch| {
            let raised = raise_split_watermarks(batch, 7).unwrap();
            assert_eq!(visible(&raised), self::batch());
            split_watermarks(&raised).unwrap().values().to_vec()
        };
        assert_eq!(raised(batch()), [7, 7]);
        for (marks, expected) in [([3, 9], [7, 9]), ([i64::MIN, 6], [7, 7]), ([8, i64::MAX], [8, i64::MAX])] {
            let carried = with_split_watermarks(&batch(), Int64Array::from(marks.to_vec())).unwrap();
            assert_eq!(raised(carried), expected);
        }
    }

    #[test]
    fn new_columns_keep_the_old_lateness() {
        let carried = with_split_watermarks(&batch(), Int64Array::from(vec![7, 8])).unwrap();
        let schema = Arc::new(Schema::new(vec![Field::new("b", DataType::Int64, true)]));
        let made = carry_hidden(&carried, &schema, vec![Arc::new(Int64Array::from(vec![3, 4]))]).unwrap();
        assert_eq!(split_watermarks(&made).unwrap().values(), &[7, 8]);
        assert_eq!(visible(&made).schema(), schema);
    }
}
