//! Hints: `/*+ OPTIONS('k' = 'v') */` behind a table's name gives its WITH clause other values, there alone;
//! `/*+ STATE_TTL('t' = '1 d') */` behind SELECT is of [`crate::state_ttl`].
//!
//! The tokenizer takes a hint for a comment; [`token`] makes a token of it, so that it is either used or refused, never
//! dropped. In a query ([`crate::hint::take`]) a table with a hint becomes a table of its own, called by name and hint.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace, Word};

use crate::cursor::{At, Cursor, is_keyword, unquoted};
use crate::ddl;
use crate::diagnostic::{Position, Sql, SqlError};
use crate::dialect::FlinkDialect;
use crate::state_ttl;

/// What a hint begins with, as a token and in a table's name.
const BEGIN: &str = "/*+";

/// Options of a hint that only tune: a query with other ones is the same query.
const TUNING: [&str; 2] = [PARALLELISM, "source.rows-per-second"];

/// The option that no connector knows: how many subtasks read or write the table.
pub(crate) const PARALLELISM: &str = "parallelism";

/// The hint behind a table's name, and the one behind SELECT.
const OPTIONS: &str = "OPTIONS";
const STATE_TTL: &str = "STATE_TTL";

/// Hints that Flink has.
const LATER: &str = "BROADCAST SHUFFLE_HASH SHUFFLE_MERGE NEST_LOOP LOOKUP MULTI_JOIN";

/// Keys with their values.
pub(crate) type Options = Vec<(At<String>, At<String>)>;

/// The token of the comment `text`, which begins behind `/*`, if that is a hint.
pub(crate) fn token(text: &str, comment: &TokenWithSpan) -> Option<TokenWithSpan> {
    let inside = text.strip_prefix('+')?;
    Some(TokenWithSpan { token: Token::Placeholder(format!("{BEGIN}{inside}*/")), span: comment.span })
}

/// The text inside a hint, if `token` is one.
fn inside(token: &Token) -> Option<&str> {
    match token {
        Token::Placeholder(text) => text.strip_prefix(BEGIN)?.strip_suffix("*/"),
        _ => None,
    }
}

/// Whether `token` is a hint.
pub(crate) fn is_hint(token: &Token) -> bool {
    inside(token).is_some()
}

/// The options of a hint.
///
/// # Errors
/// The place of what is not understood; every other hint is refused by name.
pub(crate) fn options(token: &TokenWithSpan) -> Sql<Options> {
    pairs(token, OPTIONS, "a hint such as OPTIONS('key' = 'value')")
}

/// Names of inputs with lifetimes as they are written, of a hint behind SELECT.
///
/// # Errors
/// As [`options`].
pub(crate) fn state_ttl(token: &TokenWithSpan) -> Sql<Options> {
    pairs(token, STATE_TTL, "a hint such as STATE_TTL('t' = '1 d')")
}

/// The pairs of a hint that is one or several of `known`, such as `example`.
fn pairs(token: &TokenWithSpan, known: &str, example: &str) -> Sql<Options> {
    let Some(text) = inside(&token.token) else { return Ok(Vec::new()) };
    let at = Position::of(token);
    let tokens = tokenize(text, at)?;
    let mut cursor = Cursor::new(&tokens, Position::from(token.span.end));
    let mut options = Options::new();
    loop {
        let name = cursor.name(example)?;
        let upper = name.value.to_uppercase();
        if LATER.split(' ').any(|later| later == upper) {
            return Err(SqlError::not_yet(format!("{upper} hints"), name.at));
        }
        if upper != known {
            return Err(not_here(&name, &upper, known));
        }
        options.extend(ddl::parse_options(&mut cursor)?);
        if !cursor.eat_token(&Token::Comma) {
            break;
        }
    }
    if cursor.is_done() { Ok(options) } else { Err(cursor.expected("the end of the hint")) }
}

/// Why `name` is no hint where only `known` is one.
fn not_here(name: &At<String>, upper: &str, known: &str) -> SqlError {
    match upper {
        OPTIONS => SqlError::new("the hint OPTIONS stands behind a table's name").at(name.at).help(WRITE_OPTIONS),
        STATE_TTL => SqlError::new("the hint STATE_TTL stands behind SELECT").at(name.at).help(WRITE_STATE_TTL),
        _ => SqlError::new(format!("there is no hint '{}'", name.value)).at(name.at).near(&name.value, [known]),
    }
}

