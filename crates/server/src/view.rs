//! What a person sees of a job while it runs, on a terminal or in a pipe.

use ruslo::{Job, Pipeline};

use crate::live::LiveView;
use crate::plain::PlainView;
use crate::screen::Screen;
use crate::signals::Asked;
use crate::text;

/// A view of one job.
pub(crate) enum View {
    /// Redrawn in place.
    Live(LiveView),
    /// A line now and then.
    Plain(PlainView),
}

/// What is told once, when a job starts.
pub(crate) fn heading(pipeline: &Pipeline) -> String {
    format!("{}, a checkpoint every {}", text::shape(pipeline), text::time(pipeline.checkpoint_interval()))
}

impl View {
    /// The view that fits the screen.
    pub(crate) fn new(screen: &Screen) -> Self {
        match screen.is_terminal() {
            true => Self::Live(LiveView::new(screen.clone())),
            false => Self::Plain(PlainView::new(screen.clone())),
        }
    }

    /// Follows the job to its end.
    pub(crate) fn follow(self, job: &Job, asked: &Asked) {
        match self {
            Self::Live(view) => view.follow(job, asked),
            Self::Plain(view) => view.follow(job),
        }
    }
}
