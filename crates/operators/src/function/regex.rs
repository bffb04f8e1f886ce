//! REGEXP, REGEXP_EXTRACT and their kin: Java's regular expressions as far as they have no look-around and no references
//! back, which are refused. Also SIMILAR TO.
//!
//! A pattern is compiled once for a thread that uses it, not once a row: [`with_regex`] keeps the last few.

use std::cell::RefCell;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringBuilder};
use arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue};
use regex::{CaptureLocations, Regex};

use super::call::Kind::{Int, Text};
use super::call::{Argument, Arguments, Definition, Gives, Texts, bad_value, constant_text, put, put_char, unfit};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("regexp", &[&[Text, Text]], Gives::Truth, regexp).checked(check_second),
    Definition::new("regexp_extract", &[&[Text, Text], &[Text, Text, Int]], Gives::Text, extract).checked(check_second),
    Definition::new("regexp_extract_all", &[&[Text, Text], &[Text, Text, Int]], Gives::Computed(list), extract_all)
        .checked(check_second),
    Definition::new("regexp_replace", &[&[Text, Text, Text]], Gives::Text, replace).checked(check_second),
    Definition::new("regexp_count", &[&[Text, Text]], Gives::Int, count).checked(check_second),
    Definition::new("regexp_instr", &[&[Text, Text]], Gives::Int, instr).checked(check_second),
    Definition::new("regexp_substr", &[&[Text, Text]], Gives::Text, substr).checked(check_second),
    Definition::new("similar_to", &[&[Text, Text], &[Text, Text, Text]], Gives::Truth, similar).checked(check_similar),
];

/// How many compiled patterns a thread keeps.
const PATTERNS_MAX: usize = 16;

struct Compiled {
    pattern: String,
    regex: Arc<Regex>,
}

thread_local! {
    static COMPILED: RefCell<Vec<Compiled>> = const { RefCell::new(Vec::new()) };
}

/// The compiled `pattern`.
fn compiled(pattern: &str) -> Result<Arc<Regex>> {
    COMPILED.with_borrow_mut(|known| {
        if let Some(place) = known.iter().position(|compiled| compiled.pattern == pattern) {
            return match known.get(place) {
                Some(found) => Ok(found.regex.clone()),
                None => compile(pattern),
            };
        }
        let regex = compile(pattern)?;
        if known.len() == PATTERNS_MAX {
            known.remove(0);
        }
        known.push(Compiled { pattern: pattern.to_owned(), regex: regex.clone() });
        Ok(regex)
    })
}

fn compile(pattern: &str) -> Result<Arc<Regex>> {
    Regex::new(pattern).map(Arc::new).map_err(|error| bad_value(refusal(pattern, &error)))
}

fn refusal(pattern: &str, error: &regex::Error) -> String {
    let text = error.to_string();
    let reason = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ");
    let reason = match reason {
        reason if reason.contains("look-around") => "look-ahead and look-behind are not supported",
        reason if reason.contains("backreferences") => "references back to a group are not supported",
        reason => reason,
    };
    format!("the regular expression '{pattern}' cannot be used: {reason}")
}

fn check_second(constants: &[Option<&ScalarValue>]) -> Result<()> {
    check_pattern(constants, 1)
}

/// A wrong constant pattern is refused while planning.
pub(super) fn check_pattern(constants: &[Option<&ScalarValue>], place: usize) -> Result<()> {
    match constant_text(constants, place) {
        Some(pattern) => Regex::new(pattern).map(drop).map_err(|error| unfit(refusal(pattern, &error))),
        None => Ok(()),
    }
}

/// The patterns of a call: a constant one is compiled once.
pub(super) enum Patterns<'a> {
    Constant(Option<Arc<Regex>>),
    Column(Texts<'a>),
}

impl<'a> Patterns<'a> {
    /// Those of an argument.
    pub(super) fn of(texts: Texts<'a>) -> Result<Self> {
        Ok(match texts {
            Argument::Constant(pattern) => Self::Constant(pattern.map(compiled).transpose()?),
            column => Self::Column(column),
        })
    }

    /// Runs `with` on the row's pattern; NULL has none.
    #[inline]
    pub(super) fn with<R>(&self, row: usize, with: impl FnOnce(&Regex) -> R) -> Result<Option<R>> {
        match self {
            Self::Constant(regex) => Ok(regex.as_ref().map(|regex| with(regex))),
            Self::Column(texts) => match texts.get(row) {
                Some(pattern) => Ok(Some(with(compiled(pattern)?.as_ref()))),
                None => Ok(None),
            },
        }
    }
}

