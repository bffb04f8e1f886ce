//! Where runs are made: a folder of this process, whose files go with it.
//!
//! What a killed process leaves goes when its job is started again. Beside checkpoints on a disk, their lock says that
//! whoever made the other folders is dead. Where checkpoints are in a bucket no lock keeps other processes out; there each
//! folder has one of its own, `<folder>.lock`, which is held as long as its process lives.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ruslo_core::disk::{Disk, DiskLock, DiskWriter, FileKind};
use ruslo_core::error::{Error, Result};

/// A lock file that others remove again and again is nobody's to hold.
const LOCKED_ANEW_MAX: usize = 10;

/// A folder for the runs of this process; made when the first is written, and gone when the last is.
#[derive(Debug, Clone)]
pub struct WorkFolder(Arc<Inner>);

struct Inner {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    next: AtomicU64,
    is_made: AtomicBool,
    /// Whether processes that live may have folders beside this one.
    is_shared: bool,
    /// Of a folder among others: that its process lives.
    lock: Mutex<Option<Box<dyn DiskLock>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkFolder").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// What says that the process of `folder` lives.
fn lock_of(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// Locks the file at `path`, which whoever finds it unlocked may remove.
fn lock(disk: &dyn Disk, path: &Path) -> Result<Box<dyn DiskLock>> {
    for _ in 0..LOCKED_ANEW_MAX {
        // Removed between its creation and the lock, it would be a lock that nobody sees.
        match disk.lock(path)? {
            Some(lock) if disk.kind(path)?.is_some() => return Ok(lock),
            _ => {}
        }
    }
    Err(Error::unavailable(format!("{}: another process keeps this lock of a new folder", path.display())))
}

impl Drop for Inner {
    fn drop(&mut self) {
        if *self.next.get_mut() > 0 {
            // Those that still have files stay, until the next process removes what is left.
            self.disk.remove_folder(&self.folder);
            if self.is_shared
                && let Err(error) = self.disk.remove(&lock_of(&self.folder))
            {
                tracing::debug!(%error, "the lock of a folder that is gone stays");
            }
            self.folder.parent().into_iter().for_each(|all| self.disk.remove_folder(all));
        }
    }
}

impl WorkFolder {
    /// The folder `folder`, which no other process uses.
    pub fn new(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self::made(disk, folder, false)
    }

    /// The folder `folder`, which no other process uses, among those of others that may live.
    pub fn among_others(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self::made(disk, folder, true)
    }

    fn made(disk: Arc<dyn Disk>, folder: PathBuf, is_shared: bool) -> Self {
        let (next, is_made, lock) = (AtomicU64::new(0), AtomicBool::new(false), Mutex::default());
        Self(Arc::new(Inner { disk, folder, next, is_made, is_shared, lock }))
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
            self.say_alive()?;
            self.0.disk.create_folder(&self.0.folder)?;
            self.0.is_made.store(true, Ordering::Release);
        }
        let path = self.0.folder.join(format!("{name}-{number}.arrow"));
        let file = self.0.disk.create(&path)?;
        Ok((path, file))
    }

    /// Before the folder is made: who finds it without a lock that is held removes it.
    fn say_alive(&self) -> Result<()> {
        let mut held = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.is_shared && held.is_none() {
            self.0.folder.parent().map_or(Ok(()), |all| self.0.disk.create_folder(all))?;
            *held = Some(lock(self.0.disk.as_ref(), &lock_of(&self.0.folder))?);
        }
        Ok(())
    }

    /// Removes what dead processes left beside this folder, in the folder of all such folders. Unless it is one among
    /// others, only who holds the lock of the checkpoints may: then nobody else is alive.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove_leftovers(&self) -> Result<()> {
        let Some(all) = self.0.folder.parent() else { return Ok(()) };
        for folder in self.0.disk.list(all)? {
            let is_left = folder != self.0.folder && self.0.disk.kind(&folder)? == Some(FileKind::Folder);
            if is_left && self.0.is_shared {
                self.remove_if_dead(&folder)?;
            } else if is_left {
                self.remove(&folder)?;
            }
        }
        Ok(())
    }

