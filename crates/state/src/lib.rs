//! State and checkpoints: keyed tables as immutable runs, the manifest that names them, the store that keeps both.
//!
//! Life of a row of state: an operator appends it to a [`table::RunTable`]; the barrier seals the table into a
//! [`table::TableSnapshot`]; the I/O pool writes new runs into one [`run_file`] a subtask and epoch; the coordinator
//! writes a [`manifest::Manifest`] that names every run; [`store::CheckpointStore`] finds the newest valid one again.
//! Bytes are kept by a [`storage::Storage`]: a folder, or a bucket of an object store. Keyed tables keep their rows in
//! [`runs`] on disk, below a layer in memory.
//! The formats are specified in `docs/design/checkpoint-format.md` and `docs/design/keyed-state.md`.

pub mod books;
mod evicted;
pub mod handles;
pub mod keyed;
pub mod manifest;
pub mod operator_rows;
pub mod planted;
pub mod resident;
pub mod run_file;
pub mod runs;
pub mod savepoint;
pub mod storage;
pub mod store;
pub mod table;
pub mod timers;
pub mod verify;
