//! `--otlp`: what a collector is sent, and what becomes of the job when there is none.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;

use crate::home::{COPY, Home, numbers, sorted_numbers, until};
use crate::http::{address_of, get};

/// A request as it came: the first line and the headers, in small letters, and the body.
type Request = (String, Value);

/// A collector that takes everything.
struct Collector {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Collector {
    fn new(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<_>>>::default();
        let taken = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let taken = Arc::clone(&taken);
                std::thread::spawn(move || take(stream.unwrap(), &taken, answer));
            }
        });
        Self { address, requests }
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    fn last(&self) -> Request {
        self.requests.lock().unwrap().last().unwrap().clone()
    }
}

/// Takes requests as long as they come.
fn take(stream: TcpStream, taken: &Mutex<Vec<Request>>, answer: &str) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let head = head.to_lowercase();
        let (_, length) = head.split_once("content-length: ").unwrap();
        let mut body = vec![0; length.lines().next().unwrap().trim().parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        taken.lock().unwrap().push((head, serde_json::from_slice(&body).unwrap()));
        write!(writer, "{answer}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}").unwrap();
    }
}

/// Every sample of a request, as `/metrics` writes it: `ruslo_name{label="value",…}`, counters with `_total`.
fn samples(request: &Value) -> BTreeMap<String, f64> {
    let metrics = request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
    let mut samples = BTreeMap::new();
    for metric in metrics {
        let name = metric["name"].as_str().unwrap().replace('.', "_");
        let (name, points) = match metric.get("sum") {
            Some(sum) => {
                assert_eq!((&sum["aggregationTemporality"], &sum["isMonotonic"]), (&2.into(), &true.into()));
                (format!("{name}_total"), &sum["dataPoints"])
            }
            None => (name, &metric["gauge"]["dataPoints"]),
        };
        for point in points.as_array().unwrap() {
            assert!(point["timeUnixNano"].as_str().unwrap().parse::<u64>().unwrap() > 1_767_225_600_000_000_000);
            let labels = point["attributes"].as_array().unwrap().iter();
            let labels: Vec<_> =
                labels.map(|of| format!("{}={}", of["key"].as_str().unwrap(), of["value"]["stringValue"])).collect();
            let value = match point.get("asInt") {
                Some(count) => count.as_str().unwrap().parse().unwrap(),
                None => point["asDouble"].as_f64().unwrap(),
            };
            assert_eq!(samples.insert(format!("{name}{{{}}}", labels.join(",")), value), None);
        }
    }
    samples
}

/// The same of Prometheus' text.
fn prometheus(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

const WATCHED: &str = "\
CREATE TABLE i (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'in', 'format' = 'csv',
                                'source.monitor-interval' = '20 ms');
CREATE TABLE o (n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'csv');
INSERT INTO o SELECT n FROM i;
";

