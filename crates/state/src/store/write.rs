//! What is new in a checkpoint, into files; and its manifest, with which it exists.

use arrow::record_batch::RecordBatch;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::graph::OperatorId;
use ruslo_core::key_group::KEY_GROUPS;
use ruslo_core::operator::Subtask;

use super::{CheckpointStore, RUNS, manifest_key, run_key};
use crate::keyed::KeyedSnapshot;
use crate::manifest::{Manifest, RunLayout, RunRef};
use crate::operator_rows::RowsSnapshot;
use crate::planted::{Bug, planted};
use crate::run_file;
use crate::table::{Run, TableSnapshot};

impl CheckpointStore {
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
}
