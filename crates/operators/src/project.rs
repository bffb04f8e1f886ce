//! Projection: computes columns from columns, row by row. Has no state.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use ruslo_core::equation::Equation;
use ruslo_core::error::Result;
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};

use crate::expression::{NamedExpr, Projection};

/// What a projection computes; cheap to clone.
#[derive(Debug, Clone)]
pub struct ProjectSpec {
    projection: Projection,
}

impl ProjectSpec {
    /// A projection to `columns`, in this order.
    pub fn new(columns: Vec<NamedExpr>) -> Self {
        Self { projection: Projection::new(columns) }
    }

    /// The columns that come out, without hidden ones.
    pub fn schema(&self) -> SchemaRef {
        self.projection.schema().clone()
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(Project { projection: self.projection.clone() }))
    }
}

struct Project {
    projection: Projection,
}

impl Operator for Project {
    fn equation(&self) -> Equation {
        Equation::Same
    }

    fn on_batch(
        &mut self,
        _input: InputId,
        batch: RecordBatch,
        _ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        out.emit(self.projection.project(&batch)?);
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use datafusion::logical_expr::Operator as Sign;
    use datafusion::physical_expr::expressions::{binary, col, lit};
    use ruslo_core::schema::{split_watermarks, visible, with_split_watermarks};

    use super::*;
    use crate::testing::{TestContext, run_batch};

    fn batch() -> RecordBatch {
        RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef),
            ("b", Arc::new(StringArray::from(vec!["x", "y", "z"])) as ArrayRef),
        ])
        .unwrap()
    }

    fn spec() -> ProjectSpec {
        let schema = batch().schema();
        let double = binary(col("a", &schema).unwrap(), Sign::Multiply, lit(2i64), &schema).unwrap();
        ProjectSpec::new(vec![
            NamedExpr::new(col("b", &schema).unwrap(), "name", &schema).unwrap(),
            NamedExpr::new(double, "double", &schema).unwrap(),
            NamedExpr::new(lit("k"), "constant", &schema).unwrap(),
        ])
    }

    fn project(input: RecordBatch) -> RecordBatch {
        let mut operator = spec().factory().create().unwrap();
        run_batch(operator.as_mut(), input, &mut TestContext::new()).unwrap().remove(0)
    }

    #[test]
    fn computes_and_names_columns() {
        let made = project(batch());
        assert_eq!(made.schema(), spec().schema());
        assert_eq!(made.column(1).as_primitive::<Int64Type>(), &Int64Array::from(vec![Some(2), None, Some(6)]));
        assert_eq!(made.column(2).as_string::<i32>().value(2), "k");
    }

    #[test]
    fn a_plain_column_is_not_copied() {
        let input = batch();
        let made = project(input.clone());
        assert!(made.column(0).to_data().ptr_eq(&input.column(1).to_data()));
    }

    #[test]
    fn lateness_is_carried_through() {
        let carried = with_split_watermarks(&batch(), Int64Array::from(vec![1, 2, 3])).unwrap();
        let made = project(carried);
        assert_eq!(split_watermarks(&made).unwrap().values(), &[1, 2, 3]);
        assert_eq!(visible(&made), project(batch()));
    }

    #[test]
    fn no_columns_keep_the_number_of_rows() {
        let mut operator = ProjectSpec::new(Vec::new()).factory().create().unwrap();
        let made = run_batch(operator.as_mut(), batch(), &mut TestContext::new()).unwrap();
        assert_eq!(made[0].num_rows(), 3);
    }

    #[test]
    fn an_empty_batch_is_dropped() {
        let mut operator = spec().factory().create().unwrap();
        let made = run_batch(operator.as_mut(), batch().slice(0, 0), &mut TestContext::new()).unwrap();
        assert!(made.is_empty());
    }
}
