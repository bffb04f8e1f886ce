//! Timers by key: a keyed table that checkpoints know, and a calendar in memory that says whose turn it is.
//!
//! The table (a map from key and time to nothing) is what is stored, divided by key group and restored. The calendar has
//! every registered key under its time; it is made anew from the table's runs when it is opened. Taking a timer back only
//! takes it out of the table: its entry in the calendar is found empty when its time has come.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::array::{ArrayRef, BooleanArray, Int64Array};
use arrow::compute::filter;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use arrow::row::{RowConverter, Rows, SortField};
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::KeyGroupRange;
use ruslo_core::keyed::{KeyedTable, TableSchema};
use ruslo_core::memory::Reservation;
use ruslo_core::time::Timestamp;
use ruslo_core::timers::Timers;

use crate::keyed::{Keyed, KeyedContext, KeyedSnapshot};
use crate::runs::RunSetSnapshot;

/// What the table is called in checkpoints.
pub const TIMERS: &str = "__timers";

/// What a page takes beside its rows, in bytes, and a row beside its key: about.
const PAGE_BYTES: u64 = 160;
const ROW_BYTES: u64 = 8;

/// What the table's rows look like, for timers by `key`.
pub fn timer_schema(key: &[FieldRef]) -> TableSchema {
    TableSchema::map(key.to_vec(), vec![Arc::new(Field::new("__at", DataType::Int64, false))], Vec::new())
}

/// Keys that registered for one time, in the order in which they came.
#[derive(Debug)]
struct Page {
    keys: Rows,
    /// Those before have had their turn.
    next: usize,
}

/// Keys whose time has come.
#[derive(Debug)]
pub struct Due {
    /// The time that they had registered for.
    pub at: Timestamp,
    /// Their columns, one key a row; may be of no rows, if all were taken back.
    pub keys: Vec<ArrayRef>,
}

/// The timers of one operator subtask.
#[derive(Debug)]
pub struct TimerTable {
    stored: Keyed,
    converter: RowConverter,
    calendar: BTreeMap<i64, Page>,
    memory: Reservation,
    bytes: u64,
}

impl TimerTable {
    /// The timers by `key` of a subtask that owns `groups`, with what was restored, `runs`, oldest first.
    ///
    /// # Errors
    /// `Corrupt`, naming the file; `Usage`, if a column's type cannot be a key; `Resource`, if they do not fit in memory.
    pub fn open(
        key: &[FieldRef],
        groups: &KeyGroupRange,
        context: &KeyedContext,
        runs: RunSetSnapshot,
    ) -> Result<Self> {
        let converter = RowConverter::new(key.iter().map(|field| SortField::new(field.data_type().clone())).collect())?;
        let memory = context.memory.reserve(format!("the timers of {}", context.owner));
        let stored = Keyed::open(TIMERS, &timer_schema(key), groups, context, runs)?;
        let mut timers = Self { stored, converter, calendar: BTreeMap::new(), memory, bytes: 0 };
        for rows in timers.stored.runs.scan(groups, 0)? {
            let rows = rows?.rows;
            let (keys, at) = rows.columns().split_at_checked(key.len()).unwrap_or_default();
            let at = at.first().and_then(|at| at.as_primitive_opt::<Int64Type>());
            let at = at.ok_or_else(|| Error::internal("a stored timer has no time"))?;
            timers.enter(at.values(), keys)?;
        }
        Ok(timers)
    }

    /// That timers by `key` are what these are.
    ///
    /// # Errors
    /// `Internal`, if not.
    pub fn check(&self, key: &[FieldRef]) -> Result<()> {
        let types = |key: &[FieldRef]| key.iter().map(|field| field.data_type().clone()).collect::<Vec<_>>();
        let (own, asked) = (types(&self.stored.table.schema().key), types(key));
        let wrong = || Error::internal(format!("these are timers by {own:?}, not by {asked:?}"));
        (own == asked).then_some(()).ok_or_else(wrong)
    }

    /// The earliest time that somebody has registered for; it may have been taken back.
    pub fn next(&self) -> Option<Timestamp> {
        self.calendar.keys().next().copied().map(Timestamp)
    }

