//! Reads arrays and objects into columns of ARRAY, MAP and ROW.
//!
//! The text was checked before, to its end and for its depth, so the walk here only looks for what it knows to be there;
//! and it goes no deeper than the column's type. A field of a row that is absent is NULL, one that stands twice counts
//! the last time, one that nobody declared is skipped; so it is with the keys of a map.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::column::{Column, Misfit, Nested, Values};
use crate::decode_error::{Fault, What, shown};
use crate::json::decode::scalar;
use crate::json::syntax::{Kind, Token, colon, string_end, token, unescape, white_space};

/// What the format's options say about nested values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Whether a row without a field is an error.
    pub(crate) fail_on_missing_field: bool,
}

/// What is wrong within a nested value.
#[derive(Debug)]
pub(crate) struct Inside {
    /// From the column's value down to the part: `[2].name`.
    path: String,
    sentence: String,
}

impl Inside {
    /// A part does not fit its type.
    #[cold]
    fn misfit(column: &Column, block: &[u8], token: Token, misfit: Misfit) -> Self {
        let value = shown(block.get(token.start..token.end).unwrap_or_default());
        Self { path: String::new(), sentence: column.misfit(&value, misfit) }
    }

    /// The text is not what it was found to be before.
    #[cold]
    fn lost() -> Self {
        Self { path: String::new(), sentence: "a nested value cannot be followed".to_owned() }
    }

    #[cold]
    fn below(mut self, step: &str) -> Self {
        self.path.insert_str(0, step);
        self
    }

    /// The fault of a record whose column `index` this is.
    pub(crate) fn fault(self, index: usize) -> Box<Fault> {
        let Self { path, sentence } = self;
        let what = What::Record(if path.is_empty() { sentence } else { format!("at {path}: {sentence}") });
        Box::new(Fault { column: Some(index), at: 0..0, what })
    }
}

type Stored<T> = Result<T, Inside>;

/// Stores the value at `at` and says where it ends. On an error the column's parts hold something of it, which has to be taken back.
pub(crate) fn store(column: &mut Column, block: &[u8], at: usize, rules: Rules) -> Stored<usize> {
    let token = token(block, at).map_err(|_| Inside::lost())?;
    let brace = block.get(token.start).copied();
    let Column { values: Values::Nested(nested), validity, .. } = column else {
        return part(column, block, token);
    };
    match (nested.as_mut(), token.kind, brace) {
        (_, Kind::Null, _) => {
            column.put_null();
            return Ok(token.next);
        }
        (Nested::List { element, .. }, Kind::Nested, Some(b'[')) => list(element, block, token.start, rules)?,
        (Nested::Map { key, value, .. }, Kind::Nested, Some(b'{')) => map(key, value, block, token.start, rules)?,
        (Nested::Row { rows, fields }, Kind::Nested, Some(b'{')) => row(fields, *rows, block, token.start, rules)?,
        _ => return Err(Inside::misfit(column, block, token, Misfit::NotA)),
    }
    nested.close();
    validity.append_non_null();
    Ok(token.next)
}

/// Stores a value that is not nested.
fn part(column: &mut Column, block: &[u8], token: Token) -> Stored<usize> {
    let stored = scalar(column, block, token, &mut String::new());
    stored.map_err(|misfit| Inside::misfit(column, block, token, misfit))?;
    Ok(token.next)
}

/// The place of the first element or entry, or of the closing bracket.
fn first(block: &[u8], at: usize) -> usize {
    white_space(block, at + 1)
}

/// From the end of an element to the next one; `None` at the closing bracket.
fn next(block: &[u8], at: usize) -> Option<usize> {
    let at = white_space(block, at);
    (block.get(at) == Some(&b',')).then(|| white_space(block, at + 1))
}

fn end_of(block: &[u8], at: usize) -> Stored<usize> {
    token(block, at).map(|token| token.next).map_err(|_| Inside::lost())
}

