//! The figures as metrics: names, meanings, labels. Names are Flink's where it has them.

use std::borrow::Cow;

use super::{EdgeFigures, Figures, OperatorFigures, SubtaskFigures, role};

/// A metric with all its samples.
pub(crate) struct Metric<'a> {
    /// What it is of: `job`, `operator` or `edge`.
    pub(crate) scope: &'static str,
    pub(crate) name: &'static str,
    /// What it means.
    pub(crate) help: &'static str,
    pub(crate) samples: Samples<'a>,
}

/// Samples of a number that only grows, or of one that does as it likes.
pub(crate) enum Samples<'a> {
    Counter(Vec<(Labels<'a>, u64)>),
    Gauge(Vec<(Labels<'a>, f64)>),
}

/// What a sample is of.
pub(crate) type Labels<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// A metric of subtasks: its name, what it means, and its value if there is one.
type OfSubtask<T> = (&'static str, &'static str, fn(&SubtaskFigures) -> Option<T>);

const OPERATOR_COUNTERS: &[OfSubtask<u64>] = &[
    ("numRecordsIn", "Rows taken in", |of| Some(of.counts.rows_in)),
    ("numRecordsOut", "Rows given out", |of| Some(of.counts.rows_out)),
    ("numBytesIn", "Bytes taken from channels", |of| of.bytes_in),
    ("numBytesOut", "Bytes given to channels", |of| of.bytes_out),
    ("numLateRecords", "Rows that came late", |of| Some(of.counts.late_rows)),
    ("numSkippedRecords", "Records that could not become rows and were left out", |of| Some(of.counts.skipped_rows)),
    ("numDeadLetters", "Records that could not become rows and were kept", |of| Some(of.counts.dead_letter_rows)),
    ("numRecordsAhead", "Rows too far ahead of the clock to move the watermark", |of| Some(of.counts.ahead_rows)),
    ("numFilesTooOld", "Files that appeared in a watched folder and are too old to be read", |of| {
        Some(of.too_old_files)
    }),
];

const OPERATOR_GAUGES: &[OfSubtask<f64>] = &[
    ("numRecordsInPerSecond", "Rows taken in a second", |of| Some(of.rates.0)),
    ("numRecordsOutPerSecond", "Rows given out a second", |of| Some(of.rates.1)),
    ("busyTimeMsPerSecond", "Milliseconds a second that the task works", |of| Some(of.busy_ms)),
    ("idleTimeMsPerSecond", "Milliseconds a second that the task has nothing to do", |of| Some(of.idle_ms)),
    ("backPressuredTimeMsPerSecond", "Milliseconds a second that the task waits for a full receiver", |of| {
        Some(of.backpressured_ms)
    }),
    ("currentInputWatermark", "The watermark of its task's inputs, in milliseconds since 1970", |of| {
        of.input_watermark.map(|at| at.millis() as f64)
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
type OfEdge<T> = (&'static str, &'static str, fn(&EdgeFigures) -> T);

const EDGE_GAUGES: &[OfEdge<f64>] = &[
    ("queuedRecords", "Rows that wait", |edge| edge.fill.rows as f64),
    ("queuedBytes", "Bytes that wait", |edge| edge.fill.bytes as f64),
    ("queuedAge", "How long the oldest has waited, in milliseconds", |edge| edge.fill.age.as_secs_f64() * 1e3),
];

/// A metric of the whole job.
type OfJob = (&'static str, &'static str, fn(&Figures) -> Option<f64>);

const JOB_GAUGES: &[OfJob] = &[
    ("uptime", "Milliseconds since the job was started", |job| Some(job.uptime.as_secs_f64() * 1e3)),
    ("numRestarts", "How often the job failed and went on from its last checkpoint", |job| {
        Some(job.restarts.count as f64)
    }),
    ("isRestarting", "1 while the job is down and waits to go on, else 0", |job| {
        Some(f64::from(u8::from(job.restarts.is_waiting)))
    }),
    ("lastFailureTime", "When it last failed, in milliseconds since 1970", |job| {
        Some(job.restarts.last_failure.as_ref()?.at.millis() as f64)
    }),
    ("memoryUsedBytes", "Bytes that rows and state hold", |job| Some(job.memory_used_bytes as f64)),
    ("memoryPeakBytes", "The most bytes that rows and state ever held", |job| Some(job.memory_peak_bytes as f64)),
    ("lastCheckpointId", "The last checkpoint", |job| Some(job.checkpoint?.0.epoch.0 as f64)),
    ("lastCheckpointDuration", "From its first barrier to its commit, in milliseconds", |job| {
        Some(job.checkpoint?.0.took.as_secs_f64() * 1e3)
    }),
    (
        "lastCheckpointAcknowledgeTime",
        "From its first barrier until the last task had passed it on, in milliseconds",
        |job| Some(job.checkpoint?.0.acknowledged.as_secs_f64() * 1e3),
    ),
    ("lastCheckpointUploadTime", "From then until its state was written, in milliseconds", |job| {
        Some(job.checkpoint?.0.written.as_secs_f64() * 1e3)
    }),
    ("lastCheckpointPublishTime", "From then until its manifest was durable, in milliseconds", |job| {
        Some(job.checkpoint?.0.published.as_secs_f64() * 1e3)
    }),
    ("lastCheckpointRecordsInFlight", "Rows that its barrier has overtaken, and that it stores", |job| {
        Some(job.checkpoint?.0.rows_in_flight as f64)
    }),
    ("lastCheckpointSize", "Bytes of state that it wrote", |job| Some(job.checkpoint?.0.bytes_written as f64)),
    ("lastCheckpointFullSize", "Bytes of state that it consists of", |job| Some(job.checkpoint?.0.bytes as f64)),
    ("numberOfCompletedCheckpoints", "Checkpoints since the job was last started", |job| {
        Some(job.checkpoint?.0.completed as f64)
    }),
];

const EDGE_COUNTERS: &[OfEdge<u64>] = &[
    ("numRecords", "Rows that were sent", |edge| edge.fill.rows_sent),
    ("numBytes", "Bytes that were sent", |edge| edge.fill.bytes_sent),
];

impl Figures {
    /// All of them; a metric that has no value has no samples.
    pub(crate) fn metrics(&self) -> Vec<Metric<'_>> {
        let operators = OPERATOR_COUNTERS.iter().map(|(name, help, value)| {
            let samples = Samples::Counter(self.of_subtasks(*value));
            Metric { scope: "operator", name, help, samples }
        });
        let operator_gauges = OPERATOR_GAUGES.iter().map(|(name, help, value)| {
            let samples = Samples::Gauge(self.of_subtasks(*value));
            Metric { scope: "operator", name, help, samples }
        });
        let edges = EDGE_GAUGES.iter().map(|(name, help, value)| {
            let samples = Samples::Gauge(self.of_edges(*value));
            Metric { scope: "edge", name, help, samples }
        });
        let edge_counters = EDGE_COUNTERS.iter().map(|(name, help, value)| {
            let samples = Samples::Counter(self.of_edges(*value));
            Metric { scope: "edge", name, help, samples }
        });
        let operators = operators.chain(operator_gauges).chain([self.latencies()]);
        self.of_job().chain(operators).chain(edges).chain(edge_counters).collect()
    }

    fn of_job(&self) -> impl Iterator<Item = Metric<'_>> {
        let labels = || vec![("job", self.name.as_str().into())];
        let gauges = JOB_GAUGES.iter().map(move |(name, help, value)| {
            let samples = Samples::Gauge(value(self).map(|value| (labels(), value)).into_iter().collect());
            Metric { scope: "job", name, help, samples }
        });
        let samples = Samples::Counter(vec![(labels(), self.dropped_exports)]);
        let help = "Exports over OTLP that did not arrive";
        gauges.chain([Metric { scope: "job", name: "numDroppedExports", help, samples }])
    }

    fn operator_labels<'a>(&'a self, operator: &'a OperatorFigures) -> Labels<'a> {
        vec![
            ("job", self.name.as_str().into()),
            ("operator", operator.name.as_str().into()),
            ("operator_id", operator.id.as_str().into()),
            ("role", role(operator.role).into()),
        ]
    }

    /// A figure of every edge, with its labels; they say which edge it is, as there may be several between two operators.
    fn of_edges<T>(&self, value: fn(&EdgeFigures) -> T) -> Vec<(Labels<'_>, T)> {
        let samples = self.edges.iter().enumerate().map(|(index, edge)| {
            let texts = [
                ("job", &self.name),
                ("from", &edge.from),
                ("from_id", &edge.from_id),
                ("to", &edge.to),
                ("to_id", &edge.to_id),
            ];
            let mut labels: Labels<'_> = texts.map(|(name, text)| (name, text.as_str().into())).into();
            labels.push(("edge", index.to_string().into()));
            (labels, value(edge))
        });
        samples.collect()
    }

    /// A figure of every subtask, with its labels.
    fn of_subtasks<T>(&self, value: fn(&SubtaskFigures) -> Option<T>) -> Vec<(Labels<'_>, T)> {
        let samples = self.operators.iter().flat_map(move |operator| {
            operator.subtasks.iter().enumerate().filter_map(move |(index, subtask)| {
                let mut labels = self.operator_labels(operator);
                labels.push(("subtask", index.to_string().into()));
                Some((labels, value(subtask)?))
            })
        });
        samples.collect()
    }

    fn latencies(&self) -> Metric<'_> {
        let samples = self.operators.iter().filter_map(|operator| Some((operator, operator.latency?)));
        let samples = samples.flat_map(|(operator, (half, most))| {
            [("0.5", half), ("0.99", most)].map(|(quantile, latency)| {
                let mut labels = self.operator_labels(operator);
                labels.push(("quantile", quantile.into()));
                (labels, latency.as_secs_f64() * 1e3)
            })
        });
        let help = "How long rows have been in the stream when they are taken, in milliseconds";
        Metric { scope: "operator", name: "latency", help, samples: Samples::Gauge(samples.collect()) }
    }
}

/// A job with one source of two subtasks, and two edges from it to one sink, for tests.
#[cfg(test)]
pub(crate) fn example() -> Figures {
    use std::time::Duration;

    use ruslo::core::metrics::RowCounts;
    use ruslo::core::time::Timestamp;
    use ruslo::{Fill, Role};

    let subtask = |rows_in| SubtaskFigures {
        counts: RowCounts { rows_in, ..RowCounts::default() },
        too_old_files: 0,
        rates: (1.5, 0.0),
        bytes_in: None,
        bytes_out: None,
        busy_ms: 0.0,
        idle_ms: 0.0,
        backpressured_ms: 0.0,
        input_watermark: None,
        watermark: None,
        watermark_lag: None,
        alignment: Duration::ZERO,
    };
    let source = OperatorFigures {
        id: "5".to_owned(),
        name: "Source t".to_owned(),
        role: Role::Source,
        latency: Some((Duration::from_millis(2), Duration::from_millis(9))),
        subtasks: vec![subtask(3), subtask(u64::MAX)],
    };
    let edge = || EdgeFigures {
        from: "Source t".to_owned(),
        from_id: "5".to_owned(),
        to: "Sink o".to_owned(),
        to_id: "6".to_owned(),
        partitioning: "forward",
        fill: Fill::default(),
    };
    Figures {
        name: "j".to_owned(),
        at: Timestamp(1_767_225_600_001),
        uptime: Duration::from_secs(1),
        dropped_exports: 0,
        restarts: ruslo::Restarts::default(),
        memory_used_bytes: 0,
        memory_peak_bytes: 0,
        checkpoint: None,
        operators: vec![source],
        edges: vec![edge(), edge()],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_samples_of_a_metric_have_the_same_labels() {
        let figures = example();
        let metrics = figures.metrics();
        for Metric { name, samples, .. } in &metrics {
            let labels: Vec<_> = match samples {
                Samples::Counter(samples) => samples.iter().map(|(labels, _)| labels).collect(),
                Samples::Gauge(samples) => samples.iter().map(|(labels, _)| labels).collect(),
            };
            let different: BTreeSet<_> = labels.iter().collect();
            assert_eq!(different.len(), labels.len(), "{name}: {labels:?}");
        }
        let names: BTreeSet<_> = metrics.iter().map(|metric| (metric.scope, metric.name)).collect();
        assert_eq!(names.len(), metrics.len());
    }
}
