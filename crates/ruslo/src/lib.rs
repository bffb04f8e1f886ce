//! Ruslo as a library: SQL in, exactly-once results out, in your own process.
//!
//! Life of a job: a [`Program`] is a text and its settings; planned, it is a [`Pipeline`], which can say what it would
//! do; started, it is a [`Job`], which checkpoints, can be watched and stopped, and ends in a [`Summary`].
//!
//! ```
//! use ruslo::{Program, StartMode};
//!
//! # let folder = tempfile::tempdir().unwrap();
//! # let home = folder.path().display();
//! # std::fs::write(folder.path().join("flights.csv"), "EWR,4\nJFK,-2\nEWR,11\n").unwrap();
//! let text = format!("
//!     CREATE TABLE flights (origin STRING, delay INT)
//!     WITH ('connector' = 'filesystem', 'path' = '{home}/flights.csv', 'format' = 'csv');
//!     CREATE TABLE delayed (origin STRING, delay INT)
//!     WITH ('connector' = 'filesystem', 'path' = '{home}/delayed', 'format' = 'json');
//!     INSERT INTO delayed SELECT origin, delay FROM flights WHERE delay > 0");
//!
//! let pipeline = Program::new("delayed.sql", text).set("parallelism.default", "2").plan()?;
//! let job = pipeline.start(StartMode::Resume, Some(&folder.path().join("checkpoints")))?;
//! let summary = job.wait()?;
//! assert_eq!((summary.rows_in, summary.rows_out), (3, 2));
//! # Ok::<(), ruslo::Error>(())
//! ```
//!
//! # Checkpoints and starting again
//!
//! A job keeps its checkpoints in one folder, which one process at a time may use. Where none is given it is
//! `.ruslo/checkpoints/<job name>` under the working directory; the job's name is the setting `pipeline.name`, else the
//! script's file name without its ending, else `sql-<fingerprint>`. A job with the default folder that finishes removes
//! it again.
//!
//! What is found in the folder and what [`StartMode`] says decide how a job starts:
//!
//! | newest checkpoint | [`StartMode::New`] | [`StartMode::Resume`] | [`StartMode::Fresh`] |
//! |---|---|---|---|
//! | none | from the beginning | from the beginning | from the beginning |
//! | of a run that did nothing yet | from the beginning | from the beginning | from the beginning |
//! | of an interrupted run | refused: say which of the two | goes on from it | from the beginning |
//! | of a finished run | from the beginning | is finished already | from the beginning |
//! | damaged | refused | goes on from the one before, with a notice | from the beginning |
//!
//! A streaming job that fails with an error that a second try may mend (`Unavailable`, `Resource`, `Internal`) goes on
//! from its newest checkpoint by itself, as `SET 'restart-strategy.type'` says; [`Job::restarts`] tells.
//!
//! Epochs are never used twice: a run that starts over counts on from the last one in the folder. What an abandoned run
//! had committed stays; what it had not is removed.

mod batch;
mod begin;
mod checkpoints;
mod control;
mod decision;
pub mod inspect;
mod job;
mod pipeline;
mod program;
mod restart;
pub mod state;
mod summary;
mod supervise;
#[cfg(test)]
mod test_clock;
#[cfg(test)]
mod test_disk;

pub use arrow;
pub use ruslo_connectors::print::is_console_closed;
pub use ruslo_connectors::registry;
pub use ruslo_core as core;
pub use ruslo_core::connector::{Connector, Registry};
pub use ruslo_core::environment::Environment;
pub use ruslo_core::epoch::Epoch;
pub use ruslo_core::error::{Error, ErrorKind, Result};
pub use ruslo_core::lookup::{Found, LookupConnector, LookupSource};
pub use ruslo_core::sink::Guarantee;
pub use ruslo_core::upgrade::Upgrade;
pub use ruslo_formats as formats;
pub use ruslo_runtime::activity::Spent;
pub use ruslo_runtime::channel::Fill;
pub use ruslo_runtime::coordinator::CheckpointReport;
pub use ruslo_runtime::status::{ChannelStatus, EdgeStatus, JobStatus, OperatorStatus, Role};
pub use ruslo_sql::{Delivery, JobKind, SCRIPT_BYTES_MAX, SETTINGS, SettingSpec, parse_duration};

pub use begin::FromSavepoint;
pub use control::{Control, Ending, Report, Request};
pub use decision::StartMode;
pub use job::{Ended, Job, StopHandle};
pub use pipeline::{CHECKPOINT_INTERVAL_DEFAULT, MEMORY_LIMIT_DEFAULT_BYTES, Pipeline};
pub use program::Program;
pub use summary::{OperatorSummary, State, Summary};
pub use supervise::{Failure, Restarts, Watcher};
