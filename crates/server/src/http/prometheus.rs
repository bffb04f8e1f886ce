//! `/metrics`: the figures in Prometheus' text. Names are Flink's where it has them, behind `ruslo_`.

use std::borrow::Cow;
use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::figures::{EdgeFigures, Figures, OperatorFigures, SubtaskFigures};
use super::json::role;

/// The text for a job; only its end, if there is none.
pub(super) fn text(figures: Option<Figures>) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("ruslo");
    if let Some(figures) = figures {
        registry.register_collector(Box::new(figures));
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// The labels of a line.
type Labels<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// A metric of subtasks: its name, what it means, and its value if there is one.
type OfSubtask<T> = (&'static str, &'static str, fn(&SubtaskFigures) -> Option<T>);

const COUNTERS: &[OfSubtask<u64>] = &[
    ("numRecordsIn", "Rows taken in", |of| Some(of.counts.rows_in)),
    ("numRecordsOut", "Rows given out", |of| Some(of.counts.rows_out)),
    ("numBytesIn", "Bytes taken from channels", |of| of.bytes_in),
    ("numBytesOut", "Bytes given to channels", |of| of.bytes_out),
    ("numLateRecords", "Rows that came late", |of| Some(of.counts.late_rows)),
    ("numSkippedRecords", "Records that could not become rows and were left out", |of| Some(of.counts.skipped_rows)),
    ("numDeadLetters", "Records that could not become rows and were kept", |of| Some(of.counts.dead_letter_rows)),
    ("numRecordsAhead", "Rows too far ahead of the clock to move the watermark", |of| Some(of.counts.ahead_rows)),
];

const GAUGES: &[OfSubtask<f64>] = &[
    ("numRecordsInPerSecond", "Rows taken in a second", |of| Some(of.rates.0)),
    ("numRecordsOutPerSecond", "Rows given out a second", |of| Some(of.rates.1)),
    ("busyTimeMsPerSecond", "Milliseconds a second that the task works", |of| Some(of.busy_ms)),
    ("idleTimeMsPerSecond", "Milliseconds a second that the task has nothing to do", |of| Some(of.idle_ms)),
    ("backPressuredTimeMsPerSecond", "Milliseconds a second that the task waits for a full receiver", |of| {
        Some(of.backpressured_ms)
    }),
    ("currentOutputWatermark", "The watermark, in milliseconds since 1970", |of| {
        of.watermark.map(|at| at.millis() as f64)
    }),
    ("watermarkLag", "How far the watermark is behind the clock, in milliseconds", |of| {
        of.watermark_lag.map(|lag| lag.as_secs_f64() * 1e3)
    }),
    ("checkpointAlignmentTime", "How long the last barrier waited for the slowest input, in milliseconds", |of| {
        Some(of.alignment.as_secs_f64() * 1e3)
    }),
];

/// A metric of edges.
type OfEdge = (&'static str, &'static str, fn(&EdgeFigures) -> f64);

const EDGE_GAUGES: &[OfEdge] = &[
    ("queuedRecords", "Rows that wait", |edge| edge.fill.rows as f64),
    ("queuedBytes", "Bytes that wait", |edge| edge.fill.bytes as f64),
    ("queuedAge", "How long the oldest has waited, in milliseconds", |edge| edge.fill.age.as_secs_f64() * 1e3),
];

/// A metric of the whole job.
type OfJob = (&'static str, &'static str, fn(&Figures) -> Option<f64>);

const JOB_GAUGES: &[OfJob] = &[
    ("job_uptime", "Milliseconds since the job was started", |job| Some(job.uptime.as_secs_f64() * 1e3)),
    ("job_memoryUsedBytes", "Bytes that rows and state hold", |job| Some(job.memory_used_bytes as f64)),
    ("job_memoryPeakBytes", "The most bytes that rows and state ever held", |job| Some(job.memory_peak_bytes as f64)),
    ("job_lastCheckpointId", "The last checkpoint", |job| Some(job.checkpoint?.0.epoch.0 as f64)),
    ("job_lastCheckpointDuration", "From its first barrier to its commit, in milliseconds", |job| {
        Some(job.checkpoint?.0.took.as_secs_f64() * 1e3)
    }),
    ("job_lastCheckpointSize", "Bytes of state that it wrote", |job| Some(job.checkpoint?.0.bytes_written as f64)),
    ("job_lastCheckpointFullSize", "Bytes of state that it consists of", |job| Some(job.checkpoint?.0.bytes as f64)),
    ("job_numberOfCompletedCheckpoints", "Checkpoints since the job was started", |job| {
        Some(job.checkpoint?.0.completed as f64)
    }),
];

impl Collector for Figures {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let encoder = &mut encoder;
        for (name, help, value) in JOB_GAUGES {
            let samples = value(self).map(|value| (vec![("job", self.name.as_str().into())], value));
            gauges(encoder, name, help, samples.into_iter())?;
        }
        for (name, help, value) in COUNTERS {
            counters(encoder, &format!("operator_{name}"), help, self.subtasks(*value))?;
        }
        for (name, help, value) in GAUGES {
            gauges(encoder, &format!("operator_{name}"), help, self.subtasks(*value))?;
        }
        self.latencies(encoder)?;
        for (name, help, value) in EDGE_GAUGES {
            let samples = self.edges.iter().map(|edge| (self.edge_labels(edge), value(edge)));
            gauges(encoder, &format!("edge_{name}"), help, samples)?;
        }
        let records = self.edges.iter().map(|edge| (self.edge_labels(edge), edge.fill.rows_sent));
        counters(encoder, "edge_numRecords", "Rows that were sent", records)?;
        let bytes = self.edges.iter().map(|edge| (self.edge_labels(edge), edge.fill.bytes_sent));
        counters(encoder, "edge_numBytes", "Bytes that were sent", bytes)
    }
}

