//! Functions of text whose rules are Flink's: letters count, not bytes, and from 1.

use arrow::array::{ArrayRef, StringBuilder};
use datafusion::common::Result;

use super::call::Kind::{Int, Rest, Text};
use super::call::{Arguments, Definition, Gives, Texts, bad_value, put, put_char};

/// A text is at most this long: what PAD and REPEAT make.
const TEXT_BYTES_MAX: usize = 1 << 28;

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("substring", &[&[Text, Int], &[Text, Int, Int]], Gives::Text, substring),
    Definition::new("substr", &[&[Text, Int], &[Text, Int, Int]], Gives::Text, substring),
    Definition::new("overlay", &[&[Text, Text, Int], &[Text, Text, Int, Int]], Gives::Text, overlay),
    Definition::new("left", &[&[Text, Int]], Gives::Text, left),
    Definition::new("right", &[&[Text, Int]], Gives::Text, right),
    Definition::new("lpad", &[&[Text, Int, Text]], Gives::Text, lpad),
    Definition::new("rpad", &[&[Text, Int, Text]], Gives::Text, rpad),
    Definition::new("repeat", &[&[Text, Int]], Gives::Text, repeat),
    Definition::new("chr", &[&[super::call::Kind::Long]], Gives::Text, chr),
    Definition::new("locate", &[&[Text, Text], &[Text, Text, Int]], Gives::Int, locate),
    Definition::new("split_index", &[&[Text, Text, Int], &[Text, Int, Int]], Gives::Text, split_index),
    Definition::new("elt", &[&[Int, Text, Rest]], Gives::Text, elt),
    Definition::new("is_alpha", &[&[Text]], Gives::Truth, is_alpha),
    Definition::new("is_digit", &[&[Text]], Gives::Truth, is_digit),
    Definition::new("is_decimal", &[&[Text]], Gives::Truth, is_decimal),
];

/// Where the letter `index` begins, in bytes; the text's length for the one behind the last.
fn place_of(text: &str, index: usize) -> usize {
    if text.is_ascii() {
        return index.min(text.len());
    }
    text.char_indices().nth(index).map_or(text.len(), |(place, _)| place)
}

fn letters(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.chars().count() }
}

/// The part from the letter `start` on, `length` letters.
fn part(text: &str, start: usize, length: usize) -> &str {
    let rest = text.get(place_of(text, start)..).unwrap_or_default();
    rest.get(..place_of(rest, length)).unwrap_or(rest)
}

fn substring(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, starts, lengths) = (args.text(0)?, args.int(1)?, args.int_or(2, i32::MAX)?);
    args.write_texts(|row, out| {
        let (Some(text), Some(start), Some(length)) = (texts.get(row), starts.get(row), lengths.get(row)) else {
            return Ok(None);
        };
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        let begin = match start {
            1.. => Some(start as usize - 1),
            0 => Some(0),
            _ => letters(text).checked_sub(start.unsigned_abs() as usize),
        };
        put(out, begin.map_or("", |begin| part(text, begin, length)));
        Ok(Some(()))
    })
}

fn overlay(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, news, starts) = (args.text(0)?, args.text(1)?, args.int(2)?);
    let lengths = if args.len() > 3 { Some(args.int(3)?) } else { None };
    args.write_texts(|row, out| {
        let (Some(text), Some(new), Some(start)) = (texts.get(row), news.get(row), starts.get(row)) else {
            return Ok(None);
        };
        let length = match &lengths {
            Some(lengths) => lengths.get(row),
            None => Some(i32::try_from(letters(new)).unwrap_or(i32::MAX)),
        };
        let Some(length) = length else { return Ok(None) };
        let all = letters(text);
        let begin = usize::try_from(start).ok().filter(|start| (1..=all).contains(start));
        let Some(begin) = begin.map(|start| start - 1) else {
            put(out, text);
            return Ok(Some(()));
        };
        put(out, part(text, 0, begin));
        put(out, new);
        if let Ok(length @ 1..) = usize::try_from(length) {
            put(out, part(text, begin.saturating_add(length), usize::MAX));
        }
        Ok(Some(()))
    })
}

fn left(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, counts) = (args.text(0)?, args.int(1)?);
    args.write_texts(|row, out| {
        let (Some(text), Some(count)) = (texts.get(row), counts.get(row)) else { return Ok(None) };
        put(out, part(text, 0, usize::try_from(count).unwrap_or(0)));
        Ok(Some(()))
    })
}

fn right(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, counts) = (args.text(0)?, args.int(1)?);
    args.write_texts(|row, out| {
        let (Some(text), Some(count)) = (texts.get(row), counts.get(row)) else { return Ok(None) };
        let count = usize::try_from(count).unwrap_or(0);
        put(out, part(text, letters(text).saturating_sub(count), count));
        Ok(Some(()))
    })
}

fn lpad(args: &Arguments<'_>) -> Result<ArrayRef> {
    pad(args, true)
}