fn list(element: &mut Column, block: &[u8], at: usize, rules: Rules) -> Stored<()> {
    let mut at = first(block, at);
    if block.get(at) == Some(&b']') {
        return Ok(());
    }
    for index in 1_usize.. {
        let end = store(element, block, at, rules).map_err(|inside| inside.below(&format!("[{index}]")))?;
        match next(block, end) {
            Some(next) => at = next,
            None => break,
        }
    }
    Ok(())
}

/// The key at `at`, and where its value stands.
fn key_at(block: &[u8], at: usize) -> Stored<(Cow<'_, str>, usize)> {
    let (end, escaped) = string_end(block, at).map_err(|_| Inside::lost())?;
    let text = block.get(at + 1..end - 1).and_then(|text| std::str::from_utf8(text).ok()).ok_or_else(Inside::lost)?;
    let value = colon(block, end).map_err(|_| Inside::lost())?;
    if !escaped {
        return Ok((Cow::Borrowed(text), white_space(block, value)));
    }
    let mut name = String::new();
    match unescape(text, &mut name) {
        Some(()) => Ok((Cow::Owned(name), white_space(block, value))),
        None => {
            let sentence = format!("the key '{}' holds half of a surrogate pair", shown(text.as_bytes()));
            Err(Inside { path: String::new(), sentence })
        }
    }
}

/// Calls `entry` with every key and the place of its value; it says where the value ends.
fn entries<'a>(block: &'a [u8], at: usize, mut entry: impl FnMut(Cow<'a, str>, usize) -> Stored<usize>) -> Stored<()> {
    let mut at = first(block, at);
    if block.get(at) == Some(&b'}') {
        return Ok(());
    }
    loop {
        let (key, value) = key_at(block, at)?;
        match next(block, entry(key, value)?) {
            Some(next) => at = next,
            None => return Ok(()),
        }
    }
}

fn map(key: &mut Column, value: &mut Column, block: &[u8], at: usize, rules: Rules) -> Stored<()> {
    // Where the last value of each key stands, in the order in which the keys first came.
    let (mut places, mut order) = (BTreeMap::new(), Vec::new());
    entries(block, at, |name, place| {
        if places.insert(name.clone(), place).is_none() {
            order.push(name);
        }
        end_of(block, place)
    })?;
    for name in order {
        let place = places.get(&name).copied().unwrap_or(at);
        store(value, block, place, rules).map_err(|inside| inside.below(&format!("['{name}']")))?;
        key.put_copied(&name).map_err(|_| Inside::lost())?;
    }
    Ok(())
}

