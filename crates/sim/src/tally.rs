//! An operator made for the simulator that counts the rows of each key in a keyed table, up to a limit, and then from 1
//! again: rows are written over, removed, and come back. A row goes out for each that comes in: its key and its number.
//! Whatever the order in which rows come, the numbers of a key are the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::Result;
use ruslo_core::keyed::TableSchema;
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_state::handles::{ListState, MapState, ValueState};

use crate::dataset::{column, schema};

const TABLE: &str = "tally";

/// How many sub-keys a key has in a map.
const SUB_KEYS: i64 = 4;

/// How a key is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// One row, which is written over.
    Value,
    /// A row for each that came.
    List,
    /// A row for each of some sub-keys, which is written over.
    Map,
}

/// Numbers the rows of each key from 1 to `limit`, again and again; rows of the table have `padding` bytes besides.
pub fn tally(table: Table, limit: i64, padding: usize) -> SharedFactory {
    Arc::new(move || Ok(Tally { table, limit, padding: "·".repeat(padding / 2) }))
}

struct Tally {
    table: Table,
    limit: i64,
    padding: String,
}

/// What a key has: by sub-key; a value and a list have one.
#[derive(Debug, Clone, Default)]
struct Counts {
    by_sub_key: BTreeMap<i64, i64>,
    /// Rows of a list that are new.
    new: i64,
    was_cleared: bool,
}

impl Counts {
    /// Counts one more; its number.
    fn count(&mut self, sub_key: i64, limit: i64) -> i64 {
        *self.by_sub_key.entry(sub_key).or_default() += 1;
        self.new += 1;
        let number = self.by_sub_key.values().sum();
        if number == limit {
            *self = Self { was_cleared: true, ..Self::default() };
        }
        number
    }
}

fn field(name: &str) -> FieldRef {
    Arc::new(Field::new(name, DataType::Int64, true))
}

