//! CREATE TABLE: columns, computed columns, watermark, primary key, options.

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::cursor::{At, Cursor, is_keyword};
use crate::diagnostic::{Sql, SqlError};
use crate::like::{self, LikeDdl};
use crate::statement::QueryText;
use crate::types;
use ruslo_core::schema::HIDDEN_PREFIX;

/// `CREATE TABLE name (..) WITH (..)`.
#[derive(Debug, Clone)]
pub(crate) struct TableDdl {
    pub(crate) name: At<String>,
    pub(crate) if_not_exists: bool,
    pub(crate) columns: Vec<ColumnDdl>,
    pub(crate) watermark: Option<WatermarkDdl>,
    pub(crate) primary_key: Vec<At<String>>,
    pub(crate) partition_keys: Vec<At<String>>,
    pub(crate) options: Vec<(At<String>, At<String>)>,
    pub(crate) like: Option<LikeDdl>,
    /// CREATE TABLE .. AS.
    pub(crate) query: Option<QueryText>,
}

/// A column.
#[derive(Debug, Clone)]
pub(crate) struct ColumnDdl {
    pub(crate) name: At<String>,
    pub(crate) kind: ColumnKind,
}

/// Where a column's values come from.
#[derive(Debug, Clone)]
pub(crate) enum ColumnKind {
    /// From the connector.
    Physical { data_type: DataType, nullable: bool },
    /// `name AS expression`.
    Computed(Vec<TokenWithSpan>),
    /// `name TYPE METADATA [FROM 'key'] [VIRTUAL]`: from the connector, beside the row.
    Metadata { data_type: DataType, nullable: bool, key: String, is_virtual: bool },
}

/// `WATERMARK FOR column AS expression`.
#[derive(Debug, Clone)]
pub(crate) struct WatermarkDdl {
    pub(crate) column: At<String>,
    pub(crate) expression: Vec<TokenWithSpan>,
}

/// Reads what follows CREATE TABLE.
pub(crate) fn parse_table(cursor: &mut Cursor<'_>) -> Sql<TableDdl> {
    let if_not_exists = cursor.eat(&["IF", "NOT", "EXISTS"]);
    let name = cursor.table_name("the table's name")?;
    let mut table = TableDdl {
        name,
        if_not_exists,
        columns: Vec::new(),
        watermark: None,
        primary_key: Vec::new(),
        partition_keys: Vec::new(),
        options: Vec::new(),
        like: None,
        query: None,
    };
    let without_columns = ["LIKE", "AS", "WITH", "COMMENT", "PARTITIONED"];
    if !without_columns.iter().any(|word| cursor.peeks(0, word)) {
        parse_elements(cursor, &mut table)?;
    }
    parse_clauses(cursor, &mut table)?;
    if table.like.is_none() && table.query.is_none() {
        check_names(&table)?;
    }
    Ok(table)
}

fn parse_elements(cursor: &mut Cursor<'_>, table: &mut TableDdl) -> Sql<()> {
    cursor.expect_token(&Token::LParen)?;
    loop {
        parse_element(cursor, table)?;
        if !cursor.eat_token(&Token::Comma) {
            break;
        }
    }
    cursor.expect_token(&Token::RParen).map_err(|_| cursor.expected("',' or ')'"))
}

fn parse_element(cursor: &mut Cursor<'_>, table: &mut TableDdl) -> Sql<()> {
    let at = cursor.position();
    if cursor.eat(&["WATERMARK", "FOR"]) {
        let watermark = parse_watermark(cursor)?;
        return match table.watermark.replace(watermark) {
            Some(_) => Err(SqlError::new("a table has one watermark at most").at(at)),
            None => Ok(()),
        };
    }
    if cursor.eat(&["CONSTRAINT"]) {
        cursor.name("the constraint's name")?;
        return parse_primary_key(cursor, table);
    }
    if cursor.peeks(0, "PRIMARY") && cursor.peeks(1, "KEY") {
        return parse_primary_key(cursor, table);
    }
    let column = parse_column(cursor, table)?;
    table.columns.push(column);
    Ok(())
}

fn parse_watermark(cursor: &mut Cursor<'_>) -> Sql<WatermarkDdl> {
    let column = cursor.name("the time column")?;
    if cursor.peek(0) == Some(&Token::Period) {
        return Err(SqlError::not_yet("watermarks on nested columns", column.at));
    }
    cursor.expect(&["AS"])?;
    let expression = cursor.expression("the watermark's expression")?.to_vec();
    Ok(WatermarkDdl { column, expression })
}

