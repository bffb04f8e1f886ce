//! The grammar of JSON (RFC 8259) within one line: where a value ends, and that it is well-formed.
//!
//! A value that nobody asked for is still checked whole: strings end and their escapes are known, numbers and literals
//! are spelt right, brackets balance, commas and colons stand where they must. Two things are not looked at in such
//! a value: whether surrogate escapes come in pairs, and whether a number is too large for any type.

use crate::decode_error::{Faulty, syntax};
use crate::number::json_integer;
use crate::scan::string_stop;

/// How deep arrays and objects may nest.
pub(crate) const DEPTH_MAX: u32 = 128;

/// A value in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string; the span is that between its quotes.
    Text {
        escaped: bool,
    },
    /// A number, `true` or `false`.
    Plain,
    Null,
    /// An array or an object.
    Nested,
}

/// A value, where its text starts and ends, and where the text goes on after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) next: usize,
}

/// The value at `at`, or behind white space there: a learnt gap may end before it.
pub(crate) fn token(bytes: &[u8], at: usize) -> Faulty<Token> {
    let at = white_space(bytes, at);
    let plain = |kind, end| Token { kind, start: at, end, next: end };
    match bytes.get(at) {
        Some(b'"') => {
            let (next, escaped) = string_end(bytes, at)?;
            Ok(Token { kind: Kind::Text { escaped }, start: at + 1, end: next - 1, next })
        }
        Some(b'{' | b'[') => nested_end(bytes, at).map(|end| plain(Kind::Nested, end)),
        Some(b'n') => literal(bytes, at, b"null").map(|end| plain(Kind::Null, end)),
        _ => scalar_end(bytes, at).map(|end| plain(Kind::Plain, end)),
    }
}

/// The end of a value that nobody asked for.
#[inline(always)]
pub(crate) fn skip(bytes: &[u8], at: usize) -> Faulty<usize> {
    if bytes.get(at) == Some(&b'"') {
        let stop = string_stop(bytes, at + 1);
        if bytes.get(stop) == Some(&b'"') {
            return Ok(stop + 1);
        }
    } else if let Some((_, end)) = json_integer(bytes, at) {
        return Ok(end);
    }
    skip_slow(bytes, at)
}

#[inline(never)]
fn skip_slow(bytes: &[u8], at: usize) -> Faulty<usize> {
    token(bytes, at).map(|token| token.next)
}

/// The first position from `at` on that is no white space. A newline ends the record and is none.
#[inline]
pub(crate) fn white_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\r')) {
        at += 1;
    }
    at
}

/// The end of the string whose opening quote is at `at`, and whether it holds escapes.
pub(crate) fn string_end(bytes: &[u8], at: usize) -> Faulty<(usize, bool)> {
    let (mut from, mut escaped) = (at + 1, false);
    loop {
        let stop = string_stop(bytes, from);
        match bytes.get(stop) {
            Some(b'"') => return Ok((stop + 1, escaped)),
            Some(b'\\') => {
                from = escape_end(bytes, stop)?;
                escaped = true;
            }
            Some(b'\n') | None => return syntax(at, "a string does not end"),
            Some(_) => return syntax(stop, "a string holds a control character; write it as an escape"),
        }
    }
}

/// The end of the escape whose backslash is at `at`.
fn escape_end(bytes: &[u8], at: usize) -> Faulty<usize> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') if hex4(bytes, at + 2).is_some() => Ok(at + 6),
        _ => syntax(at, "a string holds an unknown escape"),
    }
}

/// The four hexadecimal digits at `at`.
pub(crate) fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 4)?;
    digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
}

/// The end of a number, `true`, `false` or `null`.
fn scalar_end(bytes: &[u8], at: usize) -> Faulty<usize> {
    match bytes.get(at) {
        Some(b'-' | b'0'..=b'9') => number_end(bytes, at),
        Some(b't') => literal(bytes, at, b"true"),
        Some(b'f') => literal(bytes, at, b"false"),
        Some(b'n') => literal(bytes, at, b"null"),
        Some(b'\n') | None => syntax(at, "the record ends where a value should stand"),
        Some(_) => syntax(at, "a value should stand"),
    }
}

fn literal(bytes: &[u8], at: usize, word: &[u8]) -> Faulty<usize> {
    let end = at + word.len();
    match bytes.get(at..end) == Some(word) {
        true => ended(bytes, at, end),
        false => syntax(at, "a value should stand"),
    }
}

