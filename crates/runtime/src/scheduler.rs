//! How a task is woken: whoever makes work for a task tells the executor through [`Scheduler::wake`].

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A task's number in its job. The coordinator has the number after the last task.
pub type TaskIndex = usize;

/// What an executor offers to channels and tasks.
pub trait Scheduler: Send + Sync {
    /// The task may have something to do. Cheap when it is known already.
    fn wake(&self, task: TaskIndex);
}

/// Locks, and goes on with the data of a lock whose holder panicked: the job has failed by then, and only ends.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
