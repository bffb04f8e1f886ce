//! Finding bytes, sixteen at a time, in a form that the compiler turns into the vector instructions of its target.
//!
//! Everything here is a pure function over a slice and a position; nothing reads past the slice. The decoders hand in
//! the rest of their input rather than one line, so that only the last few bytes of a block take the slow tail.

/// The first position from `from` on that holds a quote, a backslash or a control character (a newline is one), or
/// the end of `bytes`: where plain JSON string text stops.
#[inline]
pub(crate) fn string_stop(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(chunk) = chunk16(bytes, at) {
        let stops = u128::from_le_bytes(found(chunk, |byte| (byte == b'"') | (byte == b'\\') | (byte < 0x20)));
        if stops != 0 {
            return at + stops.trailing_zeros() as usize / 8;
        }
        at += 16;
    }
    string_stop_slow(bytes, at)
}

/// [`string_stop`] byte by byte, for the tail of a block.
fn string_stop_slow(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    let found = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
    from + found.unwrap_or(rest.len())
}

/// The sixteen bytes at `at`, if there are as many.
#[inline(always)]
pub(crate) fn chunk16(bytes: &[u8], at: usize) -> Option<&[u8; 16]> {
    bytes.get(at..)?.first_chunk()
}

/// The eight bytes at `at` as a little-endian word, if there are as many.
#[inline(always)]
pub(crate) fn word8(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

/// One byte of ones for each byte of the chunk that `wanted` accepts, the first byte lowest.
///
/// Written so that the compiler makes vector compares of it: `wanted` must not branch.
#[inline(always)]
fn found(chunk: &[u8; 16], wanted: impl Fn(u8) -> bool) -> [u8; 16] {
    let mut found = [0u8; 16];
    for (found, byte) in found.iter_mut().zip(chunk) {
        *found = u8::from(wanted(*byte)).wrapping_neg();
    }
    found
}

/// Walks over the positions of two wanted bytes, 64 bytes of input at a time.
#[derive(Debug, Default)]
pub(crate) struct Stops {
    wanted: [u8; 2],
    /// Where the current 64 bytes start.
    base: usize,
    /// One bit for each wanted byte in them that was not handed out yet.
    mask: u64,
}

impl Stops {
    /// A walk over positions of either of `wanted`.
    pub(crate) fn new(wanted: [u8; 2]) -> Self {
        Self { wanted, base: 0, mask: 0 }
    }

    /// Goes to `at`: the next stop is the first one from there on.
    pub(crate) fn seek(&mut self, bytes: &[u8], at: usize) {
        self.base = at;
        self.mask = self.mask_at(bytes, at);
    }

    /// The next stop, or the end of `bytes`.
    #[inline(always)]
    pub(crate) fn next(&mut self, bytes: &[u8]) -> usize {
        while self.mask == 0 {
            if self.base + 64 >= bytes.len() {
                return bytes.len();
            }
            self.base += 64;
            self.mask = self.mask_at(bytes, self.base);
        }
        let at = self.base + self.mask.trailing_zeros() as usize;
        self.mask &= self.mask - 1;
        at
    }

    #[inline(always)]
    fn mask_at(&self, bytes: &[u8], at: usize) -> u64 {
        let rest = bytes.get(at..).unwrap_or_default();
        match rest.first_chunk() {
            Some(block) => mask_of(block, self.wanted),
            None => self.mask_of_tail(rest),
        }
    }

    #[inline(never)]
    fn mask_of_tail(&self, rest: &[u8]) -> u64 {
        let filler = (0..=2).find(|byte| !self.wanted.contains(byte)).unwrap_or_default();
        let mut padded = [filler; 64];
        padded.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        mask_of(&padded, self.wanted)
    }
}

/// One bit for each byte of a block that is one of `wanted`, the first byte lowest.
#[inline(always)]
fn mask_of(block: &[u8; 64], wanted: [u8; 2]) -> u64 {
    let [first, second] = wanted;
    let mut found = [0u8; 64];
    for (found, byte) in found.iter_mut().zip(block) {
        *found = u8::from((*byte == first) | (*byte == second));
    }
    // The product gathers the lowest bit of each byte in its highest byte.
    let gather = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    let (words, _) = found.as_chunks::<8>();
    words.iter().rev().fold(0, |mask, word| (mask << 8) | gather(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_value_is_found_at_every_place() {
        for byte in 0..=255u8 {
            for at in 0..64 {
                let mut block = [b'x'; 64];
                block[at] = byte;
                let expected = if matches!(byte, b',' | b'\n') { 1 << at } else { 0 };
                assert_eq!(mask_of(&block, *b",\n"), expected);
                let stop = if matches!(byte, b'"' | b'\\' | 0..0x20) { at } else { 64 };
                assert_eq!(string_stop(&block, 0), stop);
            }
        }
        assert_eq!(mask_of(&[b'\n'; 64], *b",\n"), u64::MAX);
    }

    #[test]
    fn a_string_stops_at_a_quote_an_escape_or_a_control_character() {
        for stop in [b'"', b'\\', b'\n', 0, 0x1f] {
            for at in 0..70 {
                let mut text = vec![0xc3; 100];
                text[at] = stop;
                assert_eq!(string_stop(&text, 0), at);
                assert_eq!(string_stop(&text[..=at], 0), at, "in the tail");
                assert_eq!(string_stop(&text, at + 1), 100);
            }
        }
        assert_eq!(string_stop(b"", 0), 0);
    }

    #[test]
    fn stops_are_found_in_order_over_any_length() {
        for length in 0..200usize {
            let text: Vec<u8> = (0..length).map(|at| if at % 7 == 3 { b',' } else { b'a' }).collect();
            let mut stops = Stops::new(*b",\n");
            stops.seek(&text, 0);
            let found: Vec<usize> = std::iter::from_fn(|| Some(stops.next(&text)).filter(|at| *at < length)).collect();
            assert_eq!(found, (0..length).filter(|at| at % 7 == 3).collect::<Vec<_>>(), "{length} bytes");
        }
    }

    #[test]
    fn seeking_skips_what_lies_before() {
        let text = b"a,b,c,d";
        let mut stops = Stops::new(*b",\n");
        stops.seek(text, 2);
        assert_eq!([stops.next(text), stops.next(text), stops.next(text)], [3, 5, 7]);
    }
}
