//! When a split that brings no rows is idle: a source head asks after every poll of its reader.
//!
//! Only time in which the reader was asked counts. A head that waits for a full receiver does not poll, and what it finds
//! after that is no sign that its splits were quiet in between.

use std::time::Duration;

use ruslo_core::clock::Instant;

/// The share of the timeout that may lie between two polls and count in full, as a divisor.
const POLLS_MIN: u32 = 4;

/// The timeout of one source head.
pub(crate) struct Idleness {
    timeout: Option<Duration>,
    polled_at: Instant,
}

/// What one poll says about the splits that it brought nothing of.
pub(crate) struct Turn {
    now: Instant,
    timeout: Duration,
    /// Time since the last poll that does not count.
    unasked: Duration,
}

/// How long one split has been quiet.
#[derive(Default)]
pub(crate) struct Quiet {
    /// Since which poll it has brought nothing.
    pub(crate) since: Option<Instant>,
    /// Nobody waits for it.
    pub(crate) is_idle: bool,
}

impl Idleness {
    /// Nothing falls idle without a timeout.
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, polled_at: Instant::ZERO }
    }

    pub(crate) fn is_watched(&self) -> bool {
        self.timeout.is_some()
    }

    /// The reader was polled and brought something (`has_rows`), or has nothing at all; none without a timeout.
    pub(crate) fn turn(&mut self, now: Instant, has_rows: bool) -> Option<Turn> {
        let timeout = self.timeout?;
        let since = now.saturating_sub(std::mem::replace(&mut self.polled_at, now));
        let unasked = if has_rows { since.saturating_sub(timeout / POLLS_MIN) } else { Duration::ZERO };
        Some(Turn { now, timeout, unasked })
    }
}

impl Quiet {
    /// The poll brought nothing of this split; whether it falls idle now.
    pub(crate) fn falls_idle(&mut self, turn: &Turn) -> bool {
        let since = self.since.map_or(turn.now, |since| turn.now.min(since + turn.unasked));
        self.since = Some(since);
        let falls = !self.is_idle && turn.now >= since + turn.timeout;
        self.is_idle |= falls;
        falls
    }

    /// When it will fall idle, if it goes on like this.
    pub(crate) fn deadline(&self, turn: &Turn) -> Option<Instant> {
        self.since.filter(|_| !self.is_idle).map(|since| since + turn.timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_split_that_is_asked_in_vain_for_the_timeout_is_idle() {
        let (mut idleness, mut quiet) = (Idleness::new(Some(ms(100))), Quiet::default());
        let turn = idleness.turn(ms(7), false).unwrap();
        assert!(!quiet.falls_idle(&turn));
        assert_eq!(quiet.deadline(&turn), Some(ms(107)));
        assert!(!quiet.falls_idle(&idleness.turn(ms(106), false).unwrap()));
        let turn = idleness.turn(ms(107), false).unwrap();
        assert!(quiet.falls_idle(&turn) && !quiet.falls_idle(&turn), "once");
        assert_eq!(quiet.deadline(&turn), None);
    }

    #[test]
    fn time_in_which_nobody_asked_does_not_count_while_others_bring_rows() {
        let (mut idleness, mut quiet) = (Idleness::new(Some(ms(100))), Quiet::default());
        assert!(!quiet.falls_idle(&idleness.turn(ms(0), true).unwrap()));
        assert!(!quiet.falls_idle(&idleness.turn(ms(5000), true).unwrap()), "the receiver was full");
        for at in [5020, 5040, 5060] {
            assert!(!quiet.falls_idle(&idleness.turn(ms(at), true).unwrap()), "{at}");
        }
        assert!(quiet.falls_idle(&idleness.turn(ms(5080), true).unwrap()), "25 + 4 · 20 ms");
    }

    #[test]
    fn without_a_timeout_nothing_is_idle() {
        let mut idleness = Idleness::new(None);
        assert!(idleness.turn(ms(5), false).is_none() && !idleness.is_watched());
    }
}
