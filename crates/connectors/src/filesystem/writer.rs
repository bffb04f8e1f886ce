//! Writes one subtask's rows into part files: of each partition at least one for each epoch that has rows of it.
//!
//! A part is created with the first row, under a hidden name. It is closed, that is completed and synced, when it has
//! become large enough, when too many others are open, and at the next checkpoint at the latest; then the hidden names
//! are made durable, and the committer renames them later. After an error nobody knows what is in the file, so the
//! writer refuses all further work: the pipeline restarts from its last checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::Progress;
use ruslo_core::sink::{Committable, SinkWriter};

use super::committer::Part;
use super::part::{OpenPart, Target};
use super::part_name;
use super::partition::Partitioner;
use super::sink::create_durably;

/// How many files one writer has open at once.
const OPEN_MAX: usize = 64;

/// How much all open files of one writer may hold in memory.
const HELD_BYTES_MAX: usize = 256 << 20;

/// How many folders are remembered to be there.
const FOLDERS_MAX: usize = 10_000;

/// The writer of one subtask.
pub(super) struct FileWriter {
    target: Target,
    partitioner: Option<Partitioner>,
    /// The folders that are durable.
    folders: BTreeSet<Arc<str>>,
    /// By folder; without partitions the folder is the empty text.
    open: BTreeMap<Arc<str>, OpenPart>,
    /// The folders and hidden names of the parts that were closed since the last checkpoint, in that order.
    closed: Vec<(Arc<str>, String)>,
    /// Counts writes.
    now: u64,
    /// Parts created since the last checkpoint.
    created: usize,
    /// The last epoch that was prepared here.
    prepared: Epoch,
    /// Why nothing more can be written.
    failed: Option<Error>,
}

impl FileWriter {
    pub(super) fn new(target: Target, partitioner: Option<Partitioner>) -> Self {
        Self {
            target,
            partitioner,
            folders: BTreeSet::new(),
            open: BTreeMap::new(),
            closed: Vec::new(),
            now: 0,
            created: 0,
            prepared: Epoch::ZERO,
            failed: None,
        }
    }

    /// Does `work`, unless work failed before; remembers if it fails.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        work(self).inspect_err(|error| self.failed = Some(error.clone()))
    }

    fn append_all(&mut self, batch: &RecordBatch) -> Result<()> {
        match &mut self.partitioner {
            None => self.append("".into(), batch),
            Some(partitioner) => {
                let parts = partitioner.split(batch)?;
                parts.into_iter().try_for_each(|(folder, rows)| self.append(folder, &rows))
            }
        }
    }

    fn append(&mut self, folder: Arc<str>, rows: &RecordBatch) -> Result<()> {
        self.now = self.now.saturating_add(1);
        let mut part = match self.open.remove(&folder) {
            Some(part) => part,
            None => self.create(&folder)?,
        };
        part.write(rows)?;
        part.last_used = self.now;
        if part.size() >= self.target.rolling_bytes {
            return self.close(folder, part);
        }
        self.open.insert(folder, part);
        self.make_room()
    }

    fn create(&mut self, folder: &Arc<str>) -> Result<OpenPart> {
        if !folder.is_empty() && !self.folders.contains(folder) {
            create_durably(self.target.disk.as_ref(), &self.target.path.join(&**folder))?;
            if self.folders.len() >= FOLDERS_MAX {
                self.folders.clear();
            }
            self.folders.insert(Arc::clone(folder));
        }
        self.created = self.created.saturating_add(1);
        self.target.create(folder, self.prepared, self.created.saturating_sub(1))
    }

    /// Closes parts until few enough are open, and they hold little enough.
    fn make_room(&mut self) -> Result<()> {
        loop {
            let held = self.open.values().map(OpenPart::held_bytes).fold(0_usize, usize::saturating_add);
            let victim = if self.open.len() > OPEN_MAX {
                self.open.iter().min_by_key(|(_, part)| part.last_used)
            } else if held > HELD_BYTES_MAX {
                self.open.iter().max_by_key(|(_, part)| part.held_bytes())
            } else {
                None
            };
            let Some(folder) = victim.map(|(folder, _)| Arc::clone(folder)) else { return Ok(()) };
            if let Some(part) = self.open.remove(&folder) {
                self.close(folder, part)?;
            }
        }
    }

    fn close(&mut self, folder: Arc<str>, part: OpenPart) -> Result<()> {
        self.closed.push((folder, part.close()?));
        Ok(())
    }

    fn prepare(&mut self, epoch: Epoch) -> Result<Vec<Part>> {
        for (folder, part) in std::mem::take(&mut self.open) {
            self.close(folder, part)?;
        }
        self.prepared = epoch;
        self.created = 0;
        let closed = std::mem::take(&mut self.closed);
        let folders: BTreeSet<&Arc<str>> = closed.iter().map(|(folder, _)| folder).collect();
        for folder in folders {
            self.target.disk.sync_folder(&self.folder(folder))?;
        }
        let (extension, mut counts) = (self.target.extension(), BTreeMap::new());
        let part = |(folder, from): (Arc<str>, String)| {
            let count: &mut usize = counts.entry(Arc::clone(&folder)).or_default();
            let to = part_name::finished(&self.target.run, self.target.subtask, epoch, *count, &extension);
            *count = count.saturating_add(1);
            Part { folder: folder.to_string(), from, to }
        };
        Ok(closed.into_iter().map(part).collect())
    }

    fn folder(&self, folder: &str) -> std::path::PathBuf {
        if folder.is_empty() { self.target.path.clone() } else { Path::join(&self.target.path, folder) }
    }
}

impl SinkWriter for FileWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<Progress> {
        self.guarded(|writer| match batch.num_rows() {
            0 => Ok(()),
            _ => writer.append_all(batch),
        })?;
        Ok(Progress::Done)
    }

    fn prepare_commit(&mut self, epoch: Epoch) -> Result<Vec<Committable>> {
        let parts = self.guarded(|writer| writer.prepare(epoch))?;
        parts.iter().map(Part::committable).collect()
    }
}
