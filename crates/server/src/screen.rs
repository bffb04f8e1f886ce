//! Standard error and standard output, shared by everybody who writes to them: results, messages, the log and the live
//! view, which steps aside for the others.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ruslo::core::environment::Console;

/// The two outputs of the process.
#[derive(Clone)]
pub(crate) struct Screen {
    bar: ProgressBar,
    is_terminal: bool,
    is_drawing: Arc<AtomicBool>,
}

impl Screen {
    /// This process's outputs, with nothing drawn on them.
    pub(crate) fn new() -> Self {
        let is_drawing = Arc::default();
        Self { bar: ProgressBar::hidden(), is_terminal: io::stderr().is_terminal(), is_drawing }
    }

    /// Whether a person may be looking.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Writes a line to standard error; where that is closed, nobody wants to know.
    pub(crate) fn line(&self, text: &str) {
        self.aside(|| _ = writeln!(io::stderr().lock(), "{text}"));
    }

    /// Does `work`, which writes to the terminal, while the live view is away.
    fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.is_drawing.load(Ordering::Relaxed) { self.bar.suspend(work) } else { work() }
    }

    /// Lets the live view be drawn from now on.
    pub(crate) fn begin_drawing(&self) {
        if let Ok(style) = ProgressStyle::with_template("{msg}") {
            self.bar.set_style(style);
        }
        self.bar.set_draw_target(ProgressDrawTarget::stderr());
        self.is_drawing.store(true, Ordering::Relaxed);
    }

    /// Draws the live view: its lines as they are now.
    pub(crate) fn draw(&self, lines: String) {
        self.bar.set_message(lines);
    }

    /// Takes the live view away for good.
    pub(crate) fn end_drawing(&self) {
        if self.is_drawing.swap(false, Ordering::Relaxed) {
            self.bar.finish_and_clear();
            self.bar.set_draw_target(ProgressDrawTarget::hidden());
        }
    }

    /// Where the `print` connector writes.
    pub(crate) fn console(&self) -> Console {
        Arc::new(Mutex::new(Stdout { screen: self.clone(), is_terminal: io::stdout().is_terminal() }))
    }
}

/// Standard output, for which the live view steps aside if both are on the terminal. A pipe whose reader is slow must
/// not hold the view: then nobody would be told that Ctrl-C was heard.
struct Stdout {
    screen: Screen,
    is_terminal: bool,
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let write = || {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        };
        if self.is_terminal { self.screen.aside(write) } else { write() }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard error, for which the live view steps aside: where the log goes.
pub(crate) struct Stderr(pub(crate) Screen);

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.aside(|| io::stderr().lock().write_all(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
