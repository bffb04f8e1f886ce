//! A part file that is being written: hidden, encoded, perhaps compressed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use ruslo_core::disk::{Disk, DiskWriter};
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_formats::{Encoder, Format};

use super::compression::{Compression, Packer};
use super::part_name;

/// How much is gathered before it is written to the file.
const BUFFER_BYTES: usize = 256 * 1024;

/// How many leftovers of the same name a writer walks past.
const ATTEMPTS_MAX: usize = 1000;

/// What one subtask writes, and where to.
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) run: String,
    pub(super) subtask: usize,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) format: Arc<dyn Format>,
    /// The columns that files have.
    pub(super) schema: SchemaRef,
    pub(super) compression: Compression,
    /// From which size on a file is closed and another one begun.
    pub(super) rolling_bytes: u64,
}

impl Target {
    /// What follows the dot in a part's name.
    pub(super) fn extension(&self) -> String {
        format!("{}{}", self.format.name(), self.compression.suffix())
    }

    /// Creates a part in `folder` below the path, under a name that nothing has: the first free one from `attempt` on.
    pub(super) fn create(&self, folder: &str, after: Epoch, attempt: usize) -> Result<OpenPart> {
        let folder = self.path.join(folder);
        for attempt in (attempt..).take(ATTEMPTS_MAX) {
            let name = part_name::unfinished(&self.run, self.subtask, after, attempt);
            let path = folder.join(&name);
            if self.disk.kind(&path)?.is_none() {
                return self.begin(name, path);
            }
        }
        let sentence = "full of files left over from failed runs; remove '.part-*.tmp'";
        Err(Error::resource(format!("{}: {sentence}", folder.display())))
    }

    fn begin(&self, name: String, path: PathBuf) -> Result<OpenPart> {
        let (encoder, packer) = (self.format.encoder(&self.schema)?, self.compression.packer()?);
        let file = self.disk.create(&path)?;
        let mut content = Vec::new();
        encoder.header(&mut content);
        Ok(OpenPart { name, path, file, encoder, packer, content, bytes: Vec::new(), written: 0, last_used: 0 })
    }
}

/// A part file that is being written.
pub(super) struct OpenPart {
    /// Its hidden name.
    name: String,
    path: PathBuf,
    file: Box<dyn DiskWriter>,
    encoder: Box<dyn Encoder>,
    packer: Packer,
    /// Encoded, but not compressed yet.
    content: Vec<u8>,
    /// Compressed, but not in the file yet.
    bytes: Vec<u8>,
    /// How much is in the file.
    written: u64,
    /// When rows came last, by its writer's count.
    pub(super) last_used: u64,
}

impl OpenPart {
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.encoder.encode(batch, &mut self.content)?;
        if self.content.len() >= BUFFER_BYTES {
            self.packer.pack(&mut self.content, &mut self.bytes)?;
            if self.bytes.len() >= BUFFER_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// About how large the file is, with what is on its way to it.
    pub(super) fn size(&self) -> u64 {
        self.written.saturating_add(self.held_bytes() as u64)
    }

    /// What is in memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.content.len().saturating_add(self.bytes.len()).saturating_add(self.encoder.buffered_bytes())
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_all(&self.bytes).map_err(|error| io_error(&self.path, &error))?;
        self.written = self.written.saturating_add(self.bytes.len() as u64);
        self.bytes.clear();
        Ok(())
    }

    /// Completes the file and returns its name once its bytes are durable; the name is not yet.
    pub(super) fn close(mut self) -> Result<String> {
        self.encoder.finish(&mut self.content)?;
        self.packer.pack(&mut self.content, &mut self.bytes)?;
        std::mem::replace(&mut self.packer, Packer::None).finish(&mut self.bytes)?;
        self.flush()?;
        self.file.flush().and_then(|()| self.file.sync()).map_err(|error| io_error(&self.path, &error))?;
        Ok(self.name)
    }
}

fn io_error(path: &Path, error: &std::io::Error) -> Error {
    Error::io(path.display(), error)
}
