//! Requests to the world outside: an operator hands one to the runtime and is called with its answer.
//!
//! An operator never waits. It submits an [`IoRequest`] through
//! [`OperatorContext::submit_io`](crate::operator::OperatorContext::submit_io); the runtime runs it beside the tasks and
//! calls [`Operator::on_io`](crate::operator::Operator::on_io) with what came of it: once for each request, in whatever
//! order. Requests are not state: what a restored operator still wants to know it asks again.
//! `docs/design/lookup.md` has the rules.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use arrow::record_batch::RecordBatch;

use crate::error::Result;

/// A future that may move between threads.
pub type IoFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What is to be done outside. It is called, and its future polled, on a thread that may wait for a short time; no runtime
/// of futures is entered there.
pub type IoWork = Box<dyn FnOnce() -> IoFuture<Result<RecordBatch>> + Send>;

/// Something that an operator wants to know.
pub struct IoRequest {
    /// The operator's own number for it.
    pub id: u64,
    /// What is to be done.
    pub work: IoWork,
    /// How long to wait before it is begun: what is tried again is left alone for a while.
    pub delay: Duration,
    /// After so long without an answer there is an `Unavailable` error for one.
    pub timeout: Duration,
}

impl fmt::Debug for IoRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, delay, timeout, .. } = self;
        let mut shown = f.debug_struct("IoRequest");
        shown.field("id", id).field("delay", delay).field("timeout", timeout).finish_non_exhaustive()
    }
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct IoResult {
    /// See [`IoRequest::id`].
    pub id: u64,
    /// The answer.
    pub answer: Result<RecordBatch>,
}
