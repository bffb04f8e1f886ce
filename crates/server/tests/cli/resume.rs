//! Stopping and going on: Ctrl-C, SIGTERM, damaged checkpoints, another query, a second process.

use std::fs;

use crate::home::{COPY, Home, Running, numbers, sorted_numbers};

/// Slow enough to be caught in the middle.
const SLOW: [&str; 4] = ["--set", "source.rows-per-second=2000", "--set", "execution.batch-rows=50"];

const ROWS: u64 = 20_000;

fn home() -> Home {
    let home = Home::new();
    home.write("in.csv", numbers(ROWS));
    home.write("copy.sql", COPY);
    home
}

/// The numbers, printed.
fn select() -> String {
    COPY.split("CREATE TABLE copy").next().unwrap().to_owned() + "SELECT n FROM numbers"
}

fn arguments<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let all = ["run", "copy.sql", "--checkpoint-dir", "c", "--checkpoint-interval", "50ms", "--parallelism", "1"];
    all.iter().chain(more).copied().collect()
}

/// A slowed job, once it has made some checkpoints.
fn slow(home: &Home, more: &[&str]) -> Running {
    let mut running = home.start(&arguments(&[&SLOW, more].concat()));
    running.until_checkpoint(home, 4);
    running
}

#[test]
fn ctrl_c_stops_at_a_checkpoint_and_the_printed_command_goes_on() {
    let home = home();
    let running = slow(&home, &[]);
    running.signal("INT");
    let stopped = running.end().expect(130);
    assert!(stopped.err.contains("\nstopping at a checkpoint (Ctrl-C again to stop now)\n"), "{}", stopped.err);
    assert!(stopped.err.contains("\ncopy: stopped after "), "{}", stopped.err);
    let committed = home.rows("out").len() as u64;
    assert!(committed > 0 && committed < ROWS, "{committed}");

    let command = stopped.err.lines().last().unwrap().strip_prefix("to go on: ").unwrap();
    assert!(command.ends_with("--resume") && command.contains("--set source.rows-per-second=2000"), "{command}");
    let faster = command.replace("source.rows-per-second=2000", "source.rows-per-second=1000000");
    let resumed = home.shell(&faster).expect(0);
    assert!(resumed.err.contains(", resumed from checkpoint "), "{}", resumed.err);
    assert!(resumed.err.ends_with(": 20,000 rows in, 20,000 rows out\n"), "{}", resumed.err);
    assert_eq!(home.rows("out"), sorted_numbers(ROWS));
}

#[test]
fn sigterm_stops_at_a_checkpoint_too() {
    let home = home();
    let running = slow(&home, &["--output", "json"]);
    running.signal("TERM");
    let stopped = running.end().expect(130);
    let summary = stopped.summary();
    assert_eq!(summary["state"], "stopped");
    assert_eq!(summary["checkpoint"], home.newest_epoch("c"));
    assert_eq!(summary["rows_out"], home.rows("out").len());
}

#[test]
fn ctrl_c_twice_stops_now() {
    let home = home();
    home.write("in.csv", numbers(200_000));
    home.write("copy.sql", select());
    // The pipe is full before long, so the sink waits, and no checkpoint can come.
    let mut running = home.start_unread(&arguments(&[]));
    running.until_it_says("a checkpoint every");
    running.signal("INT");
    running.until_it_says("stopping at a checkpoint (Ctrl-C again to stop now)");
    running.signal("INT");
    let stopped = running.end().expect(130);
    assert!(stopped.err.ends_with("stopped without a checkpoint; nothing that was committed is lost\n"));
}

#[test]
fn ctrl_c_in_quick_succession_loses_nothing() {
    let home = home();
    let running = slow(&home, &[]);
    running.signal("INT");
    running.signal("TERM");
    running.end().expect(130);
    home.ruslo(&arguments(&["--resume"])).expect(0);
    assert_eq!(home.rows("out"), sorted_numbers(ROWS));
}

