//! The file seam. Nothing in Ruslo touches a file but through a [`Disk`]; the simulator's disk loses what was not
//! synced, tears writes and runs full.
//!
//! What is durable: a file's bytes after [`DiskWriter::sync`]; a name (created, renamed, published or removed) after
//! [`Disk::sync_folder`] on its folder. Errors name the path.

use std::fs;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file being read.
pub trait DiskReader: Read + Seek + Send {}
impl<T: Read + Seek + Send> DiskReader for T {}

/// A file of which any part can be read at any time, by several threads. Its bytes stay readable after its name is
/// gone.
pub trait DiskFile: Send + Sync {
    /// How long it is, in bytes.
    fn length(&self) -> io::Result<u64>;
    /// Fills `bytes` with what stands at `offset`; `UnexpectedEof`, if the file ends before.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
}

/// A file in memory.
impl DiskFile for Vec<u8> {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = start.checked_add(bytes.len()).and_then(|end| self.get(start..end));
        bytes.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }
}

/// A file being written, from its beginning.
pub trait DiskWriter: Write + Send {
    /// Returns once every byte written so far would survive a power cut. After an error the file must be given up:
    /// what reached the disk is unknown.
    fn sync(&mut self) -> io::Result<()>;
}

/// What stands under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A file of so many bytes.
    File(u64),
    /// A folder.
    Folder,
}

/// Held while a file is locked; gone with the process, however it ends.
pub trait DiskLock: Send + Sync {}

/// Where files are.
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> Result<Box<dyn DiskReader>>;
    /// Opens a file for reading parts of it. Unless a disk can do better, it is read into memory.
    fn open_at(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        Ok(Box::new(self.read(path)?))
    }
    /// Creates a file that must not exist.
    fn create(&self, path: &Path) -> Result<Box<dyn DiskWriter>>;
    /// What stands at `path`; nothing is `None`.
    fn kind(&self, path: &Path) -> Result<Option<FileKind>>;
    /// When the file at `path` was last changed, in milliseconds since 1970; `None` where times are not kept.
    fn modified(&self, path: &Path) -> Result<Option<i64>> {
        let _ = path;
        Ok(None)
    }
    /// The paths in a folder, sorted; a missing folder is empty.
    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>>;
    /// Gives a file another name in one step, over whatever has that name.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Gives a file a second name in one step, unless something has it already: then `false`.
    fn publish(&self, from: &Path, to: &Path) -> Result<bool>;
    /// Removes a file; one that is gone already is fine.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Creates a folder and its parents.
    fn create_folder(&self, path: &Path) -> Result<()>;
    /// Removes a folder that is empty, if it can: what is left of one does no harm.
    fn remove_folder(&self, path: &Path) {
        let _ = path;
    }
    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> Result<()>;
    /// Locks `path` (created if missing) against other processes; `None` if another holds it.
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DiskLock>>>;

    /// Reads a whole file.
    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.read_to_end(&mut bytes).map_err(|e| Error::io(path.display(), &e))?;
        Ok(bytes)
    }

    /// Creates a file with `bytes` and syncs it.
    fn write_synced(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let mut file = self.create(path)?;
        let written = file.write_all(bytes).and_then(|()| file.sync());
        written.map_err(|e| Error::io(path.display(), &e))
    }
}

/// This machine's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalDisk;

struct LocalWriter(fs::File);

impl Write for LocalWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl DiskWriter for LocalWriter {
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }
}

struct LocalFile(fs::File);

impl DiskFile for LocalFile {
    fn length(&self) -> io::Result<u64> {
        self.0.metadata().map(|found| found.len())
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.0, bytes, offset)
    }
}

/// The lock is the open file; the operating system drops it with the process.
struct LocalLock(#[allow(dead_code, reason = "held, never read")] fs::File);
impl DiskLock for LocalLock {}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T> {
    result.map_err(|error| Error::io(path.display(), &error))
}

/// Opens a file so that reading does not note when it was read: of many small reads that is a part one can feel. Only
/// the owner of a file may ask for it.
#[allow(clippy::disallowed_methods, reason = "this is the file seam itself")]
fn open_unmarked(path: &Path) -> io::Result<fs::File> {
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::OpenOptionsExt;
        /// `O_NOATIME` of Linux.
        const UNMARKED: i32 = 0o1_000_000;
        let unmarked = fs::OpenOptions::new().read(true).custom_flags(UNMARKED).open(path);
        if !unmarked.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return unmarked;
        }
    }
    fs::File::open(path)
}

