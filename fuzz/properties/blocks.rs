//! A file of any bytes, as Avro or Parquet: rows or an error that is the data's, and the same rows in batches of any size.

#![allow(dead_code, reason = "each fuzzer calls one of the two")]

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use ruslo_core::error::{ErrorKind, Result};
use ruslo_formats::{BlockFile, DecoderConfig};

pub fn avro(input: &[u8]) {
    holds("avro", input);
}

pub fn parquet(input: &[u8]) {
    holds("parquet", input);
}

/// The columns of the files that the corpus began with.
fn table() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let entries = Field::new_struct("entries", [text("keys").with_nullable(false), text("values")].to_vec(), false);
    let at = [text("name"), Field::new("lat", DataType::Float64, true)];
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        text("city"),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        Field::new("fare", DataType::Decimal128(9, 2), true),
        Field::new("tags", DataType::new_list(DataType::Utf8, true), true),
        Field::new("at", DataType::Struct(at.to_vec().into()), true),
        Field::new("counts", DataType::Map(Arc::new(entries), false), true),
    ]))
}

/// The bits of the first byte of `input` choose the columns, the others are the file.
fn holds(format: &str, input: &[u8]) {
    let Some((columns, file)) = input.split_first() else { return };
    let table = table();
    let wanted: Vec<usize> = (0..table.fields().len()).filter(|column| columns >> column & 1 == 1).collect();
    let read = |rows_max| {
        let format = ruslo_formats::format(format, &BTreeMap::new())?;
        let config = DecoderConfig::new(&table, &wanted);
        let blocks = format.blocks().unwrap();
        let opened = blocks.open(Box::new(Cursor::new(file.to_vec())), file.len() as u64, &config)?;
        rows(opened, &Arc::new(table.project(&wanted).unwrap()), rows_max)
    };
    match (read(usize::MAX), read(3)) {
        (Ok(whole), Ok(pieces)) => assert!(whole == pieces, "{whole:?}\n{pieces:?}"),
        (Err(error), again) => {
            assert!(matches!(error.kind(), ErrorKind::Data | ErrorKind::Usage | ErrorKind::Resource), "{error:?}");
            assert!(again.is_err(), "{error:?}");
        }
        (Ok(_), Err(error)) => panic!("only in pieces: {error:?}"),
    }
}

/// Rows of a file, at most about [`ROWS_MAX`]: a few bytes may say that there are millions.
fn rows(mut file: Box<dyn BlockFile>, schema: &SchemaRef, rows_max: usize) -> Result<RecordBatch> {
    let mut batches = Vec::new();
    for block in 0..file.starts().len() {
        file.seek(block, 0)?;
        let mut left = ROWS_MAX;
        while let Some(batch) = file.next(rows_max.min(left))? {
            left -= batch.num_rows();
            batches.push(batch);
            if left == 0 {
                break;
            }
        }
    }
    Ok(concat_batches(schema, &batches).unwrap())
}

/// Of each block.
const ROWS_MAX: usize = 3_000;
