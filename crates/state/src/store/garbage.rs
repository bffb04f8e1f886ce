//! What nobody names any more goes.

use std::collections::BTreeSet;

use ruslo_core::epoch::Epoch;
use ruslo_core::error::Result;

use super::{CheckpointStore, MANIFESTS, leading_epoch, manifest_key, run_key};

/// How many checkpoints are kept.
const RETAINED: usize = 3;

impl CheckpointStore {
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
