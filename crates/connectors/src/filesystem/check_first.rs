//! Decompresses a file to its end before its first row comes.
//!
//! Damaged data may decompress to nonsense for a while, or even to other rows: that shows only at the checksum, which
//! comes last. What a checkpoint holds by then could not be taken back. So a compressed file is gone through once, some
//! bytes a poll; only then the reader opens it for its rows. Of files that are too large for that, the checksum is found
//! wrong after rows have come.

use std::io::Read;

use ruslo_core::disk::Disk;
use ruslo_core::error::Result;
use ruslo_core::source::SplitId;

use super::compression::Compression;
use super::content;
use super::piece::Piece;

/// How much content is decompressed a step, in bytes: some milliseconds of work.
const STEP_BYTES: u64 = 1 << 20;

/// How much at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The check of one piece after the other.
pub(super) struct CheckFirst {
    /// Larger files are not checked first.
    file_bytes_max: u64,
    state: State,
}

enum State {
    /// No piece is being checked.
    Idle,
    /// The content of this one is read, so many bytes of it by now.
    Reading { id: SplitId, content: Box<dyn Read + Send>, reached: u64 },
    /// This one is whole.
    Whole(SplitId),
}

impl CheckFirst {
    /// Checks compressed files of up to `file_bytes_max` bytes on disk.
    pub(super) fn new(file_bytes_max: u64) -> Self {
        Self { file_bytes_max, state: State::Idle }
    }

    /// Whether a piece is checked before its rows come.
    pub(super) fn applies(&self, piece: &Piece) -> bool {
        piece.compression() != Compression::None && piece.size <= self.file_bytes_max
    }

    /// Goes on with the check of a piece; whether its rows may come.
    ///
    /// # Errors
    /// `Data`, if the file is damaged or cut off, or another one than `since`; with the next call the check begins anew.
    pub(super) fn step(&mut self, disk: &dyn Disk, id: &SplitId, piece: &Piece, since: &str) -> Result<bool> {
        if !self.applies(piece) {
            return Ok(true);
        }
        let (content, reached) = match std::mem::replace(&mut self.state, State::Idle) {
            State::Whole(whole) if whole == *id => {
                self.state = State::Whole(whole);
                return Ok(true);
            }
            State::Reading { id: reading, content, reached } if reading == *id => (content, reached),
            State::Idle | State::Whole(_) | State::Reading { .. } => {
                piece.check_identity(disk, since)?;
                (content::open(disk, piece, 0)?, 0)
            }
        };
        self.state = read_on(id, piece, content, reached)?;
        Ok(false)
    }
}

/// Decompresses the next step's bytes.
fn read_on(id: &SplitId, piece: &Piece, mut content: Box<dyn Read + Send>, begun: u64) -> Result<State> {
    let (id, mut reached) = (id.clone(), begun);
    let mut chunk = vec![0; CHUNK_BYTES];
    while reached < begun.saturating_add(STEP_BYTES) {
        match content.read(&mut chunk) {
            Ok(0) => return Ok(State::Whole(id)),
            Ok(count) => reached = reached.saturating_add(count as u64),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(content::read_error(piece, reached, &error)),
        }
    }
    Ok(State::Reading { id, content, reached })
}
