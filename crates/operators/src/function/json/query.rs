//! JSON_QUERY: the object or array that a path finds, as JSON or as an `ARRAY<STRING>`.

use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};

use super::super::call::Kind::Text;
use super::super::call::{Arguments, Definition, Gives, Texts, bad_value, put_char};
use super::path::{Found, Items, compact, text_of};
use super::{Met, Paths, check_path, is_single, meet};

pub(super) const QUERY: Definition =
    Definition::new("json_query", &[&[Text, Text], &[Text, Text, Text, Text, Text]], Gives::Text, query)
        .checked(check_path);
/// `JSON_QUERY(.. RETURNING ARRAY<STRING>)`.
pub(super) const QUERY_ARRAY: Definition =
    Definition::new("json_query_array", &[&[Text, Text, Text, Text, Text]], Gives::Computed(texts), query_array)
        .checked(check_path);

fn texts(_: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    Ok(DataType::new_list(DataType::Utf8, true))
}

/// What a row's query gives.
enum Answer<'a> {
    /// The part as it stands.
    Part(&'a str),
    /// An array of the parts.
    List(Vec<&'a str>),
    /// An array of an array of the parts.
    ListInList(Vec<&'a str>),
}

struct Query<'a> {
    texts: Texts<'a>,
    paths: Paths<'a>,
    wrappers: Texts<'a>,
    on_empty: Texts<'a>,
    on_error: Texts<'a>,
}

impl<'a> Query<'a> {
    fn of(args: &Arguments<'a>) -> Result<Self> {
        Ok(Self {
            texts: args.text(0)?,
            paths: Paths::of(args)?,
            wrappers: args.text_or(2, "WITHOUT")?,
            on_empty: args.text_or(3, "NULL")?,
            on_error: args.text_or(4, "NULL")?,
        })
    }

    fn answer(&mut self, row: usize) -> Result<Option<Answer<'a>>> {
        let (Some(text), Some(path)) = (self.texts.get(row), self.paths.get(row)?) else { return Ok(None) };
        let is_strict = path.is_strict();
        let found = match meet(text, path) {
            Met::Value(found) => found,
            Met::Empty => return clause(&self.on_empty, row, "the path finds nothing"),
            Met::Error(sentence) => return clause(&self.on_error, row, &sentence),
        };
        Ok(Some(match (found, self.wrappers.get(row)) {
            (Found::Many(parts), Some("UNCONDITIONAL")) => Answer::ListInList(parts),
            (Found::Many(parts), _) => Answer::List(parts),
            (Found::One(part), Some("UNCONDITIONAL")) => Answer::List(vec![part]),
            (Found::One(part), Some("CONDITIONAL")) if !part.starts_with('[') => Answer::List(vec![part]),
            (Found::One(part), _) if is_single(part) => {
                let asked = if is_strict { &self.on_error } else { &self.on_empty };
                return clause(asked, row, "the path finds a value that is neither object nor array");
            }
            (Found::One(part), _) => Answer::Part(part),
        }))
    }
}

/// What `NULL | ERROR | EMPTY ARRAY | EMPTY OBJECT` gives.
fn clause<'a>(asked: &Texts<'_>, row: usize, sentence: &str) -> Result<Option<Answer<'a>>> {
    match asked.get(row) {
        Some("ERROR") => Err(bad_value(format!("JSON_QUERY: {sentence}"))),
        Some("EMPTY ARRAY") => Ok(Some(Answer::Part("[]"))),
        Some("EMPTY OBJECT") => Ok(Some(Answer::Part("{}"))),
        _ => Ok(None),
    }
}

fn query(args: &Arguments<'_>) -> Result<ArrayRef> {
    let mut query = Query::of(args)?;
    args.write_texts(|row, out| {
        let Some(answer) = query.answer(row)? else { return Ok(None) };
        match answer {
            Answer::Part(part) => compact(part, out),
            Answer::List(parts) => put_list(&parts, out),
            Answer::ListInList(parts) => {
                put_char(out, '[');
                put_list(&parts, out);
                put_char(out, ']');
            }
        }
        Ok(Some(()))
    })
}

fn put_list(parts: &[&str], out: &mut StringBuilder) {
    put_char(out, '[');
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            put_char(out, ',');
        }
        compact(part, out);
    }
    put_char(out, ']');
}

/// Texts without their quotes, null as NULL, objects and arrays as JSON; what is no array is an error.
fn query_array(args: &Arguments<'_>) -> Result<ArrayRef> {
    let mut query = Query::of(args)?;
    let item = Field::new_list_field(DataType::Utf8, true);
    let mut out = ListBuilder::new(StringBuilder::new()).with_field(Arc::new(item));
    for row in 0..args.rows {
        let answer = match query.answer(row)? {
            Some(Answer::Part(part)) if !part.starts_with('[') => {
                clause(&query.on_error, row, "the path finds an object, not an array")?
            }
            answer => answer,
        };
        let values = out.values();
        match &answer {
            Some(Answer::Part(part)) => Items::of(part).for_each(|item| put_item(item, values)),
            Some(Answer::List(parts)) => parts.iter().for_each(|item| put_item(item, values)),
            Some(Answer::ListInList(parts)) => {
                put_list(parts, values);
                values.append_value("");
            }
            None => {}
        }
        out.append(answer.is_some());
    }
    Ok(Arc::new(out.finish()))
}

