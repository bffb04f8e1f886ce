//! JSON in texts: IS JSON, JSON_EXISTS and JSON_VALUE by paths; `query` has JSON_QUERY, `build` what makes JSON.
//!
//! A path is translated once a batch. Nothing is built of a text: it is checked once, then the path walks over its
//! bytes, and what it finds is a part of the text as it stands there.
//!
//! The planner gives the clauses as texts: `NULL ON EMPTY`, `DEFAULT x ON ERROR`, the kind of an array wrapper.

mod build;
mod path;
mod query;

use arrow::array::{ArrayRef, StringBuilder};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use serde::de::IgnoredAny;

use super::call::Kind::Text;
use super::call::{Argument, Arguments, Definition, Gives, Texts, bad_value, constant_text, put, unfit};
use path::{Found, Path, text_of};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("is_json", &[&[Text, Text]], Gives::Truth, is_json),
    Definition::new("json_exists", &[&[Text, Text], &[Text, Text, Text]], Gives::Truth, exists).checked(check_path),
    Definition::new("json_value", &[&[Text, Text], &[Text, Text, Text, Text, Text, Text]], Gives::Text, value)
        .checked(check_path),
    query::QUERY,
    query::QUERY_ARRAY,
    Definition::new("json_quote", &[&[Text]], Gives::Text, quote),
    Definition::new("json_unquote", &[&[Text]], Gives::Text, unquote),
    build::STRING,
    build::OBJECT,
    build::ARRAY,
];

fn check_path(constants: &[Option<&ScalarValue>]) -> Result<()> {
    constant_text(constants, 1).map_or(Ok(()), |text| Path::translate(text).map(drop).map_err(unfit))
}

/// Whether all of `text` is one JSON value.
fn is_valid(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

fn is_json(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, kinds) = (args.text(0)?, args.text(1)?);
    args.truths(|row| {
        let kind = kinds.get(row)?;
        // NULL is no JSON.
        let Some(text) = texts.get(row) else { return Some(false) };
        let first = text.trim_start().bytes().next();
        let is_kind = match kind {
            "OBJECT" => first == Some(b'{'),
            "ARRAY" => first == Some(b'['),
            "SCALAR" => !matches!(first, Some(b'{' | b'[')),
            _ => true,
        };
        Some(is_kind && is_valid(text))
    })
}

/// The paths of a call: a constant one is translated once, others when they change.
enum Paths<'a> {
    Constant(Option<Path>),
    Column { texts: Texts<'a>, last: Option<(&'a str, Path)> },
}

impl<'a> Paths<'a> {
    fn of(args: &Arguments<'a>) -> Result<Self> {
        Ok(match args.text(1)? {
            Argument::Constant(text) => Self::Constant(text.map(Path::translate).transpose().map_err(bad_value)?),
            texts => Self::Column { texts, last: None },
        })
    }

    fn get(&mut self, row: usize) -> Result<Option<&Path>> {
        match self {
            Self::Constant(path) => Ok(path.as_ref()),
            Self::Column { texts, last } => {
                let Some(text) = texts.get(row) else { return Ok(None) };
                if last.as_ref().is_none_or(|(known, _)| *known != text) {
                    *last = Some((text, Path::translate(text).map_err(bad_value)?));
                }
                Ok(last.as_ref().map(|(_, path)| path))
            }
        }
    }
}

/// What a path meets in a text.
enum Met<'a> {
    Value(Found<'a>),
    /// Nothing or null, by a lax path; also in what is no JSON.
    Empty,
    /// Nothing or null, by a strict path, or no JSON: the sentence that says so.
    Error(String),
}

fn meet<'a>(text: &'a str, path: &Path) -> Met<'a> {
    let found = match is_valid(text) {
        true => path.find(text.trim()),
        false => Err(format!("'{}' is no JSON", text.chars().take(100).collect::<String>())),
    };
    match found {
        Err(sentence) if path.is_strict() => Met::Error(sentence),
        // A list of nothing.
        Err(_) if path.has_star() && is_valid(text) => Met::Value(Found::Many(Vec::new())),
        Ok(Found::One("null")) if path.is_strict() => Met::Error("the path finds null".to_owned()),
        Err(_) | Ok(Found::One("null")) => Met::Empty,
        Ok(found) => Met::Value(found),
    }
}

