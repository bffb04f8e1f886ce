//! The seams in one hand: what a pipeline may touch of the world outside.

use std::io::Write;
use std::sync::{Arc, Mutex};

use crate::clock::{Clock, SystemClock};
use crate::disk::{Disk, LocalDisk};
use crate::rng::Rng;
use crate::standard_input::{StandardInput, ThreadedInput};

/// Where `print` writes, shared with whoever else draws on the terminal.
pub type Console = Arc<Mutex<dyn Write + Send>>;

/// What a pipeline may touch of the world outside; the simulator hands out another one.
#[derive(Clone)]
pub struct Environment {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Standard input.
    pub input: Arc<dyn StandardInput>,
    /// Standard output.
    pub console: Console,
    /// What random values follow from.
    pub seed: u64,
}

impl Environment {
    /// This machine: its clock, its files, its standard input and output.
    pub fn local() -> Self {
        Self {
            clock: Arc::new(SystemClock::new()),
            disk: Arc::new(LocalDisk),
            input: Arc::new(ThreadedInput::new(std::io::stdin())),
            console: Arc::new(Mutex::new(std::io::stdout())),
            seed: Rng::from_os().next_u64(),
        }
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Environment").field("clock", &self.clock).field("disk", &self.disk).finish_non_exhaustive()
    }
}
