//! Sources that make their rows up: any row can be computed from its number, so a split is a range of numbers and a
//! position is the next one. `datagen` and `nexmark` are [`Generator`]s; everything else about them is here.
//!
//! Rows are dealt in blocks of [`BLOCK_ROWS`] to [`LINEAGES`] lineages in turn, so that every lineage goes through the
//! whole of event time in order and readers can work side by side. The cut does not depend on parallelism. With an end,
//! each block is a split; without one, each lineage is a single split that never ends.

mod reader;
pub(crate) mod stream;

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use ruslo_core::environment::Environment;
use ruslo_core::error::Result;
use ruslo_core::source::{Source, SourceReader, Split};
use serde::{Deserialize, Serialize};

use self::reader::BlockReader;

/// Rows of a block: what a batch has by default.
pub(crate) const BLOCK_ROWS: u64 = 8_192;
/// How many lineages the blocks are dealt to.
pub(crate) const LINEAGES: u64 = 8;

/// Makes rows from their numbers.
pub(crate) trait Generator: Send + Sync {
    /// The columns that come out.
    fn schema(&self) -> SchemaRef;

    /// How many rows there are; none without an end.
    fn rows(&self) -> Option<u64>;

    /// Rows a second that are made at most, if the table does not say otherwise.
    fn rows_per_second(&self) -> Option<u64> {
        None
    }

    /// The rows of these numbers, in order.
    fn generate(&self, rows: Range<u64>) -> Result<RecordBatch>;
}

/// The rows of a split, as blocks: `first`, `first + step`, … while they are before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Blocks {
    first: u64,
    /// 0 for a single block.
    step: u64,
    /// The number of rows of the whole source, if it ends.
    rows: Option<u64>,
}

impl Blocks {
    /// The rows of the split's `index`th block; empty behind the last.
    fn rows_of(self, index: u64) -> Range<u64> {
        let end = self.rows.unwrap_or(u64::MAX);
        if self.step == 0 && index > 0 {
            return end..end;
        }
        let block = self.first.saturating_add(index.saturating_mul(self.step));
        let start = block.saturating_mul(BLOCK_ROWS);
        start.min(end)..start.saturating_add(BLOCK_ROWS).min(end)
    }
}

/// A generator as a source.
pub(crate) struct GeneratedSource {
    generator: Arc<dyn Generator>,
}

impl GeneratedSource {
    pub(crate) fn new(generator: impl Generator + 'static) -> Self {
        Self { generator: Arc::new(generator) }
    }
}

impl Source for GeneratedSource {
    fn schema(&self) -> SchemaRef {
        self.generator.schema()
    }

    fn is_bounded(&self) -> bool {
        self.generator.rows().is_some()
    }

    fn rows_per_second(&self) -> Option<u64> {
        self.generator.rows_per_second()
    }

    fn splits(&self, _: &Environment) -> Result<Vec<Split>> {
        let rows = self.generator.rows();
        let mut splits = match rows {
            Some(rows) => (0..rows.div_ceil(BLOCK_ROWS))
                .map(|block| {
                    split(block % LINEAGES, block / LINEAGES, Blocks { first: block, step: 0, rows: Some(rows) })
                })
                .collect::<Result<Vec<_>>>()?,
            None => (0..LINEAGES)
                .map(|lineage| split(lineage, 0, Blocks { first: lineage, step: LINEAGES, rows: None }))
                .collect::<Result<Vec<_>>>()?,
        };
        splits.sort_by_key(Split::id);
        Ok(splits)
    }

    fn reader(&self, _: &Environment) -> Result<Box<dyn SourceReader>> {
        Ok(Box::new(BlockReader::new(Arc::clone(&self.generator))))
    }
}

fn split(lineage: u64, sequence: u64, blocks: Blocks) -> Result<Split> {
    let description =
        serde_json::to_value(blocks).map_err(|error| ruslo_core::error::Error::internal(error.to_string()))?;
    let is_endless = blocks.rows.is_none();
    Ok(Split { lineage: format!("generated-{lineage}"), sequence, is_endless, description })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn blocks_cover_every_row_once() {
        for rows in [0, 1, BLOCK_ROWS, BLOCK_ROWS + 1, 20 * BLOCK_ROWS + 7] {
            let blocks = (0..rows.div_ceil(BLOCK_ROWS)).map(|first| Blocks { first, step: 0, rows: Some(rows) });
            let covered: Vec<u64> = blocks.flat_map(|blocks| blocks.rows_of(0)).collect();
            assert_eq!(covered, (0..rows).collect::<Vec<_>>());
        }
        let endless = |first| Blocks { first, step: LINEAGES, rows: None };
        let covered: BTreeSet<u64> =
            (0..LINEAGES).flat_map(|lineage| (0..3).flat_map(move |index| endless(lineage).rows_of(index))).collect();
        assert_eq!(covered, (0..3 * LINEAGES * BLOCK_ROWS).collect());
    }

    #[test]
    fn a_single_block_has_no_second() {
        let blocks = Blocks { first: 1, step: 0, rows: Some(3 * BLOCK_ROWS) };
        assert_eq!(blocks.rows_of(0), BLOCK_ROWS..2 * BLOCK_ROWS);
        assert!(blocks.rows_of(1).is_empty());
    }
}
