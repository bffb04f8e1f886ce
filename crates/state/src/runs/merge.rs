//! Several runs read as one: in order, of every identity the newest row.
//!
//! Memory: a block and what is read ahead of each run, and the blocks of the rows that come out next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use ruslo_core::error::Result;
use ruslo_core::key_group::{KEY_GROUPS, KeyGroupRange};

use crate::runs::block::Block;
use crate::runs::cursor::Cursor;
use crate::runs::rows::{CHUNK_ROWS, Op, SortedRows, batch_of};
use crate::runs::run::Run;
use crate::runs::same::same_rows;
use crate::runs::schema::TableSchema;

/// Blocks that a piece is taken out of at most: with blocks of large rows, what bounds its bytes.
const SOURCES: usize = 256;

/// What a merge leaves out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leave {
    /// Deletes and clears: nothing is older than what is merged.
    pub(crate) deletes: bool,
    /// Rows of buckets before this one.
    pub(crate) before: u32,
}

/// Where a row stands in the order of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    place: u64,
    is_row: bool,
    rank: (i64, u64),
}

/// The next row of a run, by order and then by age: 0 is the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    standing: Standing,
    age: usize,
}

/// A row that later ones are compared with.
struct Seen {
    block: Arc<Block>,
    row: usize,
    age: usize,
}

/// Rows of several runs, merged, in pieces.
pub struct Merge {
    schema: TableSchema,
    columns: SchemaRef,
    leave: Leave,
    /// By age.
    cursors: Vec<Option<Cursor>>,
    heap: BinaryHeap<Reverse<Head>>,
    /// Rows of this standing that were met.
    standing: Option<Standing>,
    met: Vec<Seen>,
    /// Rows of this place that clear.
    clears: Vec<Seen>,
    /// What comes out next: rows of blocks.
    sources: Vec<Arc<Block>>,
    source_of: Vec<Option<usize>>,
    picks: Vec<(usize, usize)>,
    failed: bool,
}

impl Merge {
    /// Of `runs`, newest first, the rows of `groups`.
    pub(crate) fn open(schema: &TableSchema, runs: &[Arc<Run>], groups: &KeyGroupRange, leave: Leave) -> Result<Self> {
        let mut merge = Self {
            schema: schema.clone(),
            columns: schema.rows(),
            leave,
            cursors: Vec::with_capacity(runs.len()),
            heap: BinaryHeap::with_capacity(runs.len()),
            standing: None,
            met: Vec::new(),
            clears: Vec::new(),
            sources: Vec::new(),
            source_of: vec![None; runs.len()],
            picks: Vec::with_capacity(CHUNK_ROWS),
            failed: false,
        };
        for (age, run) in runs.iter().enumerate() {
            let cursor = Cursor::open(run, groups)?;
            if let Some(cursor) = &cursor {
                merge.heap.push(Reverse(head(cursor, age)?));
            }
            merge.cursors.push(cursor);
        }
        Ok(merge)
    }

    /// Of `runs`, newest first, all rows that there are, expired ones among them.
    pub(crate) fn all(schema: &TableSchema, runs: &[Arc<Run>]) -> Result<Self> {
        Self::open(schema, runs, &(0..KEY_GROUPS), Leave { deletes: true, before: 0 })
    }

    fn fill(&mut self) -> Result<()> {
        while self.picks.len() < CHUNK_ROWS && self.sources.len() < SOURCES {
            let Some(Reverse(head)) = self.heap.pop() else { return Ok(()) };
            let Some(cursor) = self.cursors.get_mut(head.age).and_then(Option::as_mut) else { continue };
            let (block, row) = (Arc::clone(cursor.block()), cursor.row());
            let is_last_of_block = row + 1 >= block.len();
            if cursor.advance()? {
                let next = self::head(cursor, head.age)?;
                self.heap.push(Reverse(next));
            }
            self.take(head, block, row)?;
            if is_last_of_block && let Some(source) = self.source_of.get_mut(head.age) {
                *source = None;
            }
        }
        Ok(())
    }

