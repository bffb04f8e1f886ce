//! A run being read in order.

use std::sync::Arc;

use arrow::buffer::Buffer;
use ruslo_core::error::Result;
use ruslo_core::key_group::KeyGroupRange;

use crate::runs::block::Block;
use crate::runs::run::Run;

/// Bytes read ahead.
const AHEAD_BYTES: u64 = 64 << 10;

/// A row of a run, and those after it.
pub(crate) struct Cursor {
    run: Arc<Run>,
    /// The next block to decode.
    next: usize,
    /// The place at which to stop; never, if none.
    end: Option<u64>,
    /// Bytes of the blocks from `ahead_start` to before `ahead_end`.
    ahead: Buffer,
    ahead_start: usize,
    ahead_end: usize,
    block: Arc<Block>,
    row: usize,
}

impl Cursor {
    /// At the first row of `groups`; `None`, if there is none.
    pub(crate) fn open(run: &Arc<Run>, groups: &KeyGroupRange) -> Result<Option<Self>> {
        let groups = groups.start.max(run.groups().start)..groups.end.min(run.groups().end);
        if groups.is_empty() || run.blocks() == 0 {
            return Ok(None);
        }
        let start = u64::from(groups.start) << 57;
        let first = run.block_of(start, 0);
        let mut cursor = Self {
            block: Arc::new(run.read_block(first)?),
            run: Arc::clone(run),
            next: first + 1,
            end: u64::from(groups.end).checked_mul(1 << 57),
            ahead: Buffer::default(),
            ahead_start: 0,
            ahead_end: 0,
            row: 0,
        };
        cursor.row = cursor.block.first_at(start);
        let found = cursor.row < cursor.block.len() || cursor.next_block()?;
        Ok((found && !cursor.is_past_end()).then_some(cursor))
    }

    fn is_past_end(&self) -> bool {
        self.end.is_some_and(|end| self.block.place(self.row) >= end)
    }

    /// The block that the row is in.
    pub(crate) fn block(&self) -> &Arc<Block> {
        &self.block
    }

    /// Which row of it.
    pub(crate) fn row(&self) -> usize {
        self.row
    }

    /// Goes to the next row; `false` at the end.
    pub(crate) fn advance(&mut self) -> Result<bool> {
        self.row += 1;
        if self.row >= self.block.len() && !self.next_block()? {
            return Ok(false);
        }
        Ok(!self.is_past_end())
    }

    fn next_block(&mut self) -> Result<bool> {
        if self.next >= self.run.blocks() || self.is_next_past_end() {
            return Ok(false);
        }
        if self.next >= self.ahead_end {
            self.ahead_start = self.next;
            self.ahead_end = self.next + self.run.blocks_within(self.next, AHEAD_BYTES);
            self.ahead = self.run.read_bytes(self.ahead_start, self.ahead_end)?;
        }
        let from = self.run.distance(self.ahead_start, self.next);
        let length = self.run.distance(self.next, self.next + 1);
        let bytes = self.ahead.slice_with_length(from, length);
        self.block = Arc::new(self.run.decode(self.next, &bytes)?);
        self.next += 1;
        self.row = 0;
        Ok(self.block.len() > 0)
    }

    fn is_next_past_end(&self) -> bool {
        self.end.zip(self.run.first_place(self.next)).is_some_and(|(end, first)| first >= end)
    }
}
