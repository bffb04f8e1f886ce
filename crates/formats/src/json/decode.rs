//! Reads one JSON object a line straight into columns.
//!
//! The common values (integers, plain strings, timestamps in the usual form) are read where they stand, in one pass;
//! everything else goes through [`syntax::token`], which checks the grammar and hands the text on.

use crate::column::{Column, Misfit, Values};
use crate::decode_error::{Faulty, bad_record, misfit, syntax as bad_syntax};
use crate::json::gap::{Layout, Target};
use crate::json::nested::{self, Rules};
use crate::json::syntax::{self, Kind, Token};
use crate::lines::{Records, Step};
use crate::moment::milliseconds;
use crate::number::json_integer;
use crate::scan::string_stop;

/// The reader of JSON records.
#[derive(Debug)]
pub(crate) struct JsonRecords {
    layout: Layout,
    fail_on_missing_field: bool,
    /// A text that has to be rewritten before a column takes it.
    scratch: String,
}

impl JsonRecords {
    /// A reader for columns of these names.
    pub(crate) fn new(names: Vec<String>, fail_on_missing_field: bool) -> Self {
        Self { layout: Layout::new(names), fail_on_missing_field, scratch: String::new() }
    }

    /// Appends NULL to the columns that the record did not mention.
    #[cold]
    fn fill(&self, columns: &mut [Column], row: usize) -> Faulty<()> {
        for (index, column) in columns.iter_mut().enumerate().filter(|(_, column)| column.len() == row) {
            if self.fail_on_missing_field {
                let sentence =
                    format!("the record has no field '{}', and 'json.fail-on-missing-field' is true", column.name);
                return bad_record(Some(index), sentence);
            }
            column.put_null();
        }
        Ok(())
    }

    /// Reads the value at `at` into column `index`.
    #[inline(always)]
    fn value(&mut self, columns: &mut [Column], index: usize, block: &[u8], at: usize) -> Faulty<usize> {
        let Some(column) = columns.get_mut(index) else { return bad_syntax(at, "a column is missing") };
        match quick(column, block, at) {
            Some(end) => Ok(end),
            None => self.slow(column, index, block, at),
        }
    }

    /// Reads any value into a column.
    #[inline(never)]
    fn slow(&mut self, column: &mut Column, index: usize, block: &[u8], at: usize) -> Faulty<usize> {
        let token = syntax::token(block, at).map_err(|mut fault| {
            fault.column = Some(index);
            fault
        })?;
        if let (Kind::Nested, Values::Nested(_)) = (token.kind, &column.values) {
            let before = column.len();
            let rules = Rules { fail_on_missing_field: self.fail_on_missing_field };
            nested::store(column, block, token.start, rules).map_err(|inside| {
                column.truncate(before);
                inside.fault(index)
            })?;
            return Ok(token.next);
        }
        self.store(column, block, token).map_err(|reason| misfit(index, token.start..token.end, reason))?;
        Ok(token.next)
    }

    fn store(&mut self, column: &mut Column, block: &[u8], token: Token) -> Result<(), Misfit> {
        scalar(column, block, token, &mut self.scratch)
    }
}

/// Stores a value, unless it is nested and the column is, too. `scratch` is for a text that has to be rewritten.
pub(crate) fn scalar(column: &mut Column, block: &[u8], token: Token, scratch: &mut String) -> Result<(), Misfit> {
    match token.kind {
        Kind::Null => {
            column.put_null();
            return Ok(());
        }
        Kind::Text { escaped: false } | Kind::Plain => return column.put(block, token.start, token.end),
        _ => {}
    }
    scratch.clear();
    let text = block.get(token.start..token.end).and_then(|text| std::str::from_utf8(text).ok()).ok_or(Misfit::NotA)?;
    match token.kind {
        Kind::Nested if column.is_text() => syntax::compact(text, scratch),
        Kind::Nested => return Err(Misfit::NotA),
        _ => syntax::unescape(text, scratch).ok_or(Misfit::LoneSurrogate)?,
    }
    column.put_copied(scratch)
}

