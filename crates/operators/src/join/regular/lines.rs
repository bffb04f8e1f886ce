//! What goes out, row by row: which row of either side, and whether it comes or goes.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use ruslo_core::changelog::{RowKind, with_row_kinds};
use ruslo_core::error::Result;
use ruslo_core::operator::{OperatorContext, Output};

use super::side::LEFT;
use super::spec::RegularJoinSpec;

/// No row: NULLs stand in its place.
pub(super) const NOBODY: u32 = u32::MAX;

/// Rows to go out, in order.
#[derive(Debug, Default)]
pub(super) struct Lines {
    own: Vec<u32>,
    other: Vec<u32>,
    adds: Vec<bool>,
}

impl Lines {
    pub(super) fn push(&mut self, own: u32, other: u32, adds: bool) {
        self.own.push(own);
        self.other.push(other);
        self.adds.push(adds);
    }

    pub(super) fn len(&self) -> usize {
        self.adds.len()
    }

    /// Gives them out: `columns` are those of the slice's side, and of the other one.
    pub(super) fn emit(
        &self,
        spec: &RegularJoinSpec,
        side: usize,
        [own, other]: [&[ArrayRef]; 2],
        ctx: &OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<()> {
        let rows_max = ctx.batch_rows.max(1);
        let parts = self.own.chunks(rows_max).zip(self.other.chunks(rows_max)).zip(self.adds.chunks(rows_max));
        for ((own_rows, other_rows), adds) in parts {
            let kinds = Int8Array::from_iter_values(adds.iter().map(|adds| kind_of(*adds).number()));
            let schemas = spec.sides.each_ref().map(|side| &side.schema);
            let is_both = spec.kind.has_pairs();
            let mut columns = Vec::new();
            for (place, schema) in schemas.into_iter().enumerate().take(if is_both { 2 } else { 1 }) {
                let (values, rows) = if place == side { (own, own_rows) } else { (other, other_rows) };
                columns.extend(taken(values, schema, rows)?);
            }
            emit(spec, columns, kinds, out)?;
        }
        Ok(())
    }
}

/// The rows of `values`, whose columns are those of `schema`; NULLs for nobody.
fn taken(values: &[ArrayRef], schema: &SchemaRef, rows: &[u32]) -> Result<Vec<ArrayRef>> {
    if rows.iter().all(|row| *row == NOBODY) {
        return Ok(schema.fields().iter().map(|field| new_null_array(field.data_type(), rows.len())).collect());
    }
    let rows: UInt32Array = rows.iter().map(|row| (*row != NOBODY).then_some(*row)).collect();
    Ok(values.iter().map(|column| take(column, &rows, None)).collect::<Result<_, _>>()?)
}

fn kind_of(adds: bool) -> RowKind {
    if adds { RowKind::Insert } else { RowKind::Delete }
}

/// Gives out rows, with their kinds where some could be taken back.
pub(super) fn emit(spec: &RegularJoinSpec, columns: Vec<ArrayRef>, kinds: Int8Array, out: &mut Output) -> Result<()> {
    let options = RecordBatchOptions::new().with_row_count(Some(kinds.len()));
    let rows = RecordBatch::try_new_with_options(Arc::clone(&spec.schema), columns, &options)?;
    out.emit(if spec.is_append_only { rows } else { with_row_kinds(&rows, kinds)? });
    Ok(())
}

/// The kinds of `rows` rows that all come, or all go.
pub(super) fn kinds(adds: bool, rows: usize) -> Int8Array {
    Int8Array::from_value(kind_of(adds).number(), rows)
}

/// Gives out rows of `side` alone: beside NULLs, or as they are.
pub(super) fn emit_alone(
    spec: &RegularJoinSpec,
    side: usize,
    rows: &RecordBatch,
    kinds: &Int8Array,
    ctx: &OperatorContext<'_>,
    out: &mut Output,
) -> Result<()> {
    let rows_max = ctx.batch_rows.max(1);
    for first in (0..rows.num_rows()).step_by(rows_max) {
        let count = rows_max.min(rows.num_rows() - first);
        let part = rows.slice(first, count);
        let mut columns = part.columns().to_vec();
        if let Some(other) = spec.sides.get(1 - side).filter(|_| spec.kind.has_pairs()) {
            let nulls = other.schema.fields().iter().map(|field| new_null_array(field.data_type(), count));
            columns =
                if side == LEFT { columns.into_iter().chain(nulls).collect() } else { nulls.chain(columns).collect() };
        }
        emit(spec, columns, kinds.slice(first, count), out)?;
    }
    Ok(())
}
