//! Writes CSV: a field is quoted when it must be, NULL is the null literal.
//!
//! A string that would read back as NULL is quoted. Without `csv.null-literal` NULL is written as nothing and an empty
//! string as two quotes; a reader of ours then takes a NULL string for an empty one, as Flink does.
//! A string with a newline is written in quotes, as any CSV reader knows it, though ours refuses such a file.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use ruslo_core::error::Result;

use crate::Encoder;
use crate::csv::Dialect;
use crate::moment::TimestampStyle;
use crate::writer::{Writer, Written, check};

/// The writer of CSV.
#[derive(Debug)]
pub(crate) struct CsvEncoder {
    schema: SchemaRef,
    dialect: Dialect,
    header: bool,
}

impl CsvEncoder {
    pub(crate) fn new(schema: &SchemaRef, dialect: Dialect, header: bool) -> Result<Self> {
        check(schema, "csv")?;
        Ok(Self { schema: schema.clone(), dialect, header })
    }

    #[inline]
    fn write_value(&self, writer: &Writer<'_>, row: usize, out: &mut Vec<u8>) {
        let start = out.len();
        match writer.write(row, TimestampStyle::Sql, out) {
            Written::Null => out.extend_from_slice(self.dialect.null_literal.as_deref().unwrap_or_default().as_bytes()),
            Written::Text(text) => self.write_text(text, out),
            // What is no string holds neither quotes nor newlines, but the dialect may be strange.
            Written::Plain | Written::Word if self.needs_quotes(out.get(start..).unwrap_or_default()) => {
                out.insert(start, self.dialect.quote);
                out.push(self.dialect.quote);
            }
            Written::Plain | Written::Word => {}
        }
    }

    fn write_text(&self, text: &str, out: &mut Vec<u8>) {
        let quote = self.dialect.quote;
        if !self.needs_quotes(text.as_bytes()) {
            return out.extend_from_slice(text.as_bytes());
        }
        out.push(quote);
        for part in text.as_bytes().split_inclusive(|byte| *byte == quote) {
            out.extend_from_slice(part);
            if part.last() == Some(&quote) {
                out.push(quote);
            }
        }
        out.push(quote);
    }

    #[inline]
    fn needs_quotes(&self, text: &[u8]) -> bool {
        let Dialect { delimiter, quote, null_literal } = &self.dialect;
        let special = |byte: &u8| *byte == *delimiter || *byte == *quote || *byte == b'\n' || *byte == b'\r';
        text.is_empty() || text.iter().any(special) || null_literal.as_ref().is_some_and(|null| null.as_bytes() == text)
    }
}

impl Encoder for CsvEncoder {
    fn header(&self, out: &mut Vec<u8>) {
        if !self.header {
            return;
        }
        for (index, field) in self.schema.fields().iter().enumerate() {
            if index > 0 {
                out.push(self.dialect.delimiter);
            }
            self.write_text(field.name(), out);
        }
        out.push(b'\n');
    }

    fn encode(&mut self, batch: &RecordBatch, out: &mut Vec<u8>) -> Result<()> {
        let writers = Writer::all(batch, &self.schema)?;
        for row in 0..batch.num_rows() {
            let start = out.len();
            for (index, writer) in writers.iter().enumerate() {
                if index > 0 {
                    out.push(self.dialect.delimiter);
                }
                self.write_value(writer, row, out);
            }
            if out.len() == start {
                // One column, and it is NULL: a blank line would be skipped.
                out.extend_from_slice(&[self.dialect.quote, self.dialect.quote]);
            }
            out.push(b'\n');
        }
        Ok(())
    }
}
