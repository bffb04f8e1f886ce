//! Damage to stored checkpoints, and the check that what is kept is whole.

use std::path::{Path, PathBuf};

use ruslo_core::epoch::Epoch;
use ruslo_core::rng::Rng;
use ruslo_state::manifest::{Manifest, RunLayout};
use ruslo_state::run_file;

use crate::disk::Machine;

/// Where the checkpoints of every run are.
pub const FOLDER: &str = "/checkpoints";

/// How many of the newest checkpoints must be whole, but for those that were damaged on purpose.
const KEPT: usize = 3;

fn manifests() -> PathBuf {
    Path::new(FOLDER).join("manifests")
}

fn run_path(file: &str) -> PathBuf {
    Path::new(FOLDER).join("runs").join(file)
}

/// The manifests that stand on the disk, oldest first.
pub fn manifest_paths(machine: &Machine) -> Vec<PathBuf> {
    let paths = machine.paths_in(&manifests()).into_iter();
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

/// Reads a manifest and every run that it names; what is wrong, if something is.
pub fn read_whole(machine: &Machine, path: &Path) -> Result<Manifest, String> {
    let bytes = machine.bytes(path).ok_or("gone")?;
    let manifest = Manifest::decode(path, &bytes).map_err(|error| error.to_string())?;
    if path.file_name().unwrap().to_str() != Some(&format!("{:020}.json", manifest.epoch.0)) {
        return Err(format!("this is the manifest of epoch {}", manifest.epoch));
    }
    for run in manifest.runs() {
        let path = run_path(&run.file);
        let bytes = machine.bytes(&path).ok_or_else(|| format!("{} is gone", path.display()))?;
        let read = match run.layout {
            RunLayout::Keyed => run_file::checked(run, &path, &bytes).map(drop),
            _ => run_file::decode(run, &path, &bytes).map(drop),
        };
        read.map_err(|error| error.to_string())?;
    }
    Ok(manifest)
}

/// What is wrong with a kept checkpoint that nobody has damaged on purpose.
pub fn unexpected(machine: &Machine, on_purpose: &[Damaged]) -> Option<String> {
    let paths = manifest_paths(machine);
    let newest =
        paths.iter().rev().take(KEPT).filter(|path| on_purpose.iter().all(|damaged| damaged.manifest != **path));
    newest.filter_map(|path| Some(format!("{}: {}", path.display(), read_whole(machine, path).err()?))).next()
}

/// A checkpoint that was damaged on purpose.
#[derive(Debug, Clone)]
pub struct Damaged {
    /// Whose.
    pub epoch: Epoch,
    /// Its manifest.
    pub manifest: PathBuf,
    /// The file whose bytes are not as written.
    pub file: PathBuf,
}

/// Damages the newest checkpoint, if it is whole and another one is, too.
pub fn damage_newest(machine: &Machine, rng: &mut Rng) -> Option<Damaged> {
    let paths = manifest_paths(machine);
    let whole: Vec<_> = paths.iter().filter_map(|path| Some((path, read_whole(machine, path).ok()?))).collect();
    let [.., (before, _), (path, newest)] = whole.as_slice() else { return None };
    if Some(*path) != paths.last() {
        return None;
    }
    let own_run =
        newest.runs().map(|run| run.file.clone()).find(|file| file.starts_with(&format!("{}-", newest.epoch)));
    let file = match own_run {
        Some(run) if rng.one_in(2) => run_path(&run),
        _ => (*path).clone(),
    };
    let bytes = machine.bytes(&file).unwrap();
    let damaged = match rng.below(4) {
        // A manifest that is gone is no damage that anybody could see.
        0 if file != **path => None,
        1 if file == **path => machine.bytes(before),
        2 => Some(bytes[..rng.below(bytes.len())].to_vec()),
        _ => Some(flipped(bytes, rng)),
    };
    machine.tamper(&file, damaged);
    Some(Damaged { epoch: newest.epoch, manifest: (*path).clone(), file })
}

fn flipped(mut bytes: Vec<u8>, rng: &mut Rng) -> Vec<u8> {
    let at = rng.below(bytes.len());
    bytes[at] ^= 1 << rng.below(8);
    bytes
}
