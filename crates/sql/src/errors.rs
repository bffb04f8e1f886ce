//! DataFusion's and sqlparser's errors as sentences of ours, with a place in the user's text.

use datafusion::common::{Column, DataFusionError, SchemaError, Span};
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::cursor::{find_keyword, find_name};
use crate::diagnostic::{Position, SqlError};
use crate::script::NESTING_MAX;

/// So that an error of ours can pass through DataFusion's planner.
impl std::error::Error for SqlError {}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

/// An error of ours for DataFusion to carry.
pub(crate) fn carried(error: SqlError) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// What the parser says, at the place that it names; `end` is where the text, a `what`, ends.
pub(crate) fn from_parser(error: &ParserError, what: &str, end: Position) -> SqlError {
    let text = match error {
        ParserError::RecursionLimitExceeded => {
            return SqlError::new(format!("nested deeper than {NESTING_MAX} levels")).at(end);
        }
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
    };
    let (sentence, at) = match text.rsplit_once(" at Line: ") {
        Some((sentence, place)) => (sentence, parse_place(place)),
        None => (text.as_str(), None),
    };
    let sentence = sentence.replacen("Expected:", "expected", 1).replace("found: ", "found ");
    let sentence = sentence.replace("found EOF", &format!("found the end of the {what}"));
    SqlError::new(sentence.trim()).at(at.unwrap_or(end))
}

/// `3, Column: 12`.
fn parse_place(place: &str) -> Option<Position> {
    let (line, column) = place.split_once(", Column: ")?;
    Some(Position { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? })
}

/// What DataFusion says about a query whose text is `tokens`.
pub(crate) fn from_datafusion(error: &DataFusionError, tokens: &[TokenWithSpan]) -> SqlError {
    let span = error.diagnostic().and_then(|diagnostic| diagnostic.span);
    let error = sentence(error, span.and_then(position_of), tokens);
    let named = error.quoted().and_then(|name| find_name(tokens, name).or_else(|| find_text(tokens, name)));
    let called = error.message().split([' ', '(']).next().and_then(|word| find_call(tokens, word));
    error.or_at(named.or(called))
}

/// Where the text `text` first stands as a constant.
fn find_text(tokens: &[TokenWithSpan], text: &str) -> Option<Position> {
    let is_text = |token: &&TokenWithSpan| matches!(&token.token, Token::SingleQuotedString(value) if value == text);
    tokens.iter().find(is_text).map(Position::of)
}

/// Where the function is called that a sentence begins with.
fn find_call(tokens: &[TokenWithSpan], word: &str) -> Option<Position> {
    let is_function = word.len() > 1 && word.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_');
    if is_function { find_keyword(tokens, word) } else { None }
}

fn sentence(error: &DataFusionError, at: Option<Position>, tokens: &[TokenWithSpan]) -> SqlError {
    match root(error) {
        DataFusionError::External(external) => match external.downcast_ref::<SqlError>() {
            Some(ours) => ours.clone().or_at(at),
            None => SqlError::internal(external.to_string()),
        },
        DataFusionError::SchemaError(error, _) => from_schema(error, at, tokens),
        DataFusionError::Plan(message) => from_plan(message, at, tokens),
        DataFusionError::NotImplemented(message) => SqlError::new(format!("not supported yet: {message}")).at(at),
        DataFusionError::Internal(message) => SqlError::internal(first_line(message)),
        other => SqlError::new(first_line(&other.strip_backtrace())).at(at),
    }
}

/// The innermost error that is DataFusion's.
fn root(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => root(inner),
        DataFusionError::Shared(inner) => root(inner),
        DataFusionError::Collection(errors) => errors.first().map_or(error, root),
        other => other,
    }
}

fn position_of(span: Span) -> Option<Position> {
    (span.start.line > 0).then_some(Position { line: span.start.line, column: span.start.column })
}

fn from_schema(error: &SchemaError, at: Option<Position>, tokens: &[TokenWithSpan]) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => unknown_column(field, valid_fields, at, tokens),
        SchemaError::AmbiguousReference { field } => {
            let at = at.or_else(|| find_name(tokens, &field.name));
            SqlError::new(format!("the column '{}' is ambiguous", field.name)).at(at)
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            let at = at.or_else(|| find_name(tokens, name));
            SqlError::new(format!("the column '{name}' comes twice")).at(at).help("name one of them with AS")
        }
    }
}

fn unknown_column(field: &Column, valid: &[Column], at: Option<Position>, tokens: &[TokenWithSpan]) -> SqlError {
    let at = at.or_else(|| find_name(tokens, &field.name));
    let tables: Vec<&str> = valid.iter().filter_map(|column| column.relation.as_ref()).map(|t| t.table()).collect();
    if let Some(table) = field.relation.as_ref().map(|relation| relation.table()).filter(|t| !tables.contains(t)) {
        let error = SqlError::new(format!("there is no table '{table}' in this query"));
        return error.at(at).near(table, tables.iter().copied());
    }
    SqlError::new(format!("there is no column '{}'", field.name))
        .at(at)
        .near(&field.name, valid.iter().map(|column| column.name.as_str()))
}

fn from_plan(message: &str, at: Option<Position>, tokens: &[TokenWithSpan]) -> SqlError {
    if message.contains("must appear in the GROUP BY clause") {
        let name = message.split('"').nth(1).unwrap_or_default();
        let name = name.rsplit('.').next().unwrap_or(name);
        let at = at.or_else(|| find_name(tokens, name));
        let sentence = format!("the column '{name}' is neither in GROUP BY nor inside an aggregate");
        return SqlError::new(sentence).at(at);
    }
    if message.starts_with("Projections require unique expression names") {
        let name = message.split('"').nth(1).unwrap_or_default();
        let name = name.rsplit('.').next().unwrap_or(name);
        let sentence = format!("the column '{name}' comes twice");
        return SqlError::new(sentence).at(at).help("name one of them with AS");
    }
    if let Some(name) = message.strip_prefix("Field ").and_then(|rest| rest.split_once(" not found in struct")) {
        let at = at.or_else(|| find_name(tokens, name.0));
        return SqlError::new(format!("the row has no field '{}'", name.0)).at(at);
    }
    SqlError::new(first_line(message)).at(at)
}

fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim_end_matches(['.', ' ']);
    line.trim_start_matches("Error during planning: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: Position = Position { line: 9, column: 9 };

    #[test]
    fn a_parsers_error_keeps_its_place() {
        let error = ParserError::ParserError("Expected: ), found: FROM at Line: 2, Column: 5".to_owned());
        let expected = SqlError::new("expected ), found FROM").at(Position { line: 2, column: 5 });
        assert_eq!(from_parser(&error, "statement", END), expected);
        let error = ParserError::ParserError("Expected: an expression, found: EOF".to_owned());
        let expected = SqlError::new("expected an expression, found the end of the statement").at(END);
        assert_eq!(from_parser(&error, "statement", END), expected);
    }

    #[test]
    fn an_error_of_ours_passes_through() {
        let ours = SqlError::new("no").at(END);
        assert_eq!(from_datafusion(&carried(ours.clone()).context("while planning"), &[]), ours);
    }
}
