//! The seam of standard input: bytes that come from outside, once, and are not a file.
//!
//! Life of an input: one reader claims it, which begins to read; the reader takes what has come so far, as often as it
//! likes, and never waits; at last it is told that this was all.

use std::io::{ErrorKind as Io, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;

use crate::error::{Error, Result};

/// How much is read before somebody takes it, in bytes; then whoever writes into the pipe waits.
const BUFFER_BYTES_MAX: usize = 1 << 20;

/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// What one look at standard input found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Some bytes.
    Bytes,
    /// None so far.
    Nothing,
    /// None, and none will come.
    End,
}

/// Bytes from outside, which come once.
pub trait StandardInput: Send + Sync {
    /// Begins to read, for one reader only.
    ///
    /// # Errors
    /// `Usage`, if it is somebody's already.
    fn claim(&self) -> Result<()>;

    /// Appends up to `bytes_max` bytes that have come to `into`. Never waits.
    ///
    /// # Errors
    /// `Resource`, if it cannot be read.
    fn take(&self, into: &mut Vec<u8>, bytes_max: usize) -> Result<Taken>;
}

/// No standard input: for tests, and programs that have another use for theirs.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoInput;

impl StandardInput for NoInput {
    fn claim(&self) -> Result<()> {
        Err(Error::usage("there is no standard input here"))
    }

    fn take(&self, _: &mut Vec<u8>, _: usize) -> Result<Taken> {
        Ok(Taken::End)
    }
}

/// An input read by a thread of its own, which waits where nobody else may.
pub struct ThreadedInput {
    unclaimed: Mutex<Option<Box<dyn Read + Send>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    pipe: Mutex<Pipe>,
    room: Condvar,
}

#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    /// How it ended, once it has.
    end: Option<Result<()>>,
}

impl ThreadedInput {
    /// What `input` brings; read from the claim on.
    pub fn new(input: impl Read + Send + 'static) -> Self {
        Self { unclaimed: Mutex::new(Some(Box::new(input))), shared: Arc::default() }
    }
}

impl StandardInput for ThreadedInput {
    fn claim(&self) -> Result<()> {
        let Some(input) = lock(&self.unclaimed).take() else {
            return Err(Error::usage("standard input can be read once: by one table, in one job"));
        };
        let shared = Arc::clone(&self.shared);
        let thread = Builder::new().name("ruslo-stdin".to_owned()).spawn(move || shared.read_all(input));
        thread.map(|_| ()).map_err(|error| Error::io("cannot start a thread", &error))
    }

    fn take(&self, into: &mut Vec<u8>, bytes_max: usize) -> Result<Taken> {
        let mut pipe = lock(&self.shared.pipe);
        if pipe.bytes.is_empty() {
            return pipe.end.clone().map_or(Ok(Taken::Nothing), |end| end.map(|()| Taken::End));
        }
        let count = pipe.bytes.len().min(bytes_max);
        into.extend(pipe.bytes.drain(..count));
        self.shared.room.notify_one();
        Ok(Taken::Bytes)
    }
}

impl Shared {
    fn read_all(&self, mut input: Box<dyn Read + Send>) {
        let mut chunk = vec![0; CHUNK_BYTES];
        let end = loop {
            match input.read(&mut chunk) {
                Ok(0) => break Ok(()),
                Ok(count) => self.put(chunk.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == Io::Interrupted => {}
                Err(error) => break Err(Error::io("standard input", &error)),
            }
        };
        lock(&self.pipe).end = Some(end);
    }

    /// Waits for room.
    fn put(&self, bytes: &[u8]) {
        let mut pipe = lock(&self.pipe);
        while pipe.bytes.len() >= BUFFER_BYTES_MAX {
            pipe = self.room.wait(pipe).unwrap_or_else(PoisonError::into_inner);
        }
        pipe.bytes.extend_from_slice(bytes);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::error::ErrorKind;

    fn all(input: &ThreadedInput, bytes_max: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let before = bytes.len();
            match input.take(&mut bytes, bytes_max)? {
                Taken::Bytes => assert!((1..=bytes_max).contains(&(bytes.len() - before))),
                Taken::Nothing => std::thread::yield_now(),
                Taken::End => return Ok(bytes),
            }
        }
    }

    #[test]
    fn everything_comes_once_and_in_order_through_a_small_buffer() {
        let given: Vec<u8> = (0..3 * BUFFER_BYTES_MAX).map(|at| (at % 251) as u8).collect();
        let input = ThreadedInput::new(io::Cursor::new(given.clone()));
        assert_eq!(input.take(&mut Vec::new(), 9).unwrap(), Taken::Nothing, "nobody has claimed it");
        input.claim().unwrap();
        assert!(all(&input, 70_000).unwrap() == given);
        assert_eq!(input.claim().unwrap_err().kind(), ErrorKind::Usage);
    }

    /// Brings two bytes, is interrupted, and breaks.
    struct Breaks(usize);

    impl Read for Breaks {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            match self.0 {
                1 => {
                    into[..2].copy_from_slice(b"ab");
                    Ok(2)
                }
                2 => Err(Io::Interrupted.into()),
                _ => Err(Io::PermissionDenied.into()),
            }
        }
    }

    #[test]
    fn an_error_comes_behind_the_bytes_before_it() {
        let input = ThreadedInput::new(Breaks(0));
        input.claim().unwrap();
        let mut bytes = Vec::new();
        while input.take(&mut bytes, 9).unwrap() == Taken::Nothing {}
        assert_eq!(bytes, b"ab");
        let error = all(&input, 9).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Resource, "standard input: permission denied")
        );
    }
}
