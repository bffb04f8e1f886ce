//! Standard output, as sinks write to it.

use std::io::{ErrorKind as Io, Write};

use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, ErrorKind, Result};
use ruslo_core::sink::{Committable, Committer};

/// What the error of a closed standard output reads.
const CONSOLE_CLOSED: &str = "standard output was closed by the program that reads it";

/// Whether an error only says that nobody reads the output any more (`ruslo run .. | head`): no fault of anyone's, and
/// nothing to report.
pub fn is_console_closed(error: &Error) -> bool {
    error.kind() == ErrorKind::Resource && error.to_string().ends_with(CONSOLE_CLOSED)
}

/// Writes all of it now.
pub(crate) fn put(console: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    let written = console.write_all(bytes).and_then(|()| console.flush());
    written.map_err(|error| match error.kind() {
        Io::BrokenPipe => Error::resource(CONSOLE_CLOSED),
        _ => Error::io("standard output", &error),
    })
}

/// There is nothing to commit and nothing to take back.
pub(crate) struct AlreadyPrinted;

impl Committer for AlreadyPrinted {
    fn commit(&mut self, _: &[Committable]) -> Result<()> {
        Ok(())
    }

    fn abort_since(&mut self, _: Epoch) -> Result<()> {
        Ok(())
    }
}
