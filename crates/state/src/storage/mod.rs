//! Where stored bytes are: a folder of a disk, or a bucket of an object store.
//!
//! [`Storage`] is what a [`crate::store::CheckpointStore`] asks of either, and no more: names are `folder/name`, an
//! object is written once and never changed, and one call decides a race. [`LocalStorage`] keeps objects in files behind
//! the `Disk` seam, [`ObjectStorage`] behind any `object_store`; [`open`] chooses by how the place is written.

mod local;
mod object;
mod s3;

use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ruslo_core::disk::{Disk, DiskLock};
use ruslo_core::error::{Error, Result};

pub use local::LocalStorage;
pub use object::ObjectStorage;

/// A place for objects: immutable bytes under names of the form `folder/name`.
///
/// Every error names the object as a person would look for it. `Unavailable` is one that may pass; what a failed write
/// has left is unknown, so no name is used twice but by [`Storage::create`].
pub trait Storage: Send + Sync + std::fmt::Debug {
    /// Makes the place ready to be written: creates `folders`, durably, or finds out that it cannot be used.
    fn prepare(&self, folders: &[&str]) -> Result<()>;

    /// Keeps other processes out while it is held; `None` if another is in. A place that cannot do that answers with a
    /// lock that excludes nobody, once it is sure of [`Storage::create`].
    fn lock(&self) -> Result<Option<Box<dyn DiskLock>>>;

    /// Stores `bytes` under a name that nobody has used. They are durable, and can be read, after [`Storage::settle`].
    fn put(&self, key: &str, bytes: &[u8]) -> Result<()>;

    /// Stores what `from` has as [`Storage::put`] does, without having all of it in memory.
    ///
    /// # Errors
    /// Those of `from` are told as of this object.
    fn put_from(&self, key: &str, from: &mut dyn Read) -> Result<()>;

    /// Stores a finished, synced local file as [`Storage::put`] does, without reading it into memory; the file stays.
    fn import(&self, key: &str, disk: &dyn Disk, file: &Path) -> Result<()>;

    /// Returns once all that was put into `folder` is durable.
    fn settle(&self, folder: &str) -> Result<()>;

    /// Stores `bytes` durably unless the name is taken: whether they stand there now. Of several callers one is told so.
    /// Who is told so although its bytes came from an earlier call of its own has the same bytes there.
    fn create(&self, key: &str, bytes: &[u8]) -> Result<bool>;

    /// All bytes of an object; `None` if there is none.
    fn get(&self, key: &str) -> Result<Option<Vec<u8>>>;

    /// All bytes of several objects, in their order.
    fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// Some bytes of an object.
    ///
    /// # Errors
    /// `Corrupt`, if there is no such object or it ends before.
    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>>;

    /// How many bytes an object has; `None` if there is none.
    fn size(&self, key: &str) -> Result<Option<u64>>;

    /// The names of all objects in a folder, without it, ascending.
    fn list(&self, folder: &str) -> Result<Vec<String>>;

    /// Removes an object; one that is gone already is fine.
    fn remove(&self, key: &str) -> Result<()>;

    /// Where an object is, for people; with `""`, where the place is.
    fn describe(&self, key: &str) -> String;

    /// The disk and the folder, if it is one.
    fn local(&self) -> Option<(&Arc<dyn Disk>, &Path)> {
        None
    }
}

/// The place that is written `location`: a folder of `disk`, `file:///folder`, or `s3://bucket/prefix`. `attempt` is a
/// name that no other process uses.
///
/// # Errors
/// `Usage`, if it is written otherwise, or what the environment says about the store does not do.
pub fn open(disk: Arc<dyn Disk>, location: &Path, attempt: &str) -> Result<Arc<dyn Storage>> {
    let Some((scheme, rest)) = location.to_str().and_then(|text| text.split_once("://")) else {
        return Ok(Arc::new(LocalStorage::new(disk, location.to_owned(), attempt)));
    };
    match scheme {
        "s3" | "s3a" => Ok(Arc::new(s3::open(rest)?)),
        "file" if rest.starts_with('/') => Ok(Arc::new(LocalStorage::new(disk, rest.into(), attempt))),
        "file" => Err(Error::usage(format!(
            "{}: a file address is absolute, with three slashes: file:///folder",
            location.display()
        ))),
        _ => Err(Error::usage(format!(
            "{}: checkpoints are kept in a folder, or in an object store as s3://bucket/prefix; '{scheme}' is neither",
            location.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use ruslo_core::disk::LocalDisk;

    use super::*;

    fn described(location: &str) -> Result<String> {
        Ok(open(Arc::new(LocalDisk), Path::new(location), "a")?.describe("x"))
    }

    #[test]
    fn a_place_is_known_by_how_it_is_written() {
        assert_eq!(described("a/b").unwrap(), "a/b/x");
        assert_eq!(described("file:///a/b").unwrap(), "/a/b/x");
        let refused = |location: &str| described(location).unwrap_err().to_string();
        assert!(refused("file://a/b").contains("three slashes"), "{}", refused("file://a/b"));
        assert!(refused("gs://bucket").contains("'gs' is neither"), "{}", refused("gs://bucket"));
    }
}
