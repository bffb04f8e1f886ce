//! A clock for tests: it goes by checkpoints, so that a busy machine on which they take long does not see fewer of them.

use std::sync::Mutex;
use std::time::Duration;

use ruslo_core::clock::{Clock, Instant, SystemClock};
use ruslo_core::time::Timestamp;

use crate::test_disk::FaultyDisk;

/// So long after a checkpoint time goes as it does elsewhere.
const FREE: Duration = Duration::from_millis(30);
/// Then so many times slower, until there is another one.
const SLOWER: u32 = 64;

/// Time that hardly goes on without checkpoints on `disk`: input that comes at a rate waits for them.
#[derive(Debug)]
pub(crate) struct PacedClock {
    real: SystemClock,
    disk: FaultyDisk,
    last: Mutex<Last>,
}

/// The last checkpoint: how many there were with it, and what time it was.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    published: u64,
    real: Instant,
    shown: Instant,
}

impl Last {
    fn shown_at(self, real: Instant) -> Instant {
        let since = real.saturating_sub(self.real);
        self.shown + since.min(FREE) + since.saturating_sub(FREE) / SLOWER
    }
}

impl PacedClock {
    pub(crate) fn new(disk: &FaultyDisk) -> Self {
        Self { real: SystemClock::new(), disk: disk.clone(), last: Mutex::default() }
    }
}

impl Clock for PacedClock {
    fn now(&self) -> Instant {
        let mut last = self.last.lock().unwrap();
        let (published, real) = (self.disk.published(), self.real.now());
        let shown = last.shown_at(real);
        if published != last.published {
            *last = Last { published, real, shown };
        }
        shown
    }

    fn wall(&self) -> Timestamp {
        self.real.wall()
    }
}

#[test]
fn time_waits_for_checkpoints() {
    let last = Last { published: 3, real: FREE, shown: FREE };
    let after = |millis: u64| last.shown_at(FREE + Duration::from_millis(millis)).as_millis();
    assert_eq!([0, 10, 30, 94, 30 + 6_400].map(after), [30, 40, 60, 61, 160]);
}
