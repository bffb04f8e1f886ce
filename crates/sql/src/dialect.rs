//! Flink's lexical rules over sqlparser: backticks quote names, single quotes quote strings, names keep their case.

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, Precedence};
use datafusion::sql::sqlparser::keywords::{Keyword, RESERVED_FOR_IDENTIFIER};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

/// The dialect of Ruslo's scripts.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct FlinkDialect;

/// What Flink reserves of the words that begin an expression.
const RESERVED: &[Keyword] = &[
    Keyword::ARRAY,
    Keyword::CASE,
    Keyword::CAST,
    Keyword::CEIL,
    Keyword::CONVERT,
    Keyword::CURRENT_DATE,
    Keyword::CURRENT_TIME,
    Keyword::CURRENT_TIMESTAMP,
    Keyword::EXTRACT,
    Keyword::FLOOR,
    Keyword::LOCALTIME,
    Keyword::LOCALTIMESTAMP,
    Keyword::NOT,
    Keyword::OVERLAY,
    Keyword::SUBSTR,
    Keyword::SUBSTRING,
    Keyword::TRY_CAST,
];

impl Dialect for FlinkDialect {
    fn is_delimited_identifier_start(&self, c: char) -> bool {
        c == '`'
    }

    fn identifier_quote_style(&self, _identifier: &str) -> Option<char> {
        Some('`')
    }

    fn is_identifier_start(&self, c: char) -> bool {
        c.is_alphabetic() || c == '_'
    }

    fn is_identifier_part(&self, c: char) -> bool {
        c.is_alphanumeric() || c == '_' || c == '$'
    }

    /// Words that begin an expression of their own and are no name unless in backticks, as in Flink. Without this, the
    /// parser tries each of them once more as a name if what follows is wrong: twice the time for each level of nesting.
    fn is_reserved_for_identifier(&self, word: Keyword) -> bool {
        RESERVED_FOR_IDENTIFIER.contains(&word) || RESERVED.contains(&word)
    }

    fn supports_unicode_string_literal(&self) -> bool {
        true
    }

    /// `IS [NOT] DISTINCT FROM` takes an operand, as `=` does: sqlparser gives it all that follows, `AND ..`, too.
    fn parse_infix(&self, parser: &mut Parser<'_>, expr: &Expr, _: u8) -> Option<Result<Expr, ParserError>> {
        let is_same = match () {
            () if parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) => false,
            () if parser.parse_keywords(&[Keyword::IS, Keyword::NOT, Keyword::DISTINCT, Keyword::FROM]) => true,
            () => return None,
        };
        let left = Box::new(expr.clone());
        let right = parser.parse_subexpr(self.prec_value(Precedence::Eq)).map(Box::new);
        Some(right.map(|right| match is_same {
            true => Expr::IsNotDistinctFrom(left, right),
            false => Expr::IsDistinctFrom(left, right),
        }))
    }

    // What follows parses so that it can be refused by name, or is Flink's syntax.

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    fn supports_match_recognize(&self) -> bool {
        true
    }

    fn supports_table_versioning(&self) -> bool {
        true
    }

    fn supports_named_fn_args_with_rarrow_operator(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::Expr;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::FlinkDialect;

    #[test]
    fn nested_forms_that_never_end_are_refused_at_once() {
        let begins =
            ["CASE WHEN a THEN ", "CAST(", "TRY_CAST(", "CEIL(", "CONVERT(", "EXTRACT(YEAR FROM ", "NOT (", "TRIM("];
        let more =
            ["FLOOR(", "OVERLAY(", "SUBSTR(", "SUBSTRING(", "CURRENT_TIMESTAMP(", "LOCALTIME(", "EXISTS (", "f("];
        let others = ["ARRAY(", "ARRAY[", "MAP[", "(", "- ", "a IN (", "a BETWEEN ", "a + f(x => "];
        for begin in begins.into_iter().chain(more).chain(others) {
            let text = format!("SELECT {}CASE WHEN", begin.repeat(40));
            let parser = Parser::new(&FlinkDialect).with_recursion_limit(1_000);
            assert!(parser.try_with_sql(&text).and_then(|mut parser| parser.parse_statements()).is_err(), "{text}");
        }
    }

    #[test]
    fn is_distinct_from_takes_one_operand() {
        let text = "a IS NOT DISTINCT FROM b + 1 AND c IS DISTINCT FROM d OR e IS NOT NULL";
        let parsed = Parser::new(&FlinkDialect).try_with_sql(text).unwrap().parse_expr().unwrap();
        let both = |expr: Expr| match expr {
            Expr::BinaryOp { left, op, right } => (*left, op.to_string(), *right),
            other => panic!("{other}"),
        };
        let (left, op, _) = both(parsed);
        assert_eq!(op, "OR");
        let (left, op, right) = both(left);
        assert_eq!(op, "AND");
        assert!(matches!(left, Expr::IsNotDistinctFrom(..)) && matches!(right, Expr::IsDistinctFrom(..)));
    }

    #[test]
    fn backticks_quote_names_and_case_stays() {
        let parsed = Parser::parse_sql(&FlinkDialect, "SELECT windowStart, `select` FROM Bid").unwrap();
        assert_eq!(parsed[0].to_string(), "SELECT windowStart, `select` FROM Bid");
    }
}
