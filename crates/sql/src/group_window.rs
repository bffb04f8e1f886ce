//! The older windows: `GROUP BY TUMBLE(ts, INTERVAL '1' HOUR)`, with `TUMBLE_START(ts, INTERVAL '1' HOUR)` and its like.
//!
//! They are the same windows under another syntax, so the parsed query is rewritten:
//!
//! | text | becomes |
//! |---|---|
//! | `FROM t` | the window function's placeholder, over `t` |
//! | `GROUP BY TUMBLE(ts, size)`, `HOP(ts, slide, size)`, `SESSION(ts, gap)` | `window_start, window_end, window_time` |
//! | `TUMBLE_START`, `_END`, `_ROWTIME` of the same arguments | `window_start`, `window_end`, `window_time` |

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, Query, Select, SelectItem,
    SetExpr, Spanned, TableFactor, VisitMut, VisitorMut, visit_expressions_mut,
};
use datafusion::sql::sqlparser::parser::Parser;

use crate::cursor::At;
use crate::diagnostic::{Position, Sql, SqlError};
use crate::dialect::FlinkDialect;
use crate::interval;
use crate::planner::table_named;
use crate::tvf::{WindowCall, WindowInput, check_multiple, positive};
use crate::window_spec::WindowSpec;

/// The functions that GROUP BY takes.
const KINDS: [&str; 3] = ["TUMBLE", "HOP", "SESSION"];

/// What is told of a window, and the column that it is.
const PARTS: [(&str, &str); 3] = [("START", "window_start"), ("END", "window_end"), ("ROWTIME", "window_time")];

/// Rewrites the group windows of `query`, and of what `calls` read, into calls of window functions, behind `calls`.
pub(crate) fn rewrite(query: &mut Query, calls: &mut Vec<WindowCall>) -> Sql<()> {
    visit(query, calls)?;
    let mut index = 0;
    while let Some(call) = calls.get_mut(index) {
        if let WindowInput::Relation(relation) = &mut call.input {
            let mut relation = relation.clone();
            visit(relation.as_mut(), calls)?;
            if let Some(call) = calls.get_mut(index) {
                call.input = WindowInput::Relation(relation);
            }
        }
        index += 1;
    }
    Ok(())
}

fn visit(node: &mut impl VisitMut, calls: &mut Vec<WindowCall>) -> Sql<()> {
    match node.visit(&mut GroupWindows { calls }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Whether `function` is one of a group window: it needs no implementation.
pub(crate) fn is_part(function: &str) -> bool {
    let upper = function.to_uppercase();
    KINDS.contains(&upper.as_str()) || part_of(&upper).is_some()
}

/// Why `function` cannot be called where it stands, if it is one of a group window.
fn misplaced(function: &Function) -> Option<SqlError> {
    let upper = upper_name(function);
    let at = Position::of_span(function.name.span());
    if KINDS.contains(&upper.as_str()) {
        let sentence = format!("{upper}(..) stands in GROUP BY, or behind FROM as TABLE({upper}(TABLE t, ..))");
        return Some(SqlError::new(sentence).at(at));
    }
    let (kind, _) = part_of(&upper)?;
    let sentence = format!("{upper}(..) needs a GROUP BY {kind}(..) in the same SELECT");
    Some(SqlError::new(sentence).at(at))
}

/// The kind and the part that `TUMBLE_START` and its like name.
fn part_of(upper: &str) -> Option<(&str, &str)> {
    let (kind, part) = upper.split_once('_')?;
    let is_part = part == "PROCTIME" || PARTS.iter().any(|(name, _)| *name == part);
    (KINDS.contains(&kind) && is_part).then_some((kind, part))
}

struct GroupWindows<'a> {
    calls: &'a mut Vec<WindowCall>,
}

impl VisitorMut for GroupWindows<'_> {
    type Break = SqlError;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<SqlError> {
        match self.select(select) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }

    /// What is left of them when the SELECT around was rewritten is out of place.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        misplaced(function).map_or(ControlFlow::Continue(()), ControlFlow::Break)
    }
}

