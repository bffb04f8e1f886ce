//! Joins by the last row before: each left row beside one right row of its key, the one that counts at the left row's time.
//!
//! Both the temporal join (`FOR SYSTEM_TIME AS OF`, the right rows are versions of a table's rows) and the ASOF join are
//! this. Rows of both sides wait in order of time until the watermark has reached them; so when a left row is taken up, no
//! earlier right row can come any more. What stays of the right side is one row a key: the last.
//!
//! ```text
//! left rows ──▶ waiting ─┐ up to the watermark
//! right rows ─▶ waiting ─┴─▶ a minute of both: each left row beside the last right row of its key ─▶ out
//!                                  └ the last of each key ─▶ "as_of_versions"
//! ```
//!
//! A right row is valid from its time on, or, if its split's watermark had reached that time, from right behind that
//! watermark: what comes late counts for rows to come, and the answer does not depend on who was faster. A left row that
//! comes late is dropped and counted.
//!
//! What is stored: `docs/design/temporal-join-state.md`.

mod keys;
mod operator;
mod side;
mod spec;
#[cfg(test)]
mod tests;
mod versions;

pub use spec::{AsOf, AsOfJoinInput, AsOfJoinSpec};
