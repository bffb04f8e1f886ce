//! INET_ATON and INET_NTOA: addresses of IPv4 as texts and as numbers.

use arrow::array::ArrayRef;
use datafusion::common::Result;

use super::call::Kind::{Long, Text};
use super::call::{Arguments, Definition, Gives, put, put_char};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("inet_aton", &[&[Text]], Gives::Long, aton),
    Definition::new("inet_ntoa", &[&[Long]], Gives::Text, ntoa),
];

/// `127.0.0.1` and, as in MySQL, `127.1`: the last part is the last byte; NULL for what is no address.
fn aton(args: &Arguments<'_>) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    args.longs(|row| Ok(texts.get(row).and_then(number_of)))
}

fn number_of(text: &str) -> Option<i64> {
    let last = text.split('.').count() - 1;
    let mut number = 0;
    for (place, part) in text.split('.').enumerate() {
        let is_number = (1..=10).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        let value = if is_number { part.parse::<i64>().ok().filter(|value| *value <= 255)? } else { return None };
        let byte = if place == last { 0 } else { 3usize.checked_sub(place)? };
        number |= value << (8 * byte);
    }
    (last <= 3).then_some(number)
}

/// NULL for a number that is no address.
fn ntoa(args: &Arguments<'_>) -> Result<ArrayRef> {
    let numbers = args.long(0)?;
    args.write_texts(|row, out| {
        let Some(number) = numbers.get(row).and_then(|number| u32::try_from(number).ok()) else { return Ok(None) };
        for (place, byte) in number.to_be_bytes().into_iter().enumerate() {
            if place > 0 {
                put_char(out, '.');
            }
            put_byte(byte, out);
        }
        Ok(Some(()))
    })
}

fn put_byte(byte: u8, out: &mut arrow::array::StringBuilder) {
    let digits = [byte / 100, byte / 10 % 10, byte % 10].map(|digit| char::from(b'0' + digit));
    let mut letters = [0; 4];
    let skipped = if byte >= 100 {
        0
    } else if byte >= 10 {
        1
    } else {
        2
    };
    digits.into_iter().skip(skipped).for_each(|digit| put(out, digit.encode_utf8(&mut letters)));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{long, null, shown, text};

    #[test]
    fn addresses_are_numbers() {
        let cases = [
            ("1.2.3.4", Some("16909060")),
            ("01.2.3.4", Some("16909060")),
            ("1.2.3", Some("16908291")),
            ("1.2", Some("16777218")),
            ("127.1", Some("2130706433")),
            ("1", Some("1")),
            ("300", None),
            ("1.1428", None),
            ("255.255.255.255", Some("4294967295")),
            ("256.1.1.1", None),
            ("1.2.3.4.5", None),
            ("1..3.4", None),
            (" 1.2.3.4", None),
            ("", None),
        ];
        for (address, expected) in cases {
            assert_eq!(shown("inet_aton", &[text(address)]).as_deref(), expected, "{address}");
        }
        assert_eq!(shown("inet_aton", &[null()]), None);
    }

    #[test]
    fn numbers_are_addresses() {
        let cases = [(16_909_060, Some("1.2.3.4")), (0, Some("0.0.0.0")), (4_294_967_295, Some("255.255.255.255"))];
        for (number, expected) in cases.into_iter().chain([(-1, None), (4_294_967_296, None)]) {
            assert_eq!(shown("inet_ntoa", &[long(number)]).as_deref(), expected, "{number}");
        }
    }
}