#[test]
fn an_interrupted_run_is_neither_forgotten_nor_resumed_unasked() {
    let home = home();
    slow(&home, &[]).kill();
    let epoch = home.newest_epoch("c");
    let refused = home.ruslo(&arguments(&[])).expect(2);
    let expected =
        format!("checkpoint {epoch} of an interrupted run is in c; say --resume to go on or --fresh to start over");
    assert_eq!(refused.error(), expected);
    let committed = home.rows("out").len();
    home.ruslo(&arguments(&["--fresh"])).expect(0);
    assert!(home.newest_epoch("c") > epoch, "epochs go on");
    assert_eq!(home.rows("out").len(), ROWS as usize + committed);
    let hidden = fs::read_dir(home.path("out")).unwrap().map(|entry| entry.unwrap().file_name());
    let hidden: Vec<_> = hidden.filter(|name| name.to_str().unwrap().starts_with('.')).collect();
    assert!(hidden.is_empty(), "what the killed run had not committed is gone: {hidden:?}");
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_used() {
    let home = home();
    slow(&home, &[]).kill();
    let manifests = home.manifests("c");
    let damaged = manifests.last().unwrap();
    let name = damaged.file_name().unwrap().to_str().unwrap().to_owned();
    let mut bytes = fs::read(damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x01;
    fs::write(damaged, bytes).unwrap();

    let resumed = home.ruslo(&arguments(&["--resume"])).expect(0);
    let warning = resumed.err.lines().next().unwrap();
    assert!(warning.starts_with(&format!("warning: c/manifests/{name}: ")), "{warning}");
    let before = home_epoch(&manifests[manifests.len() - 2]);
    assert!(warning.ends_with(&format!("; going on from checkpoint {before}")), "{warning}");
    assert_eq!(home.rows("out"), sorted_numbers(ROWS), "nothing lost, nothing twice");
}

fn home_epoch(manifest: &std::path::Path) -> u64 {
    manifest.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}

#[test]
fn where_every_checkpoint_is_damaged_nothing_is_guessed() {
    let home = home();
    slow(&home, &[]).kill();
    for manifest in home.manifests("c") {
        fs::write(manifest, "{}").unwrap();
    }
    let answer = home.ruslo(&arguments(&["--resume"])).expect(5);
    let expected = "no checkpoint here is whole; bring the damaged file back from a copy, or start over with --fresh; the \
                    newest: c/manifests/";
    assert!(answer.error().starts_with(expected), "{}", answer.err);
}

#[test]
fn another_query_does_not_resume() {
    let home = home();
    slow(&home, &[]).kill();
    home.write("copy.sql", COPY.replace("SELECT n FROM", "SELECT n + 1 FROM"));
    let refused = home.ruslo(&arguments(&["--resume"])).expect(2);
    assert_eq!(
        refused.error(),
        "the checkpoints in c are of another query or other options; resume with what they were made with, or start \
         over with --fresh"
    );
}

#[test]
fn two_processes_do_not_share_checkpoints() {
    let home = home();
    let running = slow(&home, &[]);
    for more in [&["--resume"][..], &["--fresh"], &[]] {
        let refused = home.ruslo(&arguments(more)).expect(6);
        assert_eq!(
            refused.error(),
            "another process is running on the checkpoints in c; stop it first, or give this one another \
             --checkpoint-dir"
        );
    }
    running.signal("INT");
    running.end().expect(130);
    home.ruslo(&arguments(&["--resume"])).expect(0);
    assert_eq!(home.rows("out"), sorted_numbers(ROWS));
}

#[test]
fn rows_that_were_printed_may_come_again_and_that_is_said() {
    let home = home();
    home.write("copy.sql", select());
    slow(&home, &[]).kill();
    let resumed = home.ruslo(&arguments(&["--resume"])).expect(0);
    let warning = resumed.err.lines().next().unwrap();
    assert!(warning.starts_with("warning: the sink is at-least-once: rows that it gave out after checkpoint "));
}
