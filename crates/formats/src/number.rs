//! Numbers from text: integers, decimals and floats; each says whether the text is no number or does not fit.

use crate::column::Misfit;
use crate::scan::word8;

/// Powers of ten that fit in 128 bits: 10^0 to 10^38.
pub(crate) const POWERS: [i128; 39] = {
    let mut powers = [1i128; 39];
    let mut rest: &mut [i128] = &mut powers;
    let mut power = 1i128;
    while let Some((first, tail)) = rest.split_first_mut() {
        *first = power;
        power = power.wrapping_mul(10);
        rest = tail;
    }
    powers
};

/// Reads a JSON integer of up to 18 digits at `at`; says where it ends.
///
/// `None` for anything unusual: more digits, a leading zero, a fraction, no number. The caller then takes the slow
/// way, which either reads it or names what is wrong.
#[inline(always)]
pub(crate) fn json_integer(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let negative = *bytes.get(at)? == b'-';
    let start = at + usize::from(negative);
    let (value, length) = digits(word8(bytes, start)?)?;
    let (value, length) = if length == 8 { more_digits(bytes, start, value)? } else { (value, length) };
    let end = start + length;
    let zero_led = length > 1 && *bytes.get(start)? == b'0';
    let ended = matches!(bytes.get(end)?, b',' | b'}' | b' ' | b'\n' | b'\r');
    (ended && !zero_led).then_some((if negative { -value } else { value }, end))
}

/// Reads `length` bytes at `at` as an integer of one to eight digits without a sign; `None` for anything else.
#[inline(always)]
pub(crate) fn short_integer(bytes: &[u8], at: usize, length: usize) -> Option<i64> {
    match digits(word8(bytes, at)?)? {
        (value, found) if found == length => Some(value),
        _ => None,
    }
}

/// The second and third word of a long integer.
fn more_digits(bytes: &[u8], start: usize, first: i64) -> Option<(i64, usize)> {
    let Some((second, length)) = digits(word8(bytes, start + 8)?) else { return Some((first, 8)) };
    let value = first * POWERS.get(length).map(|power| *power as i64)? + second;
    match length {
        8 => bytes.get(start + 16).filter(|byte| !byte.is_ascii_digit()).map(|_| (value, 16)),
        _ => Some((value, 8 + length)),
    }
}

/// The decimal digits at the front of a little-endian word, and how many there are (1 to 8).
#[inline(always)]
fn digits(word: u64) -> Option<(i64, usize)> {
    let values = word ^ 0x3030_3030_3030_3030;
    let others = (values.wrapping_add(0x7676_7676_7676_7676) | values) & 0x8080_8080_8080_8080;
    let length = others.trailing_zeros() / 8;
    if length == 0 {
        return None;
    }
    let values = values << (64 - 8 * length);
    let pairs = (values.wrapping_mul(10).wrapping_add(values >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100).wrapping_add(pairs >> 16)) & 0x0000_ffff_0000_ffff;
    let eight = (fours.wrapping_mul(10_000).wrapping_add(fours >> 32)) & 0xffff_ffff;
    Some((eight as i64, length as usize))
}

/// A whole text as an integer: an optional sign and digits, spaces around it forgiven.
pub(crate) fn integer(text: &[u8]) -> Result<i64, Misfit> {
    let text = text.trim_ascii();
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() {
        return Err(Misfit::NotA);
    }
    let mut value = 0i64;
    for byte in digits {
        let digit = i64::from(byte.wrapping_sub(b'0'));
        if digit > 9 {
            return Err(Misfit::NotA);
        }
        let next = value.checked_mul(10);
        let next =
            if negative { next.and_then(|v| v.checked_sub(digit)) } else { next.and_then(|v| v.checked_add(digit)) };
        value = next.ok_or(Misfit::DoesNotFit)?;
    }
    Ok(value)
}

/// A whole text as a double; text with digits that becomes infinite does not fit.
pub(crate) fn double(text: &[u8]) -> Result<f64, Misfit> {
    let value: f64 = lexical_core::parse(text.trim_ascii()).map_err(|_| Misfit::NotA)?;
    if value.is_infinite() && text.iter().any(u8::is_ascii_digit) { Err(Misfit::DoesNotFit) } else { Ok(value) }
}

