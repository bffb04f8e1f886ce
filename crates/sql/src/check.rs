//! Refuses, in a parsed query, what Flink has and Ruslo doesn't so far: each in one sentence with its place.
//!
//! The syntax tree says what is there; where its spans are empty, the first token of the feature's name says where.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Distinct, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArguments, GroupByExpr, Interval, Join, JoinConstraint, JoinOperator, NamedWindowDefinition,
    NamedWindowExpr, NullTreatment, Query, Select, SelectItem, SetExpr, SetOperator, SetQuantifier, Spanned,
    TableFactor, TableVersion, Value, Visit, Visitor, WindowType,
};
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;

use crate::cursor::find_keyword;
use crate::diagnostic::{Position, SqlError};
use crate::flink;
use crate::functions::Functions;
use crate::interval;
use crate::nested;
use crate::settings::RuntimeMode;
use crate::unnest::{is_unnest, is_unnest_join};

type Flow = ControlFlow<SqlError>;

/// Refuses what is not supported in `query`, whose text is `tokens`.
pub(crate) fn check_query(
    query: &Query,
    tokens: &[TokenWithSpan],
    functions: &Functions,
    mode: RuntimeMode,
) -> Result<(), SqlError> {
    finish(query.visit(&mut Check { tokens, functions, mode, is_outermost: true, is_lateral: false }))
}

/// Refuses what is not supported in an expression of a table's definition: also aggregates.
pub(crate) fn check_expr(expr: &Expr, tokens: &[TokenWithSpan], functions: &Functions) -> Result<(), SqlError> {
    finish(expr.visit(&mut Check {
        tokens,
        functions,
        mode: RuntimeMode::Streaming,
        is_outermost: false,
        is_lateral: false,
    }))?;
    finish(expr.visit(&mut NoAggregates { functions }))?;
    finish(expr.visit(&mut NoQueries))
}

fn finish(flow: Flow) -> Result<(), SqlError> {
    match flow {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Refuses subqueries.
struct NoQueries;

impl Visitor for NoQueries {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        ControlFlow::Break(SqlError::not_yet("subqueries in expressions", Position::of_span(query.span())))
    }
}

struct Check<'a> {
    tokens: &'a [TokenWithSpan],
    functions: &'a Functions,
    mode: RuntimeMode,
    /// Whether the next query is the outermost one.
    is_outermost: bool,
    /// Whether the next query is a LATERAL one.
    is_lateral: bool,
}