fn integers(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn table_of(table: Table) -> TableSchema {
    let padding = Arc::new(Field::new("padding", DataType::Utf8, true));
    let (key, value) = (vec![field("k")], vec![field("n"), padding]);
    match table {
        Table::Value => TableSchema::value(key, value),
        Table::List => TableSchema::list(key, value),
        Table::Map => TableSchema::map(key, vec![field("s")], value),
    }
}

impl Tally {
    fn sub_key(&self, value: i64) -> i64 {
        if self.table == Table::Map { value.rem_euclid(SUB_KEYS) } else { 0 }
    }

    /// The value columns.
    fn values(&self, counts: Vec<i64>) -> [ArrayRef; 2] {
        let padding = StringArray::from_iter_values(counts.iter().map(|_| &self.padding));
        [integers(counts), Arc::new(padding)]
    }

    fn load(&self, keys: &[i64], ctx: &mut OperatorContext<'_>) -> Result<Vec<Counts>> {
        let schema = table_of(self.table);
        let columns = [integers(keys.iter().copied())];
        let mut counts = vec![Counts::default(); keys.len()];
        let mut note = |request: usize, sub_key: i64, count: i64| {
            *counts[request].by_sub_key.entry(sub_key).or_default() += count;
        };
        match self.table {
            Table::Value => {
                let values = ValueState::open(ctx.state, TABLE, &schema)?.get(&columns)?;
                let found = values.columns[0].as_primitive::<Int64Type>().iter().enumerate();
                found.filter_map(|(request, count)| Some((request, count?))).for_each(|(at, count)| note(at, 0, count));
            }
            Table::List => {
                let mut table = ListState::open(ctx.state, TABLE, &schema)?;
                let mut cursor = table.rows(&columns)?;
                while let Some(piece) = table.next(&mut cursor, 3)? {
                    piece.requests.values().iter().for_each(|request| note(*request as usize, 0, 1));
                }
            }
            Table::Map => {
                let mut table = MapState::open(ctx.state, TABLE, &schema)?;
                let mut cursor = table.rows(&columns)?;
                while let Some(piece) = table.next(&mut cursor, 3)? {
                    let of = |column: usize| piece.columns[column].as_primitive::<Int64Type>().values();
                    let rows = piece.requests.values().iter().zip(of(0)).zip(of(1));
                    rows.for_each(|((request, sub_key), count)| note(*request as usize, *sub_key, *count));
                }
            }
        }
        Ok(counts)
    }

    fn store(&self, counts: &BTreeMap<i64, Counts>, ctx: &mut OperatorContext<'_>) -> Result<()> {
        let cleared = counts.iter().filter(|(_, counts)| counts.was_cleared).map(|(key, _)| *key);
        let table = ctx.state.keyed(TABLE, &table_of(self.table))?;
        table.remove(&[integers(cleared)])?;
        let rows = || {
            let rows = |key: i64, counts: &Counts| counts.by_sub_key.clone().into_iter().map(move |row| (key, row));
            counts.iter().flat_map(move |(key, counts)| rows(*key, counts))
        };
        let keys = [integers(rows().map(|(key, _)| key))];
        let values = self.values(rows().map(|(_, (_, count))| count).collect());
        match self.table {
            Table::Value => table.upsert(&keys, &values),
            Table::Map => table.put(&keys, &[integers(rows().map(|(_, (sub_key, _))| sub_key))], &values),
            Table::List => {
                let new = || counts.iter().flat_map(|(key, counts)| (0..counts.new).map(move |number| (*key, number)));
                let (keys, values) = (new().map(|(key, _)| key), new().map(|(_, number)| number));
                table.append(&[integers(keys)], &self.values(values.collect()))
            }
        }
    }
}

impl Operator for Tally {
    fn open(&mut self, ctx: &mut OperatorContext<'_>) -> Result<()> {
        ctx.state.keyed(TABLE, &table_of(self.table)).map(drop)
    }

    fn on_batch(
        &mut self,
        _: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let column = |at: usize| batch.column(at).as_primitive::<Int64Type>().values().to_vec();
        let (keys, values) = (column(column::KEY), column(column::VALUE));
        let mut distinct = keys.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let loaded = self.load(&distinct, ctx)?;
        let mut counts: BTreeMap<i64, Counts> = distinct.into_iter().zip(loaded).collect();
        let numbers = keys.iter().zip(&values).map(|(key, value)| {
            let counts = counts.get_mut(key).unwrap();
            counts.count(self.sub_key(*value), self.limit)
        });
        let numbers = integers(numbers.collect::<Vec<_>>());
        self.store(&counts, ctx)?;
        out.emit(numbered(integers(keys), numbers));
        Ok(Progress::Done)
    }
}

fn numbered(keys: ArrayRef, numbers: ArrayRef) -> RecordBatch {
    let zeros = vec![0; keys.len()];
    let mut columns = vec![integers(zeros.clone()); schema().fields().len()];
    columns[column::TIME] = Arc::new(TimestampMillisecondArray::from(zeros));
    columns[column::KEY] = keys;
    columns[column::OFFSET] = numbers;
    RecordBatch::try_new(schema(), columns).unwrap()
}

#[cfg(test)]
mod tests {
    use ruslo_operators::testing::{TestContext, run_batch};

    use super::*;
    use crate::dataset::{Lineage, Row, batch};
    use crate::sink::rows_of;

    #[test]
    fn rows_are_numbered_and_begin_anew_however_they_are_kept() {
        for table in [Table::Value, Table::List, Table::Map] {
            let rows: Vec<_> = (0..20).map(|n| Row { key: n % 2, value: n, time: 0 }).collect();
            let lineage = Lineage { id: 1, cuts: vec![0, rows.len()], rows };
            let mut operator = tally(table, 4, 10).create().unwrap();
            let mut test = TestContext::new();
            operator.open(&mut test.context()).unwrap();
            let mut numbers = Vec::new();
            for (from, to) in [(0, 1), (1, 10), (10, 20)] {
                let out = run_batch(operator.as_mut(), batch(&lineage, from, to), &mut test).unwrap();
                numbers.extend(out.iter().flat_map(rows_of).map(|row| row[column::OFFSET]));
            }
            assert_eq!(numbers, [1, 1, 2, 2, 3, 3, 4, 4, 1, 1, 2, 2, 3, 3, 4, 4, 1, 1, 2, 2], "{table:?}");
        }
    }
}
