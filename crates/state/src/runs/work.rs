//! Where runs are made: a folder of this process, whose files go with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ruslo_core::disk::{Disk, DiskWriter, FileKind};
use ruslo_core::error::Result;

/// A folder for the runs of this process; made when the first is written, and gone when the last is.
#[derive(Debug, Clone)]
pub struct WorkFolder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    next: AtomicU64,
    is_made: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if *self.next.get_mut() > 0 {
            // Those that still have files stay, until the next process removes what is left.
            self.disk.remove_folder(&self.folder);
            self.folder.parent().into_iter().for_each(|all| self.disk.remove_folder(all));
        }
    }
}

impl WorkFolder {
    /// The folder `folder`, which no other process uses.
    pub fn new(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self(Arc::new(Inner { disk, folder, next: AtomicU64::new(0), is_made: AtomicBool::new(false) }))
    }

    /// Where files are.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.0.disk
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// A new file; `name` is for people.
    pub(crate) fn create(&self, name: &str) -> Result<(PathBuf, Box<dyn DiskWriter>)> {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        // Several tasks may be the first at once: each of them sees to it that the folder is there.
        if !self.0.is_made.load(Ordering::Acquire) {
            self.0.disk.create_folder(&self.0.folder)?;
            self.0.is_made.store(true, Ordering::Release);
        }
        let path = self.0.folder.join(format!("{name}-{number}.arrow"));
        let file = self.0.disk.create(&path)?;
        Ok((path, file))
    }

    /// Removes what dead processes left beside this folder, in the folder of all such folders. Only who holds the lock
    /// of the checkpoints may: then nobody else is alive.
    pub fn remove_leftovers(&self) -> Result<()> {
        let Some(all) = self.0.folder.parent() else { return Ok(()) };
        for folder in self.0.disk.list(all)? {
            let is_left = folder != self.0.folder && self.0.disk.kind(&folder)? == Some(FileKind::Folder);
            if is_left {
                self.0.disk.list(&folder)?.iter().try_for_each(|path| self.0.disk.remove(path))?;
                self.0.disk.remove_folder(&folder);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ruslo_core::disk::LocalDisk;

    use super::*;

    #[test]
    fn leftovers_of_the_dead_go_and_what_is_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let work = |name: &str| WorkFolder::new(Arc::new(LocalDisk), folder.path().join(name));
        let (dead, alive) = (work("dead"), work("alive"));
        let dead = dead.create("t").unwrap().0;
        let kept = alive.create("t").unwrap().0;
        alive.remove_leftovers().unwrap();
        assert_eq!(LocalDisk.kind(&dead).unwrap(), None);
        assert_eq!(LocalDisk.kind(dead.parent().unwrap()).unwrap(), None);
        assert!(LocalDisk.kind(&kept).unwrap().is_some());
    }
}