fn put_item(item: &str, out: &mut StringBuilder) {
    match item {
        "null" => out.append_null(),
        single if is_single(single) => out.append_value(text_of(single)),
        nested => {
            compact(nested, out);
            out.append_value("");
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};

    use super::super::super::testing::{call, shown, text};

    const DOCUMENT: &str =
        r#" {"a": {"b": [1, {"c": "x\ny"}, null]}, "d": 1.10, "list": [{"x":1},{"x":2}], "none": []} "#;

    fn query(path: &str, wrapper: &str) -> Option<String> {
        shown("json_query", &[DOCUMENT, path, wrapper, "NULL", "NULL"].map(text))
    }

    #[test]
    fn parts_are_given_as_json() {
        assert_eq!(query("$.a", "WITHOUT").as_deref(), Some(r#"{"b":[1,{"c":"x\ny"},null]}"#));
        assert_eq!(query("$.d", "WITHOUT"), None);
        assert_eq!(query("$.d", "CONDITIONAL").as_deref(), Some("[1.10]"));
        assert_eq!(query("$.a.b", "CONDITIONAL").as_deref(), Some(r#"[1,{"c":"x\ny"},null]"#));
        assert_eq!(query("$.a.b", "UNCONDITIONAL").as_deref(), Some(r#"[[1,{"c":"x\ny"},null]]"#));
        assert_eq!(query("$.a.b[2]", "UNCONDITIONAL"), None);
    }

    #[test]
    fn a_star_gives_a_list() {
        for (wrapper, expected) in [("WITHOUT", "[1,2]"), ("CONDITIONAL", "[1,2]"), ("UNCONDITIONAL", "[[1,2]]")] {
            assert_eq!(query("$.list[*].x", wrapper).as_deref(), Some(expected));
        }
        assert_eq!(query("$.a.b[*].c", "WITHOUT").as_deref(), Some(r#"["x\ny"]"#));
        assert_eq!(query("$.none[*].x", "CONDITIONAL").as_deref(), Some("[]"));
        assert_eq!(query("$.none[*]", "UNCONDITIONAL").as_deref(), Some("[[]]"));
        assert_eq!(query("$.d[*]", "WITHOUT").as_deref(), Some("[]"));
        assert_eq!(query("$.not[*].x", "UNCONDITIONAL"), None);
    }

    #[test]
    fn clauses_stand_in_by_the_mode() {
        // Flink 2.3's own answers to EMPTY ARRAY ON EMPTY and EMPTY OBJECT ON ERROR: strict, then lax.
        let cases = [
            ("{}", "$.s", ["{}", "[]"]),
            (r#"{"s":null}"#, "$.s", ["{}", "[]"]),
            (r#"{"s":5}"#, "$.s", ["{}", "[]"]),
            (r#"{"s":[1]}"#, "$.s", ["[1]", "[1]"]),
            ("{x", "$.s", ["{}", "[]"]),
            (r#"[{"x":null}]"#, "$[*].x", ["[null]", "[null]"]),
        ];
        for (json, path, expected) in cases {
            let query = |mode: &str| {
                let args = [json, &format!("{mode}{path}"), "WITHOUT", "EMPTY ARRAY", "EMPTY OBJECT"].map(text);
                shown("json_query", &args).unwrap()
            };
            assert_eq!([query(""), query("strict "), query("lax ")], [expected[0], expected[0], expected[1]], "{json}");
        }
    }

    fn array(json: &str, wrapper: &str, on_error: &str) -> Option<Vec<Option<String>>> {
        let made = call("json_query_array", &[json, "$.a", wrapper, "NULL", on_error].map(text)).unwrap();
        let texts = |row: usize| {
            made.as_list::<i32>().value(row).as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
        };
        made.is_valid(0).then(|| texts(0))
    }

    #[test]
    fn arrays_are_given_as_arrays() {
        let given = array(r#"{"a":["c\n1",2,null,true,1.50,{"z": 1},[1, 2]]}"#, "WITHOUT", "NULL").unwrap();
        let given: Vec<_> = given.iter().map(Option::as_deref).collect();
        let expected = [Some("c\n1"), Some("2"), None, Some("true"), Some("1.50"), Some("{\"z\":1}"), Some("[1,2]")];
        assert_eq!(given, expected);
        assert_eq!(array(r#"{"a":{"b":1}}"#, "WITHOUT", "NULL"), None);
        assert_eq!(array(r#"{"a":{"b":1}}"#, "WITHOUT", "EMPTY ARRAY"), Some(vec![]));
        assert_eq!(array(r#"{"a":{"b":1}}"#, "UNCONDITIONAL", "NULL"), Some(vec![Some("{\"b\":1}".to_owned())]));
        assert_eq!(array(r#"{"a":"x"}"#, "CONDITIONAL", "NULL"), Some(vec![Some("x".to_owned())]));
        assert_eq!(array(r#"{"a":[]}"#, "WITHOUT", "NULL"), Some(vec![]));
        assert_eq!(array("{}", "WITHOUT", "NULL"), None);
    }
}
