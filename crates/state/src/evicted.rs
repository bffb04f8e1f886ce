//! Rows that left memory: runs of a bucket table in a file of the working folder, read back when they are asked for.
//!
//! The runs that leave together are in one file, which goes when the last of them does. Nothing here is durable or
//! outlives the process: what a checkpoint needs is uploaded from here as it would be from memory.

use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use ruslo_core::disk::Disk;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::KEY_GROUPS;

use crate::manifest::{RunLayout, RunRef};
use crate::run_file;
use crate::runs::WorkFolder;

/// A file of runs, removed with the last of them.
#[derive(Debug)]
struct EvictedFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Drop for EvictedFile {
    fn drop(&mut self) {
        // A file that stays is a leftover, which the next start removes.
        let _ = self.disk.remove(&self.path);
    }
}

/// Where a run is that left memory; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Evicted {
    file: Arc<EvictedFile>,
    place: RunRef,
}

impl Evicted {
    /// Reads the run back.
    ///
    /// # Errors
    /// The disk's; `Corrupt`, if the bytes are not as they were written.
    pub(crate) fn read(&self) -> Result<RecordBatch> {
        let path = &self.file.path;
        let length = usize::try_from(self.place.length).map_err(|_| Error::internal("a run is too long"))?;
        let mut bytes = vec![0; length];
        let mut file = self.file.disk.open(path)?;
        let read = file.seek(SeekFrom::Start(self.place.offset)).and_then(|_| file.read_exact(&mut bytes));
        read.map_err(|error| Error::io(path.display(), &error))?;
        run_file::decode(&RunRef { offset: 0, ..self.place.clone() }, path, &bytes)
    }
}

/// Writes `runs` into one file of `work`; where each is, in their order.
pub(crate) fn evict(runs: impl IntoIterator<Item = Result<RecordBatch>>, work: &WorkFolder) -> Result<Vec<Evicted>> {
    let (path, mut file) = work.create("evicted")?;
    let evicted = Arc::new(EvictedFile { disk: Arc::clone(work.disk()), path });
    let mut places = Vec::new();
    let mut offset = 0;
    for run in runs {
        let (run, mut bytes) = (run?, Vec::new());
        let (_, length) = run_file::encode(&run, &mut bytes)?;
        file.write_all(&bytes).map_err(|error| Error::io(evicted.path.display(), &error))?;
        let (crc32, rows) = (crc32fast::hash(&bytes), run.num_rows() as u64);
        let (file, layout, groups) = (String::new(), RunLayout::default(), 0..KEY_GROUPS);
        let place = RunRef { file, offset, length, crc32, rows, bucket: 0, groups, layout };
        places.push(Evicted { file: Arc::clone(&evicted), place });
        offset += length;
    }
    file.flush().map_err(|error| Error::io(evicted.path.display(), &error))?;
    Ok(places)
}
