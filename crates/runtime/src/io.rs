//! What a task's operators ask of the world outside, from [`OperatorContext::submit_io`] to [`Operator::on_io`].
//!
//! ```text
//! operator ─ request ─▶ delayed ─▶ running: a future that the I/O pool polls ─ answer ─▶ the task is woken ─▶ operator
//!                                     └── no answer in time ─────────────────────────────────▲
//! ```
//!
//! Futures are polled by the threads of the [`IoPool`], again whenever they are woken. Which answer comes first, they
//! decide; under the seeded executor the seed does, because it draws the next job of the pool. Delays and timeouts go by
//! the task's clock. An answer that comes after its timeout is dropped.
//!
//! [`OperatorContext::submit_io`]: ruslo_core::operator::OperatorContext::submit_io
//! [`Operator::on_io`]: ruslo_core::operator::Operator::on_io

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use ruslo_core::clock::Instant;
use ruslo_core::error::{Error, Result};
use ruslo_core::io::{IoFuture, IoRequest, IoResult, IoWork};

use crate::coordinator::IoPool;
use crate::panic::panicked;
use crate::scheduler::{Scheduler, TaskIndex, lock};

type Answers = Mutex<Vec<(u64, Result<RecordBatch>)>>;

/// The open requests of one task.
pub(crate) struct TaskIo {
    task: TaskIndex,
    scheduler: Arc<dyn Scheduler>,
    pool: Arc<dyn IoPool>,
    answers: Arc<Answers>,
    /// By the number that this task gave them, in the order in which they came.
    open: BTreeMap<u64, Open>,
    /// Answers that no operator has been given yet.
    done: VecDeque<(usize, IoResult)>,
    next: u64,
}

struct Open {
    member: usize,
    id: u64,
    timeout: Duration,
    stage: Stage,
}

enum Stage {
    Delayed(Instant, IoWork),
    Running(Instant),
}

impl TaskIo {
    pub(crate) fn new(task: TaskIndex, scheduler: Arc<dyn Scheduler>, pool: Arc<dyn IoPool>) -> Self {
        let (answers, open, done, next) = Default::default();
        Self { task, scheduler, pool, answers, open, done, next }
    }

    /// Takes a request of the operator `member`.
    pub(crate) fn submit(&mut self, member: usize, request: IoRequest, now: Instant) {
        let IoRequest { id, work, delay, timeout } = request;
        let ticket = self.next;
        self.next += 1;
        let stage = match delay.is_zero() {
            true => self.begin(ticket, work, timeout, now),
            false => Stage::Delayed(now.saturating_add(delay), work),
        };
        self.open.insert(ticket, Open { member, id, timeout, stage });
    }

    fn begin(&self, ticket: u64, work: IoWork, timeout: Duration, now: Instant) -> Stage {
        let (answers, scheduler, task) = (Arc::clone(&self.answers), Arc::clone(&self.scheduler), self.task);
        let future = Box::pin(async move {
            let answer = Caught(work()).await;
            lock(&answers).push((ticket, answer));
            scheduler.wake(task);
        });
        let asked = Arc::new(Asked { future: Mutex::new(Some(future)), pool: Arc::downgrade(&self.pool) });
        self.pool.submit(Box::new(move || asked.poll()));
        Stage::Running(now.saturating_add(timeout))
    }

    /// The next that has been answered, or will not be any more, by member. Begins requests whose delay is over.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(usize, IoResult)> {
        if self.done.is_empty() && !self.open.is_empty() {
            self.look(now);
        }
        self.done.pop_front()
    }

    fn look(&mut self, now: Instant) {
        for (ticket, answer) in std::mem::take(&mut *lock(&self.answers)) {
            if let Some(Open { member, id, .. }) = self.open.remove(&ticket) {
                self.done.push_back((member, IoResult { id, answer }));
            }
        }
        for ticket in self.due(now) {
            let Some(Open { member, id, timeout, stage }) = self.open.remove(&ticket) else { continue };
            match stage {
                Stage::Delayed(_, work) => {
                    let stage = self.begin(ticket, work, timeout, now);
                    self.open.insert(ticket, Open { member, id, timeout, stage });
                }
                Stage::Running(_) => self.done.push_back((member, IoResult { id, answer: Err(too_late(timeout)) })),
            }
        }
    }

    fn due(&self, now: Instant) -> Vec<u64> {
        let is_due = |(_, open): &(&u64, &Open)| open.at() <= now;
        self.open.iter().filter(is_due).map(|(ticket, _)| *ticket).collect()
    }

    /// When something is to be done here though nothing was answered.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.open.values().map(Open::at).min()
    }
}

impl Open {
    fn at(&self) -> Instant {
        match &self.stage {
            Stage::Delayed(at, _) | Stage::Running(at) => *at,
        }
    }
}

fn too_late(timeout: Duration) -> Error {
    Error::unavailable(format!("no answer within {timeout:?}"))
}

/// A future of somebody else's; its panic is an error.
struct Caught(IoFuture<Result<RecordBatch>>);

impl Future for Caught {
    type Output = Result<RecordBatch>;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> std::task::Poll<Self::Output> {
        let polled = catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| std::task::Poll::Ready(Err(panicked("a lookup", panic.as_ref()))))
    }
}

