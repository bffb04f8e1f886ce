//! Merging the runs of keyed tables, behind checkpoints: one table at a time, so that it never keeps the threads of the
//! I/O pool from what a checkpoint waits for. Given up when the job ends.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use ruslo_core::error::Error;
use ruslo_state::keyed::KeyedSnapshot;

use crate::coordinator::{IoJob, IoPool};
use crate::scheduler::lock;

/// The tables that may have runs to merge.
#[derive(Default)]
pub(crate) struct Compaction {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<KeyedSnapshot>,
    is_running: bool,
}

impl Drop for Compaction {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

impl Compaction {
    /// Merges what `tables` have to be merged, some time; `failed` is told the first error.
    pub(crate) fn add(&self, tables: Vec<KeyedSnapshot>, io: &dyn IoPool, failed: impl FnOnce(Error) + Send + 'static) {
        if tables.is_empty() {
            return;
        }
        let mut queue = lock(&self.shared.queue);
        queue.waiting.extend(tables);
        if !std::mem::replace(&mut queue.is_running, true) {
            drop(queue);
            io.submit(self.job(failed));
        }
    }

    fn job(&self, failed: impl FnOnce(Error) + Send + 'static) -> IoJob {
        let shared = Arc::clone(&self.shared);
        Box::new(move || {
            while let Some(table) = shared.next() {
                if let Err(error) = table.compact(&|| !shared.is_over.load(Ordering::Relaxed)) {
                    return failed(error);
                }
            }
        })
    }
}

impl Shared {
    fn next(&self) -> Option<KeyedSnapshot> {
        let mut queue = lock(&self.queue);
        let next = queue.waiting.pop_front().filter(|_| !self.is_over.load(Ordering::Relaxed));
        queue.is_running = next.is_some();
        next
    }
}
