//! APPROX_COUNT_DISTINCT: a [`HyperLogLog`] a group, over the key-group hash of the value. NULLs do not count.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Int64Array};
use datafusion::common::internal_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::EmitTo;
use ruslo_core::key_group::hash_rows;

use super::by_group::Groups;
use super::hyperloglog::HyperLogLog;
use super::sums::valid_rows;

/// How many different values each group has. The one state column is the sketch's bytes.
#[derive(Debug, Default)]
pub(super) struct ApproxDistinct {
    sketches: Vec<HyperLogLog>,
}

impl ApproxDistinct {
    fn grow(&mut self, total: usize) {
        self.sketches.resize_with(total.max(self.sketches.len()), HyperLogLog::default);
    }
}

impl Groups for ApproxDistinct {
    fn empty(&self) -> Result<Self> {
        Ok(Self::default())
    }

    fn update(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        total: usize,
    ) -> Result<()> {
        self.grow(total);
        let Some(column) = values.first() else { return Ok(()) };
        let valid = valid_rows(column, filter);
        let hashes = hash_rows(std::slice::from_ref(column), column.len());
        let hashes = hashes.map_err(|error| DataFusionError::External(Box::new(error)))?;
        for (row, (group, hash)) in groups.iter().zip(hashes).enumerate() {
            let keep = valid.as_ref().is_none_or(|valid| valid.is_valid(row));
            if let Some(sketch) = self.sketches.get_mut(*group).filter(|_| keep) {
                sketch.add(hash);
            }
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: &[usize], total: usize) -> Result<()> {
        self.grow(total);
        let Some(stored) = states.first().and_then(|state| state.as_binary_opt::<i32>()) else {
            return internal_err!("a stored distinct count is no BYTES");
        };
        for (group, bytes) in groups.iter().zip(stored.iter()) {
            if let (Some(sketch), Some(bytes)) = (self.sketches.get_mut(*group), bytes) {
                sketch.merge_bytes(bytes)?;
            }
        }
        Ok(())
    }

    fn results(&mut self, emit: EmitTo) -> Result<ArrayRef> {
        let sketches = emit.take_needed(&mut self.sketches);
        Ok(Arc::new(Int64Array::from_iter_values(sketches.iter().map(|sketch| sketch.estimate() as i64))))
    }

    fn states(&mut self, emit: EmitTo) -> Result<Vec<ArrayRef>> {
        let sketches = emit.take_needed(&mut self.sketches);
        Ok(vec![Arc::new(BinaryArray::from_iter_values(sketches.iter().map(HyperLogLog::to_bytes)))])
    }

    fn bytes(&self) -> usize {
        let held = self.sketches.iter().map(HyperLogLog::bytes).sum::<usize>();
        held + self.sketches.capacity() * size_of::<HyperLogLog>()
    }
}
