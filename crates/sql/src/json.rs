//! The clauses of JSON functions, which sqlparser cannot read, as arguments of functions of ours, on the tokens.
//!
//! | text | becomes |
//! |---|---|
//! | `JSON_VALUE(j, p RETURNING T DEFAULT d ON EMPTY ERROR ON ERROR)` | `CAST(json_value(j, p, 'DEFAULT', CAST(d AS STRING), 'ERROR', NULL) AS T)` |
//! | `JSON_QUERY(j, p WITH ARRAY WRAPPER EMPTY ARRAY ON EMPTY)` | `json_query(j, p, 'UNCONDITIONAL', 'EMPTY ARRAY', 'NULL')` |
//! | `JSON_QUERY(j, p RETURNING ARRAY<STRING>)` | `` `json_query_array`(j, p, 'WITHOUT', 'NULL', 'NULL') `` |
//! | `JSON_EXISTS(j, p UNKNOWN ON ERROR)` | `json_exists(j, p, 'UNKNOWN')` |
//! | `JSON_OBJECT(KEY k VALUE v ABSENT ON NULL)` | `json_object('ABSENT', k, v)` |
//! | `JSON_ARRAY(a, b NULL ON NULL)` | `json_array('NULL', a, b)` |
//! | `x IS NOT JSON OBJECT` | `x IS DISTINCT FROM` a name that `forms` makes `NOT is_json(x, 'OBJECT')` of |

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::keywords::{ALL_KEYWORDS, ALL_KEYWORDS_INDEX, Keyword};
use datafusion::sql::sqlparser::tokenizer::{Span, Token, TokenWithSpan, Word};

use crate::cursor::{Cursor, is_keyword};
use crate::diagnostic::{Position, Sql, SqlError};
use crate::types;

/// The name behind which a kind of JSON stands, in place of `JSON`.
pub(crate) const IS_JSON: &str = "is json ";

/// `tokens` with every JSON function and predicate in a form that sqlparser reads.
pub(crate) fn readable(tokens: &[TokenWithSpan]) -> Sql<Vec<TokenWithSpan>> {
    let mut out = Vec::with_capacity(tokens.len());
    let mut rest = tokens;
    while let Some((first, after)) = rest.split_first() {
        if let Some((predicate, after)) = predicate(rest) {
            out.extend(predicate);
            rest = after;
            continue;
        }
        let function = FUNCTIONS.iter().find(|name| is_keyword(&first.token, name));
        match (function, after.split_first()) {
            (Some(function), Some((open, inside))) if open.token == Token::LParen => {
                let (inside, after) = inside.split_at(closing(inside));
                let inside = readable(inside)?;
                Call { function, at: first.span }.write(first, &inside, &mut out)?;
                // The closing bracket is written with the call.
                rest = after.get(1..).unwrap_or_default();
            }
            _ => {
                out.push(first.clone());
                rest = after;
            }
        }
    }
    Ok(out)
}

const FUNCTIONS: [&str; 5] = ["JSON_VALUE", "JSON_QUERY", "JSON_EXISTS", "JSON_OBJECT", "JSON_ARRAY"];

