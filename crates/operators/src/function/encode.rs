//! BIN, HEX, base 64, character sets and SHA-1.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, StringBuilder};
use arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, ScalarValue};

use super::call::Kind::{Bytes, Long, Text};
use super::call::{Arguments, Definition, Gives, bad_value, constant_text, put, put_char, unfit};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("bin", &[&[Long]], Gives::Text, bin),
    Definition::new("hex", &[&[Long], &[Text], &[Bytes]], Gives::Text, hex),
    Definition::new("unhex", &[&[Text]], Gives::Bytes, unhex),
    Definition::new("to_base64", &[&[Text], &[Bytes]], Gives::Text, to_base64),
    Definition::new("from_base64", &[&[Text]], Gives::Text, from_base64),
    Definition::new("encode", &[&[Text, Text]], Gives::Bytes, encode).checked(check_charset),
    Definition::new("decode", &[&[Bytes, Text]], Gives::Text, decode).checked(check_charset),
    Definition::new("sha1", &[&[Text], &[Bytes]], Gives::Text, sha1),
];

fn bin(args: &Arguments<'_>) -> Result<ArrayRef> {
    let numbers = args.long(0)?;
    args.write_texts(|row, out| Ok(numbers.get(row).map(|number| put_digits(number as u64, 1, out))))
}

/// The digits of an unsigned number, `bits` a digit, without leading zeros.
fn put_digits(number: u64, bits: u32, out: &mut StringBuilder) {
    let count = (64 - number.leading_zeros()).div_ceil(bits).max(1);
    for place in (0..count).rev() {
        let digit = (number >> (place * bits)) & ((1 << bits) - 1);
        put_char(out, hex_digit(digit as u8));
    }
}

fn hex_digit(value: u8) -> char {
    char::from(if value < 10 { b'0' + value } else { b'A' + value - 10 })
}

fn hex(args: &Arguments<'_>) -> Result<ArrayRef> {
    if let Ok(numbers) = args.long(0) {
        return args.write_texts(|row, out| Ok(numbers.get(row).map(|number| put_digits(number as u64, 4, out))));
    }
    let input = Input::of(args)?;
    args.write_texts(|row, out| {
        Ok(input.get(row).map(|bytes| {
            for byte in bytes {
                put_char(out, hex_digit(byte >> 4));
                put_char(out, hex_digit(byte & 15));
            }
        }))
    })
}

/// A column of texts or of bytes, as bytes.
struct Input(ArrayRef);

impl Input {
    fn of(args: &Arguments<'_>) -> Result<Self> {
        let array = args.array(0)?;
        match array.data_type() {
            DataType::Utf8 | DataType::Binary => Ok(Self(array)),
            other => Err(DataFusionError::Internal(format!("{other} is neither text nor bytes"))),
        }
    }

    fn get(&self, row: usize) -> Option<&[u8]> {
        if self.0.is_null(row) {
            return None;
        }
        match self.0.as_string_opt::<i32>() {
            Some(texts) => Some(texts.value(row).as_bytes()),
            None => self.0.as_binary_opt::<i32>().map(|bytes| bytes.value(row)),
        }
    }
}

