//! Which field of a line goes into which column.

use ruslo_core::error::{Error, Result};

use crate::DecoderConfig;
use crate::csv::Dialect;

/// For each field of a line, the column of the batch that it fills, if any.
pub(crate) type Fields = Vec<Option<usize>>;

/// Fields in the order of the table's columns.
pub(crate) fn by_position(config: &DecoderConfig<'_>) -> Fields {
    let column = |index| config.projection.iter().position(|projected| *projected == index);
    (0..config.table.fields().len()).map(column).collect()
}

/// Fields in the order of the header line, each column of the table by its name.
///
/// # Errors
/// `Data`, if a projected column is not in the header, or stands there twice.
pub(crate) fn by_name(config: &DecoderConfig<'_>, line: &[u8], dialect: &Dialect) -> Result<Fields> {
    let names = names(line, dialect)?;
    let mut fields = vec![None; names.len()];
    for (column, index) in config.projection.iter().enumerate() {
        let Some(wanted) = config.table.fields().get(*index) else { continue };
        let mut places = names.iter().zip(&mut fields).filter(|(name, _)| *name == wanted.name());
        match (places.next(), places.next()) {
            (Some((_, field)), None) => *field = Some(column),
            (Some(_), Some(_)) => return Err(Error::data(format!("the header names '{}' twice", wanted.name()))),
            (None, _) => return Err(missing(wanted.name(), &names)),
        }
    }
    Ok(fields)
}

fn names(line: &[u8], dialect: &Dialect) -> Result<Vec<String>> {
    let line = simdutf8::basic::from_utf8(line).map_err(|_| Error::data("the header line is not UTF-8"))?;
    let (quote, delimiter) = (char::from(dialect.quote), char::from(dialect.delimiter));
    let mut quoted = false;
    let fields = line.split(|character| {
        quoted ^= character == quote;
        character == delimiter && !quoted
    });
    let pair = format!("{quote}{quote}");
    let unquoted = |name: &str| {
        let name = name.trim();
        let inner = name.strip_prefix(quote).and_then(|name| name.strip_suffix(quote));
        inner.map_or_else(|| name.to_owned(), |inner| inner.replace(&pair, &quote.to_string()))
    };
    Ok(fields.map(unquoted).collect())
}

fn missing(wanted: &str, names: &[String]) -> Error {
    let near = names.iter().map(|name| (distance(wanted, name), name)).min();
    let hint = match near {
        Some((distance, name)) if distance <= wanted.len().max(3) / 2 => format!("; did you mean '{name}'?"),
        _ => format!("; it names {}", names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")),
    };
    Error::data(format!("the header has no field '{wanted}'{hint}"))
}

/// Levenshtein distance, case ignored.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, character) in left.to_lowercase().chars().enumerate() {
        let mut diagonal = index;
        let mut before = index + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(&right) {
            let cost = (diagonal + usize::from(character != *other)).min(before + 1).min(*cell + 1);
            diagonal = std::mem::replace(cell, cost);
            before = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

    use super::*;

    fn table() -> SchemaRef {
        let field = |name| Field::new(name, DataType::Utf8, true);
        Arc::new(Schema::new(vec![field("a"), field("distance"), field("c")]))
    }

    fn dialect() -> Dialect {
        Dialect { delimiter: b',', quote: b'"', null_literal: None }
    }

    #[test]
    fn fields_are_matched_by_name_in_any_order() {
        let table = table();
        let config = DecoderConfig::new(&table, &[0, 2]);
        assert_eq!(by_name(&config, b"c, other,\"a\"", &dialect()), Ok(vec![Some(1), None, Some(0)]));
        assert_eq!(by_position(&config), vec![Some(0), None, Some(1)]);
    }

    #[test]
    fn quoted_names_may_hold_delimiters_and_quotes() {
        assert_eq!(names(b"\"a,b\",\"say \"\"x\"\"\",c", &dialect()).unwrap(), ["a,b", "say \"x\"", "c"]);
    }

    #[test]
    fn a_missing_column_names_its_neighbour() {
        let table = table();
        let config = DecoderConfig::new(&table, &[1]);
        let message = |header: &[u8]| by_name(&config, header, &dialect()).unwrap_err().to_string();
        assert_eq!(message(b"a,Distanec"), "the header has no field 'distance'; did you mean 'Distanec'?");
        assert_eq!(message(b"x,y"), "the header has no field 'distance'; it names 'x', 'y'");
        assert_eq!(message(b"distance,distance"), "the header names 'distance' twice");
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("Ab", "aB"), 0);
    }
}
