//! Formats: bytes to Arrow batches and back, with a place for every error.
//!
//! A [`Format`] is found by its name with [`format()`]; what it needs to know of a table is in its options. It makes a
//! [`Decoder`] or an [`Encoder`] for a schema, each used by one task. A decoder is handed slices of input as they come
//! and says how much it consumed; a batch is taken out with [`Decoder::flush`]:
//!
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::Arc;
//!
//! use arrow::datatypes::{DataType, Field, Schema};
//! use ruslo_formats::DecoderConfig;
//!
//! # fn main() -> ruslo_core::error::Result<()> {
//! let table = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true), Field::new("b", DataType::Utf8, true)]));
//! let json = ruslo_formats::format("json", &BTreeMap::new())?;
//! let mut decoder = json.decoder(&DecoderConfig::new(&table, &[1]))?;
//! let decoded = decoder.decode(b"{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b", false, 1000)?;
//! assert_eq!((decoded.rows, decoded.consumed), (1, 16));
//! assert_eq!(decoder.flush()?.num_columns(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! **A record is one line**, in JSON and in CSV: that is what lets a file be cut at any newline and its parts be read in
//! parallel, a part owning every line that starts in it. A quoted newline in CSV is an error that says so.
//! Input is UTF-8; a line that is not is an error, whatever columns are read. Blank lines are skipped, `\r\n` ends a line
//! as `\n` does, and a byte order mark at the start of a file is skipped (see [`Format::preamble`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use ruslo_core::connector::{Bound, OptionSpec};
use ruslo_core::error::{Error, Result};

mod avro;
mod base64;
mod blocks;
mod column;
mod csv;
mod debezium;
mod decode_error;
mod fit;
mod json;
mod lines;
mod moment;
mod number;
mod options;
mod parquet;
mod scan;
mod type_name;
mod writer;

pub use blocks::{BlockFile, BlockFormat};
pub use decode_error::DecodeError;

/// The limit for one row of a line format whose options don't set another: 16 MiB.
pub const ROW_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How far a call of [`Decoder::decode`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes consumed from the front of the slice: whole records.
    pub consumed: usize,
    /// Rows decoded from them; blank lines give none.
    pub rows: usize,
}

/// Turns bytes into batches of one schema.
pub trait Decoder: Send {
    /// The schema of the batches: the projected columns of the table.
    fn schema(&self) -> SchemaRef;

    /// Rows decoded since the last flush.
    fn rows(&self) -> usize;

    /// Decodes whole records from the front of `bytes` until `rows_max` rows are decoded or input ends.
    ///
    /// Unless it is the `last` of its file, a slice may end within a record, which then stays unconsumed. A call also
    /// stops early once 1 GiB of input lies in one batch: `flush`, then call again with the rest.
    ///
    /// # Errors
    /// A bad record. It is taken back; the rows before it stay, and decoding may go on behind it.
    fn decode(&mut self, bytes: &[u8], last: bool, rows_max: usize) -> Result<Decoded, DecodeError>;

    /// Takes the rows decoded since the last flush as a batch, which may be empty.
    ///
    /// # Errors
    /// `Internal` only.
    fn flush(&mut self) -> Result<RecordBatch>;
}

/// Turns batches of one schema into bytes.
pub trait Encoder: Send {
    /// Appends what stands at the start of a file, if anything does.
    fn header(&self, out: &mut Vec<u8>);

    /// Appends the rows of a batch.
    ///
    /// # Errors
    /// `Internal`, if the batch is of another schema.
    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()>;

    /// Bytes of memory held for rows whose bytes were not appended yet.
    fn buffered_bytes(&self) -> usize {
        0
    }

    /// Appends what stands at the end of a file. What is encoded next belongs to another file.
    ///
    /// # Errors
    /// `Internal`.
    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let _ = out;
        Ok(())
    }
}

