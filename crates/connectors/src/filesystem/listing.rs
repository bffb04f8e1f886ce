//! From a table's `path` to its files: one file, all files of a folder and below, or those that a glob matches.
//!
//! A path that exists is taken as it is, whatever characters it has; only then is it a glob. Names that begin with `.`
//! or `_` are skipped in folders and by wildcards: they are other programs' work in progress, our sink's too.

use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use ruslo_core::disk::{Disk, FileKind};
use ruslo_core::error::{Error, Result};

/// How deep folders are followed; deeper is a link that points at its own folder, which systems follow 40 times.
const DEPTH_MAX: usize = 32;

/// How many letters a name may differ from an existing one to be suggested.
const NEAR_EDITS_MAX: usize = 3;

const GLOB: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// A file of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundFile {
    pub(super) path: PathBuf,
    /// In bytes.
    pub(super) size: u64,
}

/// All files that `path` stands for, sorted by path.
///
/// # Errors
/// `Usage`, if there is nothing at `path` or the glob matches no file.
pub(super) fn files(disk: &dyn Disk, path: &str) -> Result<Vec<FoundFile>> {
    let found = files_by_now(disk, path)?;
    if found.is_empty() && disk.kind(Path::new(path))?.is_none() {
        return Err(Error::usage(format!("{path}: no file matches")));
    }
    Ok(found)
}

/// The same, but a glob may match no file yet.
pub(super) fn files_by_now(disk: &dyn Disk, path: &str) -> Result<Vec<FoundFile>> {
    let mut found = Vec::new();
    match disk.kind(Path::new(path))? {
        Some(kind) => collect(disk, PathBuf::from(path), kind, 0, &mut found)?,
        None if is_glob(path) => expand(disk, path, &mut found)?,
        None => return Err(missing(disk, Path::new(path))),
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found.dedup();
    Ok(found)
}

fn is_glob(path: &str) -> bool {
    path.contains(['*', '?', '['])
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".") || is_underscored(name))
}

fn is_underscored(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"_")
}

/// Adds the file at `path`, or the files below it.
fn collect(disk: &dyn Disk, path: PathBuf, kind: FileKind, depth: usize, found: &mut Vec<FoundFile>) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(Error::usage(format!("{}: folders are nested more than {DEPTH_MAX} deep", path.display())));
    }
    let size = match kind {
        FileKind::File(size) => size,
        FileKind::Folder => {
            for entry in disk.list(&path)?.into_iter().filter(|entry| !is_hidden(entry)) {
                if let Some(kind) = disk.kind(&entry)? {
                    collect(disk, entry, kind, depth.saturating_add(1), found)?;
                }
            }
            return Ok(());
        }
    };
    found.push(FoundFile { path, size });
    Ok(())
}

/// Adds what the glob `path` matches, following its components from the left.
fn expand(disk: &dyn Disk, path: &str, found: &mut Vec<FoundFile>) -> Result<()> {
    let root = if path.starts_with('/') { PathBuf::from("/") } else { PathBuf::new() };
    let mut matched = vec![root];
    for component in path.split('/').filter(|component| !component.is_empty()) {
        let mut next = Vec::new();
        for folder in matched {
            step(disk, folder, component, path, &mut next)?;
        }
        next.sort();
        next.dedup();
        matched = next;
    }
    for path in matched {
        if let Some(kind) = disk.kind(&path)? {
            collect(disk, path, kind, 0, found)?;
        }
    }
    Ok(())
}

/// Adds what one component of a glob matches in `folder`.
fn step(disk: &dyn Disk, folder: PathBuf, component: &str, glob: &str, next: &mut Vec<PathBuf>) -> Result<()> {
    if component == "**" {
        return descend(disk, folder, 0, next);
    }
    if !is_glob(component) {
        next.push(folder.join(component));
        return Ok(());
    }
    let pattern = Pattern::new(component).map_err(|e| Error::usage(format!("{glob}: not a glob: {}", e.msg)))?;
    for entry in entries(disk, &folder)? {
        let matches =
            |name: &str| pattern.matches_with(name, GLOB) && (!name.starts_with('_') || component.starts_with('_'));
        if entry.file_name().and_then(|name| name.to_str()).is_some_and(matches) {
            next.push(entry);
        }
    }
    Ok(())
}

/// `**`: the folder itself and all folders below it.
fn descend(disk: &dyn Disk, folder: PathBuf, depth: usize, next: &mut Vec<PathBuf>) -> Result<()> {
    if depth < DEPTH_MAX {
        for entry in entries(disk, &folder)?.into_iter().filter(|entry| !is_hidden(entry)) {
            if disk.kind(&entry)? == Some(FileKind::Folder) {
                descend(disk, entry, depth.saturating_add(1), next)?;
            }
        }
    }
    next.push(folder);
    Ok(())
}

