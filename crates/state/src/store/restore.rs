//! What a checkpoint consists of, back from its files: every byte as it was written, or not at all.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use ruslo_core::error::{Error, ErrorKind, Result};

use super::{CheckpointStore, MANIFESTS, run_key};
use crate::manifest::{Manifest, RunLayout, RunRef};
use crate::run_file;
use crate::runs::{self, Fetched, Temporary};
use crate::savepoint;

/// How much of a run is in memory while it is fetched.
const FETCHED_BYTES: u64 = 8 << 20;

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
    pub(super) buckets: HashMap<(String, u64), RecordBatch>,
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

    /// The rows of one run.
    ///
    /// # Errors
    /// `Corrupt`, naming the file, if they are not as they were written.
    pub fn load_run(&self, run: &RunRef) -> Result<RecordBatch> {
        let (path, bytes) = self.read_file(&run.file)?;
        run_file::decode(run, &path, &bytes)
    }

    /// The bytes of a run file, and where it is.
    fn read_file(&self, file: &str) -> Result<(PathBuf, Vec<u8>)> {
        let key = run_key(file);
        let path = self.storage.describe(&key);
        let bytes = self.storage.get(&key)?;
        let bytes = bytes.ok_or_else(|| Error::corrupt(format!("{path}: the file is missing")))?;
        Ok((path.into(), bytes))
    }

    pub(super) fn load_runs(&self, manifest: &Manifest) -> Result<RestoredRuns> {
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
}