fn row(fields: &mut [Column], rows: usize, block: &[u8], at: usize, rules: Rules) -> Stored<()> {
    let mut expected = 0;
    entries(block, at, |name, place| {
        let is_next = fields.get(expected).is_some_and(|field| field.name == name);
        let found = if is_next { Some(expected) } else { fields.iter().position(|field| field.name == name) };
        let Some((index, field)) = found.and_then(|index| Some((index, fields.get_mut(index)?))) else {
            return end_of(block, place);
        };
        expected = index + 1;
        field.truncate(rows);
        store(field, block, place, rules).map_err(|inside| inside.below(&format!(".{name}")))
    })?;
    for field in fields.iter_mut().filter(|field| field.len() == rows) {
        if rules.fail_on_missing_field {
            let sentence = format!("there is no field '{}', and 'json.fail-on-missing-field' is true", field.name);
            return Err(Inside { path: String::new(), sentence });
        }
        field.put_null();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{Array, ArrayRef};
    use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

    use crate::{Decoder, DecoderConfig};

    fn row_of(fields: &[(&str, DataType)]) -> DataType {
        DataType::Struct(fields.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect::<Fields>())
    }

    fn map_of(value: DataType) -> DataType {
        let parts = vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)];
        DataType::Map(Arc::new(Field::new("entries", DataType::Struct(parts.into()), false)), false)
    }

    fn decoder(data_type: DataType, options: &[(&str, &str)]) -> Box<dyn Decoder> {
        let table: SchemaRef = Arc::new(Schema::new(vec![Field::new("a", data_type, true)]));
        let options: BTreeMap<_, _> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        crate::format("json", &options).unwrap().decoder(&DecoderConfig::new(&table, &[0])).unwrap()
    }

    fn shown(array: &ArrayRef) -> Vec<String> {
        let options = arrow::util::display::FormatOptions::new().with_null("-");
        let formatter = arrow::util::display::ArrayFormatter::try_new(array, &options).unwrap();
        (0..array.len()).map(|row| formatter.value(row).to_string()).collect()
    }

    /// The values of lines `{"a":<value>}`.
    fn read(data_type: DataType, values: &[&str]) -> Vec<String> {
        let lines: String = values.iter().map(|value| format!("{{\"a\":{value}}}\n")).collect();
        let mut decoder = decoder(data_type, &[]);
        decoder.decode(lines.as_bytes(), true, usize::MAX).unwrap();
        let batch = decoder.flush().unwrap();
        batch.column(0).to_data().validate_full().unwrap();
        shown(batch.column(0))
    }

    /// The sentence about `{"a":<value>}`; a row before and one after it stay as they are.
    fn refusal(data_type: DataType, good: &str, value: &str) -> String {
        let mut decoder = decoder(data_type.clone(), &[]);
        let bad = format!("{{\"a\":{value}}}\n");
        let input = format!("{{\"a\":{good}}}\n{bad}{{\"a\":{good}}}\n");
        let error = decoder.decode(input.as_bytes(), true, usize::MAX).unwrap_err();
        assert_eq!((error.rows, error.length), (1, bad.len()));
        decoder.decode(&input.as_bytes()[error.offset + error.length..], true, usize::MAX).unwrap();
        let batch = decoder.flush().unwrap();
        batch.column(0).to_data().validate_full().unwrap();
        assert_eq!(shown(batch.column(0)), read(data_type, &[good, good]));
        error.to_string()
    }

    #[test]
    fn arrays() {
        let ints = DataType::new_list(DataType::Int32, true);
        let values = ["[1, 2,3]", "[]", "null", "[ null ,4 ]", "[ ]"];
        assert_eq!(read(ints, &values), ["[1, 2, 3]", "[]", "-", "[-, 4]", "[]"]);
        let texts = DataType::new_list(DataType::new_list(DataType::Utf8, true), true);
        let values = ["[[\"x\", \"\\u00e9\\n\"], null, []]", "[[{\"k\": [1]}, 2.50, true]]"];
        assert_eq!(read(texts, &values), ["[[x, é\n], -, []]", "[[{\"k\":[1]}, 2.50, true]]"]);
    }

    #[test]
    fn rows() {
        let inner = row_of(&[("x", DataType::Date32), ("y", DataType::Binary)]);
        let outer = row_of(&[("n", DataType::Int64), ("s", DataType::Utf8), ("r", inner)]);
        let values = [
            "{\"n\": 1, \"s\": \"one\", \"r\": {\"x\": \"2024-02-29\", \"y\": \"AQL/\"}}",
            "{\"r\": {\"y\": null, \"zz\": {\"x\": []}}, \"n\": 2}",
            "null",
            "{ }",
            "{\"n\": 3, \"\\u006e\": 4, \"s\": \"a\", \"s\": null, \"r\": null}",
        ];
        let expected = [
            "{n: 1, s: one, r: {x: 2024-02-29, y: 0102ff}}",
            "{n: 2, s: -, r: {x: -, y: -}}",
            "-",
            "{n: -, s: -, r: -}",
            "{n: 4, s: -, r: -}",
        ];
        assert_eq!(read(outer, &values), expected);
    }

    #[test]
    fn maps() {
        let values = ["{\"a\": 1, \"b\": null}", "{}", "null", "{\"k\": 1, \"j\": 2, \"\\u006b\": 3}"];
        assert_eq!(read(map_of(DataType::Int32), &values), ["{a: 1, b: -}", "{}", "-", "{k: 3, j: 2}"]);
        let lists = map_of(DataType::new_list(DataType::Boolean, true));
        assert_eq!(read(lists, &["{\"é\": [true, false]}"]), ["{é: [true, false]}"]);
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_place_and_taken_back() {
        let ints = || DataType::new_list(DataType::Int32, true);
        assert_eq!(refusal(ints(), "[7]", "[1, \"x\"]"), "column 'a': at [2]: 'x' is not an INT");
        assert_eq!(refusal(ints(), "[7]", "[1, 3000000000]"), "column 'a': at [2]: '3000000000' does not fit in INT");
        assert_eq!(refusal(ints(), "[7]", "{\"x\": 1}"), "column 'a': '{\"x\": 1}' is not an ARRAY<INT>");
        assert_eq!(refusal(ints(), "[7]", "5"), "column 'a': '5' is not an ARRAY<INT>");
        let inner =
            DataType::new_list(row_of(&[("x", DataType::Time32(arrow::datatypes::TimeUnit::Millisecond))]), true);
        let outer = row_of(&[("s", DataType::Utf8), ("l", inner)]);
        let good = "{\"s\": \"good\", \"l\": [{\"x\": \"05:06:07\"}]}";
        let sentence = refusal(outer, good, "{\"s\": \"bad\", \"l\": [{\"x\": \"05:06:08\"}, {\"x\": \"nine\"}]}");
        let expected = "column 'a': at .l[2].x: 'nine' is not a TIME(3); it should look like 05:00:00 or 05:00:00.123";
        assert_eq!(sentence, expected);
        let sentence = refusal(map_of(DataType::Binary), "{\"g\": \"AA==\"}", "{\"k\": \"AA==\", \"l\": \"%\"}");
        assert_eq!(sentence, "column 'a': at ['l']: '%' is not BYTES; they are written in base64");
        let sentence = refusal(map_of(DataType::Utf8), "{}", "{\"\\ud83d\": \"x\"}");
        assert_eq!(sentence, "column 'a': the key '\\ud83d' holds half of a surrogate pair");
    }

    #[test]
    fn syntax_within_is_checked_before_anything_is_stored() {
        let ints = DataType::new_list(DataType::Int32, true);
        let sentence = "column 'a': a comma or ']' should stand at '}', byte 10 of the record";
        assert_eq!(refusal(ints.clone(), "[1]", "[1, 2"), sentence);
        let deep = format!("{}1{}", "[".repeat(129), "]".repeat(129));
        let sentence = refusal(ints, "[1]", &deep);
        assert!(sentence.starts_with("column 'a': arrays and objects nest deeper than 128 levels at '["), "{sentence}");
    }

    #[test]
    fn a_missing_field_within_is_an_error_if_asked_for() {
        let mut decoder = decoder(row_of(&[("x", DataType::Int32)]), &[("json.fail-on-missing-field", "true")]);
        let error = decoder.decode(b"{\"a\":{\"y\":1}}\n", true, 9).unwrap_err();
        assert!(error.to_string().starts_with("column 'a': there is no field 'x', and "), "{error}");
        assert_eq!(decoder.decode(b"{\"a\":{\"x\":null}}\n", true, 9).unwrap().rows, 1);
    }

    #[test]
    fn keys_other_than_text_are_refused_by_name() {
        let parts = vec![Field::new("key", DataType::Int32, false), Field::new("value", DataType::Int32, true)];
        let ints = DataType::Map(Arc::new(Field::new("entries", DataType::Struct(parts.into()), false)), false);
        let table: SchemaRef = Arc::new(Schema::new(vec![Field::new("m", ints, true)]));
        let format = crate::format("json", &BTreeMap::new()).unwrap();
        let expected = "format 'json' knows only text as the keys of a MAP; declare it as MAP<STRING, ..> (column 'm')";
        assert_eq!(format.decoder(&DecoderConfig::new(&table, &[0])).err().unwrap().to_string(), expected);
        assert_eq!(format.encoder(&table).err().unwrap().to_string(), expected);
    }
}