/// A number or a literal must not run into what follows.
fn ended(bytes: &[u8], at: usize, end: usize) -> Faulty<usize> {
    match bytes.get(end) {
        None | Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n') => Ok(end),
        Some(_) => syntax(at, "this is no JSON value"),
    }
}

/// The end of `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`.
fn number_end(bytes: &[u8], at: usize) -> Faulty<usize> {
    let whole = at + usize::from(bytes.get(at) == Some(&b'-'));
    let mut end = digits_end(bytes, whole);
    let zero_led = bytes.get(whole) == Some(&b'0') && end > whole + 1;
    let mut valid = end > whole && !zero_led;
    if bytes.get(end) == Some(&b'.') {
        let fraction = end + 1;
        end = digits_end(bytes, fraction);
        valid &= end > fraction;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let exponent = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        end = digits_end(bytes, exponent);
        valid &= end > exponent;
    }
    if valid { ended(bytes, at, end) } else { syntax(at, "this is no JSON number") }
}

fn digits_end(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
    }
    at
}

/// The open brackets around a position: one bit each, set for an object.
struct Open {
    objects: u128,
    depth: u32,
}

impl Open {
    fn enter(&mut self, object: bool, at: usize) -> Faulty<()> {
        if self.depth == DEPTH_MAX {
            return syntax(at, "arrays and objects nest deeper than 128 levels");
        }
        self.objects = (self.objects << 1) | u128::from(object);
        self.depth += 1;
        Ok(())
    }

    fn leave(&mut self) {
        self.objects >>= 1;
        self.depth -= 1;
    }

    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }
}

/// The end of the array or object at `at`: a loop with its own bounded stack, so that no depth overflows ours.
fn nested_end(bytes: &[u8], at: usize) -> Faulty<usize> {
    let mut open = Open { objects: 0, depth: 0 };
    let mut at = at;
    loop {
        at = value_start(bytes, at, &mut open)?;
        match value_end(bytes, at, &mut open)? {
            (end, true) => return Ok(end),
            (next, false) => at = next,
        }
    }
}

/// Goes into the value at `at` down to its first scalar and says where that ends; for an empty array or object, where
/// its closing bracket stands. [`value_end`] goes on from either.
fn value_start(bytes: &[u8], at: usize, open: &mut Open) -> Faulty<usize> {
    let mut at = white_space(bytes, at);
    loop {
        let object = match bytes.get(at) {
            Some(b'{') => true,
            Some(b'[') => false,
            Some(b'"') => return string_end(bytes, at).map(|(end, _)| end),
            _ => return scalar_end(bytes, at),
        };
        open.enter(object, at)?;
        let inner = white_space(bytes, at + 1);
        match (bytes.get(inner), object) {
            (Some(b'}'), true) | (Some(b']'), false) => return Ok(inner),
            (_, true) => at = white_space(bytes, key_end(bytes, inner)?),
            (_, false) => at = inner,
        }
    }
}

/// Goes on behind a value: past closing brackets to the next value, or to the end of it all (`true`).
fn value_end(bytes: &[u8], mut at: usize, open: &mut Open) -> Faulty<(usize, bool)> {
    loop {
        at = white_space(bytes, at);
        match (bytes.get(at), open.in_object()) {
            (Some(b'}'), true) | (Some(b']'), false) => {
                open.leave();
                at += 1;
                if open.depth == 0 {
                    return Ok((at, true));
                }
            }
            (Some(b','), true) => return key_end(bytes, white_space(bytes, at + 1)).map(|next| (next, false)),
            (Some(b','), false) => return Ok((at + 1, false)),
            (Some(b'\n') | None, _) => return syntax(at, "an array or object does not end"),
            (Some(_), true) => return syntax(at, "a comma or '}' should stand"),
            (Some(_), false) => return syntax(at, "a comma or ']' should stand"),
        }
    }
}

/// The position behind the key at `at` and its colon.
fn key_end(bytes: &[u8], at: usize) -> Faulty<usize> {
    if bytes.get(at) != Some(&b'"') {
        return syntax(at, "a field's name in quotes should stand");
    }
    let (end, _) = string_end(bytes, at)?;
    colon(bytes, end)
}

/// The position behind the colon that must follow a key which ends at `at`.
pub(crate) fn colon(bytes: &[u8], at: usize) -> Faulty<usize> {
    let at = white_space(bytes, at);
    if bytes.get(at) == Some(&b':') { Ok(at + 1) } else { syntax(at, "a colon should stand") }
}

