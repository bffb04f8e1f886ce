//! Flink's SQL types and what they are in Arrow: one parser for DDL and CAST, and the way back for messages.
//!
//! | SQL | Arrow |
//! |---|---|
//! | TINYINT, SMALLINT, INT, BIGINT | Int8, Int16, Int32, Int64 |
//! | FLOAT, DOUBLE | Float32, Float64 |
//! | DECIMAL(p, s) | Decimal128(p, s); (10, 0) without numbers |
//! | STRING, VARCHAR(n), CHAR(n) | Utf8; the length is not enforced |
//! | BYTES, VARBINARY(n), BINARY(n) | Binary; the length is not enforced |
//! | DATE, TIME(p) | Date32, Time32 in milliseconds |
//! | TIMESTAMP(p) | without zone; p ≤ 3: milliseconds, p ≤ 6 (the default): microseconds, else nanoseconds |
//! | TIMESTAMP_LTZ(p) | the same with the zone UTC |
//! | `ARRAY<T>`, `MAP<K, V>`, `ROW<a T, ..>` | List, Map, Struct; NOT NULL inside them is not enforced |

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::Result as DfResult;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::cursor::Cursor;
use crate::diagnostic::{Sql, SqlError};
use crate::errors::carried;
use crate::script::split;

/// The zone of TIMESTAMP_LTZ.
pub(crate) const UTC: &str = "UTC";

const NAMES: &str = "STRING VARCHAR CHAR BOOLEAN TINYINT SMALLINT INT INTEGER BIGINT FLOAT REAL DOUBLE DECIMAL DEC NUMERIC \
    DATE TIME TIMESTAMP TIMESTAMP_LTZ BYTES VARBINARY BINARY ARRAY MAP ROW MULTISET";

/// How deep types may nest.
const DEPTH_MAX: usize = 64;

/// Reads a type: `DECIMAL(10, 2)`, `TIMESTAMP(3) WITHOUT TIME ZONE`, `MAP<STRING, ARRAY<INT>>`. NOT NULL behind it is the
/// caller's.
pub(crate) fn parse(cursor: &mut Cursor<'_>) -> Sql<DataType> {
    let mut brackets = Brackets::default();
    let data_type = brackets.parse(cursor)?;
    if brackets.owed == 0 { Ok(data_type) } else { Err(cursor.expected("one '>' less")) }
}

/// The angle brackets around the type that is being read. The tokenizer makes one token of `>>`, which closes two.
#[derive(Default)]
struct Brackets {
    depth: usize,
    /// Brackets that were closed by the token that closed an inner one.
    owed: usize,
}