    /// Takes a row, or leaves it.
    fn take(&mut self, head: Head, block: Arc<Block>, row: usize) -> Result<()> {
        if self.standing != Some(head.standing) {
            self.met.clear();
            if self.standing.is_some_and(|standing| standing.place != head.standing.place) {
                self.clears.clear();
            }
            self.standing = Some(head.standing);
        }
        let op = block.op(row)?;
        let keys = self.schema.key_columns();
        // A clear ignores the sub-key.
        let identity = if op == Op::Clear { keys.clone() } else { 0..self.schema.sub_key_columns().end };
        let is = |seen: &Seen, columns: &Range<usize>| same(&seen.block, seen.row, &block, row, columns);
        let is_replaced = self.met.iter().any(|seen| is(seen, &identity));
        let is_cleared = self.clears.iter().any(|clear| clear.age < head.age && is(clear, &keys));
        if is_replaced || is_cleared {
            return Ok(());
        }
        let is_left = block.bucket(row) < self.leave.before || (self.leave.deletes && op != Op::Put);
        let seen = || Seen { block: Arc::clone(&block), row, age: head.age };
        if op == Op::Clear {
            self.clears.push(seen());
        }
        if self.heap.peek().is_some_and(|Reverse(next)| next.standing == head.standing) {
            self.met.push(seen());
        }
        if !is_left {
            self.pick(head.age, block, row);
        }
        Ok(())
    }

    fn pick(&mut self, age: usize, block: Arc<Block>, row: usize) {
        let sources = &mut self.sources;
        let new = || {
            sources.push(block);
            sources.len() - 1
        };
        let Some(source) = self.source_of.get_mut(age) else { return };
        let source = *source.get_or_insert_with(new);
        self.picks.push((source, row));
    }

    fn piece(&mut self) -> Result<SortedRows> {
        let (sources, picks) = (std::mem::take(&mut self.sources), std::mem::take(&mut self.picks));
        self.source_of.iter_mut().for_each(|source| *source = None);
        gather(&self.columns, &sources, &picks)
    }
}

fn head(cursor: &Cursor, age: usize) -> Result<Head> {
    let (block, row) = (cursor.block(), cursor.row());
    let is_row = block.op(row)? != Op::Clear;
    let rank = if is_row { block.rank(row) } else { (0, 0) };
    Ok(Head { standing: Standing { place: block.place(row), is_row, rank }, age })
}

fn same(a: &Block, a_row: usize, b: &Block, b_row: usize, columns: &Range<usize>) -> bool {
    same_rows(columns_of(a, columns), a_row, columns_of(b, columns), b_row)
}

fn columns_of<'a>(block: &'a Block, columns: &Range<usize>) -> &'a [ArrayRef] {
    block.columns.get(columns.clone()).unwrap_or_default()
}

/// The rows `picks` (which source, which row of it), in this order.
pub(crate) fn gather(schema: &SchemaRef, sources: &[Arc<Block>], picks: &[(usize, usize)]) -> Result<SortedRows> {
    let located = || picks.iter().filter_map(|(source, row)| Some((sources.get(*source)?, *row)));
    let columns = (0..schema.fields().len()).map(|column| {
        let arrays: Vec<&dyn Array> =
            sources.iter().filter_map(|block| block.columns.get(column).map(AsRef::as_ref)).collect();
        if arrays.is_empty() {
            let data_type = schema.fields().get(column).map(|field| field.data_type().clone());
            return Ok(arrow::array::new_empty_array(&data_type.unwrap_or(arrow::datatypes::DataType::Null)));
        }
        Ok(interleave(&arrays, picks)?)
    });
    Ok(SortedRows {
        hashes: located().map(|(block, row)| block.hash(row)).collect(),
        ops: located().map(|(block, row)| block.op(row)).collect::<Result<_>>()?,
        buckets: located().map(|(block, row)| block.bucket(row)).collect(),
        rows: batch_of(schema, columns.collect::<Result<_>>()?, picks.len())?,
    })
}

impl Iterator for Merge {
    type Item = Result<SortedRows>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match self.fill() {
            Ok(()) if self.picks.is_empty() => None,
            Ok(()) => {
                let piece = self.piece();
                self.failed = piece.is_err();
                Some(piece)
            }
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}
