//! `ruslo run --http 127.0.0.1:PORT`: what a running job is doing, for Prometheus, for programs, for a load balancer.
//!
//! | path | what |
//! |---|---|
//! | `/metrics` | everything in Prometheus' text |
//! | `/api/v1/jobs` | the graph and its figures in JSON |
//! | `/healthz` | `ok` |
//! | `POST /api/v1/jobs/NAME/savepoints`, `…/stop` | see [`control`] |
//!
//! It listens before the job starts, so that a port that is taken is an error at once, and answers as long as the job
//! runs.

mod control;
mod json;
mod prometheus;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::Builder;

use axum::Router;
use axum::extract::{ConnectInfo, Path};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ruslo::{Control, Error, Result};

use crate::figures::{Figures, SAMPLE_EVERY, Watched};

/// Prometheus' text, version 1.0.0 of OpenMetrics, as the encoder writes it.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// A port that is ours, without anybody answering yet.
pub(crate) struct Listening(TcpListener);

/// Takes the port.
///
/// # Errors
/// `Usage`, if others than this machine could connect and `is_insecure` does not allow it; `Resource`, if it is taken.
pub(crate) fn listen(address: SocketAddr, is_insecure: bool) -> Result<Listening> {
    if !address.ip().is_loopback() && !is_insecure {
        return Err(Error::usage(format!(
            "--http {address}: everybody who reaches this machine could read it, without a password; listen on \
             127.0.0.1:{}, or say --insecure",
            address.port()
        )));
    }
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map(Listening).map_err(|error| Error::resource(format!("--http {address}: {error}")))
}

impl Listening {
    /// Where it listens: the port that was found, if 0 was asked for.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.0.local_addr().ok()
    }

    /// Answers for jobs on a thread of its own, to the end of the process.
    ///
    /// # Errors
    /// `Resource`, if there is no thread to be had.
    pub(crate) fn answer_for(self, watched: Vec<Arc<Watched>>, controls: Vec<Control>) -> Result<()> {
        let answer = move || {
            if let Err(error) = serve(self.0, watched.into(), controls.into()) {
                tracing::warn!("http: {error}");
            }
        };
        let started = Builder::new().name("ruslo-http".to_owned()).spawn(answer);
        started.map(drop).map_err(|error| Error::io("cannot start a thread", &error))
    }
}

fn serve(listener: TcpListener, watched: Arc<[Arc<Watched>]>, controls: Arc<[Control]>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let sampled = Arc::clone(&watched);
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(SAMPLE_EVERY);
            loop {
                ticks.tick().await;
                sampled.iter().for_each(|job| job.sample());
            }
        });
        let service = router(watched, controls).into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, service).await
    })
}

fn router(watched: Arc<[Arc<Watched>]>, asked: Arc<[Control]>) -> Router {
    let stopped = Arc::clone(&asked);
    let (metrics, jobs) = (Arc::clone(&watched), watched);
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(move || async move { answer_metrics(&metrics) }))
        .route("/api/v1/jobs", get(move || async move { axum::Json(json::jobs(&figures(&jobs))) }))
        .route(
            "/api/v1/jobs/{name}/savepoints",
            post(move |ConnectInfo(from): ConnectInfo<SocketAddr>, Path(name): Path<String>, body: control::Body| {
                control::savepoint(Arc::clone(&asked), from, name, body)
            }),
        )
        .route(
            "/api/v1/jobs/{name}/stop",
            post(move |ConnectInfo(from): ConnectInfo<SocketAddr>, Path(name): Path<String>, body: control::Body| {
                control::stop(Arc::clone(&stopped), from, name, body)
            }),
        )
        .fallback(|| async { (StatusCode::NOT_FOUND, "there are /metrics, /api/v1/jobs and /healthz\n") })
}

/// Of all jobs that can be watched.
fn figures(watched: &[Arc<Watched>]) -> Vec<Figures> {
    watched.iter().filter_map(|job| job.figures()).collect()
}

fn answer_metrics(watched: &[Arc<Watched>]) -> Response {
    match prometheus::text(figures(watched)) {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use ruslo::ErrorKind;

    use super::*;

    #[test]
    fn others_than_this_machine_are_kept_out_unless_it_is_said() {
        let open = "0.0.0.0:0".parse().unwrap();
        let error = listen(open, false).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("say --insecure"), "{error}");
        assert!(listen(open, true).is_ok());
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let first = listen("127.0.0.1:0".parse().unwrap(), false).unwrap();
        let address = first.address().unwrap();
        let error = listen(address, false).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Resource);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