const WRITE_OPTIONS: &str = "write FROM t /*+ OPTIONS('key' = 'value') */";
const WRITE_STATE_TTL: &str = "write SELECT /*+ STATE_TTL('t' = '1 d') */ .. FROM t ..";

/// The tokens inside a hint that begins at `at`, with their places in the script.
fn tokenize(text: &str, at: Position) -> Sql<Vec<TokenWithSpan>> {
    let moved = |place: &mut datafusion::sql::sqlparser::tokenizer::Location| {
        if place.line == 1 {
            place.column += at.column + BEGIN.len() as u64 - 1;
        }
        place.line += at.line - 1;
    };
    let tokens = Tokenizer::new(&FlinkDialect, text).tokenize_with_location().map_err(|error| {
        let mut place = error.location;
        moved(&mut place);
        SqlError::new(error.message).at(Position::from(place))
    })?;
    let kept = tokens.into_iter().filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF));
    Ok(kept
        .map(|mut token| {
            moved(&mut token.span.start);
            moved(&mut token.span.end);
            token
        })
        .collect())
}

/// What a fingerprint has of a hint: nothing of what only tunes.
pub(crate) fn canonical(token: &TokenWithSpan) -> Option<String> {
    inside(&token.token)?;
    let mut options = options(token).unwrap_or_default();
    options.retain(|(key, _)| !TUNING.contains(&key.value.as_str()));
    Some(text(&options))
}

/// A hint with `options`, sorted; nothing for none.
fn text(options: &Options) -> String {
    let mut pairs: Vec<String> =
        options.iter().map(|(key, value)| format!("'{}'='{}'", key.value, value.value.replace('\'', "''"))).collect();
    pairs.sort();
    if pairs.is_empty() { String::new() } else { format!("{BEGIN} OPTIONS({}) */", pairs.join(", ")) }
}

/// A table with a hint behind it, in a query.
#[derive(Debug, Clone)]
pub(crate) struct Hinted {
    pub(crate) table: At<String>,
    /// What the table is called in the tokens that [`take`] gives.
    pub(crate) name: String,
    pub(crate) options: Options,
}

/// The name of the table that a hinted table's name stands for.
pub(crate) fn base_name(name: &str) -> Option<&str> {
    let (base, hint) = name.split_once(BEGIN)?;
    hint.ends_with("*/").then(|| base.trim_end())
}

/// `tokens` with every table that has a hint under a name of its own, and those tables.
pub(crate) fn take(tokens: &[TokenWithSpan]) -> Sql<(Vec<TokenWithSpan>, Vec<Hinted>)> {
    let mut made: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut tables = Vec::new();
    for (place, token) in tokens.iter().enumerate() {
        if !is_hint(&token.token) {
            made.push(token.clone());
            continue;
        }
        if made.last().is_some_and(|before| is_keyword(&before.token, "SELECT")) {
            // It stays for the planner, which knows what the SELECT reads.
            state_ttl::lifetimes(token)?;
            made.push(token.clone());
            continue;
        }
        let options = options(token)?;
        let named = made.pop().and_then(|before| match &before.token {
            Token::Word(word) => Some((At::new(word.value.clone(), Position::of(&before)), before.span)),
            _ => None,
        });
        let follows_table = made.last().is_some_and(|before| begins_table(&before.token));
        let Some((table, span)) = named.filter(|_| follows_table) else {
            let error = SqlError::new("the hint OPTIONS stands behind a table's name").at(Position::of(token));
            return Err(error.help(WRITE_OPTIONS));
        };
        let name = format!("{} {}", table.value, text(&options));
        let in_from = made.last().is_some_and(|before| !is_keyword(&before.token, "TABLE"));
        made.push(word(&name, span));
        if in_from && !tokens.get(place + 1).is_some_and(|next| is_alias(&next.token)) {
            made.push(TokenWithSpan { token: Token::make_keyword("AS"), span });
            made.push(word(&table.value, span));
        }
        tables.push(Hinted { table, name, options });
    }
    Ok((made, tables))
}

fn begins_table(token: &Token) -> bool {
    *token == Token::Comma || ["FROM", "JOIN", "TABLE"].iter().any(|keyword| is_keyword(token, keyword))
}

/// Whether a table's alias, or AS before it, may be `token`.
fn is_alias(token: &Token) -> bool {
    let Token::Word(quoted) = token else { return false };
    is_keyword(token, "AS") || unquoted(token).is_none() || quoted.keyword == Keyword::NoKeyword
}

