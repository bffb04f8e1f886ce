//! What the fuzzers have found and what they began with, replayed: `fuzz/corpus` against `fuzz/properties`.

#![allow(unreachable_pub, reason = "the fuzzers use the same files")]

#[path = "../../../../fuzz/properties/blocks.rs"]
mod blocks;
#[path = "../../../../fuzz/properties/lines.rs"]
mod lines;
#[path = "../../../../fuzz/properties/manifest.rs"]
mod manifest;
#[path = "../../../../fuzz/properties/run.rs"]
mod run;
#[path = "../../../../fuzz/properties/sql.rs"]
mod sql;

use std::path::Path;

/// Its name, and what must hold for any input.
type Target = (&'static str, fn(&[u8]));

/// Checks `holds` on every file of a target's corpus.
fn replay(target: &str, holds: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        let held = std::panic::catch_unwind(|| holds(&input));
        assert!(held.is_ok(), "{}", path.display());
        replayed += 1;
    }
    assert!(replayed > 0, "the corpus of '{target}' is empty");
}

#[test]
fn the_fuzzers_inputs_hold() {
    let targets: [Target; 7] = [
        ("avro", blocks::avro),
        ("csv", lines::csv),
        ("json", lines::json),
        ("manifest", manifest::holds),
        ("parquet", blocks::parquet),
        ("run", run::holds),
        ("sql", sql::holds),
    ];
    for (target, holds) in targets {
        replay(target, holds);
    }
}
