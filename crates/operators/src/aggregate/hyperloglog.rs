//! HyperLogLog: how many different hashes there were, in a bounded number of bytes.
//!
//! Up to [`SPARSE_MAX`] different hashes are kept as they are, and the count is exact but for collisions of 64-bit
//! hashes. Beyond, 2¹⁴ registers keep the longest run of zeros each (Flajolet, Fusy, Gandouet, Meunier, 2007), and the
//! count is estimated after Otmar Ertl ("New cardinality estimation algorithms for HyperLogLog sketches", 2017,
//! algorithm 6): without tables, with a standard error of 1.04 / √2¹⁴ = 0.81 %. What is kept depends on the set of
//! hashes alone, so the order of rows and partial states does not show.
//!
//! The hash is the key-group hash, version 1. The bytes are stored in checkpoints: `docs/design/aggregate-state.md`.

use std::collections::HashSet;

use datafusion::common::exec_err;
use datafusion::error::Result;

/// Registers, as a power of two.
const PRECISION: u32 = 14;
const REGISTERS: usize = 1 << PRECISION;
/// The largest value of a register: all other bits are zeros.
const RANK_MAX: usize = 64 - PRECISION as usize + 1;
/// From this many hashes on, registers are no larger than the hashes.
pub(super) const SPARSE_MAX: usize = REGISTERS / 8;

const SPARSE: u8 = 1;
const DENSE: u8 = 2;

/// A set of hashes, exact while it is small.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HyperLogLog {
    Sparse(HashSet<u64>),
    Dense(Box<[u8]>),
}

impl Default for HyperLogLog {
    fn default() -> Self {
        Self::Sparse(HashSet::new())
    }
}

impl HyperLogLog {
    pub(super) fn add(&mut self, hash: u64) {
        match self {
            Self::Sparse(hashes) => {
                hashes.insert(hash);
                if hashes.len() > SPARSE_MAX {
                    self.densify();
                }
            }
            Self::Dense(registers) => raise(registers, hash),
        }
    }

    fn densify(&mut self) -> &mut [u8] {
        if let Self::Sparse(hashes) = self {
            let mut registers = vec![0; REGISTERS].into_boxed_slice();
            hashes.iter().for_each(|hash| raise(&mut registers, *hash));
            *self = Self::Dense(registers);
        }
        match self {
            Self::Dense(registers) => registers,
            Self::Sparse(_) => &mut [],
        }
    }

    /// Adds what [`Self::to_bytes`] wrote.
    pub(super) fn merge_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        match bytes.split_first() {
            Some((&SPARSE, hashes)) => {
                let (hashes, []) = hashes.as_chunks::<8>() else { return broken(bytes.len()) };
                hashes.iter().for_each(|hash| self.add(u64::from_le_bytes(*hash)));
                Ok(())
            }
            Some((&DENSE, others)) if others.len() == REGISTERS => {
                let own = self.densify();
                own.iter_mut().zip(others).for_each(|(own, other)| *own = (*own).max(*other));
                Ok(())
            }
            _ => broken(bytes.len()),
        }
    }

    /// One byte that says which, then the hashes in ascending order, little-endian, or the registers.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Sparse(hashes) => {
                let mut hashes: Vec<u64> = hashes.iter().copied().collect();
                hashes.sort_unstable();
                std::iter::once(SPARSE).chain(hashes.into_iter().flat_map(u64::to_le_bytes)).collect()
            }
            Self::Dense(registers) => std::iter::once(DENSE).chain(registers.iter().copied()).collect(),
        }
    }

    /// How many different hashes there were.
    pub(super) fn estimate(&self) -> u64 {
        match self {
            Self::Sparse(hashes) => hashes.len() as u64,
            Self::Dense(registers) => estimate(registers),
        }
    }

    /// Bytes held beyond the value itself.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Sparse(hashes) => hashes.capacity() * (size_of::<u64>() + 1),
            Self::Dense(registers) => registers.len(),
        }
    }
}

