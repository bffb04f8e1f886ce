//! Texts cut into arrays and maps: SPLIT, STR_TO_MAP.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringBuilder};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{Result, ScalarValue};
use regex::Regex;

use super::super::call::Kind::Text;
use super::super::call::{Arguments, Definition, Gives};
use super::super::regex::{Patterns, check_pattern};
use super::lists::{RowEnds, array_type, list_of};
use super::maps::{map_of, map_type};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("split", &[&[Text, Text]], Gives::Computed(texts), split),
    Definition::new("str_to_map", &[&[Text], &[Text, Text, Text]], Gives::Computed(map_of_texts), str_to_map)
        .checked(check_delimiters),
];

fn texts(_: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    Ok(array_type(DataType::Utf8))
}

fn map_of_texts(_: &[FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    Ok(map_type(DataType::Utf8, DataType::Utf8))
}

fn check_delimiters(constants: &[Option<&ScalarValue>]) -> Result<()> {
    check_pattern(constants, 1).and_then(|()| check_pattern(constants, 2))
}

/// The parts between separators, the empty ones too, but none of an empty text; the letters, if the separator is empty.
fn split(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, separators) = (args.text(0)?, args.text(1)?);
    let (mut parts, mut ends, mut count) = (StringBuilder::new(), RowEnds::new(args.rows), 0);
    for row in 0..args.rows {
        let (text, separator) = (texts.get(row), separators.get(row));
        let mut put = |part: &str| {
            parts.append_value(part);
            count += 1;
        };
        match (text, separator) {
            (Some(text), Some("")) => {
                let mut letter = [0; 4];
                text.chars().for_each(|one| put(one.encode_utf8(&mut letter)));
            }
            (Some(text), Some(separator)) if !text.is_empty() => text.split(separator).for_each(put),
            _ => {}
        }
        ends.end(count, text.is_some() && separator.is_some())?;
    }
    let (offsets, nulls) = ends.finish();
    list_of(args.gives, offsets, Arc::new(parts.finish()), nulls)
}

/// `a=1,b=2`; both delimiters are regular expressions. A pair without the second has the value NULL.
fn str_to_map(args: &Arguments<'_>) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let between = Patterns::of(args.text_or(1, ",")?)?;
    let within = Patterns::of(args.text_or(2, "=")?)?;
    let (mut keys, mut values, mut ends) = (StringBuilder::new(), StringBuilder::new(), RowEnds::new(args.rows));
    let (mut pairs, mut places, mut count) = (Vec::new(), HashMap::new(), 0);
    for row in 0..args.rows {
        pairs.clear();
        places.clear();
        let read = |text| {
            let read =
                |between: &Regex| within.with(row, |within| pairs_of(text, between, within, &mut pairs, &mut places));
            between.with(row, read)
        };
        let is_there = texts.get(row).map(read).transpose()?.flatten().transpose()?.flatten().is_some();
        for (key, value) in &pairs {
            keys.append_value(key);
            values.append_option(*value);
        }
        count += pairs.len();
        ends.end(count, is_there)?;
    }
    let (offsets, nulls) = ends.finish();
    map_of(args.gives, (Arc::new(keys.finish()), Arc::new(values.finish())), offsets, nulls)
}

/// Puts a text's pairs into `pairs`: each key once, with its last value; `places` says where it stands.
fn pairs_of<'a>(
    text: &'a str,
    between: &Regex,
    within: &Regex,
    pairs: &mut Vec<(&'a str, Option<&'a str>)>,
    places: &mut HashMap<&'a str, usize>,
) {
    for pair in java_split(text, between) {
        let found = within.find_iter(pair).find(|found| found.end() > 0);
        let (key, value) = match found {
            Some(found) => (pair.get(..found.start()).unwrap_or_default(), pair.get(found.end()..)),
            None => (pair, None),
        };
        let place = *places.entry(key).or_insert(pairs.len());
        match pairs.get_mut(place) {
            Some(known) => known.1 = value,
            None => pairs.push((key, value)),
        }
    }
}

/// The parts as Java's `String.split` gives them: none behind the last that is not empty, and none of an empty match
/// at the begin.
fn java_split<'a>(text: &'a str, separator: &Regex) -> Vec<&'a str> {
    if text.is_empty() {
        return Vec::new();
    }
    let begins_empty = separator.find(text).is_some_and(|found| found.end() == 0);
    let mut parts: Vec<&str> = separator.split(text).skip(usize::from(begins_empty)).collect();
    while parts.last().is_some_and(|last| last.is_empty()) {
        parts.pop();
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{null, refused, text};
    use super::super::testing::made;

    #[test]
    fn texts_are_split_as_by_flink() {
        let cases = [
            ("a,b,c", ",", "[a, b, c]"),
            (",a,,b,", ",", "[, a, , b, ]"),
            ("aXYb", "XY", "[a, b]"),
            ("a.b", ".", "[a, b]"),
            ("añ東", "", "[a, ñ, 東]"),
            (",", ",", "[, ]"),
            ("", ",", "[]"),
            ("", "", "[]"),
        ];
        for (given, separator, expected) in cases {
            assert_eq!(made("split", &[text(given), text(separator)]).as_deref(), Some(expected), "{given}");
        }
        assert_eq!(made("split", &[null(), text(",")]), None);
        assert_eq!(made("split", &[text("a"), null()]), None);
    }

    #[test]
    fn maps_are_read_as_by_flink() {
        let read = |args: &[&str]| made("str_to_map", &args.iter().copied().map(text).collect::<Vec<_>>()).unwrap();
        assert_eq!(read(&["a=1,b=2"]), "{a=1, b=2}");
        assert_eq!(read(&["a:1;b:2", ";", ":"]), "{a=1, b=2}");
        assert_eq!(read(&["a=1,b,c=3=4"]), "{a=1, b=NULL, c=3=4}");
        assert_eq!(read(&["a=1,,b="]), "{a=1, =NULL, b=}");
        assert_eq!(read(&["a=1,b=2,,"]), "{a=1, b=2}");
        assert_eq!(read(&["a=1,a=2"]), "{a=2}");
        assert_eq!(read(&["a.1;b.2", ";", "."]), "{=.2}");
        assert_eq!(read(&["a1=x2y", "[0-9]", "="]), "{a=NULL, =x, y=NULL}");
        assert_eq!(read(&["ab", "", "="]), "{a=NULL, b=NULL}");
        assert_eq!(read(&[""]), "{}");
        assert_eq!(made("str_to_map", &[null()]), None);
        assert_eq!(made("str_to_map", &[text("a=1"), null(), text("=")]), None);
        let error = refused("str_to_map", &["a", "(", "="].map(text));
        assert!(error.starts_with("the regular expression '(' cannot be used"), "{error}");
    }
}
