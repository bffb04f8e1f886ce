//! Flink's meaning where DataFusion has another one for the same text: rewrites of the parsed query.
//!
//! | text | becomes |
//! |---|---|
//! | `SELECT a + 1` | `… AS EXPR$0`, Flink's name for an unnamed column |
//! | `SELECT r.f`, of a row | `… AS f` |
//! | `SELECT a, a` | `a, a AS a0` |
//! | `1e3` | a DOUBLE |
//! | `U&'\00fc'` | `'ü'` |
//! | `EXTRACT(f FROM t)` | a BIGINT; DOW counts from 1 on Sunday |
//! | `HOUR(t)`, `YEAR(t)`, `DAYOFWEEK(t)`, … | EXTRACT |
//! | `CONCAT(a, b)` | `a \|\| b`: null if one is |
//! | `MOD(a, b)` | `a % b` |
//! | `LOG(x)` | the natural logarithm |
//! | `` `Upper`(s) `` | `` `upper`(s) `` |
//! | `a[1].f` | `a[1].'f'`, DataFusion's form |
//! | `TO_TIMESTAMP(s)` | `TRY_CAST(s AS TIMESTAMP(3))` |
//! | `IF(c, a, b)` | CASE |
//! | `FETCH FIRST n ROWS ONLY` | LIMIT n |

use std::collections::HashSet;
use std::iter;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CaseWhen, CastKind, DataType, DateTimeField, ExactNumberInfo, Expr, ExtractSyntax,
    Fetch, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, LimitClause,
    ObjectName, ObjectNamePart, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, TimezoneInfo, Value,
    VisitMut, VisitorMut,
};

use crate::forms;

/// Gives `query` Flink's meaning.
pub(crate) fn rewrite_query(query: &mut Query) {
    part_names_of(&mut query.body);
    let _: ControlFlow<()> = query.visit(&mut FlinkMeaning);
}

fn part_names_of(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => part_names(&mut select.projection),
        SetExpr::SetOperation { left, right, .. } => {
            part_names_of(left);
            part_names_of(right);
        }
        _ => {}
    }
}

/// Gives columns of the same name different ones, as Flink does: `i`, `i0`, `i1`.
fn part_names(items: &mut [SelectItem]) {
    let mut names = HashSet::new();
    for item in items {
        let Some(name) = item_name(item) else { continue };
        let mut free = name.clone();
        let mut number = 0;
        while !names.insert(free.clone()) {
            free = format!("{name}{number}");
            number += 1;
        }
        if free == name {
            continue;
        }
        if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
            let expr = std::mem::replace(expr, null());
            *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('`', free) };
        }
    }
}

/// What a column of SELECT is called, if it has a name.
fn item_name(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => Some(name.value.clone()),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(path)) => path.last().map(|name| name.value.clone()),
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        _ => None,
    }
}

/// Gives `expr` Flink's meaning.
pub(crate) fn rewrite_expr(expr: &mut Expr) {
    let _: ControlFlow<()> = expr.visit(&mut FlinkMeaning);
}

struct FlinkMeaning;

impl VisitorMut for FlinkMeaning {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        fetch_as_limit(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let relations = relations(&select.from);
        for (index, item) in select.projection.iter_mut().enumerate() {
            name_item(index, item, relations.as_deref());
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Function(function) => name_without_case(function),
            Expr::CompoundFieldAccess { root, access_chain } => fields_by_name(root, access_chain),
            _ => {}
        }
        if let Some(form) = forms::rewrite_form(expr) {
            *expr = form;
        }
        let meaning = match expr {
            Expr::Value(value) => match &value.value {
                Value::Number(text, _) if text.contains(['e', 'E']) => Some(double(text)),
                Value::UnicodeStringLiteral(text) => Some(forms::text(text.clone())),
                _ => None,
            },
            Expr::Extract { field, .. } => {
                let field = field.clone();
                Some(bigint(&field, std::mem::replace(expr, null())))
            }
            Expr::Function(function) => rewrite_function(function),
            _ => None,
        };
        if let Some(meaning) = meaning {
            *expr = meaning;
        }
        ControlFlow::Continue(())
    }
}

