//! The regular join: every row of one side with every row of the other that has the same key.

use ruslo_core::graph::NodeIndex;

use super::StreamJoin;
use crate::diagnostic::{Sql, SqlError};
use crate::physical::Physical;

impl Physical<'_> {
    /// Adds the operator of a regular join.
    pub(crate) fn regular_join(&mut self, _: &StreamJoin) -> Sql<NodeIndex> {
        Err(SqlError::not_yet("joins without a window or a bound between event times", None))
    }
}
