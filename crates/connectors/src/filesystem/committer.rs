//! Makes part files visible by renaming them, and clears away what a failed attempt left.
//!
//! A rename is one step, so a part is hidden or visible, never half. Committing again finds the part under its final
//! name and leaves it alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ruslo_core::disk::{Disk, FileKind};
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::sink::{Committable, Committer};
use serde::{Deserialize, Serialize};

use super::{part_name, partition};

/// A part that is complete: its hidden name and its final one, both in one folder. Stored in checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// The folder of its partition, below the sink's; empty without partitions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) folder: String,
    pub(super) from: String,
    pub(super) to: String,
}

impl Part {
    pub(super) fn committable(&self) -> Result<Committable> {
        serde_json::to_value(self).map(Committable).map_err(|error| Error::internal(error.to_string()))
    }

    fn of(committable: &Committable) -> Result<Self> {
        let part: Self = serde_json::from_value(committable.0.clone())
            .map_err(|error| Error::corrupt(format!("committable of a file sink: {error}")))?;
        let is_strange = |name: &String| name.is_empty() || name.contains('/');
        match [&part.from, &part.to].into_iter().any(is_strange) || !partition::is_folder(&part.folder) {
            true => Err(Error::corrupt(format!("committable of a file sink: '{}' to '{}'", part.from, part.to))),
            false => Ok(part),
        }
    }
}

/// The committer of one sink.
pub(super) struct FileCommitter {
    folder: PathBuf,
    run: String,
    /// How deep partitions are.
    depth: usize,
    disk: Arc<dyn Disk>,
}

impl FileCommitter {
    pub(super) fn new(folder: PathBuf, run: String, depth: usize, disk: Arc<dyn Disk>) -> Self {
        Self { folder, run, depth, disk }
    }

    /// The folder of a partition.
    fn folder(&self, folder: &str) -> PathBuf {
        if folder.is_empty() { self.folder.clone() } else { self.folder.join(folder) }
    }

    fn publish(&self, part: &Part) -> Result<()> {
        let folder = self.folder(&part.folder);
        let (from, to) = (folder.join(&part.from), folder.join(&part.to));
        // The final name first: once it is there, what has the hidden name is a later attempt's, which counts from the
        // same name on, and must not come over it.
        if self.disk.kind(&to)?.is_some() {
            return Ok(());
        }
        match self.disk.kind(&from)? {
            Some(_) => self.disk.rename(&from, &to),
            None => Err(Error::corrupt(format!(
                "{}: this output of a completed checkpoint is missing, and so is '{}' from which it is made; if it was \
                 moved on purpose, put an empty file in its place, then resume",
                to.display(),
                part.from
            ))),
        }
    }
}

impl Committer for FileCommitter {
    fn commit(&mut self, committables: &[Committable]) -> Result<()> {
        if committables.is_empty() {
            return Ok(());
        }
        let mut folders = BTreeSet::new();
        for committable in committables {
            let part = Part::of(committable)?;
            self.publish(&part)?;
            folders.insert(part.folder);
        }
        folders.iter().try_for_each(|folder| self.disk.sync_folder(&self.folder(folder)))
    }

    /// All hidden parts of this run go: those of `epoch` and before are committed, and no writer is open. Visible parts
    /// of later epochs go, too: they are there if the checkpoint that committed them was damaged since.
    fn abort_since(&mut self, epoch: Epoch) -> Result<()> {
        self.abort_in(&self.folder, self.depth, epoch)
    }
}

impl FileCommitter {
    /// Removes what is left over in `folder` and the partitions up to `depth` below.
    fn abort_in(&self, folder: &Path, depth: usize, epoch: Epoch) -> Result<()> {
        let entries = self.disk.list(folder)?;
        if let Some(below) = depth.checked_sub(1) {
            let name =
                |path: &&PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.contains('='));
            for entry in entries.iter().filter(name) {
                if self.disk.kind(entry)? == Some(FileKind::Folder) {
                    self.abort_in(entry, below, epoch)?;
                }
            }
        }
        let is_leftover = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            part_name::is_unfinished_of(name, &self.run)
                || part_name::epoch_of_finished(name, &self.run).is_some_and(|of| of > epoch)
        };
        let leftovers: Vec<_> = entries.into_iter().filter(is_leftover).collect();
        if leftovers.is_empty() {
            return Ok(());
        }
        leftovers.iter().try_for_each(|path| self.disk.remove(path))?;
        self.disk.sync_folder(folder)
    }
}
