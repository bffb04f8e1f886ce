//! The last state of rows that change: kept while the input goes on, and given out once, when it has ended.
//!
//! By a key, the last row of each: a later one takes its place, and what takes away removes it. Without a key, how often
//! each row is there. Where the input is drained, what is left goes out key group by key group, and leaves the state as
//! it goes: so a checkpoint in the middle, and a restore from it, neither lose nor repeat a row.
//!
//! ```text
//! changes ─▶ table "last_rows" or "last_counts"  ─ end of the input ─▶ rows
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array, new_empty_array};
use arrow::compute::{filter_record_batch, take_arrays};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{RowConverter, SortField};
use ruslo_core::changelog::{adds, row_kinds};
use ruslo_core::element::EndReason;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::{KeyGroup, hash_rows};
use ruslo_core::keyed::TableSchema;
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::schema::visible;

use crate::StateTable;

/// The last row of each key. Stored in checkpoints.
const ROWS: &str = "last_rows";
/// How often each row is there. Stored in checkpoints.
const COUNTS: &str = "last_counts";

/// Which rows are kept by what; cheap to clone.
#[derive(Debug, Clone)]
pub struct LastRowsSpec {
    schema: SchemaRef,
    /// The columns of the table's key: all, if none were asked for.
    keys: Arc<[usize]>,
    name: &'static str,
    table: Arc<TableSchema>,
}

impl LastRowsSpec {
    /// Of rows of `schema` the last of each value of the columns `keys`; without any, every row as often as it is there.
    ///
    /// # Errors
    /// `Usage`, if a column's type cannot be a key; `Internal`, if a column does not exist.
    pub fn new(schema: &Schema, keys: Vec<usize>) -> Result<Self> {
        let is_counted = keys.is_empty();
        let keys = if is_counted { (0..schema.fields().len()).collect() } else { keys };
        let field = |(name, column): (String, usize)| {
            let of = schema.fields().get(column).ok_or_else(|| Error::internal("a key that does not exist"))?;
            Ok(Arc::new(Field::new(name, of.data_type().clone(), true)))
        };
        let named = keys.iter().enumerate().map(|(n, column)| (format!("key{n}"), *column));
        let key_fields = named.map(field).collect::<Result<Vec<_>>>()?;
        let empty: Vec<ArrayRef> = key_fields.iter().map(|field| new_empty_array(field.data_type())).collect();
        hash_rows(&empty, 0)?;
        let (name, values) = match is_counted {
            true => (COUNTS, vec![Arc::new(Field::new("count", DataType::Int64, true))]),
            false => {
                let rest = (0..schema.fields().len()).filter(|column| !keys.contains(column));
                let rest = rest.enumerate().map(|(n, column)| (format!("column{n}"), column));
                (ROWS, rest.map(field).collect::<Result<Vec<_>>>()?)
            }
        };
        let table = Arc::new(TableSchema::value(key_fields, values));
        Ok(Self { schema: Arc::new(schema.clone()), keys: keys.into(), name, table })
    }

    /// The columns that come out: those that come in.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The state tables whose columns follow from this spec.
    pub fn state_tables(&self) -> Vec<StateTable> {
        vec![(self.name, self.table.rows())]
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(LastRows { spec: self.clone(), leaving: None }))
    }

    fn is_counted(&self) -> bool {
        self.name == COUNTS
    }

    fn columns(&self, rows: &RecordBatch, are_keys: bool) -> Vec<ArrayRef> {
        let columns = rows.columns().iter().enumerate();
        let of_key = |column: usize| self.keys.iter().position(|key| *key == column);
        match are_keys {
            true => self.keys.iter().filter_map(|key| rows.columns().get(*key)).cloned().collect(),
            false => columns.filter(|(n, _)| of_key(*n).is_none()).map(|(_, column)| column.clone()).collect(),
        }
    }

    /// A row's columns from those of its key and the others.
    fn row(&self, keys: &[ArrayRef], others: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
        let mut others = others.iter();
        let columns = (0..self.schema.fields().len()).map(|column| {
            let place = self.keys.iter().position(|key| *key == column);
            let found = place.map_or_else(|| others.next(), |place| keys.get(place));
            found.cloned().ok_or_else(|| Error::internal("a kept row lost a column"))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(self.schema(), columns, &options)?)
    }
}

