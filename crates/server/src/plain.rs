//! The view in a pipe: a line a checkpoint, not too many of them.

use std::time::Duration;

use ruslo::core::clock::{Clock, Instant, SystemClock};
use ruslo::{CheckpointReport, Job, Summary};

use crate::restarts::Told;
use crate::screen::Screen;
use crate::text::{counted, time};

/// Between two lines at least.
const PAUSE_MIN: Duration = Duration::from_secs(10);

/// How often the job is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Lines on standard error.
pub(crate) struct PlainView {
    screen: Screen,
}

impl PlainView {
    pub(crate) fn new(screen: Screen) -> Self {
        Self { screen }
    }

    pub(crate) fn follow(self, job: &Job) {
        let clock = SystemClock::new();
        let mut lines = Lines::default();
        let mut restarts = Told::default();
        while !job.wait_timeout(LOOK) {
            restarts.tell(job, &self.screen);
            let report = job.status().and_then(|status| status.last_checkpoint());
            if let Some(report) = lines.due(report, clock.now()) {
                self.screen.line(&line(&job.summary(), report));
            }
        }
        restarts.tell(job, &self.screen);
    }
}

/// When a line is due.
#[derive(Default)]
struct Lines {
    last: Option<(CheckpointReport, Instant)>,
}

impl Lines {
    fn due(&mut self, report: Option<CheckpointReport>, now: Instant) -> Option<CheckpointReport> {
        let report = report?;
        let is_due = match &self.last {
            None => now >= PAUSE_MIN,
            Some((last, at)) => report.epoch != last.epoch && now.saturating_sub(*at) >= PAUSE_MIN,
        };
        is_due.then(|| {
            self.last = Some((report, now));
            report
        })
    }
}

fn line(summary: &Summary, report: CheckpointReport) -> String {
    format!(
        "{}: checkpoint {} took {}: {} in, {} out, {}",
        summary.name,
        report.epoch,
        time(report.took),
        counted(summary.rows_in, "row", "rows"),
        counted(summary.rows_out, "row", "rows"),
        counted(summary.late_rows, "late row", "late rows")
    )
}

#[cfg(test)]
mod tests {
    use ruslo::Epoch;

    use super::*;

    #[test]
    fn a_new_checkpoint_is_told_but_not_too_often() {
        let report = |epoch| {
            let second = Duration::from_secs(1);
            Some(CheckpointReport {
                epoch: Epoch(epoch),
                took: second,
                at: second,
                bytes_written: 0,
                bytes: 0,
                completed: 1,
                acknowledged: second,
                written: Duration::ZERO,
                published: Duration::ZERO,
                rows_in_flight: 0,
            })
        };
        let mut lines = Lines::default();
        let mut due = |epoch, second| lines.due(epoch, Duration::from_secs(second)).map(|report| report.epoch.0);
        assert_eq!(due(None, 20), None);
        assert_eq!(due(report(1), 1), None, "a short job says little");
        assert_eq!(due(report(3), 12), Some(3));
        assert_eq!(due(report(3), 30), None);
        assert_eq!(due(report(4), 31), Some(4));
        assert_eq!(due(report(5), 32), None);
    }
}
