//! `INTERVAL '5' SECOND`: the interval literals that Flink knows, in milliseconds.

use datafusion::sql::sqlparser::tokenizer::Token;

use crate::cursor::{At, Cursor, unquoted};
use crate::diagnostic::{Sql, SqlError};

/// Milliseconds of a day.
pub(crate) const DAY_MS: i64 = 86_400_000;

/// Reads an interval of a fixed length; months and years are refused, as they have none.
pub(crate) fn parse(cursor: &mut Cursor<'_>) -> Sql<At<i64>> {
    let at = cursor.position();
    let mut sign = if cursor.eat_token(&Token::Minus) { -1 } else { 1 };
    if !cursor.eat(&["INTERVAL"]) {
        return Err(cursor.expected("an interval such as INTERVAL '5' MINUTE"));
    }
    if cursor.eat_token(&Token::Minus) {
        sign = -sign;
    }
    let value = cursor.string("a number in quotes, as in INTERVAL '5' MINUTE")?;
    let Some(unit) = cursor.peek(0).and_then(unquoted) else {
        return Err(cursor.expected("SECOND, MINUTE, HOUR or DAY"));
    };
    let unit_ms = fixed_unit_ms(&unit.value).map_err(|error| error.at(cursor.position()))?;
    cursor.advance();
    if cursor.peeks(0, "TO") {
        return Err(compound().at(at));
    }
    let millis = millis(&value.value, unit_ms).map_err(|error| error.at(value.at))?;
    Ok(At::new(millis * sign, at))
}

/// `INTERVAL 'value' unit` in milliseconds.
pub(crate) fn of_literal(value: &str, unit: &str) -> Sql<i64> {
    millis(value, fixed_unit_ms(unit)?)
}

/// How long a unit is.
fn fixed_unit_ms(unit: &str) -> Sql<i64> {
    let upper = unit.to_uppercase();
    match upper.trim_end_matches('S') {
        "SECOND" => Ok(1_000),
        "MINUTE" => Ok(60_000),
        "HOUR" => Ok(3_600_000),
        "DAY" => Ok(DAY_MS),
        "WEEK" => Ok(7 * DAY_MS),
        "MONTH" | "YEAR" | "QUARTER" => Err(SqlError::new(format!("a {upper} has no fixed length"))
            .help("give the interval in SECOND, MINUTE, HOUR or DAY")),
        _ => Err(SqlError::new(format!("there is no interval unit '{unit}'")).near(unit, UNITS)),
    }
}

/// The units of an interval literal.
pub(crate) const UNITS: [&str; 7] = ["SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "YEAR"];

/// `'1:30' MINUTE TO SECOND` and its like.
pub(crate) fn compound() -> SqlError {
    SqlError::new("intervals of several units are not supported yet")
        .help("write one unit: INTERVAL '90' SECOND instead of INTERVAL '1:30' MINUTE TO SECOND")
}

/// `value` units, exactly in milliseconds. The value may have a fraction.
fn millis(value: &str, unit_ms: i64) -> Sql<i64> {
    let not_a_number = || SqlError::new(format!("'{value}' is not a number"));
    let text = value.trim();
    if text.contains(':') || text.contains(' ') {
        return Err(compound());
    }
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) || fraction.len() > 9 {
        return Err(not_a_number());
    }
    let too_long = || SqlError::new(format!("the interval '{value}' is too long"));
    let scale = 10_i64.pow(u32::try_from(fraction.len()).unwrap_or_default());
    let part: i64 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| not_a_number())? };
    let part = part.checked_mul(unit_ms).ok_or_else(too_long)?;
    if part % scale != 0 {
        return Err(SqlError::new(format!("the interval '{value}' is finer than a millisecond")));
    }
    let whole = whole.parse::<i64>().ok().and_then(|whole| whole.checked_mul(unit_ms)).ok_or_else(too_long)?;
    whole.checked_add(part / scale).map(|millis| millis * sign).ok_or_else(too_long)
}

/// A length as a person writes it: `1 h`, `90 min`, `500 ms`; `0 s`.
pub(crate) fn describe(millis: i64) -> String {
    let units = [(DAY_MS, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"), (1, "ms")];
    let fits = units.into_iter().find(|(unit, _)| millis != 0 && millis % unit == 0);
    fits.map_or_else(|| "0 s".to_owned(), |(unit, name)| format!("{} {name}", millis / unit))
}

/// A length as SQL has it: `INTERVAL '5' SECOND`.
pub(crate) fn sql(millis: i64) -> String {
    let units = [(DAY_MS, "DAY"), (3_600_000, "HOUR"), (60_000, "MINUTE"), (1_000, "SECOND")];
    match units.into_iter().find(|(unit, _)| millis != 0 && millis % unit == 0) {
        Some((unit, name)) => format!("INTERVAL '{}' {name}", millis / unit),
        None => format!("INTERVAL '{}' SECOND", millis as f64 / 1_000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::split;

    fn parsed(text: &str) -> Result<i64, String> {
        let statement = &split(text).unwrap()[0];
        let mut cursor = Cursor::new(&statement.tokens, statement.end);
        parse(&mut cursor).map(|interval| interval.value).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn intervals_are_milliseconds() {
        assert_eq!(parsed("INTERVAL '5' SECOND"), Ok(5_000));
        assert_eq!(parsed("interval '10' minutes"), Ok(600_000));
        assert_eq!(parsed("INTERVAL '0.5' SECOND"), Ok(500));
        assert_eq!(parsed("- INTERVAL '1' HOUR"), Ok(-3_600_000));
        assert_eq!(parsed("INTERVAL -'2' DAY"), Ok(-172_800_000));
    }

    #[test]
    fn what_has_no_fixed_length_is_refused() {
        assert_eq!(parsed("INTERVAL '1' MONTH"), Err("a MONTH has no fixed length".to_owned()));
        let compound = "intervals of several units are not supported yet".to_owned();
        assert_eq!(parsed("INTERVAL '1:30' MINUTE TO SECOND"), Err(compound.clone()));
        assert_eq!(parsed("INTERVAL '1:30' MINUTE"), Err(compound));
        assert_eq!(parsed("INTERVAL 'x' DAY"), Err("'x' is not a number".to_owned()));
        assert_eq!(parsed("INTERVAL '0.0001' SECOND"), Err("the interval '0.0001' is finer than a millisecond".into()));
        assert_eq!(parsed("INTERVAL '9' EON"), Err("there is no interval unit 'EON'".to_owned()));
        let long = "INTERVAL '999999999999999999' DAY";
        assert_eq!(parsed(long), Err("the interval '999999999999999999' is too long".to_owned()));
    }

    #[test]
    fn lengths_read_in_their_largest_whole_unit() {
        assert_eq!([3_600_000, 500, 0].map(sql), ["INTERVAL '1' HOUR", "INTERVAL '0.5' SECOND", "INTERVAL '0' SECOND"]);
        assert_eq!([3_600_000, 5_400_000, 250, 0].map(describe), ["1 h", "90 min", "250 ms", "0 s"]);
    }
}