struct LastRows {
    spec: LastRowsSpec,
    /// What goes out, once the input has ended.
    leaving: Option<Leaving>,
}

/// How far the rows have left.
struct Leaving {
    /// The key group that comes next.
    next: KeyGroup,
    /// The keys of the one that leaves, and how many of them are gone.
    keys: Vec<ArrayRef>,
    gone: usize,
}

impl Leaving {
    fn left(&self) -> usize {
        self.keys.first().map_or(0, |column| column.len()) - self.gone
    }

    fn piece(&self, rows_max: usize) -> Vec<ArrayRef> {
        let length = self.left().min(rows_max.max(1));
        self.keys.iter().map(|column| column.slice(self.gone, length)).collect()
    }
}

impl LastRows {
    /// Notes the last of the changes of each key.
    fn note_last(&self, rows: &RecordBatch, there: &BooleanArray, ctx: &mut OperatorContext<'_>) -> Result<()> {
        let last = last_of_each(&self.spec.columns(rows, true), rows.num_rows())?;
        let take_rows = |wanted: bool| {
            let chosen = last.iter().zip(there).map(|(last, there)| *last && there == Some(wanted));
            Ok::<_, Error>(filter_record_batch(rows, &chosen.map(Some).collect::<BooleanArray>())?)
        };
        let (put, gone) = (take_rows(true)?, take_rows(false)?);
        let table = ctx.state.keyed(self.spec.name, &self.spec.table)?;
        if gone.num_rows() > 0 {
            table.remove(&self.spec.columns(&gone, true))?;
        }
        if put.num_rows() > 0 {
            table.upsert(&self.spec.columns(&put, true), &self.spec.columns(&put, false))?;
        }
        Ok(())
    }

    /// Counts rows that come and go; those that are not there any more are forgotten.
    fn count(&self, rows: &RecordBatch, there: &BooleanArray, ctx: &mut OperatorContext<'_>) -> Result<()> {
        let table = ctx.state.keyed(self.spec.name, &self.spec.table)?;
        let keys = self.spec.columns(rows, true);
        let deltas = Int64Array::from_iter_values(there.iter().map(|there| if there == Some(true) { 1 } else { -1 }));
        table.add(&keys, 0, &deltas)?;
        if deltas.values().iter().all(|delta| *delta > 0) {
            return Ok(());
        }
        let counts = table.get(&keys)?.columns;
        let counts = counts.first().ok_or_else(no_count)?.as_primitive::<Int64Type>();
        let is_gone: BooleanArray = counts.iter().map(|count| Some(count == Some(0))).collect();
        let gone = keys.iter().map(|key| Ok(arrow::compute::filter(key, &is_gone)?)).collect::<Result<Vec<_>>>()?;
        if is_gone.true_count() > 0 { table.remove(&gone) } else { Ok(()) }
    }

    /// Gives out a piece of what is left.
    fn leave(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        let Some(mut leaving) = self.leaving.take() else { return Ok(Progress::Done) };
        while leaving.left() == 0 {
            if leaving.next >= ctx.subtask.key_groups().end {
                ctx.memory.hold(0);
                return Ok(Progress::Done);
            }
            leaving.keys = ctx.state.keyed(self.spec.name, &self.spec.table)?.keys(leaving.next)?;
            leaving.gone = 0;
            leaving.next += 1;
            let bytes: usize = leaving.keys.iter().map(|column| column.get_array_memory_size()).sum();
            ctx.memory.hold(bytes as u64);
        }
        let keys = leaving.piece(ctx.batch_rows);
        leaving.gone += match self.spec.is_counted() {
            true => self.leave_counted(&keys, ctx, out)?,
            false => self.leave_last(&keys, ctx, out)?,
        };
        self.leaving = Some(leaving);
        Ok(Progress::More)
    }

