//! Writes one subtask's rows into part files, one for each epoch that has any.
//!
//! A part is created with the first row after a checkpoint, under a hidden name. At the next one it is flushed, synced
//! and closed, and its hidden name is made durable; the committer renames it later. After an error nobody knows what is
//! in the file, so the writer refuses all further work: the pipeline restarts from its last checkpoint.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use ruslo_core::disk::{Disk, DiskWriter};
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::Progress;
use ruslo_core::sink::{Committable, SinkWriter};
use ruslo_formats::Encoder;

use super::committer::Part;
use super::part_name;

/// How much is gathered before it is written to the file.
const BUFFER_BYTES: usize = 256 * 1024;

/// How many leftovers of the same name a writer walks past.
const ATTEMPTS_MAX: usize = 1000;

/// Where a writer's parts go, and whose they are.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) run: String,
    pub(super) subtask: usize,
    pub(super) disk: Arc<dyn Disk>,
}

/// The writer of one subtask.
pub(super) struct FileWriter {
    folder: Folder,
    extension: &'static str,
    encoder: Box<dyn Encoder>,
    /// Encoded, but not in the file yet.
    buffer: Vec<u8>,
    /// The last epoch that was prepared here.
    prepared: Epoch,
    state: State,
}

enum State {
    /// No row since the last checkpoint.
    Empty,
    /// A part is open.
    Writing(Open),
    /// A write or sync failed with this.
    Poisoned(Error),
}

struct Open {
    file: Box<dyn DiskWriter>,
    name: String,
}

impl FileWriter {
    pub(super) fn new(folder: Folder, extension: &'static str, encoder: Box<dyn Encoder>) -> Self {
        let (buffer, prepared) = (Vec::new(), Epoch::ZERO);
        Self { folder, extension, encoder, buffer, prepared, state: State::Empty }
    }

    /// Does `work`, unless work failed before; remembers if it fails.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let State::Poisoned(error) = &self.state {
            return Err(error.clone());
        }
        work(self).inspect_err(|error| self.state = State::Poisoned(error.clone()))
    }

    fn append(&mut self, batch: &RecordBatch) -> Result<()> {
        if let State::Empty = self.state {
            self.state = State::Writing(self.folder.create(self.prepared)?);
            self.buffer.clear();
            self.encoder.header(&mut self.buffer);
        }
        self.encoder.encode(batch, &mut self.buffer)?;
        match self.buffer.len() >= BUFFER_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<()> {
        let State::Writing(open) = &mut self.state else { return Ok(()) };
        let written = open.file.write_all(&self.buffer);
        written.map_err(|error| self.folder.error(&open.name, &error))?;
        self.buffer.clear();
        Ok(())
    }

    fn close(&mut self, epoch: Epoch) -> Result<Option<Part>> {
        self.prepared = epoch;
        self.flush()?;
        let State::Writing(mut open) = std::mem::replace(&mut self.state, State::Empty) else { return Ok(None) };
        open.file.flush().and_then(|()| open.file.sync()).map_err(|error| self.folder.error(&open.name, &error))?;
        self.folder.disk.sync_folder(&self.folder.path)?;
        let to = part_name::finished(&self.folder.run, self.folder.subtask, epoch, self.extension);
        Ok(Some(Part { from: open.name, to }))
    }
}

impl Folder {
    /// Creates a part under a name that nothing has.
    fn create(&self, after: Epoch) -> Result<Open> {
        for attempt in 0..ATTEMPTS_MAX {
            let name = part_name::unfinished(&self.run, self.subtask, after, attempt);
            let path = self.path.join(&name);
            if self.disk.kind(&path)?.is_none() {
                return Ok(Open { file: self.disk.create(&path)?, name });
            }
        }
        Err(Error::resource(format!(
            "{}: full of files left over from failed runs; remove '.part-*.tmp'",
            self.path.display()
        )))
    }

    fn error(&self, name: &str, error: &std::io::Error) -> Error {
        Error::io(self.path.join(name).display(), error)
    }
}

impl SinkWriter for FileWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<Progress> {
        self.guarded(|writer| match batch.num_rows() {
            0 => Ok(()),
            _ => writer.append(batch),
        })?;
        Ok(Progress::Done)
    }

    fn prepare_commit(&mut self, epoch: Epoch) -> Result<Vec<Committable>> {
        let part = self.guarded(|writer| writer.close(epoch))?;
        part.iter().map(Part::committable).collect()
    }
}
