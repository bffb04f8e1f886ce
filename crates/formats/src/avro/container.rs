//! An object container file: its header, and where its blocks are.
//!
//! Behind the header stands block after block: how many rows, how many bytes, the bytes, and the file's sync marker. All
//! of them are walked over when a file is opened, which reads some bytes of each: then it is certain that the file is
//! whole, and where a block may be begun with.

use std::io::BufReader;
use std::ops::Range;

use arrow_avro::compression::CompressionCodec;
use arrow_avro::errors::AvroError;
use arrow_avro::reader::{HeaderInfo, read_header_info};
use ruslo_core::error::{Error, Result};

use crate::blocks::{FileBytes, guarded};

/// What a container begins with.
pub(super) const MAGIC: &[u8] = b"Obj\x01";

/// What a message begins with that refers to a schema elsewhere.
const SINGLE_OBJECT: &[u8] = &[0xc3, 0x01];

const SYNC_BYTES: u64 = 16;

/// The most that two numbers take.
const HEAD_BYTES_MAX: u64 = 20;

/// The most rows of a block; more are damage, since rows of a block are decoded at once.
const ROWS_MAX: u64 = 1 << 24;

/// The most bytes of a block, for the same reason.
const BLOCK_BYTES_MAX: u64 = 512 << 20;

/// What a file's header says, and its blocks.
#[derive(Debug)]
pub(super) struct Container {
    /// As JSON.
    pub(super) schema: String,
    /// What `avro.codec` calls the compression.
    pub(super) codec: &'static str,
    pub(super) blocks: Vec<Block>,
    /// Where each block starts.
    pub(super) starts: Vec<u64>,
}

/// A block of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// How many rows it says that it has.
    pub(super) rows: u64,
    /// Where its data are, compressed as they may be.
    pub(super) data: Range<u64>,
}

impl Container {
    /// Reads the header and finds the blocks.
    ///
    /// # Errors
    /// `Data`, if this is no container, or not a whole one.
    pub(super) fn read(bytes: &mut FileBytes) -> Result<Self> {
        check_magic(bytes)?;
        let header = guarded(|| read_header_info(BufReader::new(bytes.all()?)).map_err(bad_header), bad_header)?;
        let schema = header.writer_schema().map_err(bad_header)?.json_string;
        let codec = codec(&header)?;
        let (mut blocks, mut starts) = (Vec::new(), Vec::new());
        let mut at = header.header_len();
        while at < bytes.size() {
            let damaged = |sentence: String| damaged(blocks.len(), at, &sentence);
            let block = block(bytes, at, &header.sync(), damaged)?;
            starts.push(at);
            at = block.data.end.saturating_add(SYNC_BYTES);
            blocks.push(block);
        }
        Ok(Self { schema, codec, blocks, starts })
    }

    /// The error of block `index` (from 0).
    #[cold]
    pub(super) fn damaged(&self, index: usize, sentence: &str) -> Error {
        damaged(index, self.starts.get(index).copied().unwrap_or_default(), sentence)
    }
}

#[cold]
fn damaged(index: usize, at: u64, sentence: &str) -> Error {
    Error::data(format!("block {}, at byte {at}: the avro data is damaged ({sentence})", index.saturating_add(1)))
}

#[cold]
fn bad_header(error: impl std::fmt::Display) -> Error {
    let text = error.to_string();
    Error::data(format!("the avro file's header is not whole or damaged ({})", cause(&text)))
}

/// What a message of the library says, without the kinds of errors that it begins with.
pub(super) fn cause(text: &str) -> &str {
    let kinds = ["Parser error: ", "Avro error: ", "Schema error: ", "Parse error: ", "Parse Error: ", "EOF: "];
    let kinds = kinds.into_iter().chain(["External error: ", "External: ", "Invalid argument error: "]);
    kinds.fold(text, |text, kind| text.trim_start_matches(kind))
}

fn check_magic(bytes: &mut FileBytes) -> Result<()> {
    let start = bytes.read(&(0..bytes.size().min(MAGIC.len() as u64)))?;
    if start == MAGIC {
        return Ok(());
    }
    let found = match start.starts_with(SINGLE_OBJECT) {
        true => "it is a message whose schema is elsewhere",
        false => "it does not begin with 'Obj' and a byte of 1",
    };
    let sentence = "this is no avro file with a schema in it (an object container file)";
    Err(Error::data(format!("{sentence}: {found}; avro without a schema is not read")))
}

