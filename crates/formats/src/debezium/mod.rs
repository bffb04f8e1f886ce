//! Debezium's JSON: one change a line, as `{"before":..,"after":..,"op":"u"}` with JSON objects for rows.
//!
//! Written as Flink does: a row that comes, or what a row has become, is `c`; a row that goes, or what it was, is `d`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use ruslo_core::connector::OptionSpec;
use ruslo_core::error::{Error, Result};

use crate::json::{Json, JsonOptions};
use crate::options::Given;
use crate::{Decoder, DecoderConfig, Encoder, Format, Preamble};

mod encode;

pub(crate) const NAME: &str = "debezium-json";
const TIMESTAMPS: &str = "debezium-json.timestamp-format.standard";
const MAX_ROW_SIZE: &str = "debezium-json.max-row-size";

/// The options of `'format' = 'debezium-json'`.
pub(crate) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        key: TIMESTAMPS,
        required: false,
        doc: "How timestamps are written: 'SQL' (2013-01-31 05:00:00.123, the default) or 'ISO-8601' \
              (2013-01-31T05:00:00.123). Both are read.",
    },
    OptionSpec {
        key: MAX_ROW_SIZE,
        required: false,
        doc: "How many bytes a change may have when read, such as '1 mb'; '16 mb' if not given, '512 mb' at most.",
    },
];

/// Changes of rows that are JSON objects.
#[derive(Debug)]
pub(crate) struct Debezium {
    rows: Json,
}

impl Debezium {
    /// Changes of rows as `rows` writes them.
    pub(crate) fn of(rows: Json) -> Self {
        Self { rows }
    }
}

impl Format for Debezium {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tells_changes(&self) -> bool {
        true
    }

    fn row_bytes_max(&self) -> usize {
        self.rows.row_bytes_max()
    }

    fn preamble(&self, start: &[u8], last: bool) -> Result<Option<Preamble>> {
        self.rows.preamble(start, last)
    }

    fn decoder(&self, _config: &DecoderConfig<'_>) -> Result<Box<dyn Decoder>> {
        Err(Error::usage("format 'debezium-json' is not read yet, only written"))
    }

    fn encoder(&self, schema: &SchemaRef) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(encode::DebeziumEncoder::new(self.rows.rows_encoder(schema, NAME)?)))
    }
}

/// Debezium's JSON with Flink's defaults.
pub(crate) fn format(given: &Given<'_>) -> Result<Arc<dyn Format>> {
    let options = JsonOptions { timestamps: TIMESTAMPS, fail_on_missing_field: None, max_row_size: MAX_ROW_SIZE };
    Ok(Arc::new(Debezium::of(Json::of(given, &options)?)))
}
