//! Files that another program wrote (see `fixtures/make.py`) are read as what they say, and ours are read back.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int8Type, Int64Type, Schema, SchemaRef, TimeUnit};
use ruslo_core::connector::{Bound, Comparison};
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
    every_place("parquet");
}

#[test]
fn every_place_in_the_blocks_of_avro_can_be_gone_to() {
    every_place("avro");
}

/// Which row groups may hold rows that are wanted.
fn may_hold(bytes: &[u8], table: &SchemaRef, wanted: &[Bound]) -> Vec<bool> {
    let file: Box<dyn DiskReader> = Box::new(std::io::Cursor::new(bytes.to_vec()));
    let config = DecoderConfig { wanted, ..DecoderConfig::new(table, &[0]) };
    let file = format("parquet", &[]).blocks().unwrap().open(file, bytes.len() as u64, &config).unwrap();
    (0..file.starts().len()).map(|group| file.may_hold(group)).collect()
}

/// Whether a value that compares so with another one satisfies a comparison.
type Holds = fn(std::cmp::Ordering) -> bool;

const COMPARISONS: [(Comparison, Holds); 5] = [
    (Comparison::Equal, std::cmp::Ordering::is_eq),
    (Comparison::Less, std::cmp::Ordering::is_lt),
    (Comparison::LessOrEqual, std::cmp::Ordering::is_le),
    (Comparison::Greater, std::cmp::Ordering::is_gt),
    (Comparison::GreaterOrEqual, std::cmp::Ordering::is_ge),
];

#[test]
fn a_row_group_is_left_out_only_if_no_row_of_it_is_wanted() {
    let bytes = fixture("groups.parquet");
    let table = table(&[("n", DataType::Int64), ("t", DataType::Utf8)]);
    let groups: Vec<Vec<i64>> = (0..63).collect::<Vec<_>>().chunks(10).map(<[i64]>::to_vec).collect();
    let bound = |column: &str, comparison, value: Arc<dyn Array>| Bound { column: column.into(), comparison, value };
    for value in -1..65 {
        for (comparison, holds) in COMPARISONS {
            let some = |group: &Vec<i64>| group.iter().any(|n| holds(n.cmp(&value)));
            let wanted = [bound("n", comparison, Arc::new(Int64Array::from(vec![value])))];
            assert_eq!(may_hold(&bytes, &table, &wanted), groups.iter().map(some).collect::<Vec<_>>(), "{value}");
            let text = format!("text {value}");
            let some = |group: &Vec<i64>| group.iter().any(|n| holds(format!("text {n}").cmp(&text)));
            let wanted = [bound("t", comparison, Arc::new(StringArray::from(vec![text.as_str()])))];
            let may_hold = may_hold(&bytes, &table, &wanted);
            assert!(may_hold.iter().zip(&groups).all(|(may_hold, group)| *may_hold || !some(group)), "{text}");
        }
    }
    // A type that is not the column's, and a column that the file lacks, say nothing.
    let other = [bound("n", Comparison::Less, Arc::new(StringArray::from(vec!["0"])))];
    assert!(!may_hold(&bytes, &table, &other).contains(&false));
    let absent = [bound("x", Comparison::Less, Arc::new(Int64Array::from(vec![0])))];
    assert!(!may_hold(&bytes, &table, &absent).contains(&false));
}

#[test]
fn nulls_and_times_of_another_unit_are_no_reason_to_leave_rows_out() {
    let millis = DataType::Timestamp(TimeUnit::Millisecond, None);
    let times = |values: Vec<Option<i64>>, data_type: &DataType| {
        arrow::compute::cast(&Int64Array::from(values), data_type).unwrap()
    };
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    // Before 1970, too, digits are cut off: it becomes -2.
    let column = times(vec![Some(-1_500_000), None, Some(2_999_999)], &nanos);
    let bytes = written("parquet", &[], &[RecordBatch::try_from_iter_with_nullable([("a", column, true)]).unwrap()]);
    let table = table(&[("a", millis.clone())]);
    for (comparison, holds) in COMPARISONS {
        for value in -4..5_i64 {
            let wanted = [Bound { column: "a".into(), comparison, value: times(vec![Some(value)], &millis) }];
            let some = [-2_i64, 2].iter().any(|n| holds(n.cmp(&value)));
            assert!(may_hold(&bytes, &table, &wanted)[0] || !some, "{comparison:?} {value}");
        }
    }
    let nulls = times(vec![None, None], &millis);
    let bytes = written("parquet", &[], &[RecordBatch::try_from_iter_with_nullable([("a", nulls, true)]).unwrap()]);
    let wanted = [Bound { column: "a".into(), comparison: Comparison::Less, value: times(vec![Some(0)], &millis) }];
    assert_eq!(may_hold(&bytes, &table, &wanted), [true], "nobody says what is not there");
}

