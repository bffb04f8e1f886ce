//! The figures as an OTLP request, `ExportMetricsServiceRequest`, in the JSON that OTLP/HTTP defines: names in camel
//! case, 64-bit integers as strings.
//!
//! A metric is called `ruslo.<scope>.<name>`, which becomes the name in `/metrics` where a collector passes it on to
//! Prometheus. No unit is told, because that would be appended there.

use serde_json::{Value, json};

use crate::figures::Figures;
use crate::figures::metrics::{Labels, Metric, Samples};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`: a counter tells its total.
const CUMULATIVE: u8 = 2;

/// The request; `resource` says who sends it.
pub(super) fn request(figures: &Figures, resource: &[(String, String)]) -> Value {
    let at = i128::from(figures.at.millis()) * 1_000_000;
    let metrics: Vec<_> = figures.metrics().into_iter().filter_map(|of| metric(of, &at.to_string())).collect();
    let resource: Vec<_> = resource.iter().map(|(name, value)| attribute(name, value)).collect();
    json!({
        "resourceMetrics": [{
            "resource": { "attributes": resource },
            "scopeMetrics": [{
                "scope": { "name": "ruslo", "version": env!("CARGO_PKG_VERSION") },
                "metrics": metrics,
            }],
        }],
    })
}

/// A metric, if it has samples. Counters have no start time: they go on over restarts of the job, and so over that of this
/// process.
fn metric(metric: Metric<'_>, at: &str) -> Option<Value> {
    let Metric { scope, name, help, samples } = metric;
    let (kind, data) = match samples {
        Samples::Counter(samples) => {
            let points = points(samples, at, |value| ("asInt", value.to_string().into()))?;
            ("sum", json!({ "aggregationTemporality": CUMULATIVE, "isMonotonic": true, "dataPoints": points }))
        }
        Samples::Gauge(samples) => {
            ("gauge", json!({ "dataPoints": points(samples, at, |value| ("asDouble", value.into()))? }))
        }
    };
    Some(json!({ "name": format!("ruslo.{scope}.{name}"), "description": help, kind: data }))
}

fn points<T>(samples: Vec<(Labels<'_>, T)>, at: &str, value: fn(T) -> (&'static str, Value)) -> Option<Vec<Value>> {
    let points = samples.into_iter().map(|(labels, sample)| {
        let attributes: Vec<_> = labels.iter().map(|(name, text)| attribute(name, text)).collect();
        let (kind, value) = value(sample);
        json!({ "attributes": attributes, "timeUnixNano": at, kind: value })
    });
    let points: Vec<_> = points.collect();
    (!points.is_empty()).then_some(points)
}

fn attribute(name: &str, value: &str) -> Value {
    json!({ "key": name, "value": { "stringValue": value } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::metrics::example;

    fn metric_named<'a>(request: &'a Value, name: &str) -> Option<&'a Value> {
        let metrics = request["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].as_array().unwrap();
        metrics.iter().find(|metric| metric["name"] == name)
    }

    #[test]
    fn a_counter_is_a_cumulative_sum_of_integers_in_strings() {
        let request = request(&example(), &[("service.name".to_owned(), "s".to_owned())]);
        let service = json!([{ "key": "service.name", "value": { "stringValue": "s" } }]);
        assert_eq!(request["resourceMetrics"][0]["resource"]["attributes"], service);
        let rows = metric_named(&request, "ruslo.operator.numRecordsIn").unwrap();
        let label = |name: &str, value: &str| json!({ "key": name, "value": { "stringValue": value } });
        let point = |subtask: &str, rows: &str| {
            json!({
                "attributes": [
                    label("job", "j"),
                    label("operator", "Source t"),
                    label("operator_id", "5"),
                    label("role", "source"),
                    label("subtask", subtask),
                ],
                "timeUnixNano": "1767225600001000000",
                "asInt": rows,
            })
        };
        let expected = json!({
            "name": "ruslo.operator.numRecordsIn",
            "description": "Rows taken in",
            "sum": {
                "aggregationTemporality": 2,
                "isMonotonic": true,
                "dataPoints": [point("0", "3"), point("1", "18446744073709551615")],
            },
        });
        assert_eq!(*rows, expected);
    }

    #[test]
    fn a_gauge_is_a_number_and_what_has_no_value_is_not_there() {
        let request = request(&example(), &[]);
        let latency = metric_named(&request, "ruslo.operator.latency").unwrap();
        let values: Vec<_> =
            latency["gauge"]["dataPoints"].as_array().unwrap().iter().map(|at| &at["asDouble"]).collect();
        assert_eq!(values, [&json!(2.0), &json!(9.0)]);
        assert_eq!(metric_named(&request, "ruslo.job.lastCheckpointId"), None);
        assert_eq!(metric_named(&request, "ruslo.operator.numBytesIn"), None);
    }
}