#[allow(clippy::disallowed_methods, reason = "this is the file seam itself")]
impl Disk for LocalDisk {
    fn open(&self, path: &Path) -> Result<Box<dyn DiskReader>> {
        Ok(Box::new(at(path, fs::File::open(path))?))
    }

    fn open_at(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        Ok(Box::new(LocalFile(at(path, open_unmarked(path))?)))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn DiskWriter>> {
        let file = fs::OpenOptions::new().write(true).create_new(true).open(path);
        Ok(Box::new(LocalWriter(at(path, file)?)))
    }

    fn kind(&self, path: &Path) -> Result<Option<FileKind>> {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Ok(Some(FileKind::Folder)),
            Ok(found) => Ok(Some(FileKind::File(found.len()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(path.display(), &error)),
        }
    }

    fn modified(&self, path: &Path) -> Result<Option<i64>> {
        let time = at(path, fs::metadata(path).and_then(|found| found.modified()))?;
        let milliseconds = match time.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()),
            Err(before) => i64::try_from(before.duration().as_millis()).map(i64::wrapping_neg),
        };
        Ok(milliseconds.ok())
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => at(folder, other)?,
        };
        let mut paths = entries.map(|entry| Ok(at(folder, entry)?.path())).collect::<Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        at(from, fs::rename(from, to))
    }

    fn publish(&self, from: &Path, to: &Path) -> Result<bool> {
        match fs::hard_link(from, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => at(to, other).map(|()| true),
        }
    }

    fn remove(&self, path: &Path) -> Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => at(path, other),
        }
    }

    fn create_folder(&self, path: &Path) -> Result<()> {
        at(path, fs::create_dir_all(path))
    }

    fn remove_folder(&self, path: &Path) {
        let _ = fs::remove_dir(path);
    }

    fn sync_folder(&self, path: &Path) -> Result<()> {
        at(path, fs::File::open(path).and_then(|folder| folder.sync_all()))
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn DiskLock>>> {
        let file = at(path, fs::OpenOptions::new().write(true).create(true).truncate(false).open(path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(LocalLock(file)))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(Error::io(path.display(), &error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing_over_a_name_is_refused_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        LocalDisk.write_synced(&a, b"one").unwrap();
        LocalDisk.write_synced(&b, b"two").unwrap();
        assert!(!LocalDisk.publish(&a, &b).unwrap());
        assert_eq!(LocalDisk.read(&b).unwrap(), b"two");
        assert!(LocalDisk.publish(&a, &folder.path().join("c")).unwrap());
        assert_eq!(LocalDisk.list(folder.path()).unwrap().len(), 3);
    }

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = LocalDisk.lock(&path).unwrap();
        assert!(held.is_some());
        assert!(LocalDisk.lock(&path).unwrap().is_none());
        drop(held);
        assert!(LocalDisk.lock(&path).unwrap().is_some());
    }

    #[test]
    fn parts_of_a_file_are_read_in_any_order_even_when_its_name_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        LocalDisk.write_synced(&path, b"0123456789").unwrap();
        let files: [Box<dyn DiskFile>; 2] = [LocalDisk.open_at(&path).unwrap(), Box::new(b"0123456789".to_vec())];
        LocalDisk.remove(&path).unwrap();
        for file in files {
            let mut bytes = [0; 3];
            file.read_at(7, &mut bytes).unwrap();
            assert_eq!(&bytes, b"789");
            file.read_at(0, &mut bytes).unwrap();
            assert_eq!(&bytes, b"012");
            assert_eq!(file.read_at(8, &mut bytes).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(file.length().unwrap(), 10);
        }
    }

    #[test]
    fn what_is_missing_is_none_and_an_error_names_the_path() {
        let missing = Path::new("/nonexistent/file.csv");
        assert_eq!(LocalDisk.kind(missing).unwrap(), None);
        let error = LocalDisk.open(missing).err().unwrap();
        assert_eq!(error.to_string(), "/nonexistent/file.csv: no such file or folder");
        LocalDisk.remove(missing).unwrap();
    }
}