impl Brackets {
    fn parse(&mut self, cursor: &mut Cursor<'_>) -> Sql<DataType> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(SqlError::new(format!("a type is nested deeper than {DEPTH_MAX} levels")).at(cursor.position()));
        }
        let at = cursor.position();
        let mut data_type = if cursor.eat(&["ARRAY"]) {
            self.open(cursor, "'<' and the elements' type, as in ARRAY<INT>")?;
            let element = self.parse_inside(cursor)?;
            self.close(cursor)?;
            list(element)
        } else if cursor.eat(&["MAP"]) {
            self.parse_map(cursor)?
        } else if cursor.eat(&["ROW"]) {
            self.parse_row(cursor)?
        } else if cursor.peeks(0, "MULTISET") {
            return Err(multiset().at(at));
        } else {
            parse_scalar(cursor)?
        };
        while self.owed == 0 && cursor.eat(&["ARRAY"]) {
            data_type = list(data_type);
        }
        if self.owed == 0 && cursor.peeks(0, "MULTISET") {
            return Err(multiset().at(cursor.position()));
        }
        self.depth -= 1;
        Ok(data_type)
    }

    /// A type inside another, with the NOT NULL that may follow it.
    fn parse_inside(&mut self, cursor: &mut Cursor<'_>) -> Sql<DataType> {
        let data_type = self.parse(cursor)?;
        if self.owed == 0 && !cursor.eat(&["NOT", "NULL"]) {
            cursor.eat(&["NULL"]);
        }
        Ok(data_type)
    }

    fn parse_map(&mut self, cursor: &mut Cursor<'_>) -> Sql<DataType> {
        self.open(cursor, "'<' and two types, as in MAP<STRING, INT>")?;
        let at = cursor.position();
        let key = self.parse_inside(cursor)?;
        if key.is_nested() {
            return Err(SqlError::new(format!("a map's key cannot be {}", sql_name(&key))).at(at));
        }
        if self.owed > 0 || !cursor.eat_token(&Token::Comma) {
            return Err(cursor.expected("',' and the type of the map's values"));
        }
        let value = self.parse_inside(cursor)?;
        self.close(cursor)?;
        Ok(map(key, value))
    }

    /// `<a INT, b STRING>` or `(a INT, b STRING)`.
    fn parse_row(&mut self, cursor: &mut Cursor<'_>) -> Sql<DataType> {
        let round = cursor.eat_token(&Token::LParen);
        if !round {
            self.open(cursor, "'<' and fields, as in ROW<a INT, b STRING>")?;
        }
        let mut fields: Vec<Field> = Vec::new();
        loop {
            let name = cursor.name("a field's name")?;
            if fields.iter().any(|field| *field.name() == name.value) {
                return Err(SqlError::new(format!("the field '{}' is declared twice", name.value)).at(name.at));
            }
            fields.push(Field::new(name.value, self.parse_inside(cursor)?, true));
            if self.owed == 0 && cursor.eat(&["COMMENT"]) {
                cursor.string("the comment in quotes")?;
            }
            if self.owed > 0 || !cursor.eat_token(&Token::Comma) {
                break;
            }
        }
        if round {
            cursor.expect_token(&Token::RParen)?
        } else {
            self.close(cursor)?
        }
        Ok(DataType::Struct(fields.into()))
    }

    fn open(&mut self, cursor: &mut Cursor<'_>, what: &str) -> Sql<()> {
        if cursor.eat_token(&Token::Lt) { Ok(()) } else { Err(cursor.expected(what)) }
    }

    fn close(&mut self, cursor: &mut Cursor<'_>) -> Sql<()> {
        if let Some(owed) = self.owed.checked_sub(1) {
            self.owed = owed;
            return Ok(());
        }
        if cursor.eat_token(&Token::ShiftRight) {
            self.owed += 1;
            return Ok(());
        }
        if cursor.eat_token(&Token::Gt) { Ok(()) } else { Err(cursor.expected("',' or '>'")) }
    }
}

fn multiset() -> SqlError {
    SqlError::new("there is no MULTISET").help("an ARRAY keeps duplicates, a MAP<T, INT> counts them")
}

/// ARRAY<element>.
pub(crate) fn list(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", element, true)))
}

/// MAP<key, value>.
pub(crate) fn map(key: DataType, value: DataType) -> DataType {
    let fields = vec![Field::new("key", key, false), Field::new("value", value, true)];
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(fields.into()), false)), false)
}

/// The types of a map's keys and values.
pub(crate) fn key_and_value(entries: &Field) -> Option<(&DataType, &DataType)> {
    match entries.data_type() {
        DataType::Struct(fields) => match fields.iter().as_slice() {
            [key, value] => Some((key.data_type(), value.data_type())),
            _ => None,
        },
        _ => None,
    }
}

/// Whether a nested type begins at the cursor, which stands behind AS: `ARRAY<`, `MAP<`, `ROW<`, `ROW(`.
pub(crate) fn begins_nested(cursor: &Cursor<'_>) -> bool {
    let word = |word| cursor.peeks(0, word);
    let angle = cursor.peek(1) == Some(&Token::Lt);
    ((word("ARRAY") || word("MAP") || word("ROW")) && angle)
        || (word("ROW") && cursor.peek(1) == Some(&Token::LParen))
        || word("MULTISET")
}

fn parse_scalar(cursor: &mut Cursor<'_>) -> Sql<DataType> {
    let name = cursor.name("a type")?;
    let upper = name.value.to_uppercase();
    if upper == "DOUBLE" {
        cursor.eat(&["PRECISION"]);
    }
    let numbers = parse_numbers(cursor)?;
    let local_zone = upper == "TIMESTAMP_LTZ" || (upper == "TIMESTAMP" && parse_zone(cursor)?);
    let known = data_type(&upper, &numbers, local_zone).map_err(|sentence| SqlError::new(sentence).at(name.at))?;
    known.ok_or_else(|| {
        SqlError::new(format!("there is no type '{}'", name.value))
            .at(name.at)
            .near(&name.value, NAMES.split_whitespace())
    })
}

