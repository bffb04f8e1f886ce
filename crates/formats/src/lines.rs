//! What the line formats share: cutting input into blocks of whole lines, and the batch that is being built.
//!
//! A slice is decoded in blocks of about 64 KiB that end at a newline: a block is checked for UTF-8 in one go, its
//! records are read one after another, and then its strings are copied while it is still in the cache. A record that
//! turns out bad is taken back whole; the rows before it stay.

use arrow::array::{Int8Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use memchr::{memchr, memrchr};
use ruslo_core::changelog::with_row_kinds;
use ruslo_core::error::Result;

use crate::column::Column;
use crate::decode_error::{DecodeError, Fault, Faulty, What, shown};
use crate::{Decoded, DecoderConfig};

/// How much is checked and decoded at a time: what fits in a core's own cache.
const BLOCK_BYTES: usize = 64 * 1024;

/// How much input may go into one batch: Arrow's string offsets have 31 bits.
const BATCH_BYTES_MAX: usize = 1 << 30;

/// The most that the limit for one row can be.
pub(crate) const ROW_BYTES_LIMIT: usize = BATCH_BYTES_MAX / 2;

/// What a record reader found at a position.
pub(crate) enum Step {
    /// A row, stored; the next record starts here.
    Row(usize),
    /// So many rows, stored; the next record starts here.
    Rows(usize, usize),
    /// Nothing but white space; the next record starts here.
    Blank(usize),
}

impl Step {
    /// A row as one of so many.
    #[inline(always)]
    fn counted(self) -> Self {
        if let Self::Row(next) = self { Self::Rows(next, 1) } else { self }
    }
}

/// A reader of single records: what differs between the line formats.
pub(crate) trait Records: Send {
    /// Prepares for a new block.
    fn begin(&mut self, block: &[u8]);

    /// Reads the record at `at` into `columns`, each of which holds `row` rows before and `row + 1` rows after.
    fn read(&mut self, columns: &mut [Column], block: &[u8], at: usize, row: usize) -> Faulty<Step>;

    /// Forgets what is known beside the columns of rows behind the first `rows`.
    fn truncate(&mut self, rows: usize) {
        let _ = rows;
    }

    /// Takes what the rows since the last call say, if records are changes.
    fn kinds(&mut self) -> Option<Int8Array> {
        None
    }
}

/// A decoder of lines: the batch being built, and the reader of records.
pub(crate) struct LineDecoder<R> {
    records: R,
    schema: SchemaRef,
    columns: Vec<Column>,
    /// Which of them are NOT NULL.
    required: Vec<usize>,
    /// Rows since the last flush.
    rows: usize,
    /// Input bytes since the last flush.
    bytes: usize,
    row_bytes_max: usize,
}

impl<R: Records> LineDecoder<R> {
    /// A decoder of `format`, whose rows have at most `row_bytes_max` bytes of input.
    pub(crate) fn new(records: R, format: &str, config: &DecoderConfig<'_>, row_bytes_max: usize) -> Result<Self> {
        let schema = config.schema()?;
        let columns = schema.fields().iter().map(|field| Column::new(field, format)).collect::<Result<_>>()?;
        let required = schema.fields().iter().enumerate().filter(|(_, field)| !field.is_nullable());
        let required = required.map(|(index, _)| index).collect();
        let row_bytes_max = row_bytes_max.min(ROW_BYTES_LIMIT);
        Ok(Self { records, schema, columns, required, rows: 0, bytes: 0, row_bytes_max })
    }

    /// The end of the whole lines in `bytes`. A line that is too long before it ends is an error once it stands first.
    fn whole_lines(&self, bytes: &[u8], last: bool) -> Result<usize, DecodeError> {
        let end = if last { bytes.len() } else { memrchr(b'\n', bytes).map_or(0, |newline| newline + 1) };
        if end == 0 && bytes.len() > self.row_bytes_max {
            return Err(self.too_long(0, bytes.len(), 0));
        }
        Ok(end)
    }

    /// The column that is NULL in the last row and must not be.
    fn null_where_none_may_be(&self) -> Option<usize> {
        self.required.iter().copied().find(|index| self.columns.get(*index).is_some_and(Column::ends_with_null))
    }

    fn too_long(&self, offset: usize, length: usize, rows: usize) -> DecodeError {
        let message = format!("the record is longer than {} bytes, the limit for one row", self.row_bytes_max);
        DecodeError { offset, length, rows, column: None, value: None, at: None, message }
    }

    /// Reads records of `bytes[start..end]`, where `end` is the end of a line, until `rows_max`; says where it stopped.
    fn block(&mut self, bytes: &[u8], start: usize, end: usize, rows_max: usize) -> Result<Decoded, DecodeError> {
        let Checked { text, bad } = Checked::new(bytes.get(start..end).unwrap_or_default());
        let block = bytes.get(start..).unwrap_or_default();
        let (row_first, mut at, mut fault) = (self.rows, 0, None);
        self.records.begin(block);
        while at < text.len() && self.rows - row_first < rows_max {
            let step = self.records.read(&mut self.columns, block, at, self.rows).map(Step::counted);
            match step {
                Ok(Step::Rows(next, count)) if next - at <= self.row_bytes_max => {
                    if let Some(column) = self.null_where_none_may_be() {
                        let what = What::Record("the value is NULL, and the column is NOT NULL".to_owned());
                        let found = Fault { column: Some(column), at: 0..0, what };
                        fault = Some(self.describe(block, start, at, self.rows - row_first, &found));
                        break;
                    }
                    self.rows += count;
                    at = next;
                }
                Ok(Step::Blank(next)) => at = next,
                Ok(Step::Row(next) | Step::Rows(next, _)) => {
                    fault = Some(self.too_long(start + at, next - at, self.rows - row_first));
                    break;
                }
                Err(found) => {
                    fault = Some(self.describe(block, start, at, self.rows - row_first, &found));
                    break;
                }
            }
        }
        let rows = self.rows - row_first;
        if fault.is_none() && rows < rows_max {
            fault = bad.map(|length| invalid_utf8(block, start, at, length, rows));
        }
        self.settle(text, start + at, rows)?;
        self.bytes += at;
        fault.map_or(Ok(Decoded { consumed: at, rows }), Err)
    }

    /// Takes back what a bad record left, and copies the strings of the good ones.
    fn settle(&mut self, text: &str, offset: usize, rows: usize) -> Result<(), DecodeError> {
        self.records.truncate(self.rows);
        for column in &mut self.columns {
            if column.len() > self.rows {
                column.truncate(self.rows);
            }
            column.settle(text).map_err(|error| DecodeError {
                offset,
                length: 0,
                rows,
                column: Some(column.name.clone()),
                value: None,
                at: None,
                message: error.to_string(),
            })?;
        }
        Ok(())
    }

    /// The fault of the record at `at` of the block, with its place in the slice.
    #[cold]
    fn describe(&self, block: &[u8], start: usize, at: usize, rows: usize, fault: &Fault) -> DecodeError {
        let length = line_length(block, at);
        let line_end = at + length - usize::from(block.get(at + length - 1) == Some(&b'\n'));
        let from = fault.at.start.min(line_end);
        let text = shown(block.get(from..fault.at.end.min(line_end)).unwrap_or_default());
        let column = fault.column.and_then(|column| self.columns.get(column));
        let (message, value) = match (&fault.what, column) {
            (What::Misfit(misfit), Some(column)) => (column.misfit(&text, *misfit), Some(text)),
            (What::Misfit(_), None) => (format!("'{text}' does not fit"), Some(text)),
            (What::Syntax(sentence), _) if text.is_empty() => ((*sentence).to_owned(), None),
            (What::Syntax(sentence), _) => (format!("{sentence} at '{text}'"), Some(text)),
            (What::Record(sentence), _) => (sentence.clone(), None),
        };
        let column = column.map(|column| column.name.clone());
        let inside = matches!(fault.what, What::Syntax(_)).then(|| from.saturating_sub(at));
        DecodeError { offset: start + at, length, rows, column, value, at: inside, message }
    }
}

/// A block as text up to the first line that is no UTF-8, and that line's length in bytes.
struct Checked<'a> {
    text: &'a str,
    bad: Option<usize>,
}

