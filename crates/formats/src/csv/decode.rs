//! Reads one line of CSV straight into columns.
//!
//! Delimiters and newlines are found 64 bytes at a time; a field that nobody asked for is only counted, and a quoted one
//! is checked to end. A quote within an unquoted field stands for itself.

use memchr::memchr2;

use crate::column::{Column, Values};
use crate::csv::Dialect;
use crate::csv::header::Fields;
use crate::decode_error::{Faulty, bad_record, misfit, syntax};
use crate::lines::{Records, Step};
use crate::moment::milliseconds;
use crate::number::short_integer;
use crate::scan::Stops;

/// The reader of CSV records.
#[derive(Debug)]
pub(crate) struct CsvRecords {
    dialect: Dialect,
    fields: Fields,
    stops: Stops,
    /// A quoted field with its doubled quotes made single.
    scratch: String,
}

/// A field: where its text stands, and what ends it.
struct Found {
    start: usize,
    end: usize,
    /// Where its delimiter or newline stands, or the end of input.
    stop: usize,
    quoted: bool,
    /// Whether quotes in it are doubled.
    doubled: bool,
}

impl CsvRecords {
    /// A reader of lines with these fields.
    pub(crate) fn new(dialect: Dialect, fields: Fields) -> Self {
        let stops = Stops::new([dialect.delimiter, b'\n']);
        Self { dialect, fields, stops, scratch: String::new() }
    }

    /// The field that starts at `at`.
    #[inline(always)]
    fn field(&mut self, block: &[u8], at: usize) -> Faulty<Found> {
        if block.get(at) == Some(&self.dialect.quote) {
            return self.quoted(block, at);
        }
        let stop = self.stops.next(block);
        let mut end = stop;
        if block.get(stop) != Some(&self.dialect.delimiter) && end > at && block.get(end - 1) == Some(&b'\r') {
            end -= 1;
        }
        Ok(Found { start: at, end, stop, quoted: false, doubled: false })
    }

    /// The field whose opening quote is at `at`.
    #[inline(never)]
    fn quoted(&mut self, block: &[u8], at: usize) -> Faulty<Found> {
        let quote = self.dialect.quote;
        let (mut from, mut doubled) = (at + 1, false);
        let end = loop {
            let found = block.get(from..).and_then(|rest| memchr2(quote, b'\n', rest)).map(|found| from + found);
            match found.and_then(|found| block.get(found..)) {
                Some([byte, next, ..]) if *byte == quote && *next == quote => {
                    doubled = true;
                    from = found.unwrap_or(from) + 2;
                }
                Some([byte, ..]) if *byte == quote => break found.unwrap_or(from),
                _ => {
                    return syntax(
                        at,
                        "a quoted field does not end on its line; a record is one line, so write no newline in it",
                    );
                }
            }
        };
        let mut stop = end + 1;
        if block.get(stop) == Some(&b'\r') && matches!(block.get(stop + 1), Some(b'\n') | None) {
            stop += 1;
        }
        match block.get(stop) {
            None | Some(b'\n') => {}
            Some(byte) if *byte == self.dialect.delimiter => {}
            Some(_) => return syntax(end + 1, "text follows the closing quote of a field"),
        }
        self.stops.seek(block, stop + 1);
        Ok(Found { start: at + 1, end, stop, quoted: true, doubled })
    }

    /// Stores a field into column `index`.
    #[inline(always)]
    fn store(&mut self, columns: &mut [Column], index: usize, block: &[u8], found: &Found) -> Faulty<()> {
        let Some(column) = columns.get_mut(index) else { return syntax(found.start, "a column is missing") };
        if found.doubled {
            return self.store_doubled(column, index, block, found);
        }
        let length = found.end - found.start;
        let null = match &self.dialect.null_literal {
            _ if found.quoted => false,
            None => length == 0 && !column.is_text(),
            Some(literal) => {
                length == literal.len() && block.get(found.start..found.end) == Some(literal.as_bytes())
                    || (length == 0 && !column.is_text())
            }
        };
        if null {
            column.put_null();
            return Ok(());
        }
        if quick(column, block, found).is_some() {
            return Ok(());
        }
        column.put(block, found.start, found.end).map_err(|reason| misfit(index, found.start..found.end, reason))
    }

    #[cold]
    fn store_doubled(&mut self, column: &mut Column, index: usize, block: &[u8], found: &Found) -> Faulty<()> {
        let quote = char::from(self.dialect.quote);
        let text =
            block.get(found.start..found.end).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
        self.scratch.clear();
        self.scratch.push_str(&text.replace(&format!("{quote}{quote}"), quote.encode_utf8(&mut [0; 4])));
        column.put_copied(&self.scratch).map_err(|reason| misfit(index, found.start..found.end, reason))
    }