/// A function's name has no case, in backticks either.
fn name_without_case(function: &mut Function) {
    if let [ObjectNamePart::Identifier(name)] = function.name.0.as_mut_slice()
        && name.quote_style.is_some()
    {
        name.value = name.value.to_lowercase();
    }
}

/// `a[1].b`: behind the first bracket, or behind what is no column, a point names a field; DataFusion wants a text there.
fn fields_by_name(root: &Expr, access_chain: &mut [AccessExpr]) {
    let is_path = matches!(root, Expr::Identifier(_));
    let is_name = |access: &AccessExpr| matches!(access, AccessExpr::Dot(Expr::Identifier(_)));
    let named = access_chain.iter_mut().skip_while(|access| is_path && is_name(access));
    for access in named {
        if let AccessExpr::Dot(expr) = access
            && let Expr::Identifier(name) = expr
        {
            *expr = Expr::Value(Value::SingleQuotedString(name.value.clone()).with_span(name.span));
        }
    }
}

/// FETCH says what LIMIT says, unless it has WITH TIES or PERCENT, or there is a LIMIT too.
fn fetch_as_limit(query: &mut Query) {
    let Some(Fetch { with_ties: false, percent: false, quantity }) = &query.fetch else { return };
    let one = || Expr::Value(Value::Number("1".to_owned(), false).into());
    let rows = Some(quantity.clone().unwrap_or_else(one));
    match &mut query.limit_clause {
        None => query.limit_clause = Some(LimitClause::LimitOffset { limit: rows, offset: None, limit_by: Vec::new() }),
        Some(LimitClause::LimitOffset { limit: limit @ None, .. }) => *limit = rows,
        Some(_) => return,
    }
    query.fetch = None;
}

/// An unnamed column is called EXPR$ and its place; a field of a row, by the field's name.
fn name_item(index: usize, item: &mut SelectItem, relations: Option<&[&str]>) {
    let SelectItem::UnnamedExpr(expr) = item else { return };
    let alias = match expr {
        Expr::Identifier(_) => return,
        Expr::CompoundIdentifier(parts) => match field_of(parts, relations) {
            Some(field) => field.value.clone(),
            None => return,
        },
        _ => format!("EXPR${index}"),
    };
    let expr = std::mem::replace(expr, null());
    *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('`', alias) };
}

/// The last of `parts`, if they name a row's field and not a relation's column.
fn field_of<'a>(parts: &'a [Ident], relations: Option<&[&str]>) -> Option<&'a Ident> {
    let (first, last) = (parts.first()?, parts.last()?);
    let is_column = parts.len() < 3 && relations.is_none_or(|names| names.contains(&first.value.as_str()));
    (!is_column).then_some(last)
}

/// What the relations of a FROM are called; `None` if one of them is no plain table and has no alias.
fn relations(from: &[TableWithJoins]) -> Option<Vec<&str>> {
    let all = from.iter().flat_map(|one| iter::once(&one.relation).chain(one.joins.iter().map(|join| &join.relation)));
    all.map(|relation| match relation {
        TableFactor::Table { alias: None, args: None, name, .. } => {
            name.0.last().and_then(|part| part.as_ident()).map(|ident| ident.value.as_str())
        }
        TableFactor::Table { alias, .. }
        | TableFactor::Derived { alias, .. }
        | TableFactor::TableFunction { alias, .. }
        | TableFactor::Function { alias, .. }
        | TableFactor::UNNEST { alias, .. } => alias.as_ref().map(|alias| alias.name.value.as_str()),
        _ => None,
    })
    .collect()
}

fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

fn cast(kind: CastKind, expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind, expr: Box::new(expr), data_type, array: false, format: None }
}

