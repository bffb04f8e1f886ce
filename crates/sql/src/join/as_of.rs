//! `JOIN t FOR SYSTEM_TIME AS OF time ON ..` and `ASOF JOIN t MATCH_CONDITION (..) ON ..`: what DataFusion's planner does
//! not know, as a mark in the join's condition, which comes out of the planned join again.
//!
//! ```text
//! a JOIN b FOR SYSTEM_TIME AS OF a.t ON a.k = b.k        →  a JOIN b ON a.k = b.k AND mark(.., a.t)
//! a ASOF JOIN b MATCH_CONDITION (a.t >= b.t) ON ..       →  a LEFT JOIN b ON .. AND mark(.., a.t, b.t)
//! ```
//!
//! A marked join stays as it is when conditions are moved ([`super::tree`]): what its condition says is not what it means.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion::common::{Result as DfResult, internal_err};
use datafusion::logical_expr::utils::split_conjunction_owned;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Join, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr as AstExpr, Join as AstJoin, JoinConstraint, JoinOperator, Select, Spanned, TableFactor,
    TableVersion, TableWithJoins, Value, VisitMut, VisitorMut,
};

use crate::diagnostic::{Position, Sql, SqlError};
use crate::forms::{call, text};

/// What the mark is called: no text can have a function of this name.
pub(crate) const MARK: &str = "join as of";

/// What a mark says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mark {
    pub(super) kind: MarkKind,
    /// Where it stands.
    pub(super) at: Option<Position>,
    /// The rest of the join's condition.
    pub(super) rest: Vec<Expr>,
}

/// Which row of the right side a left row is joined with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum MarkKind {
    /// FOR SYSTEM_TIME AS OF this.
    SystemTime(Expr),
    /// ASOF JOIN: the nearest one for which this comparison is true.
    Match { left: Expr, op: Operator, right: Expr },
}

