//! ROW_NUMBER() as Flink types it: BIGINT. A stream's plan replaces it by a Top-N; a batch plan runs it.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::error::Result;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{LimitEffect, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;

/// ROW_NUMBER with Flink's result type, named `row_number`.
pub fn row_number_udwf() -> Arc<WindowUDF> {
    static ROW_NUMBER: LazyLock<Arc<WindowUDF>> =
        LazyLock::new(|| Arc::new(WindowUDF::from(RowNumber { signature: Signature::nullary(Volatility::Immutable) })));
    Arc::clone(&ROW_NUMBER)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct RowNumber {
    signature: Signature,
}

impl WindowUDFImpl for RowNumber {
    fn name(&self) -> &str {
        "row_number"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _args: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::<Count>::default())
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), DataType::Int64, false)))
    }

    fn limit_effect(&self, _args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        LimitEffect::None
    }
}

#[derive(Debug, Default)]
struct Count(i64);

impl PartitionEvaluator for Count {
    fn is_causal(&self) -> bool {
        true
    }

    fn evaluate_all(&mut self, _values: &[ArrayRef], num_rows: usize) -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from_iter_values(1..=num_rows as i64)))
    }

    fn evaluate(&mut self, _values: &[ArrayRef], _range: &Range<usize>) -> Result<ScalarValue> {
        self.0 += 1;
        Ok(ScalarValue::Int64(Some(self.0)))
    }

    fn supports_bounded_execution(&self) -> bool {
        true
    }
}