/// A whole text as a float, rounded once; text with digits that becomes infinite does not fit.
pub(crate) fn float(text: &[u8]) -> Result<f32, Misfit> {
    let value: f32 = lexical_core::parse(text.trim_ascii()).map_err(|_| Misfit::NotA)?;
    if value.is_infinite() && text.iter().any(u8::is_ascii_digit) { Err(Misfit::DoesNotFit) } else { Ok(value) }
}

/// A whole text as a decimal of `precision` digits, `scale` of them after the point; more are rounded half up, as in
/// Flink, and what then has too many digits does not fit.
pub(crate) fn decimal(text: &[u8], precision: u8, scale: i8) -> Result<i128, Misfit> {
    let text = text.trim_ascii();
    let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => {
            let (mantissa, exponent) = text.split_at(at);
            (mantissa, integer(exponent.get(1..).unwrap_or_default())?)
        }
        None => (text, 0),
    };
    let (negative, unsigned) = match mantissa.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, mantissa),
    };
    let number = Mantissa::read(unsigned)?;
    let shift = i64::from(scale).saturating_add(exponent).saturating_sub(number.fraction_digits);
    let value = rescaled(number.value, shift)?;
    let bound = POWERS.get(usize::from(precision)).copied().unwrap_or(i128::MAX);
    if value >= bound {
        return Err(Misfit::DoesNotFit);
    }
    Ok(if negative { -value } else { value })
}

/// The digits of a decimal without its point.
struct Mantissa {
    value: i128,
    fraction_digits: i64,
}

impl Mantissa {
    fn read(text: &[u8]) -> Result<Self, Misfit> {
        let mut number = Self { value: 0, fraction_digits: 0 };
        let (mut point, mut any) = (false, false);
        for byte in text {
            match byte {
                b'.' if !point => point = true,
                b'0'..=b'9' => {
                    any = true;
                    number.digit(i128::from(byte - b'0'), point)?;
                }
                _ => return Err(Misfit::NotA),
            }
        }
        if any { Ok(number) } else { Err(Misfit::NotA) }
    }

    /// Digits of a fraction beyond what 128 bits hold cannot matter to 38 digits; before the point they do not fit.
    fn digit(&mut self, digit: i128, fraction: bool) -> Result<(), Misfit> {
        match self.value.checked_mul(10).and_then(|value| value.checked_add(digit)) {
            Some(value) => {
                self.value = value;
                self.fraction_digits += i64::from(fraction);
                Ok(())
            }
            None if fraction => Ok(()),
            None => Err(Misfit::DoesNotFit),
        }
    }
}

/// `value` × 10^`shift`, rounded half up.
fn rescaled(value: i128, shift: i64) -> Result<i128, Misfit> {
    if value == 0 {
        return Ok(0);
    }
    let power = usize::try_from(shift.unsigned_abs()).ok().and_then(|shift| POWERS.get(shift)).copied();
    match (power, shift >= 0) {
        (Some(power), true) => value.checked_mul(power).ok_or(Misfit::DoesNotFit),
        (Some(power), false) => Ok(value / power + i128::from(value % power >= power - power / 2)),
        (None, true) => Err(Misfit::DoesNotFit),
        (None, false) => Ok(0),
    }
}

/// Appends a number the shortest way that reads back as the same one.
#[inline]
pub(crate) fn write<N: lexical_core::ToLexical>(value: N, out: &mut Vec<u8>) {
    let mut buffer = [0u8; lexical_core::BUFFER_SIZE];
    out.extend_from_slice(lexical_core::write(value, &mut buffer));
}

