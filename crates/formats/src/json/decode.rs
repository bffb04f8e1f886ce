//! Reads one JSON object a line straight into columns.
//!
//! The common values (integers, plain strings, timestamps in the usual form) are read where they stand, in one pass;
//! everything else goes through [`syntax::token`], which checks the grammar and hands the text on.

use crate::column::{Column, Misfit, Values};
use crate::decode_error::{Faulty, bad_record, misfit, syntax as bad_syntax};
use crate::json::gap::{Layout, Target};
use crate::json::syntax::{self, Kind, Token};
use crate::lines::{Records, Step};
use crate::moment::quoted_milliseconds;
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
        self.store(column, block, token).map_err(|reason| misfit(index, token.start..token.end, reason))?;
        Ok(token.next)
    }

    fn store(&mut self, column: &mut Column, block: &[u8], token: Token) -> Result<(), Misfit> {
        match token.kind {
            Kind::Null => {
                column.put_null();
                return Ok(());
            }
            Kind::Text { escaped: false } | Kind::Plain => return column.put(block, token.start, token.end),
            _ => {}
        }
        self.scratch.clear();
        let text =
            block.get(token.start..token.end).and_then(|text| std::str::from_utf8(text).ok()).ok_or(Misfit::NotA)?;
        match token.kind {
            Kind::Nested if column.is_text() => syntax::compact(text, &mut self.scratch),
            Kind::Nested => return Err(Misfit::NotA),
            _ => syntax::unescape(text, &mut self.scratch).ok_or(Misfit::LoneSurrogate)?,
        }
        column.put_copied(&self.scratch)
    }
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
            let (milliseconds, end) = quoted_milliseconds(block, at, minute)?;
            let value = match *per_second {
                1_000 => milliseconds,
                per_second if per_second > 1_000 => milliseconds.checked_mul(per_second / 1_000)?,
                _ => milliseconds.div_euclid(1_000),
            };
            values.push(value);
            end
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
