//! Checkpoints in a bucket of a real S3 server: killed, resumed and failed on, the answer must be the oracle's.

use std::net::SocketAddr;
use std::time::Duration;

use crate::home::{COPY, Home, Running, numbers, sorted_numbers, until};
use crate::kill::Pipeline;
use crate::moto::{BUCKET, Fault, Moto, Proxy};

const PLACE: &str = "s3://checkpoints/jobs/departures";
const PREFIX: &str = "jobs/departures";

fn departures() -> Pipeline {
    Pipeline { name: "departures", output: "output", rounds: 0, rows_per_second: "" }
}

const ARGUMENTS: [&str; 8] =
    ["run", "departures.sql", "--checkpoint-dir", PLACE, "--checkpoint-interval", "200ms", "--parallelism", "2"];

fn start(home: &Home, address: SocketAddr, more: &[&str]) -> Running {
    let variables = Moto::variables(address);
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    home.start_with(&[&ARGUMENTS[..], more].concat(), &variables)
}

fn ask(home: &Home, server: &Moto, arguments: &[&str]) -> crate::home::Answer {
    let variables = Moto::variables(server.address());
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    home.start_with(arguments, &variables).end()
}

const SLOW: [&str; 4] = ["--set", "source.rows-per-second=6000", "--set", "execution.batch-rows=256"];

fn manifests(server: &Moto) -> Vec<String> {
    server.objects(&format!("{PREFIX}/manifests/"))
}

/// Waits for `more` further checkpoints.
fn until_checkpoints(server: &Moto, running: &mut Running, more: u64) {
    let epoch = || manifests(server).last().map_or(0, |name| name[name.len() - 25..name.len() - 5].parse().unwrap());
    let begin: u64 = epoch();
    until("checkpoints", || {
        assert!(!running.is_over(), "it ended too early: {}", running.err());
        std::thread::sleep(Duration::from_millis(50));
        epoch() >= begin + more
    });
}

/// Every run that a kept manifest names is there, and none that only a forgotten one named.
fn check_garbage(server: &Moto) {
    let manifests = manifests(server);
    assert_eq!(manifests.len(), 3, "{manifests:?}");
    let texts: Vec<_> = manifests.iter().map(|name| server.object(name)).collect();
    let oldest = manifests[0][manifests[0].len() - 25..manifests[0].len() - 5].parse::<u64>().unwrap();
    for run in server.objects(&format!("{PREFIX}/runs/")) {
        let file = run.rsplit('/').next().unwrap();
        let is_named = texts.iter().any(|text| text.contains(file));
        let epoch: u64 = file.split('-').next().unwrap().parse().unwrap();
        assert!(is_named || epoch > oldest, "{file} is garbage");
    }
}

#[test]
fn killed_and_resumed_from_a_bucket_the_answer_is_the_oracles() {
    let Some(server) = Moto::start() else { return };
    let (departures, address) = (departures(), server.address());
    let home = departures.home();
    for _ in 0..2 {
        let mut running = start(&home, address, &[&SLOW[..], &["--resume"]].concat());
        until_checkpoints(&server, &mut running, 5);
        running.kill();
    }
    check_garbage_after_kill(&server);
    let list = ask(&home, &server, &["checkpoint", "list", PLACE]).expect(0);
    assert!(list.out.contains("resumable"), "{}", list.out);
    ask(&home, &server, &["checkpoint", "verify", PLACE]).expect(0);
    let done = start(&home, address, &["--resume"]).end().expect(0);
    assert!(!done.err.contains("a-secret") && !done.out.contains("a-secret"));
    departures.check(&home);
    check_garbage(&server);
    let again = start(&home, address, &["--resume"]).end().expect(0);
    assert!(again.err.contains("already finished"), "{}", again.err);
    departures.check(&home);
    assert!(!home.exists("s3:"), "nothing was written beside the bucket");
}