impl Check<'_> {
    /// Refuses `what` if it is `there`, at the word `keyword`.
    fn refuse(&self, there: bool, what: &str, keyword: &str) -> Result<(), SqlError> {
        if there { Err(SqlError::not_yet(what, find_keyword(self.tokens, keyword))) } else { Ok(()) }
    }

    /// Refuses on a stream what needs the end of its input.
    fn only_in_batch(&self, there: bool, what: &str, keyword: &str) -> Result<(), SqlError> {
        if self.mode == RuntimeMode::Batch {
            return Ok(());
        }
        let help = "over bounded tables, SET 'execution.runtime-mode' = 'batch' before the query";
        self.refuse(there, what, keyword).map_err(|error| error.help(help))
    }

    fn query(&self, query: &Query) -> Result<(), SqlError> {
        self.refuse(query.with.as_ref().is_some_and(|with| with.recursive), "recursive queries", "RECURSIVE")?;
        self.set(&query.body)?;
        // The outermost one is looked at when columns are known: see `sort`.
        let is_bounded = self.is_lateral && query.limit_clause.is_some();
        let inner = query.order_by.is_some() && !self.is_outermost && !is_bounded;
        self.only_in_batch(inner, "ORDER BY clauses", "ORDER")?;
        let limit = if find_keyword(self.tokens, "LIMIT").is_some() { "LIMIT" } else { "OFFSET" };
        self.only_in_batch(query.limit_clause.is_some() && !is_bounded, &format!("{limit} clauses"), limit)?;
        self.only_in_batch(query.fetch.is_some(), "FETCH clauses", "FETCH")?;
        let odd = query.fetch.as_ref().is_some_and(|fetch| fetch.with_ties || fetch.percent);
        self.refuse(odd, "FETCH clauses with TIES or PERCENT", "FETCH")?;
        let rest = !query.locks.is_empty() || query.for_clause.is_some() || query.settings.is_some();
        self.refuse(rest || query.format_clause.is_some(), "FOR and FORMAT clauses", "FOR")?;
        self.refuse(!query.pipe_operators.is_empty(), "pipe operators", "SELECT")
    }

    fn set(&self, body: &SetExpr) -> Result<(), SqlError> {
        let (what, keyword) = match body {
            SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => return Ok(()),
            SetExpr::SetOperation {
                op: SetOperator::Union,
                set_quantifier: SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None,
                left,
                right,
            } => {
                return self.set(left).and_then(|()| self.set(right));
            }
            SetExpr::SetOperation {
                op: SetOperator::Intersect | SetOperator::Except,
                set_quantifier: SetQuantifier::All | SetQuantifier::Distinct | SetQuantifier::None,
                left,
                right,
            } => {
                return self.set(left).and_then(|()| self.set(right));
            }
            SetExpr::SetOperation { op: SetOperator::Union, .. } => ("UNION queries by name", "UNION"),
            SetExpr::SetOperation { op: SetOperator::Intersect, .. } => ("INTERSECT queries by name", "INTERSECT"),
            SetExpr::SetOperation { .. } => ("EXCEPT queries by name", "EXCEPT"),
            SetExpr::Table(_) => ("TABLE queries", "TABLE"),
            _ => ("queries that change data", "SELECT"),
        };
        self.refuse(true, what, keyword)
    }

    fn select(&self, select: &Select) -> Result<(), SqlError> {
        let on = matches!(&select.distinct, Some(Distinct::On(_)));
        self.refuse(on, "SELECT DISTINCT ON queries", "DISTINCT")?;
        select.from.iter().flat_map(|from| &from.joins).try_for_each(|join| self.join(join))?;
        select.named_window.iter().try_for_each(|window| self.named_window(window))?;
        self.refuse(select.top.is_some(), "TOP clauses", "TOP")?;
        self.refuse(select.into.is_some(), "SELECT INTO statements", "INTO")?;
        self.refuse(!select.lateral_views.is_empty(), "LATERAL VIEW clauses", "LATERAL")?;
        let sorted = !select.sort_by.is_empty() || !select.cluster_by.is_empty() || !select.distribute_by.is_empty();
        self.refuse(sorted || !select.connect_by.is_empty(), "SORT, CLUSTER and CONNECT BY clauses", "BY")?;
        self.group_by(&select.group_by)?;
        select.projection.iter().try_for_each(|item| self.item(item))
    }

    fn join(&self, join: &Join) -> Result<(), SqlError> {
        use JoinOperator::{
            Anti, ArrayJoin, AsOf, CrossApply, CrossJoin, FullOuter, Inner, InnerArrayJoin, Left, LeftAnti,
            LeftArrayJoin, LeftOuter, LeftSemi, OuterApply, Right, RightAnti, RightOuter, RightSemi, Semi,
            StraightJoin,
        };
        if is_unnest_join(join) {
            return Ok(());
        }
        let (on, pads_left) = match &join.join_operator {
            JoinOperator::Join(on) | Inner(on) | Left(on) | LeftOuter(on) | CrossJoin(on) => (on, false),
            Semi(on) | LeftSemi(on) | Anti(on) | LeftAnti(on) => (on, false),
            Right(on) | RightOuter(on) | FullOuter(on) => (on, true),
            RightSemi(_) | RightAnti(_) => return self.refuse(true, "RIGHT SEMI and RIGHT ANTI joins", "RIGHT"),
            CrossApply | OuterApply => return self.refuse(true, "APPLY joins", "APPLY"),
            // What it compares is looked at when columns are known.
            AsOf { .. } => return Ok(()),
            StraightJoin(_) => return self.refuse(true, "STRAIGHT_JOIN joins", "STRAIGHT_JOIN"),
            ArrayJoin | LeftArrayJoin | InnerArrayJoin => return self.refuse(true, "ARRAY joins", "ARRAY"),
        };
        let keyword = match on {
            JoinConstraint::Using(_) => "USING",
            JoinConstraint::Natural => "NATURAL",
            JoinConstraint::On(_) | JoinConstraint::None => return Ok(()),
        };
        let what = format!("RIGHT and FULL joins with {keyword}");
        self.refuse(pads_left, &what, keyword)
            .map_err(|error| error.help("write ON, and COALESCE(a.k, b.k) for the key"))
    }

    fn group_by(&self, group_by: &GroupByExpr) -> Result<(), SqlError> {
        let GroupByExpr::Expressions(exprs, modifiers) = group_by else {
            return self.refuse(true, "GROUP BY ALL clauses", "GROUP");
        };
        self.refuse(!modifiers.is_empty(), "GROUP BY .. WITH clauses", "GROUP")?;
        for expr in exprs {
            if let Expr::Value(value) = expr {
                let sentence = format!("GROUP BY {} is a constant, not a column", value.value);
                return Err(SqlError::new(sentence).at(Position::of_span(value.span)).help("name the column"));
            }
        }
        Ok(())
    }

    fn item(&self, item: &SelectItem) -> Result<(), SqlError> {
        match item {
            SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) => {
                let changed = options.opt_except.is_some()
                    || options.opt_exclude.is_some()
                    || options.opt_replace.is_some()
                    || options.opt_rename.is_some()
                    || options.opt_ilike.is_some();
                self.refuse(changed, "changes to a '*'", "SELECT")
            }
            _ => Ok(()),
        }
    }

    fn table(&self, table: &TableFactor) -> Result<(), SqlError> {
        match table {
            unnest if is_unnest(unnest) => Ok(()),
            TableFactor::Table { args: Some(_), name, .. } => {
                let at = Position::of_span(name.span());
                Err(SqlError::not_yet(format!("table functions such as '{name}'"), at))
            }
            TableFactor::Table { version, sample, with_hints, index_hints, partitions, json_path, .. } => {
                let is_other = version.as_ref().is_some_and(|of| !matches!(of, TableVersion::ForSystemTimeAsOf(_)));
                self.refuse(is_other, "table versions but FOR SYSTEM_TIME AS OF", "AS")?;
                self.refuse(sample.is_some(), "TABLESAMPLE clauses", "TABLESAMPLE")?;
                let hints = !with_hints.is_empty() || !index_hints.is_empty() || !partitions.is_empty();
                self.refuse(hints || json_path.is_some(), "table hints", "FROM")
            }
            TableFactor::Derived { sample, .. } => self.refuse(sample.is_some(), "TABLESAMPLE clauses", "TABLESAMPLE"),
            TableFactor::NestedJoin { table_with_joins, .. } => {
                table_with_joins.joins.iter().try_for_each(|join| self.join(join))
            }
            TableFactor::UNNEST { .. } => self.refuse(true, "UNNEST tables", "UNNEST"),
            TableFactor::MatchRecognize { .. } => self.refuse(true, "MATCH_RECOGNIZE clauses", "MATCH_RECOGNIZE"),
            TableFactor::Pivot { .. } => self.refuse(true, "PIVOT clauses", "PIVOT"),
            TableFactor::Unpivot { .. } => self.refuse(true, "UNPIVOT clauses", "UNPIVOT"),
            other => {
                let at = Position::of_span(other.span()).or_else(|| find_keyword(self.tokens, "FROM"));
                Err(SqlError::not_yet("table functions", at))
            }
        }
    }

    fn expr(&self, expr: &Expr) -> Result<(), SqlError> {
        match expr {
            Expr::Function(function) => self.function(function),
            Expr::Interval(interval) => self.interval(interval),
            Expr::AnyOp { .. } | Expr::AllOp { .. } => self.refuse(true, "ANY and ALL comparisons", "ANY"),
            Expr::AtTimeZone { .. } => self.refuse(true, "AT TIME ZONE conversions", "AT"),
            Expr::Collate { .. } => self.refuse(true, "COLLATE clauses", "COLLATE"),
            Expr::Value(value) => self.value(&value.value, Position::of_span(value.span)),
            Expr::BinaryOp { op: BinaryOperator::DoubleHash | BinaryOperator::AtAt, .. } => {
                Err(SqlError::new("this operator is not SQL"))
            }
            _ => Ok(()),
        }
    }

    fn value(&self, value: &Value, at: Option<Position>) -> Result<(), SqlError> {
        match value {
            Value::Placeholder(name) => {
                Err(SqlError::new(format!("the placeholder '{name}' has no value in a script")).at(at))
            }
            _ => Ok(()),
        }
    }

    fn function(&self, function: &Function) -> Result<(), SqlError> {
        let at = Position::of_span(function.name.span());
        let name = function.name.to_string().replace('`', "");
        if let Some(over) = &function.over {
            return self.over(function, &name, over, at);
        }
        let arguments = match &function.args {
            FunctionArguments::List(list) => list.args.as_slice(),
            FunctionArguments::None => &[],
            FunctionArguments::Subquery(_) => return Err(SqlError::not_yet("subqueries in expressions", at)),
        };
        if flink::is_rewritten(&name, arguments.len()) || nested::is_literal(&name) {
            return Ok(());
        }
        self.functions.check(&name, at)?;
        if self.functions.is_aggregate(&name) { check_aggregate(function, &name, at, self.functions) } else { Ok(()) }
    }

    /// Windows of a WINDOW clause say all of themselves.
    fn named_window(&self, window: &NamedWindowDefinition) -> Result<(), SqlError> {
        let NamedWindowDefinition(name, NamedWindowExpr::WindowSpec(spec)) = window else {
            return self.refuse(true, "windows by another window's name", "WINDOW");
        };
        self.refuse(spec.window_name.is_some(), "windows that add to another window", "WINDOW")?;
        if spec.order_by.is_empty() && self.mode != RuntimeMode::Batch {
            let at = find_keyword(self.tokens, "WINDOW");
            return Err(SqlError::new(format!("the window '{name}' needs an ORDER BY")).at(at));
        }
        Ok(())
    }

    /// Functions over other rows.
    fn over(&self, function: &Function, name: &str, over: &WindowType, at: Option<Position>) -> Result<(), SqlError> {
        let upper = name.to_uppercase();
        if matches!(upper.as_str(), "RANK" | "DENSE_RANK") {
            return Err(SqlError::not_yet(format!("{upper}() calls"), at)
                .help("ROW_NUMBER() numbers equal rows one after the other"));
        }
        let place = find_keyword(self.tokens, "OVER").or(at);
        if upper == "LEAD" {
            let sentence = "LEAD looks at rows that have not come; LAG looks at those before";
            return Err(SqlError::new(sentence).at(at));
        }
        let WindowType::WindowSpec(spec) = over else { return check_over(function, &upper, at) };
        if upper != "ROW_NUMBER" {
            self.refuse(spec.window_name.is_some(), "windows that add to another window", "OVER")?;
            return check_over(function, &upper, at);
        }
        if spec.window_name.is_some() || spec.window_frame.is_some() {
            return Err(SqlError::new("ROW_NUMBER() takes PARTITION BY and ORDER BY, and nothing else").at(place));
        }
        if spec.order_by.is_empty() {
            let help = "write ROW_NUMBER() OVER (PARTITION BY window_start, window_end ORDER BY ..)";
            return Err(SqlError::new("ROW_NUMBER() needs an ORDER BY").at(place).help(help));
        }
        Ok(())
    }

    fn interval(&self, literal: &Interval) -> Result<(), SqlError> {
        let at = Position::of_span(literal.value.span()).or_else(|| find_keyword(self.tokens, "INTERVAL"));
        let text = literal.value.to_string();
        let compound = text.contains(':') || text.trim_matches('\'').trim().contains(' ');
        if literal.last_field.is_some() || compound {
            return Err(interval::compound().at(at));
        }
        let unit = literal.leading_field.as_ref().map(ToString::to_string).unwrap_or_default();
        if !interval::UNITS.contains(&unit.trim_end_matches('S')) {
            let sentence = format!("an interval needs a unit: {}", interval::UNITS.join(", "));
            return Err(SqlError::new(sentence).at(at).help("write INTERVAL '5' MINUTE"));
        }
        Ok(())
    }
}

