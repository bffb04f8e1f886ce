//! Files that another program wrote (see `fixtures/make.py`) are read as what they say, and ours are read back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit};
use ruslo_core::disk::{Disk, DiskReader, LocalDisk};
use ruslo_core::error::{Error, ErrorKind, Result};
use ruslo_formats::{BlockFile, DecoderConfig, Format};

fn format(name: &str, options: &[(&str, &str)]) -> Arc<dyn Format> {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ruslo_formats::format(name, &options).unwrap()
}

fn fixture(name: &str) -> Vec<u8> {
    LocalDisk.read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

fn table(fields: &[(&str, DataType)]) -> SchemaRef {
    Arc::new(Schema::new(fields.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Vec<_>>()))
}

/// Opens the bytes of a file to read all columns of `table`.
fn open(name: &str, bytes: &[u8], table: &SchemaRef) -> Result<Box<dyn BlockFile>> {
    let all: Vec<_> = (0..table.fields().len()).collect();
    let file: Box<dyn DiskReader> = Box::new(std::io::Cursor::new(bytes.to_vec()));
    format(name, &[]).blocks().unwrap().open(file, bytes.len() as u64, &DecoderConfig::new(table, &all))
}

/// All batches of all blocks.
fn read(name: &str, bytes: &[u8], table: &SchemaRef, rows_max: usize) -> Result<Vec<RecordBatch>> {
    let mut file = open(name, bytes, table)?;
    let mut batches = Vec::new();
    for block in 0..file.starts().len() {
        file.seek(block, 0)?;
        while let Some(batch) = file.next(rows_max)? {
            assert!((1..=rows_max).contains(&batch.num_rows()));
            assert_eq!(batch.schema(), *table);
            batches.push(batch);
        }
    }
    Ok(batches)
}

/// Rows as text, `-` for NULL.
fn shown(batches: &[RecordBatch]) -> Vec<String> {
    let options = arrow::util::display::FormatOptions::new().with_null("-");
    let mut rows = Vec::new();
    for batch in batches {
        // The formatter has no table of zones, so what is UTC is shown without one.
        let plain = |array: &Arc<dyn Array>| match array.data_type() {
            DataType::Timestamp(unit, Some(_)) => {
                let data = array.to_data().into_builder().data_type(DataType::Timestamp(*unit, None));
                arrow::array::make_array(data.build().unwrap())
            }
            _ => array.clone(),
        };
        let columns: Vec<_> = batch.columns().iter().map(plain).collect();
        let formatters: Vec<_> =
            columns.iter().map(|c| arrow::util::display::ArrayFormatter::try_new(c, &options).unwrap()).collect();
        let row = |row| formatters.iter().map(|f| f.value(row).to_string()).collect::<Vec<_>>().join("|");
        rows.extend((0..batch.num_rows()).map(row));
    }
    rows
}

fn map_of(value: DataType) -> DataType {
    let parts = vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(parts.into()), false)), false)
}

