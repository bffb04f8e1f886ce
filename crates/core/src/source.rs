//! How rows come in: a source lists its splits, readers read them, and the runtime keeps the books.
//!
//! A *split* is a piece of input that one reader reads from front to back: a byte range of a file, a partition. Splits
//! that continue each other form a *lineage* (a file): they carry one watermark, in sequence. Every batch comes from
//! one split.

use std::collections::BTreeSet;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::clock::Instant;
use crate::dead_letter::{Origins, Rejected};
use crate::environment::Environment;
use crate::error::Result;
use crate::sink::Guarantee;
use crate::time::Timestamp;

/// A reader's place in a split; the connector's own notation, stored in checkpoints.
pub type Position = serde_json::Value;

/// A piece of input that one reader reads from front to back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// What the split is a part of (a file's path, a partition's name).
    pub lineage: String,
    /// Its place in the lineage, from 0 without gaps.
    pub sequence: u64,
    /// Whether it goes on for ever: then its reader reads it beside its other splits, not before them.
    #[serde(default)]
    pub is_endless: bool,
    /// What the reader needs to know; the connector's own notation.
    pub description: serde_json::Value,
}

impl Split {
    /// What tells this split from all others.
    pub fn id(&self) -> SplitId {
        SplitId { lineage: self.lineage.clone(), sequence: self.sequence }
    }
}

/// What tells a split from all others: ordered by lineage, then by place in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SplitId {
    /// See [`Split::lineage`].
    pub lineage: String,
    /// See [`Split::sequence`].
    pub sequence: u64,
}

/// What one call of [`SourceReader::poll`] may read.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// Rows at most; a batch may be smaller.
    pub rows_max: usize,
}

/// What came of one [`SourceReader::poll`].
#[derive(Debug)]
pub enum Polled {
    /// Rows of the split `split` (as given to [`SourceReader::add_split`]); `position` is where it goes on.
    Batch {
        /// Which split.
        split: SplitId,
        /// Its next rows.
        batch: RecordBatch,
        /// Where to go on after them.
        position: Position,
    },
    /// The same from a reader that leaves bad records out, because its table says so.
    Sifted(Sifted),
    /// Something was done for the split that brought nothing yet: poll again at once.
    Worked(SplitId),
    /// The split is read to its end.
    Finished(SplitId),
    /// Nothing now; poll again at this processing time at the latest.
    Pending(Option<Instant>),
}

/// Rows of a split without the records that could not become rows.
pub struct Sifted {
    /// Which split.
    pub split: SplitId,
    /// Its next rows; may be none.
    pub batch: RecordBatch,
    /// Where to go on after them and after what was rejected.
    pub position: Position,
    /// The records left out, in order. They count as rows of the budget.
    pub rejected: Vec<Rejected>,
    /// Finds the records of the rows; none if nobody wants them.
    pub origins: Option<Box<dyn Origins>>,
}

impl std::fmt::Debug for Sifted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { split, batch, position, rejected, .. } = self;
        let mut shown = f.debug_struct("Sifted");
        shown.field("split", split).field("rows", &batch.num_rows()).field("position", position);
        shown.field("rejected", rejected).finish_non_exhaustive()
    }
}

/// Reads splits. Lives in one source subtask.
pub trait SourceReader: Send {
    /// Adds a split to read, from `position` or from its start.
    fn add_split(&mut self, split: Split, position: Option<Position>) -> Result<()>;

    /// Reads on. Called only while a split is unfinished.
    fn poll(&mut self, budget: Budget) -> Result<Polled>;
}

/// What has changed in a watched input since it was last looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Splits of lineages that have appeared, ordered by (lineage, sequence).
    pub splits: Vec<Split>,
    /// Lineages that need not be remembered once they are read: they will not be discovered again.
    pub forgettable: Vec<String>,
    /// What has appeared and is not read, because it is older than the table allows; each is told once.
    pub too_old: Vec<String>,
}

/// A table that can be read.
pub trait Source: Send + Sync {
    /// The columns that come out.
    fn schema(&self) -> SchemaRef;

    /// Whether its rows carry kinds ([`crate::changelog`]): its records are changes.
    fn tells_changes(&self) -> bool {
        false
    }

    /// Whether its input ends by itself.
    fn is_bounded(&self) -> bool {
        true
    }

    /// Whether what was read can be read again, after the process died.
    fn is_replayable(&self) -> bool {
        true
    }

    /// The most that a pipeline can promise that reads it.
    fn guarantee(&self) -> Guarantee {
        if self.is_replayable() { Guarantee::ExactlyOnce } else { Guarantee::AtMostOnce }
    }

    /// Rows a second that are read at most, if the table does not say otherwise.
    fn rows_per_second(&self) -> Option<u64> {
        None
    }

    /// All splits of bounded input, ordered by (lineage, sequence). The cut must not depend on parallelism.
    ///
    /// # Errors
    /// `Usage`, if the input does not exist; `Resource` or `Unavailable`, if it cannot be listed.
    fn splits(&self, environment: &Environment) -> Result<Vec<Split>>;

    /// How often to look for new lineages: then the input has no end. None, if what is there at the start is all.
    fn monitor_interval(&self) -> Option<Duration> {
        None
    }

    /// Looks for lineages that are not among the `known`. Runs off the task threads.
    ///
    /// # Errors
    /// As [`Self::splits`].
    fn discover(&self, environment: &Environment, known: &BTreeSet<String>) -> Result<Discovered> {
        let _ = (environment, known);
        Ok(Discovered::default())
    }

    /// A reader for one subtask.
    fn reader(&self, environment: &Environment) -> Result<Box<dyn SourceReader>>;
}

/// Event time of one lineage, as far as it has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitWatermark(pub Timestamp);

impl SplitWatermark {
    /// Before the first row.
    pub const START: Self = Self(Timestamp::MIN);
}

/// What [`RowTime::assign`] makes of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Assigned {
    /// The table's rows.
    pub batch: RecordBatch,
    /// How many of them were too far ahead of the wall clock to move the watermark.
    pub ahead_rows: usize,
}

/// What happens to a batch between the reader and the first operator: computed columns, row time and watermark.
pub trait RowTime: Send + Sync {
    /// The columns that come out, without hidden ones.
    fn schema(&self) -> SchemaRef;

    /// Makes the table's rows from the reader's and moves `watermark` past them; `wall` is the calendar's time now.
    /// Where some row could be late, the result carries [`crate::schema::SPLIT_WATERMARK`].
    ///
    /// # Errors
    /// `Data`, if an expression fails on a value.
    fn assign(&self, batch: RecordBatch, watermark: &mut SplitWatermark, wall: Timestamp) -> Result<Assigned>;

    /// Whether the clock makes the source's watermarks, and not the rows: some operator works by processing time. Then
    /// the time that [`Self::assign`] gets is after every watermark so far, even if the calendar went back.
    fn is_driven_by_clock(&self) -> bool {
        false
    }
}
