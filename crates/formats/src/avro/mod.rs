//! Avro: records in blocks, in object container files, which begin with the schema of their records.
//!
//! `container` finds the blocks of a file without reading their data, so that a file that is not whole is refused before
//! a row of it is read; `schema` is what the file says of its records; `read` decodes a block at a time; `write` gathers
//! rows for a block. A block is a place to begin at, as a row group of Parquet is. Messages without a schema beside
//! them (Avro's single objects, registries of schemas) are not read.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow_avro::compression::CompressionCodec;
use ruslo_core::connector::OptionSpec;
use ruslo_core::disk::DiskReader;
use ruslo_core::error::{Error, Result};

use crate::blocks::{BlockFile, BlockFormat, no_records};
use crate::options::Given;
use crate::{Decoder, DecoderConfig, Encoder, Format, Preamble};

mod container;
mod read;
mod schema;
mod write;

const CODEC: &str = "avro.codec";

/// The options of `'format' = 'avro'`.
pub(crate) const OPTIONS: &[OptionSpec] = &[OptionSpec {
    key: CODEC,
    required: false,
    doc: "How blocks are compressed when written: 'snappy' (the default), 'deflate', 'zstandard' or 'null', which is not \
          at all. All of them are read.",
}];

/// Avro with its options.
#[derive(Debug)]
pub(crate) struct Avro {
    codec: Option<CompressionCodec>,
}

/// Avro with the options given.
pub(crate) fn format(given: &Given<'_>) -> Result<Arc<dyn Format>> {
    Ok(Arc::new(Avro { codec: codec(given.get(CODEC).unwrap_or("snappy"))? }))
}

fn codec(name: &str) -> Result<Option<CompressionCodec>> {
    Ok(match name.to_ascii_lowercase().as_str() {
        "null" => None,
        "snappy" => Some(CompressionCodec::Snappy),
        "deflate" => Some(CompressionCodec::Deflate),
        "zstandard" => Some(CompressionCodec::ZStandard),
        _ => {
            let known = "'snappy', 'deflate', 'zstandard' or 'null'";
            return Err(Error::usage(format!("'{CODEC}' is {known}, not '{name}'")));
        }
    })
}

impl Format for Avro {
    fn name(&self) -> &'static str {
        "avro"
    }

    fn blocks(&self) -> Option<&dyn BlockFormat> {
        Some(self)
    }

    fn preamble(&self, _start: &[u8], _last: bool) -> Result<Option<Preamble>> {
        Err(no_records(self.name()))
    }

    fn decoder(&self, _config: &DecoderConfig<'_>) -> Result<Box<dyn Decoder>> {
        Err(no_records(self.name()))
    }

    fn encoder(&self, schema: &SchemaRef) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(write::AvroEncoder::new(schema, self.codec)?))
    }
}

impl BlockFormat for Avro {
    fn is_splittable(&self) -> bool {
        true
    }

    fn open(&self, file: Box<dyn DiskReader>, size: u64, columns: &DecoderConfig<'_>) -> Result<Box<dyn BlockFile>> {
        Ok(Box::new(read::AvroFile::open(file, size, columns)?))
    }
}
