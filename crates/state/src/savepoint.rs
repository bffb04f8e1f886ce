//! Savepoints: folders that hold all that a job needs to go on, and can be moved, copied and kept.
//!
//! Life of one: a [`Target`] is looked at and its folders are made; a checkpoint's runs are copied there and its manifest
//! is published, with which it exists; [`open`] finds it again, and [`Savepoint::begin`] copies it into the checkpoint
//! folder of a new run. Nothing writes into a savepoint that exists. The format is specified in
//! `docs/design/savepoint.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use ruslo_core::disk::{Disk, FileKind};
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::OperatorId;

use crate::manifest::{Manifest, OperatorEntry, RunRef, SavepointNote};
use crate::run_file;
use crate::storage;
use crate::store::CheckpointStore;

/// Where a savepoint is to be made.
///
/// As long as it is there the place has an object `claim`, so that two jobs cannot be made to write into the same.
#[derive(Debug)]
pub struct Target {
    store: CheckpointStore,
    job: String,
}

impl Drop for Target {
    fn drop(&mut self) {
        // Only to tidy up: if it stays, the folder is not empty, which is told to who wants to use it again.
        let _ = self.store.storage().remove(CLAIM);
    }
}

const CLAIM: &str = "claim";

/// Stands behind the epoch in the names of files that a run begins with.
pub(crate) const BEGUN: &str = "begun";

/// A savepoint that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Where it is.
    pub folder: PathBuf,
    /// The checkpoint that it is of.
    pub epoch: Epoch,
    /// How long its run files are, in bytes.
    pub bytes: u64,
}

impl Target {
    /// `place`, a folder, which is created, or an address as `s3://bucket/prefix`, for a savepoint of the job `job`.
    /// `attempt` is a name that nobody else uses.
    ///
    /// # Errors
    /// `Usage`, if something is there; and what goes wrong as it is made ready.
    pub fn prepare(disk: Arc<dyn Disk>, place: &Path, job: &str, attempt: &str) -> Result<Self> {
        let storage = storage::open(disk, place, attempt)?;
        match storage.local() {
            Some((disk, folder)) => check_free(disk.as_ref(), folder)?,
            None if !storage.list("manifests")?.is_empty() || !storage.list("runs")?.is_empty() => {
                return Err(not_empty(place));
            }
            None => {}
        }
        storage.prepare(&["manifests", "runs"])?;
        if !storage.create(CLAIM, attempt.as_bytes())? {
            return Err(not_empty(place));
        }
        Ok(Self { store: CheckpointStore::over(storage, attempt), job: job.to_owned() })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        self.store.folder()
    }

    /// Makes the savepoint of the checkpoint `manifest`, whose output has been committed and whose runs are in `from`.
    /// It is there whole, or not at all.
    ///
    /// # Errors
    /// `Corrupt`, if a run is not as it was written; `Fenced`, if somebody else made a savepoint there meanwhile.
    pub fn save(&self, from: &CheckpointStore, manifest: &Manifest) -> Result<Saved> {
        if manifest.operators.values().any(|entry| !entry.in_flight.is_empty()) {
            return Err(Error::internal(
                "a savepoint was to be made of a checkpoint that a barrier has overtaken rows for",
            ));
        }
        let note = SavepointNote { job: self.job.clone() };
        let mut manifest = Manifest { repeats: None, attempt: None, savepoint: Some(note), ..manifest.clone() };
        manifest.operators.values_mut().for_each(forget_pending);
        let saved = from.copy_runs(manifest.runs(), &self.store, str::to_owned).and_then(|bytes| {
            self.store.publish(&manifest)?;
            Ok(Saved { folder: self.folder().to_owned(), epoch: manifest.epoch, bytes })
        });
        if saved.is_err() {
            // Only to tidy up: without a manifest it is no savepoint, and the error that is told is the first.
            let _ = self.store.remove_runs();
        }
        saved
    }
}

