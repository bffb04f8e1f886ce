//! JSON lines: one object a line, its fields matched to columns by name.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use ruslo_core::connector::OptionSpec;
use ruslo_core::error::{Error, Result};

use crate::lines::LineDecoder;
use crate::moment::TimestampStyle;
use crate::options::Given;
use crate::{Decoder, DecoderConfig, Encoder, Format, Preamble};

mod decode;
mod encode;
mod gap;
mod nested;
mod syntax;

const MAX_ROW_SIZE: &str = "json.max-row-size";

/// The options of `'format' = 'json'`.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: "json.timestamp-format.standard",
        required: false,
        doc: "How timestamps are written: 'SQL' (2013-01-31 05:00:00.123, the default) or 'ISO-8601' \
              (2013-01-31T05:00:00.123). Both are read.",
    },
    OptionSpec {
        key: "json.fail-on-missing-field",
        required: false,
        doc: "Whether a field that is absent from an object is an error; 'false' (the default) makes it NULL.",
    },
    OptionSpec {
        key: MAX_ROW_SIZE,
        required: false,
        doc: "How many bytes a row may have when read, such as '1 mb'; '16 mb' if not given, '512 mb' at most.",
    },
];

/// JSON lines.
#[derive(Debug)]
pub(crate) struct Json {
    timestamps: TimestampStyle,
    fail_on_missing_field: bool,
    row_bytes_max: usize,
}

impl Json {
    pub(crate) fn new(given: &Given<'_>) -> Result<Self> {
        let timestamps = match given.get("json.timestamp-format.standard") {
            None | Some("SQL") => TimestampStyle::Sql,
            Some("ISO-8601") => TimestampStyle::Iso,
            Some(other) => {
                let key = "json.timestamp-format.standard";
                return Err(Error::usage(format!("'{key}' is 'SQL' or 'ISO-8601', not '{other}'")));
            }
        };
        let fail_on_missing_field = given.boolean("json.fail-on-missing-field")?;
        Ok(Self { timestamps, fail_on_missing_field, row_bytes_max: given.row_bytes_max(MAX_ROW_SIZE)? })
    }
}

impl Format for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn row_bytes_max(&self) -> usize {
        self.row_bytes_max
    }

    fn preamble(&self, start: &[u8], last: bool) -> Result<Option<Preamble>> {
        Ok(crate::byte_order_mark(start, last).map(|bytes| Preamble { bytes, header: None }))
    }

    fn decoder(&self, config: &DecoderConfig<'_>) -> Result<Box<dyn Decoder>> {
        let names = config.schema()?.fields().iter().map(|field| field.name().clone()).collect();
        let records = decode::JsonRecords::new(names, self.fail_on_missing_field);
        Ok(Box::new(LineDecoder::new(records, self.name(), config, self.row_bytes_max)?))
    }

    fn encoder(&self, schema: &SchemaRef) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(encode::JsonEncoder::new(schema, self.timestamps)?))
    }
}

/// JSON lines with Flink's defaults.
pub(crate) fn format(given: &Given<'_>) -> Result<Arc<dyn Format>> {
    Ok(Arc::new(Json::new(given)?))
}