/// Goes to every row of seven blocks of ten rows.
fn every_place(name: &str) {
    let bytes = fixture(&format!("groups.{name}"));
    let table = table(&[("n", DataType::Int64)]);
    assert!(numbers(&read(name, &bytes, &table, 4).unwrap()).into_iter().eq(0..63));
    let mut file = open(name, &bytes, &table).unwrap();
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
    let rows: usize = read(name, &bytes, &none, 4).unwrap().iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows, 63, "rows without columns are counted");
    assert!(read(name, &fixture(&format!("no_rows.{name}")), &table, 4).unwrap().is_empty());
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
    // What breaks in another library is caught, and would fill the screen.
    std::panic::set_hook(Box::new(|_| {}));
    damage("parquet", &fixture("groups.parquet"), &table);
    damage("avro", &fixture("groups.avro"), &table);
    for codec in ["null", "deflate", "snappy", "zstandard"] {
        damage("avro", &fixture(&format!("types_{codec}.avro")), &types());
    }
    let _ = std::panic::take_hook();
}

/// Reads a file with some bytes changed, many times.
fn damage(name: &str, bytes: &[u8], table: &SchemaRef) {
    let mut state = 7_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for _ in 0..3000 {
        let mut bytes = bytes.to_vec();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        // What it makes of it is its own business.
        let _ = read(name, &bytes, table, 100);
    }
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

#[test]
fn avro_of_every_type_and_codec() {
    for codec in ["null", "deflate", "snappy", "zstandard"] {
        let bytes = fixture(&format!("types_{codec}.avro"));
        for rows_max in [1, 2, 100] {
            assert_eq!(shown(&read("avro", &bytes, &types(), rows_max).unwrap()), TYPES, "{codec}");
        }
    }
}

/// One column of a file that has types of all sorts.
fn odd(name: &str, data_type: DataType) -> Vec<String> {
    shown(&read("avro", &fixture("odd.avro"), &table(&[(name, data_type)]), 100).unwrap())
}

#[test]
fn avro_of_what_else_a_schema_may_say() {
    let point = DataType::Struct(["y", "x"].map(|name| Field::new(name, DataType::Float64, true)).to_vec().into());
    let expected = ["{y: -, x: 0.0}", "{y: -, x: 1.0}", "{y: -, x: 2.0}"];
    assert_eq!(odd("first", point.clone()), expected);
    // Of a type that a column defines which is not read.
    assert_eq!(odd("second", point.clone()), ["{y: 1.0, x: 0.5}", "{y: 1.0, x: 1.5}", "{y: 1.0, x: 2.5}"]);
    assert_eq!(odd("third", point.clone()), ["-", "{y: 1.0, x: 9.0}", "{y: 2.0, x: 9.0}"]);
    let points = ["[]", "[{y: 1.0, x: 1.0}]", "[{y: 2.0, x: 2.0}, {y: 2.0, x: 2.0}]"];
    assert_eq!(odd("points", DataType::new_list(point, true)), points);
    assert_eq!(odd("id", DataType::Utf8)[2], "00000000-0000-0000-0000-000000000002");
    assert_eq!(odd("two", DataType::Binary), ["00ff"; 3]);
    assert_eq!(odd("cents", DataType::Decimal128(9, 2)), ["0.00", "-0.01", "-0.02"]);
    assert_eq!(odd("late", DataType::Time32(TimeUnit::Millisecond)), ["01:02:03.004"; 3]);
    assert_eq!(odd("last", DataType::Int64), ["-", "1", "2"]);
}

#[test]
fn an_avro_schema_that_does_not_fit_is_told() {
    let bytes = fixture("odd.avro");
    let column = |name: &str, data_type| refusal("avro", &bytes, &table(&[(name, data_type)]));
    let union = "column 'either': it is a union of several types in the file, which cannot be read as STRING";
    assert_eq!(column("either", DataType::Utf8), union);
    let narrow = "column 'last': it is BIGINT in the file, which cannot be read as INT";
    assert_eq!(column("last", DataType::Int32), narrow);
    assert!(column("n", DataType::Int64).starts_with("there is no column 'n'; the file has 'first', 'second',"));
    let not_null: SchemaRef = Arc::new(Schema::new(vec![Field::new("last", DataType::Int64, false)]));
    let sentence = "block 1: column 'last': it is NULL, and declared NOT NULL";
    assert_eq!(refusal("avro", &bytes, &not_null), sentence);
    let endless = refusal("avro", &fixture("endless.avro"), &table(&[("n", DataType::Int64)]));
    assert!(endless.starts_with("the avro file's schema cannot be read ("), "{endless}");
}

#[test]
fn what_is_no_avro_or_not_whole_is_told() {
    let bytes = fixture("groups.avro");
    let table = table(&[("n", DataType::Int64), ("t", DataType::Utf8)]);
    let refused = |bytes: &[u8]| refusal("avro", bytes, &table);
    let no_container = "this is no avro file with a schema in it (an object container file): ";
    let no_magic =
        format!("{no_container}it does not begin with 'Obj' and a byte of 1; avro without a schema is not read");
    for bytes in [b"n,t\n1,text 1\n", &fixture("message.avro")[..], b"Obj", &fixture("groups.parquet")] {
        assert_eq!(refused(bytes), no_magic);
    }
    let single = refused(b"\xc3\x01\x00\x01\x02\x03\x04\x05\x06\x07\x02\x02x");
    assert_eq!(
        single,
        format!("{no_container}it is a message whose schema is elsewhere; avro without a schema is not read")
    );
    assert!(refused(&bytes[..40]).starts_with("the avro file's header is not whole or damaged ("));
    let whole = fixture("no_rows.avro").len();
    for length in whole + 1..bytes.len() {
        if let Err(error) = open("avro", &bytes[..length], &table) {
            let expected =
                format!("the avro file is not whole: its last block goes on behind byte {length}, where the file ends");
            assert_eq!(error.to_string(), expected);
        } else {
            assert!(
                bytes[..length].ends_with(&bytes[whole - 16..whole]),
                "only between blocks a file may end: {length}"
            );
        }
    }
}

#[test]
fn a_damaged_block_of_avro_is_told_by_its_number_and_byte() {
    let bytes = fixture("groups.avro");
    let table = table(&[("n", DataType::Int64), ("t", DataType::Utf8)]);
    let third = open("avro", &bytes, &table).unwrap().starts()[2] as usize;
    let changed = |at: usize, to: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = to;
        refusal("avro", &bytes, &table)
    };
    let place = format!("block 3, at byte {third}: the avro data is damaged (");
    // The number of rows is 10, which is written as 20.
    assert_eq!(changed(third, 18), format!("{place}it does not have the 9 rows that it is said to have)"));
    for (what, sentence) in [(22, changed(third, 22)), (0xff, changed(third + 4, 0xff)), (1, changed(third, 1))] {
        assert!(sentence.starts_with(&place), "{what}: {sentence}");
    }
    let shorter = changed(third + 1, bytes[third + 1] - 2);
    assert!(shorter.starts_with(&format!("{place}the sync marker is missing at byte ")), "{shorter}");
    let codec = bytes.windows(4).position(|part| part == b"null").unwrap();
    let expected =
        "the avro file's blocks are compressed with 'bull'; 'null', 'deflate', 'snappy' and 'zstandard' are read";
    assert_eq!(changed(codec, b'b'), expected);
}

