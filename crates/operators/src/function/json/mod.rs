//! JSON in texts: IS JSON, JSON_EXISTS, JSON_VALUE, JSON_QUERY by paths, JSON_OBJECT, JSON_ARRAY, JSON_STRING.
//!
//! A path is translated once a batch. Nothing is built of a text: it is checked once, then the path walks over its
//! bytes, and what it finds is a part of the text as it stands there.
//!
//! The planner gives the clauses as texts: `NULL ON EMPTY`, `DEFAULT x ON ERROR`, the kind of an array wrapper.

mod build;
mod path;

use arrow::array::{ArrayRef, StringBuilder};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use serde::de::IgnoredAny;

use super::call::Kind::Text;
use super::call::{Argument, Arguments, Definition, Gives, Texts, bad_value, constant_text, put, put_char, unfit};
use path::{Found, Path, compact, text_of};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("is_json", &[&[Text, Text]], Gives::Truth, is_json),
    Definition::new("json_exists", &[&[Text, Text], &[Text, Text, Text]], Gives::Truth, exists).checked(check_path),
    Definition::new("json_value", &[&[Text, Text], &[Text, Text, Text, Text, Text, Text]], Gives::Text, value)
        .checked(check_path),
    Definition::new("json_query", &[&[Text, Text], &[Text, Text, Text, Text, Text]], Gives::Text, query)
        .checked(check_path),
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
        let (text, kind) = (texts.get(row)?, kinds.get(row)?);
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

/// What the path finds in the text; an error for a text that is no JSON, and for what a strict path does not meet.
fn find<'a>(text: &'a str, path: &Path) -> std::result::Result<Found<'a>, String> {
    if !is_valid(text) {
        let shown: String = text.chars().take(100).collect();
        return Err(format!("'{shown}' is no JSON"));
    }
    path.find(text.trim())
}

fn exists(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, mut paths, on_error) = (args.text(0)?, Paths::of(args)?, args.text_or(2, "FALSE")?);
    let found = (0..args.rows).map(|row| {
        let (Some(text), Some(path)) = (texts.get(row), paths.get(row)?) else { return Ok(None) };
        match (find(text, path), on_error.get(row)) {
            (Ok(found), _) => Ok(Some(!matches!(found, Found::Nothing | Found::One("null")))),
            (Err(_), Some("TRUE")) => Ok(Some(true)),
            (Err(_), Some("UNKNOWN")) => Ok(None),
            (Err(sentence), Some("ERROR")) => Err(bad_value(format!("JSON_EXISTS: {sentence}"))),
            (Err(_), _) => Ok(Some(false)),
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
        match find(text, path) {
            Ok(Found::One(part)) if part != "null" && !part.starts_with(['{', '[']) => {
                put(out, &text_of(part));
                Ok(Some(()))
            }
            Ok(Found::Nothing | Found::One("null")) => {
                on_empty.apply(row, bad_value("JSON_VALUE: the path finds nothing"), out)
            }
            Ok(_) if path.is_strict() => {
                on_error.apply(row, bad_value("JSON_VALUE: the path finds no single value"), out)
            }
            Ok(_) => on_empty.apply(row, bad_value("JSON_VALUE: the path finds no single value"), out),
            Err(sentence) => on_error.apply(row, bad_value(format!("JSON_VALUE: {sentence}")), out),
        }
    })
}

/// The object or array that the path finds, as JSON.
fn query(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, mut paths) = (args.text(0)?, Paths::of(args)?);
    let wrappers = args.text_or(2, "WITHOUT")?;
    let (on_empty, on_error) = (args.text_or(3, "NULL")?, args.text_or(4, "NULL")?);
    args.write_texts(|row, out| {
        let (Some(text), Some(path)) = (texts.get(row), paths.get(row)?) else { return Ok(None) };
        let found = find(text, path);
        let sentence = match (&found, wrappers.get(row)) {
            (Ok(Found::Nothing | Found::One("null")), _) => "the path finds nothing",
            (Ok(Found::One(part)), wrapper) => match (wrapper, part.starts_with(['{', '['])) {
                (Some("UNCONDITIONAL"), _) | (Some("CONDITIONAL"), false) => {
                    listed(&[part], out);
                    return Ok(Some(()));
                }
                (_, true) => {
                    compact(part, out);
                    return Ok(Some(()));
                }
                (_, false) => "the path finds a value that is neither object nor array",
            },
            (Ok(Found::Many(parts)), _) => {
                listed(parts, out);
                return Ok(Some(()));
            }
            (Err(sentence), _) => sentence,
        };
        let is_nothing = matches!(found, Ok(Found::Nothing | Found::One("null")));
        let is_error = found.is_err() || (path.is_strict() && !is_nothing);
        let clause = if is_error { &on_error } else { &on_empty };
        match clause.get(row) {
            Some("ERROR") => return Err(bad_value(format!("JSON_QUERY: {sentence}"))),
            Some("EMPTY ARRAY") => put(out, "[]"),
            Some("EMPTY OBJECT") => put(out, "{}"),
            _ => return Ok(None),
        }
        Ok(Some(()))
    })
}

