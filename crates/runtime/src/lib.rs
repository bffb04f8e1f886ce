//! Runs a physical graph: channels, tasks, the executors, and the coordinator that takes checkpoints.
//!
//! ```text
//!            ┌───────────────── task ─────────────────┐              ┌──── task ────┐
//! source ──▶ │ head ─▶ chain of operators ─▶ outputs │ ──channel──▶ │ inputs ─▶ …  │ ──▶ sink
//!            └──────────────▲──────────────┬─────────┘              └──────┬───────┘
//!                  barriers │              │ acknowledgements              │
//!                           └───────── coordinator ◀──────────────────────┘──▶ checkpoint store, committers
//! ```
//!
//! The runtime knows neither operators nor connectors nor SQL: it runs boxed traits. [`task::Task::step`] and
//! [`coordinator::Coordinator::step`] never block; [`executor::threads`] runs them on threads, [`executor::seeded`]
//! in an order that follows from a seed.

pub mod activity;
pub mod alignment;
pub mod ask;
pub mod chain;
pub mod channel;
mod compaction;
pub mod coordinator;
pub mod credit;
pub mod discovery;
pub mod exchange;
pub mod executor;
pub mod held;
mod idleness;
pub mod in_flight;
pub mod input;
mod io;
pub mod job;
pub mod latency;
pub mod layout;
pub mod ledger;
pub mod minimum;
pub mod pace;
pub mod panic;
pub mod planted;
pub mod processing_time;
pub mod scheduler;
pub mod sink;
pub mod source;
pub mod splits;
pub mod status;
pub mod task;