fn double(text: &str) -> Expr {
    let text = Expr::Value(Value::SingleQuotedString(text.to_owned()).into());
    cast(CastKind::Cast, text, DataType::Double(ExactNumberInfo::None))
}

/// EXTRACT gives a BIGINT; the days of a week count from 1 on Sunday.
fn bigint(field: &DateTimeField, extract: Expr) -> Expr {
    let wide = cast(CastKind::Cast, extract, DataType::BigInt(None));
    if !matches!(field, DateTimeField::Dow | DateTimeField::DayOfWeek) {
        return wide;
    }
    let one = Expr::Value(Value::Number("1".to_owned(), false).into());
    let sum = Expr::BinaryOp { left: Box::new(wide), op: BinaryOperator::Plus, right: Box::new(one) };
    Expr::Nested(Box::new(sum))
}

fn rewrite_function(function: &mut Function) -> Option<Expr> {
    let [name] = function.name.0.as_slice() else { return None };
    let name = name.as_ident()?.value.to_lowercase();
    let FunctionArguments::List(FunctionArgumentList { args, .. }) = &mut function.args else { return None };
    if let (Some(field), [argument]) = (extracted_field(&name), args.as_mut_slice()) {
        let field_used = if matches!(field, DateTimeField::DayOfWeek) { DateTimeField::Dow } else { field.clone() };
        let expr = Box::new(take(argument)?);
        return Some(bigint(&field, Expr::Extract { field: field_used, syntax: ExtractSyntax::From, expr }));
    }
    match (name.as_str(), args.as_mut_slice()) {
        ("concat", [first, rest @ ..]) if !rest.is_empty() => {
            let first = take(first)?;
            rest.iter_mut().try_fold(first, |left, right| Some(concatenated(left, take(right)?)))
        }
        ("mod", [left, right]) => Some(modulo(take(left)?, take(right)?)),
        ("log", [_]) => {
            function.name = ObjectName::from(vec![Ident::new("ln")]);
            None
        }
        ("to_timestamp", [text]) => {
            Some(cast(CastKind::TryCast, take(text)?, DataType::Timestamp(Some(3), TimezoneInfo::None)))
        }
        ("if", [condition, yes, no]) => {
            let when = CaseWhen { condition: take(condition)?, result: take(yes)? };
            let (case_token, end_token) = (AttachedToken::empty(), AttachedToken::empty());
            let else_result = Some(Box::new(take(no)?));
            Some(Expr::Case { case_token, end_token, operand: None, conditions: vec![when], else_result })
        }
        _ => None,
    }
}

fn concatenated(left: Expr, right: Expr) -> Expr {
    let sum = Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::StringConcat, right: Box::new(right) };
    Expr::Nested(Box::new(sum))
}

fn modulo(left: Expr, right: Expr) -> Expr {
    let nested = |expr| Box::new(Expr::Nested(Box::new(expr)));
    let rest = Expr::BinaryOp { left: nested(left), op: BinaryOperator::Modulo, right: nested(right) };
    Expr::Nested(Box::new(rest))
}

/// The argument's expression, if it is one.
fn take(argument: &mut FunctionArg) -> Option<Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(std::mem::replace(expr, null())),
        _ => None,
    }
}

fn extracted_field(function: &str) -> Option<DateTimeField> {
    Some(match function {
        "year" => DateTimeField::Year,
        "quarter" => DateTimeField::Quarter,
        "month" => DateTimeField::Month,
        "week" => DateTimeField::Week(None),
        "dayofyear" => DateTimeField::Doy,
        "dayofmonth" => DateTimeField::Day,
        "dayofweek" => DateTimeField::DayOfWeek,
        "hour" => DateTimeField::Hour,
        "minute" => DateTimeField::Minute,
        "second" => DateTimeField::Second,
        _ => return None,
    })
}