/// How many tokens stand before the bracket that closes the one before them.
fn closing(tokens: &[TokenWithSpan]) -> usize {
    let mut depth = 0usize;
    for (place, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => return place,
            Token::RParen => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

/// `IS [NOT] JSON [VALUE | SCALAR | ARRAY | OBJECT]`, and what follows it.
fn predicate(tokens: &[TokenWithSpan]) -> Option<(Vec<TokenWithSpan>, &[TokenWithSpan])> {
    let is = |place: usize, word: &str| tokens.get(place).is_some_and(|token| is_keyword(&token.token, word));
    let negated = usize::from(is(1, "NOT"));
    if !is(0, "IS") || !is(1 + negated, "JSON") {
        return None;
    }
    let kind = ["VALUE", "SCALAR", "ARRAY", "OBJECT"].into_iter().find(|kind| is(2 + negated, kind));
    let span = tokens.get(1 + negated)?.span;
    let mut words = vec![keyword("IS", span)];
    if negated == 0 {
        words.push(keyword("NOT", span));
    }
    words.extend([keyword("DISTINCT", span), keyword("FROM", span)]);
    words.push(quoted(&format!("{IS_JSON}{}", kind.unwrap_or("VALUE")), span));
    Some((words, tokens.get(2 + negated + usize::from(kind.is_some())..)?))
}

fn token(token: Token, span: Span) -> TokenWithSpan {
    TokenWithSpan { token, span }
}

fn keyword(word: &str, span: Span) -> TokenWithSpan {
    let place = ALL_KEYWORDS.binary_search(&word).ok();
    let keyword = place.and_then(|place| ALL_KEYWORDS_INDEX.get(place)).copied().unwrap_or(Keyword::NoKeyword);
    token(Token::Word(Word { value: word.to_owned(), quote_style: None, keyword }), span)
}

fn quoted(name: &str, span: Span) -> TokenWithSpan {
    token(Token::Word(Word { value: name.to_owned(), quote_style: Some('`'), keyword: Keyword::NoKeyword }), span)
}

fn text(value: &str, span: Span) -> TokenWithSpan {
    token(Token::SingleQuotedString(value.to_owned()), span)
}

/// A call of one of [`FUNCTIONS`].
struct Call<'a> {
    function: &'a str,
    at: Span,
}

/// `NULL ON EMPTY`: what is given, and its expression behind DEFAULT.
#[derive(Default)]
struct Clause {
    kind: Option<String>,
    default: Vec<TokenWithSpan>,
}

/// What stands behind the arguments.
#[derive(Default)]
struct Clauses {
    returning: Vec<TokenWithSpan>,
    wrapper: Option<&'static str>,
    on_empty: Clause,
    on_error: Clause,
    on_null: Option<String>,
}

impl Call<'_> {
    fn write(&self, name: &TokenWithSpan, inside: &[TokenWithSpan], out: &mut Vec<TokenWithSpan>) -> Sql<()> {
        let (arguments, clauses) = inside.split_at(self.clauses_at(inside));
        let clauses = self.clauses(clauses)?;
        let cast = if clauses.on_error.kind.as_deref() == Some("ERROR") { "CAST" } else { "TRY_CAST" };
        let is_array = self.function == "JSON_QUERY" && self.returns_array(&clauses)?;
        let is_cast = self.function == "JSON_VALUE" && !clauses.returning.is_empty();
        if is_cast {
            out.extend([keyword(cast, self.at), token(Token::LParen, self.at)]);
        }
        out.push(if is_array { quoted("json_query_array", self.at) } else { name.clone() });
        out.push(token(Token::LParen, self.at));
        if matches!(self.function, "JSON_OBJECT" | "JSON_ARRAY") {
            let default = if self.function == "JSON_ARRAY" { "ABSENT" } else { "NULL" };
            out.push(text(clauses.on_null.as_deref().unwrap_or(default), self.at));
            if !arguments.is_empty() {
                out.push(token(Token::Comma, self.at));
            }
            out.extend(self.pairs(arguments));
        } else {
            out.extend_from_slice(arguments);
            self.write_clauses(&clauses, out);
        }
        out.push(token(Token::RParen, self.at));
        if is_cast {
            out.push(keyword("AS", self.at));
            out.extend(clauses.returning);
            out.push(token(Token::RParen, self.at));
        }
        Ok(())
    }

    /// Whether JSON_QUERY gives an ARRAY<STRING>, not a STRING.
    fn returns_array(&self, clauses: &Clauses) -> Sql<bool> {
        let Some((first, last)) = clauses.returning.first().zip(clauses.returning.last()) else { return Ok(false) };
        let returned = types::parse(&mut Cursor::new(&clauses.returning, Position::from(last.span.end)))?;
        let is_array = returned == types::list(DataType::Utf8);
        if !is_array && returned != DataType::Utf8 {
            let sentence = format!("JSON_QUERY gives a STRING or an ARRAY<STRING>, not {}", types::sql_name(&returned));
            return Err(SqlError::new(sentence).at(Position::of(first)));
        }
        let is_object = |clause: &Clause| clause.kind.as_deref() == Some("EMPTY OBJECT");
        if is_array && (is_object(&clauses.on_empty) || is_object(&clauses.on_error)) {
            let error = SqlError::new("JSON_QUERY .. RETURNING ARRAY<STRING> cannot give an EMPTY OBJECT");
            return Err(error.at(Position::of(first)).help("EMPTY ARRAY it can"));
        }
        Ok(is_array)
    }

    fn write_clauses(&self, clauses: &Clauses, out: &mut Vec<TokenWithSpan>) {
        let comma = || token(Token::Comma, self.at);
        let kind = |clause: &Clause| text(clause.kind.as_deref().unwrap_or("NULL"), self.at);
        match self.function {
            "JSON_EXISTS" => {
                let kind = clauses.on_error.kind.as_deref().unwrap_or("FALSE");
                out.extend([comma(), text(kind, self.at)]);
            }
            "JSON_QUERY" => {
                out.extend([comma(), text(clauses.wrapper.unwrap_or("WITHOUT"), self.at)]);
                out.extend([comma(), kind(&clauses.on_empty), comma(), kind(&clauses.on_error)]);
            }
            _ => {
                for clause in [&clauses.on_empty, &clauses.on_error] {
                    out.extend([comma(), kind(clause), comma()]);
                    if clause.default.is_empty() {
                        out.push(keyword("NULL", self.at));
                    } else {
                        out.extend([keyword("CAST", self.at), token(Token::LParen, self.at)]);
                        out.extend(clause.default.iter().cloned());
                        out.extend([keyword("AS", self.at), keyword("STRING", self.at), token(Token::RParen, self.at)]);
                    }
                }
            }
        }
    }

    /// Arguments with commas where `KEY k VALUE v` has words.
    fn pairs(&self, arguments: &[TokenWithSpan]) -> Vec<TokenWithSpan> {
        let (mut out, mut depth, mut begins) = (Vec::new(), 0usize, true);
        for argument in arguments {
            match &argument.token {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
                _ => {}
            }
            let is_object = self.function == "JSON_OBJECT" && depth == 0;
            if is_object && begins && is_keyword(&argument.token, "KEY") {
                continue;
            }
            let is_value = is_object && !begins && is_keyword(&argument.token, "VALUE");
            out.push(if is_value { token(Token::Comma, argument.span) } else { argument.clone() });
            begins = depth == 0 && argument.token == Token::Comma;
        }
        out
    }

    /// Where the clauses begin behind the arguments: at a word that no argument goes on with.
    fn clauses_at(&self, inside: &[TokenWithSpan]) -> usize {
        let mut depth = 0usize;
        let mut begins = true;
        for (place, token) in inside.iter().enumerate() {
            match &token.token {
                Token::LParen | Token::LBracket => depth += 1,
                Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
                _ => {}
            }
            let is_word = CLAUSE_WORDS.iter().any(|word| is_keyword(&token.token, word));
            let first_of_on_null = place == 0 && inside.get(1).is_some_and(|next| is_keyword(&next.token, "ON"));
            if depth == 0 && is_word && (!begins || first_of_on_null) {
                return place;
            }
            begins = matches!(token.token, Token::Comma) || is_keyword(&token.token, "VALUE");
        }
        inside.len()
    }

    fn clauses(&self, tokens: &[TokenWithSpan]) -> Sql<Clauses> {
        let mut clauses = Clauses::default();
        let mut rest = tokens;
        while let Some(first) = rest.first() {
            let is = |place: usize, word: &str| rest.get(place).is_some_and(|token| is_keyword(&token.token, word));
            if is(0, "RETURNING") {
                let length = 1 + rest.iter().skip(1).take_while(|token| !is_clause_word(token)).count();
                clauses.returning = rest.get(1..length).unwrap_or_default().to_vec();
                if !matches!(self.function, "JSON_VALUE" | "JSON_QUERY") {
                    let sentence = format!("{} takes no RETURNING", self.function);
                    return Err(SqlError::new(sentence).at(Position::of(first)));
                }
                rest = rest.get(length..).unwrap_or_default();
            } else if is(0, "WITH") || is(0, "WITHOUT") {
                let length = 1 + rest.iter().take_while(|token| !is_keyword(&token.token, "WRAPPER")).count();
                let conditional = rest.iter().take(length).any(|token| is_keyword(&token.token, "CONDITIONAL"));
                clauses.wrapper = Some(match (is(0, "WITH"), conditional) {
                    (false, _) => "WITHOUT",
                    (true, true) => "CONDITIONAL",
                    (true, false) => "UNCONDITIONAL",
                });
                rest = rest.get(length..).unwrap_or_default();
            } else {
                rest = self.on_clause(rest, &mut clauses)?;
            }
        }
        Ok(clauses)
    }

    /// Reads `NULL ON EMPTY` and the like; gives what follows.
    fn on_clause<'t>(&self, rest: &'t [TokenWithSpan], clauses: &mut Clauses) -> Sql<&'t [TokenWithSpan]> {
        let on = rest.iter().position(|token| is_keyword(&token.token, "ON"));
        let unfinished = || {
            let sentence = format!("{}: expected .. ON EMPTY, .. ON ERROR or .. ON NULL", self.function);
            SqlError::new(sentence).at(rest.first().map(Position::of))
        };
        let (given, after) = rest.split_at(on.ok_or_else(unfinished)?);
        let (first, others) = given.split_first().ok_or_else(unfinished)?;
        let is_default = is_keyword(&first.token, "DEFAULT");
        let words = if is_default { vec!["DEFAULT".to_owned()] } else { given.iter().map(word).collect() };
        let clause =
            Clause { kind: Some(words.join(" ")), default: if is_default { others.to_vec() } else { Vec::new() } };
        let target = after.get(1).ok_or_else(unfinished)?;
        let known = self.kinds(&target.token);
        if !known.iter().any(|kind| Some(*kind) == clause.kind.as_deref()) {
            return Err(unfinished());
        }
        match word(target).as_str() {
            "EMPTY" => clauses.on_empty = clause,
            "ERROR" => clauses.on_error = clause,
            _ => clauses.on_null = clause.kind,
        }
        Ok(after.get(2..).unwrap_or_default())
    }

    /// What the function knows before `ON target`.
    fn kinds(&self, target: &Token) -> &'static [&'static str] {
        let target = match ["EMPTY", "ERROR", "NULL"].into_iter().find(|word| is_keyword(target, word)) {
            Some(target) => target,
            None => return &[],
        };
        match (self.function, target) {
            ("JSON_VALUE", "EMPTY" | "ERROR") => &["NULL", "ERROR", "DEFAULT"],
            ("JSON_QUERY", "EMPTY" | "ERROR") => &["NULL", "ERROR", "EMPTY ARRAY", "EMPTY OBJECT"],
            ("JSON_EXISTS", "ERROR") => &["TRUE", "FALSE", "UNKNOWN", "ERROR"],
            ("JSON_OBJECT" | "JSON_ARRAY", "NULL") => &["NULL", "ABSENT"],
            _ => &[],
        }
    }
}

