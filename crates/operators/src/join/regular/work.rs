//! Rows that came in and are not joined yet, in order; and how a checkpoint has them.
//!
//! Of one batch the rows that go come before those that come: what a batch adds and takes away again is left out. So rows
//! in work are stretches of one direction, within which order does not matter.
//!
//! A checkpoint has the rest of a side's rows in its bucket 0 of a bucket table, by the key group of the join key:
//! `adds`, `is_hot`, `up_to`, `copies`, `partners`, then the row as `column0`, ..

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array, UInt64Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt64Type};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{RowConverter, SortField};
use ruslo_core::changelog::{adds, row_kinds};
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::key_groups;
use ruslo_core::memory::batch_bytes;
use ruslo_core::state::OperatorState;

use super::hot::{Done, Hot};
use super::side::Side;

/// Rows of one side, all of which come or all of which go.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) side: usize,
    pub(super) adds: bool,
    pub(super) rows: RecordBatch,
    /// The first of them, if it has very many partners.
    pub(super) hot: Option<Hot>,
}

impl Work {
    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        batch_bytes(&self.rows) + self.hot.as_ref().map_or(0, Hot::bytes)
    }

    /// Leaves the first `rows` out.
    pub(super) fn advance(&mut self, rows: usize) {
        let rows = rows.min(self.rows.num_rows());
        self.rows = self.rows.slice(rows, self.rows.num_rows() - rows);
        self.hot = None;
    }
}

/// The stretches of `rows`, the visible columns of `batch`, of which `kept` are taken.
pub(super) fn stretches(side: usize, rows: RecordBatch, kinds: Option<Vec<bool>>) -> Result<Vec<Work>> {
    let of = |adds, rows| Work { side, adds, rows, hot: None };
    let Some(kinds) = kinds else { return Ok(vec![of(true, rows)]) };
    let parts = match folded(&rows, &kinds)? {
        Some([gone, come]) => vec![(false, take_record_batch(&rows, &gone)?), (true, take_record_batch(&rows, &come)?)],
        None => in_order(&rows, &kinds),
    };
    Ok(parts.into_iter().filter(|(_, rows)| rows.num_rows() > 0).map(|(adds, rows)| of(adds, rows)).collect())
}

/// Whether each row of `batch` comes; none, if all do.
pub(super) fn directions(batch: &RecordBatch) -> Option<Vec<bool>> {
    let kinds = row_kinds(batch)?;
    let directions: Vec<bool> = kinds.values().iter().map(|kind| adds(*kind)).collect();
    directions.contains(&false).then_some(directions)
}

/// Rows that go, and rows that come, without those that come and go; `None`, if rows cannot be compared.
fn folded(rows: &RecordBatch, adds: &[bool]) -> Result<Option<[UInt32Array; 2]>> {
    if !adds.contains(&true) {
        return Ok(None);
    }
    let fields: Vec<SortField> =
        rows.schema_ref().fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    if fields.is_empty() || !RowConverter::supports_fields(&fields) {
        return Ok(None);
    }
    let encoded = RowConverter::new(fields)?.convert_columns(rows.columns())?;
    const NONE: u32 = u32::MAX;
    // The last row of each content that came and is there still, and the one before each.
    let mut open = HashMap::with_capacity(adds.len());
    let mut before = vec![NONE; adds.len()];
    let mut stays = vec![true; adds.len()];
    for ((row, adds), content) in (0u32..).zip(adds).zip(encoded.iter()) {
        let last = open.get(&content).copied().unwrap_or(NONE);
        if *adds {
            before.get_mut(row as usize).into_iter().for_each(|before| *before = last);
            open.insert(content, row);
        } else if last != NONE {
            for row in [row, last] {
                stays.get_mut(row as usize).into_iter().for_each(|stays| *stays = false);
            }
            open.insert(content, before.get(last as usize).copied().unwrap_or(NONE));
        }
    }
    let of = |wanted: bool| {
        let rows = (0u32..).zip(adds).zip(&stays).filter(|((_, adds), stays)| **adds == wanted && **stays);
        UInt32Array::from_iter_values(rows.map(|((row, _), _)| row))
    };
    Ok(Some([of(false), of(true)]))
}

/// The rows as they come, cut where their direction changes.
fn in_order(rows: &RecordBatch, adds: &[bool]) -> Vec<(bool, RecordBatch)> {
    let mut first = 0;
    let stretches = adds.chunk_by(|one, next| one == next).map(|stretch| {
        let part = rows.slice(first, stretch.len());
        first += stretch.len();
        (stretch.first().copied().unwrap_or(true), part)
    });
    stretches.collect()
}

