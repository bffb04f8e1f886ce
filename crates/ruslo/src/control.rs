//! Asking a running job: a savepoint, an end, and to be told when it is done.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use ruslo_core::disk::Disk;
use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};
use ruslo_core::rng::Rng;
use ruslo_runtime::ask::{Ask, Then};
use ruslo_runtime::coordinator::Outcome;
use ruslo_sql::BatchStop;
use ruslo_state::savepoint::Target;

use crate::summary::State;
use crate::supervise::StopSupervised;

/// What becomes of a job that is asked for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It goes on.
    GoOn,
    /// It stops at a checkpoint, from which it can go on; windows that are open stay so.
    Stop,
    /// It ends as if its input had: windows that are open fire. It is finished then.
    Drain,
}

/// What is asked of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The folder of the savepoint to make, which must not be there or be empty; none, if none is wanted.
    pub savepoint: Option<PathBuf>,
    /// What becomes of the job.
    pub ending: Ending,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The checkpoint of the savepoint; the last one, if there is none.
    pub epoch: Option<Epoch>,
    /// The folder of the savepoint.
    pub savepoint: Option<PathBuf>,
    /// How many bytes of state it has.
    pub bytes: u64,
    /// What the job does now.
    pub state: State,
}

#[derive(Clone)]
pub(crate) enum Asked {
    Streaming(StopSupervised),
    Batch(BatchStop),
    /// It is over already.
    Nothing,
}

/// Asks a running job for savepoints, or to end.
#[derive(Clone)]
pub struct Control {
    job: String,
    asked: Asked,
    disk: Arc<dyn Disk>,
}

impl Control {
    pub(crate) fn new(job: &str, asked: Asked, disk: Arc<dyn Disk>) -> Self {
        Self { job: job.to_owned(), asked, disk }
    }

    /// The name of the job.
    pub fn job(&self) -> &str {
        &self.job
    }

    /// Does what `request` says, and waits until it is done, `timeout` at most.
    ///
    /// # Errors
    /// `Usage`, if the savepoint's folder is not empty, or the job cannot make one; `Unavailable`, if the job ended
    /// before, or `timeout` passed: then the job goes on, and may do it yet.
    pub fn ask(&self, request: &Request, timeout: Duration) -> Result<Report> {
        match &self.asked {
            Asked::Streaming(handle) => self.ask_streaming(handle, request, timeout),
            Asked::Batch(stop) => ask_batch(stop, request),
            Asked::Nothing => Err(Error::usage(format!("'{}' is finished already", self.job))),
        }
    }

    fn ask_streaming(&self, handle: &StopSupervised, request: &Request, timeout: Duration) -> Result<Report> {
        let target = request.savepoint.as_deref().map(|folder| self.target(folder)).transpose()?;
        let (answer, answered) = channel();
        let then = match request.ending {
            Ending::GoOn if target.is_none() => return Err(Error::usage("name a folder for the savepoint")),
            Ending::GoOn => Then::GoOn,
            Ending::Stop => Then::Stop,
            Ending::Drain => Then::Drain,
        };
        let is_plain_stop = target.is_none() && then == Then::Stop;
        if !handle.ask(Ask { target, then, answer }) {
            return self.ask_waiting(handle, is_plain_stop);
        }
        let answer = answered.recv_timeout(timeout).map_err(|error| self.no_answer(error, timeout))??;
        let state = match answer.ended {
            None => State::Running,
            Some(Outcome::Stopped(_)) => State::Stopped,
            Some(Outcome::Finished) => State::Finished,
        };
        let bytes = answer.saved.as_ref().map_or(0, |saved| saved.bytes);
        let savepoint = answer.saved.map(|saved| saved.folder);
        Ok(Report { epoch: Some(answer.epoch), savepoint, bytes, state })
    }

    /// The job has failed, and waits to be started again.
    fn ask_waiting(&self, handle: &StopSupervised, is_plain_stop: bool) -> Result<Report> {
        if !is_plain_stop {
            let sentence = format!("'{}' has failed and starts again soon; ask when it runs", self.job);
            return Err(Error::unavailable(sentence));
        }
        handle.stop();
        Ok(Report { epoch: None, savepoint: None, bytes: 0, state: State::Stopped })
    }

    fn target(&self, folder: &Path) -> Result<Target> {
        let is_address = folder.to_str().is_some_and(|text| text.contains("://"));
        if !folder.is_absolute() && !is_address {
            return Err(Error::usage(format!("{}: the folder of a savepoint is an absolute path", folder.display())));
        }
        let attempt = format!("{:016x}", Rng::from_os().next_u64());
        Target::prepare(Arc::clone(&self.disk), folder, &self.job, &attempt)
    }

    fn no_answer(&self, error: RecvTimeoutError, timeout: Duration) -> Error {
        let job = &self.job;
        match error {
            RecvTimeoutError::Disconnected => {
                Error::unavailable(format!("'{job}' failed or ended before this was done"))
            }
            RecvTimeoutError::Timeout => Error::unavailable(format!(
                "'{job}' has not done this within {} s; it goes on, and may do it yet",
                timeout.as_secs_f64()
            )),
        }
    }
}

fn ask_batch(stop: &BatchStop, request: &Request) -> Result<Report> {
    if request.savepoint.is_some() || request.ending != Ending::Stop {
        return Err(Error::usage(
            "this is a batch job, which starts over: it has no savepoints, and can only be stopped",
        ));
    }
    stop.stop();
    Ok(Report { epoch: None, savepoint: None, bytes: 0, state: State::Stopped })
}
