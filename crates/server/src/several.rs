//! `ruslo run a.sql b.sql`: several pipelines in one process, each with checkpoints, memory and threads of its own.
//!
//! None starts unless all are sound. Then each goes its way: one that fails, or panics, is told and over, and the others
//! notice nothing. The process ends with the last of them.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::thread::{Builder, JoinHandle};

use ruslo::{Error, Job, JobKind, Pipeline, Result};

use crate::args::Run;
use crate::exit;
use crate::otlp::Export;
use crate::plain::PlainView;
use crate::run::{Outlets, fail, follow, tell, tell_beginning};
use crate::screen::Screen;
use crate::signals::{self, Asked};
use crate::view::{View, heading};

/// Gives each pipeline a folder of its own below the one that is named.
///
/// # Errors
/// `Usage`, if one has nothing to run, or two have the same name.
pub(crate) fn own_folders(pipelines: Vec<(Run, Pipeline)>) -> Result<Vec<(Run, Pipeline)>> {
    let mut names = BTreeSet::new();
    let own = |(arguments, pipeline): (Run, Pipeline)| {
        if !matches!(pipeline.kind(), JobKind::Insert | JobKind::Select) {
            return Err(Error::usage(format!("'{}' has nothing to run among others", pipeline.name())));
        }
        let folder = pipeline.default_checkpoint_dir();
        if !names.insert(folder.clone()) {
            return Err(Error::usage(format!(
                "two pipelines are called '{}'; name one of them: SET 'pipeline.name' = '...'",
                pipeline.name()
            )));
        }
        let checkpoint_dir =
            arguments.checkpoint_dir.map(|all| folder.file_name().map_or(all.clone(), |own| all.join(own)));
        Ok((Run { checkpoint_dir, ..arguments }, pipeline))
    };
    pipelines.into_iter().map(own).collect()
}

/// Runs them all; the exit code is the worst one.
pub(crate) fn run(arguments: &Run, pipelines: Vec<(Run, Pipeline)>, screen: &Screen) -> ExitCode {
    let outlets = match Outlets::new(arguments) {
        Ok(outlets) => outlets,
        Err(error) => return fail(&error, screen),
    };
    let (mut jobs, mut codes) = (Vec::new(), Vec::new());
    for (arguments, pipeline) in pipelines {
        match start(&arguments, pipeline, screen) {
            Ok(job) => jobs.push((arguments, job)),
            Err(code) => codes.push(code),
        }
    }
    let stops = jobs.iter().map(|(_, job)| job.stop_handle()).collect();
    let opened = signals::listen(stops, screen.clone()).and_then(|asked| {
        let watched: Vec<_> = jobs.iter().map(|(_, job)| job).collect();
        Ok((asked, outlets.open(&watched, screen)?))
    });
    let (asked, exports) = match opened {
        Ok(opened) => opened,
        Err(error) => return fail(&error, screen),
    };
    let followed: Vec<_> =
        jobs.into_iter().map(|(arguments, job)| follow_aside(arguments, job, &asked, screen)).collect();
    codes.extend(followed.into_iter().map(|thread| match thread {
        Ok(thread) => thread.join().unwrap_or(exit::code(ruslo::ErrorKind::Internal)),
        Err(code) => code,
    }));
    exports.into_iter().for_each(Export::finish);
    ExitCode::from(exit::worst(&codes))
}

fn start(arguments: &Run, pipeline: Pipeline, screen: &Screen) -> Result<Job, u8> {
    let (name, heading) = (pipeline.name().to_owned(), heading(&pipeline));
    let job = pipeline.start(arguments.mode(), arguments.checkpoint_dir.as_deref()).map_err(|error| {
        screen.line(&format!("error: {name}: {error}"));
        exit::code(error.kind())
    })?;
    tell_beginning(arguments, &job, &heading, screen);
    Ok(job)
}

/// Follows a job on a thread of its own, which returns its exit code.
fn follow_aside(arguments: Run, job: Job, asked: &Asked, screen: &Screen) -> Result<JoinHandle<u8>, u8> {
    let (asked, screen, told) = (asked.clone(), screen.clone(), screen.clone());
    let work = move || {
        let label = format!("error: {}", job.name());
        let ended = follow(job, View::Plain(PlainView::new(screen.clone())), &asked, &screen);
        tell(&arguments, &ended, &label, &screen)
    };
    Builder::new().name("ruslo-view".to_owned()).spawn(work).map_err(|error| {
        let error = Error::io("cannot start a thread", &error);
        told.line(&format!("error: {error}"));
        exit::code(error.kind())
    })
}
