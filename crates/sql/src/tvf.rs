//! Window table functions: `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR))`.
//!
//! sqlparser cannot read a `TABLE t` argument, so the whole call is cut out of the tokens and a name of ours put in its
//! place, under the call's own position. The planner meets that name again as a table ([`crate::planner`]).

use datafusion::sql::sqlparser::ast::TableFactor;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

use crate::cursor::{At, Cursor, is_keyword, unquoted};
use crate::diagnostic::{Position, Sql, SqlError};
use crate::interval;
use crate::statement::QueryText;
use crate::window_spec::WindowSpec;

/// A call of a window function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WindowCall {
    /// The name that stands in its place.
    pub(crate) placeholder: String,
    pub(crate) input: WindowInput,
    /// PARTITION BY, which sessions take.
    pub(crate) partition: Vec<At<String>>,
    pub(crate) time: At<String>,
    pub(crate) window: WindowSpec,
    pub(crate) at: Position,
}

/// What a window function reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WindowInput {
    /// A table or view, by name.
    Table(At<String>, Span),
    /// A query in brackets, which the planner parses.
    Subquery(QueryText),
    /// What the parser has made of it.
    Relation(Box<TableFactor>),
}

impl WindowInput {
    /// What messages call it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Table(name, _) => name.value.clone(),
            Self::Subquery(_) => "the subquery".to_owned(),
            Self::Relation(relation) => match relation.as_ref() {
                TableFactor::Table { name, .. } => name.to_string().replace('`', ""),
                _ => "the subquery".to_owned(),
            },
        }
    }
}

/// A window function: its name, what its arguments are called in their order, and how a call of it looks.
struct Function {
    name: &'static str,
    arguments: &'static [&'static str],
    example: &'static str,
}

const FUNCTIONS: [Function; 4] = [
    Function {
        name: "TUMBLE",
        arguments: &["DATA", "TIMECOL", "SIZE", "OFFSET"],
        example: "TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)",
    },
    Function {
        name: "HOP",
        arguments: &["DATA", "TIMECOL", "SLIDE", "SIZE", "OFFSET"],
        example: "HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '15' MINUTE, INTERVAL '1' HOUR)",
    },
    Function {
        name: "CUMULATE",
        arguments: &["DATA", "TIMECOL", "STEP", "SIZE", "OFFSET"],
        example: "CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR, INTERVAL '1' DAY)",
    },
    Function {
        name: "SESSION",
        arguments: &["DATA", "TIMECOL", "GAP"],
        example: "SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '5' MINUTE)",
    },
];

/// `query` with a placeholder for each window call, and the calls.
pub(crate) fn extract(query: &QueryText) -> Sql<(Vec<TokenWithSpan>, Vec<WindowCall>)> {
    let mut calls = Vec::new();
    let tokens = extract_into(&query.tokens, query.end, &mut calls)?;
    Ok((tokens, calls))
}

fn extract_into(query: &[TokenWithSpan], end: Position, calls: &mut Vec<WindowCall>) -> Sql<Vec<TokenWithSpan>> {
    let mut tokens = Vec::with_capacity(query.len());
    let mut cursor = Cursor::new(query, end);
    while let Some(first) = cursor.rest().first() {
        let in_from = tokens.last().is_some_and(|last: &TokenWithSpan| is_keyword(&last.token, "FROM"));
        if !starts_call(&cursor, in_from) {
            tokens.push(first.clone());
            cursor.advance();
            continue;
        }
        let before = cursor.index();
        let call = parse_call(&mut cursor, calls)?;
        let last = query.get(before..cursor.index()).and_then(<[_]>::last).unwrap_or(first);
        let word = Word { value: call.placeholder.clone(), quote_style: Some('`'), keyword: Keyword::NoKeyword };
        tokens.push(TokenWithSpan { token: Token::Word(word), span: first.span.union(&last.span) });
        calls.push(call);
    }
    Ok(tokens)
}

