//! The runs of one table of one subtask.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::ArrayRef;
use ruslo_core::disk::Disk;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::KeyGroupRange;
use ruslo_core::memory::Reservation;

use crate::planted::{Bug, planted};
use crate::runs::find::{self, Found};
use crate::runs::merge::{Leave, Merge};
use crate::runs::policy;
use crate::runs::rows::SortedRows;
use crate::runs::run::Run;
use crate::runs::schema::TableSchema;
use crate::runs::work::WorkFolder;
use crate::runs::writer::RunWriter;

/// The runs of a table; clones are the same set. Adding, finding and compacting may happen on different threads.
#[derive(Clone)]
pub struct RunSet(Arc<Shared>);

struct Shared {
    name: String,
    schema: TableSchema,
    groups: KeyGroupRange,
    memory: Reservation,
    layers: Mutex<Layers>,
    compacting: Mutex<()>,
    /// Goes last, when the files in it are gone.
    work: WorkFolder,
}

/// A run, and the number that says how new it is.
type Layer = (u64, Arc<Run>);

#[derive(Default)]
struct Layers {
    /// Newest first.
    runs: Arc<Vec<Layer>>,
    next: u64,
    /// Places in the order of age that are taken and not filled yet.
    reserved: BTreeSet<u64>,
}

/// The runs that a table had at one moment, oldest first.
pub type RunSetSnapshot = Vec<Arc<Run>>;

/// A place in the order of age, for a run that will be written later. Given up when dropped.
pub struct Slot {
    set: RunSet,
    number: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.set.layers().reserved.remove(&self.number);
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Slot").field(&self.number).finish()
    }
}

impl std::fmt::Debug for RunSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunSet").field("name", &self.0.name).field("groups", &self.0.groups).finish_non_exhaustive()
    }
}

impl RunSet {
    /// An empty set for the key groups `groups`, whose runs are made in `work`; `name` is for people and file names.
    /// `memory` is what indexes and filters are accounted to.
    pub fn new(
        name: impl Into<String>,
        schema: TableSchema,
        groups: KeyGroupRange,
        work: WorkFolder,
        memory: Reservation,
    ) -> Result<Self> {
        schema.check()?;
        let name = name.into();
        let (layers, compacting) = (Mutex::default(), Mutex::default());
        Ok(Self(Arc::new(Shared { name, schema, groups, memory, layers, compacting, work })))
    }

    /// Adds runs that were restored, oldest first. Only before anything else is added.
    pub fn restore(&self, runs: RunSetSnapshot) {
        let mut layers = self.layers();
        for run in runs {
            let number = layers.next;
            layers.next += 1;
            self.insert(&mut layers, number, run);
        }
    }

    fn layers(&self) -> MutexGuard<'_, Layers> {
        self.0.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the rows look like.
    pub fn schema(&self) -> &TableSchema {
        &self.0.schema
    }

