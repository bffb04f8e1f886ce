//! What stands between two values, learnt from the row before: `,"bidder":` or `}` and a newline.
//!
//! Rows of one producer have the same fields in the same order with the same white space. So the bytes between the
//! n-th and the next value of a row are compared with those of the row before, sixteen at once; only if they differ
//! is the text parsed, the name looked up, and the new bytes learnt.

use crate::decode_error::Faulty;
use crate::json::syntax::{colon, string_end, unescape, white_space};
use crate::scan::chunk16;

/// What follows a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The value of a column.
    Column(usize),
    /// Another value of a column that this row already has: the last one counts.
    Again(usize),
    /// A value that nobody asked for.
    Skip,
    /// The next record.
    End,
    /// The next record, and this line holds none.
    Blank,
}

/// A learnt gap: its bytes, and what follows it.
#[derive(Debug)]
struct Gap {
    /// The first 16 bytes, zero behind the end.
    word: u128,
    /// Ones where `word` counts.
    mask: u128,
    length: usize,
    /// All bytes of a gap of more than 16.
    long: Vec<u8>,
    target: Target,
}

impl Gap {
    fn new(bytes: &[u8], target: Target) -> Self {
        let mut first = [0u8; 16];
        first.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let mask = u128::MAX >> (128 - 8 * bytes.len().clamp(1, 16));
        let long = if bytes.len() > 16 { bytes.to_vec() } else { Vec::new() };
        Self { word: u128::from_le_bytes(first), mask, length: bytes.len(), long, target }
    }

    /// Whether it stands at `at`.
    #[inline(always)]
    fn matches(&self, bytes: &[u8], at: usize) -> bool {
        let Some(chunk) = chunk16(bytes, at) else { return false };
        (u128::from_le_bytes(*chunk) ^ self.word) & self.mask == 0
            && (self.long.is_empty() || self.matches_long(bytes, at))
    }

    #[inline(never)]
    fn matches_long(&self, bytes: &[u8], at: usize) -> bool {
        bytes.get(at..).is_some_and(|rest| rest.starts_with(&self.long))
    }
}

/// How many gaps are learnt: a row of more fields than that is parsed every time.
const GAPS_MAX: usize = 1024;

/// The gaps of the last row, and the names of the columns.
///
/// While a row is read, the gaps before the current one are that row's own: where it first differs from the row before,
/// the rest is forgotten. So a gap knows whether its column came before in the row.
#[derive(Debug)]
pub(crate) struct Layout {
    gaps: Vec<Gap>,
    /// Columns by name, sorted.
    names: Vec<(String, usize)>,
}

impl Layout {
    /// A layout that knows the columns `names` and no row yet.
    pub(crate) fn new(names: Vec<String>) -> Self {
        let mut names: Vec<_> = names.into_iter().enumerate().map(|(column, name)| (name, column)).collect();
        names.sort();
        Self { gaps: Vec::new(), names }
    }

    /// What follows the `index`-th gap of a row, which stands at `at`, and where.
    #[inline(always)]
    pub(crate) fn next(&mut self, index: usize, bytes: &[u8], at: usize) -> Faulty<(Target, usize)> {
        match self.gaps.get(index) {
            Some(gap) if gap.matches(bytes, at) => Ok((gap.target, at + gap.length)),
            _ => self.learn(index, bytes, at),
        }
    }

    #[inline(never)]
    fn learn(&mut self, index: usize, bytes: &[u8], at: usize) -> Faulty<(Target, usize)> {
        let (target, next) = self.parse(index, bytes, at)?;
        let newline_ended = next > at && bytes.get(next - 1) == Some(&b'\n');
        self.gaps.truncate(index);
        let learnt = match target {
            Target::Blank => false,
            Target::End => newline_ended,
            _ => true,
        };
        if learnt && index < GAPS_MAX {
            self.gaps.push(Gap::new(bytes.get(at..next).unwrap_or_default(), target));
        }
        Ok((target, next))
    }

    /// Reads the gap before the `index`-th field: an opening brace or a comma, a name and a colon; or the end.
    fn parse(&self, index: usize, bytes: &[u8], at: usize) -> Faulty<(Target, usize)> {
        let at = white_space(bytes, at);
        let inner = match (index, bytes.get(at)) {
            (0, Some(b'\n')) => return Ok((Target::Blank, at + 1)),
            (0, None) => return Ok((Target::Blank, at)),
            (0, Some(b'{')) => white_space(bytes, at + 1),
            (0, _) => return crate::decode_error::syntax(at, "a record should be an object in braces"),
            (_, Some(b',')) => white_space(bytes, at + 1),
            (_, Some(b'}')) => at,
            (_, Some(b'\n') | None) => return crate::decode_error::syntax(at, "the record ends before its '}'"),
            _ => return crate::decode_error::syntax(at, "a comma or '}' should stand"),
        };
        match (bytes.get(inner), inner > at && index > 0) {
            (Some(b'"'), _) => self.name(index, bytes, inner),
            (Some(b'}'), false) => record_end(bytes, inner + 1),
            (Some(b'\n') | None, _) => crate::decode_error::syntax(inner, "the record ends before its '}'"),
            _ => crate::decode_error::syntax(inner, "a field's name in quotes should stand"),
        }
    }