fn parse_primary_key(cursor: &mut Cursor<'_>, table: &mut TableDdl) -> Sql<()> {
    let at = cursor.position();
    cursor.expect(&["PRIMARY", "KEY"])?;
    let names = parse_names(cursor)?;
    expect_not_enforced(cursor)?;
    set_primary_key(table, names).map_err(|error| error.at(at))
}

fn set_primary_key(table: &mut TableDdl, names: Vec<At<String>>) -> Sql<()> {
    if !table.primary_key.is_empty() {
        return Err(SqlError::new("a table has one primary key at most"));
    }
    table.primary_key = names;
    Ok(())
}

fn expect_not_enforced(cursor: &mut Cursor<'_>) -> Sql<()> {
    if cursor.eat(&["NOT", "ENFORCED"]) {
        return Ok(());
    }
    Err(cursor
        .expected("NOT ENFORCED")
        .help("a stream's primary key is a promise; write PRIMARY KEY (..) NOT ENFORCED"))
}

fn parse_column(cursor: &mut Cursor<'_>, table: &mut TableDdl) -> Sql<ColumnDdl> {
    let name = cursor.name("a column, WATERMARK FOR or PRIMARY KEY")?;
    if cursor.eat(&["AS"]) {
        let tokens = cursor.expression("the column's expression")?;
        return Ok(ColumnDdl { name, kind: ColumnKind::Computed(without_comment(tokens).to_vec()) });
    }
    let data_type = types::parse(cursor)?;
    let mut nullable = true;
    let mut metadata = None;
    loop {
        let at = cursor.position();
        if cursor.eat(&["NOT", "NULL"]) {
            nullable = false;
        } else if cursor.eat(&["PRIMARY", "KEY"]) {
            expect_not_enforced(cursor)?;
            set_primary_key(table, vec![name.clone()]).map_err(|error| error.at(at))?;
        } else if cursor.eat(&["COMMENT"]) {
            cursor.string("the comment in quotes")?;
        } else if cursor.eat(&["METADATA"]) {
            let key = if cursor.eat(&["FROM"]) {
                cursor.string("the metadata's key in quotes")?.value
            } else {
                name.value.clone()
            };
            metadata = Some((key, cursor.eat(&["VIRTUAL"])));
        } else if !cursor.eat(&["NULL"]) {
            break;
        }
    }
    let kind = match metadata {
        Some((key, is_virtual)) => ColumnKind::Metadata { data_type, nullable, key, is_virtual },
        None => ColumnKind::Physical { data_type, nullable },
    };
    Ok(ColumnDdl { name, kind })
}

/// A computed column's tokens without the comment behind them.
fn without_comment(tokens: &[TokenWithSpan]) -> &[TokenWithSpan] {
    match tokens {
        [expression @ .., comment, TokenWithSpan { token: Token::SingleQuotedString(_), .. }]
            if is_keyword(&comment.token, "COMMENT") && !expression.is_empty() =>
        {
            expression
        }
        _ => tokens,
    }
}

/// What follows the columns.
fn parse_clauses(cursor: &mut Cursor<'_>, table: &mut TableDdl) -> Sql<()> {
    if cursor.eat(&["COMMENT"]) {
        cursor.string("the comment in quotes")?;
    }
    if cursor.eat(&["PARTITIONED", "BY"]) {
        table.partition_keys = parse_names(cursor)?;
    }
    if cursor.eat(&["WITH"]) {
        table.options = parse_options(cursor)?;
    }
    if cursor.eat(&["LIKE"]) {
        table.like = Some(like::parse(cursor)?);
    }
    if cursor.eat(&["AS"]) {
        if let (Some(column), _) | (None, Some(column)) =
            (table.columns.first().map(|column| &column.name), table.like.as_ref().map(|like| &like.base))
        {
            let error = SqlError::new("CREATE TABLE .. AS takes its columns from the query").at(column.at);
            return Err(error.help("CREATE the TABLE with columns, then INSERT INTO it"));
        }
        table.query = Some(QueryText { tokens: cursor.rest().to_vec(), end: cursor.end() });
        return if cursor.is_done() { Err(cursor.expected("a query")) } else { Ok(()) };
    }
    if cursor.is_done() { Ok(()) } else { Err(later_clause(cursor)) }
}

