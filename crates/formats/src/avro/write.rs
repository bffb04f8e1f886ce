//! Writes Avro: rows are gathered into a block, whose bytes come out when it is large enough.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{Array, RecordBatch};
use arrow::compute::BatchCoalescer;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow_avro::compression::CompressionCodec;
use arrow_avro::errors::AvroError;
use arrow_avro::writer::format::AvroOcfFormat;
use arrow_avro::writer::{AvroWriter, WriterBuilder};
use ruslo_core::error::{Error, Result};

use crate::Encoder;

/// How many bytes of rows in memory are enough for a block.
const BLOCK_BYTES: usize = 64 << 10;

/// The most rows of a block.
const BLOCK_ROWS: usize = 8192;

/// The writer of Avro files, one after another.
pub(crate) struct AvroEncoder {
    schema: SchemaRef,
    codec: Option<CompressionCodec>,
    /// The rows of the block that is not large enough yet, and their bytes.
    rows: BatchCoalescer,
    held_bytes: usize,
    file: Option<File>,
}

/// The file being written.
struct File {
    writer: AvroWriter<Written>,
    written: Written,
}

/// What was written and nobody took yet.
#[derive(Debug, Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl AvroEncoder {
    /// An encoder of rows of `schema`.
    ///
    /// # Errors
    /// `Usage`, if a name or a type cannot be Avro's.
    pub(crate) fn new(schema: &SchemaRef, codec: Option<CompressionCodec>) -> Result<Self> {
        check_names(schema.fields())?;
        let schema = Arc::new(Schema::new(schema.fields().iter().map(|field| plain(field)).collect::<Vec<_>>()));
        let rows = BatchCoalescer::new(schema.clone(), BLOCK_ROWS);
        let encoder = Self { schema, codec, rows, held_bytes: 0, file: None };
        let refused = |error| Error::usage(format!("format 'avro' cannot write these columns: {error}"));
        encoder.begin().map_err(refused)?;
        Ok(encoder)
    }

    fn begin(&self) -> Result<File, AvroError> {
        let written = Written::default();
        let builder = WriterBuilder::new(self.schema.as_ref().clone()).with_compression(self.codec);
        Ok(File { writer: builder.build::<_, AvroOcfFormat>(written.clone())?, written })
    }

    /// Writes the rows that are complete blocks.
    fn write(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.begin().map_err(internal)?,
        };
        while let Some(batch) = self.rows.next_completed_batch() {
            for block in blocks(&batch) {
                file.writer.write(&block).map_err(internal)?;
            }
        }
        out.append(&mut file.written.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.file = Some(file);
        Ok(())
    }
}

/// A batch cut into equal parts of a block's bytes or somewhat more.
fn blocks(batch: &RecordBatch) -> impl Iterator<Item = RecordBatch> {
    let rows = batch.num_rows();
    let parts = (bytes_of(batch) / BLOCK_BYTES).max(1);
    let step = rows.div_ceil(parts).max(1);
    (0..rows).step_by(step).map(move |from| batch.slice(from, step.min(rows.saturating_sub(from))))
}

/// How many bytes its rows take in memory.
fn bytes_of(batch: &RecordBatch) -> usize {
    let bytes = |column: &Arc<dyn Array>| column.to_data().get_slice_memory_size().unwrap_or(BLOCK_BYTES);
    batch.columns().iter().map(bytes).fold(0, usize::saturating_add)
}

fn internal(error: impl std::fmt::Display) -> Error {
    Error::internal(format!("writing avro: {error}"))
}

/// A field without metadata, which would become part of the file's schema.
fn plain(field: &Field) -> Field {
    Field::new(field.name(), field.data_type().clone(), field.is_nullable())
}

/// Names are written as they are or not at all; the library would change them.
fn check_names(fields: &Fields) -> Result<()> {
    for field in fields {
        let name = field.name();
        let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        let is_name = name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit());
        if !is_name {
            let rule = "names in avro are of ASCII letters, digits and '_', and do not begin with a digit";
            return Err(Error::usage(format!("format 'avro' cannot write the column '{name}': {rule}")));
        }
        check_within(field.data_type())?;
    }
    Ok(())
}

fn check_within(data_type: &DataType) -> Result<()> {
    match data_type {
        DataType::Struct(fields) => check_names(fields),
        DataType::List(item) => check_within(item.data_type()),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(parts) => parts.iter().try_for_each(|part| check_within(part.data_type())),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

impl Encoder for AvroEncoder {
    fn header(&self, _out: &mut Vec<u8>) {}

    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let batch = RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec()).map_err(internal)?;
        self.held_bytes = self.held_bytes.saturating_add(bytes_of(&batch));
        self.rows.push_batch(batch).map_err(|error: ArrowError| internal(error))?;
        if self.held_bytes >= BLOCK_BYTES {
            self.held_bytes = 0;
            self.rows.finish_buffered_batch().map_err(internal)?;
        }
        match self.rows.has_completed_batch() {
            true => self.write(out),
            false => Ok(()),
        }
    }

    fn buffered_bytes(&self) -> usize {
        self.held_bytes
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.rows.finish_buffered_batch().map_err(internal)?;
        self.held_bytes = 0;
        self.write(out)?;
        self.file = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_avro_does_not_have_are_refused() {
        let row = DataType::Struct(vec![Field::new("2nd", DataType::Int32, true)].into());
        for (name, data_type, bad) in [
            ("a b", DataType::Int32, "a b"),
            ("größe", DataType::Int32, "größe"),
            ("r", DataType::new_list(row, true), "2nd"),
        ] {
            let schema = Arc::new(Schema::new(vec![Field::new(name, data_type, true)]));
            let error = AvroEncoder::new(&schema, None).err().unwrap().to_string();
            assert!(error.starts_with(&format!("format 'avro' cannot write the column '{bad}': names in")), "{error}");
        }
    }
}
