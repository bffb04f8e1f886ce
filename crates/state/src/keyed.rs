//! A keyed table as a whole: its layer in memory, its runs, its way into checkpoints and back.
//!
//! At the barrier the task copies what is dirty and takes hold of the runs as they are: a [`KeyedSnapshot`]. On the I/O
//! pool it is settled (what was copied becomes a run), uploaded, named by the manifest; then the runs are compacted, for
//! later checkpoints.

use std::fmt::Debug;
use std::sync::Arc;

use ruslo_core::disk::Disk;
use ruslo_core::error::{Error, ErrorKind, Result};
use ruslo_core::key_group::{KEY_GROUPS, KeyGroupRange};
use ruslo_core::memory::MemoryPool;

use crate::manifest::RunRef;
use crate::planted::{Bug, planted};
use crate::resident::{Lower, ResidentTable};
use crate::runs::{Merge, Run, RunSet, RunSetSnapshot, TableSchema, WorkFolder};
use crate::store::CheckpointStore;

/// Rows that a barrier took out of a table, on their way into a run.
pub trait Settle: Debug + Send + Sync {
    /// Makes a run of the rows, unless that was done; `None`, if there are none. Every call has the same answer.
    ///
    /// # Errors
    /// The disk's.
    fn settle(&self) -> Result<Option<Arc<Run>>>;
}

/// A keyed table as it was at a barrier.
#[derive(Debug, Clone)]
pub struct KeyedSnapshot {
    set: RunSet,
    runs: RunSetSnapshot,
    sealed: Option<Arc<dyn Settle>>,
    oldest_alive: u32,
}

impl KeyedSnapshot {
    /// The runs of `set` as they are now, and the rows that were `sealed`, which are newer. Rows of buckets before
    /// `oldest_alive` are expired.
    pub fn new(set: RunSet, sealed: Option<Arc<dyn Settle>>, oldest_alive: u32) -> Self {
        Self { runs: set.snapshot(), set, sealed, oldest_alive }
    }

    /// The runs that the table consists of, oldest first.
    ///
    /// # Errors
    /// The disk's.
    pub fn settled(&self) -> Result<RunSetSnapshot> {
        let newest = self.sealed.as_ref().map(|sealed| sealed.settle()).transpose()?.flatten();
        let newest = newest.filter(|_| !planted(Bug::ForgetSealed));
        Ok(self.runs.iter().cloned().chain(newest).collect())
    }

    /// Where the files of its runs are.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        self.set.disk()
    }

    /// Merges what is worth merging, as long as it is `wanted`.
    ///
    /// # Errors
    /// The disk's.
    pub fn compact(&self, wanted: &dyn Fn() -> bool) -> Result<()> {
        while self.set.compact_while(self.oldest_alive, wanted)? {}
        Ok(())
    }
}

/// A keyed table of one operator subtask.
#[derive(Debug)]
pub struct Keyed {
    /// The rows in memory.
    pub table: ResidentTable,
    /// Those below.
    pub runs: RunSet,
}

/// What keyed tables are made with.
#[derive(Debug, Clone)]
pub struct KeyedContext {
    /// Who has the table, for people.
    pub owner: String,
    /// Where runs are made.
    pub work: WorkFolder,
    /// What rows and indexes are accounted to.
    pub memory: Arc<MemoryPool>,
}

impl Keyed {
    /// The table `name`, with what was restored, `runs`, oldest first. If that fits in half of the memory limit, it is
    /// read into memory; else it is read when it is asked for.
    ///
    /// # Errors
    /// `Corrupt`, naming the file; `Usage`, if a newer Ruslo wrote it.
    pub fn open(
        name: &str,
        schema: &TableSchema,
        groups: &KeyGroupRange,
        context: &KeyedContext,
        runs: RunSetSnapshot,
    ) -> Result<Self> {
        let index = context.memory.reserve(format!("the index of '{name}' of {}", context.owner));
        let set = RunSet::new(name, schema.clone(), groups.clone(), context.work.clone(), index)?;
        set.restore(runs);
        let table = match load(name, &set, context) {
            // It was a guess that it would fit.
            Err(error) if error.kind() == ErrorKind::Resource => lazy(name, &set, context)?,
            table => table?,
        };
        Ok(Self { table, runs: set })
    }

    /// The table as it is now; later changes do not touch it.
    ///
    /// # Errors
    /// `Internal` only.
    pub fn seal(&mut self) -> Result<KeyedSnapshot> {
        let sealed = self.table.seal()?;
        Ok(KeyedSnapshot::new(self.runs.clone(), Some(sealed), self.table.oldest_bucket()))
    }
}

fn empty(name: &str, set: &RunSet, context: &KeyedContext) -> Result<ResidentTable> {
    let memory = context.memory.reserve_yielding(format!("the table '{name}' of {}", context.owner));
    let lower: Arc<dyn Lower> = Arc::new(set.clone());
    let mut table = ResidentTable::new(name, set.schema().clone(), set.groups().clone(), memory, Some(lower))?;
    table.set_bucket(set.newest_bucket());
    Ok(table)
}

fn lazy(name: &str, set: &RunSet, context: &KeyedContext) -> Result<ResidentTable> {
    let mut table = empty(name, set, context)?;
    table.set_partial();
    Ok(table)
}

fn load(name: &str, set: &RunSet, context: &KeyedContext) -> Result<ResidentTable> {
    // In memory rows take about twice as much as on disk.
    if set.disk_bytes() > context.memory.limit_bytes() / 4 {
        return lazy(name, set, context);
    }
    let mut table = empty(name, set, context)?;
    for rows in set.scan(set.groups(), table.oldest_bucket())? {
        let rows = rows?;
        table.restore(rows.buckets, rows.rows)?;
    }
    Ok(table)
}

/// A keyed table in a checkpoint, to be looked at.
#[derive(Debug)]
pub struct StoredTable {
    /// What its rows look like; how long they live is not stored.
    pub schema: TableSchema,
    runs: RunSetSnapshot,
}

impl StoredTable {
    /// The table of `runs`, as the manifest names them: those of one subtask oldest first.
    ///
    /// # Errors
    /// `Corrupt`, naming the file.
    pub fn open(store: &CheckpointStore, runs: &[RunRef]) -> Result<Self> {
        let runs = runs.iter().map(|run| store.fetch(run)).collect::<Result<Vec<_>>>()?;
        let newest = runs.last().ok_or_else(|| Error::internal("a keyed table has no run"))?;
        let schema = newest.table()?;
        let mut open = Vec::new();
        for run in &runs {
            open.extend(run.open(&(0..KEY_GROUPS), &schema)?.map(Arc::new));
        }
        Ok(Self { schema, runs: open })
    }

    /// Its rows, in pieces: by key group.
    ///
    /// # Errors
    /// The disk's.
    pub fn rows(&self) -> Result<Merge> {
        let newest_first: Vec<_> = self.runs.iter().rev().cloned().collect();
        Merge::all(&self.schema, &newest_first)
    }
}

/// The rows of a flush, for tests and for tables without a layer in memory.
#[derive(Debug)]
pub struct Settled(pub Option<Arc<Run>>);

impl Settle for Settled {
    fn settle(&self) -> Result<Option<Arc<Run>>> {
        Ok(self.0.clone())
    }
}