#[test]
fn avro_that_is_written_reads_back_with_every_codec() {
    let rows = read("avro", &fixture("types_null.avro"), &types(), 1).unwrap();
    for codec in ["null", "deflate", "Snappy", "ZSTANDARD"] {
        let bytes = written("avro", &[("avro.codec", codec)], &rows);
        assert_eq!(shown(&read("avro", &bytes, &types(), 100).unwrap()), TYPES);
    }
    let error =
        ruslo_formats::format("avro", &BTreeMap::from([("avro.codec".to_owned(), "gzip".to_owned())])).unwrap_err();
    assert_eq!(error.to_string(), "'avro.codec' is 'snappy', 'deflate', 'zstandard' or 'null', not 'gzip'");
}

#[test]
fn small_integers_of_avro_read_back_and_others_only_if_they_fit() {
    let ints = |values: &[Option<i32>]| {
        let column: Arc<dyn Array> = Arc::new(Int32Array::from(values.to_vec()));
        RecordBatch::try_from_iter_with_nullable([("a", column, true)]).unwrap()
    };
    for (data_type, least, most) in [(DataType::Int8, -128, 127), (DataType::Int16, -32_768, 32_767)] {
        let values = [Some(least), None, Some(most)];
        let small = arrow::compute::cast(ints(&values).column(0), &data_type).unwrap();
        let small = RecordBatch::try_from_iter_with_nullable([("a", small, true)]).unwrap();
        let table = table(&[("a", data_type.clone())]);
        let bytes = written("avro", &[], std::slice::from_ref(&small));
        assert_eq!(read("avro", &bytes, &table, 100).unwrap(), [small]);
        for (beyond, name) in [(least - 1, &data_type), (most + 1, &data_type)] {
            let bytes = written("avro", &[], &[ints(&[None, Some(0), Some(beyond), Some(1_000_000)])]);
            let name = if *name == DataType::Int8 { "TINYINT" } else { "SMALLINT" };
            let sentence = format!("block 1: column 'a': '{beyond}' does not fit in {name} (value 3 of the block)");
            assert_eq!(refusal("avro", &bytes, &table), sentence);
        }
    }
    let nested = table(&[("l", DataType::new_list(DataType::Int8, true))]);
    let list = ListArray::from_iter_primitive::<Int8Type, _, _>([Some(vec![Some(-128), None]), None, Some(vec![])]);
    let batch = RecordBatch::try_new(nested.clone(), vec![Arc::new(list)]).unwrap();
    assert_eq!(read("avro", &written("avro", &[], std::slice::from_ref(&batch)), &nested, 100).unwrap(), [batch]);
}

