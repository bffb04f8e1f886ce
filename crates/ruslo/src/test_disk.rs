//! A disk for tests: one operation on it goes wrong, and who goes on with what a failed sync has spoilt is found out.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ruslo_core::disk::{Disk, DiskLock, DiskReader, DiskWriter, FileKind, LocalDisk};
use ruslo_core::error::{Error, Result};

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Create,
    Sync,
    Rename,
    Publish,
    SyncFolder,
}

/// What happens then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// An input/output error, so many times in turn.
    Fail(u32),
    Panic,
}

/// Which operation goes wrong: after `skip` others of its kind on a path with `place` in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) op: Op,
    pub(crate) place: &'static str,
    pub(crate) skip: u32,
    pub(crate) effect: Effect,
}

#[derive(Debug, Default)]
struct State {
    fault: Option<Fault>,
    /// Files whose sync has failed, and that have not been created anew.
    spoilt: BTreeSet<PathBuf>,
    sins: Vec<String>,
    /// Manifests that became durable.
    published: u64,
}

/// This machine's files, with a fault.
#[derive(Debug, Clone)]
pub(crate) struct FaultyDisk(Arc<Mutex<State>>);

impl FaultyDisk {
    pub(crate) fn new(fault: Fault) -> Self {
        Self(Arc::new(Mutex::new(State { fault: Some(fault), ..State::default() })))
    }

    /// Whether the fault has happened.
    pub(crate) fn is_over(&self) -> bool {
        self.0.lock().unwrap().fault.is_none()
    }

    /// How many manifests were published.
    pub(crate) fn published(&self) -> u64 {
        self.0.lock().unwrap().published
    }

    /// What was done with spoilt files.
    pub(crate) fn sins(&self) -> Vec<String> {
        self.0.lock().unwrap().sins.clone()
    }

    fn reach(&self, op: Op, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if matches!(op, Op::Sync | Op::Rename | Op::Publish) && state.spoilt.contains(path) {
            state.sins.push(format!("{op:?} of {}", path.display()));
        }
        if op == Op::Create {
            state.spoilt.remove(path);
        }
        let Some(fault) = state.fault.as_mut() else { return Ok(()) };
        if fault.op != op || !path.display().to_string().contains(fault.place) {
            return Ok(());
        }
        if fault.skip > 0 {
            fault.skip -= 1;
            return Ok(());
        }
        match &mut fault.effect {
            Effect::Fail(times @ 2..) => *times -= 1,
            Effect::Fail(_) => state.fault = None,
            Effect::Panic => {
                state.fault = None;
                drop(state);
                panic!("{op:?} of {} panics", path.display());
            }
        }
        if op == Op::Sync {
            state.spoilt.insert(path.to_owned());
        }
        Err(io::Error::other("Input/output error"))
    }

    fn check(&self, op: Op, path: &Path) -> Result<()> {
        self.reach(op, path).map_err(|error| Error::io(path.display(), &error))
    }
}

struct Writer(Box<dyn DiskWriter>, PathBuf, FaultyDisk);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl DiskWriter for Writer {
    fn sync(&mut self) -> io::Result<()> {
        self.2.reach(Op::Sync, &self.1)?;
        self.0.sync()
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path) -> Result<Box<dyn DiskReader>> {
        LocalDisk.open(path)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn DiskWriter>> {
        self.check(Op::Create, path)?;
        Ok(Box::new(Writer(LocalDisk.create(path)?, path.to_owned(), self.clone())))
    }

    fn kind(&self, path: &Path) -> Result<Option<FileKind>> {
        LocalDisk.kind(path)
    }

    fn modified(&self, path: &Path) -> Result<Option<i64>> {
        LocalDisk.modified(path)
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        LocalDisk.list(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.check(Op::Rename, from)?;
        LocalDisk.rename(from, to)
    }

    fn publish(&self, from: &Path, to: &Path) -> Result<bool> {
        self.check(Op::Publish, from)?;
        let is_published = LocalDisk.publish(from, to)?;
        if is_published && to.display().to_string().contains("/manifests/") {
            self.0.lock().unwrap().published += 1;
        }
        Ok(is_published)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        LocalDisk.remove(path)
    }

    fn create_folder(&self, path: &Path) -> Result<()> {
        LocalDisk.create_folder(path)
    }

    fn sync_folder(&self, path: &Path) -> Result<()> {
        self.check(Op::SyncFolder, path)?;
        LocalDisk.sync_folder(path)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DiskLock>>> {
        LocalDisk.lock(path)
    }
}
