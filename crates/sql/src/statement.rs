//! What each statement of a script says, before anything is looked up: our own parser over sqlparser's tokens.
//!
//! Queries inside stay tokens: [`crate::query`] takes them from there. What Flink has and Ruslo doesn't so far is
//! refused here by its first word.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::cursor::{At, Cursor, unquoted};
use crate::ddl::{self, TableDdl};
use crate::diagnostic::{Position, Sql, SqlError};
use crate::hint::is_hint;
use crate::script::Statement;
use crate::show::{self, Show};

/// A query's tokens, and where the text behind them begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueryText {
    pub(crate) tokens: Vec<TokenWithSpan>,
    pub(crate) end: Position,
}

impl QueryText {
    /// Where it begins.
    pub(crate) fn start(&self) -> Position {
        self.tokens.first().map_or(self.end, Position::of)
    }
}

/// `CREATE VIEW name [(columns)] AS query`.
#[derive(Debug, Clone)]
pub(crate) struct ViewDdl {
    pub(crate) name: At<String>,
    pub(crate) if_not_exists: bool,
    pub(crate) columns: Vec<At<String>>,
    pub(crate) query: QueryText,
}

/// `INSERT INTO table [(columns)] query`.
#[derive(Debug, Clone)]
pub(crate) struct Insert {
    pub(crate) table: At<String>,
    /// The hint behind the table's name.
    pub(crate) hint: Option<TokenWithSpan>,
    pub(crate) columns: Option<Vec<At<String>>>,
    pub(crate) query: QueryText,
}

/// What runs.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    Insert(Insert),
    Select(QueryText),
    /// A statement set.
    Set(Vec<Insert>),
}

/// What a statement says.
#[derive(Debug, Clone)]
pub(crate) enum Parsed {
    CreateTable(TableDdl),
    CreateView(ViewDdl),
    Run(Job),
    Explain(Job),
    /// `EXECUTE STATEMENT SET BEGIN` or `EXPLAIN STATEMENT SET BEGIN`, and the statement behind it.
    BeginSet {
        is_explain: bool,
        first: Box<Parsed>,
    },
    /// Nothing stands behind BEGIN.
    SetIsEmpty,
    /// `END`.
    EndSet,
    Set {
        key: At<String>,
        value: At<String>,
    },
    Reset(Option<At<String>>),
    /// SHOW and DESCRIBE.
    Show(Show),
    Drop {
        name: At<String>,
        is_view: bool,
        if_exists: bool,
    },
}

/// Statements that Flink has and Ruslo doesn't so far, by their first word.
const LATER: &str = "ALTER ANALYZE BEGIN CALL COMPILE DELETE EXECUTE LOAD QUIT REMOVE STOP TRUNCATE \
    UNLOAD UPDATE USE";

const FIRST_WORDS: [&str; 10] =
    ["CREATE", "DESCRIBE", "DROP", "EXPLAIN", "INSERT", "RESET", "SELECT", "SET", "SHOW", "WITH"];

/// Reads a statement.
pub(crate) fn parse(statement: &Statement) -> Sql<Parsed> {
    let mut cursor = Cursor::new(&statement.tokens, statement.end);
    if cursor.eat(&["CREATE"]) {
        return parse_create(&mut cursor);
    }
    if cursor.eat(&["SHOW"]) {
        return show::parse_show(&mut cursor).map(Parsed::Show);
    }
    if cursor.eat(&["DESCRIBE"]) || cursor.eat(&["DESC"]) {
        let name = cursor.table_name("the name of a table or view")?;
        return cursor.expect_done().map(|()| Parsed::Show(Show::Describe(name)));
    }
    if cursor.eat(&["DROP"]) {
        return parse_drop(&mut cursor);
    }
    if cursor.eat(&["SET"]) {
        return parse_set(&mut cursor);
    }
    if cursor.eat(&["RESET"]) {
        let key = if cursor.is_done() { None } else { Some(parse_text(&mut cursor, None)?) };
        return Ok(Parsed::Reset(key));
    }
    for (words, is_explain) in SETS {
        if cursor.eat(words) {
            let first = if cursor.is_done() { Parsed::SetIsEmpty } else { parse_in_set(&mut cursor)? };
            return Ok(Parsed::BeginSet { is_explain, first: Box::new(first) });
        }
    }
    if cursor.peeks(0, "END") {
        return parse_in_set(&mut cursor);
    }
    if cursor.peeks(0, "EXECUTE") && cursor.peeks(1, "INSERT") {
        cursor.advance();
    }
    if cursor.eat(&["EXPLAIN"]) {
        return parse_explain(&mut cursor).map(Parsed::Explain);
    }
    parse_job(&mut cursor).map(Parsed::Run)
}

/// What opens a statement set, and whether its plan is only shown.
const SETS: [(&[&str], bool); 3] = [
    (&["EXECUTE", "STATEMENT", "SET", "BEGIN"], false),
    (&["BEGIN", "STATEMENT", "SET"], false),
    (&["EXPLAIN", "STATEMENT", "SET", "BEGIN"], true),
];

