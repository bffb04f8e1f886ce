//! What is promised, proved on the real process: long runs, each of which can be cut into slices and gone on with.
//!
//! ```text
//! cargo test -p ruslo-server --test proofs                                             # a slice of each, as CI does
//! cargo test -p ruslo-server --test proofs -- kills --from 0 --count 200 --folder F    # 200 jobs, ten kills each
//! cargo test -p ruslo-server --test proofs -- soak --minutes 60 --folder F
//! cargo test -p ruslo-server --test proofs -- slow-sink --seconds 60
//! cargo test -p ruslo-server --test proofs -- recovery --mib 1024
//! ```
//!
//! With `--folder`, what has been done is written there, job by job; the same command goes on where it was, and the
//! figures are of all that the folder has. The word may be a part of a proof's name, as it is for other tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "files, processes and waiting are the tests' own")]

mod child;
mod dying_disk;
#[path = "../cli/home.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod home;
mod kills;
mod measure;
mod pipeline;
mod recovery;
mod rescale;
mod results;
mod slow_sink;
mod soak;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

/// `--name value` pairs.
struct Options(BTreeMap<String, String>);

impl Options {
    fn number(&self, name: &str, default: u64) -> u64 {
        self.0
            .get(name)
            .map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("--{name} {value}: no number")))
    }

    fn folder(&self) -> Option<PathBuf> {
        self.0.get("folder").map(PathBuf::from)
    }
}

type Proof = (&'static str, fn(&Options));

const PROOFS: [Proof; 5] = [
    ("kills", kills::run),
    ("rescale", rescale::run),
    ("slow-sink", slow_sink::run),
    ("recovery", recovery::run),
    ("soak", soak::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|word| word == child::WORD) {
        return child::run(&arguments[1..]);
    }
    let (filter, options) = parse(&arguments);
    let mut failed = 0;
    for (name, proof) in PROOFS.iter().filter(|(name, _)| filter.as_ref().is_none_or(|part| name.contains(part))) {
        println!("proof {name}");
        failed += u8::from(catch_unwind(AssertUnwindSafe(|| proof(&options))).is_err());
    }
    println!("proofs: {failed} failed");
    ExitCode::from(failed)
}

/// The word that chooses, and the options; what only the usual test harness knows is passed over.
fn parse(arguments: &[String]) -> (Option<String>, Options) {
    let (mut filter, mut options) = (None, BTreeMap::new());
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        match word.strip_prefix("--") {
            Some(name @ ("from" | "count" | "folder" | "minutes" | "seconds" | "mib" | "seed")) => {
                options.insert(name.to_owned(), rest.next().unwrap_or_else(|| panic!("{word}: what?")).clone());
            }
            Some(_) => {}
            None if word.starts_with('-') => {}
            None => filter = Some(word.clone()),
        }
    }
    (filter, Options(options))
}
