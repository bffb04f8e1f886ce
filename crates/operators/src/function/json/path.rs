//! Paths into JSON: `$.member`, `['member']`, `[index]`, `[*]`, `.*`, strict or lax; walked over checked texts.
//!
//! As in Flink a path without a word is strict, lax or not: no array is opened for a member, and no value taken for an
//! array of one.

use std::borrow::Cow;

use arrow::array::StringBuilder;

use super::super::call::put;

/// A translated path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    is_strict: bool,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Member(String),
    Index(usize),
    All,
}

/// What a path finds: parts of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found<'a> {
    One(&'a str),
    /// By a path with `*`: a list, even of one or of none.
    Many(Vec<&'a str>),
}

impl Path {
    pub(super) fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// Whether it gives a list.
    pub(super) fn has_star(&self) -> bool {
        self.steps.contains(&Step::All)
    }

    /// Translates a path, or says what is wrong with it.
    pub(super) fn translate(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let (is_strict, rest) = match trimmed.split_once(char::is_whitespace) {
            Some((mode, rest)) if mode.eq_ignore_ascii_case("lax") => (false, rest.trim_start()),
            Some((mode, rest)) if mode.eq_ignore_ascii_case("strict") => (true, rest.trim_start()),
            _ => (true, trimmed),
        };
        let mut rest =
            rest.strip_prefix('$').ok_or_else(|| format!("the JSON path '{text}' does not begin with '$'"))?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = step(rest).ok_or_else(|| wrong(text, rest))?;
            steps.push(step);
            rest = after;
        }
        Ok(Self { is_strict, steps })
    }

    /// What the path finds in `document`, which is JSON without spaces around it; or which step it does not meet, before
    /// the first `*`.
    pub(super) fn find<'a>(&self, document: &'a str) -> Result<Found<'a>, String> {
        let mut one = document;
        let mut steps = self.steps.iter();
        while let Some(step) = steps.next() {
            if *step == Step::All {
                return Ok(Found::Many(all(one, steps)));
            }
            one = part_of(one, step).ok_or_else(|| format!("the path does not meet its {step}"))?;
        }
        Ok(Found::One(one))
    }
}

/// The part of `value` that `step` leads to.
fn part_of<'a>(value: &'a str, step: &Step) -> Option<&'a str> {
    match (step, value.as_bytes().first()) {
        (Step::Member(name), Some(b'{')) => Members::of(value).find(|(key, _)| is_key(key, name)).map(|(_, part)| part),
        (Step::Index(index), Some(b'[')) => Items::of(value).nth(*index),
        _ => None,
    }
}

/// All parts of `value`, then what `steps` lead to from each; what does not meet a step is left out.
fn all<'a, 's>(value: &'a str, steps: impl Iterator<Item = &'s Step>) -> Vec<&'a str> {
    let mut parts = parts_of(value);
    for step in steps {
        parts = match step {
            Step::All => parts.into_iter().flat_map(parts_of).collect(),
            step => parts.into_iter().filter_map(|part| part_of(part, step)).collect(),
        };
    }
    parts
}

/// The elements of an array, the values of an object; a single value has none.
fn parts_of(value: &str) -> Vec<&str> {
    match value.as_bytes().first() {
        Some(b'[') => Items::of(value).collect(),
        Some(b'{') => Members::of(value).map(|(_, value)| value).collect(),
        _ => Vec::new(),
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Member(name) => write!(f, "member '{name}'"),
            Self::Index(index) => write!(f, "element {index}"),
            Self::All => f.write_str("elements"),
        }
    }
}

/// The letter that cannot be read: the first of `rest` that no step goes on with.
fn wrong(text: &str, rest: &str) -> String {
    let before = text.strip_suffix(rest).unwrap_or_default().chars().count();
    let skipped = rest.chars().take_while(|letter| matches!(letter, '.' | '[')).count().min(1);
    match rest.chars().nth(skipped) {
        Some(letter) => {
            format!("the JSON path '{text}' has '{letter}' at {}, which is not supported", before + skipped + 1)
        }
        None => format!("the JSON path '{text}' ends too early"),
    }
}