/// Which functions there are over frames, and how they may be called.
fn check_over(function: &Function, name: &str, at: Option<Position>) -> Result<(), SqlError> {
    let known = ["ROW_NUMBER", "COUNT", "SUM", "AVG", "MIN", "MAX", "FIRST_VALUE", "LAST_VALUE", "LAG"];
    if !known.contains(&name) {
        let help = format!("over a frame there are {}", known.join(", "));
        return Err(SqlError::not_yet(format!("{name}() calls with OVER"), at).help(help));
    }
    let refuse = |what: &str| Err(SqlError::not_yet(format!("{name}() calls with OVER and {what}"), at));
    if function.filter.is_some() {
        return refuse("FILTER");
    }
    let mut nulls = function.null_treatment;
    if let FunctionArguments::List(list) = &function.args {
        if list.duplicate_treatment == Some(DuplicateTreatment::Distinct) {
            return refuse("DISTINCT");
        }
        for clause in &list.clauses {
            match clause {
                FunctionArgumentClause::IgnoreOrRespectNulls(treatment) => nulls = Some(*treatment),
                _ => return refuse("clauses inside"),
            }
        }
    }
    check_nulls(name, nulls, at)
}

fn check_aggregate(
    function: &Function,
    name: &str,
    at: Option<Position>,
    functions: &Functions,
) -> Result<(), SqlError> {
    let is_ordered = functions.is_ordered(name);
    let name = name.to_uppercase();
    let refuse = |what: &str| Err(SqlError::not_yet(format!("{name} aggregates with {what}"), at));
    if !function.within_group.is_empty() {
        return refuse("WITHIN GROUP");
    }
    let FunctionArguments::List(list) = &function.args else { return Ok(()) };
    let mut nulls = function.null_treatment;
    for clause in &list.clauses {
        match clause {
            FunctionArgumentClause::OrderBy(_) if is_ordered => {}
            FunctionArgumentClause::OrderBy(_) => {
                let sentence = format!("{name} does not depend on an order; leave ORDER BY out");
                return Err(SqlError::new(sentence).at(at));
            }
            FunctionArgumentClause::IgnoreOrRespectNulls(treatment) => nulls = Some(*treatment),
            _ => return refuse("LIMIT, HAVING and other clauses inside"),
        }
    }
    check_nulls(&name, nulls, at)?;
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)] if name != "COUNT" => {
            Err(SqlError::new(format!("{name}(*) is not an aggregate; {name} takes a column")).at(at))
        }
        [_] => Ok(()),
        _ if matches!(name.as_str(), "COUNT" | "SUM" | "AVG" | "MEAN" | "MIN" | "MAX") => {
            Err(SqlError::new(format!("{name} takes one column")).at(at))
        }
        _ => Ok(()),
    }
}