/// A statement in a set: END, or a job.
fn parse_in_set(cursor: &mut Cursor<'_>) -> Sql<Parsed> {
    if cursor.eat(&["END"]) {
        return cursor.expect_done().map(|()| Parsed::EndSet);
    }
    parse_job(cursor).map(Parsed::Run)
}

fn parse_drop(cursor: &mut Cursor<'_>) -> Sql<Parsed> {
    cursor.eat(&["TEMPORARY"]);
    let at = cursor.position();
    let is_view = cursor.eat(&["VIEW"]);
    if !is_view && !cursor.eat(&["TABLE"]) {
        return Err(match cursor.peek(0).and_then(unquoted) {
            Some(word) => SqlError::not_yet(format!("DROP {} statements", word.value.to_uppercase()), at),
            None => cursor.expected("TABLE or VIEW"),
        });
    }
    let if_exists = cursor.eat(&["IF", "EXISTS"]);
    let name = cursor.table_name("a name")?;
    cursor.expect_done().map(|()| Parsed::Drop { name, is_view, if_exists })
}

fn parse_create(cursor: &mut Cursor<'_>) -> Sql<Parsed> {
    if cursor.peeks(0, "OR") {
        return Err(SqlError::not_yet("CREATE OR REPLACE statements", cursor.position()));
    }
    cursor.eat(&["TEMPORARY"]);
    let what_at = cursor.position();
    if cursor.eat(&["TABLE"]) {
        return ddl::parse_table(cursor).map(Parsed::CreateTable);
    }
    if cursor.eat(&["VIEW"]) {
        return parse_view(cursor).map(Parsed::CreateView);
    }
    let later = ["MATERIALIZED", "FUNCTION", "CATALOG", "DATABASE", "MODEL", "SECRET", "SYSTEM", "CONNECTION"];
    match later.iter().find(|word| cursor.peeks(0, word)) {
        Some(word) => Err(SqlError::not_yet(format!("CREATE {word} statements"), what_at)),
        None => Err(cursor.expected("TABLE or VIEW")),
    }
}

fn parse_view(cursor: &mut Cursor<'_>) -> Sql<ViewDdl> {
    let if_not_exists = cursor.eat(&["IF", "NOT", "EXISTS"]);
    let name = cursor.table_name("the view's name")?;
    let columns = if cursor.peek(0) == Some(&Token::LParen) { ddl::parse_names(cursor)? } else { Vec::new() };
    if cursor.eat(&["COMMENT"]) {
        cursor.string("the comment in quotes")?;
    }
    cursor.expect(&["AS"])?;
    Ok(ViewDdl { name, if_not_exists, columns, query: parse_query(cursor)? })
}

fn parse_explain(cursor: &mut Cursor<'_>) -> Sql<Job> {
    let details = ["ESTIMATED_COST", "CHANGELOG_MODE", "JSON_EXECUTION_PLAN", "PLAN_ADVICE", "AST"];
    if let Some(detail) = details.iter().find(|detail| cursor.peeks(0, detail)) {
        return Err(SqlError::not_yet(format!("EXPLAIN {detail} statements"), cursor.position()));
    }
    cursor.eat(&["PLAN", "FOR"]);
    parse_job(cursor)
}

fn parse_job(cursor: &mut Cursor<'_>) -> Sql<Job> {
    if cursor.eat(&["INSERT"]) {
        return parse_insert(cursor).map(Job::Insert);
    }
    let words = ["SELECT", "WITH", "VALUES"];
    let starts = words.iter().any(|word| cursor.peeks(0, word)) || cursor.peek(0) == Some(&Token::LParen);
    if starts { parse_query(cursor).map(Job::Select) } else { Err(no_statement(cursor)) }
}

fn no_statement(cursor: &Cursor<'_>) -> SqlError {
    let at = cursor.position();
    let Some(word) = cursor.peek(0).and_then(unquoted) else { return cursor.expected("a statement") };
    let upper = word.value.to_uppercase();
    if LATER.split_whitespace().any(|word| word == upper) {
        return SqlError::not_yet(format!("{upper} statements"), at);
    }
    cursor.expected("a statement").near(&upper, FIRST_WORDS)
}

fn parse_insert(cursor: &mut Cursor<'_>) -> Sql<Insert> {
    if cursor.peeks(0, "OVERWRITE") {
        return Err(SqlError::not_yet("INSERT OVERWRITE statements", cursor.position()));
    }
    cursor.expect(&["INTO"])?;
    let table = cursor.table_name("the name of the table to write")?;
    let hint = match cursor.rest().first() {
        Some(token) if is_hint(&token.token) => cursor.advance().cloned(),
        _ => None,
    };
    if cursor.peeks(0, "PARTITION") {
        return Err(SqlError::not_yet("PARTITION clauses", cursor.position()));
    }
    let is_list = cursor.peek(0) == Some(&Token::LParen) && !cursor.peeks(1, "SELECT") && !cursor.peeks(1, "WITH");
    let columns = if is_list { Some(ddl::parse_names(cursor)?) } else { None };
    Ok(Insert { table, hint, columns, query: parse_query(cursor)? })
}

