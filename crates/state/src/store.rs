//! Where checkpoints are kept.
//!
//! ```text
//! <folder>/lock                                          held by the process that writes here
//! <folder>/manifests/00000000000000000012.json           one a checkpoint, created in one step, never changed
//! <folder>/runs/12-<operator>-<subtask>-<table>-<attempt>.arrow   the runs that were new in epoch 12
//! <folder>/work/<attempt>/                               runs of keyed tables that no checkpoint has yet, of one process
//! ```
//!
//! The folder is one of a disk or a prefix of a bucket: the [`Storage`] beneath knows. A manifest is created under its
//! number only if nobody has that number yet. Who loses that race is fenced: another process runs this pipeline now.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use ruslo_core::disk::{Disk, DiskLock, LocalDisk};
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, ErrorKind, Result};
use ruslo_core::graph::OperatorId;
use ruslo_core::key_group::KEY_GROUPS;
use ruslo_core::operator::Subtask;

use crate::keyed::KeyedSnapshot;
use crate::manifest::{Manifest, RunLayout, RunRef};
use crate::operator_rows::RowsSnapshot;
use crate::planted::{Bug, planted};
use crate::run_file;
use crate::runs::{self, Fetched, Temporary, WorkFolder};
use crate::savepoint;
use crate::storage::{self, LocalStorage, Storage};
use crate::table::{Run, TableSnapshot};

/// How many checkpoints are kept.
const RETAINED: usize = 3;

const MANIFESTS: &str = "manifests";
const RUNS: &str = "runs";
const WORK: &str = "work";

/// How much of a run is in memory while it is fetched.
const FETCHED_BYTES: u64 = 8 << 20;

/// A folder of checkpoints.
#[derive(Debug, Clone)]
pub struct CheckpointStore {
    storage: Arc<dyn Storage>,
    /// Where it is, for people.
    folder: PathBuf,
    /// Tells this process's files from those of an earlier or a parallel one.
    attempt: String,
    work: WorkFolder,
}

/// A checkpoint that was found whole.
#[derive(Debug)]
pub struct Restored {
    /// What it consists of.
    pub manifest: Manifest,
    /// The runs that it names.
    pub runs: RestoredRuns,
    /// Newer checkpoints that are damaged, with what is wrong.
    pub skipped: Vec<Error>,
}

/// Runs by file and offset: those of bucket tables in memory, those of keyed tables in files.
#[derive(Debug, Default)]
pub struct RestoredRuns {
    buckets: HashMap<(String, u64), RecordBatch>,
    keyed: HashMap<(String, u64), Fetched>,
}

impl RestoredRuns {
    /// The rows of `reference`, a run of a bucket table.
    pub fn get(&self, reference: &RunRef) -> Option<&RecordBatch> {
        self.buckets.get(&(reference.file.clone(), reference.offset))
    }

    /// The file of `reference`, a run of a keyed table.
    pub fn fetched(&self, reference: &RunRef) -> Option<Fetched> {
        let fetched = self.keyed.get(&(reference.file.clone(), reference.offset))?;
        Some(Fetched { reference: reference.clone(), ..fetched.clone() })
    }
}

impl CheckpointStore {
    /// The store in `folder` of `disk`, which is created if it is missing. `attempt` is a name that no other process
    /// uses.
    pub fn open(disk: Arc<dyn Disk>, folder: &Path, attempt: impl Into<String>) -> Result<Self> {
        let attempt = attempt.into();
        let store = Self::over(Arc::new(LocalStorage::new(disk, folder.to_owned(), &attempt)), attempt);
        store.prepare()?;
        Ok(store)
    }

    /// The store at `location`, a folder or `s3://bucket/prefix`, made ready to be written.
    pub fn at(disk: Arc<dyn Disk>, location: &Path, attempt: impl Into<String>) -> Result<Self> {
        let attempt = attempt.into();
        let store = Self::over(storage::open(disk, location, &attempt)?, attempt);
        store.check_free()?;
        store.prepare()?;
        Ok(store)
    }

