//! The log: what happens inside, on standard error, as `RUSLO_LOG` asks (`warn` by default; `debug`, or
//! `ruslo_runtime=debug`).

use tracing_subscriber::EnvFilter;

use crate::screen::{Screen, Stderr};

/// Starts logging for the rest of the process.
pub(crate) fn start(screen: &Screen) {
    let filter = EnvFilter::try_from_env("RUSLO_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let writer = screen.clone();
    // A second start finds the first, and is content with it.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(screen.is_terminal())
        .with_writer(move || Stderr(writer.clone()))
        .try_init();
}
