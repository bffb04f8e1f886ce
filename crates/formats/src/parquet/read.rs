//! Reads Parquet: the footer once, then of each row group the column chunks that are wanted.

use std::sync::Arc;

use arrow::array::RecordBatch;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader};
use parquet::arrow::push_decoder::ParquetPushDecoderBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use ruslo_core::disk::DiskReader;
use ruslo_core::error::{Error, Result};

use super::prune;
use crate::DecoderConfig;
use crate::blocks::{BlockFile, FileBytes, Rest, guarded};
use crate::fit::Fit;

/// How many rows are decoded at a time.
const BATCH_ROWS: usize = 8192;

/// What a Parquet file begins and ends with.
const MAGIC: &[u8] = b"PAR1";

/// The footer's length and the magic bytes.
const TAIL_BYTES: u64 = 8;

/// A Parquet file.
pub(crate) struct ParquetFile {
    bytes: FileBytes,
    metadata: ArrowReaderMetadata,
    fit: Fit,
    starts: Vec<u64>,
    /// For each row group, whether some row of it may be wanted.
    may_hold: Vec<bool>,
    place: Place,
    reader: Option<ParquetRecordBatchReader>,
    rest: Rest,
}

/// Where the next row is taken from.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    group: usize,
    row: u64,
}

impl Place {
    /// The error of a damaged or strange row group.
    #[cold]
    fn error(self, error: &dyn std::fmt::Display) -> Error {
        let text = error.to_string();
        let text = text.trim_start_matches("Parquet argument error: ").trim_start_matches("Parquet error: ");
        Error::data(format!(
            "row group {}, from row {} on: the parquet data is damaged ({text})",
            self.group + 1,
            self.row
        ))
    }
}

/// Checks both ends of the file and reads the footer.
fn read_footer(bytes: &mut FileBytes) -> Result<ParquetMetaData> {
    let Some(tail) = bytes.size().checked_sub(TAIL_BYTES).filter(|tail| *tail >= MAGIC.len() as u64) else {
        return Err(Error::data("this is no parquet file: it is too short"));
    };
    if bytes.read(&(0..MAGIC.len() as u64))? != MAGIC {
        return Err(Error::data("this is no parquet file: it does not begin with 'PAR1'"));
    }
    let end = bytes.read(&(tail..bytes.size()))?;
    let Some((length, MAGIC)) = end.split_first_chunk::<4>() else {
        return Err(Error::data("the parquet file is not whole: it does not end with 'PAR1'"));
    };
    let start = tail.checked_sub(u64::from(u32::from_le_bytes(*length)));
    let start = start.ok_or_else(|| damaged_footer("it is longer than the file"))?;
    let footer = bytes.read(&(start..tail))?;
    let decoded = || ParquetMetaDataReader::decode_metadata(&footer).map_err(damaged_footer);
    guarded(decoded, damaged_footer)
}

fn damaged_footer(cause: impl std::fmt::Display) -> Error {
    Error::data(format!("the parquet file's footer is damaged ({cause})"))
}

impl ParquetFile {
    /// Reads the footer and finds the columns.
    pub(crate) fn open(file: Box<dyn DiskReader>, size: u64, columns: &DecoderConfig<'_>) -> Result<Self> {
        let mut bytes = FileBytes::new(file, size);
        let metadata = Arc::new(read_footer(&mut bytes)?);
        // Each row group belongs to one range of bytes, whatever a strange footer says: so they must ascend.
        let starts = metadata.row_groups().iter().scan(0, |last, group| {
            *last = start_of(group, size).max(*last);
            Some(*last)
        });
        let starts = starts.collect();
        // The types are those of the file, not those of the program that wrote it.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let read = || ArrowReaderMetadata::try_new(metadata, options).map_err(damaged_footer);
        let metadata = guarded(read, damaged_footer)?;
        let fit = Fit::new(metadata.schema(), columns)?;
        let may_hold = prune::may_hold(&metadata, columns);
        Ok(Self {
            bytes,
            metadata,
            fit,
            starts,
            may_hold,
            place: Place::default(),
            reader: None,
            rest: Rest::default(),
        })
    }

    fn reader(&mut self, place: Place) -> Result<Option<ParquetRecordBatchReader>> {
        let damaged = |error: ParquetError| place.error(&error);
        let offset =
            usize::try_from(place.row).map_err(|_| Error::corrupt("a position in a parquet file is too large"))?;
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), self.fit.read().iter().copied());
        let decoder = ParquetPushDecoderBuilder::new_with_metadata(self.metadata.clone())
            .with_projection(mask)
            .with_row_groups(vec![place.group])
            .with_batch_size(BATCH_ROWS)
            .with_offset(offset);
        let mut decoder = decoder.build().map_err(damaged)?;
        loop {
            match decoder.try_next_reader().map_err(damaged)? {
                DecodeResult::Data(reader) => return Ok(Some(reader)),
                DecodeResult::Finished => return Ok(None),
                DecodeResult::NeedsData(ranges) => {
                    for range in ranges {
                        let bytes = self.bytes.read(&range)?;
                        decoder.push_range(range, bytes.into()).map_err(damaged)?;
                    }
                }
            }
        }
    }
}

/// Where a row group's first column chunk starts, in bytes from the start of the file.
fn start_of(group: &parquet::file::metadata::RowGroupMetaData, size: u64) -> u64 {
    let first = group.columns().iter().map(|chunk| chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset()));
    // A damaged footer may say anything; what lies behind the file is the last range's.
    let first = first.min().and_then(|start| u64::try_from(start).ok()).unwrap_or_default();
    first.min(size.saturating_sub(1))
}

impl BlockFile for ParquetFile {
    fn starts(&self) -> &[u64] {
        &self.starts
    }

    fn may_hold(&self, block: usize) -> bool {
        self.may_hold.get(block).copied().unwrap_or(true)
    }

    fn seek(&mut self, block: usize, row: u64) -> Result<()> {
        self.place = Place { group: block, row };
        self.rest = Rest::default();
        self.reader = None;
        let place = self.place;
        self.reader = guarded(|| self.reader(place), |cause| place.error(&cause))?;
        Ok(())
    }

    fn next(&mut self, rows_max: usize) -> Result<Option<RecordBatch>> {
        let Self { fit, reader, rest, place, .. } = self;
        let mut decoded = || guarded(|| Ok(reader.as_mut().and_then(Iterator::next)), |cause| place.error(&cause));
        let batch = rest.next(rows_max, || match decoded()? {
            None => Ok(None),
            Some(Ok(batch)) => {
                let inside = |error: Error| error.context(format_args!("row group {}", place.group + 1));
                fit.convert(&batch).map(Some).map_err(inside)
            }
            Some(Err(error)) => Err(place.error(&error)),
        })?;
        place.row += batch.as_ref().map_or(0, |batch| batch.num_rows() as u64);
        Ok(batch)
    }
}