/// Whether `function` is one of those that are rewritten, so that it needs no implementation of its own.
pub(crate) fn is_rewritten(function: &str, arguments: usize) -> bool {
    let name = function.to_lowercase();
    match arguments {
        1 => extracted_field(&name).is_some() || name == "to_timestamp",
        2 => name == "mod" || name == "sha2",
        3 => name == "if",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::Statement;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;
    use crate::dialect::FlinkDialect;

    fn rewritten(text: &str) -> String {
        let mut statements = Parser::parse_sql(&FlinkDialect, text).unwrap();
        let Statement::Query(mut query) = statements.remove(0) else { panic!("{text}") };
        rewrite_query(&mut query);
        query.to_string()
    }

    #[test]
    fn text_gets_flinks_meaning() {
        let cases = [
            ("SELECT a, a + 1, t.b FROM t", "SELECT a, a + 1 AS `EXPR$1`, t.b FROM t"),
            ("SELECT a, t.a, b AS a FROM t", "SELECT a, t.a AS `a0`, b AS `a1` FROM t"),
            ("SELECT r.f, t.r.f FROM t", "SELECT r.f AS `f`, t.r.f AS `f0` FROM t"),
            ("SELECT r.f FROM (SELECT a FROM t)", "SELECT r.f FROM (SELECT a FROM t)"),
            ("SELECT s.a, r.f FROM t AS s", "SELECT s.a, r.f AS `f` FROM t AS s"),
            ("SELECT 1e3 AS x FROM t", "SELECT CAST('1e3' AS DOUBLE) AS x FROM t"),
            ("SELECT HOUR(t) AS h FROM t", "SELECT CAST(EXTRACT(HOUR FROM t) AS BIGINT) AS h FROM t"),
            ("SELECT DAYOFWEEK(t) AS d FROM t", "SELECT (CAST(EXTRACT(DOW FROM t) AS BIGINT) + 1) AS d FROM t"),
            ("SELECT CONCAT(a, b, c) AS x FROM t", "SELECT ((a || b) || c) AS x FROM t"),
            ("SELECT MOD(a, 2 + 1) AS x FROM t", "SELECT ((a) % (2 + 1)) AS x FROM t"),
            ("SELECT LOG(a) AS x, LOG(2, a) AS y FROM t", "SELECT ln(a) AS x, LOG(2, a) AS y FROM t"),
            ("SELECT SUBSTRING(a FROM 2 FOR 3) AS x FROM t", "SELECT `substring`(a, 2, 3) AS x FROM t"),
            ("SELECT FLOOR(t TO HOUR) AS x FROM t", "SELECT `floor_to`('HOUR', t) AS x FROM t"),
            ("SELECT CURRENT_DATE AS x FROM t", "SELECT `current_date`() AS x FROM t"),
            ("SELECT TIMESTAMPADD(day, 1, t) AS x FROM t", "SELECT TIMESTAMPADD('DAY', 1, t) AS x FROM t"),
            ("SELECT a NOT SIMILAR TO 'b' AS x FROM t", "SELECT NOT `similar_to`(a, 'b') AS x FROM t"),
            ("SELECT TO_TIMESTAMP(a) AS x FROM t", "SELECT TRY_CAST(a AS TIMESTAMP(3)) AS x FROM t"),
            ("SELECT a FROM t OFFSET 2 ROWS FETCH FIRST 3 ROWS ONLY", "SELECT a FROM t LIMIT 3 OFFSET 2 ROWS"),
            ("SELECT `Upper`(a) AS x FROM t", "SELECT `upper`(a) AS x FROM t"),
            ("SELECT t.a[1].b AS x, r.a.b AS y FROM t", "SELECT t.a[1].'b' AS x, r.a.b AS y FROM t"),
            ("SELECT f(a).b AS x FROM t", "SELECT f(a).'b' AS x FROM t"),
            ("SELECT IF(a, b, c) AS x FROM t", "SELECT CASE WHEN a THEN b ELSE c END AS x FROM t"),
        ];
        for (text, expected) in cases {
            assert_eq!(rewritten(text), expected, "{text}");
        }
    }
}