/// FIRST_VALUE and LAST_VALUE ignore NULLs, as Flink's do; ARRAY_AGG keeps them; others have no choice.
fn check_nulls(name: &str, treatment: Option<NullTreatment>, at: Option<Position>) -> Result<(), SqlError> {
    let fits = match treatment {
        None => true,
        Some(NullTreatment::IgnoreNulls) => matches!(name, "FIRST_VALUE" | "LAST_VALUE"),
        Some(NullTreatment::RespectNulls) => name == "ARRAY_AGG",
    };
    match treatment {
        Some(treatment) if !fits => Err(SqlError::not_yet(format!("{name} aggregates with {treatment}"), at)
            .help("filter NULLs with FILTER (WHERE x IS NOT NULL)")),
        _ => Ok(()),
    }
}

impl Visitor for Check<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        let checked = self.query(query);
        (self.is_outermost, self.is_lateral) = (false, false);
        flow(checked)
    }

    fn pre_visit_select(&mut self, select: &Select) -> Flow {
        flow(self.select(select))
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> Flow {
        self.is_lateral = matches!(table, TableFactor::Derived { lateral: true, .. });
        flow(self.table(table))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Flow {
        flow(self.expr(expr))
    }
}

fn flow(result: Result<(), SqlError>) -> Flow {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

struct NoAggregates<'a> {
    functions: &'a Functions,
}

impl Visitor for NoAggregates<'_> {
    type Break = SqlError;

    fn pre_visit_expr(&mut self, expr: &Expr) -> Flow {
        match expr {
            Expr::Function(function) if self.functions.is_aggregate(&function.name.to_string().replace('`', "")) => {
                let sentence = format!("{} is an aggregate; a column's expression sees one row", function.name);
                ControlFlow::Break(SqlError::new(sentence).at(Position::of_span(function.name.span())))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}
