//! Rows by a key that is not theirs: of several rows of one key the one that came last stands for it.
//!
//! Changes of different rows that have one key in the sink may come in any order: the new one before the old one goes. So
//! all rows of a key are kept, in the order in which they came. What goes out says what the last of them is; when it goes,
//! the one before it takes its place. Of a key are read its last row, one more for each row that goes, and those that go.
//!
//! ```text
//! changes ─▶ table "upsert_rows": key → rows, in order ─▶ changes by key, without what was before
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int8Array, UInt32Array, new_empty_array};
use arrow::compute::{concat_batches, take_arrays, take_record_batch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{RowConverter, SortField};
use ruslo_core::changelog::{RowKind, adds, row_kinds, with_row_kinds};
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::hash_rows;
use ruslo_core::keyed::{End, KeyedTable, TableSchema};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::schema::visible;

use crate::StateTable;

/// The rows of each key. Stored in checkpoints.
const ROWS: &str = "upsert_rows";

/// Which rows are kept by what; cheap to clone.
#[derive(Debug, Clone)]
pub struct UpsertMaterializeSpec {
    schema: SchemaRef,
    keys: Arc<[usize]>,
    table: Arc<TableSchema>,
}

impl UpsertMaterializeSpec {
    /// Of rows of `schema`, which come with what was before each change, the last of each value of the columns `keys`.
    ///
    /// # Errors
    /// `Usage`, if a column's type cannot be a key; `Internal`, if a column does not exist.
    pub fn new(schema: &Schema, keys: Vec<usize>) -> Result<Self> {
        let field = |(name, column): (String, usize)| {
            let of = schema.fields().get(column).ok_or_else(|| Error::internal("a key that does not exist"))?;
            Ok(Arc::new(Field::new(name, of.data_type().clone(), true)))
        };
        let key_names = keys.iter().enumerate().map(|(n, column)| (format!("key{n}"), *column));
        let key_fields = key_names.map(field).collect::<Result<Vec<_>>>()?;
        let empty: Vec<ArrayRef> = key_fields.iter().map(|field| new_empty_array(field.data_type())).collect();
        hash_rows(&empty, 0)?;
        let names = (0..schema.fields().len()).map(|column| (format!("column{column}"), column));
        let table = TableSchema::list(key_fields, names.map(field).collect::<Result<Vec<_>>>()?).found_by_value();
        Ok(Self { schema: Arc::new(schema.clone()), keys: keys.into(), table: Arc::new(table) })
    }

    /// The columns that come out: those that come in.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The state tables whose columns follow from this spec.
    pub fn state_tables(&self) -> Vec<StateTable> {
        vec![(ROWS, self.table.rows())]
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(UpsertMaterialize { spec: self.clone() }))
    }

    fn keys_of(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.keys.iter().filter_map(|key| rows.columns().get(*key)).cloned().collect()
    }
}

struct UpsertMaterialize {
    spec: UpsertMaterializeSpec,
}

/// What a batch does, apart from the table.
struct Batch {
    /// The key of each row.
    key_of: Vec<usize>,
    /// The first row of each key.
    firsts: Vec<u32>,
    /// Rows that came and have not gone again, in order.
    came: Vec<u32>,
    /// Rows that go and have not come in the batch before.
    gone: Vec<u32>,
}

/// The rows that a batch is about: first those of the table that may count, then the batch's own.
struct Known {
    rows: RecordBatch,
    /// The last row of each key before the batch, and after it.
    before: Vec<Option<u32>>,
    after: Vec<Option<u32>>,
}

impl Batch {
    /// Applies changes to each other, in their order.
    fn new(keys: &[ArrayRef], rows: &RecordBatch, kinds: Option<&Int8Array>) -> Result<Self> {
        let (key_of, firsts) = distinct(keys, rows.num_rows())?;
        let Some(kinds) = kinds else {
            return Ok(Self { key_of, firsts, came: (0..rows.num_rows() as u32).collect(), gone: Vec::new() });
        };
        let fields = rows.columns().iter().map(|column| SortField::new(column.data_type().clone())).collect();
        let texts = RowConverter::new(fields)?.convert_columns(rows.columns())?;
        let mut open: HashMap<_, Vec<u32>> = HashMap::new();
        let (mut stays, mut gone) = (vec![false; rows.num_rows()], Vec::new());
        for ((row, kind), text) in (0u32..).zip(kinds.values()).zip(texts.iter()) {
            let of_text = open.entry(text).or_default();
            let changed = if adds(*kind) { Some(row) } else { of_text.pop() };
            match changed {
                Some(changed) => stays.get_mut(changed as usize).into_iter().for_each(|stays| *stays = adds(*kind)),
                None => gone.push(row),
            }
            if adds(*kind) {
                of_text.push(row);
            }
        }
        let came = (0u32..).zip(&stays).filter(|(_, stays)| **stays).map(|(row, _)| row).collect();
        Ok(Self { key_of, firsts, came, gone })
    }

