//! What a split of `filesystem` says: a byte range of a file, and how to tell whether it is still the same file.
//!
//! A file is a lineage, cut at multiples of the split size whatever the parallelism. A range owns every record that
//! *starts* in it, so that each record has one owner without anybody looking for line ends beforehand; so it is with
//! the blocks of a format that has such. The size at
//! listing is the end of the file for good: what is appended later is not read.

use std::io::Read;
use std::path::Path;

use flate2::Crc;
use ruslo_core::disk::{Disk, FileKind};
use ruslo_core::error::{Error, Result};
use ruslo_core::source::{Position, Split};
use serde::{Deserialize, Serialize};

use super::compression::Compression;
use super::listing::FoundFile;

/// How many bytes at the head of a file tell it from another one.
const HEAD_BYTES: u64 = 1024;

/// A byte range of a file: [`Split::description`], stored in checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Piece {
    pub(super) path: String,
    /// The file's size in bytes when it was listed, as stored on disk.
    pub(super) size: u64,
    /// CRC-32 of the file's first 1,024 bytes.
    pub(super) head: u32,
    /// Whether the bytes are compressed with gzip; then the piece is the whole file.
    pub(super) gzip: bool,
    /// Whether they are compressed with zstd; then, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) zstd: bool,
    /// When the file was last changed, in milliseconds since 1970, if anybody asked and the disk knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) modified: Option<i64>,
    /// The first byte that belongs to it.
    pub(super) start: u64,
    /// The byte after the last.
    pub(super) end: u64,
}

/// [`Position`] in a piece: the offset of the next record in the (decompressed) file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Offset {
    offset: u64,
}

/// [`Position`] in a piece of a format of blocks: the next row, counted from the start of its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BlockPosition {
    pub(super) block: usize,
    pub(super) row: u64,
}

impl BlockPosition {
    /// Notes it.
    pub(super) fn note(self) -> Position {
        serde_json::json!({ "block": self.block, "row": self.row })
    }

    /// Reads a noted one.
    pub(super) fn of(position: &Position) -> Result<Self> {
        serde_json::from_value(position.clone())
            .map_err(|error| Error::corrupt(format!("position of a file split: {error}")))
    }
}

/// Notes an offset.
pub(super) fn position(offset: u64) -> Position {
    serde_json::json!({ "offset": offset })
}

/// Reads a noted offset.
pub(super) fn offset(position: &Position) -> Result<u64> {
    let offset: Offset = serde_json::from_value(position.clone())
        .map_err(|error| Error::corrupt(format!("position of a file split: {error}")))?;
    Ok(offset.offset)
}

impl Piece {
    /// Reads a split's description.
    pub(super) fn of(split: &Split) -> Result<Self> {
        serde_json::from_value(split.description.clone())
            .map_err(|error| Error::corrupt(format!("description of the file split '{}': {error}", split.lineage)))
    }

    fn split(&self, sequence: u64) -> Result<Split> {
        let description = serde_json::to_value(self).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Split { lineage: self.path.clone(), sequence, is_endless: false, description })
    }

    /// Whether the piece reaches the end of its file.
    pub(super) fn is_last(&self) -> bool {
        self.compression() != Compression::None || self.end >= self.size
    }

    /// How the bytes are compressed.
    pub(super) fn compression(&self) -> Compression {
        match (self.gzip, self.zstd) {
            (true, _) => Compression::Gzip,
            (_, true) => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// Checks that the file begins as it did and has not become smaller.
    ///
    /// # Errors
    /// `Data`, naming the file; `since` says what it is compared with.
    pub(super) fn check_identity(&self, disk: &dyn Disk, since: &str) -> Result<()> {
        let path = Path::new(&self.path);
        let changed = |how: String| {
            let mend = "put the old file back, or start afresh";
            Err(Error::data(format!("{}: the file changed since {since}: {how}; {mend}", self.path)))
        };
        match disk.kind(path)? {
            None => return changed("it is gone".to_owned()),
            Some(FileKind::Folder) => return changed("it is a folder now".to_owned()),
            Some(FileKind::File(size)) if size < self.size => {
                return changed(format!("it has {size} bytes instead of {}", self.size));
            }
            Some(FileKind::File(_)) => {}
        }
        if head(disk, path, self.size)?.crc != self.head {
            return changed("its first bytes are others".to_owned());
        }
        Ok(())
    }
}

/// How files are cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// The size of a piece in bytes; the last one of a file may be smaller.
    pub(super) split_bytes: u64,
    /// How the files are compressed; `None`: as each file's name or first bytes tell.
    pub(super) compression: Option<Compression>,
    /// Whether to note when a file was last changed.
    pub(super) modified: bool,
}

/// The pieces of a file, in order; an empty file has none.
pub(super) fn cut(disk: &dyn Disk, file: &FoundFile, cut: Cut) -> Result<Vec<Split>> {
    if file.size == 0 {
        return Ok(Vec::new());
    }
    let path = utf8(&file.path)?;
    let head = head(disk, &file.path, file.size)?;
    let compression = cut.compression.unwrap_or_else(|| head.compression.or(Compression::of_name(&path)));
    let step = if compression == Compression::None { cut.split_bytes.max(1) } else { file.size };
    let (gzip, zstd) = (compression == Compression::Gzip, compression == Compression::Zstd);
    let modified = if cut.modified { disk.modified(&file.path)? } else { None };
    (0..file.size.div_ceil(step))
        .map(|sequence| {
            let start = sequence.saturating_mul(step);
            let end = start.saturating_add(step).min(file.size);
            let (path, size, head) = (path.clone(), file.size, head.crc);
            Piece { path, size, head, gzip, zstd, modified, start, end }.split(sequence)
        })
        .collect()
}