/// `(3)`, `(10, 2)`, or nothing.
fn parse_numbers(cursor: &mut Cursor<'_>) -> Sql<Vec<u8>> {
    let mut numbers = Vec::new();
    if !cursor.eat_token(&Token::LParen) {
        return Ok(numbers);
    }
    loop {
        let Some(Token::Number(digits, _)) = cursor.peek(0) else { return Err(cursor.expected("a number")) };
        // A length such as VARCHAR(2147483647) is not enforced; what is too large for a precision is refused later.
        numbers.push(digits.parse::<u64>().map_or(u8::MAX, |number| u8::try_from(number).unwrap_or(u8::MAX)));
        cursor.advance();
        if !cursor.eat_token(&Token::Comma) {
            break;
        }
    }
    cursor.expect_token(&Token::RParen)?;
    Ok(numbers)
}

/// What follows TIMESTAMP(p); says whether it is TIMESTAMP_LTZ.
fn parse_zone(cursor: &mut Cursor<'_>) -> Sql<bool> {
    let at = cursor.position();
    if cursor.eat(&["WITH", "LOCAL", "TIME", "ZONE"]) {
        return Ok(true);
    }
    if cursor.eat(&["WITH", "TIME", "ZONE"]) {
        return Err(SqlError::not_yet("TIMESTAMP WITH TIME ZONE columns", at).help("TIMESTAMP_LTZ is a point in time"));
    }
    cursor.eat(&["WITHOUT", "TIME", "ZONE"]);
    Ok(false)
}

/// The Arrow type of `name`, if there is such a name.
fn data_type(name: &str, numbers: &[u8], local_zone: bool) -> Result<Option<DataType>, String> {
    let plain = |data_type: DataType| match numbers {
        [] => Ok(Some(data_type)),
        _ => Err(format!("{name} takes no numbers in brackets")),
    };
    match name {
        "STRING" => plain(DataType::Utf8),
        "BYTES" => plain(DataType::Binary),
        "VARCHAR" | "CHAR" => Ok(Some(DataType::Utf8)),
        "VARBINARY" | "BINARY" => Ok(Some(DataType::Binary)),
        "BOOLEAN" => plain(DataType::Boolean),
        "TINYINT" => plain(DataType::Int8),
        "SMALLINT" => plain(DataType::Int16),
        "INT" | "INTEGER" => plain(DataType::Int32),
        "BIGINT" => plain(DataType::Int64),
        "FLOAT" | "REAL" => plain(DataType::Float32),
        "DOUBLE" => plain(DataType::Float64),
        "DATE" => plain(DataType::Date32),
        "DECIMAL" | "DEC" | "NUMERIC" => decimal(numbers).map(Some),
        "TIME" => match numbers {
            [] | [0..=3] => Ok(Some(DataType::Time32(TimeUnit::Millisecond))),
            _ => Err("TIME(p) keeps milliseconds: p is 0 to 3".to_owned()),
        },
        "TIMESTAMP" | "TIMESTAMP_LTZ" => timestamp(numbers, local_zone).map(Some),
        _ => Ok(None),
    }
}

fn decimal(numbers: &[u8]) -> Result<DataType, String> {
    let (precision, scale) = match numbers {
        [] => (10, 0),
        [precision] => (*precision, 0),
        [precision, scale] => (*precision, *scale),
        _ => return Err("DECIMAL takes a precision and a scale".to_owned()),
    };
    let scale = i8::try_from(scale).ok().filter(|_| scale <= precision && (1..=38).contains(&precision));
    let scale = scale.ok_or("DECIMAL(p, s): p is 1 to 38, s is 0 to p")?;
    Ok(DataType::Decimal128(precision, scale))
}

fn timestamp(numbers: &[u8], local_zone: bool) -> Result<DataType, String> {
    let unit = match numbers {
        [0..=3] => TimeUnit::Millisecond,
        [] | [4..=6] => TimeUnit::Microsecond,
        [7..=9] => TimeUnit::Nanosecond,
        _ => return Err("TIMESTAMP(p): p is 0 to 9".to_owned()),
    };
    Ok(DataType::Timestamp(unit, local_zone.then(|| Arc::from(UTC))))
}