fn broken<T>(bytes: usize) -> Result<T> {
    exec_err!("a stored distinct count of {bytes} bytes is not one")
}

/// The first bits of the hash choose a register; it keeps the longest run of zeros in the others.
fn raise(registers: &mut [u8], hash: u64) {
    let index = (hash >> (64 - PRECISION)) as usize;
    let rank = ((hash << PRECISION).leading_zeros() as usize + 1).min(RANK_MAX) as u8;
    if let Some(register) = registers.get_mut(index) {
        *register = (*register).max(rank);
    }
}

fn estimate(registers: &[u8]) -> u64 {
    let mut histogram = [0u32; RANK_MAX + 1];
    for register in registers {
        if let Some(count) = histogram.get_mut(usize::from(*register)) {
            *count += 1;
        }
    }
    let size = REGISTERS as f64;
    let [zeros, middle @ .., full] = histogram;
    let mut z = size * tau(1.0 - f64::from(full) / size);
    for count in middle.iter().rev() {
        z = 0.5 * (z + f64::from(*count));
    }
    z += size * sigma(f64::from(zeros) / size);
    (size * size / (2.0 * std::f64::consts::LN_2 * z)).round() as u64
}

/// x + Σ x^(2^k) · 2^(k−1)
fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// (1 − x − Σ (1 − x^(2^−k))² · 2^−k) / 3
fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use ruslo_core::key_group::hash_rows;

    use super::*;

    fn hashes(values: impl Iterator<Item = i64>) -> Vec<u64> {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        hash_rows(std::slice::from_ref(&column), column.len()).unwrap()
    }

    fn counted(hashes: &[u64]) -> HyperLogLog {
        let mut sketch = HyperLogLog::default();
        hashes.iter().for_each(|hash| sketch.add(*hash));
        sketch
    }

    #[test]
    fn counts_are_within_three_standard_errors_and_small_ones_exact() {
        for count in [0, 1, 2, 100, 2048] {
            assert_eq!(counted(&hashes(0..count)).estimate(), count as u64);
        }
        for stride in [1, 2, 128, 1000, 1 << 32] {
            for count in [2_049i64, 5_000, 40_000, 300_000] {
                let found = counted(&hashes((0..count).map(|value| value * stride))).estimate();
                let error = (found as f64 / count as f64 - 1.0).abs();
                assert!(error < 3.0 * 0.0081, "{count} with stride {stride}: {found}");
            }
        }
    }

    #[test]
    fn the_order_of_parts_does_not_show() {
        for count in [1000, 3000, 9000] {
            let all = hashes(0..count);
            let whole = counted(&all);
            let parts: Vec<_> = all.chunks(700).map(|part| counted(part).to_bytes()).collect();
            for parts in [parts.iter().collect::<Vec<_>>(), parts.iter().rev().collect()] {
                let mut merged = HyperLogLog::default();
                parts.into_iter().for_each(|part| merged.merge_bytes(part).unwrap());
                assert_eq!(merged, whole);
            }
            let mut again = counted(&all[..5]);
            again.merge_bytes(&whole.to_bytes()).unwrap();
            assert_eq!(again, whole);
        }
    }

    #[test]
    fn stored_bytes_never_change() {
        let bytes = counted(&[3, 1, u64::MAX]).to_bytes();
        let expected = [&[1u8][..], &1u64.to_le_bytes(), &3u64.to_le_bytes(), &[0xFF; 8]].concat();
        assert_eq!(bytes, expected);
        let mut dense = HyperLogLog::default();
        // Register 1: bits 50 to 63 are 1, and the next set bit is the third of the others.
        dense.densify();
        dense.add((1 << 50) | (1 << 47));
        let bytes = dense.to_bytes();
        assert_eq!((bytes.len(), bytes[0], bytes[1], bytes[2]), (1 + 16_384, 2, 0, 3));
        for wrong in [&[][..], &[1, 2], &[2, 0], &[7]] {
            assert!(HyperLogLog::default().merge_bytes(wrong).is_err());
        }
    }
}
