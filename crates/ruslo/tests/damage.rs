//! Damaged checkpoints, many of them: real folders of jobs, one with windows, sessions and a Top-N and one with keyed tables,
//! are abandoned midway as a crash does, mutilated at random, and resumed.
//!
//! Either the job goes on from an older checkpoint that is whole, says so by the damaged file, and ends with exactly the
//! oracle's rows; or it stops as `Corrupt`, names a file of the folder, and has touched no output. It never panics, and
//! never answers wrongly.
//!
//! Five hundred damages run in CI. More, in slices that can be gone on with:
//! `RUSLO_DAMAGES_FROM=500 RUSLO_DAMAGES=1000 cargo test -p ruslo --test damage -- --nocapture`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]
#![allow(clippy::disallowed_methods, reason = "files of the test itself")]

#[path = "damage/gate.rs"]
mod gate;
#[path = "damage/job.rs"]
mod job;
#[path = "damage/keyed.rs"]
mod keyed;
#[path = "damage/mutation.rs"]
mod mutation;

use std::panic::AssertUnwindSafe;

use job::{Ended, World};
use mutation::Mutation;
use ruslo_core::rng::Rng;

/// How many damages one abandoned folder serves.
const PER_FOLDER: u64 = 25;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// What became of all of them.
#[derive(Debug, Default)]
struct Figures {
    untouched: u64,
    fell_back: u64,
    refused: u64,
}

#[test]
fn a_damaged_checkpoint_is_never_an_answer() {
    let (from, count) = (variable("RUSLO_DAMAGES_FROM", 0), variable("RUSLO_DAMAGES", 500));
    let mut figures = Figures::default();
    let mut world = None;
    for seed in from..from + count {
        let folder = seed / PER_FOLDER;
        if world.as_ref().is_none_or(|(of, _)| *of != folder) {
            world = Some((folder, World::abandoned(folder)));
        }
        let (_, world) = world.as_ref().unwrap();
        one(world, seed, &mut figures);
        if seed % 500 == 499 {
            println!("up to {seed}: {figures:?}");
        }
    }
    println!("{from}..{}: {figures:?}", from + count);
    if count >= 100 {
        let all = [figures.untouched, figures.fell_back, figures.refused];
        assert!(all.iter().all(|times| *times > count / 100), "each must be met: {figures:?}");
    }
}

fn one(world: &World, seed: u64, figures: &mut Figures) {
    let mut rng = Rng::seeded(seed ^ 0xda3a_6ed0);
    world.put_back();
    let mut mutations = Vec::new();
    for _ in 0..1 + rng.below(4) {
        mutations.extend(Mutation::apply(&world.checkpoints(), &mut rng));
    }
    let told = || format!("RUSLO_DAMAGES_FROM={seed} RUSLO_DAMAGES=1: {mutations:?}");
    let (before, is_whole) = (world.output(), world.newest_is_whole());
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| world.resume()));
    let ended = ended.unwrap_or_else(|_| panic!("it panicked; {}", told()));
    match ended {
        Ended::Finished { notices } => {
            let (found, expected) = (world.output(), &world.expected);
            let wrong: Vec<_> =
                found.iter().filter(|(row, times)| expected.get(*row) != Some(*times)).take(3).collect();
            let missing: Vec<_> = expected.keys().filter(|row| !found.contains_key(*row)).take(3).collect();
            assert!(wrong.is_empty() && missing.is_empty(), "wrong: {wrong:?}, missing: {missing:?}; {}", told());
            for notice in &notices {
                assert!(notice.contains("checkpoints/"), "a notice without its file: {notice}; {}", told());
            }
            assert_eq!(notices.is_empty(), is_whole, "{notices:?}; {}", told());
            *(if is_whole { &mut figures.untouched } else { &mut figures.fell_back }) += 1;
        }
        Ended::Refused { what, is_corrupt } => {
            assert!(is_corrupt, "not as damage: {what}; {}", told());
            assert!(what.contains("checkpoints/"), "no file in: {what}; {}", told());
            assert!(world.output() == before, "the output was touched; {}", told());
            figures.refused += 1;
        }
    }
}
