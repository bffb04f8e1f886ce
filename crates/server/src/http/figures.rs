//! What a job is doing, taken at one moment: what the JSON and Prometheus' text are made of.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ruslo::core::clock::Instant;
use ruslo::core::graph::Partitioning;
use ruslo::core::metrics::RowCounts;
use ruslo::core::time::Timestamp;
use ruslo::{CheckpointReport, Fill, Job, JobStatus, OperatorStatus, Role, Spent};

use super::rates::Samples;

/// A job, as far as it can be watched.
pub(super) struct Watched {
    name: String,
    /// None, if it is a batch job or was finished already.
    status: Option<Arc<JobStatus>>,
    begun: Instant,
    samples: Mutex<Samples>,
}

/// A job at one moment.
#[derive(Debug, Clone)]
pub(super) struct Figures {
    pub(super) name: String,
    pub(super) uptime: Duration,
    pub(super) memory_used_bytes: u64,
    pub(super) memory_peak_bytes: u64,
    pub(super) checkpoint: Option<(CheckpointReport, Duration)>,
    pub(super) operators: Vec<OperatorFigures>,
    pub(super) edges: Vec<EdgeFigures>,
}

/// An operator.
#[derive(Debug, Clone)]
pub(super) struct OperatorFigures {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) role: Role,
    /// How long rows have been in the stream when it takes them: a half, and 99 in 100.
    pub(super) latency: Option<(Duration, Duration)>,
    pub(super) subtasks: Vec<SubtaskFigures>,
}

/// A subtask of an operator.
#[derive(Debug, Clone)]
pub(super) struct SubtaskFigures {
    pub(super) counts: RowCounts,
    /// Rows in and out a second.
    pub(super) rates: (f64, f64),
    /// Through channels; rows handed on within a task are not.
    pub(super) bytes_in: Option<u64>,
    pub(super) bytes_out: Option<u64>,
    /// What its task spends its time on, in milliseconds a second.
    pub(super) busy_ms: f64,
    pub(super) idle_ms: f64,
    pub(super) backpressured_ms: f64,
    pub(super) watermark: Option<Timestamp>,
    /// How far the watermark is behind the clock.
    pub(super) watermark_lag: Option<Duration>,
    pub(super) alignment: Duration,
}

/// An edge.
#[derive(Debug, Clone)]
pub(super) struct EdgeFigures {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) partitioning: &'static str,
    pub(super) fill: Fill,
}

impl Watched {
    pub(super) fn new(job: &Job) -> Self {
        let status = job.status().cloned();
        let begun = status.as_ref().map_or(Instant::ZERO, |status| status.clock.now());
        Self { name: job.name().to_owned(), status, begun, samples: Mutex::default() }
    }

    /// Takes the totals that rates are made of.
    pub(super) fn sample(&self) {
        if let Some(status) = &self.status {
            let now = status.clock.now();
            self.samples().add(now, totals(status, now));
        }
    }

    fn samples(&self) -> std::sync::MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the job is doing now; none, if it cannot be watched.
    pub(super) fn figures(&self) -> Option<Figures> {
        let status = self.status.as_ref()?;
        let now = status.clock.now();
        let rates = self.samples().rates(now, &totals(status, now));
        let mut rates = rates.chunks_exact(TOTALS);
        let operators = status.operators.iter().enumerate();
        Some(Figures {
            name: self.name.clone(),
            uptime: now.saturating_sub(self.begun),
            memory_used_bytes: status.memory.used_bytes(),
            memory_peak_bytes: status.memory.peak_bytes(),
            checkpoint: status.last_checkpoint().map(|report| (report, now.saturating_sub(report.at))),
            operators: operators.map(|(index, of)| operator(status, index, of, &mut rates, now)).collect(),
            edges: edges(status),
        })
    }
}

/// How many totals a subtask has.
const TOTALS: usize = 5;

/// Of every subtask of every operator: rows in and out, and milliseconds busy, idle and backpressured.
fn totals(status: &JobStatus, now: Instant) -> Vec<f64> {
    let of_subtask = |operator: &OperatorStatus, subtask: usize| {
        let counts = operator.metrics.get(subtask).map(|metrics| metrics.counts()).unwrap_or_default();
        let Spent { idle, busy, backpressured } =
            operator.tasks.get(subtask).map(|task| task.activity().spent(now)).unwrap_or_default();
        let millis = [busy, idle, backpressured].map(|spent| spent.as_secs_f64() * 1_000.0);
        [counts.rows_in as f64, counts.rows_out as f64].into_iter().chain(millis)
    };
    let subtasks = status.operators.iter().flat_map(|of| (0..of.metrics.len()).map(move |subtask| (of, subtask)));
    subtasks.flat_map(|(operator, subtask)| of_subtask(operator, subtask)).collect()
}

fn operator<'a>(
    status: &JobStatus,
    index: usize,
    operator: &OperatorStatus,
    rates: &mut impl Iterator<Item = &'a [f64]>,
    now: Instant,
) -> OperatorFigures {
    let subtasks = (0..operator.metrics.len()).zip(rates);
    OperatorFigures {
        id: operator.id.to_string(),
        name: operator.name.clone(),
        role: operator.role,
        latency: operator.latency(now),
        subtasks: subtasks.map(|(subtask, rates)| subtask_figures(status, index, operator, subtask, rates)).collect(),
    }
}

fn subtask_figures(
    status: &JobStatus,
    index: usize,
    operator: &OperatorStatus,
    subtask: usize,
    rates: &[f64],
) -> SubtaskFigures {
    let rate = |place: usize| rates.get(place).copied().unwrap_or_default();
    let task = operator.tasks.get(subtask);
    let watermark = task.map(|task| task.watermark()).filter(|at| *at > Timestamp::MIN && *at < Timestamp::MAX);
    let lag = |at: Timestamp| {
        let behind = status.clock.wall().millis().saturating_sub(at.millis());
        Duration::from_millis(u64::try_from(behind).unwrap_or_default())
    };
    let channels = |is_in: bool| {
        let edges = status.edges.iter().filter(move |edge| (if is_in { edge.to } else { edge.from }) == index);
        let channels = edges.flat_map(|edge| &edge.channels);
        let own = channels.filter(|channel| (if is_in { channel.to } else { channel.from }) == subtask);
        own.map(|channel| channel.fill()).fold(None, |sum: Option<u64>, fill| {
            let waiting = if is_in { fill.bytes as u64 } else { 0 };
            Some(sum.unwrap_or_default() + fill.bytes_sent.saturating_sub(waiting))
        })
    };
    SubtaskFigures {
        counts: operator.metrics.get(subtask).map(|metrics| metrics.counts()).unwrap_or_default(),
        rates: (rate(0), rate(1)),
        bytes_in: channels(true),
        bytes_out: channels(false),
        busy_ms: rate(2),
        idle_ms: rate(3),
        backpressured_ms: rate(4),
        watermark,
        watermark_lag: watermark.map(lag),
        alignment: task.map(|task| task.alignment()).unwrap_or_default(),
    }
}

fn edges(status: &JobStatus) -> Vec<EdgeFigures> {
    let name = |index: usize| status.operators.get(index).map(|operator| operator.name.clone()).unwrap_or_default();
    let figures = status.edges.iter().map(|edge| EdgeFigures {
        from: name(edge.from),
        to: name(edge.to),
        partitioning: match edge.partitioning {
            Partitioning::Forward => "forward",
            Partitioning::KeyGroup(_) => "key group",
            Partitioning::Rebalance => "rebalance",
        },
        fill: edge.fill(),
    });
    figures.collect()
}
