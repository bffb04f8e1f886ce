//! Reading the state in a checkpoint or a savepoint: which tables operators keep, and their rows under readable names.
//! Nothing is changed, locked or created.
//!
//! ```
//! use ruslo::state::State;
//! use ruslo::{Program, StartMode};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let home = folder.path().display();
//! # std::fs::write(folder.path().join("in.csv"), "EWR,4\nJFK,-2\n").unwrap();
//! # let text = format!("
//! #     CREATE TABLE t (origin STRING, delay INT) WITH ('connector' = 'filesystem', 'path' = '{home}/in.csv', 'format' = 'csv');
//! #     CREATE TABLE o (origin STRING) WITH ('connector' = 'filesystem', 'path' = '{home}/out', 'format' = 'json');
//! #     INSERT INTO o SELECT origin FROM t");
//! let checkpoints = folder.path().join("checkpoints");
//! Program::new("a.sql", text).plan()?.start(StartMode::New, Some(&checkpoints))?.wait()?;
//!
//! let state = State::open(&checkpoints, None)?;
//! assert!(state.tables()?.is_empty(), "a filter keeps nothing");
//! # Ok::<(), ruslo::Error>(())
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, StringArray, UInt16Array};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{CastOptions, and, cast, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use ruslo_core::environment::Environment;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::OperatorId;
use ruslo_core::key_group::KEY_GROUPS;
use ruslo_core::upgrade::{ColumnNames, column_names};
use ruslo_sql::sql_name;
use ruslo_state::keyed::StoredTable;
use ruslo_state::manifest::{Manifest, RunLayout, RunRef};
use ruslo_state::store::CheckpointStore;
use ruslo_state::table::{KEY_GROUP_COLUMN, Run};

/// Stands before the columns of a table: what its rows are forgotten by.
const BUCKET: &str = "bucket";
/// Stands behind them.
const KEY_GROUP: &str = "key_group";

/// The state in one checkpoint.
#[derive(Debug)]
pub struct State {
    store: CheckpointStore,
    manifest: Manifest,
    names: BTreeMap<OperatorId, ColumnNames>,
}

/// A table of an operator, over all its subtasks.
#[derive(Debug, Clone)]
pub struct Table {
    /// Whose it is.
    pub operator: OperatorId,
    /// What a person calls that.
    pub operator_name: String,
    /// What it is called.
    pub name: String,
    /// Its columns, by the names that people read: first `bucket`, last `key_group`.
    pub schema: SchemaRef,
    /// Rows.
    pub rows: u64,
    /// Bytes that are stored.
    pub bytes: u64,
    /// How many key groups have rows.
    pub key_groups: usize,
    /// The places of its key columns.
    pub keys: Vec<usize>,
    runs: Vec<RunRef>,
}

impl Table {
    /// Its columns with their types in SQL.
    pub fn columns(&self) -> Vec<(String, String)> {
        self.schema.fields().iter().map(|field| (field.name().clone(), sql_name(field.data_type()))).collect()
    }
}

impl State {
    /// The state in the checkpoint `epoch` of a folder or an object store, by default the newest; a savepoint has one.
    ///
    /// # Errors
    /// `Usage`, if there is no such checkpoint; `Corrupt`, if its manifest is not as it was written.
    pub fn open(location: &Path, epoch: Option<Epoch>) -> Result<Self> {
        let store = CheckpointStore::existing(Environment::local().disk, location)?;
        let newest = || store.epochs().map(|epochs| epochs.last().copied());
        let nothing = || Error::usage(format!("there are no checkpoints in {}", location.display()));
        let epoch = epoch.map_or_else(|| newest()?.ok_or_else(nothing), Ok)?;
        if !store.epochs()?.contains(&epoch) {
            return Err(Error::usage(format!("there is no checkpoint {epoch} in {}", location.display())));
        }
        let manifest = store.load(epoch)?;
        let names = manifest.plan.as_ref().map(column_names).transpose()?.unwrap_or_default();
        Ok(Self { store, manifest, names })
    }

    /// Which checkpoint it is.
    pub fn epoch(&self) -> Epoch {
        self.manifest.epoch
    }

    /// The tables of all operators, but for rows that belong to no key.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, if a run is not as it was written.
    pub fn tables(&self) -> Result<Vec<Table>> {
        let mut tables = Vec::new();
        for (id, entry) in &self.manifest.operators {
            let mut runs: BTreeMap<&str, Vec<RunRef>> = BTreeMap::new();
            for (name, of_subtask) in entry.subtasks.iter().flat_map(|subtask| &subtask.tables) {
                let keyed = of_subtask.iter().filter(|run| run.layout.redistribution().is_none());
                runs.entry(name).or_default().extend(keyed.cloned());
            }
            for (name, runs) in runs.into_iter().filter(|(_, runs)| !runs.is_empty()) {
                tables.push(self.table(*id, &entry.name, name, runs)?);
            }
        }
        Ok(tables)
    }

    fn table(&self, operator: OperatorId, operator_name: &str, name: &str, runs: Vec<RunRef>) -> Result<Table> {
        let (mut rows, mut key_groups, mut schema) = (0, BTreeSet::new(), Arc::new(Schema::empty()));
        for read in self.pieces(operator, &runs)? {
            let (batch, groups) = read?;
            rows += batch.num_rows() as u64;
            key_groups.extend(groups);
            schema = batch.schema();
        }
        let stored: BTreeSet<_> = runs.iter().map(|run| (&run.file, run.offset, run.length)).collect();
        let bytes = stored.iter().map(|(_, _, length)| length).sum();
        // Behind the bucket.
        let keys = match is_keyed(&runs) {
            true => StoredTable::open(&self.store, &runs)?.schema.key.len(),
            false => self.names.get(&operator).map_or(0, |names| names.keys),
        };
        let keys = (1..=keys).filter(|place| *place + 1 < schema.fields().len()).collect();
        let (operator_name, name, key_groups) = (operator_name.to_owned(), name.to_owned(), key_groups.len());
        Ok(Table { operator, operator_name, name, schema, rows, bytes, key_groups, keys, runs })
    }

    /// The rows of a table, in pieces.
    pub fn rows<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = Result<RecordBatch>> + 'a {
        let (pieces, failed) = match self.pieces(table.operator, &table.runs) {
            Ok(pieces) => (Some(pieces), None),
            Err(error) => (None, Some(Err(error))),
        };
        failed.into_iter().chain(pieces.into_iter().flatten().map(|read| read.map(|(rows, _)| rows)))
    }

    /// The rows of some runs of one table, with their key groups.
    fn pieces<'a>(&'a self, operator: OperatorId, runs: &'a [RunRef]) -> Result<Pieces<'a>> {
        if !is_keyed(runs) {
            return Ok(Box::new(runs.iter().filter_map(move |run| self.read(operator, run).transpose())));
        }
        let merged = StoredTable::open(&self.store, runs)?.rows()?;
        Ok(Box::new(merged.map(move |piece| {
            let piece = piece?;
            let groups: Vec<_> = piece.hashes.iter().map(|hash| (hash % u64::from(KEY_GROUPS)) as u16).collect();
            let (mut fields, mut columns) = (piece.rows.schema().fields().to_vec(), piece.rows.columns().to_vec());
            fields.push(Arc::new(Field::new(KEY_GROUP_COLUMN, DataType::UInt16, false)));
            columns.push(Arc::new(UInt16Array::from(groups.clone())));
            let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
            let buckets = piece.buckets.into_iter().map(i64::from).collect();
            Ok((self.shown(operator, &rows, buckets)?, groups))
        })))
    }

    /// The rows of a table under a key: one text a key column, in order, `NULL` for none.
    ///
    /// # Errors
    /// `Usage`, if the table has other keys, or a text is no value of the column.
    pub fn get(&self, table: &Table, key: &[String]) -> Result<Vec<RecordBatch>> {
        if key.len() != table.keys.len() {
            let names = table.keys.iter().filter_map(|place| table.schema.fields().get(*place));
            let names: Vec<_> = names.map(|field| field.name().as_str()).collect();
            return Err(Error::usage(format!(
                "the key of '{}' of '{}' has {} columns ({}), and {} are given",
                table.name,
                table.operator_name,
                names.len(),
                names.join(", "),
                key.len()
            )));
        }
        let mut wanted = Vec::new();
        for (place, text) in table.keys.iter().zip(key) {
            let field = table.schema.fields().get(*place).ok_or_else(|| Error::internal("a key column is missing"))?;
            wanted.push((*place, value_of(text, field)?));
        }
        let mut found = Vec::new();
        for rows in self.rows(table) {
            let rows = rows?;
            let matching = filter_record_batch(&rows, &matching(&rows, &wanted)?)?;
            found.extend((matching.num_rows() > 0).then_some(matching));
        }
        Ok(found)
    }

    /// The rows of a run that are meant, with readable names, and their key groups; none if none are meant.
    fn read(&self, operator: OperatorId, run: &RunRef) -> Result<Option<(RecordBatch, Vec<u16>)>> {
        let stored = self.store.load_run(run)?;
        let Some(cut) = Run::restored(run, &stored, &(0..KEY_GROUPS))? else { return Ok(None) };
        let rows = cut.to_batch()?;
        let shown = self.shown(operator, &rows, vec![run.bucket; rows.num_rows()])?;
        Ok(Some((shown, cut.groups().to_vec())))
    }

    /// Rows that end with their key group, and their buckets, with readable names.
    fn shown(&self, operator: OperatorId, rows: &RecordBatch, buckets: Vec<i64>) -> Result<RecordBatch> {
        let names = self.names.get(&operator);
        let readable = |name: &String| match name.as_str() {
            KEY_GROUP_COLUMN => KEY_GROUP.to_owned(),
            _ => names.and_then(|names| names.readable.get(name)).unwrap_or(name).clone(),
        };
        let mut fields = vec![Field::new(BUCKET, DataType::Int64, false)];
        let mut columns = vec![Arc::new(Int64Array::from(buckets)) as ArrayRef];
        for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
            let shown = shown_type(field.data_type());
            columns.push(cast(column, &shown)?);
            fields.push(Field::new(readable(field.name()), shown, field.is_nullable()));
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

/// Rows with readable names, and their key groups.
type Pieces<'a> = Box<dyn Iterator<Item = Result<(RecordBatch, Vec<u16>)>> + 'a>;

/// Whether runs are of a keyed table: then they are read as one.
fn is_keyed(runs: &[RunRef]) -> bool {
    runs.first().is_some_and(|run| run.layout == RunLayout::Keyed)
}

/// The type that a column is shown as: SQL has no unsigned numbers.
fn shown_type(stored: &DataType) -> DataType {
    match stored {
        DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        other => other.clone(),
    }
}

/// `text` as one value of a column.
fn value_of(text: &str, field: &Field) -> Result<ArrayRef> {
    let text = StringArray::from(vec![(text != "NULL").then_some(text)]);
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(&text, field.data_type(), &strict).map_err(|error| {
        let (name, kind) = (field.name(), sql_name(field.data_type()));
        Error::usage(format!("--key: the column '{name}' is {kind}: {error}"))
    })
}

fn matching(rows: &RecordBatch, wanted: &[(usize, ArrayRef)]) -> Result<BooleanArray> {
    let mut matching = BooleanArray::from(vec![true; rows.num_rows()]);
    for (place, value) in wanted {
        let column = rows.columns().get(*place).ok_or_else(|| Error::internal("a key column is missing"))?;
        let value = arrow::array::Scalar::new(Arc::clone(value));
        let same = not_distinct(&column.as_ref(), &value)?;
        matching = and(&matching, &same)?;
    }
    Ok(matching)
}
