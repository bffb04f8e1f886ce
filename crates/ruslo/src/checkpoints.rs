//! A job's checkpoint folder while the job has it: locked, and cleared away again if it is nobody's wish to keep it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ruslo_core::disk::{Disk, DiskLock};
use ruslo_core::environment::Environment;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, ErrorKind, Result};
use ruslo_core::graph::{Graph, Node, NodeKind, OperatorId};
use ruslo_core::sink::{Committable, Committer, Sink, SinkContext};
use ruslo_sql::Scratch;
use ruslo_state::manifest::Manifest;
use ruslo_state::store::CheckpointStore;

const HOME: &str = ".ruslo";

/// The folder of a job whose user names none.
pub(crate) fn default_folder(job: &str) -> PathBuf {
    let fits = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let name: String = job.chars().map(fits).collect();
    let name = if name.trim_matches('.').is_empty() { "job".to_owned() } else { name };
    Path::new(HOME).join("checkpoints").join(name)
}

/// Where a batch job spills: beside its checkpoints, if these are on this machine.
pub(crate) fn scratch_folder(store: &CheckpointStore) -> PathBuf {
    match store.local_folder() {
        Some(folder) => folder.join("spill"),
        None => Path::new(HOME).join("spill").join(store.attempt()),
    }
}

/// Removes what a batch job has spilled, and the folder.
pub(crate) fn remove_scratch(scratch: &Scratch) -> Result<()> {
    scratch.clear()?;
    // Most jobs spill nothing, and have no such folder.
    let _ = std::fs::remove_dir(scratch.folder());
    Ok(())
}

/// The sinks of a pipeline, for what is done to their output before a run or after it.
pub(crate) struct Sinks {
    sinks: Vec<(OperatorId, Arc<dyn Sink>)>,
    names: Vec<String>,
    environment: Environment,
}

impl Sinks {
    pub(crate) fn of(graph: &Graph, environment: &Environment) -> Self {
        let sinks = graph.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Sink(sink) => Some((node.id, Arc::clone(sink))),
            _ => None,
        });
        let is_sink = |node: &&Node| matches!(node.kind, NodeKind::Sink(_));
        let names = graph.nodes.iter().filter(is_sink).map(|node| node.name.clone());
        Self { sinks: sinks.collect(), names: names.collect(), environment: environment.clone() }
    }

    /// A sink that cannot make visible rows go.
    fn keeps_what_it_shows(&self) -> Option<&str> {
        self.sinks.iter().zip(&self.names).find(|((_, sink), _)| !sink.takes_back()).map(|(_, name)| name.as_str())
    }

    /// Calls `work` with the committer of each sink and what `manifest` has for it.
    fn each(&self, manifest: &Manifest, work: impl Fn(&mut dyn Committer, &[Committable]) -> Result<()>) -> Result<()> {
        let context = SinkContext { environment: self.environment.clone(), run: manifest.run.clone() };
        for (id, sink) in &self.sinks {
            let committables = manifest.operators.get(id).map(|entry| entry.committables.as_slice());
            work(sink.committer(&context)?.as_mut(), committables.unwrap_or_default())?;
        }
        Ok(())
    }
}

/// What stands newest in the folder.
pub(crate) enum Newest {
    /// Nothing.
    Nothing,
    /// A checkpoint whose manifest can be read.
    Readable(Manifest),
    /// A checkpoint whose manifest cannot.
    Damaged(Epoch),
}

/// A job's checkpoint folder, locked.
pub(crate) struct Checkpoints {
    store: CheckpointStore,
    sinks: Sinks,
    fingerprint: String,
    /// Whether nobody has named the folder.
    is_default: bool,
    /// Whether rows that were shown may be shown again, if a damaged checkpoint leaves no other way.
    accepts_duplicates: bool,
    _lock: Box<dyn DiskLock>,
}

impl Checkpoints {
    pub(crate) fn lock(store: CheckpointStore, sinks: Sinks, fingerprint: String, is_default: bool) -> Result<Self> {
        refuse_savepoint(&store)?;
        let lock = store.lock()?;
        Ok(Self { store, sinks, fingerprint, is_default, accepts_duplicates: false, _lock: lock })
    }

    /// The same where rows that were shown may be shown again.
    pub(crate) fn accepting_duplicates(self, accepts_duplicates: bool) -> Self {
        Self { accepts_duplicates, ..self }
    }

    /// Refuses to go on from `manifest`, behind checkpoints that are damaged, if that would give rows again to a sink that
    /// cannot take back what they had committed.
    pub(crate) fn check_fallback(&self, manifest: &Manifest) -> Result<()> {
        let (folder, epoch) = (self.store.folder().display(), manifest.epoch);
        let Some(name) = self.sinks.keeps_what_it_shows().filter(|_| !self.accepts_duplicates) else { return Ok(()) };
        for newer in self.store.epochs()?.into_iter().filter(|newer| *newer > epoch) {
            // One that only repeats this one has committed nothing more.
            if self.store.load(newer).is_ok_and(|newer| newer.origin() <= manifest.origin()) {
                continue;
            }
            return Err(Error::corrupt(format!(
                "checkpoint {newer} in {folder} is damaged, and '{name}' cannot take back what was shown with it: going on \
                 from checkpoint {epoch} would show these rows again; say --accept-duplicates to do that, or --fresh to \
                 start over"
            )));
        }
        Ok(())
    }

