//! A request and its answer, one line of JSON each.

use std::path::PathBuf;
use std::time::Duration;

use ruslo::{Ending, Error, ErrorKind, Report, Request, Result};
use serde_json::{Map, Value, json};

use crate::exit;

/// What this build speaks.
const VERSION: u64 = 1;

/// How long a job is waited for where nobody says.
pub(crate) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

/// What stands on the wire for `request`.
pub(crate) fn request_json(request: &Request, timeout: Duration) -> Value {
    let then = match request.ending {
        Ending::GoOn => "go-on",
        Ending::Stop => "stop",
        Ending::Drain => "drain",
    };
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    json!({ "version": VERSION, "savepoint": request.savepoint, "then": then, "timeout_ms": timeout_ms })
}

/// The request that `value` is, and how long to wait for it.
///
/// # Errors
/// `Usage`, saying what is wrong with it.
pub(crate) fn request_of(value: &Value) -> Result<(Request, Duration)> {
    let object = value.as_object().ok_or_else(|| Error::usage("a request is a JSON object"))?;
    known(object, &["version", "savepoint", "then", "timeout_ms"])?;
    if object.get("version").and_then(Value::as_u64) != Some(VERSION) {
        return Err(Error::usage(format!("the request is of another version of ruslo; this job speaks {VERSION}")));
    }
    let ending = match object.get("then").and_then(Value::as_str) {
        Some("go-on") => Ending::GoOn,
        Some("stop") => Ending::Stop,
        Some("drain") => Ending::Drain,
        _ => return Err(Error::usage("'then' is 'go-on', 'stop' or 'drain'")),
    };
    let savepoint = folder(object, "savepoint")?;
    let timeout = object.get("timeout_ms").and_then(Value::as_u64).map_or(TIMEOUT_DEFAULT, Duration::from_millis);
    Ok((Request { savepoint, ending }, timeout))
}

/// Refuses what is not one of `keys`: a mistyped one would be silently passed over.
pub(crate) fn known(object: &Map<String, Value>, keys: &[&str]) -> Result<()> {
    match object.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(unknown) => Err(Error::usage(format!("unknown key '{unknown}'; there are {}", keys.join(", ")))),
        None => Ok(()),
    }
}

/// The folder under `key`, if one is named.
///
/// # Errors
/// `Usage`, if it is no text.
pub(crate) fn folder(object: &Map<String, Value>, key: &str) -> Result<Option<PathBuf>> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(folder)) if !folder.is_empty() => Ok(Some(PathBuf::from(folder))),
        Some(_) => Err(Error::usage(format!("'{key}' is the path of a folder"))),
    }
}

/// What stands on the wire for an answer.
pub(crate) fn answer_json(answer: &Result<Report>) -> Value {
    match answer {
        Ok(report) => json!({
            "checkpoint": report.epoch.map(|epoch| epoch.0),
            "savepoint": report.savepoint,
            "bytes": report.bytes,
            "state": report.state.to_string(),
        }),
        Err(error) => json!({ "error": text_of(error), "kind": exit::name(error.kind()) }),
    }
}

/// What an error says, without the preface that its kind would put before it once more.
fn text_of(error: &Error) -> String {
    let text = error.to_string();
    match text.strip_prefix("internal error (please report it): ") {
        Some(rest) if error.kind() == ErrorKind::Internal => rest.to_owned(),
        _ => text,
    }
}

/// The answer, or the error that it is.
pub(crate) fn answer_of(answer: Value) -> Result<Value> {
    let Some(error) = answer.get("error").and_then(Value::as_str) else { return Ok(answer) };
    let kind = answer.get("kind").and_then(Value::as_str).and_then(exit::kind).unwrap_or(ErrorKind::Internal);
    Err(Error::new(kind, error))
}

#[cfg(test)]
mod tests {
    use ruslo::{Epoch, State};

    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        for ending in [Ending::GoOn, Ending::Stop, Ending::Drain] {
            for savepoint in [None, Some(PathBuf::from("/a b"))] {
                let request = Request { savepoint, ending };
                let written = request_json(&request, Duration::from_secs(7));
                assert_eq!(request_of(&written).unwrap(), (request, Duration::from_secs(7)));
            }
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let refused = |value: Value| request_of(&value).unwrap_err().to_string();
        assert_eq!(refused(json!([])), "a request is a JSON object");
        assert!(refused(json!({ "version": 2, "then": "stop" })).contains("another version of ruslo"));
        assert_eq!(refused(json!({ "version": 1, "then": "go" })), "'then' is 'go-on', 'stop' or 'drain'");
        assert!(
            refused(json!({ "version": 1, "then": "stop", "savepont": "/a" })).starts_with("unknown key 'savepont'")
        );
        let refused = refused(json!({ "version": 1, "then": "stop", "savepoint": 3 }));
        assert_eq!(refused, "'savepoint' is the path of a folder");
    }

    #[test]
    fn an_error_keeps_its_kind_and_its_words() {
        for error in [Error::usage("not empty"), Error::internal("broken")] {
            let back = answer_of(answer_json(&Err(error.clone()))).unwrap_err();
            assert_eq!(back, error);
        }
        let report = Report { epoch: Some(Epoch(3)), savepoint: None, bytes: 0, state: State::Stopped };
        let answer = answer_of(answer_json(&Ok(report))).unwrap();
        assert_eq!((&answer["checkpoint"], &answer["state"]), (&json!(3), &json!("stopped")));
    }
}
