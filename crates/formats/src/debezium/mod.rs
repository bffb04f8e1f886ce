//! Debezium's JSON: one change a line, as `{"before":..,"after":..,"op":"u"}` with JSON objects for rows.
//!
//! Written as Flink does: a row that comes, or what a row has become, is `c`; a row that goes, or what it was, is `d`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use ruslo_core::connector::OptionSpec;
use ruslo_core::error::Result;

use crate::json::{Json, JsonOptions};
use crate::lines::LineDecoder;
use crate::options::Given;
use crate::{Decoder, DecoderConfig, Encoder, Format, Preamble};

mod decode;
mod encode;

pub(crate) const NAME: &str = "debezium-json";
const TIMESTAMPS: &str = "debezium-json.timestamp-format.standard";
const SCHEMA_INCLUDE: &str = "debezium-json.schema-include";
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
        key: SCHEMA_INCLUDE,
        required: false,
        doc: "Whether changes that are read stand beside their schema: {\"schema\":..,\"payload\":..}; 'false' if not given.",
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
    /// Whether each change stands in an envelope of its own, beside its schema.
    has_schema: bool,
}

impl Debezium {
    /// Changes of rows as `rows` writes them.
    pub(crate) fn of(rows: Json) -> Self {
        Self { rows, has_schema: false }
    }
}

impl Format for Debezium {
    fn name(&self) -> &'static str {
        NAME
    }

    fn tells_changes(&self) -> bool {
        true
    }

    /// A row's changes keep their order only in one piece.
    fn is_splittable(&self) -> bool {
        false
    }

    fn row_bytes_max(&self) -> usize {
        self.rows.row_bytes_max()
    }

    fn preamble(&self, start: &[u8], last: bool) -> Result<Option<Preamble>> {
        self.rows.preamble(start, last)
    }

    fn decoder(&self, config: &DecoderConfig<'_>) -> Result<Box<dyn Decoder>> {
        let schema = config.schema()?;
        let names = schema.fields().iter().map(|field| field.name().clone()).collect();
        let required = schema.fields().iter().enumerate().filter(|(_, field)| !field.is_nullable());
        let required = required.map(|(index, _)| index).collect();
        let records = decode::DebeziumRecords::new(names, required, self.has_schema);
        Ok(Box::new(LineDecoder::new(records, NAME, config, self.row_bytes_max())?))
    }

    fn encoder(&self, schema: &SchemaRef) -> Result<Box<dyn Encoder>> {
        Ok(Box::new(encode::DebeziumEncoder::new(self.rows.rows_encoder(schema, NAME)?)))
    }
}

/// Debezium's JSON with Flink's defaults.
pub(crate) fn format(given: &Given<'_>) -> Result<Arc<dyn Format>> {
    let options = JsonOptions { timestamps: TIMESTAMPS, fail_on_missing_field: None, max_row_size: MAX_ROW_SIZE };
    let has_schema = given.boolean(SCHEMA_INCLUDE)?;
    Ok(Arc::new(Debezium { has_schema, ..Debezium::of(Json::of(given, &options)?) }))
}
