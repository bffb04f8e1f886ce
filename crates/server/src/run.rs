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
use crate::view::{View, heading};
use crate::{exit, resume, signals, summary};

/// Runs a pipeline to its end, or until it is stopped.
pub(crate) fn run(arguments: &Run, pipeline: Pipeline, screen: &Screen) -> ExitCode {
    let heading = heading(&pipeline);
    let outlets = match Outlets::new(arguments) {
        Ok(outlets) => outlets,
        Err(error) => return fail(&error, screen),
    };
    let job = match pipeline.start(arguments.mode(), arguments.checkpoint_dir.as_deref()) {
        Ok(job) => job,
        Err(error) => return fail(&error, screen),
    };
    let asked = match signals::listen(job.stop_handle(), screen.clone()) {
        Ok(asked) => asked,
        Err(error) => return fail(&error, screen),
    };
    for notice in job.notices() {
        screen.line(&format!("warning: {notice}"));
    }
    screen.line(&begun(&job, &heading, arguments.from_savepoint.as_deref()));
    let export = match outlets.open(&job, screen) {
        Ok(export) => export,
        Err(error) => return fail(&error, screen),
    };
    let door = door(&job, screen);
    View::new(screen).follow(&job, &asked);
    // Before the folder may go.
    door.iter().for_each(Door::close);
    let ended = job.end();
    door.into_iter().for_each(Door::leave);
    if let Some(export) = export {
        export.finish();
    }
    tell(arguments, &ended, screen)
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
struct Outlets {
    listening: Option<Listening>,
    collector: Option<otlp::Settings>,
}

impl Outlets {
    fn new(arguments: &Run) -> Result<Self> {
        let collector = arguments.otlp.as_ref().map(|url| otlp::Settings::new(url, |name| std::env::var(name).ok()));
        let listening = arguments.http.map(|address| http::listen(address, arguments.insecure));
        Ok(Self { collector: collector.transpose()?, listening: listening.transpose()? })
    }

    fn open(self, job: &Job, screen: &Screen) -> Result<Option<Export>> {
        let watched = Arc::new(Watched::new(job));
        if let Some(listening) = self.listening {
            if let Some(address) = listening.address() {
                screen.line(&format!("listening on http://{address}"));
            }
            listening.answer_for(Arc::clone(&watched), job.control())?;
        }
        self.collector.map(|settings| otlp::start(settings, watched, screen)).transpose()
    }
}

fn fail(error: &Error, screen: &Screen) -> ExitCode {
    screen.line(&format!("error: {error}"));
    exit::of(Err(error.kind()))
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

/// Tells how a job ended: the error, the summary, the command that goes on.
fn tell(arguments: &Run, ended: &Ended, screen: &Screen) -> ExitCode {
    let is_pipe_closed = ended.error.as_ref().is_some_and(ruslo::is_console_closed);
    if let Some(error) = ended.error.as_ref().filter(|_| !is_pipe_closed) {
        screen.line(&format!("error: {error}"));
    }
    let told = match arguments.output {
        Output::Json => say(&format!("{}\n", summary::json(ended))),
        Output::Text => {
            screen.line(&summary::line(&ended.summary));
            Ok(())
        }
    };
    if let Err(error) = told {
        return fail(&error, screen);
    }
    if ended.summary.state == State::Stopped {
        screen.line(&format!("to go on: {}", resume::command(&called(), arguments)));
        return ExitCode::from(exit::STOPPED);
    }
    match &ended.error {
        Some(error) if !is_pipe_closed => exit::of(Err(error.kind())),
        _ => ExitCode::SUCCESS,
    }
}

/// How this command was called.
fn called() -> String {
    std::env::args().next().unwrap_or_else(|| "ruslo".to_owned())
}