/// Appends a decimal in plain notation, with all digits of its scale.
pub(crate) fn write_decimal(value: i128, scale: i8, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let power = usize::try_from(scale).ok().and_then(|scale| POWERS.get(scale)).copied().unwrap_or(1).unsigned_abs();
    let value = value.unsigned_abs();
    write(value / power, out);
    if power > 1 {
        // One digit more than the fraction has, so that its leading zeros are written; the 1 becomes the point.
        let point = out.len();
        write(power + value % power, out);
        if let Some(byte) = out.get_mut(point) {
            *byte = b'.';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_integers_of_every_length_are_read_in_place() {
        for length in 1..=16 {
            let text = "1234567890123456789".get(..length).unwrap();
            for sign in ["", "-"] {
                let line = format!("{sign}{text},\"key\":1234567890123456789}}\n");
                let expected = (format!("{sign}{text}").parse().unwrap(), length + sign.len());
                assert_eq!(json_integer(line.as_bytes(), 0), Some(expected), "{line}");
            }
        }
    }

    #[test]
    fn an_unusual_json_integer_is_left_to_the_slow_way() {
        for text in ["007,", "1.5,", "1e3,", "abc,", "-,", "-a,", "", "12345678901234567,", "1x,", "12345678.5,"] {
            let line = format!("{text}                        ");
            assert_eq!(json_integer(line.as_bytes(), 0), None, "{text}");
        }
        assert_eq!(json_integer(b"12,", 0), None, "at the end of the block");
        assert_eq!(json_integer(b"0,               ", 0), Some((0, 1)));
    }

    #[test]
    fn short_integers_take_the_whole_field_or_nothing() {
        assert_eq!(short_integer(b"0830,xxxx", 0, 4), Some(830));
        assert_eq!(short_integer(b"12345678,", 0, 8), Some(12_345_678));
        for (text, length) in
            [("123456789", 9), ("12x45678", 5), ("12,34567", 1), ("-1,xxxxx", 2), ("12,", 2), (",xxxxxxx", 0)]
        {
            assert_eq!(short_integer(text.as_bytes(), 0, length), None, "{text}");
        }
    }

    #[test]
    fn integers_name_what_is_wrong() {
        let cases: [(&str, Result<i64, Misfit>); 10] = [
            ("0830", Ok(830)),
            (" +5 ", Ok(5)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("9223372036854775808", Err(Misfit::DoesNotFit)),
            ("-9223372036854775809", Err(Misfit::DoesNotFit)),
            ("1.5", Err(Misfit::NotA)),
            ("abc", Err(Misfit::NotA)),
            ("-", Err(Misfit::NotA)),
            ("", Err(Misfit::NotA)),
        ];
        for (text, expected) in cases {
            assert_eq!(integer(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn doubles_read_everything_that_java_does() {
        assert_eq!(double(b"1.5e3"), Ok(1500.0));
        assert_eq!(double(b"Infinity"), Ok(f64::INFINITY));
        assert_eq!(double(b"-Infinity"), Ok(f64::NEG_INFINITY));
        assert!(double(b"NaN").unwrap().is_nan());
        assert_eq!(double(b"1e400"), Err(Misfit::DoesNotFit));
        assert_eq!(double(b"1.5x"), Err(Misfit::NotA));
        assert_eq!(double(b""), Err(Misfit::NotA));
        assert_eq!(float(b"1e39"), Err(Misfit::DoesNotFit));
        assert_eq!(float(b"0.1"), Ok(0.1));
    }

    #[test]
    fn decimals_are_rounded_half_up_and_bounded() {
        let cases: [(&str, Result<i128, Misfit>); 14] = [
            ("12.34", Ok(1234)),
            ("-12.3", Ok(-1230)),
            ("12.345", Ok(1235)),
            ("12.344999", Ok(1234)),
            ("-12.345", Ok(-1235)),
            ("1e2", Ok(10_000)),
            ("1234567e-5", Ok(1235)),
            ("1e-400", Ok(0)),
            ("999.99", Ok(99_999)),
            ("999.995", Err(Misfit::DoesNotFit)),
            ("1e400", Err(Misfit::DoesNotFit)),
            ("1.2.3", Err(Misfit::NotA)),
            (".", Err(Misfit::NotA)),
            ("1e", Err(Misfit::NotA)),
        ];
        for (text, expected) in cases {
            assert_eq!(decimal(text.as_bytes(), 5, 2), expected, "{text}");
        }
        let long = format!("0.{}", "1".repeat(60));
        assert_eq!(decimal(long.as_bytes(), 38, 38), Ok(11_111_111_111_111_111_111_111_111_111_111_111_111));
        assert_eq!(decimal("9".repeat(40).as_bytes(), 38, 0), Err(Misfit::DoesNotFit));
    }

    #[test]
    fn decimals_are_written_with_their_scale() {
        let written = |value, scale| {
            let mut out = Vec::new();
            write_decimal(value, scale, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(1234, 2), "12.34");
        assert_eq!(written(-5, 3), "-0.005");
        assert_eq!(written(7, 0), "7");
        assert_eq!(written(-POWERS[38] + 1, 38), format!("-0.{}", "9".repeat(38)));
    }
}