/// Reads a value of the common form into a column; `None`, with nothing stored, if it is of another.
#[inline(always)]
fn quick(column: &mut Column, block: &[u8], at: usize) -> Option<usize> {
    let end = match &mut column.values {
        Values::Int64(values) => {
            let (value, end) = json_integer(block, at)?;
            values.push(value);
            end
        }
        Values::Int32(values) => {
            let (value, end) = json_integer(block, at)?;
            values.push(value.try_into().ok()?);
            end
        }
        Values::Timestamp { values, per_second, minute, .. } => {
            if *block.get(at)? != b'"' {
                return None;
            }
            let milliseconds = milliseconds(block, at + 1, b'"', minute)?;
            let value = match *per_second {
                1_000 => milliseconds,
                per_second if per_second > 1_000 => milliseconds.checked_mul(per_second / 1_000)?,
                _ => milliseconds.div_euclid(1_000),
            };
            values.push(value);
            at + 25
        }
        Values::Text(text) => {
            let stop = if *block.get(at)? == b'"' { string_stop(block, at + 1) } else { return None };
            if *block.get(stop)? != b'"' {
                return None;
            }
            text.put_span(at + 1, stop);
            return Some(stop + 1);
        }
        _ => return None,
    };
    column.validity.append_non_null();
    Some(end)
}

impl Records for JsonRecords {
    fn begin(&mut self, _block: &[u8]) {}

