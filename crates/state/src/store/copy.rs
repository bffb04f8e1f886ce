//! Files of runs from one store into another, a piece at a time: a file may be larger than memory.

use std::collections::BTreeMap;
use std::io::Read;

use ruslo_core::error::{Error, Result};

use super::{CheckpointStore, run_key};
use crate::manifest::RunRef;
use crate::storage::Storage;

/// How much of a file is in memory while it is copied.
const PIECE_BYTES: u64 = 1 << 20;

impl CheckpointStore {
    /// Copies every file that `runs` name to `target`, durably, and looks meanwhile whether they are as they were written;
    /// there it is called what `name` says. How many bytes.
    ///
    /// # Errors
    /// `Corrupt`, naming the file.
    pub(crate) fn copy_runs<'a>(
        &self,
        runs: impl Iterator<Item = &'a RunRef>,
        target: &Self,
        name: impl Fn(&str) -> String,
    ) -> Result<u64> {
        let mut files: BTreeMap<&str, Vec<&RunRef>> = BTreeMap::new();
        runs.for_each(|run| files.entry(&run.file).or_default().push(run));
        let mut copied = 0;
        for (file, runs) in files {
            copied += self.copy_file(file, &runs, target, &name(file))?;
        }
        Ok(copied)
    }

    fn copy_file(&self, file: &str, runs: &[&RunRef], target: &Self, name: &str) -> Result<u64> {
        let (key, path) = (run_key(file), self.run_address(file));
        let size = self.storage.size(&key)?;
        let size = size.ok_or_else(|| Error::corrupt(format!("{path}: the file is missing")))?;
        let mut pieces = Pieces::new(self.storage.as_ref(), &key, size, runs);
        let put = target.storage.put_from(&run_key(name), &mut pieces);
        let checked = match pieces.failed.take() {
            Some(error) => Err(error),
            None => put.and_then(|()| pieces.check(&path)),
        };
        match checked {
            Ok(()) => Ok(size),
            Err(error) => {
                // Only to tidy up: nobody names it.
                let _ = target.storage.remove(&run_key(name));
                Err(error)
            }
        }
    }
}

/// A file as it is read, with the checksums of its runs.
struct Pieces<'a> {
    storage: &'a dyn Storage,
    key: &'a str,
    size: u64,
    /// How much of it is in `piece` or was before.
    at: u64,
    piece: Vec<u8>,
    /// How much of `piece` is read.
    read: usize,
    runs: Vec<(&'a RunRef, crc32fast::Hasher)>,
    /// What went wrong beneath, which [`Read`] cannot tell.
    failed: Option<Error>,
}

impl<'a> Pieces<'a> {
    fn new(storage: &'a dyn Storage, key: &'a str, size: u64, runs: &[&'a RunRef]) -> Self {
        let runs = runs.iter().map(|run| (*run, crc32fast::Hasher::new())).collect();
        Self { storage, key, size, at: 0, piece: Vec::new(), read: 0, runs, failed: None }
    }

    fn fetch(&mut self) -> Result<()> {
        let end = self.size.min(self.at + PIECE_BYTES);
        self.piece = self.storage.get_range(self.key, self.at..end)?;
        for (run, crc32) in &mut self.runs {
            let (from, to) = (run.offset.max(self.at), run.offset.saturating_add(run.length).min(end));
            let of_run = (from.saturating_sub(self.at) as usize)..(to.saturating_sub(self.at) as usize);
            crc32.update(self.piece.get(of_run).unwrap_or_default());
        }
        (self.at, self.read) = (end, 0);
        Ok(())
    }

    /// Whether what was read, all of it, is what was written.
    fn check(self, path: &str) -> Result<()> {
        for (run, crc32) in self.runs {
            let (start, end) = (run.offset, run.offset.saturating_add(run.length));
            if end > self.at {
                return Err(Error::corrupt(format!("{path}: the file ends before byte {end}")));
            }
            if crc32.finalize() != run.crc32 {
                return Err(Error::corrupt(format!("{path}: the checksum of bytes {start}..{end} does not fit")));
            }
        }
        Ok(())
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        if self.read == self.piece.len() && self.at < self.size {
            self.fetch().map_err(|error| {
                let told = std::io::Error::other(error.to_string());
                self.failed = Some(error);
                told
            })?;
        }
        let mut left = self.piece.get(self.read..).unwrap_or_default();
        let read = left.read(to)?;
        self.read += read;
        Ok(read)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test looks at files behind the disk's back")]
mod tests {
    use std::sync::Arc;

    use ruslo_core::disk::LocalDisk;
    use ruslo_core::error::ErrorKind;

    use super::*;

    #[test]
    fn a_file_larger_than_a_piece_comes_whole_and_every_run_in_it_is_checked() {
        let home = tempfile::tempdir().unwrap();
        let store = |name| CheckpointStore::open(Arc::new(LocalDisk), &home.path().join(name), "a").unwrap();
        let (from, to) = (store("from"), store("to"));
        let bytes: Vec<u8> = (0..5 * PIECE_BYTES / 2).map(|n| (n * n % 251) as u8).collect();
        from.write_file("1-x.arrow", &bytes).unwrap();
        let run = |offset: u64, length: u64| RunRef {
            offset,
            length,
            crc32: crc32fast::hash(&bytes[offset as usize..(offset + length) as usize]),
            ..RunRef::for_test("1-x.arrow", 0, 0..128)
        };
        // Inside of a piece, up to the end of one, over two of them, over all, and nothing; one of them twice.
        let size = bytes.len() as u64;
        let places =
            [(3, 10), (100, PIECE_BYTES - 100), (PIECE_BYTES - 5, PIECE_BYTES + 10), (0, size), (7, 0), (3, 10)];
        let runs = places.map(|(offset, length)| run(offset, length));
        assert_eq!(from.copy_runs(runs.iter(), &to, |file| format!("9-{file}")).unwrap(), size);
        assert_eq!(std::fs::read(home.path().join("to/runs/9-1-x.arrow")).unwrap(), bytes);
        for index in 0..4 {
            let mut damaged = runs.clone();
            damaged[index].crc32 ^= 1;
            let error = from.copy_runs(damaged.iter(), &to, |_| "8-y.arrow".to_owned()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains("from/runs/1-x.arrow: the checksum of bytes "), "{error}");
            assert_eq!(to.run_files().unwrap(), ["9-1-x.arrow"]);
        }
        let long = RunRef { length: size + 1, ..run(0, size) };
        let error = from.copy_runs([long].iter(), &to, str::to_owned).unwrap_err();
        assert!(error.to_string().ends_with(&format!("the file ends before byte {}", size + 1)), "{error}");
        let gone = RunRef::for_test("2-z.arrow", 0, 0..128);
        assert!(from.copy_runs([gone].iter(), &to, str::to_owned).unwrap_err().to_string().contains("is missing"));
    }
}