impl<'a> Checked<'a> {
    fn new(block: &'a [u8]) -> Self {
        match simdutf8::basic::from_utf8(block) {
            Ok(text) => Self { text, bad: None },
            Err(_) => Self::up_to_bad(block),
        }
    }

    #[cold]
    fn up_to_bad(block: &'a [u8]) -> Self {
        let valid = simdutf8::compat::from_utf8(block).err().map_or(block.len(), |error| error.valid_up_to());
        let good = block.get(..valid).unwrap_or_default();
        let line = memrchr(b'\n', good).map_or(0, |newline| newline + 1);
        let text = good.get(..line).and_then(|good| simdutf8::basic::from_utf8(good).ok()).unwrap_or_default();
        Self { text, bad: Some(line_length(block, line)) }
    }
}

/// The length of the line at `at`, its newline included.
fn line_length(block: &[u8], at: usize) -> usize {
    let rest = block.get(at..).unwrap_or_default();
    memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1)
}

#[cold]
fn invalid_utf8(block: &[u8], start: usize, at: usize, length: usize, rows: usize) -> DecodeError {
    let line = block.get(at..at + length).unwrap_or_default();
    let valid = simdutf8::compat::from_utf8(line).err().map_or(0, |error| error.valid_up_to());
    let value = shown(line.get(valid..).unwrap_or_default().trim_ascii_end());
    let message = format!("byte {valid} of the record is not UTF-8, at '{value}'; convert the file to UTF-8");
    DecodeError { offset: start + at, length, rows, column: None, value: Some(value), at: None, message }
}