impl GroupWindows<'_> {
    fn select(&mut self, select: &mut Select) -> Sql<()> {
        let GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return Ok(()) };
        let mut windows = groups.iter().enumerate().filter_map(|(place, group)| Some((place, window_of(group)?)));
        let Some((place, function)) = windows.next() else { return Ok(()) };
        let at = Position::of_span(function.name.span());
        if windows.next().is_some() {
            return Err(SqlError::new("a GROUP BY has one window").at(at));
        }
        let window = GroupWindow::read(function)?;
        let [from] = select.from.as_mut_slice() else {
            return Err(SqlError::not_yet("joins", at));
        };
        if !from.joins.is_empty() {
            return Err(SqlError::not_yet("joins", at));
        }
        let is_session = matches!(window.window, WindowSpec::Session { .. });
        let partition = if is_session { partition_of(groups, place)? } else { Vec::new() };
        let columns = PARTS.map(|(_, column)| Expr::Identifier(Ident::with_quote('`', column)));
        groups.splice(place..=place, columns);

        let placeholder = format!("$group_window{}", self.calls.len());
        let relation = std::mem::replace(&mut from.relation, table_named(Ident::with_quote('`', placeholder.clone())));
        select.projection.iter_mut().try_for_each(|item| window.tell_item(item))?;
        select.having.iter_mut().try_for_each(|having| window.tell(having))?;
        // WHERE stands before the window: it matters to sessions which rows they are of.
        let filter = if is_session { select.selection.take() } else { None };
        let relation = match filter {
            Some(filter) => filtered(relation, filter)?,
            None => relation,
        };
        self.calls.push(window.into_call(placeholder, relation, partition, at));
        Ok(())
    }
}

/// The keys of GROUP BY beside the window, which its sessions are of.
fn partition_of(groups: &[Expr], window: usize) -> Sql<Vec<At<String>>> {
    let keys = groups.iter().enumerate().filter(|(place, _)| *place != window);
    keys.map(|(_, key)| {
        column_of(key).ok_or_else(|| {
            let at = Position::of_span(key.span());
            SqlError::not_yet("computed keys beside SESSION in GROUP BY", at).help("compute them in a view below")
        })
    })
    .collect()
}

/// `relation` without the rows that `filter` drops, under the name that it has.
fn filtered(relation: TableFactor, filter: Expr) -> Sql<TableFactor> {
    let name = match &relation {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(alias.name.clone())
        }
        TableFactor::Table { name, .. } => name.0.last().and_then(|name| name.as_ident()).cloned(),
        _ => None,
    };
    let name = name.unwrap_or_else(|| Ident::with_quote('`', "$filtered"));
    let template = format!("(SELECT * FROM t WHERE TRUE) AS {name}");
    let parsed = Parser::new(&FlinkDialect).try_with_sql(&template).and_then(|mut parser| parser.parse_table_factor());
    let mut parsed = parsed.map_err(|error| SqlError::internal(format!("'{template}' is no table: {error}")))?;
    if let TableFactor::Derived { subquery, .. } = &mut parsed
        && let SetExpr::Select(select) = subquery.body.as_mut()
        && let [from] = select.from.as_mut_slice()
    {
        from.relation = relation;
        select.selection = Some(filter);
    }
    Ok(parsed)
}

/// The window function that an expression of GROUP BY is.
fn window_of(group: &Expr) -> Option<&Function> {
    match group {
        Expr::Function(function) => KINDS.contains(&upper_name(function).as_str()).then_some(function),
        _ => None,
    }
}

fn upper_name(function: &Function) -> String {
    function.name.to_string().to_uppercase()
}

/// A window function of GROUP BY.
struct GroupWindow {
    kind: String,
    /// Its arguments as text: `TUMBLE_START` must have the same ones.
    arguments: String,
    time: At<String>,
    window: WindowSpec,
}

impl GroupWindow {
    fn read(function: &Function) -> Sql<Self> {
        let kind = upper_name(function);
        let at = Position::of_span(function.name.span());
        let arguments = expressions(function);
        let (time, lengths) = arguments.split_first().map_or((None, &[][..]), |(time, rest)| (Some(time), rest));
        let time = time.and_then(|time| column_of(time)).ok_or_else(|| {
            SqlError::new(format!("{kind} in GROUP BY begins with a time column")).at(at).help(example(&kind))
        })?;
        let lengths = lengths.iter().map(|length| interval_of(length)).collect::<Sql<Vec<_>>>()?;
        let window = match (kind.as_str(), lengths.as_slice()) {
            ("TUMBLE", [size]) => WindowSpec::Tumble { size_ms: positive("size", size)?, offset_ms: 0 },
            ("HOP", [slide, size]) => {
                let (slide_ms, size_ms) = (positive("slide", slide)?, positive("size", size)?);
                check_multiple(("size", size), ("slide", slide))?;
                WindowSpec::Hop { slide_ms, size_ms, offset_ms: 0 }
            }
            ("SESSION", [gap]) => WindowSpec::Session { gap_ms: positive("gap", gap)? },
            _ => {
                let sentence = format!("{kind} in GROUP BY has other arguments");
                return Err(SqlError::new(sentence).at(at).help(example(&kind)));
            }
        };
        Ok(Self { kind, arguments: text_of(&arguments), time, window })
    }

