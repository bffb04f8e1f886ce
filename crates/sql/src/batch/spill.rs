//! Where sorts and aggregates of a batch query spill: files in a scratch folder of the job's disk.
//!
//! A file lives as long as DataFusion holds it. The folder is emptied before a run, of what a killed process has left,
//! and after it. Nothing here has to survive anything, so nothing is synced.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::{SpillFile, SpillWriter, TempFileFactory};
use datafusion::object_store::PutPayload;
use futures::stream::{self, Stream};
use ruslo_core::disk::{Disk, DiskReader, DiskWriter};
use ruslo_core::error::{Error, Result};

/// How much is read of a file at a time.
const CHUNK_BYTES: u64 = 256 << 10;

/// The bytes that DataFusion reads: `bytes::Bytes`.
type Chunk = <PutPayload as IntoIterator>::Item;

/// A folder for what does not fit into memory; clones are of the same folder.
#[derive(Debug, Clone)]
pub struct Scratch {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    files: Arc<AtomicU64>,
}

impl Scratch {
    /// `folder` on `disk`, which is created when something is spilled.
    pub fn new(disk: Arc<dyn Disk>, folder: PathBuf) -> Self {
        Self { disk, folder, files: Arc::default() }
    }

    /// Removes every file in the folder.
    ///
    /// # Errors
    /// `Io`, naming the path.
    pub fn clear(&self) -> Result<()> {
        self.disk.list(&self.folder)?.iter().try_for_each(|path| self.disk.remove(path))
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl TempFileFactory for Scratch {
    fn create_temp_file(&self, _description: &str) -> DfResult<Arc<dyn SpillFile>> {
        self.disk.create_folder(&self.folder).map_err(carried)?;
        let path = self.folder.join(format!("spill-{}", self.files.fetch_add(1, Ordering::Relaxed)));
        Ok(Arc::new(ScratchFile { disk: Arc::clone(&self.disk), path, bytes: Arc::default() }))
    }
}

/// A file that goes away with its last holder.
struct ScratchFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    bytes: Arc<AtomicU64>,
}

impl Drop for ScratchFile {
    fn drop(&mut self) {
        // What stays is removed with the folder.
        let _ = self.disk.remove(&self.path);
    }
}

impl SpillFile for ScratchFile {
    fn size(&self) -> Option<u64> {
        Some(self.bytes.load(Ordering::Relaxed))
    }

    fn read_stream(&self) -> DfResult<Pin<Box<dyn Stream<Item = DfResult<Chunk>> + Send>>> {
        let reader = self.disk.open(&self.path).map_err(carried)?;
        Ok(Box::pin(stream::iter(Chunks { reader, path: self.path.clone() })))
    }

    fn open_writer(&self) -> DfResult<Box<dyn SpillWriter>> {
        let file = self.disk.create(&self.path).map_err(carried)?;
        Ok(Box::new(ScratchWriter { file, bytes: Arc::clone(&self.bytes) }))
    }
}

/// A file from its beginning to its end, piece by piece.
struct Chunks {
    reader: Box<dyn DiskReader>,
    path: PathBuf,
}

impl Iterator for Chunks {
    type Item = DfResult<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = Vec::new();
        match self.reader.by_ref().take(CHUNK_BYTES).read_to_end(&mut bytes) {
            Ok(0) => None,
            Ok(_) => Some(Ok(bytes.into())),
            Err(error) => Some(Err(carried(Error::io(self.path.display(), &error)))),
        }
    }
}

struct ScratchWriter {
    file: Box<dyn DiskWriter>,
    bytes: Arc<AtomicU64>,
}

impl Write for ScratchWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl SpillWriter for ScratchWriter {
    fn finish(&mut self) -> DfResult<()> {
        Ok(self.file.flush()?)
    }
}

fn carried(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use ruslo_core::disk::LocalDisk;

    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_written_and_goes_with_its_holder() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(Arc::new(LocalDisk), folder.path().join("spill"));
        let file = scratch.create_temp_file("a test").unwrap();
        let given: Vec<u8> = (0..CHUNK_BYTES * 2 + 7).map(|byte| byte as u8).collect();
        let mut writer = file.open_writer().unwrap();
        writer.write_all(&given).unwrap();
        writer.finish().unwrap();
        assert_eq!(file.size(), Some(given.len() as u64));
        let chunks: Vec<Chunk> = {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(file.read_stream().unwrap().try_collect()).unwrap()
        };
        assert_eq!((chunks.len(), chunks.concat()), (3, given));
        assert_eq!(LocalDisk.list(scratch.folder()).unwrap().len(), 1);
        drop(file);
        assert_eq!(LocalDisk.list(scratch.folder()).unwrap().len(), 0);

        let left = scratch.create_temp_file("another").unwrap();
        left.open_writer().unwrap().write_all(b"left").unwrap();
        scratch.clear().unwrap();
        let read = left.read_stream().err();
        assert!(read.unwrap().to_string().contains("no such file"));
    }
}
