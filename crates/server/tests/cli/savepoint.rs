//! `ruslo savepoint` and `ruslo stop`: asking a job that runs, over its checkpoint folder and over HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use serde_json::Value;

use crate::home::{COPY, Home, Running, numbers, sorted_numbers, until};
use crate::http::address_of;

const ROWS: u64 = 20_000;

const RUN: [&str; 10] = [
    "run",
    "job.sql",
    "--checkpoint-dir",
    "c",
    "--checkpoint-interval",
    "50ms",
    "--set",
    "execution.batch-rows=50",
    "--output",
    "json",
];

/// Slow enough to be caught in the middle.
const SLOW: [&str; 4] = ["--set", "source.rows-per-second=2000", "--parallelism", "2"];

fn home() -> Home {
    let home = Home::new();
    home.write("in.csv", numbers(ROWS));
    home.write("job.sql", COPY);
    home
}

fn started(home: &Home, more: &[&str]) -> Running {
    let mut running = home.start(&[&RUN, SLOW.as_slice(), more].concat());
    running.until_checkpoint(home, 4);
    running
}

/// Every file below `folder` with its bytes.
pub(crate) fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(inner) = open.pop() {
        for entry in std::fs::read_dir(&inner).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_job_makes_a_savepoint_and_goes_on() {
    let home = home();
    let running = started(&home, &[]);
    let made = home.ruslo(&["savepoint", "c", "sp"]).expect(0);
    assert!(made.out.starts_with("savepoint of checkpoint ") && made.out.contains("/sp ("), "{}", made.out);
    let manifests = home.manifests("sp");
    assert_eq!(manifests.len(), 1);
    let text = std::fs::read_to_string(&manifests[0]).unwrap();
    assert!(text.contains("\"savepoint\": {\n    \"job\": \"job\"\n  }"), "{text}");
    assert!(!text.contains(home.path("c").to_str().unwrap()), "no path of the checkpoint folder");
    let made = home.ruslo(&["savepoint", "c", "sp2", "--output", "json"]).expect(0);
    assert_eq!(made.summary()["state"], "running");
    until("rows after it", || home.rows("out").len() > 1_000);
    let stopped = home.ruslo(&["stop", "c"]).expect(0);
    assert!(stopped.out.starts_with("the job has stopped at checkpoint "), "{}", stopped.out);
    let ended = running.end().expect(130);
    assert_eq!(ended.summary()["state"], "stopped");
    assert!(!home.exists("c/control.sock"));
    let resumed = home.ruslo(&[RUN.as_slice(), &["--resume"]].concat()).expect(0);
    assert_eq!(resumed.summary()["rows_out"], ROWS);
    assert_eq!(home.rows("out"), sorted_numbers(ROWS));
}

#[test]
fn a_stop_with_a_savepoint_is_where_the_output_ends() {
    let home = home();
    let running = started(&home, &[]);
    let stopped = home.ruslo(&["stop", "c", "--savepoint", "sp", "--output", "json"]).expect(0);
    let (answer, ended) = (stopped.summary(), running.end().expect(130).summary());
    assert_eq!((&answer["state"], &answer["checkpoint"]), (&Value::from("stopped"), &ended["checkpoint"]));
    assert_eq!(ended["rows_out"], home.rows("out").len());
    assert_eq!(home.manifests("sp").len(), 1);
    assert!(!home.exists("sp/claim") && !home.exists("sp/lock"));
}

/// One window holds all rows: it fires only if the input has ended, or the job is drained.
const WINDOW: &str = "\
CREATE TABLE numbers (n BIGINT, t AS TO_TIMESTAMP_LTZ(n, 3), WATERMARK FOR t AS t)
WITH ('connector' = 'filesystem', 'path' = 'in.csv', 'format' = 'csv');
CREATE TABLE counts (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');
INSERT INTO counts SELECT COUNT(*) FROM TABLE(TUMBLE(TABLE numbers, DESCRIPTOR(t), INTERVAL '1' HOUR))
GROUP BY window_start, window_end;
";

#[test]
fn a_stop_keeps_windows_and_a_drain_fires_them() {
    let home = home();
    home.write("job.sql", WINDOW);
    let running = started(&home, &[]);
    home.ruslo(&["stop", "c"]).expect(0);
    let stopped = running.end().expect(130).summary();
    assert!(home.rows("out").is_empty());
    let mut running = home.start(&[&RUN, SLOW.as_slice(), &["--resume"]].concat());
    running.until_checkpoint(&home, home.newest_epoch("c") + 3);
    let drained = home.ruslo(&["stop", "c", "--drain", "--savepoint", "sp"]).expect(0);
    assert!(drained.out.ends_with("the job has finished\n"), "{}", drained.out);
    let ended = running.end().expect(0).summary();
    assert_eq!(ended["state"], "finished");
    let read = ended["rows_in"].as_u64().unwrap();
    assert!(read >= stopped["rows_in"].as_u64().unwrap() && read < ROWS, "{read}");
    assert_eq!(home.rows("out"), [read.to_string()]);
    let again = home.ruslo(&[RUN.as_slice(), &["--resume"]].concat()).expect(0);
    assert!(again.err.contains("already finished"), "{}", again.err);
    let savepoint = std::fs::read_to_string(&home.manifests("sp")[0]).unwrap();
    assert!(savepoint.contains("slices"), "it is of before the windows fired");
}

#[test]
fn what_cannot_be_is_told() {
    let home = home();
    let refused = home.ruslo(&["savepoint", "nowhere", "sp"]).expect(2);
    assert!(refused.error().starts_with("nowhere: no such folder"), "{}", refused.err);
    std::fs::create_dir(home.path("empty")).unwrap();
    let refused = home.ruslo(&["stop", "empty"]).expect(2);
    assert!(refused.error().starts_with("no job is running on empty; start it with --resume"), "{}", refused.err);
    let refused = home.ruslo(&["stop", "s3://bucket/c"]).expect(2);
    assert!(refused.error().contains("is asked over HTTP"), "{}", refused.err);

    let running = started(&home, &[]);
    home.write("full/file", "x");
    let refused = home.ruslo(&["savepoint", "c", "full"]).expect(2);
    assert!(refused.error().ends_with("a savepoint is made in a new folder or an empty one"), "{}", refused.err);
    let refused = home.ruslo(&["stop", "c", "--savepoint", "full/file"]).expect(2);
    assert!(refused.error().contains("this is a file"), "{}", refused.err);
    assert_eq!(files(&home.path("full")), [("file".to_owned(), b"x".to_vec())]);
    running.kill();
    let refused = home.ruslo(&["savepoint", "c", "sp"]).expect(2);
    assert!(refused.error().starts_with("no job is running on c;"), "its socket is a dead one: {}", refused.err);

    let running = home.start(&[&RUN, SLOW.as_slice(), &["--resume"]].concat());
    until("the socket of the new process", || home.ruslo(&["stop", "c"]).code == Some(0));
    running.end().expect(130);
}

#[test]
fn a_long_path_is_no_obstacle() {
    let home = home();
    let folder = "f".repeat(120);
    let run = [&RUN, SLOW.as_slice(), &["--checkpoint-dir", &folder]].concat();
    let run: Vec<_> = run.iter().enumerate().filter(|(at, _)| !(2..4).contains(at)).map(|(_, it)| *it).collect();
    let running = home.start(&run);
    until("a checkpoint", || home.newest_epoch(&folder) >= 2);
    home.ruslo(&["stop", &folder]).expect(0);
    running.end().expect(130);
}

/// The status line and the body of a POST.
fn post(address: &str, path: &str, kind: &str, body: &str) -> (String, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: {kind}\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), serde_json::from_str(body).unwrap())
}

