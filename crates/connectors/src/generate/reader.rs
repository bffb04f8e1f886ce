//! Reads generated splits: of those it has, always the one whose next row comes first.

use std::collections::BTreeMap;
use std::sync::Arc;

use ruslo_core::error::{Error, Result};
use ruslo_core::source::{Budget, Polled, Position, SourceReader, Split, SplitId};
use serde::{Deserialize, Serialize};

use super::{Blocks, Generator};

/// The next row of a split, as it stands in checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Place {
    /// Blocks of the split that are read.
    block: u64,
    /// Rows of the block at hand that are read.
    row: u64,
}

pub(super) struct BlockReader {
    generator: Arc<dyn Generator>,
    splits: BTreeMap<SplitId, (Blocks, Place)>,
}

impl BlockReader {
    pub(super) fn new(generator: Arc<dyn Generator>) -> Self {
        Self { generator, splits: BTreeMap::new() }
    }

    /// The split whose next row has the least number.
    fn next(&self) -> Option<SplitId> {
        let next_row = |(blocks, place): &(Blocks, Place)| blocks.rows_of(place.block).start.saturating_add(place.row);
        self.splits.iter().min_by_key(|(_, split)| next_row(split)).map(|(id, _)| id.clone())
    }
}

impl SourceReader for BlockReader {
    fn add_split(&mut self, split: Split, position: Option<Position>) -> Result<()> {
        let broken =
            |error: serde_json::Error| Error::corrupt(format!("{}: not a generated split: {error}", split.lineage));
        let blocks: Blocks = serde_json::from_value(split.description.clone()).map_err(broken)?;
        let place =
            position.map_or(Ok(Place::default()), |position| serde_json::from_value(position).map_err(broken))?;
        self.splits.insert(split.id(), (blocks, place));
        Ok(())
    }

    fn poll(&mut self, budget: Budget) -> Result<Polled> {
        let Some(id) = self.next() else { return Ok(Polled::Pending(None)) };
        let Some((blocks, place)) = self.splits.get_mut(&id) else { return Ok(Polled::Pending(None)) };
        let block = blocks.rows_of(place.block);
        let start = block.start.saturating_add(place.row).min(block.end);
        let end = start.saturating_add(budget.rows_max as u64).min(block.end);
        if start >= end {
            self.splits.remove(&id);
            return Ok(Polled::Finished(id));
        }
        *place = if end == block.end {
            Place { block: place.block + 1, row: 0 }
        } else {
            Place { row: place.row + (end - start), ..*place }
        };
        let position = serde_json::to_value(*place).map_err(|error| Error::internal(error.to_string()))?;
        Ok(Polled::Batch { split: id, batch: self.generator.generate(start..end)?, position })
    }
}
