//! Objects as files of a folder.

use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ruslo_core::disk::{Disk, DiskLock, FileKind};
use ruslo_core::error::{Error, Result};

use super::Storage;

/// How much of a file is in memory while it is copied.
const CHUNK_BYTES: u64 = 1 << 20;

/// A folder of a disk. An object is complete under its name, or is named by nobody: [`Storage::create`] writes under a
/// temporary name, syncs, and publishes.
#[derive(Debug)]
pub struct LocalStorage {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Tells this process's temporary files from another's.
    attempt: String,
}

impl LocalStorage {
    /// `folder` of `disk`; `attempt` is a name that no other process uses.
    pub fn new(disk: Arc<dyn Disk>, folder: PathBuf, attempt: &str) -> Self {
        Self { disk, folder, attempt: attempt.to_owned() }
    }

    fn path(&self, key: &str) -> PathBuf {
        if key.is_empty() { self.folder.clone() } else { self.folder.join(key) }
    }

    /// Writes what `read` has, from `file`, durably.
    fn copy(&self, read: &mut dyn Read, file: &Path, to: &Path) -> Result<()> {
        let at = |path: &Path, error: &std::io::Error| Error::io(path.display(), error);
        let mut write = self.disk.create(to)?;
        let mut chunk = Vec::new();
        loop {
            chunk.clear();
            (&mut *read).take(CHUNK_BYTES).read_to_end(&mut chunk).map_err(|error| at(file, &error))?;
            if chunk.is_empty() {
                return write.sync().map_err(|error| at(to, &error));
            }
            write.write_all(&chunk).map_err(|error| at(to, &error))?;
        }
    }
}

impl Storage for LocalStorage {
    /// Each folder is durable before the next is created, and so is the one that is there already, whose creator may
    /// have died before that.
    fn prepare(&self, folders: &[&str]) -> Result<()> {
        let mut new: Vec<_> = folders.iter().map(|folder| self.folder.join(folder)).collect();
        for folder in self.folder.ancestors().filter(|folder| !folder.as_os_str().is_empty()) {
            new.push(folder.to_owned());
            if self.disk.kind(folder)?.is_some() {
                break;
            }
        }
        for folder in new.iter().rev() {
            self.disk.create_folder(folder)?;
            let Some(above) = folder.parent() else { continue };
            self.disk.sync_folder(if above.as_os_str().is_empty() { Path::new(".") } else { above })?;
        }
        Ok(())
    }

    fn lock(&self) -> Result<Option<Box<dyn DiskLock>>> {
        self.disk.lock(&self.folder.join("lock"))
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        self.disk.write_synced(&self.path(key), bytes)
    }

    fn put_from(&self, key: &str, from: &mut dyn Read) -> Result<()> {
        let to = self.path(key);
        self.copy(from, &to, &to)
    }

    /// A file of the same file system gets a second name; another one is copied.
    fn import(&self, key: &str, disk: &dyn Disk, file: &Path) -> Result<()> {
        let to = self.path(key);
        match self.disk.publish(file, &to) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::internal(format!("{}: the name is taken", to.display()))),
            Err(_) => self.copy(&mut disk.open(file)?, file, &to),
        }
    }

    fn settle(&self, folder: &str) -> Result<()> {
        self.disk.sync_folder(&self.path(folder))
    }

    fn create(&self, key: &str, bytes: &[u8]) -> Result<bool> {
        let path = self.path(key);
        let (folder, name) = key.rsplit_once('/').unwrap_or(("", key));
        let draft = self.path(folder).join(format!(".{name}-{}.tmp", self.attempt));
        self.disk.write_synced(&draft, bytes)?;
        let is_published = self.disk.publish(&draft, &path)?;
        self.disk.remove(&draft)?;
        self.settle(folder)?;
        Ok(is_published)
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(key);
        match self.disk.kind(&path)? {
            None => Ok(None),
            Some(_) => self.disk.read(&path).map(Some),
        }
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let path = self.path(key);
        if self.disk.kind(&path)?.is_none() {
            return Err(Error::corrupt(format!("{}: the file is missing", path.display())));
        }
        let mut file = self.disk.open(&path)?;
        let mut bytes = Vec::new();
        let length = range.end.saturating_sub(range.start);
        let read = file.seek(SeekFrom::Start(range.start)).and_then(|_| file.take(length).read_to_end(&mut bytes));
        read.map_err(|error| Error::io(path.display(), &error))?;
        if bytes.len() as u64 != length {
            return Err(Error::corrupt(format!("{}: the file ends before byte {}", path.display(), range.end)));
        }
        Ok(bytes)
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        Ok(match self.disk.kind(&self.path(key))? {
            Some(FileKind::File(bytes)) => Some(bytes),
            Some(FileKind::Folder) | None => None,
        })
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let paths = self.disk.list(&self.path(folder))?.into_iter();
        Ok(paths.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn remove(&self, key: &str) -> Result<()> {
        self.disk.remove(&self.path(key))
    }

    fn describe(&self, key: &str) -> String {
        self.path(key).display().to_string()
    }

    fn local(&self) -> Option<(&Arc<dyn Disk>, &Path)> {
        Some((&self.disk, &self.folder))
    }
}

#[cfg(test)]
mod tests {
    use ruslo_core::disk::LocalDisk;
    use ruslo_core::error::ErrorKind;

    use super::*;

    fn storage(folder: &Path, attempt: &str) -> LocalStorage {
        let storage = LocalStorage::new(Arc::new(LocalDisk), folder.to_owned(), attempt);
        storage.prepare(&["m"]).unwrap();
        storage
    }

    #[test]
    fn one_of_two_creators_is_told_that_it_was_first() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (storage(folder.path(), "a"), storage(folder.path(), "b"));
        assert!(a.create("m/1", b"a").unwrap());
        assert!(!b.create("m/1", b"b").unwrap());
        assert_eq!(b.get("m/1").unwrap().unwrap(), b"a");
        assert_eq!(a.list("m").unwrap(), ["1"], "no draft is left");
    }

    #[test]
    fn ranges_are_exact_and_what_is_not_there_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let a = storage(folder.path(), "a");
        a.put("m/1", b"0123456789").unwrap();
        assert_eq!(a.get_range("m/1", 3..6).unwrap(), b"345");
        assert_eq!(a.get_range("m/1", 8..11).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(a.get_range("m/2", 0..1).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!((a.size("m/1").unwrap(), a.size("m/2").unwrap(), a.get("m/2").unwrap()), (Some(10), None, None));
        assert_eq!(a.list("n").unwrap(), [""; 0]);
    }

    #[test]
    fn a_local_file_becomes_an_object_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let a = storage(folder.path(), "a");
        let file = folder.path().join("work");
        LocalDisk.write_synced(&file, b"rows").unwrap();
        a.import("m/1", &LocalDisk, &file).unwrap();
        a.copy(&mut LocalDisk.open(&file).unwrap(), &file, &a.path("m/2")).unwrap();
        for key in ["m/1", "m/2"] {
            assert_eq!(a.get(key).unwrap().unwrap(), b"rows");
        }
        assert_eq!(LocalDisk.read(&file).unwrap(), b"rows");
    }
}
