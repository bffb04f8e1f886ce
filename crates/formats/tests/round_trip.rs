//! What is encoded decodes to the same rows, and our JSON grammar is the one of another parser: over generated input.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, ListArray, MapArray, RecordBatch, StringArray, StructArray,
    Time32MillisecondArray, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use ruslo_formats::{Decoder, DecoderConfig};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// An integer of any magnitude.
    fn integer(&mut self) -> i64 {
        (self.next() as i64) >> self.below(64)
    }

    fn text(&mut self) -> String {
        const PARTS: [&str; 16] = [
            "a",
            "Z",
            "é",
            "中",
            "😀",
            "\"",
            "\\",
            ",",
            "\t",
            "\r",
            "\u{1}",
            "NA",
            "null",
            " ",
            "{",
            "0123456789abcdef",
        ];
        (0..self.below(9)).map(|_| PARTS[self.below(16) as usize]).collect()
    }

    fn column<T>(&mut self, rows: usize, value: impl Fn(&mut Self) -> T) -> Vec<Option<T>> {
        let nulls = self.below(3);
        (0..rows).map(|_| if nulls > 0 && self.below(4) == 0 { None } else { Some(value(self)) }).collect()
    }
}

/// Milliseconds within the years 1 to 9999.
fn milliseconds(random: &mut Random) -> i64 {
    let value = random.integer() % 253_402_300_800_000;
    if value < -62_135_596_800_000 { -value } else { value }
}