fn codec(header: &HeaderInfo) -> Result<&'static str> {
    let unknown = |name: &str| {
        let known = "'null', 'deflate', 'snappy' and 'zstandard' are read";
        Error::data(format!("the avro file's blocks are compressed with {name}; {known}"))
    };
    match header.compression() {
        Ok(None) => Ok("null"),
        Ok(Some(CompressionCodec::Deflate)) => Ok("deflate"),
        Ok(Some(CompressionCodec::Snappy)) => Ok("snappy"),
        Ok(Some(CompressionCodec::ZStandard)) => Ok("zstandard"),
        Ok(Some(CompressionCodec::Bzip2)) => Err(unknown("'bzip2'")),
        Ok(Some(CompressionCodec::Xz)) => Err(unknown("'xz'")),
        Err(AvroError::ParseError(text)) => Err(unknown(text.trim_start_matches("Unrecognized compression codec "))),
        Err(error) => Err(bad_header(error)),
    }
}

/// The block at byte `at`.
fn block(bytes: &mut FileBytes, at: u64, sync: &[u8], damaged: impl Fn(String) -> Error) -> Result<Block> {
    let size = bytes.size();
    let head = bytes.read(&(at..at.saturating_add(HEAD_BYTES_MAX).min(size)))?;
    let numbers = long(&head).and_then(|(rows, rest)| Some((rows, long(rest)?)));
    let Some((rows, (length, rest))) = numbers else {
        let is_cut = (head.len() as u64) < HEAD_BYTES_MAX;
        return Err(if is_cut { not_whole(size) } else { damaged("it does not begin with two numbers".to_owned()) });
    };
    let start = at.saturating_add((head.len() - rest.len()) as u64);
    let counts = |number: i64, most: u64| u64::try_from(number).ok().filter(|number| *number <= most);
    let rows = counts(rows, ROWS_MAX).ok_or_else(|| damaged(format!("it is said to have {rows} rows")))?;
    let length =
        counts(length, BLOCK_BYTES_MAX).ok_or_else(|| damaged(format!("it is said to have {length} bytes")))?;
    let end = start.saturating_add(length);
    if end.saturating_add(SYNC_BYTES) > size {
        return Err(not_whole(size));
    }
    match bytes.read(&(end..end.saturating_add(SYNC_BYTES)))? == sync {
        true => Ok(Block { rows, data: start..end }),
        false => Err(damaged(format!("the sync marker is missing at byte {end}"))),
    }
}

#[cold]
fn not_whole(size: u64) -> Error {
    Error::data(format!("the avro file is not whole: its last block goes on behind byte {size}, where the file ends"))
}

/// A number in Avro's zigzag of seven bits a byte, and what is behind it.
fn long(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let mut value = 0_u64;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(place).ok()?.saturating_mul(7))?;
        if byte & 0x80 == 0 {
            let number = (value >> 1).cast_signed() ^ -(value & 1).cast_signed();
            return Some((number, bytes.get(place.saturating_add(1)..)?));
        }
    }
    None
}

/// Appends a number as `long` reads it.
pub(super) fn push_long(number: i64, out: &mut Vec<u8>) {
    let mut value = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_zigzag_in_groups_of_seven_bits() {
        // From Avro's specification.
        for (number, bytes) in
            [(0, &[0x00][..]), (-1, &[0x01]), (1, &[0x02]), (-64, &[0x7f]), (64, &[0x80, 0x01]), (-65, &[0x81, 0x01])]
        {
            assert_eq!(long(bytes), Some((number, &[][..])));
            let mut out = Vec::new();
            push_long(number, &mut out);
            assert_eq!(out, bytes);
        }
        for number in [i64::MIN, i64::MAX] {
            let mut out = Vec::new();
            push_long(number, &mut out);
            out.push(7);
            assert_eq!(long(&out), Some((number, &[7][..])));
        }
        assert_eq!(long(&[0x80]), None);
        assert_eq!(long(&[0xff; 12]), None);
    }
}