/// The end of the block that starts at `start`: about [`BLOCK_BYTES`] on, behind a newline.
fn block_end(bytes: &[u8], start: usize, end: usize) -> usize {
    let rest = bytes.get(start..end).unwrap_or_default();
    let Some((near, far)) = rest.split_at_checked(BLOCK_BYTES) else { return end };
    match memrchr(b'\n', near) {
        Some(newline) => start + newline + 1,
        None => start + near.len() + line_length(far, 0),
    }
}

impl<R: Records> crate::Decoder for LineDecoder<R> {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn decode(&mut self, bytes: &[u8], last: bool, rows_max: usize) -> Result<Decoded, DecodeError> {
        let end = self.whole_lines(bytes, last)?;
        let bytes = bytes.get(..end).unwrap_or_default();
        let mut done = Decoded { consumed: 0, rows: 0 };
        while done.consumed < end && done.rows < rows_max {
            let block_end = block_end(bytes, done.consumed, end);
            if self.rows > 0 && self.bytes + (block_end - done.consumed) > BATCH_BYTES_MAX {
                break;
            }
            match self.block(bytes, done.consumed, block_end, rows_max - done.rows) {
                Ok(block) => {
                    done.consumed += block.consumed;
                    done.rows += block.rows;
                }
                Err(error) => return Err(DecodeError { rows: error.rows + done.rows, ..error }),
            }
        }
        Ok(done)
    }

    fn flush(&mut self) -> Result<RecordBatch> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let arrays = self.columns.iter_mut().map(Column::finish).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?;
        match self.records.kinds() {
            Some(kinds) => with_row_kinds(&batch, kinds),
            None => Ok(batch),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};

    use super::*;
    use crate::Decoder;

    fn decoder(row_bytes_max: usize) -> Box<dyn Decoder> {
        let field = |name, data_type| Field::new(name, data_type, true);
        let table: SchemaRef = Arc::new(Schema::new(vec![field("n", DataType::Int64), field("s", DataType::Utf8)]));
        let options = BTreeMap::from([("json.max-row-size".to_owned(), row_bytes_max.to_string())]);
        crate::format("json", &options).unwrap().decoder(&DecoderConfig::new(&table, &[0, 1])).unwrap()
    }

    fn lines(count: usize) -> String {
        let line = |n: usize| format!("{{\"n\":{n},\"s\":\"{}é\"}}\n", "x".repeat(n % 97));
        (0..count).map(line).collect()
    }

    /// Feeds `input` as a file is read, `step` bytes more at a time, at most `rows_max` rows a call.
    fn read_in_steps(input: &[u8], step: usize, rows_max: usize) -> Vec<i64> {
        let (mut decoder, mut numbers) = (decoder(crate::ROW_BYTES_MAX), Vec::new());
        let (mut start, mut end) = (0, 0);
        while start < input.len() {
            end = input.len().min(end + step);
            loop {
                let decoded = decoder.decode(&input[start..end], end == input.len(), rows_max).unwrap();
                start += decoded.consumed;
                assert!(decoded.rows <= rows_max);
                if decoded.rows < rows_max {
                    break;
                }
                let batch = decoder.flush().unwrap();
                numbers.extend_from_slice(batch.column(0).as_primitive::<Int64Type>().values());
            }
        }
        numbers.extend_from_slice(decoder.flush().unwrap().column(0).as_primitive::<Int64Type>().values());
        numbers
    }

