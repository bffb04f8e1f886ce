//! Where a running job can be asked: a Unix socket in its checkpoint folder.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use ruslo::core::disk::{Disk, LocalDisk};
use ruslo::{Control, Ending, Error, Report, Request, Result};
use serde_json::Value;

use super::protocol::{answer_json, request_of};
use super::{SOCKET, address};
use crate::screen::Screen;
use crate::text::bytes;

/// A request is one line, and not longer than this.
const REQUEST_BYTES_MAX: u64 = 64 << 10;

/// Who connects says at once what is wanted.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// How long the end of the process waits for answers that are on their way.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// How many are being answered.
#[derive(Default)]
struct Visitors {
    count: Mutex<usize>,
    gone: Condvar,
}

impl Visitors {
    fn change(&self, change: impl FnOnce(&mut usize)) {
        change(&mut self.count.lock().unwrap_or_else(PoisonError::into_inner));
        self.gone.notify_all();
    }

    fn wait(&self) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever is still there after that time is told by the end of the connection.
        let _ = self.gone.wait_timeout_while(count, ANSWERED_WITHIN, |count| *count > 0);
    }
}

/// An open door, answered by threads of its own.
pub(crate) struct Door {
    socket: PathBuf,
    visitors: Arc<Visitors>,
}

impl Door {
    /// Listens in `folder`, which this process has locked.
    ///
    /// # Errors
    /// What the system says: not every file system can hold a socket.
    pub(crate) fn open(control: Control, folder: &Path, screen: &Screen) -> Result<Self> {
        let socket = folder.join(SOCKET);
        // Of a process that died: the lock of the folder is ours, so nobody listens there.
        LocalDisk.remove(&socket)?;
        let (path, _opened) = address(folder)?;
        let failed = |error: std::io::Error| Error::io(socket.display(), &error);
        let listener = UnixListener::bind(&path).map_err(failed)?;
        let visitors = Arc::new(Visitors::default());
        let (counted, screen) = (Arc::clone(&visitors), screen.clone());
        let work = move || {
            for stream in listener.incoming().flatten() {
                receive(stream, &control, &counted, &screen);
            }
        };
        Builder::new().name("ruslo-control".to_owned()).spawn(work).map_err(failed)?;
        Ok(Self { socket, visitors })
    }

    /// Lets nobody in any more.
    pub(crate) fn close(&self) {
        if let Err(error) = LocalDisk.remove(&self.socket) {
            tracing::debug!("control: {error}");
        }
    }

    /// Waits until who is inside has been answered.
    pub(crate) fn leave(self) {
        self.visitors.wait();
    }
}

/// Answers one visitor on a thread of its own: a savepoint may take long, and a stop must not wait for it.
fn receive(stream: UnixStream, control: &Control, visitors: &Arc<Visitors>, screen: &Screen) {
    visitors.change(|count| *count += 1);
    let (control, inside, screen) = (control.clone(), Arc::clone(visitors), screen.clone());
    let work = move || {
        if let Err(error) = answer(&stream, &control, &screen) {
            tracing::debug!("control: {error}");
        }
        inside.change(|count| *count -= 1);
    };
    if let Err(error) = Builder::new().name("ruslo-asked".to_owned()).spawn(work) {
        tracing::warn!("control: cannot start a thread: {error}");
        visitors.change(|count| *count -= 1);
    }
}

fn answer(mut stream: &UnixStream, control: &Control, screen: &Screen) -> std::io::Result<()> {
    stream.set_read_timeout(Some(REQUEST_WITHIN))?;
    let mut line = String::new();
    BufReader::new(stream.take(REQUEST_BYTES_MAX)).read_line(&mut line)?;
    let request = serde_json::from_str::<Value>(&line);
    let request = request.map_err(|error| Error::usage(format!("the request is no JSON: {error}")));
    let answer = request.and_then(|value| request_of(&value)).and_then(|(request, timeout)| {
        let report = control.ask(&request, timeout)?;
        screen.line(&told(&request, &report));
        Ok(report)
    });
    writeln!(stream, "{}", answer_json(&answer))
}

/// What the job's own terminal is told.
pub(crate) fn told(request: &Request, report: &Report) -> String {
    let epoch = report.epoch.map_or_else(String::new, |epoch| format!(" {epoch}"));
    let savepoint = report.savepoint.as_ref().map(|folder| {
        format!("a savepoint of checkpoint{epoch} was made in {} ({})", folder.display(), bytes(report.bytes))
    });
    match (savepoint, request.ending) {
        (Some(savepoint), Ending::GoOn) => savepoint,
        (Some(savepoint), _) => format!("{savepoint}, and the job was asked to end"),
        (None, _) => "the job was asked to end".to_owned(),
    }
}
