//! A fingerprint of everything that happens in a run, so that two runs of one seed can be compared bit for bit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Folds what happens into one number; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    hash: Arc<AtomicU64>,
    events: Arc<AtomicU64>,
    /// Whether events are printed, too.
    told: bool,
}

impl Trace {
    /// A trace that prints what happens as it does, if `told`.
    pub fn new(told: bool) -> Self {
        Self { told, ..Self::default() }
    }

    /// Prints what is no event, but helps to understand them.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            println!("{}", what());
        }
    }

    /// Something happened outside of the job: a file operation, a poll of the source, a call of a sink.
    pub fn event(&self, what: &str, words: &[u64]) {
        self.tell(|| format!("  {what} {words:?}"));
        self.events.fetch_add(1, Ordering::Relaxed);
        self.fold(what.bytes().map(u64::from));
        self.fold(words.iter().copied());
    }

    /// Bytes that were written.
    pub fn bytes(&self, bytes: &[u8]) {
        self.fold(bytes.iter().map(|byte| u64::from(*byte)));
    }

    /// What was seen after a step.
    pub fn step(&self, words: impl Iterator<Item = u64>) {
        self.fold(words);
    }

    fn fold(&self, words: impl Iterator<Item = u64>) {
        let mut hash = self.hash.load(Ordering::Relaxed);
        for word in words {
            hash = (hash ^ word).wrapping_mul(0x9FB2_1C65_1E98_DF25).rotate_left(29);
        }
        self.hash.store(hash, Ordering::Relaxed);
    }

    /// The fingerprint so far.
    pub fn hash(&self) -> u64 {
        self.hash.load(Ordering::Relaxed)
    }

    /// How many events there were.
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_content_show_in_the_fingerprint() {
        let hash = |events: &[(&str, u64)]| {
            let trace = Trace::default();
            events.iter().for_each(|(what, word)| trace.event(what, &[*word]));
            trace.hash()
        };
        assert_eq!(hash(&[("a", 1), ("b", 2)]), hash(&[("a", 1), ("b", 2)]));
        assert_ne!(hash(&[("a", 1), ("b", 2)]), hash(&[("b", 2), ("a", 1)]));
        assert_ne!(hash(&[("a", 1)]), hash(&[("a", 2)]));
    }
}
