//! `ruslo run --otlp http://HOST:4318`: sends the figures of `/metrics` to an OpenTelemetry collector.
//!
//! A thread of its own takes the figures every so often and posts them as OTLP over HTTP, in JSON. What does not arrive is
//! dropped and counted, and told once: the next export has all totals anyway, so nothing is kept to be sent again. When
//! the job has ended, it sends once more. Nothing in it can hold up the job; a collector that hangs holds up the end of the
//! process for [`FLUSH_MAX`].

mod encode;
mod settings;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use ruslo::{Error, Result};
use serde_json::Value;

pub(crate) use self::settings::Settings;
use crate::figures::{SAMPLE_EVERY, Watched};
use crate::screen::Screen;

/// How long the end of the process waits for the last export.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// Of a collector's answer, more is not read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// An export under way.
pub(crate) struct Export {
    stop: Sender<()>,
    finished: Receiver<()>,
}

/// Begins to send.
///
/// # Errors
/// `Resource`, if there is no thread to be had.
pub(crate) fn start(settings: Settings, watched: Arc<Watched>, screen: &Screen) -> Result<Export> {
    let (stop, stopped) = channel();
    let (finish, finished) = channel();
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(settings.timeout))
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("ruslo/", env!("CARGO_PKG_VERSION")))
        .build();
    let exporter = Exporter { agent: agent.into(), settings, watched, screen: screen.clone(), sent: 0, dropped: 0 };
    let work = move || {
        exporter.run(&stopped);
        drop(finish);
    };
    let started = Builder::new().name("ruslo-otlp".to_owned()).spawn(work);
    started.map_err(|error| Error::io("cannot start a thread", &error))?;
    Ok(Export { stop, finished })
}

impl Export {
    /// Sends the last figures, if the collector takes them in time.
    pub(crate) fn finish(self) {
        drop(self.stop);
        // Whether it ended or time ran out, there is nothing left to do.
        let _ = self.finished.recv_timeout(FLUSH_MAX);
    }
}

struct Exporter {
    agent: ureq::Agent,
    settings: Settings,
    watched: Arc<Watched>,
    screen: Screen,
    sent: u64,
    dropped: u64,
}

impl Exporter {
    fn run(mut self, stopped: &Receiver<()>) {
        let tick = SAMPLE_EVERY.min(self.settings.every);
        self.watched.sample();
        let mut waited = Duration::ZERO;
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(tick) {
            self.watched.sample();
            waited += tick;
            if waited >= self.settings.every {
                waited = Duration::ZERO;
                self.export();
            }
        }
        self.export();
        if self.dropped > 0 {
            let all = self.sent + self.dropped;
            self.screen.line(&format!("warning: --otlp: {} of {all} exports did not arrive", self.dropped));
        }
    }

    fn export(&mut self) {
        let Some(figures) = self.watched.figures() else { return };
        let Err(reason) = self.post(&encode::request(&figures, &self.settings.resource)) else {
            self.sent += 1;
            return;
        };
        self.dropped += 1;
        self.watched.dropped_export();
        if self.dropped == 1 {
            let url = &self.settings.url;
            self.screen.line(&format!("warning: --otlp: {url}: {reason}; the job goes on, and this is told once"));
        }
    }

    /// Posts a request; what is wrong, if it was not taken whole.
    fn post(&self, request: &Value) -> Result<(), String> {
        let mut post = self.agent.post(&self.settings.url).content_type("application/json");
        for (name, value) in &self.settings.headers {
            post = post.header(name, value);
        }
        let mut answer = post.send(request.to_string()).map_err(|error| error.to_string())?;
        let answer = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        rejected(&answer.unwrap_or_default()).map_or(Ok(()), Err)
    }
}

/// What a collector that took only a part says.
fn rejected(answer: &str) -> Option<String> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let partial = answer.get("partialSuccess")?;
    let count = match partial.get("rejectedDataPoints")? {
        Value::String(count) => count.clone(),
        count => count.to_string(),
    };
    let reason = partial.get("errorMessage").and_then(Value::as_str).unwrap_or("no reason given");
    (count != "0").then(|| format!("{count} figures were rejected: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_may_take_a_part() {
        let answer = r#"{"partialSuccess": {"rejectedDataPoints": "3", "errorMessage": "too old"}}"#;
        assert_eq!(rejected(answer).unwrap(), "3 figures were rejected: too old");
        for all in ["", "{}", r#"{"partialSuccess": {}}"#, r#"{"partialSuccess": {"rejectedDataPoints": "0"}}"#] {
            assert_eq!(rejected(all), None, "{all}");
        }
    }
}