/// The first step of `text`, and what follows it.
fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        if let Some(rest) = rest.strip_prefix('*') {
            return Some((Step::All, rest));
        }
        if let Some(quoted) = rest.strip_prefix('"') {
            let (name, rest) = quoted.split_once('"')?;
            return Some((Step::Member(name.to_owned()), rest));
        }
        let length = rest.find(|letter: char| !(letter.is_alphanumeric() || matches!(letter, '_' | '-' | '$')));
        let (name, rest) = rest.split_at_checked(length.unwrap_or(rest.len()))?;
        return (!name.is_empty()).then(|| (Step::Member(name.to_owned()), rest));
    }
    let inside = text.strip_prefix('[')?.trim_start();
    if let Some(rest) = inside.strip_prefix('*') {
        return Some((Step::All, rest.trim_start().strip_prefix(']')?));
    }
    if let Some(quote @ ('\'' | '"')) = inside.chars().next() {
        let (name, rest) = inside.get(1..)?.split_once(quote)?;
        return Some((Step::Member(name.to_owned()), rest.trim_start().strip_prefix(']')?));
    }
    let (index, rest) = inside.split_once(']')?;
    Some((Step::Index(index.trim().parse().ok()?), rest))
}

/// The members of an object: the key with its quotes, and the value.
struct Members<'a> {
    rest: &'a str,
}

impl<'a> Members<'a> {
    fn of(object: &'a str) -> Self {
        Self { rest: object.get(1..).unwrap_or_default() }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.trim_start_matches([' ', '\n', '\r', '\t', ',']);
        if !rest.starts_with('"') {
            return None;
        }
        let (key, rest) = split_value(rest)?;
        let rest = rest.trim_start().strip_prefix(':')?.trim_start();
        let (value, rest) = split_value(rest)?;
        self.rest = rest;
        Some((key, value))
    }
}

/// The elements of an array.
pub(super) struct Items<'a> {
    rest: &'a str,
}

impl<'a> Items<'a> {
    /// Those of `array`, which begins with its bracket.
    pub(super) fn of(array: &'a str) -> Self {
        Self { rest: array.get(1..).unwrap_or_default() }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.trim_start_matches([' ', '\n', '\r', '\t', ',']);
        if rest.is_empty() || rest.starts_with(']') {
            return None;
        }
        let (value, rest) = split_value(rest)?;
        self.rest = rest;
        Some(value)
    }
}

/// The value that `text` begins with, and what follows it.
fn split_value(text: &str) -> Option<(&str, &str)> {
    let end = match text.as_bytes().first()? {
        b'"' => end_of_text(text.as_bytes(), 0)?,
        b'{' | b'[' => end_of_nested(text.as_bytes())?,
        _ => text
            .bytes()
            .position(|byte| matches!(byte, b',' | b']' | b'}' | b':' | b' ' | b'\n' | b'\r' | b'\t'))
            .unwrap_or(text.len()),
    };
    text.split_at_checked(end)
}

/// Behind the closing quote of the text whose opening one stands at `at`.
fn end_of_text(bytes: &[u8], at: usize) -> Option<usize> {
    let mut place = at + 1;
    loop {
        match bytes.get(place)? {
            b'"' => return Some(place + 1),
            b'\\' => place += 2,
            _ => place += 1,
        }
    }
}

fn end_of_nested(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut place) = (0usize, 0);
    loop {
        match bytes.get(place)? {
            b'"' => {
                place = end_of_text(bytes, place)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(place + 1);
                }
            }
            _ => {}
        }
        place += 1;
    }
}

fn is_key(key: &str, name: &str) -> bool {
    let inner = key.get(1..key.len().saturating_sub(1)).unwrap_or_default();
    inner == name || (inner.contains('\\') && text_of(key) == name)
}

/// A JSON text without quotes and escapes; another value as it stands.
pub(super) fn text_of(part: &str) -> Cow<'_, str> {
    match part.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        None => Cow::Borrowed(part),
        Some(inner) if !inner.contains('\\') => Cow::Borrowed(inner),
        Some(inner) => serde_json::from_str(part).map_or(Cow::Borrowed(inner), Cow::Owned),
    }
}

/// Appends a JSON value without the spaces between its parts.
pub(super) fn compact(part: &str, out: &mut StringBuilder) {
    let mut rest = part;
    while let Some(place) = rest.find(['"', ' ', '\n', '\r', '\t']) {
        let (before, from) = rest.split_at(place);
        put(out, before);
        let length = if from.starts_with('"') { end_of_text(from.as_bytes(), 0).unwrap_or(from.len()) } else { 1 };
        let (token, after) = from.split_at_checked(length).unwrap_or((from, ""));
        if token.starts_with('"') {
            put(out, token);
        }
        rest = after;
    }
    put(out, rest);
}