    /// The store at `location` to look at: nothing is created.
    ///
    /// # Errors
    /// `Usage`, if there is none.
    pub fn existing(disk: Arc<dyn Disk>, location: &Path) -> Result<Self> {
        let store = Self::over(storage::open(disk, location, "reader")?, "reader");
        let at = location.display();
        if let Some((disk, folder)) = store.storage.local() {
            if disk.kind(folder)?.is_none() {
                return Err(Error::usage(format!("{at}: no such folder")));
            }
            if disk.kind(&folder.join(MANIFESTS))?.is_none() {
                return Err(Error::usage(format!("{at}: this is no checkpoint folder: it has no '{MANIFESTS}' in it")));
            }
        } else if store.epochs()?.is_empty() && store.run_files()?.is_empty() {
            return Err(Error::usage(format!("{at}: there are no checkpoints")));
        }
        Ok(store)
    }

    /// The store over `storage`, which must be ready if anything is to be written.
    pub fn over(storage: Arc<dyn Storage>, attempt: impl Into<String>) -> Self {
        let (folder, attempt) = (storage.describe("").into(), attempt.into());
        let work = work_folder(storage.as_ref(), &attempt);
        Self { storage, folder, attempt, work }
    }

    /// That a folder of something else does not become one of checkpoints by accident.
    fn check_free(&self) -> Result<()> {
        let Some((disk, folder)) = self.storage.local() else { return Ok(()) };
        if disk.kind(folder)?.is_none() {
            return Ok(());
        }
        let names = self.storage.list("")?;
        let is_known = names.iter().any(|name| [MANIFESTS, RUNS, "lock", "spill"].contains(&name.as_str()));
        let foreign = names.iter().find(|name| !name.starts_with('.') && *name != "lost+found");
        match foreign {
            Some(foreign) if !is_known => Err(Error::usage(format!(
                "{}: this is no checkpoint folder: it has '{foreign}' in it, and no checkpoints; name an empty or a new \
                 folder",
                folder.display()
            ))),
            _ => Ok(()),
        }
    }

    fn prepare(&self) -> Result<()> {
        self.storage.prepare(&[MANIFESTS, RUNS])
    }

    /// Keeps other processes out for as long as the lock is held; in a bucket it keeps nobody out, and the first of two
    /// processes is fenced when the second takes over.
    ///
    /// # Errors
    /// `Fenced`, if another process is running on this folder.
    pub fn lock(&self) -> Result<Box<dyn DiskLock>> {
        let lock = self.storage.lock()?.ok_or_else(|| {
            Error::fenced(format!(
                "another process is running on the checkpoints in {}; stop it first, or give this one another --checkpoint-dir",
                self.folder.display()
            ))
        })?;
        if self.storage.local().is_some() {
            self.work.remove_leftovers()?;
        }
        Ok(lock)
    }

    /// Where this store is, for people: for one in a bucket, its address.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where this store is on a disk of this machine, if it is.
    pub fn local_folder(&self) -> Option<&Path> {
        self.storage.local().map(|(_, folder)| folder)
    }

    /// What is beneath.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The name that no other process uses.
    pub fn attempt(&self) -> &str {
        &self.attempt
    }

    /// The epochs that have a manifest, ascending, damaged ones included.
    pub fn epochs(&self) -> Result<Vec<Epoch>> {
        let names = self.storage.list(MANIFESTS)?;
        let mut epochs: Vec<_> = names.iter().filter_map(|name| epoch_of_manifest(name)).collect();
        epochs.sort();
        Ok(epochs)
    }

    /// The names of all files of runs.
    pub fn run_files(&self) -> Result<Vec<String>> {
        Ok(self.storage.list(RUNS)?.into_iter().filter(|name| leading_epoch(name).is_some()).collect())
    }

    /// How many bytes a file of runs has; `None` if there is none.
    pub fn run_size(&self, file: &str) -> Result<Option<u64>> {
        self.storage.size(&run_key(file))
    }

    /// The bytes of a run, as they are.
    pub fn run_bytes(&self, run: &RunRef) -> Result<Vec<u8>> {
        self.storage.get_range(&run_key(&run.file), run.offset..run.offset.saturating_add(run.length))
    }

    /// Where a file of runs is, for people.
    pub fn run_address(&self, file: &str) -> String {
        self.storage.describe(&run_key(file))
    }

    /// Where a manifest is, for people.
    pub fn manifest_address(&self, epoch: Epoch) -> String {
        self.storage.describe(&manifest_key(epoch))
    }