/// Appends the text between the quotes of a string, its escapes resolved; `None` if a surrogate has no pair.
pub(crate) fn unescape(text: &str, out: &mut String) -> Option<()> {
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let (length, character) = escaped(escape)?;
        out.push(character);
        rest = escape.get(length..)?;
    }
    out.push_str(rest);
    Some(())
}

/// The character of an escape, given the text behind its backslash, and how much of it that takes.
fn escaped(text: &str) -> Option<(usize, char)> {
    let bytes = text.as_bytes();
    let character = match *bytes.first()? {
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode(bytes),
        byte => char::from(byte),
    };
    Some((1, character))
}

/// The character of `uXXXX`, or of a surrogate pair `uXXXX\uXXXX`.
fn unicode(bytes: &[u8]) -> Option<(usize, char)> {
    let high = hex4(bytes, 1)?;
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high).map(|character| (5, character));
    }
    let low = bytes.get(5..7).filter(|follows| *follows == b"\\u").and_then(|_| hex4(bytes, 7))?;
    let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    char::from_u32(0x10000 + ((high - 0xd800) << 10) + low).map(|character| (11, character))
}

/// Appends well-formed JSON without the white space between its parts.
pub(crate) fn compact(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find(['"', ' ', '\t', '\r']) {
        let string = rest.as_bytes().get(at) == Some(&b'"');
        let kept = if string { string_end(rest.as_bytes(), at).map_or(rest.len(), |(end, _)| end) } else { at };
        out.push_str(rest.get(..kept).unwrap_or_default());
        rest = rest.get(if string { kept } else { at + 1 }..).unwrap_or_default();
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode_error::What;

    fn end(text: &str) -> Result<usize, String> {
        token(text.as_bytes(), 0).map(|token| token.next).map_err(|fault| match fault.what {
            What::Syntax(sentence) => sentence.to_owned(),
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn a_value_ends_where_it_ends() {
        let values = [
            "0",
            "-0",
            "12",
            "-1.5e+10",
            "1E5",
            "true",
            "false",
            "null",
            "\"\"",
            "\"a\\\"b\"",
            "\"\\u00e9\\\\\"",
            "[]",
            "{}",
            "[ ]",
            "[1,2 , [3]]",
            "{\"a\":{\"b\":[{}]},\"c\":\"}\"}",
            "[[[\"]\"]]]",
            "{ \"a\" : 1 , \"b\" : [ null ] }",
        ];
        for value in values {
            for after in ["", ",", " ", "}", "\n"] {
                assert_eq!(end(&format!("{value}{after}")), Ok(value.len()), "{value}{after}");
            }
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let bad = [
            "",
            "\n",
            "01",
            "-",
            "1.",
            ".5",
            "+1",
            "1e",
            "0x10",
            "1a",
            "tru",
            "truex",
            "nul",
            "nulls",
            "NaN",
            "\"abc",
            "\"a\n\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "[1,]",
            "[1 2]",
            "[,1]",
            "[1",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":1]",
            "[1}",
            "{\"a\" 1}",
            "{,}",
            "'a'",
            "\"\t\"",
            "[\n]",
        ];
        for value in bad {
            assert!(end(value).is_err(), "{value}");
        }
    }

    #[test]
    fn nesting_is_bounded_and_never_overflows_the_stack() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(end(&nested(128)), Ok(256));
        assert_eq!(end(&nested(129)), Err("arrays and objects nest deeper than 128 levels".to_owned()));
        assert!(end(&"[{\"a\":".repeat(1_000_000)).is_err());
    }

    #[test]
    fn escapes_are_resolved_and_surrogates_paired() {
        let unescaped = |text: &str| {
            let mut out = String::new();
            unescape(text, &mut out).map(|()| out)
        };
        assert_eq!(unescaped(r#"a\"\\\/\b\f\n\r\tz"#).unwrap(), "a\"\\/\u{8}\u{c}\n\r\tz");
        assert_eq!(unescaped(r"\u00e9\u4e2d\ud83d\ude00!").unwrap(), "é中😀!");
        for lone in [r"\ud83d", r"\ude00", r"\ud83dx", r"\ud83d\u0041", r"\ud83d\n"] {
            assert_eq!(unescaped(lone), None, "{lone}");
        }
    }

    #[test]
    fn compact_json_keeps_the_spaces_in_strings() {
        let mut out = String::new();
        compact("{ \"a b\" : [ 1, \"c \\\" d\" ] ,\t\"e\":{} }", &mut out);
        assert_eq!(out, "{\"a b\":[1,\"c \\\" d\"],\"e\":{}}");
    }
}
