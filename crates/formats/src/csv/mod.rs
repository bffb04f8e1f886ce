//! CSV: one row a line, its fields matched to columns by position or, with a header line, by name.
//!
//! An unquoted field that equals `csv.null-literal` is NULL; without that option an empty field is NULL, except in a
//! STRING column, where it is an empty string. A quoted field is never NULL.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use memchr::memchr;
use ruslo_core::connector::OptionSpec;
use ruslo_core::error::{Error, Result};

use crate::lines::LineDecoder;
use crate::options::Given;
use crate::{Decoder, DecoderConfig, Encoder, Format, Preamble};

mod decode;
mod encode;
mod header;

const MAX_ROW_SIZE: &str = "csv.max-row-size";

/// The options of `'format' = 'csv'`.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "csv.field-delimiter",
        required: false,
        doc: "What separates fields, one character; ',' if not given.",
    },
    OptionSpec {
        key: "csv.quote-character",
        required: false,
        doc: "What encloses a field that holds the delimiter; doubled, it stands for itself; '\"' if not given.",
    },
    OptionSpec {
        key: "csv.null-literal",
        required: false,
        doc: "The unquoted text that is NULL, such as 'NA'. If not given, an empty field is NULL in columns other than STRING.",
    },
    OptionSpec {
        key: "csv.header",
        required: false,
        doc: "Whether the first line of a file names its fields, which are then matched to columns by name; 'false' if not given.",
    },
    OptionSpec {
        key: MAX_ROW_SIZE,
        required: false,
        doc: "How many bytes a row may have when read, such as '1 mb'; '16 mb' if not given, '512 mb' at most.",
    },
];

/// How a table's files are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) delimiter: u8,
    pub(crate) quote: u8,
    pub(crate) null_literal: Option<String>,
}

/// CSV.
#[derive(Debug)]
struct Csv {
    dialect: Dialect,
    header: bool,
    row_bytes_max: usize,
}

/// CSV with the options given.
pub(crate) fn format(given: &Given<'_>) -> Result<Arc<dyn Format>> {
    let dialect = Dialect {
        delimiter: given.character("csv.field-delimiter", b',')?,
        quote: given.character("csv.quote-character", b'"')?,
        null_literal: given.get("csv.null-literal").map(str::to_owned),
    };
    if dialect.delimiter == dialect.quote {
        return Err(Error::usage("'csv.field-delimiter' and 'csv.quote-character' must differ"));
    }
    let null_literal = dialect.null_literal.as_deref().unwrap_or_default().as_bytes();
    if null_literal.iter().any(|byte| *byte == dialect.delimiter || *byte == dialect.quote || *byte == b'\n') {
        return Err(Error::usage("'csv.null-literal' must not hold the delimiter, the quote character or a newline"));
    }
    let (header, row_bytes_max) = (given.boolean("csv.header")?, given.row_bytes_max(MAX_ROW_SIZE)?);
    Ok(Arc::new(Csv { dialect, header, row_bytes_max }))
}

impl Format for Csv {
    fn name(&self) -> &'static str {
        "csv"
    }

    fn row_bytes_max(&self) -> usize {
        self.row_bytes_max
    }

    fn preamble(&self, start: &[u8], last: bool) -> Result<Option<Preamble>> {
        let Some(mark) = crate::byte_order_mark(start, last) else { return Ok(None) };
        if !self.header {
            return Ok(Some(Preamble { bytes: mark, header: None }));
        }
        let text = start.get(mark..).unwrap_or_default();
        let length = match memchr(b'\n', text) {
            Some(newline) => newline + 1,
            None if last && !text.is_empty() => text.len(),
            None if last => return Err(Error::data("the file is empty, but 'csv.header' is 'true'")),
            None if text.len() > self.row_bytes_max => {
                return Err(Error::data(format!("the header line is longer than {} bytes", self.row_bytes_max)));
            }
            None => return Ok(None),
        };
        let line = text.get(..length).unwrap_or_default().trim_ascii_end();
        Ok(Some(Preamble { bytes: mark + length, header: Some(line.to_vec()) }))
    }

    fn decoder(&self, config: &DecoderConfig<'_>) -> Result<Box<dyn Decoder>> {
        let fields = match (self.header, config.header) {
            (false, _) => header::by_position(config),
            (true, Some(line)) => header::by_name(config, line, &self.dialect)?,
            (true, None) => {
                return Err(Error::internal("a CSV decoder was made without the header line that its options promise"));
            }
        };
        let records = decode::CsvRecords::new(self.dialect.clone(), fields);
        Ok(Box::new(LineDecoder::new(records, self.name(), config, self.row_bytes_max)?))
    }

    fn encoder(&self, schema: &SchemaRef) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(encode::CsvEncoder::new(schema, self.dialect.clone(), self.header)?))
    }
}
