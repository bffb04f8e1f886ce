//! A disk for tests that fails on demand.

use std::io::{self, ErrorKind as Io, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ruslo_core::disk::{Disk, DiskLock, DiskReader, DiskWriter, FileKind, LocalDisk};
use ruslo_core::error::{Error, Result};

/// What goes wrong from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Open(Io),
    Write(Io),
    Sync(Io),
    Rename(Io),
}

/// This machine's disk, with a fault.
#[derive(Debug, Clone)]
pub(super) struct FaultyDisk(Arc<Mutex<Fault>>);

impl FaultyDisk {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Fault::None)))
    }

    pub(super) fn set(&self, fault: Fault) {
        *self.0.lock().unwrap() = fault;
    }

    fn fault(&self) -> Fault {
        *self.0.lock().unwrap()
    }
}

struct FaultyWriter(Box<dyn DiskWriter>, FaultyDisk);

impl Write for FaultyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.1.fault() {
            Fault::Write(kind) => Err(io::Error::from(kind)),
            _ => self.0.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl DiskWriter for FaultyWriter {
    fn sync(&mut self) -> io::Result<()> {
        match self.1.fault() {
            Fault::Sync(kind) => Err(io::Error::from(kind)),
            _ => self.0.sync(),
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path) -> Result<Box<dyn DiskReader>> {
        match self.fault() {
            Fault::Open(kind) => Err(Error::io(path.display(), &io::Error::from(kind))),
            _ => LocalDisk.open(path),
        }
    }
    fn create(&self, path: &Path) -> Result<Box<dyn DiskWriter>> {
        Ok(Box::new(FaultyWriter(LocalDisk.create(path)?, self.clone())))
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
        match self.fault() {
            Fault::Rename(kind) => Err(Error::io(from.display(), &io::Error::from(kind))),
            _ => LocalDisk.rename(from, to),
        }
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
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DiskLock>>> {
        LocalDisk.lock(path)
    }
}