    /// Takes keys of the earliest time, `rows_max` at most; `None`, if that is after `now`.
    ///
    /// # Errors
    /// The table's.
    pub fn take_due(&mut self, now: Timestamp, rows_max: usize) -> Result<Option<Due>> {
        let Some(mut first) = self.calendar.first_entry() else { return Ok(None) };
        let (at, page) = (*first.key(), first.get_mut());
        if at > now.millis() {
            return Ok(None);
        }
        let taken = page.next..page.keys.num_rows().min(page.next.saturating_add(rows_max.max(1)));
        let keys = self.converter.convert_rows(taken.clone().map(|row| page.keys.row(row)))?;
        page.next = taken.end;
        if page.next == page.keys.num_rows() {
            self.bytes = self.bytes.saturating_sub(bytes_of(&first.remove().keys));
            self.memory.resize(self.bytes)?;
        }
        let keys = self.take_out(at, keys, taken.len())?;
        Ok(Some(Due { at: Timestamp(at), keys }))
    }

    /// Takes timers out of the table; those of `keys` that were in it, each once.
    fn take_out(&mut self, at: i64, keys: Vec<ArrayRef>, rows: usize) -> Result<Vec<ArrayRef>> {
        let found = self.stored.table.load_rows(&keys, &times(std::iter::repeat_n(at, rows)))?;
        let mut seen = HashSet::with_capacity(rows);
        let slots = found.slots().iter().enumerate();
        let fires: BooleanArray = slots.map(|(row, slot)| Some(found.is_present(row) && seen.insert(*slot))).collect();
        let keys = filtered(&keys, &fires)?;
        self.stored.table.remove_rows(&found)?;
        Ok(keys)
    }

    /// The table as it is now; later changes do not touch it.
    ///
    /// # Errors
    /// `Internal` only.
    pub fn seal(&mut self) -> Result<KeyedSnapshot> {
        self.stored.seal()
    }

    /// Puts keys into the calendar.
    fn enter(&mut self, at: &[i64], keys: &[ArrayRef]) -> Result<()> {
        let keys = self.converter.convert_columns(keys)?;
        for (at, key) in at.iter().zip(&keys) {
            let page = self.calendar.entry(*at).or_insert_with(|| {
                self.bytes += PAGE_BYTES;
                Page { keys: self.converter.empty_rows(1, key.data().len()), next: 0 }
            });
            page.keys.push(key);
            self.bytes += ROW_BYTES + key.data().len() as u64;
        }
        self.memory.resize(self.bytes)
    }
}

/// What a page is accounted with.
fn bytes_of(keys: &Rows) -> u64 {
    PAGE_BYTES + keys.iter().map(|key| ROW_BYTES + key.data().len() as u64).sum::<u64>()
}

fn times(at: impl Iterator<Item = i64>) -> [ArrayRef; 1] {
    [Arc::new(Int64Array::from_iter_values(at))]
}

fn filtered(columns: &[ArrayRef], keep: &BooleanArray) -> Result<Vec<ArrayRef>> {
    columns.iter().map(|column| Ok(filter(column, keep)?)).collect()
}

impl Timers for TimerTable {
    fn register(&mut self, at: &[Timestamp], keys: &[ArrayRef]) -> Result<()> {
        let sub_keys = times(at.iter().map(|at| at.millis()));
        let found = self.stored.table.load_rows(keys, &sub_keys)?;
        let new: BooleanArray = (0..at.len()).map(|row| Some(!found.is_present(row))).collect();
        let (keys, sub_keys) = (filtered(keys, &new)?, filtered(&sub_keys, &new)?);
        self.stored.table.put(&keys, &sub_keys, &[])?;
        let at: Vec<_> = at.iter().zip(new.values()).filter(|(_, new)| *new).map(|(at, _)| at.millis()).collect();
        self.enter(&at, &keys)
    }

    fn delete(&mut self, at: &[Timestamp], keys: &[ArrayRef]) -> Result<()> {
        let found = self.stored.table.load_rows(keys, &times(at.iter().map(|at| at.millis())))?;
        self.stored.table.remove_rows(&found)
    }
}
