//! Memory accounted per pipeline: every holder has a named [`Reservation`] on one [`MemoryPool`].
//!
//! The pool allocates nothing: holders say what they hold. A reservation that would pass the limit fails with an error
//! that names who holds what.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow::record_batch::RecordBatch;

use crate::error::{Error, ErrorKind, Result};

/// The bytes of a batch's slices, not of the whole buffers behind them.
pub fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

/// Bytes as a person writes them: `1.5 MiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["B", "KiB", "MiB", "GiB"];
    let unit = UNITS.iter().enumerate().rev().find(|(power, _)| bytes >> (10 * power) > 0).unwrap_or((0, &"B"));
    match unit {
        (0, name) => format!("{bytes} {name}"),
        (power, name) => format!("{:.1} {name}", bytes as f64 / f64::from(1u32 << (10 * power))),
    }
}

/// How the error of a reached limit begins.
const LIMIT_REACHED: &str = "the pipeline's memory limit of ";

/// Whether an error says that a [`MemoryPool`]'s limit is reached, wherever that was.
pub fn is_limit_reached(error: &Error) -> bool {
    error.kind() == ErrorKind::Resource && error.to_string().contains(LIMIT_REACHED)
}

/// What a pipeline may hold in memory, in bytes.
#[derive(Debug)]
pub struct MemoryPool {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    peak_bytes: AtomicU64,
    /// Holders that can give memory back, and have wanted more than they were sure of.
    yielding: AtomicU64,
    holders: Mutex<Vec<Weak<Holder>>>,
}

#[derive(Debug)]
struct Holder {
    name: String,
    bytes: AtomicU64,
    /// Whether it can give memory back: by writing to disk.
    yields: bool,
    /// Whether it has ever wanted more than it was sure of.
    has_asked: AtomicBool,
}

impl MemoryPool {
    /// A pool of `limit_bytes`.
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            used_bytes: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
            yielding: AtomicU64::new(0),
            holders: Mutex::new(Vec::new()),
        })
    }

    /// A pool without a limit; it still counts.
    pub fn unbounded() -> Arc<Self> {
        Self::new(u64::MAX)
    }

    /// What all holders together may hold, in bytes.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Bytes held by all holders together.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The most bytes ever held together.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Relaxed)
    }

    /// A holder named `name`, which holds nothing yet.
    pub fn reserve(self: &Arc<Self>, name: impl Into<String>) -> Reservation {
        self.register(name.into(), false)
    }

    /// As [`MemoryPool::reserve`], for a holder that can do with less memory, and asks [`Reservation::may_hold`] before it
    /// takes more.
    pub fn reserve_yielding(self: &Arc<Self>, name: impl Into<String>) -> Reservation {
        self.register(name.into(), true)
    }

    fn register(self: &Arc<Self>, name: String, yields: bool) -> Reservation {
        let (bytes, has_asked) = (AtomicU64::new(0), AtomicBool::new(false));
        let holder = Arc::new(Holder { name, bytes, yields, has_asked });
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        holders.retain(|holder| holder.strong_count() > 0);
        holders.push(Arc::downgrade(&holder));
        Reservation { pool: Arc::clone(self), holder }
    }

    /// The largest holders, largest first.
    fn largest(&self) -> String {
        let holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held: Vec<_> = holders
            .iter()
            .filter_map(Weak::upgrade)
            .map(|holder| (holder.bytes.load(Ordering::Relaxed), holder.name.clone()))
            .filter(|(bytes, _)| *bytes > 0)
            .collect();
        held.sort_by(|a, b| b.cmp(a));
        let shown: Vec<_> =
            held.iter().take(4).map(|(bytes, name)| format!("{name} {}", human_bytes(*bytes))).collect();
        if shown.is_empty() { "nobody else holds any".to_owned() } else { shown.join(", ") }
    }
}

/// One holder's share of a [`MemoryPool`]; given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    pool: Arc<MemoryPool>,
    holder: Arc<Holder>,
}

impl Reservation {
    /// Bytes held now.
    pub fn bytes(&self) -> u64 {
        self.holder.bytes.load(Ordering::Relaxed)
    }

