//! AND and OR as a reader expects them: `x <> 0 AND 10 / x > 1` divides by no zero.
//!
//! DataFusion evaluates both sides over a whole batch, so that the right side fails on rows that the left side was there
//! to keep away from it. A [`Guarded`] evaluates its operands one after the other, each over the rows only that the ones
//! before left undecided, as Flink does row by row. What cannot fail goes first, the cheapest of it before the others:
//! that decides rows before the dear operands, such as regular expressions, see them, and lets the optimiser merge
//! conditions in any order. What can fail keeps its place among its like.
//!
//! The truth table is SQL's: an operand that was not evaluated for a row is unknown there, and the row is decided.

use std::fmt::{self, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::compute::{and_kleene, filter_record_batch, or_kleene};
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NotExpr,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr, utils::collect_columns};
use datafusion::physical_expr_common::utils::scatter;

/// Functions that give something for every value, and quickly.
const EASY: [&str; 9] =
    ["lower", "upper", "char_length", "character_length", "trim", "btrim", "ltrim", "rtrim", "coalesce"];
/// Functions that give something for every value if what they search for is a constant, which was checked by then.
const SEARCHES: [&str; 5] = ["regexp", "regexp_extract", "regexp_count", "regexp_instr", "split_index"];

/// What an expression costs, the least first; what can fail is last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cost {
    /// Comparisons and arithmetic that cannot fail.
    Plain,
    /// A little work on each value.
    Easy,
    /// A search through each value.
    Search,
    /// Anything that can fail, as far as is known.
    Fallible,
}

/// `expr` over rows of `schema`, each AND and OR in it evaluated so that one operand guards the next.
///
/// # Errors
/// DataFusion's, if `expr` does not fit `schema`.
pub fn guarded(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let guard = |expr: Arc<dyn PhysicalExpr>| {
        let Some((junction, parts)) = Junction::of(&expr) else { return Ok(Transformed::no(expr)) };
        // What is inside was looked at: going on there would be to look at it once more for each level.
        Ok(match Guarded::of(&expr, junction, parts, schema)? {
            Some(guarded) => Transformed::new(Arc::new(guarded) as _, true, TreeNodeRecursion::Jump),
            None => Transformed::new(expr, false, TreeNodeRecursion::Jump),
        })
    };
    expr.transform_down(guard).data()
}

/// An AND or an OR whose operands guard each other.
#[derive(Debug)]
struct Guarded {
    /// The same without guards: what it says of itself.
    plain: Arc<dyn PhysicalExpr>,
    schema: Schema,
    junction: Junction,
    operands: Vec<Operand>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Junction {
    And,
    Or,
}

/// An operand over the columns that it needs.
#[derive(Debug)]
struct Operand {
    expr: Arc<dyn PhysicalExpr>,
    /// Of the input; the expression's columns are places in it.
    columns: Vec<usize>,
    cost: Cost,
}

impl Guarded {
    /// `expr`, which joins `parts`, with guards, if one of them is worth one.
    fn of(
        expr: &Arc<dyn PhysicalExpr>,
        junction: Junction,
        parts: Vec<Arc<dyn PhysicalExpr>>,
        schema: &Schema,
    ) -> Result<Option<Self>> {
        let costs = parts.iter().map(|part| cost(part, schema)).collect::<Result<Vec<_>>>()?;
        if costs.iter().all(|cost| *cost == Cost::Plain) {
            return Ok(None);
        }
        let mut parts: Vec<_> = costs.into_iter().zip(parts).collect();
        parts.sort_by_key(|(cost, _)| *cost);
        let operands = junction.merged(parts).into_iter().map(|part| Operand::new(part, schema));
        let operands = operands.collect::<Result<_>>()?;
        Ok(Some(Self { plain: Arc::clone(expr), schema: schema.clone(), junction, operands }))
    }
}

impl Junction {
    /// The kind and all the operands of a chain of ANDs or of ORs.
    fn of(expr: &Arc<dyn PhysicalExpr>) -> Option<(Self, Vec<Arc<dyn PhysicalExpr>>)> {
        let junction = match expr.downcast_ref::<BinaryExpr>()?.op() {
            Operator::And => Self::And,
            Operator::Or => Self::Or,
            _ => return None,
        };
        let mut parts = Vec::new();
        junction.flatten(expr, &mut parts);
        Some((junction, parts))
    }

