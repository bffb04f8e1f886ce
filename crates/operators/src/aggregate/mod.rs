//! Aggregates as Flink types them, for DataFusion's planner and for our windows: SUM and AVG here, the others one file
//! each behind [`collecting_udafs`]. COUNT, MIN, MAX and the boolean and bitwise ones are DataFusion's. DISTINCT is one
//! wrapper ([`Distinct`]) around any of them.
//!
//! | argument | SUM | AVG |
//! |---|---|---|
//! | TINYINT, SMALLINT, INT, BIGINT | the same type | the same type, truncated |
//! | FLOAT, DOUBLE | the same type | the same type |
//! | DECIMAL(p, s) | DECIMAL(38, s) | DECIMAL(38, max(6, s)), rounded half up |
//!
//! Integers and decimals are summed exactly, in 128 bits, so neither the order of rows nor the parallelism shows; only
//! a result that does not fit its type is an error (Flink wraps around, or gives NULL for a decimal). FLOAT is summed
//! in double precision. Over no rows but NULLs both are NULL.

mod approx_distinct;
mod by_group;
mod collect;
mod distinct;
mod first_last;
mod function;
mod hyperloglog;
mod numeric;
mod percentile;
mod rows;
mod sums;
mod variance;

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef};
use datafusion::common::plan_err;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, Signature, Volatility,
};

pub(crate) use self::distinct::{Distinct, DistinctInput, MakeInner};
use self::distinct::{DistinctAlone, distinct_of};
pub use self::function::{collecting_udafs, is_ordered};
use self::numeric::sql_name;
pub(crate) use self::numeric::{Total, is_exact, overflow, total_type};
use self::sums::{GroupSums, OneGroup};

/// The digits after the point that AVG of a DECIMAL has at least.
const AVG_SCALE_MIN: i8 = 6;

/// SUM with Flink's result types, named `sum`.
pub fn sum_udaf() -> Arc<AggregateUDF> {
    static SUM: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| Arc::new(TypedSum::new(Function::Sum).into()));
    Arc::clone(&SUM)
}

/// AVG with Flink's result types, named `avg`.
pub fn avg_udaf() -> Arc<AggregateUDF> {
    static AVG: LazyLock<Arc<AggregateUDF>> = LazyLock::new(|| Arc::new(TypedSum::new(Function::Avg).into()));
    Arc::clone(&AVG)
}

