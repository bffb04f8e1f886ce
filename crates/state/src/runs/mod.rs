//! Sorted runs on disk: the lower layer of a keyed table.
//!
//! A [`RunSet`] owns the runs of one table of one subtask. Rows come in as [`SortedRows`] (a flush or a sealed epoch) and
//! become an immutable run in the working folder; they are found by key, scanned in order, merged with their neighbours
//! when there are too many, and named by checkpoints. Memory holds of each run its sparse index and its filter only.
//!
//! ```text
//! rows ─▶ writer ─▶ run (block · footer) ─▶ find | cursor ─▶ merge ─▶ scan, compaction
//! ```
//!
//! The format is specified in `docs/design/keyed-state.md`. The resident layer above it is `crate::resident`.

mod block;
mod cursor;
mod fetched;
mod filter;
mod find;
mod footer;
mod merge;
mod policy;
mod raw;
mod rows;
mod run;
mod same;
mod schema;
mod set;
mod work;
mod writer;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod model;

pub use fetched::{Fetched, Temporary, verify};
pub use find::Found;
pub use merge::Merge;
pub use rows::{DirtyRows, Op, SortedRows, place_of};
pub use run::Run;
pub use same::{check_types, same_rows};
pub use schema::{Kind, TableSchema, Ttl};
pub use set::{RunSet, RunSetSnapshot, Slot};
pub use work::WorkFolder;
