//! Seeded simulation of whole pipelines: what they promise must hold whatever fails, whenever.
//!
//! A *run* follows from a [`scenario::Scenario`] and a seed: data, graph, parallelism, bounds and faults. It starts a
//! pipeline on the seeded executor, breaks it, starts it again, until its input is read to the end; then the oracle,
//! which knows only the seed, says whether the output is right.
//!
//! ```text
//! seed ─▶ scenario ─▶ dataset, shape ─▶ attempts on SeededJob ◀─ faults (process, disk, zombies, damage)
//!             │                              │
//!             └──────────▶ oracle ═══equal?═══ rows that the sinks show
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`dataset`], [`source`], [`operators`], [`tally`], [`sink`], [`files`] | what flows, and the ends and middles made for it |
//! | [`shape`], [`nodes`], [`joined`], [`temporal`], [`changing`] | the graph, how it is built at some parallelism, and which operators of the product it has |
//! | [`changes`], [`changelog`] | tables that change: as they are read, and what comes out of them |
//! | [`process`], [`disk`], [`faults`] | what can break, and the plan that breaks it |
//! | [`oracle`] | what must come out |
//! | [`scenario`], [`attempt`], [`run`], [`damage`] | one run from seed to verdict |
//! | [`report`], [`hunt`] | verdicts added up; planted bugs caught |
//! | [`mod@bug`], [`sabotage`] | the planted bugs; operators made wrong from outside |
//!
//! The harness is tested, too: it must catch each of [`bug::Bug::all`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test crate: a panic is a failed run, caught and reported with its seed"
)]

pub mod attempt;
pub mod bug;
pub mod changelog;
pub mod changes;
pub mod changing;
pub mod damage;
pub mod dataset;
pub mod disk;
pub mod faults;
pub mod files;
pub mod hunt;
pub mod joined;
#[cfg(test)]
mod named;
pub mod nodes;
pub mod operators;
pub mod oracle;
pub mod process;
pub mod report;
pub mod run;
pub mod sabotage;
pub mod scenario;
pub mod shape;
pub mod sink;
pub mod source;
pub mod tally;
pub mod temporal;
#[cfg(test)]
mod timed;
pub mod trace;