/// The output of a savepoint has been committed: nobody does so again.
fn forget_pending(entry: &mut OperatorEntry) {
    entry.committables.clear();
    entry.subtasks.iter_mut().for_each(|subtask| subtask.counts = subtask.counts.committed());
}

/// Refuses a folder in which anything is; the empty folders of an attempt that failed are nothing.
fn check_free(disk: &dyn Disk, folder: &Path) -> Result<()> {
    let shown = folder.display();
    match disk.kind(folder)? {
        None => return Ok(()),
        Some(FileKind::File(_)) => {
            return Err(Error::usage(format!("{shown}: this is a file; name a folder that is not there yet")));
        }
        Some(FileKind::Folder) => {}
    }
    for path in disk.list(folder)? {
        let is_ours = path.file_name().is_some_and(|name| name == "manifests" || name == "runs");
        let is_empty = is_ours && disk.kind(&path)? == Some(FileKind::Folder) && disk.list(&path)?.is_empty();
        if !is_empty {
            return Err(not_empty(folder));
        }
    }
    Ok(())
}

fn not_empty(place: &Path) -> Error {
    Error::usage(format!(
        "{}: the folder is not empty; a savepoint is made in a new folder or an empty one",
        place.display()
    ))
}

/// Lays out the rows of a run anew: as many, in the same order, of the same key groups.
pub type Rewrite = Box<dyn Fn(&RecordBatch) -> Result<RecordBatch> + Send + Sync>;

fn runs_of(entry: &OperatorEntry) -> impl Iterator<Item = &RunRef> {
    let tables = entry.subtasks.iter().flat_map(|task| task.tables.values().flatten());
    tables.chain(in_flight_of(entry))
}

/// Those of rows that a barrier has overtaken: they are copied even where state is written anew.
fn in_flight_of(entry: &OperatorEntry) -> impl Iterator<Item = &RunRef> {
    entry.in_flight.iter().flat_map(|rows| &rows.batches)
}

/// A savepoint that was found.
#[derive(Debug)]
pub struct Savepoint {
    /// What it consists of.
    pub manifest: Manifest,
    store: CheckpointStore,
}

/// The savepoint in `folder`, which may be an address as `s3://bucket/prefix`.
///
/// # Errors
/// `Usage`, if there is none; `Corrupt`, if its manifest is not as it was written.
pub fn open(disk: Arc<dyn Disk>, folder: &Path) -> Result<Savepoint> {
    let shown = folder.display();
    let store = CheckpointStore::over(storage::open(disk, folder, "")?, "");
    if let Some((disk, local)) = store.storage().local()
        && disk.kind(local)?.is_none()
    {
        return Err(Error::usage(format!("{shown}: no such folder; name one that `ruslo savepoint` has made")));
    }
    let Some(epoch) = store.epochs()?.into_iter().next_back() else {
        return Err(Error::usage(format!(
            "{shown}: there is no savepoint: no manifest is in its folder 'manifests'; was it made to its end, and copied \
             whole?"
        )));
    };
    let manifest = store.load(epoch)?;
    if manifest.savepoint.is_none() {
        return Err(Error::usage(format!(
            "{shown}: this is a checkpoint folder, not a savepoint; go on from it with --checkpoint-dir and --resume, or \
             have its job make a savepoint"
        )));
    }
    Ok(Savepoint { manifest, store })
}

impl Savepoint {
    /// Where it is.
    pub fn folder(&self) -> &Path {
        self.store.folder()
    }