/// Everything that is left.
fn parse_query(cursor: &mut Cursor<'_>) -> Sql<QueryText> {
    if cursor.is_done() {
        return Err(cursor.expected("a query"));
    }
    Ok(QueryText { tokens: cursor.rest().to_vec(), end: cursor.end() })
}

fn parse_set(cursor: &mut Cursor<'_>) -> Sql<Parsed> {
    if cursor.is_done() {
        return Err(cursor.expected("'key' = 'value'"));
    }
    let key = parse_text(cursor, Some(&Token::Eq))?;
    cursor.expect_token(&Token::Eq)?;
    let value = parse_text(cursor, None)?;
    Ok(Parsed::Set { key, value })
}

/// A string in quotes, or the bare text up to `stop` or to the end: `parallelism.default`, `10 s`.
fn parse_text(cursor: &mut Cursor<'_>, stop: Option<&Token>) -> Sql<At<String>> {
    if let Some(Token::SingleQuotedString(_)) = cursor.peek(0) {
        let text = cursor.string("a string")?;
        if stop.is_none() {
            cursor.expect_done()?;
        }
        return Ok(text);
    }
    let at = cursor.position();
    let mut text = String::new();
    let mut end = None;
    while cursor.peek(0).is_some_and(|token| Some(token) != stop) {
        let Some(token) = cursor.advance() else { break };
        if end.is_some_and(|end| end != token.span.start) {
            text.push(' ');
        }
        text.push_str(&token.token.to_string());
        end = Some(token.span.end);
    }
    if text.is_empty() { Err(cursor.expected("a value")) } else { Ok(At::new(text, at)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::split;

    fn parsed(text: &str) -> Sql<Parsed> {
        parse(&split(text).unwrap()[0])
    }

    fn refused(text: &str) -> String {
        parsed(text).unwrap_err().message().to_owned()
    }

    #[test]
    fn set_takes_quotes_or_none() {
        for text in ["SET 'a.b-c' = '10 s'", "SET a.b-c = 10 s", "set 'a.b-c'=10 s"] {
            let Parsed::Set { key, value } = parsed(text).unwrap() else { panic!("{text}") };
            assert_eq!((key.value.as_str(), value.value.as_str()), ("a.b-c", "10 s"), "{text}");
        }
        assert!(matches!(parsed("RESET").unwrap(), Parsed::Reset(None)));
        assert!(matches!(parsed("RESET 'a.b'").unwrap(), Parsed::Reset(Some(key)) if key.value == "a.b"));
    }

    #[test]
    fn inserts_and_explains_hold_their_query() {
        let Parsed::Explain(Job::Insert(insert)) = parsed("EXPLAIN PLAN FOR INSERT INTO t (a, `b`) SELECT 1").unwrap()
        else {
            panic!()
        };
        assert_eq!(insert.table.value, "t");
        assert_eq!(insert.columns.unwrap().len(), 2);
        assert_eq!(insert.query.start(), Position { line: 1, column: 41 });
        let insert = parsed("INSERT INTO t (SELECT 1)").unwrap();
        assert!(matches!(insert, Parsed::Run(Job::Insert(insert)) if insert.columns.is_none()));
    }

    #[test]
    fn a_view_may_name_its_columns() {
        let Parsed::CreateView(view) = parsed("CREATE TEMPORARY VIEW v (a, b) COMMENT 'c' AS SELECT 1, 2").unwrap()
        else {
            panic!()
        };
        assert_eq!((view.name.value.as_str(), view.columns.len(), view.query.tokens.len()), ("v", 2, 4));
    }

    #[test]
    fn what_comes_later_is_refused_by_name() {
        let cases = [
            ("ALTER TABLE t RENAME TO u", "ALTER statements are not supported yet (line 1, column 1)"),
            ("EXECUTE PLAN 'p'", "EXECUTE statements are not supported yet (line 1, column 1)"),
            ("CREATE CATALOG c", "CREATE CATALOG statements are not supported yet (line 1, column 8)"),
            ("CREATE TEMPORARY FUNCTION f", "CREATE FUNCTION statements are not supported yet (line 1, column 18)"),
            ("INSERT OVERWRITE t SELECT 1", "INSERT OVERWRITE statements are not supported yet (line 1, column 8)"),
            ("SELEC 1", "expected a statement, found 'SELEC'"),
            ("CREATE INDEX i", "expected TABLE or VIEW, found 'INDEX'"),
            ("SET", "expected 'key' = 'value', found the end of the statement"),
            ("INSERT INTO t", "expected a query, found the end of the statement"),
        ];
        for (text, message) in cases {
            assert_eq!(refused(text), message, "{text}");
        }
    }
}
