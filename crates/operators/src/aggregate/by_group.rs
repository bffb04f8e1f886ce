//! What our aggregates implement, and how DataFusion and our windows see it.
//!
//! [`Groups`] is the state of one aggregate for many groups. [`ByGroup`] makes it a `GroupsAccumulator`, which is what
//! windows keep; [`Alone`] makes it an `Accumulator`, for DataFusion's plans without GROUP BY.

use arrow::array::{ArrayRef, BooleanArray};
use datafusion::error::Result;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion::scalar::ScalarValue;

/// The state of one aggregate for groups `0..total`. No answer depends on the order of rows, or on how they were cut
/// into batches and partial states.
pub(super) trait Groups: Send + Sized + 'static {
    /// The same aggregate without groups.
    fn empty(&self) -> Result<Self>;

    /// Adds a row to each group of `groups`, but for those that `filter` does not keep.
    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()>;

    /// Adds a partial state to each group of `groups`.
    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()>;

    /// The results of the first groups, which are forgotten.
    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef>;

    /// The partial states of the first groups, which are forgotten.
    fn states(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>>;

    /// Bytes held.
    fn bytes(&self) -> usize;
}

/// [`Groups`] as DataFusion knows them.
pub(super) struct ByGroup<G>(pub(super) G);

impl<G: Groups> GroupsAccumulator for ByGroup<G> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.0.update(values, group_indices, opt_filter, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.0.results(emit_to)
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.0.states(emit_to)
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.0.merge(values, group_indices, total_num_groups)
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |column| column.len());
        let mut each = self.0.empty()?;
        each.update(values, &(0..rows).collect::<Vec<_>>(), opt_filter, rows)?;
        each.states(EmitTo::All)
    }

    fn size(&self) -> usize {
        self.0.bytes()
    }
}

/// [`Groups`] with one group.
#[derive(Debug)]
pub(super) struct Alone<G>(pub(super) G);

impl<G: Groups + std::fmt::Debug + Sync> Accumulator for Alone<G> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let rows = values.first().map_or(0, |column| column.len());
        self.0.update(values, &vec![0; rows], None, 1)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // Nothing is forgotten: a window function of DataFusion's asks again.
        let states = self.state()?;
        let arrays = states.iter().map(ScalarValue::to_array).collect::<Result<Vec<_>>>()?;
        let mut last = self.0.empty()?;
        last.merge(&arrays, &[0], 1)?;
        self.0.merge(&arrays, &[0], 1)?;
        ScalarValue::try_from_array(&last.results(EmitTo::All)?, 0)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.0.bytes()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.update(&[], &[], None, 1)?;
        let columns = self.0.states(EmitTo::All)?;
        columns.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let rows = states.first().map_or(0, |column| column.len());
        self.0.merge(states, &vec![0; rows], 1)
    }
}
