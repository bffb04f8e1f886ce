//! Golden plans: each `plans/*.sql` has its EXPLAIN in `plans/*.plan`. `RUSLO_UPDATE_GOLDEN=1` rewrites them.

use std::path::{Path, PathBuf};

use crate::world::planned_with;

fn scripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans");
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    scripts.sort();
    scripts
}

#[test]
fn plans_are_as_reviewed() {
    let update = std::env::var_os("RUSLO_UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for script in scripts() {
        let name = script.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&script).unwrap();
        let planned = planned_with(&name, &text, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        if planned.batch.is_none() {
            planned.graph.validate().unwrap();
        }
        let golden = script.with_extension("plan");
        if update {
            std::fs::write(&golden, &planned.explain).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != planned.explain {
            wrong.push(format!("{name} now has the plan\n{}", planned.explain));
        }
    }
    assert!(wrong.is_empty(), "{}\nRUSLO_UPDATE_GOLDEN=1 rewrites the golden files", wrong.join("\n"));
}

#[test]
fn there_are_plans() {
    assert!(scripts().len() >= 10);
}
