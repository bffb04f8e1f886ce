//! Compression of a whole file: gzip and zstd, around the formats that are text.
//!
//! A file is known by its first bytes, or else by its name. Several members or frames, one behind the other, are one
//! content.

use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use ruslo_core::error::{Error, Result};

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// As the first bytes of a file tell.
    pub(super) fn of_bytes(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    /// As a file's name tells.
    pub(super) fn of_name(path: &str) -> Self {
        match path.rsplit_once('.') {
            Some((_, "gz")) => Self::Gzip,
            Some((_, "zst" | "zstd")) => Self::Zstd,
            _ => Self::None,
        }
    }

    /// This, or `other` if this is none.
    pub(super) fn or(self, other: Self) -> Self {
        if self == Self::None { other } else { self }
    }

    /// What options and messages call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// What it adds to a file's name.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }

    /// The content of a compressed file.
    pub(super) fn unpacked(self, file: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::None => file,
            Self::Gzip => Box::new(MultiGzDecoder::new(file)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?),
        })
    }

    /// A packer of one file.
    pub(super) fn packer(self) -> Result<Packer> {
        Ok(match self {
            Self::None => Packer::None,
            Self::Gzip => Packer::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::default())),
            Self::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 0).map_err(internal)?;
                encoder.include_checksum(true).map_err(internal)?;
                Packer::Zstd(encoder)
            }
        })
    }
}

fn internal(error: io::Error) -> Error {
    Error::internal(format!("compressing: {error}"))
}

/// Compresses the bytes of one file; the file's bytes so far are in memory until they are taken.
pub(super) enum Packer {
    None,
    Gzip(GzEncoder<Vec<u8>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Packer {
    /// Takes all of `content` and appends what the file gets of it now to `file`.
    pub(super) fn pack(&mut self, content: &mut Vec<u8>, file: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::None => file.append(content),
            Self::Gzip(encoder) => {
                encoder.write_all(content).map_err(internal)?;
                file.append(encoder.get_mut());
            }
            Self::Zstd(encoder) => {
                encoder.write_all(content).map_err(internal)?;
                file.append(encoder.get_mut());
            }
        }
        content.clear();
        Ok(())
    }

    /// Appends the end of the file.
    pub(super) fn finish(self, file: &mut Vec<u8>) -> Result<()> {
        let mut end = match self {
            Self::None => Vec::new(),
            Self::Gzip(encoder) => encoder.finish().map_err(internal)?,
            Self::Zstd(encoder) => encoder.finish().map_err(internal)?,
        };
        file.append(&mut end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_unpacks_in_however_many_parts() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let mut file = Vec::new();
            let mut packer = compression.packer().unwrap();
            for part in text.chunks(7777) {
                packer.pack(&mut part.to_vec(), &mut file).unwrap();
            }
            packer.finish(&mut file).unwrap();
            assert_eq!(Compression::of_bytes(&file), compression);
            let mut unpacked = Vec::new();
            compression.unpacked(Box::new(io::Cursor::new(file))).unwrap().read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == text, "{compression:?}");
            assert_eq!(Compression::of_name(&format!("part-1.json{}", compression.suffix())), compression);
        }
    }
}