    fn flatten(self, expr: &Arc<dyn PhysicalExpr>, parts: &mut Vec<Arc<dyn PhysicalExpr>>) {
        let mut waiting = vec![expr];
        while let Some(expr) = waiting.pop() {
            match expr.downcast_ref::<BinaryExpr>() {
                Some(both) if *both.op() == self.operator() => waiting.extend([both.right(), both.left()]),
                _ => parts.push(Arc::clone(expr)),
            }
        }
    }

    fn operator(self) -> Operator {
        match self {
            Self::And => Operator::And,
            Self::Or => Operator::Or,
        }
    }

    /// The same operands, the plain ones at the front as one.
    fn merged(self, parts: Vec<(Cost, Arc<dyn PhysicalExpr>)>) -> Vec<(Cost, Arc<dyn PhysicalExpr>)> {
        let mut merged: Vec<(Cost, Arc<dyn PhysicalExpr>)> = Vec::with_capacity(parts.len());
        for (cost, part) in parts {
            match merged.last_mut() {
                Some((Cost::Plain, plain)) if cost == Cost::Plain => {
                    *plain = Arc::new(BinaryExpr::new(Arc::clone(plain), self.operator(), part));
                }
                _ => merged.push((cost, part)),
            }
        }
        merged
    }

    /// The rows that `known` does not decide.
    fn undecided(self, known: &BooleanArray) -> BooleanArray {
        let deciding = match self {
            Self::And => !known.values(),
            Self::Or => known.values().clone(),
        };
        let decided = match known.nulls() {
            Some(valid) => &deciding & valid.inner(),
            None => deciding,
        };
        BooleanArray::new(!&decided, None)
    }

    fn join(self, one: &BooleanArray, other: &BooleanArray) -> Result<BooleanArray> {
        Ok(match self {
            Self::And => and_kleene(one, other)?,
            Self::Or => or_kleene(one, other)?,
        })
    }
}

impl Operand {
    fn new((cost, expr): (Cost, Arc<dyn PhysicalExpr>), schema: &Schema) -> Result<Self> {
        let mut columns: Vec<usize> = collect_columns(&expr).iter().map(Column::index).collect();
        columns.sort_unstable();
        columns.dedup();
        let place = |expr: Arc<dyn PhysicalExpr>| {
            let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
            let place = columns.binary_search(&column.index()).unwrap_or_default();
            Ok(Transformed::yes(Arc::new(Column::new(column.name(), place)) as _))
        };
        // First its columns, then its guards: those are made for a schema.
        let expr = guarded(expr.transform_up(place).data()?, &schema.project(&columns)?)?;
        Ok(Self { expr, columns, cost })
    }

    /// Its value in each row of `open`, at least.
    fn evaluate(&self, batch: &RecordBatch, open: Option<&BooleanArray>) -> Result<BooleanArray> {
        let needed = batch.project(&self.columns)?;
        let Some(open) = open.filter(|open| self.is_worth_choosing(open)) else {
            return truth(self.expr.evaluate(&needed)?, needed.num_rows());
        };
        let chosen = filter_record_batch(&needed, open)?;
        let values = truth(self.expr.evaluate(&chosen)?, chosen.num_rows())?;
        truth(ColumnarValue::Array(scatter(open, &values)?), open.len())
    }