/// What a message calls an Arrow type.
pub fn sql_name(data_type: &DataType) -> String {
    let digits = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    };
    match data_type {
        DataType::Null => "NULL".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "STRING".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BYTES".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".to_owned(),
        DataType::Timestamp(unit, None) => format!("TIMESTAMP({})", digits(unit)),
        DataType::Timestamp(unit, Some(_)) => format!("TIMESTAMP_LTZ({})", digits(unit)),
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL".to_owned(),
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            format!("ARRAY<{}>", sql_name(element.data_type()))
        }
        DataType::Map(entries, _) => match key_and_value(entries) {
            Some((key, value)) => format!("MAP<{}, {}>", sql_name(key), sql_name(value)),
            None => data_type.to_string(),
        },
        DataType::Struct(fields) => {
            let field = |field: &FieldRef| format!("{} {}", name_text(field.name()), sql_name(field.data_type()));
            let fields = fields.iter().map(field);
            format!("ROW<{}>", fields.collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A name as SQL writes it: in backticks where it needs them.
pub(crate) fn name_text(name: &str) -> String {
    let is_word = |c: char| c == '_' || c.is_alphanumeric();
    let plain = name.chars().all(is_word) && name.chars().next().is_some_and(|first| !first.is_numeric());
    if plain { name.to_owned() } else { format!("`{}`", name.replace('`', "``")) }
}

/// Whether a table can have a column of this type.
pub(crate) fn is_column_type(data_type: &DataType) -> bool {
    match data_type {
        DataType::Boolean | DataType::Utf8 | DataType::Binary | DataType::Date32 | DataType::Decimal128(..) => true,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => true,
        DataType::Float32 | DataType::Float64 | DataType::Time32(TimeUnit::Millisecond) => true,
        DataType::Timestamp(unit, zone) => *unit != TimeUnit::Second && zone.as_deref().is_none_or(|z| z == UTC),
        DataType::List(element) => is_column_type(element.data_type()),
        DataType::Map(entries, _) => {
            key_and_value(entries).is_some_and(|(key, value)| is_column_type(key) && is_column_type(value))
        }
        DataType::Struct(fields) => fields.iter().all(|field| is_column_type(field.data_type())),
        _ => false,
    }
}

/// The column type nearest to an Arrow type that functions may give.
pub(crate) fn to_column_type(data_type: &DataType) -> Option<DataType> {
    let near = match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time32(TimeUnit::Millisecond),
        DataType::Timestamp(TimeUnit::Second, None) => DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Timestamp(TimeUnit::Second, _) => DataType::Timestamp(TimeUnit::Millisecond, Some(Arc::from(UTC))),
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some(Arc::from(UTC))),
        DataType::Date64 => DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            list(to_column_type(element.data_type())?)
        }
        DataType::Map(entries, _) => {
            let (key, value) = key_and_value(entries)?;
            map(to_column_type(key)?, to_column_type(value)?)
        }
        DataType::Struct(fields) => {
            let field = |field: &FieldRef| Some(Field::new(field.name(), to_column_type(field.data_type())?, true));
            DataType::Struct(fields.iter().map(field).collect::<Option<Vec<_>>>()?.into())
        }
        other => other.clone(),
    };
    is_column_type(&near).then_some(near)
}

/// Gives CAST the types of the DDL.
#[derive(Debug)]
pub(crate) struct FlinkTypes;

