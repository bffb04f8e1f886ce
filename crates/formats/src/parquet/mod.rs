//! Parquet: columns in row groups, found through the footer at the end of the file.
//!
//! `read` takes the columns that are wanted out of a file; a row group is a block, of which the column chunks that are
//! wanted are in memory at once; `prune` finds the groups that cannot hold a row that is wanted. `write` gathers a row group in memory and writes it when it is large enough.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::WriterProperties;
use ruslo_core::connector::OptionSpec;
use ruslo_core::disk::DiskReader;
use ruslo_core::error::{Error, Result};

use crate::blocks::{BlockFile, BlockFormat, no_records};
use crate::options::Given;
use crate::{Decoder, DecoderConfig, Encoder, Format, Preamble};

mod prune;
mod read;
mod write;

const COMPRESSION: &str = "parquet.compression";
const BLOCK_SIZE: &str = "parquet.block.size";

/// Parquet's own default, and Flink's.
const BLOCK_BYTES_DEFAULT: usize = 128 << 20;

/// The options of `'format' = 'parquet'`.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: COMPRESSION,
        required: false,
        doc: "How pages are compressed when written: 'SNAPPY' (the default), 'GZIP', 'ZSTD', 'LZ4_RAW' or 'UNCOMPRESSED'. \
              All of them are read.",
    },
    OptionSpec {
        key: BLOCK_SIZE,
        required: false,
        doc: "How many bytes a row group has at most when written, such as '16 mb'; '128 mb' if not given. A writer holds \
              as much in memory.",
    },
];

/// Parquet with its options.
#[derive(Debug)]
pub(crate) struct Parquet {
    properties: WriterProperties,
}

/// Parquet with the options given.
pub(crate) fn format(given: &Given<'_>) -> Result<Arc<dyn Format>> {
    let properties = WriterProperties::builder()
        .set_compression(compression(given.get(COMPRESSION).unwrap_or("SNAPPY"))?)
        .set_max_row_group_bytes(Some(given.byte_count(BLOCK_SIZE, BLOCK_BYTES_DEFAULT)?))
        .set_created_by("ruslo".to_owned())
        .build();
    Ok(Arc::new(Parquet { properties }))
}

fn compression(name: &str) -> Result<Compression> {
    Ok(match name.to_ascii_uppercase().as_str() {
        "SNAPPY" => Compression::SNAPPY,
        "GZIP" => Compression::GZIP(GzipLevel::default()),
        "ZSTD" => Compression::ZSTD(ZstdLevel::default()),
        "LZ4" | "LZ4_RAW" => Compression::LZ4_RAW,
        "UNCOMPRESSED" | "NONE" => Compression::UNCOMPRESSED,
        _ => {
            let known = "'SNAPPY', 'GZIP', 'ZSTD', 'LZ4_RAW' or 'UNCOMPRESSED'";
            return Err(Error::usage(format!("'{COMPRESSION}' is {known}, not '{name}'")));
        }
    })
}

impl Format for Parquet {
    fn name(&self) -> &'static str {
        "parquet"
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
        Ok(Box::new(write::ParquetEncoder::new(schema, &self.properties)?))
    }
}

impl BlockFormat for Parquet {
    fn is_splittable(&self) -> bool {
        true
    }

    fn block_name(&self) -> &'static str {
        "row group"
    }

    fn open(&self, file: Box<dyn DiskReader>, size: u64, columns: &DecoderConfig<'_>) -> Result<Box<dyn BlockFile>> {
        Ok(Box::new(read::ParquetFile::open(file, size, columns)?))
    }
}
