//! What a task spends its time on: working, waiting for something to do, or waiting for a full receiver.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use ruslo_core::clock::Instant;

/// What a task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Doing {
    /// Waits for something to do.
    Idle = 0,
    /// Works, or waits for a thread to work on.
    Busy = 1,
    /// Waits for a full receiver.
    Backpressured = 2,
}

/// How long a task has done what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Waiting for something to do.
    pub idle: Duration,
    /// Working.
    pub busy: Duration,
    /// Waiting for a full receiver.
    pub backpressured: Duration,
}

/// The books of one task's time. Its task writes them; anybody may read.
#[derive(Debug, Default)]
pub struct Activity {
    /// Nanoseconds, by what was done; of what is being done up to `since`.
    spent: [AtomicU64; 3],
    since: AtomicU64,
    doing: AtomicU8,
}

impl Activity {
    /// What the task is doing.
    pub fn doing(&self) -> Doing {
        match self.doing.load(Ordering::Relaxed) {
            0 => Doing::Idle,
            1 => Doing::Busy,
            _ => Doing::Backpressured,
        }
    }

    /// The task does something else from `now` on.
    pub(crate) fn turn_to(&self, doing: Doing, now: Instant) {
        let now = nanos(now);
        let since = self.since.swap(now, Ordering::Relaxed);
        if let Some(spent) = self.spent.get(usize::from(self.doing.swap(doing as u8, Ordering::Relaxed))) {
            spent.fetch_add(now.saturating_sub(since), Ordering::Relaxed);
        }
    }

    /// How the time up to `now` was spent.
    pub fn spent(&self, now: Instant) -> Spent {
        let [idle, busy, backpressured] = [&self.spent[0], &self.spent[1], &self.spent[2]]
            .map(|spent| Duration::from_nanos(spent.load(Ordering::Relaxed)));
        let mut spent = Spent { idle, busy, backpressured };
        let open = Duration::from_nanos(nanos(now).saturating_sub(self.since.load(Ordering::Relaxed)));
        match self.doing() {
            Doing::Idle => spent.idle += open,
            Doing::Busy => spent.busy += open,
            Doing::Backpressured => spent.backpressured += open,
        }
        spent
    }
}

fn nanos(at: Instant) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_booked_under_what_was_done() {
        let seconds = Duration::from_secs;
        let activity = Activity::default();
        activity.turn_to(Doing::Busy, seconds(2));
        activity.turn_to(Doing::Backpressured, seconds(5));
        assert_eq!(activity.doing(), Doing::Backpressured);
        let expected = Spent { idle: seconds(2), busy: seconds(3), backpressured: seconds(4) };
        assert_eq!(activity.spent(seconds(9)), expected, "what is being done counts too");
        activity.turn_to(Doing::Idle, seconds(10));
        assert_eq!(activity.spent(seconds(10)).backpressured, seconds(5));
    }
}