impl TypePlanner for FlinkTypes {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> DfResult<Option<FieldRef>> {
        let text = match sql_type {
            // What stands for a nested type is the type's text in backticks: see `nested`.
            ast::DataType::Custom(name, _) => match name.0.as_slice() {
                [ast::ObjectNamePart::Identifier(name)] if name.quote_style.is_some() => name.value.clone(),
                _ => sql_type.to_string(),
            },
            _ => sql_type.to_string(),
        };
        let parsed = split(&text).and_then(|statements| match statements.as_slice() {
            [statement] => {
                let mut cursor = Cursor::new(&statement.tokens, statement.end);
                let data_type = parse(&mut cursor)?;
                cursor.expect_done().map(|()| data_type)
            }
            _ => Err(SqlError::new(format!("there is no type '{text}'"))),
        });
        // The places are in `text`, not in the user's: the name is looked up there.
        let data_type = parsed.map_err(|error| carried(error.nowhere()))?;
        Ok(Some(Arc::new(Field::new("", data_type, true))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<DataType, String> {
        let statement = &split(text).unwrap()[0];
        let mut cursor = Cursor::new(&statement.tokens, statement.end);
        parse(&mut cursor).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn types_read_and_are_named_as_in_flink() {
        let cases = [
            ("string", "STRING"),
            ("VARCHAR(2147483647)", "STRING"),
            ("INTEGER", "INT"),
            ("DOUBLE PRECISION", "DOUBLE"),
            ("DECIMAL", "DECIMAL(10, 0)"),
            ("DECIMAL(12, 4)", "DECIMAL(12, 4)"),
            ("TIMESTAMP", "TIMESTAMP(6)"),
            ("TIMESTAMP(0)", "TIMESTAMP(3)"),
            ("TIMESTAMP(9)", "TIMESTAMP(9)"),
            ("TIMESTAMP(3) WITHOUT TIME ZONE", "TIMESTAMP(3)"),
            ("TIMESTAMP(3) WITH LOCAL TIME ZONE", "TIMESTAMP_LTZ(3)"),
            ("TIMESTAMP_LTZ(3)", "TIMESTAMP_LTZ(3)"),
            ("array<int>", "ARRAY<INT>"),
            ("ARRAY<ARRAY<ARRAY<INT NOT NULL>>>", "ARRAY<ARRAY<ARRAY<INT>>>"),
            ("INT ARRAY", "ARRAY<INT>"),
            ("MAP<STRING, MAP<INT, DECIMAL(4, 1)>>", "MAP<STRING, MAP<INT, DECIMAL(4, 1)>>"),
            ("ROW<a INT, `b c` STRING NOT NULL COMMENT 'x'>", "ROW<a INT, `b c` STRING>"),
            ("ROW(a INT, b ROW<c ARRAY<DATE>>)", "ROW<a INT, b ROW<c ARRAY<DATE>>>"),
            ("BYTES", "BYTES"),
            ("TIME", "TIME"),
        ];
        for (text, name) in cases {
            let data_type = parsed(text).unwrap();
            assert_eq!(sql_name(&data_type), name, "{text}");
            assert!(is_column_type(&data_type), "{text}");
        }
    }

    #[test]
    fn what_is_no_type_says_so() {
        let cases = [
            ("BIGINTT", "there is no type 'BIGINTT'"),
            ("DECIMAL(39, 2)", "DECIMAL(p, s): p is 1 to 38, s is 0 to p"),
            ("DECIMAL(5, 6)", "DECIMAL(p, s): p is 1 to 38, s is 0 to p"),
            ("TIMESTAMP(10)", "TIMESTAMP(p): p is 0 to 9"),
            ("INT(4)", "INT takes no numbers in brackets"),
            ("ARRAY", "expected '<' and the elements' type, as in ARRAY<INT>, found the end of the statement"),
            ("ARRAY<INT", "expected ',' or '>', found the end of the statement"),
            ("ARRAY<INT>>", "expected one '>' less, found the end of the statement"),
            ("MAP<STRING>", "expected ',' and the type of the map's values, found '>'"),
            ("MAP<ARRAY<INT>, INT>", "a map's key cannot be ARRAY<INT>"),
            ("ROW<a INT, a INT>", "the field 'a' is declared twice"),
            ("MULTISET<INT>", "there is no MULTISET"),
            ("INT MULTISET", "there is no MULTISET"),
            (
                "TIMESTAMP(3) WITH TIME ZONE",
                "TIMESTAMP WITH TIME ZONE columns are not supported yet (line 1, column 14)",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(parsed(text).unwrap_err(), message, "{text}");
        }
    }

    #[test]
    fn cast_uses_the_same_types() {
        let timestamp = ast::DataType::Timestamp(Some(3), ast::TimezoneInfo::None);
        let field = FlinkTypes.plan_type_field(&timestamp).unwrap().unwrap();
        assert_eq!(field.data_type(), &DataType::Timestamp(TimeUnit::Millisecond, None));
    }
}
