//! URL_ENCODE, URL_DECODE and PARSE_URL, as Java's URLEncoder and URL do them.

use arrow::array::{ArrayRef, StringBuilder};
use datafusion::common::Result;

use super::call::Kind::Text;
use super::call::{Arguments, Definition, Gives, put, put_char};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition::new("url_encode", &[&[Text]], Gives::Text, encode),
    Definition::new("url_decode", &[&[Text]], Gives::Text, decode),
    Definition::new("parse_url", &[&[Text, Text], &[Text, Text, Text]], Gives::Text, parse),
];

fn encode(args: &Arguments<'_>) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    args.write_texts(|row, out| {
        let Some(text) = texts.get(row) else { return Ok(None) };
        text.bytes().for_each(|byte| encode_byte(byte, out));
        Ok(Some(()))
    })
}

fn encode_byte(byte: u8, out: &mut StringBuilder) {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => put_char(out, char::from(byte)),
        b' ' => put_char(out, '+'),
        _ => {
            put_char(out, '%');
            for digit in [byte >> 4, byte & 15] {
                put_char(out, char::from_digit(u32::from(digit), 16).unwrap_or('0').to_ascii_uppercase());
            }
        }
    }
}

/// NULL for what is not encoded so.
fn decode(args: &Arguments<'_>) -> Result<ArrayRef> {
    let texts = args.text(0)?;
    let mut bytes = Vec::new();
    args.write_texts(|row, out| {
        let Some(text) = texts.get(row) else { return Ok(None) };
        bytes.clear();
        let decoded = decode_into(text.as_bytes(), &mut bytes).map(|()| String::from_utf8_lossy(&bytes));
        Ok(decoded.map(|text| put(out, &text)))
    })
}

fn decode_into(mut text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    while let Some((first, rest)) = text.split_first() {
        text = rest;
        match first {
            b'+' => out.push(b' '),
            b'%' => {
                let (digits, rest) = text.split_first_chunk::<2>()?;
                let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
                out.push((high? * 16 + low?) as u8);
                text = rest;
            }
            byte => out.push(*byte),
        }
    }
    Some(())
}

fn parse(args: &Arguments<'_>) -> Result<ArrayRef> {
    let (texts, parts) = (args.text(0)?, args.text(1)?);
    let keys = if args.len() > 2 { Some(args.text(2)?) } else { None };
    args.write_texts(|row, out| {
        let (Some(text), Some(part)) = (texts.get(row), parts.get(row)) else { return Ok(None) };
        let Some(url) = Url::split(text) else { return Ok(None) };
        let found = match &keys {
            None => url.part(part),
            Some(keys) if part == "QUERY" => keys.get(row).and_then(|key| url.value(key)),
            Some(_) => None,
        };
        Ok(found.map(|found| put(out, found)))
    })
}

struct Url<'a> {
    protocol: &'a str,
    authority: &'a str,
    /// From the path on.
    path: &'a str,
    query: Option<&'a str>,
    reference: Option<&'a str>,
    /// Path and query, as written.
    file: &'a str,
}

impl<'a> Url<'a> {
    /// The parts of a URL with a protocol that Java knows.
    fn split(text: &'a str) -> Option<Self> {
        let (protocol, rest) = text.trim().split_once(':')?;
        let known = ["http", "https", "ftp", "file", "jar"];
        known.iter().find(|known| protocol.eq_ignore_ascii_case(known))?;
        let (rest, reference) = split_off(rest, '#');
        let (authority, file) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len()))?,
            None => ("", rest),
        };
        let (path, query) = split_off(file, '?');
        Some(Self { protocol, authority, path, query, reference, file })
    }

    fn part(&self, name: &str) -> Option<&'a str> {
        let user = self.authority.rsplit_once('@').map(|(user, _)| user);
        match name {
            "HOST" => self.host(),
            "PATH" => Some(self.path),
            "QUERY" => self.query,
            "REF" => self.reference,
            "PROTOCOL" => Some(self.protocol),
            "FILE" => Some(self.file),
            "AUTHORITY" => Some(self.authority).filter(|authority| !authority.is_empty()),
            "USERINFO" => user,
            _ => None,
        }
    }

    fn host(&self) -> Option<&'a str> {
        let host = self.authority.rsplit_once('@').map_or(self.authority, |(_, host)| host);
        let host = match (host.starts_with('['), host.rsplit_once(':')) {
            (false, Some((host, _))) => host,
            (true, Some((host, _))) if host.ends_with(']') => host,
            _ => host,
        };
        Some(host).filter(|host| !host.is_empty())
    }

    /// The value of a key of the query.
    fn value(&self, key: &str) -> Option<&'a str> {
        self.query?.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    }
}

fn split_off(text: &str, at: char) -> (&str, Option<&str>) {
    text.split_once(at).map_or((text, None), |(before, after)| (before, Some(after)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{shown, text};

    #[test]
    fn urls_are_encoded_as_java_does() {
        let plain = "https://flink.apache.org/ä b*";
        let coded = "https%3A%2F%2Fflink.apache.org%2F%C3%A4+b*";
        assert_eq!(shown("url_encode", &[text(plain)]).as_deref(), Some(coded));
        assert_eq!(shown("url_decode", &[text(coded)]).as_deref(), Some(plain));
        assert_eq!(shown("url_decode", &[text("illegal%zz")]), None);
        assert_eq!(shown("url_decode", &[text("cut%2")]), None);
    }

    #[test]
    fn a_url_has_parts() {
        let url = "http://user:pw@facebook.com:80/path1/p.php?k1=v1&k2=v2#Ref1";
        let cases = [
            ("HOST", Some("facebook.com")),
            ("PATH", Some("/path1/p.php")),
            ("QUERY", Some("k1=v1&k2=v2")),
            ("REF", Some("Ref1")),
            ("PROTOCOL", Some("http")),
            ("FILE", Some("/path1/p.php?k1=v1&k2=v2")),
            ("AUTHORITY", Some("user:pw@facebook.com:80")),
            ("USERINFO", Some("user:pw")),
            ("host", None),
        ];
        for (part, expected) in cases {
            assert_eq!(shown("parse_url", &[text(url), text(part)]).as_deref(), expected, "{part}");
        }
        assert_eq!(shown("parse_url", &[text(url), text("QUERY"), text("k2")]).as_deref(), Some("v2"));
        assert_eq!(shown("parse_url", &[text(url), text("QUERY"), text("k")]), None);
        assert_eq!(shown("parse_url", &[text("no url"), text("HOST")]), None);
    }
}
