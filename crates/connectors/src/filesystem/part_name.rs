//! Names of part files: how they sort, and how leftovers are known.
//!
//! A finished part is `part-<run>-<subtask>-<epoch>.<format>`; further ones of the same epoch have `_<number>` behind the
//! epoch. While it is written it is
//! `.part-<run>-<subtask>-after-<epoch>-<try>.tmp`, after the last epoch that its writer prepared: the writer does not
//! know which epoch comes. Numbers have leading zeros, so that names sort as the rows came. Both are read from the
//! right, because a run's name may contain anything that [`check_run`] lets through, dashes too.

use ruslo_core::epoch::Epoch;
use ruslo_core::error::{Error, Result};

const PREFIX: &str = "part-";
const SUFFIX: &str = ".tmp";

/// Checks that a run's name can stand in a file's name.
pub(super) fn check_run(run: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !run.is_empty() && run.len() <= 128 && run.chars().all(fits) {
        true => Ok(()),
        false => Err(Error::internal(format!("the run's name '{run}' cannot stand in a file's name"))),
    }
}

/// The name of a finished part, the `number`th of its epoch, from 0.
pub(super) fn finished(run: &str, subtask: usize, epoch: Epoch, number: usize, extension: &str) -> String {
    match number {
        0 => format!("{PREFIX}{run}-{subtask:03}-{:08}.{extension}", epoch.0),
        _ => format!("{PREFIX}{run}-{subtask:03}-{:08}_{number:04}.{extension}", epoch.0),
    }
}

/// The name of a part being written.
pub(super) fn unfinished(run: &str, subtask: usize, after: Epoch, attempt: usize) -> String {
    format!(".{PREFIX}{run}-{subtask:03}-after-{:08}-{attempt}{SUFFIX}", after.0)
}

/// Whether `name` is a part that `run` began to write.
pub(super) fn is_unfinished_of(name: &str, run: &str) -> bool {
    let parts = || {
        let stem = name.strip_prefix('.')?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let mut parts = stem.rsplitn(5, '-');
        let numbers = [parts.next()?, parts.next()?];
        let after = parts.next()?;
        let subtask = parts.next()?;
        Some((parts.next()?, [subtask, numbers[0], numbers[1]], after))
    };
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    parts().is_some_and(|(of, numbers, after)| of == run && after == "after" && numbers.iter().all(is_number))
}

/// The epoch of a finished part of `run`; `None` for every other name.
pub(super) fn epoch_of_finished(name: &str, run: &str) -> Option<Epoch> {
    let numbers = name.strip_prefix(PREFIX)?.strip_prefix(run)?.strip_prefix('-')?;
    let (subtask, rest) = numbers.split_once('-')?;
    let (epoch, _extension) = rest.split_once('.')?;
    let epoch = epoch.split_once('_').map_or(epoch, |(epoch, _number)| epoch);
    subtask.parse::<u32>().ok()?;
    epoch.parse().ok().map(Epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_subtask_and_epoch() {
        let places = [(0, 2, 0), (0, 2, 1), (0, 2, 10), (0, 10, 0), (1, 1, 0), (10, 1, 0)];
        let names = places.map(|(subtask, epoch, number)| finished("r", subtask, Epoch(epoch), number, "json"));
        assert_eq!(names[0], "part-r-000-00000002.json");
        assert!(names.is_sorted());
    }

    #[test]
    fn leftovers_are_known_by_their_run() {
        let name = unfinished("a-1", 7, Epoch(3), 0);
        assert_eq!(name, ".part-a-1-007-after-00000003-0.tmp");
        let cases = [
            (name.as_str(), "a-1", true),
            (name.as_str(), "a", false),
            (name.as_str(), "1", false),
            (".part-a-1-007-after-3-x.tmp", "a-1", false),
            (".part-a-1-007-before-3-0.tmp", "a-1", false),
            (".part-a-1-007-after-3-0", "a-1", false),
            ("part-a-1-007-00000003.json", "a-1", false),
            (".tmp", "a-1", false),
        ];
        for (name, run, expected) in cases {
            assert_eq!(is_unfinished_of(name, run), expected, "{name} of {run}");
        }
        let nested = unfinished("a-007-after-3", 7, Epoch(3), 0);
        assert!(!is_unfinished_of(&nested, "a") && is_unfinished_of(&nested, "a-007-after-3"));
    }

    #[test]
    fn finished_parts_tell_their_epoch_to_their_own_run_only() {
        let name = finished("a-1", 7, Epoch(3), 12, "json.gz");
        assert_eq!(name, "part-a-1-007-00000003_0012.json.gz");
        assert_eq!(epoch_of_finished(&name, "a-1"), Some(Epoch(3)));
        let name = finished("a-1", 7, Epoch(3), 0, "json");
        assert_eq!(epoch_of_finished(&name, "a-1"), Some(Epoch(3)));
        assert_eq!(epoch_of_finished(&name, "a"), None, "'1' would be the subtask and '007-00000003' no epoch");
        assert_eq!(epoch_of_finished(&unfinished("a-1", 7, Epoch(3), 0), "a-1"), None);
        assert_eq!(epoch_of_finished("part-a-1-007-x.json", "a-1"), None);
    }

    #[test]
    fn a_run_cannot_leave_the_folder() {
        assert!(check_run("2f-a_B").is_ok());
        for run in ["", "../x", "a b", "a/b", "ä", &"x".repeat(200)] {
            assert!(check_run(run).is_err(), "{run}");
        }
    }
}
