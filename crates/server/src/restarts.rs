//! What is told of a job that failed and goes on by itself.

use ruslo::{Failure, Job, Restarts};

use crate::screen::Screen;
use crate::text::{counted, time};

/// How much of it has been told.
#[derive(Default)]
pub(crate) struct Told {
    failure: Option<Failure>,
    restarts: u64,
}

impl Told {
    /// Tells what is new.
    pub(crate) fn tell(&mut self, job: &Job, screen: &Screen) {
        self.lines(job.name(), &job.restarts()).iter().for_each(|line| screen.line(line));
    }

    fn lines(&mut self, name: &str, now: &Restarts) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(failure) = now.last_failure.as_ref().filter(|failure| self.failure.as_ref() != Some(failure)) {
            let delay = time(failure.delay);
            lines.push(format!("warning: {}; {name} goes on from its last checkpoint in {delay}", failure.error));
            self.failure = Some(failure.clone());
        }
        if now.count > self.restarts {
            lines.extend(now.notices.iter().map(|notice| format!("warning: {notice}")));
            lines.push(format!(
                "{name}: went on from its last checkpoint, {}",
                counted(now.count, "restart", "restarts")
            ));
            self.restarts = now.count;
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ruslo::Error;
    use ruslo::core::time::Timestamp;

    use super::*;

    #[test]
    fn each_failure_and_each_restart_is_told_once() {
        let failure = |at| Failure { error: Error::unavailable("x"), at: Timestamp(at), delay: Duration::from_secs(1) };
        let now = |count, at| Restarts { count, last_failure: Some(failure(at)), ..Restarts::default() };
        let mut told = Told::default();
        assert!(told.lines("j", &Restarts::default()).is_empty());
        assert_eq!(told.lines("j", &now(0, 1)), ["warning: x; j goes on from its last checkpoint in 1 s"]);
        assert!(told.lines("j", &now(0, 1)).is_empty());
        assert_eq!(told.lines("j", &now(1, 1)), ["j: went on from its last checkpoint, 1 restart"]);
        assert_eq!(told.lines("j", &now(2, 5)).len(), 2);
    }
}