/// What a decoder is made for.
#[derive(Debug, Clone, Copy)]
pub struct DecoderConfig<'a> {
    /// The physical columns of the table, in order.
    pub table: &'a SchemaRef,
    /// Indexes of the columns to decode, in the order of the batches.
    pub projection: &'a [usize],
    /// The file's header line, as [`Format::preamble`] found it.
    pub header: Option<&'a [u8]>,
    /// What rows satisfy that are wanted; a file of blocks may have blocks without any.
    pub wanted: &'a [Bound],
}

impl<'a> DecoderConfig<'a> {
    /// Columns `projection` of `table`, without a header line.
    pub fn new(table: &'a SchemaRef, projection: &'a [usize]) -> Self {
        Self { table, projection, header: None, wanted: &[] }
    }

    /// The schema of the projected columns.
    pub(crate) fn schema(&self) -> Result<SchemaRef> {
        let schema: Schema = self.table.project(self.projection)?;
        Ok(Arc::new(schema))
    }
}

/// What stands before the first record of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preamble {
    /// How many bytes of the file to skip.
    pub bytes: usize,
    /// The header line, without its newline; goes into [`DecoderConfig::header`] for every part of the file.
    pub header: Option<Vec<u8>>,
}

/// A format with its options.
pub trait Format: Send + Sync + std::fmt::Debug {
    /// What `'format' = '..'` says.
    fn name(&self) -> &'static str;

    /// Whether a file may be cut at any newline and its parts decoded apart.
    fn is_splittable(&self) -> bool {
        true
    }

    /// Whether its records say how rows change ([`ruslo_core::changelog`]).
    fn tells_changes(&self) -> bool {
        false
    }

    /// The same with records that say how rows change, if there is such a format.
    fn with_changes(&self) -> Option<Arc<dyn Format>> {
        None
    }

    /// How to read its files, if not record by record.
    fn blocks(&self) -> Option<&dyn BlockFormat> {
        None
    }

    /// The limit for one row, and for the header line, in bytes of input.
    fn row_bytes_max(&self) -> usize {
        ROW_BYTES_MAX
    }

    /// What stands before the first record, given the `start` of a file; `None` if more of the file is needed to tell,
    /// which never is so when `start` is all of it (`last`).
    ///
    /// # Errors
    /// `Data`, if the file has no header line where the options promise one.
    fn preamble(&self, start: &[u8], last: bool) -> Result<Option<Preamble>>;