const OWN_COLUMNS: usize = 5;

/// Puts the rest of `works` into state, in the place of what is there of `side`.
pub(super) fn store(side: &Side, works: &[&Work], state: &mut dyn OperatorState) -> Result<()> {
    state.buckets(side.rest).expire(0);
    let mut groups = Vec::new();
    let mut rests = Vec::with_capacity(works.len());
    for work in works {
        groups.extend(key_groups(&side.keys_of(&work.rows), work.rows.num_rows())?);
        rests.push(encode(work)?);
    }
    let Some(first) = rests.first() else { return Ok(()) };
    // What is written in one call stays in order.
    state.buckets(side.rest).append(0, &groups, &concat_batches(&first.schema(), &rests)?)
}

fn encode(work: &Work) -> Result<RecordBatch> {
    let rows = work.rows.num_rows();
    let done = work.hot.as_ref().map(|hot| hot.done);
    let of_first = |row: usize| done.filter(|_| row == 0);
    let each = 0..rows;
    let own: [ArrayRef; OWN_COLUMNS] = [
        Arc::new(BooleanArray::from(vec![work.adds; rows])),
        Arc::new(each.clone().map(|row| Some(of_first(row).is_some())).collect::<BooleanArray>()),
        Arc::new(each.clone().map(|row| of_first(row).and_then(|done| done.up_to)).collect::<UInt64Array>()),
        Arc::new(each.clone().map(|row| of_first(row).map(|done| done.copies)).collect::<UInt64Array>()),
        Arc::new(each.map(|row| of_first(row).map(|done| done.partners)).collect::<Int64Array>()),
    ];
    let names = ["adds", "is_hot", "up_to", "copies", "partners"];
    let types = [DataType::Boolean, DataType::Boolean, DataType::UInt64, DataType::UInt64, DataType::Int64];
    let own_fields = names.into_iter().zip(types).map(|(name, data_type)| Field::new(name, data_type, true));
    let fields = work.rows.schema_ref().fields().iter().enumerate();
    let fields = fields.map(|(n, field)| field.as_ref().clone().with_name(format!("column{n}")).with_nullable(true));
    let schema = Schema::new(own_fields.chain(fields).collect::<Vec<_>>());
    let columns = own.into_iter().chain(work.rows.columns().iter().cloned()).collect();
    Ok(RecordBatch::try_new(Arc::new(schema), columns)?)
}

/// What a checkpoint has of the rest of `side`, the input `input`.
pub(super) fn restore(side: &Side, input: usize, state: &mut dyn OperatorState) -> Result<VecDeque<Work>> {
    let mut works = VecDeque::new();
    for stored in state.buckets(side.rest).scan(0)? {
        let columns = stored.columns().get(OWN_COLUMNS..).unwrap_or_default().to_vec();
        let options = RecordBatchOptions::new().with_row_count(Some(stored.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&side.schema), columns, &options)?;
        let [adds, is_hot] =
            [0, 1].map(|column| stored.columns().get(column).and_then(|column| column.as_boolean_opt()));
        let (Some(adds), Some(is_hot)) = (adds, is_hot) else {
            return Err(Error::corrupt(format!("'{}' has other columns than a join's rest", side.rest)));
        };
        let directions: Vec<(bool, bool)> = adds.values().iter().zip(is_hot.values().iter()).collect();
        let mut first = 0;
        // A row that was begun is a stretch of its own.
        for stretch in directions.chunk_by(|one, next| one.0 == next.0 && !one.1 && !next.1) {
            let (adds, is_hot) = stretch.first().copied().unwrap_or_default();
            let hot = if is_hot { Some(Hot::at(done_of(&stored, first))) } else { None };
            works.push_back(Work { side: input, adds, rows: rows.slice(first, stretch.len()), hot });
            first += stretch.len();
        }
    }
    Ok(works)
}

fn done_of(stored: &RecordBatch, row: usize) -> Done {
    let unsigned = |column: usize| {
        let column = stored.columns().get(column)?.as_primitive_opt::<UInt64Type>()?;
        column.iter().nth(row).flatten()
    };
    let signed = |column: usize| {
        let column = stored.columns().get(column)?.as_primitive_opt::<Int64Type>()?;
        column.iter().nth(row).flatten()
    };
    Done { up_to: unsigned(2), copies: unsigned(3).unwrap_or(0), partners: signed(4).unwrap_or(0) }
}
