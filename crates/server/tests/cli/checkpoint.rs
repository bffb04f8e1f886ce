//! `ruslo checkpoint`: what it says of checkpoints that are whole, damaged, half deleted, or none.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::home::Home;
use crate::kill::Pipeline;

/// A window job with state, killed after some checkpoints.
pub(crate) fn killed() -> Home {
    let departures = Pipeline { name: "departures", output: "output", rounds: 0, rows_per_second: "5000" };
    let home = departures.home();
    let arguments = ["run", "departures.sql", "--checkpoint-dir", "c", "--checkpoint-interval", "100ms"];
    let slow = ["--parallelism", "2", "--set", "source.rows-per-second=5000", "--set", "execution.batch-rows=64"];
    let mut running = home.start(&[&arguments[..], &slow].concat());
    running.until_checkpoint(&home, 6);
    running.kill();
    home
}

pub(crate) fn runs(home: &Home) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(home.path("c/runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn json(home: &Home, arguments: &[&str], code: i32) -> Value {
    let answer = home.ruslo(&[arguments, &["--output", "json"]].concat()).expect(code);
    serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{error}: {}", answer.out))
}

/// The newest manifest's JSON, read without any code of ours.
fn newest(home: &Home) -> Value {
    let text = fs::read_to_string(home.manifests("c").pop().unwrap()).unwrap();
    serde_json::from_str(text.split_once('\n').unwrap().1).unwrap()
}

#[test]
fn listing_and_inspecting_say_what_the_manifests_say() {
    let home = killed();
    let manifest = newest(&home);
    let listed = json(&home, &["checkpoint", "list", "c"], 0);
    let all = listed["checkpoints"].as_array().unwrap();
    assert_eq!(all.len(), home.manifests("c").len());
    let last = all.last().unwrap();
    assert_eq!(
        (&last["epoch"], &last["run"], &last["state"]),
        (&manifest["epoch"], &manifest["run"], &"resumable".into())
    );
    let text = home.ruslo(&["checkpoint", "list", "c"]).expect(0).out;
    assert!(text.lines().next().unwrap().trim_start().starts_with("epoch"), "{text}");
    assert_eq!(text.lines().count(), all.len() + 1, "{text}");

    let inspected = json(&home, &["checkpoint", "inspect", "c"], 0);
    assert_eq!((&inspected["epoch"], &inspected["delivery"]), (&manifest["epoch"], &"exactly-once".into()));
    for operator in inspected["operators"].as_array().unwrap() {
        let stored = &manifest["operators"][operator["id"].as_str().unwrap()];
        assert_eq!(operator["name"], stored["name"]);
        let subtasks = stored["subtasks"].as_array().unwrap();
        for (shown, subtask) in operator["subtasks"].as_array().unwrap().iter().zip(subtasks) {
            assert_eq!(shown["counts"], subtask["counts"]);
            for table in shown["tables"].as_array().unwrap() {
                let runs = subtask["tables"][table["name"].as_str().unwrap()].as_array().unwrap();
                let rows: u64 = runs.iter().map(|run| run["rows"].as_u64().unwrap()).sum();
                assert_eq!(
                    (table["runs"].as_u64().unwrap(), table["rows"].as_u64().unwrap()),
                    (runs.len() as u64, rows)
                );
            }
        }
    }
    let text = home.ruslo(&["checkpoint", "inspect", "c"]).expect(0).out;
    for part in
        ["  delivery exactly-once\n", "operators\n", "tables\n", "input\n", "flights-2013-q1.csv.gz", "resumable"]
    {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let other = home.ruslo(&["checkpoint", "inspect", "c", "999"]).expect(2);
    assert!(other.error().starts_with("there is no checkpoint 999 in c; there are: "), "{}", other.err);
}

#[test]
fn verifying_names_file_and_offset_and_the_exit_code_says_it() {
    let home = killed();
    let whole = json(&home, &["checkpoint", "verify", "c"], 0);
    assert_eq!(whole["whole"].as_array().unwrap().len(), home.manifests("c").len());
    assert!(whole["runs"].as_u64().unwrap() > 0 && whole["damaged"].as_array().unwrap().is_empty());

    // A flipped bit in the last run that the newest manifest names.
    let text = newest(&home).to_string();
    let run = runs(&home).into_iter().rfind(|path| text.contains(path.file_name().unwrap().to_str().unwrap())).unwrap();
    let mut bytes = fs::read(&run).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&run, bytes).unwrap();
    let file = format!("c/runs/{}", run.file_name().unwrap().to_str().unwrap());
    let damaged = json(&home, &["checkpoint", "verify", "c"], 5);
    assert_eq!(damaged["damaged"][0]["file"], file.as_str());
    assert!(damaged["damaged"][0]["offset"].is_u64(), "{damaged}");
    let text = home.ruslo(&["checkpoint", "verify", "c"]).expect(5).out;
    assert!(text.starts_with(&format!("damaged  {file}: the checksum of bytes ")), "{text}");

    fs::remove_file(&run).unwrap();
    let listed = json(&home, &["checkpoint", "list", "c"], 0);
    let last = listed["checkpoints"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["state"], &last["problem"]), (&"damaged".into(), &format!("{file}: the file is missing").into()));
    home.ruslo(&["checkpoint", "verify", "c"]).expect(5);
}

#[test]
fn a_folder_without_checkpoints_is_told_apart_from_one_with() {
    let home = Home::new();
    home.write("other/letters.txt", "a");
    let error = |arguments: &[&str]| home.ruslo(arguments).expect(2).error().to_owned();
    assert_eq!(error(&["checkpoint", "list", "c"]), "c: no such folder");
    let expected = "other: this is no checkpoint folder: it has no 'manifests' in it";
    assert_eq!(error(&["checkpoint", "verify", "other"]), expected);
    assert!(!home.exists("c") && !home.exists("other/manifests"), "looking creates nothing");
}
