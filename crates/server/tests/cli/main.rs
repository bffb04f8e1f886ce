//! The real `ruslo` process: what it prints, how it exits, what it leaves behind, and what becomes of its work when it is
//! stopped, killed, or given what it cannot use.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "files, processes and waiting are the tests' own")]

mod bad_checkpoints;
mod bad_input;
mod bad_machine;
mod checkpoint;
mod commands;
mod delivery;
mod fixtures;
#[allow(dead_code, reason = "shared with the proofs, and each uses a part")]
mod home;
mod http;
mod keyed;
mod kill;
mod moto;
mod object_store;
mod otlp;
mod pipes;
mod resume;
mod savepoint;
mod several;
mod slow_sink;
mod transfers;
mod upgrade;
mod watched;
