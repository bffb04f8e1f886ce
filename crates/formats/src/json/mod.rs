//! JSON lines: one object a line, its fields matched to columns by name.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use ruslo_core::connector::OptionSpec;
use ruslo_core::error::{Error, Result};

use crate::debezium::Debezium;
use crate::lines::LineDecoder;
use crate::moment::TimestampStyle;
use crate::options::Given;
use crate::{Decoder, DecoderConfig, Encoder, Format, Preamble};

mod decode;
mod encode;
mod gap;
mod nested;
mod syntax;

pub(crate) use decode::JsonRecords;
pub(crate) use encode::JsonEncoder;
pub(crate) use gap::{Layout, Target};
pub(crate) use syntax::{Kind, skip, token, white_space};

const TIMESTAMPS: &str = "json.timestamp-format.standard";
const FAIL_ON_MISSING: &str = "json.fail-on-missing-field";
const MAX_ROW_SIZE: &str = "json.max-row-size";

/// The options of `'format' = 'json'`.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: TIMESTAMPS,
        required: false,
        doc: "How timestamps are written: 'SQL' (2013-01-31 05:00:00.123, the default) or 'ISO-8601' \
              (2013-01-31T05:00:00.123). Both are read.",
    },
    OptionSpec {
        key: FAIL_ON_MISSING,
        required: false,
        doc: "Whether a field that is absent from an object is an error; 'false' (the default) makes it NULL.",
    },
    OptionSpec {
        key: MAX_ROW_SIZE,
        required: false,
        doc: "How many bytes a row may have when read, such as '1 mb'; '16 mb' if not given, '512 mb' at most.",
    },
];

/// What the options are called that say how objects are written and read.
pub(crate) struct JsonOptions {
    pub(crate) timestamps: &'static str,
    pub(crate) fail_on_missing_field: Option<&'static str>,
    pub(crate) max_row_size: &'static str,
}

/// JSON lines.
#[derive(Debug, Clone)]
pub(crate) struct Json {
    timestamps: TimestampStyle,
    fail_on_missing_field: bool,
    row_bytes_max: usize,
}

impl Json {
    pub(crate) fn new(given: &Given<'_>) -> Result<Self> {
        let options = JsonOptions {
            timestamps: TIMESTAMPS,
            fail_on_missing_field: Some(FAIL_ON_MISSING),
            max_row_size: MAX_ROW_SIZE,
        };
        Self::of(given, &options)
    }

    /// Objects as the options of these names say.
    pub(crate) fn of(given: &Given<'_>, options: &JsonOptions) -> Result<Self> {
        let timestamps = match given.get(options.timestamps) {
            None | Some("SQL") => TimestampStyle::Sql,
            Some("ISO-8601") => TimestampStyle::Iso,
            Some(other) => {
                let key = options.timestamps;
                return Err(Error::usage(format!("'{key}' is 'SQL' or 'ISO-8601', not '{other}'")));
            }
        };
        let fail_on_missing_field = options.fail_on_missing_field.map_or(Ok(false), |key| given.boolean(key))?;
        Ok(Self { timestamps, fail_on_missing_field, row_bytes_max: given.row_bytes_max(options.max_row_size)? })
    }

    /// The writer of rows, for what `format` writes around them.
    pub(crate) fn rows_encoder(&self, schema: &SchemaRef, format: &str) -> Result<JsonEncoder> {
        JsonEncoder::new(schema, self.timestamps, format)
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
        Ok(Box::new(self.rows_encoder(schema, self.name())?))
    }

    fn with_changes(&self) -> Option<Arc<dyn Format>> {
        Some(Arc::new(Debezium::of(self.clone())))
    }
}

/// JSON lines with Flink's defaults.
pub(crate) fn format(given: &Given<'_>) -> Result<Arc<dyn Format>> {
    Ok(Arc::new(Json::new(given)?))
}