fn is_single(part: &str) -> bool {
    !part.starts_with(['{', '['])
}

fn exists(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, mut paths, on_error) = (args.text(0)?, Paths::of(args)?, args.text_or(2, "FALSE")?);
    let found = (0..args.rows).map(|row| {
        let (Some(text), Some(path)) = (texts.get(row), paths.get(row)?) else { return Ok(None) };
        match (meet(text, path), on_error.get(row)) {
            (Met::Value(_), _) | (Met::Error(_), Some("TRUE")) => Ok(Some(true)),
            (Met::Error(_), Some("UNKNOWN")) => Ok(None),
            (Met::Error(sentence), Some("ERROR")) => Err(bad_value(format!("JSON_EXISTS: {sentence}"))),
            (Met::Empty | Met::Error(_), _) => Ok(Some(false)),
        }
    });
    Ok(std::sync::Arc::new(found.collect::<Result<arrow::array::BooleanArray>>()?))
}

/// What a clause gives: `NULL`, `ERROR`, or `DEFAULT` and a text.
struct Clause<'a> {
    kind: Texts<'a>,
    default: Texts<'a>,
}

impl<'a> Clause<'a> {
    fn of(args: &Arguments<'a>, place: usize) -> Result<Self> {
        let default = if place + 1 < args.len() { args.text(place + 1)? } else { Argument::Constant(None) };
        Ok(Self { kind: args.text_or(place, "NULL")?, default })
    }

    fn apply(&self, row: usize, error: DataFusionError, out: &mut StringBuilder) -> Result<Option<()>> {
        match self.kind.get(row) {
            Some("ERROR") => Err(error),
            Some("DEFAULT") => Ok(self.default.get(row).map(|text| put(out, text))),
            _ => Ok(None),
        }
    }
}

/// The one value that the path finds, as a text: JSON's quotes and escapes taken off.
fn value(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, mut paths) = (args.text(0)?, Paths::of(args)?);
    let (on_empty, on_error) = (Clause::of(args, 2)?, Clause::of(args, 4)?);
    args.write_texts(|row, out| {
        let (Some(text), Some(path)) = (texts.get(row), paths.get(row)?) else { return Ok(None) };
        const NO_SINGLE: &str = "JSON_VALUE: the path finds no single value";
        match meet(text, path) {
            Met::Value(Found::One(part)) if is_single(part) => {
                put(out, &text_of(part));
                Ok(Some(()))
            }
            Met::Value(_) if path.is_strict() => on_error.apply(row, bad_value(NO_SINGLE), out),
            Met::Value(_) => on_empty.apply(row, bad_value(NO_SINGLE), out),
            Met::Empty => on_empty.apply(row, bad_value("JSON_VALUE: the path finds nothing"), out),
            Met::Error(sentence) => on_error.apply(row, bad_value(format!("JSON_VALUE: {sentence}")), out),
        }
    })
}

fn quote(args: &Arguments<'_>) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    args.write_texts(|row, out| Ok(texts.get(row).map(|text| build::put_quoted(text, out))))
}