    fn leave_last(&self, keys: &[ArrayRef], ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<usize> {
        let rows = keys.first().map_or(0, |column| column.len());
        let table = ctx.state.keyed(self.spec.name, &self.spec.table)?;
        let others = table.get(keys)?.columns;
        out.emit(self.spec.row(keys, &others, rows)?);
        table.remove(keys)?;
        Ok(rows)
    }

    /// Gives out rows as often as they are there, a batch at most; how many keys are gone after it.
    fn leave_counted(&self, keys: &[ArrayRef], ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<usize> {
        let table = ctx.state.keyed(self.spec.name, &self.spec.table)?;
        let counts = table.get(keys)?.columns;
        let counts = counts.first().ok_or_else(no_count)?.as_primitive::<Int64Type>();
        let (mut room, mut gone, mut given) = (ctx.batch_rows.max(1), 0, 0);
        let mut places = Vec::new();
        for (place, count) in (0u32..).zip(counts.iter()) {
            let count = usize::try_from(count.unwrap_or_default()).unwrap_or_default();
            let now = count.min(room);
            places.extend(std::iter::repeat_n(place, now));
            room -= now;
            if now < count {
                given = now as i64;
                break;
            }
            gone += 1;
        }
        let rows = take_arrays(keys, &UInt32Array::from(places.clone()), None)?;
        out.emit(self.spec.row(&rows, &[], places.len())?);
        let part = |from, length| keys.iter().map(|key| key.slice(from, length)).collect::<Vec<_>>();
        if gone > 0 {
            table.remove(&part(0, gone))?;
        }
        if given > 0 {
            table.add(&part(gone, 1), 0, &Int64Array::from(vec![-given]))?;
        }
        Ok(gone)
    }
}

/// Which rows are the last of their key.
fn last_of_each(keys: &[ArrayRef], rows: usize) -> Result<Vec<bool>> {
    let converter = RowConverter::new(keys.iter().map(|key| SortField::new(key.data_type().clone())).collect())?;
    let keys = converter.convert_columns(keys)?;
    let mut last: HashMap<&[u8], usize> = HashMap::with_capacity(rows);
    let places = keys.iter().map(|key| key.data());
    last.extend(places.enumerate().map(|(row, key)| (key, row)));
    let mut is_last = vec![false; rows];
    last.into_values().for_each(|row| is_last.get_mut(row).into_iter().for_each(|last| *last = true));
    Ok(is_last)
}

fn no_count() -> Error {
    Error::internal("a counted row has no count")
}

impl Operator for LastRows {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        ctx.state.keyed(self.spec.name, &self.spec.table).map(drop)
    }

    fn on_batch(
        &mut self,
        _input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        _out: &mut Output,
    ) -> Result<Progress> {
        let there = match row_kinds(&batch) {
            None => BooleanArray::from(vec![true; batch.num_rows()]),
            Some(kinds) => kinds.values().iter().map(|kind| Some(adds(*kind))).collect(),
        };
        let rows = visible(&batch);
        match self.spec.is_counted() {
            true => self.count(&rows, &there, ctx)?,
            false => self.note_last(&rows, &there, ctx)?,
        }
        Ok(Progress::Done)
    }

    fn resume(&mut self, ctx: &mut OperatorContext<'_>, out: &mut Output) -> Result<Progress> {
        self.leave(ctx, out)
    }

    fn on_end(
        &mut self,
        _input: InputId,
        reason: EndReason,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        if reason != EndReason::Drain {
            return Ok(Progress::Done);
        }
        self.leaving = Some(Leaving { next: ctx.subtask.key_groups().start, keys: Vec::new(), gone: 0 });
        self.leave(ctx, out)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ruslo_core::changelog::with_row_kinds;
    use ruslo_core::rng::Rng;

    use super::*;
    use crate::testing::{Manners, Subtasks};

    /// Key, value and kind.
    type Change = (Option<i64>, i64, i8);

    fn batch(changes: &[Change]) -> RecordBatch {
        let keys: ArrayRef = Arc::new(changes.iter().map(|change| change.0).collect::<Int64Array>());
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(changes.iter().map(|change| change.1)));
        let rows = RecordBatch::try_from_iter_with_nullable([("v", values, true), ("k", keys, true)]).unwrap();
        with_row_kinds(&rows, changes.iter().map(|change| Some(change.2)).collect()).unwrap()
    }

    fn found(batches: &[RecordBatch]) -> Vec<(Option<i64>, i64)> {
        let of = |batch: &RecordBatch| {
            assert_eq!(batch.num_columns(), 2, "no kinds");
            let keys = batch.column(1).as_primitive::<Int64Type>();
            let values = batch.column(0).as_primitive::<Int64Type>().values();
            keys.iter().zip(values.to_vec()).collect::<Vec<_>>()
        };
        let mut rows: Vec<_> = batches.iter().flat_map(of).collect();
        rows.sort_unstable();
        rows
    }

    fn subtasks(seed: u64, keys: Vec<usize>) -> Subtasks {
        let manners = Manners {
            batch_rows: [1, 7, 1024][seed as usize % 3],
            parallelism_max: 4,
            short_of_memory: true,
            always_resumed: true,
        };
        let schema = visible(&batch(&[])).schema();
        let factory = LastRowsSpec::new(&schema, keys).unwrap().factory();
        Subtasks::new(factory, manners, Rng::seeded(seed + 1000)).unwrap()
    }

    /// Changes of a table of keys, told with and without what was before.
    #[test]
    fn by_a_key_its_last_row_is_left() {
        for seed in 0..30 {
            let mut rng = Rng::seeded(seed);
            let mut table: BTreeMap<Option<i64>, i64> = BTreeMap::new();
            let mut subtasks = subtasks(seed, vec![1]);
            for _ in 0..20 {
                let mut changes: Vec<Change> = Vec::new();
                for _ in 0..1 + rng.below(60) {
                    let key = Some(rng.below(300) as i64).filter(|key| *key > 0);
                    let (old, new) = (table.get(&key).copied(), rng.below(5) as i64);
                    match old {
                        None => changes.push((key, new, 0)),
                        Some(old) if rng.one_in(3) => changes.push((key, old, 3)),
                        Some(old) => {
                            changes.extend(rng.one_in(2).then_some((key, old, 1)));
                            changes.push((key, new, 2));
                        }
                    }
                    match changes.last() {
                        Some((_, _, 3)) => drop(table.remove(&key)),
                        _ => drop(table.insert(key, new)),
                    }
                }
                let rows = batch(&changes);
                subtasks.send(&rows, &[Arc::clone(rows.column(1))]).unwrap();
            }
            assert!(subtasks.take().is_empty(), "nothing comes before the end");
            subtasks.end().unwrap();
            let (made, _) = subtasks.finish().unwrap();
            assert_eq!(found(&made), table.into_iter().collect::<Vec<_>>(), "seed {seed}");
        }
    }

    #[test]
    fn without_a_key_rows_are_left_as_often_as_they_are_there() {
        for seed in 0..30 {
            let mut rng = Rng::seeded(seed);
            let mut rows: Vec<(Option<i64>, i64)> = Vec::new();
            let mut subtasks = subtasks(seed, Vec::new());
            for _ in 0..20 {
                let mut changes: Vec<Change> = Vec::new();
                for _ in 0..1 + rng.below(60) {
                    if rng.one_in(3) && !rows.is_empty() {
                        let (key, value) = rows.swap_remove(rng.below(rows.len()));
                        changes.push((key, value, [1, 3][rng.below(2)]));
                    } else {
                        let row = (Some(rng.below(9) as i64).filter(|key| *key > 0), rng.below(5) as i64);
                        rows.push(row);
                        changes.push((row.0, row.1, [0, 2][rng.below(2)]));
                    }
                }
                let batch = batch(&changes);
                subtasks.send(&batch, &[Arc::clone(batch.column(0)), Arc::clone(batch.column(1))]).unwrap();
            }
            subtasks.end().unwrap();
            let (made, _) = subtasks.finish().unwrap();
            rows.sort_unstable();
            assert_eq!(found(&made), rows, "seed {seed}");
        }
    }

    #[test]
    fn a_type_that_cannot_be_a_key_is_refused() {
        let list = Field::new("l", DataType::new_list(DataType::Int64, true), true);
        let schema = Schema::new(vec![Field::new("k", DataType::Int64, true), list]);
        assert!(LastRowsSpec::new(&schema, Vec::new()).is_err());
        let spec = LastRowsSpec::new(&schema, vec![0]).unwrap();
        assert_eq!(spec.state_tables().pop().unwrap().1.fields().len(), 2);
    }
}
