//! Writes JSON lines as Flink does: every field, NULL as `null`, dates and times as strings, NaN and infinities as
//! strings, the shortest digits that read back as the same float, BYTES in base64.

use std::ops::Range;

use arrow::array::RecordBatch;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::SchemaRef;
use ruslo_core::error::Result;

use crate::Encoder;
use crate::moment::TimestampStyle;
use crate::scan::string_stop;
use crate::writer::{Nested, Value, Writer, Written, check};

/// The writer of JSON lines.
#[derive(Debug)]
pub(crate) struct JsonEncoder {
    schema: SchemaRef,
    timestamps: TimestampStyle,
    /// What stands before each value: `{"a":`, then `,"b":`.
    names: Vec<Vec<u8>>,
}

impl JsonEncoder {
    pub(crate) fn new(schema: &SchemaRef, timestamps: TimestampStyle, format: &str) -> Result<Self> {
        check(schema, format)?;
        let name = |(index, field): (usize, &std::sync::Arc<arrow::datatypes::Field>)| {
            let mut name = vec![if index == 0 { b'{' } else { b',' }];
            write_string(field.name(), &mut name);
            name.push(b':');
            name
        };
        let names = schema.fields().iter().enumerate().map(name).collect();
        Ok(Self { schema: schema.clone(), timestamps, names })
    }

    /// The columns of a batch, which must have the schema of the rows.
    pub(crate) fn writers<'a>(&self, batch: &'a RecordBatch) -> Result<Vec<Writer<'a>>> {
        Writer::all(batch, &self.schema)
    }

    /// Appends the object of a row.
    #[inline]
    pub(crate) fn write_row(&self, writers: &[Writer<'_>], row: usize, out: &mut Vec<u8>) {
        for (name, writer) in self.names.iter().zip(writers) {
            out.extend_from_slice(name);
            write_value(writer, row, self.timestamps, out);
        }
        out.extend_from_slice(if writers.is_empty() { b"{}" } else { b"}" });
    }
}

impl Encoder for JsonEncoder {
    fn header(&self, _out: &mut Vec<u8>) {}

    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let writers = self.writers(batch)?;
        for row in 0..batch.num_rows() {
            self.write_row(&writers, row, out);
            out.push(b'\n');
        }
        Ok(())
    }
}

#[inline]
fn write_value(writer: &Writer<'_>, row: usize, timestamps: TimestampStyle, out: &mut Vec<u8>) {
    let start = out.len();
    match writer.value(row, timestamps, out) {
        Value::Scalar(Written::Plain) => {}
        Value::Scalar(Written::Null) => out.extend_from_slice(b"null"),
        Value::Scalar(Written::Text(text)) => write_string(text, out),
        Value::Scalar(Written::Word) => {
            out.insert(start, b'"');
            out.push(b'"');
        }
        Value::Nested(nested) => write_nested(nested, row, timestamps, out),
    }
}

/// Writes an array, or the object of a map or a row.
fn write_nested(nested: &Nested<'_>, row: usize, timestamps: TimestampStyle, out: &mut Vec<u8>) {
    match nested {
        Nested::List(offsets, element) => {
            write_parts(parts(offsets, row), *b"[]", out, |part, out| write_value(element, part, timestamps, out));
        }
        Nested::Map(offsets, key, value) => {
            write_parts(parts(offsets, row), *b"{}", out, |part, out| {
                write_value(key, part, timestamps, out);
                out.push(b':');
                write_value(value, part, timestamps, out);
            });
        }
        Nested::Row(fields) => {
            write_parts(fields.iter(), *b"{}", out, |(name, field), out| {
                write_string(name, out);
                out.push(b':');
                write_value(field, row, timestamps, out);
            });
        }
    }
}

/// Where the parts of a row's value stand.
fn parts(offsets: &OffsetBuffer<i32>, row: usize) -> Range<usize> {
    let offset = |at: usize| offsets.get(at).map_or(0, |offset| *offset as usize);
    offset(row)..offset(row + 1)
}