/// Whether a window call is next: with the outer TABLE( ), or bare behind FROM or with a TABLE argument.
fn starts_call(cursor: &Cursor<'_>, in_from: bool) -> bool {
    let is_function = |ahead: usize| {
        let named = FUNCTIONS.iter().any(|function| cursor.peeks(ahead, function.name));
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
    input: Option<WindowInput>,
    partition: Vec<At<String>>,
    time: Option<At<String>>,
    /// SIZE and OFFSET, SLIDE, STEP, GAP.
    lengths: Vec<(&'static str, At<i64>)>,
}

impl Arguments {
    fn length(&self, name: &str) -> Option<At<i64>> {
        self.lengths.iter().find(|(known, _)| *known == name).map(|(_, length)| length.clone())
    }
}

fn parse_call(cursor: &mut Cursor<'_>, calls: &mut Vec<WindowCall>) -> Sql<WindowCall> {
    let outer = cursor.eat(&["TABLE"]) && cursor.eat_token(&Token::LParen);
    let at = cursor.position();
    let name = cursor.name("a window function")?.value.to_uppercase();
    let Some(function) = FUNCTIONS.iter().find(|function| function.name == name) else {
        return Err(SqlError::internal(format!("'{name}' is not a window function")));
    };
    cursor.expect_token(&Token::LParen)?;
    let arguments = parse_arguments(cursor, function, calls)?;
    cursor.expect_token(&Token::RParen).map_err(|_| cursor.expected("',' or ')'"))?;
    if outer {
        cursor.expect_token(&Token::RParen)?;
    }
    finish(arguments, function, format!("$window{}", calls.len()), at)
}

fn parse_arguments(cursor: &mut Cursor<'_>, function: &Function, calls: &mut Vec<WindowCall>) -> Sql<Arguments> {
    let mut arguments = Arguments::default();
    for place in 0..function.arguments.len() {
        let named = if is_arrow(cursor, 1) { Some(cursor.name("an argument's name")?) } else { None };
        if named.is_some() {
            cursor.advance();
        }
        let given = match &named {
            Some(name) => function.arguments.iter().find(|known| known.eq_ignore_ascii_case(&name.value)),
            None => function.arguments.get(place),
        };
        match given.copied() {
            Some("DATA") => {
                arguments.input = Some(parse_input(cursor, calls)?);
                arguments.partition = parse_partition(cursor, function)?;
            }
            Some("TIMECOL") => arguments.time = Some(parse_descriptor(cursor)?),
            Some(length) => arguments.lengths.push((length, interval::parse(cursor)?)),
            None => return Err(unknown_argument(function, named)),
        }
        if !cursor.eat_token(&Token::Comma) {
            break;
        }
    }
    Ok(arguments)
}

fn unknown_argument(function: &Function, named: Option<At<String>>) -> SqlError {
    let name = named.as_ref().map_or("", |name| name.value.as_str());
    SqlError::new(format!("{} has no argument '{name}'", function.name))
        .near(name, function.arguments.iter().copied())
        .at(named.map(|name| name.at))
}

/// `TABLE t`, `t`, or a query in brackets.
fn parse_input(cursor: &mut Cursor<'_>, calls: &mut Vec<WindowCall>) -> Sql<WindowInput> {
    cursor.eat(&["TABLE"]);
    let span = cursor.rest().first().map_or_else(Span::empty, |token| token.span);
    if !cursor.eat_token(&Token::LParen) {
        return Ok(WindowInput::Table(cursor.table_name("a table's name, as in TABLE bid")?, span));
    }
    let query = cursor.balanced("a query")?;
    let end = cursor.position();
    cursor.expect_token(&Token::RParen)?;
    Ok(WindowInput::Subquery(QueryText { tokens: extract_into(query, end, calls)?, end }))
}

fn parse_partition(cursor: &mut Cursor<'_>, function: &Function) -> Sql<Vec<At<String>>> {
    let at = cursor.position();
    if !cursor.eat(&["PARTITION", "BY"]) {
        return Ok(Vec::new());
    }
    if function.name != "SESSION" {
        let error = SqlError::new(format!("{} takes no PARTITION BY", function.name));
        return Err(error.at(at).help("GROUP BY the key instead"));
    }
    parse_columns(cursor)
}

/// `a, b` or `(a, b)`; without brackets, a comma goes on with a column unless the next argument begins behind it.
fn parse_columns(cursor: &mut Cursor<'_>) -> Sql<Vec<At<String>>> {
    let in_brackets = cursor.eat_token(&Token::LParen);
    let mut columns = vec![cursor.name("a column's name")?];
    while cursor.peek(0) == Some(&Token::Comma) {
        let more = in_brackets || !(cursor.peeks(1, "DESCRIPTOR") || is_arrow(cursor, 2));
        if !more {
            break;
        }
        cursor.advance();
        columns.push(cursor.name("a column's name")?);
    }
    if in_brackets {
        cursor.expect_token(&Token::RParen)?;
    }
    Ok(columns)
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

fn finish(arguments: Arguments, function: &Function, placeholder: String, at: Position) -> Sql<WindowCall> {
    let missing = |what: &str| {
        let example = format!("write {}", function.example);
        SqlError::new(format!("the window lacks {what}")).at(at).help(&example)
    };
    let length = |name: &str| {
        let lower = name.to_lowercase();
        let length = arguments.length(name).ok_or_else(|| missing(&format!("its {lower}")))?;
        positive(&lower, &length).map(|_| length)
    };
    let input = arguments.input.clone().ok_or_else(|| missing("its table"))?;
    let time = arguments.time.clone().ok_or_else(|| missing("its time column"))?;
    let window = match function.name {
        "TUMBLE" => {
            let size = length("SIZE")?;
            WindowSpec::Tumble { size_ms: size.value, offset_ms: offset(&arguments, &size)? }
        }
        "HOP" => {
            let (slide, size) = (length("SLIDE")?, length("SIZE")?);
            check_multiple(("size", &size), ("slide", &slide))?;
            WindowSpec::Hop { slide_ms: slide.value, size_ms: size.value, offset_ms: offset(&arguments, &size)? }
        }
        "CUMULATE" => {
            let (step, size) = (length("STEP")?, length("SIZE")?);
            check_multiple(("size", &size), ("step", &step))?;
            WindowSpec::Cumulate { step_ms: step.value, size_ms: size.value, offset_ms: offset(&arguments, &size)? }
        }
        _ => WindowSpec::Session { gap_ms: length("GAP")?.value },
    };
    Ok(WindowCall { placeholder, input, partition: arguments.partition, time, window, at })
}

/// A window's length, which must be longer than 0.
pub(crate) fn positive(what: &str, length: &At<i64>) -> Sql<i64> {
    if length.value > 0 {
        return Ok(length.value);
    }
    Err(SqlError::new(format!("a window's {what} must be longer than 0")).at(length.at))
}

/// The window's offset, which must be shorter than its size.
fn offset(arguments: &Arguments, size: &At<i64>) -> Sql<i64> {
    let Some(offset) = arguments.length("OFFSET") else { return Ok(0) };
    if offset.value.unsigned_abs() < size.value.unsigned_abs() {
        return Ok(offset.value);
    }
    let sentence = format!(
        "the window's offset ({}) must be shorter than its size ({})",
        interval::describe(offset.value),
        interval::describe(size.value)
    );
    Err(SqlError::new(sentence).at(offset.at))
}

/// Refuses what Flink refuses: windows that are not made of whole slices.
pub(crate) fn check_multiple((what, whole): (&str, &At<i64>), (of, part): (&str, &At<i64>)) -> Sql<()> {
    if whole.value % part.value == 0 {
        return Ok(());
    }
    let sentence = format!(
        "the window's {what} ({}) must be a multiple of its {of} ({})",
        interval::describe(whole.value),
        interval::describe(part.value)
    );
    Err(SqlError::new(sentence).at(part.at))
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
            assert_eq!((calls[0].input.name().as_str(), calls[0].time.value.as_str()), ("bid", "ts"));
            assert_eq!(calls[0].window, WindowSpec::Tumble { size_ms: 3_600_000, offset_ms: 0 });
            assert_eq!(calls[0].at.line, 2);
        }
    }

    #[test]
    fn an_offset_may_be_negative() {
        let text = "SELECT * FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' DAY, -INTERVAL '8' HOUR)";
        let window = WindowSpec::Tumble { size_ms: 86_400_000, offset_ms: -28_800_000 };
        assert_eq!(extracted(text).unwrap().1[0].window, window);
    }

    #[test]
    fn every_function_takes_its_arguments_by_place_and_by_name() {
        let hop = WindowSpec::Hop { slide_ms: 60_000, size_ms: 3_600_000, offset_ms: 0 };
        let cumulate = WindowSpec::Cumulate { step_ms: 60_000, size_ms: 3_600_000, offset_ms: 1000 };
        let session = WindowSpec::Session { gap_ms: 5000 };
        let forms = [
            ("HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '1' HOUR)", hop),
            (
                "HOP(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '1' HOUR, SLIDE => INTERVAL '1' MINUTE)",
                hop,
            ),
            (
                "CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '1' HOUR, INTERVAL '1' SECOND)",
                cumulate,
            ),
            (
                "CUMULATE(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), STEP => INTERVAL '1' MINUTE, \
                 SIZE => INTERVAL '60' MINUTE, `OFFSET` => INTERVAL '1' SECOND)",
                cumulate,
            ),
            ("SESSION(TABLE t, DESCRIPTOR(ts), INTERVAL '5' SECOND)", session),
            ("SESSION(DATA => TABLE t, TIMECOL => DESCRIPTOR(ts), GAP => INTERVAL '5' SECOND)", session),
        ];
        for (form, window) in forms {
            let (text, calls) = extracted(&format!("SELECT * FROM TABLE({form})")).unwrap();
            assert_eq!((text.as_str(), calls[0].window), ("SELECT * FROM `$window0`", window), "{form}");
        }
    }

    #[test]
    fn a_query_in_brackets_may_hold_windows() {
        let inner = "SELECT * FROM TUMBLE(TABLE t, DESCRIPTOR(a), INTERVAL '1' SECOND)";
        let text = format!("SELECT * FROM HOP(TABLE ({inner}), DESCRIPTOR(b), INTERVAL '1' HOUR, INTERVAL '1' HOUR)");
        let (outer, calls) = extracted(&text).unwrap();
        assert_eq!(outer, "SELECT * FROM `$window1`");
        assert_eq!((calls[0].time.value.as_str(), calls[1].time.value.as_str()), ("a", "b"));
        let WindowInput::Subquery(query) = &calls[1].input else { panic!() };
        assert_eq!(query.tokens.len(), 4);
        assert_eq!(query.tokens[3].token.to_string(), "`$window0`");
    }

    #[test]
    fn a_session_is_of_a_partition() {
        let forms = [
            ("TABLE t PARTITION BY a, DESCRIPTOR(ts), INTERVAL '5' SECOND", &["a"][..]),
            ("TABLE t PARTITION BY a, b, DESCRIPTOR(ts), INTERVAL '5' SECOND", &["a", "b"]),
            ("TABLE t PARTITION BY (a, b), DESCRIPTOR(ts), INTERVAL '5' SECOND", &["a", "b"]),
            ("DATA => TABLE t PARTITION BY a, TIMECOL => DESCRIPTOR(ts), GAP => INTERVAL '5' SECOND", &["a"]),
        ];
        for (form, columns) in forms {
            let calls = extracted(&format!("SELECT * FROM SESSION({form})")).unwrap().1;
            let found: Vec<&str> = calls[0].partition.iter().map(|name| name.value.as_str()).collect();
            assert_eq!(found, columns, "{form}");
        }
    }

    #[test]
    fn the_older_group_window_is_left_alone() {
        let text = "SELECT 1 FROM t GROUP BY TUMBLE ( ts , INTERVAL '1' HOUR )";
        assert_eq!(extracted(text).unwrap().1, []);
    }

    #[test]
    fn mistakes_are_sentences() {
        let cases = [
            ("TABLE(HOP(TABLE t, DESCRIPTOR(ts)))", "the window lacks its slide"),
            ("HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)", "the window lacks its size"),
            (
                "HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '2' HOUR, INTERVAL '1' HOUR)",
                "the window's size (1 h) must be a multiple of its slide (2 h)",
            ),
            (
                "CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '7' MINUTE, INTERVAL '1' HOUR)",
                "the window's size (1 h) must be a multiple of its step (7 min)",
            ),
            (
                "HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '0' HOUR, INTERVAL '1' HOUR)",
                "a window's slide must be longer than 0",
            ),
            ("SESSION(TABLE t, DESCRIPTOR(ts), INTERVAL '-1' HOUR)", "a window's gap must be longer than 0"),
            ("SESSION(TABLE t, DESCRIPTOR(ts))", "the window lacks its gap"),
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
            ("TUMBLE(TABLE (SELECT 1", "expected ')', found the end of the statement"),
            ("TUMBLE(TABLE (), DESCRIPTOR(ts))", "expected a query, found ')'"),
        ];
        for (call, message) in cases {
            let error = extracted(&format!("SELECT * FROM {call}")).unwrap_err();
            assert_eq!(error.message(), message, "{call}");
        }
    }
}
