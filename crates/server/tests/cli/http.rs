//! `--http`: what a running job answers.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::home::{Home, Running, until};

const ENDLESS: &str = "
    CREATE TABLE bid (
      auction BIGINT, `dateTime` TIMESTAMP(3), WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND
    ) WITH ('connector' = 'nexmark', 'source.rows-per-second' = '20000');
    CREATE TABLE counts (auction BIGINT, n BIGINT) WITH ('connector' = 'blackhole');
    INSERT INTO counts
    SELECT auction, COUNT(*) FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(`dateTime`), INTERVAL '1' SECOND))
    GROUP BY auction, window_start, window_end";

/// The status line and the body of `GET path`.
pub(crate) fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

pub(crate) fn address_of(running: &mut Running) -> String {
    running.until_it_says("listening on http://");
    let said = running.err();
    let (_, behind) = said.split_once("listening on http://").unwrap();
    behind.lines().next().unwrap().to_owned()
}

#[test]
fn a_running_job_tells_what_it_is_doing() {
    let home = Home::new();
    let mut running = home.start(&[
        "run",
        "-e",
        ENDLESS,
        "--parallelism",
        "2",
        "--http",
        "127.0.0.1:0",
        "--checkpoint-interval",
        "1s",
    ]);
    let address = address_of(&mut running);
    assert_eq!(get(&address, "/healthz"), ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
    assert!(get(&address, "/nothing").0.contains("404"));

    let jobs = || -> Value { serde_json::from_str(&get(&address, "/api/v1/jobs").1).unwrap() };
    until("a checkpoint and a window's result", || {
        let job = &jobs()["jobs"][0];
        !job["checkpoint"].is_null() && job["operators"][1]["subtasks"][0]["numRecordsOut"].as_u64() > Some(0)
    });
    let job = &jobs()["jobs"][0];
    assert_eq!(job["operators"][0]["role"], "source");
    assert_eq!(job["operators"][0]["parallelism"], 2);
    assert_eq!(job["edges"][0]["partitioning"], "key group");
    assert!(job["operators"][1]["latencyP99"].as_f64() > Some(0.0));
    assert!(job["operators"][1]["subtasks"][0]["currentOutputWatermark"].as_i64() > Some(1_767_225_600_000));
    assert!(job["checkpoint"]["lastCheckpointSize"].as_u64() > Some(0));

    let metrics = get(&address, "/metrics").1;
    for name in
        ["operator_numRecordsIn_total", "operator_busyTimeMsPerSecond", "edge_queuedRecords", "operator_latency"]
    {
        assert!(metrics.contains(&format!("\nruslo_{name}{{job=")), "{name} is missing in {metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
    running.signal("INT");
    running.end().expect(130);
}

#[test]
fn nobody_else_may_read_unless_it_is_said() {
    let home = Home::new();
    let refused = home.ruslo(&["run", "-e", ENDLESS, "--http", "0.0.0.0:0"]).expect(2);
    assert!(refused.error().contains("say --insecure"), "{}", refused.err);
    let refused = home.ruslo(&["run", "-e", ENDLESS, "--insecure"]).expect(2);
    assert!(refused.err.contains("--http"), "{}", refused.err);
}
