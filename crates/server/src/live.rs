//! The view on a terminal: some lines, drawn in place five times a second.

use std::collections::VecDeque;
use std::time::Duration;

use ruslo::core::clock::{Clock, Instant, SystemClock};
use ruslo::core::memory::human_bytes;
use ruslo::core::time::Timestamp;
use ruslo::{Job, JobStatus, Role, Summary};

use crate::restarts::Told;
use crate::screen::Screen;
use crate::signals::Asked;
use crate::text::{count, counted, time};

/// Between two drawings.
const FRAME: Duration = Duration::from_millis(200);

/// What "now" means for a rate.
const RATE_OVER: Duration = Duration::from_secs(2);

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// Lines drawn in place on standard error.
pub(crate) struct LiveView {
    screen: Screen,
}

impl LiveView {
    pub(crate) fn new(screen: Screen) -> Self {
        Self { screen }
    }

    pub(crate) fn follow(self, job: &Job, asked: &Asked) {
        let Some(watcher) = job.watcher() else { return };
        // The same clock as the job's would do; only differences matter.
        let clock = SystemClock::new();
        let mut rate = Rate::default();
        let mut frame = 0_usize;
        let mut checkpoint = Seen::default();
        let mut restarts = Told::default();
        self.screen.begin_drawing();
        while !job.wait_timeout(FRAME) {
            restarts.tell(job, &self.screen);
            let status = &*watcher.status();
            let (summary, now) = (job.summary(), clock.now());
            rate.add(now, summary.rows_in);
            let spinner = SPINNER.get(frame % SPINNER.len()).copied().unwrap_or_default();
            let state = if asked.is_asked() { "stopping".to_owned() } else { summary.state.to_string() };
            let age = checkpoint.age(status, now);
            let lines = [head(spinner, &state, &summary), rows(&summary, &rate), progress(status), health(status, age)];
            self.screen.draw(lines.join("\n"));
            frame = frame.wrapping_add(1);
        }
        restarts.tell(job, &self.screen);
        self.screen.end_drawing();
    }
}

/// Rows a second, now and in the mean since the view began.
#[derive(Default)]
struct Rate {
    first: Option<(Instant, u64)>,
    recent: VecDeque<(Instant, u64)>,
}

impl Rate {
    fn add(&mut self, now: Instant, rows: u64) {
        self.first.get_or_insert((now, rows));
        self.recent.push_back((now, rows));
        while self.recent.front().is_some_and(|(at, _)| now.saturating_sub(*at) > RATE_OVER) {
            self.recent.pop_front();
        }
    }

    fn now(&self) -> u64 {
        self.since(self.recent.front())
    }

    fn mean(&self) -> u64 {
        self.since(self.first.as_ref())
    }

    fn since(&self, from: Option<&(Instant, u64)>) -> u64 {
        let Some(((begun, before), (now, rows))) = from.zip(self.recent.back()) else { return 0 };
        let seconds = now.saturating_sub(*begun).as_secs_f64();
        if seconds > 0.0 { (rows.saturating_sub(*before) as f64 / seconds) as u64 } else { 0 }
    }
}

/// The last checkpoint that was seen, and when it was seen first.
#[derive(Default)]
struct Seen(Option<(u64, Instant)>);

impl Seen {
    fn age(&mut self, status: &JobStatus, now: Instant) -> Duration {
        let epoch = status.last_checkpoint().map_or(0, |report| report.epoch.0);
        match self.0 {
            Some((seen, at)) if seen == epoch => now.saturating_sub(at),
            _ => {
                self.0 = Some((epoch, now));
                Duration::ZERO
            }
        }
    }
}

fn head(spinner: &str, state: &str, summary: &Summary) -> String {
    let elapsed = Duration::from_secs(summary.seconds as u64);
    let restarts = match summary.restarts {
        0 => String::new(),
        times => format!(", {}", counted(times, "restart", "restarts")),
    };
    format!("{spinner} {}  {state} for {}{restarts}", summary.name, time(elapsed))
}

fn rows(summary: &Summary, rate: &Rate) -> String {
    format!(
        "  in {} rows, {}/s now, {}/s mean   out {}   late {}",
        count(summary.rows_in),
        count(rate.now()),
        count(rate.mean()),
        count(summary.rows_out),
        count(summary.late_rows)
    )
}

/// How far event time has come, and who waits for whom.
fn progress(status: &JobStatus) -> String {
    let sources = status.operators.iter().filter(|operator| operator.role == Role::Source);
    let watermark = sources.map(|source| source.watermark()).min().unwrap_or(Timestamp::MIN);
    let full: Vec<_> = status
        .operators
        .iter()
        .filter(|operator| operator.is_backpressured())
        .map(|operator| operator.name.as_str())
        .collect();
    let backpressure = if full.is_empty() { "none".to_owned() } else { full.join(", ") };
    format!("  watermark {watermark}   backpressure: {backpressure}")
}

fn health(status: &JobStatus, age: Duration) -> String {
    let checkpoint = match status.last_checkpoint() {
        Some(report) => {
            let ago = match age.as_secs() {
                0 => "just now".to_owned(),
                seconds => format!("{} ago", time(Duration::from_secs(seconds))),
            };
            format!("checkpoint {}, {ago}, took {}", report.epoch, time(report.took))
        }
        None => "no checkpoint yet".to_owned(),
    };
    format!("  {checkpoint}   memory {}", human_bytes(status.memory.used_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_seconds_and_its_mean_of_all() {
        let mut rate = Rate::default();
        assert_eq!((rate.now(), rate.mean()), (0, 0));
        for second in 0..=10 {
            rate.add(Duration::from_secs(second), if second <= 5 { second * 100 } else { 500 + (second - 5) * 10 });
        }
        assert_eq!((rate.now(), rate.mean()), (10, 55));
    }
}
