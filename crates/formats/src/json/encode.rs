//! Writes JSON lines as Flink does: every field, NULL as `null`, dates and times as strings, NaN and infinities as
//! strings, the shortest digits that read back as the same float.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use ruslo_core::error::Result;

use crate::Encoder;
use crate::moment::TimestampStyle;
use crate::scan::string_stop;
use crate::writer::{Writer, Written, check};

/// The writer of JSON lines.
#[derive(Debug)]
pub(crate) struct JsonEncoder {
    schema: SchemaRef,
    timestamps: TimestampStyle,
    /// What stands before each value: `{"a":`, then `,"b":`.
    names: Vec<Vec<u8>>,
}

impl JsonEncoder {
    pub(crate) fn new(schema: &SchemaRef, timestamps: TimestampStyle) -> Result<Self> {
        check(schema, "json")?;
        let name = |(index, field): (usize, &std::sync::Arc<arrow::datatypes::Field>)| {
            let mut name = vec![if index == 0 { b'{' } else { b',' }];
            write_string(field.name(), &mut name);
            name.push(b':');
            name
        };
        let names = schema.fields().iter().enumerate().map(name).collect();
        Ok(Self { schema: schema.clone(), timestamps, names })
    }
}

impl Encoder for JsonEncoder {
    fn header(&self, _out: &mut Vec<u8>) {}

    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let writers = Writer::all(batch, &self.schema)?;
        let end: &[u8] = if writers.is_empty() { b"{}\n" } else { b"}\n" };
        for row in 0..batch.num_rows() {
            for (name, writer) in self.names.iter().zip(&writers) {
                out.extend_from_slice(name);
                write_value(writer, row, self.timestamps, out);
            }
            out.extend_from_slice(end);
        }
        Ok(())
    }
}

#[inline]
fn write_value(writer: &Writer<'_>, row: usize, timestamps: TimestampStyle, out: &mut Vec<u8>) {
    let start = out.len();
    match writer.write(row, timestamps, out) {
        Written::Plain => {}
        Written::Null => out.extend_from_slice(b"null"),
        Written::Text(text) => write_string(text, out),
        Written::Word => {
            out.insert(start, b'"');
            out.push(b'"');
        }
    }
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
