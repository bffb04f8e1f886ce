//! `ruslo savepoint` and `ruslo stop`: asks a job that runs on a checkpoint folder.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ruslo::{Ending, Error, Request, Result};
use serde_json::Value;

use super::protocol::{TIMEOUT_DEFAULT, answer_of, request_json};
use super::{SOCKET, address};
use crate::args::{Output, Savepoint, Stop};
use crate::command::say;
use crate::text::bytes;

/// How much longer than the job itself who asks waits.
const GRACE: Duration = Duration::from_secs(5);

/// Has a job make a savepoint and go on.
pub(crate) fn savepoint(asked: &Savepoint) -> Result<()> {
    let savepoint = Some(absolute(&asked.target)?);
    let timeout = asked.timeout.unwrap_or(TIMEOUT_DEFAULT);
    let answer = ask(&asked.checkpoint_dir, &Request { savepoint, ending: Ending::GoOn }, timeout)?;
    tell(&answer, asked.output)
}

/// Has a job end.
pub(crate) fn stop(asked: &Stop) -> Result<()> {
    let savepoint = asked.savepoint.as_deref().map(absolute).transpose()?;
    let ending = if asked.drain { Ending::Drain } else { Ending::Stop };
    let timeout = asked.timeout.unwrap_or(TIMEOUT_DEFAULT);
    let answer = ask(&asked.checkpoint_dir, &Request { savepoint, ending }, timeout)?;
    tell(&answer, asked.output)
}

/// The job may have another working directory.
fn absolute(path: &Path) -> Result<PathBuf> {
    if path.to_str().is_some_and(|text| text.contains("://")) {
        return Ok(path.to_owned());
    }
    std::path::absolute(path).map_err(|error| Error::io(path.display(), &error))
}

fn ask(folder: &Path, request: &Request, timeout: Duration) -> Result<Value> {
    let shown = folder.display();
    if shown.to_string().contains("://") {
        return Err(Error::usage(format!(
            "{shown}: a job whose checkpoints are on an object store is asked over HTTP: run it with --http, then POST \
             /api/v1/jobs/<name>/savepoints or …/stop"
        )));
    }
    if !folder.is_dir() {
        return Err(Error::usage(format!("{shown}: no such folder; name the checkpoint folder of a running job")));
    }
    let (path, _opened) = address(folder)?;
    let mut stream = UnixStream::connect(path).map_err(|error| not_there(folder, &error))?;
    let lost = |error: &std::io::Error| Error::unavailable(format!("the job on {shown} does not answer: {error}"));
    stream.set_read_timeout(Some(timeout + GRACE)).map_err(|error| lost(&error))?;
    writeln!(stream, "{}", request_json(request, timeout)).map_err(|error| lost(&error))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).map_err(|error| lost(&error))?;
    let answer = serde_json::from_str(&line)
        .map_err(|_| Error::unavailable(format!("the job on {shown} ended before it had answered")))?;
    answer_of(answer)
}

fn not_there(folder: &Path, error: &std::io::Error) -> Error {
    use std::io::ErrorKind;
    let shown = folder.display();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Error::usage(format!(
            "no job is running on {shown}; start it with --resume and ask then, or name the checkpoint folder of the job"
        )),
        _ => Error::io(folder.join(SOCKET).display(), error),
    }
}

/// Tells what came of it.
fn tell(answer: &Value, output: Output) -> Result<()> {
    if output == Output::Json {
        return say(&format!("{answer}\n"));
    }
    let size = answer.get("bytes").and_then(Value::as_u64).unwrap_or_default();
    let epoch = answer.get("checkpoint").and_then(Value::as_u64);
    let state = answer.get("state").and_then(Value::as_str).unwrap_or_default();
    let at = epoch.map_or_else(String::new, |epoch| format!(" checkpoint {epoch}"));
    if let Some(folder) = answer.get("savepoint").and_then(Value::as_str) {
        say(&format!("savepoint of{at}: {folder} ({})\n", bytes(size)))?;
    }
    match state {
        "stopped" => say(&format!("the job has stopped at{at}\n")),
        "finished" => say("the job has finished\n"),
        _ => Ok(()),
    }
}