const CLAUSE_WORDS: [&str; 11] =
    ["RETURNING", "WITH", "WITHOUT", "NULL", "ERROR", "DEFAULT", "EMPTY", "TRUE", "FALSE", "UNKNOWN", "ABSENT"];

fn is_clause_word(token: &TokenWithSpan) -> bool {
    CLAUSE_WORDS.iter().any(|word| is_keyword(&token.token, word))
}

fn word(token: &TokenWithSpan) -> String {
    token.token.to_string().to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::split;

    fn rewritten(text: &str) -> Result<String, String> {
        let statement = &split(text).unwrap()[0];
        let tokens = readable(&statement.tokens).map_err(|error| error.message().to_owned())?;
        let words: Vec<String> = tokens.iter().map(|token| token.token.to_string()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn clauses_become_arguments() {
        let cases = [
            ("JSON_VALUE(j, '$.a')", "JSON_VALUE ( j , '$.a' , 'NULL' , NULL , 'NULL' , NULL )"),
            (
                "JSON_VALUE(j, '$.a' RETURNING INT DEFAULT 1 + 1 ON EMPTY ERROR ON ERROR)",
                "CAST ( JSON_VALUE ( j , '$.a' , 'DEFAULT' , CAST ( 1 + 1 AS STRING ) , 'ERROR' , NULL ) AS INT )",
            ),
            (
                "JSON_QUERY(j, '$' WITH CONDITIONAL ARRAY WRAPPER EMPTY OBJECT ON ERROR)",
                "JSON_QUERY ( j , '$' , 'CONDITIONAL' , 'NULL' , 'EMPTY OBJECT' )",
            ),
            (
                "JSON_QUERY(j, '$' RETURNING ARRAY<STRING> WITH WRAPPER)",
                "`json_query_array` ( j , '$' , 'UNCONDITIONAL' , 'NULL' , 'NULL' )",
            ),
            ("JSON_EXISTS(j, '$' TRUE ON ERROR)", "JSON_EXISTS ( j , '$' , 'TRUE' )"),
            (
                "JSON_OBJECT(KEY 'a' VALUE NULL, 'b' VALUE f(x, 1) ABSENT ON NULL)",
                "JSON_OBJECT ( 'ABSENT' , 'a' , NULL , 'b' , f ( x , 1 ) )",
            ),
            ("JSON_OBJECT()", "JSON_OBJECT ( 'NULL' )"),
            ("JSON_ARRAY(1, NULL, JSON_ARRAY())", "JSON_ARRAY ( 'ABSENT' , 1 , NULL , JSON_ARRAY ( 'ABSENT' ) )"),
            ("x IS JSON", "x IS NOT DISTINCT FROM `is json VALUE`"),
            ("x IS NOT JSON ARRAY AND y", "x IS DISTINCT FROM `is json ARRAY` AND y"),
        ];
        for (text, expected) in cases {
            assert_eq!(rewritten(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn clauses_that_are_none_are_refused() {
        let error = rewritten("JSON_VALUE(j, '$' EMPTY ARRAY ON EMPTY)").unwrap_err();
        assert_eq!(error, "JSON_VALUE: expected .. ON EMPTY, .. ON ERROR or .. ON NULL");
        let error = |text: &str| rewritten(text).unwrap_err();
        let integers = error("JSON_QUERY(j, '$' RETURNING ARRAY<INT>)");
        assert_eq!(integers, "JSON_QUERY gives a STRING or an ARRAY<STRING>, not ARRAY<INT>");
        let object = error("JSON_QUERY(j, '$' RETURNING ARRAY<STRING> EMPTY OBJECT ON EMPTY)");
        assert_eq!(object, "JSON_QUERY .. RETURNING ARRAY<STRING> cannot give an EMPTY OBJECT");
    }
}
