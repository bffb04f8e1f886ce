//! Exit codes: whose fault it was.

use std::process::ExitCode;

use ruslo::ErrorKind;

/// Stopped by Ctrl-C or SIGTERM: 128 + SIGINT, as shells have it.
pub(crate) const STOPPED: u8 = 130;

const KINDS: [ErrorKind; 7] = [
    ErrorKind::Usage,
    ErrorKind::Data,
    ErrorKind::Resource,
    ErrorKind::Corrupt,
    ErrorKind::Fenced,
    ErrorKind::Unavailable,
    ErrorKind::Internal,
];

/// The exit codes, for `--help`.
pub(crate) const HELP: &str = "\
Exit codes:
    0  finished
    2  wrong arguments, SQL or settings, or a file that is not there
    3  input that does not fit: a malformed row, a wrong type, a value out of range
    4  the machine ran out of something: disk, memory, permission
    5  stored bytes are damaged: checkpoints, committed output
    6  another process is running on the same checkpoints
    7  something outside does not answer now; trying again may help
   70  an error of ruslo's own; please report it
  130  stopped by Ctrl-C, SIGTERM or 'ruslo stop'";

/// The exit code of an error.
pub(crate) fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Usage => 2,
        ErrorKind::Data => 3,
        ErrorKind::Resource => 4,
        ErrorKind::Corrupt => 5,
        ErrorKind::Fenced => 6,
        ErrorKind::Unavailable => 7,
        ErrorKind::Internal => 70,
    }
}

/// The kind that [`name`] calls so.
pub(crate) fn kind(called: &str) -> Option<ErrorKind> {
    KINDS.into_iter().find(|kind| name(*kind) == called)
}

/// What a kind is called where machines read it.
pub(crate) fn name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Usage => "usage",
        ErrorKind::Data => "data",
        ErrorKind::Resource => "resource",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::Fenced => "fenced",
        ErrorKind::Unavailable => "unavailable",
        ErrorKind::Internal => "internal",
    }
}

/// From the best to the worst.
const BY_SEVERITY: [u8; 9] = [0, STOPPED, 7, 4, 3, 2, 6, 5, 70];

/// Of several exit codes, the one that needs somebody the most.
pub(crate) fn worst(codes: &[u8]) -> u8 {
    let severity = |code: &&u8| BY_SEVERITY.iter().position(|of| of == *code).unwrap_or(BY_SEVERITY.len());
    codes.iter().max_by_key(severity).copied().unwrap_or_default()
}

/// The exit code of an outcome.
pub(crate) fn of(outcome: Result<(), ErrorKind>) -> ExitCode {
    outcome.map_or_else(|kind| ExitCode::from(code(kind)), |()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_what_needs_somebody_the_most() {
        assert_eq!(worst(&[]), 0);
        assert_eq!(worst(&[0, STOPPED, 0]), STOPPED);
        assert_eq!(worst(&[3, 0, 70, 5]), 70);
        assert_eq!(worst(&[7, 2]), 2);
    }

    #[test]
    fn every_kind_has_a_code_of_its_own_that_help_explains() {
        let mut codes: Vec<_> = KINDS.into_iter().map(code).chain([0, STOPPED]).collect();
        for code in &codes {
            assert!(HELP.lines().any(|line| line.trim_start().starts_with(&format!("{code} "))), "{code}");
        }
        codes.sort();
        codes.dedup();
        assert_eq!(codes.len(), KINDS.len() + 2);
    }
}