    fn remove(&self, folder: &Path) -> Result<()> {
        self.0.disk.list(folder)?.iter().try_for_each(|path| self.0.disk.remove(path))?;
        self.0.disk.remove_folder(folder);
        Ok(())
    }

    fn remove_if_dead(&self, folder: &Path) -> Result<()> {
        let path = lock_of(folder);
        let Some(_held) = self.0.disk.lock(&path)? else { return Ok(()) };
        self.remove(folder)?;
        self.0.disk.remove(&path)
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

    #[test]
    fn among_others_only_the_dead_are_cleared_away() {
        let folder = tempfile::tempdir().unwrap();
        let work = |name: &str| WorkFolder::among_others(Arc::new(LocalDisk), folder.path().join("job").join(name));
        let names = || {
            let paths = LocalDisk.list(&folder.path().join("job")).unwrap().into_iter();
            paths.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let alive = work("alive");
        let kept = alive.create("t").unwrap().0;
        // A process that was killed: its files are there, and nobody holds its lock. One was killed before it had files.
        let dead = folder.path().join("job/dead");
        LocalDisk.create_folder(&dead).unwrap();
        LocalDisk.write_synced(&dead.join("t-0.arrow"), b"rows").unwrap();
        LocalDisk.write_synced(&lock_of(&dead), b"").unwrap();
        LocalDisk.create_folder(&folder.path().join("job/0.1")).unwrap();
        assert_eq!(names(), ["0.1", "alive", "alive.lock", "dead", "dead.lock"]);
        let new = work("new");
        new.remove_leftovers().unwrap();
        assert_eq!(names(), ["alive", "alive.lock"]);
        assert!(LocalDisk.kind(&kept).unwrap().is_some());
        let made = new.create("t").unwrap().0;
        alive.remove_leftovers().unwrap();
        assert_eq!(names(), ["alive", "alive.lock", "new", "new.lock"]);
        [&kept, &made].into_iter().for_each(|path| LocalDisk.remove(path).unwrap());
        drop((alive, new));
        assert!(LocalDisk.kind(&folder.path().join("job")).unwrap().is_none(), "{:?}", names());
    }

    #[test]
    fn a_lock_that_is_removed_before_it_is_held_is_made_anew() {
        #[derive(Debug)]
        struct Removing(AtomicU64);
        impl Disk for Removing {
            fn lock(&self, path: &Path) -> Result<Option<Box<dyn DiskLock>>> {
                let held = LocalDisk.lock(path)?;
                if self.0.fetch_sub(1, Ordering::Relaxed) > 0 {
                    LocalDisk.remove(path)?;
                }
                Ok(held)
            }
            fn kind(&self, path: &Path) -> Result<Option<FileKind>> {
                LocalDisk.kind(path)
            }
            fn open(&self, path: &Path) -> Result<Box<dyn ruslo_core::disk::DiskReader>> {
                LocalDisk.open(path)
            }
            fn create(&self, path: &Path) -> Result<Box<dyn DiskWriter>> {
                LocalDisk.create(path)
            }
            fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
                LocalDisk.list(folder)
            }
            fn rename(&self, from: &Path, to: &Path) -> Result<()> {
                LocalDisk.rename(from, to)
            }
            fn publish(&self, from: &Path, to: &Path) -> Result<bool> {
                LocalDisk.publish(from, to)
            }
            fn remove(&self, path: &Path) -> Result<()> {
                LocalDisk.remove(path)
            }
            fn create_folder(&self, path: &Path) -> Result<()> {
                LocalDisk.create_folder(path)
            }
            fn sync_folder(&self, path: &Path) -> Result<()> {
                LocalDisk.sync_folder(path)
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.lock");
        let held = lock(&Removing(AtomicU64::new(2)), &path).unwrap();
        assert!(LocalDisk.lock(&path).unwrap().is_none(), "others see it");
        drop(held);
    }
}