fn rpad(args: &Arguments<'_>) -> Result<ArrayRef> {
    pad(args, false)
}

/// NULL for a negative length, and for a longer one with nothing to pad with.
fn pad(args: &Arguments<'_>, is_left: bool) -> Result<ArrayRef> {
    let (texts, lengths, pads) = (args.text(0)?, args.int(1)?, args.text(2)?);
    args.write_texts(|row, out| {
        let (Some(text), Some(length), Some(pad)) = (texts.get(row), lengths.get(row), pads.get(row)) else {
            return Ok(None);
        };
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        let missing = length.saturating_sub(letters(text));
        if pad.is_empty() {
            return Ok(None);
        }
        check_length("PAD", missing)?;
        if !is_left {
            put(out, part(text, 0, length));
        }
        pad.chars().cycle().take(missing).for_each(|letter| put_char(out, letter));
        if is_left {
            put(out, part(text, 0, length));
        }
        Ok(Some(()))
    })
}

fn repeat(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, counts) = (args.text(0)?, args.int(1)?);
    args.write_texts(|row, out| {
        let (Some(text), Some(count)) = (texts.get(row), counts.get(row)) else { return Ok(None) };
        let count = usize::try_from(count).unwrap_or(0);
        check_length("REPEAT", text.len().saturating_mul(count))?;
        (0..count).for_each(|_| put(out, text));
        Ok(Some(()))
    })
}

fn check_length(function: &str, bytes: usize) -> Result<()> {
    if bytes <= TEXT_BYTES_MAX {
        return Ok(());
    }
    Err(bad_value(format!("{function} makes a text of {bytes} bytes; {TEXT_BYTES_MAX} is the most")))
}

/// The letter of ISO 8859-1 with the number's last eight bits.
fn chr(args: &Arguments<'_>) -> Result<ArrayRef> {
    let numbers = args.long(0)?;
    args.write_texts(|row, out| {
        let Some(number) = numbers.get(row) else { return Ok(None) };
        if number >= 0 {
            put_char(out, char::from((number & 0xff) as u8));
        }
        Ok(Some(()))
    })
}

/// Where the first text stands in the second, from 1; 0 for nowhere.
fn locate(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (needles, texts, starts) = (args.text(0)?, args.text(1)?, args.int_or(2, 1)?);
    args.ints(|row| {
        let (Some(needle), Some(text), Some(start)) = (needles.get(row), texts.get(row), starts.get(row)) else {
            return Ok(None);
        };
        let Some(begin) = usize::try_from(start).ok().and_then(|start| start.checked_sub(1)) else {
            return Ok(Some(0));
        };
        let begin = place_of(text, begin);
        let found = text.get(begin..).and_then(|rest| rest.find(needle)).map(|place| place + begin);
        let letter = found.and_then(|place| text.get(..place)).map_or(0, |before| letters(before) + 1);
        Ok(Some(i32::try_from(letter).unwrap_or(i32::MAX)))
    })
}

/// The part at an index from 0 between separators; a number is a separator's character code.
fn split_index(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, indexes) = (args.text(0)?, args.int(2)?);
    match args.text(1) {
        Ok(separators) => split_by(args, &texts, |row| separators.get(row), |row| indexes.get(row)),
        Err(_) => {
            let codes = args.int(1)?;
            let all: Vec<Option<String>> = (0..args.rows).map(|row| codes.get(row).and_then(letter_of)).collect();
            split_by(args, &texts, |row| all.get(row)?.as_deref(), |row| indexes.get(row))
        }
    }
}

fn letter_of(code: i32) -> Option<String> {
    let code = u32::try_from(code).ok().filter(|code| (1..=255).contains(code))?;
    char::from_u32(code).map(String::from)
}

fn split_by<'a>(
    args: &Arguments<'_>,
    texts: &Texts<'_>,
    separator: impl Fn(usize) -> Option<&'a str>,
    index: impl Fn(usize) -> Option<i32>,
) -> Result<ArrayRef> {
    args.write_texts(|row, out| {
        let (Some(text), Some(separator), Some(index)) = (texts.get(row), separator(row), index(row)) else {
            return Ok(None);
        };
        let Ok(index) = usize::try_from(index) else { return Ok(None) };
        Ok(split_part(text, separator, index).map(|part| put(out, part)))
    })
}

fn split_part<'a>(text: &'a str, separator: &str, index: usize) -> Option<&'a str> {
    if text.is_empty() {
        return None;
    }
    match *separator.as_bytes() {
        [] => text.split(char::is_whitespace).nth(index),
        [byte] if byte.is_ascii() => nth_between(text, byte, index),
        _ => text.split(separator).nth(index),
    }
}