    /// Says that this holder now holds `bytes` in all.
    ///
    /// # Errors
    /// `Resource`, naming the largest holders, if the pool would pass its limit; then nothing has changed.
    pub fn resize(&self, bytes: u64) -> Result<()> {
        let before = self.bytes();
        if bytes <= before {
            self.pool.used_bytes.fetch_sub(before - bytes, Ordering::Relaxed);
        } else {
            self.grow(bytes - before)?;
        }
        self.holder.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Says that this holder holds `bytes` in all, even past the limit: for what is there already and small beside the
    /// limit. Who asks next is refused until enough is given back.
    pub fn hold(&self, bytes: u64) {
        let before = self.holder.bytes.swap(bytes, Ordering::Relaxed);
        if bytes <= before {
            self.pool.used_bytes.fetch_sub(before - bytes, Ordering::Relaxed);
            return;
        }
        let used = self.pool.used_bytes.fetch_add(bytes - before, Ordering::Relaxed) + (bytes - before);
        self.pool.peak_bytes.fetch_max(used, Ordering::Relaxed);
    }

    /// What all holders together may hold.
    pub fn limit_bytes(&self) -> u64 {
        self.pool.limit_bytes
    }

    /// Whether a holder that can give memory back may take `bytes` in all. Half of the limit is there for whoever comes
    /// first; beyond it those that ask have equal shares, and an eighth stays free for rows on their way.
    pub fn may_hold(&self, bytes: u64) -> bool {
        let limit = self.pool.limit_bytes;
        let used = self.pool.used_bytes().saturating_add(bytes.saturating_sub(self.bytes()));
        if used <= limit / 2 {
            return true;
        }
        if self.holder.yields && !self.holder.has_asked.swap(true, Ordering::Relaxed) {
            self.pool.yielding.fetch_add(1, Ordering::Relaxed);
        }
        let shared = limit - limit / 8;
        used <= shared && bytes <= shared / self.pool.yielding.load(Ordering::Relaxed).max(1)
    }

    fn grow(&self, more: u64) -> Result<()> {
        let limit = self.pool.limit_bytes;
        let taken = self.pool.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(more).filter(|sum| *sum <= limit)
        });
        match taken {
            Ok(before) => {
                self.pool.peak_bytes.fetch_max(before + more, Ordering::Relaxed);
                Ok(())
            }
            Err(_) => Err(Error::resource(format!(
                "{LIMIT_REACHED}{} is reached: {} asks for {} more; held now: {}. \
                 Raise 'pipeline.memory-limit', or keep less in state (shorter windows, fewer keys)",
                human_bytes(limit),
                self.holder.name,
                human_bytes(more),
                self.pool.largest()
            ))),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.holder.has_asked.load(Ordering::Relaxed) {
            self.pool.yielding.fetch_sub(1, Ordering::Relaxed);
        }
        self.pool.used_bytes.fetch_sub(self.bytes(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passing_the_limit_names_who_holds_what_and_changes_nothing() {
        let pool = MemoryPool::new(100 << 10);
        let window = pool.reserve("window 'departures' #0");
        let edge = pool.reserve("edge 1 #0");
        window.resize(90 << 10).unwrap();
        edge.resize(10 << 10).unwrap();
        let error = edge.resize(11 << 10).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::Resource);
        assert!(error.to_string().contains("held now: window 'departures' #0 90.0 KiB, edge 1 #0 10.0 KiB"), "{error}");
        assert_eq!(pool.used_bytes(), 100 << 10);
        assert!(
            is_limit_reached(&error.context("in 'departures'")) && !is_limit_reached(&Error::resource("disk full"))
        );
    }

    #[test]
    fn what_is_dropped_is_given_back() {
        let pool = MemoryPool::new(10);
        let first = pool.reserve("a");
        first.resize(10).unwrap();
        first.resize(4).unwrap();
        drop(first);
        assert_eq!((pool.used_bytes(), pool.peak_bytes()), (0, 10));
    }

    #[test]
    fn what_is_held_past_the_limit_is_missing_to_who_asks_next() {
        let pool = MemoryPool::new(10);
        let (index, rows) = (pool.reserve("index"), pool.reserve("rows"));
        rows.resize(8).unwrap();
        index.hold(4);
        assert_eq!(pool.used_bytes(), 12);
        assert!(rows.resize(9).is_err());
        rows.resize(6).unwrap();
        index.hold(1);
        assert_eq!((pool.used_bytes(), pool.peak_bytes()), (7, 12));
    }

    #[test]
    fn who_can_give_memory_back_takes_no_more_than_its_share() {
        let pool = MemoryPool::new(1600);
        let (first, second) = (pool.reserve_yielding("a"), pool.reserve_yielding("b"));
        // Who has not asked for more than half has no share yet.
        assert!(first.may_hold(1400) && !first.may_hold(1401));
        first.resize(800).unwrap();
        assert!(second.may_hold(600) && !second.may_hold(601));
        assert!(first.may_hold(700) && !first.may_hold(801));
        drop(first);
        assert!(second.may_hold(1400) && !second.may_hold(1401));
    }

    #[test]
    fn bytes_read_as_a_person_writes_them() {
        assert_eq!([0, 1023, 1536, 5 << 30].map(human_bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
    }
}
