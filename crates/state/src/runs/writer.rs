//! Writes a run: blocks as they come, then the footer.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt8Array, UInt32Array, UInt64Array};
use arrow::datatypes::SchemaRef;
use arrow::ipc::MetadataVersion;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::record_batch::RecordBatch;
use ruslo_core::disk::DiskWriter;
use ruslo_core::error::{Error, Result};
use ruslo_core::memory::batch_bytes;

use crate::runs::block::BLOCK_TARGET_BYTES;
use crate::runs::filter::{Filter, FilterBuilder};
use crate::runs::footer::{self, Index, Summary};
use crate::runs::rows::{CHUNK_ROWS, Op, SortedRows, batch_of, place_of};
use crate::runs::schema::{StoredSchema as _, TableSchema};
use crate::runs::work::WorkFolder;

/// Bytes written at once, each time at a multiple of it: an operating system then keeps what it has of the file in large
/// pieces instead of pages, and a block is read out of them in three quarters of the time.
const WRITE_BYTES: usize = 256 << 10;

/// A run being written.
pub(crate) struct RunWriter {
    schema: SchemaRef,
    has_ttl: bool,
    path: PathBuf,
    file: Box<dyn DiskWriter>,
    /// Encoded, not written yet.
    stream: StreamWriter<Vec<u8>>,
    written: u64,
    crc32: crc32fast::Hasher,
    index: Index,
    filter: FilterBuilder,
    summary: Summary,
    last: Option<u64>,
}

/// A run that was written, not synced.
pub(crate) struct Written {
    /// Where.
    pub(crate) path: PathBuf,
    /// The file, to be synced.
    pub(crate) file: Box<dyn DiskWriter>,
    /// How long, in bytes.
    pub(crate) length: u64,
    /// CRC-32 of the whole.
    pub(crate) crc32: u32,
    /// What it amounts to.
    pub(crate) summary: Summary,
    /// Where its blocks are.
    pub(crate) index: Index,
    /// Its keys.
    pub(crate) filter: Filter,
}

impl RunWriter {
    /// A new file in `work`; `name` is for people.
    pub(crate) fn create(work: &WorkFolder, name: &str, schema: &TableSchema) -> Result<Self> {
        let (path, file) = work.create(name)?;
        let stored = schema.stored();
        let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?;
        Ok(Self {
            stream: StreamWriter::try_new_with_options(Vec::new(), &stored, options)?,
            schema: stored,
            has_ttl: schema.ttl.is_some(),
            path,
            file,
            written: 0,
            crc32: crc32fast::Hasher::new(),
            index: Index::default(),
            filter: FilterBuilder::default(),
            summary: Summary::default(),
            last: None,
        })
    }

    /// Where it is being written.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Rows that follow those before.
    ///
    /// # Errors
    /// `Internal`, if they are out of order; whatever the disk says.
    pub(crate) fn write(&mut self, rows: &SortedRows) -> Result<()> {
        let whole = self.stored(rows)?;
        let row_bytes = (batch_bytes(&whole) / rows.len().max(1)).max(1);
        let step = (BLOCK_TARGET_BYTES / row_bytes).clamp(1, CHUNK_ROWS);
        for start in (0..rows.len()).step_by(step) {
            let length = step.min(rows.len() - start);
            let places = rows.hashes.get(start..start + length).unwrap_or_default();
            self.write_block(places, &whole.slice(start, length))?;
        }
        self.count(rows);
        Ok(())
    }

    fn stored(&self, rows: &SortedRows) -> Result<RecordBatch> {
        if rows.ops.len() != rows.len() || rows.buckets.len() != rows.len() || rows.rows.num_rows() != rows.len() {
            return Err(Error::internal(format!("{} rows come with {} hashes", rows.rows.num_rows(), rows.len())));
        }
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from(rows.hashes.clone())),
            Arc::new(UInt8Array::from_iter_values(rows.ops.iter().map(|op| *op as u8))),
        ];
        if self.has_ttl {
            columns.push(Arc::new(UInt32Array::from(rows.buckets.clone())));
        }
        columns.extend(rows.rows.columns().iter().cloned());
        batch_of(&self.schema, columns, rows.len())
    }

    fn write_block(&mut self, hashes: &[u64], rows: &RecordBatch) -> Result<()> {
        let first = hashes.first().copied().map(place_of).unwrap_or_default();
        for place in hashes.iter().copied().map(place_of) {
            if self.last.is_some_and(|last| place < last) {
                return Err(Error::internal("the rows of a run are out of order"));
            }
            if self.last != Some(place) {
                self.filter.add(place);
                self.summary.keys += 1;
                self.last = Some(place);
            }
        }
        let start = self.stream.get_ref().len();
        self.stream.write(rows)?;
        let block = self.stream.get_ref().get(start..).unwrap_or_default();
        self.index.first.push(first);
        self.index.offset.push(self.written + start as u64);
        self.index.crc32.push(crc32fast::hash(block));
        if self.stream.get_ref().len() >= WRITE_BYTES { self.flush_whole() } else { Ok(()) }
    }

    fn count(&mut self, rows: &SortedRows) {
        let summary = &mut self.summary;
        summary.rows += rows.len() as u64;
        summary.deletes += rows.ops.iter().filter(|op| **op != Op::Put).count() as u64;
        summary.oldest = rows.buckets.iter().copied().fold(summary.oldest, u32::min);
        summary.newest = rows.buckets.iter().copied().fold(summary.newest, u32::max);
    }

    /// Writes what was gathered up to the last multiple of what is written at once.
    fn flush_whole(&mut self) -> Result<()> {
        let mut gathered = std::mem::take(self.stream.get_mut());
        let rest = (self.written as usize + gathered.len()) % WRITE_BYTES;
        let whole = gathered.len().saturating_sub(rest);
        self.append(gathered.get(..whole).unwrap_or_default())?;
        gathered.drain(..whole);
        *self.stream.get_mut() = gathered;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let bytes = std::mem::take(self.stream.get_mut());
        self.append(&bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io(self.path.display(), &e))?;
        self.crc32.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Ends the run.
    pub(crate) fn finish(mut self) -> Result<Written> {
        let end = self.written + self.stream.get_ref().len() as u64;
        self.index.offset.push(end);
        self.stream.finish()?;
        self.flush()?;
        let (summary, mut index) = (self.summary, std::mem::take(&mut self.index));
        let filter = std::mem::take(&mut self.filter).finish();
        index.shrink();
        footer::encode(&summary, &index, &filter, &mut |bytes| self.append(bytes))?;
        self.file.flush().map_err(|e| Error::io(self.path.display(), &e))?;
        let crc32 = self.crc32.finalize();
        Ok(Written { path: self.path, file: self.file, length: self.written, crc32, summary, index, filter })
    }
}
