//! JSON from values: JSON_STRING, JSON_OBJECT, JSON_ARRAY.

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use datafusion::common::{DataFusionError, Result};

use super::super::call::Kind::{Any, Rest, Text};
use super::super::call::{Arguments, Definition, Gives, bad_value, put, put_char};

pub(super) const STRING: Definition = Definition::new("json_string", &[&[Any]], Gives::Text, string);
/// The first argument is `NULL` or `ABSENT`, and behind a `;` the places of values that are JSON already.
pub(super) const OBJECT: Definition = Definition::new("json_object", &[&[Text, Rest]], Gives::Text, object);
pub(super) const ARRAY: Definition = Definition::new("json_array", &[&[Text, Rest]], Gives::Text, array);

/// NULL for NULL.
fn string(args: &Arguments<'_>) -> Result<ArrayRef> {
    let values = args.array(0)?;
    args.write_texts(|row, out| if values.is_null(row) { Ok(None) } else { put_value(&values, row, out).map(Some) })
}

/// What stands in an object or an array.
struct Parts {
    values: Vec<(ArrayRef, bool)>,
    drops_nulls: bool,
}

impl Parts {
    fn of(args: &Arguments<'_>) -> Result<Self> {
        let mode = args.text(0)?.get(0).unwrap_or("NULL").to_owned();
        let (mode, raw) = mode.split_once(';').unwrap_or((&mode, ""));
        let raw: Vec<usize> = raw.split(',').filter_map(|place| place.parse().ok()).collect();
        let values = (1..args.len()).map(|place| Ok((args.array(place)?, raw.contains(&place))));
        Ok(Self { values: values.collect::<Result<_>>()?, drops_nulls: mode == "ABSENT" })
    }
}

fn put_part(values: &ArrayRef, is_json: bool, row: usize, out: &mut StringBuilder) -> Result<()> {
    if values.is_null(row) {
        put(out, "null");
        return Ok(());
    }
    match values.as_string_opt::<i32>() {
        Some(texts) if is_json => {
            put(out, texts.value(row));
            Ok(())
        }
        _ => put_value(values, row, out),
    }
}

fn object(args: &Arguments<'_>) -> Result<ArrayRef> {
    let parts = Parts::of(args)?;
    if parts.values.len() % 2 == 1 {
        return Err(bad_value("JSON_OBJECT takes a value for each key"));
    }
    args.write_texts(|row, out| {
        put_char(out, '{');
        let mut is_first = true;
        for pair in parts.values.chunks_exact(2) {
            let [(keys, _), (values, is_json)] = pair else { continue };
            if parts.drops_nulls && values.is_null(row) {
                continue;
            }
            let keys = keys.as_string_opt::<i32>().filter(|keys| keys.is_valid(row));
            let key = keys.map(|keys| keys.value(row)).ok_or_else(|| bad_value("a key of JSON_OBJECT is no text"))?;
            if !std::mem::take(&mut is_first) {
                put_char(out, ',');
            }
            put_quoted(key, out);
            put_char(out, ':');
            put_part(values, *is_json, row, out)?;
        }
        put_char(out, '}');
        Ok(Some(()))
    })
}

fn array(args: &Arguments<'_>) -> Result<ArrayRef> {
    let parts = Parts::of(args)?;
    args.write_texts(|row, out| {
        put_char(out, '[');
        let mut is_first = true;
        for (values, is_json) in &parts.values {
            if parts.drops_nulls && values.is_null(row) {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                put_char(out, ',');
            }
            put_part(values, *is_json, row, out)?;
        }
        put_char(out, ']');
        Ok(Some(()))
    })
}

/// Appends a text in quotes, with JSON's escapes.
pub(super) fn put_quoted(text: &str, out: &mut StringBuilder) {
    put_char(out, '"');
    let mut rest = text;
    while let Some(place) = rest.find(|letter: char| letter < ' ' || letter == '"' || letter == '\\') {
        let (before, from) = rest.split_at(place);
        put(out, before);
        let mut letters = from.chars();
        match letters.next() {
            Some('\n') => put(out, "\\n"),
            Some('\r') => put(out, "\\r"),
            Some('\t') => put(out, "\\t"),
            Some('\u{8}') => put(out, "\\b"),
            Some('\u{c}') => put(out, "\\f"),
            Some(letter @ ('"' | '\\')) => {
                put_char(out, '\\');
                put_char(out, letter);
            }
            Some(letter) => {
                let _ = std::fmt::Write::write_fmt(out, format_args!("\\u{:04x}", letter as u32));
            }
            None => {}
        }
        rest = letters.as_str();
    }
    put(out, rest);
    put_char(out, '"');
}

/// Appends a value as JSON.
fn put_value(values: &ArrayRef, row: usize, out: &mut StringBuilder) -> Result<()> {
    if values.is_null(row) {
        put(out, "null");
        return Ok(());
    }
    match values.data_type() {
        DataType::Null => put(out, "null"),
        DataType::Utf8 => put_quoted(values.as_string::<i32>().value(row), out),
        data_type if data_type.is_numeric() || *data_type == DataType::Boolean => {
            put(out, &array_value_to_string(values, row)?);
        }
        DataType::Date32 | DataType::Time32(_) | DataType::Timestamp(..) => {
            put_quoted(&array_value_to_string(values, row)?, out);
        }
        DataType::List(_) => {
            let items = values.as_list::<i32>().value(row);
            put_char(out, '[');
            for item in 0..items.len() {
                if item > 0 {
                    put_char(out, ',');
                }
                put_value(&items, item, out)?;
            }
            put_char(out, ']');
        }
        DataType::Struct(fields) => {
            put_char(out, '{');
            for (place, (field, column)) in fields.iter().zip(values.as_struct().columns()).enumerate() {
                if place > 0 {
                    put_char(out, ',');
                }
                put_quoted(field.name(), out);
                put_char(out, ':');
                put_value(column, row, out)?;
            }
            put_char(out, '}');
        }
        DataType::Map(..) => {
            let entries = values.as_map().value(row);
            let [keys, items] = entries.columns() else {
                return Err(DataFusionError::Internal("a map without keys and values".to_owned()));
            };
            put_char(out, '{');
            for entry in 0..entries.len() {
                if entry > 0 {
                    put_char(out, ',');
                }
                put_quoted(&array_value_to_string(keys, entry)?, out);
                put_char(out, ':');
                put_value(items, entry, out)?;
            }
            put_char(out, '}');
        }
        other => return Err(bad_value(format!("{} cannot be written as JSON", super::super::name::sql_name(other)))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use datafusion::common::ScalarValue;

    use super::super::super::testing::{int, null, shown, text};

    #[test]
    fn objects_and_arrays_are_built() {
        let args = [text("NULL;4"), text("k\""), int(1), text("j"), text("[1]"), text("n"), null()];
        assert_eq!(shown("json_object", &args).as_deref(), Some(r#"{"k\"":1,"j":[1],"n":null}"#));
        let args = [text("ABSENT"), text("k"), null(), text("x"), text("line\nü\u{1}")];
        assert_eq!(shown("json_object", &args).as_deref(), Some(r#"{"x":"line\nü\u0001"}"#));
        assert_eq!(shown("json_object", &[text("NULL")]).as_deref(), Some("{}"));
        assert_eq!(shown("json_array", &[text("ABSENT"), int(1), null(), text("a")]).as_deref(), Some(r#"[1,"a"]"#));
        assert_eq!(shown("json_string", &[ScalarValue::Boolean(Some(true))]).as_deref(), Some("true"));
        assert_eq!(shown("json_string", &[null()]), None);
    }
}
