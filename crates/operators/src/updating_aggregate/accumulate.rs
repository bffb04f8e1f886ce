//! One aggregate over many keys whose states are columns: what every accumulator of an updating aggregate implements.

use std::fmt;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;
use datafusion::error::Result;

/// The rows that change some groups, as one aggregate sees them.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// The arguments.
    pub(super) columns: &'a [ArrayRef],
    /// The group of each row.
    pub(super) groups: &'a [u32],
    /// What each row does: 1 adds it, -1 takes it away, 0 leaves it out.
    pub(super) signs: &'a [i8],
    /// Which groups are new: their states are not to be read.
    pub(super) added: &'a [bool],
}

impl Rows<'_> {
    /// How many groups there are.
    pub(super) fn total(&self) -> usize {
        self.added.len()
    }

    /// Calls `each` with group, sign and row of every row that counts and whose `column` is not NULL.
    #[inline]
    pub(super) fn for_each_valid(&self, column: Option<&ArrayRef>, mut each: impl FnMut(usize, i8, usize)) {
        let rows = self.groups.iter().zip(self.signs).enumerate().filter(|(_, (_, sign))| **sign != 0);
        match column.and_then(|column| column.logical_nulls()).filter(|nulls| nulls.null_count() > 0) {
            None => rows.for_each(|(row, (group, sign))| each(*group as usize, *sign, row)),
            Some(nulls) => {
                let rows = rows.filter(|(row, _)| nulls.is_valid(*row));
                rows.for_each(|(row, (group, sign))| each(*group as usize, *sign, row));
            }
        }
    }

    /// Which rows count.
    pub(super) fn counted(&self) -> BooleanArray {
        self.signs.iter().map(|sign| Some(*sign != 0)).collect()
    }
}

/// An aggregate whose state is a fixed number of columns, one row a group. A new group's state is NULL where that is
/// possible, otherwise zero.
pub(super) trait Accumulate: Send + Sync + fmt::Debug {
    /// The types of the state columns, and whether they may be NULL.
    fn state(&self) -> Vec<(DataType, bool)>;

    /// The states after `rows`.
    fn update(&self, states: &[ArrayRef], rows: &Rows<'_>) -> Result<Vec<ArrayRef>>;

    /// The states after partial states, of which each is of a group: those of rows that were only added.
    fn merge(&self, states: &[ArrayRef], partials: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>>;

    /// Whether [`Accumulate::merge`] gives what [`Accumulate::update`] would, whatever order rows come in.
    fn merges(&self) -> bool {
        true
    }

    /// The results of states.
    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef>;
}
