//! The clock seam. Nothing in Ruslo reads the machine's time but through a [`Clock`].

use std::time::Duration;

use crate::time::Timestamp;

/// A point in processing time: how long since the clock's own beginning. Never goes back.
pub type Instant = Duration;

/// Where time comes from.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Processing time, for deadlines and durations.
    fn now(&self) -> Instant;
    /// The calendar's time, for what people read. May jump.
    fn wall(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// A clock that begins now.
    #[allow(clippy::disallowed_methods, reason = "this is the clock seam itself")]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        self.start.elapsed()
    }

    #[allow(clippy::disallowed_methods, reason = "this is the clock seam itself")]
    fn wall(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }
}

/// A clock that stands still until it is moved: for tests and the simulator.
#[derive(Debug, Default)]
pub struct VirtualClock {
    nanos: std::sync::atomic::AtomicU64,
}

impl VirtualClock {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        use std::sync::atomic::Ordering::Relaxed;
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let _ = self.nanos.fetch_update(Relaxed, Relaxed, |nanos| Some(nanos.saturating_add(by)));
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        Duration::from_nanos(self.nanos.load(std::sync::atomic::Ordering::Relaxed))
    }

    fn wall(&self) -> Timestamp {
        Timestamp(i64::try_from(self.now().as_millis()).unwrap_or(i64::MAX))
    }
}
