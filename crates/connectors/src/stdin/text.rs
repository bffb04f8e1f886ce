//! The bytes that have come and are not decoded yet.

use memchr::{memchr, memchr_iter};
use ruslo_core::error::Result;
use ruslo_core::standard_input::{StandardInput, Taken};

/// How much is taken at once, in bytes.
const CHUNK_BYTES: usize = 256 << 10;

/// A buffer over standard input.
#[derive(Default)]
pub(super) struct Text {
    bytes: Vec<u8>,
    /// How many of them are consumed.
    start: usize,
    /// How many bytes were consumed in all.
    offset: u64,
    /// How many lines.
    lines: u64,
    ended: bool,
}

impl Text {
    /// What is not consumed, and whether nothing comes behind it.
    pub(super) fn bytes(&self) -> (&[u8], bool) {
        (self.bytes.get(self.start..).unwrap_or_default(), self.ended)
    }

    /// How many bytes were consumed.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// How many line ends were consumed.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// Whether all is read and consumed.
    pub(super) fn is_finished(&self) -> bool {
        self.ended && self.start == self.bytes.len()
    }

    /// Whether it would be good to have more, lest batches become small.
    pub(super) fn is_low(&self) -> bool {
        self.bytes.len().saturating_sub(self.start) < CHUNK_BYTES
    }

    /// Takes what has come; whether anything was learnt by that.
    pub(super) fn fill(&mut self, input: &dyn StandardInput) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        self.bytes.drain(..std::mem::take(&mut self.start));
        Ok(match input.take(&mut self.bytes, CHUNK_BYTES)? {
            Taken::Bytes => true,
            Taken::Nothing => false,
            Taken::End => {
                self.ended = true;
                true
            }
        })
    }

    /// Takes bytes off the front.
    pub(super) fn consume(&mut self, count: usize) {
        let taken = self.bytes().0.get(..count).unwrap_or_default();
        let (count, lines) = (taken.len(), memchr_iter(b'\n', taken).count());
        self.start = self.start.saturating_add(count);
        self.offset = self.offset.saturating_add(count as u64);
        self.lines = self.lines.saturating_add(lines as u64);
    }

    /// Takes bytes off the front up to the end of the line; whether that has come.
    pub(super) fn skip_line(&mut self) -> bool {
        let (bytes, last) = self.bytes();
        let newline = memchr(b'\n', bytes);
        let count = newline.map_or(bytes.len(), |newline| newline.saturating_add(1));
        self.consume(count);
        newline.is_some() || last
    }
}
