//! This machine's files, until the process is killed, by itself, at one point of the protocol.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ruslo::Result;
use ruslo::core::disk::{Disk, DiskLock, DiskReader, DiskWriter, FileKind, LocalDisk};

/// Where the process dies: `op` is done for the `skip`th time after the first on a path with `place` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) op: String,
    pub(crate) place: String,
    /// Whether the operation is done before.
    pub(crate) is_after: bool,
    pub(crate) skip: u64,
}

/// The operations at the edges of the protocol, and where they are done. What is written under `runs` and `manifests`
/// makes a checkpoint; `out` has the output.
pub(crate) const EDGES: [(&str, &str); 13] = [
    ("create", "/runs"),
    ("sync", "/runs"),
    ("sync-folder", "/runs"),
    ("create", "/manifests"),
    ("sync", "/manifests"),
    ("publish", "/manifests"),
    ("remove", "/manifests"),
    ("sync-folder", "/manifests"),
    ("remove", "/runs"),
    ("create", "out/"),
    ("sync", "out/"),
    ("rename", "out/"),
    ("sync-folder", "out"),
];

#[derive(Debug, Clone)]
pub(crate) struct DyingDisk(Arc<(Edge, AtomicI64)>);

impl DyingDisk {
    pub(crate) fn new(edge: Edge) -> Self {
        let left = AtomicI64::new(edge.skip as i64);
        Self(Arc::new((edge, left)))
    }

    fn at<T>(&self, op: &str, path: &Path, work: impl FnOnce() -> T) -> T {
        let (edge, left) = &*self.0;
        let is_it = edge.op == op
            && path.display().to_string().contains(&edge.place)
            && left.fetch_sub(1, Ordering::Relaxed) == 0;
        if is_it && !edge.is_after {
            die();
        }
        let done = work();
        if is_it {
            die();
        }
        done
    }
}

fn die() -> ! {
    let _ = signal_hook::low_level::raise(signal_hook::consts::SIGKILL);
    std::process::abort()
}

struct Writer(Box<dyn DiskWriter>, PathBuf, DyingDisk);

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
        let (file, disk) = (&mut self.0, &self.2);
        disk.at("sync", &self.1, || file.sync())
    }
}

impl Disk for DyingDisk {
    fn open(&self, path: &Path) -> Result<Box<dyn DiskReader>> {
        LocalDisk.open(path)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn DiskWriter>> {
        let file = self.at("create", path, || LocalDisk.create(path))?;
        Ok(Box::new(Writer(file, path.to_owned(), self.clone())))
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
        self.at("rename", from, || LocalDisk.rename(from, to))
    }

    fn publish(&self, from: &Path, to: &Path) -> Result<bool> {
        self.at("publish", from, || LocalDisk.publish(from, to))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.at("remove", path, || LocalDisk.remove(path))
    }

    fn create_folder(&self, path: &Path) -> Result<()> {
        LocalDisk.create_folder(path)
    }

    fn sync_folder(&self, path: &Path) -> Result<()> {
        self.at("sync-folder", path, || LocalDisk.sync_folder(path))
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DiskLock>>> {
        LocalDisk.lock(path)
    }
}
