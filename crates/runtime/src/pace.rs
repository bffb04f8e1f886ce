//! How many rows a chain is handed at once: as many as it takes a tenth of a second for.
//!
//! A barrier waits for what the chain is working on. Of a batch that a slow operator or sink would keep for minutes, only a
//! piece is taken out of the queue; the rest can be overtaken.

use std::time::Duration;

use ruslo_core::clock::Instant;

/// How long the chain may take for one piece.
const TARGET: Duration = Duration::from_millis(100);

/// How much larger a piece may be than the one before: where something behind the chain takes the first rows at once and then
/// no more, about as many are stuck as went in.
const GROWTH: usize = 2;

/// Measures what the chain takes, and says what it gets.
#[derive(Debug)]
pub struct Pace {
    rows_max: usize,
    /// What the chain was handed last, until it asks for more.
    handed: Option<(Instant, usize)>,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

impl Pace {
    /// Nothing is known: the first piece is one row.
    pub fn new() -> Self {
        Self { rows_max: 1, handed: None }
    }

    /// Rows that the chain may take at once. Whoever asks is done with what was handed out before.
    pub fn rows_max(&mut self, now: impl FnOnce() -> Instant) -> usize {
        if let Some((since, rows)) = self.handed.take() {
            self.rows_max = next(self.rows_max, rows, now().saturating_sub(since));
        }
        self.rows_max
    }

    /// The chain was handed so many rows.
    pub fn handed(&mut self, rows: usize, now: Instant) {
        self.handed = Some((now, rows));
    }
}

fn next(before: usize, rows: usize, took: Duration) -> usize {
    let grown = before.saturating_mul(GROWTH);
    if took.is_zero() {
        return grown;
    }
    let in_time = (rows as u128 * TARGET.as_nanos() / took.as_nanos()).max(1);
    grown.min(usize::try_from(in_time).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces that a chain gets which takes so long for a row.
    fn pieces(row: Duration, count: usize) -> Vec<usize> {
        let (mut pace, mut now) = (Pace::new(), Duration::ZERO);
        let mut piece = || {
            let rows = pace.rows_max(|| now);
            pace.handed(rows, now);
            now += row * rows as u32;
            rows
        };
        (0..count).map(|_| piece()).collect()
    }

    #[test]
    fn a_piece_takes_a_tenth_of_a_second() {
        assert_eq!(pieces(Duration::from_secs(1), 3), [1, 1, 1]);
        assert_eq!(pieces(Duration::from_millis(1), 9), [1, 2, 4, 8, 16, 32, 64, 100, 100]);
        assert_eq!(pieces(Duration::from_nanos(100), 12).last(), Some(&2048));
    }

    #[test]
    fn after_a_hiccup_pieces_grow_again() {
        assert_eq!(next(4096, 2048, Duration::from_secs(10)), 20);
        assert_eq!(next(20, 20, Duration::from_micros(1)), 40);
    }
}
