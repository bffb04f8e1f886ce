//! The regular join: two changing tables, each row of one beside those of the other that have the same key and meet the
//! condition, for as long as both are there.
//!
//! Each side is a keyed table under the join key ([`side`]). A batch of one side is looked up in the other side's table, a
//! slice at a time ([`lookup`]); then its rows go into, or out of, their own table. A side whose rows also go out alone
//! (outer, semi and anti joins) keeps with each row how many partners it has, so that what is given out for the lack of
//! one is taken back when there is one, and the other way round.
//!
//! ```text
//! batch ─▶ removals, then additions ─ slice ─▶ rows of the other side ─▶ pairs ─▶ out
//!          (work)                        │      (lookup; hot, if many)    (lines)
//!                                        └─▶ own side
//! ```
//!
//! A key with very many rows on the other side is *hot*: it is joined one row at a time, in an order that survives a
//! restore, a bounded number of pairs a call ([`hot`]). What is left of a batch when a barrier comes goes into the
//! checkpoint ([`work`]) and is taken up before anything else comes in, so it sees the other side as it was.
//!
//! Tables and columns: `docs/design/changelog.md`.

mod hot;
mod lines;
mod lookup;
mod operator;
mod side;
mod spec;
#[cfg(test)]
mod tests;
mod work;

pub use self::spec::{RegularJoinInput, RegularJoinKind, RegularJoinSpec};