    /// Copying most of the rows costs more than evaluating all of them, but that must not fail.
    fn is_worth_choosing(&self, open: &BooleanArray) -> bool {
        let rows = open.true_count();
        rows < open.len() && (self.cost == Cost::Fallible || rows < open.len() / 4 * 3)
    }
}

fn truth(value: ColumnarValue, rows: usize) -> Result<BooleanArray> {
    let array = value.into_array(rows)?;
    let truth = array.as_boolean_opt().cloned();
    truth.ok_or_else(|| DataFusionError::Internal(format!("a condition is {}", array.data_type())))
}

/// What `expr` costs: as much as the dearest part of it.
fn cost(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Cost> {
    let mut most = Cost::Plain;
    expr.apply(|part| {
        most = most.max(own_cost(part, schema)?);
        Ok(if most == Cost::Fallible { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(most)
}

fn own_cost(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Cost> {
    if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        return binary_cost(binary, schema);
    }
    if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>() {
        return Ok(call_cost(call));
    }
    if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        let widens = widens(&cast.expr().data_type(schema)?, cast.cast_type());
        return Ok(if widens { Cost::Plain } else { Cost::Fallible });
    }
    let is_plain = expr.is::<Column>()
        || expr.is::<Literal>()
        || expr.is::<NotExpr>()
        || expr.is::<IsNullExpr>()
        || expr.is::<IsNotNullExpr>()
        || expr.is::<InListExpr>();
    Ok(match is_plain {
        true => Cost::Plain,
        false if expr.is::<LikeExpr>() || expr.is::<CaseExpr>() => Cost::Easy,
        false => Cost::Fallible,
    })
}

/// Integers wrap, and floating point has a value for everything; only their division by zero fails.
fn binary_cost(binary: &BinaryExpr, schema: &Schema) -> Result<Cost> {
    let op = binary.op();
    if is_comparison(*op) || matches!(op, Operator::And | Operator::Or) {
        return Ok(Cost::Plain);
    }
    let is_sum = matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply);
    let operand = binary.left().data_type(schema)?;
    let cannot_fail = operand.is_floating() || operand.is_integer();
    Ok(if is_sum && cannot_fail { Cost::Plain } else { Cost::Fallible })
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn call_cost(call: &ScalarFunctionExpr) -> Cost {
    let name = call.name();
    let has_constant_pattern = || call.args().iter().skip(1).all(|arg| arg.is::<Literal>());
    match name {
        _ if EASY.contains(&name) => Cost::Easy,
        _ if SEARCHES.contains(&name) && has_constant_pattern() => Cost::Search,
        _ => Cost::Fallible,
    }
}

/// Whether every value of `from` is one of `to`.
fn widens(from: &DataType, to: &DataType) -> bool {
    let bits = |one: &DataType| one.primitive_width();
    let is_alike = (from.is_signed_integer() && to.is_signed_integer()) || (from.is_floating() && to.is_floating());
    from == to || is_alike && bits(from) <= bits(to) || from.is_signed_integer() && *to == DataType::Float64
}

impl Display for Guarded {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.plain.fmt(f)
    }
}

impl PartialEq for Guarded {
    fn eq(&self, other: &Self) -> bool {
        self.plain.eq(&other.plain)
    }
}

impl Eq for Guarded {}

impl Hash for Guarded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.plain.hash(state);
    }
}

impl PhysicalExpr for Guarded {
    fn data_type(&self, _: &Schema) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, input: &Schema) -> Result<bool> {
        self.plain.nullable(input)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let mut known: Option<BooleanArray> = None;
        for operand in &self.operands {
            let Some(before) = &known else {
                known = Some(operand.evaluate(batch, None)?);
                continue;
            };
            let open = self.junction.undecided(before);
            if open.true_count() == 0 {
                break;
            }
            known = Some(self.junction.join(before, &operand.evaluate(batch, Some(&open))?)?);
        }
        let known = known.ok_or_else(|| DataFusionError::Internal(format!("'{self}' has no operand")))?;
        Ok(ColumnarValue::Array(Arc::new(known)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.plain]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match children.into_iter().next() {
            Some(plain) => guarded(plain, &self.schema),
            None => Ok(self),
        }
    }

    fn fmt_sql(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.plain.fmt_sql(f)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use arrow::datatypes::SchemaRef;
    use datafusion::physical_expr::expressions::{binary, col, is_null, lit};

    use super::*;

    fn rows() -> RecordBatch {
        let x = Int64Array::from(vec![Some(0), Some(1), None, Some(4), Some(20)]);
        let s = StringArray::from(vec![Some("0"), Some("no"), Some("3"), None, Some("x")]);
        RecordBatch::try_from_iter([("x", Arc::new(x) as ArrayRef), ("s", Arc::new(s) as ArrayRef)]).unwrap()
    }

    /// `10 / x > least`, which fails where x is 0.
    fn quotient_above(least: i64, schema: &SchemaRef) -> Arc<dyn PhysicalExpr> {
        let quotient = binary(lit(10i64), Operator::Divide, col("x", schema).unwrap(), schema).unwrap();
        binary(quotient, Operator::Gt, lit(least), schema).unwrap()
    }

    fn compared(op: Operator, value: i64, schema: &SchemaRef) -> Arc<dyn PhysicalExpr> {
        binary(col("x", schema).unwrap(), op, lit(value), schema).unwrap()
    }

    fn result(expr: Arc<dyn PhysicalExpr>) -> Result<Vec<Option<bool>>> {
        let rows = rows();
        let value = guarded(expr, rows.schema_ref())?.evaluate(&rows)?;
        Ok(truth(value, rows.num_rows())?.iter().collect())
    }

    #[test]
    fn a_guard_keeps_rows_from_what_would_fail() {
        let schema = rows().schema();
        let both = |one: Operator, left, right| binary(left, one, right, &schema).unwrap();
        let (guard, divides) = (compared(Operator::NotEq, 0, &schema), quotient_above(1, &schema));
        let expected = vec![Some(false), Some(true), None, Some(true), Some(false)];
        assert_eq!(result(both(Operator::And, guard.clone(), divides.clone())).unwrap(), expected);
        assert_eq!(result(both(Operator::And, divides.clone(), guard)).unwrap(), expected);
        let zero = compared(Operator::Eq, 0, &schema);
        let expected = vec![Some(true), Some(true), None, Some(true), Some(false)];
        assert_eq!(result(both(Operator::Or, zero.clone(), divides.clone())).unwrap(), expected);
        assert_eq!(result(both(Operator::Or, divides.clone(), zero)).unwrap(), expected);
        assert!(result(divides).is_err());
    }

    #[test]
    fn what_is_unknown_stays_so_unless_it_is_decided() {
        let schema = rows().schema();
        let guard = binary(
            compared(Operator::NotEq, 0, &schema),
            Operator::And,
            is_null(col("s", &schema).unwrap()).unwrap(),
            &schema,
        );
        let all = binary(guard.unwrap(), Operator::And, quotient_above(1, &schema), &schema).unwrap();
        assert_eq!(result(all).unwrap(), [Some(false), Some(false), Some(false), Some(true), Some(false)]);
    }

    #[test]
    fn guards_are_found_inside_other_expressions_and_each_other() {
        let schema = rows().schema();
        let inner = binary(compared(Operator::Eq, 0, &schema), Operator::Or, quotient_above(5, &schema), &schema);
        let outer = binary(compared(Operator::Lt, 10, &schema), Operator::And, inner.unwrap(), &schema).unwrap();
        let negated = datafusion::physical_expr::expressions::not(outer).unwrap();
        assert_eq!(result(negated).unwrap(), [Some(false), Some(false), None, Some(true), Some(true)]);
    }

    #[test]
    fn plain_conditions_stay_as_they_are() {
        let schema = rows().schema();
        let one = compared(Operator::Gt, 1, &schema);
        let plain = binary(one.clone(), Operator::And, compared(Operator::Lt, 9, &schema), &schema).unwrap();
        let same = guarded(Arc::clone(&plain), &schema).unwrap();
        assert!(Arc::ptr_eq(&same, &plain));
        let guarded =
            guarded(binary(one, Operator::And, quotient_above(1, &schema), &schema).unwrap(), &schema).unwrap();
        assert_eq!(guarded.to_string(), "x@0 > 1 AND 10 / x@0 > 1");
    }

    #[test]
    fn conditions_nested_deep_are_looked_at_once_a_level() {
        let schema = rows().schema();
        for (innermost, expected) in
            [(compared(Operator::Gt, 1, &schema), Some(false)), (quotient_above(1, &schema), Some(true))]
        {
            let mut nested = binary(compared(Operator::NotEq, 0, &schema), Operator::And, innermost, &schema).unwrap();
            for level in 0..100 {
                let (op, value) = if level % 2 == 0 { (Operator::Or, 99) } else { (Operator::And, 20) };
                let sign = if level % 2 == 0 { Operator::Eq } else { Operator::NotEq };
                nested = binary(compared(sign, value, &schema), op, nested, &schema).unwrap();
            }
            assert_eq!(result(nested).unwrap(), [Some(false), expected, None, Some(true), Some(false)]);
        }
    }

    #[test]
    fn a_long_chain_is_no_deep_call() {
        let schema = rows().schema();
        let one = || compared(Operator::NotEq, 0, &schema);
        let mut chain = binary(one(), Operator::And, quotient_above(1, &schema), &schema).unwrap();
        for _ in 0..200 {
            chain = binary(chain, Operator::And, one(), &schema).unwrap();
        }
        assert_eq!(result(chain).unwrap()[0], Some(false));
    }
}
