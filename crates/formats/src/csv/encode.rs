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
    /// Whether a number, a date or a time may hold the delimiter or the quote character.
    strange: bool,
}

impl CsvEncoder {
    pub(crate) fn new(schema: &SchemaRef, dialect: Dialect, header: bool) -> Result<Self> {
        check(schema, "csv")?;
        let in_words = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.:/= ".contains(&byte);
        let strange = in_words(dialect.delimiter) || in_words(dialect.quote);
        Ok(Self { schema: schema.clone(), dialect, header, strange })
    }

    #[inline]
    fn write_value(&self, writer: &Writer<'_>, row: usize, out: &mut Vec<u8>) {
        let start = out.len();
        match writer.write(row, TimestampStyle::Sql, out) {
            Written::Null => out.extend_from_slice(self.dialect.null_literal.as_deref().unwrap_or_default().as_bytes()),
            Written::Text(text) => self.write_text(text.as_bytes(), out),
            Written::Plain | Written::Word if self.word_needs_quotes(out.get(start..).unwrap_or_default()) => {
                let text = out.split_off(start);
                self.write_text(&text, out);
            }
            Written::Plain | Written::Word => {}
        }
    }

    fn write_text(&self, text: &[u8], out: &mut Vec<u8>) {
        let quote = self.dialect.quote;
        if !self.needs_quotes(text) {
            return out.extend_from_slice(text);
        }
        out.push(quote);
        for part in text.split_inclusive(|byte| *byte == quote) {
            out.extend_from_slice(part);
            if part.last() == Some(&quote) {
                out.push(quote);
            }
        }
        out.push(quote);
    }

    #[inline]
    fn needs_quotes(&self, text: &[u8]) -> bool {
        text.is_empty() || self.is_special(text) || self.is_null_literal(text)
    }

    /// [`Self::needs_quotes`] of what is no string; empty are only BYTES of no length.
    #[inline]
    fn word_needs_quotes(&self, text: &[u8]) -> bool {
        text.is_empty() || self.is_null_literal(text) || (self.strange && self.is_special(text))
    }

    /// Whether a text holds what only quotes can enclose; without a branch for each byte.
    #[inline]
    fn is_special(&self, text: &[u8]) -> bool {
        let Dialect { delimiter, quote, .. } = self.dialect;
        let special = |byte: u8| (byte == delimiter) | (byte == quote) | (byte == b'\n') | (byte == b'\r');
        text.iter().fold(false, |found, byte| found | special(*byte))
    }

    #[inline]
    fn is_null_literal(&self, text: &[u8]) -> bool {
        self.dialect.null_literal.as_ref().is_some_and(|null| null.as_bytes() == text)
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
            self.write_text(field.name().as_bytes(), out);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int32Array, RecordBatch, StringArray, TimestampMillisecondArray};

    fn written(options: &[(&str, &str)], columns: Vec<(&str, arrow::array::ArrayRef)>) -> String {
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let options: BTreeMap<_, _> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let mut encoder = crate::format("csv", &options).unwrap().encoder(&batch.schema()).unwrap();
        let mut out = Vec::new();
        encoder.header(&mut out);
        encoder.encode(&batch, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_are_quoted_when_they_must_be() {
        let texts =
            StringArray::from(vec![Some("plain"), Some("a,b"), Some("say \"x\""), Some(""), None, Some("two\nlines")]);
        let out = written(&[("csv.header", "true")], vec![("a", Arc::new(texts.clone())), ("b,c", Arc::new(texts))]);
        let expected = "a,\"b,c\"\nplain,plain\n\"a,b\",\"a,b\"\n\"say \"\"x\"\"\",\"say \"\"x\"\"\"\n\"\",\"\"\n,\n\"two\nlines\",\"two\nlines\"\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn null_is_the_null_literal_and_its_text_is_quoted() {
        let numbers = Arc::new(Int32Array::from(vec![None, Some(-1)]));
        let texts = Arc::new(StringArray::from(vec![None, Some("NA")]));
        assert_eq!(written(&[("csv.null-literal", "NA")], vec![("n", numbers), ("s", texts)]), "NA,NA\n-1,\"NA\"\n");
    }

    #[test]
    fn one_column_of_nothing_is_no_blank_line() {
        assert_eq!(written(&[], vec![("s", Arc::new(StringArray::from(vec![None, Some("")])))]), "\"\"\n\"\"\n");
    }

    #[test]
    fn numbers_and_times_are_written_as_flink_does() {
        let times = Arc::new(TimestampMillisecondArray::from(vec![1_357_016_400_000, 1_357_016_400_120]));
        let doubles = Arc::new(Float64Array::from(vec![1.0, f64::NEG_INFINITY]));
        let out = written(&[], vec![("t", times), ("d", doubles)]);
        assert_eq!(out, "2013-01-01 05:00:00,1.0\n2013-01-01 05:00:00.12,-Infinity\n");
    }
}