    /// Puts the window's columns in place of what asks for them in a column of SELECT.
    fn tell_item(&self, item: &mut SelectItem) -> Sql<()> {
        match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => self.tell(expr),
            _ => Ok(()),
        }
    }

    fn tell(&self, expr: &mut Expr) -> Sql<()> {
        let flow = visit_expressions_mut(expr, |expr| match self.column_for(expr) {
            Ok(Some(column)) => {
                *expr = Expr::Identifier(Ident::with_quote('`', column));
                ControlFlow::Continue(())
            }
            Ok(None) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        });
        match flow {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    /// The window's column that `expr` asks for.
    fn column_for(&self, expr: &Expr) -> Sql<Option<&'static str>> {
        let Expr::Function(function) = expr else { return Ok(None) };
        let name = upper_name(function);
        let Some((kind, part)) = part_of(&name) else { return Ok(None) };
        let at = Position::of_span(function.name.span());
        if kind != self.kind || text_of(&expressions(function)) != self.arguments {
            let sentence = format!("{name} must have the arguments of the window: {}({})", self.kind, self.arguments);
            return Err(SqlError::new(sentence).at(at));
        }
        match PARTS.iter().find(|(known, _)| *known == part) {
            Some((_, column)) => Ok(Some(column)),
            None => Err(SqlError::not_yet(format!("{name} calls"), at)),
        }
    }

    fn into_call(
        self,
        placeholder: String,
        relation: TableFactor,
        partition: Vec<At<String>>,
        at: Option<Position>,
    ) -> WindowCall {
        WindowCall {
            placeholder,
            input: WindowInput::Relation(Box::new(relation)),
            partition,
            at: at.unwrap_or(self.time.at),
            time: self.time,
            window: self.window,
        }
    }
}

fn example(kind: &str) -> &'static str {
    match kind {
        "TUMBLE" => "write TUMBLE(ts, INTERVAL '1' HOUR)",
        "HOP" => "write HOP(ts, INTERVAL '15' MINUTE, INTERVAL '1' HOUR): first the slide, then the size",
        _ => "write SESSION(ts, INTERVAL '5' MINUTE)",
    }
}

/// The arguments of a call that are expressions.
fn expressions(function: &Function) -> Vec<&Expr> {
    let FunctionArguments::List(list) = &function.args else { return Vec::new() };
    list.args.iter().filter_map(expression).collect()
}

fn expression(argument: &FunctionArg) -> Option<&Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}

