//! Where checkpoints are kept.
//!
//! ```text
//! <folder>/lock                                          held by the process that writes here
//! <folder>/manifests/00000000000000000012.json           one a checkpoint, created in one step, never changed
//! <folder>/runs/12-<operator>-<subtask>-<table>-<attempt>.arrow   the runs that were new in epoch 12
//! <folder>/work/<attempt>/                               runs of keyed tables that no checkpoint has yet, of one process
//! ```
//!
//! Opening and looking are here; `write` makes checkpoints, `restore` reads them back, `copy` takes runs into another store,
//! `garbage` removes what nobody names any more.
//!
//! The folder is one of a disk or a prefix of a bucket: the [`Storage`] beneath knows. A manifest is created under its
//! number only if nobody has that number yet. Who loses that race is fenced: another process runs this pipeline now.

mod copy;
mod garbage;
mod restore;
#[cfg(test)]
mod tests;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ruslo_core::disk::{Disk, DiskLock, LocalDisk};
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};

use crate::manifest::{Manifest, RunRef};
use crate::runs::WorkFolder;
use crate::storage::{self, LocalStorage, Storage};

pub use self::restore::{Restored, RestoredRuns};

const MANIFESTS: &str = "manifests";
const RUNS: &str = "runs";
const WORK: &str = "work";

/// A folder of checkpoints.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    storage: Arc<dyn Storage>,
    /// Where it is, for people.
    folder: PathBuf,
    /// Tells this process's files from those of an earlier or a parallel one.
    attempt: String,
    work: WorkFolder,
}