/// A quoted text without quotes and escapes; another as it is.
fn unquote(args: &Arguments<'_>) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    args.write_texts(|row, out| {
        Ok(texts.get(row).map(|text| {
            let is_quoted = text.starts_with('"') && is_valid(text);
            put(out, &if is_quoted { text_of(text) } else { text.into() });
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{null, refused, shown, text};

    const DOCUMENT: &str = r#" {"a": {"b": [1, {"c": "x\ny"}, null]}, "a b": true, "n": null, "d": 1.10, "é": "ü"} "#;

    #[test]
    fn a_value_is_found_by_its_path() {
        let cases = [
            ("$.a.b[0]", Some("1")),
            ("lax $.a.b[1].c", Some("x\ny")),
            ("$['a b']", Some("true")),
            ("$.\"a b\"", Some("true")),
            ("$.d", Some("1.10")),
            ("$.é", Some("ü")),
            ("$.a", None),
            ("$.n", None),
            ("$.a.b[2]", None),
            ("$.nothing.at.all", None),
            // Flink opens no array for a member, and takes no value for an array.
            ("lax $.a.b.c", None),
            ("lax $.d[0]", None),
            ("$.a.b[*].c", None),
        ];
        for (path, expected) in cases {
            assert_eq!(shown("json_value", &[text(DOCUMENT), text(path)]).as_deref(), expected, "{path}");
        }
        assert_eq!(shown("json_value", &[null(), text("$")]), None);
        assert_eq!(shown("json_value", &[text("7"), text("$")]).as_deref(), Some("7"));
    }

    /// By a path without a word, a strict and a lax one.
    fn in_all_modes(path: &str, call: impl Fn(&str) -> Option<String>) -> [Option<String>; 3] {
        ["", "strict ", "lax "].map(|mode| call(&format!("{mode}{path}")))
    }

    #[test]
    fn clauses_say_what_nothing_gives() {
        // Flink 2.3's own answers.
        let cases = [
            ("{}", "$.s", ["R", "R", "E"]),
            (r#"{"s":null}"#, "$.s", ["R", "R", "E"]),
            (r#"{"s":5}"#, "$.s", ["5", "5", "5"]),
            (r#"{"s":[1]}"#, "$.s", ["R", "R", "E"]),
            ("{x", "$.s", ["R", "R", "E"]),
            (r#"{"s":5}"#, "$.s[0]", ["R", "R", "E"]),
            (r#"[{"s":5}]"#, "$.s", ["R", "R", "E"]),
            ("[1]", "$[3]", ["R", "R", "E"]),
            (r#"[{"x":1}]"#, "$[*].x", ["R", "R", "E"]),
        ];
        for (json, path, expected) in cases {
            let value = |path: &str| shown("json_value", &[json, path, "DEFAULT", "E", "DEFAULT", "R"].map(text));
            assert_eq!(in_all_modes(path, value), expected.map(|text| Some(text.to_owned())), "{json} {path}");
        }
        let error = refused("json_value", &["{", "$.a", "NULL", "", "ERROR", ""].map(text));
        assert_eq!(error, "JSON_VALUE: '{' is no JSON");
    }

    #[test]
    fn what_is_there_exists() {
        let cases = [
            ("{}", "$.s", [None, None, Some("false")]),
            (r#"{"s":null}"#, "$.s", [None, None, Some("false")]),
            (r#"{"s":[1]}"#, "$.s", [Some("true"); 3]),
            ("{x", "$.s", [None, None, Some("false")]),
            ("{}", "$.s[*]", [None, None, Some("true")]),
            ("{x", "$.s[*]", [None, None, Some("false")]),
            ("[]", "$[*]", [Some("true"); 3]),
            (r#"[{"y":1}]"#, "$[*].x", [Some("true"); 3]),
        ];
        for (json, path, expected) in cases {
            let exists = |path: &str| shown("json_exists", &[json, path, "UNKNOWN"].map(text));
            assert_eq!(in_all_modes(path, exists), expected.map(|text| text.map(str::to_owned)), "{json} {path}");
        }
        assert_eq!(shown("json_exists", &["{}", "$.x"].map(text)).as_deref(), Some("false"));
        assert_eq!(shown("json_exists", &["{", "$", "TRUE"].map(text)).as_deref(), Some("true"));
        assert_eq!(shown("json_exists", &[null(), text("$")]), None);
    }

    #[test]
    fn kinds_of_json() {
        let is = |json: &str, kind: &str| shown("is_json", &[text(json), text(kind)]).unwrap() == "true";
        assert!(is("1", "VALUE") && is("1", "SCALAR") && !is("1", "OBJECT"));
        assert!(is(" {\"a\":1}", "OBJECT") && !is("{\"a\":1}", "ARRAY") && !is("{\"a\":1}", "SCALAR"));
        assert_eq!(shown("is_json", &[null(), text("VALUE")]).as_deref(), Some("false"));
        assert!(is("[]", "ARRAY") && !is("[", "ARRAY") && !is("abc", "VALUE") && !is("", "VALUE"));
    }

    #[test]
    fn a_path_that_is_none_is_refused() {
        let error = |path: &str| refused("json_value", &[text("{}"), text(path)]);
        assert_eq!(error("a.b"), "the JSON path 'a.b' does not begin with '$'");
        assert_eq!(error("$.a[?(@.b)]"), "the JSON path '$.a[?(@.b)]' has '?' at 5, which is not supported");
        assert_eq!(error("$..a"), "the JSON path '$..a' has '.' at 3, which is not supported");
    }
}
