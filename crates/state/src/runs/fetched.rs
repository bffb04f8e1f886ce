//! Runs of a checkpoint, brought where they can be read.

use std::io::{Read, SeekFrom};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use arrow::ipc::reader::StreamReader;
use ruslo_core::disk::Disk;
use ruslo_core::error::{Error, Result};
use ruslo_core::key_group::KeyGroupRange;

use crate::manifest::RunRef;
use crate::runs::run::Run;
use crate::runs::schema::{StoredSchema, TableSchema, table_of};

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// A file that goes when nobody reads it any more.
#[derive(Debug)]
pub struct Temporary {
    disk: Arc<dyn Disk>,
    path: PathBuf,
}

impl Temporary {
    /// The file at `path`.
    pub fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Self {
        Self { disk, path }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = self.disk.remove(&self.path) {
            tracing::debug!(%error, "a run that nobody needs stays on the disk");
        }
    }
}

/// A run of a checkpoint in a file of this machine, whole.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Where the file is.
    pub disk: Arc<dyn Disk>,
    /// Its path.
    pub path: PathBuf,
    /// Where in the file the run begins.
    pub base: u64,
    /// What the manifest says of it.
    pub reference: RunRef,
    /// Held as long as the file is needed, if it is a copy.
    pub copy: Option<Arc<Temporary>>,
}

impl Fetched {
    /// The run, cut to the key groups `wanted`; `None`, if it has none of them.
    ///
    /// # Errors
    /// `Corrupt`, naming the file; `Usage`, if a newer Ruslo wrote it.
    pub fn open(&self, wanted: &KeyGroupRange, schema: &TableSchema) -> Result<Option<Run>> {
        let groups = &self.reference.groups;
        let has_some = wanted.start.max(groups.start) < wanted.end.min(groups.end);
        self.check_fits(schema)?;
        has_some.then(|| Run::open(self, wanted, schema)).transpose()
    }

    /// What the run itself says of its table; how long rows live is not said.
    ///
    /// # Errors
    /// `Corrupt`, naming the file.
    pub fn table(&self) -> Result<TableSchema> {
        let failed = |error: &dyn std::fmt::Display| Error::corrupt(format!("{}: {error}", self.path.display()));
        let mut file = self.disk.open(&self.path)?;
        file.seek(SeekFrom::Start(self.base)).map_err(|error| Error::io(self.path.display(), &error))?;
        let stream = file.take(self.reference.length);
        // The library panics over some bytes that are no schema.
        let read = std::panic::catch_unwind(AssertUnwindSafe(|| {
            StreamReader::try_new(stream, None).map(|stream| table_of(&stream.schema()))
        }));
        let read = read.map_err(|_| failed(&"the schema is damaged"))?.map_err(|error| failed(&error))?;
        read.ok_or_else(|| failed(&"this is no run of a keyed table"))
    }

    /// That the run is of a table with these columns.
    fn check_fits(&self, schema: &TableSchema) -> Result<()> {
        let (found, wanted) = (self.table()?.stored(), schema.stored());
        let types = |schema: &SchemaRef| -> Vec<DataType> {
            schema.fields().iter().map(|field| field.data_type().clone()).collect()
        };
        if types(&found) == types(&wanted) && found.metadata() == wanted.metadata() {
            return Ok(());
        }
        Err(Error::usage(format!(
            "{}: this is of a {} table with the columns {:?}, and the query now keeps a {} table with {:?}; go on with the \
             query that made it, or start over with --fresh",
            self.path.display(),
            found.metadata().get("ruslo.kind").map_or("", String::as_str),
            types(&found),
            schema.kind.name(),
            types(&wanted),
        )))
    }

    /// How a manifest names the part of the key groups `wanted`; `None`, if there is none.
    pub fn reference_of(&self, wanted: &KeyGroupRange) -> Option<RunRef> {
        let groups = &self.reference.groups;
        let groups = wanted.start.max(groups.start)..wanted.end.min(groups.end);
        (!groups.is_empty()).then(|| RunRef { groups, ..self.reference.clone() })
    }
}

/// That the run in the file at `path` has every byte as it was written.
///
/// # Errors
/// `Corrupt`, naming the file; the disk's.
pub fn verify(disk: &dyn Disk, path: &Path, reference: &RunRef) -> Result<()> {
    let corrupt = |what: &str| Error::corrupt(format!("{}: {what}", path.display()));
    if disk.kind(path)?.is_none() {
        return Err(corrupt("the file is missing"));
    }
    let mut file = disk.open(path)?;
    let failed = |error: std::io::Error| Error::io(path.display(), &error);
    file.seek(SeekFrom::Start(reference.offset)).map_err(failed)?;
    let mut crc32 = crc32fast::Hasher::new();
    let mut left = reference.length;
    let mut chunk = vec![0; CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES)).max(1)];
    while left > 0 {
        let wanted = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = file.read(chunk.get_mut(..wanted).unwrap_or_default()).map_err(failed)?;
        if read == 0 {
            return Err(corrupt(&format!("the file ends before byte {}", reference.offset + reference.length)));
        }
        crc32.update(chunk.get(..read).unwrap_or_default());
        left -= read as u64;
    }
    if crc32.finalize() != reference.crc32 {
        let range = reference.offset..reference.offset + reference.length;
        return Err(corrupt(&format!("the checksum of bytes {range:?} does not fit")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ruslo_core::disk::LocalDisk;

    use super::*;

    #[test]
    fn damage_is_found_and_a_copy_goes_with_its_last_reader() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        LocalDisk.write_synced(&path, b"xxrows of a runyy").unwrap();
        let reference = |length, bytes: &[u8]| RunRef {
            offset: 2,
            length,
            crc32: crc32fast::hash(bytes),
            ..RunRef::for_test("a", 0, 0..128)
        };
        verify(&LocalDisk, &path, &reference(13, b"rows of a run")).unwrap();
        let error = verify(&LocalDisk, &path, &reference(13, b"rows of a rum")).unwrap_err();
        assert!(error.to_string().ends_with("a: the checksum of bytes 2..15 does not fit"), "{error}");
        let error = verify(&LocalDisk, &path, &reference(16, b"rows of a run")).unwrap_err();
        assert!(error.to_string().ends_with("a: the file ends before byte 18"), "{error}");
        let copy = Arc::new(Temporary::new(Arc::new(LocalDisk), path.clone()));
        drop(Arc::clone(&copy));
        assert!(path.exists());
        drop(copy);
        assert!(!path.exists());
        assert!(verify(&LocalDisk, &path, &reference(1, b"")).unwrap_err().to_string().contains("is missing"));
    }
}
