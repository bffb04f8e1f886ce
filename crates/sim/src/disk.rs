//! A disk in memory that forgets what was not synced.
//!
//! A [`Machine`] has the files; each process sees them through its own [`SimDisk`]. Killing a process loses nothing but
//! its locks. [`Machine::power_cut`] loses of each file's unsynced bytes all but a random beginning (a torn write), and
//! of the names that were created, moved or removed since the last sync of their folder each one or not, as chance has
//! it. A sync of a file that failed has lost what it should have kept, whatever a later sync says.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ruslo_core::disk::{Disk, DiskLock, DiskReader, DiskWriter, FileKind};
use ruslo_core::error::{Error, Result};
use ruslo_core::rng::Rng;

use crate::process::{Area, Op, Point, Process, Verdict};
use crate::trace::Trace;

#[derive(Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    /// So many of them would survive.
    synced: usize,
    /// A sync failed: no later one helps.
    spoilt: bool,
}

/// A change of names that no sync has made durable yet.
#[derive(Debug, Clone)]
enum Change {
    Name(PathBuf, u64),
    Gone(PathBuf),
    Renamed { from: PathBuf, to: PathBuf, inode: u64 },
    Folder(PathBuf),
}

impl Change {
    fn is_in(&self, folder: &Path) -> bool {
        let inside = |path: &PathBuf| path.parent() == Some(folder);
        match self {
            Self::Name(path, _) | Self::Gone(path) | Self::Folder(path) => inside(path),
            Self::Renamed { from, to, .. } => inside(from) || inside(to),
        }
    }
}

/// Which names and folders there are.
#[derive(Debug, Clone, Default)]
struct Names {
    files: BTreeMap<PathBuf, u64>,
    folders: BTreeSet<PathBuf>,
}

impl Names {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Name(path, inode) => _ = self.files.insert(path, inode),
            Change::Gone(path) => _ = self.files.remove(&path),
            Change::Renamed { from, to, inode } => {
                self.files.remove(&from);
                self.files.insert(to, inode);
            }
            Change::Folder(path) => _ = self.folders.insert(path),
        }
    }

    fn has_folder(&self, path: &Path) -> bool {
        path.parent().is_none() || self.folders.contains(path)
    }

    /// What is in a folder that does not exist does not exist.
    fn prune(&mut self) {
        let folders = self.folders.clone();
        let reachable = |path: &Path| path.ancestors().skip(1).all(|up| up.parent().is_none() || folders.contains(up));
        self.folders.retain(|path| reachable(path));
        self.files.retain(|path, _| reachable(path));
    }
}

#[derive(Debug, Default)]
struct Files {
    inodes: BTreeMap<u64, Inode>,
    names: Names,
    durable: Names,
    pending: Vec<Change>,
    locks: BTreeMap<PathBuf, u64>,
    /// Every name that was published, and by which process, in order; [`WITHDRAWN`] if that one removed it again.
    published: Vec<(PathBuf, u64)>,
}

