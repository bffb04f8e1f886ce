//! Objects in an object store: any [`object_store::ObjectStore`], asked from a runtime of its own.
//!
//! What is put goes on its way at once, several objects at a time; [`Storage::settle`] waits until all have arrived. So
//! a checkpoint of many subtasks takes about as long as one of one.
//!
//! Requests are repeated by the store's client, with growing pauses, for about half a minute; then an error says so. A
//! create-only write is the one that must not be believed blindly: its answer may be lost although it was applied, and
//! the client's second try then meets its own object. So whatever is not a plain yes is settled by reading back: the
//! bytes of a manifest name the process that wrote them.

use std::collections::VecDeque;
use std::future::Future;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload, WriteMultipart};
use ruslo_core::disk::{Disk, DiskLock};
use ruslo_core::error::{Error, Result};
use tokio::runtime::{Builder, Runtime};

use super::Storage;

/// What is larger is sent and fetched in parts of this size, several at a time.
const PART_BYTES: usize = 8 << 20;

/// How many parts of an object are under way at once.
const PARTS: usize = 4;

/// How many objects are on their way at once.
const OBJECTS: usize = 16;

/// How often a create-only write begins anew once it is certain that it was not applied.
const CREATE_TRIES: u32 = 3;

/// How long it waits before the second time; twice as long before the third.
const CREATE_PAUSE: Duration = Duration::from_millis(200);

/// An answer of the store.
type Answer<T> = std::result::Result<T, object_store::Error>;

/// A prefix of a bucket.
pub struct ObjectStorage {
    store: Arc<dyn ObjectStore>,
    /// How the place is written, without a slash at its end.
    address: String,
    prefix: String,
    /// What has been put and may not have arrived, oldest first.
    under_way: Mutex<VecDeque<UnderWay>>,
    /// Gone only while it is dropped.
    runtime: Option<Runtime>,
}

/// An object on its way to the store.
struct UnderWay {
    key: String,
    arrived: Receiver<Answer<()>>,
}

impl ObjectStorage {
    /// The objects of `store` under `prefix`; people know the place as `address`.
    ///
    /// # Errors
    /// `Usage`, if the prefix cannot be part of a name; `Resource`, if no thread can be started.
    pub fn new(store: Arc<dyn ObjectStore>, address: impl Into<String>, prefix: &str) -> Result<Self> {
        let (address, prefix) = (address.into(), prefix.trim_matches('/'));
        if Key::from(prefix).as_ref() != prefix {
            return Err(Error::usage(format!("{address}: a prefix has letters, digits, '-', '_', '.' and '/' only")));
        }
        let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("ruslo-store").enable_all().build();
        let runtime = runtime.map_err(|error| Error::io("threads for the object store", &error))?;
        let address = address.trim_end_matches('/').to_owned();
        let prefix = prefix.to_owned();
        Ok(Self { store, address, prefix, under_way: Mutex::default(), runtime: Some(runtime) })
    }

    fn key(&self, key: &str) -> Result<Key> {
        let whole = format!("{}/{key}", self.prefix);
        let whole = whole.trim_matches('/');
        let parsed = Key::from(whole);
        if parsed.as_ref() == whole {
            return Ok(parsed);
        }
        Err(Error::internal(format!("{}: this cannot be the name of an object", self.describe(key))))
    }

