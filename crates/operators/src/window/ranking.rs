//! Which rows of a window are its first N by key, and in which order.

use std::cmp::Ordering;

use arrow::array::{ArrayRef, DynComparator, Int64Array, UInt32Array, make_comparator, new_empty_array};
use arrow::compute::{SortOptions, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::physical_expr::PhysicalSortExpr;
use ruslo_core::error::{Error, Result, ResultExt};
use ruslo_core::key_group::{KeyGroup, key_groups};

use crate::expression::{evaluate, execution_error};

/// The first `limit` rows of each key, by an order. Rows that are equal in it follow by their columns from left to
/// right, ascending, NULL first; rows that are equal in all are the same.
#[derive(Debug)]
pub(super) struct Ranking {
    /// The columns that are the key.
    keys: Vec<usize>,
    order: Vec<PhysicalSortExpr>,
    limit: usize,
    schema: SchemaRef,
    key_fields: Vec<SortField>,
    order_fields: Vec<SortField>,
}

/// The rows that are among the first, by key and rank.
pub(super) struct Ranked {
    pub(super) rows: RecordBatch,
    /// From 1.
    pub(super) ranks: Int64Array,
}

impl Ranking {
    /// Ranks rows of `schema`.
    ///
    /// # Errors
    /// `Usage`, if a column's type has no order or cannot be a key, or no row is wanted.
    pub(super) fn new(schema: SchemaRef, keys: Vec<usize>, order: Vec<PhysicalSortExpr>, limit: usize) -> Result<Self> {
        if limit == 0 {
            return Err(Error::usage("a Top-N of no rows"));
        }
        let key_types = keys.iter().map(|key| data_type(&schema, *key)).collect::<Result<Vec<_>>>()?;
        let no_rows: Vec<ArrayRef> = key_types.iter().map(new_empty_array).collect();
        key_groups(&no_rows, 0).context(|| "PARTITION BY".to_owned())?;
        let key_fields = key_types.into_iter().map(SortField::new).collect();
        let order_fields = order.iter().map(|sort| {
            let data_type = sort.expr.data_type(&schema).map_err(execution_error)?;
            Ok(SortField::new_with_options(data_type, sort.options))
        });
        let order_fields = order_fields.collect::<Result<Vec<_>>>()?;
        RowConverter::new(order_fields.clone()).map_err(Error::from).context(|| "ORDER BY".to_owned())?;
        ties(&RecordBatch::new_empty(schema.clone()))?;
        Ok(Self { keys, order, limit, schema, key_fields, order_fields })
    }

    /// The columns of the rows.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The key group of each row; rows may have columns behind their own.
    pub(super) fn key_groups(&self, rows: &RecordBatch) -> Result<Vec<KeyGroup>> {
        let keys = self.keys.iter().filter_map(|key| rows.columns().get(*key)).cloned().collect::<Vec<_>>();
        key_groups(&keys, rows.num_rows())
    }

    /// The first rows of each key among `batches`.
    pub(super) fn rank(&self, batches: &[RecordBatch]) -> Result<Ranked> {
        let rows = concat_batches(&self.schema, batches)?;
        let keys = self.keys.iter().filter_map(|key| rows.columns().get(*key)).cloned().collect::<Vec<_>>();
        let keys = encode(&self.key_fields, &keys)?;
        let order = self.order.iter().map(|sort| evaluate(&sort.expr, &rows)).collect::<Result<Vec<_>>>()?;
        let order = encode(&self.order_fields, &order)?;
        let ties = ties(&rows)?;
        let mut places: Vec<usize> = (0..rows.num_rows()).collect();
        let by_key = |a: usize, b: usize| compare(keys.as_ref(), a, b);
        places.sort_unstable_by(|a, b| {
            let ordered = by_key(*a, *b).then_with(|| compare(order.as_ref(), *a, *b));
            ordered.then_with(|| tie(&ties, *a, *b))
        });
        let (mut kept, mut ranks) = (Vec::new(), Vec::new());
        let mut before = None;
        let mut rank = 0;
        for place in places {
            let same_key = before.is_some_and(|before| by_key(before, place).is_eq());
            rank = if same_key { rank + 1 } else { 1 };
            before = Some(place);
            if rank <= self.limit {
                kept.push(place as u32);
                ranks.push(rank as i64);
            }
        }
        Ok(Ranked { rows: take_record_batch(&rows, &UInt32Array::from(kept))?, ranks: ranks.into() })
    }
}

fn data_type(schema: &Schema, column: usize) -> Result<DataType> {
    let field = schema.fields().get(column).map(|field| field.data_type().clone());
    field.ok_or_else(|| Error::internal(format!("the key column {column} of a Top-N does not exist")))
}

/// The columns in a form that compares as they do; none without columns.
pub(crate) fn encode(fields: &[SortField], columns: &[ArrayRef]) -> Result<Option<Rows>> {
    if fields.is_empty() {
        return Ok(None);
    }
    Ok(Some(RowConverter::new(fields.to_vec())?.convert_columns(columns)?))
}

pub(crate) fn compare(rows: Option<&Rows>, a: usize, b: usize) -> Ordering {
    rows.map_or(Ordering::Equal, |rows| rows.row(a).cmp(&rows.row(b)))
}

/// A comparison for each column.
pub(crate) fn ties(rows: &RecordBatch) -> Result<Vec<DynComparator>> {
    let options = SortOptions { descending: false, nulls_first: true };
    let names = rows.schema_ref().fields().iter().map(|field| field.name());
    let compared = rows.columns().iter().zip(names).map(|(column, name)| {
        make_comparator(column, column, options).map_err(|_| {
            let data_type = column.data_type();
            Error::usage(format!("rows with the column '{name}' of type {data_type} have no order; leave it out"))
        })
    });
    compared.collect()
}

pub(crate) fn tie(ties: &[DynComparator], a: usize, b: usize) -> Ordering {
    ties.iter().map(|compare| compare(a, b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}
