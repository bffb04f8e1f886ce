//! Result types are Flink's.

use arrow::datatypes::DataType;

use crate::world::planned;

fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Utf8 => "STRING".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Timestamp(unit, zone) => format!("TIMESTAMP {unit:?} {}", zone.as_deref().unwrap_or("-")),
        other => other.to_string(),
    }
}

/// `type` and ` NOT NULL` of the only column of `SELECT expr FROM from`.
fn type_of(expr: &str, from: &str) -> String {
    let planned = planned(&format!("SELECT {expr} AS x FROM {from}"));
    let schema = planned.unwrap_or_else(|error| panic!("{expr}: {error}")).schema.unwrap();
    let field = schema.field(0);
    format!("{}{}", sql_type(field.data_type()), if field.is_nullable() { "" } else { " NOT NULL" })
}

#[test]
fn expressions_have_flinks_types() {
    let cases = [
        ("bidder", "INT NOT NULL"),
        ("1", "INT NOT NULL"),
        ("3000000000", "BIGINT NOT NULL"),
        ("1.5", "DECIMAL(2, 1) NOT NULL"),
        ("1e3", "DOUBLE NOT NULL"),
        ("'a'", "STRING NOT NULL"),
        ("bidder + 1", "INT NOT NULL"),
        ("bidder / 2", "INT NOT NULL"),
        ("auction + 1", "BIGINT"),
        ("auction * bidder", "BIGINT"),
        ("score * 2", "DOUBLE"),
        ("price * 2.5", "DECIMAL(13, 3)"),
        ("ratio + 1", "FLOAT"),
        ("auction % 5", "BIGINT"),
        ("channel || 'x'", "STRING"),
        ("CONCAT(channel, 'x', channel)", "STRING"),
        ("UPPER(channel)", "STRING"),
        ("SUBSTRING(channel FROM 2 FOR 3)", "STRING"),
        ("CHAR_LENGTH(channel)", "INT"),
        ("CASE WHEN bidder > 1 THEN 'a' ELSE 'b' END", "STRING NOT NULL"),
        ("CASE WHEN bidder > 1 THEN 1 END", "INT"),
        ("IF(ok, 1, 2)", "INT NOT NULL"),
        ("COALESCE(bidder, 0)", "INT NOT NULL"),
        ("CAST(bidder AS STRING)", "STRING NOT NULL"),
        ("CAST(auction AS INT)", "INT"),
        ("TRY_CAST(channel AS BIGINT)", "BIGINT"),
        ("CAST(channel AS DECIMAL(8, 3))", "DECIMAL(8, 3)"),
        ("CAST(channel AS TIMESTAMP(3))", "TIMESTAMP Millisecond -"),
        ("CAST(channel AS TIMESTAMP)", "TIMESTAMP Microsecond -"),
        ("CAST(dateTime AS TIMESTAMP_LTZ(3))", "TIMESTAMP Millisecond UTC"),
        ("CAST(dateTime AS DATE)", "DATE"),
        ("TO_TIMESTAMP(channel)", "TIMESTAMP Millisecond -"),
        ("TIMESTAMP '2013-01-01 05:00:00'", "TIMESTAMP Microsecond - NOT NULL"),
        ("DATE '2013-01-01'", "DATE NOT NULL"),
        ("dateTime - INTERVAL '5' SECOND", "TIMESTAMP Millisecond -"),
        ("dateTime + INTERVAL '1' DAY", "TIMESTAMP Millisecond -"),
        ("dateTime + INTERVAL '1' MONTH", "TIMESTAMP Millisecond -"),
        ("EXTRACT(HOUR FROM dateTime)", "BIGINT"),
        ("DAYOFWEEK(dateTime)", "BIGINT"),
        ("bidder IN (1, 2)", "BOOLEAN NOT NULL"),
        ("channel LIKE 'a%'", "BOOLEAN"),
        ("price BETWEEN 1 AND 2", "BOOLEAN"),
        ("channel IS NULL", "BOOLEAN NOT NULL"),
        ("ABS(bidder)", "INT"),
        ("MOD(auction, 3)", "BIGINT"),
        ("cents", "BIGINT"),
    ];
    let wrong: Vec<String> = cases
        .iter()
        .map(|(expr, expected)| (expr, expected, type_of(expr, "bid")))
        .filter(|(_, expected, found)| *expected != found)
        .map(|(expr, expected, found)| format!("{expr}: {found}, expected {expected}"))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_cast_tells_aggregates_apart() {
    let text = "SELECT AVG(bidder) AS a, AVG(CAST(bidder AS DOUBLE)) AS b
        FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' HOUR)) GROUP BY window_start";
    let schema = planned(text).unwrap().schema.unwrap();
    let types: Vec<String> = schema.fields().iter().map(|field| sql_type(field.data_type())).collect();
    assert_eq!(types, ["INT", "DOUBLE"]);
}

#[test]
fn a_window_adds_three_timestamps() {
    let from = "TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' HOUR))";
    for column in ["window_start", "window_end", "window_time"] {
        assert_eq!(type_of(column, from), "TIMESTAMP Millisecond - NOT NULL");
    }
}

#[test]
fn counts_minima_and_maxima_have_flinks_types() {
    let from = "TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' HOUR)) GROUP BY window_start";
    let cases = [
        ("COUNT(*)", "BIGINT NOT NULL"),
        ("COUNT(channel)", "BIGINT NOT NULL"),
        ("MIN(tiny)", "TINYINT"),
        ("MAX(channel)", "STRING"),
        ("MAX(dateTime)", "TIMESTAMP Millisecond -"),
        ("COUNT(*) + 1", "BIGINT NOT NULL"),
    ];
    for (expr, expected) in cases {
        assert_eq!(type_of(expr, from), expected, "{expr}");
    }
}

#[test]
fn sums_and_averages_have_flinks_types() {
    let from = "TABLE(TUMBLE(TABLE bid, DESCRIPTOR(dateTime), INTERVAL '1' HOUR)) GROUP BY window_start";
    let cases = [
        ("SUM(bidder)", "INT"),
        ("SUM(auction)", "BIGINT"),
        ("SUM(tiny)", "TINYINT"),
        ("SUM(ratio)", "FLOAT"),
        ("SUM(score)", "DOUBLE"),
        ("SUM(price)", "DECIMAL(38, 2)"),
        ("AVG(bidder)", "INT"),
        ("AVG(auction)", "BIGINT"),
        ("AVG(small)", "SMALLINT"),
        ("AVG(ratio)", "FLOAT"),
        ("AVG(score)", "DOUBLE"),
        ("AVG(price)", "DECIMAL(38, 6)"),
    ];
    for (expr, expected) in cases {
        assert_eq!(type_of(expr, from), expected, "{expr}");
    }
}
