//! Window table functions: `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR))`.
//!
//! sqlparser cannot read a `TABLE t` argument, so the whole call is cut out of the tokens and a name of ours put in its
//! place, under the call's own position. The planner meets that name again as a table ([`crate::planner`]).

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

use crate::cursor::{At, Cursor, is_keyword, unquoted};
use crate::diagnostic::{Position, Sql, SqlError};
use crate::interval;
use crate::statement::QueryText;

/// A TUMBLE call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WindowCall {
    /// The name that stands in its place.
    pub(crate) placeholder: String,
    pub(crate) table: At<String>,
    pub(crate) table_span: Span,
    pub(crate) time: At<String>,
    pub(crate) size_ms: i64,
    pub(crate) offset_ms: i64,
    pub(crate) at: Position,
}

const FUNCTIONS: [&str; 4] = ["TUMBLE", "HOP", "CUMULATE", "SESSION"];

/// `query` with a placeholder for each window call, and the calls.
pub(crate) fn extract(query: &QueryText) -> Sql<(Vec<TokenWithSpan>, Vec<WindowCall>)> {
    let mut tokens = Vec::with_capacity(query.tokens.len());
    let mut calls = Vec::new();
    let mut cursor = Cursor::new(&query.tokens, query.end);
    while let Some(first) = cursor.rest().first() {
        let in_from = tokens.last().is_some_and(|last: &TokenWithSpan| is_keyword(&last.token, "FROM"));
        if !starts_call(&cursor, in_from) {
            tokens.push(first.clone());
            cursor.advance();
            continue;
        }
        let before = cursor.index();
        let call = parse_call(&mut cursor, format!("$window{}", calls.len()))?;
        let last = query.tokens.get(before..cursor.index()).and_then(<[_]>::last).unwrap_or(first);
        let word = Word { value: call.placeholder.clone(), quote_style: Some('`'), keyword: Keyword::NoKeyword };
        tokens.push(TokenWithSpan { token: Token::Word(word), span: first.span.union(&last.span) });
        calls.push(call);
    }
    Ok((tokens, calls))
}

/// Whether a window call is next: with the outer TABLE( ), or bare behind FROM or with a TABLE argument.
fn starts_call(cursor: &Cursor<'_>, in_from: bool) -> bool {
    let is_function = |ahead: usize| {
        let named = FUNCTIONS.iter().any(|name| cursor.peeks(ahead, name));
        named && cursor.peek(ahead + 1) == Some(&Token::LParen)
    };
    if cursor.peeks(0, "TABLE") && cursor.peek(1) == Some(&Token::LParen) {
        return is_function(2);
    }
    is_function(0) && (in_from || cursor.peeks(2, "TABLE") || (cursor.peeks(2, "DATA") && is_arrow(cursor, 3)))
}

fn is_arrow(cursor: &Cursor<'_>, ahead: usize) -> bool {
    cursor.peek(ahead) == Some(&Token::RArrow)
}

/// The arguments as they come in, by name or by place.
#[derive(Default)]
struct Arguments {
    table: Option<(At<String>, Span)>,
    time: Option<At<String>>,
    size: Option<At<i64>>,
    offset: Option<At<i64>>,
}

const ARGUMENTS: [&str; 4] = ["DATA", "TIMECOL", "SIZE", "OFFSET"];

fn parse_call(cursor: &mut Cursor<'_>, placeholder: String) -> Sql<WindowCall> {
    let outer = cursor.eat(&["TABLE"]) && cursor.eat_token(&Token::LParen);
    let at = cursor.position();
    let function = cursor.name("a window function")?.value.to_uppercase();
    if function != "TUMBLE" {
        return Err(SqlError::not_yet(format!("{function} windows"), at).help("there is TUMBLE"));
    }
    cursor.expect_token(&Token::LParen)?;
    let arguments = parse_arguments(cursor)?;
    cursor.expect_token(&Token::RParen).map_err(|_| cursor.expected("',' or ')'"))?;
    if outer {
        cursor.expect_token(&Token::RParen)?;
    }
    finish(arguments, placeholder, at)
}

fn parse_arguments(cursor: &mut Cursor<'_>) -> Sql<Arguments> {
    let mut arguments = Arguments::default();
    for place in 0..ARGUMENTS.len() {
        let named = if is_arrow(cursor, 1) { Some(cursor.name("an argument's name")?) } else { None };
        if named.is_some() {
            cursor.advance();
        }
        let name = named.as_ref().map_or(ARGUMENTS.get(place).copied().unwrap_or_default(), |name| &name.value);
        match name.to_uppercase().as_str() {
            "DATA" => arguments.table = Some(parse_table(cursor)?),
            "TIMECOL" => arguments.time = Some(parse_descriptor(cursor)?),
            "SIZE" => arguments.size = Some(interval::parse(cursor)?),
            "OFFSET" => arguments.offset = Some(interval::parse(cursor)?),
            _ => {
                let error = SqlError::new(format!("TUMBLE has no argument '{name}'")).near(name, ARGUMENTS);
                return Err(error.at(named.map(|name| name.at)));
            }
        }
        if !cursor.eat_token(&Token::Comma) {
            break;
        }
    }
    Ok(arguments)
}