/// NULL for what are no hexadecimal digits.
fn unhex(args: &Arguments<'_>) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let mut out = BinaryBuilder::new();
    for row in 0..args.rows {
        match texts.get(row).and_then(|text| from_hex(text.as_bytes())) {
            Some(bytes) => out.append_value(bytes),
            None => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (first, rest) = if text.len() % 2 == 1 { text.split_at_checked(1)? } else { (&[][..], text) };
    let first = first.iter().map(|byte| digit(*byte).map(|value| value as u8));
    let (pairs, _) = rest.as_chunks::<2>();
    let rest = pairs.iter().map(|[high, low]| Some((digit(*high)? * 16 + digit(*low)?) as u8));
    first.chain(rest).collect()
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn to_base64(args: &Arguments<'_>) -> Result<ArrayRef> {
    let input = Input::of(args)?;
    args.write_texts(|row, out| {
        Ok(input.get(row).map(|bytes| {
            for chunk in bytes.chunks(3) {
                let all = chunk.iter().chain(&[0, 0]).take(3).fold(0u32, |all, byte| all << 8 | u32::from(*byte));
                for place in 0..4 {
                    let digit = ALPHABET.get((all >> (18 - 6 * place)) as usize & 63).copied().unwrap_or(b'=');
                    put_char(out, if place <= chunk.len() { char::from(digit) } else { '=' });
                }
            }
        }))
    })
}

fn from_base64(args: &Arguments<'_>) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let mut bytes = Vec::new();
    args.write_texts(|row, out| {
        let Some(text) = texts.get(row) else { return Ok(None) };
        bytes.clear();
        decode64(text, &mut bytes).ok_or_else(|| bad_value(format!("FROM_BASE64: '{text}' is not base 64")))?;
        put(out, &String::from_utf8_lossy(&bytes));
        Ok(Some(()))
    })
}

fn decode64(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|letter| *letter == byte)?;
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(())
}

#[derive(Debug, Clone, Copy)]
enum Charset {
    Ascii,
    Latin1,
    Utf8,
    Utf16 { big_endian: bool, marked: bool },
}

impl Charset {
    fn named(name: &str) -> std::result::Result<Self, String> {
        let utf16 = |big_endian, marked| Self::Utf16 { big_endian, marked };
        Ok(match name.to_uppercase().as_str() {
            "US-ASCII" | "ASCII" => Self::Ascii,
            "ISO-8859-1" => Self::Latin1,
            "UTF-8" => Self::Utf8,
            "UTF-16" => utf16(true, true),
            "UTF-16BE" => utf16(true, false),
            "UTF-16LE" => utf16(false, false),
            _ => {
                let known = "US-ASCII, ISO-8859-1, UTF-8, UTF-16, UTF-16BE, UTF-16LE";
                return Err(format!("there is no character set '{name}'; there are {known}"));
            }
        })
    }

    fn encode(self, text: &str) -> Vec<u8> {
        let narrow = |most: u32| text.chars().map(move |c| if c as u32 <= most { c as u32 as u8 } else { b'?' });
        match self {
            Self::Ascii => narrow(127).collect(),
            Self::Latin1 => narrow(255).collect(),
            Self::Utf8 => text.as_bytes().to_vec(),
            Self::Utf16 { big_endian, marked } => {
                let mark = marked.then_some(0xfeff);
                let units = mark.into_iter().chain(text.encode_utf16());
                units.flat_map(|unit| if big_endian { unit.to_be_bytes() } else { unit.to_le_bytes() }).collect()
            }
        }
    }

    fn decode(self, bytes: &[u8], out: &mut StringBuilder) {
        match self {
            Self::Ascii => {
                let letters = bytes.iter().map(|byte| if *byte < 128 { char::from(*byte) } else { '\u{fffd}' });
                letters.for_each(|letter| put_char(out, letter));
            }
            Self::Latin1 => bytes.iter().for_each(|byte| put_char(out, char::from(*byte))),
            Self::Utf8 => put(out, &String::from_utf8_lossy(bytes)),
            Self::Utf16 { big_endian, marked } => {
                let (pairs, _) = bytes.as_chunks::<2>();
                let is_marked_little = marked && pairs.first() == Some(&[0xff, 0xfe]);
                let big = big_endian && !is_marked_little;
                let units =
                    pairs.iter().map(|pair| if big { u16::from_be_bytes(*pair) } else { u16::from_le_bytes(*pair) });
                let letters = char::decode_utf16(units).map(|letter| letter.unwrap_or('\u{fffd}'));
                let letters = letters.enumerate().filter(|(place, c)| !(marked && *place == 0 && *c == '\u{feff}'));
                letters.for_each(|(_, letter)| put_char(out, letter));
            }
        }
    }
}

fn check_charset(constants: &[Option<&ScalarValue>]) -> Result<()> {
    constant_text(constants, 1).map_or(Ok(()), |name| Charset::named(name).map(drop).map_err(unfit))
}

fn encode(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, names) = (args.text(0)?, args.text(1)?);
    let mut out = BinaryBuilder::new();
    for row in 0..args.rows {
        match (texts.get(row), names.get(row)) {
            (Some(text), Some(name)) => out.append_value(Charset::named(name).map_err(bad_value)?.encode(text)),
            _ => out.append_null(),
        }
    }
    Ok(Arc::new(out.finish()))
}

fn decode(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (all, names) = (args.bytes(0)?, args.text(1)?);
    args.write_texts(|row, out| {
        let (Some(bytes), Some(name)) = (all.get(row), names.get(row)) else { return Ok(None) };
        Charset::named(name).map_err(bad_value)?.decode(bytes, out);
        Ok(Some(()))
    })
}

fn sha1(args: &Arguments<'_>) -> Result<ArrayRef> {
    let input = Input::of(args)?;
    args.write_texts(|row, out| {
        Ok(input.get(row).map(|bytes| {
            for word in sha1_of(bytes) {
                let _ = std::fmt::Write::write_fmt(out, format_args!("{word:08x}"));
            }
        }))
    })
}

/// SHA-1 (FIPS 180-4), as five words.
fn sha1_of(message: &[u8]) -> [u32; 5] {
    let bits = (message.len() as u64).wrapping_mul(8);
    let mut padded = message.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend_from_slice(&bits.to_be_bytes());
    let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0u32];
    let (blocks, _) = padded.as_chunks::<64>();
    blocks.iter().for_each(|block| sha1_block(block, &mut state));
    state
}

