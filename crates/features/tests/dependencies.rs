//! Which crate may use which: the table of CONTRIBUTING.md, checked against `cargo metadata`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Each crate with the crates of ours that it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("ruslo-features", &[]),
    ("ruslo-core", &["ruslo-features"]),
    ("ruslo-state", &["ruslo-core"]),
    ("ruslo-operators", &["ruslo-core", "ruslo-state"]),
    ("ruslo-formats", &["ruslo-core"]),
    ("ruslo-connectors", &["ruslo-core", "ruslo-formats"]),
    ("ruslo-sql", &["ruslo-core", "ruslo-operators", "ruslo-formats"]),
    ("ruslo-runtime", &["ruslo-core", "ruslo-state"]),
    (
        "ruslo",
        &[
            "ruslo-core",
            "ruslo-state",
            "ruslo-operators",
            "ruslo-formats",
            "ruslo-connectors",
            "ruslo-sql",
            "ruslo-runtime",
        ],
    ),
    ("ruslo-server", &["ruslo"]),
    ("ruslo-sim", &["ruslo-core", "ruslo-state", "ruslo-operators", "ruslo-connectors", "ruslo-runtime"]),
];

/// The crates of ours that each crate of ours uses in its product code.
fn used() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_owned();
    let product = |dependency: &&serde_json::Value| dependency["kind"].is_null();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter().filter(product).map(name);
            (name(package), dependencies.filter(|name| name.starts_with("ruslo")).collect())
        })
        .collect()
}

#[test]
fn every_crate_uses_only_what_the_table_allows() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    for (package, uses) in used() {
        let may = allowed.get(package.as_str()).unwrap_or_else(|| panic!("{package} is not in the table"));
        for used in &uses {
            assert!(may.contains(&used.as_str()), "{package} may not use {used}");
        }
    }
    assert_eq!(used().len(), ALLOWED.len(), "the table names a crate that is gone");
}