#[test]
fn an_encoder_writes_one_avro_file_after_another_in_blocks_whatever_the_batches() {
    let batch = |range: std::ops::Range<i64>| {
        let texts: StringArray = range.clone().map(|n| Some(format!("text {n}"))).collect();
        let numbers: Int64Array = range.collect();
        RecordBatch::try_from_iter([("n", Arc::new(numbers) as _), ("t", Arc::new(texts) as _)]).unwrap()
    };
    let all = batch(0..20_000);
    let mut encoder = format("avro", &[]).encoder(&all.schema()).unwrap();
    let table = table(&[("n", DataType::Int64)]);
    for size in [1, 700, 20_000] {
        let mut bytes = Vec::new();
        for from in (0..20_000).step_by(size) {
            encoder.encode(&all.slice(from, size.min(20_000 - from)), &mut bytes).unwrap();
            assert!(encoder.buffered_bytes() < 64 << 10);
        }
        assert!(!bytes.is_empty(), "blocks come out as they are complete");
        encoder.finish(&mut bytes).unwrap();
        assert_eq!(encoder.buffered_bytes(), 0);
        let blocks = open("avro", &bytes, &table).unwrap().starts().len();
        // 22 bytes a row: 8 for a number, 4 for a text's end and 10 for the text; 4 more for the end of a batch.
        assert!((4..=8).contains(&blocks), "{size}: {blocks}");
        assert!(numbers(&read("avro", &bytes, &table, 999).unwrap()).into_iter().eq(0..20_000));
    }
}