/// A kill may come before the collection, so that one more checkpoint is there.
fn check_garbage_after_kill(server: &Moto) {
    assert!((3..=4).contains(&manifests(server).len()), "{:?}", manifests(server));
}

#[test]
fn a_store_that_fails_now_and_then_loses_nothing_and_doubles_nothing() {
    let Some(server) = Moto::start() else { return };
    let departures = departures();
    let home = departures.home();
    let proxy = Proxy::flaky(&server, 12, 7);
    for _ in 0..2 {
        let mut running = start(&home, proxy.address(), &[&SLOW[..], &["--resume"]].concat());
        until_checkpoints(&server, &mut running, 4);
        running.kill();
    }
    start(&home, proxy.address(), &["--resume"]).end().expect(0);
    departures.check(&home);
    assert!(proxy.faults() > 10, "only {} faults", proxy.faults());
    check_garbage(&server);
}

/// Every manifest's first answer is lost although it was written: none of these may be taken for another process's.
#[test]
fn a_manifest_whose_answer_was_lost_is_recognised() {
    let Some(server) = Moto::start() else { return };
    let departures = departures();
    let home = departures.home();
    let mut turn = 0;
    let faults = [Fault::DoneAndRefused, Fault::DoneAndDropped, Fault::DoneAndLate];
    let choose = move |line: &str| {
        let is_manifest = line.starts_with("PUT") && line.contains("/manifests/");
        turn += usize::from(is_manifest);
        if is_manifest { faults[turn % faults.len()] } else { Fault::None }
    };
    let proxy = Proxy::before(&server, Box::new(choose));
    start(&home, proxy.address(), &["--resume"]).end().expect(0);
    departures.check(&home);
    assert!(proxy.faults() >= 2, "only {} faults", proxy.faults());
}

#[test]
fn a_store_that_is_down_is_named_and_the_job_goes_on_later() {
    let Some(server) = Moto::start() else { return };
    let departures = departures();
    let home = departures.home();
    let mut first = start(&home, server.address(), &[&SLOW[..], &["--resume"]].concat());
    until_checkpoints(&server, &mut first, 3);
    first.kill();
    let choose = |line: &str| if line.starts_with("PUT") { Fault::Refused } else { Fault::None };
    let proxy = Proxy::before(&server, Box::new(choose));
    let none = ["--set", "restart-strategy.type=none"];
    let failed = start(&home, proxy.address(), &[&none[..], &["--resume"]].concat()).end().expect(7);
    let error = failed.error();
    assert!(error.contains(&format!("{PLACE}/")) && error.contains("500 Internal Server Error"), "{error}");
    start(&home, server.address(), &["--resume"]).end().expect(0);
    departures.check(&home);
}

#[test]
fn a_batch_job_keeps_its_checkpoints_there_too() {
    let Some(server) = Moto::start() else { return };
    let home = Home::new();
    home.write("in.csv", numbers(30_000));
    // More groups than fit are spilled, and a bucket is no place for that.
    let copy = COPY.replace("SELECT n FROM numbers", "SELECT n FROM numbers GROUP BY n");
    home.write("copy.sql", copy);
    let batch = ["--set", "execution.runtime-mode=batch", "--set", "pipeline.memory-limit=1 mb"];
    let place = ["run", "copy.sql", "--checkpoint-dir", PLACE, "--output", "json", "--parallelism", "1"];
    let done = ask(&home, &server, &[&place[..], &batch].concat()).expect(0);
    assert!(done.summary()["spilled_bytes"].as_u64().unwrap() > 0, "{}", done.out);
    assert_eq!(home.rows("out"), sorted_numbers(30_000));
    assert!(!manifests(&server).is_empty());
    let left = std::fs::read_dir(home.path(".ruslo/spill")).map_or(0, |entries| entries.count());
    assert_eq!(left, 0, "nothing spilled is left");
}

