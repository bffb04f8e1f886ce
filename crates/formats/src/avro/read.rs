//! Reads Avro: a block at a time, of which the columns that are wanted are kept.

use std::io::Cursor;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_avro::reader::ReaderBuilder;
use ruslo_core::disk::DiskReader;
use ruslo_core::error::{Error, Result};

use super::container::{Block, Container, MAGIC, cause, push_long};
use super::schema;
use crate::DecoderConfig;
use crate::blocks::{BlockFile, FileBytes, Rest, guarded};
use crate::fit::Fit;

/// The sync marker of the container of one block that the library is given.
const SYNC: [u8; 16] = [0; 16];

/// An Avro file.
pub(crate) struct AvroFile {
    bytes: FileBytes,
    container: Container,
    /// The header before a block that the library is given.
    header: Vec<u8>,
    fit: Fit,
    /// Of what is read if no column is wanted.
    none: SchemaRef,
    rest: Rest,
}

impl AvroFile {
    /// Reads the header, walks over the blocks, and finds the columns.
    pub(crate) fn open(file: Box<dyn DiskReader>, size: u64, columns: &DecoderConfig<'_>) -> Result<Self> {
        let mut bytes = FileBytes::new(file, size);
        let container = Container::read(&mut bytes)?;
        let header = header(&schema::readable(&container.schema)?, container.codec);
        let fit = Fit::narrowing(&arrow_schema(&header)?, columns)?;
        let none = columns.schema()?;
        Ok(Self { bytes, container, header, fit, none, rest: Rest::default() })
    }

    /// All rows of a block.
    fn decode(&mut self, index: usize, block: &Block) -> Result<RecordBatch> {
        let rows = usize::try_from(block.rows).unwrap_or(usize::MAX);
        if self.fit.read().is_empty() || rows == 0 {
            let options = RecordBatchOptions::new().with_row_count(Some(rows));
            return match rows {
                0 => Ok(RecordBatch::new_empty(self.none.clone())),
                _ => Ok(RecordBatch::try_new_with_options(self.none.clone(), Vec::new(), &options)?),
            };
        }
        let mut input = self.header.clone();
        // Twice the rows: so the library looks for more when it has them all, and finds the end of the block or does not.
        push_long(block.rows.saturating_mul(2).cast_signed(), &mut input);
        push_long(block.data.end.saturating_sub(block.data.start).cast_signed(), &mut input);
        self.bytes.read_into(&block.data, &mut input)?;
        input.extend_from_slice(&SYNC);
        let read = self.fit.read().to_vec();
        let decoded = guarded(|| Ok(decode(input, read, rows)), |cause| self.container.damaged(index, &cause))?;
        let batch = decoded.map_err(|error| self.container.damaged(index, cause(&error.to_string())))?;
        self.fit.convert(&batch).map_err(|error| error.context(format_args!("block {}", index.saturating_add(1))))
    }
}

/// The rows of a container of one block.
fn decode(input: Vec<u8>, read: Vec<usize>, rows: usize) -> Result<RecordBatch, ArrowError> {
    let builder = ReaderBuilder::new().with_batch_size(rows).with_projection(read);
    let mut reader = builder.build(Cursor::new(input))?;
    let other = || ArrowError::AvroError(format!("it does not have the {rows} rows that it is said to have"));
    let batch = reader.next().ok_or_else(other)??;
    // An error here is of bytes behind the last row.
    match reader.next() {
        None if batch.num_rows() == rows => Ok(batch),
        _ => Err(other()),
    }
}

/// The header of a container with this schema.
fn header(schema: &str, codec: &str) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    push_long(2, &mut header);
    for text in ["avro.schema", schema, "avro.codec", codec] {
        push_long(text.len() as i64, &mut header);
        header.extend_from_slice(text.as_bytes());
    }
    push_long(0, &mut header);
    header.extend_from_slice(&SYNC);
    header
}

/// The types of a container's fields.
fn arrow_schema(header: &[u8]) -> Result<Schema> {
    let read = || {
        let reader = ReaderBuilder::new().build(Cursor::new(header)).map_err(|error| schema::bad_schema(&error))?;
        Ok(reader.schema().as_ref().clone())
    };
    guarded(read, |cause| schema::bad_schema(&cause))
}

impl BlockFile for AvroFile {
    fn starts(&self) -> &[u64] {
        &self.container.starts
    }

    fn seek(&mut self, block: usize, row: u64) -> Result<()> {
        self.rest = Rest::default();
        let Some(found) = self.container.blocks.get(block).cloned() else {
            return Err(Error::corrupt("a position in an avro file is behind its last block"));
        };
        let batch = self.decode(block, &found)?;
        let row = usize::try_from(row).unwrap_or(usize::MAX).min(batch.num_rows());
        self.rest = Rest::of(batch.slice(row, batch.num_rows().saturating_sub(row)));
        Ok(())
    }

    fn next(&mut self, rows_max: usize) -> Result<Option<RecordBatch>> {
        self.rest.next(rows_max, || Ok(None))
    }
}