    /// Where the files of its runs are.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        self.0.work.disk()
    }

    /// The key groups of the subtask.
    pub fn groups(&self) -> &KeyGroupRange {
        &self.0.groups
    }

    /// The runs, newest first.
    fn runs(&self) -> Vec<Arc<Run>> {
        self.layers().runs.iter().map(|(_, run)| Arc::clone(run)).collect()
    }

    /// Whether there is no run.
    pub fn is_empty(&self) -> bool {
        self.layers().runs.is_empty()
    }

    /// How many runs there are: each may have to be read to find a key.
    pub fn len(&self) -> usize {
        self.layers().runs.len()
    }

    /// Bytes on disk, of the key groups of this subtask.
    pub fn disk_bytes(&self) -> u64 {
        self.layers().runs.iter().map(|(_, run)| run.live_bytes()).sum()
    }

    /// Bytes of indexes and filters in memory.
    pub fn memory_bytes(&self) -> u64 {
        self.0.memory.bytes()
    }

    /// The newest time bucket of a row: new rows must not be older.
    pub fn newest_bucket(&self) -> u32 {
        self.layers().runs.iter().map(|(_, run)| run.newest_bucket()).max().unwrap_or_default()
    }

    /// Takes the newest place in the order of age, for rows that are sorted and written later: with
    /// [`RunSet::add_at`]. Until then they are not found.
    pub fn reserve(&self) -> Slot {
        let mut layers = self.layers();
        let number = layers.next;
        layers.next += 1;
        layers.reserved.insert(number);
        drop(layers);
        Slot { set: self.clone(), number }
    }

    /// Makes a run of `rows`, newer than all before; `None`, if there are none. It is not synced: durability is the
    /// checkpoint's business.
    pub fn add(&self, rows: impl IntoIterator<Item = Result<SortedRows>>) -> Result<Option<Arc<Run>>> {
        self.add_at(self.reserve(), rows)
    }

    /// Makes a run of `rows` as new as `slot`; `None`, if there are none.
    pub fn add_at(&self, slot: Slot, rows: impl IntoIterator<Item = Result<SortedRows>>) -> Result<Option<Arc<Run>>> {
        let Some(run) = self.write(rows)? else { return Ok(None) };
        self.insert(&mut self.layers(), slot.number, Arc::clone(&run));
        Ok(Some(run))
    }

    fn insert(&self, layers: &mut Layers, number: u64, run: Arc<Run>) {
        let mut runs = layers.runs.as_ref().clone();
        let at = runs.partition_point(|(other, _)| *other > number);
        runs.insert(at, (number, run));
        self.set(layers, runs);
    }

    fn set(&self, layers: &mut Layers, runs: Vec<Layer>) {
        // Without index and filter nothing can be read: they are held whatever the limit says.
        self.0.memory.hold(runs.iter().map(|(_, run)| run.memory_bytes() as u64).sum());
        layers.runs = Arc::new(runs);
    }

    fn write(&self, rows: impl IntoIterator<Item = Result<SortedRows>>) -> Result<Option<Arc<Run>>> {
        let mut path = None;
        let run = self.write_to(&mut path, rows);
        if let (Err(_), Some(path)) = (&run, path) {
            // Half a run is in nobody's way, but it takes room: a full disk needs it.
            let _ = self.0.work.disk().remove(&path);
        }
        run
    }

    fn write_to(
        &self,
        path: &mut Option<PathBuf>,
        rows: impl IntoIterator<Item = Result<SortedRows>>,
    ) -> Result<Option<Arc<Run>>> {
        let mut writer = None;
        for rows in rows.into_iter().filter(|rows| !rows.as_ref().is_ok_and(SortedRows::is_empty)) {
            let rows = rows?;
            let open = match &mut writer {
                Some(open) => open,
                None => writer.insert(RunWriter::create(&self.0.work, &self.0.name, &self.0.schema)?),
            };
            *path = Some(open.path().to_owned());
            open.write(&rows)?;
        }
        let Some(writer) = writer else { return Ok(None) };
        let written = writer.finish()?;
        let run = Run::written(self.0.work.disk(), written, &self.0.groups, &self.0.schema)?;
        Ok(Some(Arc::new(run)))
    }

    /// The newest version of all rows of some keys. `hashes` ascend by [`place_of`](crate::runs::place_of), and each
    /// key is asked once.
    ///
    /// # Errors
    /// `Corrupt`, naming the file; `Internal`, if the keys are out of order or of other types.
    pub fn find(&self, hashes: &[u64], keys: &[ArrayRef]) -> Result<Found> {
        find::find(&self.0.schema, &self.runs(), hashes, keys)
    }

    /// All rows of some key groups in order, the newest version of each; without deletes, and rows of buckets before
    /// `oldest_alive`. Memory is bounded: a piece of about 4,096 rows, and some blocks.
    pub fn scan(&self, groups: &KeyGroupRange, oldest_alive: u32) -> Result<Merge> {
        Merge::open(&self.0.schema, &self.runs(), groups, Leave { deletes: true, before: oldest_alive })
    }

    /// The runs as they are now, oldest first; what is added later, or merged, does not change it.
    pub fn snapshot(&self) -> RunSetSnapshot {
        self.layers().runs.iter().rev().map(|(_, run)| Arc::clone(run)).collect()
    }

    /// Merges runs, if there are enough to be worth it; rows of buckets before `oldest_alive` go. Whether it has changed
    /// anything. Another call meanwhile does nothing.
    pub fn compact(&self, oldest_alive: u32) -> Result<bool> {
        self.compact_while(oldest_alive, &|| true)
    }

    /// As [`RunSet::compact`], and nothing is changed once it is not `wanted` any more.
    pub fn compact_while(&self, oldest_alive: u32, wanted: &dyn Fn() -> bool) -> Result<bool> {
        let Ok(_alone) = self.0.compacting.try_lock() else { return Ok(false) };
        let dropped = self.drop_expired(oldest_alive);
        let Some((runs, is_lowest)) = self.to_merge() else { return Ok(dropped) };
        let leave = Leave { deletes: is_lowest, before: oldest_alive };
        let mut merging: Vec<_> = runs.iter().map(|(_, run)| Arc::clone(run)).collect();
        if planted(Bug::MergeKeepsOlder) {
            merging.reverse();
        }
        let pieces = Merge::open(&self.0.schema, &merging, &self.0.groups, leave)?;
        let given_up = || Error::internal("a merge was given up");
        let merged = match self.write(pieces.map(|piece| if wanted() { piece } else { Err(given_up()) })) {
            Err(_) if !wanted() => return Ok(false),
            merged => merged?,
        };
        let mut layers = self.layers();
        let gone: BTreeSet<_> = runs.iter().map(|(number, _)| *number).collect();
        let mut left: Vec<_> = layers.runs.iter().filter(|(number, _)| !gone.contains(number)).cloned().collect();
        if let (Some(merged), Some(newest)) = (merged, gone.last()) {
            let at = left.partition_point(|(other, _)| other > newest);
            left.insert(at, (*newest, merged));
        }
        self.set(&mut layers, left);
        Ok(true)
    }

    /// Forgets runs of which every row is expired.
    fn drop_expired(&self, oldest_alive: u32) -> bool {
        let mut layers = self.layers();
        let is_alive = |run: &Run| run.newest_bucket() >= oldest_alive;
        let left: Vec<_> = layers.runs.iter().filter(|(_, run)| is_alive(run)).cloned().collect();
        let has_changed = left.len() < layers.runs.len();
        if has_changed {
            self.set(&mut layers, left);
        }
        has_changed
    }

    /// What to merge, newest first, and whether nothing is older.
    fn to_merge(&self) -> Option<(Vec<Layer>, bool)> {
        let layers = self.layers();
        // A run that is written later may come between newer ones: they wait for it.
        let first = layers.reserved.first().copied().unwrap_or(u64::MAX);
        let settled: Vec<_> = layers.runs.iter().filter(|(number, _)| *number < first).cloned().collect();
        let bytes: Vec<_> = settled.iter().map(|(_, run)| run.live_bytes()).collect();
        let chosen = policy::choose(&bytes)?;
        let is_lowest = chosen.end == settled.len();
        Some((settled.get(chosen)?.to_vec(), is_lowest))
    }
}