/// What becomes of a total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Function {
    Sum,
    Avg,
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Avg => "avg",
        }
    }

    fn result_type(self, argument: &DataType) -> DataType {
        match (self, argument) {
            (Self::Sum, DataType::Decimal128(_, scale)) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, *scale),
            (Self::Avg, DataType::Decimal128(_, scale)) => {
                DataType::Decimal128(DECIMAL128_MAX_PRECISION, AVG_SCALE_MIN.max(*scale))
            }
            (_, same) => same.clone(),
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TypedSum {
    function: Function,
    signature: Signature,
}

impl TypedSum {
    fn new(function: Function) -> Self {
        Self { function, signature: Signature::user_defined(Volatility::Immutable) }
    }

    /// Each value once.
    fn distinct(&self, args: &AccumulatorArgs<'_>) -> Result<Distinct> {
        let (function, argument) = (self.function, argument_type(args.expr_fields)?.clone());
        let is_exact = is_exact(&argument);
        let inner: MakeInner = Arc::new(move || {
            Ok(match is_exact {
                true => Box::new(GroupSums::<i128>::new(function, argument.clone())),
                false => Box::new(GroupSums::<f64>::new(function, argument.clone())),
            })
        });
        distinct_of(self.function.name(), args, inner)
    }
}

/// The type that an argument is cast to.
fn coerced(function: Function, argument: &DataType) -> Result<DataType> {
    coerced_number(&function.name().to_uppercase(), argument)
}

/// The type that the argument of `function` is cast to: ours, or the nearest one that is.
fn coerced_number(function: &str, argument: &DataType) -> Result<DataType> {
    Ok(match argument {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => argument.clone(),
        DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => argument.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::Null => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        other => {
            return plan_err!("{function} needs a number, not {}; CAST the argument to one", sql_name(other));
        }
    })
}

fn argument_type(fields: &[FieldRef]) -> Result<&DataType> {
    match fields {
        [field] => Ok(field.data_type()),
        _ => plan_err!("SUM and AVG take one argument, not {}", fields.len()),
    }
}

impl AggregateUDFImpl for TypedSum {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        match arguments {
            [argument] => Ok(vec![coerced(self.function, argument)?]),
            _ => plan_err!("{} takes one argument, not {}", self.name().to_uppercase(), arguments.len()),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        match arguments {
            [argument] => Ok(self.function.result_type(&coerced(self.function, argument)?)),
            _ => plan_err!("{} takes one argument, not {}", self.name().to_uppercase(), arguments.len()),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let argument = argument_type(args.input_fields)?;
        if args.is_distinct {
            return Ok(vec![Distinct::named_state_field(args.name, argument)]);
        }
        let total = total_type(argument);
        let mut fields = vec![Arc::new(Field::new(format_state_name(args.name, "sum"), total, true))];
        if self.function == Function::Avg {
            fields.push(Arc::new(Field::new(format_state_name(args.name, "count"), DataType::Int64, true)));
        }
        Ok(fields)
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return Ok(Box::new(DistinctAlone(self.distinct(&args)?.into())));
        }
        let argument = argument_type(args.expr_fields)?;
        let (function, argument) = (self.function, argument.clone());
        Ok(if is_exact(&argument) {
            Box::new(OneGroup(GroupSums::<i128>::new(function, argument)))
        } else {
            Box::new(OneGroup(GroupSums::<f64>::new(function, argument)))
        })
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        if args.is_distinct {
            return Ok(Box::new(self.distinct(&args)?));
        }
        let argument = argument_type(args.expr_fields)?;
        let (function, argument) = (self.function, argument.clone());
        Ok(if is_exact(&argument) {
            Box::new(GroupSums::<i128>::new(function, argument))
        } else {
            Box::new(GroupSums::<f64>::new(function, argument))
        })
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Decimal128Array, Float32Array, Int8Array, Int64Array, StringArray};
    use arrow::datatypes::{Decimal128Type, Float32Type, Int8Type, Int64Type};
    use arrow::record_batch::RecordBatch;
    use datafusion::prelude::{SessionConfig, SessionContext};

    use super::*;

    /// Runs SQL over table `t` in DataFusion, with our functions and partial aggregation.
    fn sql(columns: Vec<(&str, ArrayRef)>, text: &str) -> Result<RecordBatch> {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3));
        context.register_udaf(sum_udaf().as_ref().clone());
        context.register_udaf(avg_udaf().as_ref().clone());
        context.register_batch("t", RecordBatch::try_from_iter(columns)?)?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let batches = context.sql(text).await?.collect().await?;
            Ok(arrow::compute::concat_batches(&batches[0].schema(), &batches)?)
        })
    }

    #[test]
    fn result_types_are_flinks() {
        let decimal = DataType::Decimal128;
        let cases = [
            (DataType::Int8, DataType::Int8, DataType::Int8),
            (DataType::Int64, DataType::Int64, DataType::Int64),
            (DataType::Float32, DataType::Float32, DataType::Float32),
            (DataType::Float64, DataType::Float64, DataType::Float64),
            (decimal(10, 2), decimal(38, 2), decimal(38, 6)),
            (decimal(20, 9), decimal(38, 9), decimal(38, 9)),
        ];
        for (argument, sum, avg) in cases {
            assert_eq!(sum_udaf().return_type(std::slice::from_ref(&argument)).unwrap(), sum);
            assert_eq!(avg_udaf().return_type(&[argument]).unwrap(), avg);
        }
    }

    #[test]
    fn datafusion_plans_and_runs_them() {
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(5), Some(-2), None, Some(-6)]));
        let tiny: ArrayRef = Arc::new(Int8Array::from(vec![100, 27, -7, 0]));
        let float: ArrayRef = Arc::new(Float32Array::from(vec![0.5, 0.25, 0.0, 0.25]));
        let made = sql(
            vec![("i", ints), ("t", tiny), ("f", float)],
            "SELECT sum(i), avg(i), sum(t), avg(f), sum(NULL), sum(i + 1) FROM t",
        )
        .unwrap();
        assert_eq!(made.column(0).as_primitive::<Int64Type>().value(0), -3);
        assert_eq!(made.column(1).as_primitive::<Int64Type>().value(0), -1);
        assert_eq!(made.column(2).as_primitive::<Int8Type>().value(0), 120);
        assert_eq!(made.column(3).as_primitive::<Float32Type>().value(0), 0.25);
        assert_eq!(made.column(4).null_count(), 1);
        assert_eq!(made.column(5).as_primitive::<Int64Type>().value(0), 0);
    }

    #[test]
    fn datafusion_groups_with_them() {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values((0..1000).map(|row| row % 7)));
        let values = Decimal128Array::from_iter_values(0..1000).with_precision_and_scale(10, 2).unwrap();
        let made =
            sql(vec![("k", keys), ("v", Arc::new(values))], "SELECT k, sum(v), avg(v) FROM t GROUP BY k ORDER BY k")
                .unwrap();
        for group in 0..7 {
            let values: Vec<i128> = (0..1000).filter(|row| row % 7 == group).collect();
            let sum: i128 = values.iter().sum();
            assert_eq!(made.column(1).as_primitive::<Decimal128Type>().value(group as usize), sum);
            let count = values.len() as i128;
            // Scale 2 → 6, rounded half up.
            let avg = (sum * 10_000 * 2 + count) / (2 * count);
            assert_eq!(made.column(2).as_primitive::<Decimal128Type>().value(group as usize), avg);
        }
    }

    #[test]
    fn what_is_no_number_is_refused_by_name() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
        let error = sql(vec![("s", text.clone())], "SELECT sum(s) FROM t").unwrap_err().to_string();
        assert!(error.contains("SUM needs a number, not STRING"), "{error}");
        let error = sql(vec![("s", text)], "SELECT avg(s, s) FROM t").unwrap_err().to_string();
        assert!(error.contains("AVG takes one argument, not 2"), "{error}");
    }

    #[test]
    fn datafusion_runs_them_over_distinct_values() {
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![1, 4, 1, 4, 4]));
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![0, 0, 0, 0, 1]));
        let text = "SELECT sum(DISTINCT i), avg(DISTINCT i + 1), sum(i) FROM t";
        let made = sql(vec![("i", ints.clone())], text).unwrap();
        let value = |at: usize| made.column(at).as_primitive::<Int64Type>().value(0);
        assert_eq!([value(0), value(1), value(2)], [5, 3, 14]);
        let made = sql(vec![("i", ints), ("k", keys)], "SELECT sum(DISTINCT i), avg(i) FROM t GROUP BY k ORDER BY k");
        assert_eq!(made.unwrap().column(0).as_primitive::<Int64Type>().values(), &[5, 4]);
    }
}
