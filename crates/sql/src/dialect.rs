//! Flink's lexical rules over sqlparser: backticks quote names, single quotes quote strings, names keep their case.

use datafusion::sql::sqlparser::dialect::Dialect;

/// The dialect of Ruslo's scripts.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct FlinkDialect;

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

    fn supports_unicode_string_literal(&self) -> bool {
        true
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
    use datafusion::sql::sqlparser::parser::Parser;

    use super::FlinkDialect;

    #[test]
    fn backticks_quote_names_and_case_stays() {
        let parsed = Parser::parse_sql(&FlinkDialect, "SELECT windowStart, `select` FROM Bid").unwrap();
        assert_eq!(parsed[0].to_string(), "SELECT windowStart, `select` FROM Bid");
    }
}
