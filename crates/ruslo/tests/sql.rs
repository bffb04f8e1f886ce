//! SQL tests as files: input, SQL, expected rows, in `tests/sql` and its folders, and the SQL in `docs/sql/*.md`.
//!
//! Every file is run many times, and must give the same rows and the same count of late rows every time:
//!
//! - at parallelism 1, 2 and 3, with batches of 1, 7 and the default number of rows (with 1, edges of one row too;
//!   with 7, window aggregates in two phases);
//! - each plain; stopped at a checkpoint midway and restored, at the same and at another parallelism, once and twice;
//!   and abandoned midway without a last checkpoint (as a crash does) and restored from the newest there is;
//! - once on threads;
//! - in batch mode, at two parallelisms, unless rows come late or the file says that only a stream has this answer.
//!
//! A file whose SQL is wrong or whose input is bad expects an error instead, the same one in every plain run.
//!
//! All orders follow from a seed. A failure prints the line that repeats it:
//! `RUSLO_SQL_TEST=late RUSLO_SQL_SEED=1 cargo test -p ruslo --test sql`. The format of the files is told in
//! `sql/case.rs`; `sql/expect.py` recomputes their expected rows with DuckDB.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "files and threads of the test itself")]

#[path = "sql/case.rs"]
mod case;
#[path = "sql/directory.rs"]
mod directory;
#[path = "sql/docs.rs"]
mod docs;
#[path = "flink/mod.rs"]
mod flink;
#[path = "sql/function_list.rs"]
mod function_list;
#[path = "fuzz/mod.rs"]
mod fuzz;
#[path = "generated/mod.rs"]
mod generated;
#[path = "sql/modes.rs"]
mod modes;
#[path = "sql/output.rs"]
mod output;
#[path = "sql/poison.rs"]
mod poison;
#[path = "sql/world.rs"]
mod world;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::Case;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql")
}

/// The files to run: all, or the one that `RUSLO_SQL_TEST` names, or those whose names begin as it says, before a `*`.
fn files() -> Vec<PathBuf> {
    let wanted = std::env::var("RUSLO_SQL_TEST").ok();
    let (mut folders, mut tests) = (vec![folder()], Vec::new());
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|extension| extension == "test") => tests.push(path),
                false => {}
            }
        }
    }
    let mut files: Vec<_> = tests
        .into_iter()
        .filter(|path| {
            wanted.as_deref().is_none_or(|wanted| path.file_stem().is_some_and(|stem| is_wanted(stem, wanted)))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no test file of that name: {wanted:?}");
    files
}

fn is_wanted(stem: &std::ffi::OsStr, wanted: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(beginning) => stem.to_str().is_some_and(|stem| stem.starts_with(beginning)),
        None => stem == wanted,
    }
}

#[test]
fn every_file_gives_its_rows_in_every_way_of_running_it() {
    let seed = std::env::var("RUSLO_SQL_SEED").ok().map_or(1, |seed| seed.parse().expect("RUSLO_SQL_SEED is a number"));
    let files = files();
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let (runs, slowest) = (AtomicUsize::new(0), Mutex::new((std::time::Duration::ZERO, String::new())));
    let work = || {
        while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begun = std::time::Instant::now();
            let case = Case::read(path);
            let (count, wrong) = modes::check(&case, seed);
            runs.fetch_add(count, Ordering::Relaxed);
            failures.lock().unwrap().extend(wrong);
            let mut slowest = slowest.lock().unwrap();
            *slowest = slowest.clone().max((begun.elapsed(), case.name));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap();
    println!("{} files, {} runs; slowest {:?}", files.len(), runs.into_inner(), slowest.into_inner().unwrap());
    assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn generated_queries_have_the_oracles_rows() {
    let failures = generated::check();
    assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn generated_queries_over_changing_tables_have_the_oracles_rows() {
    let failures = generated::changing::check();
    assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn no_record_is_lost_among_bad_and_late_ones() {
    let failures = poison::check(1..3);
    assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn the_sql_in_the_documentation_runs() {
    let failures = docs::check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sql"));
    assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), failures.join("\n\n"));
}

#[test]
fn every_function_is_documented_with_an_example_that_is_right() {
    let failures = function_list::check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sql"));
    assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn flinks_own_results_are_ours() {
    let failures = flink::check();
    assert!(failures.is_empty(), "{} failures\n\n{}", failures.len(), failures.join("\n"));
}