    /// A decoder of some columns of a table.
    ///
    /// # Errors
    /// `Usage`, if the format cannot read a column's type; `Data`, if the file's header lacks a column.
    fn decoder(&self, config: &DecoderConfig<'_>) -> Result<Box<dyn Decoder>>;

    /// An encoder of batches of `schema`.
    ///
    /// # Errors
    /// `Usage`, if the format cannot write a column's type.
    fn encoder(&self, schema: &SchemaRef) -> Result<Box<dyn Encoder>>;
}

/// A format that [`format()`] knows.
#[derive(Debug, Clone, Copy)]
pub struct FormatSpec {
    /// What `'format' = '..'` says.
    pub name: &'static str,
    /// What it is, one line.
    pub doc: &'static str,
    /// Its options; every key starts with the name.
    pub options: &'static [OptionSpec],
}

/// The formats there are.
pub const FORMATS: &[FormatSpec] = &[
    FormatSpec { name: "avro", doc: "Avro object container files: records with their schema", options: avro::OPTIONS },
    FormatSpec { name: "csv", doc: "Comma-separated values, one row a line", options: csv::OPTIONS },
    FormatSpec {
        name: debezium::NAME,
        doc: "Changes of rows in Debezium's JSON, one a line",
        options: debezium::OPTIONS,
    },
    FormatSpec { name: "json", doc: "JSON objects, one a line", options: json::OPTIONS },
    FormatSpec { name: "parquet", doc: "Parquet files: columns in row groups", options: parquet::OPTIONS },
];

/// The format `name` with the options of a table; keys that don't start with the name are not looked at.
///
/// # Errors
/// `Usage`, if there is no such format or option, or a value doesn't fit.
pub fn format(name: &str, options: &BTreeMap<String, String>) -> Result<Arc<dyn Format>> {
    let Some(spec) = FORMATS.iter().find(|spec| spec.name == name) else {
        let names: Vec<_> = FORMATS.iter().map(|spec| format!("'{}'", spec.name)).collect();
        return Err(Error::usage(format!("there is no format '{name}'; there are {}", names.join(", "))));
    };
    let given = options::Given::new(spec.name, spec.options, options)?;
    match spec.name {
        "avro" => avro::format(&given),
        "csv" => csv::format(&given),
        debezium::NAME => debezium::format(&given),
        "parquet" => parquet::format(&given),
        _ => json::format(&given),
    }
}

/// The length of the byte order mark at the start of a file: 3 or 0; `None` if more bytes are needed to tell.
fn byte_order_mark(start: &[u8], last: bool) -> Option<usize> {
    const MARK: &[u8] = "\u{feff}".as_bytes();
    match start.starts_with(MARK) {
        true => Some(MARK.len()),
        false if !last && MARK.starts_with(start) => None,
        false => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};
    use ruslo_core::error::ErrorKind;

    use super::*;

    fn refusal(name: &str, options: &[(&str, &str)]) -> String {
        let options = options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let error = format(name, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        error.to_string()
    }

    #[test]
    fn an_unknown_format_or_option_names_those_there_are() {
        assert_eq!(
            refusal("jsn", &[]),
            "there is no format 'jsn'; there are 'avro', 'csv', 'debezium-json', 'json', 'parquet'"
        );
        let message = refusal("json", &[("json.fail-on-missing", "true"), ("path", "x"), ("csv.header", "?")]);
        assert!(
            message.starts_with("format 'json' has no option 'json.fail-on-missing'; it has 'json.timestamp-format")
        );
    }

    #[test]
    fn a_value_that_an_option_cannot_have_is_refused() {
        let message = refusal("json", &[("json.timestamp-format.standard", "RFC")]);
        assert_eq!(message, "'json.timestamp-format.standard' is 'SQL' or 'ISO-8601', not 'RFC'");
        let message = refusal("csv", &[("csv.header", "yes")]);
        assert_eq!(message, "'csv.header' is 'true' or 'false', not 'yes'");
        let message = refusal("csv", &[("csv.field-delimiter", "||")]);
        assert_eq!(message, "'csv.field-delimiter' is one ASCII character, not '||'");
        assert!(refusal("csv", &[("csv.field-delimiter", "\"")]).contains("must differ"));
        assert!(refusal("csv", &[("csv.null-literal", "N,A")]).contains("must not hold the delimiter"));
    }

    #[test]
    fn a_type_that_is_not_there_yet_is_refused_when_the_decoder_or_encoder_is_made() {
        let list = |of| Field::new("tags", DataType::new_list(of, true), true);
        for (name, item, type_name) in [("csv", DataType::Int32, "ARRAY<INT>"), ("json", DataType::UInt8, "UInt8")] {
            let table: SchemaRef = Arc::new(Schema::new(vec![list(item)]));
            let format = format(name, &BTreeMap::new()).unwrap();
            let read = format.decoder(&DecoderConfig::new(&table, &[0])).err().unwrap();
            let expected = format!("format '{name}' does not read {type_name} yet (column 'tags')");
            assert_eq!((read.kind(), read.to_string()), (ErrorKind::Usage, expected.clone()));
            assert!(format.decoder(&DecoderConfig::new(&table, &[])).is_ok(), "what is not read need not be known");
            let written = format.encoder(&table).err().unwrap();
            let refused = expected.replace("read", "write").replace("UInt8", "ARRAY<UInt8>");
            assert_eq!(written.to_string(), refused);
        }
    }

    #[test]
    fn a_byte_order_mark_is_skipped_once_it_is_known() {
        assert_eq!(byte_order_mark(b"\xef\xbb", false), None);
        assert_eq!(byte_order_mark(b"\xef\xbb", true), Some(0));
        assert_eq!(byte_order_mark(b"\xef\xbb\xbf{}", false), Some(3));
        assert_eq!(byte_order_mark(b"{}", false), Some(0));
        assert_eq!(byte_order_mark(b"", false), None);
        assert_eq!(byte_order_mark(b"", true), Some(0));
    }
}
