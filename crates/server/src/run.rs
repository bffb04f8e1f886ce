//! `ruslo run`: starts a job, follows it, tells what it came to.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use ruslo::{Ended, Error, Job, Pipeline, Result, State};

use crate::args::{Output, Run};
use crate::command::say;
use crate::control::Door;
use crate::figures::Watched;
use crate::http::{self, Listening};
use crate::otlp::{self, Export};
use crate::screen::Screen;
use crate::signals::Asked;
use crate::view::{View, heading};
use crate::{exit, resume, signals, summary};

/// Runs a pipeline to its end, or until it is stopped.
pub(crate) fn run(arguments: &Run, pipeline: Pipeline, screen: &Screen) -> ExitCode {
    let heading = heading(&pipeline);
    let outlets = match Outlets::new(arguments) {
        Ok(outlets) => outlets,
        Err(error) => return fail(&error, screen),
    };
    let job = match pipeline
        .accepting_duplicates(arguments.accept_duplicates)
        .start(arguments.mode(), arguments.checkpoint_dir.as_deref())
    {
        Ok(job) => job,
        Err(error) => return fail(&error, screen),
    };
    let asked = match signals::listen(vec![job.stop_handle()], screen.clone()) {
        Ok(asked) => asked,
        Err(error) => return fail(&error, screen),
    };
    tell_beginning(arguments, &job, &heading, screen);
    let exports = match outlets.open(&[&job], screen) {
        Ok(exports) => exports,
        Err(error) => return fail(&error, screen),
    };
    let ended = follow(job, View::new(screen), &asked, screen);
    exports.into_iter().for_each(Export::finish);
    ExitCode::from(tell(arguments, &ended, "error", screen))
}

/// Follows a job to its end.
pub(crate) fn follow(job: Job, view: View, asked: &Asked, screen: &Screen) -> Ended {
    let door = door(&job, screen);
    view.follow(&job, asked);
    // Before the folder may go.
    door.iter().for_each(Door::close);
    let ended = job.end();
    door.into_iter().for_each(Door::leave);
    ended
}

/// Where the job can be asked for something. It runs all the same where no socket can be.
fn door(job: &Job, screen: &Screen) -> Option<Door> {
    let folder = job.checkpoint_dir().filter(|_| !job.is_already_finished())?;
    match Door::open(job.control(), folder, screen) {
        Ok(door) => Some(door),
        Err(error) => {
            screen.line(&format!("warning: `ruslo savepoint` and `ruslo stop` cannot reach this job: {error}"));
            None
        }
    }
}

/// Where others can watch the job: what is wrong with these is told before it starts.
pub(crate) struct Outlets {
    listening: Option<Listening>,
    collector: Option<otlp::Settings>,
}

impl Outlets {
    pub(crate) fn new(arguments: &Run) -> Result<Self> {
        let collector = arguments.otlp.as_ref().map(|url| otlp::Settings::new(url, |name| std::env::var(name).ok()));
        let listening = arguments.http.map(|address| http::listen(address, arguments.insecure));
        Ok(Self { collector: collector.transpose()?, listening: listening.transpose()? })
    }

    pub(crate) fn open(self, jobs: &[&Job], screen: &Screen) -> Result<Vec<Export>> {
        let watched: Vec<_> = jobs.iter().map(|job| Arc::new(Watched::new(job))).collect();
        if let Some(listening) = self.listening {
            if let Some(address) = listening.address() {
                screen.line(&format!("listening on http://{address}"));
            }
            listening.answer_for(watched.clone(), jobs.iter().map(|job| job.control()).collect())?;
        }
        let Some(settings) = self.collector else { return Ok(Vec::new()) };
        watched.into_iter().map(|watched| otlp::start(settings.clone(), watched, screen)).collect()
    }
}

pub(crate) fn fail(error: &Error, screen: &Screen) -> ExitCode {
    screen.line(&format!("error: {error}"));
    exit::of(Err(error.kind()))
}

/// What is told once, when a job has started.
pub(crate) fn tell_beginning(arguments: &Run, job: &Job, heading: &str, screen: &Screen) {
    for notice in job.notices() {
        screen.line(&format!("warning: {notice}"));
    }
    screen.line(&begun(job, heading, arguments.from_savepoint.as_deref()));
}

fn begun(job: &Job, heading: &str, savepoint: Option<&Path>) -> String {
    match job.resumed_from() {
        Some(epoch) if job.is_already_finished() => format!("{}: already finished at checkpoint {epoch}", job.name()),
        Some(epoch) => format!("{heading}, resumed from checkpoint {epoch}"),
        None => match savepoint {
            Some(folder) => format!("{heading}, begun from the savepoint {}", folder.display()),
            None => heading.to_owned(),
        },
    }
}

/// Tells how a job ended: the error, behind `label`, the summary, the command that goes on. Returns the exit code.
pub(crate) fn tell(arguments: &Run, ended: &Ended, label: &str, screen: &Screen) -> u8 {
    let is_pipe_closed = ended.error.as_ref().is_some_and(ruslo::is_console_closed);
    if let Some(error) = ended.error.as_ref().filter(|_| !is_pipe_closed) {
        screen.line(&format!("{label}: {error}"));
    }
    let told = match arguments.output {
        Output::Json => say(&format!("{}\n", summary::json(ended))),
        Output::Text => {
            screen.line(&summary::line(&ended.summary));
            Ok(())
        }
    };
    if let Err(error) = told {
        screen.line(&format!("{label}: {error}"));
        return exit::code(error.kind());
    }
    if ended.summary.state == State::Stopped {
        screen.line(&format!("to go on: {}", resume::command(&called(), arguments)));
        return exit::STOPPED;
    }
    match &ended.error {
        Some(error) if !is_pipe_closed => exit::code(error.kind()),
        _ => 0,
    }
}

/// How this command was called.
fn called() -> String {
    std::env::args().next().unwrap_or_else(|| "ruslo".to_owned())
}