    /// The last epoch that has a manifest, damaged ones included. The one after it is the only one that anybody can be
    /// writing, so who takes that number fences everybody else.
    pub fn last_epoch(&self) -> Result<Epoch> {
        Ok(self.epochs()?.into_iter().next_back().unwrap_or(Epoch::ZERO))
    }

    /// Reads one manifest.
    pub fn load(&self, epoch: Epoch) -> Result<Manifest> {
        let key = manifest_key(epoch);
        let path = self.storage.describe(&key);
        let bytes =
            self.storage.get(&key)?.ok_or_else(|| Error::corrupt(format!("{path}: the manifest is missing")))?;
        let manifest = Manifest::decode(Path::new(&path), &bytes)?;
        if manifest.epoch != epoch {
            return Err(Error::corrupt(format!("{path}: this is the manifest of epoch {}", manifest.epoch)));
        }
        Ok(manifest)
    }

    /// The newest checkpoint of which every byte is as written; `None` if there never was one.
    ///
    /// # Errors
    /// `Corrupt`, if there are checkpoints and all are damaged, or runs and no manifest.
    pub fn restore_newest(&self) -> Result<Option<Restored>> {
        // Who published the newest may have died before its name was durable; nothing may be built on it until it is.
        self.storage.settle(MANIFESTS)?;
        let mut skipped = Vec::new();
        for epoch in self.epochs()?.into_iter().rev() {
            match self.load(epoch).and_then(|manifest| Ok((self.load_runs(&manifest)?, manifest))) {
                Ok((runs, manifest)) => return Ok(Some(Restored { manifest, runs, skipped })),
                Err(error) if error.kind() == ErrorKind::Corrupt => skipped.push(error),
                Err(error) => return Err(error),
            }
        }
        match skipped.into_iter().next() {
            None => self.check_half_deleted().map(|()| None),
            Some(error) => Err(error.context(
                "no checkpoint here is whole; bring the damaged file back from a copy, or start over with --fresh; the \
                 newest",
            )),
        }
    }