fn regexp(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (args.text(0)?, Patterns::of(args.text(1)?)?);
    let found = (0..args.rows).map(|row| match texts.get(row) {
        Some(text) => patterns.with(row, |regex| regex.is_match(text)),
        None => Ok(None),
    });
    Ok(Arc::new(found.collect::<Result<arrow::array::BooleanArray>>()?))
}

/// The text of a group of the first match: NULL without a match, a group, or a part of it.
fn extract(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, patterns, groups) = (args.text(0)?, Patterns::of(args.text(1)?)?, args.int_or(2, 0)?);
    let mut locations: Option<CaptureLocations> = match &patterns {
        Patterns::Constant(Some(regex)) => Some(regex.capture_locations()),
        _ => None,
    };
    args.write_texts(|row, out| {
        let (Some(text), Some(group)) = (texts.get(row), groups.get(row)) else { return Ok(None) };
        let Ok(group) = usize::try_from(group) else { return Ok(None) };
        let found = patterns.with(row, |regex| match &mut locations {
            Some(locations) => group_of(regex, locations, text, group),
            None => group_of(regex, &mut regex.capture_locations(), text, group),
        })?;
        Ok(found.flatten().map(|part| put(out, part)))
    })
}

fn group_of<'a>(regex: &Regex, locations: &mut CaptureLocations, text: &'a str, group: usize) -> Option<&'a str> {
    if group == 0 {
        return regex.find(text).map(|found| found.as_str());
    }
    regex.captures_read(locations, text)?;
    let (from, to) = locations.get(group)?;
    text.get(from..to)
}

fn list(_: &[arrow::datatypes::FieldRef], _: &[Option<&ScalarValue>]) -> Result<DataType> {
    Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))))
}

fn extract_all(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, patterns, groups) = (args.text(0)?, Patterns::of(args.text(1)?)?, args.int_or(2, 1)?);
    let mut out = ListBuilder::new(StringBuilder::new());
    for row in 0..args.rows {
        let found = match (texts.get(row), groups.get(row).map(usize::try_from)) {
            (Some(text), Some(Ok(group))) => patterns.with(row, |regex| {
                if group >= regex.captures_len() {
                    return false;
                }
                for captures in regex.captures_iter(text) {
                    out.values().append_option(captures.get(group).map(|part| part.as_str()));
                }
                true
            })?,
            _ => None,
        };
        out.append(found == Some(true));
    }
    Ok(Arc::new(out.finish()))
}

fn count(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (args.text(0)?, Patterns::of(args.text(1)?)?);
    args.ints(|row| match texts.get(row) {
        Some(text) => patterns.with(row, |regex| i32::try_from(regex.find_iter(text).count()).unwrap_or(i32::MAX)),
        None => Ok(None),
    })
}

/// Where the first match begins, in letters from 1; 0 without one.
fn instr(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (args.text(0)?, Patterns::of(args.text(1)?)?);
    args.ints(|row| match texts.get(row) {
        Some(text) => patterns.with(row, |regex| {
            let before = regex.find(text).and_then(|found| text.get(..found.start()));
            before.map_or(0, |before| i32::try_from(before.chars().count() + 1).unwrap_or(i32::MAX))
        }),
        None => Ok(None),
    })
}

fn substr(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (args.text(0)?, Patterns::of(args.text(1)?)?);
    args.write_texts(|row, out| {
        let Some(text) = texts.get(row) else { return Ok(None) };
        let found = patterns.with(row, |regex| regex.find(text))?.flatten();
        Ok(found.map(|found| put(out, found.as_str())))
    })
}

/// Replaces every match; `$1` in the new text is a group, `\` takes the next character as it is.
fn replace(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, patterns, news) = (args.text(0)?, Patterns::of(args.text(1)?)?, args.text(2)?);
    args.write_texts(|row, out| {
        let (Some(text), Some(new)) = (texts.get(row), news.get(row)) else { return Ok(None) };
        patterns.with(row, |regex| replace_all(regex, text, new, out))?.transpose()
    })
}

