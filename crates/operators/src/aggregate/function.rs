//! The aggregates of ours that are not SUM and AVG, as DataFusion's planner sees them: names, types, state.

use std::sync::{Arc, LazyLock};

use arrow::compute::SortOptions;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef};
use datafusion::common::{exec_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, Signature, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Literal;
use datafusion::scalar::ScalarValue;

use super::AVG_SCALE_MIN;
use super::approx_distinct::ApproxDistinct;
use super::by_group::{Alone, ByGroup, Groups};
use super::collect::{Collect, Collected};
use super::distinct::{Distinct, DistinctAlone, MakeInner, distinct_of};
use super::first_last::FirstLast;
use super::percentile::ApproxPercentile;
use super::rows::item;
use super::variance::{FloatSpread, IntegerSpread, Spread, state_types};

/// Every aggregate of this file: ARRAY_AGG, STRING_AGG, LISTAGG, FIRST_VALUE, LAST_VALUE, VAR_POP, VAR_SAMP, STDDEV_POP,
/// STDDEV_SAMP, APPROX_COUNT_DISTINCT, APPROX_PERCENTILE, APPROX_MEDIAN, under their names and other names in lower case.
pub fn collecting_udafs() -> Vec<Arc<AggregateUDF>> {
    static ALL: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
        let spreads = [(false, false), (false, true), (true, false), (true, true)];
        let spreads = spreads.map(|(root, sample)| Kind::Spread(Spread { sample, root }));
        let others = [
            Kind::ArrayAgg,
            Kind::StringAgg,
            Kind::ListAgg,
            Kind::FirstValue,
            Kind::LastValue,
            Kind::ApproxCountDistinct,
            Kind::ApproxPercentile,
            Kind::ApproxMedian,
        ];
        spreads.into_iter().chain(others).map(|kind| Arc::new(Ours::new(kind).into())).collect()
    });
    ALL.clone()
}

/// Whether the result of the aggregate `name` shows the order of rows, so that a window gives it the event time as
/// ORDER BY where none is written.
pub fn is_ordered(name: &str) -> bool {
    matches!(name, "array_agg" | "string_agg" | "listagg" | "first_value" | "last_value")
}

/// Which aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    ArrayAgg,
    StringAgg,
    ListAgg,
    FirstValue,
    LastValue,
    Spread(Spread),
    ApproxCountDistinct,
    ApproxPercentile,
    ApproxMedian,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::ArrayAgg => "array_agg",
            Self::StringAgg => "string_agg",
            Self::ListAgg => "listagg",
            Self::FirstValue => "first_value",
            Self::LastValue => "last_value",
            Self::Spread(spread) => spread.name(),
            Self::ApproxCountDistinct => "approx_count_distinct",
            Self::ApproxPercentile => "approx_percentile",
            Self::ApproxMedian => "approx_median",
        }
    }

    fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Spread(Spread { sample: true, root: false }) => &["variance", "var"],
            Self::Spread(Spread { sample: true, root: true }) => &["stddev"],
            Self::ApproxCountDistinct => &["approx_distinct"],
            Self::ApproxPercentile => &["approx_percentile_cont"],
            _ => &[],
        }
    }

    /// How many arguments it takes, and what they are.
    fn arity(self) -> (std::ops::RangeInclusive<usize>, &'static str) {
        match self {
            Self::StringAgg => (2..=2, "a string and a separator"),
            Self::ListAgg => (1..=2, "a string and perhaps a separator"),
            Self::ApproxPercentile => (2..=2, "a number and a percentile between 0 and 1"),
            _ => (1..=1, "one column"),
        }
    }

    /// The type that the first argument is cast to.
    fn coerced(self, argument: &DataType) -> Result<DataType> {
        match self {
            Self::StringAgg | Self::ListAgg => Ok(DataType::Utf8),
            Self::Spread(_) | Self::ApproxPercentile | Self::ApproxMedian => {
                super::coerced_number(&self.name().to_uppercase(), argument)
            }
            _ => Ok(argument.clone()),
        }
    }

    fn result(self, argument: &DataType) -> DataType {
        match (self, argument) {
            (Self::ArrayAgg, _) => DataType::List(item(argument)),
            (Self::StringAgg | Self::ListAgg, _) => DataType::Utf8,
            (Self::ApproxCountDistinct, _) => DataType::Int64,
            (Self::Spread(_), DataType::Decimal128(_, scale)) => {
                DataType::Decimal128(DECIMAL128_MAX_PRECISION, AVG_SCALE_MIN.max(*scale))
            }
            _ => argument.clone(),
        }
    }

    /// The state columns, by the argument's type and those of ORDER BY.
    fn states(self, argument: &DataType, order: &[FieldRef]) -> Vec<DataType> {
        let list = |data_type: &DataType| DataType::List(item(data_type));
        let order = order.iter().map(|field| field.data_type());
        match self {
            Self::ArrayAgg | Self::StringAgg | Self::ListAgg => {
                std::iter::once(argument).chain(order).map(list).collect()
            }
            Self::FirstValue | Self::LastValue => std::iter::once(argument).chain(order).cloned().collect(),
            Self::Spread(_) => state_types(argument).to_vec(),
            Self::ApproxCountDistinct => vec![DataType::Binary],
            Self::ApproxPercentile | Self::ApproxMedian => vec![list(&DataType::Int32), list(&DataType::Int64)],
        }
    }
}

