//! The planner from outside: plans as golden files, every error with its caret, the types of results.

#![allow(clippy::disallowed_methods, reason = "golden files are read and rewritten directly")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod compiled;
mod errors;
mod jobs;
mod plans;
mod types;
mod world;
