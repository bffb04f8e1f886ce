//! What the decoders do on one core: `cargo bench -p ruslo-formats --bench decode -- FILE.json [FILE.csv]`, where the
//! files hold Nexmark bids. Prints MB/s and million rows/s of the bare `arrow-json` decoder and of ours, best of five.
//!
//! With `--once FILE.json` our decoder goes over the file's bytes, in memory, a single time, for the five columns of
//! Nexmark's q0, and prints one JSON object: the ceiling that `bench/compare` measures the whole engine against.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods, missing_docs)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use ruslo_formats::DecoderConfig;

const READ_BYTES: usize = 1 << 20;
const BATCH_ROWS: usize = 8192;
const PROJECTIONS: [&[usize]; 4] = [&[0, 1, 2, 3, 4, 5, 6], &[0, 1, 2, 5, 6], &[0, 5], &[]];

fn bids() -> SchemaRef {
    let field = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        field("auction", DataType::Int64),
        field("bidder", DataType::Int64),
        field("price", DataType::Int64),
        field("channel", DataType::Utf8),
        field("url", DataType::Utf8),
        field("dateTime", DataType::Timestamp(TimeUnit::Millisecond, None)),
        field("extra", DataType::Utf8),
    ]))
}

fn arrow_json(data: &[u8], schema: &SchemaRef) -> usize {
    let builder = arrow::json::ReaderBuilder::new(schema.clone()).with_batch_size(BATCH_ROWS);
    let (mut decoder, mut rest, mut rows) = (builder.build_decoder().unwrap(), data, 0);
    while !rest.is_empty() {
        let consumed = decoder.decode(rest).unwrap();
        rest = &rest[consumed..];
        if let Some(batch) = decoder.flush().unwrap() {
            rows += black_box(batch).num_rows();
        }
    }
    rows
}

fn ours(format: &str, data: &[u8], projection: &[usize]) -> usize {
    let format = ruslo_formats::format(format, &BTreeMap::new()).unwrap();
    let mut decoder = format.decoder(&DecoderConfig::new(&bids(), projection)).unwrap();
    let (mut at, mut rows) = (0, 0);
    while at < data.len() {
        let end = data.len().min(at + READ_BYTES);
        let decoded = decoder.decode(&data[at..end], end == data.len(), BATCH_ROWS - decoder.rows()).unwrap();
        at += decoded.consumed;
        if decoder.rows() == BATCH_ROWS || at == data.len() {
            rows += black_box(decoder.flush().unwrap()).num_rows();
        }
    }
    rows
}

fn report(what: &str, columns: usize, data: &[u8], run: impl Fn() -> usize) {
    let time = || {
        let start = Instant::now();
        let rows = run();
        (start.elapsed().as_secs_f64(), rows)
    };
    let (seconds, rows) = (0..5).map(|_| time()).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    let megabytes = data.len() as f64 / 1e6 / seconds;
    println!("{what:<12} {columns} columns {megabytes:8.0} MB/s {:8.2} M rows/s", rows as f64 / 1e6 / seconds);
}

fn once(file: &str) {
    let data = std::fs::read(file).unwrap();
    let start = Instant::now();
    let rows = ours("json", &data, PROJECTIONS[1]);
    println!("{{\"seconds\": {}, \"rows\": {rows}}}", start.elapsed().as_secs_f64());
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some("--once") {
        return once(&std::env::args().nth(2).unwrap());
    }
    let files: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    for file in &files {
        let data = std::fs::read(file).unwrap();
        let format = if file.ends_with(".csv") { "csv" } else { "json" };
        for projection in PROJECTIONS {
            if format == "json" {
                let schema = Arc::new(bids().project(projection).unwrap());
                report("arrow-json", projection.len(), &data, || arrow_json(&data, &schema));
            }
            report(&format!("ruslo {format}"), projection.len(), &data, || ours(format, &data, projection));
        }
    }
}
