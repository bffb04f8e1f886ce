//! What can happen to a folder of files behind everybody's back.

use std::fs;
use std::path::{Path, PathBuf};

use ruslo_core::rng::Rng;

/// Something that was done to the folder; names are relative to it.
#[derive(Debug)]
#[allow(dead_code, reason = "told when a test fails")]
pub(crate) enum Mutation {
    Cut {
        file: String,
        length: usize,
    },
    Flipped {
        file: String,
        bits: Vec<usize>,
    },
    Zeroed {
        file: String,
        from: usize,
        to: usize,
    },
    Grown {
        file: String,
        by: usize,
    },
    Swapped {
        a: String,
        b: String,
    },
    /// An older file's bytes under a newer one's name.
    Replayed {
        from: String,
        over: String,
    },
    /// A file once more, under a name that nobody has.
    Doubled {
        file: String,
        name: String,
    },
    Removed {
        file: String,
    },
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let inside = ["manifests", "runs"].map(|name| fs::read_dir(folder.join(name)).unwrap());
    let mut paths: Vec<_> = inside.into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Newer checkpoints are damaged more often: they are what a restart looks at.
fn pick(paths: &[PathBuf], rng: &mut Rng) -> PathBuf {
    let manifests: Vec<_> = paths.iter().filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    match rng.below(3) {
        0 if !manifests.is_empty() => (*manifests.last().unwrap()).clone(),
        1 if !manifests.is_empty() => manifests[rng.below(manifests.len())].clone(),
        _ => paths[rng.below(paths.len())].clone(),
    }
}

impl Mutation {
    /// Does something to a file in `folder`; nothing, if chance chose what cannot be done.
    pub(crate) fn apply(folder: &Path, rng: &mut Rng) -> Option<Self> {
        let paths = files(folder);
        if paths.is_empty() {
            return None;
        }
        let path = pick(&paths, rng);
        let name = |path: &Path| path.strip_prefix(folder).unwrap().display().to_string();
        let file = name(&path);
        let mut bytes = fs::read(&path).unwrap();
        let same_kind = |other: &&PathBuf| other.parent() == path.parent() && **other != path;
        let others: Vec<_> = paths.iter().filter(same_kind).collect();
        match rng.below(9) {
            0 => {
                let length = if rng.one_in(4) { 0 } else { rng.below(bytes.len().max(1)) };
                fs::write(&path, &bytes[..length]).unwrap();
                Some(Self::Cut { file, length })
            }
            1 | 2 if !bytes.is_empty() => {
                let bits: Vec<_> = (0..1 + rng.below(3)).map(|_| rng.below(8 * bytes.len())).collect();
                bits.iter().for_each(|bit| bytes[bit / 8] ^= 1 << (bit % 8));
                fs::write(&path, bytes).unwrap();
                Some(Self::Flipped { file, bits })
            }
            3 if !bytes.is_empty() => {
                let from = rng.below(bytes.len());
                let to = (from + 1 + rng.below(512)).min(bytes.len());
                bytes[from..to].fill(0);
                fs::write(&path, bytes).unwrap();
                Some(Self::Zeroed { file, from, to })
            }
            4 => {
                let by = 1 + rng.below(64);
                bytes.extend((0..by).map(|_| rng.below(256) as u8));
                fs::write(&path, bytes).unwrap();
                Some(Self::Grown { file, by })
            }
            5 if !others.is_empty() => {
                let other = others[rng.below(others.len())];
                let theirs = fs::read(other).unwrap();
                fs::write(other, bytes).unwrap();
                fs::write(&path, theirs).unwrap();
                Some(Self::Swapped { a: file, b: name(other) })
            }
            6 => {
                let older = others.into_iter().rfind(|other| **other < path)?;
                fs::copy(older, &path).unwrap();
                Some(Self::Replayed { from: name(older), over: file })
            }
            7 => {
                let copy = doubled(&path, rng)?;
                fs::copy(&path, &copy).unwrap();
                Some(Self::Doubled { file, name: name(&copy) })
            }
            _ => {
                fs::remove_file(&path).unwrap();
                Some(Self::Removed { file })
            }
        }
    }
}

/// A name that looks like one of the store's own: the next number, or nearly the same one.
fn doubled(path: &Path, rng: &mut Rng) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let digits = name.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = name.split_at(digits);
    let other = number.parse::<u64>().ok()? + 1 + rng.below(3) as u64;
    let name = match (rest, rng.below(3)) {
        (".json", 0) => format!("{number} (copy).json"),
        (".json", _) => format!("{other:020}.json"),
        (rest, 0) => format!("{number}{rest}.bak"),
        (rest, _) => format!("{other}{rest}"),
    };
    let copy = path.with_file_name(name);
    (!copy.exists()).then_some(copy)
}