/// [`str::split`] by one ASCII byte, without setting up a searcher: parts are short.
fn nth_between(text: &str, separator: u8, index: usize) -> Option<&str> {
    let mut rest = text;
    for _ in 0..index {
        let at = rest.as_bytes().iter().position(|byte| *byte == separator)?;
        rest = rest.get(at + 1..)?;
    }
    let end = rest.as_bytes().iter().position(|byte| *byte == separator).unwrap_or(rest.len());
    rest.get(..end)
}

/// The text at a number from 1.
fn elt(args: &Arguments<'_>) -> Result<ArrayRef> {
    let indexes = args.int(0)?;
    let texts = (1..args.len()).map(|place| args.text(place)).collect::<Result<Vec<_>>>()?;
    args.write_texts(|row, out: &mut StringBuilder| {
        let chosen = indexes.get(row).and_then(|index| usize::try_from(index).ok()?.checked_sub(1));
        Ok(chosen.and_then(|index| texts.get(index)?.get(row)).map(|text| put(out, text)))
    })
}

fn is_alpha(args: &Arguments<'_>) -> Result<ArrayRef> {
    each_text(args, |text| !text.is_empty() && text.chars().all(char::is_alphabetic))
}

fn is_digit(args: &Arguments<'_>) -> Result<ArrayRef> {
    each_text(args, |text| !text.is_empty() && text.chars().all(|letter| letter.is_ascii_digit()))
}

fn is_decimal(args: &Arguments<'_>) -> Result<ArrayRef> {
    each_text(args, |text| super::cast::is_number(text.trim()))
}

fn each_text(args: &Arguments<'_>, is: impl Fn(&str) -> bool) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    args.truths(|row| Some(texts.get(row).is_some_and(&is)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{int, null, text, texts};

    #[test]
    fn letters_count_from_one() {
        let cases: &[(&str, i32, Option<i32>, Option<&str>)] = &[
            ("hello", 2, None, Some("ello")),
            ("hello", 2, Some(3), Some("ell")),
            ("hello", 0, Some(2), Some("he")),
            ("hello", -3, Some(2), Some("ll")),
            ("hello", -9, None, Some("")),
            ("hello", 9, None, Some("")),
            ("hello", 1, Some(-1), None),
            ("héllo", 2, Some(1), Some("é")),
            ("héllo", -4, Some(2), Some("él")),
            ("", 1, Some(1), Some("")),
        ];
        for (input, start, length, expected) in cases {
            let mut args = vec![text(input), int(*start)];
            args.extend(length.map(int));
            assert_eq!(texts("substring", &args), [expected.map(str::to_owned)], "{input} {start} {length:?}");
        }
    }

    #[test]
    fn pads_cut_too() {
        let cases: &[(&str, &str, i32, &str, Option<&str>)] = &[
            ("lpad", "hi", 4, "??", Some("??hi")),
            ("lpad", "hi", 1, "??", Some("h")),
            ("lpad", "hi", 7, "äb", Some("äbäbähi")),
            ("rpad", "hi", 5, "xy", Some("hixyx")),
            ("rpad", "hi", -1, "x", None),
            ("rpad", "hi", 4, "", None),
        ];
        for (function, input, length, pad, expected) in cases {
            let found = texts(function, &[text(input), int(*length), text(pad)]);
            assert_eq!(found, [expected.map(str::to_owned)], "{function} {input} {length} {pad}");
        }
    }

    #[test]
    fn parts_between_separators_count_from_zero() {
        let url = "https://www.nexmark.com/a/b/item.htm?query=1";
        let cases = [
            (url, "/", 3, Some("a")),
            (url, "/", 1, Some("")),
            (url, "/", 5, Some("item.htm?query=1")),
            (url, "/", 6, None),
            (url, "/", -1, None),
            ("AQIDB", "I", 0, Some("AQ")),
            ("a--b--", "--", 2, Some("")),
            ("aäb", "ä", 1, Some("b")),
            ("", "/", 0, None),
            ("a b", "", 1, Some("b")),
        ];
        for (input, separator, index, expected) in cases {
            let found = texts("split_index", &[text(input), text(separator), int(index)]);
            assert_eq!(found, [expected.map(str::to_owned)], "{input} {separator} {index}");
        }
        assert_eq!(texts("split_index", &[text("a,b"), int(44), int(1)]), [Some("b".to_owned())]);
        assert_eq!(texts("split_index", &[text("a,b"), null(), int(1)]), [None]);
    }

    #[test]
    fn an_overlay_outside_changes_nothing() {
        let overlay = |start, length: Option<i32>| {
            let mut args = vec![text("xxxxxtest"), text("xxxx"), int(start)];
            args.extend(length.map(int));
            texts("overlay", &args).remove(0).unwrap()
        };
        assert_eq!(overlay(6, None), "xxxxxxxxx");
        assert_eq!(overlay(6, Some(2)), "xxxxxxxxxst");
        assert_eq!(overlay(0, None), "xxxxxtest");
        assert_eq!(overlay(10, None), "xxxxxtest");
    }
}