    /// Copies it into `store`, where it is from then on the newest checkpoint, under the number above the savepoint's and
    /// all that are there. `changed` makes the new run's manifest of the savepoint's, and may leave out state; `rewrites`
    /// are operators whose state is laid out anew.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, if a run is not as it was written; and whatever `changed` and `rewrites` refuse.
    pub fn begin(
        &self,
        store: &CheckpointStore,
        changed: impl FnOnce(Manifest) -> Manifest,
        rewrites: &BTreeMap<OperatorId, Rewrite>,
    ) -> Result<Manifest> {
        let epoch = self.manifest.epoch.max(store.last_epoch()?).next();
        let mut begun = changed(Manifest { epoch, savepoint: None, ..self.manifest.clone() });
        let kept = begun.operators.iter().filter(|(id, _)| !rewrites.contains_key(id));
        let rewritten = begun.operators.iter().filter(|(id, _)| rewrites.contains_key(id));
        let copied = kept.flat_map(|(_, entry)| runs_of(entry));
        let copied: Vec<_> = copied.chain(rewritten.flat_map(|(_, entry)| in_flight_of(entry))).cloned().collect();
        let files: BTreeSet<_> = copied.iter().map(|run| run.file.as_str()).collect();
        // Names of this start: the folder may have files of the old ones, from a start that did not come to its end.
        let new_name = |number| format!("{epoch}-{BEGUN}-{number}-{}.arrow", store.attempt());
        let names: BTreeMap<_, _> =
            files.into_iter().enumerate().map(|(number, old)| (old, new_name(number))).collect();
        let name = |old: &str| names.get(old).cloned().unwrap_or_else(|| old.to_owned());
        self.store.copy_runs(copied.iter(), store, name)?;
        for (id, entry) in &mut begun.operators {
            match rewrites.get(id) {
                None => entry.runs_mut().for_each(|run| run.file = name(&run.file)),
                Some(rewrite) => {
                    let in_flight = entry.in_flight.iter_mut().flat_map(|rows| &mut rows.batches);
                    in_flight.for_each(|run| run.file = name(&run.file));
                    self.rewrite(*id, entry, rewrite, store, epoch)?;
                }
            }
        }
        store.publish(&begun)?;
        Ok(begun)
    }

    /// Writes the runs of one operator anew.
    fn rewrite(
        &self,
        id: OperatorId,
        entry: &mut OperatorEntry,
        rewrite: &Rewrite,
        store: &CheckpointStore,
        epoch: Epoch,
    ) -> Result<()> {
        for (subtask, part) in entry.subtasks.iter_mut().enumerate() {
            for (table, runs) in &mut part.tables {
                let file = format!("{epoch}-{BEGUN}-{id}-{subtask}-{table}-{}.arrow", store.attempt());
                let mut bytes = Vec::new();
                for run in runs.iter_mut() {
                    let stored = self.store.load_run(run)?;
                    // Rows that belong to no key are the operator's own business, whatever the query is.
                    let is_keyed = run.layout.redistribution().is_none();
                    let rows = if is_keyed { rewrite(&stored)? } else { stored };
                    let (offset, length) = run_file::encode(&rows, &mut bytes)?;
                    let crc32 = crc32fast::hash(bytes.get(offset as usize..).unwrap_or_default());
                    *run = RunRef { file: file.clone(), offset, length, crc32, ..run.clone() };
                }
                store.write_file(&file, &bytes)?;
            }
        }
        Ok(())
    }