    #[inline]
    fn read(&mut self, columns: &mut [Column], block: &[u8], at: usize, row: usize) -> Faulty<Step> {
        let (mut at, mut filled) = (at, 0);
        for index in 0.. {
            let (target, next) = self.layout.next(index, block, at)?;
            at = match target {
                Target::Column(column) => {
                    filled += 1;
                    self.value(columns, column, block, next)?
                }
                Target::Skip => syntax::skip(block, next)?,
                Target::Again(column) => {
                    let before = columns.get_mut(column).map_or(row, |column| {
                        let before = column.len();
                        column.truncate(row);
                        before
                    });
                    filled += usize::from(before == row);
                    self.value(columns, column, block, next)?
                }
                Target::End => {
                    at = next;
                    break;
                }
                Target::Blank => return Ok(Step::Blank(next)),
            };
        }
        if filled < columns.len() {
            self.fill(columns, row)?;
        }
        Ok(Step::Row(at))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::RecordBatch;
    use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

    use crate::{DecodeError, Decoded, Decoder, DecoderConfig};

    fn decoder_of(types: &[DataType], options: &[(&str, &str)]) -> Box<dyn Decoder> {
        let names = ["a", "b", "c", "d"];
        let fields: Vec<_> = names.iter().zip(types).map(|(name, t)| Field::new(*name, t.clone(), true)).collect();
        let table: SchemaRef = Arc::new(Schema::new(fields));
        let projection: Vec<usize> = (0..types.len()).collect();
        let options: BTreeMap<_, _> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let format = crate::format("json", &options).unwrap();
        format.decoder(&DecoderConfig::new(&table, &projection)).unwrap()
    }

    /// The only column's values, `-` for NULL.
    fn column(data_type: DataType, input: &str) -> Result<Vec<String>, DecodeError> {
        let mut decoder = decoder_of(&[data_type], &[]);
        decoder.decode(input.as_bytes(), true, usize::MAX)?;
        Ok(values(&decoder.flush().unwrap(), 0))
    }

    fn values(batch: &RecordBatch, column: usize) -> Vec<String> {
        let options = arrow::util::display::FormatOptions::new().with_null("-");
        // The formatter has no table of zones, so what is UTC is shown as its number.
        let array = match batch.column(column).data_type() {
            DataType::Timestamp(_, Some(_)) => &arrow::compute::cast(batch.column(column), &DataType::Int64).unwrap(),
            _ => batch.column(column),
        };
        let formatter = arrow::util::display::ArrayFormatter::try_new(array, &options).unwrap();
        (0..batch.num_rows()).map(|row| formatter.value(row).to_string()).collect()
    }

    /// The sentence about `{"a":<value>}` in a column of a type.
    fn refusal(data_type: DataType, value: &str) -> String {
        let error = column(data_type, &format!("{{\"a\":{value}}}\n")).unwrap_err();
        assert_eq!((error.offset, error.rows), (0, 0), "{error}");
        error.to_string()
    }

    #[test]
    fn every_type_is_read() {
        let seconds = DataType::Timestamp(TimeUnit::Second, None);
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let cases = [
            (DataType::Boolean, "true", "true"),
            (DataType::Boolean, "\"FALSE\"", "false"),
            (DataType::Int8, "-128", "-128"),
            (DataType::Int16, "\"7\"", "7"),
            (DataType::Int32, "2147483647", "2147483647"),
            (DataType::Int64, "-9223372036854775808", "-9223372036854775808"),
            (DataType::Int64, "null", "-"),
            (DataType::Float32, "0.1", "0.1"),
            (DataType::Float64, "-1.5e3", "-1500.0"),
            (DataType::Float64, "\"NaN\"", "NaN"),
            (DataType::Decimal128(5, 2), "12.345", "12.35"),
            (DataType::Date32, "\"2013-01-31\"", "2013-01-31"),
            (seconds, "\"2013-01-01 05:00:00.999\"", "2013-01-01T05:00:00"),
            (utc, "\"2013-01-01T05:00:00.123456+01:00\"", "1357012800123456"),
            (DataType::Utf8, "\"x\"", "x"),
            (DataType::Utf8, "\"\"", ""),
            (DataType::Utf8, "1.50", "1.50"),
            (DataType::Utf8, "true", "true"),
            (DataType::Utf8, "{ \"x\": [1, \"y z\"] }", "{\"x\":[1,\"y z\"]}"),
            (DataType::Utf8, "\"a\\n\\u00e9\\ud83d\\ude00\\\"\"", "a\né😀\""),
        ];
        for (data_type, value, expected) in cases {
            let read = column(data_type.clone(), &format!("{{\"a\":{value}}}\n{{\"a\":{value}}}"));
            assert_eq!(read, Ok(vec![expected.to_owned(); 2]), "{value} as {data_type}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named() {
        let timestamp = || DataType::Timestamp(TimeUnit::Millisecond, None);
        assert_eq!(refusal(DataType::Int64, "\"abc\""), "column 'a': 'abc' is not a BIGINT");
        assert_eq!(refusal(DataType::Int32, "3000000000"), "column 'a': '3000000000' does not fit in INT");
        assert_eq!(refusal(DataType::Int64, "1e30"), "column 'a': '1e30' is not a BIGINT");
        assert_eq!(refusal(DataType::Int32, "1.5"), "column 'a': '1.5' is not an INT");
        assert_eq!(
            refusal(DataType::Int64, "9223372036854775808"),
            "column 'a': '9223372036854775808' does not fit in BIGINT"
        );
        assert_eq!(refusal(DataType::Boolean, "1"), "column 'a': '1' is not a BOOLEAN");
        assert_eq!(refusal(DataType::Int64, "[1]"), "column 'a': '[1]' is not a BIGINT");
        assert_eq!(refusal(DataType::Float64, "1e400"), "column 'a': '1e400' does not fit in DOUBLE");
        assert_eq!(refusal(DataType::Decimal128(3, 1), "100"), "column 'a': '100' does not fit in DECIMAL(3, 1)");
        assert_eq!(refusal(DataType::Utf8, "\"\\ud83d\""), "column 'a': '\\ud83d' holds half of a surrogate pair");
        assert!(
            refusal(timestamp(), "\"2013-02-30 00:00:00\"")
                .starts_with("column 'a': '2013-02-30 00:00:00' is not a TIMESTAMP(3); ")
        );
        assert!(refusal(timestamp(), "1357016400000").contains("is not a TIMESTAMP(3)"));
        assert!(refusal(timestamp(), "\"2013-01-01 00:00:00+01:00\"").contains("declare the column as TIMESTAMP_LTZ"));
        let nanoseconds = DataType::Timestamp(TimeUnit::Nanosecond, None);
        assert!(refusal(nanoseconds, "\"2500-01-01 00:00:00.000\"").contains("does not fit in TIMESTAMP(9)"));
    }

    #[test]
    fn malformed_records_are_refused_with_their_place() {
        let bad = [
            ("{\"a\":1", "the record ends before its '}'"),
            ("{\"a\":1,}", "a field's name in quotes should stand at '}'"),
            ("{\"a\":1}}", "text follows the object; one record is one line at '}'"),
            ("{\"a\":1} {\"a\":2}", "text follows the object; one record is one line at '{\"a\":2}'"),
            ("[1]", "a record should be an object in braces at '[1]'"),
            ("{\"a\"=1}", "a colon should stand at '=1}'"),
            ("{a:1}", "a field's name in quotes should stand at 'a:1}'"),
            ("{\"a\":}", "column 'a': a value should stand at '}'"),
            ("{\"a\":007}", "column 'a': this is no JSON number at '007}'"),
            ("{\"a\":1 \"b\":2}", "a comma or '}' should stand at '\"b\":2}'"),
            ("{\"b\":\"x}", "a string does not end at '\"x}'"),
            ("{\"b\":\"\\x\"}", "a string holds an unknown escape at '\\x\"}'"),
            ("{\"b\":[1,2}", "a comma or ']' should stand at '}'"),
            ("{\"b\":nul}", "a value should stand at 'nul}'"),
            ("{\"b\":1.}", "this is no JSON number at '1.}'"),
            ("{\"b\":\"\t\"}", "a string holds a control character; write it as an escape at '\t\"}'"),
        ];
        for (line, sentence) in bad {
            let input = format!("{{\"a\":1,\"b\":2}}\n{line}\n{{\"a\":3}}\n");
            let mut decoder = decoder_of(&[DataType::Int64], &[]);
            let error = decoder.decode(input.as_bytes(), true, 100).unwrap_err();
            let at = error.at.map(|at| format!(", byte {at} of the record")).unwrap_or_default();
            assert_eq!(error.to_string(), format!("{sentence}{at}"));
            if let Some(shown) = sentence.rsplit_once(" at '").map(|(_, shown)| shown.trim_end_matches('\'')) {
                assert_eq!(error.at.map(|at| line[at..].starts_with(shown)), Some(true), "{line}");
            }
            assert_eq!((error.offset, error.length, error.rows), (14, line.len() + 1, 1), "{line}");
            let rest = &input.as_bytes()[error.offset + error.length..];
            assert_eq!(decoder.decode(rest, true, 100), Ok(Decoded { consumed: 8, rows: 1 }));
            assert_eq!(values(&decoder.flush().unwrap(), 0), ["1", "3"], "{line}");
        }
    }

    #[test]
    fn a_bad_record_is_taken_back_from_all_columns() {
        let mut decoder = decoder_of(&[DataType::Utf8, DataType::Int64, DataType::Utf8], &[]);
        let input =
            b"{\"a\":\"x\",\"b\":1,\"c\":\"y\"}\n{\"a\":\"gone\",\"c\":\"\\u0067one\",\"b\":\"no\"}\n{\"b\":3}\n";
        let error = decoder.decode(input, true, 100).unwrap_err();
        assert_eq!((error.column.as_deref(), error.value.as_deref()), (Some("b"), Some("no")));
        decoder.decode(&input[error.offset + error.length..], true, 100).unwrap();
        let batch = decoder.flush().unwrap();
        let columns: Vec<_> = (0..3).map(|column| values(&batch, column)).collect();
        assert_eq!(columns, [["x", "-"], ["1", "3"], ["y", "-"]]);
    }

    #[test]
    fn fields_may_change_order_be_absent_or_stand_twice() {
        let lines = [
            "{\"a\":1,\"b\":2,\"c\":3}",
            "{\"a\":4,\"b\":5,\"c\":6}",
            "{\"c\":7,\"b\":8,\"a\":9}",
            "{\"b\":10}",
            "{}",
            " { } ",
            "{\"a\":11,\"a\":12,\"a\":null}",
            "{\"a\":13,\"x\":{\"a\":0},\"a\":14}",
            "{\"a\":13,\"x\":{\"a\":0},\"a\":14}",
            "{ \"\\u0061\" : 15 , \"c\" : 16 }",
            "{ \"\\u0061\" :  15 , \"c\" :\t16 }",
            "{\"a\":17,\"b\":18,\"c\":19}",
        ];
        let mut decoder = decoder_of(&[DataType::Int64, DataType::Utf8, DataType::Int32], &[]);
        decoder.decode(lines.join("\r\n").as_bytes(), true, 100).unwrap();
        let batch = decoder.flush().unwrap();
        assert_eq!(values(&batch, 0), ["1", "4", "9", "-", "-", "-", "-", "14", "14", "15", "15", "17"]);
        assert_eq!(values(&batch, 1), ["2", "5", "8", "10", "-", "-", "-", "-", "-", "-", "-", "18"]);
        assert_eq!(values(&batch, 2), ["3", "6", "7", "-", "-", "-", "-", "-", "-", "16", "16", "19"]);
    }

    #[test]
    fn a_missing_field_is_an_error_if_asked_for() {
        let mut decoder = decoder_of(&[DataType::Int64, DataType::Int64], &[("json.fail-on-missing-field", "true")]);
        let error = decoder.decode(b"{\"a\":1}\n", true, 100).unwrap_err();
        assert_eq!(error.column.as_deref(), Some("b"));
        assert!(error.message.contains("no field 'b'"));
        assert_eq!(decoder.decode(b"{\"a\":1,\"b\":null}\n", true, 100).unwrap().rows, 1);
    }

    #[test]
    fn more_fields_than_are_learnt_are_still_read() {
        let wide: Vec<String> = (0..3000).map(|index| format!("\"f{index}\":{index}")).collect();
        let line = format!("{{{},\"a\":1,\"a\":2}}\n", wide.join(","));
        assert_eq!(column(DataType::Int64, &line.repeat(2)), Ok(vec!["2".to_owned(), "2".to_owned()]));
    }
}
