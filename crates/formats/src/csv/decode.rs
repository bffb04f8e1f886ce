//! Reads one line of CSV straight into columns.
//!
//! Delimiters, quotes and newlines are found 64 bytes at a time; a field that nobody asked for is only counted, and a
//! quoted one is checked to end.

use memchr::memchr2;

use crate::column::{Column, Values};
use crate::csv::Dialect;
use crate::csv::header::Fields;
use crate::decode_error::{Faulty, bad_record, misfit, syntax};
use crate::lines::{Records, Step};
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
        let stops = Stops::new([dialect.delimiter, b'\n', dialect.quote]);
        Self { dialect, fields, stops, scratch: String::new() }
    }

    /// The field that starts at `at`.
    #[inline(always)]
    fn field(&mut self, block: &[u8], at: usize) -> Faulty<Found> {
        let mut stop = self.stops.next(block);
        if block.get(stop) == Some(&self.dialect.quote) {
            if stop == at {
                return self.quoted(block, at);
            }
            // A quote within an unquoted field stands for itself.
            while block.get(stop) == Some(&self.dialect.quote) {
                stop = self.stops.next(block);
            }
        }
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

/// Stores an unsigned integer of up to 18 digits; `None`, with nothing stored, for anything else.
#[inline(always)]
fn quick(column: &mut Column, block: &[u8], found: &Found) -> Option<()> {
    let Values::Int64(values) = &mut column.values else { return None };
    let text = block.get(found.start..found.end)?;
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    let mut value = 0i64;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    values.push(value);
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
                return Ok(Step::Blank(found.stop + 1));
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
