//! Random numbers that can be asked for in any order: each row and column has a stream of its own.

use ruslo_core::rng::Rng;

/// The streams of one column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    base: u64,
}

impl Streams {
    /// The streams of the `column`th column under a seed.
    pub(crate) fn new(seed: u64, column: u64) -> Self {
        let mut rng = Rng::seeded(seed ^ column.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        Self { base: rng.next_u64() }
    }

    /// The stream of one row: SplitMix64 from a state that is the row's own.
    pub(crate) fn of(self, row: u64) -> Rng {
        // Consecutive states of SplitMix64 overlap; multiplying by another odd constant keeps rows apart.
        Rng::seeded(self.base ^ row.wrapping_mul(0xA076_1D64_78BD_642F))
    }
}

/// A number in `0..1`.
pub(crate) fn unit(rng: &mut Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// A number in `0..bound`; 0 when `bound` is 0.
pub(crate) fn below(rng: &mut Rng, bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// Appends `length` random lower-case letters.
pub(crate) fn letters(rng: &mut Rng, length: usize, out: &mut Vec<u8>) {
    let end = out.len() + length;
    out.reserve(length.next_multiple_of(8));
    while out.len() < end {
        out.extend_from_slice(&rng.next_u64().to_le_bytes().map(letter));
    }
    out.truncate(end);
}

fn letter(byte: u8) -> u8 {
    b'a' + ((u16::from(byte) * 26) >> 8) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_same_numbers_whenever_it_is_asked() {
        let streams = Streams::new(1, 2);
        assert_eq!(streams.of(7).next_u64(), streams.of(7).next_u64());
        assert_ne!(streams.of(7).next_u64(), streams.of(8).next_u64());
        assert_ne!(Streams::new(1, 3).of(7).next_u64(), streams.of(7).next_u64());
        assert_ne!(Streams::new(2, 2).of(7).next_u64(), streams.of(7).next_u64());
    }

    #[test]
    fn numbers_are_spread_evenly_over_rows() {
        let streams = Streams::new(42, 0);
        let mut buckets = [0u32; 10];
        for row in 0..100_000 {
            buckets[below(&mut streams.of(row), 10) as usize] += 1;
        }
        assert!(buckets.iter().all(|count| (9_600..10_400).contains(count)), "{buckets:?}");
        let mean = (0..100_000).map(|row| unit(&mut streams.of(row))).sum::<f64>() / 100_000.0;
        assert!((0.495..0.505).contains(&mean), "{mean}");
    }

    #[test]
    fn letters_are_letters_and_as_many_as_asked() {
        let mut text = Vec::new();
        for length in [0, 1, 8, 9, 100] {
            text.clear();
            letters(&mut Streams::new(1, 1).of(5), length, &mut text);
            assert_eq!(text.len(), length);
            assert!(text.iter().all(u8::is_ascii_lowercase));
        }
    }
}
