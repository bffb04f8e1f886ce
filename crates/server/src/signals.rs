//! Ctrl-C and SIGTERM: the first asks the job to stop at a checkpoint, the second ends the process at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Builder;

use ruslo::{Error, Result, StopHandle};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::exit;
use crate::screen::Screen;

/// Tells whether a stop was asked for.
#[derive(Clone, Default)]
pub(crate) struct Asked(Arc<AtomicBool>);

impl Asked {
    /// Whether it was.
    pub(crate) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Listens in a thread of its own, for the rest of the process, on behalf of all jobs.
pub(crate) fn listen(stops: Vec<StopHandle>, screen: Screen) -> Result<Asked> {
    let failed = |error| Error::io("cannot listen for signals", &error);
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let asked = Asked::default();
    let told = asked.clone();
    let work = move || {
        for _ in signals.forever() {
            if told.0.swap(true, Ordering::Relaxed) {
                screen.end_drawing();
                screen.line("stopped without a checkpoint; nothing that was committed is lost");
                // The one way out that asks nobody, and nothing is left in memory that a checkpoint could miss.
                low_level::exit(exit::STOPPED.into());
            }
            screen.line("stopping at a checkpoint (Ctrl-C again to stop now)");
            stops.iter().for_each(StopHandle::stop);
        }
    };
    Builder::new().name("ruslo-signals".to_owned()).spawn(work).map_err(failed)?;
    Ok(asked)
}