fn later_clause(cursor: &Cursor<'_>) -> SqlError {
    let clauses = [("DISTRIBUTED", "DISTRIBUTED BY clauses")];
    match clauses.iter().find(|(word, _)| cursor.peeks(0, word)) {
        Some((_, what)) => SqlError::not_yet(what, cursor.position()),
        None => cursor.expected("WITH ('connector' = '..') or the end of the statement"),
    }
}

/// `('key' = 'value', ..)`.
pub(crate) fn parse_options(cursor: &mut Cursor<'_>) -> Sql<Vec<(At<String>, At<String>)>> {
    let mut options: Vec<(At<String>, At<String>)> = Vec::new();
    cursor.expect_token(&Token::LParen)?;
    loop {
        let key = cursor.string("an option such as 'connector' = 'filesystem'")?;
        cursor.expect_token(&Token::Eq)?;
        let value = cursor.string("the option's value in quotes")?;
        if options.iter().any(|(known, _)| known.value == key.value) {
            return Err(SqlError::new(format!("the option '{}' is given twice", key.value)).at(key.at));
        }
        options.push((key, value));
        if !cursor.eat_token(&Token::Comma) {
            break;
        }
    }
    cursor.expect_token(&Token::RParen).map_err(|_| cursor.expected("',' or ')'"))?;
    Ok(options)
}

/// `(a, b, c)`.
pub(crate) fn parse_names(cursor: &mut Cursor<'_>) -> Sql<Vec<At<String>>> {
    cursor.expect_token(&Token::LParen)?;
    let mut names = vec![cursor.name("a column's name")?];
    while cursor.eat_token(&Token::Comma) {
        names.push(cursor.name("a column's name")?);
    }
    cursor.expect_token(&Token::RParen).map_err(|_| cursor.expected("',' or ')'"))?;
    Ok(names)
}

/// Checks that names are there, and once.
pub(crate) fn check_names(table: &TableDdl) -> Sql<()> {
    let mut seen = std::collections::HashSet::new();
    for ColumnDdl { name, .. } in &table.columns {
        if !seen.insert(name.value.as_str()) {
            return Err(SqlError::new(format!("the column '{}' is declared twice", name.value)).at(name.at));
        }
        if name.value.starts_with(HIDDEN_PREFIX) {
            let sentence = format!("the column '{}' begins with '{HIDDEN_PREFIX}', which is reserved", name.value);
            return Err(SqlError::new(sentence).at(name.at));
        }
    }
    match table.primary_key.iter().find(|key| !seen.contains(key.value.as_str())) {
        Some(key) => {
            let sentence = format!("the primary key's column '{}' is not in the table", key.value);
            Err(SqlError::new(sentence).at(key.at).near(&key.value, seen))
        }
        None if seen.is_empty() => Err(SqlError::new("the table has no columns").at(table.name.at)),
        None => check_partition_keys(table),
    }
}

