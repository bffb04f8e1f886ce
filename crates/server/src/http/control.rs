//! `POST /api/v1/jobs/NAME/savepoints` and `…/stop`: what `ruslo savepoint` and `ruslo stop` ask.
//!
//! Only this machine may: there is no password. The body must say that it is JSON, so that no page of another site can
//! make a browser send it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use ruslo::{Control, Ending, Error, ErrorKind, Request, Result};
use serde_json::{Map, Value, json};

use crate::control::protocol::{TIMEOUT_DEFAULT, answer_json, folder, known};

/// What a POST brings.
pub(super) type Body = std::result::Result<Json<Value>, JsonRejection>;

/// Makes a savepoint; the body names the folder: `{"target": "/backup/sp-1"}`.
pub(super) async fn savepoint(controls: Arc<[Control]>, from: SocketAddr, name: String, body: Body) -> Response {
    let request = object(body).and_then(|object| {
        known(&object, &["target"])?;
        let target = folder(&object, "target")?;
        let target = target.ok_or_else(|| Error::usage("'target' is missing: the folder of the savepoint"))?;
        Ok(Request { savepoint: Some(target), ending: Ending::GoOn })
    });
    answer(&controls, from, name, request).await
}

/// Ends the job; the body may name a savepoint, and say `drain`: `{"savepoint": "/backup/sp-1", "drain": false}`.
pub(super) async fn stop(controls: Arc<[Control]>, from: SocketAddr, name: String, body: Body) -> Response {
    let request = object(body).and_then(|object| {
        known(&object, &["savepoint", "drain"])?;
        let ending = match object.get("drain") {
            None | Some(Value::Bool(false)) => Ending::Stop,
            Some(Value::Bool(true)) => Ending::Drain,
            Some(_) => return Err(Error::usage("'drain' is true or false")),
        };
        Ok(Request { savepoint: folder(&object, "savepoint")?, ending })
    });
    answer(&controls, from, name, request).await
}

fn object(body: Body) -> Result<Map<String, Value>> {
    match body {
        Ok(Json(Value::Object(object))) => Ok(object),
        Ok(_) => Err(Error::usage("the body is a JSON object")),
        Err(rejection) => Err(Error::usage(rejection.body_text())),
    }
}

async fn answer(controls: &[Control], from: SocketAddr, name: String, request: Result<Request>) -> Response {
    if !from.ip().is_loopback() {
        return refuse(StatusCode::FORBIDDEN, "only this machine may ask for that: there is no password");
    }
    let Some(control) = controls.iter().find(|control| control.job() == name).cloned() else {
        let names: Vec<_> = controls.iter().map(|control| format!("'{}'", control.job())).collect();
        let sentence = format!("there is no job '{name}' here; there is {}", names.join(", "));
        return refuse(StatusCode::NOT_FOUND, &sentence);
    };
    let asked = tokio::task::spawn_blocking(move || control.ask(&request?, TIMEOUT_DEFAULT)).await;
    let answer = asked.unwrap_or_else(|error| Err(Error::internal(error.to_string())));
    let status = answer.as_ref().map_or_else(|error| status(error.kind()), |_| StatusCode::OK);
    (status, Json(answer_json(&answer))).into_response()
}

fn refuse(status: StatusCode, sentence: &str) -> Response {
    (status, Json(json!({ "error": sentence }))).into_response()
}

fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Usage => StatusCode::BAD_REQUEST,
        ErrorKind::Fenced => StatusCode::CONFLICT,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Resource => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::Data | ErrorKind::Corrupt | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