/// Writes parts with commas between, in brackets.
fn write_parts<T>(
    parts: impl Iterator<Item = T>,
    [open, close]: [u8; 2],
    out: &mut Vec<u8>,
    write: impl Fn(T, &mut Vec<u8>),
) {
    out.push(open);
    for (index, part) in parts.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(part, out);
    }
    out.push(close);
}

/// Appends a string in quotes, escaped where it must be.
fn write_string(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.push(b'"');
    let mut from = 0;
    loop {
        let stop = string_stop(bytes, from);
        out.extend_from_slice(bytes.get(from..stop).unwrap_or_default());
        let Some(byte) = bytes.get(stop) else { break };
        write_escape(*byte, out);
        from = stop + 1;
    }
    out.push(b'"');
}

fn write_escape(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0x8 => out.extend_from_slice(b"\\b"),
        0xc => out.extend_from_slice(b"\\f"),
        _ => {
            let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0') as u8;
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Decimal128Array, Float64Array, StringArray, TimestampMillisecondArray};

    use super::*;

    fn written(options: &[(&str, &str)], columns: Vec<(&str, ArrayRef)>) -> String {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let options: BTreeMap<_, _> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut encoder = crate::format("json", &options).unwrap().encoder(&batch.schema()).unwrap();
        let mut out = Vec::new();
        encoder.header(&mut out);
        encoder.encode(&batch, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rows_are_objects_with_every_field() {
        let out = written(
            &[],
            vec![
                ("b", Arc::new(BooleanArray::from(vec![Some(true), None]))),
                ("d", Arc::new(Float64Array::from(vec![0.1, f64::NAN]))),
                ("s \"x\"", Arc::new(StringArray::from(vec!["a\"\\\n\u{1}\u{1f}é", ""]))),
            ],
        );
        let first = "{\"b\":true,\"d\":0.1,\"s \\\"x\\\"\":\"a\\\"\\\\\\n\\u0001\\u001fé\"}";
        assert_eq!(out, format!("{first}\n{{\"b\":null,\"d\":\"NaN\",\"s \\\"x\\\"\":\"\"}}\n"));
    }

    #[test]
    fn times_follow_the_standard_that_was_chosen() {
        let local = || Arc::new(TimestampMillisecondArray::from(vec![1_357_016_400_123]));
        let utc = || Arc::new(TimestampMillisecondArray::from(vec![1_357_016_400_000]).with_timezone("UTC"));
        let sql = written(&[], vec![("t", local()), ("z", utc())]);
        assert_eq!(sql, "{\"t\":\"2013-01-01 05:00:00.123\",\"z\":\"2013-01-01 05:00:00Z\"}\n");
        let iso = written(&[("json.timestamp-format.standard", "ISO-8601")], vec![("t", local()), ("z", utc())]);
        assert_eq!(iso, "{\"t\":\"2013-01-01T05:00:00.123\",\"z\":\"2013-01-01T05:00:00Z\"}\n");
    }

    #[test]
    fn decimals_are_plain_numbers() {
        let decimals = Decimal128Array::from(vec![1234, -5]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(written(&[], vec![("d", Arc::new(decimals))]), "{\"d\":12.34}\n{\"d\":-0.05}\n");
    }

    #[test]
    fn a_batch_of_another_schema_is_our_fault() {
        let batch = |column: ArrayRef| RecordBatch::try_from_iter([("a", column)]).unwrap();
        let booleans = batch(Arc::new(BooleanArray::from(vec![true])));
        let mut encoder = JsonEncoder::new(&booleans.schema(), TimestampStyle::Sql, "json").unwrap();
        let texts = batch(Arc::new(StringArray::from(vec!["x"])));
        let error = encoder.encode(&texts, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ruslo_core::error::ErrorKind::Internal);
    }
}
