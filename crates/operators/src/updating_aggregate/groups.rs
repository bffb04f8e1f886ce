//! The groups of one batch: each key once.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use ruslo_core::changelog::adds;
use ruslo_core::error::Result;
use ruslo_core::keyed::Rows as TableRows;

/// Spreads slots over a table whose size is a power of two.
const MULTIPLIER: u32 = 0x9E37_79B1;

/// The keys of a batch, numbered in the order in which they come.
#[derive(Debug)]
pub(crate) struct BatchGroups {
    /// The group of each row.
    pub(crate) of_rows: Vec<u32>,
    /// The key of each group.
    pub(crate) keys: Vec<ArrayRef>,
    /// Its row in the table.
    pub(crate) rows: TableRows,
    /// Whether it is new.
    pub(crate) added: Vec<bool>,
}

impl BatchGroups {
    /// Of a batch's `keys`, which are `rows` in the table; those of `added` are new.
    pub(crate) fn new(keys: &[ArrayRef], rows: &TableRows, added: &[bool]) -> Result<Self> {
        let (of_rows, firsts) = numbered(rows.slots());
        let of_firsts = |row: &u32| added.get(*row as usize).copied().unwrap_or(false);
        let added = firsts.iter().map(of_firsts).collect();
        let slots = firsts.iter().filter_map(|row| rows.slots().get(*row as usize)).copied().collect();
        let firsts = UInt32Array::from(firsts);
        let keys = keys.iter().map(|key| Ok(take(key, &firsts, None)?)).collect::<Result<Vec<_>>>()?;
        Ok(Self { of_rows, keys, rows: TableRows::new(slots, rows.generation()), added })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.added.len()
    }

    /// The keys of some groups.
    pub(crate) fn keys_of(&self, groups: Vec<u32>) -> Result<Vec<ArrayRef>> {
        let groups = Arc::new(UInt32Array::from(groups));
        self.keys.iter().map(|key| Ok(take(key, groups.as_ref(), None)?)).collect()
    }
}

/// A number for each slot, in order of their first rows, and those rows.
fn numbered(slots: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let bits = (slots.len().max(1) * 2).next_power_of_two().trailing_zeros().max(1);
    let mask = (1usize << bits) - 1;
    let mut places: Vec<(u32, u32)> = vec![(u32::MAX, 0); mask + 1];
    let mut firsts = Vec::new();
    let mut number = |row: usize, slot: u32| {
        let mut at = (slot.wrapping_mul(MULTIPLIER) >> (32 - bits.min(32))) as usize & mask;
        loop {
            match places.get_mut(at) {
                Some((known, number)) if *known == slot => return *number,
                Some(place @ (u32::MAX, _)) => {
                    *place = (slot, firsts.len() as u32);
                    firsts.push(row as u32);
                    return place.1;
                }
                _ => at = (at + 1) & mask,
            }
        }
    };
    let numbers = slots.iter().enumerate().map(|(row, slot)| number(row, *slot)).collect();
    (numbers, firsts)
}

/// Counts the rows of each group, from `counts` on, and says what each row does. A row that takes away where nothing is
/// left has outlived its group, and does nothing.
pub(super) fn counted(kinds: Option<&[i8]>, of_rows: &[u32], counts: &mut [i64]) -> Vec<i8> {
    let mut count = |group: u32, adds: bool| match counts.get_mut(group as usize) {
        Some(count) if adds => {
            *count += 1;
            1
        }
        Some(count) if *count > 0 => {
            *count -= 1;
            -1
        }
        _ => 0,
    };
    match kinds {
        None => of_rows.iter().map(|group| count(*group, true)).collect(),
        Some(kinds) => of_rows.iter().zip(kinds).map(|(group, kind)| count(*group, adds(*kind))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_numbered_as_they_come() {
        assert_eq!(numbered(&[7, 9, 7, 0, 9]), (vec![0, 1, 0, 2, 1], vec![0, 1, 3]));
        assert_eq!(numbered(&[]), (vec![], vec![]));
        let many: Vec<u32> = (0..5000).map(|n| n * 4096).collect();
        assert_eq!(numbered(&many).0, (0..5000).collect::<Vec<_>>());
    }

    #[test]
    fn a_row_that_takes_away_from_nothing_does_nothing() {
        let mut counts = vec![1, 0];
        assert_eq!(counted(Some(&[3, 1, 2, 1, 0]), &[0, 0, 0, 1, 1], &mut counts), [-1, 0, 1, 0, 1]);
        assert_eq!(counts, [1, 1]);
        assert_eq!(counted(None, &[1, 1], &mut counts), [1, 1]);
        assert_eq!(counts, [1, 3]);
    }
}
