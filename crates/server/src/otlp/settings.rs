//! Where figures are sent to, and how: what stands behind `--otlp`, and OpenTelemetry's own environment variables.

use std::time::Duration;

use ruslo::{Error, Result};

/// Where a collector listens for OTLP over HTTP, unless told otherwise.
const USUAL: &str = "http://localhost:4318";
/// How often figures are sent, unless told otherwise.
const EVERY: Duration = Duration::from_secs(10);
/// How long a collector may take to answer, unless told otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where figures are sent to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The address that is posted to.
    pub(super) url: String,
    /// Further headers: keys, tokens.
    pub(super) headers: Vec<(String, String)>,
    /// How long a collector may take.
    pub(super) timeout: Duration,
    /// How often.
    pub(super) every: Duration,
    /// Who sends: `service.name` and more.
    pub(super) resource: Vec<(String, String)>,
}

impl Settings {
    /// Sends to the collector at `given`, or, if that is empty, where `variable` of the environment says.
    ///
    /// # Errors
    /// `Usage`: what cannot be used, and what can.
    pub(crate) fn new(given: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let variable = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        // What is said of metrics goes before what is said of everything.
        let of_metrics = |name: &str| {
            let names = [format!("OTEL_EXPORTER_OTLP_METRICS_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
            names.into_iter().find_map(|name| Some((variable(&name)?, name)))
        };
        if let Some((protocol, name)) = of_metrics("PROTOCOL").filter(|(protocol, _)| protocol == "grpc") {
            return Err(Error::usage(format!("{name} is '{protocol}': only OTLP over HTTP is spoken, 'http/json'")));
        }
        let millis = |of: Option<(String, String)>, or| of.map_or(Ok(or), |(value, name)| millis(&name, &value));
        let list = |of: Option<(String, String)>| of.map_or(Ok(Vec::new()), |(value, name)| list(&name, &value));
        let every = "OTEL_METRIC_EXPORT_INTERVAL";
        Ok(Self {
            url: url(given, variable("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"), variable("OTEL_EXPORTER_OTLP_ENDPOINT"))?,
            headers: list(of_metrics("HEADERS"))?,
            timeout: millis(of_metrics("TIMEOUT"), TIMEOUT)?,
            every: millis(variable(every).map(|value| (value, every.to_owned())), EVERY)?,
            resource: resource(
                list(variable("OTEL_RESOURCE_ATTRIBUTES").map(|value| (value, "OTEL_RESOURCE_ATTRIBUTES".to_owned())))?,
                variable("OTEL_SERVICE_NAME"),
            ),
        })
    }
}

/// What is posted to: `/v1/metrics` below a collector's address, or the very address that is only for metrics.
fn url(given: &str, only_metrics: Option<String>, collector: Option<String>) -> Result<String> {
    let (url, says) = match (given, only_metrics, collector) {
        ("", Some(url), _) => (url, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
        ("", None, Some(url)) => (below(&url), "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ("", None, None) => (below(USUAL), "--otlp"),
        (given, ..) => (below(given), "--otlp"),
    };
    let has_host = |uri: ureq::http::Uri| uri.host().is_some_and(|host| !host.is_empty());
    match url.split_once("://") {
        Some(("https", _)) => Err(Error::usage(format!(
            "{says} {url}: figures are sent without TLS; give the http:// address of a collector on this machine or in \
             its network, which can send them on encrypted"
        ))),
        Some(("http", _)) if url.parse().is_ok_and(has_host) => Ok(url),
        _ => Err(Error::usage(format!("{says} {url}: this is no address of a collector; write {USUAL}"))),
    }
}

fn below(collector: &str) -> String {
    format!("{}/v1/metrics", collector.trim_end_matches('/'))
}

fn millis(name: &str, value: &str) -> Result<Duration> {
    match value.trim().parse() {
        Ok(millis) if millis > 0 => Ok(Duration::from_millis(millis)),
        _ => Err(Error::usage(format!("{name} is '{value}': give a number of milliseconds"))),
    }
}

/// `name=value,name=value`, in which values may have bytes as `%20`.
fn list(name: &str, value: &str) -> Result<Vec<(String, String)>> {
    let pairs = value.split(',').filter(|pair| !pair.trim().is_empty());
    let pairs = pairs.map(|pair| {
        let pair = pair.split_once('=').map(|(key, value)| (key.trim().to_owned(), decoded(value.trim())));
        match pair {
            Some((key, Some(value))) if !key.is_empty() => Ok((key, value)),
            _ => Err(Error::usage(format!("{name}: write name=value,name=value, with %2C for a comma in a value"))),
        }
    });
    pairs.collect()
}

/// None, if it is not what was encoded.
fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [first, behind @ ..] = rest {
        let (byte, behind) = match (first, behind) {
            (b'%', [high, low, behind @ ..]) => {
                let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                (digit(high)? * 16 + digit(low)?, behind)
            }
            (b'%', _) => return None,
            (byte, behind) => (*byte, behind),
        };
        bytes.push(byte);
        rest = behind;
    }
    String::from_utf8(bytes).ok()
}

/// `given` and what is always told.
fn resource(given: Vec<(String, String)>, service: Option<String>) -> Vec<(String, String)> {
    let mut resource = given;
    if let Some(service) = service {
        resource.retain(|(name, _)| name != "service.name");
        resource.push(("service.name".to_owned(), service));
    }
    let process = std::process::id().to_string();
    for (name, value) in
        [("service.name", "ruslo"), ("service.version", env!("CARGO_PKG_VERSION")), ("service.instance.id", &process)]
    {
        if resource.iter().all(|(known, _)| known != name) {
            resource.push((name.to_owned(), value.to_owned()));
        }
    }
    resource
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(given: &str, variables: &[(&str, &str)]) -> Result<Settings> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Settings::new(given, |name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn metrics_go_below_the_collector() {
        let url = |given, variables: &[_]| settings(given, variables).unwrap().url;
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1/");
        let metrics = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://b:2/push");
        assert_eq!(url("", &[]), "http://localhost:4318/v1/metrics");
        assert_eq!(url("", &[all]), "http://a:1/v1/metrics");
        assert_eq!(url("", &[all, metrics]), "http://b:2/push");
        assert_eq!(url("http://c:3/otlp/", &[all, metrics]), "http://c:3/otlp/v1/metrics");
        assert_eq!(url("http://[::1]:4318", &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), "http://[::1]:4318/v1/metrics");
    }

    #[test]
    fn what_cannot_be_used_is_refused_by_a_sentence() {
        let refused = |given, variables: &[_]| settings(given, variables).unwrap_err().to_string();
        assert!(refused("https://c:4318", &[]).contains("without TLS"));
        assert!(
            refused("", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c")]).starts_with("OTEL_EXPORTER_OTLP_ENDPOINT")
        );
        for no_address in ["c:4318", "http://", "ftp://c", "http://c d:1", "a.sql"] {
            assert!(refused(no_address, &[]).contains("write http://localhost:4318"), "{no_address}");
        }
        assert!(refused("", &[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).contains("'http/json'"));
        for (name, value) in [
            ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "key"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "key=%2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "=x"),
        ] {
            assert!(refused("", &[(name, value)]).starts_with(name), "{name}");
        }
    }

    #[test]
    fn the_environment_says_who_sends_and_with_what_key() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_HEADERS", "all=1"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "api-key = a%20b%2c , x=y=z"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1500"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=test"),
            ("OTEL_SERVICE_NAME", "flights"),
        ];
        let settings = settings("", &variables).unwrap();
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        assert_eq!(settings.headers, [("api-key", "a b,"), ("x", "y=z")].map(pair));
        assert_eq!((settings.timeout.as_millis(), settings.every.as_millis()), (250, 1500));
        let told = [("deployment.environment.name", "test"), ("service.name", "flights")].map(pair);
        assert_eq!(settings.resource[..2], told);
    }
}
