//! Bounds between the event times of two sides, in any form that adds and subtracts constants: `a.t BETWEEN b.t -
//! INTERVAL '1' HOUR AND b.t`, `a.t >= b.t AND a.t - b.t < INTERVAL '5' MINUTE`, `a.t = b.t`.
//!
//! A condition is brought into the form `left time - right time op constant`, in nanoseconds.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Between, BinaryExpr, Expr, LogicalPlan, Operator};

use crate::processing_time::has_processing_time;
use crate::window::{is_event_time, table_column};

use super::node::{JoinParts, JoinSide};

const NANOS_PER_MILLI: i128 = 1_000_000;

/// What a condition says of the left time minus the right time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) times: (Column, Column),
    pub(super) lower_ms: i64,
    pub(super) upper_ms: i64,
    /// Whether the times have milliseconds, so that the bounds say all.
    pub(super) is_exact: bool,
    /// The conjuncts that say it.
    pub(super) said_by: Vec<Expr>,
}

/// Which columns are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    Event,
    Processing,
}

/// The bounds that `conjuncts` over the inputs of `parts` set between the times of its sides, if there are both a lower and
/// an upper one.
pub(super) fn bounds(parts: &JoinParts, conjuncts: &[Expr], times: Times) -> Option<Bounds> {
    let said = |conjunct| limits(conjunct, parts, times).into_iter().map(move |limit| (conjunct, limit));
    let found = conjuncts.iter().flat_map(said);
    let found: Vec<(&Expr, Limit)> = found.collect();
    let (_, first) = found.first()?;
    let pair = first.times.clone();
    let of_pair = || found.iter().filter(|(_, limit)| limit.times == pair);
    let lower = of_pair().filter_map(|(_, limit)| limit.lower).max()?;
    let upper = of_pair().filter_map(|(_, limit)| limit.upper).min()?;
    let is_exact = is_millis(&parts.left, &pair.0) && is_millis(&parts.right, &pair.1);
    // Times are floored to milliseconds on both sides: each may lose nearly one.
    let slack = if is_exact { 0 } else { NANOS_PER_MILLI };
    let floor = |nanos: i128| i64::try_from(nanos.div_euclid(NANOS_PER_MILLI)).ok();
    let (lower_ms, upper_ms) = (-floor(slack - lower)?, floor(upper + slack)?);
    let mut said_by: Vec<Expr> = Vec::new();
    for (conjunct, _) in of_pair() {
        if !said_by.contains(conjunct) {
            said_by.push((*conjunct).clone());
        }
    }
    Some(Bounds { times: pair, lower_ms, upper_ms, is_exact, said_by })
}

fn is_millis(plan: &LogicalPlan, column: &Column) -> bool {
    let index = plan.schema().maybe_index_of_column(column);
    let data_type = index.map(|index| plan.schema().field(index).data_type());
    matches!(data_type, Some(DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, _)))
}

/// One comparison's say, in nanoseconds, both ends included.
#[derive(Debug)]
struct Limit {
    times: (Column, Column),
    lower: Option<i128>,
    upper: Option<i128>,
}