/// A future under way. Whoever wakes it keeps it alive; the pool may be gone by then.
struct Asked {
    future: Mutex<Option<IoFuture<()>>>,
    pool: Weak<dyn IoPool>,
}

impl Asked {
    fn poll(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        let mut future = lock(&self.future);
        let is_ready = future.as_mut().is_some_and(|future| {
            let mut context = Context::from_waker(&waker);
            future.as_mut().poll(&mut context).is_ready()
        });
        if is_ready {
            *future = None;
        }
    }
}

impl Wake for Asked {
    fn wake(self: Arc<Self>) {
        if let Some(pool) = self.pool.upgrade() {
            pool.submit(Box::new(move || self.poll()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;
    use crate::coordinator::IoJob;

    #[derive(Default)]
    struct Jobs(Mutex<Vec<IoJob>>);

    impl IoPool for Jobs {
        fn submit(&self, job: IoJob) {
            lock(&self.0).push(job);
        }
    }

    impl Jobs {
        /// Runs the job at `place`, the first of them if there are fewer.
        fn run(&self, place: usize) {
            let job = {
                let mut jobs = lock(&self.0);
                let place = place.min(jobs.len() - 1);
                jobs.remove(place)
            };
            job();
        }
    }

    #[derive(Default)]
    struct Woken(Mutex<usize>);

    impl Scheduler for Woken {
        fn wake(&self, _: TaskIndex) {
            *lock(&self.0) += 1;
        }
    }

    fn batch(value: i64) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        RecordBatch::try_from_iter([("v", column)]).unwrap()
    }

    fn request(id: u64, delay: u64, timeout: u64, work: IoWork) -> IoRequest {
        IoRequest { id, work, delay: Duration::from_secs(delay), timeout: Duration::from_secs(timeout) }
    }

    fn answers(value: i64) -> IoWork {
        Box::new(move || Box::pin(async move { Ok(batch(value)) }))
    }

    fn io() -> (TaskIo, Arc<Jobs>, Arc<Woken>) {
        let (jobs, woken) = (Arc::new(Jobs::default()), Arc::new(Woken::default()));
        (TaskIo::new(3, Arc::clone(&woken) as _, Arc::clone(&jobs) as _), jobs, woken)
    }

    fn take(io: &mut TaskIo, now: Instant) -> Vec<(usize, IoResult)> {
        std::iter::from_fn(|| io.next(now)).collect()
    }

    #[test]
    fn answers_come_in_the_order_of_whoever_is_first_and_wake_the_task() {
        let (mut io, jobs, woken) = io();
        io.submit(0, request(7, 0, 9, answers(1)), Instant::ZERO);
        io.submit(1, request(7, 0, 9, answers(2)), Instant::ZERO);
        assert_eq!(take(&mut io, Instant::ZERO), []);
        jobs.run(1);
        jobs.run(0);
        assert_eq!(*lock(&woken.0), 2);
        let done = |member, value| (member, IoResult { id: 7, answer: Ok(batch(value)) });
        assert_eq!(take(&mut io, Instant::ZERO), [done(1, 2), done(0, 1)]);
        assert_eq!((take(&mut io, Instant::ZERO), io.deadline()), (vec![], None));
    }

    #[test]
    fn a_delayed_request_begins_at_its_time_and_its_timeout_counts_from_there() {
        let (mut io, jobs, _) = io();
        io.submit(0, request(1, 5, 10, answers(1)), Duration::from_secs(100));
        assert_eq!((lock(&jobs.0).len(), io.deadline()), (0, Some(Duration::from_secs(105))));
        assert_eq!(take(&mut io, Duration::from_secs(105)), []);
        assert_eq!((lock(&jobs.0).len(), io.deadline()), (1, Some(Duration::from_secs(115))));
        let late = take(&mut io, Duration::from_secs(115));
        let error = late[0].1.answer.as_ref().unwrap_err();
        assert!(error.is_retryable() && error.to_string() == "no answer within 10s", "{error}");
        // What comes after that is dropped.
        jobs.run(0);
        assert_eq!(take(&mut io, Duration::from_secs(116)), []);
    }

    /// Ready the third time; wakes itself in between.
    struct Slow(u8);

    impl Future for Slow {
        type Output = ();
        fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            self.0 += 1;
            if self.0 == 3 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }

    #[test]
    fn a_future_is_polled_again_whenever_it_is_woken() {
        let (mut io, jobs, _) = io();
        let work: IoWork = Box::new(|| {
            Box::pin(async {
                Slow(0).await;
                Ok(batch(4))
            })
        });
        io.submit(0, request(1, 0, 10, work), Instant::ZERO);
        for _ in 0..3 {
            assert_eq!(take(&mut io, Instant::ZERO), []);
            jobs.run(0);
        }
        assert_eq!(take(&mut io, Instant::ZERO).len(), 1);
        assert!(lock(&jobs.0).is_empty());
    }

    #[test]
    fn a_panic_is_the_answer() {
        let (mut io, jobs, _) = io();
        io.submit(0, request(1, 0, 10, Box::new(|| Box::pin(async { panic!("no such table") }))), Instant::ZERO);
        jobs.run(0);
        let done = take(&mut io, Instant::ZERO);
        assert!(done[0].1.answer.as_ref().unwrap_err().to_string().contains("no such table"));
    }
}