fn listed(parts: &[&str], out: &mut StringBuilder) {
    put_char(out, '[');
    for (place, part) in parts.iter().enumerate() {
        if place > 0 {
            put_char(out, ',');
        }
        compact(part, out);
    }
    put_char(out, ']');
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
            ("$.a.b.c", Some("x\ny")),
            ("$.d[0]", Some("1.10")),
            ("strict $.d[0]", None),
            ("strict $.nothing", None),
        ];
        for (path, expected) in cases {
            assert_eq!(shown("json_value", &[text(DOCUMENT), text(path)]).as_deref(), expected, "{path}");
        }
        assert_eq!(shown("json_value", &[null(), text("$")]), None);
        assert_eq!(shown("json_value", &[text("7"), text("$")]).as_deref(), Some("7"));
    }

    #[test]
    fn clauses_say_what_nothing_gives() {
        let value = |json: &str, path: &str, empty: &str, error: &str| {
            let args = [json, path, empty, "dry", error, "broken"].map(text);
            shown("json_value", &args)
        };
        assert_eq!(value("{}", "lax $.a", "DEFAULT", "NULL").as_deref(), Some("dry"));
        assert_eq!(value("{", "$.a", "NULL", "DEFAULT").as_deref(), Some("broken"));
        assert_eq!(value("{}", "strict $.a", "NULL", "DEFAULT").as_deref(), Some("broken"));
        assert_eq!(value("{} x", "$.a", "DEFAULT", "NULL"), None);
        let error = refused("json_value", &["{", "$.a", "NULL", "", "ERROR", ""].map(text));
        assert_eq!(error, "JSON_VALUE: '{' is no JSON");
    }

    #[test]
    fn parts_are_given_as_json() {
        let query =
            |path: &str, wrapper: &str| shown("json_query", &[DOCUMENT, path, wrapper, "NULL", "NULL"].map(text));
        assert_eq!(query("$.a", "WITHOUT").as_deref(), Some(r#"{"b":[1,{"c":"x\ny"},null]}"#));
        assert_eq!(query("$.d", "WITHOUT"), None);
        assert_eq!(query("$.d", "CONDITIONAL").as_deref(), Some("[1.10]"));
        assert_eq!(query("$.a.b", "CONDITIONAL").as_deref(), Some(r#"[1,{"c":"x\ny"},null]"#));
        assert_eq!(query("$.a.b", "UNCONDITIONAL").as_deref(), Some(r#"[[1,{"c":"x\ny"},null]]"#));
        assert_eq!(query("$.a.b[*].c", "WITHOUT").as_deref(), Some(r#"["x\ny"]"#));
        let empty = shown("json_query", &["{}", "$.a", "WITHOUT", "EMPTY ARRAY", "NULL"].map(text));
        assert_eq!(empty.as_deref(), Some("[]"));
    }

    #[test]
    fn what_is_there_exists() {
        let exists = |path: &str| shown("json_exists", &[text(DOCUMENT), text(path)]);
        assert_eq!(exists("$.a.b[1]").as_deref(), Some("true"));
        assert_eq!(exists("$.a.b[7]").as_deref(), Some("false"));
        assert_eq!(exists("strict $.x").as_deref(), Some("false"));
        assert_eq!(shown("json_exists", &["{", "$", "UNKNOWN"].map(text)), None);
        assert_eq!(shown("json_exists", &["{", "$", "TRUE"].map(text)).as_deref(), Some("true"));
    }

    #[test]
    fn kinds_of_json() {
        let is = |json: &str, kind: &str| shown("is_json", &[text(json), text(kind)]).unwrap() == "true";
        assert!(is("1", "VALUE") && is("1", "SCALAR") && !is("1", "OBJECT"));
        assert!(is(" {\"a\":1}", "OBJECT") && !is("{\"a\":1}", "ARRAY") && !is("{\"a\":1}", "SCALAR"));
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