/// An aggregate of ours.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Ours {
    kind: Kind,
    aliases: Vec<String>,
    signature: Signature,
}

impl Ours {
    fn new(kind: Kind) -> Self {
        let aliases = kind.aliases().iter().map(|alias| (*alias).to_owned()).collect();
        Self { kind, aliases, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn make<V: Visit>(&self, args: &AccumulatorArgs<'_>) -> Result<V::Made> {
        let Some(argument) = args.expr_fields.first().map(|field| field.data_type().clone()) else {
            return plan_err!("{} takes {}", self.kind.name().to_uppercase(), self.kind.arity().1);
        };
        let collect = |what| Ok(V::visit(Collect::new(what, argument.clone(), args.exprs.len(), order(args)?)));
        match self.kind {
            Kind::ArrayAgg => collect(Collected::Array),
            Kind::StringAgg | Kind::ListAgg => collect(Collected::Text(separator(args)?)),
            Kind::FirstValue => Ok(V::visit(FirstLast::new(false, argument, order(args)?)?)),
            Kind::LastValue => Ok(V::visit(FirstLast::new(true, argument, order(args)?)?)),
            Kind::Spread(spread) if argument.is_integer() => Ok(V::visit(IntegerSpread::new(spread, argument))),
            Kind::Spread(spread) => {
                let result = self.kind.result(&argument);
                Ok(V::visit(FloatSpread::new(spread, argument, result)))
            }
            Kind::ApproxCountDistinct => Ok(V::visit(ApproxDistinct::default())),
            Kind::ApproxPercentile => Ok(V::visit(ApproxPercentile::new(percentile(args)?, argument))),
            Kind::ApproxMedian => Ok(V::visit(ApproxPercentile::new(0.5, argument))),
        }
    }
}

/// What is made of [`Groups`]: an accumulator of many groups, or of one.
trait Visit {
    type Made;
    fn visit<G: Groups + std::fmt::Debug + Sync>(groups: G) -> Self::Made;
}

struct Many;

impl Visit for Many {
    type Made = Box<dyn GroupsAccumulator>;
    fn visit<G: Groups + std::fmt::Debug + Sync>(groups: G) -> Self::Made {
        Box::new(ByGroup(groups))
    }
}

struct One;

impl Visit for One {
    type Made = Box<dyn Accumulator>;
    fn visit<G: Groups + std::fmt::Debug + Sync>(groups: G) -> Self::Made {
        Box::new(Alone(groups))
    }
}

/// Makes what [`Many`] makes, again and again.
struct Inner;

impl Visit for Inner {
    type Made = MakeInner;
    fn visit<G: Groups + std::fmt::Debug + Sync>(groups: G) -> Self::Made {
        Arc::new(move || Ok(Box::new(ByGroup(groups.empty()?))))
    }
}

/// The types and directions of ORDER BY.
fn order(args: &AccumulatorArgs<'_>) -> Result<Vec<(DataType, SortOptions)>> {
    args.order_bys.iter().map(|sort| Ok((sort.expr.data_type(args.schema)?, sort.options))).collect()
}

fn constant<'a>(args: &AccumulatorArgs<'a>, at: usize) -> Option<&'a ScalarValue> {
    let expr: &Arc<dyn PhysicalExpr> = args.exprs.get(at)?;
    expr.downcast_ref::<Literal>().map(Literal::value)
}