    /// The number of fields is wrong.
    #[cold]
    fn wrong_count(&self, count: usize) -> Faulty<Step> {
        let expected = self.fields.len();
        let fields = if count == 1 { "field" } else { "fields" };
        bad_record(None, format!("the line has {count} {fields} where {expected} should stand"))
    }

    /// How many fields the rest of a line has, from the one that starts at `at`.
    #[cold]
    fn count_rest(&mut self, block: &[u8], mut at: usize) -> Faulty<usize> {
        let mut count = 1;
        loop {
            let stop = self.field(block, at)?.stop;
            if block.get(stop) != Some(&self.dialect.delimiter) {
                return Ok(count);
            }
            count += 1;
            at = stop + 1;
        }
    }
}

/// Stores a value of a common form; `None`, with nothing stored, for any other.
#[inline(always)]
fn quick(column: &mut Column, block: &[u8], found: &Found) -> Option<()> {
    let length = found.end - found.start;
    match &mut column.values {
        Values::Text(text) => {
            text.put_span(found.start, found.end);
            return Some(());
        }
        Values::Int64(values) => values.push(short_integer(block, found.start, length)?),
        Values::Int32(values) => values.push(short_integer(block, found.start, length)? as i32),
        Values::Timestamp { values, per_second: 1000, minute, .. } if length == 23 => {
            values.push(milliseconds(block, found.start, *block.get(found.end)?, minute)?);
        }
        _ => return None,
    }
    column.validity.append_non_null();
    Some(())
}

impl Records for CsvRecords {
    fn begin(&mut self, block: &[u8]) {
        self.stops.seek(block, 0);
    }