    pub(crate) fn store(&self) -> &CheckpointStore {
        &self.store
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.sinks.environment.disk)
    }

    pub(crate) fn newest(&self) -> Result<Newest> {
        let Some(epoch) = self.store.epochs()?.into_iter().next_back() else { return Ok(Newest::Nothing) };
        match self.store.load(epoch) {
            Ok(manifest) => Ok(Newest::Readable(manifest)),
            Err(error) if error.kind() == ErrorKind::Corrupt => Ok(Newest::Damaged(epoch)),
            Err(error) => Err(error),
        }
    }

    /// Whether `manifest` is of the same query.
    pub(crate) fn is_ours(&self, manifest: &Manifest) -> bool {
        manifest.fingerprint == self.fingerprint
    }

    pub(crate) fn check_ours(&self, manifest: &Manifest) -> Result<()> {
        if self.is_ours(manifest) {
            return Ok(());
        }
        Err(Error::usage(format!(
            "the checkpoints in {} are of another query or other options; resume with what they were made with, or \
             start over with --fresh",
            self.store.folder().display()
        )))
    }

    /// Commits what `manifest` had prepared: its process may have ended before it did.
    pub(crate) fn commit(&self, manifest: &Manifest) -> Result<()> {
        self.sinks.each(manifest, |committer, committables| committer.commit(committables))
    }

    /// Removes what the run of `manifest` has written and not committed: nobody goes on from it.
    pub(crate) fn abandon(&self, manifest: &Manifest) -> Result<()> {
        if !self.is_ours(manifest) {
            return Ok(());
        }
        self.sinks.each(manifest, |committer, _| committer.abort_since(manifest.origin()))
    }

    /// After a stop: removes what was written behind the last barrier. Who resumes would do so, too; but a run that
    /// begins from a savepoint has another name, and leaves this one's output alone.
    pub(crate) fn clear_behind_stop(&self) -> Result<()> {
        match self.newest()? {
            // In a bucket nobody is kept out: another process may have gone on meanwhile.
            Newest::Readable(manifest) if self.store.local_folder().is_some() && !is_beginning(&manifest) => {
                self.abandon(&manifest)
            }
            _ => self.clear_if_unused(),
        }
    }

    /// The same after a run that did nothing, if it was that.
    pub(crate) fn clear_if_unused(&self) -> Result<()> {
        let is_unused = match self.newest()? {
            Newest::Nothing => true,
            Newest::Readable(manifest) => is_beginning(&manifest),
            Newest::Damaged(_) => false,
        };
        if is_unused { self.clear_if_default() } else { Ok(()) }
    }

    /// After a run that left nothing to resume: with the default folder, leaves no trace.
    pub(crate) fn clear_if_default(&self) -> Result<()> {
        if !self.is_default {
            return Ok(());
        }
        if let Newest::Readable(manifest) = self.newest()?
            && !manifest.finished
        {
            self.abandon(&manifest)?;
        }
        let disk = self.sinks.environment.disk.as_ref();
        let folder = self.store.folder();
        // Runs without a manifest would be damage, if the process ended in between.
        for name in ["runs", "manifests"] {
            remove_files(disk, &folder.join(name))?;
        }
        disk.remove(&folder.join("lock"))?;
        remove_empty(folder);
        Ok(())
    }
}

/// Nobody writes into a savepoint.
fn refuse_savepoint(store: &CheckpointStore) -> Result<()> {
    let Some(epoch) = store.epochs()?.into_iter().next_back() else { return Ok(()) };
    match store.load(epoch) {
        Ok(manifest) if manifest.savepoint.is_some() => Err(Error::usage(format!(
            "{}: this is a savepoint; say --from-savepoint to begin from it, and give the run another --checkpoint-dir",
            store.folder().display()
        ))),
        // What is wrong with it is told by who needs it.
        _ => Ok(()),
    }
}

/// Whether the run of `manifest` has done nothing yet: it is the one that stands before the first row.
pub(crate) fn is_beginning(manifest: &Manifest) -> bool {
    manifest.operators.values().all(|entry| entry.subtasks.is_empty() && entry.committables.is_empty())
}

fn remove_files(disk: &dyn Disk, folder: &Path) -> Result<()> {
    disk.list(folder)?.iter().try_for_each(|path| disk.remove(path))
}

/// Removes the folder's own folders, it, and those above it up to `.ruslo`, as far as they are empty.
fn remove_empty(folder: &Path) {
    let inner = ["manifests", "runs"].map(|name| folder.join(name));
    let above = folder.ancestors().filter(|path| path.starts_with(HOME));
    for path in inner.iter().map(PathBuf::as_path).chain(above) {
        // A folder that is not empty, or gone already, is no fault: this only tidies up, and removes no file.
        let _ = std::fs::remove_dir(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jobs_name_makes_one_folder_below_home() {
        let folder = |job: &str| default_folder(job).display().to_string();
        assert_eq!(folder("departures"), ".ruslo/checkpoints/departures");
        assert_eq!(folder("Hourly delays/2"), ".ruslo/checkpoints/Hourly-delays-2");
        assert_eq!(folder(".."), ".ruslo/checkpoints/job");
        assert_eq!(folder("отправления"), ".ruslo/checkpoints/отправления");
    }
}