fn batch(random: &mut Random, rows: usize) -> RecordBatch {
    let decimals = Decimal128Array::from(random.column(rows, |r| i128::from(r.integer()) * 1_000_003));
    let micros = random.column(rows, |r| milliseconds(r) * 1000 + r.below(1000) as i64);
    let double = |r: &mut Random| match r.below(8) {
        0 => f64::NAN,
        1 => f64::NEG_INFINITY,
        2 => r.integer() as f64 / 1000.0,
        _ => Some(f64::from_bits(r.next())).filter(|value| value.is_finite()).unwrap_or(-0.0),
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(random.column(rows, |r| r.below(2) == 1))),
        Arc::new(Int8Array::from(random.column(rows, |r| r.integer() as i8))),
        Arc::new(Int16Array::from(random.column(rows, |r| r.integer() as i16))),
        Arc::new(Int32Array::from(random.column(rows, |r| r.integer() as i32))),
        Arc::new(Int64Array::from(random.column(rows, Random::integer))),
        Arc::new(Float32Array::from(random.column(rows, |r| double(r) as f32))),
        Arc::new(Float64Array::from(random.column(rows, double))),
        Arc::new(decimals.with_precision_and_scale(30, 7).unwrap()),
        Arc::new(Date32Array::from(random.column(rows, |r| (milliseconds(r) / 86_400_000) as i32))),
        Arc::new(TimestampMillisecondArray::from(random.column(rows, milliseconds))),
        Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC")),
        Arc::new(StringArray::from(random.column(rows, Random::text))),
        Arc::new(Time32MillisecondArray::from(random.column(rows, |r| r.below(86_400_000) as i32))),
        Arc::new(BinaryArray::from_iter(random.column(rows, |r| r.text().into_bytes()))),
    ];
    let field =
        |(index, column): (usize, &ArrayRef)| Field::new(format!("c{index}\"é"), column.data_type().clone(), true);
    let fields: Vec<_> = columns.iter().enumerate().map(field).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn options(options: &[(&str, &str)]) -> BTreeMap<String, String> {
    options.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn encode_and_decode(format: &str, given: &[(&str, &str)], batch: &RecordBatch) -> RecordBatch {
    let format = ruslo_formats::format(format, &options(given)).unwrap();
    let mut encoder = format.encoder(&batch.schema()).unwrap();
    let mut bytes = Vec::new();
    encoder.header(&mut bytes);
    encoder.encode(batch, &mut bytes).unwrap();
    let preamble = format.preamble(&bytes, true).unwrap().unwrap();
    let (table, all) = (batch.schema(), (0..batch.num_columns()).collect::<Vec<_>>());
    let config = DecoderConfig { header: preamble.header.as_deref(), ..DecoderConfig::new(&table, &all) };
    let mut decoder = format.decoder(&config).unwrap();
    let decoded = decoder.decode(&bytes[preamble.bytes..], true, usize::MAX).unwrap();
    assert_eq!(decoded.rows, batch.num_rows());
    decoder.flush().unwrap()
}

/// Rows as text, so that NaN equals NaN.
fn shown(batch: &RecordBatch) -> String {
    format!("{batch:?}")
}

#[test]
fn json_decodes_to_what_was_encoded() {
    let mut random = Random(7);
    for round in 0..200 {
        let batch = batch(&mut random, 1 + round % 40);
        let standard = if round % 2 == 0 { "SQL" } else { "ISO-8601" };
        let decoded = encode_and_decode("json", &[("json.timestamp-format.standard", standard)], &batch);
        assert_eq!(shown(&decoded), shown(&batch));
    }
}

#[test]
fn csv_decodes_to_what_was_encoded() {
    let mut random = Random(8);
    let dialects: [&[(&str, &str)]; 4] = [
        &[("csv.null-literal", "NA")],
        &[("csv.null-literal", "")],
        &[("csv.null-literal", "null"), ("csv.header", "true")],
        &[("csv.null-literal", "NULL"), ("csv.field-delimiter", "-"), ("csv.quote-character", "1")],
    ];
    for round in 0..200 {
        let batch = batch(&mut random, 1 + round % 40);
        let decoded = encode_and_decode("csv", dialects[round % 4], &batch);
        assert_eq!(shown(&decoded), shown(&batch));
    }
}

/// Some of `rows` values NULL, and how many parts each has.
fn shape(random: &mut Random, rows: usize) -> (Option<NullBuffer>, OffsetBuffer<i32>) {
    let valid: Vec<bool> = (0..rows).map(|_| random.below(4) > 0).collect();
    let lengths: Vec<_> = valid.iter().map(|valid| if *valid { random.below(4) as usize } else { 0 }).collect();
    (Some(NullBuffer::from(valid)), OffsetBuffer::from_lengths(lengths))
}

/// A column of any type, nested up to `depth` times.
fn nested(random: &mut Random, rows: usize, depth: u64) -> ArrayRef {
    let field = |name: &str, array: &ArrayRef| Arc::new(Field::new(name, array.data_type().clone(), true));
    match if depth == 0 { 3 } else { random.below(4) } {
        0 => {
            let (nulls, offsets) = shape(random, rows);
            let element = nested(random, *offsets.last().unwrap() as usize, depth - 1);
            Arc::new(ListArray::new(field("item", &element), offsets, element, nulls))
        }
        1 => {
            let (nulls, offsets) = shape(random, rows);
            let entries = *offsets.last().unwrap() as usize;
            let keys: ArrayRef = Arc::new(StringArray::from_iter_values((0..entries).map(|n| format!("{n}\"é"))));
            let values = nested(random, entries, depth - 1);
            let parts = vec![Arc::new(Field::new("key", DataType::Utf8, false)), field("value", &values)];
            let entries = StructArray::new(parts.into(), vec![keys, values], None);
            let entries_field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
            Arc::new(MapArray::new(entries_field, offsets, entries, nulls, false))
        }
        2 => {
            let nulls = NullBuffer::from((0..rows).map(|_| random.below(4) > 0).collect::<Vec<_>>());
            let parts = [nested(random, rows, depth - 1), nested(random, rows, 0)];
            let fields = vec![field("b", &parts[0]), field("a", &parts[1])];
            Arc::new(StructArray::new(fields.into(), parts.to_vec(), Some(nulls)))
        }
        _ => {
            let flat = batch(random, rows);
            flat.column(random.below(flat.num_columns() as u64) as usize).clone()
        }
    }
}

#[test]
fn nested_json_decodes_to_what_was_encoded() {
    let mut random = Random(11);
    for round in 0..300 {
        let column = nested(&mut random, 1 + round % 20, 3);
        let batch = RecordBatch::try_from_iter_with_nullable([("x", column, true)]).unwrap();
        let decoded = encode_and_decode("json", &[], &batch);
        decoded.column(0).to_data().validate_full().unwrap();
        let shown = |batch: &RecordBatch| {
            let options = arrow::util::display::FormatOptions::new().with_null("-");
            let formatter = arrow::util::display::ArrayFormatter::try_new(batch.column(0), &options);
            formatter.map(|f| (0..batch.num_rows()).map(|row| f.value(row).to_string()).collect::<Vec<_>>()).ok()
        };
        assert_eq!(shown(&decoded), shown(&batch));
    }
}

fn text_table() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, true), Field::new("bb", DataType::Utf8, true)]))
}