fn sha1_block(block: &[u8; 64], state: &mut [u32; 5]) {
    let (words, _) = block.as_chunks::<4>();
    // The last sixteen words of the schedule, oldest first.
    let mut window: [u32; 16] =
        std::array::from_fn(|place| words.get(place).map_or(0, |word| u32::from_be_bytes(*word)));
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for round in 0..80 {
        let [word, _, w2, _, _, _, _, _, w8, _, _, _, _, w13, _, _] = window;
        let (mix, key) = match round {
            0..20 => ((b & c) | (!b & d), 0x5a82_7999),
            20..40 => (b ^ c ^ d, 0x6ed9_eba1),
            40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
            _ => (b ^ c ^ d, 0xca62_c1d6u32),
        };
        let sum = a.rotate_left(5).wrapping_add(mix).wrapping_add(e).wrapping_add(key).wrapping_add(word);
        (a, b, c, d, e) = (sum, a, b.rotate_left(30), c, d);
        window.rotate_left(1);
        if let Some(last) = window.last_mut() {
            *last = (word ^ w2 ^ w8 ^ w13).rotate_left(1);
        }
    }
    for (sum, value) in state.iter_mut().zip([a, b, c, d, e]) {
        *sum = sum.wrapping_add(value);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{long, refused, shown, text};

    #[test]
    fn numbers_in_other_bases() {
        assert_eq!(shown("bin", &[long(4)]).as_deref(), Some("100"));
        assert_eq!(shown("bin", &[long(0)]).as_deref(), Some("0"));
        assert_eq!(shown("bin", &[long(-1)]), Some("1".repeat(64)));
        assert_eq!(shown("hex", &[long(100)]).as_deref(), Some("64"));
        assert_eq!(shown("hex", &[long(-1)]), Some("F".repeat(16)));
        assert_eq!(shown("hex", &[text("hello,world")]).as_deref(), Some("68656C6C6F2C776F726C64"));
        assert_eq!(shown("unhex", &[text("466C696E6B")]).as_deref(), Some("466c696e6b"));
        assert_eq!(shown("unhex", &[text("xy")]), None);
    }

    #[test]
    fn base_64_goes_there_and_back() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("hello world", "aGVsbG8gd29ybGQ=")]
        {
            assert_eq!(shown("to_base64", &[text(plain)]).as_deref(), Some(coded));
            assert_eq!(shown("from_base64", &[text(coded)]).as_deref(), Some(plain));
        }
        assert_eq!(refused("from_base64", &[text("a$")]), "FROM_BASE64: 'a$' is not base 64");
    }

    #[test]
    fn sha_1_of_the_standards_examples() {
        let cases = [
            ("", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
            ("abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            ("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "84983e441c3bd26ebaae4aa1f95129e5e54670f1"),
        ];
        for (message, digest) in cases {
            assert_eq!(shown("sha1", &[text(message)]).as_deref(), Some(digest));
        }
    }

    #[test]
    fn character_sets() {
        assert_eq!(shown("encode", &[text("aä"), text("ISO-8859-1")]).as_deref(), Some("61e4"));
        assert_eq!(shown("encode", &[text("aä"), text("us-ascii")]).as_deref(), Some("613f"));
        assert_eq!(shown("encode", &[text("a"), text("UTF-16")]).as_deref(), Some("feff0061"));
        let error = refused("encode", &[text("a"), text("EBCDIC")]);
        assert!(error.starts_with("there is no character set 'EBCDIC'"), "{error}");
    }
}