impl Figures {
    fn operator_labels<'a>(&'a self, operator: &'a OperatorFigures) -> Labels<'a> {
        vec![
            ("job", self.name.as_str().into()),
            ("operator", operator.name.as_str().into()),
            ("operator_id", operator.id.as_str().into()),
            ("role", role(operator.role).into()),
        ]
    }

    fn edge_labels<'a>(&'a self, edge: &'a EdgeFigures) -> Labels<'a> {
        let texts = [("job", &self.name), ("from", &edge.from), ("to", &edge.to)];
        texts.map(|(name, text)| (name, text.as_str().into())).into()
    }

    /// A figure of every subtask, with its labels.
    fn subtasks<T>(&self, value: fn(&SubtaskFigures) -> Option<T>) -> impl Iterator<Item = (Labels<'_>, T)> {
        self.operators.iter().flat_map(move |operator| {
            operator.subtasks.iter().enumerate().filter_map(move |(index, subtask)| {
                let mut labels = self.operator_labels(operator);
                labels.push(("subtask", index.to_string().into()));
                Some((labels, value(subtask)?))
            })
        })
    }

    fn latencies(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let samples = self.operators.iter().filter_map(|operator| Some((operator, operator.latency?)));
        let samples = samples.flat_map(|(operator, (half, most))| {
            [("0.5", half), ("0.99", most)].map(|(quantile, latency)| {
                let mut labels = self.operator_labels(operator);
                labels.push(("quantile", quantile.into()));
                (labels, latency.as_secs_f64() * 1e3)
            })
        });
        let help = "How long rows have been in the stream when they are taken, in milliseconds";
        gauges(encoder, "operator_latency", help, samples)
    }
}

fn counters<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl Iterator<Item = (Labels<'a>, u64)>,
) -> Result<(), Error> {
    let kind = ConstCounter::new(0u64).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in samples {
        ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl Iterator<Item = (Labels<'a>, f64)>,
) -> Result<(), Error> {
    let kind = ConstGauge::new(0.0).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in samples {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
