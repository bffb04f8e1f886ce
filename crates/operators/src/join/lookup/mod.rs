//! The lookup join: each row of a stream with the rows that a table has under its key when the row comes by.
//!
//! ```text
//! batch ─ distinct keys ─▶ in memory? ──yes──────────────────────▶ pairs ─▶ out
//!                             └─no─▶ request ─▶ (rows wait) ─ answer ─▶ ┘
//! ```
//!
//! [`spec`] says what is joined, [`operator`] is the join, [`waiting`] are the rows that wait and how checkpoints have them,
//! [`keys`] are their keys, [`cache`] what was found before, [`pairs`] the rows that go out. [`whole`] is a table that is read
//! to its end and kept by key. What is promised stands in `docs/design/lookup.md`.

mod cache;
mod keys;
mod operator;
mod pairs;
mod spec;
#[cfg(test)]
mod tests;
mod waiting;
mod whole;

pub use spec::{LookupCache, LookupJoinKind, LookupJoinSpec, LookupOptions};
pub use whole::{Reload, WholeTable};
