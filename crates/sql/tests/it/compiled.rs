//! The compiled plans that checkpoints store. `RUSLO_UPDATE_GOLDEN=1` rewrites the golden file: another text refuses the
//! checkpoints of running jobs, so think twice.

use std::path::Path;

use ruslo_core::plan::CompiledPlan;

use crate::world::{planned, planned_with};

const SCRIPTS: [&str; 9] = [
    "aggregates",
    "cascade",
    "cumulate",
    "hop_attached",
    "order_by",
    "session_group",
    "side_tables",
    "top_n",
    "union_unnest",
];

fn compiled(text: &str, settings: &[(&str, &str)]) -> CompiledPlan {
    planned_with("test.sql", text, settings).unwrap().compiled.unwrap()
}

#[test]
fn compiled_plans_are_a_persistent_format() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let texts = SCRIPTS.map(|name| {
        let script = std::fs::read_to_string(folder.join(format!("plans/{name}.sql"))).unwrap();
        format!("-- {name}\n{}\n", compiled(&script, &[]).lines.join("\n"))
    });
    let golden = folder.join("golden_compiled_v1.txt");
    if std::env::var_os("RUSLO_UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, texts.join("\n")).unwrap();
    }
    let expected = std::fs::read_to_string(golden).unwrap();
    for (expected, text) in expected.split("\n\n").zip(&texts) {
        assert_eq!(text.trim_end(), expected.trim_end());
    }
    assert_eq!(expected, texts.join("\n"));
}

#[test]
fn what_may_change_between_two_runs_is_not_in_it() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plans/top_n.sql")).unwrap();
    let one = compiled(&text, &[]);
    let settings = [("parallelism.default", "3"), ("parallelism.Filter", "1"), ("execution.batch-rows", "7")];
    assert_eq!(compiled(&text, &settings), one);
    let phases = |phases| compiled(&text, &[("table.optimizer.agg-phase-strategy", phases)]);
    assert_eq!((phases("ONE_PHASE"), phases("TWO_PHASE")), (one.clone(), one.clone()));
    let laid_out = text.replace("SELECT", "SELECT -- again\n");
    assert_eq!(compiled(&laid_out, &[]), one);
}

#[test]
fn a_query_without_state_has_nothing_to_compare() {
    assert!(planned("SELECT auction FROM bid WHERE price > 1").unwrap().compiled.unwrap().lines.is_empty());
    assert!(planned("").unwrap().compiled.is_none());
}