fn utf8(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::usage(format!("{}: the name is not UTF-8; rename it", path.display())))
}

/// What the first bytes of a file tell.
struct Head {
    crc: u32,
    compression: Compression,
}

/// Looks at the head of a file that had `size` bytes when it was listed.
fn head(disk: &dyn Disk, path: &Path, size: u64) -> Result<Head> {
    let mut bytes = Vec::new();
    let read = disk.open(path)?.take(size.min(HEAD_BYTES)).read_to_end(&mut bytes);
    read.map_err(|error| Error::io(path.display(), &error))?;
    let mut crc = Crc::new();
    crc.update(&bytes);
    Ok(Head { crc: crc.sum(), compression: Compression::of_bytes(&bytes) })
}

#[cfg(test)]
#[allow(clippy::type_complexity, reason = "tables of cases")]
mod tests {
    use ruslo_core::disk::LocalDisk;
    use ruslo_core::error::ErrorKind;

    use super::*;

    fn cut_file(name: &str, bytes: &[u8], split_bytes: u64) -> (tempfile::TempDir, Vec<Split>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        LocalDisk.write_synced(&path, bytes).unwrap();
        let file = FoundFile { path, size: bytes.len() as u64 };
        let splits = cut(&LocalDisk, &file, Cut { split_bytes, compression: None, modified: false }).unwrap();
        (folder, splits)
    }

    #[test]
    fn ranges_are_adjacent_and_what_is_compressed_is_one() {
        let cases: [(&str, &[u8], &[(u64, u64)]); 8] = [
            ("a", b"", &[]),
            ("a", b"x", &[(0, 1)]),
            ("a", b"0123", &[(0, 4)]),
            ("a", b"012345678", &[(0, 4), (4, 8), (8, 9)]),
            ("a", &[0x1f, 0x8b, 8, 0, 0, 0], &[(0, 6)]),
            ("a.gz", b"012345678", &[(0, 9)]),
            ("a", &[0x28, 0xb5, 0x2f, 0xfd, 0, 0], &[(0, 6)]),
            ("a.zst", b"012345678", &[(0, 9)]),
        ];
        for (name, bytes, expected) in cases {
            let (_folder, splits) = cut_file(name, bytes, 4);
            let pieces: Vec<_> = splits.iter().map(|split| Piece::of(split).unwrap()).collect();
            assert_eq!(pieces.iter().map(|p| (p.start, p.end)).collect::<Vec<_>>(), expected);
            assert!(splits.iter().zip(0..).all(|(split, k)| split.sequence == k && split.lineage.ends_with(name)));
            assert!(pieces.last().is_none_or(Piece::is_last));
        }
    }

    #[test]
    fn a_file_may_grow_but_not_shrink_or_begin_otherwise() {
        let (folder, splits) = cut_file("in.csv", b"a,b\n1,2\n", 100);
        let piece = Piece::of(&splits[0]).unwrap();
        let path = folder.path().join("in.csv");
        let cases: [(&[u8], Option<&str>); 4] = [
            (b"a,b\n1,2\n", None),
            (b"a,b\n1,2\n3,4\n", None),
            (b"a,b\n1,2", Some("it has 7 bytes instead of 8; put the old file back, or start afresh")),
            (b"b,a\n1,2\n", Some("its first bytes are others; put the old file back, or start afresh")),
        ];
        for (bytes, complaint) in cases {
            LocalDisk.remove(&path).unwrap();
            LocalDisk.write_synced(&path, bytes).unwrap();
            let checked = piece.check_identity(&LocalDisk, "the checkpoint");
            assert_eq!(checked.is_err(), complaint.is_some());
            if let (Err(error), Some(complaint)) = (checked, complaint) {
                assert_eq!(error.kind(), ErrorKind::Data);
                let expected = format!("{}: the file changed since the checkpoint: {complaint}", path.display());
                assert_eq!(error.to_string(), expected);
            }
        }
        LocalDisk.remove(&path).unwrap();
        assert!(piece.check_identity(&LocalDisk, "the checkpoint").unwrap_err().to_string().contains("it is gone"));
    }

    #[test]
    fn the_notation_in_checkpoints_is_fixed() {
        let (zstd, modified) = (false, None);
        let piece = Piece { path: "in".into(), size: 9, head: 7, gzip: false, zstd, modified, start: 4, end: 8 };
        let split = piece.split(1).unwrap();
        let text = r#"{"end":8,"gzip":false,"head":7,"path":"in","size":9,"start":4}"#;
        assert_eq!(split.description, serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert_eq!(position(210).to_string(), r#"{"offset":210}"#);
        assert_eq!(offset(&position(210)).unwrap(), 210);
        assert_eq!(offset(&serde_json::json!({})).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(Piece::of(&split).unwrap(), piece, "what was stored before there were other fields is read");
        let position = BlockPosition { block: 3, row: 120 };
        assert_eq!(position.note().to_string(), r#"{"block":3,"row":120}"#);
        assert_eq!(BlockPosition::of(&position.note()).unwrap(), position);
        assert_eq!(BlockPosition::of(&serde_json::json!({"offset": 1})).unwrap_err().kind(), ErrorKind::Corrupt);
        let zstd = Piece { zstd: true, modified: Some(5), ..piece }.split(1).unwrap();
        let text = r#"{"end":8,"gzip":false,"head":7,"modified":5,"path":"in","size":9,"start":4,"zstd":true}"#;
        assert_eq!(zstd.description, serde_json::from_str::<serde_json::Value>(text).unwrap());
        let broken = Split { description: serde_json::json!(3), ..split };
        assert_eq!(Piece::of(&broken).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
