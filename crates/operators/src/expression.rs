//! Expressions: what the planner gives, what an operator evaluates, and whose fault a failure is.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;
use ruslo_core::error::{Error, Result};
use ruslo_core::schema::carry_hidden;

/// An expression and the column that it becomes.
#[derive(Debug, Clone)]
pub struct NamedExpr {
    /// Computes the column.
    pub expr: Arc<dyn PhysicalExpr>,
    /// Its name, type and nullability.
    pub field: FieldRef,
}

impl NamedExpr {
    /// `expr AS name`, typed over the columns of `input`.
    ///
    /// # Errors
    /// `Internal`, if the expression does not fit `input`: the planner made both.
    pub fn new(expr: Arc<dyn PhysicalExpr>, name: impl Into<String>, input: &Schema) -> Result<Self> {
        let field = expr.return_field(input).map_err(execution_error)?;
        Ok(Self { field: Arc::new(field.as_ref().clone().with_name(name)), expr })
    }
}

/// A list of expressions that makes new rows from old ones, one by one.
#[derive(Debug, Clone)]
pub(crate) struct Projection {
    exprs: Arc<[Arc<dyn PhysicalExpr>]>,
    schema: SchemaRef,
}

impl Projection {
    pub(crate) fn new(columns: Vec<NamedExpr>) -> Self {
        let (exprs, fields): (Vec<_>, Vec<_>) = columns.into_iter().map(|column| (column.expr, column.field)).unzip();
        Self { exprs: exprs.into(), schema: Arc::new(Schema::new(fields)) }
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The new rows, with the old ones' hidden column. A plain column is shared, not copied.
    pub(crate) fn project(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = self.exprs.iter().map(|expr| evaluate(expr, batch)).collect::<Result<Vec<_>>>()?;
        carry_hidden(batch, &self.schema, columns)
    }
}

/// The value of `expr` for each row.
pub(crate) fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    let value = expr.evaluate(batch).map_err(execution_error)?;
    value.into_array(batch.num_rows()).map_err(execution_error)
}

/// The value of a condition for each row.
pub(crate) fn evaluate_condition(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<BooleanArray> {
    let value = evaluate(expr, batch)?;
    value
        .as_boolean_opt()
        .cloned()
        .ok_or_else(|| Error::internal(format!("the condition {expr} is {}, not BOOLEAN", value.data_type())))
}

/// DataFusion's error as ours: an expression that fails on a value is the data's fault.
pub fn execution_error(error: DataFusionError) -> Error {
    match error {
        DataFusionError::ArrowError(error, _) => Error::from(*error),
        DataFusionError::Execution(message) => Error::data(message),
        DataFusionError::Plan(message) | DataFusionError::NotImplemented(message) => Error::usage(message),
        DataFusionError::ResourcesExhausted(message) => Error::resource(message),
        DataFusionError::Context(context, error) => execution_error(*error).context(context),
        DataFusionError::Diagnostic(_, error) => execution_error(*error),
        DataFusionError::External(error) => match error.downcast::<Error>() {
            Ok(error) => *error,
            Err(error) => Error::internal(error.to_string()),
        },
        other => Error::internal(other.strip_backtrace()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{binary, cast, col, lit};
    use ruslo_core::error::ErrorKind;

    use super::*;

    #[test]
    fn a_named_expression_has_the_type_of_its_expression() {
        let schema = Schema::new(vec![Field::new("a", DataType::Int32, false)]);
        let named = NamedExpr::new(col("a", &schema).unwrap(), "b", &schema).unwrap();
        assert_eq!(named.field.as_ref(), &Field::new("b", DataType::Int32, false));
    }

    #[test]
    fn a_failing_value_is_the_datas_fault() {
        let batch = RecordBatch::try_from_iter([
            ("text", Arc::new(StringArray::from(vec!["7", "abc"])) as ArrayRef),
            ("zero", Arc::new(Int32Array::from(vec![1, 0])) as ArrayRef),
        ])
        .unwrap();
        let schema = batch.schema();
        let bad_cast = cast(col("text", &schema).unwrap(), &schema, DataType::Int64).unwrap();
        let error = evaluate(&bad_cast, &batch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data, "{error}");
        assert!(error.to_string().contains("abc"), "{error}");
        let division = binary(lit(1i32), Operator::Divide, col("zero", &schema).unwrap(), &schema).unwrap();
        assert_eq!(evaluate(&division, &batch).unwrap_err(), Error::data("division by zero"));
    }

    #[test]
    fn an_error_of_ours_comes_back_as_it_was() {
        let ours = Error::fenced("taken over");
        assert_eq!(execution_error(DataFusionError::External(Box::new(ours.clone()))), ours);
        let error = execution_error(DataFusionError::Internal("oops".to_owned()));
        assert_eq!(error.kind(), ErrorKind::Internal);
    }

    #[test]
    fn a_condition_that_is_no_boolean_is_ours_to_explain() {
        let batch = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        let error = evaluate_condition(&col("a", &batch.schema()).unwrap(), &batch).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
    }
}
