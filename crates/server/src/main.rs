//! The `ruslo` command.
//!
//! `args` says what can be asked, `command` does it; `run` is the longest of its answers: it starts a job and follows it
//! with a `view` (`live` on a terminal, `plain` in a pipe) until it ends by itself or by `signals`, then tells its
//! `summary`. `figures` are what
//! `http` answers and `otlp` sends meanwhile; `control` is where the job can be asked for something. `exit` maps errors to exit codes. Results go to standard output, everything about them to standard error.

mod args;
mod bench;
mod checkpoint;
mod command;
mod control;
mod cost;
mod exit;
mod figures;
mod http;
mod ledger;
mod live;
mod log;
mod otlp;
mod plain;
mod restarts;
mod resume;
mod run;
mod screen;
mod several;
mod signals;
mod state;
mod summary;
mod table;
mod text;
mod view;

use std::process::ExitCode;

use clap::Parser;

/// Millions of small allocations a second: mimalloc is the faster one at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    command::execute(&args::Cli::parse())
}
