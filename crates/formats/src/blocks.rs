//! Formats whose files are read in blocks rather than line by line: Parquet's row groups, the blocks of Avro.
//!
//! A file is opened with [`BlockFormat::open`], which reads its schema and finds the table's columns in it by name.
//! A reader then goes to a row of a block and takes batches until the block ends. So a place in a file is
//! (block, row), whatever the size of the batches.

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use arrow::array::RecordBatch;
use ruslo_core::disk::DiskReader;
use ruslo_core::error::{Error, Result};

use crate::DecoderConfig;

/// A format whose files are read in blocks.
pub trait BlockFormat: Send + Sync + std::fmt::Debug {
    /// Whether the blocks of a file may be read apart. If not, a file is one block.
    fn is_splittable(&self) -> bool;

    /// What a block is called.
    fn block_name(&self) -> &'static str {
        "block"
    }

    /// Opens a file of `size` bytes to read the columns that `columns` says.
    ///
    /// # Errors
    /// `Data`, if it is no file of this format, lacks a column or has one of a type that does not fit; `Usage`, if the
    /// format cannot read a column's type. None of them names the file.
    fn open(&self, file: Box<dyn DiskReader>, size: u64, columns: &DecoderConfig<'_>) -> Result<Box<dyn BlockFile>>;
}

/// A file that is being read.
pub trait BlockFile: Send {
    /// Where each block starts, in bytes from the start of the file, ascending.
    fn starts(&self) -> &[u64];

    /// Whether some row of a block may be wanted, as the file itself says.
    fn may_hold(&self, block: usize) -> bool {
        let _ = block;
        true
    }

    /// Goes to row `row` of block `block`, both from 0. Behind the last row there is nothing more to read.
    ///
    /// # Errors
    /// `Data`, if the block is damaged; the error names block and row, but not the file.
    fn seek(&mut self, block: usize, row: u64) -> Result<()>;

    /// The next rows of the block, from 1 to `rows_max`; `None` at its end.
    ///
    /// # Errors
    /// As of [`BlockFile::seek`].
    fn next(&mut self, rows_max: usize) -> Result<Option<RecordBatch>>;
}

/// Runs what another library makes of a file's bytes. A damaged file may break an assertion there; that is an error of
/// the data then, given by `damaged`, and what was reading must not be used any more.
pub(crate) fn guarded<T>(read: impl FnOnce() -> Result<T>, damaged: impl FnOnce(String) -> Error) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(damaged(text.unwrap_or_else(|| "for an unknown reason".to_owned())))
    })
}

/// The bytes of a file, any part of them.
pub(crate) struct FileBytes {
    file: Box<dyn DiskReader>,
    size: u64,
}

impl FileBytes {
    pub(crate) fn new(file: Box<dyn DiskReader>, size: u64) -> Self {
        Self { file, size }
    }

    /// How many bytes there are.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// A reader of all of them, from the first on.
    pub(crate) fn all(&mut self) -> Result<impl Read> {
        self.file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        Ok((&mut self.file).take(self.size))
    }

    /// The bytes of a range.
    ///
    /// # Errors
    /// `Data`, if it does not lie in the file; `Unavailable`, if reading fails.
    pub(crate) fn read(&mut self, range: &Range<u64>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.read_into(range, &mut bytes)?;
        Ok(bytes)
    }

    /// As [`FileBytes::read`], behind what `bytes` holds.
    pub(crate) fn read_into(&mut self, range: &Range<u64>, bytes: &mut Vec<u8>) -> Result<()> {
        if range.start > range.end || range.end > self.size {
            return Err(Error::data(format!("the file is damaged (it refers to bytes behind byte {})", self.size)));
        }
        let length = usize::try_from(range.end - range.start).map_err(|_| Error::resource("a part is too large"))?;
        let held = bytes.len();
        bytes.resize(held.saturating_add(length), 0);
        self.file.seek(SeekFrom::Start(range.start)).map_err(unreadable)?;
        self.file.read_exact(bytes.get_mut(held..).unwrap_or_default()).map_err(unreadable)
    }
}

#[cold]
fn unreadable(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::data("the file became smaller while it was read"),
        _ => Error::unavailable(error.to_string()),
    }
}

/// Cuts the batches of a block into pieces of the wanted size.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    batch: Option<RecordBatch>,
}

impl Rest {
    /// All of one batch.
    pub(crate) fn of(batch: RecordBatch) -> Self {
        Self { batch: Some(batch) }
    }

    /// Up to `rows_max` rows of what is left, or of the next batch that has any.
    pub(crate) fn next(
        &mut self,
        rows_max: usize,
        mut more: impl FnMut() -> Result<Option<RecordBatch>>,
    ) -> Result<Option<RecordBatch>> {
        let batch = loop {
            match self.batch.take() {
                Some(batch) if batch.num_rows() > 0 => break batch,
                _ => match more()? {
                    Some(batch) => self.batch = Some(batch),
                    None => return Ok(None),
                },
            }
        };
        let length = batch.num_rows().min(rows_max.max(1));
        let left = batch.num_rows().saturating_sub(length);
        self.batch = (left > 0).then(|| batch.slice(length, left));
        Ok(Some(batch.slice(0, length)))
    }
}

/// The error of a format that has no single records.
pub(crate) fn no_records(format: &str) -> Error {
    Error::usage(format!(
        "format '{format}' is for files: it has no records that stand alone; use the connector 'filesystem'"
    ))
}
