//! From text to statements: tokens with their places, limits, hints as tokens, split at semicolons.
//!
//! The limits are what keeps a hostile text from taking the stack or the machine: size, nesting, and operators in a
//! row (`1+1+1+…` nests as deep as parentheses do once it is a tree).

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use crate::diagnostic::{Position, Sql, SqlError};
use crate::dialect::FlinkDialect;
use crate::{hint, ids};

/// Longest script, in bytes.
pub const SCRIPT_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of brackets and CASE.
pub const NESTING_MAX: usize = 256;
/// Most operators in one expression without brackets between.
pub const OPERATORS_MAX: usize = 1_000;
/// Deepest nesting of what the parser reads twice if it is wrong, each time with all that is inside: `POSITION(..)` and
/// INTERVALs of anything but a string or number.
const RETRIED_MAX: usize = 8;

/// One statement: its tokens without blanks and comments, and where it ends.
#[derive(Debug, Clone)]
pub(crate) struct Statement {
    pub(crate) tokens: Vec<TokenWithSpan>,
    pub(crate) end: Position,
}

impl Statement {
    /// Where it begins.
    pub(crate) fn start(&self) -> Position {
        self.tokens.first().map_or(self.end, Position::of)
    }

    /// The text of the tokens with one blank between: the same for every layout and comment.
    pub(crate) fn canonical(&self) -> String {
        ids::canonical(&self.tokens)
    }
}

/// The statements of `text`; empty ones are left out.
pub(crate) fn split(text: &str) -> Sql<Vec<Statement>> {
    if text.len() > SCRIPT_BYTES_MAX {
        let bytes = text.len();
        return Err(SqlError::new(format!("the script has {bytes} bytes; at most {SCRIPT_BYTES_MAX} are read")));
    }
    let mut statements = Vec::new();
    let mut tokens = Vec::new();
    for token in tokenize(text)? {
        if token.token != Token::SemiColon {
            tokens.push(token);
        } else if !tokens.is_empty() {
            statements.push(Statement { tokens: std::mem::take(&mut tokens), end: Position::of(&token) });
        }
    }
    if let Some(last) = tokens.last() {
        let end = Position::from(last.span.end);
        statements.push(Statement { tokens, end });
    }
    statements.iter().try_for_each(check_depth)?;
    statements.iter().try_for_each(|statement| check_retries(&statement.tokens))?;
    Ok(statements)
}

/// The tokens of `text` without blanks and comments.
fn tokenize(text: &str) -> Sql<Vec<TokenWithSpan>> {
    let tokens = Tokenizer::new(&FlinkDialect, text)
        .tokenize_with_location()
        .map_err(|error| SqlError::new(lower_first(&error.message)).at(Position::from(error.location)))?;
    let mut kept = Vec::with_capacity(tokens.len());
    for token in tokens {
        match &token.token {
            Token::Whitespace(_) | Token::EOF => kept.extend(hint::of_comment(&token)),
            Token::DoubleQuotedString(text) => return Err(double_quotes(text, &token)),
            _ => kept.push(token),
        }
    }
    Ok(kept)
}