/// Instead of a process: it has removed what it published.
pub const WITHDRAWN: u64 = u64::MAX;

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl Files {
    fn change(&mut self, change: Change) {
        self.names.apply(change.clone());
        self.pending.push(change);
    }

    fn inode(&self, path: &Path) -> io::Result<u64> {
        self.names.files.get(path).copied().ok_or_else(missing)
    }

    fn need_parent(&self, path: &Path) -> io::Result<()> {
        path.parent().is_some_and(|parent| self.names.has_folder(parent)).then_some(()).ok_or_else(missing)
    }

    fn create(&mut self, path: &Path) -> io::Result<u64> {
        self.need_parent(path)?;
        if self.names.files.contains_key(path) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let inode = self.inodes.last_key_value().map_or(0, |(last, _)| last + 1);
        self.inodes.insert(inode, Inode::default());
        self.change(Change::Name(path.to_owned(), inode));
        Ok(inode)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.inode(from)?;
        self.need_parent(to)?;
        self.change(Change::Renamed { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn publish(&mut self, from: &Path, to: &Path, process: u64) -> io::Result<bool> {
        let inode = self.inode(from)?;
        self.need_parent(to)?;
        if self.names.files.contains_key(to) {
            return Ok(false);
        }
        self.published.push((to.to_owned(), process));
        self.change(Change::Name(to.to_owned(), inode));
        Ok(true)
    }

    fn create_folder(&mut self, path: &Path) {
        let missing: Vec<_> =
            path.ancestors().filter(|folder| !self.names.has_folder(folder)).map(Path::to_owned).collect();
        missing.into_iter().rev().for_each(|folder| self.change(Change::Folder(folder)));
    }

    fn sync_folder(&mut self, folder: &Path) -> io::Result<()> {
        if !self.names.has_folder(folder) {
            return Err(missing());
        }
        let (now, later) = std::mem::take(&mut self.pending).into_iter().partition(|change| change.is_in(folder));
        self.pending = later;
        let now: Vec<Change> = now;
        now.into_iter().for_each(|change| self.durable.apply(change));
        Ok(())
    }

    fn power_cut(&mut self, rng: &mut Rng) {
        for inode in self.inodes.values_mut() {
            let unsynced = inode.bytes.len() - inode.synced;
            let torn = if inode.spoilt || rng.one_in(2) { 0 } else { rng.below(unsynced + 1) };
            inode.bytes.truncate(inode.synced + torn);
            (inode.synced, inode.spoilt) = (inode.bytes.len(), false);
        }
        for change in std::mem::take(&mut self.pending) {
            if rng.one_in(2) {
                self.durable.apply(change);
            }
        }
        self.durable.prune();
        self.names = self.durable.clone();
        self.locks.clear();
    }
}

/// A machine's files.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    files: Arc<Mutex<Files>>,
    trace: Trace,
}

impl Machine {
    /// A machine with an empty disk.
    pub fn new(trace: Trace) -> Self {
        Self { files: Arc::default(), trace }
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as `process` sees it.
    pub fn disk(&self, process: &Arc<Process>) -> SimDisk {
        SimDisk { machine: self.clone(), process: Arc::clone(process) }
    }

    /// What a process held goes with it.
    pub fn release_locks(&self, process: u64) {
        self.files().locks.retain(|_, holder| *holder != process);
    }

    /// Loses what was not synced.
    pub fn power_cut(&self, rng: &mut Rng) {
        self.files().power_cut(rng);
    }

    /// The bytes of a file, whatever of them is durable.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let files = self.files();
        let inode = files.names.files.get(path)?;
        files.inodes.get(inode).map(|inode| inode.bytes.clone())
    }

    /// Changes a file's bytes, durably and behind everybody's back; `None` removes it.
    pub fn tamper(&self, path: &Path, bytes: Option<Vec<u8>>) {
        let mut files = self.files();
        match bytes {
            None => {
                files.names.files.remove(path);
                files.durable.files.remove(path);
            }
            Some(bytes) => {
                let inode = files.inode(path).unwrap();
                files.inodes.insert(inode, Inode { synced: bytes.len(), bytes, spoilt: false });
            }
        }
    }

    /// The files in a folder, in order.
    pub fn paths_in(&self, folder: &Path) -> Vec<PathBuf> {
        self.files().names.files.keys().filter(|path| path.parent() == Some(folder)).cloned().collect()
    }

    /// Every name that was ever published, with the process that did.
    pub fn published(&self) -> Vec<(PathBuf, u64)> {
        self.files().published.clone()
    }
}

/// A machine's disk, as one process sees it.
#[derive(Debug, Clone)]
pub struct SimDisk {
    machine: Machine,
    process: Arc<Process>,
}

fn area(path: &Path) -> Area {
    let is_in = |name: &str| path.components().any(|part| part.as_os_str() == name);
    match (is_in("manifests"), is_in("runs")) {
        (true, _) => Area::Manifests,
        (_, true) => Area::Runs,
        _ => Area::Other,
    }
}

fn killed() -> io::Error {
    io::Error::other("the process was killed")
}

impl SimDisk {
    /// Does `work` if the process lives long enough; `Err` without doing it, if it is to fail.
    fn guarded<T>(&self, op: Op, path: &Path, work: impl FnOnce(&mut Files) -> io::Result<T>) -> io::Result<T> {
        let verdict = self.process.reach(Point::Disk(op, area(path)));
        self.machine
            .trace
            .event(path.to_str().unwrap_or_default(), &[self.process.id, op as u64, verdict_word(verdict)]);
        match verdict {
            Verdict::Go => work(&mut self.machine.files()),
            Verdict::LastBreath => work(&mut self.machine.files()).and_then(|_| Err(killed())),
            Verdict::Dead => Err(killed()),
            Verdict::Fail(kind) => Err(io::Error::from(kind)),
        }
    }

    fn run<T>(&self, op: Op, path: &Path, work: impl FnOnce(&mut Files) -> io::Result<T>) -> Result<T> {
        self.guarded(op, path, work).map_err(|error| Error::io(path.display(), &error))
    }
}

fn verdict_word(verdict: Verdict) -> u64 {
    match verdict {
        Verdict::Go => 0,
        Verdict::LastBreath => 1,
        Verdict::Dead => 2,
        Verdict::Fail(_) => 3,
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> Result<Box<dyn DiskReader>> {
        let bytes = self.run(Op::Open, path, |files| {
            let inode = files.inode(path)?;
            files.inodes.get(&inode).map(|inode| inode.bytes.clone()).ok_or_else(missing)
        })?;
        Ok(Box::new(Cursor::new(bytes)))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn DiskWriter>> {
        let inode = self.run(Op::Create, path, |files| files.create(path))?;
        Ok(Box::new(SimWriter { disk: self.clone(), path: path.to_owned(), inode }))
    }

    fn kind(&self, path: &Path) -> Result<Option<FileKind>> {
        let files = self.machine.files();
        let file = files.names.files.get(path).and_then(|inode| files.inodes.get(inode));
        Ok(match file {
            Some(inode) => Some(FileKind::File(inode.bytes.len() as u64)),
            None => files.names.has_folder(path).then_some(FileKind::Folder),
        })
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        self.run(Op::List, folder, |files| {
            let all = files.names.files.keys().chain(&files.names.folders);
            let mut paths: Vec<_> = all.filter(|path| path.parent() == Some(folder)).cloned().collect();
            paths.sort();
            Ok(paths)
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.run(Op::Rename, from, |files| files.rename(from, to))
    }

    fn publish(&self, from: &Path, to: &Path) -> Result<bool> {
        self.run(Op::Publish, to, |files| files.publish(from, to, self.process.id))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.run(Op::Remove, path, |files| {
            if files.names.files.contains_key(path) {
                files.change(Change::Gone(path.to_owned()));
                let own = |(name, by): &(PathBuf, u64)| name == path && *by == self.process.id;
                files.published.iter_mut().rfind(|entry| own(entry)).into_iter().for_each(|entry| entry.1 = WITHDRAWN);
            }
            Ok(())
        })
    }

    fn create_folder(&self, path: &Path) -> Result<()> {
        self.run(Op::CreateFolder, path, |files| {
            files.create_folder(path);
            Ok(())
        })
    }

    fn sync_folder(&self, path: &Path) -> Result<()> {
        self.run(Op::SyncFolder, path, |files| files.sync_folder(path))
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DiskLock>>> {
        let held = self.run(Op::Lock, path, |files| {
            files.need_parent(path)?;
            let holder = *files.locks.entry(path.to_owned()).or_insert(self.process.id);
            Ok(holder == self.process.id)
        })?;
        Ok(held.then(|| Box::new(SimLock { disk: self.clone(), path: path.to_owned() }) as Box<dyn DiskLock>))
    }
}

/// Gone when dropped, or with its process.
struct SimLock {
    disk: SimDisk,
    path: PathBuf,
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut files = self.disk.machine.files();
        if files.locks.get(&self.path) == Some(&self.disk.process.id) {
            files.locks.remove(&self.path);
        }
    }
}

struct SimWriter {
    disk: SimDisk,
    path: PathBuf,
    inode: u64,
}

impl Write for SimWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.machine.trace.bytes(bytes);
        let append = |files: &mut Files, bytes: &[u8]| {
            let inode = files.inodes.get_mut(&self.inode).ok_or_else(missing)?;
            inode.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        };
        let was_dead = self.disk.process.is_dead();
        let result = self.disk.guarded(Op::Write, &self.path, |files| append(files, bytes));
        if result.is_err() && !was_dead {
            // What fails half-way leaves half of it.
            append(&mut self.disk.machine.files(), &bytes[..bytes.len() / 2])?;
        }
        result
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskWriter for SimWriter {
    fn sync(&mut self) -> io::Result<()> {
        let result = self.disk.guarded(Op::Sync, &self.path, |files| {
            let inode = files.inodes.get_mut(&self.inode).ok_or_else(missing)?;
            if !inode.spoilt {
                inode.synced = inode.bytes.len();
            }
            Ok(())
        });
        if result.is_err()
            && !self.disk.process.is_dead()
            && let Some(inode) = self.disk.machine.files().inodes.get_mut(&self.inode)
        {
            inode.spoilt = true;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Effect, Trigger, Watch};

    fn disk(machine: &Machine, triggers: Vec<Trigger>) -> SimDisk {
        machine.disk(&Arc::new(Process::new(1, triggers)))
    }

    fn write(disk: &SimDisk, path: &str, synced: &[u8], unsynced: &[u8]) {
        let mut file = disk.create(Path::new(path)).unwrap();
        file.write_all(synced).unwrap();
        file.sync().unwrap();
        file.write_all(unsynced).unwrap();
    }

    fn durable_folder(disk: &SimDisk) {
        disk.create_folder(Path::new("/a")).unwrap();
        disk.sync_folder(Path::new("/")).unwrap();
    }

    #[test]
    fn a_power_cut_leaves_what_was_synced_and_chance_decides_the_rest() {
        let mut lengths = BTreeSet::new();
        for seed in 0..256 {
            let machine = Machine::default();
            let disk = disk(&machine, Vec::new());
            durable_folder(&disk);
            write(&disk, "/a/kept", b"123", b"456");
            disk.sync_folder(Path::new("/a")).unwrap();
            write(&disk, "/a/maybe", b"1", b"");
            machine.power_cut(&mut Rng::seeded(seed));
            let kept = machine.bytes(Path::new("/a/kept")).unwrap();
            assert!(b"123456".starts_with(&kept) && kept.len() >= 3);
            lengths.insert((kept.len(), machine.bytes(Path::new("/a/maybe")).is_some()));
        }
        assert_eq!(lengths.len(), 8, "every torn length, with and without the name");
    }

    #[test]
    fn a_folder_that_was_never_synced_may_go_with_all_that_is_in_it() {
        let gone = (0..64).filter(|seed| {
            let machine = Machine::default();
            let disk = disk(&machine, Vec::new());
            disk.create_folder(Path::new("/a/b")).unwrap();
            write(&disk, "/a/b/file", b"1", b"");
            disk.sync_folder(Path::new("/a/b")).unwrap();
            machine.power_cut(&mut Rng::seeded(*seed));
            machine.bytes(Path::new("/a/b/file")).is_none()
        });
        assert!((32..64).contains(&gone.count()));
    }

    #[test]
    fn a_failed_sync_has_lost_its_bytes_whatever_the_next_one_says() {
        let machine = Machine::default();
        let fail = Trigger { watch: Watch::Op(Op::Sync), skip: 0, effect: Effect::Fail(io::ErrorKind::Other, 1) };
        let disk = disk(&machine, vec![fail]);
        durable_folder(&disk);
        let mut file = disk.create(Path::new("/a/f")).unwrap();
        file.write_all(b"123").unwrap();
        assert!(file.sync().is_err());
        file.sync().unwrap();
        disk.sync_folder(Path::new("/a")).unwrap();
        machine.power_cut(&mut Rng::seeded(1));
        assert_eq!(machine.bytes(Path::new("/a/f")).unwrap(), b"");
    }

    #[test]
    fn a_name_is_published_once() {
        let machine = Machine::default();
        let disk = disk(&machine, Vec::new());
        durable_folder(&disk);
        write(&disk, "/a/draft", b"1", b"");
        write(&disk, "/a/other", b"2", b"");
        assert!(disk.publish(Path::new("/a/draft"), Path::new("/a/m")).unwrap());
        assert!(!disk.publish(Path::new("/a/other"), Path::new("/a/m")).unwrap());
        assert_eq!(disk.read(Path::new("/a/m")).unwrap(), b"1");
        assert_eq!(machine.published(), [(PathBuf::from("/a/m"), 1)]);
    }

    #[test]
    fn a_lock_is_one_processs_until_it_is_gone() {
        let machine = Machine::default();
        let first = disk(&machine, Vec::new());
        let second = machine.disk(&Arc::new(Process::new(2, Vec::new())));
        durable_folder(&first);
        let held = first.lock(Path::new("/a/lock")).unwrap();
        assert!(held.is_some() && second.lock(Path::new("/a/lock")).unwrap().is_none());
        machine.release_locks(1);
        assert!(second.lock(Path::new("/a/lock")).unwrap().is_some());
    }

    #[test]
    fn the_dead_write_nothing_but_may_leave_half_of_it() {
        let machine = Machine::default();
        let die = Trigger { watch: Watch::Op(Op::Write), skip: 0, effect: Effect::Die };
        let disk = disk(&machine, vec![die]);
        durable_folder(&disk);
        let mut file = disk.create(Path::new("/a/f")).unwrap();
        assert!(file.write_all(b"1234").is_err() && file.sync().is_err());
        assert_eq!(machine.bytes(Path::new("/a/f")).unwrap(), b"12");
        assert!(disk.list(Path::new("/a")).is_err());
    }
}