/// The paths in a folder; none, if it is no folder. The empty path is the working directory.
fn entries(disk: &dyn Disk, folder: &Path) -> Result<Vec<PathBuf>> {
    if folder.as_os_str().is_empty() {
        let here = disk.list(Path::new("."))?;
        return Ok(here.into_iter().filter_map(|path| path.file_name().map(PathBuf::from)).collect());
    }
    match disk.kind(folder)? {
        Some(FileKind::Folder) => disk.list(folder),
        _ => Ok(Vec::new()),
    }
}

/// The error of a path that does not exist, with the name that was probably meant.
fn missing(disk: &dyn Disk, path: &Path) -> Error {
    let sentence = format!("{}: no such file or folder", path.display());
    match near_name(disk, path) {
        Some(near) => Error::usage(format!("{sentence}; did you mean '{near}'?")),
        None => Error::usage(sentence),
    }
}

fn near_name(disk: &dyn Disk, path: &Path) -> Option<String> {
    let wanted = path.file_name()?.to_str()?;
    let entries = entries(disk, path.parent()?).ok()?;
    let names = entries.iter().filter_map(|entry| entry.file_name()?.to_str());
    let near = names.map(|name| (strsim::damerau_levenshtein(wanted, name), name));
    // A name with another suffix is near as well: 'flights.csv' for 'flights.csv.gz'.
    let (_, name) = near
        .filter(|(edits, name)| *edits <= NEAR_EDITS_MAX.min(wanted.chars().count() / 2) || name.starts_with(wanted))
        .min()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use ruslo_core::disk::LocalDisk;
    use ruslo_core::error::ErrorKind;

    use super::*;

    /// A folder with files of one byte each under these names.
    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let path = folder.path().join(name);
            LocalDisk.create_folder(path.parent().unwrap()).unwrap();
            LocalDisk.write_synced(&path, b"x").unwrap();
        }
        folder
    }

    /// What `path` below the folder stands for, relative to the folder.
    fn listed(folder: &tempfile::TempDir, path: &str) -> Result<Vec<String>> {
        let files = files(&LocalDisk, folder.path().join(path).to_str().unwrap())?;
        let relative = |file: &FoundFile| file.path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
        Ok(files.iter().map(relative).collect())
    }

    #[test]
    fn a_path_is_a_file_a_folder_or_a_glob() {
        let names =
            ["b.csv", "a.csv", "c.json", ".hidden.csv", "_SUCCESS", "day=1/d.csv", "day=2/e.csv", "day=2/_tmp/f.csv"];
        let folder = folder(&names);
        let cases: [(&str, &[&str]); 10] = [
            ("a.csv", &["a.csv"]),
            (".hidden.csv", &[".hidden.csv"]),
            ("", &["a.csv", "b.csv", "c.json", "day=1/d.csv", "day=2/e.csv"]),
            ("day=2", &["day=2/e.csv"]),
            ("*.csv", &["a.csv", "b.csv"]),
            ("[ab].*", &["a.csv", "b.csv"]),
            ("?.json", &["c.json"]),
            ("day=*/*.csv", &["day=1/d.csv", "day=2/e.csv"]),
            ("day=*", &["day=1/d.csv", "day=2/e.csv"]),
            ("**/*.csv", &["a.csv", "b.csv", "day=1/d.csv", "day=2/e.csv"]),
        ];
        for (path, expected) in cases {
            assert_eq!(listed(&folder, path).unwrap(), expected, "{path:?}");
        }
    }

    #[test]
    fn a_name_with_wildcards_that_exists_is_that_file() {
        let folder = folder(&["a[1].csv", "a1.csv"]);
        assert_eq!(listed(&folder, "a[1].csv").unwrap(), ["a[1].csv"]);
    }

    #[test]
    fn what_is_missing_is_named_with_what_was_meant() {
        let folder = folder(&["flights.csv", "weather.csv.gz", "x"]);
        let cases = [
            ("fligths.csv", "fligths.csv: no such file or folder; did you mean 'flights.csv'?"),
            ("weather.csv", "weather.csv: no such file or folder; did you mean 'weather.csv.gz'?"),
            ("planes", "planes: no such file or folder"),
            ("y", "y: no such file or folder"),
            ("no/where.csv", "no/where.csv: no such file or folder"),
            ("*.tsv", "*.tsv: no file matches"),
            ("no/*.csv", "no/*.csv: no file matches"),
        ];
        for (path, sentence) in cases {
            let error = listed(&folder, path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{path}");
            assert!(error.to_string().ends_with(sentence), "{error}");
        }
        assert!(listed(&folder, "[a*").unwrap_err().to_string().contains("not a glob"));
    }

    #[test]
    fn an_empty_folder_has_no_files_and_that_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(files(&LocalDisk, folder.path().to_str().unwrap()).unwrap(), []);
    }

    #[cfg(unix)]
    #[test]
    #[allow(clippy::disallowed_methods, reason = "the seam makes no links")]
    fn a_folder_that_holds_itself_is_an_error() {
        let folder = folder(&["a.csv"]);
        std::os::unix::fs::symlink(folder.path(), folder.path().join("loop")).unwrap();
        let error = listed(&folder, "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
    }
}
