//! Union: the rows of several inputs as one stream, under the names of the first. Has no state.
//!
//! The runtime merges the inputs' watermarks and aligns their barriers; each row keeps its own split's watermark, so
//! that lateness behind a union is judged as it would be before it.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use ruslo_core::equation::Equation;
use ruslo_core::error::{Error, Result};
use ruslo_core::operator::{InputId, Operator, OperatorContext, Output, Progress, SharedFactory};
use ruslo_core::schema::carry_hidden;

/// What a union gives; cheap to clone.
#[derive(Debug, Clone)]
pub struct UnionSpec {
    schema: SchemaRef,
}

impl UnionSpec {
    /// A union of inputs whose columns have the types of `schema`, in its order.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema }
    }

    /// The columns that come out, without hidden ones.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Makes the operator of each subtask.
    pub fn factory(self) -> SharedFactory {
        Arc::new(move || Ok(Union { schema: self.schema.clone() }))
    }
}

struct Union {
    schema: SchemaRef,
}

impl Operator for Union {
    fn equation(&self) -> Equation {
        Equation::Same
    }

    fn on_batch(
        &mut self,
        input: InputId,
        batch: RecordBatch,
        _ctx: &mut OperatorContext<'_>,
        out: &mut Output,
    ) -> Result<Progress> {
        let Some(columns) = batch.columns().get(..self.schema.fields().len()) else {
            return Err(Error::internal(format!("input {input} of a union has too few columns")));
        };
        out.emit(carry_hidden(&batch, &self.schema, columns.to_vec())?);
        Ok(Progress::Done)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use ruslo_core::schema::{split_watermarks, visible, with_split_watermarks};

    use super::*;
    use crate::testing::TestContext;

    fn run(input: InputId, batch: RecordBatch) -> Result<RecordBatch> {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
        let mut operator = UnionSpec::new(schema).factory().create().unwrap();
        let mut out = Output::default();
        let _ = operator.on_batch(input, batch, &mut TestContext::new().context(), &mut out)?;
        Ok(out.take().remove(0).1)
    }

    fn batch(name: &str) -> RecordBatch {
        RecordBatch::try_from_iter([(name, Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]).unwrap()
    }

    #[test]
    fn every_input_gets_the_names_of_the_first_and_keeps_its_lateness() {
        let plain = run(0, batch("v")).unwrap();
        let carried = with_split_watermarks(&batch("other"), Int64Array::from(vec![7, 8])).unwrap();
        let other = run(1, carried).unwrap();
        assert_eq!(split_watermarks(&other).unwrap().values(), &[7, 8]);
        assert_eq!(visible(&other).schema(), plain.schema());
        assert_eq!(other.column(0).as_primitive::<Int64Type>().values(), &[1, 2]);
    }

    #[test]
    fn an_input_of_too_few_columns_is_ours_to_explain() {
        let error = run(1, batch("v").project(&[]).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ruslo_core::error::ErrorKind::Internal);
    }
}
