//! The one error of Ruslo: few public kinds, each of which says whose fault it is and whether to try again.

use std::fmt;

/// A `Result` with Ruslo's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose fault an error is. The `ruslo` command's exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The user's: SQL, options, arguments. Trying again without a change cannot help.
    Usage,
    /// The input's: a row, a file or a value that doesn't fit. Names where it stands.
    Data,
    /// The machine's: disk full, memory limit, permission. Helps: free the resource, then resume.
    Resource,
    /// A peer's: a broker, a store, a file system that does not answer now. Trying again may help.
    Unavailable,
    /// Stored bytes are not what was written. Names the file.
    Corrupt,
    /// Another process took this pipeline over; this one must stop and touch nothing more.
    Fenced,
    /// Ours: an invariant does not hold. Please report it.
    Internal,
}

/// An error with its kind, a sentence that a person can act on, and what caused it.
///
/// ```
/// use ruslo_core::error::{Error, ErrorKind};
///
/// let error = Error::data("'abc' is not a BIGINT").context("flights.csv line 3, column 'distance'");
/// assert_eq!(error.kind(), ErrorKind::Data);
/// assert_eq!(error.to_string(), "flights.csv line 3, column 'distance': 'abc' is not a BIGINT");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    /// An error of `kind` that reads `message`.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message }
    }

    /// A mistake in SQL, options or arguments.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// Input that does not fit.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Data, message)
    }

    /// The machine ran out of something.
    pub fn resource(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Resource, message)
    }

    /// A peer does not answer now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }

    /// Stored bytes are damaged.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    /// Another process took over.
    pub fn fenced(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fenced, message)
    }

    /// An invariant of ours does not hold.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// An I/O error on `what`, sorted into its kind: a full disk is the machine's fault, a missing file the user's.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let (kind, sentence) = match error.kind() {
            Io::NotFound => (ErrorKind::Usage, "no such file or folder".to_owned()),
            Io::IsADirectory => (ErrorKind::Usage, "this is a folder, not a file".to_owned()),
            Io::NotADirectory => (ErrorKind::Usage, "this is a file, not a folder".to_owned()),
            Io::PermissionDenied => (ErrorKind::Resource, "permission denied".to_owned()),
            Io::StorageFull | Io::QuotaExceeded => {
                (ErrorKind::Resource, "the disk is full; free some space, then resume".to_owned())
            }
            Io::ReadOnlyFilesystem => (
                ErrorKind::Resource,
                "the file system is read-only; make it writable, or name another folder".to_owned(),
            ),
            _ => (ErrorKind::Unavailable, error.to_string()),
        };
        Self::new(kind, format!("{what}: {sentence}"))
    }

    /// The same error with `context` in front: where it happened.
    #[must_use]
    pub fn context(self, context: impl fmt::Display) -> Self {
        Self { message: format!("{context}: {}", self.message), ..self }
    }

    /// Whose fault it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the same call may succeed later with nothing changed.
    pub fn is_retryable(&self) -> bool {
        self.kind == ErrorKind::Unavailable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == ErrorKind::Internal {
            write!(f, "internal error (please report it): ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<arrow::error::ArrowError> for Error {
    /// A kernel that fails on values is the data's fault; anything else about a batch is ours.
    fn from(error: arrow::error::ArrowError) -> Self {
        use arrow::error::ArrowError as Arrow;
        match error {
            Arrow::ComputeError(m) | Arrow::CastError(m) | Arrow::ParseError(m) | Arrow::ArithmeticOverflow(m) => {
                Self::data(m)
            }
            Arrow::DivideByZero => Self::data("division by zero"),
            other => Self::internal(other.to_string()),
        }
    }
}

/// Adds where an error happened to a `Result`.
pub trait ResultExt<T> {
    /// The same result with `context` in front of its error.
    fn context<C: fmt::Display>(self, context: impl FnOnce() -> C) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    fn context<C: fmt::Display>(self, context: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|error| error.into().context(context()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_the_machines_fault_and_a_missing_file_the_users() {
        let full = Error::io("out/part-0", &std::io::Error::from(std::io::ErrorKind::StorageFull));
        assert_eq!(full.kind(), ErrorKind::Resource);
        assert_eq!(full.to_string(), "out/part-0: the disk is full; free some space, then resume");
        let missing = Error::io("in.csv", &std::io::Error::from(std::io::ErrorKind::NotFound));
        assert_eq!(missing.kind(), ErrorKind::Usage);
    }

    #[test]
    fn only_an_unavailable_peer_is_worth_a_second_try() {
        assert!(Error::unavailable("broker").is_retryable());
        assert!(!Error::corrupt("manifest").is_retryable());
    }

    #[test]
    fn an_internal_error_asks_to_be_reported() {
        let error = Error::internal("epoch went back").context("task 3");
        assert_eq!(error.to_string(), "internal error (please report it): task 3: epoch went back");
    }
}