fn text_decoder() -> Box<dyn Decoder> {
    let format = ruslo_formats::format("json", &BTreeMap::new()).unwrap();
    format.decoder(&DecoderConfig::new(&text_table(), &[0, 1])).unwrap()
}

/// A JSON object, often damaged in one byte.
fn line(random: &mut Random) -> Vec<u8> {
    fn value(random: &mut Random, depth: u64) -> String {
        match random.below(9) {
            0 => "null".to_owned(),
            1 => "true".to_owned(),
            2 => format!("{}", random.integer()),
            3 => format!("{:e}", random.integer() as f64 / 64.0),
            4 if depth < 4 => format!("[{}, {}]", value(random, depth + 1), value(random, depth + 1)),
            5 if depth < 4 => format!("{{\"x\" :{}}}", value(random, depth + 1)),
            _ => serde_json::to_string(&random.text()).unwrap(),
        }
    }
    let names = ["a", "bb", "other", "a"];
    let spaces = ["", "", "", " ", "\t ", "  "];
    let mut fields = Vec::new();
    for _ in 0..random.below(4) {
        let (name, value) = (names[random.below(4) as usize], value(random, 0));
        let [a, b, c, d] = [0; 4].map(|_: u8| spaces[random.below(6) as usize]);
        fields.push(format!("{a}\"{name}\"{b}:{c}{value}{d}"));
    }
    let mut line = format!("{{{}}}", fields.join(",")).into_bytes();
    if random.below(2) == 0 {
        const BYTES: &[u8] = b"\"\\{}[]:, 019-+.eEtfnux\x7f\xc3\xa9\t";
        let at = random.below(line.len() as u64) as usize;
        line[at] = BYTES[random.below(BYTES.len() as u64) as usize];
    }
    line
}

#[test]
fn damaged_json_is_refused_exactly_where_another_parser_refuses_it() {
    let (mut random, mut decoder, mut refused) = (Random(9), text_decoder(), 0);
    for round in 0..100_000 {
        let mut line = line(&mut random);
        let expected = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&line);
        line.push(b'\n');
        let ours = decoder.decode(&line, true, 10);
        let text = String::from_utf8_lossy(&line);
        match (&ours, &expected) {
            (Ok(decoded), Ok(_)) => assert_eq!((decoded.rows, decoded.consumed), (1, line.len()), "{text}"),
            (Err(error), Err(_)) => assert_eq!((error.offset, error.length), (0, line.len()), "{text}"),
            // Text keeps a number that no double holds.
            (Ok(_), Err(error)) if error.to_string().starts_with("number out of range") => {}
            _ => panic!("round {round}: {text} ours {ours:?}, theirs {expected:?}"),
        }
        refused += usize::from(ours.is_err());
        let batch = decoder.flush().unwrap();
        if let (Ok(_), Ok(object)) = (&ours, &expected) {
            let column = batch.column(0).as_any().downcast_ref::<StringArray>().unwrap();
            if let Some(serde_json::Value::String(expected)) = object.get("a") {
                assert_eq!(column.value(0), expected, "{text}");
            }
        }
    }
    assert!((20_000..60_000).contains(&refused), "{refused} refused");
}

#[test]
fn no_bytes_whatever_make_a_decoder_panic_or_stand_still() {
    let mut random = Random(10);
    let csv = ruslo_formats::format("csv", &BTreeMap::new()).unwrap();
    for _ in 0..20_000 {
        const BYTES: &[u8] = b"{}[]\"\\,:\n\r 01a\xff\xc3\xa9-.eu";
        let input: Vec<u8> = (0..random.below(60)).map(|_| BYTES[random.below(BYTES.len() as u64) as usize]).collect();
        for mut decoder in [text_decoder(), csv.decoder(&DecoderConfig::new(&text_table(), &[1, 0])).unwrap()] {
            let mut at = 0;
            while at < input.len() {
                at += match decoder.decode(&input[at..], true, 3) {
                    Ok(decoded) => decoded.consumed,
                    Err(error) => error.offset + error.length,
                };
            }
            assert_eq!(at, input.len());
            decoder.flush().unwrap();
        }
    }
}