#[test]
fn the_first_of_two_processes_is_fenced_by_the_second() {
    let Some(server) = Moto::start() else { return };
    let departures = departures();
    let home = departures.home();
    let mut first = start(&home, server.address(), &[&SLOW[..], &["--resume"]].concat());
    until_checkpoints(&server, &mut first, 3);
    start(&home, server.address(), &["--resume"]).end().expect(0);
    let fenced = first.end().expect(6);
    assert!(fenced.error().contains("another process has written checkpoint"), "{}", fenced.err);
    departures.check(&home);
}

#[test]
fn what_is_wrong_with_the_place_is_said() {
    let Some(server) = Moto::start() else { return };
    let departures = departures();
    let home = departures.home();
    let variables = Moto::variables(server.address());
    let run = |place: &str, leave_out: &str| {
        let left = variables.iter().filter(|(name, _)| *name != leave_out);
        let left: Vec<_> = left.map(|(name, value)| (*name, value.as_str())).collect();
        home.start_with(&["run", "departures.sql", "--checkpoint-dir", place], &left).end().expect(2).error().to_owned()
    };
    assert!(
        run("s3://nowhere/a", "").contains("s3://nowhere/a: there is no such bucket"),
        "{}",
        run("s3://nowhere/a", "")
    );
    assert!(run(PLACE, "AWS_ALLOW_HTTP").contains("is not encrypted; set AWS_ALLOW_HTTP=true"));
    assert!(run("s3:///a", "").contains("the bucket is missing"));
    assert!(run("gs://bucket/a", "").contains("'gs' is neither"));
    let list = ask(&home, &server, &["checkpoint", "list", &format!("s3://{BUCKET}/none")]).expect(2);
    assert_eq!(list.error(), "s3://checkpoints/none: there are no checkpoints");
}

#[test]
fn a_bucket_with_runs_and_no_manifests_is_no_fresh_start() {
    let Some(server) = Moto::start() else { return };
    let departures = departures();
    let home = departures.home();
    let mut first = start(&home, server.address(), &[&SLOW[..], &["--resume"]].concat());
    until_checkpoints(&server, &mut first, 3);
    first.kill();
    manifests(&server).iter().for_each(|name| server.remove(name));
    let refused = start(&home, server.address(), &["--resume"]).end().expect(5);
    let error = refused.error();
    assert!(error.starts_with(&format!("{PLACE}/manifests: no manifest is here")), "{error}");
}

/// The new run writes into the same folder: together the two have every row once.
#[test]
fn a_savepoint_in_a_bucket_is_begun_from() {
    let Some(server) = Moto::start() else { return };
    let departures = departures();
    let home = departures.home();
    let variables = Moto::variables(server.address());
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let place = "s3://checkpoints/savepoints/monday";
    let local =
        ["run", "departures.sql", "--checkpoint-dir", "c", "--checkpoint-interval", "200ms", "--parallelism", "2"];
    let mut running = home.start_with(&[&local[..], &SLOW].concat(), &variables);
    running.until_checkpoint(&home, 4);
    let made = ask(&home, &server, &["stop", "c", "--savepoint", place]).expect(0);
    assert!(made.out.contains(&format!(": {place} (")), "{}", made.out);
    running.end().expect(130);
    let before = server.objects("savepoints/monday/");
    assert!(before.iter().all(|name| name.contains("/runs/") || name.contains("/manifests/")), "{before:?}");
    let listed = ask(&home, &server, &["state", "list", place]).expect(0);
    assert!(listed.out.contains("TumbleWindow origin, 1 h"), "{}", listed.out);
    let begin = ["run", "departures.sql", "--from-savepoint", place, "--checkpoint-dir", PLACE, "--parallelism", "3"];
    let done = ask(&home, &server, &begin).expect(0);
    assert!(done.err.contains(&format!("begun from the savepoint {place}")), "{}", done.err);
    departures.check(&home);
    assert_eq!(server.objects("savepoints/monday/"), before, "nothing writes into it");
    let again = ask(&home, &server, &["run", "departures.sql", "--from-savepoint", place, "--checkpoint-dir", place]);
    assert!(again.expect(2).error().contains("this is a savepoint"));
}