/// Puts marks into `node`.
pub(crate) fn mark(node: &mut impl VisitMut) -> Sql<()> {
    let flow = node.visit(&mut Marking);
    let flow = if flow.is_continue() { node.visit(&mut Leftovers) } else { flow };
    match flow {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Marking;

impl VisitorMut for Marking {
    type Break = SqlError;

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<SqlError> {
        flow(select.from.iter_mut().try_for_each(mark_all))
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<SqlError> {
        match factor {
            TableFactor::NestedJoin { table_with_joins, .. } => flow(mark_all(table_with_joins)),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// Refuses versions of what is not joined.
struct Leftovers;

impl VisitorMut for Leftovers {
    type Break = SqlError;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<SqlError> {
        match factor {
            TableFactor::Table { version: Some(TableVersion::ForSystemTimeAsOf(time)), .. } => {
                let error = SqlError::new("FOR SYSTEM_TIME AS OF reads a table on the right side of a JOIN");
                flow(Err(error.at(Position::of_span(time.span())).help(WRITE)))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

const WRITE: &str = "write o [LEFT] JOIN t FOR SYSTEM_TIME AS OF o.rowtime ON o.key = t.key";

fn flow(result: Sql<()>) -> ControlFlow<SqlError> {
    result.map_or_else(ControlFlow::Break, ControlFlow::Continue)
}

fn mark_all(item: &mut TableWithJoins) -> Sql<()> {
    item.joins.iter_mut().try_for_each(mark_join)
}

fn mark_join(join: &mut AstJoin) -> Sql<()> {
    let version = match &mut join.relation {
        TableFactor::Table { version, .. } => version.take(),
        _ => None,
    };
    match (&mut join.join_operator, version) {
        (JoinOperator::AsOf { match_condition, constraint }, None) => {
            let operator = matched(match_condition, constraint)?;
            join.join_operator = operator;
            Ok(())
        }
        (operator, Some(TableVersion::ForSystemTimeAsOf(time))) => {
            let at = Position::of_span(time.span());
            let condition = condition_of(operator, at)?;
            let rest = std::mem::replace(condition, text(""));
            *condition = marked(rest, "system time", at, vec![time]);
            Ok(())
        }
        (_, Some(_)) => Err(SqlError::internal("a table version was not refused")),
        (_, None) => Ok(()),
    }
}

/// The condition of a join that may be as of a time.
fn condition_of(operator: &mut JoinOperator, at: Option<Position>) -> Sql<&mut AstExpr> {
    use JoinOperator::{Inner, Join, Left, LeftOuter};
    let refused = |what: &str| Err(SqlError::new(what).at(at).help(WRITE));
    match operator {
        Join(on) | Inner(on) | Left(on) | LeftOuter(on) => match on {
            JoinConstraint::On(condition) => Ok(condition),
            _ => refused("a JOIN with FOR SYSTEM_TIME AS OF says its key with ON"),
        },
        _ => refused("FOR SYSTEM_TIME AS OF takes JOIN and LEFT JOIN"),
    }
}

/// What an ASOF join becomes.
fn matched(condition: &AstExpr, constraint: &JoinConstraint) -> Sql<JoinOperator> {
    let at = Position::of_span(condition.span());
    let wrong = || {
        SqlError::new("MATCH_CONDITION compares a time of the left side with one of the right side")
            .at(at)
            .help("write MATCH_CONDITION (l.rowtime >= r.rowtime)")
    };
    let mut inside = condition;
    while let AstExpr::Nested(expr) = inside {
        inside = expr;
    }
    let AstExpr::BinaryOp { left, op, right } = inside else { return Err(wrong()) };
    let kind = match op {
        BinaryOperator::GtEq => ">=",
        BinaryOperator::Gt => ">",
        BinaryOperator::LtEq => "<=",
        BinaryOperator::Lt => "<",
        _ => return Err(wrong()),
    };
    let on = match constraint {
        JoinConstraint::On(on) => on.clone(),
        JoinConstraint::None => AstExpr::Value(Value::Boolean(true).into()),
        JoinConstraint::Using(_) | JoinConstraint::Natural => {
            return Err(SqlError::not_yet("ASOF joins with USING or NATURAL", at).help("write ON"));
        }
    };
    let marked = marked(on, kind, at, vec![left.as_ref().clone(), right.as_ref().clone()]);
    Ok(JoinOperator::LeftOuter(JoinConstraint::On(marked)))
}

fn marked(rest: AstExpr, kind: &str, at: Option<Position>, args: Vec<AstExpr>) -> AstExpr {
    let at = at.map_or(String::new(), |at| format!("{}:{}", at.line, at.column));
    let args = std::iter::once(text(format!("{kind}@{at}"))).chain(args).collect();
    let rest = Box::new(AstExpr::Nested(Box::new(rest)));
    AstExpr::BinaryOp { left: rest, op: BinaryOperator::And, right: Box::new(call(MARK, args)) }
}

/// The mark of a planned join, if it has one.
pub(super) fn mark_of(join: &Join) -> Option<Mark> {
    let mut found = None;
    let mut rest = Vec::new();
    for conjunct in split_conjunction_owned(join.filter.clone()?) {
        match (read(&conjunct), &found) {
            (Some(mark), None) => found = Some(mark),
            _ => rest.push(conjunct),
        }
    }
    let is_true = |expr: &Expr| matches!(expr, Expr::Literal(value, _) if *value == true.into());
    rest.retain(|expr| !is_true(expr));
    found.map(|(kind, at)| Mark { kind, at, rest })
}

/// Whether `join` has a mark.
pub(super) fn is_marked(join: &Join) -> bool {
    mark_of(join).is_some()
}

fn read(expr: &Expr) -> Option<(MarkKind, Option<Position>)> {
    let Expr::ScalarFunction(function) = expr else { return None };
    if function.func.name() != MARK {
        return None;
    }
    let said = function.args.first()?.as_literal()?.try_as_str()??;
    let (kind, place) = said.split_once('@')?;
    let at = place
        .split_once(':')
        .and_then(|(line, column)| Some(Position { line: line.parse().ok()?, column: column.parse().ok()? }));
    let kind = match (kind, function.args.get(1..)?) {
        ("system time", [time]) => MarkKind::SystemTime(time.clone()),
        (op, [left, right]) => {
            let op = match op {
                ">=" => Operator::GtEq,
                ">" => Operator::Gt,
                "<=" => Operator::LtEq,
                _ => Operator::Lt,
            };
            MarkKind::Match { left: left.clone(), op, right: right.clone() }
        }
        _ => return None,
    };
    Some((kind, at))
}

/// The mark's function, which nobody evaluates.
pub(crate) fn mark_function() -> Arc<ScalarUDF> {
    static FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
        Arc::new(ScalarUDF::from(MarkFunction { signature: Signature::variadic_any(Volatility::Volatile) }))
    });
    Arc::clone(&FUNCTION)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct MarkFunction {
    signature: Signature,
}

impl ScalarUDFImpl for MarkFunction {
    fn name(&self) -> &str {
        MARK
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        internal_err!("a join as of a time was not planned")
    }
}
