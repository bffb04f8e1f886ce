//! Joins that event time bounds: of rows whose times are at most so far apart, and of rows of one window.
//!
//! ```text
//! left rows ──▶ buckets of the left ──┐ probe the other side's buckets that may hold partners
//! right rows ─▶ buckets of the right ─┘ ─▶ candidates ─▶ same key, condition ─▶ out
//!                    └ once the watermark has passed their last partner: unmatched rows beside NULLs, then gone
//! ```
//!
//! A window join is the same with the window's last millisecond for a time, and no distance: rows find each other as they
//! come, not only when the window ends.
//!
//! Each row has a number, greater than those of all rows that came before it. A pair is found by the later row of the two,
//! which walks along the earlier ones from the greatest number down: so the number that it has come to says all about what
//! is left to do, and a barrier may come anywhere in the middle of a hot key. Numbers differ within a key group.
//!
//! What is stored, and when it goes: `docs/design/timed-join-state.md`.

mod bucket;
mod operator;
mod side;
mod spec;
#[cfg(test)]
mod tests;

pub use spec::{TimedJoinInput, TimedJoinKind, TimedJoinSpec};
