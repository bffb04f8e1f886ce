//! Reads pieces of files whose format is made of blocks: a piece owns every block that starts in it.
//!
//! Life of a piece: it waits in the queue; its file is opened (checked to be the same, its footer is read once for all
//! pieces); its blocks are read one after another, a batch a poll; it is finished. An error comes again at every further
//! poll. Rows that cannot be the table's come beside the others, if the table has them left out; damage is an error.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use arrow::array::ArrayRef;
use ruslo_core::dead_letter::OnError;
use ruslo_core::disk::Disk;
use ruslo_core::error::{Error, Result};
use ruslo_core::source::{Budget, Polled, Position, Sifted, SourceReader, Split, SplitId};
use ruslo_formats::BlockFile;

use super::block_rows::{BlockRows, Place};
use super::columns::Columns;
use super::piece::{BlockPosition, Piece};

/// Reads the pieces that one subtask is given, in the order in which they come.
pub(super) struct BlockReader {
    columns: Arc<Columns>,
    disk: Arc<dyn Disk>,
    on_error: OnError,
    waiting: VecDeque<Waiting>,
    file: Option<File>,
    current: Option<Current>,
}

/// A piece not opened yet, and where to go on, if it was begun before.
#[derive(Debug, Clone)]
struct Waiting {
    id: SplitId,
    piece: Piece,
    position: Option<BlockPosition>,
}

/// The file of the last piece; kept, because the next one is usually of the same.
struct File {
    path: String,
    blocks: Box<dyn BlockFile>,
    constants: Vec<ArrayRef>,
}

/// The piece being read.
struct Current {
    id: SplitId,
    path: String,
    /// The next row.
    position: BlockPosition,
    /// The block behind the piece's last one.
    end: usize,
    /// Why it cannot be read on.
    failed: Option<Error>,
}

impl BlockReader {
    pub(super) fn new(columns: Arc<Columns>, disk: Arc<dyn Disk>, on_error: OnError) -> Self {
        Self { columns, disk, on_error, waiting: VecDeque::new(), file: None, current: None }
    }

    /// Opens the next piece.
    fn open(&mut self, waiting: &Waiting) -> Result<()> {
        let Waiting { id, piece, position } = waiting;
        if self.file.as_ref().is_none_or(|file| file.path != piece.path) {
            self.file = None;
            self.file = Some(self.open_file(piece, position.is_some())?);
        }
        let Some(file) = &mut self.file else { return Err(Error::internal("a file is not open")) };
        let starts = file.blocks.starts();
        let own =
            starts.partition_point(|start| *start < piece.start)..starts.partition_point(|start| *start < piece.end);
        let mut position = position.unwrap_or(BlockPosition { block: own.start, row: 0 });
        skip_unwanted(file.blocks.as_ref(), &mut position, own.end);
        if position.block < own.end {
            file.blocks.seek(position.block, position.row).map_err(|error| error.context(&piece.path))?;
        }
        self.current = Some(Current { id: id.clone(), path: piece.path.clone(), position, end: own.end, failed: None });
        Ok(())
    }

    fn open_file(&self, piece: &Piece, restored: bool) -> Result<File> {
        let since = if restored { "the checkpoint" } else { "it was listed" };
        piece.check_identity(self.disk.as_ref(), since)?;
        let format = self.columns.format.blocks().ok_or_else(|| Error::internal("a format without blocks"))?;
        let file = self.disk.open(Path::new(&piece.path))?;
        let config = if self.on_error.fails() { self.columns.config() } else { self.columns.lenient_config() };
        let blocks = format.open(file, piece.size, &config).map_err(|error| error.context(&piece.path))?;
        Ok(File { path: piece.path.clone(), blocks, constants: self.columns.constants(piece)? })
    }
}

/// Goes to the next block that may hold rows that are wanted.
fn skip_unwanted(blocks: &dyn BlockFile, position: &mut BlockPosition, end: usize) {
    while position.block < end && !blocks.may_hold(position.block) {
        *position = BlockPosition { block: position.block.saturating_add(1), row: 0 };
    }
}

impl Current {
    /// Where the rows stand that [`Self::next`] gave.
    fn place(&self, block_name: &'static str, rows: usize) -> Place {
        let row = self.position.row.saturating_sub(rows as u64);
        Place { path: self.path.clone(), block_name, block: self.position.block, row }
    }

    /// The next rows; `None` at the piece's end.
    fn next(&mut self, blocks: &mut dyn BlockFile, rows_max: usize) -> Result<Option<arrow::array::RecordBatch>> {
        while self.position.block < self.end {
            if let Some(batch) = blocks.next(rows_max)? {
                self.position.row = self.position.row.saturating_add(batch.num_rows() as u64);
                return Ok(Some(batch));
            }
            self.position = BlockPosition { block: self.position.block.saturating_add(1), row: 0 };
            skip_unwanted(blocks, &mut self.position, self.end);
            if self.position.block < self.end {
                blocks.seek(self.position.block, 0)?;
            }
        }
        Ok(None)
    }
}

impl SourceReader for BlockReader {
    fn add_split(&mut self, split: Split, position: Option<Position>) -> Result<()> {
        let position = position.as_ref().map(BlockPosition::of).transpose()?;
        self.waiting.push_back(Waiting { id: split.id(), piece: Piece::of(&split)?, position });
        Ok(())
    }

    fn poll(&mut self, budget: Budget) -> Result<Polled> {
        if self.current.is_none() {
            let Some(next) = self.waiting.front().cloned() else { return Ok(Polled::Pending(None)) };
            self.open(&next)?;
            self.waiting.pop_front();
        }
        let (Some(current), Some(file)) = (self.current.as_mut(), self.file.as_mut()) else {
            return Err(Error::internal("a piece is open, but not its file"));
        };
        if let Some(error) = &current.failed {
            return Err(error.clone());
        }
        match current.next(file.blocks.as_mut(), budget.rows_max) {
            Ok(Some(batch)) => {
                let (split, position) = (current.id.clone(), current.position.note());
                if self.on_error.fails() {
                    let batch = self.columns.assemble(batch, &file.constants)?;
                    return Ok(Polled::Batch { split, batch, position });
                }
                let block_name = self.columns.format.blocks().map_or("block", |format| format.block_name());
                let mut rows = BlockRows::new(current.place(block_name, batch.num_rows()), batch);
                let (batch, rejected) = rows.reject_nulls(&self.columns.read_schema()?)?;
                let batch = self.columns.assemble(batch, &file.constants)?;
                Ok(Polled::Sifted(Sifted { split, batch, position, rejected, origins: Some(Box::new(rows)) }))
            }
            Ok(None) => {
                let finished = current.id.clone();
                self.current = None;
                Ok(Polled::Finished(finished))
            }
            Err(error) => {
                let error = error.context(&current.path);
                current.failed = Some(error.clone());
                Err(error)
            }
        }
    }
}
