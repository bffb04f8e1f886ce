//! Runs a job in an order that follows from a seed, on one thread and a virtual clock.
//!
//! A step is a task's step, an I/O job, or a jump of the clock to the next deadline, chosen at random among those that
//! are possible. The same seed makes the same choices, so every run can be repeated bit for bit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ruslo_core::clock::{Clock, Instant, VirtualClock};
use ruslo_core::error::{Error, Result};
use ruslo_core::rng::Rng;

use crate::ask::Ask;
use crate::coordinator::{Coordinator, IoJob, IoPool, Mailbox, Message, Outcome};
use crate::job::{Job, JobSpec};
use crate::layout::Layout;
use crate::scheduler::{Scheduler, TaskIndex, lock};
use crate::status::JobStatus;
use crate::task::{Step, Task};

#[derive(Default)]
struct Ready(Mutex<BTreeSet<TaskIndex>>);

impl Scheduler for Ready {
    fn wake(&self, task: TaskIndex) {
        lock(&self.0).insert(task);
    }
}

#[derive(Default)]
struct DeferredIo(Mutex<Vec<IoJob>>);

impl IoPool for DeferredIo {
    fn submit(&self, job: IoJob) {
        lock(&self.0).push(job);
    }
}

/// A job under a seeded scheduler.
pub struct SeededJob {
    tasks: Vec<Task>,
    coordinator: Coordinator,
    mailbox: Arc<Mailbox>,
    status: Arc<JobStatus>,
    ready: Arc<Ready>,
    io: Arc<DeferredIo>,
    deadlines: BTreeMap<TaskIndex, Instant>,
    clock: Arc<VirtualClock>,
    rng: Rng,
}

impl SeededJob {
    /// A job that has taken no step. `clock` must be the clock of `spec.environment`.
    pub fn start(spec: JobSpec, clock: Arc<VirtualClock>, rng: Rng) -> Result<Self> {
        let ready = Arc::new(Ready::default());
        lock(&ready.0).extend(0..=Layout::of(&spec.graph).tasks());
        let io = Arc::new(DeferredIo::default());
        let Job { tasks, coordinator, mailbox, status } =
            Job::build(spec, Arc::clone(&ready) as _, Arc::clone(&io) as _)?;
        Ok(Self { tasks, coordinator, mailbox, status, ready, io, deadlines: BTreeMap::new(), clock, rng })
    }

    /// What may be seen of the job.
    pub fn status(&self) -> &JobStatus {
        &self.status
    }

    /// Asks the job to stop at a checkpoint.
    pub fn stop(&self) {
        self.mailbox.post(Message::Stop);
    }

    /// Asks the job for a savepoint, or to end.
    pub fn ask(&self, ask: Ask) {
        self.mailbox.post(Message::Ask(ask));
    }

    /// Takes one step; how the job ended, once it has.
    ///
    /// # Errors
    /// What made the job fail; `Internal`, if nothing can be done any more though it has not ended.
    pub fn step(&mut self) -> Result<Option<Outcome>> {
        let ready: Vec<_> = lock(&self.ready.0).iter().copied().collect();
        let jobs = lock(&self.io.0).len();
        let choices = ready.len() + jobs;
        if choices == 0 || (!self.deadlines.is_empty() && self.rng.one_in(64)) {
            return self.jump().map(|()| None);
        }
        let choice = self.rng.below(choices);
        match ready.get(choice) {
            Some(task) => self.run(*task),
            None => {
                let job = lock(&self.io.0).swap_remove(choice - ready.len());
                job();
                Ok(None)
            }
        }
    }

    /// Runs until the job ends.
    pub fn run_to_end(&mut self) -> Result<Outcome> {
        loop {
            if let Some(outcome) = self.step()? {
                return Ok(outcome);
            }
        }
    }

    fn run(&mut self, index: TaskIndex) -> Result<Option<Outcome>> {
        lock(&self.ready.0).remove(&index);
        self.deadlines.remove(&index);
        let until = match self.tasks.get_mut(index) {
            Some(task) => match task.step() {
                Step::Worked => {
                    self.ready.wake(index);
                    None
                }
                Step::Blocked(until) => until,
                Step::Finished => None,
            },
            None => {
                if let Some(outcome) = self.coordinator.step()? {
                    return Ok(Some(outcome));
                }
                self.coordinator.due()
            }
        };
        if let Some(at) = until {
            self.deadlines.insert(index, at);
        }
        Ok(None)
    }

    /// Moves the clock to the next deadline and wakes whose it is.
    fn jump(&mut self) -> Result<()> {
        let Some(at) = self.deadlines.values().min().copied() else {
            return Err(Error::internal("nothing can be done any more, and the job has not ended"));
        };
        self.clock.advance(at.saturating_sub(self.clock.now()) + Duration::from_nanos(1));
        let now = self.clock.now();
        let due: Vec<_> = self.deadlines.iter().filter(|(_, at)| **at <= now).map(|(task, _)| *task).collect();
        for task in due {
            self.deadlines.remove(&task);
            self.ready.wake(task);
        }
        Ok(())
    }
}