fn parse_table(cursor: &mut Cursor<'_>) -> Sql<(At<String>, Span)> {
    cursor.eat(&["TABLE"]);
    if cursor.peek(0) == Some(&Token::LParen) {
        return Err(SqlError::not_yet("subqueries inside a window", cursor.position())
            .help("give the subquery a name with CREATE VIEW or WITH"));
    }
    let span = cursor.rest().first().map_or_else(Span::empty, |token| token.span);
    let table = cursor.table_name("a table's name, as in TABLE bid")?;
    if cursor.peeks(0, "PARTITION") {
        return Err(SqlError::new("TUMBLE takes no PARTITION BY")
            .at(cursor.position())
            .help("GROUP BY the key instead"));
    }
    Ok((table, span))
}

fn parse_descriptor(cursor: &mut Cursor<'_>) -> Sql<At<String>> {
    if !cursor.peek(0).and_then(unquoted).is_some_and(|word| word.value.eq_ignore_ascii_case("DESCRIPTOR")) {
        return Err(cursor.expected("the time column, as in DESCRIPTOR(ts)"));
    }
    cursor.advance();
    cursor.expect_token(&Token::LParen)?;
    let column = cursor.name("the time column's name")?;
    cursor.expect_token(&Token::RParen)?;
    Ok(column)
}

fn finish(arguments: Arguments, placeholder: String, at: Position) -> Sql<WindowCall> {
    let missing = |what: &str| {
        SqlError::new(format!("the window lacks {what}"))
            .at(at)
            .help("write TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)")
    };
    let (table, table_span) = arguments.table.ok_or_else(|| missing("its table"))?;
    let time = arguments.time.ok_or_else(|| missing("its time column"))?;
    let size = arguments.size.ok_or_else(|| missing("its size"))?;
    if size.value <= 0 {
        return Err(SqlError::new("a window's size must be longer than 0").at(size.at));
    }
    let offset = arguments.offset.unwrap_or(At::new(0, at));
    if offset.value.abs() >= size.value {
        let sentence = format!(
            "the window's offset ({}) must be shorter than its size ({})",
            interval::describe(offset.value),
            interval::describe(size.value)
        );
        return Err(SqlError::new(sentence).at(offset.at));
    }
    Ok(WindowCall { placeholder, table, table_span, time, size_ms: size.value, offset_ms: offset.value, at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::split;

    fn extracted(text: &str) -> Sql<(String, Vec<WindowCall>)> {
        let statement = split(text).unwrap().remove(0);
        let (tokens, calls) = extract(&QueryText { tokens: statement.tokens, end: statement.end })?;
        let words: Vec<String> = tokens.iter().map(|token| token.token.to_string()).collect();
        Ok((words.join(" "), calls))
    }

    #[test]
    fn a_call_becomes_a_name_where_it_stood() {
        let forms = [
            "TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' HOUR))",
            "table(tumble(TABLE bid, descriptor(ts), INTERVAL '60' MINUTE))",
            "TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '1' HOUR)",
            "TUMBLE(bid, DESCRIPTOR(ts), INTERVAL '1' HOUR)",
            "TABLE(TUMBLE(DATA => TABLE bid, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '1' HOUR))",
        ];
        for form in forms {
            let (text, calls) = extracted(&format!("SELECT *\n FROM {form} AS w")).unwrap();
            assert_eq!(text, "SELECT * FROM `$window0` AS w", "{form}");
            assert_eq!((calls[0].table.value.as_str(), calls[0].time.value.as_str()), ("bid", "ts"));
            assert_eq!((calls[0].size_ms, calls[0].offset_ms, calls[0].at.line), (3_600_000, 0, 2));
        }
    }

    #[test]
    fn an_offset_may_be_negative() {
        let text = "SELECT * FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' DAY, -INTERVAL '8' HOUR)";
        assert_eq!(extracted(text).unwrap().1[0].offset_ms, -28_800_000);
    }

    #[test]
    fn the_older_group_window_is_left_alone() {
        let text = "SELECT 1 FROM t GROUP BY TUMBLE ( ts , INTERVAL '1' HOUR )";
        assert_eq!(extracted(text).unwrap().1, []);
    }

    #[test]
    fn mistakes_are_sentences() {
        let cases = [
            ("TABLE(HOP(TABLE t, DESCRIPTOR(ts)))", "HOP windows are not supported yet (line 1, column 21)"),
            ("TUMBLE(TABLE t, DESCRIPTOR(ts))", "the window lacks its size"),
            ("TUMBLE(TABLE t, ts, INTERVAL '1' HOUR)", "expected the time column, as in DESCRIPTOR(ts), found 'ts'"),
            ("TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '0' HOUR)", "a window's size must be longer than 0"),
            ("TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MONTH)", "a MONTH has no fixed length"),
            ("TUMBLE(TABLE t, DESCRIPTOR(ts), 5)", "expected an interval such as INTERVAL '5' MINUTE, found '5'"),
            (
                "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '60' MINUTE)",
                "the window's offset (1 h) must be shorter than its size (1 h)",
            ),
            ("TUMBLE(TABLE t PARTITION BY a, DESCRIPTOR(ts))", "TUMBLE takes no PARTITION BY"),
            ("TUMBLE(TABLE t, COLUMN => DESCRIPTOR(ts))", "TUMBLE has no argument 'COLUMN'"),
            (
                "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR",
                "expected ',' or ')', found the end of the statement",
            ),
            (
                "TUMBLE(TABLE (SELECT 1), DESCRIPTOR(ts))",
                "subqueries inside a window are not supported yet (line 1, column 28)",
            ),
        ];
        for (call, message) in cases {
            let error = extracted(&format!("SELECT * FROM {call}")).unwrap_err();
            assert_eq!(error.message(), message, "{call}");
        }
    }
}