#[test]
fn the_same_can_be_asked_over_http() {
    let home = home();
    let mut running = started(&home, &["--http", "127.0.0.1:0"]);
    let address = address_of(&mut running);
    let ask = |path: &str, body: &str| post(&address, path, "application/json", body);
    let folder = home.path("sp").to_str().unwrap().to_owned();
    let (status, answer) = ask("/api/v1/jobs/job/savepoints", &format!("{{\"target\": {folder:?}}}"));
    assert_eq!((status.as_str(), &answer["savepoint"]), ("HTTP/1.1 200 OK", &Value::from(folder.as_str())), "{answer}");
    let (status, answer) = ask("/api/v1/jobs/job/savepoints", &format!("{{\"target\": {folder:?}}}"));
    assert!(status.contains("400") && answer["error"].as_str().unwrap().contains("not empty"), "{answer}");
    let (status, answer) = ask("/api/v1/jobs/job/savepoints", "{\"target\": \"relative\"}");
    assert!(status.contains("400") && answer["error"].as_str().unwrap().contains("absolute path"), "{answer}");
    let (status, answer) = ask("/api/v1/jobs/other/stop", "{}");
    assert!(status.contains("404") && answer["error"].as_str().unwrap().contains("there is 'job'"), "{answer}");
    let (status, _) = post(&address, "/api/v1/jobs/job/stop", "text/plain", "{}");
    assert!(status.contains("400"), "a page of another site could make a browser send this: {status}");
    let (status, answer) = ask("/api/v1/jobs/job/stop", "{}");
    assert_eq!((status.as_str(), &answer["state"]), ("HTTP/1.1 200 OK", &Value::from("stopped")));
    running.end().expect(130);
}
