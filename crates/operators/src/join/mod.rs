//! Joins: rows of two inputs side by side. One kind of join, one file or folder.

pub(crate) mod as_of;
pub(crate) mod lookup;
pub(crate) mod regular;
pub(crate) mod timed;
