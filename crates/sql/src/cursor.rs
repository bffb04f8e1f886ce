//! Reading a statement's tokens one by one: what our own small parsers (DDL, SET, TVF) stand on.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::diagnostic::{Position, Sql, SqlError};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) at: Position,
}

impl<T> At<T> {
    /// `value`, which stands at `at`.
    pub(crate) fn new(value: T, at: Position) -> Self {
        Self { value, at }
    }
}

/// A place between two tokens of a statement.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    tokens: &'a [TokenWithSpan],
    at: usize,
    end: Position,
}

impl<'a> Cursor<'a> {
    /// Before the first of `tokens`; `end` is where the text behind them begins.
    pub(crate) fn new(tokens: &'a [TokenWithSpan], end: Position) -> Self {
        Self { tokens, at: 0, end }
    }

    /// How many tokens are behind the cursor.
    pub(crate) fn index(&self) -> usize {
        self.at
    }

    /// The tokens that were not read yet.
    pub(crate) fn rest(&self) -> &'a [TokenWithSpan] {
        self.tokens.get(self.at..).unwrap_or_default()
    }

    /// Where the next token begins.
    pub(crate) fn position(&self) -> Position {
        self.rest().first().map_or(self.end, Position::of)
    }

    /// Where the text behind the tokens begins.
    pub(crate) fn end(&self) -> Position {
        self.end
    }

    pub(crate) fn is_done(&self) -> bool {
        self.rest().is_empty()
    }

    /// The token `ahead` of the next one.
    pub(crate) fn peek(&self, ahead: usize) -> Option<&'a Token> {
        self.rest().get(ahead).map(|token| &token.token)
    }

    /// Passes one token.
    pub(crate) fn advance(&mut self) -> Option<&'a TokenWithSpan> {
        let token = self.rest().first()?;
        self.at += 1;
        Some(token)
    }

    /// Whether the token `ahead` of the next one is the unquoted word `keyword`, in any case.
    pub(crate) fn peeks(&self, ahead: usize, keyword: &str) -> bool {
        self.peek(ahead).is_some_and(|token| is_keyword(token, keyword))
    }

    /// Passes `keywords` if they are next, all of them.
    pub(crate) fn eat(&mut self, keywords: &[&str]) -> bool {
        let found = keywords.iter().enumerate().all(|(ahead, keyword)| self.peeks(ahead, keyword));
        if found {
            self.at += keywords.len();
        }
        found
    }

    /// Passes `token` if it is next.
    pub(crate) fn eat_token(&mut self, token: &Token) -> bool {
        let found = self.peek(0) == Some(token);
        self.at += usize::from(found);
        found
    }

    /// Passes `keywords` or says that the first of them was expected.
    pub(crate) fn expect(&mut self, keywords: &[&str]) -> Sql<()> {
        if self.eat(keywords) { Ok(()) } else { Err(self.expected(&keywords.join(" "))) }
    }

    /// Passes `token` or says that it was expected.
    pub(crate) fn expect_token(&mut self, token: &Token) -> Sql<()> {
        if self.eat_token(token) { Ok(()) } else { Err(self.expected(&format!("'{token}'"))) }
    }

    /// Says that nothing more was expected, if there is more.
    pub(crate) fn expect_done(&self) -> Sql<()> {
        if self.is_done() { Ok(()) } else { Err(self.expected("the end of the statement")) }
    }

    /// `expected …, found …`, here.
    pub(crate) fn expected(&self, what: &str) -> SqlError {
        let found = self.peek(0).map_or_else(|| "the end of the statement".to_owned(), |token| format!("'{token}'"));
        SqlError::new(format!("expected {what}, found {found}")).at(self.position())
    }

    /// A name, quoted or not.
    pub(crate) fn name(&mut self, what: &str) -> Sql<At<String>> {
        let at = self.position();
        match self.peek(0) {
            Some(Token::Word(word)) => {
                self.at += 1;
                Ok(At::new(word.value.clone(), at))
            }
            _ => Err(self.expected(what)),
        }
    }

    /// A table's name; a dotted one is refused, as catalogs and databases come later.
    pub(crate) fn table_name(&mut self, what: &str) -> Sql<At<String>> {
        let name = self.name(what)?;
        if self.peek(0) == Some(&Token::Period) {
            return Err(SqlError::not_yet("catalogs and databases in table names", name.at));
        }
        Ok(name)
    }

    /// A string in single quotes.
    pub(crate) fn string(&mut self, what: &str) -> Sql<At<String>> {
        let at = self.position();
        match self.peek(0) {
            Some(Token::SingleQuotedString(text)) => {
                self.at += 1;
                Ok(At::new(text.clone(), at))
            }
            _ => Err(self.expected(what)),
        }
    }

    /// The tokens up to the next `,` or closing bracket of this level, which stays.
    pub(crate) fn expression(&mut self, what: &str) -> Sql<&'a [TokenWithSpan]> {
        self.up_to(true, what)
    }

    /// The tokens up to the next closing bracket of this level, which stays.
    pub(crate) fn balanced(&mut self, what: &str) -> Sql<&'a [TokenWithSpan]> {
        self.up_to(false, what)
    }

    fn up_to(&mut self, ends_at_comma: bool, what: &str) -> Sql<&'a [TokenWithSpan]> {
        let rest = self.rest();
        let mut depth = 0_usize;
        let mut length = 0;
        for token in rest {
            match token.token {
                Token::LParen | Token::LBracket => depth += 1,
                Token::Comma if depth == 0 && ends_at_comma => break,
                Token::RParen | Token::RBracket => match depth.checked_sub(1) {
                    Some(outer) => depth = outer,
                    None => break,
                },
                _ => {}
            }
            length += 1;
        }
        if length == 0 {
            return Err(self.expected(what));
        }
        self.at += length;
        Ok(rest.get(..length).unwrap_or_default())
    }
}