    /// Begins `work` on the runtime; where its answer comes.
    fn begin<T, F>(&self, work: impl FnOnce(Arc<dyn ObjectStore>) -> F) -> Result<Receiver<T>>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (done, answer) = mpsc::sync_channel(1);
        let work = work(Arc::clone(&self.store));
        let runtime = self.runtime.as_ref().ok_or_else(|| Error::internal("the store's threads are gone"))?;
        runtime.spawn(async move {
            // Nobody waits any more only if its thread is gone.
            let _ = done.send(work.await);
        });
        Ok(answer)
    }

    /// Waits for an answer about the object `key`.
    fn answer<T>(&self, key: &str, answer: &Receiver<T>) -> Result<T> {
        answer.recv().map_err(|_| Error::internal(format!("{}: no answer", self.describe(key))))
    }

    /// Does `work` on the runtime and waits for it; what goes wrong is about the object `key`.
    fn wait<T, F>(&self, key: &str, work: impl FnOnce(Arc<dyn ObjectStore>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Answer<T>> + Send + 'static,
    {
        let answer = self.answer(key, &self.begin(work)?)?;
        answer.map_err(|error| self.failure(key, &error))
    }

    /// Waits until at most `left` of what was put is under way.
    fn arrive(&self, left: usize) -> Result<()> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        while under_way.len() > left {
            let Some(UnderWay { key, arrived }) = under_way.pop_front() else { break };
            self.answer(&key, &arrived)?.map_err(|error| self.failure(&key, &error))?;
        }
        Ok(())
    }

    fn failure(&self, key: &str, error: &object_store::Error) -> Error {
        use object_store::Error as Store;
        let (at, cause) = (self.describe(key), cause(error));
        if cause.contains("169.254.169.254") || cause.contains("169.254.170.2") {
            return Error::usage(format!("{at}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        }
        if cause.contains("NoSuchBucket") {
            return Error::usage(format!("{at}: there is no such bucket; create it, or name another"));
        }
        match error {
            Store::NotFound { .. } => Error::corrupt(format!("{at}: the object is missing")),
            Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => Error::resource(format!(
                "{at}: the store refuses these credentials; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the \
                 rights of that key ({cause})"
            )),
            Store::NotImplemented { .. } | Store::NotSupported { .. } => {
                Error::usage(format!("{at}: the store cannot do this: {cause}"))
            }
            _ => Error::unavailable(format!("{at}: the object store does not do it now, after several tries: {cause}")),
        }
    }
}

/// The innermost cause, in one line that is not too long.
fn cause(error: &object_store::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    let mut all = String::new();
    while let Some(source) = innermost.source() {
        innermost = source;
        all = innermost.to_string();
    }
    let all = if all.is_empty() { error.to_string() } else { all };
    // An address of the metadata service says that there were no credentials; it stands further out.
    let outer = error.to_string();
    let prefix = if outer.contains("169.254.") && !all.contains("169.254.") { "169.254.169.254: " } else { "" };
    let line: String = all.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
    format!("{prefix}{line}")
}

/// Whether a write was refused for a reason that no second try mends.
fn is_refused(error: &object_store::Error) -> bool {
    use object_store::Error as Store;
    matches!(
        error,
        Store::NotFound { .. }
            | Store::PermissionDenied { .. }
            | Store::Unauthenticated { .. }
            | Store::NotImplemented { .. }
            | Store::NotSupported { .. }
            | Store::InvalidPath { .. }
    )
}

async fn size(store: &dyn ObjectStore, key: &Key) -> Answer<Option<u64>> {
    match store.head(key).await {
        Ok(found) => Ok(Some(found.size)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A part of an object that is being fetched.
type Part = Pin<Box<dyn Future<Output = Answer<Vec<u8>>> + Send>>;

fn fetch(store: &Arc<dyn ObjectStore>, key: &Key, range: Range<u64>) -> Part {
    let (store, key) = (Arc::clone(store), key.clone());
    Box::pin(async move { store.get_range(&key, range).await.map(Vec::from) })
}

async fn read(store: &Arc<dyn ObjectStore>, key: &Key, range: Range<u64>) -> Answer<Vec<u8>> {
    let starts = range.clone().step_by(PART_BYTES);
    let parts = starts.map(|start| fetch(store, key, start..(start + PART_BYTES as u64).min(range.end)));
    let parts: Vec<_> = parts.collect();
    let mut bytes = Vec::new();
    let mut parts = futures::stream::iter(parts).buffered(PARTS);
    while let Some(part) = parts.try_next().await? {
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

/// In one request, if it is small.
async fn read_whole(store: &Arc<dyn ObjectStore>, key: &Key) -> Answer<Option<Vec<u8>>> {
    let found = match store.get(key).await {
        Ok(found) => found,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    match found.meta.size {
        large if large > PART_BYTES as u64 => read(store, key, 0..large).await.map(Some),
        _ => found.bytes().await.map(|bytes| Some(Vec::from(bytes))),
    }
}

/// An object that is being fetched; what goes wrong, with its place among the others.
type Whole = Pin<Box<dyn Future<Output = std::result::Result<Option<Vec<u8>>, (usize, object_store::Error)>> + Send>>;

fn fetch_whole(store: &Arc<dyn ObjectStore>, index: usize, key: Key) -> Whole {
    let store = Arc::clone(store);
    Box::pin(async move { read_whole(&store, &key).await.map_err(|error| (index, error)) })
}

async fn write(store: Arc<dyn ObjectStore>, key: Key, bytes: Vec<u8>) -> Answer<()> {
    if bytes.len() <= 2 * PART_BYTES {
        return store.put(&key, PutPayload::from(bytes)).await.map(|_| ());
    }
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(&key).await?, PART_BYTES);
    for part in bytes.chunks(PART_BYTES) {
        upload.wait_for_capacity(PARTS).await?;
        upload.write(part);
    }
    upload.finish().await.map(|_| ())
}

/// Whether `bytes` stand under `key` now, put there by this call or by one of its tries that seemed to fail.
async fn create(store: Arc<dyn ObjectStore>, key: Key, bytes: Vec<u8>) -> Answer<bool> {
    let payload = PutPayload::from(bytes.clone());
    let mut pause = CREATE_PAUSE;
    let mut tries = 1;
    loop {
        let error = match store.put_opts(&key, payload.clone(), PutMode::Create.into()).await {
            Ok(_) => return Ok(true),
            Err(error) if is_refused(&error) => return Err(error),
            Err(error) => error,
        };
        if let Some(found) = read_whole(&store, &key).await? {
            return Ok(found == bytes);
        }
        if tries == CREATE_TRIES {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        (tries, pause) = (tries + 1, 2 * pause);
    }
}

/// Excludes nobody: the create-only manifest decides.
struct NoLock;
impl DiskLock for NoLock {}

impl ObjectStorage {
    /// Stores what `from` has, which is from `file`, in parts.
    fn upload(&self, key: &str, from: &mut dyn Read, file: &str) -> Result<()> {
        let mut next = || {
            let mut part = Vec::new();
            let read = (&mut *from).take(PART_BYTES as u64).read_to_end(&mut part);
            read.map(|_| part).map_err(|error| Error::io(file, &error))
        };
        let first = next()?;
        if first.len() < PART_BYTES {
            return self.put(key, &first);
        }
        let path = self.key(key)?;
        let mut upload = self.wait(key, |store| async move { store.put_multipart(&path).await })?;
        let mut part = first;
        while !part.is_empty() {
            let sent = upload.put_part(PutPayload::from(part));
            self.wait(key, |_| sent)?;
            part = next()?;
        }
        self.wait(key, |_| async move { upload.complete().await.map(|_| ()) })
    }
}

impl Storage for ObjectStorage {
    /// There are no folders to create; but there must be a bucket.
    fn prepare(&self, _folders: &[&str]) -> Result<()> {
        self.list("").map(|_| ())
    }

    /// Tries whether the second of two creators is refused: on a store that cannot do that, two processes could
    /// both believe that a checkpoint is theirs.
    fn lock(&self) -> Result<Option<Box<dyn DiskLock>>> {
        let key = "lock";
        self.create(key, b"ruslo\n")?;
        if self.create(key, b"created only once\n")? {
            return Err(Error::usage(format!(
                "{}: this store overwrites an object although it is asked not to (If-None-Match: *); checkpoints need \
                 one that does not",
                self.describe("")
            )));
        }
        Ok(Some(Box::new(NoLock)))
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let (path, bytes) = (self.key(key)?, bytes.to_vec());
        self.arrive(OBJECTS - 1)?;
        let arrived = self.begin(|store| write(store, path, bytes))?;
        let under_way = UnderWay { key: key.to_owned(), arrived };
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).push_back(under_way);
        Ok(())
    }

    fn import(&self, key: &str, disk: &dyn Disk, file: &Path) -> Result<()> {
        self.upload(key, &mut disk.open(file)?, &file.display().to_string())
    }

    fn put_from(&self, key: &str, from: &mut dyn Read) -> Result<()> {
        self.upload(key, from, &self.describe(key))
    }

    fn settle(&self, _folder: &str) -> Result<()> {
        self.arrive(0)
    }

    fn create(&self, key: &str, bytes: &[u8]) -> Result<bool> {
        let (path, bytes) = (self.key(key)?, bytes.to_vec());
        self.wait(key, |store| create(store, path, bytes))
    }

    fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let path = self.key(key)?;
        self.wait(key, |store| async move { read_whole(&store, &path).await })
    }

    fn get_all(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>> {
        let paths = keys.iter().map(|key| self.key(key)).collect::<Result<Vec<_>>>()?;
        let answer = self.begin(|store| async move {
            let wanted: Vec<_> =
                paths.into_iter().enumerate().map(|(index, path)| fetch_whole(&store, index, path)).collect();
            futures::stream::iter(wanted).buffered(OBJECTS).try_collect::<Vec<_>>().await
        })?;
        self.answer("", &answer)?.map_err(|(index, error)| {
            let key = keys.get(index).map(String::as_str).unwrap_or_default();
            self.failure(key, &error)
        })
    }

    fn get_range(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>> {
        let (path, wanted) = (self.key(key)?, range.clone());
        let bytes = self.wait(key, |store| async move {
            match size(store.as_ref(), &path).await? {
                Some(size) if size >= wanted.end => read(&store, &path, wanted).await.map(Some),
                Some(_) | None => Ok(None),
            }
        })?;
        bytes
            .ok_or_else(|| Error::corrupt(format!("{}: the object ends before byte {}", self.describe(key), range.end)))
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        let path = self.key(key)?;
        self.wait(key, |store| async move { size(store.as_ref(), &path).await })
    }

    fn list(&self, folder: &str) -> Result<Vec<String>> {
        let path = self.key(folder)?;
        let found = self.wait(folder, |store| async move {
            let prefix = (!path.as_ref().is_empty()).then_some(&path);
            store.list_with_delimiter(prefix).await
        })?;
        let names = found.objects.iter().filter_map(|object| object.location.filename().map(str::to_owned));
        let mut names: Vec<_> = names.collect();
        names.sort();
        Ok(names)
    }

    fn remove(&self, key: &str) -> Result<()> {
        let path = self.key(key)?;
        self.wait(key, |store| async move {
            match store.delete(&path).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                other => other,
            }
        })
    }

    fn describe(&self, key: &str) -> String {
        if key.is_empty() { self.address.clone() } else { format!("{}/{key}", self.address) }
    }
}

/// Says where, and nothing about credentials.
impl std::fmt::Debug for ObjectStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectStorage").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for ObjectStorage {
    fn drop(&mut self) {
        // Waiting for its threads is not allowed within another runtime, and nothing is under way.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use ruslo_core::disk::LocalDisk;
    use ruslo_core::error::ErrorKind;

    use super::*;

    fn storage() -> ObjectStorage {
        ObjectStorage::new(Arc::new(InMemory::new()), "s3://bucket/jobs/a", "jobs/a/").unwrap()
    }

    #[test]
    fn objects_are_created_once_found_and_removed() {
        let storage = storage();
        storage.prepare(&["m"]).unwrap();
        assert!(storage.lock().unwrap().is_some() && storage.lock().unwrap().is_some());
        assert!(storage.create("m/1", b"one").unwrap());
        assert!(storage.create("m/1", b"one").unwrap(), "the same bytes are ours, however often they were sent");
        assert!(!storage.create("m/1", b"two").unwrap());
        storage.put("m/2", b"0123456789").unwrap();
        storage.settle("m").unwrap();
        assert_eq!(storage.list("m").unwrap(), ["1", "2"]);
        assert_eq!(storage.get("m/1").unwrap().unwrap(), b"one");
        assert_eq!(storage.get_range("m/2", 3..6).unwrap(), b"345");
        assert_eq!(storage.get_range("m/2", 8..11).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!((storage.size("m/2").unwrap(), storage.size("m/3").unwrap()), (Some(10), None));
        storage.remove("m/2").unwrap();
        storage.remove("m/2").unwrap();
        assert_eq!((storage.list("m").unwrap(), storage.get("m/2").unwrap()), (vec!["1".to_owned()], None));
        assert_eq!(storage.describe("m/1"), "s3://bucket/jobs/a/m/1");
    }

    #[test]
    fn what_is_large_goes_in_parts_and_comes_back_whole() {
        let storage = storage();
        let bytes: Vec<u8> = (0..3 * PART_BYTES as u32 + 5).map(|i| ((i * 7) >> 3) as u8).collect();
        storage.put("r/1", &bytes).unwrap();
        storage.settle("r").unwrap();
        assert!(storage.get("r/1").unwrap().unwrap() == bytes);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run");
        LocalDisk.write_synced(&file, &bytes).unwrap();
        storage.import("r/2", &LocalDisk, &file).unwrap();
        assert!(storage.get("r/2").unwrap().unwrap() == bytes);
        let across = PART_BYTES as u64 - 2..2 * PART_BYTES as u64 + 2;
        let expected = &bytes[across.start as usize..across.end as usize];
        assert!(storage.get_range("r/2", across).unwrap() == expected);
    }

    #[test]
    fn many_objects_arrive_and_come_back_in_order() {
        let storage = storage();
        let keys: Vec<_> = (0..3 * OBJECTS).map(|i| format!("r/{i}")).collect();
        keys.iter().for_each(|key| storage.put(key, key.as_bytes()).unwrap());
        storage.settle("r").unwrap();
        let missing = "r/none".to_owned();
        let asked: Vec<_> = keys.iter().rev().chain([&missing]).cloned().collect();
        let found = storage.get_all(&asked).unwrap();
        let expected: Vec<_> = keys.iter().rev().map(|key| Some(key.clone().into_bytes())).chain([None]).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_prefix_that_would_be_written_in_another_way_is_refused() {
        let refused = ObjectStorage::new(Arc::new(InMemory::new()), "s3://bucket/a#b", "a#b").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Usage);
        assert!(refused.to_string().starts_with("s3://bucket/a#b: a prefix has"), "{refused}");
    }

    #[test]
    fn it_can_be_asked_from_within_a_runtime_and_dropped_there() {
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let storage = storage();
            assert!(storage.create("m/1", b"one").unwrap());
        });
    }
}
