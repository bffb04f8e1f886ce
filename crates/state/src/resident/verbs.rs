//! The table as operators have it.

use arrow::array::{ArrayRef, Int64Array};
use ruslo_core::error::Result;
use ruslo_core::key_group::KeyGroup;
use ruslo_core::keyed::{Cursor, End, KeyedTable, Kind, Piece, Rows, TableSchema};
use ruslo_core::time::Timestamp;

use super::ResidentTable;

impl KeyedTable for ResidentTable {
    fn schema(&self) -> &TableSchema {
        &self.schema
    }

    fn set_time(&mut self, now: Timestamp) {
        self.move_time(now);
    }

    fn load(&mut self, keys: &[ArrayRef]) -> Result<Rows> {
        self.load_values(keys)
    }

    fn load_or_insert(&mut self, keys: &[ArrayRef]) -> Result<(Rows, Vec<bool>)> {
        self.load_or_insert_values(keys)
    }

    fn keys(&mut self, group: KeyGroup) -> Result<Vec<ArrayRef>> {
        self.keys_of(group)
    }

    fn read(&self, rows: &Rows) -> Result<Vec<ArrayRef>> {
        self.read_values(rows)
    }

    fn write(&mut self, rows: &Rows, values: &[ArrayRef]) -> Result<()> {
        self.write_values(rows, values)
    }

    fn upsert(&mut self, keys: &[ArrayRef], values: &[ArrayRef]) -> Result<()> {
        self.upsert_values(keys, values)
    }

    fn add(&mut self, keys: &[ArrayRef], column: usize, deltas: &Int64Array) -> Result<()> {
        self.add_values(keys, column, deltas)
    }

    fn remove(&mut self, keys: &[ArrayRef]) -> Result<()> {
        match self.schema.kind {
            Kind::Value => self.remove_values(keys),
            _ => self.remove_chains(keys),
        }
    }

    fn append(&mut self, keys: &[ArrayRef], values: &[ArrayRef]) -> Result<()> {
        self.want(Kind::List)?;
        self.append_rows(keys, None, values)
    }

    fn append_at(&mut self, keys: &[ArrayRef], times: &[i64], values: &[ArrayRef]) -> Result<()> {
        self.want(Kind::Time)?;
        self.append_rows(keys, Some(times), values)
    }

    fn put(&mut self, keys: &[ArrayRef], sub_keys: &[ArrayRef], values: &[ArrayRef]) -> Result<()> {
        self.put_rows(keys, sub_keys, values)
    }

    fn load_rows(&mut self, keys: &[ArrayRef], sub_keys: &[ArrayRef]) -> Result<Rows> {
        self.find_rows(keys, sub_keys)
    }

    fn read_rows(&self, rows: &Rows) -> Result<Vec<ArrayRef>> {
        self.check(rows)?;
        self.columns_of(rows.slots())
    }

    fn rows(&mut self, keys: &[ArrayRef]) -> Result<Cursor> {
        self.begin_rows(keys)
    }

    fn next(&self, cursor: &mut Cursor, rows_max: usize) -> Result<Option<Piece>> {
        self.next_rows(cursor, rows_max)
    }

    fn load_equal(&mut self, keys: &[ArrayRef], values: &[ArrayRef]) -> Result<Rows> {
        self.find_equal(keys, values)
    }

    fn ends(&mut self, keys: &[ArrayRef], end: End, rows_max: &[u32]) -> Result<Piece> {
        self.ends_of(keys, end, rows_max)
    }

    fn add_to_rows(&mut self, rows: &Rows, column: usize, deltas: &Int64Array) -> Result<()> {
        self.add_chained(rows, column, deltas)
    }

    fn remove_rows(&mut self, rows: &Rows) -> Result<()> {
        self.remove_chained(rows)
    }
}