/// Whether `token` is the unquoted word `keyword`, in any case.
pub(crate) fn is_keyword(token: &Token, keyword: &str) -> bool {
    unquoted(token).is_some_and(|word| word.value.eq_ignore_ascii_case(keyword))
}

/// The word that `token` is, if it stands without quotes.
pub(crate) fn unquoted(token: &Token) -> Option<&Word> {
    match token {
        Token::Word(word) if word.quote_style.is_none() => Some(word),
        _ => None,
    }
}

/// Where the unquoted word `keyword` first stands in `tokens`.
pub(crate) fn find_keyword(tokens: &[TokenWithSpan], keyword: &str) -> Option<Position> {
    tokens.iter().find(|token| is_keyword(&token.token, keyword)).map(Position::of)
}

/// Where the name `name` first stands in `tokens`, quoted or not.
pub(crate) fn find_name(tokens: &[TokenWithSpan], name: &str) -> Option<Position> {
    let is_name = |token: &&TokenWithSpan| matches!(&token.token, Token::Word(word) if word.value == name);
    tokens.iter().find(is_name).map(Position::of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::split;

    #[test]
    fn reads_keywords_names_and_expressions() {
        let statement = &split("create Table `t x` (a + (b, c), d)").unwrap()[0];
        let mut cursor = Cursor::new(&statement.tokens, statement.end);
        assert!(cursor.eat(&["CREATE", "TABLE"]));
        assert_eq!(cursor.table_name("a table").unwrap().value, "t x");
        cursor.expect_token(&Token::LParen).unwrap();
        assert_eq!(cursor.expression("an expression").unwrap().len(), 7);
        cursor.expect_token(&Token::Comma).unwrap();
        let error = cursor.string("a string").unwrap_err();
        assert_eq!(error, SqlError::new("expected a string, found 'd'").at(Position { line: 1, column: 33 }));
        cursor.advance();
        cursor.advance();
        assert_eq!(cursor.expected("x").message(), "expected x, found the end of the statement");
    }

    #[test]
    fn dotted_tables_come_later() {
        let statement = &split("db.t").unwrap()[0];
        let error = Cursor::new(&statement.tokens, statement.end).table_name("a table").unwrap_err();
        assert_eq!(error.message(), "catalogs and databases in table names are not supported yet (line 1, column 1)");
    }
}
