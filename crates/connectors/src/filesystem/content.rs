//! A file's content: its bytes from any offset, decompressed, and the place of a byte as a person counts it.

use std::io::{self, ErrorKind as Io, Read, SeekFrom};
use std::path::Path;

use memchr::memchr_iter;
use ruslo_core::disk::Disk;
use ruslo_core::error::{Error, Result};
use ruslo_formats::{DecodeError, Format, Preamble};

use super::compression::Compression;
use super::piece::Piece;

/// How much is read at a time where nothing but a few bytes is wanted.
const STEP_BYTES: usize = 8 * 1024;

/// Opens the content of the piece's file at `offset`; it ends where the file ended when it was listed.
pub(super) fn open(disk: &dyn Disk, piece: &Piece, offset: u64) -> Result<Box<dyn Read + Send>> {
    let mut file = disk.open(Path::new(&piece.path))?;
    let compression = piece.compression();
    if compression == Compression::None {
        file.seek(SeekFrom::Start(offset)).map_err(|error| Error::io(&piece.path, &error))?;
        return Ok(Box::new(file.take(piece.size.saturating_sub(offset))));
    }
    let content = compression.unpacked(Box::new(file.take(piece.size)));
    let mut content = content.map_err(|error| Error::io(&piece.path, &error))?;
    let skipped = io::copy(&mut (&mut content).take(offset), &mut io::sink());
    match skipped.map_err(|error| read_error(piece, 0, &error))? {
        skipped if skipped < offset => {
            Err(Error::data(format!("{}: the content ends at byte {skipped}, before byte {offset}", piece.path)))
        }
        _ => Ok(content),
    }
}

/// The error of reading the content on behind its first `reached` bytes.
pub(super) fn read_error(piece: &Piece, reached: u64, error: &io::Error) -> Error {
    let path = &piece.path;
    let name = piece.compression().name();
    let cause = match (piece.compression(), error.kind()) {
        (Compression::None, _) => return Error::io(path, error),
        (_, Io::UnexpectedEof) => format!("the {name} data ends too early, the file is not whole"),
        (_, Io::InvalidInput | Io::InvalidData) => format!("the {name} data is damaged ({error})"),
        (Compression::Zstd, Io::Other) => format!("the {name} data is damaged ({error})"),
        _ => return Error::io(path, error),
    };
    Error::data(format!("{path}: {cause}; {reached} bytes could be decompressed"))
}

/// Finds what stands before the first record.
pub(super) fn preamble(disk: &dyn Disk, piece: &Piece, format: &dyn Format) -> Result<Preamble> {
    let mut content = open(disk, piece, 0)?;
    let mut start = Vec::new();
    loop {
        let step = (&mut content).take(STEP_BYTES.max(start.len()) as u64).read_to_end(&mut start);
        let step = step.map_err(|error| read_error(piece, start.len() as u64, &error))?;
        if let Some(preamble) = format.preamble(&start, step == 0).map_err(|error| error.context(&piece.path))? {
            return Ok(preamble);
        }
        if step == 0 {
            return Err(Error::internal(format!("{}: no preamble in the whole of a file", piece.path)));
        }
        if start.len() > format.row_bytes_max() {
            let limit = format.row_bytes_max();
            let sentence = format!("{}: the header line is longer than {limit} bytes", piece.path);
            return Err(Error::data(sentence));
        }
    }
}

/// The error of a bad record, with its place in the file: `in.csv line 3, byte 210, column 'a': ..`.
///
/// `offset` is where the slice that was decoded stands in the content. Lines are counted only now. Damaged data may
/// decompress to nonsense, which shows only at its checksum: then that is the error, not the nonsense.
#[cold]
pub(super) fn bad_record(disk: &dyn Disk, piece: &Piece, offset: u64, error: &DecodeError) -> Error {
    let byte = offset.saturating_add(error.offset as u64);
    if let Err(damage) = check_whole(disk, piece, byte) {
        return damage;
    }
    let place = match lines_before(disk, piece, byte) {
        Ok(lines) => format!("{} line {}, byte {byte}", piece.path, lines.saturating_add(1)),
        Err(_) => format!("{} byte {byte}", piece.path),
    };
    let separator = if error.column.is_some() { "," } else { ":" };
    Error::data(format!("{place}{separator} {error}"))
}

/// Decompresses the data to its end; `reached` is how far it made sense.
pub(super) fn check_whole(disk: &dyn Disk, piece: &Piece, reached: u64) -> Result<()> {
    if piece.compression() != Compression::None {
        let mut content = open(disk, piece, 0)?;
        io::copy(&mut content, &mut io::sink()).map_err(|error| read_error(piece, reached, &error))?;
    }
    Ok(())
}

/// Newlines in the first `offset` bytes of the content.
fn lines_before(disk: &dyn Disk, piece: &Piece, offset: u64) -> Result<u64> {
    let mut content = open(disk, piece, 0)?.take(offset);
    let mut buffer = vec![0; STEP_BYTES];
    let mut lines = 0_u64;
    loop {
        let count = content.read(&mut buffer).map_err(|error| Error::io(&piece.path, &error))?;
        if count == 0 {
            return Ok(lines);
        }
        let newlines = memchr_iter(b'\n', buffer.get(..count).unwrap_or_default()).count();
        lines = lines.saturating_add(newlines as u64);
    }
}