#[test]
fn a_collector_gets_the_figures_of_metrics() {
    let collector = Collector::new("HTTP/1.1 200 OK");
    let home = Home::new();
    home.write("job.sql", WATCHED);
    home.write("in/a.csv", numbers(1000));
    let arguments = ["run", "job.sql", "--parallelism", "2", "--http", "127.0.0.1:0", "--otlp", &collector.address];
    let variables = [
        ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b"),
        ("OTEL_SERVICE_NAME", "copy"),
    ];
    let mut running = home.start_with(&arguments, &variables);
    let address = address_of(&mut running);
    let is_count = |name: &str| name.contains("_total{");
    let rows_in = |samples: &BTreeMap<String, f64>| -> f64 {
        samples
            .iter()
            .filter(|(name, _)| {
                name.starts_with("ruslo_operator_numRecordsOut_total") && name.contains("role=\"source\"")
            })
            .map(|(_, rows)| rows)
            .sum()
    };
    until("all rows are read", || rows_in(&prometheus(&get(&address, "/metrics").1)) == 1000.0);
    let before = collector.count();
    until("two more exports", || collector.count() >= before + 2);
    let (head, request) = collector.last();
    assert!(head.starts_with("post /v1/metrics http/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/json\r\n") && head.contains("api-key: a b\r\n"), "{head}");
    let resource = request["resourceMetrics"][0]["resource"]["attributes"].to_string();
    assert!(resource.contains(r#"{"key":"service.name","value":{"stringValue":"copy"}}"#), "{resource}");

    // The job has nothing to do any more: what counts rows and bytes stands still, and the names are always the same.
    let (sent, shown) = (samples(&request), prometheus(&get(&address, "/metrics").1));
    let names = |samples: &BTreeMap<String, f64>| -> Vec<String> {
        samples
            .keys()
            .filter(|name| {
                !name.contains("_job_lastCheckpoint") && !name.contains("latency") && !name.contains("Checkpoints")
            })
            .cloned()
            .collect()
    };
    assert_eq!(names(&sent), names(&shown));
    for (name, value) in sent.iter().filter(|(name, _)| is_count(name)) {
        assert_eq!(Some(value), shown.get(name), "{name}");
    }
    assert_eq!(rows_in(&sent), 1000.0);
    running.signal("INT");
    let ended = running.end().expect(130);
    assert!(!ended.err.contains("warning: --otlp"), "{}", ended.err);
}

#[test]
fn a_short_job_sends_once_at_its_end() {
    let collector = Collector::new("HTTP/1.1 200 OK");
    let home = Home::new();
    home.write("copy.sql", COPY);
    home.write("in.csv", numbers(500));
    home.ruslo(&["run", "copy.sql", "--otlp", &collector.address]).expect(0);
    assert_eq!(collector.count(), 1);
    let sent = samples(&collector.last().1);
    let of = |role: &str, name: &str| -> f64 {
        let samples = sent.iter().filter(|(key, _)| key.starts_with(name) && key.contains(role));
        samples.map(|(_, value)| value).sum()
    };
    assert_eq!(of("role=\"source\"", "ruslo_operator_numRecordsOut_total"), 500.0);
    assert_eq!(of("role=\"sink\"", "ruslo_operator_numRecordsIn_total"), 500.0);
    assert!(of("", "ruslo_job_numberOfCompletedCheckpoints{") > 0.0);
}

/// Runs a job whose collector does not take anything: all its rows come out, and it is told once.
fn without_a_collector(url: &str, reason: &str) {
    let home = Home::new();
    home.write("copy.sql", COPY);
    home.write("in.csv", numbers(3000));
    let arguments = ["run", "copy.sql", "--set", "source.rows-per-second=3000", "--otlp", url];
    let variables = [("OTEL_METRIC_EXPORT_INTERVAL", "50"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "100")];
    let started = Instant::now();
    let ended = home.start_with(&arguments, &variables).end().expect(0);
    assert!(started.elapsed().as_secs() < 60);
    assert_eq!(home.rows("out"), sorted_numbers(3000));
    assert_eq!(ended.err.matches("this is told once").count(), 1, "{}", ended.err);
    assert!(ended.err.contains(reason) && ended.err.contains("exports did not arrive"), "{}", ended.err);
}

#[test]
fn a_job_goes_on_without_a_collector() {
    // A port that was free a moment ago, so that nobody listens.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    without_a_collector(&format!("http://{nobody}"), "efused");
    without_a_collector(&Collector::new("HTTP/1.1 503 Service Unavailable").address, "503");
    // Takes connections, and never answers.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    without_a_collector(&format!("http://{}", mute.local_addr().unwrap()), "timeout");
}

#[test]
fn what_no_collector_can_be_is_refused_before_the_job_starts() {
    let home = Home::new();
    home.write("copy.sql", COPY);
    home.write("in.csv", numbers(1));
    let refused = home.ruslo(&["run", "copy.sql", "--otlp", "https://localhost:4318"]).expect(2);
    assert!(refused.error().contains("without TLS"), "{}", refused.err);
    let grpc = home.start_with(&["run", "copy.sql", "--otlp"], &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    let refused = grpc.end().expect(2);
    assert!(refused.error().contains("only OTLP over HTTP is spoken"), "{}", refused.err);
    assert!(!home.exists("out") && !home.exists(".ruslo"));
}
