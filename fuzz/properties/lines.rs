//! Lines of any bytes, as JSON or CSV: rows or an error, and the same rows wherever the input is cut.

#![allow(dead_code, reason = "each fuzzer calls one of the two")]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use ruslo_formats::{Decoder, DecoderConfig};

pub fn json(input: &[u8]) {
    same_rows_wherever_it_is_cut("json", &table(&[flat(), nested()].concat()), input);
}

pub fn csv(input: &[u8]) {
    same_rows_wherever_it_is_cut("csv", &table(&flat()), input);
}

fn table(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields: Vec<_> = columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
    Arc::new(Schema::new(fields))
}

/// A column of every kind that both formats have.
fn flat() -> Vec<(&'static str, DataType)> {
    vec![
        ("b", DataType::Boolean),
        ("i", DataType::Int32),
        ("l", DataType::Int64),
        ("d", DataType::Float64),
        ("n", DataType::Decimal128(10, 2)),
        ("s", DataType::Utf8),
        ("t", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("u", DataType::Date32),
    ]
}

/// A column of every kind that only JSON has.
fn nested() -> Vec<(&'static str, DataType)> {
    let pair = vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Int64, true)];
    let entries = Field::new_struct("entries", pair, false);
    vec![
        ("a", DataType::new_list(DataType::Int32, true)),
        ("m", DataType::Map(Arc::new(entries), false)),
        ("r", DataType::Struct(vec![Field::new("x", DataType::Utf8, true)].into())),
    ]
}

/// Decodes all of `input` at once, and once cut at a place that its first byte chooses.
fn same_rows_wherever_it_is_cut(format: &str, table: &SchemaRef, input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    let all: Vec<usize> = (0..table.fields().len()).collect();
    let format = ruslo_formats::format(format, &BTreeMap::new()).unwrap();
    let decoder = || format.decoder(&DecoderConfig::new(table, &all)).unwrap();
    let cut = bytes.len() * usize::from(*first) / 256;
    let whole = decode(decoder().as_mut(), bytes, bytes.len());
    let parts = decode(decoder().as_mut(), bytes, cut);
    assert_eq!(whole, parts, "cut at {cut}");
}

/// The rows before the first bad record, and whether there is one. The first call sees `cut` bytes.
fn decode(decoder: &mut dyn Decoder, bytes: &[u8], cut: usize) -> (RecordBatch, bool) {
    let mut start = 0;
    let mut end = cut;
    loop {
        match decoder.decode(&bytes[start..end], end == bytes.len(), usize::MAX) {
            Ok(decoded) => start += decoded.consumed,
            Err(_) => return (decoder.flush().unwrap(), true),
        }
        if end == bytes.len() {
            return (decoder.flush().unwrap(), false);
        }
        end = bytes.len();
    }
}