    /// Reads the field name at `at` and the colon; says what its value is for, and where the value starts.
    fn name(&self, index: usize, bytes: &[u8], at: usize) -> Faulty<(Target, usize)> {
        let (end, escaped) = string_end(bytes, at)?;
        let name = bytes.get(at + 1..end - 1).unwrap_or_default();
        let value = white_space(bytes, colon(bytes, end)?);
        let column = if escaped { self.column(unescaped(name).as_bytes()) } else { self.column(name) };
        let target = match column {
            Some(column) if self.came_before(index, column) => Target::Again(column),
            Some(column) => Target::Column(column),
            None => Target::Skip,
        };
        Ok((target, value))
    }

    fn column(&self, name: &[u8]) -> Option<usize> {
        let found = self.names.binary_search_by(|(known, _)| known.as_bytes().cmp(name)).ok()?;
        self.names.get(found).map(|(_, column)| *column)
    }

    /// Whether one of the first `index` fields of this row is of `column`. Fields beyond what is learnt count as if
    /// they might be: taking a value back that is not there does nothing.
    fn came_before(&self, index: usize, column: usize) -> bool {
        index >= GAPS_MAX || self.gaps.iter().take(index).any(|gap| gap.target == Target::Column(column))
    }
}

/// A name with its escapes resolved; one with a lone surrogate names no column.
fn unescaped(name: &[u8]) -> String {
    let mut out = String::new();
    match std::str::from_utf8(name).ok().and_then(|name| unescape(name, &mut out)) {
        Some(()) => out,
        None => String::new(),
    }
}

/// The start of the next record behind a closing brace: only white space may come before it.
fn record_end(bytes: &[u8], at: usize) -> Faulty<(Target, usize)> {
    let at = white_space(bytes, at);
    match bytes.get(at) {
        Some(b'\n') => Ok((Target::End, at + 1)),
        None => Ok((Target::End, at)),
        Some(_) => crate::decode_error::syntax(at, "text follows the object; one record is one line"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"{\"a\":1, \"long name of a column\" : 2,\"c\":3}\r\n                          ";

    fn layout() -> Layout {
        Layout::new(vec!["long name of a column".to_owned(), "a".to_owned()])
    }

    #[test]
    fn gaps_are_learnt_and_then_known() {
        let mut layout = layout();
        for _ in 0..2 {
            assert_eq!(layout.next(0, LINE, 0).unwrap(), (Target::Column(1), 5));
            assert_eq!(layout.next(1, LINE, 6).unwrap(), (Target::Column(0), 34));
            assert_eq!(layout.next(2, LINE, 35).unwrap(), (Target::Skip, 40));
            assert_eq!(layout.next(3, LINE, 41).unwrap(), (Target::End, 44));
            assert_eq!(layout.gaps.len(), 4);
            assert!(layout.gaps[0].matches(LINE, 0) && layout.gaps[1].matches(LINE, 6));
        }
    }

    #[test]
    fn a_difference_forgets_the_rest_of_the_row() {
        let mut layout = layout();
        for (index, at) in [(0, 0), (1, 6), (2, 35), (3, 41)] {
            layout.next(index, LINE, at).unwrap();
        }
        let other = b"{\"a\":1,\"a\":2}\n                  ";
        assert_eq!(layout.next(0, other, 0).unwrap(), (Target::Column(1), 5));
        assert_eq!(layout.next(1, other, 6).unwrap(), (Target::Again(1), 11));
        assert_eq!(layout.gaps.len(), 2);
    }

    #[test]
    fn a_gap_of_a_prefix_is_not_taken_for_the_whole() {
        let mut layout = Layout::new(vec!["long name of a column".to_owned()]);
        let first = b"{\"long name of a column\":1}\n          ";
        let other = b"{\"long name of a COLUMN\":1}\n          ";
        assert_eq!(layout.next(0, first, 0).unwrap().0, Target::Column(0));
        assert_eq!(layout.next(0, other, 0).unwrap().0, Target::Skip);
    }
}