fn text_of(arguments: &[&Expr]) -> String {
    arguments.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The name of the column that `expr` is.
fn column_of(expr: &Expr) -> Option<At<String>> {
    let name = match expr {
        Expr::Identifier(name) => name,
        Expr::CompoundIdentifier(path) => path.last()?,
        _ => return None,
    };
    Some(At::new(name.value.clone(), Position::of_span(name.span)?))
}

/// The length of `INTERVAL '5' MINUTE`.
fn interval_of(expr: &Expr) -> Sql<At<i64>> {
    let at = Position::of_span(expr.span()).unwrap_or(Position { line: 1, column: 1 });
    let expected = || SqlError::new("expected an interval such as INTERVAL '5' MINUTE").at(at);
    let Expr::Interval(literal) = expr else { return Err(expected()) };
    if literal.last_field.is_some() {
        return Err(interval::compound().at(at));
    }
    let (Expr::Value(value), Some(unit)) = (literal.value.as_ref(), &literal.leading_field) else {
        return Err(expected());
    };
    let number = value.value.clone().into_string().ok_or_else(expected)?;
    let millis = interval::of_literal(&number, &unit.to_string()).map_err(|error| error.at(at))?;
    Ok(At::new(millis, at))
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::Statement;

    use super::*;

    fn rewritten(text: &str) -> Sql<(String, Vec<WindowCall>)> {
        let mut statements = Parser::parse_sql(&FlinkDialect, text).unwrap();
        let Statement::Query(mut query) = statements.remove(0) else { panic!("{text}") };
        let mut calls = Vec::new();
        rewrite(&mut query, &mut calls)?;
        Ok((query.to_string(), calls))
    }

    #[test]
    fn a_group_window_becomes_a_window_function() {
        let text = "SELECT k, TUMBLE_START(ts, INTERVAL '1' HOUR) AS s, TUMBLE_ROWTIME(ts, INTERVAL '1' HOUR), \
                    COUNT(*) AS n FROM t AS a WHERE x > 1 GROUP BY k, TUMBLE(ts, INTERVAL '1' HOUR) \
                    HAVING tumble_end(ts, INTERVAL '1' HOUR) > y";
        let (found, calls) = rewritten(text).unwrap();
        let expected = "SELECT k, `window_start` AS s, `window_time`, COUNT(*) AS n \
                        FROM `$group_window0` WHERE x > 1 GROUP BY k, `window_start`, `window_end`, `window_time` \
                        HAVING `window_end` > y";
        assert_eq!(found, expected);
        assert_eq!(calls[0].window, WindowSpec::Tumble { size_ms: 3_600_000, offset_ms: 0 });
        assert_eq!(calls[0].time.value, "ts");
        let WindowInput::Relation(relation) = &calls[0].input else { panic!() };
        assert_eq!(relation.to_string(), "t AS a");
    }

    #[test]
    fn every_kind_has_its_lengths() {
        let cases = [
            (
                "HOP(t.ts, INTERVAL '1' SECOND, INTERVAL '3' SECOND)",
                WindowSpec::Hop { slide_ms: 1000, size_ms: 3000, offset_ms: 0 },
            ),
            ("SESSION(ts, INTERVAL '5' MINUTES)", WindowSpec::Session { gap_ms: 300_000 }),
        ];
        for (window, spec) in cases {
            let (_, calls) = rewritten(&format!("SELECT COUNT(*) AS n FROM t GROUP BY {window}")).unwrap();
            assert_eq!((calls[0].window, calls[0].time.value.as_str()), (spec, "ts"));
        }
    }

    #[test]
    fn a_session_is_of_the_keys_and_of_the_rows_that_where_keeps() {
        let text = "SELECT COUNT(*) AS n FROM t WHERE x > 1 GROUP BY t.k, SESSION(ts, INTERVAL '5' MINUTE)";
        let (found, calls) = rewritten(text).unwrap();
        let expected = "SELECT COUNT(*) AS n FROM `$group_window0` \
                        GROUP BY t.k, `window_start`, `window_end`, `window_time`";
        assert_eq!(found, expected);
        assert_eq!(calls[0].partition[0].value, "k");
        let WindowInput::Relation(relation) = &calls[0].input else { panic!() };
        assert_eq!(relation.to_string(), "(SELECT * FROM t WHERE x > 1) AS t");
    }

    #[test]
    fn inner_queries_are_rewritten_too() {
        let text = "SELECT n FROM (SELECT COUNT(*) AS n FROM t GROUP BY TUMBLE(ts, INTERVAL '1' HOUR)) AS x";
        assert!(rewritten(text).unwrap().0.contains("$group_window0"));
    }

    #[test]
    fn mistakes_are_sentences() {
        let cases = [
            ("n", "TUMBLE(ts, INTERVAL '0' HOUR)", "a window's size must be longer than 0"),
            ("n", "TUMBLE(ts)", "TUMBLE in GROUP BY has other arguments"),
            ("n", "TUMBLE()", "TUMBLE in GROUP BY begins with a time column"),
            ("n", "TUMBLE(ts, 5)", "expected an interval such as INTERVAL '5' MINUTE"),
            ("n", "TUMBLE(ts, INTERVAL '1' MONTH)", "a MONTH has no fixed length"),
            (
                "n",
                "HOP(ts, INTERVAL '2' HOUR, INTERVAL '1' HOUR)",
                "the window's size (1 h) must be a multiple of its slide (2 h)",
            ),
            ("n", "TUMBLE(ts, INTERVAL '1' HOUR), HOP(ts, INTERVAL '1' HOUR)", "a GROUP BY has one window"),
            (
                "TUMBLE_START(ts, INTERVAL '2' HOUR)",
                "TUMBLE(ts, INTERVAL '1' HOUR)",
                "TUMBLE_START must have the arguments of the window: TUMBLE(ts, INTERVAL '1' HOUR)",
            ),
        ];
        for (column, window, sentence) in cases {
            let error = rewritten(&format!("SELECT {column} FROM t GROUP BY {window}")).unwrap_err();
            assert_eq!(error.message(), sentence, "{window}");
        }
    }
}
