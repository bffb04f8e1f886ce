//! Timers by key: an operator asks to be called when the calendar reaches a time, and is given the keys that asked.
//!
//! They are state: registered in [`OperatorContext::timers`](crate::operator::OperatorContext::timers), kept in checkpoints
//! by key group, restored at any parallelism, fired by the runtime with
//! [`Operator::on_timer`](crate::operator::Operator::on_timer). Time is the environment's calendar
//! ([`Clock::wall`](crate::clock::Clock::wall)). A timer never fires before its time; one whose time passed while nothing ran
//! fires after the restore. When the input is complete, timers that are not due yet are dropped.

use arrow::array::ArrayRef;

use crate::error::Result;
use crate::time::Timestamp;

/// The timers of one operator subtask. Both verbs take key columns, one key a row, and a time for each; they fail with
/// `Internal` if the columns are not those of the timers or a key is not the subtask's, and with `Resource` if there is no
/// memory for them.
pub trait Timers: Send {
    /// Fires each key at its time. A timer that is there already, of this key and this time, stays as it is: it fires once.
    fn register(&mut self, at: &[Timestamp], keys: &[ArrayRef]) -> Result<()>;

    /// Takes timers back, by key and time; those that are not there are fine.
    fn delete(&mut self, at: &[Timestamp], keys: &[ArrayRef]) -> Result<()>;
}