/// What a conjunct says; a BETWEEN says two things, or nothing.
fn limits(conjunct: &Expr, parts: &JoinParts, times: Times) -> Vec<Limit> {
    match conjunct {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            compared(left, *op, right, parts, times).into_iter().collect()
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            let low = compared(expr, Operator::GtEq, low, parts, times);
            let high = compared(expr, Operator::LtEq, high, parts, times);
            low.zip(high).map(|(low, high)| vec![low, high]).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// What `left op right` says.
fn compared(left: &Expr, op: Operator, right: &Expr, parts: &JoinParts, times: Times) -> Option<Limit> {
    let sum = linear(left, parts, times)?.minus(linear(right, parts, times)?)?;
    let (op, constant) = match (sum.left, sum.right) {
        (1, -1) => (op, sum.nanos.checked_neg()?),
        (-1, 1) => (op.swap()?, sum.nanos),
        _ => return None,
    };
    // Times are whole nanoseconds at least; those in milliseconds differ by whole milliseconds.
    let step = if is_millis(&parts.left, &sum.left_time.clone()?) && is_millis(&parts.right, &sum.right_time.clone()?) {
        NANOS_PER_MILLI
    } else {
        1
    };
    let below = (constant - 1).div_euclid(step) * step;
    let above = constant.div_euclid(step) * step + step;
    let (lower, upper) = match op {
        Operator::GtEq => (Some(constant), None),
        Operator::Gt => (Some(above), None),
        Operator::LtEq => (None, Some(constant)),
        Operator::Lt => (None, Some(below)),
        Operator::Eq => (Some(constant), Some(constant)),
        _ => return None,
    };
    Some(Limit { times: (sum.left_time?, sum.right_time?), lower, upper })
}

/// `left × left time + right × right time + nanos`.
#[derive(Debug, Default)]
struct Linear {
    left: i32,
    right: i32,
    nanos: i128,
    left_time: Option<Column>,
    right_time: Option<Column>,
}

impl Linear {
    fn constant(nanos: i128) -> Self {
        Self { nanos, ..Self::default() }
    }

    fn plus(self, other: Self) -> Option<Self> {
        Some(Self {
            left: self.left.checked_add(other.left)?,
            right: self.right.checked_add(other.right)?,
            nanos: self.nanos.checked_add(other.nanos)?,
            left_time: one_of(self.left_time, other.left_time)?,
            right_time: one_of(self.right_time, other.right_time)?,
        })
    }

    fn minus(self, other: Self) -> Option<Self> {
        let (left, right, nanos) = (other.left.checked_neg()?, other.right.checked_neg()?, other.nanos.checked_neg()?);
        self.plus(Self { left, right, nanos, ..other })
    }
}

/// The one that is there, if not two different ones are.
fn one_of(first: Option<Column>, second: Option<Column>) -> Option<Option<Column>> {
    match (first, second) {
        (Some(first), Some(second)) => (first == second).then_some(Some(first)),
        (first, second) => Some(first.or(second)),
    }
}

fn linear(expr: &Expr, parts: &JoinParts, times: Times) -> Option<Linear> {
    match expr {
        Expr::Column(column) => time_of(column, parts, times),
        Expr::Literal(value, _) => nanos(value).map(Linear::constant),
        Expr::Alias(alias) => linear(&alias.expr, parts, times),
        Expr::Cast(cast) if is_widening(&cast.expr, cast.field.data_type(), parts) => linear(&cast.expr, parts, times),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus, right }) => {
            linear(left, parts, times)?.plus(linear(right, parts, times)?)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Minus, right }) => {
            linear(left, parts, times)?.minus(linear(right, parts, times)?)
        }
        _ => None,
    }
}

fn time_of(column: &Column, parts: &JoinParts, times: Times) -> Option<Linear> {
    let is_time = |plan: &LogicalPlan| {
        let index = plan.schema().maybe_index_of_column(column)?;
        let is_time = match times {
            Times::Event => is_event_time(plan, index),
            Times::Processing => {
                table_column(plan, column).is_some_and(|(table, name)| has_processing_time(table, &name))
            }
        };
        is_time.then_some(())
    };
    let side = match (is_time(&parts.left), is_time(&parts.right)) {
        (Some(()), None) => JoinSide::Left,
        (None, Some(())) => JoinSide::Right,
        _ => return None,
    };
    Some(match side {
        JoinSide::Left => Linear { left: 1, left_time: Some(column.clone()), ..Linear::default() },
        JoinSide::Right => Linear { right: 1, right_time: Some(column.clone()), ..Linear::default() },
    })
}

/// Whether a cast to `to` changes the unit of a time alone, and loses nothing.
fn is_widening(expr: &Expr, to: &DataType, parts: &JoinParts) -> bool {
    use datafusion::logical_expr::ExprSchemable;
    let from = parts.both().ok().and_then(|both| expr.get_type(&both).ok());
    match (from, to) {
        (Some(DataType::Timestamp(from, from_zone)), DataType::Timestamp(to, to_zone)) => {
            from_zone.is_some() == to_zone.is_some() && rank(from) <= rank(*to)
        }
        _ => false,
    }
}

fn rank(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    }
}

/// The length of an interval without months.
fn nanos(value: &ScalarValue) -> Option<i128> {
    let (count, per_unit) = match value {
        ScalarValue::DurationSecond(Some(count)) => (*count, 1_000_000_000),
        ScalarValue::DurationMillisecond(Some(count)) => (*count, 1_000_000),
        ScalarValue::DurationMicrosecond(Some(count)) => (*count, 1_000),
        ScalarValue::DurationNanosecond(Some(count)) => (*count, 1),
        ScalarValue::IntervalMonthDayNano(Some(interval)) if interval.months == 0 => {
            let days = i128::from(interval.days).checked_mul(86_400_000_000_000)?;
            return days.checked_add(i128::from(interval.nanoseconds));
        }
        _ => return None,
    };
    i128::from(count).checked_mul(per_unit)
}
