//! Writes Parquet: rows are gathered into a row group, whose bytes come out when it is complete.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use ruslo_core::error::{Error, Result};

use crate::Encoder;

/// The writer of Parquet files, one after another.
pub(crate) struct ParquetEncoder {
    schema: SchemaRef,
    properties: WriterProperties,
    /// The file being written; what it wrote and nobody took yet is in its vector.
    file: Option<ArrowWriter<Vec<u8>>>,
}

impl ParquetEncoder {
    pub(crate) fn new(schema: &SchemaRef, properties: &WriterProperties) -> Result<Self> {
        let encoder = Self { schema: schema.clone(), properties: properties.clone(), file: None };
        encoder
            .begin()
            .map_err(|error| Error::usage(format!("format 'parquet' cannot write these columns: {error}")))?;
        Ok(encoder)
    }

    fn begin(&self) -> Result<ArrowWriter<Vec<u8>>, ParquetError> {
        ArrowWriter::try_new(Vec::new(), self.schema.clone(), Some(self.properties.clone()))
    }
}

fn internal(error: ParquetError) -> Error {
    Error::internal(format!("writing parquet: {error}"))
}

impl Encoder for ParquetEncoder {
    fn header(&self, _out: &mut Vec<u8>) {}

    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.begin().map_err(internal)?,
        };
        file.write(batch).map_err(internal)?;
        out.append(file.inner_mut());
        self.file = Some(file);
        Ok(())
    }

    fn buffered_bytes(&self) -> usize {
        self.file.as_ref().map_or(0, ArrowWriter::memory_size)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.begin().map_err(internal)?,
        };
        out.append(&mut file.into_inner().map_err(internal)?);
        Ok(())
    }
}
