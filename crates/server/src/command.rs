//! From arguments to an exit code.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use ruslo::{Environment, Error, FromSavepoint, JobKind, Pipeline, Program, Result, SCRIPT_BYTES_MAX};

use crate::args::{Benchmark, Cli, Command, Run, Sql, Upgrade};
use crate::screen::Screen;
use crate::{bench, checkpoint, control, exit, ledger, log, run, several, state, text};

/// What messages call a script that comes by the pipe.
const STDIN: &str = "standard input";

/// Does what is asked.
pub(crate) fn execute(cli: &Cli) -> ExitCode {
    let screen = Screen::new();
    log::start(&screen);
    let done = match &cli.command {
        Command::Run(arguments) => return run(arguments, &screen),
        Command::Check(sql) => plan(&program(sql), &screen).and_then(|pipeline| say(&checked(&pipeline))),
        Command::Explain(sql) => plan(&program(sql), &screen).and_then(|pipeline| say(&explained(&pipeline))),
        Command::Checkpoint { what } => return checkpoint::run(what, &screen),
        Command::Ledger { place, epoch } => return ledger::run(place, *epoch, &screen),
        Command::State { what } => state::run(what),
        Command::Upgrade(arguments) => upgrade(arguments, &screen),
        Command::Savepoint(arguments) => control::savepoint(arguments),
        Command::Stop(arguments) => control::stop(arguments),
        Command::Bench { benchmark: Benchmark::Nexmark(arguments) } => return bench::run(arguments, &screen),
        Command::Version => say(&format!("ruslo {}\n", env!("CARGO_PKG_VERSION"))),
    };
    finish(done, &screen)
}

/// Plans what is to be run, and says what the script shows.
fn plan_to_run(arguments: &Run, screen: &Screen) -> Result<Pipeline> {
    let program = program(&arguments.sql);
    let interval = arguments.checkpoint_interval.as_ref();
    let program = program.map(|program| match interval {
        Some(interval) => program.set("execution.checkpointing.interval", interval),
        None => program,
    });
    let pipeline = plan(&program, screen)?;
    say(pipeline.output()).map(|()| pipeline)
}

fn run_several(arguments: &Run, screen: &Screen) -> ExitCode {
    let planned = arguments.each().into_iter().map(|one| plan_to_run(&one, screen).map(|pipeline| (one, pipeline)));
    match planned.collect::<Result<Vec<_>>>().and_then(several::own_folders) {
        Ok(pipelines) => several::run(arguments, pipelines, screen),
        Err(error) => finish(Err(error), screen),
    }
}

fn run(arguments: &Run, screen: &Screen) -> ExitCode {
    if !arguments.more.is_empty() {
        return run_several(arguments, screen);
    }
    let pipeline = match plan_to_run(arguments, screen) {
        Ok(pipeline) => pipeline,
        Err(error) => return finish(Err(error), screen),
    };
    let pipeline = match arguments.from_savepoint.clone() {
        Some(folder) => {
            let allow_dropped_state = arguments.allow_dropped_state;
            pipeline.from_savepoint(FromSavepoint { folder, allow_dropped_state })
        }
        None => pipeline,
    };
    match pipeline.kind() {
        JobKind::Explain => finish(say(&explained(&pipeline)), screen),
        JobKind::Nothing if !pipeline.output().is_empty() => ExitCode::SUCCESS,
        JobKind::Nothing => {
            screen.line("nothing to run: the script has neither INSERT nor SELECT");
            ExitCode::SUCCESS
        }
        JobKind::Insert | JobKind::Select => run::run(arguments, pipeline, screen),
    }
}

/// Tells what would become of the state of a job.
fn upgrade(arguments: &Upgrade, screen: &Screen) -> Result<()> {
    let script = |path: &Path| Ok(Program::new(path.display().to_string(), read_script(path)?));
    let (old, new) = (plan(&script(&arguments.old), screen)?, plan(&script(&arguments.new), screen)?);
    let upgrade = match &arguments.savepoint {
        None => new.upgrade_of(&old)?,
        Some(folder) => {
            old.check_savepoint(folder).map_err(|error| error.context(arguments.old.display()))?;
            new.upgrade_from(folder)?
        }
    };
    say(&upgrade.to_string())?;
    upgrade.check(arguments.allow_dropped_state)
}

fn finish(done: Result<()>, screen: &Screen) -> ExitCode {
    exit::of(done.map_err(|error| {
        screen.line(&format!("error: {error}"));
        error.kind()
    }))
}

/// The program that `sql` names, with its settings.
fn program(sql: &Sql) -> Result<Program> {
    let program = match (&sql.execute, &sql.file) {
        (Some(text), _) => Program::inline("-e", text),
        (None, Some(path)) if path.as_os_str() == "-" => Program::inline(STDIN, read_stdin()?),
        (None, Some(path)) => Program::new(path.display().to_string(), read_script(path)?),
        (None, None) => return Err(Error::usage("give a script: a file, or SQL behind -e")),
    };
    let parallelism = sql.parallelism.iter().map(|subtasks| ("parallelism.default".to_owned(), subtasks.clone()));
    let settings = sql.settings.iter().cloned().chain(parallelism);
    Ok(settings.fold(program, |program, (key, value)| program.set(key, value)))
}

fn plan(program: &Result<Program>, screen: &Screen) -> Result<Pipeline> {
    let program = program.as_ref().map_err(Clone::clone)?;
    program.plan_in(Environment { console: screen.console(), ..Environment::local() })
}

fn read_stdin() -> Result<String> {
    read_text(&mut std::io::stdin(), STDIN)
}

fn read_script(path: &Path) -> Result<String> {
    let mut file = Environment::local().disk.open(path)?;
    read_text(&mut file, &path.display().to_string())
}

/// Reads a script; not more of it than the planner would take.
fn read_text(from: &mut dyn Read, name: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let read = from.take(SCRIPT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::io(name, &error))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Error::usage(format!("{name}: byte {at} is not UTF-8; a script is UTF-8 text"))
    })
}

fn checked(pipeline: &Pipeline) -> String {
    match pipeline.kind() {
        JobKind::Nothing => "ok: nothing to run, only declarations\n".to_owned(),
        _ => format!("ok: {}\n", text::shape(pipeline)),
    }
}

fn explained(pipeline: &Pipeline) -> String {
    match pipeline.kind() {
        JobKind::Nothing => "nothing to explain: the script has neither INSERT nor SELECT\n".to_owned(),
        _ => format!("{}\n", pipeline.explain().trim_end()),
    }
}

/// Writes a result to standard output. Whoever reads only a part of it has had enough: that is no error.
pub(crate) fn say(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|error| Error::io("standard output", &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_text_and_not_too_long() {
        let error = read_text(&mut &b"SELECT \xff"[..], "a.sql").unwrap_err();
        assert_eq!(error.to_string(), "a.sql: byte 7 is not UTF-8; a script is UTF-8 text");
        let long = read_text(&mut std::io::repeat(b' '), "a.sql").unwrap();
        assert_eq!(long.len(), SCRIPT_BYTES_MAX + 1, "one more than the planner takes, so that it says so");
    }
}
