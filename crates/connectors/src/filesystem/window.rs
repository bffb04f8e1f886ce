//! The bytes of one piece on their way to the decoder: a buffer that slides over the file.
//!
//! The window knows where the piece's last record ends: after the first newline at or behind the piece's last byte.
//! Until it has seen that newline, everything in the buffer belongs to records that start in the piece. The decoder
//! takes whole records off the front; what is left of a cut one moves to the front of the buffer with the next read.

use std::io::{self, Read};
use std::ops::Range;

use memchr::memchr;

/// How much is read at once; the buffer is larger only while a longer record is in it.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// A buffer over a piece's bytes.
pub(super) struct Window {
    input: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// What of the buffer is read but not yet consumed.
    unread: Range<usize>,
    /// The offset in the file of the first unread byte.
    offset: u64,
    stop: Stop,
}

/// Where the piece's last record ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Not known yet: after the first newline at or behind this offset.
    AfterNewline(u64),
    /// At the end of the input.
    AtEnd,
    /// Here.
    At(u64),
}

impl Window {
    /// A window that begins at `offset`, where `input` stands. With `end`, the piece owns the records that start before
    /// it; without, all there are.
    pub(super) fn new(input: Box<dyn Read + Send>, mut buffer: Vec<u8>, offset: u64, end: Option<u64>) -> Self {
        buffer.resize(CHUNK_BYTES, 0);
        buffer.shrink_to(CHUNK_BYTES);
        let stop = match end {
            None => Stop::AtEnd,
            Some(end) if end <= offset => Stop::At(offset),
            Some(end) => Stop::AfterNewline(end.saturating_sub(1)),
        };
        Self { input, buffer, unread: 0..0, offset, stop }
    }

    /// The unread bytes that belong to the piece, and whether they are its last.
    pub(super) fn bytes(&self) -> (&[u8], bool) {
        let unread = self.buffer.get(self.unread.clone()).unwrap_or_default();
        let Stop::At(stop) = self.stop else { return (unread, false) };
        let left = usize::try_from(stop.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        match unread.get(..left) {
            Some(own) => (own, true),
            None => (unread, false),
        }
    }

    /// The offset in the file of the first unread byte.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The offset in the file up to which the input is read.
    pub(super) fn read_to(&self) -> u64 {
        self.offset.saturating_add(self.unread.len() as u64)
    }

    /// Whether all is read and consumed.
    pub(super) fn is_finished(&self) -> bool {
        self.stop == Stop::At(self.offset)
    }

    /// Takes bytes off the front.
    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.unread.len());
        self.unread.start = self.unread.start.saturating_add(count);
        self.offset = self.offset.saturating_add(count as u64);
    }

    /// Reads on.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        self.make_room();
        let free = self.buffer.get_mut(self.unread.end..).unwrap_or_default();
        let count = read_some(&mut self.input, free)?;
        let searched = self.unread.len();
        self.unread.end = self.unread.end.saturating_add(count);
        match self.stop {
            Stop::At(_) => {}
            _ if count == 0 => self.stop = Stop::At(self.read_to()),
            Stop::AfterNewline(from) => self.find_stop(from, searched),
            Stop::AtEnd => {}
        }
        Ok(())
    }

    /// Consumes everything up to and including the next newline: the end of a record that an earlier piece owns.
    pub(super) fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let (bytes, last) = self.bytes();
            let (count, found) = match memchr(b'\n', bytes) {
                Some(newline) => (newline.saturating_add(1), true),
                None => (bytes.len(), last),
            };
            self.consume(count);
            if found {
                return Ok(());
            }
            // Behind the piece's last byte no record of the piece can start.
            if let Stop::AfterNewline(last_byte) = self.stop
                && self.offset > last_byte
            {
                self.stop = Stop::At(self.offset);
                return Ok(());
            }
            self.fill()?;
        }
    }

    /// Gives the buffer back, for the next piece.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    fn make_room(&mut self) {
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        if self.unread.len() == self.buffer.len() {
            self.buffer.resize(self.buffer.len().saturating_mul(2), 0);
        }
    }

    /// Looks for the end of the last record in what was just read, behind the first `searched` unread bytes.
    fn find_stop(&mut self, from: u64, searched: usize) {
        let behind = usize::try_from(from.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let skipped = behind.max(searched);
        let unread = self.buffer.get(self.unread.clone()).unwrap_or_default();
        let Some(newline) = unread.get(skipped..).and_then(|bytes| memchr(b'\n', bytes)) else { return };
        let length = skipped.saturating_add(newline).saturating_add(1);
        self.stop = Stop::At(self.offset.saturating_add(length as u64));
    }
}

/// Reads once, and again if a signal came in between.
fn read_some(input: &mut dyn Read, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input that comes a byte at a time.
    struct Trickle(io::Cursor<Vec<u8>>);

    impl Read for Trickle {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let one = bytes.len().min(1);
            self.0.read(&mut bytes[..one])
        }
    }

    /// All bytes of the records that start in `start..end`.
    fn owned(text: &str, start: usize, end: Option<u64>) -> String {
        let from = start.saturating_sub(1);
        let input = io::Cursor::new(text.as_bytes()[from..].to_vec());
        let mut window = Window::new(Box::new(Trickle(input)), Vec::new(), from as u64, end);
        if start > 0 {
            window.skip_line().unwrap();
        }
        let mut all = Vec::new();
        while !window.is_finished() {
            let (bytes, last) = window.bytes();
            let whole = if last { bytes.len() } else { bytes.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1) };
            all.extend_from_slice(&bytes[..whole]);
            window.consume(whole);
            if !window.is_finished() && whole == 0 {
                window.fill().unwrap();
            }
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn a_range_owns_the_lines_that_start_in_it() {
        let text = "ab\n\ncdef\ng";
        let cases = [
            (0, Some(1), "ab\n"),
            (1, Some(3), ""),
            (3, Some(4), "\n"),
            (3, Some(5), "\ncdef\n"),
            (4, Some(5), "cdef\n"),
            (5, Some(9), ""),
            (5, Some(10), "g"),
            (9, Some(10), "g"),
            (9, None, "g"),
            (10, None, ""),
            (0, None, text),
            (0, Some(10), text),
        ];
        for (start, end, expected) in cases {
            assert_eq!(owned(text, start, end), expected, "{start}..{end:?}");
        }
    }

    #[test]
    fn every_cut_of_a_text_into_ranges_gives_the_text_again() {
        for text in ["", "\n", "a", "a\n", "\r\n\r\n", "one\r\ntwo\n\n\nthree is longer\nx", "\nno end"] {
            for step in 1..=text.len().max(1) {
                let starts = (0..text.len()).step_by(step);
                let pieces = starts.map(|start| owned(text, start, Some((start + step) as u64)));
                assert_eq!(pieces.collect::<String>(), text, "{text:?} by {step}");
            }
        }
    }

    #[test]
    fn a_record_longer_than_the_buffer_makes_it_grow() {
        let text = format!("{}\nb\n", "a".repeat(3 * CHUNK_BYTES));
        let input = io::Cursor::new(text.clone().into_bytes());
        let mut window = Window::new(Box::new(input), Vec::new(), 0, None);
        while !window.bytes().1 {
            window.fill().unwrap();
        }
        assert_eq!(window.bytes().0, text.as_bytes());
        window.consume(text.len());
        assert!(window.is_finished());
        assert_eq!(window.offset(), text.len() as u64);
        let again = Window::new(Box::new(io::empty()), window.into_buffer(), 0, None);
        assert_eq!(again.buffer.len(), CHUNK_BYTES);
    }
}
