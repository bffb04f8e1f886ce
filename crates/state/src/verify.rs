//! Looking at stored checkpoints without touching them: which there are, and whether every byte is as written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, ErrorKind, Result};

use crate::manifest::{Manifest, RunLayout, RunRef};
use crate::run_file;
use crate::store::CheckpointStore;

/// Bytes that are not as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file, or the object's address.
    pub file: String,
    /// Where in it the damaged run begins, in bytes; none, if it is about the file as a whole.
    pub offset: Option<u64>,
    /// What is wrong, for people; it begins with the file.
    pub what: String,
    /// The checkpoints that cannot be used because of it, ascending.
    pub epochs: Vec<Epoch>,
}

/// What a check of every byte came to.
#[derive(Debug, Clone, Default)]
pub struct Verified {
    /// The checkpoints of which every byte is as written, ascending.
    pub whole: Vec<Epoch>,
    /// What is damaged, by file and offset.
    pub damages: Vec<Damage>,
    /// Checkpoints that a newer Ruslo wrote: they cannot be checked.
    pub newer: Vec<(Epoch, Error)>,
    /// Files in `runs` that no readable manifest names: of a running process, or garbage.
    pub unnamed: Vec<String>,
    /// How many runs were read.
    pub runs: u64,
    /// How many bytes were read, manifests and runs.
    pub bytes: u64,
}

/// Checks `epochs`, reading every manifest once and every run that they name once.
///
/// # Errors
/// Whatever keeps bytes from being read; damage is no error here, but part of the answer.
pub fn verify(store: &CheckpointStore, epochs: &[Epoch]) -> Result<Verified> {
    let mut check = Check { store, runs: BTreeMap::new(), found: Verified::default() };
    let mut named = BTreeSet::new();
    for epoch in epochs {
        match store.load(*epoch) {
            Ok(manifest) => {
                check.found.bytes += manifest.encode()?.len() as u64;
                named.extend(manifest.runs().map(|run| run.file.clone()));
                check.manifest(&manifest)?;
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => check.damaged(
                Damage { file: store.manifest_address(*epoch), offset: None, what: error.to_string(), epochs: vec![] },
                *epoch,
            ),
            Err(error) if error.kind() == ErrorKind::Usage => check.found.newer.push((*epoch, error)),
            Err(error) => return Err(error),
        }
    }
    let files = store.run_files()?.into_iter();
    check.found.unnamed = files.filter(|file| !named.contains(file)).map(|file| store.run_address(&file)).collect();
    Ok(check.found)
}

/// A run, by what its reference says of its bytes.
type RunKey = (String, u64, u64, u32);

struct Check<'a> {
    store: &'a CheckpointStore,
    /// What is wrong with each run that was read: later checkpoints name it, too.
    runs: BTreeMap<RunKey, Option<Damage>>,
    found: Verified,
}

impl Check<'_> {
    fn manifest(&mut self, manifest: &Manifest) -> Result<()> {
        let mut is_whole = true;
        for run in manifest.runs() {
            let key = (run.file.clone(), run.offset, run.length, run.crc32);
            let damage = match self.runs.get(&key) {
                Some(known) => known.clone(),
                None => {
                    let damage = self.run(run)?;
                    self.runs.insert(key, damage.clone());
                    damage
                }
            };
            if let Some(damage) = damage {
                is_whole = false;
                self.damaged(damage, manifest.epoch);
            }
        }
        if is_whole {
            self.found.whole.push(manifest.epoch);
        }
        Ok(())
    }

    /// Reads a run; what is wrong with it.
    fn run(&mut self, run: &RunRef) -> Result<Option<Damage>> {
        self.found.runs += 1;
        let file = self.store.run_address(&run.file);
        let whole_file = |what: String| Damage { file: file.clone(), offset: None, what, epochs: vec![] };
        let end = run.offset.saturating_add(run.length);
        match self.store.run_size(&run.file)? {
            None => return Ok(Some(whole_file(format!("{file}: the file is missing")))),
            Some(size) if size < end => {
                let what = format!("{file}: the file ends at byte {size}, before the end of a run at byte {end}");
                return Ok(Some(whole_file(what)));
            }
            Some(_) => {}
        }
        let bytes = self.store.run_bytes(run)?;
        self.found.bytes += bytes.len() as u64;
        let what = if crc32fast::hash(&bytes) == run.crc32 {
            if run.layout == RunLayout::Keyed {
                return Ok(None);
            }
            let alone = RunRef { offset: 0, ..run.clone() };
            match run_file::decode(&alone, Path::new(&file), &bytes) {
                Ok(_) => return Ok(None),
                Err(error) => error.to_string(),
            }
        } else {
            format!("{file}: the checksum of bytes {}..{end} does not fit", run.offset)
        };
        Ok(Some(Damage { offset: Some(run.offset), what, ..whole_file(String::new()) }))
    }

    /// Adds to what is damaged, once for all checkpoints that name it.
    fn damaged(&mut self, damage: Damage, epoch: Epoch) {
        let same = |known: &&mut Damage| (&known.file, known.offset) == (&damage.file, damage.offset);
        match self.found.damages.iter_mut().find(same) {
            Some(known) if known.epochs.contains(&epoch) => {}
            Some(known) => known.epochs.push(epoch),
            None => self.found.damages.push(Damage { epochs: vec![epoch], ..damage }),
        }
    }
}