fn double_quotes(text: &str, token: &TokenWithSpan) -> SqlError {
    SqlError::new(format!("\"{text}\" is quoted with double quotes"))
        .at(Position::of(token))
        .help(format!("write '{text}' for a string, `{text}` for a name"))
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// One level of brackets: the operators since the last comma.
#[derive(Default)]
struct Level {
    operators: usize,
    /// UNION, JOIN and the like, since the bracket: commas stand between columns, not between queries.
    queries: usize,
}

fn check_depth(statement: &Statement) -> Sql<()> {
    let mut levels = vec![Level::default()];
    for token in &statement.tokens {
        match class(&token.token) {
            Class::Open => levels.push(Level::default()),
            Class::Close => drop(levels.pop()),
            Class::Comma => levels.last_mut().into_iter().for_each(|level| level.operators = 0),
            Class::Operator => levels.last_mut().into_iter().for_each(|level| level.operators += 1),
            Class::Query => levels.last_mut().into_iter().for_each(|level| level.queries += 1),
            Class::Other => {}
        }
        if levels.len() > NESTING_MAX {
            return Err(SqlError::new(format!("nested deeper than {NESTING_MAX} levels")).at(Position::of(token)));
        }
        if levels.last().is_some_and(|level| level.queries > OPERATORS_MAX) {
            let sentence = format!("a query has more than {OPERATORS_MAX} UNIONs or joins without brackets");
            return Err(SqlError::new(sentence).at(Position::of(token)));
        }
        if levels.last().is_some_and(|level| level.operators > OPERATORS_MAX) {
            let sentence = format!("an expression has more than {OPERATORS_MAX} operators without brackets");
            return Err(SqlError::new(sentence).at(Position::of(token)));
        }
    }
    Ok(())
}

/// Counts what the parser would read 2 to the power of this many times.
fn check_retries(tokens: &[TokenWithSpan]) -> Sql<()> {
    let (mut intervals, mut positions, mut brackets) = (0, 0, Vec::new());
    for (place, token) in tokens.iter().enumerate() {
        let mut rest = tokens.iter().skip(place + 1).map(|token| &token.token);
        match &token.token {
            Token::Word(word) if word.keyword == Keyword::INTERVAL => {
                let value = rest.find(|token| !matches!(token, Token::Minus | Token::Plus));
                let is_literal = matches!(value, Some(Token::SingleQuotedString(_) | Token::Number(..)));
                intervals += usize::from(!is_literal);
            }
            Token::LParen => {
                let before = place.checked_sub(1).and_then(|before| tokens.get(before)).map(|token| &token.token);
                let is_position = matches!(before, Some(Token::Word(word)) if word.keyword == Keyword::POSITION);
                positions += usize::from(is_position);
                brackets.push(is_position);
            }
            Token::RParen => positions -= usize::from(brackets.pop().unwrap_or(false)),
            _ => {}
        }
        if intervals > RETRIED_MAX || positions > RETRIED_MAX {
            let what = if intervals > RETRIED_MAX { "INTERVALs of an expression" } else { "POSITIONs in each other" };
            return Err(SqlError::new(format!("more than {RETRIED_MAX} {what}")).at(Position::of(token)));
        }
    }
    Ok(())
}

/// What a token does to the depth of the tree.
enum Class {
    Open,
    Close,
    Comma,
    Operator,
    /// Puts a query beside another.
    Query,
    Other,
}

fn class(token: &Token) -> Class {
    match token {
        Token::LParen | Token::LBracket | Token::LBrace => Class::Open,
        Token::RParen | Token::RBracket | Token::RBrace => Class::Close,
        Token::Comma => Class::Comma,
        Token::Word(word) if word.quote_style.is_none() => match word.keyword {
            Keyword::CASE => Class::Open,
            Keyword::END => Class::Close,
            Keyword::AND | Keyword::OR | Keyword::NOT | Keyword::IS | Keyword::BETWEEN | Keyword::LIKE => {
                Class::Operator
            }
            Keyword::AT | Keyword::COLLATE | Keyword::IN => Class::Operator,
            Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::JOIN => Class::Query,
            _ => Class::Other,
        },
        Token::Word(_) | Token::Number(..) | Token::SingleQuotedString(_) | Token::Period => Class::Other,
        _ => Class::Operator,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        split(text).unwrap_err().message().to_owned()
    }

    #[test]
    fn statements_keep_the_places_of_their_tokens() {
        let statements = split("SET 'a' = 'b'; -- one\n;;\n  SELECT x /* two; */ FROM t").unwrap();
        assert_eq!(statements.len(), 2);
        assert_eq!(statements[1].start(), Position { line: 3, column: 3 });
        assert_eq!(statements[1].canonical(), "SELECT x FROM t");
        assert_eq!(Position::of(&statements[1].tokens[2]), Position { line: 3, column: 23 });
    }

    #[test]
    fn a_semicolon_in_a_string_separates_nothing() {
        assert_eq!(split("SELECT 'a;b' FROM t").unwrap().len(), 1);
    }

    #[test]
    fn hints_stay_and_comments_do_not() {
        assert_eq!(split("SELECT /* + no hint */ x FROM t").unwrap()[0].tokens.len(), 4);
        assert_eq!(split("SELECT x FROM t /*+ OPTIONS('a'='b') */").unwrap()[0].tokens.len(), 5);
    }

    #[test]
    fn an_open_string_says_where_it_began() {
        let error = split("SELECT\n 'abc").unwrap_err();
        assert_eq!(error, SqlError::new("unterminated string literal").at(Position { line: 2, column: 2 }));
    }

    #[test]
    fn limits_are_errors_not_overflows() {
        assert!(message(&"(".repeat(100_000)).starts_with("nested deeper than 256"));
        assert!(message(&"CASE ".repeat(300)).starts_with("nested deeper than 256"));
        assert!(message(&format!("SELECT 1{}", "+1".repeat(100_000))).starts_with("an expression has more than"));
        assert!(message(&format!("SELECT {} x", "NOT ".repeat(5_000))).starts_with("an expression has more than"));
        assert!(message(&"x".repeat(SCRIPT_BYTES_MAX + 1)).starts_with("the script has 1048577 bytes"));
        let many = format!("SELECT a, b FROM t{}", " UNION ALL SELECT a, b FROM t".repeat(10_000));
        assert!(message(&many).starts_with("a query has more than 1000 UNIONs"), "commas do not help");
        assert_eq!(message(&"POSITION(".repeat(200)), "more than 8 POSITIONs in each other");
        assert_eq!(message(&"INTERVAL - ".repeat(200)), "more than 8 INTERVALs of an expression");
        assert!(split(&"POSITION('a' IN b), INTERVAL - '1' DAY + ".repeat(200)).is_ok());
        let long_list = format!("SELECT x IN ({}) FROM t", "1, ".repeat(10_000));
        assert!(split(&long_list).is_ok());
    }
}
