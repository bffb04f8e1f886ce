//! Filter: keeps the rows for which a condition is true; a row for which it is NULL goes. Has no state.

use std::sync::Arc;

use arrow::compute::filter_record_batch;
use arrow::record_batch::RecordBatch;
use datafusion::physical_expr::PhysicalExpr;
use ruslo_core::equation::Equation;
use ruslo_core::error::Result;
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};

use crate::expression::evaluate_condition;

/// Which rows a filter keeps; cheap to clone.
#[derive(Debug, Clone)]
pub struct FilterSpec {
    condition: Arc<dyn PhysicalExpr>,
}

impl FilterSpec {
    /// Keeps the rows for which `condition`, a BOOLEAN, is true.
    pub fn new(condition: Arc<dyn PhysicalExpr>) -> Self {
        Self { condition }
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(Filter { condition: Arc::clone(&self.condition) }))
    }
}

struct Filter {
    condition: Arc<dyn PhysicalExpr>,
}

impl Operator for Filter {
    fn equation(&self) -> Equation {
        Equation::Filters
    }

    fn on_batch(
        &mut self,
        _input: InputId,
        batch: RecordBatch,
        ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let keep = evaluate_condition(&self.condition, &batch)?;
        ctx.metrics.filtered_rows.add(keep.len() - keep.true_count());
        match keep.true_count() {
            0 => {}
            all if all == batch.num_rows() => out.emit(batch),
            _ => out.emit(filter_record_batch(&batch, &keep)?),
        }
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use datafusion::logical_expr::Operator as Sign;
    use datafusion::physical_expr::expressions::{binary, col, lit};
    use ruslo_core::schema::{split_watermarks, with_split_watermarks};

    use super::*;
    use crate::testing::{TestContext, run_batch};

    fn batch() -> RecordBatch {
        let values = Int64Array::from(vec![Some(1), None, Some(3), Some(4)]);
        RecordBatch::try_from_iter([("a", Arc::new(values) as ArrayRef)]).unwrap()
    }

    fn above(least: i64) -> FilterSpec {
        let schema = batch().schema();
        FilterSpec::new(binary(col("a", &schema).unwrap(), Sign::Gt, lit(least), &schema).unwrap())
    }

    fn run(spec: FilterSpec, input: RecordBatch) -> Vec<RecordBatch> {
        run_batch(spec.factory().create().unwrap().as_mut(), input, &mut TestContext::new()).unwrap()
    }

    #[test]
    fn keeps_what_is_true_and_drops_what_is_null() {
        let kept = run(above(1), batch());
        assert_eq!(kept[0].column(0).as_primitive::<Int64Type>().values(), &[3, 4]);
    }

    #[test]
    fn an_all_true_batch_passes_uncopied_and_an_all_false_one_not_at_all() {
        let input = batch().slice(2, 2);
        let kept = run(above(0), input.clone());
        assert!(kept[0].column(0).to_data().ptr_eq(&input.column(0).to_data()));
        assert!(run(above(9), batch()).is_empty());
    }

    #[test]
    fn a_constant_condition_works() {
        assert_eq!(run(FilterSpec::new(lit(true)), batch()), vec![batch()]);
        assert!(run(FilterSpec::new(lit(false)), batch()).is_empty());
        assert!(run(FilterSpec::new(lit(datafusion::scalar::ScalarValue::Boolean(None))), batch()).is_empty());
    }

    #[test]
    fn the_hidden_column_is_filtered_along() {
        let carried = with_split_watermarks(&batch(), Int64Array::from(vec![1, 2, 3, 4])).unwrap();
        let kept = run(above(1), carried);
        assert_eq!(split_watermarks(&kept[0]).unwrap().values(), &[3, 4]);
    }
}