    fn key(&self, row: u32) -> usize {
        self.key_of.get(row as usize).copied().unwrap_or_default()
    }

    /// How many of the last rows of each key may count: one, and as many as go.
    fn rows_needed(&self) -> Vec<u32> {
        let mut needed = vec![1u32; self.firsts.len()];
        let gone = self.gone.iter().map(|row| self.key(*row));
        gone.for_each(|key| needed.get_mut(key).into_iter().for_each(|needed| *needed = needed.saturating_add(1)));
        needed
    }
}

/// So many times rows are looked up again that have left memory meanwhile.
const LOADS_MAX: usize = 8;

impl UpsertMaterialize {
    /// Writes what `batch` does to `rows`' keys. What is known of them then.
    fn apply(&self, rows: &RecordBatch, batch: &Batch, table: &mut dyn KeyedTable) -> Result<Known> {
        let keys = take_arrays(&self.spec.keys_of(rows), &UInt32Array::from(batch.firsts.clone()), None)?;
        let gone = take_record_batch(rows, &UInt32Array::from(batch.gone.clone()))?;
        let (keys_of_gone, gone) = (self.spec.keys_of(&gone), gone.columns().to_vec());
        let needed = batch.rows_needed();
        // Those of all keys first: what is gone is among them.
        let mut last = table.ends(&keys, End::Last, &needed)?;
        let mut gone_rows = table.load_equal(&keys_of_gone, &gone)?;
        for _ in 0..LOADS_MAX {
            if gone_rows.generation() == last.rows.generation() {
                break;
            }
            last = table.ends(&keys, End::Last, &needed)?;
            if gone_rows.generation() != last.rows.generation() {
                gone_rows = table.load_equal(&keys_of_gone, &gone)?;
            }
        }
        let gone = gone_rows;
        if gone.generation() != last.rows.generation() {
            return Err(Error::resource("rows of a key push each other out of memory"));
        }
        // The sequence number stands in front.
        let columns: Vec<ArrayRef> = last.columns.iter().skip(1).cloned().collect();
        let options = RecordBatchOptions::new().with_row_count(Some(last.requests.len()));
        let stored = RecordBatch::try_new_with_options(self.spec.schema(), columns, &options)?;
        let left: HashSet<u32> = gone.slots().iter().copied().collect();
        let (mut before, mut after) = (vec![None; batch.firsts.len()], vec![None; batch.firsts.len()]);
        for ((place, key), slot) in (0u32..).zip(last.requests.values()).zip(last.rows.slots()) {
            // The last one comes first.
            before.get_mut(*key as usize).into_iter().for_each(|before| *before = before.or(Some(place)));
            let stays = after.get_mut(*key as usize).filter(|_| !left.contains(slot));
            stays.into_iter().for_each(|after| *after = after.or(Some(place)));
        }
        for row in &batch.came {
            let place = stored.num_rows() as u32 + row;
            after.get_mut(batch.key(*row)).into_iter().for_each(|after| *after = Some(place));
        }
        table.remove_rows(&gone)?;
        if !batch.came.is_empty() {
            let came = take_record_batch(rows, &UInt32Array::from(batch.came.clone()))?;
            table.append(&self.spec.keys_of(&came), came.columns())?;
        }
        Ok(Known { rows: concat_batches(&self.spec.schema, [&stored, rows])?, before, after })
    }
}

impl Known {
    /// What has become of each key.
    fn changes(&self) -> Result<RecordBatch> {
        let (mut rows, mut kinds) = (Vec::new(), Vec::new());
        for (before, after) in self.before.iter().zip(&self.after) {
            let (row, kind) = match (*before, *after) {
                (None, Some(new)) => (new, RowKind::Insert),
                (Some(old), Some(new)) if old != new => (new, RowKind::UpdateAfter),
                (Some(old), None) => (old, RowKind::Delete),
                _ => continue,
            };
            rows.push(row);
            kinds.push(kind.number());
        }
        with_row_kinds(&take_record_batch(&self.rows, &UInt32Array::from(rows))?, kinds.into())
    }
}

/// The number of each row's key, and the first row of each key.
fn distinct(keys: &[ArrayRef], rows: usize) -> Result<(Vec<usize>, Vec<u32>)> {
    let converter = RowConverter::new(keys.iter().map(|key| SortField::new(key.data_type().clone())).collect())?;
    let texts = converter.convert_columns(keys)?;
    let (mut numbers, mut firsts) = (HashMap::with_capacity(rows), Vec::new());
    let mut number_of = |(row, text): (u32, arrow::row::Row<'_>)| {
        let next = firsts.len();
        let number = *numbers.entry(text.data().to_vec()).or_insert(next);
        if number == next {
            firsts.push(row);
        }
        number
    };
    let numbers = (0u32..).zip(texts.iter()).map(&mut number_of).collect();
    Ok((numbers, firsts))
}

