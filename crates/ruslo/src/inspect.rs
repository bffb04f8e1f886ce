//! Looking at the checkpoints of a job, whether it runs or not: nothing is changed, locked or created.
//!
//! ```
//! use ruslo::inspect::Place;
//! use ruslo::{Program, StartMode};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let home = folder.path().display();
//! # std::fs::write(folder.path().join("in.csv"), "EWR,4\nJFK,-2\n").unwrap();
//! # let text = format!("
//! #     CREATE TABLE t (origin STRING, delay INT) WITH ('connector' = 'filesystem', 'path' = '{home}/in.csv', 'format' = 'csv');
//! #     CREATE TABLE o (origin STRING) WITH ('connector' = 'filesystem', 'path' = '{home}/out', 'format' = 'json');
//! #     INSERT INTO o SELECT origin FROM t");
//! let checkpoints = folder.path().join("checkpoints");
//! Program::new("a.sql", text).plan()?.start(StartMode::New, Some(&checkpoints))?.wait()?;
//!
//! let place = Place::open(&checkpoints)?;
//! let newest = place.list()?.into_iter().next_back().unwrap();
//! assert!(newest.problem.is_none() && newest.manifest.unwrap().finished);
//! assert!(place.verify(None)?.damages.is_empty());
//! # Ok::<(), ruslo::Error>(())
//! ```

use std::collections::BTreeSet;
use std::path::Path;

use ruslo_core::environment::Environment;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, ErrorKind, Result};
use ruslo_state::manifest::{Manifest, RunRef};
use ruslo_state::store::CheckpointStore;

pub use ruslo_state::books;
pub use ruslo_state::manifest;
pub use ruslo_state::verify::{Damage, Verified};

/// A place with checkpoints.
#[derive(Debug)]
pub struct Place(CheckpointStore);

/// A checkpoint, as far as its manifest says.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Which.
    pub epoch: Epoch,
    /// Its manifest, if that can be read.
    pub manifest: Option<Manifest>,
    /// Why it cannot be used: `Corrupt`, if it is damaged or a file is missing, `Usage`, if a newer Ruslo wrote it.
    pub problem: Option<Error>,
}

impl Listed {
    /// What it consists of, and of these what it brought, in bytes of state.
    pub fn bytes(&self) -> (u64, u64) {
        let runs: Vec<_> = self.manifest.iter().flat_map(runs).collect();
        let own = runs.iter().filter(|run| run.is_of(self.epoch)).map(|run| run.length).sum();
        (runs.iter().map(|run| run.length).sum(), own)
    }
}

/// The runs of `manifest`, each once: after rescaling several subtasks name the same one.
fn runs(manifest: &Manifest) -> Vec<&RunRef> {
    let mut seen = BTreeSet::new();
    manifest.runs().filter(|run| seen.insert((run.file.as_str(), run.offset))).collect()
}

impl Place {
    /// The checkpoints in a folder, or in an object store at `s3://bucket/prefix`.
    ///
    /// # Errors
    /// `Usage`, if there are none and never were.
    pub fn open(location: &Path) -> Result<Self> {
        CheckpointStore::existing(Environment::local().disk, location).map(Self)
    }

    /// Where it is.
    pub fn location(&self) -> &Path {
        self.0.folder()
    }

    /// Every checkpoint, oldest first; reads the manifests, and looks whether the files that they name are there.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let files: BTreeSet<_> = self.0.run_files()?.into_iter().collect();
        self.0.epochs()?.into_iter().map(|epoch| self.look(epoch, &files)).collect()
    }

    /// One of them, by default the newest.
    ///
    /// # Errors
    /// `Usage`, if there is no such checkpoint.
    pub fn find(&self, epoch: Option<Epoch>) -> Result<Listed> {
        let files: BTreeSet<_> = self.0.run_files()?.into_iter().collect();
        self.look(self.choose(epoch)?, &files)
    }

    fn look(&self, epoch: Epoch, files: &BTreeSet<String>) -> Result<Listed> {
        let manifest = match self.0.load(epoch) {
            Ok(manifest) => manifest,
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Usage) => {
                return Ok(Listed { epoch, manifest: None, problem: Some(error) });
            }
            Err(error) => return Err(error),
        };
        let missing = manifest.runs().find(|run| !files.contains(&run.file));
        let problem =
            missing.map(|run| Error::corrupt(format!("{}: the file is missing", self.0.run_address(&run.file))));
        Ok(Listed { epoch, manifest: Some(manifest), problem })
    }

    fn choose(&self, epoch: Option<Epoch>) -> Result<Epoch> {
        let epochs = self.0.epochs()?;
        let place = self.0.folder().display();
        match epoch {
            None => epochs.last().copied().ok_or_else(|| Error::usage(format!("there are no checkpoints in {place}"))),
            Some(epoch) if epochs.contains(&epoch) => Ok(epoch),
            Some(epoch) => {
                let there: Vec<_> = epochs.iter().map(ToString::to_string).collect();
                Err(Error::usage(format!("there is no checkpoint {epoch} in {place}; there are: {}", there.join(", "))))
            }
        }
    }

    /// Reads every byte of one checkpoint, or of all.
    ///
    /// # Errors
    /// What keeps bytes from being read; what is damaged is told in the answer.
    pub fn verify(&self, epoch: Option<Epoch>) -> Result<Verified> {
        let epochs = match epoch {
            None => self.0.epochs()?,
            Some(_) => vec![self.choose(epoch)?],
        };
        ruslo_state::verify::verify(&self.0, &epochs)
    }
}