fn separator(args: &AccumulatorArgs<'_>) -> Result<String> {
    match constant(args, 1) {
        None if args.exprs.len() == 1 => Ok(",".to_owned()),
        Some(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text))) => Ok(text.clone()),
        _ => plan_err!("the separator of STRING_AGG and LISTAGG must be a constant string, such as ','"),
    }
}

fn percentile(args: &AccumulatorArgs<'_>) -> Result<f64> {
    match constant(args, 1).map(|value| value.cast_to(&DataType::Float64)) {
        Some(Ok(ScalarValue::Float64(Some(value)))) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => plan_err!("the percentile of APPROX_PERCENTILE must be a constant between 0 and 1, such as 0.95"),
    }
}

impl AggregateUDFImpl for Ours {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let (arity, what) = self.kind.arity();
        match arguments.split_first() {
            Some((argument, rest)) if arity.contains(&arguments.len()) => {
                let rest = rest.iter().map(|other| match self.kind {
                    Kind::StringAgg | Kind::ListAgg => DataType::Utf8,
                    _ => other.clone(),
                });
                Ok(std::iter::once(self.kind.coerced(argument)?).chain(rest).collect())
            }
            _ => plan_err!("{} takes {what}, not {} arguments", self.name().to_uppercase(), arguments.len()),
        }
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        let Some(argument) = arguments.first() else {
            return plan_err!("{} takes {}", self.name().to_uppercase(), self.kind.arity().1);
        };
        Ok(self.kind.result(&self.kind.coerced(argument)?))
    }

    fn is_nullable(&self) -> bool {
        self.kind != Kind::ApproxCountDistinct
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        match self.kind {
            Kind::ApproxCountDistinct => Ok(ScalarValue::Int64(Some(0))),
            _ => ScalarValue::try_from(data_type),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let Some(argument) = args.input_fields.first() else {
            return exec_err!("{} without an argument", self.name().to_uppercase());
        };
        if args.is_distinct {
            return Ok(vec![Distinct::named_state_field(args.name, argument.data_type())]);
        }
        let types = self.kind.states(argument.data_type(), args.ordering_fields);
        let fields = types.into_iter().enumerate().map(|(at, data_type)| {
            Arc::new(Field::new(format_state_name(args.name, &format!("state{at}")), data_type, true))
        });
        Ok(fields.collect())
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return Ok(Box::new(DistinctAlone(distinct_of(self.name(), &args, self.make::<Inner>(&args)?)?.into())));
        }
        self.make::<One>(&args)
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        if args.is_distinct {
            return Ok(Box::new(distinct_of(self.name(), &args, self.make::<Inner>(&args)?)?));
        }
        self.make::<Many>(&args)
    }

    fn supports_null_handling_clause(&self) -> bool {
        matches!(self.kind, Kind::FirstValue | Kind::LastValue | Kind::ArrayAgg)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        // They sort by themselves, but must be given the columns.
        if is_ordered(self.name()) {
            AggregateOrderSensitivity::Beneficial
        } else {
            AggregateOrderSensitivity::Insensitive
        }
    }

    fn with_beneficial_ordering(self: Arc<Self>, _ordered: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        Ok(Some(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str) -> Arc<AggregateUDF> {
        let named = |function: &&Arc<AggregateUDF>| {
            function.name() == name || function.aliases().iter().any(|alias| alias == name)
        };
        collecting_udafs().iter().find(named).unwrap().clone()
    }

    #[test]
    fn result_types_are_flinks() {
        let decimal = DataType::Decimal128;
        let cases = [
            ("stddev", DataType::Int32, DataType::Int32),
            ("var_pop", DataType::Float64, DataType::Float64),
            ("variance", decimal(10, 2), decimal(38, 6)),
            ("first_value", DataType::Boolean, DataType::Boolean),
            ("approx_distinct", DataType::Utf8, DataType::Int64),
            ("listagg", DataType::Utf8, DataType::Utf8),
            ("array_agg", DataType::Int8, DataType::List(item(&DataType::Int8))),
        ];
        for (name, argument, result) in cases {
            assert_eq!(function(name).return_type(&[argument]).unwrap(), result, "{name}");
        }
    }

    #[test]
    fn wrong_arguments_are_sentences() {
        let error =
            |name: &str, types: &[DataType]| function(name).inner().coerce_types(types).unwrap_err().to_string();
        assert!(error("stddev", &[DataType::Utf8]).contains("STDDEV_SAMP needs a number, not STRING"));
        assert!(error("listagg", &[]).contains("LISTAGG takes a string and perhaps a separator, not 0 arguments"));
    }
}