    /// That there are no runs where there is no manifest: whoever took those away took a run's progress with them.
    ///
    /// # Errors
    /// `Corrupt`, if there are.
    pub fn check_half_deleted(&self) -> Result<()> {
        // A start from a savepoint that did not come to its end leaves files, and may come again.
        let mut files = self.run_files()?.into_iter().filter(|file| file.split('-').nth(1) != Some(savepoint::BEGUN));
        let Some(file) = files.next_back() else { return Ok(()) };
        if !self.epochs()?.is_empty() {
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "{}: no manifest is here, but runs of checkpoints are, such as {}; bring the manifests back, or start over \
             with --fresh",
            self.storage.describe(MANIFESTS),
            self.run_address(&file)
        )))
    }

    /// Copies every file that `runs` name to `target`, durably, after looking whether they are as they were written; there
    /// it is called what `name` says. How many bytes.
    ///
    /// # Errors
    /// `Corrupt`, naming the file.
    pub(crate) fn copy_runs<'a>(
        &self,
        runs: impl Iterator<Item = &'a RunRef>,
        target: &Self,
        name: impl Fn(&str) -> String,
    ) -> Result<u64> {
        let mut files: BTreeMap<&str, Vec<&RunRef>> = BTreeMap::new();
        runs.for_each(|run| files.entry(&run.file).or_default().push(run));
        let mut copied = 0;
        for (file, runs) in files {
            let (path, bytes) = self.read_file(file)?;
            runs.into_iter().try_for_each(|run| run_file::checked(run, &path, &bytes).map(drop))?;
            target.write_file(&name(file), &bytes)?;
            copied += bytes.len() as u64;
        }
        Ok(copied)
    }

    /// The bytes of a run file, and where it is.
    fn read_file(&self, file: &str) -> Result<(PathBuf, Vec<u8>)> {
        let key = run_key(file);
        let path = self.storage.describe(&key);
        let bytes = self.storage.get(&key)?;
        let bytes = bytes.ok_or_else(|| Error::corrupt(format!("{path}: the file is missing")))?;
        Ok((path.into(), bytes))
    }

    /// Writes a run file, durably.
    pub(crate) fn write_file(&self, file: &str, bytes: &[u8]) -> Result<()> {
        self.storage.put(&run_key(file), bytes)
    }

    /// Removes all run files: of a store that has no manifest.
    pub(crate) fn remove_runs(&self) -> Result<()> {
        self.storage.list(RUNS)?.iter().try_for_each(|file| self.storage.remove(&run_key(file)))
    }

    /// The rows of one run.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, if they are not as they were written.
    pub fn load_run(&self, run: &RunRef) -> Result<RecordBatch> {
        let (path, bytes) = self.read_file(&run.file)?;
        run_file::decode(run, &path, &bytes)
    }

    fn load_runs(&self, manifest: &Manifest) -> Result<RestoredRuns> {
        let buckets = manifest.runs().filter(|run| run.layout != RunLayout::Keyed);
        let names: BTreeSet<_> = buckets.map(|run| run.file.as_str()).collect();
        let keys: Vec<_> = names.iter().map(|file| run_key(file)).collect();
        let files: HashMap<_, _> = names.into_iter().zip(self.storage.get_all(&keys)?).collect();
        let mut runs = RestoredRuns::default();
        for reference in manifest.runs() {
            let place = (reference.file.clone(), reference.offset);
            if reference.layout == RunLayout::Keyed {
                // Two subtasks may name the same file.
                if let Entry::Vacant(vacant) = runs.keyed.entry(place) {
                    vacant.insert(self.fetch(reference)?);
                }
                continue;
            }
            let path = self.run_address(&reference.file);
            let bytes = files.get(reference.file.as_str()).and_then(Option::as_deref);
            let bytes = bytes.ok_or_else(|| Error::corrupt(format!("{path}: the file is missing")))?;
            let batch = run_file::decode(reference, Path::new(&path), bytes)?;
            runs.buckets.insert(place, batch);
        }
        Ok(runs)
    }

    /// Writes what of a subtask's table is not stored yet, durably, and says where all of its runs are: of a keyed table
    /// the oldest first.
    pub fn write_runs(
        &self,
        epoch: Epoch,
        operator: OperatorId,
        subtask: Subtask,
        table: &TableSnapshot,
        name: &str,
    ) -> Result<Vec<RunRef>> {
        let file = format!("{epoch}-{operator}-{}-{name}-{}", subtask.index, self.attempt);
        match table {
            TableSnapshot::Buckets(runs) => self.write_buckets(runs, subtask, format!("{file}.arrow")),
            TableSnapshot::Keyed(keyed) => self.import_runs(keyed, &file),
            TableSnapshot::Stored(references) => Ok(references.clone()),
            TableSnapshot::Rows(rows) if !rows.is_stored_by(subtask) => Ok(Vec::new()),
            TableSnapshot::Rows(rows) => self.write_rows(rows, format!("{file}.arrow")),
        }
    }

    /// The new runs of a bucket table go into one file.
    fn write_buckets(&self, runs: &[Run], subtask: Subtask, name: String) -> Result<Vec<RunRef>> {
        let mut bytes = Vec::new();
        let mut fresh = Vec::new();
        for run in runs.iter().filter(|run| run.stored().is_none()) {
            let batch = run.to_batch()?;
            let (offset, length) = run_file::encode(&batch, &mut bytes)?;
            let written = bytes.get(offset as usize..).unwrap_or_default();
            let (crc32, rows) = (crc32fast::hash(written), batch.num_rows() as u64);
            let (file, groups, bucket) = (name.clone(), subtask.key_groups(), run.bucket());
            fresh.push((run, RunRef { file, offset, length, crc32, rows, bucket, groups, layout: RunLayout::Bucket }));
        }
        if !fresh.is_empty() {
            self.storage.put(&run_key(&name), &bytes)?;
        }
        fresh.into_iter().for_each(|(run, reference)| run.set_stored(reference));
        Ok(runs.iter().filter_map(Run::stored).cloned().collect())
    }

    /// The new runs of a keyed table are files already: of this machine, not synced.
    fn import_runs(&self, table: &KeyedSnapshot, file: &str) -> Result<Vec<RunRef>> {
        let runs = table.settled()?;
        for (number, run) in runs.iter().filter(|run| run.stored().is_none()).enumerate() {
            if !planted(Bug::RunsNotSynced) {
                run.sync()?;
            }
            let file = format!("{file}-{number}.arrow");
            self.storage.import(&run_key(&file), table.disk().as_ref(), run.path())?;
            run.set_stored(run.reference(file));
        }
        Ok(runs.iter().filter_map(|run| run.stored()).cloned().collect())
    }

    /// Where this process makes runs of keyed tables.
    pub fn work_folder(&self) -> &WorkFolder {
        &self.work
    }

    /// Brings a run of a keyed table where it can be read, whole: a file of the store itself if that is on a disk, else
    /// a copy in `work`.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, if a byte is not as written.
    pub(crate) fn fetch(&self, reference: &RunRef) -> Result<Fetched> {
        let key = run_key(&reference.file);
        let reference = reference.clone();
        if let Some((disk, folder)) = self.storage.local() {
            let path = folder.join(&key);
            runs::verify(disk.as_ref(), &path, &reference)?;
            return Ok(Fetched { disk: Arc::clone(disk), path, base: reference.offset, reference, copy: None });
        }
        let (path, mut file) = self.work.create("restored")?;
        let disk = Arc::clone(self.work.disk());
        let copy = Some(Arc::new(Temporary::new(Arc::clone(&disk), path.clone())));
        let end = reference.offset + reference.length;
        let mut crc32 = crc32fast::Hasher::new();
        for start in (reference.offset..end).step_by(FETCHED_BYTES as usize) {
            let bytes = self.storage.get_range(&key, start..end.min(start + FETCHED_BYTES))?;
            crc32.update(&bytes);
            file.write_all(&bytes).map_err(|error| Error::io(path.display(), &error))?;
        }
        file.flush().map_err(|error| Error::io(path.display(), &error))?;
        if crc32.finalize() != reference.crc32 {
            let place = self.storage.describe(&key);
            return Err(Error::corrupt(format!(
                "{place}: the checksum of bytes {}..{end} does not fit",
                reference.offset
            )));
        }
        // The copy holds nothing but this run.
        Ok(Fetched { disk, path, base: 0, reference, copy })
    }

    /// Rows that belong to no key go into one file whenever they have changed.
    fn write_rows(&self, rows: &RowsSnapshot, name: String) -> Result<Vec<RunRef>> {
        if let Some(stored) = rows.stored() {
            return Ok(stored.to_vec());
        }
        let references = self.write_batches(name, rows.batches(), rows.redistribution().into())?;
        rows.set_stored(references.clone());
        Ok(references)
    }

    /// Writes batches that a barrier has overtaken before a subtask into one file, durably, and says where they are.
    pub fn write_in_flight(
        &self,
        epoch: Epoch,
        operator: OperatorId,
        subtask: Subtask,
        batches: &[RecordBatch],
    ) -> Result<Vec<RunRef>> {
        let name = format!("{epoch}-{operator}-{}-in-flight-{}.arrow", subtask.index, self.attempt);
        self.write_batches(name, batches, RunLayout::Bucket)
    }

    /// Writes batches of no bucket and no key group into one file, durably, and says where they are.
    fn write_batches(&self, name: String, batches: &[RecordBatch], layout: RunLayout) -> Result<Vec<RunRef>> {
        let mut bytes = Vec::new();
        let mut references = Vec::with_capacity(batches.len());
        for batch in batches {
            let (offset, length) = run_file::encode(batch, &mut bytes)?;
            let crc32 = crc32fast::hash(bytes.get(offset as usize..).unwrap_or_default());
            let (file, rows, groups) = (name.clone(), batch.num_rows() as u64, 0..KEY_GROUPS);
            references.push(RunRef { file, offset, length, crc32, rows, bucket: 0, groups, layout });
        }
        if !batches.is_empty() {
            self.storage.put(&run_key(&name), &bytes)?;
        }
        Ok(references)
    }

    /// Makes a checkpoint exist. Every run that it names must have been written.
    ///
    /// # Errors
    /// `Fenced`, if another process has written this epoch or a later one.
    pub fn publish(&self, manifest: &Manifest) -> Result<()> {
        self.storage.settle(RUNS)?;
        let key = manifest_key(manifest.epoch);
        let signed = Manifest { attempt: Some(self.attempt.clone()), ..manifest.clone() };
        let published = self.storage.create(&key, &signed.encode()?)?;
        // The number may have been taken and cleared away again; then there is a higher one.
        let overtaken = self.last_epoch()? > manifest.epoch;
        match (published, overtaken) {
            (true, false) => return Ok(()),
            (true, true) => self.storage.remove(&key)?,
            (false, _) => {}
        }
        Err(Error::fenced(format!(
            "{}: another process has written checkpoint {}; this one stops",
            self.storage.describe(&key),
            manifest.epoch
        )))
    }

    /// Removes checkpoints older than the last few, and the runs up to `newest` that none of the rest names.
    pub fn collect_garbage(&self, newest: Epoch) -> Result<()> {
        let epochs: Vec<_> = self.epochs()?.into_iter().filter(|epoch| *epoch <= newest).collect();
        let (old, kept) = epochs.split_at(epochs.len().saturating_sub(RETAINED));
        let mut named = BTreeSet::new();
        for epoch in kept {
            match self.load(*epoch) {
                Ok(manifest) => named.extend(manifest.runs().map(|run| run.file.clone())),
                // What a damaged manifest names is unknown: remove nothing while it is among the kept.
                Err(_) => return Ok(()),
            }
        }
        for epoch in old {
            self.storage.remove(&manifest_key(*epoch))?;
        }
        for file in self.run_files()? {
            if !named.contains(&file) && leading_epoch(&file).is_some_and(|epoch| epoch <= newest) {
                self.storage.remove(&run_key(&file))?;
            }
        }
        self.collect_drafts(newest)
    }

    /// Removes manifests that a dead process had not published yet.
    fn collect_drafts(&self, newest: Epoch) -> Result<()> {
        for name in self.storage.list(MANIFESTS)? {
            let draft = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
            if draft.and_then(leading_epoch).is_some_and(|epoch| epoch <= newest) {
                self.storage.remove(&format!("{MANIFESTS}/{name}"))?;
            }
        }
        Ok(())
    }
}