    #[test]
    fn the_same_rows_come_out_however_input_is_cut() {
        let input = lines(3000);
        let expected: Vec<i64> = (0..3000).collect();
        for (step, rows_max) in [(1_000_000, 1_000_000), (1_000_000, 7), (100, 1), (1777, 100), (70_000, 2048)] {
            assert_eq!(read_in_steps(input.as_bytes(), step, rows_max), expected, "{step} bytes, {rows_max} rows");
        }
        assert_eq!(read_in_steps(input.trim_end().as_bytes(), 5000, 13), expected, "without the last newline");
    }

    #[test]
    fn a_partial_last_line_is_left_unless_input_ends() {
        let mut decoder = decoder(crate::ROW_BYTES_MAX);
        assert_eq!(decoder.decode(b"{\"n\":1", false, 10), Ok(Decoded { consumed: 0, rows: 0 }));
        assert_eq!(decoder.decode(b"\n \r\n{}", false, 10), Ok(Decoded { consumed: 4, rows: 0 }));
        assert_eq!(decoder.decode(b"{}", true, 10), Ok(Decoded { consumed: 2, rows: 1 }));
        assert_eq!(decoder.decode(b"  ", true, 10), Ok(Decoded { consumed: 2, rows: 0 }));
        assert_eq!(decoder.decode(b"{}\n", true, 0), Ok(Decoded { consumed: 0, rows: 0 }));
    }

    #[test]
    fn invalid_utf8_is_found_in_its_line_even_where_nobody_asked() {
        for bad in [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"] {
            let mut input = b"{\"n\":1,\"s\":\"\xc3\xa9\"}\n{\"n\":2,\"other\":\"".to_vec();
            input.extend_from_slice(bad);
            input.extend_from_slice(b"\"}\n{\"n\":3}\n");
            let mut decoder = decoder(crate::ROW_BYTES_MAX);
            let error = decoder.decode(&input, true, 10).unwrap_err();
            assert_eq!((error.offset, error.rows, error.length), (17, 1, 19 + bad.len()));
            assert!(error.message.starts_with("byte 16 of the record is not UTF-8"), "{}", error.message);
            assert_eq!(decoder.decode(&input[error.offset + error.length..], true, 10).unwrap().rows, 1);
            assert_eq!(decoder.flush().unwrap().num_rows(), 2);
        }
    }

    #[test]
    fn a_row_that_is_too_long_is_refused_whole_or_unfinished() {
        let mut decoder = decoder(100_000);
        let long = format!("{{}}\n{{\"s\":\"{}\"}}\n{{}}\n", "x".repeat(100_000));
        let error = decoder.decode(long.as_bytes(), true, 10).unwrap_err();
        assert_eq!((error.offset, error.rows, error.length), (3, 1, 100_009));
        assert_eq!(error.message, "the record is longer than 100000 bytes, the limit for one row");
        assert_eq!(decoder.decode(&long.as_bytes()[error.offset + error.length..], true, 10).unwrap().rows, 1);
        assert_eq!(decoder.flush().unwrap().num_rows(), 2);
        let error = decoder.decode(&long.as_bytes()[3..100_010], false, 10).unwrap_err();
        assert_eq!((error.offset, error.length), (0, 100_007));
        let before = decoder.decode(&long.as_bytes()[..100_010], false, 10);
        assert_eq!(before, Ok(Decoded { consumed: 3, rows: 1 }), "what is whole before it comes first");
    }

    #[test]
    fn a_null_where_none_may_be_is_a_bad_record() {
        for data_type in [DataType::Int64, DataType::Utf8] {
            let field = Field::new("v", data_type, false);
            let table: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true), field]));
            let format = crate::format("csv", &BTreeMap::from([("csv.null-literal".into(), "NA".into())])).unwrap();
            let mut decoder = format.decoder(&DecoderConfig::new(&table, &[1, 0])).unwrap();
            let input = b"1,1\n2,NA\n3,3\nNA,4\n";
            let error = decoder.decode(input, true, 10).unwrap_err();
            assert_eq!((error.offset, error.length, error.rows), (4, 5, 1));
            assert_eq!(error.to_string(), "column 'v': the value is NULL, and the column is NOT NULL");
            assert_eq!(decoder.decode(&input[9..], true, 10).unwrap().rows, 2);
            assert_eq!(decoder.flush().unwrap().num_rows(), 3);
        }
    }

    #[test]
    fn no_columns_still_count_rows() {
        let table: SchemaRef = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        let format = crate::format("json", &BTreeMap::new()).unwrap();
        let mut decoder = format.decoder(&DecoderConfig::new(&table, &[])).unwrap();
        decoder.decode(lines(5).as_bytes(), true, 100).unwrap();
        assert_eq!(decoder.flush().unwrap().num_rows(), 5);
    }
}