    /// The files, for who reads the state.
    pub fn store(&self) -> &CheckpointStore {
        &self.store
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests damage files behind the disk's back")]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use ruslo_core::disk::LocalDisk;
    use ruslo_core::error::ErrorKind;
    use ruslo_core::metrics::RowCounts;
    use ruslo_core::operator::Subtask;
    use ruslo_core::sink::Committable;
    use ruslo_core::state::OperatorState;
    use ruslo_core::time::Timestamp;

    use super::*;
    use crate::manifest::{InFlightRows, SubtaskEntry};
    use crate::table::RunState;

    const OPERATOR: OperatorId = OperatorId(1);

    fn disk() -> Arc<dyn Disk> {
        Arc::new(LocalDisk)
    }

    /// A store with one checkpoint of two runs in two files, 10 and 20.
    fn checkpoint(folder: &Path) -> (CheckpointStore, Manifest) {
        let store = CheckpointStore::open(disk(), folder, "a").unwrap();
        let subtask = Subtask { index: 0, parallelism: 1 };
        let mut state = RunState::new(0..128);
        let mut tables = BTreeMap::new();
        for (epoch, value) in [(6, 10), (7, 20)] {
            let column: ArrayRef = Arc::new(Int64Array::from(vec![value]));
            let rows = RecordBatch::try_from_iter([("aggregate0_0", column)]).unwrap();
            state.buckets("t").append(value, &[3], &rows).unwrap();
            for (name, table) in state.seal().unwrap() {
                tables.insert(name, store.write_runs(Epoch(epoch), OPERATOR, subtask, &table, "t").unwrap());
            }
        }
        let counts = RowCounts { rows_in: 9, committed_rows: 4, pending_rows: 5, ..RowCounts::default() };
        let subtask = SubtaskEntry { watermark: Timestamp(5), counts, other_inputs: Vec::new(), tables };
        let committables = vec![Committable("part".into())];
        let entry = OperatorEntry { subtasks: vec![subtask], committables, ..Default::default() };
        let manifest = Manifest {
            epoch: Epoch(7),
            run: "old".to_owned(),
            fingerprint: "f".to_owned(),
            plan: None,
            repeats: Some(Epoch(6)),
            attempt: None,
            savepoint: None,
            delivery: None,
            books: None,
            finished: false,
            written_at: Timestamp(0),
            operators: [(OPERATOR, entry)].into(),
        };
        store.publish(&manifest).unwrap();
        (store, manifest)
    }

    fn saved(home: &Path) -> PathBuf {
        let (store, manifest) = checkpoint(&home.join("c"));
        let target = Target::prepare(disk(), &home.join("sp"), "job", "b").unwrap();
        let saved = target.save(&store, &manifest).unwrap();
        assert_eq!(saved.epoch, Epoch(7));
        assert!(saved.bytes > 0);
        saved.folder
    }

    fn values(store: &CheckpointStore, manifest: &Manifest) -> Vec<i64> {
        let runs = manifest.runs().map(|run| store.load_run(run).unwrap());
        runs.flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn a_savepoint_stands_alone_and_a_run_begins_from_it_wherever_it_is() {
        let home = tempfile::tempdir().unwrap();
        let folder = saved(home.path());
        std::fs::remove_dir_all(home.path().join("c")).unwrap();
        std::fs::rename(&folder, home.path().join("moved")).unwrap();
        let savepoint = open(disk(), &home.path().join("moved")).unwrap();
        assert_eq!(savepoint.manifest.savepoint, Some(SavepointNote { job: "job".to_owned() }));
        assert!(savepoint.manifest.repeats.is_none());
        assert!(savepoint.manifest.operators[&OPERATOR].committables.is_empty());
        let counts = savepoint.manifest.operators[&OPERATOR].subtasks[0].counts;
        assert_eq!((counts.rows_in, counts.committed_rows, counts.pending_rows), (9, 9, 0));

        for attempt in ["x", "y"] {
            let store = CheckpointStore::open(disk(), &home.path().join("new"), attempt).unwrap();
            let changed = |manifest| Manifest { run: "new".to_owned(), ..manifest };
            let begun = savepoint.begin(&store, changed, &BTreeMap::new()).unwrap();
            assert_eq!((begun.run.as_str(), begun.savepoint.is_none()), ("new", true));
            let restored = store.restore_newest().unwrap().unwrap();
            assert_eq!(restored.manifest.epoch, begun.epoch);
            assert_eq!(values(&store, &begun), [10, 20]);
            assert!(begun.runs().all(|run| run.is_of(begun.epoch)), "garbage is told by the epoch in its name");
        }
        let last = CheckpointStore::open(disk(), &home.path().join("new"), "z").unwrap().last_epoch().unwrap();
        assert_eq!(last, Epoch(9), "above the savepoint's, and above those in the folder");
    }

    #[test]
    fn state_can_be_laid_out_anew() {
        let home = tempfile::tempdir().unwrap();
        let savepoint = open(disk(), &saved(home.path())).unwrap();
        let store = CheckpointStore::open(disk(), &home.path().join("new"), "x").unwrap();
        let doubled: Rewrite = Box::new(|rows| {
            let values = rows.column(0).as_primitive::<Int64Type>().unary::<_, Int64Type>(|value| value * 2);
            let columns = vec![Arc::new(values) as ArrayRef, Arc::clone(rows.column(1))];
            Ok(RecordBatch::try_new(rows.schema(), columns)?)
        });
        let begun = savepoint.begin(&store, |manifest| manifest, &[(OPERATOR, doubled)].into()).unwrap();
        assert_eq!(values(&store, &begun), [20, 40]);
        assert_eq!(store.restore_newest().unwrap().unwrap().manifest, store.load(begun.epoch).unwrap());
    }

    /// None is made like this any more, but there may be some.
    #[test]
    fn rows_in_flight_of_a_savepoint_go_into_the_new_run_whether_state_is_laid_out_anew_or_not() {
        let home = tempfile::tempdir().unwrap();
        let folder = saved(home.path());
        let target = CheckpointStore::existing(disk(), &folder).unwrap();
        let mut manifest = target.load(Epoch(7)).unwrap();
        let column: ArrayRef = Arc::new(Int64Array::from(vec![30, 31]));
        let rows = RecordBatch::try_from_iter([("v", column)]).unwrap();
        let subtask = Subtask { index: 0, parallelism: 1 };
        let batches = target.write_in_flight(Epoch(8), OPERATOR, subtask, &[rows]).unwrap();
        let in_flight = InFlightRows { from: OperatorId(9), port: 0, input: 0, sender: 0, receiver: 0, batches };
        manifest.operators.get_mut(&OPERATOR).unwrap().in_flight.push(in_flight);
        target.publish(&Manifest { epoch: Epoch(8), ..manifest }).unwrap();

        let savepoint = open(disk(), &folder).unwrap();
        let same = || -> Rewrite { Box::new(|rows| Ok(rows.clone())) };
        for (name, rewrites) in [("kept", BTreeMap::new()), ("anew", [(OPERATOR, same())].into())] {
            let store = CheckpointStore::open(disk(), &home.path().join(name), "x").unwrap();
            let begun = savepoint.begin(&store, |manifest| manifest, &rewrites).unwrap();
            assert!(begun.runs().all(|run| run.is_of(begun.epoch)), "{name}: a file has the savepoint's name");
            let restored = store.restore_newest().unwrap().unwrap();
            let reference = &restored.manifest.operators[&OPERATOR].in_flight[0].batches[0];
            let found = restored.runs.get(reference).unwrap().column(0).as_primitive::<Int64Type>().values().to_vec();
            assert_eq!((found, values(&store, &begun)), (vec![30, 31], vec![10, 20, 30, 31]), "{name}");
        }
    }

    #[test]
    fn damage_and_half_of_a_savepoint_are_told_and_leave_nothing() {
        let home = tempfile::tempdir().unwrap();
        let (store, manifest) = checkpoint(&home.path().join("c"));
        let file = home.path().join("c/runs").join(&manifest.runs().last().unwrap().file);
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, &whole[..whole.len() - 9]).unwrap();
        let folder = home.path().join("sp");
        let target = Target::prepare(disk(), &folder, "job", "b").unwrap();
        let error = target.save(&store, &manifest).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().starts_with(file.to_str().unwrap()), "{error}");
        let error = open(disk(), &folder).unwrap_err();
        assert!(error.to_string().contains("was it made to its end"), "{error}");

        let error = Target::prepare(disk(), &folder, "job", "c").unwrap_err();
        assert!(error.to_string().contains("not empty"), "another is at it: {error}");
        drop(target);
        std::fs::write(&file, whole).unwrap();
        Target::prepare(disk(), &folder, "job", "c").unwrap().save(&store, &manifest).unwrap();
        assert!(open(disk(), &folder).is_ok());
        let error = open(disk(), &home.path().join("c")).unwrap_err();
        assert!(error.to_string().contains("this is a checkpoint folder"), "{error}");
        let error = open(disk(), &home.path().join("d")).unwrap_err();
        assert!(error.to_string().contains("no such folder"), "{error}");
    }
}
