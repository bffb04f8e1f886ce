//! A bad record: where it stands, in which column, which value, and what is wrong, for a person and for a dead letter.

use std::fmt;
use std::ops::Range;

use ruslo_core::error::Error;

/// How many bytes of a value an error shows.
const VALUE_BYTES_MAX: usize = 80;

/// A record that could not be decoded.
///
/// The decoder has taken back what it had read of the record. The `rows` before it stay in the decoder, and decoding
/// may go on at `offset + length`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// Where the record starts, in bytes from the start of the slice that was decoded.
    pub offset: usize,
    /// How long the record is in bytes, its newline included.
    pub length: usize,
    /// How many rows before it this call decoded.
    pub rows: usize,
    /// The column, if it is known.
    pub column: Option<String>,
    /// The value that does not fit, or where the text stops making sense, shortened to about 80 bytes.
    pub value: Option<String>,
    /// Where in the record the text stops making sense, in bytes from its start, if that is what is wrong.
    pub at: Option<usize>,
    /// What is wrong, as a sentence that a person can act on; names the value, but neither file nor column.
    pub message: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(column) = &self.column {
            write!(f, "column '{column}': ")?;
        }
        f.write_str(&self.message)?;
        match self.at {
            Some(at) => write!(f, ", byte {at} of the record"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for DecodeError {}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::data(error.to_string())
    }
}

/// What a record reader found wrong, before it is known where the record ends: cheap to carry, built on the cold path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Index of the column.
    pub(crate) column: Option<usize>,
    /// The bytes in question, as positions in the block.
    pub(crate) at: Range<usize>,
    pub(crate) what: What,
}

/// The ways in which a record is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The value is not of the column's type.
    Misfit(crate::column::Misfit),
    /// The text is not what the format says; the sentence may go on with "at 'the text'".
    Syntax(&'static str),
    /// Something that needs no place in the text.
    Record(String),
}

/// A fault on its way out; boxed, so that the good path carries one word.
pub(crate) type Faulty<T> = Result<T, Box<Fault>>;

/// A fault of syntax at `at`.
#[cold]
#[inline(never)]
pub(crate) fn syntax<T>(at: usize, sentence: &'static str) -> Faulty<T> {
    Err(Box::new(Fault { column: None, at: at..usize::MAX, what: What::Syntax(sentence) }))
}

/// A fault of the whole record.
#[cold]
#[inline(never)]
pub(crate) fn bad_record<T>(column: Option<usize>, sentence: String) -> Faulty<T> {
    Err(Box::new(Fault { column, at: 0..0, what: What::Record(sentence) }))
}

/// A value at `at` that does not fit its column.
#[cold]
#[inline(never)]
pub(crate) fn misfit(column: usize, at: Range<usize>, misfit: crate::column::Misfit) -> Box<Fault> {
    Box::new(Fault { column: Some(column), at, what: What::Misfit(misfit) })
}

/// The bytes as text of about 80 bytes at most, what is no UTF-8 replaced.
pub(crate) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.get(..VALUE_BYTES_MAX).unwrap_or(bytes)).into_owned();
    if bytes.len() > VALUE_BYTES_MAX { format!("{}...", text.trim_end_matches('\u{fffd}')) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_value_is_shortened_between_characters() {
        assert_eq!(shown(b"abc"), "abc");
        let long = shown("é".repeat(60).as_bytes());
        assert_eq!(long, format!("{}...", "é".repeat(40)));
        assert_eq!(shown(format!("x{}", "é".repeat(60)).as_bytes()), format!("x{}...", "é".repeat(39)));
    }

    #[test]
    fn it_becomes_an_error_of_the_data_that_names_the_column() {
        let column = Some("distance".to_owned());
        let message = "'abc' is not a BIGINT".to_owned();
        let value = Some("abc".to_owned());
        let error = DecodeError { offset: 7, length: 9, rows: 0, column, value, at: None, message };
        let error = Error::from(error);
        assert_eq!(error.kind(), ruslo_core::error::ErrorKind::Data);
        assert_eq!(error.to_string(), "column 'distance': 'abc' is not a BIGINT");
    }
}
