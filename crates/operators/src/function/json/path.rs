//! Paths into JSON: `$.member`, `['member']`, `[index]`, `[*]`, `.*`, lax or strict; walked over checked texts.

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
    Nothing,
    One(&'a str),
    /// By a path with `*`: a list, even of one.
    Many(Vec<&'a str>),
}

impl Path {
    pub(super) fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// Translates a path, or says what is wrong with it.
    pub(super) fn translate(text: &str) -> Result<Self, String> {
        let trimmed = text.trim();
        let (is_strict, rest) = match trimmed.split_once(char::is_whitespace) {
            Some((mode, rest)) if mode.eq_ignore_ascii_case("lax") => (false, rest.trim_start()),
            Some((mode, rest)) if mode.eq_ignore_ascii_case("strict") => (true, rest.trim_start()),
            _ => (false, trimmed),
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

    /// What the path finds in `document`, which is JSON without spaces around it.
    pub(super) fn find<'a>(&self, document: &'a str) -> Result<Found<'a>, String> {
        let mut parts = vec![document];
        let mut is_list = false;
        for step in &self.steps {
            let mut next = Vec::new();
            for part in &parts {
                self.walk(part, step, &mut next)?;
            }
            is_list |= *step == Step::All;
            parts = next;
        }
        Ok(match parts.as_slice() {
            _ if is_list => Found::Many(parts),
            [] => Found::Nothing,
            [one] => Found::One(one),
            _ => Found::Many(parts),
        })
    }

    fn walk<'a>(&self, part: &'a str, step: &Step, next: &mut Vec<&'a str>) -> Result<(), String> {
        let before = next.len();
        match (step, part.as_bytes().first()) {
            (Step::Member(name), Some(b'{')) => {
                next.extend(Members::of(part).find(|(key, _)| is_key(key, name)).map(|(_, value)| value))
            }
            (Step::Member(_), Some(b'[')) if !self.is_strict => {
                for item in Items::of(part).filter(|item| item.starts_with('{')) {
                    self.walk(item, step, next)?;
                }
            }
            (Step::Index(index), Some(b'[')) => next.extend(Items::of(part).nth(*index)),
            (Step::Index(0), _) if !self.is_strict => next.push(part),
            (Step::All, Some(b'[')) => {
                next.extend(Items::of(part));
                return Ok(());
            }
            (Step::All, Some(b'{')) => {
                next.extend(Members::of(part).map(|(_, value)| value));
                return Ok(());
            }
            _ => {}
        }
        if self.is_strict && next.len() == before {
            return Err(format!("the strict path does not meet its {step}"));
        }
        Ok(())
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
struct Items<'a> {
    rest: &'a str,
}

impl<'a> Items<'a> {
    fn of(array: &'a str) -> Self {
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