fn word(text: &str, span: datafusion::sql::sqlparser::tokenizer::Span) -> TokenWithSpan {
    let word = Word { value: text.to_owned(), quote_style: Some('`'), keyword: Keyword::NoKeyword };
    TokenWithSpan { token: Token::Word(word), span }
}

/// Whether a comment is a hint.
pub(crate) fn of_comment(token: &TokenWithSpan) -> Option<TokenWithSpan> {
    match &token.token {
        Token::Whitespace(Whitespace::MultiLineComment(comment)) => self::token(comment, token),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::split;

    fn taken(text: &str) -> Sql<(String, Vec<Hinted>)> {
        let statement = split(text).unwrap().remove(0);
        let (tokens, tables) = take(&statement.tokens)?;
        let words: Vec<String> = tokens.iter().map(|token| token.token.to_string()).collect();
        Ok((words.join(" "), tables))
    }

    #[test]
    fn a_hinted_table_is_a_table_of_its_own() {
        let name = "`t /*+ OPTIONS('a'='1', 'b'='2') */`";
        let cases = [
            ("SELECT t.x FROM t /*+ OPTIONS('b'='2','a'='1') */", format!("SELECT t . x FROM {name} AS `t`")),
            ("SELECT x FROM t /*+ options('a' = '1', 'b' = '2') */ AS u", format!("SELECT x FROM {name} AS u")),
            ("SELECT x FROM t /*+OPTIONS('a'='1','b'='2')*/ WHERE y", format!("SELECT x FROM {name} AS `t` WHERE y")),
            (
                "SELECT x FROM TUMBLE(TABLE t /*+ OPTIONS('a'='1'), OPTIONS('b'='2') */, y)",
                format!("SELECT x FROM TUMBLE ( TABLE {name} , y )"),
            ),
        ];
        for (text, expected) in cases {
            let (words, tables) = taken(text).unwrap();
            assert_eq!(words, expected, "{text}");
            assert_eq!((tables[0].table.value.as_str(), base_name(&tables[0].name)), ("t", Some("t")));
        }
    }

    #[test]
    fn a_hint_is_used_or_refused_with_its_place() {
        let cases = [
            ("SELECT /*+ BROADCAST(t) */ x FROM t", "BROADCAST hints are not supported yet (line 1, column 12)", 12),
            ("SELECT /*+ OPTIONS('a'='b') */ x FROM t", "the hint OPTIONS stands behind a table's name", 12),
            ("SELECT /*+ STATE_TLL('t'='1 d') */ x FROM t", "there is no hint 'STATE_TLL'", 12),
            ("SELECT x FROM t /*+ STATE_TTL('t'='1 d') */", "the hint STATE_TTL stands behind SELECT", 21),
            ("SELECT x FROM t /*+ OPTION('a'='b') */", "there is no hint 'OPTION'", 21),
            ("SELECT x FROM t /*+ OPTIONS('a') */", "expected '=', found ')'", 32),
            ("SELECT x FROM t /*+ OPTIONS('a'='b') x */", "expected the end of the hint, found 'x'", 38),
            ("SELECT x /*+ OPTIONS('a'='b') */ FROM t", "the hint OPTIONS stands behind a table's name", 10),
            (
                "SELECT x FROM t /*+ */",
                "expected a hint such as OPTIONS('key' = 'value'), found the end of the statement",
                23,
            ),
        ];
        for (text, message, column) in cases {
            let error = taken(text).unwrap_err();
            let found = (error.message().to_owned(), error.clone().or_at(None));
            assert_eq!(found.0, message, "{text}");
            assert_eq!(error, error.clone().at(Position { line: 1, column }), "{text}");
        }
        let error = taken("SELECT x FROM t\n/*+\n  OPTIN('a'='b') */").unwrap_err();
        assert_eq!(error, error.clone().at(Position { line: 3, column: 3 }));
    }

    #[test]
    fn what_only_tunes_is_no_part_of_a_fingerprint() {
        assert_eq!(canonical(&split("SELECT /*+ STATE_TTL('t'='1 d') */ x FROM t").unwrap()[0].tokens[1]).unwrap(), "");
        let of = |text: &str| canonical(&split(text).unwrap()[0].tokens[4]).unwrap();
        assert_eq!(of("SELECT x FROM t /*+ OPTIONS('parallelism'='2') */"), "");
        assert_eq!(of("SELECT x FROM t /*+ OPTIONS('parallelism'='2','path'='p') */"), "/*+ OPTIONS('path'='p') */");
    }
}
