//! Partial groups on their way from the local operator of a two-phase aggregation to the global one.
//!
//! A batch of them has the columns of a sealed batch, and behind these which slice each row is of and from which window
//! on it counts: see [`SliceKey`]. Only the process that made it reads it; nothing of it is stored.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, Result};

use super::partition::{Partition, SliceKey};

/// How many columns stand behind those of the sealed batch.
const ADDED: usize = 2;

/// The columns of partial groups whose sealed batches have those of `sealed`.
pub(super) fn partial_schema(sealed: &Schema) -> SchemaRef {
    let added = ["slice_end", "first_end"].map(|name| Arc::new(Field::new(name, DataType::Int64, false)));
    Arc::new(Schema::new(sealed.fields().iter().cloned().chain(added).collect::<Vec<_>>()))
}

/// The partial groups `sealed` of a slice.
pub(super) fn to_partials(key: SliceKey, sealed: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let value = |value: i64| Arc::new(Int64Array::from(vec![value; sealed.num_rows()])) as ArrayRef;
    let columns = sealed.columns().iter().cloned().chain([value(key.end), value(key.from)]);
    Ok(RecordBatch::try_new(schema.clone(), columns.collect())?)
}

/// The sealed batches in a batch of partial groups: one for each run of rows of one slice, not copied.
///
/// # Errors
/// `Internal`, if it has other columns.
pub(super) fn of_partials(batch: &RecordBatch) -> Result<Partition> {
    let lost = || Error::internal("partial groups came without their slice");
    let own = batch.num_columns().checked_sub(ADDED).ok_or_else(lost)?;
    let (sealed, added) = batch.columns().split_at_checked(own).ok_or_else(lost)?;
    let [ends, froms] = added else { return Err(lost()) };
    let ends = ends.as_primitive_opt::<Int64Type>().ok_or_else(lost)?.values();
    let froms = froms.as_primitive_opt::<Int64Type>().ok_or_else(lost)?.values();
    let fields: Vec<_> = batch.schema_ref().fields().iter().take(own).cloned().collect();
    let sealed = RecordBatch::try_new(Arc::new(Schema::new(fields)), sealed.to_vec())?;
    let mut found = Partition::default();
    let mut start = 0;
    let keys = || ends.iter().zip(froms.iter()).map(|(end, from)| SliceKey { end: *end, from: *from });
    for (row, (key, next)) in keys().zip(keys().skip(1).map(Some).chain([None])).enumerate() {
        if next != Some(key) {
            found.slices.push((key, sealed.slice(start, row + 1 - start)));
            start = row + 1;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use arrow::compute::concat_batches;
    use ruslo_core::error::ErrorKind;

    use super::*;

    #[test]
    fn every_run_of_a_slice_comes_back_as_it_was_sealed() {
        let sealed = |values: Vec<i64>| {
            RecordBatch::try_from_iter_with_nullable([("key0", Arc::new(Int64Array::from(values)) as ArrayRef, true)])
                .unwrap()
        };
        let schema = partial_schema(sealed(Vec::new()).schema_ref());
        let slices = [((10, 10), vec![1, 2]), ((10, 20), vec![3]), ((20, 20), vec![]), ((10, 10), vec![1, 4, 5])];
        let slices = slices.map(|((end, from), values)| (SliceKey { end, from }, sealed(values)));
        let batches = slices.iter().map(|(key, sealed)| to_partials(*key, sealed, &schema).unwrap());
        let found = of_partials(&concat_batches(&schema, &batches.collect::<Vec<_>>()).unwrap()).unwrap();
        let expected: Vec<_> = slices.into_iter().filter(|(_, sealed)| sealed.num_rows() > 0).collect();
        assert_eq!((found.slices, found.late_rows), (expected, 0));
        assert!(of_partials(&RecordBatch::new_empty(schema)).unwrap().slices.is_empty());
    }

    #[test]
    fn rows_that_are_no_partial_groups_are_our_fault() {
        let text: ArrayRef = Arc::new(arrow::array::StringArray::from(vec!["a"]));
        for columns in [vec![("a", text.clone())], vec![("a", text.clone()), ("b", text.clone()), ("c", text)]] {
            let error = of_partials(&RecordBatch::try_from_iter(columns).unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal);
        }
    }
}