fn replace_all(regex: &Regex, text: &str, new: &str, out: &mut StringBuilder) -> Result<()> {
    let is_plain = !new.contains(['$', '\\']);
    let mut locations = regex.capture_locations();
    let (mut from, mut copied) = (0, 0);
    while from <= text.len() {
        let Some(found) = regex.captures_read_at(&mut locations, text, from) else { break };
        put(out, text.get(copied..found.start()).unwrap_or_default());
        match is_plain {
            true => put(out, new),
            false => substitute(new, &locations, text, out)?,
        }
        copied = found.end();
        from = found.end();
        if found.is_empty() {
            // Go on behind the next letter, which stays.
            let letter = text.get(from..).and_then(|rest| rest.chars().next());
            from += letter.map_or(1, char::len_utf8);
        }
    }
    put(out, text.get(copied..).unwrap_or_default());
    Ok(())
}

fn substitute(new: &str, locations: &CaptureLocations, text: &str, out: &mut StringBuilder) -> Result<()> {
    let mut letters = new.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => put_char(out, letters.next().ok_or_else(|| bad_new(new, "nothing follows the last '\\'"))?),
            '$' => {
                let digit = letters.next().and_then(|letter| letter.to_digit(10));
                let mut group = digit.ok_or_else(|| bad_new(new, "a group's number must follow '$'"))? as usize;
                if group >= locations.len() {
                    return Err(bad_new(new, &format!("there is no group {group}")));
                }
                // As many digits as make the number of a group.
                while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
                    let longer = group * 10 + digit as usize;
                    if longer >= locations.len() {
                        break;
                    }
                    group = longer;
                    letters.next();
                }
                let part = locations.get(group).and_then(|(from, to)| text.get(from..to));
                put(out, part.unwrap_or_default());
            }
            letter => put_char(out, letter),
        }
    }
    Ok(())
}

fn bad_new(new: &str, reason: &str) -> datafusion::common::DataFusionError {
    bad_value(format!("REGEXP_REPLACE by '{new}': {reason}"))
}

fn similar(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (args.text(0)?, args.text(1)?);
    let escapes = if args.len() > 2 { Some(args.text(2)?) } else { None };
    let mut last: Option<(&str, Option<&str>, Arc<Regex>)> = None;
    let mut found = Vec::with_capacity(args.rows);
    for row in 0..args.rows {
        let escape = escapes.as_ref().map(|escapes| escapes.get(row));
        let (Some(text), Some(pattern)) = (texts.get(row), patterns.get(row)) else {
            found.push(None);
            continue;
        };
        let escape = match escape {
            Some(None) => {
                found.push(None);
                continue;
            }
            Some(Some(escape)) => Some(escape),
            None => None,
        };
        if last.as_ref().is_none_or(|(known, with, _)| *known != pattern || *with != escape) {
            let translated = similar_pattern(pattern, escape).map_err(bad_value)?;
            last = Some((pattern, escape, compiled(&translated)?));
        }
        found.push(last.as_ref().map(|(_, _, regex)| regex.is_match(text)));
    }
    Ok(Arc::new(arrow::array::BooleanArray::from(found)))
}

fn check_similar(constants: &[Option<&ScalarValue>]) -> Result<()> {
    let Some(pattern) = constant_text(constants, 1) else { return Ok(()) };
    let translated = similar_pattern(pattern, constant_text(constants, 2)).map_err(unfit)?;
    Regex::new(&translated).map(drop).map_err(|error| unfit(refusal(pattern, &error)))
}

/// SQL's regular expression as one of ours, over the whole text.
fn similar_pattern(pattern: &str, escape: Option<&str>) -> std::result::Result<String, String> {
    let escape = match escape.map(|text| (text.chars().next(), text.chars().count())) {
        Some((Some(letter), 1)) => Some(letter),
        Some(_) => return Err("ESCAPE takes one character".to_owned()),
        None => None,
    };
    let mut translated = "^(?s:".to_owned();
    let mut letters = pattern.chars();
    let mut in_set = false;
    while let Some(letter) = letters.next() {
        match letter {
            letter if Some(letter) == escape => {
                let next = letters.next().ok_or_else(|| format!("nothing follows the last ESCAPE of '{pattern}'"))?;
                translated.push_str(&regex::escape(&next.to_string()));
            }
            '[' => (in_set, translated) = (true, translated + "["),
            ']' => (in_set, translated) = (false, translated + "]"),
            letter if in_set => translated.push(letter),
            '%' => translated.push_str(".*"),
            '_' => translated.push('.'),
            '|' | '*' | '+' | '?' | '{' | '}' | '(' | ')' => translated.push(letter),
            letter => translated.push_str(&regex::escape(&letter.to_string())),
        }
    }
    Ok(translated + ")$")
}

