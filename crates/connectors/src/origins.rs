//! What the rows of a batch were in their file or stream: kept for tables with dead letters, because a row may turn out bad after
//! it was decoded.
//!
//! The bytes of a batch are kept as they were decoded. Which line a row was is found only when somebody asks, by
//! decoding line after line.

use memchr::memchr;
use ruslo_core::dead_letter::{Origins, Record};
use ruslo_core::error::{Error, Result};
use ruslo_formats::Decoder;

/// How many rows the search holds decoded at a time.
const ROWS_HELD: usize = 1024;

/// Whole lines of a file that became rows, or are blank.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    bytes: Vec<u8>,
    /// Where lines stand one behind the other: from this byte of `bytes`, and from this one of the file.
    stretches: Vec<(usize, u64)>,
}

impl Kept {
    /// Keeps lines that stand at `offset` of the file.
    pub(crate) fn add(&mut self, lines: &[u8], offset: u64) {
        let follows = self.stretches.last().is_some_and(|(at, from)| from + (self.bytes.len() - at) as u64 == offset);
        if !follows && !lines.is_empty() {
            self.stretches.push((self.bytes.len(), offset));
        }
        self.bytes.extend_from_slice(lines);
    }

    /// Every line, without its newline, and where it stands in the file.
    fn lines(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let ends = self.stretches.iter().skip(1).map(|(at, _)| *at).chain([self.bytes.len()]);
        self.stretches.iter().zip(ends).flat_map(|((at, offset), end)| {
            let mut rest = self.bytes.get(*at..end).unwrap_or_default();
            let mut offset = *offset;
            std::iter::from_fn(move || {
                let length = memchr(b'\n', rest).map_or(rest.len(), |newline| newline + 1);
                let (line, behind) = rest.split_at_checked(length).filter(|(line, _)| !line.is_empty())?;
                let found = (offset, line);
                offset += length as u64;
                rest = behind;
                Some(found)
            })
        })
    }
}

/// A line without what ends it.
pub(crate) fn without_newline(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// How the place of a record is told.
pub(crate) fn position(path: &str, offset: u64) -> String {
    format!("{path} byte {offset}")
}

/// The lines of one batch's rows.
pub(crate) struct LineOrigins {
    pub(crate) path: String,
    pub(crate) kept: Kept,
    /// Makes a decoder of our own.
    pub(crate) decoder: Box<dyn Fn() -> Result<Box<dyn Decoder>> + Send>,
}

impl LineOrigins {
    fn record(&self, offset: u64, line: &[u8]) -> Record {
        Record { position: position(&self.path, offset), raw: Some(without_newline(line).to_vec()) }
    }
}

impl Origins for LineOrigins {
    fn records(&self, rows: &[usize]) -> Result<Vec<Record>> {
        let mut decoder = (self.decoder)()?;
        let (mut records, mut row) = (Vec::with_capacity(rows.len()), 0);
        let mut wanted = rows.iter().copied().peekable();
        for (offset, line) in self.kept.lines() {
            if wanted.peek().is_none() {
                break;
            }
            let behind = row + rows_of(decoder.as_mut(), line)?;
            while wanted.next_if(|wanted| *wanted < behind).is_some() {
                records.push(self.record(offset, line));
            }
            row = behind;
        }
        match wanted.next() {
            None => Ok(records),
            Some(row) => Err(Error::internal(format!("{}: row {row} of a batch has no line", self.path))),
        }
    }

    fn bytes(&self) -> usize {
        self.kept.bytes.len()
    }
}

/// How many rows a line is: none, if it is blank.
fn rows_of(decoder: &mut dyn Decoder, line: &[u8]) -> Result<usize> {
    if decoder.rows() >= ROWS_HELD {
        decoder.flush()?;
    }
    Ok(decoder.decode(line, true, 1).map_err(|error| Error::internal(error.to_string()))?.rows)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema};
    use ruslo_formats::DecoderConfig;

    use super::*;

    fn origins(pieces: &[(u64, &[u8])]) -> LineOrigins {
        let mut kept = Kept::default();
        pieces.iter().for_each(|(offset, lines)| kept.add(lines, *offset));
        let table = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
        let format = ruslo_formats::format("json", &BTreeMap::new()).unwrap();
        let decoder = Box::new(move || format.decoder(&DecoderConfig::new(&table, &[0])));
        LineOrigins { path: "in.json".to_owned(), kept, decoder }
    }

    #[test]
    fn a_row_is_found_behind_blank_lines_and_gaps() {
        let origins = origins(&[(5, b"{}\n\n{\"a\":1}\r\n"), (18, b"  \n"), (40, b"{\"a\":2}\n{\"a\" : 3}")]);
        let records = origins.records(&[0, 1, 3]).unwrap();
        let found: Vec<_> =
            records.iter().map(|record| (record.position.as_str(), record.raw.as_deref().unwrap())).collect();
        let expected: [(&str, &[u8]); 3] =
            [("in.json byte 5", b"{}"), ("in.json byte 9", b"{\"a\":1}"), ("in.json byte 48", b"{\"a\" : 3}")];
        assert_eq!(found, expected);
        assert!(origins.records(&[4]).is_err());
        assert!(origins.records(&[]).unwrap().is_empty());
    }

    #[test]
    fn more_rows_than_are_held_are_searched() {
        let lines = (0..5000).map(|n| format!("{{\"a\":{n}}}\n")).collect::<String>();
        let records = origins(&[(0, lines.as_bytes())]).records(&[4999]).unwrap();
        assert_eq!(records[0].raw.as_deref(), Some(&b"{\"a\":4999}"[..]));
    }
}