    #[inline]
    fn read(&mut self, columns: &mut [Column], block: &[u8], at: usize, _row: usize) -> Faulty<Step> {
        let mut start = at;
        for index in 0..self.fields.len() {
            let found = self.field(block, start)?;
            let more = block.get(found.stop) == Some(&self.dialect.delimiter);
            if index == 0 && !more && !found.quoted && found.end == found.start {
                return Ok(Step::Blank(block.len().min(found.stop + 1)));
            }
            if let Some(Some(column)) = self.fields.get(index) {
                self.store(columns, *column, block, &found)?;
            }
            start = found.stop + 1;
            match (more, index + 1 == self.fields.len()) {
                (true, false) => {}
                (false, true) => return Ok(Step::Row(start.min(block.len()))),
                (false, false) => return self.wrong_count(index + 1),
                (true, true) => {
                    let rest = self.count_rest(block, start)?;
                    return self.wrong_count(index + 1 + rest);
                }
            }
        }
        bad_record(None, "the table has no columns to read".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::RecordBatch;
    use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

    use crate::{Decoder, DecoderConfig};

    fn table() -> SchemaRef {
        let field = |name, data_type| Field::new(name, data_type, true);
        Arc::new(Schema::new(vec![
            field("n", DataType::Int64),
            field("s", DataType::Utf8),
            field("t", DataType::Timestamp(TimeUnit::Millisecond, None)),
            field("d", DataType::Float64),
        ]))
    }

    fn decoder(options: &[(&str, &str)], projection: &[usize], header: Option<&[u8]>) -> Box<dyn Decoder> {
        let options: BTreeMap<_, _> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let table = table();
        let config = DecoderConfig { header, ..DecoderConfig::new(&table, projection) };
        crate::format("csv", &options).unwrap().decoder(&config).unwrap()
    }

    fn rows(batch: &RecordBatch) -> Vec<String> {
        let options = arrow::util::display::FormatOptions::new().with_null("-");
        let columns = batch.columns().iter();
        let columns: Vec<_> =
            columns.map(|c| arrow::util::display::ArrayFormatter::try_new(c, &options).unwrap()).collect();
        let row = |row| columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|");
        (0..batch.num_rows()).map(row).collect()
    }

    fn read(options: &[(&str, &str)], input: &str) -> Vec<String> {
        let mut decoder = decoder(options, &[0, 1, 2, 3], None);
        let decoded = decoder.decode(input.as_bytes(), true, 100).unwrap();
        assert_eq!(decoded.consumed, input.len());
        rows(&decoder.flush().unwrap())
    }

    #[test]
    fn fields_are_read_by_position() {
        let input = "1,one,2013-01-01 05:00:00.123,1.5\r\n\n-20 , two ,2013-01-01T05:00:00Z,1e3\n123456789012,,,";
        let expected =
            ["1|one|2013-01-01T05:00:00.123|1.5", "-20| two |2013-01-01T05:00:00|1000.0", "123456789012||-|-"];
        assert_eq!(read(&[], input), expected);
    }

    #[test]
    fn quoted_fields_may_hold_delimiters_and_quotes() {
        let input = "\"1\",\"a,b\",\"2013-01-01 05:00:00.123\",\"2\"\r\n2,\"say \"\"x\"\", y\",,\"3\"\n3,a\"b\",,4\n4,\"\",,\"\"\"5\"\"\"";
        let mut decoder = decoder(&[], &[0, 1], None);
        decoder.decode(input.as_bytes(), true, 100).unwrap();
        assert_eq!(rows(&decoder.flush().unwrap()), ["1|a,b", "2|say \"x\", y", "3|a\"b\"", "4|"]);
    }

    #[test]
    fn the_null_literal_is_null_unless_quoted() {
        let na = [("csv.null-literal", "NA")];
        assert_eq!(read(&na, "NA,NA,NA,NA\n1,\"NA\",,\n2,NAN,,1"), ["-|-|-|-", "1|NA|-|-", "2|NAN|-|1.0"]);
        assert_eq!(read(&[("csv.null-literal", "")], "1,,,\n2,\"\",,"), ["1|-|-|-", "2||-|-"]);
        assert_eq!(read(&[], "1,,,"), ["1||-|-"]);
    }

    #[test]
    fn delimiter_and_quote_are_chosen() {
        let options = [("csv.field-delimiter", "\\t"), ("csv.quote-character", "'")];
        assert_eq!(read(&options, "1\t'a\tb''c'\t\t2"), ["1|a\tb'c|-|2.0"]);
    }

    #[test]
    fn with_a_header_columns_are_matched_by_name() {
        let format = crate::format("csv", &BTreeMap::from([("csv.header".to_owned(), "true".to_owned())])).unwrap();
        let file = b"\xef\xbb\xbfs,x,n\r\none,9,1\r\n";
        assert_eq!(format.preamble(&file[..2], false), Ok(None));
        assert_eq!(format.preamble(&file[..7], false), Ok(None));
        let preamble = format.preamble(&file[..14], false).unwrap().unwrap();
        assert_eq!((preamble.bytes, preamble.header.as_deref()), (10, Some(&b"s,x,n"[..])));
        let mut decoder = decoder(&[("csv.header", "true")], &[0, 1], preamble.header.as_deref());
        decoder.decode(&file[preamble.bytes..], true, 100).unwrap();
        assert_eq!(rows(&decoder.flush().unwrap()), ["1|one"]);
        assert!(format.preamble(b"", true).unwrap_err().to_string().contains("the file is empty"));
    }

    #[test]
    fn bad_lines_are_refused_with_their_place() {
        let bad = [
            ("1,a", None, "the line has 2 fields where 4 should stand"),
            ("1", None, "the line has 1 field where 4 should stand"),
            ("1,a,,2,3,4", None, "the line has 6 fields where 4 should stand"),
            ("x1,a,,2", Some("n"), "'x1' is not a BIGINT"),
            ("1.5,a,,2", Some("n"), "'1.5' is not a BIGINT"),
            ("9223372036854775808,a,,2", Some("n"), "'9223372036854775808' does not fit in BIGINT"),
            ("1,a,,2x", Some("d"), "'2x' is not a DOUBLE"),
            (
                "1,\"a,,2",
                None,
                "a quoted field does not end on its line; a record is one line, so write no newline in it at '\"a,,2'",
            ),
            ("1,\"a\"b,,2", None, "text follows the closing quote of a field at 'b,,2'"),
        ];
        for (line, column, sentence) in bad {
            let input = format!("7,b,,1\n{line}\n8,c,,2\n");
            let mut decoder = decoder(&[], &[3, 0, 1], None);
            let error = decoder.decode(input.as_bytes(), true, 100).unwrap_err();
            assert_eq!((error.column.as_deref(), error.message.as_str()), (column, sentence));
            assert_eq!((error.offset, error.length, error.rows), (7, line.len() + 1, 1), "{line}");
            decoder.decode(&input.as_bytes()[error.offset + error.length..], true, 100).unwrap();
            assert_eq!(rows(&decoder.flush().unwrap()), ["1.0|7|b", "2.0|8|c"], "{line}");
        }
    }

    #[test]
    fn a_bad_timestamp_shows_how_to_write_one() {
        let mut decoder = decoder(&[], &[2], None);
        let error = decoder.decode(b"1,a,01/02/2013,2\n", true, 100).unwrap_err();
        assert!(error.message.starts_with("'01/02/2013' is not a TIMESTAMP(3); it should look like"));
    }
}