/// Beside the checkpoints if they are on a disk, so that one file is both a run of this process and of a checkpoint; else
/// in this machine's folder for temporary files.
fn work_folder(storage: &dyn Storage, attempt: &str) -> WorkFolder {
    match storage.local() {
        Some((disk, folder)) => WorkFolder::new(Arc::clone(disk), folder.join(WORK).join(attempt)),
        None => WorkFolder::new(Arc::new(LocalDisk), std::env::temp_dir().join("ruslo-work").join(attempt)),
    }
}

fn manifest_key(epoch: Epoch) -> String {
    format!("{MANIFESTS}/{:020}.json", epoch.0)
}

fn epoch_of_manifest(name: &str) -> Option<Epoch> {
    let digits = name.strip_suffix(".json").filter(|digits| digits.len() == 20)?;
    digits.parse().ok().map(Epoch)
}

fn run_key(file: &str) -> String {
    format!("{RUNS}/{file}")
}

/// The epoch whose number a file's name begins with.
fn leading_epoch(name: &str) -> Option<Epoch> {
    name.split(['-', '.']).next()?.parse().ok().map(Epoch)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests damage files behind the disk's back")]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};
    use ruslo_core::metrics::RowCounts;
    use ruslo_core::state::OperatorState;
    use ruslo_core::time::Timestamp;

    use super::*;
    use crate::manifest::{OperatorEntry, SubtaskEntry};
    use crate::table::RunState;

    const OPERATOR: OperatorId = OperatorId(1);
    const SUBTASK: Subtask = Subtask { index: 0, parallelism: 1 };

    fn store(folder: &Path, attempt: &str) -> CheckpointStore {
        CheckpointStore::open(Arc::new(LocalDisk), folder, attempt).unwrap()
    }

    fn append(state: &mut RunState, bucket: i64, value: i64) {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        let rows = RecordBatch::try_from_iter([("v", column)]).unwrap();
        state.buckets("t").append(bucket, &[0], &rows).unwrap();
    }

    fn checkpoint(store: &CheckpointStore, epoch: u64, state: &mut RunState) -> Result<Manifest> {
        let epoch = Epoch(epoch);
        let mut tables = BTreeMap::new();
        for (name, table) in state.seal().unwrap() {
            tables.insert(name, store.write_runs(epoch, OPERATOR, SUBTASK, &table, "0")?);
        }
        let subtask =
            SubtaskEntry { watermark: Timestamp(0), counts: RowCounts::default(), other_inputs: Vec::new(), tables };
        let entry = OperatorEntry { subtasks: vec![subtask], ..Default::default() };
        let manifest = Manifest {
            epoch,
            run: "r".to_owned(),
            fingerprint: "f".to_owned(),
            plan: None,
            repeats: None,
            attempt: Some(store.attempt.clone()),
            savepoint: None,
            delivery: None,
            books: None,
            finished: false,
            written_at: Timestamp(0),
            operators: [(OPERATOR, entry)].into(),
        };
        store.publish(&manifest)?;
        Ok(manifest)
    }

    #[test]
    fn only_new_runs_are_written_and_old_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "a");
        let mut state = RunState::new(0..128);
        append(&mut state, 1, 10);
        checkpoint(&store, 1, &mut state).unwrap();
        append(&mut state, 1, 11);
        let second = checkpoint(&store, 2, &mut state).unwrap();
        let files: Vec<_> = second.runs().map(|run| run.file.split('-').next().unwrap().to_owned()).collect();
        assert_eq!(files, ["1", "2"]);
        let restored = store.restore_newest().unwrap().unwrap();
        assert_eq!(restored.manifest, second);
        assert_eq!(restored.runs.buckets.len(), 2);
    }

    #[test]
    fn the_second_writer_of_an_epoch_is_fenced_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (store(folder.path(), "a"), store(folder.path(), "b"));
        let mut state = RunState::new(0..128);
        append(&mut state, 1, 10);
        let manifest = checkpoint(&first, 1, &mut state).unwrap();
        let error = checkpoint(&second, 1, &mut RunState::new(0..128)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert_eq!(first.load(Epoch(1)).unwrap(), manifest);
    }

    #[test]
    fn a_number_that_was_cleared_away_still_fences() {
        let folder = tempfile::tempdir().unwrap();
        let (zombie, successor) = (store(folder.path(), "a"), store(folder.path(), "b"));
        let mut state = RunState::new(0..128);
        for epoch in 2..=6 {
            checkpoint(&successor, epoch, &mut state).unwrap();
            successor.collect_garbage(Epoch(epoch)).unwrap();
        }
        assert_eq!(checkpoint(&zombie, 2, &mut state).unwrap_err().kind(), ErrorKind::Fenced);
        assert_eq!(successor.epochs().unwrap(), [Epoch(4), Epoch(5), Epoch(6)]);
    }

    #[test]
    fn two_processes_on_one_folder_are_told_apart_at_the_door() {
        let folder = tempfile::tempdir().unwrap();
        let held = store(folder.path(), "a").lock().unwrap();
        let error = store(folder.path(), "b").lock().err().unwrap();
        assert!(error.to_string().starts_with("another process is running on the checkpoints in"), "{error}");
        drop(held);
    }

    #[test]
    fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "a");
        let mut state = RunState::new(0..128);
        append(&mut state, 1, 10);
        checkpoint(&store, 1, &mut state).unwrap();
        append(&mut state, 2, 20);
        let second = checkpoint(&store, 2, &mut state).unwrap();
        let damaged = second.runs().find(|run| run.bucket == 2).unwrap().file.clone();
        std::fs::write(folder.path().join("runs").join(&damaged), b"torn").unwrap();
        let restored = store.restore_newest().unwrap().unwrap();
        assert_eq!(restored.manifest.epoch, Epoch(1));
        assert!(restored.skipped[0].to_string().contains(&damaged), "{:?}", restored.skipped);
        std::fs::write(folder.path().join(manifest_key(Epoch(1))), b"").unwrap();
        let error = store.restore_newest().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(store.last_epoch().unwrap(), Epoch(2));
    }

    #[test]
    fn runs_without_manifests_are_no_fresh_start() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "a");
        let mut state = RunState::new(0..128);
        append(&mut state, 1, 10);
        checkpoint(&store, 1, &mut state).unwrap();
        std::fs::remove_file(folder.path().join(manifest_key(Epoch(1)))).unwrap();
        let error = store.restore_newest().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("manifests: no manifest is here"), "{error}");
    }

    #[test]
    fn a_folder_of_other_things_stays_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| CheckpointStore::at(Arc::new(LocalDisk), &folder.path().join(name), "a");
        let look = |name: &str| CheckpointStore::existing(Arc::new(LocalDisk), &folder.path().join(name));
        assert!(look("new").unwrap_err().to_string().ends_with("new: no such folder"));
        at("new").unwrap();
        at("new").unwrap();
        look("new").unwrap();
        std::fs::create_dir_all(folder.path().join("data")).unwrap();
        at("data").unwrap();
        std::fs::create_dir_all(folder.path().join("other")).unwrap();
        std::fs::write(folder.path().join("other/letters.csv"), "a").unwrap();
        let error = at("other").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("it has 'letters.csv' in it, and no checkpoints"), "{error}");
        assert!(look("other").unwrap_err().to_string().contains("it has no 'manifests' in it"));
        assert_eq!(std::fs::read_dir(folder.path().join("other")).unwrap().count(), 1);
    }

    #[test]
    fn verifying_names_every_damaged_run_once_with_the_checkpoints_it_takes_along() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "a");
        let mut state = RunState::new(0..128);
        for epoch in 1..=3 {
            append(&mut state, epoch as i64, 10);
            checkpoint(&store, epoch, &mut state).unwrap();
        }
        let epochs = store.epochs().unwrap();
        let verified = crate::verify::verify(&store, &epochs).unwrap();
        assert_eq!((verified.whole, verified.damages, verified.runs), (epochs.clone(), vec![], 3));
        let second = store.load(Epoch(2)).unwrap().runs().find(|run| run.bucket == 2).unwrap().clone();
        let path = folder.path().join(run_key(&second.file));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[17] ^= 4;
        std::fs::write(&path, bytes).unwrap();
        std::fs::write(folder.path().join(run_key("9-x.arrow")), "").unwrap();
        let verified = crate::verify::verify(&store, &epochs).unwrap();
        assert_eq!(verified.whole, [Epoch(1)]);
        let [damage] = verified.damages.as_slice() else { panic!("{:?}", verified.damages) };
        assert_eq!((damage.offset, damage.epochs.as_slice()), (Some(0), &[Epoch(2), Epoch(3)][..]));
        assert!(damage.what.contains(&second.file) && damage.what.contains("the checksum of bytes 0.."), "{damage:?}");
        assert_eq!(verified.unnamed.len(), 1);
    }

    #[test]
    fn drafts_of_the_dead_go_and_foreign_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "a");
        let names =
            [".2-dead.tmp", ".00000000000000000003.json-dead.tmp", ".00000000000000000009.json-b.tmp", ".hidden"];
        for name in names {
            std::fs::write(folder.path().join("manifests").join(name), "").unwrap();
        }
        std::fs::write(folder.path().join("runs/.part"), "").unwrap();
        checkpoint(&store, 3, &mut RunState::new(0..128)).unwrap();
        store.collect_garbage(Epoch(3)).unwrap();
        let left = store.storage().list("manifests").unwrap();
        assert_eq!(left, [".00000000000000000009.json-b.tmp", ".hidden", "00000000000000000003.json"]);
        assert_eq!(store.storage().list("runs").unwrap(), [".part"]);
    }

    #[test]
    fn garbage_goes_and_what_a_kept_manifest_names_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "a");
        let mut state = RunState::new(0..128);
        append(&mut state, 0, 0);
        for epoch in 1..=6 {
            append(&mut state, epoch as i64, 1);
            state.buckets("t").expire(epoch as i64 - 1);
            checkpoint(&store, epoch, &mut state).unwrap();
            store.collect_garbage(Epoch(epoch)).unwrap();
        }
        assert_eq!(store.epochs().unwrap(), [Epoch(4), Epoch(5), Epoch(6)]);
        assert_eq!(LocalDisk.list(&folder.path().join("runs")).unwrap().len(), 3);
        for epoch in store.epochs().unwrap() {
            store.load_runs(&store.load(epoch).unwrap()).unwrap();
        }
    }
}