/// A partition key is a column of the rows.
fn check_partition_keys(table: &TableDdl) -> Sql<()> {
    let physical = table.columns.iter().filter(|column| matches!(column.kind, ColumnKind::Physical { .. }));
    let names: Vec<&str> = physical.map(|column| column.name.value.as_str()).collect();
    for (place, key) in table.partition_keys.iter().enumerate() {
        if !names.contains(&key.value.as_str()) {
            let sentence = format!("PARTITIONED BY: there is no column '{}' that the connector gives", key.value);
            return Err(SqlError::new(sentence).at(key.at).near(&key.value, names));
        }
        if table.partition_keys.iter().take(place).any(|other| other.value == key.value) {
            return Err(SqlError::new(format!("PARTITIONED BY names '{}' twice", key.value)).at(key.at));
        }
    }
    if !names.is_empty() && table.partition_keys.len() == names.len() {
        let sentence = "PARTITIONED BY names every column: none is left for the rows";
        return Err(SqlError::new(sentence).at(table.partition_keys.first().map(|key| key.at)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::split;
    use crate::types::sql_name;

    fn parsed(text: &str) -> Sql<TableDdl> {
        let statement = &split(text).unwrap()[0];
        let mut cursor = Cursor::new(&statement.tokens, statement.end);
        cursor.expect(&["CREATE", "TABLE"])?;
        parse_table(&mut cursor)
    }

    fn refused(text: &str) -> String {
        parsed(text).unwrap_err().message().to_owned()
    }

    #[test]
    fn reads_everything_that_a_table_may_have() {
        let table = parsed(
            "CREATE TABLE IF NOT EXISTS bid (
               auction BIGINT NOT NULL COMMENT 'which', price DECIMAL(10, 2),
               file STRING METADATA FROM 'file.path' VIRTUAL, `date time` TIMESTAMP(3), ts AS CAST(`date time` AS TIMESTAMP(3)) COMMENT 'when',
               WATERMARK FOR ts AS ts - INTERVAL '5' SECOND,
               CONSTRAINT k PRIMARY KEY (auction) NOT ENFORCED
             ) COMMENT 'bids' WITH ('connector' = 'filesystem', 'path' = 'a,b')",
        )
        .unwrap();
        assert!(table.if_not_exists);
        let kinds: Vec<String> = table
            .columns
            .iter()
            .map(|column| match &column.kind {
                ColumnKind::Physical { data_type, nullable } => {
                    format!("{} {} {nullable}", column.name.value, sql_name(data_type))
                }
                ColumnKind::Computed(tokens) => format!("{} of {} tokens", column.name.value, tokens.len()),
                ColumnKind::Metadata { key, is_virtual, .. } => {
                    format!("{} from {key} {is_virtual}", column.name.value)
                }
            })
            .collect();
        assert_eq!(
            kinds,
            [
                "auction BIGINT false",
                "price DECIMAL(10, 2) true",
                "file from file.path true",
                "date time TIMESTAMP(3) true",
                "ts of 9 tokens"
            ]
        );
        assert_eq!(table.watermark.unwrap().expression.len(), 5);
        assert_eq!(table.primary_key[0].value, "auction");
        assert_eq!(table.options[1].1.value, "a,b");
    }

    #[test]
    fn mistakes_are_sentences() {
        let cases = [
            ("CREATE TABLE t (a INT, a STRING)", "the column 'a' is declared twice"),
            ("CREATE TABLE t (__a INT)", "the column '__a' begins with '__', which is reserved"),
            ("CREATE TABLE t (a INT b INT)", "expected ',' or ')', found 'b'"),
            ("CREATE TABLE t (a INT, PRIMARY KEY (a))", "expected NOT ENFORCED, found ')'"),
            (
                "CREATE TABLE t (a INT, PRIMARY KEY (b) NOT ENFORCED)",
                "the primary key's column 'b' is not in the table",
            ),
            ("CREATE TABLE t (a INT) WITH ('x' = 1)", "expected the option's value in quotes, found '1'"),
            ("CREATE TABLE t (a INT) WITH ('x' = '1', 'x' = '2')", "the option 'x' is given twice"),
            ("CREATE TABLE t (a INT METADATA FROM b)", "expected the metadata's key in quotes, found 'b'"),
            (
                "CREATE TABLE t (a INT) PARTITIONED BY (b)",
                "PARTITIONED BY: there is no column 'b' that the connector gives",
            ),
            (
                "CREATE TABLE t (a INT) PARTITIONED BY (a)",
                "PARTITIONED BY names every column: none is left for the rows",
            ),
            ("CREATE TABLE t (a INT, b INT) PARTITIONED BY (a, a)", "PARTITIONED BY names 'a' twice"),
            (
                "CREATE TABLE t LIKE u (INCLUDING WATERMARK)",
                "expected ALL, CONSTRAINTS, GENERATED, METADATA, OPTIONS, PARTITIONS, WATERMARKS, found 'WATERMARK'",
            ),
            ("CREATE TABLE t LIKE u (OVERWRITING ALL)", "OVERWRITING ALL has no meaning"),
            ("CREATE TABLE t (a INT) AS SELECT 1", "CREATE TABLE .. AS takes its columns from the query"),
            ("CREATE TABLE t (WATERMARK FOR a AS a)", "the table has no columns"),
            ("CREATE TABLE t (a INT) WITH ()", "expected an option such as 'connector' = 'filesystem', found ')'"),
        ];
        for (text, message) in cases {
            assert_eq!(refused(text), message, "{text}");
        }
    }
}
