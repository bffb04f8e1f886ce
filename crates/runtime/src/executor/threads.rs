//! Runs a job on threads.
//!
//! Workers take runnable tasks from one shared queue; a task that can do nothing is parked until a channel, the
//! coordinator or its deadline wakes it. Nobody polls: a job that waits costs nothing.

use std::collections::{BinaryHeap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use ruslo_core::clock::{Clock, Instant};
use ruslo_core::error::{Error, Result};

use crate::ask::Ask;
use crate::coordinator::{Coordinator, IoJob, IoPool, Mailbox, Message, Outcome};
use crate::job::{Job, JobSpec};
use crate::layout::Layout;
use crate::panic::{caught, panicked};
use crate::scheduler::{Scheduler, TaskIndex, lock};
use crate::status::JobStatus;
use crate::task::{Step, Task};

/// How long a task may keep a worker before others get their turn.
const SLICE: Duration = Duration::from_millis(5);

/// A step that takes longer is a bug of its operator, and is named in the log.
const STEP_MAX: Duration = Duration::from_secs(1);

/// Threads that run what blocks.
const IO_THREADS: usize = 2;

const IDLE: u8 = 0;
const QUEUED: u8 = 1;
const RUNNING: u8 = 2;
/// Running, and woken meanwhile: run again.
const NOTIFIED: u8 = 3;

struct RunQueue {
    states: Vec<AtomicU8>,
    waiting: Mutex<Waiting>,
    ready: Condvar,
}

#[derive(Default)]
struct Waiting {
    runnable: VecDeque<TaskIndex>,
    deadlines: BinaryHeap<std::cmp::Reverse<(Instant, TaskIndex)>>,
    closed: bool,
}

impl RunQueue {
    /// A queue with every task runnable.
    fn new(tasks: usize) -> Self {
        let waiting = Waiting { runnable: (0..tasks).collect(), ..Default::default() };
        let states = (0..tasks).map(|_| AtomicU8::new(QUEUED)).collect();
        Self { states, waiting: Mutex::new(waiting), ready: Condvar::new() }
    }

    /// Marks a task as woken; whether it has to be queued by the caller.
    fn mark(&self, task: TaskIndex) -> bool {
        let Some(state) = self.states.get(task) else { return false };
        let next = |state| match state {
            IDLE => Some(QUEUED),
            RUNNING => Some(NOTIFIED),
            _ => None,
        };
        state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) == Ok(IDLE)
    }

    /// The next task to run; `None` when the job is over.
    fn take(&self, clock: &dyn Clock) -> Option<TaskIndex> {
        let mut waiting = lock(&self.waiting);
        loop {
            if waiting.closed {
                return None;
            }
            let timeout = self.wake_due(&mut waiting, clock);
            if let Some(task) = waiting.runnable.pop_front() {
                if let Some(state) = self.states.get(task) {
                    state.store(RUNNING, Ordering::Release);
                }
                return Some(task);
            }
            waiting = match timeout {
                Some(timeout) => self.ready.wait_timeout(waiting, timeout).unwrap_or_else(PoisonError::into_inner).0,
                None => self.ready.wait(waiting).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Queues tasks whose deadline has come; how long until the next one.
    fn wake_due(&self, waiting: &mut Waiting, clock: &dyn Clock) -> Option<Duration> {
        if waiting.deadlines.is_empty() {
            return None;
        }
        let now = clock.now();
        while let Some(std::cmp::Reverse((at, task))) = waiting.deadlines.peek().copied() {
            if at > now {
                return Some(at - now);
            }
            waiting.deadlines.pop();
            if self.mark(task) {
                waiting.runnable.push_back(task);
            }
        }
        None
    }

    /// Gives a task back after its turn.
    fn give_back(&self, task: TaskIndex, step: Step) {
        let Some(state) = self.states.get(task) else { return };
        if let Step::Blocked(until) = step {
            let parked = state.compare_exchange(RUNNING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if let Some(at) = until {
                lock(&self.waiting).deadlines.push(std::cmp::Reverse((at, task)));
                self.ready.notify_one();
            }
            if parked {
                return;
            }
        }
        if step != Step::Finished {
            state.store(QUEUED, Ordering::Release);
            lock(&self.waiting).runnable.push_back(task);
            self.ready.notify_one();
        }
    }

    fn close(&self) {
        lock(&self.waiting).closed = true;
        self.ready.notify_all();
    }
}

impl Scheduler for RunQueue {
    fn wake(&self, task: TaskIndex) {
        if self.mark(task) {
            lock(&self.waiting).runnable.push_back(task);
            self.ready.notify_one();
        }
    }
}

/// Threads for what blocks; they end when this is dropped and their jobs are done.
struct IoThreads {
    jobs: Mutex<mpsc::Sender<IoJob>>,
}

impl IoPool for IoThreads {
    fn submit(&self, job: IoJob) {
        // The threads live as long as this sender: a job is lost only when the whole job is over.
        let _ = lock(&self.jobs).send(job);
    }
}

fn start_io(threads: &mut Vec<JoinHandle<()>>) -> Result<IoThreads> {
    let (sender, receiver) = mpsc::channel::<IoJob>();
    let receiver = Arc::new(Mutex::new(receiver));
    for index in 0..IO_THREADS {
        let receiver = Arc::clone(&receiver);
        let work = move || {
            while let Ok(job) = { lock(&receiver).recv() } {
                job();
            }
        };
        threads.push(spawn(format!("ruslo-io-{index}"), work)?);
    }
    Ok(IoThreads { jobs: Mutex::new(sender) })
}

fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    Builder::new().name(name).spawn(work).map_err(|error| Error::io("cannot start a thread", &error))
}

/// What the workers share.
struct Shared {
    queue: Arc<RunQueue>,
    tasks: Vec<Mutex<Task>>,
    coordinator: Mutex<Coordinator>,
    clock: Arc<dyn Clock>,
    result: Mutex<Option<Result<Outcome>>>,
    over: Condvar,
}

impl Shared {
    fn work(&self) {
        while let Some(index) = self.queue.take(self.clock.as_ref()) {
            let turn = || match self.tasks.get(index) {
                Some(task) => self.run_task(task),
                None => self.run_coordinator(),
            };
            let step = catch_unwind(AssertUnwindSafe(turn)).unwrap_or_else(|panic| {
                self.finish(Err(panicked(&self.name_of(index), panic.as_ref())));
                Step::Finished
            });
            self.queue.give_back(index, step);
        }
    }

    fn name_of(&self, index: TaskIndex) -> String {
        self.tasks.get(index).map_or_else(|| "the coordinator".to_owned(), |task| lock(task).name().to_owned())
    }

    fn run_task(&self, task: &Mutex<Task>) -> Step {
        let mut task = lock(task);
        let begun = self.clock.now();
        let mut last = begun;
        loop {
            let step = task.step();
            let now = self.clock.now();
            if now.saturating_sub(last) > STEP_MAX {
                tracing::warn!(task = task.name(), took = ?(now - last), "a step took too long");
            }
            if step != Step::Worked || now.saturating_sub(begun) > SLICE {
                return step;
            }
            last = now;
        }
    }

    fn run_coordinator(&self) -> Step {
        let mut coordinator = lock(&self.coordinator);
        match coordinator.step() {
            Ok(None) => Step::Blocked(coordinator.due()),
            Ok(Some(outcome)) => self.finish(Ok(outcome)),
            Err(error) => self.finish(Err(error)),
        }
    }

    fn finish(&self, result: Result<Outcome>) -> Step {
        lock(&self.result).get_or_insert(result);
        self.over.notify_all();
        self.queue.close();
        Step::Finished
    }
}

/// A job that runs.
pub struct RunningJob {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    status: Arc<JobStatus>,
    workers: Vec<JoinHandle<()>>,
    io: Vec<JoinHandle<()>>,
}

/// Asks a running job to stop.
#[derive(Clone)]
pub struct StopHandle(Arc<Mailbox>);

impl StopHandle {
    /// Asks the job to stop at a checkpoint, from which it can resume.
    pub fn stop(&self) {
        self.0.post(Message::Stop);
    }

    /// Asks the job for a savepoint, or to end, and to answer. Nobody answers if it has ended or fails.
    pub fn ask(&self, ask: Ask) {
        self.0.post(Message::Ask(ask));
    }
}

/// Starts a job on `spec.config.workers` threads.
pub fn start(spec: JobSpec) -> Result<RunningJob> {
    let queue = Arc::new(RunQueue::new(Layout::of(&spec.graph).tasks() + 1));
    let (workers, clock) = (spec.config.workers.max(1), Arc::clone(&spec.environment.clock));
    let mut io = Vec::new();
    let pool = Arc::new(start_io(&mut io)?);
    let scheduler: Arc<dyn Scheduler> = Arc::clone(&queue) as _;
    let Job { tasks, coordinator, mailbox, status } =
        caught("the start of the job", || Job::build(spec, scheduler, pool))?;
    let shared = Arc::new(Shared {
        queue,
        tasks: tasks.into_iter().map(Mutex::new).collect(),
        coordinator: Mutex::new(coordinator),
        clock,
        result: Mutex::default(),
        over: Condvar::new(),
    });
    let workers = (0..workers).map(|index| {
        let shared = Arc::clone(&shared);
        spawn(format!("ruslo-{index}"), move || shared.work())
    });
    Ok(RunningJob { workers: workers.collect::<Result<_>>()?, shared, mailbox, status, io })
}

impl RunningJob {
    /// What may be seen of the job.
    pub fn status(&self) -> &Arc<JobStatus> {
        &self.status
    }

    /// A handle that asks it to stop.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(Arc::clone(&self.mailbox))
    }

    /// Waits until the job is over, or `timeout` has passed: then `None`.
    pub fn wait_timeout(&self, timeout: Duration) -> Option<Result<Outcome>> {
        let result = lock(&self.shared.result);
        let over = |result: &mut Option<Result<Outcome>>| result.is_none();
        let waited = self.shared.over.wait_timeout_while(result, timeout, over);
        waited.unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Waits until the job is over and its threads have ended.
    ///
    /// # Errors
    /// What made the job fail.
    pub fn wait(self) -> Result<Outcome> {
        let Self { shared, mailbox, workers, io, .. } = self;
        let result = {
            let result = lock(&shared.result);
            let waited = shared.over.wait_while(result, |result| result.is_none());
            waited.unwrap_or_else(PoisonError::into_inner).clone()
        };
        workers.into_iter().for_each(|worker| _ = worker.join());
        // The last owner of the I/O pool goes with the coordinator; then its threads end.
        drop(mailbox);
        drop(shared);
        io.into_iter().for_each(|thread| _ = thread.join());
        result.unwrap_or_else(|| Err(Error::internal("the job ended without a result")))
    }
}