#[cfg(test)]
mod tests {
    use super::super::testing::{int, null, refused, shown, text};

    #[test]
    fn groups_are_javas() {
        let url = "https://a.com/?x=1&channel_id=42&y=2";
        let cases = [
            (url, "(&|^)channel_id=([^&]*)", 2, Some("42")),
            (url, "(&|^)channel_id=([^&]*)", 0, Some("&channel_id=42")),
            (url, "(&|^)channel_id=([^&]*)", 3, None),
            (url, "(&|^)nothing=([^&]*)", 2, None),
            ("foothebar", "foo(.*?)(bar)", 2, Some("bar")),
            ("foothebar", "foo(.*?)(bar)", -1, None),
            ("ab", "(a)|(x)", 2, None),
            ("channel_id=", "(&|^)channel_id=([^&]*)", 2, Some("")),
        ];
        for (input, pattern, group, expected) in cases {
            let found = shown("regexp_extract", &[text(input), text(pattern), int(group)]);
            assert_eq!(found.as_deref(), expected, "{input} {pattern} {group}");
        }
        assert_eq!(shown("regexp_extract", &[text("a1b"), text("[0-9]")]).as_deref(), Some("1"));
        assert_eq!(shown("regexp_extract", &[null(), text("[0-9]")]), None);
    }

    #[test]
    fn replacements_are_javas() {
        let cases = [
            ("foobar", "oo|ar", "", "fb"),
            ("a1b22", "([a-z])([0-9]+)", "$2$1", "1a22b"),
            ("ab", "(a)(b)", "$21", "b1"),
            ("ab", "b", "\\$1", "a$1"),
            ("abc", "", "-", "-a-b-c-"),
            ("äö", "", "-", "-ä-ö-"),
            ("aaa", "^a", "x", "xaa"),
        ];
        for (input, pattern, new, expected) in cases {
            let found = shown("regexp_replace", &[text(input), text(pattern), text(new)]);
            assert_eq!(found.as_deref(), Some(expected), "{input} {pattern} {new}");
        }
        let error = refused("regexp_replace", &[text("a"), text("a"), text("$3")]);
        assert_eq!(error, "REGEXP_REPLACE by '$3': there is no group 3");
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let error = refused("regexp", &[text("a"), text("a(?=b)")]);
        assert!(error.contains("look-ahead and look-behind are not supported"), "{error}");
        let error = refused("regexp_extract", &[text("a"), text("(a)\\1")]);
        assert!(error.contains("references back to a group are not supported"), "{error}");
        let error = refused("regexp", &[text("a"), text("a(")]);
        assert_eq!(error, "the regular expression 'a(' cannot be used: unclosed group");
    }

    #[test]
    fn counts_and_places() {
        assert_eq!(shown("regexp_count", &[text("a1b22c"), text("[0-9]+")]).as_deref(), Some("2"));
        assert_eq!(shown("regexp_instr", &[text("ää1"), text("[0-9]")]).as_deref(), Some("3"));
        assert_eq!(shown("regexp_instr", &[text("aa"), text("[0-9]")]).as_deref(), Some("0"));
        assert_eq!(shown("regexp_substr", &[text("aa"), text("[0-9]")]), None);
        assert_eq!(shown("regexp_extract_all", &[text("a1b2"), text("([0-9])")]).as_deref(), Some("[1, 2]"));
    }

    #[test]
    fn similar_to_matches_the_whole_text() {
        let cases = [
            ("abc", "a%", true),
            ("abc", "b", false),
            ("abc", "_b_", true),
            ("abc", "(b|a)%", true),
            ("a.c", "a.c", true),
            ("abc", "a.c", false),
            ("a1", "[a-z][0-9]", true),
        ];
        for (input, pattern, expected) in cases {
            let found = shown("similar_to", &[text(input), text(pattern)]);
            assert_eq!(found, Some(expected.to_string()), "{input} {pattern}");
        }
        assert_eq!(shown("similar_to", &[text("a%"), text("a#%"), text("#")]).as_deref(), Some("true"));
    }
}