/// The columns of the fixtures, in another order and in types of the table's choice.
fn types() -> SchemaRef {
    let row = vec![
        Field::new("y", DataType::Utf8, true),
        Field::new("z", DataType::Date32, true),
        Field::new("x", DataType::Int64, true),
    ];
    table(&[
        ("map", map_of(DataType::Int64)),
        ("i8", DataType::Int32),
        ("u16", DataType::Int32),
        ("i32", DataType::Int64),
        ("i64", DataType::Int64),
        ("f32", DataType::Float64),
        ("f64", DataType::Float64),
        ("yes", DataType::Boolean),
        ("s", DataType::Utf8),
        ("b", DataType::Binary),
        ("day", DataType::Date32),
        ("at", DataType::Time32(TimeUnit::Millisecond)),
        ("local", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("utc", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
        ("nanos", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("price", DataType::Decimal128(12, 3)),
        ("word", DataType::Utf8),
        ("list", DataType::new_list(DataType::Int64, true)),
        ("row", DataType::Struct(row.into())),
    ])
}

const TYPES: [&str; 3] = [
    "{a: 1, b: -}|-128|65535|-2147483648|9223372036854775807|0.5|-1.25e300|true|naïve|00ff|2024-02-29|05:06:07.890|\
     2024-05-01T12:30:00.123|1969-12-31T23:59:59.999|1969-12-31T23:59:59.999|-1234567.890|red|[1, -, 3]|\
     {y: seven, z: -, x: 7}",
    "-|-|-|-|-|-|-|-|-|-|-|-|-|-|-|-|-|-|-",
    "{}|127|0|0|-1|inf|0.0|false|||0001-01-01|00:00:00|0001-01-01T00:00:00|2024-01-01T00:00:00|\
     2024-01-01T00:00:00|0.010|blue|[]|{y: -, z: -, x: -}",
];

#[test]
fn parquet_of_every_type_and_compression() {
    for compression in ["none", "snappy", "gzip", "zstd", "lz4"] {
        let bytes = fixture(&format!("types_{compression}.parquet"));
        for rows_max in [1, 2, 100] {
            assert_eq!(shown(&read("parquet", &bytes, &types(), rows_max).unwrap()), TYPES, "{compression}");
        }
    }
}

#[test]
fn parquet_with_times_of_96_bits() {
    let table = table(&[("nanos", DataType::Timestamp(TimeUnit::Microsecond, None))]);
    let rows = shown(&read("parquet", &fixture("int96.parquet"), &table, 10).unwrap());
    assert_eq!(rows, ["1969-12-31T23:59:59.999999", "-", "2024-01-01T00:00:00"]);
}

fn numbers(batches: &[RecordBatch]) -> Vec<i64> {
    batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
}

#[test]
fn a_block_is_a_row_group_and_every_place_in_it_can_be_gone_to() {
    let bytes = fixture("groups.parquet");
    let table = table(&[("n", DataType::Int64)]);
    assert!(numbers(&read("parquet", &bytes, &table, 4).unwrap()).into_iter().eq(0..63));
    let mut file = open("parquet", &bytes, &table).unwrap();
    assert_eq!(file.starts().len(), 7);
    assert!(file.starts().is_sorted_by(|a, b| a < b));
    for block in (0..7).rev() {
        for row in 0..=10 {
            file.seek(block, row).unwrap();
            let end = if block == 6 { 63 } else { block as i64 * 10 + 10 };
            let mut found = Vec::new();
            while let Some(batch) = file.next(3).unwrap() {
                found.extend(numbers(&[batch]));
            }
            let expected: Vec<_> = (block as i64 * 10 + row as i64..end).collect();
            assert_eq!(found, expected, "block {block} row {row}");
        }
    }
    let none = Arc::new(Schema::empty());
    let rows: usize = read("parquet", &bytes, &none, 4).unwrap().iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 63, "rows without columns are counted");
    assert!(read("parquet", &fixture("no_rows.parquet"), &table, 4).unwrap().is_empty());
}

fn refusal(name: &str, bytes: &[u8], table: &SchemaRef) -> String {
    let error: Error = read(name, bytes, table, 100).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Data, "{error}");
    error.to_string()
}

#[test]
fn a_schema_that_does_not_fit_is_told_by_its_column() {
    let bytes = fixture("types_none.parquet");
    let column = |name: &str, data_type| refusal("parquet", &bytes, &table(&[(name, data_type)]));
    let groups = fixture("groups.parquet");
    assert_eq!(
        refusal("parquet", &groups, &table(&[("x", DataType::Int64)])),
        "there is no column 'x'; the file has 'n', 't'"
    );
    let sentence = |name: &str, from: &str, to: &str| {
        format!("column '{name}': it is {from} in the file, which cannot be read as {to}")
    };
    assert_eq!(column("s", DataType::Int64), sentence("s", "STRING", "BIGINT"));
    assert_eq!(column("i64", DataType::Int32), sentence("i64", "BIGINT", "INT"));
    assert_eq!(column("f64", DataType::Float32), sentence("f64", "DOUBLE", "FLOAT"));
    assert_eq!(column("price", DataType::Decimal128(8, 2)), sentence("price", "DECIMAL(9, 2)", "DECIMAL(8, 2)"));
    assert_eq!(column("price", DataType::Decimal128(20, 1)), sentence("price", "DECIMAL(9, 2)", "DECIMAL(20, 1)"));
    assert_eq!(column("list", DataType::Utf8), sentence("list", "ARRAY<INT>", "STRING"));
    let texts = DataType::new_list(DataType::Utf8, true);
    assert_eq!(column("list", texts), sentence("list", "ARRAY<INT>", "ARRAY<STRING>"));
    let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
    assert_eq!(column("local", nanoseconds), "row group 1: column 'local': a time does not fit in TIMESTAMP(9)");
    let not_null: SchemaRef = Arc::new(Schema::new(vec![Field::new("i32", DataType::Int32, false)]));
    let sentence = "row group 1: column 'i32': it is NULL, and declared NOT NULL";
    assert_eq!(refusal("parquet", &bytes, &not_null), sentence);
}

#[test]
fn what_is_no_parquet_or_not_whole_is_told() {
    let bytes = fixture("groups.parquet");
    let table = table(&[("n", DataType::Int64), ("t", DataType::Utf8)]);
    let refused = |bytes: &[u8]| refusal("parquet", bytes, &table);
    assert_eq!(refused(b"n,t\n1,text 1\n"), "this is no parquet file: it does not begin with 'PAR1'");
    assert_eq!(refused(b"PAR1"), "this is no parquet file: it is too short");
    assert_eq!(refused(&bytes[..2000]), "the parquet file is not whole: it does not end with 'PAR1'");
    let cut = [&bytes[..100], &bytes[bytes.len() - 8..]].concat();
    assert!(refused(&cut).starts_with("the parquet file's footer is damaged ("), "{}", refused(&cut));
    let mut damaged = bytes.clone();
    damaged[4..40].fill(0xff);
    let sentence = refused(&damaged);
    assert!(sentence.starts_with("row group 1, from row 0 on: the parquet data is damaged ("), "{sentence}");
}

#[test]
fn no_damage_makes_reading_panic_or_run_on() {
    let table = table(&[("n", DataType::Int64), ("t", DataType::Utf8)]);
    let bytes = fixture("groups.parquet");
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    // What breaks in another library is caught, and would fill the screen.
    std::panic::set_hook(Box::new(|_| {}));
    for _ in 0..3000 {
        let mut bytes = bytes.clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        // What it makes of it is its own business.
        let _ = read("parquet", &bytes, &table, 100);
    }
    let _ = std::panic::take_hook();
}

/// A file of several batches.
fn written(name: &str, options: &[(&str, &str)], batches: &[RecordBatch]) -> Vec<u8> {
    let mut encoder = format(name, options).encoder(&batches[0].schema()).unwrap();
    let mut bytes = Vec::new();
    encoder.header(&mut bytes);
    batches.iter().for_each(|batch| encoder.encode(batch, &mut bytes).unwrap());
    encoder.finish(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_written_reads_back_in_every_compression() {
    let rows = read("parquet", &fixture("types_none.parquet"), &types(), 100).unwrap();
    for compression in ["snappy", "GZIP", "zstd", "lz4_raw", "uncompressed"] {
        let bytes = written("parquet", &[("parquet.compression", compression)], &rows);
        assert_eq!(shown(&read("parquet", &bytes, &types(), 100).unwrap()), TYPES);
    }
}

#[test]
fn an_encoder_writes_one_file_after_another_in_row_groups_of_the_size_asked_for() {
    let batch = |from: i64| {
        let texts: StringArray = (from..from + 5000).map(|n| Some(format!("text {}", n * 7919))).collect();
        let numbers: Int64Array = (from..from + 5000).collect();
        RecordBatch::try_from_iter([("n", Arc::new(numbers) as _), ("t", Arc::new(texts) as _)]).unwrap()
    };
    let mut encoder = format("parquet", &[("parquet.block.size", "64 kb")]).encoder(&batch(0).schema()).unwrap();
    let table = table(&[("n", DataType::Int64)]);
    for _ in 0..2 {
        let mut bytes = Vec::new();
        (0..4).for_each(|n| encoder.encode(&batch(n * 5000), &mut bytes).unwrap());
        assert!(!bytes.is_empty(), "row groups come out as they are complete");
        encoder.finish(&mut bytes).unwrap();
        assert_eq!(encoder.buffered_bytes(), 0);
        assert!(open("parquet", &bytes, &table).unwrap().starts().len() > 2);
        assert!(numbers(&read("parquet", &bytes, &table, 999).unwrap()).into_iter().eq(0..20_000));
    }
}

#[test]
fn files_have_no_single_records() {
    let table = table(&[("n", DataType::Int64)]);
    let error = format("parquet", &[]).decoder(&DecoderConfig::new(&table, &[0])).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Usage);
    let options = BTreeMap::from([("parquet.compression".to_owned(), "brotli".to_owned())]);
    let error = ruslo_formats::format("parquet", &options).unwrap_err();
    assert!(error.to_string().contains("'parquet.compression' is 'SNAPPY', 'GZIP'"), "{error}");
}