impl CheckpointStore {
    /// The store in `folder` of `disk`, which is created if it is missing. `attempt` is a name that no other process
    /// uses.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, attempt: impl Into<String>) -> Result<Self> {
        let attempt = attempt.into();
        let store = Self::over(Arc::new(LocalStorage::new(disk, folder.to_owned(), &attempt)), attempt);
        store.prepare()?;
        Ok(store)
    }

    /// The store at `location`, a folder or `s3://bucket/prefix`, made ready to be written.
    pub fn at(disk: Arc<dyn Disk>, location: &Path, attempt: impl Into<String>) -> Result<Self> {
        let attempt = attempt.into();
        let store = Self::over(storage::open(disk, location, &attempt)?, attempt);
        store.check_free()?;
        store.prepare()?;
        Ok(store)
    }

    /// The store at `location` to look at: nothing is created.
    ///
    /// # Errors
    /// `Usage`, if there is none.
    pub fn existing(disk: Arc<dyn Disk>, location: &Path) -> Result<Self> {
        let reader = format!("reader-{:016x}", ruslo_core::rng::Rng::from_os().next_u64());
        let store = Self::over(storage::open(disk, location, &reader)?, reader);
        let at = location.display();
        if let Some((disk, folder)) = store.storage.local() {
            if disk.kind(folder)?.is_none() {
                return Err(Error::usage(format!("{at}: no such folder")));
            }
            if disk.kind(&folder.join(MANIFESTS))?.is_none() {
                return Err(Error::usage(format!("{at}: this is no checkpoint folder: it has no '{MANIFESTS}' in it")));
            }
        } else if store.epochs()?.is_empty() && store.run_files()?.is_empty() {
            return Err(Error::usage(format!("{at}: there are no checkpoints")));
        }
        Ok(store)
    }

    /// The store over `storage`, which must be ready if anything is to be written.
    pub fn over(storage: Arc<dyn Storage>, attempt: impl Into<String>) -> Self {
        let (folder, attempt) = (storage.describe("").into(), attempt.into());
        let work = work_folder(storage.as_ref(), &attempt);
        Self { storage, folder, attempt, work }
    }

    /// That a folder of something else does not become one of checkpoints by accident.
    fn check_free(&self) -> Result<()> {
        let Some((disk, folder)) = self.storage.local() else { return Ok(()) };
        if disk.kind(folder)?.is_none() {
            return Ok(());
        }
        let names = self.storage.list("")?;
        let is_known = names.iter().any(|name| [MANIFESTS, RUNS, "lock", "spill"].contains(&name.as_str()));
        let foreign = names.iter().find(|name| !name.starts_with('.') && *name != "lost+found");
        match foreign {
            Some(foreign) if !is_known => Err(Error::usage(format!(
                "{}: this is no checkpoint folder: it has '{foreign}' in it, and no checkpoints; name an empty or a new \
                 folder",
                folder.display()
            ))),
            _ => Ok(()),
        }
    }

    fn prepare(&self) -> Result<()> {
        self.storage.prepare(&[MANIFESTS, RUNS])
    }

    /// Keeps other processes out for as long as the lock is held; in a bucket it keeps nobody out, and the first of two
    /// processes is fenced when the second takes over.
    ///
    /// # Errors
    /// `Fenced`, if another process is running on this folder.
    pub fn lock(&self) -> Result<Box<dyn DiskLock>> {
        let lock = self.storage.lock()?.ok_or_else(|| {
            Error::fenced(format!(
                "another process is running on the checkpoints in {}; stop it first, or give this one another --checkpoint-dir",
                self.folder.display()
            ))
        })?;
        self.work.remove_leftovers()?;
        Ok(lock)
    }

    /// Where this store is, for people: for one in a bucket, its address.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where this store is on a disk of this machine, if it is.
    pub fn local_folder(&self) -> Option<&Path> {
        self.storage.local().map(|(_, folder)| folder)
    }

    /// What is beneath.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The name that no other process uses.
    pub fn attempt(&self) -> &str {
        &self.attempt
    }

    /// The epochs that have a manifest, ascending, damaged ones included.
    pub fn epochs(&self) -> Result<Vec<Epoch>> {
        let names = self.storage.list(MANIFESTS)?;
        let mut epochs: Vec<_> = names.iter().filter_map(|name| epoch_of_manifest(name)).collect();
        epochs.sort();
        Ok(epochs)
    }

    /// The names of all files of runs.
    pub fn run_files(&self) -> Result<Vec<String>> {
        Ok(self.storage.list(RUNS)?.into_iter().filter(|name| leading_epoch(name).is_some()).collect())
    }

    /// How many bytes a file of runs has; `None` if there is none.
    pub fn run_size(&self, file: &str) -> Result<Option<u64>> {
        self.storage.size(&run_key(file))
    }

    /// The bytes of a run, as they are.
    pub fn run_bytes(&self, run: &RunRef) -> Result<Vec<u8>> {
        self.storage.get_range(&run_key(&run.file), run.offset..run.offset.saturating_add(run.length))
    }

    /// Where a file of runs is, for people.
    pub fn run_address(&self, file: &str) -> String {
        self.storage.describe(&run_key(file))
    }

    /// Where a manifest is, for people.
    pub fn manifest_address(&self, epoch: Epoch) -> String {
        self.storage.describe(&manifest_key(epoch))
    }

    /// The last epoch that has a manifest, damaged ones included. The one after it is the only one that anybody can be
    /// writing, so who takes that number fences everybody else.
    pub fn last_epoch(&self) -> Result<Epoch> {
        Ok(self.epochs()?.into_iter().next_back().unwrap_or(Epoch::ZERO))
    }

    /// Reads one manifest.
    pub fn load(&self, epoch: Epoch) -> Result<Manifest> {
        let key = manifest_key(epoch);
        let path = self.storage.describe(&key);
        let bytes =
            self.storage.get(&key)?.ok_or_else(|| Error::corrupt(format!("{path}: the manifest is missing")))?;
        let manifest = Manifest::decode(Path::new(&path), &bytes)?;
        if manifest.epoch != epoch {
            return Err(Error::corrupt(format!("{path}: this is the manifest of epoch {}", manifest.epoch)));
        }
        Ok(manifest)
    }

    /// Writes a run file, durably.
    pub(crate) fn write_file(&self, file: &str, bytes: &[u8]) -> Result<()> {
        self.storage.put(&run_key(file), bytes)
    }

    /// Removes all run files: of a store that has no manifest.
    pub(crate) fn remove_runs(&self) -> Result<()> {
        self.storage.list(RUNS)?.iter().try_for_each(|file| self.storage.remove(&run_key(file)))
    }

    /// Where this process makes runs of keyed tables.
    pub fn work_folder(&self) -> &WorkFolder {
        &self.work
    }
}

/// Beside the checkpoints if they are on a disk, so that one file is both a run of this process and of a checkpoint; else
/// in this machine's folder for temporary files, beside those of other processes of the same place.
fn work_folder(storage: &dyn Storage, attempt: &str) -> WorkFolder {
    match storage.local() {
        Some((disk, folder)) => WorkFolder::new(Arc::clone(disk), folder.join(WORK).join(attempt)),
        None => {
            let place = format!("{:08x}", crc32fast::hash(storage.describe("").as_bytes()));
            let all = std::env::temp_dir().join("ruslo-work").join(place);
            WorkFolder::among_others(Arc::new(LocalDisk), all.join(attempt))
        }
    }
}

fn manifest_key(epoch: Epoch) -> String {
    format!("{MANIFESTS}/{:020}.json", epoch.0)
}

fn epoch_of_manifest(name: &str) -> Option<Epoch> {
    let digits = name.strip_suffix(".json").filter(|digits| digits.len() == 20)?;
    digits.parse().ok().map(Epoch)
}

fn run_key(file: &str) -> String {
    format!("{RUNS}/{file}")
}

/// The epoch whose number a file's name begins with.
fn leading_epoch(name: &str) -> Option<Epoch> {
    name.split(['-', '.']).next()?.parse().ok().map(Epoch)
}