impl Operator for UpsertMaterialize {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        ctx.state.keyed(ROWS, &self.spec.table).map(drop)
    }

    fn on_batch(
        &mut self,
        _input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let batch_rows = ctx.batch_rows.max(1);
        let table = ctx.state.keyed(ROWS, &self.spec.table)?;
        let rows = visible(&batch);
        let changes = Batch::new(&self.spec.keys_of(&rows), &rows, row_kinds(&batch))?;
        let made = self.apply(&rows, &changes, table)?.changes()?;
        for from in (0..made.num_rows()).step_by(batch_rows) {
            out.emit(made.slice(from, batch_rows.min(made.num_rows() - from)));
        }
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use ruslo_core::rng::Rng;

    use super::*;
    use crate::testing::{Manners, Subtasks, TestContext, run_batch};

    /// Key, value and kind.
    type Change = (i64, i64, i8);

    fn batch(changes: &[Change]) -> RecordBatch {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(changes.iter().map(|change| change.0)));
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(changes.iter().map(|change| change.1)));
        let rows = RecordBatch::try_from_iter_with_nullable([("k", keys, true), ("v", values, true)]).unwrap();
        with_row_kinds(&rows, changes.iter().map(|change| Some(change.2)).collect()).unwrap()
    }

    fn found(batches: &[RecordBatch]) -> Vec<Change> {
        let of = |batch: &RecordBatch| {
            let column = |n: usize| batch.column(n).as_primitive::<Int64Type>().values().to_vec();
            let kinds = row_kinds(batch).unwrap().values().to_vec();
            let rows = column(0).into_iter().zip(column(1)).zip(kinds);
            rows.map(|((key, value), kind)| (key, value, kind)).collect::<Vec<_>>()
        };
        batches.iter().flat_map(of).collect()
    }

    fn spec() -> UpsertMaterializeSpec {
        UpsertMaterializeSpec::new(&visible(&batch(&[])).schema(), vec![0]).unwrap()
    }

    #[test]
    fn the_last_row_stands_and_the_one_before_comes_back() {
        let mut test = TestContext::new();
        let mut operator = spec().factory().create().unwrap();
        operator.open(&mut test.context()).unwrap();
        let mut run = |change: Change| found(&run_batch(operator.as_mut(), batch(&[change]), &mut test).unwrap());
        assert_eq!(run((1, 10, 0)), [(1, 10, 0)]);
        assert_eq!(run((1, 20, 2)), [(1, 20, 2)]);
        assert_eq!(run((1, 10, 1)), [], "one that is not the last goes unseen");
        assert_eq!(run((1, 30, 0)), [(1, 30, 2)]);
        assert_eq!(run((1, 30, 3)), [(1, 20, 2)]);
        assert_eq!(run((1, 99, 3)), [], "what is not there does not go");
        assert_eq!(run((1, 20, 1)), [(1, 20, 3)]);
        assert_eq!(run((1, 40, 2)), [(1, 40, 0)]);
    }

    #[test]
    fn it_is_the_last_row_of_each_key_however_it_is_run() {
        for seed in 0..30 {
            let mut rng = Rng::seeded(seed);
            let manners = Manners {
                batch_rows: [1, 7, 1024][seed as usize % 3],
                parallelism_max: 4,
                short_of_memory: true,
                always_resumed: true,
            };
            let mut subtasks = Subtasks::new(spec().factory(), manners, Rng::seeded(seed + 1000)).unwrap();
            let mut rows: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
            for _ in 0..20 {
                let mut changes = Vec::new();
                for _ in 0..1 + rng.below(40) {
                    let key = rng.below([30, 2][seed as usize / 3 % 2]) as i64;
                    let there = rows.entry(key).or_default();
                    if rng.one_in(2) && !there.is_empty() {
                        let value = there[rng.below(there.len())];
                        let last = there.iter().rposition(|other| *other == value).unwrap();
                        there.remove(last);
                        changes.push((key, value, [1, 3][rng.below(2)]));
                    } else {
                        let value = rng.below(4) as i64;
                        there.push(value);
                        changes.push((key, value, [0, 2][rng.below(2)]));
                    }
                }
                let batch = batch(&changes);
                subtasks.send(&batch, &[Arc::clone(batch.column(0))]).unwrap();
            }
            let (made, _) = subtasks.finish().unwrap();
            let mut table = BTreeMap::new();
            for (key, value, kind) in found(&made) {
                let before = if kind == 3 { table.remove(&key) } else { table.insert(key, value) };
                assert_eq!(before.is_some(), kind != 0, "seed {seed}: {key} {kind}");
            }
            let expected = rows.into_iter().filter_map(|(key, rows)| Some((key, *rows.last()?)));
            assert_eq!(table, expected.collect::<BTreeMap<_, _>>(), "seed {seed}");
        }
    }
}
